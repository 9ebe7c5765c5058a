/* Waiting for the loop thread from a test's own thread. Assertions stay on the test's thread: cmocka leaves a failed
 * one by longjmp. */
#ifndef TESTS_ON_LOOP_H
#define TESTS_ON_LOOP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "net/loop.h"

/* Opens once `wanted` arrivals have been counted. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
};
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void gate_arrive(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->count++;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* Fails the test after 30 s: something that had to complete did not. */
static inline void gate_wait(struct gate *g, unsigned wanted)
{
    struct timespec until;
    int rc = 0;
    unsigned count;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&g->lock);
    while (g->count < wanted && rc == 0)
        rc = pthread_cond_timedwait(&g->changed, &g->lock, &until);
    count = g->count;
    pthread_mutex_unlock(&g->lock);
    if (count < wanted)
        fail_msg("%u of %u completions arrived", count, wanted);
}

static inline unsigned gate_count(struct gate *g)
{
    unsigned count;

    pthread_mutex_lock(&g->lock);
    count = g->count;
    pthread_mutex_unlock(&g->lock);
    return count;
}

/* Behind gate_wait(): until the thread that arrived has left the gate, which may then go out of scope. */
static inline void gate_leave(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    pthread_mutex_unlock(&g->lock);
}

struct call {
    sf_task task;
    void (*fn)(void *arg);
    void *arg;
    struct gate gate;
};

static inline void call_on_task(sf_task *task)
{
    struct call *c = (struct call *)((char *)task - offsetof(struct call, task));

    c->fn(c->arg);
    gate_arrive(&c->gate);
}

/* Runs fn on the loop thread and waits for it. */
static inline void on_loop(sf_loop *loop, void (*fn)(void *arg), void *arg)
{
    struct call c = {.task = {.run = call_on_task}, .fn = fn, .arg = arg, .gate = GATE_INIT};

    sf__loop_post(loop, &c.task);
    gate_wait(&c.gate, 1);
    gate_leave(&c.gate);
}

#endif
