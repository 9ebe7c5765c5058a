/* The S3 store: one bucket behind one endpoint. Loop thread, except creation. */
#ifndef SF_STORE_S3_H
#define SF_STORE_S3_H

#include "base/log.h"
#include "net/http.h"
#include "store/s3_options.h"
#include "store/store.h"

/* Each may be NULL; they run on the loop thread. */
typedef struct sf_s3_hooks {
    void (*on_retry)(void *ctx, const char *operation, uint32_t attempt, int64_t delay_ms);
    void (*on_request)(void *ctx, uint64_t bytes_received); /* after each HTTP attempt */
    void *ctx;
    int64_t (*now_us)(void); /* the time of day, for the end of credentials; NULL: the clock's */
} sf_s3_hooks;

/* What was resolved is copied. */
sf_status sf__store_s3_new(sf_store **out, const char *bucket, const sf_s3_resolved *resolved, sf_http *http,
                           const sf_log *log, const sf_s3_hooks *hooks, sf_loop *loop, const sf_allocator *a,
                           sf_error *err);

#endif
