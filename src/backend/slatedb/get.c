/* Point look-ups. try_get walks memory only. get_many is one operation for many keys: in rounds, every key walks on
 * until it is answered or needs a block that is not in memory; the missing blocks of a round are read together.
 *
 *   WALKING --> READING --> WALKING ...
 *      |           |
 *      +---------> POSTED --> DONE        every arrow to DONE passes through get_enter(), so done() fires exactly once */
#include <assert.h>
#include <stdlib.h>

#include "backend/slatedb/extent.h"
#include "backend/slatedb/shard.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"

enum get_state { GET_WALKING, GET_READING, GET_POSTED, GET_DONE };

struct slatedb_lookup;

/*   NEW --> ON --> OVER      MISSED: it stands at a block that is not in memory and that its filter does not rule out
 *            ^
 *   MISSED --+               */
enum walk_state { WALK_NEW, WALK_ON, WALK_MISSED, WALK_OVER };

/* One key on its way: an sf_shard_place. */
struct walker {
    sf_probe probe;
    enum walk_state state;
};

static_assert(sizeof(struct walker) <= sizeof(sf_shard_place), "a place holds a walker");

/* A block that some key waits for. */
struct need {
    const sf_sst *sst;
    uint32_t block;
};

/* What a look-up of one key needs is in it: room for one extent, and for the blocks that one key mostly asks for. */
struct slatedb_lookup {
    sf_slatedb_shard *shard; /* acquired */
    sf_shard_get_many *op;
    enum get_state state;
    uint64_t since_ns;
    bool cancelled;
    size_t walking; /* keys that have no answer yet */
    struct need *needs, first_needs[2];
    size_t need_count, need_cap;
    sf_extent *extents, first_extent; /* of this round, by SST and block */
    size_t extent_count, extent_cap;
    size_t in_flight;
};

/* ------------------------------------------------------------------ answers -------------------------------------- */

static sf_status merge_operand(const sf_slatedb_shard *s, sf_error *err)
{
    sf_fail(err, SF_MERGE_OPERATOR, "%s: the value of the key is a merge operand", s->base.url);
    if (err)
        err->db_id = s->base.db_id;
    return SF_MERGE_OPERATOR;
}

/* `owner` is acquired when there is a value. */
static sf_status answer(const sf_slatedb_shard *s, uint8_t flags, sf_bytes value, sf_buf *owner, sf_value *out,
                        sf_error *err)
{
    *out = (sf_value){0};
    if (flags & SF_ROW_MERGE)
        return merge_operand(s, err);
    if (!(flags & SF_ROW_TOMBSTONE))
        *out = (sf_value){.found = true, .bytes = value, .owner = sf__buf_acquire(owner)};
    return SF_OK;
}

static sf_status damaged(const sf_slatedb_shard *s, const sf_sst *sst, uint32_t block, sf_status rc, sf_error *err)
{
    char url[512];

    if (!err)
        return rc;
    sf__store_object_url(s->store, sst->key, url, sizeof(url));
    sf_error_prefix(err, rc, "%s at %llu: ", url, (unsigned long long)sf__index_block_off(&sst->index, block));
    sf_error_object(err, url);
    err->db_id = s->base.db_id;
    return rc;
}

/* Looks into one block. *done: the look-up is over, with *out or an error. */
static inline sf_status block_get(const sf_slatedb_shard *s, sf_probe *p, sf_buf *plain, bool *done, sf_value *out,
                                  sf_error *err)
{
    sf_block block;
    sf_block_row row;
    bool found = false;
    sf_status rc = sf__sst_block_view(p->sst, plain, &block, err);

    if (rc == SF_OK)
        rc = sf__block_get(&block, p->key, s->view.max_seq, &found, &row, err);
    *done = found || rc != SF_OK;
    if (rc != SF_OK)
        return damaged(s, p->sst, p->block, rc, err);
    return found ? answer(s, row.flags, row.value, plain, out, err) : SF_OK;
}

static void place_put(sf_shard_place *place, const sf_probe *p, enum walk_state state)
{
    struct walker w = {*p, state};

    memcpy(place, &w, sizeof(w));
}

