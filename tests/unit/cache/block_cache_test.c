/* What the block cache keeps, what it lets go, and that neither ever changes what is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/block_cache.h"
#include "cache/kept.h"
#include "cache/slab.h"
#include "../../support/heap.h"

#define KIB (UINT64_C(1) << 10)
#define BLOCK 1000u /* payload; a buffer charges its capacity */

struct world {
    struct test_heap heap;
    sf_block_cache *cache;
    uint64_t max_bytes;
};

static void begin(struct world *w, uint64_t max_bytes)
{
    heap_init(&w->heap);
    w->max_bytes = max_bytes;
    assert_int_equal(sf__block_cache_new(&w->cache, max_bytes, &w->heap.alloc, NULL), SF_OK);
}

static void end(struct world *w)
{
    sf__block_cache_release(w->cache);
    assert_int_equal(atomic_load(&w->heap.live), 0);
}

static sf_cache_key key_of(uint64_t no)
{
    return (sf_cache_key){.object = {no / 7, no * UINT64_C(0x9e3779b97f4a7c15)}, .off = no * 4096};
}

static sf_buf *buf_of(struct world *w, uint64_t no, size_t n)
{
    sf_buf *b = sf__buf_new(&w->heap.alloc, n);

    assert_non_null(b);
    memset(b->data, (int)(no & 0xff), n);
    return b;
}

static void put(struct world *w, uint64_t no)
{
    sf_cache_key key = key_of(no);
    sf_buf *b = buf_of(w, no, BLOCK);
    sf_block_cache_stats stats;

    sf__block_cache_put(w->cache, &key, b);
    sf__buf_release(b);
    sf__block_cache_get_stats(w->cache, &stats);
    if (stats.bytes > w->max_bytes && stats.entries > 0)
        fail_msg("%llu bytes in a cache of %llu", (unsigned long long)stats.bytes, (unsigned long long)w->max_bytes);
}

/* Whether it is there; a block that is has to be the right one. */
static bool has(struct world *w, uint64_t no)
{
    sf_cache_key key = key_of(no);
    sf_buf *b = sf__block_cache_get(w->cache, &key);
    bool found = b != NULL;

    if (b) {
        assert_int_equal(b->n, BLOCK);
        assert_int_equal(b->data[0], no & 0xff);
        assert_int_equal(b->data[BLOCK - 1], no & 0xff);
    }
    sf__buf_release(b);
    return found;
}

static void what_is_put_is_there(void **state)
{
    struct world w;
    sf_block_cache_stats stats;

    begin(&w, 256 * KIB);
    assert_false(has(&w, 1));
    put(&w, 1);
    put(&w, 2);
    assert_true(has(&w, 1));
    assert_true(has(&w, 2));
    assert_false(has(&w, 3));
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.hits, 2);
    assert_int_equal(stats.misses, 2);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.evictions, 0);
    end(&w);
}

static void the_same_buffer_comes_back(void **state)
{
    struct world w;
    sf_cache_key key = key_of(5);
    sf_buf *in, *out;

    begin(&w, 256 * KIB);
    in = buf_of(&w, 5, BLOCK);
    sf__block_cache_put(w.cache, &key, in);
    out = sf__block_cache_get(w.cache, &key);
    assert_ptr_equal(in, out);
    sf__buf_release(out);
    sf__buf_release(in);
    end(&w);
}

static void a_peek_does_not_count(void **state)
{
    struct world w;
    sf_cache_key key = key_of(5), other = key_of(6);
    sf_block_cache_stats stats;
    sf_buf *in, *out;

    begin(&w, 256 * KIB);
    in = buf_of(&w, 5, BLOCK);
    sf__block_cache_put(w.cache, &key, in);
    out = sf__block_cache_peek(w.cache, &key);
    assert_ptr_equal(in, out);
    assert_null(sf__block_cache_peek(w.cache, &other));
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.hits + stats.misses, 0);
    sf__buf_release(out);
    sf__buf_release(in);
    end(&w);
}

static void bytes_stay_within_the_bound(void **state)
{
    static const uint64_t bounds[] = {1, BLOCK, 64 * KIB, 1024 * KIB, 40000 * KIB};

    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        struct world w;

        begin(&w, bounds[i]);
        for (uint64_t n = 0; n < 3000; n++) {
            put(&w, n); /* checks the bound */
            has(&w, n / 2);
        }
        end(&w);
    }
}

