/* Scans: each step is a job that finds its place again by the last key of the step before, so that nothing of SQLite's is
 * held between two steps. A step that fails or is cancelled leaves the scan where it was. */
#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/error.h"

struct scan {
    sf_shard_scan base; /* first */
    uint8_t *bounds;    /* holds the first lo and hi */
    sf_sqlite_range left; /* what was not handed out yet */
    sf_buf *last;       /* what replaced one of its bounds; or NULL */
    bool ended;
    /* the step in flight */
    sf_scan_step *step;
    sf_work work;
    sf_cancel_flag cancelled;
};

static const sf_allocator *alloc_of(const struct scan *s)
{
    return s->base.shard->rt->alloc;
}

sf_status sf__sqlite_scan_open(sf_shard *shard, const sf_scan_range *range, sf_shard_scan **out, sf_error *err)
{
    const sf_allocator *a = shard->rt->alloc;
    size_t end_n = range->has_end ? range->end.n : 0;
    struct scan *s = sf__calloc(a, 1, sizeof(*s));

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
    s->base.shard = sf__shard_acquire(shard);
    *out = &s->base;
    return SF_OK;
}

void sf__sqlite_scan_free(sf_shard_scan *base)
{
    struct scan *s = (struct scan *)base;
    const sf_allocator *a = alloc_of(s);
    sf_shard *shard = base->shard;

    sf__buf_release(s->last);
    sf__free(a, s->bounds);
    sf__free(a, s);
    sf__shard_release(shard);
}

/* ------------------------------------------------------------------ steps ---------------------------------------- */

/* Behind the last row of the batch. */
static sf_status move_on(struct scan *s, const sf_row_batch *batch, sf_error *err)
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

static sf_status read_rows(struct scan *s, sf_row_batch *batch, bool *end, sf_error *err)
{
    sf_sqlite_shard *shard = (sf_sqlite_shard *)s->base.shard;
    sf_sqlite_connection *c = NULL;
    sf_status rc;

    if (sf__is_cancelled(&s->cancelled))
        return sf_fail(err, SF_CANCELLED, "cancelled");
    if (sf__clock_mono_ns() >= s->step->deadline_ns)
        return sf_fail(err, SF_TIMEOUT, "the deadline of a scan step passed");
    rc = sf__sqlite_shard_take(shard, &c, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__sqlite_scan(c, &s->left, s->step, &s->cancelled, batch, end, err);
    sf__sqlite_shard_give_back(shard, c);
    return rc == SF_OK ? move_on(s, batch, err) : rc;
}

static void step_run(sf_work *w)
{
    struct scan *s = (struct scan *)((char *)w - offsetof(struct scan, work));
    sf_scan_step *step = s->step;
    bool end = s->ended;
    sf_status rc = SF_OK;

    step->batch = sf__row_batch_new(alloc_of(s));
    if (!step->batch)
        rc = sf_fail(&step->error, SF_NOMEM, "batch of a scan");
    else if (!end)
        rc = read_rows(s, step->batch, &end, &step->error);
    if (rc != SF_OK) {
        sf_error_prefix(&step->error, rc, "%s: ", s->base.shard->url);
        step->error.db_id = s->base.shard->db_id;
        sf__row_batch_free(step->batch);
        step->batch = NULL;
        return;
    }
    step->end = s->ended = end;
}

static void step_done(sf_work *w)
{
    struct scan *s = (struct scan *)((char *)w - offsetof(struct scan, work));
    sf_scan_step *step = s->step;

    s->step = NULL;
    step->done(step); /* the scan may be gone: nothing after this line */
}

void sf__sqlite_scan_next(sf_shard_scan *base, sf_scan_step *step)
{
    struct scan *s = (struct scan *)base;

    step->error = (sf_error)SF_ERROR_INIT;
    step->batch = NULL;
    step->end = false;
    step->scan = base;
    s->step = step;
    atomic_init(&s->cancelled, false);
    s->work = (sf_work){.run = step_run, .done = step_done};
    sf__work_submit(base->shard->rt->loop, &s->work);
}

void sf__sqlite_scan_cancel(sf_shard_scan *base, sf_scan_step *step)
{
    struct scan *s = (struct scan *)base;

    if (s->step == step)
        atomic_store_explicit(&s->cancelled, true, memory_order_relaxed);
}
