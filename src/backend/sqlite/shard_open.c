/* Opening one shard. Never writes to storage.
 *
 *   HEAD --> LOOK --> VERIFY --> INSPECT --> KEEP --> DONE          the copy is taken again
 *     |        |        |    ^                             what failed once a temporary file was there goes to DONE
 *     |        +--------+--------+    |                             through DROP, all else at once
 *     |        v                      |
 *     |       MAKE --> COPY --> CHECK-+                             there is none, or none that may be read
 *     |
 *     +--> SIDECAR --> INSPECT <--> PAGES                           by ranges: the sidecar or, without one, FIRST, the beginning
 *              |         ^  |                                       of shard.db; then what the schema lies on besides
 *              +--> FIRST+  +--> DONE
 *
 * LOOK, VERIFY (piece by piece), MAKE, KEEP and DROP are jobs for a worker that reads files, INSPECT for one that runs SQLite. COPY reads the object in chunks through the fetcher, whose budget bounds what is in memory, and writes each
 * on a worker. CHECK sees that the object is still the one that HEAD saw; ranges ask for just that one. From LOOK and MAKE on
 * everything goes by descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/sqlite/copies.h"
#include "backend/sqlite/copy_check.h"
#include "backend/sqlite/private_folder.h"
#include "backend/sqlite/schema.h"
#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/temp_file.h"

enum sqlite_open_state {
    OPEN_HEAD,
    OPEN_LOOK,
    OPEN_VERIFY,
    OPEN_MAKE,
    OPEN_COPY,
    OPEN_CHECK,
    OPEN_SIDECAR,
    OPEN_FIRST,
    OPEN_PAGES,
    OPEN_INSPECT,
    OPEN_KEEP,
    OPEN_DROP,
    OPEN_DONE,
};

#define CHUNK_BYTES SF_COPY_PIECE_BYTES /* each is hashed while it is at hand */
#define CHUNK_SLOTS 4u

/* What is read of a shard.db without a sidecar at first: the schema, and most often the root. */
#define FIRST_BYTES (64u << 10)
/* What is read from a page on that the schema lies on, and how many times: a schema takes some pages, of any size. */
#define SCHEMA_RUN_BYTES (16u << 10)
#define SCHEMA_RUNS 64u

struct copied_chunk {
    struct sqlite_opening *o;
    bool fetching;
    sf_fetch fetch;
    sf_work write;
    /* of the write */
    sf_hash128 hash;
    sf_error error;
};

struct sqlite_opening {
    sf_shard_open *op;
    sf_runtime *rt;
    const sf_allocator *alloc;
    enum sqlite_open_state state;
    sf_cancel_flag cancelled; /* while a worker was at it */
    uint64_t since_ns;
    size_t pending;         /* chunks under way */
    sf_sqlite_shard *shard; /* has the copy's descriptor */
    sf_sqlite_reading reading;
    char *folder; /* or NULL */
    bool by_ranges;
    bool asking; /* head is under way */
    sf_store_op head;
    uint64_t size;
    struct copied_chunk chunks[CHUNK_SLOTS];
    uint64_t next_off;
    sf_work work;
    sf_error work_error;
    /* of the job under way */
    int folder_fd;   /* or -1 */
    char *temporary; /* name of a copy that is being made, in the folder */
    bool taken;      /* there was a copy, and it has not turned out bad */
    sf_copy_digest digest;
    uint64_t verified; /* bytes of it */
    uint8_t record[SF_COPY_RECORD_BYTES];
    struct stat seen; /* the copy that was taken, before it was read */
    /* by ranges */
    char *sidecar_key;
    bool fetching;
    sf_fetch fetch;
    sf_buf *first; /* the beginning of shard.db, or NULL: there is a sidecar */
    sf_page_run *runs[SCHEMA_RUNS];
    size_t run_count;
    uint32_t missed; /* by INSPECT; 0: none */
};