static void what_does_not_fit_is_not_kept(void **state)
{
    struct world w;
    sf_cache_key key = key_of(1);
    sf_buf *large, *empty;
    sf_block_cache_stats stats;

    begin(&w, 16 * KIB);
    put(&w, 2);
    large = buf_of(&w, 1, 17 * KIB);
    empty = buf_of(&w, 1, 0);
    sf__block_cache_put(w.cache, &key, large);
    sf__buf_release(large);
    assert_null(sf__block_cache_get(w.cache, &key));
    assert_true(has(&w, 2)); /* nothing else was thrown out for it */
    sf__block_cache_put(w.cache, &key, empty);
    sf__buf_release(empty);
    sf__block_cache_get_stats(w.cache, &stats);
    assert_true(stats.bytes <= w.max_bytes);
    end(&w);

    begin(&w, 0);
    put(&w, 1);
    assert_false(has(&w, 1));
    end(&w);
}

static void held_blocks_outlive_their_eviction(void **state)
{
    struct world w;
    sf_cache_key key = key_of(9);
    sf_buf *held;

    begin(&w, 16 * KIB);
    put(&w, 9);
    held = sf__block_cache_get(w.cache, &key);
    assert_non_null(held);
    for (uint64_t n = 100; n < 400; n++)
        put(&w, n);
    assert_false(has(&w, 9));
    assert_int_equal(held->data[BLOCK - 1], 9);
    sf__block_cache_release(w.cache);
    assert_int_equal(held->data[0], 9); /* and the cache */
    sf__buf_release(held);
    assert_int_equal(atomic_load(&w.heap.live), 0);
}

/* The reason for S3-FIFO: blocks that are asked for again and again survive a scan of ten times the cache. */
static void a_scan_does_not_wash_out_what_is_hot(void **state)
{
    enum { HOT = 60 };
    struct world w;
    unsigned kept = 0;

    begin(&w, 128 * KIB); /* about 120 blocks */
    for (uint64_t n = 0; n < HOT; n++)
        put(&w, n);
    for (int round = 0; round < 3; round++)
        for (uint64_t n = 0; n < HOT; n++)
            has(&w, n);
    for (uint64_t n = 1000; n < 2200; n++)
        put(&w, n);
    for (uint64_t n = 0; n < HOT; n++)
        kept += has(&w, n);
    assert_true(kept > HOT * 9 / 10);
    end(&w);
}

/* A block that is wanted again soon after it was let go is remembered, and stays this time. */
static void what_returns_stays(void **state)
{
    struct world w;

    begin(&w, 128 * KIB);
    put(&w, 1);
    for (uint64_t n = 1000; n < 1150; n++) /* pushes it out of the small queue */
        put(&w, n);
    assert_false(has(&w, 1));
    put(&w, 1);
    for (uint64_t n = 2000; n < 2300; n++)
        put(&w, n);
    assert_true(has(&w, 1));
    assert_false(has(&w, 1000));
    end(&w);
}

static void a_second_put_replaces(void **state)
{
    struct world w;
    sf_cache_key key = key_of(3);
    sf_buf *mended, *out;
    sf_block_cache_stats before, after;

    begin(&w, 256 * KIB);
    put(&w, 3);
    sf__block_cache_get_stats(w.cache, &before);
    for (int i = 0; i < 100; i++) {
        mended = buf_of(&w, 77, BLOCK);
        sf__block_cache_put(w.cache, &key, mended);
        sf__buf_release(mended);
    }
    out = sf__block_cache_get(w.cache, &key);
    assert_int_equal(out->data[0], 77);
    sf__buf_release(out);
    sf__block_cache_get_stats(w.cache, &after);
    assert_int_equal(after.bytes, before.bytes);
    assert_int_equal(after.entries, 1);
    end(&w);
}

