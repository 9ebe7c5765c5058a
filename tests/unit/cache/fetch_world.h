/* Reads over a store that answers when the test says so. Everything runs on the loop thread; the test looks at the outcome from its own. */
#ifndef TESTS_FETCH_WORLD_H
#define TESTS_FETCH_WORLD_H

#include "../net/on_loop.h"

#include <string.h>

#include "base/error.h"
#include "cache/fetch.h"
#include "store/hedge.h"
#include "../../support/heap.h"

#define MAX_OPS 64
#define FETCHES 32

struct script_store {
    sf_store base;             /* first */
    sf_store_op *ops[MAX_OPS]; /* in the order they were submitted; NULL: answered */
    struct gate submitted;     /* counts them, on the loop thread: a worker's decoder may be what a request waits for */
    unsigned cancelled;
};

struct reading {
    sf_fetch fetch;
    sf_error error; /* of the fetch, which has it only while it ends */
    struct world *w;
    struct gate gate;
    unsigned ended_as; /* the how manieth to end, from 1 */
    bool nested;       /* it ended inside the starting call */
    void (*then)(struct reading *r);
};

struct world {
    struct test_heap heap;
    sf_loop *loop;
    sf_fetcher *fetcher;
    struct script_store store;
    struct reading readings[FETCHES];
    unsigned ended;
    bool starting;
    uint64_t observed_requests, observed_bytes;
    /* of the step being run on the loop */
    unsigned which;
    sf_fetch spec;
    sf_status answer;
    uint64_t longer;
    bool store_gone;
};

/* ------------------------------------------------------------------ the store ------------------------------------ */

static inline void script_submit(sf_store *store, sf_store_op *op)
{
    struct script_store *s = (struct script_store *)store;

    s->ops[gate_count(&s->submitted)] = op;
    gate_arrive(&s->submitted);
}

static inline void script_cancel(sf_store *store, sf_store_op *op)
{
    struct script_store *s = (struct script_store *)store;

    for (unsigned i = 0; i < MAX_OPS; i++)
        if (s->ops[i] == op)
            s->ops[i] = NULL;
    s->cancelled++;
    sf__store_op_fail_later(op, SF_CANCELLED, "cancelled");
}

static inline void script_free(sf_store *store)
{
    ((struct world *)((char *)store - offsetof(struct world, store)))->store_gone = true;
}

static inline void script_progress(const sf_store *store, const sf_store_op *op, sf_store_progress *out)
{
    *out = (sf_store_progress){.attempts = op->once ? 1 : 2, .waits_for = "the test"};
}

static const sf_store_vtable script_vtable = {
    .submit = script_submit,
    .cancel = script_cancel,
    .free = script_free,
    .progress = script_progress,
};

static inline void observe(void *ctx, const sf_store *store, uint64_t requests, uint64_t bytes)
{
    struct world *w = ctx;

    w->observed_requests += requests;
    w->observed_bytes += bytes;
}

static inline void begin(struct world *w, uint32_t max_requests, uint64_t max_bytes)
{
    *w = (struct world){.store.submitted = GATE_INIT};
    heap_init(&w->heap);
    assert_int_equal(sf__loop_new(&w->loop, &w->heap.alloc, NULL), SF_OK);
    assert_int_equal(sf__fetcher_new(&w->fetcher, w->loop, &w->heap.alloc, max_requests, max_bytes, NULL), SF_OK);
    sf__fetcher_observe(w->fetcher, observe, w);
    assert_true(sf__store_init(&w->store.base, &script_vtable, "test://store", w->loop, &w->heap.alloc));
}

static inline void end(struct world *w)
{
    sf_fetch_stats stats;

    sf__fetcher_get_stats(w->fetcher, &stats);
    assert_int_equal(stats.requests_in_flight, 0);
    assert_int_equal(stats.bytes_in_flight, 0);
    assert_int_equal(stats.waiting, 0);
    sf__store_release(&w->store.base);
    sf__loop_free(w->loop); /* runs what is still in the inbox */
    assert_true(w->store_gone);
    sf__hedge_release(w->store.base.hedge);
    sf__store_fini(&w->store.base);
    sf__fetcher_free(w->fetcher);
    assert_int_equal(atomic_load(&w->heap.live), 0);
}

static inline void nothing(void *arg) {}

/* Everything that was posted before has run. */
static inline void drain(struct world *w)
{
    on_loop(w->loop, nothing, NULL);
    on_loop(w->loop, nothing, NULL); /* and what that posted */
}

