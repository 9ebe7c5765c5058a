#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/retry.h"
#include "net/url.h"

static char *encoded(sf_bytes in, bool keep_slash)
{
    sf_strbuf b;

    sf__strbuf_init(&b, &sf__allocator_default);
    sf__url_encode(&b, in, keep_slash);
    return sf__strbuf_detach(&b);
}

static void test_encode(void **state)
{
    static const struct {
        const char *in, *out;
        bool keep_slash;
    } cases[] = {
        {"", "", true},
        {"AZaz09-._~", "AZaz09-._~", false},
        {"a/b", "a/b", true},
        {"a/b", "a%2Fb", false},
        {"run_id=1/db=00000", "run_id%3D1/db%3D00000", true},
        {"2026-01-02T03:04:05Z", "2026-01-02T03%3A04%3A05Z", true},
        {"a b+c%d", "a%20b%2Bc%25d", true},
        {"\xc3\xa9\x7f\x01", "%C3%A9%7F%01", true},
        {"!*'();:@&=+$,?#[]", "%21%2A%27%28%29%3B%3A%40%26%3D%2B%24%2C%3F%23%5B%5D", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *out = encoded(sf_bytes_str(cases[i].in), cases[i].keep_slash);

        assert_string_equal(out, cases[i].out);
        sf__free(&sf__allocator_default, out);
    }
}

static void test_every_byte_comes_back(void **state)
{
    uint8_t all[256];
    sf_strbuf b;
    char *out;

    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)i;
    out = encoded(sf_bytes_of(all, sizeof(all)), false);
    sf__strbuf_init(&b, &sf__allocator_default);
    assert_true(sf__url_decode(&b, sf_bytes_str(out)));
    assert_int_equal(b.n, sizeof(all));
    assert_memory_equal(b.s, all, sizeof(all));
    sf__strbuf_cleanup(&b);
    sf__free(&sf__allocator_default, out);
}

static void test_decode_refuses(void **state)
{
    static const char *const cases[] = {"%", "a%2", "%zz", "%2g", "ok%41%"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_strbuf b;

        sf__strbuf_init(&b, &sf__allocator_default);
        if (sf__url_decode(&b, sf_bytes_str(cases[i])) || b.n != 0)
            fail_msg("%s was taken", cases[i]);
        sf__strbuf_cleanup(&b);
    }
}

static void expect_part(const char *url, const char *what, sf_bytes got, const char *want)
{
    if (!sf_bytes_eq(got, sf_bytes_str(want)))
        fail_msg("%s: %s is %.*s, expected %s", url, what, (int)got.n, (const char *)got.p, want);
}

static void test_split(void **state)
{
    static const struct {
        const char *url, *scheme, *userinfo, *host, *port, *path, *query;
    } cases[] = {
        {"http://h", "http", "", "h", "", "", ""},
        {"https://s3.eu-west-1.amazonaws.com/", "https", "", "s3.eu-west-1.amazonaws.com", "", "/", ""},
        {"http://127.0.0.1:9000/base/x?y=1&z", "http", "", "127.0.0.1", "9000", "/base/x", "y=1&z"},
        {"http://[::1]:80/p", "http", "", "[::1]", "80", "/p", ""},
        {"http://user:p@w@h:1/p", "http", "user:p@w", "h", "1", "/p", ""},
        {"s3://bucket/some/prefix", "s3", "", "bucket", "", "/some/prefix", ""},
        {"mem://n?q", "mem", "", "n", "", "", "q"},
        {"file:///tmp/a:b@c", "file", "", "", "", "/tmp/a:b@c", ""},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_url u;

        if (sf__url_split(&u, cases[i].url, &err) != SF_OK)
            fail_msg("%s: %s", cases[i].url, err.message);
        expect_part(cases[i].url, "scheme", u.scheme, cases[i].scheme);
        expect_part(cases[i].url, "userinfo", u.userinfo, cases[i].userinfo);
        expect_part(cases[i].url, "host", u.host, cases[i].host);
        expect_part(cases[i].url, "port", u.port, cases[i].port);
        expect_part(cases[i].url, "path", u.path, cases[i].path);
        expect_part(cases[i].url, "query", u.query, cases[i].query);
    }
}

