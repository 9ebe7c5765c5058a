/* Bringing all blocks of a shard to where they stay: into the table of each SST, for good, or into the disk
 * cache. In long reads, a few at a time; what is there already is passed over. On disk what one pass has brought may have gone
 * again before its end, when the files are others' too: then there is another one.
 *
 *   INHERITING --> SHARING --> READING --> SETTLING --> WRITING --> DONE
 *                     ^           ^            | some are  |
 *                     |           +------------+ missing   |
 *                     +------------------------------------+ others are still writing some
 *
 *   INHERITING: what the process that forked this one had in memory stays here, too
 *   SHARING: what other processes have as files to be mapped (sst_image.h) is mapped; what one is just writing is waited for, a while
 *   SETTLING: until what was read is written to the disk cache
 *   WRITING: what no other process had is written for all, and mapped in place of what was read */
#include "backend/slatedb/extent.h"
#include "backend/slatedb/shard.h"
#include "backend/slatedb/sst_image.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "cache/kept.h"

#define READS 8u
#define MAX_PASSES 3u
#define BACKLOG_BYTES (UINT64_C(4) << 20) /* of what is to be written: no further reads then */
#define LOOK_AGAIN_MS 3
#define KEPT_AT_ONCE 1024u                /* blocks; then others have their turn on the loop thread */
#define PATIENCE_NS UINT64_C(30000000000) /* with those who write: they may have stopped */

enum resident_state {
    RESIDENT_INHERITING,
    RESIDENT_SHARING,
    RESIDENT_READING,
    RESIDENT_SETTLING,
    RESIDENT_WRITING,
    RESIDENT_DONE
};

struct slatedb_resident {
    sf_slatedb_shard *shard; /* acquired */
    sf_shard_resident *op;
    enum resident_state state;
    uint32_t sst, block;           /* the next ones to look at */
    const sf_block_table *parents; /* INHERITING: of that SST; NULL: it had none, or that was not seen yet */
    unsigned pass, in_flight;
    sf_sst_image *images; /* one for each SST; NULL: of none */
    uint64_t patience_ns; /* until then */
    sf_timer timer;
    struct resident_read {
        struct slatedb_resident *r;
        bool busy;
        sf_extent extent;
    } reads[READS];
};

static void resident_enter(struct slatedb_resident *r, enum resident_state next);

static sf_runtime *runtime_of(const struct slatedb_resident *r)
{
    return r->shard->base.rt;
}

static void resident_failed(struct slatedb_resident *r, const sf_error *e)
{
    if (!r->op->error)
        r->op->error = sf_error_keep(runtime_of(r)->alloc, e);
}

static void resident_fail(struct slatedb_resident *r, sf_status rc, const char *why)
{
    sf_error e;

    sf_fail(&e, rc, "%s: %s", r->shard->base.url, why);
    sf_error_object(&e, r->shard->base.url);
    resident_failed(r, &e);
}

/* ------------------------------------------------------------------ what is there -------------------------------- */

static bool is_there(const struct slatedb_resident *r, const sf_sst *sst, uint32_t block)
{
    sf_block_table *table = atomic_load_explicit(&sst->table, memory_order_acquire);

    if (r->op->where != SF_RESIDENCY_DISK)
        return table && sf__block_table_keeps(table, block);
    return sf__sst_block_is_on_disk(sst, block);
}

/* From the place where it stands to the next block that is missing. False: there is none. */
static bool find_missing(struct slatedb_resident *r)
{
    const sf_read_view *v = &r->shard->view;

    if (r->op->where == SF_RESIDENCY_INDEX) /* indexes and filters are there since it is open */
        return false;
    for (; r->sst < v->sst_count; r->sst++, r->block = 0) {
        uint32_t count = r->images && r->images[r->sst].waits ? 0 : v->ssts[r->sst].index.count;

        for (; r->block < count; r->block++)
            if (!is_there(r, &v->ssts[r->sst], r->block))
                return true;
    }
    return false;
}

/* That one, and those behind it that are missing, too; no more than one read is for. */
static uint32_t count_missing(const struct slatedb_resident *r)
{
    const sf_sst *sst = &r->shard->view.ssts[r->sst];
    uint64_t sum = sf__index_block_len(&sst->index, r->block);
    uint32_t n = 1;

    while (r->block + n < sst->index.count && !is_there(r, sst, r->block + n)) {
        sum += sf__index_block_len(&sst->index, r->block + n);
        if (sum > SF_EXTENT_MAX_BYTES)
            break;
        n++;
    }
    return n;
}

