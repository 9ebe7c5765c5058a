/* Opening one shard. Never writes to storage.
 *
 *   LISTING --> MANIFEST --> CHECKPOINT --> PARTS --> REPLAY --> DONE
 *      ^           |  ^ |                     ^                   ^
 *      |           |  | +---- no checkpoint, --                   |    every state leads to DONE when something fails;
 *      +- vanished-+--+ older one     or it is in the newest      |    DONE waits until all that was begun is home
 *
 * With a record of the snapshot manifest it begins with PARTS: one round trip, a request an SST. When these are not as the record
 * says it goes the long way, as without one.
 *
 * LISTING: manifest/ and (for the newest state) the first page of wal/, at the same time. PARTS: filter and index of
 * every SST and the WAL objects to replay, all at the same time; where the first page of wal/ did not settle which
 * objects these are, wal/ is listed once more meanwhile. So it takes three to five dependent round trips. */
#include <stdlib.h>

#include "backend/slatedb/format/opening_record.h"
#include "backend/slatedb/opening.h"
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"

/* How often the listing is repeated when the manifest that it named is gone, and how many older ones are tried then. */
#define MAX_RELISTS 1u
#define MAX_OLDER 2u

void sf__opening_fail(struct slatedb_opening *o, const sf_error *e)
{
    if (o->op->error)
        return;
    sf__shard_open_failed(o->op, e);
    if (o->manifests_list.busy)
        sf__fetcher_list_cancel(o->rt->fetcher, &o->manifests_list.listing);
    if (o->wal_list.busy)
        sf__fetcher_list_cancel(o->rt->fetcher, &o->wal_list.listing);
    if (o->root_list.busy)
        sf__fetcher_list_cancel(o->rt->fetcher, &o->root_list.listing);
    sf__fetch_cancel(&o->fetch);
    sf__opening_parts_cancel(o);
}

void sf__opening_fail_nomem(struct slatedb_opening *o, const char *what)
{
    sf_error e;

    sf_fail(&e, SF_NOMEM, "%s: %s", o->op->url ? o->op->url : "", what);
    sf__opening_fail(o, &e);
}

bool sf__opening_home(struct slatedb_opening *o)
{
    o->pending--;
    if (!o->op->error)
        return false;
    if (o->pending == 0)
        sf__opening_enter(o, OPEN_DONE);
    return true;
}

