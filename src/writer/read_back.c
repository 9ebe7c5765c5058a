#include "writer/read_back.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/sqlite/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "writer/site_open.h"

/* What a thread waited for is over; says why it was cut short, when it was. */
static sf_status report(sf_wait_end end, sf_error *e, sf_error *err)
{
    if (end == SF_WAIT_LATE && e->code == SF_CANCELLED)
        sf_error_overdue(e, &(sf_overdue){0});
    if (e->code != SF_OK && err)
        *err = *e;
    return e->code;
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

struct read_back_opening {
    sf_waited waited; /* first */
    sf_shard_open op;
    bool sqlite;
    const char *folder;
};

static void open_done(sf_shard_open *op)
{
    sf__waited_finish(op->ctx);
}

static void open_start(sf_waited *w)
{
    struct read_back_opening *o = sf_container_of(w, struct read_back_opening, waited);

    if (o->sqlite)
        sf__sqlite_shard_open(&o->op, &(sf_sqlite_reading){.mode = SF_SQLITE_DOWNLOAD, .folder = o->folder});
    else
        sf__slatedb_shard_open(&o->op);
}

static void open_cancel(sf_waited *w)
{
    struct read_back_opening *o = sf_container_of(w, struct read_back_opening, waited);

    if (o->sqlite)
        sf__sqlite_shard_open_cancel(&o->op);
    else
        sf__slatedb_shard_open_cancel(&o->op);
}

static sf_status open_shard(const sf_read_back *r, const char *path, const sf_attempt *shard, const char *folder,
                            sf_shard **out, sf_error *err)
{
    struct read_back_opening o = {
        .waited = {.start = open_start, .cancel = open_cancel},
        .op = {.rt = r->site->rt,
               .store = r->site->shard_store,
               .path = path,
               .url = shard->db_url,
               .db_id = (int32_t)shard->db_id,
               .deadline_ns = sf__deadline_in_ms(r->site->timeout_ms),
               .done = open_done,
               .ctx = &o.waited},
        .sqlite = r->backend == SF_BACKEND_SQLITE,
        .folder = folder,
    };
    sf_error e = SF_ERROR_INIT;
    sf_wait_end end;
    sf_waiter w;

    sf__waiter_init(&w, r->site->rt->loop, r->cancel);
    sf__wait_start(&w, &o.waited);
    end = sf__wait_for(&o.waited, sf__with_grace(o.op.deadline_ns));
    sf__waiter_destroy(&w);
    if (sf_error_tell(r->site->rt->alloc, &o.op.error, &e) == SF_OK)
        *out = o.op.shard;
    return report(end, &e, err);
}

/* ------------------------------------------------------------------ looking up ----------------------------------- */

struct looking {
    sf_waited waited; /* first */
    sf_shard *shard;
    sf_shard_get_many op;
};

static void look_done(sf_shard_get_many *op)
{
    sf__waited_finish(op->ctx);
}

static void look_start(sf_waited *w)
{
    struct looking *l = sf_container_of(w, struct looking, waited);

    l->shard->vtable->get_many(l->shard, &l->op);
}

static void look_cancel(sf_waited *w)
{
    struct looking *l = sf_container_of(w, struct looking, waited);

    l->shard->vtable->get_many_cancel(l->shard, &l->op);
}

static sf_status look_up(const sf_read_back *r, sf_shard *shard, const sf_bytes *keys, size_t count, sf_value *values,
                         sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    sf_shard_ask *asks = sf__calloc(a, count, sizeof(*asks));
    sf_error e = SF_ERROR_INIT;
    struct looking l = {
        .waited = {.start = look_start, .cancel = look_cancel},
        .shard = shard,
        .op = {.asks = asks,
               .count = count,
               .deadline_ns = sf__deadline_in_ms(r->site->timeout_ms),
               .done = look_done,
               .ctx = &l.waited},
    };
    sf_wait_end end;
    sf_waiter w;

    if (!asks)
        return sf_fail(err, SF_NOMEM, "%zu keys to read back", count);
    for (size_t i = 0; i < count; i++)
        asks[i].key = keys[i];
    sf__waiter_init(&w, r->site->rt->loop, r->cancel);
    sf__wait_start(&w, &l.waited);
    end = sf__wait_for(&l.waited, sf__with_grace(l.op.deadline_ns));
    sf__waiter_destroy(&w);
    for (size_t i = 0; i < count; i++)
        values[i] = asks[i].value;
    sf__free(a, asks);
    sf_error_tell(a, &l.op.error, &e);
    return report(end, &e, err);
}

/* ------------------------------------------------------------------ folder of the copy --------------------------- */

static char *make_folder(const sf_read_back *r, sf_error *err)
{
    const char *parent = r->spill_folder ? r->spill_folder : getenv("TMPDIR");
    char *folder =
        sf__asprintf(r->site->rt->alloc, "%s/shardyfusion-check-XXXXXX", parent && parent[0] ? parent : "/tmp");

    if (!folder) {
        sf_fail(err, SF_NOMEM, "folder to read back from");
        return NULL;
    }
    if (mkdtemp(folder))
        return folder;
    sf__fail_errno(err, errno, SF_IO, "%s", folder);
    sf__free(r->site->rt->alloc, folder);
    return NULL;
}

/* The shard may still have its copy open; the bytes go with it. */
static void remove_folder(const sf_read_back *r, char *folder)
{
    int fd = SF_FD(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    while (d && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    if (rmdir(folder) != 0)
        sf__log(&r->site->rt->log, SF_LOG_WARN, "writer", "%s could not be removed: %s", folder, strerror(errno));
    sf__free(r->site->rt->alloc, folder);
}

/* ------------------------------------------------------------------ both ----------------------------------------- */

static sf_status read_from(const sf_read_back *r, const char *path, const sf_attempt *shard, const sf_bytes *keys,
                           size_t count, sf_value *values, sf_error *err)
{
    char *folder = NULL;
    sf_shard *s;
    sf_status rc;

    if (r->backend == SF_BACKEND_SQLITE && !(folder = make_folder(r, err)))
        return err ? err->code : SF_IO;
    rc = open_shard(r, path, shard, folder, &s, err);
    if (rc == SF_OK) {
        rc = look_up(r, s, keys, count, values, err);
        sf__shard_release(s);
    }
    if (folder)
        remove_folder(r, folder);
    return rc;
}

sf_status sf__read_back(const sf_read_back *r, const sf_attempt *shard, const sf_bytes *keys, size_t count,
                        sf_value *values, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    sf_error e = SF_ERROR_INIT;
    char *path, *name;
    sf_status rc = sf__site_name_of(r->site, shard->db_url, &name, err);

    if (rc != SF_OK)
        return rc;
    if (!name)
        return sf_fail(err, SF_UNSUPPORTED, "%s lies outside of %s", shard->db_url, r->site->prefix);
    path = sf__asprintf(a, "%s/%s", r->site->path, name);
    sf__free(a, name);
    if (!path)
        return sf_fail(err, SF_NOMEM, "shard to read back from");
    rc = read_from(r, path, shard, keys, count, values, &e);
    sf__free(a, path);
    if (rc != SF_OK && err)
        *err = e;
    return rc;
}
