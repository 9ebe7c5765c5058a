#include "runtime/runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "auth/credential_asker.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

#define MAX_CONNECTIONS 256u
#define TEARDOWN_POLL_MS 2

/* Counted up in every forked child: one load tells a handle of the parent from one of ours. */
static atomic_uint fork_generation;

static void on_fork_in_child(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
    sf__asker_after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, on_fork_in_child);
}

static unsigned current_generation(void)
{
    return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}

/* The last reference may go on any thread, the loop's own included. So the end has two parts: on the loop thread what
 * only it may touch, then the loop itself, by whoever may wait for it. Made with the runtime: an end cannot fail. */
struct sf_runtime_teardown {
    sf_task task;
    sf_timer timer;
    sf_runtime *rt;
    bool waited_for;
    bool finished;
    sf_mutex lock;
    sf_cond wake;
};

static void free_rest(void *ctx)
{
    sf_runtime *rt = ctx;
    struct sf_runtime_teardown *t = rt->teardown;
    const sf_allocator *a = rt->alloc;

    sf_mutex_destroy(&rt->spaces_lock);
    sf__free(a, rt->spaces);
    sf_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->wake);
    sf__free(a, t);
    sf__free(a, rt);
}

static void teardown_on_loop(struct sf_runtime_teardown *t)
{
    sf_runtime *rt = t->rt;
    sf_fetch_stats stats;

    sf__fetcher_get_stats(rt->fetcher, &stats);
    /* cancelled ones that have not come home yet; credentials that a store was getting on the side: it drops them when it
     * goes, which may be behind us in the inbox */
    if (stats.requests_in_flight > 0 || !sf__http_is_idle(rt->http)) {
        sf__timer_start(rt->loop, &t->timer, sf__deadline_in_ms(TEARDOWN_POLL_MS));
        return;
    }
    for (size_t i = 0; i < rt->space_count; i++)
        sf__store_release(rt->spaces[i]);
    sf__fetcher_free(rt->fetcher);
    sf__http_free(rt->http);
    sf__block_cache_free(rt->cache);
    if (!t->waited_for) {
        sf__loop_free_later(rt->loop, free_rest, rt);
        return;
    }
    sf_mutex_lock(&t->lock);
    t->finished = true;
    pthread_cond_signal(&t->wake);
    sf_mutex_unlock(&t->lock);
}

static void teardown_run(sf_task *task)
{
    teardown_on_loop((struct sf_runtime_teardown *)task);
}

static void teardown_again(sf_timer *timer)
{
    teardown_on_loop((struct sf_runtime_teardown *)((char *)timer - offsetof(struct sf_runtime_teardown, timer)));
}

static struct sf_runtime_teardown *teardown_new(sf_runtime *rt)
{
    struct sf_runtime_teardown *t = sf__calloc(rt->alloc, 1, sizeof(*t));

    if (!t)
        return NULL;
    t->rt = rt;
    t->task.run = teardown_run;
    t->timer.fire = teardown_again;
    sf_mutex_init(&t->lock);
    pthread_cond_init(&t->wake, NULL);
    return t;
}

static void teardown(sf_runtime *rt)
{
    struct sf_runtime_teardown *t = rt->teardown;
    sf_loop *loop = rt->loop;

    t->waited_for = !sf__loop_is_current(loop);
    if (!t->waited_for) {
        sf__loop_post(loop, &t->task);
        return;
    }
    sf__loop_post(loop, &t->task);
    sf_mutex_lock(&t->lock);
    while (!t->finished)
        pthread_cond_wait(&t->wake, &t->lock);
    sf_mutex_unlock(&t->lock);
    sf__loop_free(loop);
    free_rest(rt);
}

/* ------------------------------------------------------------------ public --------------------------------------- */

/* Fields that the caller's header did not have yet keep their defaults. */
static sf_runtime_options complete_options(const sf_runtime_options *given)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;

    if (given)
        memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
    return o;
}

static sf_status start_parts(sf_runtime *rt, const sf_runtime_options *o, sf_error *err)
{
    sf_status rc = sf__block_cache_new(&rt->cache, o->cache_bytes, rt->alloc, err);

    if (rc == SF_OK && !(rt->teardown = teardown_new(rt)))
        rc = sf_fail(err, SF_NOMEM, "runtime");
    if (rc == SF_OK)
        rc = sf__loop_new(&rt->loop, rt->alloc, err);
    if (rc == SF_OK)
        rc = sf__fetcher_new(&rt->fetcher, rt->loop, rt->alloc, o->inflight_requests, o->inflight_bytes, err);
    if (rc == SF_OK)
        rc = sf__http_new(&rt->http, rt->loop, rt->alloc, MAX_CONNECTIONS, err);
    return rc;
}

sf_status sf_runtime_new(sf_runtime **out, const sf_runtime_options *opts, sf_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sf_runtime_options o = complete_options(opts);
    const sf_allocator *a = o.allocator ? o.allocator : &sf__allocator_default;
    sf_runtime *rt;
    sf_status rc;

    if (o.inflight_requests == 0 || o.inflight_bytes == 0)
        return sf_fail(err, SF_INVALID, "the bounds on requests and bytes in flight must not be 0");
    rt = sf__calloc(a, 1, sizeof(*rt));
    if (!rt)
        return sf_fail(err, SF_NOMEM, "runtime");
    pthread_once(&once, watch_forks);
    rt->alloc = a;
    rt->log = (sf_log){o.log, o.log_ctx};
    rt->fork_generation = current_generation();
    atomic_init(&rt->refs, 1);
    sf_mutex_init(&rt->spaces_lock);
    rc = start_parts(rt, &o, err);
    if (rc != SF_OK) { /* the loop has seen nothing yet, so its parts may go here */
        sf__fetcher_free(rt->fetcher);
        sf__loop_free(rt->loop);
        sf__block_cache_free(rt->cache);
        if (rt->teardown)
            free_rest(rt);
        else
            sf__free(a, rt);
        return rc;
    }
    *out = rt;
    return SF_OK;
}

sf_runtime *sf_runtime_acquire(sf_runtime *rt)
{
    atomic_fetch_add_explicit(&rt->refs, 1, memory_order_relaxed);
    return rt;
}

void sf_runtime_release(sf_runtime *rt)
{
    /* In a forked child the loop thread does not exist: nothing can be torn down, and the memory goes with the child. */
    if (!rt || rt->fork_generation != current_generation())
        return;
    if (atomic_fetch_sub_explicit(&rt->refs, 1, memory_order_acq_rel) == 1)
        teardown(rt);
}

void sf_runtime_get_stats(sf_runtime *rt, sf_runtime_stats *out)
{
    sf_block_cache_stats cache;
    sf_fetch_stats fetch;

    sf__block_cache_get_stats(rt->cache, &cache);
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
    if (rt->fork_generation == current_generation())
        return SF_OK;
    return sf_fail(err, SF_FORKED, "opened before this process was forked: open it again in the child");
}
