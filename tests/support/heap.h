/* A heap that counts, and that can fail once. Any thread may allocate from it; one arms it. */
#ifndef TESTS_SUPPORT_HEAP_H
#define TESTS_SUPPORT_HEAP_H

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"

/* Loops over all that can fail, or over many shapes of data, take one after the other, and every seventh where the thread
 * sanitizer watches, which is slow: threads meet in the same ways in each of them. */
#if defined(__SANITIZE_THREAD__)
#define TEST_STEP 7
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_STEP 7
#endif
#endif
#ifndef TEST_STEP
#define TEST_STEP 1
#endif

struct test_heap {
    sf_allocator alloc;
    atomic_long live;
    atomic_long until_failure; /* allocations that succeed before the one that fails; < 0: none fails */
    atomic_bool fired;         /* it has failed, since the heap was armed */
};

static inline void *heap_realloc(void *ctx, void *p, size_t n)
{
    struct test_heap *h = ctx;
    void *q;

    if (atomic_load(&h->until_failure) >= 0 && atomic_fetch_sub(&h->until_failure, 1) == 0) {
        atomic_store(&h->fired, true);
        return NULL;
    }
    q = realloc(p, n);
    if (q && !p)
        atomic_fetch_add(&h->live, 1);
    return q;
}

static inline void heap_free(void *ctx, void *p)
{
    free(p);
    atomic_fetch_sub(&((struct test_heap *)ctx)->live, 1); /* the last touch: whoever waits for it may drop the heap */
}

/* Nothing fails until it is armed. */
static inline void heap_init(struct test_heap *h)
{
    h->alloc = (sf_allocator){sizeof(sf_allocator), heap_realloc, heap_free, h};
    atomic_init(&h->live, 0);
    atomic_init(&h->until_failure, -1);
    atomic_init(&h->fired, false);
}

/* From now on the nth allocation fails, counted from 0, and no other. */
static inline void heap_arm(struct test_heap *h, long nth)
{
    atomic_store(&h->fired, false);
    atomic_store(&h->until_failure, nth);
}

/* From now on none fails. Whether one did. */
static inline bool heap_disarm(struct test_heap *h)
{
    atomic_store(&h->until_failure, -1);
    return atomic_load(&h->fired);
}

/* How many are alive. Waits up to 10 s until they are as many as `expected`: the last reference to a thing may go on the
 * loop thread, after everybody else has left. */
static inline long heap_settle(struct test_heap *h, long expected)
{
    const uint64_t deadline = sf__deadline_in_ms(10000);
    long live;

    while ((live = atomic_load(&h->live)) != expected && sf__clock_mono_ns() < deadline)
        sched_yield();
    return live;
}

#endif
