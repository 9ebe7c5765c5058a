#include "fault_store.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "store/hedge.h"

struct wrapped {
    fault_store *f;
    void (*done)(sf_store_op *op);
    void *ctx;
    fault_kind kind; /* what happens to the answer */
};

static void fail_op(fault_store *f, sf_store_op *op)
{
    op->longer = 0;
    sf_fail(&f->error, f->status, "injected fault");
    f->error.attempts = f->attempts;
}

/* The answer was complete already: it is ours to say whose it was. */
static void fail_answer(fault_store *f, sf_store_op *op)
{
    char url[sizeof(f->error.object)];

    sf__store_op_cleanup(op, f->base.alloc);
    fail_op(f, op);
    sf__store_object_url(&f->base, op->key, url, sizeof(url));
    sf_error_object(&f->error, url);
    op->error = &f->error;
}

/* What a success becomes. */
static void spoil(fault_store *f, sf_store_op *op, fault_kind kind)
{
    bool body = op->data && op->data->n > 0;
    sf_buf *cut;

    switch (kind) {
    case FAULT_LOSE:
        fail_answer(f, op);
        break;
    case FAULT_BREAK:
        if (op->data)
            fail_answer(f, op);
        break;
    case FAULT_SHORT:
        cut = body ? sf__buf_copy(f->base.alloc, sf_bytes_of(op->data->data, op->data->n - 1)) : NULL;
        if (cut) {
            sf__buf_release(op->data);
            op->data = cut;
        }
        break;
    case FAULT_ETAG:
        snprintf(op->etag, sizeof(op->etag), "\"spoilt\"");
        break;
    default:
        break;
    }
}

static void tell(fault_store *f, sf_store_op *op)
{
    if (op->error->code == SF_OK && f->after)
        f->after(f, op);
    op->done(op);
}

static void on_done(sf_store_op *op)
{
    struct wrapped *w = op->ctx;
    fault_store *f = w->f;
    fault_kind kind = w->kind;
    sf_store_op *late;

    op->done = w->done;
    op->ctx = w->ctx;
    op->store = &f->base;
    free(w);
    if (op->verb == SF_STORE_MULTIPART_PART)
        f->in_flight--;
    if (op->error->code == SF_OK || kind == FAULT_LOSE) /* a refusal is an answer, too */
        spoil(f, op, kind);
    if (kind == FAULT_REORDER && !f->late) {
        f->late = op;
        f->late_error = *op->error;
        return;
    }
    late = f->late;
    f->late = NULL;
    tell(f, op);
    if (!late)
        return;
    late->error = &f->late_error;
    tell(f, late);
}

static void fault_submit(sf_store *store, sf_store_op *op)
{
    fault_store *f = (fault_store *)store;
    struct wrapped *w;
    bool hit;

    f->requests++;
    f->verbs[op->verb]++;
    hit = f->kind != FAULT_NONE && f->at && f->requests >= f->at &&
          (f->for_good || f->requests < f->at + (f->times ? f->times : 1));
    f->fired |= hit;
    if (hit && f->kind == FAULT_REFUSE) {
        fail_op(f, op);
        sf__store_op_finish_later(op, &f->error);
        return;
    }
    if (hit && f->kind == FAULT_HOLD) {
        f->held = op;
        if (f->on_hold)
            atomic_store(f->on_hold, true);
        return;
    }
    w = malloc(sizeof(*w));
    if (!w)
        abort();
    *w = (struct wrapped){f, op->done, op->ctx, hit ? f->kind : FAULT_NONE};
    op->done = on_done;
    op->ctx = w;
    op->store = f->inner;
    if (op->verb == SF_STORE_MULTIPART_PART && ++f->in_flight > f->most_in_flight)
        f->most_in_flight = f->in_flight;
    f->inner->vtable->submit(f->inner, op);
}

static void fault_cancel(sf_store *store, sf_store_op *op)
{
    fault_store *f = (fault_store *)store;

    if (f->held == op || f->late == op) {
        f->held = f->held == op ? NULL : f->held;
        f->late = f->late == op ? NULL : f->late;
        sf__store_op_cleanup(op, store->alloc);
        sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
    } else if (op->store == f->inner) {
        f->inner->vtable->cancel(f->inner, op);
    }
}

static void fault_free(sf_store *store)
{
    fault_store *f = (fault_store *)store;

    sf__store_release(f->inner);
    sf__hedge_release(store->hedge);
    sf__store_fini(store);
    free(f);
}

fault_store *fault_store_new(sf_store *inner)
{
    static const sf_store_vtable vtable = {fault_submit, fault_cancel, fault_free};
    fault_store *f = calloc(1, sizeof(*f));

    if (!f || !sf__store_init(&f->base, &vtable, inner->url, inner->loop, inner->alloc))
        abort();
    f->inner = sf__store_acquire(inner);
    return f;
}

void fault_store_reset(fault_store *f)
{
    f->kind = FAULT_NONE;
    f->at = f->requests = f->times = 0;
    for (int i = 0; i < SF_STORE_VERBS; i++)
        f->verbs[i] = 0;
    f->for_good = f->fired = false;
    f->status = SF_IO;
    f->attempts = 1;
    f->most_in_flight = 0;
    f->after = NULL;
    f->on_hold = NULL;
}

sf_status fault_store_answer(fault_store *f, sf_store_op *op, sf_status code, const char *text)
{
    op->error = &f->error;
    return sf_fail(&f->error, code, "%s", text);
}
