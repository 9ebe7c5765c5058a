/* The manifest of a published snapshot: a small SQLite file, read from memory (docs/formats/snapshot.md 4). Immutable
 * once parsed; any thread. Parsing runs SQLite, so it belongs on a worker thread. */
#ifndef SF_SNAPSHOT_SNAPSHOT_MANIFEST_H
#define SF_SNAPSHOT_SNAPSHOT_MANIFEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "shardyfusion/base.h"

typedef struct sf_manifest_shard {
    uint32_t db_id;
    uint32_t attempt;
    uint32_t opening_pos, opening_len; /* in writer_info_json; see sf__manifest_shard_opening() */
    uint64_t row_count, db_bytes;
    const char *db_url;                      /* NULL: empty shard; otherwise as published, may be empty text */
    const char *min_key_json, *max_key_json; /* one JSON integer or string, or NULL */
    const char *checkpoint_id;               /* may be NULL */
    const char *writer_info_json; /* the four members and `opening`, where there is one, checked and in the writer's own form */
} sf_manifest_shard;

/* Base64 of what our writers tell of the shard for its opening; empty: nothing (any more). */
static inline sf_bytes sf__manifest_shard_opening(const sf_manifest_shard *s)
{
    return sf_bytes_of(s->writer_info_json + s->opening_pos, s->opening_len);
}

typedef struct sf_snapshot_manifest {
    sf_arena arena;        /* all texts, but for */
    sf_arena until_opened; /* the URLs and writer infos of shards as published, until sf__snapshot_manifest_settle() */
    const char *run_id, *s3_prefix, *key_col, *db_path_template, *shard_prefix;
    const char *sharding_json; /* the five members, checked and in the writer's own form */
    const char *custom_json;   /* an object, as published; may hold NaN and lone surrogate escapes */
    const char *kv_backend;    /* of the shards, NULL when the manifest does not tell */
    bool vector_only;          /* published for vector search alone */
    int64_t created_at_us;
    bool created_at_naive; /* written without a zone */
    uint32_t num_dbs;
    int32_t format_version;
    sf_key_encoding key_encoding;
    sf_sharding_strategy strategy;
    sf_manifest_shard *shards; /* by ascending db_id; shards without a row are empty */
    size_t shard_count;
    uint64_t row_count; /* of all shards; set by parsing */
} sf_snapshot_manifest;

enum {
    SF_MANIFEST_LEGACY = 1,    /* versions 2 and 3 are taken as well as 4 */
    SF_MANIFEST_HEAD_ONLY = 2, /* what the shards are is not looked at: there are none in the result */
};
/* SF_BAD_MANIFEST for every malformed manifest, the message says what is wrong with it. On success *out is freed with
 * sf__snapshot_manifest_free(); on failure it is untouched. */
sf_status sf__snapshot_manifest_parse(sf_snapshot_manifest **out, sf_bytes bytes, unsigned flags, const sf_allocator *a,
                                      sf_error *err);
void sf__snapshot_manifest_free(sf_snapshot_manifest *m); /* takes NULL */

/* Once the shards are open, before others have the manifest: what only their opening takes goes. That is `opening`, also in the writer
 * infos, and the URLs, which the opened shards have, too: url_of() gives the same text, which lasts as long as the manifest is asked; NULL
 * for one that is not there, and then all stays as it is. Without memory, too. */
void sf__snapshot_manifest_settle(sf_snapshot_manifest *m, const char *(*url_of)(void *ctx, uint32_t db_id), void *ctx);
/* NULL: no row. */
const sf_manifest_shard *sf__snapshot_manifest_shard(const sf_snapshot_manifest *m, uint32_t db_id);

/* What that stands for, as the backend takes it: it is unchecked. NULL: nothing, or there is no memory for it. */
sf_buf *sf__manifest_shard_record(const sf_manifest_shard *s, const sf_allocator *a) SF_MUST_USE;

/* A well-formed manifest may still be one for other readers: SF_INVALID for vector data alone, SF_UNSUPPORTED for a
 * backend that cannot be read. `own`: by the library, not by a caller's opener. */
sf_status sf__snapshot_manifest_check_readable(const sf_snapshot_manifest *m, bool own, sf_error *err);

#endif
