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
    bool quick;              /* that is 0, and there are SF_INDEX_FEW of them or more */
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

#define SF_INDEX_FEW 8u /* heads that are searched always */

/* The part that a head lies in, which is at or above the first one. */
static inline uint32_t sf__index_part_of(const sf_index *idx, uint64_t head)
{
    return (uint32_t)((unsigned __int128)(head - sf__index_heads(idx)[idx->leading_empty]) * idx->parts_per_head >> 64);
}

/* SF_INDEX_FEW heads, from *from on, of which each before is below `head` and each behind is not. That is above the first head and not above the
 * last, of SF_INDEX_FEW or more. False: more than those are in question. */
static inline __attribute__((always_inline)) bool sf__index_few(const sf_index *idx, uint64_t head, uint32_t *from)
{
    const uint32_t *marks = sf__index_marks(idx) + sf__index_part_of(idx, head);
    uint32_t last = idx->count - SF_INDEX_FEW;

    *from = marks[0] < last ? marks[0] : last; /* so many whether they are needed or not: nothing to mispredict */
    return marks[1] - marks[0] <= SF_INDEX_FEW;
}

/* The first head that is >= head. */
static inline __attribute__((always_inline)) uint32_t sf__index_bound_of_few(const sf_index *idx, uint64_t head,
                                                                             uint32_t from)
{
    const uint64_t *heads = sf__index_heads(idx) + from;

#pragma GCC unroll 8
    for (uint32_t i = 0; i < SF_INDEX_FEW; i++)
        from += heads[i] < head;
    return from;
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
/* The only one, as it nearly always is; false: there are none or several, or the key is empty. */
bool sf__index_only_candidate(const sf_index *idx, sf_bytes key, uint32_t *block);

/* The same in two steps, where arithmetic alone tells: nearly always. Between them the heads from `from` on can be fetched. */
static inline __attribute__((always_inline)) bool sf__index_only_few(const sf_index *idx, sf_bytes key, uint32_t *from)
{
    const uint64_t *heads = sf__index_heads(idx);
    uint64_t head;

    if (!idx->quick || key.n < sizeof(head))
        return false;
    head = sf_load_be(key.p, sizeof(head));
    return head > heads[idx->leading_empty] && head <= heads[idx->count - 1] && sf__index_few(idx, head, from);
}

static inline __attribute__((always_inline)) bool sf__index_only_of_few(const sf_index *idx, sf_bytes key,
                                                                        uint32_t from, uint32_t *block)
{
    uint64_t head = sf_load_be(key.p, sizeof(head));
    uint32_t above = sf__index_bound_of_few(idx, head, from);

    *block = above - 1;
    return sf__index_heads(idx)[above] != head || sf__index_only_candidate(idx, key, block);
}

#endif