sf_status sf__slatedb_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_slatedb_shard *s = (const sf_slatedb_shard *)base;
    const sf_mem_row *mem = sf__memtable_get(&s->view.memtable, key);
    sf_probe p;

    if (mem)
        return answer(s, mem->flags, mem->value, s->view.memtable.bytes, out, err);
    *out = (sf_value){0};
    sf__probe_init(&p, &s->view, key);
    while (sf__probe_next_sst(&p, &s->view)) {
        for (; p.block < p.block_end; p.block++) {
            sf_buf *plain = sf__sst_block_cached(p.sst, p.block, base->rt->cache);
            bool done;
            sf_status rc;

            if (!plain && sf__probe_ruled_out(&p))
                break;
            if (!plain) {
                if (place)
                    place_put(place, &p, WALK_MISSED);
                return SF_WOULD_BLOCK;
            }
            rc = block_get(s, &p, plain, &done, out, err);
            sf__buf_release(plain);
            if (done)
                return rc;
        }
    }
    return SF_OK;
}

/* ------------------------------------------------------------------ many keys ------------------------------------ */

static void get_enter(struct slatedb_lookup *l, enum get_state next);

static void key_failed(struct slatedb_lookup *l, sf_shard_ask *ask, sf_status rc, const sf_error *e)
{
    sf__shard_key_failed(&l->shard->base, l->op, ask, rc, e);
}

static void walker_get(struct walker *w, const sf_shard_ask *ask)
{
    memcpy(w, &ask->place, sizeof(*w));
    w->probe.key = ask->key;
}

static bool ask_is_over(const sf_shard_ask *ask)
{
    struct walker w;

    walker_get(&w, ask);
    return w.state == WALK_OVER;
}

/* Everybody who has no answer yet fails the same way. */
static void rest_failed(struct slatedb_lookup *l, sf_error *e)
{
    sf_error_prefix(e, e->code, "get %s: ", l->shard->base.url);
    sf_error_object(e, l->shard->base.url);
    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++) {
        if (ask_is_over(&l->op->asks[i]))
            continue;
        key_failed(l, &l->op->asks[i], e->code, e);
        l->walking--;
    }
}

static int need_cmp(const void *pa, const void *pb)
{
    const struct need *a = pa, *b = pb;

    if (a->sst != b->sst)
        return a->sst < b->sst ? -1 : 1;
    return (a->block > b->block) - (a->block < b->block);
}

static const sf_extent *extent_of(const struct slatedb_lookup *l, const sf_sst *sst, uint32_t block)
{
    size_t lo = 0, hi = l->extent_count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const sf_extent *e = &l->extents[mid];

        if (e->sst < sst || (e->sst == sst && e->first + e->count <= block))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->extent_count && sf__extent_has(&l->extents[lo], sst, block) ? &l->extents[lo] : NULL;
}

/* With a reference, or NULL and either an error or SF_WOULD_BLOCK. */
static sf_buf *block_find(struct slatedb_lookup *l, const sf_probe *p, sf_status *rc, const sf_error **e)
{
    const sf_extent *x = extent_of(l, p->sst, p->block);

    *rc = SF_WOULD_BLOCK;
    if (x) {
        const sf_extent_block *b = sf__extent_block(x, p->block);

        *rc = b->status;
        *e = x->error;
        return b->plain ? sf__buf_acquire(b->plain) : NULL;
    }
    return sf__sst_block_cached(p->sst, p->block, l->shard->base.rt->cache);
}

static bool need_add(struct slatedb_lookup *l, const sf_sst *sst, uint32_t block)
{
    if (!SF_RESERVE_FROM(l->shard->base.rt->alloc, &l->needs, l->first_needs, &l->need_cap, l->need_count + 1))
        return false;
    l->needs[l->need_count++] = (struct need){sst, block};
    return true;
}

/* The block itself and the next candidates of the same SST, which are adjacent: one GET brings them all. Without
 * memory the first one fails the key. */
static bool needs_add(struct slatedb_lookup *l, const sf_probe *p)
{
    uint64_t sum = 0;

    for (uint32_t b = p->block; b < p->block_end; b++) {
        sum += sf__index_block_len(&p->sst->index, b);
        if (b > p->block && sum > SF_EXTENT_MAX_BYTES)
            break;
        if (!need_add(l, p->sst, b))
            return b > p->block;
    }
    return true;
}

