/* Scans of one shard. One tree after the other; within a tree the sources are merged, the newest version of each key shows.
 * The thread that moves a scan reads nothing: sources begin their windows, which the loop thread reads meanwhile. */
#include "backend/slatedb/merge.h"
#include "base/container.h"
#include "base/error.h"

/* Rows that do not show, passed over before whoever moves the scan may look at deadlines and cancelling. */
#define BURST_ROWS 4096u
/* What a scan may hold from which on it shows many rows at a time: one of very many shards holds hardly more than what those take. */
#define MANY_ROWS_FROM (32u << 10)

/* What a source holds of a store that is near, and in how many windows: so few bytes that the processor's caches have them while they are read, checked and
 * merged, and one window more than the one that is read and the one that is merged, so that neither waits for the other. */
#define NEAR_BYTES (UINT64_C(768) << 10)
#define NEAR_WINDOWS 3u

struct slatedb_scan {
    sf_shard_scan base; /* first */
    sf_scan_io io;
    uint64_t buffer_bytes;
    uint8_t *bound_bytes;       /* holds start and end */
    sf_scan_bounds range;       /* what was asked for */
    sf_scan_bounds tree_bounds; /* of it, what lies in the present tree */
    uint8_t *prefix_end;
    uint32_t trees_left;
    sf_scan_source memtable;
    sf_scan_source *sources; /* of the present tree */
    size_t source_count;
    size_t live;              /* of those, not at their end */
    sf_scan_source **waiting; /* that stand at no row and are not at their end */
    size_t waiting_count;
    sf_merge merge;
    sf_row row;            /* that it stands at, of a merge */
    sf_scan_source *solo;  /* the only source of all, forwards: its rows need no merge, and are shown many at a time: */
    sf_block_rows *many;   /* so are, of a merge, those that only one source has up to a key of another: */
    sf_scan_source *alone; /* forwards: the last such source; further versions of its last key are passed over */
    bool alone_shown;      /* the top stands at a row that was looked at */
    bool solo_fresh;       /* the row that it stands at has not been looked at */
    uint64_t limit;
    sf_error lost; /* a source has lost its place: the scan cannot go on */
    /* loop thread, a fill under way */
    sf_window_waiter waiter;
    sf_scan_fill *fill;
};

static const sf_slatedb_shard *shard_of(const struct slatedb_scan *s)
{
    return s->io.shard;
}

static const sf_allocator *alloc_of(const struct slatedb_scan *s)
{
    return s->base.shard->rt->alloc;
}

/* ------------------------------------------------------------------ trees ---------------------------------------- */

static void sources_drop(struct slatedb_scan *s)
{
    for (size_t i = 0; i < s->source_count; i++)
        sf__source_cleanup(&s->sources[i]);
    sf__free(alloc_of(s), s->sources);
    sf__free(alloc_of(s), s->waiting);
    s->sources = NULL;
    s->waiting = NULL;
    s->source_count = 0;
    s->waiting_count = 0;
    s->alone = NULL;
}

/* The smallest key above everything that begins with `prefix`: *n bytes in `out`, or false. */
static bool prefix_successor(sf_bytes prefix, uint8_t *out, size_t *n)
{
    size_t i = prefix.n;

    while (i > 0 && prefix.p[i - 1] == 0xff)
        i--;
    if (i == 0)
        return false;
    memcpy(out, prefix.p, i);
    out[i - 1]++;
    *n = i;
    return true;
}

static sf_status tree_bounds(struct slatedb_scan *s, sf_bytes prefix, sf_error *err)
{
    sf_scan_bounds b = s->range;
    size_t n;

    if (prefix.n > 0) {
        sf__free(alloc_of(s), s->prefix_end);
        s->prefix_end = sf__alloc(alloc_of(s), prefix.n);
        if (!s->prefix_end)
            return sf_fail(err, SF_NOMEM, "prefix of a segment");
        if (sf_bytes_cmp(prefix, b.lo) > 0)
            b.lo = prefix;
        if (prefix_successor(prefix, s->prefix_end, &n) &&
            (!b.has_hi || sf_bytes_cmp((sf_bytes){s->prefix_end, n}, b.hi) < 0)) {
            b.has_hi = true;
            b.hi = (sf_bytes){s->prefix_end, n};
        }
    }
    s->tree_bounds = b;
    return SF_OK;
}

