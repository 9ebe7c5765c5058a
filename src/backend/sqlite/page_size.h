/* Which page size "auto" stands for (docs/formats/snapshot.md 8.2): the smallest at which the 95th percentile of value
 * lengths (nearest rank), the longest key and 12 bytes fit into a page without an overflow chain; the largest when none
 * is large enough. Rows are counted as they arrive. Pure; one thread. */
#ifndef SF_BACKEND_SQLITE_PAGE_SIZE_H
#define SF_BACKEND_SQLITE_PAGE_SIZE_H

#include "backend/sqlite/btree_page.h"
#include "base/alloc.h"

#define SF_SQLITE_PAGE_BYTES_MIN 4096u
#define SF_SQLITE_PAGE_BYTES_MAX 65536u

typedef struct sf_page_size_picker {
    const sf_allocator *alloc;
    uint64_t *values; /* how many are 0, 1, ... bytes long, up to the largest length that may matter */
    uint64_t rows;
    size_t longest_key;
} sf_page_size_picker;

bool sf__page_size_picker_init(sf_page_size_picker *p, const sf_allocator *a) SF_MUST_USE; /* false without memory */
void sf__page_size_picker_add(sf_page_size_picker *p, size_t key_bytes, size_t value_bytes);
uint32_t sf__page_size_picker_choose(const sf_page_size_picker *p);
void sf__page_size_picker_cleanup(sf_page_size_picker *p); /* takes a zeroed one */

#endif
