/* A window of a scan: adjacent blocks that are being read while the scan goes on. The scan's thread, whichever it is at the
 * time, begins it, looks at it and drops it; the loop thread reads it. It keeps its shard, and frees itself when it was
 * dropped before it came home. */
#ifndef SF_BACKEND_SLATEDB_WINDOW_H
#define SF_BACKEND_SLATEDB_WINDOW_H

#include "backend/slatedb/extent.h"
#include "backend/slatedb/shard.h"

/* Who waits for windows. Loop thread only. */
typedef struct sf_window_waiter {
    size_t missing;                                /* windows that are not home */
    void (*home)(struct sf_window_waiter *waiter); /* the last of them is */
} sf_window_waiter;

typedef struct sf_window sf_window;

/* Asks the loop thread to read blocks [first, first + count) of the SST, without a deadline: it may serve a later step than
 * the one that began it. Any thread. NULL without memory. */
sf_window *sf__window_begin(const sf_slatedb_shard *shard, const sf_sst *sst, uint32_t first, uint32_t count) SF_MUST_USE;
/* Any thread; takes NULL. */
void sf__window_drop(sf_window *w);
bool sf__window_is_home(const sf_window *w);
/* What it reads; the results may be looked at once it is home. */
const sf_extent *sf__window_extent(const sf_window *w);

/* True: it is not home, and the waiter counts it. Loop thread; one waiter at a time. */
bool sf__window_wait(sf_window *w, sf_window_waiter *waiter);
/* Nobody waits for it any more. Loop thread. */
void sf__window_forget(sf_window *w);

#endif
