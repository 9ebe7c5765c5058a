#include "writer/duplicates.h"

#include <stdio.h>

sf_status sf__duplicates_add(sf_duplicates *d, uint32_t group, sf_bytes key, sf_error *err)
{
    char hex[2 * 32 + 1] = "";
    size_t n = key.n < 32 ? key.n : 32;

    atomic_fetch_add_explicit(&d->count, 1, memory_order_relaxed);
    if (!d->refused)
        return SF_OK;
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", key.p[i]);
    return sf_fail(err, SF_INVALID, "duplicate key in shard %u: 0x%s%s, %zu bytes", group, hex, n < key.n ? "..." : "",
                   key.n);
}
