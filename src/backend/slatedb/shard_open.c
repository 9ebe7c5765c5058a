/* Opening one shard. Never writes to storage.
 *
 *   LISTING --> MANIFEST --> CHECKPOINT --> PARTS --> REPLAY --> DONE
 *      ^           |  ^ |                     ^                   ^
 *      |           |  | +---- no checkpoint, --                   |    every state leads to DONE when something fails;
 *      +- vanished-+--+ older one     or it is in the newest      |    DONE waits until all that was begun is home
 *
 * LISTING: manifest/ and (for the newest state) the first page of wal/, at the same time. PARTS: filter and index of
 * every SST and the WAL objects to replay, all at the same time; where the first page of wal/ did not settle which
 * objects these are, wal/ is listed once more meanwhile. So it takes three to five dependent round trips. */
#include <stdlib.h>

#include "backend/slatedb/names.h"
#include "backend/slatedb/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"

enum slatedb_open_state { OPEN_LISTING, OPEN_MANIFEST, OPEN_CHECKPOINT, OPEN_PARTS, OPEN_REPLAY, OPEN_DONE };

/* Parts being read at once by one opening; the fetcher has the last word. */
#define PART_SLOTS 64u
/* How often the listing is repeated when the manifest that it named is gone, and how many older ones are tried then. */
#define MAX_RELISTS 1u
#define MAX_OLDER 2u
/* A WAL object of at most this many bytes is a fence marker without rows. */
#define FENCE_BYTES 10u

struct part_slot {
    struct slatedb_opening *o;
    bool busy;
    bool is_wal;
    size_t no; /* of the SST or of the WAL object */
    char *key; /* of a WAL object */
    sf_fetch fetch;
};

struct folder_listing {
    struct slatedb_opening *o;
    bool busy;
    char *key;
    sf_store_listing listing;
};

struct slatedb_opening {
    sf_shard_open *op;
    sf_runtime *rt;
    const sf_allocator *alloc;
    enum slatedb_open_state state;
    bool cancelled;
    size_t pending; /* things begun and not yet home */
    sf_slatedb_shard *shard;
    /* LISTING */
    struct folder_listing manifests_list, wal_list, root_list;
    sf_db_object *manifests;
    size_t manifest_count;
    unsigned relists;
    /* MANIFEST, CHECKPOINT */
    size_t manifest_no; /* in `manifests` */
    sf_fetch fetch;
    char *key;
    /* PARTS */
    struct part_slot *slots;
    size_t slot_count;
    uint32_t next_sst;
    sf_db_object *wal;
    size_t wal_count;      /* objects to replay */
    size_t next_wal;
    bool wal_known;
    sf_wal_rows *wal_rows; /* wal_count */
    uint64_t wal_bytes;
    /* REPLAY */
    sf_work work;
    const sf_error *work_error; /* kept */
};

static void open_enter(struct slatedb_opening *o, enum slatedb_open_state next);

/* The first failure counts; what is under way is called back. */
static void fail(struct slatedb_opening *o, const sf_error *e)
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
    for (size_t i = 0; i < o->slot_count; i++)
        if (o->slots[i].busy)
            sf__fetch_cancel(&o->slots[i].fetch);
}

static void fail_nomem(struct slatedb_opening *o, const char *what)
{
    sf_error e;

    sf_fail(&e, SF_NOMEM, "%s: %s", o->op->url ? o->op->url : "", what);
    fail(o, &e);
}

/* Something has come home. True when the operation is over for it: the last one home ends it. */
static bool home(struct slatedb_opening *o)
{
    o->pending--;
    if (!o->op->error)
        return false;
    if (o->pending == 0)
        open_enter(o, OPEN_DONE);
    return true;
}

static void object_error(struct slatedb_opening *o, const char *key, sf_error *e)
{
    char url[sizeof(e->object)];

    sf__store_object_url(o->op->store, key, url, sizeof(url));
    sf_error_prefix(e, e->code, "%s: ", url);
    sf_error_object(e, url);
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

static bool list_start(struct slatedb_opening *o, struct folder_listing *l, sf_db_folder folder,
                       const char *start_after, size_t max_pages, void (*done)(sf_store_listing *))
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
    if (home(o) || o->pending > 0)
        return;
    o->manifest_no = o->manifest_count - 1;
    open_enter(o, OPEN_MANIFEST);
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
        object_error(o, fl->key, &e);
    } else {
        sf_fail(&e, SF_NOT_FOUND, "no SlateDB manifest: the database does not exist");
        object_error(o, o->manifests_list.key, &e);
    }
    fail(o, &e);
    listings_home(o);
}

