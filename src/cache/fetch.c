#include "cache/fetch.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

#define FIRST_BUCKETS 64u
/* What a whole object is asked for with at first: its size is not known before the answer, and its bound is no guess at it
 * (pointers and manifests of a few hundred bytes are read under bounds of up to 64 MiB). One that turns out to be longer is
 * asked for again, with what it needs reserved. */
#define WHOLE_OBJECT_BYTES (UINT64_C(256) << 10)

/*      +--------+                        longer than what was reserved for it: again, in the line, with more; twice at most
 *      v        |
 *   QUEUED --> SENT --> DELIVERING       in the table while QUEUED or SENT: only then may another read join
 *      |        |            ^
 *      |        +-> ABANDONED -> gone    nobody waits any more: the request is cancelled, its slot is given back when
 *      +----------> gone                 it has ended */
enum flight_state { FLIGHT_QUEUED, FLIGHT_SENT, FLIGHT_ABANDONED, FLIGHT_DELIVERING };

/* What is handed to a store. It is large, and only those that have their turn need one: many more may wait. */
struct request {
    sf_store_op op;
    struct request *next; /* the next spare one */
};

/* One read and those who wait for it. */
struct flight {
    sf_fetch_slot slot; /* first */
    sf_fetcher *fetcher;
    enum flight_state state;
    bool suffix;
    uint64_t hash;
    struct flight *chain;
    sf_fetch *first, *last;
    sf_store *store; /* acquired */
    uint64_t off, len;
    uint64_t max_bytes; /* of a whole object, by those who wait */
    uint64_t allowed;   /* of a whole object: what is reserved for it */
    char key[];
};

/*   QUEUED --> SENT --> ENDED */
enum list_state { LIST_QUEUED, LIST_SENT, LIST_ENDED };

struct list_job {
    sf_fetch_slot slot; /* first */
    sf_fetcher *fetcher;
    enum list_state state;
    sf_store_listing *listing;
    void (*done)(sf_store_listing *l); /* the owner's, while we stand in its place */
    void *ctx;
    sf_timer deadline; /* while queued */
    uint64_t since_ns;
    sf_task task;
};

struct sf_fetcher {
    /* set at creation */
    sf_loop *loop;
    const sf_allocator *alloc;
    uint32_t max_requests;
    uint64_t max_bytes;
    sf_fetch_observer observer;
    void *observer_ctx;
    /* loop thread */
    sf_fetch_slot *first, *last; /* those that wait */
    struct request *spare;       /* at least one while none is out, so that reads go on without memory */
    size_t spare_count;
    struct flight **buckets;
    size_t bucket_count, flight_count;
    /* written by the loop thread (`bytes_held` by any), read by any */
    atomic_uint_fast64_t requests, bytes_fetched, shared, requests_in_flight, bytes_in_flight, waiting, bytes_held;
};

static void add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void subtract(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_sub_explicit(counter, n, memory_order_relaxed);
}

