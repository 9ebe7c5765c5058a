/* What is pinned stays, whoever takes it away meanwhile, and goes with its last user. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "base/pin.h"
#include "../../support/heap.h"

#define BYTES 100u

static sf_buf *buf_of(struct test_heap *h, uint8_t fill)
{
    sf_buf *b = sf__buf_new(&h->alloc, BYTES);

    assert_non_null(b);
    memset(b->data, fill, BYTES);
    return b;
}

static void a_pin_outlives_what_is_withdrawn(void **state)
{
    struct test_heap heap;
    sf_pins *mine = sf__pins_of_thread();
    sf_buf *bufs[2], *owners[3];

    (void)state;
    heap_init(&heap);
    for (unsigned i = 0; i < 2; i++)
        bufs[i] = buf_of(&heap, (uint8_t)i);
    for (unsigned i = 0; i < 3; i++) { /* two pins on the second one */
        sf_pin *pin = sf__pins_for_value(mine);

        assert_non_null(pin);
        sf__pin_set(pin, bufs[i > 0]);
        owners[i] = sf__owner_of_pin(pin);
    }
    assert_int_equal(atomic_load(&bufs[1]->refs), 1);
    sf__owner_release(owners[0]);
    sf__bufs_withdraw(bufs, 2);
    assert_int_equal(atomic_load(&heap.live), 1);
    assert_int_equal(bufs[1]->data[BYTES - 1], 1);
    sf__owner_release(owners[1]);
    assert_int_equal(atomic_load(&heap.live), 1);
    sf__owner_release(owners[2]);
    assert_int_equal(atomic_load(&heap.live), 0);
}

static void a_pin_becomes_a_reference_when_it_is_asked_to(void **state)
{
    struct test_heap heap;
    sf_pins *mine = sf__pins_of_thread();

    (void)state;
    for (int withdrawn = 0; withdrawn < 2; withdrawn++) {
        sf_pin *pin = sf__pins_for_value(mine);
        sf_buf *b, *owner;

        heap_init(&heap);
        b = buf_of(&heap, 7);
        sf__pin_set(pin, b);
        if (withdrawn)
            sf__bufs_withdraw(&b, 1);
        owner = sf__owner_counted(sf__owner_of_pin(pin));
        assert_ptr_equal(owner, b);
        assert_ptr_equal(sf__owner_counted(owner), b);
        assert_int_equal(atomic_load(pin), 0);
        if (!withdrawn)
            sf__bufs_withdraw(&b, 1);
        assert_int_equal(atomic_load(&heap.live), 1);
        assert_int_equal(atomic_load(&b->refs), 1);
        sf__owner_release(owner);
        assert_int_equal(atomic_load(&heap.live), 0);
    }
}

static void pins_run_out(void **state)
{
    sf_pins *mine = sf__pins_of_thread();
    struct test_heap heap;
    sf_buf *b;
    unsigned n = 0;

    (void)state;
    heap_init(&heap);
    b = buf_of(&heap, 1);
    for (sf_pin *pin = sf__pins_for_value(mine); pin; pin = sf__pins_for_value(mine)) {
        sf__pin_set(pin, b);
        n++;
    }
    assert_int_equal(n, SF_PINS - SF_PIN_VALUES);
    sf__bufs_withdraw(&b, 1);
    for (unsigned i = SF_PIN_VALUES; i < SF_PINS; i++) {
        assert_int_equal(atomic_load(&heap.live), 1);
        sf__owner_release(sf__owner_of_pin(&mine->pins[i]));
    }
    assert_int_equal(atomic_load(&heap.live), 0);
}

/* A pin may still stand where something else lay before, which was of another kind: whoever takes it off would release that. */
static void pins_of_another_kind_stay_as_they_are(void **state)
{
    static const struct {
        unsigned pin;
        bool counts_for_buf, counts_for_snapshot;
    } rows[] = {{SF_PIN_SNAPSHOT, false, true},
                {SF_PIN_PASSING, true, false},
                {SF_PIN_VALUES, true, false},
                {SF_PINS - 1, true, false}};
    sf_pins *mine = sf__pins_of_thread();
    struct test_heap heap;

    (void)state;
    heap_init(&heap);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_pin *pin = &mine->pins[rows[i].pin];
        sf_buf *b = buf_of(&heap, 1);
        void *object = b;
        atomic_uint *refs = &b->refs;

        sf__pin_set(pin, object);
        sf__pins_to_references(&object, &refs, 1, SF_PIN_SNAPSHOT, SF_PIN_SNAPSHOT + 1);
        assert_int_equal(atomic_load(refs), 1 + rows[i].counts_for_snapshot);
        assert_int_equal(sf__pin_take_off(pin), rows[i].counts_for_snapshot);
        if (rows[i].counts_for_snapshot)
            sf__buf_release(b);
        sf__pin_set(pin, object);
        sf__bufs_withdraw(&b, 1);
        assert_int_equal(atomic_load(&heap.live), rows[i].counts_for_buf);
        if (sf__pin_take_off(pin))
            sf__buf_release(b);
        assert_int_equal(atomic_load(&heap.live), 0);
    }
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

