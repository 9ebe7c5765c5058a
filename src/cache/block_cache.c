#include "cache/block_cache.h"

#include <pthread.h>

#include "base/error.h"
#include "cache/kept.h"
#include "cache/slab.h"

/* S3-FIFO (Yang et al., SOSP 2023). New blocks enter a small queue; those that are asked for again while they are in
 * it move to the main queue, the others leave only their key behind, as a ghost. A block whose ghost is still known
 * goes straight to the main queue. A scan passes through the small queue and leaves the main one alone.
 *
 *   put --> SMALL --asked for twice--> MAIN <--+ asked for since: once more round, with less credit
 *             |                         |  \---+
 *             v                         v
 *           GHOST --put--> MAIN        gone        */
enum queue { SMALL, MAIN, GHOST, QUEUES };

#define MAX_CREDIT SF_BLOCK_MAX_CREDIT
#define PROMOTE_CREDIT 2u /* in the small queue: asked for more than once */
#define SMALL_SHARE 10u   /* a tenth of the bytes */
#define MAX_SHARDS 16u
#define SHARD_BYTES (UINT64_C(8) << 20) /* fewer shards rather than smaller ones: a shard bounds the largest block */
#define FIRST_BUCKETS 64u
#define VICTIMS 32u         /* buffers dropped per turn of the lock */
#define TABLES_SHARE 16u    /* of the bytes, a sixteenth: places of blocks */
#define MARKS 256u          /* of chunks that are looked at per turn of the slab's lock */
#define SLAB_FREE_SHARE 16u /* what may be free in the slab's regions, which blocks are kept off for */
#define FRUITLESS 4u /* regions in a row that gave nothing back, since callers hold blocks there: enough for now */
#define SLAB_CACHE_BYTES (UINT64_C(64) << 20) /* smaller ones have no slab: regions are too large for that */

struct cache_entry {
    sf_cache_key key;
    sf_buf *buf; /* NULL: a ghost */
    enum queue queue;
    uint32_t credit;
    struct cache_entry *chain;         /* same bucket */
    struct cache_entry *older, *newer; /* same queue */
};

struct fifo {
    struct cache_entry *oldest, *newest;
    size_t count;
    uint64_t bytes;
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    /* under lock */
    struct fifo fifos[QUEUES];
    struct cache_entry **buckets;
    size_t bucket_count, entry_count; /* a power of two; ghosts are entries too */
    uint64_t hits, misses, evictions; /* hits: found by the lock */
};

struct sf_block_cache {
    /* set at creation */
    const sf_allocator *alloc;
    uint64_t max_bytes;
    uint32_t shard_count; /* a power of two */
    void *memory;         /* what `shards` and `hits` are an aligned part of */
    struct shard *shards;
    sf_striped *hits; /* found in tables */
    sf_slab *slab;    /* or NULL */
    /* any thread */
    atomic_uint refs;
    atomic_int_fast64_t charged;      /* held elsewhere */
    atomic_uint_fast64_t table_bytes; /* of that */
    atomic_uint_fast64_t trim_above;  /* free bytes of the slab; more than its share when trimming did not help */
};

/* Buffers to release once the lock is left: the last release runs code of others. They have no place in a table any more. */
struct victims {
    sf_buf *bufs[VICTIMS];
    size_t count;
};

static void victims_release(struct victims *v)
{
    sf__bufs_withdraw(v->bufs, v->count);
    v->count = 0;
}

/* ---------------------------------------------------------------- tables ---------------------------------------- */

static size_t table_bytes(uint32_t count)
{
    return sizeof(sf_block_table) + (size_t)count * (sizeof(atomic_uintptr_t) + 1);
}

