#include "vectors.h"

#include "snapshot/lax.h"

#define S INT64_C(1000000)

static const struct {
    const char *text;
    bool ok, naive;
    int64_t us;
} times[] = {
    {"1970-01-01T00:00:00Z", true, false, 0},
    {"1970-01-01", true, true, 0},
    {"1969-12-31T23:59:59.999999Z", true, false, -1},
    {"2026-01-02T03:04:05.678901Z", true, false, 1767323045678901},
    {"2026-01-02t03:04:05.678901z", true, false, 1767323045678901},
    {"2026-01-02 03:04:05", true, true, 1767323045 * S},
    {"2026-01-02_03:04", true, true, 1767323040 * S},
    {"2026-01-02T03:04+01:00", true, false, 1767319440 * S},
    {"2026-01-02T03:04:05,5-0130", true, false, 1767328445 * S + 500000},
    {"2026-01-02T03:04:05.1234567899999Z", true, false, 1767323045 * S + 123456},
    {"2024-02-29", true, true, 1709164800 * S},
    {"2000-02-29", true, true, 951782400 * S},
    {"0001-01-01", true, true, INT64_C(-62135596800) * S},
    {"9999-12-31T23:59:59.999999Z", true, false, INT64_C(253402300800) * S - 1},
    {"1767323045", true, false, 1767323045 * S},
    {"1767323045.5", true, false, 1767323045 * S + 500000},
    {"-1", true, false, -S},
    {"20000000000", true, false, 20000000000 * S},
    {"20000000001", true, false, 20000000001000},
    {"", false, false, 0},
    {"0000-01-01", false, false, 0},
    {"1900-02-29", false, false, 0},
    {"2026-02-30", false, false, 0},
    {"2026-13-01", false, false, 0},
    {"2026-00-01", false, false, 0},
    {"2026-01-00", false, false, 0},
    {"2026-1-2", false, false, 0},
    {"2026-01-02T", false, false, 0},
    {"2026-01-02T03", false, false, 0},
    {"2026-01-02T03Z", false, false, 0},
    {"2026-01-02T24:00:00Z", false, false, 0},
    {"2026-01-02T03:60:00Z", false, false, 0},
    {"2026-01-02T03:04:60Z", false, false, 0},
    {"2026-01-02T03:04:05.Z", false, false, 0},
    {"2026-01-02T03:04:05+24:00", false, false, 0},
    {"2026-01-02T03:04:05+1", false, false, 0},
    {"2026-01-02T03:04:05ZZ", false, false, 0},
    {" 2026-01-02", false, false, 0},
    {"2026-01-02 ", false, false, 0},
    {"yesterday", false, false, 0},
    {"99999999999999999999", false, false, 0},
    {"1e5", false, false, 0},
    {".", false, false, 0},
    {"-", false, false, 0},
};

static void test_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(times); i++) {
        sf_datetime t = {-7, false};
        bool ok = sf__datetime_parse(sf_bytes_str(times[i].text), &t);

        if (ok != times[i].ok || t.us != (ok ? times[i].us : -7) || t.naive != (ok && times[i].naive))
            fail_msg("%s: ok %d, %lld%s", times[i].text, ok, (long long)t.us, t.naive ? ", naive" : "");
    }
}

static void test_numbers(void **state)
{
    sf_datetime t;

    (void)state;
    assert_true(sf__datetime_from_number(sf_bytes_str("1.767323045e9"), &t));
    assert_int_equal(t.us, 1767323045 * S);
    assert_true(sf__datetime_from_number(sf_bytes_str("-0.0000005"), &t));
    assert_int_equal(t.us, -1);
    assert_false(sf__datetime_from_number(sf_bytes_str("1e400"), &t));
    assert_false(sf__datetime_from_number(sf_bytes_str("-9223372036854775808"), &t));
    assert_false(sf__datetime_from_number(sf_bytes_str("NaN"), &t));
}

