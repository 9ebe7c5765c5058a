/*   IDLE --start--> MERGING --batch full, or end, or failed--> IDLE
 *                    |   ^                                      ^
 *         rows miss  v   |  all fills are home                  |
 *                   FILLING --cancelled, deadline--> STOPPING --+  (the fills under way are home)
 *
 * MERGING runs on a worker, all else on the loop thread. */
#include "backend/scan_merge.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* Rows between two looks at deadline and cancelling. */
#define MERGE_BURST 4096u
/* Copying so few bytes costs less than counting a reference, when every row comes from another block. */
#define COPIED_VALUE_BYTES 256u
/* Bursts without a row after which the calling thread leaves the work to a worker. */
#define TRY_BURSTS 4u

static void merge_enter(sf_scan_merge *m, enum merge_state next);

/* ------------------------------------------------------------------ merging -------------------------------------- */

/* What becomes of the values of a source's block in batch n; smaller ones tell of earlier batches. */
#define MARK_COPIED(n) (2 * (n))
#define MARK_HELD(n) (2 * (n) + 1)

static void stand(sf_scan_merge *m, uint32_t i)
{
    const sf_shard_scan *scan = m->sources[i].scan;
    struct merge_place *p = &m->places[i];

    if (scan->at != SF_SCAN_AT_ROW) {
        sf__kway_end(&m->kway, i);
        return;
    }
    if (p->owner != scan->owner || p->mark != MARK_HELD(m->batch_number)) /* not what the batch holds already */
        p->mark = 0;
    p->row = scan->rows;
    p->end = scan->rows + scan->count;
    p->owner = scan->owner;
    sf__kway_set(&m->kway, i, p->row->key);
}

static sf_status scan_move(sf_shard_scan *scan, sf_error *err)
{
    sf_status rc = scan->shard->vtable->scan_next(scan, err);

    if (rc != SF_OK)
        err->db_id = scan->shard->db_id;
    return rc;
}

static bool has_place(const sf_shard_scan *scan)
{
    return scan->at == SF_SCAN_AT_ROW || scan->at == SF_SCAN_AT_END;
}

/* All that wait are moved on, so that what they need is asked for together. The first failure is the outcome. *moved: one of
 * them may get further when it is moved on again at once. */
static sf_status move_waiting(sf_scan_merge *m, bool *moved, sf_error *err)
{
    sf_status first = SF_OK;
    uint32_t left = 0;

    *moved = false;
    for (uint32_t n = 0; n < m->waiting_count; n++) {
        uint32_t i = m->waiting[n];
        sf_shard_scan *scan = m->sources[i].scan;
        sf_error e = SF_ERROR_INIT;
        sf_status rc = has_place(scan) ? SF_OK : scan_move(scan, &e);

        if (rc != SF_OK && first == SF_OK) {
            first = rc;
            *err = e;
        }
        *moved = *moved || scan->at == SF_SCAN_BETWEEN_ROWS;
        if (rc != SF_OK || !has_place(scan))
            m->waiting[left++] = i;
        else if (m->built) /* it was the winner, alone */
            stand(m, i);
    }
    m->waiting_count = left;
    if (left > 0 || first != SF_OK)
        return first;
    if (m->built) {
        sf__kway_replay(&m->kway);
        return SF_OK;
    }
    for (uint32_t i = 0; i < m->source_count; i++)
        stand(m, i);
    sf__kway_build(&m->kway);
    m->built = true;
    return SF_OK;
}

/* Whether the batch holds the block of the row's value, so that the value may stay there. The first small one of a block is copied: of
 * very many shards there may be no second. */
static bool value_is_held(sf_scan_merge *m, struct merge_place *p, bool *held)
{
    *held = p->mark == MARK_HELD(m->batch_number);
    if (*held || !p->owner)
        return true;
    if (p->row->value.n <= COPIED_VALUE_BYTES && p->mark != MARK_COPIED(m->batch_number)) {
        p->mark = MARK_COPIED(m->batch_number);
        return true;
    }
    *held = sf__row_batch_hold(m->batch, p->owner);
    if (*held)
        p->mark = MARK_HELD(m->batch_number);
    return *held;
}

/* The next *left rows into the batch, which it counts down; or fewer, up to where a source has none at once, or the batch has
 * `max_bytes`. */
