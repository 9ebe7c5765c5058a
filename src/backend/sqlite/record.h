/* Records of SQLite's file format, as rows of tables and indexes are stored. Pure; any thread.
 *
 *     varint header length (its own bytes included) | varint serial type of each column | columns
 *
 *     serial types: 0 NULL | 1-6 integers of 1, 2, 3, 4, 6, 8 bytes | 7 double | 8, 9 the integers 0, 1 | 10, 11 never |
 *     even from 12 on a blob of (N - 12) / 2 bytes | odd from 13 on a text of (N - 13) / 2 bytes */
#ifndef SF_BACKEND_SQLITE_RECORD_H
#define SF_BACKEND_SQLITE_RECORD_H

#include "base/buf.h"
#include "base/error.h"

/* Most significant group first; the ninth byte counts whole. */
bool sf__record_varint(sf_cursor *c, uint64_t *out) SF_MUST_USE;

/* Its bytes, nine at most; `v` is below 2^56. */
static inline size_t sf__record_varint_put(uint8_t *out, uint64_t v)
{
    size_t n = 1;

    for (uint64_t rest = v >> 7; rest > 0; rest >>= 7)
        n++;
    for (size_t i = n; i-- > 0; v >>= 7)
        out[i] = (uint8_t)((v & 0x7f) | (i + 1 < n ? 0x80 : 0));
    return n;
}

/* Serial types of what has no bytes. */
#define SF_RECORD_BLOB 12u
#define SF_RECORD_TEXT 13u

typedef struct sf_record_column {
    uint64_t type;
    uint64_t off, n; /* in the record */
    bool missing;    /* the record ends before it */
} sf_record_column;

/* Where a column lies in a record of `bytes` bytes, of which `known` are the first. One that the record ends before is NULL.
 * SF_WOULD_BLOCK: not all of the header is known. SF_CORRUPT: no record. */
sf_status sf__record_column(sf_bytes known, uint64_t bytes, uint32_t column, sf_record_column *out) SF_MUST_USE;

static inline bool sf__record_is_blob(const sf_record_column *c)
{
    return c->type >= SF_RECORD_BLOB && c->type % 2 == 0;
}

/* Of a column that is an integer; its bytes. False when it is none. */
bool sf__record_integer(const sf_record_column *c, sf_bytes bytes, int64_t *out) SF_MUST_USE;
/* Of a column that is no blob and no text: the text that SQLite makes of it, empty for NULL; `real`: what integers are, too. NULL
 * without memory. */
sf_buf *sf__record_text(const sf_record_column *c, sf_bytes bytes, bool real, const sf_allocator *a) SF_MUST_USE;

#endif
