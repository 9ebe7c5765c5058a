/* Look-ups: one operation for one or many keys. Keys are routed and encoded on the calling thread; on the loop thread
 * each shard gets its keys as one request; the last shard home completes the call. */
#include <stdlib.h>

#include "base/error.h"
#include "reader/reader.h"
#include "reader/snapshot.h"
#include "runtime/call.h"

struct part {
    struct lookup *owner;
    sf_shard *shard;      /* borrowed from the snapshot */
    uint32_t db_id;
    size_t first, count;  /* its keys, in sorted order */
    bool in_flight;       /* loop thread */
    sf_shard_get_many op;
};

struct slot {
    uint32_t db_id;
    size_t index;    /* in the caller's order */
    size_t key_off;  /* of the stored key in the arena */
    size_t key_n;
    sf_status failed; /* the key has no stored form */
};

struct lookup {
    sf_call call;
    sf_snapshot *snap; /* acquired */
    size_t count;
    /* by shard */
    struct slot *slots;
    sf_bytes *keys; /* spans into the arena */
    sf_value *sorted_values;
    sf_status *sorted_statuses;
    /* results, in the caller's order */
    sf_value *values;
    sf_status *statuses;
    sf_error *shard_errors;
    size_t shard_error_count;
    uint8_t *arena;
    struct part *parts;
    size_t part_count, pending;
};

static void add_shard_error(struct lookup *l, const sf_error *e, uint32_t db_id)
{
    sf_call *c = &l->call;
    sf_error *slot = &l->shard_errors[l->shard_error_count++];

    *slot = *e;
    if (slot->db_id < 0)
        slot->db_id = (int32_t)db_id;
    if (c->error.code == SF_OK)
        c->error = *slot;
}

static void part_home(struct lookup *l)
{
    if (--l->pending > 0)
        return;
    for (size_t i = 0; i < l->count; i++) {
        struct slot *s = &l->slots[i];

        l->values[s->index] = l->sorted_values[i];
        l->sorted_values[i] = (sf_value){0};
        l->statuses[s->index] = s->failed != SF_OK ? s->failed : l->sorted_statuses[i];
    }
    sf__call_finish(&l->call);
}

static void part_done(sf_shard_get_many *op)
{
    struct part *p = op->ctx;
    struct lookup *l = p->owner;

    p->in_flight = false;
    if (op->error.code != SF_OK)
        add_shard_error(l, &op->error, p->db_id);
    part_home(l);
}

static void lookup_start(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    l->pending = 1; /* this function's own: nothing completes before all have started */
    for (size_t i = 0; i < l->part_count; i++) {
        struct part *p = &l->parts[i];

        if (!p->shard)
            continue; /* an empty shard holds nothing */
        p->op = (sf_shard_get_many){
            .keys = l->keys + p->first,
            .count = p->count,
            .deadline_ns = c->deadline_ns,
            .values = l->sorted_values + p->first,
            .status = l->sorted_statuses + p->first,
            .done = part_done,
            .ctx = p,
            .error = SF_ERROR_INIT,
        };
        p->in_flight = true;
        l->pending++;
        p->shard->vtable->get_many(p->shard, &p->op);
    }
    part_home(l);
}

static void lookup_cancel(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    for (size_t i = 0; i < l->part_count; i++)
        if (l->parts[i].in_flight)
            l->parts[i].shard->vtable->get_many_cancel(l->parts[i].shard, &l->parts[i].op);
}

static void release_values(sf_value *values, size_t count)
{
    for (size_t i = 0; values && i < count; i++)
        sf_value_release(&values[i]);
}

static void lookup_destroy(sf_call *c)
{
    struct lookup *l = (struct lookup *)c;

    release_values(l->values, l->count);
    release_values(l->sorted_values, l->count);
    sf__free(c->alloc, l->values);
    sf__free(c->alloc, l->statuses);
    sf__free(c->alloc, l->shard_errors);
    sf__free(c->alloc, l->sorted_values);
    sf__free(c->alloc, l->sorted_statuses);
    sf__free(c->alloc, l->slots);
    sf__free(c->alloc, l->keys);
    sf__free(c->alloc, l->arena);
    sf__free(c->alloc, l->parts);
    sf__snapshot_release(l->snap);
}

static const sf_call_type lookup_type = {lookup_start, lookup_cancel, lookup_destroy};

static struct lookup *as_lookup(const sf_call *c)
{
    return c->type == &lookup_type ? (struct lookup *)c : NULL;
}

sf_value *sf_call_values(sf_call *c, size_t *count)
{
    struct lookup *l = as_lookup(c);

    if (count)
        *count = l ? l->count : 0;
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
    return l ? l->shard_errors : NULL;
}

void sf_value_release(sf_value *value)
{
    sf__buf_release(value->owner);
    *value = (sf_value){0};
}

