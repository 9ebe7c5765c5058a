/* One operation: from the pointer to an opened snapshot; where the source names the manifest, from there. Where pointer and
 * manifests come from, manifest_query.h knows.
 *
 *   POINTER --> MANIFEST --> PARSING --> SHARDS --> DONE      (or LISTING --> MANIFEST --> ... for the manifest of a run)
 *      |           ^  |         |           |         ^
 *      |           |  |         v malformed |         |
 *      |           +--|------ LISTING ------|---------+   every arrow to DONE passes through load_enter(), so done()
 *      +--------------+---------------------+---------+   fires exactly once
 *
 * LISTING happens at a cold start only: older manifests are tried, newest first, until one parses. */
#include "reader/load.h"

#include "base/container.h"
#include "base/error.h"
#include "reader/lazy_shard.h"
#include "reader/manifest_query.h"
#include "reader/shard_open.h"
#include "snapshot/manifest_name.h"

/* Of which one may be asked for by its run. */
#define NEWEST_RUNS 1000u
#define LAZY_AT_ONCE 100u

enum load_step { LOAD_POINTER, LOAD_MANIFEST, LOAD_PARSING, LOAD_LISTING, LOAD_SHARDS, LOAD_DONE };

/* A shard that is being opened. */
struct shard_slot {
    sf_load *load;
    sf_any_shard_open open;
    sf_buf *record;
    bool in_flight;
    struct shard_slot *next_free;
};

struct load_state {
    sf_load *load;
    const sf_allocator *alloc;
    enum load_step step;
    bool cancelled;
    sf_manifest_query query; /* POINTER, MANIFEST, LISTING */
    char *ref;               /* manifest reference as published; what snapshot_info shows */
    sf_work work;            /* PARSING */
    sf_snapshot_manifest *manifest;
    sf_buf *published; /* its bytes, for an opener of the caller's; or NULL */
    sf_error parse_error;
    char **candidates; /* newest first */
    size_t candidate_count, candidate_next;
    bool listed;
    sf_snapshot *snap;                     /* SHARDS: under construction */
    struct shard_slot *slots, *free_slots; /* as many as may be opened at a time */
    size_t slot_count, pending;
    size_t next_row;        /* of the manifest's shards */
    uint32_t to_open;       /* of them */
    sf_freshness freshness; /* of those that the manifest tells more of */
    size_t next_recorded;   /* of them */
    sf_shard_backend backend;
    sf_task more; /* lazy shards: the next of them */
};

static void load_enter(sf_load *l, enum load_step next);

static void fail_load(sf_load *l, const sf_error *e)
{
    l->error = *e;
    load_enter(l, LOAD_DONE);
}

static void fail_nomem(sf_load *l, const char *what)
{
    sf_fail(&l->error, SF_NOMEM, "%s", what);
    load_enter(l, LOAD_DONE);
}

static bool stopped(sf_load *l)
{
    if (!l->state->cancelled)
        return false;
    sf_fail(&l->error, SF_CANCELLED, "cancelled");
    load_enter(l, LOAD_DONE);
    return true;
}

/* The manifest under way cannot be used, because of `e`. False without memory for that; the load has ended then. */
static bool reject(sf_load *l, const sf_error *e)
{
    struct load_state *s = l->state;
    size_t n = l->rejected_count;
    sf_rejected_manifest *grown = sf__realloc(s->alloc, l->rejected, (n + 1) * sizeof(*grown));
    char *ref = sf__strdup(s->alloc, s->ref);

    if (grown)
        l->rejected = grown;
    if (!grown || !ref) {
        sf__free(s->alloc, ref);
        fail_nomem(l, "rejected manifest");
        return false;
    }
    grown[n] = (sf_rejected_manifest){.manifest_ref = ref, .error = *e};
    l->rejected_count = n + 1;
    return true;
}

/* ------------------------------------------------------------------ POINTER -------------------------------------- */

