/* Look-ups. A key is routed, encoded and asked for in memory once, on the thread that asks. What is not there becomes
 * part of one operation, which goes on from where memory ended: each shard gets its keys as one request on the loop
 * thread; the last shard home completes the call. A look-up of one key needs no memory beyond its call. */
#include <stdlib.h>

#include "base/arena.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"
#include "reader/reader.h"
#include "reader/snapshot.h"
#include "runtime/call.h"

#define NO_SHARD UINT32_MAX
/* More keys than that are sorted by a worker: the thread that asks may be an event loop's, and the loop thread is everybody's. */
#define SORTED_AT_ONCE 2048u

struct part {
    struct lookup *owner;
    sf_shard *shard;      /* borrowed from the snapshot */
    uint32_t db_id;
    bool in_flight;       /* loop thread */
    sf_shard_get_many op;
};

struct lookup {
    sf_call call;
    sf_snapshot *snap; /* acquired */
    /* what memory does not have; by shard once it has begun, those that no shard is asked for last */
    sf_shard_ask *asks, first_ask;
    size_t count, cap;
    sf_arena arena; /* of the stored keys but the first */
    struct part *parts, first_part;
    size_t part_count, part_cap, pending;
    sf_work sorting;
    bool is_sorting, is_cancelled; /* loop thread */
    /* results, as many as keys were asked for, in their order */
    size_t result_count;
    sf_value *values;
    sf_status *statuses;
    sf_error *shard_errors; /* of those that failed; or NULL: of one at most, the call's */
    size_t shard_error_count;
    size_t first_key_cap;
    uint8_t first_key[];
};

/* ------------------------------------------------------------------ the operation -------------------------------- */

static bool is_single(const struct lookup *l)
{
    return l->values == &l->first_ask.value;
}

static bool error_add(struct lookup *l, const sf_error *e)
{
    sf_error *grown = sf__realloc(l->call.alloc, l->shard_errors, (l->shard_error_count + 1) * sizeof(*grown));

    if (!grown)
        return false;
    l->shard_errors = grown;
    grown[l->shard_error_count++] = *e;
    return true;
}

/* One error for each shard that failed, behind those of keys that could not be encoded. The first one, which may be the only
 * one, is the call's. */
static void gather_errors(struct lookup *l)
{
    const sf_allocator *a = l->call.alloc;

    for (size_t i = 0; i < l->part_count; i++) {
        const sf_error *e = l->parts[i].op.error;
        bool only = l->part_count == 1 && l->shard_error_count == 0;

        l->parts[i].op.error = NULL;
        if (only) {
            l->call.error = e;
            l->shard_error_count = e != NULL;
            return;
        }
        if (e && !error_add(l, e))
            sf__call_failed(&l->call, e); /* no memory for the others: it stands for them */
        sf_error_drop(a, e);
    }
    if (l->shard_error_count > 0)
        sf__call_failed(&l->call, l->shard_errors);
}

static void part_home(struct lookup *l)
{
    if (--l->pending > 0)
        return;
    for (size_t i = 0; i < l->count && !is_single(l); i++) {
        sf_shard_ask *ask = &l->asks[i];

        l->values[ask->index] = ask->value;
        ask->value = (sf_value){0};
        l->statuses[ask->index] = ask->status;
    }
    gather_errors(l);
    sf__call_finish(&l->call);
}

static void part_done(sf_shard_get_many *op)
{
    struct part *p = op->ctx;

    p->in_flight = false;
    part_home(p->owner);
}

static void lookup_cancel(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    l->is_cancelled = l->is_sorting;
    for (size_t i = 0; !l->is_sorting && i < l->part_count; i++)
        if (l->parts[i].in_flight)
            l->parts[i].shard->vtable->get_many_cancel(l->parts[i].shard, &l->parts[i].op);
}

static void lookup_send(struct lookup *l)
{
    if (l->call.error) { /* there was no memory to begin it */
        sf__call_finish(&l->call);
        return;
    }
    l->pending = 1; /* this function's own: nothing completes before all have started */
    for (size_t i = 0; i < l->part_count; i++) {
        struct part *p = &l->parts[i];

        if (!p->shard)
            continue; /* an empty shard holds nothing */
        p->in_flight = true;
        p->op.call_ctx = l->call.ctx;
        l->pending++;
        p->shard->vtable->get_many(p->shard, &p->op);
    }
    if (l->is_cancelled)
        lookup_cancel(&l->call);
    part_home(l);
}

