/* What the public sf_runtime owns. Fields are set at creation and never change, but for what a lock of its own covers. */
#ifndef SF_RUNTIME_RUNTIME_H
#define SF_RUNTIME_RUNTIME_H

#include <sys/types.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "cache/block_cache.h"
#include "cache/fetch.h"
#include "cache/listing.h"
#include "net/http.h"
#include "net/loop.h"
#include "shardyfusion/runtime.h"
#include "shardyfusion/store.h"
#include "store/store.h"

struct sf_runtime {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_http *http;
    sf_block_cache *shared_cache; /* of the readers that have none of their own: what reads a shard asks for the cache of that */
    sf_fetcher *fetcher;
    sf_log log;
    atomic_uint handles; /* what callers hold, in whatever form: readers, calls, snapshots, ... */
    atomic_uint refs;    /* what its own parts hold: an end waits until they have let go */
    atomic_uint_fast64_t retries;
    unsigned fork_generation;  /* of the process that made it; a forked child must not use it */
    struct teardown *teardown; /* of an end that nobody waits for */
    sf_task cancel_task;
    atomic_bool cancel_posted; /* it is on its way */
    sf_mutex spaces_lock;      /* covers exactly: */
    sf_store **spaces; /* one of each mem:// name that was opened: what is in memory stays while the engine does */
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
/* Another number in every forked child, from the first call on; it costs a load, where getpid() costs a system call. */
unsigned sf__fork_generation(void);

extern atomic_uint sf__forks; /* counted up in every forked child */

/* sf__runtime_check_process(), where nobody wants the error. */
static inline bool sf__runtime_is_ours(const sf_runtime *rt)
{
    return rt->fork_generation == atomic_load_explicit(&sf__forks, memory_order_relaxed);
}
/* SF_FORKED in a child of the process that made the runtime. */
sf_status sf__runtime_check_process(const sf_runtime *rt, sf_error *err);

#endif