static uint64_t value(atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---------------------------------------------------------------- turns ----------------------------------------- */

static void flight_go(sf_fetch_slot *slot);

static void slot_unqueue(sf_fetcher *f, sf_fetch_slot *s)
{
    *(s->prev ? &s->prev->next : &f->first) = s->next;
    *(s->next ? &s->next->prev : &f->last) = s->prev;
    subtract(&f->waiting, 1);
}

static struct request *request_take(sf_fetcher *f)
{
    struct request *r = f->spare;

    if (!r)
        return sf__alloc(f->alloc, sizeof(*r));
    f->spare = r->next;
    f->spare_count--;
    return r;
}

/* Kept for the next ones are as many as are out, and one. */
static void request_give_back(sf_fetcher *f, struct request *r)
{
    sf__store_op_cleanup(&r->op, f->alloc);
    r->next = f->spare;
    f->spare = r;
    f->spare_count++;
    while (f->spare_count > value(&f->requests_in_flight) + 1) {
        r = request_take(f);
        sf__free(f->alloc, r);
    }
}

/* Whatever wants nothing, or is alone, has room: so nothing waits for ever. */
static bool has_room(sf_fetcher *f, uint64_t bytes)
{
    uint64_t in_flight = value(&f->bytes_in_flight), held = value(&f->bytes_held);
    uint64_t most = f->max_bytes - (held < f->max_bytes / 2 ? held : f->max_bytes / 2);

    return bytes == 0 || in_flight == 0 || (in_flight <= most && bytes <= most - in_flight);
}

/* Without memory for its request a read waits until another one has ended, which gives back its own. */
static bool slot_ready(sf_fetcher *f, sf_fetch_slot *s)
{
    if (s->requests > 0 && value(&f->requests_in_flight) >= f->max_requests)
        return false;
    if (!has_room(f, s->bytes))
        return false;
    if (s->go == flight_go)
        s->request = request_take(f);
    return s->go != flight_go || s->request;
}

/* Gives turns to those who have waited longest, strictly in order: a large read must not be overtaken for ever. No
 * callback of anybody runs in here, stores complete later. */
static void pump(sf_fetcher *f)
{
    while (f->first && slot_ready(f, f->first)) {
        sf_fetch_slot *s = f->first;

        slot_unqueue(f, s);
        add(&f->requests_in_flight, s->requests);
        add(&f->bytes_in_flight, s->bytes);
        s->go(s);
    }
}

static void slot_wait(sf_fetcher *f, sf_fetch_slot *s, uint64_t bytes)
{
    s->bytes = bytes < f->max_bytes ? bytes : f->max_bytes;
    s->requests = 1;
    s->next = NULL;
    s->prev = f->last;
    *(f->last ? &f->last->next : &f->first) = s;
    f->last = s;
    add(&f->waiting, 1);
    pump(f);
}

static void slot_end(sf_fetcher *f, sf_fetch_slot *s)
{
    subtract(&f->requests_in_flight, s->requests);
    subtract(&f->bytes_in_flight, s->bytes);
    pump(f);
}

static void observe(sf_fetcher *f, const sf_store *store, uint64_t requests, uint64_t bytes)
{
    add(&f->requests, requests);
    add(&f->bytes_fetched, bytes);
    if (f->observer)
        f->observer(f->observer_ctx, store, requests, bytes);
}

/* ---------------------------------------------------------------- table of flights ------------------------------ */

static uint64_t fetch_hash(const sf_fetch *fetch)
{
    uint64_t words[5] = {(uint64_t)(uintptr_t)fetch->store, sf__xxh3_64(sf_bytes_str(fetch->key)), fetch->off,
                         fetch->len, fetch->suffix};

    return sf__xxh3_64(sf_bytes_of(words, sizeof(words)));
}

static bool flight_serves(const struct flight *fl, const sf_fetch *fetch)
{
    return fl->store == fetch->store && fl->off == fetch->off && fl->len == fetch->len && fl->suffix == fetch->suffix &&
           (fetch->len != SF_STORE_ALL || fl->max_bytes == fetch->max_bytes) && strcmp(fl->key, fetch->key) == 0;
}

static struct flight *table_find(sf_fetcher *f, uint64_t hash, const sf_fetch *fetch)
{
    struct flight *fl = f->buckets[hash & (f->bucket_count - 1)];

    while (fl && !(fl->hash == hash && flight_serves(fl, fetch)))
        fl = fl->chain;
    return fl;
}

/* Without memory the chains grow longer instead. */
static void table_grow(sf_fetcher *f)
{
    size_t count = f->bucket_count * 2;
    struct flight **buckets = sf__calloc(f->alloc, count, sizeof(struct flight *));

    if (!buckets)
        return;
    for (size_t i = 0; i < f->bucket_count; i++) {
        for (struct flight *fl = f->buckets[i], *next; fl; fl = next) {
            struct flight **link = &buckets[fl->hash & (count - 1)];

            next = fl->chain;
            fl->chain = *link;
            *link = fl;
        }
    }
    sf__free(f->alloc, f->buckets);
    f->buckets = buckets;
    f->bucket_count = count;
}

static void table_add(sf_fetcher *f, struct flight *fl)
{
    struct flight **link;

    if (++f->flight_count > f->bucket_count)
        table_grow(f);
    link = &f->buckets[fl->hash & (f->bucket_count - 1)];
    fl->chain = *link;
    *link = fl;
}

static void table_remove(sf_fetcher *f, struct flight *fl)
{
    struct flight **link = &f->buckets[fl->hash & (f->bucket_count - 1)];

    while (*link != fl)
        link = &(*link)->chain;
    *link = fl->chain;
    f->flight_count--;
}

/* ---------------------------------------------------------------- waiters --------------------------------------- */

static void flight_enter(struct flight *fl, enum flight_state next);

/* While it has its turn, and until it has been delivered. */
static struct request *flight_request(const struct flight *fl)
{
    return fl->slot.request;
}

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

/* The last thing that a read does. */
static void fetch_end(sf_fetch *fetch, const sf_error *e)
{
    fetch->error = e;
    fetch->done(fetch);
}

/* For one whose turn has not come. */
static void turn_overdue(sf_fetcher *f, uint64_t since_ns, sf_error *err)
{
    char what[128];

    snprintf(what, sizeof(what), "its turn behind %llu requests and %llu bytes under way",
             (unsigned long long)value(&f->requests_in_flight), (unsigned long long)value(&f->bytes_in_flight));
    sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = what});
}

