/* One shard at a place of the caller's: what is written is what a reader finds, and a failure leaves nothing. */
#include "world.h"

#include <sys/wait.h>
#include <unistd.h>

#define ROWS 1500u

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_bytes key_of(unsigned i, char buf[32])
{
    return (sf_bytes){(uint8_t *)buf, (size_t)snprintf(buf, 32, "key-%05u", i)};
}

static sf_bytes value_of(unsigned i, unsigned version, char buf[64])
{
    return (sf_bytes){(uint8_t *)buf, (size_t)snprintf(buf, 64, "value %u of version %u", i, version)};
}

static sf_status add_rows(sf_shard_builder *b, unsigned version, bool backwards, sf_error *err)
{
    sf_status rc = SF_OK;

    for (unsigned i = 0; i < ROWS && rc == SF_OK; i++) {
        unsigned n = backwards ? ROWS - 1 - i : i;
        char key[32], value[64];

        rc = sf_shard_builder_add(b, key_of(n, key), value_of(n, version, value), err);
    }
    return rc;
}

static void url_of(const struct world *w, const char *name, char url[600])
{
    snprintf(url, 600, "%s/%s", w->prefix, name);
}

/* Opened, both versions added (the second counts), finished. */
static sf_status write_shard(struct world *w, const char *name, const sf_shard_builder_options *o, sf_shard_summary *s)
{
    sf_shard_builder *b = NULL;
    char url[600];
    sf_status rc;

    url_of(w, name, url);
    rc = sf_shard_builder_open(&b, w->rt, url, o, &w->err);
    if (rc == SF_OK)
        rc = add_rows(b, 1, false, &w->err);
    if (rc == SF_OK)
        rc = add_rows(b, 2, true, &w->err);
    if (rc == SF_OK)
        rc = sf_shard_builder_finish(b, s, &w->err);
    sf_shard_builder_free(b);
    return rc;
}

static void expect_rows(struct world *w, const char *name)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_snapshot *shard;
    const sf_row *rows;
    sf_scan *scan;
    unsigned seen = 0;
    char url[600];
    size_t n;

    url_of(w, name, url);
    assert_int_equal(sf_snapshot_open_shard(&shard, w->rt, url, NULL, NULL, 10000, &w->err), SF_OK);
    assert_int_equal(sf_scan_open(&scan, shard, &o, &w->err), SF_OK);
    do {
        assert_int_equal(sf_scan_next(scan, 100, 10000, &rows, &n, &w->err), SF_OK);
        for (size_t i = 0; i < n; i++, seen++) {
            char key[32], value[64];

            assert_true(sf_bytes_eq(rows[i].key, key_of(seen, key)));
            assert_true(sf_bytes_eq(rows[i].value, value_of(seen, 2, value)));
        }
    } while (n > 0);
    assert_int_equal(seen, ROWS);
    sf_scan_close(scan);
    sf_snapshot_give_back(shard);
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static void test_rows_come_back(void **state)
{
    struct world *w = *state;
    sf_shard_builder_options small = SF_SHARD_BUILDER_OPTIONS_INIT;
    sf_shard_summary first = {0}, second = {0};

    assert_int_equal(write_shard(w, "a", NULL, &first), SF_OK);
    small.memory_bytes = 64 << 10; /* it spills */
    small.spill_folder = w->folder;
    assert_int_equal(write_shard(w, "b", &small, &second), SF_OK);
    expect_rows(w, "a");
    expect_rows(w, "b");
    assert_int_equal(first.rows, ROWS);
    assert_int_equal(first.rows_added, 2 * ROWS);
    assert_true(first.stored_bytes > 0 && first.db_bytes > 0);
    assert_string_equal(first.content_hash, second.content_hash);
    assert_int_equal(strlen(first.checkpoint_id), 32);
}

static void test_sqlite(void **state)
{
    struct world *w = *state;
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;
    sf_shard_summary s = {0};
    sf_buf *db;

    o.backend = SF_BACKEND_SQLITE;
    o.spill_folder = w->folder;
    assert_int_equal(write_shard(w, "s", &o, &s), SF_OK);
    assert_int_equal(s.rows, ROWS);
    db = world_get(w, "s/shard.db");
    assert_non_null(db);
    assert_int_equal(sf__buf_bytes(db).n, s.db_bytes);
    sf__buf_release(db);
}

static void test_no_rows_are_a_shard_too(void **state)
{
    struct world *w = *state;
    sf_shard_builder *b;
    sf_shard_summary s;
    char url[600];

    url_of(w, "empty", url);
    assert_int_equal(sf_shard_builder_open(&b, w->rt, url, NULL, &w->err), SF_OK);
    assert_int_equal(sf_shard_builder_finish(b, &s, &w->err), SF_OK);
    assert_int_equal(s.rows, 0);
    sf_shard_builder_free(b);
    assert_true(world_object_count(w, "empty") > 0);
}