static void test_format(void **state)
{
    static const int64_t values[] = {
        0, 1, -1, 1767323045678901, 1767323045 * S, INT64_C(-62135596800) * S, INT64_C(253402300800) * S - 1};
    char text[SF_DATETIME_TEXT];
    sf_datetime t;

    (void)state;
    sf__datetime_format(text, 1767323045678901);
    assert_string_equal(text, "2026-01-02T03:04:05.678901Z");
    sf__datetime_format(text, 1767323045 * S);
    assert_string_equal(text, "2026-01-02T03:04:05Z");
    sf__datetime_format_folder(text, 1767323045 * S);
    assert_string_equal(text, "2026-01-02T03:04:05.000000Z");
    for (size_t i = 0; i < COUNT(values); i++) {
        sf__datetime_format(text, values[i]);
        assert_true(sf__datetime_parse(sf_bytes_str(text), &t));
        assert_int_equal(t.us, values[i]);
        sf__datetime_format_folder(text, values[i]);
        assert_true(sf__datetime_parse(sf_bytes_str(text), &t));
        assert_int_equal(t.us, values[i]);
    }
    sf__datetime_format(text, INT64_MAX); /* no date that parses, but no overrun */
    sf__datetime_format_folder(text, INT64_MIN);
}

static const struct {
    const char *text;
    bool ok, fits;
    int64_t v;
} integers[] = {
    {"0", true, true, 0},
    {" \t12\n", true, true, 12},
    {"+1_000", true, true, 1000},
    {"-9223372036854775808", true, true, INT64_MIN},
    {"9223372036854775807", true, true, INT64_MAX},
    {"9223372036854775808", true, false, 0},
    {"4.000", true, true, 4},
    {"-0", true, true, 0},
    {"", false, false, 0},
    {"+", false, false, 0},
    {"1__0", false, false, 0},
    {"_1", false, false, 0},
    {"1_", false, false, 0},
    {"1.", false, false, 0},
    {"1.01", false, false, 0},
    {".0", false, false, 0},
    {"1e3", false, false, 0},
    {"0x1", false, false, 0},
    {"1 2", false, false, 0},
    {"x", false, false, 0},
};

static void test_integers_from_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(integers); i++) {
        sf_lax_int v = {false, 0};
        bool ok = sf__lax_int_from_text(sf_bytes_str(integers[i].text), &v);

        if (ok != integers[i].ok || v.fits != integers[i].fits || (v.fits && v.v != integers[i].v))
            fail_msg("'%s': ok %d, fits %d, %lld", integers[i].text, ok, v.fits, (long long)v.v);
    }
}

static void test_integers_from_json(void **state)
{
    static const struct {
        const char *json, *text; /* NULL: refused */
    } cases[] = {
        {"5", "5"},         {"-0", "0"},     {"true", "1"},
        {"false", "0"},     {"1.0", "1"},    {"1e3", "1000"},
        {"-2.50e1", "-25"}, {"1.5", NULL},   {"1e30", NULL},
        {"null", NULL},     {"\"5\"", NULL}, {"[1]", NULL},
        {"{}", NULL},       {"NaN", NULL},   {"123456789012345678901234567890", "123456789012345678901234567890"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char scratch[SF_LAX_INT_TEXT];
        sf_bytes text = {NULL, 0};
        sf_json_doc doc;
        bool ok;

        assert_int_equal(sf__json_parse(&doc, sf_bytes_str(cases[i].json), SF_JSON_NAN, HEAP, NULL), SF_OK);
        ok = sf__lax_int_text_from_json(doc.root, scratch, &text);
        if (ok != (cases[i].text != NULL) || (ok && !sf_bytes_eq(text, sf_bytes_str(cases[i].text))))
            fail_msg("%s: %.*s", cases[i].json, (int)text.n, (const char *)text.p);
        sf__json_cleanup(&doc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_integers_from_text),
        cmocka_unit_test(test_integers_from_json),
    };

    return cmocka_run_group_tests_name("datetime", tests, NULL, NULL);
}
