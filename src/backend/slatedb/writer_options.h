/* How a SlateDB database is laid out when it is written. */
#ifndef SF_BACKEND_SLATEDB_WRITER_OPTIONS_H
#define SF_BACKEND_SLATEDB_WRITER_OPTIONS_H

#include "backend/slatedb/format/compress.h"

typedef struct sf_slatedb_writer_options {
    sf_codec codec;
    uint32_t block_bytes;     /* 1024 .. 65536: when a data block is full, before compression */
    uint32_t bits_per_key;    /* of the filter, 1 .. 64 */
    uint32_t min_filter_keys; /* an SST with fewer rows gets no filter */
    uint64_t sst_bytes;       /* an SST is closed at this stored size; 64 KiB .. 1 GiB */
} sf_slatedb_writer_options;
#define SF_SLATEDB_WRITER_OPTIONS_INIT \
    {.codec = SF_CODEC_NONE, .block_bytes = 4096, .bits_per_key = 10, .min_filter_keys = 1, .sst_bytes = UINT64_C(64) << 20}

#endif
