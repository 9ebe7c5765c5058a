/* Which shard holds a key. Fixed once initialised; any thread may route. Nothing here allocates. */
#ifndef SF_SNAPSHOT_ROUTER_H
#define SF_SNAPSHOT_ROUTER_H

#include "snapshot/key.h"

struct sf_snapshot_manifest;

/* Values of the columns that a CEL expression routes by; nothing makes one yet. */
typedef struct sf_routing_context sf_routing_context;

typedef struct sf_router {
    sf_sharding_strategy strategy;
    uint32_t num_dbs;
    uint64_t mask; /* num_dbs - 1 when that is a power of two, else 0: a division costs more than the rest */
} sf_router;

/* SF_INVALID without shards. */
sf_status sf__router_init_hash(sf_router *r, uint32_t num_dbs, sf_error *err);
/* SF_INVALID without shards. Of a strategy that cannot be evaluated, too: that router routes nothing. */
sf_status sf__router_init(sf_router *r, const struct sf_snapshot_manifest *m, sf_error *err);
/* SF_UNSUPPORTED for strategies that cannot be evaluated: who is going to read had better not open such a snapshot. */
sf_status sf__router_check(const struct sf_snapshot_manifest *m, sf_error *err);

/* `context` may be NULL; a hash router takes none (SF_INVALID_KEY). */
sf_status sf__router_route_in(const sf_router *r, const sf_key *key, const sf_routing_context *context,
                              uint32_t *db_id, sf_error *err);

static inline sf_status sf__router_route(const sf_router *r, const sf_key *key, uint32_t *db_id, sf_error *err)
{
    return sf__router_route_in(r, key, NULL, db_id, err);
}

#endif
