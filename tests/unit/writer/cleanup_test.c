/* Clean-up, history and rollback over a store in memory. */
#include "world.h"

#include "base/clock.h"

#define URL "mem://cleanup-test/snap"
#define MINUTE INT64_C(60000000)

static int set_up(void **state)
{
    return world_set_up_at(state, URL);
}

/* Notes what progress told: each leftover once in a dry run, else again when it is gone. */
struct told {
    size_t found, gone;
    uint64_t objects;
};

static void note_progress(void *ctx, const sf_leftover *l)
{
    struct told *t = ctx;

    assert_true(l->objects > 0);
    if (l->deleted)
        assert_int_equal(l->objects, t->objects); /* all that were there */
    t->objects = l->objects;
    *(l->deleted ? &t->gone : &t->found) += 1;
}

/* What was or would be deleted, one a line, in order: kind, run, URL below the prefix, objects. Freed with free(). */
static char *clean(struct world *w, const sf_cleanup_options *o, sf_status expected)
{
    static const char *const kinds[] = {"attempt", "manifest", "run", "record", "upload"};
    sf_cleanup_report *r = NULL;
    const sf_leftover *l;
    char *text = NULL;
    size_t n, size = 0;
    FILE *f = open_memstream(&text, &size);
    sf_cleanup_options telling = *o;
    struct told told = {0};
    sf_site s;
    sf_status rc;

    assert_non_null(f);
    world_site(w, &s);
    telling.progress = note_progress;
    telling.progress_ctx = &told;
    rc = sf__cleanup_on(&r, &s, &telling, &w->err);
    sf__site_cleanup(&s);
    if (rc != expected)
        fail_msg("%s: %s", sf_status_name(rc), w->err.message);
    l = r ? sf_cleanup_leftovers(r, &n) : (n = 0, NULL);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strncmp(l[i].url, URL "/", sizeof(URL)), 0);
        assert_int_equal(l[i].deleted, !o->dry_run);
        assert_true(l[i].objects > 0);
        fprintf(f, "%s %s\n", kinds[l[i].kind], l[i].run_id);
    }
    assert_int_equal(told.found, n);
    assert_int_equal(told.gone, o->dry_run || rc != SF_OK ? told.gone : n);
    assert_true(!o->dry_run || told.gone == 0);
    fclose(f);
    sf_cleanup_report_free(r);
    return text;
}

static void expect_cleaned_in(struct world *w, const sf_cleanup_options *o, const char *name, const char *expected)
{
    sf_cleanup_options dry = *o;
    char *before = world_objects(w, ""), *after, *text;

    dry.dry_run = true;
    text = clean(w, &dry, SF_OK);
    after = world_objects(w, "");
    if (strcmp(text, expected) != 0)
        fail_msg("%s: '%s' instead of '%s'", name, text, expected);
    assert_string_equal(before, after);
    free(text);
    free(after);
    free(before);
    text = clean(w, o, SF_OK);
    assert_string_equal(text, expected);
    free(text);
    text = clean(w, o, SF_OK); /* nothing more the second time */
    assert_string_equal(text, "");
    free(text);
}

static void expect_cleaned(struct world *w, const sf_cleanup_options *o, const char *expected)
{
    expect_cleaned_in(w, o, "clean-up", expected);
}

static void put_shard(struct world *w, const char *run_id, const char *attempt)
{
    char name[300];

    snprintf(name, sizeof(name), "shards/run_id=%s/db=00000/attempt=%s/manifest/1", run_id, attempt);
    world_put(w, name, sf_bytes_str("x"));
    snprintf(name, sizeof(name), "shards/run_id=%s/db=00000/attempt=%s/compacted/1", run_id, attempt);
    world_put(w, name, sf_bytes_str("x"));
}

/* ------------------------------------------------------------------ runs ----------------------------------------- */