/* Indexes and filters are held elsewhere but count. */
static void charges_narrow_the_bound(void **state)
{
    struct world w;
    sf_block_cache_stats stats;

    begin(&w, 256 * KIB);
    for (uint64_t n = 0; n < 300; n++)
        put(&w, n);
    sf__block_cache_charge(w.cache, (int64_t)(192 * KIB));
    sf__block_cache_get_stats(w.cache, &stats);
    assert_true(stats.bytes <= 256 * KIB);
    assert_true(stats.entries > 0 && stats.entries <= 65);
    sf__block_cache_charge(w.cache, (int64_t)(192 * KIB)); /* more than there is */
    put(&w, 1);
    assert_false(has(&w, 1));
    sf__block_cache_charge(w.cache, -(int64_t)(384 * KIB));
    put(&w, 1);
    assert_true(has(&w, 1));
    sf__block_cache_get_stats(w.cache, &stats);
    assert_true(stats.bytes < 2 * KIB);
    end(&w);
}

static void no_memory_is_no_harm(void **state)
{
    bool fired = true;

    for (long n = 0; fired; n++) {
        struct world w = {.max_bytes = 64 * KIB};
        sf_status rc;

        heap_init(&w.heap);
        heap_arm(&w.heap, n);
        rc = sf__block_cache_new(&w.cache, w.max_bytes, &w.heap.alloc, NULL);
        fired = heap_disarm(&w.heap);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_true(fired || n > 0);
        if (rc == SF_OK)
            sf__block_cache_release(w.cache);
        assert_int_equal(atomic_load(&w.heap.live), 0);
    }
    fired = true;
    for (long n = 0; fired; n++) { /* in puts: the block is not kept, or the table does not grow */
        struct world w;
        sf_buf *bufs[200];

        begin(&w, 1024 * KIB);
        for (uint64_t i = 0; i < 200; i++)
            bufs[i] = buf_of(&w, i, BLOCK);
        heap_arm(&w.heap, n);
        for (uint64_t i = 0; i < 200; i++) {
            sf_cache_key key = key_of(i);

            sf__block_cache_put(w.cache, &key, bufs[i]);
        }
        fired = heap_disarm(&w.heap);
        assert_true(fired || n > 0);
        for (uint64_t i = 0; i < 200; i++) {
            sf__buf_release(bufs[i]);
            if (!fired)
                assert_true(has(&w, i));
            else
                has(&w, i);
        }
        end(&w);
    }
}

/* ------------------------------------------------------------------ tables --------------------------------------- */

static sf_cache_key placed(sf_block_table *t, uint64_t no)
{
    return (sf_cache_key){.object = {1, 2}, .off = no * 4096, .table = t, .block = (uint32_t)no};
}

static void put_placed(struct world *w, sf_block_table *t, uint64_t no)
{
    sf_cache_key key = placed(t, no);
    sf_buf *b = buf_of(w, no, BLOCK);

    sf__block_cache_put(w->cache, &key, b);
    sf__buf_release(b);
}

/* Whether the table has it, without a lock; a block that it has is the right one. */
static bool in_table(sf_block_table *t, uint64_t no)
{
    sf_pins *mine = sf__pins_of_thread();
    sf_pin *pin = sf__pins_for_value(mine);
    sf_buf *b = sf__block_table_find(t, (uint32_t)no, mine, pin);

    if (!b)
        return false;
    assert_int_equal(b->data[BLOCK - 1], no & 0xff);
    sf__owner_release(sf__owner_of_pin(pin));
    return true;
}

static void a_table_shows_what_the_cache_has(void **state)
{
    struct world w;
    sf_block_table *t, *other;
    sf_block_cache_stats stats;
    sf_cache_key key;
    sf_buf *b;

    begin(&w, 1024 * KIB);
    t = sf__block_table_new(w.cache, 2000, false);
    other = sf__block_table_new(w.cache, 2000, false);
    assert_non_null(t);
    put_placed(&w, t, 7);
    assert_true(in_table(t, 7));
    assert_false(in_table(t, 8));
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 0); /* whoever then asks by the lock misses */
    key = placed(other, 7);            /* it goes to the table of whoever asks */
    b = sf__block_cache_get(w.cache, &key);
    assert_non_null(b);
    sf__buf_release(b);
    assert_true(in_table(other, 7));
    assert_false(in_table(t, 7));
    put_placed(&w, other, 7); /* another buffer */
    assert_true(in_table(other, 7));
    for (uint64_t i = 100; i < 1990; i++)
        put_placed(&w, t, i);
    assert_false(in_table(t, 100)); /* evicted */
    assert_true(in_table(t, 1989));
    sf__block_table_close(t);
    sf__block_table_close(other);
    key = placed(NULL, 1989); /* the cache has it still, and the table as long as that */
    b = sf__block_cache_get(w.cache, &key);
    assert_non_null(b);
    sf__buf_release(b);
    end(&w);
}

