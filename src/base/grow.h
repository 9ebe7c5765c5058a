/* Arrays that grow: by doubling, so that adding n things costs n. */
#ifndef SF_BASE_GROW_H
#define SF_BASE_GROW_H

#include "base/alloc.h"

/* Room for `need` things in the array whose pointer is the member at `array`, and whose capacity, a size_t, that at `cap`. False
 * without memory; then nothing has changed. The array is freed with sf__free(). */
#define SF_RESERVE(a, array, cap, need) SF_RESERVE_FROM(a, array, NULL, cap, need)
/* The same of an array that lies at `inside`, in its owner, as long as it has not grown; freed with sf__grown_free(). */
#define SF_RESERVE_FROM(a, array, inside, cap, need) \
    ((need) <= *(cap) || sf__grow((a), (array), (inside), (cap), (need), sizeof(**(array))))

bool sf__grow(const sf_allocator *a, void *array, const void *inside, size_t *cap, size_t need, size_t size) SF_MUST_USE;

static inline void sf__grown_free(const sf_allocator *a, void *things, const void *inside)
{
    if (things != inside)
        sf__free(a, things);
}

#endif
