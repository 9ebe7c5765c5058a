/* Builds data blocks of version 2 (layout: block.h) as SlateDB does, byte for byte: a restart every 16 rows.
 * One thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_WRITE_H

#include "backend/slatedb/format/block.h"

#define SF_BLOCK_RESTART_INTERVAL 16u
#define SF_BLOCK_BYTES_MIN 1024u
#define SF_BLOCK_BYTES_MAX 65536u /* restarts are 16 bit offsets */

typedef struct sf_block_writer {
    const sf_allocator *alloc;
    size_t block_bytes;
    uint8_t *buf; /* rows */
    size_t n, cap;
    uint8_t *last_key;
    size_t last_len, last_cap;
    uint32_t rows;
    /* 16 rows of at least 12 bytes lie from one restart to the next */
    uint16_t restarts[SF_BLOCK_BYTES_MAX / (SF_BLOCK_RESTART_INTERVAL * 12) + 2];
    uint32_t restart_count;
} sf_block_writer;

void sf__block_writer_init(sf_block_writer *w, size_t block_bytes, const sf_allocator *a); /* within the limits above */
void sf__block_writer_cleanup(sf_block_writer *w);                                         /* takes a zeroed one */

/* Keys ascending (versions of one key by descending seq), not empty; key and value below 4 GiB. *full: the row does not
 * fit, the block is as it was; a block without rows takes any. SF_NOMEM. */
sf_status sf__block_writer_add(sf_block_writer *w, const sf_block_row *row, bool *full, sf_error *err) SF_MUST_USE;

static inline uint32_t sf__block_writer_rows(const sf_block_writer *w)
{
    return w->rows;
}

/* Of the row added last; holds until the next call. */
static inline sf_bytes sf__block_writer_last_key(const sf_block_writer *w)
{
    return (sf_bytes){w->last_key, w->last_len};
}

/* The whole block, which has rows. *plain holds until the next call, with which a new block begins. The last key stays
 * known until a row is added. */
sf_status sf__block_writer_finish(sf_block_writer *w, sf_bytes *plain, sf_error *err) SF_MUST_USE;

#endif
