/* Writes one SlateDB database: SSTs of one sorted run, then manifest 1 (docs/formats/slatedb.md 9). See
 * backend/shard_writer.h for the calls and their threads. */
#ifndef SF_BACKEND_SLATEDB_SHARD_WRITER_H
#define SF_BACKEND_SLATEDB_SHARD_WRITER_H

#include "backend/shard_writer.h"
#include "backend/slatedb/writer_options.h"

/* Lists the path first: SF_CONFLICT when anything is there. *out is freed with sf__shard_writer_free(). */
sf_status sf__slatedb_shard_writer_open(sf_shard_writer **out, const sf_shard_target *target,
                                        const sf_slatedb_writer_options *opts, sf_error *err) SF_MUST_USE;

#endif
