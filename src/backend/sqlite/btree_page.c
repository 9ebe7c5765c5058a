#include "backend/sqlite/btree_page.h"

#include "backend/sqlite/record.h"

#define PAGE_BYTES_OFF 16u
/* type, name, tbl_name, rootpage */
#define SCHEMA_ROOT_COLUMN 3u

static size_t header_off(uint32_t number)
{
    return number == 1 ? SF_DB_HEADER_BYTES : 0;
}

bool sf__btree_page_bytes(sf_bytes head, uint32_t *out)
{
    uint32_t bytes;

    if (head.n < PAGE_BYTES_OFF + 2)
        return false;
    bytes = (uint32_t)sf_load_be(head.p + PAGE_BYTES_OFF, 2);
    if (bytes == 1)
        bytes = 65536;
    if (bytes < 512 || (bytes & (bytes - 1)) != 0)
        return false;
    *out = bytes;
    return true;
}

bool sf__btree_page_type_known(sf_bytes page, uint32_t number)
{
    size_t off = header_off(number);

    if (page.n <= off)
        return false;
    switch (page.p[off]) {
    case SF_BTREE_INDEX_INTERIOR:
    case SF_BTREE_TABLE_INTERIOR:
    case SF_BTREE_INDEX_LEAF:
    case SF_BTREE_TABLE_LEAF:
        return true;
    default:
        return false;
    }
}

bool sf__btree_header_decode(sf_btree_header *h, sf_bytes page, uint32_t number)
{
    size_t off = header_off(number);
    const uint8_t *p;
    size_t n;

    if (!sf__btree_page_type_known(page, number))
        return false;
    p = page.p + off;
    *h = (sf_btree_header){.type = p[0]};
    h->interior = h->type == SF_BTREE_INDEX_INTERIOR || h->type == SF_BTREE_TABLE_INTERIOR;
    h->table = h->type == SF_BTREE_TABLE_INTERIOR || h->type == SF_BTREE_TABLE_LEAF;
    n = h->interior ? SF_BTREE_INTERIOR_HEADER_BYTES : SF_BTREE_LEAF_HEADER_BYTES;
    if (page.n - off < n)
        return false;
    h->cells = (uint32_t)sf_load_be(p + 3, 2);
    h->content_off = (uint32_t)sf_load_be(p + 5, 2);
    if (h->content_off == 0)
        h->content_off = 65536;
    if (h->interior)
        h->right_child = (uint32_t)sf_load_be(p + 8, 4);
    h->cells_off = (uint32_t)(off + n);
    return true;
}

bool sf__btree_gap(sf_bytes page, uint32_t number, uint32_t page_bytes, size_t *from, size_t *to)
{
    sf_btree_header h;

    *from = *to = 0;
    if (!sf__btree_header_decode(&h, page, number))
        return !sf__btree_page_type_known(page, number) && page.n == page_bytes;
    *from = h.cells_off + 2 * (size_t)h.cells;
    *to = h.content_off;
    return *from <= *to && *to <= page_bytes;
}

size_t sf__btree_local_bytes(uint64_t payload, bool table, size_t usable)
{
    uint64_t most = table ? usable - 35 : sf__btree_local_max((uint32_t)usable);
    uint64_t least = (usable - 12) * 32 / 255 - 23, n;

    if (payload <= most)
        return (size_t)payload;
    n = least + (payload - least) % (usable - 4);
    return (size_t)(n <= most ? n : least);
}

bool sf__btree_cell_decode(sf_btree_cell *cell, const sf_btree_header *h, sf_bytes page, uint32_t i)
{
    sf_btree_cell found = {0};
    sf_cursor c;
    sf_bytes pointer;
    uint64_t row_id = 0;
    size_t off, local;

    if (i >= h->cells || !sf_bytes_slice(page, h->cells_off + 2 * (uint64_t)i, 2, &pointer))
        return false;
    off = (size_t)sf_load_be(pointer.p, 2);
    if (off < h->cells_off || off > page.n || !sf_bytes_slice(page, off, page.n - off, &c))
        return false;
    if (h->interior && !sf_cursor_u32be(&c, &found.left_child))
        return false;
    if (!(h->interior && h->table) && !sf__record_varint(&c, &found.payload_bytes))
        return false;
    if (h->table && !sf__record_varint(&c, &row_id))
        return false;
    found.row_id = (int64_t)row_id;
    if (h->interior && h->table) { /* without a row */
        *cell = found;
        return true;
    }
    local = sf__btree_local_bytes(found.payload_bytes, h->table, page.n);
    if (!sf_cursor_take(&c, local, &found.local))
        return false;
    if (local < found.payload_bytes && (!sf_cursor_u32be(&c, &found.overflow) || found.overflow == 0))
        return false;
    *cell = found;
    return true;
}

bool sf__btree_schema_root(sf_bytes payload, uint32_t *root)
{
    sf_record_column column;
    sf_bytes value;
    int64_t n = 0;

    if (sf__record_column(payload, payload.n, SCHEMA_ROOT_COLUMN, &column) != SF_OK || column.missing ||
        !sf_bytes_slice(payload, column.off, column.n, &value))
        return false;
    if (column.type != 0 && (!sf__record_integer(&column, value, &n) || n < 0 || n > UINT32_MAX)) /* 0: NULL */
        return false;
    *root = (uint32_t)n;
    return true;
}