static void lookup_group_or_fail(struct lookup *l);

static void sorting_run(sf_work *work)
{
    lookup_group_or_fail(sf_container_of(work, struct lookup, sorting));
}

static void sorting_done(sf_work *work)
{
    struct lookup *l = sf_container_of(work, struct lookup, sorting);

    l->is_sorting = false;
    lookup_send(l);
}

static void lookup_start(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    if (l->count <= SORTED_AT_ONCE) {
        lookup_send(l);
        return;
    }
    l->is_sorting = true;
    l->sorting.run = sorting_run;
    l->sorting.done = sorting_done;
    sf__work_submit(c->rt->loop, SF_WORK_CPU, &l->sorting);
}

static void release_values(sf_value *values, size_t count)
{
    for (size_t i = 0; values && i < count; i++)
        sf_value_release(&values[i]);
}

static void lookup_destroy(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;
    const sf_allocator *a = c->alloc;

    for (size_t i = 0; i < l->count; i++)
        sf_value_release(&l->asks[i].value);
    if (!is_single(l)) {
        release_values(l->values, l->result_count);
        sf__free(a, l->values);
        sf__free(a, l->statuses);
    } else {
        sf_value_release(l->values);
    }
    for (size_t i = 0; i < l->part_count; i++)
        sf_error_drop(a, l->parts[i].op.error);
    sf__free(a, l->shard_errors);
    sf__grown_free(a, l->asks, &l->first_ask);
    sf__grown_free(a, l->parts, &l->first_part);
    sf__arena_cleanup(&l->arena);
    sf__snapshot_release(l->snap);
}

/* ------------------------------------------------------------------ what it gives -------------------------------- */

static struct lookup *as_lookup(const sf_call *c);

sf_value *sf_call_values(sf_call *c, size_t *count)
{
    struct lookup *l = as_lookup(c);

    if (count)
        *count = l && l->values ? l->result_count : 0;
    return l ? l->values : NULL;
}

const sf_status *sf_call_statuses(const sf_call *c)
{
    const struct lookup *l = as_lookup(c);

    return l ? l->statuses : NULL;
}

const sf_error *sf_call_shard_errors(const sf_call *c, size_t *count)
{
    const struct lookup *l = as_lookup(c);

    *count = l ? l->shard_error_count : 0;
    if (*count == 0)
        return NULL;
    return l->shard_errors ? l->shard_errors : l->call.error;
}

void sf_value_release(sf_value *value)
{
    sf__buf_release(value->owner);
    *value = (sf_value){0};
}

/* ------------------------------------------------------------------ beginning it --------------------------------- */

/* Room for the results of `count` keys. */
static bool results_alloc(struct lookup *l, size_t count)
{
    const sf_allocator *a = l->call.alloc;

    l->result_count = count;
    if (count == 1) {
        l->values = &l->first_ask.value;
        l->statuses = &l->first_ask.status;
        return true;
    }
    l->values = sf__calloc(a, count + 1, sizeof(*l->values));
    l->statuses = sf__calloc(a, count + 1, sizeof(*l->statuses));
    return l->values && l->statuses;
}

