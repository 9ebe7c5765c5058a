#include "backend/slatedb/sst.h"

#include "base/error.h"
#include "base/limits.h"
#include "base/strbuf.h"
#include "store/digest.h"

/* Equal names on different servers, or in stores with different rights, are different objects: so the store itself is
 * part of the name. (Not its address: the next store may get that one.) */
static sf_status name_object(sf_sst *sst, const sf_store *store, const sf_allocator *a, sf_error *err)
{
    char *name = sf__asprintf(a, "%llu %s/%s", (unsigned long long)store->serial, store->url, sst->key);

    if (!name)
        return sf_fail(err, SF_NOMEM, "name of an SST");
    sst->object = sf__xxh3_128(sf_bytes_str(name));
    sf__free(a, name);
    return SF_OK;
}

/* On disk and across a fork the name has to last, and whoever chooses names of objects must not be able to choose one that is another's. What the
 * manifest says of the file is part of it: an object that was replaced by one of the same name is another one. Only S3 has
 * names for good, and is worth a copy. */
sf_status sf__sst_lasting_name(const sf_sst *sst, const sf_store *store, const sf_allocator *a, bool *named,
                               sf_hash128 *out)
{
    const sf_sst_info *info = &sst->view->info;
    sf_bucket_info bucket = {0};
    uint8_t digest[32];
    sf_strbuf name;

    *named = false;
    if (store->vtable->describe)
        store->vtable->describe(store, &bucket);
    if (!bucket.endpoint_url)
        return SF_OK;
    sf__strbuf_init(&name, a);
    sf__strbuf_printf(&name, "%s\n%s\n%s\n", bucket.endpoint_url, store->url, sst->key);
    sf__strbuf_printf(&name, "%llu %llu %llu %llu %d %d", (unsigned long long)info->index_off,
                      (unsigned long long)info->index_len, (unsigned long long)info->filter_off,
                      (unsigned long long)info->filter_len, (int)info->filter_format, (int)info->codec);
    *named = !name.failed && sf__sha256(sf_bytes_of(name.s, name.n), digest);
    sf__strbuf_cleanup(&name);
    if (*named)
        *out = (sf_hash128){sf_load_be(digest, 8), sf_load_be(digest + 8, 8)};
    return *named ? SF_OK : SF_NOMEM;
}

static sf_status name_on_disk(sf_sst *sst, const sf_store *store, sf_disk_cache *disk, const sf_allocator *a,
                              sf_error *err)
{
    sf_hash128 name;
    bool named = false;
    sf_status rc = disk ? sf__sst_lasting_name(sst, store, a, &named, &name) : SF_OK;

    if (named && (sst->disk = sf__alloc(a, sizeof(*sst->disk))))
        *sst->disk = (sf_disk_place){disk, name};
    return rc == SF_OK && named == (sst->disk != NULL) ? SF_OK : sf_fail(err, SF_NOMEM, "name of an SST");
}

sf_status sf__sst_init(sf_sst *sst, const sf_sst_view *view, const sf_store *store, const char *db_path,
                       sf_disk_cache *disk, const sf_allocator *a, sf_error *err)
{
    const char *path = view->external_path ? view->external_path : db_path;

    *sst = (sf_sst){.view = view};
    sst->key = sf__asprintf(a, "%s%scompacted/%s.sst", path, path[0] ? "/" : "", view->ulid);
    if (!sst->key)
        return sf_fail(err, SF_NOMEM, "name of an SST");
    if (view->info.sst_type != SF_SST_COMPACTED)
        return sf_fail(err, SF_CORRUPT, "%s/%s: the manifest calls it an SST of the WAL", store->url, sst->key);
    if (name_object(sst, store, a, err) != SF_OK)
        return SF_NOMEM;
    return name_on_disk(sst, store, disk, a, err);
}

