/* Opening a shard of a snapshot, of either backend. Where the snapshot does not say which one lies there, SlateDB's opening
 * goes first, and when it meets a shard.db instead, SQLite's follows. Loop thread; completes like its parts. */
#ifndef SF_READER_SHARD_OPEN_H
#define SF_READER_SHARD_OPEN_H

#include "backend/foreign/shard.h"
#include "reader/freshness.h"
#include "reader/source.h"
#include "snapshot/snapshot_manifest.h"

typedef struct sf_any_shard_open {
    sf_shard_open op; /* filled by the owner; its done gets &op */
    /* private */
    void (*done)(sf_shard_open *op);
    sf_sqlite_reading reading;
    bool sqlite, foreign;
    bool known;                  /* that it is one of SQLite, from the snapshot */
    sf_recorded_shard *recorded; /* or NULL */
    bool waits, cancelled;       /* it is open, and waits for the verdict on its record */
    char *path;
} sf_any_shard_open;

/* What a snapshot says of its shards. */
typedef struct sf_shard_backend {
    bool sqlite, slatedb; /* for sure */
    sf_sqlite_mode mode;  /* of SQLite ones */
} sf_shard_backend;

/* Which shard of which snapshot. */
typedef struct sf_shard_site {
    const char *location; /* where it lies for the source */
    const char *name;     /* its URL as published, for messages and identity */
    int32_t db_id;
    sf_shard_backend backend;
    sf_buf *record; /* what the manifest tells of it for its opening; or NULL */
    /* for openers of the caller's */
    const char *checkpoint; /* or NULL */
    const char *manifest_ref;
    sf_buf *manifest;  /* as published, or NULL */
    uint32_t together; /* shards that are to be opened with it */
} sf_shard_site;

/* `source` says how; `sqlite`: it is one for sure. What the source cannot read is SF_UNSUPPORTED. */
void sf__any_shard_open(sf_any_shard_open *o, const sf_source *source, sf_sqlite_mode mode, bool sqlite);
void sf__any_shard_open_cancel(sf_any_shard_open *o);

/* Where a shard of the manifest lies for this source; *url is freed with sf__free(). Any thread. */
sf_status sf__shard_location(char **url, const sf_source *source, const sf_snapshot_manifest *m,
                             const sf_manifest_shard *row, sf_error *err) SF_MUST_USE;
sf_shard_backend sf__manifest_backend(const sf_source *source, const sf_snapshot_manifest *m);
/* SF_UNSUPPORTED: this source reads no such shards. */
sf_status sf__source_check_backend(const sf_source *source, sf_shard_backend backend, sf_error *err) SF_MUST_USE;
/* SF_UNSUPPORTED: the shard cannot stay where the source's residency says, with the reason. */
sf_status sf__source_check_can_stay(const sf_source *source, const sf_shard *shard, sf_error *err) SF_MUST_USE;
/* Where that is: the store is the source's, the path is freed with sf__free(). What is wrong with it is the manifest's fault. */
sf_status sf__shard_place(sf_store **store, char **path, sf_source *source, const char *location, sf_error *err)
    SF_MUST_USE;
/* Opens what lies there; the names are borrowed until done. `recorded`: who tells whether the record still holds, which is waited
 * for; whoever cancels the opening calls that back, too. NULL: the record is not used. `call_ctx`: see sf_shard_open; `shared`: others
 * may come to wait for it. After SF_OK done(&o->op) follows, and then sf__shard_open_cleanup(). */
sf_status sf__shard_open_at(sf_any_shard_open *o, sf_source *source, const sf_shard_site *site,
                            sf_recorded_shard *recorded, uint64_t deadline_ns, void *call_ctx, bool shared,
                            void (*done)(sf_shard_open *op), void *ctx, sf_error *err) SF_MUST_USE;
void sf__shard_open_cleanup(sf_any_shard_open *o, const sf_allocator *a); /* takes a zeroed one */

#endif
