/* Every fault of the store that fails on demand, and what a scheduled read makes of it: it ends once, with the right bytes
 * or none, and nothing stays in flight. */
#include "../unit/net/on_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cache/fetch.h"
#include "fault_store.h"

#define READS 4

struct world {
    sf_loop *loop;
    sf_store *memory;
    fault_store *faulty;
    sf_fetcher *fetcher;
    sf_store_op put;
    sf_fetch reads[READS];
    sf_error errors[READS];
    unsigned order[READS], ended; /* loop thread */
    size_t count;
    sf_bytes body;
    struct gate gate;
};

static void put_done(sf_store_op *op)
{
    gate_arrive(&((struct world *)op->ctx)->gate);
}

static void begin_on_loop(void *arg)
{
    struct world *w = arg;

    w->faulty = fault_store_new(w->memory);
    fault_store_reset(w->faulty);
    w->put = (sf_store_op){
        .verb = SF_STORE_PUT, .key = "k", .body = w->body, .deadline_ns = SF_NO_DEADLINE, .done = put_done, .ctx = w};
    sf__store_submit(w->memory, &w->put);
}

static void read_done(sf_fetch *f)
{
    struct world *w = f->ctx;

    w->errors[f - w->reads] = *f->error;
    w->order[w->ended++] = (unsigned)(f - w->reads);
    gate_arrive(&w->gate);
}

static void start_on_loop(void *arg)
{
    struct world *w = arg;

    for (size_t i = 0; i < w->count; i++)
        sf__fetch_start(w->fetcher, &w->reads[i]);
}

static void nothing(void *arg) {}

static void end_on_loop(void *arg)
{
    struct world *w = arg;

    for (size_t i = 0; i < w->count; i++)
        sf__buf_release(w->reads[i].data);
    sf__fetcher_free(w->fetcher);
    sf__store_release(&w->faulty->base);
    sf__store_release(w->memory);
}

static void end(struct world *w)
{
    on_loop(w->loop, end_on_loop, w);
    sf__loop_free(w->loop);
}

struct fault {
    fault_kind kind;
    unsigned long at, times;
    bool for_good;
    sf_status status;
};

/* Has read all of reads[0 .. count), whose store is set here. What hangs ends after `deadline_ms`, or after longer, where this
 * machine is too busy to come so far. */
static void read_under(struct world *w, const struct fault *fault, uint64_t max_bytes, int64_t deadline_ms)
{
    const struct world fresh = *w;

    for (;; deadline_ms *= 2) {
        *w = fresh;
        assert_int_equal(sf__loop_new(&w->loop, &sf__allocator_default, NULL), SF_OK);
        assert_int_equal(sf__store_memory_open(&w->memory, "faults", w->loop, &sf__allocator_default, NULL), SF_OK);
        assert_int_equal(sf__fetcher_new(&w->fetcher, w->loop, &sf__allocator_default, 8, max_bytes, NULL), SF_OK);
        on_loop(w->loop, begin_on_loop, w);
        gate_wait(&w->gate, 1);
        w->faulty->kind = fault->kind;
        w->faulty->at = fault->at;
        w->faulty->times = fault->times;
        w->faulty->for_good = fault->for_good;
        w->faulty->status = fault->status;
        for (size_t k = 0; k < w->count; k++) {
            w->reads[k].store = &w->faulty->base;
            w->reads[k].deadline_ns = sf__deadline_in_ms(deadline_ms);
            w->reads[k].done = read_done;
            w->reads[k].ctx = w;
        }
        on_loop(w->loop, start_on_loop, w);
        gate_wait(&w->gate, 1 + (unsigned)w->count);
        if (w->errors[0].code != SF_TIMEOUT || w->faulty->fired)
            return;
        end(w);
    }
}

