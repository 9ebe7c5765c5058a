/* An opened SST: where its object lies, its index and filter, and how one of its blocks becomes plain bytes. Immutable
 * once decoded, but for which of its blocks are in memory; any thread. */
#ifndef SF_BACKEND_SLATEDB_SST_H
#define SF_BACKEND_SLATEDB_SST_H

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/block_dir.h"
#include "backend/slatedb/format/filter.h"
#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/slatedb_manifest.h"
#include "cache/block_cache.h"
#include "cache/disk_cache.h"
#include "store/store.h"

/* An object of at most this many bytes is read whole when its shard is opened, and its blocks go to the cache. */
#define SF_SST_WHOLE_BYTES (64u << 10)

typedef struct sf_sst {
    const sf_sst_view *view; /* one of those that show it: its name and info */
    char *key;               /* of the object, below the store's root */
    sf_hash128 object;       /* names it in the block cache */
    sf_disk_place *disk;     /* names it in the disk cache, which the shard holds; NULL: it is not kept there */
    sf_index index;
    sf_filter filter; /* zeroed: none */
    _Atomic(sf_block_table *) table; /* its blocks in memory; NULL: none so far, or without a place; else for good, once it is decoded */
} sf_sst;

/* `db_path` is that of the database; SSTs of other databases name their own. `disk` is borrowed, may be NULL. */
sf_status sf__sst_init(sf_sst *sst, const sf_sst_view *view, const sf_store *store, const char *db_path,
                       sf_disk_cache *disk, const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* Takes a zeroed struct and leaves one. */
void sf__sst_cleanup(sf_sst *sst, const sf_allocator *a);

/* The one range that has filter and index, and all blocks of a small object. Refuses sizes above the limits. */
sf_status sf__sst_meta_range(const sf_sst *sst, uint64_t *off, uint64_t *len, sf_error *err) SF_MUST_USE;
/* `data` = the bytes of that range, from `off` on. May be called again after a failure of this or of the next one, with other
 * bytes; nobody else has the SST before. `room` here and below as in format/compress.h, may be NULL. */
sf_status sf__sst_meta_decode(sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room, const sf_allocator *a,
                              sf_error *err) SF_MUST_USE;
/* Puts the blocks that lie in `data` into the cache; damaged and large ones are left out, for a later read. SF_CORRUPT when
 * whole ones say that the manifest's key range is wrong. */
sf_status sf__sst_blocks_to_cache(const sf_sst *sst, sf_bytes data, uint64_t off, sf_plain_room *room,
                                  sf_block_cache *cache, const sf_allocator *a, sf_error *err) SF_MUST_USE;
/* What the index and the filter keep in memory. */
size_t sf__sst_resident_bytes(const sf_sst *sst);

/* The places of its blocks, made before the first one comes into memory. NULL without memory, or as sf__block_table_new() has it. */
sf_block_table *sf__sst_table(const sf_sst *sst, sf_block_cache *cache, bool needed);

static inline sf_cache_key sf__sst_block_cache_key(const sf_sst *sst, uint32_t block)
{
    return (sf_cache_key){
        .object = sst->object,
        .off = sf__index_block_off(&sst->index, block),
        .table = atomic_load_explicit(&sst->table, memory_order_acquire),
        .block = block,
    };
}

/* Into the cache, and into its place. */
void sf__sst_block_put(const sf_sst *sst, uint32_t block, sf_block_cache *cache, sf_buf *plain);

/* A block in memory, which `pin` keeps alive, or NULL: it is not there, or has no place. */
static inline sf_buf *sf__sst_block_pinned(const sf_sst *sst, uint32_t block, sf_pins *mine, sf_pin *pin)
{
    sf_block_table *t = atomic_load_explicit(&sst->table, memory_order_acquire);

    return t ? sf__block_table_find(t, block, mine, pin) : NULL;
}

/* With a reference, or NULL: it is not in memory. */
sf_buf *sf__sst_block_cached(const sf_sst *sst, uint32_t block, sf_block_cache *cache);
/* What the cache has of a block, without a look whether it still is: the beginning of its buffer is fetched by the processor. */
void sf__sst_block_hint(const sf_sst *sst, uint32_t block);

/* What tells it from all other objects for good, whatever store and process. Not *named: nothing does, its store is none of S3.
 * SF_NOMEM. */
sf_status sf__sst_lasting_name(const sf_sst *sst, const sf_store *store, const sf_allocator *a, bool *named,
                               sf_hash128 *out) SF_MUST_USE;

/* As far as memory knows. */
bool sf__sst_block_is_on_disk(const sf_sst *sst, uint32_t block);

/* Checksum, codec, rows, the SST's key range. `stored` = exactly the bytes of the block. *out is the caller's reference; of
 * `owner`, which may be NULL, where that holds these bytes for the caller only (format/compress.h). `look_ups`: it stays in memory, where
 * they will come to it, and gets a directory (format/block_dir.h); in `cache`, unless that is NULL. */
sf_status sf__sst_block_open(const sf_sst *sst, uint32_t block, sf_bytes stored, sf_buf *owner, bool look_ups,
                             const sf_block_cache *cache, sf_plain_room *room, const sf_allocator *a, sf_buf **out,
                             sf_error *err) SF_MUST_USE;

/* Whether it is what that makes of a block for look-ups, whatever stored bytes that had: rows, key range, directory. `buf` need not be one that can be
 * acquired. */
bool sf__sst_block_is(const sf_sst *sst, uint32_t block, const sf_buf *buf, const sf_allocator *a) SF_MUST_USE;

/* As sf__sst_block_open(), of a block that nobody looks up and that need not be alone: one that is stored as it is stays where it lies, and *out is a
 * reference on `data`. */
sf_status sf__sst_block_open_in(const sf_sst *sst, uint32_t block, sf_buf *data, sf_bytes stored, sf_plain_room *room,
                                const sf_allocator *a, sf_buf **out, sf_error *err) SF_MUST_USE;

/* The newest row of `key` with seq <= max_seq, as sf__block_get() has it. `plain` as below. */
static inline sf_status sf__sst_block_get(const sf_sst *sst, const sf_buf *plain, sf_bytes key, uint64_t max_seq,
                                          bool *found, sf_block_row *row, sf_error *err)
{
    sf_block block;
    sf_status rc;

    if (plain->front > 0)
        return sf__block_dir_get(plain, key, sf__block_dir_seek(plain, key), max_seq, found, row, err);
    rc = sf__block_init(&block, sf__buf_bytes(plain), sst->view->format_version, err);
    return rc == SF_OK ? sf__block_get(&block, key, max_seq, found, row, err) : rc;
}

/* A view of plain bytes that came from sf__sst_block_open(). */
static inline sf_status sf__sst_block_view(const sf_sst *sst, sf_bytes plain, sf_block *out, sf_error *err)
{
    return sf__block_init(out, plain, sst->view->format_version, err);
}

#endif
