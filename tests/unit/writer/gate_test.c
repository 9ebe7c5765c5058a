/* The gate before publishing, progress and cancelling, attempts from elsewhere, the report. */
#include "world.h"

#include <unistd.h>

/* Refused, saying why; the snapshot before and nothing else is there. */
static void expect_refusal(struct world *w, const sf_writer_options *o, unsigned count, const char *message)
{
    char *before = world_objects(w, "manifests"), *after;

    if (world_try_publish(w, o, count, 2) != SF_REFUSED || !strstr(w->err.message, message))
        fail_msg("'%s' instead of '%s'", w->err.message, message);
    assert_int_equal(strncmp(w->err.message, "not published: ", 15), 0);
    after = world_objects(w, "manifests");
    assert_string_equal(before, after);
    assert_int_equal(world_object_count(w, "shards/run_id=bad"), 0);
    free(before);
    free(after);
}

static void test_row_share(void **state)
{
    static const struct {
        const char *name;
        double least, most;
        unsigned count;
        bool refused;
    } cases[] = {
        {"too few", 0.9, 0, 89, true},        {"just enough", 0.9, 0, 90, false}, {"too many", 0, 1.1, 111, true},
        {"not too many", 0, 1.1, 110, false}, {"none", 0.5, 2, 0, true},          {"inside", 0.5, 2, 100, false},
    };
    struct world *w = *state;
    sf_writer_options o = world_options();

    o.run_id = "first";
    o.min_rows_share = 0.9;
    assert_int_equal(world_try_publish(w, &o, 10, 1), SF_OK); /* nothing to compare with */
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char run_id[32];

        snprintf(run_id, sizeof(run_id), "before-%zu", i);
        world_publish(w, run_id, 100, 1);
        o.run_id = "bad";
        o.min_rows_share = cases[i].least;
        o.max_rows_share = cases[i].most;
        if (cases[i].refused) {
            expect_refusal(w, &o, cases[i].count, "of the 100 published before");
            world_expect_current(w, run_id);
        } else {
            snprintf(run_id, sizeof(run_id), "good-%zu", i);
            o.run_id = run_id;
            if (world_try_publish(w, &o, cases[i].count, 2) != SF_OK)
                fail_msg("%s: %s", cases[i].name, w->err.message);
            world_expect_current(w, run_id);
        }
    }
}

static void test_unreadable_snapshot_before(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_snapshot_manifest *m;

    world_publish(w, "r0", 10, 1);
    m = world_manifest(w);
    sf__snapshot_manifest_free(m);
    world_delete(w, "manifests");
    o.run_id = "bad";
    o.min_rows_share = 0.1;
    expect_refusal(w, &o, 10, "cannot be compared with");
    world_put(w, "_CURRENT", sf_bytes_str("{"));
    expect_refusal(w, &o, 10, "cannot be compared with");
}

static void test_empty_shards(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();

    o.num_dbs = 32;
    o.run_id = "bad";
    o.max_empty_shards = 10;
    expect_refusal(w, &o, 4, "of 32 shards are empty, at most 10 may be: 0, 1, 2");
    o.run_id = "good";
    o.max_empty_shards = 0;
    assert_int_equal(world_try_publish(w, &o, 1000, 1), SF_OK);
}

struct check {
    unsigned calls;
    sf_status answer;
    const char *text;
    uint64_t rows;
};

static sf_status check_fn(void *ctx, const sf_write_report *report, sf_error *err)
{
    struct check *c = ctx;

    c->calls++;
    c->rows = report->published_rows;
    if (c->text)
        sf_fail(err, c->answer, "%s", c->text);
    return c->answer;
}

static void test_check_of_the_caller(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    struct check c = {.answer = SF_INVALID, .text = "only on Sundays"};

    o.run_id = "bad";
    o.check = check_fn;
    o.check_ctx = &c;
    expect_refusal(w, &o, 50, "not published: only on Sundays");
    c.text = NULL;
    expect_refusal(w, &o, 50, "check of the caller");
    c.answer = SF_OK;
    assert_int_equal(world_try_publish(w, &o, 50, 1), SF_OK);
    assert_int_equal(c.calls, 3);
    assert_int_equal(c.rows, 50);
}

