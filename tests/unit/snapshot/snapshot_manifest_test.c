#include "../../support/heap.h"
#include "vectors.h"

#include <dirent.h>
#include <libdeflate.h>
#include <sqlite3.h>

#include "snapshot/manifest_name.h"
#include "snapshot/router.h"
#include "snapshot/snapshot_manifest.h"

/* ------------------------------------------------------------------ comparing ------------------------------------ */

static void parse_doc(sf_json_doc *doc, const char *text)
{
    assert_non_null(text);
    if (sf__json_parse(doc, sf_bytes_str(text), SF_JSON_NAN | SF_JSON_LONE_SURROGATES, HEAP, NULL) != SF_OK)
        fail_msg("not JSON: %s", text);
}

/* {"int": "5"}, {"str": "x"}, {"null": true}, or a plain value, against a JSON scalar, NULL for null. */
static void expect_scalar(const char *where, const sf_json *typed, const sf_json *v)
{
    const sf_json *t = typed->kind == SF_JSON_OBJECT ? typed->first : NULL;
    bool ok;

    if (!t)
        ok = v && json_equal(typed, v);
    else if (sf_bytes_eq(t->key, sf_bytes_str("int")))
        ok = v && v->kind == SF_JSON_INT && sf_bytes_eq(t->str, v->raw);
    else if (sf_bytes_eq(t->key, sf_bytes_str("str")))
        ok = v && v->kind == SF_JSON_STRING && sf_bytes_eq(t->str, v->str);
    else
        ok = !v && sf_bytes_eq(t->key, sf_bytes_str("null"));
    if (!ok)
        fail_msg("%s: not %.*s", where, (int)typed->raw.n, (const char *)typed->raw.p);
}

static void expect_key(const char *where, const sf_json *typed, const char *json)
{
    sf_json_doc doc = {.root = NULL};

    if (json)
        parse_doc(&doc, json);
    expect_scalar(where, typed, doc.root);
    if (json)
        sf__json_cleanup(&doc);
}

static void expect_sharding(const char *where, const sf_json *expected, const sf_snapshot_manifest *m)
{
    const sf_json *values = need(expected, "routing_values"), *own;
    sf_json_doc doc;

    parse_doc(&doc, m->sharding_json);
    assert_int_equal(doc.root->count, 5);
    assert_true(text_is(need(expected, "strategy"), m->strategy == SF_SHARDING_CEL ? "cel" : "hash"));
    if (!json_equal(need(expected, "strategy"), need(doc.root, "strategy")) ||
        !json_equal(need(expected, "hash_algorithm"), need(doc.root, "hash_algorithm")) ||
        !json_equal(need(expected, "cel_expr"), need(doc.root, "cel_expr")) ||
        !json_equal(need(expected, "cel_columns"), need(doc.root, "cel_columns")))
        fail_msg("%s: %s", where, m->sharding_json);
    own = need(doc.root, "routing_values");
    assert_int_equal(own->kind, values->kind);
    if (values->kind == SF_JSON_ARRAY) {
        assert_int_equal(own->count, values->count);
        own = own->first;
        for (const sf_json *v = values->first; v; v = v->next, own = own->next)
            expect_scalar(where, v, own);
    }
    sf__json_cleanup(&doc);
}

static void expect_shard(const char *where, const sf_json *expected, const sf_manifest_shard *s)
{
    const sf_json *info = sf__json_get(expected, "writer_info");
    sf_json_doc doc;

    assert_int_equal(need_int(expected, "db_id"), s->db_id);
    assert_int_equal(need_int(expected, "attempt"), s->attempt);
    assert_int_equal(need_int(expected, "row_count"), s->row_count);
    assert_int_equal(need_int(expected, "db_bytes"), s->db_bytes);
    expect_text(where, need(expected, "db_url"), s->db_url);
    expect_text(where, need(expected, "checkpoint_id"), s->checkpoint_id);
    expect_key(where, need(expected, "min_key"), s->min_key_json);
    expect_key(where, need(expected, "max_key"), s->max_key_json);
    if (!info)
        return;
    parse_doc(&doc, s->writer_info_json);
    if (!json_equal(info, doc.root))
        fail_msg("%s: %s", where, s->writer_info_json);
    sf__json_cleanup(&doc);
}

static void expect_shards(const char *where, const sf_json *expected, const sf_snapshot_manifest *m)
{
    size_t i = 0;

    assert_int_equal(expected->count, m->shard_count);
    for (const sf_json *s = expected->first; s; s = s->next)
        expect_shard(where, s, &m->shards[i++]);
}

static void expect_custom(const char *where, const sf_json *expected, const sf_snapshot_manifest *m)
{
    sf_json_doc doc;

    parse_doc(&doc, m->custom_json);
    if (!json_equal(expected, doc.root))
        fail_msg("%s: %s", where, m->custom_json);
    sf__json_cleanup(&doc);
}

/* `layout`: the object that names the texts nobody reads shards by. */
static void expect_layout(const char *where, const sf_json *layout, const sf_snapshot_manifest *m)
{
    expect_text(where, need(layout, "db_path_template"), m->db_path_template);
    expect_text(where, need(layout, "shard_prefix"), m->shard_prefix);
    expect_text(where, need(layout, "key_col"), m->key_col);
    assert_int_equal(need_int(layout, "format_version"), m->format_version);
}