/* No snapshot manifest tells what its shards are, so a look at what lies there instead makes a better error. */
static void no_database(struct slatedb_opening *o)
{
    if (!list_start(o, &o->root_list, SF_DB_ROOT, NULL, 1, root_listed))
        fail_nomem(o, "listing");
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
        fail(o, l->error);
    else if (!sf__db_objects(l->entries, l->entry_count, fl->key, SF_DB_MANIFEST, o->alloc, &o->manifests,
                             &o->manifest_count))
        fail_nomem(o, "list of manifests");
    else if (o->manifest_count == 0)
        no_database(o);
    listings_home(o);
}

static bool wal_take(struct slatedb_opening *o, const sf_store_listing *l)
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
        fail(o, l->error);
    else if (!wal_take(o, l))
        fail_nomem(o, "list of WAL objects");
    listings_home(o);
}

static void listing_start(struct slatedb_opening *o)
{
    o->pending++; /* this function's own: nothing ends before all have begun */
    if (!list_start(o, &o->manifests_list, SF_DB_MANIFEST, NULL, 0, manifests_listed) ||
        (!o->op->checkpoint && !list_start(o, &o->wal_list, SF_DB_WAL, NULL, 1, wal_first_page)))
        fail_nomem(o, "listing");
    if (!o->op->error)
        o->pending--; /* never 0: two listings are under way */
    else
        home(o);
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
        fail_nomem(o, "name of a manifest");
        home(o);
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
        open_enter(o, OPEN_LISTING);
    } else if (o->manifest_no > 0 && o->manifest_count - o->manifest_no <= MAX_OLDER) {
        o->manifest_no--;
        open_enter(o, OPEN_MANIFEST);
    } else {
        fail(o, e);
        open_enter(o, OPEN_DONE);
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
        fail(o, &e);
    if (home(o))
        return;
    if (!o->op->checkpoint) {
        open_enter(o, OPEN_PARTS);
        return;
    }
    cp = sf__slatedb_manifest_checkpoint(m, o->op->checkpoint);
    if (!cp) {
        sf_fail(&e, SF_INVALID, "checkpoint %.64s is not in this manifest", o->op->checkpoint);
        object_error(o, o->key, &e);
        fail(o, &e);
        open_enter(o, OPEN_DONE);
    } else if (cp->manifest_id == o->manifests[o->manifest_no].id) {
        open_enter(o, OPEN_PARTS);
    } else {
        open_enter(o, OPEN_CHECKPOINT);
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
    object_error(o, o->manifests_list.key, &e);
    fail(o, &e);
    open_enter(o, OPEN_DONE);
}

static void checkpoint_done(sf_fetch *f)
{
    struct slatedb_opening *o = f->ctx;

    if (f->error->code != SF_OK)
        fail(o, f->error);
    if (!home(o))
        open_enter(o, OPEN_PARTS);
}

static void checkpoint_start(struct slatedb_opening *o)
{
    const sf_slatedb_checkpoint *cp = sf__slatedb_manifest_checkpoint(&o->shard->view.manifest, o->op->checkpoint);

    manifest_read(o, cp->manifest_id, 0, checkpoint_done);
}

/* ------------------------------------------------------------------ parts ---------------------------------------- */

static sf_status sst_decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct part_slot *slot = f->ctx;
    struct slatedb_opening *o = slot->o;
    sf_sst *sst = &o->shard->view.ssts[slot->no];
    sf_status rc = sf__sst_meta_decode(sst, sf__buf_bytes(data), f->off, room, o->alloc, err);

    if (rc == SF_OK && f->off == 0)
        rc = sf__sst_blocks_to_cache(sst, sf__buf_bytes(data), 0, room, o->rt->cache, o->alloc, err);
    return rc;
}

static sf_status wal_decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct part_slot *slot = f->ctx;
    struct slatedb_opening *o = slot->o;

    sf__wal_rows_cleanup(&o->wal_rows[slot->no], o->alloc);
    return sf__wal_decode(&o->wal_rows[slot->no], sf__buf_bytes(data), o->shard->view.manifest.last_l0_seq, room,
                          o->alloc, err);
}

static void parts_go(struct slatedb_opening *o);

