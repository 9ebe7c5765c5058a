#include "backend/slatedb/sst_writer.h"

#include <string.h>

#include "backend/slatedb/format/slatedb_manifest_write.h" /* SF_BUILT_SEQ */
#include "backend/slatedb/format/sst_info_write.h"
#include "base/grow.h"

/* Whatever its size says, an SST ends here: its index and the hashes for its filter are kept in memory, and a reader
 * keeps both. */
#define SST_MAX_ROWS (UINT64_C(8) << 20)
#define SST_MAX_INDEX_BYTES ((size_t)64 << 20)

sf_status sf__sst_writer_init(sf_sst_writer *w, const sf_slatedb_writer_options *opts,
                              sf_status (*write)(void *ctx, sf_bytes bytes, sf_error *err), void *ctx,
                              const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    *w = (sf_sst_writer){.alloc = a, .opts = *opts, .write = write, .ctx = ctx};
    rc = sf__compressor_init(&w->compressor, opts->codec, a, err);
    if (rc != SF_OK)
        return rc;
    sf__block_writer_init(&w->block, opts->block_bytes, a);
    sf__index_writer_init(&w->index, a);
    sf__filter_writer_init(&w->filter, a);
    return SF_OK;
}

void sf__sst_writer_cleanup(sf_sst_writer *w)
{
    if (!w->alloc)
        return;
    sf__block_writer_cleanup(&w->block);
    sf__compressor_cleanup(&w->compressor);
    sf__index_writer_cleanup(&w->index);
    sf__filter_writer_cleanup(&w->filter);
    sf__free(w->alloc, w->bound);
    sf__buf_release(w->first_key);
    *w = (sf_sst_writer){0};
}

/* ------------------------------------------------------------------ blocks --------------------------------------- */

static sf_status put(sf_sst_writer *w, sf_bytes bytes, sf_error *err)
{
    sf_status rc = w->write(w->ctx, bytes, err);

    if (rc == SF_OK)
        w->off += bytes.n;
    return rc;
}

/* Compressed, with its checksum. *off and *len: where it lies. */
static sf_status put_stored(sf_sst_writer *w, sf_bytes plain, uint64_t *off, uint64_t *len, sf_error *err)
{
    sf_bytes stored;
    sf_status rc = sf__compressor_store(&w->compressor, plain, &stored, err);

    *off = w->off;
    *len = stored.n;
    return rc == SF_OK ? put(w, stored, err) : rc;
}

static sf_status remember_bound(sf_sst_writer *w, sf_error *err)
{
    sf_bytes key = sf__block_writer_last_key(&w->block);

    if (!SF_RESERVE(w->alloc, &w->bound, &w->bound_cap, key.n))
        return sf_fail(err, SF_NOMEM, "key of %zu bytes", key.n);
    memcpy(w->bound, key.p, key.n);
    w->bound_len = key.n;
    return SF_OK;
}

static sf_status block_flush(sf_sst_writer *w, sf_error *err)
{
    uint32_t rows = sf__block_writer_rows(&w->block);
    uint64_t off, len;
    sf_bytes plain;
    sf_status rc = sf__block_writer_finish(&w->block, &plain, err);

    if (rc == SF_OK)
        rc = put_stored(w, plain, &off, &len, err);
    if (rc == SF_OK && !sf__index_writer_add(&w->index, off, sf_bytes_of(w->bound, w->bound_len), rows))
        rc = sf_fail(err, SF_NOMEM, "index of an SST");
    return rc == SF_OK ? remember_bound(w, err) : rc;
}

static bool has_its_size(const sf_sst_writer *w)
{
    return w->off >= w->opts.sst_bytes || w->stats.rows >= SST_MAX_ROWS ||
           sf__index_writer_bytes(&w->index) >= SST_MAX_INDEX_BYTES;
}

