#include "backend/sqlite/schema.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "backend/sqlite/vfs.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/sqlite_harden.h"

/* How much goes on between two looks at flag and deadline. */
#define STEPS_PER_LOOK 1000
/* That of a shard, with its statistics, takes a hundredth. */
#define SCHEMA_BYTES (1u << 20)

struct connection {
    sf_vfs_file file;
    sqlite3 *db;
    const sf_sqlite_watch *watch;
    bool swollen; /* why it was interrupted */
};

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

static sf_status db_fail(struct connection *c, int rc, const char *what, sf_error *err)
{
    if ((rc & 0xff) == SQLITE_IOERR && c->file.error.code != SF_OK) {
        if (err)
            *err = c->file.error;
        return sf_error_prefix(err, c->file.error.code, "%s: ", what);
    }
    if (rc == SQLITE_INTERRUPT && c->swollen)
        return sf_fail(err, SF_CORRUPT, "shard.db: %s: its schema takes more than %u bytes", what, SCHEMA_BYTES);
    if (rc == SQLITE_INTERRUPT && sf__is_cancelled(c->watch->cancel))
        return sf_fail(err, SF_CANCELLED, "cancelled");
    if (rc == SQLITE_INTERRUPT)
        return sf_error_overdue(err, &(sf_overdue){.since_ns = c->watch->since_ns, .waits_for = "SQLite"});
    return sf_fail(err, status_of(rc), "shard.db: %s: %s (SQLite code %d)", what,
                   c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc), rc);
}

/* ------------------------------------------------------------------ watching ------------------------------------- */

static int on_progress(void *ctx)
{
    struct connection *c = ctx;
    int bytes = 0, unused;

    sqlite3_db_status(c->db, SQLITE_DBSTATUS_SCHEMA_USED, &bytes, &unused, 0); /* SQLite keeps it in memory */
    c->swollen = bytes > (int)SCHEMA_BYTES;
    return c->swollen || sf__is_cancelled(c->watch->cancel) || sf__clock_mono_ns() >= c->watch->deadline_ns;
}

/* ------------------------------------------------------------------ the schema ------------------------------------ */

static int open_db(struct connection *c)
{
    int rc = sf__vfs_open(&c->db, &c->file);

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

static sf_status check_rows(struct connection *c, const char *sql, check_fn check, void *ctx, sf_error *err)
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
    bool k, v, v_is_real;
    int64_t v_id;
    bool v_is_key; /* part of the primary key */
};

/* SQLite's rule of what a declared type means: the first of these that it has in it; three are of real numbers. */
static bool means_real(const char *type)
{
    static const char *const words[] = {"%INT%", "%CHAR%", "%CLOB%", "%TEXT%", "%BLOB%", "%REAL%", "%FLOA%", "%DOUB%"};
    size_t i = 0, n = sizeof(words) / sizeof(words[0]);

    while (i < n && sqlite3_strlike(words[i], type, 0) != 0)
        i++;
    return i >= 5 && i < n;
}

/* cid, name, type, notnull, dflt_value, pk, hidden */
static const char *check_column(sqlite3_stmt *row, void *ctx)
{
    struct columns *found = ctx;

    if (sqlite3_column_int(row, 6) != 0)
        return "its table kv has a generated or hidden column";
    if (sqlite3_column_type(row, 4) != SQLITE_NULL)
        return "its table kv has a column with a default";
    found->k = found->k || strcmp(text_of(row, 1), "k") == 0;
    if (strcmp(text_of(row, 1), "v") == 0) {
        found->v = true;
        found->v_is_real = means_real(text_of(row, 2));
        found->v_id = sqlite3_column_int64(row, 0);
        found->v_is_key = sqlite3_column_int(row, 5) != 0;
    }
    return NULL;
}

struct indexes {
    struct connection *c;
    sf_error *err;
    char name[128]; /* of one that is unique and whose only key is k; "" : there is none */
    bool primary, descending, has_row_ids;
    int64_t v; /* which of its columns v is; -1: it has none */
    /* of the one that is looked at */
    unsigned parts;
    bool of_k, part_descends, part_row_ids;
    int64_t part_v;
};

/* seqno, cid, name, desc, coll, key. Behind the key there is the row id, or the table's other columns where it has none. */
static const char *check_part(sqlite3_stmt *row, void *ctx)
{
    struct indexes *x = ctx;

    if (sqlite3_column_int(row, 1) == -2)
        return "an index of its table kv computes what it holds";
    if (sqlite3_column_int(row, 5) == 0) {
        if (strcmp(text_of(row, 2), "v") == 0)
            x->part_v = sqlite3_column_int64(row, 0);
        x->part_row_ids = x->part_row_ids || sqlite3_column_int(row, 1) == -1;
        return NULL;
    }
    if (strcmp(text_of(row, 4), "BINARY") != 0)
        return "an index of its table kv does not compare byte by byte";
    x->parts++;
    x->of_k = strcmp(text_of(row, 2), "k") == 0;
    x->part_descends = sqlite3_column_int(row, 3) != 0;
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
    x->of_k = x->part_row_ids = false;
    x->part_v = -1;
    rc = sql ? check_rows(x->c, sql, check_part, x, x->err) : sf_fail(x->err, SF_NOMEM, "indexes of shard.db");
    sqlite3_free(sql);
    if (rc != SF_OK)
        return "";
    if (x->name[0] || sqlite3_column_int(row, 2) == 0 || x->parts != 1 || !x->of_k)
        return NULL;
    if (snprintf(x->name, sizeof(x->name), "%s", text_of(row, 1)) >= (int)sizeof(x->name))
        return "an index of its table kv has a name of more than 127 bytes";
    x->primary = strcmp(text_of(row, 3), "pk") == 0;
    x->descending = x->part_descends;
    x->has_row_ids = x->part_row_ids;
    x->v = x->part_v;
    return NULL;
}

