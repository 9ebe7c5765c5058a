/* Look-ups. A key is routed, encoded and asked for in memory once, on the thread that asks. What is not there becomes part of one
 * operation (get_call.h), which goes on from where memory ended. */
#include "base/error.h"
#include "base/pin.h"
#include "reader/get_call.h"
#include "reader/reader.h"
#include "snapshot/int_key.h"

void sf_value_release(sf_value *value)
{
    sf_buf *owner = value->owner;

    *value = (sf_value){0};
    sf__owner_release(owner);
}

/* ------------------------------------------------------------------ asking --------------------------------------- */

/* Keys of several that are looked up at once: enough for all the reads of memory that a processor has under way. */
#define TOGETHER SF_SHARD_TRIES

/* Where the keys of one look-up are asked for. */
struct asking {
    sf_snapshot *snap;
    int64_t timeout_ms;
    size_t total;   /* keys of the look-up, or 0: not known */
    sf_get_call *l; /* NULL: none was needed so far */
};

static sf_status no_memory(const struct asking *q, sf_error *err)
{
    return q->total > 0 ? sf_fail(err, SF_NOMEM, "look-up of %zu keys", q->total) : sf_fail(err, SF_NOMEM, "look-up");
}

/* The look-up that gets one more key, whose stored form takes `key_bytes`. NULL without memory. */
static sf_get_call *call_for(struct asking *q, size_t key_bytes)
{
    if (!q->l)
        q->l = sf__get_call_new(q->snap, key_bytes, q->timeout_ms);
    if (q->l && q->total > 0 && !q->l->values && !sf__get_call_results(q->l, q->total))
        return NULL;
    return q->l;
}

static size_t index_of(const struct asking *q, size_t index)
{
    return q->total > 0 ? index : q->l->count;
}

/* SF_WOULD_BLOCK: the key is part of q->l from now on. */
static sf_status ask_later(struct asking *q, size_t index, uint32_t db_id, sf_bytes key, const sf_shard_place *place,
                           sf_error *err)
{
    sf_get_call *l = call_for(q, key.n);
    sf_shard_ask *ask = l ? sf__get_call_add(l, db_id, key, index_of(q, index)) : NULL;

    if (!ask)
        return no_memory(q, err);
    if (place)
        ask->place = *place;
    return SF_WOULD_BLOCK;
}

