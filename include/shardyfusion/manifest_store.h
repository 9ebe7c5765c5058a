/* Manifests and pointer that do not lie below the prefix: the caller's own store of them, such as a database. A writer whose
 * options name a sf_manifest_store publishes there, and a clean-up asks it what is in use. Shards and run records lie below the
 * prefix as ever. Readers ask a sf_manifest_source (reader.h) instead, which must not wait.
 *
 * The functions run on the thread that publishes or cleans up, which waits for them: one at a time for each writer or clean-up,
 * but several of those may be at work. They must end by themselves, within a time of their own, and call nothing of that writer.
 * What they find they tell by the functions below, while they run; texts and bytes are copied. On failure they leave code and
 * text in `err`, which is never NULL. */
#ifndef SHARDYFUSION_MANIFEST_STORE_H
#define SHARDYFUSION_MANIFEST_STORE_H

#include "shardyfusion/writer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a function puts what it has found. */
typedef struct sf_manifest_answer sf_manifest_answer;

/* What is to be published. */
typedef struct sf_publication {
    size_t size; /* sizeof(sf_publication) of the library */
    const char *run_id;
    sf_bytes manifest;          /* in the published format (docs/formats/snapshot.md 4) */
    sf_expected_current expected_current; /* of the pointer, compared in one step with its move; else SF_CONFLICT */
    const char *expected_ref;   /* SF_EXPECT_REF */
} sf_publication;

typedef struct sf_manifest_store {
    size_t size;      /* sizeof(sf_manifest_store) */
    const char *name; /* for messages and reports; holds no secret, and lives as long as ctx */
    /* Stores the manifest and moves the pointer to it, both or neither. Tells the new reference by sf_manifest_answer_ref() before
     * the step that makes it visible: when it fails after that, it may have happened, and shards are left alone; a store that finds out
     * that it has not takes the reference back by telling NULL. When the pointer does not name what is expected: SF_CONFLICT, and
     * sf_manifest_answer_found() with what it names. */
    sf_status (*publish)(void *ctx, const sf_publication *what, sf_manifest_answer *out, sf_error *err);
    /* What does the pointer name? sf_manifest_answer_ref(), or nothing. */
    sf_status (*load_current)(void *ctx, sf_manifest_answer *out, sf_error *err);
    /* What does this manifest say? sf_manifest_answer_manifest(). SF_NOT_FOUND: it is not there; SF_BAD_MANIFEST. */
    sf_status (*load_manifest)(void *ctx, const char *ref, sf_manifest_answer *out, sf_error *err);
    /* All that there are, newest first: sf_manifest_answer_entry() for each. */
    sf_status (*list_manifests)(void *ctx, sf_manifest_answer *out, sf_error *err);
    /* Deletes a manifest for good, unless the pointer names it: SF_CONFLICT. One that is not there is deleted already. NULL: all
     * stay, and with them their shards. */
    sf_status (*delete_manifest)(void *ctx, const char *ref, sf_error *err);
    /* Whoever copies the struct for longer than a call retains it, and releases it at the end. Both NULL: ctx lives as long as
     * the process. */
    void (*retain)(void *ctx);
    void (*release)(void *ctx);
    void *ctx;
} sf_manifest_store;

/* SF_NOMEM: there is no room for it, and the function that asks has failed. */
SF_API sf_status sf_manifest_answer_ref(sf_manifest_answer *out, const char *ref); /* NULL: nothing */
SF_API sf_status sf_manifest_answer_found(sf_manifest_answer *out, const char *ref); /* NULL: nothing */
SF_API sf_status sf_manifest_answer_manifest(sf_manifest_answer *out, sf_bytes manifest);
SF_API sf_status sf_manifest_answer_entry(sf_manifest_answer *out, const char *ref, const char *run_id, int64_t published_at_us);

#ifdef __cplusplus
}
#endif
#endif
