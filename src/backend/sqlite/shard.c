#include "backend/sqlite/shard.h"

#include <unistd.h>

#include "backend/sqlite/copies.h"
#include "base/container.h"
#include "base/error.h"

static const sf_shard_vtable vtable = {
    .try_get = sf__sqlite_try_get,
    .get_many = sf__sqlite_get_many,
    .get_many_cancel = sf__sqlite_get_many_cancel,
    .scan_open = sf__sqlite_scan_open,
    .scan_next = sf__sqlite_scan_next,
    .scan_fill = sf__sqlite_scan_fill,
    .scan_fill_cancel = sf__sqlite_scan_fill_cancel,
    .scan_free = sf__sqlite_scan_free,
    .check = sf__sqlite_check,
    .free = sf__sqlite_shard_free,
};

sf_status sf__sqlite_shard_new(sf_sqlite_shard **out, const sf_shard_open *op, sf_error *err)
{
    const sf_allocator *a = op->rt->alloc;
    sf_sqlite_shard *s = sf__calloc(a, 1, sizeof(*s));

    if (s)
        s->path = sf__strdup(a, op->path);
    if (!s || !s->path || !sf__shard_init(&s->base, &vtable, op)) {
        sf__free(a, s ? s->path : NULL);
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "shard");
    }
    s->store = sf__store_acquire(op->store);
    s->copy = -1;
    sf_mutex_init(&s->lock);
    *out = s;
    return SF_OK;
}

static sf_sqlite_shard *shard_of(sf_work *w)
{
    return sf_container_of(w, sf_sqlite_shard, close);
}

static void close_run(sf_work *w)
{
    sf_sqlite_shard *s = shard_of(w);

    for (sf_sqlite_connection *c = s->idle, *next; c; c = next) {
        next = *sf__sqlite_connection_next(c);
        sf__sqlite_disconnect(c);
    }
    s->idle = NULL;
    if (s->copy >= 0) {
        close(s->copy);
        sf__copies_prune_at(s->file);
    }
}

static void close_done(sf_work *w)
{
    sf_sqlite_shard *s = shard_of(w);

    sf_mutex_destroy(&s->lock);
    sf__store_release(s->store);
    sf__free(s->base.rt->alloc, s->path);
    sf__free(s->base.rt->alloc, s->file);
    sf__shard_destroy(&s->base);
}

void sf__sqlite_shard_free(sf_shard *base)
{
    sf_sqlite_shard *s = (sf_sqlite_shard *)base;

    s->close = (sf_work){.run = close_run, .done = close_done};
    sf__work_submit(base->rt->loop, SF_WORK_SQLITE, &s->close);
}

sf_status sf__sqlite_shard_take(sf_sqlite_shard *s, const sf_sqlite_watch *watch, sf_sqlite_connection **out,
                                sf_error *err)
{
    sf_sqlite_connection *c;

    sf_mutex_lock(&s->lock);
    c = s->idle;
    if (c)
        s->idle = *sf__sqlite_connection_next(c);
    sf_mutex_unlock(&s->lock);
    if (!c) /* as many as there are workers, in the end */
        return sf__sqlite_connect(out, &s->view, watch, s->base.rt->alloc, err);
    *out = c;
    return SF_OK;
}

void sf__sqlite_shard_give_back(sf_sqlite_shard *s, sf_sqlite_connection *c)
{
    sf_mutex_lock(&s->lock);
    *sf__sqlite_connection_next(c) = s->idle;
    s->idle = c;
    sf_mutex_unlock(&s->lock);
}
