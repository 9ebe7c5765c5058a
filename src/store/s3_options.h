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

/* Each may be NULL; they run on the loop thread. */
typedef struct sf_s3_hooks {
    void (*on_retry)(void *ctx, const char *operation, uint32_t attempt, int64_t delay_ms);
    void (*on_request)(void *ctx, uint64_t bytes_received); /* after each HTTP attempt */
    void *ctx;
    int64_t (*now_us)(void); /* the time of day, for the end of credentials; NULL: the clock's */
} sf_s3_hooks;

#endif
