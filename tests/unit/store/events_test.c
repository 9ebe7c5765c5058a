/* What stores had to repeat: in order while there is room, counted beyond, never lost, and never in a forked child. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../support/heap.h"
#include "store/events.h"
#include "store/s3_options.h"

#define KEPT 256u /* one by one, as shardyfusion/store.h promises */

static sf_store_events *events_new(void)
{
    sf_store_events *e = NULL;

    assert_int_equal(sf_store_events_new(&e, NULL, NULL), SF_OK);
    return e;
}

static void note_many(sf_store_events *e, sf_store_event_kind kind, sf_store_verb verb, size_t times)
{
    for (size_t i = 0; i < times; i++)
        sf__store_events_note(e, kind, verb, (uint32_t)i + 1, (int64_t)i * 10);
}

static void in_order(void **state)
{
    static const struct {
        sf_store_event_kind kind;
        sf_store_verb verb;
        const char *operation;
    } rows[] = {
        {SF_STORE_RETRY, SF_STORE_GET, "get"},
        {SF_STORE_RETRY, SF_STORE_LIST, "list"},
        {SF_STORE_RETRY_EXHAUSTED, SF_STORE_GET, "get"},
        {SF_STORE_RETRY_EXHAUSTED, SF_STORE_MULTIPART_ABORT, NULL},
    };
    size_t count = sizeof(rows) / sizeof(rows[0]);
    sf_store_events *e = events_new();
    sf_store_event got[8];

    assert_int_equal(sf_store_events_take(e, got, 8), 0);
    for (size_t i = 0; i < count; i++)
        sf__store_events_note(e, rows[i].kind, rows[i].verb, (uint32_t)i + 1, (int64_t)i);
    assert_int_equal(sf_store_events_take(e, got, 0), 0);
    for (size_t i = 0; i < count; i++) { /* in parts */
        assert_int_equal(sf_store_events_take(e, got, 1), 1);
        assert_int_equal(got[0].kind, rows[i].kind);
        assert_string_equal(got[0].operation, rows[i].operation ? rows[i].operation : sf__store_verb_name(rows[i].verb));
        assert_int_equal(got[0].attempts, i + 1);
        assert_int_equal(got[0].delay_ms, i);
        assert_int_equal(got[0].count, 1);
    }
    assert_int_equal(sf_store_events_take(e, got, 8), 0);
    sf__store_events_note(NULL, SF_STORE_RETRY, SF_STORE_GET, 1, 0); /* nobody wants to know */
    sf_store_events_release(e);
    sf_store_events_release(NULL);
}

/* A million events take the room of some hundred. */
static void a_storm_is_counted(void **state)
{
    sf_store_events *e = events_new();
    sf_store_event got[KEPT + 8];
    size_t n;

    note_many(e, SF_STORE_RETRY, SF_STORE_GET, KEPT);
    note_many(e, SF_STORE_RETRY, SF_STORE_GET, 1000000);
    note_many(e, SF_STORE_RETRY, SF_STORE_LIST, 1);
    note_many(e, SF_STORE_RETRY_EXHAUSTED, SF_STORE_GET, 3);
    for (size_t i = 0; i < KEPT; i++) {
        assert_int_equal(sf_store_events_take(e, got, 1), 1);
        assert_int_equal(got[0].attempts, i + 1);
        assert_int_equal(got[0].count, 1);
    }
    note_many(e, SF_STORE_RETRY, SF_STORE_GET, 1); /* behind what has not been taken yet, although there is room */
    n = sf_store_events_take(e, got, KEPT + 8);
    assert_int_equal(n, 3);
    assert_string_equal(got[0].operation, "get");
    assert_int_equal(got[0].count, 1000001);
    assert_int_equal(got[0].attempts, 1); /* the last one's */
    assert_string_equal(got[1].operation, "list");
    assert_int_equal(got[1].count, 1);
    assert_int_equal(got[2].kind, SF_STORE_RETRY_EXHAUSTED);
    assert_int_equal(got[2].count, 3);
    assert_int_equal(got[2].attempts, 3);
    assert_int_equal(got[2].delay_ms, 20);
    note_many(e, SF_STORE_RETRY, SF_STORE_PUT, 2); /* one by one again, around the ring's end */
    assert_int_equal(sf_store_events_take(e, got, KEPT), 2);
    assert_int_equal(got[1].attempts, 2);
    sf_store_events_release(e);
}

/* Each has a place of its own. */
static void operations_are_told_apart_in_a_storm(void **state)
{
    sf_store_events *e = events_new();
    sf_store_event got[KEPT + 2 * SF_STORE_VERBS];
    size_t n = 0;

    note_many(e, SF_STORE_RETRY, SF_STORE_GET, KEPT);
    for (int kind = SF_STORE_RETRY; kind <= SF_STORE_RETRY_EXHAUSTED; kind++)
        for (int verb = 0; verb < SF_STORE_VERBS; verb++)
            note_many(e, (sf_store_event_kind)kind, (sf_store_verb)verb, (size_t)verb + 1);
    assert_int_equal(sf_store_events_take(e, got, KEPT + 2 * SF_STORE_VERBS), KEPT + 2 * SF_STORE_VERBS);
    for (int kind = SF_STORE_RETRY; kind <= SF_STORE_RETRY_EXHAUSTED; kind++)
        for (int verb = 0; verb < SF_STORE_VERBS; verb++, n++) {
            assert_int_equal(got[KEPT + n].kind, kind);
            assert_string_equal(got[KEPT + n].operation, sf__store_verb_name((sf_store_verb)verb));
            assert_int_equal(got[KEPT + n].count, verb + 1);
        }
    sf_store_events_release(e);
}

