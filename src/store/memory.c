/* Objects in this process's memory. Everybody who opens the same name shares one space, whatever runtime they use;
 * it goes when the last of them leaves. */
#include <stdio.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/thread.h"
#include "store/store.h"

#define PAGE_ENTRIES 1000u

struct object {
    char *key;
    sf_buf *bytes;
    uint64_t version;
};

struct uploaded_part {
    uint32_t number;
    sf_buf *bytes;
};

struct upload {
    char *id, *key;
    struct uploaded_part *parts;
    size_t count;
    int64_t begun_us;
    struct upload *next;
};

/* Shared between runtimes: so it lives in the C library's memory, under one lock. */
struct space {
    char *name;
    unsigned refs;
    struct object *objects; /* ascending by key */
    size_t count, cap;
    struct upload *uploads;
    uint64_t versions;
    struct space *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct space *spaces;

struct memory_store {
    sf_store base;
    struct space *space;
};

static const sf_allocator *const heap = &sf__allocator_default;

/* ------------------------------------------------------------------ objects, under the lock ----------------------- */

/* The first object at or behind `key`. */
static size_t lower_bound(const struct space *s, const char *key)
{
    size_t lo = 0, hi = s->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (strcmp(s->objects[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct object *find(const struct space *s, const char *key)
{
    size_t i = lower_bound(s, key);

    return i < s->count && strcmp(s->objects[i].key, key) == 0 ? &s->objects[i] : NULL;
}

static void etag_of(uint64_t version, char out[static 32])
{
    snprintf(out, 32, "\"%016llx\"", (unsigned long long)version);
}

/* Takes `bytes` over, also on failure. */
static sf_status set_object(struct space *s, const char *key, sf_buf *bytes, sf_error *err)
{
    size_t i = lower_bound(s, key);

    if (i == s->count || strcmp(s->objects[i].key, key) != 0) {
        char *copy = sf__strdup(heap, key);
        struct object *p;

        if (!copy || !SF_RESERVE(heap, &s->objects, &s->cap, s->count + 1)) {
            sf__free(heap, copy);
            sf__buf_release(bytes);
            return sf_fail(err, SF_NOMEM, "object");
        }
        p = s->objects;
        memmove(&p[i + 1], &p[i], (s->count - i) * sizeof(*p));
        p[i] = (struct object){.key = copy};
        s->count++;
    }
    sf__buf_release(s->objects[i].bytes);
    s->objects[i].bytes = bytes;
    s->objects[i].version = ++s->versions;
    return SF_OK;
}

static void delete_object(struct space *s, const char *key)
{
    struct object *o = find(s, key);
    size_t i;

    if (!o)
        return;
    i = (size_t)(o - s->objects);
    sf__free(heap, o->key);
    sf__buf_release(o->bytes);
    memmove(o, o + 1, (s->count - i - 1) * sizeof(*o));
    s->count--;
}

static void free_upload(struct upload *u)
{
    for (size_t i = 0; i < u->count; i++)
        sf__buf_release(u->parts[i].bytes);
    sf__free(heap, u->parts);
    sf__free(heap, u->id);
    sf__free(heap, u->key);
    sf__free(heap, u);
}

static void free_space(struct space *s)
{
    while (s->count > 0)
        delete_object(s, s->objects[s->count - 1].key);
    while (s->uploads) {
        struct upload *next = s->uploads->next;

        free_upload(s->uploads);
        s->uploads = next;
    }
    sf__free(heap, s->objects);
    sf__free(heap, s->name);
    sf__free(heap, s);
}

/* ------------------------------------------------------------------ verbs, under the lock ------------------------- */

static sf_status do_get(struct space *s, sf_store_op *op, sf_error *err)
{
    const struct object *o = find(s, op->key);
    sf_bytes part;
    uint64_t off, len, bound;

    if (!o)
        return sf_fail(err, SF_NOT_FOUND, "no such object");
    op->object_size = o->bytes->n;
    etag_of(o->version, op->etag);
    if (op->verb == SF_STORE_HEAD)
        return SF_OK;
    if (op->if_match && strcmp(op->if_match, op->etag) != 0)
        return sf_fail(err, SF_CONFLICT, "the object changed");
    op->not_modified = op->if_none_match && strcmp(op->if_none_match, op->etag) == 0;
    if (op->not_modified) {
        op->data = sf__buf_copy(op->store->alloc, (sf_bytes){NULL, 0});
        return op->data ? SF_OK : sf_fail(err, SF_NOMEM, "an answer");
    }
    off = op->off;
    len = op->len;
    if (op->verb == SF_STORE_GET_SUFFIX) {
        off = o->bytes->n > len ? o->bytes->n - len : 0;
        len = o->bytes->n - off;
    } else if (len == SF_STORE_ALL) {
        len = o->bytes->n;
    }
    bound = op->max_bytes ? op->max_bytes : op->len;
    if (len > bound)
        return sf__store_op_longer(op, o->bytes->n, err);
    if (!sf_bytes_slice(sf__buf_bytes(o->bytes), off, len, &part))
        return sf_fail(err, SF_CORRUPT, "bytes %llu + %llu wanted, the object has %zu", (unsigned long long)off,
                       (unsigned long long)len, o->bytes->n);
    op->data = sf__buf_copy(op->store->alloc, part);
    return op->data ? SF_OK : sf_fail(err, SF_NOMEM, "%llu bytes", (unsigned long long)len);
}

static sf_status do_put(struct space *s, sf_store_op *op, sf_error *err)
{
    const struct object *o = find(s, op->key);
    char etag[32];
    sf_buf *bytes;

    if (o && op->create_only)
        return sf_fail(err, SF_CONFLICT, "the object exists");
    if (op->if_match) {
        if (!o)
            return sf_fail(err, SF_CONFLICT, "the object is gone");
        etag_of(o->version, etag);
        if (strcmp(etag, op->if_match) != 0)
            return sf_fail(err, SF_CONFLICT, "the object changed");
    }
    bytes = sf__buf_copy(heap, op->body);
    if (!bytes)
        return sf_fail(err, SF_NOMEM, "%zu bytes", op->body.n);
    if (set_object(s, op->key, bytes, err) != SF_OK)
        return SF_NOMEM;
    etag_of(s->versions, op->etag);
    return SF_OK;
}

/* The first `n` bytes of its key; `o` is NULL of a prefix. */
static bool add_entry(sf_store_op *op, const char *key, size_t n, const struct object *o)
{
    const sf_allocator *a = op->store->alloc;
    char etag[32] = "";

    if (!op->entries) {
        op->entries = sf__calloc(a, PAGE_ENTRIES, sizeof(*op->entries));
        if (!op->entries)
            return false;
    }
    if (o)
        etag_of(o->version, etag);
    op->entries[op->entry_count] = (sf_store_entry){.key = sf__strndup(a, key, n),
                                                    .size = o ? o->bytes->n : 0,
                                                    .etag_hash = sf__store_etag_hash(etag),
                                                    .is_prefix = !o};
    return op->entries[op->entry_count].key && ++op->entry_count;
}

static sf_status do_list(struct space *s, sf_store_op *op, sf_error *err)
{
    const char *after = op->continuation ? op->continuation : op->start_after;
    size_t prefix_len = strlen(op->key);

    for (size_t i = lower_bound(s, op->key); i < s->count; i++) {
        const struct object *o = &s->objects[i];
        const char *cut = NULL;
        size_t n = strlen(o->key);
        const sf_store_entry *last = op->entry_count ? &op->entries[op->entry_count - 1] : NULL;

        if (strncmp(o->key, op->key, prefix_len) != 0)
            break;
        if (op->delimiter)
            cut = strstr(o->key + prefix_len, op->delimiter);
        if (cut)
            n = (size_t)(cut - o->key) + strlen(op->delimiter);
        if (cut && last && last->is_prefix && strlen(last->key) == n && memcmp(last->key, o->key, n) == 0)
            continue; /* the same common prefix */
        if (after) {
            int c = strncmp(o->key, after, n);

            if (c < 0 || (c == 0 && strlen(after) >= n))
                continue;
        }
        if (op->entry_count == PAGE_ENTRIES) {
            op->next = sf__strdup(op->store->alloc, last->key);
            return op->next ? SF_OK : sf_fail(err, SF_NOMEM, "listing");
        }
        if (!add_entry(op, o->key, n, cut ? NULL : o))
            return sf_fail(err, SF_NOMEM, "listing");
    }
    return SF_OK;
}

static sf_status do_list_uploads(struct space *s, sf_store_op *op, sf_error *err)
{
    const sf_allocator *a = op->store->alloc;
    size_t prefix_len = strlen(op->key), count = 0;

    for (const struct upload *u = s->uploads; u; u = u->next)
        count++;
    op->uploads = sf__calloc(a, count + 1, sizeof(*op->uploads));
    for (const struct upload *u = s->uploads; u && op->uploads; u = u->next) {
        sf_store_upload *to = &op->uploads[op->upload_count];

        if (strncmp(u->key, op->key, prefix_len) != 0)
            continue;
        op->upload_count++;
        *to = (sf_store_upload){sf__strdup(a, u->key), sf__strdup(a, u->id), u->begun_us};
        if (!to->key || !to->id)
            return sf_fail(err, SF_NOMEM, "list of uploads");
    }
    return op->uploads ? SF_OK : sf_fail(err, SF_NOMEM, "list of uploads");
}

static struct upload **find_upload(struct space *s, const sf_store_op *op)
{
    struct upload **u = &s->uploads;

    while (*u && (strcmp((*u)->id, op->upload_id) != 0 || strcmp((*u)->key, op->key) != 0))
        u = &(*u)->next;
    return u;
}

static sf_status do_create(struct space *s, sf_store_op *op, sf_error *err)
{
    struct upload *u = sf__calloc(heap, 1, sizeof(*u));

    if (u) {
        u->id = sf__asprintf(heap, "upload-%llu", (unsigned long long)++s->versions);
        u->key = sf__strdup(heap, op->key);
        u->begun_us = sf__clock_unix_us();
    }
    if (u && u->id)
        op->upload_id_out = sf__strdup(op->store->alloc, u->id);
    if (!op->upload_id_out || !u->key) {
        if (u)
            free_upload(u);
        return sf_fail(err, SF_NOMEM, "upload");
    }
    u->next = s->uploads;
    s->uploads = u;
    return SF_OK;
}

static void part_etag(const struct uploaded_part *p, char out[static 32])
{
    etag_of(((uint64_t)p->number << 32) ^ p->bytes->n, out);
}

static sf_status do_part(struct upload *u, sf_store_op *op, sf_error *err)
{
    size_t i = 0;
    sf_buf *bytes = sf__buf_copy(heap, op->body);

    while (i < u->count && u->parts[i].number != op->part_number)
        i++;
    if (bytes && i == u->count) {
        struct uploaded_part *p = sf__realloc(heap, u->parts, (u->count + 1) * sizeof(*p));

        if (p) {
            u->parts = p;
            p[u->count++] = (struct uploaded_part){op->part_number, NULL};
        }
    }
    if (!bytes || i == u->count) {
        sf__buf_release(bytes);
        return sf_fail(err, SF_NOMEM, "part of %zu bytes", op->body.n);
    }
    sf__buf_release(u->parts[i].bytes);
    u->parts[i].bytes = bytes;
    part_etag(&u->parts[i], op->etag);
    return SF_OK;
}

static const struct uploaded_part *part_number(const struct upload *u, size_t number)
{
    for (size_t i = 0; i < u->count; i++)
        if (u->parts[i].number == number)
            return &u->parts[i];
    return NULL;
}

static sf_status do_complete(struct space *s, struct upload **at, sf_store_op *op, sf_error *err)
{
    struct upload *u = *at;
    sf_buf *whole;
    size_t n = 0;

    if (op->create_only && find(s, op->key))
        return sf_fail(err, SF_CONFLICT, "the object exists");
    for (size_t i = 0; i < op->key_count; i++) {
        const struct uploaded_part *p = part_number(u, i + 1);
        char etag[32] = "";

        if (p)
            part_etag(p, etag);
        if (strcmp(etag, op->keys[i]) != 0)
            return sf_fail(err, SF_INVALID, "part %zu is missing or another one", i + 1);
        n += p->bytes->n;
    }
    whole = sf__buf_new(heap, n);
    if (!whole)
        return sf_fail(err, SF_NOMEM, "%zu bytes", n);
    n = 0;
    for (size_t i = 0; i < op->key_count; i++) {
        const struct uploaded_part *p = part_number(u, i + 1);

        if (p->bytes->n > 0)
            memcpy(whole->data + n, p->bytes->data, p->bytes->n);
        n += p->bytes->n;
    }
    if (set_object(s, op->key, whole, err) != SF_OK)
        return SF_NOMEM;
    etag_of(s->versions, op->etag);
    *at = u->next;
    free_upload(u);
    return SF_OK;
}

static sf_status do_upload(struct space *s, sf_store_op *op, sf_error *err)
{
    struct upload **u = find_upload(s, op), *gone = *u;

    if (!gone)
        return op->verb == SF_STORE_MULTIPART_ABORT ? SF_OK : sf_fail(err, SF_NOT_FOUND, "no such upload");
    if (op->verb == SF_STORE_MULTIPART_PART)
        return do_part(*u, op, err);
    if (op->verb == SF_STORE_MULTIPART_COMPLETE)
        return do_complete(s, u, op, err);
    *u = gone->next;
    free_upload(gone);
    return SF_OK;
}

static sf_status run_op(struct space *s, sf_store_op *op, sf_error *err)
{
    switch (op->verb) {
    case SF_STORE_HEAD:
    case SF_STORE_GET:
    case SF_STORE_GET_SUFFIX:
        return do_get(s, op, err);
    case SF_STORE_PUT:
        return do_put(s, op, err);
    case SF_STORE_LIST:
        return do_list(s, op, err);
    case SF_STORE_DELETE:
        delete_object(s, op->key);
        return SF_OK;
    case SF_STORE_DELETE_MANY:
        for (size_t i = 0; i < op->key_count; i++)
            delete_object(s, op->keys[i]);
        return SF_OK;
    case SF_STORE_MULTIPART_CREATE:
        return do_create(s, op, err);
    case SF_STORE_MULTIPART_LIST:
        return do_list_uploads(s, op, err);
    default:
        return do_upload(s, op, err);
    }
}

/* ------------------------------------------------------------------ the store ------------------------------------- */

static void memory_submit(sf_store *store, sf_store_op *op)
{
    struct memory_store *m = sf_container_of(store, struct memory_store, base);
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    if (sf__clock_mono_ns() >= op->deadline_ns) {
        rc = sf_error_overdue(&e, &(sf_overdue){0});
    } else {
        pthread_mutex_lock(&lock);
        rc = run_op(m->space, op, &e);
        pthread_mutex_unlock(&lock);
    }
    if (rc != SF_OK)
        sf__store_op_cleanup(op, store->alloc);
    sf__store_op_finish_later(op, &e);
}

static void memory_cancel(sf_store *store, sf_store_op *op)
{
    sf__store_op_cleanup(op, store->alloc);
    sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
}

static void leave(struct space *s)
{
    struct space **at = &spaces;

    pthread_mutex_lock(&lock);
    if (--s->refs == 0) {
        while (*at != s)
            at = &(*at)->next;
        *at = s->next;
        free_space(s);
    }
    pthread_mutex_unlock(&lock);
}

static void memory_free(sf_store *store)
{
    leave(sf_container_of(store, struct memory_store, base)->space);
    sf__store_fini(store);
    sf__free(store->alloc, store);
}

static struct space *enter(const char *name)
{
    struct space *s;

    pthread_mutex_lock(&lock);
    for (s = spaces; s && strcmp(s->name, name) != 0;)
        s = s->next;
    if (!s) {
        s = sf__calloc(heap, 1, sizeof(*s));
        if (s && !(s->name = sf__strdup(heap, name))) {
            sf__free(heap, s);
            s = NULL;
        }
        if (s) {
            s->next = spaces;
            spaces = s;
        }
    }
    if (s)
        s->refs++;
    pthread_mutex_unlock(&lock);
    return s;
}

sf_status sf__store_memory_open(sf_store **out, const char *name, sf_loop *loop, const sf_allocator *a, sf_error *err)
{
    static const sf_store_vtable vtable = {.submit = memory_submit, .cancel = memory_cancel, .free = memory_free};
    struct memory_store *m = sf__calloc(a, 1, sizeof(*m));
    char *url = sf__asprintf(a, "mem://%s", name);
    struct space *space = enter(name);

    if (m && url && space && sf__store_init(&m->base, &vtable, url, loop, a)) {
        m->space = space;
        sf__free(a, url);
        *out = &m->base;
        return SF_OK;
    }
    if (space)
        leave(space);
    sf__free(a, url);
    sf__free(a, m);
    return sf_fail(err, SF_NOMEM, "memory store");
}
