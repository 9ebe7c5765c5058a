#include "runtime/runtime.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "auth/credential_asker.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/options.h"
#include "base/thread.h"

#define MAX_CONNECTIONS 256u
#define MAX_CPU_THREADS 8
#define FILE_THREADS 4u
#define TEARDOWN_POLL_MS 2

/* Counted up in every forked child: one load tells a handle of the parent from one of ours. */
atomic_uint sf__forks;

static void on_fork_in_child(void)
{
    atomic_fetch_add_explicit(&sf__forks, 1, memory_order_relaxed);
    sf__asker_after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, on_fork_in_child);
}

unsigned sf__fork_generation(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch_forks);
    return atomic_load_explicit(&sf__forks, memory_order_relaxed);
}

/* The end of a runtime begins with its last handle: that one is not given back but carried to the loop thread, which waits
 * there for operations that nobody holds any more, takes apart what only it may touch, and says so. A completion callback
 * may bring a handle to life meanwhile (a call's result): then this was not the last one after all.
 *
 * Whoever gave the handle back waits, and then for the loop itself; on a thread of the loop's own nobody may, and the loop
 * ends by itself. Either way an end needs no memory and cannot fail, and there is never more than one. */
struct teardown {
    sf_task task;
    sf_timer timer;
    sf_runtime *rt;
    /* of one who waits */
    sf_mutex lock;
    sf_cond wake;
    bool waited_for;
    enum { TEARDOWN_RUNNING, TEARDOWN_DONE, TEARDOWN_NOT_LAST } outcome;
};

static void free_rest(void *ctx)
{
    sf_runtime *rt = ctx;
    const sf_allocator *a = rt->alloc;

    sf_mutex_destroy(&rt->spaces_lock);
    sf__free(a, rt->spaces);
    sf__free(a, rt->teardown);
    sf__free(a, rt);
}

/* False when it is the last handle. */
static bool give_back(sf_runtime *rt)
{
    unsigned n = atomic_load_explicit(&rt->handles, memory_order_acquire);

    while (n > 1)
        if (atomic_compare_exchange_weak_explicit(&rt->handles, &n, n - 1, memory_order_acq_rel, memory_order_acquire))
            return true;
    return false;
}

static void teardown_report(struct teardown *t, int outcome)
{
    sf_mutex_lock(&t->lock);
    t->outcome = outcome;
    pthread_cond_signal(&t->wake);
    sf_mutex_unlock(&t->lock); /* t is gone */
}

static bool is_idle(sf_runtime *rt)
{
    sf_fetch_stats stats;

    /* operations; cancelled requests that have not come home yet; files of disk caches; credentials that a store was getting on the side: it drops
     * them when it goes, which may be behind us in the inbox */
    sf__fetcher_get_stats(rt->fetcher, &stats);
    return atomic_load_explicit(&rt->refs, memory_order_acquire) == 0 && stats.requests_in_flight == 0 &&
           stats.disk_jobs == 0 && sf__http_is_idle(rt->http);
}

static void teardown_on_loop(struct teardown *t)
{
    sf_runtime *rt = t->rt;
    bool waited_for = t->waited_for;

    if (give_back(rt)) {
        if (waited_for) /* else: it may be in use for another end already */
            teardown_report(t, TEARDOWN_NOT_LAST);
        return;
    }
    if (!is_idle(rt)) {
        sf__timer_start(rt->loop, &t->timer, sf__deadline_in_ms(TEARDOWN_POLL_MS));
        return;
    }
    for (size_t i = 0; i < rt->space_count; i++)
        sf__store_release(rt->spaces[i]);
    sf__fetcher_free(rt->fetcher);
    sf__http_free(rt->http);
    sf__block_cache_release(rt->shared_cache);
    if (waited_for)
        teardown_report(t, TEARDOWN_DONE);
    else
        sf__loop_free_later(rt->loop, free_rest, rt);
}

static void teardown_run(sf_task *task)
{
    teardown_on_loop(sf_container_of(task, struct teardown, task));
}