/* Windows are as large as the scan's sources allow together: each may have two, and more where they are of full size. */
static void windows_bound(struct slatedb_scan *s, size_t sources)
{
    const bool near = shard_of(s)->store->is_near;
    uint64_t each = s->buffer_bytes / (sources > 0 ? sources : 1), window;

    if (near && each > NEAR_BYTES)
        each = NEAR_BYTES;
    window = each / (near ? NEAR_WINDOWS : 2);
    s->io.max_window = window < 1 ? 1 : window > SF_EXTENT_MAX_BYTES ? SF_EXTENT_MAX_BYTES : window;
    s->io.max_ahead = each > s->io.max_window ? each - s->io.max_window : s->buffer_bytes > 0;
    if (s->io.max_ahead > SF_SCAN_WINDOWS_AHEAD * SF_EXTENT_MAX_BYTES)
        s->io.max_ahead = SF_SCAN_WINDOWS_AHEAD * SF_EXTENT_MAX_BYTES;
}

/* The next tree in the order of the scan; its sources begin to wait for their first blocks. */
static sf_status tree_open(struct slatedb_scan *s, sf_error *err)
{
    const sf_slatedb_manifest *m = &shard_of(s)->view.manifest;
    const sf_slatedb_tree *t = &m->trees[s->io.reverse ? s->trees_left - 1 : m->tree_count - s->trees_left];
    size_t n = (size_t)t->l0_count + t->run_count;
    sf_status rc = tree_bounds(s, t->prefix, err);

    if (rc != SF_OK)
        return rc;
    if (s->tree_bounds.has_hi && sf_bytes_cmp(s->tree_bounds.lo, s->tree_bounds.hi) >= 0) {
        s->trees_left--;
        return SF_OK;
    }
    sources_drop(s);
    s->sources = sf__calloc(alloc_of(s), n + 1, sizeof(*s->sources));
    s->waiting = sf__calloc(alloc_of(s), n + 1, sizeof(sf_scan_source *));
    if (!s->sources || !s->waiting || !sf__merge_begin(&s->merge, (uint32_t)n + 1)) {
        sources_drop(s);
        return sf_fail(err, SF_NOMEM, "%zu sources of a scan", n);
    }
    windows_bound(s, n);
    s->merge.sources[0] = &s->memtable;
    for (uint32_t i = 0; i < n; i++) {
        sf_scan_source *src = &s->sources[s->source_count++];

        if (i < t->l0_count)
            sf__source_of_ssts(src, &s->io, &t->l0[i], 1, &s->tree_bounds);
        else
            sf__source_of_ssts(src, &s->io, t->runs[i - t->l0_count].ssts, t->runs[i - t->l0_count].sst_count,
                               &s->tree_bounds);
        s->merge.sources[i + 1] = src;
        if (src->state == SF_SOURCE_NEEDS_BLOCK)
            s->waiting[s->waiting_count++] = src;
    }
    s->live = s->waiting_count;
    s->trees_left--;
    return SF_OK;
}

/* ------------------------------------------------------------------ merging -------------------------------------- */

/* Every waiting source is asked, so that their requests go out together. The first failure is the outcome. Once none waits
 * the merge can go on. */
static sf_status resume_waiting(struct slatedb_scan *s, sf_error *err)
{
    size_t left = 0;
    sf_status first = SF_OK;

    for (size_t i = 0; i < s->waiting_count; i++) {
        sf_scan_source *src = s->waiting[i];
        sf_status rc = sf__source_resume(src, first == SF_OK ? err : NULL);

        if (rc != SF_OK && first == SF_OK)
            first = rc;
        if (src->state == SF_SOURCE_NEEDS_BLOCK)
            s->waiting[left++] = src;
        else if (src->state == SF_SOURCE_END)
            s->live--;
    }
    s->waiting_count = left;
    if (left == 0 && s->merge.built) /* it was the top that waited */
        sf__merge_top_moved(&s->merge);
    return first;
}

