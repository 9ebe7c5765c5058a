/* A reader's whole life under faults: opening, look-ups, a scan, refreshes that move, stay and are overtaken by the
 * closing. The n-th allocation, then the n-th request of either store fails, until everything passes. A reader whose
 * refresh failed goes on as it was; nothing leaks, nothing hangs, no value is wrong. The same with eight threads that
 * read while one refreshes, and faults that never stop. */
#include "../../support/heap.h"
#include "world.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "fault_store.h"
#include "reader/load.h"
#include "reader/reader.h"
#include "store/hedge.h"

#define PATIENCE_MS 30000

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct trial {
    struct test_heap heap;
    struct world world;
    sf_source *source;
    fault_store *stores[2]; /* by sf_site_part; the source holds them */
    sf_status fault;        /* what may come out of it */
    bool failed;            /* something did */
};

/* Not under faults: the bucket has a store of its own. */
static void point_at(struct trial *t, unsigned run)
{
    long until = atomic_exchange(&t->heap.until_failure, -1);

    world_point_at_run(&t->world, run);
    atomic_store(&t->heap.until_failure, until);
}

/* How the readers of the present test open their shards. */
static sf_reader_options opening = SF_READER_OPTIONS_INIT;

/* Every answer is late, until so many were that the store counts as slow. */
static void hedge_anew(fault_store *f)
{
    sf__hedge_release(f->base.hedge);
    if (sf__hedge_new(&f->base.hedge, 1, 1, NULL, &sf__allocator_default, NULL) != SF_OK)
        abort();
}

static void anew_on_loop(void *arg)
{
    hedge_anew(arg);
}

static void wrap_stores(void *arg)
{
    struct trial *t = arg;

    for (size_t i = 0; i < t->source->site.store_count; i++) {
        struct site_store *s = &t->source->site.stores[i];
        fault_store *f = fault_store_new(s->store);

        fault_store_reset(f);
        if (opening.hedge_share > 0) /* which a reader keeps to S3 */
            hedge_anew(f);
        t->stores[s->part] = f;
        sf__store_release(s->store);
        s->store = &f->base;
    }
    t->source->site.store = &t->stores[SF_SITE_MANIFESTS]->base;
}

static void open_shard_store(void *arg)
{
    struct trial *t = arg;
    sf_store *store;
    char *path;

    if (sf__site_store(&t->source->site, SF_SITE_SHARDS, PREFIX, &store, &path, NULL) != SF_OK)
        abort();
    sf__free(t->world.rt->alloc, path);
}

static int opening_hedged(void **state)
{
    (void)state;
    opening.hedge_share = 0.5;
    return 0;
}

static int opening_lazily(void **state)
{
    (void)state;
    opening.lazy_shards = true;
    return 0;
}

static int opening_one_at_a_time(void **state)
{
    (void)state;
    opening.open_concurrency = 1;
    return 0;
}

static int opening_as_usual(void **state)
{
    (void)state;
    opening = (sf_reader_options)SF_READER_OPTIONS_INIT;
    return 0;
}

static void begin_with_cache(struct trial *t, sf_status fault, uint64_t cache_bytes)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;

    *t = (struct trial){.fault = fault};
    heap_init(&t->heap);
    o.allocator = &t->heap.alloc;
    o.cache_bytes = cache_bytes;
    world_open(&t->world, &o);
    point_at(t, 0);
    assert_int_equal(sf__source_new(&t->source, t->world.rt, PREFIX, &opening, NULL), SF_OK);
    on_loop(t->world.rt->loop, open_shard_store, t);
    on_loop(t->world.rt->loop, wrap_stores, t);
}

static void begin(struct trial *t, sf_status fault)
{
    begin_with_cache(t, fault, 0); /* so that look-ups ask the store, every time */
}

static void end(struct trial *t)
{
    long left;

    heap_disarm(&t->heap);
    sf__source_release(t->source);
    world_close(&t->world);
    if ((left = heap_settle(&t->heap, 0)) != 0)
        fail_msg("%ld allocations are left", left);
}

/* ------------------------------------------------------------------ one life ------------------------------------- */

static bool went_well(struct trial *t, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if (rc != t->fault || e->message[0] == '\0')
        fail_msg("%s: %s: %s", what, sf_status_name(rc), e->message);
    t->failed = true;
    return false;
}

struct loading {
    struct trial *t;
    sf_load load;
    struct gate gate;
};

static void loaded(sf_load *l)
{
    gate_arrive(&((struct loading *)l->ctx)->gate);
}

static void load_on_loop(void *arg)
{
    struct loading *l = arg;

    l->load = (sf_load){.source = l->t->source, .deadline_ns = SF_NO_DEADLINE, .done = loaded, .ctx = l};
    if (!sf__load_start(&l->load)) {
        sf_fail(&l->load.error, SF_NOMEM, "start of a load");
        gate_arrive(&l->gate);
    }
}