static void teardown_again(sf_timer *timer)
{
    teardown_on_loop(sf_container_of(timer, struct teardown, timer));
}

static void teardown_later(sf_runtime *rt)
{
    *rt->teardown = (struct teardown){.task.run = teardown_run, .timer.fire = teardown_again, .rt = rt};
    sf__loop_post(rt->loop, &rt->teardown->task);
}

static void teardown_and_wait(sf_runtime *rt)
{
    struct teardown t = {.task.run = teardown_run, .timer.fire = teardown_again, .rt = rt, .waited_for = true};

    sf_mutex_init(&t.lock);
    sf_cond_init(&t.wake);
    sf__loop_post(rt->loop, &t.task);
    sf_mutex_lock(&t.lock);
    while (t.outcome == TEARDOWN_RUNNING)
        pthread_cond_wait(&t.wake, &t.lock);
    sf_mutex_unlock(&t.lock);
    sf_cond_destroy(&t.wake);
    sf_mutex_destroy(&t.lock);
    if (t.outcome == TEARDOWN_NOT_LAST)
        return;
    sf__loop_free(rt->loop);
    free_rest(rt);
}

/* ------------------------------------------------------------------ public --------------------------------------- */

/* Those that this process may run on, and no more than are of use. */
static unsigned usable_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : n > MAX_CPU_THREADS ? MAX_CPU_THREADS : (unsigned)n;
}

/* Fields that the caller's header did not have yet keep their defaults. */
static sf_status complete_options(sf_runtime_options *o, const sf_runtime_options *given, sf_error *err)
{
    sf_status rc;

    *o = (sf_runtime_options)SF_RUNTIME_OPTIONS_INIT;
    rc = sf__options_take(o, sizeof(*o), given, "runtime options", err);
    if (o->cpu_threads == 0)
        o->cpu_threads = usable_processors();
    if (o->file_threads == 0)
        o->file_threads = FILE_THREADS;
    return rc;
}

static sf_status start_parts(sf_runtime *rt, const sf_runtime_options *o, sf_error *err)
{
    sf_status rc = sf__block_cache_new(&rt->shared_cache, o->cache_bytes, rt->alloc, err);

    if (rc == SF_OK && !(rt->teardown = sf__calloc(rt->alloc, 1, sizeof(*rt->teardown))))
        rc = sf_fail(err, SF_NOMEM, "runtime");
    if (rc == SF_OK)
        rc = sf__loop_new(&rt->loop, rt->alloc, err);
    if (rc == SF_OK) {
        sf__loop_size_pool(rt->loop, SF_WORK_CPU, (sf_pool_size){o->cpu_threads, o->cpu_threads});
        sf__loop_size_pool(rt->loop, SF_WORK_FILE, (sf_pool_size){o->file_threads, o->file_threads});
    }
    if (rc == SF_OK)
        rc = sf__fetcher_new(&rt->fetcher, rt->loop, rt->alloc, o->inflight_requests, o->inflight_bytes, err);
    if (rc == SF_OK)
        rc = sf__http_new(&rt->http, rt->loop, rt->alloc, MAX_CONNECTIONS, err);
    return rc;
}

sf_status sf_runtime_new(sf_runtime **out, const sf_runtime_options *opts, sf_error *err)
{
    sf_runtime_options o;
    const sf_allocator *a;
    sf_runtime *rt;
    sf_status rc = complete_options(&o, opts, err);

    if (rc != SF_OK)
        return rc;
    a = o.allocator ? o.allocator : &sf__allocator_default;
    if (o.inflight_requests == 0 || o.inflight_bytes == 0)
        return sf_fail(err, SF_INVALID, "the bounds on requests and bytes in flight must not be 0");
    if (o.cpu_threads > SF_POOL_MAX_THREADS || o.file_threads > SF_POOL_MAX_THREADS)
        return sf_fail(err, SF_INVALID, "cpu_threads and file_threads may be %u at most", SF_POOL_MAX_THREADS);
    rt = sf__calloc(a, 1, sizeof(*rt));
    if (!rt)
        return sf_fail(err, SF_NOMEM, "runtime");
    rt->alloc = a;
    rt->log = (sf_log){o.log, o.log_ctx};
    rt->fork_generation = sf__fork_generation();
    atomic_init(&rt->handles, 1);
    atomic_init(&rt->refs, 0);
    sf_mutex_init(&rt->spaces_lock);
    rc = start_parts(rt, &o, err);
    if (rc != SF_OK) { /* the loop has seen nothing yet, so its parts may go here */
        sf__fetcher_free(rt->fetcher);
        sf__loop_free(rt->loop);
        sf__block_cache_release(rt->shared_cache);
        free_rest(rt);
        return rc;
    }
    *out = rt;
    return SF_OK;
}

