/* Refresh: build the next snapshot completely, swap the pointer, drop the old one. One at a time a reader; the others
 * wait their turn (their deadline covers the waiting).
 *
 *   QUEUED --> LOADING --> WARMING, if asked for --> done        (a cancelled or late one in the queue completes without loading) */
#include "base/container.h"
#include "base/error.h"
#include "reader/load.h"
#include "reader/reader.h"
#include "reader/warming.h"
#include "runtime/call.h"

#include <stdio.h>

struct refresh_call {
    sf_call call;
    sf_reader *reader;     /* acquired */
    sf_snapshot *previous; /* acquired while loading */
    struct refresh_call *next;
    bool loading, warms;
    bool cancelled;
    sf_timer timer; /* deadline while queued */
    uint64_t since_ns;
    sf_load load;
    sf_warming warming;
    bool changed; /* result */
};

static void refresh_run(struct refresh_call *f);

static void note_failure(sf_reader *r, const sf_error *e)
{
    sf_mutex_lock(&r->swap);
    snprintf(r->last_refresh_error, sizeof(r->last_refresh_error), "%s: %.230s", sf_status_name(e->code), e->message);
    if (e->code != SF_CANCELLED && r->refresh_failures < UINT32_MAX)
        r->refresh_failures++;
    sf_mutex_unlock(&r->swap);
}

/* Takes `f` out of the queue, completes it, and lets the next one run. However it failed, cancelled and late ones too, it
 * leaves a trace: nobody knows then whether what is served is what the pointer names. */
static void refresh_end(struct refresh_call *f)
{
    sf_reader *r = f->reader;
    bool was_head = r->refresh_head == f;
    struct refresh_call **link = &r->refresh_head, *last = NULL;

    sf__timer_stop(f->call.rt->loop, &f->timer);
    while (*link != f) {
        last = *link;
        link = &(*link)->next;
    }
    *link = f->next;
    if (r->refresh_tail == f)
        r->refresh_tail = last;
    if (f->call.error)
        note_failure(r, f->call.error);
    sf__reader_acquire(r); /* f may hold the last reference */
    r->attempted_ns = sf__clock_mono_ns();
    sf__call_finish(&f->call);
    sf__reader_waits_look(r);
    if (was_head && r->refresh_head)
        refresh_run(r->refresh_head);
    sf__reader_release(r);
}

/* The old snapshot, or NULL when the reader was closed meanwhile (then `next` stays the caller's). */
static sf_snapshot *swap_in(sf_reader *r, sf_snapshot *next)
{
    sf_snapshot *old = NULL;

    sf_mutex_lock(&r->swap);
    if (!r->closed) {
        old = sf__reader_replace(r, next);
        r->fallback = false;
        r->refreshed_ns = sf__clock_mono_ns();
        r->last_refresh_error[0] = '\0';
        r->refresh_failures = 0;
    }
    sf_mutex_unlock(&r->swap);
    return old;
}

static void refresh_home(struct refresh_call *f)
{
    sf__snapshot_release(f->previous);
    f->previous = NULL;
    refresh_end(f);
}

static void refresh_move(struct refresh_call *f)
{
    sf_snapshot *next = f->load.snapshot, *old = f->cancelled ? NULL : swap_in(f->reader, next);

    if (old) {
        f->changed = true;
        sf__snapshot_withdraw(old);
    } else {
        sf__snapshot_release(next);
        sf__call_fail(&f->call, f->cancelled ? SF_CANCELLED : SF_STATE, f->cancelled ? "cancelled" : "Reader is closed");
    }
    refresh_home(f);
}

static void refresh_warmed(sf_warming *w)
{
    struct refresh_call *f = w->ctx;

    f->warms = false;
    refresh_move(f);
}

static void refresh_loaded(sf_load *l)
{
    struct refresh_call *f = l->ctx;
    sf_reader *r = f->reader;

    f->loading = false;
    if (l->error.code == SF_OK && l->snapshot && r->source->warm_bytes > 0) {
        f->warms = true;
        f->warming = (sf_warming){.previous = f->previous,
                                  .next = l->snapshot,
                                  .max_bytes = r->source->warm_bytes,
                                  .deadline_ns = f->call.deadline_ns,
                                  .call_ctx = f->call.ctx,
                                  .done = refresh_warmed,
                                  .ctx = f};
        sf__warming_start(&f->warming);
        return;
    }
    if (l->error.code == SF_OK && l->snapshot) {
        refresh_move(f);
        return;
    }
    if (l->malformed) { /* told by the call's rejected manifests, and not an error */
        note_failure(r, &l->error);
    } else if (l->error.code != SF_OK) {
        sf__call_failed(&f->call, &l->error);
    } else {
        sf_mutex_lock(&r->swap);
        r->fallback = false; /* the pointer names what is served */
        r->refreshed_ns = sf__clock_mono_ns();
        r->last_refresh_error[0] = '\0';
        r->refresh_failures = 0;
        sf_mutex_unlock(&r->swap);
    }
    refresh_home(f);
}

