/* Builds shard.db (docs/formats/snapshot.md 8.2) as a nameless local file, by its descriptor, without SQLite: rows come in key
 * order, so that each page of the tree is filled once, from the left to the right, and written when it is full. One thread at a
 * time; blocks: never on the loop thread.
 *
 *     open --> add ... add --> finish --> free         after a failure: free
 *
 *     page 1: header of the file, schema | 2: root of kv | leaves, each with the overflow pages of its rows behind it, and pages
 *     above them behind those                                                        https://www.sqlite.org/fileformat2.html
 *
 * kv has no row ids, so its tree is an index, whose rows lie in the pages above the leaves, too: the one that a full page has no
 * room for goes up, and leads to that page. The bytes of the file are a function of the rows and the page size. Memory is for a
 * page of each level, and for the sidecar's map. */
#ifndef SF_BACKEND_SQLITE_TABLE_BUILDER_H
#define SF_BACKEND_SQLITE_TABLE_BUILDER_H

#include "backend/sqlite/page_writer.h"
#include "backend/sqlite/sidecar_map.h"

/* SQLite takes records of 10^9 bytes; a record has a header of a few bytes. */
#define SF_SQLITE_MAX_ROW_BYTES 999999900u

typedef struct sf_table_builder sf_table_builder;

typedef struct sf_table_builder_options {
    const char *folder;  /* as in temp_file.h; borrowed */
    uint32_t page_bytes; /* 4096 .. 65536, a power of two */
    uint64_t lock_off;   /* SF_SQLITE_LOCK_OFF, but in tests */
    bool sidecar;        /* note what a sidecar says */
} sf_table_builder_options;
#define SF_TABLE_BUILDER_OPTIONS_INIT {.page_bytes = 4096, .lock_off = SF_SQLITE_LOCK_OFF}

sf_status sf__table_builder_open(sf_table_builder **out, const sf_table_builder_options *opts, const sf_allocator *a,
                                 sf_error *err) SF_MUST_USE;
/* `key` is above the one before; both together at most SF_SQLITE_MAX_ROW_BYTES. Copies. */
sf_status sf__table_builder_add(sf_table_builder *b, sf_bytes key, sf_bytes value, sf_error *err) SF_MUST_USE;
/* *file is all of it, to be read until free. *map, if not NULL, is what a sidecar says, borrowed until free; NULL: it was not
 * wanted, or no reader takes so much. */
sf_status sf__table_builder_finish(sf_table_builder *b, sf_file_view *file, const sf_sidecar_map **map, sf_error *err)
    SF_MUST_USE;
void sf__table_builder_free(sf_table_builder *b); /* takes NULL */

#endif
