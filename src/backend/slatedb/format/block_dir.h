/* A directory of a data block's rows, made when the block comes into memory to stay there: where each row lies, and how its key begins.
 * A look-up then costs a line or two of it and the row itself, where a search of the block (block.h) reads its end, some restarts, and
 * rows up to the one that is asked for. It stands in front of the block, in its buffer (sf_buf.front):
 *
 *   sf_block_dir | rest of the prefix, filled up to 8 bytes | heads[rows] | fill | u16 offsets[rows + 1] | fill | the block
 *
 * All keys begin with a prefix. A head is the next 2, 4 or 8 bytes of a key as a number that sorts like them, a shorter rest filled up with
 * zeroes. What a row shares with another row's key lies in prefix and head, so that these and its suffix decide; and where no key is
 * longer than these, they and the key's length. Made of a block that was checked; files that processes map have it, too (cache/image_file.h), and there it
 * is believed only where it is what would be made. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_BLOCK_DIR_H
#define SF_BACKEND_SLATEDB_FORMAT_BLOCK_DIR_H

#include "backend/slatedb/format/block_row.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/plain_room.h"

typedef struct sf_block_dir {
    uint16_t count;      /* rows */
    uint16_t offsets_at; /* bytes from here to the offsets: at most MAX_ROW_AREA / 12 rows have heads before them */
    uint8_t prefix_len;
    uint8_t head_bytes;
    uint8_t head_shift;  /* in_word: below a head in the first 8 bytes of a key, so many bits */
    uint8_t version : 2; /* of the block */
    bool in_word : 1;    /* prefix and head lie in the first 8 bytes of a key */
    bool whole : 1;      /* they are all of each key */
    bool quick : 1;      /* in_word, and all heads, of 2 bytes, are compared at once */
    bool plain : 1;  /* quick, whole; rows as nearly all are, all keys of that length, each with a head of its own */
    uint64_t prefix; /* its first 8 bytes as a number, filled up with zeroes; the rest follows */
} sf_block_dir;

#define SF_BLOCK_DIR_LANES \
    16u /* heads of 2 bytes that are compared at once: filled up to a multiple of it with the largest */
#define SF_BLOCK_DIR_ALL 64u /* so many of them are compared without a search */

/* `plain` = a block that sf__block_check() has passed. *out is the caller's reference: a buffer with the same content and a directory, or
 * `plain` itself, where that would not help: rows that share much more than all do, a key with very many versions, a block of one
 * large row. It is taken from `slab`, where that is not NULL and has room, else from `a`. SF_WOULD_BLOCK when the directory does not fit
 * into `room` (NULL: no bound): before it is made. */
sf_status sf__block_dir_make(sf_plain_room *room, sf_buf *plain, unsigned version, const sf_allocator *slab,
                             const sf_allocator *a, sf_buf **out, sf_error *err) SF_MUST_USE;

/* ------------------------------------------------------------------ looking up ----------------------------------- */

static inline size_t sf__block_dir_heads_at(const sf_block_dir *d)
{
    return sizeof(*d) + (d->prefix_len > 8 ? (d->prefix_len - 1u) / 8 * 8 : 0);
}

static inline const uint16_t *sf__block_dir_offsets(const sf_block_dir *d)
{
    return (const uint16_t *)((const uint8_t *)d + d->offsets_at);
}

/* Heads of 2 bytes are kept as numbers with a sign, which processors compare many at once. */
static inline int16_t sf__block_dir_signed(uint64_t head)
{
    return (int16_t)(uint16_t)(head ^ 0x8000);
}

/* How many of some heads are below one. */
static inline __attribute__((always_inline)) size_t sf__block_dir_count_below(const int16_t *heads, size_t count,
                                                                              int16_t head)
{
    typedef int16_t lanes __attribute__((vector_size(SF_BLOCK_DIR_LANES), aligned(8), may_alias)); /* half of them */
    lanes sum = {0}, more = {0}, all = head - (lanes){0};
    uint64_t halves[2];

    for (size_t i = 0; i < count; i += SF_BLOCK_DIR_LANES) {
        sum -= *(const lanes *)(heads + i) < all;
        more -= *(const lanes *)(heads + i + SF_BLOCK_DIR_LANES / 2) < all;
    }
    sum += more;
    memcpy(halves, &sum, sizeof(halves));
    return (size_t)((halves[0] + halves[1]) * UINT64_C(0x0001000100010001) >> 48);
}

/* As below, for keys and directories that need more than that. */
uint32_t sf__block_dir_search(const sf_buf *plain, sf_bytes key);
sf_status sf__block_dir_walk(const sf_buf *plain, sf_bytes key, uint32_t first, uint64_t max_seq, bool *found,
                             sf_block_row *row, sf_error *err) SF_MUST_USE;

