/* The second request for a read whose answer is late: who wins, what becomes of the other one, and when there is none. That an answer is
 * late is told by a timer that is due at once. */
#include "fetch_world.h"

#include "base/clock.h"

#define AT_ONCE 1
#define NEVER (UINT64_C(3600) * 1000000000)

static void begin_hedged(struct world *w, uint32_t max_requests, uint64_t max_bytes, double share, uint64_t after_ns)
{
    begin(w, max_requests, max_bytes);
    assert_int_equal(sf__hedge_new(&w->store.base.hedge, share, after_ns, NULL, &w->heap.alloc, NULL), SF_OK);
}

static sf_hedge_stats stats_of(const struct world *w)
{
    sf_hedge_stats s;

    sf__hedge_get_stats(w->store.base.hedge, &s);
    return s;
}

/* Until so many answers were late. */
static sf_hedge_stats wait_for_late(struct world *w, uint64_t count)
{
    const uint64_t until = sf__deadline_in_ms(30000);
    sf_hedge_stats s;

    do {
        drain(w);
        s = stats_of(w);
    } while (s.sent + s.refused_budget + s.refused_sick + s.refused_room < count && sf__clock_mono_ns() < until);
    assert_int_equal(s.sent + s.refused_budget + s.refused_sick + s.refused_room, count);
    return s;
}

static void answer_short_on_loop(void *arg)
{
    struct world *w = arg;
    sf_store_op *op = w->store.ops[w->which];

    w->store.ops[w->which] = NULL;
    op->data = sf__buf_new(&sf__allocator_default, op->len - 1);
    sf__store_op_finish(op, NULL);
}

static void deadline_on_loop(void *arg)
{
    struct world *w = arg;

    sf__timer_start(w->loop, &w->readings[0].fetch.timer, 1);
}

/* ------------------------------------------------------------------ two requests --------------------------------- */

enum act { END, GOOD, FAIL, SHORT, CANCEL, DEADLINE };

static void the_first_good_answer_counts(void **state)
{
    static const struct {
        const char *name;
        struct {
            enum act act;
            unsigned op;
        } steps[3]; /* once both are under way */
        sf_status ends;
        char from; /* whose bytes */
        unsigned cancelled, won;
    } rows[] = {
        {"the second one comes first", {{GOOD, 1}}, SF_OK, 'b', 1, 1},
        {"the first one comes first", {{GOOD, 0}}, SF_OK, 'a', 1, 0},
        {"the second one fails", {{FAIL, 1}, {GOOD, 0}}, SF_OK, 'a', 0, 0},
        {"the first one fails", {{FAIL, 0}, {GOOD, 1}}, SF_OK, 'b', 0, 1},
        {"both fail", {{FAIL, 0}, {FAIL, 1}}, SF_IO, 0, 0, 0},
        {"both fail, the first one last", {{FAIL, 1}, {FAIL, 0}}, SF_IO, 0, 0, 0},
        {"the second one is torn", {{SHORT, 1}, {GOOD, 0}}, SF_OK, 'a', 0, 0},
        {"the first one is torn", {{SHORT, 0}, {GOOD, 1}}, SF_OK, 'b', 0, 1},
        {"both are torn", {{SHORT, 1}, {SHORT, 0}}, SF_CORRUPT, 0, 0, 0},
        {"one is torn, one fails", {{SHORT, 0}, {FAIL, 1}}, SF_IO, 0, 0, 0},
        {"nobody waits any more", {{CANCEL, 0}}, SF_CANCELLED, 0, 2, 0},
        {"nobody waits after the first one has failed", {{FAIL, 0}, {CANCEL, 0}}, SF_CANCELLED, 0, 1, 0},
        {"nobody waits after the second one has failed", {{FAIL, 1}, {CANCEL, 0}}, SF_CANCELLED, 0, 1, 0},
        {"too late", {{DEADLINE, 0}}, SF_TIMEOUT, 0, 2, 0},
        {"too late after the first one has failed", {{FAIL, 0}, {DEADLINE, 0}}, SF_TIMEOUT, 0, 1, 0},
    };

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        sf_hedge_stats stats;
        struct world w;

        begin_hedged(&w, 10, 1 << 20, 1, AT_ONCE);
        start(&w, 0, "k", 7, 10);
        gate_wait(&w.store.submitted, 2);
        drain(&w);
        assert_false(w.store.ops[0]->once);
        assert_true(w.store.ops[1]->once);
        assert_string_equal(w.store.ops[1]->key, "k");
        assert_int_equal(w.store.ops[1]->off, 7);
        assert_int_equal(w.store.ops[1]->len, 10);
        for (unsigned i = 0; rows[r].steps[i].act != END; i++) {
            w.which = rows[r].steps[i].op;
            assert_int_equal(w.readings[0].gate.count, 0);
            switch (rows[r].steps[i].act) {
            case GOOD:
                answer(&w, rows[r].steps[i].op, SF_OK);
                break;
            case FAIL:
                answer(&w, rows[r].steps[i].op, SF_IO);
                break;
            case SHORT:
                on_loop(w.loop, answer_short_on_loop, &w);
                break;
            case CANCEL:
                cancel(&w, 0);
                break;
            default:
                on_loop(w.loop, deadline_on_loop, &w);
            }
        }
        gate_wait(&w.readings[0].gate, 1);
        if (w.readings[0].error.code != rows[r].ends)
            fail_msg("%s: %s", rows[r].name, w.readings[0].error.message);
        if (rows[r].ends == SF_IO) { /* what was tried is what the script says: 1 attempt and 2, or none of a torn answer */
            assert_non_null(strstr(w.readings[0].error.message, "both of two requests failed; the last one: "));
            assert_int_equal(w.readings[0].error.attempts, rows[r].steps[0].act == FAIL ? 3 : 2);
        }
        if (rows[r].ends ==
            SF_TIMEOUT) /* 2 attempts of the first request, as its store tells, or 1 that has failed, and 1 of the second one */
            assert_int_equal(w.readings[0].error.attempts, rows[r].steps[0].act == FAIL ? 2 : 3);
        if (rows[r].from && w.readings[0].fetch.data->data[0] != rows[r].from)
            fail_msg("%s: %c", rows[r].name, w.readings[0].fetch.data->data[0]);
        assert_ended(&w, 0, rows[r].ends);
        stats = stats_of(&w);
        if (w.store.cancelled != rows[r].cancelled || stats.won != rows[r].won || stats.sent != 1)
            fail_msg("%s: %u cancelled, %lu sent, %lu won", rows[r].name, w.store.cancelled, (unsigned long)stats.sent,
                     (unsigned long)stats.won);
        assert_int_equal(submitted(&w), 2);
        assert_int_equal(w.observed_requests, 2);
        end(&w);
    }
}

