/* What a reader reads from: its prefix, and its options. Counted; the stores of the site are touched on the loop thread only. */
#ifndef SF_READER_SOURCE_H
#define SF_READER_SOURCE_H

#include "backend/foreign/opener.h"
#include "backend/sqlite/shard.h"
#include "reader/manifest_source.h"
#include "shardyfusion/reader.h"
#include "site/site.h"

typedef struct sf_source {
    atomic_uint refs;
    const sf_allocator *alloc;
    sf_site site;
    sf_foreign_manifests *foreign; /* where manifests are, or NULL: below the prefix of `site`, which is open then */
    sf_sqlite_reading sqlite;      /* its folder is ours */
    uint64_t sqlite_total_bytes;
    sf_disk_cache *disk;   /* or NULL */
    sf_block_cache *cache; /* the runtime's, or the reader's own */
    sf_read_cost cost;
    sf_residency residency;
    uint64_t warm_bytes; /* of blocks that a refresh reads before the reader moves; 0: none */
    bool sqlite_only;
    sf_foreign_opener *opener; /* of shards; or NULL: they are read here */
    char *manifest_ref;        /* instead of what the pointer names; or NULL */
    bool relocate, legacy_manifests, lazy_shards;
    sf_confine confine;
    uint32_t open_concurrency; /* at least 1 */
    uint32_t max_fallbacks;
    int64_t open_timeout_ms;
    int64_t refresh_interval_ms; /* 0: none is ever due */
    double refresh_jitter;       /* 0 to 1 */
    /* the pointer as it was read last, loop thread; NULL: it was not, or its store tells no ETag */
    char *pointer_etag, *pointer_ref;
} sf_source;

sf_status sf__source_new(sf_source **out, sf_runtime *rt, const char *prefix, const sf_reader_options *given,
                         sf_error *err);
/* The run whose manifest is to be served, where that is how the manifest was named; else NULL. */
const char *sf__source_run(const sf_source *s);
sf_source *sf__source_acquire(sf_source *s);
void sf__source_release(sf_source *s); /* takes NULL */

#endif
