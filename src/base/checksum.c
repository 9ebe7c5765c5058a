#include "base/checksum.h"

#include <libdeflate.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint32_t sf__crc32(sf_bytes b)
{
    return libdeflate_crc32(0, b.n > 0 ? b.p : (const uint8_t *)"", b.n);
}

uint64_t sf__xxh3_64(sf_bytes b)
{
    return XXH3_64bits(b.p, b.n);
}

uint64_t sf__xxh3_64_seeded(sf_bytes b, uint64_t seed)
{
    return XXH3_64bits_withSeed(b.p, b.n, seed);
}

sf_hash128 sf__xxh3_128(sf_bytes b)
{
    XXH128_hash_t h = XXH3_128bits(b.p, b.n);

    return (sf_hash128){h.high64, h.low64};
}

/* A call of the hash takes longer than copying a few bytes, so small pieces are put together first. */
#define HASHER_BUFFER_BYTES 4096u
#define HASHER_SMALL_BYTES 512u

struct hasher_state {
    XXH3_state_t hash; /* wants 64 byte alignment, allocators promise 16 */
    size_t held;
    uint8_t buffer[HASHER_BUFFER_BYTES];
};

static struct hasher_state *hasher_state(const sf_hasher *h)
{
    return (struct hasher_state *)(((uintptr_t)h->memory + 63) & ~(uintptr_t)63);
}

bool sf__hasher_init(sf_hasher *h, const sf_allocator *a)
{
    struct hasher_state *s;

    h->alloc = a;
    h->memory = sf__alloc(a, sizeof(*s) + 63);
    if (!h->memory)
        return false;
    s = hasher_state(h);
    XXH3_INITSTATE(&s->hash);
    XXH3_128bits_reset(&s->hash);
    s->held = 0;
    return true;
}

void sf__hasher_add(sf_hasher *h, sf_bytes b)
{
    struct hasher_state *s = hasher_state(h);

    if (b.n > HASHER_BUFFER_BYTES - s->held || b.n > HASHER_SMALL_BYTES) {
        XXH3_128bits_update(&s->hash, s->buffer, s->held);
        s->held = 0;
    }
    if (b.n > HASHER_SMALL_BYTES) {
        XXH3_128bits_update(&s->hash, b.p, b.n);
    } else if (b.n > 0) {
        memcpy(s->buffer + s->held, b.p, b.n);
        s->held += b.n;
    }
}

sf_hash128 sf__hasher_value(const sf_hasher *h)
{
    const struct hasher_state *s = hasher_state(h);
    XXH3_state_t whole = s->hash; /* more may come */
    XXH128_hash_t v;

    XXH3_128bits_update(&whole, s->buffer, s->held);
    v = XXH3_128bits_digest(&whole);
    return (sf_hash128){v.high64, v.low64};
}

void sf__hasher_cleanup(sf_hasher *h)
{
    if (h->alloc)
        sf__free(h->alloc, h->memory);
    *h = (sf_hasher){0};
}

static inline uint64_t rotl(uint64_t x, int r)
{
    return x << r | x >> (64 - r);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t sf__siphash13(sf_bytes b)
{
    uint64_t v[4] = {0x736f6d6570736575u, 0x646f72616e646f6du, 0x6c7967656e657261u, 0x7465646279746573u};
    size_t whole = b.n & ~(size_t)7;
    uint64_t m;

    for (size_t i = 0; i < whole; i += 8) {
        m = sf_load_le(b.p + i, 8);
        v[3] ^= m;
        sip_round(v);
        v[0] ^= m;
    }
    m = (uint64_t)(b.n & 0xff) << 56;
    if (b.n > whole)
        m |= sf_load_le(b.p + whole, b.n - whole);
    v[3] ^= m;
    sip_round(v);
    v[0] ^= m;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