static void test_sample(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer;

    o.sample_keys = 25;
    assert_int_equal(world_try_publish(w, &o, 500, 1), SF_OK);
    /* a value that is not what was added: as if the shard had been built wrong */
    o.run_id = "bad";
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 500, 2, false), SF_OK);
    assert_int_equal(writer->sample.count, 25);
    writer->sample.rows[7].value_hash.lo ^= 1;
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_REFUSED);
    assert_non_null(strstr(w->err.message, "has another value for the key "));
    sf_writer_free(writer);
    /* a key that nobody wrote */
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 500, 2, false), SF_OK);
    ((uint8_t *)(uintptr_t)writer->sample.rows[0].key.p)[0] ^= 0x40;
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_REFUSED);
    assert_non_null(strstr(w->err.message, "does not have the key "));
    sf_writer_free(writer);
    world_expect_current(w, "r1");
    assert_int_equal(world_object_count(w, "manifests"), 1);
    assert_int_equal(world_object_count(w, "shards/run_id=bad"), 0);
}

static void test_sample_of_sqlite_shards(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer;

    o.backend = SF_BACKEND_SQLITE;
    o.sample_keys = 12;
    o.spill_folder = w->folder;
    if (world_try_publish(w, &o, 500, 1) != SF_OK)
        fail_msg("%s", w->err.message);
    o.run_id = "bad";
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 500, 2, false), SF_OK);
    writer->sample.rows[3].value_hash.hi ^= 1;
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_REFUSED);
    assert_non_null(strstr(w->err.message, "has another value for the key "));
    sf_writer_free(writer);
    world_expect_current(w, "r1");
    assert_int_equal(rmdir(w->folder), 0); /* no copy is left */
}

/* ------------------------------------------------------------------ progress ------------------------------------- */

struct watch {
    unsigned calls, phases;
    sf_write_phase last;
    uint64_t rows_added, rows_built;
    unsigned cancel_in; /* phase + 1; 0: never */
};

static bool watch_fn(void *ctx, const sf_write_progress *p)
{
    struct watch *v = ctx;

    v->calls++;
    v->phases |= 1u << p->phase;
    v->last = p->phase;
    v->rows_added = p->rows_added;
    v->rows_built = p->rows_built;
    return v->cancel_in != (unsigned)p->phase + 1;
}

static void test_progress(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    struct watch v = {.calls = 0};
    sf_write_progress p;
    sf_writer *writer;

    o.progress = watch_fn;
    o.progress_ctx = &v;
    o.progress_interval_ms = 0;
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 5000, 1, false), SF_OK);
    assert_true(v.calls >= 4);
    assert_int_equal(v.phases, 1u << SF_PHASE_ADDING);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    assert_int_equal(v.phases, (1u << (SF_PHASE_DONE + 1)) - 1);
    assert_int_equal(v.last, SF_PHASE_DONE);
    sf_writer_get_progress(writer, &p);
    assert_int_equal(p.rows_added, 5000);
    assert_int_equal(p.rows_built, 5000);
    assert_int_equal(p.shards_done, 4);
    assert_int_equal(p.shards_total, 4);
    assert_true(p.bytes_stored > 0);
    sf_writer_free(writer);
}

static void test_cancel(void **state)
{
    struct world *w = *state;

    world_publish(w, "r0", 10, 1);
    for (unsigned phase = SF_PHASE_ADDING; phase <= SF_PHASE_DONE; phase++) {
        sf_writer_options o = world_options();
        struct watch v = {.cancel_in = phase + 1};
        bool too_late = phase >= SF_PHASE_CLEANING;
        char run_id[32];
        sf_status rc;

        snprintf(run_id, sizeof(run_id), "phase-%u", phase);
        o.run_id = run_id;
        o.progress = watch_fn;
        o.progress_ctx = &v;
        o.progress_interval_ms = 0;
        rc = world_try_publish(w, &o, 3000, 2);
        if (rc != (too_late ? SF_OK : SF_CANCELLED))
            fail_msg("phase %u: %s %s", phase, sf_status_name(rc), w->err.message);
        world_expect_current(w, too_late ? run_id : "r0");
    }
    assert_int_equal(world_object_count(w, "manifests"), 3);
}

static void test_cancel_from_outside(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);

    assert_int_equal(world_add_rows(w, writer, 10, 1, false), SF_OK);
    sf_writer_cancel(writer);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_CANCELLED);
    assert_int_equal(w->err.code, SF_CANCELLED);
    sf_writer_free(writer);
    world_expect_current(w, NULL);
    assert_int_equal(world_object_count(w, "shards"), 0);
}

/* ------------------------------------------------------------------ attempts ------------------------------------- */