static void fetch_on_task(sf_task *task)
{
    sf_fetch *fetch = sf_container_of(task, sf_fetch, task);
    sf_error e;

    sf_fail(&e, fetch->ended, "%s", fetch->ended == SF_NOMEM ? "request" : "cancelled");
    sf__store_error_name(&e, "get", fetch->store, fetch->key);
    fetch_end(fetch, &e);
}

static void fetch_end_later(sf_fetcher *f, sf_fetch *fetch, sf_status rc)
{
    fetch->ended = rc;
    fetch->task.run = fetch_on_task;
    sf__loop_post(f->loop, &fetch->task);
}

/* One waiter goes before the answer has come; with the last one the request is not worth its slot any
 * more. */
static void waiter_leave(struct flight *fl, sf_fetch *fetch)
{
    waiter_detach(fl, fetch);
    if (!fl->first && fl->state != FLIGHT_DELIVERING)
        flight_enter(fl, FLIGHT_ABANDONED);
}

void sf__fetch_overdue(const sf_fetch *fetch, uint64_t since_ns, sf_error *err)
{
    const struct flight *fl = fetch->flight;

    if (fl && fl->state == FLIGHT_SENT) {
        sf__store_op_overdue(&flight_request(fl)->op, since_ns, err);
        return;
    }
    if (fl && fl->state == FLIGHT_QUEUED)
        turn_overdue(fl->fetcher, since_ns, err);
    else
        sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns});
    sf__store_error_name(err, "get", fetch->store, fetch->key);
}

static void waiter_on_deadline(sf_timer *timer)
{
    sf_fetch *fetch = sf_container_of(timer, sf_fetch, timer);
    sf_error e;

    sf__fetch_overdue(fetch, fetch->since_ns, &e);
    waiter_leave(fetch->flight, fetch);
    fetch_end(fetch, &e);
}

/* ---------------------------------------------------------------- flights --------------------------------------- */

static void flight_free(struct flight *fl)
{
    sf_fetcher *f = fl->fetcher;

    if (fl->slot.request)
        request_give_back(f, fl->slot.request);
    sf__store_release(fl->store);
    sf__free(f->alloc, fl);
    pump(f); /* somebody may have waited for the request, or behind this one */
}

