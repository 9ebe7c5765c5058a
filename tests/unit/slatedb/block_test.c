#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../support/heap.h"
#include "backend/slatedb/format/block_dir.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "format_build.h"

#define ROWS_MAX 400
#define KEY_MAX 40

/* Random rows by key, then descending sequence number. */
struct rows {
    struct test_row rows[ROWS_MAX];
    size_t count;
    uint8_t keys[ROWS_MAX][KEY_MAX];
    uint8_t values[64];
};

enum key_style { KEYS_DENSE, KEYS_NESTED, KEYS_RANDOM, KEYS_VERSIONS, KEY_STYLES };
static const char *const style_names[] = {"dense", "nested", "random", "versions"};

static sf_bytes key_of(const struct test_row *r)
{
    return (sf_bytes){r->key, r->key_len};
}

static int row_cmp(const void *pa, const void *pb)
{
    const struct test_row *a = pa, *b = pb;
    int c = sf_bytes_cmp(key_of(a), key_of(b));

    return c != 0 ? c : (a->seq < b->seq) - (a->seq > b->seq);
}

static size_t key_make(uint8_t *key, enum key_style style, size_t i, uint64_t *seed)
{
    size_t n;

    switch (style) {
    case KEYS_DENSE:
        sf_store_be(key, 8, 1000 + i);
        return 8;
    case KEYS_NESTED: /* "a", "aa", "aaab": each a prefix of many */
        n = 1 + rng_next(seed) % (KEY_MAX - 1);
        memset(key, 'a', n);
        key[n - 1] = (uint8_t)('a' + rng_next(seed) % 3);
        return n;
    case KEYS_RANDOM:
        n = 1 + rng_next(seed) % 6;
        for (size_t k = 0; k < n; k++)
            key[k] = rng_next(seed) % 2 ? 0xff : (uint8_t)(rng_next(seed) % 3);
        return n;
    default:
        key[0] = (uint8_t)('k' + rng_next(seed) % 4);
        return 1;
    }
}

static void rows_make(struct rows *r, enum key_style style, size_t count, uint64_t seed)
{
    static const uint8_t kinds[] = {0, 0, 0, SF_ROW_TOMBSTONE, SF_ROW_MERGE};
    size_t n = 0;

    for (size_t i = 0; i < sizeof(r->values); i++)
        r->values[i] = (uint8_t)rng_next(&seed);
    for (size_t i = 0; i < count; i++) {
        struct test_row *row = &r->rows[i];

        *row = (struct test_row){.key = r->keys[i], .value = r->values, .seq = 1 + rng_next(&seed) % 1000};
        row->key_len = key_make(row->key, style, i, &seed);
        row->flags = kinds[rng_next(&seed) % 5];
        row->flags |= (uint8_t)(rng_next(&seed) % 4 * SF_ROW_HAS_EXPIRE);
        row->value_len = row->flags & SF_ROW_TOMBSTONE ? 0 : rng_next(&seed) % 64;
        if (row->flags & SF_ROW_HAS_EXPIRE)
            row->expire_ts = (int64_t)rng_next(&seed);
        if (row->flags & SF_ROW_HAS_CREATE)
            row->create_ts = (int64_t)rng_next(&seed);
    }
    qsort(r->rows, count, sizeof(r->rows[0]), row_cmp);
    for (size_t i = 0; i < count; i++) {
        if (n == 0 || row_cmp(&r->rows[n - 1], &r->rows[i]) != 0)
            r->rows[n++] = r->rows[i];
    }
    r->count = n;
}

static bool same(const sf_block_row *got, const struct test_row *want)
{
    return sf_bytes_eq(got->key, key_of(want)) && sf_bytes_eq(got->value, (sf_bytes){want->value, want->value_len}) &&
           got->seq == want->seq && got->flags == want->flags && got->expire_ts == want->expire_ts &&
           got->create_ts == want->create_ts;
}

/* The block that is checked, with a directory, or without where it gets none. */
static sf_buf *with_dir;
static unsigned directories, plain_directories;

