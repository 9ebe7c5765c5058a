/* A read:
 *
 *   READING --> DECODING <--> CLAIMING --> DONE    CLAIMING: it unpacks to so much that the budget is asked first
 *    |    ^        |  |                     ^
 *    |    +-damaged+  +---------------------+      damaged for the first time
 *    +--------------------------------------+      to DONE by fetch_end()
 *
 * Brief reads, as those of scans, are decoded by the worker that has read them where the store has one: between READING and DECODING, which then
 * has no more to do.
 * READING is from disk first, where the bytes may lie; then, or when those are damaged, from the store. */
#include "cache/fetch.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "store/hedge.h"

/* What a whole object is asked for with at first: its size is not known before the answer, and its bound is no guess at it
 * (pointers and manifests of a few hundred bytes are read under bounds of up to 64 MiB). One that turns out to be longer is
 * asked for again, with what it needs reserved. */
#define WHOLE_OBJECT_BYTES (UINT64_C(256) << 10)
/* Stored bytes, and plain ones, above which decoding leaves the loop thread. */
#define LOOP_STORED_BYTES (64u << 10)
#define LOOP_PLAIN_BYTES (256u << 10)
/* How much more room the next try gets when the last one could not say what it needs: so much that the tries before do not count. */
#define MORE_ROOM 8u

/*      +--------+                        longer than what was reserved for it, and no room for it now: again, in the line; twice at most
 *      v        |
 *   QUEUED --> SENT --> DELIVERING       in the table while QUEUED or SENT: only then may another read join
 *      |        |            |
 *      |        v            v
 *      |    ABANDONED <------+           nobody waits any more: what is under way is cancelled, its turn is given back when it has
 *      |        |            |           ended
 *      +-----> gone <--------+
 * While SENT and late there may be a second request (struct hedging): the first good answer is delivered, and a failure only when
 * no other request is under way. */
enum flight_state { FLIGHT_QUEUED, FLIGHT_SENT, FLIGHT_ABANDONED, FLIGHT_DELIVERING };

/* The second request for what a flight asks for. */
struct hedging {
    struct flight *flight;
    sf_timer timer;   /* until the first one is late */
    uint64_t sent_ns; /* the first one */
    bool late;
    bool failed;       /* one of the two requests, while the other one was under way; */
    uint32_t attempts; /* its attempts */
    sf_turn turn;
    struct fetch_request *request; /* as the flight's */
};

/*   OFF <-- NOT_YET --> BEGUN      OFF: whoever waits for it has gone; BEGUN: on a worker, whoever waits for it stays until the end */
enum early_state { EARLY_NOT_YET, EARLY_OFF, EARLY_BEGUN };

/* One read and those who wait for it. */
struct flight {
    sf_turn turn;    /* first */
    sf_fetch *early; /* it is decoded by the worker that reads the bytes; NULL: nobody is */
    atomic_int early_state;
    struct fetch_request *request; /* while it has its turn, and until it has been delivered or another one is waited for */
    struct hedging *hedging;       /* from SENT on; NULL: there is to be no second request */
    unsigned under_way;            /* requests */
    bool by_second;                /* DELIVERING */
    sf_fetcher *fetcher;
    enum flight_state state;
    bool suffix, brief;
    struct fetch_entry entry; /* in the fetcher's table */
    sf_fetch *first, *last;
    sf_store *store; /* acquired */
    uint64_t off, len;
    uint64_t max_bytes;                   /* of a whole object, by those who wait */
    uint64_t allowed;                     /* of a whole object: what is reserved for it */
    const char *if_match, *if_none_match; /* behind the key; or NULL */
    char key[];
};

/* ---------------------------------------------------------------- what is under way ----------------------------- */

static uint64_t fetch_hash(const sf_fetch *fetch)
{
    uint64_t words[5] = {(uint64_t)(uintptr_t)fetch->store, sf__xxh3_64(sf_bytes_str(fetch->key)), fetch->off,
                         fetch->len, fetch->suffix};

    return sf__xxh3_64(sf_bytes_of(words, sizeof(words)));
}

