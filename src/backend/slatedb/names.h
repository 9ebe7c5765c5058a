/* Names of a SlateDB database's numbered objects (docs/formats/slatedb.md 2): 20 decimal digits and a suffix, in a
 * folder below the database's path. Pure. */
#ifndef SF_BACKEND_SLATEDB_NAMES_H
#define SF_BACKEND_SLATEDB_NAMES_H

#include "base/alloc.h"
#include "store/store.h"

typedef enum sf_db_folder { SF_DB_ROOT, SF_DB_MANIFEST, SF_DB_WAL } sf_db_folder;

/* "path/", "path/wal/", "path/wal/00000000000000000007.sst"; freed with sf__free. NULL without memory. */
char *sf__db_folder_key(const char *db_path, sf_db_folder folder, const sf_allocator *a) SF_MUST_USE;
char *sf__db_object_key(const char *db_path, sf_db_folder folder, uint64_t id, const sf_allocator *a) SF_MUST_USE;

typedef struct sf_db_object {
    uint64_t id, size;
} sf_db_object;

/* The numbered objects of a listing of `folder_key`, ascending by id; other names are left out. *out is freed with
 * sf__free; false without memory. */
bool sf__db_objects(const sf_store_entry *entries, size_t count, const char *folder_key, sf_db_folder folder,
                    const sf_allocator *a, sf_db_object **out, size_t *out_count) SF_MUST_USE;

#endif
