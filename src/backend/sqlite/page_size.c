#include "backend/sqlite/page_size.h"

/* What the rule adds to key and value: the record's header and the cell's. */
#define CELL_OVERHEAD_BYTES 12u

bool sf__page_size_picker_init(sf_page_size_picker *p, const sf_allocator *a)
{
    *p = (sf_page_size_picker){.alloc = a};
    p->values = sf__calloc(a, sf__btree_local_max(SF_SQLITE_PAGE_BYTES_MAX) + 1, sizeof(*p->values));
    return p->values != NULL;
}

void sf__page_size_picker_cleanup(sf_page_size_picker *p)
{
    if (p->values)
        sf__free(p->alloc, p->values);
    p->values = NULL;
}

void sf__page_size_picker_add(sf_page_size_picker *p, size_t key_bytes, size_t value_bytes)
{
    p->rows++;
    if (key_bytes > p->longest_key)
        p->longest_key = key_bytes;
    if (value_bytes <= sf__btree_local_max(SF_SQLITE_PAGE_BYTES_MAX))
        p->values[value_bytes]++;
}

uint32_t sf__page_size_picker_choose(const sf_page_size_picker *p)
{
    uint64_t rank = p->rows - p->rows / 20; /* 95 % of the rows, rounded up */
    uint64_t below = 0;                     /* values shorter than `length` */
    uint32_t page = SF_SQLITE_PAGE_BYTES_MIN, length = 0;

    for (; page < SF_SQLITE_PAGE_BYTES_MAX; page *= 2) {
        uint32_t limit = sf__btree_local_max(page);

        if (p->longest_key > limit - CELL_OVERHEAD_BYTES)
            continue;
        for (; length <= limit - CELL_OVERHEAD_BYTES - p->longest_key; length++)
            below += p->values[length];
        if (below >= rank)
            break;
    }
    return page;
}