sf_block_table *sf__block_table_new(sf_block_cache *c, uint32_t count, bool needed)
{
    size_t n = table_bytes(count);
    sf_block_table *t = NULL;
    bool fits = atomic_fetch_add_explicit(&c->table_bytes, n, memory_order_relaxed) + n <= c->max_bytes / TABLES_SHARE;

    if (fits || needed)
        t = sf__calloc(c->alloc, 1, n);
    if (!t) {
        atomic_fetch_sub_explicit(&c->table_bytes, n, memory_order_relaxed);
        return NULL;
    }
    atomic_init(&t->refs, 1);
    t->count = count;
    t->cache = c;
    t->hits = c->hits;
    t->used = (atomic_uchar *)(t->blocks + count);
    sf__block_cache_charge(c, (int64_t)n);
    return t;
}

sf_block_table *sf__block_table_at(const _Atomic(sf_block_table *) *place, sf_block_cache *c, uint32_t count, bool needed)
{
    _Atomic(sf_block_table *) *at =
        (_Atomic(sf_block_table *) *)place; /* what is in memory is no part of what an object is */
    sf_block_table *t = atomic_load_explicit(at, memory_order_acquire), *made;

    if (t)
        return t;
    made = sf__block_table_new(c, count, needed);
    if (!made || atomic_compare_exchange_strong(at, &t, made))
        return made;
    sf__block_table_close(made); /* another thread was quicker */
    return t;
}

static void table_release(sf_block_table *t)
{
    sf_block_cache *c = t->cache;
    size_t n = table_bytes(t->count);

    if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    sf__free(c->alloc, t);
    sf__block_cache_charge(c, -(int64_t)n);
    atomic_fetch_sub_explicit(&c->table_bytes, n, memory_order_relaxed);
}

/* What its owner charges. */
static uint64_t kept_bytes(const sf_buf *buf)
{
    return sizeof(*buf) + buf->cap;
}

uint64_t sf__block_table_let_go(sf_block_table *t)
{
    struct victims v = {.count = 0};
    uint64_t bytes = 0;

    sf__kept_withdraw(t);
    for (uint32_t i = 0; i < t->count; i++) {
        uintptr_t place = atomic_load_explicit(&t->blocks[i], memory_order_acquire);

        if (!(place & SF_BLOCK_KEPT))
            continue; /* the cache's, under its lock */
        atomic_exchange(&t->blocks[i], 0);
        bytes += kept_bytes(sf__block_table_buf(place));
        if (!(place & SF_BLOCK_INHERITED))
            v.bufs[v.count++] = sf__block_table_buf(place);
        if (v.count == VICTIMS)
            victims_release(&v);
    }
    victims_release(&v);
    return bytes;
}

void sf__block_table_close(sf_block_table *t)
{
    if (!t)
        return;
    sf__block_table_let_go(t);
    table_release(t);
}

/* ---------------------------------------------------------------- entries --------------------------------------- */

static uint64_t key_hash(const sf_cache_key *key)
{
    uint64_t h = key->object.lo ^ (key->off + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);

    h ^= key->object.hi;
    h = (h ^ h >> 32) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 29;
}

static bool key_eq(const sf_cache_key *a, const sf_cache_key *b)
{
    return a->off == b->off && a->object.lo == b->object.lo && a->object.hi == b->object.hi;
}

static struct shard *shard_of(sf_block_cache *c, uint64_t hash)
{
    return &c->shards[(hash >> 48) & (c->shard_count - 1)];
}

/* The link that points at the entry, or at the end of its bucket. */
static struct cache_entry **entry_find(struct shard *s, uint64_t hash, const sf_cache_key *key)
{
    struct cache_entry **link = &s->buckets[hash & (s->bucket_count - 1)];

    while (*link && !key_eq(&(*link)->key, key))
        link = &(*link)->chain;
    return link;
}

static uint64_t entry_bytes(const struct cache_entry *e)
{
    return e->buf ? e->buf->cap : 0;
}

/* What tells of the block in its table goes; what was found there counts. */
static void entry_leave_table(struct cache_entry *e)
{
    sf_block_table *t = e->key.table;

    if (!t)
        return;
    atomic_exchange(&t->blocks[e->key.block], 0);
    e->credit += atomic_exchange_explicit(&t->used[e->key.block], 0, memory_order_relaxed);
    e->credit = e->credit < MAX_CREDIT ? e->credit : MAX_CREDIT;
    e->key.table = NULL;
    table_release(t);
}