static bool same_condition(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool flight_serves(const struct flight *fl, const sf_fetch *fetch)
{
    return fl->store == fetch->store && fl->off == fetch->off && fl->len == fetch->len && fl->suffix == fetch->suffix &&
           fl->brief == fetch->brief && (fetch->len != SF_STORE_ALL || fl->max_bytes == fetch->max_bytes) &&
           same_condition(fl->if_match, fetch->if_match) && same_condition(fl->if_none_match, fetch->if_none_match) &&
           strcmp(fl->key, fetch->key) == 0;
}

static struct flight *flight_find(const sf_fetcher *f, uint64_t hash, const sf_fetch *fetch)
{
    for (struct fetch_entry *e = sf__fetcher_bucket(f, hash); e; e = e->chain) {
        struct flight *fl = sf_container_of(e, struct flight, entry);

        if (e->hash == hash && flight_serves(fl, fetch))
            return fl;
    }
    return NULL;
}

/* ---------------------------------------------------------------- waiters --------------------------------------- */

static void flight_enter(struct flight *fl, enum flight_state next);

static void waiter_attach(struct flight *fl, sf_fetch *fetch)
{
    fetch->flight = fl;
    fetch->next = NULL;
    fetch->prev = fl->last;
    *(fl->last ? &fl->last->next : &fl->first) = fetch;
    fl->last = fetch;
    sf__timer_start(fl->fetcher->loop, &fetch->timer, fetch->deadline_ns);
}

static void waiter_detach(struct flight *fl, sf_fetch *fetch)
{
    *(fetch->prev ? &fetch->prev->next : &fl->first) = fetch->next;
    *(fetch->next ? &fetch->next->prev : &fl->last) = fetch->prev;
    fetch->flight = NULL;
    sf__timer_stop(fl->fetcher->loop, &fetch->timer);
}

static void fetch_enter(sf_fetch *fetch, sf_fetch_state next);

/* The last thing that a read does. */
static void fetch_end(sf_fetch *fetch, const sf_error *e)
{
    const sf_allocator *a = fetch->fetcher->alloc;
    struct fetch_heavy *heavy = fetch->heavy; /* `e` may lie in it */

    fetch->error = e;
    fetch->heavy = NULL;
    fetch->state = SF_FETCH_DONE;
    fetch->done(fetch); /* it may be gone: nothing of it after this line */
    sf__free(a, heavy);
}

static void fetch_fail(sf_fetch *fetch, sf_status rc, const char *what)
{
    sf_error e;

    sf_fail(&e, rc, "%s", what);
    sf__store_error_name(&e, "get", fetch->store, fetch->key);
    fetch_end(fetch, &e);
}

/* The bytes have come, or not. */
static void fetch_home(sf_fetch *fetch, const sf_error *e)
{
    if (e->code != SF_OK || !fetch->decode) {
        fetch_end(fetch, e);
        return;
    }
    fetch->plain_bytes = LOOP_PLAIN_BYTES;
    fetch_enter(fetch, SF_FETCH_DECODING);
}

static void fetch_on_task(sf_task *task)
{
    sf_fetch *fetch = sf_container_of(task, sf_fetch, task);

    fetch_fail(fetch, fetch->ended, fetch->ended == SF_NOMEM ? "request" : "cancelled");
}

static void fetch_end_later(sf_fetch *fetch, sf_status rc)
{
    fetch->ended = rc;
    fetch->task.run = fetch_on_task;
    sf__loop_post(fetch->fetcher->loop, &fetch->task);
}

/* A read from the disk cache; it may last longer than who waits for it. */
struct fetch_on_disk {
    sf_disk_read read;
    sf_fetch *fetch; /* NULL: it waits no longer */
    const sf_allocator *alloc;
    uint64_t cuts[];
};

static void disk_leave(sf_fetch *fetch)
{
    fetch->on_disk->fetch = NULL;
    fetch->on_disk = NULL;
    sf__timer_stop(fetch->fetcher->loop, &fetch->timer);
}

/* One waiter goes before the answer has come; with the last one the request is not worth its turn any
 * more. */
static void waiter_leave(struct flight *fl, sf_fetch *fetch)
{
    if (fl->early == fetch) /* of another it is read by the worker, perhaps just now */
        fl->early = NULL;
    waiter_detach(fl, fetch);
    if (!fl->first && fl->state != FLIGHT_DELIVERING)
        flight_enter(fl, FLIGHT_ABANDONED);
}

/* While it is SENT: what was tried is both requests. */
static void flight_overdue(const struct flight *fl, uint64_t since_ns, sf_error *err)
{
    const struct fetch_request *second = fl->hedging ? fl->hedging->request : NULL;
    uint32_t more = fl->hedging ? fl->hedging->attempts : 0;

    if (fl->request && second)
        more += sf__store_op_attempts(&second->op);
    sf__store_op_overdue(&(fl->request ? fl->request : second)->op, more, since_ns, err);
}

void sf__fetch_overdue(const sf_fetch *fetch, uint64_t since_ns, sf_error *err)
{
    const struct flight *fl = fetch->flight;

    if (fl && fl->state == FLIGHT_SENT) {
        flight_overdue(fl, since_ns, err);
        return;
    }
    if (fetch->state == SF_FETCH_READING && fetch->on_disk)
        sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = "the disk cache"});
    else if (fl && fl->state == FLIGHT_QUEUED)
        sf__turn_overdue(&fl->fetcher->budget, since_ns, err);
    else if (fetch->state == SF_FETCH_DECODING || fetch->state == SF_FETCH_CLAIMING)
        sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = "its bytes to be unpacked"});
    else
        sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns});
    sf__store_error_name(err, "get", fetch->store, fetch->key);
}

