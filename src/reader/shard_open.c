#include "reader/shard_open.h"

#include "backend/sqlite/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "site/location.h"
#include "snapshot/relocation.h"

static void open_now(sf_any_shard_open *o)
{
    if (o->sqlite)
        sf__sqlite_shard_open(&o->op, &o->reading);
    else
        sf__slatedb_shard_open(&o->op);
}

static void name_missing(sf_shard_open *op)
{
    const sf_error *e = op->error;
    sf_error named;

    if (!e || e->code != SF_NOT_FOUND)
        return;
    named = *e;
    sf_error_prefix(&named, SF_NOT_FOUND, "no SQLite shard (one of SlateDB needs a reader that was made for it): ");
    sf_error_drop(op->rt->alloc, e);
    op->error = NULL;
    sf__shard_open_failed(op, &named);
}

/* False: it is not home yet, or begins again. */
static bool record_holds(sf_any_shard_open *o)
{
    sf_shard_open *op = &o->op;

    if (!op->by_record || !o->recorded)
        return true;
    o->waits = o->recorded->verdict == SF_FRESHNESS_PENDING;
    if (o->waits)
        return false;
    if (o->recorded->verdict == SF_FRESH && !o->cancelled)
        return true;
    sf__shard_release(op->shard);
    op->shard = NULL;
    op->record = NULL;
    if (o->cancelled) {
        sf__shard_open_fail(op, SF_CANCELLED, "cancelled");
        return true;
    }
    open_now(o);
    return false;
}

static void opened(sf_shard_open *op)
{
    sf_any_shard_open *o = sf_container_of(op, sf_any_shard_open, op);

    if (!record_holds(o))
        return;
    if (o->recorded)
        o->recorded->told = NULL;
    op->done = o->done;
    if (o->sqlite && !o->known)
        name_missing(op);
    if (o->sqlite || !op->error || op->error->code != SF_UNSUPPORTED || !op->is_sqlite ||
        o->reading.mode == SF_SQLITE_REFUSE) {
        op->done(op);
        return;
    }
    o->sqlite = true;
    op->record = NULL; /* nobody waits for its verdict any more */
    sf_error_drop(op->rt->alloc, op->error);
    open_now(o);
}

static void record_told(sf_recorded_shard *s)
{
    sf_any_shard_open *o = s->ctx;

    if (o->waits)
        opened(&o->op);
}

void sf__any_shard_open(sf_any_shard_open *o, const sf_source *source, sf_sqlite_mode mode, bool sqlite)
{
    o->sqlite = sqlite || source->sqlite_only;
    o->known = sqlite;
    o->reading = source->sqlite;
    o->reading.mode = mode;
    o->done = o->op.done;
    o->op.done = opened;
    open_now(o);
}

void sf__any_shard_open_cancel(sf_any_shard_open *o)
{
    if (o->foreign)
        sf__foreign_shard_open_cancel(&o->op);
    else if (o->waits)
        o->cancelled = true; /* ends with the verdict */
    else if (o->sqlite)
        sf__sqlite_shard_open_cancel(&o->op);
    else
        sf__slatedb_shard_open_cancel(&o->op);
}

/* ------------------------------------------------------------------ of a snapshot -------------------------------- */

/* The manifest's fault, not the caller's. */
static sf_status bad_location(sf_status rc, sf_error *err)
{
    return rc == SF_INVALID ? sf_error_prefix(err, SF_BAD_MANIFEST, "location of the shard: ") : rc;
}

sf_status sf__shard_location(char **url, const sf_source *source, const sf_snapshot_manifest *m,
                             const sf_manifest_shard *row, sf_error *err)
{
    const sf_reach reach = {source->site.prefix, source->relocate, source->confine};

    *url = NULL;
    if (source->foreign && source->confine != SF_CONFINE_YES) { /* there is no place that the shards could be bound to */
        *url = sf__strdup(source->alloc, row->db_url);
        return *url ? SF_OK : sf_fail(err, SF_NOMEM, "location of the shard");
    }
    return bad_location(sf__location_reach_shard(url, row->db_url, m->s3_prefix, &reach, source->alloc, err), err);
}

static bool has_backend(const sf_snapshot_manifest *m, const char *name)
{
    return m->kv_backend && strcmp(m->kv_backend, name) == 0;
}

