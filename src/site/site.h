/* A prefix on storage, as a reader or a writer has it: where it lies, what its pointer is called, and the stores of the
 * buckets that have to do with it. Set up by any thread but the loop thread; the table of stores is then for one thread: a
 * reader's for the loop thread. */
#ifndef SF_SITE_SITE_H
#define SF_SITE_SITE_H

#include "runtime/runtime.h"
#include "store/hedge.h"
#include "store/s3_options.h"

/* Manifests (with the pointer and run records) and shards may need different credentials, so they have stores of their own. */
typedef enum sf_site_part { SF_SITE_MANIFESTS, SF_SITE_SHARDS } sf_site_part;

typedef struct sf_site {
    sf_runtime *rt;        /* a reference */
    char *prefix;          /* its location, without trailing slash; or the name, as it was given */
    char *current_name;    /* of the pointer */
    sf_store *store;       /* of manifests below the prefix; one of `stores`, or NULL until the site is opened */
    sf_store *shard_store; /* of shards there, likewise; NULL for who asks sf__site_store() */
    char *path;            /* of the prefix below the root of both; may be empty. NULL until the site is opened */
    int64_t timeout_ms;    /* of each request that is waited for (objects.h) */
    /* Of who publishes or cleans up: where manifests and pointer are; borrowed. NULL: below the prefix. */
    const struct sf_manifest_store *manifests;
    /* By part: what the options, the environment and the shared files say of S3, read when the site is set up: buckets that a
     * manifest names later are opened on the loop thread, which must not read files. Shards go by the manifests' where nothing
     * of their own was said. NULL where no bucket is to be met, or: */
    sf_s3_resolved *resolved[2];
    const sf_error *unresolved[2]; /* why it cannot be said */
    sf_hedge *hedge; /* of reads of shards on S3; or NULL. Its reader sets it before any store of shards is opened, and gives it away */
    struct site_store {
        sf_site_part part;
        char *root; /* "s3://bucket", "file://", "mem://name" */
        sf_store *store;
    } *stores;
    size_t store_count;
} sf_site;

typedef struct sf_site_setup {
    const char *current_name;           /* NULL: "_CURRENT" */
    const sf_s3_options *s3, *shard_s3; /* NULL: from the environment; as s3 */
    bool is_name;                       /* the prefix is no location */
    bool roams;                         /* manifests may name other buckets */
} sf_site_setup;

/* Opens nothing yet. On failure there is nothing to clean up. */
sf_status sf__site_init(sf_site *s, sf_runtime *rt, const char *prefix, const sf_site_setup *setup, sf_error *err)
    SF_MUST_USE;
void sf__site_cleanup(sf_site *s); /* takes a zeroed one */
/* What buckets of that part are reached with; NULL: none is, or it cannot be said. Borrowed. */
const sf_s3_options *sf__site_s3(const sf_site *s, sf_site_part part);
/* Sets `store` and `path`. */
sf_status sf__site_open_manifests(sf_site *s, sf_error *err) SF_MUST_USE;
/* The store of a URL (one per bucket and part, kept by the site; borrowed) and the path below its root (freed with
 * sf__free). */
sf_status sf__site_store(sf_site *s, sf_site_part part, const char *url, sf_store **store, char **path, sf_error *err)
    SF_MUST_USE;

#endif
