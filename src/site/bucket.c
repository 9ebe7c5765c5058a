/* The objects of one bucket through the public API: each operation is a sf_call around one store operation or one
 * listing. They go past the fetcher on purpose: a read that joined an older one would not see a write in between. */
#include "base/container.h"
#include "base/error.h"
#include "base/options.h"
#include "runtime/call.h"
#include "site/location.h"
#include "store/store.h"

struct sf_bucket {
    sf_runtime *rt; /* acquired */
    sf_store *store;
};

/* head, get, put, delete, delete_many */
struct object_call {
    sf_call call;
    sf_store *store;  /* acquired */
    sf_store_op op;   /* its inputs are copies */
    char **keys;      /* delete_many */
    sf_object object; /* result */
};

struct list_call {
    sf_call call;
    sf_store *store; /* acquired */
    sf_store_listing listing;
    sf_object_entry *entries; /* result; the keys are the listing's */
};

sf_status sf_bucket_open(sf_bucket **out, sf_runtime *rt, const char *url, const sf_s3_options *s3, sf_error *err)
{
    sf_bucket *b;
    char *path;
    sf_status rc = sf__runtime_check_process(rt, err);

    if (rc != SF_OK)
        return rc;
    b = sf__calloc(rt->alloc, 1, sizeof(*b));
    if (!b)
        return sf_fail(err, SF_NOMEM, "bucket");
    rc = sf__location_open(rt, url, s3, &b->store, &path, err);
    if (rc != SF_OK) {
        sf__free(rt->alloc, b);
        return rc;
    }
    sf__free(rt->alloc, path);
    b->rt = sf_runtime_acquire(rt);
    *out = b;
    return SF_OK;
}

void sf_bucket_close(sf_bucket *b)
{
    sf_runtime *rt;

    if (!b)
        return;
    rt = b->rt;
    if (sf__runtime_check_process(rt, NULL) == SF_OK)
        sf__store_release(b->store);
    sf__free(rt->alloc, b);
    sf_runtime_release(rt);
}

void sf_bucket_get_info(const sf_bucket *b, sf_bucket_info *out)
{
    const sf_store *s = b->store;

    *out = (sf_bucket_info){
        .has_told_time = atomic_load_explicit(&s->has_told_time, memory_order_acquire),
        .clock_ahead_us = atomic_load_explicit(&s->ahead_us, memory_order_relaxed),
        .ignores_ranges = atomic_load_explicit(&s->ignores_ranges, memory_order_relaxed),
    };
    if (s->vtable->describe)
        s->vtable->describe(s, out);
}

void sf_object_release(sf_object *o)
{
    sf__buf_release(o->owner);
    *o = (sf_object){0};
}

/* ------------------------------------------------------------------ one object ----------------------------------- */

static void op_done(sf_store_op *op)
{
    struct object_call *o = op->ctx;

    sf__call_failed(&o->call, op->error);
    if (op->error->code == SF_OK) {
        o->object.size = op->object_size;
        memcpy(o->object.etag, op->etag, sizeof(o->object.etag));
        o->object.owner = op->data;
        o->object.data = sf__buf_bytes(op->data);
        op->data = NULL;
    }
    sf__call_finish(&o->call);
}

static void object_start(sf_call *c)
{
    struct object_call *o = sf_container_of(c, struct object_call, call);

    o->op.deadline_ns = c->deadline_ns;
    o->op.done = op_done;
    o->op.ctx = o;
    sf__store_submit(o->store, &o->op);
}

static void object_cancel(sf_call *c)
{
    struct object_call *o = sf_container_of(c, struct object_call, call);

    sf__store_cancel(o->store, &o->op);
}

static void object_destroy(sf_call *c)
{
    struct object_call *o = sf_container_of(c, struct object_call, call);

    sf_object_release(&o->object);
    sf__store_op_cleanup(&o->op, c->alloc);
    for (size_t i = 0; o->keys && i < o->op.key_count; i++)
        sf__free(c->alloc, o->keys[i]);
    sf__free(c->alloc, o->keys);
    sf__free(c->alloc, (char *)o->op.key);
    sf__free(c->alloc, (char *)o->op.if_match);
    sf__free(c->alloc, (char *)o->op.content_type);
    sf__free(c->alloc, (uint8_t *)o->op.body.p);
    sf__store_release(o->store);
}

static const sf_call_type object_type = {.start = object_start, .cancel = object_cancel, .destroy = object_destroy};

sf_object *sf_call_object(sf_call *c)
{
    return c->type == &object_type ? &sf_container_of(c, struct object_call, call)->object : NULL;
}

/* NULL without memory, or in a forked child. */
static struct object_call *object_new(sf_bucket *b, sf_store_verb verb, const char *key, int64_t timeout_ms,
                                      sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct object_call *o;

    if (sf__runtime_check_process(b->rt, err) != SF_OK)
        return NULL;
    o = (struct object_call *)sf__call_new(&object_type, sizeof(*o), b->rt, timeout_ms, done, ctx);
    if (o) {
        o->store = sf__store_acquire(b->store);
        o->op.verb = verb;
        o->op.key = sf__strdup(b->rt->alloc, key);
        if (o->op.key)
            return o;
        sf__call_drop(&o->call);
    }
    sf_fail(err, SF_NOMEM, "%s of %s", sf__store_verb_name(verb), key);
    return NULL;
}

