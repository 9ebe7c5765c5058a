/* Whether two snapshots have the same rows in a shard, as far as their manifests tell. */
#ifndef SF_READER_COMPARE_H
#define SF_READER_COMPARE_H

#include "reader/snapshot.h"
#include "snapshot/content_hashes.h"

typedef struct sf_shard_comparison {
    const sf_snapshot *from, *to;
    sf_content_hashes from_hashes, to_hashes;
} sf_shard_comparison;

/* Borrows both. On failure it needs no clean-up. */
sf_status sf__shard_comparison_init(sf_shard_comparison *c, const sf_snapshot *from, const sf_snapshot *to,
                                    sf_error *err) SF_MUST_USE;
/* False when nothing tells. */
bool sf__shard_comparison_same(const sf_shard_comparison *c, uint32_t db_id);
void sf__shard_comparison_cleanup(sf_shard_comparison *c); /* of a zeroed one, too */

#endif