/* Where a directory is plain, its short way finds what the long one has found, which is said here. */
static void check_plain(sf_bytes key, uint64_t max_seq, bool found, const sf_block_row *row, const char *name)
{
    sf_bytes at, value;

    if (!((const sf_block_dir *)with_dir->data)->plain)
        return;
    plain_directories++;
    if ((sf__block_dir_plain_seek(with_dir, key, &at) && sf__block_dir_plain_value(at, max_seq, &value)) != found)
        fail_msg("%s: get of a key of %zu bytes by plain directory: found %d", name, key.n, !found);
    if (found && (row->flags != 0 || value.p != row->value.p || value.n != row->value.n))
        fail_msg("%s: get of a key of %zu bytes by plain directory: another value", name, key.n);
}

static void check_get(const struct rows *r, const sf_block *b, sf_bytes key, uint64_t max_seq, const char *name)
{
    const struct test_row *want = NULL;
    bool found = false;
    sf_block_row row;
    sf_error err;

    for (size_t i = 0; i < r->count && !want; i++) {
        if (sf_bytes_eq(key_of(&r->rows[i]), key) && r->rows[i].seq <= max_seq)
            want = &r->rows[i];
    }
    if (sf__block_get(b, key, max_seq, &found, &row, &err) != SF_OK)
        fail_msg("%s: get: %s", name, err.message);
    if (found != (want != NULL) || (found && !same(&row, want)))
        fail_msg("%s: get of a key of %zu bytes: found %d", name, key.n, found);
    if (with_dir->front == 0)
        return;
    if (sf__block_dir_get(with_dir, key, sf__block_dir_seek(with_dir, key), max_seq, &found, &row, &err) != SF_OK)
        fail_msg("%s: get by directory: %s", name, err.message);
    if (found != (want != NULL) || (found && !same(&row, want)))
        fail_msg("%s: get of a key of %zu bytes by directory: found %d", name, key.n, found);
    check_plain(key, max_seq, found, &row, name);
}

static void directory_make(sf_bytes plain, unsigned version, const char *name)
{
    sf_buf *copy = sf__buf_copy(&sf__allocator_default, plain);
    sf_error err;

    assert_non_null(copy);
    if (sf__block_dir_make(NULL, copy, version, NULL, &sf__allocator_default, &with_dir, &err) != SF_OK)
        fail_msg("%s: directory: %s", name, err.message);
    if (with_dir->front > 0) { /* what it takes is set aside before it is made */
        sf_plain_room room = {.left = with_dir->front - 1};
        sf_buf *again = NULL;

        if (sf__block_dir_make(&room, copy, version, NULL, &sf__allocator_default, &again, &err) != SF_WOULD_BLOCK ||
            again || room.wanted != with_dir->front || room.left != with_dir->front - 1)
            fail_msg("%s: a directory of %u bytes in too little room", name, with_dir->front);
        room.left++;
        if (sf__block_dir_make(&room, copy, version, NULL, &sf__allocator_default, &again, &err) != SF_OK ||
            room.left != 0)
            fail_msg("%s: a directory of %u bytes in just the room", name, with_dir->front);
        sf__buf_release(again);
    }
    sf__buf_release(copy);
    if (!sf_bytes_eq(sf__buf_bytes(with_dir), plain))
        fail_msg("%s: a block with a directory is another one", name);
    directories += with_dir->front > 0;
}

static void check_seeks(const struct rows *r, sf_block_cursor *c, sf_bytes key, const char *name)
{
    size_t ge = 0;
    sf_error err;

    while (ge < r->count && sf_bytes_cmp(key_of(&r->rows[ge]), key) < 0)
        ge++;
    if (sf__block_cursor_seek_ge(c, key, &err) != SF_OK)
        fail_msg("%s: seek_ge: %s", name, err.message);
    for (size_t i = ge; i < r->count && i < ge + 20; i++) {
        if (!c->valid || !same(&c->row, &r->rows[i]))
            fail_msg("%s: row %zu after seek_ge to row %zu", name, i, ge);
        if (sf__block_cursor_next(c, &err) != SF_OK)
            fail_msg("%s: next: %s", name, err.message);
    }
    if (ge + 20 >= r->count && c->valid)
        fail_msg("%s: a row after the last", name);
    if (sf__block_cursor_seek_lt(c, key, &err) != SF_OK)
        fail_msg("%s: seek_lt: %s", name, err.message);
    for (size_t i = ge; i > 0 && i + 20 > ge; i--) {
        if (!c->valid || !same(&c->row, &r->rows[i - 1]))
            fail_msg("%s: row %zu before seek_lt to row %zu", name, i - 1, ge);
        if (sf__block_cursor_prev(c, &err) != SF_OK)
            fail_msg("%s: prev: %s", name, err.message);
    }
    if (ge < 20 && c->valid)
        fail_msg("%s: a row before the first", name);
}

