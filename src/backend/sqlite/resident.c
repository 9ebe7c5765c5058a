/* Bringing pages of a shard to where they stay: all of them into memory, or those above the leaves. The latter are at hand already where
 * a sidecar or a copy on disk has them; else they are read level by level from the root on. A copy on disk is what residency on disk
 * means, and was found right when the shard was opened.
 *
 *   NEXT --> READING --> NEXT ... --> DONE        NEXT finds what is to be read, which for levels takes what was read before */
#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

#define READS 8u

enum sqlite_resident_state { RESIDENT_NEXT, RESIDENT_READING, RESIDENT_DONE };

/* Of a tree, level by level. All leaves lie on one level: the first child of a level tells whether the next one is theirs. */
enum levels_state { LEVELS_BEGIN, LEVELS_READ, LEVELS_PROBED };

struct sqlite_resident {
    sf_sqlite_shard *shard; /* acquired */
    sf_shard_resident *op;
    enum sqlite_resident_state state;
    sf_page_need *needs; /* to be read, ascending; what stays already is passed over */
    size_t need_count, need_cap, next_need;
    unsigned in_flight;
    /* above the leaves */
    enum levels_state levels;
    unsigned tree; /* 0: the one that is ordered by k; 1: that of the rows */
    uint32_t *level;
    size_t level_count, level_cap;
    uint32_t depth, probe;
    bool probe_is_interior;
    struct resident_run {
        struct sqlite_resident *r;
        bool busy;
        sf_page_run run;
    } runs[READS];
};

static void resident_enter(struct sqlite_resident *r, enum sqlite_resident_state next);

static const sf_allocator *alloc_of(const struct sqlite_resident *r)
{
    return r->shard->base.rt->alloc;
}

static void failed(struct sqlite_resident *r, const sf_error *e)
{
    if (r->op->error)
        return;
    r->op->error = sf_error_keep(alloc_of(r), e);
    for (unsigned i = 0; i < READS; i++)
        if (r->runs[i].busy)
            sf__page_run_cancel(&r->runs[i].run);
}

static void fail(struct sqlite_resident *r, sf_status rc, const char *why)
{
    sf_error e;

    sf_fail(&e, rc, "%s: %s", r->shard->base.url, why);
    sf_error_object(&e, r->shard->base.url);
    failed(r, &e);
}

static bool need_add(struct sqlite_resident *r, uint32_t first, uint32_t count)
{
    if (!SF_RESERVE(alloc_of(r), &r->needs, &r->need_cap, r->need_count + 1)) {
        fail(r, SF_NOMEM, "pages to stay in memory");
        return false;
    }
    r->needs[r->need_count++] = (sf_page_need){first, count};
    return true;
}

/* ------------------------------------------------------------------ above the leaves ----------------------------- */

/* The children of a page, `most` of them. One that is damaged has none: look-ups that come to it will tell. */
static size_t children_of(const struct sqlite_resident *r, uint32_t number, uint32_t *out, size_t most)
{
    sf_tree_walk w = sf__sqlite_walk(r->shard);
    sf_tree_page p = {0};
    size_t n = 0;

    if (sf__tree_page(&w, number, r->tree > 0, &p, NULL) == SF_OK && p.header.interior)
        while (n < most && n <= p.header.cells && sf__tree_child(&w, &p, (uint32_t)n, &out[n], NULL) == SF_OK)
            n++;
    sf__tree_page_drop(&p);
    return n;
}

/* Whatever the pages say: no more than the file has. */
static bool level_down(struct sqlite_resident *r)
{
    uint32_t *level = NULL;
    size_t count = 0, cap = 0;

    for (size_t i = 0; i < r->level_count && count < r->shard->tree.page_count; i++) {
        const size_t most = r->shard->pages.page_bytes / 2; /* a cell takes more */

        if (!SF_RESERVE(alloc_of(r), &level, &cap, count + most)) {
            sf__free(alloc_of(r), level);
            fail(r, SF_NOMEM, "pages to stay in memory");
            return false;
        }
        count += children_of(r, r->level[i], level + count, most);
    }
    sf__free(alloc_of(r), r->level);
    r->level = level;
    r->level_count = count;
    r->level_cap = cap;
    return true;
}

static bool read_level(struct sqlite_resident *r)
{
    const uint32_t page_bytes = r->shard->pages.page_bytes;

    r->levels = LEVELS_READ;
    for (size_t i = 0; i < r->level_count; i++)
        if (!need_add(r, r->level[i], 1))
            return false;
    r->need_count = sf__page_needs_merge(r->needs, r->need_count, page_bytes, SF_PAGE_GAP_BYTES / page_bytes);
    return true;
}