static void test_what_is_refused(void **state)
{
    struct world *w = *state;
    static uint8_t long_key[65536];
    struct {
        const char *name;
        sf_bytes key;
    } rows[] = {{"empty", {NULL, 0}}, {"too long", {long_key, sizeof(long_key)}}};
    sf_shard_builder *b = NULL;
    sf_shard_summary s;
    char url[600], key[32], value[64];

    assert_int_equal(sf_shard_builder_open(&b, w->rt, "nowhere://x/y", NULL, &w->err), SF_INVALID);
    assert_null(b);
    assert_int_equal(write_shard(w, "taken", NULL, &s), SF_OK);
    assert_int_equal(write_shard(w, "taken", NULL, &s), SF_CONFLICT);
    assert_non_null(strstr(w->err.message, "the database: "));
    assert_null(strstr(w->err.message, "-1"));
    expect_rows(w, "taken");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        url_of(w, "refused", url);
        assert_int_equal(sf_shard_builder_open(&b, w->rt, url, NULL, &w->err), SF_OK);
        assert_int_equal(sf_shard_builder_add(b, key_of(1, key), value_of(1, 1, value), &w->err), SF_OK);
        if (sf_shard_builder_add(b, rows[i].key, (sf_bytes){NULL, 0}, &w->err) != SF_BAD_ROW)
            fail_msg("%s: not refused", rows[i].name);
        assert_memory_equal(w->err.message, "row 2: ", 7);
        assert_int_equal(sf_shard_builder_add(b, key_of(2, key), value_of(2, 1, value), &w->err), SF_STATE);
        assert_int_equal(sf_shard_builder_finish(b, &s, &w->err), SF_STATE);
        sf_shard_builder_free(b);
    }
    assert_int_equal(world_object_count(w, "refused"), 0);
}

static void test_cancelled(void **state)
{
    struct world *w = *state;
    sf_shard_builder *b;
    sf_shard_summary s;
    char url[600];

    url_of(w, "cancelled", url);
    assert_int_equal(sf_shard_builder_open(&b, w->rt, url, NULL, &w->err), SF_OK);
    assert_int_equal(add_rows(b, 1, false, &w->err), SF_OK);
    sf_shard_builder_cancel(b);
    assert_int_equal(sf_shard_builder_finish(b, &s, &w->err), SF_CANCELLED);
    sf_shard_builder_free(b);
    assert_int_equal(world_object_count(w, "cancelled"), 0);
}

static void test_every_allocation_fails_once(void **state)
{
    struct world *w = *state;
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;
    unsigned failed = 0;
    long n;

    o.memory_bytes = 64 << 10;
    o.spill_folder = w->folder;
    for (n = 0; n < 10000; n++) {
        sf_shard_summary s;
        char name[32];
        sf_status rc;

        snprintf(name, sizeof(name), "nth-%ld", n);
        heap_arm(&w->heap, n);
        rc = write_shard(w, name, &o, &s);
        if (!heap_disarm(&w->heap)) {
            assert_int_equal(rc, SF_OK);
            expect_rows(w, name);
            break;
        }
        if (rc == SF_OK) /* that one could be done without */
            expect_rows(w, name);
        else
            failed++;
    }
    assert_true(n < 10000);
    assert_true(failed > 10);
}

/* The thread that spills is not there in the child: nobody may wait for it. */
static void test_a_forked_child_is_told(void **state)
{
    struct world *w = *state;
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;
    sf_shard_builder *b = NULL;
    sf_shard_summary s;
    char url[600];
    int status;
    pid_t child;

    o.memory_bytes = 1u << 16;
    url_of(w, "forked", url);
    assert_int_equal(sf_shard_builder_open(&b, w->rt, url, &o, &w->err), SF_OK);
    assert_int_equal(add_rows(b, 1, false, &w->err), SF_OK);
    assert_int_equal(add_rows(b, 2, true, &w->err), SF_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool told = sf_shard_builder_add(b, sf_bytes_str("key"), sf_bytes_str("value"), NULL) == SF_FORKED &&
                    sf_shard_builder_finish(b, &s, NULL) == SF_FORKED;

        sf_shard_builder_free(b);
        _exit(told ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(sf_shard_builder_finish(b, &s, &w->err), SF_OK);
    sf_shard_builder_free(b);
    expect_rows(w, "forked");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_rows_come_back),
        WORLD_TEST(test_sqlite),
        WORLD_TEST(test_no_rows_are_a_shard_too),
        WORLD_TEST(test_what_is_refused),
        WORLD_TEST(test_cancelled),
        WORLD_TEST(test_a_forked_child_is_told),
        WORLD_TEST(test_every_allocation_fails_once),
    };

    return cmocka_run_group_tests_name("one shard", tests, NULL, NULL);
}