static void what_is_found_in_a_table_stays(void **state)
{
    struct world w;
    sf_block_table *t;

    begin(&w, 200 * KIB);
    t = sf__block_table_new(w.cache, 1000, false);
    assert_non_null(t);
    put_placed(&w, t, 0);
    for (uint64_t i = 1; i < 1000; i++) {
        put_placed(&w, t, i);
        if (i < 10)
            assert_true(in_table(t, 0));
    }
    assert_true(in_table(t, 0));
    assert_false(in_table(t, 1));
    sf__block_table_close(t);
    end(&w);
}

static void what_is_kept_leaves_with_the_table(void **state)
{
    struct world w;
    sf_block_cache_stats stats;
    sf_block_table *t;
    sf_cache_key key;
    sf_buf *b, *held;

    begin(&w, 1024 * KIB);
    t = sf__block_table_new(w.cache, 100, true);
    for (uint64_t i = 0; i < 100; i++) {
        if (i % 2) /* also one that is in the cache, which forgets it */
            put_placed(&w, t, i);
        key = placed(t, i);
        b = buf_of(&w, i, BLOCK);
        assert_true(sf__block_cache_keep(w.cache, &key, b));
        assert_false(sf__block_cache_keep(w.cache, &key, b));
        sf__block_cache_put(w.cache, &key, b);
        sf__buf_release(b);
        assert_true(sf__block_table_keeps(t, (uint32_t)i) && in_table(t, i));
    }
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.entries, 0);
    key = placed(t, 5);
    held = sf__block_cache_peek(w.cache, &key);
    assert_non_null(held);
    sf__block_cache_charge(w.cache, (int64_t)w.max_bytes); /* no reason for them to go */
    assert_true(in_table(t, 99));
    sf__block_cache_charge(w.cache, -(int64_t)w.max_bytes);
    sf__block_table_close(t);
    assert_int_equal(held->data[0], 5);
    sf__buf_release(held);
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.bytes, 0);
    end(&w);
}

/* ------------------------------------------------------------------ across a fork ------------------------------- */

#define KEPT_BLOCKS 100u
static const sf_hash128 kept_name = {7, 9};

static sf_block_table *kept_table(sf_block_cache *cache, const sf_allocator *a)
{
    sf_block_table *t = sf__block_table_new(cache, KEPT_BLOCKS, true);

    assert_non_null(t);
    sf__kept_offer(t, kept_name, a);
    sf__kept_offer(t, kept_name, a); /* is one */
    for (uint64_t i = 0; i < KEPT_BLOCKS; i += 2) {
        sf_cache_key key = placed(t, i);
        sf_buf *b = sf__buf_new(a, BLOCK);

        memset(b->data, (int)i, BLOCK);
        assert_true(sf__block_cache_keep(cache, &key, b));
        sf__buf_release(b);
    }
    return t;
}

