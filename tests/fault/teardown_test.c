/* An engine that ends while a store is still getting its credentials: it ends, at once, and nothing stays behind. */
#include "../unit/store/scripted_server.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "shardyfusion/reader.h"

static void credentials_under_way(void **state)
{
    static const char *const steps[] = {STEP_STALL, NULL};
    sf_s3_options s3 = SF_S3_OPTIONS_INIT;
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    char url[64];

    s3.endpoint_url = "http://127.0.0.1:1";
    s3.region = "us-east-1";
    o.s3 = &s3;
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        struct server server;
        sf_runtime *rt = NULL;
        sf_call *call = NULL;
        sf_error e = SF_ERROR_INIT;

        server_start(&server, steps, true);
        snprintf(url, sizeof(url), "http://127.0.0.1:%u/keys", server.port);
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
        assert_int_equal(sf_runtime_new(&rt, NULL, &e), SF_OK);
        o.open_timeout_ms = cancelled ? 60000 : 200;
        for (; gate_count(&server.requests) == 0; o.open_timeout_ms *= 2) { /* so long that they are asked for */
            if (sf_reader_open_start(&call, rt, "s3://bucket/prefix", &o, NULL, NULL, &e) != SF_OK)
                fail_msg("%s", e.message);
            if (cancelled) {
                gate_wait(&server.requests, 1);
                sf_call_cancel(call);
            }
            assert_int_equal(sf_call_wait(call, &e), cancelled ? SF_CANCELLED : SF_TIMEOUT);
            sf_call_release(call);
        }
        sf_runtime_release(rt); /* the request for credentials has no end of its own for a minute */
        server_stop(&server);
    }
}

/* A source of the caller's that thinks, and goes on to when the engine has gone. */
struct thinker {
    struct gate asked, go, gone;
    atomic_int held;
};

static void think(void *ctx, sf_credential_answer *answer)
{
    struct thinker *t = ctx;

    gate_arrive(&t->asked);
    gate_wait(&t->go, 1);
    sf_credential_answer_set(answer, "A", "S", NULL, 0);
}

static void thinker_retain(void *ctx)
{
    atomic_fetch_add(&((struct thinker *)ctx)->held, 1);
}

static void thinker_release(void *ctx)
{
    struct thinker *t = ctx;

    if (atomic_fetch_sub(&t->held, 1) == 1)
        gate_arrive(&t->gone);
}

/* False: the opening's time was over before the source was asked. */
static bool ends_while_a_source_thinks(bool cancelled, int64_t timeout_ms)
{
    struct thinker thinker = {GATE_INIT, GATE_INIT, GATE_INIT, 0};
    sf_credential_source source = {
        .size = sizeof(source), .get = think, .retain = thinker_retain, .release = thinker_release, .ctx = &thinker};
    sf_s3_options s3 = SF_S3_OPTIONS_INIT;
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_runtime *rt = NULL;
    sf_call *call = NULL;
    sf_error e = SF_ERROR_INIT;

    s3.endpoint_url = "http://127.0.0.1:1";
    s3.region = "us-east-1";
    s3.credential_source = &source;
    o.s3 = &s3;
    o.open_timeout_ms = timeout_ms;
    assert_int_equal(sf_runtime_new(&rt, NULL, &e), SF_OK);
    if (sf_reader_open_start(&call, rt, "s3://bucket/prefix", &o, NULL, NULL, &e) != SF_OK)
        fail_msg("%s", e.message);
    memset(&source, 0xee, sizeof(source)); /* it was copied */
    if (cancelled) {
        gate_wait(&thinker.asked, 1);
        sf_call_cancel(call);
    }
    assert_int_equal(sf_call_wait(call, &e), cancelled ? SF_CANCELLED : SF_TIMEOUT);
    sf_call_release(call);
    sf_runtime_release(rt); /* which does not wait for it */
    if (atomic_load(&thinker.held) == 0)
        return false;
    gate_wait(&thinker.asked, 1);
    assert_int_equal(gate_count(&thinker.gone), 0);
    gate_arrive(&thinker.go);
    gate_wait(&thinker.gone, 1);
    gate_leave(&thinker.gone);
    assert_int_equal(gate_count(&thinker.asked), 1);
    return true;
}

static void a_source_under_way(void **state)
{
    int64_t timeout_ms = 200;

    assert_true(ends_while_a_source_thinks(true, 60000));
    while (!ends_while_a_source_thinks(false, timeout_ms))
        timeout_ms *= 2;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(credentials_under_way), cmocka_unit_test(a_source_under_way)};
    static const char *const inherited[] = {"AWS_ACCESS_KEY_ID",           "AWS_SECRET_ACCESS_KEY",
                                            "AWS_SESSION_TOKEN",           "S3_ACCESS_KEY_ID",
                                            "S3_SECRET_ACCESS_KEY",        "AWS_PROFILE",
                                            "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"};

    for (size_t i = 0; i < sizeof(inherited) / sizeof(inherited[0]); i++)
        unsetenv(inherited[i]);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
