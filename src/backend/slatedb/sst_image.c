#include "backend/slatedb/sst_image.h"

#include "base/container.h"

#define MIN_BYTES \
    (UINT64_C(256) << 10) /* less is not worth a file and a mapping, of which a process cannot have many */

/* With what stands around a block: a directory of 4 to 10 bytes a row, an sf_buf, what it is filled up with. */
static uint64_t expected_bytes(const sf_sst *sst)
{
    uint64_t stored = 0;

    for (uint32_t i = 0; i < sst->index.count; i++)
        stored += sf__index_block_len(&sst->index, i);
    return stored + stored / 8 + (uint64_t)sst->index.count * (sizeof(sf_buf) + SF_IMAGE_UNIT);
}

static bool holds(void *ctx, uint32_t block, const sf_buf *buf)
{
    const sf_sst_image *m = ctx;

    return sf__sst_block_is(m->sst, block, buf, m->image.alloc);
}

static sf_buf *get(void *ctx, uint32_t block)
{
    const sf_sst_image *m = ctx;

    return sf__sst_block_cached(m->sst, block, m->cache);
}

bool sf__sst_image_init(sf_sst_image *m, const sf_sst *sst, sf_block_cache *cache, int64_t since_us,
                        uint64_t deadline_ns, const sf_allocator *a)
{
    *m = (sf_sst_image){.sst = sst, .cache = cache};
    if (!sst->disk || !sst->disk->cache || a->realloc != sf__allocator_default.realloc || expected_bytes(sst) < MIN_BYTES)
        return false;
    m->image = (sf_image){
        .cache = sst->disk->cache,
        .object = sst->disk->object,
        .blocks = sst->index.count,
        .since_us = since_us,
        .deadline_ns = deadline_ns,
        .holds = holds,
        .get = get,
        .ctx = m,
        .alloc = a,
    };
    return true;
}

static void claim_run(sf_work *w)
{
    sf_sst_image *m = sf_container_of(w, sf_sst_image, work);

    sf__image_claim(&m->image, expected_bytes(m->sst));
}

static void write_run(sf_work *w)
{
    sf_sst_image *m = sf_container_of(w, sf_sst_image, work);

    sf__image_write(&m->image);
}

static void work_done(sf_work *w)
{
    sf_sst_image *m = sf_container_of(w, sf_sst_image, work);

    m->done(m->ctx); /* it may be gone: nothing after this line */
}

static void submit(sf_sst_image *m, void (*run)(sf_work *w), sf_loop *loop, void (*done)(void *ctx), void *ctx)
{
    m->done = done;
    m->ctx = ctx;
    m->work = (sf_work){.run = run, .done = work_done, .bulk = true};
    sf__work_submit(loop, SF_WORK_FILE, &m->work); /* ends in work_done() */
}

void sf__sst_image_claim(sf_sst_image *m, sf_loop *loop, void (*done)(void *ctx), void *ctx)
{
    submit(m, claim_run, loop, done, ctx);
}

void sf__sst_image_write(sf_sst_image *m, sf_loop *loop, void (*done)(void *ctx), void *ctx)
{
    submit(m, write_run, loop, done, ctx);
}

int64_t sf__sst_image_keep(const sf_sst_image *m, uint32_t block)
{
    sf_buf *buf = sf__image_block(&m->image, block);
    sf_cache_key key = sf__sst_block_cache_key(m->sst, block);

    if (sf__block_cache_keep(m->cache, &key, buf))
        return (int64_t)(sizeof(*buf) + buf->cap);
    return sf__block_cache_replace(m->cache, &key, buf);
}
