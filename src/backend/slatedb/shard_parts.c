/* The second half of opening a shard: what its SlateDB manifest names. Filters and indexes of the SSTs, and the WAL objects to
 * replay, all at the same time; then the rows of the WAL in order. */
#include <stdlib.h>

#include "backend/slatedb/opening.h"
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"

/* Parts being read at once by one opening; the fetcher has the last word. */
#define PART_SLOTS 64u
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

/* ------------------------------------------------------------------ parts ---------------------------------------- */

static sf_status sst_decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct part_slot *slot = f->ctx;
    struct slatedb_opening *o = slot->o;
    sf_sst *sst = &o->shard->view.ssts[slot->no];
    sf_status rc = sf__sst_meta_decode(sst, sf__buf_bytes(data), f->off, room, o->alloc, err);

    if (rc == SF_OK && f->off == 0)
        rc = sf__sst_blocks_to_cache(sst, sf__buf_bytes(data), 0, room, o->shard->base.cache, o->alloc, err);
    return rc;
}

static sf_status wal_decode(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct part_slot *slot = f->ctx;
    struct slatedb_opening *o = slot->o;

    sf__wal_rows_cleanup(&o->wal_rows[slot->no], o->alloc);
    return sf__wal_decode(&o->wal_rows[slot->no], sf__buf_bytes(data), o->shard->view.manifest.head->last_l0_seq, room,
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
        sf__opening_fail(o, f->error);
    } else if (slot->is_wal) {
        o->wal_bytes += o->wal_rows[slot->no].bytes;
        if (o->wal_bytes > SF_LIMIT_WAL_BYTES) {
            sf_error e;

            sf_fail(&e, SF_UNSUPPORTED, "the rows to replay take more than %u bytes", SF_LIMIT_WAL_BYTES);
            sf__opening_object_error(o, o->wal_list.key, &e);
            sf__opening_fail(o, &e);
        }
    }
    if (!sf__opening_home(o))
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
    slot->fetch =
        (sf_fetch){.key = v->ssts[slot->no].key, .packed = true, .decode = sst_decode, .disk = v->ssts[slot->no].disk};
    if (sf__sst_meta_range(&v->ssts[slot->no], &slot->fetch.off, &slot->fetch.len, &e) == SF_OK)
        return true;
    sf__opening_object_error(o, v->ssts[slot->no].key, &e);
    sf__opening_fail(o, &e);
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
        sf__opening_fail_nomem(o, "name of a WAL object");
    } else if (size > SF_LIMIT_WAL_BYTES) {
        sf_error e;

        sf_fail(&e, SF_UNSUPPORTED, "a WAL object of %llu bytes, more than %u", (unsigned long long)size,
                SF_LIMIT_WAL_BYTES);
        sf__opening_object_error(o, slot->key, &e);
        sf__opening_fail(o, &e);
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
    sf__opening_enter(o, o->op->error ? OPEN_DONE : OPEN_REPLAY);
}

/* Of the listed objects, those to replay: consecutive ids behind the ones already in L0. */
static sf_status wal_choose(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;
    size_t from = 0, n = 0;

    while (from < o->wal_count && o->wal[from].id <= m->head->replay_after_wal_id)
        from++;
    while (from + n < o->wal_count && o->wal[from + n].id == m->head->replay_after_wal_id + 1 + n &&
           (!o->op->checkpoint || o->wal[from + n].id <= m->head->wal_id_last_seen))
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
    if (e.code == SF_OK && !sf__opening_wal_take(o, l))
        sf_fail(&e, SF_NOMEM, "list of WAL objects");
    if (e.code == SF_OK)
        wal_choose(o, &e);
    if (e.code != SF_OK)
        sf__opening_fail(o, &e);
    if (!sf__opening_home(o))
        parts_go(o);
}