static void expect_manifest(const char *where, const sf_json *ok, const sf_snapshot_manifest *m)
{
    expect_text(where, need(ok, "run_id"), m->run_id);
    expect_text(where, need(ok, "s3_prefix"), m->s3_prefix);
    expect_time(where, need(ok, "created_at"), m->created_at_us, m->created_at_naive);
    expect_text(where, need(ok, "key_encoding"), sf__key_encoding_name(m->key_encoding));
    assert_int_equal(need_int(ok, "num_dbs"), m->num_dbs);
    expect_layout(where, ok, m);
    expect_sharding(where, need(ok, "sharding"), m);
    expect_custom(where, need(ok, "custom"), m);
    expect_shards(where, need(ok, "shards"), m);
}

/* ------------------------------------------------------------------ vectors -------------------------------------- */

static int base64_digit(uint8_t c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* base64 of zlib. Freed with free(). */
static sf_bytes payload_decode(sf_bytes text)
{
    uint8_t *packed = malloc(text.n), *plain = malloc(1 << 20);
    struct libdeflate_decompressor *z = libdeflate_alloc_decompressor();
    size_t n = 0, plain_n = 0;
    uint32_t bits = 0;
    int have = 0;

    assert_true(packed && plain && z);
    for (size_t i = 0; i < text.n && base64_digit(text.p[i]) >= 0; i++) {
        bits = bits << 6 | (uint32_t)base64_digit(text.p[i]);
        have += 6;
        if (have >= 8) {
            have -= 8;
            packed[n++] = (uint8_t)(bits >> have);
        }
    }
    assert_int_equal(libdeflate_zlib_decompress(z, packed, n, plain, 1 << 20, &plain_n), LIBDEFLATE_SUCCESS);
    libdeflate_free_decompressor(z);
    free(packed);
    return sf_bytes_of(plain, plain_n);
}

/* Cases that the existing reader takes and ours refuses, on purpose. */
static const char *refused_on_purpose(const char *name)
{
    if (strcmp(name, "num_dbs 3000000000") == 0)
        return "num_dbs 3000000000 is more than 1048576";
    return strcmp(name, "db_url number") == 0 ? "db_url of shards row 1 holds a NUL character" : NULL;
}

static void test_vectors(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/manifest_parse.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *ok = sf__json_get(c, "ok");
        sf_bytes payload = payload_decode(need(c, "payload_zlib_b64")->str);
        sf_snapshot_manifest *m = NULL;
        sf_error err = SF_ERROR_INIT;
        const char *why;
        char name[200];
        sf_status rc = sf__snapshot_manifest_parse(&m, payload, 0, HEAP, &err);

        snprintf(name, sizeof(name), "%.*s", (int)need(c, "name")->str.n, (const char *)need(c, "name")->str.p);
        why = refused_on_purpose(name);
        if (rc != (ok && !why ? SF_OK : SF_BAD_MANIFEST) || (why && !strstr(err.message, why)))
            fail_msg("%s: %s '%s'", name, sf_status_name(rc), err.message);
        if (rc == SF_OK) {
            expect_manifest(name, ok, m);
        } else {
            assert_null(m);
            assert_int_equal(err.code, SF_BAD_MANIFEST);
            assert_true(err.message[0] != '\0');
        }
        sf__snapshot_manifest_free(m);
        free((void *)(uintptr_t)payload.p);
    }
    golden_close(&g);
}

static sf_bytes vector_payload(const char *wanted)
{
    sf_bytes payload = {NULL, 0};
    struct golden g;

    golden_open(&g, "vectors/manifest_parse.json");
    for (const sf_json *c = need_cases(&g, "cases"); c && !payload.p; c = c->next)
        if (text_is(need(c, "name"), wanted))
            payload = payload_decode(need(c, "payload_zlib_b64")->str);
    golden_close(&g);
    assert_non_null(payload.p);
    return payload;
}

/* ------------------------------------------------------------------ golden snapshots ----------------------------- */

/* "s3://bucket/x" of a case, as a file below the fixtures. */
static void fixture_name(char out[1024], const char *which, const char *url)
{
    assert_int_equal(strncmp(url, "s3://bucket/", 12), 0);
    snprintf(out, 1024, "snapshots/%s/bucket/%s", which, url + 12);
}

static void expect_routes(const char *where, const sf_json *lookups, const sf_snapshot_manifest *m)
{
    sf_error err = SF_ERROR_INIT;
    sf_router router;

    assert_int_equal(sf__router_init(&router, m, HEAP, &err), SF_OK);
    for (const sf_json *l = lookups->first; l; l = l->next) {
        const sf_json *expected = sf__json_get(l, "db_id"), *context = sf__json_get(l, "context");
        struct golden_context given = {.context = {.count = 0}};
        uint32_t db_id;
        sf_key key;

        if (!expected || !key_of(need(l, "key"), &key))
            continue;
        if (context && context->kind == SF_JSON_OBJECT) {
            context_of(context, &given);
            key.context = &given.context;
        }
        if (sf__router_route(&router, &key, &db_id, &err) != SF_OK)
            fail_msg("%s: %.*s: %s", where, (int)l->raw.n, (const char *)l->raw.p, err.message);
        if (need_int(l, "db_id") != db_id)
            fail_msg("%s: %.*s routed to %u", where, (int)l->raw.n, (const char *)l->raw.p, db_id);
        context_cleanup(&given);
        key_cleanup(&key);
    }
    sf__router_cleanup(&router);
}