static void test_runs_without_manifest(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    world_publish(w, "kept", 20, 1);
    put_shard(w, "running", "00");
    world_put_record(w, "running", SF_RUN_RUNNING, now, now + 5 * MINUTE, NULL);
    put_shard(w, "dead", "00");
    world_put_record(w, "dead", SF_RUN_RUNNING, now - 20 * MINUTE, now - 10 * MINUTE, NULL);
    put_shard(w, "failed", "00");
    world_put_record(w, "failed", SF_RUN_FAILED, now - 90 * MINUTE, now - 90 * MINUTE, NULL);
    world_put_record(w, "nothing", SF_RUN_FAILED, now - 90 * MINUTE, now - 90 * MINUTE, NULL);
    put_shard(w, "unknown", "00");
    put_shard(w, "unreadable", "00");
    world_put(w, "runs/2026-01-02T03:04:05.000000Z_run_id=unreadable_0123456789abcdef0123456789abcdef/run.yaml",
              sf_bytes_str("["));
    put_shard(w, "elsewhere", "00");
    world_put_record(w, "elsewhere", SF_RUN_SUCCEEDED, now - 90 * MINUTE, now - 90 * MINUTE, "pg-run");
    world_put(w, "shards/other", sf_bytes_str("x"));
    world_put(w, "runs/other/run.yaml", sf_bytes_str("x"));
    world_put(w, "somewhere/else", sf_bytes_str("x"));

    o.min_age_ms = 30 * MINUTE / 1000;
    expect_cleaned(w, &o, "run failed\nrecord failed\nrecord nothing\n");
    o.min_age_ms = 0;
    expect_cleaned(w, &o, "run dead\nrecord dead\n");
    o.ignore_leases = true;
    expect_cleaned(w, &o, "run running\nrecord running\n");
    o.unrecorded_runs = true;
    expect_cleaned(w, &o, "run unknown\nrun unreadable\nrecord unreadable\n");
    assert_int_equal(world_object_count(w, "shards/run_id=elsewhere"), 2);
    assert_int_equal(world_object_count(w, "somewhere"), 1);
    world_expect_snapshot(w, 20, 1);
}

/* A machine whose clock is two hours ahead does not take a living run for a dead one: the store tells the time. */
static void test_the_time_is_the_store_s(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us() - 120 * MINUTE; /* the right time */
    sf_cleanup_report *r = NULL;
    size_t count;
    sf_site s;

    world_publish(w, "kept", 20, 1);
    put_shard(w, "running", "00");
    world_put_record(w, "running", SF_RUN_RUNNING, now, now + 5 * MINUTE, NULL);
    world_site(w, &s);
    atomic_store(&s.store->ahead_us, -120 * MINUTE);
    assert_int_equal(sf__cleanup_on(&r, &s, &o, &w->err), SF_OK);
    sf_cleanup_leftovers(r, &count);
    assert_int_equal(count, 0);
    assert_non_null(strstr(sf_cleanup_warning(r), "7200 s ahead of"));
    sf_cleanup_report_free(r);
    atomic_store(&s.store->ahead_us, 0);
    assert_int_equal(sf__cleanup_on(&r, &s, &o, &w->err), SF_OK);
    sf_cleanup_leftovers(r, &count);
    assert_int_equal(count, 2); /* without it the lease is over */
    assert_null(sf_cleanup_warning(r));
    sf_cleanup_report_free(r);
    sf__site_cleanup(&s);
}

/* meson.build: --wrap */
static int64_t clock_ahead_us;
int64_t __real_sf__clock_unix_us(void);
int64_t __wrap_sf__clock_unix_us(void);
int64_t __wrap_sf__clock_unix_us(void)
{
    return __real_sf__clock_unix_us() + clock_ahead_us;
}

/* "... 7200 s ahead of ...": a Date tells whole seconds, and it is some time since it was told. */
static void expect_two_hours(const char *warning, const char *said)
{
    const char *p = strstr(warning, said);
    long seconds;

    assert_non_null(p);
    while (p > warning && p[-1] >= '0' && p[-1] <= '9')
        p--;
    seconds = strtol(p, NULL, 10);
    assert_true(seconds > 7140 && seconds < 7260);
}

