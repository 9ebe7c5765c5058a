#include "backend/sqlite/table_builder.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/sqlite/vfs.h"
#include "base/strbuf.h"
#include "base/temp_file.h"

/* A statement that inserts many rows opens its cursor once and finds the end of the table at once: half the time. More
 * rows gain nothing. */
#define BATCH_ROWS 64u
#define BATCH_BYTES ((size_t)256 << 10)
/* Rows come in order, so that only the right edge of the tree is touched twice. */
#define CACHE_KIB 2000

struct batch_row {
    size_t off, key_bytes, value_bytes; /* in `bytes`; the value follows its key */
};

struct sf_table_builder {
    const sf_allocator *alloc;
    sf_vfs_file file;
    sqlite3 *db;
    sqlite3_stmt *insert_one, *insert_batch;
    uint8_t *bytes; /* of the batch */
    size_t n;
    struct batch_row rows[BATCH_ROWS];
    unsigned row_count;
};

/* ------------------------------------------------------------------ SQLite --------------------------------------- */

static sf_status status_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return SF_NOMEM;
    case SQLITE_TOOBIG:
        return SF_INVALID;
    default:
        return SF_IO;
    }
}

static sf_status db_fail(const sf_table_builder *b, int rc, const char *what, sf_error *err)
{
    const sf_error *why = &b->file.error;

    return sf_fail(err, status_of(rc), "shard.db: %s: %s (SQLite code %d%s%s)", what,
                   b->db ? sqlite3_errmsg(b->db) : sqlite3_errstr(rc), rc, why->code != SF_OK ? ": " : "",
                   why->code != SF_OK ? why->message : "");
}

