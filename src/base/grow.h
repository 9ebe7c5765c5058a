/* Arrays that begin inside their owner, with room for a few, and move to the heap when there are more. */
#ifndef SF_BASE_GROW_H
#define SF_BASE_GROW_H

#include <string.h>

#include "base/alloc.h"

/* Twice the room, for at least 16 things of `size` bytes. `inside`: where `things` lie as long as they have not grown.
 * NULL without memory; then nothing has changed. Freed with sf__grown_free(). */
SF_MUST_USE static inline void *sf__grow(const sf_allocator *a, void *things, const void *inside, size_t *cap,
                                         size_t size)
{
    size_t n = *cap < 8 ? 16 : 2 * *cap;
    void *grown = sf__realloc(a, things == inside ? NULL : things, n * size);

    if (grown && things == inside)
        memcpy(grown, inside, *cap * size);
    if (grown)
        *cap = n;
    return grown;
}

static inline void sf__grown_free(const sf_allocator *a, void *things, const void *inside)
{
    if (things != inside)
        sf__free(a, things);
}

#endif