static sf_status top_next(struct slatedb_scan *s, sf_error *err)
{
    sf_scan_source *top = sf__merge_top(&s->merge);
    sf_status rc = sf__source_next(top, err);

    if (rc != SF_OK)
        return rc;
    if (top->state == SF_SOURCE_NEEDS_BLOCK) {
        s->waiting[s->waiting_count++] = top;
        return SF_OK;
    }
    if (top->state == SF_SOURCE_END && !top->mem)
        s->live--;
    sf__merge_top_moved(&s->merge);
    return SF_OK;
}

/* The newest version of a key, unless it is a tombstone. */
static sf_status show(struct slatedb_scan *s, sf_bytes key, sf_bytes value, sf_buf *owner, uint8_t flags, sf_error *err)
{
    if (flags & SF_ROW_MERGE)
        return sf_fail(err, SF_MERGE_OPERATOR, "%s: the value of a key is a merge operand", s->base.shard->url);
    if (flags & SF_ROW_TOMBSTONE)
        return SF_OK;
    s->row = (sf_row){key, value};
    s->base.at = SF_SCAN_AT_ROW;
    s->base.rows = &s->row;
    s->base.count = 1;
    s->base.owner = owner;
    return SF_OK;
}

/* The gathered key is complete. After a failure it stays gathered: the next step meets it again. */
static sf_status show_gathered(struct slatedb_scan *s, sf_error *err)
{
    sf_merge *m = &s->merge;
    sf_status rc = show(s, sf__merge_key(m), m->value, m->owner, m->flags, err);

    if (rc == SF_OK && s->base.at != SF_SCAN_AT_ROW)
        sf__merge_drop(m);
    return rc;
}

static sf_status lose(struct slatedb_scan *s, sf_status rc, sf_error *err)
{
    sf_error_prefix(err, rc, "%s: ", s->base.shard->url);
    s->lost = *err;
    s->lost.code = rc;
    return rc;
}

/* The rows that a source stands at, forwards once the first of them shows, that come before `before` unless that is NULL. False: it has passed none
 * of them. */
static bool show_more(struct slatedb_scan *s, sf_scan_source *src, const sf_bytes *before)
{
    bool passed;

    if (!s->many && s->buffer_bytes >= MANY_ROWS_FROM)
        s->many = sf__alloc(alloc_of(s), sizeof(*s->many));
    if (!s->many)
        return false; /* then one at a time, as without memory */
    s->many->most = s->limit < SF_BLOCK_ROWS_MAX ? (size_t)s->limit : SF_BLOCK_ROWS_MAX;
    passed = sf__source_rows(src, before, s->many);
    if (s->many->count == 0)
        return passed;
    s->base.at = SF_SCAN_AT_ROW;
    s->base.rows = s->many->rows;
    s->base.count = s->many->count;
    s->base.owner = src->owner;
    return true;
}

/* Rows of the only source, or one step towards one. A key's versions come newest first. */
static sf_status solo_one(struct slatedb_scan *s, sf_error *err)
{
    sf_scan_source *src = s->solo;
    sf_status rc;

    if (!s->solo_fresh) {
        rc = sf__source_next(src, err);
        if (rc != SF_OK)
            return lose(s, rc, err);
        s->solo_fresh = true;
        if (src->state == SF_SOURCE_NEEDS_BLOCK) {
            s->waiting[s->waiting_count++] = src;
            return SF_OK;
        }
    }
    if (src->state == SF_SOURCE_END) {
        s->base.at = SF_SCAN_AT_END;
        return SF_OK;
    }
    rc = src->new_key ? show(s, src->key, src->value, src->owner, src->flags, err) : SF_OK;
    s->solo_fresh = rc != SF_OK; /* the next step meets a failure again */
    if (s->base.at == SF_SCAN_AT_ROW)
        (void)show_more(s, src, NULL);
    return rc;
}

