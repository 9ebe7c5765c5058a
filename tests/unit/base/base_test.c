#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "../../support/heap.h"
#include "base/buf.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/log.h"
#include "base/base64.h"
#include "base/strbuf.h"
#include "base/wipe.h"

/* From inside its owner to the heap, doubling; what cannot be had changes nothing. */
static void test_grow(void **state)
{
    struct test_heap heap;
    struct {
        uint32_t *things, first[2];
        size_t cap;
    } o = {.things = o.first, .first = {7, 8}, .cap = 2};
    char *text = NULL;
    size_t text_cap = 0;

    (void)state;
    heap_init(&heap);
    assert_true(SF_RESERVE_FROM(&heap.alloc, &o.things, o.first, &o.cap, 2));
    assert_ptr_equal(o.things, o.first);
    heap_arm(&heap, 0);
    assert_false(SF_RESERVE_FROM(&heap.alloc, &o.things, o.first, &o.cap, 3));
    heap_disarm(&heap);
    assert_false(SF_RESERVE_FROM(&heap.alloc, &o.things, o.first, &o.cap, SIZE_MAX / 4));
    assert_true(o.things == o.first && o.cap == 2);
    for (size_t need = 3, cap; need < 1000; need = cap + 1) {
        cap = o.cap;
        assert_true(SF_RESERVE_FROM(&heap.alloc, &o.things, o.first, &o.cap, need));
        assert_true(o.cap >= need && o.cap >= 2 * cap);
        assert_true(o.things != o.first && o.things[0] == 7 && o.things[1] == 8);
        cap = o.cap;
    }
    sf__grown_free(&heap.alloc, o.things, o.first);
    assert_true(SF_RESERVE(&heap.alloc, &text, &text_cap, 5000));
    assert_int_equal(text_cap, 5000);
    assert_true(SF_RESERVE(&heap.alloc, &text, &text_cap, 5001));
    assert_int_equal(text_cap, 10000);
    sf__free(&heap.alloc, text);
    assert_int_equal(heap.live, 0);
}

static void test_varint32(void **state)
{
    static const struct {
        const char *name;
        uint8_t in[6];
        size_t n;
        bool ok;
        uint32_t value;
        size_t used;
    } cases[] = {
        {"empty", {0}, 0, false, 0, 0},
        {"zero", {0}, 1, true, 0, 1},
        {"one byte", {0x7f}, 1, true, 127, 1},
        {"two bytes", {0x80, 0x01}, 2, true, 128, 2},
        {"greatest", {0xff, 0xff, 0xff, 0xff, 0x0f}, 5, true, UINT32_MAX, 5},
        {"33 bits", {0xff, 0xff, 0xff, 0xff, 0x1f}, 5, false, 0, 0},
        {"unfinished", {0x80, 0x80}, 2, false, 0, 0},
        {"six bytes", {0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, 6, false, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_cursor c = {cases[i].in, cases[i].n};
        uint32_t v = 0;
        bool ok = sf_cursor_varint32(&c, &v);

        if (ok != cases[i].ok || v != cases[i].value || cases[i].n - c.n != cases[i].used)
            fail_msg("%s: ok %d, value %u, used %zu", cases[i].name, ok, v, cases[i].n - c.n);
    }
}

static void test_cursor_failed_read_moves_nothing(void **state)
{
    uint8_t raw[] = {1, 2, 3};
    sf_cursor c = {raw, sizeof(raw)};
    uint32_t v = 7;

    (void)state;
    assert_false(sf_cursor_u32be(&c, &v));
    assert_int_equal(c.n, 3);
    assert_int_equal(v, 7);
}

static void test_hashes(void **state)
{
    (void)state;
    /* compatibility/contract.md 2.2, and the check value of CRC-32/ISO-HDLC */
    assert_true(sf__xxh3_64(sf_bytes_of("", 0)) == 3244421341483603138u);
    assert_true(sf__xxh3_64(sf_bytes_of("\x05\0\0\0\0\0\0\0", 8)) == 10233279695637096332u);
    assert_int_equal(sf__crc32(sf_bytes_str("123456789")), 0xcbf43926u);
}

/* Piece by piece, at any cut, and with values taken in between. */
static void hashes_in_pieces(void **state)
{
    uint8_t bytes[1500];
    sf_hasher h;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i + i / 256);
    for (size_t cut = 0; cut <= sizeof(bytes); cut += 37) {
        sf_hash128 head = sf__xxh3_128(sf_bytes_of(bytes, cut)), all = sf__xxh3_128(sf_bytes_of(bytes, sizeof(bytes)));
        sf_hash128 got;

        assert_true(sf__hasher_init(&h, &sf__allocator_default));
        sf__hasher_add(&h, sf_bytes_of(bytes, cut));
        got = sf__hasher_value(&h);
        assert_true(got.hi == head.hi && got.lo == head.lo);
        sf__hasher_add(&h, sf_bytes_of(bytes + cut, sizeof(bytes) - cut));
        got = sf__hasher_value(&h);
        assert_true(got.hi == all.hi && got.lo == all.lo);
        sf__hasher_cleanup(&h);
    }
}

/* In steps that fill what the hasher holds back to the last byte, and over it. */
static void hashes_in_many_pieces(void **state)
{
    static const size_t steps[] = {1, 8, 255, 256, 511, 512, 513, 4095, 4096, 4097};
    static uint8_t bytes[20000];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i + i / 256);
    for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
        sf_hash128 all = sf__xxh3_128(sf_bytes_of(bytes, sizeof(bytes))), got;
        sf_hasher h;

        assert_true(sf__hasher_init(&h, &sf__allocator_default));
        for (size_t at = 0; at < sizeof(bytes); at += steps[k])
            sf__hasher_add(&h, sf_bytes_of(bytes + at, sizeof(bytes) - at < steps[k] ? sizeof(bytes) - at : steps[k]));
        got = sf__hasher_value(&h);
        if (got.hi != all.hi || got.lo != all.lo)
            fail_msg("in steps of %zu", steps[k]);
        sf__hasher_cleanup(&h);
    }
}

