#include <assert.h>

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/block_row.h"
#include "base/grow.h"
#include "base/limits.h"

/* Version 1 has no restarts; backwards it is read in groups of this many rows. */
#define V1_GROUP_ROWS 16u
/* Keys of one section, written out. Restarts come every 16 rows, so this is 16 keys of 16 MiB. */
#define SECTION_KEY_BYTES_MAX (256u << 20)
/* A section has as many groups as have so few bytes, or one: all of a block of usual size. */
#define SECTION_BYTES (8u << 10)

struct section_row {
    size_t key_pos, key_len;
    uint64_t head;    /* of its key */
    sf_block_row row; /* without its key */
};

void sf__block_cursor_init(sf_block_cursor *c, const sf_allocator *a)
{
    *c = (sf_block_cursor){.alloc = a};
}

void sf__block_cursor_cleanup(sf_block_cursor *c)
{
    if (c->keys)
        sf__free(c->alloc, c->keys);
    if (c->section)
        sf__free(c->alloc, c->section);
    *c = (sf_block_cursor){.alloc = c->alloc};
}

void sf__block_cursor_set(sf_block_cursor *c, const sf_block *b)
{
    c->valid = false;
    c->block = *b;
    c->first_key = (sf_bytes){0};
    c->backwards = false;
    c->pos = b->rows.n;
    c->key_len = 0;
    c->section_left = 0;
    c->groups_left = 0;
}

static sf_status fail(sf_block_cursor *c, sf_status rc)
{
    c->valid = false;
    c->pos = c->block.rows.n; /* a next or prev after a failure is an end, not a guess */
    c->section_left = 0;
    c->groups_left = 0;
    return rc;
}

/* The contents stay. */
static sf_status keys_reserve(sf_block_cursor *c, size_t n, sf_error *err)
{
    return SF_RESERVE(c->alloc, &c->keys, &c->keys_cap, n) ? SF_OK : sf_fail(err, SF_NOMEM, "%zu bytes of keys", n);
}

static sf_status row_decode(const sf_block *b, sf_cursor *in, sf_stored_row *r, sf_error *err)
{
    if (b->version == 1 ? sf__row_v1(in, r) : sf__row_v2(in, r))
        return SF_OK;
    return sf__block_bad_row(b, b->rows.n - in->n, err);
}

/* Forwards */

/* Of a key that is `head` and then `tail`. */
static int order_of(sf_bytes head, sf_bytes tail, sf_bytes last)
{
    size_t n = head.n < last.n ? head.n : last.n;
    int c = n > 0 && head.p != last.p ? memcmp(head.p, last.p, n) : 0;

    if (c != 0)
        return c;
    return last.n < head.n ? 1 : sf_bytes_cmp(tail, (sf_bytes){head.n > 0 ? last.p + head.n : last.p, last.n - head.n});
}

static sf_status step(sf_block_cursor *c, sf_error *err)
{
    sf_cursor in;
    sf_stored_row r;
    size_t from; /* length of the key that the row shares with */
    sf_status rc;

    c->valid = false;
    if (!sf__block_rows_from(&c->block, c->pos, &in))
        return SF_OK;
    rc = row_decode(&c->block, &in, &r, err);
    if (rc != SF_OK)
        return fail(c, rc);
    from = c->block.version == 2 ? c->key_len : c->pos == 0 ? 0 : c->first_key.n;
    if (r.shared > from)
        return fail(c, sf__block_bad_row(&c->block, c->pos, err));
    rc = keys_reserve(c, r.shared + r.suffix.n, err);
    if (rc != SF_OK)
        return fail(c, rc);
    c->order = c->has_last ? order_of((sf_bytes){c->block.version == 1 ? c->first_key.p : c->keys, r.shared}, r.suffix,
                                      (sf_bytes){c->keys, c->last_len})
                           : 1;
    if (c->block.version == 1 && r.shared > 0)
        memcpy(c->keys, c->first_key.p, r.shared);
    if (r.suffix.n > 0)
        memcpy(c->keys + r.shared, r.suffix.p, r.suffix.n);
    c->key_len = c->last_len = r.shared + r.suffix.n;
    c->has_last = true;
    c->pos = c->block.rows.n - in.n;
    if (in.n > 64) /* of the next row: a merge of many shards comes back to it only after theirs */
        __builtin_prefetch(in.p + 64);
    sf__row_out(&r, &c->row);
    c->row.key = (sf_bytes){c->keys, c->key_len};
    c->valid = true;
    return SF_OK;
}

