/* Many at once: ten thousand cold reads end, all of them, with the right answers, and never hold more bytes or requests
 * than they may. */
#include "../unit/net/on_loop.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cache/fetch.h"
#include "shardyfusion/reader.h"
#include "store/store.h"

#define STORM 10000u

/* ------------------------------------------------------------------ ranges --------------------------------------- */

#define OBJECT_BYTES (1u << 20)
#define MAX_REQUESTS 16u
#define MAX_BYTES (256u << 10)

struct ranges {
    sf_loop *loop;
    sf_store *store;
    sf_fetcher *fetcher;
    uint8_t *bytes;
    uint64_t max_bytes;
    sf_fetch *fetches;
    sf_store_op put;
    struct gate gate;
    sf_fetch_stats most; /* loop thread */
    unsigned wrong;      /* loop thread */
    unsigned over;       /* loop thread: how often a bound was broken */
};

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)(off * UINT64_C(2654435761) >> 11);
}

static void look(struct ranges *r)
{
    sf_fetch_stats s;

    sf__fetcher_get_stats(r->fetcher, &s);
    r->over += s.requests_in_flight > MAX_REQUESTS || s.bytes_in_flight > r->max_bytes;
    if (s.bytes_in_flight > r->most.bytes_in_flight)
        r->most.bytes_in_flight = s.bytes_in_flight;
    if (s.waiting > r->most.waiting)
        r->most.waiting = s.waiting;
}

static void range_done(sf_fetch *f)
{
    struct ranges *r = f->ctx;

    look(r);
    if (f->error->code != SF_OK || f->data->n != f->len)
        r->wrong++;
    else
        for (size_t i = 0; i < f->data->n; i++)
            if (f->data->data[i] != byte_at(f->off + i)) {
                r->wrong++;
                break;
            }
    sf__buf_release(f->data);
    gate_arrive(&r->gate);
}

static void put_done(sf_store_op *op)
{
    gate_arrive(&((struct ranges *)op->ctx)->gate);
}

static void ranges_put(void *arg)
{
    struct ranges *r = arg;

    r->put = (sf_store_op){.verb = SF_STORE_PUT,
                           .key = "object",
                           .body = {r->bytes, OBJECT_BYTES},
                           .deadline_ns = SF_NO_DEADLINE,
                           .done = put_done,
                           .ctx = r};
    sf__store_submit(r->store, &r->put);
}

static void ranges_start(void *arg)
{
    struct ranges *r = arg;

    for (unsigned i = 0; i < STORM; i++) {
        uint64_t len = 1 + (uint64_t)i * 7919 % 16384, off = (uint64_t)i * 104729 % (OBJECT_BYTES - len);

        r->fetches[i] = (sf_fetch){.store = r->store,
                                   .key = "object",
                                   .off = off,
                                   .len = len,
                                   .deadline_ns = SF_NO_DEADLINE,
                                   .done = range_done,
                                   .ctx = r};
        sf__fetch_start(r->fetcher, &r->fetches[i]);
        look(r);
    }
}

static void ranges_free(void *arg)
{
    struct ranges *r = arg;

    sf__fetcher_free(r->fetcher);
    sf__store_release(r->store);
}

static void ten_thousand_ranges(void **state)
{
    struct ranges r = {.gate = GATE_INIT, .max_bytes = MAX_BYTES};
    sf_fetch_stats after;

    r.bytes = malloc(OBJECT_BYTES);
    r.fetches = calloc(STORM, sizeof(*r.fetches));
    for (uint64_t i = 0; i < OBJECT_BYTES; i++)
        r.bytes[i] = byte_at(i);
    assert_int_equal(sf__loop_new(&r.loop, &sf__allocator_default, NULL), SF_OK);
    assert_int_equal(sf__store_memory_open(&r.store, "storm", r.loop, &sf__allocator_default, NULL), SF_OK);
    assert_int_equal(sf__fetcher_new(&r.fetcher, r.loop, &sf__allocator_default, MAX_REQUESTS, MAX_BYTES, NULL), SF_OK);
    on_loop(r.loop, ranges_put, &r);
    gate_wait(&r.gate, 1);
    on_loop(r.loop, ranges_start, &r);
    gate_wait(&r.gate, 1 + STORM);
    sf__fetcher_get_stats(r.fetcher, &after);
    assert_int_equal(after.requests_in_flight, 0);
    assert_int_equal(after.bytes_in_flight, 0);
    assert_int_equal(after.waiting, 0);
    on_loop(r.loop, ranges_free, &r);
    sf__loop_free(r.loop);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(r.over, 0);
    assert_true(r.most.waiting > STORM / 2);             /* it was a storm */
    assert_true(r.most.bytes_in_flight > MAX_BYTES / 2); /* and the budget was used */
    free(r.fetches);
    free(r.bytes);
}

/* ------------------------------------------------------------------ whole objects -------------------------------- */

