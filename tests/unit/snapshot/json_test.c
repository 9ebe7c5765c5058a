#include "../../support/heap.h"
#include "vectors.h"

static void test_kinds(void **state)
{
    sf_bytes text =
        sf_bytes_str(" {\"a\" : [1, -2.5e3, true,false, null], \"b\":\"x\\u00e9\\n\\ud83d\\ude00\",\"a\":{}} ");
    sf_json_doc doc;
    const sf_json *b;

    (void)state;
    assert_int_equal(sf__json_parse(&doc, text, 0, HEAP, NULL), SF_OK);
    assert_int_equal(doc.root->kind, SF_JSON_OBJECT);
    assert_int_equal(doc.root->count, 3);
    assert_int_equal(sf__json_get(doc.root, "a")->kind, SF_JSON_OBJECT); /* the last one */
    assert_null(sf__json_get(doc.root, "c"));
    assert_null(sf__json_get(doc.root->first, "a"));
    assert_null(sf__json_get(NULL, "a"));
    assert_int_equal(doc.root->first->count, 5);
    assert_int_equal(doc.root->first->first->kind, SF_JSON_INT);
    assert_true(sf_bytes_eq(doc.root->first->first->next->raw, sf_bytes_str("-2.5e3")));
    assert_int_equal(doc.root->first->first->next->kind, SF_JSON_FLOAT);
    b = sf__json_get(doc.root, "b");
    assert_true(sf_bytes_eq(b->str, sf_bytes_str("x\xc3\xa9\n\xf0\x9f\x98\x80")));
    sf__json_cleanup(&doc);
    sf__json_cleanup(&doc); /* harmless */
}

static const struct {
    const char *text;
    size_t n; /* 0: to the terminator */
    unsigned flags;
    const char *message; /* NULL: taken */
} texts[] = {
    {"1", 0, 0, NULL},
    {"\"\"", 0, 0, NULL},
    {"\"a\0b\"", 5, 0, "raw control character"},
    {"\"a\\u0000b\"", 0, 0, NULL},
    {"123456789012345678901234567890", 0, 0, NULL},
    {"-0", 0, 0, NULL},
    {"", 0, 0, "empty text"},
    {" ", 0, 0, "expected a value at byte 1"},
    {"\xef\xbb\xbf{}", 0, 0, "expected a value at byte 0"},
    {"{}x", 0, 0, "text behind the value at byte 2"},
    {"{}\0", 3, 0, "text behind the value"},
    {"[1,]", 0, 0, "expected a value at byte 3"},
    {"{\"a\":1,}", 0, 0, "expected a string"},
    {"{\"a\" 1}", 0, 0, "expected ':'"},
    {"{a:1}", 0, 0, "expected a string"},
    {"[1 2]", 0, 0, "expected ',' or ']'"},
    {"{\"a\":1 \"b\":2}", 0, 0, "expected ',' or '}'"},
    {"[", 0, 0, "expected a value"},
    {"{\"a\":", 0, 0, "expected a value"},
    {"// c\n1", 0, 0, "expected a value"},
    {"01", 0, 0, "leading zero"},
    {"-", 0, 0, "expected a value"},
    {"+1", 0, 0, "expected a value"},
    {"1.", 0, 0, "fraction without digits"},
    {".5", 0, 0, "expected a value"},
    {"1e", 0, 0, "exponent without digits"},
    {"1e+", 0, 0, "exponent without digits"},
    {"\"", 0, 0, "unfinished string"},
    {"\"\\", 0, 0, "unknown escape"},
    {"\"\\x41\"", 0, 0, "unknown escape"},
    {"\"\\u12\"", 0, 0, "escape"},
    {"\"\\u12g4\"", 0, 0, "malformed \\u escape"},
    {"\"\\ud800\"", 0, 0, "lone surrogate"},
    {"\"\\udc00\"", 0, 0, "lone surrogate"},
    {"\"\\ud800\\u0041\"", 0, 0, "lone surrogate"},
    {"\"\\ud800\\u0041\"", 0, SF_JSON_LONE_SURROGATES, NULL},
    {"\"\xff\"", 0, 0, "invalid UTF-8"},
    {"\"\xed\xa0\x80\"", 0, 0, "invalid UTF-8"},
    {"\"\xc0\x80\"", 0, 0, "invalid UTF-8"},
    {"\"\xf4\x90\x80\x80\"", 0, 0, "invalid UTF-8"},
    {"\"\t\"", 0, 0, "raw control character"},
    {"NaN", 0, 0, "expected a value"},
    {"NaN", 0, SF_JSON_NAN, NULL},
    {"[-Infinity, Infinity]", 0, SF_JSON_NAN, NULL},
    {"truE", 0, 0, "expected a value"},
    {"nul", 0, 0, "expected a value"},
};