static sf_reader *open_reader(struct trial *t)
{
    struct loading l = {.t = t, .gate = GATE_INIT};
    sf_reader *r = NULL;

    on_loop(t->world.rt->loop, load_on_loop, &l);
    gate_wait(&l.gate, 1);
    if (went_well(t, "load", l.load.error.code, &l.load.error)) {
        sf_error e = SF_ERROR_INIT;

        went_well(t, "reader",
                  sf__reader_new(&r, t->world.rt, t->source, l.load.snapshot, l.load.fallback, sf__clock_mono_ns(), &e),
                  &e);
    } else {
        assert_null(l.load.snapshot);
    }
    sf__load_cleanup(&l.load, t->source->alloc);
    return sf__reader_hand_out(r);
}

/* Of the three runs: key -> value begins with the run's name. */
static void check_gets(struct trial *t, sf_reader *r, const char *run)
{
    sf_key keys[40];
    sf_value values[40] = {0};
    sf_error e = SF_ERROR_INIT;
    unsigned found = 0;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    if (went_well(t, "multi_get", sf_reader_multi_get(r, keys, 40, PATIENCE_MS, values, &e), &e)) {
        for (unsigned i = 0; i < 40; i++) {
            found += values[i].found;
            if (values[i].found && (values[i].bytes.n < 4 || memcmp(values[i].bytes.p, run, 4) != 0))
                fail_msg("key %u: a value of another run than %s", i, run);
        }
        assert_true(found > 0);
    }
    for (unsigned i = 0; i < 40; i++)
        sf_value_release(&values[i]);
}

/* Key by key: what memory has, then the rest. */
static void check_asks(struct trial *t, sf_reader *r, const char *run)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_call *call = NULL;
    sf_error e = SF_ERROR_INIT;
    sf_value *values;
    size_t added = 0, count;

    assert_non_null(s);
    for (unsigned i = 0; i < 40; i++) {
        sf_key key = sf_key_int(i);
        sf_value v = {0};
        sf_status rc = sf_snapshot_ask(s, &key, PATIENCE_MS, &v, &call, &e);

        added += rc == SF_WOULD_BLOCK;
        if (rc != SF_WOULD_BLOCK)
            went_well(t, "ask", rc, &e);
        sf_value_release(&v);
    }
    sf_snapshot_give_back(s);
    if (!call) {
        assert_int_equal(added, 0);
        return;
    }
    sf_call_begin(call, NULL, NULL);
    if (went_well(t, "asked", sf_call_wait(call, &e), &e)) {
        values = sf_call_values(call, &count);
        assert_int_equal(count, added);
        for (size_t i = 0; i < count; i++)
            if (values[i].found && (values[i].bytes.n < 4 || memcmp(values[i].bytes.p, run, 4) != 0))
                fail_msg("key %zu of those asked for: a value of another run than %s", i, run);
    }
    sf_call_release(call);
}

static void check_scan(struct trial *t, sf_reader *r, const char *run)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows = NULL;
    size_t count = 0;

    assert_non_null(s);
    o.limit = 20;
    if (went_well(t, "scan_open", sf_scan_open(&scan, s, &o, &e), &e)) {
        do {
            count = 0;
            if (!went_well(t, "scan_next", sf_scan_next(scan, 8, PATIENCE_MS, &rows, &count, &e), &e))
                break;
            for (size_t i = 0; i < count; i++)
                assert_true(rows[i].value.n >= 4 && memcmp(rows[i].value.p, run, 4) == 0);
        } while (count > 0);
        sf_scan_close(scan);
    }
    sf_snapshot_give_back(s);
}

/* The run that the reader serves afterwards: a failed refresh changes nothing. */
static unsigned check_refresh(struct trial *t, sf_reader *r, unsigned before, unsigned wanted)
{
    bool changed = false;
    sf_error e = SF_ERROR_INIT;

    point_at(t, wanted);
    if (!went_well(t, "refresh", sf_reader_refresh(r, PATIENCE_MS, &changed, &e), &e)) {
        assert_false(changed);
        return before;
    }
    assert_int_equal(changed, before != wanted);
    return wanted;
}

/* Closing does not wait for what is in flight, and what is in flight ends. */
static void close_under_fire(struct trial *t, sf_reader *r)
{
    sf_call *calls[4] = {NULL};
    sf_key key = sf_key_int(4);
    sf_error e = SF_ERROR_INIT;

    point_at(t, 0);
    went_well(t, "start", sf_reader_refresh_start(&calls[0], r, PATIENCE_MS, NULL, NULL, &e), &e);
    went_well(t, "start", sf_reader_get_start(&calls[1], r, &key, PATIENCE_MS, NULL, NULL, &e), &e);
    went_well(t, "start", sf_reader_refresh_start(&calls[2], r, PATIENCE_MS, NULL, NULL, &e), &e);
    went_well(t, "start", sf_reader_moved_start(&calls[3], r, "another", NULL, NULL, &e), &e);
    sf_reader_free(r);
    if (calls[2])
        sf_call_cancel(calls[2]);
    for (unsigned i = 0; i < 4; i++) {
        sf_status rc = calls[i] ? sf_call_wait(calls[i], &e) : SF_OK;

        if (rc != SF_STATE && rc != SF_CANCELLED)
            went_well(t, "call in flight", rc, &e);
        sf_call_release(calls[i]);
    }
}