static void open_enter(struct sqlite_opening *o, enum sqlite_open_state next);

static struct sqlite_opening *opening_of(sf_work *w)
{
    return sf_container_of(w, struct sqlite_opening, work);
}

/* ------------------------------------------------------------------ failing -------------------------------------- */

/* The first failure counts; what is under way is called back. */
static void fail(struct sqlite_opening *o, const sf_error *e)
{
    if (o->op->error)
        return;
    sf__shard_open_failed(o->op, e);
    if (o->asking)
        sf__store_cancel(o->op->store, &o->head);
    if (o->fetching)
        sf__fetch_cancel(&o->fetch);
    if (o->state == OPEN_PAGES && o->run_count > 0)
        sf__page_run_cancel(o->runs[o->run_count - 1]);
    for (unsigned i = 0; i < CHUNK_SLOTS; i++)
        if (o->chunks[i].fetching)
            sf__fetch_cancel(&o->chunks[i].fetch);
}

static void changed(struct sqlite_opening *o)
{
    sf_error e = SF_ERROR_INIT;

    sf_fail(&e, SF_CORRUPT, "%s: the object changed while it was opened", o->shard->key);
    fail(o, &e);
}

/* After a step: on, or to the end. */
static void go_on(struct sqlite_opening *o, enum sqlite_open_state next)
{
    if (o->op->error)
        next = o->temporary ? OPEN_DROP : OPEN_DONE;
    open_enter(o, next);
}

/* ------------------------------------------------------------------ asking the store ------------------------------ */

static void first_answer(struct sqlite_opening *o)
{
    sf_error e = SF_ERROR_INIT;

    o->size = o->head.object_size;
    memcpy(o->shard->etag, o->head.etag, sizeof(o->shard->etag));
    o->shard->pages.bytes = o->size;
    sf__page_source_identify(&o->shard->pages);
    o->by_ranges = o->reading.mode == SF_SQLITE_RANGE ||
                   (o->reading.mode == SF_SQLITE_AUTO && (!o->folder || o->size >= o->reading.range_bytes));
    o->shard->pages.cached = !(o->by_ranges && o->reading.uncached);
    if (o->size == 0)
        sf_fail(&e, SF_CORRUPT, "%s: the object is empty", o->shard->key);
    else if (!o->by_ranges)
        o->shard->file = sf__copy_name(o->folder, o->op->store->url, o->shard->key, o->op->db_id, o->op->checkpoint,
                                       o->shard->etag, o->alloc);
    if (e.code == SF_OK && !o->by_ranges && !o->shard->file)
        sf_fail(&e, SF_NOMEM, "name of a copy");
    if (e.code != SF_OK)
        fail(o, &e);
}

static void head_done(sf_store_op *head)
{
    struct sqlite_opening *o = head->ctx;
    bool first = o->state == OPEN_HEAD;

    o->asking = false;
    if (head->error->code != SF_OK)
        fail(o, head->error);
    else if (first)
        first_answer(o);
    else if (head->object_size != o->size || !sf__store_etag_same(head->etag, o->shard->etag))
        changed(o);
    sf__store_op_cleanup(head, o->alloc);
    go_on(o, !first ? OPEN_INSPECT : o->by_ranges ? OPEN_SIDECAR : OPEN_LOOK);
}

static void head_start(struct sqlite_opening *o)
{
    o->head = (sf_store_op){
        .verb = SF_STORE_HEAD,
        .key = o->shard->key,
        .deadline_ns = o->op->deadline_ns,
        .done = head_done,
        .ctx = o,
    };
    o->asking = true;
    sf__store_submit(o->op->store, &o->head);
}

/* ------------------------------------------------------------------ jobs ----------------------------------------- */

static sf_status file_fail(const struct sqlite_opening *o, int e, const char *what, sf_error *err)
{
    return sf__fail_errno(err, e, SF_IO, "copy of " SF_SQLITE_DB_NAME ": %s %s/%s", what, o->folder, o->temporary);
}

