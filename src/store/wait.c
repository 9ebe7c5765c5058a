#include "store/wait.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

/* *kept is how it ended; it is told and dropped. */
static sf_status report(const sf_error **kept, sf_wait_end end, const char *verb, const sf_store *store,
                        const char *key, sf_error *err)
{
    bool late = end == SF_WAIT_LATE && *kept && (*kept)->code == SF_CANCELLED;
    uint32_t attempts = late ? (*kept)->attempts : 0;
    sf_status rc = sf_error_tell(store->alloc, kept, late ? NULL : err);

    if (!late)
        return rc;
    if (err)
        *err = (sf_error)SF_ERROR_INIT;
    sf_error_overdue(err, &(sf_overdue){.attempts = attempts});
    if (err)
        sf__store_error_name(err, verb, store, key);
    return SF_TIMEOUT;
}

static const sf_error *keep(const sf_store *store, const sf_error *e)
{
    return e->code == SF_OK ? NULL : sf_error_keep(store->alloc, e);
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
    sf_waited_op *o = op->ctx;

    o->error = keep(op->store, op->error);
    sf__waited_finish(&o->waited);
}

void sf__store_wait_start(sf_waiter *w, sf_store *store, sf_waited_op *op)
{
    sf__store_op_digest(store, &op->op);
    op->op.store = store;
    op->op.done = op_done;
    op->op.ctx = op;
    op->error = NULL;
    op->waited.start = op_start;
    op->waited.cancel = op_cancel;
    sf__wait_start(w, &op->waited);
}

sf_status sf__store_wait_end(sf_waited_op *op, sf_error *err)
{
    sf_wait_end end = sf__wait_for(&op->waited, sf__with_grace(op->op.deadline_ns));

    return report(&op->error, end, sf__store_verb_name(op->op.verb), op->op.store, op->op.key, err);
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
    const sf_error *error; /* kept */
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
    struct waited_listing *o = l->ctx;

    o->error = keep(l->store, l->error);
    sf__waited_finish(&o->waited);
}

sf_status sf__store_list_wait(sf_store_listing *l, const sf_cancel_flag *cancel, sf_error *err)
{
    struct waited_listing o = {.l = l, .waited = {.start = listing_start, .cancel = listing_cancel}};
    sf_waiter w;
    sf_wait_end end;

    l->done = listing_done;
    l->ctx = &o;
    sf__waiter_init(&w, l->store->loop, cancel);
    sf__wait_start(&w, &o.waited);
    end = sf__wait_for(&o.waited, sf__with_grace(l->deadline_ns));
    sf__waiter_destroy(&w);
    return report(&o.error, end, "list", l->store, l->prefix, err);
}
