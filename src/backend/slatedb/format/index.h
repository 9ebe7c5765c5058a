/* The decoded index of one SST: where each data block lies, and a lower bound of its keys
 * (docs/formats/slatedb.md 5.4). Immutable after decoding; any thread. Owns its memory: the stored bytes may go.
 *
 * Search works on `heads`: 8 bytes of the bounds, the first ones or those after the prefix that all share, as numbers in one dense array, of which `marks` tell
 * the part to look at: most keys are integers or hashes, spread evenly, and then that is a few of them. Whole keys are compared only
 * among equal heads. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_INDEX_H
#define SF_BACKEND_SLATEDB_FORMAT_INDEX_H

#include "backend/slatedb/format/compress.h"

typedef struct sf_index {
    uint32_t count;         /* blocks; 0 in an SST without rows */
    uint32_t leading_empty; /* bounds 0 .. leading_empty-1 are empty */
    uint32_t shared_len; /* bytes that the bounds 1 .. count-1 (those that are not empty) begin with; 0: their first 8 bytes differ, too */
    uint64_t parts_per_head; /* 2^64ths of a part (`marks`) */
    uint64_t *offs; /* count + 1; the last one is the end of the blocks. One allocation: `heads`, `key_pos`, `marks` and the keys lie behind them */
} sf_index;

/* `count` of them. */
static inline uint64_t *sf__index_heads(const sf_index *idx)
{
    return idx->offs + idx->count + 1;
}

/* count + 1; into the keys, which are the lower bounds, one after the other, and follow. */
static inline uint32_t *sf__index_key_pos(const sf_index *idx)
{
    return (uint32_t *)(sf__index_heads(idx) + idx->count);
}

/* Into so many equal parts the values from the first to the last head are cut, from the first bound that is not empty on. */
static inline uint32_t sf__index_mark_count(const sf_index *idx)
{
    return idx->count / 4 + 1;
}

/* One more than that: the first bound of each part. */
static inline uint32_t *sf__index_marks(const sf_index *idx)
{
    return sf__index_key_pos(idx) + idx->count + 1;
}

static inline uint8_t *sf__index_keys(const sf_index *idx)
{
    return (uint8_t *)(sf__index_marks(idx) + sf__index_mark_count(idx) + 1);
}

/* Blocks first .. last, both included, all of them adjacent in the file; first > last when there is none. */
typedef struct sf_index_range {
    uint32_t first, last;
} sf_index_range;

/* `plain` = the decompressed index; blocks_end = sf__sst_blocks_end(). */
sf_status sf__index_decode(sf_index *out, sf_bytes plain, uint64_t blocks_end, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__index_cleanup(sf_index *idx, const sf_allocator *a);
/* What it takes, for a cache to charge. */
size_t sf__index_bytes(const sf_index *idx);

static inline uint64_t sf__index_block_off(const sf_index *idx, uint32_t i)
{
    return idx->offs[i];
}

/* With the checksum; never 0. */
static inline uint64_t sf__index_block_len(const sf_index *idx, uint32_t i)
{
    return idx->offs[i + 1] - idx->offs[i];
}

/* At or below every key of block i, at or above every key of block i-1. */
static inline sf_bytes sf__index_block_bound(const sf_index *idx, uint32_t i)
{
    const uint32_t *pos = sf__index_key_pos(idx) + i;

    return (sf_bytes){sf__index_keys(idx) + pos[0], pos[1] - pos[0]};
}

/* First block whose bound is >= key (count: none), and first whose bound is > key. */
uint32_t sf__index_lower_bound(const sf_index *idx, sf_bytes key);
uint32_t sf__index_upper_bound(const sf_index *idx, sf_bytes key);

/* The blocks that may hold `key`, newest version first; nearly always one. */
sf_index_range sf__index_candidates(const sf_index *idx, sf_bytes key);
/* The only one, as it nearly always is, for a key that is not empty; false: there are none or several. */
bool sf__index_only_block(const sf_index *idx, sf_bytes key, uint32_t *block);

#endif
