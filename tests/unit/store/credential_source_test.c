/* A source of credentials that the caller provides, and what the S3 store makes of it: asked when there are none, ahead of
 * the end, and after a refusal; while it fails, hangs, or is let go meanwhile. */
#include "s3_bench.h"
#include "scripted_server.h"

#include <limits.h>
#include <sched.h>

#include "auth/credential_fetch.h"
#include "base/error.h"

#define REPLY(status, headers, body) "HTTP/1.1 " status "\r\nConnection: close\r\n" headers "\r\n" body
#define OBJECT REPLY("206 Partial Content", "Content-Length: 1\r\nContent-Range: bytes 0-0/1\r\n", "x")
#define REFUSED(status, code) REPLY(status, "", "<Error><Code>" code "</Code></Error>")
#define DENIED REFUSED("403 Forbidden", "AccessDenied")

/* The time of day of these tests. */
#define START_US (INT64_C(1893452400) * 1000000)
#define SECONDS(n) (INT64_C(1000000) * (n))
static atomic_llong now;

static int64_t test_now_us(void)
{
    return atomic_load(&now);
}

/* ------------------------------------------------------------------ a scripted source ---------------------------- */

/* An answer: "ID SECRET TOKEN END" (a dot: none; END in seconds from START_US, 0: not known), "!text" for a failure, "?" for
 * none at all, "~" in front: not before the gate `go` has opened for it. The last one is repeated. */
struct source {
    sf_credential_source s;
    atomic_int held; /* how often it is retained */
    const char *const *answers;
    unsigned next, calls; /* one thread at a time */
    struct gate asked, go, gone;
};

static void source_answer(sf_credential_answer *answer, const char *text)
{
    char part[3][64];
    long end;

    if (text[0] == '?')
        return;
    if (text[0] == '!') {
        sf_credential_answer_set(answer, "UNUSED", "S3CRET", NULL, 0); /* the last one counts */
        sf_credential_answer_fail(answer, SF_OK, text + 1);
        return;
    }
    if (sscanf(text, "%63[^,],%63[^,],%63[^,],%ld", part[0], part[1], part[2], &end) != 4)
        abort();
    sf_credential_answer_fail(answer, SF_DENIED, "not this");
    sf_credential_answer_set(answer, strcmp(part[0], ".") == 0 ? NULL : part[0], part[1],
                             strcmp(part[2], ".") == 0 ? NULL : part[2], end == 0 ? 0 : START_US + SECONDS(end));
}

static void source_get(void *ctx, sf_credential_answer *answer)
{
    struct source *s = ctx;
    const char *text = s->answers[s->next];

    s->calls++;
    s->next += text && s->answers[s->next + 1];
    gate_arrive(&s->asked);
    if (!text)
        return;
    if (text[0] == '~')
        gate_wait(&s->go, s->calls);
    source_answer(answer, text + (text[0] == '~'));
}

static void source_retain(void *ctx)
{
    atomic_fetch_add(&((struct source *)ctx)->held, 1);
}

static void source_release(void *ctx)
{
    struct source *s = ctx;

    if (atomic_fetch_sub(&s->held, 1) == 1)
        gate_arrive(&s->gone);
}

static void source_init(struct source *s, const char *const *answers)
{
    *s = (struct source){
        .s = {.size = sizeof(s->s), .get = source_get, .retain = source_retain, .release = source_release, .ctx = s},
        .answers = answers,
        .asked = GATE_INIT,
        .go = GATE_INIT,
        .gone = GATE_INIT,
    };
}

static sf_credential_origin origin_of(struct source *s, bool seeded)
{
    sf_credential_origin o = {.kind = SF_ORIGIN_SOURCE};

    assert_int_equal(sf__asker_new(&o.asker, &s->s, NULL), SF_OK);
    if (seeded) {
        o.access_key_id = (char *)"AAA";
        o.secret_access_key = (char *)"S3CRET";
        o.session_token = (char *)"T0KEN";
    }
    return o;
}

