/* Look-ups. A key is looked up page by page on the thread that asks; what memory does not have is read as one operation, on the
 * loop thread, for all keys together, round by round: a tree has few levels, and those above the leaves are mostly known.
 *
 *   WALKING --> READING --> WALKING --> ... --> POSTED --> DONE       POSTED: done() never runs inside the starting call */
#include <stdlib.h>

#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

enum lookup_state { LOOKUP_WALKING, LOOKUP_READING, LOOKUP_POSTED, LOOKUP_DONE };

/* Pages that lie between two wanted ones are read, too, when they are so few bytes: a request costs more. */
#define GAP_BYTES (32u << 10)

/* One key's way. */
struct key_walk {
    sf_tree_descent descent;
    bool over;
    bool again; /* a page looked damaged and was read once more */
};

struct sqlite_lookup {
    sf_sqlite_shard *shard; /* acquired */
    sf_shard_get_many *op;
    enum lookup_state state;
    uint64_t since_ns;
    bool cancelled;
    size_t walking; /* keys that have no answer yet */
    struct key_walk *walks, first_walk;
    sf_page_need *needs, first_needs[2];
    size_t need_count, need_cap;
    sf_page_run *runs, first_run; /* of this round, ascending */
    size_t run_count, run_cap;
    size_t in_flight;
};

static void lookup_enter(struct sqlite_lookup *l, enum lookup_state next);

static const sf_allocator *alloc_of(const struct sqlite_lookup *l)
{
    return l->shard->base.rt->alloc;
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static sf_buf *page_in_memory(void *ctx, uint32_t number)
{
    return sf__page_source_try(ctx, number, true);
}

sf_tree_walk sf__sqlite_walk(const sf_sqlite_shard *s)
{
    return (sf_tree_walk){
        .tree = &s->tree, .page = page_in_memory, .ctx = (void *)&s->pages, .alloc = s->base.rt->alloc};
}

/* A page that is damaged is read once more, which is an operation. */
sf_status sf__sqlite_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_sqlite_shard *s = (const sf_sqlite_shard *)base;
    sf_tree_walk w = sf__sqlite_walk(s);
    sf_tree_descent d = {0};
    sf_status rc = sf__tree_get(&w, &d, key, out, err);

    if (rc == SF_CORRUPT)
        rc = SF_WOULD_BLOCK;
    if (place) {
        *place = (sf_shard_place){0};
        if (rc == SF_WOULD_BLOCK)
            memcpy(place, &d.place, sizeof(d.place));
    }
    sf__tree_descent_drop(&d);
    return rc;
}

/* ------------------------------------------------------------------ walking -------------------------------------- */

static void key_over(struct sqlite_lookup *l, struct key_walk *w)
{
    sf__tree_descent_drop(&w->descent);
    w->over = true;
    l->walking--;
}

static void key_failed(struct sqlite_lookup *l, size_t i, sf_status rc, const sf_error *e)
{
    sf__shard_key_failed(&l->shard->base, l->op, &l->op->asks[i], rc, e);
    key_over(l, &l->walks[i]);
}

/* Everybody who has no answer yet fails the same way. */
static void rest_failed(struct sqlite_lookup *l, sf_error *e)
{
    sf_error_prefix(e, e->code, "get %s: ", l->shard->base.url);
    sf_error_object(e, l->shard->base.url);
    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++)
        if (!l->walks[i].over)
            key_failed(l, i, e->code, e);
}

static const sf_page_run *run_of(const struct sqlite_lookup *l, uint32_t number)
{
    size_t lo = 0, hi = l->run_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (l->runs[mid].first + (l->runs[mid].count - 1) < number)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->run_count && sf__page_run_has(&l->runs[lo], number) ? &l->runs[lo] : NULL;
}

/* What was read just now counts before what is in the cache: it may have been read to mend that. */
static sf_buf *page_of(void *ctx, uint32_t number)
{
    const struct sqlite_lookup *l = ctx;
    const sf_page_run *r = run_of(l, number);
    sf_buf *page = r ? sf__page_run_page(r, number) : NULL;

    return page ? sf__buf_acquire(page) : sf__page_source_try(&l->shard->pages, number, true);
}

