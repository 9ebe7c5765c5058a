/* What does not go as planned: requests that fail once or hang, memory that runs out, a registry that cannot be written;
 * and that the same rows give the same files however they come. */
#include "world.h"

#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------ retries -------------------------------------- */

/* One request fails in a way that may pass. The shard that it hits is built again, from rows of which some were written
 * twice; everything else that can do without the answer goes on. */
static void test_shards_are_retried(void **state)
{
    struct world *w = *state;
    unsigned retried = 0, failed = 0;
    size_t objects;
    unsigned long n;

    world_publish(w, "whole", 60, 2);
    objects = world_object_count(w, "shards/run_id=whole");
    for (n = 1; n < 1000; n++) {
        sf_writer_options o = world_options();
        sf_writer *writer;
        char run_id[32], folder[64];
        bool again = false;
        sf_status rc;

        snprintf(run_id, sizeof(run_id), "run-%lu", n);
        snprintf(folder, sizeof(folder), "shards/run_id=%s", run_id);
        o.run_id = run_id;
        o.max_retries = 1;
        o.threads = 1;
        fault_store_reset(w->faults);
        w->faults->kind = n % 2 ? FAULT_REFUSE : FAULT_LOSE;
        w->faults->status = SF_UNAVAILABLE;
        w->faults->at = n;
        writer = world_writer(w, &o);
        assert_int_equal(world_add_rows(w, writer, 60, 1, false), SF_OK);
        assert_int_equal(world_add_rows(w, writer, 60, 2, true), SF_OK);
        rc = sf_writer_finish(writer, &w->err);
        if (!w->faults->fired) {
            assert_int_equal(rc, SF_OK);
            sf_writer_free(writer);
            break;
        }
        fault_store_reset(w->faults);
        for (size_t i = 0; i < sf_writer_report(writer)->winner_count; i++)
            again = again || sf_writer_report(writer)->winners[i].attempt == 1;
        retried += rc == SF_OK && again;
        if (rc == SF_OK) {
            assert_int_equal(sf_writer_report(writer)->duplicates, 60);
            world_expect_current(w, run_id);
            world_expect_snapshot(w, 60, 2);
            assert_int_equal(world_object_count(w, folder), objects); /* what failed has been taken back */
        } else {                                                      /* the manifest or the pointer */
            assert_int_equal(rc, SF_UNAVAILABLE);
            failed++;
        }
        sf_writer_free(writer);
    }
    assert_true(n < 1000);
    assert_true(retried >= 8);
    assert_true(failed >= 1 && failed <= 4);
}

static void test_retries_end(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();

    world_publish(w, "r0", 10, 1);
    o.max_retries = 3;
    w->faults->kind = FAULT_REFUSE;
    w->faults->status = SF_UNAVAILABLE;
    w->faults->at = 2; /* behind the run record */
    w->faults->requests = 0;
    w->faults->for_good = true;
    assert_int_equal(world_try_publish(w, &o, 60, 2), SF_UNAVAILABLE);
    assert_true(w->err.db_id >= 0);
    fault_store_reset(w->faults);
    world_expect_current(w, "r0");
    world_expect_snapshot(w, 10, 1);
}

/* The same run id again, without retries: nothing of the first run is touched. Where its attempts cannot be listed, the
 * next numbers are found by trying. */
static void test_run_id_twice(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    char *before, *after;

    world_publish(w, "r1", 10, 1);
    before = world_objects(w, "shards");
    o.new_run_id = true; /* not so */
    o.max_retries = 0;
    assert_int_equal(world_try_publish(w, &o, 20, 2), SF_INVALID);
    assert_non_null(strstr(w->err.message, "run id 'r1' has shards already"));
    after = world_objects(w, "shards");
    assert_string_equal(before, after);
    free(after);
    world_expect_snapshot(w, 10, 1);
    o.max_retries = 1; /* under the next number there is room */
    assert_int_equal(world_try_publish(w, &o, 20, 2), SF_OK);
    world_expect_snapshot(w, 20, 2);
    o.new_run_id = false;
    o.max_retries = 0;
    assert_int_equal(world_try_publish(w, &o, 30, 3), SF_OK);
    world_expect_snapshot(w, 30, 3);
    after = world_objects(w, "shards");
    for (const char *line = before; *line; line = strchr(line, '\n') + 1) {
        char name[300];

        snprintf(name, sizeof(name), "%.*s\n", (int)strcspn(line, "\n"), line);
        assert_non_null(strstr(after, name)); /* the first snapshot may be rolled back to */
    }
    assert_non_null(strstr(after, "/attempt=02/"));
    free(before);
    free(after);
}