/* Waiters may cancel each other, or start new reads, from inside their completions: the list is read anew each time. */
static void flight_deliver(struct flight *fl)
{
    sf_store_op *op = &flight_request(fl)->op;

    while (fl->first) {
        sf_fetch *fetch = fl->first;

        waiter_detach(fl, fetch);
        if (op->error.code == SF_OK) {
            fetch->data = sf__buf_acquire(op->data);
            fetch->object_size = op->object_size;
        }
        fetch_end(fetch, &op->error);
    }
    flight_free(fl);
}

/* What is handed on is what was asked for, whoever wrote the store. */
static void flight_check(struct flight *fl)
{
    sf_store_op *op = &flight_request(fl)->op;
    uint64_t n = sf__buf_bytes(op->data).n;
    bool right = op->len == SF_STORE_ALL || (op->verb == SF_STORE_GET_SUFFIX ? n <= op->len : n == op->len);
    char url[sizeof(op->error.object)];

    if (op->error.code != SF_OK || right)
        return;
    sf__buf_release(op->data);
    op->data = NULL;
    sf__store_object_url(fl->store, fl->key, url, sizeof(url));
    sf_fail(&op->error, SF_CORRUPT, "get %s: %llu bytes came, %llu were asked for", url, (unsigned long long)n,
            (unsigned long long)op->len);
    sf_error_object(&op->error, url);
    snprintf(op->error.operation, sizeof(op->error.operation), "get");
}

/* A store reads no more than was reserved; when the object has more, and may, that is not the end of it. The next request
 * is bounded by the length that was told; should the object have grown meanwhile, the last one by the bound itself. */
static bool flight_may_grow(struct flight *fl)
{
    sf_store_op *op = &flight_request(fl)->op;
    bool told = op->longer != SF_STORE_ALL;
    char url[sizeof(op->error.object)];

    if (op->error.code != SF_CORRUPT || op->longer == 0 || fl->allowed >= fl->max_bytes)
        return false;
    if (told && op->longer > fl->max_bytes) {
        sf__store_object_url(fl->store, fl->key, url, sizeof(url));
        sf_fail(&op->error, SF_CORRUPT, "get %s: object of %llu bytes, at most %llu expected", url,
                (unsigned long long)op->longer, (unsigned long long)fl->max_bytes);
        sf_error_object(&op->error, url);
        snprintf(op->error.operation, sizeof(op->error.operation), "get");
        return false;
    }
    fl->allowed = told && fl->allowed == WHOLE_OBJECT_BYTES && op->longer > fl->allowed ? op->longer : fl->max_bytes;
    return true;
}

static void flight_on_done(sf_store_op *op)
{
    struct flight *fl = op->ctx;
    sf_fetcher *f = fl->fetcher;

    flight_check(fl);
    observe(f, fl->store, 1, op->error.code == SF_OK && op->data ? op->data->n : 0);
    slot_end(f, &fl->slot);
    if (fl->state == FLIGHT_ABANDONED) {
        flight_free(fl);
    } else if (!flight_may_grow(fl)) {
        flight_enter(fl, FLIGHT_DELIVERING);
    } else {
        request_give_back(f, flight_request(fl));
        fl->slot.request = NULL;
        flight_enter(fl, FLIGHT_QUEUED);
    }
}

static void flight_go(sf_fetch_slot *slot)
{
    flight_enter((struct flight *)slot, FLIGHT_SENT);
}

static void flight_send(struct flight *fl)
{
    struct request *r = fl->slot.request;

    r->op = (sf_store_op){
        .verb = fl->suffix ? SF_STORE_GET_SUFFIX : SF_STORE_GET,
        .key = fl->key,
        .off = fl->off,
        .len = fl->len,
        .max_bytes = fl->allowed,
        /* every waiter has a deadline of its own, and later ones may be more patient than the first */
        .deadline_ns = SF_NO_DEADLINE,
        .done = flight_on_done,
        .ctx = fl,
    };
    sf__store_submit(fl->store, &r->op);
}

