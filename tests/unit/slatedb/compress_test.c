#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <zstd.h>

#include "base/limits.h"
#include "../../support/heap.h"
#include "format_build.h"

#define CODECS 5

static const sf_allocator *const heap = &sf__allocator_default;

static void fill(uint8_t *p, size_t n, bool noise)
{
    uint64_t seed = n;

    for (size_t i = 0; i < n; i++)
        p[i] = noise ? (uint8_t)rng_next(&seed) : (uint8_t)(1 + i / 50);
}

static void test_round_trip(void **state)
{
    static const size_t sizes[] = {1, 10, 4096, 8192, 8193, 70000, 300000};

    (void)state;
    for (int codec = 0; codec < CODECS; codec++) {
        for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(sizes[0]); i++) {
            size_t n = sizes[i / 2];
            uint8_t *plain = malloc(n);
            struct out o = {0};
            sf_buf *got = NULL, *held = NULL;
            sf_bytes view;
            sf_error err;

            assert_non_null(plain);
            fill(plain, n, i % 2);
            build_stored(&o, (sf_bytes){plain, n}, (sf_codec)codec);
            if (sf__stored_block_open(NULL, out_bytes(&o), (sf_codec)codec, n, NULL, heap, &got, &err) != SF_OK)
                fail_msg("%s, %zu bytes: %s", sf__codec_name((sf_codec)codec), n, err.message);
            assert_true(sf_bytes_eq(sf__buf_bytes(got), (sf_bytes){plain, n}));
            assert_true(got->cap <= n + n / 4 + 64); /* what a cache would be charged */
            assert_int_equal(sf__stored_block_view(NULL, out_bytes(&o), (sf_codec)codec, n, heap, &view, &held, NULL),
                             SF_OK);
            assert_true(sf_bytes_eq(view, (sf_bytes){plain, n}));
            assert_int_equal(held == NULL, codec == SF_CODEC_NONE);
            sf__buf_release(held);
            sf__buf_release(got);
            got = NULL;
            assert_int_equal(sf__stored_block_open(NULL, out_bytes(&o), (sf_codec)codec, n - 1, NULL, heap, &got, NULL),
                             SF_CORRUPT);
            assert_null(got);
            out_free(&o);
            free(plain);
        }
    }
}

/* Several frames, one of them without a size. */
static void test_zstd_frames(void **state)
{
    static uint8_t plain[20000];
    struct out o = {0};
    ZSTD_CCtx *z = ZSTD_createCCtx();
    sf_buf *got;

    (void)state;
    assert_non_null(z);
    fill(plain, sizeof(plain), false);
    build_compressed(&o, (sf_bytes){plain, 5000}, SF_CODEC_ZSTD);
    ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, 0);
    for (int i = 0; i < 3; i++) {
        char frame[20000];
        size_t n = ZSTD_compress2(z, frame, sizeof(frame), plain + 5000 * (i + 1), 5000);

        assert_false(ZSTD_isError(n));
        out_put(&o, frame, n);
    }
    ZSTD_freeCCtx(z);
    assert_int_equal(sf__decompress(NULL, out_bytes(&o), SF_CODEC_ZSTD, sizeof(plain), heap, &got, NULL), SF_OK);
    assert_true(sf_bytes_eq(sf__buf_bytes(got), (sf_bytes){plain, sizeof(plain)}));
    sf__buf_release(got);
    assert_int_equal(sf__decompress(NULL, out_bytes(&o), SF_CODEC_ZSTD, sizeof(plain) - 1, heap, &got, NULL), SF_CORRUPT);
    out_free(&o);
}

#define BYTES(s) {(const uint8_t *)(s), sizeof(s) - 1}

