/* The merge of a scan: of all sources' rows, in key order, the newest version of each key. Loop thread only. */
#ifndef SF_BACKEND_SLATEDB_MERGE_H
#define SF_BACKEND_SLATEDB_MERGE_H

#include "backend/slatedb/scan_source.h"

typedef struct sf_merge {
    const sf_allocator *alloc;
    bool reverse;
    sf_scan_source **heap; /* sources that stand at a row */
    size_t count, cap;
    /* the key being gathered, or the last one that was */
    uint8_t *key;
    size_t key_n, key_cap;
    bool started;  /* `key` is set */
    bool gathered; /* with its newest version so far: */
    sf_bytes value;
    sf_buf *owner; /* acquired */
    uint64_t seq;
    uint8_t flags;
} sf_merge;

void sf__merge_init(sf_merge *m, bool reverse, const sf_allocator *a);
void sf__merge_cleanup(sf_merge *m); /* takes a zeroed one */
/* Room for this many sources at once. */
bool sf__merge_reserve(sf_merge *m, size_t count) SF_MUST_USE;
/* A source that stands at a row; room was reserved. */
void sf__merge_push(sf_merge *m, sf_scan_source *src);

/* The source with the next row, or NULL. */
static inline sf_scan_source *sf__merge_top(const sf_merge *m)
{
    return m->count > 0 ? m->heap[0] : NULL;
}

/* Takes the top's row into what is being gathered. *complete: it belongs to another key, so that the gathered one is
 * complete, and nothing was taken. */
sf_status sf__merge_gather(sf_merge *m, bool *complete, sf_error *err) SF_MUST_USE;
/* The gathered key is done with. */
void sf__merge_drop(sf_merge *m);
/* The top has moved on: to another row, or (then it leaves the merge) to something else. */
void sf__merge_top_moved(sf_merge *m);

static inline sf_bytes sf__merge_key(const sf_merge *m)
{
    return (sf_bytes){m->key, m->key_n};
}

#endif
