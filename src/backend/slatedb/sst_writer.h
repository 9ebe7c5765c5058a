/* Rows in key order become one SST (layout: format/sst_info.h), which leaves through `write` front to back while it
 * grows: what stays in memory is the block that fills, the index and 8 bytes a row for the filter. One thread. */
#ifndef SF_BACKEND_SLATEDB_SST_WRITER_H
#define SF_BACKEND_SLATEDB_SST_WRITER_H

#include "backend/slatedb/format/block_write.h"
#include "backend/slatedb/format/compressor.h"
#include "backend/slatedb/format/filter_write.h"
#include "backend/slatedb/format/index_write.h"
#include "backend/slatedb/format/sst_info.h"
#include "backend/slatedb/writer_options.h"

typedef struct sf_sst_writer {
    /* set at init */
    const sf_allocator *alloc;
    sf_slatedb_writer_options opts;
    sf_status (*write)(void *ctx, sf_bytes bytes, sf_error *err);
    void *ctx;
    sf_block_writer block;
    sf_compressor compressor;
    sf_index_writer index;
    sf_filter_writer filter;
    /* of the SST that is being written */
    uint64_t off;
    sf_sst_stats stats;
    uint8_t *bound; /* last key of the block before the one that fills */
    size_t bound_len, bound_cap;
    sf_buf *first_key;
} sf_sst_writer;

/* `opts` within their limits. On failure it needs no clean-up. */
sf_status sf__sst_writer_init(sf_sst_writer *w, const sf_slatedb_writer_options *opts,
                              sf_status (*write)(void *ctx, sf_bytes bytes, sf_error *err), void *ctx,
                              const sf_allocator *a, sf_error *err) SF_MUST_USE;
void sf__sst_writer_cleanup(sf_sst_writer *w); /* takes a zeroed one */

/* *full: the SST has reached its size and ends before this row, which was not taken: finish it, add the row again. */
sf_status sf__sst_writer_add(sf_sst_writer *w, sf_bytes key, sf_bytes value, bool *full, sf_error *err) SF_MUST_USE;
static inline bool sf__sst_writer_is_empty(const sf_sst_writer *w)
{
    return w->stats.rows == 0;
}

/* Writes what is left. The keys in *info are copies in *keys, the caller's. A new SST begins with the next row. */
sf_status sf__sst_writer_finish(sf_sst_writer *w, sf_sst_info *info, sf_buf **keys, uint64_t *size, sf_error *err)
    SF_MUST_USE;

#endif
