#include "backend/slatedb/sst.h"

#include "base/error.h"
#include "base/limits.h"

/* Equal names on different servers, or in stores with different rights, are different objects: so the store itself is
 * part of the name. */
static sf_status name_object(sf_sst *sst, const sf_store *store, const sf_allocator *a, sf_error *err)
{
    char *name = sf__asprintf(a, "%p %s/%s", (const void *)store, store->url, sst->key);

    if (!name)
        return sf_fail(err, SF_NOMEM, "name of an SST");
    sst->object = sf__xxh3_128(sf_bytes_str(name));
    sf__free(a, name);
    return SF_OK;
}

sf_status sf__sst_init(sf_sst *sst, const sf_sst_view *view, const sf_store *store, const char *db_path,
                       const sf_allocator *a, sf_error *err)
{
    const char *path = view->external_path ? view->external_path : db_path;

    *sst = (sf_sst){.view = view};
    sst->key = sf__asprintf(a, "%s%scompacted/%s.sst", path, path[0] ? "/" : "", view->ulid);
    if (!sst->key)
        return sf_fail(err, SF_NOMEM, "name of an SST");
    if (view->info.sst_type != SF_SST_COMPACTED)
        return sf_fail(err, SF_CORRUPT, "%s/%s: the manifest calls it an SST of the WAL", store->url, sst->key);
    return name_object(sst, store, a, err);
}

void sf__sst_cleanup(sf_sst *sst, const sf_allocator *a)
{
    sf__index_cleanup(&sst->index);
    sf__filter_cleanup(&sst->filter);
    sf__free(a, sst->key);
    *sst = (sf_sst){0};
}

sf_status sf__sst_meta_range(const sf_sst *sst, uint64_t *off, uint64_t *len, sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    uint64_t end = info->index_off + info->index_len; /* checked: does not wrap */

    if (info->filter_len > SF_LIMIT_META_BYTES || info->index_len > SF_LIMIT_META_BYTES ||
        sf__sst_meta_len(info) > 2 * (uint64_t)SF_LIMIT_META_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "%s: %llu bytes of filter and index, more than %u", sst->key,
                       (unsigned long long)sf__sst_meta_len(info), SF_LIMIT_META_BYTES);
    *off = end <= SF_SST_WHOLE_BYTES ? 0 : sf__sst_meta_off(info);
    *len = end - *off;
    return SF_OK;
}

/* The stored bytes [at, at + n) of the object, out of `data`, which begins at `off`. */
static sf_status part(sf_bytes data, uint64_t off, uint64_t at, uint64_t n, sf_bytes *out, sf_error *err)
{
    if (at < off || !sf_bytes_slice(data, at - off, n, out))
        return sf_fail(err, SF_CORRUPT, "%llu bytes at %llu do not lie in the %zu bytes from %llu",
                       (unsigned long long)n, (unsigned long long)at, data.n, (unsigned long long)off);
    return SF_OK;
}

static sf_status index_open(sf_sst *sst, sf_bytes data, uint64_t off, const sf_allocator *a, sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_status rc = part(data, off, info->index_off, info->index_len, &stored, err);

    if (rc == SF_OK)
        rc = sf__stored_block_view(stored, info->codec, SF_LIMIT_META_BYTES, a, &plain, &buf, err);
    if (rc == SF_OK)
        rc = sf__index_decode(&sst->index, plain, sf__sst_blocks_end(info), a, err);
    for (uint32_t i = 0; rc == SF_OK && i < sst->index.count; i++)
        if (sf__index_block_len(&sst->index, i) > SF_LIMIT_BLOCK_BYTES)
            rc = sf_fail(err, SF_UNSUPPORTED, "block %u takes %llu bytes, more than %u", i,
                         (unsigned long long)sf__index_block_len(&sst->index, i), SF_LIMIT_BLOCK_BYTES);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK
                       : sf_error_prefix(err, rc, "index at %llu: ", (unsigned long long)info->index_off);
}

static sf_status filter_open(sf_sst *sst, sf_bytes data, uint64_t off, const sf_allocator *a, sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    sf_bytes stored;
    sf_buf *buf = NULL;
    sf_status rc;

    if (info->filter_len == 0)
        return SF_OK;
    rc = part(data, off, info->filter_off, info->filter_len, &stored, err);
    if (rc == SF_OK)
        rc = sf__stored_block_open(stored, info->codec, SF_LIMIT_META_BYTES, NULL, a, &buf, err);
    if (rc == SF_OK)
        rc = sf__filter_decode(&sst->filter, sf__buf_bytes(buf), buf, info->filter_format, err);
    if (rc == SF_OK && sst->filter.count > 0)
        sst->filter_bytes = sizeof(*buf) + buf->cap;
    else if (rc == SF_OK) /* nothing in it that could rule a key out: its bytes may go */
        sf__filter_cleanup(&sst->filter);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK
                       : sf_error_prefix(err, rc, "filter at %llu: ", (unsigned long long)info->filter_off);
}

sf_status sf__sst_meta_decode(sf_sst *sst, sf_bytes data, uint64_t off, const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    sf__index_cleanup(&sst->index);
    sf__filter_cleanup(&sst->filter);
    rc = index_open(sst, data, off, a, err);
    return rc == SF_OK ? filter_open(sst, data, off, a, err) : rc;
}

size_t sf__sst_resident_bytes(const sf_sst *sst)
{
    return sizeof(*sst) + sst->index.bytes + sst->filter_bytes + (sst->key ? strlen(sst->key) + 1 : 0);
}

sf_status sf__sst_block_open(const sf_sst *sst, uint32_t block, sf_bytes stored, const sf_allocator *a, sf_buf **out,
                             sf_error *err)
{
    sf_buf *plain = NULL;
    sf_status rc = sf__stored_block_open(stored, sst->view->info.codec, SF_LIMIT_BLOCK_BYTES, NULL, a, &plain, err);

    if (rc == SF_OK)
        rc = sf__block_check(sf__buf_bytes(plain), sst->view->format_version, err);
    if (rc != SF_OK) {
        sf__buf_release(plain);
        return sf_error_prefix(err, rc, "data block at %llu: ",
                               (unsigned long long)sf__index_block_off(&sst->index, block));
    }
    *out = plain;
    return SF_OK;
}

void sf__sst_blocks_to_cache(const sf_sst *sst, sf_bytes data, uint64_t off, sf_block_cache *cache,
                             const sf_allocator *a)
{
    for (uint32_t i = 0; i < sst->index.count; i++) {
        sf_cache_key key = sf__sst_block_cache_key(sst, i);
        sf_bytes stored;
        sf_buf *plain;

        if (part(data, off, key.off, sf__index_block_len(&sst->index, i), &stored, NULL) != SF_OK ||
            sf__sst_block_open(sst, i, stored, a, &plain, NULL) != SF_OK)
            continue;
        sf__block_cache_put(cache, &key, plain);
        sf__buf_release(plain);
    }
}
