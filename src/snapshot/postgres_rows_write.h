/* A manifest as the rows that PostgreSQL keeps of it (docs/formats/snapshot.md 15): what the statements of postgres_rows.h take.
 * Runs SQLite: not for the loop thread. */
#ifndef SF_SNAPSHOT_POSTGRES_ROWS_WRITE_H
#define SF_SNAPSHOT_POSTGRES_ROWS_WRITE_H

#include "snapshot/snapshot_manifest.h"

#define SF_POSTGRES_BUILD_VALUES 10

/* Texts all. */
typedef struct sf_postgres_rows {
    const sf_allocator *alloc;
    const char *build[SF_POSTGRES_BUILD_VALUES]; /* of SF_POSTGRES_PUT_BUILD; the first two also of SF_POSTGRES_POINTED */
    char *shards;                                /* of SF_POSTGRES_PUT_SHARDS, beside the run id */
    sf_snapshot_manifest *manifest;
    char *custom;
    char created_at_us[24], num_dbs[12];
} sf_postgres_rows;

/* Of a manifest in the published format. SF_BAD_MANIFEST, or SF_INVALID for what the tables cannot hold. On failure there is nothing
 * to clean up. */
sf_status sf__postgres_rows_init(sf_postgres_rows *r, sf_bytes manifest, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
void sf__postgres_rows_cleanup(sf_postgres_rows *r);

#endif
