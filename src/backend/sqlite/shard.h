/* An opened SQLite shard: a copy of shard.db on local disk, which is opened once. Look-ups and steps of scans are jobs for the
 * workers, each with a connection to itself, that a deadline or a cancel ends at any step of SQLite. */
#ifndef SF_BACKEND_SQLITE_SHARD_H
#define SF_BACKEND_SQLITE_SHARD_H

#include "backend/backend.h"
#include "backend/sqlite/connection.h"
#include "base/thread.h"

/* Opening in download mode. `folder` (copied) keeps copies from one opening to the next, of any number of processes, as
 * copies.h says: named after the shard's URL, op->checkpoint (any text) and the ETag of shard.db, and taken again when it is
 * what was downloaded (copy_check.h). Otherwise as sf__slatedb_shard_open(). */
void sf__sqlite_shard_open(sf_shard_open *op, const char *folder);
void sf__sqlite_shard_open_cancel(sf_shard_open *op);

typedef struct sf_sqlite_shard {
    sf_shard base; /* first */
    /* set at open */
    sf_store *store;   /* acquired */
    char *path;        /* of the shard below the store's root */
    char *file;        /* its name, for messages and for tidying up */
    int copy;          /* the descriptor by which it is read, and which keeps it from being removed; or -1 */
    sf_file_view view; /* of the object's bytes in it */

    sf_mutex lock; /* covers `idle` */
    sf_sqlite_connection *idle;
    sf_work close; /* closes them */
} sf_sqlite_shard;

/* With one reference, nothing in it yet. */
sf_status sf__sqlite_shard_new(sf_sqlite_shard **out, const sf_shard_open *op, sf_error *err) SF_MUST_USE;
/* Half-built ones too. Loop thread; closing happens on a worker. */
void sf__sqlite_shard_free(sf_shard *s);

/* Workers. What was taken is given back, or disconnected after an error. */
sf_status sf__sqlite_shard_take(sf_sqlite_shard *s, const sf_sqlite_watch *watch, sf_sqlite_connection **out,
                                sf_error *err) SF_MUST_USE;
void sf__sqlite_shard_give_back(sf_sqlite_shard *s, sf_sqlite_connection *c);

/* get.c */
sf_status sf__sqlite_try_get(sf_shard *s, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err);
void sf__sqlite_get_many(sf_shard *s, sf_shard_get_many *op);
void sf__sqlite_get_many_cancel(sf_shard *s, sf_shard_get_many *op);

/* scan.c */
sf_status sf__sqlite_scan_open(sf_shard *s, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                               sf_error *err);
sf_status sf__sqlite_scan_next(sf_shard_scan *scan, sf_error *err);
bool sf__sqlite_scan_fill(sf_shard_scan *scan, sf_scan_fill *fill);
bool sf__sqlite_scan_fill_cancel(sf_shard_scan *scan, sf_scan_fill *fill);
void sf__sqlite_scan_free(sf_shard_scan *scan);

/* check.c */
sf_status sf__sqlite_check(sf_shard *s, struct sf_shard_check *check, sf_error *err);

#endif
