#include "snapshot/manifest_db.h"

#include <sqlite3.h>
#include <stdio.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/sqlite_harden.h"

#define STEPS_PER_CHECK 1000
/* What loading a schema takes, and one row of 12 columns. */
#define STEPS_FREE UINT64_C(100000)
#define STEPS_PER_ROW 64
#define MAGIC "SQLite format 3"

static sf_status fail_sqlite(sf_manifest_db *d, int code, sf_error *err)
{
    if (code == SQLITE_NOMEM)
        return sf_fail(err, SF_NOMEM, "SQLite manifest");
    if (code == SQLITE_INTERRUPT)
        return sf_fail(err, SF_BAD_MANIFEST, SF_MANIFEST_DB_ERROR "more work than the file's size warrants");
    return sf_fail(err, SF_BAD_MANIFEST, SF_MANIFEST_DB_ERROR "%s", d->db ? sqlite3_errmsg(d->db) : sqlite3_errstr(code));
}

/* Rows may claim one another's overflow pages, views may join a table with itself: steps and page reads tell. */
static int check_work(void *ctx)
{
    sf_manifest_db *d = ctx;
    int reads = 0, unused;

    if (d->steps_left < STEPS_PER_CHECK)
        return 1;
    d->steps_left -= STEPS_PER_CHECK;
    sqlite3_db_status(d->db, SQLITE_DBSTATUS_CACHE_HIT, &reads, &unused, 0);
    return reads > d->page_reads_limit;
}

static void set_limits(sf_manifest_db *d, sf_bytes bytes)
{
    d->steps_left = STEPS_FREE + bytes.n;
    /* pages of 512 bytes, each read once a column at most, and some for the way down the tree of a small file */
    d->page_reads_limit = (int)(bytes.n / 512) * 24 + 10000;
    d->text_left = 2 * bytes.n + (64 << 10); /* UTF-16 may grow by half; a view may show a column under two names */
    sqlite3_progress_handler(d->db, STEPS_PER_CHECK, check_work, d);
}

sf_status sf__manifest_db_open(sf_manifest_db *d, sf_bytes bytes, sf_error *err)
{
    int rc;

    *d = (sf_manifest_db){.db = NULL};
    if (bytes.n > SF_LIMIT_SNAPSHOT_MANIFEST_BYTES)
        return sf_fail(err, SF_BAD_MANIFEST, "Unsupported manifest format: %zu bytes are more than %u", bytes.n,
                       SF_LIMIT_SNAPSHOT_MANIFEST_BYTES);
    if (!sf_bytes_starts_with(bytes, sf_bytes_of(MAGIC, sizeof(MAGIC))))
        return sf_fail(err, SF_BAD_MANIFEST, "Unsupported manifest format: expected SQLite (magic header not found)");
    sf__std_fds_hold(); /* even this database opens something: random bytes */
    rc = sqlite3_open_v2(":memory:", &d->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                         NULL);
    if (rc == SQLITE_OK)
        rc = sf__sqlite_harden(d->db, bytes.n);
    if (rc == SQLITE_OK) /* read-only: it is never written through, despite the type */
        rc = sqlite3_deserialize(d->db, "main", (unsigned char *)(uintptr_t)bytes.p, (sqlite3_int64)bytes.n,
                                 (sqlite3_int64)bytes.n, SQLITE_DESERIALIZE_READONLY);
    sf__std_fds_let_go();
    if (rc != SQLITE_OK)
        return fail_sqlite(d, rc, err);
    set_limits(d, bytes);
    return SF_OK;
}

void sf__manifest_db_close(sf_manifest_db *d)
{
    sqlite3_finalize(d->stmt);
    sqlite3_close(d->db);
    *d = (sf_manifest_db){.db = NULL};
}

