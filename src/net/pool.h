/* Threads for what may take long: a queue and the threads that empty it, which belong to one loop and end with it. There is
 * one pool for each kind of work, so that what waits never holds up what works. */
#ifndef SF_NET_POOL_H
#define SF_NET_POOL_H

#include "base/alloc.h"
#include "net/work.h"

#define SF_POOL_MAX_THREADS 64u

typedef struct sf_pool sf_pool;

/* `usual` threads are started as jobs come. Only where `most` is above that: more, one every SF_POOL_STALL_MS while no job
 * is taken from a queue; they end when it is empty. */
typedef struct sf_pool_size {
    unsigned usual, most; /* from 1 to SF_POOL_MAX_THREADS */
} sf_pool_size;
#define SF_POOL_STALL_MS 20

/* Runs on the thread, under no lock; afterwards the job is no longer the pool's. */
typedef void (*sf_pool_run_fn)(void *ctx, sf_work *job);

/* One thread is there from the start: a job always finds one. SF_NOMEM, SF_EXHAUSTED. `name`: of the threads, for debuggers. */
sf_status sf__pool_new(sf_pool **out, const char *name, sf_pool_size size, sf_pool_run_fn run, void *ctx,
                       const sf_allocator *a, sf_error *err);
/* Before the first job. */
void sf__pool_resize(sf_pool *pool, sf_pool_size size);
/* Never fails. Any thread. Jobs are taken in their order, but for those that are `bulk`: they have at most all threads but one,
 * and of the only one every other turn. True when the caller is to look again in SF_POOL_STALL_MS (sf__pool_look). */
bool sf__pool_submit(sf_pool *pool, sf_work *job);
/* Whether it is stalled: then it gets one thread more. True as above. */
bool sf__pool_look(sf_pool *pool);
/* Waits for its threads. No job is left. Takes NULL. */
void sf__pool_free(sf_pool *pool);

#endif
