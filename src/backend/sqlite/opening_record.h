/* What opening a shard.db needs to know of it, small enough to stand in the snapshot manifest (docs/formats/snapshot.md 4.8).
 *
 *   u8 2 | u64be bytes of shard.db | u8 1: there is a sidecar, 0: there is none | u8 n | n bytes, its ETag
 *
 * Pure; any thread. */
#ifndef SF_BACKEND_SQLITE_OPENING_RECORD_H
#define SF_BACKEND_SQLITE_OPENING_RECORD_H

#include "base/buf.h"
#include "shardyfusion/base.h"

typedef struct sf_sqlite_record {
    uint64_t db_bytes; /* at least 1 */
    bool has_sidecar;
    char etag[128]; /* as the store returned it; visible ASCII, never empty */
} sf_sqlite_record;

/* *out is the caller's; NULL: it cannot be told, since the store gave no ETag, or one of other characters. SF_NOMEM. */
sf_status sf__sqlite_record_encode(sf_buf **out, const sf_sqlite_record *r, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;
/* False: it is no such record. */
bool sf__sqlite_record_decode(sf_sqlite_record *out, sf_bytes record) SF_MUST_USE;

#endif
