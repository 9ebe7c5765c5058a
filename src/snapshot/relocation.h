/* Where the objects of a snapshot really lie. Manifests and pointers name absolute URLs of the place they were published
 * to; a copy elsewhere (another bucket, a local disk) is read below the prefix that the reader was given. Texts in,
 * texts out; any thread.
 *
 * "s3://bucket/a", "mem://name/a", "file:///a" and bare paths; the last two are the same scheme. Prefixes count by
 * segment: "s3://b/a" is no prefix of "s3://b/ab". */
#ifndef SF_SNAPSHOT_RELOCATION_H
#define SF_SNAPSHOT_RELOCATION_H

#include "base/alloc.h"
#include "base/bytes.h"

/* Length without trailing slashes; the two of "scheme://" stay. */
size_t sf__prefix_length(const char *prefix);

/* The URL of a shard's folder. `published_prefix` is the manifest's own, `given_prefix` the reader's. What lies below
 * the first is moved below the second when the schemes differ, or when `relocate` says so; everything else stays where
 * it is. SF_BAD_MANIFEST when the URL is empty, leaves the prefix by "..", or names local files from a snapshot that is
 * not local. On success *out is freed with sf__free(). */
sf_status sf__location_resolve_shard(char **out, const char *db_url, const char *published_prefix,
                                     const char *given_prefix, bool relocate, const sf_allocator *a, sf_error *err);

/* The URL of the manifest that a reference names; moved (as above) are the segments from the last "manifests" on.
 * SF_BAD_MANIFEST too when the reference is no absolute URL, or has no such segment where it must be moved; below an S3
 * prefix that is SF_INVALID, as the contract wants it. */
sf_status sf__location_resolve_manifest(char **out, const char *ref, const char *given_prefix, bool relocate,
                                        const sf_allocator *a, sf_error *err);

#endif