/* What clean-up takes at `w`, where it is `now`: the dead run and nothing of those that live. */
static void expect_the_dead_only(struct world *w, int64_t now, const char *warning)
{
    sf_cleanup_options o = world_cleanup_options();
    const sf_leftover *l;
    sf_cleanup_report *r = NULL;
    size_t count;
    sf_site s;

    put_shard(w, "running", "00");
    world_put_record(w, "running", SF_RUN_RUNNING, now, now + 5 * MINUTE, NULL);
    put_shard(w, "dead", "00");
    world_put_record(w, "dead", SF_RUN_RUNNING, now - 20 * MINUTE, now - 10 * MINUTE, NULL);
    assert_int_equal(sf__site_open(&s, w->rt, w->prefix, NULL, &w->err), SF_OK);
    assert_int_equal(sf__cleanup_on(&r, &s, &o, &w->err), SF_OK);
    l = sf_cleanup_leftovers(r, &count);
    assert_int_equal(count, 2); /* its shard and its record */
    assert_string_equal(l[0].run_id, "dead");
    assert_string_equal(l[1].run_id, "dead");
    expect_two_hours(sf_cleanup_warning(r), warning);
    sf_cleanup_report_free(r);
    sf__site_cleanup(&s);
}

/* Of files the file system tells it, which may be a server's: with a clock that is wrong, writers and clean-up go by that. */
static void test_the_time_is_the_file_system_s(void **state)
{
    static const struct {
        int minutes;
        const char *warning;
    } cases[] = {{120, " s ahead of"}, {-120, " s behind"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char folder[] = "/tmp/sf-cleanup-test-XXXXXX", url[128];
        sf_writer_options o = world_options();
        sf_writer *living = NULL;
        struct world w;
        int64_t now;

        assert_non_null(mkdtemp(folder));
        snprintf(url, sizeof(url), "file://%s/a prefix", folder);
        world_init(&w, url);
        world_publish(&w, "kept", 20, 1);
        now = sf__clock_unix_us(); /* the right time */
        clock_ahead_us = cases[i].minutes * MINUTE;
        o.run_id = "living"; /* its lease is of the file system's time, too */
        assert_int_equal(sf_writer_open(&living, w.rt, w.prefix, &o, &w.err), SF_OK);
        expect_the_dead_only(&w, now, cases[i].warning);
        clock_ahead_us = 0;
        sf_writer_free(living);
        world_expect_snapshot(&w, 20, 1);
        assert_int_equal(world_cleanup(&w), 0);
        world_remove_folder(folder);
    }
}

/* A bucket tells it in every answer. tools/test_over_s3.sh runs this behind a front whose clock is two hours back. */
static void test_the_time_is_the_bucket_s(void **state)
{
    const char *front = getenv("SF_TEST_FRONT_ENDPOINT"), *clock = getenv("SF_TEST_FRONT_CLOCK");
    int64_t now = sf__clock_unix_us() - 120 * MINUTE;
    char *endpoint = NULL;
    struct world w;

    (void)state;
    if (!front || !clock)
        skip();
    assert_string_equal(clock, "-7200");
    if (getenv("AWS_ENDPOINT_URL"))
        endpoint = strdup(getenv("AWS_ENDPOINT_URL"));
    setenv("AWS_ENDPOINT_URL", front, 1);
    world_init(&w, "s3://scratch/clocks");
    expect_the_dead_only(&w, now, " s ahead of");
    assert_int_equal(world_cleanup(&w), 0);
    setenv("AWS_ENDPOINT_URL", endpoint ? endpoint : "", 1);
    free(endpoint);
}

static void test_names_count_by_segment(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    world_publish(w, "10", 20, 1);
    put_shard(w, "1", "00");
    world_put_record(w, "1", SF_RUN_FAILED, now, now, NULL);
    put_shard(w, "100", "00");
    world_put_record(w, "100", SF_RUN_RUNNING, now, now + MINUTE, NULL);
    expect_cleaned(w, &o, "run 1\nrecord 1\n");
    world_expect_snapshot(w, 20, 1);
    assert_int_equal(world_object_count(w, "shards/run_id=100"), 2);
}

static void test_history_is_kept(void **state)
{
    static const struct {
        const char *name;
        uint32_t keep_last;
        int64_t older_than_ms;
        const char *cleaned;
    } cases[] = {
        {"no criterion", 0, -1, ""},
        {"many", 9, -1, ""},
        {"young", 1, 3600000, ""},
        {"newest two", 2, -1, "manifest a\nrun a\nrecord a\n"},
        {"by age", 0, 0, "manifest b\nrun b\nrecord b\nmanifest d\nrun d\nrecord d\n"},
    };
    struct world *w = *state;

    world_publish(w, "a", 10, 1);
    world_publish(w, "b", 11, 2);
    world_publish(w, "c", 12, 3);
    world_publish(w, "d", 13, 4);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_cleanup_options o = world_cleanup_options();
        sf_history *h;
        size_t n;

        if (i == 3) { /* what the pointer names stays, whatever its place */
            assert_int_equal(sf_history_list(&h, w->rt, URL, NULL, 10, &w->err), SF_OK);
            assert_int_equal(sf_rollback(w->rt, URL, sf_history_entries(h, &n)[2].ref, NULL, &w->err), SF_OK);
            sf_history_free(h);
        }
        if (i == 4) {
            assert_int_equal(sf_history_list(&h, w->rt, URL, NULL, 10, &w->err), SF_OK);
            assert_int_equal(sf_rollback(w->rt, URL, sf_history_entries(h, &n)[1].ref, NULL, &w->err), SF_OK);
            sf_history_free(h);
        }
        o.keep_last = cases[i].keep_last;
        o.older_than_ms = cases[i].older_than_ms;
        expect_cleaned_in(w, &o, cases[i].name, cases[i].cleaned);
    }
    world_expect_current(w, "c");
    world_expect_snapshot(w, 12, 3);
    assert_int_equal(world_object_count(w, "manifests"), 1);
    assert_int_equal(world_object_count(w, "runs"), 1);
}

