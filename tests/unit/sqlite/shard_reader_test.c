/* SQLite shards: every golden row by look-up and by scan, from copies and by ranges, failures at every point. */
#include "world.h"

#include <sqlite3.h>
#include <unistd.h>

#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h"
#include "base/clock.h"
#include "base/pin.h"

/* ------------------------------------------------------------------ scans ---------------------------------------- */

/* Rows [from, to) in steps. */
static void check_scan(const char *name, sf_shard *s, const struct table *t, const sf_scan_range *range, size_t from,
                       size_t to, size_t max_rows, size_t max_bytes)
{
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;
    size_t n = 0;
    bool end = false;

    assert_int_equal(scan_begin(&r, s, range, &e), SF_OK);
    while (!end) {
        size_t bytes = 0;

        scan_step_begin(&r, max_rows, max_bytes, SF_NO_DEADLINE);
        scan_step_wait(&r);
        if (r.step.error.code != SF_OK)
            fail_msg("%s: %s", name, r.step.error.message);
        assert_true(r.step.batch->count > 0 || r.step.end);
        assert_true(r.step.batch->count <= max_rows);
        for (size_t i = 0; i < r.step.batch->count; i++, n++) {
            size_t at = range->reverse ? to - 1 - n : from + n;
            const sf_row *row = &r.step.batch->rows[i];

            assert_true(bytes < max_bytes);
            bytes += row->key.n + row->value.n;
            if (n >= to - from || !sf_bytes_eq(row->key, key_at(t, at)) ||
                !sf_bytes_eq(row->value, sf__buf_bytes(t->values[at])))
                fail_msg("%s: row %zu of a scan", name, n);
        }
        end = r.step.end;
        sf__row_batch_free(r.step.batch);
    }
    assert_int_equal(n, to - from);
    scan_step_begin(&r, max_rows, max_bytes, SF_NO_DEADLINE); /* behind the end there is nothing, again and again */
    scan_step_wait(&r);
    assert_true(r.step.end && r.step.batch->count == 0);
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
}