static void manifest_named(sf_load *l)
{
    struct load_state *s = l->state;

    if (!s->ref)
        fail_nomem(l, "manifest reference");
    else if (l->previous && strcmp(l->previous->manifest_ref, s->ref) == 0)
        load_enter(l, LOAD_DONE); /* unchanged */
    else
        load_enter(l, LOAD_MANIFEST);
}

static void pointer_done(sf_manifest_query *q)
{
    sf_load *l = q->ctx;
    struct load_state *s = l->state;

    if (q->error) {
        fail_load(l, q->error);
        return;
    }
    s->ref = q->ref;
    q->ref = NULL;
    manifest_named(l);
}

static void pointer_start(sf_load *l)
{
    struct load_state *s = l->state;

    if (sf__source_run(l->source) && !l->previous) {
        load_enter(l, LOAD_LISTING);
        return;
    }
    if (l->source->manifest_ref) {
        s->ref = sf__strdup(s->alloc, l->previous ? l->previous->manifest_ref : l->source->manifest_ref);
        manifest_named(l);
        return;
    }
    l->state->query.done = pointer_done;
    sf__query_current(&l->state->query);
}

/* ------------------------------------------------------------------ MANIFEST, PARSING ---------------------------- */

static void manifest_parse(sf_work *w)
{
    struct load_state *s = sf_container_of(w, struct load_state, work);

    sf__snapshot_manifest_parse(&s->manifest, sf__buf_bytes(s->query.manifest),
                                s->load->source->legacy_manifests ? SF_MANIFEST_LEGACY : 0, s->alloc, &s->parse_error);
}

static void next_candidate(sf_load *l)
{
    struct load_state *s = l->state;

    while (s->candidate_next < s->candidate_count) {
        const char *ref = s->candidates[s->candidate_next++];

        if (strcmp(ref, l->rejected[0].manifest_ref) == 0)
            continue;
        sf__free(s->alloc, s->ref);
        s->ref = sf__strdup(s->alloc, ref);
        if (!s->ref)
            fail_nomem(l, "manifest reference");
        else
            load_enter(l, LOAD_MANIFEST);
        return;
    }
    /* the first is the one that the pointer names: what is wrong with the others is in sf_call_rejected_manifests() */
    sf_fail(&l->error, SF_NO_SNAPSHOT, "No valid manifest found after fallback: %zu tried below %s; the first, %s: %s",
            s->candidate_count, l->source->site.prefix, l->rejected[0].manifest_ref, l->rejected[0].error.message);
    load_enter(l, LOAD_DONE);
}

static void manifest_malformed(sf_load *l)
{
    struct load_state *s = l->state;

    if (!reject(l, &s->parse_error))
        return;
    if (l->previous) {
        l->malformed = true;
        fail_load(l, &s->parse_error);
    } else if (l->source->max_fallbacks == 0) {
        fail_load(l, &s->parse_error);
    } else if (s->listed) {
        sf__log(&l->source->site.rt->log, SF_LOG_WARN, "reader", "skipped malformed manifest: %s",
                s->parse_error.message);
        next_candidate(l);
    } else {
        sf__log(&l->source->site.rt->log, SF_LOG_ERROR, "reader", "falling back to older manifests: %s",
                s->parse_error.message);
        l->fallback = true;
        load_enter(l, LOAD_LISTING);
    }
}

static void manifest_parsed(sf_work *w)
{
    struct load_state *s = sf_container_of(w, struct load_state, work);
    sf_load *l = s->load;

    sf__buf_release(s->published);
    s->published = l->source->opener ? sf__buf_acquire(s->query.manifest) : NULL;
    sf__buf_release(s->query.manifest);
    s->query.manifest = NULL;
    if (stopped(l))
        return;
    if (s->parse_error.code == SF_OK) {
        load_enter(l, LOAD_SHARDS);
        return;
    }
    sf__query_name_manifest(&s->query, s->ref, &s->parse_error);
    if (s->parse_error.code == SF_BAD_MANIFEST)
        manifest_malformed(l);
    else
        fail_load(l, &s->parse_error);
}