/* In a child. What it can and cannot find; the number of what is wrong. */
static int inherit(unsigned generations)
{
    const sf_block_table *from = sf__kept_inherited(kept_name, KEPT_BLOCKS);
    sf_block_cache *cache = NULL;
    sf_block_table *t;
    uint64_t bytes, sum = 0;
    sf_cache_key key;
    sf_buf *b;
    int status = 0;

    if (!from || sf__kept_inherited(kept_name, KEPT_BLOCKS + 1) || sf__kept_inherited((sf_hash128){7, 8}, KEPT_BLOCKS))
        return 1;
    if (sf__block_cache_new(&cache, 1024 * KIB, &sf__allocator_default, NULL) != SF_OK)
        return 2;
    t = sf__block_table_new(cache, KEPT_BLOCKS, true);
    key = placed(t, 0);
    b = sf__buf_new(&sf__allocator_default, BLOCK);
    memset(b->data, 0, BLOCK);
    sf__block_cache_put(cache, &key, b); /* in its place already: that one goes */
    sf__buf_release(b);
    for (uint64_t i = 0; i < KEPT_BLOCKS; i++) {
        key = placed(t, i);
        sf__block_cache_inherit(cache, &key, from, &bytes);
        sum += bytes;
        if (bytes != (i % 2 == 0 ? sizeof(sf_buf) + BLOCK : 0) ||
            sf__block_table_keeps(t, (uint32_t)i) != (i % 2 == 0) || in_table(t, i) != (i % 2 == 0))
            return 3;
        sf__block_cache_inherit(cache, &key, from, &bytes);
        if (bytes != 0)
            return 4;
    }
    sf__kept_offer(t, kept_name, &sf__allocator_default);
    key = placed(t, 8);
    b = sf__block_cache_get(cache, &key); /* with a reference, as whoever keeps a value for long */
    if (generations > 1) {
        pid_t child = fork();

        if (child == 0)
            _exit(inherit(generations - 1));
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            return 5;
    }
    sf__block_table_close(t);
    if (!b || b->data[0] != 8)
        return 6;
    sf__buf_release(b);
    for (uint64_t i = 0; i < KEPT_BLOCKS; i += 2) /* it is there for good */
        if (sf__block_table_buf(atomic_load(&from->blocks[i]))->data[BLOCK - 1] != i)
            return 7;
    sf__block_cache_release(cache);
    return sum > 0 ? 0 : 8;
}

static void in_a_child(int (*run)(unsigned), unsigned generations)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(run(generations));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static int inherits_nothing(unsigned generations)
{
    return sf__kept_inherited(kept_name, KEPT_BLOCKS) != NULL;
}

static void a_child_finds_what_its_parent_kept(void **state)
{
    sf_block_cache *cache = NULL;
    sf_block_table *t;
    struct world w;

    in_a_child(inherits_nothing, 0);
    begin(&w, 1024 * KIB); /* a caller's allocator */
    t = kept_table(w.cache, &w.heap.alloc);
    in_a_child(inherits_nothing, 0);
    sf__block_table_close(t);
    end(&w);
    assert_int_equal(sf__block_cache_new(&cache, 1024 * KIB, &sf__allocator_default, NULL), SF_OK);
    t = kept_table(cache, &sf__allocator_default);
    assert_null(sf__kept_inherited(kept_name, KEPT_BLOCKS)); /* its own are no parent's */
    in_a_child(inherit, 3);
    assert_true(in_table(t, 8));
    sf__block_table_let_go(t);
    assert_false(in_table(t, 8));
    in_a_child(inherits_nothing, 0);
    sf__block_table_close(t);
    sf__block_cache_release(cache);
}

/* Tables come and go while a process forks: a child finds whole ones or none, and never waits for a lock. */
static void *keeps_and_closes(void *arg)
{
    atomic_bool *stop = arg;

    while (!atomic_load(stop)) {
        sf_block_cache *cache = NULL;

        assert_int_equal(sf__block_cache_new(&cache, 1024 * KIB, &sf__allocator_default, NULL), SF_OK);
        sf__block_table_close(kept_table(cache, &sf__allocator_default));
        sf__block_cache_release(cache);
    }
    return NULL;
}

static int whole_or_not(unsigned generations)
{
    const sf_block_table *from = sf__kept_inherited(kept_name, KEPT_BLOCKS);

    for (uint64_t i = 0; from && i < KEPT_BLOCKS; i++) {
        const sf_buf *b = sf__block_table_buf(atomic_load(&from->blocks[i]));

        if (b && (b->n != BLOCK || b->data[0] != i || b->data[BLOCK - 1] != i))
            return 1;
    }
    return 0;
}

