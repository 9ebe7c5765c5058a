/* The common part of every asynchronous operation of the public API: waiting, cancelling, counting. An operation embeds
 * it first, adds its inputs and results behind it, and ends by calling sf__call_finish() exactly once on the loop
 * thread. What a call is tells its type: a getter that is given another type's call answers "nothing". */
#ifndef SF_RUNTIME_CALL_H
#define SF_RUNTIME_CALL_H

#include "base/thread.h"
#include "runtime/runtime.h"

typedef struct sf_call_type {
    void (*begin)(sf_call *c);   /* optional: the thread that begins it, before all else */
    void (*start)(sf_call *c);   /* loop thread */
    void (*cancel)(sf_call *c);  /* loop thread, only before finish; leads to finish */
    void (*destroy)(sf_call *c); /* frees what the operation added; not the call itself */
} sf_call_type;

struct sf_call {
    /* set before the start */
    const sf_call_type *type;
    const sf_allocator *alloc;
    sf_runtime *rt; /* acquired */
    size_t size;    /* of the operation: what it holds of the byte budget while it is under way */
    uint64_t deadline_ns;
    sf_call_done_fn done;
    void *ctx;
    bool begun; /* set by sf__call_start() */

    atomic_uint refs;
    atomic_bool finished;
    atomic_bool cancel_posted;
    sf_mutex lock; /* covers waiting for `finished` */
    sf_cond wake;
    sf_task start_task, cancel_task;
    sf_under_way under_way; /* loop thread */

    /* the outcome; written on the loop thread before finish */
    const sf_error *error; /* kept by the call; NULL: success */
};

/* A zeroed operation of `size` bytes with the caller's reference and the engine's; NULL without memory. Not started yet:
 * until sf__call_start() it is dropped with sf__call_drop(), which destroys it half-built. */
sf_call *sf__call_new(const sf_call_type *type, size_t size, sf_runtime *rt, int64_t timeout_ms, sf_call_done_fn done,
                      void *ctx) SF_MUST_USE;
void sf__call_drop(sf_call *c);
/* Hands the operation to the loop thread. */
void sf__call_start(sf_call *c);
/* Loop thread, before finish, or before the start: how it failed. Harmless with SF_OK. The first failure counts. */
void sf__call_failed(sf_call *c, const sf_error *e);
void sf__call_fail(sf_call *c, sf_status code, const char *what); /* of short ones */
/* Loop thread; c->error tells the outcome. Gives the engine's reference back: c may be gone afterwards. */
void sf__call_finish(sf_call *c);

#endif
