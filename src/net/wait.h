/* For threads that may wait: start something on the loop thread and sleep until it is done. Never from the loop thread,
 * and from a worker only when
 * nothing that is waited for needs its pool. */
#ifndef SF_NET_WAIT_H
#define SF_NET_WAIT_H

#include <stdatomic.h>

#include "base/clock.h"
#include "base/thread.h"
#include "net/loop.h"

/* A flag that anybody may set at any time to stop waiting threads; they look every SF_WAIT_SLICE_MS. A NULL pointer
 * to one means that nobody cancels. */
typedef atomic_bool sf_cancel_flag;
#define SF_WAIT_SLICE_MS 50

static inline bool sf__is_cancelled(const sf_cancel_flag *cancel)
{
    return cancel && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* Where one thread waits for any number of things. */
typedef struct sf_waiter {
    sf_loop *loop;
    const sf_cancel_flag *cancel;
    sf_mutex lock;
    sf_cond wake;
} sf_waiter;

/* One thing to wait for, embedded. `start` and `cancel` run on the loop thread, `cancel` at most once and only while it
 * is under way; after it the thing still ends by sf__waited_finish(). */
typedef struct sf_waited {
    void (*start)(struct sf_waited *w);
    void (*cancel)(struct sf_waited *w);
    /* private */
    bool done_on_loop; /* loop thread */
    sf_under_way under_way;
    sf_waiter *waiter;
    sf_task start_task, cancel_task;
    bool cancelled;  /* under lock */
    bool cancelling; /* under lock: the cancel task is on its way */
    bool done;       /* under lock */
} sf_waited;

/* What keeps its deadline itself says more about what it was doing than the waiting thread can: it gets this much longer. */
#define SF_WAIT_GRACE_NS UINT64_C(200000000)

static inline uint64_t sf__with_grace(uint64_t deadline_ns)
{
    return deadline_ns < SF_NO_DEADLINE - SF_WAIT_GRACE_NS ? deadline_ns + SF_WAIT_GRACE_NS : SF_NO_DEADLINE;
}

typedef enum sf_wait_end { SF_WAIT_DONE, SF_WAIT_CANCELLED, SF_WAIT_LATE } sf_wait_end;

void sf__waiter_init(sf_waiter *w, sf_loop *loop, const sf_cancel_flag *cancel);
void sf__waiter_destroy(sf_waiter *w); /* nothing that was started is left */

/* Fills the private part. */
void sf__wait_start(sf_waiter *w, sf_waited *thing);
/* Loop thread: it is over. The thing may be gone when this returns. */
void sf__waited_finish(sf_waited *thing);
/* Waiting thread: asks it to end early; sf__wait_for() is still due. */
void sf__wait_cancel(sf_waited *thing);
/* Until it is over; cancels it when the flag is set or `deadline_ns` (monotonic) has passed, and says so. */
sf_wait_end sf__wait_for(sf_waited *thing, uint64_t deadline_ns);

#endif
