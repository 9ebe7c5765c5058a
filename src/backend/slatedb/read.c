/*   FETCHING --> DECODING --> DONE
 *      |  ^         |          ^
 *      |  +-damaged-+          |      damaged for the first time
 *      +-----------------------+ */
#include "backend/slatedb/read.h"

#include <stdio.h>

#include "base/error.h"

static void read_enter(sf_read *r, sf_read_state next);

static void decode_now(sf_read *r)
{
    sf_buf *data = r->fetch.data;

    r->verdict = (sf_error)SF_ERROR_INIT;
    if (r->len != SF_STORE_ALL && data->n != r->len)
        sf_fail(&r->verdict, SF_CORRUPT, "%zu bytes instead of %llu", data->n, (unsigned long long)r->len);
    else
        r->verdict.code = r->decode(r, data, &r->verdict);
}

static void decoded(sf_read *r)
{
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
        read_enter(r, SF_READ_DECODING);
        return;
    }
    r->error = f->error;
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
    case SF_READ_DECODING:
        if (r->fetch.data->n > SF_READ_WORKER_BYTES) {
            r->work = (sf_work){.run = work_run, .done = work_done};
            sf__work_submit(r->rt->loop, &r->work); /* ends in work_done() */
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
    else if (r->state == SF_READ_DECODING)
        r->cancelled = true;
}
