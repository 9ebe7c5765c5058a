/* Builds shard.db (docs/formats/snapshot.md 8.2) as a nameless local file, by its descriptor: one transaction of inserts in key order, no
 * journal, nothing synced. One thread at a time; blocks: never on the loop thread.
 *
 *     open --> add ... add --> finish --> free
 *
 * The bytes of the file are a function of the rows, the page size and the SQLite library (which writes its version at
 * bytes 96..99): the change counter is 1, the schema cookie 1, and no statistics are gathered. */
#ifndef SF_BACKEND_SQLITE_TABLE_BUILDER_H
#define SF_BACKEND_SQLITE_TABLE_BUILDER_H

#include "backend/sqlite/file_view.h"
#include "base/alloc.h"

/* SQLite takes records of 10^9 bytes; a record has a header of a few bytes. */
#define SF_SQLITE_MAX_ROW_BYTES 999999900u

typedef struct sf_table_builder sf_table_builder;

typedef struct sf_table_builder_options {
    const char *folder;  /* as in temp_file.h; borrowed */
    uint32_t page_bytes; /* 4096 .. 65536, a power of two */
    const char *vfs;     /* of SQLite: one that wraps sf__vfs_name(), or NULL */
} sf_table_builder_options;

sf_status sf__table_builder_open(sf_table_builder **out, const sf_table_builder_options *opts, const sf_allocator *a,
                                 sf_error *err) SF_MUST_USE;
/* `key` is above the one before; both together at most SF_SQLITE_MAX_ROW_BYTES. Copies. */
sf_status sf__table_builder_add(sf_table_builder *b, sf_bytes key, sf_bytes value, sf_error *err) SF_MUST_USE;
/* Commits and closes the database. *file is all of it, to be read until free. */
sf_status sf__table_builder_finish(sf_table_builder *b, sf_file_view *file, sf_error *err) SF_MUST_USE;
void sf__table_builder_free(sf_table_builder *b); /* takes NULL */

#endif
