#include "snapshot/manifest_write.h"

#include <sqlite3.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/limits.h"
#include "snapshot/datetime.h"
#include "snapshot/key.h"

/* The text of the schema is stored in the file: to the letter what the existing writers put there. */
static const char schema[] = "CREATE TABLE build_meta (\n"
                             "    run_id           TEXT    NOT NULL,\n"
                             "    created_at       TEXT    NOT NULL,\n"
                             "    num_dbs          INTEGER NOT NULL,\n"
                             "    s3_prefix        TEXT    NOT NULL,\n"
                             "    key_col          TEXT    NOT NULL,\n"
                             "    sharding         TEXT    NOT NULL,\n"
                             "    db_path_template TEXT    NOT NULL,\n"
                             "    shard_prefix     TEXT    NOT NULL,\n"
                             "    format_version   INTEGER NOT NULL,\n"
                             "    key_encoding     TEXT    NOT NULL,\n"
                             "    custom           TEXT    NOT NULL DEFAULT '{}'\n"
                             ");\n"
                             "CREATE TABLE shards (\n"
                             "    db_id         INTEGER NOT NULL PRIMARY KEY,\n"
                             "    db_url        TEXT,\n"
                             "    attempt       INTEGER NOT NULL,\n"
                             "    row_count     INTEGER NOT NULL,\n"
                             "    db_bytes      INTEGER NOT NULL,\n"
                             "    min_key       TEXT,\n"
                             "    max_key       TEXT,\n"
                             "    checkpoint_id TEXT,\n"
                             "    writer_info   TEXT    NOT NULL DEFAULT '{}'\n"
                             ");\n";

static const char insert_build[] = "INSERT INTO build_meta VALUES (?,?,?,?,?,?,?,?,?,?,?)";
static const char insert_shard[] = "INSERT INTO shards VALUES (?,?,?,?,?,?,?,?,?)";

const char sf__sharding_hash_json[] = "{\"cel_columns\": null, \"cel_expr\": null, \"hash_algorithm\": \"xxh3_64\", "
                                      "\"routing_values\": null, \"strategy\": \"hash\"}";

bool sf__key_json_write(sf_strbuf *out, sf_key_encoding encoding, sf_bytes stored)
{
    if (encoding == SF_KEY_U64BE || encoding == SF_KEY_U32BE) {
        sf__strbuf_printf(out, "%llu", (unsigned long long)sf_load_be(stored.p, stored.n));
        return true;
    }
    return sf__json_write_str(out, stored);
}

static void write_id(sf_strbuf *out, bool known, int64_t id)
{
    if (known)
        sf__strbuf_printf(out, "%lld", (long long)id);
    else
        sf__strbuf_puts(out, "null");
}