/* False: a worker decodes it, or has done so, and the end is near. */
static bool may_leave(sf_fetch *fetch)
{
    struct flight *fl = fetch->flight;
    int state = EARLY_NOT_YET;

    return !fl || fl->early != fetch ||
           atomic_compare_exchange_strong_explicit(&fl->early_state, &state, EARLY_OFF, memory_order_acq_rel,
                                                   memory_order_acquire);
}

static void waiter_on_deadline(sf_timer *timer)
{
    sf_fetch *fetch = sf_container_of(timer, sf_fetch, timer);
    sf_error e;

    if (!may_leave(fetch))
        return; /* its bytes have come in time */
    sf__fetch_overdue(fetch, fetch->since_ns, &e);
    if (fetch->flight && fetch->flight->state == FLIGHT_SENT)
        sf__hedge_note_deadline(fetch->store->hedge, sf__clock_mono_ns() - fetch->since_ns);
    if (fetch->flight)
        waiter_leave(fetch->flight, fetch);
    else
        disk_leave(fetch);
    fetch_end(fetch, &e);
}

/* ---------------------------------------------------------------- flights --------------------------------------- */

/* It has ended, and nobody wants its answer. */
static void request_drop(sf_fetcher *f, struct fetch_request **request)
{
    sf__fetcher_give_back_request(f, *request);
    *request = NULL;
}

static void flight_free(struct flight *fl)
{
    sf_fetcher *f = fl->fetcher;

    sf__store_release(fl->store);
    sf__free(f->alloc, fl->hedging);
    sf__free(f->alloc, fl);
    sf__budget_pump(&f->budget); /* somebody may have waited for the request, or behind this one */
}

/* Waiters may cancel each other, or start new reads, from inside their completions: the list is read anew each time. The last
 * one has the bytes for itself. */
static void flight_deliver(struct flight *fl)
{
    struct fetch_request **request = fl->by_second ? &fl->hedging->request : &fl->request;
    sf_store_op *op = &(*request)->op;
    bool shared = fl->first != fl->last;

    while (fl->first) {
        sf_fetch *fetch = fl->first;

        waiter_detach(fl, fetch);
        if (op->error->code == SF_OK) {
            fetch->data = fl->first ? sf__buf_acquire(op->data) : op->data;
            op->data = fl->first ? op->data : NULL;
            fetch->object_size = op->object_size;
            fetch->shared = shared;
            fetch->not_modified = op->not_modified;
            fetch->etag = op->etag;
        }
        if (fl->early == fetch) /* the worker has begun to decode it, or had no bytes */
            fetch->decoded = atomic_load_explicit(&fl->early_state, memory_order_acquire) == EARLY_BEGUN;
        fl->early = fl->early == fetch ? NULL : fl->early;
        fetch_home(fetch, op->error);
    }
    request_drop(fl->fetcher, request);
}

SF_PRINTF(4, 5) static void flight_fail(const struct flight *fl, sf_store_op *op, sf_error *err, const char *fmt, ...)
{
    char what[200], url[sizeof(err->object)];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    sf__store_object_url(fl->store, fl->key, url, sizeof(url));
    sf_fail(err, SF_CORRUPT, "get %s: %s", url, what);
    sf_error_object(err, url);
    snprintf(err->operation, sizeof(err->operation), "get");
    op->error = err;
}

/* What is handed on is what was asked for, whoever wrote the store. */
static void flight_check(const struct flight *fl, sf_store_op *op, sf_error *err)
{
    uint64_t n = sf__buf_bytes(op->data).n;
    bool right = op->len == SF_STORE_ALL || (op->verb == SF_STORE_GET_SUFFIX ? n <= op->len : n == op->len);

    if (op->error->code != SF_OK || right)
        return;
    sf__buf_release(op->data);
    op->data = NULL;
    flight_fail(fl, op, err, "%llu bytes came, %llu were asked for", (unsigned long long)n, (unsigned long long)op->len);
}

/* A store reads no more than was reserved; when the object has more, and may, that is not the end of it. The next request
 * is bounded by the length that was told; should the object have grown meanwhile, the last one by the bound itself. */
static bool flight_may_grow(struct flight *fl, sf_store_op *op, sf_error *err)
{
    bool told = op->longer != SF_STORE_ALL;

    if (op->error->code != SF_CORRUPT || op->longer == 0 || fl->allowed >= fl->max_bytes)
        return false;
    if (told && op->longer > fl->max_bytes) {
        flight_fail(fl, op, err, "object of %llu bytes, at most %llu expected", (unsigned long long)op->longer,
                    (unsigned long long)fl->max_bytes);
        return false;
    }
    fl->allowed = told && fl->allowed == WHOLE_OBJECT_BYTES && op->longer > fl->allowed ? op->longer : fl->max_bytes;
    return true;
}

