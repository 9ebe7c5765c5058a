/* Opening one shard. Never writes to storage.
 *
 *   RECORD                                                           what the snapshot manifest tells of it spares HEAD; where that does not
 *     |                                                              hold, the end is HEAD, once
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
 * LOOK, VERIFY (piece by piece), MAKE, KEEP and DROP are jobs (local_copy.h) for a worker that reads files, INSPECT for one that runs
 * SQLite. COPY reads the object in chunks (copying.h). CHECK sees that the object is still the one that HEAD saw; ranges ask for just that one. From LOOK and MAKE on
 * everything goes by descriptors. */
#include <stdlib.h>

#include "backend/sqlite/copies.h"
#include "backend/sqlite/copying.h"
#include "backend/sqlite/opening_record.h"
#include "backend/sqlite/schema.h"
#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"

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

/* What is read of a shard.db without a sidecar at first: the schema, and most often the root. */
#define FIRST_BYTES (64u << 10)
/* What is read from a page on that the schema lies on, and how many times: a schema takes some pages, of any size. */
#define SCHEMA_RUN_BYTES (16u << 10)
#define SCHEMA_RUNS 64u

struct sqlite_opening {
    sf_shard_open *op;
    sf_runtime *rt;
    const sf_allocator *alloc;
    enum sqlite_open_state state;
    sf_cancel_flag cancelled; /* while a worker was at it */
    uint64_t since_ns;
    sf_sqlite_shard *shard;
    sf_sqlite_reading reading;
    bool recorded;    /* size and ETag are those of the record */
    bool has_sidecar; /* as far as is known */
    bool by_ranges;
    bool asking; /* head is under way */
    sf_store_op head;
    uint64_t size;
    sf_work work;
    sf_error work_error;
    sf_local_copy copy;
    sf_copying copying;
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
    if (o->state == OPEN_COPY)
        sf__copying_cancel(&o->copying);
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
        next = o->copy.temporary ? OPEN_DROP : OPEN_DONE;
    open_enter(o, next);
}

/* ------------------------------------------------------------------ asking the store ------------------------------ */

/* Which object it is. */
static void object_known(struct sqlite_opening *o, uint64_t size, const char etag[static 128], bool has_sidecar)
{
    sf_error e = SF_ERROR_INIT;

    o->size = size;
    o->has_sidecar = has_sidecar;
    memcpy(o->shard->etag, etag, sizeof(o->shard->etag));
    o->shard->pages.bytes = o->size;
    sf__page_source_identify(&o->shard->pages);
    o->by_ranges = o->reading.mode == SF_SQLITE_RANGE ||
                   (o->reading.mode == SF_SQLITE_AUTO && (!o->copy.folder || o->size >= o->reading.range_bytes));
    o->shard->pages.cached = !(o->by_ranges && o->reading.uncached);
    if (o->size == 0)
        sf_fail(&e, SF_CORRUPT, "%s: the object is empty", o->shard->key);
    else if (!o->by_ranges)
        o->shard->file = sf__copy_name(o->copy.folder, o->op->store->url, o->shard->key, o->op->db_id,
                                       o->op->checkpoint, o->shard->etag, o->alloc);
    if (e.code == SF_OK && !o->by_ranges && !o->shard->file)
        sf_fail(&e, SF_NOMEM, "name of a copy");
    o->copy.size = o->size;
    o->copy.file = o->shard->file;
    if (e.code != SF_OK)
        fail(o, &e);
}

static enum sqlite_open_state first_step(const struct sqlite_opening *o)
{
    if (!o->by_ranges)
        return OPEN_LOOK;
    return o->has_sidecar ? OPEN_SIDECAR : OPEN_FIRST;
}

