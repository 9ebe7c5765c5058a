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
            saved = saved + shares[s] < 32 ? saved + shares[s] : 32;
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
        assert_true(saved_most <= 32);
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
    sf__hedge_note_deadline(NULL, 2000 * MS);
    sf__hedge_note_deadline(h, 2000 * MS - 1); /* its reader was in a hurry */
    late(h, 1, SF_HEDGE_SEND);
    sf__hedge_note_deadline(h, 2000 * MS);
    late(h, 1, SF_HEDGE_REFUSED);
    sf__hedge_release(h);
}

/* ------------------------------------------------------------------ what it brings -------------------------------- */

/* How long S3 takes for 4 KiB (bench/s3_latency.py), in straight lines between what is known. */
static uint64_t draw_ns(sf_random *random)
{
    static const double known[][2] = {{0, 19}, {0.5, 25}, {0.9, 46.5}, {0.99, 98}, {0.999, 144}, {1, 250}};
    double at = (double)(sf__random_next(random) >> 11) / 9007199254740992.0;
    size_t i = 1;

    while (i < 5 && at > known[i][0])
        i++;
    return (uint64_t)((known[i - 1][1] +
                       (known[i][1] - known[i - 1][1]) * (at - known[i - 1][0]) / (known[i][0] - known[i - 1][0])) *
                      (double)MS);
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

#define MOST 128

/* So many reads together: when each has its answer. `slow`: the store takes so many times as long. `h` NULL: they are not hedged. */
static void read_together(sf_hedge *h, sf_random *random, unsigned count, uint64_t slow, uint64_t times_ns[MOST])
{
    uint64_t after = h ? sf__hedge_after_ns(h, LEN) : UINT64_MAX, second[MOST];
    bool late[MOST];

    for (unsigned i = 0; i < count; i++) {
        times_ns[i] = slow * draw_ns(random);
        if (h)
            sf__hedge_note_request(h);
    }
    qsort(times_ns, count, sizeof(*times_ns), by_time);
    for (unsigned i = 0; h && i < count; i++) {
        sf_hedge_verdict verdict = times_ns[i] > after ? sf__hedge_ask(h, LEN, after) : SF_HEDGE_WAIT;

        late[i] = verdict != SF_HEDGE_WAIT;
        second[i] = UINT64_MAX;
        if (verdict == SF_HEDGE_SEND) {
            sf__hedge_note_sent(h);
            second[i] = after + slow * draw_ns(random);
        }
        if (!late[i])
            sf__hedge_note_answer(h, LEN, times_ns[i], false, false);
    }
    for (unsigned i = 0; h && i < count; i++) {
        bool won = second[i] < times_ns[i];

        times_ns[i] = won ? second[i] : times_ns[i];
        if (late[i])
            sf__hedge_note_answer(h, LEN, times_ns[i], true, won);
    }
}

#define READS 400000u
#define WAVES 3000u

struct tails {
    double p999_ms, wave_ms;
};

static struct tails measure(sf_hedge *h)
{
    static uint64_t took[READS];
    sf_random random = {1};
    struct tails t = {0, 0};
    uint64_t times[MOST];

    for (unsigned i = 0; i < READS; i++) {
        read_together(h, &random, 1, 1, times);
        took[i] = times[0];
    }
    qsort(took, READS, sizeof(*took), by_time);
    t.p999_ms = (double)took[READS - READS / 1000] / (double)MS;
    for (unsigned i = 0; i < WAVES; i++) {
        uint64_t slowest = 0;

        read_together(h, &random, MOST, 1, times);
        for (unsigned k = 0; k < MOST; k++)
            slowest = times[k] > slowest ? times[k] : slowest;
        t.wave_ms += (double)slowest / (double)MS / WAVES;
    }
    return t;
}

/* The slowest of a thousand, the mean of what 128 together take, and how many requests that costs; seeded, so always the same. */
static void the_tail_is_cut(void **state)
{
    static const struct {
        double share, p999, wave; /* falls by at least */
    } rows[] = {{0.05, 0.17, 0.14}, {0.075, 0.24, 0.19}, {0.1, 0.30, 0.24}};
    const struct tails plain = measure(NULL);

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        sf_hedge *h = new_hedge(rows[r].share, 0);
        const struct tails hedged = measure(h);
        uint64_t times[MOST], before;
        sf_random random = {2};
        sf_hedge_stats s;

        sf__hedge_get_stats(h, &s);
        print_message("share %.3f: p999 %.1f to %.1f ms, wave of 128 %.1f to %.1f ms, %.2f %% more requests\n",
                      rows[r].share, plain.p999_ms, hedged.p999_ms, plain.wave_ms, hedged.wave_ms,
                      100.0 * (double)s.sent / (READS + WAVES * MOST));
        assert_true((double)s.sent <= rows[r].share * (READS + WAVES * MOST));
        assert_true(hedged.p999_ms <= (1 - rows[r].p999) * plain.p999_ms);
        assert_true(hedged.wave_ms <= (1 - rows[r].wave) * plain.wave_ms);
        before = s.sent; /* a store that takes four times as long for all */
        for (unsigned i = 0; i < 2000; i++)
            read_together(h, &random, 1, 4, times);
        sf__hedge_get_stats(h, &s);
        print_message("four times as slow: %.2f %%\n", 100.0 * (double)(s.sent - before) / 2000);
        assert_true(s.sent - before <= 48);
        sf__hedge_release(h);
    }
}

/* ------------------------------------------------------------------ who hears of it ------------------------------- */

static void what_becomes_of_late_answers_is_noted(void **state)
{
    static const sf_store_event_kind kinds[] = {SF_STORE_HEDGE, SF_STORE_HEDGE_WON, SF_STORE_HEDGE_NO_ROOM,
                                                SF_STORE_HEDGE_BUDGET, SF_STORE_HEDGE_SICK};
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
        cmocka_unit_test(the_tail_is_cut),
        cmocka_unit_test(what_becomes_of_late_answers_is_noted),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