static const char *name_of_copy(const struct sqlite_opening *o)
{
    return strrchr(o->shard->file, '/') + 1;
}

/* In front of what a function of a folder or a file says. */
static sf_status about_copy(sf_status rc, sf_error *err)
{
    return rc == SF_OK ? rc : sf_error_prefix(err, rc, "copy of " SF_SQLITE_DB_NAME ": ");
}

/* The shard reads by this descriptor. */
static void set_copy(struct sqlite_opening *o, int fd)
{
    if (o->shard->pages.copy >= 0)
        close(o->shard->pages.copy);
    o->shard->pages.copy = fd;
}

static sf_file_view view_of_copy(const struct sqlite_opening *o)
{
    return sf__file_view_of(o->shard->pages.copy, o->size);
}

static sf_status look(struct sqlite_opening *o, sf_error *err)
{
    sf_file_view whole;
    sf_status rc = about_copy(sf__private_folder_open(o->folder, true, &o->folder_fd, err), err);
    int fd;

    if (rc != SF_OK)
        return rc;
    rc = sf__copy_take(o->folder_fd, o->shard->file, o->size + SF_COPY_RECORD_BYTES, &fd, err);
    if (rc != SF_OK)
        return rc;
    set_copy(o, fd);
    o->taken = true;
    if (fstat(fd, &o->seen) != 0)
        return file_fail(o, errno, "look at", err);
    whole = sf__file_view_of(fd, o->size + SF_COPY_RECORD_BYTES);
    return whole.read(whole.ctx, o->size, sizeof(o->record), o->record, err);
}

/* The next piece; after the last one all of it. */
static sf_status verify(struct sqlite_opening *o, sf_error *err)
{
    const sf_overdue late = {.since_ns = o->since_ns, .waits_for = "its copy on disk to be checked"};
    uint8_t record[SF_COPY_RECORD_BYTES];
    sf_file_view view = view_of_copy(o);
    sf_hash128 hash;
    sf_status rc;

    if (sf__clock_mono_ns() >= o->op->deadline_ns)
        return sf_error_overdue(err, &late);
    rc = sf__copy_piece_hash(&view, o->verified, o->alloc, &hash, err);
    if (rc != SF_OK)
        return rc;
    sf__copy_digest_add(&o->digest, o->verified, hash);
    o->verified += o->size - o->verified < SF_COPY_PIECE_BYTES ? o->size - o->verified : SF_COPY_PIECE_BYTES;
    if (o->verified < o->size)
        return SF_OK;
    sf__copy_record(&o->digest, name_of_copy(o), o->size, record);
    if (memcmp(record, o->record, sizeof(record)) != 0)
        return sf_fail(err, SF_CORRUPT, "%s: it is not what was downloaded", o->shard->file);
    return SF_OK;
}

static sf_status make(struct sqlite_opening *o, sf_error *err)
{
    sf_status rc;
    int fd;

    o->digest = (sf_copy_digest){0};
    rc = about_copy(sf__temp_file_named(o->folder_fd, o->alloc, &fd, &o->temporary, err), err);
    if (rc == SF_OK)
        set_copy(o, fd);
    else
        sf_error_prefix(err, rc, "%s: ", o->folder);
    return rc;
}

/* Memory only: what it misses is read, and then SQLite looks again. */
static sf_status read_known(void *ctx, uint64_t off, size_t n, uint8_t *out, sf_error *err)
{
    struct sqlite_opening *o = ctx;
    const sf_page_source *s = &o->shard->pages;
    sf_bytes known;

    if (o->first && sf_bytes_slice(sf__buf_bytes(o->first), off, n, &known)) {
        memcpy(out, known.p, n);
        return SF_OK;
    }
    while (n > 0) {
        uint32_t number = (uint32_t)(off / s->page_bytes) + 1;
        size_t pos = (size_t)(off % s->page_bytes), part = s->page_bytes - pos < n ? s->page_bytes - pos : n;
        sf_buf *page = NULL;

        for (size_t i = 0; i < o->run_count && !page; i++)
            page = sf__page_run_page(o->runs[i], number);
        page = page ? sf__buf_acquire(page) : sf__page_source_try(s, number, true);
        if (!page) {
            o->missed = number;
            return sf_fail(err, SF_WOULD_BLOCK, "page %u is not in memory", number);
        }
        memcpy(out, page->data + pos, part);
        sf__buf_release(page);
        out += part;
        off += part;
        n -= part;
    }
    return SF_OK;
}

