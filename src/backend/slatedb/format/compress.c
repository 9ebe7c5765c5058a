#include "backend/slatedb/format/compress.h"

#include <libdeflate.h>
#include <limits.h>
#include <lz4.h>
#include <snappy-c.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/checksum.h"
#include "base/container.h"
#include "base/limits.h"

/* First guess where the plain size is not known: blocks of 4 to 8 KiB, or a payload that shrank to a quarter. */
#define GUESS_MIN_BYTES 8192u
#define GUESS_RATIO 4u
/* Below this a wrong claim costs nothing. */
#define SMALL_BYTES (64u << 10)

/* One attempt to decompress into `cap` bytes. */
typedef enum attempt_result { ATTEMPT_OK, ATTEMPT_TOO_SMALL, ATTEMPT_BAD, ATTEMPT_NOMEM } attempt_result;
typedef attempt_result (*attempt_fn)(void *ctx, sf_bytes payload, uint8_t *dst, size_t cap, size_t *n);

const char *sf__codec_name(sf_codec codec)
{
    static const char *const names[] = {"none", "snappy", "zlib", "lz4", "zstd"};

    return (unsigned)codec < sizeof(names) / sizeof(names[0]) ? names[codec] : "?";
}

/* How many plain bytes one stored byte can stand for. Snappy: a copy of 64 bytes takes 3. Deflate: 258 bytes take 2 bits.
 * LZ4: a length grows by 255 a byte. Zstandard: a run-length block of 128 KiB takes 4 bytes. */
static size_t max_ratio(sf_codec codec)
{
    switch (codec) {
    case SF_CODEC_SNAPPY:
        return 32;
    case SF_CODEC_ZLIB:
        return 1040;
    case SF_CODEC_LZ4:
        return 256;
    default:
        return 32768;
    }
}

static size_t times(size_t n, size_t ratio)
{
    return n > SIZE_MAX / ratio ? SIZE_MAX : n * ratio;
}

/* What claims more than its codec can do lies; what claims more than rows do, and is large, is a trap. */
static size_t plain_limit(size_t stored, sf_codec codec, size_t max_plain)
{
    size_t limit = times(stored, max_ratio(codec));
    size_t trusted = times(stored, SF_LIMIT_INFLATE_RATIO);

    if (trusted < SF_LIMIT_INFLATE_FREE_BYTES)
        trusted = SF_LIMIT_INFLATE_FREE_BYTES;
    if (limit > trusted)
        limit = trusted;
    if (limit < SMALL_BYTES)
        limit = SMALL_BYTES;
    return limit < max_plain ? limit : max_plain;
}

static sf_status no_room(sf_plain_room *room, sf_codec codec, sf_bytes payload, uint64_t plain, sf_error *err)
{
    room->wanted = plain;
    return sf_fail(err, SF_WOULD_BLOCK, "%zu bytes of %s unpack to more than the %llu that were set aside", payload.n,
                   sf__codec_name(codec), (unsigned long long)room->left);
}

static sf_status bad_payload(sf_codec codec, sf_bytes payload, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "%zu bytes cannot be decompressed with %s" SF_TRANSFORMER_HINT, payload.n,
                   sf__codec_name(codec));
}

static sf_status too_large(sf_codec codec, sf_bytes payload, unsigned long long plain, size_t limit, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "%zu bytes of %s stand for %llu bytes, above the limit of %zu" SF_TRANSFORMER_HINT,
                   payload.n, sf__codec_name(codec), plain, limit);
}

static sf_status no_memory(size_t n, sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "plain block of %zu bytes", n);
}

