#include "backend/slatedb/format/block_dir.h"

#include <assert.h>

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/block_row.h"
#include "backend/slatedb/format/compress.h" /* SF_TRANSFORMER_HINT */

#define MAX_HEAD_BYTES 8u
#define MAX_PREFIX_BYTES 240u
#define KEY_BYTES (MAX_PREFIX_BYTES + MAX_HEAD_BYTES) /* what matters here of a key */
#define MAX_SAME_HEADS 16u                            /* rows that a look-up compares, at most */
#define MAX_ROW_AREA UINT16_MAX
#define ROW_MIN_BYTES 12u

static_assert(sizeof(sf_block_dir) + MAX_PREFIX_BYTES +
                      (size_t)(MAX_ROW_AREA / ROW_MIN_BYTES + SF_BLOCK_DIR_LANES) * MAX_HEAD_BYTES <=
                  UINT16_MAX,
              "offsets_at holds it");

/* ------------------------------------------------------------------ making it ------------------------------------ */

/* The rows of a block one after the other, with the beginnings of their keys. */
struct row_walk {
    const sf_block *block;
    sf_cursor left;
    sf_stored_row row;
    size_t off;               /* of the row */
    size_t key_len;           /* all of it */
    size_t first_len;         /* version 1: of the first key, */
    uint8_t first[KEY_BYTES]; /* which begins so */
    uint8_t key[KEY_BYTES];
};

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void walk_begin(struct row_walk *w, const sf_block *b)
{
    w->block = b;
    w->left = b->rows;
    w->key_len = 0;
}

/* False behind the last row, or at what is none. */
static bool walk_on(struct row_walk *w)
{
    sf_stored_row *r = &w->row;
    bool v1 = w->block->version == 1;
    size_t keep;

    w->off = w->block->rows.n - w->left.n;
    if (w->left.n == 0 || !(v1 ? sf__row_v1(&w->left, r) : sf__row_v2(&w->left, r)))
        return false;
    if (v1 && w->off > 0)
        memcpy(w->key, w->first, at_most(w->first_len, KEY_BYTES));
    keep = at_most(r->shared, KEY_BYTES);
    if (r->suffix.n > 0)
        memcpy(w->key + keep, r->suffix.p, at_most(r->suffix.n, KEY_BYTES - keep));
    w->key_len = r->shared + r->suffix.n;
    if (w->off == 0) {
        w->first_len = w->key_len;
        memcpy(w->first, w->key, at_most(w->key_len, KEY_BYTES));
    }
    return true;
}

/* What is found out about the rows of a block. */
struct survey {
    size_t count, prefix_len, longest, most_shared;
    unsigned head_bytes;
    uint64_t prefix; /* as a directory has it */
};

static bool survey_take(struct survey *s, const sf_block *b)
{
    struct row_walk w;

    *s = (struct survey){.prefix_len = MAX_PREFIX_BYTES};
    walk_begin(&w, b);
    while (walk_on(&w)) {
        size_t n = at_most(s->prefix_len, w.key_len), k = 0;

        while (k < n && w.key[k] == w.first[k])
            k++;
        s->prefix_len = k;
        s->longest = w.key_len > s->longest ? w.key_len : s->longest;
        s->most_shared = w.row.shared > s->most_shared ? w.row.shared : s->most_shared;
        s->count++;
    }
    s->head_bytes = s->longest <= s->prefix_len + 2 ? 2 : s->longest <= s->prefix_len + 4 ? 4 : MAX_HEAD_BYTES;
    if (s->longest <= 8) /* so that both lie in a word */
        s->prefix_len = at_most(s->prefix_len, 8 - s->head_bytes);
    s->prefix = s->count > 0 ? sf_bytes_head((sf_bytes){w.first, s->prefix_len}, 0) : 0;
    return w.left.n == 0 && s->count <= MAX_ROW_AREA / ROW_MIN_BYTES && s->most_shared <= s->prefix_len + s->head_bytes;
}

/* The first `n` bytes of s from `skip` on as a number. */
static inline uint64_t head_of(sf_bytes s, size_t skip, unsigned n)
{
    return sf_bytes_head(s, skip) >> (64 - 8 * n);
}