static void test_error_prefix(void **state)
{
    sf_error err = SF_ERROR_INIT;

    (void)state;
    assert_int_equal(sf_fail(&err, SF_CORRUPT, "row %d", 3), SF_CORRUPT);
    sf_error_prefix(&err, SF_CORRUPT, "shard %d: ", 7);
    assert_string_equal(err.message, "shard 7: row 3");
    assert_int_equal(err.db_id, -1);
    assert_int_equal(sf_fail(NULL, SF_NOMEM, "x"), SF_NOMEM);
    assert_int_equal(sf_fail(&err, SF_NOMEM, "a list"), SF_NOMEM);
    assert_string_equal(err.message, "out of memory: a list");
    sf_fail(&err, SF_NOMEM, "manifests: %s", "out of memory: a list"); /* of somebody else's error: told once */
    assert_string_equal(err.message, "manifests: out of memory: a list");
    assert_true(sf_status_is_retryable(SF_UNAVAILABLE));
    assert_false(sf_status_is_retryable(SF_CORRUPT));
}

static void test_escape(void **state)
{
    static const struct {
        const char *name, *text, *escaped; /* escaped: NULL: as it is */
    } cases[] = {
        {"plain", "s3://bucket/a b", NULL},
        {"letters of all kinds", "\xc3\xa4\xe6\xbc\xa2\xf0\x9f\x98\x80", NULL},
        {"a backslash", "C:\\data\\x1b", NULL},
        {"C0", "a\x1b[31mb\r\n\t", "a\\x1b[31mb\\x0d\\x0a\\x09"},
        {"DEL", "\x7f", "\\x7f"},
        {"C1",
         "\xc2\x9b"
         "31m",
         "\\u009b31m"},
        {"a bare C1 byte",
         "\x9b"
         "31m",
         "\\x9b31m"},
        {"end of line and paragraph", "\xe2\x80\xa8\xe2\x80\xa9", "\\u2028\\u2029"},
        {"turned around",
         "\xe2\x80\xae"
         "cod\xe2\x81\xa6",
         "\\u202ecod\\u2066"},
        {"no width", "a\xe2\x80\x8b\xef\xbb\xbf", "a\\u200b\\ufeff"},
        {"invisible letters", "\xf3\xa0\x81\x81", "\\U000e0041"},
        {"no UTF-8", "a\xffz\xc0\xaf\xed\xa0\x80", "a\\xffz\\xc0\\xaf\\xed\\xa0\\x80"},
        {"unfinished", "a\xe2\x80", "a\\xe2\\x80"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *expected = cases[i].escaped ? cases[i].escaped : cases[i].text;
        sf_error err = SF_ERROR_INIT;
        char out[100];

        if (sf_text_escape(out, sizeof(out), sf_bytes_str(cases[i].text)) != strlen(expected) ||
            strcmp(out, expected) != 0)
            fail_msg("%s: '%s'", cases[i].name, out);
        sf_fail(&err, SF_CORRUPT, "%s", cases[i].text);
        sf_error_prefix(&err, SF_CORRUPT, "%s", err.message); /* once, however often it is passed on */
        sf_error_object(&err, cases[i].text);
        snprintf(out, sizeof(out), "%s%s", expected, expected);
        if (strcmp(err.message, out) != 0 || strcmp(err.object, expected) != 0)
            fail_msg("%s: '%s', '%s'", cases[i].name, err.message, err.object);
    }
}

/* Whatever does not fit is cut off between two characters, or two escapes. */
static void test_escape_in_little_room(void **state)
{
    static const char text[] = "a\x1b\xc3\xa4"; /* a \x1b ä */
    static const char *const cut[] = {
        "", "", "a", "a", "a", "a", "a\\x1b", "a\\x1b", "a\\x1b\xc3\xa4", "a\\x1b\xc3\xa4"};
    sf_error err = SF_ERROR_INIT;
    char out[16], long_text[2 * sizeof(err.message)];

    (void)state;
    for (size_t size = 0; size < sizeof(cut) / sizeof(cut[0]); size++) {
        memset(out, 'x', sizeof(out));
        assert_int_equal(sf_text_escape(out, size, sf_bytes_str(text)), 7);
        if (size > 0)
            assert_string_equal(out, cut[size]);
        assert_int_equal(out[size], 'x');
    }
    for (size_t shift = 0; shift < 4; shift++) { /* a message of characters of four bytes, cut at any place */
        memset(long_text, 'x', sizeof(long_text));
        for (size_t i = shift; i + 5 < sizeof(long_text); i += 4)
            memcpy(long_text + i, "\xf0\x9f\x98\x80", 5);
        sf_fail(&err, SF_CORRUPT, "%s", long_text);
        assert_true(strlen(err.message) > sizeof(err.message) - 6);
        assert_null(strchr(err.message, '\\'));
    }
}

static void test_base64(void **state)
{
    static const char *const pairs[][2] = {/* RFC 4648, section 10 */
                                           {"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xff\xfe", "+//+"}};
    static const char *const none[] = {
        "Z", "Zg", "Zg=", "Zg===", "Zm9v=", "====", "Zh==", "Zm9=", "Z===", "Zm 9", "Zg==Zg==", "Zm9-"};
    uint8_t plain[16];
    size_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char *text = NULL;

        assert_true(sf__base64_text(&text, sf_bytes_str(pairs[i][0]), &sf__allocator_default));
        assert_string_equal(text ? text : "", pairs[i][1]);
        assert_true(sf__base64_read(plain, &n, sf_bytes_str(pairs[i][1])));
        assert_true(sf_bytes_eq(sf_bytes_of(plain, n), sf_bytes_str(pairs[i][0])));
        sf__free(&sf__allocator_default, text);
    }
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (sf__base64_read(plain, &n, sf_bytes_str(none[i])))
            fail_msg("%s is taken for base64", none[i]);
}

