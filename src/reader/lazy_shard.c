#include "reader/lazy_shard.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* A look-up or a scan that waits for the opening. Loop thread. */
struct waiter {
    struct waiter *next, *prev;
    void *call_ctx;
    uint64_t opening;                                                     /* which it waits for */
    void (*opened)(struct waiter *w, sf_shard *shard, const sf_error *e); /* shard NULL: e says why */
};

/* With a record two things are under way, which come home in any order. */
struct lazy_opening {
    struct lazy *lazy;
    sf_any_shard_open open;
    sf_freshness freshness;
    unsigned pending;
};

struct lazy {
    sf_shard base; /* first */
    /* set at creation */
    sf_source *source;          /* acquired */
    sf_shard_site site;         /* its texts are ours; of the name, and most often of the location, the base's */
    _Atomic(sf_shard *) opened; /* NULL until it is; then for good */
    /* loop thread */
    struct lazy_opening *opening; /* NULL: none is under way */
    uint64_t openings;            /* begun */
    bool freed;                   /* while opening */
    struct waiter *first, *last;
    struct waiter *asker; /* for whom it is being opened; NULL: he has left */
};

static sf_shard *inner_of(const sf_shard *base)
{
    return atomic_load_explicit(&sf_container_of(base, struct lazy, base)->opened, memory_order_acquire);
}