static void expect_opened(const char *where, const sf_json *root, const sf_snapshot_manifest *m)
{
    const sf_json *info = need(root, "snapshot_info");
    uint64_t rows = 0;

    assert_int_equal(need_int(root, "num_dbs"), m->num_dbs);
    expect_text(where, need(root, "key_encoding"), sf__key_encoding_name(m->key_encoding));
    expect_text(where, need(root, "s3_prefix"), m->s3_prefix);
    expect_text(where, need(info, "run_id"), m->run_id);
    expect_time(where, need(info, "created_at"), m->created_at_us, m->created_at_naive);
    for (size_t i = 0; i < m->shard_count; i++)
        rows += m->shards[i].row_count;
    assert_int_equal(need_int(info, "row_count"), rows);
    expect_layout(where, need(root, "layout"), m);
    expect_sharding(where, need(root, "sharding"), m);
    expect_custom(where, need(root, "custom"), m);
    expect_shards(where, need(root, "shards"), m);
    expect_routes(where, need(root, "lookups"), m);
}

static void expect_readable(const sf_snapshot_manifest *m)
{
    sf_error err = SF_ERROR_INIT;

    if (sf__snapshot_manifest_check_readable(m, true, &err) != SF_OK)
        fail_msg("%s", err.message);
}

/* Each manifest that a case lists, and, for the one that is opened, all facts. */
static size_t check_case(const char *which, const sf_json *root, const sf_json *listed)
{
    const sf_json *opened = sf__json_get(need(root, "open"), "manifest_ref");
    size_t parsed = 0;

    for (const sf_json *l = listed; l; l = l->next) {
        sf_snapshot_manifest *m = NULL;
        char ref[512], name[1024];
        sf_bytes bytes;
        sf_status rc;

        snprintf(ref, sizeof(ref), "%.*s", (int)need(l, "ref")->str.n, (const char *)need(l, "ref")->str.p);
        fixture_name(name, which, ref);
        bytes = file_read(name);
        rc = sf__snapshot_manifest_parse(&m, bytes, 0, HEAP, NULL);
        free((void *)(uintptr_t)bytes.p); /* the manifest keeps nothing of it */
        if (rc != (text_is(need(l, "parse"), "ok") ? SF_OK : SF_BAD_MANIFEST))
            fail_msg("%s: %s", name, sf_status_name(rc));
        if (m && opened && text_is(opened, ref))
            expect_opened(name, root, m);
        if (m)
            expect_readable(m);
        parsed += m != NULL;
        sf__snapshot_manifest_free(m);
    }
    return parsed;
}

/* The folders below `manifests/`, in whatever order they come, against the listing of the case. `contract` instead says
 * which manifest is the newest that can be read, where the existing reader cannot even list them. */
static void check_listing(const char *which, const char *prefix, const sf_json *listed, const sf_json *contract)
{
    char dir[2048], name[1024], *names[20];
    sf_store_entry entries[COUNT(names)];
    sf_manifest_ref *refs;
    size_t n = 0, count, i = 0;
    struct dirent *e;
    DIR *d;

    fixture_name(name, which, prefix);
    snprintf(dir, sizeof(dir), "%s/%s/manifests", fixtures_dir(), name);
    d = opendir(dir);
    while (d && (e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        assert_true(n < COUNT(names));
        names[n] = sf__asprintf(HEAP, "manifests/%s/", e->d_name);
        memset(&entries[n], 0, sizeof(entries[n]));
        entries[n].key = names[n];
        entries[n].is_prefix = true;
        n++;
    }
    if (d)
        closedir(d);
    assert_int_equal(
        sf__manifest_refs_from_listing(&refs, &count, prefix, SF_MANIFEST_NAME, entries, n, 100, HEAP, NULL), SF_OK);
    for (const sf_json *l = listed; l; l = l->next, i++) {
        assert_true(i < count);
        expect_text(which, need(l, "ref"), refs[i].ref);
        expect_text(which, need(l, "run_id"), refs[i].run_id);
        expect_time(which, need(l, "published_at"), refs[i].published_at_us, false);
    }
    if (contract) {
        bool found = false;

        for (i = 0; i < count; i++)
            found = found || text_is(need(contract, "manifest_ref"), refs[i].ref);
        assert_true(found && count < n);
    }
    assert_int_equal(i, count);
    sf__manifest_refs_free(refs, count, HEAP);
    while (n-- > 0)
        sf__free(HEAP, names[n]);
}

static void test_snapshots(void **state)
{
    size_t cases = 0, parsed = 0;
    struct dirent *e;
    char dir[1024];
    DIR *d;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/snapshots", fixtures_dir());
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char name[1024], prefix[256];
        const sf_json *listed;
        struct golden g;

        if (strchr(e->d_name, '.'))
            continue;
        snprintf(name, sizeof(name), "snapshots/%s/expected.json", e->d_name);
        golden_open(&g, name);
        snprintf(prefix, sizeof(prefix), "%.*s", (int)need(g.doc.root, "s3_prefix")->str.n,
                 (const char *)need(g.doc.root, "s3_prefix")->str.p);
        listed = sf__json_get(g.doc.root, "manifests");
        check_listing(e->d_name, prefix, listed ? listed->first : NULL, listed ? NULL : need(g.doc.root, "contract"));
        if (listed)
            parsed += check_case(e->d_name, g.doc.root, listed->first);
        golden_close(&g);
        cases++;
    }
    closedir(d);
    assert_true(cases >= 34 && parsed >= 42);
}

