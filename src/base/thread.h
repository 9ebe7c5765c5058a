/* Threads and locks. A thin seam over POSIX threads; nothing here waits for I/O. */
#ifndef SF_BASE_THREAD_H
#define SF_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* A thread of ours, and whatever starts from it, leaves signals to the application's own threads: only what the hardware
 * raises in it stays open. SIGPIPE of a TLS write is thereby never delivered. 0, or the error number; a started one is joined
 * or detached. */
int sf__thread_start(pthread_t *out, void *(*run)(void *ctx), void *ctx);

/* Of the calling thread, for debuggers and top: at most 15 characters. */
void sf__thread_name(const char *name);

typedef pthread_mutex_t sf_mutex;
typedef pthread_cond_t sf_cond;

static inline void sf_mutex_init(sf_mutex *m)
{
    pthread_mutex_init(m, NULL);
}

static inline void sf_mutex_destroy(sf_mutex *m)
{
    pthread_mutex_destroy(m);
}

static inline void sf_mutex_lock(sf_mutex *m)
{
    pthread_mutex_lock(m);
}

static inline void sf_mutex_unlock(sf_mutex *m)
{
    pthread_mutex_unlock(m);
}

/* Its deadlines are those of base/clock.h: monotonic. */
static inline void sf_cond_init(sf_cond *c)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

static inline void sf_cond_destroy(sf_cond *c)
{
    pthread_cond_destroy(c);
}

/* Until woken (perhaps for nothing) or `due_ns` has come. */
static inline void sf_cond_wait_until(sf_cond *c, sf_mutex *m, uint64_t due_ns)
{
    struct timespec t = {.tv_sec = (time_t)(due_ns / 1000000000), .tv_nsec = (long)(due_ns % 1000000000)};

    if (due_ns == UINT64_MAX)
        pthread_cond_wait(c, m);
    else
        pthread_cond_timedwait(c, m, &t);
}

#endif
