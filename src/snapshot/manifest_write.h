/* The snapshot manifest as a writer makes it: a SQLite file in memory (docs/formats/snapshot.md 4). Runs SQLite, which
 * takes its memory from its own allocator: not for the loop thread. */
#ifndef SF_SNAPSHOT_MANIFEST_WRITE_H
#define SF_SNAPSHOT_MANIFEST_WRITE_H

#include "base/buf.h"
#include "base/strbuf.h"
#include "snapshot/snapshot_manifest.h"

/* The file of `m`, format version 4. Texts go in as they are: `sharding_json` and `custom_json` must be in the writer's
 * own form (below), and shards ascend by db_id. SF_INVALID for a manifest that no reader would take (it is parsed
 * again). On success *out is released with sf__buf_release(). */
sf_status sf__snapshot_manifest_write(sf_buf **out, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err);
/* The same without that check, for what will be parsed at once. */
sf_status sf__snapshot_manifest_encode(sf_buf **out, const sf_snapshot_manifest *m, const sf_allocator *a, sf_error *err);

/* The `sharding` column of a HASH snapshot. */
extern const char sf__sharding_hash_json[];

/* A stored key as min_key and max_key have it: an integer, or a string. False when it has no such form (not UTF-8):
 * then both columns of the shard are NULL. */
bool sf__key_json_write(sf_strbuf *out, sf_key_encoding encoding, sf_bytes stored) SF_MUST_USE;

/* Who wrote a shard; null where an id is not known. */
typedef struct sf_writer_info {
    uint32_t attempt;
    int64_t duration_ms;
    bool has_stage_id, has_task_attempt_id;
    int64_t stage_id, task_attempt_id;
    const char *opening; /* base64, or NULL: a member for readers of ours (snapshot_manifest.h) */
} sf_writer_info;
void sf__writer_info_write(sf_strbuf *out, const sf_writer_info *info);

#endif
