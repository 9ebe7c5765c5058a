#include "net/loop.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>
#include <uv.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/thread.h"

/*   RUNNING --> DRAINING --> CLOSING      DRAINING lasts until the inbox is empty and no job is at a worker */
enum loop_state { LOOP_RUNNING, LOOP_DRAINING, LOOP_CLOSING };

struct sf_loop {
    /* set at creation */
    const sf_allocator *alloc;
    pthread_t thread; /* written under `lock` before the thread gets past it */
    /* under lock */
    pthread_mutex_t lock;
    sf_task *first, **last;
    /* loop thread */
    enum loop_state state;
    uv_loop_t uv;
    uv_async_t wakeup; /* any thread may send */
    uv_timer_t clock;
    uv_idle_t due; /* active while a timer is due already */
    sf_timer_queue timers;
    sf_under_way under_way;
    size_t jobs;
    struct loop_pool {
        sf_loop *loop;
        sf_pool *pool;
        sf_timer stall;
    } pools[SF_WORK_KINDS];
    sf_task stop;
    void (*gone)(void *ctx); /* NULL: somebody joins the thread */
    void *gone_ctx;
};

/* What libuv opens for a loop, and a little more. */
#define DESCRIPTORS 8u

/* The loop that the calling thread works for, if any. */
static _Thread_local const sf_loop *serving;

/* ---------------------------------------------------------------- timers ---------------------------------------- */

static void timers_on_clock(uv_timer_t *clock);
static void timers_on_due(uv_idle_t *due);

/* Wakes for the earliest timer. Rounds up: waking a millisecond early would only mean to wait once more. What is due
 * already takes an idle handle, which looks at the sockets between two turns; libuv's own timers of 0 ms do not. */
static void clock_set(sf_loop *loop)
{
    uint64_t now = sf__clock_mono_ns();

    if (!loop->timers.first || loop->state == LOOP_CLOSING) {
        uv_timer_stop(&loop->clock);
        uv_idle_stop(&loop->due);
    } else if (loop->timers.first->due_ns <= now) {
        uv_timer_stop(&loop->clock);
        uv_idle_start(&loop->due, timers_on_due);
    } else {
        uv_idle_stop(&loop->due);
        uv_update_time(&loop->uv);
        uv_timer_start(&loop->clock, timers_on_clock, (loop->timers.first->due_ns - now) / 1000000 + 1, 0);
    }
}

static void timers_run(sf_loop *loop)
{
    uint64_t now = sf__clock_mono_ns(), newest = loop->timers.newest;

    /* timers started by these callbacks have to wait for the next turn, or one that re-arms itself could starve I/O */
    while (loop->timers.first && loop->timers.first->due_ns <= now && loop->timers.first->order <= newest) {
        sf_timer *t = loop->timers.first;

        sf__timer_queue_remove(&loop->timers, t);
        t->fire(t);
    }
    clock_set(loop);
}

static void timers_on_clock(uv_timer_t *clock)
{
    timers_run(clock->data);
}

static void timers_on_due(uv_idle_t *due)
{
    timers_run(due->data);
}

void sf__timer_start(sf_loop *loop, sf_timer *timer, uint64_t due_ns)
{
    assert(sf__loop_is_current(loop));
    sf__timer_stop(loop, timer);
    if (due_ns == SF_NO_DEADLINE)
        return;
    sf__timer_queue_add(&loop->timers, timer, due_ns);
    if (loop->timers.first == timer)
        clock_set(loop);
}

void sf__timer_stop(sf_loop *loop, sf_timer *timer)
{
    assert(sf__loop_is_current(loop));
    if (timer->order == 0)
        return;
    sf__timer_queue_remove(&loop->timers, timer);
    if (!loop->timers.first)
        clock_set(loop); /* else: an early wake-up is cheaper than re-arming for every timer that is stopped */
}

/* ---------------------------------------------------------------- inbox ----------------------------------------- */

static bool inbox_is_empty(sf_loop *loop)
{
    bool empty;

    pthread_mutex_lock(&loop->lock);
    empty = !loop->first;
    pthread_mutex_unlock(&loop->lock);
    return empty;
}

static void loop_enter(sf_loop *loop, enum loop_state next)
{
    loop->state = next;
    if (next == LOOP_CLOSING) { /* the loop ends when these are closed */
        uv_close((uv_handle_t *)&loop->wakeup, NULL);
        uv_close((uv_handle_t *)&loop->clock, NULL);
        uv_close((uv_handle_t *)&loop->due, NULL);
    }
}

