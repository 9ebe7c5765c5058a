#include "backend/slatedb/format/filter.h"

#include "backend/slatedb/format/compress.h" /* SF_TRANSFORMER_HINT */

#define BLOOM_NAME "_bf"
#define BLOOM_PREFIX_NAME "_bf:p="

static sf_status bloom_decode(sf_bloom *out, sf_bytes payload, sf_error *err)
{
    sf_cursor c = payload;
    uint16_t probes;

    if (!sf_cursor_u16be(&c, &probes))
        return sf_fail(err, SF_CORRUPT, "invalid filter block: a Bloom filter of %zu bytes" SF_TRANSFORMER_HINT,
                       payload.n);
    *out = (sf_bloom){.bits = c.p, .bit_count = (uint64_t)c.n * 8, .probes = probes};
    return SF_OK;
}

/* Only a filter that holds whole keys can rule a key out: "_bf" and "_bf:p=NAME", not "_bf:p=NAME:wh=0". Any further
 * option, known or not, is taken for "no": a filter left out costs a request, a filter taken wrongly loses a row. */
static bool holds_whole_keys(sf_bytes name)
{
    size_t n = sizeof(BLOOM_PREFIX_NAME) - 1;

    if (sf_bytes_eq(name, sf_bytes_str(BLOOM_NAME)))
        return true;
    return sf_bytes_starts_with(name, sf_bytes_str(BLOOM_PREFIX_NAME)) && !memchr(name.p + n, ':', name.n - n);
}

/* u16be count, then per filter: u16be name length | name | u64be payload length | payload */
static sf_status composite_decode(sf_filter *f, sf_bytes plain, sf_error *err)
{
    sf_cursor c = plain;
    uint16_t count, name_len;
    uint64_t payload_len;
    sf_bytes name, payload;
    sf_status rc;

    if (!sf_cursor_u16be(&c, &count))
        return sf_fail(err, SF_CORRUPT, "invalid filter block: %zu bytes" SF_TRANSFORMER_HINT, plain.n);
    for (unsigned i = 0; i < count; i++) {
        if (!sf_cursor_u16be(&c, &name_len) || !sf_cursor_take(&c, name_len, &name) ||
            !sf_cursor_u64be(&c, &payload_len) || payload_len > c.n || !sf_cursor_take(&c, (size_t)payload_len, &payload))
            return sf_fail(err, SF_CORRUPT,
                           "invalid filter block: filter %u of %u does not fit in %zu bytes" SF_TRANSFORMER_HINT, i,
                           count, plain.n);
        if (!holds_whole_keys(name) || f->count == SF_FILTER_MAX_BLOOMS)
            continue;
        rc = bloom_decode(&f->blooms[f->count], payload, err);
        if (rc != SF_OK)
            return rc;
        f->count++;
    }
    if (c.n > 0)
        return sf_fail(err, SF_CORRUPT, "invalid filter block: %zu bytes behind %u filters" SF_TRANSFORMER_HINT, c.n,
                       count);
    return SF_OK;
}

sf_status sf__filter_decode(sf_filter *out, sf_bytes plain, sf_buf *owner, uint8_t format, sf_error *err)
{
    sf_filter f = {0};
    sf_status rc;

    switch (format) {
    case SF_FILTER_LEGACY:
        f.count = 1;
        rc = bloom_decode(&f.blooms[0], plain, err);
        break;
    case SF_FILTER_COMPOSITE:
        rc = composite_decode(&f, plain, err);
        break;
    default:
        return sf_fail(err, SF_UNSUPPORTED, "filter format %u", format);
    }
    if (rc != SF_OK)
        return rc;
    f.buf = owner ? sf__buf_acquire(owner) : NULL;
    *out = f;
    return SF_OK;
}

void sf__filter_cleanup(sf_filter *f)
{
    sf__buf_release(f->buf);
    *f = (sf_filter){0};
}

/* h = low % m, d = high % m; per probe i: d = (d + i) % m, look at h, h = (h + d) % m. All sums stay below 2 * m but
 * for filters of a few bits, so the divisions of the loop are subtractions. */
static bool bloom_may_contain(const sf_bloom *b, uint64_t hash)
{
    uint64_t m = b->bit_count;
    uint64_t h, d;

    if (m == 0)
        return false;
    if (m <= UINT32_MAX) { /* a 32-bit division takes half the time of a 64-bit one */
        h = (uint32_t)hash % (uint32_t)m;
        d = (uint32_t)(hash >> 32) % (uint32_t)m;
    } else {
        h = (uint32_t)hash;
        d = (uint32_t)(hash >> 32);
    }
    for (uint32_t i = 0; i < b->probes; i++) {
        d += i;
        if (d >= m) {
            d -= m;
            if (d >= m)
                d %= m;
        }
        if (!(b->bits[h >> 3] >> (h & 7) & 1))
            return false;
        h += d;
        if (h >= m)
            h -= m;
    }
    return true;
}

bool sf__filter_may_contain_hash(const sf_filter *f, uint64_t hash)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (!bloom_may_contain(&f->blooms[i], hash))
            return false;
    }
    return true;
}