/* ------------------------------------------------------------------ hanging -------------------------------------- */

/* The first call tells of the phase, the second that it lasts. */
static bool cancel_what_lasts(void *ctx, const sf_write_progress *p)
{
    return p->phase != SF_PHASE_BUILDING || ++*(unsigned *)ctx < 2;
}

static void test_cancel_a_hanging_request(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    unsigned calls = 0;

    o.progress = cancel_what_lasts;
    o.progress_ctx = &calls;
    o.progress_interval_ms = 0;
    w->faults->kind = FAULT_HOLD;
    w->faults->at = 4;
    assert_int_equal(world_try_publish(w, &o, 60, 1), SF_CANCELLED);
    assert_true(w->faults->fired);
    fault_store_reset(w->faults);
    world_expect_current(w, NULL);
    assert_int_equal(world_object_count(w, "shards"), 0);
    assert_int_equal(world_object_count(w, "manifests"), 0);
}

/* ------------------------------------------------------------------ run record ----------------------------------- */

static void test_registry_fails(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer;

    w->faults->kind = FAULT_REFUSE;
    w->faults->status = SF_UNAVAILABLE;
    w->faults->at = 2; /* the first looks for other writers of the run */
    writer = world_writer(w, &o);
    assert_non_null(writer);
    assert_true(w->faults->fired);
    assert_null(sf_writer_report(writer)->run_record_ref);
    assert_int_equal(world_add_rows(w, writer, 10, 1, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    sf_writer_free(writer);
    assert_int_equal(world_object_count(w, "runs"), 0);
    world_expect_snapshot(w, 10, 1);
}

/* What would keep the shards from being stored, too, ends the writer before its first row; what may pass does not. */
static void test_a_store_that_will_not_do(void **state)
{
    static const struct {
        sf_status status;
        bool opens;
    } cases[] = {{SF_DENIED, false},     {SF_NOT_FOUND, false}, {SF_IO, false},      {SF_INVALID, false},
                 {SF_UNAVAILABLE, true}, {SF_TIMEOUT, true},    {SF_CONFLICT, true}, {SF_UNSUPPORTED, true}};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_writer_options o = world_options();
        sf_writer *writer;

        o.run_id = NULL;
        fault_store_reset(w->faults);
        w->faults->kind = FAULT_REFUSE;
        w->faults->status = cases[i].status;
        w->faults->at = 1;
        w->faults->for_good = true;
        writer = world_writer(w, &o);
        if (!writer != !cases[i].opens || (!writer && w->err.code != cases[i].status))
            fail_msg("%s: %s", sf_status_name(cases[i].status), w->err.message);
        fault_store_reset(w->faults);
        sf_writer_free(writer);
    }
}

static void count_records(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT && strstr(op->key, "/run.yaml"))
        gate_arrive(f->ctx);
}

static void test_heartbeat(void **state)
{
    struct world *w = *state;
    struct gate beats = GATE_INIT;
    sf_writer_options o = world_options();
    sf_writer *writer;

    o.heartbeat_ms = 1;
    w->faults->after = count_records;
    w->faults->ctx = &beats;
    writer = world_writer(w, &o);
    gate_wait(&beats, 4); /* while nothing else happens */
    assert_int_equal(world_object_count(w, "runs"), 1);
    sf_writer_free(writer);
    w->faults->after = NULL;
}

