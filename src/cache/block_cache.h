/* Byte-bounded cache of immutable blocks, scan-resistant (S3-FIFO), sharded by key. Any thread; each call holds one
 * short lock of one shard and never across I/O. A block stays valid while its sf_buf is held or pinned, evicted or not. Counted: by the
 * runtime, by a reader whose own it is, and by shards. */
#ifndef SF_CACHE_BLOCK_CACHE_H
#define SF_CACHE_BLOCK_CACHE_H

#include "base/buf.h"
#include "base/checksum.h"
#include "cache/block_table.h"

typedef struct sf_block_cache sf_block_cache;

typedef struct sf_cache_key {
    sf_hash128 object; /* hash of the object's URL */
    uint64_t off;      /* of the block in its object */
    /* not part of the name: */
    sf_block_table *table; /* where whoever asks looks first, and the block gets a place; NULL: nowhere */
    uint32_t block;        /* its place */
} sf_cache_key;

typedef struct sf_block_cache_stats {
    uint64_t hits, misses, evictions, bytes, entries;
} sf_block_cache_stats;

/* max_bytes 0: nothing is kept. */
sf_status sf__block_cache_new(sf_block_cache **out, uint64_t max_bytes, const sf_allocator *a, sf_error *err);
sf_block_cache *sf__block_cache_acquire(sf_block_cache *c);
void sf__block_cache_release(sf_block_cache *c); /* any thread; takes NULL */
/* Where blocks that come to it are best allocated (slab.h), or NULL: wherever its own memory comes from. */
const sf_allocator *sf__block_cache_slab(const sf_block_cache *c);
/* With a reference for the caller, or NULL. */
sf_buf *sf__block_cache_get(sf_block_cache *c, const sf_cache_key *key) SF_MUST_USE;
/* The same, but counts as no use of the block, and as no miss. */
sf_buf *sf__block_cache_peek(sf_block_cache *c, const sf_cache_key *key) SF_MUST_USE;
/* Adds its own reference; silently keeps nothing when it cannot (too large, no memory). Charges buf->cap. */
void sf__block_cache_put(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf);
/* A block that stays: it leaves the cache, if it is there, and is in its table (which it must have) until that is closed. True: it was not
 * kept before; then the caller charges it. */
bool sf__block_cache_keep(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf);
/* In place of one that is kept, which is so no more: another buffer with the same block. By how much what the caller charges has grown; 0, and nothing
 * was done, where none is kept. */
int64_t sf__block_cache_replace(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf);
/* Keeps the block at that place of a parent's table (kept.h), if that keeps one, and without a reference: it is there
 * for good. *bytes: what the caller charges; 0: it was kept before, or the parent did not. */
void sf__block_cache_inherit(sf_block_cache *c, const sf_cache_key *key, const sf_block_table *from, uint64_t *bytes);

/* Places for the blocks of an object, charged to the cache. NULL without memory; and, unless it is `needed`, when tables would take more than
 * a share of the cache: then look-ups lock. */
sf_block_table *sf__block_table_new(sf_block_cache *c, uint32_t count, bool needed) SF_MUST_USE;
/* The table of a place that is NULL until there is one: it is made now, as above. Any thread. */
sf_block_table *sf__block_table_at(const _Atomic(sf_block_table *) *place, sf_block_cache *c, uint32_t count,
                                   bool needed);
/* As sf__block_cache_get(), without the lock where the table of the place has the block; `key` names that already. */
sf_buf *sf__block_cache_find(sf_block_cache *c, const _Atomic(sf_block_table *) *place, uint32_t count,
                             const sf_cache_key *key) SF_MUST_USE;
/* Blocks that are kept are so no more: released, whoever still uses one. How many bytes they were: the caller gives back what it charged
 * for them, which is sf_buf and capacity of each. */
uint64_t sf__block_table_let_go(sf_block_table *t);
/* Nobody looks in it any more. Blocks that are kept are released; the cache's stay there. Takes NULL. */
void sf__block_table_close(sf_block_table *t);

/* Bytes held elsewhere that count against the bound (resident indexes and filters); may be negative to give back. */
void sf__block_cache_charge(sf_block_cache *c, int64_t bytes);
uint64_t sf__block_cache_charged(const sf_block_cache *c);
/* SF_EXHAUSTED: that alone is more than the bound. */
sf_status sf__block_cache_check_charged(const sf_block_cache *c, sf_error *err) SF_MUST_USE;
uint64_t sf__block_cache_max_bytes(const sf_block_cache *c);
void sf__block_cache_get_stats(sf_block_cache *c, sf_block_cache_stats *out);

#endif
