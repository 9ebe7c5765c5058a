/* Waiting for what becomes of a reader: that its next refresh is due, that it serves another snapshot. Such a call
 * stands in the reader's list, on the loop thread; whatever ends a refresh, and closing, has all of them look.
 *
 *   start --> LISTED --> done        the reader is closed, or what was waited for has come; or it was cancelled */
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "reader/reader.h"
#include "runtime/call.h"

#include <string.h>

/* After failures the interval doubles, at most so often, and not beyond this. */
#define MOST_DOUBLINGS 4u
#define LONGEST_BACKOFF_MS (INT64_C(5) * 60 * 1000)

struct reader_wait {
    sf_call call;
    sf_reader *reader; /* acquired */
    struct reader_wait *next, *prev;
    bool listed;
    char *known;    /* the manifest that the caller knows; NULL: it waits for the next refresh */
    sf_timer timer; /* until that is due */
};

static void wait_end(struct reader_wait *w)
{
    sf_reader *r = w->reader;

    if (w->listed) {
        *(w->prev ? &w->prev->next : &r->waits) = w->next;
        if (w->next)
            w->next->prev = w->prev;
        sf__timer_stop(w->call.rt->loop, &w->timer);
    }
    atomic_fetch_sub_explicit(&r->wait_count, 1, memory_order_relaxed);
    sf__call_finish(&w->call); /* w may be gone: nothing after this line */
}

static void wait_on_timer(sf_timer *t)
{
    wait_end(sf_container_of(t, struct reader_wait, timer));
}

int64_t sf__refresh_delay_ms(int64_t interval_ms, double jitter, uint32_t failures, uint64_t random)
{
    int64_t most = interval_ms > LONGEST_BACKOFF_MS ? interval_ms : LONGEST_BACKOFF_MS, delay = interval_ms;
    double share = (double)(random >> 11) * 0x1p-53; /* [0, 1) */

    for (uint32_t i = 0; i < failures && i < MOST_DOUBLINGS && delay < most; i++)
        delay = delay > most / 2 ? most : delay * 2;
    if (delay > INT64_MAX / 4)
        return INT64_MAX / 4; /* for ever; and what is added to it stays a number */
    return (int64_t)((double)delay * (1 - jitter + 2 * jitter * share));
}

static uint64_t due_ns(sf_reader *r)
{
    uint32_t failures;
    uint64_t delay_ns;
    int64_t ms;

    sf_mutex_lock(&r->swap);
    failures = r->refresh_failures;
    sf_mutex_unlock(&r->swap);
    ms = sf__refresh_delay_ms(r->source->refresh_interval_ms, r->source->refresh_jitter, failures,
                              sf__random_next(&r->random));
    return __builtin_mul_overflow((uint64_t)ms, UINT64_C(1000000), &delay_ns) ||
                   __builtin_add_overflow(r->attempted_ns, delay_ns, &delay_ns)
               ? SF_NO_DEADLINE
               : delay_ns;
}

/* Whether it has ended. */
static bool wait_look(struct reader_wait *w)
{
    sf_reader *r = w->reader;
    sf_error e;
    sf_snapshot *s = sf__reader_borrow(r, &e);
    bool moved = s && w->known && strcmp(s->manifest_ref, w->known) != 0;

    sf__snapshot_release(s);
    if (!s)
        sf__call_failed(&w->call, &e);
    if (!s || moved) {
        wait_end(w);
        return true;
    }
    if (!w->known)
        sf__timer_start(w->call.rt->loop, &w->timer, due_ns(r));
    return false;
}

void sf__reader_waits_look(sf_reader *r)
{
    for (struct reader_wait *w = r->waits, *next; w; w = next) {
        next = w->next;
        (void)wait_look(w);
    }
}

static void wait_start(sf_call *c)
{
    struct reader_wait *w = sf_container_of(c, struct reader_wait, call);
    sf_reader *r = w->reader;

    w->timer.fire = wait_on_timer;
    w->listed = true;
    w->next = r->waits;
    if (w->next)
        w->next->prev = w;
    r->waits = w;
    (void)wait_look(w);
}

static void wait_cancel(sf_call *c)
{
    sf__call_fail(c, SF_CANCELLED, "cancelled");
    wait_end(sf_container_of(c, struct reader_wait, call));
}

static void wait_destroy(sf_call *c)
{
    struct reader_wait *w = sf_container_of(c, struct reader_wait, call);

    sf__free(c->alloc, w->known);
    sf__reader_release(w->reader);
}

static const sf_call_type wait_type = {.start = wait_start, .cancel = wait_cancel, .destroy = wait_destroy};

static sf_status wait_new(sf_call **out, sf_reader *r, const char *known, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct reader_wait *w;
    sf_snapshot *s = sf__reader_borrow(r, err); /* the state check */

    if (!s)
        return sf__reader_closed_status(r);
    sf__snapshot_release(s);
    w = (struct reader_wait *)sf__call_new(&wait_type, sizeof(*w), r->rt, SF_TIMEOUT_NONE, done, ctx);
    if (!w)
        return sf_fail(err, SF_NOMEM, "waiting for a reader");
    w->reader = sf__reader_acquire(r);
    w->known = known ? sf__strdup(r->alloc, known) : NULL;
    if (known && !w->known) {
        sf__call_drop(&w->call);
        return sf_fail(err, SF_NOMEM, "waiting for a reader");
    }
    atomic_fetch_add_explicit(&r->wait_count, 1, memory_order_relaxed);
    *out = &w->call;
    sf__call_start(&w->call);
    return SF_OK;
}

sf_status sf_reader_due_start(sf_call **out, sf_reader *r, sf_call_done_fn done, void *ctx, sf_error *err)
{
    if (r->source->refresh_interval_ms <= 0)
        return sf_fail(err, SF_INVALID, "the reader has no refresh_interval_ms: no refresh is ever due");
    return wait_new(out, r, NULL, done, ctx, err);
}

sf_status sf_reader_moved_start(sf_call **out, sf_reader *r, const char *manifest_ref, sf_call_done_fn done, void *ctx,
                                sf_error *err)
{
    return wait_new(out, r, manifest_ref, done, ctx, err);
}