sf_status sf__slatedb_can_stay(const sf_shard *base, sf_residency where, sf_error *err)
{
    const sf_read_view *v = &((const sf_slatedb_shard *)base)->view;

    for (uint32_t i = 0; where == SF_RESIDENCY_DISK && i < v->sst_count; i++)
        if (!v->ssts[i].disk)
            return sf_fail(err, SF_UNSUPPORTED,
                           "%s: it cannot stay on disk: that takes a disk cache (disk_bytes), which is for what lies on S3",
                           base->url);
    return SF_OK;
}

uint64_t sf__slatedb_resident_bytes(sf_shard *base, sf_residency where, uint64_t *room)
{
    const sf_read_view *v = &((sf_slatedb_shard *)base)->view;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < v->sst_count; i++)
        for (uint32_t b = 0; b < v->ssts[i].index.count; b++)
            sum += sf__index_block_len(&v->ssts[i].index, b);
    sum = where == SF_RESIDENCY_INDEX ? 0 : sum;
    *room += sum;
    return sum;
}

/* ------------------------------------------------------------------ in memory ------------------------------------ */

static void charge(struct slatedb_resident *r, int64_t bytes)
{
    sf_slatedb_shard *s = r->shard;
    sf_error full = SF_ERROR_INIT;

    s->base.bytes_resident += (uint64_t)bytes;
    sf__block_cache_charge(s->base.cache, bytes);
    /* what was there already stays, whatever others have taken since */
    if (bytes > 0 && sf__block_cache_check_charged(s->base.cache, &full) != SF_OK)
        resident_fail(r, full.code, full.message);
}

static void keep_in_memory(struct slatedb_resident *r, sf_extent *e)
{
    sf_block_cache *cache = r->shard->base.cache;
    uint64_t bytes = 0;

    if (!sf__sst_table(e->sst, cache, true)) {
        resident_fail(r, SF_NOMEM, "blocks to stay in memory");
        return;
    }
    for (uint32_t i = 0; i < e->count; i++) {
        sf_buf *plain = sf__extent_blocks(e)[i].plain;
        sf_cache_key key = sf__sst_block_cache_key(e->sst, e->first + i);

        if (plain && sf__block_cache_keep(cache, &key, plain))
            bytes += sizeof(*plain) + plain->cap;
    }
    charge(r, (int64_t)bytes);
}

/* Its blocks get places, which a child of this process will find by the SST's lasting name, as this process finds its parent's. */
static void sst_begin(struct slatedb_resident *r, const sf_sst *sst)
{
    sf_block_table *table = sf__sst_table(sst, r->shard->base.cache, true);
    sf_hash128 name;
    bool named;

    r->parents = NULL;
    if (!table || sf__sst_lasting_name(sst, r->shard->store, runtime_of(r)->alloc, &named, &name) != SF_OK) {
        resident_fail(r, SF_NOMEM, "blocks to stay in memory");
    } else if (named) {
        sf__kept_offer(table, name, runtime_of(r)->alloc);
        r->parents = sf__kept_inherited(name, table->count);
    }
}

static void inheriting(struct slatedb_resident *r)
{
    const sf_read_view *v = &r->shard->view;
    uint64_t sum = 0, bytes;

    for (uint32_t n = 0; r->sst < v->sst_count && !r->op->error; r->sst++, r->block = 0) {
        const sf_sst *sst = &v->ssts[r->sst];

        if (r->block == 0)
            sst_begin(r, sst);
        for (; r->parents && !r->op->error && r->block < sst->index.count; r->block++) {
            sf_cache_key key = sf__sst_block_cache_key(sst, r->block);

            if (n++ == KEPT_AT_ONCE) {
                charge(r, (int64_t)sum);
                sf__loop_post(runtime_of(r)->loop, &r->op->task); /* ends in on_task() */
                return;
            }
            sf__block_cache_inherit(r->shard->base.cache, &key, r->parents, &bytes);
            sum += bytes;
        }
    }
    charge(r, (int64_t)sum);
    r->sst = r->block = 0;
    resident_enter(r, RESIDENT_SHARING);
}

/* ------------------------------------------------------------------ in files that all map ------------------------ */

static void on_image(void *ctx)
{
    struct slatedb_resident *r = ctx;

    resident_enter(r, r->state);
}

/* Blocks stay where they are mapped. False: there are more, and it goes on in on_task(). */
static bool keep_mapped(struct slatedb_resident *r, sf_sst_image *m)
{
    const sf_index *index = &r->shard->view.ssts[r->sst].index;
    int64_t sum = 0;

    for (uint32_t n = 0; r->block < index->count && n < KEPT_AT_ONCE; r->block++, n++) {
        sum += sf__sst_image_keep(m, r->block);
        if (r->state == RESIDENT_SHARING)
            atomic_fetch_add_explicit(r->op->bytes, sf__index_block_len(index, r->block), memory_order_relaxed);
    }
    charge(r, sum);
    if (r->block < index->count && !r->op->error) {
        sf__loop_post(runtime_of(r)->loop, &r->op->task);
        return false;
    }
    r->block = 0;
    sf__image_cleanup(&m->image); /* the blocks have the mapping */
    return true;
}

