/* Scheduled reads: bounds, order, shared flights, cancelling, deadlines. */
#include "fetch_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cache/listing.h"

/* ------------------------------------------------------------------ bounds --------------------------------------- */

static void requests_are_bounded_and_in_order(void **state)
{
    struct world w;
    char keys[8][8];
    sf_fetch_stats stats;

    begin(&w, 3, 1 << 20);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%u", i);
        start(&w, i, keys[i], 0, 10);
    }
    assert_int_equal(submitted(&w), 3);
    sf__fetcher_get_stats(w.fetcher, &stats);
    assert_int_equal(stats.requests_in_flight, 3);
    assert_int_equal(stats.waiting, 5);
    assert_int_equal(stats.bytes_in_flight, 30);
    for (unsigned i = 0; i < 8; i++) {
        assert_string_equal(w.store.ops[i]->key, keys[i]); /* first come, first served */
        answer(&w, i, i % 3 == 1 ? SF_IO : SF_OK);
        assert_int_equal(submitted(&w), i + 4 < 8 ? i + 4 : 8);
        assert_ended(&w, i, i % 3 == 1 ? SF_IO : SF_OK);
    }
    assert_int_equal(w.observed_requests, 8);
    assert_int_equal(w.observed_bytes, 50);
    end(&w);
}

