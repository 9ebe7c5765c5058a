/* Columns of a row as JSON, against the text that json.dumps() of Python gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "../../support/heap.h"
#include "writer/arrow_json.h"

/* Two rows of each type, at an offset of one. */
static const int8_t bytes[] = {0, -128, 127};
static const uint64_t words[] = {0, UINT64_MAX, 9};
static const double doubles[] = {0, 0.1, -INFINITY};
static const float floats[] = {0, 0.1f, 1e16f};
static const int32_t ends[] = {0, 1, 8, 8};
static const uint8_t bits = 2, valid = 7, no_second = 5, places[] = {9, 1, 7};
static const char text[] = "xa\"\n\x7f\xc3\xa9!";

static struct ArrowSchema schemas[9], *children[9];
static struct ArrowArray arrays[9], *columns[9];
static struct ArrowSchema schema = {.format = "+s", .children = children};
static struct ArrowArray batch = {.length = 2, .children = columns};

static void add_column(const char *name, const char *format, const void *const *buffers, int64_t buffer_count)
{
    int64_t n = schema.n_children++;

    schemas[n] = (struct ArrowSchema){.name = name, .format = format};
    arrays[n] = (struct ArrowArray){.length = 2,
                                    .offset = 1,
                                    .null_count = -1,
                                    .n_buffers = buffer_count,
                                    .buffers = (const void **)(uintptr_t)buffers};
    children[n] = &schemas[n];
    columns[n] = &arrays[n];
    batch.n_children = n + 1;
}

static void fill(void)
{
    static const void *const of_bytes[] = {&valid, bytes}, *const of_words[] = {&no_second, words},
                             *const of_doubles[] = {NULL, doubles};
    static const void *const of_floats[] = {NULL, floats}, *const of_bits[] = {NULL, &bits},
                             *const of_text[] = {NULL, ends, text};
    static const void *const of_index[] = {NULL, places};
    static struct ArrowSchema dictionary = {.format = "u"};
    static struct ArrowArray entries = {.length = 2, .n_buffers = 3, .buffers = (const void **)(uintptr_t)of_text};

    schema.n_children = 0;
    add_column("i", "c", of_bytes, 2);
    add_column("u", "L", of_words, 2);
    add_column("d", "g", of_doubles, 2);
    add_column("\xc3\xa9", "f", of_floats, 2);
    add_column("B", "b", of_bits, 2);
    add_column("t", "u", of_text, 3);
    add_column("of", "C", of_index, 2);
    schemas[6].dictionary = &dictionary;
    arrays[6].dictionary = &entries;
    add_column("n", "n", NULL, 0);
}

static sf_status row_of(sf_arrow_members wanted, const sf_allocator *a, int64_t row, char *out, sf_error *err)
{
    sf_arrow_json j;
    sf_bytes object;
    sf_status rc = sf__arrow_json_init(&j, &schema, &wanted, a, err);

    if (rc == SF_OK)
        rc = sf__arrow_json_enter(&j, &batch, err);
    if (rc == SF_OK)
        rc = sf__arrow_json_row(&j, row, &object, err);
    if (rc == SF_OK)
        memcpy(out, object.p, object.n + 1);
    sf__arrow_json_cleanup(&j);
    return rc;
}

static const char first_row[] =
    "{\"B\":true,\"d\":0.1,\"i\":-128,\"n\":null,\"of\":\"a\\\"\\n\\u007f\\u00e9!\",\"t\":\"a\\\"\\n\\u007f\\u00e9!\","
    "\"u\":null,\"\\u00e9\":0.10000000149011612}";

static void test_rows(void **state)
{
    static const char *const some[] = {"t", "i", "gone", "i", "u"};
    sf_arrow_members all = {NULL, 0}, none = {some, 0}, five = {some, 5};
    sf_error err = SF_ERROR_INIT;
    char out[512];

    (void)state;
    fill();
    assert_true(sf__arrow_json_takes(&schema, &all) && sf__arrow_json_takes(&schema, &five));
    assert_int_equal(row_of(all, &sf__allocator_default, 0, out, &err), SF_OK);
    assert_string_equal(out, first_row);
    assert_int_equal(row_of(five, &sf__allocator_default, 1, out, &err), SF_OK);
    assert_string_equal(out, "{\"gone\":null,\"i\":127,\"t\":\"\",\"u\":9}");
    assert_int_equal(row_of(none, &sf__allocator_default, 1, out, &err), SF_OK);
    assert_string_equal(out, "{}");
    assert_int_equal(row_of(all, &sf__allocator_default, 1, out, &err), SF_BAD_ROW);
    assert_string_equal(err.message, "the value column 'of' has an index outside of its dictionary");
}