static void part_done(sf_fetch *f)
{
    struct part_slot *slot = f->ctx;
    struct slatedb_opening *o = slot->o;

    slot->busy = false;
    sf__free(o->alloc, slot->key);
    slot->key = NULL;
    if (slot->is_wal && f->error->code == SF_NOT_FOUND) {
        if (slot->no < o->wal_count)
            o->wal_count = slot->no; /* collected after its rows had reached L0: the replay ends before it */
    } else if (f->error->code != SF_OK) {
        fail(o, f->error);
    } else if (slot->is_wal) {
        o->wal_bytes += o->wal_rows[slot->no].bytes;
        if (o->wal_bytes > SF_LIMIT_WAL_BYTES) {
            sf_error e;

            sf_fail(&e, SF_UNSUPPORTED, "the rows to replay take more than %u bytes", SF_LIMIT_WAL_BYTES);
            object_error(o, o->wal_list.key, &e);
            fail(o, &e);
        }
    }
    if (!home(o))
        parts_go(o);
}

/* False: nothing to begin, or it failed. */
static bool sst_start(struct slatedb_opening *o, struct part_slot *slot)
{
    sf_read_view *v = &o->shard->view;
    sf_error e;

    while (o->next_sst < v->sst_count && !v->ssts[o->next_sst].view->info.has_first_key)
        o->next_sst++; /* no rows */
    if (o->next_sst == v->sst_count)
        return false;
    slot->is_wal = false;
    slot->no = o->next_sst++;
    slot->fetch = (sf_fetch){.key = v->ssts[slot->no].key, .packed = true, .decode = sst_decode};
    if (sf__sst_meta_range(&v->ssts[slot->no], &slot->fetch.off, &slot->fetch.len, &e) == SF_OK)
        return true;
    object_error(o, v->ssts[slot->no].key, &e);
    fail(o, &e);
    return false;
}

static bool wal_start(struct slatedb_opening *o, struct part_slot *slot)
{
    uint64_t size;

    while (o->wal_known && o->next_wal < o->wal_count && o->wal[o->next_wal].size <= FENCE_BYTES)
        o->next_wal++;
    if (!o->wal_known || o->next_wal >= o->wal_count)
        return false;
    slot->is_wal = true;
    slot->no = o->next_wal++;
    size = o->wal[slot->no].size;
    slot->key = sf__db_object_key(o->op->path, SF_DB_WAL, o->wal[slot->no].id, o->alloc);
    slot->fetch = (sf_fetch){.key = slot->key, .len = size, .packed = true, .decode = wal_decode};
    if (!slot->key) {
        fail_nomem(o, "name of a WAL object");
    } else if (size > SF_LIMIT_WAL_BYTES) {
        sf_error e;

        sf_fail(&e, SF_UNSUPPORTED, "a WAL object of %llu bytes, more than %u", (unsigned long long)size,
                SF_LIMIT_WAL_BYTES);
        object_error(o, slot->key, &e);
        fail(o, &e);
        sf__free(o->alloc, slot->key);
        slot->key = NULL;
    }
    return slot->key != NULL;
}

static void slot_start(struct slatedb_opening *o, struct part_slot *slot)
{
    slot->o = o;
    slot->busy = true;
    slot->fetch.store = o->op->store;
    slot->fetch.deadline_ns = o->op->deadline_ns;
    slot->fetch.done = part_done;
    slot->fetch.ctx = slot;
    o->pending++;
    sf__fetch_start(o->rt->fetcher, &slot->fetch);
}

/* Fills free slots; when nothing is left to begin or to wait for, goes on. */
static void parts_go(struct slatedb_opening *o)
{
    for (size_t i = 0; i < o->slot_count && !o->op->error; i++) {
        struct part_slot *slot = &o->slots[i];

        if (slot->busy)
            continue;
        if (!sst_start(o, slot) && (o->op->error || !wal_start(o, slot)))
            break;
        slot_start(o, slot);
    }
    if (o->pending > 0)
        return;
    open_enter(o, o->op->error ? OPEN_DONE : OPEN_REPLAY);
}