/* The same, with what is wrong with the key. */
static sf_status fail_later(struct asking *q, size_t index, uint32_t db_id, const sf_error *e, sf_error *err)
{
    sf_get_call *l = call_for(q, 0);

    return l && sf__get_call_add_failed(l, db_id, e, index_of(q, index)) ? SF_WOULD_BLOCK : no_memory(q, err);
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
    return rc == SF_OK ? rc : ask_later(q, index, db_id, key, rc == SF_WOULD_BLOCK ? &place : NULL, err);
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

/* Apart, so that nothing is saved on the stack for it. */
static __attribute__((noinline)) sf_status place_any_key(const sf_snapshot *s, const sf_key *key, uint32_t *db_id,
                                                         uint8_t scratch[8], sf_bytes *stored, sf_error *err)
{
    uint32_t routed;
    sf_status rc = sf_snapshot_route(s, key, &routed, err);

    *db_id = rc == SF_OK ? routed : SF_NO_SHARD;
    return rc == SF_OK ? sf_snapshot_encode_key(s, key, scratch, stored, err) : rc;
}

/* Where a key belongs, and what it is stored as, which may lie in `scratch`. After a failure *db_id is SF_NO_SHARD, or the shard for which it
 * cannot be encoded. */
static inline __attribute__((always_inline)) sf_status place_key(const sf_snapshot *s, const sf_key *key, uint32_t *db_id,
                                                                 uint8_t scratch[8], sf_bytes *stored, sf_error *err)
{
    if (!s->int_keys || key->context || !sf__key_is_int(key) || (key->type == SF_KEY_INT && key->i < 0))
        return place_any_key(s, key, db_id, scratch, stored, err);
    *db_id = sf__router_shard_of(&s->router, sf__int_key_hash(key->u));
    sf__key_store_be64(scratch, key->u);
    *stored = (sf_bytes){scratch, 8};
    return SF_OK;
}

/* Fails for keys that cannot be routed; those that cannot be encoded fail in the operation. */
static sf_status ask_key(struct asking *q, size_t index, const sf_key *key, sf_value *out, sf_error *err)
{
    uint8_t scratch[8];
    sf_bytes stored;
    uint32_t db_id;
    sf_error e; /* filled by failures only */
    sf_status rc = place_key(q->snap, key, &db_id, scratch, &stored, &e);

    if (rc == SF_OK)
        return ask_shard(q, index, db_id, stored, out, err);
    if (rc == SF_NO_ROUTE)
        return no_route(out, err);
    name_key(rc, index, q->total, &e);
    if (db_id == SF_NO_SHARD) {
        if (err)
            *err = e;
        return rc;
    }
    *out = (sf_value){0};
    return fail_later(q, index, db_id, &e, err);
}

/* Some of several keys that are asked for together, and those of them that are tried together. */
struct together {
    uint8_t scratch[TOGETHER][8]; /* for keys as stored, of those that are tried */
    uint32_t db_ids[TOGETHER];
    uint32_t alone;                /* a bit a key: it is asked for by itself */
    sf_shard_tries tries;          /* in the order of the keys */
    const sf_shard_vtable *vtable; /* of their shards; NULL before the first one */
};

/* The shard that is tried together with those before it, or NULL. Apart, so that nothing is saved on the stack for it. */
static __attribute__((noinline)) sf_shard *together_shard(struct together *t, sf_shard *shard)
{
    if (shard && shard->vtable->inner)
        shard = shard->vtable->inner(shard);
    if (!shard || !shard->vtable->try_get_together || (t->vtable && shard->vtable != t->vtable))
        return NULL;
    t->vtable = shard->vtable;
    return shard;
}

static inline __attribute__((always_inline)) void together_add(struct together *t, size_t i, sf_snapshot *snap,
                                                               const sf_key *key, sf_value *value)
{
    size_t n = t->tries.count;
    sf_shard *shard = NULL;

    if (place_key(snap, key, &t->db_ids[n], t->scratch[n], &t->tries.keys[n], NULL) == SF_OK)
        shard = snap->shards[t->db_ids[n]];
    if (!shard || shard->vtable != t->vtable)
        shard = together_shard(t, shard);
    if (!shard) {
        t->alone |= UINT32_C(1) << i;
        *value = (sf_value){0};
        return;
    }
    t->tries.shards[n] = shard;
    t->tries.values[n] = value;
    t->tries.count = n + 1;
}

/* With a reference: there may be more values than a thread has pins. */
static sf_status ask_alone(struct asking *q, size_t index, const sf_key *key, sf_value *out, sf_error *err)
{
    sf_status rc = ask_key(q, index, key, out, err);

    out->owner = sf__owner_counted(out->owner);
    return rc;
}

/* Those that memory did not answer. */
static sf_status ask_rest(struct asking *q, const struct together *t, size_t first, const sf_key *keys, size_t count,
                          sf_value *values, sf_status *statuses, sf_error *err)
{
    sf_status rc = SF_OK;

    for (size_t i = 0, n = 0; i < count && rc == SF_OK; i++) {
        bool alone = (t->alone >> i & 1) != 0;

        if (alone)
            rc = ask_alone(q, first + i, &keys[i], &values[i], err);
        else if (t->tries.statuses[n] != SF_OK)
            rc = ask_later(q, first + i, t->db_ids[n], t->tries.keys[n],
                           t->tries.statuses[n] == SF_WOULD_BLOCK ? &t->tries.places[n] : NULL, err);
        n += !alone;
        if (statuses)
            statuses[i] = rc;
        rc = rc == SF_WOULD_BLOCK ? SF_OK : rc;
    }
    return rc;
}

/* At most TOGETHER keys, from `first` on, whose waits for memory overlap. `statuses` says which of them wait: SF_WOULD_BLOCK. After a
 * failure there are no values. Without room they may be views. */
static sf_status ask_together(struct asking *q, size_t first, const sf_key *keys, size_t count, sf_value *values,
                              sf_status *statuses, sf_value_room *room, sf_error *err)
{
    struct together t;
    sf_status rc = SF_OK;

    t.alone = 0;
    t.vtable = NULL;
    t.tries.count = t.tries.left = 0;
    for (size_t i = 0; i < count; i++)
        together_add(&t, i, q->snap, &keys[i], &values[i]);
    if (t.tries.count > 0)
        t.vtable->try_get_together(&t.tries, room);
    if (t.alone != 0 || t.tries.left > 0)
        rc = ask_rest(q, &t, first, keys, count, values, statuses, err);
    else if (statuses)
        memset(statuses, 0, count * sizeof(*statuses)); /* SF_OK */
    if (rc != SF_OK)
        sf__values_release(values, count);
    return rc;
}

/* All of them, a few at a time; `statuses` may be NULL. */
static sf_status ask_all(struct asking *q, const sf_key *keys, size_t count, sf_value *values, sf_status *statuses,
                         sf_error *err)
{
    sf_value_room room = {.alloc = q->snap->rt->alloc};
    sf_status rc = SF_OK;

    for (size_t i = 0, n; rc == SF_OK && i < count; i += n) {
        n = count - i < TOGETHER ? count - i : TOGETHER;
        room.keys = count - i;
        rc = ask_together(q, i, &keys[i], n, &values[i], statuses ? &statuses[i] : NULL, &room, err);
        if (rc != SF_OK) {
            sf__values_release(values, i);
            memset(&values[i], 0, (count - i) * sizeof(*values));
        }
    }
    sf__pins_together_end();
    sf__value_room_cleanup(&room);
    return rc;
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
    q->l = call ? sf__get_call_of(call) : NULL;
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

sf_status sf_snapshot_ask_many(sf_snapshot *s, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                               sf_status *statuses, sf_call **call, sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms};
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc == SF_OK)
        rc = asking_join(&q, *call, err);
    if (rc == SF_OK)
        rc = ask_all(&q, keys, count, values, statuses, err);
    return ask_one(&q, call, rc == SF_OK && q.l ? SF_WOULD_BLOCK : rc);
}

