/* Building the snapshot that the pointer names: pointer, manifest, shards. Shared by open and refresh. Loop thread. */
#ifndef SF_READER_LOAD_H
#define SF_READER_LOAD_H

#include "reader/snapshot.h"
#include "reader/source.h"

typedef struct sf_load {
    /* set by the owner */
    sf_source *source;     /* borrowed until done */
    sf_snapshot *previous; /* refresh: the snapshot in use, borrowed; NULL at open. Unchanged shards are taken over */
    uint64_t deadline_ns;
    void *call_ctx;                  /* the call's `ctx`, for foreign manifests and shards */
    void (*done)(struct sf_load *l); /* exactly once, loop thread; may be inside start */
    void *ctx;
    /* results */
    sf_error error;
    sf_snapshot *snapshot;          /* the owner's; NULL when unchanged or failed */
    bool fallback;                  /* an older manifest than the pointer named */
    sf_rejected_manifest *rejected; /* manifests that could not be used, as tried; freed by sf__load_cleanup() */
    size_t rejected_count;
    bool malformed; /* refresh: the new manifest does not parse; `error` tells, the outcome is "unchanged" */
    /* private */
    struct load_state *state;
} sf_load;

/* False without memory: nothing was started, done() does not follow. */
bool sf__load_start(sf_load *l) SF_MUST_USE;
void sf__load_cancel(sf_load *l);
/* Frees what is left of the results, but not the snapshot. Takes one that was never started. */
void sf__load_cleanup(sf_load *l, const sf_allocator *a);

/* The load of an opening; NULL for other calls. */
const sf_load *sf__open_call_load(const sf_call *c);

#endif