static void check_block(const struct rows *r, sf_bytes plain, unsigned version, const char *name)
{
    sf_block b;
    sf_block_cursor c;
    sf_error err;
    size_t i = 0;

    if (sf__block_check(plain, version, &err) != SF_OK || sf__block_init(&b, plain, version, &err) != SF_OK)
        fail_msg("%s: %s", name, err.message);
    directory_make(plain, version, name);
    sf__block_cursor_init(&c, &sf__allocator_default);
    sf__block_cursor_set(&c, &b);
    assert_false(c.valid);
    for (sf_status rc = sf__block_cursor_first(&c, &err); c.valid; rc = sf__block_cursor_next(&c, &err), i++) {
        if (rc != SF_OK || i >= r->count || !same(&c.row, &r->rows[i]))
            fail_msg("%s: row %zu forwards", name, i);
    }
    assert_int_equal(i, r->count);
    for (sf_status rc = sf__block_cursor_last(&c, &err); c.valid; rc = sf__block_cursor_prev(&c, &err)) {
        if (rc != SF_OK || i == 0 || !same(&c.row, &r->rows[--i]))
            fail_msg("%s: row %zu backwards", name, i);
    }
    assert_int_equal(i, 0);
    for (i = 0; i < r->count; i++) {
        uint8_t near[KEY_MAX + 1];
        size_t n = r->rows[i].key_len;

        memcpy(near, r->rows[i].key, n);
        near[n] = 0;
        check_get(r, &b, key_of(&r->rows[i]), SF_SEQ_MAX, name);
        check_get(r, &b, key_of(&r->rows[i]), r->rows[i].seq, name);
        check_get(r, &b, key_of(&r->rows[i]), r->rows[i].seq - 1, name);
        check_get(r, &b, (sf_bytes){near, n + 1}, SF_SEQ_MAX, name);
        check_get(r, &b, (sf_bytes){near, n - 1}, SF_SEQ_MAX, name);
        check_seeks(r, &c, key_of(&r->rows[i]), name);
        check_seeks(r, &c, (sf_bytes){near, n + 1}, name);
        check_seeks(r, &c, (sf_bytes){near, n - 1}, name);
        near[n - 1]++;
        check_get(r, &b, (sf_bytes){near, n}, SF_SEQ_MAX, name);
        check_seeks(r, &c, (sf_bytes){near, n}, name);
    }
    check_get(r, &b, (sf_bytes){0}, SF_SEQ_MAX, name);
    check_seeks(r, &c, (sf_bytes){0}, name);
    sf__block_cursor_cleanup(&c);
    sf__buf_release(with_dir);
}

static void test_blocks_agree_with_their_rows(void **state)
{
    static const size_t counts[] = {1, 2, 15, 16, 17, 100, ROWS_MAX};
    static const size_t intervals[] = {1, 2, 16, 1000};
    struct rows *r = malloc(sizeof(*r));

    (void)state;
    assert_non_null(r);
    for (int style = 0; style < KEY_STYLES; style++) {
        for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]); n++) {
            rows_make(r, (enum key_style)style, counts[n], counts[n] * 7 + (size_t)style);
            for (size_t k = 0; k <= sizeof(intervals) / sizeof(intervals[0]); k++) {
                unsigned version = k == 0 ? 1 : 2;
                unsigned before = directories;
                struct out o = {0};
                char name[64];

                snprintf(name, sizeof(name), "%s, %zu rows, version %u, interval %zu", style_names[style], counts[n],
                         version, k == 0 ? 1 : intervals[k - 1]);
                build_block(&o, r->rows, r->count, version, k == 0 ? 1 : intervals[k - 1]);
                check_block(r, out_bytes(&o), version, name);
                if (style == KEYS_DENSE && counts[n] <= 100 && directories == before)
                    fail_msg("%s: no directory", name);
                out_free(&o);
            }
        }
    }
    free(r);
}

