#include "backend/sqlite/connection.h"

#include <sqlite3.h>
#include <stdio.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "net/url.h"

/* How many rows a scan reads between two looks at the flag. */
#define CANCEL_ROWS 256u
#define OPEN_FLAGS (SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE)

struct sf_sqlite_connection {
    const sf_allocator *alloc;
    sqlite3 *db;
    sqlite3_stmt *get;
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

static sf_status db_fail(const sf_sqlite_connection *c, int rc, const char *what, sf_error *err)
{
    return sf_fail(err, status_of(rc), "shard.db: %s: %s (SQLite code %d)", what,
                   c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc), rc);
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

static int open_db(sf_sqlite_connection *c, const char *file)
{
    sf_strbuf uri;
    int rc = SQLITE_NOMEM;

    sf__strbuf_init(&uri, c->alloc);
    sf__strbuf_puts(&uri, "file:");
    sf__url_encode(&uri, sf_bytes_str(file), true);
    sf__strbuf_puts(&uri, "?immutable=1");
    if (!uri.failed)
        rc = sqlite3_open_v2(uri.s, &c->db, OPEN_FLAGS, NULL);
    sf__strbuf_cleanup(&uri);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    /* Not mapped: a file that somebody cuts short may fail a look-up, but not the process. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db, "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON", NULL, NULL, NULL);
    return rc;
}

/* A view or a virtual table of this name could run anything. */
static sf_status check_table(sf_sqlite_connection *c, sf_error *err)
{
    static const char sql[] = "SELECT 1 FROM sqlite_schema WHERE name = 'kv' AND type = 'table' AND rootpage > 1";
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    sqlite3_finalize(s);
    if (rc == SQLITE_DONE)
        return sf_fail(err, SF_CORRUPT, "shard.db: it has no table kv");
    return rc == SQLITE_ROW ? SF_OK : db_fail(c, rc, "open", err);
}

sf_status sf__sqlite_connect(sf_sqlite_connection **out, const char *file, const sf_allocator *a, sf_error *err)
{
    sf_sqlite_connection *c = sf__calloc(a, 1, sizeof(*c));
    sf_status status;
    int rc;

    if (!c)
        return sf_fail(err, SF_NOMEM, "connection to shard.db");
    c->alloc = a;
    rc = open_db(c, file);
    status = rc == SQLITE_OK ? check_table(c, err) : db_fail(c, rc, "open", err);
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

sf_status sf__sqlite_get(sf_sqlite_connection *c, sf_bytes key, sf_value *out, sf_error *err)
{
    sf_status status = SF_OK;
    int rc = bind(c->get, 1, key);

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

static sf_status prepare_scan(sf_sqlite_connection *c, const sf_sqlite_range *r, sqlite3_stmt **out, sf_error *err)
{
    char sql[128];
    int rc;

    snprintf(sql, sizeof(sql), "SELECT k, v FROM kv WHERE k %s ?1%s ORDER BY k%s", r->past_lo ? ">" : ">=",
             r->has_hi ? " AND k < ?2" : "", r->reverse ? " DESC" : "");
    rc = sqlite3_prepare_v2(c->db, sql, -1, out, NULL);
    if (rc == SQLITE_OK)
        rc = bind(*out, 1, r->lo);
    if (rc == SQLITE_OK && r->has_hi)
        rc = bind(*out, 2, r->hi);
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
                          const sf_cancel_flag *cancel, sf_row_batch *batch, bool *end, sf_error *err)
{
    sqlite3_stmt *s = NULL;
    sf_status status = prepare_scan(c, range, &s, err);
    size_t bytes = 0;

    while (status == SF_OK && (batch->count == 0 || (batch->count < limits->max_rows && bytes < limits->max_bytes))) {
        int rc;

        if (batch->count % CANCEL_ROWS == 0 && sf__is_cancelled(cancel)) {
            status = sf_fail(err, SF_CANCELLED, "cancelled");
            break;
        }
        rc = sqlite3_step(s);
        if (rc == SQLITE_DONE) {
            *end = true;
            break;
        }
        status = rc == SQLITE_ROW ? add_row(s, batch, &bytes, err) : db_fail(c, rc, "scan", err);
    }
    sqlite3_finalize(s);
    return status;
}