/* By the sizes of its shards, where they are told; else each by its own. What is to stay on disk is copied. */
static sf_sqlite_mode mode_of(const sf_source *source, const sf_snapshot_manifest *m)
{
    const sf_sqlite_reading *r = &source->sqlite;
    bool told = true;
    uint64_t left = source->sqlite_total_bytes;

    if (r->mode != SF_SQLITE_AUTO)
        return r->mode;
    if (!r->folder)
        return SF_SQLITE_RANGE;
    if (source->residency == SF_RESIDENCY_DISK)
        return SF_SQLITE_DOWNLOAD;
    for (size_t i = 0; i < m->shard_count; i++) {
        uint64_t bytes = m->shards[i].db_bytes;

        if (bytes >= r->range_bytes || bytes >= left)
            return SF_SQLITE_RANGE;
        left -= bytes;
        told = told && (bytes > 0 || !m->shards[i].db_url);
    }
    return told ? SF_SQLITE_DOWNLOAD : SF_SQLITE_AUTO;
}

sf_shard_backend sf__manifest_backend(const sf_source *source, const sf_snapshot_manifest *m)
{
    bool sqlite = has_backend(m, "sqlite");

    return (sf_shard_backend){.sqlite = sqlite, .slatedb = has_backend(m, "slatedb"), .mode = mode_of(source, m)};
}

sf_status sf__source_check_backend(const sf_source *source, sf_shard_backend backend, sf_error *err)
{
    if (source->opener)
        return SF_OK;
    if (backend.slatedb && source->sqlite_only)
        return sf_fail(err, SF_UNSUPPORTED, SF_NO_SLATEDB);
    if (backend.sqlite && source->sqlite.mode == SF_SQLITE_REFUSE)
        return sf_fail(err, SF_UNSUPPORTED, SF_NO_SQLITE);
    if ((backend.sqlite || source->sqlite_only) && source->sqlite.mode == SF_SQLITE_DOWNLOAD && !source->sqlite.folder)
        return sf_fail(err, SF_UNSUPPORTED, SF_NO_SQLITE_FOLDER);
    return SF_OK;
}

sf_status sf__source_check_can_stay(const sf_source *source, const sf_shard *shard, sf_error *err)
{
    if (source->residency == SF_RESIDENCY_NONE)
        return SF_OK;
    if (!shard->vtable->can_stay)
        return sf_fail(err, SF_UNSUPPORTED,
                       "%s: what a caller's opener opens cannot be made to stay anywhere: leave out the residency",
                       shard->url);
    return shard->vtable->can_stay(shard, source->residency, err);
}

sf_status sf__shard_place(sf_store **store, char **path, sf_source *source, const char *location, sf_error *err)
{
    return bad_location(sf__site_store(&source->site, SF_SITE_SHARDS, location, store, path, err), err);
}

sf_status sf__shard_open_at(sf_any_shard_open *o, sf_source *source, const sf_shard_site *site,
                            sf_recorded_shard *recorded, uint64_t deadline_ns, void *call_ctx, bool shared,
                            void (*done)(sf_shard_open *op), void *ctx, sf_error *err)
{
    sf_store *store = NULL;
    sf_status rc;

    *o = (sf_any_shard_open){.foreign = source->opener != NULL};
    rc = sf__source_check_backend(source, site->backend, err);
    if (rc == SF_OK && !o->foreign)
        rc = sf__shard_place(&store, &o->path, source, site->location, err);
    if (rc != SF_OK)
        return rc;
    o->op = (sf_shard_open){
        .rt = source->site.rt,
        .store = store,
        .path = o->path,
        .url = site->name,
        .db_id = site->db_id,
        .record = recorded ? site->record : NULL,
        .disk = source->disk,
        .cache = source->cache,
        .cost = source->cost,
        .deadline_ns = deadline_ns,
        .call_ctx = call_ctx,
        .done = done,
        .ctx = ctx,
    };
    if (recorded) {
        o->recorded = recorded;
        recorded->ctx = o;
        recorded->told = record_told;
    }
    if (o->foreign) {
        o->op.checkpoint = site->checkpoint;
        sf__foreign_shard_open(&o->op, source->opener, site->location, site->manifest_ref, site->manifest, shared,
                               shared ? 1 : site->together);
    } else {
        sf__any_shard_open(o, source, site->backend.mode, site->backend.sqlite);
    }
    return SF_OK;
}

void sf__shard_open_cleanup(sf_any_shard_open *o, const sf_allocator *a)
{
    sf__free(a, o->path);
    o->path = NULL;
}