static void check_scans(const char *name, sf_shard *s, const struct table *t)
{
    static const size_t limits[][2] = {{SIZE_MAX, SIZE_MAX}, {7, SIZE_MAX}, {SIZE_MAX, 3000}};
    size_t from = t->count / 3, to = t->count - t->count / 4;

    for (int reverse = 0; reverse < 2; reverse++) {
        for (size_t i = 0; i < 3; i++) {
            sf_scan_range all = {.reverse = reverse}, tail = {.start = key_at(t, from), .reverse = reverse};
            sf_scan_range middle = {.start = key_at(t, from), .end = key_at(t, to), .has_end = true, .reverse = reverse};
            sf_scan_range nothing = {.start = key_at(t, to), .end = key_at(t, from), .has_end = true, .reverse = reverse};

            check_scan(name, s, t, &all, 0, t->count, limits[i][0], limits[i][1]);
            check_scan(name, s, t, &tail, from, t->count, limits[i][0], limits[i][1]);
            check_scan(name, s, t, &middle, from, to, limits[i][0], limits[i][1]);
            check_scan(name, s, t, &nothing, 0, 0, limits[i][0], limits[i][1]);
        }
    }
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static void check_golden_row(const char *path, const struct way *way)
{
    sf_buf *db = golden_read(path);
    struct world w;
    struct table t;
    sf_shard *s;

    world_init(&w);
    w.mode = way->mode;
    w.uncached = way->uncached;
    put_db(&w, sf__buf_bytes(db));
    if (way->sidecar)
        put_sidecar(&w, sf__buf_bytes(db));
    table_read(&t, sf__buf_bytes(db));
    assert_true(t.count > 0);
    s = opened(&w);
    check_look_ups(path, s, &t);
    check_scans(path, s, &t);
    sf__shard_release(s);
    table_free(&t);
    sf__buf_release(db);
    world_cleanup(&w);
}

static void reads_every_golden_row(void **state)
{
    glob_t found;

    golden_find(SF_SQLITE_DB_NAME, &found);
    for (size_t i = 0; i < found.gl_pathc; i += TEST_STEP)
        for (size_t way = 0; way < WAY_COUNT; way++)
            check_golden_row(found.gl_pathv[i], &ways[way]);
    globfree(&found);
}

/* SQLite takes no bound that is longer than the file. */
static void scans_between_long_bounds(void **state)
{
    glob_t found;
    sf_buf *db;
    struct world w;
    struct table t;
    sf_shard *s;
    size_t n;
    uint8_t *lo, *hi;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    globfree(&found);
    n = db->n + (200u << 10);
    lo = calloc(2, n);
    hi = lo + n;
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    table_read(&t, sf__buf_bytes(db));
    s = opened(&w);
    for (int reverse = 0; reverse < 2; reverse++) {
        size_t from = t.count / 3, to = t.count - 2;
        sf_scan_range range = {
            .start = sf_bytes_of(lo, n), .end = sf_bytes_of(hi, n), .has_end = true, .reverse = reverse};

        memcpy(lo, key_at(&t, from).p, key_at(&t, from).n); /* behind the one, before the other */
        memcpy(hi, key_at(&t, to).p, key_at(&t, to).n);
        check_scan("long bounds", s, &t, &range, from + 1, to + 1, 7, SIZE_MAX);
    }
    sf__shard_release(s);
    table_free(&t);
    free(lo);
    sf__buf_release(db);
    world_cleanup(&w);
}

/* Begun and called back in one go of the loop thread. A worker may be quicker all the same. */
struct called_back {
    struct got *g;
    struct scan_run *r;
    sf_shard *s;
};

static void get_and_cancel(void *arg)
{
    struct called_back *c = arg;

    c->s->vtable->get_many(c->s, &c->g->op);
    c->s->vtable->get_many_cancel(c->s, &c->g->op);
}

static void step_and_cancel(void *arg)
{
    struct called_back *c = arg;

    sf__scan_merge_start(&c->r->merge, &c->r->step);
    sf__scan_merge_cancel(&c->r->merge);
}

/* Every key has its answer or was cancelled; the others keep their values. */
static void check_cancelled_get(sf_shard *s, const sf_bytes *keys, size_t count)
{
    struct got g;
    struct called_back c = {.g = &g, .s = s};
    bool cancelled = false;

    get_begin(&g, s, keys, count, SF_NO_DEADLINE);
    get_wait(&g);
    for (size_t i = 0; i < count; i++) {
        sf__owner_release(g.values[i].owner);
        g.values[i] = (sf_value){0};
    }
    g.gate.count = 0;
    on_loop(s->rt->loop, get_and_cancel, &c);
    get_wait(&g);
    for (size_t i = 0; i < count; i++) {
        assert_true(g.status[i] == (cancelled ? SF_CANCELLED : SF_OK) || (!cancelled && g.status[i] == SF_CANCELLED));
        cancelled |= g.status[i] == SF_CANCELLED;
        assert_true(!g.values[i].found || g.status[i] == SF_OK);
    }
    assert_int_equal(g.error.code, cancelled ? SF_CANCELLED : SF_OK);
    get_free(&g);
}

/* The row that comes next is the first one, whatever became of the step before. */
static void check_cancelled_scan(sf_shard *s, uint64_t rows)
{
    struct scan_run r;
    struct called_back c = {.r = &r, .s = s};
    sf_scan_range range = {0};
    sf_error e = SF_ERROR_INIT;
    uint64_t next = 0;

    assert_int_equal(scan_begin(&r, s, &range, &e), SF_OK);
    scan_step_begin(&r, 1, SIZE_MAX, SF_NO_DEADLINE);
    scan_step_wait(&r);
    sf__row_batch_free(r.step.batch);
    r.step.limits.max_rows = SIZE_MAX;
    r.steps++;
    on_loop(s->rt->loop, step_and_cancel, &c);
    scan_step_wait(&r);
    if (r.step.error.code == SF_OK) {
        assert_int_equal(r.step.batch->count, rows - 1);
        sf__row_batch_free(r.step.batch);
        next = rows;
    } else {
        assert_int_equal(r.step.error.code, SF_CANCELLED);
        assert_null(r.step.batch);
        next = 1;
    }
    scan_step_begin(&r, 1, SIZE_MAX, SF_NO_DEADLINE);
    scan_step_wait(&r);
    assert_int_equal(r.step.error.code, SF_OK);
    assert_int_equal(r.step.batch->count, next < rows);
    if (next < rows)
        assert_int_equal(sf_load_be(r.step.batch->rows[0].key.p, 8), 2 * next);
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
}

/* Several chunks; written by our own writer. */
static void reads_a_large_shard(void **state)
{
    struct world w;
    sf_shard_target target;
    sf_sqlite_writer_options o = SF_SQLITE_WRITER_OPTIONS_INIT;
    sf_shard_writer *writer = NULL;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;
    uint8_t value[300], key[8];
    sf_bytes keys[1000];
    uint8_t key_bytes[1000][8];
    struct got g;

    world_init(&w);
    target = (sf_shard_target){
        .rt = w.env.rt, .store = w.inner, .path = PATH, .url = "u", .db_id = 1, .upload = SF_UPLOAD_OPTIONS_INIT};
    assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_OK);
    for (uint64_t i = 0; i < 100000; i++) {
        sf_store_be(key, 8, 2 * i);
        memset(value, (int)(i % 251), sizeof(value));
        assert_int_equal(sf__shard_writer_add(writer, sf_bytes_of(key, 8), sf_bytes_of(value, i % 300), &e), SF_OK);
    }
    assert_int_equal(sf__shard_writer_finish(writer, &r, &e), SF_OK);
    sf__shard_writer_free(writer);
    assert_true(r.db_bytes > 12 << 20);
    sf__shard_result_cleanup(&r);
    s = opened(&w);
    assert_true(w.faults->verbs[SF_STORE_GET] >= 2);
    for (size_t i = 0; i < 1000; i++) {
        sf_store_be(key_bytes[i], 8, i * 199);
        keys[i] = sf_bytes_of(key_bytes[i], 8);
    }
    get_begin(&g, s, keys, 1000, SF_NO_DEADLINE);
    get_wait(&g);
    assert_int_equal(g.error.code, SF_OK);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(g.values[i].found, i % 2 == 0);
        if (g.values[i].found) {
            uint64_t row = i * 199 / 2;

            memset(value, (int)(row % 251), sizeof(value));
            assert_true(sf_bytes_eq(g.values[i].bytes, sf_bytes_of(value, row % 300)));
        }
    }
    get_free(&g);
    check_cancelled_get(s, keys, 1000);
    check_cancelled_scan(s, 100000);
    sf__shard_release(s);
    world_cleanup(&w);
}

