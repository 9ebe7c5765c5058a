/* The immutable, counted whole: a parsed manifest, its router, its opened shards. Nothing changes after creation but
 * the count; any thread may use it while it holds a reference. */
#ifndef SF_READER_SNAPSHOT_H
#define SF_READER_SNAPSHOT_H

#include "backend/backend.h"
#include "shardyfusion/reader.h"
#include "snapshot/router.h"
#include "snapshot/snapshot_manifest.h"

struct sf_snapshot {
    atomic_uint refs;
    const sf_allocator *alloc;
    sf_runtime *rt;                 /* a reference */
    sf_snapshot_manifest *manifest; /* NULL for a shard opened on its own */
    char *manifest_ref;             /* as published */
    sf_router router;
    uint32_t num_dbs;
    bool int_keys; /* by hash, and stored as u64be: for an integer key that is not negative, both are arithmetic alone */
    sf_shard **shards; /* num_dbs; NULL = empty shard */
    /* loop thread */
    unsigned let_go; /* how often ready() found that it does not fit into memory */
};

/* NULL: no row. */
static inline const sf_manifest_shard *sf__snapshot_row(const sf_snapshot *s, uint32_t db_id)
{
    return s->manifest ? sf__snapshot_manifest_shard(s->manifest, db_id) : NULL;
}

/* Takes over `manifest` on success only. No shard is open yet. */
sf_status sf__snapshot_new(sf_snapshot **out, sf_runtime *rt, sf_snapshot_manifest *manifest, const char *manifest_ref,
                           bool lazy, sf_error *err);
/* All its shards are open, and nobody else has it yet: what only their opening took goes. */
void sf__snapshot_settle(sf_snapshot *s);
/* One shard without manifest; takes over the reference. */
sf_status sf__snapshot_of_shard(sf_snapshot **out, sf_runtime *rt, sf_shard *shard, sf_error *err);

/* For the library's own use; what a caller gets is also a handle on the runtime, and comes back by sf_snapshot_give_back(). */
sf_snapshot *sf__snapshot_acquire(sf_snapshot *s);
void sf__snapshot_release(sf_snapshot *s); /* takes NULL */
/* One that no look-up finds any more: its pins become references, and the caller's is dropped. Takes NULL. */
void sf__snapshot_withdraw(sf_snapshot *s);
/* Makes a reference the caller's. Takes NULL. */
sf_snapshot *sf__snapshot_hand_out(sf_snapshot *s);

/* sf_reader_ask(), and the shard that was asked; UINT32_MAX: none, since the routing value belongs to none. Unset after other
 * failures than SF_WOULD_BLOCK. */
sf_status sf__reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                         uint32_t *db_id, sf_error *err);

/* sf_snapshot_ask_many() of at most SF_SHARD_TRIES keys, without copies: a value without an owner is a view, until the thread asks again,
 * of whatever snapshot, or says sf__pins_together_end(), as it must when it has asked for the last ones. */
sf_status sf__snapshot_ask_views(sf_snapshot *s, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                                 sf_status *statuses, sf_call **call, sf_error *err);

/* A manifest and one of its rows as callers see them; `manifest_ref` stays NULL. Texts are the manifest's. */
void sf__snapshot_info_of(const sf_snapshot_manifest *m, sf_snapshot_info *out);
void sf__shard_info_of(const sf_manifest_shard *s, sf_shard_info *out);

#endif
