#include "backend/slatedb/format/index_write.h"

#include "base/grow.h"

/* In an index a block takes its slot, its table and the length of its bound, besides the bound. */
#define ENTRY_BYTES 24u

struct index_entry {
    uint64_t off;
    size_t key_end; /* in keys */
    uint32_t rows;
};

/* Field ids. */
enum { INDEX_BLOCK_META };
enum { META_OFFSET, META_FIRST_KEY };
enum { STATS_PUTS, STATS_DELETES, STATS_MERGES, STATS_RAW_KEY_SIZE, STATS_RAW_VAL_SIZE, STATS_BLOCKS };
enum { BLOCK_STATS_PUTS };

void sf__index_writer_init(sf_index_writer *w, const sf_allocator *a)
{
    *w = (sf_index_writer){.alloc = a};
}

void sf__index_writer_cleanup(sf_index_writer *w)
{
    if (w->alloc) {
        sf__free(w->alloc, w->entries);
        sf__free(w->alloc, w->keys);
    }
    *w = (sf_index_writer){0};
}

void sf__index_writer_clear(sf_index_writer *w)
{
    w->count = 0;
    w->keys_len = 0;
}

bool sf__index_writer_add(sf_index_writer *w, uint64_t off, sf_bytes last_key, uint32_t rows)
{
    size_t need = w->keys_len + last_key.n + 1;

    if (!SF_RESERVE(w->alloc, &w->entries, &w->cap, w->count + 1))
        return false;
    if (!SF_RESERVE(w->alloc, &w->keys, &w->keys_cap, need))
        return false;
    if (w->count > 0) {
        memcpy(w->keys + w->keys_len, last_key.p, last_key.n);
        w->keys[w->keys_len + last_key.n] = 0;
        w->keys_len += last_key.n + 1;
    }
    w->entries[w->count++] = (struct index_entry){off, w->keys_len, rows};
    return true;
}

size_t sf__index_writer_bytes(const sf_index_writer *w)
{
    return w->count * ENTRY_BYTES + w->keys_len;
}

void sf__index_writer_put(const sf_index_writer *w, sf_fb_writer *out)
{
    static const uint8_t root_sizes[] = {[INDEX_BLOCK_META] = 4};
    static const uint8_t meta_sizes[] = {[META_OFFSET] = 8, [META_FIRST_KEY] = 4};
    sf_fb_layout root = sf__fb_layout(root_sizes, 1), meta = sf__fb_layout(meta_sizes, 2);
    size_t root_vtable = sf__fb_put_vtable(out, &root), meta_vtable = sf__fb_put_vtable(out, &meta);
    size_t t = sf__fb_put_table(out, &root, root_vtable, 0);
    size_t slots = sf__fb_put_tables(out, sf__fb_slot(&root, t, INDEX_BLOCK_META), w->count);
    size_t first = 0, key = 0;

    /* all tables, then all keys: so the tables lie without gaps */
    for (size_t i = 0; i < w->count; i++) {
        t = sf__fb_put_table(out, &meta, meta_vtable, slots + 4 * i);
        if (i == 0)
            first = t;
        sf__fb_set(out, &meta, t, META_OFFSET, w->entries[i].off);
    }
    for (size_t i = 0; i < w->count; i++) {
        sf__fb_put_bytes(out, sf__fb_slot(&meta, first + meta.inline_len * i, META_FIRST_KEY),
                         sf_bytes_of(w->keys + key, w->entries[i].key_end - key));
        key = w->entries[i].key_end;
    }
}

void sf__index_writer_put_stats(const sf_index_writer *w, const sf_sst_stats *stats, sf_fb_writer *out)
{
    static const uint8_t root_sizes[] = {8, 8, 8, 8, 8, 4}, block_sizes[] = {[BLOCK_STATS_PUTS] = 2};
    sf_fb_layout root = sf__fb_layout(root_sizes, 6), block = sf__fb_layout(block_sizes, 1);
    size_t root_vtable = sf__fb_put_vtable(out, &root), block_vtable = sf__fb_put_vtable(out, &block);
    size_t t = sf__fb_put_table(out, &root, root_vtable, 0), slots;

    sf__fb_set(out, &root, t, STATS_PUTS, stats->rows);
    sf__fb_set(out, &root, t, STATS_RAW_KEY_SIZE, stats->key_bytes);
    sf__fb_set(out, &root, t, STATS_RAW_VAL_SIZE, stats->value_bytes);
    slots = sf__fb_put_tables(out, sf__fb_slot(&root, t, STATS_BLOCKS), w->count);
    for (size_t i = 0; i < w->count; i++)
        sf__fb_set(out, &block, sf__fb_put_table(out, &block, block_vtable, slots + 4 * i), BLOCK_STATS_PUTS,
                   w->entries[i].rows);
}
