/* Waiting for what becomes of a reader: a due refresh, another snapshot, its end. And what a refresh costs that finds nothing
 * new. */
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reader/reader.h"

#define PATIENCE_MS 30000
#define AN_HOUR_MS (INT64_C(3600) * 1000)

static sf_reader *open_scheduled(struct world *w, int64_t interval_ms)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_reader *r = NULL;
    sf_error e = SF_ERROR_INIT;

    o.refresh_interval_ms = interval_ms;
    o.refresh_jitter = 0.5;
    if (sf_reader_open(&r, w->rt, PREFIX, &o, &e) != SF_OK)
        fail_msg("open: %s", e.message);
    return r;
}

/* ------------------------------------------------------------------ when a refresh is due ------------------------ */

static void how_long_it_takes(void **state)
{
    static const struct {
        const char *name;
        int64_t interval_ms;
        double jitter;
        uint32_t failures;
        uint64_t random;
        int64_t expected_ms;
    } rows[] = {
        {"plain", 1000, 0, 0, 0, 1000},
        {"as short as it gets", 1000, 0.1, 0, 0, 900},
        {"in the middle", 1000, 0.1, 0, UINT64_C(1) << 63, 1000},
        {"nearly as long as it gets", 1000, 1, 0, UINT64_MAX, 1999},
        {"at once", 1000, 1, 0, 0, 0},
        {"one failure", 1000, 0, 1, 0, 2000},
        {"four", 1000, 0, 4, 0, 16000},
        {"many", 1000, 0, UINT32_MAX, 0, 16000},
        {"not beyond five minutes", 100000, 0, 2, 0, 300000},
        {"unless the interval is", AN_HOUR_MS, 0, 3, 0, AN_HOUR_MS},
        {"for ever", INT64_MAX, 1, 3, UINT64_MAX, INT64_MAX / 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t ms = sf__refresh_delay_ms(rows[i].interval_ms, rows[i].jitter, rows[i].failures, rows[i].random);

        if (ms != rows[i].expected_ms)
            fail_msg("%s: %lld ms", rows[i].name, (long long)ms);
    }
}

static void schedules_that_are_none(void **state)
{
    struct world *w = *state;
    static const struct {
        int64_t interval_ms;
        double jitter;
    } rows[] = {{-1, 0.1}, {1000, -0.1}, {1000, 1.5}, {1000, NAN}};
    sf_reader *r = world_open_reader(w);
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_reader_options o = SF_READER_OPTIONS_INIT;
        sf_reader *none = NULL;

        o.refresh_interval_ms = rows[i].interval_ms;
        o.refresh_jitter = rows[i].jitter;
        assert_int_equal(sf_reader_open(&none, w->rt, PREFIX, &o, &e), SF_INVALID);
        assert_null(none);
    }
    assert_int_equal(sf_reader_due_start(&call, r, NULL, NULL, &e), SF_INVALID);
    assert_non_null(strstr(e.message, "refresh_interval_ms"));
    sf_reader_free(r);
}

/* A program that follows the pointer, in its completion callbacks. */
struct follower {
    sf_reader *r;
    struct gate moved, ended;
    unsigned refreshes; /* loop thread */
    sf_status last;
};

static void follow_due(void *ctx, sf_call *call);

static void follow_refreshed(void *ctx, sf_call *call)
{
    struct follower *f = ctx;
    sf_call *next = NULL;

    f->refreshes++;
    if (sf_call_changed(call))
        gate_arrive(&f->moved);
    f->last = sf_reader_due_start(&next, f->r, follow_due, f, NULL);
    if (f->last != SF_OK)
        gate_arrive(&f->ended);
    sf_call_release(next);
}

static void follow_due(void *ctx, sf_call *call)
{
    struct follower *f = ctx;
    sf_call *next = NULL;

    f->last = sf_call_error(call)->code;
    if (f->last == SF_OK)
        f->last = sf_reader_refresh_start(&next, f->r, PATIENCE_MS, follow_refreshed, f, NULL);
    if (f->last != SF_OK)
        gate_arrive(&f->ended);
    sf_call_release(next);
}

static void following_the_pointer(void **state)
{
    struct world *w = *state;
    struct follower f = {.r = open_scheduled(w, 2), .moved = GATE_INIT, .ended = GATE_INIT};
    sf_call *call;

    assert_int_equal(sf_reader_due_start(&call, f.r, follow_due, &f, NULL), SF_OK);
    sf_call_release(call);
    for (unsigned n = 0; n < 3; n++) {
        char expected[16];

        world_point_at_run(w, n);
        gate_wait(&f.moved, n + 1);
        snprintf(expected, sizeof(expected), "run-%03u", n);
        assert_string_equal(world_run_id(f.r), expected);
    }
    sf_reader_close(f.r);
    gate_wait(&f.ended, 1);
    gate_leave(&f.ended);
    assert_int_equal(f.last, SF_STATE);
    assert_true(f.refreshes >= 3);
    sf_reader_free(f.r);
}

/* ------------------------------------------------------------------ ends ----------------------------------------- */

