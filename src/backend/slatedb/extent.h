/* Adjacent blocks of one SST, read with one GET of exactly their bytes; those that nobody wants are passed over. Loop thread
 * only. */
#ifndef SF_BACKEND_SLATEDB_EXTENT_H
#define SF_BACKEND_SLATEDB_EXTENT_H

#include "backend/slatedb/sst.h"
#include "cache/fetch.h"

/* What one GET of several blocks asks for at most; a larger block goes alone. */
#define SF_EXTENT_MAX_BYTES (UINT64_C(1) << 20)

typedef struct sf_extent_block {
    sf_buf *plain;    /* holds it, and nothing else unless the extent is in_place; NULL: damaged, or not read */
    sf_status status; /* of this block */
    bool unwanted;    /* it comes, since it lies between others, and is not looked at */
} sf_extent_block;

typedef struct sf_extent {
    const sf_sst *sst;
    uint32_t first, count;
    sf_block_cache *cache;              /* where its blocks go; NULL: nowhere. Set by the owner */
    bool stays;                         /* it is kept on disk even so; likewise */
    const sf_block_cache *stays_beside; /* its blocks stay in memory even so, out of that cache's reach; NULL: not; likewise */
    bool in_place; /* blocks that are stored as they are stay in what was read, all of which they keep; likewise */
    void (*done)(struct sf_extent *e); /* exactly once, never inside start */
    /* results */
    const sf_error *error; /* of the whole read, or of the first block that failed; NULL: none */
    /* private, but for fetch.ctx, which is the owner's */
    sf_fetch fetch;
    sf_extent_block *many; /* of more than one block; else: */
    sf_extent_block one;
} sf_extent;

/* Not started. The SST must outlive it. Until it is started it may be moved. False without memory: no clean-up then. */
bool sf__extent_init(sf_extent *e, const sf_sst *sst, uint32_t first, uint32_t count, const sf_allocator *a) SF_MUST_USE;
/* Before the start. */
void sf__extent_pass_over(sf_extent *e, uint32_t block);
void sf__extent_cleanup(sf_extent *e, const sf_allocator *a); /* not in flight */
void sf__extent_start(sf_extent *e, sf_fetcher *f, sf_store *store, uint64_t deadline_ns, void (*done)(sf_extent *e),
                      void *ctx);

static inline sf_extent_block *sf__extent_blocks(sf_extent *e)
{
    return e->many ? e->many : &e->one;
}

/* Of a block that it has. */
static inline const sf_extent_block *sf__extent_block(const sf_extent *e, uint32_t block)
{
    return &(e->many ? e->many : &e->one)[block - e->first];
}

/* Its bytes; none of one that is damaged. */
static inline sf_bytes sf__extent_block_bytes(const sf_extent *e, uint32_t block)
{
    sf_bytes all = sf__buf_bytes(sf__extent_block(e, block)->plain);

    if (e->in_place && e->sst->view->info.codec == SF_CODEC_NONE &&
        !sf_bytes_slice(all, sf__index_block_off(&e->sst->index, block) - e->fetch.off,
                        sf__index_block_len(&e->sst->index, block) - SF_STORED_CRC_BYTES, &all))
        return (sf_bytes){NULL, 0}; /* that was looked at when it was opened */
    return all;
}

static inline bool sf__extent_has(const sf_extent *e, const sf_sst *sst, uint32_t block)
{
    return e && e->sst == sst && block >= e->first && block - e->first < e->count &&
           !sf__extent_block(e, block)->unwanted;
}

#endif