/* ------------------------------------------------------------------ made here ------------------------------------ */

#define BUILD_META                                                                                           \
    "CREATE TABLE build_meta (run_id TEXT, created_at TEXT, num_dbs INTEGER, s3_prefix TEXT, key_col TEXT, " \
    "sharding TEXT, db_path_template TEXT, shard_prefix TEXT, format_version INTEGER, key_encoding TEXT, "   \
    "custom TEXT DEFAULT '{}');"                                                                             \
    "INSERT INTO build_meta VALUES ('r1', '2026-01-02T03:04:05Z', 3, 's3://b/p', '_key', "                   \
    "'{\"hash_algorithm\": \"xxh3_64\"}', 't', 'shards', 4, 'u64be', '{}');"
#define SHARDS_OF(db_bytes)                                                                          \
    "CREATE TABLE shards (db_id INTEGER, db_url TEXT, attempt INTEGER, row_count INTEGER, " db_bytes \
    "min_key TEXT, max_key TEXT, checkpoint_id TEXT, writer_info TEXT);"
#define SHARDS                                                                                                     \
    SHARDS_OF("db_bytes INTEGER,")                                                                                 \
    "INSERT INTO shards VALUES (2, 's3://b/p/2', 0, 7, 5, '1', '9', 'c', '{}'), (0, 's3://b/p/0', 1, 3, 0, NULL, " \
    "NULL, NULL, '{}');"
#define LEGACY BUILD_META SHARDS_OF("") "INSERT INTO shards VALUES (1, 's3://b/p/1', 0, 7, NULL, NULL, NULL, '{}');"
#define BASE BUILD_META SHARDS

