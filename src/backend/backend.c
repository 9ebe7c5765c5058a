#include "backend/backend.h"

#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

/* ------------------------------------------------------------------ shards --------------------------------------- */

bool sf__shard_init(sf_shard *s, const sf_shard_vtable *vtable, const sf_shard_open *op)
{
    s->url = sf__strdup(op->rt->alloc, op->url ? op->url : "");
    if (!s->url)
        return false;
    s->vtable = vtable;
    s->rt = sf__runtime_ref(op->rt);
    s->cache = sf__block_cache_acquire(op->cache ? op->cache : op->rt->shared_cache);
    s->db_id = op->db_id;
    atomic_init(&s->refs, 1);
    return true;
}

void sf__shard_destroy(sf_shard *s)
{
    sf_runtime *rt = s->rt;

    sf__free(rt->alloc, s->url);
    sf__block_cache_release(s->cache);
    sf__free(rt->alloc, s);
    sf__runtime_unref(rt);
}

sf_shard *sf__shard_acquire(sf_shard *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

static void free_shard(sf_task *task)
{
    sf_shard *s = sf_container_of(task, sf_shard, free_task);

    s->vtable->free(s);
}

void sf__shard_release(sf_shard *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
        return;
    if (s->vtable->gone)
        s->vtable->gone(s);
    s->free_task.run = free_shard;
    sf__loop_post(s->rt->loop, &s->free_task);
}

/* ------------------------------------------------------------------ ranges --------------------------------------- */

static sf_bytes put(uint8_t **to, sf_bytes from)
{
    sf_bytes copy = sf_bytes_of(*to, from.n);

    if (from.n > 0)
        memcpy(*to, from.p, from.n);
    *to += from.n;
    return copy;
}

uint8_t *sf__scan_range_copy(sf_scan_range *out, const sf_scan_range *range, const sf_allocator *a)
{
    sf_bytes none = {NULL, 0}, end = range->has_end ? range->end : none,
             prefix = range->has_prefix ? range->prefix : none;
    uint8_t *bytes = sf__alloc(a, range->start.n + end.n + prefix.n + 1), *to = bytes;

    if (!bytes)
        return NULL;
    *out = *range;
    out->start = put(&to, range->start);
    out->end = put(&to, end);
    out->prefix = put(&to, prefix);
    return bytes;
}

/* ------------------------------------------------------------------ openings ------------------------------------- */

static void open_begin(sf_task *task)
{
    sf_shard_open *op = sf_container_of(task, sf_shard_open, task);

    if (op->impl)
        op->begin(op->impl);
    else
        op->done(op);
}

void sf__shard_open_begin(sf_shard_open *op, void *impl, void (*begin)(void *impl))
{
    op->shard = NULL;
    op->is_sqlite = op->by_record = false;
    op->error = NULL;
    op->impl = impl;
    if (!impl)
        sf__shard_open_fail(op, SF_NOMEM, "opening a shard");
    op->begin = begin;
    op->task.run = open_begin;
    sf__loop_post(op->rt->loop, &op->task);
}

bool sf__shard_open_is_record_bad(const sf_shard_open *op)
{
    sf_status rc = op->error ? op->error->code : SF_OK;

    return rc == SF_NOT_FOUND || rc == SF_DENIED || rc == SF_CORRUPT || rc == SF_UNSUPPORTED;
}

void sf__shard_open_failed(sf_shard_open *op, const sf_error *e)
{
    sf_error mine;

    if (op->error)
        return;
    mine = *e;
    mine.db_id = op->db_id;
    op->error = sf_error_keep(op->rt->alloc, &mine);
}

void sf__shard_open_fail(sf_shard_open *op, sf_status code, const char *what)
{
    sf_error e;

    sf_fail(&e, code, "%s", what);
    sf__shard_open_failed(op, &e);
}

/* ------------------------------------------------------------------ look-ups that fail --------------------------- */

void sf__shard_key_failed(const sf_shard *s, sf_shard_get_many *op, sf_shard_ask *ask, sf_status rc, const sf_error *e)
{
    sf_error first;

    ask->status = rc;
    if (op->error)
        return;
    first = *e;
    first.code = rc;
    first.db_id = s->db_id >= 0 ? s->db_id : (int32_t)ask->db_id; /* one that is opened on its own has no number */
    op->error = sf_error_keep(s->rt->alloc, &first);
}

void sf__shard_get_failed(const sf_shard *s, sf_shard_get_many *op, const sf_error *e)
{
    op->impl = NULL;
    for (size_t i = 0; i < op->count; i++)
        sf__shard_key_failed(s, op, &op->asks[i], e->code, e);
}

static void failed_posted(sf_task *task)
{
    sf_shard_get_many *op = sf_container_of(task, sf_shard_get_many, task);

    op->done(op);
}

void sf__shard_get_fail_later(const sf_shard *s, sf_shard_get_many *op, const sf_error *e)
{
    sf__shard_get_failed(s, op, e);
    op->task.run = failed_posted;
    sf__loop_post(s->rt->loop, &op->task);
}

/* ------------------------------------------------------------------ row batches ---------------------------------- */

#define CHUNK_BYTES (32u << 10)

struct row_chunk {
    struct row_chunk *next;
    uint8_t data[];
};

sf_row_batch *sf__row_batch_new(const sf_allocator *a)
{
    sf_row_batch *b = sf__calloc(a, 1, sizeof(*b));

    if (b)
        b->alloc = a;
    return b;
}

void sf__row_batch_free(sf_row_batch *b)
{
    if (!b)
        return;
    for (struct row_chunk *c = b->arena, *next; c; c = next) {
        next = c->next;
        sf__free(b->alloc, c);
    }
    for (size_t i = 0; i < b->block_count; i++)
        sf__buf_release(b->blocks[i]);
    sf__free(b->alloc, b->blocks);
    sf__free(b->alloc, b->rows);
    sf__free(b->alloc, b);
}

bool sf__row_batch_reserve(sf_row_batch *b, size_t rows)
{
    return SF_RESERVE(b->alloc, &b->rows, &b->cap, rows);
}

/* Many bytes get a chunk of their own behind the newest, whose room stays in use. */
uint8_t *sf__row_batch_room(sf_row_batch *b, size_t n)
{
    bool alone = n > CHUNK_BYTES / 4;
    size_t cap = alone ? n : CHUNK_BYTES;
    struct row_chunk *first = b->arena, *c = sf__alloc(b->alloc, sizeof(*c) + cap);

    if (!c)
        return NULL;
    if (first && alone) {
        c->next = first->next;
        first->next = c;
        return c->data;
    }
    c->next = first;
    b->arena = c;
    b->room = c->data + n;
    b->room_bytes = cap - n;
    return c->data;
}

bool sf__row_batch_hold(sf_row_batch *b, sf_buf *owner)
{
    if (!SF_RESERVE(b->alloc, &b->blocks, &b->block_cap, b->block_count + 1))
        return false;
    b->blocks[b->block_count++] = sf__buf_acquire(owner);
    return true;
}
