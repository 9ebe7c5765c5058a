/* An S3 store on a loop of its own, one operation at a time, waited for; retries and attempts are counted. */
#ifndef TESTS_S3_BENCH_H
#define TESTS_S3_BENCH_H

#include "../net/on_loop.h"

#include <string.h>

#include "base/clock.h"
#include "store/s3.h"

struct bench {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_store *store;
    sf_store_op op;
    sf_error error; /* how it ended */
    struct gate done, retried;
    unsigned runs;
    size_t retries, http_attempts, warnings;
    int64_t last_delay_ms;
};

static inline void count_retry(void *ctx, const char *operation, uint32_t attempt, int64_t delay_ms)
{
    struct bench *b = ctx;

    b->retries++;
    b->last_delay_ms = delay_ms;
    gate_arrive(&b->retried);
}

static inline void count_request(void *ctx, uint64_t bytes)
{
    ((struct bench *)ctx)->http_attempts++;
}

static inline void count_warning(void *ctx, sf_log_level level, const char *component, const char *message)
{
    ((struct bench *)ctx)->warnings += level == SF_LOG_WARN;
}

static inline void on_done(sf_store_op *op)
{
    struct bench *b = op->ctx;

    b->error = *op->error;
    gate_arrive(&b->done);
}

static inline void submit_op(void *arg)
{
    struct bench *b = arg;

    sf__store_submit(b->store, &b->op);
}

static inline void cancel_op(void *arg)
{
    struct bench *b = arg;

    sf__store_cancel(b->store, &b->op);
}

static inline void release_store(void *arg)
{
    sf__store_release(((struct bench *)arg)->store);
}

static inline void free_http(void *arg)
{
    sf__http_free(((struct bench *)arg)->http);
}

/* Of bucket `bucket`. On a failure bench_close() is still due. */
static inline sf_status bench_open_bucket(struct bench *b, const sf_allocator *a, const char *bucket,
                                          const sf_s3_resolved *r, int64_t (*now_us)(void))
{
    sf_s3_hooks hooks = {.on_retry = count_retry, .on_request = count_request, .ctx = b, .now_us = now_us};
    sf_log log = {count_warning, b};
    sf_error err = SF_ERROR_INIT;

    *b = (struct bench){.alloc = a, .done = GATE_INIT, .retried = GATE_INIT};
    if (sf__loop_new(&b->loop, a, &err) != SF_OK)
        return err.code;
    if (sf__http_new(&b->http, b->loop, a, 4, &err) == SF_OK)
        sf__store_s3_new(&b->store, bucket, r, b->http, &log, &hooks, b->loop, a, &err);
    return err.code;
}

static inline void bench_close(struct bench *b)
{
    if (b->store)
        on_loop(b->loop, release_store, b);
    if (b->http)
        on_loop(b->loop, free_http, b);
    sf__loop_free(b->loop);
}

static inline void bench_run(struct bench *b, const sf_store_op *op)
{
    b->op = *op;
    b->op.done = on_done;
    b->op.ctx = b;
    if (!b->op.deadline_ns)
        b->op.deadline_ns = sf__deadline_in_ms(20000);
    on_loop(b->loop, submit_op, b);
    gate_wait(&b->done, ++b->runs);
}

#endif
