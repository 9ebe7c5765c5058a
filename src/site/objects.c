#include "site/objects.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"

#define DELETE_BATCH 1000u

static char *key_of(const sf_site *s, const char *name, sf_error *err)
{
    char *key = sf__asprintf(s->rt->alloc, "%s/%s", s->path, name);

    if (!key)
        sf_fail(err, SF_NOMEM, "%s/%s: key", s->prefix, name);
    return key;
}

int64_t sf__site_now_us(const sf_site *s)
{
    sf_store_op op = {.verb = SF_STORE_TIME, .key = s->path, .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    sf_error e = SF_ERROR_INIT;

    if (sf__store_wait(s->store, &op, NULL, &e) != SF_OK)
        sf__log(&s->rt->log, SF_LOG_WARN, "writer", "%s: its time is not known, this machine's is taken: %s", s->prefix,
                e.message);
    sf__store_op_cleanup(&op, s->rt->alloc);
    return sf__store_now_us(s->store);
}

sf_status sf__site_get(const sf_site *s, const char *name, uint64_t max_bytes, const sf_cancel_flag *cancel,
                       sf_buf **out, char etag[128], sf_error *err)
{
    char *key = key_of(s, name, err);
    sf_store_op op = {.verb = SF_STORE_GET,
                      .key = key,
                      .len = SF_STORE_ALL,
                      .max_bytes = max_bytes,
                      .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    sf_status rc;

    if (!key)
        return SF_NOMEM;
    rc = sf__store_wait(s->store, &op, cancel, err);
    if (rc == SF_OK) {
        *out = op.data;
        op.data = NULL;
        if (etag)
            memcpy(etag, op.etag, sizeof(op.etag));
    }
    sf__store_op_cleanup(&op, s->rt->alloc);
    sf__free(s->rt->alloc, key);
    return rc;
}

/* Whether the object has these very bytes. *known is false when it could not be read. */
static bool is_stored(const sf_site *s, const sf_site_put *put, bool *known)
{
    sf_buf *there = NULL;
    sf_status rc = sf__site_get(s, put->name, put->body.n, NULL, &there, NULL, NULL);
    bool same = rc == SF_OK && sf_bytes_eq(sf__buf_bytes(there), put->body);

    *known = rc == SF_OK || rc == SF_NOT_FOUND || rc == SF_CORRUPT; /* corrupt: longer than ours */
    sf__buf_release(there);
    return same;
}

sf_status sf__site_put(const sf_site *s, const sf_site_put *put, const sf_cancel_flag *cancel, bool *uncertain,
                       sf_error *err)
{
    char *key = key_of(s, put->name, err);
    sf_store_op op = {.verb = SF_STORE_PUT,
                      .key = key,
                      .body = put->body,
                      .content_type = put->content_type,
                      .create_only = put->create_only,
                      .strict = put->strict,
                      .if_match = put->if_match,
                      .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    sf_error e = SF_ERROR_INIT;
    bool known = true;
    sf_status rc;

    if (!key)
        return SF_NOMEM;
    rc = sf__store_wait(s->store, &op, cancel, &e);
    sf__store_op_cleanup(&op, s->rt->alloc);
    sf__free(s->rt->alloc, key);
    if (rc == SF_OK || (rc == SF_CONFLICT && is_stored(s, put, &known)))
        return SF_OK;
    if (uncertain)                               /* the others are the store's refusal, or come before any request */
        *uncertain = !known || op.may_be_ours || /* it was there for a while, maybe */
                     rc == SF_UNAVAILABLE || rc == SF_TIMEOUT || rc == SF_CANCELLED || rc == SF_IO;
    if (err)
        *err = e;
    return rc;
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

static void make_relative(const sf_site *s, sf_store_listing *l)
{
    size_t n = strlen(s->path) + 1;

    for (size_t i = 0; i < l->entry_count; i++) {
        char *key = l->entries[i].key;

        memmove(key, key + n, strlen(key + n) + 1); /* every key begins with what was asked for */
    }
}

sf_status sf__site_list(const sf_site *s, sf_store *store, const char *folder, const char *delimiter,
                        const sf_cancel_flag *cancel, sf_store_listing *l, sf_error *err)
{
    char *prefix = sf__asprintf(s->rt->alloc, "%s/%s/", s->path, folder);
    sf_status rc;

    if (!prefix)
        return sf_fail(err, SF_NOMEM, "%s/%s: listing", s->prefix, folder);
    *l = (sf_store_listing){
        .store = store, .prefix = prefix, .delimiter = delimiter, .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    rc = sf__store_list_wait(l, cancel, err);
    if (rc == SF_OK)
        make_relative(s, l);
    else
        sf__store_listing_cleanup(l);
    l->prefix = NULL;
    sf__free(s->rt->alloc, prefix);
    return rc;
}

static sf_status delete_batch(const sf_site *s, sf_store *store, const char *const *keys, size_t count,
                              const sf_cancel_flag *cancel, sf_error *err)
{
    sf_store_op op = {.verb = SF_STORE_DELETE_MANY,
                      .key = keys[0],
                      .keys = keys,
                      .key_count = count,
                      .tidy = true,
                      .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    sf_status rc = sf__store_wait(store, &op, cancel, err);

    sf__store_op_cleanup(&op, s->rt->alloc);
    return rc;
}

/* The keys of one batch in one piece of memory. */
struct delete_batch {
    char **keys;
    size_t count;
};

static void batch_clear(const sf_site *s, struct delete_batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        sf__free(s->rt->alloc, b->keys[i]);
    b->count = 0;
}

static sf_status batch_flush(const sf_site *s, sf_store *store, struct delete_batch *b, const sf_cancel_flag *cancel,
                             uint64_t *count, sf_error *err)
{
    sf_status rc = SF_OK;

    if (b->count > 0)
        rc = delete_batch(s, store, (const char *const *)b->keys, b->count, cancel, err);
    if (rc == SF_OK)
        *count += b->count;
    batch_clear(s, b);
    return rc;
}

sf_status sf__site_delete_listed(const sf_site *s, sf_store *store, const sf_store_listing *l, const char *folder,
                                 const sf_cancel_flag *cancel, uint64_t *count, sf_error *err)
{
    struct delete_batch b = {sf__calloc(s->rt->alloc, DELETE_BATCH, sizeof(char *)), 0};
    size_t n = strlen(folder);
    sf_status rc = SF_OK;

    if (!b.keys)
        return sf_fail(err, SF_NOMEM, "%s/%s: deleting", s->prefix, folder);
    for (size_t i = 0; i < l->entry_count && rc == SF_OK; i++) {
        if (l->entries[i].is_prefix || strncmp(l->entries[i].key, folder, n) != 0)
            continue;
        b.keys[b.count] = key_of(s, l->entries[i].key, err);
        rc = b.keys[b.count] ? SF_OK : SF_NOMEM;
        b.count += rc == SF_OK;
        if (b.count == DELETE_BATCH)
            rc = batch_flush(s, store, &b, cancel, count, err);
    }
    if (rc == SF_OK)
        rc = batch_flush(s, store, &b, cancel, count, err);
    batch_clear(s, &b);
    sf__free(s->rt->alloc, b.keys);
    return rc;
}

sf_status sf__site_delete_folder(const sf_site *s, sf_store *store, const char *folder, bool dry,
                                 const sf_cancel_flag *cancel, uint64_t *count, sf_error *err)
{
    sf_store_listing l;
    sf_status rc = sf__site_list(s, store, folder, NULL, cancel, &l, err);

    if (rc != SF_OK)
        return rc;
    if (dry)
        *count += l.entry_count;
    else
        rc = sf__site_delete_listed(s, store, &l, "", cancel, count, err);
    sf__store_listing_cleanup(&l);
    return rc;
}

/* ------------------------------------------------------------------ uploads -------------------------------------- */

/* Takes the page's uploads over. */
static sf_status uploads_append(const sf_site *s, sf_site_uploads *u, sf_store_op *page, uint64_t *bytes, sf_error *err)
{
    size_t n = strlen(s->path) + 1, need = u->count + page->upload_count;

    if (!SF_RESERVE(s->rt->alloc, &u->uploads, &u->cap, need))
        return sf_fail(err, SF_NOMEM, "list of %zu uploads", need);
    for (size_t i = 0; i < page->upload_count; i++) {
        char *key = page->uploads[i].key;

        memmove(key, key + n, strlen(key + n) + 1); /* every key begins with what was asked for */
        *bytes += sizeof(*u->uploads) + strlen(key) + strlen(page->uploads[i].id) + 2;
        u->uploads[u->count++] = page->uploads[i];
        page->uploads[i] = (sf_store_upload){0};
    }
    return *bytes <= SF_LIMIT_LIST_BYTES
               ? SF_OK
               : sf_fail(err, SF_UNSUPPORTED, "more than %u bytes of names of uploads", SF_LIMIT_LIST_BYTES);
}

static bool goes_on(const sf_store_op *page, const char *key, const char *id)
{
    return !key || strcmp(key, page->next) != 0 ||
           strcmp(id ? id : "", page->upload_id_out ? page->upload_id_out : "") != 0;
}

static sf_status uploads_read(const sf_site *s, sf_store *store, const char *prefix, sf_site_uploads *u, sf_error *err)
{
    char *key = NULL, *id = NULL;
    uint64_t bytes = 0;
    sf_status rc = SF_OK;
    bool more = true;

    for (unsigned pages = 0; more && rc == SF_OK; pages++) {
        sf_store_op op = {.verb = SF_STORE_MULTIPART_LIST,
                          .key = prefix,
                          .continuation = key,
                          .upload_id = id,
                          .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};

        if (pages == SF_LIMIT_LIST_PAGES) {
            rc = sf_fail(err, SF_UNSUPPORTED, "more than %u pages of uploads", SF_LIMIT_LIST_PAGES);
            break;
        }
        rc = sf__store_wait(store, &op, NULL, err);
        if (rc == SF_IO &&
            id) { /* some servers refuse an id that they gave; what else has this name waits for the next time */
            sf__store_op_cleanup(&op, s->rt->alloc);
            sf__free(s->rt->alloc, id);
            id = NULL;
            rc = SF_OK;
            continue;
        }
        if (rc == SF_OK)
            rc = uploads_append(s, u, &op, &bytes, err);
        more = rc == SF_OK && op.next;
        if (more && !goes_on(&op, key, id))
            rc = sf_fail(err, SF_UNSUPPORTED, "the list of uploads does not go on behind its first page");
        sf__free(s->rt->alloc, key);
        sf__free(s->rt->alloc, id);
        key = op.next;
        id = op.upload_id_out;
        op.next = op.upload_id_out = NULL;
        sf__store_op_cleanup(&op, s->rt->alloc);
    }
    sf__free(s->rt->alloc, key);
    sf__free(s->rt->alloc, id);
    return rc;
}

static int by_upload_key(const void *a, const void *b)
{
    return strcmp(((const sf_store_upload *)a)->key, ((const sf_store_upload *)b)->key);
}

sf_status sf__site_uploads(const sf_site *s, sf_store *store, const char *folder, sf_site_uploads *out, sf_error *err)
{
    char *prefix = sf__asprintf(s->rt->alloc, "%s/%s%s", s->path, folder, folder[0] ? "/" : "");
    sf_status rc;

    *out = (sf_site_uploads){0};
    if (!prefix)
        return sf_fail(err, SF_NOMEM, "%s/%s: list of uploads", s->prefix, folder);
    rc = uploads_read(s, store, prefix, out, err);
    if (out->count > 1)
        qsort(out->uploads, out->count, sizeof(*out->uploads), by_upload_key);
    sf__free(s->rt->alloc, prefix);
    return rc;
}

void sf__site_uploads_free(const sf_site *s, sf_site_uploads *u)
{
    sf__store_uploads_free(u->uploads, u->count, s->rt->alloc);
    *u = (sf_site_uploads){0};
}

sf_status sf__site_abort_upload(const sf_site *s, sf_store *store, const char *name, const char *id, sf_error *err)
{
    char *key = key_of(s, name, err);
    sf_store_op op = {.verb = SF_STORE_MULTIPART_ABORT,
                      .key = key,
                      .upload_id = id,
                      .tidy = true,
                      .deadline_ns = sf__deadline_in_ms(s->timeout_ms)};
    sf_status rc = key ? sf__store_wait(store, &op, NULL, err) : SF_NOMEM;

    if (key)
        sf__store_op_cleanup(&op, s->rt->alloc);
    sf__free(s->rt->alloc, key);
    return rc;
}