static void bytes_are_bounded_without_overtaking(void **state)
{
    struct world w;

    begin(&w, 100, 100);
    start(&w, 0, "a", 0, 60);
    start(&w, 1, "b", 0, 60);
    start(&w, 2, "c", 0, 10); /* would fit, but came later */
    assert_int_equal(submitted(&w), 1);
    answer(&w, 0, SF_OK);
    assert_int_equal(submitted(&w), 3);
    answer(&w, 2, SF_OK);
    answer(&w, 1, SF_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_ended(&w, i, SF_OK);
    start(&w, 3, "large", 0, 5000); /* more than the bound: goes out when it is alone */
    start(&w, 4, "d", 0, 1);
    assert_int_equal(submitted(&w), 4);
    answer(&w, 3, SF_OK);
    answer(&w, 4, SF_OK);
    assert_ended(&w, 3, SF_OK);
    assert_ended(&w, 4, SF_OK);
    end(&w);
}

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

/* What the store is asked for never exceeds what is reserved, however long an object turns out to be, and however often it
 * changes meanwhile. */
static void whole_objects_reserve_what_they_need(void **state)
{
    static const struct {
        const char *name;
        uint64_t max;
        uint64_t longer[3]; /* what the store says to the requests in turn; 0: it has the object */
        uint64_t asked[4];  /* what they are bounded by */
        sf_status rc;
        const char *message;
    } rows[] = {
        {"of the usual size", 64 * MIB, {0}, {256 * KIB}, SF_OK, NULL},
        {"large", 64 * MIB, {2 * MIB}, {256 * KIB, 2 * MIB}, SF_OK, NULL},
        {"as large as it may be", 64 * MIB, {64 * MIB}, {256 * KIB, 64 * MIB}, SF_OK, NULL},
        {"too large", 64 * MIB, {64 * MIB + 1}, {256 * KIB}, SF_CORRUPT, "object of 67108865 bytes, at most 67108864 expected"},
        {"grows meanwhile", 64 * MIB, {2 * MIB, 3 * MIB}, {256 * KIB, 2 * MIB, 64 * MIB}, SF_OK, NULL},
        {"grows for ever", 64 * MIB, {2 * MIB, 3 * MIB, 65 * MIB}, {256 * KIB, 2 * MIB, 64 * MIB}, SF_CORRUPT, "says no"},
        {"grows too large", 64 * MIB, {2 * MIB, 65 * MIB}, {256 * KIB, 2 * MIB}, SF_CORRUPT, "at most 67108864"},
        {"of unknown length", 64 * MIB, {SF_STORE_ALL}, {256 * KIB, 64 * MIB}, SF_OK, NULL},
        {"of unknown length, too large", 64 * MIB, {SF_STORE_ALL, SF_STORE_ALL}, {256 * KIB, 64 * MIB}, SF_CORRUPT, "says no"},
        {"a length that is no reason", 64 * MIB, {5}, {256 * KIB, 64 * MIB}, SF_OK, NULL},
        {"of a small bound", 100, {200}, {100}, SF_CORRUPT, "says no"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint64_t budget = 4 * MIB;
        struct world w;
        unsigned n = 0;

        begin(&w, 10, budget);
        start_whole(&w, 0, "k", rows[i].max, 0);
        for (; rows[i].asked[n]; n++) {
            sf_fetch_stats stats;

            if (submitted(&w) != n + 1 || w.store.ops[n]->max_bytes != rows[i].asked[n])
                fail_msg("%s: request %u of %u", rows[i].name, n, submitted(&w));
            sf__fetcher_get_stats(w.fetcher, &stats);
            assert_int_equal(stats.bytes_in_flight, rows[i].asked[n] < budget ? rows[i].asked[n] : budget);
            assert_int_equal(stats.requests_in_flight, 1);
            if (n < 3 && rows[i].longer[n])
                answer_longer(&w, n, rows[i].longer[n]);
            else
                answer(&w, n, SF_OK);
        }
        if (submitted(&w) != n)
            fail_msg("%s: %u requests", rows[i].name, submitted(&w));
        if (rows[i].message && !strstr(w.readings[0].error.message, rows[i].message))
            fail_msg("%s: %s", rows[i].name, w.readings[0].error.message);
        assert_ended(&w, 0, rows[i].rc);
        assert_int_equal(w.observed_requests, n);
        end(&w);
    }
}

struct growth {
    sf_store_op *op;
    uint64_t bytes;
    bool taken;
};

static void grow(void *arg)
{
    struct growth *g = arg;

    g->taken = g->op->grow(g->op, g->bytes);
}

/* A store that learns of the length before the bytes asks whether they may come. */
static void an_object_that_is_long_may_come_at_once(void **state)
{
    static const struct {
        const char *name;
        uint64_t bytes;
        bool others_wait, taken;
    } rows[] = {
        {"there is room", 2 * MIB, false, true},
        {"all of the budget", 4 * MIB, false, true},
        {"more than the budget", 4 * MIB + 1, false, false},
        {"more than it may have", 65 * MIB, false, false},
        {"others were there before", 2 * MIB, true, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint64_t budget = 4 * MIB;
        sf_fetch_stats stats;
        struct growth g;
        struct world w;

        begin(&w, rows[i].others_wait ? 1 : 10, budget);
        start_whole(&w, 0, "k", 64 * MIB, 0);
        if (rows[i].others_wait)
            start(&w, 1, "other", 0, 10);
        g = (struct growth){w.store.ops[0], rows[i].bytes, false};
        on_loop(w.loop, grow, &g);
        if (g.taken != rows[i].taken)
            fail_msg("%s: %d", rows[i].name, g.taken);
        sf__fetcher_get_stats(w.fetcher, &stats);
        assert_int_equal(stats.bytes_in_flight, g.taken ? rows[i].bytes : 256 * KIB);
        assert_int_equal(w.store.ops[0]->max_bytes, stats.bytes_in_flight);
        on_loop(w.loop, grow, &g); /* another attempt of the request asks again */
        assert_int_equal(g.taken, rows[i].taken);
        answer(&w, 0, SF_OK);
        assert_ended(&w, 0, SF_OK);
        if (rows[i].others_wait) {
            answer(&w, 1, SF_OK);
            assert_ended(&w, 1, SF_OK);
        }
        sf__fetcher_get_stats(w.fetcher, &stats);
        assert_int_equal(stats.bytes_in_flight, 0);
        end(&w);
    }
}

/* It gives its turn back and waits behind those who came meanwhile; others may join it there, and all may leave. */
static void a_large_object_queues_again(void **state)
{
    enum { ENDS_WELL, IS_LEFT, RUNS_OUT_OF_TIME, HOW_MANY };

    for (int how = 0; how < HOW_MANY; how++) {
        struct world w;
        sf_fetch_stats stats;

        begin(&w, 10, MIB);
        start_whole(&w, 0, "large", 64 * MIB, 0);
        start(&w, 1, "range", 0, 900 * KIB);
        assert_int_equal(submitted(&w), 1);
        answer_longer(&w, 0, 512 * KIB);
        assert_int_equal(submitted(&w), 2);
        assert_string_equal(w.store.ops[1]->key, "range");
        sf__fetcher_get_stats(w.fetcher, &stats);
        assert_int_equal(stats.bytes_in_flight, 900 * KIB);
        assert_int_equal(stats.waiting, 1);
        start_whole(&w, 2, "large", 64 * MIB, how == RUNS_OUT_OF_TIME ? 1 : 0);
        sf__fetcher_get_stats(w.fetcher, &stats);
        assert_int_equal(stats.shared, 1);
        if (how != ENDS_WELL) {
            cancel(&w, 0);
            assert_ended(&w, 0, SF_CANCELLED);
        }
        if (how == IS_LEFT)
            cancel(&w, 2);
        if (how != ENDS_WELL)
            assert_ended(&w, 2, how == IS_LEFT ? SF_CANCELLED : SF_TIMEOUT);
        answer(&w, 1, SF_OK);
        assert_ended(&w, 1, SF_OK);
        assert_int_equal(submitted(&w), how == ENDS_WELL ? 3 : 2);
        if (how == ENDS_WELL) {
            assert_int_equal(w.store.ops[2]->max_bytes, 512 * KIB);
            answer(&w, 2, SF_OK);
            assert_ptr_equal(w.readings[0].fetch.data, w.readings[2].fetch.data);
            assert_ended(&w, 0, SF_OK);
            assert_ended(&w, 2, SF_OK);
        }
        end(&w);
    }
}

static void bounds_must_not_be_zero(void **state)
{
    sf_fetcher *f = NULL;

    assert_int_equal(sf__fetcher_new(&f, NULL, &sf__allocator_default, 0, 1, NULL), SF_INVALID);
    assert_int_equal(sf__fetcher_new(&f, NULL, &sf__allocator_default, 1, 0, NULL), SF_INVALID);
    assert_null(f);
}

/* ------------------------------------------------------------------ single flight -------------------------------- */

static void equal_reads_share_a_request(void **state)
{
    struct world w;
    sf_fetch_stats stats;
    const sf_buf *data;

    begin(&w, 100, 1 << 20);
    for (unsigned i = 0; i < 5; i++)
        start(&w, i, "k", 7, 10);
    start(&w, 5, "k", 8, 10);
    start(&w, 6, "k", 7, 11);
    start(&w, 7, "l", 7, 10);
    assert_int_equal(submitted(&w), 4);
    sf__fetcher_get_stats(w.fetcher, &stats);
    assert_int_equal(stats.shared, 4);
    for (unsigned i = 0; i < 4; i++)
        answer(&w, i, SF_OK);
    data = w.readings[0].fetch.data;
    for (unsigned i = 0; i < 5; i++) {
        assert_ptr_equal(w.readings[i].fetch.data, data); /* one copy for all */
        assert_int_equal(w.readings[i].ended_as, i + 1);
    }
    for (unsigned i = 0; i < 8; i++)
        assert_ended(&w, i, SF_OK);
    start(&w, 8, "k", 7, 10); /* it is no cache: the next read asks again */
    assert_int_equal(submitted(&w), 5);
    answer(&w, 4, SF_OK);
    assert_ended(&w, 8, SF_OK);
    end(&w);
}

static void kinds_of_reads_do_not_mix(void **state)
{
    static const sf_fetch specs[] = {
        {.key = "k", .len = 100},
        {.key = "k", .len = 100, .suffix = true},
        {.key = "k", .len = SF_STORE_ALL, .max_bytes = 100},
        {.key = "k", .len = SF_STORE_ALL, .max_bytes = 200},
        {.key = "k", .len = 100, .if_match = "\"a\""},
        {.key = "k", .len = 100, .if_match = "\"b\""},
    };
    struct world w;

    begin(&w, 100, 1 << 20);
    for (unsigned i = 0; i < 6; i++) {
        w.which = i;
        w.spec = specs[i];
        w.readings[i].gate = (struct gate)GATE_INIT;
        on_loop(w.loop, start_on_loop, &w);
    }
    assert_int_equal(submitted(&w), 6);
    assert_int_equal(w.store.ops[1]->verb, SF_STORE_GET_SUFFIX);
    assert_int_equal(w.store.ops[2]->max_bytes, 100);
    assert_null(w.store.ops[0]->if_match);
    assert_string_equal(w.store.ops[5]->if_match, "\"b\"");
    for (unsigned i = 0; i < 6; i++) {
        answer(&w, i, SF_OK);
        assert_ended(&w, i, SF_OK);
    }
    end(&w);
}

static void a_failure_is_everybodys(void **state)
{
    struct world w;

    begin(&w, 1, 1 << 20);
    for (unsigned i = 0; i < 3; i++)
        start(&w, i, "k", 0, 10);
    answer(&w, 0, SF_DENIED);
    for (unsigned i = 0; i < 3; i++)
        assert_ended(&w, i, SF_DENIED);
    end(&w);
}

static void read_again(struct reading *r)
{
    static const sf_fetch spec = {.key = "k", .len = 10};

    start_one(r->w, 5, &spec);
}

static void cancel_the_next(struct reading *r)
{
    sf__fetch_cancel(&r->w->readings[1].fetch);
}

/* Completions may start and cancel reads. */
static void completions_may_act(void **state)
{
    struct world w;

    begin(&w, 10, 1 << 20);
    w.readings[0].then = cancel_the_next;
    w.readings[2].then = read_again;
    w.readings[5].gate = (struct gate)GATE_INIT;
    for (unsigned i = 0; i < 3; i++)
        start(&w, i, "k", 0, 10);
    answer(&w, 0, SF_OK);
    assert_ended(&w, 0, SF_OK);
    assert_ended(&w, 1, SF_CANCELLED);
    assert_ended(&w, 2, SF_OK);
    assert_waits(&w, 5);
    assert_int_equal(submitted(&w), 2); /* the answer that was just given is not handed out again */
    answer(&w, 1, SF_OK);
    assert_ended(&w, 5, SF_OK);
    end(&w);
}

/* ------------------------------------------------------------------ decoding ------------------------------------- */

/* What the decoder of a read says, one verdict after another. */
struct decoding {
    const sf_status *verdicts;
    unsigned count;
    bool shared, alone, has_room;
};

static struct decoding decoding;

static sf_status decode_as_told(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    sf_status rc = decoding.verdicts[decoding.count++];

    assert_int_equal(data->n, f->len);
    decoding.shared = f->shared;
    decoding.alone = atomic_load(&data->refs) == 1;
    decoding.has_room = room != NULL;
    return rc == SF_OK ? SF_OK : sf_fail(err, rc, "the decoder says no");
}

static void decode_begin(struct world *w, unsigned i, const sf_status *verdicts, uint64_t deadline_ns)
{
    decoding = (struct decoding){.verdicts = verdicts};
    w->which = i;
    w->spec = (sf_fetch){.key = "k", .len = 10, .packed = true, .deadline_ns = deadline_ns, .decode = decode_as_told};
    w->readings[i].gate = (struct gate)GATE_INIT;
    on_loop(w->loop, start_on_loop, w);
}

static void assert_decoded(struct world *w, unsigned i, sf_status rc)
{
    struct reading *r = &w->readings[i];

    gate_wait(&r->gate, 1);
    drain(w);
    assert_int_equal(r->gate.count, 1);
    assert_int_equal(r->error.code, rc);
    assert_true(rc == SF_OK || rc == SF_CANCELLED || strstr(r->error.object, "test://store/k"));
    assert_null(r->fetch.data);
}

static void bytes_are_home_once_they_are_decoded(void **state)
{
    static const struct {
        const char *name;
        sf_status verdicts[4], ends;
        unsigned decodes, requests;
    } cases[] = {
        {"right", {SF_OK}, SF_OK, 1, 1},
        {"a torn answer", {SF_CORRUPT, SF_OK}, SF_OK, 2, 2},
        {"damage", {SF_CORRUPT, SF_CORRUPT}, SF_CORRUPT, 2, 2},
        {"no damage", {SF_UNSUPPORTED}, SF_UNSUPPORTED, 1, 1},
        {"it unpacks to much", {SF_WOULD_BLOCK, SF_WOULD_BLOCK, SF_OK}, SF_OK, 3, 1},
        {"much, and torn", {SF_WOULD_BLOCK, SF_CORRUPT, SF_WOULD_BLOCK, SF_OK}, SF_OK, 4, 2},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct world w;

        begin(&w, 10, 1 << 20);
        decode_begin(&w, 0, cases[c].verdicts, SF_NO_DEADLINE);
        for (unsigned i = 0; i < cases[c].requests; i++) {
            gate_wait(&w.store.submitted, i + 1); /* a worker has it */
            answer(&w, i, SF_OK);
        }
        assert_decoded(&w, 0, cases[c].ends);
        if (decoding.count != cases[c].decodes || submitted(&w) != cases[c].requests)
            fail_msg("%s: decoded %u times, %u requests", cases[c].name, decoding.count, submitted(&w));
        assert_true(decoding.has_room);
        assert_true(decoding.alone); /* so the decoder may keep the buffer as its own */
        assert_false(decoding.shared);
        end(&w);
    }
}

/* ------------------------------------------------------------------ brief reads ---------------------------------- */

static void brief_begin(struct world *w, unsigned i, const sf_status *verdicts, uint64_t deadline_ns)
{
    w->which = i;
    w->spec =
        (sf_fetch){.key = "k", .len = 200 << 10, .brief = true, .deadline_ns = deadline_ns, .decode = decode_as_told};
    w->readings[i].gate = (struct gate)GATE_INIT;
    if (verdicts)
        decoding = (struct decoding){.verdicts = verdicts};
    on_loop(w->loop, start_on_loop, w);
}

/* As a store's worker does: the bytes are there, and the loop does not know it yet. */
static void arrive(struct world *w, unsigned i)
{
    sf_store_op *op = w->store.ops[i];

    assert_non_null(op->memory);
    op->data = sf__buf_new(op->memory, op->len);
    memset(op->data->data, 'x', op->data->n);
    if (op->arrived)
        op->arrived(op);
}

static void end_on_loop(void *arg)
{
    struct world *w = arg;
    sf_store_op *op = w->store.ops[w->which];
    sf_error e = SF_ERROR_INIT;

    w->store.ops[w->which] = NULL;
    sf__store_op_finish(op, &e);
}

static void arrival_ends(struct world *w, unsigned i)
{
    w->which = i;
    on_loop(w->loop, end_on_loop, w);
}

/* What a worker has read it decodes as well, once, and nobody else does. */
static void brief_reads_are_decoded_where_they_arrive(void **state)
{
    static const struct {
        const char *name;
        sf_status verdicts[2], ends;
        unsigned requests;
    } cases[] = {
        {"right", {SF_OK}, SF_OK, 1},
        {"a torn answer", {SF_CORRUPT, SF_OK}, SF_OK, 2},
        {"damage", {SF_CORRUPT, SF_CORRUPT}, SF_CORRUPT, 2},
        {"no damage", {SF_UNSUPPORTED}, SF_UNSUPPORTED, 1},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct world w;

        begin(&w, 10, 1 << 20);
        brief_begin(&w, 0, cases[c].verdicts, SF_NO_DEADLINE);
        for (unsigned i = 0; i < cases[c].requests; i++) {
            gate_wait(&w.store.submitted, i + 1);
            arrive(&w, i);
            if (decoding.count != i + 1)
                fail_msg("%s: decoded %u times by the worker", cases[c].name, decoding.count);
            arrival_ends(&w, i);
        }
        assert_decoded(&w, 0, cases[c].ends);
        if (decoding.count != cases[c].requests || submitted(&w) != cases[c].requests)
            fail_msg("%s: decoded %u times, %u requests", cases[c].name, decoding.count, submitted(&w));
        assert_true(decoding.alone);
        end(&w);
    }
}

/* Whoever is waited for by a worker cannot go before that has ended. */
static void brief_reads_end_when_they_are_decoded(void **state)
{
    static const sf_status right[] = {SF_OK, SF_OK};
    struct world w;

    begin(&w, 10, 1 << 20);
    brief_begin(&w, 0, right, SF_NO_DEADLINE); /* cancelled before its bytes come: at once */
    cancel(&w, 0);
    assert_decoded(&w, 0, SF_CANCELLED);
    assert_int_equal(w.store.cancelled, 1);
    brief_begin(&w, 1, right, SF_NO_DEADLINE); /* and behind that: when the store is done */
    arrive(&w, 1);
    cancel(&w, 1);
    drain(&w);
    assert_waits(&w, 1);
    arrival_ends(&w, 1);
    assert_decoded(&w, 1, SF_CANCELLED);
    assert_int_equal(w.store.cancelled, 1);
    assert_int_equal(decoding.count, 1);
    end(&w);
}

/* One who comes later decodes by himself, and stays when the first one goes. */
static void brief_reads_are_shared(void **state)
{
    static const sf_status right[] = {SF_OK, SF_OK};

    for (unsigned leaves = 0; leaves < 2; leaves++) {
        struct world w;

        begin(&w, 10, 1 << 20);
        brief_begin(&w, 0, right, SF_NO_DEADLINE);
        brief_begin(&w, 1, NULL, SF_NO_DEADLINE);
        assert_int_equal(submitted(&w), 1);
        if (leaves)
            cancel(&w, 0);
        arrive(&w, 0);
        assert_int_equal(decoding.count, leaves ? 0 : 1);
        arrival_ends(&w, 0);
        assert_decoded(&w, 0, leaves ? SF_CANCELLED : SF_OK);
        assert_decoded(&w, 1, SF_OK);
        assert_int_equal(decoding.count, leaves ? 1 : 2);
        end(&w);
    }
}

static struct reading *leaving;

static void leave_on_task(sf_task *task)
{
    (void)task;
    sf__fetch_cancel(&leaving->fetch);
}

/* One who leaves while a worker decodes for another one: the thread sanitizer sees that they touch nothing together. */
static void brief_reads_are_left_while_they_are_decoded(void **state)
{
    static const sf_status right[] = {SF_OK};
    sf_task task = {.run = leave_on_task};
    struct world w;

    begin(&w, 10, 1 << 20);
    brief_begin(&w, 0, right, SF_NO_DEADLINE);
    brief_begin(&w, 1, NULL, SF_NO_DEADLINE);
    leaving = &w.readings[1];
    sf__loop_post(w.loop, &task); /* nobody waits for it */
    arrive(&w, 0);
    arrival_ends(&w, 0);
    assert_decoded(&w, 0, SF_OK);
    assert_decoded(&w, 1, SF_CANCELLED);
    assert_int_equal(decoding.count, 1);
    assert_int_equal(w.store.cancelled, 0);
    end(&w);
}

#define PIECES 64u
#define PIECE_BYTES (UINT64_C(64) << 10)

/* Blocks of a codec that stores what they unpack to, one behind the other. */
static sf_status decode_pieces(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    decoding.count++;
    for (unsigned i = 0; i < PIECES; i++) {
        if (room->left < PIECE_BYTES) {
            room->wanted = PIECE_BYTES;
            return sf_fail(err, SF_WOULD_BLOCK, "no room for piece %u", i);
        }
        room->left -= PIECE_BYTES;
    }
    return SF_OK;
}

static void many_pieces_are_not_unpacked_anew_for_each(void **state)
{
    struct world w;

    begin(&w, 10, 1 << 20);
    decoding = (struct decoding){0};
    w.which = 0;
    w.spec = (sf_fetch){.key = "k", .len = 10, .packed = true, .deadline_ns = SF_NO_DEADLINE, .decode = decode_pieces};
    w.readings[0].gate = (struct gate)GATE_INIT;
    on_loop(w.loop, start_on_loop, &w);
    answer(&w, 0, SF_OK);
    assert_decoded(&w, 0, SF_OK);
    assert_in_range(decoding.count, 1, 5); /* room for 4, 8, 16, 32, 64 of them */
    end(&w);
}

static void who_shares_bytes_is_told(void **state)
{
    static const sf_status fine[] = {SF_OK, SF_OK};
    struct world w;

    begin(&w, 10, 1 << 20);
    decode_begin(&w, 0, fine, SF_NO_DEADLINE);
    start(&w, 1, "k", 0, 10); /* not decoded: it has the bytes themselves */
    answer(&w, 0, SF_OK);
    assert_decoded(&w, 0, SF_OK);
    assert_true(decoding.shared);
    assert_false(decoding.alone);
    assert_ended(&w, 1, SF_OK);
    assert_int_equal(submitted(&w), 1);
    end(&w);
}

/* What is to be unpacked waits for the bytes of others, and can be called back and be late there. */
static void waiting_to_unpack_ends_as_other_waiting(void **state)
{
    static const sf_status much[] = {SF_WOULD_BLOCK};
    static const sf_status ends[] = {SF_CANCELLED, SF_TIMEOUT};

    for (size_t c = 0; c < sizeof(ends) / sizeof(ends[0]); c++) {
        struct world w;
        sf_error e;

        begin(&w, 10, 1 << 20);
        start(&w, 1, "other", 0, 60);
        decode_begin(&w, 0, much, SF_NO_DEADLINE);
        if (ends[c] == SF_TIMEOUT) /* which it has not looked at since it asked for the bytes */
            w.readings[0].fetch.deadline_ns = 1;
        answer(&w, 1, SF_OK);
        if (ends[c] == SF_CANCELLED) {
            assert_waits(&w, 0); /* it is behind "other" */
            sf__fetch_overdue(&w.readings[0].fetch, 0, &e);
            assert_non_null(strstr(e.message, "to be unpacked"));
            cancel(&w, 0);
            cancel(&w, 0); /* twice is harmless */
        }
        assert_decoded(&w, 0, ends[c]);
        assert_int_equal(decoding.count, 1);
        answer(&w, 0, SF_OK);
        assert_ended(&w, 1, SF_OK);
        end(&w);
    }
}

/* ------------------------------------------------------------------ cancelling ----------------------------------- */

static void cancelling_leaves_the_others_alone(void **state)
{
    struct world w;

    begin(&w, 10, 1 << 20);
    start(&w, 0, "k", 0, 10);
    start(&w, 1, "k", 0, 10);
    cancel(&w, 0);
    assert_ended(&w, 0, SF_CANCELLED);
    cancel(&w, 0); /* has ended: harmless */
    assert_waits(&w, 1);
    assert_int_equal(w.store.cancelled, 0);
    answer(&w, 0, SF_OK);
    assert_ended(&w, 1, SF_OK);
    end(&w);
}

static void nobody_left_cancels_the_request(void **state)
{
    struct world w;
    sf_fetch_stats stats;

    begin(&w, 1, 1 << 20);
    start(&w, 0, "k", 0, 10);
    start(&w, 1, "k", 0, 10);
    start(&w, 2, "other", 0, 10); /* waits for the slot */
    cancel(&w, 0);
    cancel(&w, 1);
    assert_ended(&w, 0, SF_CANCELLED);
    assert_ended(&w, 1, SF_CANCELLED);
    assert_int_equal(w.store.cancelled, 1);
    assert_int_equal(submitted(&w), 2); /* its slot has gone on */
    answer(&w, 1, SF_OK);
    assert_ended(&w, 2, SF_OK);
    sf__fetcher_get_stats(w.fetcher, &stats);
    assert_int_equal(stats.requests_in_flight, 0);
    end(&w);
}

struct disk_reading {
    struct world *w;
    sf_disk_cache *cache;
    sf_disk_caches all;
};

static sf_status decode_nothing(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    return SF_OK;
}

static void keep_on_loop(void *arg)
{
    struct disk_reading *d = arg;
    const uint64_t cuts[] = {0, 100};
    sf_buf *data = sf__buf_new(&d->w->heap.alloc, 100);

    memset(data->data, 'd', 100);
    sf__disk_cache_keep(d->cache, (sf_hash128){1, 2}, cuts, NULL, 1, data);
    sf__buf_release(data);
}

static void read_and_cancel_on_loop(void *arg)
{
    struct world *w = arg;

    start_on_loop(w);
    sf__fetch_cancel(&w->readings[w->which].fetch);
}

static void disk_settle(struct disk_reading *d)
{
    do
        on_loop(d->w->loop, nothing, NULL);
    while (atomic_load(&d->all.jobs) > 0);
}

/* What lies on disk is there at once, but not told at once: a cancel in between counts. */
static void cancelled_before_what_the_disk_had_is_told(void **state)
{
    struct world w;
    struct disk_reading d = {.w = &w};
    char folder[] = "/tmp/sf_fetch_test_XXXXXX", command[80];
    sf_disk_place place;

    (void)state;
    assert_non_null(mkdtemp(folder));
    begin(&w, 4, 1 << 20);
    sf__disk_caches_init(&d.all);
    assert_int_equal(sf__disk_cache_open(&d.cache, folder, 1 << 20, w.loop, &d.all, &w.heap.alloc, NULL), SF_OK);
    place = (sf_disk_place){d.cache, {1, 2}};
    on_loop(w.loop, keep_on_loop, &d);
    disk_settle(&d);
    for (unsigned i = 0; i < 3; i++) { /* the first read opens the folder; the second shows that it is there */
        w.which = i;
        w.spec = (sf_fetch){.key = "k", .len = 100, .disk = &place, .decode = decode_nothing};
        w.readings[i].gate = (struct gate)GATE_INIT;
        on_loop(w.loop, i < 2 ? start_on_loop : read_and_cancel_on_loop, &w);
        gate_wait(&w.readings[i].gate, 1);
        disk_settle(&d);
        assert_int_equal(w.readings[i].error.code, i < 2 ? SF_OK : SF_CANCELLED);
        assert_null(w.readings[i].fetch.data);
    }
    assert_int_equal(submitted(&w), 0);
    sf__disk_cache_release(d.cache);
    sf__disk_caches_cleanup(&d.all);
    end(&w);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void waiting_reads_are_cancelled_where_they_wait(void **state)
{
    struct world w;

    begin(&w, 10, 100);
    start(&w, 0, "a", 0, 60);
    start(&w, 1, "b", 0, 90);
    start(&w, 2, "c", 0, 10);
    cancel(&w, 1); /* stood in the way of a smaller one */
    assert_ended(&w, 1, SF_CANCELLED);
    assert_int_equal(submitted(&w), 2);
    assert_string_equal(w.store.ops[1]->key, "c");
    answer(&w, 0, SF_OK);
    answer(&w, 1, SF_OK);
    assert_ended(&w, 0, SF_OK);
    assert_ended(&w, 2, SF_OK);
    end(&w);
}

/* ------------------------------------------------------------------ deadlines ------------------------------------ */

static void deadlines_end_sent_and_waiting_reads(void **state)
{
    struct world w;

    begin(&w, 1, 1 << 20);
    start_until(&w, 0, "sent", 10, 1);
    assert_ended(&w, 0, SF_TIMEOUT);
    assert_non_null(strstr(w.readings[0].error.message, "/sent: the deadline passed after "));
    assert_int_equal(w.store.cancelled, 1);
    start(&w, 1, "first", 0, 10);
    start_until(&w, 2, "waiting", 10, 1);
    assert_ended(&w, 2, SF_TIMEOUT);
    assert_non_null(
        strstr(w.readings[2].error.message, "while it waited for its turn behind 1 requests and 10 bytes under way"));
    answer(&w, 1, SF_OK);
    assert_ended(&w, 1, SF_OK);
    assert_int_equal(submitted(&w), 2); /* the late one was never sent */
    end(&w);
}

static void start_two(void *arg)
{
    struct world *w = arg;
    sf_fetch hurried = {.key = "k", .len = 10, .deadline_ns = 1}, patient = {.key = "k", .len = 10};

    start_one(w, 0, w->which == 0 ? &hurried : &patient);
    start_one(w, 1, w->which == 0 ? &patient : &hurried);
}

/* Whoever asked first. */
static void the_patient_outlast_the_hurried(void **state)
{
    for (unsigned hurried = 0; hurried < 2; hurried++) {
        struct world w;

        begin(&w, 1, 1 << 20);
        w.which = hurried;
        w.readings[0].gate = (struct gate)GATE_INIT;
        w.readings[1].gate = (struct gate)GATE_INIT;
        on_loop(w.loop, start_two, &w);
        assert_ended(&w, hurried, SF_TIMEOUT);
        assert_waits(&w, 1 - hurried);
        assert_int_equal(submitted(&w), 1);
        answer(&w, 0, SF_OK);
        assert_ended(&w, 1 - hurried, SF_OK);
        end(&w);
    }
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

struct listing {
    sf_store_listing l;
    sf_error error;
    struct world *w;
    struct gate gate;
};

static void listing_done(sf_store_listing *l)
{
    struct listing *listing = (struct listing *)((char *)l - offsetof(struct listing, l));

    listing->error = *l->error;
    gate_arrive(&listing->gate);
}

static void list_on_loop(void *arg)
{
    struct listing *l = arg;

    sf__fetcher_list(l->w->fetcher, &l->l);
}

static void list_cancel_on_loop(void *arg)
{
    struct listing *l = arg;

    sf__fetcher_list_cancel(l->w->fetcher, &l->l);
}

static void list_begin(struct listing *l, struct world *w, uint64_t deadline_ns)
{
    *l = (struct listing){.w = w, .gate = GATE_INIT};
    l->l = (sf_store_listing){
        .store = &w->store.base, .prefix = "p/", .deadline_ns = deadline_ns, .done = listing_done, .ctx = l};
    on_loop(w->loop, list_on_loop, l);
}

static void assert_listed(struct listing *l, sf_status rc)
{
    gate_wait(&l->gate, 1);
    drain(l->w);
    assert_int_equal(l->gate.count, 1);
    assert_int_equal(l->error.code, rc);
    assert_ptr_equal(l->l.ctx, l); /* the owner's again */
    sf__store_listing_cleanup(&l->l);
}

static void list_answer_on_loop(void *arg)
{
    struct world *w = arg;
    sf_store_op *op = w->store.ops[w->which];

    w->store.ops[w->which] = NULL;
    sf__store_op_finish(op, NULL);
}

static void list_page_on_loop(void *arg)
{
    struct world *w = arg;

    w->store.ops[w->which]->next = sf__strdup(&w->heap.alloc, "page");
    list_answer_on_loop(w);
}

static void every_page_counts(void **state)
{
    for (unsigned pages = 1; pages <= 3; pages++) {
        struct listing l;
        struct world w;

        begin(&w, 1, 1 << 20);
        list_begin(&l, &w, SF_NO_DEADLINE);
        for (w.which = 0; w.which < pages; w.which++)
            on_loop(w.loop, w.which + 1 < pages ? list_page_on_loop : list_answer_on_loop, &w);
        assert_listed(&l, SF_OK);
        assert_int_equal(submitted(&w), pages);
        assert_int_equal(w.observed_requests, pages);
        end(&w);
    }
}

static void listings_take_their_turn(void **state)
{
    struct world w;
    struct listing a, b, c, d;

    begin(&w, 1, 1 << 20);
    list_begin(&a, &w, SF_NO_DEADLINE);
    list_begin(&b, &w, SF_NO_DEADLINE);
    list_begin(&c, &w, 1);
    list_begin(&d, &w, SF_NO_DEADLINE);
    assert_int_equal(submitted(&w), 1);
    assert_listed(&c, SF_TIMEOUT);
    on_loop(w.loop, list_cancel_on_loop, &b);
    on_loop(w.loop, list_cancel_on_loop, &b); /* twice is harmless */
    assert_listed(&b, SF_CANCELLED);
    assert_int_equal(w.store.cancelled, 0); /* they were never sent */
    w.which = 0;
    on_loop(w.loop, list_answer_on_loop, &w);
    assert_listed(&a, SF_OK);
    assert_int_equal(submitted(&w), 2);
    on_loop(w.loop, list_cancel_on_loop, &d);
    assert_listed(&d, SF_CANCELLED);
    assert_int_equal(w.store.cancelled, 1);
    end(&w);
}

/* ------------------------------------------------------------------ memory that runs out ------------------------- */

static void no_memory_fails_the_read(void **state)
{
    bool fired = true;

    for (long n = 0; fired; n++) {
        struct world w;

        begin(&w, 10, 1 << 20);
        heap_arm(&w.heap, n);
        start(&w, 0, "k", 0, 10);
        fired = heap_disarm(&w.heap);
        assert_true(fired || n > 0);
        if (!fired)
            answer(&w, 0, SF_OK);
        assert_ended(&w, 0, fired ? SF_NOMEM : SF_OK);
        end(&w);
    }
}

/* ------------------------------------------------------------------ claims --------------------------------------- */

struct claiming {
    sf_claim claim;
    sf_error ended;
    struct world *w;
    uint64_t bytes, deadline_ns;
    struct gate gate;
};

static void claim_done(sf_claim *c)
{
    ((struct claiming *)c->ctx)->ended = *c->error;
    gate_arrive(&((struct claiming *)c->ctx)->gate);
}

static void claim_on_loop(void *arg)
{
    struct claiming *c = arg;

    c->claim.done = claim_done;
    c->claim.ctx = c;
    sf__claim_start(&c->w->fetcher->budget, &c->claim, c->bytes, c->deadline_ns);
    assert_int_equal(c->gate.count, 0); /* never inside the call */
}

static void claim_cancel_on_loop(void *arg)
{
    sf__claim_cancel(&((struct claiming *)arg)->claim);
}

static void claim_end_on_loop(void *arg)
{
    sf__claim_end(&((struct claiming *)arg)->claim);
}

static void claim_begin(struct claiming *c, struct world *w, uint64_t bytes, uint64_t deadline_ns)
{
    *c = (struct claiming){.w = w, .bytes = bytes, .deadline_ns = deadline_ns, .gate = GATE_INIT};
    on_loop(w->loop, claim_on_loop, c);
}

static void assert_claimed(struct claiming *c, sf_status rc)
{
    gate_wait(&c->gate, 1);
    drain(c->w);
    assert_int_equal(c->gate.count, 1);
    assert_int_equal(c->ended.code, rc);
}

/* What is unpacked counts like what is fetched, needs no request, and goes first: its bytes are here already. */
static void claims_take_bytes_of_the_budget(void **state)
{
    struct claiming first, second, late, dropped;
    sf_fetch_stats stats;
    struct world w;

    begin(&w, 1, 100);
    start(&w, 0, "a", 0, 60);
    claim_begin(&first, &w, 30, SF_NO_DEADLINE); /* though the only request is under way */
    assert_claimed(&first, SF_OK);
    start(&w, 1, "b", 0, 10);
    claim_begin(&second, &w, 1000, SF_NO_DEADLINE); /* more than there is: alone */
    claim_begin(&late, &w, 20, 1);
    assert_claimed(&late, SF_TIMEOUT);
    assert_non_null(strstr(late.ended.message, "while it waited for its turn"));
    claim_begin(&dropped, &w, 20, SF_NO_DEADLINE);
    on_loop(w.loop, claim_cancel_on_loop, &dropped);
    assert_claimed(&dropped, SF_CANCELLED);
    answer(&w, 0, SF_OK);
    assert_ended(&w, 0, SF_OK);
    assert_int_equal(submitted(&w), 1); /* the claim stands before it */
    assert_int_equal(second.gate.count, 0);
    on_loop(w.loop, claim_end_on_loop, &first);
    assert_claimed(&second, SF_OK);
    sf__fetcher_get_stats(w.fetcher, &stats);
    assert_int_equal(stats.bytes_in_flight, 100);
    assert_int_equal(stats.requests_in_flight, 0);
    assert_waits(&w, 1);
    on_loop(w.loop, claim_end_on_loop, &second);
    on_loop(w.loop, claim_end_on_loop, &second); /* harmless */
    answer(&w, 1, SF_OK);
    assert_ended(&w, 1, SF_OK);
    end(&w);
}

/* Who is pending takes room from requests, but never more than half of it. */
static void what_is_held_comes_out_of_the_budget(void **state)
{
    static const struct {
        const char *name;
        size_t held;
        unsigned sent; /* of three reads of 30 bytes under a budget of 100 */
    } cases[] = {{"nothing", 0, 3}, {"little", 10, 3}, {"too much for the third", 11, 2},
                 {"half", 50, 1},   {"all", 100, 1},   {"more than there is", 100000, 1}};
    struct world w;

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        sf_fetch_stats stats;

        begin(&w, 10, 100);
        sf__budget_hold(&w.fetcher->budget, cases[c].held);
        start(&w, 0, "a", 0, 30);
        start(&w, 1, "b", 0, 30);
        start(&w, 2, "c", 0, 30);
        if (submitted(&w) != cases[c].sent)
            fail_msg("%s: %u sent", cases[c].name, submitted(&w));
        sf__fetcher_get_stats(w.fetcher, &stats);
        assert_int_equal(stats.bytes_held, cases[c].held);
        for (unsigned i = 0; i < 3; i++) {
            answer(&w, i, SF_OK); /* the next one has its turn then, however much is held */
            assert_ended(&w, i, SF_OK);
        }
        sf__budget_let_go(&w.fetcher->budget, cases[c].held);
        end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_bounded_and_in_order),
        cmocka_unit_test(bytes_are_bounded_without_overtaking),
        cmocka_unit_test(whole_objects_reserve_what_they_need),
        cmocka_unit_test(an_object_that_is_long_may_come_at_once),
        cmocka_unit_test(a_large_object_queues_again),
        cmocka_unit_test(bounds_must_not_be_zero),
        cmocka_unit_test(equal_reads_share_a_request),
        cmocka_unit_test(kinds_of_reads_do_not_mix),
        cmocka_unit_test(a_failure_is_everybodys),
        cmocka_unit_test(completions_may_act),
        cmocka_unit_test(bytes_are_home_once_they_are_decoded),
        cmocka_unit_test(brief_reads_are_decoded_where_they_arrive),
        cmocka_unit_test(brief_reads_end_when_they_are_decoded),
        cmocka_unit_test(brief_reads_are_shared),
        cmocka_unit_test(brief_reads_are_left_while_they_are_decoded),
        cmocka_unit_test(many_pieces_are_not_unpacked_anew_for_each),
        cmocka_unit_test(who_shares_bytes_is_told),
        cmocka_unit_test(waiting_to_unpack_ends_as_other_waiting),
        cmocka_unit_test(cancelling_leaves_the_others_alone),
        cmocka_unit_test(nobody_left_cancels_the_request),
        cmocka_unit_test(cancelled_before_what_the_disk_had_is_told),
        cmocka_unit_test(waiting_reads_are_cancelled_where_they_wait),
        cmocka_unit_test(deadlines_end_sent_and_waiting_reads),
        cmocka_unit_test(the_patient_outlast_the_hurried),
        cmocka_unit_test(listings_take_their_turn),
        cmocka_unit_test(every_page_counts),
        cmocka_unit_test(claims_take_bytes_of_the_budget),
        cmocka_unit_test(what_is_held_comes_out_of_the_budget),
        cmocka_unit_test(no_memory_fails_the_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