static inline unsigned submitted(struct world *w)
{
    return gate_count(&w->store.submitted);
}

/* ------------------------------------------------------------------ steps ---------------------------------------- */

static inline void reading_done(sf_fetch *f)
{
    struct reading *r = f->ctx;

    r->error = *f->error;
    r->nested = r->w->starting;
    r->ended_as = ++r->w->ended;
    if (r->then)
        r->then(r);
    gate_arrive(&r->gate);
}

static inline void start_one(struct world *w, unsigned i, const sf_fetch *spec)
{
    struct reading *r = &w->readings[i];

    r->w = w;
    r->fetch = *spec;
    r->fetch.store = &w->store.base;
    r->fetch.done = reading_done;
    r->fetch.ctx = r;
    if (!r->fetch.deadline_ns)
        r->fetch.deadline_ns = SF_NO_DEADLINE;
    w->starting = true;
    sf__fetch_start(w->fetcher, &r->fetch);
    w->starting = false;
}

static inline void start_on_loop(void *arg)
{
    struct world *w = arg;

    start_one(w, w->which, &w->spec);
}

static inline void start(struct world *w, unsigned i, const char *key, uint64_t off, uint64_t len)
{
    w->which = i;
    w->spec = (sf_fetch){.key = key, .off = off, .len = len};
    w->readings[i].gate = (struct gate)GATE_INIT;
    on_loop(w->loop, start_on_loop, w);
}

static inline void start_until(struct world *w, unsigned i, const char *key, uint64_t len, uint64_t deadline_ns)
{
    w->which = i;
    w->spec = (sf_fetch){.key = key, .len = len, .deadline_ns = deadline_ns};
    w->readings[i].gate = (struct gate)GATE_INIT;
    on_loop(w->loop, start_on_loop, w);
}

static inline void answer_on_loop(void *arg)
{
    struct world *w = arg;
    sf_store_op *op = w->store.ops[w->which];
    sf_error e = SF_ERROR_INIT;

    w->store.ops[w->which] = NULL;
    if (w->answer == SF_OK) {
        op->data = sf__buf_new(&sf__allocator_default, op->len == SF_STORE_ALL ? 5 : op->len);
        memset(op->data->data, 'a' + (int)w->which, op->data->n);
        op->object_size = 1000;
    } else {
        op->longer = w->longer;
        sf_fail(&e, w->answer, "the store says no");
        e.attempts = 1 + w->which;
    }
    sf__store_op_finish(op, &e);
}

static inline void answer(struct world *w, unsigned op, sf_status rc)
{
    if (op >= submitted(w) || !w->store.ops[op])
        fail_msg("request %u is not under way", op);
    w->which = op;
    w->answer = rc;
    on_loop(w->loop, answer_on_loop, w);
}

/* The object has more than was asked for. */
static inline void answer_longer(struct world *w, unsigned op, uint64_t bytes)
{
    w->longer = bytes;
    answer(w, op, SF_CORRUPT);
    w->longer = 0;
}

static inline void start_whole(struct world *w, unsigned i, const char *key, uint64_t max_bytes, uint64_t deadline_ns)
{
    w->which = i;
    w->spec = (sf_fetch){.key = key, .len = SF_STORE_ALL, .max_bytes = max_bytes, .deadline_ns = deadline_ns};
    w->readings[i].gate = (struct gate)GATE_INIT;
    on_loop(w->loop, start_on_loop, w);
}

static inline void cancel_on_loop(void *arg)
{
    struct world *w = arg;

    sf__fetch_cancel(&w->readings[w->which].fetch);
}

static inline void cancel(struct world *w, unsigned i)
{
    w->which = i;
    on_loop(w->loop, cancel_on_loop, w);
}

static inline void assert_ended(struct world *w, unsigned i, sf_status rc)
{
    struct reading *r = &w->readings[i];

    gate_wait(&r->gate, 1);
    drain(w);
    assert_int_equal(r->gate.count, 1); /* once */
    assert_false(r->nested);
    assert_int_equal(r->error.code, rc);
    if (rc == SF_OK) {
        assert_non_null(r->fetch.data);
        assert_int_equal(r->fetch.object_size, 1000);
    } else {
        assert_null(r->fetch.data);
        assert_true(r->error.object[0] != '\0');
    }
    sf__buf_release(r->fetch.data);
    r->fetch.data = NULL;
}

static inline void assert_waits(const struct world *w, unsigned i)
{
    assert_int_equal(w->readings[i].ended_as, 0);
}

#endif
