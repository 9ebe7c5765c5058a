/* Which blocks of one object are in memory: a place per block, where look-ups find it without a lock, and without a write that other
 * threads would have to see. The block cache fills and empties the places of the blocks that it has; blocks that are kept stay until the
 * table is closed. Finding: any thread. Everything else is the block cache's, which see. */
#ifndef SF_CACHE_BLOCK_TABLE_H
#define SF_CACHE_BLOCK_TABLE_H

#include "base/pin.h"
#include "base/striped.h"

#define SF_BLOCK_FIRST_BYTES 256u /* of a block that is found: fetched before they are asked for */
#define SF_BLOCK_MAX_CREDIT 3u
#define SF_BLOCK_KEPT ((uintptr_t)1)
#define SF_BLOCK_INHERITED ((uintptr_t)2) /* kept, too, and of the process that forked this one: never released */

typedef struct sf_block_table {
    atomic_uint refs; /* its SST's, and one of each block of the cache's that has a place in it */
    uint32_t count;
    struct sf_block_cache *cache;
    sf_striped *hits;     /* the cache's */
    struct sf_kept *kept; /* once children may inherit what it keeps (kept.h), or NULL; its SST's */
    atomic_uchar *used; /* how often a block was found since the cache looked, up to SF_BLOCK_MAX_CREDIT: from there on nothing is written */
    atomic_uintptr_t blocks[]; /* 0, or an sf_buf, with SF_BLOCK_KEPT and SF_BLOCK_INHERITED in its lowest bits */
} sf_block_table;

static inline sf_buf *sf__block_table_buf(uintptr_t place)
{
    return (sf_buf *)(place & ~(SF_BLOCK_KEPT | SF_BLOCK_INHERITED));
}

static inline bool sf__block_table_keeps(sf_block_table *t, uint32_t block)
{
    return (atomic_load_explicit(&t->blocks[block], memory_order_relaxed) & SF_BLOCK_KEPT) != 0;
}

/* Into the processor's cache. It may just be going. (Inlined always: GCC leaves calls of a function out that does nothing but fetch.) */
static inline __attribute__((always_inline)) void sf__block_fetch(const sf_buf *buf)
{
    for (unsigned i = 0; i < SF_BLOCK_FIRST_BYTES; i += 64)
        __builtin_prefetch((const uint8_t *)buf + i);
}

/* What the place has, or NULL; it may be going. */
static inline sf_buf *sf__block_table_peek(sf_block_table *t, uint32_t block)
{
    return sf__block_table_buf(atomic_load_explicit(&t->blocks[block], memory_order_relaxed));
}

/* Whether what was seen there, and is pinned since, is there still. Then the pin counts, and the block was found; *counts: that is a hit to
 * be counted. */
static inline bool sf__block_table_still(sf_block_table *t, uint32_t block, const sf_buf *buf, bool *counts)
{
    uintptr_t place = atomic_load(&t->blocks[block]);
    unsigned char used;

    *counts = place == (uintptr_t)buf;
    if (!*counts)
        return sf__block_table_buf(place) == buf;
    used = atomic_load_explicit(&t->used[block], memory_order_relaxed);
    if (used < SF_BLOCK_MAX_CREDIT)
        atomic_store_explicit(&t->used[block], (unsigned char)(used + 1), memory_order_relaxed);
    return true;
}

static inline bool sf__block_table_found(sf_block_table *t, uint32_t block, const sf_buf *buf, sf_pins *mine)
{
    bool counts, still = sf__block_table_still(t, block, buf, &counts);

    if (counts)
        sf__striped_add(t->hits, mine->number, 1);
    return still;
}

/* The block, which `pin`, one of `mine` and not set, keeps alive; or NULL: it is not there, or was just leaving. */
static inline sf_buf *sf__block_table_find(sf_block_table *t, uint32_t block, sf_pins *mine, sf_pin *pin)
{
    sf_buf *buf = sf__block_table_peek(t, block);

    if (!buf)
        return NULL;
    sf__block_fetch(buf);
    sf__pin_set(pin, buf);
    if (sf__block_table_found(t, block, buf, mine))
        return buf;
    if (sf__pin_take_off(pin))
        sf__buf_release(buf);
    return NULL;
}

#endif