/* Not enough memory is a reason to do without. */
static void images_begin(struct slatedb_resident *r)
{
    const sf_read_view *v = &r->shard->view;
    const sf_allocator *a = runtime_of(r)->alloc;
    uint64_t now = sf__clock_mono_ns(), left = r->op->deadline_ns > now ? r->op->deadline_ns - now : 0;

    r->images = r->shard->disk ? sf__calloc(a, v->sst_count, sizeof(*r->images)) : NULL;
    r->patience_ns = now + (left / 2 < PATIENCE_NS ? left / 2 : PATIENCE_NS);
    while (r->images && find_missing(r)) { /* what is there already stays as it is */
        sf_sst_image *m = &r->images[r->sst];

        m->waits = sf__sst_image_init(m, &v->ssts[r->sst], r->shard->base.cache, r->op->since_us, r->op->deadline_ns, a);
        r->sst++;
        r->block = 0;
    }
    r->sst = r->block = 0;
}

static void sharing(struct slatedb_resident *r)
{
    if (!r->images && !r->op->error)
        images_begin(r);
    for (; r->images && r->sst < r->shard->view.sst_count && !r->op->error; r->sst++) {
        sf_sst_image *m = &r->images[r->sst];

        if (!m->waits)
            continue;
        if (!m->asked) {
            m->asked = true;
            sf__sst_image_claim(m, runtime_of(r)->loop, on_image, r); /* ends in on_image() */
            return;
        }
        if (m->image.state == SF_IMAGE_MAPPED && !keep_mapped(r, m))
            return;
        m->asked = false;
        m->waits = m->image.state == SF_IMAGE_OTHERS && sf__clock_mono_ns() < r->patience_ns;
    }
    r->sst = r->block = 0;
    resident_enter(r, RESIDENT_READING);
}

