/* Calls one by one: what a batch says about each key and shard, refreshes that wait for each other, steps of a scan,
 * getters of other calls. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/call.h"
#include "runtime/runtime.h"

#define PATIENCE_MS 30000

/* ------------------------------------------------------------------ batches -------------------------------------- */

/* Every data block of the SSTs of one shard becomes damaged; indexes and filters stay whole. */
static void damage_shard(struct world *w, uint32_t db_id)
{
    char prefix[256];
    const sf_object_entry *entries;
    size_t count, damaged = 0;
    sf_call *listing;

    snprintf(prefix, sizeof(prefix), "copy/shards/run_id=run-002/db=%05u/attempt=00/compacted/", db_id);
    assert_int_equal(sf_bucket_list(&listing, w->bucket, prefix, NULL, PATIENCE_MS, NULL), SF_OK);
    entries = sf_call_entries(listing, &count);
    for (size_t i = 0; i < count; i++) {
        sf_object o = {0};
        uint8_t *bytes;

        assert_int_equal(sf_bucket_get(w->bucket, entries[i].key, 1 << 20, PATIENCE_MS, &o, NULL), SF_OK);
        bytes = malloc(o.data.n);
        memcpy(bytes, o.data.p, o.data.n);
        bytes[20] ^= 0xff;
        world_put_object(w, entries[i].key, sf_bytes_of(bytes, o.data.n));
        free(bytes);
        sf_object_release(&o);
        damaged++;
    }
    sf_call_release(listing);
    assert_true(damaged > 0);
}

static void damage_fails_its_shard_only(void **state)
{
    struct world *w = *state;
    sf_reader *r;
    sf_snapshot *s;
    sf_key keys[KEYS];
    sf_call *call;
    sf_value *values;
    const sf_status *statuses;
    const sf_error *errors;
    sf_error e = SF_ERROR_INIT;
    size_t count, error_count;
    unsigned failed = 0, found = 0;

    damage_shard(w, 1);
    r = world_open_reader(w);
    s = sf_reader_borrow(r, NULL);
    for (unsigned i = 0; i < KEYS; i++)
        keys[i] = sf_key_int(i);
    assert_int_equal(sf_reader_multi_get_start(&call, r, keys, KEYS, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(call, &e), SF_CORRUPT);
    values = sf_call_values(call, &count);
    statuses = sf_call_statuses(call);
    assert_int_equal(count, KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        uint32_t db_id;

        assert_int_equal(sf_snapshot_route(s, &keys[i], &db_id, NULL), SF_OK);
        if (statuses[i] != SF_OK) {
            assert_int_equal(statuses[i], SF_CORRUPT);
            assert_int_equal(db_id, 1);
            assert_false(values[i].found);
            failed++;
        }
        found += values[i].found;
    }
    assert_true(failed > 0 && found > 60);
    errors = sf_call_shard_errors(call, &error_count);
    assert_int_equal(error_count, 1);
    assert_int_equal(errors[0].db_id, 1);
    assert_int_equal(errors[0].code, SF_CORRUPT);
    assert_string_equal(errors[0].message, e.message);
    assert_non_null(strstr(e.message, "data block at"));
    sf_call_release(call);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

/* A key that has no stored form fails alone; one that cannot be routed fails the call before it begins. */
static void keys_that_cannot_be_stored_fail_alone(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_key keys[4] = {sf_key_int(1), sf_key_int(-5), sf_key_bytes("\xff\xfe", 2), sf_key_int(2)};
    sf_value values[4];
    sf_call *call;
    const sf_status *statuses;
    const sf_error *errors;
    size_t count;
    sf_error e = SF_ERROR_INIT;

    assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 4, PATIENCE_MS, NULL, NULL, &e), SF_OK);
    assert_int_equal(sf_call_wait(call, &e), SF_INVALID); /* the first of them */
    statuses = sf_call_statuses(call);
    assert_int_equal(statuses[0], SF_OK);
    assert_int_equal(statuses[1], SF_INVALID);     /* out of range */
    assert_int_equal(statuses[2], SF_INVALID_KEY); /* not 8 bytes */
    assert_int_equal(statuses[3], SF_OK);
    errors = sf_call_shard_errors(call, &count);
    assert_true(count == 1 || count == 2); /* one a shard */
    assert_int_equal(errors[0].code, SF_INVALID);
    assert_true(errors[0].db_id >= 0);
    sf_call_release(call);
    assert_int_equal(sf_reader_multi_get(r, keys, 4, PATIENCE_MS, values, &e), SF_INVALID);
    for (unsigned i = 0; i < 4; i++)
        assert_null(values[i].owner);
    sf_reader_free(r);
}

