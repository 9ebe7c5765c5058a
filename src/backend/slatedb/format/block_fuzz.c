/* Input: u8 version and a key's length | key | plain block.
 *
 * A block that passes sf__block_check() decodes without an error, backwards as forwards; when its keys are in order, get
 * and both seeks agree with a walk over all rows, and so do get by a directory and many rows at a time. A block that does not pass may fail, and no more. */
#include <stdlib.h>

#include "backend/slatedb/format/block.h"
#include "backend/slatedb/format/block_dir.h"

#define ROWS_MAX 2048
#define KEYS_MAX (1u << 20)
#define PROBES 24

struct copied_row {
    sf_block_row row;
    size_t key_pos;
};

static struct copied_row rows[ROWS_MAX];
static uint8_t keys[KEYS_MAX];
static size_t row_count, keys_used;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static sf_bytes key_at(size_t i)
{
    return (sf_bytes){keys + rows[i].key_pos, rows[i].row.key.n};
}

static bool same(const sf_block_row *a, size_t i)
{
    const sf_block_row *b = &rows[i].row;

    return sf_bytes_eq(a->key, key_at(i)) && a->value.p == b->value.p && a->value.n == b->value.n && a->seq == b->seq &&
           a->flags == b->flags && a->create_ts == b->create_ts && a->expire_ts == b->expire_ts;
}

/* False: more rows than this keeps. */
static bool walk(sf_block_cursor *c)
{
    row_count = keys_used = 0;
    must(sf__block_cursor_first(c, NULL) == SF_OK);
    while (c->valid) {
        if (row_count == ROWS_MAX || c->row.key.n > KEYS_MAX - keys_used)
            return false;
        rows[row_count].row = c->row;
        rows[row_count].key_pos = keys_used;
        if (c->row.key.n > 0)
            memcpy(keys + keys_used, c->row.key.p, c->row.key.n);
        keys_used += c->row.key.n;
        row_count++;
        must(sf__block_cursor_next(c, NULL) == SF_OK);
    }
    return true;
}

static bool in_order(void)
{
    for (size_t i = 1; i < row_count; i++) {
        int c = sf_bytes_cmp(key_at(i - 1), key_at(i));

        if (c > 0 || (c == 0 && rows[i - 1].row.seq <= rows[i].row.seq))
            return false;
    }
    return true;
}

/* The block, with a directory, or without where it gets none. */
static sf_buf *with_dir;

static void check_directory(sf_bytes key, uint64_t max_seq, size_t hit)
{
    const sf_block_row *want = &rows[hit].row;
    bool found, is_there = hit < row_count && sf_bytes_eq(key_at(hit), key);
    sf_bytes at, value;
    sf_block_row row;

    if (with_dir->front == 0)
        return;
    must(sf__block_dir_get(with_dir, key, sf__block_dir_seek(with_dir, key), max_seq, &found, &row, NULL) == SF_OK);
    must(found == is_there);
    must(!found || (sf_bytes_eq(row.value, want->value) && row.seq == want->seq && row.flags == want->flags &&
                    row.create_ts == want->create_ts && row.expire_ts == want->expire_ts));
    if (((const sf_block_dir *)with_dir->data)->plain) {
        must((sf__block_dir_plain_seek(with_dir, key, &at) && sf__block_dir_plain_value(at, max_seq, &value)) == found);
        must(!found || (row.flags == 0 && value.p == row.value.p && value.n == row.value.n));
    }
}

static void check_key(const sf_block *b, sf_block_cursor *c, sf_bytes key, uint64_t max_seq)
{
    size_t ge = 0, hit;
    bool found = false;
    sf_block_row row;

    while (ge < row_count && sf_bytes_cmp(key_at(ge), key) < 0)
        ge++;
    for (hit = ge; hit < row_count && sf_bytes_eq(key_at(hit), key) && rows[hit].row.seq > max_seq;)
        hit++;
    must(sf__block_get(b, key, max_seq, &found, &row, NULL) == SF_OK);
    must(found == (hit < row_count && sf_bytes_eq(key_at(hit), key)));
    must(!found || same(&row, hit));
    check_directory(key, max_seq, hit);
    must(sf__block_cursor_seek_ge(c, key, NULL) == SF_OK);
    for (size_t i = ge; i < row_count && i < ge + 3; i++) {
        must(c->valid && same(&c->row, i));
        must(sf__block_cursor_next(c, NULL) == SF_OK);
    }
    must(ge + 3 <= row_count || !c->valid);
    must(sf__block_cursor_seek_lt(c, key, NULL) == SF_OK);
    for (size_t i = ge; i > 0 && i + 3 > ge; i--) {
        must(c->valid && same(&c->row, i - 1));
        must(sf__block_cursor_prev(c, NULL) == SF_OK);
    }
    must(ge >= 3 || !c->valid);
}