static sf_status take_rows(sf_scan_merge *m, size_t *left, size_t max_bytes, sf_error *err)
{
    while (*left > 0 && !sf__kway_is_over(&m->kway)) {
        uint32_t i = sf__kway_winner(&m->kway);
        struct merge_place *p = &m->places[i];
        const sf_row *row = p->row;
        bool held;

        if (!value_is_held(m, p, &held) || !sf__row_batch_add(m->batch, row->key, row->value, held))
            return sf_fail(err, SF_NOMEM, "row of a scan");
        m->batch_bytes += row->key.n + row->value.n;
        m->left--;
        --*left;
        if (++p->row < p->end) {
            sf__kway_set(&m->kway, i, p->row->key);
        } else {
            sf_shard_scan *scan = m->sources[i].scan;
            sf_status rc = scan_move(scan, err);

            if (rc != SF_OK || !has_place(scan)) {
                m->waiting[m->waiting_count++] = i;
                return rc;
            }
            stand(m, i);
        }
        sf__kway_replay(&m->kway);
        if (m->batch_bytes >= max_bytes)
            break;
    }
    return SF_OK;
}

static bool batch_full(const sf_scan_merge *m, const sf_scan_limits *limits)
{
    return m->batch->count > 0 && (m->batch->count >= limits->max_rows || m->batch_bytes >= limits->max_bytes);
}

static bool is_over(const sf_scan_merge *m)
{
    return m->left == 0 || (m->waiting_count == 0 && (!m->built || sf__kway_is_over(&m->kway)));
}

/* Until the batch is full or the scan at its end (SF_OK), more is needed (SF_WOULD_BLOCK), or something failed. `bursts`
 * bounds the work; after them it is SF_OK with neither. */
static sf_status merge_rows(sf_scan_merge *m, const sf_scan_limits *limits, unsigned bursts, sf_error *err)
{
    size_t left = (size_t)bursts * MERGE_BURST;

    size_t most = limits->max_rows < MERGE_BURST ? limits->max_rows : MERGE_BURST;

    if (!m->batch) {
        m->batch = sf__row_batch_new(m->rt->alloc);
        m->batch_number++;
    }
    if (!m->batch || !sf__row_batch_reserve(m->batch, m->left < most ? (size_t)m->left : most))
        return sf_fail(err, SF_NOMEM, "batch of a scan");
    while (left > 0 && !batch_full(m, limits) && !is_over(m)) {
        bool moved = true;
        sf_status rc;

        if (m->waiting_count > 0) {
            rc = move_waiting(m, &moved, err);
            if (rc == SF_OK && m->waiting_count > 0 && !moved)
                return SF_WOULD_BLOCK;
            if (!moved || m->waiting_count == 0)
                left--;
            else /* a move that ended between rows has passed over many of them */
                left -= left < MERGE_BURST ? left : MERGE_BURST;
        } else {
            size_t room = limits->max_rows - m->batch->count, wanted = left < room ? left : room;

            wanted = m->left < wanted ? (size_t)m->left : wanted;
            left -= wanted;
            rc = take_rows(m, &wanted, limits->max_bytes, err);
            left += wanted;
        }
        if (rc != SF_OK)
            return rc;
    }
    return SF_OK;
}

/* What is to be delivered. A step that was stopped may have left more rows than this one wants: they are split. */
static sf_status batch_take(sf_scan_merge *m, size_t max_rows, sf_row_batch **out, sf_error *err)
{
    sf_row_batch *all = m->batch, *first;

    if (all->count <= max_rows) {
        m->batch = NULL;
        m->batch_bytes = 0;
        *out = all;
        return SF_OK;
    }
    first = sf__row_batch_new(m->rt->alloc);
    for (size_t i = 0; first && i < max_rows; i++)
        if (!sf__row_batch_add(first, all->rows[i].key, all->rows[i].value, false)) {
            sf__row_batch_free(first);
            first = NULL;
        }
    if (!first)
        return sf_fail(err, SF_NOMEM, "batch of a scan");
    all->count -= max_rows;
    memmove(all->rows, all->rows + max_rows, all->count * sizeof(*all->rows));
    *out = first;
    return SF_OK;
}

/* Nothing comes behind what was delivered. */
static bool is_end(const sf_scan_merge *m)
{
    return !m->batch && is_over(m);
}

