/* What the public sf_runtime owns. Fields are set at creation and never change. */
#ifndef SF_RUNTIME_RUNTIME_H
#define SF_RUNTIME_RUNTIME_H

#include <sys/types.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/block_cache.h"
#include "cache/fetch.h"
#include "net/http.h"
#include "net/loop.h"
#include "shardyfusion/runtime.h"
#include "shardyfusion/store.h"

struct sf_runtime {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_block_cache *cache;
    sf_fetcher *fetcher;
    sf_log log;
    atomic_uint refs;
    atomic_uint_fast64_t retries;
    unsigned fork_generation; /* of the process that made it; a forked child must not use it */
    struct sf_runtime_teardown *teardown;
};

/* SF_FORKED in a child of the process that made the runtime. */
sf_status sf__runtime_check_process(const sf_runtime *rt, sf_error *err);

/* A parsed location: the store, and the path below its root without leading or trailing slash.
 *   s3://bucket/some/prefix      -> S3 store of the bucket, "some/prefix"
 *   file:///tmp/x, /tmp/x, ./x   -> file store, absolute path without its leading slash
 *   mem://name/prefix            -> memory store "name", "prefix"
 * `s3` may be NULL. *out_store is acquired; *out_path is freed with sf__free. Any thread. */
sf_status sf__runtime_open_store(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **out_store,
                                 char **out_path, sf_error *err);
/* "s3", "file" (also for bare paths), "mem", or "" for an unknown scheme. */
const char *sf__url_scheme(const char *url);

#endif