/* As a distributed job does it: shards are built by several writers, some twice, and published by another. */
static void test_attempts_from_elsewhere(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *driver, *tasks[3];
    const sf_write_report *r;

    o.run_registry_prefix = NULL;
    for (unsigned t = 0; t < 3; t++) {
        o.attempt = t == 2 ? 0 : 1;
        o.has_task_attempt_id = true;
        o.task_attempt_id = 10 + t;
        o.db_path_template = t == 0 ? "a/{db_id}" : t == 1 ? "b/{db_id}" : "c/{db_id}";
        tasks[t] = world_writer(w, &o);
        assert_int_equal(world_add_rows(w, tasks[t], t == 2 ? 2 : 100, t, false), SF_OK);
        assert_int_equal(sf_writer_build(tasks[t], &w->err), SF_OK);
        assert_int_equal(sf_writer_add(tasks[t], &(sf_key){.type = SF_KEY_INT}, sf_bytes_str(""), &w->err), SF_STATE);
    }
    o = world_options();
    driver = world_writer(w, &o);
    for (unsigned t = 0; t < 3; t++) {
        r = sf_writer_report(tasks[t]);
        for (size_t i = 0; i < r->attempt_count; i++)
            assert_int_equal(sf_writer_add_attempt(driver, &r->attempts[i], &w->err), SF_OK);
        sf_writer_free(tasks[t]);
    }
    assert_int_equal(sf_writer_add_attempt(driver, &(sf_attempt){.db_id = 4}, &w->err), SF_INVALID);
    assert_int_equal(sf_writer_add_attempt(driver, &(sf_attempt){.db_id = -1}, &w->err), SF_INVALID);
    assert_int_equal(sf_writer_publish(driver, &w->err), SF_OK);
    r = sf_writer_report(driver);
    assert_int_equal(r->winner_count, 4);
    for (size_t i = 0; i < 4; i++) {
        bool by_last = r->winners[i].attempt == 0;

        assert_non_null(strstr(r->winners[i].db_url, by_last ? "/c/" : "/a/"));
    }
    assert_int_equal(r->losers_deleted, r->attempt_count - 4);
    assert_int_equal(world_object_count(w, "shards/run_id=r1/b"), 0);
    sf_writer_free(driver);
    world_expect_current(w, "r1");
}

/* Losers whose places lie around a winner's, or in it, as only a caller's mistake makes them: nothing is deleted. */
static void test_places_that_overlap(void **state)
{
    static const char *const places[] = {"/shards", "/shards/run_id=r1",
                                         "/shards/run_id=r1/db=00000/attempt=00/compacted",
                                         "/shards/run_id=r1/db=00000/attempt=0"};
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);
    sf_attempt at = {.db_id = 0, .attempt = 5, .checkpoint_id = "0"};

    assert_int_equal(world_add_rows(w, writer, 40, 1, false), SF_OK);
    assert_int_equal(sf_writer_build(writer, &w->err), SF_OK);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        char url[700];

        snprintf(url, sizeof(url), "%s%s", w->prefix, places[i]);
        at.db_url = url;
        assert_int_equal(sf_writer_add_attempt(writer, &at, &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_publish(writer, &w->err), SF_OK);
    assert_int_equal(sf_writer_report(writer)->losers_deleted, 1); /* the last is a neighbour */
    sf_writer_free(writer);
    world_expect_snapshot(w, 40, 1);
}

static void test_skew_is_told(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);
    char url[700];
    sf_attempt at = {.db_url = url, .checkpoint_id = "0"};

    snprintf(url, sizeof(url), "%s/shards/run_id=r1/x", w->prefix);
    for (uint32_t i = 0; i < 4; i++) {
        at.db_id = i;
        at.row_count = i == 3 ? 1000000 : 1000;
        at.db_bytes = UINT64_C(300) << 20;
        assert_int_equal(sf_writer_add_attempt(writer, &at, &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_publish(writer, &w->err), SF_OK);
    assert_non_null(sf_writer_report(writer)->warning);
    assert_non_null(strstr(sf_writer_report(writer)->warning, "4.0 times the mean"));
    assert_int_equal(sf_writer_report(writer)->suggested_num_dbs, 5);
    sf_writer_free(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_row_share),
        WORLD_TEST(test_unreadable_snapshot_before),
        WORLD_TEST(test_empty_shards),
        WORLD_TEST(test_check_of_the_caller),
        WORLD_TEST(test_sample),
        WORLD_TEST(test_sample_of_sqlite_shards),
        WORLD_TEST(test_progress),
        WORLD_TEST(test_cancel),
        WORLD_TEST(test_cancel_from_outside),
        WORLD_TEST(test_attempts_from_elsewhere),
        WORLD_TEST(test_skew_is_told),
        WORLD_TEST(test_places_that_overlap),
    };

    return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