static int slot_cmp(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;

    if (x->db_id != y->db_id)
        return x->db_id < y->db_id ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* The part of `l` that needs the final number of keys and parts. */
static bool lookup_alloc(struct lookup *l, size_t count, size_t arena_bytes)
{
    const sf_allocator *a = l->call.alloc;

    l->values = sf__calloc(a, count + 1, sizeof(*l->values));
    l->statuses = sf__calloc(a, count + 1, sizeof(*l->statuses));
    l->slots = sf__calloc(a, count + 1, sizeof(*l->slots));
    l->keys = sf__calloc(a, count + 1, sizeof(*l->keys));
    l->sorted_values = sf__calloc(a, count + 1, sizeof(*l->sorted_values));
    l->sorted_statuses = sf__calloc(a, count + 1, sizeof(*l->sorted_statuses));
    l->arena = sf__alloc(a, arena_bytes + 1);
    l->count = count;
    return l->values && l->statuses && l->slots && l->keys && l->sorted_values && l->sorted_statuses && l->arena;
}

/* Sort the slots by shard and cut them into parts; slots that failed are last and belong to none. */
static bool lookup_group(struct lookup *l)
{
    const sf_allocator *a = l->call.alloc;
    size_t shards = 0, good = 0;
    sf_error *grown;

    qsort(l->slots, l->count, sizeof(*l->slots), slot_cmp);
    for (size_t i = 0; i < l->count; i++) {
        l->keys[i] = (sf_bytes){l->arena + l->slots[i].key_off, l->slots[i].key_n};
        if (l->slots[i].db_id == UINT32_MAX)
            continue;
        good++;
        if (i == 0 || l->slots[i].db_id != l->slots[i - 1].db_id)
            shards++;
    }
    l->parts = sf__calloc(a, shards + 1, sizeof(*l->parts));
    /* a part fails at most once, and so does each shard's encoding */
    grown = sf__realloc(a, l->shard_errors, (shards + l->shard_error_count + 1) * sizeof(*grown));
    if (grown)
        l->shard_errors = grown;
    if (!l->parts || !grown)
        return false;
    for (size_t i = 0; i < good; i++) {
        struct part *p;

        if (i > 0 && l->slots[i].db_id == l->slots[i - 1].db_id) {
            l->parts[l->part_count - 1].count++;
            continue;
        }
        p = &l->parts[l->part_count++];
        *p = (struct part){.owner = l, .db_id = l->slots[i].db_id, .first = i, .count = 1};
        p->shard = l->snap->shards[p->db_id];
    }
    return true;
}

static struct lookup *lookup_new(sf_snapshot *s, int64_t timeout_ms, sf_call_done_fn done, void *ctx)
{
    struct lookup *l = (struct lookup *)sf__call_new(&lookup_type, sizeof(*l), s->rt, timeout_ms, done, ctx);

    if (l)
        l->snap = sf__snapshot_acquire(s);
    return l;
}

/* A key that cannot be encoded fails its shard, as a damaged block would: the first such key of a shard is reported. */
static sf_status slot_fail(struct lookup *l, struct slot *s, const sf_error *e)
{
    sf_error *grown;

    s->failed = e->code;
    for (size_t i = 0; i < l->shard_error_count; i++)
        if (l->shard_errors[i].db_id == (int32_t)s->db_id)
            goto known;
    grown = sf__realloc(l->call.alloc, l->shard_errors, (l->shard_error_count + 1) * sizeof(*grown));
    if (!grown)
        return SF_NOMEM;
    l->shard_errors = grown;
    add_shard_error(l, e, s->db_id);
known:
    s->db_id = UINT32_MAX;
    return SF_OK;
}

/* Which of several keys it was. */
static sf_status name_key(sf_status rc, size_t index, size_t count, sf_error *err)
{
    return rc == SF_OK || count == 1 ? rc : sf_error_prefix(err, rc, "key %zu of %zu: ", index + 1, count);
}

sf_status sf_snapshot_multi_get_start(sf_call **out, sf_snapshot *s, const sf_key *keys, size_t count,
                                      int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct lookup *l;
    size_t arena = 0, used = 0;
    sf_status rc = sf__runtime_check_process(s->rt, err);
    uint32_t db_id;

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < count; i++) { /* all keys are routed before anything else happens */
        rc = sf_snapshot_route(s, &keys[i], &db_id, err);
        if (rc != SF_OK)
            return name_key(rc, i, count, err);
        arena += sf__key_is_int(&keys[i]) ? 8 : keys[i].b.n;
    }
    l = lookup_new(s, timeout_ms, done, ctx);
    if (!l || !lookup_alloc(l, count, arena))
        goto nomem;
    for (size_t i = 0; i < count; i++) {
        struct slot *slot = &l->slots[i];
        uint8_t scratch[8];
        sf_bytes stored;
        sf_error e = SF_ERROR_INIT;

        slot->index = i;
        rc = sf_snapshot_route(s, &keys[i], &slot->db_id, err);
        if (rc != SF_OK)
            goto fail;
        if (name_key(sf_snapshot_encode_key(s, &keys[i], scratch, &stored, &e), i, count, &e) != SF_OK) {
            if (slot_fail(l, slot, &e) != SF_OK)
                goto nomem;
            continue;
        }
        slot->key_off = used;
        slot->key_n = stored.n;
        if (stored.n > 0)
            memcpy(l->arena + used, stored.p, stored.n);
        used += stored.n;
    }
    if (!lookup_group(l))
        goto nomem;
    *out = &l->call;
    sf__call_start(&l->call);
    return SF_OK;
nomem:
    rc = sf_fail(err, SF_NOMEM, "look-up of %zu keys", count);
fail:
    if (l)
        sf__call_drop(&l->call);
    return rc;
}

