/* Point look-ups. try_get walks memory only; what it misses goes on as an operation (backend/lookup.h), whose keys read the blocks
 * that they miss together. */
#include <assert.h>
#include <stdlib.h>

#include "backend/lookup.h"
#include "backend/slatedb/extent.h"
#include "backend/slatedb/shard.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/pin.h"

/*   NEW --> ON      MISSED: it stands at a block that is not in memory and that its filter does not rule out
 *            ^
 *   MISSED --+      */
enum walk_state { WALK_NEW, WALK_ON, WALK_MISSED };

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
    sf_lookup base;
    struct need *needs, first_needs[2];
    size_t need_count, need_cap;
    sf_extent *extents, first_extent; /* of this round, by SST and block */
    size_t extent_count, extent_cap;
};

/* ------------------------------------------------------------------ answers -------------------------------------- */

static sf_status merge_operand(const sf_slatedb_shard *s, sf_error *err)
{
    sf_fail(err, SF_MERGE_OPERATOR, "%s: the value of the key is a merge operand", s->base.url);
    if (err)
        err->db_id = s->base.db_id;
    return SF_MERGE_OPERATOR;
}

/* True: a value, or else none or an error, as *rc says. */
static inline bool is_value(const sf_slatedb_shard *s, uint8_t flags, sf_status *rc, sf_error *err)
{
    *rc = flags & SF_ROW_MERGE ? merge_operand(s, err) : SF_OK;
    return !(flags & (SF_ROW_MERGE | SF_ROW_TOMBSTONE));
}

static sf_status answer_from_memtable(const sf_slatedb_shard *s, const sf_mem_row *row, sf_value *out, sf_error *err)
{
    sf_status rc;

    *out = (sf_value){0};
    if (is_value(s, row->flags, &rc, err))
        *out = (sf_value){.found = true, .bytes = row->value, .owner = sf__buf_acquire(s->view.memtable->bytes)};
    return rc;
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

/* A block that is looked into, and what keeps it alive, a reference or a pin. */
struct at_hand {
    sf_buf *plain, *owner; /* NULL: none */
    uint32_t row;          /* of its directory, where that is `sought` */
    bool sought;
};

/* One in memory: pinned, as long as the thread has a pin left. */
static inline void hold_pinned(struct at_hand *h, const sf_sst *sst, uint32_t block)
{
    sf_pins *mine = sf__pins_of_thread();
    sf_pin *pin = mine ? sf__pins_for_value(mine) : NULL;

    *h = (struct at_hand){.plain = pin ? sf__sst_block_pinned(sst, block, mine, pin) : NULL};
    if (h->plain)
        h->owner = sf__owner_of_pin(pin);
}

static inline void hold(struct at_hand *h, const sf_sst *sst, uint32_t block, sf_block_cache *cache)
{
    hold_pinned(h, sst, block);
    if (!h->plain)
        h->owner = h->plain = sf__sst_block_cached(sst, block, cache);
}

/* Looks into the block, which becomes the value's or is let go. *done: the look-up is over, with *out or an error. */
static inline sf_status block_get(const sf_slatedb_shard *s, sf_probe *p, const struct at_hand *h, bool *done, sf_value *out,
                                  sf_error *err)
{
    sf_block_row row;
    bool found = false;
    sf_status rc = h->sought ? sf__block_dir_get(h->plain, p->key, h->row, s->view.max_seq, &found, &row, err)
                             : sf__sst_block_get(p->sst, h->plain, p->key, s->view.max_seq, &found, &row, err);

    *done = found || rc != SF_OK;
    if (rc != SF_OK) {
        rc = damaged(s, p->sst, p->block, rc, err);
    } else if (found && is_value(s, row.flags, &rc, err)) {
        *out = (sf_value){.found = true, .bytes = row.value, .owner = h->owner};
        return SF_OK;
    }
    sf__owner_release(h->owner);
    return rc;
}

static void place_put(sf_shard_place *place, const sf_probe *p, enum walk_state state)
{
    struct walker w = {*p, state};

    memcpy(place, &w, sizeof(w));
}

/* From the SST and the block where the probe stands, which `h` may have. */
static sf_status search(const sf_slatedb_shard *s, sf_probe *p, struct at_hand *h, sf_value *out, sf_shard_place *place, sf_error *err)
{
    do {
        for (; p->block < p->block_end; p->block++) {
            bool done;
            sf_status rc;

            if (!h->plain)
                hold(h, p->sst, p->block, s->base.cache);
            if (!h->plain && sf__probe_ruled_out(p))
                break;
            if (!h->plain) {
                if (place)
                    place_put(place, p, WALK_MISSED);
                return SF_WOULD_BLOCK;
            }
            rc = block_get(s, p, h, &done, out, err);
            if (done)
                return rc;
            *h = (struct at_hand){0};
        }
    } while (sf__probe_next_sst(p, &s->view));
    return SF_OK;
}

sf_status sf__slatedb_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_slatedb_shard *s = sf_container_of(base, sf_slatedb_shard, base);
    const sf_mem_row *mem = sf__memtable_get(s->view.memtable, key);
    struct at_hand none = {0};
    sf_probe p;

    if (mem)
        return answer_from_memtable(s, mem, out, err);
    *out = (sf_value){0};
    sf__probe_init(&p, &s->view, key);
    return sf__probe_next_sst(&p, &s->view) ? search(s, &p, &none, out, place, err) : SF_OK;
}