static void test_split_refuses(void **state)
{
    static const char *const cases[] = {
        "",
        "host/path",
        "://h",
        "1http://h",
        "http://h:80x/",
        "http://h:123456",
        "http://[::1/",
        "http://[::1]x",
        "http://a b/",
        "http://h:65536/",
        "http://[]/",
        "http://h/\x01",
        "http://h/#f",
        "http://h<>/",
        "ht tp://h",
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_url u;

        if (sf__url_split(&u, cases[i], NULL) != SF_INVALID)
            fail_msg("%s was taken", cases[i]);
    }
}

static void test_retry_delay_bounds(void **state)
{
    static const struct {
        int64_t base, cap;
        uint32_t retry;
        int64_t bound;
    } cases[] = {
        {200, 4000, 0, 200},           {200, 4000, 1, 400}, {200, 4000, 4, 3200}, {200, 4000, 5, 4000},
        {200, 4000, UINT32_MAX, 4000}, {200, 100, 0, 100},  {0, 4000, 3, 0},      {1, INT64_MAX, 100, INT64_MAX},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_retry_policy p = {.base_ms = cases[i].base, .cap_ms = cases[i].cap};

        assert_int_equal(sf__retry_delay_ms(&p, cases[i].retry, 0), 0);
        assert_int_equal(sf__retry_delay_ms(&p, cases[i].retry, UINT64_MAX), cases[i].bound);
        assert_int_equal(sf__retry_delay_ms(&p, cases[i].retry, UINT64_C(1) << 63),
                         cases[i].bound / 2 + cases[i].bound % 2);
    }
}

static void test_retry_next(void **state)
{
    const uint64_t ms = 1000000, greatest = UINT64_MAX;
    static const struct {
        const char *name;
        int32_t max;
        uint32_t retry;
        uint64_t now_ms, deadline_ms;
        int64_t server_ms;
        bool ok;
        int64_t delay;
    } cases[] = {
        {"first", 5, 0, 0, 100000, 0, true, 200},
        {"none allowed", 0, 0, 0, 100000, 0, false, 0},
        {"used up", 5, 5, 0, 100000, 0, false, 0},
        {"last", 5, 4, 0, 100000, 0, true, 3200},
        {"server asks for more", 5, 0, 0, 100000, 1500, true, 1500},
        {"server asks for less", 5, 0, 0, 100000, 5, true, 200},
        {"behind the deadline", 5, 0, 0, 200, 0, false, 0},
        {"just before the deadline", 5, 0, 0, 201, 0, true, 200},
        {"behind the total", 5, 0, 29800, 100000, 0, false, 0},
        {"just before the total", 5, 0, 29799, 100000, 0, true, 200},
        {"absurd Retry-After", 5, 0, 0, 100000, INT64_MAX, false, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_retry_policy p = {.max_retries = cases[i].max, .base_ms = 200, .cap_ms = 4000, .total_ms = 30000};
        int64_t delay = 0;
        bool ok = sf__retry_next(&p, cases[i].retry, 7 * ms, (7 + cases[i].now_ms) * ms,
                                 (7 + cases[i].deadline_ms) * ms, cases[i].server_ms, greatest, &delay);

        if (ok != cases[i].ok || delay != cases[i].delay)
            fail_msg("%s: %d, %lld ms", cases[i].name, ok, (long long)delay);
    }
}

static void test_random(void **state)
{
    sf_random r = {.state = 1234567}, a, b;

    /* the published first values of SplitMix64 for this seed */
    assert_true(sf__random_next(&r) == UINT64_C(6457827717110365317));
    assert_true(sf__random_next(&r) == UINT64_C(3203168211198807973));
    sf__random_seed(&a);
    sf__random_seed(&b);
    assert_true(sf__random_next(&a) != sf__random_next(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),         cmocka_unit_test(test_every_byte_comes_back),
        cmocka_unit_test(test_decode_refuses), cmocka_unit_test(test_split),
        cmocka_unit_test(test_split_refuses),  cmocka_unit_test(test_retry_delay_bounds),
        cmocka_unit_test(test_retry_next),     cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests_name("url and retry", tests, NULL, NULL);
}
