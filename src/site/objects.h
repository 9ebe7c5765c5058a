/* The objects of a prefix, for threads that may wait: reading, storing, listing and removing them, by names that are relative to
 * the prefix. Of an open site (site.h); any thread, but not the loop thread nor libuv's pool (store/wait.h). `cancel` may be
 * NULL. */
#ifndef SF_SITE_OBJECTS_H
#define SF_SITE_OBJECTS_H

#include "base/buf.h"
#include "site/site.h"
#include "store/wait.h"

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
    bool strict;          /* with create_only: not where the store can but look before */
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
sf_status sf__site_abort_upload(const sf_site *s, sf_store *store, const char *name, const char *id, sf_error *err)
    SF_MUST_USE;

#endif
