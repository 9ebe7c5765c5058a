/* Scans: each fill is a job that finds its place again by the last key of the batch before, so that nothing of SQLite's is
 * held between two of them. One that fails or is cancelled leaves the scan where it was. */
#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* Rows of one batch: enough to make what a job costs beside them small. */
#define BATCH_ROWS 4096u

struct sqlite_scan {
    sf_shard_scan base; /* first */
    uint8_t *bounds;    /* holds the first lo and hi */
    size_t batch_bytes;
    sf_sqlite_range left; /* what was not read yet */
    sf_buf *last;       /* what replaced one of its bounds; or NULL */
    sf_row_batch *batch; /* what was read; or NULL */
    size_t pos;         /* of the next row in it */
    bool ended;         /* there is nothing behind the batch */
    const sf_error *failed; /* why the last fill failed, until it is told; or NULL */
    /* the fill under way */
    sf_scan_fill *fill;
    sf_work work;
    uint64_t since_ns;
    sf_cancel_flag cancelled;
};

static const sf_allocator *alloc_of(const struct sqlite_scan *s)
{
    return s->base.shard->rt->alloc;
}

sf_status sf__sqlite_scan_open(sf_shard *shard, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                               sf_error *err)
{
    const sf_allocator *a = shard->rt->alloc;
    size_t end_n = range->has_end ? range->end.n : 0;
    struct sqlite_scan *s = sf__calloc(a, 1, sizeof(*s));

    if (s)
        s->bounds = sf__alloc(a, range->start.n + end_n);
    if (!s || !s->bounds) {
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    if (range->start.n > 0)
        memcpy(s->bounds, range->start.p, range->start.n);
    if (end_n > 0)
        memcpy(s->bounds + range->start.n, range->end.p, end_n);
    s->left = (sf_sqlite_range){
        .lo = sf_bytes_of(s->bounds, range->start.n),
        .hi = sf_bytes_of(s->bounds + range->start.n, end_n),
        .has_hi = range->has_end,
        .reverse = range->reverse,
    };
    s->base = (sf_shard_scan){.shard = sf__shard_acquire(shard), .at = SF_SCAN_BETWEEN_ROWS};
    s->batch_bytes = buffer_bytes < SIZE_MAX ? (size_t)buffer_bytes : SIZE_MAX;
    *out = &s->base;
    return SF_OK;
}

void sf__sqlite_scan_free(sf_shard_scan *base)
{
    struct sqlite_scan *s = (struct sqlite_scan *)base;
    const sf_allocator *a = alloc_of(s);
    sf_shard *shard = base->shard;

    sf__row_batch_free(s->batch);
    sf__buf_release(s->last);
    sf__free(a, s->bounds);
    sf_error_drop(a, s->failed);
    sf__free(a, s);
    sf__shard_release(shard);
}

sf_status sf__sqlite_scan_next(sf_shard_scan *base, sf_error *err)
{
    struct sqlite_scan *s = (struct sqlite_scan *)base;
    const sf_row *row;

    if (s->failed) {
        base->at = SF_SCAN_BETWEEN_ROWS;
        return sf_error_tell(alloc_of(s), &s->failed, err);
    }
    if (!s->batch || s->pos == s->batch->count) {
        base->at = s->ended ? SF_SCAN_AT_END : SF_SCAN_NEEDS_FILL;
        return SF_OK;
    }
    row = &s->batch->rows[s->pos++];
    base->at = SF_SCAN_AT_ROW;
    base->key = row->key;
    base->value = row->value;
    base->owner = NULL;
    return SF_OK;
}

/* ------------------------------------------------------------------ filling -------------------------------------- */

/* Behind the last row of the batch. */
static sf_status move_on(struct sqlite_scan *s, const sf_row_batch *batch, sf_error *err)
{
    sf_buf *last;

    if (batch->count == 0)
        return SF_OK;
    last = sf__buf_copy(alloc_of(s), batch->rows[batch->count - 1].key);
    if (!last)
        return sf_fail(err, SF_NOMEM, "place of a scan");
    sf__buf_release(s->last);
    s->last = last;
    if (s->left.reverse) {
        s->left.hi = sf__buf_bytes(last);
        s->left.has_hi = true;
    } else {
        s->left.lo = sf__buf_bytes(last);
        s->left.past_lo = true;
    }
    return SF_OK;
}

static sf_status read_rows(struct sqlite_scan *s, sf_row_batch *batch, bool *end, sf_error *err)
{
    sf_sqlite_shard *shard = (sf_sqlite_shard *)s->base.shard;
    sf_scan_limits limits = {.max_rows = BATCH_ROWS, .max_bytes = s->batch_bytes};
    sf_sqlite_watch watch = {&s->cancelled, s->since_ns, s->fill->deadline_ns};
    sf_sqlite_connection *c = NULL;
    sf_status rc;

    if (sf__is_cancelled(&s->cancelled))
        return sf_fail(err, SF_CANCELLED, "cancelled");
    if (sf__clock_mono_ns() >= s->fill->deadline_ns)
        return sf_error_overdue(err, &(sf_overdue){.since_ns = s->since_ns, .waits_for = "a thread that is free"});
    rc = sf__sqlite_shard_take(shard, &watch, &c, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__sqlite_scan(c, &s->left, &limits, &watch, batch, end, err);
    sf__sqlite_shard_give_back(shard, c);
    return rc == SF_OK ? move_on(s, batch, err) : rc;
}

static void fill_run(sf_work *w)
{
    struct sqlite_scan *s = sf_container_of(w, struct sqlite_scan, work);
    bool end = false;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    sf__row_batch_free(s->batch);
    s->pos = 0;
    s->batch = sf__row_batch_new(alloc_of(s));
    rc = s->batch ? read_rows(s, s->batch, &end, &e) : sf_fail(&e, SF_NOMEM, "batch of a scan");
    if (rc != SF_OK) {
        sf_error_prefix(&e, rc, "scan of %s: ", s->base.shard->url);
        sf_error_object(&e, s->base.shard->url);
        e.db_id = s->base.shard->db_id;
        s->failed = sf_error_keep(alloc_of(s), &e);
        sf__row_batch_free(s->batch);
        s->batch = NULL;
        return;
    }
    s->ended = end;
}

static void fill_done(sf_work *w)
{
    struct sqlite_scan *s = sf_container_of(w, struct sqlite_scan, work);
    sf_scan_fill *fill = s->fill;

    s->fill = NULL;
    if (sf__is_cancelled(&s->cancelled)) /* whoever did so knows */
        sf_error_tell(alloc_of(s), &s->failed, NULL);
    fill->done(fill); /* the scan may be gone: nothing after this line */
}

bool sf__sqlite_scan_fill(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct sqlite_scan *s = (struct sqlite_scan *)base;

    if (base->at != SF_SCAN_NEEDS_FILL)
        return false;
    s->fill = fill;
    s->since_ns = sf__clock_mono_ns();
    atomic_init(&s->cancelled, false);
    s->work = (sf_work){.run = fill_run, .done = fill_done};
    sf__work_submit(base->shard->rt->loop, SF_WORK_SQLITE, &s->work);
    return true;
}

bool sf__sqlite_scan_fill_cancel(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct sqlite_scan *s = (struct sqlite_scan *)base;

    (void)fill;
    atomic_store_explicit(&s->cancelled, true, memory_order_relaxed);
    return false;
}