/* What was found in the table since the last time counts. */
static void entry_count(struct cache_entry *e)
{
    const sf_cache_key *k = &e->key;

    if (k->table)
        e->credit += atomic_exchange_explicit(&k->table->used[k->block], 0, memory_order_relaxed);
    e->credit = e->credit < MAX_CREDIT ? e->credit : MAX_CREDIT;
}

/* The block gets its place in the table of whoever asks for it: of several, the last one. */
static void entry_enter_table(struct cache_entry *e, const sf_cache_key *key)
{
    if (key->table && e->key.table != key->table && !sf__block_table_keeps(key->table, key->block)) {
        entry_leave_table(e);
        atomic_fetch_add_explicit(&key->table->refs, 1, memory_order_relaxed);
        e->key.table = key->table;
        e->key.block = key->block;
    }
    if (e->key.table &&
        atomic_load_explicit(&e->key.table->blocks[e->key.block], memory_order_relaxed) != (uintptr_t)e->buf)
        atomic_exchange(&e->key.table->blocks[e->key.block], (uintptr_t)e->buf);
}

static void queue_push(struct shard *s, struct cache_entry *e, enum queue q)
{
    struct fifo *f = &s->fifos[q];

    e->queue = q;
    e->newer = NULL;
    e->older = f->newest;
    if (f->newest)
        f->newest->newer = e;
    else
        f->oldest = e;
    f->newest = e;
    f->count++;
    f->bytes += entry_bytes(e);
}

static void queue_remove(struct shard *s, struct cache_entry *e)
{
    struct fifo *f = &s->fifos[e->queue];

    *(e->older ? &e->older->newer : &f->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &f->newest) = e->older;
    f->count--;
    f->bytes -= entry_bytes(e);
}

static sf_buf *entry_drop(const sf_allocator *a, struct shard *s, struct cache_entry *e)
{
    struct cache_entry **link = entry_find(s, key_hash(&e->key), &e->key);
    sf_buf *buf = e->buf;

    entry_leave_table(e);
    queue_remove(s, e);
    *link = e->chain;
    s->entry_count--;
    sf__free(a, e);
    return buf;
}

/* Without memory the chains grow longer instead. */
static void buckets_grow(const sf_allocator *a, struct shard *s)
{
    size_t count = s->bucket_count * 2;
    struct cache_entry **buckets = sf__calloc(a, count, sizeof(struct cache_entry *));

    if (!buckets)
        return;
    for (size_t i = 0; i < s->bucket_count; i++) {
        for (struct cache_entry *e = s->buckets[i], *next; e; e = next) {
            struct cache_entry **link = &buckets[key_hash(&e->key) & (count - 1)];

            next = e->chain;
            e->chain = *link;
            *link = e;
        }
    }
    sf__free(a, s->buckets);
    s->buckets = buckets;
    s->bucket_count = count;
}

/* ---------------------------------------------------------------- eviction -------------------------------------- */

uint64_t sf__block_cache_charged(const sf_block_cache *c)
{
    int64_t charged = atomic_load_explicit(&c->charged, memory_order_relaxed);

    return charged > 0 ? (uint64_t)charged : 0;
}

uint64_t sf__block_cache_max_bytes(const sf_block_cache *c)
{
    return c->max_bytes;
}

static uint64_t slab_share(const sf_block_cache *c)
{
    return c->slab ? c->max_bytes / SLAB_FREE_SHARE : 0;
}

/* What a shard may hold now. */
static uint64_t shard_bound(sf_block_cache *c)
{
    uint64_t not_blocks = sf__block_cache_charged(c) + slab_share(c);

    return not_blocks >= c->max_bytes ? 0 : (c->max_bytes - not_blocks) / c->shard_count;
}

static uint64_t shard_bytes(const struct shard *s)
{
    return s->fifos[SMALL].bytes + s->fifos[MAIN].bytes;
}

