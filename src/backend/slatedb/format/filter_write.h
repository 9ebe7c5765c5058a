/* Builds the legacy filter block of one SST: one Bloom filter over whole keys, which all SlateDB releases read
 * (docs/formats/slatedb.md 5.5). Collects 8 bytes a key until it is finished. One thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_FILTER_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_FILTER_WRITE_H

#include "backend/slatedb/format/filter.h"

#define SF_FILTER_BITS_PER_KEY_MAX 64u

typedef struct sf_filter_writer {
    const sf_allocator *alloc;
    uint64_t *hashes;
    size_t count, cap;
} sf_filter_writer;

void sf__filter_writer_init(sf_filter_writer *w, const sf_allocator *a);
void sf__filter_writer_cleanup(sf_filter_writer *w); /* takes a zeroed one */
/* Once per stored row. False without memory. */
bool sf__filter_writer_add(sf_filter_writer *w, uint64_t hash) SF_MUST_USE;
/* Plain bytes of the block, *out the caller's; the writer is empty then. bits_per_key 1 .. 64. NULL without memory. */
sf_buf *sf__filter_writer_finish(sf_filter_writer *w, uint32_t bits_per_key) SF_MUST_USE;

#endif
