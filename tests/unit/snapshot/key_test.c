#include "vectors.h"

#include "base/checksum.h"
#include "snapshot/router.h"

/* Every vector: canonical bytes, hash, and the shard for each number of shards. */
static void test_routing_vectors(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/routing.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *n = need_cases(&g, "num_dbs"), *db_id = need(c, "db_id")->first;
        sf_bytes canonical = hex_decode(need(c, "canonical")->str), own;
        uint8_t scratch[8];
        char hash[17];
        sf_key key;

        if (sf__json_get(need(c, "key"), "bytearray")) /* bytes, by the time they arrive here */
            key = (sf_key){.type = SF_KEY_BYTES, .b = hex_decode(need(c, "key")->first->str)};
        else
            assert_true(key_of(need(c, "key"), &key));
        own = sf__key_route_bytes(&key, scratch);
        snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)sf__xxh3_64(own));
        if (!sf_bytes_eq(own, canonical) || !text_is(need(c, "xxh3_64"), hash))
            fail_msg("%.*s: hash %s", (int)c->raw.n, (const char *)c->raw.p, hash);
        for (; n; n = n->next, db_id = db_id->next) {
            sf_router router;
            uint32_t routed;

            assert_int_equal(sf__router_init_hash(&router, (uint32_t)strtoul((const char *)n->raw.p, NULL, 10), NULL),
                             SF_OK);
            assert_int_equal(sf__router_route(&router, &key, &routed, NULL), SF_OK);
            assert_int_equal(routed, strtoul((const char *)db_id->raw.p, NULL, 10));
        }
        assert_null(db_id);
        key_cleanup(&key);
        free((void *)(uintptr_t)canonical.p);
    }
    golden_close(&g);
}

/* The mask and the division must agree for all kinds of numbers. */
static void test_router_is_a_modulo(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 8, 1000, 1024, 1u << 20, (1u << 20) - 1, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < COUNT(counts); i++) {
        sf_router router;

        assert_int_equal(sf__router_init_hash(&router, counts[i], NULL), SF_OK);
        for (int64_t k = -500; k < 500; k++) {
            sf_key key = {.type = SF_KEY_INT, .i = k * INT64_C(0x123456789abcd)};
            uint8_t scratch[8];
            uint32_t db_id;

            assert_int_equal(sf__router_route(&router, &key, &db_id, NULL), SF_OK);
            assert_int_equal(db_id, sf__xxh3_64(sf__key_route_bytes(&key, scratch)) % counts[i]);
        }
    }
}

static void test_router_refusals(void **state)
{
    const sf_routing_context context = {NULL, 0};
    sf_key key = {.type = SF_KEY_INT, .context = &context};
    sf_error err = SF_ERROR_INIT;
    uint32_t db_id = 77;
    sf_router router;

    (void)state;
    assert_int_equal(sf__router_init_hash(&router, 0, &err), SF_INVALID);
    assert_int_equal(sf__router_init_hash(&router, 2, &err), SF_OK);
    assert_int_equal(sf__router_route(&router, &key, &db_id, &err), SF_INVALID_KEY);
    assert_string_equal(err.message, "route_with_context requires CEL sharding strategy");
    assert_int_equal(db_id, 77);
}

static void expect_encoded(const sf_json *c, const char *direction, sf_status rc, sf_bytes bytes)
{
    const sf_json *expected = need(c, direction), *error = sf__json_get(expected, "error");

    if (!error) {
        sf_bytes wanted = hex_decode(need(expected, "bytes")->str);
        bool ok = rc == SF_OK && sf_bytes_eq(bytes, wanted);

        free((void *)(uintptr_t)wanted.p);
        if (!ok)
            fail_msg("%s of %.*s: %s", direction, (int)c->raw.n, (const char *)c->raw.p, sf_status_name(rc));
        return;
    }
    /* SF_INVALID_KEY is a ValueError to Python, SF_INVALID a ConfigValidationError */
    if (rc != (text_is(error, "ValueError") ? SF_INVALID_KEY : SF_INVALID))
        fail_msg("%s of %.*s: %s", direction, (int)c->raw.n, (const char *)c->raw.p, sf_status_name(rc));
}

static sf_status encode_wide(sf_key_encoding encoding, const sf_json *typed, uint8_t scratch[8], sf_bytes *out)
{
    char text[64], *end;
    unsigned long long v;

    snprintf(text, sizeof(text), "%.*s", (int)typed->first->str.n, (const char *)typed->first->str.p);
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0 || *end || text[0] == '-')
        return SF_INVALID; /* 65 bits and more never reach the library */
    return sf__key_encode_uint(encoding, v, scratch, out, NULL);
}

