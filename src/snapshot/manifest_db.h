/* A SQLite file from an untrusted source, read where it lies in memory. SQL that its schema smuggles in (views,
 * generated columns) can neither write, nor call functions, nor run for long. One thread at a time; it blocks, so not
 * the loop thread. SQLite takes its memory from its own allocator. */
#ifndef SF_SNAPSHOT_MANIFEST_DB_H
#define SF_SNAPSHOT_MANIFEST_DB_H

#include "base/bytes.h"

/* SQLite's words for what it cannot read come behind this. */
#define SF_MANIFEST_DB_ERROR "Failed to read SQLite manifest tables: "

typedef struct sf_manifest_db {
    struct sqlite3 *db;
    struct sqlite3_stmt *stmt; /* the query being read */
    uint64_t steps_left;       /* of SQLite's virtual machine, in this query */
    int page_reads_limit;      /* from SQLite's page cache, in all */
    size_t text_left;          /* bytes of columns, in all */
} sf_manifest_db;

/* Borrows `bytes` until sf__manifest_db_close(), which is due after a failure, too. All failures are SF_BAD_MANIFEST or
 * SF_NOMEM. */
sf_status sf__manifest_db_open(sf_manifest_db *d, sf_bytes bytes, sf_error *err);
void sf__manifest_db_close(sf_manifest_db *d); /* harmless on a zeroed one */

/* Replaces the query being read. `rows` is how many it may have without becoming suspicious. */
sf_status sf__manifest_db_query(sf_manifest_db *d, const char *sql, uint32_t rows, sf_error *err);
/* *row is false at the end. */
sf_status sf__manifest_db_next(sf_manifest_db *d, bool *row, sf_error *err);

typedef enum sf_column_kind { SF_COLUMN_NULL, SF_COLUMN_INT, SF_COLUMN_REAL, SF_COLUMN_TEXT } sf_column_kind;

typedef struct sf_column {
    sf_column_kind kind;
    int64_t i;
    double real;
    sf_bytes text; /* until the next call; blobs as well, so not checked to be UTF-8 */
} sf_column;

/* SF_BAD_MANIFEST when the texts add up to more than the file can hold. */
sf_status sf__manifest_db_column(sf_manifest_db *d, int column, sf_column *out, sf_error *err);

#endif
