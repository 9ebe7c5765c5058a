#include "backend/sqlite/shard.h"

#include <unistd.h>

#include "backend/lookup.h"
#include "backend/sqlite/copies.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/container.h"
#include "base/error.h"

static bool is_sqlite(const sf_shard *base, const char **file)
{
    *file = sf_container_of(base, sf_sqlite_shard, base)->file;
    return true;
}

static const sf_shard_vtable vtable = {
    .try_get = sf__sqlite_try_get,
    .get_many = sf__sqlite_get_many,
    .get_many_cancel = sf__lookup_cancel,
    .scan_open = sf__sqlite_scan_open,
    .scan_next = sf__sqlite_scan_next,
    .scan_fill = sf__sqlite_scan_fill,
    .scan_fill_cancel = sf__sqlite_scan_fill_cancel,
    .scan_fill_overdue = sf__sqlite_scan_fill_overdue,
    .scan_free = sf__sqlite_scan_free,
    .check = sf__sqlite_check,
    .explain = sf__sqlite_explain,
    .can_stay = sf__sqlite_can_stay,
    .resident_bytes = sf__sqlite_resident_bytes,
    .resident = sf__sqlite_resident,
    .resident_cancel = sf__sqlite_resident_cancel,
    .resident_let_go = sf__sqlite_resident_let_go,
    .is_sqlite = is_sqlite,
    .free = sf__sqlite_shard_free,
};

static void texts_free(sf_sqlite_shard *s, const sf_allocator *a)
{
    sf__free(a, s->path);
    sf__free(a, s->key);
    sf__free(a, s->file);
}

sf_status sf__sqlite_shard_new(sf_sqlite_shard **out, const sf_shard_open *op, sf_error *err)
{
    const sf_allocator *a = op->rt->alloc;
    sf_sqlite_shard *s = sf__calloc(a, 1, sizeof(*s));

    if (s) {
        s->path = sf__strdup(a, op->path);
        s->key = sf__asprintf(a, "%s%s" SF_SQLITE_DB_NAME, op->path, op->path[0] ? "/" : "");
    }
    if (!s || !s->path || !s->key || !sf__shard_init(&s->base, &vtable, op)) {
        if (s)
            texts_free(s, a);
        sf__free(a, s);
        return sf_fail(err, SF_NOMEM, "shard");
    }
    s->store = sf__store_acquire(op->store);
    s->pages = (sf_page_source){.rt = op->rt,
                                .shard_cache = s->base.cache,
                                .store = s->store,
                                .key = s->key,
                                .etag = s->etag,
                                .unconditional = &s->unconditional,
                                .copy = -1};
    *out = s;
    return SF_OK;
}

static void destroy(sf_sqlite_shard *s)
{
    sf__page_source_cleanup(&s->pages);
    sf__store_release(s->store);
    texts_free(s, s->base.rt->alloc);
    sf__shard_destroy(&s->base);
}

static sf_sqlite_shard *shard_of(sf_work *w)
{
    return sf_container_of(w, sf_sqlite_shard, close);
}

static void close_run(sf_work *w)
{
    close(shard_of(w)->pages.copy);
    sf__copies_prune_at(shard_of(w)->file);
}

static void close_done(sf_work *w)
{
    destroy(shard_of(w));
}

void sf__sqlite_shard_free(sf_shard *base)
{
    sf_sqlite_shard *s = sf_container_of(base, sf_sqlite_shard, base);

    if (s->pages.copy < 0) {
        destroy(s);
        return;
    }
    s->close = (sf_work){.run = close_run, .done = close_done};
    sf__work_submit(base->rt->loop, SF_WORK_FILE, &s->close);
}
