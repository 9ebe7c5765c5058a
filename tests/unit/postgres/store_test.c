/* Publishing to a real PostgreSQL, whose URL is in SF_POSTGRES_URL (tests/support/postgres_server.py): tools/test_over_s3.sh. What
 * happens when the server is killed, hangs or loses rows is in tests/python/test_postgres_command.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "shardyfusion/postgres.h"

#define PREFIX "mem://postgres-store/snap"
#define WRITERS 4

static sf_runtime *rt;
static sf_postgres *db;

static void check(sf_status rc, const sf_error *err)
{
    if (rc != SF_OK)
        fail_msg("%s: %s", sf_status_name(rc), err->message);
}

static int set_up(void **state)
{
    static unsigned number;
    sf_postgres_options o = SF_POSTGRES_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    char table[32], pointer[48];

    (void)state;
    snprintf(table, sizeof(table), "c%d_%u", (int)getpid(), number++);
    snprintf(pointer, sizeof(pointer), "%s_pointer", table);
    o.table_name = table;
    o.pointer_table_name = pointer;
    check(sf_runtime_new(&rt, NULL, &err), &err);
    check(sf_postgres_open(&db, getenv("SF_POSTGRES_URL"), &o, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sf_postgres_release(db);
    sf_runtime_release(rt);
    return 0;
}

static sf_status publish(const char *run_id, unsigned rows, sf_expected_current expected, const char *ref,
                         char found[64], sf_error *err)
{
    sf_manifest_store store = sf_postgres_manifest_store(db);
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_writer *w;
    sf_status rc;

    o.num_dbs = 3;
    o.run_id = run_id;
    o.manifests = &store;
    o.expected_current = expected;
    o.expected_ref = ref;
    o.custom_json = "{\"why\": \"\\u00e9\"}";
    rc = sf_writer_open(&w, rt, PREFIX, &o, err);
    if (rc != SF_OK)
        return rc;
    for (unsigned i = 0; i < rows && rc == SF_OK; i++) {
        sf_key key = sf_key_int(i);

        rc = sf_writer_add(w, &key, (sf_bytes){(const uint8_t *)run_id, strlen(run_id)}, err);
    }
    if (rc == SF_OK)
        rc = sf_writer_finish(w, err);
    if (found && sf_writer_report(w)->found_ref)
        snprintf(found, 64, "%s", sf_writer_report(w)->found_ref);
    sf_writer_free(w);
    return rc;
}

/* What a reader that opens now serves under key 1, which is the run's id. */
static void expect_served(const char *run_id, unsigned rows)
{
    sf_manifest_source source = sf_postgres_manifest_source(db);
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    sf_key key = sf_key_int(1);
    sf_value value = {0};
    sf_snapshot_info info;
    sf_snapshot *snap;
    sf_reader *r;

    o.manifests = &source;
    check(sf_reader_open(&r, rt, "a database", &o, &err), &err);
    snap = sf_reader_borrow(r, &err);
    assert_non_null(snap);
    sf_snapshot_get_info(snap, &info);
    assert_int_equal(info.row_count, rows);
    assert_non_null(strstr(info.custom_json, "\"why\""));
    sf_snapshot_give_back(snap);
    check(sf_reader_get(r, &key, 10000, &value, &err), &err);
    assert_int_equal(value.bytes.n, strlen(run_id));
    assert_memory_equal(value.bytes.p, run_id, value.bytes.n);
    sf_value_release(&value);
    sf_reader_free(r);
}

static void test_tables_that_are_not_there(void **state)
{
    sf_error err = SF_ERROR_INIT;

    (void)state;
    assert_int_equal(publish("one", 3, SF_EXPECT_ANY, NULL, NULL, &err), SF_NOT_FOUND); /* before the first row */
    assert_non_null(strstr(err.message, "does not exist"));
    check(sf_postgres_create_tables(db, &err), &err);
    check(sf_postgres_create_tables(db, &err), &err);
}

