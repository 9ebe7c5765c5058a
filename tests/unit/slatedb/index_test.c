#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend/slatedb/format/index.h"
#include "../../support/heap.h"
#include "format_build.h"

static const sf_allocator *const heap = &sf__allocator_default;
static const uint8_t root_fields[] = {4};
static const uint8_t meta_fields[] = {8, 4};

static void index_build(struct out *o, const sf_bytes *bounds, const uint64_t *offs, size_t count)
{
    size_t slots = fb_vector(o, fb_table(o, 0, root_fields, 1), 0, count);

    for (size_t i = 0; i < count; i++) {
        size_t meta = fb_table(o, slots + 4 * i, meta_fields, 2);

        fb_set(o, meta, 0, offs[i]);
        fb_bytes(o, meta, 1, bounds[i]);
    }
}

#define BLOCKS 200
#define BOUND_MAX 24

struct bounds {
    uint8_t raw[BLOCKS][BOUND_MAX];
    sf_bytes spans[BLOCKS];
    uint64_t offs[BLOCKS];
};

static int span_cmp(const void *a, const void *b)
{
    return sf_bytes_cmp(*(const sf_bytes *)a, *(const sf_bytes *)b);
}

/* A shared prefix, then a few random bytes of few values: bounds repeat, and are prefixes of each other. */
static void bounds_make(struct bounds *b, size_t count, size_t prefix, size_t tail, size_t empty, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        size_t n = prefix + (tail > 0 ? 1 + rng_next(&seed) % tail : 0);

        memset(b->raw[i], 'p', prefix);
        for (size_t k = prefix; k < n; k++)
            b->raw[i][k] = (uint8_t)(rng_next(&seed) % 3 * 127);
        b->spans[i] = (sf_bytes){b->raw[i], i < empty ? 0 : n};
        b->offs[i] = i * 4096;
    }
    qsort(b->spans, count, sizeof(b->spans[0]), span_cmp);
}

static unsigned searched_few; /* keys that arithmetic led to a few heads */

/* Against a linear search. */
static void check_key(const sf_index *idx, sf_bytes key, const char *name)
{
    uint32_t lower = 0, upper = 0, only, from;
    sf_index_range got;

    while (lower < idx->count && sf_bytes_cmp(sf__index_block_bound(idx, lower), key) < 0)
        lower++;
    for (upper = lower; upper < idx->count && sf_bytes_eq(sf__index_block_bound(idx, upper), key);)
        upper++;
    if (sf__index_lower_bound(idx, key) != lower || sf__index_upper_bound(idx, key) != upper)
        fail_msg("%s: bounds %u %u, not %u %u", name, sf__index_lower_bound(idx, key), sf__index_upper_bound(idx, key),
                 lower, upper);
    got = sf__index_candidates(idx, key);
    if (upper == 0) {
        assert_true(got.first > got.last);
    } else {
        assert_int_equal(got.first, lower > 0 ? lower - 1 : 0);
        assert_int_equal(got.last, upper - 1);
    }
    assert_int_equal(sf__index_only_candidate(idx, key, &only), key.n > 0 && got.first == got.last);
    if (got.first == got.last)
        assert_int_equal(only, got.first);
    if (!sf__index_only_few(idx, key, &from))
        return;
    searched_few++;
    assert_int_equal(sf__index_only_of_few(idx, key, from, &only), got.first == got.last);
    if (got.first == got.last)
        assert_int_equal(only, got.first);
}

