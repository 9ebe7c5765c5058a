/* Publishing over a store in memory: what is stored, who wins, what is refused, and what is left when it fails. */
#include "world.h"

#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "snapshot/run_record.h"
#include "writer/owner.h"

/* The only run record, parsed. */
static sf_run_record record_of(struct world *w, sf_arena *arena)
{
    char *objects = world_objects(w, "runs"), *end = strchr(objects, '\n');
    sf_run_record r;
    sf_buf *b;

    assert_non_null(end);
    assert_string_equal(end, "\n");
    *end = '\0';
    b = world_get(w, objects);
    assert_non_null(b);
    sf__arena_init(arena, &sf__allocator_default);
    assert_int_equal(sf__run_record_parse(&r, arena, sf__buf_bytes(b), &w->err), SF_OK);
    sf__buf_release(b);
    free(objects);
    return r;
}

/* ------------------------------------------------------------------ what is published ---------------------------- */

static void test_publish(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    const sf_write_report *r;
    sf_snapshot_manifest *m;
    sf_run_record record;
    sf_writer *writer;
    sf_arena arena;

    o.custom_json = " {\"z\": 1, \"a\": {\"c\": 2, \"b\": \"\xc3\xa9\"}, \"kv_backend\": \"mine\"} ";
    o.writer_type = "python";
    writer = world_writer(w, &o);
    assert_non_null(writer);
    record = record_of(w, &arena);
    assert_int_equal(record.status, SF_RUN_RUNNING);
    assert_string_equal(record.run_id, "r1");
    assert_string_equal(record.writer_type, "python");
    assert_string_equal(record.s3_prefix, w->prefix);
    assert_null(record.manifest_ref);
    assert_int_equal(record.lease_expires_at_us - record.updated_at_us, 600000000);
    sf__arena_cleanup(&arena);
    assert_int_equal(world_add_rows(w, writer, 1000, 1, false), SF_OK);
    if (sf_writer_finish(writer, &w->err) != SF_OK)
        fail_msg("%s", w->err.message);
    r = sf_writer_report(writer);
    assert_true(r->published);
    assert_int_equal(r->rows, 1000);
    assert_int_equal(r->published_rows, 1000);
    assert_int_equal(r->duplicates, 0);
    assert_int_equal(r->winner_count, 4);
    assert_int_equal(r->key_bytes, 8000);
    assert_int_equal(r->key_sizes[4], 1000);
    assert_true(r->largest_over_mean > 1 && r->largest_over_mean < 2);
    assert_null(r->warning);
    assert_int_equal(r->suggested_num_dbs, 1);
    m = world_manifest(w);
    assert_string_equal(m->run_id, "r1");
    assert_string_equal(m->s3_prefix, w->prefix);
    assert_string_equal(m->key_col, "_key");
    assert_string_equal(m->shard_prefix, "shards");
    assert_string_equal(m->kv_backend, "slatedb");
    assert_int_equal(m->num_dbs, 4);
    assert_int_equal(m->shard_count, 4);
    assert_non_null(strstr(m->custom_json, "\"a\": {\"b\": \"\\u00e9\", \"c\": 2}, \"content_hash\": {\"algorithm\": "));
    assert_non_null(strstr(m->custom_json, "\"kv_backend\": \"slatedb\", \"z\": 1}"));
    for (size_t i = 0; i < 4; i++) {
        char url[700];

        snprintf(url, sizeof(url), "%s/shards/run_id=r1/db=%05zu/attempt=00", w->prefix, i);
        assert_string_equal(m->shards[i].db_url, url);
        assert_string_equal(r->winners[i].db_url, url);
        assert_int_equal(strlen(m->shards[i].checkpoint_id), 32);
        assert_true(m->shards[i].row_count > 150 && m->shards[i].db_bytes > 0);
        assert_non_null(m->shards[i].min_key_json);
    }
    sf__snapshot_manifest_free(m);
    record = record_of(w, &arena);
    assert_int_equal(record.status, SF_RUN_SUCCEEDED);
    assert_string_equal(record.manifest_ref, r->manifest_ref);
    assert_int_equal(record.lease_expires_at_us, record.updated_at_us);
    sf__arena_cleanup(&arena);
    sf_writer_free(writer);
    world_expect_current(w, "r1");
    world_expect_snapshot(w, 1000, 1);
}

static void test_next_snapshot(void **state)
{
    struct world *w = *state;
    sf_history *h;
    const sf_history_entry *e;
    size_t n;

    world_publish(w, "r1", 300, 1);
    world_publish(w, "r2", 200, 2);
    world_expect_snapshot(w, 200, 2);
    assert_int_equal(sf_history_list(&h, w->rt, w->prefix, NULL, 10, &w->err), SF_OK);
    e = sf_history_entries(h, &n);
    assert_int_equal(n, 2);
    assert_string_equal(e[0].run_id, "r2");
    assert_true(e[0].is_current && !e[1].is_current);
    assert_int_equal(sf_rollback(w->rt, w->prefix, e[1].ref, NULL, &w->err), SF_OK);
    world_expect_current(w, "r1");
    world_expect_snapshot(w, 300, 1);
    sf_history_free(h);
}

static void test_no_rows(void **state)
{
    struct world *w = *state;
    sf_snapshot_manifest *m;

    world_publish(w, "r1", 0, 1);
    m = world_manifest(w);
    assert_int_equal(m->shard_count, 0);
    assert_int_equal(m->num_dbs, 4);
    sf__snapshot_manifest_free(m);
    assert_int_equal(world_object_count(w, "shards"), 0);
    world_expect_snapshot(w, 0, 1);
}

static void test_empty_shards_have_no_row(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_snapshot_manifest *m;

    o.num_dbs = 64;
    assert_int_equal(world_try_publish(w, &o, 3, 1), SF_OK);
    m = world_manifest(w);
    assert_true(m->shard_count >= 1 && m->shard_count <= 3);
    sf__snapshot_manifest_free(m);
    world_expect_snapshot(w, 3, 1);
}

/* ------------------------------------------------------------------ SQLite --------------------------------------- */

