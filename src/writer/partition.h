/* Rows on their way to shards: from a key as the user has it to its shard and its stored bytes, checked; and what a
 * publisher wants to know of all rows. One thread. */
#ifndef SF_WRITER_PARTITION_H
#define SF_WRITER_PARTITION_H

#include "base/checksum.h"
#include "shardyfusion/writer.h"
#include "snapshot/router.h"

/* What a backend can store. */
typedef struct sf_row_limits {
    size_t min_key_bytes, max_key_bytes, max_value_bytes;
    size_t max_row_bytes; /* key and value together */
} sf_row_limits;

typedef struct sf_partition {
    sf_router router;
    sf_key_encoding encoding;
    bool int64_keys; /* none from 2^63 on */
    sf_row_limits limits;
} sf_partition;

typedef struct sf_placed_row {
    uint32_t db_id;
    sf_bytes key; /* stored bytes; in `scratch` or the user's own */
    uint8_t scratch[8];
} sf_placed_row;

/* `number` counts from 1 and is for the message: every failure is SF_BAD_ROW and begins with "row N: ". Nothing is
 * copied; *out must not move while `key` is used. */
sf_status sf__partition_place(const sf_partition *p, const sf_key *key, sf_bytes value, uint64_t number,
                              sf_placed_row *out, sf_error *err) SF_MUST_USE;

/* ------------------------------------------------------------------ counting ------------------------------------- */

typedef struct sf_row_counts {
    uint64_t rows, key_bytes, value_bytes;
    uint64_t *shard_rows; /* num_dbs */
    uint64_t key_sizes[SF_HISTOGRAM_BUCKETS], value_sizes[SF_HISTOGRAM_BUCKETS];
} sf_row_counts;

bool sf__row_counts_init(sf_row_counts *c, uint32_t num_dbs, const sf_allocator *a) SF_MUST_USE;
void sf__row_counts_cleanup(sf_row_counts *c, const sf_allocator *a);
void sf__row_counts_add(sf_row_counts *c, uint32_t db_id, size_t key_bytes, size_t value_bytes);

/* ------------------------------------------------------------------ sampling ------------------------------------- */

/* Some keys with the hash of what was added for them last: the ones whose hashes are smallest, so that it does not
 * depend on the order of rows, and a key that comes again is found again. */
typedef struct sf_sampled {
    uint64_t hash; /* of the key */
    uint32_t db_id;
    sf_bytes key;  /* stored bytes */
    sf_hash128 value_hash;
} sf_sampled;

typedef struct sf_sample {
    const sf_allocator *alloc;
    sf_sampled *rows; /* by ascending hash, then key */
    size_t count, cap;
} sf_sample;

bool sf__sample_init(sf_sample *s, size_t cap, const sf_allocator *a) SF_MUST_USE;
void sf__sample_cleanup(sf_sample *s); /* takes a zeroed one */
/* False without memory. */
bool sf__sample_add(sf_sample *s, const sf_placed_row *row, sf_bytes value) SF_MUST_USE;

#endif
