/* A published prefix on storage, for threads that may wait: where its objects lie, and the few things that publishing
 * and cleaning up do with them. Fields are set at open; any thread may use it, but not the loop thread nor libuv's pool
 * (store/wait.h). */
#ifndef SF_WRITER_SITE_H
#define SF_WRITER_SITE_H

#include "base/buf.h"
#include "runtime/runtime.h"
#include "snapshot/current.h"
#include "store/wait.h"
#include "shardyfusion/writer.h"

typedef struct sf_site {
    sf_runtime *rt;        /* acquired */
    sf_store *store;       /* pointer, manifests, run records; acquired */
    sf_store *shard_store; /* shards: the same bucket, perhaps other credentials; acquired */
    char *path;            /* of the prefix below the store's root; may be empty */
    char *prefix;          /* the same as an absolute URL, without trailing slash */
    char *current_name;
    int64_t timeout_ms;    /* of each request */
} sf_site;

/* `opts` may be NULL. On success *out is closed with sf__site_close(). */
sf_status sf__site_open(sf_site *out, sf_runtime *rt, const char *prefix, const sf_site_options *opts, sf_error *err)
    SF_MUST_USE;
void sf__site_close(sf_site *s); /* takes a zeroed one */

/* The URL of a name below the prefix, freed with sf__free(). NULL without memory. */
char *sf__site_url(const sf_site *s, const char *name) SF_MUST_USE;
/* The other way round: the name, freed with sf__free(); NULL when the URL lies elsewhere. */
sf_status sf__site_name_of(const sf_site *s, const char *url, char **out, sf_error *err) SF_MUST_USE;

/* Names below are relative to the prefix. `cancel` may be NULL. */

/* The time of day as the place has it, which whoever writes there and whoever cleans up there share. Where it cannot be
 * learned, logged, this machine's. */
int64_t sf__site_now_us(const sf_site *s);

/* The whole object, at most max_bytes. `etag` may be NULL. *out is released with sf__buf_release(). */
sf_status sf__site_get(const sf_site *s, const char *name, uint64_t max_bytes, const sf_cancel_flag *cancel,
                       sf_buf **out, char etag[128], sf_error *err) SF_MUST_USE;

typedef struct sf_site_put {
    const char *name, *content_type;
    sf_bytes body;
    bool create_only;
    bool strict; /* with create_only: not where the store can but look before */
    const char *if_match; /* may be NULL */
} sf_site_put;
/* A conditional put whose answer was lost may be told that it lost against itself: then the object is read, and the same
 * bytes are success. *uncertain (may be NULL) tells that it failed in a way that may yet have stored the object. */
sf_status sf__site_put(const sf_site *s, const sf_site_put *put, const sf_cancel_flag *cancel, bool *uncertain,
                       sf_error *err) SF_MUST_USE;

/* All pages; the keys are made relative to the prefix. On success *l is cleaned up with sf__store_listing_cleanup(). */
sf_status sf__site_list(const sf_site *s, sf_store *store, const char *folder, const char *delimiter,
                        const sf_cancel_flag *cancel, sf_store_listing *l, sf_error *err) SF_MUST_USE;

/* Every object below the folder (a slash is added); *count are gone, also after a failure. `dry` only counts. */
sf_status sf__site_delete_folder(const sf_site *s, sf_store *store, const char *folder, bool dry,
                                 const sf_cancel_flag *cancel, uint64_t *count, sf_error *err) SF_MUST_USE;
/* The listed keys that begin with `folder` (with its slash), likewise. */
sf_status sf__site_delete_listed(const sf_site *s, sf_store *store, const sf_store_listing *l, const char *folder,
                                 const sf_cancel_flag *cancel, uint64_t *count, sf_error *err) SF_MUST_USE;

/* Uploads that were begun below a folder and neither completed nor aborted. */
typedef struct sf_site_uploads {
    sf_store_upload *uploads; /* ascending by key, which is relative to the prefix */
    size_t count, cap;
} sf_site_uploads;
/* Of `folder`, or of all when it is empty. Page by page, at most as much as a listing may have. SF_UNSUPPORTED: there is more, or the store does not list them; what
 * it did list is in *out then, too, and after every other failure. Released with sf__site_uploads_free(). */
sf_status sf__site_uploads(const sf_site *s, sf_store *store, const char *folder, sf_site_uploads *out, sf_error *err)
    SF_MUST_USE;
void sf__site_uploads_free(const sf_site *s, sf_site_uploads *u); /* takes an empty one */
/* One that is gone already is success. */
sf_status sf__site_abort_upload(const sf_site *s, sf_store *store, const char *name, const char *id, sf_error *err) SF_MUST_USE;

/* ------------------------------------------------------------------ the pointer ---------------------------------- */

typedef struct sf_pointer {
    bool exists, parsed;
    sf_current current; /* parsed */
    char etag[128];     /* exists */
    sf_error why;       /* exists, but does not parse */
} sf_pointer;

/* A missing pointer is a result; a malformed one too. */
sf_status sf__pointer_load(const sf_site *s, const sf_cancel_flag *cancel, sf_pointer *out, sf_error *err) SF_MUST_USE;
void sf__pointer_cleanup(const sf_site *s, sf_pointer *p); /* takes a zeroed one */

/* Whether it names this very manifest, by the same or another name for the place. */
bool sf__pointer_names(const sf_site *s, const sf_pointer *p, const char *ref);

/* What the pointer must be for a put to go ahead. */
typedef struct sf_expectation {
    sf_expected_current kind;
    const char *ref; /* SF_EXPECT_REF */
} sf_expectation;
/* SF_CONFLICT when it is not as expected now; *found as below. */
sf_status sf__pointer_check(const sf_site *s, const sf_expectation *expected, const sf_cancel_flag *cancel,
                            char **found, sf_error *err) SF_MUST_USE;
/* Makes it name `ref`. SF_CONFLICT when it is not as expected, with *found (may be NULL, freed with sf__free()) set to
 * what it names instead. */
sf_status sf__pointer_move(const sf_site *s, const char *ref, const char *run_id, const sf_expectation *expected,
                           const sf_cancel_flag *cancel, char **found, bool *uncertain, sf_error *err) SF_MUST_USE;

#endif