/* Codecs that store the plain size: allocate exactly, and the result must be exactly that. */
static sf_status open_sized(sf_plain_room *room, sf_bytes payload, sf_codec codec, uint64_t plain, size_t limit,
                            const sf_allocator *a, sf_buf **out, sf_error *err)
{
    sf_buf *b;
    bool ok;

    if (plain > limit || plain > INT_MAX || payload.n > INT_MAX)
        return too_large(codec, payload, plain, limit, err);
    if (room && plain > room->left)
        return no_room(room, codec, payload, plain, err);
    b = sf__buf_new(a, (size_t)plain);
    if (!b)
        return no_memory((size_t)plain, err);
    if (codec == SF_CODEC_SNAPPY) {
        size_t n = (size_t)plain;

        ok = snappy_uncompress((const char *)payload.p, payload.n, (char *)b->data, &n) == SNAPPY_OK && n == plain;
    } else {
        ok = LZ4_decompress_safe((const char *)payload.p, (char *)b->data, (int)payload.n, (int)plain) == (int)plain;
    }
    if (!ok) {
        sf__buf_release(b);
        return bad_payload(codec, payload, err);
    }
    *out = b;
    return SF_OK;
}

/* Gives back what a guess was too large by; the block may be kept for long. */
static sf_buf *trim(sf_buf *b, size_t n)
{
    sf_buf *smaller = NULL;

    b->n = n;
    if (b->cap - n > n / 8)
        smaller = sf__realloc(b->alloc, b, sizeof(*b) + n);
    if (smaller)
        smaller->cap = n;
    return smaller ? smaller : b;
}

static size_t first_guess(sf_bytes payload, size_t limit)
{
    size_t cap = payload.n > limit / GUESS_RATIO ? limit : payload.n * GUESS_RATIO;

    if (cap < GUESS_MIN_BYTES)
        cap = GUESS_MIN_BYTES < limit ? GUESS_MIN_BYTES : limit;
    return cap;
}

/* From `cap` on up to `limit`. */
static sf_status open_growing(sf_plain_room *room, sf_bytes payload, sf_codec codec, attempt_fn fn, void *ctx,
                              size_t cap, size_t limit, const sf_allocator *a, sf_buf **out, sf_error *err)
{
    size_t most = room && room->left < limit ? (size_t)room->left : limit;

    if (cap > most)
        cap = most;
    for (;;) {
        sf_buf *b = sf__buf_new(a, cap);
        size_t n = 0;
        attempt_result got;

        if (!b)
            return no_memory(cap, err);
        got = fn(ctx, payload, b->data, cap, &n);
        if (got == ATTEMPT_OK) {
            *out = trim(b, n);
            return SF_OK;
        }
        sf__buf_release(b);
        if (got == ATTEMPT_NOMEM)
            return no_memory(cap, err);
        if (got == ATTEMPT_BAD)
            return bad_payload(codec, payload, err);
        if (cap == limit)
            return too_large(codec, payload, (unsigned long long)limit + 1, limit, err);
        if (cap == most)
            return no_room(room, codec, payload, 0, err);
        cap = cap > most / GUESS_RATIO ? most : cap * GUESS_RATIO;
    }
}

static attempt_result zlib_attempt(void *ctx, sf_bytes payload, uint8_t *dst, size_t cap, size_t *n)
{
    size_t used = 0;

    switch (libdeflate_zlib_decompress_ex(ctx, payload.p, payload.n, dst, cap, &used, n)) {
    case LIBDEFLATE_SUCCESS:
        return used == payload.n ? ATTEMPT_OK : ATTEMPT_BAD;
    case LIBDEFLATE_INSUFFICIENT_SPACE:
        return ATTEMPT_TOO_SMALL;
    default:
        return ATTEMPT_BAD;
    }
}

static attempt_result zstd_attempt(void *ctx, sf_bytes payload, uint8_t *dst, size_t cap, size_t *n)
{
    size_t got = ZSTD_decompressDCtx(ctx, dst, cap, payload.p, payload.n); /* takes several frames */

    if (!ZSTD_isError(got)) {
        *n = got;
        return ATTEMPT_OK;
    }
    switch (ZSTD_getErrorCode(got)) {
    case ZSTD_error_dstSize_tooSmall:
        return ATTEMPT_TOO_SMALL;
    case ZSTD_error_memory_allocation:
        return ATTEMPT_NOMEM;
    default:
        return ATTEMPT_BAD;
    }
}

struct unpacker {
    sf_unpacker base; /* first */
    const sf_allocator *alloc;
    void *state; /* libdeflate's or Zstandard's; their memory is the C library's */
};