/* What a row does to a scan forwards, which shows the newest version of a key that it may see. */
static bool shows(size_t i, uint64_t max_seq, bool *new_key)
{
    const sf_block_row *row = &rows[i].row;
    bool was_new = *new_key = *new_key || i == 0 || !sf_bytes_eq(key_at(i - 1), key_at(i));

    if (row->seq > max_seq)
        return false;
    *new_key = false;
    return was_new && !(row->flags & (SF_ROW_TOMBSTONE | SF_ROW_MERGE));
}

/* Many rows at a time, and single steps between them, pass the rows that steps alone pass, and show those that show. */
static void check_rows(sf_block_cursor *c, uint64_t max_seq, sf_bytes end)
{
    static sf_block_rows out;
    bool new_key = false;
    size_t i = 0;

    must(sf__block_cursor_first(c, NULL) == SF_OK);
    while (i < row_count) {
        must(c->valid && same(&c->row, i));
        if (shows(i++, max_seq, &new_key)) {
            size_t n = 1;

            out.max_seq = max_seq;
            out.most = 1 + i % SF_BLOCK_ROWS_MAX;
            out.has_end = end.n > 0;
            out.end = end;
            must(sf__block_cursor_rows(c, &out));
            must(out.count >= 1 && out.count <= out.most);
            must(sf_bytes_eq(out.rows[0].key, key_at(i - 1)) && sf_bytes_eq(out.rows[0].value, rows[i - 1].row.value));
            must(sf__block_cursor_next(c, NULL) == SF_OK);
            for (; i < row_count && !(c->valid && same(&c->row, i)); i++) {
                must(!out.has_end || sf_bytes_cmp(key_at(i), end) < 0);
                must(!(rows[i].row.flags & SF_ROW_MERGE));
                if (shows(i, max_seq, &new_key)) {
                    must(n < out.count && sf_bytes_eq(out.rows[n].key, key_at(i)));
                    must(out.rows[n].value.p == rows[i].row.value.p && out.rows[n].value.n == rows[i].row.value.n);
                    n++;
                }
            }
            must(n == out.count && new_key == out.new_key);
        } else {
            must(sf__block_cursor_next(c, NULL) == SF_OK);
        }
        must(i == row_count || (c->order >= 0 && (c->order == 0) == sf_bytes_eq(key_at(i - 1), key_at(i))));
    }
    must(!c->valid);
}

/* The first of the rows that have the key of row `last`; *shows: the newest of them that may be seen, if that shows, else row_count. */
static size_t versions(size_t last, uint64_t max_seq, size_t *shows)
{
    size_t first = last;

    while (first > 0 && sf_bytes_eq(key_at(first - 1), key_at(last)))
        first--;
    for (*shows = first; *shows <= last && rows[*shows].row.seq > max_seq;)
        ++*shows;
    if (*shows > last || (rows[*shows].row.flags & SF_ROW_TOMBSTONE))
        *shows = row_count;
    return first;
}

/* The same backwards, where keys are passed with all of their versions. */
static void check_rows_back(sf_block_cursor *c, uint64_t max_seq, sf_bytes end)
{
    static sf_block_rows out;
    size_t left = row_count;

    must(sf__block_cursor_last(c, NULL) == SF_OK);
    while (left > 0) {
        size_t n = 0, before = left, shows;
        bool passed = false;

        must(c->valid && same(&c->row, left - 1));
        out.count = 0;
        if (rows[left - 1].row.seq <= max_seq) {
            out.max_seq = max_seq;
            out.most = 1 + left % SF_BLOCK_ROWS_MAX;
            out.has_end = end.n > 0;
            out.end = end;
            passed = sf__block_cursor_rows(c, &out);
            must(out.count <= out.most && !out.new_key && (passed || out.count == 0));
        }
        must(sf__block_cursor_prev(c, NULL) == SF_OK);
        if (!passed) {
            left--;
            continue;
        }
        while (left > 0 && !(c->valid && same(&c->row, left - 1))) {
            size_t first = versions(left - 1, max_seq, &shows);

            must(!out.has_end || sf_bytes_cmp(key_at(first), end) > 0);
            if (shows < row_count) {
                must(n < out.count && sf_bytes_eq(out.rows[n].key, key_at(shows)));
                must(out.rows[n].value.p == rows[shows].row.value.p && out.rows[n].value.n == rows[shows].row.value.n);
                n++;
            }
            for (; left > first; left--)
                must(!(rows[left - 1].row.flags & SF_ROW_MERGE));
        }
        must(n == out.count && left < before);
    }
    must(!c->valid);
}

