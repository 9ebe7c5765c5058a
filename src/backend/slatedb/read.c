/*   FETCHING --> DECODING <--> CLAIMING --> DONE    CLAIMING: it unpacks to so much that the budget is asked first
 *      |  ^         |  |                     ^
 *      |  +-damaged-+  +---------------------+      damaged for the first time
 *      +-------------------------------------+ */
#include "backend/slatedb/read.h"

#include <stdio.h>

#include "base/container.h"
#include "base/error.h"

#define MORE_ROOM 8u

/* Decoding that does not end where it began, on the loop thread. */
struct read_heavy {
    sf_read *read;
    sf_work work;
    sf_claim claim;
    sf_error verdict;
};

static void read_enter(sf_read *r, sf_read_state next);

static void decode_now(sf_read *r, sf_error *verdict)
{
    sf_buf *data = r->fetch.data;

    r->plain = (sf_plain_room){.left = r->plain_bytes};
    r->room = r->packed ? &r->plain : NULL;
    *verdict = (sf_error)SF_ERROR_INIT;
    if (r->len != SF_STORE_ALL && data->n != r->len)
        sf_fail(verdict, SF_CORRUPT, "%zu bytes instead of %llu", data->n, (unsigned long long)r->len);
    else
        verdict->code = r->decode(r, data, verdict);
}

/* The last thing that a read does. */
static void read_end(sf_read *r, const sf_error *e)
{
    const sf_allocator *a = r->rt->alloc;
    struct read_heavy *heavy = r->heavy; /* `e` may lie in it */

    sf__buf_release(r->fetch.data);
    r->fetch.data = NULL;
    r->error = e;
    r->heavy = NULL;
    r->state = SF_READ_DONE;
    r->done(r); /* r may be gone: nothing of it after this line */
    sf__free(a, heavy);
}

static struct read_heavy *heavy_of(sf_read *r)
{
    if (!r->heavy)
        r->heavy = sf__calloc(r->rt->alloc, 1, sizeof(*r->heavy));
    if (r->heavy)
        r->heavy->read = r;
    return r->heavy;
}

/* What the next try gets: what is known to be needed, or so much more that the tries before do not count. */
static uint64_t more_room(const sf_read *r)
{
    uint64_t used = r->plain_bytes - r->plain.left;

    return r->plain.wanted > 0 ? used + r->plain.wanted : r->plain_bytes * MORE_ROOM;
}

static void decoded(sf_read *r, sf_error *verdict)
{
    if (r->heavy)
        sf__claim_end(&r->heavy->claim);
    if (verdict->code == SF_WOULD_BLOCK && !r->cancelled) {
        r->plain_bytes = more_room(r);
        read_enter(r, SF_READ_CLAIMING);
        return;
    }
    if (r->cancelled) {
        sf_fail(verdict, SF_CANCELLED, "cancelled");
    } else if (verdict->code == SF_CORRUPT && !r->again) {
        sf__buf_release(r->fetch.data);
        r->fetch.data = NULL;
        r->again = true;
        read_enter(r, SF_READ_FETCHING);
        return;
    } else if (verdict->code != SF_OK) {
        char url[sizeof(verdict->object)];

        sf__store_object_url(r->store, r->key, url, sizeof(url));
        sf_error_prefix(verdict, verdict->code, "%s at %llu: ", url, (unsigned long long)r->off);
        sf_error_object(verdict, url);
        snprintf(verdict->operation, sizeof(verdict->operation), "get");
    }
    read_end(r, verdict);
}

static void work_run(sf_work *w)
{
    struct read_heavy *h = sf_container_of(w, struct read_heavy, work);

    decode_now(h->read, &h->verdict);
}

static void work_done(sf_work *w)
{
    struct read_heavy *h = sf_container_of(w, struct read_heavy, work);

    decoded(h->read, &h->verdict);
}

/* On a worker when it is much, and there is memory for that. */
static void decode_start(sf_read *r)
{
    bool much = r->fetch.data->n > SF_READ_WORKER_BYTES || r->plain_bytes > SF_READ_LOOP_PLAIN_BYTES;
    struct read_heavy *h = much ? heavy_of(r) : NULL;
    sf_error verdict;

    if (h) {
        h->work = (sf_work){.run = work_run, .done = work_done};
        sf__work_submit(r->rt->loop, SF_WORK_CPU, &h->work); /* ends in work_done() */
        return;
    }
    decode_now(r, &verdict);
    decoded(r, &verdict);
}

static void fetch_done(sf_fetch *f)
{
    sf_read *r = f->ctx;

    if (f->error->code != SF_OK) {
        read_end(r, f->error);
        return;
    }
    r->plain_bytes = SF_READ_LOOP_PLAIN_BYTES;
    read_enter(r, SF_READ_DECODING);
}

static void claim_done(sf_claim *c)
{
    sf_read *r = c->ctx;

    if (c->error.code == SF_OK && !r->cancelled) {
        read_enter(r, SF_READ_DECODING);
        return;
    }
    sf__claim_end(c);
    if (c->error.code == SF_OK) /* cancelled when its turn had come */
        sf_fail(&c->error, SF_CANCELLED, "cancelled");
    sf__store_error_name(&c->error, "get", r->store, r->key);
    read_end(r, &c->error);
}

static void claim_start(sf_read *r)
{
    struct read_heavy *h = heavy_of(r);
    sf_error e;

    if (!h) {
        sf_fail(&e, SF_NOMEM, "no memory to unpack it");
        sf__store_error_name(&e, "get", r->store, r->key);
        read_end(r, &e);
        return;
    }
    h->claim.done = claim_done;
    h->claim.ctx = r;
    sf__claim_start(&r->rt->fetcher->budget, &h->claim, r->plain_bytes, r->deadline_ns); /* ends in claim_done() */
}

static void read_enter(sf_read *r, sf_read_state next)
{
    r->state = next;
    switch (next) {
    case SF_READ_IDLE:
        break;
    case SF_READ_FETCHING:
        r->fetch = (sf_fetch){
            .store = r->store,
            .key = r->key,
            .off = r->off,
            .len = r->len,
            .max_bytes = r->max_bytes,
            .deadline_ns = r->deadline_ns,
            .done = fetch_done,
            .ctx = r,
        };
        sf__fetch_start(r->rt->fetcher, &r->fetch); /* ends in fetch_done() */
        break;
    case SF_READ_CLAIMING:
        claim_start(r);
        break;
    case SF_READ_DECODING:
        decode_start(r);
        break;
    case SF_READ_DONE: /* read_end() */
        break;
    }
}

void sf__read_start(sf_read *r)
{
    r->error = &sf__no_error;
    r->heavy = NULL;
    r->again = false;
    r->cancelled = false;
    read_enter(r, SF_READ_FETCHING);
}

void sf__read_cancel(sf_read *r)
{
    if (r->state == SF_READ_FETCHING)
        sf__fetch_cancel(r->rt->fetcher, &r->fetch);
    else if (r->state == SF_READ_DECODING || r->state == SF_READ_CLAIMING)
        r->cancelled = true;
    if (r->state == SF_READ_CLAIMING)
        sf__claim_cancel(&r->heavy->claim);
}

void sf__read_overdue(const sf_read *r, uint64_t since_ns, sf_error *err)
{
    if (r->state == SF_READ_FETCHING) {
        sf__fetch_overdue(&r->fetch, since_ns, err);
        return;
    }
    sf_error_overdue(err, &(sf_overdue){.since_ns = since_ns, .waits_for = "its bytes to be unpacked"});
    sf__store_error_name(err, "get", r->store, r->key);
}
