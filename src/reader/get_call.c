#include "reader/get_call.h"

#include <stdlib.h>

#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

static sf_get_call *call_of(sf_call *c)
{
    return sf_container_of(c, sf_get_call, call);
}

/* ------------------------------------------------------------------ the operation -------------------------------- */

static bool is_single(const sf_get_call *l)
{
    return l->values == &l->first_ask.value;
}

static bool error_add(sf_get_call *l, const sf_error *e)
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
static void gather_errors(sf_get_call *l)
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

static void part_home(sf_get_call *l)
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
    sf_get_part *p = op->ctx;

    p->in_flight = false;
    part_home(p->owner);
}

static void lookup_cancel(sf_call *c)
{
    sf_get_call *l = call_of(c);

    l->is_cancelled = l->is_sorting;
    for (size_t i = 0; !l->is_sorting && i < l->part_count; i++)
        if (l->parts[i].in_flight)
            l->parts[i].shard->vtable->get_many_cancel(l->parts[i].shard, &l->parts[i].op);
}

static void lookup_send(sf_get_call *l)
{
    if (l->call.error) { /* there was no memory to begin it */
        sf__call_finish(&l->call);
        return;
    }
    l->pending = 1; /* this function's own: nothing completes before all have started */
    for (size_t i = 0; i < l->part_count; i++) {
        sf_get_part *p = &l->parts[i];

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

static void group_or_fail(sf_get_call *l);

static void sorting_run(sf_work *work)
{
    group_or_fail(sf_container_of(work, sf_get_call, sorting));
}

static void sorting_done(sf_work *work)
{
    sf_get_call *l = sf_container_of(work, sf_get_call, sorting);

    l->is_sorting = false;
    lookup_send(l);
}

static void lookup_start(sf_call *c)
{
    sf_get_call *l = call_of(c);

    if (l->count <= SF_GET_SORTED_AT_ONCE) {
        lookup_send(l);
        return;
    }
    l->is_sorting = true;
    l->sorting.run = sorting_run;
    l->sorting.done = sorting_done;
    sf__work_submit(c->rt->loop, SF_WORK_CPU, &l->sorting);
}

void sf__values_release(sf_value *values, size_t count)
{
    for (size_t i = 0; values && i < count; i++)
        sf_value_release(&values[i]);
}

static void lookup_destroy(sf_call *c)
{
    sf_get_call *l = call_of(c);
    const sf_allocator *a = c->alloc;

    for (size_t i = 0; i < l->count; i++)
        sf_value_release(&l->asks[i].value);
    if (!is_single(l)) {
        sf__values_release(l->values, l->result_count);
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

sf_value *sf_call_values(sf_call *c, size_t *count)
{
    sf_get_call *l = sf__get_call_of(c);

    if (count)
        *count = l && l->values ? l->result_count : 0;
    return l ? l->values : NULL;
}

const sf_status *sf_call_statuses(const sf_call *c)
{
    const sf_get_call *l = sf__get_call_of(c);

    return l ? l->statuses : NULL;
}

const sf_error *sf_call_shard_errors(const sf_call *c, size_t *count)
{
    const sf_get_call *l = sf__get_call_of(c);

    *count = l ? l->shard_error_count : 0;
    if (*count == 0)
        return NULL;
    return l->shard_errors ? l->shard_errors : l->call.error;
}

/* ------------------------------------------------------------------ beginning it --------------------------------- */

bool sf__get_call_results(sf_get_call *l, size_t count)
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

static sf_get_part *part_add(sf_get_call *l, uint32_t db_id, sf_shard_ask *first)
{
    sf_get_part *p;

    if (!SF_RESERVE_FROM(l->call.alloc, &l->parts, &l->first_part, &l->part_cap, l->part_count + 1))
        return NULL;
    p = &l->parts[l->part_count++];
    *p = (sf_get_part){.owner = l, .db_id = db_id, .shard = l->snap->shards[db_id]};
    p->op = (sf_shard_get_many){.asks = first, .deadline_ns = l->call.deadline_ns, .done = part_done};
    return p;
}

/* Sorts the keys by shard and cuts them into parts. */
static bool group(sf_get_call *l)
{
    sf_get_part *p = NULL;

    if (!l->values && !sf__get_call_results(l, l->count))
        return false;
    if (l->count > 1)
        qsort(l->asks, l->count, sizeof(*l->asks), ask_cmp);
    for (size_t i = 0; i < l->count && l->asks[i].db_id != SF_NO_SHARD; i++) {
        if (!p || p->db_id != l->asks[i].db_id)
            p = part_add(l, l->asks[i].db_id, &l->asks[i]);
        if (!p)
            return false;
        p->op.count++;
    }
    for (size_t i = 0; i < l->part_count; i++) { /* from now on nothing moves */
        l->parts[i].op.ctx = &l->parts[i];
        l->parts[i].op.all_count = l->count;
    }
    return true;
}

static void group_or_fail(sf_get_call *l)
{
    sf_error e;

    if (group(l))
        return;
    l->shard_error_count = 0; /* of keys: no one else has been asked */
    sf_fail(&e, SF_NOMEM, "look-up of %zu keys", l->count);
    sf__call_failed(&l->call, &e);
}

static void lookup_begin(sf_call *c)
{
    sf_get_call *l = call_of(c);

    if (l->count <= SF_GET_SORTED_AT_ONCE)
        group_or_fail(l);
}

static const sf_call_type lookup_type = {
    .begin = lookup_begin, .start = lookup_start, .cancel = lookup_cancel, .destroy = lookup_destroy};

sf_get_call *sf__get_call_of(const sf_call *c)
{
    return c->type == &lookup_type ? (sf_get_call *)c : NULL;
}

/* ------------------------------------------------------------------ filling it ----------------------------------- */

sf_get_call *sf__get_call_new(sf_snapshot *s, size_t key_bytes, int64_t timeout_ms)
{
    sf_call *c = sf__call_new(&lookup_type, sizeof(sf_get_call) + key_bytes, s->rt, timeout_ms, NULL, NULL);
    sf_get_call *l = call_of(c);

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

sf_shard_ask *sf__get_call_add(sf_get_call *l, uint32_t db_id, sf_bytes key, size_t index)
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

static bool shard_failed(sf_get_call *l, uint32_t db_id, const sf_error *e)
{
    sf_error mine;

    for (size_t i = 0; i < l->shard_error_count; i++)
        if (l->shard_errors[i].db_id == (int32_t)db_id)
            return true;
    mine = *e;
    mine.db_id = (int32_t)db_id;
    return error_add(l, &mine);
}

bool sf__get_call_add_failed(sf_get_call *l, uint32_t db_id, const sf_error *e, size_t index)
{
    sf_shard_ask *ask = sf__get_call_add(l, SF_NO_SHARD, (sf_bytes){NULL, 0}, index);

    if (!ask)
        return false;
    ask->status = e->code;
    if (shard_failed(l, db_id, e))
        return true;
    l->count--; /* not added */
    return false;
}

bool sf__get_call_start(sf_get_call *l, sf_call_done_fn done, void *ctx)
{
    if (l->count <= SF_GET_SORTED_AT_ONCE && !group(l))
        return false;
    l->call.done = done;
    l->call.ctx = ctx;
    sf__call_start(&l->call);
    return true;
}