void sf__writer_info_write(sf_strbuf *out, const sf_writer_info *info)
{
    sf__strbuf_printf(out, "{\"attempt\": %u, \"duration_ms\": %lld", info->attempt, (long long)info->duration_ms);
    if (info->opening)
        sf__strbuf_printf(out, ", \"opening\": \"%s\"", info->opening);
    sf__strbuf_puts(out, ", \"stage_id\": ");
    write_id(out, info->has_stage_id, info->stage_id);
    sf__strbuf_puts(out, ", \"task_attempt_id\": ");
    write_id(out, info->has_task_attempt_id, info->task_attempt_id);
    sf__strbuf_putc(out, '}');
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

struct encoder {
    sqlite3 *db;
    sqlite3_stmt *stmt;
    int column; /* the last one bound */
    int rc;     /* SQLite's, of the first failure */
};

static void bind_text(struct encoder *e, const char *text)
{
    int column = ++e->column;

    if (e->rc != SQLITE_OK)
        return;
    e->rc = text ? sqlite3_bind_text(e->stmt, column, text, -1, SQLITE_STATIC) : sqlite3_bind_null(e->stmt, column);
}

static void bind_int(struct encoder *e, int64_t v)
{
    int column = ++e->column;

    if (e->rc == SQLITE_OK)
        e->rc = sqlite3_bind_int64(e->stmt, column, v);
}

static void prepare(struct encoder *e, const char *sql)
{
    if (e->rc == SQLITE_OK)
        e->rc = sqlite3_prepare_v2(e->db, sql, -1, &e->stmt, NULL);
}

static void finish_row(struct encoder *e)
{
    if (e->rc == SQLITE_OK) {
        e->rc = sqlite3_step(e->stmt);
        e->rc = e->rc == SQLITE_DONE ? sqlite3_reset(e->stmt) : e->rc;
    }
    e->column = 0;
}

static void finalize(struct encoder *e)
{
    sqlite3_finalize(e->stmt); /* its result repeats the failure of the step */
    e->stmt = NULL;
}

static void write_build(struct encoder *e, const sf_snapshot_manifest *m)
{
    char created[SF_DATETIME_TEXT];

    sf__datetime_format(created, m->created_at_us);
    if (m->created_at_naive)
        created[strlen(created) - 1] = '\0'; /* the zone */
    prepare(e, insert_build);
    bind_text(e, m->run_id);
    bind_text(e, created);
    bind_int(e, m->num_dbs);
    bind_text(e, m->s3_prefix);
    bind_text(e, m->key_col);
    bind_text(e, m->sharding_json);
    bind_text(e, m->db_path_template);
    bind_text(e, m->shard_prefix);
    bind_int(e, m->format_version);
    bind_text(e, sf__key_encoding_name(m->key_encoding));
    bind_text(e, m->custom_json);
    finish_row(e);
    finalize(e);
}

static void write_shards(struct encoder *e, const sf_snapshot_manifest *m)
{
    prepare(e, insert_shard);
    for (size_t i = 0; i < m->shard_count; i++) {
        const sf_manifest_shard *s = &m->shards[i];

        bind_int(e, s->db_id);
        bind_text(e, s->db_url);
        bind_int(e, s->attempt);
        bind_int(e, (int64_t)s->row_count);
        bind_int(e, (int64_t)s->db_bytes);
        bind_text(e, s->min_key_json);
        bind_text(e, s->max_key_json);
        bind_text(e, s->checkpoint_id);
        bind_text(e, s->writer_info_json);
        finish_row(e);
    }
    finalize(e);
}

static void exec(struct encoder *e, const char *sql)
{
    if (e->rc == SQLITE_OK)
        e->rc = sqlite3_exec(e->db, sql, NULL, NULL, NULL);
}

static sf_status copy_file(sf_buf **out, sqlite3 *db, const sf_allocator *a, sf_error *err)
{
    sqlite3_int64 n = 0;
    unsigned char *bytes = sqlite3_serialize(db, "main", &n, 0);
    sf_buf *b;

    if (!bytes)
        return sf_fail(err, SF_NOMEM, "snapshot manifest of %lld bytes", (long long)n);
    if ((uint64_t)n > SF_LIMIT_SNAPSHOT_MANIFEST_BYTES) {
        sqlite3_free(bytes);
        return sf_fail(err, SF_INVALID, "a snapshot manifest of %lld bytes is more than readers take (%u)",
                       (long long)n, SF_LIMIT_SNAPSHOT_MANIFEST_BYTES);
    }
    b = sf__buf_copy(a, sf_bytes_of(bytes, (size_t)n));
    sqlite3_free(bytes);
    if (!b)
        return sf_fail(err, SF_NOMEM, "snapshot manifest of %lld bytes", (long long)n);
    *out = b;
    return SF_OK;
}

static sf_status write_file(sf_buf **out, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err)
{
    struct encoder e = {.rc = SQLITE_OK};
    sf_status rc;

    e.rc = sqlite3_open_v2(":memory:", &e.db,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                           NULL);
    exec(&e, "PRAGMA page_size=4096; PRAGMA encoding='UTF-8'; BEGIN");
    exec(&e, schema);
    write_build(&e, m);
    write_shards(&e, m);
    exec(&e, "COMMIT");
    if (e.rc == SQLITE_NOMEM)
        rc = sf_fail(err, SF_NOMEM, "snapshot manifest");
    else if (e.rc != SQLITE_OK)
        rc = sf_fail(err, SF_INVALID, "snapshot manifest: %s", e.db ? sqlite3_errmsg(e.db) : sqlite3_errstr(e.rc));
    else
        rc = copy_file(out, e.db, a, err);
    sqlite3_close(e.db);
    return rc;
}

sf_status sf__snapshot_manifest_encode(sf_buf **out, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    sf__std_fds_hold(); /* see manifest_db.c */
    rc = write_file(out, m, a, err);
    sf__std_fds_let_go();
    return rc;
}

sf_status sf__snapshot_manifest_write(sf_buf **out, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err)
{
    sf_snapshot_manifest *back;
    sf_buf *file;
    sf_status rc = sf__snapshot_manifest_encode(&file, m, a, err);

    if (rc != SF_OK)
        return rc;
    /* a manifest that readers refuse must be found out here, not by them */
    rc = sf__snapshot_manifest_parse(&back, sf__buf_bytes(file), 0, a, err);
    if (rc != SF_OK) {
        sf__buf_release(file);
        if (rc == SF_NOMEM)
            return rc;
        return sf_error_prefix(err, SF_INVALID, "the manifest would be refused by readers: ");
    }
    sf__snapshot_manifest_free(back);
    *out = file;
    return SF_OK;
}
