/* The S3 store through a network and a server that misbehave, over a real server: what the caller sees of each fault, within
 * its deadline, and that nothing stays behind. Run by tests/support/fault_server.py, which hands in the addresses:
 *     python tests/support/fault_server.py -- build-asan/tests/unit/store/s3_front_test */
#include "s3_bench.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/upload.h"

static const sf_allocator *const heap = &sf__allocator_default;

static const char *must_env(const char *name)
{
    const char *v = getenv(name);

    if (!v)
        fail_msg("%s is not set: run this through tests/support/fault_server.py", name);
    return v;
}

/* ------------------------------------------------------------------ the front ------------------------------------ */

/* One request to it on a connection of its own; the reply's body is static. */
static const char *front_ask(const char *method, const char *target, const char *body)
{
    static char reply[65536];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char request[4096], *end = NULL;
    size_t n = 0, length = 0;

    at.sin_port = htons((uint16_t)atoi(strrchr(must_env("SF_TEST_FRONT_ENDPOINT"), ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s", method, target, strlen(body),
             body);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    do {
        ssize_t got = recv(fd, reply + n, sizeof(reply) - 1 - n, 0);

        assert_true(got > 0);
        n += (size_t)got;
        reply[n] = '\0';
        if (!end && (end = strstr(reply, "\r\n\r\n")) != NULL) {
            end += 4;
            length = strtoul(strstr(reply, "Content-Length:") + 15, NULL, 10);
        }
    } while (!end || strlen(end) < length);
    close(fd);
    return end;
}

static void front_plan(const char *faults)
{
    front_ask("PUT", "/__faults__/plan", faults);
}

static long front_number(const char *name)
{
    const char *log = front_ask("GET", "/__faults__/log", ""), *at = strstr(log, name);

    assert_non_null(at);
    return strtol(at + strlen(name), NULL, 10);
}

/* The front learns of a closed connection a moment later. */
static void front_expect_nothing_open(const char *name)
{
    long open = -1;

    for (int i = 0; i < 2000 && open != 0; i++)
        open = front_number("\"open\": ");
    if (open != 0)
        fail_msg("%s: %ld connections are open", name, open);
}

/* ------------------------------------------------------------------ the store ------------------------------------ */

static sf_s3_options front_options(void)
{
    sf_s3_options o = SF_S3_OPTIONS_INIT;

    o.endpoint_url = must_env("SF_TEST_FRONT_ENDPOINT");
    o.access_key_id = must_env("SF_TEST_S3_ACCESS_KEY");
    o.secret_access_key = must_env("SF_TEST_S3_SECRET_KEY");
    o.region = must_env("SF_TEST_S3_REGION");
    o.addressing = SF_ADDRESSING_PATH;
    o.read_timeout_ms = 10000;
    o.max_retries = 3;
    o.retry_base_ms = 1;
    o.retry_cap_ms = 2;
    return o;
}

static void open_front(struct bench *b, const sf_s3_options *o)
{
    sf_s3_resolved *resolved;
    sf_error err = SF_ERROR_INIT;

    if (sf__s3_options_resolve(&resolved, o, NULL, NULL, heap, &err) != SF_OK)
        fail_msg("%s", err.message);
    assert_int_equal(bench_open_bucket(b, heap, must_env("SF_TEST_S3_BUCKET"), resolved, NULL), SF_OK);
    sf__s3_resolved_free(resolved, heap);
}

static void put_object(const char *key, const char *text)
{
    sf_s3_options o = front_options();
    struct bench b;

    front_plan("[]");
    open_front(&b, &o);
    bench_run(&b, &(sf_store_op){.verb = SF_STORE_PUT, .key = key, .body = sf_bytes_str(text)});
    if (b.error.code != SF_OK)
        fail_msg("%s", b.error.message);
    bench_close(&b);
}

/* ------------------------------------------------------------------ the table ------------------------------------ */

#define PART .verb = SF_STORE_GET, .key = "front/ten", .off = 4, .len = 3
#define WHOLE .verb = SF_STORE_GET, .key = "front/ten", .len = SF_STORE_ALL, .max_bytes = 100
#define PUT .verb = SF_STORE_PUT, .key = "front/put", .body = {(const uint8_t *)"new", 3}

static const struct row {
    const char *name, *plan;
    sf_store_op op;
    int64_t deadline_ms;
    sf_status rc;
    uint32_t attempts; /* 0: as many as there is time for */
    const char *data, *message;
    const char *endpoint; /* the variable with another one */
} rows[] = {
    /* clang-format off */
    {"none", "[]", {PART}, 20000, SF_OK, 1, "456", "", NULL},
    {"latency", "[{\"latency\": 0.1}]", {PART}, 20000, SF_OK, 1, "456", "", NULL},
    {"latency, longer than the silence that is allowed", "[{\"latency\": 1.5}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"latency, longer than the deadline", "[{\"latency\": 0.5}]", {PART}, 150, SF_TIMEOUT, 1, NULL, "deadline", NULL},
    {"silence", "[{\"stall\": -1}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"silence inside the body", "[{\"stall\": 1}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"silence for ever", "[{\"stall\": 0, \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL,
     "stalled: no byte moved for 800 ms", NULL},
    {"silence for ever, until the deadline", "[{\"stall\": 0, \"times\": -1}]", {PART}, 500, SF_TIMEOUT, 0, NULL, "deadline", NULL},
    {"reset", "[{\"reset\": -1}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"reset inside the body", "[{\"reset\": 2}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"reset for ever", "[{\"reset\": 2, \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL, "get s3://scratch/front/ten: GET: ",
     NULL},
    {"closed without a word", "[{\"close\": true}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"no HTTP", "[{\"garbage\": true}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"no HTTP for ever", "[{\"garbage\": true, \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL, "", NULL},
    {"short body", "[{\"short\": 1}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"short body, whole object", "[{\"short\": 9}]", {WHOLE}, 20000, SF_OK, 2, "0123456789", "", NULL},
    {"short body for ever", "[{\"short\": 1, \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL, "", NULL},
    {"more announced than comes", "[{\"length\": 5}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"less announced than comes", "[{\"length\": -2}]", {PART}, 20000, SF_OK, 2, "456", "", NULL},
    {"500 twice", "[{\"status\": 500, \"code\": \"InternalError\", \"times\": 2}]", {PART}, 20000, SF_OK, 3, "456", "", NULL},
    {"503 twice", "[{\"status\": 503, \"times\": 2}]", {PART}, 20000, SF_OK, 3, "456", "", NULL},
    {"429 twice", "[{\"status\": 429, \"times\": 2, \"retry_after\": 0}]", {PART}, 20000, SF_OK, 3, "456", "", NULL},
    {"slow down for ever", "[{\"status\": 503, \"code\": \"SlowDown\", \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL,
     "GET answered 503 SlowDown: By order. (request id FRONT), in attempt 4", NULL},
    {"slow down beyond the deadline", "[{\"status\": 503, \"code\": \"SlowDown\", \"retry_after\": 5}]", {PART}, 2000, SF_TIMEOUT,
     1, NULL, "the last one: GET answered 503 SlowDown", NULL},
    {"another region", "[{\"status\": 301, \"code\": \"PermanentRedirect\", \"location\": \"http://127.0.0.1:1/\"}]", {PART}, 20000,
     SF_IO, 1, NULL, "the bucket is not at this endpoint", NULL},
    {"redirected", "[{\"status\": 307, \"location\": \"http://127.0.0.1:1/\"}]", {PART}, 20000, SF_IO, 1, NULL, "answered 307", NULL},
    {"denied", "[{\"status\": 403, \"code\": \"AccessDenied\"}]", {PART}, 20000, SF_DENIED, 1, NULL, "AccessDenied", NULL},
    {"slow drip", "[{\"drip\": 0.001}]", {PART}, 20000, SF_OK, 1, "456", "", NULL},
    {"drip beyond the deadline", "[{\"drip\": 0.05, \"times\": -1}]", {PART}, 400, SF_TIMEOUT, 0, NULL, "deadline", NULL},
    {"another ETag", "[{\"etag\": \"\\\"other\\\"\"}]", {PART}, 20000, SF_OK, 1, "456", "", NULL},
    {"another ETag than was asked for", "[{\"etag\": \"\\\"other\\\"\"}]", {PART, .if_match = "set below"}, 20000, SF_CONFLICT, 1, NULL,
     "ETag \"other\"", NULL},
    {"a reply sent twice", "[{\"match\": \"ten\", \"twice\": true}]", {PART}, 20000, SF_OK, 1, "456", "", NULL},
    {"put, busy", "[{\"status\": 503, \"code\": \"SlowDown\", \"times\": 2}]", {PUT}, 20000, SF_OK, 3, NULL, "", NULL},
    {"put, the answer is lost", "[{\"reset\": -1}]", {PUT}, 20000, SF_OK, 2, NULL, "", NULL},
    {"create, the answer is lost", "[{\"reset\": -1}]", {.verb = SF_STORE_PUT, .key = "front/created", .create_only = true}, 20000,
     SF_CONFLICT, 2, NULL, "may have succeeded", NULL},
    {"list, short", "[{\"short\": 40}]", {.verb = SF_STORE_LIST, .key = "front/"}, 20000, SF_OK, 2, NULL, "", NULL},
    {"list, damaged", "[{\"corrupt\": 0}]", {.verb = SF_STORE_LIST, .key = "front/"}, 20000, SF_OK, 2, NULL, "", NULL},
    {"list, damaged for ever", "[{\"corrupt\": 0, \"times\": -1}]", {.verb = SF_STORE_LIST, .key = "front/"}, 20000, SF_IO, 4, NULL, "XML",
     NULL},
    {"uploads, short", "[{\"short\": 40}]", {.verb = SF_STORE_MULTIPART_LIST, .key = "none/"}, 20000, SF_OK, 2, NULL, "", NULL},
    {"uploads, damaged for ever", "[{\"corrupt\": 0, \"times\": -1}]", {.verb = SF_STORE_MULTIPART_LIST, .key = "none/"}, 20000, SF_IO,
     4, NULL, "XML", NULL},
    {"uploads, not here", "[{\"status\": 501, \"code\": \"NotImplemented\"}]", {.verb = SF_STORE_MULTIPART_LIST, .key = "none/"}, 20000,
     SF_UNSUPPORTED, 1, NULL, "NotImplemented", NULL},
    {"head, reset", "[{\"reset\": -1}]", {.verb = SF_STORE_HEAD, .key = "front/ten"}, 20000, SF_OK, 2, NULL, "", NULL},
    {"delete, busy", "[{\"status\": 500}]", {.verb = SF_STORE_DELETE, .key = "front/created"}, 20000, SF_OK, 2, NULL, "", NULL},
    {"upload, busy", "[{\"status\": 503, \"times\": 3}]", {.verb = SF_STORE_MULTIPART_CREATE, .key = "front/up"}, 20000, SF_OK, 4,
     NULL, "", NULL},
    {"TLS", "[]", {PART}, 20000, SF_OK, 1, "456", "", "SF_TEST_FRONT_TLS_GOOD"},
    {"TLS, truncated", "[{\"short\": 2}]", {PART}, 20000, SF_OK, 2, "456", "", "SF_TEST_FRONT_TLS_GOOD"},
    {"TLS, truncated before the header", "[{\"short\": -1}]", {PART}, 20000, SF_OK, 2, "456", "", "SF_TEST_FRONT_TLS_GOOD"},
    {"TLS, reset", "[{\"reset\": 2}]", {PART}, 20000, SF_OK, 2, "456", "", "SF_TEST_FRONT_TLS_GOOD"},
    {"TLS, truncated for ever", "[{\"short\": 2, \"times\": -1}]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL, "", "SF_TEST_FRONT_TLS_GOOD"},
    {"TLS, expired", "[]", {PART}, 20000, SF_INVALID, 1, NULL, "certificate has expired", "SF_TEST_FRONT_TLS_EXPIRED"},
    {"TLS, of another host", "[]", {PART}, 20000, SF_INVALID, 1, NULL, "certificate subject name", "SF_TEST_FRONT_TLS_ELSEWHERE"},
    {"TLS to a server without", "[]", {PART}, 20000, SF_UNAVAILABLE, 4, NULL, "", "https"},
    /* clang-format on */
};

static void check_row(const struct row *r, const struct bench *b, uint64_t late_ns)
{
    const sf_error *e = &b->error;

    if (e->code != r->rc || (r->attempts && e->attempts != r->attempts))
        fail_msg("%s: %s in %u attempts: %s", r->name, sf_status_name(e->code), e->attempts, e->message);
    if (!strstr(e->message, r->message))
        fail_msg("%s: \"%s\"", r->name, e->message);
    if (strstr(e->message, must_env("SF_TEST_S3_SECRET_KEY")))
        fail_msg("%s: a secret in \"%s\"", r->name, e->message);
    if (r->data && !sf_bytes_eq(sf__buf_bytes(b->op.data), sf_bytes_str(r->data)))
        fail_msg("%s: other bytes", r->name);
    if (!r->data && b->op.data)
        fail_msg("%s: bytes with an error", r->name);
    if (late_ns > UINT64_C(5000000000)) /* a machine that is busy is no reason to fail; one that waits for ever is */
        fail_msg("%s: %llu ms behind its deadline", r->name, (unsigned long long)(late_ns / 1000000));
}

static void faults(void **state)
{
    char etag[128], https[128];

    put_object("front/ten", "0123456789");
    put_object("front/eleven", "abcdefghijk");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_s3_options o = front_options();
        sf_store_op op = rows[i].op;
        struct bench b;
        uint64_t over;

        o.ca_bundle = must_env("SF_TEST_CA");
        if (strstr(rows[i].plan, "stall") || strstr(rows[i].name, "silence"))
            o.read_timeout_ms = 800; /* short where silence is the fault: on a busy machine others are silent, too */
        if (rows[i].endpoint && strcmp(rows[i].endpoint, "https") == 0) {
            snprintf(https, sizeof(https), "https%s", strchr(must_env("SF_TEST_FRONT_ENDPOINT"), ':'));
            o.endpoint_url = https;
            o.connect_timeout_ms = 200; /* its handshake goes unanswered */
        } else if (rows[i].endpoint) {
            o.endpoint_url = must_env(rows[i].endpoint);
        }
        front_plan("[]");
        open_front(&b, &o);
        if (op.if_match) { /* its real one */
            bench_run(&b, &(sf_store_op){.verb = SF_STORE_HEAD, .key = op.key});
            memcpy(etag, b.op.etag, sizeof(etag));
            op.if_match = etag;
        }
        front_plan(rows[i].plan);
        op.deadline_ns = sf__deadline_in_ms(rows[i].deadline_ms);
        bench_run(&b, &op);
        over = sf__clock_mono_ns();
        check_row(&rows[i], &b, over > op.deadline_ns ? over - op.deadline_ns : 0);
        sf__store_op_cleanup(&b.op, heap);
        front_plan("[]"); /* whatever it was, it does not reach into the next operation */
        if (rows[i].rc != SF_INVALID && !(rows[i].endpoint && strcmp(rows[i].endpoint, "https") == 0)) {
            bench_run(&b, &(sf_store_op){.verb = SF_STORE_GET, .key = "front/eleven", .off = 8, .len = 3});
            if (b.error.code != SF_OK || !sf_bytes_eq(sf__buf_bytes(b.op.data), sf_bytes_str("ijk")))
                fail_msg("after %s: %s", rows[i].name, b.error.message);
            sf__store_op_cleanup(&b.op, heap);
        }
        bench_close(&b);
        front_expect_nothing_open(rows[i].name);
    }
}

/* On a kept connection the HTTP layer itself repeats what got no answer: nobody counts that as an attempt, but what it did
 * the first time counts. */
static void an_answer_lost_on_a_kept_connection(void **state)
{
    sf_s3_options o = front_options();
    struct bench b;

    put_object("front/ten", "0123456789");
    open_front(&b, &o);
    bench_run(&b, &(sf_store_op){.verb = SF_STORE_HEAD, .key = "front/ten"});
    front_plan("[{\"reset\": -1}]");
    bench_run(&b,
              &(sf_store_op){.verb = SF_STORE_PUT, .key = "front/kept", .body = sf_bytes_str("x"), .create_only = true});
    if (b.error.code != SF_CONFLICT || !strstr(b.error.message, "may have succeeded"))
        fail_msg("%s: %s", sf_status_name(b.error.code), b.error.message);
    assert_int_equal(b.error.attempts, 1);
    bench_run(&b, &(sf_store_op){.verb = SF_STORE_DELETE, .key = "front/kept"});
    assert_int_equal(b.error.code, SF_OK);
    bench_close(&b);
    front_expect_nothing_open("kept");
}

/* ------------------------------------------------------------------ uploads -------------------------------------- */

#define UPLOAD_PART (5u << 20)
#define COMPLETING "\"match\": \"POST /scratch/front/new?uploadId\""

static unsigned logged(const char *log, const char *method)
{
    char what[128];
    unsigned n = 0;

    snprintf(what, sizeof(what), "\"%s\", \"target\": \"/scratch/front/new?uploadId", method);
    for (const char *p = log; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

static sf_status upload_new(struct bench *b, sf_bytes bytes, sf_error *err)
{
    sf_upload_options o = SF_UPLOAD_OPTIONS_INIT;
    sf_upload *u = NULL;
    sf_status rc;

    o.part_bytes = UPLOAD_PART;
    o.create_only = true;
    rc = sf__upload_open(&u, b->store, "front/new", NULL, &o, err);
    if (rc == SF_OK)
        rc = sf__upload_append(u, bytes, err);
    if (rc == SF_OK)
        rc = sf__upload_finish(u, NULL, err);
    sf__upload_free(u);
    return rc;
}

/* Objects that must be new, in parts: what becomes of them when completing goes wrong, and that nothing is left. */
static void completing_what_is_to_be_new(void **state)
{
    static const struct {
        const char *name, *plan;
        bool taken; /* by another writer */
        sf_status rc;
        unsigned completions;
    } uploads[] = {
        {"nothing in the way", "[]", false, SF_OK, 1},
        {"the answer is lost", "[{" COMPLETING ", \"reset\": -1}]", false, SF_OK, 2},
        {"busy", "[{" COMPLETING ", \"status\": 503}]", false, SF_OK, 2},
        {"no conditions here", "[{" COMPLETING ", \"status\": 501, \"code\": \"NotImplemented\"}]", false, SF_OK, 2},
        {"another writer at the same instant",
         "[{" COMPLETING ", \"status\": 409, \"code\": \"ConditionalRequestConflict\"}]", false, SF_CONFLICT, 1},
        {"another writer after the look", "[{\"match\": \"HEAD\", \"status\": 404}]", true, SF_CONFLICT, 1},
        {"another writer before it", "[]", true, SF_CONFLICT, 0},
    };
    uint8_t *bytes = calloc(2, UPLOAD_PART);

    for (size_t i = 0; i < sizeof(uploads) / sizeof(uploads[0]); i++) {
        uint64_t size = uploads[i].taken ? 6 : UPLOAD_PART + 1;
        sf_s3_options o = front_options();
        sf_error e = SF_ERROR_INIT;
        const char *log;
        struct bench b;
        sf_status rc;

        if (uploads[i].taken)
            put_object("front/new", "theirs");
        open_front(&b, &o);
        front_plan(uploads[i].plan);
        rc = upload_new(&b, sf_bytes_of(bytes, UPLOAD_PART + 1), &e);
        if (rc != uploads[i].rc)
            fail_msg("%s: %s: %s", uploads[i].name, sf_status_name(rc), e.message);
        log = front_ask("GET", "/__faults__/log", "");
        if (logged(log, "POST") != uploads[i].completions || logged(log, "DELETE") != (rc == SF_CONFLICT))
            fail_msg("%s: %s", uploads[i].name, log);
        front_plan("[]");
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_HEAD, .key = "front/new"});
        if (b.error.code != (rc == SF_OK || uploads[i].taken ? SF_OK : SF_NOT_FOUND) ||
            (b.error.code == SF_OK && b.op.object_size != size))
            fail_msg("%s: %llu bytes: %s", uploads[i].name, (unsigned long long)b.op.object_size, b.error.message);
        bench_run(&b, &(sf_store_op){.verb = SF_STORE_DELETE, .key = "front/new"});
        assert_int_equal(b.error.code, SF_OK);
        bench_close(&b);
        front_expect_nothing_open(uploads[i].name);
    }
    free(bytes);
}

/* ------------------------------------------------------------------ several at once ------------------------------ */

struct many {
    struct bench *b;
    sf_store_op ops[8];
    sf_error errors[8];
    char keys[8][32];
    struct gate done;
};

static void many_done(sf_store_op *op)
{
    struct many *m = op->ctx;

    m->errors[op - m->ops] = *op->error;
    gate_arrive(&m->done);
}

static void many_start(void *arg)
{
    struct many *m = arg;

    for (size_t i = 0; i < 8; i++)
        sf__store_submit(m->b->store, &m->ops[i]);
}

static void many_cancel(void *arg)
{
    struct many *m = arg;

    for (size_t i = 0; i < 8; i++)
        sf__store_cancel(m->b->store, &m->ops[i]);
}

static void many_prepare(struct many *m, struct bench *b)
{
    *m = (struct many){.b = b, .done = GATE_INIT};
    for (size_t i = 0; i < 8; i++) {
        snprintf(m->keys[i], sizeof(m->keys[i]), "front/many/%zu", i);
        m->ops[i] = (sf_store_op){.verb = SF_STORE_GET,
                                  .key = m->keys[i],
                                  .len = 1,
                                  .deadline_ns = sf__deadline_in_ms(20000),
                                  .done = many_done,
                                  .ctx = m};
    }
}

static void put_many(void)
{
    char key[32], text[2] = "0";

    for (size_t i = 0; i < 8; i++) {
        snprintf(key, sizeof(key), "front/many/%zu", i);
        text[0] = (char)('0' + i);
        put_object(key, text);
    }
}

/* Replies overtake each other; each goes to the one who asked. */
static void replies_out_of_order(void **state)
{
    sf_s3_options o = front_options();
    struct bench b;
    struct many m;

    put_many();
    o.read_timeout_ms = 20000;
    open_front(&b, &o);
    front_plan("[{\"match\": \"many\", \"hold\": true, \"times\": 3}]");
    many_prepare(&m, &b);
    on_loop(b.loop, many_start, &m);
    gate_wait(&m.done, 8);
    for (size_t i = 0; i < 8; i++) {
        char text[2] = {(char)('0' + i), '\0'};

        if (m.errors[i].code != SF_OK || !sf_bytes_eq(sf__buf_bytes(m.ops[i].data), sf_bytes_str(text)))
            fail_msg("%zu: %s", i, m.errors[i].message);
        sf__store_op_cleanup(&m.ops[i], heap);
    }
    bench_close(&b);
    front_expect_nothing_open("out of order");
}

/* Cancelled in every kind of trouble: each ends, once, and no connection stays. */
static void cancelling_in_trouble(void **state)
{
    static const char *const plans[] = {
        "[{\"stall\": -1, \"times\": -1}]",   "[{\"stall\": 0, \"times\": -1}]",
        "[{\"latency\": 10, \"times\": -1}]", "[{\"status\": 503, \"retry_after\": 10, \"times\": -1}]",
        "[{\"drip\": 0.05, \"times\": -1}]",
    };

    put_many();
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        sf_s3_options o = front_options();
        struct bench b;
        struct many m;

        o.read_timeout_ms = 20000;
        open_front(&b, &o);
        front_plan(plans[i]);
        many_prepare(&m, &b);
        on_loop(b.loop, many_start, &m);
        while (strstr(front_ask("GET", "/__faults__/log", ""), "many") == NULL) /* the first has arrived */
            continue;
        on_loop(b.loop, many_cancel, &m);
        gate_wait(&m.done, 8);
        for (size_t k = 0; k < 8; k++)
            if (m.errors[k].code != SF_CANCELLED)
                fail_msg("%s: %zu: %s", plans[i], k, m.errors[k].message);
        bench_close(&b);
        front_plan("[]");
        front_expect_nothing_open(plans[i]);
    }
}

int main(void)
{
    static const char *const inherited[] = {"http_proxy",       "HTTP_PROXY",   "https_proxy", "HTTPS_PROXY",
                                            "all_proxy",        "ALL_PROXY",    "no_proxy",    "NO_PROXY",
                                            "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults),
        cmocka_unit_test(an_answer_lost_on_a_kept_connection),
        cmocka_unit_test(completing_what_is_to_be_new),
        cmocka_unit_test(replies_out_of_order),
        cmocka_unit_test(cancelling_in_trouble),
    };

    for (size_t i = 0; i < sizeof(inherited) / sizeof(inherited[0]); i++)
        unsetenv(inherited[i]);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