/* ------------------------------------------------------------------ ahead ---------------------------------------- */

/* An sf_shard_ahead. */
struct ahead {
    sf_probe probe;
    struct at_hand h;
    const sf_mem_row *mem;
    bool over; /* no SST has the key */
};

static_assert(sizeof(struct ahead) <= sizeof(((sf_shard_ahead *)0)->words), "what is ahead fits");

static void ahead_begin(struct ahead *a, const sf_slatedb_shard *s, sf_bytes key)
{
    sf_block_table *t;

    *a = (struct ahead){.mem = sf__memtable_get(s->view.memtable, key)};
    if (a->mem)
        return;
    sf__probe_init(&a->probe, &s->view, key);
    a->over = !sf__probe_next_sst(&a->probe, &s->view);
    t = a->over ? NULL : atomic_load_explicit(&a->probe.sst->table, memory_order_acquire);
    if (t)
        __builtin_prefetch(&t->blocks[a->probe.block]);
}

void sf__slatedb_look_ahead(sf_shard *base, sf_shard_ahead *ahead, unsigned step)
{
    struct ahead *a = (struct ahead *)ahead->words;
    sf_probe *p = &a->probe;
    sf_block_table *t;

    if (step == 0) {
        ahead_begin(a, sf_container_of(base, sf_slatedb_shard, base), ahead->key);
        return;
    }
    if (a->mem || a->over)
        return;
    if (step == 1) {
        t = atomic_load_explicit(&p->sst->table, memory_order_acquire);
        if (t)
            sf__block_fetch(sf__block_table_buf(atomic_load_explicit(&t->blocks[p->block], memory_order_relaxed)));
        return;
    }
    hold_pinned(&a->h, p->sst, p->block);
    if (a->h.plain && a->h.plain->front > 0) {
        a->h.row = sf__block_dir_seek(a->h.plain, p->key);
        a->h.sought = true;
    }
}

sf_status sf__slatedb_try_get_ahead(sf_shard *base, sf_shard_ahead *ahead, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_slatedb_shard *s = sf_container_of(base, sf_slatedb_shard, base);
    struct ahead *a = (struct ahead *)ahead->words;

    if (a->mem)
        return answer_from_memtable(s, a->mem, out, err);
    *out = (sf_value){0};
    return a->over ? SF_OK : search(s, &a->probe, &a->h, out, place, err);
}

/* ------------------------------------------------------------------ many keys ------------------------------------ */

static struct slatedb_lookup *lookup_of(sf_lookup *base)
{
    return sf_container_of(base, struct slatedb_lookup, base);
}

