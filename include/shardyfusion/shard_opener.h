/* Shards that somebody else reads. A reader whose options name a sf_shard_opener asks it for each shard with rows, and for
 * the values and rows of that shard from then on; routing, batches, merged scans, lazy opening, refresh and fallback stay the
 * library's.
 *
 * Each function gets a question, which belongs to the opener until it ends it by exactly one call of a function that says
 * so: at once, inside of the function that asked, or later, on any thread. The functions are called on the loop thread: they
 * note what is asked and leave; they do not wait, and call no function of the library that does. When the deadline passes, or
 * the call is cancelled, nobody waits for the answer any more: it is taken and comes to nothing, late as it may be. Until the
 * question is ended all that was handed over with it stays valid, and neither its scan nor its shard is closed. One that is
 * never ended keeps them open for good, but no call and no runtime waits for it. */
#ifndef SHARDYFUSION_SHARD_OPENER_H
#define SHARDYFUSION_SHARD_OPENER_H

#include "shardyfusion/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sf_shard_request sf_shard_request;

/* The shard to open. */
typedef struct sf_shard_to_open {
    uint32_t db_id;
    const char *url;           /* where this reader finds it */
    const char *published_url; /* as the manifest has it */
    const char *checkpoint_id; /* NULL: the manifest names none */
    const char *manifest_ref;
    sf_bytes manifest;         /* the object that it names, in the published format */
    bool shared;               /* opened lazily: others than the first reader may wait for it by now, and its end ends
                                * nothing */
    uint32_t together;         /* shards that this opening or refresh is to open in all, as many at a time as
                                * open_concurrency says; 1 for a lazy one */
} sf_shard_to_open;

/* A step of a scan: rows from `start` (included) to `end` (excluded), by ascending bytes of their keys, or descending. */
typedef struct sf_shard_rows_wanted {
    sf_bytes start, end;
    bool has_end;  /* false: to the end of the shard */
    bool reverse;
    bool has_prefix; /* the same range, as whoever asked has put it: all keys that begin so */
    sf_bytes prefix;
    uint64_t limit;  /* rows that the scan can use at most, over all steps */
    size_t max_rows, max_bytes; /* this step is to give no more rows, and no more than one row beyond so many bytes */
} sf_shard_rows_wanted;

typedef struct sf_shard_opener {
    size_t size; /* sizeof(sf_shard_opener) */
    void *ctx;
    /* Optional, both or none; any thread. The library copies the struct: each copy is retained, and released when the last
     * shard that it has opened is closed. */
    void (*retain)(void *ctx);
    void (*release)(void *ctx);
    /* Ends with sf_shard_request_opened(). */
    void (*open)(void *ctx, const sf_shard_to_open *what, sf_shard_request *q);
    /* `shard`: as given to sf_shard_request_opened(). Ends with sf_shard_request_done(); keys without a value of their own
     * are not in the shard. Several questions may be open at a time. */
    void (*get_many)(void *shard, const sf_bytes *keys, size_t count, sf_shard_request *q);
    /* The rows that follow those of the step before. *scan is NULL at the first step, and the opener's to set. One step at a
     * time. Ends with sf_shard_request_done(): without rows the scan is at its end. After a failed step the next one may
     * try again. NULL: such shards cannot be scanned, which is SF_UNSUPPORTED. */
    void (*scan_next)(void *shard, void **scan, const sf_shard_rows_wanted *wanted, sf_shard_request *q);
    /* Optional; a scan that was set and is not needed any more. Any thread. */
    void (*scan_close)(void *shard, void *scan);
    /* Once for each shard that was opened, a late answer included. Any thread: that which has given the shard's last user
     * back (a snapshot, a question). Nothing is waited for. */
    void (*close)(void *shard);
} sf_shard_opener;

/* ------------------------------------------------------------------ answers -------------------------------------- */

/* Inside of the function that asks only: the `ctx` of the call that needs the answer, as its start was given it; NULL when
 * that was none. */
SF_API void *sf_shard_request_call_ctx(const sf_shard_request *q);

/* Ends the question of `open`. `shard` may be NULL. */
SF_API void sf_shard_request_opened(sf_shard_request *q, void *shard);

/* Before the end, for `get_many`: the value of the `index`-th key, copied; or why there is none to be had (`status` is not
 * SF_OK), which fails that key alone. The last word on a key counts. */
SF_API void sf_shard_request_value(sf_shard_request *q, size_t index, sf_bytes value);
SF_API void sf_shard_request_key_failed(sf_shard_request *q, size_t index, sf_status status, const char *text);
/* Before the end, for `scan_next`: the next row, copied. */
SF_API void sf_shard_request_row(sf_shard_request *q, sf_bytes key, sf_bytes value);
/* Ends the question. Rows that are out of order, or outside of what was wanted, make it a failure (SF_CORRUPT). */
SF_API void sf_shard_request_done(sf_shard_request *q);

/* Ends any question. SF_OK counts as SF_IO. The text goes into the call's error (at most 512 bytes of it). */
SF_API void sf_shard_request_fail(sf_shard_request *q, sf_status status, const char *text);

#ifdef __cplusplus
}
#endif
#endif
