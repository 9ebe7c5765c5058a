/* Input: u32be end of the blocks | u8 length of a key | key | plain index.
 *
 * What decodes has ascending blocks inside the end and ascending bounds, and every search agrees with a linear one. */
#include <stdlib.h>

#include "backend/slatedb/format/index.h"

#define PROBES 16

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void check_order(const sf_index *idx, uint64_t end)
{
    for (uint32_t i = 0; i < idx->count; i++) {
        must(sf__index_block_off(idx, i) < end && sf__index_block_len(idx, i) > 0);
        must(sf__index_block_len(idx, i) <= end - sf__index_block_off(idx, i));
        must(i == 0 || sf_bytes_cmp(sf__index_block_bound(idx, i - 1), sf__index_block_bound(idx, i)) <= 0);
    }
}

static uint32_t linear_bound(const sf_index *idx, sf_bytes key, bool above)
{
    uint32_t i = 0;

    while (i < idx->count) {
        int c = sf_bytes_cmp(sf__index_block_bound(idx, i), key);

        if (c > 0 || (c == 0 && !above))
            break;
        i++;
    }
    return i;
}

static void check_key(const sf_index *idx, sf_bytes key)
{
    uint32_t lower = linear_bound(idx, key, false), upper = linear_bound(idx, key, true);
    uint32_t first = lower > 0 ? lower - 1 : 0, only, from;
    sf_index_range r = sf__index_candidates(idx, key);

    must(sf__index_lower_bound(idx, key) == lower && sf__index_upper_bound(idx, key) == upper);
    if (upper == 0)
        must(r.first > r.last);
    else
        must(r.first == first && r.last == upper - 1);
    must(sf__index_only_candidate(idx, key, &only) == (key.n > 0 && r.first == r.last));
    must(r.first != r.last || only == r.first);
    if (sf__index_only_few(idx, key, &from)) {
        must(sf__index_only_of_few(idx, key, from, &only) == (r.first == r.last));
        must(r.first != r.last || only == r.first);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t key_len;
    uint32_t end;
    sf_bytes key;
    sf_index idx;

    if (!sf_cursor_u32be(&in, &end) || !sf_cursor_u8(&in, &key_len) || !sf_cursor_take(&in, key_len, &key))
        return 0;
    if (sf__index_decode(&idx, in, end, &sf__allocator_default, NULL) != SF_OK)
        return 0;
    check_order(&idx, end);
    check_key(&idx, key);
    check_key(&idx, (sf_bytes){0});
    for (uint32_t i = 0; i < idx.count; i += 1 + idx.count / PROBES) {
        sf_bytes bound = sf__index_block_bound(&idx, i);

        check_key(&idx, bound);
        if (bound.n > 0)
            check_key(&idx, (sf_bytes){bound.p, bound.n - 1});
    }
    sf__index_cleanup(&idx, &sf__allocator_default);
    return 0;
}
