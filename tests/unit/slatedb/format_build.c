#include "format_build.h"

#include <libdeflate.h>
#include <lz4.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <zstd.h>

#include "base/checksum.h"

static void need(bool ok)
{
    if (!ok)
        abort();
}

static void out_room(struct out *o, size_t n)
{
    if (o->cap - o->n >= n)
        return;
    o->cap = (o->n + n) * 2;
    need((o->p = realloc(o->p, o->cap)) != NULL);
}

void out_free(struct out *o)
{
    free(o->p);
    *o = (struct out){0};
}

void out_put(struct out *o, const void *p, size_t n)
{
    out_room(o, n + 1);
    if (n > 0)
        memcpy(o->p + o->n, p, n);
    o->n += n;
}

void out_be(struct out *o, size_t n, uint64_t v)
{
    uint8_t raw[8];

    sf_store_be(raw, n, v);
    out_put(o, raw, n);
}

void out_le(struct out *o, size_t n, uint64_t v)
{
    uint8_t raw[8];

    sf_store_le(raw, n, v);
    out_put(o, raw, n);
}

void out_varint(struct out *o, uint32_t v)
{
    for (; v >= 0x80; v >>= 7)
        out_be(o, 1, (v & 0x7f) | 0x80);
    out_be(o, 1, v);
}

uint64_t rng_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t shared_len(const struct test_row *a, const struct test_row *b)
{
    size_t n = 0;

    while (n < a->key_len && n < b->key_len && a->key[n] == b->key[n])
        n++;
    return n;
}

static void put_tail(struct out *o, const struct test_row *r)
{
    out_be(o, 8, r->seq);
    out_be(o, 1, r->flags);
    if (r->flags & SF_ROW_HAS_EXPIRE)
        out_be(o, 8, (uint64_t)r->expire_ts);
    if (r->flags & SF_ROW_HAS_CREATE)
        out_be(o, 8, (uint64_t)r->create_ts);
}

static void put_row(struct out *o, const struct test_row *r, size_t shared, unsigned version)
{
    if (version == 1) {
        out_be(o, 2, shared);
        out_be(o, 2, r->key_len - shared);
        out_put(o, r->key + shared, r->key_len - shared);
        put_tail(o, r);
        if (!(r->flags & SF_ROW_TOMBSTONE)) {
            out_be(o, 4, r->value_len);
            out_put(o, r->value, r->value_len);
        }
        return;
    }
    out_varint(o, (uint32_t)shared);
    out_varint(o, (uint32_t)(r->key_len - shared));
    out_varint(o, (uint32_t)r->value_len);
    out_put(o, r->key + shared, r->key_len - shared);
    out_put(o, r->value, r->value_len);
    put_tail(o, r);
}

void build_block(struct out *o, const struct test_row *rows, size_t count, unsigned version, size_t interval)
{
    struct out offsets = {0};
    size_t n = 0, start = o->n;

    for (size_t i = 0; i < count; i++) {
        size_t shared = 0;

        if (version == 1 || i % interval == 0) {
            out_be(&offsets, 2, o->n - start);
            n++;
        }
        if (version == 1 && i > 0)
            shared = shared_len(&rows[0], &rows[i]);
        else if (version == 2 && i % interval != 0)
            shared = shared_len(&rows[i - 1], &rows[i]);
        put_row(o, &rows[i], shared, version);
    }
    out_put(o, offsets.p, offsets.n);
    out_be(o, 2, n);
    out_free(&offsets);
}

void build_compressed(struct out *o, sf_bytes plain, sf_codec codec)
{
    struct libdeflate_compressor *z;
    size_t n = plain.n * 2 + 1024;

    out_room(o, n);
    switch (codec) {
    case SF_CODEC_NONE:
        out_put(o, plain.p, plain.n);
        return;
    case SF_CODEC_SNAPPY:
        need(snappy_compress((const char *)plain.p, plain.n, (char *)o->p + o->n, &n) == SNAPPY_OK);
        break;
    case SF_CODEC_ZLIB:
        need((z = libdeflate_alloc_compressor(6)) != NULL);
        need((n = libdeflate_zlib_compress(z, plain.p, plain.n, o->p + o->n, n)) > 0);
        libdeflate_free_compressor(z);
        break;
    case SF_CODEC_LZ4:
        out_le(o, 4, plain.n);
        n = (size_t)LZ4_compress_default((const char *)plain.p, (char *)o->p + o->n, (int)plain.n, (int)n - 4);
        need(n > 0);
        break;
    case SF_CODEC_ZSTD:
        n = ZSTD_compress(o->p + o->n, n, plain.p, plain.n, 3);
        need(!ZSTD_isError(n));
        break;
    }
    o->n += n;
}