static bool need_add(struct sqlite_lookup *l, sf_page_need need)
{
    if (!SF_RESERVE_FROM(alloc_of(l), &l->needs, l->first_needs, &l->need_cap, l->need_count + 1))
        return false;
    l->needs[l->need_count++] = need;
    return true;
}

static void walk_on(struct sqlite_lookup *l, size_t i, sf_tree_walk *tree)
{
    struct key_walk *w = &l->walks[i];
    const sf_page_run *r;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__tree_get(tree, &w->descent, l->op->asks[i].key, &l->op->asks[i].value, &e);

    if (rc == SF_OK) {
        key_over(l, w);
        return;
    }
    r = rc == SF_WOULD_BLOCK ? run_of(l, tree->need.first) : NULL;
    if (r && r->error) { /* it was asked for, and could not be read */
        key_failed(l, i, r->error->code, r->error);
        return;
    }
    if (rc == SF_CORRUPT && !w->again) {
        w->again = true;
        sf__tree_descent_drop(&w->descent);
        rc = SF_WOULD_BLOCK;
    }
    if (rc == SF_WOULD_BLOCK && !need_add(l, tree->need))
        rc = sf_fail(&e, SF_NOMEM, "list of pages to read");
    if (rc == SF_WOULD_BLOCK)
        return;
    if (rc == SF_CORRUPT)
        sf__page_error_name(&l->shard->pages, tree->need.first, rc, &e);
    sf_error_prefix(&e, rc, "get ");
    key_failed(l, i, rc, &e);
}

static void runs_drop(struct sqlite_lookup *l)
{
    for (size_t i = 0; i < l->run_count; i++)
        sf__page_run_cleanup(&l->runs[i]);
    l->run_count = 0;
}

static void walk_all(struct sqlite_lookup *l)
{
    sf_tree_walk tree = sf__sqlite_walk(l->shard);

    tree.page = page_of;
    tree.ctx = l;
    l->need_count = 0;
    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++)
        if (!l->walks[i].over)
            walk_on(l, i, &tree);
    runs_drop(l);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static int need_cmp(const void *pa, const void *pb)
{
    const sf_page_need *a = pa, *b = pb;

    return (a->first > b->first) - (a->first < b->first);
}

static void run_done(sf_page_run *r)
{
    struct sqlite_lookup *l = r->ctx;

    if (--l->in_flight == 0)
        lookup_enter(l, l->cancelled ? LOOKUP_DONE : LOOKUP_WALKING);
}

static bool run_add(struct sqlite_lookup *l, uint32_t first, uint32_t count)
{
    if (!SF_RESERVE_FROM(alloc_of(l), &l->runs, &l->first_run, &l->run_cap, l->run_count + 1))
        return false;
    return sf__page_run_init(&l->runs[l->run_count], &l->shard->pages, first, count) && ++l->run_count;
}

/* Neighbours become one request. */
static bool runs_make(struct sqlite_lookup *l)
{
    uint32_t most = SF_PAGE_RUN_BYTES / l->shard->pages.page_bytes, gap = GAP_BYTES / l->shard->pages.page_bytes;
    size_t i = 0;

    qsort(l->needs, l->need_count, sizeof(*l->needs), need_cmp);
    while (i < l->need_count) {
        uint32_t first = l->needs[i].first, end = first + l->needs[i].count;

        for (i++; i < l->need_count && l->needs[i].first <= end + gap; i++) {
            uint32_t new_end = l->needs[i].first + l->needs[i].count;

            if (new_end > end && new_end - first > most && l->needs[i].first >= end)
                break;
            end = new_end > end ? new_end : end;
        }
        if (!run_add(l, first, end - first))
            return false;
    }
    return true;
}

static void reading_start(struct sqlite_lookup *l)
{
    if (!runs_make(l)) {
        sf_error e;

        runs_drop(l);
        sf_fail(&e, SF_NOMEM, "no memory for pages to read");
        rest_failed(l, &e);
        lookup_enter(l, LOOKUP_POSTED);
        return;
    }
    l->in_flight = l->run_count;
    for (size_t i = 0; i < l->run_count; i++) {
        l->runs[i].done = run_done;
        l->runs[i].ctx = l;
        l->runs[i].keep = true;
        sf__page_run_start(&l->runs[i], l->op->deadline_ns);
    }
}

