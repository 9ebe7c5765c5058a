/* Scans of several shards read as one, in key order, step by step. A step is taken on the calling thread while memory has
 * the rows (try), or as an operation: the loop thread has read what is missing, a worker merges. One step at a time; nobody
 * else touches the scan meanwhile. */
#ifndef SF_BACKEND_SCAN_MERGE_H
#define SF_BACKEND_SCAN_MERGE_H

#include "backend/backend.h"
#include "base/kway.h"

/* One step as an operation, embedded by its owner. The batch is the receiver's. `end`: no more rows. */
typedef struct sf_scan_step {
    sf_scan_limits limits;
    uint64_t deadline_ns;
    void *call_ctx;                          /* the call's `ctx`, for foreign shards */
    void (*done)(struct sf_scan_step *step); /* exactly once, loop thread, never inside the start */
    void *ctx;
    sf_error error;
    sf_row_batch *batch; /* NULL after a failure */
    bool end;
} sf_scan_step;

typedef struct sf_scan_merge {
    /* set at init */
    sf_runtime *rt; /* borrowed */
    uint64_t left;  /* rows still wanted */
    struct merge_source {
        sf_shard_scan *scan;
        sf_scan_fill fill;
        bool filling;
    } *sources;
    uint32_t source_count;
    struct merge_place { /* of each source that stands at rows: what each row of the merge looks at */
        const sf_row *row, *end;
        sf_buf *owner;
        uint64_t mark; /* what became of its values in which batch */
    } *places;
    sf_kway kway;
    bool built;
    uint32_t *waiting; /* sources that stand at no row and are not at their end */
    uint32_t waiting_count;
    sf_row_batch *batch; /* rows that no step has delivered yet; or NULL */
    size_t batch_bytes;
    uint64_t batch_number;
    /* the step under way */
    sf_scan_step *step;
    enum merge_state { MERGE_IDLE, MERGE_MERGING, MERGE_FILLING, MERGE_STOPPING } state;
    atomic_bool cancelled;
    uint64_t since_ns;
    bool late;      /* STOPPING because of the deadline */
    size_t pending; /* fills under way */
    sf_timer timer;
    sf_work work;
    sf_status verdict; /* of the job */
    sf_error error;
} sf_scan_merge;

/* Room for `count` scans, which sf__scan_merge_add() then takes over. A failed one is cleaned up, too. */
sf_status sf__scan_merge_init(sf_scan_merge *m, sf_runtime *rt, uint32_t count, bool reverse, uint64_t limit,
                              sf_error *err) SF_MUST_USE;
void sf__scan_merge_add(sf_scan_merge *m, sf_shard_scan *scan);
/* No step under way; any thread. Takes a zeroed one. */
void sf__scan_merge_cleanup(sf_scan_merge *m);

/* Memory only. SF_OK: the batch is the caller's, without rows only at the end. SF_WOULD_BLOCK: no row can be had so, what it
 * needs is being read. After an error the rows before it have been delivered; the scan may be tried again. */
sf_status sf__scan_merge_try(sf_scan_merge *m, const sf_scan_limits *limits, sf_row_batch **batch, bool *end,
                             sf_error *err);
/* Loop thread. A step that fails, is cancelled or late leaves what it has merged to the next one. */
void sf__scan_merge_start(sf_scan_merge *m, sf_scan_step *step);
void sf__scan_merge_cancel(sf_scan_merge *m); /* harmless when no step is under way */

#endif
