#include "backend/sqlite/connection.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "backend/sqlite/vfs.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/sqlite_harden.h"

/* How much goes on between two looks at flag and deadline. */
#define STEPS_PER_LOOK 1000
#define ROWS_PER_LOOK 256u
/* That of a shard, with its statistics, takes a hundredth. */
#define SCHEMA_BYTES (1u << 20)

struct sf_sqlite_connection {
    const sf_allocator *alloc;
    sf_vfs_file file;
    sqlite3 *db;
    sqlite3_stmt *get;
    sf_sqlite_watch watch; /* of the operation under way */
    bool swollen;          /* why it was interrupted */
    sf_sqlite_connection *next;
};

sf_sqlite_connection **sf__sqlite_connection_next(sf_sqlite_connection *c)
{
    return &c->next;
}

static sf_status status_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return SF_NOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* no such table, no such column */
        return SF_CORRUPT;
    default:
        return SF_IO;
    }
}

static sf_status db_fail(sf_sqlite_connection *c, int rc, const char *what, sf_error *err)
{
    if ((rc & 0xff) == SQLITE_IOERR && c->file.error.code != SF_OK) {
        if (err)
            *err = c->file.error;
        return sf_error_prefix(err, c->file.error.code, "%s: ", what);
    }
    if (rc == SQLITE_INTERRUPT && c->swollen)
        return sf_fail(err, SF_CORRUPT, "shard.db: %s: its schema takes more than %u bytes", what, SCHEMA_BYTES);
    if (rc == SQLITE_INTERRUPT && sf__is_cancelled(c->watch.cancel))
        return sf_fail(err, SF_CANCELLED, "cancelled");
    if (rc == SQLITE_INTERRUPT)
        return sf_error_overdue(err, &(sf_overdue){.since_ns = c->watch.since_ns, .waits_for = "SQLite"});
    return sf_fail(err, status_of(rc), "shard.db: %s: %s (SQLite code %d)", what,
                   c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc), rc);
}

/* ------------------------------------------------------------------ watching ------------------------------------- */

static bool is_over(const sf_sqlite_watch *w)
{
    return sf__is_cancelled(w->cancel) || sf__clock_mono_ns() >= w->deadline_ns;
}

static int on_progress(void *ctx)
{
    sf_sqlite_connection *c = ctx;
    int bytes = 0, unused;

    if (!c->get) { /* opening: the schema is being read, which SQLite keeps in memory */
        sqlite3_db_status(c->db, SQLITE_DBSTATUS_SCHEMA_USED, &bytes, &unused, 0);
        c->swollen = bytes > (int)SCHEMA_BYTES;
    }
    return c->swollen || is_over(&c->watch);
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

static int open_db(sf_sqlite_connection *c)
{
    int rc = sf__vfs_open(&c->db, &c->file, NULL);

    if (rc != SQLITE_OK)
        return rc;
    sqlite3_progress_handler(c->db, STEPS_PER_LOOK, on_progress, c);
    return sf__sqlite_harden(c->db, c->file.view->size);
}

static sf_status not_a_shard(const char *why, sf_error *err)
{
    return sf_fail(err, SF_CORRUPT, "shard.db: %s", why);
}

/* What a statement says of each of its rows: NULL, or why this is no shard. */
typedef const char *(*check_fn)(sqlite3_stmt *row, void *ctx);

static sf_status check_rows(sf_sqlite_connection *c, const char *sql, check_fn check, void *ctx, sf_error *err)
{
    sqlite3_stmt *s = NULL;
    const char *why = NULL;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);

    if (rc == SQLITE_OK)
        while (!why && (rc = sqlite3_step(s)) == SQLITE_ROW)
            why = check(s, ctx);
    sqlite3_finalize(s);
    if (why)
        return not_a_shard(why, err);
    return rc == SQLITE_DONE ? SF_OK : db_fail(c, rc, "open", err);
}

static const char *text_of(sqlite3_stmt *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row, column);

    return text ? text : "";
}

/* type, name, rootpage. SQLite's own tables of statistics are tables like others, and never read by us. */
static const char *check_object(sqlite3_stmt *row, void *ctx)
{
    bool *has_kv = ctx, is_table = strcmp(text_of(row, 0), "table") == 0;

    if (!is_table && strcmp(text_of(row, 0), "index") != 0)
        return "it has a view or a trigger, which could run anything";
    if (sqlite3_column_int64(row, 2) <= 1)
        return "it has a virtual table, which could run anything";
    if (is_table && strcmp(text_of(row, 1), "kv") == 0)
        *has_kv = true;
    return NULL;
}

struct columns {
    bool k, v;
};

