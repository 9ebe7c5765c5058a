#include "backend/sqlite/record.h"

#include <sqlite3.h>

#define TYPE_NULL 0u
#define TYPE_DOUBLE 7u
#define TYPE_ZERO 8u
#define TYPE_ONE 9u

bool sf__record_varint(sf_cursor *c, uint64_t *out)
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

static uint64_t column_bytes(uint64_t type)
{
    static const uint8_t fixed[SF_RECORD_BLOB] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0};

    return type < SF_RECORD_BLOB ? fixed[type] : (type - SF_RECORD_BLOB) / 2;
}

sf_status sf__record_column(sf_bytes known, uint64_t bytes, uint32_t column, sf_record_column *out)
{
    sf_cursor c = known;
    uint64_t header, off, type = TYPE_NULL;

    if (!sf__record_varint(&c, &header))
        return known.n < bytes ? SF_WOULD_BLOCK : SF_CORRUPT;
    if (header < known.n - c.n || header > bytes)
        return SF_CORRUPT;
    off = header;
    if (header <= known.n) /* what is behind it is no part of it */
        c.n = (size_t)header - (known.n - c.n);
    for (uint32_t i = 0; i <= column; i++) {
        off += column_bytes(type); /* of the column before; there is none before the first */
        if (off > bytes)
            return SF_CORRUPT;
        if (c.n == 0 && header <= known.n) {
            *out = (sf_record_column){.type = TYPE_NULL, .off = off, .missing = true};
            return SF_OK;
        }
        if (!sf__record_varint(&c, &type))
            return header > known.n ? SF_WOULD_BLOCK : SF_CORRUPT;
    }
    if (column_bytes(type) > bytes - off || (type > TYPE_ONE && type < SF_RECORD_BLOB))
        return SF_CORRUPT;
    *out = (sf_record_column){.type = type, .off = off, .n = column_bytes(type)};
    return SF_OK;
}

bool sf__record_integer(const sf_record_column *c, sf_bytes bytes, int64_t *out)
{
    if (c->type == TYPE_ZERO || c->type == TYPE_ONE) {
        *out = c->type == TYPE_ONE;
        return true;
    }
    if (c->type == TYPE_NULL || c->type >= TYPE_DOUBLE || bytes.n != c->n)
        return false;
    *out = (int64_t)(sf_load_be(bytes.p, bytes.n) << (64 - 8 * bytes.n)) >> (64 - 8 * bytes.n);
    return true;
}

sf_buf *sf__record_text(const sf_record_column *c, sf_bytes bytes, bool real, const sf_allocator *a)
{
    char text[64] = "";
    int64_t integer;
    uint64_t bits;
    double number;

    if (c->type == TYPE_DOUBLE && bytes.n == sizeof(bits)) {
        bits = sf_load_be(bytes.p, sizeof(bits));
        memcpy(&number, &bits, sizeof(number));
        sqlite3_snprintf(sizeof(text), text, "%!.15g", number);
    } else if (sf__record_integer(c, bytes, &integer)) {
        if (real)
            sqlite3_snprintf(sizeof(text), text, "%!.15g", (double)integer);
        else
            sqlite3_snprintf(sizeof(text), text, "%lld", (long long)integer);
    }
    return sf__buf_copy(a, sf_bytes_str(text));
}
