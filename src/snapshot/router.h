/* Which shard holds a key. Fixed once initialised; any thread may route. Nothing on the way of a hash allocates. */
#ifndef SF_SNAPSHOT_ROUTER_H
#define SF_SNAPSHOT_ROUTER_H

#include "snapshot/key.h"

struct sf_snapshot_manifest;
struct sf_cel_rule;

#define SF_NO_CONTEXT_WITH_HASH "route_with_context requires CEL sharding strategy"

typedef struct sf_router {
    sf_sharding_strategy strategy;
    uint32_t num_dbs;
    uint64_t mask;            /* num_dbs - 1 when that is a power of two, else 0: a division costs more than the rest */
    struct sf_cel_rule *rule; /* CEL */
} sf_router;

/* SF_INVALID without shards. Needs no clean-up. */
sf_status sf__router_init_hash(sf_router *r, uint32_t num_dbs, sf_error *err);
/* SF_INVALID when a CEL expression does not compile: better not to open a snapshot than to misread it. Then, too, *r may be used,
 * but it routes nothing. */
sf_status sf__router_init(sf_router *r, const struct sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err);
void sf__router_cleanup(sf_router *r); /* harmless on a zeroed one */

/* By hash: the shard of a key. */
static inline uint32_t sf__router_shard_of(const sf_router *r, uint64_t hash)
{
    return (uint32_t)(r->mask > 0 || r->num_dbs == 1 ? hash & r->mask : hash % r->num_dbs);
}

/* SF_INVALID_KEY when the key cannot be routed here, with its context or without; SF_NO_ROUTE for a value that no shard stands for;
 * SF_INVALID when a CEL expression gives what names no shard at all. */
sf_status sf__router_route(const sf_router *r, const sf_key *key, uint32_t *db_id, sf_error *err);

#endif
