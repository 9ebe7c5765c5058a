#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/slatedb/format/filter.h"
#include "format_build.h"

#define KEYS 2000

static uint8_t keys[2 * KEYS][8];

static sf_bytes key_of(size_t i)
{
    sf_store_be(keys[i], 8, i * 7919);
    return (sf_bytes){keys[i], 8};
}

static void bloom_over(struct out *o, size_t from, size_t count, unsigned bits_per_key)
{
    sf_bytes spans[KEYS];

    for (size_t i = 0; i < count; i++)
        spans[i] = key_of(from + i);
    build_bloom(o, spans, count, bits_per_key);
}

static void test_bloom(void **state)
{
    static const struct {
        unsigned bits_per_key;
        size_t count;
        size_t false_max; /* of KEYS absent keys */
    } cases[] = {{10, KEYS, 50}, {25, KEYS, 5}, {4, KEYS, 500}, {2, KEYS, KEYS}, {10, 1, 100}, {3, 2, KEYS}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct out o = {0};
        sf_filter f;
        size_t false_count = 0;

        bloom_over(&o, 0, cases[i].count, cases[i].bits_per_key);
        assert_int_equal(sf__filter_decode(&f, out_bytes(&o), NULL, SF_FILTER_LEGACY, NULL), SF_OK);
        for (size_t k = 0; k < cases[i].count; k++)
            assert_true(sf__filter_may_contain(&f, key_of(k)));
        for (size_t k = KEYS; k < 2 * KEYS; k++)
            false_count += sf__filter_may_contain(&f, key_of(k));
        if (false_count > cases[i].false_max)
            fail_msg("%u bits: %zu of %u absent keys pass", cases[i].bits_per_key, false_count, KEYS);
        sf__filter_cleanup(&f);
        out_free(&o);
    }
}

/* The filter rules out all keys; whether it is asked depends on its name. */
static void test_names(void **state)
{
    static const struct {
        const char *name;
        bool used;
    } cases[] = {
        {"_bf", true},    {"_bf:p=fixed-3", true}, {"_bf:p=", true},         {"_bf:p=fixed-3:wh=0", false},
        {"_bf:p=", true}, {"_bf:wh=0", false},     {"_bf:p=x:new=1", false}, {"_bf2", false},
        {"", false},      {"_b", false},           {"ribbon", false},        {"_BF", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct out o = {0};
        sf_filter f;

        out_be(&o, 2, 1);
        build_filter_entry(&o, cases[i].name, (sf_bytes){(const uint8_t *)"\0\6\0\0\0\0", 6});
        assert_int_equal(sf__filter_decode(&f, out_bytes(&o), NULL, SF_FILTER_COMPOSITE, NULL), SF_OK);
        if (sf__filter_may_contain(&f, sf_bytes_str("key")) == cases[i].used)
            fail_msg("'%s'", cases[i].name);
        out_free(&o);
    }
}

static void test_composite(void **state)
{
    struct out one = {0}, two = {0}, o = {0};
    sf_filter f;
    sf_buf *buf;

    (void)state;
    bloom_over(&one, 0, KEYS, 20);
    bloom_over(&two, KEYS / 2, KEYS, 20);
    out_be(&o, 2, 3);
    build_filter_entry(&o, "_bf", out_bytes(&one));
    build_filter_entry(&o, "unknown", sf_bytes_str("x"));
    build_filter_entry(&o, "_bf:p=first", out_bytes(&two));
    buf = sf__buf_copy(&sf__allocator_default, out_bytes(&o));
    assert_non_null(buf);
    assert_int_equal(sf__filter_decode(&f, sf__buf_bytes(buf), buf, SF_FILTER_COMPOSITE, NULL), SF_OK);
    sf__buf_release(buf); /* the filter holds it */
    for (size_t k = KEYS / 2; k < KEYS; k++)
        assert_true(sf__filter_may_contain(&f, key_of(k)));
    for (size_t k = 0, passed = 0; k < KEYS / 2; k++) {
        passed += sf__filter_may_contain(&f, key_of(k));
        assert_true(passed < KEYS / 20);
    }
    sf__filter_cleanup(&f);
    assert_true(sf__filter_may_contain(&f, key_of(0))); /* none: maybe */
    out_free(&one);
    out_free(&two);
    out_free(&o);
}

/* One that is not there is found among many that are, wherever it stands; with as many probes as are looked ahead for, and more. */
static void many_at_a_time(void **state)
{
    static const unsigned bits_per_key[] = {4, 10, 20};
    uint64_t hashes[100];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct out one = {0};
        uint64_t absent = 0;
        sf_filter f;

        bloom_over(&one, 0, KEYS, bits_per_key[i]);
        assert_int_equal(sf__filter_decode(&f, out_bytes(&one), NULL, SF_FILTER_LEGACY, NULL), SF_OK);
        for (size_t k = KEYS; absent == 0; k++)
            if (!sf__filter_may_contain(&f, key_of(k)))
                absent = sf__filter_hash(key_of(k));
        for (size_t k = 0; k < 100; k++)
            hashes[k] = sf__filter_hash(key_of(k));
        assert_true(sf__filter_may_contain_all(&f, hashes, 0));
        for (size_t n = 1; n <= 100; n++) {
            uint64_t kept = hashes[n - 1];

            assert_true(sf__filter_may_contain_all(&f, hashes, n));
            hashes[n - 1] = absent;
            assert_false(sf__filter_may_contain_all(&f, hashes, n));
            assert_false(sf__filter_may_contain_all(&f, hashes, 100));
            hashes[n - 1] = kept;
        }
        sf__filter_cleanup(&f);
        out_free(&one);
    }
}

