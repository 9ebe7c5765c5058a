/* The engine: one loop thread, its workers, one block cache, one budget for bytes in flight, shared by every
 * reader opened on it. Any thread may call any function here. */
#ifndef SHARDYFUSION_RUNTIME_H
#define SHARDYFUSION_RUNTIME_H

#include "shardyfusion/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sf_runtime sf_runtime;

typedef struct sf_runtime_options {
    size_t size;                  /* filled by the initialiser; fields are only ever appended */
    const sf_allocator *allocator; /* NULL: the C library's; must outlive the runtime */
    uint64_t cache_bytes;         /* block cache with indexes and filters; 0 turns it off */
    uint64_t inflight_bytes;      /* budget for bytes of requests in flight, and for operations that wait for them (of
                                     these at most half). Beside it: what decompressors take, 96 KiB for zstd, 12 for zlib: one
                                     for each thread that unpacks, and four that lie idle at most */
    uint32_t inflight_requests;   /* bound on store requests in flight */
    sf_log_fn log;                /* NULL: silent */
    void *log_ctx;
    uint32_t cpu_threads;         /* that unpack and parse; 0: one per processor, at most 8; at most 64 */
    uint32_t file_threads;        /* that read and write files; 0: 4; at most 64 */
} sf_runtime_options;
#define SF_RUNTIME_OPTIONS_INIT                                                                              \
    {                                                                                                        \
        .size = sizeof(sf_runtime_options), .cache_bytes = UINT64_C(256) << 20,                              \
        .inflight_bytes = UINT64_C(64) << 20, .inflight_requests = 256                                        \
    }
SF_API void sf_runtime_options_init(sf_runtime_options *options, size_t size);

typedef struct sf_runtime_stats {
    uint64_t cache_hits, cache_misses, cache_bytes, cache_evictions;
    uint64_t requests, bytes_fetched, retries;
    uint64_t requests_in_flight, bytes_in_flight;
} sf_runtime_stats;

/* `opts` may be NULL for the defaults. On success *out must be released with sf_runtime_release(); on failure *out
 * is untouched: SF_INVALID, SF_NOMEM, or SF_EXHAUSTED when the process may not have the descriptors or threads it needs (five
 * threads from the start). Descriptors 0 to 2 are never used, even where they are closed. */
SF_API sf_status sf_runtime_new(sf_runtime **out, const sf_runtime_options *opts, sf_error *err);
SF_API sf_runtime *sf_runtime_acquire(sf_runtime *rt);
/* Takes NULL. Readers, snapshots, scans, calls, buckets and writers count as handles, too: the last of all handles, of whatever
 * kind, ends the runtime. It cancels nothing: operations whose calls were released early are waited for. When it returns, all
 * threads of the runtime have ended and nothing of it allocates, frees or calls back any more: the allocator and everything
 * that callbacks used may go. Two exceptions:
 * - on a thread of the runtime's own, that is inside a callback, it cannot wait: it returns at once, and the threads end by
 *   themselves a little later;
 * - the `get` of a source of credentials that has not returned keeps its thread (store.h), and the system's look-up of a host
 *   name that hangs keeps one of libcurl's. Neither touches the runtime or its allocator any more. */
SF_API void sf_runtime_release(sf_runtime *rt);
SF_API void sf_runtime_get_stats(sf_runtime *rt, sf_runtime_stats *out);

/* Ends all that is under way as SF_CANCELLED, whoever waits for it: calls, as sf_call_cancel() does, and what blocking functions
 * wait for. Any thread; returns at once. What begins later is not touched, and a blocking function may have more than one step
 * to go: whoever wants one to end asks again until it has. */
SF_API void sf_runtime_cancel_all(sf_runtime *rt);

/* ------------------------------------------------------------------ calls ---------------------------------------- */

/* As a timeout: wait as long as the store's own limits allow. */
#define SF_TIMEOUT_NONE INT64_MAX

/* One asynchronous operation, as every `_start` function returns it. Its results may be read once it is done, by the
 * getters beside the function that started it; they belong to the call unless a getter's comment says otherwise. */
typedef struct sf_call sf_call;

/* Called exactly once, on the loop thread, never inside the `_start` function. Must not block. Blocking functions of this
 * library answer SF_INVALID here unless they can do without waiting, and do nothing. The call is borrowed; results may be taken
 * here. NULL is allowed everywhere. */
typedef void (*sf_call_done_fn)(void *ctx, sf_call *call);

/* Begins an operation that was made without (sf_reader_ask() and its like say so); of others, and a second time, it does
 * nothing. One that is released first never happens. */
SF_API void sf_call_begin(sf_call *call, sf_call_done_fn done, void *ctx);
/* Ends it as SF_CANCELLED unless it is done already; returns at once. A write that was cancelled may have happened. */
SF_API void sf_call_cancel(sf_call *call);
SF_API sf_status sf_call_wait(sf_call *call, sf_error *err); /* until done; not on the loop thread */
SF_API bool sf_call_is_done(const sf_call *call);
SF_API const sf_error *sf_call_error(const sf_call *call); /* of the whole operation; after done */
SF_API void sf_call_release(sf_call *call); /* the caller's reference, at any time; takes NULL; does not cancel */
/* A call that ends when the library has let go of all calls that had ended before. Until then it may hold what they used, a
 * snapshot for one, a moment longer than who was told of their end. */
SF_API sf_status sf_runtime_settle_start(sf_call **out, sf_runtime *rt, sf_call_done_fn done, void *ctx, sf_error *err);

#ifdef __cplusplus
}
#endif
#endif
