/* Rows of both block versions (layout: block.h), for block.c and block_cursor.c. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_ROW_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_ROW_H

#include "backend/slatedb/format/block_types.h"

#define SF_ROW_FLAGS_KNOWN (SF_ROW_TOMBSTONE | SF_ROW_HAS_EXPIRE | SF_ROW_HAS_CREATE | SF_ROW_MERGE)

/* A row as stored. The key is `shared` bytes of another key and the suffix. */
typedef struct sf_stored_row {
    uint32_t shared;
    sf_bytes suffix;
    sf_bytes value;
    sf_bytes times; /* 0, 8 or 16 bytes */
    uint64_t seq;
    uint8_t flags;
} sf_stored_row;

static inline bool sf__row_flags_ok(uint8_t flags)
{
    return (flags & ~SF_ROW_FLAGS_KNOWN) == 0 &&
           (flags & (SF_ROW_TOMBSTONE | SF_ROW_MERGE)) != (SF_ROW_TOMBSTONE | SF_ROW_MERGE);
}

static inline bool sf__row_tail(sf_cursor *c, sf_stored_row *r)
{
    size_t n;

    if (!sf_cursor_u64be(c, &r->seq) || !sf_cursor_u8(c, &r->flags) || !sf__row_flags_ok(r->flags))
        return false;
    n = ((r->flags & SF_ROW_HAS_EXPIRE) ? 8u : 0u) + ((r->flags & SF_ROW_HAS_CREATE) ? 8u : 0u);
    return sf_cursor_take(c, n, &r->times);
}

static inline bool sf__row_v1(sf_cursor *in, sf_stored_row *r)
{
    sf_cursor c = *in;
    uint16_t shared, unshared;
    uint32_t value_len = 0;

    if (!sf_cursor_u16be(&c, &shared) || !sf_cursor_u16be(&c, &unshared) || !sf_cursor_take(&c, unshared, &r->suffix) ||
        !sf__row_tail(&c, r))
        return false;
    if (!(r->flags & SF_ROW_TOMBSTONE) && !sf_cursor_u32be(&c, &value_len))
        return false;
    if (!sf_cursor_take(&c, value_len, &r->value))
        return false;
    r->shared = shared;
    *in = c;
    return true;
}

static inline bool sf__row_v2(sf_cursor *in, sf_stored_row *r)
{
    sf_cursor c = *in;
    uint32_t unshared, value_len;

    if (c.n >= 3 && (c.p[0] | c.p[1] | c.p[2]) < 0x80) { /* three lengths of a byte each: nearly all rows */
        r->shared = c.p[0];
        unshared = c.p[1];
        value_len = c.p[2];
        c.p += 3;
        c.n -= 3;
    } else if (!sf_cursor_varint32(&c, &r->shared) || !sf_cursor_varint32(&c, &unshared) ||
               !sf_cursor_varint32(&c, &value_len)) {
        return false;
    }
    if (!sf_cursor_take(&c, unshared, &r->suffix) || !sf_cursor_take(&c, value_len, &r->value) ||
        !sf__row_tail(&c, r) || (value_len != 0 && (r->flags & SF_ROW_TOMBSTONE)))
        return false;
    *in = c;
    return true;
}

static inline void sf__row_out(const sf_stored_row *r, sf_block_row *out)
{
    const uint8_t *create = r->times.p + ((r->flags & SF_ROW_HAS_EXPIRE) ? 8 : 0);

    out->value = r->value;
    out->seq = r->seq;
    out->flags = r->flags;
    out->expire_ts = (r->flags & SF_ROW_HAS_EXPIRE) ? (int64_t)sf_load_be(r->times.p, 8) : 0;
    out->create_ts = (r->flags & SF_ROW_HAS_CREATE) ? (int64_t)sf_load_be(create, 8) : 0;
}

/* i < offset_count. May lie outside the rows. */
static inline size_t sf__block_offset(const sf_block *b, uint32_t i)
{
    return (size_t)(b->offsets[2 * (size_t)i] << 8 | b->offsets[2 * (size_t)i + 1]);
}

/* The rows from `pos` on; false when pos lies outside. */
static inline bool sf__block_rows_from(const sf_block *b, size_t pos, sf_cursor *out)
{
    return pos < b->rows.n && sf_bytes_slice(b->rows, pos, b->rows.n - pos, out);
}

/* Version 2: the last restart whose key is below `key`; *none when there is none. */
sf_status sf__block_restart_below(const sf_block *b, sf_bytes key, uint32_t *restart, bool *none, sf_error *err);
/* Version 1: the first row whose key is >= key (offset_count: none); *first_key = suffix of the first row. */
sf_status sf__block_v1_lower_bound(const sf_block *b, sf_bytes key, uint32_t *row, sf_bytes *first_key, sf_error *err);
/* Version 1: row 0 shares nothing, so its suffix is the first key. */
sf_status sf__block_v1_first_key(const sf_block *b, sf_bytes *first_key, sf_error *err);
sf_status sf__block_bad_row(const sf_block *b, size_t pos, sf_error *err);

#endif
