/*   FETCHING --> DECODING <--> CLAIMING --> DONE    CLAIMING: it unpacks to so much that the budget is asked first
 *      |  ^         |  |                     ^
 *      |  +-damaged-+  +---------------------+      damaged for the first time
 *      +-------------------------------------+ */
#include "backend/slatedb/read.h"

#include <stdio.h>

#include "base/error.h"

#define MORE_ROOM 8u

static void read_enter(sf_read *r, sf_read_state next);

static void decode_now(sf_read *r)
{
    sf_buf *data = r->fetch.data;

    r->plain = (sf_plain_room){.left = r->plain_bytes};
    r->room = r->packed ? &r->plain : NULL;
    r->verdict = (sf_error)SF_ERROR_INIT;
    if (r->len != SF_STORE_ALL && data->n != r->len)
        sf_fail(&r->verdict, SF_CORRUPT, "%zu bytes instead of %llu", data->n, (unsigned long long)r->len);
    else
        r->verdict.code = r->decode(r, data, &r->verdict);
}

/* What the next try gets: what is known to be needed, or so much more that the tries before do not count. */
static uint64_t more_room(const sf_read *r)
{
    uint64_t used = r->plain_bytes - r->plain.left;

    return r->plain.wanted > 0 ? used + r->plain.wanted : r->plain_bytes * MORE_ROOM;
}

static void decoded(sf_read *r)
{
    sf__fetch_claim_end(&r->claim);
    if (r->verdict.code == SF_WOULD_BLOCK && !r->cancelled) {
        r->plain_bytes = more_room(r);
        read_enter(r, SF_READ_CLAIMING);
        return;
    }
    sf__buf_release(r->fetch.data);
    r->fetch.data = NULL;
    if (r->cancelled) {
        sf_fail(&r->error, SF_CANCELLED, "cancelled");
    } else if (r->verdict.code == SF_CORRUPT && !r->again) {
        r->again = true;
        read_enter(r, SF_READ_FETCHING);
        return;
    } else {
        r->error = r->verdict;
        if (r->error.code != SF_OK) {
            char url[sizeof(r->error.object)];

            sf__store_object_url(r->store, r->key, url, sizeof(url));
            sf_error_prefix(&r->error, r->error.code, "%s at %llu: ", url, (unsigned long long)r->off);
            sf_error_object(&r->error, url);
            snprintf(r->error.operation, sizeof(r->error.operation), "get");
        }
    }
    read_enter(r, SF_READ_DONE);
}

static void work_run(sf_work *w)
{
    decode_now((sf_read *)((char *)w - offsetof(sf_read, work)));
}

static void work_done(sf_work *w)
{
    decoded((sf_read *)((char *)w - offsetof(sf_read, work)));
}

static void fetch_done(sf_fetch *f)
{
    sf_read *r = f->ctx;

    if (f->error.code == SF_OK) {
        r->plain_bytes = SF_READ_LOOP_PLAIN_BYTES;
        read_enter(r, SF_READ_DECODING);
        return;
    }
    r->error = f->error;
    read_enter(r, SF_READ_DONE);
}

static void claim_done(sf_fetch_claim *c)
{
    sf_read *r = c->ctx;

    if (c->error.code == SF_OK && !r->cancelled) {
        read_enter(r, SF_READ_DECODING);
        return;
    }
    sf__fetch_claim_end(c);
    sf__buf_release(r->fetch.data);
    r->fetch.data = NULL;
    r->error = c->error;
    if (r->error.code == SF_OK) /* cancelled when its turn had come */
        sf_fail(&r->error, SF_CANCELLED, "cancelled");
    sf__store_error_name(&r->error, "get", r->store, r->key);
    read_enter(r, SF_READ_DONE);
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
            .error = SF_ERROR_INIT,
        };
        sf__fetch_start(r->rt->fetcher, &r->fetch); /* ends in fetch_done() */
        break;
    case SF_READ_CLAIMING:
        r->claim.done = claim_done;
        r->claim.ctx = r;
        sf__fetch_claim(r->rt->fetcher, &r->claim, r->plain_bytes, r->deadline_ns); /* ends in claim_done() */
        break;
    case SF_READ_DECODING:
        if (r->fetch.data->n > SF_READ_WORKER_BYTES || r->plain_bytes > SF_READ_LOOP_PLAIN_BYTES) {
            r->work = (sf_work){.run = work_run, .done = work_done};
            sf__work_submit(r->rt->loop, SF_WORK_CPU, &r->work); /* ends in work_done() */
        } else {
            decode_now(r);
            decoded(r);
        }
        break;
    case SF_READ_DONE:
        r->done(r); /* r may be gone: nothing after this line */
        break;
    }
}

void sf__read_start(sf_read *r)
{
    r->error = (sf_error)SF_ERROR_INIT;
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
        sf__fetch_claim_cancel(&r->claim);
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
