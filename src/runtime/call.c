#include "runtime/call.h"

#include "base/container.h"
#include "base/error.h"

static void call_unref(sf_call *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    c->type->destroy(c);
    sf_error_drop(c->alloc, c->error);
    pthread_cond_destroy(&c->wake);
    sf_mutex_destroy(&c->lock);

    sf_runtime *rt = c->rt;
    sf__free(c->alloc, c);
    sf__runtime_unref(rt);
}

static sf_call *call_of_start_task(sf_task *t)
{
    return sf_container_of(t, sf_call, start_task);
}

static sf_call *call_of_cancel_task(sf_task *t)
{
    return sf_container_of(t, sf_call, cancel_task);
}

/* A cancellation that is on its way already comes in its turn. */
static void end_early(sf_under_way *u)
{
    sf_call *c = sf_container_of(u, sf_call, under_way);

    if (!atomic_exchange_explicit(&c->cancel_posted, true, memory_order_acq_rel))
        c->type->cancel(c);
}

static void run_start(sf_task *t)
{
    sf_call *c = call_of_start_task(t);

    c->under_way.end = end_early;
    sf__under_way_enter(sf__loop_under_way(c->rt->loop), &c->under_way);
    c->type->start(c);
}

static void run_cancel(sf_task *t)
{
    sf_call *c = call_of_cancel_task(t);

    if (!atomic_load_explicit(&c->finished, memory_order_relaxed))
        c->type->cancel(c);
    call_unref(c);
}

sf_call *sf__call_new(const sf_call_type *type, size_t size, sf_runtime *rt, int64_t timeout_ms, sf_call_done_fn done,
                      void *ctx)
{
    sf_call *c = sf__calloc(rt->alloc, 1, size);

    if (!c)
        return NULL;
    c->type = type;
    c->size = size;
    c->alloc = rt->alloc;
    c->rt = sf__runtime_ref(rt);
    sf_runtime_acquire(rt); /* the caller's handle */
    c->deadline_ns = timeout_ms == SF_TIMEOUT_NONE ? SF_NO_DEADLINE : sf__deadline_in_ms(timeout_ms);
    c->done = done;
    c->ctx = ctx;
    atomic_init(&c->refs, 2);
    atomic_init(&c->finished, false);
    atomic_init(&c->cancel_posted, false);
    sf_mutex_init(&c->lock);
    pthread_cond_init(&c->wake, NULL);
    return c;
}

void sf__call_drop(sf_call *c)
{
    sf_runtime *rt = c->rt;

    atomic_fetch_sub_explicit(&c->refs, 1, memory_order_relaxed);
    call_unref(c);
    sf_runtime_release(rt);
}

void sf__call_start(sf_call *c)
{
    c->begun = true;
    sf__budget_hold(&c->rt->fetcher->budget, c->size);
    c->start_task.run = run_start;
    sf__loop_post(c->rt->loop, &c->start_task);
}

void sf_call_begin(sf_call *c, sf_call_done_fn done, void *ctx)
{
    if (c->begun)
        return;
    c->done = done;
    c->ctx = ctx;
    if (c->type->begin)
        c->type->begin(c);
    sf__call_start(c);
}

void sf__call_failed(sf_call *c, const sf_error *e)
{
    if (!c->error && e->code != SF_OK)
        c->error = sf_error_keep(c->alloc, e);
}

void sf__call_fail(sf_call *c, sf_status code, const char *what)
{
    sf_error e;

    sf_fail(&e, code, "%s", what);
    sf__call_failed(c, &e);
}

void sf__call_finish(sf_call *c)
{
    sf__budget_let_go(&c->rt->fetcher->budget, c->size);
    sf__under_way_leave(&c->under_way);
    sf_mutex_lock(&c->lock);
    atomic_store_explicit(&c->finished, true, memory_order_release);
    pthread_cond_broadcast(&c->wake);
    sf_mutex_unlock(&c->lock);
    if (c->done)
        c->done(c->ctx, c);
    call_unref(c);
}

void sf_call_cancel(sf_call *c)
{
    if (!c || !c->begun || sf__runtime_check_process(c->rt, NULL) != SF_OK || /* what was in flight is the parent's */
        atomic_exchange_explicit(&c->cancel_posted, true, memory_order_acq_rel))
        return;
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    c->cancel_task.run = run_cancel;
    sf__loop_post(c->rt->loop, &c->cancel_task);
}

bool sf_call_is_done(const sf_call *c)
{
    return atomic_load_explicit(&c->finished, memory_order_acquire);
}

sf_status sf_call_wait(sf_call *c, sf_error *err)
{
    if (!sf_call_is_done(c)) {
        sf_status rc = sf__runtime_check_may_wait(c->rt, err);

        if (rc != SF_OK)
            return rc;
        if (!c->begun)
            return sf_fail(err, SF_INVALID, "nothing to wait for: the call has not been begun");
        sf_mutex_lock(&c->lock);
        while (!sf_call_is_done(c))
            pthread_cond_wait(&c->wake, &c->lock);
        sf_mutex_unlock(&c->lock);
    }
    if (err && c->error)
        *err = *c->error;
    return sf_call_error(c)->code;
}

void sf_call_release(sf_call *c)
{
    sf_runtime *rt;

    if (!c || sf__runtime_check_process(c->rt, NULL) != SF_OK)
        return;
    if (!c->begun) {
        sf__call_drop(c);
        return;
    }
    rt = c->rt;
    call_unref(c);
    sf_runtime_release(rt);
}

const sf_error *sf_call_error(const sf_call *c)
{
    return c->error ? c->error : &sf__no_error;
}

static void settle_cancel(sf_call *c)
{
    (void)c; /* it ends at once */
}

static void settle_destroy(sf_call *c)
{
    (void)c;
}

static const sf_call_type settle_type = {.start = sf__call_finish, .cancel = settle_cancel, .destroy = settle_destroy};

sf_status sf_runtime_settle_start(sf_call **out, sf_runtime *rt, sf_call_done_fn done, void *ctx, sf_error *err)
{
    sf_status rc = sf__runtime_check_process(rt, err);
    sf_call *c;

    if (rc != SF_OK)
        return rc;
    c = sf__call_new(&settle_type, sizeof(*c), rt, SF_TIMEOUT_NONE, done, ctx);
    if (!c)
        return sf_fail(err, SF_NOMEM, "settling");
    *out = c;
    sf__call_start(c);
    return SF_OK;
}
