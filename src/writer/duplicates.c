#include "writer/duplicates.h"

sf_status sf__duplicates_add(sf_duplicate_rows *d, uint32_t group, sf_bytes key, uint64_t older, uint64_t newer,
                             sf_error *err)
{
    char text[SF_KEY_DESCRIPTION];

    atomic_fetch_add_explicit(&d->count, 1, memory_order_relaxed);
    if (!d->refused)
        return SF_OK;
    sf__key_describe(text, d->encoding, key);
    if (!d->groups_are_shards)
        return sf_fail(err, SF_INVALID, "row %llu: duplicate key %s in one shard, row %llu has it already",
                       (unsigned long long)newer, text, (unsigned long long)older);
    return sf_fail(err, SF_INVALID, "row %llu: duplicate key %s in shard %u, row %llu has it already",
                   (unsigned long long)newer, text, group, (unsigned long long)older);
}