static void store_open(struct bench *b, const char *endpoint, struct source *s, bool seeded)
{
    sf_s3_resolved r = {.options = SF_S3_OPTIONS_INIT};

    r.options.endpoint_url = endpoint;
    r.options.region = "us-east-1";
    r.options.addressing = SF_ADDRESSING_PATH;
    r.options.connect_timeout_ms = r.options.read_timeout_ms = 10000;
    r.origin = origin_of(s, seeded);
    assert_int_equal(bench_open_bucket(b, &sf__allocator_default, "bkt", &r, test_now_us), SF_OK);
    sf__asker_release(r.origin.asker);
}

/* ------------------------------------------------------------------ refusals ------------------------------------- */

static void asked_when_the_store_refuses(void **state)
{
    static const struct {
        const char *name;
        bool seeded;
        long seed_end; /* seconds from START_US; 0: not known; LONG_MIN: as early as can be */
        sf_store_verb verb;
        unsigned runs; /* of the same operation; the last one is looked at */
        int pause;     /* seconds between them */
        const char *objects[SERVER_STEPS], *answers[4];
        sf_status rc;
        uint32_t attempts;
        unsigned requests, asked;
        const char *sent, *message;
    } rows[] = {
        /* clang-format off */
        {"no keys yet", false, 0, SF_STORE_GET, 2, 0, {OBJECT, OBJECT}, {"AAA,S,T1,0"}, SF_OK, 1, 2, 1,
         "x-amz-security-token: T1\r\n", ""},
        {"keys without a token", false, 0, SF_STORE_GET, 1, 0, {OBJECT}, {"AAA,S,.,0"}, SF_OK, 1, 1, 1, "Credential=AAA/", ""},
        {"keys that were told before", true, 0, SF_STORE_GET, 2, 9, {OBJECT, OBJECT}, {0}, SF_OK, 1, 2, 0,
         "Credential=AAA/", ""},
        {"those are over", true, -1, SF_STORE_GET, 1, 0, {OBJECT}, {"BBB,S,T,0"}, SF_OK, 1, 1, 1, "Credential=BBB/", ""},
        {"those were over before there were any", true, LONG_MIN, SF_STORE_GET, 1, 0, {OBJECT}, {"BBB,S,T,0"}, SF_OK, 1, 1, 1,
         "Credential=BBB/", ""},
        {"expired", true, 0, SF_STORE_GET, 1, 0, {REFUSED("400 Bad Request", "ExpiredToken"), OBJECT}, {"BBB,S,T,0"}, SF_OK, 2,
         2, 1, "Credential=BBB/", ""},
        {"an unknown token", true, 0, SF_STORE_GET, 1, 0, {REFUSED("400 Bad Request", "InvalidToken"), OBJECT}, {"BBB,S,T,0"},
         SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"an unknown key", true, 0, SF_STORE_GET, 1, 0, {REFUSED("403 Forbidden", "InvalidAccessKeyId"), OBJECT},
         {"BBB,S,T,0"}, SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"an unknown key, in versitygw's words", true, 0, SF_STORE_GET, 1, 0, {REFUSED("404 Not Found", "XAdminUserNotFound"),
         OBJECT}, {"BBB,S,T,0"}, SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"another signature", true, 0, SF_STORE_GET, 1, 0, {REFUSED("403 Forbidden", "SignatureDoesNotMatch"), OBJECT},
         {"BBB,S,T,0"}, SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"denied", true, 0, SF_STORE_GET, 1, 0, {DENIED, OBJECT}, {"BBB,S,T,0"}, SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"401", true, 0, SF_STORE_GET, 1, 0, {REPLY("401 Unauthorized", "", ""), OBJECT}, {"BBB,S,T,0"}, SF_OK, 2, 2, 1,
         "Credential=BBB/", ""},
        {"HEAD", true, 0, SF_STORE_HEAD, 1, 0, {REPLY("403 Forbidden", "", ""), REPLY("200 OK", "Content-Length: 3\r\n", "")},
         {"BBB,S,T,0"}, SF_OK, 2, 2, 1, "Credential=BBB/", ""},
        {"denied to all", true, 0, SF_STORE_GET, 1, 0, {DENIED, DENIED}, {"BBB,S,T,0"}, SF_DENIED, 2, 2, 1,
         "Credential=BBB/", "AccessDenied, in attempt 2"},
        {"denied again at once", true, 0, SF_STORE_GET, 3, 2, {DENIED, DENIED, DENIED, DENIED}, {"BBB,S,T,0"}, SF_DENIED, 1, 4,
         1, "Credential=BBB/", "AccessDenied"},
        {"denied again later", true, 0, SF_STORE_GET, 2, 5, {DENIED, DENIED, DENIED, DENIED}, {"BBB,S,T,0", "CCC,S,T,0"},
         SF_DENIED, 2, 4, 2, "Credential=CCC/", "AccessDenied"},
        {"the clock was set back", true, 0, SF_STORE_GET, 2, -9000, {DENIED, OBJECT, DENIED, OBJECT},
         {"BBB,S,T,0", "CCC,S,T,0"}, SF_OK, 2, 4, 2, "Credential=CCC/", ""},
        {"our clock", true, 0, SF_STORE_GET, 1, 0, {REFUSED("403 Forbidden", "RequestTimeTooSkewed")}, {0}, SF_DENIED, 1, 1, 0,
         "", "the clock of this machine"},
        {"not there", true, 0, SF_STORE_GET, 1, 0, {REFUSED("404 Not Found", "NoSuchKey")}, {0}, SF_NOT_FOUND, 1, 1, 0, "", ""},
        {"it fails", true, 0, SF_STORE_GET, 1, 0, {DENIED}, {"!no\nluck\x7f"}, SF_DENIED, 1, 1, 1, "",
         "credentials by provider: no luck "},
        {"it fails, and rests; others are told the store's no", true, 0, SF_STORE_GET, 3, 0, {DENIED, DENIED, DENIED},
         {"!no luck"}, SF_DENIED, 1, 3, 1, "", "AccessDenied"},
        {"it fails, and what is over stays so", true, 0, SF_STORE_GET, 3, 0, {REFUSED("400 Bad Request", "ExpiredToken")},
         {"!no luck"}, SF_DENIED, 0, 1, 1, "", "credentials by provider: no luck"},
        {"it tells a secret", true, 0, SF_STORE_GET, 1, 0, {DENIED}, {"!S3CRET is over"}, SF_DENIED, 1, 1, 1, "",
         "credentials by provider: (text withheld)"},
        {"it tells a token", true, 0, SF_STORE_GET, 1, 0, {DENIED}, {"!what to do with T0KEN"}, SF_DENIED, 1, 1, 1, "",
         "credentials by provider: (text withheld)"},
        {"it says nothing", false, 0, SF_STORE_GET, 1, 0, {0}, {"?"}, SF_INVALID, 0, 0, 1, "",
         "credentials by provider: it has given no answer"},
        {"no key", false, 0, SF_STORE_GET, 1, 0, {0}, {".,S,T,0"}, SF_INVALID, 0, 0, 1, "",
         "credentials by provider: credentials: a key is empty"},
        {"a blank", false, 0, SF_STORE_GET, 1, 0, {0}, {"A A,S,T,0"}, SF_INVALID, 0, 0, 1, "",
         "credentials by provider: credentials: the access key id holds a blank or control character"},
        {"over before they came", false, 0, SF_STORE_GET, 1, 0, {0}, {"A,S,T,-1"}, SF_DENIED, 0, 0, 1, "",
         "credentials by provider: they have expired before they came"},
        /* clang-format on */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct source source;
        struct server objects;
        struct bench b;
        size_t repeated = 0;
        char url[64];

        atomic_store(&now, START_US);
        server_start(&objects, rows[i].objects, false);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u", objects.port);
        source_init(&source, rows[i].answers);
        source.s.expires_us = rows[i].seed_end == 0          ? 0
                              : rows[i].seed_end == LONG_MIN ? INT64_MIN
                                                             : START_US + SECONDS(rows[i].seed_end);
        store_open(&b, url, &source, rows[i].seeded);
        for (unsigned k = 0; k < rows[i].runs; k++) {
            if (k > 0) {
                sf__store_op_cleanup(&b.op, b.alloc);
                atomic_fetch_add(&now, SECONDS(rows[i].pause));
            }
            bench_run(&b, &(sf_store_op){.verb = rows[i].verb, .key = "k", .len = 1});
            repeated += b.error.attempts > 1 ? b.error.attempts - 1 : 0;
        }
        server_stop(&objects);
        if (b.error.code != rows[i].rc || b.error.attempts != rows[i].attempts ||
            !strstr(b.error.message, rows[i].message))
            fail_msg("%s: %s in %u attempts: %s", rows[i].name, sf_status_name(b.error.code), b.error.attempts,
                     b.error.message);
        if (strstr(b.error.message, "S3CRET") || strstr(b.error.message, "T0KEN"))
            fail_msg("%s: a secret in \"%s\"", rows[i].name, b.error.message);
        if (b.retries != repeated) /* one is told of, the other was made */
            fail_msg("%s: %zu retries told, %zu made", rows[i].name, b.retries, repeated);
        if (objects.requests.count != rows[i].requests || gate_count(&source.asked) != rows[i].asked)
            fail_msg("%s: %u requests, asked %u times", rows[i].name, objects.requests.count, gate_count(&source.asked));
        if (!strstr(objects.all, rows[i].sent))
            fail_msg("%s: no \"%s\" in\n%s", rows[i].name, rows[i].sent, objects.all);
        sf__store_op_cleanup(&b.op, b.alloc);
        bench_close(&b);
        gate_wait(&source.gone, 1);
        gate_leave(&source.gone);
    }
}