static int ask_cmp(const void *a, const void *b)
{
    const sf_shard_ask *x = a, *y = b;

    if (x->db_id != y->db_id)
        return x->db_id < y->db_id ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static struct part *part_add(struct lookup *l, uint32_t db_id, sf_shard_ask *first)
{
    struct part *p;

    if (!SF_RESERVE_FROM(l->call.alloc, &l->parts, &l->first_part, &l->part_cap, l->part_count + 1))
        return NULL;
    p = &l->parts[l->part_count++];
    *p = (struct part){.owner = l, .db_id = db_id, .shard = l->snap->shards[db_id]};
    p->op = (sf_shard_get_many){.asks = first, .deadline_ns = l->call.deadline_ns, .done = part_done};
    return p;
}

/* Sorts the keys by shard and cuts them into parts. */
static bool lookup_group(struct lookup *l)
{
    struct part *p = NULL;

    if (!l->values && !results_alloc(l, l->count))
        return false;
    if (l->count > 1)
        qsort(l->asks, l->count, sizeof(*l->asks), ask_cmp);
    for (size_t i = 0; i < l->count && l->asks[i].db_id != NO_SHARD; i++) {
        if (!p || p->db_id != l->asks[i].db_id)
            p = part_add(l, l->asks[i].db_id, &l->asks[i]);
        if (!p)
            return false;
        p->op.count++;
    }
    for (size_t i = 0; i < l->part_count; i++) /* from now on nothing moves */
        l->parts[i].op.ctx = &l->parts[i];
    return true;
}

static void lookup_group_or_fail(struct lookup *l)
{
    sf_error e;

    if (lookup_group(l))
        return;
    l->shard_error_count = 0; /* of keys: no one else has been asked */
    sf_fail(&e, SF_NOMEM, "look-up of %zu keys", l->count);
    sf__call_failed(&l->call, &e);
}

static void lookup_begin(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    if (l->count <= SORTED_AT_ONCE)
        lookup_group_or_fail(l);
}

static const sf_call_type lookup_type = {
    .begin = lookup_begin, .start = lookup_start, .cancel = lookup_cancel, .destroy = lookup_destroy};

static struct lookup *as_lookup(const sf_call *c)
{
    return c->type == &lookup_type ? (struct lookup *)c : NULL;
}

/* ------------------------------------------------------------------ asking --------------------------------------- */

/* `key_bytes`: how long its first key is. */
static struct lookup *lookup_new(sf_snapshot *s, size_t key_bytes, int64_t timeout_ms)
{
    sf_call *c = sf__call_new(&lookup_type, sizeof(struct lookup) + key_bytes, s->rt, timeout_ms, NULL, NULL);
    struct lookup *l = (struct lookup *)c;

    if (!l)
        return NULL;
    l->snap = sf__snapshot_acquire(s);
    l->first_key_cap = key_bytes;
    l->asks = &l->first_ask;
    l->parts = &l->first_part;
    l->cap = l->part_cap = 1;
    sf__arena_init(&l->arena, l->call.alloc);
    return l;
}

/* One more key, which memory could not answer. */
static sf_shard_ask *ask_add(struct lookup *l, uint32_t db_id, sf_bytes key, size_t index)
{
    sf_shard_ask *ask;
    bool first = l->count == 0 && key.n <= l->first_key_cap;
    uint8_t *copy = first ? l->first_key : sf__arena_alloc(&l->arena, key.n + 1);

    if (!copy || !SF_RESERVE_FROM(l->call.alloc, &l->asks, &l->first_ask, &l->cap, l->count + 1))
        return NULL;
    if (key.n > 0)
        memcpy(copy, key.p, key.n);
    ask = &l->asks[l->count++];
    *ask = (sf_shard_ask){.key = {copy, key.n}, .db_id = db_id, .index = index};
    return ask;
}

/* A key that cannot be encoded fails its shard, as a damaged block would: the first such key of a shard is reported. */
static bool shard_failed(struct lookup *l, uint32_t db_id, const sf_error *e)
{
    sf_error mine;

    for (size_t i = 0; i < l->shard_error_count; i++)
        if (l->shard_errors[i].db_id == (int32_t)db_id)
            return true;
    mine = *e;
    mine.db_id = (int32_t)db_id;
    return error_add(l, &mine);
}

/* Where the keys of one look-up are asked for. */
struct asking {
    sf_snapshot *snap;
    int64_t timeout_ms;
    size_t total;   /* keys of the look-up, or 0: not known */
    struct lookup *l; /* NULL: none was needed so far */
};

static sf_status no_memory(const struct asking *q, sf_error *err)
{
    return q->total > 0 ? sf_fail(err, SF_NOMEM, "look-up of %zu keys", q->total) : sf_fail(err, SF_NOMEM, "look-up");
}

/* SF_WOULD_BLOCK: the key is part of q->l from now on, with whatever is wrong with it (`failed`, or NULL). */
static sf_status ask_later(struct asking *q, size_t index, uint32_t db_id, sf_bytes key, const sf_shard_place *place,
                           const sf_error *failed, sf_error *err)
{
    sf_shard_ask *ask;

    if (!q->l)
        q->l = lookup_new(q->snap, key.n, q->timeout_ms);
    if (!q->l || (q->total > 0 && !q->l->values && !results_alloc(q->l, q->total)))
        return no_memory(q, err);
    ask = ask_add(q->l, failed ? NO_SHARD : db_id, key, q->total > 0 ? index : q->l->count);
    if (!ask)
        return no_memory(q, err);
    if (failed && !shard_failed(q->l, db_id, failed)) {
        q->l->count--; /* not added */
        return no_memory(q, err);
    }
    if (place)
        ask->place = *place;
    if (failed)
        ask->status = failed->code;
    return SF_WOULD_BLOCK;
}

/* One shard, by stored bytes. What fails in memory is for the operation to tell, with all that its shard has to say. */
static sf_status ask_shard(struct asking *q, size_t index, uint32_t db_id, sf_bytes key, sf_value *out, sf_error *err)
{
    sf_shard *shard = q->snap->shards[db_id];
    sf_shard_place place;
    sf_status rc;

    *out = (sf_value){0};
    if (!shard)
        return SF_OK;
    rc = shard->vtable->try_get(shard, key, out, &place, NULL);
    return rc == SF_OK ? rc : ask_later(q, index, db_id, key, rc == SF_WOULD_BLOCK ? &place : NULL, NULL, err);
}

/* Which of several keys it was. */
static sf_status name_key(sf_status rc, size_t index, size_t total, sf_error *err)
{
    return rc == SF_OK || total <= 1 ? rc : sf_error_prefix(err, rc, "key %zu of %zu: ", index + 1, total);
}

/* A value that the snapshot does not route by: no key of its kind was published. */
static sf_status no_route(sf_value *out, sf_error *err)
{
    *out = (sf_value){0};
    sf_error_clear(err);
    return SF_OK;
}

/* Fails for keys that cannot be routed; those that cannot be encoded fail in the operation. */
static sf_status ask_key(struct asking *q, size_t index, const sf_key *key, sf_value *out, sf_error *err)
{
    uint8_t scratch[8];
    sf_bytes stored;
    uint32_t db_id;
    sf_error e; /* filled by failures only */
    sf_status rc = sf_snapshot_route(q->snap, key, &db_id, err);

    if (rc == SF_NO_ROUTE)
        return no_route(out, err);
    if (rc != SF_OK)
        return name_key(rc, index, q->total, err);
    rc = sf_snapshot_encode_key(q->snap, key, scratch, &stored, &e);
    if (rc == SF_OK)
        return ask_shard(q, index, db_id, stored, out, err);
    name_key(rc, index, q->total, &e);
    *out = (sf_value){0};
    return ask_later(q, index, db_id, (sf_bytes){NULL, 0}, NULL, &e, err);
}

static sf_status check_shard(const sf_snapshot *s, uint32_t db_id, sf_error *err)
{
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc == SF_OK && db_id >= s->num_dbs)
        rc = sf_fail(err, SF_INVALID, "shard %u does not exist: the snapshot has %u", db_id, s->num_dbs);
    return rc;
}