static void head_done(sf_store_op *head)
{
    struct sqlite_opening *o = head->ctx;
    bool first = o->state == OPEN_HEAD;

    o->asking = false;
    if (head->error->code != SF_OK)
        fail(o, head->error);
    else if (first)
        object_known(o, head->object_size, head->etag, true);
    else if (head->object_size != o->size || !sf__store_etag_same(head->etag, o->shard->etag))
        changed(o);
    sf__store_op_cleanup(head, o->alloc);
    go_on(o, first ? first_step(o) : OPEN_INSPECT);
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

/* ------------------------------------------------------------------ the record ----------------------------------- */

/* Their source is the shard's. */
static void runs_drop(struct sqlite_opening *o)
{
    for (size_t i = 0; i < o->run_count; i++) {
        sf__page_run_cleanup(o->runs[i]);
        sf__free(o->alloc, o->runs[i]);
    }
    o->run_count = 0;
}

static void shard_drop(struct sqlite_opening *o)
{
    runs_drop(o);
    sf__buf_release(o->first);
    sf__buf_release(o->fetch.data);
    o->first = o->fetch.data = NULL;
    if (o->shard) {
        o->shard->pages.copy = sf__local_copy_give_away(&o->copy);
        sf__sqlite_shard_free(&o->shard->base); /* closes it on a worker */
    }
    o->shard = NULL;
    sf__local_copy_cleanup(&o->copy);
}

static void opening_free(struct sqlite_opening *o)
{
    shard_drop(o);
    sf__free(o->alloc, o->sidecar_key);
    sf__free(o->alloc, o);
}

/* What the record told is forgotten, with all that came of it. */
static void record_forget(struct sqlite_opening *o)
{
    char *folder = o->copy.folder;

    o->recorded = false;
    o->copy.folder = NULL;
    shard_drop(o);
    sf__local_copy_init(&o->copy, o->alloc, folder);
    sf_error_drop(o->alloc, o->op->error);
    o->op->error = NULL;
    if (sf__sqlite_shard_new(&o->shard, o->op, NULL) != SF_OK)
        sf__shard_open_fail(o->op, SF_NOMEM, "opening a shard");
}

/* What cannot be decoded is as none. */
static void record_take(struct sqlite_opening *o)
{
    sf_sqlite_record r;

    o->recorded = o->op->record && sf__sqlite_record_decode(&r, sf__buf_bytes(o->op->record));
    if (o->recorded)
        object_known(o, r.db_bytes, r.etag, r.has_sidecar);
}

/* ------------------------------------------------------------------ jobs ----------------------------------------- */

static sf_status look(struct sqlite_opening *o, sf_error *err)
{
    return sf__local_copy_take(&o->copy, err);
}

/* The next piece; after the last one all of it. */
static sf_status verify(struct sqlite_opening *o, sf_error *err)
{
    const sf_overdue late = {.since_ns = o->since_ns, .waits_for = "its copy on disk to be checked"};

    if (sf__clock_mono_ns() >= o->op->deadline_ns)
        return sf_error_overdue(err, &late);
    return sf__local_copy_verify(&o->copy, err);
}

static sf_status make(struct sqlite_opening *o, sf_error *err)
{
    return sf__local_copy_make(&o->copy, err);
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
        view = sf__local_copy_view(&o->copy);
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

static sf_status keep(struct sqlite_opening *o, sf_error *err)
{
    return sf__local_copy_keep(&o->copy, err);
}

static sf_status drop(struct sqlite_opening *o, sf_error *err)
{
    (void)err;
    sf__local_copy_drop(&o->copy);
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
    if (o->copy.temporary || (o->state != OPEN_LOOK && o->state != OPEN_VERIFY && o->state != OPEN_INSPECT))
        return false;
    return rc == SF_CORRUPT || (rc == SF_IO && o->copy.taken);
}

static enum sqlite_open_state after_job(const struct sqlite_opening *o)
{
    switch (o->state) {
    case OPEN_LOOK:
        return sf__local_copy_is_known(&o->copy) ? OPEN_INSPECT : OPEN_VERIFY;
    case OPEN_VERIFY:
        return o->copy.verified < o->size ? OPEN_VERIFY : OPEN_INSPECT;
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
    const bool bad = copy_is_bad(o);

    if (bad && o->recorded &&
        !sf__is_cancelled(&o->cancelled)) { /* what is downloaded is looked at first: it may be another one by now */
        record_forget(o);
        go_on(o, OPEN_HEAD);
        return;
    }
    if (bad) {
        if (o->work_error.code != SF_NOT_FOUND)
            sf__log(&o->rt->log, SF_LOG_WARN, "copies",
                    "a copy on disk of %s is not used, the object is downloaded again: %s",
                    o->op->url ? o->op->url : o->shard->key, o->work_error.message);
        o->copy.taken = false;
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

static void copy_done(sf_copying *c)
{
    struct sqlite_opening *o = c->ctx;

    if (c->error)
        fail(o, c->error);
    else if (c->changed)
        changed(o);
    sf_error_drop(o->alloc, c->error);
    go_on(o, OPEN_CHECK);
}

static void copy_start(struct sqlite_opening *o)
{
    o->copying = (sf_copying){
        .rt = o->rt,
        .store = o->op->store,
        .key = o->shard->key,
        .deadline_ns = o->op->deadline_ns,
        .copy = &o->copy,
        .done = copy_done,
        .ctx = o,
    };
    sf__copying_start(&o->copying);
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

    sf__sidecar_cleanup(s);
    rc = sf__sidecar_decode(s, sf__buf_bytes(data), o->shard->etag, room, o->alloc, err);
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
        sf__block_cache_charge(s->shard_cache, (int64_t)s->sidecar.body->cap);
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
    fetch_start(o,
                (sf_fetch){
                    .key = o->sidecar_key,
                    .len = SF_STORE_ALL,
                    .max_bytes = SF_LIMIT_SIDECAR_BYTES,
                    .packed = true,
                    .decode = decode_sidecar,
                },
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

static void open_finish(struct sqlite_opening *o)
{
    sf_shard_open *op = o->op;

    if (o->recorded && !sf__is_cancelled(&o->cancelled) && sf__shard_open_is_record_bad(op)) {
        record_forget(o);
        go_on(o, OPEN_HEAD);
        return;
    }
    op->by_record = o->recorded && !op->error;
    if (!op->error) {
        op->shard = &o->shard->base;
        op->shard->bytes_resident = sf__page_source_resident_bytes(&o->shard->pages);
        runs_drop(o);
        o->shard->pages.copy = sf__local_copy_give_away(&o->copy);
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
        copy_start(o); /* ends in copy_done() */
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

static void begin(void *impl)
{
    struct sqlite_opening *o = impl;
    sf_error e = SF_ERROR_INIT;

    if (o->reading.mode == SF_SQLITE_DOWNLOAD && !o->copy.folder) {
        sf_fail(&e, SF_UNSUPPORTED, SF_NO_SQLITE_FOLDER);
        fail(o, &e);
    }
    if (!o->op->error)
        record_take(o);
    go_on(o, o->recorded ? first_step(o) : OPEN_HEAD);
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
    o->since_ns = sf__clock_mono_ns();
    atomic_init(&o->cancelled, false);
    o->reading = *reading;
    sf__local_copy_init(&o->copy, a, reading->folder ? sf__strdup(a, reading->folder) : NULL);
    o->sidecar_key = sf__asprintf(a, "%s%s" SF_SIDECAR_NAME, op->path, op->path[0] ? "/" : "");
    if ((o->copy.folder || !reading->folder) && o->sidecar_key && sf__sqlite_shard_new(&o->shard, op, NULL) == SF_OK)
        return o;
    opening_free(o);
    return NULL;
}

void sf__sqlite_shard_open(sf_shard_open *op, const sf_sqlite_reading *reading)
{
    sf__shard_open_begin(op, opening_new(op, reading), begin);
}

void sf__sqlite_shard_open_cancel(sf_shard_open *op)
{
    struct sqlite_opening *o = op->impl;
    sf_error e = SF_ERROR_INIT;

    if (!o)
        return;
    atomic_store_explicit(&o->cancelled, true, memory_order_relaxed); /* a worker sees it between two steps */
    if (is_job(o->state))
        return;
    sf_fail(&e, SF_CANCELLED, "%s: cancelled", op->url ? op->url : "");
    fail(o, &e);
}