/* The rows of one shard.db, each checked. */
static unsigned count_rows(struct world *w, const char *name)
{
    sf_buf *file = world_get(w, name);
    sqlite3_stmt *stmt;
    unsigned rows = 0;
    sqlite3 *db;

    assert_non_null(file);
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(db, "main", file->data, (sqlite3_int64)file->n, (sqlite3_int64)file->n,
                                         SQLITE_DESERIALIZE_READONLY),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT k, v FROM kv", -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        char expected[64];
        int n;

        assert_int_equal(sqlite3_column_bytes(stmt, 0), 8);
        n = snprintf(expected, sizeof(expected), "value %u of version 4",
                     (unsigned)sf_load_be(sqlite3_column_blob(stmt, 0), 8));
        assert_int_equal(sqlite3_column_bytes(stmt, 1), n);
        assert_memory_equal(sqlite3_column_blob(stmt, 1), expected, n);
        rows++;
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    sf__buf_release(file);
    return rows;
}

/* As the golden snapshots with SQLite shards have it. */
static void test_sqlite(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_sqlite_options sqlite = SF_SQLITE_OPTIONS_INIT;
    sf_snapshot_manifest *m;
    unsigned rows = 0;

    o.backend = SF_BACKEND_SQLITE;
    o.sqlite = &sqlite;
    if (world_try_publish(w, &o, 2000, 4) != SF_OK)
        fail_msg("%s", w->err.message);
    m = world_manifest(w);
    assert_string_equal(m->kv_backend, "sqlite");
    assert_non_null(strstr(m->custom_json,
                           "\"kv_backend\": \"sqlite\", \"sqlite_sidecar\": {\"codec\": \"zstd\", \"filename\": "
                           "\"shard.sidecar\", \"format_version\": 8, \"page_size\": 4096}}"));
    assert_int_equal(m->shard_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        char name[100];
        sf_buf *b;

        snprintf(name, sizeof(name), "shards/run_id=r1/db=%05u/attempt=00/shard.sidecar", i);
        b = world_get(w, name);
        assert_non_null(b);
        sf__buf_release(b);
        snprintf(name, sizeof(name), "shards/run_id=r1/db=%05u/attempt=00/shard.db", i);
        b = world_get(w, name);
        assert_int_equal(b->n, m->shards[i].db_bytes);
        sf__buf_release(b);
        rows += count_rows(w, name);
    }
    assert_int_equal(rows, 2000);
    sf__snapshot_manifest_free(m);
    sqlite.page_bytes = 0;
    o.run_id = "r2";
    assert_int_equal(world_try_publish(w, &o, 100, 4), SF_OK);
    m = world_manifest(w);
    assert_non_null(strstr(m->custom_json, "\"page_size\": \"auto\"}"));
    sf__snapshot_manifest_free(m);
    sqlite.sidecar = false;
    o.run_id = "r3";
    assert_int_equal(world_try_publish(w, &o, 100, 4), SF_OK);
    m = world_manifest(w);
    assert_null(strstr(m->custom_json, "sqlite_sidecar"));
    sf__snapshot_manifest_free(m);
}

/* Names that are no URLs: published, read, listed, rolled back to and cleaned up, wherever they lie. Below SF_WRITER_PREFIX
 * the ones in memory lie on a server. */
static void test_odd_names(void **state)
{
    static const char *const names[] = {
        "a%41", "%", "100%", "a b", "a?b=c&d", "a#b", "%2e%2e", "a%2Fb", "\xc3\xa4\xe2\x82\xac", "a+b", "a%00"};

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
        const char *name = names[i / 2];
        bool is_file = i % 2;
        char folder[] = "/tmp/sf-publish-test-XXXXXX", url[256], path_template[64];
        sf_writer_options o = world_options();
        sf_rollback_options back = SF_ROLLBACK_OPTIONS_INIT;
        sf_cleanup_options old = world_cleanup_options();
        sf_cleanup_report *report = NULL;
        sf_snapshot_manifest *m;
        const sf_leftover *left;
        sf_history *h;
        struct world w;
        size_t n;

        assert_non_null(mkdtemp(folder));
        snprintf(url, sizeof(url), is_file ? "%s/%s" : "mem://odd-names%s/%s", is_file ? folder : "", name);
        snprintf(path_template, sizeof(path_template), "%s-{db_id}", name);
        o.run_id = name;
        o.db_path_template = path_template;
        world_init(&w, url);
        if (world_try_publish(&w, &o, 20, 1) != SF_OK)
            fail_msg("%s: %s", url, w.err.message);
        world_expect_snapshot(&w, 20, 1);
        m = world_manifest(&w);
        for (size_t s = 0; s < m->shard_count; s++) { /* in a bucket they stand as they are, in a file URL as in any URL */
            char root[64], path[512], expected[1024];

            assert_int_equal(sf_url_split(m->shards[s].db_url, root, sizeof(root), path, sizeof(path), &w.err), SF_OK);
            snprintf(expected, sizeof(expected), "%s/shards/run_id=%s/%s-%zu/attempt=00", w.path, name, name, s);
            assert_string_equal(path, expected);
            if (strpbrk(m->shards[s].db_url, is_file ? " ?#" : "") || !!strstr(m->shards[s].db_url, path) < !is_file)
                fail_msg("%s: %s", url, m->shards[s].db_url);
        }
        sf__snapshot_manifest_free(m);
        o.run_id = "next";
        assert_int_equal(world_try_publish(&w, &o, 10, 2), SF_OK);
        assert_int_equal(sf_history_list(&h, w.rt, w.prefix, NULL, 10, &w.err), SF_OK);
        assert_int_equal(sf_history_entries(h, &n)[1].is_current, false);
        assert_int_equal(n, 2);
        assert_string_equal(sf_history_entries(h, &n)[1].run_id, name);
        if (sf_rollback(w.rt, w.prefix, sf_history_entries(h, &n)[1].ref, &back, &w.err) != SF_OK)
            fail_msg("%s: %s", url, w.err.message);
        sf_history_free(h);
        world_expect_snapshot(&w, 20, 1);
        world_expect_current(&w, name);
        old.old_runs = true;
        assert_int_equal(sf_cleanup(&report, w.rt, w.prefix, &old, &w.err), SF_OK);
        left = sf_cleanup_leftovers(report, &n);
        for (size_t l = 0; l < n; l++)
            assert_string_equal(left[l].run_id, "next");
        sf_cleanup_report_free(report);
        world_expect_snapshot(&w, 20, 1);
        assert_int_equal(world_cleanup(&w), 0);
        world_remove_folder(folder);
    }
}

