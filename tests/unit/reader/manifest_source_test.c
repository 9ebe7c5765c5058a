/* Readers over a source of manifests of the caller's: answers at once, later, from other threads, twice, never; failures,
 * deadlines, cancelling; and what the reader makes of them. */
#include "world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../support/heap.h"
#include "base/thread.h"

#define PATIENCE_MS 30000
#define RUNS 3u

enum how { AT_ONCE, FROM_ANOTHER_THREAD, HELD };

/* What the source knows, and how it answers. */
struct source {
    sf_manifest_source vtable;
    struct world *w;
    enum how how;
    unsigned pointer;    /* of runs 0 to 2; RUNS: nothing was published */
    const char *bad;     /* the ref of a manifest that is malformed for the source, or NULL */
    const char *garbage; /* of one whose bytes are no manifest, or NULL */
    const char *fails;   /* the question that fails: "current", "list" or a ref; or NULL */
    sf_status code;      /* in that way */
    bool forgets;        /* gives questions back without an answer */
    bool mute;           /* gives NULL for texts */
    sf_bytes manifests[RUNS];
    sf_object objects[RUNS];
    pthread_t threads[64];
    unsigned thread_count;
    atomic_uint asked, abandoned, retained, refused;
    atomic_size_t limit;
    sf_mutex lock;
    sf_cond wake;
    sf_manifest_request *held; /* under lock */
    char question[64];         /* of the last question; under lock */
    void *call_ctx;
};

static const char *const refs[RUNS] = {"one", "two", "three"};

struct job {
    struct source *s;
    sf_manifest_request *rq;
    char question[64];
};

/* Counts answers that came to nothing. */
static void expect_taken(struct source *s, bool taken)
{
    if (!taken)
        atomic_fetch_add(&s->refused, 1);
}

static void answer(struct source *s, sf_manifest_request *rq, const char *question)
{
    if (s->forgets) {
        sf_manifest_request_release(rq);
        return;
    }
    if (s->fails && strcmp(s->fails, question) == 0) {
        expect_taken(s, sf_manifest_request_fail(rq, s->code, s->mute ? NULL : "the source says no"));
    } else if (strcmp(question, "current") == 0) {
        expect_taken(s, sf_manifest_request_current(rq, s->pointer < RUNS ? refs[s->pointer] : NULL));
    } else if (strcmp(question, "list") == 0) {
        const char *newest_first[RUNS] = {refs[2], s->mute ? NULL : refs[1], refs[0]};

        expect_taken(s, sf_manifest_request_refs(rq, newest_first, RUNS));
    } else if (s->bad && strcmp(question, s->bad) == 0) {
        expect_taken(s, sf_manifest_request_fail(rq, SF_BAD_MANIFEST, "malformed, the source says"));
    } else {
        for (size_t i = 0; i < RUNS; i++)
            if (strcmp(refs[i], question) == 0)
                expect_taken(s, sf_manifest_request_manifest(rq, s->garbage && strcmp(question, s->garbage) == 0
                                                                     ? sf_bytes_str("no manifest")
                                                                     : s->manifests[i]));
    }
    sf_manifest_request_release(rq);
}

static void *answer_on_thread(void *arg)
{
    struct job *j = arg;

    answer(j->s, j->rq, j->question);
    free(j);
    return NULL;
}

static void asked(struct source *s, sf_manifest_request *rq, const char *question)
{
    struct job *j;

    atomic_fetch_add(&s->asked, 1);
    sf_mutex_lock(&s->lock);
    snprintf(s->question, sizeof(s->question), "%s", question);
    s->call_ctx = sf_manifest_request_call_ctx(rq);
    if (s->how == HELD) {
        s->held = rq;
        pthread_cond_broadcast(&s->wake);
    }
    sf_mutex_unlock(&s->lock);
    if (s->how == AT_ONCE) {
        answer(s, rq, question);
    } else if (s->how == FROM_ANOTHER_THREAD) {
        j = malloc(sizeof(*j));
        *j = (struct job){.s = s, .rq = rq};
        snprintf(j->question, sizeof(j->question), "%s", question);
        assert_true(s->thread_count < 64);
        assert_int_equal(pthread_create(&s->threads[s->thread_count++], NULL, answer_on_thread, j), 0);
    }
}