static void manifest_done(sf_manifest_query *q)
{
    sf_load *l = q->ctx;
    struct load_state *s = l->state;
    sf_error e;

    if (!q->error) {
        load_enter(l, LOAD_PARSING);
        return;
    }
    e = *q->error;
    if (q->asked && !e.object[0])
        sf__query_name_manifest(q, s->ref, &e);
    if (q->asked && e.code == SF_BAD_MANIFEST) { /* the source has parsed it already */
        s->parse_error = e;
        manifest_malformed(l);
    } else if (!q->asked || e.code == SF_CANCELLED || reject(l, &e)) {
        fail_load(l, &e);
    }
}

static void manifest_start(sf_load *l)
{
    l->state->query.done = manifest_done;
    sf__query_manifest(&l->state->query, l->state->ref);
}

static void parsing_start(sf_load *l)
{
    struct load_state *s = l->state;

    s->parse_error = (sf_error)SF_ERROR_INIT;
    s->work = (sf_work){.run = manifest_parse, .done = manifest_parsed};
    sf__work_submit(l->source->site.rt->loop, SF_WORK_CPU, &s->work);
}

/* ------------------------------------------------------------------ LISTING -------------------------------------- */

/* The newest one that names the run. */
static void manifest_of_run(sf_load *l, const char *run_id)
{
    struct load_state *s = l->state;
    sf_bytes named;

    for (size_t i = 0; i < s->candidate_count; i++) {
        if (!sf__run_id_from_ref(sf_bytes_str(s->candidates[i]), &named) || !sf_bytes_eq(named, sf_bytes_str(run_id)))
            continue;
        s->ref = sf__strdup(s->alloc, s->candidates[i]);
        manifest_named(l);
        return;
    }
    sf_fail(&l->error, SF_NOT_FOUND, "No manifest found with run_id=%s: it is none of the %zu newest below %s", run_id,
            s->candidate_count, l->source->site.prefix);
    load_enter(l, LOAD_DONE);
}

static void listing_done(sf_manifest_query *q)
{
    sf_load *l = q->ctx;
    struct load_state *s = l->state;

    if (q->error) {
        fail_load(l, q->error);
        return;
    }
    s->listed = true;
    s->candidates = q->refs;
    s->candidate_count = q->ref_count;
    q->refs = NULL;
    q->ref_count = 0;
    if (sf__source_run(l->source))
        manifest_of_run(l, sf__source_run(l->source));
    else
        next_candidate(l);
}

static void listing_start(sf_load *l)
{
    l->state->query.done = listing_done;
    sf__query_list(&l->state->query, sf__source_run(l->source) ? NEWEST_RUNS : (size_t)l->source->max_fallbacks + 1);
}

/* ------------------------------------------------------------------ SHARDS --------------------------------------- */

/* The caller's opener says that this manifest is of no use: as if it did not parse. */
static void shards_refuse_manifest(sf_load *l)
{
    struct load_state *s = l->state;

    s->parse_error = l->error;
    l->error = (sf_error)SF_ERROR_INIT;
    sf__snapshot_release(s->snap);
    s->snap = NULL;
    sf__free(s->alloc, s->slots);
    s->slots = s->free_slots = NULL;
    s->slot_count = s->next_row = 0;
    s->to_open = 0;
    manifest_malformed(l);
}

static void shards_home(sf_load *l)
{
    struct load_state *s = l->state;

    if (--s->pending > 0)
        return;
    if (l->error.code == SF_BAD_MANIFEST && l->source->opener && !s->cancelled) {
        shards_refuse_manifest(l);
        return;
    }
    if (l->error.code == SF_OK) {
        sf__snapshot_settle(s->snap);
        l->snapshot = s->snap;
        s->snap = NULL;
    }
    load_enter(l, LOAD_DONE);
}

