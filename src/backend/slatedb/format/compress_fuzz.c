/* Input: u8 codec and mode | bytes. Mode 0: the bytes are a payload; whatever it stands for obeys the limits and does not
 * depend on the way it is opened. Mode 1: the bytes are plain; compressed by the codec's own library they come back. */
#include <libdeflate.h>
#include <lz4.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <zstd.h>

#include "backend/slatedb/format/compress.h"
#include "base/checksum.h"
#include "base/limits.h"

#define PLAIN_MAX (4u << 20)

static const sf_allocator *const heap = &sf__allocator_default;

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* payload | crc32 */
static sf_buf *stored(sf_bytes payload)
{
    sf_buf *b = sf__buf_new(heap, payload.n + SF_STORED_CRC_BYTES);

    must(b != NULL);
    if (payload.n > 0)
        memcpy(b->data, payload.p, payload.n);
    sf_store_be(b->data + payload.n, 4, sf__crc32(payload));
    return b;
}

static void check_payload(sf_bytes payload, sf_codec codec)
{
    sf_buf *direct = NULL, *opened = NULL, *viewed = NULL, *less = NULL, *block = stored(payload);
    sf_bytes view;
    sf_status rc = sf__decompress(NULL, payload, codec, PLAIN_MAX, heap, &direct, NULL);

    must(sf__stored_block_view(NULL, sf__buf_bytes(block), codec, PLAIN_MAX, heap, &view, &viewed, NULL) == rc);
    if (rc == SF_OK) {
        must(direct->n <= PLAIN_MAX && sf_bytes_eq(view, sf__buf_bytes(direct)));
        must(direct->n <= SF_LIMIT_INFLATE_FREE_BYTES || direct->n / SF_LIMIT_INFLATE_RATIO <= payload.n);
        if (direct->n > 0)
            must(sf__decompress(NULL, payload, codec, direct->n - 1, heap, &less, NULL) == SF_CORRUPT);
        must(sf__decompress(NULL, payload, codec, direct->n, heap, &less, NULL) == SF_OK);
        must(sf_bytes_eq(sf__buf_bytes(less), sf__buf_bytes(direct)));
        sf__buf_release(less);
    }
    must(sf__stored_block_open(NULL, sf__buf_bytes(block), codec, PLAIN_MAX, block, heap, &opened, NULL) == rc);
    if (rc == SF_OK)
        must(sf_bytes_eq(sf__buf_bytes(opened), sf__buf_bytes(direct)));
    sf__buf_release(viewed);
    sf__buf_release(opened);
    sf__buf_release(direct);
    sf__buf_release(block);
}

static size_t compress_into(uint8_t *dst, size_t cap, sf_bytes plain, sf_codec codec)
{
    struct libdeflate_compressor *z;
    size_t n = cap;

    switch (codec) {
    case SF_CODEC_SNAPPY:
        must(snappy_compress((const char *)plain.p, plain.n, (char *)dst, &n) == SNAPPY_OK);
        return n;
    case SF_CODEC_ZLIB:
        must((z = libdeflate_alloc_compressor(6)) != NULL);
        n = libdeflate_zlib_compress(z, plain.p, plain.n, dst, cap);
        libdeflate_free_compressor(z);
        return n;
    case SF_CODEC_LZ4:
        sf_store_le(dst, 4, plain.n);
        return 4 + (size_t)LZ4_compress_default((const char *)plain.p, (char *)dst + 4, (int)plain.n, (int)cap - 4);
    case SF_CODEC_ZSTD:
        return ZSTD_compress(dst, cap, plain.p, plain.n, 1);
    default:
        memcpy(dst, plain.p, plain.n);
        return plain.n;
    }
}

static void check_plain(sf_bytes plain, sf_codec codec)
{
    size_t cap = plain.n * 2 + 1024;
    uint8_t *payload = malloc(cap);
    sf_buf *got;

    must(payload != NULL);
    must(sf__decompress(NULL, (sf_bytes){payload, compress_into(payload, cap, plain, codec)}, codec, plain.n, heap,
                        &got, NULL) == SF_OK);
    must(sf_bytes_eq(sf__buf_bytes(got), plain));
    sf__buf_release(got);
    free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t head;

    if (!sf_cursor_u8(&in, &head))
        return 0;
    if (head & 0x80 && (head & 0x7f) <= SF_CODEC_ZSTD && in.n > 0)
        check_plain(in, (sf_codec)(head & 0x7f));
    else
        check_payload(in, (sf_codec)(head & 0x7f));
    return 0;
}
