#include "backend/lookup.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"

static void lookup_enter(sf_lookup *l, enum sf_lookup_state next);

static bool is_walking(const sf_lookup *l, size_t i)
{
    return l->op->asks[i].status == SF_WOULD_BLOCK;
}

static void key_over(sf_lookup *l, size_t i, sf_status rc, const sf_error *e)
{
    sf_shard_ask *ask = &l->op->asks[i];

    l->walking--;
    ask->status = SF_OK;
    if (rc != SF_OK)
        sf__shard_key_failed(l->shard, l->op, ask, rc, e);
}

/* Every key that has no answer yet fails the same way. */
static void rest_failed(sf_lookup *l, sf_error *e)
{
    sf_error_prefix(e, e->code, "get %s: ", l->shard->url);
    sf_error_object(e, l->shard->url);
    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++)
        if (is_walking(l, i))
            key_over(l, i, e->code, e);
}

static void walk_all(sf_lookup *l)
{
    sf_error e; /* filled by failures only */

    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++) {
        sf_status rc = is_walking(l, i) ? l->type->walk(l, i, &e) : SF_WOULD_BLOCK;

        if (rc != SF_WOULD_BLOCK)
            key_over(l, i, rc, &e);
    }
    l->type->drop(l);
}

static void walking_start(sf_lookup *l)
{
    sf_error e; /* filled by failures only */

    walk_all(l);
    if (l->walking > 0 && sf__clock_mono_ns() >= l->op->deadline_ns) {
        sf_error_overdue(&e, &(sf_overdue){.since_ns = l->since_ns, .waits_for = l->type->waits_for});
        rest_failed(l, &e);
    }
    lookup_enter(l, l->walking > 0 ? SF_LOOKUP_READING : SF_LOOKUP_POSTED);
}

static void reading_start(sf_lookup *l)
{
    sf_error e; /* filled by failures only */

    l->read_count = l->in_flight = l->type->plan(l);
    if (l->read_count == 0) {
        l->type->drop(l);
        sf_fail(&e, SF_NOMEM, "list of reads");
        rest_failed(l, &e);
        lookup_enter(l, SF_LOOKUP_POSTED);
        return;
    }
    for (size_t i = 0; i < l->read_count; i++)
        l->type->read(l, i);
}

static void posted_run(sf_task *task)
{
    sf_shard_get_many *op = sf_container_of(task, sf_shard_get_many, task);

    lookup_enter(op->impl, SF_LOOKUP_DONE);
}

static void lookup_free(sf_lookup *l)
{
    sf_shard *s = l->shard;

    sf__budget_let_go(&s->rt->fetcher->budget, l->type->size);
    l->type->drop(l);
    l->type->cleanup(l);
    sf__free(s->rt->alloc, l);
    sf__shard_release(s);
}

static void lookup_enter(sf_lookup *l, enum sf_lookup_state next)
{
    sf_shard_get_many *op = l->op;
    sf_error e; /* filled by failures only */

    l->state = next;
    switch (next) {
    case SF_LOOKUP_WALKING:
        walking_start(l);
        break;
    case SF_LOOKUP_READING:
        reading_start(l); /* ends in sf__lookup_read_done() */
        break;
    case SF_LOOKUP_POSTED:
        op->task.run = posted_run;
        sf__loop_post(l->shard->rt->loop, &op->task);
        break;
    case SF_LOOKUP_DONE:
        if (l->cancelled) {
            sf_fail(&e, SF_CANCELLED, "cancelled");
            rest_failed(l, &e);
        }
        op->impl = NULL;
        lookup_free(l);
        op->done(op); /* op may be gone: nothing after this line */
        break;
    }
}

void sf__lookup_read_done(sf_lookup *l)
{
    if (--l->in_flight == 0)
        lookup_enter(l, l->cancelled ? SF_LOOKUP_DONE : SF_LOOKUP_WALKING);
}

static sf_lookup *lookup_new(const sf_lookup_type *type, sf_shard *s, sf_shard_get_many *op)
{
    sf_lookup *l = sf__calloc(s->rt->alloc, 1, type->size);

    if (!l)
        return NULL;
    l->type = type;
    l->shard = sf__shard_acquire(s);
    l->op = op;
    l->since_ns = sf__clock_mono_ns();
    l->walking = op->count;
    sf__budget_hold(&s->rt->fetcher->budget, type->size);
    if (type->init(l))
        return l;
    lookup_free(l);
    return NULL;
}

void sf__lookup_start(const sf_lookup_type *type, sf_shard *s, sf_shard_get_many *op)
{
    sf_lookup *l = lookup_new(type, s, op);
    sf_error e; /* filled by failures only */

    if (!l) {
        sf_fail(&e, SF_NOMEM, "%s: look-up of %zu keys", s->url, op->count);
        sf__shard_get_fail_later(s, op, &e);
        return;
    }
    op->impl = l;
    for (size_t i = 0; i < op->count; i++)
        op->asks[i].status = SF_WOULD_BLOCK;
    lookup_enter(l, SF_LOOKUP_WALKING);
}

void sf__lookup_cancel(sf_shard *s, sf_shard_get_many *op)
{
    sf_lookup *l = op->impl;

    (void)s;
    if (!l || l->state != SF_LOOKUP_READING)
        return; /* its completion is in the inbox already */
    l->cancelled = true;
    for (size_t i = 0; i < l->read_count; i++)
        l->type->read_cancel(l, i);
}
