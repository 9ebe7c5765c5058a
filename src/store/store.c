#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/escape.h"
#include "base/grow.h"
#include "base/limits.h"
#include "store/digest.h"

/* ------------------------------------------------------------------ stores --------------------------------------- */

static atomic_uint_fast64_t serials;

bool sf__store_init(sf_store *store, const sf_store_vtable *vtable, const char *url, sf_loop *loop, const sf_allocator *a)
{
    store->vtable = vtable;
    store->alloc = a;
    store->loop = loop;
    atomic_init(&store->refs, 1);
    store->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
    store->url = sf__strdup(a, url);
    return store->url != NULL;
}

void sf__store_fini(sf_store *store)
{
    sf__free(store->alloc, store->url);
}

sf_store *sf__store_acquire(sf_store *store)
{
    atomic_fetch_add_explicit(&store->refs, 1, memory_order_relaxed);
    return store;
}

static void free_store(sf_task *task)
{
    sf_store *store = sf_container_of(task, sf_store, free_task);

    store->vtable->free(store);
}

void sf__store_release(sf_store *store)
{
    if (!store || atomic_fetch_sub_explicit(&store->refs, 1, memory_order_acq_rel) > 1)
        return;
    store->free_task.run = free_store;
    sf__loop_post(store->loop, &store->free_task);
}

/* ------------------------------------------------------------------ operations ----------------------------------- */

const char *sf__store_verb_name(sf_store_verb verb)
{
    switch (verb) {
    case SF_STORE_HEAD:
        return "head";
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        return "get";
    case SF_STORE_PUT:
        return "put";
    case SF_STORE_LIST:
        return "list";
    case SF_STORE_DELETE:
    case SF_STORE_DELETE_MANY:
        return "delete";
    case SF_STORE_MULTIPART_CREATE:
        return "create upload";
    case SF_STORE_MULTIPART_PART:
        return "upload part";
    case SF_STORE_MULTIPART_COMPLETE:
        return "complete upload";
    case SF_STORE_MULTIPART_ABORT:
        return "abort upload";
    case SF_STORE_MULTIPART_LIST:
        return "list uploads";
    case SF_STORE_TIME:
        return "time";
    }
    return "unknown";
}

int64_t sf__store_now_us(const sf_store *store)
{
    return sf__clock_unix_us() + atomic_load_explicit(&store->ahead_us, memory_order_relaxed);
}

void sf__store_note_time(sf_store *store, int64_t then_us, int64_t within_us)
{
    int64_t ahead_us = then_us - sf__clock_unix_us();

    if (ahead_us < 0)
        ahead_us = ahead_us + within_us < 0 ? ahead_us + within_us : 0;
    atomic_store_explicit(&store->ahead_us, ahead_us > -2000000 && ahead_us < 2000000 ? 0 : ahead_us,
                          memory_order_relaxed);
    atomic_store_explicit(&store->has_told_time, true, memory_order_release);
}

void sf__store_object_url(const sf_store *store, const char *key, char *out, size_t n)
{
    snprintf(out, n, "%s/%s", store->url, key ? key : "");
}

static sf_status check_multipart(const sf_store_op *op, sf_error *e)
{
    if (!op->upload_id || !op->upload_id[0])
        return sf_fail(e, SF_INVALID, "no upload id");
    if (op->verb == SF_STORE_MULTIPART_PART && (op->part_number == 0 || op->part_number > 10000))
        return sf_fail(e, SF_INVALID, "part number %u is not within 1 to 10000", op->part_number);
    if (op->verb == SF_STORE_MULTIPART_COMPLETE && (op->key_count == 0 || op->key_count > 10000))
        return sf_fail(e, SF_INVALID, "an upload has 1 to 10000 parts, not %zu", op->key_count);
    return SF_OK;
}