sf_runtime *sf_runtime_acquire(sf_runtime *rt)
{
    atomic_fetch_add_explicit(&rt->handles, 1, memory_order_relaxed);
    return rt;
}

void sf_runtime_release(sf_runtime *rt)
{
    /* In a forked child the loop thread does not exist: nothing can be torn down, and the memory goes with the child. */
    if (!rt || rt->fork_generation != sf__fork_generation() || give_back(rt))
        return;
    if (sf__loop_is_own_thread(rt->loop))
        teardown_later(rt);
    else
        teardown_and_wait(rt);
}

sf_runtime *sf__runtime_ref(sf_runtime *rt)
{
    atomic_fetch_add_explicit(&rt->refs, 1, memory_order_relaxed);
    return rt;
}

void sf__runtime_unref(sf_runtime *rt)
{
    if (sf__runtime_is_ours(rt))
        atomic_fetch_sub_explicit(&rt->refs, 1, memory_order_acq_rel);
}

static void run_cancel_all(sf_task *task)
{
    sf_runtime *rt = sf_container_of(task, sf_runtime, cancel_task);

    atomic_store_explicit(&rt->cancel_posted, false, memory_order_release); /* the task may be posted again from here */
    sf__under_way_end_all(sf__loop_under_way(rt->loop));
    sf__runtime_unref(rt);
}

void sf_runtime_cancel_all(sf_runtime *rt)
{
    if (sf__runtime_check_process(rt, NULL) != SF_OK ||
        atomic_exchange_explicit(&rt->cancel_posted, true, memory_order_acq_rel))
        return;
    sf__runtime_ref(rt);
    rt->cancel_task.run = run_cancel_all;
    sf__loop_post(rt->loop, &rt->cancel_task);
}

void sf_runtime_get_stats(sf_runtime *rt, sf_runtime_stats *out)
{
    sf_block_cache_stats cache;
    sf_fetch_stats fetch;

    sf__block_cache_get_stats(rt->shared_cache, &cache);
    sf__fetcher_get_stats(rt->fetcher, &fetch);
    *out = (sf_runtime_stats){
        .cache_hits = cache.hits,
        .cache_misses = cache.misses,
        .cache_bytes = cache.bytes,
        .cache_evictions = cache.evictions,
        .requests = fetch.requests,
        .bytes_fetched = fetch.bytes_fetched,
        .retries = atomic_load_explicit(&rt->retries, memory_order_relaxed),
        .requests_in_flight = fetch.requests_in_flight,
        .bytes_in_flight = fetch.bytes_in_flight,
    };
}

sf_status sf__runtime_check_process(const sf_runtime *rt, sf_error *err)
{
    if (sf__runtime_is_ours(rt))
        return SF_OK;
    return sf_fail(err, SF_FORKED, "opened before this process was forked: open it again in the child");
}

sf_status sf__runtime_check_may_wait(const sf_runtime *rt, sf_error *err)
{
    sf_status rc = sf__runtime_check_process(rt, err);

    if (rc == SF_OK && sf__loop_is_own_thread(rt->loop))
        rc = sf_fail(err, SF_INVALID,
                     "a blocking call inside a callback of the runtime would wait for itself: use its "
                     "_start form, or call it from another thread");
    return rc;
}