/* One more operation beside the bench's. */
struct other {
    struct bench *b;
    sf_store_op op;
    sf_error error;
    struct gate done;
};

static void other_done(sf_store_op *op)
{
    struct other *o = op->ctx;

    o->error = *op->error;
    gate_arrive(&o->done);
}

static void other_submit(void *arg)
{
    struct other *o = arg;

    sf__store_submit(o->b->store, &o->op);
}

static void other_run(struct other *o, struct bench *b)
{
    *o = (struct other){.b = b,
                        .done = GATE_INIT,
                        .op = {.verb = SF_STORE_GET,
                               .key = "k",
                               .len = 1,
                               .done = other_done,
                               .ctx = o,
                               .deadline_ns = sf__deadline_in_ms(20000)}};
    on_loop(b->loop, other_submit, o);
}

/* One request is denied: perhaps it alone. The others need not wait for what a source may never answer. When the keys
 * themselves are refused they do, together. */
static void who_waits_for_others(void **state)
{
    static const struct {
        const char *name, *refusal, *then[4];
        bool all_wait;
    } rows[] = {
        {"denied", DENIED, {OBJECT, OBJECT, OBJECT}, false},
        {"expired", REFUSED("400 Bad Request", "ExpiredToken"), {OBJECT, OBJECT, OBJECT}, true},
    };
    static const char *const answers[] = {"~BBB,S,T,0", NULL};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *objects[] = {rows[i].refusal, rows[i].then[0], rows[i].then[1], rows[i].then[2], NULL};
        struct source source;
        struct server server;
        struct other denied, late[2];
        struct bench b;
        char url[64];

        atomic_store(&now, START_US);
        server_start(&server, objects, false);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u", server.port);
        source_init(&source, answers);
        store_open(&b, url, &source, true);
        other_run(&denied, &b);
        gate_wait(&source.asked, 1);
        for (int k = 0; k < 2; k++) {
            other_run(&late[k], &b);
            if (!rows[i].all_wait)
                gate_wait(&late[k].done, 1); /* while it thinks */
        }
        assert_int_equal(gate_count(&denied.done), 0);
        if (rows[i].all_wait)
            assert_int_equal(gate_count(&late[0].done) + gate_count(&late[1].done), 0);
        gate_arrive(&source.go);
        gate_wait(&denied.done, 1);
        gate_wait(&late[0].done, 1);
        gate_wait(&late[1].done, 1);
        server_stop(&server);
        if (denied.error.code != SF_OK || late[0].error.code != SF_OK || late[1].error.code != SF_OK)
            fail_msg("%s: %s", rows[i].name, denied.error.message);
        assert_int_equal(denied.error.attempts, 2);
        assert_int_equal(late[0].error.attempts, 1);
        assert_int_equal(gate_count(&source.asked), 1);
        sf__store_op_cleanup(&denied.op, b.alloc);
        sf__store_op_cleanup(&late[0].op, b.alloc);
        sf__store_op_cleanup(&late[1].op, b.alloc);
        bench_close(&b);
        gate_wait(&source.gone, 1);
        gate_leave(&source.gone);
    }
}

