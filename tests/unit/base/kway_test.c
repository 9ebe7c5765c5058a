/* The tournament against sorting: random sources, every order, keys of every awkward length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/kway.h"
#include "../../support/heap.h"

#define KEYS 400u

struct item {
    char text[112];
    uint32_t source, at;
};

static sf_kway_order sorting;

static sf_bytes key_of(const struct item *i)
{
    return sf_bytes_str(i->text);
}

static int item_cmp(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int c = sf_bytes_cmp(key_of(x), key_of(y));

    if (c != 0)
        return sorting == SF_KWAY_REVERSE ? -c : c;
    c = (x->source > y->source) - (x->source < y->source);
    return sorting == SF_KWAY_NEWEST_FIRST ? -c : c;
}

static int by_source(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return x->source != y->source ? (x->source > y->source) - (x->source < y->source) : item_cmp(a, b);
}

static void stand(sf_kway *k, const struct item *items, uint32_t source, uint32_t at)
{
    if (at < KEYS && items[at].source == source)
        sf__kway_set(k, source, key_of(&items[at]));
    else
        sf__kway_end(k, source);
}

/* Sources whose keys are distinct within each; some have none. `same`: what all but a few keys begin with. */
static void merge(const char *same)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 8, 9, 64, 101};
    static struct item items[KEYS], sorted[KEYS];
    uint32_t next[128];

    srand(7);
    for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]); n++)
        for (sorting = SF_KWAY_FORWARD; sorting <= SF_KWAY_NEWEST_FIRST; sorting++) {
            sf_kway k;

            for (uint32_t i = 0; i < KEYS;
                 i++) { /* shared heads, proper prefixes, an empty key, keys equal between sources */
                items[i].source = (uint32_t)rand() % counts[n];
                snprintf(items[i].text, sizeof(items[i].text), "%.*s%.*s%u", i % 100 == 99 ? rand() % 20 : 90, same,
                         rand() % 9, "aaaaaaaa", i / 3);
                if (i == 0)
                    items[i].text[0] = '\0';
                sorted[i] = items[i];
            }
            qsort(items, KEYS, sizeof(items[0]), by_source);
            qsort(sorted, KEYS, sizeof(sorted[0]), item_cmp);
            assert_true(sf__kway_init(&k, counts[n], sorting, &sf__allocator_default));
            for (uint32_t s = 0; s < counts[n]; s++) {
                for (next[s] = 0; next[s] < KEYS && items[next[s]].source < s; next[s]++)
                    ;
                stand(&k, items, s, next[s]);
            }
            sf__kway_build(&k);
            for (uint32_t i = 0; i < KEYS; i++) {
                uint32_t s = sf__kway_winner(&k);

                assert_false(sf__kway_is_over(&k));
                assert_int_equal(s, sorted[i].source);
                assert_string_equal(items[next[s]].text, sorted[i].text);
                stand(&k, items, s, ++next[s]);
                sf__kway_replay(&k);
            }
            assert_true(sf__kway_is_over(&k));
            sf__kway_cleanup(&k);
        }
}

static void merges_as_sorting_does(void **state)
{
    static const char *const same[] = {
        "", "user:0000", "tenant/00000000/of/keys/that/all/begin/like/this/and/tell/nothing/for/a/hundred/bytes"};

    (void)state;
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        merge(same[i]);
}

/* The first key of those that the winner's source does not stand at. */
static void the_second_is_known(void **state)
{
    static const char *const keys[] = {"d", "b", "c", "aaaaaaaaa2", "aaaaaaaaa1", "b"};
    static const char *const ends[] = {"aaaaaaaaa2", "b", "b", "c", "d", NULL};
    sf_kway k;

    (void)state;
    assert_true(sf__kway_init(&k, 6, SF_KWAY_FORWARD, &sf__allocator_default));
    for (uint32_t i = 0; i < 6; i++)
        sf__kway_set(&k, i, sf_bytes_str(keys[i]));
    sf__kway_build(&k);
    for (unsigned i = 0; i < 6; i++) {
        uint32_t second;
        bool is = sf__kway_runner_up(&k, &second);

        assert_int_equal(is, ends[i] != NULL);
        if (is)
            assert_string_equal(keys[second], ends[i]);
        sf__kway_end(&k, sf__kway_winner(&k));
        sf__kway_replay(&k);
    }
    sf__kway_cleanup(&k);
}

static void without_sources_or_memory(void **state)
{
    struct test_heap heap;
    sf_kway k;

    (void)state;
    assert_true(sf__kway_init(&k, 0, SF_KWAY_FORWARD, &sf__allocator_default));
    sf__kway_build(&k);
    assert_true(sf__kway_is_over(&k));
    sf__kway_cleanup(&k);
    sf__kway_cleanup(&k);
    heap_init(&heap);
    for (long nth = 0;; nth++) {
        bool ok;

        heap_arm(&heap, nth);
        ok = sf__kway_init(&k, 5, SF_KWAY_FORWARD, &heap.alloc);
        sf__kway_cleanup(&k);
        assert_int_equal(atomic_load(&heap.live), 0);
        if (!heap_disarm(&heap)) {
            assert_true(ok);
            assert_true(nth >= 2);
            break;
        }
        assert_false(ok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_as_sorting_does),
        cmocka_unit_test(the_second_is_known),
        cmocka_unit_test(without_sources_or_memory),
    };

    return cmocka_run_group_tests_name("kway", tests, NULL, NULL);
}
