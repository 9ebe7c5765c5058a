/* Manifests as we write them, against those of the golden snapshots: schema, every column, and the parser's view. */
#include "../../support/heap.h"
#include "vectors.h"

#include <dirent.h>
#include <sqlite3.h>

#include "snapshot/manifest_write.h"

/* All rows of a query as one text. */
static void dump(sf_strbuf *out, sf_bytes file, const char *sql)
{
    sqlite3 *db;
    sqlite3_stmt *stmt;

    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(db, "main", (unsigned char *)(uintptr_t)file.p, (sqlite3_int64)file.n,
                                         (sqlite3_int64)file.n, SQLITE_DESERIALIZE_READONLY),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            const char *text = (const char *)sqlite3_column_text(stmt, i);

            sf__strbuf_printf(out, "%d:%s|", sqlite3_column_type(stmt, i), text ? text : "NULL");
        }
        sf__strbuf_putc(out, '\n');
    }
    sqlite3_finalize(stmt);
    sqlite3_close(db);
}

static void expect_same_file(const char *where, sf_bytes ours, sf_bytes golden)
{
    static const char *const queries[] = {
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name",
        "SELECT * FROM build_meta",
        "SELECT * FROM shards ORDER BY db_id",
        "PRAGMA page_size",
        "PRAGMA encoding",
        "PRAGMA user_version",
        "PRAGMA auto_vacuum",
    };

    for (size_t i = 0; i < COUNT(queries); i++) {
        sf_strbuf a, b;

        sf__strbuf_init(&a, HEAP);
        sf__strbuf_init(&b, HEAP);
        dump(&a, ours, queries[i]);
        dump(&b, golden, queries[i]);
        if (a.n != b.n || (a.n > 0 && memcmp(a.s, b.s, a.n) != 0))
            fail_msg("%s: %s:\n%s\ninstead of\n%s", where, queries[i], a.s ? a.s : "", b.s ? b.s : "");
        sf__strbuf_cleanup(&a);
        sf__strbuf_cleanup(&b);
    }
}

static size_t rewrite_manifests(const char *name)
{
    char path[2048];
    struct dirent *e;
    size_t count = 0;
    DIR *d;

    snprintf(path, sizeof(path), "%s/snapshots/%s/bucket/golden/%s/manifests", fixtures_dir(), name, name);
    d = opendir(path);
    while (d && (e = readdir(d)) != NULL) {
        sf_snapshot_manifest *m;
        sf_error err = SF_ERROR_INIT;
        sf_bytes golden;
        sf_buf *ours;

        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "snapshots/%s/bucket/golden/%s/manifests/%s/manifest", name, name, e->d_name);
        golden = file_try_read(path);
        if (golden.p && sf__snapshot_manifest_parse(&m, golden, 0, HEAP, NULL) == SF_OK) {
            if (sf__snapshot_manifest_write(&ours, m, HEAP, &err) != SF_OK)
                fail_msg("%s: %s", path, err.message);
            expect_same_file(path, sf__buf_bytes(ours), golden);
            assert_int_equal(ours->n, golden.n);
            sf__buf_release(ours);
            sf__snapshot_manifest_free(m);
            count++;
        }
        free((void *)(uintptr_t)golden.p);
    }
    if (d)
        closedir(d);
    return count;
}

static void test_golden_manifests(void **state)
{
    char dir[1024];
    size_t count = 0;
    struct dirent *e;
    DIR *d;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/snapshots", fixtures_dir());
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        if (!strchr(e->d_name, '.'))
            count += rewrite_manifests(e->d_name);
    closedir(d);
    assert_true(count >= 30);
}

static void manifest_init(sf_snapshot_manifest *m, sf_manifest_shard *shards, size_t count)
{
    *m = (sf_snapshot_manifest){
        .run_id = "r",
        .s3_prefix = "mem://x/p",
        .key_col = "_key",
        .db_path_template = "db={db_id:05d}",
        .shard_prefix = "shards",
        .sharding_json = sf__sharding_hash_json,
        .custom_json = "{}",
        .num_dbs = 4,
        .format_version = 4,
        .key_encoding = SF_KEY_RAW,
        .shards = shards,
        .shard_count = count,
    };
    for (size_t i = 0; i < count; i++)
        shards[i] = (sf_manifest_shard){.db_id = (uint32_t)i, .db_url = "mem://x/p/s", .writer_info_json = "{}"};
}

