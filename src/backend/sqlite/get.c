/* Look-ups. A key is looked up page by page on the thread that asks; what memory does not have is read as one operation
 * (backend/lookup.h) for all keys together: a tree has few levels, and those above the leaves are mostly known. */
#include "backend/lookup.h"
#include "backend/sqlite/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

/* One key's way. */
struct key_walk {
    sf_tree_descent descent;
    bool again; /* a page looked damaged and was read once more */
};

struct sqlite_lookup {
    sf_lookup base;
    struct key_walk *walks, first_walk;
    sf_page_need *needs, first_needs[2];
    size_t need_count, need_cap;
    sf_page_run *runs, first_run; /* of this round, ascending */
    size_t run_count, run_cap;
};

static struct sqlite_lookup *lookup_of(sf_lookup *base)
{
    return sf_container_of(base, struct sqlite_lookup, base);
}

static const sf_sqlite_shard *shard_of(const struct sqlite_lookup *l)
{
    return sf_container_of(l->base.shard, sf_sqlite_shard, base);
}

static const sf_allocator *alloc_of(const struct sqlite_lookup *l)
{
    return l->base.shard->rt->alloc;
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static sf_buf *page_in_memory(void *ctx, uint32_t number)
{
    sf_buf *pinned = sf__page_source_pin(ctx, number);

    return pinned ? pinned : sf__page_source_try(ctx, number, true);
}

sf_tree_walk sf__sqlite_walk(const sf_sqlite_shard *s)
{
    return (sf_tree_walk){.tree = &s->tree, .page = page_in_memory, .ctx = (void *)&s->pages, .alloc = s->base.rt->alloc};
}

/* A page that is damaged is read once more, which is an operation. */
sf_status sf__sqlite_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_sqlite_shard *s = sf_container_of(base, sf_sqlite_shard, base);
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

    return page ? sf__buf_acquire(page) : sf__page_source_try(&shard_of(l)->pages, number, true);
}

static bool need_add(struct sqlite_lookup *l, sf_page_need need)
{
    if (!SF_RESERVE_FROM(alloc_of(l), &l->needs, l->first_needs, &l->need_cap, l->need_count + 1))
        return false;
    l->needs[l->need_count++] = need;
    return true;
}

/* What is missing is noted. */
static sf_status walk_on(struct sqlite_lookup *l, size_t i, sf_error *err)
{
    const sf_shard_ask *ask = &l->base.op->asks[i];
    sf_tree_walk tree = sf__sqlite_walk(shard_of(l));
    struct key_walk *w = &l->walks[i];
    const sf_page_run *r;
    sf_status rc;

    tree.page = page_of;
    tree.ctx = l;
    rc = sf__tree_get(&tree, &w->descent, ask->key, &l->base.op->asks[i].value, err);
    r = rc == SF_WOULD_BLOCK ? run_of(l, tree.need.first) : NULL;
    if (r && r->error) { /* it was asked for, and could not be read */
        *err = *r->error;
        return err->code;
    }
    if (rc == SF_CORRUPT && !w->again) {
        w->again = true;
        sf__tree_descent_drop(&w->descent);
        rc = SF_WOULD_BLOCK;
    }
    if (rc == SF_WOULD_BLOCK && !need_add(l, tree.need))
        rc = sf_fail(err, SF_NOMEM, "list of pages to read");
    if (rc == SF_CORRUPT)
        sf__page_error_name(&shard_of(l)->pages, tree.need.first, rc, err);
    return rc == SF_OK || rc == SF_WOULD_BLOCK ? rc : sf_error_prefix(err, rc, "get ");
}

static sf_status lookup_walk(sf_lookup *base, size_t i, sf_error *err)
{
    struct sqlite_lookup *l = lookup_of(base);
    sf_status rc = walk_on(l, i, err);

    if (rc != SF_WOULD_BLOCK)
        sf__tree_descent_drop(&l->walks[i].descent);
    return rc;
}

static void lookup_drop(sf_lookup *base)
{
    struct sqlite_lookup *l = lookup_of(base);

    for (size_t i = 0; i < l->run_count; i++)
        sf__page_run_cleanup(&l->runs[i]);
    l->run_count = 0;
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

static void run_done(sf_page_run *r)
{
    sf__lookup_read_done(r->ctx);
}

static bool run_add(struct sqlite_lookup *l, uint32_t first, uint32_t count)
{
    if (!SF_RESERVE_FROM(alloc_of(l), &l->runs, &l->first_run, &l->run_cap, l->run_count + 1))
        return false;
    return sf__page_run_init(&l->runs[l->run_count], &shard_of(l)->pages, first, count) && ++l->run_count;
}

static size_t lookup_plan(sf_lookup *base)
{
    struct sqlite_lookup *l = lookup_of(base);
    const uint32_t page_bytes = shard_of(l)->pages.page_bytes;
    size_t n = sf__page_needs_merge(l->needs, l->need_count, page_bytes, SF_PAGE_GAP_BYTES / page_bytes);

    l->need_count = 0;
    for (size_t i = 0; i < n; i++)
        if (!run_add(l, l->needs[i].first, l->needs[i].count))
            return 0;
    return l->run_count;
}

static void lookup_read(sf_lookup *base, size_t i)
{
    sf_page_run *r = &lookup_of(base)->runs[i];

    r->done = run_done;
    r->ctx = base;
    r->keep = true;
    sf__page_run_start(r, base->op->deadline_ns);
}

static void lookup_read_cancel(sf_lookup *base, size_t i)
{
    sf__page_run_cancel(&lookup_of(base)->runs[i]);
}

/* ------------------------------------------------------------------ the operation -------------------------------- */

static bool lookup_init(sf_lookup *base)
{
    struct sqlite_lookup *l = lookup_of(base);

    l->needs = l->first_needs;
    l->need_cap = sizeof(l->first_needs) / sizeof(l->first_needs[0]);
    l->runs = &l->first_run;
    l->run_cap = 1;
    l->walks = base->op->count <= 1 ? &l->first_walk : sf__calloc(alloc_of(l), base->op->count, sizeof(*l->walks));
    for (size_t i = 0; l->walks && i < base->op->count; i++)
        memcpy(&l->walks[i].descent.place, &base->op->asks[i].place, sizeof(l->walks[i].descent.place));
    return l->walks != NULL;
}

static void lookup_cleanup(sf_lookup *base)
{
    struct sqlite_lookup *l = lookup_of(base);

    for (size_t i = 0; l->walks && i < base->op->count; i++)
        sf__tree_descent_drop(&l->walks[i].descent);
    sf__grown_free(alloc_of(l), l->walks, &l->first_walk);
    sf__grown_free(alloc_of(l), l->runs, &l->first_run);
    sf__grown_free(alloc_of(l), l->needs, l->first_needs);
}

static const sf_lookup_type lookup_type = {
    .size = sizeof(struct sqlite_lookup),
    .waits_for = "the pages of some of its keys",
    .init = lookup_init,
    .walk = lookup_walk,
    .plan = lookup_plan,
    .read = lookup_read,
    .read_cancel = lookup_read_cancel,
    .drop = lookup_drop,
    .cleanup = lookup_cleanup,
};

void sf__sqlite_get_many(sf_shard *base, sf_shard_get_many *op)
{
    sf__lookup_start(&lookup_type, base, op);
}