static void asked_ahead_of_the_end(void **state)
{
    static const char *const objects[] = {OBJECT, NULL}, *const answers[] = {"BBB,S,T,7200", "!not now", NULL};
    struct source source;
    struct server server;
    struct bench b;
    char url[64];

    atomic_store(&now, START_US);
    server_start(&server, objects, true);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", server.port);
    source_init(&source, answers);
    source.s.expires_us = START_US + SECONDS(3600);
    store_open(&b, url, &source, true);
    for (int at = 0; at < 2; at++) {
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "k", .len = 1});
        sf__store_op_cleanup(&b.op, b.alloc);
        atomic_store(&now, START_US + SECONDS(3299)); /* 301 s before the end: too early */
    }
    assert_int_equal(gate_count(&source.asked), 0);
    atomic_store(&now, START_US + SECONDS(3301));
    do { /* nobody waits for the newer ones; they arrive */
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "k", .len = 1});
        assert_int_equal(b.error.code, SF_OK);
        sf__store_op_cleanup(&b.op, b.alloc);
    } while (!strstr(server.all, "Credential=BBB/"));
    assert_int_equal(gate_count(&source.asked), 1);
    assert_non_null(strstr(server.all, "Credential=AAA/"));
    atomic_store(&now, START_US + SECONDS(7100)); /* this time it fails, and those that there are serve on */
    for (int k = 0; k < 3; k++) {
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "k", .len = 1});
        assert_int_equal(b.error.code, SF_OK);
        sf__store_op_cleanup(&b.op, b.alloc);
        gate_wait(&source.asked, 2);
    }
    server_stop(&server);
    bench_close(&b);
    gate_wait(&source.gone, 1);
    gate_leave(&source.gone);
    assert_int_equal(gate_count(&source.asked), 2);
}