/* One more key for *call. A call that was made for a key that failed is not given out. */
static sf_status ask_one(struct asking *q, sf_call **call, sf_status rc)
{
    if (rc == SF_WOULD_BLOCK)
        *call = &q->l->call;
    else if (!*call && q->l)
        sf__call_drop(&q->l->call);
    return rc;
}

/* `call`: the look-up that gets the key, or NULL. */
static sf_status asking_join(struct asking *q, sf_call *call, sf_error *err)
{
    q->l = call ? as_lookup(call) : NULL;
    if (call && (!q->l || call->begun || q->l->snap != q->snap))
        return sf_fail(err, SF_INVALID, "a key can be added only to a look-up of the same snapshot that has not begun");
    return SF_OK;
}

sf_status sf_snapshot_ask(sf_snapshot *s, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                          sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms};
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc == SF_OK)
        rc = asking_join(&q, *call, err);
    return rc == SF_OK ? ask_one(&q, call, ask_key(&q, 0, key, out, err)) : rc;
}

sf_status sf_snapshot_ask_shard(sf_snapshot *s, uint32_t db_id, sf_bytes key, int64_t timeout_ms, sf_value *out,
                                sf_call **call, sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms};
    sf_status rc = check_shard(s, db_id, err);

    if (rc == SF_OK)
        rc = asking_join(&q, *call, err);
    return rc == SF_OK ? ask_one(&q, call, ask_shard(&q, 0, db_id, key, out, err)) : rc;
}

/* ------------------------------------------------------------------ several keys --------------------------------- */