/* Of the listed objects, those to replay: consecutive ids behind the ones already in L0. */
static sf_status wal_choose(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;
    size_t from = 0, n = 0;

    while (from < o->wal_count && o->wal[from].id <= m->replay_after_wal_id)
        from++;
    while (from + n < o->wal_count && o->wal[from + n].id == m->replay_after_wal_id + 1 + n &&
           (!o->op->checkpoint || o->wal[from + n].id <= m->wal_id_last_seen))
        n++;
    if (n > SF_LIMIT_WAL_OBJECTS)
        return sf_fail(err, SF_UNSUPPORTED, "%s: %zu WAL objects to replay, more than %u", o->wal_list.key, n,
                       SF_LIMIT_WAL_OBJECTS);
    if (n > 0)
        memmove(o->wal, o->wal + from, n * sizeof(*o->wal));
    o->wal_count = n;
    o->wal_rows = sf__calloc(o->alloc, n + 1, sizeof(*o->wal_rows));
    if (!o->wal_rows)
        return sf_fail(err, SF_NOMEM, "%zu WAL objects", n);
    o->wal_known = true;
    return SF_OK;
}

static void wal_listed(sf_store_listing *l)
{
    struct slatedb_opening *o = ((struct folder_listing *)l->ctx)->o;
    sf_error e = *l->error;

    o->wal_list.busy = false;
    sf__free(o->alloc, o->key); /* where the listing began */
    o->key = NULL;
    if (e.code == SF_OK && !wal_take(o, l))
        sf_fail(&e, SF_NOMEM, "list of WAL objects");
    if (e.code == SF_OK)
        wal_choose(o, &e);
    if (e.code != SF_OK)
        fail(o, &e);
    if (!home(o))
        parts_go(o);
}

/* Whether what is known of wal/ settles which objects to replay. */
static bool wal_settled(const struct slatedb_opening *o)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (m->replay_after_wal_id >= m->wal_id_last_seen && (o->op->checkpoint || !o->wal_list.listing.truncated))
        return true;
    return !o->op->checkpoint && !o->wal_list.listing.truncated && o->wal_count > 0 &&
           o->wal[o->wal_count - 1].id >= m->wal_id_last_seen;
}

static sf_status wal_prepare(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (wal_settled(o))
        return wal_choose(o, err);
    sf__free(o->alloc, o->key);
    o->key = sf__db_object_key(o->op->path, SF_DB_WAL, m->replay_after_wal_id, o->alloc);
    if (!o->key || !list_start(o, &o->wal_list, SF_DB_WAL, o->key, 0, wal_listed))
        return sf_fail(err, SF_NOMEM, "listing of the WAL");
    return SF_OK;
}

static sf_status manifest_check(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (!m->initialized)
        return sf_fail(err, SF_STATE, "the database is not initialized: a clone that was not finished");
    if (m->has_wal_store && !(o->op->checkpoint && m->replay_after_wal_id >= m->wal_id_last_seen))
        return sf_fail(err, SF_UNSUPPORTED, "the database keeps its WAL in a store of its own");
    return SF_OK;
}

static size_t slots_wanted(const struct slatedb_opening *o)
{
    size_t n = o->shard->view.sst_count + (o->wal_known ? o->wal_count : PART_SLOTS);

    return n < PART_SLOTS ? n : PART_SLOTS;
}

static void parts_start(struct slatedb_opening *o)
{
    sf_error e = SF_ERROR_INIT;

    o->pending++; /* this function's own */
    if (manifest_check(o, &e) != SF_OK)
        object_error(o, o->key, &e);
    else if (sf__read_view_ssts(&o->shard->view, o->op->store, o->op->path, o->alloc, &e) == SF_OK)
        wal_prepare(o, &e);
    if (e.code != SF_OK) {
        fail(o, &e);
    } else {
        o->slot_count = slots_wanted(o);
        o->slots = sf__calloc(o->alloc, o->slot_count + 1, sizeof(*o->slots));
        if (!o->slots) {
            o->slot_count = 0;
            fail_nomem(o, "requests");
        }
    }
    if (!home(o))
        parts_go(o);
}

/* ------------------------------------------------------------------ replay --------------------------------------- */

static void replay_run(sf_work *w)
{
    struct slatedb_opening *o = sf_container_of(w, struct slatedb_opening, work);
    const sf_wal_rows **rows = sf__calloc(o->alloc, o->wal_count + 1, sizeof(*rows));
    sf_status rc;
    sf_error e;

    for (size_t i = 0; rows && i < o->wal_count; i++)
        rows[i] = &o->wal_rows[i];
    rc = rows ? sf__memtable_build(&o->shard->view.memtable, rows, o->wal_count, o->alloc, &e)
              : sf_fail(&e, SF_NOMEM, "%zu WAL objects", o->wal_count);
    if (rc != SF_OK)
        o->work_error = sf_error_keep(o->alloc, &e);
    sf__free(o->alloc, rows);
}