static void answer_both(void *arg)
{
    struct world *w = arg;

    for (w->which = 0; w->which < 2; w->which++)
        if (w->store.ops[w->which])
            answer_on_loop(w);
}

/* One request serves all who wait, and so does its second one; who comes after the answer asks anew, though the slower one has not ended. */
static void all_who_wait_have_the_answer(void **state)
{
    struct world w;

    (void)state;
    begin_hedged(&w, 10, 1 << 20, 1, AT_ONCE);
    start(&w, 0, "k", 0, 10);
    start(&w, 1, "k", 0, 10);
    gate_wait(&w.store.submitted, 2);
    start(&w, 2, "k", 0, 10);
    w.answer = SF_OK;
    on_loop(w.loop, answer_both, &w);
    assert_ptr_equal(w.readings[0].fetch.data, w.readings[2].fetch.data);
    for (unsigned i = 0; i < 3; i++)
        assert_ended(&w, i, SF_OK);
    assert_int_equal(w.store.cancelled, 1); /* its answer did not come through, and harms nobody */
    start(&w, 3, "k", 0, 10);
    gate_wait(&w.store.submitted, 3);
    answer(&w, 2, SF_OK);
    assert_ended(&w, 3, SF_OK);
    end(&w);
}

static sf_status decode_torn_once(sf_fetch *f, sf_buf *data, sf_plain_room *room, sf_error *err)
{
    (void)data;
    (void)room;
    return f->again ? SF_OK : sf_fail(err, SF_CORRUPT, "its checksum is wrong");
}

/* Damage that only the decoder sees: the bytes are read once more, whoever brought them. */
static void a_damaged_winner_is_read_again(void **state)
{
    struct world w;

    (void)state;
    begin_hedged(&w, 10, 1 << 20, 1, AT_ONCE);
    w.which = 0;
    w.spec = (sf_fetch){.key = "k", .len = 10, .decode = decode_torn_once};
    w.readings[0].gate = (struct gate)GATE_INIT;
    on_loop(w.loop, start_on_loop, &w);
    gate_wait(&w.store.submitted, 2);
    answer(&w, 1, SF_OK);
    gate_wait(&w.store.submitted, 4); /* the second reading is late, too */
    answer(&w, 2, SF_OK);
    gate_wait(&w.readings[0].gate, 1);
    drain(&w);
    assert_int_equal(w.readings[0].error.code, SF_OK);
    assert_int_equal(w.store.cancelled, 2);
    end(&w);
}

static void what_is_waited_for_is_told(void **state)
{
    struct world w;
    sf_error e;

    (void)state;
    begin_hedged(&w, 10, 1 << 20, 1, AT_ONCE);
    start(&w, 0, "k", 0, 10);
    gate_wait(&w.store.submitted, 2);
    answer(&w, 0, SF_IO);
    sf__fetch_overdue(&w.readings[0].fetch, 0, &e); /* by the one that is left */
    assert_non_null(strstr(e.message, "test://store/k"));
    answer(&w, 1, SF_OK);
    assert_ended(&w, 0, SF_OK);
    end(&w);
}