static sf_status run(const sf_table_builder *b, const char *sql, const char *what, sf_error *err)
{
    int rc = sqlite3_exec(b->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? SF_OK : db_fail(b, rc, what, err);
}

static sf_status prepare_insert(sf_table_builder *b, unsigned rows, sqlite3_stmt **out, sf_error *err)
{
    sf_strbuf sql;
    int rc = SQLITE_NOMEM;

    sf__strbuf_init(&sql, b->alloc);
    sf__strbuf_puts(&sql, "INSERT INTO kv VALUES");
    for (unsigned i = 0; i < rows; i++)
        sf__strbuf_puts(&sql, i > 0 ? ",(?,?)" : "(?,?)");
    if (!sql.failed)
        rc = sqlite3_prepare_v3(b->db, sql.s, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    sf__strbuf_cleanup(&sql);
    return rc == SQLITE_OK ? SF_OK : db_fail(b, rc, "prepare", err);
}

/* Everything that has a say in the bytes is said, for a library may be built with other defaults. */
static sf_status configure(sf_table_builder *b, uint32_t page_bytes, sf_error *err)
{
    char *sql = sf__asprintf(b->alloc,
                             "PRAGMA page_size=%u; PRAGMA encoding='UTF-8'; PRAGMA auto_vacuum=NONE;"
                             "PRAGMA secure_delete=OFF; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                             "PRAGMA locking_mode=EXCLUSIVE; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;"
                             "PRAGMA cache_size=-%d; BEGIN;"
                             "CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID",
                             page_bytes, CACHE_KIB);
    sf_status rc = sql ? run(b, sql, "create", err) : sf_fail(err, SF_NOMEM, "shard.db");

    sf__free(b->alloc, sql);
    return rc;
}

static sf_status open_db(sf_table_builder *b, const sf_table_builder_options *o, sf_error *err)
{
    sf_status status = sf__temp_file_nameless(o->folder, "shard.db: folder", b->alloc, &b->file.fd, err);
    int rc;

    if (status != SF_OK) {
        b->file.fd = -1;
        return status;
    }
    rc = sf__vfs_open(&b->db, &b->file, o->vfs);
    if (rc != SQLITE_OK)
        return db_fail(b, rc, "open", err);
    status = configure(b, o->page_bytes, err);
    if (status == SF_OK)
        status = prepare_insert(b, 1, &b->insert_one, err);
    return status == SF_OK ? prepare_insert(b, BATCH_ROWS, &b->insert_batch, err) : status;
}

static void close_db(sf_table_builder *b)
{
    sqlite3_finalize(b->insert_one);
    sqlite3_finalize(b->insert_batch);
    b->insert_one = b->insert_batch = NULL;
    sqlite3_close_v2(b->db);
    b->db = NULL;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_status sf__table_builder_open(sf_table_builder **out, const sf_table_builder_options *opts, const sf_allocator *a,
                                 sf_error *err)
{
    sf_table_builder *b = sf__calloc(a, 1, sizeof(*b));
    sf_status rc;

    if (!b)
        return sf_fail(err, SF_NOMEM, "shard.db");
    b->alloc = a;
    b->file.fd = -1;
    b->bytes = sf__alloc(a, BATCH_BYTES);
    rc = b->bytes ? open_db(b, opts, err) : sf_fail(err, SF_NOMEM, "shard.db: batch of rows");
    if (rc != SF_OK) {
        sf__table_builder_free(b);
        return rc;
    }
    *out = b;
    return SF_OK;
}

void sf__table_builder_free(sf_table_builder *b)
{
    if (!b)
        return;
    close_db(b);
    if (b->file.fd >= 0)
        close(b->file.fd);
    sf__free(b->alloc, b->bytes);
    sf__free(b->alloc, b);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

/* SQLite takes a NULL pointer for NULL, however long. */
static int bind(sqlite3_stmt *s, unsigned row, sf_bytes key, sf_bytes value)
{
    int first = (int)(2 * row + 1);
    int rc = sqlite3_bind_blob(s, first, key.n > 0 ? (const void *)key.p : "", (int)key.n, SQLITE_STATIC);

    if (rc != SQLITE_OK)
        return rc;
    return sqlite3_bind_blob(s, first + 1, value.n > 0 ? (const void *)value.p : "", (int)value.n, SQLITE_STATIC);
}

static int step(sqlite3_stmt *s)
{
    int rc = sqlite3_step(s), reset = sqlite3_reset(s);

    return rc == SQLITE_DONE ? reset : rc;
}

static int insert_one(sf_table_builder *b, sf_bytes key, sf_bytes value)
{
    int rc = bind(b->insert_one, 0, key, value);

    return rc == SQLITE_OK ? step(b->insert_one) : rc;
}

static sf_bytes row_key(const sf_table_builder *b, unsigned i)
{
    return sf_bytes_of(b->bytes + b->rows[i].off, b->rows[i].key_bytes);
}

static sf_bytes row_value(const sf_table_builder *b, unsigned i)
{
    return sf_bytes_of(b->bytes + b->rows[i].off + b->rows[i].key_bytes, b->rows[i].value_bytes);
}

static sf_status flush(sf_table_builder *b, sf_error *err)
{
    int rc = SQLITE_OK;

    if (b->row_count == BATCH_ROWS) {
        for (unsigned i = 0; i < BATCH_ROWS && rc == SQLITE_OK; i++)
            rc = bind(b->insert_batch, i, row_key(b, i), row_value(b, i));
        if (rc == SQLITE_OK)
            rc = step(b->insert_batch);
    } else {
        for (unsigned i = 0; i < b->row_count && rc == SQLITE_OK; i++)
            rc = insert_one(b, row_key(b, i), row_value(b, i));
    }
    b->row_count = 0;
    b->n = 0;
    return rc == SQLITE_OK ? SF_OK : db_fail(b, rc, "insert", err);
}

sf_status sf__table_builder_add(sf_table_builder *b, sf_bytes key, sf_bytes value, sf_error *err)
{
    sf_status status = key.n + value.n > BATCH_BYTES - b->n ? flush(b, err) : SF_OK;
    struct batch_row *row;

    if (status != SF_OK)
        return status;
    if (key.n + value.n > BATCH_BYTES) {
        int rc = insert_one(b, key, value);

        return rc == SQLITE_OK ? SF_OK : db_fail(b, rc, "insert", err);
    }
    row = &b->rows[b->row_count++];
    *row = (struct batch_row){b->n, key.n, value.n};
    if (key.n > 0)
        memcpy(b->bytes + b->n, key.p, key.n);
    if (value.n > 0)
        memcpy(b->bytes + b->n + key.n, value.p, value.n);
    b->n += key.n + value.n;
    return b->row_count == BATCH_ROWS ? flush(b, err) : SF_OK;
}

/* ------------------------------------------------------------------ the end -------------------------------------- */

sf_status sf__table_builder_finish(sf_table_builder *b, sf_file_view *file, sf_error *err)
{
    struct stat st;
    sf_status rc = flush(b, err);

    if (rc == SF_OK)
        rc = run(b, "COMMIT", "commit", err);
    if (rc != SF_OK)
        return rc;
    close_db(b);
    if (fstat(b->file.fd, &st) != 0)
        return sf_fail(err, SF_IO, "shard.db: %s", strerror(errno));
    *file = sf__file_view_of(b->file.fd, (uint64_t)st.st_size);
    return SF_OK;
}
