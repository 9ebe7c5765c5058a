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
    if (c.n > UINT32_MAX / 8) /* more than any block may have */
        return sf_fail(err, SF_UNSUPPORTED, "a Bloom filter of %zu bytes", payload.n);
    *out = (sf_bloom){.bits = c.p, .bit_count = (uint32_t)c.n * 8, .probes = probes};
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

/* Of one key: the bit that is looked at next, and how far it is to the one behind. */
struct probe {
    uint64_t h, d;
};

/* h = low % m, d = high % m; per probe i: d = (d + i) % m, look at h, h = (h + d) % m. All sums stay below 2 * m but
 * for filters of a few bits, so the divisions of the loop are subtractions. */
static inline struct probe probe_begin(const sf_bloom *b, uint64_t hash)
{
    return (struct probe){(uint32_t)hash % b->bit_count,
                          (uint32_t)(hash >> 32) % b->bit_count}; /* half the time of 64-bit divisions */
}

/* Before looking at probe i. */
static inline void probe_aim(const sf_bloom *b, struct probe *p, uint32_t i)
{
    uint64_t m = b->bit_count;

    p->d += i;
    if (p->d >= m) {
        p->d -= m;
        if (p->d >= m)
            p->d %= m;
    }
}

static inline void probe_go_on(const sf_bloom *b, struct probe *p)
{
    p->h += p->d;
    if (p->h >= b->bit_count)
        p->h -= b->bit_count;
}

static bool bloom_may_contain(const sf_bloom *b, uint64_t hash)
{
    struct probe p;

    if (b->bit_count == 0)
        return false;
    p = probe_begin(b, hash);
    for (uint32_t i = 0; i < b->probes; i++) {
        probe_aim(b, &p, i);
        if (!(b->bits[p.h >> 3] >> (p.h & 7) & 1))
            return false;
        probe_go_on(b, &p);
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

#define TOGETHER 32u  /* keys */
#define PREFETCHED 8u /* probes of each: as many as filters of 10 bits a key have, and one more */

/* At most TOGETHER keys. */
static bool bloom_may_contain_all(const sf_bloom *b, const uint64_t *hashes, size_t count)
{
    uint64_t places[TOGETHER][PREFETCHED];
    uint32_t n = b->probes < PREFETCHED ? b->probes : PREFETCHED;

    if (b->bit_count == 0)
        return count == 0;
    for (size_t k = 0; k < count; k++) {
        struct probe p = probe_begin(b, hashes[k]);

        for (uint32_t i = 0; i < n; i++) {
            probe_aim(b, &p, i);
            places[k][i] = p.h;
            __builtin_prefetch(&b->bits[p.h >> 3]);
            probe_go_on(b, &p);
        }
    }
    for (size_t k = 0; k < count; k++) {
        for (uint32_t i = 0; i < n; i++)
            if (!(b->bits[places[k][i] >> 3] >> (places[k][i] & 7) & 1))
                return false;
        if (n < b->probes && !bloom_may_contain(b, hashes[k]))
            return false;
    }
    return true;
}

bool sf__filter_may_contain_all(const sf_filter *f, const uint64_t *hashes, size_t count)
{
    for (uint32_t i = 0; i < f->count; i++)
        for (size_t from = 0; from < count; from += TOGETHER)
            if (!bloom_may_contain_all(&f->blooms[i], hashes + from, count - from < TOGETHER ? count - from : TOGETHER))
                return false;
    return true;
}