/* The record was not renewed and a clean-up took the run for dead: it must not announce what is gone. */
static void test_lapsed_lease(void **state)
{
    struct world *w = *state;

    for (int gone = 0; gone < 2; gone++) {
        sf_writer_options o = world_options();
        sf_writer *writer;

        o.run_id = gone ? "gone" : "there";
        writer = world_writer(w, &o);
        assert_int_equal(world_add_rows(w, writer, 20, 1, false), SF_OK);
        assert_int_equal(sf_writer_build(writer, &w->err), SF_OK);
        sf_mutex_lock(&writer->lease.lease.lock);
        writer->lease.lease.renewed_ms -= o.lease_ms + 1; /* as if time had passed */
        sf_mutex_unlock(&writer->lease.lease.lock);
        if (gone)
            world_delete(w, "shards/run_id=gone/db=00001");
        assert_int_equal(sf_writer_publish(writer, &w->err), gone ? SF_NOT_FOUND : SF_OK);
        if (gone)
            assert_non_null(strstr(w->err.message, "shard 1 is gone: the lease of run gone had run out"));
        sf_writer_free(writer);
        world_expect_current(w, "there");
    }
    assert_int_equal(world_object_count(w, "shards/run_id=gone"), 0);
}

/* A child of the process that opened the writer can do nothing with it, and does not hang. */
static void test_fork(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);
    int status = -1;
    pid_t pid;

#ifdef __SANITIZE_THREAD__
    sf_writer_free(writer);
    skip(); /* it cannot follow threads into a forked process */
#endif
    assert_int_equal(world_add_rows(w, writer, 20, 1, false), SF_OK);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        bool ok = world_add_rows(w, writer, 1, 1, false) == SF_FORKED && sf_writer_finish(writer, &w->err) == SF_FORKED;

        sf_writer_abort(writer, NULL, NULL);
        sf_writer_free(writer);
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    sf_writer_free(writer);
    world_expect_snapshot(w, 20, 1);
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static void test_without_memory(void **state)
{
    struct world *w = *state;
    unsigned refused = 0;
    sf_status rc = SF_NOMEM;
    unsigned long n;

    world_publish(w, "before", 5, 1);
    for (n = 0; n < 20000; n += n < 200 ? 1 : 7) {
        sf_writer_options o = world_options();
        char run_id[32];
        bool fired;

        snprintf(run_id, sizeof(run_id), "mem-%lu", n);
        o.run_id = run_id;
        o.num_dbs = 2;
        o.threads = 1;
        o.sample_keys = 3;
        heap_arm(&w->heap, (long)n);
        rc = world_try_publish(w, &o, 12, 2);
        fired = heap_disarm(&w->heap);
        if (rc == SF_OK)
            world_expect_current(w, run_id);
        else if (rc != SF_NOMEM)
            fail_msg("allocation %lu: %s %s", n, sf_status_name(rc), w->err.message);
        refused += rc == SF_NOMEM;
        if (!fired)
            break;
    }
    assert_int_equal(rc, SF_OK);
    assert_true(n < 20000);
    assert_true(refused > 50);
    world_expect_snapshot(w, 12, 2);
}

/* ------------------------------------------------------------------ the same rows -------------------------------- */

/* All objects of a run's shards, names below the run and bytes; SlateDB's manifest holds the time and a random id. */
static void expect_same_objects(struct world *w, const char *name, const char *run_a, const char *run_b)
{
    char folder[64], *a, *b;
    size_t compared = 0;

    snprintf(folder, sizeof(folder), "shards/run_id=%s", run_a);
    a = world_objects(w, folder);
    snprintf(folder, sizeof(folder), "shards/run_id=%s", run_b);
    b = world_objects(w, folder);
    for (char *p = a, *q = b; *p || *q;) {
        size_t n = strcspn(p, "\n"), m = strcspn(q, "\n"), skip = strlen("shards/run_id=") + 1;
        sf_buf *x, *y;

        if (n != m || strncmp(p + skip, q + skip, n - skip) != 0)
            fail_msg("%s: %.*s and %.*s", name, (int)n, p, (int)m, q);
        p[n] = q[m] = '\0';
        x = world_get(w, p);
        y = world_get(w, q);
        if (!strstr(p, "/manifest/")) {
            if (!sf_bytes_eq(sf__buf_bytes(x), sf__buf_bytes(y)))
                fail_msg("%s: %s differs", name, p);
            compared++;
        }
        sf__buf_release(x);
        sf__buf_release(y);
        p += n + 1;
        q += m + 1;
    }
    assert_true(compared >= 4);
    free(a);
    free(b);
}

