/* Rows on their way from the processes that read them to the one that builds their shard. Whoever moves them (Spark, say) sees
 * few opaque blocks, each with the number of its shard, in place of many rows; keys have their stored bytes.
 *
 *   block: u64le xxh3_64 of what follows | u32le magic | u32le shard | u32le rows | u32le key type | u32le left out
 *          | rows: u32le key length | u32le value length | key | value
 *
 * "Left out" are rows that were, since the block before: they are counted where blocks are read, once, whatever is tried twice on the way.
 * What moves blocks may damage them, or be of another version: reading checks all. One thread. */
#ifndef SF_WRITER_SHUFFLE_H
#define SF_WRITER_SHUFFLE_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "writer/arrow_rows.h"

#define SF_SHUFFLE_BLOCK_BYTES (4u << 10) /* a block that is not the last of its shard is about as large, or one row */

/* ------------------------------------------------------------------ making blocks -------------------------------- */

typedef struct sf_shuffle sf_shuffle;

typedef struct sf_shuffle_options {
    uint32_t num_dbs; /* required, but for given routing values of CEL */
    sf_key_encoding key_encoding;
    bool int64_keys;            /* as in sf_writer_options */
    sf_backend backend;         /* whose limits on lengths count */
    const sf_cel_sharding *cel; /* copied; NULL: by the hash of the key. Values are not inferred here */
    uint32_t block_bytes;       /* memory for so many is taken for each shard that has rows */
    bool leave_out;             /* rows that are SF_BAD_ROW or SF_NO_ROUTE, instead of failing */
} sf_shuffle_options;
#define SF_SHUFFLE_OPTIONS_INIT {.key_encoding = SF_KEY_U64BE, .block_bytes = SF_SHUFFLE_BLOCK_BYTES}

/* Blocks that are complete; block i lies at off[i] of `bytes` and ends at off[i + 1]. They fit what Arrow calls binary. */
typedef struct sf_shuffle_blocks {
    size_t count;
    const int32_t *db_ids;
    const int32_t *off; /* count + 1 of them */
    const uint8_t *bytes;
} sf_shuffle_blocks;

sf_status sf__shuffle_new(sf_shuffle **out, const sf_shuffle_options *opts, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* The rows of a stream, as sf_writer_add_arrow() or, with members as the value, sf_writer_add_arrow_json() takes them; errors, too. After a
 * failure only free is left. */
sf_status sf__shuffle_add_arrow(sf_shuffle *s, struct ArrowArrayStream *stream, const char *key_column,
                                const sf_arrow_value *value, sf_error *err) SF_MUST_USE;
/* So many rows are left out, which the caller could not read itself. */
void sf__shuffle_leave_out(sf_shuffle *s, uint32_t count);
/* No rows follow: all blocks are complete. */
sf_status sf__shuffle_finish(sf_shuffle *s, sf_error *err) SF_MUST_USE;
/* Those that are complete since the last call; until the next call of any function. */
void sf__shuffle_take(sf_shuffle *s, sf_shuffle_blocks *out);
void sf__shuffle_free(sf_shuffle *s); /* takes NULL */

/* ------------------------------------------------------------------ reading them --------------------------------- */

typedef struct sf_shuffle_block {
    uint32_t db_id;
    uint32_t rows; /* that are left */
    uint32_t left_out;
    sf_key_type key_type; /* INT, STR or BYTES */
    sf_cursor rest;
} sf_shuffle_block;

/* SF_CORRUPT. The block is borrowed. */
sf_status sf__shuffle_block_open(sf_shuffle_block *out, sf_bytes block, sf_error *err) SF_MUST_USE;
/* The next row; call it `rows` times. SF_CORRUPT. */
sf_status sf__shuffle_block_next(sf_shuffle_block *b, sf_bytes *key, sf_bytes *value, sf_error *err) SF_MUST_USE;

#endif