static void flight_enter(struct flight *fl, enum flight_state next)
{
    enum flight_state before = fl->state;
    sf_fetcher *f = fl->fetcher;

    fl->state = next;
    switch (next) {
    case FLIGHT_QUEUED:
        /* ends in flight_go() */
        slot_wait(f, &fl->slot, fl->len == SF_STORE_ALL ? fl->allowed : fl->len);
        break;
    case FLIGHT_SENT:
        flight_send(fl); /* ends in flight_on_done() */
        break;
    case FLIGHT_ABANDONED:
        table_remove(f, fl);
        if (before == FLIGHT_SENT) {
            sf__store_cancel(fl->store, &flight_request(fl)->op); /* ends in flight_on_done() */
            break;
        }
        slot_unqueue(f, &fl->slot);
        flight_free(fl);
        break;
    case FLIGHT_DELIVERING:
        table_remove(f, fl);
        flight_deliver(fl); /* fl is gone */
        break;
    }
}

static struct flight *flight_new(sf_fetcher *f, const sf_fetch *fetch, uint64_t hash)
{
    size_t n = strlen(fetch->key) + 1;
    struct flight *fl = sf__calloc(f->alloc, 1, sizeof(*fl) + n);

    if (!fl)
        return NULL;
    fl->slot.go = flight_go;
    fl->fetcher = f;
    fl->suffix = fetch->suffix;
    fl->hash = hash;
    fl->off = fetch->off;
    fl->len = fetch->len;
    fl->max_bytes = fetch->len == SF_STORE_ALL ? fetch->max_bytes : 0;
    fl->allowed = fl->max_bytes < WHOLE_OBJECT_BYTES ? fl->max_bytes : WHOLE_OBJECT_BYTES;
    fl->store = sf__store_acquire(fetch->store);
    memcpy(fl->key, fetch->key, n);
    return fl;
}

void sf__fetch_start(sf_fetcher *f, sf_fetch *fetch)
{
    uint64_t hash = fetch_hash(fetch);
    struct flight *fl = table_find(f, hash, fetch);

    assert(sf__loop_is_current(f->loop));
    fetch->data = NULL;
    fetch->object_size = 0;
    fetch->flight = NULL;
    fetch->timer = (sf_timer){.fire = waiter_on_deadline};
    fetch->since_ns = sf__clock_mono_ns();
    if (fl) {
        add(&f->shared, 1);
        waiter_attach(fl, fetch);
        return;
    }
    fl = flight_new(f, fetch, hash);
    if (!fl) {
        fetch_end_later(f, fetch, SF_NOMEM);
        return;
    }
    table_add(f, fl);
    waiter_attach(fl, fetch);
    flight_enter(fl, FLIGHT_QUEUED);
}

void sf__fetch_cancel(sf_fetcher *f, sf_fetch *fetch)
{
    assert(sf__loop_is_current(f->loop));
    if (!fetch->flight) /* completed, or its completion is in the inbox */
        return;
    waiter_leave(fetch->flight, fetch);
    fetch_end_later(f, fetch, SF_CANCELLED);
}

/* ---------------------------------------------------------------- claims ---------------------------------------- */

static void claim_on_task(sf_task *task)
{
    sf_fetch_claim *c = sf_container_of(task, sf_fetch_claim, task);

    c->done(c);
}

static void claim_over(sf_fetch_claim *c)
{
    c->waiting = false;
    sf__timer_stop(c->fetcher->loop, &c->timer);
    c->task.run = claim_on_task;
    sf__loop_post(c->fetcher->loop, &c->task);
}

static void claim_go(sf_fetch_slot *slot)
{
    sf_fetch_claim *c = (sf_fetch_claim *)slot;

    c->held = true;
    claim_over(c);
}