/* The bytes of a database that some SQL makes. Freed with sqlite3_free(). */
static sf_bytes database_of(const char *pragma, const char *first, const char *then)
{
    sqlite3_int64 n = 0;
    char *message = NULL;
    sqlite3 *db;
    uint8_t *p;

    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    if (sqlite3_exec(db, pragma, NULL, NULL, &message) != SQLITE_OK ||
        sqlite3_exec(db, first, NULL, NULL, &message) != SQLITE_OK ||
        sqlite3_exec(db, then, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", then, message);
    p = sqlite3_serialize(db, "main", &n, 0);
    assert_non_null(p);
    sqlite3_close(db);
    return sf_bytes_of(p, (size_t)n);
}

static sf_status parse_sql(sf_snapshot_manifest **m, const char *first, const char *then, unsigned flags, sf_error *err)
{
    sf_bytes bytes = database_of("", first, then);
    sf_status rc = sf__snapshot_manifest_parse(m, bytes, flags, HEAP, err);

    sqlite3_free((void *)(uintptr_t)bytes.p);
    return rc;
}

static const struct {
    const char *sql, *message;
} malformed[] = {
    {"DELETE FROM build_meta", "SQLite manifest has no build_meta row"},
    {"DROP TABLE shards", "Failed to read SQLite manifest tables: no such table: shards"},
    {"ALTER TABLE shards DROP COLUMN db_bytes", "Failed to read SQLite manifest tables: no such column: db_bytes"},
    {"UPDATE build_meta SET format_version = 5, custom = 'x'", "Unsupported manifest format_version: 5. Supported: [4]"},
    {"UPDATE build_meta SET format_version = 3", "Unsupported manifest format_version: 3. Supported: [4]"},
    {"UPDATE build_meta SET format_version = NULL", "Manifest validation failed: format_version is NULL"},
    {"UPDATE build_meta SET format_version = 4.5", "Manifest validation failed: format_version is not an integer"},
    {"UPDATE build_meta SET format_version = 1e300", "Manifest validation failed: format_version is not an integer"},
    {"UPDATE build_meta SET format_version = '99999999999999999999x'", "format_version is not an integer"},
    {"UPDATE build_meta SET run_id = NULL", "run_id is NULL"},
    {"UPDATE build_meta SET run_id = x'ff'", "run_id is not UTF-8"},
    {"UPDATE build_meta SET run_id = 'a' || char(0) || 'b'", "run_id holds a NUL character"},
    {"UPDATE build_meta SET created_at = NULL", "created_at is NULL"},
    {"UPDATE build_meta SET created_at = 'now'", "created_at is not a date and time"},
    {"UPDATE build_meta SET created_at = ''", "created_at is not a date and time"},
    {"UPDATE build_meta SET num_dbs = 0", "num_dbs is 0"},
    {"UPDATE build_meta SET num_dbs = -1", "num_dbs is negative"},
    {"UPDATE build_meta SET num_dbs = 1048577", "num_dbs 1048577 is more than 1048576"},
    {"UPDATE build_meta SET num_dbs = '99999999999999999999'", "num_dbs is not an integer"},
    {"UPDATE build_meta SET key_encoding = 'UTF8'", "key_encoding is none of u64be, u32be, utf8, raw"},
    {"UPDATE build_meta SET sharding = NULL", "sharding: JSON: empty text"},
    {"UPDATE build_meta SET sharding = '{}'", "sharding: hash_algorithm must be 'xxh3_64'"},
    {"UPDATE build_meta SET custom = '[]'", "custom is not a JSON object"},
    {"UPDATE build_meta SET custom = '{'", "custom: JSON: expected a string at byte 1"},
    {"UPDATE build_meta SET sharding = '{\"strategy\":\"cel\",\"hash_algorithm\":\"xxh3_64\",\"cel_expr\":\"r\","
     "\"cel_columns\":{\"r\":\"int\"},\"routing_values\":[1,2]}'",
     "Categorical CEL manifest num_dbs must match routing_values cardinality (expected 2, got 3)"},
    {"UPDATE build_meta SET num_dbs = 1", "Manifest shard db_ids out of range [0, 1): [2]"},
    {"UPDATE build_meta SET num_dbs = 1; UPDATE shards SET db_id = 0",
     "Manifest shard count exceeds num_dbs: at least 2 > 1"},
    {"UPDATE shards SET db_id = 1", "Manifest contains duplicate shard db_ids: [1]"},
    {"UPDATE shards SET db_id = -1", "Manifest shard db_ids out of range [0, 3): [-1]"},
    {"UPDATE shards SET db_id = NULL", "db_id of shards row 1 is NULL"},
    {"UPDATE shards SET db_url = 'x' || char(0)", "db_url of shards row 1 holds a NUL character"},
    {"UPDATE shards SET attempt = -1 WHERE db_id = 0", "attempt of shards row 2 is negative"},
    {"UPDATE shards SET attempt = 4294967296", "attempt of shards row 1 is out of range"},
    {"UPDATE shards SET row_count = 'ten'", "row_count of shards row 1 is not an integer"},
    {"UPDATE shards SET row_count = 1.5", "row_count of shards row 1 is not an integer"},
    {"UPDATE shards SET row_count = 9223372036854775807; INSERT INTO shards SELECT 1, db_url, attempt, row_count, 0, "
     "NULL, NULL, NULL, '{}' FROM shards LIMIT 1",
     "row_count of shards row 3 makes the sum of all too large"},
    {"UPDATE shards SET db_bytes = NULL", "db_bytes of shards row 1 is NULL"},
    {"UPDATE shards SET min_key = '1.5'", "min_key of shards row 1 is neither an integer nor a string"},
    {"UPDATE shards SET max_key = '[1]'", "max_key of shards row 1 is neither an integer nor a string"},
    {"UPDATE shards SET max_key = ''", "max_key: JSON: empty text"},
    {"UPDATE shards SET max_key = x''", "max_key: JSON: empty text"},
    {"UPDATE shards SET max_key = '\"\\ud800\"'", "max_key: JSON: lone surrogate"},
    {"UPDATE shards SET min_key = '1' || hex(zeroblob(2200))", "min_key of shards row 1 is neither"},
    {"UPDATE shards SET writer_info = NULL", "writer_info: JSON: empty text"},
    {"UPDATE shards SET writer_info = 'null'", "writer_info of shards row 1 is not a JSON object"},
    {"UPDATE shards SET writer_info = '{\"attempt\":null}'", "attempt in writer_info of shards row 1 is not an integer"},
    {"UPDATE shards SET writer_info = '{\"stage_id\":\"x\"}'",
     "stage_id in writer_info of shards row 1 is not an integer"},
    /* what a schema could make of a small file */
    {"DROP TABLE shards; CREATE VIEW shards AS SELECT 0 db_id, 'u' db_url, 0 attempt, hex(zeroblob(9)) row_count, 0 "
     "db_bytes, NULL min_key, NULL max_key, NULL checkpoint_id, '{}' writer_info",
     "they are computed, not stored"},
    {"ALTER TABLE shards RENAME TO s; CREATE VIEW shards AS WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 "
     "FROM r) SELECT s.*, n FROM r, s",
     "Failed to read SQLite manifest tables"},
    {"ALTER TABLE shards RENAME TO s; CREATE VIEW shards AS SELECT * FROM s ORDER BY db_url", "they are computed"},
    {"ALTER TABLE shards RENAME TO s; CREATE VIEW shards AS SELECT db_id, db_url || db_url AS db_url, attempt, "
     "row_count, db_bytes, min_key, max_key, checkpoint_id, writer_info FROM s",
     "they are computed"},
    {"DROP TABLE build_meta; CREATE VIRTUAL TABLE build_meta USING fts5(run_id)", "no such module"},
    {"CREATE TABLE n (x); INSERT INTO n WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 300) SELECT "
     "i FROM r; ALTER TABLE shards RENAME TO s; CREATE VIEW shards AS SELECT s.* FROM s, n a, n b, n c WHERE a.x + b.x "
     "+ c.x = -1",
     "more work than the file's size warrants"},
};

static void test_malformed(void **state)
{
    sf_snapshot_manifest *m = NULL;
    sf_error err = SF_ERROR_INIT;

    (void)state;
    assert_int_equal(parse_sql(&m, BASE, "", 0, &err), SF_OK); /* what the cases below spoil */
    assert_int_equal(m->shards[0].db_id, 0);
    assert_int_equal(m->shards[1].db_id, 2);
    assert_int_equal(m->shards[1].row_count, 7);
    assert_int_equal(m->created_at_us, 1767323045000000);
    sf__snapshot_manifest_free(m);
    for (size_t i = 0; i < COUNT(malformed); i++) {
        sf_status rc;

        m = NULL;
        sf_error_clear(&err);
        rc = parse_sql(&m, BASE, malformed[i].sql, 0, &err);
        if (rc != SF_BAD_MANIFEST || m || !strstr(err.message, malformed[i].message))
            fail_msg("%s: %s '%s'", malformed[i].sql, sf_status_name(rc), err.message);
        /* without an error to fill it must fail just the same */
        assert_int_equal(parse_sql(&m, BASE, malformed[i].sql, 0, NULL), SF_BAD_MANIFEST);
    }
}

static const struct {
    const char *sql;
    bool legacy, ok;
} versions[] = {
    {"UPDATE build_meta SET format_version = 2", true, true},
    {"UPDATE build_meta SET format_version = 3", true, true},
    {"UPDATE build_meta SET format_version = 3", false, false},
    {"UPDATE build_meta SET format_version = 1", true, false},
    {"UPDATE build_meta SET format_version = 5", true, false},
    {"", true, false}, /* version 4 must have db_bytes */
    {"UPDATE build_meta SET format_version = 3, sharding = '{\"hash_algorithm\":\"xxh3_64\",\"boundaries\":null}'",
     true, true},
    {"UPDATE build_meta SET format_version = 3, sharding = '{\"hash_algorithm\":\"xxh3_64\",\"boundaries\":[1]}'", true,
     false},
    {"UPDATE build_meta SET format_version = 2, sharding = '{\"strategy\":\"hash\"}'", true, false},
};

static void test_versions(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(versions); i++) {
        sf_snapshot_manifest *m = NULL;
        sf_error err = SF_ERROR_INIT;
        sf_status rc = parse_sql(&m, LEGACY, versions[i].sql, versions[i].legacy ? SF_MANIFEST_LEGACY : 0, &err);

        if (rc != (versions[i].ok ? SF_OK : SF_BAD_MANIFEST))
            fail_msg("%s: %s '%s'", versions[i].sql, sf_status_name(rc), err.message);
        if (rc == SF_OK)
            assert_true(m->shard_count == 1 && m->shards[0].db_bytes == 0 && m->shards[0].row_count == 7);
        sf__snapshot_manifest_free(m);
    }
}

/* Of the head alone: what is wrong with shards does not matter, what is wrong with it does. */
static void test_head_only(void **state)
{
    static const char *const shards[] = {"", "DROP TABLE shards", "UPDATE shards SET db_id = 99", "DELETE FROM shards"};
    sf_snapshot_manifest *m = NULL;

    (void)state;
    for (size_t i = 0; i < COUNT(shards); i++) {
        sf_error err = SF_ERROR_INIT;

        if (parse_sql(&m, BASE, shards[i], SF_MANIFEST_HEAD_ONLY, &err) != SF_OK)
            fail_msg("%s: %s", shards[i], err.message);
        assert_true(m->shard_count == 0 && m->row_count == 0 && m->num_dbs > 0);
        sf__snapshot_manifest_free(m);
    }
    assert_int_equal(parse_sql(&m, BASE, "UPDATE build_meta SET num_dbs = 0", SF_MANIFEST_HEAD_ONLY, NULL),
                     SF_BAD_MANIFEST);
}

static const struct {
    const char *custom, *backend;
    sf_status readable;
} backends[] = {
    {"{}", NULL, SF_OK},
    {"", NULL, SF_OK},
    {"{\"kv_backend\":\"slatedb\",\"sqlite_sidecar\":{}}", "slatedb", SF_OK},
    {"{\"kv_backend\":\"sqlite\"}", "sqlite", SF_OK},
    {"{\"kv_backend\":\"other\"}", "other", SF_UNSUPPORTED},
    {"{\"kv_backend\":5,\"sqlite_sidecar\":1}", NULL, SF_OK},
    {"{\"sqlite_sidecar\":{\"filename\":\"shard.sidecar\"}}", "sqlite", SF_OK},
    {"{\"vector\":{\"dim\":3}}", NULL, SF_INVALID},
    {"{\"vector\":{\"unified\":false}}", NULL, SF_INVALID},
    {"{\"vector\":{\"unified\":true}}", NULL, SF_OK},
    {"{\"vector\":{\"unified\":1,\"kv_backend\":\"sqlite\"}}", "sqlite", SF_OK},
    {"{\"vector\":5}", NULL, SF_OK},
    {"{\"odd\":[NaN,\"\\ud800\"]}", NULL, SF_OK},
};

static void test_readable(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(backends); i++) {
        char *sql = sqlite3_mprintf("UPDATE build_meta SET custom = %Q", backends[i].custom);
        sf_snapshot_manifest *m = NULL;
        sf_error err = SF_ERROR_INIT;

        assert_int_equal(parse_sql(&m, BASE, sql, 0, &err), SF_OK);
        if (sf__snapshot_manifest_check_readable(m, true, &err) != backends[i].readable ||
            (m->kv_backend == NULL) != (backends[i].backend == NULL) ||
            (m->kv_backend && strcmp(m->kv_backend, backends[i].backend) != 0))
            fail_msg("%s: backend '%s' %s", backends[i].custom, m->kv_backend ? m->kv_backend : "", err.message);
        if (backends[i].readable == SF_INVALID)
            assert_string_equal(err.message,
                                "This manifest contains unsupported or incomplete vector metadata and cannot be "
                                "opened with a generic KV reader. Use ShardedVectorReader instead.");
        sf__snapshot_manifest_free(m);
        sqlite3_free(sql);
    }
}

