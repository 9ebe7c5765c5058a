#include "base/sqlite_harden.h"

#include <limits.h>
#include <stddef.h>
#include <sqlite3.h>

/* Our own queries, and schemas as short as they are, fit into this, however small the file. */
#define TEXT_BYTES (64 << 10)

static void set_limits(sqlite3 *db, uint64_t file_bytes)
{
    static const struct {
        int id, value;
    } limits[] = {
        {SQLITE_LIMIT_SQL_LENGTH, TEXT_BYTES},
        {SQLITE_LIMIT_COLUMN, 500},
        {SQLITE_LIMIT_EXPR_DEPTH, 50},
        {SQLITE_LIMIT_COMPOUND_SELECT, 2},
        {SQLITE_LIMIT_VDBE_OP, 10000},
        {SQLITE_LIMIT_FUNCTION_ARG, 8},
        {SQLITE_LIMIT_ATTACHED, 0},
        {SQLITE_LIMIT_VARIABLE_NUMBER, 2},
        {SQLITE_LIMIT_TRIGGER_DEPTH, 1},
        {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50},
        {SQLITE_LIMIT_WORKER_THREADS, 0},
    };

    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        sqlite3_limit(db, limits[i].id, limits[i].value);
    /* nothing in a file is longer than the file */
    if (file_bytes < TEXT_BYTES)
        file_bytes = TEXT_BYTES;
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, file_bytes < INT_MAX ? (int)file_bytes : INT_MAX);
}

int sf__sqlite_harden(sqlite3 *db, uint64_t file_bytes)
{
    static const struct {
        int id, value;
    } settings[] = {
        {SQLITE_DBCONFIG_DEFENSIVE, 1},       {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0},  {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0},
        {SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0}, {SQLITE_DBCONFIG_DQS_DML, 0},
    };
    int rc = sqlite3_drop_modules(db, NULL); /* virtual tables: each is a parser of its own */

    set_limits(db, file_bytes);
    for (unsigned i = 0; rc == SQLITE_OK && i < sizeof(settings) / sizeof(settings[0]); i++)
        rc = sqlite3_db_config(db, settings[i].id, settings[i].value, NULL);
    /* Not mapped: a file that somebody cuts short may fail a look-up, but not the process. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db,
                          "PRAGMA query_only=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; "
                          "PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY",
                          NULL, NULL, NULL);
    return rc;
}