static void live(struct trial *t)
{
    static const char *const runs[] = {"run0", "run1", "run2"};
    sf_reader *r = open_reader(t);
    unsigned run = 0;

    if (!r)
        return;
    check_gets(t, r, runs[run]);
    check_asks(t, r, runs[run]);
    check_scan(t, r, runs[run]);
    run = check_refresh(t, r, run, 2);
    check_gets(t, r, runs[run]);
    run = check_refresh(t, r, run, run);
    run = check_refresh(t, r, run, 1);
    check_scan(t, r, runs[run]);
    close_under_fire(t, r);
}

/* ------------------------------------------------------------------ faults --------------------------------------- */

static void every_failed_allocation_is_survived(void **state)
{
    bool fired = true;
    unsigned failures = 0;

    for (long n = 0; fired; n += TEST_STEP * (n < 200 ? 1 : 1 + n / 64)) {
        struct trial t;

        begin(&t, SF_NOMEM);
        heap_arm(&t.heap, n);
        live(&t);
        fired = heap_disarm(&t.heap);
        failures += t.failed;
        if (!fired)
            assert_false(t.failed);
        end(&t);
        assert_true(n < 100000);
    }
    assert_true(failures * TEST_STEP > 50);
}

/* For want of memory a key is not added to a look-up that has others: then it has no answer there either. */
static void a_key_that_is_not_added_has_no_answer(void **state)
{
    sf_key keys[] = {sf_key_int(4), sf_key_int(-1), sf_key_int(5)}; /* the second has no stored form */
    bool fired = true;

    for (long n = 0; fired; n += TEST_STEP) {
        struct trial t;
        sf_reader *r;
        sf_snapshot *s;
        sf_call *call = NULL;
        sf_value v, expected = {0}, *got;
        size_t added = 0, count;

        begin(&t, SF_NOMEM);
        r = open_reader(&t);
        s = sf_reader_borrow(r, NULL);
        while (sf_reader_get(r, &keys[2], PATIENCE_MS, &expected, NULL) == SF_OK && !expected.found)
            keys[2].i++;
        for (unsigned i = 0; i < 3; i++) {
            sf_status rc;

            if (i == 1)
                heap_arm(&t.heap, n);
            rc = sf_snapshot_ask(s, &keys[i], PATIENCE_MS, &v, &call, NULL);
            if (i == 1)
                fired = heap_disarm(&t.heap);
            if (rc != SF_WOULD_BLOCK)
                assert_true(i == 1 && fired && rc == SF_NOMEM);
            added += rc == SF_WOULD_BLOCK;
        }
        sf_call_begin(call, NULL, NULL);
        sf_call_wait(call, NULL);
        got = sf_call_values(call, &count);
        assert_int_equal(count, added);
        assert_int_equal(sf_call_statuses(call)[count - 1], SF_OK);
        assert_true(got[count - 1].found && sf_bytes_eq(expected.bytes, got[count - 1].bytes));
        sf_value_release(&expected);
        sf_call_release(call);
        sf_snapshot_give_back(s);
        sf_reader_free(r);
        end(&t);
    }
}

/* Of keys that are asked for together some are in memory, some are not, one has no stored form; when memory for those ends, nothing is
 * left of the others. */
static void keys_that_are_asked_for_together_fail_together(void **state)
{
    enum { ASKED = 40, WARM = 7, WITHOUT_FORM = 21 };
    bool fired = true;
    unsigned failures = 0;

    for (long n = TEST_STEP > 1; fired; n += TEST_STEP) { /* without room for copies of values, the first one, look-ups do */
        sf_value values[ASKED] = {{0}}, warm[WARM] = {{0}};
        sf_status statuses[ASKED], rc;
        sf_key keys[ASKED];
        sf_call *call = NULL;
        size_t added = 0, count;
        sf_snapshot *s;
        sf_reader *r;
        struct trial t;

        begin_with_cache(&t, SF_NOMEM, 1u << 20);
        r = open_reader(&t);
        s = sf_reader_borrow(r, NULL);
        for (unsigned i = 0; i < ASKED; i++)
            keys[i] = sf_key_int(i == WITHOUT_FORM ? -1 : (int64_t)i);
        assert_int_equal(sf_reader_multi_get(r, keys, WARM, PATIENCE_MS, warm, NULL), SF_OK);
        heap_arm(&t.heap, n);
        rc = sf_snapshot_ask_many(s, keys, ASKED, PATIENCE_MS, values, statuses, &call, NULL);
        fired = heap_disarm(&t.heap);
        if (rc == SF_NOMEM) {
            assert_true(fired);
            assert_null(call);
            failures++;
        } else {
            assert_int_equal(rc, SF_WOULD_BLOCK); /* for the one without form, if for nothing else */
            for (unsigned i = 0; i < ASKED; i++) {
                added += statuses[i] == SF_WOULD_BLOCK;
                assert_true(statuses[i] == SF_OK || (statuses[i] == SF_WOULD_BLOCK && !values[i].found));
                assert_true(i >= WARM || (statuses[i] == SF_OK && sf_bytes_eq(values[i].bytes, warm[i].bytes)));
                sf_value_release(&values[i]);
            }
            sf_call_begin(call, NULL, NULL);
            assert_int_equal(sf_call_wait(call, NULL), SF_INVALID);
            sf_call_values(call, &count);
            assert_int_equal(count, added);
            sf_call_release(call);
        }
        for (unsigned i = 0; i < WARM; i++)
            sf_value_release(&warm[i]);
        sf_snapshot_give_back(s);
        sf_reader_free(r);
        end(&t);
    }
    assert_true(failures > 0);
}