static void load_current(void *ctx, sf_manifest_request *rq)
{
    asked(ctx, rq, "current");
}

static void load_manifest(void *ctx, const char *ref, sf_manifest_request *rq)
{
    asked(ctx, rq, ref);
}

static void list_manifests(void *ctx, size_t limit, sf_manifest_request *rq)
{
    atomic_store(&((struct source *)ctx)->limit, limit);
    asked(ctx, rq, "list");
}

static void abandoned(void *ctx, sf_manifest_request *rq)
{
    struct source *s = ctx;

    assert_false(sf_manifest_request_current(rq, "x")); /* nobody waits */
    atomic_fetch_add(&s->abandoned, 1);
}

static void retain(void *ctx)
{
    atomic_fetch_add(&((struct source *)ctx)->retained, 1);
}

/* The last that the engine does with the source, wherever it does it. */
static void release(void *ctx)
{
    struct source *s = ctx;

    sf_mutex_lock(&s->lock);
    atomic_fetch_sub(&s->retained, 1);
    pthread_cond_broadcast(&s->wake);
    sf_mutex_unlock(&s->lock);
}

/* Waits for a question that is held, and takes it. */
static sf_manifest_request *take_held(struct source *s)
{
    sf_manifest_request *rq;

    sf_mutex_lock(&s->lock);
    while (!s->held)
        pthread_cond_wait(&s->wake, &s->lock);
    rq = s->held;
    s->held = NULL;
    sf_mutex_unlock(&s->lock);
    return rq;
}

static void source_open(struct source *s, struct world *w)
{
    *s = (struct source){
        .vtable = {.size = sizeof(s->vtable),
                   .load_current = load_current,
                   .load_manifest = load_manifest,
                   .list_manifests = list_manifests,
                   .abandoned = abandoned,
                   .retain = retain,
                   .release = release,
                   .ctx = s},
        .w = w,
        .pointer = 2,
    };
    sf_mutex_init(&s->lock);
    pthread_cond_init(&s->wake, NULL);
    for (unsigned i = 0; i < RUNS; i++) {
        char name[256], key[300];

        world_manifest_name(i, name);
        snprintf(key, sizeof(key), "copy/%s", name);
        assert_int_equal(sf_bucket_get(w->bucket, key, 1 << 20, PATIENCE_MS, &s->objects[i], NULL), SF_OK);
        s->manifests[i] = s->objects[i].data;
    }
}

static void source_close(struct source *s)
{
    for (unsigned i = 0; i < s->thread_count; i++)
        pthread_join(s->threads[i], NULL);
    sf_mutex_lock(&s->lock);
    while (atomic_load(&s->retained) > 0)
        pthread_cond_wait(&s->wake, &s->lock);
    sf_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < RUNS; i++)
        sf_object_release(&s->objects[i]);
    pthread_cond_destroy(&s->wake);
    sf_mutex_destroy(&s->lock);
}

/* The fixtures' shards were published to S3, and lie in memory. */
static sf_reader_options options(const struct source *s)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;

    o.manifests = &s->vtable;
    o.confine = SF_CONFINE_YES;
    o.open_timeout_ms = PATIENCE_MS;
    return o;
}

static sf_status open_with(struct world *w, const struct source *s, sf_reader **r, sf_error *e)
{
    sf_reader_options o = options(s);

    *e = (sf_error)SF_ERROR_INIT;
    return sf_reader_open(r, w->rt, PREFIX, &o, e);
}

/* ------------------------------------------------------------------ the tests ------------------------------------ */

