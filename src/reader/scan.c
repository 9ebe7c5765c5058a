/* Scans over one shard or over all shards merged in key order. Each shard delivers batches; a step refills the empty
 * ones together, then merges until its batch is full or a shard runs dry. */
#include "base/error.h"
#include "reader/snapshot.h"
#include "runtime/call.h"

struct source {
    sf_shard_scan *scan;
    sf_row_batch *batch;
    size_t pos;
    bool end;
    bool in_flight;
    struct scan_call *step; /* the step that waits for it */
    sf_scan_step op;
};

/*   IDLE --step--> REFILLING --all home--> MERGING --> IDLE          (loop thread; a failed step leaves IDLE too) */
struct sf_scan {
    sf_snapshot *snap;
    bool reverse;
    uint64_t left;       /* rows still wanted */
    struct source *sources;
    size_t source_count;
    atomic_uint refs;    /* the caller's and a step's */
    atomic_bool busy;    /* a step is in flight */
    sf_call *last;       /* blocking form: keeps its rows alive */
    sf_task free_task;
};

struct scan_call {
    sf_call call;
    sf_scan *scan;
    size_t max_rows;
    size_t pending;
    sf_row_batch *rows; /* result */
    bool end;           /* result */
};

#define SCAN_STEP_BYTES (1u << 20)

static void scan_destroy_now(sf_task *t)
{
    sf_scan *s = (sf_scan *)((char *)t - offsetof(sf_scan, free_task));
    const sf_allocator *a = s->snap->alloc;

    for (size_t i = 0; i < s->source_count; i++) {
        sf__row_batch_free(s->sources[i].batch);
        if (s->sources[i].scan)
            s->sources[i].scan->shard->vtable->scan_free(s->sources[i].scan);
    }
    sf__free(a, s->sources);
    sf_snapshot_give_back(s->snap);
    sf__free(a, s);
}

static void scan_unref(sf_scan *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    s->free_task.run = scan_destroy_now;
    sf__loop_post(s->snap->rt->loop, &s->free_task);
}

static const sf_row *source_head(const struct source *src)
{
    return src->batch && src->pos < src->batch->count ? &src->batch->rows[src->pos] : NULL;
}

static struct source *next_source(sf_scan *s)
{
    struct source *best = NULL;

    for (size_t i = 0; i < s->source_count; i++) {
        const sf_row *row = source_head(&s->sources[i]);
        int c;

        if (!row)
            continue;
        c = best ? sf_bytes_cmp(row->key, source_head(best)->key) : -1;
        if (!best || (s->reverse ? c > 0 : c < 0))
            best = &s->sources[i];
    }
    return best;
}

static void step_refill(struct scan_call *c);

static void step_finish(struct scan_call *c)
{
    sf_scan *s = c->scan;

    atomic_store_explicit(&s->busy, false, memory_order_release);
    sf__call_finish(&c->call);
}

/* True when every source has a row ready or is at its end. */
static bool all_ready(const sf_scan *s)
{
    for (size_t i = 0; i < s->source_count; i++)
        if (!s->sources[i].end && !source_head(&s->sources[i]))
            return false;
    return true;
}

static void step_merge(struct scan_call *c)
{
    sf_scan *s = c->scan;
    size_t bytes = 0;
    struct source *src = NULL;

    if (c->call.error.code != SF_OK) {
        step_finish(c);
        return;
    }
    if (!c->rows)
        c->rows = sf__row_batch_new(c->call.alloc);
    if (!c->rows) {
        sf_fail(&c->call.error, SF_NOMEM, "batch of a scan");
        step_finish(c);
        return;
    }
    while (s->left > 0 && c->rows->count < c->max_rows && bytes < SCAN_STEP_BYTES && all_ready(s)) {
        const sf_row *row;

        src = next_source(s);
        if (!src)
            break;
        row = source_head(src);
        bytes += row->key.n + row->value.n;
        if (!sf__row_batch_add(c->rows, row->key, row->value, NULL)) {
            sf_fail(&c->call.error, SF_NOMEM, "row of a scan");
            step_finish(c);
            return;
        }
        src->pos++;
        s->left--;
    }
    if (c->rows->count == 0 && s->left > 0 && !all_ready(s)) {
        step_refill(c);
        return;
    }
    c->end = s->left == 0 || (all_ready(s) && !next_source(s));
    step_finish(c);
}

static void source_home(struct scan_call *c)
{
    if (--c->pending == 0)
        step_merge(c);
}

static void source_done(sf_scan_step *op)
{
    struct source *src = op->ctx;
    struct scan_call *c = src->step;

    src->in_flight = false;
    src->batch = op->batch;
    src->pos = 0;
    src->end = op->end;
    if (op->error.code != SF_OK && c->call.error.code == SF_OK)
        c->call.error = op->error;
    source_home(c);
}

static void step_refill(struct scan_call *c)
{
    sf_scan *s = c->scan;

    c->pending = 1;
    for (size_t i = 0; i < s->source_count; i++) {
        struct source *src = &s->sources[i];

        if (src->end || source_head(src))
            continue;
        sf__row_batch_free(src->batch);
        src->batch = NULL;
        src->step = c;
        src->op = (sf_scan_step){
            .max_rows = s->left < c->max_rows ? (size_t)s->left : c->max_rows,
            .max_bytes = SCAN_STEP_BYTES,
            .deadline_ns = c->call.deadline_ns,
            .done = source_done,
            .ctx = src,
            .error = SF_ERROR_INIT,
        };
        src->in_flight = true;
        c->pending++;
        src->scan->shard->vtable->scan_next(src->scan, &src->op);
    }
    source_home(c);
}

