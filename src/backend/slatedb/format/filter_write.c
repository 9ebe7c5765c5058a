#include "backend/slatedb/format/filter_write.h"

#include <assert.h>
#include <string.h>

#include "base/grow.h"

#define PROBES_BYTES 2u

void sf__filter_writer_init(sf_filter_writer *w, const sf_allocator *a)
{
    *w = (sf_filter_writer){.alloc = a};
}

void sf__filter_writer_cleanup(sf_filter_writer *w)
{
    if (w->alloc)
        sf__free(w->alloc, w->hashes);
    *w = (sf_filter_writer){0};
}

bool sf__filter_writer_add(sf_filter_writer *w, uint64_t hash)
{
    if (!SF_RESERVE(w->alloc, &w->hashes, &w->cap, w->count + 1))
        return false;
    w->hashes[w->count++] = hash;
    return true;
}

sf_buf *sf__filter_writer_finish(sf_filter_writer *w, uint32_t bits_per_key)
{
    uint32_t probes = (uint32_t)((float)bits_per_key * 0.69f); /* in float32: as SlateDB rounds */
    size_t bytes = (w->count * bits_per_key + 7) / 8;
    uint64_t m = (uint64_t)bytes * 8;
    sf_buf *b;

    assert(bits_per_key > 0 && bits_per_key <= SF_FILTER_BITS_PER_KEY_MAX);
    b = sf__buf_new(w->alloc, PROBES_BYTES + bytes);
    if (!b)
        return NULL;
    sf_store_be(b->data, PROBES_BYTES, probes);
    memset(b->data + PROBES_BYTES, 0, bytes);
    for (size_t k = 0; k < w->count; k++) {
        uint64_t h = (w->hashes[k] & UINT32_MAX) % m, d = (w->hashes[k] >> 32) % m;

        /* the sum of two numbers below m needs no division to come below m again; i < probes < bits_per_key <= m */
        for (uint32_t i = 0; i < probes; i++) {
            d += i;
            d = d >= m ? d - m : d;
            b->data[PROBES_BYTES + (h >> 3)] |= (uint8_t)(1u << (h & 7));
            h += d;
            h = h >= m ? h - m : h;
        }
    }
    w->count = 0;
    return b;
}
