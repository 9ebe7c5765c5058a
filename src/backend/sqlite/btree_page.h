/* Pages of SQLite's b-trees as bytes: headers and cells, as its file format describes them. Pages have no reserved
 * bytes. Pure; any thread.
 *
 *     type u8 | first free block u16 | cells u16 | content start u16 (0: 65536) | fragments u8 | [right child u32] |
 *     cell pointers u16 each | gap | cells                    integers are big-endian; page 1 has 100 bytes in front */
#ifndef SF_BACKEND_SQLITE_BTREE_PAGE_H
#define SF_BACKEND_SQLITE_BTREE_PAGE_H

#include "base/bytes.h"

#define SF_DB_HEADER_BYTES 100u
#define SF_BTREE_LEAF_HEADER_BYTES 8u
#define SF_BTREE_INTERIOR_HEADER_BYTES 12u
#define SF_DB_MAGIC "SQLite format 3" /* with its end */

typedef enum sf_btree_type {
    SF_BTREE_INDEX_INTERIOR = 2,
    SF_BTREE_TABLE_INTERIOR = 5,
    SF_BTREE_INDEX_LEAF = 10,
    SF_BTREE_TABLE_LEAF = 13
} sf_btree_type;

typedef struct sf_btree_header {
    sf_btree_type type;
    bool interior, table;
    uint32_t cells;
    uint32_t content_off; /* of the first cell's bytes, in the page */
    uint32_t right_child; /* interior; 0 on leaves */
    uint32_t cells_off;   /* of the cell pointers, in the page */
} sf_btree_header;

/* One cell. A WITHOUT ROWID table is an index: all of its interior cells have payload. */
typedef struct sf_btree_cell {
    uint32_t left_child;    /* interior */
    int64_t row_id;         /* tables */
    uint64_t payload_bytes; /* in all; 0 for interior cells of tables */
    sf_bytes local;         /* the part in this page */
    uint32_t overflow;      /* page that the rest begins on; 0: all is local */
} sf_btree_cell;

/* Of the whole file's head, as far as it is there; false when it tells no size that pages have. */
bool sf__btree_page_bytes(sf_bytes head, uint32_t *out) SF_MUST_USE;
/* Whether the type byte is one of a b-tree. */
bool sf__btree_page_type_known(sf_bytes page, uint32_t number);
/* `page` may be the first part only. False when it is too short or of no b-tree. */
bool sf__btree_header_decode(sf_btree_header *h, sf_bytes page, uint32_t number) SF_MUST_USE;
/* The i-th cell of the whole page; false when it does not lie inside. */
bool sf__btree_cell_decode(sf_btree_cell *cell, const sf_btree_header *h, sf_bytes page, uint32_t i) SF_MUST_USE;
/* The gap between its cell pointers and its cells, from its first bytes (all that are there): [*from, *to) within page_bytes, empty
 * for a page that is not of a b-tree. False when they make no sense. */
bool sf__btree_gap(sf_bytes page, uint32_t number, uint32_t page_bytes, size_t *from, size_t *to) SF_MUST_USE;
/* How much of a row a page of an index holds itself at most. */
static inline uint32_t sf__btree_local_max(uint32_t usable)
{
    return (usable - 12) * 64 / 255 - 23;
}
/* How much of a payload lies in its page itself. */
size_t sf__btree_local_bytes(uint64_t payload, bool table, size_t usable);
/* The fourth column of a row of the schema table; 0 for what has no b-tree (a view). False when it is not all local. */
bool sf__btree_schema_root(sf_bytes payload, uint32_t *root) SF_MUST_USE;

#endif
