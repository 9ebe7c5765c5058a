/* Manifests that are published already: loading one, listing them. For threads that may wait. */
#ifndef SF_WRITER_PUBLISHED_H
#define SF_WRITER_PUBLISHED_H

#include "shardyfusion/writer.h"
#include "site/objects.h"
#include "snapshot/manifest_name.h"
#include "snapshot/snapshot_manifest.h"

/* Of manifests below the prefix: the name of the manifest that a reference means (a copy elsewhere is looked for below the prefix).
 * SF_BAD_MANIFEST, or SF_UNSUPPORTED when it lies elsewhere. Freed with sf__free(). */
sf_status sf__manifest_locate(const sf_site *s, const char *ref, char **name, sf_error *err) SF_MUST_USE;

/* SF_NOT_FOUND, SF_BAD_MANIFEST, or the store's error. *out is freed with sf__snapshot_manifest_free(). */
sf_status sf__manifest_load(const sf_site *s, const char *ref, const sf_cancel_flag *cancel, sf_snapshot_manifest **out,
                            sf_error *err) SF_MUST_USE;

/* Newest first; of a caller's store whatever `limit` is. Freed with sf__manifest_refs_free(). */
sf_status sf__manifest_list(const sf_site *s, size_t limit, const sf_cancel_flag *cancel, sf_manifest_ref **out,
                            size_t *count, sf_error *err) SF_MUST_USE;

/* Where the shard of a manifest lies below the prefix, to a reader with this `relocate`; NULL in *folder when it lies elsewhere or is
 * empty. Freed with sf__free(). */
sf_status sf__shard_locate(const sf_site *s, const sf_snapshot_manifest *m, const char *db_url, bool relocate,
                           char **folder, sf_error *err) SF_MUST_USE;

#endif