/* Tables of every shape that makes a look-up one walk down a tree. */
static void takes_tables_of_other_shapes(void **state)
{
    static const char *const tables[] = {
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL)",
        "CREATE TABLE kv (v, k UNIQUE)",
        "CREATE TABLE kv (k BLOB, v BLOB); CREATE UNIQUE INDEX i ON kv (k); CREATE INDEX j ON kv (v)",
        "CREATE TABLE kv (k BLOB PRIMARY KEY DESC, v BLOB) WITHOUT ROWID",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID; ANALYZE",
    };

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) * WAY_COUNT; i += TEST_STEP) {
        const char *table = tables[i / WAY_COUNT];
        sf_error e = SF_ERROR_INIT;
        char sql[1024];
        struct world w;
        struct table t;
        sf_shard *s;
        sf_buf *db;

        world_init(&w);
        w.mode = ways[i % WAY_COUNT].mode;
        w.uncached = ways[i % WAY_COUNT].uncached;
        snprintf(
            sql, sizeof(sql), /* some short ones, and some that go on on other pages, as do their keys */
            "%s; WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 600) INSERT INTO kv (k, v) "
            "SELECT CAST(printf('%%08d', i * 7919 %% 601) || CASE i %% 50 WHEN 0 THEN printf('%%.*c', 3 * i, 'k') ELSE '' END AS BLOB), "
            "CASE i %% 60 WHEN 0 THEN zeroblob(40 * i) ELSE CAST(i AS BLOB) END FROM n",
            table);
        put_schema(&w, sql);
        db = store_get(&w);
        table_read(&t, sf__buf_bytes(db));
        assert_int_equal(t.count, 601);
        if (open_at(&w, NULL, &s, &e) != SF_OK)
            fail_msg("%s: %s", table, e.message);
        check_look_ups(table, s, &t);
        check_scans(table, s, &t);
        sf__shard_release(s);
        table_free(&t);
        sf__buf_release(db);
        world_cleanup(&w);
    }
}