static void images_end(struct slatedb_resident *r)
{
    for (uint32_t i = 0; r->images && i < r->shard->view.sst_count; i++)
        sf__image_cleanup(&r->images[i].image);
    sf__free(runtime_of(r)->alloc, r->images);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static void read_done(sf_extent *e)
{
    struct resident_read *one = sf_container_of(e, struct resident_read, extent);
    struct slatedb_resident *r = one->r;

    if (e->error)
        resident_failed(r, e->error);
    else if (r->op->where != SF_RESIDENCY_DISK)
        keep_in_memory(r, e);
    if (!e->error && r->pass == 0)
        atomic_fetch_add_explicit(r->op->bytes, e->fetch.len, memory_order_relaxed);
    sf__extent_cleanup(e, runtime_of(r)->alloc);
    one->busy = false;
    r->in_flight--;
    resident_enter(r, RESIDENT_READING);
}

static uint64_t backlog(const struct slatedb_resident *r)
{
    return r->op->where == SF_RESIDENCY_DISK && r->shard->disk ? sf__disk_cache_backlog(r->shard->disk) : 0;
}

static bool read_next(struct slatedb_resident *r, struct resident_read *one)
{
    const sf_sst *sst = &r->shard->view.ssts[r->sst];
    uint32_t n = count_missing(r);

    if (!sf__extent_init(&one->extent, sst, r->block, n, runtime_of(r)->alloc)) {
        resident_fail(r, SF_NOMEM, "blocks to read");
        return false;
    }
    one->r = r;
    one->busy = true;
    one->extent.stays = true;
    one->extent.stays_beside = r->op->where != SF_RESIDENCY_DISK ? r->shard->base.cache : NULL;
    r->block += n;
    r->in_flight++;
    sf__extent_start(&one->extent, runtime_of(r)->fetcher, r->shard->store, r->op->deadline_ns, read_done, one);
    return true;
}

static void on_timer(sf_timer *t)
{
    struct slatedb_resident *r = sf_container_of(t, struct slatedb_resident, timer);

    if (sf__clock_mono_ns() >= r->op->deadline_ns)
        resident_fail(r, SF_TIMEOUT, "the deadline passed while its blocks were written to the disk cache");
    resident_enter(r, r->state);
}

static void wait_for_disk(struct slatedb_resident *r)
{
    r->timer.fire = on_timer;
    sf__timer_start(runtime_of(r)->loop, &r->timer, sf__deadline_in_ms(LOOK_AGAIN_MS)); /* ends in on_timer() */
}

static void reading(struct slatedb_resident *r)
{
    bool more = true;

    for (unsigned i = 0; i < READS && more && !r->op->error && backlog(r) <= BACKLOG_BYTES; i++)
        if (!r->reads[i].busy)
            more = find_missing(r) && read_next(r, &r->reads[i]);
    if (r->in_flight > 0)
        return; /* ends in read_done() */
    if (r->op->error || !find_missing(r))
        resident_enter(r, RESIDENT_SETTLING);
    else
        wait_for_disk(r);
}

static void settling(struct slatedb_resident *r)
{
    if (backlog(r) > 0 && !r->op->error) {
        wait_for_disk(r);
        return;
    }
    r->sst = r->block = 0;
    if (r->op->error || r->op->where != SF_RESIDENCY_DISK || !find_missing(r)) {
        r->sst = 0;
        resident_enter(r, RESIDENT_WRITING);
    } else if (++r->pass < MAX_PASSES && sf__clock_mono_ns() < r->op->deadline_ns) {
        resident_enter(r, RESIDENT_READING);
    } else {
        resident_fail(r, SF_EXHAUSTED,
                      "its blocks do not stay in the disk cache: disk_bytes is too small, or the disk is full");
        resident_enter(r, RESIDENT_DONE);
    }
}

static void writing(struct slatedb_resident *r)
{
    uint32_t count = r->images ? r->shard->view.sst_count : 0;
    bool others = false;

    for (; r->sst < count && !r->op->error; r->sst++) {
        sf_sst_image *m = &r->images[r->sst];

        if (m->image.state == SF_IMAGE_OURS) {
            sf__sst_image_write(m, runtime_of(r)->loop, on_image, r); /* ends in on_image() */
            return;
        }
        if (m->image.state == SF_IMAGE_MAPPED && !keep_mapped(r, m))
            return;
    }
    for (uint32_t i = 0; i < count && !r->op->error; i++)
        others = others || r->images[i].waits;
    r->sst = r->block = 0;
    if (others) {
        r->state = RESIDENT_SHARING;
        wait_for_disk(r);
    } else {
        resident_enter(r, RESIDENT_DONE);
    }
}

static void resident_enter(struct slatedb_resident *r, enum resident_state next)
{
    sf_shard_resident *op = r->op;
    sf_slatedb_shard *s = r->shard;

    r->state = next;
    switch (next) {
    case RESIDENT_INHERITING:
        inheriting(r);
        break;
    case RESIDENT_SHARING:
        sharing(r);
        break;
    case RESIDENT_READING:
        reading(r);
        break;
    case RESIDENT_SETTLING:
        settling(r);
        break;
    case RESIDENT_WRITING:
        writing(r);
        break;
    case RESIDENT_DONE:
        images_end(r);
        op->impl = NULL;
        sf__free(s->base.rt->alloc, r);
        sf__shard_release(&s->base);
        op->done(op); /* it may be gone: nothing after this line */
        break;
    }
}

static void on_task(sf_task *task)
{
    sf_shard_resident *op = sf_container_of(task, sf_shard_resident, task);
    struct slatedb_resident *r = op->impl;

    if (!r)
        op->done(op);
    else
        resident_enter(r, r->state);
}

void sf__slatedb_resident(sf_shard *base, sf_shard_resident *op)
{
    sf_slatedb_shard *s = (sf_slatedb_shard *)sf__shard_acquire(base);
    struct slatedb_resident *r = sf__calloc(base->rt->alloc, 1, sizeof(*r));
    sf_error e;

    op->error = NULL;
    op->impl = r;
    if (r) {
        r->shard = s;
        r->op = op;
        r->state = op->where == SF_RESIDENCY_MEMORY ? RESIDENT_INHERITING : RESIDENT_READING;
    } else {
        sf_fail(&e, SF_NOMEM, "%s: blocks to stay", base->url);
        op->error = sf_error_keep(base->rt->alloc, &e);
        sf__shard_release(base);
    }
    op->task.run = on_task; /* done() never inside */
    sf__loop_post(base->rt->loop, &op->task);
}

void sf__slatedb_resident_cancel(sf_shard *base, sf_shard_resident *op)
{
    struct slatedb_resident *r = op->impl;

    (void)base;
    if (!r)
        return;
    resident_fail(r, SF_CANCELLED, "cancelled");
    for (uint32_t i = 0; r->images && i < r->shard->view.sst_count; i++)
        atomic_store_explicit(&r->images[i].image.unwanted, true, memory_order_relaxed);
    for (unsigned i = 0; i < READS; i++)
        if (r->reads[i].busy)
            sf__fetch_cancel(&r->reads[i].extent.fetch);
}

void sf__slatedb_resident_let_go(sf_shard *base)
{
    const sf_read_view *v = &((sf_slatedb_shard *)base)->view;

    for (uint32_t i = 0; i < v->sst_count; i++) {
        sf_block_table *table = atomic_load_explicit(&v->ssts[i].table, memory_order_acquire);
        uint64_t bytes = table ? sf__block_table_let_go(table) : 0;

        base->bytes_resident -= bytes;
        sf__block_cache_charge(base->cache, -(int64_t)bytes);
    }
}
