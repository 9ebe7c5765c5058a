/* The shards of a snapshot that is sharded by CEL, while its rows come in. How many there are, and which is
 * which, may depend on rows to come: until the end a row has a provisional number. It is the shard's own in
 * direct and categorical mode; values that are inferred are numbered as they come, and again in their order
 * at the end. One thread. */
#ifndef SF_WRITER_CEL_SHARDS_H
#define SF_WRITER_CEL_SHARDS_H

#include "shardyfusion/writer.h"
#include "snapshot/cel_rule.h"
#include "snapshot/routing_values.h"

typedef struct sf_cel_shards {
    const sf_allocator *alloc;
    sf_arena arena; /* copies of what was given */
    const char *expr;
    const sf_routing_column *columns;
    size_t column_count;
    sf_routing_mode mode;
    sf_cel_rule *rule;
    sf_routing_values values; /* given, or inferred so far */
    uint32_t num_dbs;         /* 0: not known yet */
    uint64_t cut_rows;        /* whose text or bytes of a column ended at a NUL */
    char *sharding_json;      /* NULL: not known yet */
} sf_cel_shards;

/* `num_dbs`: as in sf_writer_options. SF_INVALID says what is wrong, SF_NOMEM. */
sf_status sf__cel_shards_init(sf_cel_shards *s, const sf_cel_sharding *given, uint32_t num_dbs, const sf_allocator *a,
                              sf_error *err) SF_MUST_USE;
void sf__cel_shards_cleanup(sf_cel_shards *s); /* takes a zeroed one */

/* The provisional number of a row's shard, below SF_LIMIT_SHARDS; after seal() the shard. SF_NO_ROUTE: the
 * expression fails, or gives what is no shard's; SF_INVALID: it gives what never is one; SF_NOMEM. */
sf_status sf__cel_shards_place(sf_cel_shards *s, const sf_key *key, uint32_t *number, sf_error *err) SF_MUST_USE;

/* All rows are there: has_rows(ctx, n) tells of the provisional numbers below `count`. From here on `num_dbs`
 * and `sharding_json` are known; *places is NULL when the numbers stay as they are, else the shard of each of
 * them, freed with sf__free(). SF_NO_ROUTE: a shard of direct mode has no row. */
sf_status sf__cel_shards_seal(sf_cel_shards *s, bool (*has_rows)(const void *ctx, uint32_t n), const void *ctx,
                              uint32_t count, uint32_t **places, sf_error *err) SF_MUST_USE;

#endif
