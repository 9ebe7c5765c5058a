/* Scans: a cursor that is moved in memory by whoever holds the scan. Leaves that memory does not have are read as one fill, more
 * of them each time: those that come next, which the pages above them tell. Where rows go on on other pages, those are read as one
 * fill, too, of all rows in the leaves that there are; the leaves stay meanwhile. One that fails or is cancelled leaves the scan
 * where it was. */
#include "backend/sqlite/cursor.h"
#include "backend/sqlite/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/pin.h"

/* Pages of the first fill, and of a scan that wants few rows. */
#define FIRST_PAGES 4u
#define FEW_ROWS 16u
/* Rows that it shows at a time. */
#define MANY_ROWS 64u
/* Bytes of one fill at most; several requests at a time. */
#define FILL_BYTES (UINT64_C(4) << 20)

/* What one fill has read, ascending. */
struct page_runs {
    sf_page_run *runs;
    size_t count;
};

struct sqlite_scan {
    sf_shard_scan base; /* first */
    uint8_t *bounds;    /* holds lo and hi */
    sf_bytes lo, hi;
    bool has_hi, reverse;
    sf_tree_cursor cursor;
    bool at_cell; /* whose row was not given yet */
    sf_tree_payload payload;
    sf_tree_descent row; /* that the cell leads to, of a table with row ids */
    sf_value value;      /* of the first row that it stands at: */
    sf_row shown[MANY_ROWS];
    size_t most;            /* of those, that can be used */
    sf_buf *last_owner;     /* holds `last` */
    sf_bytes last;          /* key of the last row that it stands at */
    bool again;             /* a page looked damaged and is read once more */
    sf_page_need need;      /* NEEDS_FILL */
    const sf_error *failed; /* there was no memory to fill it; until that is told */
    size_t window;          /* pages of the next fill */
    /* of the leaves that were read last: what their rows have gone on on */
    uint64_t chain_pages;
    size_t leaf_count;
    bool meets_chains; /* a row goes on elsewhere */
    uint64_t most_bytes;
    struct page_runs leaves, chains; /* pages of the tree, and what rows of theirs go on on */
    struct page_runs *filling;       /* one of the two: of the last fill */
    /* loop thread, a fill under way */
    sf_scan_fill *fill;
    size_t in_flight;
    bool cancelled;
};

static const sf_sqlite_shard *shard_of(const struct sqlite_scan *s)
{
    return sf_container_of(s->base.shard, sf_sqlite_shard, base);
}

static const sf_allocator *alloc_of(const struct sqlite_scan *s)
{
    return s->base.shard->rt->alloc;
}

/* ------------------------------------------------------------------ where it begins ------------------------------ */

/* Behind the last row, or at the bound of its side. */
static void seek(struct sqlite_scan *s)
{
    sf_tree_cursor *c = &s->cursor;
    bool descending = shard_of(s)->tree.descending;

    sf__tree_payload_drop(&s->payload);
    sf__tree_descent_drop(&s->row);
    s->row.place = (sf_tree_place){0};
    s->at_cell = false;
    c->backwards = s->reverse != descending;
    if (s->last_owner) {
        c->has_bound = true;
        c->bound = s->last;
        c->with = !c->backwards;
    } else {
        c->has_bound = !s->reverse || s->has_hi;
        c->bound = s->reverse ? s->hi : s->lo;
        c->with = s->reverse ? descending : c->backwards; /* hi is not in the range, lo is */
    }
    sf__cursor_rewind(c);
}