/* What was tried is both. `err` = where the error of such an answer may lie. */
static void both_failed(const struct flight *fl, sf_store_op *op, sf_error *err)
{
    if (op->error->code == SF_OK || !fl->hedging || !fl->hedging->failed)
        return;
    if (op->error != err)
        *err = *op->error;
    err->attempts += fl->hedging->attempts;
    sf_error_prefix(err, err->code, "both of two requests failed; the last one: ");
    op->error = err;
}

/* One answer of a flight that is SENT. */
static void note_end(const struct flight *fl, sf_status rc, bool by_second)
{
    sf_hedge *h = fl->store->hedge;

    if (rc == SF_OK && fl->hedging)
        sf__hedge_note_answer(h, fl->len, sf__clock_mono_ns() - fl->hedging->sent_ns, fl->hedging->late, by_second);
    else if (rc == SF_UNAVAILABLE || rc == SF_TIMEOUT)
        sf__hedge_note_trouble(h);
}

static void flight_on_done(sf_store_op *op)
{
    struct flight *fl = op->ctx;
    sf_fetcher *f = fl->fetcher;
    bool second = !fl->request || op != &fl->request->op;
    struct fetch_request **request = second ? &fl->hedging->request : &fl->request;
    sf_error e; /* filled by failures only */

    flight_check(fl, op, &e);
    sf__fetcher_count(f, fl->store, 1, op->error->code == SF_OK && op->data ? op->data->n : 0);
    sf__turn_end(&f->budget, second ? &fl->hedging->turn : &fl->turn);
    fl->under_way--;
    if (fl->state == FLIGHT_SENT)
        note_end(fl, op->error->code, second);
    if (fl->state == FLIGHT_ABANDONED || (op->error->code != SF_OK && fl->under_way > 0)) {
        if (fl->hedging) {
            fl->hedging->failed = true;
            fl->hedging->attempts = op->error->attempts;
        }
        request_drop(f, request);
        if (fl->under_way == 0)
            flight_free(fl);
        else
            sf__budget_pump(&f->budget); /* somebody may have waited for the request */
    } else if (flight_may_grow(fl, op, &e)) {
        request_drop(f, request);
        flight_enter(fl, FLIGHT_QUEUED);
    } else {
        fl->by_second = second;
        both_failed(fl, op, &e);
        flight_enter(fl, FLIGHT_DELIVERING);
    }
}

/* What is under way. It ends in flight_on_done(), which frees it with the last one. */
static void flight_cancel(struct flight *fl)
{
    struct fetch_request *first = fl->request, *second = fl->hedging ? fl->hedging->request : NULL;

    if (fl->under_way == 0) {
        flight_free(fl);
        return;
    }
    if (first)
        sf__store_cancel(fl->store, &first->op);
    if (second)
        sf__store_cancel(fl->store, &second->op);
}

/* Without memory for its request a read waits until another one has ended, which gives back its own. */
static bool flight_ready(sf_turn *turn)
{
    struct flight *fl = sf_container_of(turn, struct flight, turn);

    fl->request = sf__fetcher_take_request(fl->fetcher);
    return fl->request;
}

static void flight_go(sf_turn *turn)
{
    flight_enter(sf_container_of(turn, struct flight, turn), FLIGHT_SENT);
}

/* The object is longer than was reserved for it. Where there is room for it at once, it comes in this answer. */
static bool flight_on_length(sf_store_op *op, uint64_t bytes)
{
    struct flight *fl = op->ctx;

    if (bytes > fl->max_bytes || !sf__turn_grow(&fl->fetcher->budget, &fl->turn, bytes))
        return false;
    fl->allowed = op->max_bytes = bytes;
    return true;
}

/* Decoding that does not end where it began, on the loop thread. */
struct fetch_heavy {
    sf_fetch *fetch;
    sf_work work;
    sf_claim claim;
    sf_error verdict;
};

static struct fetch_heavy *heavy_of(sf_fetch *fetch);
static void decode_now(sf_fetch *fetch, sf_buf *data, sf_error *verdict);

/* On a worker. */
static void flight_arrived(sf_store_op *op)
{
    struct flight *fl = op->ctx;
    int state = EARLY_NOT_YET;

    if (atomic_compare_exchange_strong_explicit(&fl->early_state, &state, EARLY_BEGUN, memory_order_acq_rel,
                                                memory_order_acquire))
        decode_now(fl->early, op->data, &fl->early->heavy->verdict);
}