static void unpacker_free(sf_unpacker *base)
{
    struct unpacker *u = sf_container_of(base, struct unpacker, base);

    if (base->codec == SF_CODEC_ZLIB)
        libdeflate_free_decompressor(u->state);
    else
        ZSTD_freeDCtx(u->state);
    sf__free(u->alloc, u);
}

/* A spare one of the room's, or a new one. NULL without memory. */
static struct unpacker *unpacker_take(sf_plain_room *room, sf_codec codec, const sf_allocator *a)
{
    sf_unpacker *spare = sf__unpacker_take(room ? room->unpackers : NULL, codec);
    struct unpacker *u;

    if (spare)
        return sf_container_of(spare, struct unpacker, base);
    u = sf__alloc(a, sizeof(*u));
    if (!u)
        return NULL;
    *u = (struct unpacker){.base = {codec, unpacker_free},
                           .alloc = a,
                           .state = codec == SF_CODEC_ZLIB ? (void *)libdeflate_alloc_decompressor()
                                                           : (void *)ZSTD_createDCtx()};
    if (!u->state) {
        sf__free(a, u);
        return NULL;
    }
    return u;
}

/* open_growing() with one of them. */
static sf_status open_with_unpacker(sf_plain_room *room, sf_bytes payload, sf_codec codec, attempt_fn fn, size_t cap,
                                    size_t limit, const sf_allocator *a, sf_buf **out, sf_error *err)
{
    struct unpacker *u = unpacker_take(room, codec, a);
    sf_status rc;

    if (!u)
        return sf_fail(err, SF_NOMEM, "%s decompressor", sf__codec_name(codec));
    rc = open_growing(room, payload, codec, fn, u->state, cap, limit, a, out, err);
    sf__unpacker_leave(room ? room->unpackers : NULL, &u->base);
    return rc;
}

static sf_status open_zlib(sf_plain_room *room, sf_bytes payload, size_t limit, const sf_allocator *a, sf_buf **out,
                           sf_error *err)
{
    return open_with_unpacker(room, payload, SF_CODEC_ZLIB, zlib_attempt, first_guess(payload, limit), limit, a, out,
                              err);
}

/* The sum of what the frames say, or ZSTD_CONTENTSIZE_UNKNOWN when one does not. */
static sf_status zstd_plain_size(sf_bytes payload, size_t limit, unsigned long long *size, sf_error *err)
{
    unsigned long long sum = 0;
    sf_bytes frame, rest = payload;

    if (payload.n == 0) /* no frame at all: not what a compressor writes, not even for nothing */
        return bad_payload(SF_CODEC_ZSTD, payload, err);
    while (rest.n > 0) {
        unsigned long long known = ZSTD_getFrameContentSize(rest.p, rest.n);
        size_t n = ZSTD_findFrameCompressedSize(rest.p, rest.n);

        if (known == ZSTD_CONTENTSIZE_ERROR || ZSTD_isError(n) || !sf_cursor_take(&rest, n, &frame))
            return bad_payload(SF_CODEC_ZSTD, payload, err);
        if (known == ZSTD_CONTENTSIZE_UNKNOWN || sum == ZSTD_CONTENTSIZE_UNKNOWN)
            sum = ZSTD_CONTENTSIZE_UNKNOWN;
        else if (known > limit || sum > limit - known)
            return too_large(SF_CODEC_ZSTD, payload, known, limit, err);
        else
            sum += known;
    }
    *size = sum;
    return SF_OK;
}

static sf_status open_zstd(sf_plain_room *room, sf_bytes payload, size_t limit, const sf_allocator *a, sf_buf **out,
                           sf_error *err)
{
    unsigned long long known;
    size_t cap;
    sf_status rc = zstd_plain_size(payload, limit, &known, err);

    if (rc != SF_OK)
        return rc;
    if (known == ZSTD_CONTENTSIZE_UNKNOWN)
        cap = first_guess(payload, limit);
    else if (room && known > room->left)
        return no_room(room, SF_CODEC_ZSTD, payload, known, err);
    else
        cap = limit = (size_t)known;
    return open_with_unpacker(room, payload, SF_CODEC_ZSTD, zstd_attempt, cap, limit, a, out, err);
}