static void every_way_of_answering_opens_and_refreshes(void **state)
{
    static const enum how ways[] = {AT_ONCE, FROM_ANOTHER_THREAD};

    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        struct source s;
        sf_reader *r;
        sf_error e;
        sf_value v;
        sf_key key = sf_key_int(250);
        bool changed;

        source_open(&s, *state);
        s.how = ways[i];
        s.pointer = 0;
        assert_int_equal(open_with(*state, &s, &r, &e), SF_OK);
        assert_string_equal(world_run_id(r), "run-000");
        assert_int_equal(atomic_load(&s.asked), 2);
        assert_null(s.call_ctx);
        assert_int_equal(sf_reader_get(r, &key, PATIENCE_MS, &v, &e), SF_OK);
        sf_value_release(&v);
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, &e), SF_OK);
        assert_false(changed);
        assert_int_equal(atomic_load(&s.asked), 3); /* a pointer that names what is served needs no manifest */
        s.pointer = 2;
        assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, &e), SF_OK);
        assert_true(changed);
        assert_string_equal(world_run_id(r), "run-002");
        assert_int_equal(atomic_load(&s.refused), 0);
        sf_reader_free(r);
        source_close(&s);
    }
}

static void what_the_source_says_decides(void **state)
{
    static const struct {
        const char *name;
        unsigned pointer;
        const char *bad, *garbage, *fails;
        sf_status code;
        bool forgets;
        uint32_t max_fallbacks;
        sf_status expected;
        const char *says; /* part of the message; NULL: it opens */
        const char *serves;
        unsigned asked, rejected;
        bool mute;
    } cases[] = {
        {"sound", 1, NULL, NULL, NULL, SF_OK, false, 3, SF_OK, NULL, "run-001", 2, 0},
        {"nothing published", RUNS, NULL, NULL, NULL, SF_OK, false, 3, SF_NO_CURRENT, "CURRENT pointer not found", NULL,
         1, 0},
        {"the pointer fails", 0, NULL, NULL, "current", SF_DENIED, false, 3, SF_DENIED, "the source says no", NULL, 1, 0},
        {"SF_OK is no failure", 0, NULL, NULL, "current", SF_OK, false, 3, SF_IO, "the source says no", NULL, 1, 0},
        {"no such status", 0, NULL, NULL, "current", (sf_status)999, false, 3, SF_IO, "the source says no", NULL, 1, 0},
        {"the manifest fails", 2, NULL, NULL, "three", SF_NOT_FOUND, false, 3, SF_NOT_FOUND,
         "three: the source says no", NULL, 2, 1},
        {"malformed, the source says", 2, "three", NULL, NULL, SF_OK, false, 3, SF_OK, NULL, "run-001", 4, 1},
        {"malformed, the parser says", 2, NULL, "three", NULL, SF_OK, false, 3, SF_OK, NULL, "run-001", 4, 1},
        {"both ways", 2, "three", "two", NULL, SF_OK, false, 3, SF_OK, NULL, "run-000", 5, 2},
        {"no fallback", 2, "three", NULL, NULL, SF_OK, false, 0, SF_BAD_MANIFEST, "malformed, the source says", NULL, 2,
         1},
        {"fallback without candidates", 2, "three", "two", NULL, SF_OK, false, 1, SF_NO_SNAPSHOT, "2 tried", NULL, 4, 2},
        {"the list fails", 2, "three", NULL, "list", SF_UNAVAILABLE, false, 3, SF_UNAVAILABLE, "the source says no",
         NULL, 3, 1},
        {"no answer", 2, NULL, NULL, NULL, SF_OK, true, 3, SF_INVALID, "has given no answer", NULL, 1, 0},
        {"no reason", 0, NULL, NULL, "current", SF_DENIED, false, 3, SF_DENIED, "no reason was given", NULL, 1, 0, true},
        {"a list with a hole", 2, "three", NULL, NULL, SF_OK, false, 3, SF_INVALID, "lists one without a reference",
         NULL, 3, 1, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct source s;
        sf_reader_options o;
        sf_call *call;
        sf_error e = SF_ERROR_INIT;
        size_t rejected;
        int mark;

        source_open(&s, *state);
        s.pointer = cases[i].pointer;
        s.bad = cases[i].bad;
        s.garbage = cases[i].garbage;
        s.fails = cases[i].fails;
        s.code = cases[i].code;
        s.forgets = cases[i].forgets;
        s.mute = cases[i].mute;
        o = options(&s);
        o.max_fallbacks = cases[i].max_fallbacks;
        assert_int_equal(sf_reader_open_start(&call, ((struct world *)*state)->rt, PREFIX, &o, NULL, &mark, &e), SF_OK);
        if (sf_call_wait(call, &e) != cases[i].expected || atomic_load(&s.asked) != cases[i].asked)
            fail_msg("%s: %s after %u questions: %s", cases[i].name, sf_status_name(e.code), atomic_load(&s.asked),
                     e.message);
        if (cases[i].says && !strstr(e.message, cases[i].says))
            fail_msg("%s: %s", cases[i].name, e.message);
        sf_call_rejected_manifests(call, &rejected);
        if (rejected != cases[i].rejected || s.call_ctx != &mark)
            fail_msg("%s: %zu rejected", cases[i].name, rejected);
        if (cases[i].serves) {
            sf_reader *r = sf_call_take_reader(call);

            if (strcmp(world_run_id(r), cases[i].serves) != 0)
                fail_msg("%s: %s", cases[i].name, world_run_id(r));
            sf_reader_free(r);
        }
        if (cases[i].asked > 2 && atomic_load(&s.limit) != cases[i].max_fallbacks + 1)
            fail_msg("%s: limit %zu", cases[i].name, atomic_load(&s.limit));
        sf_call_release(call);
        source_close(&s);
    }
}

static void a_refresh_that_fails_changes_nothing(void **state)
{
    struct source s;
    sf_reader *r;
    sf_error e;
    bool changed = true;

    source_open(&s, *state);
    s.pointer = 0;
    assert_int_equal(open_with(*state, &s, &r, &e), SF_OK);
    s.pointer = 2;
    s.bad = "three";
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, &e), SF_OK);
    assert_false(changed);
    s.bad = NULL;
    s.fails = "three";
    s.code = SF_UNAVAILABLE;
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, &e), SF_UNAVAILABLE);
    assert_string_equal(world_run_id(r), "run-000");
    sf_reader_free(r);
    source_close(&s);
}