#define MANIFESTS 64u
#define MANIFEST_BYTES (1u << 20)
#define MANIFEST_BOUND (UINT64_C(64) << 20)
#define MANIFEST_BUDGET (4u << 20)
#define ROUNDS 4u
/* Beyond what is in flight: the one that is being handed over, and the flights and operations themselves. */
#define SLACK_BYTES (MANIFEST_BYTES + (1u << 20))

/* How much memory there is at once. The loop thread's, and while that is idle the test's. */
struct measured {
    sf_allocator alloc;
    size_t now, most;
};

static void *measured_realloc(void *ctx, void *p, size_t n)
{
    struct measured *m = ctx;
    size_t before = p ? malloc_usable_size(p) : 0;
    void *q = realloc(p, n);

    if (q) {
        m->now += malloc_usable_size(q) - before;
        if (m->now > m->most)
            m->most = m->now;
    }
    return q;
}

static void measured_free(void *ctx, void *p)
{
    ((struct measured *)ctx)->now -= p ? malloc_usable_size(p) : 0;
    free(p);
}

struct manifests {
    struct ranges r; /* first */
    struct measured heap;
    char keys[MANIFESTS][16];
    sf_store_op puts[MANIFESTS];
    sf_fetch fetches[ROUNDS * MANIFESTS];
};

static void manifest_done(sf_fetch *f)
{
    struct ranges *r = f->ctx;

    look(r);
    if (f->error->code != SF_OK || f->data->n != MANIFEST_BYTES || memcmp(f->data->data, r->bytes, MANIFEST_BYTES) != 0)
        r->wrong++;
    sf__buf_release(f->data);
    gate_arrive(&r->gate);
}

static void manifests_put(void *arg)
{
    struct manifests *m = arg;

    for (unsigned i = 0; i < MANIFESTS; i++) {
        snprintf(m->keys[i], sizeof(m->keys[i]), "manifest/%u", i);
        m->puts[i] = (sf_store_op){.verb = SF_STORE_PUT,
                                   .key = m->keys[i],
                                   .body = {m->r.bytes, MANIFEST_BYTES},
                                   .deadline_ns = SF_NO_DEADLINE,
                                   .done = put_done,
                                   .ctx = &m->r};
        sf__store_submit(m->r.store, &m->puts[i]);
    }
}

static void manifests_read(void *arg)
{
    struct manifests *m = arg;

    m->heap.most = m->heap.now;
    for (unsigned i = 0; i < ROUNDS * MANIFESTS; i++) {
        m->fetches[i] = (sf_fetch){.store = m->r.store,
                                   .key = m->keys[i % MANIFESTS],
                                   .len = SF_STORE_ALL,
                                   .max_bytes = MANIFEST_BOUND + i / MANIFESTS, /* so that none shares a request */
                                   .deadline_ns = SF_NO_DEADLINE,
                                   .done = manifest_done,
                                   .ctx = &m->r};
        sf__fetch_start(m->r.fetcher, &m->fetches[i]);
        m->r.over += m->heap.now > MANIFEST_BUDGET + SLACK_BYTES;
    }
}

/* Many readers refresh at once, and their manifests are large: what is in memory of them stays within the budget, not
 * only what is reserved. */