/* True when the key has its answer, or failed. */
static bool walk(struct slatedb_lookup *l, sf_shard_ask *ask, struct walker *w)
{
    sf_probe *p = &w->probe;
    bool missed = w->state == WALK_MISSED;
    sf_error err; /* filled by failures only */

    w->state = WALK_ON;
    for (;;) {
        for (; p->block < p->block_end; p->block++) {
            const sf_error *why = &err;
            sf_status rc = SF_WOULD_BLOCK;
            sf_buf *plain = missed ? NULL : block_find(l, p, &rc, &why);
            bool done;

            if (!plain && rc == SF_WOULD_BLOCK && !missed && sf__probe_ruled_out(p))
                break;
            missed = false;
            if (!plain && rc == SF_WOULD_BLOCK) {
                if (needs_add(l, p))
                    return false;
                rc = sf_fail(&err, SF_NOMEM, "list of blocks to read");
            }
            if (!plain) {
                key_failed(l, ask, rc, why);
                return true;
            }
            rc = block_get(l->shard, p, plain, &done, &ask->value, &err);
            sf__buf_release(plain);
            if (rc != SF_OK)
                key_failed(l, ask, rc, &err);
            if (done)
                return true;
        }
        if (!sf__probe_next_sst(p, &l->shard->view))
            return true;
    }
}

/* What is before the SSTs. True when the key has its answer, or failed. */
static bool walk_begin(struct slatedb_lookup *l, sf_shard_ask *ask, struct walker *w)
{
    const sf_read_view *v = &l->shard->view;
    const sf_mem_row *mem = sf__memtable_get(&v->memtable, ask->key);
    sf_error err; /* filled by failures only */
    sf_status rc;

    if (!mem) {
        sf__probe_init(&w->probe, v, ask->key);
        return false;
    }
    rc = answer(l->shard, mem->flags, mem->value, v->memtable.bytes, &ask->value, &err);
    if (rc != SF_OK)
        key_failed(l, ask, rc, &err);
    return true;
}

static void extents_drop(struct slatedb_lookup *l)
{
    for (size_t i = 0; i < l->extent_count; i++)
        sf__extent_cleanup(&l->extents[i], l->shard->base.rt->alloc);
    l->extent_count = 0;
}

static void walk_all(struct slatedb_lookup *l)
{
    l->need_count = 0;
    for (size_t i = 0; l->walking > 0 && i < l->op->count; i++) {
        sf_shard_ask *ask = &l->op->asks[i];
        struct walker w;

        walker_get(&w, ask);
        if (w.state == WALK_OVER)
            continue;
        if ((w.state == WALK_NEW && walk_begin(l, ask, &w)) || walk(l, ask, &w)) {
            w.state = WALK_OVER;
            l->walking--;
        }
        memcpy(&ask->place, &w, sizeof(w));
    }
    extents_drop(l);
}

static void extent_done(sf_extent *e)
{
    struct slatedb_lookup *l = e->fetch.ctx;

    if (--l->in_flight == 0)
        get_enter(l, l->cancelled ? GET_DONE : GET_WALKING);
}

static bool extent_add(struct slatedb_lookup *l, const sf_sst *sst, uint32_t first, uint32_t count)
{
    const sf_allocator *a = l->shard->base.rt->alloc;

    if (!SF_RESERVE_FROM(a, &l->extents, &l->first_extent, &l->extent_cap, l->extent_count + 1))
        return false;
    if (!sf__extent_init(&l->extents[l->extent_count], sst, first, count, a))
        return false;
    l->extents[l->extent_count++].cache = l->shard->base.rt->cache;
    return true;
}

/* Neighbours become one request: no gap, and not too long. */
static bool extents_make(struct slatedb_lookup *l)
{
    size_t i = 0;

    qsort(l->needs, l->need_count, sizeof(*l->needs), need_cmp);
    while (i < l->need_count) {
        const struct need *n = &l->needs[i];
        uint32_t count = 1;
        uint64_t sum = sf__index_block_len(&n->sst->index, n->block);

        for (i++; i < l->need_count && l->needs[i].sst == n->sst; i++) {
            uint64_t len = sf__index_block_len(&n->sst->index, l->needs[i].block);

            if (l->needs[i].block < n->block + count)
                continue; /* several keys, one block */
            if (l->needs[i].block > n->block + count || sum + len > SF_EXTENT_MAX_BYTES)
                break;
            sum += len;
            count++;
        }
        if (!extent_add(l, n->sst, n->block, count))
            return false;
    }
    return true;
}