sf_status sf__sqlite_scan_open(sf_shard *shard, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                               sf_error *err)
{
    const sf_allocator *a = shard->rt->alloc;
    struct sqlite_scan *s = sf__calloc(a, 1, sizeof(*s));
    sf_scan_range own = *range;

    if (s)
        s->bounds = sf__scan_range_copy(&own, range, a);
    if (!s || !s->bounds) {
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    s->lo = own.start;
    s->hi = own.end;
    s->has_hi = range->has_end;
    s->reverse = range->reverse;
    s->base = (sf_shard_scan){.shard = sf__shard_acquire(shard), .at = SF_SCAN_BETWEEN_ROWS};
    s->most = range->limit > 0 && range->limit < MANY_ROWS ? (size_t)range->limit : MANY_ROWS;
    s->window = range->limit > 0 && range->limit <= FEW_ROWS ? 1 : FIRST_PAGES;
    s->most_bytes = buffer_bytes < FILL_BYTES ? buffer_bytes : FILL_BYTES;
    seek(s);
    *out = &s->base;
    return SF_OK;
}

static void runs_drop(const struct sqlite_scan *s, struct page_runs *r)
{
    for (size_t i = 0; i < r->count; i++)
        sf__page_run_cleanup(&r->runs[i]);
    sf__free(alloc_of(s), r->runs);
    *r = (struct page_runs){0};
}

static void runs_drop_all(struct sqlite_scan *s)
{
    runs_drop(s, &s->leaves);
    runs_drop(s, &s->chains);
}

void sf__sqlite_scan_free(sf_shard_scan *base)
{
    struct sqlite_scan *s = sf_container_of(base, struct sqlite_scan, base);
    const sf_allocator *a = alloc_of(s);
    sf_shard *shard = base->shard;

    runs_drop_all(s);
    sf__cursor_rewind(&s->cursor);
    sf__tree_payload_drop(&s->payload);
    sf__tree_descent_drop(&s->row);
    sf__buf_release(s->value.owner);
    sf__buf_release(s->last_owner);
    sf__free(a, s->bounds);
    sf_error_drop(a, s->failed);
    sf__free(a, s);
    sf__shard_release(shard);
}

/* ------------------------------------------------------------------ moving --------------------------------------- */

static const sf_page_run *run_among(const struct page_runs *r, uint32_t number)
{
    size_t low = 0, high = r->count;

    while (low < high) { /* the first that begins behind it */
        size_t middle = low + (high - low) / 2;

        if (r->runs[middle].first <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && sf__page_run_has(&r->runs[low - 1], number) ? &r->runs[low - 1] : NULL;
}

static const sf_page_run *run_of(const struct sqlite_scan *s, uint32_t number)
{
    const sf_page_run *r = run_among(&s->chains, number);

    return r ? r : run_among(&s->leaves, number);
}

static sf_buf *page_of(void *ctx, uint32_t number)
{
    const struct sqlite_scan *s = ctx;
    const sf_page_run *r = run_of(s, number);
    sf_buf *page = r ? sf__page_run_page(r, number) : NULL;

    return page ? sf__buf_acquire(page) : sf__page_source_try(&shard_of(s)->pages, number, s->window <= FIRST_PAGES);
}

static sf_tree_walk walk_of(struct sqlite_scan *s)
{
    sf_tree_walk w = sf__sqlite_walk(shard_of(s));

    w.page = page_of;
    w.ctx = s;
    return w;
}

/* Whether the key lies behind the range. Of what is no blob: below all of it. */
static bool is_behind(const struct sqlite_scan *s, bool blob, sf_bytes key)
{
    if (s->reverse)
        return !blob || sf_bytes_cmp(key, s->lo) < 0;
    return s->has_hi && sf_bytes_cmp(key, s->hi) >= 0;
}

/* A tree whose cells lead in circles would give the same rows again and again. */
static bool is_in_order(const struct sqlite_scan *s, bool blob, sf_bytes key)
{
    int order = s->last_owner ? sf_bytes_cmp(key, s->last) : 0;

    return blob && (!s->last_owner || (s->reverse ? order < 0 : order > 0));
}

static void remember(struct sqlite_scan *s, sf_bytes key)
{
    sf_buf *owner = s->payload.whole ? s->payload.whole : sf__owner_buf(sf__cursor_page(&s->cursor)->owner);

    sf__buf_acquire(owner);
    sf__buf_release(s->last_owner);
    s->last_owner = owner;
    s->last = key;
}

/* The rows behind the first one that lie in the same leaf, as long as they are as most are. */
static void take_more(struct sqlite_scan *s, const sf_tree_walk *w, const sf_tree_page *page)
{
    uint32_t cell = sf__cursor_cell(&s->cursor), left = sf__cursor_left(&s->cursor), more = 0;
    sf_row *r = &s->shown[1];

    for (; more < left && more + 1 < s->most; more++, r++) {
        cell = s->cursor.backwards ? cell - 1 : cell + 1;
        if (!sf__tree_short_row(w, page, cell, &r->key, &r->value) || is_behind(s, true, r->key) ||
            (sf_bytes_cmp(r->key, r[-1].key) < 0) != s->reverse || sf_bytes_eq(r->key, r[-1].key))
            break;
    }
    s->base.count = 1 + more;
    sf__cursor_skip(&s->cursor, more);
}

/* The row of the cell that the cursor is at, and what lies beside it. */
static sf_status take_row(struct sqlite_scan *s, sf_tree_walk *w, sf_error *err)
{
    const sf_tree_page *page = sf__cursor_page(&s->cursor);
    uint32_t cell = sf__cursor_cell(&s->cursor);
    sf_bytes key;
    bool blob;
    sf_status rc = sf__tree_key(w, page, cell, &s->payload, &blob, &key, err);

    if (rc != SF_OK)
        return rc;
    if (is_behind(s, blob, key)) {
        s->base.at = SF_SCAN_AT_END;
        return SF_OK;
    }
    if (!is_in_order(s, blob, key)) {
        w->need = (sf_page_need){page->number, 1};
        return sf_fail(err, SF_CORRUPT, "page %u: its keys are not in order", page->number);
    }
    if (w->tree->rows_root == 0) {
        rc = sf__tree_value(w, page, cell, &s->payload, &s->value, err);
        if (rc == SF_OK && !s->value.owner)
            s->value.owner = sf__buf_acquire(sf__owner_buf(page->owner));
    } else {
        if (!s->row.place.in_rows) {
            rc = sf__tree_row_id(w, page, cell, &s->payload, &s->row.place.row_id, err);
            s->row.place.in_rows = rc == SF_OK;
        }
        if (rc == SF_OK)
            rc = sf__tree_get_row(w, &s->row, &s->value, err);
    }
    if (rc == SF_OK) /* the rest of its payload may have moved it */
        rc = sf__tree_key(w, page, cell, &s->payload, &blob, &key, err);
    if (rc != SF_OK)
        return rc;
    if (s->payload.whole)
        s->chain_pages += s->payload.total / (w->tree->usable - 4) + 1;
    s->shown[0] = (sf_row){key, s->value.bytes};
    s->base.rows = s->shown;
    s->base.count = 1;
    s->base.owner = s->value.owner;
    s->base.at = SF_SCAN_AT_ROW;
    if (!page->header.interior && s->value.owner == sf__owner_buf(page->owner))
        take_more(s, w, page);
    remember(s, s->shown[s->base.count - 1].key);
    s->at_cell = false;
    s->again = false;
    sf__tree_descent_drop(&s->row);
    s->row.place = (sf_tree_place){0};
    return SF_OK;
}

static sf_status move(struct sqlite_scan *s, sf_tree_walk *w, sf_error *err)
{
    sf_status rc;

    if (!s->at_cell) {
        rc = sf__cursor_next(w, &s->cursor, err);
        if (rc != SF_OK)
            return rc;
        if (s->cursor.state == SF_CURSOR_AT_END) {
            s->base.at = SF_SCAN_AT_END;
            return SF_OK;
        }
        s->at_cell = true;
    }
    return take_row(s, w, err);
}

static sf_status failed(struct sqlite_scan *s, sf_status rc, sf_error *err)
{
    s->base.at = SF_SCAN_BETWEEN_ROWS;
    s->again = false;
    runs_drop_all(s);
    seek(s); /* the next move tries again */
    if (err) {
        sf_error_prefix(err, rc, "scan of %s: ", s->base.shard->url);
        err->db_id = s->base.shard->db_id;
    }
    return rc;
}

sf_status sf__sqlite_scan_next(sf_shard_scan *base, sf_error *err)
{
    struct sqlite_scan *s = sf_container_of(base, struct sqlite_scan, base);
    sf_tree_walk w = walk_of(s);
    const sf_page_run *r;
    sf_status rc;

    sf__buf_release(s->value.owner);
    s->value = (sf_value){0};
    if (s->failed) {
        rc = sf_error_tell(alloc_of(s), &s->failed, err);
        return failed(s, rc, err);
    }
    if (base->at == SF_SCAN_AT_END)
        return SF_OK;
    rc = move(s, &w, err);
    if (rc == SF_OK)
        return SF_OK;
    r = rc == SF_WOULD_BLOCK ? run_of(s, w.need.first) : NULL;
    if (r && r->error) { /* it was asked for, and could not be read */
        if (err)
            *err = *r->error;
        return failed(s, r->error->code, err);
    }
    if (rc == SF_CORRUPT && !s->again) {
        s->again = true;
        seek(s);
        rc = SF_WOULD_BLOCK;
    }
    if (rc == SF_WOULD_BLOCK) {
        s->need = w.need;
        base->at = SF_SCAN_NEEDS_FILL;
        return SF_OK;
    }
    if (rc == SF_CORRUPT)
        sf__page_error_name(&shard_of(s)->pages, w.need.first, rc, err);
    return failed(s, rc, err);
}

/* ------------------------------------------------------------------ filling -------------------------------------- */

/* Where rows go on elsewhere, leaves and the rest share the room. */
static size_t window_most(const struct sqlite_scan *s)
{
    uint64_t most = s->most_bytes / shard_of(s)->pages.page_bytes / (s->meets_chains ? 2 : 1);

    return most > 1 ? (size_t)most : 1;
}

/* Neighbours as one, and what has little between; how many there are then, of *pages pages. */
static size_t merge(const struct sqlite_scan *s, sf_page_need *needs, size_t count, uint64_t gap, uint64_t *pages)
{
    const uint32_t page_bytes = shard_of(s)->pages.page_bytes;

    gap = gap > SF_PAGE_GAP_BYTES / page_bytes ? gap : SF_PAGE_GAP_BYTES / page_bytes;
    count = sf__page_needs_merge(needs, count, page_bytes, gap);
    *pages = 0;
    for (size_t i = 0; i < count; i++)
        *pages += needs[i].count;
    return count;
}

/* Leaves in `needs`, which has room for one more than the window: as many as fit with what lies between them, which is what rows go on
 * on where that is about as much. 0 without memory. */
static size_t want_leaves(struct sqlite_scan *s, sf_page_need *needs)
{
    uint32_t *leaves = sf__alloc(alloc_of(s), s->window * sizeof(*leaves));
    sf_tree_walk w = walk_of(s);
    size_t found, count = 0;
    uint64_t pages = UINT64_MAX, gap = s->leaf_count > 0 ? 2 * s->chain_pages / s->leaf_count : 0;

    if (!leaves)
        return 0;
    w.need = s->need;
    found = sf__cursor_upcoming(&w, &s->cursor, leaves, s->window);
    for (; pages > window_most(s) && found > 0; found /= 2) {
        for (size_t i = 0; i < found; i++)
            needs[i] = (sf_page_need){leaves[i], 1};
        needs[found] = s->need; /* the first of them is one of those already */
        count = merge(s, needs, found + 1, gap, &pages);
        s->leaf_count = found;
    }
    s->chain_pages = 0;
    sf__free(alloc_of(s), leaves);
    return count;
}

/* The same of what the rows at hand go on on. */
static size_t want_chains(struct sqlite_scan *s, sf_page_need *needs)
{
    sf_tree_walk w = walk_of(s);
    size_t count = 0;
    uint64_t pages = UINT64_MAX;

    for (size_t window = s->window; pages > window_most(s) && window > 0; window /= 2) {
        needs[0] = s->need;
        count = 1 + (w.tree->rows_root == 0
                         ? sf__cursor_upcoming_chains(&w, &s->cursor, needs + 1, window, (uint32_t)window)
                         : 0);
        count = merge(s, needs, count, 0, &pages);
    }
    return count;
}

static bool runs_make(struct sqlite_scan *s)
{
    const sf_page_source *source = &shard_of(s)->pages;
    const bool chain = s->cursor.state == SF_CURSOR_AT_CELL;
    bool keep = s->window <= FIRST_PAGES, ok;
    sf_page_need *needs = sf__alloc(alloc_of(s), (s->window + 1) * sizeof(*needs));
    size_t n = 0;

    s->meets_chains |= chain;
    if (needs)
        n = chain ? want_chains(s, needs) : want_leaves(s, needs);
    s->filling = chain ? &s->chains : &s->leaves;
    runs_drop(s, &s->chains);
    if (!chain) /* rows at hand have come to their end, or a page is read once more */
        runs_drop(s, &s->leaves);
    s->filling->runs = n > 0 ? sf__calloc(alloc_of(s), n, sizeof(*s->filling->runs)) : NULL;
    ok = s->filling->runs;
    for (size_t i = 0; ok && i < n; i++) {
        ok = sf__page_run_init(&s->filling->runs[i], source, needs[i].first, needs[i].count);
        if (ok)
            s->filling->runs[s->filling->count++].keep = keep;
    }
    sf__free(alloc_of(s), needs);
    if (!ok)
        runs_drop(s, s->filling);
    return ok;
}

static void run_done(sf_page_run *r)
{
    struct sqlite_scan *s = r->ctx;
    sf_scan_fill *fill = s->fill;

    if (--s->in_flight > 0)
        return;
    s->fill = NULL;
    if (s->cancelled) /* whoever did so knows */
        runs_drop(s, s->filling);
    fill->done(fill); /* the scan may be gone: nothing after this line */
}

bool sf__sqlite_scan_fill(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct sqlite_scan *s = sf_container_of(base, struct sqlite_scan, base);
    size_t most = window_most(s);

    if (base->at != SF_SCAN_NEEDS_FILL)
        return false;
    if (s->window > most)
        s->window = most;
    if (!runs_make(s)) {
        sf_error e;

        sf_fail(&e, SF_NOMEM, "pages of a scan");
        s->failed = sf_error_keep(alloc_of(s), &e);
        return false;
    }
    s->window = 2 * s->window < most ? 2 * s->window : most;
    s->fill = fill;
    s->cancelled = false;
    s->in_flight = s->filling->count;
    for (size_t i = 0; i < s->filling->count; i++) {
        s->filling->runs[i].done = run_done;
        s->filling->runs[i].ctx = s;
        sf__page_run_start(&s->filling->runs[i], SF_NO_DEADLINE);
    }
    return true;
}

bool sf__sqlite_scan_fill_cancel(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct sqlite_scan *s = sf_container_of(base, struct sqlite_scan, base);

    (void)fill;
    s->cancelled = true;
    for (size_t i = 0; i < s->filling->count; i++)
        sf__page_run_cancel(&s->filling->runs[i]);
    return false;
}

void sf__sqlite_scan_fill_overdue(const sf_shard_scan *base, uint64_t since_ns, sf_error *err)
{
    const struct sqlite_scan *s = sf_container_of(base, struct sqlite_scan, base);
    const struct page_runs *r = s->filling;
    size_t i = 0;

    while (i + 1 < r->count && r->runs[i].state != SF_PAGE_RUN_READING)
        i++;
    sf__page_run_overdue(&r->runs[i], since_ns, err);
}
