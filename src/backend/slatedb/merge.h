/* The merge of a scan: of all sources' rows, in key order, the newest version of each key. One thread at a time, any. */
#ifndef SF_BACKEND_SLATEDB_MERGE_H
#define SF_BACKEND_SLATEDB_MERGE_H

#include "backend/slatedb/scan_source.h"
#include "base/kway.h"

typedef struct sf_merge {
    const sf_allocator *alloc;
    bool reverse;
    sf_scan_source **sources; /* of the present tree, and the memtable; set by the owner after sf__merge_begin() */
    sf_kway kway;
    bool built;
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
/* Other sources, `count` of them, not built yet. What is being gathered stays. */
bool sf__merge_begin(sf_merge *m, uint32_t count) SF_MUST_USE;
/* All sources stand at a row or at their end. */
void sf__merge_build(sf_merge *m);

/* The source with the next row, or NULL: all have ended. After build. */
static inline sf_scan_source *sf__merge_top(const sf_merge *m)
{
    return sf__kway_is_over(&m->kway) ? NULL : m->sources[sf__kway_winner(&m->kway)];
}

/* The top stands at another row, or at its end. */
void sf__merge_top_moved(sf_merge *m);

/* Takes the top's row into what is being gathered. *complete: it belongs to another key, so that the gathered one is
 * complete, and nothing was taken. */
sf_status sf__merge_gather(sf_merge *m, bool *complete, sf_error *err) SF_MUST_USE;
/* Nothing gathered, the top an SST's: whether its key is no other source's and comes behind all that was taken. *before: rows with keys
 * that come before it are the top's alone; NULL: all are. */
bool sf__merge_top_alone(const sf_merge *m, const sf_bytes **before);
/* Rows of the top up to this key were taken by somebody else. */
sf_status sf__merge_taken(sf_merge *m, sf_bytes key, sf_error *err) SF_MUST_USE;
/* The gathered key is done with. */
void sf__merge_drop(sf_merge *m);

static inline sf_bytes sf__merge_key(const sf_merge *m)
{
    return (sf_bytes){m->key, m->key_n};
}

#endif