/* Whether what is known of wal/ settles which objects to replay. */
static bool wal_settled(const struct slatedb_opening *o)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (m->head->replay_after_wal_id >= m->head->wal_id_last_seen && (o->op->checkpoint || !o->wal_list.listing.truncated))
        return true;
    return !o->op->checkpoint && !o->wal_list.listing.truncated && o->wal_count > 0 &&
           o->wal[o->wal_count - 1].id >= m->head->wal_id_last_seen;
}

static sf_status wal_prepare(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (wal_settled(o))
        return wal_choose(o, err);
    sf__free(o->alloc, o->key);
    o->key = sf__db_object_key(o->op->path, SF_DB_WAL, m->head->replay_after_wal_id, o->alloc);
    if (!o->key || !sf__opening_list(o, &o->wal_list, SF_DB_WAL, o->key, 0, wal_listed))
        return sf_fail(err, SF_NOMEM, "listing of the WAL");
    return SF_OK;
}

static sf_status manifest_check(struct slatedb_opening *o, sf_error *err)
{
    const sf_slatedb_manifest *m = &o->shard->view.manifest;

    if (!m->head->initialized)
        return sf_fail(err, SF_STATE, "the database is not initialized: a clone that was not finished");
    if (m->head->has_wal_store && !(o->op->checkpoint && m->head->replay_after_wal_id >= m->head->wal_id_last_seen))
        return sf_fail(err, SF_UNSUPPORTED, "the database keeps its WAL in a store of its own");
    return SF_OK;
}

static size_t slots_wanted(const struct slatedb_opening *o)
{
    size_t n = o->shard->view.sst_count + (o->wal_known ? o->wal_count : PART_SLOTS);

    return n < PART_SLOTS ? n : PART_SLOTS;
}

void sf__opening_parts_start(struct slatedb_opening *o)
{
    sf_error e = SF_ERROR_INIT;

    o->pending++; /* this function's own */
    if (manifest_check(o, &e) != SF_OK)
        sf__opening_object_error(o, o->key, &e);
    else if (sf__read_view_ssts(&o->shard->view, o->op->store, o->op->path, o->op->disk, o->alloc, &e) == SF_OK)
        wal_prepare(o, &e);
    if (e.code != SF_OK) {
        sf__opening_fail(o, &e);
    } else {
        o->slot_count = slots_wanted(o);
        o->slots = sf__calloc(o->alloc, o->slot_count + 1, sizeof(*o->slots));
        if (!o->slots) {
            o->slot_count = 0;
            sf__opening_fail_nomem(o, "requests");
        }
    }
    if (!sf__opening_home(o))
        parts_go(o);
}

void sf__opening_parts_cancel(struct slatedb_opening *o)
{
    for (size_t i = 0; i < o->slot_count; i++)
        if (o->slots[i].busy)
            sf__fetch_cancel(&o->slots[i].fetch);
}

void sf__opening_parts_forget(struct slatedb_opening *o)
{
    for (size_t i = 0; o->wal_rows && i < o->next_wal; i++)
        sf__wal_rows_cleanup(&o->wal_rows[i], o->alloc);
    sf__free(o->alloc, o->wal_rows);
    sf__free(o->alloc, o->slots);
    o->wal_rows = NULL;
    o->slots = NULL;
    o->slot_count = o->wal_count = o->next_wal = 0;
    o->next_sst = 0;
    o->wal_known = false;
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

    v->max_seq = v->manifest.head->last_l0_seq;
    if (v->memtable && v->memtable->max_seq > v->max_seq)
        v->max_seq = v->memtable->max_seq;
    if (v->memtable) {
        v->only_count = 0;
        v->only_sst = NULL;
    }
    if (o->cancelled)
        rc = sf_fail(&e, SF_CANCELLED, "cancelled");
    else if (rc != SF_OK && o->wal_list.key)
        sf__opening_object_error(o, o->wal_list.key, &e);
    if (rc != SF_OK)
        sf__opening_fail(o, &e);
    sf__opening_enter(o, OPEN_DONE);
}

static void replay_done(sf_work *w)
{
    replay_end(sf_container_of(w, struct slatedb_opening, work));
}

void sf__opening_replay_start(struct slatedb_opening *o)
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
