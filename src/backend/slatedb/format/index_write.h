/* Builds the index and the stats block of one SST (docs/formats/slatedb.md 5.4, 5.7). One thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_INDEX_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_INDEX_WRITE_H

#include "backend/slatedb/format/flatbuf_write.h"

typedef struct sf_index_writer {
    const sf_allocator *alloc;
    struct index_entry *entries;
    size_t count, cap;
    uint8_t *keys; /* bounds, one behind the other */
    size_t keys_len, keys_cap;
} sf_index_writer;

void sf__index_writer_init(sf_index_writer *w, const sf_allocator *a);
void sf__index_writer_cleanup(sf_index_writer *w); /* takes a zeroed one */

/* The next block, at `off` of the file. `last_key`: of the block before; empty for the first block. The bound becomes
 * that key and a 0 byte: above the key, at or below the next one, and hardly ever a stored key itself, so that a
 * look-up of any stored key has one candidate block. False without memory. */
bool sf__index_writer_add(sf_index_writer *w, uint64_t off, sf_bytes last_key, uint32_t rows) SF_MUST_USE;

/* About what the index will take. */
size_t sf__index_writer_bytes(const sf_index_writer *w);

typedef struct sf_sst_stats {
    uint64_t rows, key_bytes, value_bytes; /* puts only */
} sf_sst_stats;

/* Plain bytes of the two blocks, in an initialised writer each; check sf__fb_ok(). */
void sf__index_writer_put(const sf_index_writer *w, sf_fb_writer *out);
void sf__index_writer_put_stats(const sf_index_writer *w, const sf_sst_stats *stats, sf_fb_writer *out);
/* Empties it; keeps the memory. */
void sf__index_writer_clear(sf_index_writer *w);

#endif