static sf_status check_op(const sf_store_op *op, sf_error *e)
{
    bool is_prefix = op->verb == SF_STORE_LIST || op->verb == SF_STORE_MULTIPART_LIST;

    if (!op->key || (!op->key[0] && !is_prefix && op->verb != SF_STORE_DELETE_MANY))
        return sf_fail(e, SF_INVALID, "no object name");
    if (op->key[0] == '/')
        return sf_fail(e, SF_INVALID, "object name \"%s\" begins with a slash", op->key);
    switch (op->verb) {
    case SF_STORE_GET:
        if (op->if_none_match && op->len != SF_STORE_ALL)
            return sf_fail(e, SF_INVALID, "a part of an object is read whatever its version");
        if (op->len == 0 || (op->len == SF_STORE_ALL ? op->off != 0 || op->max_bytes == 0 : op->off + op->len < op->off))
            return sf_fail(e, SF_INVALID, "range %llu + %llu is not one", (unsigned long long)op->off,
                           (unsigned long long)op->len);
        return SF_OK;
    case SF_STORE_GET_SUFFIX:
        return op->len == 0 || op->len == SF_STORE_ALL ? sf_fail(e, SF_INVALID, "empty suffix") : SF_OK;
    case SF_STORE_PUT:
        return op->create_only && op->if_match
                   ? sf_fail(e, SF_INVALID, "an object cannot be new and have a known version")
                   : SF_OK;
    case SF_STORE_DELETE_MANY:
        return op->key_count == 0 || op->key_count > 1000
                   ? sf_fail(e, SF_INVALID, "a batch has 1 to 1000 objects, not %zu", op->key_count)
                   : SF_OK;
    case SF_STORE_MULTIPART_PART:
    case SF_STORE_MULTIPART_COMPLETE:
    case SF_STORE_MULTIPART_ABORT:
        return check_multipart(op, e);
    default:
        return SF_OK;
    }
}

void sf__store_submit(sf_store *store, sf_store_op *op)
{
    sf_error e = SF_ERROR_INIT;

    op->store = store;
    op->error = &sf__no_error;
    op->posted = NULL;
    op->task.run = NULL;
    op->longer = 0;
    op->not_modified = false;
    op->refused = check_op(op, &e) != SF_OK;
    op->refused = op->refused || (op->verb == SF_STORE_TIME && !store->is_asked_time);
    if (op->refused)
        sf__store_op_finish_later(op, &e);
    else
        store->vtable->submit(store, op);
}

void sf__store_cancel(sf_store *store, sf_store_op *op)
{
    if (!op->refused)
        store->vtable->cancel(store, op);
}

void sf__store_error_name(sf_error *e, const char *operation, const sf_store *store, const char *key)
{
    char url[sizeof(e->object)];

    sf__store_object_url(store, key, url, sizeof(url));
    sf__escape(url, sizeof(url)); /* as in the message, if it is there */
    if (e->object[0] == '\0' && !strstr(e->message, url))
        sf_error_prefix(e, e->code, "%s %s: ", operation, url);
    sf_error_object(e, url);
    if (e->operation[0] == '\0')
        snprintf(e->operation, sizeof(e->operation), "%s", operation);
}

static sf_store_progress progress_of(const sf_store_op *op)
{
    sf_store_progress p = {.waits_for = "an answer"};

    if (op->store->vtable->progress && !op->refused)
        op->store->vtable->progress(op->store, op, &p);
    return p;
}

uint32_t sf__store_op_attempts(const sf_store_op *op)
{
    return progress_of(op).attempts;
}

void sf__store_op_overdue(const sf_store_op *op, uint32_t more_attempts, uint64_t since_ns, sf_error *err)
{
    sf_store_progress p = progress_of(op);

    sf_error_overdue(err, &(sf_overdue){since_ns, p.attempts + more_attempts, p.waits_for, p.last, false});
    sf__store_error_name(err, sf__store_verb_name(op->verb), op->store, op->key);
}

