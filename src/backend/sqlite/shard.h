/* An opened SQLite shard: the tree of its table, and where its pages come from: a copy of shard.db on local disk, or ranges of the
 * object. SQLite itself has judged the schema when it was opened; the rows are read by our own walks (tree.h). */
#ifndef SF_BACKEND_SQLITE_SHARD_H
#define SF_BACKEND_SQLITE_SHARD_H

#include "backend/backend.h"
#include "backend/sqlite/pages.h"

/* How shards are read. */
typedef struct sf_sqlite_reading {
    sf_sqlite_mode mode;
    /* where copies are kept from one opening to the next, of any number of processes, as copies.h says: named after the shard's
     * URL, op->checkpoint (any text) and the ETag of shard.db, and taken again when it is what was downloaded (copy_check.h). NULL:
     * there is no such folder, and AUTO is by ranges */
    const char *folder;
    uint64_t range_bytes; /* AUTO: from this size on by ranges */
    bool uncached;        /* pages that were read by ranges are not kept */
} sf_sqlite_reading;

/* Otherwise as sf__slatedb_shard_open(). `reading` is copied. */
void sf__sqlite_shard_open(sf_shard_open *op, const sf_sqlite_reading *reading);
void sf__sqlite_shard_open_cancel(sf_shard_open *op);

typedef struct sf_sqlite_shard {
    sf_shard base; /* first */
    /* set at open */
    sf_store *store; /* acquired */
    char *path;      /* of the shard below the store's root */
    char *key;       /* of shard.db */
    char etag[128];
    atomic_bool unconditional; /* see pages.h */
    sf_tree tree;
    sf_page_source pages;        /* its copy is the shard's, and keeps that from being removed */
    char *file;                  /* the copy's name, for messages and for tidying up; NULL: there is none */
    sf_work close;               /* the copy */
    bool index_stays, all_stays; /* in memory; loop thread */
} sf_sqlite_shard;

/* With one reference, nothing in it yet. */
sf_status sf__sqlite_shard_new(sf_sqlite_shard **out, const sf_shard_open *op, sf_error *err) SF_MUST_USE;
/* Half-built ones too. Loop thread; closing happens on a worker. */
void sf__sqlite_shard_free(sf_shard *base);

/* get.c */
sf_tree_walk sf__sqlite_walk(const sf_sqlite_shard *s); /* in memory */
sf_status sf__sqlite_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err);
void sf__sqlite_get_many(sf_shard *base, sf_shard_get_many *op);

/* scan.c */
sf_status sf__sqlite_scan_open(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                               sf_error *err);
sf_status sf__sqlite_scan_next(sf_shard_scan *base, sf_error *err);
bool sf__sqlite_scan_fill(sf_shard_scan *scan, sf_scan_fill *fill);
bool sf__sqlite_scan_fill_cancel(sf_shard_scan *scan, sf_scan_fill *fill);
void sf__sqlite_scan_fill_overdue(const sf_shard_scan *base, uint64_t since_ns, sf_error *err);
void sf__sqlite_scan_free(sf_shard_scan *base);

/* explain.c */
void sf__sqlite_explain(sf_shard *base, sf_bytes key, sf_look_fn look, void *ctx);

/* resident.c */
sf_status sf__sqlite_can_stay(const sf_shard *base, sf_residency where, sf_error *err);
uint64_t sf__sqlite_resident_bytes(sf_shard *base, sf_residency where, uint64_t *room);
void sf__sqlite_resident(sf_shard *base, sf_shard_resident *op);
void sf__sqlite_resident_cancel(sf_shard *base, sf_shard_resident *op);
void sf__sqlite_resident_let_go(sf_shard *base);

/* check.c */
sf_status sf__sqlite_check(sf_shard *base, struct sf_shard_check *check, sf_error *err);

#endif