static void forks_beside_tables_that_come_and_go(void **state)
{
    atomic_bool stop;
    pthread_t threads[2];

    atomic_init(&stop, false);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, keeps_and_closes, &stop), 0);
    for (int i = 0; i < 30; i++)
        in_a_child(whole_or_not, 0);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void tables_take_a_share_and_no_more(void **state)
{
    struct world w;
    sf_block_table *t, *needed;
    sf_block_cache_stats stats;

    begin(&w, 1024 * KIB);
    assert_null(sf__block_table_new(w.cache, 1000000, false));
    t = sf__block_table_new(w.cache, 6000, false);
    assert_non_null(t);
    assert_null(sf__block_table_new(w.cache, 6000, false));
    needed = sf__block_table_new(w.cache, 6000, true);
    assert_non_null(needed);
    sf__block_cache_get_stats(w.cache, &stats);
    assert_true(stats.bytes >= 2 * 6000 * 9);
    sf__block_table_close(t);
    sf__block_table_close(needed);
    sf__block_cache_get_stats(w.cache, &stats);
    assert_int_equal(stats.bytes, 0);
    end(&w);
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

#define TABLE_BLOCKS 600u

struct finder {
    struct world *w;
    sf_block_table *t;
    uint64_t seed;
    unsigned found, wrong;
};

static void *find(void *arg)
{
    struct finder *f = arg;
    uint64_t x = f->seed;
    sf_buf *kept = NULL; /* over some rounds */

    for (unsigned i = 0; i < 20000; i++) {
        sf_pins *mine = sf__pins_of_thread();
        sf_pin *pin = sf__pins_for_value(mine);
        sf_buf *b;
        uint64_t no;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        no = x % 8 ? x % 32 : x % TABLE_BLOCKS;
        b = sf__block_table_find(f->t, (uint32_t)no, mine, pin);
        if (!b) {
            put_placed(f->w, f->t, no);
            continue;
        }
        f->found++;
        f->wrong += b->data[0] != (no & 0xff) || b->data[BLOCK - 1] != (no & 0xff);
        if (i % 7 == 0) {
            sf__owner_release(kept);
            kept = sf__owner_of_pin(pin);
        } else {
            sf__owner_release(sf__owner_of_pin(pin));
        }
    }
    sf__owner_release(kept);
    return NULL;
}

/* What a table keeps is let go while others look for it under the lock of a shard, which the table does not take. */
struct looker {
    struct world *w;
    sf_block_table *t;
    atomic_bool *stop;
    unsigned wrong;
};

static void *look_for_kept(void *arg)
{
    struct looker *l = arg;

    while (!atomic_load(l->stop))
        for (uint64_t no = 0; no < KEPT_BLOCKS; no++) {
            sf_cache_key key = placed(l->t, no);
            sf_buf *b = no % 2 ? sf__block_cache_get(l->w->cache, &key) : sf__block_cache_peek(l->w->cache, &key);

            l->wrong += b && (b->data[0] != no || b->data[BLOCK - 1] != no);
            sf__buf_release(b);
        }
    return NULL;
}

static void what_is_kept_goes_while_others_look(void **state)
{
    struct world w;
    struct looker lookers[2];
    pthread_t threads[2];
    atomic_bool stop;
    sf_block_table *t;

    begin(&w, 400 * KIB);
    t = sf__block_table_new(w.cache, KEPT_BLOCKS, true);
    assert_non_null(t);
    atomic_init(&stop, false);
    for (unsigned i = 0; i < 2; i++) {
        lookers[i] = (struct looker){&w, t, &stop, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, look_for_kept, &lookers[i]), 0);
    }
    for (unsigned round = 0; round < 2000; round++) {
        for (uint64_t no = 0; no < KEPT_BLOCKS; no++) {
            sf_cache_key key = placed(t, no);
            sf_buf *b = buf_of(&w, no, BLOCK);

            assert_true(sf__block_cache_keep(w.cache, &key, b));
            sf__buf_release(b);
        }
        sf__block_table_let_go(t);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(lookers[i].wrong, 0);
    }
    sf__block_table_close(t);
    end(&w);
}

