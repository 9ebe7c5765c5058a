/* Opening one shard in download mode. Never writes to storage.
 *
 *   HEAD --> LOOK --> COPY --> CHECK --> KEEP --> DONE
 *     |       |         \        /         ^       ^
 *     |       |          +-> DROP ---------|-------+      what failed once a temporary file was there goes through DROP
 *     +-------+----------------------------+-------+      failed, or a copy is there already
 *
 * LOOK, KEEP and DROP are jobs for a worker. COPY reads the object in chunks through the fetcher, whose budget bounds
 * what is in memory, and writes each on a worker. CHECK sees that the object is still the one that HEAD saw. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/sqlite/copies.h"
#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "backend/sqlite/temp_file.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"

enum open_state { OPEN_HEAD, OPEN_LOOK, OPEN_COPY, OPEN_CHECK, OPEN_KEEP, OPEN_DROP, OPEN_DONE };

#define CHUNK_BYTES (UINT64_C(8) << 20)
#define CHUNK_SLOTS 4u

struct chunk {
    struct opening *o;
    bool fetching;
    sf_fetch fetch;
    sf_work write;
    sf_error error; /* of the write */
};

struct opening {
    sf_shard_open *op;
    sf_runtime *rt;
    const sf_allocator *alloc;
    enum open_state state;
    sf_cancel_flag cancelled; /* while a worker was at it */
    uint64_t since_ns;
    size_t pending; /* chunks under way */
    sf_sqlite_shard *shard;
    char *folder, *key;
    bool asking; /* head is under way */
    sf_store_op head;
    uint64_t size;
    char etag[128];
    struct chunk chunks[CHUNK_SLOTS];
    uint64_t next_off;
    sf_work work;
    sf_error work_error;
    /* set by workers */
    int fd; /* of the temporary file, or -1 */
    char *temporary;
    bool found;
};

static void open_enter(struct opening *o, enum open_state next);

static struct opening *opening_of(sf_work *w)
{
    return sf_container_of(w, struct opening, work);
}

/* ------------------------------------------------------------------ failing -------------------------------------- */

/* The first failure counts; what is under way is called back. */
static void fail(struct opening *o, const sf_error *e)
{
    if (o->op->error.code != SF_OK)
        return;
    o->op->error = *e;
    o->op->error.db_id = o->op->db_id;
    if (o->asking)
        sf__store_cancel(o->op->store, &o->head);
    for (unsigned i = 0; i < CHUNK_SLOTS; i++)
        if (o->chunks[i].fetching)
            sf__fetch_cancel(o->rt->fetcher, &o->chunks[i].fetch);
}

static void changed(struct opening *o)
{
    sf_error e = SF_ERROR_INIT;

    sf_fail(&e, SF_CORRUPT, "%s: the object changed while it was copied", o->key);
    fail(o, &e);
}

/* After a step: on, or to the end. */
static void go_on(struct opening *o, enum open_state next)
{
    if (o->op->error.code != SF_OK)
        next = o->fd >= 0 ? OPEN_DROP : OPEN_DONE;
    open_enter(o, next);
}

/* ------------------------------------------------------------------ asking the store ------------------------------ */

static void first_answer(struct opening *o)
{
    sf_error e = SF_ERROR_INIT;

    o->size = o->head.object_size;
    memcpy(o->etag, o->head.etag, sizeof(o->etag));
    if (o->size == 0)
        sf_fail(&e, SF_CORRUPT, "%s: the object is empty", o->key);
    else
        o->shard->file = sf__copy_name(o->folder, o->op->store->url, o->key, o->op->db_id, o->op->checkpoint, o->etag,
                                       o->alloc);
    if (e.code == SF_OK && !o->shard->file)
        sf_fail(&e, SF_NOMEM, "name of a copy");
    if (e.code != SF_OK)
        fail(o, &e);
}

static void head_done(sf_store_op *head)
{
    struct opening *o = head->ctx;
    bool first = o->state == OPEN_HEAD;

    o->asking = false;
    if (head->error.code != SF_OK)
        fail(o, &head->error);
    else if (first)
        first_answer(o);
    else if (head->object_size != o->size || !sf__store_etag_same(head->etag, o->etag))
        changed(o);
    sf__store_op_cleanup(head, o->alloc);
    go_on(o, first ? OPEN_LOOK : OPEN_KEEP);
}

static void head_start(struct opening *o)
{
    o->head = (sf_store_op){
        .verb = SF_STORE_HEAD,
        .key = o->key,
        .deadline_ns = o->op->deadline_ns,
        .done = head_done,
        .ctx = o,
        .error = SF_ERROR_INIT,
    };
    o->asking = true;
    sf__store_submit(o->op->store, &o->head);
}