/* A head is filled up with zeroes, which keys may end with; and versions of a key share all of it. */
static void test_a_directory_tells_zeroes_from_an_end(void **state)
{
    static const char keys[][4] = {"ab", "ab\0", "ab\0", "ab\0\0", "abc"};
    static const size_t lengths[] = {2, 3, 3, 4, 3};
    struct test_row rows[5];
    struct out o = {0};
    bool found;
    sf_block_row row;

    (void)state;
    for (size_t skip = 0; skip <= 5; skip++) { /* without one of the keys, and with all */
        size_t n = 0;

        for (size_t i = 0; i < 5; i++)
            if (i != skip && (skip != 1 || i != 2))
                rows[n++] = (struct test_row){.key = (uint8_t *)keys[i],
                                              .key_len = lengths[i],
                                              .seq = 10 - i,
                                              .value = (uint8_t *)"0123456789" + i,
                                              .value_len = 1};
        build_block(&o, rows, n, 2, 16);
        directory_make(out_bytes(&o), 2, "zeroes");
        assert_true(with_dir->front > 0);
        for (size_t i = 0; i < 5; i++) {
            sf_bytes key = {(const uint8_t *)keys[i], lengths[i]};
            bool there = i != skip && (skip != 1 || i != 2);

            if (i == 2)
                continue; /* the older version */
            assert_int_equal(
                sf__block_dir_get(with_dir, key, sf__block_dir_seek(with_dir, key), SF_SEQ_MAX, &found, &row, NULL),
                SF_OK);
            assert_int_equal(found, there);
            assert_true(!found || row.value.p[0] == '0' + i);
        }
        sf__buf_release(with_dir);
        out_free(&o);
    }
}

/* Integer keys of 8 and 4 bytes, at all distances: what a directory knows of them lies in a word. Beside each lie keys that are not there, one
 * byte shorter or longer among them, and versions that may not be seen. */
static void test_a_directory_of_integers(void **state)
{
    static const struct {
        uint64_t first, step;
        size_t width;
    } cases[] = {
        {0, 2, 8},
        {250, 3, 8},
        {UINT64_C(0x0102030405fffff0), 17, 8},
        {65530, 2, 4},
        {7, 300, 8},
        {1, UINT64_C(0x0100000000000003), 8},
        {UINT64_MAX - 2, 1, 8},
        {0, 1, 4},
        {5, UINT64_C(0x10001), 8},
    };
    static const size_t counts[] = {1, 2, 7, 8, 9, 64, 65, 120};
    static uint8_t keys[120][8], value[8 * 40];
    static struct test_row rows[120];

    (void)state;
    for (size_t i = 0; i < sizeof(value); i++)
        value[i] = (uint8_t)i;
    plain_directories = 0;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]) * sizeof(counts) / sizeof(counts[0]); c++) {
        uint64_t first = cases[c / 8].first, step = cases[c / 8].step;
        size_t width = cases[c / 8].width, count = 0;
        struct out o = {0};

        for (; count < counts[c % 8] && (count == 0 || first + count * step > first + (count - 1) * step) &&
               (UINT64_MAX - first) / step >= count;
             count++) {
            sf_store_be(keys[count], width, first + count * step);
            rows[count] = (struct test_row){.key = keys[count],
                                            .key_len = width,
                                            .seq = count % 5 == 4 ? 200 : 100,
                                            .value = value,
                                            .value_len = (uint32_t)(count % 9 * 40)};
        }
        build_block(&o, rows, count, 1 + c % 2, 16);
        directory_make(out_bytes(&o), 1 + c % 2, "integers");
        assert_true(with_dir->front > 0);
        for (size_t i = 0; i < 5 * count; i++) {
            uint8_t key[9] = {0};
            uint64_t v = first + i / 5 * step + (i % 5 == 1) - (i % 5 == 2);
            size_t n = width + (i % 5 == 3) - (i % 5 == 4), at = count;
            bool found;
            sf_block_row row;
            sf_error err;

            sf_store_be(key, width, v);
            for (size_t k = 0; k < count; k++)
                if (n == width && memcmp(keys[k], key, width) == 0 && rows[k].seq <= 150)
                    at = k;
            if (sf__block_dir_get(with_dir, sf_bytes_of(key, n), sf__block_dir_seek(with_dir, sf_bytes_of(key, n)), 150,
                                  &found, &row, &err) != SF_OK)
                fail_msg("%s", err.message);
            assert_int_equal(found, at < count);
            assert_true(!found || (row.value.n == rows[at].value_len && row.seq == 100 &&
                                   memcmp(row.value.p, value, row.value.n) == 0));
            check_plain(sf_bytes_of(key, n), 150, found, &row, "integers");
        }
        sf__buf_release(with_dir);
        out_free(&o);
    }
    assert_true(plain_directories > 0);
}