static void many_threads_find_right_blocks_in_tables(void **state)
{
    struct world w;
    struct finder finders[4];
    pthread_t threads[4];
    sf_block_table *tables[2];

    begin(&w, 400 * KIB);
    for (unsigned i = 0; i < 2; i++) {
        tables[i] = sf__block_table_new(w.cache, TABLE_BLOCKS, false);
        assert_non_null(tables[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        finders[i] = (struct finder){&w, tables[i % 2], 88172645463325252u + i, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, find, &finders[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(finders[i].wrong, 0);
        assert_true(finders[i].found > 0);
    }
    for (unsigned i = 0; i < 2; i++)
        sf__block_table_close(tables[i]);
    end(&w);
}

#define FANS 3u

struct fans {
    sf_block_table *t;
    atomic_uint begun;
    atomic_bool over;
};

/* As very many threads do that find all of them all the time. */
static void *find_all_the_time(void *arg)
{
    struct fans *f = arg;

    atomic_fetch_add(&f->begun, 1);
    while (!atomic_load(&f->over))
        for (uint32_t i = 0; i < f->t->count; i++)
            atomic_store_explicit(&f->t->used[i], SF_BLOCK_MAX_CREDIT, memory_order_relaxed);
    return NULL;
}

static void room_is_made_however_often_all_blocks_are_found(void **state)
{
    struct world w;
    struct fans fans = {.begun = 0};
    pthread_t threads[FANS];
    sf_block_cache_stats stats;

    begin(&w, 6 * KIB);
    fans.t = sf__block_table_new(w.cache, 8, false);
    assert_non_null(fans.t);
    for (unsigned i = 0; i < FANS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, find_all_the_time, &fans), 0);
    while (atomic_load(&fans.begun) < FANS)
        sched_yield();
    for (uint64_t i = 0; i < 2000; i++)
        put_placed(&w, fans.t, i % 8);
    atomic_store(&fans.over, true);
    for (unsigned i = 0; i < FANS; i++)
        pthread_join(threads[i], NULL);
    sf__block_cache_get_stats(w.cache, &stats);
    assert_true(stats.bytes <= w.max_bytes && stats.evictions > 0);
    sf__block_table_close(fans.t);
    end(&w);
}

struct worker {
    struct world *w;
    uint64_t seed;
    unsigned hits, wrong;
};

static void *work(void *arg)
{
    struct worker *t = arg;
    uint64_t x = t->seed;

    for (unsigned i = 0; i < 20000; i++) {
        sf_cache_key key;
        sf_buf *b;
        uint64_t no;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        no = x % 8 ? x % 64 : x % 4096;
        key = key_of(no);
        b = sf__block_cache_get(t->w->cache, &key);
        if (b) {
            t->hits++;
            t->wrong += b->n != BLOCK || b->data[BLOCK / 2] != (no & 0xff);
            sf__buf_release(b);
        } else {
            b = sf__buf_new(&t->w->heap.alloc, BLOCK);
            memset(b->data, (int)(no & 0xff), BLOCK);
            sf__block_cache_put(t->w->cache, &key, b);
            sf__buf_release(b);
        }
        if (i % 500 == 0)
            sf__block_cache_charge(t->w->cache, i % 1000 ? -20000 : 20000);
    }
    return NULL;
}

static void many_threads_read_right_blocks(void **state)
{
    struct world w;
    struct worker workers[4];
    pthread_t threads[4];

    begin(&w, 32 * 1024 * KIB / 8); /* several shards would need more; one is the harder case */
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){&w, 88172645463325252u + i, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].wrong, 0);
        assert_true(workers[i].hits > 0);
    }
    end(&w);
}

#define SLAB_MAX (64 * 1024 * KIB)

/* Bytes of the slab's regions. */
static uint64_t slab_bytes(const sf_block_cache *c)
{
    sf_slab_stats stats;

    sf__slab_get_stats(sf__block_cache_slab(c)->ctx, &stats);
    return stats.regions * SF_SLAB_REGION_BYTES;
}

/* As a block that is read: from the slab if that will. */
static void put_from_slab(sf_block_cache *c, uint64_t no, size_t n)
{
    sf_cache_key key = key_of(no);
    sf_buf *b = sf__buf_new(sf__block_cache_slab(c), n);

    b = b ? b : sf__buf_new(&sf__allocator_default, n);
    assert_non_null(b);
    memset(b->data, (int)(no & 0xff), n);
    sf__block_cache_put(c, &key, b);
    sf__buf_release(b);
}