static void test_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        sf_bytes text = sf_bytes_of(texts[i].text, texts[i].n > 0 ? texts[i].n : strlen(texts[i].text));
        sf_error err = SF_ERROR_INIT;
        sf_json_doc doc;
        sf_status rc = sf__json_parse(&doc, text, texts[i].flags, HEAP, &err);

        if (rc == SF_OK)
            sf__json_cleanup(&doc);
        if (rc != (texts[i].message ? SF_CORRUPT : SF_OK) || (rc != SF_OK && !strstr(err.message, texts[i].message)))
            fail_msg("%s: %s '%s'", texts[i].text, sf_status_name(rc), err.message);
    }
}

static sf_status parse_nested(unsigned depth)
{
    char *text = calloc(1, 2 * (size_t)depth + 1);
    sf_json_doc doc;
    sf_status rc;

    assert_non_null(text);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    rc = sf__json_parse(&doc, sf_bytes_str(text), 0, HEAP, NULL);
    if (rc == SF_OK)
        sf__json_cleanup(&doc);
    free(text);
    return rc;
}

static void test_depth(void **state)
{
    (void)state;
    assert_int_equal(parse_nested(SF_JSON_MAX_DEPTH), SF_OK);
    assert_int_equal(parse_nested(SF_JSON_MAX_DEPTH + 1), SF_CORRUPT);
    assert_int_equal(parse_nested(1000000), SF_CORRUPT);
}

static void test_truthy(void **state)
{
    static const struct {
        const char *text;
        bool truthy;
    } cases[] = {
        {"null", false}, {"false", false}, {"true", true}, {"0", false},        {"-0.0", false},
        {"0e5", false},  {"0.01", true},   {"7", true},    {"\"\"", false},     {"\"0\"", true},
        {"[]", false},   {"[0]", true},    {"{}", false},  {"{\"a\":0}", true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_json_doc doc;

        assert_int_equal(sf__json_parse(&doc, sf_bytes_str(cases[i].text), 0, HEAP, NULL), SF_OK);
        if (sf__json_is_truthy(doc.root) != cases[i].truthy)
            fail_msg("%s", cases[i].text);
        sf__json_cleanup(&doc);
    }
}

static void test_write_str(void **state)
{
    static const char in[] = "a\"\\\b\f\n\r\t\x01\x7f/\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    sf_strbuf out;
    sf_json_doc doc;

    (void)state;
    sf__strbuf_init(&out, HEAP);
    assert_true(sf__json_write_str(&out, sf_bytes_str(in)));
    assert_string_equal(out.s, "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f/\\u00e9\\u20ac\\ud83d\\ude00\"");
    assert_int_equal(sf__json_parse(&doc, sf_bytes_of(out.s, out.n), 0, HEAP, NULL), SF_OK);
    assert_true(sf_bytes_eq(doc.root->str, sf_bytes_str(in)));
    sf__json_cleanup(&doc);
    out.n = 0;
    assert_false(sf__json_write_str(&out, sf_bytes_str("a\xff")));
    assert_int_equal(out.n, 0);
    assert_true(sf__json_write_str(&out, sf_bytes_of("\0", 1)));
    assert_string_equal(out.s, "\"\\u0000\"");
    sf__strbuf_cleanup(&out);
}

static void test_without_memory(void **state)
{
    static const char text[] = "{\"long enough for an escape \\u00e9\": [1, 2, {\"x\": \"\\n\"}]}";
    bool fired = true;
    long n;

    (void)state;
    for (n = 0; fired; n++) {
        struct test_heap h;
        sf_json_doc doc;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__json_parse(&doc, sf_bytes_str(text), 0, &h.alloc, NULL);
        if (rc == SF_OK)
            sf__json_cleanup(&doc);
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),  cmocka_unit_test(test_texts),     cmocka_unit_test(test_depth),
        cmocka_unit_test(test_truthy), cmocka_unit_test(test_write_str), cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
