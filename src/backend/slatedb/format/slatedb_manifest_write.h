/* Writes the manifest of a database that was built as a whole (docs/formats/slatedb.md 9): version 1, which all
 * releases read; one sorted run; no WAL; one checkpoint that never expires, so that readers by its id write nothing and
 * garbage collection keeps the files whatever a later writer does. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_SLATEDB_MANIFEST_WRITE_H
#define SF_BACKEND_SLATEDB_FORMAT_SLATEDB_MANIFEST_WRITE_H

#include "backend/slatedb/format/sst_info.h"
#include "backend/slatedb/format/ulid.h"

/* Of every row, and highest of the database: rows above last_l0_seq are hidden. */
#define SF_BUILT_SEQ 1u

typedef struct sf_built_sst {
    sf_id128 ulid;
    sf_sst_info info; /* as in the file */
} sf_built_sst;

typedef struct sf_built_database {
    const sf_built_sst *ssts; /* ascending by key */
    size_t sst_count;         /* 0: no rows */
    sf_id128 checkpoint;
    uint32_t checkpoint_create_s; /* Unix s */
    const char *checkpoint_name;  /* UTF-8 */
} sf_built_database;

/* As manifest 1. *out is the caller's. SF_NOMEM; SF_UNSUPPORTED when it gets too large. */
sf_status sf__slatedb_manifest_encode(sf_buf **out, const sf_built_database *db, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;

#endif