/* Keys that do not show are passed as those that do: else each step of a scan backwards looked at all of them once more. */
static void test_tombstones_are_passed_together(void **state)
{
    static uint8_t keys[100][2];
    static sf_block_rows out;
    struct test_row rows[100];
    struct out o = {0};

    (void)state;
    for (size_t i = 0; i < 100; i++) {
        keys[i][0] = 'k';
        keys[i][1] = (uint8_t)i;
        rows[i] = (struct test_row){.key = keys[i], .key_len = 2, .seq = 1, .flags = SF_ROW_TOMBSTONE};
    }
    for (unsigned version = 1; version <= 2; version++) {
        sf_block_cursor c;
        sf_block b;

        build_block(&o, rows, 100, version, 16);
        assert_int_equal(sf__block_init(&b, out_bytes(&o), version, NULL), SF_OK);
        sf__block_cursor_init(&c, &sf__allocator_default);
        sf__block_cursor_set(&c, &b);
        assert_int_equal(sf__block_cursor_last(&c, NULL), SF_OK);
        out.max_seq = SF_SEQ_MAX;
        out.most = SF_BLOCK_ROWS_MAX;
        assert_true(sf__block_cursor_rows(&c, &out));
        assert_int_equal(out.count, 0);
        assert_int_equal(sf__block_cursor_prev(&c, NULL), SF_OK);
        /* a block in front of it may have versions of the first key */
        assert_true(c.valid && c.row.key.n == 2 && c.row.key.p[1] == 0);
        assert_false(sf__block_cursor_rows(&c, &out));
        assert_int_equal(sf__block_cursor_prev(&c, NULL), SF_OK);
        assert_false(c.valid);
        sf__block_cursor_cleanup(&c);
        out_free(&o);
    }
}

/* Files that processes map have directories in them (cache/image_file.h), and each process compares them with those that it makes. So versions of this library that
 * make others need files of other names, else each would remove those of the other. */
static void test_directories_of_this_version(void **state)
{
    static const size_t intervals[] = {1, 16};
    struct rows *r = malloc(sizeof(*r));
    uint64_t hash = 0;

    (void)state;
    assert_non_null(r);
    for (unsigned text = 0; text < 2; text++) {
        for (size_t k = 0; k < 2; k++) {
            struct out o = {0};

            r->count = 60;
            memset(r->values, 'v', sizeof(r->values));
            for (size_t i = 0; i < r->count; i++) {
                r->rows[i] = (struct test_row){.key = r->keys[i],
                                               .key_len = text ? 14 : 8,
                                               .value = r->values,
                                               .value_len = i % 2 ? 20 : 33,
                                               .seq = 1};
                sf_store_be(r->keys[i], 8, 7 * i);
                if (text)
                    snprintf((char *)r->keys[i], KEY_MAX, "customer/%05zu", 37 * i);
            }
            build_block(&o, r->rows, r->count, 2, intervals[k]);
            directory_make(out_bytes(&o), 2, "this version");
            assert_in_range(with_dir->front, 1, 4096);
            hash = sf__xxh3_64_seeded(sf_bytes_of(with_dir->data, with_dir->front), hash);
            sf__buf_release(with_dir);
            out_free(&o);
        }
    }
    free(r);
    if (hash != UINT64_C(0x4c13c4e6860ea552))
        fail_msg("directories have changed: raise SF_IMAGE_VERSION, and say 0x%llx here", (unsigned long long)hash);
}

