#include "vectors.h"

#include "base/limits.h"
#include "snapshot/manifest_sharding.h"

#define H "\"hash_algorithm\":\"xxh3_64\""
#define CEL "{\"strategy\":\"cel\"," H ",\"cel_expr\":\"r\",\"cel_columns\":{\"r\":\"string\"}"
#define CEL_OUT \
    "{\"cel_columns\": {\"r\": \"string\"}, \"cel_expr\": \"r\", \"hash_algorithm\": \"xxh3_64\", \"routing_values\": "
#define HASH_OUT                                                                                              \
    "{\"cel_columns\": null, \"cel_expr\": null, \"hash_algorithm\": \"xxh3_64\", \"routing_values\": null, " \
    "\"strategy\": \"hash\"}"

static const struct {
    const char *text;
    bool boundaries;
    const char *canonical, *message; /* one of them */
} cases[] = {
    {"{" H "}", false, HASH_OUT, NULL},
    {"{" H ",\"strategy\":\"hash\",\"cel_expr\":null,\"cel_columns\":null,\"routing_values\":null}", false, HASH_OUT,
     NULL},
    {"{\"strategy\":\"cel\"," H ",\"strategy\":\"hash\"}", false, HASH_OUT, NULL}, /* the last one counts */
    {"{" H ",\"boundaries\":null}", true, HASH_OUT, NULL},
    {"{" H ",\"boundaries\":null}", false, NULL, "unknown member 'boundaries'"},
    {"{" H ",\"boundaries\":[]}", true, NULL, "unknown member 'boundaries'"},
    {CEL "}", false, CEL_OUT "null, \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":null}", false, CEL_OUT "null, \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":[]}", false, CEL_OUT "[], \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":[\"b\",\"\\u00e9\"]}", false, CEL_OUT "[\"b\", \"\\u00e9\"], \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":[\"\\u0000\",\"1\"]}", false, CEL_OUT "[\"\\u0000\", \"1\"], \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":[true,-2.0,30]}", false, CEL_OUT "[1, -2, 30], \"strategy\": \"cel\"}", NULL},
    {CEL ",\"routing_values\":[1,true]}", false, NULL, "duplicates"},
    {CEL ",\"routing_values\":[0,-0]}", false, NULL, "duplicates"},
    {CEL ",\"routing_values\":[\"a\",\"b\",\"\\u0061\"]}", false, NULL, "duplicates"},
    {CEL ",\"routing_values\":[1,\"1\"]}", false, NULL, "all integers or all strings"},
    {CEL ",\"routing_values\":[\"1\",1]}", false, NULL, "all integers or all strings"},
    {CEL ",\"routing_values\":[null]}", false, NULL, "all integers or all strings"},
    {CEL ",\"routing_values\":[[1]]}", false, NULL, "all integers or all strings"},
    {CEL ",\"routing_values\":{}}", false, NULL, "not an array"},
    {CEL ",\"cel_columns\":{\"b\":\"int\",\"a\":\"x\",\"b\":\"uint\"}}", false,
     "{\"cel_columns\": {\"a\": \"x\", \"b\": \"uint\"}, \"cel_expr\": \"r\", \"hash_algorithm\": \"xxh3_64\", "
     "\"routing_values\": null, \"strategy\": \"cel\"}",
     NULL},
    {CEL ",\"cel_columns\":{\"b\":1}}", false, NULL, "not a string"},
    {CEL ",\"cel_columns\":[]}", false, NULL, "cel_columns must be"},
    {CEL ",\"cel_expr\":5}", false, NULL, "cel_expr must be"},
    {CEL ",\"cel_expr\":\"\\ud800\"}", false, NULL, "lone surrogate"},
    {"{" H ",\"routing_values\":[]}", false, NULL, "must be unset"},
    {"{" H ",\"strategy\":null}", false, NULL, "strategy must be"},
    {"{" H ",\"strategy\":5}", false, NULL, "strategy must be"},
    {"{" H ",\"x\\u0000y\":5}", false, NULL, "unknown member"},
    {"[]", false, NULL, "not a JSON object"},
    {"{} x", false, NULL, "text behind the value"},
    {"", false, NULL, "empty text"},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_sharding s;
        sf_strbuf out;
        sf_status rc;

        sf__strbuf_init(&out, HEAP);
        rc = sf__sharding_decode(&s, &out, sf_bytes_str(cases[i].text), cases[i].boundaries, HEAP, &err);
        if (cases[i].canonical ? rc != SF_OK || strcmp(out.s, cases[i].canonical) != 0
                               : rc != SF_BAD_MANIFEST || !strstr(err.message, cases[i].message))
            fail_msg("%s: %s '%s' %s", cases[i].text, sf_status_name(rc), out.s ? out.s : "", err.message);
        if (rc != SF_OK)
            assert_true(strncmp(err.message, "Manifest validation failed: ", 28) == 0 && err.code == SF_BAD_MANIFEST);
        sf__strbuf_cleanup(&out);
    }
}

/* The canonical form is a fixed point, also with as many tokens and columns as may be. */
static void test_large(void **state)
{
    sf_strbuf in, out, again;
    sf_sharding s;

    (void)state;
    sf__strbuf_init(&in, HEAP);
    sf__strbuf_init(&out, HEAP);
    sf__strbuf_init(&again, HEAP);
    sf__strbuf_puts(&in, "{\"strategy\":\"cel\"," H ",\"cel_expr\":\"c0\",\"cel_columns\":{\"c0\":\"int\"");
    for (unsigned i = 1; i < SF_LIMIT_CEL_COLUMNS; i++)
        sf__strbuf_printf(&in, ",\"c%u\":\"int\"", i);
    sf__strbuf_puts(&in, "},\"routing_values\":[0");
    for (int i = 1; i < 50000; i++)
        sf__strbuf_printf(&in, ",%d", i % 2 ? i : -i);
    sf__strbuf_puts(&in, "]}");
    assert_int_equal(sf__sharding_decode(&s, &out, sf_bytes_of(in.s, in.n), false, HEAP, NULL), SF_OK);
    assert_true(s.categorical);
    assert_int_equal(s.value_count, 50000);
    assert_int_equal(sf__sharding_decode(&s, &again, sf_bytes_of(out.s, out.n), false, HEAP, NULL), SF_OK);
    assert_string_equal(out.s, again.s);
    sf__strbuf_cleanup(&in);
    sf__strbuf_cleanup(&out);
    sf__strbuf_cleanup(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_large)};

    return cmocka_run_group_tests_name("sharding", tests, NULL, NULL);
}
