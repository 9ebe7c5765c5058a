/* Writes one SQLite shard: shard.db, then the sidecar that is bound to its ETag (docs/formats/snapshot.md 8.2, 14). See
 * backend/shard_writer.h for the calls and their threads. */
#ifndef SF_BACKEND_SQLITE_SHARD_WRITER_H
#define SF_BACKEND_SQLITE_SHARD_WRITER_H

#include "backend/shard_writer.h"
#include "backend/sqlite/table_builder.h" /* SF_SQLITE_MAX_ROW_BYTES: key and value together */

#define SF_SQLITE_DB_NAME "shard.db"
#define SF_SQLITE_PAGE_BYTES_AUTO 0u

typedef struct sf_sqlite_writer_options {
    uint32_t page_bytes; /* 4096 .. 65536, a power of two; or SF_SQLITE_PAGE_BYTES_AUTO: by the rows (page_size.h) */
    bool sidecar;        /* also shard.sidecar, when this shard.db can have one */
    const char *folder;  /* for shard.db while it is built; NULL: $TMPDIR, else /tmp; copied */
} sf_sqlite_writer_options;
#define SF_SQLITE_WRITER_OPTIONS_INIT {.page_bytes = 4096, .sidecar = true}

/* Lists the path first: SF_CONFLICT when anything is there. *out is freed with sf__shard_writer_free(). The empty key
 * is taken. The result's db_bytes is the size of shard.db, its checkpoint_id the content hash in hex. */
sf_status sf__sqlite_shard_writer_open(sf_shard_writer **out, const sf_shard_target *target,
                                       const sf_sqlite_writer_options *opts, sf_error *err) SF_MUST_USE;

#endif