static void shards_cancel(struct load_state *s)
{
    sf__freshness_cancel(&s->freshness);
    for (size_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].in_flight)
            sf__any_shard_open_cancel(&s->slots[i].open); /* its shard_opened() comes later */
}

/* The first failure is the outcome; the other shards are not waited for longer than their cancelling takes. */
static void shards_fail(sf_load *l, const sf_error *e, int32_t db_id)
{
    struct load_state *s = l->state;

    if (l->error.code != SF_OK)
        return;
    l->error = *e;
    if (l->error.db_id < 0)
        l->error.db_id = db_id; /* -1: it is the options' fault, not the shard's */
    shards_cancel(s);
}

/* A shard of the snapshot in use whose location and build are the same needs no new opening. */
static sf_shard *unchanged_shard(const sf_snapshot *previous, const sf_manifest_shard *row)
{
    const sf_manifest_shard *old;

    if (!previous || row->db_id >= previous->num_dbs)
        return NULL;
    old = sf__snapshot_row(previous, row->db_id);
    if (!old || !old->db_url || strcmp(old->db_url, row->db_url) != 0 || !old->checkpoint_id || !row->checkpoint_id ||
        strcmp(old->checkpoint_id, row->checkpoint_id) != 0)
        return NULL;
    return previous->shards[row->db_id];
}

static void shards_more(sf_load *l);

static void slot_free(struct load_state *s, struct shard_slot *slot)
{
    sf__shard_open_cleanup(&slot->open, s->alloc);
    sf__buf_release(slot->record);
    slot->record = NULL;
    slot->in_flight = false;
    slot->next_free = s->free_slots;
    s->free_slots = slot;
}

static void shard_opened(sf_shard_open *op)
{
    struct shard_slot *slot = op->ctx;
    sf_load *l = slot->load;
    sf_error e = SF_ERROR_INIT;

    if (op->error) {
        shards_fail(l, op->error, op->db_id);
    } else if (sf__source_check_can_stay(l->source, op->shard, &e) != SF_OK) {
        sf__shard_release(op->shard);
        shards_fail(l, &e, -1);
    } else {
        l->state->snap->shards[op->db_id] = op->shard;
    }
    sf_error_drop(l->state->alloc, op->error);
    slot_free(l->state, slot);
    shards_more(l);
    shards_home(l);
}

/* Without memory it opens the long way. */
static sf_buf *record_of(const struct load_state *s, const sf_manifest_shard *row)
{
    return (s->backend.slatedb || s->backend.sqlite) && !s->load->source->opener
               ? sf__manifest_shard_record(row, s->alloc)
               : NULL;
}

/* They are in the order of the rows. */
static sf_recorded_shard *recorded_of(struct load_state *s, const sf_manifest_shard *row)
{
    sf_freshness *f = &s->freshness;

    while (s->next_recorded < f->count && f->shards[s->next_recorded].db_id < row->db_id)
        s->next_recorded++;
    return s->next_recorded < f->count && f->shards[s->next_recorded].db_id == row->db_id ? &f->shards[s->next_recorded]
                                                                                          : NULL;
}

static sf_status shard_start(sf_load *l, const sf_manifest_shard *row, sf_error *err)
{
    struct load_state *s = l->state;
    const sf_snapshot_manifest *m = s->snap->manifest;
    struct shard_slot *slot = s->free_slots;
    sf_shard_site site = {
        .name = row->db_url,
        .db_id = (int32_t)row->db_id,
        .backend = s->backend,
        .checkpoint = row->checkpoint_id,
        .manifest_ref = s->snap->manifest_ref,
        .manifest = s->published,
        .together = s->to_open,
    };
    char *location;
    sf_status rc = sf__shard_location(&location, l->source, m, row, err);

    if (rc != SF_OK)
        return rc;
    site.location = location;
    site.record = record_of(s, row);
    if (l->source->lazy_shards) {
        rc = sf__lazy_shard_new(&s->snap->shards[row->db_id], l->source, &site, err);
        sf__buf_release(site.record);
        sf__free(s->alloc, location);
        return rc;
    }
    s->free_slots = slot->next_free;
    slot->load = l;
    slot->record = site.record;
    rc = sf__shard_open_at(&slot->open, l->source, &site, site.record ? recorded_of(s, row) : NULL, l->deadline_ns,
                           l->call_ctx, false, shard_opened, slot, err);
    sf__free(s->alloc, location);
    if (rc == SF_OK) {
        slot->in_flight = true;
        s->pending++;
    } else {
        slot_free(s, slot);
    }
    return rc;
}