/* Whoever is alone, and wants nothing but to have it decoded, as it is. */
static void early_plan(struct flight *fl, bool once)
{
    sf_fetch *fetch = fl->first;

    if (!fl->brief || fetch != fl->last || once || !fetch->decode || fetch->packed ||
        (fetch->disk && fetch->disk->cache) || !heavy_of(fetch))
        return;
    fl->early = fetch;
    atomic_store_explicit(&fl->early_state, EARLY_NOT_YET, memory_order_relaxed);
}

static void request_send(struct flight *fl, struct fetch_request *r, bool once)
{
    early_plan(fl, once);
    r->op = (sf_store_op){
        .verb = fl->suffix ? SF_STORE_GET_SUFFIX : SF_STORE_GET,
        .key = fl->key,
        .off = fl->off,
        .len = fl->len,
        .max_bytes = fl->allowed,
        .once = once,
        .grow = fl->len == SF_STORE_ALL ? flight_on_length : NULL,
        .arrived = fl->early ? flight_arrived : NULL,
        .memory = fl->brief ? &fl->fetcher->read_memory.allocator : NULL,
        .if_match = fl->if_match,
        .if_none_match = fl->if_none_match,
        /* every waiter has a deadline of its own, and later ones may be more patient than the first */
        .deadline_ns = SF_NO_DEADLINE,
        .done = flight_on_done,
        .ctx = fl,
    };
    fl->under_way++;
    sf__store_submit(fl->store, &r->op);
}

/* ---------------------------------------------------------------- the second request ---------------------------- */

static bool second_ready(sf_turn *turn)
{
    struct hedging *hg = sf_container_of(turn, struct hedging, turn);

    hg->request = sf__fetcher_take_request(hg->flight->fetcher);
    return hg->request;
}

static void hedging_on_timer(sf_timer *timer)
{
    struct hedging *hg = sf_container_of(timer, struct hedging, timer);
    struct flight *fl = hg->flight;
    sf_hedge *h = fl->store->hedge;
    uint64_t now = sf__clock_mono_ns(), after = sf__hedge_after_ns(h, fl->len);
    sf_hedge_verdict verdict = sf__hedge_ask(h, fl->len, now - hg->sent_ns);

    if (verdict == SF_HEDGE_WAIT) {
        sf__timer_start(fl->fetcher->loop, timer, hg->sent_ns + after > now ? hg->sent_ns + after : now + after);
        return;
    }
    hg->late = true;
    if (verdict == SF_HEDGE_REFUSED)
        return;
    hg->turn.ready = second_ready;
    if (!sf__turn_try(&fl->fetcher->budget, &hg->turn, fl->len)) {
        sf__hedge_note_no_room(h);
        return;
    }
    sf__hedge_note_sent(h);
    request_send(fl, hg->request, true); /* ends in flight_on_done() */
}

/* Parts of objects only: these never change. Without memory there is no second request. */
static void hedging_start(struct flight *fl)
{
    sf_hedge *h = fl->store->hedge;
    struct hedging *hg = sf__hedge_covers(h, fl->len) ? sf__calloc(fl->fetcher->alloc, 1, sizeof(*hg)) : NULL;

    if (!hg)
        return;
    fl->hedging = hg;
    hg->flight = fl;
    hg->timer.fire = hedging_on_timer;
    hg->sent_ns = sf__clock_mono_ns();
    sf__hedge_note_request(h);
    sf__timer_start(fl->fetcher->loop, &hg->timer, hg->sent_ns + sf__hedge_after_ns(h, fl->len));
}

static void hedging_stop(struct flight *fl)
{
    if (fl->hedging)
        sf__timer_stop(fl->fetcher->loop, &fl->hedging->timer);
}

