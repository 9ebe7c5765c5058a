/* The common part of every asynchronous operation of the public API: results, waiting, cancelling, counting.
 * An operation embeds it first, and ends by calling sf__call_finish() exactly once on the loop thread. */
#ifndef SF_READER_CALL_H
#define SF_READER_CALL_H

#include "backend/backend.h"
#include "base/thread.h"

struct sf_call {
    /* set before the start, by the operation */
    const sf_allocator *alloc;
    sf_runtime *rt;               /* acquired */
    uint64_t deadline_ns;
    void (*start)(sf_call *c);    /* loop thread */
    void (*cancel)(sf_call *c);   /* loop thread, only before finish; leads to finish */
    void (*destroy)(sf_call *c);  /* frees what the operation added; not the call itself */
    sf_call_done_fn done;
    void *ctx;

    atomic_uint refs;
    atomic_bool finished;
    atomic_bool cancel_posted;
    sf_mutex lock;                /* covers waiting for `finished` */
    sf_cond wake;
    sf_task start_task, cancel_task;

    /* results; written on the loop thread before finish */
    sf_error error;
    sf_value *values;
    sf_status *statuses;
    size_t count;
    sf_error *shard_errors;
    size_t shard_error_count;
    sf_reader *reader;
    sf_snapshot *snapshot;
    bool changed;
    sf_row_batch *rows;
    bool end;
};

/* A zeroed operation of `size` bytes with the caller's reference and the engine's. `start`, `cancel`, `destroy` are
 * the operation's. Not started yet: until sf__call_start() it is dropped with sf__call_drop(). */
sf_call *sf__call_new(size_t size, sf_runtime *rt, int64_t timeout_ms, sf_call_done_fn done, void *ctx);
void sf__call_drop(sf_call *c);
/* Hands the operation to the loop thread. */
void sf__call_start(sf_call *c);
/* Loop thread; c->error.code tells the outcome. Gives the engine's reference back: c may be gone afterwards. */
void sf__call_finish(sf_call *c);

#endif
