/* Where the objects of a snapshot really lie. Manifests and pointers name absolute URLs of the place they were published
 * to; a copy elsewhere (another bucket, a local disk) is read below the prefix that the reader was given. Texts in,
 * texts out; any thread.
 *
 * "s3://bucket/a", "mem://name/a", "file:///a" and bare paths; the last two are the same scheme. Prefixes count by
 * segment: "s3://b/a" is no prefix of "s3://b/ab".
 *
 * The paths of file URLs are percent-encoded, so that whoever reads URLs finds the file; one whose percent signs make no
 * sense is taken as it is. Bare paths, and the names in s3 and mem, are what they are. Locations are compared by what they
 * mean. Nothing else in the library encodes or decodes a part of one. */
#ifndef SF_SNAPSHOT_RELOCATION_H
#define SF_SNAPSHOT_RELOCATION_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "shardyfusion/store.h"

/* Length without trailing slashes; the two of "scheme://" stay. */
size_t sf__prefix_length(const char *prefix);

/* The URL of the object `name` below a prefix; "" names the prefix as a folder, with its slash. Freed with sf__free(); NULL without memory. */
char *sf__location_join(const char *prefix, const char *name, const sf_allocator *a) SF_MUST_USE;
/* The other way round: the name, freed with sf__free(). *out is NULL when the URL does not lie below the prefix. */
sf_status sf__location_below(char **out, const char *url, const char *prefix, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* A part of one as it is meant. Freed with sf__free(); NULL without memory. */
char *sf__location_decode(const char *url, sf_bytes part, const sf_allocator *a) SF_MUST_USE;
/* Whether two name one place. */
bool sf__location_same(const char *a, const char *b);
/* Whether two references name one manifest, which copies elsewhere name by the place they were published to: from the last
 * "manifests" on they are the same. */
bool sf__location_same_manifest(const char *a, const char *b);

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

/* Where a reader looks, and what it is confined to (site/location.h). */
typedef struct sf_reach {
    const char *prefix;
    bool relocate;
    sf_confine confine;
} sf_reach;

/* The same, and SF_DENIED for what lies beyond. */
sf_status sf__location_reach_shard(char **out, const char *db_url, const char *published_prefix, const sf_reach *reach,
                                   const sf_allocator *a, sf_error *err) SF_MUST_USE;
sf_status sf__location_reach_manifest(char **out, const char *ref, const sf_reach *reach, const sf_allocator *a,
                                      sf_error *err) SF_MUST_USE;

#endif