static sf_status failed_start(const sf_bucket *b)
{
    return sf__runtime_check_process(b->rt, NULL) == SF_OK ? SF_NOMEM : SF_FORKED;
}

static sf_status object_go(sf_call **out, struct object_call *o)
{
    *out = &o->call;
    sf__call_start(&o->call);
    return SF_OK;
}

sf_status sf_bucket_get_start(sf_call **out, sf_bucket *b, const char *key, uint64_t max_bytes, int64_t timeout_ms,
                              sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct object_call *o = object_new(b, SF_STORE_GET, key, timeout_ms, done, ctx, err);

    if (!o)
        return failed_start(b);
    o->op.len = SF_STORE_ALL;
    o->op.max_bytes = max_bytes;
    return object_go(out, o);
}

sf_status sf_bucket_get_range_start(sf_call **out, sf_bucket *b, const char *key, uint64_t off, uint64_t len,
                                    int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct object_call *o = object_new(b, SF_STORE_GET, key, timeout_ms, done, ctx, err);

    if (!o)
        return failed_start(b);
    o->op.off = off;
    o->op.len = len == SF_STORE_ALL ? 0 : len; /* which is none either, and refused as such */
    return object_go(out, o);
}

sf_status sf_bucket_head_start(sf_call **out, sf_bucket *b, const char *key, int64_t timeout_ms, sf_call_done_fn done,
                               void *ctx, sf_error *err)
{
    struct object_call *o = object_new(b, SF_STORE_HEAD, key, timeout_ms, done, ctx, err);

    return o ? object_go(out, o) : failed_start(b);
}

/* NULL stays NULL. False without memory. */
static bool copy_text(const char **to, const char *from, const sf_allocator *a)
{
    *to = from ? sf__strdup(a, from) : NULL;
    return !from || *to;
}

static bool copy_body(sf_bytes *to, sf_bytes from, const sf_allocator *a)
{
    uint8_t *p;

    if (from.n == 0)
        return true;
    p = sf__alloc(a, from.n);
    if (!p)
        return false;
    memcpy(p, from.p, from.n);
    *to = (sf_bytes){p, from.n};
    return true;
}

sf_status sf_bucket_put_start(sf_call **out, sf_bucket *b, const char *key, sf_bytes body, const sf_put_options *given,
                              int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    sf_put_options opts = SF_PUT_OPTIONS_INIT;
    struct object_call *o;
    sf_status rc = sf__options_take(&opts, sizeof(opts), given, "put options", err);

    if (rc != SF_OK)
        return rc;
    o = object_new(b, SF_STORE_PUT, key, timeout_ms, done, ctx, err);
    if (!o)
        return failed_start(b);
    o->op.create_only = o->op.strict = opts.create_only;
    if (!copy_text(&o->op.content_type, opts.content_type, o->call.alloc) ||
        !copy_text(&o->op.if_match, opts.if_match, o->call.alloc) || !copy_body(&o->op.body, body, o->call.alloc)) {
        sf__call_drop(&o->call);
        return sf_fail(err, SF_NOMEM, "put of %zu bytes to %s", body.n, key);
    }
    sf__store_op_digest(b->store, &o->op);
    return object_go(out, o);
}

sf_status sf_bucket_delete_start(sf_call **out, sf_bucket *b, const char *key, int64_t timeout_ms, sf_call_done_fn done,
                                 void *ctx, sf_error *err)
{
    struct object_call *o = object_new(b, SF_STORE_DELETE, key, timeout_ms, done, ctx, err);

    return o ? object_go(out, o) : failed_start(b);
}