/* A WAL block: rows in the order they were written. */
static void test_unsorted_rows_are_walked(void **state)
{
    struct test_row rows[] = {
        {.key = (uint8_t *)"zebra", .key_len = 5, .seq = 1, .value = (uint8_t *)"1", .value_len = 1},
        {.key = (uint8_t *)"ant", .key_len = 3, .seq = 2, .value = (uint8_t *)"2", .value_len = 1},
        {.key = (uint8_t *)"antelope", .key_len = 8, .seq = 2, .flags = SF_ROW_TOMBSTONE},
        {.key = (uint8_t *)"ant", .key_len = 3, .seq = 3, .value = (uint8_t *)"4", .value_len = 1},
    };
    struct out o = {0};
    sf_block b;
    sf_block_cursor c;
    size_t i = 0;

    (void)state;
    build_block(&o, rows, 4, 2, 16);
    assert_int_equal(sf__block_check(out_bytes(&o), 2, NULL), SF_OK);
    assert_int_equal(sf__block_init(&b, out_bytes(&o), 2, NULL), SF_OK);
    directory_make(out_bytes(&o), 2, "rows out of order");
    assert_int_equal(with_dir->front, 0);
    sf__buf_release(with_dir);
    sf__block_cursor_init(&c, &sf__allocator_default);
    sf__block_cursor_set(&c, &b);
    for (sf_status rc = sf__block_cursor_first(&c, NULL); c.valid; rc = sf__block_cursor_next(&c, NULL), i++)
        assert_true(rc == SF_OK && i < 4 && same(&c.row, &rows[i]));
    assert_int_equal(i, 4);
    for (sf_status rc = sf__block_cursor_last(&c, NULL); c.valid; rc = sf__block_cursor_prev(&c, NULL))
        assert_true(rc == SF_OK && i > 0 && same(&c.row, &rows[--i]));
    assert_int_equal(i, 0);
    sf__block_cursor_cleanup(&c);
    out_free(&o);
}

/* What a look-up walks is short: only a single row may make a block longer than blocks are. */
static void test_large_blocks(void **state)
{
    static const struct {
        const char *name;
        size_t first, second;
        sf_status want;
    } cases[] = {
        {"one row", SF_LIMIT_BLOCK_OF_ROWS_BYTES + 1, 0, SF_OK},
        {"two rows within the limit", SF_LIMIT_BLOCK_OF_ROWS_BYTES / 2, SF_LIMIT_BLOCK_OF_ROWS_BYTES / 4, SF_OK},
        {"two rows above it", SF_LIMIT_BLOCK_OF_ROWS_BYTES / 2, SF_LIMIT_BLOCK_OF_ROWS_BYTES / 2, SF_CORRUPT},
    };
    uint8_t *zeroes = calloc(1, SF_LIMIT_BLOCK_OF_ROWS_BYTES + 1);

    (void)state;
    assert_non_null(zeroes);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_row rows[] = {
            {.key = (uint8_t *)"a", .key_len = 1, .seq = 1, .value = zeroes, .value_len = cases[i].first},
            {.key = (uint8_t *)"b", .key_len = 1, .seq = 1, .value = zeroes, .value_len = cases[i].second},
        };

        struct out o = {0};
        sf_status rc;

        build_block(&o, rows, cases[i].second > 0 ? 2 : 1, 2, 16); /* version 1 has an offset a row, of 16 bits */
        rc = sf__block_check(out_bytes(&o), 2, NULL);
        if (rc != cases[i].want)
            fail_msg("%s: %s", cases[i].name, sf_status_name(rc));
        out_free(&o);
    }
    free(zeroes);
}

#define SEQ_FLAGS "\0\0\0\0\0\0\0\1\0"
#define BYTES(s) {(const uint8_t *)(s), sizeof(s) - 1}

