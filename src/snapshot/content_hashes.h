/* What our writers say of the rows of each shard, in the manifest's custom part:
 *     {"content_hash": {"algorithm": "xxh3_128", "shards": {"0": "32 hex digits"}}}
 * The same whatever a shard is stored like. Immutable once made; borrows from the manifest. */
#ifndef SF_SNAPSHOT_CONTENT_HASHES_H
#define SF_SNAPSHOT_CONTENT_HASHES_H

#include "base/json.h"
#include "snapshot/snapshot_manifest.h"

typedef struct sf_content_hashes {
    const sf_allocator *alloc;
    sf_json_doc doc;
    sf_bytes *hex; /* by db_id: 32 digits, or empty; NULL: none is told */
} sf_content_hashes;

/* On failure it needs no clean-up. Of no manifest (NULL), and of one that tells none, or something that cannot be understood,
 * there are none. */
sf_status sf__content_hashes_init(sf_content_hashes *h, const sf_snapshot_manifest *m, const sf_allocator *a,
                                  sf_error *err) SF_MUST_USE;
sf_bytes sf__content_hashes_of(const sf_content_hashes *h, uint32_t db_id); /* of a shard that there is; empty: not told */
void sf__content_hashes_cleanup(sf_content_hashes *h);                      /* of a zeroed one, too */

#endif