static void evict_from_small(struct shard *s, struct victims *v)
{
    struct cache_entry *e = s->fifos[SMALL].oldest;

    entry_count(e);
    queue_remove(s, e);
    if (e->credit >= PROMOTE_CREDIT) {
        e->credit = 0;
        queue_push(s, e, MAIN);
        return;
    }
    entry_leave_table(e);
    v->bufs[v->count++] = e->buf;
    e->buf = NULL;
    queue_push(s, e, GHOST);
    s->evictions++;
}

static void evict_from_main(const sf_allocator *a, struct shard *s, struct victims *v, size_t *rounds)
{
    struct cache_entry *e = s->fifos[MAIN].oldest;

    entry_count(e);
    if (e->credit > 0 && *rounds > 0) {
        queue_remove(s, e);
        e->credit--;
        --*rounds;
        queue_push(s, e, MAIN);
        return;
    }
    v->bufs[v->count++] = entry_drop(a, s, e);
    s->evictions++;
}

/* Down to the bound, or until `v` is full: false means there is more to do. Terminates: every step frees a block,
 * takes one out of the small queue, or takes credit from one in the main queue. That gets credit again from those who find it in
 * its table meanwhile, without the lock: so no more of it is taken than all can have had at the beginning. */
static bool shard_shrink(const sf_allocator *a, struct shard *s, uint64_t bound, struct victims *v)
{
    struct fifo *small = &s->fifos[SMALL], *ghosts = &s->fifos[GHOST];
    size_t rounds = MAX_CREDIT * (small->count + s->fifos[MAIN].count);

    while (shard_bytes(s) > bound) {
        if (v->count == VICTIMS)
            return false;
        if (small->count > 0 && (small->bytes > bound / SMALL_SHARE || s->fifos[MAIN].count == 0))
            evict_from_small(s, v);
        else
            evict_from_main(a, s, v, &rounds);
    }
    /* as many ghosts as blocks: an older one would tell of a time that no longer matters */
    while (ghosts->count > small->count + s->fifos[MAIN].count + FIRST_BUCKETS)
        entry_drop(a, s, ghosts->oldest);
    return true;
}

