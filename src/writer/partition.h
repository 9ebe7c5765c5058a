/* Rows on their way to shards: from a key as the user has it to its shard and its stored bytes, checked; and what a
 * publisher wants to know of all rows. One thread. */
#ifndef SF_WRITER_PARTITION_H
#define SF_WRITER_PARTITION_H

#include "base/checksum.h"
#include "shardyfusion/writer.h"
#include "snapshot/router.h"
#include "writer/cel_shards.h"

/* What a backend can store. */
typedef struct sf_row_limits {
    size_t min_key_bytes, max_key_bytes, max_value_bytes;
    size_t max_row_bytes; /* key and value together */
} sf_row_limits;

typedef struct sf_partition {
    sf_router router;   /* by hash */
    sf_cel_shards *cel; /* or this; the owner's */
    sf_key_encoding encoding;
    bool int64_keys; /* none from 2^63 on */
    sf_row_limits limits;
} sf_partition;

typedef struct sf_placed_row {
    uint32_t db_id; /* with CEL provisional: see cel_shards.h */
    sf_bytes key;   /* stored bytes; in `scratch` or the user's own */
    uint8_t scratch[8];
} sf_placed_row;

/* `number` counts from 1 and is for the message: every failure begins with "row N: ". It is SF_BAD_ROW, or what
 * sf__cel_shards_place() says. Nothing is copied; *out must not move while `key` is used. */
sf_status sf__partition_place(const sf_partition *p, const sf_key *key, sf_bytes value, uint64_t number,
                              sf_placed_row *out, sf_error *err) SF_MUST_USE;

/* Whether a failure is the row's own, so that the others may go on without it. */
static inline bool sf__row_is_bad(sf_status rc)
{
    return rc == SF_BAD_ROW || rc == SF_NO_ROUTE;
}

/* Whether a row that was placed elsewhere may be stored, and belongs where it was placed; of CEL that cannot be told. `type` is that
 * of the key as the user has it. Failures as above, and SF_NO_ROUTE. */
sf_status sf__partition_check(const sf_partition *p, const sf_placed_row *row, sf_key_type type, sf_bytes value,
                              uint64_t number, sf_error *err) SF_MUST_USE;

/* ------------------------------------------------------------------ counting ------------------------------------- */

typedef struct sf_shard_rows {
    uint64_t count;
    sf_key_type key_type; /* of the first */
} sf_shard_rows;

typedef struct sf_row_counts {
    const sf_allocator *alloc;
    uint64_t rows, key_bytes, value_bytes;
    sf_shard_rows *shards; /* by db_id */
    uint32_t shard_count;
    size_t shard_cap;
    uint64_t key_sizes[SF_HISTOGRAM_BUCKETS], value_sizes[SF_HISTOGRAM_BUCKETS];
} sf_row_counts;

void sf__row_counts_init(sf_row_counts *c, const sf_allocator *a);
void sf__row_counts_cleanup(sf_row_counts *c); /* takes a zeroed one */
/* All shards below `count` are there from now on. False without memory. */
bool sf__row_counts_reserve(sf_row_counts *c, uint32_t count) SF_MUST_USE;
/* The shard is there. */
void sf__row_counts_add(sf_row_counts *c, const sf_placed_row *row, sf_key_type key_type, size_t value_bytes);
/* `num_dbs` shards, of which what was n so far is places[n] from now on; NULL: n. False without memory. */
bool sf__row_counts_renumber(sf_row_counts *c, uint32_t num_dbs, const uint32_t *places) SF_MUST_USE;

/* ------------------------------------------------------------------ sampling ------------------------------------- */

/* Some keys with the hash of what was added for them last: the ones whose hashes are smallest, so that it does not
 * depend on the order of rows, and a key that comes again is found again. */
typedef struct sf_sampled {
    uint64_t hash; /* of the key */
    uint32_t db_id;
    sf_bytes key; /* stored bytes */
    sf_hash128 value_hash;
} sf_sampled;

typedef struct sf_sample {
    const sf_allocator *alloc;
    sf_sampled *rows; /* by ascending hash, then key */
    size_t count, cap;
} sf_sample;

bool sf__sample_init(sf_sample *s, size_t cap, const sf_allocator *a) SF_MUST_USE;
void sf__sample_cleanup(sf_sample *s); /* takes a zeroed one */
/* As sf__row_counts_renumber(). */
void sf__sample_renumber(sf_sample *s, const uint32_t *places);
/* False without memory. */
bool sf__sample_add(sf_sample *s, const sf_placed_row *row, sf_bytes value) SF_MUST_USE;

#endif