/* ------------------------------------------------------------------ none ----------------------------------------- */

static void only_small_ranges_are_hedged(void **state)
{
    static const struct {
        const char *name;
        sf_fetch spec;
        bool hedged;
    } rows[] = {
        {"a range", {.key = "k", .len = 10}, true},
        {"of one version", {.key = "k", .len = 10, .if_match = "\"e\""}, true},
        {"the end of an object", {.key = "k", .len = 10, .suffix = true}, true},
        {"of a megabyte", {.key = "k", .len = 1 << 20}, true},
        {"of more", {.key = "k", .len = (1 << 20) + 1}, false},
        {"a whole object", {.key = "k", .len = SF_STORE_ALL, .max_bytes = 100}, false},
        {"a whole object that may be the same",
         {.key = "k", .len = SF_STORE_ALL, .max_bytes = 100, .if_none_match = "\"e\""},
         false},
    };

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        struct world w;

        begin_hedged(&w, 10, 4 << 20, 1, AT_ONCE);
        w.which = 0;
        w.spec = rows[r].spec;
        w.readings[0].gate = (struct gate)GATE_INIT;
        on_loop(w.loop, start_on_loop, &w);
        start(&w, 1, "other", 0, 10); /* its timer is due behind that of the first */
        wait_for_late(&w, rows[r].hedged ? 2 : 1);
        if (submitted(&w) != (rows[r].hedged ? 4 : 3))
            fail_msg("%s: %u requests", rows[r].name, submitted(&w));
        assert_string_equal(w.store.ops[submitted(&w) - 1]->key, "other");
        for (unsigned i = 0; i < submitted(&w); i++)
            if (w.store.ops[i])
                answer(&w, i, SF_OK);
        assert_ended(&w, 0, SF_OK);
        assert_ended(&w, 1, SF_OK);
        end(&w);
    }
}

static void what_is_in_time_is_asked_for_once(void **state)
{
    struct world w;
    sf_hedge_stats s;

    (void)state;
    begin_hedged(&w, 10, 1 << 20, 1, NEVER);
    start(&w, 0, "answered", 0, 10);
    start(&w, 1, "cancelled", 0, 10);
    start(&w, 2, "late", 0, 10);
    answer(&w, 0, SF_OK);
    cancel(&w, 1);
    w.which = 2;
    on_loop(w.loop, answer_short_on_loop, &w);
    assert_ended(&w, 0, SF_OK);
    assert_ended(&w, 1, SF_CANCELLED);
    assert_ended(&w, 2, SF_CORRUPT);
    s = stats_of(&w);
    assert_int_equal(s.sent + s.refused_budget + s.refused_room + s.refused_sick, 0);
    assert_int_equal(submitted(&w), 3);
    end(&w);
}

/* So many reads, all late. */
static void start_late(struct world *w, unsigned count)
{
    static const char *const keys[] = {"0", "1", "2", "3", "4", "5", "6", "7"};

    for (unsigned i = 0; i < count; i++)
        start(w, i, keys[i], 0, 10);
}

static void assert_all_end_well(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < submitted(w); i++)
        if (w->store.ops[i])
            answer(w, i, SF_OK);
    for (unsigned i = 0; i < count; i++)
        assert_ended(w, i, SF_OK);
}

static void the_share_is_kept(void **state)
{
    sf_hedge_stats s;
    struct world w;

    (void)state;
    begin_hedged(&w, 100, 1 << 20, 0.25, AT_ONCE);
    start_late(&w, 8);
    s = wait_for_late(&w, 8);
    assert_int_equal(s.sent, 2);
    assert_int_equal(s.refused_budget, 6);
    assert_int_equal(submitted(&w), 10);
    assert_all_end_well(&w, 8);
    end(&w);
}

/* The store says no to each of so many reads, or their readers are in a hurry, which is not the store's fault. */
static void trouble(struct world *w, unsigned count, bool late)
{
    for (unsigned i = 0; i < count; i++) {
        start_until(w, 0, "k", 10, late ? 1 : SF_NO_DEADLINE);
        if (!late)
            answer(w, submitted(w) - 1, SF_UNAVAILABLE);
        assert_ended(w, 0, late ? SF_TIMEOUT : SF_UNAVAILABLE);
    }
}