static void every_failed_request_is_survived(void **state)
{
    for (int kind = 0; kind < 2; kind++) {
        bool fired = true;
        unsigned failures = 0;
        unsigned long n;

        for (n = 1; fired; n += TEST_STEP) {
            struct trial t;

            begin(&t, SF_UNAVAILABLE);
            t.stores[kind]->kind = FAULT_REFUSE;
            t.stores[kind]->status = SF_UNAVAILABLE;
            t.stores[kind]->at = n;
            live(&t);
            fired = t.stores[kind]->fired;
            failures += t.failed;
            if (!fired)
                assert_false(t.failed);
            end(&t);
            assert_true(n < 1000);
        }
        assert_true(failures * TEST_STEP > 3);
    }
}

/* ------------------------------------------------------------------ calls whose answer does not come -------------- */

enum held_call { HELD_GET, HELD_MULTI_GET, HELD_SCAN, HELD_REFRESH, HELD_CALLS, HELD_SHARD };

struct holding {
    struct trial t;
    fault_store *store;
    fault_kind kind;
    sf_cancel_flag held;
    int64_t open_timeout_ms;
};

static void set_fault(void *arg)
{
    struct holding *h = arg;

    h->store->kind = h->kind;
    h->store->status = SF_UNAVAILABLE;
    h->store->at = h->store->requests + 1;
    h->store->on_hold = &h->held;
}

static void plan_fault(struct holding *h, sf_site_part which, fault_kind kind)
{
    h->store = h->t.stores[which];
    h->kind = kind;
    atomic_store(&h->held, false);
    on_loop(h->t.world.rt->loop, set_fault, h);
}

static void wait_until_held(struct holding *h)
{
    while (!atomic_load(&h->held))
        sched_yield(); /* until the test's own timeout: the request is on its way */
}

static void hold_two_later(void *arg)
{
    ((struct holding *)arg)->store->at += 2;
}

static sf_call *start_held(struct holding *h, enum held_call which, sf_reader *r, sf_scan *scan, int64_t timeout_ms)
{
    sf_key keys[40];
    sf_call *call = NULL;
    sf_status rc;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    plan_fault(h, which == HELD_REFRESH ? SF_SITE_MANIFESTS : SF_SITE_SHARDS, FAULT_HOLD);
    switch (which) {
    case HELD_SHARD: /* the manifest that two listings found: the opening's own deadline ends that read */
        on_loop(h->t.world.rt->loop, hold_two_later, h);
        rc = sf_reader_get_start(&call, r, &keys[4], timeout_ms, NULL, NULL, NULL);
        break;
    case HELD_GET:
        rc = sf_reader_get_start(&call, r, &keys[4], timeout_ms, NULL, NULL, NULL);
        break;
    case HELD_MULTI_GET:
        rc = sf_reader_multi_get_start(&call, r, keys, 40, timeout_ms, NULL, NULL, NULL);
        break;
    case HELD_SCAN:
        rc = sf_scan_next_start(&call, scan, 8, timeout_ms, NULL, NULL, NULL);
        break;
    default:
        rc = sf_reader_refresh_start(&call, r, timeout_ms, NULL, NULL, NULL);
        break;
    }
    assert_int_equal(rc, SF_OK);
    return call;
}

static void expect_end(sf_call *call, sf_status expected)
{
    sf_error e = SF_ERROR_INIT;

    assert_int_equal(sf_call_wait(call, &e), expected);
    assert_true(e.message[0] != '\0');
    sf_call_release(call);
}

static void held_calls_end_when_told_and_in_time(void **state)
{
    for (int which = 0; which < HELD_CALLS; which++) {
        for (int cancelled = 0; cancelled < 2; cancelled++) {
            struct holding h = {.store = NULL};
            sf_scan_options o = SF_SCAN_OPTIONS_INIT;
            sf_snapshot *pinned;
            sf_scan *scan = NULL;
            sf_reader *r;
            sf_call *call;

            begin(&h.t, SF_OK);
            r = open_reader(&h.t);
            pinned = sf_reader_borrow(r, NULL);
            assert_int_equal(sf_scan_open(&scan, pinned, &o, NULL), SF_OK);
            call = start_held(&h, which, r, scan, cancelled ? PATIENCE_MS : 30);
            if (cancelled) {
                wait_until_held(&h);
                assert_false(sf_call_is_done(call));
                if (which == HELD_SCAN) { /* one step at a time */
                    sf_call *second = NULL;

                    assert_int_equal(sf_scan_next_start(&second, scan, 8, PATIENCE_MS, NULL, NULL, NULL), SF_STATE);
                }
                sf_call_cancel(call);
            }
            expect_end(call, cancelled ? SF_CANCELLED : SF_TIMEOUT);
            sf_scan_close(scan); /* until then, what a step asked for may yet serve the next one */
            sf_snapshot_give_back(pinned);
            plan_fault(&h, SF_SITE_SHARDS, FAULT_NONE);
            check_gets(&h.t, r, "run0"); /* as if nothing had happened */
            sf_reader_free(r);
            end(&h.t);
        }
    }
}

