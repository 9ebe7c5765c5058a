#include "base/grow.h"

#include <string.h>

bool sf__grow(const sf_allocator *a, void *array, const void *inside, size_t *cap, size_t need, size_t size)
{
    size_t n = size < 8 ? 64 : 8;
    void *old, *grown;

    if (need <= *cap)
        return true;
    if (n < 2 * *cap)
        n = 2 * *cap;
    if (n < need)
        n = need;
    if (n > SIZE_MAX / 2 / size)
        return false;
    memcpy(&old, array, sizeof(old)); /* a pointer of any type */
    grown = sf__realloc(a, old == inside ? NULL : old, n * size);
    if (!grown)
        return false;
    if (inside && old == inside)
        memcpy(grown, inside, *cap * size);
    memcpy(array, &grown, sizeof(grown));
    *cap = n;
    return true;
}
