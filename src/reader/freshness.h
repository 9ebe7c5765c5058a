/* Whether shards still are as the snapshot manifest has recorded them, which spares opening them the look for their newest state: one
 * listing tells it of hundreds of shards of a run, while they are being opened. Loop thread. */
#ifndef SF_READER_FRESHNESS_H
#define SF_READER_FRESHNESS_H

#include "runtime/runtime.h"
#include "store/store.h"

typedef enum sf_freshness_verdict {
    SF_FRESHNESS_PENDING,
    SF_FRESH,
    SF_STALE, /* somebody has written to it since, or that could not be found out */
} sf_freshness_verdict;

typedef struct sf_recorded_shard {
    sf_store *store; /* borrowed until done */
    char *folder;    /* "path/" */
    uint32_t db_id;
    uint64_t objects; /* as recorded, with: */
    bool sqlite;
    uint64_t manifest_bytes;      /* of one of SlateDB */
    uint64_t db_bytes, etag_hash; /* of one of SQLite */
    sf_freshness_verdict verdict;
    void (*told)(struct sf_recorded_shard *s); /* optional: there is a verdict; not inside start */
    void *ctx;
} sf_recorded_shard;

typedef struct sf_freshness {
    /* set by the owner */
    sf_runtime *rt;
    uint64_t deadline_ns;
    void (*done)(struct sf_freshness *f); /* after the last verdict; not inside start */
    void *ctx;
    /* private */
    sf_recorded_shard *shards, **by_folder;
    size_t count, room;
    struct listed_part *parts;
    size_t part_count, pending;
} sf_freshness;

/* Room for so many shards. False without memory. */
bool sf__freshness_init(sf_freshness *f, size_t room) SF_MUST_USE;
/* NULL: nothing is recorded of it that could be compared, or there is no memory. Of any number up to the room. */
sf_recorded_shard *sf__freshness_add(sf_freshness *f, sf_store *store, const char *path, uint32_t db_id, sf_bytes record);
/* True: done() follows, once, and told() before. False: there is nothing to do, or no memory for it: all verdicts are there. */
bool sf__freshness_start(sf_freshness *f) SF_MUST_USE;
void sf__freshness_cancel(sf_freshness *f); /* harmless before the start and after the end; what is not known becomes SF_STALE */
void sf__freshness_cleanup(sf_freshness *f); /* takes a zeroed one */

#endif