static bool begin_tree(struct sqlite_resident *r)
{
    if (!SF_RESERVE(alloc_of(r), &r->level, &r->level_cap, 1)) {
        fail(r, SF_NOMEM, "pages to stay in memory");
        return false;
    }
    r->level[0] = r->tree == 0 ? r->shard->tree.root : r->shard->tree.rows_root;
    r->level_count = 1;
    r->depth = 0;
    return read_level(r);
}

/* False: there is no further level in this tree, or it has failed. */
static bool next_level(struct sqlite_resident *r)
{
    uint32_t below;

    if (r->levels == LEVELS_BEGIN)
        return begin_tree(r);
    if (r->levels == LEVELS_READ) {
        r->levels = LEVELS_PROBED;
        if (r->level_count == 0 || ++r->depth == SF_TREE_DEPTH_MAX || children_of(r, r->level[0], &r->probe, 1) == 0)
            return false;
        r->probe_is_interior = children_of(r, r->probe, &below, 1) > 0; /* it may stay already */
        return need_add(r, r->probe, 1);
    }
    return r->probe_is_interior && level_down(r) && read_level(r);
}

static void next_of_index(struct sqlite_resident *r)
{
    while (!r->op->error && !next_level(r) && r->tree == 0 && r->shard->tree.rows_root > 0) {
        r->tree = 1;
        r->levels = LEVELS_BEGIN;
    }
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static bool is_at_hand(const struct sqlite_resident *r)
{
    const sf_sqlite_shard *s = r->shard;

    if (r->op->where != SF_RESIDENCY_INDEX)
        return s->all_stays || r->op->where == SF_RESIDENCY_DISK;
    return s->pages.copy >= 0 || s->pages.sidecar.body || s->index_stays || s->all_stays;
}

/* What is to be read after what was. None: that was all. */
static void find_needs(struct sqlite_resident *r)
{
    const bool first = r->next_need == 0 && r->levels == LEVELS_BEGIN;

    r->need_count = r->next_need = 0;
    if (is_at_hand(r)) /* another one may have brought it meanwhile */
        return;
    if (r->op->where == SF_RESIDENCY_INDEX)
        next_of_index(r);
    else if (first)
        need_add(r, 1, sf__page_source_count(&r->shard->pages));
}

static void keep(struct sqlite_resident *r, uint32_t number, sf_buf *page)
{
    sf_btree_header header;
    bool interior = sf__btree_header_decode(&header, sf__buf_bytes(page), number) && header.interior;
    sf_error e = SF_ERROR_INIT;

    if (number == r->probe)
        r->probe_is_interior = interior;
    if ((interior || r->op->where == SF_RESIDENCY_MEMORY) &&
        sf__page_source_stay(&r->shard->pages, number, page, &e) != SF_OK) {
        sf_error_prefix(&e, e.code, "%s: ", r->shard->base.url);
        sf_error_object(&e, r->shard->base.url);
        failed(r, &e);
    }
    r->shard->base.bytes_resident = sf__page_source_resident_bytes(&r->shard->pages);
}

static void run_done(sf_page_run *run)
{
    struct resident_run *one = sf_container_of(run, struct resident_run, run);
    struct sqlite_resident *r = one->r;

    one->busy = false;
    r->in_flight--;
    if (run->error)
        failed(r, run->error);
    for (uint32_t i = 0; i < run->count && !r->op->error; i++)
        keep(r, run->first + i, sf__page_run_page(run, run->first + i));
    if (r->op->where == SF_RESIDENCY_MEMORY && !run->error)
        atomic_fetch_add_explicit(r->op->bytes, (uint64_t)run->count * run->source->page_bytes, memory_order_relaxed);
    sf__page_run_cleanup(run);
    if (sf__clock_mono_ns() >= r->op->deadline_ns)
        fail(r, SF_TIMEOUT, "the deadline passed while its pages were read");
    resident_enter(r, RESIDENT_READING);
}

/* The next pages that do not stay yet, as one read. False: there are none. */
static bool take_need(struct sqlite_resident *r, sf_page_need *out)
{
    const sf_page_source *s = &r->shard->pages;
    const uint32_t most = s->page_bytes < SF_PAGE_RUN_BYTES ? (uint32_t)(SF_PAGE_RUN_BYTES / s->page_bytes) : 1;

    for (; r->next_need < r->need_count; r->next_need++) {
        sf_page_need *n = &r->needs[r->next_need];

        for (; n->count > 0 && sf__page_source_stays(s, n->first); n->first++)
            n->count--;
        if (n->count == 0)
            continue;
        *out = (sf_page_need){n->first, 0};
        for (; n->count > 0 && out->count < most && !sf__page_source_stays(s, n->first); n->first++, n->count--)
            out->count++;
        return true;
    }
    return false;
}

static bool run_start(struct sqlite_resident *r, struct resident_run *one)
{
    sf_page_need need;

    if (!take_need(r, &need))
        return false;
    if (!sf__page_run_init(&one->run, &r->shard->pages, need.first, need.count)) {
        fail(r, SF_NOMEM, "pages to stay in memory");
        return false;
    }
    one->r = r;
    one->busy = true;
    one->run.done = run_done;
    r->in_flight++;
    sf__page_run_start(&one->run, r->op->deadline_ns);
    return true;
}

static void reading(struct sqlite_resident *r)
{
    for (unsigned i = 0; i < READS && !r->op->error; i++)
        if (!r->runs[i].busy && !run_start(r, &r->runs[i]))
            break;
    if (r->in_flight == 0)
        resident_enter(r, r->op->error ? RESIDENT_DONE : RESIDENT_NEXT);
    /* else ends in run_done() */
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void finish(struct sqlite_resident *r)
{
    sf_shard_resident *op = r->op;
    sf_sqlite_shard *s = r->shard;
    const sf_allocator *a = alloc_of(r);

    if (!op->error && op->where == SF_RESIDENCY_MEMORY)
        s->all_stays = true;
    else if (!op->error && op->where == SF_RESIDENCY_INDEX)
        s->index_stays = true;
    op->impl = NULL;
    sf__free(a, r->needs);
    sf__free(a, r->level);
    sf__free(a, r);
    sf__shard_release(&s->base);
    op->done(op); /* it may be gone: nothing after this line */
}

static void resident_enter(struct sqlite_resident *r, enum sqlite_resident_state next)
{
    r->state = next;
    switch (next) {
    case RESIDENT_NEXT:
        find_needs(r);
        resident_enter(r, r->need_count > 0 && !r->op->error ? RESIDENT_READING : RESIDENT_DONE);
        break;
    case RESIDENT_READING:
        reading(r); /* ends in run_done() */
        break;
    case RESIDENT_DONE:
        finish(r); /* r is gone: nothing after this line */
        break;
    }
}

static void begin(sf_task *task)
{
    sf_shard_resident *op = sf_container_of(task, sf_shard_resident, task);

    if (!op->impl)
        op->done(op);
    else
        resident_enter(op->impl, RESIDENT_NEXT);
}

sf_status sf__sqlite_can_stay(const sf_shard *base, sf_residency where, sf_error *err)
{
    if (where != SF_RESIDENCY_DISK || sf_container_of(base, const sf_sqlite_shard, base)->pages.copy >= 0)
        return SF_OK;
    return sf_fail(
        err, SF_UNSUPPORTED,
        "%s: it cannot stay on disk, since it is read by ranges, without a copy: let SQLite shards be downloaded, or choose another residency",
        base->url);
}

uint64_t sf__sqlite_resident_bytes(sf_shard *base, sf_residency where, uint64_t *room)
{
    const sf_page_source *s = &sf_container_of(base, sf_sqlite_shard, base)->pages;

    if (where == SF_RESIDENCY_MEMORY)
        *room += s->bytes;
    return where == SF_RESIDENCY_INDEX ? 0 : s->bytes;
}

void sf__sqlite_resident(sf_shard *base, sf_shard_resident *op)
{
    struct sqlite_resident *r = sf__calloc(base->rt->alloc, 1, sizeof(*r));
    sf_error e;

    op->error = NULL;
    op->impl = r;
    if (r) {
        r->shard = sf_container_of(sf__shard_acquire(base), sf_sqlite_shard, base);
        r->op = op;
    } else {
        sf_fail(&e, SF_NOMEM, "%s: pages to stay", base->url);
        op->error = sf_error_keep(base->rt->alloc, &e);
    }
    op->task.run = begin; /* done() never inside */
    sf__loop_post(base->rt->loop, &op->task);
}

void sf__sqlite_resident_cancel(sf_shard *base, sf_shard_resident *op)
{
    (void)base;
    if (op->impl)
        fail(op->impl, SF_CANCELLED, "cancelled");
}

void sf__sqlite_resident_let_go(sf_shard *base)
{
    sf_sqlite_shard *s = sf_container_of(base, sf_sqlite_shard, base);

    sf__page_source_let_go(&s->pages);
    s->all_stays = s->index_stays = false;
    base->bytes_resident = sf__page_source_resident_bytes(&s->pages);
}
