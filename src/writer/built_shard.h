/* One shard that is stored, as a writer hands it on. */
#ifndef SF_WRITER_BUILT_SHARD_H
#define SF_WRITER_BUILT_SHARD_H

#include "base/alloc.h"

/* Its texts are freed with sf__built_shard_cleanup(). */
typedef struct sf_built_shard {
    uint32_t db_id, attempt, retries;
    bool reused;      /* it was there already */
    char *taken_from; /* then: the snapshot that has it; NULL: an earlier try of the run */
    char *db_url;
    uint64_t rows; /* with different keys */
    uint64_t db_bytes;
    char *min_key_json, *max_key_json; /* NULL: no JSON form */
    char checkpoint_id[33], content_hash[33];
    char *opening; /* what manifests say of it for readers that open it, base64; or NULL */
    int64_t duration_ms;
} sf_built_shard;

static inline void sf__built_shard_cleanup(sf_built_shard *s, const sf_allocator *a) /* takes a zeroed one and leaves one */
{
    sf__free(a, s->taken_from);
    sf__free(a, s->db_url);
    sf__free(a, s->min_key_json);
    sf__free(a, s->max_key_json);
    sf__free(a, s->opening);
    *s = (sf_built_shard){0};
}

#endif
