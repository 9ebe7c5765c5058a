/* A heap that counts, and that can fail once. */
#ifndef TESTS_UNIT_CACHE_HEAP_H
#define TESTS_UNIT_CACHE_HEAP_H

#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"

struct heap {
    sf_allocator alloc;
    atomic_long live;
    atomic_long until_failure; /* the failing one is the nth from now, from 0; < 0: none */
    atomic_bool fired;
};

static inline void *heap_realloc(void *ctx, void *p, size_t n)
{
    struct heap *h = ctx;
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
    atomic_fetch_sub(&((struct heap *)ctx)->live, 1);
    free(p);
}

static inline void heap_init(struct heap *h)
{
    h->alloc = (sf_allocator){sizeof(sf_allocator), heap_realloc, heap_free, h};
    atomic_init(&h->live, 0);
    atomic_init(&h->until_failure, -1);
    atomic_init(&h->fired, false);
}

static inline void heap_arm(struct heap *h, long nth)
{
    atomic_store(&h->fired, false);
    atomic_store(&h->until_failure, nth);
}

#endif
