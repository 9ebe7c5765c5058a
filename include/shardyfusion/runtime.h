/* The engine: one loop thread, one worker pool, one block cache, one budget for bytes in flight, shared by every
 * reader opened on it. Any thread may call any function here. */
#ifndef SHARDYFUSION_RUNTIME_H
#define SHARDYFUSION_RUNTIME_H

#include "shardyfusion/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory functions; both may be called from any thread. `realloc(ctx, NULL, n)` allocates; n is never 0. */
typedef struct sf_allocator {
    size_t size; /* sizeof(sf_allocator) */
    void *(*realloc)(void *ctx, void *p, size_t n);
    void (*free)(void *ctx, void *p);
    void *ctx;
} sf_allocator;

typedef enum sf_log_level { SF_LOG_DEBUG, SF_LOG_INFO, SF_LOG_WARN, SF_LOG_ERROR } sf_log_level;

/* May run on the loop thread: count, queue, leave. Texts never hold credentials. */
typedef void (*sf_log_fn)(void *ctx, sf_log_level level, const char *component, const char *message);

typedef struct sf_runtime sf_runtime;

typedef struct sf_runtime_options {
    size_t size;                  /* filled by the initialiser; fields are only ever appended */
    const sf_allocator *allocator; /* NULL: the C library's; must outlive the runtime */
    uint64_t cache_bytes;         /* block cache with indexes and filters; 0 turns it off */
    uint64_t inflight_bytes;      /* budget for bytes of requests in flight */
    uint32_t inflight_requests;   /* bound on store requests in flight */
    sf_log_fn log;                /* NULL: silent */
    void *log_ctx;
} sf_runtime_options;
#define SF_RUNTIME_OPTIONS_INIT                                                                              \
    {                                                                                                        \
        .size = sizeof(sf_runtime_options), .cache_bytes = UINT64_C(256) << 20,                              \
        .inflight_bytes = UINT64_C(64) << 20, .inflight_requests = 256                                        \
    }

typedef struct sf_runtime_stats {
    uint64_t cache_hits, cache_misses, cache_bytes, cache_evictions;
    uint64_t requests, bytes_fetched, retries;
    uint64_t requests_in_flight, bytes_in_flight;
} sf_runtime_stats;

/* `opts` may be NULL for the defaults. On success *out must be released with sf_runtime_release(); on failure *out
 * is untouched. Starts the loop thread. */
SF_API sf_status sf_runtime_new(sf_runtime **out, const sf_runtime_options *opts, sf_error *err);
SF_API sf_runtime *sf_runtime_acquire(sf_runtime *rt);
/* Takes NULL. Readers, snapshots and calls hold references of their own. The last release stops and joins the loop thread;
 * when it happens on that thread (in a callback, or when a call that was released early ends) the thread ends by itself. */
SF_API void sf_runtime_release(sf_runtime *rt);
SF_API void sf_runtime_get_stats(sf_runtime *rt, sf_runtime_stats *out);

/* ------------------------------------------------------------------ calls ---------------------------------------- */

/* As a timeout: wait as long as the store's own limits allow. */
#define SF_TIMEOUT_NONE INT64_MAX

/* One asynchronous operation, as every `_start` function returns it. Its results may be read once it is done, by the
 * getters beside the function that started it; they belong to the call unless a getter's comment says otherwise. */
typedef struct sf_call sf_call;

/* Called exactly once, on the loop thread, never inside the `_start` function. Must not block and must not call
 * blocking functions of this library. The call is borrowed; results may be taken here. NULL is allowed everywhere. */
typedef void (*sf_call_done_fn)(void *ctx, sf_call *call);

/* Ends it as SF_CANCELLED unless it is done already; returns at once. A write that was cancelled may have happened. */
SF_API void sf_call_cancel(sf_call *call);
SF_API sf_status sf_call_wait(sf_call *call, sf_error *err); /* until done; not on the loop thread */
SF_API bool sf_call_is_done(const sf_call *call);
SF_API const sf_error *sf_call_error(const sf_call *call); /* of the whole operation; after done */
SF_API void sf_call_release(sf_call *call); /* the caller's reference, at any time; takes NULL; does not cancel */

#ifdef __cplusplus
}
#endif
#endif
