/* Rows as Arrow data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/bytes.h"
#include "shardyfusion/reader.h"

#define ROW(k, v) {{(const uint8_t *)(k), sizeof(k) - 1}, {(const uint8_t *)(v), sizeof(v) - 1}}

static void expect_text(const struct ArrowArray *column, int64_t i, const char *expected)
{
    const int32_t *offsets = column->buffers[1];
    size_t n = strlen(expected);

    assert_int_equal(offsets[i + 1] - offsets[i], n);
    assert_memory_equal((const uint8_t *)column->buffers[2] + offsets[i], expected, n);
}

static void columns_of_every_encoding(void **state)
{
    static const sf_row wide[] = {ROW("\0\0\0\0\0\0\0\7", "seven"), ROW("\377\0\0\0\0\0\0\1", "")};
    static const sf_row narrow[] = {ROW("\0\0\1\0", "a"), ROW("\377\377\377\377", "bc")};
    static const sf_row texts[] = {ROW("k", "v"), ROW("", "w"), ROW("\303\244", "x")};
    static const struct {
        sf_key_encoding keys;
        const sf_row *rows;
        size_t count;
        const char *format;
    } cases[] = {
        {SF_KEY_U64BE, wide, 2, "L"}, {SF_KEY_U32BE, narrow, 2, "I"}, {SF_KEY_UTF8, texts, 3, "u"},
        {SF_KEY_RAW, wide, 2, "z"},   {SF_KEY_RAW, texts, 0, "z"},    {SF_KEY_U64BE, wide, 0, "L"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ArrowArray batch, taken;
        struct ArrowSchema schema;

        assert_int_equal(sf_rows_arrow_schema(&schema, cases[i].keys, NULL), SF_OK);
        assert_string_equal(schema.format, "+s");
        assert_string_equal(schema.children[0]->format, cases[i].format);
        assert_string_equal(schema.children[1]->name, "value");
        schema.release(&schema);
        assert_null(schema.release);
        assert_int_equal(sf_rows_export_arrow(&batch, cases[i].rows, cases[i].count, cases[i].keys, NULL), SF_OK);
        assert_int_equal(batch.length, cases[i].count);
        assert_int_equal(batch.n_children, 2);
        assert_int_equal(batch.children[0]->length, cases[i].count);
        taken = *batch.children[1]; /* a column alone outlives its batch */
        batch.children[1]->release = NULL;
        if (cases[i].count > 0 && cases[i].keys == SF_KEY_U64BE)
            assert_true(((const uint64_t *)batch.children[0]->buffers[1])[1] == UINT64_C(0xff00000000000001));
        if (cases[i].count > 0 && cases[i].keys == SF_KEY_U32BE)
            assert_true(((const uint32_t *)batch.children[0]->buffers[1])[0] == 256);
        if (cases[i].keys == SF_KEY_UTF8)
            expect_text(batch.children[0], 2, "\303\244");
        batch.release(&batch);
        assert_null(batch.release);
        if (cases[i].rows == wide && cases[i].count > 0) {
            expect_text(&taken, 0, "seven");
            expect_text(&taken, 1, "");
        }
        taken.release(&taken);
    }
}

static void keys_of_another_encoding(void **state)
{
    static const sf_row rows[] = {ROW("12345678", "a"), ROW("1234", "b"), ROW("\377", "c")};
    struct ArrowArray batch = {0};
    sf_error e;

    (void)state;
    for (sf_key_encoding keys = SF_KEY_U64BE; keys <= SF_KEY_UTF8; keys++) {
        assert_int_equal(sf_rows_export_arrow(&batch, rows, 3, keys, &e), SF_CORRUPT);
        assert_true(e.message[0] != '\0');
        assert_null(batch.release);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(columns_of_every_encoding),
                                       cmocka_unit_test(keys_of_another_encoding)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
