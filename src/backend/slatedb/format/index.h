/* The decoded index of one SST: where each data block lies, and a lower bound of its keys
 * (docs/formats/slatedb.md 5.4). Immutable after decoding; any thread. Owns its memory: the stored bytes may go.
 *
 * Search works on `heads`: the 8 bytes after the prefix that all bounds share, as numbers in one dense array. Whole
 * keys are compared only among equal heads. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_INDEX_H
#define SF_BACKEND_SLATEDB_FORMAT_INDEX_H

#include "backend/slatedb/format/compress.h"

typedef struct sf_index {
    uint32_t count;         /* blocks; 0 in an SST without rows */
    uint32_t shared_len;    /* bytes that the bounds 1 .. count-1 (those that are not empty) begin with */
    uint64_t *offs;         /* count + 1; the last one is the end of the blocks */
    uint64_t *heads;        /* count */
    double blocks_per_head; /* how steeply heads rise, from the first bound that is not empty: where one is to be expected */
    uint32_t *key_pos;      /* count + 1; into keys */
    uint8_t *keys;          /* lower bounds, one after the other */
    uint32_t leading_empty; /* bounds 0 .. leading_empty-1 are empty */
    size_t bytes;           /* what all this takes, for a cache to charge */
    void *memory;           /* one allocation */
    const sf_allocator *alloc;
} sf_index;

/* Blocks first .. last, both included, all of them adjacent in the file; first > last when there is none. */
typedef struct sf_index_range {
    uint32_t first, last;
} sf_index_range;

/* `plain` = the decompressed index; blocks_end = sf__sst_blocks_end(). */
sf_status sf__index_decode(sf_index *out, sf_bytes plain, uint64_t blocks_end, const sf_allocator *a,
                           sf_error *err) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__index_cleanup(sf_index *idx);

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
    return (sf_bytes){idx->keys + idx->key_pos[i], idx->key_pos[i + 1] - idx->key_pos[i]};
}

/* First block whose bound is >= key (count: none), and first whose bound is > key. */
uint32_t sf__index_lower_bound(const sf_index *idx, sf_bytes key);
uint32_t sf__index_upper_bound(const sf_index *idx, sf_bytes key);

/* The blocks that may hold `key`, newest version first; nearly always one. */
sf_index_range sf__index_candidates(const sf_index *idx, sf_bytes key);

#endif
