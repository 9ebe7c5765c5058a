/* The other direction of compress.h: plain blocks become stored ones. Every block is compressed, also when it grows:
 * SlateDB knows no escape. One thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_COMPRESSOR_H
#define SF_BACKEND_SLATEDB_FORMAT_COMPRESSOR_H

#include "backend/slatedb/format/compress.h"

typedef struct sf_compressor {
    sf_codec codec;
    const sf_allocator *alloc;
    void *state;  /* of zlib and zstd: made once, since it takes longer than a small block */
    uint8_t *buf; /* the stored block */
    size_t cap;
} sf_compressor;

/* SF_INVALID for an unknown codec, SF_NOMEM. */
sf_status sf__compressor_init(sf_compressor *c, sf_codec codec, const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__compressor_cleanup(sf_compressor *c); /* takes a zeroed one */
/* payload | crc32. *stored holds until the next call. */
sf_status sf__compressor_store(sf_compressor *c, sf_bytes plain, sf_bytes *stored, sf_error *err) SF_MUST_USE;

#endif