void sf__opening_object_error(struct slatedb_opening *o, const char *key, sf_error *e)
{
    char url[sizeof(e->object)];

    sf__store_object_url(o->op->store, key, url, sizeof(url));
    sf_error_prefix(e, e->code, "%s: ", url);
    sf_error_object(e, url);
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

bool sf__opening_list(struct slatedb_opening *o, struct folder_listing *l, sf_db_folder folder, const char *start_after,
                      size_t max_pages, void (*done)(sf_store_listing *))
{
    sf__store_listing_cleanup(&l->listing);
    if (!l->key)
        l->key = sf__db_folder_key(o->op->path, folder, o->alloc);
    if (!l->key)
        return false;
    l->o = o;
    l->busy = true;
    l->listing = (sf_store_listing){
        .store = o->op->store,
        .prefix = l->key,
        .delimiter = "/",
        .start_after = start_after,
        .deadline_ns = o->op->deadline_ns,
        .max_pages = max_pages,
        .done = done,
        .ctx = l,
    };
    o->pending++;
    sf__fetcher_list(o->rt->fetcher, &l->listing);
    return true;
}

static void listings_home(struct slatedb_opening *o)
{
    if (sf__opening_home(o) || o->pending > 0)
        return;
    o->manifest_no = o->manifest_count - 1;
    sf__opening_enter(o, OPEN_MANIFEST);
}

static bool is_sqlite(const struct folder_listing *l)
{
    size_t n = strlen(l->key);

    for (size_t i = 0; i < l->listing.entry_count; i++) {
        const char *key = l->listing.entries[i].key;

        if (strncmp(key, l->key, n) == 0 && strcmp(key + n, "shard.db") == 0)
            return true;
    }
    return false;
}

static void root_listed(sf_store_listing *l)
{
    struct folder_listing *fl = l->ctx;
    struct slatedb_opening *o = fl->o;
    sf_error e;

    fl->busy = false;
    if (l->error->code == SF_OK && is_sqlite(fl)) {
        o->op->is_sqlite = true;
        sf_fail(&e, SF_UNSUPPORTED, SF_NO_SQLITE);
        sf__opening_object_error(o, fl->key, &e);
    } else {
        sf_fail(&e, SF_NOT_FOUND, "no SlateDB manifest: the database does not exist");
        sf__opening_object_error(o, o->manifests_list.key, &e);
    }
    sf__opening_fail(o, &e);
    listings_home(o);
}

/* No snapshot manifest tells what its shards are, so a look at what lies there instead makes a better error. */
static void no_database(struct slatedb_opening *o)
{
    if (!sf__opening_list(o, &o->root_list, SF_DB_ROOT, NULL, 1, root_listed))
        sf__opening_fail_nomem(o, "listing");
}

static void manifests_listed(sf_store_listing *l)
{
    struct folder_listing *fl = l->ctx;
    struct slatedb_opening *o = fl->o;

    fl->busy = false;
    sf__free(o->alloc, o->manifests);
    o->manifests = NULL;
    o->manifest_count = 0;
    if (l->error->code != SF_OK)
        sf__opening_fail(o, l->error);
    else if (!sf__db_objects(l->entries, l->entry_count, fl->key, SF_DB_MANIFEST, o->alloc, &o->manifests,
                             &o->manifest_count))
        sf__opening_fail_nomem(o, "list of manifests");
    else if (o->manifest_count == 0)
        no_database(o);
    listings_home(o);
}

bool sf__opening_wal_take(struct slatedb_opening *o, const sf_store_listing *l)
{
    sf__free(o->alloc, o->wal);
    o->wal = NULL;
    o->wal_count = 0;
    return sf__db_objects(l->entries, l->entry_count, o->wal_list.key, SF_DB_WAL, o->alloc, &o->wal, &o->wal_count);
}

static void wal_first_page(sf_store_listing *l)
{
    struct slatedb_opening *o = ((struct folder_listing *)l->ctx)->o;

    o->wal_list.busy = false;
    if (l->error->code != SF_OK)
        sf__opening_fail(o, l->error);
    else if (!sf__opening_wal_take(o, l))
        sf__opening_fail_nomem(o, "list of WAL objects");
    listings_home(o);
}

static void listing_start(struct slatedb_opening *o)
{
    o->pending++; /* this function's own: nothing ends before all have begun */
    if (!sf__opening_list(o, &o->manifests_list, SF_DB_MANIFEST, NULL, 0, manifests_listed) ||
        (!o->op->checkpoint && !sf__opening_list(o, &o->wal_list, SF_DB_WAL, NULL, 1, wal_first_page)))
        sf__opening_fail_nomem(o, "listing");
    if (!o->op->error)
        o->pending--; /* never 0: two listings are under way */
    else
        sf__opening_home(o);
}

/* ------------------------------------------------------------------ manifests ------------------------------------ */

static sf_status manifest_decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct slatedb_opening *o = f->ctx;
    sf_slatedb_manifest *m = &o->shard->view.manifest;

    sf__slatedb_manifest_cleanup(m);
    return sf__slatedb_manifest_decode(m, data, o->alloc, err);
}

/* What a listing says of a manifest's size is what the request is for, and reserves: a large one needs no second request.
 * 0: not known. */
static uint64_t length_of(uint64_t listed)
{
    return listed > 0 ? listed : SF_STORE_ALL;
}

