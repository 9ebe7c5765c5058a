/* The bucket by the clock of each row: what it lets through, how long it lets wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>

#include "base/token_bucket.h"

enum what { END, TAKE, RESERVE, GIVE_BACK, RATE };

struct step {
    enum what what;
    double now, number, expected; /* TAKE, RESERVE: seconds to wait */
};

static const struct row {
    const char *name;
    double rate;
    struct step steps[8];
    double burst; /* 0: as the rate */
} rows[] = {
    {"starts full and refills", 10, {{TAKE, 0, 10, 0}, {TAKE, 0, 5, 0.5}, {TAKE, 0.5, 5, 0}, {TAKE, 0.5, 1, 0.1}}},
    {"holds no more than its rate", 10, {{TAKE, 1000, 10, 0}, {TAKE, 1000, 1, 0.1}}},
    {"gains while it is not asked", 4, {{TAKE, 0, 4, 0}, {TAKE, 0.25, 1, 0}, {TAKE, 0.5, 2, 0.25}}},
    {"a refusal takes nothing", 2, {{TAKE, 0, 1, 0}, {TAKE, 0, 2, 0.5}, {TAKE, 0, 1, 0}}},
    {"no token is always there", 1, {{TAKE, 0, 1, 0}, {TAKE, 0, 0, 0}}},
    {"small gains add up to a token",
     10,
     {{TAKE, 0, 10, 0}, {TAKE, 0.03, 1, 0.07}, {TAKE, 0.06, 1, 0.04}, {TAKE, 0.1, 1, 0}}},
    {"more than it holds: after the fair time",
     5,
     {{TAKE, 0, 6, 0.2}, {RESERVE, 0, 6, 0.2}, {TAKE, 0.2, 1, 0.2}, {RESERVE, 0.2, 50, 10}, {TAKE, 10.2, 1, 0.2}}},
    {"one after the other",
     5,
     {{RESERVE, 0, 5, 0}, {RESERVE, 0, 5, 1}, {RESERVE, 0, 1, 1.2}, {TAKE, 0.5, 1, 0.9}, {TAKE, 1.4, 1, 0}}},
    {"nobody overtakes who waits", 5, {{RESERVE, 0, 9, 0.8}, {TAKE, 0.4, 1, 0.6}, {TAKE, 0.4, 0, 0}, {TAKE, 1, 1, 0}}},
    {"a wait that is given up",
     5,
     {{RESERVE, 0, 5, 0}, {RESERVE, 0, 5, 1}, {GIVE_BACK, 0, 5, 0}, {TAKE, 0, 1, 0.2}, {TAKE, 1, 5, 0}}},
    {"given back it holds no more than it can", 5, {{GIVE_BACK, 0, 5, 0}, {TAKE, 0, 6, 0.2}}},
    {"a lower rate spills", 10, {{RATE, 0, 2, 0}, {TAKE, 0, 3, 0.5}, {TAKE, 0, 2, 0}, {TAKE, 1, 2, 0}}},
    {"a higher rate holds from now on", 1, {{TAKE, 0, 1, 0}, {RATE, 0.5, 100, 0}, {TAKE, 0.5, 1, 0.005}}},
    {"an overtaken clock gains nothing twice", 10, {{TAKE, 1, 10, 0}, {TAKE, 0.5, 1, 0.1}, {TAKE, 1, 1, 0.1}}},
    {"another clock", 10, {{TAKE, 5000, 10, 0}, {TAKE, 100, 1, 0.1}, {TAKE, 100.1, 1, 0}}},
    {"less than one per second", 0.5, {{TAKE, 0, 1, 1}, {RESERVE, 0, 1, 1}, {TAKE, 1, 1, 2}, {RESERVE, 2, 1, 1}}},
    {"a burst above the rate",
     1,
     {{TAKE, 0, 10, 0}, {TAKE, 0, 2, 2}, {TAKE, 1000, 11, 1}, {RESERVE, 1000, 11, 1}, {TAKE, 1001, 1, 1}},
     10},
    {"a burst below the rate", 10, {{TAKE, 0, 2, 0}, {TAKE, 0, 1, 0.1}, {TAKE, 1000, 2, 0}, {TAKE, 1000, 2, 0.2}}, 2},
    {"a burst outlives a change of the rate", 1, {{RATE, 0, 5, 0}, {TAKE, 0, 10, 0}, {TAKE, 0, 5, 1}}, 10},
    {"without end", INFINITY, {{TAKE, 0, 1e12, 0}, {TAKE, 0, 1e12, 0}, {RESERVE, 1, 1e12, 0}}},
};

static void step_check(sf_token_bucket *b, const struct row *r, size_t i)
{
    const struct step *s = &r->steps[i];
    double got = s->expected;

    if (s->what == TAKE)
        got = sf__token_bucket_take(b, s->number, s->now);
    else if (s->what == RESERVE)
        got = sf__token_bucket_reserve(b, s->number, s->now);
    else if (s->what == GIVE_BACK)
        sf__token_bucket_give_back(b, s->number);
    else
        sf__token_bucket_set_rate(b, s->number, s->now);
    if (fabs(got - s->expected) > 1e-6)
        fail_msg("%s: step %zu: %.9f, expected %.9f", r->name, i, got, s->expected);
}

static void buckets(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_token_bucket b;

        sf__token_bucket_init(&b, rows[i].rate, rows[i].burst, 0);
        for (size_t k = 0; rows[i].steps[k].what != END; k++)
            step_check(&b, &rows[i], k);
        sf__token_bucket_cleanup(&b);
    }
}

static void levels_are_copied(void **unused)
{
    sf_token_bucket a, b;

    (void)unused;
    sf__token_bucket_init(&a, 10, 20, 0);
    sf__token_bucket_init(&b, 1, 0, 0);
    assert_true(sf__token_bucket_take(&a, 17, 0) <= 0);
    sf__token_bucket_set_level(&b, sf__token_bucket_level(&a));
    assert_true(sf__token_bucket_take(&b, 3, 0) <= 0);
    assert_true(fabs(sf__token_bucket_take(&b, 10, 0) - 1) < 1e-6);
    sf__token_bucket_cleanup(&a);
    sf__token_bucket_cleanup(&b);
}

#define THREADS 4
#define EACH 5000

static void *take_some(void *ctx)
{
    sf_token_bucket *b = ctx;
    uintptr_t taken = 0;

    for (int i = 0; i < EACH; i++)
        taken += sf__token_bucket_take(b, 1, 0) <= 0;
    return (void *)taken;
}

static void threads_take_no_token_twice(void **unused)
{
    pthread_t threads[THREADS];
    sf_token_bucket b;
    uintptr_t taken = 0;

    (void)unused;
    sf__token_bucket_init(&b, THREADS * EACH / 2, 0, 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_some, &b), 0);
    for (int i = 0; i < THREADS; i++) {
        void *one;

        pthread_join(threads[i], &one);
        taken += (uintptr_t)one;
    }
    assert_int_equal(taken, THREADS * EACH / 2);
    sf__token_bucket_cleanup(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets),
        cmocka_unit_test(levels_are_copied),
        cmocka_unit_test(threads_take_no_token_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
