/* What opening a database that was built as a whole (slatedb_manifest_write.h) needs to know of it, small enough to stand in the
 * snapshot manifest (docs/formats/snapshot.md 4.8): what its manifest says of its SSTs, and how long that manifest is.
 *
 *   u8 1 | varint bytes of the manifest | varint SSTs | per SST in the order of their keys:
 *   ULID, 16 bytes | varint first key length | first key | varint last key length | last key |
 *   varint end of the data blocks | varint filter length | varint index length | varint stats length | u8 codec | u8 filter format
 *
 * At least one SST; filter, index and stats follow the data blocks without a gap. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_OPENING_RECORD_H
#define SF_BACKEND_SLATEDB_FORMAT_OPENING_RECORD_H

#include "backend/slatedb/format/slatedb_manifest.h"
#include "backend/slatedb/format/slatedb_manifest_write.h"
#include "base/buf.h"

/* *out is the caller's; NULL: it has no rows, no such form, or none within SF_LIMIT_OPENING_RECORD_BYTES. SF_NOMEM. */
sf_status sf__opening_record_encode(sf_buf **out, const sf_built_database *db, uint64_t manifest_bytes,
                                    const sf_allocator *a, sf_error *err) SF_MUST_USE;

/* How long the manifest of the database is, and how many objects it has. False: it is no such record. */
bool sf__opening_record_facts(sf_bytes record, uint64_t *manifest_bytes, uint64_t *objects) SF_MUST_USE;
/* What decoding the database's manifest would have given, without its checkpoint and without `buf`: what it needs of the record is
 * copied. SF_CORRUPT, SF_UNSUPPORTED; on failure *out is zeroed. */
sf_status sf__opening_record_decode(sf_slatedb_manifest *out, sf_bytes record, const sf_allocator *a, sf_error *err)
    SF_MUST_USE;

#endif