/* The empty key has a place in SQLite, and none in SlateDB. */
static void test_empty_key(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_key key = sf_key_str("", 0);

    o.key_encoding = SF_KEY_UTF8;
    for (int i = 0; i < 2; i++) {
        sf_writer *writer;
        bool sqlite = i == 0;

        o.backend = sqlite ? SF_BACKEND_SQLITE : SF_BACKEND_SLATEDB;
        o.run_id = sqlite ? "r1" : "r2";
        writer = world_writer(w, &o);
        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_str("v"), &w->err), sqlite ? SF_OK : SF_BAD_ROW);
        if (sqlite)
            assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
        else
            assert_string_equal(w->err.message, "row 1: the key is empty");
        sf_writer_free(writer);
    }
    world_expect_current(w, "r1");
}

/* ------------------------------------------------------------------ keys ----------------------------------------- */

/* Keys that are not UTF-8 have no form in the manifest. */
static void test_raw_keys(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_snapshot_manifest *m;
    sf_writer *writer;
    sf_key keys[2] = {sf_key_bytes("\xff\xfe", 2), sf_key_bytes("abc", 3)};
    sf_bytes values[2] = {sf_bytes_str("1"), sf_bytes_str("2")};

    o.num_dbs = 1;
    o.key_encoding = SF_KEY_RAW;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_many(writer, keys, values, 2, &w->err), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    sf_writer_free(writer);
    m = world_manifest(w);
    assert_int_equal(m->shard_count, 1);
    assert_null(m->shards[0].min_key_json);
    assert_null(m->shards[0].max_key_json);
    sf__snapshot_manifest_free(m);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static void test_duplicates(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer = world_writer(w, &o);
    sf_snapshot_manifest *m;
    uint64_t rows = 0;

    assert_int_equal(world_add_rows(w, writer, 100, 7, false), SF_OK);
    assert_int_equal(world_add_rows(w, writer, 100, 8, true), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    assert_int_equal(sf_writer_report(writer)->duplicates, 100);
    assert_int_equal(sf_writer_report(writer)->rows, 200);
    assert_int_equal(sf_writer_report(writer)->published_rows, 100);
    assert_int_equal(sf_writer_report(writer)->published_duplicates, 100);
    sf_writer_free(writer);
    m = world_manifest(w); /* of rows that are stored */
    for (size_t i = 0; i < m->shard_count; i++)
        rows += m->shards[i].row_count;
    assert_int_equal(rows, 100);
    sf__snapshot_manifest_free(m);
    o.run_id = "r2";
    o.on_duplicate = SF_DUPLICATES_ERROR;
    o.threads = 1; /* else a put that is given up may be carried out by a server after all, behind the tidying up */
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 100, 7, false), SF_OK);
    assert_int_equal(world_add_rows(w, writer, 1, 8, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_BAD_ROW);
    assert_int_equal(w->err.code, SF_BAD_ROW);
    assert_string_equal(w->err.message, "row 101: duplicate key 0 in shard 1, row 1 has it already");
    sf_writer_free(writer);
    world_expect_current(w, "r1");
    assert_int_equal(world_object_count(w, "shards/run_id=r2"), 0);
}

/* A job's second half that brings only half of the rows, each twice: the gate counts what is stored. */
static void test_the_gate_counts_stored_rows(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    sf_writer *writer;

    world_publish(w, "r1", 100, 1);
    o.run_id = "r2";
    o.min_rows_share = 0.9;
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 50, 1, false), SF_OK);
    assert_int_equal(world_add_rows(w, writer, 50, 2, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_REFUSED);
    assert_string_equal(w->err.message, "not published: 50 rows are less than 0.9 of the 100 published before");
    sf_writer_free(writer);
    o.run_id = "r3";
    o.min_rows_share = 0;
    o.max_rows_share = 0.25;
    assert_int_equal(world_try_publish(w, &o, 50, 1), SF_REFUSED);
    assert_string_equal(w->err.message, "not published: 50 rows are more than 0.25 of the 100 published before");
}