sf_status sf__snapshot_ask_views(sf_snapshot *s, const sf_key *keys, size_t count, int64_t timeout_ms, sf_value *values,
                                 sf_status *statuses, sf_call **call, sf_error *err)
{
    struct asking q = {.snap = s, .timeout_ms = timeout_ms};
    sf_status rc = sf__runtime_check_process(s->rt, err);

    if (rc == SF_OK)
        rc = asking_join(&q, *call, err);
    if (rc == SF_OK)
        rc = ask_together(&q, 0, keys, count, values, statuses, NULL, err);
    return ask_one(&q, call, rc == SF_OK && q.l ? SF_WOULD_BLOCK : rc);
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

/* Hands on the look-up. */
static sf_status all_asked(struct asking *q, sf_status rc, sf_call **out, sf_call_done_fn done, void *ctx, sf_error *err)
{
    if (rc == SF_OK && !sf__get_call_start(q->l, done, ctx))
        rc = no_memory(q, err);
    if (rc == SF_OK)
        *out = &q->l->call;
    else
        sf__call_drop(&q->l->call);
    return rc;
}

/* For `total` keys of `key_bytes` (the first one) or more, with room for the results. */
static sf_status asking_start(struct asking *q, size_t key_bytes, sf_error *err)
{
    q->l = sf__get_call_new(q->snap, key_bytes, q->timeout_ms);
    if (q->l && sf__get_call_results(q->l, q->total))
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
    return all_asked(&q, ask_all(&q, keys, count, q.l->values, NULL, err), out, done, ctx, err);
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
static sf_status wait_for_rest(sf_get_call *l, sf_value *values, sf_error *err)
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

    for (size_t i = 0; !q.snap && i < count; i++)
        values[i] = (sf_value){0};
    if (!q.snap)
        return sf__reader_closed_status(r);
    rc = ask_all(&q, keys, count, values, NULL, err);
    if (rc == SF_OK && q.l) {
        rc = wait_for_rest(q.l, values, err);
        if (rc != SF_OK)
            sf__values_release(values, count);
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

static inline __attribute__((always_inline)) sf_status glance(struct glance *g, sf_snapshot *s, const sf_key *key,
                                                              sf_value *out, sf_error *err)
{
    sf_status rc = place_key(s, key, &g->db_id, g->scratch, &g->stored, err);
    sf_shard *shard;

    if (rc == SF_NO_ROUTE)
        return no_route(out, err);
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
    sf_pin *pin;
    sf_snapshot *s = sf__reader_pin(r, &pin, err);
    struct glance g;
    sf_status rc;

    if (!s)
        return sf__reader_closed_status(r);
    rc = glance(&g, s, key, out, err);
    sf__reader_unpin(s, pin);
    return rc;
}

sf_status sf__reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call,
                         uint32_t *db_id, sf_error *err)
{
    sf_pin *pin;
    struct asking q = {.snap = sf__reader_pin(r, &pin, err), .timeout_ms = timeout_ms, .total = 1};
    struct glance g;
    sf_status rc;

    if (!q.snap)
        return sf__reader_closed_status(r);
    *call = NULL;
    rc = glance(&g, q.snap, key, out, err);
    *db_id = g.db_id;
    if (rc == SF_WOULD_BLOCK)
        rc = ask_one(&q, call, ask_later(&q, 0, g.db_id, g.stored, &g.place, err));
    sf__reader_unpin(q.snap, pin);
    return rc;
}

sf_status sf_reader_ask(sf_reader *r, const sf_key *key, int64_t timeout_ms, sf_value *out, sf_call **call, sf_error *err)
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
        rc = wait_for_rest(sf__get_call_of(call), &value, err);
        sf_call_release(call);
    }
    if (rc == SF_OK)
        *out = value;
    return rc;
}