/* In order, then by operation and class of the status; never unless somebody wants them. */
static void operations_that_end(void **state)
{
    sf_store_events *e = events_new();
    sf_store_request got[KEPT + 8],
        one = {.operation = "get", .http_status = 206, .attempts = 1, .bytes = 7, .duration_us = 5, .count = 1};
    sf_store_event none[1];

    assert_false(sf__store_events_want_requests(NULL));
    assert_false(sf__store_events_want_requests(e));
    assert_int_equal(sf_store_events_take_requests(e, got, 8), 0);
    assert_int_equal(sf_store_events_want_requests(e, NULL), SF_OK);
    assert_int_equal(sf_store_events_want_requests(e, NULL), SF_OK);
    assert_true(sf__store_events_want_requests(e));
    for (uint32_t i = 0; i < KEPT + 10; i++) {
        one.attempts = i + 1;
        sf__store_events_note_request(e, SF_STORE_GET, &one);
    }
    one.http_status = 0;
    sf__store_events_note_request(e, SF_STORE_GET, &one);
    one.http_status = 9999; /* whatever a server says */
    sf__store_events_note_request(e, SF_STORE_GET, &one);
    one.operation = "list";
    one.http_status = 503;
    sf__store_events_note_request(e, SF_STORE_LIST, &one);
    assert_int_equal(sf_store_events_take(e, none, 1), 0); /* they have queues of their own */
    assert_true(sf__store_events_any(e));
    for (size_t i = 0; i < KEPT; i++) {
        assert_int_equal(sf_store_events_take_requests(e, got, 1), 1);
        assert_int_equal(got[0].attempts, i + 1);
        assert_int_equal(got[0].duration_us, 5);
    }
    assert_int_equal(sf_store_events_take_requests(e, got, KEPT + 8), 3);
    assert_int_equal(got[0].count, 2); /* no status that there is */
    assert_int_equal(got[1].count, 10);
    assert_int_equal(got[1].bytes, 70);
    assert_int_equal(got[1].duration_us, -1);
    assert_string_equal(got[2].operation, "list");
    assert_int_equal(got[2].count, 1);
    assert_int_equal(got[2].duration_us, 5);
    assert_false(sf__store_events_any(e));
    sf__store_events_note_request(e, SF_STORE_LIST, &one); /* one by one again */
    assert_int_equal(sf_store_events_take_requests(e, got, KEPT), 1);
    sf_store_events_release(e);
}

struct noting {
    sf_store_events *e;
    size_t times;
};

static void *note_in_thread(void *arg)
{
    struct noting *n = arg;

    note_many(n->e, SF_STORE_RETRY, SF_STORE_GET, n->times);
    sf_store_events_release(n->e);
    return NULL;
}

static void none_is_lost_among_threads(void **state)
{
    sf_store_events *e = events_new();
    struct noting noting[3] = {{e, 20000}, {e, 20000}, {e, 20000}};
    pthread_t threads[3];
    sf_store_event got[16];
    uint64_t total = 0;
    size_t n;

    for (size_t i = 0; i < 3; i++) {
        sf_store_events_acquire(e);
        assert_int_equal(pthread_create(&threads[i], NULL, note_in_thread, &noting[i]), 0);
    }
    while (total < 50000)
        for (n = sf_store_events_take(e, got, 16); n > 0; n--)
            total += got[n - 1].count;
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    while ((n = sf_store_events_take(e, got, 16)) > 0)
        while (n > 0)
            total += got[--n].count;
    assert_int_equal(total, 60000);
    sf_store_events_release(e);
}

static void a_forked_child_hears_nothing(void **state)
{
    sf_store_events *e = events_new();
    sf_store_event got[2];
    int status;
    pid_t child;

    note_many(e, SF_STORE_RETRY, SF_STORE_GET, 1);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        sf__store_events_note(e, SF_STORE_RETRY, SF_STORE_GET, 1, 0);
        _exit(sf_store_events_take(e, got, 2) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(sf_store_events_take(e, got, 2), 1);
    sf_store_events_release(e);
}

/* Options hold a reference wherever they are copied to, also when that fails half-way. */
static void options_hold_them(void **state)
{
    struct test_heap heap;
    unsigned failures = 0;
    bool fired = true;

    heap_init(&heap);
    for (long n = 0; fired; n++) {
        sf_store_events *e = NULL;
        sf_s3_options o = SF_S3_OPTIONS_INIT;
        sf_s3_resolved *resolved = NULL;
        sf_store_event got[1];
        sf_status rc;

        o.region = "us-east-1";
        o.endpoint_url = "http://127.0.0.1:1";
        o.anonymous = true;
        heap_arm(&heap, n);
        rc = sf_store_events_new(&e, &heap.alloc, NULL);
        o.events = e;
        if (rc == SF_OK)
            rc = sf__s3_options_resolve(&resolved, &o, NULL, NULL, &heap.alloc, NULL);
        fired = heap_disarm(&heap);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        failures += fired;
        sf_store_events_release(e);
        if (!fired) {
            note_many(resolved->options.events, SF_STORE_RETRY, SF_STORE_GET, 1);
            assert_int_equal(sf_store_events_take(resolved->options.events, got, 1), 1);
        }
        sf__s3_resolved_free(resolved, &heap.alloc);
        assert_int_equal(heap_settle(&heap, 0), 0);
    }
    assert_true(failures > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(a_storm_is_counted),
        cmocka_unit_test(operations_are_told_apart_in_a_storm),
        cmocka_unit_test(operations_that_end),
        cmocka_unit_test(none_is_lost_among_threads),
        cmocka_unit_test(a_forked_child_hears_nothing),
        cmocka_unit_test(options_hold_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
