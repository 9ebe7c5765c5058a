/* Rows come back as they went in, from memory and from the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/sqlite/row_spool.h"

static const sf_allocator *const heap = &sf__allocator_default;

/* Any bytes that depend on row and place. */
static void fill(uint8_t *p, size_t n, uint64_t row)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(row * 131 + i * 7 + (i >> 8));
}

static void round_trips(void **state)
{
    static const struct {
        const char *name;
        uint64_t rows;
        size_t key, value; /* the sizes of row i: both times (i + 1), modulo these + 1 */
        bool in_file;
    } cases[] = {
        {"none", 0, 0, 0, false},
        {"one empty row", 1, 0, 0, false},
        {"a few", 100, 20, 3000, false},
        {"many small", 100000, 8, 20, true},
        {"all sizes", 3000, 300, 5000, true},
        {"larger than the buffer", 5, 1500000, 3000000, true},
    };
    uint8_t *key = malloc(4u << 20), *value = malloc(4u << 20);
    char folder[] = "/tmp/sf-spool-XXXXXX";

    assert_non_null(mkdtemp(folder));
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        sf_row_spool s;
        sf_error e = SF_ERROR_INIT;
        bool end = false;
        sf_bytes k, v;

        sf__row_spool_init(&s, folder, heap);
        for (uint64_t i = 0; i < cases[c].rows; i++) {
            size_t kn = (i + 1) * 7919 % (cases[c].key + 1), vn = (i + 1) * 104729 % (cases[c].value + 1);

            fill(key, kn, i);
            fill(value, vn, ~i);
            if (sf__row_spool_add(&s, sf_bytes_of(key, kn), sf_bytes_of(value, vn), &e) != SF_OK)
                fail_msg("%s: %s", cases[c].name, e.message);
        }
        assert_int_equal(s.fd >= 0, cases[c].in_file);
        assert_int_equal(sf__row_spool_rewind(&s, &e), SF_OK);
        for (uint64_t i = 0; i < cases[c].rows; i++) {
            size_t kn = (i + 1) * 7919 % (cases[c].key + 1), vn = (i + 1) * 104729 % (cases[c].value + 1);

            fill(key, kn, i);
            fill(value, vn, ~i);
            if (sf__row_spool_next(&s, &end, &k, &v, &e) != SF_OK || end)
                fail_msg("%s: row %llu: %s", cases[c].name, (unsigned long long)i, end ? "the end" : e.message);
            if (!sf_bytes_eq(k, sf_bytes_of(key, kn)) || !sf_bytes_eq(v, sf_bytes_of(value, vn)))
                fail_msg("%s: row %llu differs", cases[c].name, (unsigned long long)i);
        }
        assert_int_equal(sf__row_spool_next(&s, &end, &k, &v, &e), SF_OK);
        assert_true(end);
        sf__row_spool_cleanup(&s);
    }
    assert_int_equal(rmdir(folder), 0); /* nothing is left in it */
    free(key);
    free(value);
}

static void a_file_that_lost_bytes(void **state)
{
    uint8_t value[1000] = {0};
    sf_row_spool s;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = SF_OK;
    bool end = false;

    sf__row_spool_init(&s, NULL, heap);
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(sf__row_spool_add(&s, sf_bytes_str("key"), sf_bytes_of(value, sizeof(value)), &e), SF_OK);
    assert_int_equal(sf__row_spool_rewind(&s, &e), SF_OK);
    assert_int_equal(ftruncate(s.fd, 3000000), 0);
    while (rc == SF_OK && !end) {
        sf_bytes k, v;

        rc = sf__row_spool_next(&s, &end, &k, &v, &e);
    }
    assert_int_equal(rc, SF_IO);
    sf__row_spool_cleanup(&s);
}

static void a_folder_that_is_not_there(void **state)
{
    uint8_t value[2000] = {0};
    sf_row_spool s;
    sf_error e = SF_ERROR_INIT;
    sf_status rc = SF_OK;

    sf__row_spool_init(&s, "/nonexistent/folder", heap);
    for (unsigned i = 0; i < 5000 && rc == SF_OK; i++)
        rc = sf__row_spool_add(&s, sf_bytes_str("key"), sf_bytes_of(value, sizeof(value)), &e);
    assert_int_equal(rc, SF_IO);
    assert_non_null(strstr(e.message, "/nonexistent/folder"));
    sf__row_spool_cleanup(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(a_file_that_lost_bytes),
        cmocka_unit_test(a_folder_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