/* Keys from 2^63 on are written, looked up and scanned as the smaller ones are. */
static void test_large_integer_keys(void **state)
{
    static const uint64_t keys[] = {0, 5, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
    struct world *w = *state;

    for (int backend = SF_BACKEND_SLATEDB; backend <= SF_BACKEND_SQLITE; backend++) {
        sf_writer_options o = world_options();
        sf_reader_options ro = SF_READER_OPTIONS_INIT;
        sf_writer *writer;
        sf_reader *reader;
        sf_key asked[6];
        sf_value values[6];

        o.backend = (sf_backend)backend;
        o.run_id = backend == SF_BACKEND_SQLITE ? "sqlite" : "slatedb";
        writer = world_writer(w, &o);
        for (size_t i = 0; i < 6; i++) {
            asked[i] = sf_key_uint(keys[i]);
            assert_int_equal(sf_writer_add(writer, &asked[i], sf_bytes_of(&keys[i], 8), &w->err), SF_OK);
        }
        assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
        sf_writer_free(writer);
        ro.sqlite_folder = w->folder;
        assert_int_equal(sf_reader_open(&reader, w->rt, w->prefix, &ro, &w->err), SF_OK);
        assert_int_equal(sf_reader_multi_get(reader, asked, 6, SF_TIMEOUT_NONE, values, &w->err), SF_OK);
        for (size_t i = 0; i < 6; i++) {
            sf_key small = sf_key_int((int64_t)keys[i]);
            uint8_t stored[8];
            sf_key bytes = sf_key_bytes(stored, 8), batch[3] = {asked[0], asked[1], bytes};
            sf_value v = {.found = false}, three[3];

            assert_true(values[i].found && sf_bytes_eq(values[i].bytes, sf_bytes_of(&keys[i], 8)));
            sf_value_release(&values[i]);
            if (keys[i] <= INT64_MAX) {
                assert_int_equal(sf_reader_get(reader, &small, SF_TIMEOUT_NONE, &v, &w->err), SF_OK);
                assert_true(v.found);
                sf_value_release(&v);
            }
            sf_store_be(stored, 8, keys[i]); /* the stored form is not a key */
            assert_int_equal(sf_reader_get(reader, &bytes, SF_TIMEOUT_NONE, &v, &w->err), SF_INVALID_KEY);
            assert_non_null(strstr(w->err.message, "requires integer lookup keys, got <class 'bytes'>"));
            assert_int_equal(sf_reader_try_get(reader, &bytes, &v, &w->err), SF_INVALID_KEY);
            assert_int_equal(sf_reader_multi_get(reader, batch, 3, SF_TIMEOUT_NONE, three, &w->err), SF_INVALID_KEY);
            assert_non_null(strstr(w->err.message, "key 3 of 3: "));
        }
        sf_reader_free(reader);
    }
}

static void test_bad_rows(void **state)
{
    static const struct {
        const char *name;
        sf_key_type type;
        int64_t i;
        const char *text;
    } cases[] = {{"negative", SF_KEY_INT, -1, ""}, {"text", SF_KEY_STR, 0, "x"}};
    struct world *w = *state;

    world_publish(w, "r0", 10, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_writer_options o = world_options();
        sf_key key = {.type = cases[i].type, .i = cases[i].i, .b = sf_bytes_str(cases[i].text)}, good = sf_key_int(1);
        sf_writer *writer;
        char run_id[32];

        snprintf(run_id, sizeof(run_id), "bad-%zu", i);
        o.run_id = run_id;
        writer = world_writer(w, &o);
        assert_int_equal(world_add_rows(w, writer, 41, 1, false), SF_OK);
        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_str("v"), &w->err), SF_BAD_ROW);
        if (strncmp(w->err.message, "row 42: ", 8) != 0)
            fail_msg("%s: %s", cases[i].name, w->err.message);
        assert_int_equal(sf_writer_add(writer, &good, sf_bytes_str("v"), &w->err), SF_STATE);
        assert_int_equal(sf_writer_finish(writer, &w->err), SF_STATE);
        sf_writer_abort(writer, "ValueError", "row 42");
        sf_writer_free(writer);
    }
    world_expect_current(w, "r0");
    assert_int_equal(world_object_count(w, "manifests"), 1);
}

struct left_out {
    uint64_t numbers[4];
    char why[4][128];
    size_t count, most; /* more than that fail */
};

static bool leave_out(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why)
{
    struct left_out *l = ctx;

    if (l->count == l->most)
        return false;
    assert_non_null(key);
    assert_int_equal(value.n, 1);
    l->numbers[l->count] = number;
    snprintf(l->why[l->count++], sizeof(l->why[0]), "%.127s", why->message);
    return true;
}

static void test_bad_rows_left_out(void **state)
{
    struct world *w = *state;
    struct left_out left = {.most = 3};
    const sf_key keys[] = {sf_key_int(1), sf_key_int(-1), sf_key_str("x", 1),
                           sf_key_int(2), sf_key_int(-2), sf_key_int(2)};
    sf_bytes values[6];
    sf_writer_options o = world_options();
    const sf_write_report *r;
    sf_writer *writer;

    for (size_t i = 0; i < 6; i++)
        values[i] = sf_bytes_str("v");
    o.on_bad_row = leave_out;
    o.on_bad_row_ctx = &left;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_many(writer, keys, values, 6, NULL), SF_OK);
    assert_int_equal(left.count, 3);
    assert_int_equal(left.numbers[0], 2);
    assert_int_equal(left.numbers[1], 3);
    assert_int_equal(left.numbers[2], 5);
    assert_non_null(strstr(left.why[1], "row 3: u64be encoding expects int key"));
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    r = sf_writer_report(writer);
    assert_int_equal(r->bad_rows, 3);
    assert_int_equal(r->rows, 3);
    assert_int_equal(r->published_rows, 2);
    sf_writer_free(writer);

    o.run_id = "r2";
    o.on_duplicate = SF_DUPLICATES_ERROR; /* the numbers in its message count all rows */
    left.count = 0;
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_many(writer, keys, values, 6, &w->err), SF_OK);
    assert_int_equal(sf_writer_build(writer, &w->err), SF_BAD_ROW);
    assert_non_null(strstr(w->err.message, "row 6: duplicate key 2"));
    assert_non_null(strstr(w->err.message, "row 4 has it already"));
    sf_writer_free(writer);

    o.run_id = "r3";
    left = (struct left_out){.most = 1};
    writer = world_writer(w, &o);
    assert_int_equal(sf_writer_add_many(writer, keys, values, 6, &w->err), SF_BAD_ROW);
    assert_non_null(strstr(w->err.message, "row 3: "));
    sf_writer_free(writer);
    world_expect_current(w, "r1");
}

/* ------------------------------------------------------------------ options -------------------------------------- */

