/* Scans: each fill is one question for a batch of rows, which must follow one another and lie inside of the range. One that
 * fails or is dropped leaves the scan where it was. */
#include "backend/foreign/shard.h"
#include "base/container.h"
#include "base/error.h"

/* Rows of one batch: enough to make what a question costs beside them small. */
#define BATCH_ROWS 1024u

struct foreign_scan {
    sf_shard_scan base; /* first */
    sf_foreign_cursor *cursor;
    uint64_t left; /* rows that can still be used */
    size_t batch_bytes;
    sf_row_batch *batch; /* what was read; or NULL */
    bool fresh;          /* whose rows were not shown yet */
    sf_buf *last;        /* the last key of all batches; or NULL */
    bool ended;
    bool astray;            /* the opener's scan stands somewhere else, or is still being asked */
    const sf_error *failed; /* why the last fill failed, until it is told; or NULL */
    sf_shard_request *step; /* under way */
    sf_scan_fill *fill;
};

sf_status sf__foreign_scan_open(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                                sf_error *err)
{
    const sf_allocator *a = s->rt->alloc;
    sf_foreign_handle *h = sf_container_of(s, sf_foreign_shard, base)->handle;
    struct foreign_scan *scan;

    if (!h->opener->vtable.scan_next)
        return sf_fail(err, SF_UNSUPPORTED, "shards of this opener cannot be scanned");
    scan = sf__calloc(a, 1, sizeof(*scan));
    if (scan)
        scan->cursor = sf__foreign_cursor_new(h, range);
    if (!scan || !scan->cursor) {
        sf__free(a, scan);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    scan->base = (sf_shard_scan){.shard = sf__shard_acquire(s), .at = SF_SCAN_BETWEEN_ROWS};
    scan->left = range->limit;
    scan->batch_bytes = buffer_bytes < 1          ? 1
                        : buffer_bytes < SIZE_MAX ? (size_t)buffer_bytes
                                                  : SIZE_MAX; /* a row always */
    *out = &scan->base;
    return SF_OK;
}

void sf__foreign_scan_free(sf_shard_scan *base)
{
    struct foreign_scan *scan = sf_container_of(base, struct foreign_scan, base);
    sf_shard *s = base->shard;

    sf__row_batch_free(scan->batch);
    sf__buf_release(scan->last);
    sf__foreign_cursor_release(scan->cursor);
    sf_error_drop(s->rt->alloc, scan->failed);
    sf__free(s->rt->alloc, scan);
    sf__shard_release(s);
}

sf_status sf__foreign_scan_next(sf_shard_scan *base, sf_error *err)
{
    struct foreign_scan *scan = sf_container_of(base, struct foreign_scan, base);

    if (scan->failed) {
        base->at = SF_SCAN_BETWEEN_ROWS;
        return sf_error_tell(base->shard->rt->alloc, &scan->failed, err);
    }
    if (!scan->fresh || scan->batch->count == 0) {
        base->at = scan->ended ? SF_SCAN_AT_END : SF_SCAN_NEEDS_FILL;
        return SF_OK;
    }
    scan->fresh = false;
    base->at = SF_SCAN_AT_ROW;
    base->rows = scan->batch->rows;
    base->count = scan->batch->count;
    base->owner = NULL;
    return SF_OK;
}

/* ------------------------------------------------------------------ filling -------------------------------------- */

static sf_status check_rows(const struct foreign_scan *scan, const sf_row_batch *batch, sf_error *err)
{
    const sf_shard_rows_wanted *w = &scan->cursor->wanted;
    sf_bytes last = sf__buf_bytes(scan->last);
    bool first = !scan->last;

    for (size_t i = 0; i < batch->count; i++) {
        sf_bytes key = batch->rows[i].key;

        if (sf_bytes_cmp(key, w->start) < 0 || (w->has_end && sf_bytes_cmp(key, w->end) >= 0))
            return sf_fail(err, SF_CORRUPT, "a row of the scan lies outside of the range that was asked for");
        if (!first && (w->reverse ? sf_bytes_cmp(key, last) >= 0 : sf_bytes_cmp(key, last) <= 0))
            return sf_fail(err, SF_CORRUPT, "rows of the scan are not in the order of their keys");
        last = key;
        first = false;
    }
    return SF_OK;
}

static sf_status take_rows(struct foreign_scan *scan, sf_row_batch *batch, sf_error *err)
{
    sf_status rc = check_rows(scan, batch, err);
    sf_buf *last;

    if (rc != SF_OK || batch->count == 0)
        return rc;
    last = sf__buf_copy(scan->base.shard->rt->alloc, batch->rows[batch->count - 1].key);
    if (!last)
        return sf_fail(err, SF_NOMEM, "place of a scan");
    sf__buf_release(scan->last);
    scan->last = last;
    return SF_OK;
}

static void step_home(sf_shard_request *q, bool late)
{
    struct foreign_scan *scan = q->owner;
    sf_scan_fill *fill = scan->fill;
    sf_error e;

    if (!late && !q->error && take_rows(scan, q->rows, &e) != SF_OK)
        q->error = sf_error_keep(&sf__allocator_default, &e);
    if (sf__foreign_failed(&e, q->shard, "scan of", q, late) == SF_OK) {
        scan->astray = false;
        sf__row_batch_free(scan->batch);
        scan->batch = q->rows;
        q->rows = NULL;
        scan->fresh = true;
        scan->left -= scan->batch->count < scan->left ? scan->batch->count : scan->left;
        scan->ended = scan->batch->count == 0 || scan->left == 0;
    } else {
        scan->failed = sf_error_keep(scan->base.shard->rt->alloc, &e);
    }
    scan->step = NULL;
    sf__shard_request_release(q);
    fill->done(fill); /* the scan may be gone: nothing after this line */
}

/* From behind the last row on. */
static sf_foreign_cursor *cursor_at(const struct foreign_scan *scan)
{
    const sf_shard_rows_wanted *w = &scan->cursor->wanted;
    sf_scan_range r = {
        .start = w->start,
        .end = w->end,
        .has_end = w->has_end,
        .reverse = w->reverse,
        .has_prefix = w->has_prefix,
        .prefix = w->prefix,
        .limit = scan->left,
    };
    sf_foreign_cursor *c;
    sf_buf *start = NULL;

    if (scan->last) {
        r.has_prefix = false;
        r.end = w->reverse ? sf__buf_bytes(scan->last) : w->end;
        r.has_end = w->reverse || w->has_end;
    }
    if (scan->last && !w->reverse) {
        start = sf__buf_new(scan->base.shard->rt->alloc, scan->last->n + 1); /* the next possible key */
        if (!start)
            return NULL;
        memcpy(start->data, scan->last->data, scan->last->n);
        start->data[scan->last->n] = 0;
        r.start = sf__buf_bytes(start);
    }
    c = sf__foreign_cursor_new(scan->cursor->handle, &r);
    sf__buf_release(start);
    return c;
}

static bool no_memory(struct foreign_scan *scan)
{
    sf_error e;

    sf_fail(&e, SF_NOMEM, "step of a scan");
    e.db_id = scan->base.shard->db_id;
    scan->failed = sf_error_keep(scan->base.shard->rt->alloc, &e);
    return false;
}

bool sf__foreign_scan_fill(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct foreign_scan *scan = sf_container_of(base, struct foreign_scan, base);
    sf_foreign_cursor *c = scan->cursor;
    sf_shard_request *q;

    if (base->at != SF_SCAN_NEEDS_FILL)
        return false;
    if (scan->astray) {
        sf_foreign_cursor *fresh = cursor_at(scan);

        if (!fresh)
            return no_memory(scan);
        sf__foreign_cursor_release(c);
        scan->cursor = c = fresh;
    }
    q = sf__shard_request_new(c->handle, base->shard->rt->loop, fill->call_ctx, scan, step_home);
    if (q)
        q->rows = sf__row_batch_new(&sf__allocator_default);
    if (!q || !q->rows) {
        if (q)
            sf__shard_request_forget(q);
        return no_memory(scan);
    }
    q->shard = base->shard;
    q->cursor = sf__foreign_cursor_acquire(c);
    c->wanted.max_rows = scan->left < BATCH_ROWS ? (size_t)scan->left : BATCH_ROWS;
    c->wanted.max_bytes = scan->batch_bytes;
    scan->step = q;
    scan->fill = fill;
    scan->astray = true; /* until it has answered */
    sf__shard_request_start(q, fill->deadline_ns);
    c->handle->opener->vtable.scan_next(c->handle->shard, &c->scan, &c->wanted, q); /* q may be gone: nothing after it */
    return true;
}

bool sf__foreign_scan_fill_cancel(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct foreign_scan *scan = sf_container_of(base, struct foreign_scan, base);
    sf_shard_request *q = scan->step;

    (void)fill;
    if (!q || !sf__shard_request_drop(q))
        return false;
    scan->step = NULL;
    sf__shard_request_release(q);
    return true;
}