static void waiting_ends(void **state)
{
    struct world *w = *state;
    enum { CANCELLED, CLOSED, FREED, WAYS };

    for (int way = 0; way < WAYS; way++) {
        sf_reader *r = open_scheduled(w, AN_HOUR_MS);
        sf_snapshot *s = sf_reader_borrow(r, NULL);
        sf_status expected = way == CANCELLED ? SF_CANCELLED : SF_STATE;
        sf_call *due[3], *moved;
        sf_snapshot_info info;

        sf_snapshot_get_info(s, &info);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(sf_reader_due_start(&due[i], r, NULL, NULL, NULL), SF_OK);
        assert_int_equal(sf_reader_moved_start(&moved, r, info.manifest_ref, NULL, NULL, NULL), SF_OK);
        sf_snapshot_give_back(s);
        assert_false(sf_call_is_done(due[0]) || sf_call_is_done(moved));
        if (way == CANCELLED) {
            sf_call_cancel(due[1]); /* the middle of the list first */
            assert_int_equal(sf_call_wait(due[1], NULL), SF_CANCELLED);
            sf_call_cancel(moved);
            sf_call_cancel(due[0]);
            sf_call_cancel(due[2]);
        } else if (way == CLOSED) {
            sf_reader_close(r);
            sf_reader_close(r);
        } else {
            sf_reader_free(r);
        }
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(sf_call_wait(due[i], NULL), expected);
            sf_call_release(due[i]);
        }
        assert_int_equal(sf_call_wait(moved, NULL), expected);
        sf_call_release(moved);
        if (way == CLOSED)
            assert_int_equal(sf_reader_due_start(&due[0], r, NULL, NULL, NULL), SF_STATE);
        if (way != FREED)
            sf_reader_free(r);
    }
}

static void moves_are_told(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_snapshot_info info;
    sf_call *first, *second;
    bool changed;

    sf_snapshot_get_info(s, &info);
    assert_int_equal(sf_reader_moved_start(&first, r, info.manifest_ref, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_reader_moved_start(&second, r, "another one", NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(second, NULL), SF_OK);
    sf_call_release(second);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_false(changed || sf_call_is_done(first));
    world_point_at_run(w, 0);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_true(changed);
    assert_int_equal(sf_call_wait(first, NULL), SF_OK);
    assert_false(sf_call_changed(first)); /* a refresh's */
    sf_call_release(first);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

/* Threads wait, the reader moves and is closed under them. */
struct waiter {
    sf_reader *r;
    unsigned moves;
    sf_status last;
};

static void *wait_for_moves(void *arg)
{
    struct waiter *t = arg;

    for (;;) {
        sf_snapshot *s = sf_reader_borrow(t->r, NULL);
        sf_snapshot_info info;
        sf_call *call;

        if (!s) {
            t->last = SF_STATE;
            return NULL;
        }
        sf_snapshot_get_info(s, &info);
        t->last = sf_reader_moved_start(&call, t->r, info.manifest_ref, NULL, NULL, NULL);
        sf_snapshot_give_back(s);
        if (t->last == SF_OK) {
            t->last = sf_call_wait(call, NULL);
            sf_call_release(call);
        }
        if (t->last != SF_OK)
            return NULL;
        t->moves++;
    }
}

static void threads_wait_while_it_moves_and_closes(void **state)
{
    struct world *w = *state;
    struct waiter waiters[4];
    pthread_t threads[4];
    sf_reader *r = open_scheduled(w, 1);

    for (size_t i = 0; i < 4; i++) {
        waiters[i] = (struct waiter){.r = r};
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_moves, &waiters[i]), 0);
    }
    for (unsigned n = 0; n < 30; n++) {
        bool changed;

        world_point_at_run(w, n % 3);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    }
    sf_reader_close(r);
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(waiters[i].last, SF_STATE);
        assert_true(waiters[i].moves <= 30);
    }
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ what it costs -------------------------------- */

static void a_pointer_that_has_not_changed_does_not_come(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_runtime_stats before, after;
    sf_reader_health h;
    bool changed;

    for (unsigned i = 0; i < 3; i++) {
        sf_runtime_get_stats(w->rt, &before);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
        sf_runtime_get_stats(w->rt, &after);
        assert_false(changed);
        assert_int_equal(after.requests - before.requests, 1);
        assert_int_equal(after.bytes_fetched - before.bytes_fetched, 0);
    }
    world_point_at(w, "manifests/none/manifest"); /* the pointer is read, and remembered; what it names is not there */
    for (unsigned i = 1; i < 3; i++) {
        sf_runtime_get_stats(w->rt, &before);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_NOT_FOUND);
        sf_runtime_get_stats(w->rt, &after);
        assert_int_equal(after.requests - before.requests, 2);
        assert_int_equal(after.bytes_fetched > before.bytes_fetched, i == 1);
        sf_reader_get_health(r, -1, SF_STALENESS_OF_READER, &h);
        assert_int_equal(h.refresh_failures, i);
    }
    world_put_object(w, "copy/_CURRENT", sf_bytes_str("{"));
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_BAD_MANIFEST);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_BAD_MANIFEST);
    world_point_at_run(w, 1);
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_true(changed);
    sf_reader_get_health(r, -1, SF_STALENESS_OF_READER, &h);
    assert_int_equal(h.refresh_failures, 0);
    sf_reader_free(r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(how_long_it_takes),
        TEST(schedules_that_are_none),
        TEST(following_the_pointer),
        TEST(waiting_ends),
        TEST(moves_are_told),
        TEST(threads_wait_while_it_moves_and_closes),
        TEST(a_pointer_that_has_not_changed_does_not_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
