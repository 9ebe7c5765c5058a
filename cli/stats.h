/* What `shardy stats` has counted, and the page that shows it. One thread. */
#ifndef SHARDY_STATS_H
#define SHARDY_STATS_H

#include "cli.h"

struct shard_stats {
    uint64_t rows, key_bytes, value_bytes;
};

struct stats {
    uint64_t rows, key_bytes, value_bytes;
    uint64_t least_rows, most_rows;                                    /* of a shard */
    uint64_t keys[SF_HISTOGRAM_BUCKETS], values[SF_HISTOGRAM_BUCKETS]; /* bucket i has sizes of i bits */
    struct shard_stats *shards;
    uint32_t shard_count;
};

/* The rows of the fullest shard over the mean; 0 without rows. */
double stats_skew(const struct stats *s);
/* A page of HTML that needs nothing else: no script, nothing is fetched. Names are escaped. However many shards there are, it stays below
 * a megabyte or so. */
void stats_page(struct text *t, const struct cli *c, const struct stats *s);

#endif