struct left_behind {
    sf_buf *buf, *owner;
    sf_pins *pins;
};

static void *pin_and_end(void *arg)
{
    struct left_behind *l = arg;
    sf_pin *pin;

    l->pins = sf__pins_of_thread();
    pin = sf__pins_for_value(l->pins);
    sf__pin_set(pin, l->buf);
    l->owner = sf__owner_of_pin(pin);
    return NULL;
}

static void the_pins_of_a_thread_that_has_ended_are_the_next_ones(void **state)
{
    struct test_heap heap;
    struct left_behind first, second;
    pthread_t thread;

    (void)state;
    heap_init(&heap);
    first.buf = buf_of(&heap, 1);
    assert_int_equal(pthread_create(&thread, NULL, pin_and_end, &first), 0);
    pthread_join(thread, NULL);
    second.buf = buf_of(&heap, 2);
    assert_int_equal(pthread_create(&thread, NULL, pin_and_end, &second), 0);
    pthread_join(thread, NULL);
    assert_ptr_equal(first.pins, second.pins);
    assert_ptr_not_equal(first.owner, second.owner); /* what the first one left is pinned still */
    sf__bufs_withdraw(&first.buf, 1);
    sf__bufs_withdraw(&second.buf, 1);
    assert_int_equal(atomic_load(&heap.live), 2);
    sf__owner_release(first.owner);
    sf__owner_release(second.owner);
    assert_int_equal(atomic_load(&heap.live), 0);
}

#define PLACES 4u
#define READERS 3u
#define LOOKS 20000u

struct board {
    _Atomic(sf_buf *) places[PLACES];
    atomic_uint readers; /* that are at work */
    atomic_uint found, wrong;
};

static void *read_places(void *arg)
{
    struct board *board = arg;
    sf_pins *mine = sf__pins_of_thread();
    sf_buf *kept = NULL; /* over some rounds */

    for (unsigned i = 0; i < LOOKS; i++) {
        _Atomic(sf_buf *) *place = &board->places[i % PLACES];
        sf_buf *b = atomic_load_explicit(place, memory_order_relaxed);
        sf_pin *pin = sf__pins_for_value(mine);
        sf_buf *owner = sf__owner_of_pin(pin);

        if (!b)
            continue;
        sf__pin_set(pin, b);
        if (atomic_load(place) == b) {
            atomic_fetch_add(&board->found, 1);
            if (b->data[0] != b->data[BYTES - 1])
                atomic_fetch_add(&board->wrong, 1);
            if (i % 5 == 0) {
                sf__owner_release(kept);
                kept = i % 2 ? owner : sf__owner_counted(owner);
                continue;
            }
        }
        sf__owner_release(owner);
    }
    sf__owner_release(kept);
    atomic_fetch_sub(&board->readers, 1);
    return NULL;
}

static void readers_never_see_what_is_gone(void **state)
{
    struct board board = {.readers = READERS};
    struct test_heap heap;
    pthread_t threads[READERS];
    uint8_t fill = 0;

    (void)state;
    heap_init(&heap);
    for (unsigned i = 0; i < PLACES; i++)
        board.places[i] = buf_of(&heap, fill++);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_places, &board), 0);
    for (unsigned i = 0; atomic_load(&board.readers) > 0; i++) {
        sf_buf *old[2];

        for (unsigned k = 0; k < 2; k++)
            old[k] = atomic_exchange(&board.places[(i + k) % PLACES], buf_of(&heap, fill++));
        sf__bufs_withdraw(old, 2);
    }
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < PLACES; i++) {
        sf_buf *old = atomic_exchange(&board.places[i], NULL);

        sf__bufs_withdraw(&old, 1);
    }
    assert_int_equal(board.wrong, 0);
    assert_true(board.found > 0);
    assert_int_equal(atomic_load(&heap.live), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pin_outlives_what_is_withdrawn),
        cmocka_unit_test(a_pin_becomes_a_reference_when_it_is_asked_to),
        cmocka_unit_test(pins_run_out),
        cmocka_unit_test(pins_of_another_kind_stay_as_they_are),
        cmocka_unit_test(the_pins_of_a_thread_that_has_ended_are_the_next_ones),
        cmocka_unit_test(readers_never_see_what_is_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
