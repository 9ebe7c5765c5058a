/* Shards of a caller's opener (shardyfusion/shard_opener.h) behind the vtable of all shards. */
#ifndef SF_BACKEND_FOREIGN_SHARD_H
#define SF_BACKEND_FOREIGN_SHARD_H

#include "backend/foreign/opener.h"

/* As sf__slatedb_shard_open(), but for store and path; op->url is the published one. `location`: where it lies;
 * `manifest` may be NULL. All but the opener: borrowed until this returns. */
void sf__foreign_shard_open(sf_shard_open *op, sf_foreign_opener *opener, const char *location,
                            const char *manifest_ref, sf_buf *manifest, bool shared, uint32_t together);
void sf__foreign_shard_open_cancel(sf_shard_open *op);

typedef struct sf_foreign_shard {
    sf_shard base;             /* first */
    sf_foreign_handle *handle; /* NULL once the last reference to the shard is gone */
} sf_foreign_shard;

/* The failure of a question in the words of this shard. */
sf_status sf__foreign_failed(sf_error *err, const sf_shard *s, const char *what, const sf_shard_request *q, bool late);

/* scan.c */
sf_status sf__foreign_scan_open(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                                sf_error *err);
sf_status sf__foreign_scan_next(sf_shard_scan *base, sf_error *err);
bool sf__foreign_scan_fill(sf_shard_scan *scan, sf_scan_fill *fill);
bool sf__foreign_scan_fill_cancel(sf_shard_scan *scan, sf_scan_fill *fill);
void sf__foreign_scan_free(sf_shard_scan *base);

#endif
