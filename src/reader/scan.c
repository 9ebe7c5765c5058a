/* Scans over one shard or over all shards merged in key order: the public side of backend/scan_merge.h. */
#include "backend/scan_merge.h"
#include "base/container.h"
#include "base/error.h"
#include "base/options.h"
#include "reader/snapshot.h"
#include "runtime/call.h"

/* What one scan may read ahead over all its shards, unless it was told more of each. */
#define SCAN_BUFFER_BYTES (UINT64_C(48) << 20)
#define SCAN_STEP_BYTES (1u << 20)

struct sf_scan {
    sf_snapshot *snap;
    sf_scan_merge merge;
    atomic_uint refs;   /* the caller's and that of a step under way */
    atomic_bool busy;   /* a step is under way */
    sf_row_batch *rows; /* of the last step that was not a call: its rows are the caller's to read */
};

struct scan_call {
    sf_call call;
    sf_scan *scan; /* until the step has ended: what the call keeps then is its rows, not the snapshot */
    sf_scan_step step;
};

static void scan_unref(sf_scan *s)
{
    sf_snapshot *snap = s->snap;

    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf__scan_merge_cleanup(&s->merge);
    sf__row_batch_free(s->rows);
    sf__free(snap->alloc, s);
    sf__snapshot_release(snap);
}

static sf_status scan_take(sf_scan *s, size_t max_rows, sf_error *err)
{
    sf_status rc = sf__runtime_check_process(s->snap->rt, err);

    if (rc != SF_OK)
        return rc;
    if (max_rows == 0)
        return sf_fail(err, SF_INVALID, "max_rows must be at least 1");
    if (atomic_exchange_explicit(&s->busy, true, memory_order_acq_rel))
        return sf_fail(err, SF_STATE, "a step of this scan is in flight already");
    return SF_OK;
}

static void scan_give_back(sf_scan *s)
{
    atomic_store_explicit(&s->busy, false, memory_order_release);
}

/* ------------------------------------------------------------------ steps as calls ------------------------------- */

static void step_done(sf_scan_step *step)
{
    struct scan_call *c = step->ctx;
    sf_scan *scan = c->scan;

    sf__call_failed(&c->call, &step->error);
    c->scan = NULL;
    scan_give_back(scan);
    scan_unref(scan);
    sf__call_finish(&c->call);
}

static void step_start(sf_call *call)
{
    struct scan_call *c = sf_container_of(call, struct scan_call, call);

    sf__scan_merge_start(&c->scan->merge, &c->step);
}

static void step_cancel(sf_call *call)
{
    sf__scan_merge_cancel(&sf_container_of(call, struct scan_call, call)->scan->merge);
}

static void step_destroy(sf_call *call)
{
    struct scan_call *c = sf_container_of(call, struct scan_call, call);

    sf__row_batch_free(c->step.batch);
}

static const sf_call_type step_type = {.start = step_start, .cancel = step_cancel, .destroy = step_destroy};

const sf_row *sf_call_rows(const sf_call *call, size_t *count, bool *end)
{
    const struct scan_call *c = sf_container_of(call, struct scan_call, call);
    const sf_row_batch *rows = call->type == &step_type ? c->step.batch : NULL;

    *count = rows ? rows->count : 0;
    *end = call->type == &step_type && c->step.end;
    return rows ? rows->rows : NULL;
}

sf_status sf_scan_next_start(sf_call **out, sf_scan *s, size_t max_rows, int64_t timeout_ms, sf_call_done_fn done,
                             void *ctx, sf_error *err)
{
    struct scan_call *c;
    sf_status rc = scan_take(s, max_rows, err);

    if (rc != SF_OK)
        return rc;
    c = (struct scan_call *)sf__call_new(&step_type, sizeof(*c), s->snap->rt, timeout_ms, done, ctx);
    if (!c) {
        scan_give_back(s);
        return sf_fail(err, SF_NOMEM, "step of a scan");
    }
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    c->scan = s;
    c->step = (sf_scan_step){
        .limits = {.max_rows = max_rows, .max_bytes = SCAN_STEP_BYTES},
        .deadline_ns = c->call.deadline_ns,
        .call_ctx = ctx,
        .done = step_done,
        .ctx = c,
        .error = SF_ERROR_INIT,
    };
    *out = &c->call;
    sf__call_start(&c->call);
    return SF_OK;
}

/* ------------------------------------------------------------------ steps at once -------------------------------- */

