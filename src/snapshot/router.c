#include "snapshot/router.h"

#define XXH_INLINE_ALL /* with its length known, the hash of an integer is a handful of instructions */
#include <xxhash.h>

#include "base/error.h"
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

sf_status sf__router_init(sf_router *r, const sf_snapshot_manifest *m, sf_error *err)
{
    sf_status rc = sf__router_init_hash(r, m->num_dbs, err);

    r->strategy = m->strategy;
    return rc;
}

sf_status sf__router_check(const sf_snapshot_manifest *m, sf_error *err)
{
    return m->strategy == SF_SHARDING_HASH ? SF_OK : sf_fail(err, SF_UNSUPPORTED, "CEL routing is not supported yet");
}

static uint64_t key_hash(const sf_key *key)
{
    uint8_t scratch[8];
    sf_bytes b = sf__key_route_bytes(key, scratch);

    return sf__key_is_int(key) ? XXH3_64bits(scratch, sizeof(scratch)) : XXH3_64bits(b.p, b.n);
}

sf_status sf__router_route_in(const sf_router *r, const sf_key *key, const sf_routing_context *context,
                              uint32_t *db_id, sf_error *err)
{
    uint64_t hash;

    if (r->strategy != SF_SHARDING_HASH)
        return sf_fail(err, SF_UNSUPPORTED, "CEL routing is not supported yet");
    if (context)
        return sf_fail(err, SF_INVALID_KEY, "route_with_context requires CEL sharding strategy");
    hash = key_hash(key);
    *db_id = (uint32_t)(r->mask > 0 || r->num_dbs == 1 ? hash & r->mask : hash % r->num_dbs);
    return SF_OK;
}