static void test_options(void **state)
{
    struct world *w = *state;
    sf_writer_options good = world_options();
    sf_slatedb_options slatedb = SF_SLATEDB_OPTIONS_INIT;
    sf_sqlite_options sqlite = SF_SQLITE_OPTIONS_INIT;
    struct {
        const char *name;
        sf_writer_options o;
        const char *message;
    } cases[15];
    size_t n = 0;

    slatedb.block_bytes = 100;
    sqlite.page_bytes = 1000;
#define CASE(text, field, value, expected) \
    cases[n].name = text, cases[n].o = good, cases[n].o.field = value, cases[n++].message = expected
    CASE("shards", num_dbs, 0, "sharding.num_dbs must be > 0");
    CASE("many shards", num_dbs, UINT32_MAX, "sharding.num_dbs must be at most");
    CASE("slash in run id", run_id, "a/b", "must not contain '/'");
    CASE("empty run id", run_id, "", "must not be empty");
    CASE("encoding", key_encoding, (sf_key_encoding)9, "Unsupported key encoding");
    CASE("template", db_path_template, "{x}", "output.db_path_template must support");
    CASE("one folder", db_path_template, "x", "one folder");
    CASE("shard prefix", shard_prefix, "a/b", "output.shard_prefix must be a single path segment");
    CASE("registry", run_registry_prefix, "", "output.run_registry_prefix must be non-empty");
    CASE("custom", custom_json, "[1]", "no JSON object");
    CASE("custom text", custom_json, "{x}", "custom fields of the manifest");
    CASE("lease", lease_ms, 1000, "lease");
    CASE("endless lease", lease_ms, INT64_MAX, "century");
    CASE("block", slatedb, &slatedb, "block_bytes");
    CASE("page", sqlite, &sqlite, "page_size 1000");
#undef CASE
    assert_int_equal(n, sizeof(cases) / sizeof(cases[0]));
    for (size_t i = 0; i < n; i++) {
        assert_null(world_writer(w, &cases[i].o));
        if (w->err.code != SF_INVALID || !strstr(w->err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].name, w->err.message);
    }
    assert_int_equal(world_object_count(w, ""), 0);
}

/* A caller with a newer header may not ask for what we do not know; one with an older gets our defaults. */
static void test_option_sizes(void **state)
{
    struct world *w = *state;
    struct {
        sf_writer_options o;
        uint64_t more;
    } newer = {.o = world_options(), .more = 0};
    sf_writer *writer;

    newer.o.size = sizeof(newer);
    writer = world_writer(w, &newer.o);
    assert_non_null(writer);
    sf_writer_free(writer);
    newer.more = 1;
    assert_null(world_writer(w, &newer.o));
    assert_int_equal(w->err.code, SF_UNSUPPORTED);
    newer.o.size = offsetof(sf_writer_options, stage_id);
    writer = world_writer(w, &newer.o);
    assert_non_null(writer);
    assert_string_equal(writer->options.run_registry_prefix, "runs");
    sf_writer_free(writer);
    newer.o.size = 0;
    assert_null(world_writer(w, &newer.o));
}

/* Whoever is given these, a reader in this case, takes them so. */
static sf_status open_with_s3(struct world *w, const sf_s3_options *s3)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_reader *reader = NULL;
    sf_status rc;

    o.s3 = s3;
    rc = sf_reader_open(&reader, w->rt, w->prefix, &o, &w->err);
    sf_reader_free(reader);
    return rc;
}

static sf_status open_builder(struct world *w, sf_shard_builder **out, const char *url,
                              const sf_slatedb_options *slatedb, const sf_sqlite_options *sqlite)
{
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;

    o.slatedb = slatedb;
    o.sqlite = sqlite;
    return sf_shard_builder_open(out, w->rt, url, &o, &w->err);
}