/* The first request for a block never comes back, the second one does. */
static void a_second_request_saves_a_read(void **state)
{
    struct holding h = {.store = NULL};
    sf_hedge_stats stats;
    sf_reader *r;

    begin(&h.t, SF_OK);
    r = open_reader(&h.t);
    on_loop(h.t.world.rt->loop, anew_on_loop, h.t.stores[SF_SITE_SHARDS]);
    plan_fault(&h, SF_SITE_SHARDS, FAULT_HOLD);
    check_gets(&h.t, r, "run0");
    assert_true(atomic_load(&h.held));
    sf__hedge_get_stats(h.store->base.hedge, &stats);
    assert_true(stats.won >= 1 && stats.sent >= 1);
    sf_reader_free(r);
    end(&h.t);
}

static void expect_step(sf_scan *scan)
{
    const sf_row *rows;
    size_t count = 0;
    sf_error e = SF_ERROR_INIT;

    if (sf_scan_next(scan, 8, PATIENCE_MS, &rows, &count, &e) != SF_OK)
        fail_msg("step of a scan: %s", e.message);
    assert_int_equal(count, 8);
    sf_scan_close(scan);
}

static void set_open_timeout(void *arg)
{
    struct holding *h = arg;

    h->t.source->open_timeout_ms = h->open_timeout_ms;
}

static void open_in(struct holding *h, int64_t timeout_ms)
{
    h->open_timeout_ms = timeout_ms;
    on_loop(h->t.world.rt->loop, set_open_timeout, h);
}

/* A shard is opened by the first read; whoever waits for it ends when told and in time, and leaves it to the others. An opening
 * that fails is made anew. */