static void every_fault(void **state)
{
    static const struct {
        const char *name;
        fault_kind kind;
        unsigned long at, times;
        bool for_good;
        size_t reads; /* "0", "12", "234", ...: read i is of i + 1 bytes from i */
        int64_t deadline_ms;
        sf_status rc[READS];
        const char *message; /* of the first failure */
        unsigned first;      /* the read that ends first */
    } rows[] = {
        {"none", FAULT_NONE, 1, 1, true, 3, 20000, {SF_OK, SF_OK, SF_OK}, "", 0},
        {"503 twice", FAULT_REFUSE, 1, 2, false, 3, 20000, {SF_UNAVAILABLE, SF_UNAVAILABLE, SF_OK}, "injected fault", 0},
        {"refused for good", FAULT_REFUSE, 2, 1, true, 3, 20000, {SF_OK, SF_UNAVAILABLE, SF_UNAVAILABLE}, "injected fault", 0},
        {"the answer is lost", FAULT_LOSE, 1, 1, false, 2, 20000, {SF_UNAVAILABLE, SF_OK}, "injected fault", 0},
        {"stall", FAULT_HOLD, 1, 1, false, 1, 100, {SF_TIMEOUT}, "get mem://faults/k: the deadline passed after ", 0},
        {"short body", FAULT_SHORT, 2, 1, false, 3, 20000, {SF_OK, SF_CORRUPT, SF_OK}, "1 bytes came, 2 were asked for", 0},
        {"broken off", FAULT_BREAK, 1, 1, false, 2, 20000, {SF_UNAVAILABLE, SF_OK}, "injected fault", 0},
        {"another ETag", FAULT_ETAG, 1, 1, true, 2, 20000, {SF_OK, SF_OK}, "", 0},
        {"out of order", FAULT_REORDER, 1, 1, false, 3, 20000, {SF_OK, SF_OK, SF_OK}, "", 1},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct world w = {.gate = GATE_INIT, .count = rows[i].reads, .body = sf_bytes_str("0123456789")};
        const char *message = "";
        sf_fetch_stats stats;

        for (size_t k = 0; k < w.count; k++)
            w.reads[k] = (sf_fetch){.key = "k", .off = k, .len = k + 1};
        read_under(&w, &(struct fault){rows[i].kind, rows[i].at, rows[i].times, rows[i].for_good, SF_UNAVAILABLE},
                   1 << 20, rows[i].deadline_ms);
        for (size_t k = 0; k < w.count; k++) {
            const sf_fetch *f = &w.reads[k];
            const sf_error *e = &w.errors[k];

            if (e->code != rows[i].rc[k])
                fail_msg("%s: read %zu: %s: %s", rows[i].name, k, sf_status_name(e->code), e->message);
            if (e->code == SF_OK ? f->data->n != k + 1 || memcmp(f->data->data, &"0123456789"[k], k + 1) != 0
                                 : f->data != NULL)
                fail_msg("%s: read %zu: wrong bytes", rows[i].name, k);
            if (e->code != SF_OK && !strstr(e->object, "mem://faults/k"))
                fail_msg("%s: read %zu: \"%s\" is not the object", rows[i].name, k, e->object);
            if (!message[0])
                message = e->code != SF_OK ? e->message : "";
        }
        if (!strstr(message, rows[i].message))
            fail_msg("%s: \"%s\"", rows[i].name, message);
        if (w.order[0] != rows[i].first)
            fail_msg("%s: read %u ended first", rows[i].name, w.order[0]);
        if (rows[i].kind != FAULT_NONE && !w.faulty->fired)
            fail_msg("%s: nothing happened", rows[i].name);
        on_loop(w.loop, nothing, NULL); /* what was cancelled comes home through the inbox */
        on_loop(w.loop, nothing, NULL);
        sf__fetcher_get_stats(w.fetcher, &stats);
        end(&w);
        if (stats.requests_in_flight != 0 || stats.bytes_in_flight != 0 || stats.waiting != 0)
            fail_msg("%s: something is still in flight", rows[i].name);
    }
}

/* A large object takes two requests: a failure of either is its own, whatever the other said. */
static void a_large_object_under_every_fault(void **state)
{
    enum { BYTES = 1 << 20 };
    static const struct {
        fault_kind kind;
        sf_status rc[3]; /* when request 1, 2, or none gets it */
    } rows[] = {
        {FAULT_REFUSE, {SF_CORRUPT, SF_CORRUPT, SF_OK}},
        {FAULT_LOSE, {SF_CORRUPT, SF_CORRUPT, SF_OK}},
        {FAULT_HOLD, {SF_TIMEOUT, SF_TIMEOUT, SF_OK}},
        {FAULT_BREAK, {SF_OK, SF_CORRUPT, SF_OK}}, /* no body, nothing to break */
    };
    uint8_t *bytes = malloc(BYTES);

    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)(i * 31 + (i >> 8));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (unsigned at = 1; at <= 3; at++) {
            struct world w = {.gate = GATE_INIT, .count = 1, .body = sf_bytes_of(bytes, BYTES)};
            const sf_fetch *f = &w.reads[0];
            const sf_error *e = &w.errors[0];
            sf_fetch_stats stats;

            w.reads[0] = (sf_fetch){.key = "k", .len = SF_STORE_ALL, .max_bytes = 64 * BYTES};
            read_under(&w, /* with what "longer" comes with, too */
                       &(struct fault){.kind = rows[i].kind, .at = at, .status = SF_CORRUPT}, BYTES,
                       rows[i].rc[at - 1] == SF_TIMEOUT ? 50 : 20000);
            on_loop(w.loop, nothing, NULL);
            on_loop(w.loop, nothing, NULL);
            sf__fetcher_get_stats(w.fetcher, &stats);
            if (e->code != rows[i].rc[at - 1])
                fail_msg("fault %d at request %u: %s: %s", (int)rows[i].kind, at, sf_status_name(e->code), e->message);
            if (e->code == SF_OK ? f->data->n != BYTES || memcmp(f->data->data, bytes, BYTES) != 0 : f->data != NULL)
                fail_msg("fault %d at request %u: wrong bytes", (int)rows[i].kind, at);
            if (w.faulty->requests != (rows[i].rc[at - 1] != SF_OK && at == 1 ? 1 : 2))
                fail_msg("fault %d at request %u: %lu requests", (int)rows[i].kind, at, w.faulty->requests);
            if (stats.requests_in_flight != 0 || stats.bytes_in_flight != 0 || stats.waiting != 0)
                fail_msg("fault %d at request %u: something is still in flight", (int)rows[i].kind, at);
            end(&w);
        }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_fault), cmocka_unit_test(a_large_object_under_every_fault)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