/* What readers would refuse is not written. */
static void test_refusals(void **state)
{
    sf_snapshot_manifest m;
    sf_manifest_shard shards[2];
    sf_error err = SF_ERROR_INIT;
    sf_buf *out = NULL;

    (void)state;
    manifest_init(&m, shards, 2);
    assert_int_equal(sf__snapshot_manifest_write(&out, &m, HEAP, &err), SF_OK);
    sf__buf_release(out);
    out = NULL;
    shards[1].db_id = 0;
    assert_int_equal(sf__snapshot_manifest_write(&out, &m, HEAP, &err), SF_INVALID);
    manifest_init(&m, shards, 2);
    shards[1].db_id = 4;
    assert_int_equal(sf__snapshot_manifest_write(&out, &m, HEAP, &err), SF_INVALID);
    assert_non_null(strstr(err.message, "refused by readers"));
    manifest_init(&m, shards, 2);
    m.custom_json = "[]";
    assert_int_equal(sf__snapshot_manifest_write(&out, &m, HEAP, &err), SF_INVALID);
    assert_int_equal(err.code, SF_INVALID);
    assert_null(out);
    /* unless they are to find it out themselves */
    assert_int_equal(sf__snapshot_manifest_encode(&out, &m, HEAP, &err), SF_OK);
    sf__buf_release(out);
}

/* A time that was read without a zone is written without one. */
static void test_naive_time(void **state)
{
    sf_snapshot_manifest m, *back;
    sf_manifest_shard shards[2];
    sf_buf *out;

    (void)state;
    for (int naive = 0; naive < 2; naive++) {
        manifest_init(&m, shards, 2);
        m.created_at_us = 1767323045678901;
        m.created_at_naive = naive;
        assert_int_equal(sf__snapshot_manifest_write(&out, &m, HEAP, NULL), SF_OK);
        assert_int_equal(sf__snapshot_manifest_parse(&back, sf__buf_bytes(out), 0, HEAP, NULL), SF_OK);
        assert_int_equal(back->created_at_us, m.created_at_us);
        assert_int_equal(back->created_at_naive, naive);
        sf__snapshot_manifest_free(back);
        sf__buf_release(out);
    }
}

static void test_keys(void **state)
{
    static const struct {
        sf_key_encoding encoding;
        const char *stored;
        size_t n;
        const char *json; /* NULL: has none */
    } cases[] = {
        {SF_KEY_U64BE, "\0\0\0\0\0\0\0\0", 8, "0"},
        {SF_KEY_U64BE, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "18446744073709551615"},
        {SF_KEY_U32BE, "\0\0\1\0", 4, "256"},
        {SF_KEY_UTF8, "a\0b", 3, "\"a\\u0000b\""},
        {SF_KEY_UTF8, "\xf0\x9f\x98\x80", 4, "\"\\ud83d\\ude00\""},
        {SF_KEY_RAW, "", 0, "\"\""},
        {SF_KEY_RAW, "abc", 3, "\"abc\""},
        {SF_KEY_RAW, "\xff", 1, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_strbuf b;
        bool ok;

        sf__strbuf_init(&b, HEAP);
        ok = sf__key_json_write(&b, cases[i].encoding, sf_bytes_of(cases[i].stored, cases[i].n));
        assert_int_equal(ok, cases[i].json != NULL);
        if (ok)
            assert_string_equal(b.s, cases[i].json);
        sf__strbuf_cleanup(&b);
    }
}

static void test_writer_info(void **state)
{
    sf_writer_info info = {.attempt = 1, .duration_ms = 20, .has_task_attempt_id = true, .task_attempt_id = -3};
    sf_strbuf b;

    (void)state;
    sf__strbuf_init(&b, HEAP);
    sf__writer_info_write(&b, &info);
    assert_string_equal(b.s, "{\"attempt\": 1, \"duration_ms\": 20, \"stage_id\": null, \"task_attempt_id\": -3}");
    sf__strbuf_cleanup(&b);
}

static void test_sorted_json(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"{}", "{}"},
        {"{\"b\":1,\"a\":[1.50,null,true,{\"d\":-0,\"c\":\"\\u00e9\"}]}",
         "{\"a\": [1.50, null, true, {\"c\": \"\\u00e9\", \"d\": -0}], \"b\": 1}"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"},
        {"{\"\xf0\x9f\x98\x80\":1,\"\xef\xbf\xbd\":2}", "{\"\\ufffd\": 2, \"\\ud83d\\ude00\": 1}"},
        {"[ ]", "[]"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_json_doc doc;
        sf_strbuf b;

        assert_int_equal(sf__json_parse(&doc, sf_bytes_str(cases[i].in), 0, HEAP, NULL), SF_OK);
        sf__strbuf_init(&b, HEAP);
        assert_int_equal(sf__json_write_sorted(&b, doc.root, NULL), SF_OK);
        assert_string_equal(b.s, cases[i].out);
        sf__strbuf_cleanup(&b);
        sf__json_cleanup(&doc);
    }
}

static void test_without_memory(void **state)
{
    sf_manifest_shard shards[2];
    sf_snapshot_manifest m;
    bool fired = true;
    long n;

    (void)state;
    manifest_init(&m, shards, 2);
    for (n = 0; fired; n++) {
        struct test_heap h;
        sf_buf *out;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__snapshot_manifest_write(&out, &m, &h.alloc, NULL);
        if (rc == SF_OK)
            sf__buf_release(out);
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_manifests), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_naive_time),       cmocka_unit_test(test_keys),
        cmocka_unit_test(test_writer_info),      cmocka_unit_test(test_sorted_json),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests_name("manifest_write", tests, NULL, NULL);
}