static void reading_start(struct slatedb_lookup *l)
{
    if (!extents_make(l)) {
        sf_error e;

        extents_drop(l);
        sf_fail(&e, SF_NOMEM, "no memory for blocks to read");
        rest_failed(l, &e);
        get_enter(l, GET_POSTED);
        return;
    }
    l->in_flight = l->extent_count;
    for (size_t i = 0; i < l->extent_count; i++)
        sf__extent_start(&l->extents[i], l->shard->base.rt->fetcher, l->shard->store, l->op->deadline_ns, extent_done, l);
}

static void posted_run(sf_task *task)
{
    sf_shard_get_many *op = sf_container_of(task, sf_shard_get_many, task);

    get_enter(op->impl, GET_DONE);
}

static void lookup_free(struct slatedb_lookup *l)
{
    const sf_allocator *a = l->shard->base.rt->alloc;
    sf_slatedb_shard *shard = l->shard;

    sf__budget_let_go(&shard->base.rt->fetcher->budget, sizeof(*l));
    extents_drop(l);
    sf__grown_free(a, l->extents, &l->first_extent);
    sf__grown_free(a, l->needs, l->first_needs);
    sf__free(a, l);
    sf__shard_release(&shard->base);
}

static void get_enter(struct slatedb_lookup *l, enum get_state next)
{
    sf_shard_get_many *op = l->op;
    sf_error e; /* filled by failures only */

    l->state = next;
    switch (next) {
    case GET_WALKING:
        walk_all(l);
        if (l->walking == 0) {
            get_enter(l, GET_POSTED);
        } else if (sf__clock_mono_ns() >= op->deadline_ns) {
            sf_error_overdue(&e, &(sf_overdue){.since_ns = l->since_ns, .waits_for = "the blocks of some of its keys"});
            rest_failed(l, &e);
            get_enter(l, GET_POSTED);
        } else {
            get_enter(l, GET_READING);
        }
        break;
    case GET_READING:
        reading_start(l); /* ends in extent_done() */
        break;
    case GET_POSTED: /* never inside the starting call */
        op->task.run = posted_run;
        sf__loop_post(l->shard->base.rt->loop, &op->task);
        break;
    case GET_DONE:
        if (l->cancelled) {
            sf_fail(&e, SF_CANCELLED, "cancelled");
            rest_failed(l, &e);
        }
        op->impl = NULL;
        lookup_free(l);
        op->done(op); /* op may be gone: nothing after this line */
        break;
    }
}

void sf__slatedb_get_many(sf_shard *base, sf_shard_get_many *op)
{
    struct slatedb_lookup *l = sf__calloc(base->rt->alloc, 1, sizeof(*l));

    if (!l) {
        sf_error e;

        sf_fail(&e, SF_NOMEM, "look-up of %zu keys", op->count);
        sf__shard_get_fail_later(base, op, &e);
        return;
    }
    op->impl = l;
    sf__budget_hold(&base->rt->fetcher->budget, sizeof(*l));
    l->shard = (sf_slatedb_shard *)sf__shard_acquire(base);
    l->op = op;
    l->since_ns = sf__clock_mono_ns();
    l->walking = op->count;
    l->needs = l->first_needs;
    l->need_cap = sizeof(l->first_needs) / sizeof(l->first_needs[0]);
    l->extents = &l->first_extent;
    l->extent_cap = 1;
    for (size_t i = 0; i < op->count; i++)
        op->asks[i].status = SF_OK;
    get_enter(l, GET_WALKING);
}

void sf__slatedb_get_many_cancel(sf_shard *base, sf_shard_get_many *op)
{
    struct slatedb_lookup *l = op->impl;

    (void)base;
    if (!l || l->state != GET_READING)
        return; /* its completion is in the inbox already */
    l->cancelled = true;
    for (size_t i = 0; i < l->extent_count; i++)
        sf__fetch_cancel(&l->extents[i].fetch);
}