/* The same of all others. `call` takes `o`, and is undone by `undo`. */
static void test_option_sizes_of_all(void **state)
{
    struct world *w = *state;
    sf_error *err = &w->err;
    sf_runtime *rt = NULL;
    sf_reader *reader = NULL;
    sf_snapshot *snap;
    sf_scan *scan = NULL;
    sf_bucket *bucket = NULL;
    sf_history *history = NULL;
    sf_cleanup_report *report = NULL;
    sf_shard_builder *builder = NULL;
    char ref[300], url[600];
    sf_snapshot_info info;

    world_publish(w, "r1", 10, 1);
    assert_int_equal(sf_reader_open(&reader, w->rt, w->prefix, NULL, err), SF_OK);
    snap = sf_reader_borrow(reader, err);
    sf_snapshot_get_info(snap, &info);
    snprintf(ref, sizeof(ref), "%s", info.manifest_ref);
    sf_reader_free(reader);
    assert_int_equal(sf_bucket_open(&bucket, w->rt, w->prefix, NULL, err), SF_OK);
    snprintf(url, sizeof(url), "%s/shard", w->prefix);
#define SIZES(type, init, call, undo)                                                  \
    do {                                                                               \
        struct {                                                                       \
            type o;                                                                    \
            uint64_t more[2];                                                          \
        } newer = {.o = init, .more = {0, 0}};                                         \
        const type *o = &newer.o;                                                      \
                                                                                       \
        newer.o.size = sizeof(newer);                                                  \
        if ((call) != SF_OK)                                                           \
            fail_msg(#type ", newer: %s", err->message);                               \
        undo;                                                                          \
        newer.o.size = sizeof(size_t);                                                 \
        if ((call) != SF_OK)                                                           \
            fail_msg(#type ", older: %s", err->message);                               \
        undo;                                                                          \
        newer.o.size = sizeof(newer);                                                  \
        newer.more[1] = 1;                                                             \
        if ((call) != SF_UNSUPPORTED || !strstr(err->message, "a newer field is set")) \
            fail_msg(#type ", with what is not known: %s", err->message);              \
        newer.o.size = 0;                                                              \
        if ((call) != SF_INVALID || !strstr(err->message, "size is not set"))          \
            fail_msg(#type ", without a size: %s", err->message);                      \
    } while (0)
    SIZES(sf_runtime_options, SF_RUNTIME_OPTIONS_INIT, sf_runtime_new(&rt, o, err), sf_runtime_release(rt));
    SIZES(sf_reader_options, SF_READER_OPTIONS_INIT, sf_reader_open(&reader, w->rt, w->prefix, o, err),
          sf_reader_free(reader));
    SIZES(sf_scan_options, SF_SCAN_OPTIONS_INIT, sf_scan_open(&scan, snap, o, err), sf_scan_close(scan));
    SIZES(sf_put_options, SF_PUT_OPTIONS_INIT, sf_bucket_put(bucket, "object", sf_bytes_str("x"), o, 10000, NULL, err),
          (void)0);
    SIZES(sf_s3_options, SF_S3_OPTIONS_INIT, open_with_s3(w, o), (void)0);
    SIZES(sf_site_options, SF_SITE_OPTIONS_INIT, sf_history_list(&history, w->rt, w->prefix, o, 10, err),
          sf_history_free(history));
    SIZES(sf_rollback_options, SF_ROLLBACK_OPTIONS_INIT, sf_rollback(w->rt, w->prefix, ref, o, err), (void)0);
    SIZES(sf_cleanup_options, SF_CLEANUP_OPTIONS_INIT, sf_cleanup(&report, w->rt, w->prefix, o, err),
          sf_cleanup_report_free(report));
    SIZES(sf_shard_builder_options, SF_SHARD_BUILDER_OPTIONS_INIT, sf_shard_builder_open(&builder, w->rt, url, o, err),
          sf_shard_builder_free(builder));
    SIZES(sf_slatedb_options, SF_SLATEDB_OPTIONS_INIT, open_builder(w, &builder, url, o, NULL),
          sf_shard_builder_free(builder));
    SIZES(sf_sqlite_options, SF_SQLITE_OPTIONS_INIT, open_builder(w, &builder, url, NULL, o),
          sf_shard_builder_free(builder));
#undef SIZES
    sf_bucket_close(bucket);
    sf_snapshot_give_back(snap);
}

/* ------------------------------------------------------------------ compare and swap ----------------------------- */

static void test_expected_current(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    char ref[300];
    sf_writer *writer;

    o.expected_current = SF_EXPECT_REF;
    o.expected_ref = "mem://publish-test/snap/manifests/2026-01-02T03:04:05.678901Z_run_id=x/manifest";
    assert_int_equal(world_try_publish(w, &o, 10, 1), SF_CONFLICT);
    assert_non_null(strstr(w->err.message, "names nothing"));
    o.expected_current = SF_EXPECT_ABSENT;
    assert_int_equal(world_try_publish(w, &o, 10, 1), SF_OK);
    o.run_id = "r2";
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 10, 2, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_CONFLICT);
    assert_non_null(strstr(sf_writer_report(writer)->found_ref, "_run_id=r1/manifest"));
    assert_null(sf_writer_report(writer)->manifest_ref);
    snprintf(ref, sizeof(ref), "%s", sf_writer_report(writer)->found_ref);
    sf_writer_free(writer);
    assert_int_equal(world_object_count(w, "manifests"), 1);
    assert_int_equal(world_object_count(w, "shards/run_id=r2"), 0);
    o.expected_current = SF_EXPECT_REF;
    o.expected_ref = ref;
    assert_int_equal(world_try_publish(w, &o, 20, 2), SF_OK);
    world_expect_current(w, "r2");
    world_expect_snapshot(w, 20, 2);
}

/* Publishes something else at the nth look at the pointer, before the one who looked can go on. */
struct intruder {
    struct world *w;
    unsigned at, looks;
    bool lose; /* at the put instead: it was carried out, its answer is lost, and the next attempt finds the intruder */
    sf_store_op op;
    char key[600], text[1200];
    sf_store_op *held; /* the look: told when the intruder is done */
    sf_error error;    /* of that */
    void (*held_done)(sf_store_op *op);
    atomic_uint done;
};

static void hold(sf_store_op *op)
{
    (void)op;
}

static void intruder_done(sf_store_op *op)
{
    struct intruder *i = op->ctx;

    atomic_fetch_add(&i->done, op->error->code == SF_OK);
    i->held->error = &i->error; /* it was none */
    if (i->lose)
        i->held->may_be_ours = sf_fail(&i->error, SF_CONFLICT, "it changed") == SF_CONFLICT;
    i->held->done = i->held_done;
    i->held->done(i->held);
}

static void intrude(fault_store *f, sf_store_op *op)
{
    struct intruder *i = f->ctx;

    if (op->verb != (i->lose ? SF_STORE_PUT : SF_STORE_GET) || !strstr(op->key, "_CURRENT") || ++i->looks != i->at)
        return;
    i->op = (sf_store_op){.verb = SF_STORE_PUT,
                          .key = i->key,
                          .body = sf_bytes_str(i->text),
                          .deadline_ns = SF_NO_DEADLINE,
                          .done = intruder_done,
                          .ctx = i};
    i->held = op;
    i->held_done = op->done;
    op->done = hold;
    sf__store_submit(f->inner, &i->op);
}

/* Both looks find what was expected, or only the first, or the put itself is refused: nothing of the loser is left. */
static void test_pointer_moves_meanwhile(void **state)
{
    struct world *w = *state;

    for (unsigned at = 1; at <= 2; at++) {
        struct intruder i = {.w = w, .at = at, .error = SF_ERROR_INIT};
        sf_writer_options o = world_options();
        char before[32], run_id[32], ref[300];
        char *objects;
        sf_writer *writer;
        sf_history *h;
        size_t n;

        snprintf(before, sizeof(before), "before-%u", at);
        snprintf(run_id, sizeof(run_id), "loser-%u", at);
        world_publish(w, before, 5, at);
        assert_int_equal(sf_history_list(&h, w->rt, w->prefix, NULL, 1, &w->err), SF_OK);
        snprintf(ref, sizeof(ref), "%s", sf_history_entries(h, &n)[0].ref);
        sf_history_free(h);
        snprintf(i.key, sizeof(i.key), "%s/_CURRENT", w->path);
        snprintf(i.text, sizeof(i.text),
                 "{\"format_version\":1,\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":"
                 "\"%s\",\"run_id\":\"intruder\",\"updated_at\":\"2026-01-02T03:04:05.%06uZ\"}",
                 "mem://x/manifests/i/manifest", at);
        objects = world_objects(w, "shards");
        o.run_id = run_id;
        o.expected_current = SF_EXPECT_REF;
        o.expected_ref = ref;
        w->faults->after = intrude;
        w->faults->ctx = &i;
        writer = world_writer(w, &o);
        assert_int_equal(world_add_rows(w, writer, 30, 1, false), SF_OK);
        assert_int_equal(sf_writer_finish(writer, &w->err), SF_CONFLICT);
        w->faults->after = NULL;
        assert_int_equal(atomic_load(&i.done), 1);
        assert_non_null(strstr(w->err.message, "the pointer names mem://x/manifests/i/manifest"));
        assert_string_equal(sf_writer_report(writer)->found_ref, "mem://x/manifests/i/manifest");
        assert_null(sf_writer_report(writer)->manifest_ref);
        sf_writer_free(writer);
        world_expect_current(w, "intruder");
        assert_int_equal(world_object_count(w, "manifests"), at);
        {
            char *after = world_objects(w, "shards");

            assert_string_equal(objects, after);
            free(after);
        }
        free(objects);
    }
}

/* A reader may have opened the snapshot while the pointer named it: it stays. */
static void test_pointer_was_ours_for_a_while(void **state)
{
    struct world *w = *state;
    struct intruder i = {.w = w, .at = 1, .lose = true, .error = SF_ERROR_INIT};
    sf_writer_options o = world_options();
    sf_writer *writer;

    snprintf(i.key, sizeof(i.key), "%s/_CURRENT", w->path);
    snprintf(i.text, sizeof(i.text),
             "{\"format_version\":1,\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":"
             "\"mem://x/manifests/i/manifest\",\"run_id\":\"intruder\",\"updated_at\":\"2026-01-02T03:04:05Z\"}");
    o.run_id = "ours";
    o.expected_current = SF_EXPECT_ABSENT;
    w->faults->after = intrude;
    w->faults->ctx = &i;
    writer = world_writer(w, &o);
    assert_int_equal(world_add_rows(w, writer, 30, 1, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_CONFLICT);
    w->faults->after = NULL;
    assert_int_equal(atomic_load(&i.done), 1);
    assert_non_null(sf_writer_report(writer)->manifest_ref);
    assert_string_equal(sf_writer_report(writer)->found_ref, "mem://x/manifests/i/manifest");
    sf_writer_free(writer);
    world_expect_current(w, "intruder");
    assert_int_equal(world_object_count(w, "manifests"), 1);
    assert_true(world_object_count(w, "shards/run_id=ours") > 0);
}

struct racer {
    pthread_t thread;
    struct gate *start;
    sf_writer *writer;
    sf_status rc;
    sf_error err;
};

static void *race(void *ctx)
{
    struct racer *r = ctx;

    gate_arrive(r->start);
    pthread_mutex_lock(&r->start->lock);
    while (r->start->count < 2)
        pthread_cond_wait(&r->start->changed, &r->start->lock);
    pthread_mutex_unlock(&r->start->lock);
    r->rc = sf_writer_finish(r->writer, &r->err);
    return NULL;
}

/* At the same time, as far as two threads can. */
static void test_two_at_once(void **state)
{
    struct world *w = *state;

    for (unsigned round = 0; round < 8; round++) {
        struct gate start = GATE_INIT;
        struct racer racers[2];
        sf_writer_options o = world_options();
        char run_id[32], ref[300], folder[64];
        sf_history *h;
        size_t n, winner;

        snprintf(run_id, sizeof(run_id), "base-%u", round);
        world_publish(w, run_id, 5, 0);
        assert_int_equal(sf_history_list(&h, w->rt, w->prefix, NULL, 1, &w->err), SF_OK);
        snprintf(ref, sizeof(ref), "%s", sf_history_entries(h, &n)[0].ref);
        sf_history_free(h);
        o.expected_current = SF_EXPECT_REF;
        o.expected_ref = ref;
        for (unsigned i = 0; i < 2; i++) {
            snprintf(run_id, sizeof(run_id), "round-%u-%u", round, i);
            o.run_id = run_id;
            racers[i] = (struct racer){.start = &start, .writer = world_writer(w, &o), .err = SF_ERROR_INIT};
            assert_int_equal(world_add_rows(w, racers[i].writer, 20 + i, 100 + i, false), SF_OK);
        }
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        for (unsigned i = 0; i < 2; i++)
            pthread_join(racers[i].thread, NULL);
        winner = racers[0].rc == SF_OK ? 0 : 1;
        assert_int_equal(racers[winner].rc, SF_OK);
        assert_int_equal(racers[1 - winner].rc, SF_CONFLICT);
        for (unsigned i = 0; i < 2; i++)
            sf_writer_free(racers[i].writer);
        world_expect_snapshot(w, 20 + (unsigned)winner, 100 + (unsigned)winner);
        snprintf(folder, sizeof(folder), "shards/run_id=round-%u-%zu", round, 1 - winner);
        assert_int_equal(world_object_count(w, folder), 0);
        assert_int_equal(world_object_count(w, "manifests"), 2 * (round + 1));
    }
}

/* ------------------------------------------------------------------ the same run again --------------------------- */

#define HOUR INT64_C(3600000000)

static bool has_object(struct world *w, const char *folder)
{
    return world_object_count(w, folder) > 0;
}

/* A scheduler's retry under the same run id, after a run that ended well and after one that died. */
static void test_a_run_again(void **state)
{
    struct world *w = *state;

    for (int backend = SF_BACKEND_SLATEDB; backend <= SF_BACKEND_SQLITE; backend++) {
        const char *run_id = backend == SF_BACKEND_SQLITE ? "again-sqlite" : "again-slatedb", *const dbs[] = {"db=00000",
                                                                                                              "db=00001"};
        sf_cleanup_options clean = world_cleanup_options();
        sf_writer_options o = world_options();
        sf_cleanup_report *report;
        sf_snapshot_manifest *m;
        char folder[100];

        o.run_id = run_id;
        o.backend = (sf_backend)backend;
        o.max_retries = 0;
        snprintf(folder, sizeof(folder), "shards/run_id=%s/db=00001/attempt=04/shard.db", run_id);
        world_put(w, folder, sf_bytes_str("died here"));
        world_put_record(w, run_id, SF_RUN_RUNNING, sf__clock_unix_us() - 2 * HOUR, sf__clock_unix_us() - HOUR, NULL);
        for (uint32_t round = 0; round < 3; round++) {
            if (world_try_publish(w, &o, 40 + round, round) != SF_OK)
                fail_msg("%s, round %u: %s", run_id, round, w->err.message);
            m = world_manifest(w);
            assert_string_equal(m->run_id, run_id);
            assert_int_equal(m->shards[0].attempt, round);
            assert_int_equal(m->shards[1].attempt, 5 + round); /* behind what the dead run left */
            sf__snapshot_manifest_free(m);
            if (backend == SF_BACKEND_SLATEDB)
                world_expect_snapshot(w, 40 + round, round);
        }
        clean.keep_last = 1;
        assert_int_equal(sf_cleanup(&report, w->rt, w->prefix, &clean, &w->err), SF_OK);
        sf_cleanup_report_free(report);
        for (uint32_t i = 0; i < 2; i++)
            for (uint32_t attempt = 0; attempt < 8; attempt++) {
                bool wins = attempt == (i == 0 ? 2 : 7);

                snprintf(folder, sizeof(folder), "shards/run_id=%s/%s/attempt=%02u", run_id, dbs[i], attempt);
                if (has_object(w, folder) != wins)
                    fail_msg("%s is %s", folder, wins ? "gone" : "left");
            }
        if (backend == SF_BACKEND_SLATEDB)
            world_expect_snapshot(w, 42, 2);
    }
}

/* The folder's digits of a process that has ended. */
static void digits_of_the_dead(char out[33])
{
    int pipes[2], status;
    pid_t child;

    assert_int_equal(pipe(pipes), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char hex[SF_HEX128_TEXT];

        _exit(sf__owner_hex(hex) && !sf__owner_is_gone(hex) && write(pipes[1], hex, 33) == 33 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(pipes[0], out, 33), 33);
    close(pipes[0]);
    close(pipes[1]);
}

static void put_live_record(struct world *w, const char *run_id, const char *digits)
{
    char *from = NULL, to[300];
    sf_buf *bytes;

    world_put_record(w, run_id, SF_RUN_RUNNING, sf__clock_unix_us(), INT64_C(4102444800000000), NULL); /* the year 2100 */
    from = world_objects(w, "runs");
    *strchr(from, '\n') = '\0';
    bytes = world_get(w, from);
    snprintf(to, sizeof(to), "runs/2026-01-02T03:04:05.000000Z_run_id=%s_%s/run.yaml", run_id, digits);
    world_put(w, to, sf__buf_bytes(bytes));
    if (strncmp(strrchr(from, '_') + 1, digits, 32) != 0)
        world_delete(w, "runs/2026-01-02T03:04:05.000000Z_run_id=living_0123456789abcdef0123456789abcdef");
    sf__buf_release(bytes);
    free(from);
}

/* Runs in a child, which never comes back: 0 when a parent that it cannot see counts as alive, 1 when not, 2 when nothing can
 * be hidden here. */
static void look_at_hidden_parent(const char *parent)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d", (int)getppid());
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", path, "tmpfs", 0, NULL) != 0)
        _exit(2);
    _exit(sf__owner_is_gone(parent));
}

/* A machine may hide the processes of others (hidepid): what cannot be seen has not ended. */
static void test_a_writer_that_cannot_be_seen(void **state)
{
    char hex[SF_HEX128_TEXT];
    int status;
    pid_t child;

    (void)state;
    assert_true(sf__owner_hex(hex));
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        look_at_hidden_parent(hex);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Another writer's lease on the run is respected, unless that was a process of this machine that has ended. */
static void test_a_run_of_a_living_writer(void **state)
{
    struct world *w = *state;
    sf_writer_options o = world_options();
    char dead[33];
    sf_writer *first;

    o.run_id = "living";
    first = world_writer(w, &o);
    assert_non_null(first);
    assert_null(world_writer(w, &o));
    assert_int_equal(w->err.code, SF_CONFLICT);
    assert_non_null(strstr(w->err.message, "another writer works on run 'living': its lease ends at "));
    assert_non_null(strstr(w->err.object, "_run_id=living_"));
    sf_writer_free(first); /* gives up */
    assert_int_equal(world_try_publish(w, &o, 10, 1), SF_OK);
    world_delete(w, "runs");
    put_live_record(w, "living", "0123456789abcdef0123456789abcdef"); /* of another machine, or another kind of writer */
    assert_int_equal(world_try_publish(w, &o, 11, 2), SF_CONFLICT);
    assert_non_null(strstr(w->err.message, "its lease ends at 2100-01-01T00:00:00.000000Z"));
    world_expect_snapshot(w, 10, 1);
    o.run_id = "livin"; /* not the same */
    assert_int_equal(world_try_publish(w, &o, 12, 3), SF_OK);
    world_delete(w, "runs");
    o.run_id = "living";
    digits_of_the_dead(dead);
    assert_true(sf__owner_is_gone(dead));
    put_live_record(w, "living", dead);
    if (world_try_publish(w, &o, 11, 2) != SF_OK)
        fail_msg("%s", w->err.message);
    world_expect_snapshot(w, 11, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_odd_names),
        WORLD_TEST(test_publish),
        WORLD_TEST(test_next_snapshot),
        WORLD_TEST(test_no_rows),
        WORLD_TEST(test_empty_shards_have_no_row),
        WORLD_TEST(test_sqlite),
        WORLD_TEST(test_empty_key),
        WORLD_TEST(test_raw_keys),
        WORLD_TEST(test_duplicates),
        WORLD_TEST(test_the_gate_counts_stored_rows),
        WORLD_TEST(test_large_integer_keys),
        WORLD_TEST(test_bad_rows),
        WORLD_TEST(test_bad_rows_left_out),
        WORLD_TEST(test_options),
        WORLD_TEST(test_option_sizes),
        WORLD_TEST(test_option_sizes_of_all),
        WORLD_TEST(test_expected_current),
        WORLD_TEST(test_pointer_moves_meanwhile),
        WORLD_TEST(test_two_at_once),
        WORLD_TEST(test_pointer_was_ours_for_a_while),
        WORLD_TEST(test_a_run_again),
        WORLD_TEST(test_a_run_of_a_living_writer),
        cmocka_unit_test(test_a_writer_that_cannot_be_seen),
    };

    return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
