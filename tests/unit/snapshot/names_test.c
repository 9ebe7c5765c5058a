#include "vectors.h"

#include "snapshot/names.h"

static void test_run_ids(void **state)
{
    static const struct {
        const char *run_id;
        bool ok;
    } cases[] = {
        {"r1", true},    {"a b", true},   {"\xc3\xa9", true}, {"...", true},   {"run_id=x", true},
        {"", false},     {".", false},    {"..", false},      {"a/b", false},  {"/", false},
        {"a\nb", false}, {"\x7f", false}, {"\xff", false},    {"\x01", false},
    };
    char long_id[300];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;

        if ((sf__run_id_check(cases[i].run_id, &err) == SF_OK) != cases[i].ok)
            fail_msg("'%s': %s", cases[i].run_id, err.message);
        assert_true(cases[i].ok || err.code == SF_INVALID);
    }
    memset(long_id, 'x', sizeof(long_id));
    long_id[256] = '\0';
    assert_int_equal(sf__run_id_check(long_id, NULL), SF_INVALID);
    long_id[255] = '\0';
    assert_int_equal(sf__run_id_check(long_id, NULL), SF_OK);
}

static void test_segments(void **state)
{
    static const struct {
        const char *segment, *message;
    } cases[] = {
        {"shards", NULL},
        {"A-z_0.9", NULL},
        {"", "x must be non-empty"},
        {"a..b", "x must not contain '..'"},
        {"a/b", "x must be a single path segment"},
        {"a b", "x contains unsupported characters; allowed: [A-Za-z0-9._-]"},
        {"\xc3\xa9", "unsupported characters"},
        {".", "must not be '.'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_status rc = sf__prefix_segment_check("x", cases[i].segment, &err);

        if ((rc == SF_OK) != !cases[i].message || (rc != SF_OK && !strstr(err.message, cases[i].message)))
            fail_msg("'%s': %s", cases[i].segment, err.message);
    }
}

static void test_db_paths(void **state)
{
    static const struct {
        const char *path_template;
        uint32_t db_id;
        const char *path; /* NULL: refused */
    } cases[] = {
        {"db={db_id:05d}", 7, "db=00007"},
        {"db={db_id:05d}", 1234567, "db=1234567"},
        {"db={db_id}", 7, "db=7"},
        {"{db_id:d}", 0, "0"},
        {"{db_id:3d}", 7, "  7"},
        {"{db_id:03}", 7, "007"},
        {"{{{db_id}}}", 7, "{7}"},
        {"a/{db_id}/b", 7, "a/7/b"},
        {"{db_id}{db_id:02d}", 7, "707"},
        {"plain", 7, "plain"},
        {"{db_id:x}", 7, NULL},
        {"{db_id:05d", 7, NULL},
        {"{db_id:999d}", 7, NULL},
        {"{other}", 7, NULL},
        {"{}", 7, NULL},
        {"a}b", 7, NULL},
        {"{", 7, NULL},
        {"", 7, NULL},
        {"/a{db_id}", 7, NULL},
        {"a/{db_id}/", 7, NULL},
        {"a//{db_id}", 7, NULL},
        {"../{db_id}", 7, NULL},
        {"./{db_id}", 7, NULL},
        {"a\n{db_id}", 7, NULL},
        {"\xff{db_id}", 7, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        char *path = NULL;
        sf_status rc = sf__db_path_format(&path, cases[i].path_template, cases[i].db_id, HEAP, &err);

        if (rc != (cases[i].path ? SF_OK : SF_INVALID) || (path && strcmp(path, cases[i].path) != 0))
            fail_msg("'%s': '%s' %s", cases[i].path_template, path ? path : "", err.message);
        sf__free(HEAP, path);
    }
    assert_int_equal(sf__db_path_check("plain", 1, HEAP, NULL), SF_OK);
    assert_int_equal(sf__db_path_check("plain", 2, HEAP, NULL), SF_INVALID);
    assert_int_equal(sf__db_path_check("{db_id}", 2, HEAP, NULL), SF_OK);
}

static void test_ids(void **state)
{
    char a[SF_HEX128_TEXT], b[SF_HEX128_TEXT];

    (void)state;
    assert_true(sf__uuid_hex(a) && sf__uuid_hex(b));
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_int_equal(a[12], '4');
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_ids),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_db_paths),
        cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