static void test_strbuf(void **state)
{
    sf_strbuf b;
    char *s;

    (void)state;
    sf__strbuf_init(&b, &sf__allocator_default);
    for (int i = 0; i < 100; i++)
        sf__strbuf_printf(&b, "%d,", i);
    s = sf__strbuf_detach(&b);
    assert_non_null(s);
    assert_int_equal(strlen(s), 290);
    sf__free(&sf__allocator_default, s);
}

/* Remembers what the block that goes looked like. */
struct witness {
    size_t freed, live;
    bool seen;
};

static void *witness_realloc(void *ctx, void *p, size_t n)
{
    struct witness *w = ctx;

    assert_null(p); /* growing in place would leave the old bytes to the C library */
    w->live++;
    return sf__allocator_default.realloc(NULL, NULL, n);
}

static void witness_free(void *ctx, void *p)
{
    struct witness *w = ctx;

    w->freed++;
    w->live--;
    w->seen |= memcmp((char *)p + 16, "secret", 6) == 0; /* behind the header */
    sf__allocator_default.free(NULL, p);
}

static void test_wiping_allocator(void **state)
{
    struct witness w = {0};
    const sf_allocator base = {sizeof(base), witness_realloc, witness_free, &w};
    sf_allocator wiping;
    char *p;

    (void)state;
    sf__wiping_allocator(&wiping, &base);
    p = sf__strdup(&wiping, "secret");
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 16, 0);
    p = sf__realloc(&wiping, p, 100000);
    assert_string_equal(p, "secret");
    p = sf__realloc(&wiping, p, 7);
    assert_string_equal(p, "secret");
    sf__free(&wiping, p);
    sf__free(&wiping, NULL);
    assert_null(sf__alloc(&wiping, SIZE_MAX));
    assert_int_equal(w.freed, 3);
    assert_int_equal(w.live, 0);
    assert_false(w.seen);
}

static void remember(void *ctx, sf_log_level level, const char *component, const char *message)
{
    char *text = ctx;

    snprintf(text, 200, "%d %s %.100s... %zu", (int)level, component, message, strlen(message));
}

static void test_log(void **state)
{
    char text[200] = "", longer[3000];
    const sf_log log = {remember, text}, silent = {NULL, text};

    (void)state;
    sf__log(&log, SF_LOG_WARN, "part", "%s: %d", "shard", 7);
    assert_string_equal(text, "2 part shard: 7... 8");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    sf__log(&log, SF_LOG_ERROR, "part", "%s", longer); /* cut, and terminated */
    assert_string_equal(text + strlen(text) - 4, "1023");
    text[0] = '\0';
    sf__log(&silent, SF_LOG_ERROR, "part", "nothing");
    sf__log(NULL, SF_LOG_ERROR, "part", "nothing");
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_varint32),
        cmocka_unit_test(test_cursor_failed_read_moves_nothing),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(hashes_in_pieces),
        cmocka_unit_test(hashes_in_many_pieces),
        cmocka_unit_test(test_error_prefix),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_escape_in_little_room),
        cmocka_unit_test(test_strbuf),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_wiping_allocator),
    };

    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