static void manifest_read(struct slatedb_opening *o, uint64_t id, uint64_t size, void (*done)(sf_fetch *))
{
    sf__free(o->alloc, o->key);
    o->key = sf__db_object_key(o->op->path, SF_DB_MANIFEST, id, o->alloc);
    if (!o->key) {
        o->pending++;
        sf__opening_fail_nomem(o, "name of a manifest");
        sf__opening_home(o);
        return;
    }
    o->fetch = (sf_fetch){
        .store = o->op->store,
        .key = o->key,
        .len = length_of(size),
        .max_bytes = SF_LIMIT_SLATEDB_MANIFEST_BYTES,
        .deadline_ns = o->op->deadline_ns,
        .decode = manifest_decode,
        .done = done,
        .ctx = o,
    };
    o->pending++;
    sf__fetch_start(o->rt->fetcher, &o->fetch);
}

/* The garbage collector, or somebody who deletes the database, was quicker. */
static void manifest_vanished(struct slatedb_opening *o, const sf_error *e)
{
    if (o->relists < MAX_RELISTS) {
        o->relists++;
        sf__opening_enter(o, OPEN_LISTING);
    } else if (o->manifest_no > 0 && o->manifest_count - o->manifest_no <= MAX_OLDER) {
        o->manifest_no--;
        sf__opening_enter(o, OPEN_MANIFEST);
    } else {
        sf__opening_fail(o, e);
        sf__opening_enter(o, OPEN_DONE);
    }
}

static void manifest_done(sf_fetch *f)
{
    struct slatedb_opening *o = f->ctx;
    const sf_slatedb_manifest *m = &o->shard->view.manifest;
    const sf_slatedb_checkpoint *cp;
    sf_error e = *f->error;

    if (e.code == SF_NOT_FOUND && !o->op->error) {
        o->pending--;
        manifest_vanished(o, &e);
        return;
    }
    if (e.code != SF_OK)
        sf__opening_fail(o, &e);
    if (sf__opening_home(o))
        return;
    if (!o->op->checkpoint) {
        sf__opening_enter(o, OPEN_PARTS);
        return;
    }
    cp = sf__slatedb_manifest_checkpoint(m, o->op->checkpoint);
    if (!cp) {
        sf_fail(&e, SF_INVALID, "checkpoint %.64s is not in this manifest", o->op->checkpoint);
        sf__opening_object_error(o, o->key, &e);
        sf__opening_fail(o, &e);
        sf__opening_enter(o, OPEN_DONE);
    } else if (cp->manifest_id == o->manifests[o->manifest_no].id) {
        sf__opening_enter(o, OPEN_PARTS);
    } else {
        sf__opening_enter(o, OPEN_CHECKPOINT);
    }
}

static void manifest_start(struct slatedb_opening *o)
{
    const sf_db_object *m = &o->manifests[o->manifest_no];
    sf_error e;

    if (m->size <= SF_LIMIT_SLATEDB_MANIFEST_BYTES) {
        manifest_read(o, m->id, m->size, manifest_done);
        return;
    }
    sf_fail(&e, SF_UNSUPPORTED, "manifest %llu has %llu bytes, more than %u", (unsigned long long)m->id,
            (unsigned long long)m->size, SF_LIMIT_SLATEDB_MANIFEST_BYTES);
    sf__opening_object_error(o, o->manifests_list.key, &e);
    sf__opening_fail(o, &e);
    sf__opening_enter(o, OPEN_DONE);
}

static void checkpoint_done(sf_fetch *f)
{
    struct slatedb_opening *o = f->ctx;

    if (f->error->code != SF_OK)
        sf__opening_fail(o, f->error);
    if (!sf__opening_home(o))
        sf__opening_enter(o, OPEN_PARTS);
}

