/* Locks. A thin seam over POSIX threads; nothing here waits for I/O. */
#ifndef SF_BASE_THREAD_H
#define SF_BASE_THREAD_H

#include <pthread.h>

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

#endif
