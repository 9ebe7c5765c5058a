/* A caller's store of manifests (shardyfusion/manifest_store.h), asked: the site's, which has one. For threads that may wait. */
#ifndef SF_WRITER_MANIFEST_STORE_H
#define SF_WRITER_MANIFEST_STORE_H

#include "base/buf.h"
#include "shardyfusion/manifest_store.h"
#include "site/site.h"
#include "snapshot/manifest_name.h"

/* A copy that whoever holds it has retained. SF_INVALID when a function is missing. */
sf_status sf__manifest_store_copy(sf_manifest_store *out, const sf_manifest_store *given, sf_error *err) SF_MUST_USE;
void sf__manifest_store_release(sf_manifest_store *m); /* takes a zeroed one */

/* *ref NULL: nothing was published. Freed with sf__free(). */
sf_status sf__manifest_store_current(const sf_site *s, char **ref, sf_error *err) SF_MUST_USE;
/* The manifest in the published format; released with sf__buf_release(). */
sf_status sf__manifest_store_load(const sf_site *s, const char *ref, sf_buf **out, sf_error *err) SF_MUST_USE;
/* Newest first. Freed with sf__manifest_refs_free(). */
sf_status sf__manifest_store_list(const sf_site *s, sf_manifest_ref **out, size_t *count, sf_error *err) SF_MUST_USE;
/* *ref NULL after a failure: nothing was stored. *found after SF_CONFLICT, NULL: nothing. Both freed with sf__free(). */
sf_status sf__manifest_store_publish(const sf_site *s, const sf_publication *what, char **ref, char **found,
                                     sf_error *err) SF_MUST_USE;

#endif
