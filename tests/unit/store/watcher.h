/* A heap that counts, that can fail once, and that looks for secrets in what it is given back. */
#ifndef TESTS_UNIT_STORE_WATCHER_H
#define TESTS_UNIT_STORE_WATCHER_H

#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#include "../../support/heap.h"

struct watcher {
    sf_allocator alloc;
    struct test_heap heap;      /* behind it: what to arm, and where blocks are counted */
    const char *const *secrets; /* ends with NULL */
    atomic_long seen;           /* times that a secret went */
};

struct watched {
    alignas(max_align_t) size_t n;
    alignas(max_align_t) char bytes[];
};

static inline struct watched *watch_look(struct watcher *w, void *p)
{
    struct watched *b = (struct watched *)((char *)p - offsetof(struct watched, bytes));

    for (const char *const *s = w->secrets; *s; s++)
        atomic_fetch_add(&w->seen, memmem(p, b->n, *s, strlen(*s)) != NULL);
    return b;
}

static inline void *watch_realloc(void *ctx, void *p, size_t n)
{
    struct watcher *w = ctx;
    /* a block that grows may leave its bytes behind */
    struct watched *b = heap_realloc(&w->heap, p ? watch_look(w, p) : NULL, sizeof(*b) + n);

    if (!b)
        return NULL;
    b->n = n;
    return b->bytes;
}

static inline void watch_free(void *ctx, void *p)
{
    struct watcher *w = ctx;

    heap_free(&w->heap, watch_look(w, p));
}

static inline void watch_init(struct watcher *w, const char *const *secrets)
{
    w->alloc = (sf_allocator){sizeof(sf_allocator), watch_realloc, watch_free, w};
    heap_init(&w->heap);
    w->secrets = secrets;
    atomic_init(&w->seen, 0);
}

#endif