sf_status sf__sst_writer_add(sf_sst_writer *w, sf_bytes key, sf_bytes value, bool *full, sf_error *err)
{
    sf_block_row row = {.key = key, .value = value, .seq = SF_BUILT_SEQ};
    bool block_full;
    sf_status rc = sf__block_writer_add(&w->block, &row, &block_full, err);

    *full = false;
    if (rc == SF_OK && block_full) {
        rc = block_flush(w, err);
        if (rc == SF_OK && has_its_size(w)) {
            *full = true;
            return SF_OK;
        }
        if (rc == SF_OK)
            rc = sf__block_writer_add(&w->block, &row, &block_full, err);
    }
    if (rc != SF_OK)
        return rc;
    if (w->stats.rows == 0 && !(w->first_key = sf__buf_copy(w->alloc, key)))
        return sf_fail(err, SF_NOMEM, "key of %zu bytes", key.n);
    if (!sf__filter_writer_add(&w->filter, sf__filter_hash(key)))
        return sf_fail(err, SF_NOMEM, "filter of %llu rows", (unsigned long long)w->stats.rows);
    w->stats.rows++;
    w->stats.key_bytes += key.n;
    w->stats.value_bytes += value.n;
    return SF_OK;
}

/* ------------------------------------------------------------------ the end -------------------------------------- */

static sf_status put_filter(sf_sst_writer *w, sf_sst_info *info, sf_error *err)
{
    sf_status rc;
    sf_buf *b;

    info->filter_format = SF_FILTER_LEGACY;
    info->filter_off = w->off; /* where the index lies, when there is none */
    if (w->stats.rows < w->opts.min_filter_keys)
        return SF_OK;
    b = sf__filter_writer_finish(&w->filter, w->opts.bits_per_key);
    if (!b)
        return sf_fail(err, SF_NOMEM, "filter of %llu rows", (unsigned long long)w->stats.rows);
    rc = put_stored(w, sf__buf_bytes(b), &info->filter_off, &info->filter_len, err);
    sf__buf_release(b);
    return rc;
}

static sf_status put_index(sf_sst_writer *w, bool stats, uint64_t *off, uint64_t *len, sf_error *err)
{
    sf_fb_writer fb;
    sf_status rc;

    sf__fb_writer_init(&fb, (sf_bytes){0}, w->alloc);
    if (stats)
        sf__index_writer_put_stats(&w->index, &w->stats, &fb);
    else
        sf__index_writer_put(&w->index, &fb);
    rc = sf__fb_ok(&fb) ? put_stored(w, sf__fb_written(&fb), off, len, err)
                        : sf_fail(err, SF_NOMEM, "index of %llu bytes", (unsigned long long)sf__fb_written(&fb).n);
    sf__fb_writer_cleanup(&fb);
    return rc;
}

static sf_status put_tail(sf_sst_writer *w, const sf_sst_info *info, sf_error *err)
{
    sf_buf *tail = sf__sst_tail_encode(info, w->off, w->alloc);
    sf_status rc;

    if (!tail)
        return sf_fail(err, SF_NOMEM, "SST info");
    rc = put(w, sf__buf_bytes(tail), err);
    sf__buf_release(tail);
    return rc;
}

static void begin_next(sf_sst_writer *w)
{
    sf__index_writer_clear(&w->index);
    w->filter.count = 0;
    w->off = 0;
    w->stats = (sf_sst_stats){0};
    w->bound_len = 0;
    sf__buf_release(w->first_key);
    w->first_key = NULL;
}

sf_status sf__sst_writer_finish(sf_sst_writer *w, sf_sst_info *info, sf_buf **keys, uint64_t *size, sf_error *err)
{
    sf_status rc = sf__block_writer_rows(&w->block) > 0 ? block_flush(w, err) : SF_OK;
    size_t first_len = w->first_key->n;
    sf_buf *both;

    if (rc != SF_OK)
        return rc;
    both = sf__buf_new(w->alloc, first_len + w->bound_len);
    if (!both)
        return sf_fail(err, SF_NOMEM, "SST info");
    memcpy(both->data, w->first_key->data, first_len);
    memcpy(both->data + first_len, w->bound, w->bound_len);
    *info = (sf_sst_info){
        .first_key = sf_bytes_of(both->data, first_len),
        .last_key = sf_bytes_of(both->data + first_len, w->bound_len),
        .has_first_key = true,
        .has_last_key = true,
        .codec = w->opts.codec,
        .sst_type = SF_SST_COMPACTED,
    };
    rc = put_filter(w, info, err);
    if (rc == SF_OK)
        rc = put_index(w, false, &info->index_off, &info->index_len, err);
    if (rc == SF_OK)
        rc = put_index(w, true, &info->stats_off, &info->stats_len, err);
    if (rc == SF_OK)
        rc = put_tail(w, info, err);
    if (rc != SF_OK) {
        sf__buf_release(both);
        return rc;
    }
    *size = w->off;
    *keys = both;
    begin_next(w);
    return SF_OK;
}