static void test_encoding_vectors(void **state)
{
    struct golden g;
    size_t ours = 0;

    (void)state;
    golden_open(&g, "vectors/key_encoding.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *typed = need(c, "key");
        sf_key_encoding encoding;
        uint8_t scratch[8];
        sf_bytes bytes = {NULL, 0};
        sf_status rc;
        sf_key key;

        assert_true(sf__key_encoding_from_name(need(c, "encoding")->str, &encoding));
        if (key_of(typed, &key)) {
            if (key.type == SF_KEY_BYTES && (encoding == SF_KEY_U64BE || encoding == SF_KEY_U32BE)) {
                assert_int_equal(sf__key_encode(encoding, &key, scratch, &bytes, NULL), SF_INVALID_KEY);
                key.type = SF__KEY_LAX_BYTES; /* the vectors are of the Python package */
            }
            rc = sf__key_encode(encoding, &key, scratch, &bytes, NULL);
            expect_encoded(c, "lookup", rc, bytes);
            if (key.type == SF__KEY_LAX_BYTES)
                key.type = SF_KEY_BYTES;
            rc = sf__key_encode_for_write(encoding, &key, scratch, &bytes, NULL);
            expect_encoded(c, "write", rc, bytes);
            key_cleanup(&key);
            ours++;
        } else if (sf__json_get(typed, "int")) {
            rc = encode_wide(encoding, typed, scratch, &bytes);
            expect_encoded(c, "lookup", rc, bytes);
            expect_encoded(c, "write", rc, bytes);
            ours++;
        }
    }
    assert_true(ours > 80); /* the rest are Python types that have no C counterpart */
    for (const sf_json *c = need_cases(&g, "names"); c; c = c->next) {
        sf_key_encoding encoding;
        bool ok = sf__key_encoding_from_name(need(c, "name")->str, &encoding);

        assert_int_equal(ok, sf__json_get(c, "ok") != NULL);
        if (ok)
            assert_true(text_is(need(c, "name"), sf__key_encoding_name(encoding)));
    }
    golden_close(&g);
}

/* What is stored, decoded and encoded again, is what is stored. */
static void test_decode(void **state)
{
    static const struct {
        sf_key_encoding encoding;
        const char *stored;
        size_t n;
        int type; /* -1: refused */
    } cases[] = {
        {SF_KEY_U64BE, "\0\0\0\0\0\0\0\x05", 8, SF_KEY_INT},
        {SF_KEY_U64BE, "\x7f\xff\xff\xff\xff\xff\xff\xff", 8, SF_KEY_INT},
        {SF_KEY_U64BE, "\x80\0\0\0\0\0\0\0", 8, SF_KEY_UINT},
        {SF_KEY_U64BE, "\0\0\0\0\0\0\0", 7, -1},
        {SF_KEY_U64BE, "", 0, -1},
        {SF_KEY_U32BE, "\xff\xff\xff\xff", 4, SF_KEY_INT},
        {SF_KEY_U32BE, "\0\0\0", 3, -1},
        {SF_KEY_UTF8, "\xc3\xa9", 2, SF_KEY_STR},
        {SF_KEY_UTF8, "", 0, SF_KEY_STR},
        {SF_KEY_UTF8, "\xff", 1, SF_KEY_BYTES},
        {SF_KEY_RAW, "abc", 3, SF_KEY_BYTES},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_bytes stored = sf_bytes_of(cases[i].stored, cases[i].n), again;
        uint8_t scratch[8];
        sf_key key;
        sf_status rc = sf__key_decode(cases[i].encoding, stored, &key, NULL);

        assert_int_equal(rc, cases[i].type < 0 ? SF_INVALID_KEY : SF_OK);
        if (rc != SF_OK)
            continue;
        if ((int)key.type != cases[i].type)
            fail_msg("case %zu: type %d", i, key.type);
        assert_int_equal(sf__key_encode(cases[i].encoding, &key, scratch, &again, NULL), SF_OK);
        assert_true(sf_bytes_eq(stored, again));
    }
}