static void test_search(void **state)
{
    static const struct {
        const char *name;
        size_t count, prefix, tail, empty;
    } cases[] = {
        {"no blocks", 0, 0, 0, 0},          {"one block, empty bound", 1, 0, 4, 1}, {"one block", 1, 3, 4, 0},
        {"short bounds", BLOCKS, 0, 3, 1},  {"shared prefix", BLOCKS, 9, 6, 1},     {"long tails", BLOCKS, 2, 20, 1},
        {"equal bounds", BLOCKS, 12, 0, 1}, {"many empty", 20, 2, 2, 19},           {"all empty", 20, 0, 2, 20},
        {"a WAL index", BLOCKS, 7, 1, 0},
    };
    struct bounds *b = malloc(sizeof(*b));

    (void)state;
    assert_non_null(b);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct out o = {0};
        sf_index idx;
        sf_error err;

        bounds_make(b, cases[i].count, cases[i].prefix, cases[i].tail, cases[i].empty, i);
        index_build(&o, b->spans, b->offs, cases[i].count);
        if (sf__index_decode(&idx, out_bytes(&o), BLOCKS * 4096, heap, &err) != SF_OK)
            fail_msg("%s: %s", cases[i].name, err.message);
        out_free(&o); /* it keeps nothing of it */
        assert_int_equal(idx.count, cases[i].count);
        check_key(&idx, (sf_bytes){0}, cases[i].name);
        for (uint32_t k = 0; k < idx.count; k++) {
            uint8_t near[BOUND_MAX + 1] = {0};
            size_t n = b->spans[k].n;

            assert_true(sf_bytes_eq(sf__index_block_bound(&idx, k), b->spans[k]));
            assert_int_equal(sf__index_block_off(&idx, k), k * 4096);
            assert_int_equal(sf__index_block_len(&idx, k), k + 1 < idx.count ? 4096 : (BLOCKS - (uint64_t)k) * 4096);
            memcpy(near, b->spans[k].p, n);
            check_key(&idx, b->spans[k], cases[i].name);
            check_key(&idx, (sf_bytes){near, n + 1}, cases[i].name);
            for (size_t cut = 0; cut < n; cut++) {
                check_key(&idx, (sf_bytes){near, cut}, cases[i].name);
                near[cut]++;
                check_key(&idx, (sf_bytes){near, n}, cases[i].name);
                near[cut] -= 2;
                check_key(&idx, (sf_bytes){near, n}, cases[i].name);
                near[cut]++;
            }
        }
        sf__index_cleanup(&idx, heap);
    }
    free(b);
}

/* Bounds of 8 bytes, which arithmetic searches, evenly spread or not. */
static void test_search_of_integers(void **state)
{
    static const struct {
        const char *name;
        uint32_t count, empty;
        uint64_t first, step, last; /* `last`: of the last one */
    } cases[] = {
        {"neighbours", 30, 1, 5, 1, 34},
        {"a few", 8, 0, 1000, 72, 1504},
        {"one more than a few", 9, 1, 1000, 72, 1576},
        {"too few", 7, 0, 1000, 72, 1432},
        {"far apart", 30, 0, 3, UINT64_MAX / 31, UINT64_MAX / 31 * 29 + 3},
        {"most in one part", 30, 1, 100, 10, UINT64_MAX},
    };
    struct bounds *b = malloc(sizeof(*b));

    (void)state;
    assert_non_null(b);
    searched_few = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t count = cases[i].count;
        struct out o = {0};
        sf_index idx;
        sf_error err;

        for (uint32_t k = 0; k < count; k++) {
            sf_store_be(b->raw[k], 8, k + 1 < count ? cases[i].first + k * cases[i].step : cases[i].last);
            b->spans[k] = (sf_bytes){b->raw[k], k < cases[i].empty ? 0 : 8};
            b->offs[k] = k * 4096;
        }
        index_build(&o, b->spans, b->offs, count);
        if (sf__index_decode(&idx, out_bytes(&o), (uint64_t)count * 4096, heap, &err) != SF_OK)
            fail_msg("%s: %s", cases[i].name, err.message);
        out_free(&o);
        for (uint32_t k = 0; k < count; k++)
            for (int64_t by = -2; by <= 2; by++) {
                uint8_t key[9] = {0};

                sf_store_be(key, 8, sf_load_be(b->raw[k], 8) + (uint64_t)by);
                for (size_t n = 7; n <= 9; n++)
                    check_key(&idx, (sf_bytes){key, n}, cases[i].name);
            }
        sf__index_cleanup(&idx, heap);
    }
    assert_true(searched_few > 0);
    free(b);
}