static size_t fill_to(size_t n, size_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static inline uint64_t head_at(const uint8_t *heads, unsigned head_bytes, size_t i)
{
    return head_bytes == 2   ? (uint16_t)((const uint16_t *)heads)[i] ^ 0x8000u
           : head_bytes == 4 ? ((const uint32_t *)heads)[i]
                             : ((const uint64_t *)heads)[i];
}

static void head_put(uint8_t *heads, unsigned head_bytes, size_t i, uint64_t head)
{
    if (head_bytes == 2)
        ((int16_t *)heads)[i] = sf__block_dir_signed(head);
    else if (head_bytes == 4)
        ((uint32_t *)heads)[i] = (uint32_t)head;
    else
        ((uint64_t *)heads)[i] = head;
}

static size_t dir_bytes(const sf_block_dir *d)
{
    return fill_to(d->offsets_at + (d->count + 1u) * sizeof(uint16_t), 8);
}

/* What stands before the prefix's rest and the heads. */
static sf_block_dir dir_of(const struct survey *s, const sf_block *b)
{
    bool in_word = s->prefix_len + s->head_bytes <= 8;
    sf_block_dir d = {
        .count = (uint16_t)s->count,
        .prefix_len = (uint8_t)s->prefix_len,
        .head_bytes = (uint8_t)s->head_bytes,
        .head_shift = in_word ? (uint8_t)(64 - 8 * (s->prefix_len + s->head_bytes)) : 0,
        .version = b->version == 1 ? 1 : 2,
        .in_word = in_word,
        .whole = s->longest <= s->prefix_len + s->head_bytes,
        .quick = in_word && s->head_bytes == 2 && s->count <= SF_BLOCK_DIR_ALL,
        .prefix = s->prefix,
    };

    d.offsets_at = (uint16_t)(sf__block_dir_heads_at(&d) +
                              fill_to(s->count, s->head_bytes == 2 ? SF_BLOCK_DIR_LANES : 1) * s->head_bytes);
    return d;
}

/* Whether all rows are as `plain` has it; the rest is filled. */
static bool all_plain(const sf_buf *b)
{
    const sf_block_dir *d = (const sf_block_dir *)b->data;
    const int16_t *heads = (const int16_t *)(d + 1);
    bool plain = d->quick && d->whole && d->version == 2;

    for (uint32_t i = 0; plain && i < d->count; i++) {
        sf_stored_row r;

        plain = sf__block_dir_plain_row(sf__block_dir_row(b, i), &r) && r.shared + r.suffix.n == d->prefix_len + 2u &&
                (i == 0 || heads[i] != heads[i - 1]);
    }
    return plain;
}

/* *d is set. False: keys are out of order, or too many have the same head. */
static bool dir_fill(sf_block_dir *d, const sf_block *b)
{
    uint8_t *heads = (uint8_t *)d + sf__block_dir_heads_at(d);
    uint16_t *offsets = (uint16_t *)((uint8_t *)d + d->offsets_at);
    unsigned same = 0;
    uint64_t before = 0;
    struct row_walk w;

    walk_begin(&w, b);
    for (size_t i = 0; i < d->count && walk_on(&w); i++) {
        uint64_t head = head_of((sf_bytes){w.key, at_most(w.key_len, KEY_BYTES)}, d->prefix_len, d->head_bytes);

        same = i > 0 && head == before ? same + 1 : 1;
        if (head < before || same > MAX_SAME_HEADS)
            return false;
        head_put(heads, d->head_bytes, i, head);
        offsets[i] = (uint16_t)w.off;
        before = head;
    }
    for (size_t i = d->count; heads + i * d->head_bytes < (uint8_t *)offsets; i++)
        head_put(heads, d->head_bytes, i, UINT16_MAX);
    offsets[d->count] = (uint16_t)b->rows.n;
    if (d->prefix_len > 8)
        memcpy(d + 1, w.key + 8, d->prefix_len - 8);
    return true;
}

sf_status sf__block_dir_make(sf_plain_room *room, sf_buf *plain, unsigned version, const sf_allocator *slab,
                             const sf_allocator *a, sf_buf **out, sf_error *err)
{
    sf_bytes content = sf__buf_bytes(plain);
    sf_buf *b = NULL;
    struct survey s;
    sf_block_dir d;
    sf_block block;
    size_t front;
    sf_status rc = sf__block_init(&block, content, version, err);

    if (rc != SF_OK)
        return rc;
    if (block.rows.n <= MAX_ROW_AREA && survey_take(&s, &block)) {
        d = dir_of(&s, &block);
        front = dir_bytes(&d);
        if (room && front > room->left) {
            room->wanted = front;
            return sf_fail(err, SF_WOULD_BLOCK, "a directory of %zu bytes does not fit into %llu", front,
                           (unsigned long long)room->left);
        }
        b = slab ? sf__buf_new(slab, front + content.n) : NULL;
        b = b ? b : sf__buf_new(a, front + content.n);
        if (!b)
            return sf_fail(err, SF_NOMEM, "directory of a block");
        b->n = content.n;
        b->front = (uint32_t)front;
        memset(b->data, 0, front); /* what is filled up, too: two of one block are the same */
        memcpy(b->data, &d, sizeof(d));
        if (dir_fill((sf_block_dir *)b->data, &block)) {
            memcpy(b->data + front, content.p, content.n);
            ((sf_block_dir *)b->data)->plain = all_plain(b);
            if (room)
                room->left -= front;
        } else {
            sf__buf_release(b);
            b = NULL;
        }
    }
    *out = b ? b : sf__buf_acquire(plain);
    return SF_OK;
}

/* ------------------------------------------------------------------ looking up ----------------------------------- */

/* The first row whose head is not below `head`; no branch depends on what is compared. */
static inline size_t lower_bound(const uint8_t *heads, unsigned head_bytes, size_t count, uint64_t head)
{
    size_t lo = 0, n = count;

    while (n > 1) {
        size_t half = n / 2;

        lo += head_at(heads, head_bytes, lo + half - 1) < head ? half : 0;
        n -= half;
    }
    return lo + (head_at(heads, head_bytes, lo) < head);
}

static inline size_t find_head(const sf_block_dir *d, const uint8_t *heads, uint64_t head)
{
    switch (d->head_bytes) {
    case 2:
        return lower_bound(heads, 2, d->count, head);
    case 4:
        return lower_bound(heads, 4, d->count, head);
    default:
        return lower_bound(heads, 8, d->count, head);
    }
}

static inline sf_bytes not_null(sf_bytes key)
{
    return key.p ? key : (sf_bytes){(const uint8_t *)"", 0}; /* the empty key: NULL + 0 is undefined */
}

/* Whether the key, which has the prefix's length or more, begins with it. */
static bool has_prefix(const sf_block_dir *d, sf_bytes key)
{
    uint64_t other = sf_bytes_head(key, 0) ^ d->prefix;

    if (d->prefix_len < 8)
        return d->prefix_len == 0 || other >> (64 - 8 * d->prefix_len) == 0;
    return other == 0 && sf_bytes_same((const uint8_t *)(d + 1), key.p + 8, d->prefix_len - 8u);
}

uint32_t sf__block_dir_search(const sf_buf *plain, sf_bytes key)
{
    const sf_block_dir *d = (const sf_block_dir *)plain->data;
    const uint8_t *heads = (const uint8_t *)d + sf__block_dir_heads_at(d);
    uint64_t head;
    size_t i;

    key = not_null(key);
    if (key.n < d->prefix_len || !has_prefix(d, key))
        return d->count;
    head = head_of(key, d->prefix_len, d->head_bytes);
    i = find_head(d, heads, head);
    return i < d->count && head_at(heads, d->head_bytes, i) == head ? (uint32_t)i : d->count;
}

sf_status sf__block_dir_walk(const sf_buf *plain, sf_bytes key, uint32_t first, uint64_t max_seq, bool *found,
                             sf_block_row *row, sf_error *err)
{
    const sf_block_dir *d = (const sf_block_dir *)plain->data;
    const uint8_t *heads = (const uint8_t *)d + sf__block_dir_heads_at(d), *content = plain->data + plain->front;
    const uint16_t *offsets = sf__block_dir_offsets(d);

    key = not_null(key);
    *found = false;
    for (size_t i = first;
         i < d->count && (i == first || head_at(heads, d->head_bytes, i) == head_at(heads, d->head_bytes, first)); i++) {
        sf_cursor c = {content + offsets[i], (size_t)(offsets[d->count] - offsets[i])};
        sf_stored_row r;

        if (!(d->version == 1 ? sf__row_v1(&c, &r) : sf__row_v2(&c, &r)))
            return sf_fail(err, SF_CORRUPT, "block: no valid row at %u" SF_TRANSFORMER_HINT, offsets[i]);
        if (r.shared > key.n || r.suffix.n != key.n - r.shared ||
            !sf_bytes_same(r.suffix.p, key.p + r.shared, r.suffix.n) || r.seq > max_seq)
            continue;
        sf__row_out(&r, row);
        row->key = key;
        *found = true;
        return SF_OK;
    }
    return SF_OK;
}