/* ------------------------------------------------------------------ jobs ----------------------------------------- */

static sf_status file_fail(const char *what, const char *file, sf_error *err)
{
    return sf__fail_errno(err, errno, SF_IO, "copy of " SF_SQLITE_DB_NAME ": %s %s", what, file);
}

static sf_status connect_first(struct opening *o, const char *file, sf_error *err)
{
    sf_sqlite_watch watch = {&o->cancelled, o->since_ns, o->op->deadline_ns};
    sf_sqlite_connection *c;
    sf_status rc = sf__sqlite_connect(&c, file, &watch, o->alloc, err);

    if (rc == SF_OK)
        sf__sqlite_shard_give_back(o->shard, c);
    return rc;
}

/* A copy of another size, or one that is no shard, is as good as none. */
static sf_status look(struct opening *o, sf_error *err)
{
    sf_status rc = sf__copies_folder(o->folder, o->alloc, err);
    int copy;

    if (rc != SF_OK)
        return rc;
    copy = sf__copy_take(o->shard->file, o->size);
    if (copy >= 0) {
        rc = connect_first(o, o->shard->file, err);
        o->found = rc == SF_OK;
        if (o->found) {
            o->shard->copy = copy;
            sf__copies_prune(o->shard->file);
            return SF_OK;
        }
        close(copy);
        if (rc != SF_CORRUPT)
            return rc;
        sf_error_clear(err);
    }
    return sf__temp_file_create(o->folder, o->alloc, &o->fd, &o->temporary, err);
}

static void look_run(sf_work *w)
{
    struct opening *o = opening_of(w);

    o->work_error.code = look(o, &o->work_error);
}

static void drop(struct opening *o)
{
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    sf__temp_file_hide(o->alloc, &o->temporary);
}

