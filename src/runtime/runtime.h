/* What the public sf_runtime owns. Fields are set at creation and never change, but for what a lock of its own covers. */
#ifndef SF_RUNTIME_RUNTIME_H
#define SF_RUNTIME_RUNTIME_H

#include <sys/types.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "cache/block_cache.h"
#include "cache/fetch.h"
#include "net/http.h"
#include "net/loop.h"
#include "shardyfusion/reader.h"
#include "shardyfusion/runtime.h"
#include "shardyfusion/store.h"
#include "store/store.h"

struct sf_runtime {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_block_cache *cache;
    sf_fetcher *fetcher;
    sf_log log;
    atomic_uint handles; /* what callers hold, in whatever form: readers, calls, snapshots, ... */
    atomic_uint refs;    /* what its own parts hold: an end waits until they have let go */
    atomic_uint_fast64_t retries;
    unsigned fork_generation; /* of the process that made it; a forked child must not use it */
    struct teardown *teardown; /* of an end that nobody waits for */
    sf_mutex spaces_lock; /* covers exactly: */
    sf_store **spaces;    /* one of each mem:// name that was opened: what is in memory stays while the engine does */
    size_t space_count;
};

/* For parts of the library that may outlive the caller's handles, for as long as an operation or a clean-up takes. The caller
 * holds a handle or a reference. Dropping one is the last thing that happens to its owner: the memory before, so that nothing
 * is freed behind the end. */
sf_runtime *sf__runtime_ref(sf_runtime *rt);
void sf__runtime_unref(sf_runtime *rt);

/* Every blocking function of the public API asks this before it does anything. SF_INVALID on a thread of the runtime's own,
 * which it would wait for; SF_FORKED as below. */
sf_status sf__runtime_check_may_wait(const sf_runtime *rt, sf_error *err);
/* SF_FORKED in a child of the process that made the runtime. */
sf_status sf__runtime_check_process(const sf_runtime *rt, sf_error *err);

/* SF_DENIED when `url`, which is to be opened, does not lie below `prefix` and the reader is confined to that: told so,
 * or by default when the prefix is local, `relocate` is set, or `published`, a URL of the place that the snapshot was published
 * to, is of another kind. */
sf_status sf__location_confine(const char *url, const char *published, const char *prefix, bool relocate, sf_confine confine,
                               const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* A location as it is written in manifests: the scheme in small letters, files as absolute file:// URLs whose paths are
 * percent-encoded, no slashes at the end. Freed with sf__free. */
sf_status sf__location_canonical(char **out, const char *url, const sf_allocator *a, sf_error *err);
/* Root and path of a location, without leading or trailing slash; see sf_url_split(). Both are freed with sf__free. */
sf_status sf__location_split(const char *url, const sf_allocator *a, char **out_root, char **out_path, sf_error *err);
/* The store of a root. `s3` may be NULL. *out is acquired. Any thread. */
sf_status sf__runtime_open_root(sf_runtime *rt, const char *root, const sf_s3_options *s3, sf_store **out,
                                sf_error *err);
/* Both in one: the store of a URL, and the path below its root. */
sf_status sf__runtime_open_store(sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_store **out_store,
                                 char **out_path, sf_error *err);
/* "s3", "file" (also for bare paths), "mem", or "" for an unknown scheme. */
const char *sf__url_scheme(const char *url);

#endif