static void loop_close_when_idle(sf_loop *loop)
{
    if (loop->state == LOOP_DRAINING && loop->jobs == 0 && inbox_is_empty(loop))
        loop_enter(loop, LOOP_CLOSING);
}

static void inbox_on_wakeup(uv_async_t *wakeup)
{
    sf_loop *loop = wakeup->data;
    sf_task *task, *next;

    pthread_mutex_lock(&loop->lock);
    task = loop->first;
    loop->first = NULL;
    loop->last = &loop->first;
    pthread_mutex_unlock(&loop->lock);
    for (; task; task = next) {
        next = task->next;
        task->run(task);
    }
    loop_close_when_idle(loop);
}

void sf__loop_post(sf_loop *loop, sf_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&loop->lock);
    /* Only the first task of a batch wakes. Under the lock, so that the loop cannot run the task, drain, and close the
     * handle while this thread is still on its way to it. */
    if (!loop->first) {
        int rc = uv_async_send(&loop->wakeup);

        assert(rc == 0);
        (void)rc;
    }
    *loop->last = task;
    loop->last = &task->next;
    pthread_mutex_unlock(&loop->lock);
}

bool sf__loop_is_current(const sf_loop *loop)
{
    return pthread_equal(loop->thread, pthread_self());
}

bool sf__loop_is_own_thread(const sf_loop *loop)
{
    return serving == loop;
}

/* ---------------------------------------------------------------- workers --------------------------------------- */

/* How many threads serve a kind when nobody says otherwise. Whoever waits for others may need many: each of them is let
 * through as the ones before him do not move. */
static const struct {
    const char *name;
    sf_pool_size size;
} pool_kinds[SF_WORK_KINDS] = {
    [SF_WORK_CPU] = {"sf-cpu", {2, 2}},
    [SF_WORK_FILE] = {"sf-file", {4, 4}},
    [SF_WORK_SQLITE] = {"sf-sqlite", {4, 32}},
    [SF_WORK_WAIT] = {"sf-wait", {8, SF_POOL_MAX_THREADS}},
};

static void job_on_worker(void *ctx, sf_work *work)
{
    serving = ctx;
    work->run(work);
    sf__loop_post(ctx, &work->task);
}

static void job_on_done(sf_task *task)
{
    sf_work *work = sf_container_of(task, sf_work, task);

    work->loop->jobs--;
    work->done(work); /* the end of this batch looks whether it was the last */
}

static void stall_arm(struct loop_pool *p, bool wanted)
{
    if (wanted)
        sf__timer_start(p->loop, &p->stall, sf__deadline_in_ms(SF_POOL_STALL_MS));
}

static void stall_on_timer(sf_timer *timer)
{
    struct loop_pool *p = sf_container_of(timer, struct loop_pool, stall);

    stall_arm(p, sf__pool_look(p->pool));
}

void sf__work_submit(sf_loop *loop, sf_work_kind kind, sf_work *work)
{
    struct loop_pool *p = &loop->pools[kind];

    assert(sf__loop_is_current(loop));
    work->loop = loop;
    work->task.run = job_on_done;
    loop->jobs++;
    stall_arm(p, sf__pool_submit(p->pool, work));
}

