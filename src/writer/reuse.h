/* Shards that are stored already, and need not be built when their rows are those that were added: of the snapshot that the
 * pointer names (sf_writer_options.reuse_unchanged), and of earlier tries of the run (resume), which left a record beside each
 * shard that they finished:
 *
 *     shards/run_id=X/db=00000/attempt=00/finished.json
 *     {"format_version": 1, "db_id": 0, "attempt": 0, "row_count": 9, "db_bytes": 812, "min_key": 1, "max_key": 9,
 *      "checkpoint_id": "32 hex digits", "content_hash": "32 hex digits", "key_encoding": "u64be",
 *      "stored_as": {"kv_backend": "slatedb"}}
 *
 * That something cannot be read is logged, and the shard is built. All block; not on the loop thread. */
#ifndef SF_WRITER_REUSE_H
#define SF_WRITER_REUSE_H

#include "shardyfusion/writer.h"
#include "snapshot/content_hashes.h"
#include "writer/built_shard.h"
#include "writer/rerun.h"

typedef struct sf_reuse {
    const sf_site *site; /* NULL: nothing is to be reused */
    const sf_writer_options *options;
    const char *run_id;
    const sf_earlier_attempts *earlier; /* resume */
    char *stored_as;                    /* of the shards that these options make */
    char *previous_ref;
    sf_snapshot_manifest *previous; /* NULL: none that counts */
    sf_content_hashes hashes;       /* of it */
} sf_reuse;

/* What is pointed to must outlive it. Then any number of threads may ask. SF_NOMEM, SF_CANCELLED. */
sf_status sf__reuse_open(sf_reuse *r, const sf_site *site, const sf_writer_options *options, const char *run_id,
                         const sf_earlier_attempts *earlier, const sf_cancel_flag *cancel, sf_error *err) SF_MUST_USE;
void sf__reuse_close(sf_reuse *r); /* takes a zeroed one */

#define SF_REUSE_CANDIDATES 8u /* of one shard: nobody tries more often */

typedef struct sf_reusable {
    sf_built_shard shards[SF_REUSE_CANDIDATES];
    size_t count;
} sf_reusable;

/* The shards that may have the rows of this one, of which `rows` were added. SF_NOMEM, SF_CANCELLED; the result is to be cleaned
 * up in any case. */
sf_status sf__reuse_find(const sf_reuse *r, uint32_t db_id, uint64_t rows, const sf_cancel_flag *cancel,
                         sf_reusable *out, sf_error *err) SF_MUST_USE;
/* Moves the one with this content hash, whose objects are there, to *out; *out is untouched when there is none. Likewise. */
sf_status sf__reuse_take(const sf_reuse *r, sf_reusable *from, const char *content_hash, const sf_cancel_flag *cancel,
                         sf_built_shard *out, sf_error *err) SF_MUST_USE;
void sf__reusable_cleanup(sf_reusable *f, const sf_allocator *a);

/* Leaves the record of a shard that was built, for a later try. */
void sf__reuse_note(const sf_reuse *r, const sf_built_shard *s, const sf_cancel_flag *cancel);

#endif
