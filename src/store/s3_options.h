/* Resolving sf_s3_options: what the caller left open comes from the environment, then from the shared config and
 * credentials files (profiles), then from the defaults. Reads files: not for the loop thread. */
#ifndef SF_STORE_S3_OPTIONS_H
#define SF_STORE_S3_OPTIONS_H

#include "auth/credential_origin.h"
#include "auth/profile.h"
#include "base/alloc.h"
#include "shardyfusion/store.h"

/* Every number in `options` is final, `addressing` is PATH or VIRTUAL; its keys and source have gone to `origin`. */
typedef struct sf_s3_resolved {
    sf_s3_options options;
    sf_credential_origin origin;
} sf_s3_resolved;

/* `opts` may be NULL. *out owns all its strings, and a reference to the events. Environment variables are taken one by one, S3_* before AWS_*; empty ones
 * count as unset. A profile that the caller names is an argument: its credentials win over the environment's. Error texts
 * never hold a value, only names. */
sf_status sf__s3_options_resolve(sf_s3_resolved **out, const sf_s3_options *opts, sf_getenv_fn env, void *env_ctx,
                                 const sf_allocator *a, sf_error *err);
void sf__s3_resolved_free(sf_s3_resolved *r, const sf_allocator *a); /* takes NULL */

#endif