/* A connection once made does not care for the file's name. */
static sf_status keep(struct opening *o, sf_error *err)
{
    sf_status rc;

    if (fsync(o->fd) != 0)
        return file_fail("sync", o->temporary, err);
    rc = connect_first(o, o->temporary, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__copy_keep(o->fd, o->temporary, o->shard->file, err);
    if (rc != SF_OK)
        return rc;
    sf__free(o->alloc, o->temporary);
    o->temporary = NULL;
    o->shard->copy = o->fd;
    o->fd = -1;
    sf__copies_prune(o->shard->file);
    return SF_OK;
}

static void keep_run(sf_work *w)
{
    struct opening *o = opening_of(w);

    o->work_error.code = keep(o, &o->work_error);
    drop(o);
}

static void drop_run(sf_work *w)
{
    drop(opening_of(w));
}

static void work_done(sf_work *w)
{
    struct opening *o = opening_of(w);

    if (o->work_error.code == SF_OK && sf__is_cancelled(&o->cancelled))
        sf_fail(&o->work_error, SF_CANCELLED, "cancelled");
    if (o->work_error.code != SF_OK) {
        sf__store_error_name(&o->work_error, "open", o->op->store, o->key);
        fail(o, &o->work_error);
    }
    go_on(o, o->state == OPEN_LOOK && !o->found ? OPEN_COPY : OPEN_DONE);
}

static void work_start(struct opening *o, void (*run)(sf_work *))
{
    o->work_error = (sf_error)SF_ERROR_INIT;
    o->work = (sf_work){.run = run, .done = work_done};
    sf__work_submit(o->rt->loop, SF_WORK_SQLITE, &o->work);
}

/* ------------------------------------------------------------------ copying -------------------------------------- */

static void copy_go(struct opening *o);

static void chunk_home(struct chunk *c)
{
    struct opening *o = c->o;

    sf__buf_release(c->fetch.data);
    c->fetch.data = NULL;
    o->pending--;
    copy_go(o);
}

static void write_run(sf_work *w)
{
    struct chunk *c = sf_container_of(w, struct chunk, write);
    sf_bytes b = sf__buf_bytes(c->fetch.data);
    uint64_t off = c->fetch.off;

    while (b.n > 0) {
        ssize_t n = pwrite(c->o->fd, b.p, b.n, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            file_fail("write", c->o->temporary, &c->error);
            return;
        }
        b.p += n;
        b.n -= (size_t)n;
        off += (uint64_t)n;
    }
}

static void write_done(sf_work *w)
{
    struct chunk *c = sf_container_of(w, struct chunk, write);

    if (c->error.code != SF_OK)
        fail(c->o, &c->error);
    chunk_home(c);
}

static void chunk_done(sf_fetch *f)
{
    struct chunk *c = f->ctx;

    c->fetching = false;
    if (f->error->code != SF_OK)
        fail(c->o, f->error);
    else if ((f->object_size != SF_STORE_ALL && f->object_size != c->o->size) || f->data->n != f->len)
        changed(c->o);
    if (c->o->op->error.code != SF_OK) {
        chunk_home(c);
        return;
    }
    c->error = (sf_error)SF_ERROR_INIT;
    c->write = (sf_work){.run = write_run, .done = write_done};
    sf__work_submit(c->o->rt->loop, SF_WORK_FILE, &c->write);
}

static void chunk_start(struct opening *o, struct chunk *c)
{
    uint64_t left = o->size - o->next_off;

    c->o = o;
    c->fetch = (sf_fetch){
        .store = o->op->store,
        .key = o->key,
        .off = o->next_off,
        .len = left < CHUNK_BYTES ? left : CHUNK_BYTES,
        .deadline_ns = o->op->deadline_ns,
        .done = chunk_done,
        .ctx = c,
    };
    c->fetching = true;
    o->next_off += c->fetch.len;
    o->pending++;
    sf__fetch_start(o->rt->fetcher, &c->fetch);
}

/* Fills free slots; when nothing is left to begin or to wait for, goes on. */
static void copy_go(struct opening *o)
{
    for (unsigned i = 0; i < CHUNK_SLOTS && o->next_off < o->size && o->op->error.code == SF_OK; i++)
        if (!o->chunks[i].fetching && !o->chunks[i].fetch.data)
            chunk_start(o, &o->chunks[i]);
    if (o->pending == 0)
        go_on(o, OPEN_CHECK);
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

static void opening_free(struct opening *o)
{
    if (o->shard)
        sf__sqlite_shard_free(&o->shard->base);
    sf__free(o->alloc, o->folder);
    sf__free(o->alloc, o->key);
    sf__free(o->alloc, o);
}

static void open_finish(struct opening *o)
{
    sf_shard_open *op = o->op;

    if (op->error.code == SF_OK) {
        op->shard = &o->shard->base;
        o->shard = NULL;
    }
    opening_free(o);
    op->impl = NULL;
    op->done(op);
}

static void open_enter(struct opening *o, enum open_state next)
{
    o->state = next;
    switch (next) {
    case OPEN_HEAD:
    case OPEN_CHECK:
        head_start(o); /* ends in head_done() */
        break;
    case OPEN_LOOK:
        work_start(o, look_run); /* ends in work_done() */
        break;
    case OPEN_COPY:
        copy_go(o);
        break;
    case OPEN_KEEP:
        work_start(o, keep_run);
        break;
    case OPEN_DROP:
        work_start(o, drop_run);
        break;
    case OPEN_DONE:
        open_finish(o); /* o is gone: nothing after this line */
        break;
    }
}

static void begin(sf_task *task)
{
    sf_shard_open *op = sf_container_of(task, sf_shard_open, task);

    if (!op->impl) /* there was no memory for it */
        op->done(op);
    else
        go_on(op->impl, OPEN_HEAD);
}

static struct opening *opening_new(sf_shard_open *op, const char *folder)
{
    const sf_allocator *a = op->rt->alloc;
    struct opening *o = sf__calloc(a, 1, sizeof(*o));

    if (!o)
        return NULL;
    o->op = op;
    o->rt = op->rt;
    o->alloc = a;
    o->fd = -1;
    o->since_ns = sf__clock_mono_ns();
    atomic_init(&o->cancelled, false);
    o->folder = sf__strdup(a, folder);
    o->key = sf__asprintf(a, "%s/" SF_SQLITE_DB_NAME, op->path);
    if (o->folder && o->key && sf__sqlite_shard_new(&o->shard, op, NULL) == SF_OK)
        return o;
    opening_free(o);
    return NULL;
}

/* Through the inbox, so that a failure of the first step does not end inside the call. */
void sf__sqlite_shard_open(sf_shard_open *op, const char *folder)
{
    op->shard = NULL;
    op->error = (sf_error)SF_ERROR_INIT;
    op->impl = opening_new(op, folder);
    if (!op->impl) {
        sf_fail(&op->error, SF_NOMEM, "opening a shard");
        op->error.db_id = op->db_id;
    }
    op->task.run = begin;
    sf__loop_post(op->rt->loop, &op->task);
}

void sf__sqlite_shard_open_cancel(sf_shard_open *op)
{
    struct opening *o = op->impl;
    sf_error e = SF_ERROR_INIT;

    if (!o)
        return;
    if (o->state == OPEN_LOOK || o->state == OPEN_KEEP || o->state == OPEN_DROP) {
        atomic_store_explicit(&o->cancelled, true, memory_order_relaxed); /* a worker sees it between two steps */
        return;
    }
    sf_fail(&e, SF_CANCELLED, "%s: cancelled", op->url ? op->url : "");
    fail(o, &e);
}