/* Values that are no blobs, as SQLite gives them. */
static void takes_values_of_other_types(void **state)
{
    static const struct {
        const char *sql, *text;
    } rows[] = {
        {"7", "7"},     {"0", "0"},
        {"1", "1"},     {"-1234567890123", "-1234567890123"},
        {"300", "300"}, {"-40000", "-40000"},
        {"1.5", "1.5"}, {"1e300", "1.0e+300"},
        {"NULL", ""},   {"'a text'", "a text"},
        {"x''", ""},
    };
    struct world w;
    char sql[4096] = "CREATE TABLE kv (k BLOB PRIMARY KEY, v) WITHOUT ROWID; "
                     "INSERT INTO kv VALUES (2, 2), (2.5, 3), ('text', 4)"; /* no blobs: no key of ours finds them */
    sf_scan_range all = {.reverse = false}, back = {.reverse = true};
    struct table t = {0};
    sf_buf *values[16], *keys[16];
    sf_shard *s;

    for (uint8_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(sql + strlen(sql), 128, ", (x'%02x', %s)", i, rows[i].sql);
        keys[i] = sf__buf_copy(&sf__allocator_default, sf_bytes_of(&i, 1));
        values[i] = sf__buf_copy(&sf__allocator_default, sf_bytes_str(rows[i].text));
        t.count++;
    }
    t.keys = keys;
    t.values = values;
    world_init(&w);
    put_schema(&w, sql);
    s = opened(&w);
    check_look_ups("types", s, &t);
    check_scan("types", s, &t, &all, 0, t.count, SIZE_MAX, SIZE_MAX);
    check_scan("types", s, &t, &back, 0, t.count, SIZE_MAX, SIZE_MAX);
    sf__shard_release(s);
    world_cleanup(&w);
    for (size_t i = 0; i < t.count; i++) {
        sf__buf_release(keys[i]);
        sf__buf_release(values[i]);
    }
}

/* What SQLite stores as an integer is read as it was declared. */
static void takes_real_numbers(void **state)
{
    static const char *const types[] = {"REAL",    "double precision", "my float", "FLOATING POINT",
                                        "NUMERIC", "TEXT REAL",        ""};

    for (size_t i = 0; i < 2 * sizeof(types) / sizeof(types[0]); i++) {
        struct world w;
        struct table t;
        char sql[300];
        sf_buf *db;
        sf_shard *s;

        snprintf(sql, sizeof(sql),
                 "CREATE TABLE kv (k BLOB PRIMARY KEY, v %s)%s; INSERT INTO kv VALUES (x'00', 5), "
                 "(x'01', 0), (x'02', 2.5), (x'03', 'x'), (x'04', NULL), (x'05', -7000000000), (x'06', '1')",
                 types[i / 2], i % 2 ? " WITHOUT ROWID" : "");
        world_init(&w);
        put_schema(&w, sql);
        db = store_get(&w);
        table_read(&t, sf__buf_bytes(db));
        assert_int_equal(t.count, 7);
        s = opened(&w);
        check_look_ups(types[i / 2], s, &t);
        sf__shard_release(s);
        table_free(&t);
        sf__buf_release(db);
        world_cleanup(&w);
    }
}

/* A schema is kept in memory, whole; nobody needs a large one. */
static void refuses_a_swollen_schema(void **state)
{
    char *sql = malloc(1 << 20), *p = sql;
    sf_error e = SF_ERROR_INIT;
    struct world w;
    sf_shard *s;

    assert_non_null(sql);
    world_init(&w);
    p += sprintf(p, "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID;");
    for (unsigned i = 0; i < 4000; i++)
        p += sprintf(p, "CREATE TABLE t%u (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p);", i);
    put_schema(&w, sql);
    free(sql);
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    assert_non_null(strstr(e.message, "its schema takes more than"));
    world_cleanup(&w);
}