static const sf_allocator *alloc_of(const struct lazy *l)
{
    return l->base.rt->alloc;
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

static void waiter_add(struct lazy *l, struct waiter *w)
{
    w->next = NULL;
    w->opening = l->openings;
    w->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = w;
    l->last = w;
}

static void waiter_remove(struct lazy *l, struct waiter *w)
{
    *(w->prev ? &w->prev->next : &l->first) = w->next;
    *(w->next ? &w->next->prev : &l->last) = w->prev;
    if (l->asker == w)
        l->asker = NULL;
}

/* Those who wait for that opening, the first in the line. Completions may remove others of them, and add some that wait for
 * another opening: the line is read anew each time, and who is told is told by number. */
static void tell_waiters(struct lazy *l, uint64_t opening, sf_shard *shard, const sf_error *e)
{
    while (l->first && l->first->opening == opening) {
        struct waiter *w = l->first;

        waiter_remove(l, w);
        w->opened(w, shard, e);
    }
}

static void opening_free(struct lazy_opening *o)
{
    const sf_allocator *a = alloc_of(o->lazy);

    sf__shard_open_cleanup(&o->open, a);
    sf__freshness_cleanup(&o->freshness);
    sf__free(a, o);
}

static void lazy_free(sf_shard *base);
static sf_status open_for(struct lazy *l, struct waiter *w, sf_error *err);

static void opening_home(struct lazy_opening *o)
{
    struct lazy *l = o->lazy;
    bool left = !l->asker;
    sf_error e = SF_ERROR_INIT;

    if (--o->pending > 0)
        return;
    if (sf_error_tell(alloc_of(l), &o->open.op.error, &e) == SF_OK)
        atomic_store_explicit(&l->opened, o->open.op.shard, memory_order_release);
    opening_free(o);
    l->opening = NULL;
    if (l->freed) {
        lazy_free(&l->base);
        return;
    }
    /* a caller's opener may have lost whoever it was asked for */
    if (e.code == SF_CANCELLED && left && l->first && open_for(l, l->first, &e) == SF_OK) {
        for (struct waiter *w = l->first; w; w = w->next)
            w->opening = l->openings;
        return;
    }
    if (e.code != SF_OK) { /* this is an answer to a read: say that it got no further than opening */
        sf_error_prefix(&e, e.code, "Failed to open %s at '%s': ",
                        l->source->opener        ? "shard"
                        : l->site.backend.sqlite ? "SQLite shard"
                                                 : "SlateDB",
                        l->site.location);
        e.db_id = l->base.db_id;
    }
    tell_waiters(l, l->openings, inner_of(&l->base), &e);
}

static void shard_opened(sf_shard_open *op)
{
    struct lazy_opening *o = op->ctx;

    if (o->pending > 1) /* it went the long way: nobody needs a verdict any more */
        sf__freshness_cancel(&o->freshness);
    opening_home(o);
}

static void freshness_done(sf_freshness *f)
{
    opening_home(f->ctx);
}

/* NULL: there is no record to go by. */
static sf_recorded_shard *recorded_of(struct lazy_opening *o, sf_error *err)
{
    struct lazy *l = o->lazy;
    sf_recorded_shard *r = NULL;
    sf_store *store;
    char *path;

    if (!l->site.record || sf__shard_place(&store, &path, l->source, l->site.location, err) != SF_OK)
        return NULL; /* what cannot be placed, cannot be opened */
    if (sf__freshness_init(&o->freshness, 1))
        r = sf__freshness_add(&o->freshness, store, path, (uint32_t)l->site.db_id, sf__buf_bytes(l->site.record));
    sf__free(alloc_of(l), path);
    return r;
}

static sf_status open_for(struct lazy *l, struct waiter *w, sf_error *err)
{
    struct lazy_opening *o = sf__calloc(alloc_of(l), 1, sizeof(*o));
    uint64_t deadline_ns = sf__deadline_in_ms(l->source->open_timeout_ms);
    sf_status rc;

    if (!o)
        return sf_fail(err, SF_NOMEM, "opening a shard");
    o->lazy = l;
    o->pending = 1;
    o->freshness = (sf_freshness){.rt = l->base.rt, .deadline_ns = deadline_ns, .done = freshness_done, .ctx = o};
    rc = sf__shard_open_at(&o->open, l->source, &l->site, recorded_of(o, err), deadline_ns, w->call_ctx, true,
                           shard_opened, o, err);
    if (rc != SF_OK) {
        opening_free(o);
        return rc;
    }
    o->pending += sf__freshness_start(&o->freshness);
    l->opening = o;
    l->openings++;
    l->asker = w;
    return SF_OK;
}

/* SF_OK: under way, and the waiter is in the line. */
static sf_status wait_for(struct lazy *l, struct waiter *w, void *call_ctx, sf_error *err)
{
    sf_status rc;

    w->call_ctx = call_ctx;
    rc = l->opening ? SF_OK : open_for(l, w, err);
    if (rc == SF_OK)
        waiter_add(l, w);
    return rc;
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

struct waiting_get {
    struct waiter waiter; /* first */
    struct lazy *lazy;
    sf_shard_get_many *op;
    sf_timer timer;
};

static sf_status lazy_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    sf_shard *shard = inner_of(base);

    if (shard)
        return shard->vtable->try_get(shard, key, out, place, err);
    if (place)
        *place = (sf_shard_place){0};
    return SF_WOULD_BLOCK;
}

static sf_shard_get_many *get_leave(struct waiting_get *g)
{
    sf_shard_get_many *op = g->op;

    sf__timer_stop(g->lazy->base.rt->loop, &g->timer);
    sf__free(alloc_of(g->lazy), g);
    return op;
}

static void get_opened(struct waiter *w, sf_shard *shard, const sf_error *e)
{
    struct lazy *l = sf_container_of(w, struct waiting_get, waiter)->lazy;
    sf_shard_get_many *op = get_leave(sf_container_of(w, struct waiting_get, waiter));

    if (shard) {
        shard->vtable->get_many(shard, op);
        return;
    }
    sf__shard_get_failed(&l->base, op, e);
    op->done(op);
}

static void get_late(sf_timer *timer)
{
    struct waiting_get *g = sf_container_of(timer, struct waiting_get, timer);
    struct lazy *l = g->lazy;
    sf_shard_get_many *op;
    sf_error e = SF_ERROR_INIT;

    sf_fail(&e, SF_TIMEOUT, "%s: the deadline passed while the shard was being opened", l->base.url);
    e.db_id = l->base.db_id;
    waiter_remove(l, &g->waiter);
    op = get_leave(g);
    sf__shard_get_failed(&l->base, op, &e);
    op->done(op);
}

static void lazy_get_many(sf_shard *base, sf_shard_get_many *op)
{
    struct lazy *l = sf_container_of(base, struct lazy, base);
    sf_shard *shard = inner_of(base);
    struct waiting_get *g;
    sf_error e = SF_ERROR_INIT;

    if (shard) {
        shard->vtable->get_many(shard, op);
        return;
    }
    g = sf__calloc(alloc_of(l), 1, sizeof(*g));
    if (!g) {
        sf_fail(&e, SF_NOMEM, "look-up of %zu keys", op->count);
    } else {
        *g = (struct waiting_get){.waiter.opened = get_opened, .lazy = l, .op = op, .timer.fire = get_late};
        if (wait_for(l, &g->waiter, op->call_ctx, &e) == SF_OK) {
            op->impl = g;
            sf__timer_start(base->rt->loop, &g->timer, op->deadline_ns);
            return;
        }
        sf__free(alloc_of(l), g);
    }
    sf__shard_get_fail_later(base, op, &e);
}

static void lazy_get_many_cancel(sf_shard *base, sf_shard_get_many *op)
{
    struct lazy *l = sf_container_of(base, struct lazy, base);
    sf_shard *shard = inner_of(base);
    sf_error e = SF_ERROR_INIT;

    for (struct waiter *w = l->first; w; w = w->next)
        if (w->opened == get_opened && sf_container_of(w, struct waiting_get, waiter)->op == op) {
            sf_fail(&e, SF_CANCELLED, "cancelled");
            waiter_remove(l, w);
            sf__shard_get_fail_later(base, get_leave(sf_container_of(w, struct waiting_get, waiter)), &e);
            return;
        }
    if (shard && op->impl) /* else its completion is in the inbox */
        shard->vtable->get_many_cancel(shard, op);
}

/* ------------------------------------------------------------------ scans ---------------------------------------- */

struct lazy_scan {
    sf_shard_scan base; /* first; of the lazy shard */
    struct waiter waiter;
    bool waiting;
    sf_scan_fill *fill;
    sf_scan_range range; /* lies in `bounds` */
    uint8_t *bounds;
    uint64_t buffer_bytes;
    sf_shard_scan *inner;   /* NULL until the shard is opened */
    const sf_error *failed; /* why it is not, until that is told; or NULL */
};

static void scan_begin(struct lazy_scan *s, sf_shard *shard, const sf_error *e)
{
    sf_error own = SF_ERROR_INIT;

    if (shard && shard->vtable->scan_open(shard, &s->range, s->buffer_bytes, &s->inner, &own) != SF_OK) {
        s->inner = NULL;
        e = &own;
    }
    if (!s->inner)
        s->failed = sf_error_keep(alloc_of(sf_container_of(s->base.shard, struct lazy, base)), e);
}

static void scan_opened(struct waiter *w, sf_shard *shard, const sf_error *e)
{
    struct lazy_scan *s = sf_container_of(w, struct lazy_scan, waiter);
    sf_scan_fill *fill = s->fill;

    s->waiting = false;
    scan_begin(s, shard, e);
    fill->done(fill); /* the scan may be gone: nothing after this line */
}

static sf_status lazy_scan_next(sf_shard_scan *base, sf_error *err)
{
    struct lazy_scan *s = sf_container_of(base, struct lazy_scan, base);
    sf_status rc;

    if (s->failed) {
        base->at = SF_SCAN_BETWEEN_ROWS;
        return sf_error_tell(base->shard->rt->alloc, &s->failed, err);
    }
    if (!s->inner) {
        base->at = SF_SCAN_NEEDS_FILL;
        return SF_OK;
    }
    rc = s->inner->shard->vtable->scan_next(s->inner, err);
    base->at = s->inner->at;
    base->rows = s->inner->rows;
    base->count = s->inner->count;
    base->owner = s->inner->owner;
    return rc;
}

static bool lazy_scan_fill(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct lazy_scan *s = sf_container_of(base, struct lazy_scan, base);
    struct lazy *l = sf_container_of(base->shard, struct lazy, base);
    sf_shard *shard = inner_of(base->shard);
    sf_error e; /* filled by failures only */

    if (s->inner)
        return s->inner->shard->vtable->scan_fill(s->inner, fill);
    if (shard) {
        scan_begin(s, shard, NULL);
        return false;
    }
    s->waiter = (struct waiter){.opened = scan_opened};
    s->waiting = wait_for(l, &s->waiter, fill->call_ctx, &e) == SF_OK;
    if (!s->waiting)
        s->failed = sf_error_keep(alloc_of(l), &e);
    s->fill = fill;
    return s->waiting;
}

static bool lazy_scan_fill_cancel(sf_shard_scan *base, sf_scan_fill *fill)
{
    struct lazy_scan *s = sf_container_of(base, struct lazy_scan, base);

    if (!s->waiting)
        return s->inner->shard->vtable->scan_fill_cancel(s->inner, fill);
    waiter_remove(sf_container_of(base->shard, struct lazy, base), &s->waiter);
    s->waiting = false;
    return true;
}

static void lazy_scan_free(sf_shard_scan *base)
{
    struct lazy_scan *s = sf_container_of(base, struct lazy_scan, base);
    sf_shard *shard = base->shard;
    const sf_allocator *a = shard->rt->alloc;

    if (s->inner)
        s->inner->shard->vtable->scan_free(s->inner);
    sf__free(a, s->bounds);
    sf_error_drop(a, s->failed);
    sf__free(a, s);
    sf__shard_release(shard);
}

static sf_status lazy_scan_open(sf_shard *base, const sf_scan_range *range, uint64_t buffer_bytes, sf_shard_scan **out,
                                sf_error *err)
{
    const sf_allocator *a = base->rt->alloc;
    sf_shard *shard = inner_of(base);
    struct lazy_scan *s;

    if (shard)
        return shard->vtable->scan_open(shard, range, buffer_bytes, out, err);
    s = sf__calloc(a, 1, sizeof(*s));
    if (s)
        s->bounds = sf__scan_range_copy(&s->range, range, a);
    if (!s || !s->bounds) {
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "scan");
    }
    s->buffer_bytes = buffer_bytes;
    s->base = (sf_shard_scan){.shard = sf__shard_acquire(base), .at = SF_SCAN_BETWEEN_ROWS};
    *out = &s->base;
    return SF_OK;
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static void site_cleanup(struct lazy *l)
{
    const sf_allocator *a = alloc_of(l);

    if (l->site.location != l->base.url)
        sf__free(a, (char *)l->site.location);
    sf__free(a, (char *)l->site.checkpoint);
    sf__free(a, (char *)l->site.manifest_ref);
    sf__buf_release(l->site.manifest);
    sf__buf_release(l->site.record);
}

static bool text_copy(const char **to, const char *from, const sf_allocator *a)
{
    *to = from ? sf__strdup(a, from) : NULL;
    return !*to == !from;
}

/* There may be a hundred thousand of them: each text once, and those for openers of the caller's for these only. False without memory;
 * to be cleaned up in any case. */
static bool site_copy(struct lazy *l, const sf_shard_site *from, bool foreign)
{
    const sf_allocator *a = alloc_of(l);
    sf_shard_site *to = &l->site;

    *to = (sf_shard_site){
        .name = l->base.url,
        .db_id = from->db_id,
        .backend = from->backend,
        .record = from->record ? sf__buf_acquire(from->record) : NULL,
    };
    if (foreign && from->manifest)
        to->manifest = sf__buf_acquire(from->manifest);
    if (foreign &&
        (!text_copy(&to->checkpoint, from->checkpoint, a) || !text_copy(&to->manifest_ref, from->manifest_ref, a)))
        return false;
    if (strcmp(from->location, l->base.url) == 0) {
        to->location = l->base.url;
        return true;
    }
    return text_copy(&to->location, from->location, a);
}

/* An opening goes on when nobody waits for it any more, for the next one to read; without a snapshot there is no next one. */
static void lazy_free(sf_shard *base)
{
    struct lazy *l = sf_container_of(base, struct lazy, base);

    if (l->opening) {
        l->freed = true;
        sf__any_shard_open_cancel(&l->opening->open); /* ends in opening_home() */
        sf__freshness_cancel(&l->opening->freshness);
        return;
    }
    sf__shard_release(inner_of(base));
    site_cleanup(l);
    sf__source_release(l->source);
    sf__shard_destroy(base);
}

/* Whoever gives the last snapshot back closes the shard, where its opener closes it at once. */
static void lazy_gone(sf_shard *base)
{
    sf__shard_release(atomic_exchange(&sf_container_of(base, struct lazy, base)->opened, NULL));
}

static void *lazy_foreign(const sf_shard *base)
{
    const sf_shard *shard = inner_of(base);

    return shard && shard->vtable->foreign ? shard->vtable->foreign(shard) : NULL;
}

/* Who checks has opened it. */
static sf_status lazy_check(sf_shard *base, struct sf_shard_check *check, sf_error *err)
{
    sf_shard *shard = inner_of(base);

    return shard && shard->vtable->check ? shard->vtable->check(shard, check, err) : SF_OK;
}

static void lazy_explain(sf_shard *base, sf_bytes key, sf_look_fn look, void *ctx)
{
    sf_shard *shard = inner_of(base);

    if (shard && shard->vtable->explain)
        shard->vtable->explain(shard, key, look, ctx);
}

static void lazy_hot_keys(sf_shard *base, sf_hot_key_fn add, void *ctx)
{
    sf_shard *shard = inner_of(base);

    if (shard && shard->vtable->hot_keys)
        shard->vtable->hot_keys(shard, add, ctx);
}

static bool lazy_is_sqlite(const sf_shard *base, const char **file)
{
    const sf_shard *shard = inner_of(base);

    return shard && shard->vtable->is_sqlite && shard->vtable->is_sqlite(shard, file);
}

static const sf_shard_vtable vtable = {
    .inner = inner_of,
    .try_get = lazy_try_get,
    .get_many = lazy_get_many,
    .get_many_cancel = lazy_get_many_cancel,
    .scan_open = lazy_scan_open,
    .scan_next = lazy_scan_next,
    .scan_fill = lazy_scan_fill,
    .scan_fill_cancel = lazy_scan_fill_cancel,
    .scan_free = lazy_scan_free,
    .check = lazy_check,
    .explain = lazy_explain,
    .hot_keys = lazy_hot_keys,
    .is_sqlite = lazy_is_sqlite,
    .gone = lazy_gone,
    .foreign = lazy_foreign,
    .free = lazy_free,
};

sf_status sf__lazy_shard_new(sf_shard **out, sf_source *source, const sf_shard_site *site, sf_error *err)
{
    const sf_shard_open op = {.rt = source->site.rt, .url = site->name, .db_id = site->db_id};
    struct lazy *l = sf__calloc(source->alloc, 1, sizeof(*l));

    if (!l || !sf__shard_init(&l->base, &vtable, &op)) {
        sf__free(source->alloc, l);
        return sf_fail(err, SF_NOMEM, "shard");
    }
    if (!site_copy(l, site, source->opener != NULL)) {
        site_cleanup(l);
        sf__shard_destroy(&l->base);
        return sf_fail(err, SF_NOMEM, "shard");
    }
    l->source = sf__source_acquire(source);
    atomic_init(&l->opened, NULL);
    *out = &l->base;
    return SF_OK;
}
