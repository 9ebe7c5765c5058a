/* The loop thread: one libuv loop on a thread of its own, with an inbox that any thread may post to.
 * "Loop thread only" functions are marked; calling them elsewhere is a bug that an assert catches. */
#ifndef SF_NET_LOOP_H
#define SF_NET_LOOP_H

#include "base/alloc.h"
#include "net/pool.h"
#include "net/timer.h"
#include "net/under_way.h"
#include "net/work.h"

typedef struct sf_loop sf_loop;

/* Starts the thread, and one of each pool. SF_NOMEM, SF_EXHAUSTED (descriptors or threads), SF_IO. */
sf_status sf__loop_new(sf_loop **out, const sf_allocator *a, sf_error *err);
/* Before the first job. */
void sf__loop_size_pool(sf_loop *loop, sf_work_kind kind, sf_pool_size size);
/* Runs what was posted, waits for workers, stops and joins all threads. Not from one of them. Takes NULL. */
void sf__loop_free(sf_loop *loop);
/* The same without waiting, for a last reference that is dropped on one of these threads: `gone` is the last thing that the
 * loop thread does, after the workers have ended. Any thread. */
void sf__loop_free_later(sf_loop *loop, void (*gone)(void *ctx), void *ctx);

/* Any thread; never fails, never runs the task inside the call; tasks run in the order posted. */
void sf__loop_post(sf_loop *loop, sf_task *task);
bool sf__loop_is_current(const sf_loop *loop);
/* On the loop thread or on one of its workers: whoever waits there for the loop waits for itself. */
bool sf__loop_is_own_thread(const sf_loop *loop);

/* Loop thread only from here. */
void sf__timer_start(sf_loop *loop, sf_timer *timer, uint64_t due_ns); /* monotonic; re-arms; SF_NO_DEADLINE = stop */
void sf__timer_stop(sf_loop *loop, sf_timer *timer);                   /* harmless when not armed */
/* Never fails, never runs anything inside the call. */
void sf__work_submit(sf_loop *loop, sf_work_kind kind, sf_work *work);
/* The list of what is under way on it. */
sf_under_way *sf__loop_under_way(sf_loop *loop);
/* For curl_loop.c and nothing else: the uv_loop_t. */
void *sf__loop_uv(sf_loop *loop);

#endif