static sf_status decompress(sf_plain_room *room, sf_bytes payload, sf_codec codec, size_t max_plain,
                            const sf_allocator *a, sf_buf **out, sf_error *err)
{
    size_t limit = plain_limit(payload.n, codec, max_plain);
    uint32_t size;
    size_t n;
    sf_cursor c;

    switch (codec) {
    case SF_CODEC_SNAPPY:
        if (payload.n == 0 || snappy_uncompressed_length((const char *)payload.p, payload.n, &n) != SNAPPY_OK)
            return bad_payload(codec, payload, err);
        return open_sized(room, payload, codec, n, limit, a, out, err);
    case SF_CODEC_ZLIB:
        return payload.n == 0 ? bad_payload(codec, payload, err) : open_zlib(room, payload, limit, a, out, err);
    case SF_CODEC_LZ4:
        c = payload;
        if (!sf_cursor_u32le(&c, &size) || c.n == 0)
            return bad_payload(codec, payload, err);
        return open_sized(room, c, codec, size, limit, a, out, err);
    case SF_CODEC_ZSTD:
        return open_zstd(room, payload, limit, a, out, err);
    default:
        return sf_fail(err, SF_UNSUPPORTED, "compression format %d", (int)codec);
    }
}

sf_status sf__decompress(sf_plain_room *room, sf_bytes payload, sf_codec codec, size_t max_plain, const sf_allocator *a,
                         sf_buf **out, sf_error *err)
{
    sf_status rc;

    if (codec == SF_CODEC_NONE) {
        if (payload.n > max_plain)
            return too_large(codec, payload, payload.n, max_plain, err);
        *out = sf__buf_copy(a, payload);
        return *out ? SF_OK : no_memory(payload.n, err);
    }
    rc = decompress(room, payload, codec, max_plain, a, out, err);
    if (rc == SF_OK && room)
        room->left -= (*out)->n;
    return rc;
}

sf_status sf__stored_block_check(sf_bytes stored, sf_bytes *payload, sf_error *err)
{
    sf_cursor c = stored;
    sf_bytes body;
    uint32_t expected, found;

    if (stored.n < SF_STORED_CRC_BYTES || !sf_cursor_take(&c, stored.n - SF_STORED_CRC_BYTES, &body) ||
        !sf_cursor_u32be(&c, &expected))
        return sf_fail(err, SF_CORRUPT, "%zu bytes cannot hold a checksum", stored.n);
    found = sf__crc32(body);
    if (found != expected)
        return sf_fail(err, SF_CORRUPT, "checksum mismatch in %zu bytes: stored %08x, computed %08x", stored.n,
                       expected, found);
    *payload = body;
    return SF_OK;
}

sf_status sf__stored_block_open(sf_plain_room *room, sf_bytes stored, sf_codec codec, size_t max_plain, sf_buf *owner,
                                const sf_allocator *a, sf_buf **out, sf_error *err)
{
    sf_bytes payload;
    sf_status rc = sf__stored_block_check(stored, &payload, err);

    if (rc != SF_OK)
        return rc;
    if (codec == SF_CODEC_NONE && owner && payload.n <= max_plain) {
        owner->n = payload.n;
        *out = sf__buf_acquire(owner);
        return SF_OK;
    }
    return sf__decompress(room, payload, codec, max_plain, a, out, err);
}

sf_status sf__stored_block_view(sf_plain_room *room, sf_bytes stored, sf_codec codec, size_t max_plain,
                                const sf_allocator *a, sf_bytes *plain, sf_buf **out, sf_error *err)
{
    sf_bytes payload;
    sf_buf *b = NULL;
    sf_status rc = sf__stored_block_check(stored, &payload, err);

    if (rc != SF_OK)
        return rc;
    if (codec != SF_CODEC_NONE || payload.n > max_plain) {
        rc = sf__decompress(room, payload, codec, max_plain, a, &b, err);
        if (rc != SF_OK)
            return rc;
        payload = sf__buf_bytes(b);
    }
    *plain = payload;
    *out = b;
    return SF_OK;
}