void sf__store_op_finish(sf_store_op *op, sf_error *e)
{
    if (e && e->code != SF_OK)
        sf__store_error_name(e, sf__store_verb_name(op->verb), op->store, op->key);
    op->error = e ? e : &sf__no_error;
    op->done(op); /* op may be gone */
}

static void finish_task(sf_task *task)
{
    sf_store_op *op = sf_container_of(task, sf_store_op, task);
    sf_error e; /* filled by failures only */

    op->task.run = NULL;
    sf__store_op_finish(op, sf_error_tell(op->store->alloc, &op->posted, &e) == SF_OK ? NULL : &e);
}

void sf__store_op_finish_later(sf_store_op *op, const sf_error *e)
{
    sf_error_drop(op->store->alloc, op->posted);
    op->posted = e && e->code != SF_OK ? sf_error_keep(op->store->alloc, e) : NULL;
    if (op->task.run == finish_task) /* it is on its way */
        return;
    op->task.run = finish_task;
    sf__loop_post(op->store->loop, &op->task);
}

void sf__store_op_fail_later(sf_store_op *op, sf_status code, const char *what)
{
    sf_error e;

    sf_fail(&e, code, "%s", what);
    sf__store_op_finish_later(op, &e);
}

sf_status sf__store_op_longer(sf_store_op *op, uint64_t size, sf_error *err)
{
    if (op->len == SF_STORE_ALL)
        op->longer = size;
    return sf_fail(err, SF_CORRUPT, "object of %llu bytes, at most %llu expected", (unsigned long long)size,
                   (unsigned long long)(op->max_bytes ? op->max_bytes : op->len));
}

void sf__store_op_digest(const sf_store *store, sf_store_op *op)
{
    if (store->sends_digests && !op->has_md5 && (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_PART))
        op->has_md5 = sf__md5(op->body, op->md5);
}

/* Without what says that it is weak, and without quotes. */
static sf_bytes etag_core(const char *etag)
{
    sf_bytes core;

    if (etag[0] == 'W' && etag[1] == '/')
        etag += 2;
    core = sf_bytes_str(etag);
    if (core.n >= 2 && core.p[0] == '"' && core.p[core.n - 1] == '"')
        core = sf_bytes_of(core.p + 1, core.n - 2);
    return core;
}

bool sf__store_etag_same(const char *a, const char *b)
{
    return a[0] == '\0' || b[0] == '\0' || sf_bytes_eq(etag_core(a), etag_core(b));
}

uint64_t sf__store_etag_hash(const char *etag)
{
    uint64_t h = etag[0] ? sf__xxh3_64(etag_core(etag)) : 0;

    return h == 0 && etag[0] ? 1 : h;
}

static void free_entries(sf_store_entry *entries, size_t count, const sf_allocator *a)
{
    for (size_t i = 0; i < count; i++)
        sf__free(a, entries[i].key);
    sf__free(a, entries);
}

void sf__store_uploads_free(sf_store_upload *uploads, size_t count, const sf_allocator *a)
{
    for (size_t i = 0; i < count; i++) {
        sf__free(a, uploads[i].key);
        sf__free(a, uploads[i].id);
    }
    sf__free(a, uploads);
}