void sf__sst_cleanup(sf_sst *sst, const sf_allocator *a)
{
    sf__block_table_close(atomic_load_explicit(&sst->table, memory_order_acquire));
    sf__index_cleanup(&sst->index, a);
    sf__filter_cleanup(&sst->filter);
    sf__free(a, sst->disk);
    sf__free(a, sst->key);
    *sst = (sf_sst){0};
}

/* ------------------------------------------------------------------ blocks in memory ----------------------------- */

sf_block_table *sf__sst_table(const sf_sst *sst, sf_block_cache *cache, bool needed)
{
    return sf__block_table_at(&sst->table, cache, sst->index.count, needed);
}

void sf__sst_block_put(const sf_sst *sst, uint32_t block, sf_block_cache *cache, sf_buf *plain)
{
    sf_cache_key key = sf__sst_block_cache_key(sst, block);

    key.table = sf__sst_table(sst, cache, false);
    sf__block_cache_put(cache, &key, plain);
}

sf_buf *sf__sst_block_cached(const sf_sst *sst, uint32_t block, sf_block_cache *cache)
{
    sf_cache_key key = sf__sst_block_cache_key(sst, block);

    return sf__block_cache_find(cache, &sst->table, sst->index.count, &key);
}

void sf__sst_block_hint(const sf_sst *sst, uint32_t block)
{
    sf_block_table *t = atomic_load_explicit(&sst->table, memory_order_acquire);

    if (t)
        __builtin_prefetch(sf__block_table_peek(t, block), 1); /* a reference is counted there */
}

bool sf__sst_block_is_on_disk(const sf_sst *sst, uint32_t block)
{
    const sf_disk_place *place = sst->disk;
    sf_extent_name name;

    if (!place)
        return false;
    name = (sf_extent_name){place->object, sf__index_block_off(&sst->index, block),
                            (uint32_t)sf__index_block_len(&sst->index, block)};
    return sf__disk_cache_knows(place->cache, &name);
}

/* ------------------------------------------------------------------ index and filter ----------------------------- */

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

static sf_status index_open(sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room, const sf_allocator *a,
                            sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_status rc = part(data, off, info->index_off, info->index_len, &stored, err);

    if (rc == SF_OK)
        rc = sf__stored_block_view(room, stored, info->codec, SF_LIMIT_META_BYTES, a, &plain, &buf, err);
    if (rc == SF_OK)
        rc = sf__index_decode(&sst->index, plain, sf__sst_blocks_end(info), a, err);
    for (uint32_t i = 0; rc == SF_OK && i < sst->index.count; i++)
        if (sf__index_block_len(&sst->index, i) > SF_LIMIT_BLOCK_BYTES)
            rc = sf_fail(err, SF_UNSUPPORTED, "block %u takes %llu bytes, more than %u", i,
                         (unsigned long long)sf__index_block_len(&sst->index, i), SF_LIMIT_BLOCK_BYTES);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "index at %llu: ", (unsigned long long)info->index_off);
}

static sf_status filter_open(sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room, const sf_allocator *a,
                             sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    sf_bytes stored;
    sf_buf *buf = NULL;
    sf_status rc;

    if (info->filter_len == 0)
        return SF_OK;
    rc = part(data, off, info->filter_off, info->filter_len, &stored, err);
    if (rc == SF_OK)
        rc = sf__stored_block_open(room, stored, info->codec, SF_LIMIT_META_BYTES, NULL, a, &buf, err);
    if (rc == SF_OK)
        rc = sf__filter_decode(&sst->filter, sf__buf_bytes(buf), buf, info->filter_format, err);
    if (rc == SF_OK && sst->filter.count == 0) /* nothing in it that could rule a key out: its bytes may go */
        sf__filter_cleanup(&sst->filter);
    sf__buf_release(buf);
    return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "filter at %llu: ", (unsigned long long)info->filter_off);
}

/* Manifests have no checksum, and a wrong key range hides rows without a trace: so what the file itself says of its keys
 * has to agree. A view that shows a part of the SST has a range of its own, which says nothing about the file. */
static bool has_own_range(const sf_sst *sst)
{
    return sst->view->info.has_first_key && !sst->view->visible;
}

