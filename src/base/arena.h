/* Memory for a tree that dies at once (a JSON document, a parsed manifest). Nothing is freed one by one. One thread. */
#ifndef SF_BASE_ARENA_H
#define SF_BASE_ARENA_H

#include "base/alloc.h"
#include "base/bytes.h"

typedef struct sf_arena {
    const sf_allocator *alloc;
    struct sf_arena_chunk *chunks;
    uint8_t *p; /* free room in the newest chunk */
    size_t left;
} sf_arena;

void sf__arena_init(sf_arena *a, const sf_allocator *alloc);
void sf__arena_cleanup(sf_arena *a); /* harmless on a zeroed or cleaned one */
/* Zeroed, aligned for any object; NULL without memory. */
void *sf__arena_alloc(sf_arena *a, size_t n) SF_MUST_USE;
/* Copies n bytes and terminates them. */
char *sf__arena_strndup(sf_arena *a, const void *s, size_t n) SF_MUST_USE;

#endif
