/* `_CURRENT`, the pointer to the snapshot in use: one JSON object (docs/formats/snapshot.md 3). Pure; any thread. */
#ifndef SF_SNAPSHOT_CURRENT_H
#define SF_SNAPSHOT_CURRENT_H

#include "base/alloc.h"
#include "base/bytes.h"

typedef struct sf_current {
    char *manifest_ref;          /* as written; may be empty */
    char *manifest_content_type; /* as written; means nothing to a reader */
    char *run_id;
    int64_t updated_at_us;
    bool updated_at_naive; /* written without a zone */
} sf_current;

/* What the writers of manifests say about them. */
#define SF_MANIFEST_CONTENT_TYPE "application/x-sqlite3"
#define SF_CURRENT_CONTENT_TYPE "application/json"

/* On success *out must be cleaned up with sf__current_cleanup(); on failure it is untouched. SF_BAD_MANIFEST for every
 * malformed pointer. */
sf_status sf__current_parse(sf_current *out, sf_bytes text, const sf_allocator *a, sf_error *err);
void sf__current_cleanup(sf_current *c, const sf_allocator *a); /* harmless on a zeroed one, and twice */

/* The object's bytes, terminated; freed with sf__free(). SF_INVALID when a text is not UTF-8. */
sf_status sf__current_format(char **out, const char *manifest_ref, const char *content_type, const char *run_id,
                             int64_t updated_at_us, const sf_allocator *a, sf_error *err);

#endif
