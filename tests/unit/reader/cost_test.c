/* What a cold look-up costs, counted: probes of the cache, requests, allocations, bytes while it is pending. Nothing here looks
 * at the clock.
 *     reader_cost_test [PENDING]     prints the figures of docs/benchmarks.md, with 16000 */
#include "world.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/slatedb/shard.h"
#include "base/clock.h"
#include "base/error.h"
#include "fault_store.h"
#include "reader/load.h"
#include "reader/reader.h"
#include "shardyfusion/writer.h"

#define FOLDER "mem://cost-test/snapshot"
#define VALUE_BYTES 4100 /* a block each */
#define SHARDS 2
#define MIN_ROWS 80 /* fewer, and a shard is read whole when it is opened */
#define PATIENCE_MS 60000

#define MAX_ALLOCATIONS 6 /* of a cold get, and the block that its value lies in, which gets a directory */
#define MAX_PENDING_BYTES 1536

static unsigned pending_count = 400;

/* ------------------------------------------------------------------ the heap ------------------------------------- */

struct meter {
    sf_allocator alloc;
    atomic_long calls, bytes;
};

static void *meter_realloc(void *ctx, void *p, size_t n)
{
    struct meter *m = ctx;
    long before = p ? (long)malloc_usable_size(p) : 0;
    void *q = realloc(p, n);

    if (!q)
        return NULL;
    atomic_fetch_add(&m->calls, 1);
    atomic_fetch_add(&m->bytes, (long)malloc_usable_size(q) - before);
    return q;
}

static void meter_free(void *ctx, void *p)
{
    atomic_fetch_sub(&((struct meter *)ctx)->bytes, (long)malloc_usable_size(p));
    free(p);
}

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct cost {
    struct meter meter;
    sf_runtime *rt;
    sf_source *source;
    fault_store *store; /* of the shards; the source holds it */
    sf_reader *reader;
    sf_runtime_stats before;
};

static void publish(struct cost *c, uint32_t shards, unsigned rows)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    uint8_t value[VALUE_BYTES];
    sf_error e = SF_ERROR_INIT;
    sf_writer *w;

    o.num_dbs = shards;
    o.run_registry_prefix = NULL;
    if (sf_writer_open(&w, c->rt, FOLDER, &o, &e) != SF_OK)
        fail_msg("%s", e.message);
    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < rows; i++) {
        sf_key key = sf_key_int(i);

        memcpy(value, &i, sizeof(i));
        if (sf_writer_add(w, &key, sf_bytes_of(value, sizeof(value)), &e) != SF_OK)
            fail_msg("%s", e.message);
    }
    if (sf_writer_finish(w, &e) != SF_OK)
        fail_msg("%s", e.message);
    sf_writer_free(w);
}

static void wrap_shard_store(void *arg)
{
    struct cost *c = arg;
    sf_store *store;
    char *path;

    if (sf__site_store(&c->source->site, SF_SITE_SHARDS, FOLDER, &store, &path, NULL) != SF_OK)
        abort();
    sf__free(c->rt->alloc, path);
    for (size_t i = 0; i < c->source->site.store_count; i++) {
        struct site_store *s = &c->source->site.stores[i];

        if (s->part != SF_SITE_SHARDS)
            continue;
        c->store = fault_store_new(s->store);
        fault_store_reset(c->store);
        sf__store_release(s->store);
        s->store = &c->store->base;
    }
}

struct loading {
    struct cost *c;
    sf_load load;
    struct gate gate;
};

static void loaded(sf_load *l)
{
    gate_arrive(&((struct loading *)l->ctx)->gate);
}

static void load_on_loop(void *arg)
{
    struct loading *l = arg;

    l->load = (sf_load){.source = l->c->source, .deadline_ns = SF_NO_DEADLINE, .done = loaded, .ctx = l};
    if (!sf__load_start(&l->load))
        abort();
}

/* A reader of `rows` rows or more, none of whose blocks is in memory. */
static void cost_begin(struct cost *c, unsigned rows, uint32_t inflight_requests)
{
    struct loading l = {.c = c, .gate = GATE_INIT};
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;

    *c = (struct cost){.meter.alloc = {sizeof(sf_allocator), meter_realloc, meter_free, &c->meter}};
    o.allocator = &c->meter.alloc;
    o.inflight_requests = inflight_requests;
    assert_int_equal(sf_runtime_new(&c->rt, &o, NULL), SF_OK);
    publish(c, SHARDS, rows < MIN_ROWS ? MIN_ROWS : rows);
    assert_int_equal(sf__source_new(&c->source, c->rt, FOLDER, NULL, NULL), SF_OK);
    on_loop(c->rt->loop, wrap_shard_store, c);
    on_loop(c->rt->loop, load_on_loop, &l);
    gate_wait(&l.gate, 1);
    if (l.load.error.code != SF_OK)
        fail_msg("%s", l.load.error.message);
    assert_int_equal(
        sf__reader_new(&c->reader, c->rt, c->source, l.load.snapshot, l.load.fallback, sf__clock_mono_ns(), NULL), SF_OK);
    sf__reader_hand_out(c->reader);
    sf__load_cleanup(&l.load, c->source->alloc);
    sf_runtime_get_stats(c->rt, &c->before);
}