/* The sources of the last tree are ready. One alone is read as it is; several are merged. */
static void merge_begin(struct slatedb_scan *s)
{
    if (!s->io.reverse && s->live == 1 && s->memtable.state == SF_SOURCE_END && !s->merge.started) {
        for (size_t i = 0; i < s->source_count; i++)
            if (s->sources[i].state == SF_SOURCE_AT_ROW)
                s->solo = &s->sources[i];
        s->solo_fresh = true;
    } else {
        sf__merge_build(&s->merge);
    }
}

/* The rows of the top that no other source has a say in. Backwards, where older versions of a key come first, there may be none that can be told at once. */
static sf_status show_alone(struct slatedb_scan *s, const sf_bytes *before, sf_error *err)
{
    sf_scan_source *top = sf__merge_top(&s->merge);
    sf_status rc = s->io.reverse ? SF_OK : show(s, top->key, top->value, top->owner, top->flags, err);

    if (rc != SF_OK)
        return rc; /* the next step meets it again */
    if ((s->io.reverse || s->base.at == SF_SCAN_AT_ROW) && !show_more(s, top, before) && s->io.reverse)
        return SF_OK;
    rc = sf__merge_taken(&s->merge, s->base.at == SF_SCAN_AT_ROW ? s->base.rows[s->base.count - 1].key : top->key, err);
    if (rc != SF_OK) {
        s->base.at = SF_SCAN_BETWEEN_ROWS;
        return lose(s, rc, err);
    }
    s->alone = s->io.reverse ? NULL : top;
    s->alone_shown = true;
    return SF_OK;
}

/* One row, or one step towards one. After a failure of the merge itself the scan cannot go on. */
static sf_status merge_one(struct slatedb_scan *s, sf_error *err)
{
    const sf_bytes *before;
    sf_status rc;
    bool complete = true;

    if (s->alone_shown) {
        s->alone_shown = false;
        rc = top_next(s, err);
        return rc == SF_OK ? SF_OK : lose(s, rc, err);
    }
    if (s->live == 0 && s->trees_left > 0)
        return tree_open(s, err);
    if (!s->merge.built && s->trees_left == 0)
        merge_begin(s);
    else if (!s->merge.built)
        sf__merge_build(&s->merge);
    if (s->solo)
        return SF_OK;
    if (sf__merge_top(&s->merge)) {
        if (s->alone == sf__merge_top(&s->merge) && !s->alone->new_key) {
            rc = top_next(s, err);
            return rc == SF_OK ? SF_OK : lose(s, rc, err);
        }
        s->alone = NULL;
        if (sf__merge_top_alone(&s->merge, &before)) {
            rc = show_alone(s, before, err);
            if (rc != SF_OK || s->alone_shown)
                return rc;
        }
        rc = sf__merge_gather(&s->merge, &complete, err);
        if (rc == SF_OK && !complete)
            rc = top_next(s, err);
        if (rc != SF_OK)
            return lose(s, rc, err);
    } else if (!s->merge.gathered) {
        s->base.at = SF_SCAN_AT_END;
        return SF_OK;
    }
    return complete ? show_gathered(s, err) : SF_OK;
}

sf_status sf__slatedb_scan_next(sf_shard_scan *base, sf_error *err)
{
    struct slatedb_scan *s = sf_container_of(base, struct slatedb_scan, base);
    sf_error local = SF_ERROR_INIT, *e = err ? err : &local;
    sf_status rc = SF_OK;

    if (base->at == SF_SCAN_AT_END)
        return SF_OK;
    if (s->lost.code != SF_OK) {
        *e = s->lost;
        return e->code;
    }
    if (base->at == SF_SCAN_AT_ROW && !s->solo)
        sf__merge_drop(&s->merge);
    base->at = SF_SCAN_BETWEEN_ROWS;
    for (unsigned n = 0; rc == SF_OK && n < BURST_ROWS && base->at == SF_SCAN_BETWEEN_ROWS; n++) {
        if (s->waiting_count == 0) {
            rc = s->solo ? solo_one(s, e) : merge_one(s, e);
        } else {
            rc = resume_waiting(s, e);
            if (rc == SF_OK && s->waiting_count > 0)
                base->at = SF_SCAN_NEEDS_FILL;
        }
    }
    return rc;
}

