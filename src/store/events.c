#include "store/events.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/thread.h"

#define KEPT_EVENTS 256u
#define KINDS (SF_STORE_HEDGE_WON + 1)

#define STATUS_CLASSES 6u /* no answer, 1xx, ... 5xx */

/* Operations that have ended, in the same way. */
struct noted_requests {
    sf_store_request kept[KEPT_EVENTS];
    size_t first, kept_count, beyond_count;
    sf_store_request beyond[SF_STORE_VERBS][STATUS_CLASSES]; /* count 0: none */
};

/*   note --> kept[] (a ring) --> take      in order
 *      \--> beyond[][] ----------^         when the ring is full, and then until all of them have been taken: one per kind and
 *                                          operation, found behind those of the ring */
struct sf_store_events {
    const sf_allocator *alloc;
    atomic_uint refs;
    pid_t owner;         /* who made it; in a forked child the lock may be held for ever */
    atomic_size_t ready; /* how many take() would find; changed under the lock, read without */
    sf_mutex lock;       /* covers what follows, for a few instructions */
    sf_store_event kept[KEPT_EVENTS];
    size_t first, kept_count, beyond_count;
    sf_store_event beyond[KINDS][SF_STORE_VERBS]; /* count 0: none */
    struct noted_requests *requests;              /* set before a store has the events; NULL: nobody wants to know */
};

sf_status sf_store_events_new(sf_store_events **out, const sf_allocator *allocator, sf_error *err)
{
    const sf_allocator *a = allocator ? allocator : &sf__allocator_default;
    sf_store_events *e = sf__calloc(a, 1, sizeof(*e));

    if (!e)
        return sf_fail(err, SF_NOMEM, "store events");
    e->alloc = a;
    e->owner = getpid();
    atomic_init(&e->refs, 1);
    atomic_init(&e->ready, 0);
    sf_mutex_init(&e->lock);
    *out = e;
    return SF_OK;
}

sf_store_events *sf_store_events_acquire(sf_store_events *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void sf_store_events_release(sf_store_events *e)
{
    if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf_mutex_destroy(&e->lock);
    sf__free(e->alloc, e->requests);
    sf__free(e->alloc, e);
}

static size_t add_ready(sf_store_events *e, size_t n)
{
    return atomic_fetch_add_explicit(&e->ready, n, memory_order_relaxed);
}

void sf__store_events_note(sf_store_events *e, sf_store_event_kind kind, sf_store_verb verb, uint32_t attempts,
                           int64_t delay_ms)
{
    sf_store_event event = {kind, sf__store_verb_name(verb), attempts, delay_ms, 1};

    if (!e || e->owner != getpid())
        return;
    sf_mutex_lock(&e->lock);
    if (e->beyond_count == 0 && e->kept_count < KEPT_EVENTS) {
        e->kept[(e->first + e->kept_count++) % KEPT_EVENTS] = event;
        add_ready(e, 1);
    } else {
        sf_store_event *last = &e->beyond[kind][verb];

        if (last->count == 0) {
            add_ready(e, 1);
            e->beyond_count++;
        }
        event.count += last->count;
        *last = event;
    }
    sf_mutex_unlock(&e->lock);
}

static size_t take_beyond(sf_store_events *e, sf_store_event *out, size_t count)
{
    sf_store_event *slots = &e->beyond[0][0];
    size_t n = 0;

    for (size_t i = 0; i < (size_t)KINDS * SF_STORE_VERBS && n < count; i++) {
        if (slots[i].count == 0)
            continue;
        out[n++] = slots[i];
        slots[i].count = 0;
        e->beyond_count--;
    }
    return n;
}

bool sf__store_events_any(const sf_store_events *e)
{
    return atomic_load_explicit(&e->ready, memory_order_relaxed) > 0;
}

size_t sf_store_events_take(sf_store_events *e, sf_store_event *out, size_t count)
{
    size_t n = 0;

    if (!sf__store_events_any(e) || e->owner != getpid())
        return 0;
    sf_mutex_lock(&e->lock);
    for (; n < count && e->kept_count > 0; e->kept_count--) {
        out[n++] = e->kept[e->first];
        e->first = (e->first + 1) % KEPT_EVENTS;
    }
    n += take_beyond(e, out + n, count - n);
    atomic_fetch_sub_explicit(&e->ready, n, memory_order_relaxed);
    sf_mutex_unlock(&e->lock);
    return n;
}

/* ------------------------------------------------------------------ operations that have ended ------------------- */

sf_status sf_store_events_want_requests(sf_store_events *e, sf_error *err)
{
    if (!e->requests)
        e->requests = sf__calloc(e->alloc, 1, sizeof(*e->requests));
    return e->requests ? SF_OK : sf_fail(err, SF_NOMEM, "requests to be noted");
}

bool sf__store_events_want_requests(const sf_store_events *e)
{
    return e && e->requests;
}

static sf_store_request *slot_beyond(struct noted_requests *r, sf_store_verb verb, int status)
{
    return &r->beyond[verb][status >= 100 && status < 600 ? status / 100 : 0];
}

void sf__store_events_note_request(sf_store_events *e, sf_store_verb verb, const sf_store_request *request)
{
    struct noted_requests *r = e->requests;

    if (e->owner != getpid())
        return;
    sf_mutex_lock(&e->lock);
    if (r->beyond_count == 0 && r->kept_count < KEPT_EVENTS) {
        r->kept[(r->first + r->kept_count++) % KEPT_EVENTS] = *request;
        add_ready(e, 1);
    } else {
        sf_store_request *sum = slot_beyond(r, verb, request->http_status), all = *request;

        if (sum->count == 0) {
            add_ready(e, 1);
            r->beyond_count++;
        } else {
            all.count += sum->count;
            all.bytes += sum->bytes;
            all.duration_us = -1;
        }
        *sum = all;
    }
    sf_mutex_unlock(&e->lock);
}

size_t sf_store_events_take_requests(sf_store_events *e, sf_store_request *out, size_t count)
{
    struct noted_requests *r = e->requests;
    sf_store_request *slots = r ? &r->beyond[0][0] : NULL;
    size_t n = 0;

    if (!r || !sf__store_events_any(e) || e->owner != getpid())
        return 0;
    sf_mutex_lock(&e->lock);
    for (; n < count && r->kept_count > 0; r->kept_count--) {
        out[n++] = r->kept[r->first];
        r->first = (r->first + 1) % KEPT_EVENTS;
    }
    for (size_t i = 0; r->beyond_count > 0 && n < count && i < (size_t)SF_STORE_VERBS * STATUS_CLASSES; i++) {
        if (slots[i].count == 0)
            continue;
        out[n++] = slots[i];
        slots[i].count = 0;
        r->beyond_count--;
    }
    atomic_fetch_sub_explicit(&e->ready, n, memory_order_relaxed);
    sf_mutex_unlock(&e->lock);
    return n;
}