static void claim_give_up(sf_fetch_claim *c)
{
    slot_unqueue(c->fetcher, &c->slot);
    claim_over(c);
    pump(c->fetcher); /* it stood in the way of the others */
}

static void claim_on_deadline(sf_timer *timer)
{
    sf_fetch_claim *c = sf_container_of(timer, sf_fetch_claim, timer);

    turn_overdue(c->fetcher, c->since_ns, &c->error);
    claim_give_up(c);
}

void sf__fetch_claim(sf_fetcher *f, sf_fetch_claim *c, uint64_t bytes, uint64_t deadline_ns)
{
    assert(sf__loop_is_current(f->loop));
    c->slot = (sf_fetch_slot){.bytes = bytes < f->max_bytes ? bytes : f->max_bytes, .go = claim_go, .next = f->first};
    c->fetcher = f;
    c->waiting = true;
    c->held = false;
    c->since_ns = sf__clock_mono_ns();
    c->error = (sf_error)SF_ERROR_INIT;
    c->timer = (sf_timer){.fire = claim_on_deadline};
    sf__timer_start(f->loop, &c->timer, deadline_ns);
    *(f->first ? &f->first->prev : &f->last) = &c->slot;
    f->first = &c->slot;
    add(&f->waiting, 1);
    pump(f);
}

void sf__fetch_claim_cancel(sf_fetch_claim *c)
{
    if (!c->waiting)
        return;
    sf_fail(&c->error, SF_CANCELLED, "cancelled");
    claim_give_up(c);
}

void sf__fetch_claim_end(sf_fetch_claim *c)
{
    if (!c->held)
        return;
    c->held = false;
    slot_end(c->fetcher, &c->slot);
}

/* ---------------------------------------------------------------- listings -------------------------------------- */

static void list_enter(struct list_job *job, enum list_state next);

static void list_on_done(sf_store_listing *l)
{
    struct list_job *job = l->ctx;
    sf_fetcher *f = job->fetcher;

    observe(f, l->store, l->pages, 0);
    slot_end(f, &job->slot);
    list_enter(job, LIST_ENDED);
}

static void list_on_task(sf_task *task)
{
    list_enter(sf_container_of(task, struct list_job, task), LIST_ENDED);
}

/* Did not get its turn; the listing has its error. */
static void list_give_up(struct list_job *job)
{
    sf_store_listing *l = job->listing;

    sf__store_error_name(&l->error, "list", l->store, l->prefix);
    sf__timer_stop(job->fetcher->loop, &job->deadline);
    slot_unqueue(job->fetcher, &job->slot);
    pump(job->fetcher);
    job->state = LIST_ENDED; /* list_enter() follows through the inbox; until then a second cancel finds nothing */
    job->task.run = list_on_task;
    sf__loop_post(job->fetcher->loop, &job->task);
}

static void list_on_deadline(sf_timer *timer)
{
    struct list_job *job = sf_container_of(timer, struct list_job, deadline);

    turn_overdue(job->fetcher, job->since_ns, &job->listing->error);
    list_give_up(job);
}

static void list_go(sf_fetch_slot *slot)
{
    list_enter((struct list_job *)slot, LIST_SENT);
}

static void list_enter(struct list_job *job, enum list_state next)
{
    sf_fetcher *f = job->fetcher;
    sf_store_listing *l = job->listing;

    job->state = next;
    switch (next) {
    case LIST_QUEUED:
        job->deadline.fire = list_on_deadline;
        sf__timer_start(f->loop, &job->deadline, l->deadline_ns);
        slot_wait(f, &job->slot, 0); /* ends in list_go(), or in list_give_up() */
        break;
    case LIST_SENT:
        sf__timer_stop(f->loop, &job->deadline);
        sf__store_list_all(l); /* ends in list_on_done() */
        break;
    case LIST_ENDED:
        l->done = job->done;
        l->ctx = job->ctx;
        sf__free(f->alloc, job);
        l->done(l); /* l is the owner's again: nothing after this line */
        break;
    }
}

