#include "backend/slatedb/format/compressor.h"

#include <libdeflate.h>
#include <limits.h>
#include <lz4.h>
#include <snappy-c.h>
#include <zstd.h>

#include "base/checksum.h"
#include "base/limits.h"

/* SlateDB's levels. */
#define ZLIB_LEVEL 6
#define ZSTD_LEVEL 3
#define LZ4_SIZE_BYTES 4u

sf_status sf__compressor_init(sf_compressor *c, sf_codec codec, const sf_allocator *a, sf_error *err)
{
    *c = (sf_compressor){.codec = codec, .alloc = a};
    switch (codec) {
    case SF_CODEC_NONE:
    case SF_CODEC_SNAPPY:
    case SF_CODEC_LZ4:
        return SF_OK;
    case SF_CODEC_ZLIB:
        c->state = libdeflate_alloc_compressor(ZLIB_LEVEL);
        break;
    case SF_CODEC_ZSTD:
        c->state = ZSTD_createCCtx();
        break;
    default:
        return sf_fail(err, SF_INVALID, "unknown codec %d", (int)codec);
    }
    return c->state ? SF_OK : sf_fail(err, SF_NOMEM, "%s compressor", sf__codec_name(codec));
}

void sf__compressor_cleanup(sf_compressor *c)
{
    if (c->codec == SF_CODEC_ZLIB)
        libdeflate_free_compressor(c->state);
    else if (c->codec == SF_CODEC_ZSTD)
        ZSTD_freeCCtx(c->state);
    if (c->alloc)
        sf__free(c->alloc, c->buf);
    *c = (sf_compressor){0};
}

/* What the payload takes at most; 0 when the codec cannot take that much. */
static size_t payload_bound(const sf_compressor *c, size_t n)
{
    if (n > INT_MAX / 2) /* LZ4's limit, and enough for any block: SF_LIMIT_BLOCK_BYTES is below */
        return 0;
    switch (c->codec) {
    case SF_CODEC_SNAPPY:
        return snappy_max_compressed_length(n);
    case SF_CODEC_ZLIB:
        return libdeflate_zlib_compress_bound(c->state, n);
    case SF_CODEC_LZ4:
        return LZ4_SIZE_BYTES + (size_t)LZ4_compressBound((int)n);
    case SF_CODEC_ZSTD:
        return ZSTD_compressBound(n);
    default:
        return n + 1;
    }
}

/* What shrinks further than a reader of ours takes for rows (one byte repeated, and that for long) is stored as it is: a
 * frame of raw blocks, which every decoder reads, with a window of one block. Only Zstandard gets that far.
 *
 *   magic u32le | descriptor: size of 4 bytes follows | window: 128 KiB | plain size u32le | blocks
 *   block: u24le (last: 1 bit, raw: 2 bits 0, size) | bytes */
#define ZSTD_MAGIC 0xfd2fb528u
#define ZSTD_DESCRIPTOR 0x80
#define ZSTD_WINDOW (7 << 3)
#define ZSTD_RAW_BYTES ((size_t)128 << 10)

static bool shrinks_too_far(size_t plain, size_t stored)
{
    return plain > SF_LIMIT_INFLATE_FREE_BYTES && plain / SF_LIMIT_INFLATE_RATIO >= stored;
}

static size_t store_raw(uint8_t *out, sf_bytes plain)
{
    size_t n = 10;

    sf_store_le(out, 4, ZSTD_MAGIC);
    out[4] = ZSTD_DESCRIPTOR;
    out[5] = ZSTD_WINDOW;
    sf_store_le(out + 6, 4, plain.n);
    while (plain.n > 0) {
        size_t take = plain.n < ZSTD_RAW_BYTES ? plain.n : ZSTD_RAW_BYTES;

        sf_store_le(out + n, 3, take << 3 | (take == plain.n));
        memcpy(out + n + 3, plain.p, take);
        n += 3 + take;
        plain = sf_bytes_of(plain.p + take, plain.n - take);
    }
    return n;
}

/* Into c->buf; 0 when the codec fails. */
static size_t compress(sf_compressor *c, sf_bytes plain, size_t bound)
{
    size_t n = bound;

    switch (c->codec) {
    case SF_CODEC_NONE:
        memcpy(c->buf, plain.p, plain.n);
        return plain.n;
    case SF_CODEC_SNAPPY:
        return snappy_compress((const char *)plain.p, plain.n, (char *)c->buf, &n) == SNAPPY_OK ? n : 0;
    case SF_CODEC_ZLIB:
        return libdeflate_zlib_compress(c->state, plain.p, plain.n, c->buf, bound);
    case SF_CODEC_LZ4: {
        int packed = LZ4_compress_default((const char *)plain.p, (char *)c->buf + LZ4_SIZE_BYTES, (int)plain.n,
                                          (int)(bound - LZ4_SIZE_BYTES));

        sf_store_le(c->buf, LZ4_SIZE_BYTES, plain.n);
        return packed > 0 ? LZ4_SIZE_BYTES + (size_t)packed : 0;
    }
    case SF_CODEC_ZSTD:
        n = ZSTD_compressCCtx(c->state, c->buf, bound, plain.p, plain.n, ZSTD_LEVEL);
        if (ZSTD_isError(n))
            return 0;
        return shrinks_too_far(plain.n, n) ? store_raw(c->buf, plain) : n;
    }
    return 0;
}

sf_status sf__compressor_store(sf_compressor *c, sf_bytes plain, sf_bytes *stored, sf_error *err)
{
    size_t bound = payload_bound(c, plain.n), need = bound + SF_STORED_CRC_BYTES, n;

    if (plain.n == 0 || bound == 0)
        return sf_fail(err, SF_INVALID, "a block of %zu bytes cannot be stored", plain.n);
    if (need > c->cap) {
        uint8_t *p = sf__alloc(c->alloc, need);

        if (!p)
            return sf_fail(err, SF_NOMEM, "compressed block of %zu bytes", plain.n);
        sf__free(c->alloc, c->buf);
        c->buf = p;
        c->cap = need;
    }
    n = compress(c, plain, bound);
    if (n == 0)
        return sf_fail(err, SF_NOMEM, "%s cannot compress %zu bytes", sf__codec_name(c->codec), plain.n);
    sf_store_be(c->buf + n, SF_STORED_CRC_BYTES, sf__crc32(sf_bytes_of(c->buf, n)));
    *stored = sf_bytes_of(c->buf, n + SF_STORED_CRC_BYTES);
    return SF_OK;
}