static void a_slab_stays_within_the_bound(void **state)
{
    static const struct {
        size_t shortest, spread;
    } cases[] = {{4200, 400}, {500, 16000}, {30000, 60000}}; /* some of the last are not for it */

    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        sf_block_cache_stats stats;
        sf_block_cache *c;
        uint64_t random = 88172645463325252u, count = 2 * SLAB_MAX / cases[k].shortest;

        count = count < 60000 ? count : 60000;
        assert_int_equal(sf__block_cache_new(&c, SLAB_MAX, &sf__allocator_default, NULL), SF_OK);
        assert_non_null(sf__block_cache_slab(c));
        for (uint64_t i = 0; i < count; i++) {
            sf_buf *b;
            sf_cache_key key;

            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            put_from_slab(c, i, cases[k].shortest + random % cases[k].spread);
            key = key_of(random % (i + 1));
            b = sf__block_cache_get(c, &key);
            assert_true(!b || b->data[b->n - 1] == (random % (i + 1) & 0xff));
            sf__buf_release(b);
            if (i % 256 == 0) {
                sf__block_cache_get_stats(c, &stats);
                assert_true(stats.bytes + sf__slab_free_bytes(sf__block_cache_slab(c)->ctx) <= SLAB_MAX);
            }
        }
        assert_true(slab_bytes(c) > SLAB_MAX / 4);
        sf__block_cache_charge(c, SLAB_MAX * 3 / 4); /* others want it: regions have to go */
        assert_true(slab_bytes(c) <= SLAB_MAX / 4);
        sf__block_cache_get_stats(c, &stats);
        assert_true(stats.bytes + sf__slab_free_bytes(sf__block_cache_slab(c)->ctx) <= SLAB_MAX);
        assert_true(stats.entries > 0);
        sf__block_cache_release(c);
    }
}

static void who_has_no_slab(void **state)
{
    struct world w;
    sf_block_cache *c;

    begin(&w, SLAB_MAX); /* a caller's allocator */
    assert_null(sf__block_cache_slab(w.cache));
    end(&w);
    assert_int_equal(sf__block_cache_new(&c, SLAB_MAX - 1, &sf__allocator_default, NULL), SF_OK);
    assert_null(sf__block_cache_slab(c));
    sf__block_cache_release(c);
}

/* What is in use stays in its region, which the cache gives up and nobody waits for. */
static void what_is_held_keeps_its_region(void **state)
{
    sf_block_cache *c;
    sf_buf *held[64];
    size_t count = 0;

    assert_int_equal(sf__block_cache_new(&c, SLAB_MAX, &sf__allocator_default, NULL), SF_OK);
    for (uint64_t i = 0; i < 12000; i++) {
        put_from_slab(c, i, 4200);
        if (i > 4000 && i % 128 == 0 && count < 64) {
            sf_cache_key key = key_of(i);

            held[count] = sf__block_cache_get(c, &key);
            count += held[count] != NULL;
        }
    }
    assert_true(count > 32);
    sf__block_cache_charge(c, SLAB_MAX - 1);
    sf__block_cache_charge(c, -(int64_t)SLAB_MAX + 1);
    for (uint64_t i = 0; i < 12000; i++)
        put_from_slab(c, i, 4200);
    sf__block_cache_release(c);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 1; k < held[i]->n; k++)
            assert_int_equal(held[i]->data[k], held[i]->data[0]);
        sf__buf_release(held[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slab_stays_within_the_bound),
        cmocka_unit_test(who_has_no_slab),
        cmocka_unit_test(what_is_held_keeps_its_region),
        cmocka_unit_test(what_is_put_is_there),
        cmocka_unit_test(the_same_buffer_comes_back),
        cmocka_unit_test(a_peek_does_not_count),
        cmocka_unit_test(bytes_stay_within_the_bound),
        cmocka_unit_test(what_does_not_fit_is_not_kept),
        cmocka_unit_test(held_blocks_outlive_their_eviction),
        cmocka_unit_test(a_scan_does_not_wash_out_what_is_hot),
        cmocka_unit_test(what_returns_stays),
        cmocka_unit_test(a_second_put_replaces),
        cmocka_unit_test(charges_narrow_the_bound),
        cmocka_unit_test(no_memory_is_no_harm),
        cmocka_unit_test(a_table_shows_what_the_cache_has),
        cmocka_unit_test(what_is_found_in_a_table_stays),
        cmocka_unit_test(what_is_kept_leaves_with_the_table),
        cmocka_unit_test(a_child_finds_what_its_parent_kept),
        cmocka_unit_test(forks_beside_tables_that_come_and_go),
        cmocka_unit_test(tables_take_a_share_and_no_more),
        cmocka_unit_test(what_is_kept_goes_while_others_look),
        cmocka_unit_test(many_threads_find_right_blocks_in_tables),
        cmocka_unit_test(room_is_made_however_often_all_blocks_are_found),
        cmocka_unit_test(many_threads_read_right_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