static void shrink_and_unlock(sf_block_cache *c, struct shard *s, struct victims *v)
{
    while (!shard_shrink(c->alloc, s, shard_bound(c), v)) {
        pthread_mutex_unlock(&s->lock);
        victims_release(v);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    victims_release(v);
}

/* The block that was marked with `hash`, if the cache has it still, and from there. */
static void leave_chunk(sf_block_cache *c, const void *region, uint64_t hash, struct victims *v)
{
    struct shard *s = shard_of(c, hash);
    struct cache_entry *e;

    pthread_mutex_lock(&s->lock);
    e = s->buckets[hash & (s->bucket_count - 1)];
    while (e && (!e->buf || (uintptr_t)e->buf - (uintptr_t)region >= SF_SLAB_REGION_BYTES ||
                 (key_hash(&e->key) ^ hash) << 1 != 0))
        e = e->chain;
    if (e) {
        v->bufs[v->count++] = entry_drop(c->alloc, s, e);
        s->evictions++;
    }
    pthread_mutex_unlock(&s->lock);
}

static void leave_region(sf_block_cache *c, const void *region)
{
    uint64_t hashes[MARKS];
    struct victims v = {.count = 0};
    size_t n;

    do {
        n = sf__slab_take_marks(c->slab, region, hashes, MARKS);
        for (size_t i = 0; i < n; i++) {
            leave_chunk(c, region, hashes[i], &v);
            if (v.count == VICTIMS)
                victims_release(&v);
        }
        victims_release(&v);
    } while (n == MARKS);
}

/* When too much is free in the slab, which happens when other things want the memory, or blocks of many sizes come and go: regions are
 * emptied, those first of which least is used. */
static void slab_trim(sf_block_cache *c)
{
    uint64_t share = slab_share(c), before = c->slab ? sf__slab_free_bytes(c->slab) : 0, now;
    const void *region;
    unsigned fruitless = 0;

    while (before > share && before > atomic_load_explicit(&c->trim_above, memory_order_relaxed)) {
        region = sf__slab_sparsest(c->slab);
        if (region)
            leave_region(c, region);
        now = sf__slab_free_bytes(c->slab);
        fruitless = now < before ? 0 : fruitless + 1;
        /* they hold what somebody has, or what stays: again when there is more to be had */
        if (fruitless == 0)
            atomic_store_explicit(&c->trim_above, share, memory_order_relaxed);
        else if (!region || fruitless == FRUITLESS)
            atomic_store_explicit(&c->trim_above, now + SF_SLAB_REGION_BYTES, memory_order_relaxed);
        before = now;
    }
}

/* ---------------------------------------------------------------- calls ----------------------------------------- */

const sf_allocator *sf__block_cache_slab(const sf_block_cache *c)
{
    return c->slab ? sf__slab_allocator(c->slab) : NULL;
}

/* Whether its table keeps one, since whoever asks looked there. */
static bool is_kept(const sf_cache_key *key)
{
    return key->table &&
           (atomic_load_explicit(&key->table->blocks[key->block], memory_order_acquire) & SF_BLOCK_KEPT) != 0;
}

/* That one, with a reference. By a pin, since a table lets go without the lock of any shard. */
static sf_buf *kept_acquire(const sf_cache_key *key)
{
    sf_pins *mine = is_kept(key) ? sf__pins_of_thread() : NULL;
    sf_buf *buf = mine ? sf__block_table_peek(key->table, key->block) : NULL;
    bool counts, still;

    if (!buf)
        return NULL;
    sf__pin_set(&mine->pins[SF_PIN_PASSING], buf);
    still = sf__block_table_still(key->table, key->block, buf, &counts);
    if (still)
        sf__buf_acquire(buf);
    if (sf__pin_take_off(&mine->pins[SF_PIN_PASSING]))
        sf__buf_release(buf);
    return still ? buf : NULL;
}

sf_buf *sf__block_cache_get(sf_block_cache *c, const sf_cache_key *key)
{
    uint64_t hash = key_hash(key);
    struct shard *s = shard_of(c, hash);
    struct cache_entry *e;
    sf_buf *buf = NULL;

    pthread_mutex_lock(&s->lock);
    e = *entry_find(s, hash, key);
    if (e && e->buf) {
        if (e->credit < MAX_CREDIT)
            e->credit++;
        buf = sf__buf_acquire(e->buf);
        entry_enter_table(e, key);
        s->hits++;
    } else {
        buf = kept_acquire(key);
        s->misses += !buf;
    }
    pthread_mutex_unlock(&s->lock);
    return buf;
}

sf_buf *sf__block_cache_find(sf_block_cache *c, const _Atomic(sf_block_table *) *place, uint32_t count,
                             const sf_cache_key *key)
{
    sf_pins *mine = key->table ? sf__pins_of_thread() : NULL;
    sf_pin *pin = mine ? &mine->pins[SF_PIN_PASSING] : NULL;
    sf_buf *buf = mine ? sf__block_table_find(key->table, key->block, mine, pin) : NULL;

    if (buf) {
        sf__buf_acquire(buf);
        if (sf__pin_take_off(pin))
            sf__buf_release(buf);
        return buf;
    }
    buf = sf__block_cache_get(c, key);
    if (buf && !key->table) /* another reader's: from the next time on without the lock */
        sf__block_table_at(place, c, count, false);
    return buf;
}

sf_buf *sf__block_cache_peek(sf_block_cache *c, const sf_cache_key *key)
{
    uint64_t hash = key_hash(key);
    struct shard *s = shard_of(c, hash);
    struct cache_entry *e;
    sf_buf *buf;

    pthread_mutex_lock(&s->lock);
    e = *entry_find(s, hash, key);
    buf = e && e->buf ? sf__buf_acquire(e->buf) : kept_acquire(key);
    pthread_mutex_unlock(&s->lock);
    return buf;
}

void sf__block_cache_put(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf)
{
    uint64_t hash = key_hash(key);
    struct shard *s = shard_of(c, hash);
    struct victims v = {.count = 0};
    struct cache_entry **link, *e;
    enum queue queue = SMALL;

    /* too large: it would throw out everything and then itself; empty: nothing would ever throw it out */
    if (buf->cap == 0 || buf->cap > shard_bound(c))
        return;
    pthread_mutex_lock(&s->lock);
    if (is_kept(key)) {
        pthread_mutex_unlock(&s->lock);
        return;
    }
    link = entry_find(s, hash, key);
    e = *link;
    if (e) { /* a ghost, or the same block once more: the newer buffer counts, one may have been read to mend the other */
        queue = e->buf ? e->queue : MAIN;
        if (!e->buf)
            e->credit = 0;
        queue_remove(s, e);
        if (e->buf)
            v.bufs[v.count++] = e->buf;
    } else {
        e = sf__calloc(c->alloc, 1, sizeof(*e));
        if (!e) {
            pthread_mutex_unlock(&s->lock);
            return;
        }
        e->key = (sf_cache_key){.object = key->object, .off = key->off};
        *link = e;
        if (++s->entry_count > s->bucket_count)
            buckets_grow(c->alloc, s);
    }
    e->buf = sf__buf_acquire(buf);
    if (c->slab && buf->alloc == sf__slab_allocator(c->slab))
        sf__slab_mark(buf, hash);
    entry_enter_table(e, key);
    queue_push(s, e, queue);
    shrink_and_unlock(c, s, &v);
    slab_trim(c);
}

static bool keep(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf, uintptr_t tags)
{
    uint64_t hash = key_hash(key);
    struct shard *s = shard_of(c, hash);
    struct victims v = {.count = 0};
    struct cache_entry *e;
    bool first;

    pthread_mutex_lock(&s->lock);
    first = !is_kept(key);
    e = first ? *entry_find(s, hash, key) : NULL;
    if (e && e->buf)
        v.bufs[v.count++] = entry_drop(c->alloc, s, e);
    if (first && !(tags & SF_BLOCK_INHERITED))
        sf__buf_acquire(buf);
    if (first)
        atomic_exchange(&key->table->blocks[key->block], (uintptr_t)buf | tags);
    pthread_mutex_unlock(&s->lock);
    victims_release(&v);
    return first;
}

bool sf__block_cache_keep(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf)
{
    return keep(c, key, buf, SF_BLOCK_KEPT);
}

int64_t sf__block_cache_replace(sf_block_cache *c, const sf_cache_key *key, sf_buf *buf)
{
    struct shard *s = shard_of(c, key_hash(key));
    sf_buf *old;
    uintptr_t was = 0;
    int64_t more = 0;

    pthread_mutex_lock(&s->lock);
    if (is_kept(key)) {
        sf__buf_acquire(buf);
        was = atomic_exchange(&key->table->blocks[key->block], (uintptr_t)buf | SF_BLOCK_KEPT);
    }
    pthread_mutex_unlock(&s->lock);
    old = sf__block_table_buf(was);
    if (old)
        more = (int64_t)kept_bytes(buf) - (int64_t)kept_bytes(old);
    if (old && !(was & SF_BLOCK_INHERITED))
        sf__bufs_withdraw(&old, 1);
    return more;
}

void sf__block_cache_inherit(sf_block_cache *c, const sf_cache_key *key, const sf_block_table *from, uint64_t *bytes)
{
    uintptr_t place = atomic_load_explicit(&from->blocks[key->block], memory_order_acquire);
    sf_buf *buf = sf__block_table_buf(place);

    *bytes = 0;
    if (place & SF_BLOCK_KEPT && keep(c, key, buf, SF_BLOCK_KEPT | SF_BLOCK_INHERITED))
        *bytes = kept_bytes(buf);
}

void sf__block_cache_charge(sf_block_cache *c, int64_t bytes)
{
    atomic_fetch_add_explicit(&c->charged, bytes, memory_order_relaxed);
    for (uint32_t i = 0; bytes > 0 && i < c->shard_count; i++) {
        struct victims v = {.count = 0};

        pthread_mutex_lock(&c->shards[i].lock);
        shrink_and_unlock(c, &c->shards[i], &v);
    }
    if (bytes > 0)
        slab_trim(c);
}

sf_status sf__block_cache_check_charged(const sf_block_cache *c, sf_error *err)
{
    if (sf__block_cache_charged(c) <= c->max_bytes)
        return SF_OK;
    return sf_fail(err, SF_EXHAUSTED, "what is to stay in memory takes more than its cache may have");
}

void sf__block_cache_get_stats(sf_block_cache *c, sf_block_cache_stats *out)
{
    int64_t charged = atomic_load_explicit(&c->charged, memory_order_relaxed);
    sf_block_cache_stats sum = {.bytes = charged > 0 ? (uint64_t)charged : 0, .hits = sf__striped_sum(c->hits)};

    for (uint32_t i = 0; i < c->shard_count; i++) {
        struct shard *s = &c->shards[i];

        pthread_mutex_lock(&s->lock);
        sum.hits += s->hits;
        sum.misses += s->misses;
        sum.evictions += s->evictions;
        sum.bytes += shard_bytes(s);
        sum.entries += s->fifos[SMALL].count + s->fifos[MAIN].count;
        pthread_mutex_unlock(&s->lock);
    }
    *out = sum;
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

sf_status sf__block_cache_new(sf_block_cache **out, uint64_t max_bytes, const sf_allocator *a, sf_error *err)
{
    sf_block_cache *c = sf__calloc(a, 1, sizeof(*c));
    uint32_t count = 1;

    if (!c)
        return sf_fail(err, SF_NOMEM, "block cache");
    while (count < MAX_SHARDS && max_bytes / count / 2 >= SHARD_BYTES)
        count *= 2;
    atomic_init(&c->refs, 1);
    c->alloc = a;
    c->max_bytes = max_bytes;
    c->memory = sf__calloc(a, 1, sizeof(sf_striped) + (count + 1) * sizeof(struct shard));
    if (!c->memory)
        goto fail;
    c->hits = (sf_striped *)(((uintptr_t)c->memory + 63) & ~(uintptr_t)63);
    c->shards = (struct shard *)(c->hits + 1);
    for (; c->shard_count < count; c->shard_count++) {
        struct shard *s = &c->shards[c->shard_count];

        s->buckets = sf__calloc(a, FIRST_BUCKETS, sizeof(struct cache_entry *));
        if (!s->buckets)
            goto fail;
        s->bucket_count = FIRST_BUCKETS;
        pthread_mutex_init(&s->lock, NULL);
    }
    if (max_bytes >= SLAB_CACHE_BYTES &&
        a->realloc == sf__allocator_default.realloc) { /* a caller's own has a say in where memory is */
        c->slab = sf__slab_new(max_bytes / SLAB_FREE_SHARE, a);
        if (!c->slab)
            goto fail;
    }
    *out = c;
    return SF_OK;
fail:
    sf__block_cache_release(c);
    return sf_fail(err, SF_NOMEM, "block cache");
}

sf_block_cache *sf__block_cache_acquire(sf_block_cache *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void sf__block_cache_release(sf_block_cache *c)
{
    struct victims v = {.count = 0};

    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < c->shard_count; i++) {
        struct shard *s = &c->shards[i];

        for (int q = 0; q < QUEUES; q++)
            while (s->fifos[q].oldest) {
                v.bufs[v.count] = entry_drop(c->alloc, s, s->fifos[q].oldest);
                v.count += v.bufs[v.count] != NULL; /* a ghost has none */
                if (v.count == VICTIMS)
                    victims_release(&v);
            }
        sf__free(c->alloc, s->buckets);
        pthread_mutex_destroy(&s->lock);
    }
    victims_release(&v);
    sf__slab_close(c->slab);
    sf__free(c->alloc, c->memory);
    sf__free(c->alloc, c);
}