static sf_status forwards_from(sf_block_cursor *c, size_t pos, sf_error *err)
{
    c->backwards = false;
    c->valid = false;
    c->key_len = 0;
    c->pos = pos;
    return step(c, err);
}

sf_status sf__block_cursor_first(sf_block_cursor *c, sf_error *err)
{
    sf_status rc = SF_OK;

    if (c->block.version == 1)
        rc = sf__block_v1_first_key(&c->block, &c->first_key, err);
    return rc == SF_OK ? forwards_from(c, 0, err) : fail(c, rc);
}

sf_status sf__block_cursor_seek_ge(sf_block_cursor *c, sf_bytes key, sf_error *err)
{
    uint32_t i;
    bool none;
    sf_status rc;

    if (c->block.version == 1) {
        rc = sf__block_v1_lower_bound(&c->block, key, &i, &c->first_key, err);
        if (rc != SF_OK)
            return fail(c, rc);
        return forwards_from(c, i < c->block.offset_count ? sf__block_offset(&c->block, i) : c->block.rows.n, err);
    }
    rc = sf__block_restart_below(&c->block, key, &i, &none, err);
    if (rc != SF_OK)
        return fail(c, rc);
    rc = forwards_from(c, sf__block_offset(&c->block, i), err);
    while (rc == SF_OK && c->valid && sf_bytes_cmp(c->row.key, key) < 0)
        rc = step(c, err);
    return rc;
}

sf_status sf__block_cursor_next(sf_block_cursor *c, sf_error *err)
{
    assert(!c->backwards);
    return step(c, err);
}

/* How far ahead of the row that is decoded memory is asked for: forwards a row takes less time. */
#define PREFETCH_BYTES 1024u
#define PREFETCH_BACK_BYTES 512u

static inline void copy_16(uint8_t *to, const uint8_t *from)
{
    uint8_t t[16];

    memcpy(t, from, sizeof(t)); /* they may overlap */
    memcpy(to, t, sizeof(t));
}

/* The head of a key that begins with `shared` bytes of one whose head is `head`. Of the suffix 8 bytes can be read, since more than those
 * stand behind it. All in registers: what was just written could not be loaded in the same pieces, which is slow. */
static inline uint64_t head_behind(uint64_t head, size_t shared, sf_bytes suffix)
{
    size_t n = shared + suffix.n;

    if (shared >= 8 || n == 0)
        return n > 0 ? head : 0;
    head = (shared > 0 ? head & UINT64_MAX << (64 - 8 * shared) : 0) | sf_load_be(suffix.p, 8) >> 8 * shared;
    return n < 8 ? head & UINT64_MAX << (64 - 8 * n) : head;
}

/* A key of `shared` bytes from `from` and a suffix, at `to`, where `room` bytes are; 16 bytes can be read at `from`, and at the suffix
 * unless it is `near_end`. False: there is too little room. */
static inline bool key_put(uint8_t *to, size_t room, uint64_t head, const uint8_t *from, size_t shared, sf_bytes suffix,
                           bool near_end)
{
    if (shared + suffix.n == 8 && room >= 8) {
        head = SF_BE64(head);
        memcpy(to, &head, 8);
        return true;
    }
    if (shared <= 16 && suffix.n <= 16 && room >= 32 && !near_end) {
        copy_16(to, from);
        copy_16(to + shared, suffix.p);
        return true;
    }
    if (shared > room || suffix.n > room - shared)
        return false;
    if (shared > 0)
        memcpy(to, from, shared);
    if (suffix.n > 0)
        memcpy(to + shared, suffix.p, suffix.n);
    return true;
}

