#include "snapshot/router.h"

#define XXH_INLINE_ALL /* with its length known, the hash of an integer is a handful of instructions */
#include <xxhash.h>

#include "base/error.h"
#include "snapshot/cel_rule.h"
#include "snapshot/snapshot_manifest.h"

sf_status sf__router_init_hash(sf_router *r, uint32_t num_dbs, sf_error *err)
{
    if (num_dbs == 0)
        return sf_fail(err, SF_INVALID, "num_dbs must be positive, got 0");
    *r = (sf_router){.strategy = SF_SHARDING_HASH, .num_dbs = num_dbs};
    if ((num_dbs & (num_dbs - 1)) == 0)
        r->mask = num_dbs - 1;
    return SF_OK;
}

sf_status sf__router_init(sf_router *r, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err)
{
    if (m->strategy == SF_SHARDING_HASH)
        return sf__router_init_hash(r, m->num_dbs, err);
    *r = (sf_router){.strategy = SF_SHARDING_CEL, .num_dbs = m->num_dbs};
    return sf__cel_rule_new(&r->rule, sf_bytes_str(m->sharding_json), m->num_dbs, a, err);
}

void sf__router_cleanup(sf_router *r)
{
    sf__cel_rule_free(r->rule);
    r->rule = NULL;
}

static uint64_t key_hash(const sf_key *key)
{
    uint8_t scratch[8];
    sf_bytes b = sf__key_route_bytes(key, scratch);

    return sf__key_is_int(key) ? XXH3_64bits(scratch, sizeof(scratch)) : XXH3_64bits(b.p, b.n);
}

sf_status sf__router_route(const sf_router *r, const sf_key *key, uint32_t *db_id, sf_error *err)
{
    uint64_t hash;

    if (r->strategy == SF_SHARDING_CEL)
        return r->rule ? sf__cel_rule_route(r->rule, key, db_id, err)
                       : sf_fail(err, SF_INVALID, "the CEL expression of this snapshot does not compile");
    if (key->context)
        return sf_fail(err, SF_INVALID_KEY, SF_NO_CONTEXT_WITH_HASH);
    hash = key_hash(key);
    *db_id = (uint32_t)(r->mask > 0 || r->num_dbs == 1 ? hash & r->mask : hash % r->num_dbs);
    return SF_OK;
}
