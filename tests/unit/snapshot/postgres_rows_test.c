/* Rows of PostgreSQL as manifests: what they become is parsed by the parser of manifests; what has no such
 * form is refused. */
#include "../../support/heap.h"
#include "vectors.h"

#include "base/error.h"
#include "snapshot/postgres_rows.h"
#include "snapshot/postgres_rows_write.h"
#include "snapshot/snapshot_manifest.h"

#define SHARDING "\"{\\\"strategy\\\": \\\"hash\\\", \\\"hash_algorithm\\\": \\\"xxh3_64\\\"}\""
#define HEAD_UP_TO(member)                                                                                \
    "{\"run_id\": \"r\", \"created_at_us\": 1767225600000001, \"s3_prefix\": \"s3://b/p\", \"key_col\": " \
    "\"_key\", "                                                                                          \
    "\"db_path_template\": \"db={db_id:05d}\", \"shard_prefix\": \"shards\", \"sharding\": " SHARDING ", " member
#define HEAD HEAD_UP_TO("\"num_dbs\": 3, \"key_encoding\": \"utf8\", ")
#define SHARD(db_id) "[" db_id ", \"s3://b/p/x\", 1, 20, 300, \"\\\"a\\\"\", null, \"check\", \"{\\\"attempt\\\": 1}\"]"

static void test_a_row(void **state)
{
    static const char row[] = HEAD
        "\"custom\": \"{\\\"shard_rows\\\": 2}\", \"shards\": [" SHARD("0") ", "
                                                                            "[2, null, 0, 0, 0, null, null, null, null]]}";
    sf_snapshot_manifest *m;
    sf_buf *file;

    (void)state;
    assert_int_equal(sf__postgres_manifest_encode(&file, sf_bytes_str(row), HEAP, NULL), SF_OK);
    assert_int_equal(sf__snapshot_manifest_parse(&m, sf__buf_bytes(file), 0, HEAP, NULL), SF_OK);
    assert_string_equal(m->run_id, "r");
    assert_int_equal(m->created_at_us, 1767225600000001);
    assert_int_equal(m->key_encoding, SF_KEY_UTF8);
    assert_int_equal(m->num_dbs, 3);
    assert_int_equal(m->shard_count, 2);
    assert_int_equal(m->shards[0].attempt, 1);
    assert_int_equal(m->shards[0].row_count, 20);
    assert_int_equal(m->shards[0].db_bytes, 300);
    assert_string_equal(m->shards[0].min_key_json, "\"a\"");
    assert_string_equal(m->shards[0].checkpoint_id, "check");
    assert_int_equal(m->shards[1].db_id, 2);
    assert_null(m->shards[1].db_url);
    sf__snapshot_manifest_free(m);
    sf__buf_release(file);
}