/* A step ends with its deadline, not with the rows, and loses none. */
static void a_scan_ends_in_time(void **state)
{
    sf_scan_range range = {0};
    sf_error e = SF_ERROR_INIT;
    struct scan_run r;
    struct world w;
    sf_shard *s;
    uint64_t rows = 0;

    world_init(&w);
    put_schema(&w, "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID;"
                   "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
                   "INSERT INTO kv SELECT CAST(printf('%08d', i) AS BLOB), x'' FROM n");
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_OK);
    assert_int_equal(scan_begin(&r, s, &range, &e), SF_OK);
    scan_step_begin(&r, SIZE_MAX, SIZE_MAX, sf__deadline_in_ms(1));
    scan_step_wait(&r);
    if (r.step.error.code == SF_OK)
        rows = r.step.batch->count;
    else
        assert_int_equal(r.step.error.code, SF_TIMEOUT);
    assert_true(rows < 200001); /* they take longer than that on any machine */
    sf__row_batch_free(r.step.batch);
    do { /* and goes on from there */
        scan_step_begin(&r, SIZE_MAX, SIZE_MAX, SF_NO_DEADLINE);
        scan_step_wait(&r);
        assert_int_equal(r.step.error.code, SF_OK);
        rows += r.step.batch->count;
        sf__row_batch_free(r.step.batch);
    } while (!r.step.end);
    assert_int_equal(rows, 200001);
    scan_end(&r);
    sf__shard_release(s);
    world_cleanup(&w);
}

static void refuses_other_objects(void **state)
{
    static const char *const tables[] = {
        "CREATE TABLE other (k, v)",
        "CREATE VIEW kv AS SELECT 1 AS k, 2 AS v",
        "CREATE TABLE kv (k BLOB PRIMARY KEY) WITHOUT ROWID",
        /* columns that compute, and what else could make a look-up more than a walk down one tree */
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB AS (zeroblob(900000000)))",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB AS (zeroblob(900000000)) STORED)",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL, w AS (hex(zeroblob(1000000)))) WITHOUT ROWID",
        "CREATE TABLE kv (a BLOB PRIMARY KEY, k AS (a) UNIQUE, v BLOB) WITHOUT ROWID",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB DEFAULT (x'00'))",
        "CREATE TABLE kv (k BLOB, v BLOB)",
        "CREATE TABLE kv (k INTEGER PRIMARY KEY, v BLOB)",
        "CREATE TABLE kv (k BLOB, v BLOB, PRIMARY KEY (v, k)) WITHOUT ROWID",
        "CREATE TABLE kv (a BLOB PRIMARY KEY, k BLOB UNIQUE, v BLOB) WITHOUT ROWID",
        "CREATE TABLE kv (k BLOB UNIQUE, v INTEGER PRIMARY KEY)",
        "CREATE TABLE kv (k BLOB, v BLOB); CREATE INDEX i ON kv (k)",
        "CREATE TABLE kv (k BLOB, v BLOB); CREATE UNIQUE INDEX i ON kv (k) WHERE v IS NOT NULL",
        "CREATE TABLE kv (k BLOB, v BLOB); CREATE UNIQUE INDEX i ON kv (hex(k))",
        "CREATE TABLE kv (k TEXT COLLATE NOCASE PRIMARY KEY, v BLOB) WITHOUT ROWID",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID; CREATE VIEW w AS SELECT hex(v) FROM kv",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB); CREATE TRIGGER t AFTER DELETE ON kv BEGIN SELECT 1; END",
        "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID; CREATE INDEX i ON kv (hex(v))",
    };
    struct world w;
    char path[512], junk[8192];
    sf_shard *s;
    sf_error e = SF_ERROR_INIT;

    world_init(&w);
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_NOT_FOUND);
    assert_int_equal(e.db_id, 1);
    put_db(&w, (sf_bytes){0});
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    memset(junk, 'x', sizeof(junk));
    put_db(&w, sf_bytes_of(junk, sizeof(junk)));
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        put_schema(&w, tables[i]);
        if (open_at(&w, NULL, &s, &e) != SF_CORRUPT)
            fail_msg("%s", tables[i]);
    }
    assert_int_equal(copies(&w, path), 0);
    snprintf(w.folder + strlen(w.folder), 16, "/a/b"); /* made with what is above it */
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    assert_int_equal(copies(&w, path), 0);
    rmdir(w.folder);
    *strrchr(w.folder, '/') = '\0';
    rmdir(w.folder);
    *strrchr(w.folder, '/') = '\0';
    assert_int_equal(rmdir(w.folder), 0);
    memcpy(w.folder, "/dev/null/x", 12);
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_IO);
    snprintf(w.folder, sizeof(w.folder), "/tmp/sf-copies-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    world_cleanup(&w);
}