/* Other page sizes and UTF-16 are SQLite's business, and many rows are ordinary. */
static void test_unusual_files(void **state)
{
    static const char *const pragmas[] = {"PRAGMA page_size=512", "PRAGMA page_size=65536", "PRAGMA encoding='UTF-16le'",
                                          "PRAGMA encoding='UTF-16be'; PRAGMA page_size=1024"};
    static const char rows[] =
        "UPDATE build_meta SET num_dbs = 3000, run_id = char(233, 0x1f600); DELETE FROM shards;"
        "INSERT INTO shards WITH RECURSIVE r(i) AS (SELECT 2999 UNION ALL SELECT i - 1 FROM r WHERE i > 0) SELECT i, 's3://b/p/' "
        "|| i, 0, i, 0, i, '\"' || hex(zeroblob(i)) || '\"', 'c' || i, '{\"attempt\": 3}' FROM r";

    (void)state;
    for (size_t i = 0; i < COUNT(pragmas); i++) {
        sf_bytes bytes = database_of(pragmas[i], BASE, rows);
        sf_snapshot_manifest *m = NULL;
        sf_error err = SF_ERROR_INIT;

        if (sf__snapshot_manifest_parse(&m, bytes, 0, HEAP, &err) != SF_OK)
            fail_msg("%s: %s", pragmas[i], err.message);
        assert_string_equal(m->run_id, "\xc3\xa9\xf0\x9f\x98\x80");
        assert_int_equal(m->shard_count, 3000);
        for (uint32_t k = 0; k < 3000; k++) {
            assert_int_equal(m->shards[k].db_id, k);
            assert_int_equal(m->shards[k].row_count, k);
            assert_int_equal(strlen(m->shards[k].max_key_json), 2 * k + 2);
        }
        assert_string_equal(m->shards[7].writer_info_json,
                            "{\"attempt\": 3, \"duration_ms\": 0, \"stage_id\": null, \"task_attempt_id\": null}");
        sf__snapshot_manifest_free(m);
        sqlite3_free((void *)(uintptr_t)bytes.p);
    }
}