static void test_malformed_blocks(void **state)
{
    static const struct {
        const char *name;
        unsigned version;
        sf_bytes plain;
        sf_status want;
    } cases[] = {
        {"one row, version 2", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_OK},
        {"one row, version 1", 1, BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\0\1v\0\0\0\1"), SF_OK},
        {"version 0", 0, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_UNSUPPORTED},
        {"version 3", 3, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_UNSUPPORTED},
        {"nothing", 2, {NULL, 0}, SF_CORRUPT},
        {"one byte", 2, BYTES("\0"), SF_CORRUPT},
        {"no offsets", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0"), SF_CORRUPT},
        {"offsets fill the block", 2, BYTES("\0\0\0\1"), SF_CORRUPT},
        {"more offsets than bytes", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\xff\xff"), SF_CORRUPT},
        {"restart inside a row", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\1\0\1"), SF_CORRUPT},
        {"restart behind the rows", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\16\0\2"), SF_CORRUPT},
        {"restart twice", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\0\0\2"), SF_CORRUPT},
        {"restarts descend", 2, BYTES("\0\1\0k" SEQ_FLAGS "\0\1\0l" SEQ_FLAGS "\0\15\0\0\0\2"), SF_CORRUPT},
        {"two restarts", 2, BYTES("\0\1\0k" SEQ_FLAGS "\0\1\0l" SEQ_FLAGS "\0\0\0\15\0\2"), SF_OK},
        {"restart shares", 2, BYTES("\0\1\0k" SEQ_FLAGS "\1\1\0l" SEQ_FLAGS "\0\0\0\15\0\2"), SF_CORRUPT},
        {"first row shares", 2, BYTES("\1\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"shares too much", 2, BYTES("\0\1\0k" SEQ_FLAGS "\2\1\0l" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"shares all", 2, BYTES("\0\1\0k" SEQ_FLAGS "\1\0\0" SEQ_FLAGS "\0\0\0\1"), SF_OK},
        {"key past the end", 2, BYTES("\0\x7f\1kv" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"value past the end", 2, BYTES("\0\1\x7fkv" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"value length of 2^32-1", 2, BYTES("\0\1\xff\xff\xff\xff\x0fkv" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"varint of six bytes", 2, BYTES("\x80\x80\x80\x80\x80\0\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_CORRUPT},
        {"varint longer than needed", 2, BYTES("\x80\0\1\1kv" SEQ_FLAGS "\0\0\0\1"), SF_OK},
        {"a byte behind the rows", 2, BYTES("\0\1\1kv" SEQ_FLAGS "\0\0\0\0\1"), SF_CORRUPT},
        {"unknown flag", 2, BYTES("\0\1\1kv\0\0\0\0\0\0\0\1\x10\0\0\0\1"), SF_CORRUPT},
        {"tombstone and merge", 2, BYTES("\0\1\0k\0\0\0\0\0\0\0\1\x09\0\0\0\1"), SF_CORRUPT},
        {"tombstone with a value", 2, BYTES("\0\1\1kv\0\0\0\0\0\0\0\1\1\0\0\0\1"), SF_CORRUPT},
        {"tombstone", 2, BYTES("\0\1\0k\0\0\0\0\0\0\0\1\1\0\0\0\1"), SF_OK},
        {"times cut off", 2, BYTES("\0\1\1kv\0\0\0\0\0\0\0\1\6\0\0\0\0\0\0\0\0\0\0\0\1"), SF_CORRUPT},
        {"version 1: offset beside the row", 1, BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\0\1v\0\1\0\1"), SF_CORRUPT},
        {"version 1: first row shares", 1, BYTES("\0\1\0\1k" SEQ_FLAGS "\0\0\0\1v\0\0\0\1"), SF_CORRUPT},
        {"version 1: rows without an offset", 1,
         BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\0\0\0\0\0\1l" SEQ_FLAGS "\0\0\0\0\0\0\0\1"), SF_CORRUPT},
        {"version 1: shares with the first key", 1,
         BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\0\0\0\1\0\1l" SEQ_FLAGS "\0\0\0\0\0\0\0\22\0\2"), SF_OK},
        {"version 1: shares more than the first key has", 1,
         BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\0\0\0\2\0\1l" SEQ_FLAGS "\0\0\0\0\0\0\0\22\0\2"), SF_CORRUPT},
        {"version 1: tombstone has no length", 1, BYTES("\0\0\0\1k\0\0\0\0\0\0\0\1\1\0\0\0\1"), SF_OK},
        {"version 1: value past the end", 1, BYTES("\0\0\0\1k" SEQ_FLAGS "\0\0\1\0v\0\0\0\1"), SF_CORRUPT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err;
        sf_status rc = sf__block_check(cases[i].plain, cases[i].version, &err);

        if (rc != cases[i].want)
            fail_msg("%s: %s, not %s", cases[i].name, sf_status_name(rc), sf_status_name(cases[i].want));
    }
}

/* Everything a reader may do with a block, of which it does not know whether it is damaged. */
static void use(sf_bytes plain, unsigned version, sf_bytes key)
{
    sf_block b;
    sf_block_cursor c;
    sf_block_row row;
    bool found;
    bool whole = sf__block_check(plain, version, NULL) == SF_OK;
    size_t forwards = 0, backwards = 0;
    sf_status rc;

    if (sf__block_init(&b, plain, version, NULL) != SF_OK) {
        assert_false(whole);
        return;
    }
    sf__block_cursor_init(&c, &sf__allocator_default);
    sf__block_cursor_set(&c, &b);
    for (rc = sf__block_cursor_first(&c, NULL); c.valid; rc = sf__block_cursor_next(&c, NULL))
        forwards++;
    assert_true(rc == SF_OK || (rc == SF_CORRUPT && !whole));
    for (rc = sf__block_cursor_last(&c, NULL); c.valid; rc = sf__block_cursor_prev(&c, NULL))
        backwards++;
    assert_true(rc == SF_OK || (rc == SF_CORRUPT && !whole));
    if (whole)
        assert_int_equal(forwards, backwards);
    rc = sf__block_get(&b, key, SF_SEQ_MAX, &found, &row, NULL);
    assert_true(rc == SF_OK || (rc == SF_CORRUPT && !whole));
    rc = sf__block_cursor_seek_ge(&c, key, NULL);
    assert_true(rc == SF_OK || (rc == SF_CORRUPT && !whole && !c.valid));
    rc = sf__block_cursor_seek_lt(&c, key, NULL);
    assert_true(rc == SF_OK || (rc == SF_CORRUPT && !whole && !c.valid));
    sf__block_cursor_cleanup(&c);
}

static void test_damaged_blocks(void **state)
{
    struct rows *r = malloc(sizeof(*r));

    (void)state;
    assert_non_null(r);
    for (unsigned version = 1; version <= 2; version++) {
        struct out o = {0};
        uint8_t *copy;
        sf_bytes key;

        rows_make(r, KEYS_NESTED, 40, 5);
        key = key_of(&r->rows[r->count / 2]);
        build_block(&o, r->rows, r->count, version, 4);
        for (size_t n = 0; n < o.n; n++) {
            copy = malloc(n + 1); /* the sanitizer sees a read behind it */
            assert_non_null(copy);
            memcpy(copy + 1, o.p, n);
            use((sf_bytes){copy + 1, n}, version, key);
            free(copy);
        }
        copy = malloc(o.n);
        assert_non_null(copy);
        for (size_t bit = 0; bit < 8 * o.n; bit++) {
            memcpy(copy, o.p, o.n);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            use((sf_bytes){copy, o.n}, version, key);
        }
        free(copy);
        out_free(&o);
    }
    free(r);
}

static void test_cursor_without_memory(void **state)
{
    struct rows *r = malloc(sizeof(*r));
    struct out o = {0};

    (void)state;
    assert_non_null(r);
    rows_make(r, KEYS_NESTED, 40, 5);
    build_block(&o, r->rows, r->count, 2, 4);
    for (long nth = 0;; nth++) {
        struct test_heap h;
        sf_block_cursor c;
        sf_block b;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, nth);
        assert_int_equal(sf__block_init(&b, out_bytes(&o), 2, NULL), SF_OK);
        sf__block_cursor_init(&c, &h.alloc);
        sf__block_cursor_set(&c, &b);
        for (rc = sf__block_cursor_first(&c, NULL); c.valid; rc = sf__block_cursor_next(&c, NULL))
            ;
        if (rc == SF_OK) {
            for (rc = sf__block_cursor_last(&c, NULL); c.valid; rc = sf__block_cursor_prev(&c, NULL))
                ;
        }
        sf__block_cursor_cleanup(&c);
        assert_int_equal(h.live, 0);
        if (!h.fired) {
            assert_int_equal(rc, SF_OK);
            assert_true(nth > 0);
            break;
        }
        assert_int_equal(rc, SF_NOMEM);
    }
    out_free(&o);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_agree_with_their_rows),
        cmocka_unit_test(test_a_directory_tells_zeroes_from_an_end),
        cmocka_unit_test(test_a_directory_of_integers),
        cmocka_unit_test(test_directories_of_this_version),
        cmocka_unit_test(test_tombstones_are_passed_together),
        cmocka_unit_test(test_unsorted_rows_are_walked),
        cmocka_unit_test(test_large_blocks),
        cmocka_unit_test(test_malformed_blocks),
        cmocka_unit_test(test_damaged_blocks),
        cmocka_unit_test(test_cursor_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