static void one_answer_counts(void **state)
{
    const char *list[] = {"one"};
    struct source s;
    sf_reader_options o;
    sf_manifest_request *rq;
    sf_call *call;
    sf_reader *r;
    sf_error e = SF_ERROR_INIT;

    source_open(&s, *state);
    s.how = HELD;
    o = options(&s);
    assert_int_equal(sf_reader_open_start(&call, ((struct world *)*state)->rt, PREFIX, &o, NULL, NULL, &e), SF_OK);
    rq = take_held(&s);
    assert_false(sf_manifest_request_manifest(rq, s.manifests[0])); /* to another question */
    assert_false(sf_manifest_request_refs(rq, list, 1));
    assert_true(sf_manifest_request_current(rq, "two"));
    assert_false(sf_manifest_request_current(rq, "three"));
    assert_false(sf_manifest_request_fail(rq, SF_IO, "too late"));
    sf_manifest_request_release(rq);
    rq = take_held(&s);
    assert_string_equal(s.question, "two");
    assert_true(sf_manifest_request_manifest(rq, s.manifests[1]));
    sf_manifest_request_release(rq);
    assert_int_equal(sf_call_wait(call, &e), SF_OK);
    r = sf_call_take_reader(call);
    assert_string_equal(world_run_id(r), "run-001");
    sf_call_release(call);
    sf_reader_free(r);
    source_close(&s);
}

