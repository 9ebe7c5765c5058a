/* The sorted runs of one input. Rows in memory become a run on a thread beside the one that adds rows; runs of one level
 * are merged into one of the next when there are many. One thread calls; what it is given belongs to the thread beside
 * until sf__run_set_wait(), and so do `runs` and `count`. Not to be freed in a forked child: that thread is not there. */
#ifndef SF_WRITER_RUN_SET_H
#define SF_WRITER_RUN_SET_H

#include <pthread.h>

#include "net/wait.h" /* sf_cancel_flag */
#include "writer/duplicates.h"
#include "writer/rows.h"
#include "writer/spill.h"

typedef struct sf_run_set {
    /* set by the owner; what is pointed to outlives the set */
    const sf_allocator *alloc;
    const char *folder;
    sf_duplicate_rows *duplicates;
    const sf_cancel_flag *cancel; /* may be NULL */
    /* results */
    sf_spill_run **runs; /* oldest first; levels never rise */
    size_t count;
    uint64_t spilled_bytes, spilled_runs;
    /* private */
    uint32_t groups; /* all that are in the runs are below */
    size_t cap;
    sf_rows rows; /* those that become a run */
    bool working;
    pthread_t thread;
    sf_status rc; /* of the work */
    sf_error error;
} sf_run_set;

/* Takes the rows; *rows is empty then, with memory of the same size. Waits for the work before, and fails with what failed
 * there: a set that has failed is good for nothing but freeing. */
sf_status sf__run_set_add(sf_run_set *s, sf_rows *rows, sf_error *err) SF_MUST_USE;
/* Until no work is left; gives memory of rows back. Once again with the same end is harmless. */
sf_status sf__run_set_wait(sf_run_set *s, sf_error *err) SF_MUST_USE;
void sf__run_set_cleanup(sf_run_set *s); /* waits; takes a zeroed one */

#endif
