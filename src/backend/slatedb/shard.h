/* An opened SlateDB shard, and what its files share. */
#ifndef SF_BACKEND_SLATEDB_SHARD_H
#define SF_BACKEND_SLATEDB_SHARD_H

#include "backend/backend.h"
#include "backend/slatedb/view.h"

/* All fields are set at open. */
typedef struct sf_slatedb_shard {
    sf_shard base;       /* first */
    sf_store *store;     /* acquired */
    sf_disk_cache *disk; /* acquired, or NULL */
    sf_read_cost cost;
    sf_read_view view;
} sf_slatedb_shard;

/* With one reference, nothing in it yet. */
sf_status sf__slatedb_shard_new(sf_slatedb_shard **out, const sf_shard_open *op, sf_error *err) SF_MUST_USE;
/* Half-built ones too; takes NULL. Loop thread. */
void sf__slatedb_shard_free(sf_shard *base);

/* get.c */
sf_status sf__slatedb_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err);
void sf__slatedb_try_get_together(sf_shard_tries *t, sf_value_room *room);
void sf__slatedb_get_many(sf_shard *base, sf_shard_get_many *op);

/* scan.c */
sf_status sf__slatedb_scan_open(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                                sf_error *err);
sf_status sf__slatedb_scan_next(sf_shard_scan *base, sf_error *err);
bool sf__slatedb_scan_fill(sf_shard_scan *scan, sf_scan_fill *fill);
bool sf__slatedb_scan_fill_cancel(sf_shard_scan *scan, sf_scan_fill *fill);
void sf__slatedb_scan_fill_overdue(const sf_shard_scan *base, uint64_t since_ns, sf_error *err);
void sf__slatedb_scan_free(sf_shard_scan *base);

/* resident.c */
sf_status sf__slatedb_can_stay(const sf_shard *base, sf_residency where, sf_error *err);
uint64_t sf__slatedb_resident_bytes(sf_shard *base, sf_residency where, uint64_t *room);
void sf__slatedb_resident(sf_shard *base, sf_shard_resident *op);
void sf__slatedb_resident_cancel(sf_shard *base, sf_shard_resident *op);
void sf__slatedb_resident_let_go(sf_shard *base);

/* hot.c */
void sf__slatedb_hot_keys(sf_shard *base, sf_hot_key_fn add, void *ctx);

/* explain.c */
void sf__slatedb_explain(sf_shard *base, sf_bytes key, sf_look_fn look, void *ctx);

/* check.c */
sf_status sf__slatedb_check(sf_shard *base, struct sf_shard_check *check, sf_error *err);

#endif