sf_status sf_scan_try_next(sf_scan *s, size_t max_rows, const sf_row **rows, size_t *count, bool *end, sf_error *err)
{
    sf_scan_limits limits = {.max_rows = max_rows, .max_bytes = SCAN_STEP_BYTES};
    sf_row_batch *batch = NULL;
    sf_status rc = scan_take(s, max_rows, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__scan_merge_try(&s->merge, &limits, &batch, end, err);
    if (rc == SF_OK) {
        sf__row_batch_free(s->rows);
        s->rows = batch;
        *rows = batch->rows;
        *count = batch->count;
    }
    scan_give_back(s);
    return rc;
}

sf_status sf_scan_next(sf_scan *s, size_t max_rows, int64_t timeout_ms, const sf_row **rows, size_t *count, sf_error *err)
{
    struct scan_call *step;
    sf_call *c;
    bool end;
    sf_status rc = sf_scan_try_next(s, max_rows, rows, count, &end, err);

    if (rc != SF_WOULD_BLOCK)
        return rc;
    rc = sf__runtime_check_may_wait(s->snap->rt, err);
    if (rc == SF_OK)
        rc = sf_scan_next_start(&c, s, max_rows, timeout_ms, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK) {
        step = sf_container_of(c, struct scan_call, call);
        sf__row_batch_free(s->rows);
        s->rows = step->step.batch;
        step->step.batch = NULL;
        *rows = s->rows->rows;
        *count = s->rows->count;
    }
    sf_call_release(c);
    return rc;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static sf_status scan_check(const sf_snapshot *s, const sf_scan_options *o, sf_error *err)
{
    if (o->db_id != SF_ALL_SHARDS && o->db_id >= s->num_dbs)
        return sf_fail(err, SF_INVALID, "shard %u does not exist: the snapshot has %u", o->db_id, s->num_dbs);
    if (o->has_prefix && (o->start.n > 0 || o->has_end))
        return sf_fail(err, SF_INVALID, "a scan takes a prefix or a range, not both");
    return SF_OK;
}

/* The end of a prefix: its last byte that is not 0xff plus one; false when there is none (unbounded). */
static bool prefix_successor(uint8_t *p, size_t *n)
{
    while (*n > 0 && p[*n - 1] == 0xff)
        (*n)--;
    if (*n == 0)
        return false;
    p[*n - 1]++;
    return true;
}

/* The bounds of the shards' scans. `successor` is freed with sf__free() whatever comes. */
static sf_status range_of(const sf_scan_options *o, const sf_allocator *a, sf_scan_range *range, uint8_t **successor,
                          sf_error *err)
{
    size_t n = o->prefix.n;

    *successor = NULL;
    *range = (sf_scan_range){.start = o->start,
                             .end = o->end,
                             .has_end = o->has_end,
                             .reverse = o->reverse,
                             .has_prefix = o->has_prefix,
                             .prefix = o->prefix,
                             .limit = o->limit};
    if (!o->has_prefix)
        return SF_OK;
    *successor = sf__alloc(a, n + 1);
    if (!*successor)
        return sf_fail(err, SF_NOMEM, "bound of a scan");
    if (n > 0)
        memcpy(*successor, o->prefix.p, n);
    range->start = o->prefix;
    range->has_end = prefix_successor(*successor, &n);
    range->end = (sf_bytes){*successor, range->has_end ? n : 0};
    return SF_OK;
}

static sf_status open_shards(sf_scan *s, const sf_scan_options *o, const sf_scan_range *range, sf_error *err)
{
    sf_snapshot *snap = s->snap;
    bool one = o->db_id != SF_ALL_SHARDS;
    uint32_t first = one ? o->db_id : 0, last = one ? first + 1 : snap->num_dbs, filled = 0;
    uint64_t each;
    sf_status rc;

    for (uint32_t i = first; i < last; i++)
        filled += snap->shards[i] != NULL;
    rc = sf__scan_merge_init(&s->merge, snap->rt, filled, o->reverse, o->limit, err);
    each = (o->prefetch_bytes > SCAN_BUFFER_BYTES ? o->prefetch_bytes : SCAN_BUFFER_BYTES) / (filled > 0 ? filled : 1);
    if (each > o->prefetch_bytes)
        each = o->prefetch_bytes;
    for (uint32_t i = first; i < last && rc == SF_OK; i++) {
        sf_shard *shard = snap->shards[i];
        sf_shard_scan *scan;

        if (!shard)
            continue;
        rc = shard->vtable->scan_open(shard, range, each, &scan, err);
        if (rc == SF_OK)
            sf__scan_merge_add(&s->merge, scan);
    }
    return rc;
}

sf_status sf_scan_open(sf_scan **out, sf_snapshot *snap, const sf_scan_options *opts, sf_error *err)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_scan_range range;
    uint8_t *successor = NULL;
    sf_scan *s;
    sf_status rc = sf__runtime_check_process(snap->rt, err);

    if (rc == SF_OK)
        rc = sf__options_take(&o, sizeof(o), opts, "scan options", err);
    if (rc == SF_OK)
        rc = scan_check(snap, &o, err);
    if (rc != SF_OK)
        return rc;
    s = sf__calloc(snap->alloc, 1, sizeof(*s));
    if (!s)
        return sf_fail(err, SF_NOMEM, "scan");
    s->snap = sf__snapshot_acquire(snap);
    atomic_init(&s->refs, 1);
    atomic_init(&s->busy, false);
    rc = range_of(&o, snap->alloc, &range, &successor, err);
    if (rc == SF_OK)
        rc = open_shards(s, &o, &range, err);
    sf__free(snap->alloc, successor);
    if (rc == SF_OK) {
        sf_runtime_acquire(snap->rt); /* the caller's handle */
        *out = s;
    } else {
        scan_unref(s);
    }
    return rc;
}

void sf_scan_close(sf_scan *s)
{
    sf_runtime *rt;

    if (!s || sf__runtime_check_process(s->snap->rt, NULL) != SF_OK)
        return;
    rt = s->snap->rt;
    scan_unref(s);
    sf_runtime_release(rt);
}
