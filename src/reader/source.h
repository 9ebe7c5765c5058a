/* Where a reader reads from: the prefix it was given, its options, and the stores of the buckets it has met.
 * Counted; the stores table is touched on the loop thread only. */
#ifndef SF_READER_SOURCE_H
#define SF_READER_SOURCE_H

#include "backend/foreign/opener.h"
#include "reader/manifest_source.h"
#include "runtime/runtime.h"
#include "shardyfusion/reader.h"
#include "store/s3_options.h"

/* Manifests and shards may need different credentials, so they have stores of their own. */
typedef enum sf_source_kind { SF_SOURCE_MANIFESTS, SF_SOURCE_SHARDS } sf_source_kind;

typedef struct sf_source {
    atomic_uint refs;
    const sf_allocator *alloc;
    sf_runtime *rt;       /* acquired */
    sf_foreign_manifests *foreign; /* where manifests are, or NULL: below the prefix */
    char *prefix;         /* without trailing slash; as given when it is but a name, beside a foreign source */
    char *path;           /* of the prefix below the root of `store`; NULL with a foreign source */
    sf_store *store;      /* of the prefix; stores[0]; NULL with a foreign source */
    char *current_name;
    char *sqlite_folder;  /* or NULL */
    sf_foreign_opener *opener; /* of shards; or NULL: they are read here */
    char *manifest_ref;   /* instead of what the pointer names; or NULL */
    sf_s3_options *s3[2];   /* deep copies, by sf_source_kind; NULL: the environment */
    /* What these, the environment and the shared files say, read when the reader is made: buckets that a manifest names later
     * are opened on the loop thread, which must not read files. NULL where the reader cannot come to a bucket, or: */
    sf_s3_resolved *resolved[2];
    const sf_error *unresolved[2]; /* why it cannot be said */
    bool relocate, legacy_manifests, lazy_shards;
    sf_confine confine;
    uint32_t open_concurrency; /* at least 1 */
    uint32_t max_fallbacks;
    int64_t open_timeout_ms;
    struct source_store {
        sf_source_kind kind;
        char *root;       /* "s3://bucket", "file://", "mem://name" */
        sf_store *store;
    } *stores;
    size_t store_count;
} sf_source;

sf_status sf__source_new(sf_source **out, sf_runtime *rt, const char *prefix, const sf_reader_options *opts,
                         sf_error *err);
sf_source *sf__source_acquire(sf_source *s);
void sf__source_release(sf_source *s); /* takes NULL */

/* The store of a URL (one per bucket and kind, kept by the source; borrowed) and the path below its root (freed with
 * sf__free). Loop thread. */
sf_status sf__source_store(sf_source *s, sf_source_kind kind, const char *url, sf_store **store, char **path,
                           sf_error *err);

#endif
