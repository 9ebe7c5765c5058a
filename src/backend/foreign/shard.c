/* Opening, and look-ups: one question for all keys of an operation. */
#include "backend/foreign/shard.h"

#include "base/container.h"
#include "base/error.h"

#define HEAP (&sf__allocator_default)

sf_status sf__foreign_failed(sf_error *err, const sf_shard *s, const char *what, const sf_shard_request *q, bool late)
{
    sf_status rc;

    if (late)
        rc = sf_error_overdue(err, &(sf_overdue){.since_ns = q->since_ns, .waits_for = "an answer"});
    else
        rc = (*err = q->error ? *q->error : sf__no_error).code;
    if (rc != SF_OK) {
        sf_error_prefix(err, rc, "%s %s: ", what, s->url);
        sf_error_object(err, s->url);
        err->db_id = s->db_id;
    }
    return rc;
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

/* Nothing of it is in memory that is ours. */
static sf_status try_get(sf_shard *s, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    (void)s;
    (void)key;
    (void)out;
    (void)err;
    if (place)
        *place = (sf_shard_place){0};
    return SF_WOULD_BLOCK;
}

static void get_home(sf_shard_request *q, bool late)
{
    sf_shard_get_many *op = q->owner;
    sf_error e;
    sf_status rc = sf__foreign_failed(&e, q->shard, "get", q, late), status;
    bool whole = late || q->broken;

    for (size_t i = 0; i < op->count; i++) {
        sf_shard_ask *ask = &op->asks[i];

        status = whole ? rc : q->statuses[i];
        if (status != SF_OK) {
            sf__shard_key_failed(q->shard, op, ask, status, &e);
            continue;
        }
        ask->value = q->values[i];
        q->values[i] = (sf_value){0};
    }
    if (rc != SF_OK && !op->error)
        op->error = sf_error_keep(q->shard->rt->alloc, &e);
    op->impl = NULL;
    sf__shard_request_release(q);
    op->done(op);
}

/* Keys are copied: whoever thinks about them may do so for longer than anybody waits. */
static bool copy_keys(sf_shard_request *q, const sf_shard_get_many *op)
{
    size_t bytes = op->count * sizeof(*q->keys);
    uint8_t *at;

    for (size_t i = 0; i < op->count; i++)
        bytes += op->asks[i].key.n;
    q->count = op->count;
    q->values = sf__calloc(HEAP, op->count, sizeof(*q->values));
    q->statuses = sf__calloc(HEAP, op->count, sizeof(*q->statuses));
    q->keys = sf__alloc(HEAP, bytes);
    if (!q->values || !q->statuses || !q->keys)
        return false;
    at = (uint8_t *)(q->keys + op->count);
    for (size_t i = 0; i < op->count; i++) {
        sf_bytes key = op->asks[i].key;

        if (key.n > 0)
            memcpy(at, key.p, key.n);
        q->keys[i] = (sf_bytes){at, key.n};
        at += key.n;
    }
    return true;
}

static void get_many(sf_shard *s, sf_shard_get_many *op)
{
    sf_foreign_handle *h = sf_container_of(s, sf_foreign_shard, base)->handle;
    sf_shard_request *q = sf__shard_request_new(h, s->rt->loop, op->call_ctx, op, get_home);
    sf_error e;

    if (!q || !copy_keys(q, op)) {
        if (q)
            sf__shard_request_forget(q);
        sf_fail(&e, SF_NOMEM, "look-up of %zu keys", op->count);
        sf__shard_get_fail_later(s, op, &e);
        return;
    }
    op->impl = q;
    q->shard = s;
    sf__shard_request_start(q, op->deadline_ns);
    h->opener->vtable.get_many(h->shard, q->keys, q->count, q); /* q may be gone: nothing after this line */
}

static void get_many_cancel(sf_shard *s, sf_shard_get_many *op)
{
    sf_shard_request *q = op->impl;
    sf_error e;

    if (!q || !sf__shard_request_drop(q))
        return;
    sf__shard_request_release(q);
    sf_fail(&e, SF_CANCELLED, "cancelled");
    sf__shard_get_fail_later(s, op, &e);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

static void shard_gone(sf_shard *s)
{
    sf_foreign_shard *f = sf_container_of(s, sf_foreign_shard, base);
    sf_foreign_handle *h = f->handle;

    f->handle = NULL;
    sf__foreign_handle_release(h);
}

static void *shard_foreign(const sf_shard *s)
{
    return sf_container_of(s, sf_foreign_shard, base)->handle->shard;
}

static const sf_shard_vtable vtable = {
    .try_get = try_get,
    .get_many = get_many,
    .get_many_cancel = get_many_cancel,
    .scan_open = sf__foreign_scan_open,
    .scan_next = sf__foreign_scan_next,
    .scan_fill = sf__foreign_scan_fill,
    .scan_fill_cancel = sf__foreign_scan_fill_cancel,
    .scan_free = sf__foreign_scan_free,
    .gone = shard_gone,
    .foreign = shard_foreign,
    .free = sf__shard_destroy,
};

/* ------------------------------------------------------------------ opening -------------------------------------- */

static void open_shard(sf_shard_open *op, sf_shard_request *q)
{
    sf_foreign_shard *s = sf__calloc(op->rt->alloc, 1, sizeof(*s));

    if (!s || !sf__shard_init(&s->base, &vtable, op)) {
        sf__free(op->rt->alloc, s);
        sf__shard_open_fail(op, SF_NOMEM, "shard");
        return;
    }
    s->handle = sf__foreign_handle_acquire(q->handle);
    op->shard = &s->base;
}

static void open_done(sf_task *task)
{
    sf_shard_open *op = sf_container_of(task, sf_shard_open, task);

    op->done(op);
}

static void open_fail_later(sf_shard_open *op, sf_status code, const char *what)
{
    sf__shard_open_fail(op, code, what);
    op->impl = NULL;
    op->task.run = open_done;
    sf__loop_post(op->rt->loop, &op->task);
}

static void open_home(sf_shard_request *q, bool late)
{
    sf_shard_open *op = q->owner;
    const sf_shard named = {.url = (char *)op->url, .db_id = op->db_id};
    sf_error e;

    if (sf__foreign_failed(&e, &named, "opening shard", q, late) == SF_OK)
        open_shard(op, q);
    else
        sf__shard_open_failed(op, &e);
    op->impl = NULL;
    sf__shard_request_release(q);
    op->done(op);
}

/* What the opener sees of it. */
static bool describe(sf_shard_request *q, const sf_shard_open *op, const char *location, const char *manifest_ref,
                     sf_buf *manifest)
{
    sf_shard_to_open *to = &q->to_open;
    const char *texts[] = {location, op->url, manifest_ref, op->checkpoint},
               **at[] = {&to->url, &to->published_url, &to->manifest_ref, &to->checkpoint_id};
    size_t n = 0;
    char *p;

    for (size_t i = 0; i < 4; i++)
        n += texts[i] ? strlen(texts[i]) + 1 : 0;
    q->texts = p = sf__alloc(HEAP, n);
    if (!p)
        return false;
    for (size_t i = 0; i < 4; i++) {
        size_t len = texts[i] ? strlen(texts[i]) + 1 : 0;

        *at[i] = texts[i] ? p : NULL;
        if (texts[i])
            memcpy(p, texts[i], len);
        p += len;
    }
    to->db_id = (uint32_t)op->db_id;
    to->manifest = sf__buf_bytes(manifest);
    return true;
}

void sf__foreign_shard_open(sf_shard_open *op, sf_foreign_opener *opener, const char *location,
                            const char *manifest_ref, sf_buf *manifest, bool shared, uint32_t together)
{
    sf_foreign_handle *h = sf__foreign_handle_new(opener);
    sf_shard_request *q = h ? sf__shard_request_new(h, op->rt->loop, op->call_ctx, op, open_home) : NULL;

    sf__foreign_handle_release(h);
    if (!q || !describe(q, op, location, manifest_ref, manifest)) {
        if (q)
            sf__shard_request_forget(q);
        open_fail_later(op, SF_NOMEM, "opening a shard");
        return;
    }
    q->to_open.shared = shared;
    q->to_open.together = together;
    q->manifest = manifest ? sf__buf_acquire(manifest) : NULL;
    op->impl = q;
    sf__shard_request_start(q, op->deadline_ns);
    q->handle->opener->vtable.open(opener->vtable.ctx, &q->to_open, q); /* q may be gone: nothing after this line */
}

void sf__foreign_shard_open_cancel(sf_shard_open *op)
{
    sf_shard_request *q = op->impl;

    if (!q || !sf__shard_request_drop(q))
        return;
    sf__shard_request_release(q);
    open_fail_later(op, SF_CANCELLED, "cancelled");
}