static sf_status inspect(struct sqlite_opening *o, sf_error *err)
{
    sf_sqlite_watch watch = {&o->cancelled, o->since_ns, o->op->deadline_ns};
    sf_file_view view = {.size = o->size, .read = read_known, .ctx = o};
    sf_sqlite_shard *s = o->shard;
    uint32_t page_bytes;
    sf_status rc;

    o->missed = 0;
    if (!o->by_ranges)
        view = view_of_copy(o);
    rc = sf__sqlite_schema(&s->tree, &page_bytes, &view, &watch, err);
    if (rc == SF_WOULD_BLOCK && o->missed > 0)
        return sf_error_clear(err), SF_OK;
    if (rc != SF_OK)
        return rc;
    if (o->by_ranges && page_bytes != s->pages.page_bytes) /* pages of that size are at hand already */
        return sf_fail(err, SF_CORRUPT, "%s: its pages have %u bytes, those of its sidecar %u", s->key, page_bytes,
                       s->pages.page_bytes);
    s->pages.page_bytes = page_bytes;
    return SF_OK;
}

/* Of the page size that the beginning tells, whatever SQLite says to it. */
static sf_status take_first(struct sqlite_opening *o, sf_error *err)
{
    if (!sf__btree_page_bytes(sf__buf_bytes(o->first), &o->shard->pages.page_bytes))
        return sf_fail(err, SF_CORRUPT, "%s: it is no SQLite database", o->shard->key);
    sf__page_source_keep(&o->shard->pages, sf__buf_bytes(o->first));
    return SF_OK;
}