/* At each question in turn, by a deadline and by cancelling: the answer that comes afterwards is refused. */
static void answers_that_nobody_waits_for(void **state)
{
    static const char *const questions[] = {"current", "three", "list"};
    struct world *w = *state;

    for (unsigned n = 0; n < 6; n++) {
        struct source s;
        sf_reader_options o;
        sf_manifest_request *rq;
        sf_call *call;
        sf_error e = SF_ERROR_INIT;
        bool late = n % 2;

        source_open(&s, w);
        s.how = HELD;
        s.bad = "three";
        o = options(&s);
        if (late && n / 2 == 0) {
            for (o.open_timeout_ms = 1;; o.open_timeout_ms *= 2) { /* so long that it comes as far as the question */
                assert_int_equal(sf_reader_open_start(&call, w->rt, PREFIX, &o, NULL, NULL, &e), SF_OK);
                assert_int_equal(sf_call_wait(call, &e), SF_TIMEOUT);
                if (atomic_load(&s.asked) > 0)
                    break;
                sf_call_release(call);
            }
        } else {
            assert_int_equal(sf_reader_open_start(&call, w->rt, PREFIX, &o, NULL, NULL, &e), SF_OK);
        }
        for (unsigned i = 0; i < n / 2; i++)
            answer(&s, take_held(&s), questions[i]);
        rq = take_held(&s);
        assert_string_equal(s.question, questions[n / 2]);
        if (late && n / 2 == 0) {
            assert_non_null(strstr(e.message, "load_current: the deadline passed"));
            assert_string_equal(e.operation, "load_current");
        } else {
            sf_call_cancel(call);
            assert_int_equal(sf_call_wait(call, &e), SF_CANCELLED);
        }
        assert_int_equal(atomic_load(&s.abandoned), 1);
        assert_false(sf_manifest_request_fail(rq, SF_IO, "late"));
        assert_int_equal(atomic_load(&s.retained), 1); /* the question keeps the source */
        sf_manifest_request_release(rq);
        sf_call_release(call);
        source_close(&s);
    }
}

static void a_source_may_answer_after_the_end_of_everything(void **state)
{
    struct source s;
    struct world w;
    sf_manifest_request *rq;
    sf_reader_options o;
    sf_call *call;

    (void)state;
    world_open(&w, NULL);
    source_open(&s, &w);
    s.how = HELD;
    o = options(&s);
    assert_int_equal(sf_reader_open_start(&call, w.rt, PREFIX, &o, NULL, NULL, NULL), SF_OK);
    rq = take_held(&s);
    sf_call_cancel(call);
    sf_call_release(call);
    for (unsigned i = 0; i < RUNS; i++) {
        sf_object_release(&s.objects[i]);
        s.objects[i] = (sf_object){0};
    }
    world_close(&w);
    assert_int_equal(atomic_load(&s.retained), 1);
    assert_false(sf_manifest_request_current(rq, "one"));
    sf_manifest_request_release(rq);
    assert_int_equal(atomic_load(&s.retained), 0);
    source_close(&s);
}

/* Whoever comes first, the answer or the cancelling: one end, and nothing is lost. */
static void answers_and_cancelling_meet(void **state)
{
    struct world *w = *state;

    for (unsigned n = 0; n < 40; n++) {
        struct source s;
        sf_reader_options o;
        sf_call *call;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        source_open(&s, w);
        s.how = FROM_ANOTHER_THREAD;
        o = options(&s);
        assert_int_equal(sf_reader_open_start(&call, w->rt, PREFIX, &o, NULL, NULL, &e), SF_OK);
        for (unsigned i = 0; i < n % 8; i++)
            sched_yield();
        sf_call_cancel(call);
        rc = sf_call_wait(call, &e);
        assert_true(rc == SF_CANCELLED || rc == SF_OK);
        sf_call_release(call);
        source_close(&s);
    }
}