void build_stored(struct out *o, sf_bytes plain, sf_codec codec)
{
    size_t start = o->n;

    build_compressed(o, plain, codec);
    out_be(o, 4, sf__crc32((sf_bytes){o->p + start, o->n - start}));
}

void build_bloom(struct out *o, const sf_bytes *keys, size_t count, unsigned bits_per_key)
{
    size_t bytes = (count * bits_per_key + 7) / 8, start;
    unsigned probes = (unsigned)((float)bits_per_key * 0.69f);
    uint64_t m = (uint64_t)bytes * 8;

    out_be(o, 2, probes);
    start = o->n;
    for (size_t i = 0; i < bytes; i++)
        out_be(o, 1, 0);
    for (size_t k = 0; k < count; k++) {
        uint64_t hash = sf__siphash13(keys[k]);
        uint64_t h = (hash & UINT32_MAX) % m, d = (hash >> 32) % m;

        for (unsigned i = 0; i < probes; i++) {
            d = (d + i) % m;
            o->p[start + h / 8] |= (uint8_t)(1u << h % 8);
            h = (h + d) % m;
        }
    }
}

void build_filter_entry(struct out *o, const char *name, sf_bytes payload)
{
    out_be(o, 2, strlen(name));
    out_put(o, name, strlen(name));
    out_be(o, 8, payload.n);
    out_put(o, payload.p, payload.n);
}

static void pad_to(struct out *o, size_t align, size_t rest)
{
    while (o->n % align != rest)
        out_be(o, 1, 0);
}

static void point_here(struct out *o, size_t ref)
{
    sf_store_le(o->p + ref, 4, o->n - ref);
}

size_t fb_table(struct out *o, size_t ref, const uint8_t *sizes, size_t count)
{
    size_t vtable, pos, inline_len = 4;

    if (o->n == 0)
        out_le(o, 4, 0);
    pad_to(o, 2, 0);
    vtable = o->n;
    out_le(o, 2, 4 + 2 * count);
    out_le(o, 2, 0);
    for (size_t i = 0; i < count; i++)
        out_le(o, 2, 0);
    for (size_t size = 8; size > 0; size /= 2) {
        for (size_t i = 0; i < count; i++) {
            if (sizes[i] != size)
                continue;
            sf_store_le(o->p + vtable + 4 + 2 * i, 2, inline_len);
            inline_len += size;
        }
    }
    sf_store_le(o->p + vtable + 2, 2, inline_len);
    pad_to(o, 8, 4);
    pos = o->n;
    point_here(o, ref);
    out_le(o, 4, pos - vtable);
    while (o->n < pos + inline_len)
        out_be(o, 1, 0);
    return pos;
}

static size_t vtable_of(const struct out *o, size_t table)
{
    return table - (size_t)sf_load_le(o->p + table, 4);
}

size_t fb_field(const struct out *o, size_t table, unsigned id)
{
    size_t off = (size_t)sf_load_le(o->p + vtable_of(o, table) + 4 + 2 * (size_t)id, 2);

    return off == 0 ? 0 : table + off;
}

void fb_set(struct out *o, size_t table, unsigned id, uint64_t v)
{
    size_t at = fb_field(o, table, id), vtable = vtable_of(o, table);
    size_t count = ((size_t)sf_load_le(o->p + vtable, 2) - 4) / 2;
    size_t end = table + (size_t)sf_load_le(o->p + vtable + 2, 2);

    need(at != 0);
    for (unsigned i = 0; i < count; i++) { /* the field ends where the next begins */
        size_t other = fb_field(o, table, i);

        if (other > at && other < end)
            end = other;
    }
    sf_store_le(o->p + at, end - at, v);
}

void fb_bytes(struct out *o, size_t table, unsigned id, sf_bytes v)
{
    size_t at = fb_field(o, table, id);

    need(at != 0);
    pad_to(o, 4, 0);
    point_here(o, at);
    out_le(o, 4, v.n);
    out_put(o, v.p, v.n);
    out_be(o, 1, 0);
}

size_t fb_vector(struct out *o, size_t table, unsigned id, size_t count)
{
    size_t at = fb_field(o, table, id);

    need(at != 0);
    pad_to(o, 4, 0);
    point_here(o, at);
    out_le(o, 4, count);
    for (size_t i = 0; i < count; i++)
        out_le(o, 4, 0);
    return o->n - 4 * count;
}
