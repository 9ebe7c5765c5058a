/* From a URL to the store that holds it, and whether it may be opened. Any thread. */
#ifndef SF_SITE_LOCATION_H
#define SF_SITE_LOCATION_H

#include "runtime/runtime.h"
#include "store/s3_options.h"

/* SF_DENIED when `url`, which is to be opened, does not lie below `prefix` and the reader is confined to that: told so,
 * or by default when the prefix is local, `relocate` is set, or `published`, a URL of the place that the snapshot was published
 * to, is of another kind. */
sf_status sf__location_confine(const char *url, const char *published, const char *prefix, bool relocate,
                               sf_confine confine, const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* A location as it is written in manifests: the scheme in small letters, files as absolute file:// URLs whose paths are
 * percent-encoded, no slashes at the end. Freed with sf__free. */
sf_status sf__location_canonical(char **out, const char *url, const sf_allocator *a, sf_error *err);
/* Root and path of a location, without leading or trailing slash; see sf_url_split(). Both are freed with sf__free. */
sf_status sf__location_split(const char *url, const sf_allocator *a, char **out_root, char **out_path, sf_error *err);
/* The store of a root. `s3` may be NULL. *out is acquired. Any thread. */
sf_status sf__location_open_root(sf_runtime *rt, const char *root, const sf_s3_options *s3, sf_store **out,
                                 sf_error *err);
/* The same of an s3:// root, without reading the environment or files: for the loop thread. */
sf_status sf__location_open_bucket(sf_runtime *rt, const char *root, const sf_s3_resolved *s3, sf_store **out,
                                   sf_error *err);
/* Both in one: the store of a URL, and the path below its root. */
sf_status sf__location_open(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **out_store,
                            char **out_path, sf_error *err);
/* "s3", "file" (also for bare paths), "mem", or "" for an unknown scheme. */
const char *sf__url_scheme(const char *url);

#endif
