/* Names below `manifests/`: the order of the snapshots, and references to them (docs/formats/snapshot.md 5). Pure; any
 * thread. */
#ifndef SF_SNAPSHOT_MANIFEST_NAME_H
#define SF_SNAPSHOT_MANIFEST_NAME_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "store/store.h" /* sf_store_entry */

typedef struct sf_manifest_name {
    int64_t published_at_us;
    sf_bytes run_id; /* into the name */
} sf_manifest_name;

/* "2026-03-14T10:30:00.000000Z_run_id=abc", with or without one '/' behind. False for every other name, also when the
 * shape is right but the date does not exist. */
bool sf__manifest_name_parse(sf_bytes name, sf_manifest_name *out) SF_MUST_USE;

/* The folder name of a new manifest; freed with sf__free(). SF_INVALID for a run id that cannot be listed again: empty,
 * "." or "..", with '/' or control characters, or not UTF-8. */
sf_status sf__manifest_name_format(char **out, int64_t published_at_us, const char *run_id, const sf_allocator *a,
                                   sf_error *err);

/* The run id in a reference: behind the last "run_id=" that has text behind it in its segment. False when none. */
bool sf__run_id_from_ref(sf_bytes ref, sf_bytes *out) SF_MUST_USE;

/* One manifest that a listing shows. Whether its object exists is not known. */
typedef struct sf_manifest_ref {
    char *ref;    /* the URL of prefix/manifests/FOLDER/name */
    char *run_id; /* of the name; the manifest's own may differ */
    int64_t published_at_us;
} sf_manifest_ref;

/* What the object in a manifest's folder is called. */
#define SF_MANIFEST_NAME "manifest"

/* From the common prefixes below `manifests/`, newest first; equal times in ascending order of names. Entries that are
 * no manifest folders are ignored. At most `limit` are kept. `name` is SF_MANIFEST_NAME, but for callers whose objects
 * are called otherwise. On success the array is freed with sf__manifest_refs_free() (it may be NULL when *count is 0). */
sf_status sf__manifest_refs_from_listing(sf_manifest_ref **out, size_t *count, const char *prefix, const char *name,
                                         const sf_store_entry *entries, size_t entry_count, size_t limit,
                                         const sf_allocator *a, sf_error *err);
void sf__manifest_refs_free(sf_manifest_ref *refs, size_t count, const sf_allocator *a); /* takes NULL */

#endif