/* Asks for all of them; `values` gets what memory has. */
static sf_status ask_all(struct asking *q, const sf_key *keys, sf_value *values, sf_error *err)
{
    for (size_t i = 0; i < q->total; i++) {
        sf_status rc = ask_key(q, i, &keys[i], &values[i], err);

        if (rc != SF_OK && rc != SF_WOULD_BLOCK) {
            release_values(values, i);
            values[i] = (sf_value){0};
            return rc;
        }
    }
    return SF_OK;
}

/* Hands a look-up to the loop thread whose answers from memory lie where its results are to be. */
static sf_status all_asked(struct asking *q, sf_status rc, sf_call **out, sf_call_done_fn done, void *ctx,
                           sf_error *err)
{
    struct lookup *l = q->l;

    if (rc == SF_OK && l->count <= SORTED_AT_ONCE && !lookup_group(l))
        rc = no_memory(q, err);
    if (rc != SF_OK) {
        sf__call_drop(&l->call);
        return rc;
    }
    *out = &l->call;
    l->call.done = done;
    l->call.ctx = ctx;
    sf__call_start(&l->call);
    return SF_OK;
}

/* For `total` keys of `key_bytes` (the first one) or more, with room for the results. */
static sf_status asking_start(struct asking *q, size_t key_bytes, sf_error *err)
{
    q->l = lookup_new(q->snap, key_bytes, q->timeout_ms);
    if (q->l && results_alloc(q->l, q->total))
        return SF_OK;
    if (q->l)
        sf__call_drop(&q->l->call);
    return no_memory(q, err);
}

static size_t longest(size_t a, size_t b)
{
    return a > b ? a : b;
}

sf_status sf_snapshot_multi_get_start(sf_call **out, sf_snapshot *s, const sf_key *keys, size_t count,
                                      int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms, .total = count};
    sf_status rc = sf__runtime_check_process(s->rt, err);
    size_t first = sizeof(uint64_t);

    /* the first key that memory lacks may be any of them */
    for (size_t i = 0; i < count; i++)
        first = longest(first, sf__key_is_int(&keys[i]) ? 0 : keys[i].b.n);
    if (rc == SF_OK)
        rc = asking_start(&q, first, err);
    if (rc != SF_OK)
        return rc;
    return all_asked(&q, ask_all(&q, keys, q.l->values, err), out, done, ctx, err);
}

sf_status sf_snapshot_get_start(sf_call **out, sf_snapshot *s, uint32_t db_id, const sf_bytes *keys, size_t count,
                                int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms, .total = count};
    sf_status rc = check_shard(s, db_id, err);
    size_t first = 0;

    for (size_t i = 0; i < count; i++)
        first = longest(first, keys[i].n);
    if (rc == SF_OK)
        rc = asking_start(&q, first, err);
    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < count && (rc == SF_OK || rc == SF_WOULD_BLOCK); i++)
        rc = ask_shard(&q, i, db_id, keys[i], &q.l->values[i], err);
    return all_asked(&q, rc == SF_WOULD_BLOCK ? SF_OK : rc, out, done, ctx, err);
}

sf_status sf_reader_multi_get_start(sf_call **out, sf_reader *r, const sf_key *keys, size_t count, int64_t timeout_ms,
                                    sf_call_done_fn done, void *ctx, sf_error *err)
{
    sf_snapshot *s = sf__reader_borrow(r, err);
    sf_status rc;

    if (!s)
        return sf__reader_closed_status(r);
    rc = sf_snapshot_multi_get_start(out, s, keys, count, timeout_ms, done, ctx, err);
    sf__snapshot_release(s);
    return rc;
}

sf_status sf_reader_get_start(sf_call **out, sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_call_done_fn done,
                              void *ctx, sf_error *err)
{
    return sf_reader_multi_get_start(out, r, key, 1, timeout_ms, done, ctx, err);
}

/* Waits for what memory did not have and puts it among what it had. */
static sf_status wait_for_rest(struct lookup *l, sf_value *values, sf_error *err)
{
    sf_status rc = sf__runtime_check_may_wait(l->call.rt, err);

    if (rc != SF_OK)
        return rc;
    sf_call_begin(&l->call, NULL, NULL);
    rc = sf_call_wait(&l->call, err);
    for (size_t i = 0; rc == SF_OK && i < l->result_count; i++)
        if (l->values[i].found) {
            values[i] = l->values[i];
            l->values[i] = (sf_value){0}; /* the reference moved */
        }
    return rc;
}

