#include "backend/slatedb/extent.h"

#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"

bool sf__extent_init(sf_extent *e, const sf_sst *sst, uint32_t first, uint32_t count, const sf_allocator *a)
{
    *e = (sf_extent){.sst = sst, .first = first, .count = count};
    if (count > 1)
        e->many = sf__calloc(a, count, sizeof(*e->many));
    return count == 1 || e->many;
}

void sf__extent_pass_over(sf_extent *e, uint32_t block)
{
    sf__extent_blocks(e)[block - e->first].unwanted = true;
}

static void drop_blocks(sf_extent *e)
{
    sf_extent_block *blocks = sf__extent_blocks(e);

    for (uint32_t i = 0; i < e->count; i++) {
        sf__buf_release(blocks[i].plain);
        blocks[i].plain = NULL;
        blocks[i].status = SF_OK;
    }
}

void sf__extent_cleanup(sf_extent *e, const sf_allocator *a)
{
    drop_blocks(e);
    sf__free(a, e->many);
    sf_error_drop(a, e->error);
}

static bool gets_directories(const sf_extent *e)
{
    return e->cache || e->stays_beside;
}

/* A block of the SST out of what was read. One that is alone in its buffer, which nobody else has, stays in it. */
static sf_status block_open(const sf_extent *e, uint32_t i, sf_buf *data, sf_plain_room *room, sf_buf **plain,
                            sf_error *err)
{
    const sf_fetch *f = &e->fetch;
    uint32_t block = e->first + i;
    bool own = e->count == 1 && atomic_load_explicit(&data->refs, memory_order_acquire) == 1;
    sf_bytes stored;

    if (!sf_bytes_slice(sf__buf_bytes(data), sf__index_block_off(&e->sst->index, block) - f->off,
                        sf__index_block_len(&e->sst->index, block), &stored))
        return sf_fail(err, SF_CORRUPT, "data block %u lies outside of what was read", block);
    if (e->in_place)
        return sf__sst_block_open_in(e->sst, block, data, stored, room, f->fetcher->alloc, plain, err);
    return sf__sst_block_open(e->sst, block, stored, own ? data : NULL, gets_directories(e),
                              e->cache ? e->cache : e->stays_beside, room, f->fetcher->alloc, plain, err);
}

/* As somebody left it there who had the same bytes. */
static sf_buf *block_peek(const sf_extent *e, uint32_t i)
{
    sf_cache_key key;

    if (!e->cache || !e->fetch.shared || e->fetch.again)
        return NULL;
    key = sf__sst_block_cache_key(e->sst, e->first + i);
    return sf__block_cache_peek(e->cache, &key);
}

/* Damage anywhere asks for a second reading of all; the second time each block stands for itself. */
static sf_status decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    sf_extent *e = sf_container_of(f, sf_extent, fetch);
    sf_extent_block *blocks = sf__extent_blocks(e);
    sf_error first = SF_ERROR_INIT, one; /* `one` is filled by failures only */

    drop_blocks(e);
    for (uint32_t i = 0; i < e->count; i++) {
        sf_status rc = SF_OK;

        if (blocks[i].unwanted)
            continue;
        blocks[i].plain = block_peek(e, i);
        if (!blocks[i].plain)
            rc = block_open(e, i, data, room, &blocks[i].plain, &one);
        if (rc == SF_WOULD_BLOCK) /* nothing is kept that is not set aside */
            drop_blocks(e);
        if (rc == SF_WOULD_BLOCK || (rc == SF_CORRUPT && !f->again)) {
            *err = one;
            return rc;
        }
        blocks[i].status = rc;
        if (rc != SF_OK && first.code == SF_OK)
            first = one;
    }
    if (first.code != SF_OK)
        *err = first;
    return first.code;
}

static void fetched(sf_fetch *f)
{
    sf_extent *e = sf_container_of(f, sf_extent, fetch);
    sf_extent_block *blocks = sf__extent_blocks(e);

    if (f->error->code != SF_OK)
        e->error = sf_error_keep(f->fetcher->alloc, f->error);
    for (uint32_t i = 0; i < e->count; i++) {
        if (blocks[i].plain && e->cache)
            sf__sst_block_put(e->sst, e->first + i, e->cache, blocks[i].plain);
        else if (!blocks[i].plain && blocks[i].status == SF_OK)
            blocks[i].status = f->error->code; /* nothing was read at all */
    }
    e->done(e);
}

static uint32_t part_count(const sf_fetch *f)
{
    return sf_container_of(f, sf_extent, fetch)->count;
}

static bool part_is_wanted(const sf_fetch *f, uint32_t i)
{
    const sf_extent *e = sf_container_of(f, sf_extent, fetch);

    return !(e->many ? e->many : &e->one)[i].unwanted;
}

static uint64_t part_off(const sf_fetch *f, uint32_t i)
{
    const sf_extent *e = sf_container_of(f, sf_extent, fetch);

    return sf__index_block_off(&e->sst->index, e->first + i);
}

static const sf_fetch_parts parts = {part_count, part_off, part_is_wanted};

void sf__extent_start(sf_extent *e, sf_fetcher *f, sf_store *store, uint64_t deadline_ns, void (*done)(sf_extent *e),
                      void *ctx)
{
    const sf_index *idx = &e->sst->index;
    uint64_t off = sf__index_block_off(idx, e->first);

    e->done = done;
    e->fetch = (sf_fetch){
        .store = store,
        .key = e->sst->key,
        .off = off,
        .len =
            sf__index_block_off(idx, e->first + e->count - 1) - off + sf__index_block_len(idx, e->first + e->count - 1),
        .deadline_ns = deadline_ns,
        .brief = e->in_place,
        .packed = e->sst->view->info.codec != SF_CODEC_NONE || gets_directories(e),
        .decode = decode,
        .disk = e->sst->disk,
        .parts = &parts,
        .disk_only_read = !e->cache && !e->stays,
        .done = fetched,
        .ctx = ctx,
    };
    sf__fetch_start(f, &e->fetch);
}