static void a_store_in_trouble_is_not_asked_more(void **state)
{
    for (unsigned count = 0; count < 2; count++) {
        for (int late = 0; late < 2; late++) {
            struct world w;

            (void)state;
            begin_hedged(&w, 100, 1 << 20, 0.5, NEVER);
            for (int i = 0; i < 2; i++)
                sf__hedge_note_request(w.store.base.hedge);
            trouble(&w, count, late);
            assert_int_equal(sf__hedge_ask(w.store.base.hedge, 10, NEVER),
                             count == 0 || late ? SF_HEDGE_SEND : SF_HEDGE_REFUSED);
            assert_int_equal(stats_of(&w).refused_sick, count == 0 || late ? 0 : 1);
            end(&w);
        }
    }
}

static void start_together(void *arg)
{
    static const char *const keys[] = {"0", "1", "2"};
    struct world *w = arg;

    for (unsigned i = 0; i < w->which; i++) {
        const sf_fetch spec = {.key = keys[i], .len = 10};

        w->readings[i].gate = (struct gate)GATE_INIT;
        start_one(w, i, &spec);
    }
}

/* One that has waited for its turn asks only then, and may be late itself. */
static void answer_until_ended(struct world *w, unsigned reads)
{
    for (unsigned ended = 0; ended < reads;) {
        for (unsigned i = 0; i < submitted(w); i++)
            if (w->store.ops[i])
                answer(w, i, SF_OK);
        drain(w);
        for (ended = 0; ended < reads && gate_count(&w->readings[ended].gate) > 0;)
            ended++;
    }
}

/* A bound that is reached, or a line. */
static void without_room_there_is_none(void **state)
{
    static const struct {
        const char *name;
        uint32_t max_requests;
        uint64_t max_bytes;
        unsigned reads;
        uint64_t sent, room;
    } rows[] = {
        {"room for all", 10, 1000, 2, 2, 0},    {"no request left", 2, 1000, 2, 0, 2},
        {"one request left", 3, 1000, 2, 1, 1}, {"no bytes left", 10, 25, 2, 0, 2},
        {"bytes for one", 10, 30, 2, 1, 1},     {"others wait", 2, 1000, 3, 0, 2},
    };

    (void)state;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        sf_hedge_stats s;
        struct world w;

        begin_hedged(&w, rows[r].max_requests, rows[r].max_bytes, 1, AT_ONCE);
        w.which = rows[r].reads;
        on_loop(w.loop, start_together, &w);
        s = wait_for_late(&w, 2);
        if (s.sent != rows[r].sent || s.refused_room != rows[r].room)
            fail_msg("%s: %lu sent, %lu without room", rows[r].name, (unsigned long)s.sent,
                     (unsigned long)s.refused_room);
        answer_until_ended(&w, rows[r].reads);
        for (unsigned i = 0; i < rows[r].reads; i++)
            assert_ended(&w, i, SF_OK);
        end(&w);
    }
}

/* Which allocation of a read fails, and what that is for. */
static void without_memory_there_is_none(void **state)
{
    static const struct {
        const char *what;
        sf_status ends;
        bool fires;
        uint64_t sent, room;
    } rows[] = {
        {"the read", SF_NOMEM, true, 0, 0},
        {"its request: it waits for that of another one", SF_OK, true, 0, 0},
        {"what tells that it is late", SF_OK, true, 0, 0},
        {"the second request", SF_OK, true, 0, 1},
        {"none", SF_OK, false, 1, 0},
    };

    (void)state;
    for (long n = 0; n < (long)(sizeof(rows) / sizeof(rows[0])); n++) {
        sf_hedge_stats s;
        struct world w;

        begin_hedged(&w, 10, 1 << 20, 1, AT_ONCE);
        start(&w, 1, "other", 0, 10); /* has the spare request */
        wait_for_late(&w, 1);
        heap_arm(&w.heap, n);
        start(&w, 0, "k", 0, 10);
        s = wait_for_late(&w, 1 + rows[n].sent + rows[n].room);
        if (heap_disarm(&w.heap) != rows[n].fires || s.sent != 1 + rows[n].sent || s.refused_room != rows[n].room)
            fail_msg("%s: %lu sent, %lu without room", rows[n].what, (unsigned long)s.sent,
                     (unsigned long)s.refused_room);
        answer_until_ended(&w, 2);
        assert_ended(&w, 0, rows[n].ends);
        assert_ended(&w, 1, SF_OK);
        end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_good_answer_counts),
        cmocka_unit_test(all_who_wait_have_the_answer),
        cmocka_unit_test(a_damaged_winner_is_read_again),
        cmocka_unit_test(what_is_waited_for_is_told),
        cmocka_unit_test(only_small_ranges_are_hedged),
        cmocka_unit_test(what_is_in_time_is_asked_for_once),
        cmocka_unit_test(the_share_is_kept),
        cmocka_unit_test(a_store_in_trouble_is_not_asked_more),
        cmocka_unit_test(without_room_there_is_none),
        cmocka_unit_test(without_memory_there_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