void sf__store_op_cleanup(sf_store_op *op, const sf_allocator *a)
{
    sf__buf_release(op->data);
    op->data = NULL;
    free_entries(op->entries, op->entry_count, a);
    op->entries = NULL;
    op->entry_count = 0;
    sf__store_uploads_free(op->uploads, op->upload_count, a);
    op->uploads = NULL;
    op->upload_count = 0;
    sf__free(a, op->upload_id_out);
    op->upload_id_out = NULL;
    sf__free(a, op->next);
    op->next = NULL;
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

static void submit_page(sf_store_listing *l, char *continuation);

/* Takes the entries of a page over. */
static bool append_page(sf_store_listing *l)
{
    const sf_allocator *a = l->alloc;
    size_t need = l->entry_count + l->op.entry_count;

    if (!SF_RESERVE(a, &l->entries, &l->entry_cap, need))
        return false;
    for (size_t i = 0; i < l->op.entry_count; i++)
        l->bytes += sizeof(*l->entries) + strlen(l->op.entries[i].key) + 1;
    if (l->entry_count > 0 && l->op.entry_count > 0 && !l->key &&
        strcmp(l->entries[l->entry_count - 1].key, l->op.entries[0].key) >= 0) {
        l->behind = l->entries[l->entry_count - 1].key;
        l->key = l->op.entries[0].key;
        l->unsorted = true;
    }
    if (l->op.entry_count > 0)
        memcpy(l->entries + l->entry_count, l->op.entries, l->op.entry_count * sizeof(*l->entries));
    l->entry_count = need;
    sf__free(a, l->op.entries);
    l->op.entries = NULL;
    l->op.entry_count = 0;
    return true;
}

/* What a page that has come adds up to. */
static sf_status page_take(sf_store_listing *l, bool truncated, sf_error *err)
{
    if (!append_page(l))
        return sf_fail(err, SF_NOMEM, "listing of %zu objects", l->entry_count);
    if (l->bytes > SF_LIMIT_LIST_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "%s/%s: more than %u bytes of names", l->store->url, l->prefix,
                       SF_LIMIT_LIST_BYTES);
    if (truncated && l->max_pages == 0 && l->pages >= SF_LIMIT_LIST_PAGES)
        return sf_fail(err, SF_UNSUPPORTED, "%s/%s: more than %u pages of objects", l->store->url, l->prefix,
                       SF_LIMIT_LIST_PAGES);
    return SF_OK;
}

static bool reaches_end(const sf_store_listing *l)
{
    return l->until && !l->unsorted && l->entry_count > 0 && strcmp(l->entries[l->entry_count - 1].key, l->until) >= 0;
}

static void page_done(sf_store_op *op)
{
    sf_store_listing *l = op->ctx;
    const sf_allocator *a = l->alloc;
    size_t max_pages = l->max_pages ? l->max_pages : SF_LIMIT_LIST_PAGES;
    char *next = op->next;
    sf_error e; /* filled by failures only */

    sf__free(a, (char *)op->continuation);
    op->continuation = NULL;
    l->error = op->error;
    l->unsorted = l->unsorted || op->unsorted;
    if (l->error->code == SF_OK && page_take(l, next != NULL, &e) != SF_OK)
        l->error = &e;
    op->next = NULL;
    sf__store_op_cleanup(op, a);
    if (l->error->code == SF_OK && next && l->pages < max_pages && !reaches_end(l)) {
        submit_page(l, next);
        return;
    }
    l->truncated = next != NULL; /* also where nobody wants what follows */
    sf__free(a, next);
    l->done(l);
}

static void submit_page(sf_store_listing *l, char *continuation)
{
    l->op = (sf_store_op){
        .verb = SF_STORE_LIST,
        .key = l->prefix,
        .delimiter = l->delimiter,
        .start_after = l->start_after,
        .until = l->until,
        .continuation = continuation,
        .deadline_ns = l->deadline_ns,
        .done = page_done,
        .ctx = l,
    };
    l->pages++;
    sf__store_submit(l->store, &l->op);
}

void sf__store_list_all(sf_store_listing *l)
{
    l->alloc = l->store->alloc;
    l->pages = 0;
    l->bytes = 0;
    l->unsorted = false;
    l->behind = l->key = NULL;
    submit_page(l, NULL);
}

void sf__store_list_cancel(sf_store_listing *l)
{
    sf__store_cancel(l->store, &l->op);
}

void sf__store_listing_cleanup(sf_store_listing *l)
{
    free_entries(l->entries, l->entry_count, l->alloc);
    l->behind = l->key = NULL;
    l->entries = NULL;
    l->entry_count = l->entry_cap = 0;
}
