#include "snapshot/postgres_rows.h"

#include <stdio.h>

#include "base/error.h"
#include "base/json.h"
#include "base/limits.h"
#include "snapshot/key.h"
#include "snapshot/lax.h"
#include "snapshot/manifest_write.h"

#define MICROSECONDS(column) \
    "CASE WHEN isfinite(" column ") THEN (extract(epoch FROM " column ") * 1000000)::bigint END"

#define FROM_MICROSECONDS(v) "TIMESTAMPTZ 'epoch' + " v "::bigint * INTERVAL '1 microsecond'"

/* ------------------------------------------------------------------ names
 * ---------------------------------------- */

static size_t word_length(const char *s)
{
    size_t n = 0;

    while ((s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || s[n] == '_' ||
           (n > 0 && s[n] >= '0' && s[n] <= '9'))
        n++;
    return n;
}

/* The table's own name, behind that of its schema; NULL when it is no name. `suffix`: bytes that follow it.
 */
static const char *own_name(const char *name, size_t suffix)
{
    size_t n = word_length(name);

    if (n > 0 && n <= SF_POSTGRES_NAME_BYTES && name[n] == '.') {
        name += n + 1;
        n = word_length(name);
    }
    return n > 0 && n + suffix <= SF_POSTGRES_NAME_BYTES && name[n] == '\0' ? name : NULL;
}

static sf_status refuse(const char *option, const char *name, size_t suffix, sf_error *err)
{
    return sf_fail(err, SF_INVALID,
                   "%s must be a word of letters, digits and _ of at most %zu bytes, perhaps behind a "
                   "schema's name and a "
                   "dot, not '%s'",
                   option, SF_POSTGRES_NAME_BYTES - suffix, name);
}

sf_status sf__postgres_tables_init(sf_postgres_tables *t, const char *table_name, const char *pointer_table_name,
                                   sf_error *err)
{
    const char *pointer = own_name(pointer_table_name, 0);

    if (!own_name(table_name, sizeof("_builds") - 1))
        return refuse("table_name", table_name, sizeof("_builds") - 1, err);
    if (!pointer)
        return refuse("pointer_table_name", pointer_table_name, 0, err);
    snprintf(t->builds, sizeof(t->builds), "%s_builds", table_name);
    snprintf(t->shards, sizeof(t->shards), "%s_shards", table_name);
    snprintf(t->pointer, sizeof(t->pointer), "%s", pointer_table_name);
    snprintf(t->pointer_index, sizeof(t->pointer_index), "idx_%.*s_updated_at",
             (int)(SF_POSTGRES_NAME_BYTES - sizeof("idx__updated_at") + 1), pointer);
    return SF_OK;
}

/* ------------------------------------------------------------------ statements
 * ----------------------------------- */

static void write_create(sf_strbuf *out, const sf_postgres_tables *t)
{
    /* two that create the same table at once would break each other */
    sf__strbuf_printf(out,
                      "SELECT pg_advisory_xact_lock(hashtext('%s')); "
                      "CREATE TABLE IF NOT EXISTS %s (run_id TEXT PRIMARY KEY, created_at TIMESTAMPTZ NOT NULL DEFAULT "
                      "NOW(), "
                      "num_dbs INTEGER NOT NULL, s3_prefix TEXT NOT NULL, key_col TEXT NOT NULL DEFAULT '_key', "
                      "db_path_template TEXT NOT NULL DEFAULT 'db={db_id:05d}', shard_prefix TEXT NOT NULL DEFAULT "
                      "'shards', "
                      "key_encoding TEXT NOT NULL DEFAULT 'u64be', sharding JSONB NOT NULL, custom JSONB NOT NULL DEFAULT "
                      "'{}'); ",
                      t->builds, t->builds);
    sf__strbuf_printf(out,
                      "CREATE TABLE IF NOT EXISTS %s (run_id TEXT NOT NULL REFERENCES %s(run_id), db_id INTEGER NOT NULL, "
                      "db_url TEXT, attempt INTEGER NOT NULL DEFAULT 0, row_count INTEGER NOT NULL DEFAULT 0, "
                      "db_bytes BIGINT NOT NULL DEFAULT 0, checkpoint_id TEXT, min_key JSONB, max_key JSONB, writer_info "
                      "JSONB, "
                      "PRIMARY KEY (run_id, db_id)); ",
                      t->shards, t->builds);
    sf__strbuf_printf(out,
                      "CREATE TABLE IF NOT EXISTS %s (updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), "
                      "manifest_ref TEXT NOT NULL); "
                      "CREATE INDEX IF NOT EXISTS %s ON %s (updated_at DESC)",
                      t->pointer, t->pointer_index, t->pointer);
}

/* One statement, so that rows of one publishing are read. What may be large comes once: a join would repeat
 * it for each shard. */
static void write_manifest(sf_strbuf *out, const sf_postgres_tables *t)
{
    sf__strbuf_printf(out,
                      "SELECT CASE WHEN octet_length(m) <= %u THEN m ELSE octet_length(m)::text END FROM (SELECT "
                      "json_build_object('run_id', b.run_id, 'created_at_us', " MICROSECONDS(
                          "b.created_at") ", "
                                          "'num_dbs', b.num_dbs, 's3_prefix', b.s3_prefix, 'key_col', b.key_col, "
                                          "'db_path_template', b.db_path_template, 'shard_prefix', b.shard_prefix, "
                                          "'key_encoding', b.key_encoding, "
                                          "'sharding', b.sharding::text, 'custom', b.custom::text, 'shards', "
                                          "(SELECT json_agg(json_build_array(s.db_id, s.db_url, s.attempt, s.row_count, "
                                          "s.db_bytes, "
                                          "s.min_key::text, s.max_key::text, s.checkpoint_id, s.writer_info::text) ORDER "
                                          "BY s.db_id) "
                                          "FROM %s s WHERE s.run_id = b.run_id))::text AS m FROM %s b WHERE b.run_id = $1 "
                                          "OFFSET 0) AS whole",
                      SF_LIMIT_SNAPSHOT_MANIFEST_BYTES, t->shards, t->builds);
}

static void write_put_build(sf_strbuf *out, const sf_postgres_tables *t)
{
    sf__strbuf_printf(out,
                      "INSERT INTO %s AS b (run_id, created_at, num_dbs, s3_prefix, key_col, "
                      "db_path_template, shard_prefix, "
                      "key_encoding, sharding, custom) VALUES ($1, " FROM_MICROSECONDS(
                          "$2") ", "
                                "$3::integer, $4, $5, $6, $7, $8, $9::jsonb, $10::jsonb) ON CONFLICT "
                                "(run_id) DO UPDATE SET "
                                "created_at = EXCLUDED.created_at, num_dbs = EXCLUDED.num_dbs, s3_prefix = "
                                "EXCLUDED.s3_prefix, "
                                "key_col = EXCLUDED.key_col, db_path_template = EXCLUDED.db_path_template, "
                                "shard_prefix = EXCLUDED.shard_prefix, key_encoding = EXCLUDED.key_encoding, "
                                "sharding = EXCLUDED.sharding, custom = EXCLUDED.custom",
                      t->builds);
}

static void write_put_shards(sf_strbuf *out, const sf_postgres_tables *t)
{
    sf__strbuf_printf(out,
                      "INSERT INTO %s (run_id, db_id, db_url, attempt, row_count, db_bytes, checkpoint_id, min_key, "
                      "max_key, "
                      "writer_info) SELECT $1, s.* FROM jsonb_to_recordset($2::jsonb) AS s (db_id integer, db_url text, "
                      "attempt integer, row_count integer, db_bytes bigint, checkpoint_id text, min_key jsonb, max_key "
                      "jsonb, "
                      "writer_info jsonb)",
                      t->shards);
}

void sf__postgres_statement_write(sf_strbuf *out, sf_postgres_statement which, const sf_postgres_tables *t)
{
    switch (which) {
    case SF_POSTGRES_TABLES_EXIST:
        sf__strbuf_printf(out,
                          "SELECT to_regclass('%s') IS NOT NULL AND to_regclass('%s') IS NOT NULL AND "
                          "to_regclass('%s') IS NOT NULL",
                          t->builds, t->shards, t->pointer);
        break;
    case SF_POSTGRES_CREATE:
        write_create(out, t);
        break;
    case SF_POSTGRES_CURRENT: /* without a pointer the newest build counts */
        sf__strbuf_printf(out,
                          "WITH pointed AS (SELECT manifest_ref, updated_at FROM %s ORDER BY updated_at DESC LIMIT 1), "
                          "newest AS (SELECT run_id, created_at FROM %s WHERE NOT EXISTS (SELECT 1 FROM pointed) "
                          "ORDER BY created_at DESC, run_id DESC LIMIT 1) "
                          "SELECT manifest_ref, " MICROSECONDS("updated_at") " FROM pointed UNION ALL "
                                                                             "SELECT run_id, " MICROSECONDS(
                                                                                 "created_at") " FROM newest",
                          t->pointer, t->builds);
        break;
    case SF_POSTGRES_MANIFEST:
        write_manifest(out, t);
        break;
    case SF_POSTGRES_LIST:
        sf__strbuf_printf(out,
                          "SELECT run_id, " MICROSECONDS("created_at") " FROM %s ORDER BY created_at DESC, run_id DESC "
                                                                       "LIMIT $1::bigint",
                          t->builds);
        break;
    case SF_POSTGRES_LOCK: /* rows are only added, so there is none that every publisher could lock */
        sf__strbuf_printf(out, "LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE", t->pointer);
        break;
    case SF_POSTGRES_PUT_BUILD:
        write_put_build(out, t);
        break;
    case SF_POSTGRES_DROP_SHARDS:
        sf__strbuf_printf(out, "DELETE FROM %s WHERE run_id = $1", t->shards);
        break;
    case SF_POSTGRES_DROP_BUILD:
        sf__strbuf_printf(out, "DELETE FROM %s WHERE run_id = $1", t->builds);
        break;
    case SF_POSTGRES_PUT_SHARDS:
        write_put_shards(out, t);
        break;
    case SF_POSTGRES_POINT: /* the greatest time is the current one, whatever the clocks of publishers say */
        sf__strbuf_printf(out,
                          "INSERT INTO %s (updated_at, manifest_ref) SELECT GREATEST(clock_timestamp(), "
                          "(SELECT max(updated_at) FROM %s) + INTERVAL '1 microsecond'), b.run_id FROM %s b "
                          "WHERE b.run_id = $1 "
                          "RETURNING manifest_ref",
                          t->pointer, t->pointer, t->builds);
        break;
    case SF_POSTGRES_POINTED:
        sf__strbuf_printf(out,
                          "SELECT manifest_ref FROM %s WHERE manifest_ref = $1 AND EXISTS (SELECT 1 FROM %s WHERE "
                          "run_id = manifest_ref AND created_at = " FROM_MICROSECONDS("$2") ") LIMIT 1",
                          t->pointer, t->builds);
        break;
    case SF_POSTGRES_STATEMENT_COUNT:
        break;
    }
}

const char *sf__postgres_statement_name(sf_postgres_statement which)
{
    static const char *const names[] = {
        [SF_POSTGRES_TABLES_EXIST] = "tables_exist",
        [SF_POSTGRES_CREATE] = "create",
        [SF_POSTGRES_CURRENT] = "current",
        [SF_POSTGRES_MANIFEST] = "manifest",
        [SF_POSTGRES_LIST] = "list",
        [SF_POSTGRES_LOCK] = "lock",
        [SF_POSTGRES_PUT_BUILD] = "put_build",
        [SF_POSTGRES_DROP_SHARDS] = "drop_shards",
        [SF_POSTGRES_DROP_BUILD] = "drop_build",
        [SF_POSTGRES_PUT_SHARDS] = "put_shards",
        [SF_POSTGRES_POINT] = "point",
        [SF_POSTGRES_POINTED] = "pointed",
    };

    return names[which];
}

/* ------------------------------------------------------------------ failures ------------------------------------- */

static bool is_one_of(const char *state, const char *list)
{
    const char *found = state[0] ? strstr(list, state) : NULL;

    return found && strlen(state) == 5;
}

sf_status sf__postgres_status(const char *state, const char *text, bool *again)
{
    *again = false;
    if (is_one_of(state, "42501 28000 28P01"))
        return SF_DENIED;
    if (is_one_of(state, "42P01 3F000 3D000")) /* no such table, schema, database */
        return SF_NOT_FOUND;
    if (strncmp(state, "22", 2) == 0) /* a value that the server cannot store */
        return SF_INVALID;
    /* the connection, resources, a server that ends or begins, a transaction that lost against another. A refused connection has
     * no state; one that was refused for who asks will be again */
    if (state[0])
        *again = strncmp(state, "08", 2) == 0 || strncmp(state, "53", 2) == 0 ||
                 is_one_of(state, "57P01 57P02 57P03 40001 40P01");
    else
        *again = !strstr(text, "FATAL") || strstr(text, "the database system is") || strstr(text, "too many");
    return *again ? SF_UNAVAILABLE : SF_IO;
}

bool sf__postgres_may_tell_password(const char *state, const char *text)
{
    return !state[0] && (strstr(text, "connection option") || strstr(text, "connection info") || strstr(text, "dsn") ||
                         strstr(text, "DSN") || strstr(text, " URI") || strchr(text, '@'));
}

/* ------------------------------------------------------------------ rows
 * ----------------------------------------- */

struct row_decoder {
    sf_snapshot_manifest *m;
    sf_error *err;
    char where[32]; /* in messages */
};

static sf_status bad(struct row_decoder *d, const char *column, const char *why)
{
    return sf_fail(d->err, SF_BAD_MANIFEST, "Manifest validation failed: %s%s %s", d->where, column, why);
}

static sf_status take_text(struct row_decoder *d, const char *column, const sf_json *v, bool optional, const char **out)
{
    if (v && v->kind == SF_JSON_NULL && optional)
        return SF_OK;
    if (!v || v->kind != SF_JSON_STRING)
        return bad(d, column, "is not a text");
    if (v->str.n > 0 && memchr(v->str.p, 0, v->str.n))
        return bad(d, column, "holds a NUL character");
    *out = sf__arena_strndup(&d->m->arena, v->str.p, v->str.n);
    return *out ? SF_OK : sf_fail(d->err, SF_NOMEM, "manifest");
}

static sf_status take_int(struct row_decoder *d, const char *column, const sf_json *v, int64_t least, int64_t most,
                          int64_t *out)
{
    sf_lax_int found;

    if (!v || v->kind != SF_JSON_INT || !sf__lax_int_from_json(v, &found))
        return bad(d, column, "is not an integer");
    if (!found.fits || found.v < least || found.v > most)
        return bad(d, column, "is out of range");
    *out = found.v;
    return SF_OK;
}

static sf_status take_head(struct row_decoder *d, const sf_json *root)
{
    sf_snapshot_manifest *m = d->m;
    const struct {
        const char *name, **where;
    } texts[] = {{"run_id", &m->run_id},          {"s3_prefix", &m->s3_prefix},
                 {"key_col", &m->key_col},        {"db_path_template", &m->db_path_template},
                 {"sharding", &m->sharding_json}, {"shard_prefix", &m->shard_prefix},
                 {"custom", &m->custom_json}};
    const char *encoding = "";
    int64_t num_dbs = 0;
    sf_status rc = SF_OK;

    for (size_t i = 0; rc == SF_OK && i < sizeof(texts) / sizeof(texts[0]); i++)
        rc = take_text(d, texts[i].name, sf__json_get(root, texts[i].name), false, texts[i].where);
    if (rc == SF_OK)
        rc = take_text(d, "key_encoding", sf__json_get(root, "key_encoding"), false, &encoding);
    if (rc == SF_OK)
        rc = take_int(d, "created_at", sf__json_get(root, "created_at_us"), INT64_MIN, INT64_MAX, &m->created_at_us);
    if (rc == SF_OK)
        rc = take_int(d, "num_dbs", sf__json_get(root, "num_dbs"), 1, UINT32_MAX, &num_dbs);
    if (rc == SF_OK && !sf__key_encoding_from_name(sf_bytes_str(encoding), &m->key_encoding))
        rc = sf_fail(d->err, SF_BAD_MANIFEST, "Manifest validation failed: Unsupported key encoding: '%s'", encoding);
    m->num_dbs = (uint32_t)num_dbs;
    m->format_version = 4; /* the tables have no column for it */
    return rc;
}

static sf_status take_shard(struct row_decoder *d, const sf_json *row, sf_manifest_shard *s)
{
    const sf_json *v[9];
    int64_t db_id = 0, attempt = 0, row_count = 0, db_bytes = 0;
    sf_status rc;

    if (row->kind != SF_JSON_ARRAY || row->count != sizeof(v) / sizeof(v[0]))
        return bad(d, "a shard", "is not a row of 9 columns");
    v[0] = row->first;
    for (size_t i = 1; i < row->count; i++)
        v[i] = v[i - 1]->next;
    rc = take_int(d, "db_id", v[0], 0, UINT32_MAX, &db_id);
    snprintf(d->where, sizeof(d->where), "shard %lld: ", (long long)db_id);
    if (rc == SF_OK)
        rc = take_text(d, "db_url", v[1], true, &s->db_url);
    if (rc == SF_OK)
        rc = take_int(d, "attempt", v[2], 0, UINT32_MAX, &attempt);
    if (rc == SF_OK)
        rc = take_int(d, "row_count", v[3], 0, INT64_MAX, &row_count);
    if (rc == SF_OK)
        rc = take_int(d, "db_bytes", v[4], 0, INT64_MAX, &db_bytes);
    if (rc == SF_OK)
        rc = take_text(d, "min_key", v[5], true, &s->min_key_json);
    if (rc == SF_OK)
        rc = take_text(d, "max_key", v[6], true, &s->max_key_json);
    if (rc == SF_OK)
        rc = take_text(d, "checkpoint_id", v[7], true, &s->checkpoint_id);
    s->writer_info_json = "{}";
    if (rc == SF_OK)
        rc = take_text(d, "writer_info", v[8], true, &s->writer_info_json);
    s->db_id = (uint32_t)db_id;
    s->attempt = (uint32_t)attempt;
    s->row_count = (uint64_t)row_count;
    s->db_bytes = (uint64_t)db_bytes;
    return rc;
}

static sf_status take_shards(struct row_decoder *d, const sf_json *rows)
{
    sf_snapshot_manifest *m = d->m;
    sf_status rc = SF_OK;

    if (!rows || rows->kind == SF_JSON_NULL)
        return SF_OK;
    if (rows->kind != SF_JSON_ARRAY)
        return bad(d, "shards", "is not an array");
    m->shards = sf__calloc(m->arena.alloc, rows->count, sizeof(*m->shards));
    if (!m->shards)
        return sf_fail(d->err, SF_NOMEM, "manifest");
    for (const sf_json *row = rows->first; row && rc == SF_OK; row = row->next)
        rc = take_shard(d, row, &m->shards[m->shard_count++]);
    d->where[0] = '\0';
    return rc;
}

static sf_status check_shard_rows(struct row_decoder *d)
{
    sf_json_doc doc;
    const sf_json *said;
    sf_lax_int count;
    sf_status rc = sf__json_parse(&doc, sf_bytes_str(d->m->custom_json), SF_JSON_NAN | SF_JSON_LONE_SURROGATES,
                                  d->m->arena.alloc, d->err);

    if (rc != SF_OK)
        return rc == SF_NOMEM ? rc : bad(d, "custom", "is no JSON");
    said = sf__json_get(doc.root, SF_POSTGRES_SHARD_ROWS);
    if (said && (!sf__lax_int_from_json(said, &count) || !count.fits || count.v != (int64_t)d->m->shard_count))
        rc = sf_fail(d->err, SF_BAD_MANIFEST,
                     "Manifest validation failed: %zu rows of shards are there, and " SF_POSTGRES_SHARD_ROWS " is %.*s",
                     d->m->shard_count, (int)said->raw.n, (const char *)said->raw.p);
    sf__json_cleanup(&doc);
    return rc;
}

sf_status sf__postgres_manifest_encode(sf_buf **out, sf_bytes row, const sf_allocator *a, sf_error *err)
{
    struct row_decoder d = {.err = err};
    sf_json_doc doc;
    sf_status rc;

    if (row.n > SF_LIMIT_SNAPSHOT_MANIFEST_BYTES)
        return sf_fail(err, SF_BAD_MANIFEST, "Manifest validation failed: %zu bytes are more than %u", row.n,
                       SF_LIMIT_SNAPSHOT_MANIFEST_BYTES);
    rc = sf__json_parse(&doc, row, SF_JSON_NAN, a, err);
    if (rc != SF_OK)
        return rc == SF_NOMEM ? rc : sf_error_prefix(err, SF_BAD_MANIFEST, "Manifest validation failed: ");
    d.m = sf__calloc(a, 1, sizeof(*d.m));
    if (!d.m) {
        sf__json_cleanup(&doc);
        return sf_fail(err, SF_NOMEM, "manifest");
    }
    sf__arena_init(&d.m->arena, a);
    if (doc.root->kind == SF_JSON_INT) /* its length */
        rc = sf_fail(err, SF_BAD_MANIFEST, "Manifest validation failed: %.*s bytes are more than %u",
                     (int)doc.root->raw.n, (const char *)doc.root->raw.p, SF_LIMIT_SNAPSHOT_MANIFEST_BYTES);
    else
        rc = doc.root->kind == SF_JSON_OBJECT ? take_head(&d, doc.root) : bad(&d, "the row", "is not an object");
    if (rc == SF_OK)
        rc = take_shards(&d, sf__json_get(doc.root, "shards"));
    if (rc == SF_OK)
        rc = check_shard_rows(&d);
    sf__json_cleanup(&doc);
    if (rc == SF_OK)
        rc = sf__snapshot_manifest_encode(out, d.m, a, err);
    if (rc == SF_INVALID) /* two rows of one shard, or too many bytes */
        rc = sf_error_prefix(err, SF_BAD_MANIFEST, "Manifest validation failed: ");
    sf__snapshot_manifest_free(d.m);
    return rc;
}