static void replay_end(struct slatedb_opening *o)
{
    sf_read_view *v = &o->shard->view;
    sf_error e;
    sf_status rc = sf_error_tell(o->alloc, &o->work_error, &e);

    v->max_seq = v->memtable.max_seq > v->manifest.last_l0_seq ? v->memtable.max_seq : v->manifest.last_l0_seq;
    if (o->cancelled)
        rc = sf_fail(&e, SF_CANCELLED, "cancelled");
    else if (rc != SF_OK && o->wal_list.key)
        object_error(o, o->wal_list.key, &e);
    if (rc != SF_OK)
        fail(o, &e);
    open_enter(o, OPEN_DONE);
}

static void replay_done(sf_work *w)
{
    replay_end(sf_container_of(w, struct slatedb_opening, work));
}

static void replay_start(struct slatedb_opening *o)
{
    size_t rows = 0;

    for (size_t i = 0; i < o->wal_count; i++)
        rows += o->wal_rows[i].count;
    if (rows == 0) {
        replay_end(o);
        return;
    }
    o->work = (sf_work){.run = replay_run, .done = replay_done};
    sf__work_submit(o->rt->loop, SF_WORK_CPU, &o->work);
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void hand_over(struct slatedb_opening *o)
{
    sf_slatedb_shard *s = o->shard;

    s->base.bytes_resident = s->charged = sf__read_view_resident_bytes(&s->view);
    sf__block_cache_charge(o->rt->cache, (int64_t)s->charged);
    o->op->shard = &s->base;
    o->shard = NULL;
}

static void open_finish(struct slatedb_opening *o)
{
    sf_shard_open *op = o->op;
    const sf_allocator *a = o->alloc;

    if (!op->error)
        hand_over(o);
    for (size_t i = 0; o->wal_rows && i < o->next_wal; i++)
        sf__wal_rows_cleanup(&o->wal_rows[i], a);
    sf__free(a, o->wal_rows);
    sf__free(a, o->wal);
    sf__free(a, o->manifests);
    sf__store_listing_cleanup(&o->manifests_list.listing);
    sf__store_listing_cleanup(&o->wal_list.listing);
    sf__store_listing_cleanup(&o->root_list.listing);
    sf__free(a, o->manifests_list.key);
    sf__free(a, o->wal_list.key);
    sf__free(a, o->root_list.key);
    sf__free(a, o->key);
    sf__free(a, o->slots);
    if (o->shard)
        sf__slatedb_shard_free(&o->shard->base);
    sf__free(a, o);
    op->impl = NULL;
    op->done(op);
}

static void open_enter(struct slatedb_opening *o, enum slatedb_open_state next)
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
        parts_start(o); /* ends in parts_go() */
        break;
    case OPEN_REPLAY:
        replay_start(o); /* ends in replay_end() */
        break;
    case OPEN_DONE:
        open_finish(o); /* o is gone: nothing after this line */
        break;
    }
}

static void begin(sf_task *task)
{
    sf_shard_open *op = sf_container_of(task, sf_shard_open, task);
    struct slatedb_opening *o = op->impl;

    if (!o) /* there was no memory for it */
        op->done(op);
    else if (op->error)
        open_enter(o, OPEN_DONE);
    else
        open_enter(o, OPEN_LISTING);
}

/* Through the inbox, so that a failure of the first step does not end inside the call. */
void sf__slatedb_shard_open(sf_shard_open *op)
{
    const sf_allocator *a = op->rt->alloc;
    struct slatedb_opening *o = sf__calloc(a, 1, sizeof(*o));

    op->shard = NULL;
    op->is_sqlite = false;
    op->error = NULL;
    if (o) {
        o->op = op;
        o->rt = op->rt;
        o->alloc = a;
    }
    if (!o || sf__slatedb_shard_new(&o->shard, op, NULL) != SF_OK) {
        sf__shard_open_fail(op, SF_NOMEM, "opening a shard");
        sf__free(a, o);
        o = NULL;
    }
    op->impl = o;
    op->task.run = begin;
    sf__loop_post(op->rt->loop, &op->task);
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
    fail(o, &e);
}