static sf_status scenario(struct world *w, const struct table *t, sf_error *err)
{
    sf_scan_range range = {0};
    sf_shard *s = NULL;
    sf_bytes keys[2] = {key_at(t, 0), key_at(t, t->count - 1)};
    struct got g;
    struct scan_run r;
    sf_status rc = open_at(w, "c", &s, err);

    if (rc != SF_OK)
        return rc;
    get_begin(&g, s, keys, 2, SF_NO_DEADLINE);
    get_wait(&g);
    rc = g.error.code;
    *err = g.error;
    get_free(&g);
    if (rc == SF_OK) {
        rc = scan_begin(&r, s, &range, err);
        for (unsigned i = 0; i < 2 && rc == SF_OK; i++) {
            scan_step_begin(&r, 3, SIZE_MAX, SF_NO_DEADLINE);
            scan_step_wait(&r);
            rc = r.step.error.code;
            *err = r.step.error;
            sf__row_batch_free(r.step.batch);
        }
        scan_end(&r);
    }
    sf__shard_release(s);
    return rc;
}

static void everything_fails_in_turn(void **state)
{
    glob_t found;
    sf_buf *db;
    struct table t;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    table_read(&t, sf__buf_bytes(db));
    for (unsigned what = 0; what < 3; what++) { /* allocations, requests, answers */
        for (unsigned long nth = 1;; nth += TEST_STEP) {
            struct world w;
            sf_error e = SF_ERROR_INIT;
            char path[512];
            sf_status rc;
            bool fired;

            world_init(&w);
            put_db(&w, sf__buf_bytes(db));
            if (what == 0)
                heap_arm(&w.env.heap, (long)nth - 1);
            w.faults->kind = what == 1 ? FAULT_REFUSE : what == 2 ? FAULT_LOSE : FAULT_NONE;
            w.faults->at = nth;
            rc = scenario(&w, &t, &e);
            fired = what == 0 ? heap_disarm(&w.env.heap) : w.faults->fired;
            /* without memory for a page of a copy a worker reads it, later */
            if (rc != (fired ? what == 0 ? SF_NOMEM : SF_IO : SF_OK) && !(what == 0 && rc == SF_OK))
                fail_msg("%u, %lu: %s %s", what, nth, sf_status_name(rc), e.message);
            if (what > 0)
                assert_int_equal(copies(&w, path), fired ? 0 : 1);
            world_cleanup(&w);
            if (!fired) {
                assert_true(nth > (what == 0 ? 15 : 3));
                break;
            }
        }
    }
    table_free(&t);
    sf__buf_release(db);
    globfree(&found);
}

static void an_object_that_changes(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_GET && f->ctx) {
        *(bool *)f->ctx = true;
        op->object_size++;
    }
}

static void another_etag(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_HEAD && f->requests > 1)
        op->etag[0] = '!';
}

struct question {
    fault_store *f;
    bool fired;
};

static void look_at_fired(void *arg)
{
    struct question *q = arg;

    q->fired = q->f->fired;
}

/* Until the request that hangs is made. */
static void wait_until_fired(struct world *w)
{
    struct question q = {.f = w->faults};

    while (!q.fired)
        on_loop(w->env.rt->loop, look_at_fired, &q);
}

