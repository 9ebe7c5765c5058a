/* The `sharding` column of a manifest: how keys are spread over shards (docs/formats/snapshot.md 4.4). Pure; any
 * thread. */
#ifndef SF_SNAPSHOT_MANIFEST_SHARDING_H
#define SF_SNAPSHOT_MANIFEST_SHARDING_H

#include "base/strbuf.h"
#include "shardyfusion/base.h"
#include "snapshot/routing_values.h"

typedef struct sf_sharding {
    sf_sharding_strategy strategy;
    bool categorical;   /* CEL with routing_values */
    size_t value_count; /* of routing_values */
} sf_sharding;

/* Checks `text` and appends it to `canonical` in the writer's own form: five members in order, integers as integers.
 * `boundaries`, a member of older versions, is taken when it is null and `boundaries_allowed`. SF_BAD_MANIFEST. */
sf_status sf__sharding_decode(sf_sharding *out, sf_strbuf *canonical, sf_bytes text, bool boundaries_allowed,
                              const sf_allocator *a, sf_error *err);

/* The same text for a snapshot that is sharded by CEL. `values`: NULL in direct mode. SF_INVALID for what no manifest can have:
 * no expression or columns, names or text that are not UTF-8. */
sf_status sf__sharding_cel_write(sf_strbuf *out, const char *expr, const sf_routing_column *columns,
                                 size_t column_count, const sf_routing_values *values, sf_error *err);

#endif