static void shards_go_on(sf_task *task)
{
    sf_load *l = sf_container_of(task, struct load_state, more)->load;

    shards_more(l);
    shards_home(l);
}

/* As many as there is room for. Of lazy ones there may be a hundred thousand: the loop thread does other things in between. */
static void shards_more(sf_load *l)
{
    struct load_state *s = l->state;
    const sf_snapshot_manifest *m = s->snap->manifest;
    size_t end = l->source->lazy_shards ? s->next_row + LAZY_AT_ONCE : SIZE_MAX;
    sf_error e = SF_ERROR_INIT;

    while (s->free_slots && s->next_row < m->shard_count && s->next_row < end && l->error.code == SF_OK) {
        const sf_manifest_shard *row = &m->shards[s->next_row++];
        sf_shard *same;

        if (s->cancelled) {
            sf_fail(&l->error, SF_CANCELLED, "cancelled");
            return;
        }
        if (!row->db_url)
            continue;
        same = unchanged_shard(l->previous, row);
        if (same)
            s->snap->shards[row->db_id] = sf__shard_acquire(same);
        else if (shard_start(l, row, &e) != SF_OK)
            shards_fail(l, &e, (int32_t)row->db_id);
    }
    if (l->error.code == SF_OK && s->next_row == end && end < m->shard_count) {
        s->pending++;
        s->more.run = shards_go_on;
        sf__loop_post(l->source->site.rt->loop, &s->more); /* ends in shards_go_on() */
    }
}

static void freshness_done(sf_freshness *f)
{
    shards_home(f->ctx);
}

/* What cannot be placed, fails when it is opened. */
static void freshness_add(sf_load *l, const sf_manifest_shard *row)
{
    struct load_state *s = l->state;
    sf_store *store = NULL;
    char *location = NULL, *path = NULL;
    sf_buf *record = sf__manifest_shard_record(row, s->alloc);
    sf_error ignored;

    if (record && sf__shard_location(&location, l->source, s->snap->manifest, row, &ignored) == SF_OK &&
        sf__shard_place(&store, &path, l->source, location, &ignored) == SF_OK)
        (void)sf__freshness_add(&s->freshness, store, path, row->db_id, sf__buf_bytes(record));
    sf__buf_release(record);
    sf__free(s->alloc, path);
    sf__free(s->alloc, location);
}

/* Ahead of the openings, so that its requests go out with theirs. */
static void freshness_start(sf_load *l)
{
    struct load_state *s = l->state;
    const sf_snapshot_manifest *m = s->snap->manifest;
    size_t told = 0;

    s->freshness =
        (sf_freshness){.rt = l->source->site.rt, .deadline_ns = l->deadline_ns, .done = freshness_done, .ctx = l};
    if ((!s->backend.slatedb && !s->backend.sqlite) || l->source->opener || l->source->lazy_shards)
        return;
    for (size_t i = 0; i < m->shard_count; i++)
        told += m->shards[i].opening_len > 0;
    if (told == 0 || !sf__freshness_init(&s->freshness, told))
        return;
    for (size_t i = 0; i < m->shard_count; i++)
        if (m->shards[i].opening_len > 0 && m->shards[i].db_url && !unchanged_shard(l->previous, &m->shards[i]))
            freshness_add(l, &m->shards[i]);
    if (sf__freshness_start(&s->freshness))
        s->pending++;
}