static void rows_forth(sf_block_cursor *c, sf_block_rows *out)
{
    const bool v1 = c->block.version == 1;
    const uint8_t *end = c->block.rows.p + c->block.rows.n;
    bool room = c->key_len <= SF_BLOCK_ROWS_KEY_BYTES && keys_reserve(c, SF_BLOCK_ROWS_KEY_BYTES, NULL) == SF_OK;
    sf_bytes last = {out->keys, c->key_len};
    uint64_t last_head, first_head = sf__key_head(c->first_key, 0);
    sf_cursor in;

    c->row.key.p = c->keys; /* which may have moved */
    out->rows[0] = (sf_row){c->row.key, c->row.value};
    out->count = 1;
    out->new_key = false;
    if (!room || !sf__block_rows_from(&c->block, c->pos, &in)) /* a long key, without memory, or at the end: it alone */
        return;
    for (size_t i = 0; i < PREFETCH_BYTES && i < in.n; i += 64)
        __builtin_prefetch(in.p + i);
    if (last.n > 0)
        memcpy(out->keys, c->keys, last.n);
    out->rows[0].key = last;
    out->key_bytes = last.n;
    last_head = sf__key_head(last, 0);
    while (in.n > 0 && out->count < out->most) {
        sf_cursor rest = in;
        sf_stored_row r;
        sf_bytes key = {out->keys + out->key_bytes, 0}, from = v1 ? c->first_key : last;
        uint64_t head;
        bool new_key = true;

        if (in.n > PREFETCH_BYTES + 64) {
            __builtin_prefetch(in.p + PREFETCH_BYTES);
            __builtin_prefetch(in.p + PREFETCH_BYTES + 64);
        }
        if (!(v1 ? sf__row_v1(&rest, &r) : sf__row_v2(&rest, &r)) || r.shared > from.n || (r.flags & SF_ROW_MERGE))
            break;
        head = head_behind(v1 ? first_head : last_head, r.shared, r.suffix);
        if (!key_put(out->keys + out->key_bytes, SF_BLOCK_ROWS_KEY_BYTES - out->key_bytes, head, from.p, r.shared,
                     r.suffix, v1 || end - r.suffix.p < 16))
            break;
        key.n = r.shared + r.suffix.n;
        if (head <= last_head) {
            int order = head < last_head ? -1 : order_of((sf_bytes){from.p, r.shared}, r.suffix, last);

            if (order < 0)
                break;
            new_key = out->new_key || order > 0;
        }
        if (out->has_end && sf_bytes_cmp(key, out->end) >= 0)
            break;
        out->new_key = new_key;
        if (r.seq <= out->max_seq) {
            if (new_key && !(r.flags & SF_ROW_TOMBSTONE))
                out->rows[out->count++] = (sf_row){key, r.value};
            out->new_key = false;
        }
        in = rest;
        last = key;
        last_head = head;
        out->key_bytes += key.n;
    }
    c->pos = c->block.rows.n - in.n;
    c->key_len = c->last_len = last.n; /* which `keys` has room for */
    if (last.n > 0)
        memcpy(c->keys, last.p, last.n);
}

/* Backwards: a section is decoded forwards into arrays, which are then shown from their end. */

/* Groups are what lies from one restart to the next. */
static uint32_t group_count(const sf_block *b)
{
    return b->version == 2 ? b->offset_count : (b->offset_count + V1_GROUP_ROWS - 1) / V1_GROUP_ROWS;
}

/* The rows of group `no`, and of those in front of it that go into the same section; *first is the first of these. */
static sf_status section_bytes(const sf_block *b, uint32_t no, uint32_t *first, sf_cursor *out, sf_error *err)
{
    uint32_t per = b->version == 2 ? 1 : V1_GROUP_ROWS;
    uint32_t next = (no + 1) * per; /* no is at most 65534, so this cannot wrap */
    size_t from = sf__block_offset(b, no * per);
    size_t to = next < b->offset_count ? sf__block_offset(b, next) : b->rows.n;

    for (*first = no; *first > 0; --*first) {
        size_t before = sf__block_offset(b, (*first - 1) * per);

        if (before >= from || to < before || to - before > SECTION_BYTES)
            break;
        from = before;
    }
    if (from >= to || !sf_bytes_slice(b->rows, from, to - from, out))
        return sf_fail(err, SF_CORRUPT, "block: rows from %zu to %zu of %zu bytes", from, to, b->rows.n);
    return SF_OK;
}