static sf_status wrong_range(const char *which, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "the manifest says that the SST %s with another key", which);
}

/* Block i holds keys from bound i to bound i+1. */
static sf_status range_check(const sf_sst *sst, sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    const sf_index *idx = &sst->index;

    if (!has_own_range(sst) || idx->count == 0)
        return SF_OK;
    if (idx->count > 1 && sf_bytes_cmp(info->first_key, sf__index_block_bound(idx, 1)) > 0)
        return wrong_range("begins", err);
    if (info->has_last_key && sf_bytes_cmp(info->last_key, sf__index_block_bound(idx, idx->count - 1)) < 0)
        return wrong_range("ends", err);
    return SF_OK;
}

/* The first and the last block have the very keys. */
static sf_status edges_check(const sf_sst *sst, uint32_t no, sf_bytes plain, const sf_allocator *a, sf_error *err)
{
    const sf_sst_info *info = &sst->view->info;
    bool first = no == 0, last = no == sst->index.count - 1 && info->has_last_key;
    sf_block_cursor c;
    sf_block block;
    sf_status rc;

    if (!has_own_range(sst) || (!first && !last))
        return SF_OK;
    sf__block_cursor_init(&c, a);
    rc = sf__sst_block_view(sst, plain, &block, err);
    if (rc == SF_OK)
        sf__block_cursor_set(&c, &block);
    if (rc == SF_OK && first)
        rc = sf__block_cursor_first(&c, err);
    if (rc == SF_OK && first && (!c.valid || !sf_bytes_eq(c.row.key, info->first_key)))
        rc = wrong_range("begins", err);
    if (rc == SF_OK && last)
        rc = sf__block_cursor_last(&c, err);
    if (rc == SF_OK && last && (!c.valid || !sf_bytes_eq(c.row.key, info->last_key)))
        rc = wrong_range("ends", err);
    sf__block_cursor_cleanup(&c);
    return rc;
}

sf_status sf__sst_meta_decode(sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room, const sf_allocator *a,
                              sf_error *err)
{
    sf_status rc;

    /* blocks of what was refused may have come into memory, and it may have had fewer of them */
    sf__block_table_close(atomic_exchange_explicit(&sst->table, NULL, memory_order_acq_rel));
    sf__index_cleanup(&sst->index, a);
    sf__filter_cleanup(&sst->filter);
    rc = index_open(sst, data, off, room, a, err);
    if (rc == SF_OK)
        rc = range_check(sst, err);
    return rc == SF_OK ? filter_open(sst, data, off, room, a, err) : rc;
}

size_t sf__sst_resident_bytes(const sf_sst *sst)
{
    return sizeof(*sst) + sf__index_bytes(&sst->index) + sf__filter_bytes(&sst->filter) +
           (sst->key ? strlen(sst->key) + 1 : 0) + (sst->disk ? sizeof(*sst->disk) : 0);
}

/* *out is set on success only. */
static sf_status block_plain(const sf_sst *sst, sf_bytes stored, size_t max_plain, sf_buf *owner, bool look_ups,
                             const sf_block_cache *cache, sf_plain_room *room, const sf_allocator *a, sf_buf **out,
                             sf_error *err)
{
    sf_buf *plain = NULL, *with_dir;
    sf_status rc = sf__stored_block_open(room, stored, sst->view->info.codec, max_plain, owner, a, &plain, err);

    if (rc == SF_OK)
        rc = sf__block_check(sf__buf_bytes(plain), sst->view->format_version, err);
    if (rc == SF_OK && look_ups) {
        rc = sf__block_dir_make(room, plain, sst->view->format_version, cache ? sf__block_cache_slab(cache) : NULL, a,
                                &with_dir, err);
        if (rc == SF_OK) {
            sf__buf_release(plain);
            plain = with_dir;
        }
    }
    if (rc == SF_WOULD_BLOCK && plain && plain == owner) /* with its checksum again, for the next try */
        owner->n = stored.n;
    if (rc == SF_OK)
        *out = plain;
    else
        sf__buf_release(plain);
    return rc;
}

