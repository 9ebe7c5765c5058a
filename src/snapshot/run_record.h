/* The run record, a writer's diary: one small YAML mapping (docs/formats/snapshot.md 12). It says who writes, since
 * when, and until when the others must keep their hands off. Pure but for libyaml, which has an allocator of its own;
 * any thread. */
#ifndef SF_SNAPSHOT_RUN_RECORD_H
#define SF_SNAPSHOT_RUN_RECORD_H

#include "base/arena.h"

#define SF_RUN_RECORD_CONTENT_TYPE "application/x-yaml"
#define SF_RUN_RECORD_NAME "run.yaml" /* in its folder */

typedef enum sf_run_status { SF_RUN_RUNNING, SF_RUN_SUCCEEDED, SF_RUN_FAILED } sf_run_status;

typedef struct sf_run_record {
    int64_t format_version; /* not checked by readers */
    const char *run_id, *writer_type, *s3_prefix, *shard_prefix, *db_path_template;
    sf_run_status status;
    int64_t started_at_us, updated_at_us, lease_expires_at_us;
    const char *manifest_ref, *error_type, *error_message; /* NULL: null */
    const char *manifest_store; /* which has its manifest; NULL: the prefix itself, and no field */
} sf_run_record;

/* The document, terminated; freed with sf__free(). SF_INVALID when a text is not UTF-8. */
sf_status sf__run_record_format(char **out, size_t *n, const sf_run_record *r, const sf_allocator *a, sf_error *err);

/* One document without tags or aliases: the texts lie in `arena`. SF_CORRUPT for what is no run record. Whoever asks
 * about a run treats that as "unknown run", never as "dead". */
sf_status sf__run_record_parse(sf_run_record *out, sf_arena *arena, sf_bytes text, sf_error *err);

/* A writer works on the run, as far as the record tells. */
static inline bool sf__run_record_is_live(const sf_run_record *r, int64_t now_us)
{
    return r->status == SF_RUN_RUNNING && r->lease_expires_at_us > now_us;
}

#endif
