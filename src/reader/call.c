#include "reader/call.h"

#include "base/error.h"

static void call_unref(sf_call *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (c->destroy)
        c->destroy(c);
    for (size_t i = 0; i < c->count && c->values; i++)
        sf_value_release(&c->values[i]);
    sf__free(c->alloc, c->values);
    sf__free(c->alloc, c->statuses);
    sf__free(c->alloc, c->shard_errors);
    sf_reader_free(c->reader);
    sf_snapshot_give_back(c->snapshot);
    sf__row_batch_free(c->rows);
    pthread_cond_destroy(&c->wake);
    sf_mutex_destroy(&c->lock);

    sf_runtime *rt = c->rt;
    sf__free(c->alloc, c);
    sf_runtime_release(rt);
}

static sf_call *call_of_start_task(sf_task *t)
{
    return (sf_call *)((char *)t - offsetof(sf_call, start_task));
}

static sf_call *call_of_cancel_task(sf_task *t)
{
    return (sf_call *)((char *)t - offsetof(sf_call, cancel_task));
}

static void run_start(sf_task *t)
{
    sf_call *c = call_of_start_task(t);

    c->start(c);
}

static void run_cancel(sf_task *t)
{
    sf_call *c = call_of_cancel_task(t);

    if (!atomic_load_explicit(&c->finished, memory_order_relaxed))
        c->cancel(c);
    call_unref(c);
}

sf_call *sf__call_new(size_t size, sf_runtime *rt, int64_t timeout_ms, sf_call_done_fn done, void *ctx)
{
    sf_call *c = sf__calloc(rt->alloc, 1, size);

    if (!c)
        return NULL;
    c->alloc = rt->alloc;
    c->rt = sf_runtime_acquire(rt);
    c->deadline_ns = timeout_ms == SF_TIMEOUT_NONE ? SF_NO_DEADLINE : sf__deadline_in_ms(timeout_ms);
    c->done = done;
    c->ctx = ctx;
    c->error = (sf_error)SF_ERROR_INIT;
    atomic_init(&c->refs, 2);
    atomic_init(&c->finished, false);
    atomic_init(&c->cancel_posted, false);
    sf_mutex_init(&c->lock);
    pthread_cond_init(&c->wake, NULL);
    return c;
}

void sf__call_drop(sf_call *c)
{
    atomic_fetch_sub_explicit(&c->refs, 1, memory_order_relaxed);
    call_unref(c);
}

void sf__call_start(sf_call *c)
{
    c->start_task.run = run_start;
    sf__loop_post(c->rt->loop, &c->start_task);
}

void sf__call_finish(sf_call *c)
{
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
    if (!c || atomic_exchange_explicit(&c->cancel_posted, true, memory_order_acq_rel))
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
        if (sf__loop_is_current(c->rt->loop))
            return sf_fail(err, SF_INVALID, "a blocking call on the loop thread would wait for itself");
        sf_mutex_lock(&c->lock);
        while (!sf_call_is_done(c))
            pthread_cond_wait(&c->wake, &c->lock);
        sf_mutex_unlock(&c->lock);
    }
    if (err && c->error.code != SF_OK)
        *err = c->error;
    return c->error.code;
}

void sf_call_release(sf_call *c)
{
    if (c)
        call_unref(c);
}

const sf_error *sf_call_error(const sf_call *c)
{
    return &c->error;
}

sf_value *sf_call_values(sf_call *c, size_t *count)
{
    if (count)
        *count = c->count;
    return c->values;
}

const sf_status *sf_call_statuses(const sf_call *c)
{
    return c->statuses;
}

const sf_error *sf_call_shard_errors(const sf_call *c, size_t *count)
{
    *count = c->shard_error_count;
    return c->shard_errors;
}

sf_reader *sf_call_take_reader(sf_call *c)
{
    sf_reader *r = c->reader;

    c->reader = NULL;
    return r;
}

sf_snapshot *sf_call_take_snapshot(sf_call *c)
{
    sf_snapshot *s = c->snapshot;

    c->snapshot = NULL;
    return s;
}

bool sf_call_changed(const sf_call *c)
{
    return c->changed;
}

const sf_row *sf_call_rows(const sf_call *c, size_t *count, bool *end)
{
    *count = c->rows ? c->rows->count : 0;
    *end = c->end;
    return c->rows ? c->rows->rows : NULL;
}

void sf_value_release(sf_value *value)
{
    sf__buf_release(value->owner);
    *value = (sf_value){0};
}