static void refresh_run(struct refresh_call *f)
{
    sf_call *c = &f->call;
    sf_error e = SF_ERROR_INIT;

    if (f->cancelled)
        sf__call_fail(c, SF_CANCELLED, "cancelled");
    else
        f->previous = sf__reader_borrow(f->reader, &e);
    if (!f->previous) {
        sf__call_failed(c, &e);
        refresh_end(f);
        return;
    }
    sf__timer_stop(c->rt->loop, &f->timer);
    f->load = (sf_load){
        .source = f->reader->source,
        .previous = f->previous,
        .deadline_ns = c->deadline_ns,
        .call_ctx = c->ctx,
        .done = refresh_loaded,
        .ctx = f,
    };
    f->loading = true;
    if (!sf__load_start(&f->load)) {
        f->loading = false;
        sf__snapshot_release(f->previous);
        f->previous = NULL;
        sf__call_fail(c, SF_NOMEM, "refresh");
        refresh_end(f);
    }
}

static void refresh_late(sf_timer *t)
{
    struct refresh_call *f = sf_container_of(t, struct refresh_call, timer);
    sf_error e;

    sf_error_overdue(&e, &(sf_overdue){.since_ns = f->since_ns, .waits_for = "another refresh to end"});
    sf_error_prefix(&e, SF_TIMEOUT, "refresh of %s: ", f->reader->source->site.prefix);
    sf_error_object(&e, f->reader->source->site.prefix);
    sf__call_failed(&f->call, &e);
    refresh_end(f);
}

static void refresh_start(sf_call *c)
{
    struct refresh_call *f = sf_container_of(c, struct refresh_call, call);
    sf_reader *r = f->reader;

    f->timer.fire = refresh_late;
    f->since_ns = sf__clock_mono_ns();
    if (r->refresh_tail)
        r->refresh_tail->next = f;
    else
        r->refresh_head = f;
    r->refresh_tail = f;
    if (r->refresh_head == f)
        refresh_run(f);
    else
        sf__timer_start(c->rt->loop, &f->timer, c->deadline_ns);
}

static void refresh_cancel(sf_call *c)
{
    struct refresh_call *f = sf_container_of(c, struct refresh_call, call);

    f->cancelled = true;
    if (f->loading) {
        sf__load_cancel(&f->load);
    } else if (f->warms) {
        sf__warming_cancel(&f->warming);
    } else {
        sf__call_fail(c, SF_CANCELLED, "cancelled");
        refresh_end(f);
    }
}

static void refresh_destroy(sf_call *c)
{
    struct refresh_call *f = sf_container_of(c, struct refresh_call, call);

    sf__load_cleanup(&f->load, c->alloc);
    sf__reader_release(f->reader);
}

static const sf_call_type refresh_type = {.start = refresh_start, .cancel = refresh_cancel, .destroy = refresh_destroy};

bool sf_call_changed(const sf_call *c)
{
    return c->type == &refresh_type && sf_container_of(c, struct refresh_call, call)->changed;
}

const sf_rejected_manifest *sf_call_rejected_manifests(const sf_call *c, size_t *count)
{
    const sf_load *l =
        c->type == &refresh_type ? &sf_container_of(c, struct refresh_call, call)->load : sf__open_call_load(c);

    *count = l ? l->rejected_count : 0;
    return l ? l->rejected : NULL;
}

sf_status sf_reader_refresh_start(sf_call **out, sf_reader *r, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                                  sf_error *err)
{
    struct refresh_call *f;
    sf_snapshot *s = sf__reader_borrow(r, err); /* the state check */

    if (!s)
        return sf__reader_closed_status(r);
    sf__snapshot_release(s);
    f = (struct refresh_call *)sf__call_new(&refresh_type, sizeof(*f), r->rt, timeout_ms, done, ctx);
    if (!f)
        return sf_fail(err, SF_NOMEM, "refresh");
    f->reader = sf__reader_acquire(r);
    *out = &f->call;
    sf__call_start(&f->call);
    return SF_OK;
}

sf_status sf_reader_refresh(sf_reader *r, int64_t timeout_ms, bool *changed, sf_error *err)
{
    sf_call *c;
    sf_status rc = sf__runtime_check_may_wait(r->rt, err);

    if (rc == SF_OK)
        rc = sf_reader_refresh_start(&c, r, timeout_ms, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK)
        *changed = sf_call_changed(c);
    sf_call_release(c);
    return rc;
}