static void check_whole(const sf_block *b, sf_block_cursor *c, sf_bytes key)
{
    size_t left;

    if (!walk(c))
        return;
    must(row_count > 0);
    left = row_count;
    must(sf__block_cursor_last(c, NULL) == SF_OK);
    while (c->valid) {
        must(left > 0 && same(&c->row, --left));
        must(sf__block_cursor_prev(c, NULL) == SF_OK);
    }
    must(left == 0);
    if (!in_order())
        return;
    check_rows(c, SF_SEQ_MAX, (sf_bytes){NULL, 0});
    check_rows(c, rows[row_count / 2].row.seq, key);
    check_rows_back(c, SF_SEQ_MAX, (sf_bytes){NULL, 0});
    check_rows_back(c, rows[row_count / 2].row.seq, key);
    check_key(b, c, key, SF_SEQ_MAX);
    check_key(b, c, (sf_bytes){NULL, 0}, SF_SEQ_MAX);
    for (size_t i = 0; i < row_count; i += 1 + row_count / PROBES) {
        check_key(b, c, key_at(i), SF_SEQ_MAX);
        check_key(b, c, key_at(i), rows[i].row.seq);
        if (key_at(i).n > 0)
            check_key(b, c, (sf_bytes){key_at(i).p, key_at(i).n - 1}, SF_SEQ_MAX);
    }
}

static void check_damaged(const sf_block *b, sf_block_cursor *c, sf_bytes key)
{
    static sf_block_rows out;
    bool found;
    sf_block_row row;

    for (sf_status rc = sf__block_cursor_first(c, NULL); rc == SF_OK && c->valid;)
        rc = sf__block_cursor_next(c, NULL);
    out.most = SF_BLOCK_ROWS_MAX;
    out.max_seq = SF_SEQ_MAX;
    for (sf_status rc = sf__block_cursor_first(c, NULL); rc == SF_OK && c->valid;) {
        (void)sf__block_cursor_rows(c, &out);
        rc = sf__block_cursor_next(c, NULL);
    }
    for (sf_status rc = sf__block_cursor_last(c, NULL); rc == SF_OK && c->valid;)
        rc = sf__block_cursor_prev(c, NULL);
    out.has_end = false;
    for (sf_status rc = sf__block_cursor_last(c, NULL); rc == SF_OK && c->valid;) {
        (void)sf__block_cursor_rows(c, &out);
        rc = sf__block_cursor_prev(c, NULL);
    }
    (void)!sf__block_get(b, key, SF_SEQ_MAX, &found, &row, NULL);
    must(sf__block_cursor_seek_ge(c, key, NULL) == SF_OK || !c->valid);
    must(sf__block_cursor_seek_lt(c, key, NULL) == SF_OK || !c->valid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sf_cursor in = {data, size};
    uint8_t head;
    sf_bytes key;
    sf_block b;
    sf_block_cursor c;
    unsigned version;
    bool whole;

    if (!sf_cursor_u8(&in, &head) || !sf_cursor_take(&in, head >> 1, &key))
        return 0;
    version = 1 + (head & 1);
    whole = sf__block_check(in, version, NULL) == SF_OK;
    if (sf__block_init(&b, in, version, NULL) != SF_OK) {
        must(!whole);
        return 0;
    }
    sf__block_cursor_init(&c, &sf__allocator_default);
    sf__block_cursor_set(&c, &b);
    if (whole) {
        sf_buf *plain = sf__buf_copy(&sf__allocator_default, in);

        must(plain && sf__block_dir_make(NULL, plain, version, NULL, &sf__allocator_default, &with_dir, NULL) == SF_OK);
        must(sf_bytes_eq(sf__buf_bytes(with_dir), in));
        check_whole(&b, &c, key);
        sf__buf_release(plain);
        sf__buf_release(with_dir);
    } else
        check_damaged(&b, &c, key);
    sf__block_cursor_cleanup(&c);
    return 0;
}
