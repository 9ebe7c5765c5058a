#include "vectors.h"

#include "../../support/heap.h"
#include "base/checksum.h"
#include "snapshot/routing_values.h"

static sf_cel_value text(const char *s)
{
    return sf__cel_string(sf_bytes_str(s));
}

/* The numbers of `count` values as they are added, and the array that comes of them when they are sorted. */
static void expect(const sf_cel_value *values, const uint32_t *numbers, size_t count, const char *json)
{
    uint32_t number = 99, places[16];
    sf_routing_values v;
    sf_strbuf out;

    sf__routing_values_init(&v, HEAP);
    for (size_t i = 0; i < count; i++) {
        assert_false(sf__routing_values_find(&v, &values[i], &number) && number != numbers[i]);
        assert_int_equal(sf__routing_values_add(&v, &values[i], &number, NULL), SF_OK);
        assert_int_equal(number, numbers[i]);
    }
    sf__routing_values_sort(&v, places);
    for (size_t i = 0; i < count; i++) {
        assert_true(sf__routing_values_find(&v, &values[i], &number));
        assert_int_equal(number, places[numbers[i]]);
    }
    sf__strbuf_init(&out, HEAP);
    sf__routing_values_write(&out, &v);
    assert_string_equal(out.s, json);
    sf__strbuf_cleanup(&out);
    sf__routing_values_cleanup(&v);
}

static void test_order(void **state)
{
    const sf_cel_value texts[] = {text("z"), text("\xc3\xa9"), text("a"),
                                  text("z"), text(""),         sf__cel_string(sf_bytes_of("a\0b", 3))};
    const sf_cel_value integers[] = {sf__cel_uint(UINT64_MAX),
                                     sf__cel_int(10),
                                     sf__cel_int(-3),
                                     sf__cel_uint(10),
                                     sf__cel_int(9),
                                     sf__cel_int(INT64_MIN),
                                     sf__cel_uint((uint64_t)INT64_MAX + 1),
                                     sf__cel_int(INT64_MAX)};

    (void)state;
    expect(texts, (const uint32_t[]){0, 1, 2, 0, 3, 4}, COUNT(texts), "[\"\", \"a\", \"a\\u0000b\", \"z\", \"\\u00e9\"]");
    expect(integers, (const uint32_t[]){0, 1, 2, 1, 3, 4, 5, 6}, COUNT(integers),
           "[-9223372036854775808, -3, 9, 10, 9223372036854775807, 9223372036854775808, 18446744073709551615]");
    expect(NULL, NULL, 0, "[]");
}

static void test_kinds(void **state)
{
    const sf_cel_value one = sf__cel_int(1), word = text("1"), bytes = sf__cel_bytes(sf_bytes_str("1"));
    sf_error err = SF_ERROR_INIT;
    sf_routing_values v;
    uint32_t number;

    (void)state;
    sf__routing_values_init(&v, HEAP);
    assert_int_equal(sf__routing_values_add(&v, &bytes, &number, &err), SF_INVALID);
    assert_non_null(strstr(err.message, "routing_values cannot be bytes"));
    assert_int_equal(sf__routing_values_add(&v, &word, &number, NULL), SF_OK);
    assert_int_equal(sf__routing_values_add(&v, &one, &number, &err), SF_INVALID);
    assert_string_equal(err.message, "routing_values must all be of one type");
    assert_false(sf__routing_values_find(&v, &one, &number));
    assert_false(sf__routing_values_find(&v, &bytes, &number));
    sf__routing_values_cleanup(&v);
    sf__routing_values_cleanup(&v);
}

/* Those that are beyond 64 bits have numbers, and nothing finds them. */
static void test_beyond(void **state)
{
    const sf_cel_value zero = sf__cel_int(0), one = sf__cel_int(1);
    sf_routing_values v;
    uint32_t number;

    (void)state;
    sf__routing_values_init(&v, HEAP);
    assert_true(sf__routing_values_add_beyond(&v));
    assert_false(sf__routing_values_find(&v, &zero, &number));
    assert_int_equal(sf__routing_values_add(&v, &one, &number, NULL), SF_OK);
    assert_int_equal(number, 1);
    for (unsigned i = 2; i < 100; i++)
        assert_true(sf__routing_values_add_beyond(&v));
    assert_true(sf__routing_values_find(&v, &one, &number));
    assert_int_equal(number, 1);
    sf__routing_values_cleanup(&v);
}

static void test_without_memory(void **state)
{
    struct test_heap heap;
    unsigned refused = 0;
    bool fired;

    (void)state;
    heap_init(&heap);
    for (long nth = 0;; nth++) {
        sf_routing_values v;
        sf_status rc = SF_OK;
        uint32_t number;

        heap_arm(&heap, nth);
        sf__routing_values_init(&v, &heap.alloc);
        for (unsigned i = 0; i < 400 && rc == SF_OK; i++) {
            char word[40];
            sf_cel_value value;

            snprintf(word, sizeof(word), "%u and some more of it", i);
            value = text(word);
            rc = sf__routing_values_add(&v, &value, &number, NULL);
            assert_true(rc == SF_NOMEM || number == i);
        }
        fired = heap_disarm(&heap);
        refused += rc == SF_NOMEM;
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        sf__routing_values_cleanup(&v);
        assert_int_equal(atomic_load(&heap.live), 0);
        if (!fired)
            break;
    }
    assert_true(refused > 8);
}

static uint64_t rotated(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

/* The integer whose XXH3 with seed 0 is `hash`: its function for eight bytes, backwards. */
static uint64_t integer_of_hash(uint64_t hash)
{
    const uint64_t secret = UINT64_C(0x1cad21f72c81017c) ^ UINT64_C(0xdb979083e96dd4de);
    const uint64_t factor = UINT64_C(0x9fb21c651e98df25);
    uint64_t inverse = factor, h = hash ^ hash >> 28 ^ hash >> 56;

    for (int i = 0; i < 6; i++)
        inverse *= 2 - factor * inverse;
    h *= inverse;
    h ^= (h >> 35) + 8;
    h *= inverse;
    for (int i = 0; i < 63; i++)
        h ^= rotated(h, 49) ^ rotated(h, 24);
    h ^= secret;
    return h << 32 | h >> 32;
}

/* A manifest may hold values that would all begin in one slot: a table of them takes as long as any other,
 * not hours. */
static void test_chosen_values(void **state)
{
    sf_routing_values v;
    uint32_t number;

    (void)state;
    assert_int_equal(sf__xxh3_64(sf_bytes_of(&(uint64_t){integer_of_hash(5)}, 8)), 5);
    sf__routing_values_init(&v, HEAP);
    for (uint32_t i = 0; i < 300000; i++) {
        const sf_cel_value value = sf__cel_uint(integer_of_hash((uint64_t)i << 32));

        assert_int_equal(sf__routing_values_add(&v, &value, &number, NULL), SF_OK);
        assert_int_equal(number, i);
    }
    sf__routing_values_cleanup(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),         cmocka_unit_test(test_kinds),          cmocka_unit_test(test_beyond),
        cmocka_unit_test(test_chosen_values), cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
