/* Scans of one shard. A step merges rows into a batch until that is full; when a source has no block at hand, the step
 * waits. Rows that a step has merged but could not deliver (it was cancelled) stay for the next one.
 *
 *   IDLE --next--> POSTED --> MERGING --batch full, or end, or failed--> IDLE
 *                    ^           |  ^
 *                    |           v  |  a block has come
 *                    +-------- WAITING --deadline--> IDLE
 *                 cancel, or the loop thread needs a break
 *
 * Blocks may arrive in any state: they are read ahead. A scan that is freed meanwhile goes with the last of them. */
#include "backend/slatedb/merge.h"
#include "base/clock.h"
#include "base/error.h"

/* Rows merged (dropped ones, too) before other work of the loop thread gets its turn. */
#define MERGE_BURST 4096u
/* Stored bytes that one scan reads ahead over all its sources, about. */
#define SCAN_WINDOWS_BYTES (UINT64_C(8) << 20)

enum scan_state { SCAN_IDLE, SCAN_POSTED, SCAN_MERGING, SCAN_WAITING, SCAN_FREED };

struct scan {
    sf_shard_scan base; /* first */
    enum scan_state state;
    sf_scan_io io;
    uint8_t *bound_bytes;       /* holds start and end */
    sf_scan_bounds range;       /* what was asked for */
    sf_scan_bounds tree_bounds; /* of it, what lies in the present tree */
    uint8_t *prefix_end;
    uint32_t trees_left;
    sf_scan_source memtable;
    sf_scan_source *sources;    /* of the present tree */
    size_t source_count;
    size_t live;                /* of those, not at their end */
    sf_scan_source **waiting;   /* that stand at no row and are not at their end */
    size_t waiting_count;
    sf_merge merge;
    sf_row_batch *batch;
    size_t batch_bytes;
    sf_error lost; /* a source has lost its place: the scan cannot go on */
    /* the step in flight */
    sf_scan_step *step;
    bool cancelled;
    sf_timer timer;
    sf_task task;
};

static void scan_enter(struct scan *s, enum scan_state next);

static const sf_slatedb_shard *shard_of(const struct scan *s)
{
    return s->io.shard;
}

static const sf_allocator *alloc_of(const struct scan *s)
{
    return s->base.shard->rt->alloc;
}

/* ------------------------------------------------------------------ the end of a step ---------------------------- */

static void step_finish(struct scan *s, sf_status rc, const sf_error *e, bool end)
{
    sf_scan_step *step = s->step;

    if (rc != SF_OK && rc != SF_CANCELLED && s->batch && s->batch->count > 0)
        rc = SF_OK; /* first what there is; the next step meets the failure again */
    step->error = (sf_error)SF_ERROR_INIT;
    step->batch = NULL;
    step->end = false;
    if (rc == SF_OK) {
        step->batch = s->batch;
        step->end = end;
        s->batch = NULL;
        s->batch_bytes = 0;
    } else {
        step->error = *e;
        step->error.code = rc;
        step->error.db_id = s->base.shard->db_id;
    }
    s->step = NULL;
    scan_enter(s, SCAN_IDLE);
    step->done(step); /* the scan may be gone: nothing after this line */
}

static void step_fail(struct scan *s, sf_status rc, const char *text)
{
    sf_error e;

    sf_fail(&e, rc, "%s: %s", s->base.shard->url, text);
    step_finish(s, rc, &e, false);
}

/* ------------------------------------------------------------------ trees ---------------------------------------- */

static void sources_drop(struct scan *s)
{
    for (size_t i = 0; i < s->source_count; i++)
        sf__source_cleanup(&s->sources[i]);
    sf__free(alloc_of(s), s->sources);
    sf__free(alloc_of(s), s->waiting);
    s->sources = NULL;
    s->waiting = NULL;
    s->source_count = 0;
    s->waiting_count = 0;
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

static sf_status tree_bounds(struct scan *s, sf_bytes prefix, sf_error *err)
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

/* The next tree in the order of the scan; its sources begin to wait for their first blocks. */
static sf_status tree_open(struct scan *s, sf_error *err)
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
    if (!s->sources || !s->waiting || !sf__merge_reserve(&s->merge, n + 1)) {
        sources_drop(s);
        return sf_fail(err, SF_NOMEM, "%zu sources of a scan", n);
    }
    s->io.max_window = SCAN_WINDOWS_BYTES / (n + 1);
    if (s->io.max_window > SF_EXTENT_MAX_BYTES)
        s->io.max_window = SF_EXTENT_MAX_BYTES;
    if (s->io.max_window < SF_SCAN_FIRST_WINDOW)
        s->io.max_window = SF_SCAN_FIRST_WINDOW;
    for (uint32_t i = 0; i < n; i++) {
        sf_scan_source *src = &s->sources[s->source_count++];

        if (i < t->l0_count)
            sf__source_of_ssts(src, &s->io, &t->l0[i], 1, &s->tree_bounds);
        else
            sf__source_of_ssts(src, &s->io, t->runs[i - t->l0_count].ssts, t->runs[i - t->l0_count].sst_count,
                               &s->tree_bounds);
        if (src->state == SF_SOURCE_NEEDS_BLOCK)
            s->waiting[s->waiting_count++] = src;
    }
    s->live = s->waiting_count;
    s->trees_left--;
    return SF_OK;
}

