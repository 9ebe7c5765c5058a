/* What decides on a second request: what it learns, what it spends, what it takes for sick. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/retry.h"
#include "store/hedge.h"
#include "../../support/heap.h"

#define MS UINT64_C(1000000)
#define LEN 4096

static sf_hedge *new_hedge(double share, uint64_t after_ns)
{
    sf_hedge *h = NULL;

    assert_int_equal(sf__hedge_new(&h, share, after_ns, NULL, &sf__allocator_default, NULL), SF_OK);
    return h;
}

static void answers(sf_hedge *h, unsigned count, uint64_t len, uint64_t ns)
{
    for (unsigned i = 0; i < count; i++)
        sf__hedge_note_answer(h, len, ns, false, false);
}

static void requests(sf_hedge *h, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        sf__hedge_note_request(h);
}

/* ------------------------------------------------------------------ when ----------------------------------------- */

static void late_is_what_takes_longer_than_others(void **state)
{
    static const struct {
        const char *name;
        double share;
        uint64_t fixed_ns, len;
        struct {
            unsigned count;
            uint64_t ns;
        } came[3];
        uint64_t from_ns, to_ns; /* what is late */
    } rows[] = {
        {"one of twenty", 0.05, 0, LEN, {{950, 25 * MS}, {50, 100 * MS}}, 25 * MS, 28 * MS},
        {"one of ten", 0.1, 0, LEN, {{890, 25 * MS}, {110, 100 * MS}}, 91 * MS, 109 * MS},
        {"of all the same", 0.05, 0, LEN, {{100, 40 * MS}}, 36 * MS, 45 * MS},
        {"what is quick is not worth it", 0.05, 0, LEN, {{100, MS / 10}}, 5 * MS, 5 * MS},
        {"what is slow is late in the end", 0.05, 0, LEN, {{100, 60000 * MS}}, 2000 * MS, 2000 * MS},
        {"longer than can be told apart", 0.05, 0, LEN, {{100, 3600000 * MS}}, 2000 * MS, 2000 * MS},
        {"as said", 0.05, 7 * MS, LEN, {{100, 40 * MS}}, 7 * MS, 7 * MS},
        {"as said from the start", 0.05, 7 * MS, LEN, {{0}}, 7 * MS, 7 * MS},
        {"what has changed", 0.05, 0, LEN, {{2000, 20 * MS}, {3000, 80 * MS}}, 72 * MS, 90 * MS},
        {"large ones apart", 0.05, 0, 1 << 20, {{100, 200 * MS}}, 180 * MS, 225 * MS},
    };

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        sf_hedge *h = new_hedge(rows[r].share, rows[r].fixed_ns);
        uint64_t after;

        answers(h, 100, rows[r].len == LEN ? 1 << 20 : LEN, 15 * MS); /* of the other class: of no meaning */
        for (int i = 0; i < 3; i++)
            answers(h, rows[r].came[i].count, rows[r].len, rows[r].came[i].ns);
        after = sf__hedge_after_ns(h, rows[r].len);
        if (after < rows[r].from_ns || after > rows[r].to_ns)
            fail_msg("%s: after %lu us", rows[r].name, (unsigned long)(after / 1000));
        requests(h, 100);
        assert_int_equal(sf__hedge_ask(h, rows[r].len, after - 1), SF_HEDGE_WAIT);
        assert_int_equal(sf__hedge_ask(h, rows[r].len, after), SF_HEDGE_SEND);
        sf__hedge_release(h);
    }
}

static void nothing_is_late_before_anything_is_known(void **state)
{
    sf_hedge *h = new_hedge(0.5, 0);

    (void)state;
    requests(h, 100);
    answers(h, 31, LEN, 25 * MS);
    assert_int_equal(sf__hedge_ask(h, LEN, 1000000 * MS), SF_HEDGE_WAIT);
    assert_true(sf__hedge_after_ns(h, LEN) > 0); /* when to ask again */
    answers(h, 1, LEN, 25 * MS);
    assert_int_equal(sf__hedge_ask(h, LEN, 1000000 * MS), SF_HEDGE_SEND);
    sf__hedge_release(h);
}

static void what_it_covers(void **state)
{
    sf_hedge *h = new_hedge(0.5, 0);

    (void)state;
    assert_false(sf__hedge_covers(NULL, 1));
    assert_true(sf__hedge_covers(h, 1));
    assert_true(sf__hedge_covers(h, 1 << 20));
    assert_false(sf__hedge_covers(h, (1 << 20) + 1));
    assert_false(sf__hedge_covers(h, SF_STORE_ALL));
    sf__hedge_release(h);
}