sf_status sf_reader_multi_get(sf_reader *r, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                              sf_error *err)
{
    struct asking q = {.snap = sf__reader_borrow(r, err), .timeout_ms = timeout_ms, .total = count};
    sf_status rc;

    for (size_t i = 0; i < count; i++)
        values[i] = (sf_value){0};
    if (!q.snap)
        return sf__reader_closed_status(r);
    rc = ask_all(&q, keys, values, err);
    if (rc == SF_OK && q.l) {
        rc = wait_for_rest(q.l, values, err);
        if (rc != SF_OK)
            release_values(values, count);
    }
    if (q.l)
        sf_call_release(&q.l->call);
    sf__snapshot_release(q.snap);
    return rc;
}

/* ------------------------------------------------------------------ one key -------------------------------------- */

sf_status sf_snapshot_try_get(sf_snapshot *s, uint32_t db_id, sf_bytes key, sf_value *out, sf_error *err)
{
    sf_shard *shard;
    sf_status rc = check_shard(s, db_id, err);

    if (rc != SF_OK)
        return rc;
    shard = s->shards[db_id];
    *out = (sf_value){0};
    return shard ? shard->vtable->try_get(shard, key, out, NULL, err) : SF_OK;
}

void *sf_snapshot_foreign_shard(const sf_snapshot *s, uint32_t db_id)
{
    const sf_shard *shard = db_id < s->num_dbs ? s->shards[db_id] : NULL;

    return shard && shard->vtable->foreign ? shard->vtable->foreign(shard) : NULL;
}

/* What memory says of one key, with what is needed to go on. */
struct glance {
    uint32_t db_id;
    uint8_t scratch[8];
    sf_bytes stored;
    sf_shard_place place;
};

static inline sf_status glance(struct glance *g, sf_snapshot *s, const sf_key *key, sf_value *out, sf_error *err)
{
    sf_status rc = sf_snapshot_route(s, key, &g->db_id, err);
    sf_shard *shard;

    if (rc == SF_NO_ROUTE) {
        g->db_id = UINT32_MAX;
        return no_route(out, err);
    }
    if (rc == SF_OK)
        rc = sf_snapshot_encode_key(s, key, g->scratch, &g->stored, err);
    if (rc != SF_OK)
        return rc;
    shard = s->shards[g->db_id];
    *out = (sf_value){0};
    return shard ? shard->vtable->try_get(shard, g->stored, out, &g->place, err) : SF_OK;
}

sf_status sf_snapshot_try_get_key(sf_snapshot *s, const sf_key *key, sf_value *out, sf_error *err)
{
    struct glance g;
    sf_status rc = sf__runtime_check_process(s->rt, err);

    return rc == SF_OK ? glance(&g, s, key, out, err) : rc;
}

sf_status sf_reader_try_get(sf_reader *r, const sf_key *key, sf_value *out, sf_error *err)
{
    sf_snapshot *s = sf__reader_borrow(r, err);
    sf_status rc;

    if (!s)
        return sf__reader_closed_status(r);
    rc = sf_snapshot_try_get_key(s, key, out, err);
    sf__snapshot_release(s);
    return rc;
}

sf_status sf__reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                         uint32_t *db_id, sf_error *err)
{
    struct asking q = {.snap = sf__reader_borrow(r, err), .timeout_ms = timeout_ms, .total = 1};
    struct glance g;
    sf_status rc;

    if (!q.snap)
        return sf__reader_closed_status(r);
    *call = NULL;
    rc = glance(&g, q.snap, key, out, err);
    *db_id = g.db_id;
    if (rc == SF_WOULD_BLOCK)
        rc = ask_one(&q, call, ask_later(&q, 0, g.db_id, g.stored, &g.place, NULL, err));
    sf__snapshot_release(q.snap);
    return rc;
}

sf_status sf_reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                        sf_error *err)
{
    uint32_t db_id;

    return sf__reader_ask(r, key, timeout_ms, out, call, &db_id, err);
}

sf_status sf_reader_get(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_error *err)
{
    sf_value value = {0};
    sf_call *call;
    sf_status rc = sf_reader_ask(r, key, timeout_ms, &value, &call, err);

    if (rc == SF_WOULD_BLOCK) {
        rc = wait_for_rest((struct lookup *)call, &value, err);
        sf_call_release(call);
    }
    if (rc == SF_OK)
        *out = value;
    return rc;
}
