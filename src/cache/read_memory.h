/* Memory of large reads that are soon over, such as the windows of scans: used again by the next one, where the C library would give it back to
 * the system and the next read would wait for fresh pages. Together with what is in use it is at most what was in use at once, and what lies idle is
 * SF_READ_MEMORY_IDLE_BYTES at most, which counts as held in the budget. Once nothing is in use nothing is kept. Any thread. */
#ifndef SF_CACHE_READ_MEMORY_H
#define SF_CACHE_READ_MEMORY_H

#include "base/alloc.h"
#include "base/thread.h"
#include "cache/budget.h"

#define SF_READ_MEMORY_IDLE_BYTES (UINT64_C(16) << 20)
/* Pieces are of this size, twice, four times, ... so much. What is less, or more than the largest, is not kept. */
#define SF_READ_MEMORY_LEAST_BYTES (64u << 10)
#define SF_READ_MEMORY_SIZES 5u

typedef struct sf_read_memory {
    sf_allocator allocator;    /* of buffers, which cannot grow */
    const sf_allocator *alloc; /* of what it keeps */
    sf_budget *budget;
    sf_mutex lock; /* covers what follows */
    struct read_piece *idle[SF_READ_MEMORY_SIZES];
    uint64_t idle_bytes, used_bytes, most_used_bytes; /* the last: since nothing was in use */
} sf_read_memory;

/* Stays where it is. */
void sf__read_memory_init(sf_read_memory *m, sf_budget *budget, const sf_allocator *a);
void sf__read_memory_cleanup(sf_read_memory *m); /* nothing is in use */

#endif