static void test_types(void **state)
{
    static const char extension[] = "\2\0\0\0\1\0\0\0k\2\0\0\0vv\24\0\0\0ARROW:extension:name\1\0\0\0x";
    static const char field_id[] = "\1\0\0\0\20\0\0\0PARQUET:field_id\24\0\0\0ARROW:extension:name";
    static const char *const t[] = {"t"}, *const odd[] = {"\xff"};
    static const struct {
        const char *format, *metadata;
        bool taken;
        sf_status status;
        const char *message;
    } cases[] = {
        {"z", NULL, false, SF_INVALID,
         "value column 't' has type binary, which is neither bool, integer, floating-point number nor text: cast it, or name"},
        {"w:1", NULL, false, SF_INVALID, "fixed_size_binary(1)"},
        {"d:38,0", NULL, false, SF_INVALID, "decimal(38, 0)"},
        {"tdD", NULL, false, SF_INVALID, "date32"},
        {"e", NULL, false, SF_INVALID, "halffloat"},
        {"+l", NULL, false, SF_INVALID, "list"},
        {"u", extension, false, SF_OK, NULL},
        {"u", field_id, true, SF_OK, NULL},
    };
    sf_arrow_members wanted = {t, 1}, unnamed = {odd, 1};
    sf_error err = SF_ERROR_INIT;
    char out[512];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fill();
        schemas[5].format = cases[i].format;
        schemas[5].metadata = cases[i].metadata;
        if (sf__arrow_json_takes(&schema, &wanted) != cases[i].taken)
            fail_msg("%s", cases[i].format);
        assert_int_equal(row_of(wanted, &sf__allocator_default, 0, out, &err), cases[i].status);
        if (cases[i].message && !strstr(err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].format, err.message);
    }
    fill();
    arrays[5].n_buffers = 2; /* of numbers, say */
    assert_int_equal(row_of(wanted, &sf__allocator_default, 0, out, &err), SF_INVALID);
    assert_string_equal(err.message,
                        "an Arrow batch has another value column 't' than its schema, in which it has type string");
    fill();
    assert_int_equal(row_of(unnamed, &sf__allocator_default, 0, out, &err), SF_INVALID);
    add_column("t", "n", NULL, 0);
    assert_false(sf__arrow_json_takes(&schema, &wanted));
    assert_int_equal(row_of(wanted, &sf__allocator_default, 0, out, &err), SF_INVALID);
    assert_string_equal(err.message, "the rows have 2 columns 't': which is the value? Rename the others");
}

static void test_text_that_is_none(void **state)
{
    static const char *const t[] = {"t"};
    static const char broken[] = "xa\"\n\x7f\xc3\x28!";
    sf_error err = SF_ERROR_INIT;
    char out[512];

    (void)state;
    fill();
    arrays[5].buffers = (const void *[]){NULL, ends, broken};
    assert_int_equal(row_of((sf_arrow_members){t, 1}, &sf__allocator_default, 0, out, &err), SF_BAD_ROW);
    assert_string_equal(err.message, "the value column 't' is not valid UTF-8");
}

static void test_no_memory(void **state)
{
    struct test_heap heap;
    sf_error err = SF_ERROR_INIT;
    char out[512];

    (void)state;
    fill();
    for (long nth = 0;; nth++) {
        sf_status rc;

        heap_init(&heap);
        heap_arm(&heap, nth);
        rc = row_of((sf_arrow_members){NULL, 0}, &heap.alloc, 0, out, &err);
        assert_int_equal(heap.live, 0);
        if (!heap.fired) {
            assert_int_equal(rc, SF_OK);
            assert_string_equal(out, first_row);
            break;
        }
        assert_int_equal(rc, SF_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_types),
                                       cmocka_unit_test(test_text_that_is_none), cmocka_unit_test(test_no_memory)};

    return cmocka_run_group_tests_name("arrow json", tests, NULL, NULL);
}
