/* Several sorted runs read as one: rows of one group in key order; of equal keys only the newest run's. One thread. */
#ifndef SF_WRITER_RUN_MERGE_H
#define SF_WRITER_RUN_MERGE_H

#include "base/kway.h"
#include "writer/duplicates.h"
#include "writer/spill.h"

typedef struct sf_run_merge {
    const sf_allocator *alloc;
    sf_duplicate_rows *duplicates;
    uint32_t group;
    sf_spill_run *const *runs; /* oldest first; borrowed */
    size_t run_count;
    sf_spill_cursor *cursors; /* one per run, those without rows invalid */
    sf_kway kway;
    bool on_row;       /* the winner's row was handed out */
    uint8_t *last_key; /* of it */
    size_t last_len, last_cap;
    uint64_t last_row; /* its number, where duplicates are refused */
} sf_run_merge;

sf_status sf__run_merge_init(sf_run_merge *m, sf_spill_run *const *runs, size_t count, sf_duplicate_rows *duplicates,
                             const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* Any number of times. */
sf_status sf__run_merge_group(sf_run_merge *m, uint32_t group, sf_error *err) SF_MUST_USE;
/* Spans hold until the next call. */
sf_status sf__run_merge_next(sf_run_merge *m, bool *end, sf_bytes *key, sf_bytes *value, sf_error *err) SF_MUST_USE;
void sf__run_merge_cleanup(sf_run_merge *m); /* takes a zeroed one */

#endif