/* ------------------------------------------------------------------ damage --------------------------------------- */

/* In memory of exactly the right size, so that a read behind the end is seen. */
static sf_status parse_copy(sf_bytes bytes, sf_snapshot_manifest **m)
{
    uint8_t *copy = malloc(bytes.n + (bytes.n == 0));
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    assert_non_null(copy);
    memcpy(copy, bytes.p, bytes.n);
    rc = sf__snapshot_manifest_parse(m, sf_bytes_of(copy, bytes.n), SF_MANIFEST_LEGACY, HEAP, &err);
    free(copy);
    if (rc != SF_OK)
        assert_true(rc == SF_BAD_MANIFEST && err.message[0] != '\0');
    return rc;
}

static void test_truncated(void **state)
{
    sf_bytes whole = vector_payload("base");
    sf_snapshot_manifest *m = NULL;

    (void)state;
    for (size_t n = 0; n < whole.n; n += n < 200 ? 1 : 61)
        assert_int_equal(parse_copy(sf_bytes_of(whole.p, n), &m), SF_BAD_MANIFEST);
    assert_int_equal(parse_copy(whole, &m), SF_OK);
    sf__snapshot_manifest_free(m);
    free((void *)(uintptr_t)whole.p);
}

static void expect_invariants(const sf_snapshot_manifest *m)
{
    sf_json_doc doc;

    assert_true(m->num_dbs > 0 && m->shard_count <= m->num_dbs);
    for (size_t i = 0; i < m->shard_count; i++) {
        assert_true(m->shards[i].db_id < m->num_dbs);
        assert_true(i == 0 || m->shards[i - 1].db_id < m->shards[i].db_id);
    }
    parse_doc(&doc, m->sharding_json);
    sf__json_cleanup(&doc);
    parse_doc(&doc, m->custom_json);
    sf__json_cleanup(&doc);
}