static void cost_end(struct cost *c)
{
    sf_reader_free(c->reader);
    sf__source_release(c->source);
    sf_runtime_release(c->rt);
}

/* So many look-ups found nothing, and so many requests went out, since the last time. */
static void assert_cost(struct cost *c, const char *what, uint64_t probes, uint64_t requests)
{
    sf_runtime_stats now;

    sf_runtime_get_stats(c->rt, &now);
    if (now.cache_misses - c->before.cache_misses != probes || now.requests - c->before.requests != requests)
        fail_msg("%s: %llu misses, %llu requests", what, (unsigned long long)(now.cache_misses - c->before.cache_misses),
                 (unsigned long long)(now.requests - c->before.requests));
    c->before = now;
}

static void assert_value(const sf_value *v, unsigned key)
{
    assert_true(v->found);
    assert_int_equal(v->bytes.n, VALUE_BYTES);
    assert_memory_equal(v->bytes.p, &key, sizeof(key));
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

enum { GET, GET_START, ASK, TRY_AND_START, ASK_SHARD, MULTI_GET_OF_ONE, WAYS };
static const char *const ways[] = {"get", "get_start", "ask", "snapshot_ask", "snapshot_ask_shard", "multi_get"};

/* What is asked for is asked for once, whichever way. */
static void get_one_way(struct cost *c, int way, unsigned i)
{
    sf_snapshot *s = sf_reader_borrow(c->reader, NULL);
    sf_key key = sf_key_int(i);
    sf_value v = {0};
    sf_call *call = NULL;
    sf_status rc;
    uint8_t scratch[8];
    sf_bytes stored;
    uint32_t db_id;

    assert_int_equal(sf_snapshot_route(s, &key, &db_id, NULL), SF_OK);
    assert_int_equal(sf_snapshot_encode_key(s, &key, scratch, &stored, NULL), SF_OK);
    switch (way) {
    case GET:
        rc = sf_reader_get(c->reader, &key, PATIENCE_MS, &v, NULL);
        break;
    case GET_START:
        rc = sf_reader_get_start(&call, c->reader, &key, PATIENCE_MS, NULL, NULL, NULL);
        break;
    case ASK:
        rc = sf_reader_ask(c->reader, &key, PATIENCE_MS, &v, &call, NULL);
        break;
    case TRY_AND_START:
        rc = sf_snapshot_ask(s, &key, PATIENCE_MS, &v, &call, NULL);
        break;
    case ASK_SHARD:
        rc = sf_snapshot_ask_shard(s, db_id, stored, PATIENCE_MS, &v, &call, NULL);
        break;
    default:
        rc = sf_reader_multi_get(c->reader, &key, 1, PATIENCE_MS, &v, NULL);
        break;
    }
    sf_snapshot_give_back(s);
    assert_int_equal(rc, way == ASK || way == TRY_AND_START || way == ASK_SHARD ? SF_WOULD_BLOCK : SF_OK);
    if (!call) {
        assert_value(&v, i);
        sf_value_release(&v);
        return;
    }
    sf_call_begin(call, NULL, NULL); /* of one that has begun: nothing */
    assert_int_equal(sf_call_wait(call, NULL), SF_OK);
    assert_value(sf_call_values(call, NULL), i);
    sf_call_release(call);
}

static void a_cold_get_is_one_probe(void **state)
{
    struct cost c;

    (void)state;
    cost_begin(&c, WAYS, 256);
    for (int way = 0; way < WAYS; way++) {
        get_one_way(&c, way, (unsigned)way);
        assert_cost(&c, ways[way], 1, 1);
    }
    cost_end(&c);
}

static void a_cold_batch_is_one_probe_a_key(void **state)
{
    enum { ROWS = 40, WARM = 10 };
    struct cost c;
    sf_key keys[ROWS];
    sf_value values[ROWS];
    sf_status statuses[ROWS];
    sf_runtime_stats now;
    sf_call *call = NULL;
    sf_snapshot *s;
    sf_value *got;
    size_t count;
    unsigned added[ROWS], n = 0;

    (void)state;
    cost_begin(&c, ROWS, 256);
    for (unsigned i = 0; i < ROWS; i++)
        keys[i] = sf_key_int(i);
    for (unsigned i = 0; i < WARM; i++)
        get_one_way(&c, GET, 2 * i);
    assert_cost(&c, "some of them", WARM, WARM);
    s = sf_reader_borrow(c.reader, NULL);
    for (unsigned i = 0; i < 4; i++) /* what memory has, then the rest; first one by one */
        statuses[i] = sf_snapshot_ask(s, &keys[i], PATIENCE_MS, &values[i], &call, NULL);
    assert_int_equal(sf_snapshot_ask_many(s, &keys[4], ROWS / 2 - 4, PATIENCE_MS, &values[4], &statuses[4], &call, NULL),
                     SF_WOULD_BLOCK);
    for (unsigned i = 0; i < ROWS / 2; i++) {
        assert_int_equal(statuses[i], i % 2 == 0 ? SF_OK : SF_WOULD_BLOCK);
        if (statuses[i] == SF_WOULD_BLOCK)
            added[n++] = i;
        else
            assert_value(&values[i], i);
        sf_value_release(&values[i]);
    }
    sf_snapshot_give_back(s); /* the call has its own */
    assert_cost(&c, "half of them", ROWS / 4, 0);
    sf_call_begin(call, NULL, NULL);
    assert_int_equal(sf_call_wait(call, NULL), SF_OK);
    got = sf_call_values(call, &count);
    assert_int_equal(count, n);
    for (unsigned i = 0; i < n; i++)
        assert_value(&got[i], added[i]);
    sf_call_release(call);
    sf_runtime_get_stats(c.rt, &c.before);
    assert_int_equal(sf_reader_multi_get(c.reader, keys, ROWS, PATIENCE_MS, values, NULL), SF_OK);
    for (unsigned i = 0; i < ROWS; i++) {
        assert_value(&values[i], i);
        sf_value_release(&values[i]);
    }
    sf_runtime_get_stats(c.rt, &now);
    assert_int_equal(now.cache_misses - c.before.cache_misses, ROWS / 2);
    assert_int_equal(now.cache_hits - c.before.cache_hits, ROWS / 2);
    cost_end(&c);
}

static void what_was_asked_may_be_dropped(void **state)
{
    struct cost c;
    sf_key key = sf_key_int(0);
    sf_call *call, *other = NULL;
    sf_snapshot *s;
    sf_value v;
    sf_error e;

    (void)state;
    cost_begin(&c, 2, 256);
    assert_int_equal(sf_reader_ask(c.reader, &key, PATIENCE_MS, &v, &call, NULL), SF_WOULD_BLOCK);
    assert_false(sf_call_is_done(call));
    sf_call_cancel(call); /* nothing to cancel */
    assert_int_equal(sf_call_wait(call, &e), SF_INVALID);
    assert_non_null(strstr(e.message, "begun"));
    sf_call_release(call);
    assert_cost(&c, "dropped", 1, 0);
    get_one_way(&c, GET, 0);
    assert_int_equal(sf_reader_ask(c.reader, &key, PATIENCE_MS, &v, &call, NULL), SF_OK);
    assert_null(call);
    sf_value_release(&v);
    /* only to a look-up of its own snapshot that has not begun */
    key = sf_key_int(1);
    s = sf_reader_borrow(c.reader, NULL);
    assert_int_equal(sf_snapshot_ask(s, &key, PATIENCE_MS, &v, &other, NULL), SF_WOULD_BLOCK);
    sf_call_begin(other, NULL, NULL);
    assert_int_equal(sf_snapshot_ask(s, &key, PATIENCE_MS, &v, &other, &e), SF_INVALID);
    assert_int_equal(sf_call_wait(other, NULL), SF_OK);
    sf_call_release(other);
    /* the snapshot stays for those that have not begun */
    sf_snapshot_give_back(s);
    cost_end(&c);
}

static void allocations_of_a_cold_get(void **state)
{
    enum { ROWS = 120, WARM_UP = 20 };
    struct cost c;
    long calls;

    (void)state;
    cost_begin(&c, ROWS, 256);
    for (unsigned i = 0; i < WARM_UP; i++)
        get_one_way(&c, GET, i);
    calls = atomic_load(&c.meter.calls);
    for (unsigned i = WARM_UP; i < ROWS; i++)
        get_one_way(&c, GET, i);
    calls = atomic_load(&c.meter.calls) - calls;
    printf("allocations of a cold get: %.2f, the block of its value among them\n", (double)calls / (ROWS - WARM_UP));
    assert_true(calls <= (MAX_ALLOCATIONS + 1) * (ROWS - WARM_UP));
    cost_end(&c);
}

static void hold(void *arg)
{
    struct cost *c = arg;

    c->store->kind = FAULT_HOLD;
    c->store->at = c->store->requests + 1;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* The first request gets no answer, and the others wait for their turn behind it. */
static void bytes_of_a_pending_get(void **state)
{
    struct cost c;
    sf_call **calls = calloc(pending_count, sizeof(sf_call *));
    sf_fetch_stats stats;
    long bytes;

    (void)state;
    assert_non_null(calls);
    cost_begin(&c, pending_count, 1);
    on_loop(c.rt->loop, hold, &c);
    bytes = atomic_load(&c.meter.bytes);
    for (unsigned i = 0; i < pending_count; i++) {
        sf_key key = sf_key_int(i);

        assert_int_equal(sf_reader_get_start(&calls[i], c.reader, &key, SF_TIMEOUT_NONE, NULL, NULL, NULL), SF_OK);
    }
    on_loop(c.rt->loop, nothing, NULL); /* all have started */
    bytes = atomic_load(&c.meter.bytes) - bytes;
    printf("bytes of a pending get: %ld, %u of them\n", bytes / (long)pending_count, pending_count);
    assert_true(bytes <= (long)pending_count * MAX_PENDING_BYTES);
    sf__fetcher_get_stats(c.rt->fetcher, &stats);
    printf("of these are set aside from the budget: %llu\n", (unsigned long long)stats.bytes_held / pending_count);
    assert_true((long)stats.bytes_held <= bytes && (long)stats.bytes_held * 4 >= bytes * 3);
    for (unsigned i = 0; i < pending_count; i++)
        assert_false(sf_call_is_done(calls[i]));
    for (unsigned i = pending_count; i-- > 0;) /* the one that is held goes last, or those behind it get their turn */
        sf_call_cancel(calls[i]);
    for (unsigned i = 0; i < pending_count; i++) {
        assert_int_equal(sf_call_wait(calls[i], NULL), SF_CANCELLED);
        sf_call_release(calls[i]);
    }
    on_loop(c.rt->loop, nothing, NULL);
    sf__fetcher_get_stats(c.rt->fetcher, &stats);
    assert_int_equal(stats.bytes_held, 0);
    free(calls);
    cost_end(&c);
}

/* ------------------------------------------------------------------ many shards ---------------------------------- */

#define MANY 128
#define MAX_BYTES_PER_LAZY_SHARD 700 /* most of it are the texts of its row in the manifest */
#define MAX_BYTES_PER_SHARD 1100     /* beside its index and filter */

static uint64_t metadata_bytes(const sf_snapshot *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->num_dbs; i++) {
        const sf_slatedb_shard *shard = (const sf_slatedb_shard *)(const void *)s->shards[i];

        assert_int_equal(shard->view.sst_count, 1);
        n += sf__index_bytes(&shard->view.ssts[0].index) + sf__filter_bytes(&shard->view.ssts[0].filter);
    }
    return n;
}

static void shards_take_little_memory(void **state)
{
    (void)state;
    for (int lazy = 0; lazy < 2; lazy++) {
        struct cost c = {.meter.alloc = {sizeof(sf_allocator), meter_realloc, meter_free, &c.meter}};
        sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
        sf_reader_options ro = SF_READER_OPTIONS_INIT;
        sf_snapshot *s;
        long before, bytes;

        o.allocator = &c.meter.alloc;
        ro.lazy_shards = lazy;
        assert_int_equal(sf_runtime_new(&c.rt, &o, NULL), SF_OK);
        publish(&c, MANY, MANY * MIN_ROWS / SHARDS);
        before = atomic_load(&c.meter.bytes);
        assert_int_equal(sf_reader_open(&c.reader, c.rt, FOLDER, &ro, NULL), SF_OK);
        bytes = atomic_load(&c.meter.bytes) - before;
        s = sf_reader_borrow(c.reader, NULL);
        bytes -= lazy ? 0 : (long)metadata_bytes(s);
        sf_snapshot_give_back(s);
        if (bytes / MANY > (lazy ? MAX_BYTES_PER_LAZY_SHARD : MAX_BYTES_PER_SHARD))
            fail_msg("%ld bytes a shard%s", bytes / MANY, lazy ? ", lazy" : "");
        printf("%ld bytes a shard%s\n", bytes / MANY, lazy ? ", lazy" : " beside index and filter");
        sf_reader_free(c.reader);
        sf_runtime_release(c.rt);
        assert_int_equal(atomic_load(&c.meter.bytes), 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cold_get_is_one_probe),       cmocka_unit_test(a_cold_batch_is_one_probe_a_key),
        cmocka_unit_test(what_was_asked_may_be_dropped), cmocka_unit_test(allocations_of_a_cold_get),
        cmocka_unit_test(bytes_of_a_pending_get),        cmocka_unit_test(shards_take_little_memory),
    };

    if (argc > 1)
        pending_count = (unsigned)strtoul(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