sf_status sf_bucket_delete_many_start(sf_call **out, sf_bucket *b, const char *const *keys, size_t count,
                                      int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct object_call *o;

    if (count == 0 || count > 1000)
        return sf_fail(err, SF_INVALID, "a batch has 1 to 1000 objects, not %zu", count);
    o = object_new(b, SF_STORE_DELETE_MANY, "", timeout_ms, done, ctx, err);
    if (!o)
        return failed_start(b);
    o->keys = sf__calloc(o->call.alloc, count, sizeof(*o->keys));
    o->op.keys = (const char *const *)o->keys;
    for (size_t i = 0; o->keys && i < count; i++) {
        o->op.key_count = i + 1;
        o->keys[i] = sf__strdup(o->call.alloc, keys[i]);
        if (!o->keys[i])
            break;
    }
    if (!o->keys || !o->keys[count - 1]) {
        sf__call_drop(&o->call);
        return sf_fail(err, SF_NOMEM, "delete of %zu objects", count);
    }
    return object_go(out, o);
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

static void listing_done(sf_store_listing *listing)
{
    struct list_call *l = listing->ctx;
    sf_call *c = &l->call;

    sf__call_failed(c, listing->error);
    if (!c->error) {
        l->entries = sf__calloc(c->alloc, listing->entry_count + 1, sizeof(*l->entries));
        if (!l->entries)
            sf__call_fail(c, SF_NOMEM, "listing");
    }
    for (size_t i = 0; l->entries && i < listing->entry_count; i++) {
        const sf_store_entry *e = &listing->entries[i];

        l->entries[i] = (sf_object_entry){.key = e->key, .size = e->size, .is_prefix = e->is_prefix};
    }
    sf__call_finish(c);
}

static void list_start(sf_call *c)
{
    struct list_call *l = sf_container_of(c, struct list_call, call);

    l->listing.store = l->store;
    l->listing.deadline_ns = c->deadline_ns;
    l->listing.done = listing_done;
    l->listing.ctx = l;
    sf__store_list_all(&l->listing);
}

static void list_cancel(sf_call *c)
{
    sf__store_list_cancel(&sf_container_of(c, struct list_call, call)->listing);
}

static void list_destroy(sf_call *c)
{
    struct list_call *l = sf_container_of(c, struct list_call, call);

    sf__free(c->alloc, l->entries);
    sf__store_listing_cleanup(&l->listing);
    sf__free(c->alloc, (char *)l->listing.prefix);
    sf__free(c->alloc, (char *)l->listing.delimiter);
    sf__store_release(l->store);
}

static const sf_call_type list_type = {.start = list_start, .cancel = list_cancel, .destroy = list_destroy};

const sf_object_entry *sf_call_entries(const sf_call *c, size_t *count)
{
    const struct list_call *l = c->type == &list_type ? sf_container_of(c, struct list_call, call) : NULL;

    *count = l && l->entries ? l->listing.entry_count : 0;
    return l ? l->entries : NULL;
}

sf_status sf_bucket_list_start(sf_call **out, sf_bucket *b, const char *prefix, const char *delimiter,
                               int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct list_call *l;
    sf_status rc = sf__runtime_check_process(b->rt, err);

    if (rc != SF_OK)
        return rc;
    l = (struct list_call *)sf__call_new(&list_type, sizeof(*l), b->rt, timeout_ms, done, ctx);
    if (l) {
        l->store = sf__store_acquire(b->store);
        if (copy_text(&l->listing.prefix, prefix, l->call.alloc) &&
            copy_text(&l->listing.delimiter, delimiter, l->call.alloc)) {
            *out = &l->call;
            sf__call_start(&l->call);
            return SF_OK;
        }
        sf__call_drop(&l->call);
    }
    return sf_fail(err, SF_NOMEM, "listing of %s", prefix);
}

/* ------------------------------------------------------------------ blocking forms ------------------------------- */

/* Waits for what was started and hands its object over; `out` may be NULL. */
static sf_status object_wait(sf_status started, sf_call *c, sf_object *out, sf_error *err)
{
    sf_status rc;

    if (started != SF_OK)
        return started;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK && out) {
        *out = *sf_call_object(c);
        sf_call_object(c)->owner = NULL;
    }
    sf_call_release(c);
    return rc;
}

sf_status sf_bucket_get(sf_bucket *b, const char *key, uint64_t max_bytes, int64_t timeout_ms, sf_object *out,
                        sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_get_start(&c, b, key, max_bytes, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, out, err);
}

sf_status sf_bucket_get_range(sf_bucket *b, const char *key, uint64_t off, uint64_t len, int64_t timeout_ms,
                              sf_object *out, sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_get_range_start(&c, b, key, off, len, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, out, err);
}

sf_status sf_bucket_head(sf_bucket *b, const char *key, int64_t timeout_ms, sf_object *out, sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_head_start(&c, b, key, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, out, err);
}

sf_status sf_bucket_put(sf_bucket *b, const char *key, sf_bytes body, const sf_put_options *opts, int64_t timeout_ms,
                        sf_object *out, sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_put_start(&c, b, key, body, opts, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, out, err);
}

sf_status sf_bucket_delete(sf_bucket *b, const char *key, int64_t timeout_ms, sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_delete_start(&c, b, key, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, NULL, err);
}

sf_status sf_bucket_delete_many(sf_bucket *b, const char *const *keys, size_t count, int64_t timeout_ms, sf_error *err)
{
    sf_call *c = NULL;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_delete_many_start(&c, b, keys, count, timeout_ms, NULL, NULL, err);
    return object_wait(rc, c, NULL, err);
}

sf_status sf_bucket_list(sf_call **out, sf_bucket *b, const char *prefix, const char *delimiter, int64_t timeout_ms,
                         sf_error *err)
{
    sf_call *c;
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK)
        rc = sf_bucket_list_start(&c, b, prefix, delimiter, timeout_ms, NULL, NULL, err);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK)
        *out = c;
    else
        sf_call_release(c);
    return rc;
}