void sf__fetcher_list(sf_fetcher *f, sf_store_listing *l)
{
    struct list_job *job = sf__calloc(f->alloc, 1, sizeof(*job));

    assert(sf__loop_is_current(f->loop));
    if (!job) { /* no memory to wait in line: the store is asked at once, and most likely answers the same */
        sf__store_list_all(l);
        return;
    }
    job->slot.go = list_go;
    job->fetcher = f;
    job->listing = l;
    job->since_ns = sf__clock_mono_ns();
    job->done = l->done;
    job->ctx = l->ctx;
    l->done = list_on_done;
    l->ctx = job;
    list_enter(job, LIST_QUEUED);
}

void sf__fetcher_list_cancel(sf_fetcher *f, sf_store_listing *l)
{
    struct list_job *job = l->ctx;

    assert(sf__loop_is_current(f->loop));
    if (l->done != list_on_done) /* completed, or it never got a job */
        return;
    if (job->state == LIST_QUEUED) {
        sf_fail(&l->error, SF_CANCELLED, "cancelled");
        list_give_up(job);
    } else if (job->state == LIST_SENT) {
        sf__store_list_cancel(l);
    }
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

sf_status sf__fetcher_new(sf_fetcher **out, sf_loop *loop, const sf_allocator *a, uint32_t max_requests,
                          uint64_t max_bytes, sf_error *err)
{
    sf_fetcher *f;

    if (max_requests == 0 || max_bytes == 0)
        return sf_fail(err, SF_INVALID, "the bounds on requests and bytes in flight must not be 0");
    f = sf__calloc(a, 1, sizeof(*f));
    if (!f)
        return sf_fail(err, SF_NOMEM, "fetcher");
    f->buckets = sf__calloc(a, FIRST_BUCKETS, sizeof(struct flight *));
    f->spare = sf__calloc(a, 1, sizeof(*f->spare));
    if (!f->buckets || !f->spare) {
        sf__free(a, f->spare);
        sf__free(a, f->buckets);
        sf__free(a, f);
        return sf_fail(err, SF_NOMEM, "fetcher");
    }
    f->bucket_count = FIRST_BUCKETS;
    f->spare_count = 1;
    f->loop = loop;
    f->alloc = a;
    f->max_requests = max_requests;
    f->max_bytes = max_bytes;
    *out = f;
    return SF_OK;
}

void sf__fetcher_free(sf_fetcher *f)
{
    if (!f)
        return;
    assert(!f->first && value(&f->requests_in_flight) == 0);
    for (struct request *r = f->spare, *next; r; r = next) {
        next = r->next;
        sf__free(f->alloc, r);
    }
    sf__free(f->alloc, f->buckets);
    sf__free(f->alloc, f);
}

void sf__fetcher_observe(sf_fetcher *f, sf_fetch_observer observer, void *ctx)
{
    f->observer = observer;
    f->observer_ctx = ctx;
}

void sf__fetcher_hold(sf_fetcher *f, size_t bytes)
{
    add(&f->bytes_held, bytes);
}

void sf__fetcher_let_go(sf_fetcher *f, size_t bytes)
{
    subtract(&f->bytes_held, bytes);
}

void sf__fetcher_get_stats(sf_fetcher *f, sf_fetch_stats *out)
{
    *out = (sf_fetch_stats){
        .requests = value(&f->requests),
        .bytes_fetched = value(&f->bytes_fetched),
        .shared = value(&f->shared),
        .requests_in_flight = value(&f->requests_in_flight),
        .bytes_in_flight = value(&f->bytes_in_flight),
        .waiting = value(&f->waiting),
        .bytes_held = value(&f->bytes_held),
    };
}
