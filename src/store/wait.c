#include "store/wait.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* *e is how it ended; *err gets a copy. */
static sf_status report(sf_error *e, sf_wait_end end, const char *verb, const sf_store *store, const char *key,
                        sf_error *err)
{
    if (end == SF_WAIT_LATE && e->code == SF_CANCELLED) {
        sf_error_overdue(e, &(sf_overdue){.attempts = e->attempts});
        sf__store_error_name(e, verb, store, key);
    }
    if (e->code != SF_OK && err)
        *err = *e;
    return e->code;
}

/* ------------------------------------------------------------------ single operations ---------------------------- */

static sf_waited_op *op_of(sf_waited *w)
{
    return sf_container_of(w, sf_waited_op, waited);
}

static void op_start(sf_waited *w)
{
    sf__store_submit(op_of(w)->op.store, &op_of(w)->op);
}

static void op_cancel(sf_waited *w)
{
    sf__store_cancel(op_of(w)->op.store, &op_of(w)->op);
}

static void op_done(sf_store_op *op)
{
    sf__waited_finish(op->ctx);
}

void sf__store_wait_start(sf_waiter *w, sf_store *store, sf_waited_op *op)
{
    sf__store_op_digest(store, &op->op);
    op->op.store = store;
    op->op.done = op_done;
    op->op.ctx = &op->waited;
    op->waited.start = op_start;
    op->waited.cancel = op_cancel;
    sf__wait_start(w, &op->waited);
}

sf_status sf__store_wait_end(sf_waited_op *op, sf_error *err)
{
    sf_wait_end end = sf__wait_for(&op->waited, sf__with_grace(op->op.deadline_ns));

    return report(&op->op.error, end, sf__store_verb_name(op->op.verb), op->op.store, op->op.key, err);
}

sf_status sf__store_wait(sf_store *store, sf_store_op *op, const sf_cancel_flag *cancel, sf_error *err)
{
    sf_waited_op o = {.op = *op};
    sf_waiter w;
    sf_status rc;

    sf__waiter_init(&w, store->loop, cancel);
    sf__store_wait_start(&w, store, &o);
    rc = sf__store_wait_end(&o, err);
    sf__waiter_destroy(&w);
    *op = o.op;
    return rc;
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

struct waited_listing {
    sf_store_listing *l;
    sf_waited waited;
};

static struct waited_listing *listing_of(sf_waited *w)
{
    return sf_container_of(w, struct waited_listing, waited);
}

static void listing_start(sf_waited *w)
{
    sf__store_list_all(listing_of(w)->l);
}

static void listing_cancel(sf_waited *w)
{
    sf__store_list_cancel(listing_of(w)->l);
}

static void listing_done(sf_store_listing *l)
{
    sf__waited_finish(l->ctx);
}

sf_status sf__store_list_wait(sf_store_listing *l, const sf_cancel_flag *cancel, sf_error *err)
{
    struct waited_listing o = {.l = l, .waited = {.start = listing_start, .cancel = listing_cancel}};
    sf_waiter w;
    sf_wait_end end;

    l->done = listing_done;
    l->ctx = &o.waited;
    sf__waiter_init(&w, l->store->loop, cancel);
    sf__wait_start(&w, &o.waited);
    end = sf__wait_for(&o.waited, sf__with_grace(l->deadline_ns));
    sf__waiter_destroy(&w);
    return report(&l->error, end, "list", l->store, l->prefix, err);
}