static void test_publishing(void **state)
{
    sf_error err = SF_ERROR_INIT;
    sf_history_entry *entries;
    char found[64] = "";
    size_t count;

    (void)state;
    check(sf_postgres_create_tables(db, &err), &err);
    check(publish("one", 10, SF_EXPECT_ABSENT, NULL, NULL, &err), &err);
    expect_served("one", 10);
    assert_int_equal(publish("two", 5, SF_EXPECT_ABSENT, NULL, found, &err), SF_CONFLICT);
    assert_string_equal(found, "one");
    check(publish("two", 5, SF_EXPECT_REF, "one", NULL, &err), &err);
    expect_served("two", 5);
    check(publish("two", 7, SF_EXPECT_ANY, NULL, NULL, &err), &err); /* the same run again */
    expect_served("two", 7);
    check(sf_postgres_list(db, 10, &entries, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_true(strcmp(entries[0].ref, "two") == 0 && entries[0].is_current && !entries[1].is_current);
    sf_postgres_entries_free(entries, count);
}

static void test_clean_up(void **state)
{
    sf_manifest_store store = sf_postgres_manifest_store(db);
    sf_cleanup_options o = SF_CLEANUP_OPTIONS_INIT;
    sf_cleanup_report *report;
    sf_error err = SF_ERROR_INIT;
    sf_history_entry *entries;
    size_t count;

    (void)state;
    check(sf_postgres_create_tables(db, &err), &err);
    for (char run_id[] = "clean-1"; run_id[6] < '5'; run_id[6]++)
        check(publish(run_id, 10, SF_EXPECT_ANY, NULL, NULL, &err), &err);
    check(sf_postgres_set_current(db, "clean-2", SF_EXPECT_ANY, NULL, &err), &err);
    o.manifests = &store;
    o.keep_last = 1;
    o.old_runs = true;
    o.min_age_ms = 0;
    check(sf_cleanup(&report, rt, PREFIX, &o, &err), &err);
    sf_cleanup_leftovers(report, &count);
    assert_int_equal(count, 6); /* manifest, shards and record of two runs: clean-4 is the newest, clean-2 is served */
    sf_cleanup_report_free(report);
    expect_served("clean-2", 10);
    check(sf_postgres_list(db, 10, &entries, &count, &err), &err);
    assert_int_equal(count, 2);
    assert_string_equal(entries[0].ref, "clean-4");
    sf_postgres_entries_free(entries, count);
}

struct contender {
    char run_id[16];
    sf_status rc;
};

static void *contend(void *ctx)
{
    struct contender *c = ctx;
    sf_error err = SF_ERROR_INIT;

    c->rc = publish(c->run_id, 4, SF_EXPECT_REF, "begin", NULL, &err);
    return NULL;
}

static void test_of_publishers_that_race_one_wins(void **state)
{
    struct contender c[WRITERS];
    pthread_t threads[WRITERS];
    sf_error err = SF_ERROR_INIT;
    size_t won = 0;

    (void)state;
    check(sf_postgres_create_tables(db, &err), &err);
    check(publish("begin", 4, SF_EXPECT_ANY, NULL, NULL, &err), &err);
    for (size_t i = 0; i < WRITERS; i++) {
        snprintf(c[i].run_id, sizeof(c[i].run_id), "racer-%zu", i);
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &c[i]), 0);
    }
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < WRITERS; i++) {
        won += c[i].rc == SF_OK;
        if (c[i].rc == SF_OK)
            expect_served(c[i].run_id, 4);
        else
            assert_int_equal(c[i].rc, SF_CONFLICT);
    }
    assert_int_equal(won, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tables_that_are_not_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_publishing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clean_up, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_of_publishers_that_race_one_wins, set_up, tear_down),
    };

    if (!getenv("SF_POSTGRES_URL")) {
        fputs("SF_POSTGRES_URL is not set: run tools/test_over_s3.sh\n", stderr);
        return 1;
    }
    return cmocka_run_group_tests_name("postgres store", tests, NULL, NULL);
}
