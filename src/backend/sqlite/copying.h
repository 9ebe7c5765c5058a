/* The object, copied into a local copy: in chunks, through the fetcher, whose budget bounds what is in memory; a worker writes and hashes
 * each. Loop thread only. */
#ifndef SF_BACKEND_SQLITE_COPYING_H
#define SF_BACKEND_SQLITE_COPYING_H

#include "backend/sqlite/local_copy.h"
#include "runtime/runtime.h"

#define SF_COPYING_SLOTS 4u

typedef struct sf_copying {
    /* set by the owner, borrowed until done */
    sf_runtime *rt;
    sf_store *store;
    const char *key;
    uint64_t deadline_ns;
    sf_local_copy *copy;                /* which is being made; of an object that is not empty */
    void (*done)(struct sf_copying *c); /* exactly once, never inside start */
    void *ctx;
    /* results */
    const sf_error *error; /* the first failure, kept for the owner, who drops it; NULL: there was none */
    bool changed;          /* the object was another one when it was read */
    /* private */
    bool stopped;
    uint64_t next_off;
    size_t pending; /* chunks under way */
    struct copied_chunk {
        struct sf_copying *owner;
        bool busy;
        sf_fetch fetch;
        sf_work write;
        sf_hash128 hash;
        const sf_error *error; /* kept; of the write */
    } chunks[SF_COPYING_SLOTS];
} sf_copying;

void sf__copying_start(sf_copying *c);
void sf__copying_cancel(sf_copying *c); /* done() follows */

#endif