static void test_malformed_payloads(void **state)
{
    static const struct {
        const char *name;
        int codec;
        sf_bytes payload;
        sf_status want;
    } cases[] = {
        {"snappy: nothing", 1, {NULL, 0}, SF_CORRUPT},
        {"snappy: size only", 1, BYTES("\5"), SF_CORRUPT},
        {"snappy: a literal", 1, BYTES("\2\4ab"), SF_OK},
        {"snappy: shorter than it says", 1, BYTES("\3\4ab"), SF_CORRUPT},
        {"snappy: longer than it says", 1, BYTES("\1\4ab"), SF_CORRUPT},
        {"snappy: copy from before the start", 1, BYTES("\x08\4ab\x0a\x7f\0"), SF_CORRUPT},
        {"snappy: claims 4 GiB", 1, BYTES("\xff\xff\xff\xff\x0f\0a"), SF_CORRUPT},
        {"snappy: claims 128 MiB", 1, BYTES("\x80\x80\x80\x40\0a"), SF_CORRUPT},
        {"zlib: nothing", 2, {NULL, 0}, SF_CORRUPT},
        {"zlib: stored", 2, BYTES("\x78\x01\x01\x02\x00\xfd\xff\x61\x62\x01\x26\x00\xc4"), SF_OK},
        {"zlib: Adler-32", 2, BYTES("\x78\x01\x01\x02\x00\xfd\xff\x61\x62\x01\x26\x00\xc5"), SF_CORRUPT},
        {"zlib: a byte behind", 2, BYTES("\x78\x01\x01\x02\x00\xfd\xff\x61\x62\x01\x26\x00\xc4\0"), SF_CORRUPT},
        {"zlib: header", 2, BYTES("\x79\x01\x01\x02\x00\xfd\xff\x61\x62\x01\x26\x00\xc4"), SF_CORRUPT},
        {"lz4: nothing", 3, {NULL, 0}, SF_CORRUPT},
        {"lz4: size only", 3, BYTES("\1\0\0\0"), SF_CORRUPT},
        {"lz4: a literal", 3,
         BYTES("\2\0\0\0\x20"
               "ab"),
         SF_OK},
        {"lz4: shorter than it says", 3,
         BYTES("\3\0\0\0\x20"
               "ab"),
         SF_CORRUPT},
        {"lz4: longer than it says", 3,
         BYTES("\1\0\0\0\x20"
               "ab"),
         SF_CORRUPT},
        {"lz4: claims 4 GiB", 3,
         BYTES("\xff\xff\xff\xff\x20"
               "ab"),
         SF_CORRUPT},
        {"lz4: claims 128 MiB", 3,
         BYTES("\0\0\0\x08\x20"
               "ab"),
         SF_CORRUPT},
        {"zstd: nothing", 4, {NULL, 0}, SF_CORRUPT},
        {"zstd: not a frame", 4, BYTES("\0\0\0\0\0\0\0\0"), SF_CORRUPT},
        {"zstd: raw block", 4, BYTES("\x28\xb5\x2f\xfd\x20\x02\x11\0\0ab"), SF_OK},
        {"zstd: bytes behind", 4, BYTES("\x28\xb5\x2f\xfd\x20\x02\x11\0\0ab\0"), SF_CORRUPT},
        {"zstd: claims 2^62 bytes", 4, BYTES("\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x40\x11\0\0ab"), SF_CORRUPT},
        {"zstd: claims more than there is", 4, BYTES("\x28\xb5\x2f\xfd\x20\x03\x11\0\0ab"), SF_CORRUPT},
        {"no such codec", 5, BYTES("ab"), SF_UNSUPPORTED},
        {"negative codec", -1, BYTES("ab"), SF_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_buf *got = NULL;
        struct test_heap h;
        sf_status rc;

        heap_init(&h);
        rc = sf__decompress(NULL, cases[i].payload, (sf_codec)cases[i].codec, SF_LIMIT_BLOCK_BYTES, &h.alloc, &got, NULL);
        if (rc != cases[i].want)
            fail_msg("%s: %s, not %s", cases[i].name, sf_status_name(rc), sf_status_name(cases[i].want));
        if (rc == SF_OK && !sf_bytes_eq(sf__buf_bytes(got), sf_bytes_str("ab")))
            fail_msg("%s: other bytes", cases[i].name);
        sf__buf_release(got);
        assert_int_equal(h.live, 0);
    }
}

/* 64 MiB of zeroes: below the limit they are data, above it an error before the memory is spent. */
static void test_inflate_bombs(void **state)
{
    size_t n = 64u << 20;
    uint8_t *zeroes = calloc(1, n);

    (void)state;
    assert_non_null(zeroes);
    for (int codec = 1; codec < CODECS; codec++) {
        struct out o = {0};
        sf_buf *got = NULL;

        build_compressed(&o, (sf_bytes){zeroes, n}, (sf_codec)codec);
        assert_int_equal(sf__decompress(NULL, out_bytes(&o), (sf_codec)codec, 4u << 20, heap, &got, NULL), SF_CORRUPT);
        assert_null(got);
        assert_int_equal(sf__decompress(NULL, out_bytes(&o), (sf_codec)codec, n, heap, &got, NULL), SF_OK);
        assert_int_equal(got->n, n);
        sf__buf_release(got);
        out_free(&o);
    }
    free(zeroes);
}

/* What was not set aside is not unpacked, and the codec says how much it is when it knows. */
static void test_room_is_kept(void **state)
{
    static const uint64_t none_left[] = {0, 1, 65536, (1u << 20) - 1};
    size_t n = 1u << 20;
    uint8_t *zeroes = calloc(1, n);

    (void)state;
    assert_non_null(zeroes);
    for (int codec = 1; codec < CODECS; codec++) {
        struct out o = {0};
        sf_plain_room room = {.left = n + 5};
        sf_buf *got = NULL;

        build_compressed(&o, (sf_bytes){zeroes, n}, (sf_codec)codec);
        for (size_t i = 0; i < sizeof(none_left) / sizeof(none_left[0]); i++) {
            sf_plain_room little = {.left = none_left[i]};

            assert_int_equal(sf__decompress(&little, out_bytes(&o), (sf_codec)codec, n, heap, &got, NULL),
                             SF_WOULD_BLOCK);
            assert_int_equal(little.left, none_left[i]);
            assert_int_equal(little.wanted, codec == SF_CODEC_ZLIB ? 0 : n);
        }
        assert_int_equal(sf__decompress(&room, out_bytes(&o), (sf_codec)codec, n, heap, &got, NULL), SF_OK);
        assert_int_equal(room.left, 5);
        sf__buf_release(got);
        out_free(&o);
    }
    free(zeroes);
}

/* Decompressors are handed on, whatever became of what they unpacked, to those of their codec; and are gone with the last. */
static void test_unpackers_are_handed_on(void **state)
{
    static uint8_t plain[9000];
    struct test_heap h;
    sf_unpackers spare = {NULL};
    uint64_t made = 0;

    (void)state;
    fill(plain, sizeof(plain), false);
    heap_init(&h);
    for (int round = 0; round < 6; round++)
        for (int codec = 1; codec < CODECS; codec++) {
            struct out o = {0};
            sf_plain_room room = {.left = 1u << 20, .unpackers = &spare};
            bool damaged = round % 2 == 1;
            sf_buf *got = NULL;
            sf_status rc;

            build_compressed(&o, (sf_bytes){plain, sizeof(plain)}, (sf_codec)codec);
            if (damaged)
                o.p[o.n / 2] ^= 0x55;
            rc = sf__decompress(&room, out_bytes(&o), (sf_codec)codec, sizeof(plain), &h.alloc, &got, NULL);
            assert_true(damaged || rc == SF_OK);
            assert_true(damaged || sf_bytes_eq(sf__buf_bytes(got), (sf_bytes){plain, sizeof(plain)}));
            if (rc == SF_OK)
                sf__buf_release(got);
            out_free(&o);
            made = round == 0 ? (uint64_t)atomic_load(&h.live) : made;
            assert_int_equal(atomic_load(&h.live), made); /* as many as there are codecs that have any */
        }
    assert_int_equal(made, 2);
    sf__unpackers_cleanup(&spare);
    assert_int_equal(atomic_load(&h.live), 0);
}

/* Beyond what a row of one byte repeated may reasonably be, only what shrinks as rows do is unpacked. */
static void test_traps(void **state)
{
    size_t n = SF_LIMIT_INFLATE_FREE_BYTES + 1;
    uint8_t *zeroes = calloc(1, n);

    (void)state;
    assert_non_null(zeroes);
    for (int codec = 1; codec < CODECS; codec++) {
        struct out o = {0};
        sf_error e = SF_ERROR_INIT;
        sf_buf *got = NULL;
        sf_status rc;

        build_compressed(&o, (sf_bytes){zeroes, n}, (sf_codec)codec);
        rc = sf__decompress(NULL, out_bytes(&o), (sf_codec)codec, SF_LIMIT_BLOCK_BYTES, heap, &got, &e);
        assert_int_equal(rc, codec == SF_CODEC_ZSTD ? SF_CORRUPT : SF_OK);
        sf__buf_release(got);
        out_free(&o);
    }
    free(zeroes);
}

static void test_damage_is_found(void **state)
{
    static uint8_t plain[3000];
    sf_buf *got;

    (void)state;
    fill(plain, sizeof(plain), false);
    for (int codec = 0; codec < CODECS; codec++) {
        struct out o = {0};

        build_stored(&o, (sf_bytes){plain, sizeof(plain)}, (sf_codec)codec);
        for (size_t n = 0; n < o.n; n++)
            assert_int_equal(sf__stored_block_open(NULL, (sf_bytes){o.p, n}, (sf_codec)codec, SF_LIMIT_BLOCK_BYTES,
                                                   NULL, heap, &got, NULL),
                             SF_CORRUPT);
        for (size_t bit = 0; bit < 8 * o.n; bit += 1 + o.n / 200) {
            o.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(sf__stored_block_open(NULL, out_bytes(&o), (sf_codec)codec, SF_LIMIT_BLOCK_BYTES, NULL,
                                                   heap, &got, NULL),
                             SF_CORRUPT);
            o.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t n = 0; codec != SF_CODEC_NONE && n + 4 < o.n; n++) /* right checksum or not */
            assert_int_equal(
                sf__decompress(NULL, (sf_bytes){o.p, n}, (sf_codec)codec, SF_LIMIT_BLOCK_BYTES, heap, &got, NULL),
                SF_CORRUPT);
        out_free(&o);
    }
}

static void test_owner_is_cut_and_shared(void **state)
{
    static const char plain[] = "the bytes of a block";
    sf_bytes want = sf_bytes_str(plain);
    struct out o = {0};
    sf_buf *owner, *got = NULL;

    (void)state;
    build_stored(&o, want, SF_CODEC_NONE);
    owner = sf__buf_copy(heap, out_bytes(&o));
    assert_non_null(owner);
    assert_int_equal(sf__stored_block_open(NULL, sf__buf_bytes(owner), SF_CODEC_NONE, want.n - 1, owner, heap, &got, NULL),
                     SF_CORRUPT);
    assert_int_equal(owner->n, o.n);
    assert_int_equal(sf__stored_block_open(NULL, sf__buf_bytes(owner), SF_CODEC_NONE, want.n, owner, heap, &got, NULL),
                     SF_OK);
    assert_ptr_equal(got, owner);
    sf__buf_release(owner);
    assert_true(sf_bytes_eq(sf__buf_bytes(got), want));
    sf__buf_release(got);
    out_free(&o);
}

static void test_without_memory(void **state)
{
    static uint8_t plain[100000];

    (void)state;
    fill(plain, sizeof(plain), false);
    for (int codec = 0; codec < CODECS; codec++) {
        struct out o = {0};

        build_stored(&o, (sf_bytes){plain, sizeof(plain)}, (sf_codec)codec);
        for (long nth = 0;; nth++) {
            struct test_heap h;
            sf_buf *got = NULL;
            sf_status rc;

            heap_init(&h);
            heap_arm(&h, nth);
            rc = sf__stored_block_open(NULL, out_bytes(&o), (sf_codec)codec, sizeof(plain), NULL, &h.alloc, &got, NULL);
            sf__buf_release(got);
            assert_int_equal(h.live, 0);
            if (!h.fired) {
                assert_int_equal(rc, SF_OK);
                assert_true(nth > 0);
                break;
            }
            if (rc != SF_NOMEM) /* giving back the rest of a guess may fail without harm */
                assert_int_equal(rc, SF_OK);
        }
        out_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_zstd_frames),
        cmocka_unit_test(test_malformed_payloads),
        cmocka_unit_test(test_inflate_bombs),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_owner_is_cut_and_shared),
        cmocka_unit_test(test_room_is_kept),
        cmocka_unit_test(test_unpackers_are_handed_on),
        cmocka_unit_test(test_traps),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
