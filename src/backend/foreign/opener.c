#include "backend/foreign/opener.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/options.h"

/* Of a text only so much goes into an error. */
#define TEXT_BYTES 512

#define HEAP (&sf__allocator_default)

static bool unref(atomic_uint *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

static void ref(atomic_uint *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------ the opener ----------------------------------- */

static const char *missing(const sf_shard_opener *o)
{
    if (!o->open)
        return "open";
    if (!o->get_many)
        return "get_many";
    if (!o->close)
        return "close";
    return !o->retain == !o->release ? NULL : o->retain ? "release" : "retain";
}

sf_status sf__foreign_opener_new(sf_foreign_opener **out, const sf_shard_opener *given, sf_error *err)
{
    sf_shard_opener whole = {0};
    sf_foreign_opener *o;
    sf_status rc = sf__options_take(&whole, sizeof(whole), given, "opener of shards", err);

    if (rc != SF_OK)
        return rc;
    if (missing(&whole))
        return sf_fail(err, SF_INVALID, "opener of shards: %s is missing", missing(&whole));
    o = sf__calloc(HEAP, 1, sizeof(*o));
    if (!o)
        return sf_fail(err, SF_NOMEM, "opener of shards");
    o->vtable = whole;
    atomic_init(&o->refs, 1);
    if (whole.retain)
        whole.retain(whole.ctx);
    *out = o;
    return SF_OK;
}

sf_foreign_opener *sf__foreign_opener_acquire(sf_foreign_opener *o)
{
    ref(&o->refs);
    return o;
}

void sf__foreign_opener_release(sf_foreign_opener *o)
{
    if (!o || !unref(&o->refs))
        return;
    if (o->vtable.release)
        o->vtable.release(o->vtable.ctx);
    sf__free(HEAP, o);
}

/* ------------------------------------------------------------------ shards and scans ----------------------------- */

sf_foreign_handle *sf__foreign_handle_new(sf_foreign_opener *o)
{
    sf_foreign_handle *h = sf__calloc(HEAP, 1, sizeof(*h));

    if (!h)
        return NULL;
    atomic_init(&h->refs, 1);
    h->opener = sf__foreign_opener_acquire(o);
    return h;
}

sf_foreign_handle *sf__foreign_handle_acquire(sf_foreign_handle *h)
{
    ref(&h->refs);
    return h;
}

void sf__foreign_handle_release(sf_foreign_handle *h)
{
    if (!h || !unref(&h->refs))
        return;
    if (h->opened)
        h->opener->vtable.close(h->shard);
    sf__foreign_opener_release(h->opener);
    sf__free(HEAP, h);
}

static uint8_t *copy_to(uint8_t *at, sf_bytes *b)
{
    if (b->n > 0)
        memcpy(at, b->p, b->n);
    b->p = at;
    return at + b->n;
}

sf_foreign_cursor *sf__foreign_cursor_new(sf_foreign_handle *h, const sf_scan_range *r)
{
    sf_bytes end = r->has_end ? r->end : (sf_bytes){0}, prefix = r->has_prefix ? r->prefix : (sf_bytes){0};
    sf_foreign_cursor *c = sf__calloc(HEAP, 1, sizeof(*c) + r->start.n + end.n + prefix.n + 1);

    if (!c)
        return NULL;
    atomic_init(&c->refs, 1);
    c->handle = sf__foreign_handle_acquire(h);
    c->wanted = (sf_shard_rows_wanted){
        .start = r->start,
        .end = end,
        .has_end = r->has_end,
        .reverse = r->reverse,
        .has_prefix = r->has_prefix,
        .prefix = prefix,
        .limit = r->limit,
    };
    copy_to(copy_to(copy_to(c->bounds, &c->wanted.start), &c->wanted.end), &c->wanted.prefix);
    return c;
}

sf_foreign_cursor *sf__foreign_cursor_acquire(sf_foreign_cursor *c)
{
    ref(&c->refs);
    return c;
}

void sf__foreign_cursor_release(sf_foreign_cursor *c)
{
    const sf_shard_opener *o;

    if (!c || !unref(&c->refs))
        return;
    o = &c->handle->opener->vtable;
    if (c->scan && o->scan_close)
        o->scan_close(c->handle->shard, c->scan);
    sf__foreign_handle_release(c->handle);
    sf__free(HEAP, c);
}

/* ------------------------------------------------------------------ questions ------------------------------------ */

static void question_free(sf_question *base)
{
    sf_shard_request *q = sf_container_of(base, sf_shard_request, question);

    for (size_t i = 0; q->values && i < q->count; i++)
        sf__buf_release(q->values[i].owner);
    sf__free(HEAP, q->values);
    sf__free(HEAP, q->statuses);
    sf__free(HEAP, q->keys);
    sf__free(HEAP, q->texts);
    sf__buf_release(q->manifest);
    sf__row_batch_free(q->rows);
    sf__foreign_cursor_release(q->cursor);
    sf__foreign_handle_release(q->handle);
    sf_error_drop(HEAP, q->error);
    sf__free(HEAP, q);
}

static void question_answered(sf_question *base)
{
    sf_shard_request *q = sf_container_of(base, sf_shard_request, question);

    sf__timer_stop(q->loop, &q->timer);
    q->home(q, false);
}

static void question_late(sf_timer *timer)
{
    sf_shard_request *q = sf_container_of(timer, sf_shard_request, timer);

    if (sf__question_drop(&q->question))
        q->home(q, true);
}

sf_shard_request *sf__shard_request_new(sf_foreign_handle *h, sf_loop *loop, void *call_ctx, void *owner,
                                        void (*home)(sf_shard_request *q, bool late))
{
    sf_shard_request *q = sf__calloc(HEAP, 1, sizeof(*q));

    if (!q)
        return NULL;
    sf__question_init(&q->question, loop, question_answered, question_free);
    q->loop = loop;
    q->call_ctx = call_ctx;
    q->handle = sf__foreign_handle_acquire(h);
    q->owner = owner;
    q->home = home;
    q->timer.fire = question_late;
    return q;
}

void sf__shard_request_forget(sf_shard_request *q)
{
    sf__question_not_asked(&q->question);
    sf__question_release(&q->question);
}

void sf__shard_request_start(sf_shard_request *q, uint64_t deadline_ns)
{
    q->since_ns = sf__clock_mono_ns();
    sf__timer_start(q->loop, &q->timer, deadline_ns);
}

bool sf__shard_request_drop(sf_shard_request *q)
{
    if (!sf__question_drop(&q->question))
        return false;
    sf__timer_stop(q->loop, &q->timer);
    return true;
}

void sf__shard_request_release(sf_shard_request *q)
{
    sf__question_release(&q->question);
}

/* ------------------------------------------------------------------ answers -------------------------------------- */

void *sf_shard_request_call_ctx(const sf_shard_request *q)
{
    return q->call_ctx;
}

static void set_error(sf_shard_request *q, sf_status status, const char *text)
{
    sf_error e;

    sf_fail(&e, status == SF_OK ? SF_IO : status, "%.*s", TEXT_BYTES, text ? text : "");
    sf_error_drop(HEAP, q->error);
    q->error = sf_error_keep(HEAP, &e);
}

/* Nothing of the answer can be used. The first reason counts. */
static void spoil(sf_shard_request *q, sf_status rc, const char *what)
{
    if (q->broken)
        return;
    set_error(q, rc, what);
    q->broken = true;
}

void sf_shard_request_opened(sf_shard_request *q, void *shard)
{
    if (q->texts) {
        q->handle->opened = true;
        q->handle->shard = shard;
    } else {
        spoil(q, SF_INVALID, "the opener of shards has answered another question than that to open one");
    }
    sf__question_answer(&q->question);
}

static bool is_key(sf_shard_request *q, size_t index)
{
    if (index < q->count)
        return true;
    spoil(q, SF_INVALID, "the opener of shards has answered for a key that it was not asked for");
    return false;
}

static void no_value(sf_value *v)
{
    sf__buf_release(v->owner);
    *v = (sf_value){0};
}

void sf_shard_request_value(sf_shard_request *q, size_t index, sf_bytes value)
{
    sf_buf *b;

    if (!is_key(q, index))
        return;
    no_value(&q->values[index]);
    b = sf__buf_copy(HEAP, value);
    if (!b) {
        sf_shard_request_key_failed(q, index, SF_NOMEM, "value");
        return;
    }
    q->statuses[index] = SF_OK;
    q->values[index] = (sf_value){.found = true, .bytes = sf__buf_bytes(b), .owner = b};
}

void sf_shard_request_key_failed(sf_shard_request *q, size_t index, sf_status status, const char *text)
{
    if (!is_key(q, index))
        return;
    no_value(&q->values[index]);
    q->statuses[index] = status == SF_OK ? SF_IO : status;
    if (!q->error)
        set_error(q, status, text);
}

void sf_shard_request_row(sf_shard_request *q, sf_bytes key, sf_bytes value)
{
    if (!q->rows)
        spoil(q, SF_INVALID, "the opener of shards has given rows that it was not asked for");
    else if (!sf__row_batch_add(q->rows, key, value, false))
        spoil(q, SF_NOMEM, "row of a scan");
}

void sf_shard_request_done(sf_shard_request *q)
{
    if (q->texts)
        spoil(q, SF_INVALID, "the opener of shards has given no shard");
    sf__question_answer(&q->question);
}

void sf_shard_request_fail(sf_shard_request *q, sf_status status, const char *text)
{
    set_error(q, status, text);
    q->broken = true;
    sf__question_answer(&q->question);
}
