/* What of a shard is in use, as far as the cache tells: for whoever brings its successor nearer. */
#include "backend/slatedb/shard.h"
#include "base/container.h"

/* Its first and its last key: in the successor blocks end elsewhere, and what it had may lie in two of them. False: `add` has
 * enough. */
static bool add_edges(const sf_sst *sst, const sf_buf *plain, sf_hot_key_fn add, void *ctx, const sf_allocator *a)
{
    sf_block_cursor c;
    sf_block block;
    bool more = true;

    sf__block_cursor_init(&c, a);
    if (sf__sst_block_view(sst, sf__buf_bytes(plain), &block, NULL) == SF_OK) {
        sf__block_cursor_set(&c, &block);
        if (sf__block_cursor_first(&c, NULL) == SF_OK && c.valid)
            more = add(ctx, c.row.key, plain->cap);
        if (more && sf__block_cursor_last(&c, NULL) == SF_OK && c.valid)
            more = add(ctx, c.row.key, plain->cap);
    }
    sf__block_cursor_cleanup(&c);
    return more;
}

void sf__slatedb_hot_keys(sf_shard *base, sf_hot_key_fn add, void *ctx)
{
    const sf_slatedb_shard *s = sf_container_of(base, sf_slatedb_shard, base);
    bool more = true;

    for (uint32_t i = 0; i < s->view.sst_count && more; i++) {
        const sf_sst *sst = &s->view.ssts[i];

        for (uint32_t j = 0; j < sst->index.count && more; j++) {
            sf_cache_key key = sf__sst_block_cache_key(sst, j);
            sf_buf *plain = sf__block_cache_peek(base->cache, &key);

            if (plain)
                more = add_edges(sst, plain, add, ctx, base->rt->alloc);
            sf__buf_release(plain);
        }
    }
}
