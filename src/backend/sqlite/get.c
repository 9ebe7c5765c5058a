/* Look-ups: one job for all keys of an operation. */
#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

struct sqlite_lookup {
    sf_work work;
    sf_sqlite_shard *shard; /* acquired */
    sf_shard_get_many *op;
    sf_cancel_flag cancelled;
    uint64_t since_ns;
};

/* Values are on disk. */
sf_status sf__sqlite_try_get(sf_shard *s, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    (void)s;
    (void)key;
    (void)out;
    (void)err;
    if (place)
        *place = (sf_shard_place){0};
    return SF_WOULD_BLOCK;
}

static sf_sqlite_watch watch_of(const struct sqlite_lookup *l)
{
    return (sf_sqlite_watch){&l->cancelled, l->since_ns, l->op->deadline_ns};
}

static sf_status lookup_key(struct sqlite_lookup *l, sf_sqlite_connection *c, size_t i, sf_error *err)
{
    sf_sqlite_watch watch = watch_of(l);
    sf_status rc;

    if (sf__is_cancelled(&l->cancelled))
        return sf_fail(err, SF_CANCELLED, "%s: cancelled", l->shard->base.url);
    if (sf__clock_mono_ns() >= l->op->deadline_ns)
        rc = sf_error_overdue(err, &(sf_overdue){.since_ns = l->since_ns, .waits_for = "a thread that is free"});
    else
        rc = sf__sqlite_get(c, l->op->asks[i].key, &watch, &l->op->asks[i].value, err);
    if (rc == SF_OK)
        return SF_OK;
    sf_error_prefix(err, rc, "get %s: ", l->shard->base.url);
    sf_error_object(err, l->shard->base.url);
    return rc;
}

static void lookup_run(sf_work *w)
{
    struct sqlite_lookup *l = sf_container_of(w, struct sqlite_lookup, work);
    sf_sqlite_connection *c = NULL;
    sf_error e = SF_ERROR_INIT;
    sf_sqlite_watch watch = watch_of(l);
    sf_status opened = sf__sqlite_shard_take(l->shard, &watch, &c, &e);

    if (opened != SF_OK) {
        sf_error_prefix(&e, opened, "get %s: ", l->shard->base.url);
        sf_error_object(&e, l->shard->base.url);
    }

    for (size_t i = 0; i < l->op->count; i++) {
        sf_status rc = opened == SF_OK ? lookup_key(l, c, i, &e) : opened;

        if (rc != SF_OK)
            sf__shard_key_failed(&l->shard->base, l->op, &l->op->asks[i], rc, &e);
    }
    if (c)
        sf__sqlite_shard_give_back(l->shard, c);
}

static void lookup_done(sf_work *w)
{
    struct sqlite_lookup *l = sf_container_of(w, struct sqlite_lookup, work);
    sf_sqlite_shard *s = l->shard;
    sf_shard_get_many *op = l->op;

    op->impl = NULL;
    sf__free(s->base.rt->alloc, l);
    op->done(op);
    sf__shard_release(&s->base);
}

void sf__sqlite_get_many(sf_shard *base, sf_shard_get_many *op)
{
    struct sqlite_lookup *l = sf__calloc(base->rt->alloc, 1, sizeof(*l));

    if (!l) {
        sf_error e;

        sf_fail(&e, SF_NOMEM, "%s: look-up", base->url);
        sf__shard_get_fail_later(base, op, &e);
        return;
    }
    op->impl = l;
    l->shard = (sf_sqlite_shard *)sf__shard_acquire(base);
    l->op = op;
    l->since_ns = sf__clock_mono_ns();
    atomic_init(&l->cancelled, false);
    l->work = (sf_work){.run = lookup_run, .done = lookup_done};
    sf__work_submit(base->rt->loop, SF_WORK_SQLITE, &l->work);
}

void sf__sqlite_get_many_cancel(sf_shard *base, sf_shard_get_many *op)
{
    struct sqlite_lookup *l = op->impl;

    (void)base;
    if (l)
        atomic_store_explicit(&l->cancelled, true, memory_order_relaxed);
}