static void reads_that_wait_for_a_shard(void **state)
{
    struct holding h = {.store = NULL};
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_call *first, *late, *cancelled, *step;
    sf_snapshot *pinned;
    sf_scan *scans[2];
    sf_reader *r;
    sf_value value = {0};
    sf_key key = sf_key_int(4);

    begin(&h.t, SF_OK);
    open_in(&h, 1000);
    r = open_reader(&h.t);
    assert_int_equal(h.t.stores[SF_SITE_SHARDS]->requests, 0);
    pinned = sf_reader_borrow(r, NULL);
    assert_int_equal(sf_snapshot_route(pinned, &key, &o.db_id, NULL), SF_OK);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(sf_scan_open(&scans[i], pinned, &o, NULL), SF_OK);
    assert_int_equal(sf_reader_try_get(r, &key, &value, NULL), SF_WOULD_BLOCK);
    first = start_held(&h, HELD_SHARD, r, NULL, PATIENCE_MS);
    assert_int_equal(sf_reader_get_start(&late, r, &key, 0, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_reader_get_start(&cancelled, r, &key, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_scan_next_start(&step, scans[0], 8, 0, NULL, NULL, NULL), SF_OK);
    sf_call_cancel(cancelled);
    expect_end(late, SF_TIMEOUT);
    expect_end(cancelled, SF_CANCELLED);
    expect_end(step, SF_TIMEOUT);
    expect_end(first, SF_TIMEOUT); /* the opening's own time is over, perhaps before its request was held */
    plan_fault(&h, SF_SITE_SHARDS, FAULT_NONE);
    open_in(&h, PATIENCE_MS);
    expect_step(scans[0]);
    expect_step(scans[1]);
    check_gets(&h.t, r, "run0");
    sf_snapshot_give_back(pinned);
    sf_reader_free(r);
    end(&h.t);
}

/* What nobody will read any more is not opened to the end: who closes all need not wait for it. */
static void an_opening_without_a_reader_is_called_back(void **state)
{
    struct holding h = {.store = NULL};
    uint64_t begun_ns = sf__clock_mono_ns();
    sf_call *call;
    sf_reader *r;

    begin(&h.t, SF_OK);
    h.t.source->open_timeout_ms = 60000;
    r = open_reader(&h.t);
    call = start_held(&h, HELD_SHARD, r, NULL, PATIENCE_MS);
    wait_until_held(&h);
    sf_call_cancel(call);
    expect_end(call, SF_CANCELLED);
    sf_reader_free(r);
    end(&h.t);
    assert_true(sf__clock_mono_ns() - begun_ns < UINT64_C(50000000000));
}

/* Refreshes run one after the other: those that wait for their turn end without it. */
static void refreshes_that_wait_for_another_end(void **state)
{
    struct holding h = {.store = NULL};
    sf_call *calls[4] = {NULL};
    sf_reader *r;
    bool changed;

    begin(&h.t, SF_OK);
    r = open_reader(&h.t);
    calls[0] = start_held(&h, HELD_REFRESH, r, NULL, PATIENCE_MS);
    wait_until_held(&h);
    plan_fault(&h, SF_SITE_MANIFESTS, FAULT_NONE);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(sf_reader_refresh_start(&calls[i], r, i == 1 ? 20 : PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    expect_end(calls[1], SF_TIMEOUT);
    sf_call_cancel(calls[2]);
    expect_end(calls[2], SF_CANCELLED);
    point_at(&h.t, 2);
    assert_false(sf_call_is_done(calls[3]));
    sf_call_cancel(calls[0]);
    expect_end(calls[0], SF_CANCELLED);
    assert_int_equal(sf_call_wait(calls[3], NULL), SF_OK); /* its turn has come */
    assert_true(sf_call_changed(calls[3]));
    sf_call_release(calls[3]);
    check_gets(&h.t, r, "run2");
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_false(changed);
    sf_reader_free(r);
    end(&h.t);
}

/* One request of a look-up in many shards fails: which keys have no answer, and why, is told. */
static void failures_are_told_by_key_and_by_shard(void **state)
{
    struct holding h = {.store = NULL};
    sf_error e = SF_ERROR_INIT;
    sf_key keys[40];
    sf_call *call = NULL;
    const sf_status *statuses;
    const sf_error *errors;
    size_t count, error_count, failed = 0;
    sf_snapshot *s;
    sf_reader *r;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    begin(&h.t, SF_OK);
    r = open_reader(&h.t);
    s = sf_reader_borrow(r, NULL);
    plan_fault(&h, SF_SITE_SHARDS, FAULT_REFUSE);
    assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 40, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(call, &e), SF_UNAVAILABLE);
    statuses = sf_call_statuses(call);
    errors = sf_call_shard_errors(call, &error_count);
    assert_non_null(sf_call_values(call, &count));
    assert_int_equal(count, 40);
    assert_int_equal(error_count, 1);
    assert_int_equal(errors[0].code, SF_UNAVAILABLE);
    for (unsigned i = 0; i < 40; i++) {
        uint32_t db_id;

        assert_int_equal(sf_snapshot_route(s, &keys[i], &db_id, NULL), SF_OK);
        assert_true(statuses[i] == SF_OK || (statuses[i] == SF_UNAVAILABLE && (int32_t)db_id == errors[0].db_id));
        failed += statuses[i] != SF_OK;
    }
    assert_true(failed > 0 && failed < 40);
    sf_call_release(call);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
    end(&h.t);
}

/* ------------------------------------------------------------------ threads under faults ------------------------- */

#define SIEGE_KEYS 120
#define SIEGE_BATCH 12
#define SIEGE_THREADS 8
#define SIEGE_SWITCHES 200

struct siege {
    struct trial t; /* here, and so on no stack that a failed test leaves */
    sf_reader *r;
    bool cached;
    sf_value rows[3][SIEGE_KEYS]; /* what each run answers; not changed while threads run */
    atomic_bool over;
    atomic_uint right, faulted, wrong;
    char first_wrong[512]; /* whoever made `wrong` 1; read after the threads have gone */
    unsigned seed;         /* of the faults */
};

struct besieger {
    pthread_t thread;
    struct siege *s;
    unsigned number;
};

/* No assertions here: cmocka leaves a failed one by longjmp, which ends on another thread's stack. */
static void siege_wrong(struct siege *s, const char *what, sf_status rc, const char *message)
{
    if (atomic_fetch_add(&s->wrong, 1) == 0)
        snprintf(s->first_wrong, sizeof(s->first_wrong), "%s: %s: %.300s", what, sf_status_name(rc), message);
}

/* True when there is a result to look at. What faults may cause is counted; anything else is wrong. */
static bool siege_went_well(struct siege *s, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if ((rc == SF_UNAVAILABLE || rc == SF_CORRUPT || rc == SF_IO) && e->message[0] != '\0')
        atomic_fetch_add(&s->faulted, 1);
    else
        siege_wrong(s, what, rc, e->message);
    return false;
}

static bool same_value(const sf_value *a, const sf_value *b)
{
    return a->found == b->found && a->bytes.n == b->bytes.n &&
           (a->bytes.n == 0 || memcmp(a->bytes.p, b->bytes.p, a->bytes.n) == 0);
}

/* One snapshot answers a whole batch. */
static void siege_check(struct siege *s, const char *what, const sf_key *keys, const sf_value *values, size_t count)
{
    for (unsigned run = 0; run < 3; run++) {
        size_t i = 0;

        while (i < count && same_value(&values[i], &s->rows[run][keys[i].i]))
            i++;
        if (i == count) {
            atomic_fetch_add(&s->right, 1);
            return;
        }
    }
    siege_wrong(s, what, SF_OK, "values of no run, or of several");
}

static void siege_multi_get(struct siege *s, const sf_key *keys)
{
    sf_value values[SIEGE_BATCH] = {0};
    sf_error e = SF_ERROR_INIT;

    if (siege_went_well(s, "multi_get", sf_reader_multi_get(s->r, keys, SIEGE_BATCH, PATIENCE_MS, values, &e), &e))
        siege_check(s, "multi_get", keys, values, SIEGE_BATCH);
    for (size_t i = 0; i < SIEGE_BATCH; i++)
        sf_value_release(&values[i]);
}

static void siege_get(struct siege *s, const sf_key *keys)
{
    sf_value value = {0};
    sf_error e = SF_ERROR_INIT;

    if (siege_went_well(s, "get", sf_reader_get(s->r, keys, PATIENCE_MS, &value, &e), &e))
        siege_check(s, "get", keys, &value, 1);
    sf_value_release(&value);
}

/* A pinned snapshot answers as it was, wherever the reader has gone. */
static void siege_pinned(struct siege *s, const sf_key *keys)
{
    sf_snapshot *pinned = sf_reader_borrow(s->r, NULL);
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;

    if (siege_went_well(s, "pinned",
                        sf_snapshot_multi_get_start(&call, pinned, keys, SIEGE_BATCH, PATIENCE_MS, NULL, NULL, &e), &e)) {
        if (siege_went_well(s, "pinned", sf_call_wait(call, &e), &e)) {
            size_t count = 0;
            const sf_value *values = sf_call_values(call, &count);

            siege_check(s, "pinned", keys, values, count);
        }
        sf_call_release(call);
    }
    sf_snapshot_give_back(pinned);
}

static void siege_scan(struct siege *s)
{
    sf_snapshot *pinned = sf_reader_borrow(s->r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows = NULL;
    size_t count = 0;
    char run[4];

    o.limit = 30;
    if (siege_went_well(s, "scan", sf_scan_open(&scan, pinned, &o, &e), &e)) {
        bool first = true, good = true;

        while (siege_went_well(s, "scan", sf_scan_next(scan, 8, PATIENCE_MS, &rows, &count, &e), &e) && count > 0) {
            for (size_t i = 0; i < count; i++) {
                good &= rows[i].value.n >= 4 && memcmp(rows[i].value.p, first ? "run" : run, first ? 3 : 4) == 0;
                if (first && good)
                    memcpy(run, rows[i].value.p, 4);
                first = false;
            }
        }
        if (!good)
            siege_wrong(s, "scan", SF_OK, "values of several runs");
        sf_scan_close(scan);
    }
    sf_snapshot_give_back(pinned);
}

static void *besiege(void *arg)
{
    struct besieger *b = arg;
    unsigned random = b->number + 1;

    for (unsigned turn = b->number; !atomic_load(&b->s->over); turn++) {
        sf_key keys[SIEGE_BATCH];

        for (size_t i = 0; i < SIEGE_BATCH; i++)
            keys[i] = sf_key_int(rand_r(&random) % SIEGE_KEYS);
        switch (turn % 4) {
        case 0:
            siege_multi_get(b->s, keys);
            break;
        case 1:
            siege_get(b->s, keys);
            break;
        case 2:
            siege_pinned(b->s, keys);
            break;
        default:
            siege_scan(b->s);
            break;
        }
    }
    return NULL;
}

/* On the loop thread, where the stores read it: the next fault of each. */
static void siege_plan(void *arg)
{
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE, FAULT_SHORT, FAULT_BREAK, FAULT_NONE, FAULT_REORDER};
    struct siege *s = arg;
    /* out of order only where there is always a later request: pointer and manifests have none but the refresh's, and when
     * all wait for one opening there is none either */
    unsigned of_shards = s->cached || opening.lazy_shards ? 5 : 6;

    if (opening.hedge_share > 0)
        hedge_anew(s->t.stores[SF_SITE_SHARDS]);
    for (int i = 0; i < 2; i++) {
        fault_store *f = s->t.stores[i];

        f->kind = kinds[(unsigned)rand_r(&s->seed) % (i == SF_SITE_SHARDS ? of_shards : 5)];
        f->status = SF_UNAVAILABLE;
        f->at = f->requests + 1 + (unsigned)rand_r(&s->seed) % 6;
        f->times = 1 + (unsigned)rand_r(&s->seed) % 3;
    }
}

static void siege_plan_nothing(void *arg)
{
    struct siege *s = arg;

    for (int i = 0; i < 2; i++)
        s->t.stores[i]->kind = FAULT_NONE;
}

/* No fault is planned: it must work. */
static void siege_move(struct siege *s, unsigned run)
{
    bool changed;
    sf_error e = SF_ERROR_INIT;

    point_at(&s->t, run);
    if (sf_reader_refresh(s->r, PATIENCE_MS, &changed, &e) != SF_OK)
        fail_msg("refresh to run %u: %s", run, e.message);
}

static void siege_learn(struct siege *s)
{
    sf_key keys[SIEGE_KEYS];
    unsigned found = 0;

    for (unsigned i = 0; i < SIEGE_KEYS; i++)
        keys[i] = sf_key_int(i);
    for (unsigned run = 0; run < 3; run++) {
        siege_move(s, run);
        assert_int_equal(sf_reader_multi_get(s->r, keys, SIEGE_KEYS, PATIENCE_MS, s->rows[run], NULL), SF_OK);
        for (unsigned i = 0; i < SIEGE_KEYS; i++) {
            const sf_value *v = &s->rows[run][i];

            found += v->found;
            assert_true(!v->found || (v->bytes.n >= 4 && v->bytes.p[3] == '0' + run));
        }
    }
    assert_true(found > SIEGE_KEYS);
}

/* Refreshes, most of which some fault meets, until the reader has moved so many times. */
static void siege_refresh(struct siege *s)
{
    unsigned switches = 0, refused = 0;

    while (switches < SIEGE_SWITCHES && atomic_load(&s->wrong) == 0) {
        bool changed = false;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        on_loop(s->t.world.rt->loop, siege_plan, s);
        point_at(&s->t, (switches + 1) % 3);
        rc = sf_reader_refresh(s->r, PATIENCE_MS, &changed, &e);
        if (rc != SF_BAD_MANIFEST) /* a pointer that was cut short */
            siege_went_well(s, "refresh", rc, &e);
        switches += changed;
        refused += !changed;
        assert_true(refused < 20 * SIEGE_SWITCHES);
    }
    assert_true(refused > 0 || atomic_load(&s->wrong) > 0);
}

static void nothing(void *arg) {}

static void lay_siege(uint64_t cache_bytes)
{
    struct besieger besiegers[SIEGE_THREADS];
    struct siege *s = calloc(1, sizeof(*s));
    sf_reader_health health;
    long before, after;

    assert_non_null(s);
    begin_with_cache(&s->t, SF_OK, cache_bytes);
    s->cached = cache_bytes > 0;
    s->seed = 1;
    s->r = open_reader(&s->t);
    siege_learn(s);
    siege_move(s, 0);
    on_loop(s->t.world.rt->loop, nothing, NULL); /* what was posted to it before is done */
    before = atomic_load(&s->t.heap.live);
    for (unsigned i = 0; i < SIEGE_THREADS; i++) {
        besiegers[i] = (struct besieger){.s = s, .number = i};
        assert_int_equal(pthread_create(&besiegers[i].thread, NULL, besiege, &besiegers[i]), 0);
    }
    siege_refresh(s);
    on_loop(s->t.world.rt->loop, siege_plan_nothing, s);
    for (unsigned i = 0; i < 3; i++)
        siege_move(s, i); /* whose requests end what waits for later ones */
    atomic_store(&s->over, true);
    for (unsigned i = 0; i < SIEGE_THREADS; i++)
        pthread_join(besiegers[i].thread, NULL);
    if (atomic_load(&s->wrong) > 0)
        fail_msg("%u times wrong, first %s", atomic_load(&s->wrong), s->first_wrong);
    assert_true(atomic_load(&s->right) > SIEGE_SWITCHES);
    assert_true(atomic_load(&s->faulted) > 0);
    siege_move(s, 0);
    on_loop(s->t.world.rt->loop, nothing, NULL);
    sf_reader_get_health(s->r, -1, SF_STALENESS_OF_READER, &health);
    assert_int_equal(health.borrowed, 0);
    /* every old snapshot is closed: not one allocation more than before; a cache keeps what it likes, and of shards that are
     * opened when they are read there may be fewer */
    if (cache_bytes == 0 && !opening.lazy_shards && (after = heap_settle(&s->t.heap, before)) != before)
        fail_msg("%ld allocations before, %ld after", before, after);
    for (unsigned run = 0; run < 3; run++)
        for (unsigned i = 0; i < SIEGE_KEYS; i++)
            sf_value_release(&s->rows[run][i]);
    sf_reader_free(s->r);
    end(&s->t);
    free(s);
}

static void threads_and_a_refresher_under_faults(void **state)
{
    lay_siege(0);
}

static void threads_and_a_refresher_over_a_small_cache(void **state)
{
    lay_siege(UINT64_C(1) << 16); /* hits, misses and evictions */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_calls_end_when_told_and_in_time),
        cmocka_unit_test(refreshes_that_wait_for_another_end),
        cmocka_unit_test(failures_are_told_by_key_and_by_shard),
        cmocka_unit_test(threads_and_a_refresher_under_faults),
        cmocka_unit_test(threads_and_a_refresher_over_a_small_cache),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(a_key_that_is_not_added_has_no_answer),
        cmocka_unit_test(keys_that_are_asked_for_together_fail_together),
        cmocka_unit_test(every_failed_request_is_survived),
        cmocka_unit_test_setup_teardown(reads_that_wait_for_a_shard, opening_lazily, opening_as_usual),
        cmocka_unit_test_setup_teardown(an_opening_without_a_reader_is_called_back, opening_lazily, opening_as_usual),
        cmocka_unit_test_setup_teardown(threads_and_a_refresher_under_faults, opening_lazily, opening_as_usual),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, opening_lazily, opening_as_usual),
        cmocka_unit_test_setup_teardown(every_failed_request_is_survived, opening_lazily, opening_as_usual),
        cmocka_unit_test_setup_teardown(every_failed_request_is_survived, opening_one_at_a_time, opening_as_usual),
        cmocka_unit_test_setup_teardown(a_second_request_saves_a_read, opening_hedged, opening_as_usual),
        cmocka_unit_test_setup_teardown(threads_and_a_refresher_under_faults, opening_hedged, opening_as_usual),
        cmocka_unit_test_setup_teardown(every_failed_allocation_is_survived, opening_hedged, opening_as_usual),
        cmocka_unit_test_setup_teardown(every_failed_request_is_survived, opening_hedged, opening_as_usual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