static sf_status name_it(struct sqlite_opening *o, sf_error *err)
{
    int fd = o->shard->pages.copy, e;
    sf_status rc;

    sf__copy_record(&o->digest, name_of_copy(o), o->size, o->record);
    e = sf__pwrite_all(fd, sf_bytes_of(o->record, sizeof(o->record)), o->size);
    if (e != 0)
        return file_fail(o, e, "write", err);
    if (fsync(fd) != 0)
        return file_fail(o, errno, "sync", err);
    rc = sf__copy_keep(o->folder_fd, fd, o->temporary, o->shard->file, err);
    if (rc == SF_OK) {
        sf__free(o->alloc, o->temporary);
        o->temporary = NULL;
    }
    return rc;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static sf_status keep(struct sqlite_opening *o, sf_error *err)
{
    bool settled = o->taken;
    struct stat st;
    sf_status rc = o->temporary ? name_it(o, err) : SF_OK;

    if (rc != SF_OK)
        return rc;
    settled = settled && fstat(o->shard->pages.copy, &st) == 0 && is_same(&st, &o->seen);
    sf__copies_prune(o->folder_fd, o->shard->file, o->shard->pages.copy);
    if (settled && fstat(o->shard->pages.copy, &st) == 0)
        sf__copy_remember(&st, o->record);
    return SF_OK;
}

static sf_status drop(struct sqlite_opening *o, sf_error *err)
{
    (void)err;
    unlinkat(o->folder_fd, o->temporary, 0);
    sf__free(o->alloc, o->temporary);
    o->temporary = NULL;
    return SF_OK;
}

/* ------------------------------------------------------------------ their order ---------------------------------- */

static const struct {
    sf_status (*run)(struct sqlite_opening *o, sf_error *err);
    sf_work_kind kind;
} jobs[] = {
    [OPEN_LOOK] = {look, SF_WORK_FILE}, [OPEN_VERIFY] = {verify, SF_WORK_FILE},
    [OPEN_MAKE] = {make, SF_WORK_FILE}, [OPEN_INSPECT] = {inspect, SF_WORK_SQLITE},
    [OPEN_KEEP] = {keep, SF_WORK_FILE}, [OPEN_DROP] = {drop, SF_WORK_FILE},
};

static bool is_job(enum sqlite_open_state s)
{
    return s < OPEN_DONE && jobs[s].run;
}

/* There is no copy, or one that must not be read: then a new one is made, once. */
static bool copy_is_bad(struct sqlite_opening *o)
{
    sf_status rc = o->work_error.code;

    if (o->by_ranges)
        return false;
    if (o->state == OPEN_LOOK && rc == SF_NOT_FOUND)
        return true;
    if (o->temporary || (o->state != OPEN_LOOK && o->state != OPEN_VERIFY && o->state != OPEN_INSPECT))
        return false;
    if (rc != SF_CORRUPT && (rc != SF_IO || !o->taken))
        return false;
    sf__log(&o->rt->log, SF_LOG_WARN, "copies", "a copy on disk of %s is not used, the object is downloaded again: %s",
            o->op->url ? o->op->url : o->shard->key, o->work_error.message);
    return true;
}

static enum sqlite_open_state after_job(const struct sqlite_opening *o)
{
    switch (o->state) {
    case OPEN_LOOK:
        return sf__copy_is_known(&o->seen, o->record) ? OPEN_INSPECT : OPEN_VERIFY;
    case OPEN_VERIFY:
        return o->verified < o->size ? OPEN_VERIFY : OPEN_INSPECT;
    case OPEN_MAKE:
        return OPEN_COPY;
    case OPEN_INSPECT:
        if (o->missed > 0)
            return OPEN_PAGES;
        return o->by_ranges ? OPEN_DONE : OPEN_KEEP;
    default:
        return OPEN_DONE;
    }
}

static void work_run(sf_work *w)
{
    struct sqlite_opening *o = opening_of(w);

    o->work_error.code = jobs[o->state].run(o, &o->work_error);
}

static void work_done(sf_work *w)
{
    struct sqlite_opening *o = opening_of(w);
    enum sqlite_open_state next = after_job(o);

    if (copy_is_bad(o)) {
        o->taken = false;
        sf_error_clear(&o->work_error);
        next = OPEN_MAKE;
    }
    if (o->work_error.code == SF_OK && sf__is_cancelled(&o->cancelled))
        sf_fail(&o->work_error, SF_CANCELLED, "cancelled");
    if (o->work_error.code != SF_OK) {
        sf__store_error_name(&o->work_error, "open", o->op->store, o->shard->key);
        fail(o, &o->work_error);
    }
    go_on(o, next);
}

static void work_start(struct sqlite_opening *o)
{
    o->work_error = (sf_error)SF_ERROR_INIT;
    o->work = (sf_work){.run = work_run, .done = work_done};
    sf__work_submit(o->rt->loop, jobs[o->state].kind, &o->work);
}

/* ------------------------------------------------------------------ copying -------------------------------------- */

static void copy_go(struct sqlite_opening *o);

static void chunk_home(struct copied_chunk *c)
{
    struct sqlite_opening *o = c->o;

    sf__buf_release(c->fetch.data);
    c->fetch.data = NULL;
    o->pending--;
    copy_go(o);
}

static void write_run(sf_work *w)
{
    struct copied_chunk *c = sf_container_of(w, struct copied_chunk, write);
    sf_bytes b = sf__buf_bytes(c->fetch.data);
    int e = sf__pwrite_all(c->o->shard->pages.copy, b, c->fetch.off);

    if (e != 0)
        file_fail(c->o, e, "write", &c->error);
    else
        c->hash = sf__xxh3_128(b);
}

static void write_done(sf_work *w)
{
    struct copied_chunk *c = sf_container_of(w, struct copied_chunk, write);

    if (c->error.code != SF_OK)
        fail(c->o, &c->error);
    else
        sf__copy_digest_add(&c->o->digest, c->fetch.off, c->hash);
    chunk_home(c);
}

static void chunk_done(sf_fetch *f)
{
    struct copied_chunk *c = f->ctx;

    c->fetching = false;
    if (f->error->code != SF_OK)
        fail(c->o, f->error);
    else if ((f->object_size != SF_STORE_ALL && f->object_size != c->o->size) || f->data->n != f->len)
        changed(c->o);
    if (c->o->op->error) {
        chunk_home(c);
        return;
    }
    c->error = (sf_error)SF_ERROR_INIT;
    c->write = (sf_work){.run = write_run, .done = write_done, .bulk = true};
    sf__work_submit(c->o->rt->loop, SF_WORK_FILE, &c->write);
}

static void chunk_start(struct sqlite_opening *o, struct copied_chunk *c)
{
    uint64_t left = o->size - o->next_off;

    c->o = o;
    c->fetch = (sf_fetch){
        .store = o->op->store,
        .key = o->shard->key,
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
static void copy_go(struct sqlite_opening *o)
{
    for (unsigned i = 0; i < CHUNK_SLOTS && o->next_off < o->size && !o->op->error; i++)
        if (!o->chunks[i].fetching && !o->chunks[i].fetch.data)
            chunk_start(o, &o->chunks[i]);
    if (o->pending == 0)
        go_on(o, OPEN_CHECK);
}

/* ------------------------------------------------------------------ ranges --------------------------------------- */

static void fetch_start(struct sqlite_opening *o, sf_fetch fetch, void (*done)(sf_fetch *f))
{
    sf__buf_release(o->fetch.data);
    o->fetch = fetch;
    o->fetch.store = o->op->store;
    o->fetch.deadline_ns = o->op->deadline_ns;
    o->fetch.done = done;
    o->fetch.ctx = o;
    o->fetching = true;
    sf__fetch_start(o->rt->fetcher, &o->fetch);
}

static sf_status decode_sidecar(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    struct sqlite_opening *o = f->ctx;
    sf_sidecar *s = &o->shard->pages.sidecar;
    sf_status rc;

    (void)room;
    sf__sidecar_cleanup(s);
    rc = sf__sidecar_decode(s, sf__buf_bytes(data), o->shard->etag, o->alloc, err);
    if (rc != SF_OK || s->page_count == 0 ||
        (uint64_t)sf__sidecar_page_number(s, s->page_count - 1) * s->page_bytes <= o->size)
        return rc;
    sf__sidecar_cleanup(s);
    return sf_fail(err, SF_CORRUPT, "sidecar: it has pages that the database has not");
}

/* One that is not there, or does not fit the object, is no reason to fail: then pages are read as they are needed. Denied: as some
 * stores say that there is none. */
static void sidecar_done(sf_fetch *f)
{
    struct sqlite_opening *o = f->ctx;
    sf_page_source *s = &o->shard->pages;
    sf_status rc = f->error->code;

    o->fetching = false;
    if (rc == SF_OK && s->sidecar.body) {
        s->page_bytes = s->sidecar.page_bytes;
        sf__block_cache_charge(o->rt->cache, (int64_t)s->sidecar.body->cap);
        go_on(o, OPEN_INSPECT);
        return;
    }
    sf__sidecar_cleanup(&s->sidecar); /* cancelled behind the decoder: it was not charged */
    if (rc == SF_CORRUPT || rc == SF_UNSUPPORTED || rc == SF_CONFLICT)
        sf__log(&o->rt->log, SF_LOG_WARN, "sqlite", "a shard is read without its sidecar: %s", f->error->message);
    else if (rc != SF_NOT_FOUND && rc != SF_DENIED)
        fail(o, f->error);
    go_on(o, OPEN_FIRST);
}

static void sidecar_start(struct sqlite_opening *o)
{
    fetch_start(
        o,
        (sf_fetch){
            .key = o->sidecar_key, .len = SF_STORE_ALL, .max_bytes = SF_LIMIT_SIDECAR_BYTES, .decode = decode_sidecar},
        sidecar_done);
}

static void first_start(struct sqlite_opening *o);

static void first_done(sf_fetch *f)
{
    struct sqlite_opening *o = f->ctx;
    sf_error e = SF_ERROR_INIT;

    o->fetching = false;
    if (sf__page_source_refuses_conditions(&o->shard->pages, f->if_match, f->error) && !o->op->error) {
        first_start(o);
        return;
    }
    if (f->error->code == SF_CONFLICT) {
        changed(o);
    } else if (f->error->code != SF_OK) {
        fail(o, f->error);
    } else {
        o->first = f->data;
        f->data = NULL;
        if (take_first(o, &e) != SF_OK) {
            sf__store_error_name(&e, "open", o->op->store, o->shard->key);
            fail(o, &e);
        }
    }
    go_on(o, OPEN_INSPECT);
}

static void first_start(struct sqlite_opening *o)
{
    fetch_start(o,
                (sf_fetch){.key = o->shard->key,
                           .len = o->size < FIRST_BYTES ? o->size : FIRST_BYTES,
                           .if_match = sf__page_source_condition(&o->shard->pages)},
                first_done);
}

static void pages_done(sf_page_run *r)
{
    struct sqlite_opening *o = r->ctx;

    if (r->error)
        fail(o, r->error);
    go_on(o, OPEN_INSPECT);
}

static void pages_start(struct sqlite_opening *o)
{
    const sf_page_source *s = &o->shard->pages;
    uint64_t count = SCHEMA_RUN_BYTES / s->page_bytes, left = o->size / s->page_bytes;
    sf_page_run *r = o->run_count < SCHEMA_RUNS ? sf__calloc(o->alloc, 1, sizeof(*r)) : NULL;
    sf_error e = SF_ERROR_INIT;

    if (count < 1)
        count = 1;
    if (o->missed > left) {
        sf_fail(&e, SF_CORRUPT, "page %u: it ends behind the object", o->missed);
    } else if (o->run_count == SCHEMA_RUNS) {
        sf_fail(&e, SF_CORRUPT, "its schema lies on too many pages");
    } else if (!r || !sf__page_run_init(r, s, o->missed,
                                        (uint32_t)(count <= left - o->missed ? count : left - o->missed + 1))) {
        sf_fail(&e, SF_NOMEM, "pages of a schema");
    }
    if (e.code != SF_OK) {
        sf__free(o->alloc, r);
        sf__store_error_name(&e, "open", o->op->store, o->shard->key);
        fail(o, &e);
        go_on(o, OPEN_DONE);
        return;
    }
    o->runs[o->run_count++] = r;
    r->keep = true;
    r->done = pages_done;
    r->ctx = o;
    sf__page_run_start(r, o->op->deadline_ns);
}

/* ------------------------------------------------------------------ the machine ---------------------------------- */

/* Their source is the shard's. */
static void runs_drop(struct sqlite_opening *o)
{
    for (size_t i = 0; i < o->run_count; i++) {
        sf__page_run_cleanup(o->runs[i]);
        sf__free(o->alloc, o->runs[i]);
    }
    o->run_count = 0;
}

static void opening_free(struct sqlite_opening *o)
{
    runs_drop(o);
    sf__buf_release(o->first);
    sf__buf_release(o->fetch.data);
    if (o->shard)
        sf__sqlite_shard_free(&o->shard->base);
    if (o->folder_fd >= 0)
        close(o->folder_fd);
    sf__free(o->alloc, o->folder);
    sf__free(o->alloc, o->sidecar_key);
    sf__free(o->alloc, o);
}

static void open_finish(struct sqlite_opening *o)
{
    sf_shard_open *op = o->op;

    if (!op->error) {
        op->shard = &o->shard->base;
        op->shard->bytes_resident = o->shard->pages.sidecar.body ? o->shard->pages.sidecar.body->cap : 0;
        runs_drop(o);
        o->shard = NULL;
    }
    opening_free(o);
    op->impl = NULL;
    op->done(op);
}

static void open_enter(struct sqlite_opening *o, enum sqlite_open_state next)
{
    o->state = next;
    switch (next) {
    case OPEN_HEAD:
    case OPEN_CHECK:
        head_start(o); /* ends in head_done() */
        break;
    case OPEN_COPY:
        copy_go(o);
        break;
    case OPEN_SIDECAR:
        sidecar_start(o);
        break;
    case OPEN_FIRST:
        first_start(o);
        break;
    case OPEN_PAGES:
        pages_start(o);
        break;
    case OPEN_LOOK:
    case OPEN_VERIFY:
    case OPEN_MAKE:
    case OPEN_INSPECT:
    case OPEN_KEEP:
    case OPEN_DROP:
        work_start(o); /* ends in work_done() */
        break;
    case OPEN_DONE:
        open_finish(o); /* o is gone: nothing after this line */
        break;
    }
}

static void begin(sf_task *task)
{
    sf_shard_open *op = sf_container_of(task, sf_shard_open, task);

    struct sqlite_opening *o = op->impl;
    sf_error e = SF_ERROR_INIT;

    if (!o) { /* there was no memory for it */
        op->done(op);
        return;
    }
    if (o->reading.mode == SF_SQLITE_DOWNLOAD && !o->folder) {
        sf_fail(&e, SF_UNSUPPORTED, SF_NO_SQLITE_FOLDER);
        fail(o, &e);
    }
    go_on(o, OPEN_HEAD);
}

static struct sqlite_opening *opening_new(sf_shard_open *op, const sf_sqlite_reading *reading)
{
    const sf_allocator *a = op->rt->alloc;
    struct sqlite_opening *o = sf__calloc(a, 1, sizeof(*o));

    if (!o)
        return NULL;
    o->op = op;
    o->rt = op->rt;
    o->alloc = a;
    o->folder_fd = -1;
    o->since_ns = sf__clock_mono_ns();
    atomic_init(&o->cancelled, false);
    o->reading = *reading;
    o->folder = reading->folder ? sf__strdup(a, reading->folder) : NULL;
    o->sidecar_key = sf__asprintf(a, "%s%s" SF_SIDECAR_NAME, op->path, op->path[0] ? "/" : "");
    if ((o->folder || !reading->folder) && o->sidecar_key && sf__sqlite_shard_new(&o->shard, op, NULL) == SF_OK)
        return o;
    opening_free(o);
    return NULL;
}

/* Through the inbox, so that a failure of the first step does not end inside the call. */
void sf__sqlite_shard_open(sf_shard_open *op, const sf_sqlite_reading *reading)
{
    op->shard = NULL;
    op->error = NULL;
    op->impl = opening_new(op, reading);
    if (!op->impl)
        sf__shard_open_fail(op, SF_NOMEM, "opening a shard");
    op->task.run = begin;
    sf__loop_post(op->rt->loop, &op->task);
}

void sf__sqlite_shard_open_cancel(sf_shard_open *op)
{
    struct sqlite_opening *o = op->impl;
    sf_error e = SF_ERROR_INIT;

    if (!o)
        return;
    if (is_job(o->state)) {
        atomic_store_explicit(&o->cancelled, true, memory_order_relaxed); /* a worker sees it between two steps */
        return;
    }
    sf_fail(&e, SF_CANCELLED, "%s: cancelled", op->url ? op->url : "");
    fail(o, &e);
}