static void checkpoint_start(struct slatedb_opening *o)
{
    const sf_slatedb_checkpoint *cp = sf__slatedb_manifest_checkpoint(&o->shard->view.manifest, o->op->checkpoint);

    manifest_read(o, cp->manifest_id, 0, checkpoint_done);
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void hand_over(struct slatedb_opening *o)
{
    sf_slatedb_shard *s = o->shard;

    s->base.bytes_resident = sizeof(*s) + strlen(s->base.url) + 1 + sf__read_view_resident_bytes(&s->view);
    sf__block_cache_charge(s->base.cache, (int64_t)s->base.bytes_resident);
    o->op->shard = &s->base;
    o->shard = NULL;
}

static void record_forget(struct slatedb_opening *o)
{
    sf_error_drop(o->alloc, o->op->error);
    o->op->error = NULL;
    o->recorded = false;
    sf__opening_parts_forget(o);
    sf__read_view_cleanup(&o->shard->view, o->alloc);
}

static void open_finish(struct slatedb_opening *o)
{
    sf_shard_open *op = o->op;
    const sf_allocator *a = o->alloc;

    if (o->recorded && !o->cancelled && sf__shard_open_is_record_bad(op)) {
        record_forget(o);
        sf__opening_enter(o, OPEN_LISTING);
        return;
    }
    op->by_record = o->recorded && !op->error;
    if (!op->error)
        hand_over(o);
    sf__opening_parts_forget(o);
    sf__free(a, o->wal);
    sf__free(a, o->manifests);
    sf__store_listing_cleanup(&o->manifests_list.listing);
    sf__store_listing_cleanup(&o->wal_list.listing);
    sf__store_listing_cleanup(&o->root_list.listing);
    sf__free(a, o->manifests_list.key);
    sf__free(a, o->wal_list.key);
    sf__free(a, o->root_list.key);
    sf__free(a, o->key);
    if (o->shard)
        sf__slatedb_shard_free(&o->shard->base);
    sf__free(a, o);
    op->impl = NULL;
    op->done(op);
}

void sf__opening_enter(struct slatedb_opening *o, enum slatedb_open_state next)
{
    o->state = next;
    switch (next) {
    case OPEN_LISTING:
        listing_start(o); /* ends in listings_home() */
        break;
    case OPEN_MANIFEST:
        manifest_start(o); /* ends in manifest_done() */
        break;
    case OPEN_CHECKPOINT:
        checkpoint_start(o); /* ends in checkpoint_done() */
        break;
    case OPEN_PARTS:
        sf__opening_parts_start(o); /* ends in parts_go() */
        break;
    case OPEN_REPLAY:
        sf__opening_replay_start(o); /* ends in replay_end() */
        break;
    case OPEN_DONE:
        open_finish(o); /* o is gone: nothing after this line */
        break;
    }
}

/* What cannot be decoded is as none. */
static bool take_record(struct slatedb_opening *o)
{
    o->recorded =
        o->op->record && !o->op->checkpoint &&
        sf__opening_record_decode(&o->shard->view.manifest, sf__buf_bytes(o->op->record), o->alloc, NULL) == SF_OK;
    return o->recorded;
}

static void begin(void *impl)
{
    struct slatedb_opening *o = impl;

    if (o->op->error) /* cancelled */
        sf__opening_enter(o, OPEN_DONE);
    else
        sf__opening_enter(o, take_record(o) ? OPEN_PARTS : OPEN_LISTING);
}

void sf__slatedb_shard_open(sf_shard_open *op)
{
    const sf_allocator *a = op->rt->alloc;
    struct slatedb_opening *o = sf__calloc(a, 1, sizeof(*o));

    if (o) {
        o->op = op;
        o->rt = op->rt;
        o->alloc = a;
    }
    if (!o || sf__slatedb_shard_new(&o->shard, op, NULL) != SF_OK) {
        sf__free(a, o);
        o = NULL;
    }
    sf__shard_open_begin(op, o, begin);
}

void sf__slatedb_shard_open_cancel(sf_shard_open *op)
{
    struct slatedb_opening *o = op->impl;
    sf_error e;

    if (!o)
        return;
    o->cancelled = true;
    if (o->state == OPEN_REPLAY)
        return; /* nothing can call a worker back */
    sf_fail(&e, SF_CANCELLED, "%s: cancelled", op->url ? op->url : "");
    sf__opening_fail(o, &e);
}