static void shards_start(sf_load *l)
{
    struct load_state *s = l->state;
    const sf_snapshot_manifest *m = s->manifest;
    uint32_t together = l->source->open_concurrency;
    sf_error e = SF_ERROR_INIT;

    s->backend = sf__manifest_backend(l->source, m);
    if (sf__snapshot_manifest_check_readable(m, !l->source->opener, &e) == SF_OK && !l->source->lazy_shards)
        e.code = sf__source_check_backend(l->source, s->backend, &e);
    if (e.code != SF_OK ||
        sf__snapshot_new(&s->snap, l->source->site.rt, s->manifest, s->ref, l->source->lazy_shards, &e) != SF_OK) {
        fail_load(l, &e);
        return;
    }
    s->manifest = NULL; /* the snapshot's now */
    s->slot_count = m->shard_count < together ? m->shard_count : together;
    s->slots = sf__calloc(s->alloc, s->slot_count + 1, sizeof(*s->slots));
    if (!s->slots) {
        fail_nomem(l, "shards");
        return;
    }
    for (size_t i = s->slot_count; i-- > 0;)
        slot_free(s, &s->slots[i]);
    for (size_t i = 0; i < m->shard_count; i++)
        s->to_open += m->shards[i].db_url && !unchanged_shard(l->previous, &m->shards[i]);
    s->pending = 1;
    freshness_start(l);
    shards_more(l);
    shards_home(l);
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void load_finish(sf_load *l)
{
    struct load_state *s = l->state;
    const sf_allocator *a = s->alloc;

    l->state = NULL;
    sf__buf_release(s->published);
    sf__query_cleanup(&s->query);
    sf__freshness_cleanup(&s->freshness);
    sf__snapshot_manifest_free(s->manifest);
    for (size_t i = 0; i < s->candidate_count; i++)
        sf__free(a, s->candidates[i]);
    sf__free(a, s->candidates);
    sf__snapshot_release(s->snap);
    sf__free(a, s->slots);
    sf__free(a, s->ref);
    sf__free(a, s);
    l->done(l);
}

static void load_enter(sf_load *l, enum load_step next)
{
    l->state->step = next;
    switch (next) {
    case LOAD_POINTER:
        pointer_start(l); /* ends in pointer_done() */
        break;
    case LOAD_MANIFEST:
        manifest_start(l); /* ends in manifest_done() */
        break;
    case LOAD_PARSING:
        parsing_start(l); /* ends in manifest_parsed() */
        break;
    case LOAD_LISTING:
        listing_start(l); /* ends in listing_done() */
        break;
    case LOAD_SHARDS:
        shards_start(l); /* ends in shard_opened() */
        break;
    case LOAD_DONE:
        load_finish(l); /* l may be gone: nothing after this line */
        break;
    }
}

bool sf__load_start(sf_load *l)
{
    struct load_state *s = sf__calloc(l->source->alloc, 1, sizeof(*s));

    l->error = (sf_error)SF_ERROR_INIT;
    if (!s)
        return false;
    s->load = l;
    s->alloc = l->source->alloc;
    s->query = (sf_manifest_query){.source = l->source, .deadline_ns = l->deadline_ns, .call_ctx = l->call_ctx, .ctx = l};
    l->state = s;
    load_enter(l, LOAD_POINTER);
    return true;
}

void sf__load_cancel(sf_load *l)
{
    struct load_state *s = l->state;

    if (!s)
        return;
    s->cancelled = true;
    if (s->query.running)
        sf__query_cancel(&s->query);
    else
        shards_cancel(s);
}

void sf__load_cleanup(sf_load *l, const sf_allocator *a)
{
    for (size_t i = 0; i < l->rejected_count; i++)
        sf__free(a, (char *)l->rejected[i].manifest_ref);
    sf__free(a, l->rejected);
    l->rejected = NULL;
    l->rejected_count = 0;
}