static const sf_slatedb_shard *shard_of(const struct slatedb_lookup *l)
{
    return sf_container_of(l->base.shard, sf_slatedb_shard, base);
}

static const sf_allocator *alloc_of(const struct slatedb_lookup *l)
{
    return l->base.shard->rt->alloc;
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
static sf_buf *block_find(const struct slatedb_lookup *l, const sf_probe *p, sf_status *rc, sf_error *err)
{
    const sf_extent *x = extent_of(l, p->sst, p->block);

    *rc = SF_WOULD_BLOCK;
    if (x) {
        const sf_extent_block *b = sf__extent_block(x, p->block);

        if (b->plain)
            return sf__buf_acquire(b->plain);
        *rc = b->status;
        *err = *x->error;
        return NULL;
    }
    return sf__sst_block_cached(p->sst, p->block, l->base.shard->cache);
}

static bool need_add(struct slatedb_lookup *l, const sf_sst *sst, uint32_t block)
{
    if (!SF_RESERVE_FROM(alloc_of(l), &l->needs, l->first_needs, &l->need_cap, l->need_count + 1))
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

/* What is before the SSTs: true when the key has its answer, or failed. */
static bool walk_begin(struct walker *w, const sf_slatedb_shard *s, sf_shard_ask *ask, sf_status *rc, sf_error *err)
{
    const sf_mem_row *mem = sf__memtable_get(s->view.memtable, ask->key);

    if (mem)
        *rc = answer_from_memtable(s, mem, &ask->value, err);
    else
        sf__probe_init(&w->probe, &s->view, ask->key);
    return mem != NULL;
}

static sf_status walk_on(struct slatedb_lookup *l, struct walker *w, sf_value *out, sf_error *err)
{
    const sf_slatedb_shard *s = shard_of(l);
    sf_probe *p = &w->probe;
    bool missed = w->state == WALK_MISSED;

    w->state = WALK_ON;
    do {
        for (; p->block < p->block_end; p->block++) {
            sf_status rc = SF_WOULD_BLOCK;
            sf_buf *plain = missed ? NULL : block_find(l, p, &rc, err);
            bool done;

            if (!plain && rc != SF_WOULD_BLOCK)
                return rc;
            if (!plain && !missed && sf__probe_ruled_out(p))
                break;
            missed = false;
            if (!plain)
                return needs_add(l, p) ? SF_WOULD_BLOCK : sf_fail(err, SF_NOMEM, "list of blocks to read");
            rc = block_get(s, p, &(struct at_hand){.plain = plain, .owner = plain}, &done, out, err);
            if (done)
                return rc;
        }
    } while (sf__probe_next_sst(p, &s->view));
    return SF_OK;
}

static sf_status lookup_walk(sf_lookup *base, size_t i, sf_error *err)
{
    struct slatedb_lookup *l = lookup_of(base);
    sf_shard_ask *ask = &base->op->asks[i];
    struct walker w;
    sf_status rc;

    memcpy(&w, &ask->place, sizeof(w));
    w.probe.key = ask->key;
    if (w.state == WALK_NEW && walk_begin(&w, shard_of(l), ask, &rc, err))
        return rc;
    rc = walk_on(l, &w, &ask->value, err);
    memcpy(&ask->place, &w, sizeof(w));
    return rc;
}

static void lookup_drop(sf_lookup *base)
{
    struct slatedb_lookup *l = lookup_of(base);

    for (size_t i = 0; i < l->extent_count; i++)
        sf__extent_cleanup(&l->extents[i], alloc_of(l));
    l->extent_count = 0;
}

static void extent_done(sf_extent *e)
{
    sf__lookup_read_done(e->fetch.ctx);
}

static bool extent_add(struct slatedb_lookup *l, const sf_sst *sst, uint32_t first, uint32_t count)
{
    const sf_allocator *a = alloc_of(l);

    if (!SF_RESERVE_FROM(a, &l->extents, &l->first_extent, &l->extent_cap, l->extent_count + 1))
        return false;
    if (!sf__extent_init(&l->extents[l->extent_count], sst, first, count, a))
        return false;
    l->extents[l->extent_count++].cache = l->base.shard->cache;
    return true;
}

/* On disk, as far as is known: then it is asked for by itself, since what lies between is not there, perhaps. */
static bool is_on_disk(const struct need *n)
{
    return sf__sst_block_is_on_disk(n->sst, n->block);
}

static uint64_t end_of(const sf_sst *sst, uint32_t block)
{
    return sf__index_block_off(&sst->index, block) + sf__index_block_len(&sst->index, block);
}

/* Blocks near one another become one request: what lies between them costs less than another request does, as long as it is not
 * much. Of the needs from `i` on; those that are in it are left out then. */
static bool extent_plan(struct slatedb_lookup *l, size_t *i)
{
    const struct need *n = &l->needs[*i];
    const sf_read_cost *cost = &shard_of(l)->cost;
    uint64_t start = sf__index_block_off(&n->sst->index, n->block);
    uint32_t last = n->block;
    bool on_disk = is_on_disk(n);
    size_t first = *i;
    sf_extent *e;

    for (++*i; *i < l->need_count && l->needs[*i].sst == n->sst; ++*i) {
        const struct need *next = &l->needs[*i];

        if (next->block == last)
            continue; /* several keys, one block */
        if (sf__index_block_off(&next->sst->index, next->block) - end_of(n->sst, last) > (on_disk ? 0 : cost->gap_bytes) ||
            end_of(n->sst, next->block) - start > cost->max_bytes || is_on_disk(next) != on_disk)
            break;
        last = next->block;
    }
    if (!extent_add(l, n->sst, n->block, last - n->block + 1))
        return false;
    e = &l->extents[l->extent_count - 1];
    for (uint32_t b = n->block; b <= last; b++) {
        while (l->needs[first].block < b && first + 1 < *i)
            first++;
        if (l->needs[first].block != b)
            sf__extent_pass_over(e, b);
    }
    return true;
}

static size_t lookup_plan(sf_lookup *base)
{
    struct slatedb_lookup *l = lookup_of(base);

    qsort(l->needs, l->need_count, sizeof(*l->needs), need_cmp);
    for (size_t i = 0; i < l->need_count;)
        if (!extent_plan(l, &i))
            return 0;
    l->need_count = 0;
    return l->extent_count;
}

static void lookup_read(sf_lookup *base, size_t i)
{
    struct slatedb_lookup *l = lookup_of(base);

    sf__extent_start(&l->extents[i], base->shard->rt->fetcher, shard_of(l)->store, base->op->deadline_ns, extent_done,
                     l);
}

static void lookup_read_cancel(sf_lookup *base, size_t i)
{
    sf__fetch_cancel(&lookup_of(base)->extents[i].fetch);
}

static bool lookup_init(sf_lookup *base)
{
    struct slatedb_lookup *l = lookup_of(base);

    l->needs = l->first_needs;
    l->need_cap = sizeof(l->first_needs) / sizeof(l->first_needs[0]);
    l->extents = &l->first_extent;
    l->extent_cap = 1;
    return true;
}

static void lookup_cleanup(sf_lookup *base)
{
    struct slatedb_lookup *l = lookup_of(base);

    sf__grown_free(alloc_of(l), l->extents, &l->first_extent);
    sf__grown_free(alloc_of(l), l->needs, l->first_needs);
}

static const sf_lookup_type lookup_type = {
    .size = sizeof(struct slatedb_lookup),
    .waits_for = "the blocks of some of its keys",
    .init = lookup_init,
    .walk = lookup_walk,
    .plan = lookup_plan,
    .read = lookup_read,
    .read_cancel = lookup_read_cancel,
    .drop = lookup_drop,
    .cleanup = lookup_cleanup,
};

void sf__slatedb_get_many(sf_shard *base, sf_shard_get_many *op)
{
    sf__lookup_start(&lookup_type, base, op);
}
