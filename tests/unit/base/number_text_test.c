/* Numbers as text: what reads back, as short as it can be, as Python writes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number_text.h"

static void expect_text(double v, const sf_float_style *style, const char *expected)
{
    char text[SF_FLOAT_TEXT_BYTES];

    assert_int_equal(sf__float_text(text, v, style), strlen(expected));
    assert_memory_equal(text, expected, strlen(expected));
}

static void test_known(void **state)
{
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {(double)0.1f, "0.10000000149011612"},
        {100.0, "100.0"},
        {1e15, "1000000000000000.0"},
        {9999999999999998.0, "9999999999999998.0"},
        {1e16, "1e+16"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {1e22, "1e+22"},
        {1e23, "1e+23"},
        {0.0001, "0.0001"},
        {0.00012345678901234567, "0.00012345678901234567"},
        {0.00001, "1e-05"},
        {1.5e-7, "1.5e-07"},
        {0x1p-44, "5.684341886080802e-14"}, /* the closest text of 16 digits reads back as its neighbour */
        {0x1p63, "9.223372036854776e+18"},
        {0x1p-1074, "5e-324"},
        {0x1p-1022, "2.2250738585072014e-308"},
        {-0x1.fffffffffffffp1023, "-1.7976931348623157e+308"},
        {INFINITY, "Infinity"},
        {-INFINITY, "-Infinity"},
        {NAN, "NaN"},
        {-NAN, "NaN"},
    };
    static const sf_float_style plain = {.most_digits = 6, .whole = "", .nan = "nan", .infinity = "inf"};
    static const struct {
        double v;
        const char *text;
    } plain_cases[] = {
        {-0.0, "-0"}, {0.5, "0.5"},       {999999, "999999"}, {1e6, "1e+06"},     {1234567, "1.234567e+06"},
        {100, "100"}, {0.0001, "0.0001"}, {NAN, "nan"},       {-INFINITY, "-inf"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_text(cases[i].v, &sf__float_json, cases[i].text);
    for (size_t i = 0; i < sizeof(plain_cases) / sizeof(plain_cases[0]); i++)
        expect_text(plain_cases[i].v, &plain, plain_cases[i].text);
}

static void test_integers(void **state)
{
    char text[SF_INTEGER_TEXT_BYTES];

    (void)state;
    assert_int_equal(sf__integer_text(text, UINT64_MAX, true), 21);
    assert_memory_equal(text, "-18446744073709551615", 21);
    assert_int_equal(sf__integer_text(text, 0, false), 1);
    assert_memory_equal(text, "0", 1);
    assert_int_equal(sf__padded_text(text, 907, 5), 5);
    assert_memory_equal(text, "00907", 5);
}

/* The digits of a text, without zeros at either end. */
static size_t digits_of(const char *text)
{
    size_t n = 0, zeros = 0;

    for (; *text && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (n == 0 && *text == '0'))
            continue;
        zeros = *text == '0' ? zeros + 1 : 0;
        n++;
    }
    return n - zeros;
}

/* Reads back, and no text with a digit less does. */
static void expect_shortest(double v)
{
    char text[SF_FLOAT_TEXT_BYTES + 1], shorter[64];
    size_t n = sf__float_text(text, v, &sf__float_json), digits;

    assert_true(n <= SF_FLOAT_TEXT_BYTES);
    text[n] = '\0';
    digits = digits_of(text);
    if (strtod(text, NULL) != v)
        fail_msg("%a is written as %s", v, text);
    snprintf(shorter, sizeof(shorter), "%.*e", digits > 2 ? (int)digits - 2 : 0, v);
    if (digits > 1 && strtod(shorter, NULL) == v)
        fail_msg("%a is written as %s, and %s is enough", v, text, shorter);
}

static void test_any(void **state)
{
    uint64_t bits = 88172645463325252u;
    double v;

    (void)state;
    for (int e = -1074; e < 1024; e++)
        expect_shortest(ldexp(1, e));
    for (int i = 0; i < 50000; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        memcpy(&v, &bits, sizeof(v));
        if (isfinite(v))
            expect_shortest(v);
        expect_shortest((double)(int64_t)(bits >> 40) / 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_integers),
                                       cmocka_unit_test(test_any)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
