#include "backend/slatedb/extent.h"

#include "base/error.h"
#include "base/limits.h"

bool sf__extent_init(sf_extent *e, const sf_sst *sst, uint32_t first, uint32_t count, const sf_allocator *a)
{
    *e = (sf_extent){.sst = sst, .first = first, .count = count};
    if (count > 1)
        e->many = sf__calloc(a, count, sizeof(*e->many));
    return count == 1 || e->many;
}

static void drop_blocks(sf_extent *e)
{
    sf_extent_block *blocks = sf__extent_blocks(e);

    for (uint32_t i = 0; i < e->count; i++) {
        sf__buf_release(blocks[i].plain);
        blocks[i] = (sf_extent_block){NULL, SF_OK};
    }
}

void sf__extent_cleanup(sf_extent *e, const sf_allocator *a)
{
    drop_blocks(e);
    sf__free(a, e->many);
    sf_error_drop(a, e->error);
}

/* Damage anywhere asks for a second reading of all; the second time each block stands for itself. */
static sf_status decode(sf_read *r, sf_buf *data, sf_error *err)
{
    sf_extent *e = r->ctx;
    sf_extent_block *blocks = sf__extent_blocks(e);
    sf_error first = SF_ERROR_INIT, one; /* `one` is filled by failures only */

    drop_blocks(e);
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t block = e->first + i;
        sf_bytes stored;
        sf_status rc;

        if (sf_bytes_slice(sf__buf_bytes(data), sf__index_block_off(&e->sst->index, block) - r->off,
                           sf__index_block_len(&e->sst->index, block), &stored))
            rc = sf__sst_block_open(e->sst, block, stored, r->room, r->rt->alloc, &blocks[i].plain, &one);
        else
            rc = sf_fail(&one, SF_CORRUPT, "data block %u lies outside of what was read", block);
        if (rc == SF_WOULD_BLOCK) /* nothing is kept that is not set aside */
            drop_blocks(e);
        if (rc == SF_WOULD_BLOCK || (rc == SF_CORRUPT && sf__read_has_second(r))) {
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

static void read_done(sf_read *r)
{
    sf_extent *e = r->ctx;
    sf_extent_block *blocks = sf__extent_blocks(e);

    e->in_flight = false;
    if (r->error->code != SF_OK)
        e->error = sf_error_keep(r->rt->alloc, r->error);
    for (uint32_t i = 0; e->error && i < e->count; i++)
        if (!blocks[i].plain && blocks[i].status == SF_OK)
            blocks[i].status = r->error->code; /* nothing was read at all */
    e->done(e);
}

void sf__extent_start(sf_extent *e, sf_runtime *rt, sf_store *store, uint64_t deadline_ns)
{
    const sf_index *idx = &e->sst->index;
    uint64_t off = sf__index_block_off(idx, e->first);

    e->in_flight = true;
    e->read = (sf_read){
        .rt = rt,
        .store = store,
        .key = e->sst->key,
        .off = off,
        .len = sf__index_block_off(idx, e->first + e->count - 1) - off +
               sf__index_block_len(idx, e->first + e->count - 1),
        .deadline_ns = deadline_ns,
        .packed = e->sst->view->info.codec != SF_CODEC_NONE,
        .decode = decode,
        .done = read_done,
        .ctx = e,
    };
    sf__read_start(&e->read);
}

void sf__extent_cancel(sf_extent *e)
{
    if (e->in_flight)
        sf__read_cancel(&e->read);
}