/* A row's key, written out behind those before it, from where `used` has got to. */
static sf_status section_key_add(sf_block_cursor *c, const sf_stored_row *r, const struct section_row *prev,
                                 struct section_row *out, sf_error *err)
{
    const uint8_t *end = c->block.rows.p + c->block.rows.n;
    const bool v1 = c->block.version == 1;
    size_t used = prev ? prev->key_pos + prev->key_len : 0;
    uint64_t head = v1 ? sf__key_head(c->first_key, 0) : prev ? prev->head : 0;
    sf_status rc;

    if (r->shared > SECTION_KEY_BYTES_MAX - used || r->suffix.n > SECTION_KEY_BYTES_MAX - used - r->shared)
        return sf_fail(err, SF_UNSUPPORTED, "block: the rows from one restart to the next have over %u bytes of keys",
                       SECTION_KEY_BYTES_MAX);
    rc = keys_reserve(c, used + r->shared + r->suffix.n + 32, err); /* and what key_put() copies in steps of 16 */
    if (rc != SF_OK)
        return rc;
    *out = (struct section_row){
        .key_pos = used, .key_len = r->shared + r->suffix.n, .head = head_behind(head, r->shared, r->suffix)};
    sf__row_out(r, &out->row);
    (void)key_put(c->keys + used, c->keys_cap - used, out->head,
                  v1 ? c->first_key.p : c->keys + (prev ? prev->key_pos : 0), r->shared, r->suffix,
                  v1 || end - r->suffix.p < 16);
    return SF_OK;
}

static sf_status section_walk(sf_block_cursor *c, sf_cursor in, size_t *count, sf_error *err)
{
    size_t n = 0;
    sf_stored_row r;

    while (in.n > 0) {
        size_t pos = (size_t)(in.p - c->block.rows.p), from;
        sf_status rc;

        if (in.n > PREFETCH_BACK_BYTES + 64) {
            __builtin_prefetch(in.p + PREFETCH_BACK_BYTES);
            __builtin_prefetch(in.p + PREFETCH_BACK_BYTES + 64);
        }
        rc = row_decode(&c->block, &in, &r, err);

        if (rc != SF_OK)
            return rc;
        from = c->block.version == 2 ? (n > 0 ? c->section[n - 1].key_len : 0) : pos == 0 ? 0 : c->first_key.n;
        if (r.shared > from)
            return sf__block_bad_row(&c->block, pos, err);
        if (!SF_RESERVE(c->alloc, &c->section, &c->section_cap, n + 1))
            return sf_fail(err, SF_NOMEM, "%zu rows of a block", n + 1);
        rc = section_key_add(c, &r, n > 0 ? &c->section[n - 1] : NULL, &c->section[n], err);
        if (rc != SF_OK)
            return rc;
        n++;
    }
    *count = n;
    return SF_OK;
}

static sf_status section_load(sf_block_cursor *c, uint32_t no, sf_error *err)
{
    sf_cursor in;
    size_t count;
    uint32_t first;
    sf_status rc = section_bytes(&c->block, no, &first, &in, err);

    if (rc == SF_OK)
        rc = section_walk(c, in, &count, err);
    if (rc != SF_OK)
        return rc;
    c->groups_left = first;
    c->section_left = count;
    return SF_OK;
}

static sf_bytes section_key(const sf_block_cursor *c, size_t i)
{
    return (sf_bytes){c->keys + c->section[i].key_pos, c->section[i].key_len};
}

static sf_status step_back(sf_block_cursor *c, sf_error *err)
{
    c->valid = false;
    if (c->section_left == 0) {
        sf_status rc;

        if (c->groups_left == 0)
            return SF_OK;
        rc = section_load(c, c->groups_left - 1, err);
        if (rc != SF_OK)
            return fail(c, rc);
    }
    c->section_left--; /* a section has a row at least */
    c->row = c->section[c->section_left].row;
    c->row.key = section_key(c, c->section_left);
    c->valid = true;
    return SF_OK;
}

