#include "base/arena.h"

#include <stdalign.h>

#define CHUNK_BYTES ((size_t)4 << 10)

struct sf_arena_chunk {
    struct sf_arena_chunk *older;
    alignas(max_align_t) uint8_t data[];
};

void sf__arena_init(sf_arena *a, const sf_allocator *alloc)
{
    *a = (sf_arena){.alloc = alloc};
}

void sf__arena_cleanup(sf_arena *a)
{
    while (a->chunks) {
        struct sf_arena_chunk *c = a->chunks;

        a->chunks = c->older;
        sf__free(a->alloc, c);
    }
    *a = (sf_arena){.alloc = a->alloc};
}

static struct sf_arena_chunk *chunk_add(sf_arena *a, size_t n)
{
    struct sf_arena_chunk *c = n <= SIZE_MAX - sizeof(*c) ? sf__calloc(a->alloc, 1, sizeof(*c) + n) : NULL;

    if (!c)
        return NULL;
    c->older = a->chunks;
    a->chunks = c;
    return c;
}

void *sf__arena_alloc(sf_arena *a, size_t n)
{
    struct sf_arena_chunk *c;
    void *p;

    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (n > a->left) {
        c = chunk_add(a, n > CHUNK_BYTES / 4 ? n : CHUNK_BYTES);
        if (!c)
            return NULL;
        if (n > CHUNK_BYTES / 4)
            return c->data; /* a chunk of its own: the room left in the one before stays in use */
        a->p = c->data;
        a->left = CHUNK_BYTES;
    }
    p = a->p;
    a->p += n;
    a->left -= n;
    return p;
}

char *sf__arena_strndup(sf_arena *a, const void *s, size_t n)
{
    char *p;

    if (n < a->left) { /* from the other end of the chunk: texts need no room between them */
        a->left -= n + 1;
        p = (char *)a->p + a->left;
    } else {
        p = n < SIZE_MAX ? sf__arena_alloc(a, n + 1) : NULL;
    }

    if (p && n > 0)
        memcpy(p, s, n);
    return p;
}