/* cid, name, type, notnull, dflt_value, pk, hidden */
static const char *check_column(sqlite3_stmt *row, void *ctx)
{
    struct columns *found = ctx;

    if (sqlite3_column_int(row, 6) != 0)
        return "its table kv has a generated or hidden column";
    if (sqlite3_column_type(row, 4) != SQLITE_NULL)
        return "its table kv has a column with a default";
    found->k = found->k || strcmp(text_of(row, 1), "k") == 0;
    found->v = found->v || strcmp(text_of(row, 1), "v") == 0;
    return NULL;
}

struct indexes {
    sf_sqlite_connection *c;
    sf_error *err;
    bool unique_k; /* there is one whose only column is k */
    unsigned parts;
    bool of_k;
};

/* seqno, cid, name, desc, coll, key. Of a table without rowid the other columns follow the key. */
static const char *check_part(sqlite3_stmt *row, void *ctx)
{
    struct indexes *x = ctx;

    if (sqlite3_column_int(row, 1) == -2)
        return "an index of its table kv computes what it holds";
    if (sqlite3_column_int(row, 5) == 0)
        return NULL;
    if (strcmp(text_of(row, 4), "BINARY") != 0)
        return "an index of its table kv does not compare byte by byte";
    x->parts++;
    x->of_k = strcmp(text_of(row, 2), "k") == 0;
    return NULL;
}

/* seq, name, unique, origin, partial */
static const char *check_index(sqlite3_stmt *row, void *ctx)
{
    struct indexes *x = ctx;
    char *sql;
    sf_status rc;

    if (sqlite3_column_int(row, 4) != 0)
        return "its table kv has a partial index";
    sql = sqlite3_mprintf("PRAGMA index_xinfo(%Q)", text_of(row, 1));
    x->parts = 0;
    x->of_k = false;
    rc = sql ? check_rows(x->c, sql, check_part, x, x->err) : sf_fail(x->err, SF_NOMEM, "indexes of shard.db");
    sqlite3_free(sql);
    if (rc != SF_OK)
        return "";
    x->unique_k = x->unique_k || (sqlite3_column_int(row, 2) != 0 && x->parts == 1 && x->of_k);
    return NULL;
}

/* A look-up is a walk down one tree and nothing else: so that is what the schema must be made for. */
static sf_status check_schema(sf_sqlite_connection *c, sf_error *err)
{
    sf_error inner = SF_ERROR_INIT;
    struct indexes indexes = {.c = c, .err = &inner};
    struct columns columns = {0};
    bool has_kv = false;
    sf_status rc = check_rows(c, "SELECT type, name, rootpage FROM sqlite_schema", check_object, &has_kv, err);

    if (rc == SF_OK && !has_kv)
        rc = not_a_shard("it has no table kv", err);
    if (rc == SF_OK)
        rc = check_rows(c, "PRAGMA table_xinfo(kv)", check_column, &columns, err);
    if (rc == SF_OK && !(columns.k && columns.v))
        rc = not_a_shard("its table kv has no columns k and v", err);
    if (rc == SF_OK)
        rc = check_rows(c, "PRAGMA index_list(kv)", check_index, &indexes, err);
    if (rc != SF_OK && inner.code != SF_OK) {
        if (err)
            *err = inner;
        rc = inner.code;
    }
    if (rc == SF_OK && !indexes.unique_k)
        rc = not_a_shard("its table kv has no unique index on k", err);
    return rc;
}

sf_status sf__sqlite_connect(sf_sqlite_connection **out, const sf_file_view *file, const sf_sqlite_watch *watch,
                             const sf_allocator *a, sf_error *err)
{
    sf_sqlite_connection *c = sf__calloc(a, 1, sizeof(*c));
    sf_status status;
    int rc;

    if (!c)
        return sf_fail(err, SF_NOMEM, "connection to shard.db");
    c->alloc = a;
    c->watch = *watch;
    c->file.view = file;
    rc = open_db(c);
    status = rc == SQLITE_OK ? check_schema(c, err) : db_fail(c, rc, "open", err);
    if (status == SF_OK) {
        rc = sqlite3_prepare_v3(c->db, "SELECT v FROM kv WHERE k = ?", -1, SQLITE_PREPARE_PERSISTENT, &c->get, NULL);
        if (rc != SQLITE_OK)
            status = db_fail(c, rc, "open", err);
    }
    if (status != SF_OK) {
        sf__sqlite_disconnect(c);
        return status;
    }
    *out = c;
    return SF_OK;
}