static void warm_batches_need_no_loop(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_key keys[KEYS];
    sf_value values[KEYS];
    sf_runtime_stats before, after;
    unsigned found = 0;

    for (unsigned i = 0; i < KEYS; i++)
        keys[i] = sf_key_int(i);
    assert_int_equal(sf_reader_multi_get(r, keys, KEYS, PATIENCE_MS, values, NULL), SF_OK);
    for (unsigned i = 0; i < KEYS; i++)
        sf_value_release(&values[i]);
    sf_runtime_get_stats(w->rt, &before);
    assert_int_equal(sf_reader_multi_get(r, keys, KEYS, 0, values, NULL), SF_OK); /* no time for anything else */
    for (unsigned i = 0; i < KEYS; i++) {
        found += values[i].found;
        sf_value_release(&values[i]);
    }
    sf_runtime_get_stats(w->rt, &after);
    assert_int_equal(found, 120);
    assert_int_equal(after.requests, before.requests);
    assert_true(after.cache_hits > before.cache_hits);
    assert_true(after.bytes_fetched > 0 && after.cache_bytes > 0);
    sf_reader_free(r);
}

struct large {
    sf_reader *r;
    sf_key *keys;
    size_t count;
    bool cancel;
    int64_t timeout_ms;
    sf_call *call;
    sf_status rc;
};

/* On the loop thread: it is called back before anything of it has begun but the sorting. */
static void begin_large(void *ctx)
{
    struct large *l = ctx;

    l->rc = sf_reader_multi_get_start(&l->call, l->r, l->keys, l->count, l->timeout_ms, NULL, NULL, NULL);
    if (l->rc == SF_OK && l->cancel)
        sf_call_cancel(l->call);
}

/* So many that a worker sorts them by shard first. Keys that are the same get the same. */
static void large_cold_batches(void **state)
{
    static const struct {
        bool cancel;
        int64_t timeout_ms;
        sf_status status;
    } cases[] = {{true, PATIENCE_MS, SF_CANCELLED}, {false, 0, SF_TIMEOUT}, {false, PATIENCE_MS, SF_OK}};
    enum { MANY = 20 * KEYS };
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    struct world without_cache, *w = &without_cache;
    sf_key *keys = calloc(MANY, sizeof(*keys));

    assert_non_null(keys);
    (void)state;
    o.cache_bytes = 0; /* opening reads small shards whole */
    world_open(w, &o);
    for (unsigned i = 0; i < MANY; i++)
        keys[i] = sf_key_int(i * 7 % KEYS);
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct large l = {world_open_reader(w), keys, MANY, cases[c].cancel, cases[c].timeout_ms, NULL, SF_OK};
        const sf_status *statuses;
        const sf_value *values;
        size_t count, found = 0, failed = 0;

        on_loop(w->rt->loop, begin_large, &l);
        assert_int_equal(l.rc, SF_OK);
        assert_int_equal(sf_call_wait(l.call, NULL), cases[c].status);
        values = sf_call_values(l.call, &count);
        statuses = sf_call_statuses(l.call);
        assert_int_equal(count, MANY);
        for (size_t i = 0; i < MANY; i++) {
            assert_true(statuses[i] == SF_OK || (statuses[i] == cases[c].status && !values[i].found));
            assert_int_equal(values[i].found, values[i % KEYS].found);
            failed += statuses[i] != SF_OK;
            found += values[i].found;
        }
        assert_int_equal(failed > 0, cases[c].status != SF_OK);
        if (cases[c].status == SF_OK)
            assert_int_equal(found, 20 * 120);
        sf_call_release(l.call);
        sf_reader_free(l.r);
    }
    world_close(w);
    free(keys);
}