sf_status sf__scan_merge_try(sf_scan_merge *m, const sf_scan_limits *limits, sf_row_batch **batch, bool *end,
                             sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = merge_rows(m, limits, TRY_BURSTS, &e);

    if (m->batch && m->batch->count > 0) {
        rc = SF_OK; /* first what there is; a failure is met again */
    } else if (rc == SF_OK && !is_over(m)) {
        rc = SF_WOULD_BLOCK;
    }
    if (rc == SF_OK)
        rc = batch_take(m, limits->max_rows, batch, &e);
    if (rc == SF_OK) {
        *end = is_end(m);
    } else if (rc != SF_WOULD_BLOCK && err) {
        *err = e;
    }
    return rc;
}

/* ------------------------------------------------------------------ steps ---------------------------------------- */

static bool is_late(const sf_scan_merge *m)
{
    return sf__clock_mono_ns() >= m->step->deadline_ns;
}

/* `s`: whose fill is under way, or NULL. */
static sf_status overdue(sf_scan_merge *m, const struct merge_source *s)
{
    sf_error_overdue(&m->error, &(sf_overdue){.since_ns = m->since_ns});
    if (s && s->scan->shard->vtable->scan_fill_overdue)
        s->scan->shard->vtable->scan_fill_overdue(s->scan, m->since_ns, &m->error);
    if (s)
        sf_error_object(&m->error, s->scan->shard->url);
    return sf_error_prefix(&m->error, SF_TIMEOUT, "scan of %s: ", s ? s->scan->shard->url : "a snapshot");
}

static void merge_run(sf_work *w)
{
    sf_scan_merge *m = sf_container_of(w, sf_scan_merge, work);

    m->error = (sf_error)SF_ERROR_INIT;
    do {
        if (atomic_load_explicit(&m->cancelled, memory_order_relaxed))
            m->verdict = sf_fail(&m->error, SF_CANCELLED, "cancelled");
        else if (is_late(m))
            m->verdict = overdue(m, NULL);
        else
            m->verdict = merge_rows(m, &m->step->limits, 1, &m->error);
    } while (m->verdict == SF_OK && !batch_full(m, &m->step->limits) && !is_over(m));
}

static void step_finish(sf_scan_merge *m, sf_status rc)
{
    sf_scan_step *step = m->step;

    if (rc != SF_OK && rc != SF_CANCELLED && m->batch && m->batch->count > 0)
        rc = SF_OK; /* first what there is; the next step meets the failure again */
    step->error = (sf_error)SF_ERROR_INIT;
    step->batch = NULL;
    step->end = false;
    if (rc == SF_OK)
        rc = batch_take(m, step->limits.max_rows, &step->batch, &m->error);
    if (rc == SF_OK) {
        step->end = is_end(m);
    } else {
        step->error = m->error;
        step->error.code = rc;
    }
    m->step = NULL;
    merge_enter(m, MERGE_IDLE);
    step->done(step); /* the merge may be gone: nothing after this line */
}

static void merge_done(sf_work *w)
{
    sf_scan_merge *m = sf_container_of(w, sf_scan_merge, work);

    if (m->verdict != SF_WOULD_BLOCK)
        step_finish(m, m->verdict);
    else if (atomic_load_explicit(&m->cancelled, memory_order_relaxed))
        step_finish(m, sf_fail(&m->error, SF_CANCELLED, "cancelled"));
    else
        merge_enter(m, MERGE_FILLING);
}

static void fill_home(sf_scan_merge *m)
{
    if (--m->pending > 0)
        return;
    if (m->state != MERGE_STOPPING) {
        merge_enter(m, MERGE_MERGING);
    } else if (m->late) {
        step_finish(m, SF_TIMEOUT); /* as on_deadline() has found it */
    } else {
        step_finish(m, sf_fail(&m->error, SF_CANCELLED, "cancelled"));
    }
}

static void fill_done(sf_scan_fill *fill)
{
    sf_container_of(fill, struct merge_source, fill)->filling = false;
    fill_home(fill->ctx);
}

static void fills_start(sf_scan_merge *m)
{
    m->pending = 1; /* this function's own */
    for (uint32_t n = 0; n < m->waiting_count; n++) {
        struct merge_source *s = &m->sources[m->waiting[n]];

        s->fill = (sf_scan_fill){
            .deadline_ns = m->step->deadline_ns, .call_ctx = m->step->call_ctx, .done = fill_done, .ctx = m};
        s->filling = s->scan->shard->vtable->scan_fill(s->scan, &s->fill);
        m->pending += s->filling;
    }
    fill_home(m);
}