static void large_manifests_stay_within_the_budget(void **state)
{
    struct manifests *m = calloc(1, sizeof(*m));
    struct ranges *r = &m->r;
    sf_fetch_stats after;

    *r = (struct ranges){.gate = GATE_INIT, .max_bytes = MANIFEST_BUDGET};
    r->bytes = malloc(MANIFEST_BYTES);
    for (uint64_t i = 0; i < MANIFEST_BYTES; i++)
        r->bytes[i] = byte_at(i);
    m->heap.alloc = (sf_allocator){sizeof(sf_allocator), measured_realloc, measured_free, &m->heap};
    assert_int_equal(sf__loop_new(&r->loop, &sf__allocator_default, NULL), SF_OK);
    assert_int_equal(sf__store_memory_open(&r->store, "manifests", r->loop, &m->heap.alloc, NULL), SF_OK);
    assert_int_equal(sf__fetcher_new(&r->fetcher, r->loop, &m->heap.alloc, MAX_REQUESTS, MANIFEST_BUDGET, NULL), SF_OK);
    on_loop(r->loop, manifests_put, m);
    gate_wait(&r->gate, MANIFESTS);
    on_loop(r->loop, manifests_read, m);
    gate_wait(&r->gate, (1 + ROUNDS) * MANIFESTS);
    sf__fetcher_get_stats(r->fetcher, &after);
    assert_int_equal(after.requests_in_flight, 0);
    assert_int_equal(after.bytes_in_flight, 0);
    assert_int_equal(after.shared, 0);
    assert_int_equal(after.requests, 2 * ROUNDS * MANIFESTS); /* each once more than a small one */
    on_loop(r->loop, ranges_free, r);
    sf__loop_free(r->loop);
    assert_int_equal(r->wrong, 0);
    assert_int_equal(r->over, 0);
    assert_int_equal(m->heap.now, 0);
    assert_true(m->heap.most > MANIFEST_BUDGET / 2);
    if (m->heap.most > MANIFEST_BUDGET + SLACK_BYTES)
        fail_msg("%zu bytes at once, %u may be in flight", m->heap.most, MANIFEST_BUDGET);
    free(r->bytes);
    free(m);
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

#define SNAPSHOT "file://" SF_FIXTURES_DIR "/snapshots/slatedb-hash-u64be/bucket/golden/slatedb-hash-u64be"
#define KEYS 500u
#define BUDGET_REQUESTS 8u
#define BUDGET_BYTES (64u << 10)

struct lookups {
    sf_reader *reader;
    sf_value wanted[KEYS];
    struct gate gate;
    unsigned wrong; /* loop thread */
};

struct lookup {
    struct lookups *all;
    sf_call *call;
    unsigned key;
};

static void lookup_done(void *ctx, sf_call *call)
{
    struct lookup *l = ctx;
    const sf_value *wanted = &l->all->wanted[l->key];
    size_t count = 0;
    sf_value *got = sf_call_values(call, &count);
    bool right = sf_call_error(call)->code == SF_OK && count == 1 && got->found == wanted->found &&
                 got->bytes.n == wanted->bytes.n &&
                 (got->bytes.n == 0 || memcmp(got->bytes.p, wanted->bytes.p, got->bytes.n) == 0);

    l->all->wrong += !right;
    gate_arrive(&l->all->gate);
}

/* Samples from another thread while the storm lasts: the bounds hold at any instant. */
struct sampler {
    sf_runtime *rt;
    atomic_bool stop;
    atomic_uint over;
};

static void *sampler_run(void *arg)
{
    struct sampler *s = arg;

    while (!atomic_load(&s->stop)) {
        sf_runtime_stats stats;

        sf_runtime_get_stats(s->rt, &stats);
        if (stats.requests_in_flight > BUDGET_REQUESTS || stats.bytes_in_flight > BUDGET_BYTES)
            atomic_fetch_add(&s->over, 1);
        sched_yield();
    }
    return NULL;
}

static void ten_thousand_lookups(void **state)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    struct lookups all = {.gate = GATE_INIT};
    struct lookup *list = calloc(STORM, sizeof(*list));
    struct sampler sampler = {0};
    sf_runtime_stats stats;
    pthread_t thread;
    sf_error e = SF_ERROR_INIT;
    unsigned found = 0;
    uint64_t before;

    o.cache_bytes = 0; /* every look-up is a cold one */
    o.inflight_requests = BUDGET_REQUESTS;
    o.inflight_bytes = BUDGET_BYTES;
    assert_int_equal(sf_runtime_new(&sampler.rt, &o, &e), SF_OK);
    if (sf_reader_open(&all.reader, sampler.rt, SNAPSHOT, NULL, &e) != SF_OK)
        fail_msg("%s", e.message);
    for (unsigned k = 0; k < KEYS; k++) {
        sf_key key = sf_key_int(k);

        if (sf_reader_get(all.reader, &key, 20000, &all.wanted[k], &e) != SF_OK)
            fail_msg("%u: %s", k, e.message);
        found += all.wanted[k].found;
    }
    assert_true(found > 100);
    sf_runtime_get_stats(sampler.rt, &stats);
    before = stats.requests;
    assert_int_equal(pthread_create(&thread, NULL, sampler_run, &sampler), 0);
    for (unsigned i = 0; i < STORM; i++) {
        sf_key key = sf_key_int(i % KEYS);

        list[i] = (struct lookup){.all = &all, .key = i % KEYS};
        if (sf_reader_get_start(&list[i].call, all.reader, &key, SF_TIMEOUT_NONE, lookup_done, &list[i], &e) != SF_OK)
            fail_msg("%u: %s", i, e.message);
    }
    gate_wait(&all.gate, STORM);
    atomic_store(&sampler.stop, true);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < STORM; i++)
        sf_call_release(list[i].call);
    sf_runtime_get_stats(sampler.rt, &stats);
    assert_true(stats.requests > before);
    assert_int_equal(stats.requests_in_flight, 0);
    assert_int_equal(stats.bytes_in_flight, 0);
    assert_int_equal(all.wrong, 0);
    assert_int_equal(sampler.over, 0);
    for (unsigned k = 0; k < KEYS; k++)
        sf_value_release(&all.wanted[k]);
    sf_reader_free(all.reader);
    sf_runtime_release(sampler.rt);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_ranges),
        cmocka_unit_test(large_manifests_stay_within_the_budget),
        cmocka_unit_test(ten_thousand_lookups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