/* ------------------------------------------------------------------ how many ------------------------------------- */

/* Whatever is late when: never more than the share of all, and what was saved up. */
static void the_share_is_kept_over_any_time(void **state)
{
    static const double shares[] = {0.01, 0.05, 0.1, 0.5};

    (void)state;
    for (size_t s = 0; s < 4; s++) {
        sf_hedge *h = new_hedge(shares[s], MS);
        sf_random random = {s};
        double sent = 0, saved_most = 0, saved = 0;

        for (unsigned i = 0; i < 20000; i++) {
            bool wave = i / 500 % 2;

            requests(h, 1);
            saved = saved + shares[s] < 16 ? saved + shares[s] : 16;
            saved_most = saved > saved_most ? saved : saved_most;
            answers(h, 8, LEN, MS); /* else so many late ones would be a slow store */
            if (wave && sf__random_next(&random) % 2 && sf__hedge_ask(h, LEN, MS) == SF_HEDGE_SEND) {
                sf__hedge_note_sent(h);
                sent++;
                saved--;
            }
            assert_true(saved >= -1e-9 && sent <= shares[s] * (i + 1) + 1e-6);
        }
        assert_true(sent >= shares[s] * 20000 / 4); /* and it was used */
        assert_true(saved_most <= 16);
        sf__hedge_release(h);
    }
}

/* ------------------------------------------------------------------ a store that is sick -------------------------- */

static void late(sf_hedge *h, unsigned count, sf_hedge_verdict expected)
{
    for (unsigned i = 0; i < count; i++) {
        requests(h, 20);
        assert_int_equal(sf__hedge_ask(h, LEN, 1000 * MS), expected);
        if (expected == SF_HEDGE_SEND)
            sf__hedge_note_sent(h);
    }
}

static void a_store_that_is_slow_as_a_whole(void **state)
{
    sf_hedge *h = new_hedge(0.05, 30 * MS);
    sf_hedge_stats s;

    (void)state;
    requests(h, 320);
    answers(h, 64, LEN, 25 * MS);
    late(h, 16, SF_HEDGE_SEND);
    late(h, 100, SF_HEDGE_REFUSED);
    for (unsigned i = 0; i < 116; i++) /* they come in the end, and count once */
        sf__hedge_note_answer(h, LEN, 1000 * MS, true, false);
    late(h, 1, SF_HEDGE_REFUSED);
    answers(h, 47, LEN, 25 * MS);
    late(h, 1, SF_HEDGE_REFUSED); /* of the last 64 there were 17, with this one */
    answers(h, 1, LEN, 25 * MS);
    late(h, 1, SF_HEDGE_SEND);
    sf__hedge_get_stats(h, &s);
    assert_int_equal(s.sent, 17);
    assert_int_equal(s.refused_sick, 102);
    assert_int_equal(s.refused_budget + s.refused_room + s.won, 0);
    sf__hedge_release(h);
}

/* A fan-out's late answers show all at once, at its end. */
static void a_fan_out_is_no_sickness(void **state)
{
    static const struct {
        double share;
        unsigned late; /* at its end, at most */
    } rows[] = {{0.01, 8}, {0.05, 16}, {0.1, 32}, {0.15, 48}, {0.5, 48}};

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        sf_hedge *h = new_hedge(rows[r].share, 30 * MS);

        answers(h, 200, LEN, 25 * MS);
        for (unsigned i = 0; i < rows[r].late; i++) {
            requests(h, 100);
            assert_int_equal(sf__hedge_ask(h, LEN, 1000 * MS), SF_HEDGE_SEND);
            sf__hedge_note_sent(h);
        }
        requests(h, 100);
        assert_int_equal(sf__hedge_ask(h, LEN, 1000 * MS), SF_HEDGE_REFUSED);
        sf__hedge_release(h);
    }
}

static void what_stays_slow_is_usual_in_the_end(void **state)
{
    sf_hedge *h = new_hedge(0.05, 0);
    unsigned answered = 0;

    (void)state;
    requests(h, 1000);
    answers(h, 1000, LEN, 25 * MS);
    for (; sf__hedge_after_ns(h, LEN) < 900 * MS && answered < 100000; answered++) {
        bool is_late = sf__hedge_ask(h, LEN, 1000 * MS) != SF_HEDGE_WAIT;

        sf__hedge_note_answer(h, LEN, 1000 * MS, is_late, false);
    }
    assert_in_range(answered, 500, 5000); /* not at once */
    sf__hedge_release(h);
}