/* Integers from 2^63 on: one route, one stored form, the same as the smaller ones have. */
static void test_large_integers(void **state)
{
    static const struct {
        sf_key_encoding encoding;
        sf_key key;
        sf_status rc;
        const char *stored, *error;
    } cases[] = {
        {SF_KEY_U64BE, {.type = SF_KEY_UINT, .u = UINT64_MAX}, SF_OK, "\xff\xff\xff\xff\xff\xff\xff\xff", NULL},
        {SF_KEY_U64BE, {.type = SF_KEY_UINT, .u = UINT64_C(1) << 63}, SF_OK, "\x80\0\0\0\0\0\0\0", NULL},
        {SF_KEY_U64BE, {.type = SF_KEY_UINT, .u = 5}, SF_OK, "\0\0\0\0\0\0\0\x05", NULL},
        {SF_KEY_U64BE, {.type = SF_KEY_INT, .i = -1}, SF_INVALID, NULL, "value in [0, 2^64-1], got -1"},
        {SF_KEY_U64BE, {.type = SF_KEY_INT, .i = INT64_MIN}, SF_INVALID, NULL, "got -9223372036854775808"},
        {SF_KEY_U32BE, {.type = SF_KEY_UINT, .u = UINT32_MAX}, SF_OK, "\xff\xff\xff\xff", NULL},
        {SF_KEY_U32BE, {.type = SF_KEY_UINT, .u = UINT64_MAX}, SF_INVALID, NULL, "got 18446744073709551615"},
        {SF_KEY_UTF8, {.type = SF_KEY_UINT, .u = UINT64_MAX}, SF_INVALID, NULL, "expects str or bytes key"},
        {SF_KEY_RAW, {.type = SF_KEY_UINT, .u = 1}, SF_INVALID, NULL, "expects bytes or str key"},
    };
    sf_router router;
    uint32_t one, other;

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        uint8_t scratch[8];
        sf_bytes out;
        sf_status rc = sf__key_encode_for_write(cases[i].encoding, &cases[i].key, scratch, &out, &err);

        if (rc != cases[i].rc || (rc == SF_OK && memcmp(out.p, cases[i].stored, out.n) != 0) ||
            (rc != SF_OK && !strstr(err.message, cases[i].error)))
            fail_msg("case %zu: %s %s", i, sf_status_name(rc), err.message);
    }
    assert_int_equal(sf__router_init_hash(&router, 1000, NULL), SF_OK);
    assert_int_equal(sf__router_route(&router, &(sf_key){.type = SF_KEY_INT, .i = 77}, &one, NULL), SF_OK);
    assert_int_equal(sf__router_route(&router, &(sf_key){.type = SF_KEY_UINT, .u = 77}, &other, NULL), SF_OK);
    assert_int_equal(one, other);
}

/* Keys in messages are as their owner writes them. */
static void test_description(void **state)
{
    static const struct {
        sf_key_encoding encoding;
        const char *stored;
        size_t n;
        const char *text;
    } cases[] = {
        {SF_KEY_U64BE, "\0\0\0\0\0\0\0\x4d", 8, "77"},
        {SF_KEY_U64BE, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "18446744073709551615"},
        {SF_KEY_U64BE, "\x01", 1, "b'\\x01'"},
        {SF_KEY_U32BE, "\0\0\x01\0", 4, "256"},
        {SF_KEY_UTF8, "k", 1, "'k'"},
        {SF_KEY_UTF8, "", 0, "''"},
        {SF_KEY_UTF8, "it's\n\x1b", 6, "'it\\'s\\x0a\\x1b'"},
        {SF_KEY_UTF8, "\xc3\xa9", 2, "'\xc3\xa9'"},
        {SF_KEY_UTF8, "\xff", 1, "b'\\xff'"},
        {SF_KEY_RAW, "a\0", 2, "b'a\\x00'"},
        {SF_KEY_UTF8, "0123456789012345678901234567890\xc3\xa9 and more", 42,
         "'0123456789012345678901234567890'... (42 bytes)"},
        {SF_KEY_RAW,
         "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
         "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
         33,
         "b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
         "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff'... (33 bytes)"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[SF_KEY_DESCRIPTION];

        sf__key_describe(text, cases[i].encoding, sf_bytes_of(cases[i].stored, cases[i].n));
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routing_vectors), cmocka_unit_test(test_router_is_a_modulo),
        cmocka_unit_test(test_router_refusals), cmocka_unit_test(test_encoding_vectors),
        cmocka_unit_test(test_decode),          cmocka_unit_test(test_large_integers),
        cmocka_unit_test(test_description),
    };

    return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
