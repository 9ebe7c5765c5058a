/* Stored blocks: `payload | u32be crc32(payload)`, payload = compressed plain bytes (docs/formats/slatedb.md 5.2).
 * Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_COMPRESS_H
#define SF_BACKEND_SLATEDB_FORMAT_COMPRESS_H

#include "base/buf.h"
#include "base/error.h"
#include "base/plain_room.h"

typedef enum sf_codec {
    SF_CODEC_NONE = 0,
    SF_CODEC_SNAPPY = 1,
    SF_CODEC_ZLIB = 2,
    SF_CODEC_LZ4 = 3,
    SF_CODEC_ZSTD = 4,
} sf_codec;

#define SF_STORED_CRC_BYTES 4u
/* Ends the message when bytes with the right checksum make no sense. */
#define SF_TRANSFORMER_HINT " (damaged by its writer, or written with a block transformer)"

/* "zstd" and so on; "?" for numbers without a codec. */
const char *sf__codec_name(sf_codec codec);

/* Into a new buffer, *out the caller's. SF_CORRUPT when the payload is malformed or its plain size is above max_plain
 * or above what its stored size can stand for (base/limits.h); SF_UNSUPPORTED for an unknown codec. SF_CODEC_NONE
 * copies. SF_WOULD_BLOCK when the plain bytes do not fit into `room` (NULL: no bound), at the cost of no more than that. */
sf_status sf__decompress(sf_plain_room *room, sf_bytes payload, sf_codec codec, size_t max_plain, const sf_allocator *a,
                         sf_buf **out, sf_error *err) SF_MUST_USE;

/* Checks the trailer; *payload lies in `stored`. */
sf_status sf__stored_block_check(sf_bytes stored, sf_bytes *payload, sf_error *err) SF_MUST_USE;

/* Check + decompress. *out is the caller's reference. `owner` may be NULL; else it is a buffer that nobody but the
 * caller holds and whose bytes are exactly `stored`: then SF_CODEC_NONE does not copy, but cuts the trailer off
 * owner->n and makes *out another reference on it. Otherwise `owner` is not touched. */
sf_status sf__stored_block_open(sf_plain_room *room, sf_bytes stored, sf_codec codec, size_t max_plain, sf_buf *owner,
                                const sf_allocator *a, sf_buf **out, sf_error *err) SF_MUST_USE;

/* The same for bytes that are decoded at once and not kept: with SF_CODEC_NONE *plain lies in `stored` and *out is
 * NULL, else *plain lies in *out, which the caller releases. */
sf_status sf__stored_block_view(sf_plain_room *room, sf_bytes stored, sf_codec codec, size_t max_plain,
                                const sf_allocator *a, sf_bytes *plain, sf_buf **out, sf_error *err) SF_MUST_USE;

#endif