/* A manifest that stays may use the shards of another run. */
static void test_shards_in_use_elsewhere(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    sf_snapshot_manifest *m;
    sf_writer_options wo = world_options();
    sf_writer *writer;

    world_publish(w, "owner", 30, 1);
    m = world_manifest(w);
    wo.run_id = "borrower";
    writer = world_writer(w, &wo);
    for (size_t i = 0; i < m->shard_count; i++) {
        sf_attempt at = {.db_id = m->shards[i].db_id, .db_url = m->shards[i].db_url, .row_count = m->shards[i].row_count};

        assert_int_equal(sf_writer_add_attempt(writer, &at, &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_publish(writer, &w->err), SF_OK);
    sf_writer_free(writer);
    sf__snapshot_manifest_free(m);
    o.keep_last = 1;
    expect_cleaned(w, &o, "manifest owner\n");
    world_expect_snapshot(w, 30, 1);
}

/* ------------------------------------------------------------------ attempts ------------------------------------- */

static void test_stale_attempts(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    o.old_runs = false;
    world_publish(w, "kept", 20, 1);
    put_shard(w, "kept", "01");
    put_shard(w, "kept", "100");
    world_put(w, "shards/run_id=kept/db=00000/notes", sf_bytes_str("x"));
    world_put(w, "shards/run_id=kept/db=00077/attempt=00/x", sf_bytes_str("x")); /* a shard without a row */
    put_shard(w, "dead", "00");
    world_put_record(w, "dead", SF_RUN_FAILED, now, now, NULL);
    expect_cleaned(w, &o, "attempt kept\nattempt kept\nattempt kept\n");
    world_expect_snapshot(w, 20, 1);
    assert_int_equal(world_object_count(w, "shards/run_id=dead"), 2);
    assert_int_equal(world_object_count(w, "shards/run_id=kept/db=00000/attempt=01"), 0);
    /* an older snapshot whose manifest nobody can read: which of its attempts count is not known */
    world_put(w, "manifests/2020-01-02T03:04:05.000000Z_run_id=broken/manifest", sf_bytes_str("x"));
    put_shard(w, "broken", "00");
    expect_cleaned(w, &o, "");
    put_shard(w, "kept", "02");
    world_put_record(w, "kept", SF_RUN_RUNNING, now, now + MINUTE, NULL); /* somebody works on the same run again */
    expect_cleaned(w, &o, "");
    o.stale_attempts = false;
    o.ignore_leases = true;
    expect_cleaned(w, &o, "");
}

/* ------------------------------------------------------------------ refusals ------------------------------------- */

static void test_nothing_is_deleted_blindly(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    char *text;

    world_publish(w, "a", 10, 1);
    world_publish(w, "b", 10, 2);
    o.keep_last = 1;
    world_put(w, "_CURRENT", sf_bytes_str("{}"));
    text = clean(w, &o, SF_BAD_MANIFEST);
    assert_string_equal(text, "");
    free(text);
    world_put(w, "_CURRENT",
              sf_bytes_str("{\"manifest_ref\":\"" URL "/manifests/2026-01-01T00:00:00.000000Z_run_id=x/manifest\","
                           "\"manifest_content_type\":\"c\",\"run_id\":\"x\",\"updated_at\":0}"));
    text = clean(w, &o, SF_NOT_FOUND);
    free(text);
    o.shard_prefix = "a/b";
    text = clean(w, &o, SF_INVALID);
    free(text);
    assert_int_equal(world_object_count(w, "manifests"), 2);
}

/* Moves the pointer when the first listing of shards has been answered. */
static void move_pointer(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_GET && strstr(op->key, "_CURRENT") && op->data && op->data->n > 3 &&
        ++*(unsigned *)f->ctx == 2)
        memcpy(strstr((char *)op->data->data, "_run_id=b"), "_run_id=a", 9);
}

static void test_pointer_moves_meanwhile(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    unsigned reads = 0;
    char *text;

    world_publish(w, "a", 10, 1);
    world_publish(w, "b", 10, 2);
    o.keep_last = 1;
    w->faults->after = move_pointer;
    w->faults->ctx = &reads;
    text = clean(w, &o, SF_CONFLICT);
    assert_string_equal(text, "");
    free(text);
    assert_int_equal(world_object_count(w, "manifests"), 2);
}

/* Cut short at any request and run again: the same is left, and the snapshot is readable all along. */
static void test_cut_short(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    sf_status rc = SF_IO;

    world_publish(w, "b", 20, 2);
    for (unsigned long n = 1; rc != SF_OK; n++) {
        sf_cleanup_report *r;
        sf_site s;
        char *uploads;

        world_publish(w, "a", 10, 1);
        world_publish(w, "c", 20, 2);
        world_begin_upload(w, "shards/run_id=a/db=00000/attempt=00/compacted/2");
        world_begin_upload(w, "shards/run_id=c/db=00000/attempt=01/compacted/2");
        o.keep_last = 1;
        world_site(w, &s);
        w->faults->kind = FAULT_REFUSE;
        w->faults->at = n;
        w->faults->for_good = true;
        w->faults->requests = 0;
        rc = sf__cleanup_on(&r, &s, &o, &w->err);
        sf_cleanup_report_free(r);
        fault_store_reset(w->faults);
        world_expect_snapshot(w, 20, 2);
        assert_int_equal(sf__cleanup_on(&r, &s, &o, &w->err), SF_OK);
        sf_cleanup_report_free(r);
        sf__site_cleanup(&s);
        world_expect_snapshot(w, 20, 2);
        assert_int_equal(world_object_count(w, "manifests"), 1);
        assert_int_equal(world_object_count(w, "runs"), 1);
        assert_int_equal(world_object_count(w, "shards/run_id=a"), 0);
        uploads = world_uploads(w, "shards");
        assert_string_equal(uploads, "");
        free(uploads);
        world_delete(w, "manifests");
        world_delete(w, "shards");
        world_delete(w, "runs");
        assert_true(n < 200);
    }
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static sf_status clean_without_memory(struct world *w)
{
    sf_cleanup_options o = world_cleanup_options();
    sf_cleanup_report *r;
    sf_status rc;

    o.keep_last = 1;
    rc = sf_cleanup(&r, w->rt, URL, &o, &w->err);
    sf_cleanup_report_free(r);
    return rc;
}

static sf_status list_without_memory(struct world *w)
{
    sf_history *h = NULL;
    sf_status rc = sf_history_list(&h, w->rt, URL, NULL, 10, &w->err);

    sf_history_free(h);
    return rc;
}

static sf_status roll_back_without_memory(struct world *w)
{
    sf_pointer p = {.exists = false};
    sf_site s;
    sf_status rc = sf__site_open(&s, w->rt, URL, NULL, &w->err);

    if (rc != SF_OK)
        return rc;
    rc = sf__pointer_load(&s, NULL, &p, &w->err);
    if (rc == SF_OK)
        rc = sf_rollback(w->rt, URL, p.current.manifest_ref, NULL, &w->err);
    sf__pointer_cleanup(&s, &p);
    sf__site_cleanup(&s);
    return rc;
}

/* One allocation fails, then the next one: nothing leaks, nothing that is in use goes, and then it works. */
static void test_without_memory(void **state)
{
    static sf_status (*const scenarios[])(struct world *) = {list_without_memory, roll_back_without_memory,
                                                             clean_without_memory};
    struct world *w = *state;
    int64_t now = sf__clock_unix_us();
    char *uploads;

    world_publish(w, "a", 10, 1);
    world_publish(w, "b", 20, 2);
    put_shard(w, "b", "01");
    put_shard(w, "dead", "00");
    world_put_record(w, "dead", SF_RUN_FAILED, now, now, NULL);
    world_begin_upload(w, "shards/run_id=dead/db=00000/attempt=00/compacted/2");
    world_begin_upload(w, "shards/run_id=b/db=00000/attempt=01/compacted/2");
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        unsigned refused = 0;
        sf_status rc;

        for (long n = 0;; n++) {
            heap_arm(&w->heap, n);
            rc = scenarios[i](w);
            if (!heap_disarm(&w->heap))
                break;
            if (rc != SF_OK && rc != SF_NOMEM)
                fail_msg("scenario %zu, allocation %ld: %s %s", i, n, sf_status_name(rc), w->err.message);
            refused += rc == SF_NOMEM;
            assert_true(n < 5000);
        }
        assert_int_equal(rc, SF_OK);
        assert_true(refused > 10);
        world_expect_snapshot(w, 20, 2);
    }
    assert_int_equal(world_object_count(w, "manifests"), 1);
    assert_int_equal(world_object_count(w, "shards/run_id=dead"), 0);
    assert_int_equal(world_object_count(w, "shards/run_id=b/db=00000/attempt=01"), 0);
    uploads = world_uploads(w, "shards");
    assert_string_equal(uploads, "");
    free(uploads);
}

/* ------------------------------------------------------------------ rollback ------------------------------------- */

static void test_rollback_refuses_what_is_gone(void **state)
{
    struct world *w = *state;
    sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
    char ref[300];
    sf_history *h;
    size_t n;

    world_publish(w, "a", 40, 1);
    world_publish(w, "b", 40, 2);
    assert_int_equal(sf_history_list(&h, w->rt, URL, NULL, 10, &w->err), SF_OK);
    snprintf(ref, sizeof(ref), "%s", sf_history_entries(h, &n)[1].ref);
    sf_history_free(h);
    o.expected_current = SF_EXPECT_REF;
    o.expected_ref = ref;
    assert_int_equal(sf_rollback(w->rt, URL, ref, &o, &w->err), SF_CONFLICT);
    world_delete(w, "shards/run_id=a/db=00002");
    assert_int_equal(sf_rollback(w->rt, URL, ref, NULL, &w->err), SF_NOT_FOUND);
    assert_non_null(strstr(w->err.message, "shard 2 of run a is gone"));
    world_expect_current(w, "b");
    o = (sf_rollback_options)SF_ROLLBACK_OPTIONS_INIT;
    o.force = true;
    assert_int_equal(sf_rollback(w->rt, URL, ref, &o, &w->err), SF_OK);
    world_expect_current(w, "a");
    assert_int_equal(
        sf_rollback(w->rt, URL, URL "/manifests/2026-01-02T03:04:05.000000Z_run_id=x/manifest", NULL, &w->err),
        SF_NOT_FOUND);
    assert_int_equal(sf_rollback(w->rt, URL, "nonsense", NULL, &w->err), SF_INVALID);
    assert_string_equal(w->err.message, "Cannot extract run_id from manifest ref: nonsense");
    assert_int_equal(
        sf_rollback(w->rt, URL, "s3://other/p/manifests/2026-01-02T03:04:05.000000Z_run_id=x/manifest", NULL, &w->err),
        SF_NOT_FOUND);
    world_expect_current(w, "a");
}

struct publication {
    sf_store_op op;
    char key[600];
    sf_store_op *held;
    void (*held_done)(sf_store_op *op);
    bool fired;
};

static void hold(sf_store_op *op)
{
    (void)op;
}

static void published(sf_store_op *op)
{
    struct publication *p = op->ctx;

    p->held->done = p->held_done;
    p->held->done(p->held);
}

/* Somebody publishes behind the look at the manifest that is rolled back to. */
static void publish_meanwhile(fault_store *f, sf_store_op *op)
{
    static const char text[] =
        "{\"format_version\":1,\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":"
        "\"mem://x/manifests/i/manifest\",\"run_id\":\"other\",\"updated_at\":\"2026-01-02T03:04:05Z\"}";
    struct publication *p = f->ctx;

    if (p->fired || op->verb != SF_STORE_GET || !strstr(op->key, "/manifest"))
        return;
    p->fired = true;
    p->op = (sf_store_op){.verb = SF_STORE_PUT,
                          .key = p->key,
                          .body = sf_bytes_str(text),
                          .deadline_ns = SF_NO_DEADLINE,
                          .done = published,
                          .ctx = p};
    p->held = op;
    p->held_done = op->done;
    op->done = hold;
    sf__store_submit(f->inner, &p->op);
}

/* A rollback where no pointer was does not replace the one that appears meanwhile either. */
static void test_rollback_without_pointer(void **state)
{
    struct world *w = *state;
    struct publication p = {.fired = false};
    sf_store_op gone;
    sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
    sf_site site;
    char ref[300];
    sf_history *h;
    size_t n;

    world_publish(w, "a", 10, 1);
    assert_int_equal(sf_history_list(&h, w->rt, URL, NULL, 1, &w->err), SF_OK);
    snprintf(ref, sizeof(ref), "%s", sf_history_entries(h, &n)[0].ref);
    sf_history_free(h);
    snprintf(p.key, sizeof(p.key), "%s/_CURRENT", w->path);
    gone = (sf_store_op){.verb = SF_STORE_DELETE, .key = p.key, .deadline_ns = SF_NO_DEADLINE};
    assert_int_equal(sf__store_wait(w->inner, &gone, NULL, &w->err), SF_OK);
    w->faults->after = publish_meanwhile;
    w->faults->ctx = &p;
    world_site(w, &site);
    assert_int_equal(sf__rollback_on(&site, ref, &o, &w->err), SF_CONFLICT);
    sf__site_cleanup(&site);
    w->faults->after = NULL;
    assert_true(p.fired);
    world_expect_current(w, "other");
    assert_int_equal(sf_rollback(w->rt, URL, ref, NULL, &w->err), SF_OK);
    world_expect_current(w, "a");
}

static void test_history(void **state)
{
    struct world *w = *state;
    const sf_site_options nameless = {.size = sizeof(nameless), .request_timeout_ms = 20000}; /* the pointer is _CURRENT */
    const sf_history_entry *e;
    sf_history *h;
    size_t n;

    assert_int_equal(sf_history_list(&h, w->rt, URL, NULL, 10, &w->err), SF_OK);
    sf_history_entries(h, &n);
    assert_int_equal(n, 0);
    sf_history_free(h);
    world_publish(w, "a", 1, 1);
    world_publish(w, "b", 1, 1);
    world_publish(w, "c", 1, 1);
    world_put(w, "manifests/stray/manifest", sf_bytes_str("x"));
    assert_int_equal(sf_history_list(&h, w->rt, URL "/", &nameless, 2, &w->err), SF_OK);
    e = sf_history_entries(h, &n);
    assert_int_equal(n, 2);
    assert_string_equal(e[0].run_id, "c");
    assert_string_equal(e[1].run_id, "b");
    assert_true(e[0].is_current && !e[1].is_current);
    assert_true(e[0].published_at_us > e[1].published_at_us);
    sf_history_free(h);
    assert_int_equal(sf_history_list(&h, w->rt, "mem://cleanup-test", NULL, 2, &w->err), SF_INVALID);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_runs_without_manifest),
        TEST(test_the_time_is_the_store_s),
        cmocka_unit_test(test_the_time_is_the_file_system_s),
        cmocka_unit_test(test_the_time_is_the_bucket_s),
        TEST(test_names_count_by_segment),
        TEST(test_history_is_kept),
        TEST(test_shards_in_use_elsewhere),
        TEST(test_stale_attempts),
        TEST(test_nothing_is_deleted_blindly),
        TEST(test_pointer_moves_meanwhile),
        TEST(test_cut_short),
        TEST(test_rollback_refuses_what_is_gone),
        TEST(test_rollback_without_pointer),
        TEST(test_history),
        TEST(test_without_memory),
    };

    return cmocka_run_group_tests_name("cleanup", tests, NULL, NULL);
}
