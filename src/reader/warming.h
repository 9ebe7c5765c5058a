/* Reading of the next snapshot what of the one in use is hot, before the reader moves to it. Loop thread. */
#ifndef SF_READER_WARMING_H
#define SF_READER_WARMING_H

#include "reader/snapshot.h"

typedef struct sf_warming {
    /* set by the owner */
    sf_snapshot *previous, *next; /* borrowed until done */
    uint64_t max_bytes;           /* of blocks, about */
    uint64_t deadline_ns;
    void *call_ctx;
    void (*done)(struct sf_warming *w); /* exactly once, not inside start; what could not be read is nobody's loss */
    void *ctx;
    /* private */
    sf_work work;
    struct warmed_shard *shards;
    size_t shard_count, pending;
    bool cancelled;
} sf_warming;

void sf__warming_start(sf_warming *w);
void sf__warming_cancel(sf_warming *w); /* after the start, before the end */

#endif