static void test_flipped_bits(void **state)
{
    sf_bytes whole = vector_payload("base");
    uint8_t *bytes = (uint8_t *)(uintptr_t)whole.p;
    uint64_t seed = 1;
    size_t taken = 0;

    (void)state;
    for (size_t i = 0; i < 4000; i++) {
        sf_snapshot_manifest *m = NULL;
        size_t bit;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bit = (seed >> 33) % (whole.n * 8);
        if (i < 800)
            bit = i; /* the header, all of it */
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (parse_copy(whole, &m) == SF_OK) {
            expect_invariants(m);
            taken++;
        }
        sf__snapshot_manifest_free(m);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(taken > 0 && taken < 4000);
    free(bytes);
}

static void test_without_memory(void **state)
{
    sf_bytes bytes = vector_payload("cel categorical");
    bool fired = true;
    long n;

    (void)state;
    for (n = 0; fired; n++) {
        sf_snapshot_manifest *m = NULL;
        struct test_heap h;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__snapshot_manifest_parse(&m, bytes, 0, &h.alloc, NULL);
        sf__snapshot_manifest_free(m);
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 8);
    free((void *)(uintptr_t)bytes.p);
}

/* ------------------------------------------------------------------ settling ------------------------------------- */

#define SETTLED_INFO "{\"attempt\": 1, \"duration_ms\": 5, \"stage_id\": null, \"task_attempt_id\": null}"

/* Row 0 has a record and no URL, row 2 has both. */
static const char settle_sql[] =
    "UPDATE shards SET writer_info = '{\"attempt\": 1, \"duration_ms\": 5, \"opening\": \"AAEC\"}', db_url = NULL WHERE db_id = 0;"
    "UPDATE shards SET writer_info = '{\"attempt\": 1, \"duration_ms\": 5, \"opening\": \"AAECAwQF\"}', db_url = 'mem://a/b' WHERE db_id = 2";

static const char *url_for_test(void *ctx, uint32_t db_id)
{
    assert_int_equal(db_id, 2); /* row 0 has none */
    return ctx;
}

static bool is_settled(const sf_snapshot_manifest *m, const char *url)
{
    return m->shards[1].db_url == url && !m->shards[0].db_url && sf__manifest_shard_opening(&m->shards[1]).n == 0 &&
           strcmp(m->shards[0].writer_info_json, SETTLED_INFO) == 0 &&
           m->shards[0].writer_info_json == m->shards[1].writer_info_json; /* one text */
}

static bool is_as_published(const sf_snapshot_manifest *m)
{
    return strcmp(m->shards[1].db_url, "mem://a/b") == 0 &&
           sf_bytes_eq(sf__manifest_shard_opening(&m->shards[0]), sf_bytes_str("AAEC")) &&
           sf_bytes_eq(sf__manifest_shard_opening(&m->shards[1]), sf_bytes_str("AAECAwQF")) &&
           strstr(m->shards[1].writer_info_json, "\"opening\": \"AAECAwQF\"");
}

static void test_settling(void **state)
{
    static const struct {
        const char *url;
        bool settles;
    } cases[] = {{"mem://a/b", true}, {"mem://a/c", false}, {NULL, false}};
    sf_bytes bytes = database_of("", BASE, settle_sql);

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        bool fired = true;

        for (long n = 0; fired; n++) { /* without memory, too, it is the one or the other */
            sf_snapshot_manifest *m;
            struct test_heap h;

            heap_init(&h);
            assert_int_equal(sf__snapshot_manifest_parse(&m, bytes, 0, &h.alloc, NULL), SF_OK);
            assert_true(is_as_published(m));
            assert_ptr_equal(sf__snapshot_manifest_shard(m, 2), &m->shards[1]);
            assert_null(sf__snapshot_manifest_shard(m, 1));
            heap_arm(&h, n);
            sf__snapshot_manifest_settle(m, url_for_test, (void *)(uintptr_t)cases[i].url);
            fired = heap_disarm(&h);
            if (!(cases[i].settles && !fired ? is_settled(m, cases[i].url) : is_as_published(m)))
                fail_msg("%s, allocation %ld: %s", cases[i].url ? cases[i].url : "none", n,
                         m->shards[1].writer_info_json);
            sf__snapshot_manifest_free(m);
            assert_int_equal(h.live, 0);
        }
    }
    sqlite3_free((void *)(uintptr_t)bytes.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),        cmocka_unit_test(test_snapshots), cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_versions),       cmocka_unit_test(test_head_only), cmocka_unit_test(test_readable),
        cmocka_unit_test(test_unusual_files),  cmocka_unit_test(test_truncated), cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_without_memory), cmocka_unit_test(test_settling),
    };

    return cmocka_run_group_tests_name("snapshot_manifest", tests, NULL, NULL);
}