static void test_same_rows_same_files(void **state)
{
    static const struct {
        const char *name;
        sf_backend backend;
        uint32_t threads;
        bool backwards;
        uint64_t memory_bytes;
        sf_compression compression;
    } cases[] = {
        {"SlateDB, other order", SF_BACKEND_SLATEDB, 1, true, 1 << 20, SF_COMPRESSION_NONE},
        {"SlateDB, threads", SF_BACKEND_SLATEDB, 4, false, 1 << 20, SF_COMPRESSION_ZSTD},
        {"SlateDB, spilled", SF_BACKEND_SLATEDB, 4, true, 1 << 16, SF_COMPRESSION_LZ4},
        {"SQLite, other order", SF_BACKEND_SQLITE, 1, true, 1 << 20, SF_COMPRESSION_NONE},
        {"SQLite, threads and spilled", SF_BACKEND_SQLITE, 4, true, 1 << 16, SF_COMPRESSION_NONE},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_slatedb_options slatedb = SF_SLATEDB_OPTIONS_INIT;
        sf_sqlite_options sqlite = SF_SQLITE_OPTIONS_INIT;
        sf_writer_options o = world_options();
        sf_writer *writers[2];

        slatedb.compression = cases[i].compression;
        sqlite.sidecar = false; /* it is bound to the ETag, which a store makes up */
        o.backend = cases[i].backend;
        o.slatedb = &slatedb;
        o.sqlite = &sqlite;
        o.spill_folder = w->folder;
        for (int k = 0; k < 2; k++) {
            o.run_id = k == 0 ? "a" : "b";
            o.threads = k == 0 ? 1 : cases[i].threads;
            o.memory_bytes = k == 0 ? 8 << 20 : cases[i].memory_bytes;
            writers[k] = world_writer(w, &o);
            assert_non_null(writers[k]);
            assert_int_equal(world_add_rows(w, writers[k], 4000, 3, k == 1 && cases[i].backwards), SF_OK);
            if (sf_writer_build(writers[k], &w->err) != SF_OK)
                fail_msg("%s: %s", cases[i].name, w->err.message);
        }
        assert_int_equal(sf_writer_report(writers[0])->spilled_bytes, 0);
        assert_int_equal(sf_writer_report(writers[1])->spilled_bytes > 0, cases[i].memory_bytes < 1 << 20);
        for (size_t j = 0; j < 4; j++)
            assert_string_equal(sf_writer_report(writers[0])->attempts[j].content_hash,
                                sf_writer_report(writers[1])->attempts[j].content_hash);
        expect_same_objects(w, cases[i].name, "a", "b");
        for (int k = 0; k < 2; k++) {
            sf_writer_abort(writers[k], NULL, NULL);
            sf_writer_free(writers[k]);
        }
        assert_int_equal(world_object_count(w, "shards"), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_shards_are_retried),
        WORLD_TEST(test_retries_end),
        WORLD_TEST(test_run_id_twice),
        WORLD_TEST(test_cancel_a_hanging_request),
        WORLD_TEST(test_registry_fails),
        WORLD_TEST(test_a_store_that_will_not_do),
        WORLD_TEST(test_heartbeat),
        WORLD_TEST(test_lapsed_lease),
        WORLD_TEST(test_fork),
        WORLD_TEST(test_without_memory),
        WORLD_TEST(test_same_rows_same_files),
    };

    return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}