/* ------------------------------------------------------------------ while it thinks ------------------------------ */

static void nobody_waits_for_ever(void **state)
{
    static const char *const answers[] = {"~AAA,S,T,0", NULL};
    static const struct {
        const char *name;
        bool cancelled, answered; /* answered: it ends in time, and what it brings serves the next one */
        sf_status rc;
    } rows[] = {
        {"the deadline passes", false, false, SF_TIMEOUT},
        {"cancelled", true, false, SF_CANCELLED},
        {"the deadline passes, the answer comes", false, true, SF_TIMEOUT},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static const char *const objects[] = {OBJECT, NULL};
        struct source source;
        struct server server;
        struct bench b;
        char url[64];

        server_start(&server, objects, false);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u", server.port);
        source_init(&source, answers);
        store_open(&b, url, &source, false);
        for (int64_t ms = rows[i].cancelled ? 20000 : 100; gate_count(&source.asked) == 0; ms *= 2) {
            b.op = (sf_store_op){.verb = SF_STORE_GET,
                                 .key = "k",
                                 .len = 1,
                                 .done = on_done,
                                 .ctx = &b,
                                 .deadline_ns = sf__deadline_in_ms(ms)};
            on_loop(b.loop, submit_op, &b);
            if (rows[i].cancelled) {
                gate_wait(&source.asked, 1);
                on_loop(b.loop, cancel_op, &b);
            }
            gate_wait(&b.done, ++b.runs);
            if (b.error.code != rows[i].rc || b.error.attempts != 0)
                fail_msg("%s: %s", rows[i].name, b.error.message);
        }
        if (rows[i].answered) {
            gate_arrive(&source.go);
            bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "k", .len = 1});
            assert_int_equal(b.error.code, SF_OK);
            sf__store_op_cleanup(&b.op, b.alloc);
        }
        server_stop(&server);
        bench_close(&b); /* store and loop are gone, it still thinks */
        if (!rows[i].answered) {
            assert_true(atomic_load(&source.held) > 0);
            gate_arrive(&source.go);
        }
        gate_wait(&source.gone, 1);
        gate_leave(&source.gone);
        assert_int_equal(gate_count(&source.asked), 1);
    }
}

