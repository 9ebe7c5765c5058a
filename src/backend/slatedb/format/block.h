/* Data blocks (docs/formats/slatedb.md 5.3, 6). Plain block = `rows | offsets u16be[n] | u16be n`.
 *
 *   version 1: an offset per row; a key shares a prefix with the first key of the block
 *     u16be shared | u16be unshared | suffix | u64be seq | u8 flags | [i64be expire] | [i64be create] | [u32be n | value]
 *   version 2: an offset per restart (a row with shared = 0); a key shares a prefix with the key before
 *     varint shared | varint unshared | varint value_len | suffix | value | u64be seq | u8 flags | [expire] | [create]
 *
 * Views borrow the bytes. Pure; any thread (a cursor: one thread at a time). */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_H

#include "backend/slatedb/format/block_types.h"
#include "base/alloc.h"
#include "base/error.h"

/* Of one sf_block_rows: the rows of a block of usual size, and their keys. */
#define SF_BLOCK_ROWS_MAX 128u
#define SF_BLOCK_ROWS_KEY_BYTES 4096u

/* Reads the trailer only: a few ns, for blocks that sf__block_check() passed when they came from storage. Everything
 * below stays inside the bytes whatever they hold, and reports damage that it meets as SF_CORRUPT. */
sf_status sf__block_init(sf_block *out, sf_bytes plain, unsigned version, sf_error *err) SF_MUST_USE;
/* Once per block read from storage: walks all rows. Lengths, flags, restarts; not the order of the keys (WAL blocks
 * have none). */
sf_status sf__block_check(sf_bytes plain, unsigned version, sf_error *err) SF_MUST_USE;

/* The newest row of `key` with seq <= max_seq: *found and *row (tombstones and merge operands are rows like others).
 * Not found here: the next candidate block may still have it. No allocation, no copy of keys. */
sf_status sf__block_get(const sf_block *b, sf_bytes key, uint64_t max_seq, bool *found, sf_block_row *row, sf_error *err)
    SF_MUST_USE;

/* Walks all rows, every version of a key: forwards after first / seek_ge, backwards after last / seek_lt. A call that
 * fails leaves valid = false. Versions of one key come newest first forwards, oldest first backwards. */
typedef struct sf_block_cursor {
    bool valid; /* row is set; false at the end */
    sf_block_row row;
    /* Forwards: the row's key against that of the row shown before it, in this block or another: < 0, 0 or > 0. 1 for the
     * first row of all. */
    int order;
    /* the rest is private */
    sf_block block;
    const sf_allocator *alloc;
    sf_bytes first_key; /* version 1: of the block's first row, in the block */
    uint8_t *keys;      /* forwards: the current key; backwards: the keys of one section */
    size_t keys_cap;
    bool backwards;
    size_t pos;                  /* forwards: of the next row */
    size_t key_len;              /* forwards: of the current key */
    bool has_last;               /* forwards: `keys` holds the key of the row shown last, */
    size_t last_len;             /* of this length */
    struct section_row *section; /* backwards: rows that are decoded together */
    size_t section_cap;
    size_t section_left;  /* rows of it not yet shown */
    uint32_t groups_left; /* of rows, from one restart to the next, not yet decoded */
} sf_block_cursor;

void sf__block_cursor_init(sf_block_cursor *c, const sf_allocator *a);
/* Takes an initialised or zeroed cursor. */
void sf__block_cursor_cleanup(sf_block_cursor *c);
/* Puts the cursor on another block, not on a row; keeps its memory. The block's bytes must stay until the next. */
void sf__block_cursor_set(sf_block_cursor *c, const sf_block *b);

sf_status sf__block_cursor_first(sf_block_cursor *c, sf_error *err) SF_MUST_USE;
/* First row (newest version) with a key >= `key`, which must not lie in this cursor. */
sf_status sf__block_cursor_seek_ge(sf_block_cursor *c, sf_bytes key, sf_error *err) SF_MUST_USE;
sf_status sf__block_cursor_next(sf_block_cursor *c, sf_error *err) SF_MUST_USE;
/* Forwards: of the row shown last, also behind the end; NULL: none was. Until the next call. */
static inline sf_bytes sf__block_cursor_last_key(const sf_block_cursor *c)
{
    return c->has_last ? (sf_bytes){c->keys, c->last_len} : (sf_bytes){0};
}

/* Rows as a scan shows them: of each key the newest version that may be seen, unless that is a tombstone. */
typedef struct sf_block_rows {
    /* set by the owner */
    uint64_t max_seq; /* what is newer is passed over */
    size_t most;      /* rows, SF_BLOCK_ROWS_MAX at most */
    bool has_end;
    sf_bytes end; /* forwards: above all keys that are wanted; backwards: below them, and is left to steps itself */
    /* filled */
    bool new_key; /* forwards: the row passed last has another key than the last version that might be seen */
    size_t count;
    sf_row rows[SF_BLOCK_ROWS_MAX];
    size_t key_bytes;
    uint8_t keys[SF_BLOCK_ROWS_KEY_BYTES + 16]; /* forwards: of the rows, and of those between them; then what copies in steps of 16 may read */
} sf_block_rows;

/* Forwards, at a row that shows: that one and those behind it, all of which the cursor passes: up to the end of the block, or as many as
 * there is room for, or up to a row that wants a closer look (damage, a merge operand, out of order, above the end), which the next step
 * meets. Backwards, at a row that may be seen: likewise, but there may be none that show, and a key is passed with all of its versions: those of
 * the first key of what is decoded together may go on in front of it. Keys and values are valid until the cursor moves. False: no row shows, and the
 * cursor stays at the one where it is. */
bool sf__block_cursor_rows(sf_block_cursor *c, sf_block_rows *out);

sf_status sf__block_cursor_last(sf_block_cursor *c, sf_error *err) SF_MUST_USE;
/* Last row (oldest version) with a key < `key`, which must not lie in this cursor. */
sf_status sf__block_cursor_seek_lt(sf_block_cursor *c, sf_bytes key, sf_error *err) SF_MUST_USE;
sf_status sf__block_cursor_prev(sf_block_cursor *c, sf_error *err) SF_MUST_USE;

#endif