static void flight_enter(struct flight *fl, enum flight_state next)
{
    enum flight_state before = fl->state;
    sf_fetcher *f = fl->fetcher;

    fl->state = next;
    switch (next) {
    case FLIGHT_QUEUED:
        /* ends in flight_go() */
        sf__turn_wait(&f->budget, &fl->turn, fl->len == SF_STORE_ALL ? fl->allowed : fl->len);
        break;
    case FLIGHT_SENT:
        request_send(fl, fl->request, false); /* ends in flight_on_done() */
        hedging_start(fl);                    /* ends in hedging_on_timer(), if the answer is late */
        break;
    case FLIGHT_ABANDONED:
        hedging_stop(fl);
        if (before != FLIGHT_DELIVERING)
            sf__fetcher_remove(f, &fl->entry);
        if (before == FLIGHT_QUEUED)
            sf__turn_leave(&f->budget, &fl->turn);
        flight_cancel(fl); /* ends in flight_on_done(), or fl is gone */
        break;
    case FLIGHT_DELIVERING:
        hedging_stop(fl);
        sf__fetcher_remove(f, &fl->entry);
        flight_deliver(fl);
        flight_enter(fl, FLIGHT_ABANDONED);
        break;
    }
}

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static struct flight *flight_new(sf_fetcher *f, const sf_fetch *fetch, uint64_t hash)
{
    size_t n = strlen(fetch->key) + 1, match_n = text_size(fetch->if_match), none_n = text_size(fetch->if_none_match);
    struct flight *fl = sf__calloc(f->alloc, 1, sizeof(*fl) + n + match_n + none_n);

    if (!fl)
        return NULL;
    fl->turn.ready = flight_ready;
    fl->turn.go = flight_go;
    fl->fetcher = f;
    fl->suffix = fetch->suffix;
    fl->brief = fetch->brief;
    fl->entry.hash = hash;
    fl->off = fetch->off;
    fl->len = fetch->len;
    fl->max_bytes = fetch->len == SF_STORE_ALL ? fetch->max_bytes : 0;
    fl->allowed = fl->max_bytes < WHOLE_OBJECT_BYTES ? fl->max_bytes : WHOLE_OBJECT_BYTES;
    fl->store = sf__store_acquire(fetch->store);
    memcpy(fl->key, fetch->key, n);
    if (match_n > 0)
        fl->if_match = memcpy(fl->key + n, fetch->if_match, match_n);
    if (none_n > 0)
        fl->if_none_match = memcpy(fl->key + n + match_n, fetch->if_none_match, none_n);
    return fl;
}

/* ---------------------------------------------------------------- reading --------------------------------------- */

static void store_read(sf_fetch *fetch)
{
    sf_fetcher *f = fetch->fetcher;
    uint64_t hash = fetch_hash(fetch);
    struct flight *fl = flight_find(f, hash, fetch);

    if (fl) {
        atomic_fetch_add_explicit(&f->shared, 1, memory_order_relaxed);
        waiter_attach(fl, fetch);
        return;
    }
    fl = flight_new(f, fetch, hash);
    if (!fl) {
        fetch_end_later(fetch, SF_NOMEM);
        return;
    }
    sf__fetcher_add(f, &fl->entry);
    waiter_attach(fl, fetch);
    flight_enter(fl, FLIGHT_QUEUED);
}

/* ---------------------------------------------------------------- on disk --------------------------------------- */

static uint32_t parts_of(const sf_fetch *fetch)
{
    return fetch->parts ? fetch->parts->count(fetch) : 1;
}

static void cuts_of(const sf_fetch *fetch, uint64_t *cuts)
{
    uint32_t n = parts_of(fetch);

    for (uint32_t i = 0; i < n; i++)
        cuts[i] = fetch->parts ? fetch->parts->off(fetch, i) : fetch->off;
    cuts[n] = fetch->off + fetch->len;
}

static void disk_home(sf_disk_read *r)
{
    struct fetch_on_disk *d = sf_container_of(r, struct fetch_on_disk, read);
    sf_fetch *fetch = d->fetch;
    sf_buf *data = r->data;
    bool old = r->old;

    sf__free(d->alloc, d);
    if (!fetch) {
        sf__buf_release(data);
        return;
    }
    fetch->on_disk = NULL;
    sf__timer_stop(fetch->fetcher->loop, &fetch->timer);
    fetch->from_disk = data;
    fetch->disk_old = old;
    fetch->data = data;
    if (data)
        fetch_home(fetch, &sf__no_error);
    else
        store_read(fetch);
}

static void data_drop(sf_fetch *fetch)
{
    sf__buf_release(fetch->data);
    fetch->data = NULL;
}

static void disk_on_task(sf_task *task)
{
    sf_fetch *fetch = sf_container_of(task, sf_fetch, task);

    if (fetch->cancelled) {
        data_drop(fetch);
        fetch_fail(fetch, SF_CANCELLED, "cancelled");
        return;
    }
    fetch_home(fetch, &sf__no_error);
}

/* False: it is not there, as far as memory knows. */
static bool disk_read(sf_fetch *fetch)
{
    sf_fetcher *f = fetch->fetcher;
    uint32_t n = parts_of(fetch);
    struct fetch_on_disk *d = sf__alloc(f->alloc, sizeof(*d) + ((size_t)n + 1) * sizeof(*d->cuts));

    if (!d)
        return false;
    *d = (struct fetch_on_disk){
        .read = {.object = fetch->disk->object, .cuts = d->cuts, .part_count = n, .done = disk_home},
        .fetch = fetch,
        .alloc = f->alloc};
    cuts_of(fetch, d->cuts);
    if (!sf__disk_cache_read(fetch->disk->cache, &d->read)) {
        fetch->on_disk = d;
        sf__timer_start(f->loop, &fetch->timer, fetch->deadline_ns);
        return true; /* ends in disk_home() */
    }
    fetch->data = d->read.data;
    fetch->from_disk = d->read.data;
    fetch->disk_old = d->read.old;
    sf__free(f->alloc, d);
    if (!fetch->data)
        return false;
    fetch->ended = SF_OK;
    fetch->task.run = disk_on_task; /* never inside start */
    sf__loop_post(f->loop, &fetch->task);
    return true;
}