/* The same, of a quick one. */
static inline __attribute__((always_inline)) uint32_t sf__block_dir_quick_seek(const sf_block_dir *d, sf_bytes key)
{
    const int16_t *heads = (const int16_t *)(d + 1); /* the prefix has no rest */
    uint64_t head = (sf_bytes_head(key, 0) ^ d->prefix) >> d->head_shift;
    size_t i;

    if (head > UINT16_MAX)
        return d->count;
    i = sf__block_dir_count_below(heads, d->count, sf__block_dir_signed(head));
    return i < d->count && heads[i] == sf__block_dir_signed(head) ? (uint32_t)i : d->count;
}

/* The first row that may have the key, by the directory, which is there; the number of rows: none has. */
static inline uint32_t sf__block_dir_seek(const sf_buf *plain, sf_bytes key)
{
    const sf_block_dir *d = (const sf_block_dir *)plain->data;

    return d->quick ? sf__block_dir_quick_seek(d, key) : sf__block_dir_search(plain, key);
}

/* Such a row as it is stored, with nothing behind it. */
static inline sf_bytes sf__block_dir_row(const sf_buf *plain, uint32_t row)
{
    const uint16_t *offsets = sf__block_dir_offsets((const sf_block_dir *)plain->data) + row;

    return (sf_bytes){plain->data + plain->front + offsets[0], (size_t)(offsets[1] - offsets[0])};
}

#define SF_BLOCK_DIR_FETCHED_BYTES 256u

/* Such a row, into the processor's cache. (Inlined always: GCC leaves calls of a function out that does nothing but fetch.) Rows have tens or hundreds of bytes; how many is known only when their first ones are there. */
static inline __attribute__((always_inline)) void sf__block_dir_fetch(sf_bytes row)
{
    size_t n = row.n < SF_BLOCK_DIR_FETCHED_BYTES ? row.n : SF_BLOCK_DIR_FETCHED_BYTES;

    __builtin_prefetch(row.p);
    for (size_t k = 64; k < n; k += 64)
        __builtin_prefetch(row.p + k);
    __builtin_prefetch(row.p + n - 1);
}

/* A row as nearly all are: version 2, short lengths, no times. It ends where the next one begins. */
static inline bool sf__block_dir_plain_row(sf_bytes row, sf_stored_row *r)
{
    const uint8_t *p = row.p;
    size_t n = row.n, value_len, body = 3;

    if (n < 13 || (p[0] | p[1]) >= 0x80)
        return false;
    value_len = p[2];
    if (value_len >= 0x80) {
        if (p[3] >= 0x80)
            return false;
        value_len = (value_len & 0x7f) | (size_t)p[3] << 7;
        body = 4;
    }
    r->shared = p[0];
    r->suffix = (sf_bytes){p + body, p[1]};
    r->value = (sf_bytes){p + body + p[1], value_len};
    r->flags = 0;
    body += p[1] + value_len;
    if (n != body + 9 || p[n - 1] != 0)
        return false;
    r->seq = sf_load_be(p + body, 8);
    return true;
}

/* In a plain directory: the row of the key, which is the only one; false: there is none. */
static inline __attribute__((always_inline)) bool sf__block_dir_plain_seek(const sf_buf *plain, sf_bytes key,
                                                                           sf_bytes *row)
{
    const sf_block_dir *d = (const sf_block_dir *)plain->data;
    uint32_t i = key.n == d->prefix_len + 2u ? sf__block_dir_quick_seek(d, key) : d->count;

    if (i == d->count)
        return false;
    *row = sf__block_dir_row(plain, i);
    return true;
}

/* Its value, which was checked when the directory was made; false: the row is newer than that. */
static inline bool sf__block_dir_plain_value(sf_bytes row, uint64_t max_seq, sf_bytes *value)
{
    size_t before = 3u + row.p[1] + (row.p[2] >> 7), behind = 9;

    *value = (sf_bytes){row.p + before, row.n - before - behind};
    return sf_load_be(row.p + row.n - behind, 8) <= max_seq;
}

/* As sf__block_get(), with what that has found. */
SF_MUST_USE static inline sf_status sf__block_dir_get(const sf_buf *plain, sf_bytes key, uint32_t first,
                                                      uint64_t max_seq, bool *found, sf_block_row *row, sf_error *err)
{
    const sf_block_dir *d = (const sf_block_dir *)plain->data;
    sf_stored_row r;

    *found = false;
    if (first == d->count)
        return SF_OK;
    if (d->version != 2 || !sf__block_dir_plain_row(sf__block_dir_row(plain, first), &r) ||
        r.shared + r.suffix.n != key.n || !(d->whole || sf_bytes_same(r.suffix.p, key.p + r.shared, r.suffix.n)) ||
        r.seq > max_seq)
        return sf__block_dir_walk(plain, key, first, max_seq, found, row, err);
    *row = (sf_block_row){.key = key, .value = r.value, .seq = r.seq};
    *found = true;
    return SF_OK;
}

#endif