static void fills_stop(sf_scan_merge *m)
{
    m->pending++;
    for (uint32_t n = 0; n < m->waiting_count; n++) {
        struct merge_source *s = &m->sources[m->waiting[n]];

        if (s->filling && s->scan->shard->vtable->scan_fill_cancel(s->scan, &s->fill)) {
            s->filling = false;
            m->pending--;
        }
    }
    fill_home(m);
}

static void on_deadline(sf_timer *timer)
{
    sf_scan_merge *m = sf_container_of(timer, sf_scan_merge, timer);

    const struct merge_source *s = &m->sources[m->waiting[0]];

    for (uint32_t n = 0; n < m->waiting_count; n++)
        if (m->sources[m->waiting[n]].filling) {
            s = &m->sources[m->waiting[n]];
            break;
        }
    m->late = true;
    overdue(m, s);
    merge_enter(m, MERGE_STOPPING);
}

static void merge_enter(sf_scan_merge *m, enum merge_state next)
{
    if (m->state == MERGE_FILLING)
        sf__timer_stop(m->rt->loop, &m->timer);
    m->state = next;
    switch (next) {
    case MERGE_IDLE:
        break;
    case MERGE_MERGING:
        m->work = (sf_work){.run = merge_run, .done = merge_done};
        sf__work_submit(m->rt->loop, SF_WORK_CPU, &m->work); /* ends in merge_done() */
        break;
    case MERGE_FILLING:
        m->timer.fire = on_deadline;
        sf__timer_start(m->rt->loop, &m->timer, m->step->deadline_ns);
        fills_start(m); /* ends in fill_home() */
        break;
    case MERGE_STOPPING:
        fills_stop(m); /* ends in fill_home() */
        break;
    }
}

void sf__scan_merge_start(sf_scan_merge *m, sf_scan_step *step)
{
    m->step = step;
    m->since_ns = sf__clock_mono_ns();
    m->late = false;
    atomic_store_explicit(&m->cancelled, false, memory_order_relaxed);
    merge_enter(m, MERGE_MERGING);
}

void sf__scan_merge_cancel(sf_scan_merge *m)
{
    if (m->state == MERGE_IDLE)
        return;
    atomic_store_explicit(&m->cancelled, true, memory_order_relaxed);
    if (m->state == MERGE_FILLING)
        merge_enter(m, MERGE_STOPPING);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_status sf__scan_merge_init(sf_scan_merge *m, sf_runtime *rt, uint32_t count, bool reverse, uint64_t limit,
                              sf_error *err)
{
    const sf_allocator *a = rt->alloc;

    *m = (sf_scan_merge){.rt = rt, .left = limit};
    atomic_init(&m->cancelled, false);
    m->sources = sf__calloc(a, (size_t)count + 1, sizeof(*m->sources));
    m->places = sf__calloc(a, (size_t)count + 1, sizeof(*m->places));
    m->waiting = sf__calloc(a, (size_t)count + 1, sizeof(*m->waiting));
    if (!m->sources || !m->places || !m->waiting ||
        !sf__kway_init(&m->kway, count, reverse ? SF_KWAY_REVERSE : SF_KWAY_FORWARD, a)) {
        sf__scan_merge_cleanup(m);
        return sf_fail(err, SF_NOMEM, "scan over %u shards", count);
    }
    return SF_OK;
}

void sf__scan_merge_add(sf_scan_merge *m, sf_shard_scan *scan)
{
    m->waiting[m->waiting_count++] = m->source_count;
    m->sources[m->source_count++].scan = scan;
}

void sf__scan_merge_cleanup(sf_scan_merge *m)
{
    if (!m->rt)
        return;
    for (uint32_t i = 0; i < m->source_count; i++)
        m->sources[i].scan->shard->vtable->scan_free(m->sources[i].scan);
    sf__row_batch_free(m->batch);
    sf__kway_cleanup(&m->kway);
    sf__free(m->rt->alloc, m->sources);
    sf__free(m->rt->alloc, m->places);
    sf__free(m->rt->alloc, m->waiting);
    *m = (sf_scan_merge){0};
}