/* ------------------------------------------------------------------ merging -------------------------------------- */

/* Every waiting source is asked, so that their requests go out together. The first failure is the outcome. */
static sf_status resume_waiting(struct scan *s, sf_error *err)
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
        else if (src->state == SF_SOURCE_AT_ROW)
            sf__merge_push(&s->merge, src);
        else
            s->live--;
    }
    s->waiting_count = left;
    return first;
}

/* The gathered key is complete. */
static sf_status emit(struct scan *s, sf_error *err)
{
    sf_merge *m = &s->merge;
    sf_bytes key = sf__merge_key(m);

    if (m->flags & SF_ROW_MERGE)
        return sf_fail(err, SF_MERGE_OPERATOR, "%s: the value of a key is a merge operand", s->base.shard->url);
    if (!(m->flags & SF_ROW_TOMBSTONE)) {
        if (!sf__row_batch_add(s->batch, key, m->value, m->owner))
            return sf_fail(err, SF_NOMEM, "row of a scan");
        s->batch_bytes += key.n + m->value.n;
    }
    sf__merge_drop(m);
    return SF_OK;
}

static sf_status top_next(struct scan *s, sf_error *err)
{
    sf_scan_source *top = sf__merge_top(&s->merge);
    sf_status rc = sf__source_next(top, err);

    if (rc != SF_OK)
        return rc;
    sf__merge_top_moved(&s->merge);
    if (top->state == SF_SOURCE_NEEDS_BLOCK)
        s->waiting[s->waiting_count++] = top;
    else if (top->state == SF_SOURCE_END && !top->mem)
        s->live--;
    return SF_OK;
}

/* One row, or one step towards one. After a failure of the merge itself the scan cannot go on. */
static sf_status merge_one(struct scan *s, bool *end, sf_error *err)
{
    sf_status rc;
    bool complete = true;

    if (s->live == 0 && s->trees_left > 0)
        return tree_open(s, err);
    if (sf__merge_top(&s->merge)) {
        rc = sf__merge_gather(&s->merge, &complete, err);
        if (rc == SF_OK && !complete)
            rc = top_next(s, err);
        if (rc != SF_OK) {
            sf_error_prefix(err, rc, "%s: ", s->base.shard->url);
            s->lost = *err;
            s->lost.code = rc;
            return rc;
        }
    } else if (!s->merge.gathered) {
        *end = true;
        return SF_OK;
    }
    return complete ? emit(s, err) : SF_OK;
}

static bool batch_full(const struct scan *s)
{
    return s->batch->count > 0 && (s->batch->count >= s->step->max_rows || s->batch_bytes >= s->step->max_bytes);
}

static bool at_end(const struct scan *s)
{
    return !s->merge.gathered && !sf__merge_top(&s->merge) && s->waiting_count == 0 && s->trees_left == 0;
}

static void merging_run(struct scan *s)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = SF_OK;
    bool end = false;

    if (!s->batch)
        s->batch = sf__row_batch_new(alloc_of(s));
    if (!s->batch) {
        step_fail(s, SF_NOMEM, "batch of a scan");
        return;
    }
    if (s->lost.code != SF_OK) {
        e = s->lost;
        rc = e.code;
    }
    for (unsigned n = 0; rc == SF_OK && !end && !batch_full(s); n++) {
        if (s->waiting_count > 0) {
            rc = resume_waiting(s, &e);
            if (rc == SF_OK && s->waiting_count > 0) {
                scan_enter(s, SCAN_WAITING);
                return;
            }
            continue;
        }
        if (n >= MERGE_BURST) {
            scan_enter(s, SCAN_POSTED);
            return;
        }
        rc = merge_one(s, &end, &e);
    }
    step_finish(s, rc, &e, rc == SF_OK && (end || at_end(s)));
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void posted_run(sf_task *task)
{
    struct scan *s = (struct scan *)((char *)task - offsetof(struct scan, task));

    if (s->cancelled)
        step_fail(s, SF_CANCELLED, "cancelled");
    else if (sf__clock_mono_ns() >= s->step->deadline_ns)
        step_fail(s, SF_TIMEOUT, "the deadline of a scan step passed");
    else
        scan_enter(s, SCAN_MERGING);
}