/* ------------------------------------------------------------------ filling -------------------------------------- */

static void all_home(sf_window_waiter *waiter)
{
    struct slatedb_scan *s = sf_container_of(waiter, struct slatedb_scan, waiter);
    sf_scan_fill *fill = s->fill;

    s->fill = NULL;
    fill->done(fill);
}

bool sf__slatedb_scan_fill(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct slatedb_scan *s = sf_container_of(base, struct slatedb_scan, base);

    s->waiter = (sf_window_waiter){.home = all_home};
    for (size_t i = 0; i < s->waiting_count; i++)
        sf__source_wait(s->waiting[i], &s->waiter);
    s->fill = s->waiter.missing > 0 ? fill : NULL;
    return s->fill;
}

bool sf__slatedb_scan_fill_cancel(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct slatedb_scan *s = sf_container_of(base, struct slatedb_scan, base);

    (void)fill;
    for (size_t i = 0; i < s->waiting_count; i++)
        sf__source_forget(s->waiting[i]); /* the windows go on: a later step may want them */
    s->fill = NULL;
    return true;
}

/* The first block that it waits for says why. */
void sf__slatedb_scan_fill_overdue(const sf_shard_scan *base, uint64_t since_ns, sf_error *err)
{
    const struct slatedb_scan *s = sf_container_of(base, struct slatedb_scan, base);

    sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns});
    for (size_t i = 0; i < s->waiting_count; i++) {
        const sf_window *now = s->waiting[i]->now;

        if (now && sf__fetch_is_under_way(&sf__window_extent(now)->fetch)) {
            sf__fetch_overdue(&sf__window_extent(now)->fetch, since_ns, err);
            return;
        }
    }
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_status sf__slatedb_scan_open(sf_shard *shard, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                                sf_error *err)
{
    const sf_allocator *a = shard->rt->alloc;
    const sf_slatedb_shard *db = sf_container_of(shard, sf_slatedb_shard, base);
    struct slatedb_scan *s = sf__calloc(a, 1, sizeof(*s));
    sf_scan_range own = *range;

    if (s)
        s->bound_bytes = sf__scan_range_copy(&own, range, a);
    if (s)
        sf__merge_init(&s->merge, range->reverse, a);
    if (!s || !s->bound_bytes || !sf__merge_begin(&s->merge, 1)) {
        if (s) {
            sf__merge_cleanup(&s->merge);
            sf__free(a, s->bound_bytes);
        }
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    s->range.lo = own.start;
    s->range.hi = own.end;
    s->range.has_hi = own.has_end;
    s->buffer_bytes = buffer_bytes;
    s->limit = range->limit;
    s->base = (sf_shard_scan){.shard = sf__shard_acquire(shard), .at = SF_SCAN_BETWEEN_ROWS};
    s->io = (sf_scan_io){.shard = db, .reverse = range->reverse};
    s->merge.sources[0] = &s->memtable;
    if (!range->has_end || sf_bytes_cmp(s->range.lo, s->range.hi) < 0) {
        s->trees_left = db->view.manifest.tree_count;
        sf__source_of_memtable(&s->memtable, &s->io, db->view.memtable, &s->range);
    } else {
        s->base.at = SF_SCAN_AT_END;
    }
    *out = &s->base;
    return SF_OK;
}

void sf__slatedb_scan_free(sf_shard_scan *base)
{
    struct slatedb_scan *s = sf_container_of(base, struct slatedb_scan, base);
    const sf_allocator *a = alloc_of(s);
    sf_shard *shard = base->shard;

    sf__source_cleanup(&s->memtable);
    sources_drop(s);
    sf__merge_cleanup(&s->merge);
    sf__free(a, s->many);
    sf__free(a, s->prefix_end);
    sf__free(a, s->bound_bytes);
    sf__free(a, s);
    sf__shard_release(shard);
}