static sf_status in_block(const sf_sst *sst, uint32_t block, sf_status rc, sf_error *err)
{
    return sf_error_prefix(err, rc, "data block at %llu: ", (unsigned long long)sf__index_block_off(&sst->index, block));
}

sf_status sf__sst_block_open(const sf_sst *sst, uint32_t block, sf_bytes stored, sf_buf *owner, bool look_ups,
                             const sf_block_cache *cache, sf_plain_room *room, const sf_allocator *a, sf_buf **out,
                             sf_error *err)
{
    sf_buf *plain = NULL;
    sf_status rc = block_plain(sst, stored, SF_LIMIT_BLOCK_BYTES, owner, look_ups, cache, room, a, &plain, err);

    if (rc == SF_OK)
        rc = edges_check(sst, block, sf__buf_bytes(plain), a, err);
    if (rc != SF_OK) {
        sf__buf_release(plain);
        return in_block(sst, block, rc, err);
    }
    *out = plain;
    return SF_OK;
}

bool sf__sst_block_is(const sf_sst *sst, uint32_t block, const sf_buf *buf, const sf_allocator *a)
{
    sf_bytes content = sf__buf_bytes(buf);
    unsigned version = sst->view->format_version;
    sf_buf *plain = content.n <= SF_LIMIT_BLOCK_BYTES ? sf__buf_copy(a, content) : NULL, *right = NULL;
    sf_error e;
    bool is = plain && sf__block_check(content, version, &e) == SF_OK &&
              edges_check(sst, block, content, a, &e) == SF_OK &&
              sf__block_dir_make(NULL, plain, version, NULL, a, &right, &e) == SF_OK && right->front == buf->front &&
              right->n == buf->n && memcmp(right->data, buf->data, right->front + right->n) == 0;

    sf__buf_release(right);
    sf__buf_release(plain);
    return is;
}

sf_status sf__sst_block_open_in(const sf_sst *sst, uint32_t block, sf_buf *data, sf_bytes stored, sf_plain_room *room,
                                const sf_allocator *a, sf_buf **out, sf_error *err)
{
    sf_bytes plain;
    sf_buf *unpacked = NULL;
    sf_status rc =
        sf__stored_block_view(room, stored, sst->view->info.codec, SF_LIMIT_BLOCK_BYTES, a, &plain, &unpacked, err);

    if (rc == SF_OK)
        rc = sf__block_check(plain, sst->view->format_version, err);
    if (rc == SF_OK)
        rc = edges_check(sst, block, plain, a, err);
    if (rc != SF_OK) {
        sf__buf_release(unpacked);
        return in_block(sst, block, rc, err);
    }
    *out = unpacked ? unpacked : sf__buf_acquire(data);
    return SF_OK;
}

sf_status sf__sst_blocks_to_cache(const sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room,
                                  sf_block_cache *cache, const sf_allocator *a, sf_error *err)
{
    sf_status rc = SF_OK;

    for (uint32_t i = 0; rc == SF_OK && i < sst->index.count; i++) {
        uint64_t at = sf__index_block_off(&sst->index, i);
        sf_bytes stored;
        sf_buf *plain;

        if (part(data, off, at, sf__index_block_len(&sst->index, i), &stored, NULL) != SF_OK)
            continue;
        rc = block_plain(sst, stored, SF_LIMIT_BLOCK_OF_ROWS_BYTES, NULL, true, cache, room, a, &plain, err);
        if (rc == SF_WOULD_BLOCK)
            break;
        if (rc != SF_OK) { /* whoever needs it will be told, or it is large: then it is read for that */
            rc = SF_OK;
            continue;
        }
        rc = edges_check(sst, i, sf__buf_bytes(plain), a, err);
        if (rc == SF_OK)
            sf__sst_block_put(sst, i, cache, plain);
        sf__buf_release(plain);
    }
    return rc;
}
