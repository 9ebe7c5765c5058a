#include "net/wait.h"

#include <assert.h>

#include "base/clock.h"
#include "base/container.h"

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

/* Nobody of those who wait has asked for it. */
static void end_early(sf_under_way *u)
{
    sf_waited *t = sf_container_of(u, sf_waited, under_way);
    bool first;

    sf_mutex_lock(&t->waiter->lock);
    first = !t->cancelled && !t->done;
    t->cancelled = true;
    sf_mutex_unlock(&t->waiter->lock);
    if (first)
        t->cancel(t); /* t may be gone */
}

static void run_start(sf_task *task)
{
    sf_waited *t = sf_container_of(task, sf_waited, start_task);

    t->under_way.end = end_early;
    sf__under_way_enter(sf__loop_under_way(t->waiter->loop), &t->under_way);
    t->start(t);
}

/* Runs behind run_start(): tasks keep their order. */
static void run_cancel(sf_task *task)
{
    sf_waited *t = sf_container_of(task, sf_waited, cancel_task);
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
    t->under_way = (sf_under_way){0};
    sf__loop_post(w->loop, &t->start_task);
}

void sf__waited_finish(sf_waited *t)
{
    sf_waiter *w = t->waiter;

    sf__under_way_leave(&t->under_way);
    t->done_on_loop = true;
    sf_mutex_lock(&w->lock);
    t->done = true;
    pthread_cond_broadcast(&w->wake);
    sf_mutex_unlock(&w->lock);
}

/* Under the lock: whether the cancel task is to be posted, which is done without it. */
static bool mark_cancelled(sf_waited *t)
{
    if (t->cancelled || t->done)
        return false;
    t->cancelled = t->cancelling = true;
    return true;
}

void sf__wait_cancel(sf_waited *t)
{
    bool post;

    sf_mutex_lock(&t->waiter->lock);
    post = mark_cancelled(t);
    sf_mutex_unlock(&t->waiter->lock);
    if (post)
        sf__loop_post(t->waiter->loop, &t->cancel_task);
}

/* Under the lock; when to look up again. */
static uint64_t next_look(const sf_waited *t, uint64_t deadline_ns, uint64_t now)
{
    if (t->cancelled)
        return SF_NO_DEADLINE;
    if (t->waiter->cancel && deadline_ns - now > SF_WAIT_SLICE_MS * UINT64_C(1000000))
        return now + SF_WAIT_SLICE_MS * UINT64_C(1000000);
    return deadline_ns;
}

sf_wait_end sf__wait_for(sf_waited *t, uint64_t deadline_ns)
{
    sf_waiter *w = t->waiter;
    sf_wait_end end = SF_WAIT_DONE;

    sf_mutex_lock(&w->lock);
    while (!t->done || t->cancelling) {
        uint64_t now = sf__clock_mono_ns();
        bool late = now >= deadline_ns;

        if ((late || sf__is_cancelled(w->cancel)) && mark_cancelled(t)) {
            end = late ? SF_WAIT_LATE : SF_WAIT_CANCELLED;
            sf_mutex_unlock(&w->lock);
            sf__loop_post(w->loop, &t->cancel_task);
            sf_mutex_lock(&w->lock);
            continue;
        }
        sf_cond_wait_until(&w->wake, &w->lock, next_look(t, deadline_ns, now));
    }
    sf_mutex_unlock(&w->lock);
    return end;
}