/* A fetch, or questions to an asker, on a loop alone. */
struct questions {
    sf_loop *loop;
    sf_asker *asker;
    sf_credential_origin origin;
    sf_task home;
    struct gate done;
    sf_credential_answer *answer;
    sf_credentials *got;
    sf_credential_fetch *fetch;
    sf_status asked, rc;
    sf_error err;
    bool dropped;
};

static void question_home(sf_task *task)
{
    struct questions *q = (struct questions *)((char *)task - offsetof(struct questions, home));

    q->rc = sf__answer_take(&q->got, q->answer, NULL, &sf__allocator_default, &q->err);
    gate_arrive(&q->done);
}

static void question_ask(void *arg)
{
    struct questions *q = arg;

    q->home.run = question_home;
    q->asked = sf__asker_ask(&q->answer, q->asker, q->loop, &q->home, NULL);
}

static void question_drop(void *arg)
{
    struct questions *q = arg;

    q->dropped = sf__answer_drop(q->answer);
}

static void fetch_done(void *ctx, sf_status rc, const sf_error *err, sf_credentials *got)
{
    struct questions *q = ctx;

    q->rc = rc;
    q->err = *err;
    q->got = got;
    gate_arrive(&q->done);
}

static void fetch_begin(void *arg)
{
    struct questions *q = arg;

    q->fetch = sf__credential_fetch_start(&(sf_credential_fetch_job){.origin = &q->origin,
                                                                     .loop = q->loop,
                                                                     .alloc = &sf__allocator_default,
                                                                     .deadline_ns = sf__deadline_in_ms(50),
                                                                     .done = fetch_done,
                                                                     .ctx = q});
}

static void credentials_release(void *arg)
{
    sf__credentials_release(((struct questions *)arg)->got);
}

static void one_question_at_a_time(void **state)
{
    static const char *const answers[] = {"~AAA,S,T,0", "~BBB,S,T,0", "CCC,S,T,0", NULL};
    struct questions q = {.done = GATE_INIT, .err = SF_ERROR_INIT};
    struct source source;

    source_init(&source, answers);
    assert_int_equal(sf__asker_new(&q.asker, &source.s, NULL), SF_OK);
    q.origin = (sf_credential_origin){.kind = SF_ORIGIN_SOURCE, .asker = q.asker};
    assert_int_equal(sf__loop_new(&q.loop, &sf__allocator_default, NULL), SF_OK);

    on_loop(q.loop, fetch_begin, &q); /* its own deadline passes */
    assert_non_null(q.fetch);
    gate_wait(&q.done, 1);
    assert_int_equal(q.rc, SF_TIMEOUT);
    assert_string_equal(q.err.message, "credentials by provider: it has not answered in time");
    on_loop(q.loop, fetch_begin, &q); /* and it still thinks */
    gate_wait(&q.done, 2);
    assert_int_equal(q.rc, SF_UNAVAILABLE);
    assert_string_equal(q.err.message, "credentials by provider: it has not answered the question before yet");
    gate_wait(&source.asked, 1);
    assert_int_equal(gate_count(&source.asked), 1);
    gate_arrive(&source.go); /* what comes now is dropped */
    do
        on_loop(q.loop, question_ask, &q);
    while (q.asked == SF_UNAVAILABLE);
    assert_int_equal(q.asked, SF_OK);
    gate_wait(&source.asked, 2);
    on_loop(q.loop, question_drop, &q);
    assert_true(q.dropped);
    on_loop(q.loop, question_ask, &q);
    assert_int_equal(q.asked, SF_UNAVAILABLE);
    gate_arrive(&source.go);
    do
        on_loop(q.loop, question_ask, &q);
    while (q.asked == SF_UNAVAILABLE);
    gate_wait(&q.done, 3);
    assert_int_equal(q.rc, SF_OK);
    assert_string_equal(q.got->access_key_id, "CCC");
    on_loop(q.loop, credentials_release, &q);
    sf__loop_free(q.loop);
    sf__asker_release(q.asker);
    gate_wait(&source.gone, 1);
    gate_leave(&source.gone);
}