static void shards_on_their_own(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_snapshot *s = sf_reader_borrow(r, NULL), *one = NULL;
    sf_shard_info info;
    sf_snapshot_info whole;
    uint64_t rows = 0;
    char url[512];
    sf_bytes key = {NULL, 0};
    sf_key typed = sf_key_int(1);
    uint8_t scratch[8];
    sf_value v;
    uint32_t db_id;

    sf_snapshot_get_info(s, &whole);
    assert_string_equal(whole.run_id, "run-002");
    for (uint32_t i = 0; i < whole.num_dbs; i++) {
        assert_true(sf_snapshot_get_shard(s, i, &info));
        assert_int_equal(info.db_id, i);
        if (info.db_url)
            assert_non_null(strstr(info.db_url, "run_id=run-002"));
        rows += info.row_count;
    }
    assert_int_equal(rows, whole.row_count);
    assert_false(sf_snapshot_get_shard(s, whole.num_dbs, &info));
    assert_int_equal(sf_snapshot_try_get(s, whole.num_dbs, key, &v, NULL), SF_INVALID);
    sf_snapshot_give_back(s);

    snprintf(url, sizeof(url), PREFIX "/shards/run_id=run-002/db=00000/attempt=00");
    assert_int_equal(sf_snapshot_open_shard(&one, w->rt, url, NULL, NULL, PATIENCE_MS, NULL), SF_OK);
    sf_snapshot_get_info(one, &whole);
    assert_int_equal(whole.num_dbs, 1);
    assert_null(whole.run_id);
    assert_int_equal(sf_snapshot_route(one, &typed, &db_id, NULL), SF_INVALID);
    assert_int_equal(sf_snapshot_encode_key(one, &typed, scratch, &key, NULL), SF_INVALID);
    sf_snapshot_give_back(one);
    one = NULL;
    assert_int_equal(sf_snapshot_open_shard(&one, w->rt, PREFIX "/nothing", NULL, NULL, PATIENCE_MS, NULL), SF_NOT_FOUND);
    assert_int_equal(sf_snapshot_open_shard(&one, w->rt, "gs://x/y", NULL, NULL, PATIENCE_MS, NULL), SF_INVALID);
    assert_null(one);
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ refreshes ------------------------------------ */

static void refreshes_wait_for_each_other(void **state)
{
    enum { CALLS = 12 };
    struct world *w = *state;
    sf_reader *r;
    sf_call *calls[CALLS];
    unsigned changed = 0;

    world_point_at_run(w, 0);
    r = world_open_reader(w);
    world_point_at_run(w, 1);
    for (unsigned i = 0; i < CALLS; i++) /* every third has no time to wait, every fourth is called back */
        assert_int_equal(sf_reader_refresh_start(&calls[i], r, i % 3 == 2 ? 0 : PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    for (unsigned i = 3; i < CALLS; i += 4)
        sf_call_cancel(calls[i]);
    for (unsigned i = 0; i < CALLS; i++) {
        sf_status rc = sf_call_wait(calls[i], NULL);

        if (rc == SF_OK)
            changed += sf_call_changed(calls[i]);
        else
            assert_true((rc == SF_TIMEOUT && i % 3 == 2) || (rc == SF_CANCELLED && i % 4 == 3));
        if (rc != SF_OK)
            assert_false(sf_call_changed(calls[i]));
        sf_call_release(calls[i]);
    }
    assert_int_equal(changed, 1); /* the others found it done */
    assert_string_equal(world_run_id(r), "run-001");
    sf_reader_free(r);
}

static void closing_ends_waiting_refreshes(void **state)
{
    enum { CALLS = 5 };
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_call *calls[CALLS];

    world_point_at_run(w, 1);
    for (unsigned i = 0; i < CALLS; i++)
        assert_int_equal(sf_reader_refresh_start(&calls[i], r, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    sf_reader_free(r);
    for (unsigned i = 0; i < CALLS; i++) {
        sf_status rc = sf_call_wait(calls[i], NULL);

        assert_true(rc == SF_OK || rc == SF_STATE);
        sf_call_release(calls[i]);
    }
}

/* ------------------------------------------------------------------ scans ---------------------------------------- */

static void scans_refuse_what_makes_no_sense(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_scan *scan = NULL;
    sf_call *call = NULL, *second = NULL;
    sf_status rc;

    o.db_id = 1000;
    assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_INVALID);
    o = (sf_scan_options)SF_SCAN_OPTIONS_INIT;
    o.has_prefix = o.has_end = true;
    assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_INVALID);
    assert_null(scan);
    o = (sf_scan_options)SF_SCAN_OPTIONS_INIT;
    assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_OK);
    assert_int_equal(sf_scan_next_start(&call, scan, 0, PATIENCE_MS, NULL, NULL, NULL), SF_INVALID);
    assert_int_equal(sf_scan_next_start(&call, scan, 10, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    rc = sf_scan_next_start(&second, scan, 10, PATIENCE_MS, NULL, NULL, NULL);
    assert_true(rc == SF_STATE || rc == SF_OK); /* the first may have ended already */
    sf_scan_close(scan);                        /* the step keeps what it needs */
    if (rc == SF_OK) {
        sf_call_wait(second, NULL);
        sf_call_release(second);
    }
    assert_int_equal(sf_call_wait(call, NULL), SF_OK);
    sf_call_release(call);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

static uint64_t count_rows(sf_snapshot *s, const sf_scan_options *o)
{
    sf_scan *scan;
    const sf_row *rows;
    size_t count;
    uint64_t total = 0;

    assert_int_equal(sf_scan_open(&scan, s, o, NULL), SF_OK);
    do {
        assert_int_equal(sf_scan_next(scan, 7, PATIENCE_MS, &rows, &count, NULL), SF_OK);
        total += count;
    } while (count > 0);
    assert_int_equal(sf_scan_next(scan, 7, PATIENCE_MS, &rows, &count, NULL), SF_OK); /* at the end it stays there */
    assert_int_equal(count, 0);
    sf_scan_close(scan);
    return total;
}

static void prefixes_and_limits(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    static const uint8_t zeros[7] = {0}, high[2] = {0xff, 0xff};
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    uint64_t below_256;

    assert_int_equal(count_rows(s, &o), 120);
    o.has_prefix = true;
    assert_int_equal(count_rows(s, &o), 120); /* everything begins with nothing */
    o.prefix = sf_bytes_of(zeros, 7);
    below_256 = count_rows(s, &o); /* the keys up to 255 */
    assert_true(below_256 > 0 && below_256 < 120);
    o.prefix = sf_bytes_of(high, 2); /* has no end */
    assert_int_equal(count_rows(s, &o), 0);
    o = (sf_scan_options)SF_SCAN_OPTIONS_INIT;
    o.limit = 13;
    o.reverse = true;
    assert_int_equal(count_rows(s, &o), 13);
    o.limit = 0;
    assert_int_equal(count_rows(s, &o), 0);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

static void steps_can_be_cancelled(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_scan *scan;
    uint64_t total = 0;
    bool end = false;

    assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_OK);
    for (unsigned i = 0; !end && i < 1000; i++) {
        sf_call *call;
        size_t count;

        assert_int_equal(sf_scan_next_start(&call, scan, 5, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
        if (i % 2 == 0)
            sf_call_cancel(call);
        if (sf_call_wait(call, NULL) == SF_OK) {
            sf_call_rows(call, &count, &end);
            total += count;
        } else {
            assert_int_equal(sf_call_error(call)->code, SF_CANCELLED);
        }
        sf_call_release(call);
    }
    assert_int_equal(total, 120); /* what was called back came later */
    sf_scan_close(scan);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ kinds of calls ------------------------------- */

static void getters_of_other_calls_answer_nothing(void **state)
{
    struct world *w = *state;
    sf_reader *r = world_open_reader(w);
    sf_key key = sf_key_int(1);
    sf_call *calls[3];
    size_t count = 9;
    bool end = true;

    assert_int_equal(sf_reader_get_start(&calls[0], r, &key, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_reader_refresh_start(&calls[1], r, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_bucket_list_start(&calls[2], w->bucket, "", NULL, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(sf_call_wait(calls[i], NULL), SF_OK);
    assert_non_null(sf_call_values(calls[0], &count));
    assert_int_equal(count, 1);
    for (unsigned i = 1; i < 3; i++) {
        assert_null(sf_call_values(calls[i], &count));
        assert_int_equal(count, 0);
        assert_null(sf_call_statuses(calls[i]));
        assert_null(sf_call_shard_errors(calls[i], &count));
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_null(sf_call_take_reader(calls[i]));
        assert_null(sf_call_take_snapshot(calls[i]));
        assert_null(sf_call_rows(calls[i], &count, &end));
        assert_false(end);
        assert_false(sf_call_changed(calls[i]));
        assert_null(sf_call_object(calls[i]));
        sf_call_release(calls[i]);
    }
    sf_reader_free(r);
}

struct nested {
    sf_reader *r;
    sf_status waited;
    struct gate gate;
};

static void wait_inside(void *ctx, sf_call *call)
{
    struct nested *n = ctx;
    sf_key key = sf_key_int(3);
    sf_call *second;

    if (sf_reader_get_start(&second, n->r, &key, PATIENCE_MS, NULL, NULL, NULL) == SF_OK) {
        n->waited = sf_call_is_done(second) ? SF_INVALID : sf_call_wait(second, NULL);
        sf_call_release(second);
    }
    gate_arrive(&n->gate);
}

static void waiting_on_the_loop_is_refused(void **state)
{
    struct world *w = *state;
    struct nested n = {.r = world_open_reader(w), .gate = GATE_INIT};
    sf_key key = sf_key_int(1);
    sf_call *call;

    assert_int_equal(sf_reader_get_start(&call, n.r, &key, PATIENCE_MS, wait_inside, &n, NULL), SF_OK);
    gate_wait(&n.gate, 1);
    assert_int_equal(n.waited, SF_INVALID);
    sf_call_release(call);
    sf_reader_free(n.r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(damage_fails_its_shard_only),
        TEST(keys_that_cannot_be_stored_fail_alone),
        TEST(warm_batches_need_no_loop),
        cmocka_unit_test(large_cold_batches),
        TEST(shards_on_their_own),
        TEST(refreshes_wait_for_each_other),
        TEST(closing_ends_waiting_refreshes),
        TEST(scans_refuse_what_makes_no_sense),
        TEST(prefixes_and_limits),
        TEST(steps_can_be_cancelled),
        TEST(getters_of_other_calls_answer_nothing),
        TEST(waiting_on_the_loop_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
