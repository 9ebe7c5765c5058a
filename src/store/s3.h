/* The S3 store: one bucket behind one endpoint. Loop thread, except creation. */
#ifndef SF_STORE_S3_H
#define SF_STORE_S3_H

#include "base/log.h"
#include "net/http.h"
#include "store/s3_options.h"
#include "store/store.h"

/* What was resolved is copied. */
sf_status sf__store_s3_new(sf_store **out, const char *bucket, const sf_s3_resolved *resolved, sf_http *http,
                           const sf_log *log, const sf_s3_hooks *hooks, sf_loop *loop, const sf_allocator *a,
                           sf_error *err);

#endif