static void sources_that_are_none(void **state)
{
    static const struct {
        const char *name;
        size_t missing, other;
        const char *says;
    } cases[] = {
        {"load_current", offsetof(sf_manifest_source, load_current), SIZE_MAX, "load_current is missing"},
        {"load_manifest", offsetof(sf_manifest_source, load_manifest), SIZE_MAX, "load_manifest is missing"},
        {"list_manifests", offsetof(sf_manifest_source, list_manifests), SIZE_MAX, "list_manifests is missing"},
        {"retain", offsetof(sf_manifest_source, retain), SIZE_MAX, "retain is missing"},
        {"release", offsetof(sf_manifest_source, release), SIZE_MAX, "release is missing"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct source s;
        sf_reader *r;
        sf_error e;
        void *null = NULL;

        source_open(&s, *state);
        memcpy((char *)&s.vtable + cases[i].missing, &null, sizeof(null));
        assert_int_equal(open_with(*state, &s, &r, &e), SF_INVALID);
        if (!strstr(e.message, cases[i].says))
            fail_msg("%s: %s", cases[i].name, e.message);
        assert_int_equal(atomic_load(&s.retained), 0);
        source_close(&s);
    }
}

/* An older caller's source ends before `abandoned` would; without confinement the manifest's own locations count. */
static void shards_are_read_where_the_manifest_says(void **state)
{
    struct source s;
    sf_reader_options o;
    sf_reader *r;
    sf_error e = SF_ERROR_INIT;

    source_open(&s, *state);
    s.vtable.abandoned = NULL;
    o = options(&s);
    o.confine = SF_CONFINE_DEFAULT;
    o.lazy_shards = true; /* nothing of S3 is asked before a key is */
    assert_int_equal(sf_reader_open(&r, ((struct world *)*state)->rt, "a name, no location", &o, &e), SF_OK);
    assert_string_equal(world_run_id(r), "run-002");
    sf_reader_free(r);
    source_close(&s);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for (long nth = 0;; nth += TEST_STEP) {
        struct test_heap heap;
        sf_runtime_options ro = SF_RUNTIME_OPTIONS_INIT;
        struct source s;
        struct world w;
        sf_reader *r = NULL;
        sf_error e;
        sf_status rc;
        bool fired;

        heap_init(&heap);
        ro.allocator = &heap.alloc;
        world_open(&w, &ro);
        source_open(&s, &w);
        s.bad = "three";
        heap_arm(&heap, nth);
        rc = open_with(&w, &s, &r, &e);
        fired = heap_disarm(&heap);
        if (rc == SF_OK)
            sf_reader_free(r);
        source_close(&s);
        world_close(&w);
        assert_int_equal(atomic_load(&heap.live), 0);
        assert_int_equal(atomic_load(&s.retained), 0);
        if (!fired) {
            assert_int_equal(rc, SF_OK);
            break;
        }
        if (rc != SF_OK && rc != SF_NOMEM) /* what only speeds things up may do without */
            fail_msg("allocation %ld: %s: %s", nth, sf_status_name(rc), e.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_way_of_answering_opens_and_refreshes, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(what_the_source_says_decides, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(a_refresh_that_fails_changes_nothing, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(one_answer_counts, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(answers_that_nobody_waits_for, world_set_up, world_tear_down),
        cmocka_unit_test(a_source_may_answer_after_the_end_of_everything),
        cmocka_unit_test_setup_teardown(answers_and_cancelling_meet, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(sources_that_are_none, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(shards_are_read_where_the_manifest_says, world_set_up, world_tear_down),
        cmocka_unit_test(every_allocation_fails_once),
    };

    return cmocka_run_group_tests_name("sources of manifests", tests, NULL, NULL);
}