static void a_store_that_refuses(void **state)
{
    sf_hedge *h = new_hedge(0.5, 30 * MS);

    (void)state;
    requests(h, 2);
    sf__hedge_note_trouble(NULL);
    late(h, 1, SF_HEDGE_SEND);
    sf__hedge_note_trouble(h);
    late(h, 3, SF_HEDGE_REFUSED);
    answers(h, 63, LEN, MS);
    late(h, 1, SF_HEDGE_REFUSED);
    answers(h, 1, LEN, MS);
    late(h, 1, SF_HEDGE_SEND);
    sf__hedge_release(h);
}

/* ------------------------------------------------------------------ who hears of it ------------------------------- */

static void what_becomes_of_late_answers_is_noted(void **state)
{
    static const sf_store_event_kind kinds[] = {SF_STORE_HEDGE, SF_STORE_HEDGE_WON, SF_STORE_HEDGE_NO_ROOM, SF_STORE_HEDGE_BUDGET,
                                                SF_STORE_HEDGE_SICK};
    sf_store_events *events = NULL;
    sf_store_event got[8];
    sf_hedge *h = NULL;
    sf_hedge_stats s;

    (void)state;
    assert_int_equal(sf_store_events_new(&events, NULL, NULL), SF_OK);
    assert_int_equal(sf__hedge_new(&h, 0.5, MS, events, &sf__allocator_default, NULL), SF_OK);
    sf_store_events_release(events); /* it has one of its own */
    requests(h, 3);
    assert_int_equal(sf__hedge_ask(h, LEN, MS), SF_HEDGE_SEND);
    sf__hedge_note_sent(h);
    sf__hedge_note_answer(h, LEN, 2 * MS, true, true);
    requests(h, 1);
    assert_int_equal(sf__hedge_ask(h, LEN, MS), SF_HEDGE_SEND);
    sf__hedge_note_no_room(h); /* spends nothing */
    assert_int_equal(sf__hedge_ask(h, LEN, MS), SF_HEDGE_SEND);
    sf_store_events_acquire(events);
    sf__hedge_note_sent(sf__hedge_acquire(h));
    assert_int_equal(sf__hedge_ask(h, LEN, MS), SF_HEDGE_REFUSED);
    sf__hedge_note_trouble(h);
    assert_int_equal(sf__hedge_ask(h, LEN, MS), SF_HEDGE_REFUSED);
    sf__hedge_get_stats(h, &s);
    assert_true(s.sent == 2 && s.won == 1 && s.refused_room == 1 && s.refused_budget == 1 && s.refused_sick == 1);
    sf__hedge_release(h);
    sf__hedge_release(h);
    assert_int_equal(sf_store_events_take(events, got, 8), 6);
    for (unsigned i = 0, kind = 0; i < 6; i++) {
        assert_string_equal(got[i].operation, "get");
        assert_int_equal(got[i].kind, i == 3 ? SF_STORE_HEDGE : kinds[kind]);
        kind += i != 3;
    }
    sf_store_events_release(events);
    sf__hedge_get_stats(NULL, &s);
    assert_true(s.sent == 0 && s.won == 0);
}

static void no_memory(void **state)
{
    struct test_heap heap;
    sf_hedge *h = NULL;

    (void)state;
    heap_init(&heap);
    heap_arm(&heap, 0);
    assert_int_equal(sf__hedge_new(&h, 0.5, 0, NULL, &heap.alloc, NULL), SF_NOMEM);
    assert_null(h);
    sf__hedge_release(NULL);
    assert_null(sf__hedge_acquire(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_is_what_takes_longer_than_others),
        cmocka_unit_test(nothing_is_late_before_anything_is_known),
        cmocka_unit_test(what_it_covers),
        cmocka_unit_test(the_share_is_kept_over_any_time),
        cmocka_unit_test(a_store_that_is_slow_as_a_whole),
        cmocka_unit_test(a_fan_out_is_no_sickness),
        cmocka_unit_test(what_stays_slow_is_usual_in_the_end),
        cmocka_unit_test(a_store_that_refuses),
        cmocka_unit_test(what_becomes_of_late_answers_is_noted),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