static void test_what_is_none(void **state)
{
    static const struct {
        const char *name, *row, *message;
    } cases[] = {
        {"empty", "", "Manifest validation failed: "},
        {"too long", "90000000", "90000000 bytes are more than 83886080"},
        {"a list", "[]", "the row is not an object"},
        {"nothing in it", "{}", "run_id is not a text"},
        {"NUL", "{\"run_id\": \"a\\u0000b\"}", "run_id holds a NUL character"},
        {"no encoding", HEAD_UP_TO("\"num_dbs\": 3, \"custom\": \"{}\"}"), "key_encoding is not a text"},
        {"another encoding", HEAD_UP_TO("\"num_dbs\": 3, \"custom\": \"{}\", \"key_encoding\": \"x\"}"),
         "Unsupported key encoding: 'x'"},
        {"no number", HEAD_UP_TO("\"num_dbs\": \"3\", \"custom\": \"{}\", \"key_encoding\": \"raw\"}"),
         "num_dbs is not an integer"},
        {"no shards", HEAD_UP_TO("\"num_dbs\": 0, \"custom\": \"{}\", \"key_encoding\": \"raw\"}"),
         "num_dbs is out of range"},
        {"custom is no JSON", HEAD "\"custom\": \"{\"}", "custom is no JSON"},
        {"shards are no list", HEAD "\"custom\": \"{}\", \"shards\": 5}", "shards is not an array"},
        {"a shard is no list", HEAD "\"custom\": \"{}\", \"shards\": [5]}", "a shard is not a row of 9 columns"},
        {"too few columns", HEAD "\"custom\": \"{}\", \"shards\": [[1, 2]]}", "a shard is not a row of 9 columns"},
        {"a shard number", HEAD "\"custom\": \"{}\", \"shards\": [" SHARD("4294967296") "]}", "db_id is out of range"},
        {"no integer", HEAD "\"custom\": \"{}\", \"shards\": [" SHARD("1.5") "]}", "db_id is not an integer"},
        {"a URL", HEAD "\"custom\": \"{}\", \"shards\": [[1, 5, 0, 0, 0, null, null, null, null]]}",
         "shard 1: db_url is not a text"},
        {"twice", HEAD "\"custom\": \"{}\", \"shards\": [" SHARD("1") ", " SHARD("1") "]}", "UNIQUE constraint failed"},
        {"fewer rows", HEAD "\"custom\": \"{\\\"shard_rows\\\": 2}\", \"shards\": [" SHARD("1") "]}",
         "1 rows of shards are there, and shard_rows is 2"},
        {"no rows", HEAD "\"custom\": \"{\\\"shard_rows\\\": 2}\", \"shards\": null}",
         "0 rows of shards are there, and shard_rows is 2"},
        {"no count", HEAD "\"custom\": \"{\\\"shard_rows\\\": []}\", \"shards\": null}", "shard_rows is []"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_buf *file = NULL;

        if (sf__postgres_manifest_encode(&file, sf_bytes_str(cases[i].row), HEAP, &err) != SF_BAD_MANIFEST ||
            err.code != SF_BAD_MANIFEST || !strstr(err.message, cases[i].message) ||
            strncmp(err.message, "Manifest validation failed: ", 28) != 0)
            fail_msg("%s: %s '%s'", cases[i].name, sf_status_name(err.code), err.message);
        assert_null(file);
    }
}

static void test_allocations_that_fail(void **state)
{
    static const char row[] = HEAD "\"custom\": \"{\\\"shard_rows\\\": 1}\", \"shards\": [" SHARD("0") "]}";

    (void)state;
    for (long nth = 0;; nth++) {
        sf_error err = SF_ERROR_INIT;
        sf_buf *file = NULL;
        struct test_heap heap;
        sf_status rc;

        heap_init(&heap);
        heap_arm(&heap, nth);
        rc = sf__postgres_manifest_encode(&file, sf_bytes_str(row), &heap.alloc, &err);
        sf__buf_release(file);
        assert_int_equal(heap.live, 0);
        if (!heap.fired) {
            assert_int_equal(rc, SF_OK);
            break;
        }
        assert_int_equal(rc, SF_NOMEM);
    }
}

/* ------------------------------------------------------------------ names and statements
 * ------------------------- */

static void test_names(void **state)
{
    static const struct {
        const char *table, *pointer;
        bool good;
    } cases[] = {
        {"m", "p", true},
        {"shardyfusion_manifests", "shardyfusion_pointer", true},
        {"s.m", "S.P_1", true},
        {"", "p", false},
        {"m", "", false},
        {"m;drop table x", "p", false},
        {"m", "p--", false},
        {"\"m\"", "p", false},
        {"1m", "p", false},
        {"a.b.c", "p", false},
        {".m", "p", false},
        {"m.", "p", false},
        {"m", "p$1", false}, /* would be a parameter */
        {"m%s", "p", false},
        {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "p", true},
        {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "p", false},
        {"m", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", true},
        {"m", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_postgres_tables t;
        sf_status rc = sf__postgres_tables_init(&t, cases[i].table, cases[i].pointer, &err);

        if (rc != (cases[i].good ? SF_OK : SF_INVALID))
            fail_msg("'%s', '%s': %s '%s'", cases[i].table, cases[i].pointer, sf_status_name(rc), err.message);
        if (rc == SF_OK)
            assert_true(strlen(t.pointer_index) <= SF_POSTGRES_NAME_BYTES);
    }
}

/* What drivers that number parameters by their order rely on. */
static void test_parameters_come_once_and_in_order(void **state)
{
    sf_postgres_tables t;

    (void)state;
    assert_int_equal(sf__postgres_tables_init(&t, "s.m", "s.p", NULL), SF_OK);
    for (int i = 0; i < SF_POSTGRES_STATEMENT_COUNT; i++) {
        long expected = 1;
        sf_strbuf b;

        sf__strbuf_init(&b, HEAP);
        sf__postgres_statement_write(&b, (sf_postgres_statement)i, &t);
        assert_false(b.failed);
        assert_true(b.n > 0);
        assert_null(strchr(b.s, '%'));
        for (const char *p = strchr(b.s, '$'); p; p = strchr(p + 1, '$'))
            assert_int_equal(strtol(p + 1, NULL, 10), expected++);
        assert_true(strlen(sf__postgres_statement_name((sf_postgres_statement)i)) > 0);
        sf__strbuf_cleanup(&b);
    }
}

/* What was read of rows is published again as the same rows. */
static void test_rows_of_a_manifest(void **state)
{
    static const char custom[] = "{\\\"shard_rows\\\": 2, \\\"a\\\": \\\"\\u00e9\\\"}";
    struct test_heap heap;
    char row[2048];
    sf_buf *file;

    (void)state;
    snprintf(row, sizeof(row),
             HEAD "\"custom\": \"%s\", \"shards\": [" SHARD(
                 "0") ", [2, null, 0, 0, 0, \"\\\"a\\\\u0000\\\"\", \"5\", null, null]]}",
             custom);
    assert_int_equal(sf__postgres_manifest_encode(&file, sf_bytes_str(row), HEAP, NULL), SF_OK);
    for (long nth = 0;; nth++) {
        sf_postgres_rows rows;
        sf_status rc;

        heap_init(&heap);
        heap_arm(&heap, nth);
        rc = sf__postgres_rows_init(&rows, sf__buf_bytes(file), &heap.alloc, NULL);
        if (rc == SF_OK) {
            assert_string_equal(rows.build[0], "r");
            assert_string_equal(rows.build[1], "1767225600000001");
            assert_string_equal(rows.build[2], "3");
            assert_string_equal(rows.build[7], "utf8");
            assert_string_equal(rows.build[9], "{\"a\": \"\\u00e9\", \"shard_rows\": 2}");
            assert_non_null(strstr(
                rows.shards, "{\"db_id\": 0, \"attempt\": 1, \"row_count\": 20, \"db_bytes\": 300, \"db_url\": "
                             "\"s3://b/p/x\", \"checkpoint_id\": \"check\", \"min_key\": \"a\", \"max_key\": null, "));
            /* JSONB holds no NUL; both bounds go */
            assert_non_null(strstr(rows.shards,
                                   "\"db_url\": null, \"checkpoint_id\": null, \"min_key\": null, \"max_key\": null, "));
            sf__postgres_rows_cleanup(&rows);
        }
        assert_int_equal(heap.live, 0);
        if (!heap_disarm(&heap)) {
            assert_int_equal(rc, SF_OK);
            break;
        }
        assert_int_equal(rc, SF_NOMEM);
    }
    sf__buf_release(file);
}

static void test_what_the_tables_cannot_hold(void **state)
{
    static const struct {
        const char *name, *row, *message;
    } cases[] = {
        {"NaN", HEAD "\"custom\": \"{\\\"a\\\": NaN}\", \"shards\": []}", "custom cannot be stored as JSON"},
        {"too many rows", HEAD "\"custom\": \"{}\", \"shards\": [[1, null, 0, 2147483648, 0, null, null, null, null]]}",
         "shard 1 has 2147483648 rows"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_postgres_rows rows;
        sf_buf *file;

        assert_int_equal(sf__postgres_manifest_encode(&file, sf_bytes_str(cases[i].row), HEAP, NULL), SF_OK);
        if (sf__postgres_rows_init(&rows, sf__buf_bytes(file), HEAP, &err) != SF_INVALID ||
            !strstr(err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].name, err.message);
        sf__buf_release(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row),
        cmocka_unit_test(test_rows_of_a_manifest),
        cmocka_unit_test(test_what_the_tables_cannot_hold),
        cmocka_unit_test(test_what_is_none),
        cmocka_unit_test(test_allocations_that_fail),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_parameters_come_once_and_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