/* A plain read of stored columns needs none of these; each could make much memory or time of a small file. */
static bool is_costly(const char *opcode)
{
    static const char *const costly[] = {"Function", "PureFunc", "AggStep", "Concat",     "Sorter",
                                         "OpenEph",  "OpenAuto", "VOpen",   "OpenPseudo", "Program"};

    for (size_t i = 0; i < sizeof(costly) / sizeof(costly[0]); i++)
        if (strncmp(opcode, costly[i], strlen(costly[i])) == 0)
            return true;
    return false;
}

static sf_status check_program(sf_manifest_db *d, const char *sql, sf_error *err)
{
    char explain[512];
    sqlite3_stmt *stmt = NULL;
    sf_status status = SF_OK;
    int rc, n = snprintf(explain, sizeof(explain), "EXPLAIN %s", sql);

    if (n < 0 || (size_t)n >= sizeof(explain))
        return sf_fail(err, SF_INVALID, "query of %d bytes", n);
    rc = sqlite3_prepare_v2(d->db, explain, -1, &stmt, NULL);
    while (rc == SQLITE_OK && status == SF_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        const char *opcode = (const char *)sqlite3_column_text(stmt, 1);

        if (!opcode || is_costly(opcode))
            status = sf_fail(err, SF_BAD_MANIFEST, SF_MANIFEST_DB_ERROR "they are computed, not stored (%s)",
                             opcode ? opcode : "");
        rc = SQLITE_OK;
    }
    sqlite3_finalize(stmt);
    if (status == SF_OK && rc != SQLITE_DONE)
        status = fail_sqlite(d, rc, err);
    return status;
}

sf_status sf__manifest_db_query(sf_manifest_db *d, const char *sql, uint32_t rows, sf_error *err)
{
    sf_status status;
    int rc;

    sqlite3_finalize(d->stmt);
    d->stmt = NULL;
    status = check_program(d, sql, err);
    if (status != SF_OK)
        return status;
    d->steps_left = STEPS_FREE + (uint64_t)rows * STEPS_PER_ROW;
    rc = sqlite3_prepare_v2(d->db, sql, -1, &d->stmt, NULL);
    return rc == SQLITE_OK ? SF_OK : fail_sqlite(d, rc, err);
}

sf_status sf__manifest_db_next(sf_manifest_db *d, bool *row, sf_error *err)
{
    int rc = sqlite3_step(d->stmt);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return fail_sqlite(d, rc, err);
    *row = rc == SQLITE_ROW;
    return SF_OK;
}

sf_status sf__manifest_db_column(sf_manifest_db *d, int column, sf_column *out, sf_error *err)
{
    int type = sqlite3_column_type(d->stmt, column);
    sf_column c = {.kind = SF_COLUMN_NULL};

    switch (type) {
    case SQLITE_INTEGER:
        c.kind = SF_COLUMN_INT;
        c.i = sqlite3_column_int64(d->stmt, column);
        break;
    case SQLITE_FLOAT:
        c.kind = SF_COLUMN_REAL;
        c.real = sqlite3_column_double(d->stmt, column);
        break;
    case SQLITE_TEXT:
    case SQLITE_BLOB:
        c.kind = SF_COLUMN_TEXT;
        c.text.p = type == SQLITE_TEXT ? sqlite3_column_text(d->stmt, column) : sqlite3_column_blob(d->stmt, column);
        c.text.n = (size_t)sqlite3_column_bytes(d->stmt, column);
        break;
    default:
        break;
    }
    if (!c.text.p && c.text.n > 0)
        return sf_fail(err, SF_NOMEM, "SQLite manifest");
    if (c.text.n > d->text_left)
        return sf_fail(err, SF_BAD_MANIFEST, SF_MANIFEST_DB_ERROR "columns are larger than the file");
    d->text_left -= c.text.n;
    if (c.kind == SF_COLUMN_TEXT && !c.text.p)
        c.text.p = (const uint8_t *)""; /* an empty blob */
    *out = c;
    return SF_OK;
}
