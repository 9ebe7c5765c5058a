/* Blocks of shuffled rows: what is damaged, or another version's, is told; nothing is read outside of a block. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/error.h"
#include "writer/shuffle.h"

struct laid_block {
    uint8_t p[256];
    size_t n;
};

static void put(struct laid_block *b, uint32_t v)
{
    sf_store_le(b->p + b->n, 4, v);
    b->n += 4;
}

static void put_row(struct laid_block *b, uint32_t key_len, uint32_t value_len, const char *bytes)
{
    put(b, key_len);
    put(b, value_len);
    memcpy(b->p + b->n, bytes, strlen(bytes));
    b->n += strlen(bytes);
}

static void seal(struct laid_block *b)
{
    sf_store_le(b->p, 8, sf__xxh3_64(sf_bytes_of(b->p + 8, b->n - 8)));
}

static struct laid_block begin(uint32_t magic, uint32_t rows, uint32_t key_type)
{
    struct laid_block b = {.n = 8};

    put(&b, magic);
    put(&b, 7);
    put(&b, rows);
    put(&b, key_type);
    put(&b, 3); /* left out */
    return b;
}

static sf_status read_all(const uint8_t *p, size_t n, uint32_t *rows, sf_error *err)
{
    uint8_t exact[256]; /* at its end, so that a sanitizer sees what lies behind */
    uint8_t *at = exact + sizeof(exact) - n;
    sf_shuffle_block b;
    sf_bytes key, value;
    sf_status rc;

    memcpy(at, p, n);
    rc = sf__shuffle_block_open(&b, sf_bytes_of(at, n), err);
    for (*rows = 0; rc == SF_OK && b.rows > 0; ++*rows)
        rc = sf__shuffle_block_next(&b, &key, &value, err);
    return rc;
}

#define MAGIC 0x32424653u

static void test_whole_blocks(void **state)
{
    struct laid_block b = begin(MAGIC, 2, SF_KEY_STR);
    sf_shuffle_block open;
    sf_bytes key, value;

    (void)state;
    put_row(&b, 2, 3, "k1abc");
    put_row(&b, 0, 0, "");
    seal(&b);
    assert_int_equal(sf__shuffle_block_open(&open, sf_bytes_of(b.p, b.n), NULL), SF_OK);
    assert_int_equal(open.db_id, 7);
    assert_int_equal(open.key_type, SF_KEY_STR);
    assert_int_equal(open.left_out, 3);
    assert_int_equal(sf__shuffle_block_next(&open, &key, &value, NULL), SF_OK);
    assert_true(sf_bytes_eq(key, sf_bytes_str("k1")) && sf_bytes_eq(value, sf_bytes_str("abc")));
    assert_int_equal(sf__shuffle_block_next(&open, &key, &value, NULL), SF_OK);
    assert_true(key.n == 0 && value.n == 0 && open.rows == 0);
    assert_int_equal(sf__shuffle_block_next(&open, &key, &value, NULL), SF_CORRUPT);
}

static void test_damaged_blocks(void **state)
{
    static const struct {
        const char *name, *text;
        uint32_t magic, rows, key_type, key_len, value_len;
        const char *bytes;
    } cases[] = {
        {"another version", "same version", MAGIC + 1, 1, SF_KEY_INT, 2, 1, "kkv"},
        {"no key type", "no known type", MAGIC, 1, 99, 2, 1, "kkv"},
        {"more rows than bytes", "number of rows", MAGIC, 3, SF_KEY_INT, 2, 1, "kkv"},
        {"no rows and bytes", "number of rows", MAGIC, 0, SF_KEY_INT, 2, 1, "kkv"},
        {"a key beyond the end", "inside of a row", MAGIC, 1, SF_KEY_INT, 4, 0, "kkv"},
        {"a value beyond the end", "inside of a row", MAGIC, 1, SF_KEY_INT, 2, 2, "kkv"},
        {"lengths that overflow", "inside of a row", MAGIC, 1, SF_KEY_INT, UINT32_MAX, UINT32_MAX, "kkv"},
        {"bytes behind the rows", "goes on", MAGIC, 1, SF_KEY_INT, 1, 1, "kvx"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct laid_block b = begin(cases[i].magic, cases[i].rows, cases[i].key_type);
        sf_error err = SF_ERROR_INIT;
        uint32_t rows;

        put_row(&b, cases[i].key_len, cases[i].value_len, cases[i].bytes);
        seal(&b);
        if (read_all(b.p, b.n, &rows, &err) != SF_CORRUPT || !strstr(err.message, cases[i].text))
            fail_msg("%s: %s", cases[i].name, err.message);
    }
}

/* Every byte counts, and so does every length. */
static void test_changed_and_cut_blocks(void **state)
{
    struct laid_block b = begin(MAGIC, 1, SF_KEY_INT);
    uint32_t rows;

    (void)state;
    put_row(&b, 8, 5, "12345678value");
    seal(&b);
    assert_int_equal(read_all(b.p, b.n, &rows, NULL), SF_OK);
    for (size_t i = 0; i < b.n; i++) {
        struct laid_block other = b;

        other.p[i] ^= 1;
        assert_int_equal(read_all(other.p, other.n, &rows, NULL), SF_CORRUPT);
        assert_int_equal(read_all(b.p, i, &rows, NULL), SF_CORRUPT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_blocks),
        cmocka_unit_test(test_damaged_blocks),
        cmocka_unit_test(test_changed_and_cut_blocks),
    };

    return cmocka_run_group_tests_name("writer/shuffle", tests, NULL, NULL);
}