/* What was decoded well goes there; what was there and was not is forgotten. */
static void disk_learn(sf_fetch *fetch, sf_status verdict)
{
    uint32_t n = parts_of(fetch);
    uint64_t one[2], *cuts = one;
    bool *wanted = NULL, keep = verdict == SF_OK && (!fetch->from_disk || fetch->disk_old) && !fetch->disk_only_read;

    if (!keep && !(fetch->from_disk && verdict == SF_CORRUPT))
        return;
    if (n > 1) {
        cuts = sf__alloc(fetch->fetcher->alloc, ((size_t)n + 1) * sizeof(*cuts) + n * sizeof(*wanted));
        wanted = cuts ? (bool *)(cuts + n + 1) : NULL;
    }
    if (!cuts)
        return;
    cuts_of(fetch, cuts);
    for (uint32_t i = 0; wanted && i < n; i++)
        wanted[i] = fetch->parts->is_wanted(fetch, i);
    if (keep)
        sf__disk_cache_keep(fetch->disk->cache, fetch->disk->object, cuts, wanted, n, fetch->data);
    else
        sf__disk_cache_forget(fetch->disk->cache, fetch->disk->object, cuts, n);
    if (cuts != one)
        sf__free(fetch->fetcher->alloc, cuts);
}

static void reading_start(sf_fetch *fetch)
{
    fetch->since_ns = sf__clock_mono_ns();
    if (fetch->disk && fetch->disk->cache && !fetch->disk_tried) {
        fetch->disk_tried = true;
        if (disk_read(fetch))
            return;
    }
    fetch->from_disk = false;
    store_read(fetch);
}

/* ---------------------------------------------------------------- decoding -------------------------------------- */

static struct fetch_heavy *heavy_of(sf_fetch *fetch)
{
    if (!fetch->heavy)
        fetch->heavy = sf__calloc(fetch->fetcher->alloc, 1, sizeof(*fetch->heavy));
    if (fetch->heavy)
        fetch->heavy->fetch = fetch;
    return fetch->heavy;
}

/* After SF_WOULD_BLOCK `plain_bytes` is what the next try gets. */
static void decode_now(sf_fetch *fetch, sf_buf *data, sf_error *verdict)
{
    sf_plain_room room = {.left = fetch->plain_bytes, .unpackers = &fetch->fetcher->unpackers};
    uint64_t used;

    sf_buf *whole = fetch->disk && fetch->disk->cache && (!fetch->from_disk || fetch->disk_old)
                        ? sf__buf_acquire(data)
                        : NULL; /* stays as it is */

    *verdict = (sf_error)SF_ERROR_INIT;
    verdict->code = fetch->decode(fetch, data, fetch->packed ? &room : NULL, verdict);
    sf__buf_release(whole);
    used = fetch->plain_bytes - room.left;
    if (verdict->code != SF_WOULD_BLOCK)
        return;
    if (room.wanted == 0) {
        fetch->plain_bytes *= MORE_ROOM;
    } else {
        /* Many blocks in a row tell the size of the next one only: with room for that alone each would be unpacked once for every
         * block behind it. */
        uint64_t doubled = used > 0 ? 2 * fetch->plain_bytes : 0;

        fetch->plain_bytes = used + room.wanted > doubled ? used + room.wanted : doubled;
    }
}

static void decode_failed(const sf_fetch *fetch, sf_error *verdict)
{
    char url[sizeof(verdict->object)];

    sf__store_object_url(fetch->store, fetch->key, url, sizeof(url));
    sf_error_prefix(verdict, verdict->code, "%s at %llu: ", url, (unsigned long long)fetch->off);
    sf_error_object(verdict, url);
    snprintf(verdict->operation, sizeof(verdict->operation), "get");
}

static void decoded(sf_fetch *fetch, sf_error *verdict)
{
    if (fetch->heavy)
        sf__claim_end(&fetch->heavy->claim);
    if (verdict->code == SF_WOULD_BLOCK && !fetch->cancelled) {
        fetch_enter(fetch, SF_FETCH_CLAIMING);
        return;
    }
    if (fetch->disk && fetch->disk->cache)
        disk_learn(fetch, verdict->code);
    data_drop(fetch);
    if (verdict->code == SF_CORRUPT && !fetch->again && !fetch->cancelled) {
        fetch->again = !fetch->from_disk;
        fetch_enter(fetch, SF_FETCH_READING);
        return;
    }
    if (fetch->cancelled)
        sf_fail(verdict, SF_CANCELLED, "cancelled");
    else if (verdict->code != SF_OK)
        decode_failed(fetch, verdict);
    fetch_end(fetch, verdict);
}