static sf_status backwards_begin(sf_block_cursor *c, sf_error *err)
{
    c->backwards = true;
    c->has_last = false;
    c->valid = false;
    c->section_left = 0;
    c->groups_left = 0;
    return c->block.version == 1 ? sf__block_v1_first_key(&c->block, &c->first_key, err) : SF_OK;
}

/* Of a row and the one behind it in the section. */
static int section_order(const sf_block_cursor *c, size_t i)
{
    const struct section_row *a = &c->section[i], *b = &c->section[i + 1];

    if (a->head != b->head)
        return a->head < b->head ? -1 : 1;
    return sf_bytes_cmp(section_key(c, i), section_key(c, i + 1));
}

/* The versions of the key of row `last` of the section: *first is the newest, *shows the newest that may be seen, or one behind them. False: not all
 * of them are sure to lie in the section, or they want a closer look. */
static bool versions_back(const sf_block_cursor *c, const sf_block_rows *out, size_t last, size_t *first, size_t *shows)
{
    int order = 0;

    *shows = last + 1;
    for (*first = last;; --*first) {
        const sf_block_row *r = &c->section[*first].row;

        if (r->flags & SF_ROW_MERGE)
            return false;
        if (r->seq <= out->max_seq && (*shows > last || r->seq > c->section[*shows].row.seq))
            *shows = *first;
        if (*first == 0)
            return false;
        order = section_order(c, *first - 1);
        if (order != 0)
            break;
    }
    return order < 0 && (!out->has_end || sf_bytes_cmp(section_key(c, *first), out->end) > 0);
}

static bool rows_back(sf_block_cursor *c, sf_block_rows *out)
{
    size_t first, shows;
    bool passed = false;

    out->count = 0;
    out->new_key = false;
    for (size_t last = c->section_left; versions_back(c, out, last, &first, &shows); last = first - 1) {
        if (shows <= last && !(c->section[shows].row.flags & SF_ROW_TOMBSTONE)) {
            if (out->count == out->most)
                break;
            out->rows[out->count++] = (sf_row){section_key(c, shows), c->section[shows].row.value};
        }
        c->section_left = first;
        passed = true;
    }
    return passed;
}

sf_status sf__block_cursor_last(sf_block_cursor *c, sf_error *err)
{
    sf_status rc = backwards_begin(c, err);

    if (rc != SF_OK)
        return fail(c, rc);
    c->groups_left = group_count(&c->block);
    return step_back(c, err);
}

sf_status sf__block_cursor_seek_lt(sf_block_cursor *c, sf_bytes key, sf_error *err)
{
    uint32_t i;
    bool none;
    size_t keep = 0;
    sf_status rc = backwards_begin(c, err);

    if (rc == SF_OK && c->block.version == 1) {
        rc = sf__block_v1_lower_bound(&c->block, key, &i, &c->first_key, err);
        none = rc == SF_OK && i == 0;
        i = rc == SF_OK && i > 0 ? (i - 1) / V1_GROUP_ROWS : 0;
    } else if (rc == SF_OK) {
        rc = sf__block_restart_below(&c->block, key, &i, &none, err);
    }
    if (rc == SF_OK && none)
        return SF_OK;
    if (rc == SF_OK)
        rc = section_load(c, i, err);
    if (rc != SF_OK)
        return fail(c, rc);
    while (keep < c->section_left && sf_bytes_cmp(section_key(c, keep), key) < 0)
        keep++;
    c->section_left = keep;
    return step_back(c, err);
}

sf_status sf__block_cursor_prev(sf_block_cursor *c, sf_error *err)
{
    assert(c->backwards);
    return step_back(c, err);
}

bool sf__block_cursor_rows(sf_block_cursor *c, sf_block_rows *out)
{
    assert(c->valid && out->most <= SF_BLOCK_ROWS_MAX);
    if (c->backwards)
        return rows_back(c, out);
    rows_forth(c, out);
    return true;
}