void sf__loop_size_pool(sf_loop *loop, sf_work_kind kind, sf_pool_size size)
{
    sf__pool_resize(loop->pools[kind].pool, size);
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

static void pools_free(sf_loop *loop)
{
    for (int kind = 0; kind < SF_WORK_KINDS; kind++) {
        sf__pool_free(loop->pools[kind].pool);
        loop->pools[kind].pool = NULL;
    }
}

static sf_status pools_new(sf_loop *loop, sf_error *err)
{
    sf_status rc = SF_OK;

    for (int kind = 0; kind < SF_WORK_KINDS && rc == SF_OK; kind++) {
        struct loop_pool *p = &loop->pools[kind];

        p->loop = loop;
        p->stall.fire = stall_on_timer;
        rc = sf__pool_new(&p->pool, pool_kinds[kind].name, pool_kinds[kind].size, job_on_worker, loop, loop->alloc, err);
    }
    return rc;
}

static void uv_loop_end(sf_loop *loop)
{
    int rc = uv_loop_close(&loop->uv);

    assert(rc == 0); /* busy: somebody left a handle open */
    (void)rc;
}

static void loop_destroy(sf_loop *loop)
{
    uv_loop_end(loop);
    pthread_mutex_destroy(&loop->lock);
    sf__free(loop->alloc, loop);
}

static void *loop_main(void *arg)
{
    sf_loop *loop = arg;

    pthread_mutex_lock(&loop->lock); /* not before sf__loop_new() has stored our id */
    pthread_mutex_unlock(&loop->lock);
    serving = loop;
    sf__thread_name("sf-loop");
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    pools_free(loop); /* nothing is left that they could do */
    if (loop->gone) {
        void (*gone)(void *ctx) = loop->gone;
        void *ctx = loop->gone_ctx;

        pthread_detach(pthread_self());
        loop_destroy(loop);
        gone(ctx);
    }
    return NULL;
}

static int thread_start(sf_loop *loop)
{
    int rc;

    pthread_mutex_lock(&loop->lock); /* the thread looks at loop->thread */
    rc = sf__thread_start(&loop->thread, loop_main, loop);
    pthread_mutex_unlock(&loop->lock);
    return rc;
}

/* libuv refuses to work on the standard descriptors, and aborts where it gets none for the two pipes of its signals. */
static int uv_loop_start(sf_loop *loop)
{
    int rc;

    sf__std_fds_hold();
    rc = -sf__fd_probe(DESCRIPTORS);
    if (rc == 0)
        rc = uv_loop_init(&loop->uv);
    if (rc == 0) {
        uv_timer_init(&loop->uv, &loop->clock); /* these two cannot fail */
        uv_idle_init(&loop->uv, &loop->due);
        rc = uv_async_init(&loop->uv, &loop->wakeup, inbox_on_wakeup);
        if (rc != 0) {
            uv_close((uv_handle_t *)&loop->clock, NULL);
            uv_close((uv_handle_t *)&loop->due, NULL);
            uv_run(&loop->uv, UV_RUN_DEFAULT); /* closes them */
            uv_loop_end(loop);
        }
    }
    sf__std_fds_let_go();
    if (rc == 0)
        sf__std_fds_hold_at_fork();
    loop->wakeup.data = loop->clock.data = loop->due.data = loop;
    return rc;
}

sf_status sf__loop_new(sf_loop **out, const sf_allocator *a, sf_error *err)
{
    sf_loop *loop = sf__calloc(a, 1, sizeof(*loop));
    sf_status status;
    int rc;

    if (!loop)
        return sf_fail(err, SF_NOMEM, "event loop");
    loop->alloc = a;
    loop->last = &loop->first;
    sf__under_way_init(&loop->under_way);
    pthread_mutex_init(&loop->lock, NULL);
    rc = -uv_loop_start(loop); /* its errors are negative numbers of the system's */
    if (rc != 0) {
        pthread_mutex_destroy(&loop->lock);
        sf__free(a, loop);
        return sf__fail_errno(err, rc, SF_IO, "event loop");
    }
    status = pools_new(loop, err);
    if (status == SF_OK) {
        rc = thread_start(loop);
        if (rc == 0) {
            *out = loop;
            return SF_OK;
        }
        status = sf__fail_errno(err, rc, SF_EXHAUSTED, "event loop: starting its thread");
    }
    pools_free(loop);
    loop_enter(loop, LOOP_CLOSING);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* closes its handles */
    loop_destroy(loop);
    return status;
}

static void loop_on_stop(sf_task *task)
{
    sf_loop *loop = sf_container_of(task, sf_loop, stop);

    loop_enter(loop, LOOP_DRAINING); /* the end of this batch looks whether anything is left */
}

void sf__loop_free(sf_loop *loop)
{
    if (!loop)
        return;
    assert(!sf__loop_is_own_thread(loop));
    loop->stop.run = loop_on_stop;
    sf__loop_post(loop, &loop->stop);
    pthread_join(loop->thread, NULL);
    loop_destroy(loop);
}

void sf__loop_free_later(sf_loop *loop, void (*gone)(void *ctx), void *ctx)
{
    loop->gone = gone;
    loop->gone_ctx = ctx;
    loop->stop.run = loop_on_stop;
    sf__loop_post(loop, &loop->stop);
}

sf_under_way *sf__loop_under_way(sf_loop *loop)
{
    return &loop->under_way;
}

void *sf__loop_uv(sf_loop *loop)
{
    return &loop->uv;
}
