#include "snapshot/router.h"

#include "base/error.h"
#include "snapshot/cel_rule.h"
#include "snapshot/int_key.h"
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

sf_status sf__router_route(const sf_router *r, const sf_key *key, uint32_t *db_id, sf_error *err)
{
    uint64_t hash;

    if (r->strategy == SF_SHARDING_CEL)
        return r->rule ? sf__cel_rule_route(r->rule, key, db_id, err)
                       : sf_fail(err, SF_INVALID, "the CEL expression of this snapshot does not compile");
    if (key->context)
        return sf_fail(err, SF_INVALID_KEY, SF_NO_CONTEXT_WITH_HASH);
    hash = sf__key_is_int(key) ? sf__int_key_hash(key->u) : XXH3_64bits(key->b.p, key->b.n);
    *db_id = sf__router_shard_of(r, hash);
    return SF_OK;
}