static void test_refused(void **state)
{
    static const struct {
        const char *name;
        const char *bounds[3];
        uint64_t offs[3];
        uint64_t blocks_end;
        sf_status want;
    } cases[] = {
        {"right", {"", "b", "c"}, {0, 10, 20}, 30, SF_OK},
        {"equal bounds", {"", "b", "b"}, {0, 10, 20}, 30, SF_OK},
        {"bounds descend", {"", "c", "b"}, {0, 10, 20}, 30, SF_CORRUPT},
        {"an empty bound later", {"", "c", ""}, {0, 10, 20}, 30, SF_CORRUPT},
        {"equal offsets", {"", "b", "c"}, {0, 10, 10}, 30, SF_CORRUPT},
        {"offsets descend", {"", "b", "c"}, {10, 5, 20}, 30, SF_CORRUPT},
        {"last block past the end", {"", "b", "c"}, {0, 10, 30}, 30, SF_CORRUPT},
        {"offset of 2^64-1", {"", "b", "c"}, {0, 10, UINT64_MAX}, 30, SF_CORRUPT},
        {"no room for blocks", {"", "b", "c"}, {0, 10, 20}, 0, SF_CORRUPT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_bytes spans[3];
        struct out o = {0};
        sf_index idx;
        sf_status rc;

        for (size_t k = 0; k < 3; k++)
            spans[k] = sf_bytes_str(cases[i].bounds[k]);
        index_build(&o, spans, cases[i].offs, 3);
        rc = sf__index_decode(&idx, out_bytes(&o), cases[i].blocks_end, heap, NULL);
        if (rc != cases[i].want)
            fail_msg("%s: %s", cases[i].name, sf_status_name(rc));
        if (rc == SF_OK)
            sf__index_cleanup(&idx, heap);
        out_free(&o);
    }
}

/* References and counts that lead outside, or to the same place again and again. */
static void test_damaged(void **state)
{
    struct bounds *b = malloc(sizeof(*b));
    struct out o = {0};
    uint8_t *copy;
    sf_index idx;

    (void)state;
    assert_non_null(b);
    bounds_make(b, 20, 3, 4, 1, 1);
    index_build(&o, b->spans, b->offs, 20);
    for (size_t n = 0; n < o.n; n++) {
        copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy + 1, o.p, n);
        if (sf__index_decode(&idx, (sf_bytes){copy + 1, n}, BLOCKS * 4096, heap, NULL) == SF_OK)
            sf__index_cleanup(&idx, heap);
        free(copy);
    }
    copy = malloc(o.n);
    assert_non_null(copy);
    for (size_t bit = 0; bit < 8 * o.n; bit++) {
        memcpy(copy, o.p, o.n);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sf__index_decode(&idx, (sf_bytes){copy, o.n}, BLOCKS * 4096, heap, NULL) != SF_OK)
            continue;
        check_key(&idx, (sf_bytes){0}, "damaged");
        check_key(&idx, b->spans[10], "damaged");
        for (uint32_t k = 0; k < idx.count; k++)
            assert_true(sf__index_block_len(&idx, k) > 0 && idx.offs[k + 1] <= BLOCKS * 4096);
        sf__index_cleanup(&idx, heap);
    }
    free(copy);
    for (long nth = 0;; nth++) {
        struct test_heap h;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, nth);
        rc = sf__index_decode(&idx, out_bytes(&o), BLOCKS * 4096, &h.alloc, NULL);
        if (rc == SF_OK)
            sf__index_cleanup(&idx, &h.alloc);
        assert_int_equal(h.live, 0);
        if (!h.fired) {
            assert_int_equal(rc, SF_OK);
            assert_true(nth > 0);
            break;
        }
        assert_int_equal(rc, SF_NOMEM);
    }
    out_free(&o);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_search_of_integers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