/* Of a store each that has gone, so many may still think; beyond them nobody is asked, until they have answered. */
struct hanging {
    struct gate asked, go, gone;
};

static void hanging_get(void *ctx, sf_credential_answer *answer)
{
    struct hanging *h = ctx;

    gate_arrive(&h->asked);
    gate_wait(&h->go, 1);
    sf_credential_answer_set(answer, "AAA", "S", NULL, 0);
}

static void hanging_retain(void *ctx) {}

static void hanging_release(void *ctx)
{
    gate_arrive(&((struct hanging *)ctx)->gone);
}

static void questions_of_stores_that_went(void **state)
{
    struct questions q = {.done = GATE_INIT, .err = SF_ERROR_INIT};
    struct hanging hanging = {GATE_INIT, GATE_INIT, GATE_INIT};
    sf_credential_source source = {
        .size = sizeof(source), .get = hanging_get, .retain = hanging_retain, .release = hanging_release, .ctx = &hanging};

    assert_int_equal(sf__loop_new(&q.loop, &sf__allocator_default, NULL), SF_OK);
    for (unsigned i = 0; i < SF_ASKER_MAX_DROPPED; i++) {
        assert_int_equal(sf__asker_new(&q.asker, &source, NULL), SF_OK);
        on_loop(q.loop, question_ask, &q);
        assert_int_equal(q.asked, SF_OK);
        on_loop(q.loop, question_drop, &q);
        assert_true(q.dropped);
        sf__asker_release(q.asker);
    }
    gate_wait(&hanging.asked, SF_ASKER_MAX_DROPPED);
    assert_int_equal(sf__asker_new(&q.asker, &source, NULL), SF_OK);
    on_loop(q.loop, question_ask, &q);
    assert_int_equal(q.asked, SF_UNAVAILABLE);
    gate_arrive(&hanging.go);
    gate_wait(&hanging.gone, SF_ASKER_MAX_DROPPED);
    do /* the last of them may not have been counted yet */
        on_loop(q.loop, question_ask, &q);
    while (q.asked == SF_UNAVAILABLE);
    assert_int_equal(q.asked, SF_OK);
    gate_wait(&q.done, 1);
    assert_int_equal(q.rc, SF_OK);
    on_loop(q.loop, credentials_release, &q);
    sf__loop_free(q.loop);
    sf__asker_release(q.asker);
    gate_wait(&hanging.gone, SF_ASKER_MAX_DROPPED + 1);
    gate_leave(&hanging.gone);
}

/* With the loop held up, so that the answer is in its inbox when it is dropped: asked again, with ever more patience, until
 * that is so. */
static void drop_late(void *arg)
{
    struct questions *q = arg;

    for (unsigned patience = 1;; patience *= 2) {
        do
            question_ask(q);
        while (q->asked != SF_OK);
        for (unsigned i = 0; i < patience; i++)
            sched_yield();
        if (!sf__answer_drop(q->answer))
            return;
    }
}

/* An answer that is on its way cannot be dropped any more: it comes home. */
static void an_answer_on_its_way(void **state)
{
    static const char *const answers[] = {"AAA,S,T,0", NULL};
    struct questions q = {.done = GATE_INIT};
    struct source source;

    source_init(&source, answers);
    assert_int_equal(sf__asker_new(&q.asker, &source.s, NULL), SF_OK);
    assert_int_equal(sf__loop_new(&q.loop, &sf__allocator_default, NULL), SF_OK);
    on_loop(q.loop, drop_late, &q);
    gate_wait(&q.done, 1);
    assert_int_equal(q.rc, SF_OK);
    assert_string_equal(q.got->secret_access_key, "S");
    on_loop(q.loop, credentials_release, &q);
    sf__loop_free(q.loop);
    sf__asker_release(q.asker);
    gate_wait(&source.gone, 1);
    gate_leave(&source.gone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asked_when_the_store_refuses), cmocka_unit_test(who_waits_for_others),
        cmocka_unit_test(asked_ahead_of_the_end),       cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(one_question_at_a_time),       cmocka_unit_test(questions_of_stores_that_went),
        cmocka_unit_test(an_answer_on_its_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