static void step_start(sf_call *call)
{
    step_refill((struct scan_call *)call);
}

static void step_cancel(sf_call *call)
{
    struct scan_call *c = (struct scan_call *)call;

    for (size_t i = 0; i < c->scan->source_count; i++) {
        struct source *src = &c->scan->sources[i];

        if (src->in_flight)
            src->scan->shard->vtable->scan_cancel(src->scan, &src->op);
    }
}

static void step_destroy(sf_call *call)
{
    struct scan_call *c = (struct scan_call *)call;

    sf__row_batch_free(c->rows);
    if (c->scan)
        scan_unref(c->scan);
}

static const sf_call_type step_type = {step_start, step_cancel, step_destroy};

const sf_row *sf_call_rows(const sf_call *call, size_t *count, bool *end)
{
    const struct scan_call *c = (const struct scan_call *)call;
    const sf_row_batch *rows = call->type == &step_type ? c->rows : NULL;

    *count = rows ? rows->count : 0;
    *end = call->type == &step_type && c->end;
    return rows ? rows->rows : NULL;
}

static sf_status scan_check(const sf_snapshot *s, const sf_scan_options *o, sf_error *err)
{
    if (o->size != sizeof(*o))
        return sf_fail(err, SF_UNSUPPORTED, "scan options of %zu bytes: expected %zu", o->size, sizeof(*o));
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

sf_status sf_scan_open(sf_scan **out, sf_snapshot *snap, const sf_scan_options *o, sf_error *err)
{
    const sf_allocator *a = snap->alloc;
    sf_scan_range range;
    uint8_t *successor = NULL;
    uint32_t first = 0, last = snap->num_dbs;
    sf_scan *s = NULL;
    sf_status rc = sf__runtime_check_process(snap->rt, err);

    if (rc == SF_OK)
        rc = scan_check(snap, o, err);
    if (rc != SF_OK)
        return rc;
    range = (sf_scan_range){.start = o->start, .end = o->end, .has_end = o->has_end, .reverse = o->reverse};
    if (o->has_prefix) {
        size_t n = o->prefix.n;

        successor = sf__alloc(a, n + 1);
        if (!successor)
            return sf_fail(err, SF_NOMEM, "bound of a scan");
        if (n > 0)
            memcpy(successor, o->prefix.p, n);
        range.start = o->prefix;
        range.has_end = prefix_successor(successor, &n);
        range.end = (sf_bytes){successor, range.has_end ? n : 0};
    }
    if (o->db_id != SF_ALL_SHARDS) {
        first = o->db_id;
        last = first + 1;
    }
    s = sf__calloc(a, 1, sizeof(*s));
    if (s) {
        s->snap = sf_snapshot_acquire(snap);
        atomic_init(&s->refs, 1);
        s->reverse = o->reverse;
        s->left = o->limit;
        s->sources = sf__calloc(a, last - first + 1, sizeof(*s->sources));
    }
    if (!s || !s->sources) {
        rc = sf_fail(err, SF_NOMEM, "scan over %u shards", last - first);
        goto out;
    }
    for (uint32_t db_id = first; db_id < last; db_id++) {
        sf_shard *shard = snap->shards[db_id];
        struct source *src = &s->sources[s->source_count];

        if (!shard)
            continue;
        rc = shard->vtable->scan_open(shard, &range, &src->scan, err);
        if (rc != SF_OK)
            goto out;
        s->source_count++;
    }
    *out = s;
    s = NULL;
out:
    sf__free(a, successor);
    if (s)
        scan_unref(s);
    return rc;
}

sf_status sf_scan_next_start(sf_call **out, sf_scan *s, size_t max_rows, int64_t timeout_ms, sf_call_done_fn done,
                             void *ctx, sf_error *err)
{
    struct scan_call *c;
    sf_status rc = sf__runtime_check_process(s->snap->rt, err);

    if (rc != SF_OK)
        return rc;
    if (max_rows == 0)
        return sf_fail(err, SF_INVALID, "max_rows must be at least 1");
    if (atomic_exchange_explicit(&s->busy, true, memory_order_acq_rel))
        return sf_fail(err, SF_STATE, "a step of this scan is in flight already");
    c = (struct scan_call *)sf__call_new(&step_type, sizeof(*c), s->snap->rt, timeout_ms, done, ctx);
    if (!c) {
        atomic_store_explicit(&s->busy, false, memory_order_release);
        return sf_fail(err, SF_NOMEM, "step of a scan");
    }
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    c->scan = s;
    c->max_rows = max_rows;
    *out = &c->call;
    sf__call_start(&c->call);
    return SF_OK;
}

sf_status sf_scan_next(sf_scan *s, size_t max_rows, int64_t timeout_ms, const sf_row **rows, size_t *count,
                       sf_error *err)
{
    sf_call *c;
    bool end;
    sf_status rc = sf_scan_next_start(&c, s, max_rows, timeout_ms, NULL, NULL, err);

    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK)
        *rows = sf_call_rows(c, count, &end);
    sf_call_release(s->last);
    s->last = c;
    return rc;
}

void sf_scan_close(sf_scan *s)
{
    sf_call *last;

    if (!s || sf__runtime_check_process(s->snap->rt, NULL) != SF_OK)
        return;
    last = s->last;
    s->last = NULL;
    sf_call_release(last);
    scan_unref(s);
}