static void on_deadline(sf_timer *timer)
{
    struct scan *s = (struct scan *)((char *)timer - offsetof(struct scan, timer));

    step_fail(s, SF_TIMEOUT, "the deadline of a scan step passed while it waited for blocks");
}

static void scan_destroy(struct scan *s)
{
    const sf_allocator *a = alloc_of(s);
    sf_shard *shard = s->base.shard;

    sf__free(a, s->bound_bytes);
    sf__free(a, s);
    sf__shard_release(shard);
}

static void arrived(sf_scan_io *io)
{
    struct scan *s = (struct scan *)((char *)io - offsetof(struct scan, io));

    if (s->state == SCAN_WAITING)
        scan_enter(s, SCAN_MERGING);
    else if (s->state == SCAN_FREED && io->in_flight == 0)
        scan_destroy(s);
}

static void scan_enter(struct scan *s, enum scan_state next)
{
    sf_loop *loop = s->base.shard->rt->loop;

    if (s->state == SCAN_WAITING)
        sf__timer_stop(loop, &s->timer);
    s->state = next;
    switch (next) {
    case SCAN_IDLE:
        break;
    case SCAN_POSTED:
        s->task.run = posted_run;
        sf__loop_post(loop, &s->task);
        break;
    case SCAN_MERGING:
        merging_run(s); /* s may be gone: nothing after this line */
        break;
    case SCAN_WAITING:
        s->timer.fire = on_deadline;
        sf__timer_start(loop, &s->timer, s->step->deadline_ns); /* ends in arrived() or on_deadline() */
        break;
    case SCAN_FREED:
        sf__source_cleanup(&s->memtable);
        sources_drop(s);
        sf__merge_cleanup(&s->merge);
        sf__row_batch_free(s->batch);
        sf__free(alloc_of(s), s->prefix_end);
        if (s->io.in_flight == 0)
            scan_destroy(s); /* else arrived() does */
        break;
    }
}

/* ------------------------------------------------------------------ calls ---------------------------------------- */

sf_status sf__slatedb_scan_open(sf_shard *shard, const sf_scan_range *range, sf_shard_scan **out, sf_error *err)
{
    const sf_allocator *a = shard->rt->alloc;
    const sf_slatedb_shard *db = (const sf_slatedb_shard *)shard;
    struct scan *s = sf__calloc(a, 1, sizeof(*s));
    size_t end_n = range->has_end ? range->end.n : 0;

    if (s)
        s->bound_bytes = sf__alloc(a, range->start.n + end_n);
    if (s)
        sf__merge_init(&s->merge, range->reverse, a);
    if (!s || !s->bound_bytes || !sf__merge_reserve(&s->merge, 1)) {
        if (s) {
            sf__merge_cleanup(&s->merge);
            sf__free(a, s->bound_bytes);
        }
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    if (range->start.n > 0)
        memcpy(s->bound_bytes, range->start.p, range->start.n);
    if (end_n > 0)
        memcpy(s->bound_bytes + range->start.n, range->end.p, end_n);
    s->range.lo = (sf_bytes){s->bound_bytes, range->start.n};
    s->range.hi = (sf_bytes){s->bound_bytes + range->start.n, end_n};
    s->range.has_hi = range->has_end;
    s->base.shard = sf__shard_acquire(shard);
    s->io = (sf_scan_io){.shard = db, .reverse = range->reverse, .arrived = arrived};
    if (!range->has_end || sf_bytes_cmp(s->range.lo, s->range.hi) < 0) { /* else it is empty */
        s->trees_left = db->view.manifest.tree_count;
        sf__source_of_memtable(&s->memtable, &s->io, &db->view.memtable, &s->range);
        if (s->memtable.state == SF_SOURCE_AT_ROW)
            sf__merge_push(&s->merge, &s->memtable);
    }
    *out = &s->base;
    return SF_OK;
}

void sf__slatedb_scan_next(sf_shard_scan *scan, sf_scan_step *step)
{
    struct scan *s = (struct scan *)scan;

    step->scan = scan;
    step->batch = NULL;
    step->end = false;
    s->step = step;
    s->cancelled = false;
    scan_enter(s, SCAN_POSTED);
}

void sf__slatedb_scan_cancel(sf_shard_scan *scan, sf_scan_step *step)
{
    struct scan *s = (struct scan *)scan;

    if (s->step != step)
        return;
    s->cancelled = true;
    if (s->state == SCAN_WAITING)
        scan_enter(s, SCAN_POSTED);
}

void sf__slatedb_scan_free(sf_shard_scan *scan)
{
    scan_enter((struct scan *)scan, SCAN_FREED);
}