#define BYTES(s) {(const uint8_t *)(s), sizeof(s) - 1}
#define LEN(c) "\0\0\0\0\0\0\0" c

static void test_malformed(void **state)
{
    static const struct {
        const char *name;
        uint8_t format;
        sf_bytes plain;
        sf_status want;
        bool may_contain;
    } cases[] = {
        {"legacy: nothing", 0, {NULL, 0}, SF_CORRUPT, false},
        {"legacy: one byte", 0, BYTES("\0"), SF_CORRUPT, false},
        {"legacy: no bits", 0, BYTES("\0\6"), SF_OK, false},
        {"legacy: no bits, no probes", 0, BYTES("\0\0"), SF_OK, false},
        {"legacy: no probes", 0, BYTES("\0\0\0"), SF_OK, true},
        {"legacy: zeroes", 0, BYTES("\0\1\0"), SF_OK, false},
        {"legacy: ones, 65535 probes", 0, BYTES("\xff\xff\xff"), SF_OK, true},
        {"composite: nothing", 1, {NULL, 0}, SF_CORRUPT, false},
        {"composite: no filter", 1, BYTES("\0\0"), SF_OK, true},
        {"composite: one missing", 1, BYTES("\0\1"), SF_CORRUPT, false},
        {"composite: name past the end", 1, BYTES("\0\1\0\4_bf"), SF_CORRUPT, false},
        {"composite: no length", 1, BYTES("\0\1\0\3_bf\0\0\0\0\0\0\0"), SF_CORRUPT, false},
        {"composite: payload past the end", 1, BYTES("\0\1\0\3_bf" LEN("\4") "\0\1\0"), SF_CORRUPT, false},
        {"composite: length of 2^64-1", 1, BYTES("\0\1\0\3_bf\xff\xff\xff\xff\xff\xff\xff\xff\0\1\0"), SF_CORRUPT, false},
        {"composite: payload too short", 1, BYTES("\0\1\0\3_bf" LEN("\1") "\0"), SF_CORRUPT, false},
        {"composite: payload of nothing, unknown name", 1, BYTES("\0\1\0\1x" LEN("\0")), SF_OK, true},
        {"composite: a byte behind", 1, BYTES("\0\1\0\3_bf" LEN("\3") "\0\1\0\0"), SF_CORRUPT, false},
        {"composite: fewer than counted", 1, BYTES("\0\2\0\3_bf" LEN("\3") "\0\1\0"), SF_CORRUPT, false},
        {"unknown format", 2, BYTES("\0\0"), SF_UNSUPPORTED, false},
        {"negative format", 255, BYTES("\0\0"), SF_UNSUPPORTED, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_filter f;
        sf_status rc = sf__filter_decode(&f, cases[i].plain, NULL, cases[i].format, NULL);

        if (rc != cases[i].want)
            fail_msg("%s: %s, not %s", cases[i].name, sf_status_name(rc), sf_status_name(cases[i].want));
        if (rc == SF_OK && sf__filter_may_contain(&f, sf_bytes_str("key")) != cases[i].may_contain)
            fail_msg("%s: the answer", cases[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_at_a_time), cmocka_unit_test(test_bloom),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_composite), cmocka_unit_test(test_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
