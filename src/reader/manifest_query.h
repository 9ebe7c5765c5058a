/* What a load asks of the place where its manifests are, whichever that is: a prefix of a store (stored_manifests.c), or a
 * source of the caller's (foreign_manifests.c). One question at a time. Loop thread. */
#ifndef SF_READER_MANIFEST_QUERY_H
#define SF_READER_MANIFEST_QUERY_H

#include "cache/fetch.h"
#include "reader/source.h"

typedef struct sf_manifest_query {
    /* set by the owner */
    sf_source *source; /* borrowed until done */
    uint64_t deadline_ns;
    void *call_ctx;                            /* see sf_manifest_request_call_ctx() */
    void (*done)(struct sf_manifest_query *q); /* exactly once a question; may be inside of the call that asks, or cancels */
    void *ctx;
    /* the answer, until the next question */
    const sf_error *error; /* there is none; NULL: there is one */
    bool asked;            /* false: the question failed before anybody was asked */
    char *ref;             /* current */
    sf_buf *manifest;      /* manifest */
    char **refs;           /* list: newest first */
    size_t ref_count;
    /* private */
    bool running;
    sf_fetch fetch; /* stored */
    sf_store *store;
    char *key;
    sf_store_listing listing;
    size_t limit;
    struct sf_manifest_request *request; /* foreign */
    sf_timer timer;
    uint64_t since_ns;
} sf_manifest_query;

/* Of a kind of source. A question ends with sf__query_end(). */
typedef struct sf_manifests_type {
    void (*current)(sf_manifest_query *q);                   /* SF_NO_CURRENT: nothing was published */
    void (*manifest)(sf_manifest_query *q, const char *ref); /* SF_BAD_MANIFEST: it is malformed */
    void (*list)(sf_manifest_query *q, size_t limit);
    void (*cancel)(sf_manifest_query *q); /* while one is running: it ends as SF_CANCELLED */
    void (*name)(const sf_manifest_query *q, const char *ref, sf_error *e); /* the manifest that was asked for last */
} sf_manifests_type;

extern const sf_manifests_type sf__stored_manifests, sf__foreign_manifests;

void sf__query_current(sf_manifest_query *q);
void sf__query_manifest(sf_manifest_query *q, const char *ref);
void sf__query_list(sf_manifest_query *q, size_t limit); /* at most so many */
void sf__query_cancel(sf_manifest_query *q);             /* harmless when none is running */
/* An error in a manifest that was loaded says which one it is. */
void sf__query_name_manifest(const sf_manifest_query *q, const char *ref, sf_error *e);
void sf__query_cleanup(sf_manifest_query *q); /* none may be running */

/* For the kinds of sources: the question fails, which is not its end yet. The first failure counts. */
void sf__query_fail(sf_manifest_query *q, const sf_error *e);
/* For the kinds of sources: the question has ended, with `error` or an answer. `q` may be gone when it returns. */
void sf__query_end(sf_manifest_query *q);
/* Room for so many refs, all NULL. False without memory. */
bool sf__query_refs_new(sf_manifest_query *q, size_t count) SF_MUST_USE;

#endif