static void work_run(sf_work *w)
{
    struct fetch_heavy *h = sf_container_of(w, struct fetch_heavy, work);

    decode_now(h->fetch, h->fetch->data, &h->verdict);
}

static void work_done(sf_work *w)
{
    struct fetch_heavy *h = sf_container_of(w, struct fetch_heavy, work);

    decoded(h->fetch, &h->verdict);
}

/* On a worker when it is much, and there is memory for that. */
static void decode_start(sf_fetch *fetch)
{
    bool much = !fetch->decoded && (fetch->data->n > LOOP_STORED_BYTES || fetch->plain_bytes > LOOP_PLAIN_BYTES);
    struct fetch_heavy *h = much ? heavy_of(fetch) : NULL;
    sf_error verdict;

    if (fetch->decoded) {
        fetch->decoded = false;
        decoded(fetch, &fetch->heavy->verdict);
        return;
    }
    if (h) {
        h->work = (sf_work){.run = work_run, .done = work_done};
        sf__work_submit(fetch->fetcher->loop, SF_WORK_CPU, &h->work); /* ends in work_done() */
        return;
    }
    decode_now(fetch, fetch->data, &verdict);
    decoded(fetch, &verdict);
}

static void claim_done(sf_claim *c)
{
    sf_fetch *fetch = c->ctx;
    sf_error e = *c->error;

    if (e.code == SF_OK && !fetch->cancelled) {
        fetch_enter(fetch, SF_FETCH_DECODING);
        return;
    }
    sf__claim_end(c);
    data_drop(fetch);
    if (e.code == SF_OK) /* cancelled when its turn had come */
        sf_fail(&e, SF_CANCELLED, "cancelled");
    sf__store_error_name(&e, "get", fetch->store, fetch->key);
    fetch_end(fetch, &e);
}

static void claim_start(sf_fetch *fetch)
{
    struct fetch_heavy *h = heavy_of(fetch);

    if (!h) {
        data_drop(fetch);
        fetch_fail(fetch, SF_NOMEM, "unpacking it");
        return;
    }
    h->claim.done = claim_done;
    h->claim.ctx = fetch;
    sf__claim_start(&fetch->fetcher->budget, &h->claim, fetch->plain_bytes, fetch->deadline_ns); /* ends in claim_done() */
}

/* ---------------------------------------------------------------- the machine ----------------------------------- */

static void fetch_enter(sf_fetch *fetch, sf_fetch_state next)
{
    fetch->state = next;
    switch (next) {
    case SF_FETCH_READING:
        reading_start(fetch); /* ends in fetch_home(), or fetch_on_task() */
        break;
    case SF_FETCH_DECODING:
        decode_start(fetch); /* ends in decoded() */
        break;
    case SF_FETCH_CLAIMING:
        claim_start(fetch);
        break;
    case SF_FETCH_IDLE:
    case SF_FETCH_DONE: /* fetch_end() */
        break;
    }
}

void sf__fetch_start(sf_fetcher *f, sf_fetch *fetch)
{
    assert(sf__loop_is_current(f->loop));
    fetch->fetcher = f;
    fetch->error = &sf__no_error;
    fetch->data = NULL;
    fetch->object_size = 0;
    fetch->not_modified = false;
    fetch->etag = "";
    fetch->again = fetch->shared = fetch->cancelled = fetch->decoded = false;
    fetch->from_disk = fetch->disk_tried = fetch->disk_old = false;
    fetch->flight = NULL;
    fetch->heavy = NULL;
    fetch->on_disk = NULL;
    fetch->timer = (sf_timer){.fire = waiter_on_deadline};
    fetch_enter(fetch, SF_FETCH_READING);
}

void sf__fetch_cancel(sf_fetch *fetch)
{
    if (!may_leave(fetch)) {
        fetch->cancelled = true;
    } else if (fetch->state == SF_FETCH_READING && (fetch->flight || fetch->on_disk)) {
        if (fetch->flight)
            waiter_leave(fetch->flight, fetch);
        else
            disk_leave(fetch);
        fetch_end_later(fetch, SF_CANCELLED);
    } else if (fetch->state == SF_FETCH_DECODING ||
               fetch->state == SF_FETCH_READING) { /* the latter: its task is in the inbox */
        fetch->cancelled = true;
    } else if (fetch->state == SF_FETCH_CLAIMING) {
        fetch->cancelled = true;
        sf__claim_cancel(&fetch->heavy->claim);
    }
}
