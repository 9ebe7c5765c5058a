#include "net/wait.h"

#include <assert.h>

#include "base/clock.h"

void sf__waiter_init(sf_waiter *w, sf_loop *loop, const sf_cancel_flag *cancel)
{
    w->loop = loop;
    w->cancel = cancel;
    sf_mutex_init(&w->lock);
    sf_cond_init(&w->wake);
}

void sf__waiter_destroy(sf_waiter *w)
{
    sf_cond_destroy(&w->wake);
    sf_mutex_destroy(&w->lock);
}

static void run_start(sf_task *task)
{
    sf_waited *t = (sf_waited *)((char *)task - offsetof(sf_waited, start_task));

    t->start(t);
}

/* Runs behind run_start(): tasks keep their order. */
static void run_cancel(sf_task *task)
{
    sf_waited *t = (sf_waited *)((char *)task - offsetof(sf_waited, cancel_task));
    sf_waiter *w = t->waiter;

    if (!t->done_on_loop)
        t->cancel(t);
    sf_mutex_lock(&w->lock);
    t->cancelling = false;
    pthread_cond_broadcast(&w->wake);
    sf_mutex_unlock(&w->lock); /* t and w may be gone */
}

void sf__wait_start(sf_waiter *w, sf_waited *t)
{
    assert(!sf__loop_is_current(w->loop));
    t->waiter = w;
    t->start_task.run = run_start;
    t->cancel_task.run = run_cancel;
    t->cancelled = t->cancelling = t->done = t->done_on_loop = false;
    sf__loop_post(w->loop, &t->start_task);
}

void sf__waited_finish(sf_waited *t)
{
    sf_waiter *w = t->waiter;

    t->done_on_loop = true;
    sf_mutex_lock(&w->lock);
    t->done = true;
    pthread_cond_broadcast(&w->wake);
    sf_mutex_unlock(&w->lock);
}

/* Under the lock. */
static void cancel_once(sf_waited *t)
{
    if (t->cancelled || t->done)
        return;
    t->cancelled = t->cancelling = true;
    sf__loop_post(t->waiter->loop, &t->cancel_task);
}

void sf__wait_cancel(sf_waited *t)
{
    sf_mutex_lock(&t->waiter->lock);
    cancel_once(t);
    sf_mutex_unlock(&t->waiter->lock);
}

sf_wait_end sf__wait_for(sf_waited *t, uint64_t deadline_ns)
{
    sf_waiter *w = t->waiter;
    sf_wait_end end = SF_WAIT_DONE;

    sf_mutex_lock(&w->lock);
    while (!t->done || t->cancelling) {
        uint64_t now = sf__clock_mono_ns(), due = deadline_ns;

        if (!t->cancelled && (now >= deadline_ns || sf__is_cancelled(w->cancel))) {
            end = now >= deadline_ns ? SF_WAIT_LATE : SF_WAIT_CANCELLED;
            cancel_once(t);
        }
        if (t->cancelled)
            due = SF_NO_DEADLINE;
        else if (w->cancel && due - now > SF_WAIT_SLICE_MS * UINT64_C(1000000))
            due = now + SF_WAIT_SLICE_MS * UINT64_C(1000000);
        sf_cond_wait_until(&w->wake, &w->lock, due);
    }
    sf_mutex_unlock(&w->lock);
    return end;
}