static void stops(void **state)
{
    struct world w;
    struct begun b;
    struct table t;
    struct got g;
    struct scan_run r;
    sf_scan_range range = {0};
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;
    sf_buf *db;
    glob_t found;
    char path[512];
    bool seen = false;
    sf_bytes key;

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    table_read(&t, sf__buf_bytes(db));
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    for (unsigned long nth = 1; nth <= 3; nth++) { /* HEAD, GET, HEAD hang */
        fault_store_reset(w.faults);
        w.faults->kind = FAULT_HOLD;
        w.faults->at = nth;
        open_begin_at(&b, &w, NULL, SF_NO_DEADLINE);
        wait_until_fired(&w);
        on_loop(w.env.rt->loop, begun_cancel, &b);
        gate_wait(&b.gate, 1);
        assert_int_equal(b.error.code, SF_CANCELLED);
        assert_int_equal(copies(&w, path), 0);
    }
    fault_store_reset(w.faults);
    w.faults->after = an_object_that_changes;
    w.faults->ctx = &seen;
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    assert_true(seen);
    w.faults->after = another_etag;
    w.faults->requests = 0;
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CORRUPT);
    assert_int_equal(copies(&w, path), 0);
    fault_store_reset(w.faults);
    w.mode = SF_SQLITE_RANGE; /* without a cache, so that each read takes a request */
    w.uncached = true;
    s = opened(&w);
    key = key_at(&t, 0);
    get_begin(&g, s, &key, 1, 1); /* a deadline that has passed */
    get_wait(&g);
    assert_int_equal(g.error.code, SF_TIMEOUT);
    assert_int_equal(g.status[0], SF_TIMEOUT);
    get_free(&g);
    assert_int_equal(scan_begin(&r, s, &range, &e), SF_OK);
    scan_step_begin(&r, 10, SIZE_MAX, 1);
    scan_step_wait(&r);
    assert_int_equal(r.step.error.code, SF_TIMEOUT);
    assert_null(r.step.batch);
    scan_step_begin(&r, 1, SIZE_MAX, SF_NO_DEADLINE); /* the scan stands where it stood */
    scan_step_wait(&r);
    assert_int_equal(r.step.error.code, SF_OK);
    assert_true(sf_bytes_eq(r.step.batch->rows[0].key, key));
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
    sf__shard_release(s);
    world_cleanup(&w);
    table_free(&t);
    sf__buf_release(db);
    globfree(&found);
}

/* Many operations at once, more than there are workers. */
static void many_at_once(void **state)
{
    enum { COUNT = 40 };
    struct world w;
    struct table t;
    struct got g[COUNT];
    struct begun b[4];
    sf_bytes *keys;
    sf_shard *s;
    sf_buf *db;
    glob_t found;
    char path[512];

    golden_find(SF_SQLITE_DB_NAME, &found);
    db = golden_read(found.gl_pathv[0]);
    table_read(&t, sf__buf_bytes(db));
    world_init(&w);
    put_db(&w, sf__buf_bytes(db));
    for (unsigned i = 0; i < 4; i++) /* one copy comes of them */
        open_begin_at(&b[i], &w, "c1", SF_NO_DEADLINE);
    for (unsigned i = 0; i < 4; i++) {
        gate_wait(&b[i].gate, 1);
        assert_int_equal(b[i].error.code, SF_OK);
        sf__shard_release(b[i].op.shard);
    }
    assert_int_equal(copies(&w, path), 1);
    s = opened(&w);
    keys = calloc(t.count, sizeof(*keys));
    for (size_t i = 0; i < t.count; i++)
        keys[i] = key_at(&t, i);
    for (unsigned i = 0; i < COUNT; i++)
        get_begin(&g[i], s, keys, t.count, SF_NO_DEADLINE);
    for (unsigned i = 0; i < COUNT; i++) {
        get_wait(&g[i]);
        assert_int_equal(g[i].error.code, SF_OK);
        for (size_t k = 0; k < t.count; k++)
            assert_true(g[i].values[k].found && sf_bytes_eq(g[i].values[k].bytes, sf__buf_bytes(t.values[k])));
        get_free(&g[i]);
    }
    free(keys);
    sf__shard_release(s);
    world_cleanup(&w);
    table_free(&t);
    sf__buf_release(db);
    globfree(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_golden_row),
        cmocka_unit_test(reads_a_large_shard),
        cmocka_unit_test(scans_between_long_bounds),
        cmocka_unit_test(refuses_other_objects),
        cmocka_unit_test(takes_tables_of_other_shapes),
        cmocka_unit_test(takes_values_of_other_types),
        cmocka_unit_test(takes_real_numbers),
        cmocka_unit_test(refuses_a_swollen_schema),
        cmocka_unit_test(a_scan_ends_in_time),
        cmocka_unit_test(everything_fails_in_turn),
        cmocka_unit_test(stops),
        cmocka_unit_test(many_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
