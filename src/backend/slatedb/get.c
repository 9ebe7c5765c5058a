/* Point look-ups. try_get walks memory only; what it misses goes on as an operation (backend/lookup.h), whose keys read the blocks
 * that they miss together. */
#include <assert.h>

#include "backend/lookup.h"
#include "backend/slatedb/extent.h"
#include "backend/slatedb/gather.h"
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

/* What a look-up of one key needs is in it: room for one extent, and for the blocks that one key mostly asks for. */
struct slatedb_lookup {
    sf_lookup base;
    sf_block_need *needs, first_needs[2];
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
static inline sf_status block_get(const sf_slatedb_shard *s, const sf_sst *sst, uint32_t block, sf_bytes key,
                                  const struct at_hand *h, bool *done, sf_value *out, sf_error *err)
{
    sf_block_row row;
    bool found = false;
    sf_status rc = sf__sst_block_get(sst, h->plain, key, s->view.max_seq, &found, &row, err);

    *done = found || rc != SF_OK;
    if (rc != SF_OK) {
        rc = damaged(s, sst, block, rc, err);
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

/* From the SST and the block where the probe stands. */
static sf_status search(const sf_slatedb_shard *s, sf_probe *p, sf_value *out, sf_shard_place *place, sf_error *err)
{
    do {
        for (; p->block < p->block_end; p->block++) {
            struct at_hand h;
            sf_status rc;
            bool done;

            hold(&h, p->sst, p->block, s->base.cache);
            if (!h.plain && sf__probe_ruled_out(p))
                break;
            if (!h.plain) {
                if (place)
                    place_put(place, p, WALK_MISSED);
                return SF_WOULD_BLOCK;
            }
            rc = block_get(s, p->sst, p->block, p->key, &h, &done, out, err);
            if (done)
                return rc;
        }
    } while (sf__probe_next_sst(p, &s->view));
    return SF_OK;
}

static __attribute__((noinline)) sf_status walk(const sf_slatedb_shard *s, sf_bytes key, sf_value *out,
                                                sf_shard_place *place, sf_error *err)
{
    const sf_mem_row *mem = sf__memtable_get(s->view.memtable, key);
    sf_probe p;

    if (mem)
        return answer_from_memtable(s, mem, out, err);
    *out = (sf_value){0};
    sf__probe_init(&p, &s->view, key);
    return sf__probe_next_sst(&p, &s->view) ? search(s, &p, out, place, err) : SF_OK;
}

/* The value of a key in a block with a directory. False: it is for walk() to tell. Apart, for directories that are not plain. */
static __attribute__((noinline)) bool dir_get(const sf_slatedb_shard *s, const sf_buf *plain, sf_bytes key,
                                              uint32_t first, bool *found, sf_bytes *value)
{
    sf_block_row row;

    if (sf__block_dir_get(plain, key, first, s->view.max_seq, found, &row, NULL) != SF_OK ||
        (*found && (row.flags & SF_ROW_MERGE)))
        return false;
    *found = *found && !(row.flags & SF_ROW_TOMBSTONE);
    if (*found)
        *value = row.value;
    return true;
}

/* The only block that may have the key. False: a probe tells. */
static inline __attribute__((always_inline)) bool only_block(const sf_sst *sst, const sf_block_table *table,
                                                             sf_bytes key, uint32_t *block)
{
    if (!sf__index_only_few(&sst->index, key, block))
        return sf__index_only_candidate(&sst->index, key, block);
    __builtin_prefetch(&table->blocks[*block]); /* nearly always in one line with its own, and does not wait for the heads */
    return sf__index_only_of_few(&sst->index, key, *block, block);
}

/* A key whose only block is in memory, has a directory and can be pinned, as nearly all: false where anything is otherwise. */
static inline __attribute__((always_inline)) bool pinned_get(const sf_slatedb_shard *s, sf_bytes key, sf_value *out)
{
    sf_pins *mine = sf__pins_of_thread();
    sf_pin *pin = mine ? sf__pins_for_value(mine) : NULL;
    const sf_sst *sst = pin ? sf__read_view_only_sst(&s->view, key) : NULL;
    sf_block_table *table = sst ? atomic_load_explicit(&sst->table, memory_order_acquire) : NULL;
    uint32_t block;
    sf_buf *plain = table && only_block(sst, table, key, &block) ? sf__block_table_find(table, block, mine, pin) : NULL;
    sf_bytes row, value;
    bool found = false, done = true;

    if (!plain)
        return false;
    if (plain->front == 0)
        done = false;
    else if (((const sf_block_dir *)plain->data)->plain)
        found = sf__block_dir_plain_seek(plain, key, &row) && sf__block_dir_plain_value(row, s->view.max_seq, &value);
    else
        done = dir_get(s, plain, key, sf__block_dir_seek(plain, key), &found, &value);
    if (found) {
        *out = (sf_value){.found = true, .bytes = value, .owner = sf__owner_of_pin(pin)};
        return true;
    }
    if (sf__pin_take_off(pin))
        sf__buf_release(plain);
    *out = (sf_value){0};
    return done;
}

sf_status sf__slatedb_try_get(sf_shard *base, sf_bytes key, sf_value *out, sf_shard_place *place, sf_error *err)
{
    const sf_slatedb_shard *s = sf_container_of(base, sf_slatedb_shard, base);

    return pinned_get(s, key, out) ? SF_OK : walk(s, key, out, place, err);
}

/* ------------------------------------------------------------------ together ------------------------------------- */

/* Several keys, whose steps are done side by side: each fetches into the processor's cache what the next one reads. */
struct sought {
    const sf_sst *ssts[SF_SHARD_TRIES]; /* the only one that may have the key; NULL: it walks by itself */
    bool few[SF_SHARD_TRIES];           /* `blocks` says where its index is to be searched; else the block, already */
    sf_block_table *tables[SF_SHARD_TRIES];
    sf_buf *plain[SF_SHARD_TRIES]; /* NULL: the key walks by itself */
    uint32_t blocks[SF_SHARD_TRIES];
    sf_bytes rows[SF_SHARD_TRIES]; /* the only one that may have the key; without bytes: none has; NULL: `first` tells */
    uint32_t first[SF_SHARD_TRIES];
};

static const uint8_t no_row[1];

static inline __attribute__((always_inline)) void seek_heads(struct sought *k, size_t i, const sf_shard *shard,
                                                             sf_bytes key)
{
    const sf_slatedb_shard *s = sf_container_of(shard, sf_slatedb_shard, base);
    const sf_sst *sst = sf__read_view_only_sst(&s->view, key);

    k->few[i] = sst && sf__index_only_few(&sst->index, key, &k->blocks[i]);
    if (k->few[i]) {
        __builtin_prefetch(sf__index_heads(&sst->index) + k->blocks[i]);
        __builtin_prefetch(sf__index_heads(&sst->index) + k->blocks[i] + SF_INDEX_FEW - 1);
    } else if (sst && !sf__index_only_candidate(&sst->index, key, &k->blocks[i])) {
        sst = NULL;
    }
    k->ssts[i] = sst;
}

static inline __attribute__((always_inline)) void seek_block(struct sought *k, size_t i, sf_bytes key)
{
    const sf_sst *sst = k->ssts[i];

    if (k->few[i] && !sf__index_only_of_few(&sst->index, key, k->blocks[i], &k->blocks[i]))
        sst = NULL;
    k->tables[i] = sst ? atomic_load_explicit(&sst->table, memory_order_acquire) : NULL;
    if (k->tables[i])
        __builtin_prefetch(&k->tables[i]->blocks[k->blocks[i]]);
}

static inline __attribute__((always_inline)) void seek_buffer(struct sought *k, size_t i)
{
    k->plain[i] = k->tables[i] ? sf__block_table_peek(k->tables[i], k->blocks[i]) : NULL;
    if (k->plain[i])
        sf__block_fetch(k->plain[i]);
}

static inline __attribute__((always_inline)) void seek_pin(const struct sought *k, size_t i, sf_pin *pin)
{
    sf_buf *was = k->plain[i] ? sf__pin_move(pin, k->plain[i]) : NULL;

    if (was)
        sf__buf_release(was);
}

/* Hits that are not counted yet. */
struct tally {
    sf_striped *of;
    uint64_t hits;
    unsigned thread;
};

static inline __attribute__((always_inline)) void tally_add(struct tally *t, sf_striped *of)
{
    if (t->of != of && t->hits > 0) {
        sf__striped_add(t->of, t->thread, t->hits);
        t->hits = 0;
    }
    t->of = of;
    t->hits++;
}

static inline __attribute__((always_inline)) void seek_row(struct sought *k, size_t i, sf_bytes key, struct tally *tally)
{
    sf_buf *plain = k->plain[i];
    const sf_block_dir *d;
    bool counts, still;

    if (!plain)
        return;
    still = sf__block_table_still(k->tables[i], k->blocks[i], plain, &counts);
    if (counts)
        tally_add(tally, k->tables[i]->hits);
    if (!still || plain->front == 0) {
        k->plain[i] = NULL;
        return;
    }
    d = (const sf_block_dir *)plain->data;
    if (d->plain) {
        if (sf__block_dir_plain_seek(plain, key, &k->rows[i]))
            sf__block_dir_fetch(k->rows[i]);
        else
            k->rows[i] = (sf_bytes){no_row, 0};
        return;
    }
    k->rows[i] = (sf_bytes){NULL, 0};
    k->first[i] = sf__block_dir_seek(plain, key);
    if (k->first[i] < d->count)
        sf__block_dir_fetch(sf__block_dir_row(plain, k->first[i]));
}

static __attribute__((noinline)) void walk_alone(sf_shard_tries *t, size_t i)
{
    t->statuses[i] =
        walk(sf_container_of(t->shards[i], sf_slatedb_shard, base), t->keys[i], t->values[i], &t->places[i], NULL);
    t->values[i]->owner = sf__owner_counted(t->values[i]->owner);
    t->left += t->statuses[i] != SF_OK;
}

#define LINE_BYTES 64u     /* of the processor's cache */
#define FETCHED_BYTES 512u /* of a value: what is longer the processor fetches on its own */

/* A view. Whoever copies it will not wait for its end, when it looks at other rows first. */
static inline sf_value view_of(sf_bytes value)
{
    for (size_t at = LINE_BYTES; at < value.n && at < FETCHED_BYTES; at += LINE_BYTES)
        __builtin_prefetch(value.p + at);
    if (value.n > 0)
        __builtin_prefetch(value.p + value.n - 1);
    return (sf_value){.found = true, .bytes = value};
}

static inline __attribute__((always_inline)) void seek_end(const struct sought *k, sf_shard_tries *t, size_t i,
                                                           sf_value_room *room)
{
    const sf_slatedb_shard *s = sf_container_of(t->shards[i], sf_slatedb_shard, base);
    sf_value *out = t->values[i];
    sf_bytes row, value;
    bool found;

    if (!k->plain[i]) {
        walk_alone(t, i);
        return;
    }
    row = k->rows[i];
    if (row.p) {
        found = row.n > 0 && sf__block_dir_plain_value(row, s->view.max_seq, &value);
    } else if (!dir_get(s, k->plain[i], t->keys[i], k->first[i], &found, &value)) {
        walk_alone(t, i);
        return;
    }
    if (!found)
        *out = (sf_value){0};
    else if (!room)
        *out = view_of(value);
    else if (!sf__value_room_copy(room, value, out))
        *out = (sf_value){.found = true, .bytes = value, .owner = sf__buf_acquire(k->plain[i])};
}

void sf__slatedb_try_get_together(sf_shard_tries *t, sf_value_room *room)
{
    struct sought keys;
    sf_pins *mine = sf__pins_of_thread();
    size_t count = t->count;
    struct tally tally = {0};

    t->left = 0;
    if (!mine) {
        for (size_t i = 0; i < count; i++)
            walk_alone(t, i);
        return;
    }
    memset(t->statuses, 0, sizeof(t->statuses)); /* SF_OK */
    tally.thread = mine->number;
    for (size_t i = 0; i < count; i++)
        seek_heads(&keys, i, t->shards[i], t->keys[i]);
    for (size_t i = 0; i < count; i++)
        seek_block(&keys, i, t->keys[i]);
    for (size_t i = 0; i < count; i++)
        seek_buffer(&keys, i);
    for (size_t i = 0; i < count; i++)
        seek_pin(&keys, i, &mine->pins[SF_PIN_TOGETHER + i]);
    for (size_t i = 0; i < count; i++)
        seek_row(&keys, i, t->keys[i], &tally);
    if (tally.hits > 0)
        sf__striped_add(tally.of, tally.thread, tally.hits);
    for (size_t i = 0; i < count; i++)
        seek_end(&keys, t, i, room);
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
    l->needs[l->need_count++] = (sf_block_need){.sst = sst, .block = block};
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
            rc = block_get(s, p->sst, p->block, p->key, &(struct at_hand){.plain = plain, .owner = plain}, &done, out,
                           err);
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

/* Blocks near one another become one request: `count` needs, and what lies between them is left out when they have come. */
static bool extent_plan(struct slatedb_lookup *l, const sf_block_need *needs, size_t count)
{
    uint32_t first = needs[0].block, last = needs[count - 1].block;
    sf_extent *e;

    if (!extent_add(l, needs[0].sst, first, last - first + 1))
        return false;
    e = &l->extents[l->extent_count - 1];
    for (uint32_t b = first; b <= last; b++) {
        if (needs->block != b)
            sf__extent_pass_over(e, b);
        else
            needs++;
    }
    return true;
}

/* Its part of what may be under way at once, by its keys. */
static sf_gather_room room_of(const struct slatedb_lookup *l)
{
    const sf_shard_get_many *op = l->base.op;
    const sf_budget *b = &l->base.shard->rt->fetcher->budget;
    double part = op->all_count > op->count ? (double)op->count / (double)op->all_count : 1;

    return (sf_gather_room){1 + (uint64_t)(part * (b->max_requests - 1)), (uint64_t)(part * (double)b->max_bytes)};
}

static size_t lookup_plan(sf_lookup *base)
{
    struct slatedb_lookup *l = lookup_of(base);
    sf_gather_room room = room_of(l);
    sf_read_cost cost;

    l->need_count = sf__gather_sort(l->needs, l->need_count);
    cost = sf__gather_cost(l->needs, l->need_count, &shard_of(l)->cost, &room);
    for (size_t i = 0, n; i < l->need_count; i += n) {
        n = sf__gather_range(l->needs + i, l->need_count - i, &cost);
        if (!extent_plan(l, l->needs + i, n))
            return 0;
    }
    l->need_count = 0;
    return l->extent_count;
}

static void lookup_read(sf_lookup *base, size_t i)
{
    struct slatedb_lookup *l = lookup_of(base);

    sf__extent_start(&l->extents[i], base->shard->rt->fetcher, shard_of(l)->store, base->op->deadline_ns, extent_done, l);
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
