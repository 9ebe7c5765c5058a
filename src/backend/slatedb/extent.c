#include "backend/slatedb/extent.h"

#include "base/error.h"
#include "base/limits.h"

sf_extent *sf__extent_new(const sf_sst *sst, uint32_t first, uint32_t count, const sf_allocator *a)
{
    sf_extent *e = sf__calloc(a, 1, sizeof(*e) + count * sizeof(e->blocks[0]));

    if (!e)
        return NULL;
    e->sst = sst;
    e->first = first;
    e->count = count;
    return e;
}

static void drop_blocks(sf_extent *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        sf__buf_release(e->blocks[i].plain);
        e->blocks[i] = (sf_extent_block){NULL, SF_OK};
    }
}

void sf__extent_free(sf_extent *e, const sf_allocator *a)
{
    if (!e)
        return;
    drop_blocks(e);
    sf__free(a, e);
}

/* Damage anywhere asks for a second reading of all; the second time each block stands for itself. */
static sf_status decode(sf_read *r, sf_buf *data, sf_error *err)
{
    sf_extent *e = r->ctx;
    sf_error first = SF_ERROR_INIT, one; /* `one` is filled by failures only */

    drop_blocks(e);
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t block = e->first + i;
        sf_bytes stored;
        sf_status rc;

        if (sf_bytes_slice(sf__buf_bytes(data), sf__index_block_off(&e->sst->index, block) - r->off,
                           sf__index_block_len(&e->sst->index, block), &stored))
            rc = sf__sst_block_open(e->sst, block, stored, r->room, r->rt->alloc, &e->blocks[i].plain,
                                    &one);
        else
            rc = sf_fail(&one, SF_CORRUPT, "data block %u lies outside of what was read", block);
        if (rc == SF_WOULD_BLOCK) /* nothing is kept that is not set aside */
            drop_blocks(e);
        if (rc == SF_WOULD_BLOCK || (rc == SF_CORRUPT && sf__read_has_second(r))) {
            *err = one;
            return rc;
        }
        e->blocks[i].status = rc;
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

    e->in_flight = false;
    e->error = r->error;
    for (uint32_t i = 0; r->error.code != SF_OK && i < e->count; i++)
        if (!e->blocks[i].plain && e->blocks[i].status == SF_OK)
            e->blocks[i].status = r->error.code; /* nothing was read at all */
    e->done(e);
}

void sf__extent_start(sf_extent *e, sf_runtime *rt, sf_store *store, uint64_t deadline_ns)
{
    const sf_index *idx = &e->sst->index;
    uint64_t off = sf__index_block_off(idx, e->first);

    e->error = (sf_error)SF_ERROR_INIT;
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