struct roots {
    int64_t table, index;
};

/* type, rootpage */
static const char *take_root(sqlite3_stmt *row, void *ctx)
{
    struct roots *r = ctx;

    *(strcmp(text_of(row, 0), "table") == 0 ? &r->table : &r->index) = sqlite3_column_int64(row, 1);
    return NULL;
}

/* Where the rows are. A table without row ids is the index of its primary key, which has no tree of its own then. */
static sf_status find_tree(struct connection *c, const struct columns *columns, const struct indexes *x, sf_tree *out,
                           sf_error *err)
{
    struct roots r = {0};
    char *sql = sqlite3_mprintf("SELECT type, rootpage FROM sqlite_schema WHERE (type = 'table' AND name = 'kv') OR "
                                "(type = 'index' AND name = %Q)",
                                x->name);
    sf_status rc = sql ? check_rows(c, sql, take_root, &r, err) : sf_fail(err, SF_NOMEM, "schema of shard.db");

    sqlite3_free(sql);
    if (rc != SF_OK)
        return rc;
    *out = (sf_tree){.descending = x->descending, .value_is_real = columns->v_is_real};
    if (r.table > UINT32_MAX || r.index > UINT32_MAX)
        return not_a_shard("a root page lies outside of the file", err);
    if (!x->has_row_ids && (!x->primary || x->v < 0))
        return not_a_shard("k is not the primary key of its table kv, which has no row ids", err);
    if (!x->has_row_ids) {
        out->root = (uint32_t)r.table;
        out->value = (uint32_t)x->v;
    } else if (columns->v_is_key) {
        return not_a_shard("v is the primary key of its table kv", err);
    } else {
        out->root = (uint32_t)r.index;
        out->rows_root = (uint32_t)r.table;
        out->value = (uint32_t)columns->v_id;
    }
    return SF_OK;
}

/* A look-up is a walk down one tree and nothing else: so that is what the schema must be made for. */
static sf_status check_schema(struct connection *c, sf_tree *out, sf_error *err)
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
    if (rc == SF_OK && !indexes.name[0])
        rc = not_a_shard("its table kv has no unique index on k", err);
    return rc == SF_OK ? find_tree(c, &columns, &indexes, out, err) : rc;
}

/* What the file says of its pages, which SQLite has judged. */
static sf_status find_pages(struct connection *c, sf_tree *out, uint32_t *page_bytes, sf_error *err)
{
    uint8_t head[SF_DB_HEADER_BYTES];
    const sf_file_view *file = c->file.view;
    uint32_t bytes;
    sf_status rc;

    if (file->size < sizeof(head))
        return not_a_shard("it is too short", err);
    rc = file->read(file->ctx, 0, sizeof(head), head, err);
    if (rc != SF_OK)
        return rc;
    if (!sf__btree_page_bytes(sf_bytes_of(head, sizeof(head)), &bytes) || head[20] > bytes - 480 ||
        file->size / bytes > UINT32_MAX)
        return not_a_shard("its pages have an impossible size", err);
    *page_bytes = bytes;
    out->usable = bytes - head[20];
    out->page_count = (uint32_t)(file->size / bytes);
    if (out->root > out->page_count || out->rows_root > out->page_count) /* a last page that is cut short is none */
        return not_a_shard("a root page lies outside of the file", err);
    return SF_OK;
}

static void disconnect(struct connection *c)
{
    sqlite3_close_v2(c->db);
}

static sf_status connect_to(struct connection *c, const sf_file_view *file, const sf_sqlite_watch *watch, sf_error *err)
{
    int rc;

    *c = (struct connection){.file.view = file, .watch = watch};
    rc = open_db(c);
    return rc == SQLITE_OK ? SF_OK : db_fail(c, rc, "open", err);
}

sf_status sf__sqlite_schema(sf_tree *out, uint32_t *page_bytes, const sf_file_view *file, const sf_sqlite_watch *watch,
                            sf_error *err)
{
    struct connection c;
    sf_status rc = connect_to(&c, file, watch, err);

    if (rc == SF_OK)
        rc = check_schema(&c, out, err);
    if (rc == SF_OK)
        rc = find_pages(&c, out, page_bytes, err);
    disconnect(&c);
    return rc;
}

sf_status sf__sqlite_check_file(const sf_file_view *file, const sf_sqlite_watch *watch, sf_error *err)
{
    struct connection c;
    sqlite3_stmt *s = NULL;
    sf_status status = connect_to(&c, file, watch, err);
    int rc = SQLITE_OK;

    if (status == SF_OK) {
        rc = sqlite3_prepare_v2(c.db, "PRAGMA integrity_check(1)", -1, &s, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(s);
        if (rc != SQLITE_ROW)
            status = db_fail(&c, rc, "check", err);
        else if (strcmp(text_of(s, 0), "ok") != 0)
            status = sf_fail(err, SF_CORRUPT, "shard.db: %s", text_of(s, 0));
        sqlite3_finalize(s);
    }
    disconnect(&c);
    return status;
}