void sf__sqlite_disconnect(sf_sqlite_connection *c)
{
    if (!c)
        return;
    sqlite3_finalize(c->get);
    sqlite3_close_v2(c->db);
    sf__free(c->alloc, c);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

/* SQLite takes a NULL pointer for NULL. */
static int bind(sqlite3_stmt *s, int i, sf_bytes b)
{
    return sqlite3_bind_blob64(s, i, b.n > 0 ? (const void *)b.p : "", b.n, SQLITE_STATIC);
}

/* Into *out; valid until the statement moves. */
static bool column(sqlite3_stmt *s, int i, sf_bytes *out)
{
    const void *p = sqlite3_column_blob(s, i);

    *out = sf_bytes_of(p, (size_t)sqlite3_column_bytes(s, i));
    return p || out->n == 0;
}

static sf_status take_value(sqlite3_stmt *s, const sf_allocator *a, sf_value *out, sf_error *err)
{
    sf_bytes value;
    sf_buf *b = column(s, 0, &value) ? sf__buf_copy(a, value) : NULL;

    if (!b)
        return sf_fail(err, SF_NOMEM, "value of %d bytes", sqlite3_column_bytes(s, 0));
    *out = (sf_value){.found = true, .bytes = sf__buf_bytes(b), .owner = b};
    return SF_OK;
}

sf_status sf__sqlite_get(sf_sqlite_connection *c, sf_bytes key, const sf_sqlite_watch *watch, sf_value *out,
                         sf_error *err)
{
    sf_status status = SF_OK;
    int rc = bind(c->get, 1, key);

    c->watch = *watch;
    if (rc == SQLITE_TOOBIG)
        return SF_OK; /* longer than anything that is stored */
    if (rc == SQLITE_OK)
        rc = sqlite3_step(c->get);
    if (rc == SQLITE_ROW)
        status = take_value(c->get, c->alloc, out, err);
    else if (rc != SQLITE_DONE)
        status = db_fail(c, rc, "look-up", err);
    sqlite3_reset(c->get); /* repeats the error of the step */
    return status;
}

/* Longer than anything that is stored, and so no longer than what SQLite takes: every key lies on the same side of both. */
static sf_bytes clipped(sqlite3 *db, sf_bytes bound)
{
    size_t most = (size_t)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, -1);

    return sf_bytes_of(bound.p, bound.n < most ? bound.n : most);
}

static sf_status prepare_scan(sf_sqlite_connection *c, const sf_sqlite_range *r, sqlite3_stmt **out, sf_error *err)
{
    char sql[128];
    int rc;

    snprintf(sql, sizeof(sql), "SELECT k, v FROM kv WHERE k %s ?1%s ORDER BY k%s", r->past_lo ? ">" : ">=",
             r->has_hi ? " AND k < ?2" : "", r->reverse ? " DESC" : "");
    rc = sqlite3_prepare_v2(c->db, sql, -1, out, NULL);
    if (rc == SQLITE_OK)
        rc = bind(*out, 1, clipped(c->db, r->lo));
    if (rc == SQLITE_OK && r->has_hi)
        rc = bind(*out, 2, clipped(c->db, r->hi));
    return rc == SQLITE_OK ? SF_OK : db_fail(c, rc, "scan", err);
}

static sf_status add_row(sqlite3_stmt *s, sf_row_batch *batch, size_t *bytes, sf_error *err)
{
    sf_bytes key, value;

    if (!column(s, 0, &key) || !column(s, 1, &value) || !sf__row_batch_add(batch, key, value, NULL))
        return sf_fail(err, SF_NOMEM, "row of a scan");
    *bytes += key.n + value.n;
    return SF_OK;
}

sf_status sf__sqlite_scan(sf_sqlite_connection *c, const sf_sqlite_range *range, const sf_scan_limits *limits,
                          const sf_sqlite_watch *watch, sf_row_batch *batch, bool *end, sf_error *err)
{
    sqlite3_stmt *s = NULL;
    sf_status status;
    size_t bytes = 0;

    c->watch = *watch;
    status = prepare_scan(c, range, &s, err);

    while (status == SF_OK && (batch->count == 0 || (batch->count < limits->max_rows && bytes < limits->max_bytes))) {
        bool over = batch->count % ROWS_PER_LOOK == 0 && is_over(watch); /* short rows take fewer steps than a look does */
        int rc = over ? SQLITE_INTERRUPT : sqlite3_step(s);

        if (rc == SQLITE_DONE) {
            *end = true;
            break;
        }
        status = rc == SQLITE_ROW ? add_row(s, batch, &bytes, err) : db_fail(c, rc, "scan", err);
    }
    sqlite3_finalize(s);
    if (status == SF_TIMEOUT && batch->count > 0) { /* first what there is; the next step meets its own deadline */
        sf_error_clear(err);
        status = SF_OK;
    }
    return status;
}

/* ------------------------------------------------------------------ checking ------------------------------------- */

sf_status sf__sqlite_check_file(sf_sqlite_connection *c, const sf_sqlite_watch *watch, sf_error *err)
{
    sqlite3_stmt *s = NULL;
    sf_status status = SF_OK;
    int rc;

    c->watch = *watch;
    rc = sqlite3_prepare_v2(c->db, "PRAGMA integrity_check(1)", -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    if (rc != SQLITE_ROW)
        status = db_fail(c, rc, "check", err);
    else if (strcmp(text_of(s, 0), "ok") != 0)
        status = sf_fail(err, SF_CORRUPT, "shard.db: %s", text_of(s, 0));
    sqlite3_finalize(s);
    return status;
}