sf_status sf_snapshot_get_start(sf_call **out, sf_snapshot *s, uint32_t db_id, const sf_bytes *keys, size_t count,
                                int64_t timeout_ms, sf_call_done_fn done, void *ctx, sf_error *err)
{
    struct lookup *l;
    size_t arena = 0, used = 0;
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc != SF_OK)
        return rc;
    if (db_id >= s->num_dbs)
        return sf_fail(err, SF_INVALID, "shard %u does not exist: the snapshot has %u", db_id, s->num_dbs);
    for (size_t i = 0; i < count; i++)
        arena += keys[i].n;
    l = lookup_new(s, timeout_ms, done, ctx);
    if (!l || !lookup_alloc(l, count, arena))
        goto nomem;
    for (size_t i = 0; i < count; i++) {
        l->slots[i] = (struct slot){.db_id = db_id, .index = i, .key_off = used, .key_n = keys[i].n};
        if (keys[i].n > 0)
            memcpy(l->arena + used, keys[i].p, keys[i].n);
        used += keys[i].n;
    }
    if (!lookup_group(l))
        goto nomem;
    *out = &l->call;
    sf__call_start(&l->call);
    return SF_OK;
nomem:
    if (l)
        sf__call_drop(&l->call);
    return sf_fail(err, SF_NOMEM, "look-up of %zu keys", count);
}

sf_status sf_snapshot_try_get(sf_snapshot *s, uint32_t db_id, sf_bytes key, sf_value *out, sf_error *err)
{
    sf_shard *shard;
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc != SF_OK)
        return rc;
    if (db_id >= s->num_dbs)
        return sf_fail(err, SF_INVALID, "shard %u does not exist: the snapshot has %u", db_id, s->num_dbs);
    shard = s->shards[db_id];
    *out = (sf_value){0};
    return shard ? shard->vtable->try_get(shard, key, out, err) : SF_OK;
}

/* ------------------------------------------------------------------ through a reader ----------------------------- */

static sf_status try_key(sf_snapshot *s, const sf_key *key, sf_value *out, sf_error *err)
{
    uint8_t scratch[8];
    sf_bytes stored;
    uint32_t db_id;
    sf_status rc = sf_snapshot_route(s, key, &db_id, err);

    if (rc == SF_OK)
        rc = sf_snapshot_encode_key(s, key, scratch, &stored, err);
    return rc == SF_OK ? sf_snapshot_try_get(s, db_id, stored, out, err) : rc;
}

sf_status sf_reader_try_get(sf_reader *r, const sf_key *key, sf_value *out, sf_error *err)
{
    sf_snapshot *s = sf__reader_borrow(r, err);
    sf_status rc;

    if (!s)
        return sf__reader_closed_status(r);
    rc = try_key(s, key, out, err);
    sf__snapshot_release(s);
    return rc;
}

/* All or nothing: whatever needs I/O, or fails, is for the operation on the loop thread to answer. */
static bool all_in_memory(sf_snapshot *s, const sf_key *keys, size_t count, sf_value *values)
{
    for (size_t i = 0; i < count; i++)
        if (try_key(s, &keys[i], &values[i], NULL) != SF_OK) {
            release_values(values, i);
            values[i] = (sf_value){0};
            return false;
        }
    return true;
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

sf_status sf_reader_multi_get(sf_reader *r, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                              sf_error *err)
{
    sf_snapshot *s = sf__reader_borrow(r, err);
    sf_call *c;
    sf_status rc;

    for (size_t i = 0; i < count; i++)
        values[i] = (sf_value){0};
    if (!s)
        return sf__reader_closed_status(r);
    if (all_in_memory(s, keys, count, values)) {
        sf__snapshot_release(s);
        return SF_OK;
    }
    rc = sf__runtime_check_may_wait(s->rt, err);
    if (rc == SF_OK)
        rc = sf_snapshot_multi_get_start(&c, s, keys, count, timeout_ms, NULL, NULL, err);
    sf__snapshot_release(s);
    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(c, err);
    if (rc == SF_OK) {
        sf_value *results = sf_call_values(c, NULL);

        memcpy(values, results, count * sizeof(*values));
        memset(results, 0, count * sizeof(*values)); /* the references moved */
    }
    sf_call_release(c);
    return rc;
}

sf_status sf_reader_get(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_error *err)
{
    sf_value value = {0};
    sf_status rc = sf_reader_try_get(r, key, &value, err);

    if (rc == SF_WOULD_BLOCK)
        rc = sf_reader_multi_get(r, key, 1, timeout_ms, &value, err);
    if (rc == SF_OK)
        *out = value;
    return rc;
}
