#include "backend/sqlite/btree_page.h"

#define LEAF_HEADER_BYTES 8u
#define INTERIOR_HEADER_BYTES 12u
/* type, name, tbl_name, rootpage */
#define SCHEMA_ROOT_COLUMN 3u

static size_t header_off(uint32_t number)
{
    return number == 1 ? SF_DB_HEADER_BYTES : 0;
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
    n = h->interior ? INTERIOR_HEADER_BYTES : LEAF_HEADER_BYTES;
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

/* Most significant group first; the ninth byte counts whole. */
static bool take_varint(sf_cursor *c, uint64_t *out)
{
    uint64_t v = 0;

    for (size_t i = 0; i < 9 && i < c->n; i++) {
        uint8_t b = c->p[i];

        if (i == 8 || b < 0x80) {
            *out = i == 8 ? v << 8 | b : v << 7 | b;
            c->p += i + 1;
            c->n -= i + 1;
            return true;
        }
        v = v << 7 | (b & 0x7f);
    }
    return false;
}

/* How much of a payload lies in the page. */
static size_t local_bytes(uint64_t payload, bool table, size_t usable)
{
    uint64_t most = table ? usable - 35 : (usable - 12) * 64 / 255 - 23;
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
    uint64_t row_id;
    size_t off, local;

    if (i >= h->cells || !sf_bytes_slice(page, h->cells_off + 2 * (uint64_t)i, 2, &pointer))
        return false;
    off = (size_t)sf_load_be(pointer.p, 2);
    if (off < h->cells_off || off > page.n || !sf_bytes_slice(page, off, page.n - off, &c))
        return false;
    if (h->interior && !sf_cursor_u32be(&c, &found.left_child))
        return false;
    if (h->interior && h->table) {
        *cell = found; /* only a row id follows */
        return true;
    }
    if (!take_varint(&c, &found.payload_bytes) || (h->table && !take_varint(&c, &row_id)))
        return false;
    local = local_bytes(found.payload_bytes, h->table, page.n);
    if (!sf_cursor_take(&c, local, &found.local))
        return false;
    if (local < found.payload_bytes && (!sf_cursor_u32be(&c, &found.overflow) || found.overflow == 0))
        return false;
    *cell = found;
    return true;
}

/* Bytes of a column, by its serial type. */
static uint64_t column_bytes(uint64_t type)
{
    static const uint8_t fixed[] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0};

    return type < sizeof(fixed) ? fixed[type] : (type - 12) / 2;
}

bool sf__btree_schema_root(sf_bytes payload, uint32_t *root)
{
    sf_cursor c = payload, header;
    sf_bytes value;
    uint64_t header_bytes, type = 0, before = 0;

    if (!take_varint(&c, &header_bytes) || header_bytes < payload.n - c.n ||
        !sf_bytes_slice(payload, payload.n - c.n, header_bytes - (payload.n - c.n), &header))
        return false;
    for (unsigned column = 0; column <= SCHEMA_ROOT_COLUMN; column++) {
        before += column_bytes(type); /* of the column before; type 0 has none */
        if (before > payload.n || !take_varint(&header, &type))
            return false;
    }
    if (!sf_bytes_slice(payload, header_bytes, payload.n - header_bytes, &c) ||
        !sf_bytes_slice(c, before, column_bytes(type), &value))
        return false;
    if (type == 0 || type == 8 || type == 9) { /* NULL and the constants 0 and 1 */
        *root = type == 9 ? 1 : 0;
        return true;
    }
    if (type > 6 || sf_load_be(value.p, value.n) > UINT32_MAX)
        return false;
    *root = (uint32_t)sf_load_be(value.p, value.n);
    return true;
}