/* ------------------------------------------------------------------ the operation -------------------------------- */

static void posted_run(sf_task *task)
{
    sf_shard_get_many *op = sf_container_of(task, sf_shard_get_many, task);

    lookup_enter(op->impl, LOOKUP_DONE);
}

static void lookup_free(struct sqlite_lookup *l)
{
    const sf_allocator *a = alloc_of(l);
    sf_sqlite_shard *shard = l->shard;

    sf__budget_let_go(&shard->base.rt->fetcher->budget, sizeof(*l));
    runs_drop(l);
    if (l->walks != &l->first_walk)
        sf__free(a, l->walks);
    sf__grown_free(a, l->runs, &l->first_run);
    sf__grown_free(a, l->needs, l->first_needs);
    sf__free(a, l);
    sf__shard_release(&shard->base);
}

static void lookup_enter(struct sqlite_lookup *l, enum lookup_state next)
{
    sf_shard_get_many *op = l->op;
    sf_error e; /* filled by failures only */

    l->state = next;
    switch (next) {
    case LOOKUP_WALKING:
        walk_all(l);
        if (l->walking == 0) {
            lookup_enter(l, LOOKUP_POSTED);
        } else if (sf__clock_mono_ns() >= op->deadline_ns) {
            sf_error_overdue(&e, &(sf_overdue){.since_ns = l->since_ns, .waits_for = "the pages of some of its keys"});
            rest_failed(l, &e);
            lookup_enter(l, LOOKUP_POSTED);
        } else {
            lookup_enter(l, LOOKUP_READING);
        }
        break;
    case LOOKUP_READING:
        reading_start(l); /* ends in run_done() */
        break;
    case LOOKUP_POSTED:
        op->task.run = posted_run;
        sf__loop_post(l->shard->base.rt->loop, &op->task);
        break;
    case LOOKUP_DONE:
        if (l->cancelled) {
            sf_fail(&e, SF_CANCELLED, "cancelled");
            rest_failed(l, &e);
        }
        op->impl = NULL;
        lookup_free(l);
        op->done(op); /* op may be gone: nothing after this line */
        break;
    }
}

static struct sqlite_lookup *lookup_new(sf_sqlite_shard *s, sf_shard_get_many *op)
{
    const sf_allocator *a = s->base.rt->alloc;
    struct sqlite_lookup *l = sf__calloc(a, 1, sizeof(*l));

    if (!l)
        return NULL;
    l->walks = op->count <= 1 ? &l->first_walk : sf__calloc(a, op->count, sizeof(*l->walks));
    if (!l->walks) {
        sf__free(a, l);
        return NULL;
    }
    sf__budget_hold(&s->base.rt->fetcher->budget, sizeof(*l));
    l->shard = s;
    sf__shard_acquire(&s->base);
    l->op = op;
    l->since_ns = sf__clock_mono_ns();
    l->walking = op->count;
    l->needs = l->first_needs;
    l->need_cap = sizeof(l->first_needs) / sizeof(l->first_needs[0]);
    l->runs = &l->first_run;
    l->run_cap = 1;
    return l;
}

void sf__sqlite_get_many(sf_shard *base, sf_shard_get_many *op)
{
    struct sqlite_lookup *l = lookup_new((sf_sqlite_shard *)base, op);

    if (!l) {
        sf_error e;

        sf_fail(&e, SF_NOMEM, "%s: look-up", base->url);
        sf__shard_get_fail_later(base, op, &e);
        return;
    }
    op->impl = l;
    for (size_t i = 0; i < op->count; i++) {
        op->asks[i].status = SF_OK;
        memcpy(&l->walks[i].descent.place, &op->asks[i].place, sizeof(l->walks[i].descent.place));
    }
    lookup_enter(l, LOOKUP_WALKING);
}

void sf__sqlite_get_many_cancel(sf_shard *base, sf_shard_get_many *op)
{
    struct sqlite_lookup *l = op->impl;

    (void)base;
    if (!l || l->state != LOOKUP_READING)
        return; /* its completion is in the inbox already */
    l->cancelled = true;
    for (size_t i = 0; i < l->run_count; i++)
        sf__page_run_cancel(&l->runs[i]);
}
