#include "http_client.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../support/heap.h"
#include "http_server.h"

struct fixture {
    struct http_server server;
    struct client client;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!http_server_start(&f->server, NULL))
        return -1;
    client_start(&f->client, 16);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    client_stop(&f->client);
    http_server_stop(&f->server);
    free(f);
    return 0;
}

static struct exchange_seen *get(struct fixture *f, const char *path)
{
    return seen_new(&f->client, "GET", "http://127.0.0.1:%d%s", f->server.port, path);
}

/* ---------------------------------------------------------------- responses ------------------------------------- */

static void test_outcomes(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *path;
        uint64_t max_body;
        sf_status code;
        long status;
        size_t body;
        int http_status; /* in the error */
    } cases[] = {
        {"GET", "/ok", 100, SF_OK, 200, 5, 200},
        {"GET", "/ok", 5, SF_OK, 200, 5, 200},
        {"GET", "/ok", 4, SF_CORRUPT, 0, 0, 200},
        {"GET", "/ok", 0, SF_CORRUPT, 0, 0, 200},
        {"GET", "/body/0", 0, SF_OK, 200, 0, 200},
        {"GET", "/body/300000", 300000, SF_OK, 200, 300000, 200},
        {"GET", "/body/300000", 299999, SF_CORRUPT, 0, 0, 200},
        {"GET", "/body/300000", UINT64_MAX, SF_OK, 200, 300000, 200},
        {"GET", "/chunked/300000", 300000, SF_OK, 200, 300000, 200},
        {"GET", "/chunked/300000", 299999, SF_CORRUPT, 0, SIZE_MAX, 200},
        {"HEAD", "/ok", 0, SF_OK, 200, 0, 200},
        {"DELETE", "/status/204/0", 0, SF_OK, 204, 0, 204},
        {"GET", "/nothing", 0, SF_OK, 404, 0, 404},
        {"GET", "/status/503/1000", 10, SF_OK, 503, 1000, 503}, /* error texts come whole */
        {"GET", "/status/503/65536", 10, SF_OK, 503, 65536, 503},
        {"GET", "/status/503/500000", 10, SF_OK, 503, 65536, 503}, /* or cut */
        {"GET", "/status/307/10", 10, SF_OK, 307, 10, 307},        /* not followed */
        {"GET", "/interim", 10, SF_OK, 200, 5, 200},
        {"GET", "/headers/127", 10, SF_OK, 200, 0, 200},
        {"GET", "/headers/129", 10, SF_CORRUPT, 0, 0, 200},
        {"GET", "/long-header/60000", 10, SF_OK, 200, 0, 200},
        {"GET", "/long-header/70000", 10, SF_CORRUPT, 0, 0, 200},
        {"GET", "/short", 1000, SF_UNAVAILABLE, 0, SIZE_MAX, 200},
        {"GET", "/reset", 1000, SF_UNAVAILABLE, 0, SIZE_MAX, 200},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct exchange_seen *s = get(f, cases[i].path);
        size_t body;

        s->r.method = cases[i].method;
        s->r.max_body_bytes = cases[i].max_body;
        seen_run(s);
        seen_expect(s, cases[i].code, cases[i].status);
        body = s->r.response ? s->r.response->n : 0;
        if ((cases[i].body != SIZE_MAX && body != cases[i].body) || s->error.http_status != cases[i].http_status)
            fail_msg("%s: %zu bytes, error with status %d", s->url, body, s->error.http_status);
        if (s->error.code != SF_OK && s->error.message[0] == '\0')
            fail_msg("%s: no message", s->url);
        seen_free(s);
    }
}

/* What a cache is charged for is what was asked for. */
static void test_body_has_no_slack(void **state)
{
    struct exchange_seen *s = get(*state, "/body/70001");

    seen_run(s);
    assert_int_equal(s->r.response->n, 70001);
    assert_int_equal(s->r.response->cap, 70001);
    seen_free(s);
    s = get(*state, "/chunked/5000");
    s->r.expect_body_bytes = 5000;
    seen_run(s);
    assert_int_equal(s->r.response->cap, 5000);
    seen_free(s);
}

static void test_headers(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"content-length", "0"},       {"etag", "\"a:b\""}, {"x-empty", ""},
        {"x-blanks", "in the middle"}, {"x-twice", "1"},    {"ETag", NULL},
    };
    struct exchange_seen *s = get(*state, "/headers");

    seen_run(s);
    seen_expect(s, SF_OK, 200);
    assert_int_equal(s->r.response_header_count, 6);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *value = sf__http_response_header(&s->r, cases[i].name);

        if ((value == NULL) != (cases[i].value == NULL) || (value && strcmp(value, cases[i].value) != 0))
            fail_msg("%s is %s", cases[i].name, value ? value : "absent");
    }
    seen_free(s);
    s = get(*state, "/interim");
    seen_run(s);
    assert_null(sf__http_response_header(&s->r, "x-interim")); /* belongs to the 100 */
    seen_free(s);
}

static void expect_in_body(const struct exchange_seen *s, const char *text, bool wanted)
{
    sf_bytes got = sf__buf_bytes(s->r.response);
    bool found = memmem(got.p, got.n, text, strlen(text)) != NULL;

    if (found != wanted)
        fail_msg("%s: \"%s\" was %ssent: %.*s", s->url, text, found ? "" : "not ", (int)(got.n < 2000 ? got.n : 2000),
                 (const char *)got.p);
}

static void test_what_is_sent(void **state)
{
    struct fixture *f = *state;
    static const char *const headers[] = {"X-Mine: 1", "Range: bytes=5-9", NULL};
    static char big[2 << 20];
    struct exchange_seen *s = seen_new(&f->client, "GET", "http://127.0.0.1:%d/x/../echo", f->server.port);

    seen_run(s);
    seen_expect(s, SF_OK, 404); /* dots are parts of names */
    seen_free(s);

    s = get(f, "/echo");
    s->r.headers = headers;
    seen_run(s);
    expect_in_body(s, "GET /echo HTTP/1.1\r\n", true);
    expect_in_body(s, "\r\nX-Mine: 1\r\n", true);
    expect_in_body(s, "\r\nRange: bytes=5-9\r\n", true);
    expect_in_body(s, "Authorization", false);
    expect_in_body(s, "Accept-Encoding", false);
    seen_free(s);

    s = get(f, "/echo");
    s->r.sigv4 = "aws:amz:us-east-1:s3";
    s->r.access_key = "id:with:colons";
    s->r.secret_key = "secret";
    seen_run(s);
    expect_in_body(s, "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=id:with:colons/", true);
    expect_in_body(s, "/us-east-1/s3/aws4_request", true);
    seen_free(s);

    for (int post = 0; post < 2; post++) {
        s = get(f, "/echo");
        s->r.method = post ? "POST" : "PUT";
        s->r.body = sf_bytes_str("some body");
        seen_run(s);
        expect_in_body(s, post ? "POST /echo" : "PUT /echo", true);
        expect_in_body(s, "\r\nContent-Length: 9\r\n", true);
        expect_in_body(s, "\r\n\r\nsome body", true);
        expect_in_body(s, "Content-Type", false);
        expect_in_body(s, "Expect", false);        /* it would cost a round trip */
        expect_in_body(s, "Authorization", false); /* of the request before */
        seen_free(s);
    }

    for (int post = 0; post < 2;
         post++) { /* signed, with a content type: as quick, and nothing is signed that is not sent */
        static const char *const typed[] = {"Content-Type: text/x", "x-amz-content-sha256: UNSIGNED-PAYLOAD", NULL};

        s = get(f, "/echo");
        s->r.method = post ? "POST" : "PUT";
        s->r.headers = typed;
        s->r.sigv4 = "aws:amz:us-east-1:s3";
        s->r.access_key = "id";
        s->r.secret_key = "secret";
        s->r.body = sf_bytes_of("some\0body", 9);
        seen_run(s);
        expect_in_body(s, post ? "POST /echo" : "PUT /echo", true);
        expect_in_body(s, "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date,", true);
        expect_in_body(s, "\r\nContent-Type: text/x\r\n", true);
        expect_in_body(s, "form-urlencoded", false);
        expect_in_body(s, "\r\nContent-Length: 9\r\n", true);
        expect_in_body(s, "Expect", false);
        assert_memory_equal(s->r.response->data + s->r.response->n - 9, "some\0body", 9);
        seen_free(s);
    }

    s = get(f, "/echo");
    s->r.method = "PUT";
    seen_run(s);
    expect_in_body(s, "\r\nContent-Length: 0\r\n", true);
    seen_free(s);

    memset(big, 'b', sizeof(big)); /* large enough for Expect: 100-continue */
    s = get(f, "/echo");
    s->r.method = "PUT";
    s->r.body = sf_bytes_of(big, sizeof(big));
    s->r.max_body_bytes = 4 << 20;
    seen_run(s);
    seen_expect(s, SF_OK, 200);
    assert_true(s->r.response->n > sizeof(big));
    assert_memory_equal(s->r.response->data + s->r.response->n - sizeof(big), big, sizeof(big));
    seen_free(s);
}

static void test_bad_urls(void **state)
{
    struct fixture *f = *state;
    static const char *const cases[] = {
        "ftp://127.0.0.1/x", "file:///etc/hostname", "nonsense://x", "http://", "://", "http://127.0.0.1:99999/"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct exchange_seen *s = seen_new(&f->client, "GET", "%s", cases[i]);

        seen_run(s);
        seen_expect(s, SF_INVALID, 0);
        seen_free(s);
    }
}

/* ---------------------------------------------------------------- connections ----------------------------------- */

static void test_connections_are_reused(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 10; i++) {
        struct exchange_seen *s = get(f, i % 3 == 1 ? "/status/404/10" : i % 3 == 2 ? "/chunked/5000" : "/ok");

        seen_run(s);
        assert_int_equal(s->error.code, SF_OK);
        seen_free(s);
    }
    assert_int_equal(f->server.accepted, 1);
    assert_int_equal(f->server.requests, 10);
}

static void test_dead_connections_are_replaced(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 5; i++) { /* each finds the connection of the one before closed, or being closed */
        struct exchange_seen *s = get(f, "/die");

        seen_run(s);
        seen_expect(s, SF_OK, 200);
        seen_expect_body(s, "hello");
        seen_free(s);
    }
    assert_int_equal(f->server.accepted, 5);
}

static void test_bounded_connections(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *list[20];
    struct client narrow;

    client_start(&narrow, 2);
    for (int i = 0; i < 20; i++) {
        list[i] = seen_new(&narrow, "GET", "http://127.0.0.1:%d/body/50000", f->server.port);
        seen_submit(list[i]);
    }
    for (int i = 0; i < 20; i++) {
        seen_wait(list[i]);
        seen_expect(list[i], SF_OK, 200);
        seen_free(list[i]);
    }
    client_stop(&narrow);
    assert_true(f->server.accepted <= 2);
    assert_int_equal(f->server.requests, 20);
}

/* Waiting for one of few connections is not connecting: it may take longer than that. */
static void test_waiting_for_a_connection_is_no_connect_timeout(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *slow, *next;
    struct client narrow;

    client_start(&narrow, 1);
    slow = seen_new(&narrow, "GET", "http://127.0.0.1:%d/drip/40", f->server.port);
    next = seen_new(&narrow, "GET", "http://127.0.0.1:%d/ok", f->server.port);
    next->config.connect_timeout_ms = 100;
    seen_submit(slow);
    seen_submit(next);
    seen_wait(slow);
    seen_wait(next);
    seen_expect(slow, SF_OK, 200);
    seen_expect(next, SF_OK, 200);
    seen_free(slow);
    seen_free(next);
    client_stop(&narrow);
}

/* A port nobody listens on: bound, so that nobody else gets it. */
static int closed_port(int *fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);

    *fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, n), 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&address, &n), 0);
    return ntohs(address.sin_port);
}

/* A port whose queue is full: connecting takes for ever. */
struct full_port {
    int fd, fillers[3], port;
};

static void full_port_open(struct full_port *p)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    p->port = closed_port(&p->fd);
    address.sin_port = htons((uint16_t)p->port);
    assert_int_equal(listen(p->fd, 0), 0);
    for (int i = 0; i < 3; i++) {
        p->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(p->fillers[i], (struct sockaddr *)&address, sizeof(address));
    }
}

static void full_port_close(struct full_port *p)
{
    for (int i = 0; i < 3; i++)
        close(p->fillers[i]);
    close(p->fd);
}

static void test_connection_refused(void **state)
{
    struct fixture *f = *state;
    int fd, port = closed_port(&fd);
    struct exchange_seen *s = seen_new(&f->client, "GET", "http://127.0.0.1:%d/", port);

    seen_run(s);
    seen_expect(s, SF_UNAVAILABLE, 0);
    seen_free(s);
    close(fd);
}

/* A name that no server has to be asked about: a label of 64 bytes is none. What failed before there was a connection must not
 * spoil the next request. */
static void test_a_host_that_does_not_exist(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        struct exchange_seen *s = seen_new(&f->client, "GET", "http://%064d.invalid/", 7);

        seen_run(s);
        seen_expect(s, SF_UNAVAILABLE, 0);
        assert_non_null(strstr(s->error.message, "resolve"));
        seen_free(s);
        s = get(f, "/ok");
        seen_run(s);
        seen_expect(s, SF_OK, 200);
        seen_free(s);
    }
}

/* ---------------------------------------------------------------- time and cancelling --------------------------- */

static void test_timeouts(void **state)
{
    struct fixture *f = *state;
    struct full_port full;
    static const struct {
        const char *name, *path; /* NULL: connects for ever */
        int64_t connect_ms, idle_ms, deadline_ms;
        sf_status code;
        int64_t least_ms;
    } cases[] = {
        {"stalled body", "/stall", 10000, 200, 20000, SF_UNAVAILABLE, 200},
        {"no answer", "/silent", 10000, 200, 20000, SF_UNAVAILABLE, 200},
        {"deadline within a stalled body", "/stall", 10000, 20000, 100, SF_TIMEOUT, 100},
        {"deadline without an answer", "/silent", 10000, 0, 100, SF_TIMEOUT, 100},
        {"deadline within a body that moves", "/drip/1000", 10000, 1000, 100, SF_TIMEOUT, 100},
        {"deadline passed before", "/ok", 10000, 1000, 0, SF_TIMEOUT, 0},
        {"connect timeout", NULL, 100, 20000, 20000, SF_UNAVAILABLE, 100},
        {"deadline while connecting", NULL, 10000, 20000, 100, SF_TIMEOUT, 100},
    };

    full_port_open(&full);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct exchange_seen *s =
            seen_new(&f->client, "GET", "http://127.0.0.1:%d%s", cases[i].path ? f->server.port : full.port,
                     cases[i].path ? cases[i].path : "/");
        uint64_t before = sf__clock_mono_ns();

        s->config.connect_timeout_ms = cases[i].connect_ms;
        s->config.idle_timeout_ms = cases[i].idle_ms;
        s->r.deadline_ns = sf__deadline_in_ms(cases[i].deadline_ms);
        seen_run(s);
        if (s->error.code != cases[i].code)
            fail_msg("%s: %s (%s)", cases[i].name, sf_status_name(s->error.code), s->error.message);
        if (sf__clock_mono_ns() - before < (uint64_t)cases[i].least_ms * 1000000)
            fail_msg("%s: too early", cases[i].name);
        seen_free(s);
    }
    full_port_close(&full);
}

/* It takes longer than the silence that is allowed, which is more where this machine is too busy to move a byte in that time. */
static void test_what_is_slow_but_moves(void **state)
{
    struct fixture *f = *state;
    sf_status code = SF_UNAVAILABLE;

    for (int64_t idle_ms = 400; code == SF_UNAVAILABLE && idle_ms < 10000; idle_ms *= 2) {
        struct exchange_seen *s =
            seen_new(&f->client, "GET", "http://127.0.0.1:%d/drip/%d", f->server.port, (int)(idle_ms * 60 / 400));
        uint64_t before = sf__clock_mono_ns();

        s->config.idle_timeout_ms = idle_ms;
        s->r.deadline_ns = sf__deadline_in_ms(60000);
        seen_run(s);
        code = s->error.code;
        assert_true(code != SF_OK || sf__clock_mono_ns() - before > (uint64_t)idle_ms * 1000000);
        seen_free(s);
    }
    assert_int_equal(code, SF_OK);
}

struct body_wait {
    struct exchange_seen *s;
    size_t n;
};

static void body_look(void *arg)
{
    struct body_wait *w = arg;

    w->n = w->s->r.response ? w->s->r.response->n : 0;
}

static void test_cancel_in_the_middle_of_a_body(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *s = get(f, "/stall"), *after;
    struct body_wait w = {.s = s};

    seen_submit(s);
    while (w.n < 10 && s->completions == 0)
        on_loop(f->client.loop, body_look, &w);
    on_loop(f->client.loop, seen_cancel_on_loop, s);
    seen_wait(s);
    seen_expect(s, SF_CANCELLED, 0);
    on_loop(f->client.loop, seen_cancel_on_loop, s); /* after the end: nothing */
    seen_wait(s);
    seen_free(s);
    after = get(f, "/ok"); /* gets a connection of its own: the other one is in the middle of something */
    seen_run(after);
    seen_expect_body(after, "hello");
    seen_free(after);
    assert_int_equal(f->server.accepted, 2);
}

static void submit_and_cancel(void *arg)
{
    seen_submit_on_loop(arg);
    seen_cancel_on_loop(arg);
}

static void test_cancel_before_anything_was_sent(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *s = get(f, "/ok");

    on_loop(f->client.loop, submit_and_cancel, s);
    seen_wait(s);
    seen_expect(s, SF_CANCELLED, 0);
    seen_free(s);
    assert_int_equal(f->server.requests, 0);
}

static void test_cancel_while_connecting(void **state)
{
    struct fixture *f = *state;
    struct full_port full;
    struct exchange_seen *s;

    full_port_open(&full);
    s = seen_new(&f->client, "GET", "http://127.0.0.1:%d/", full.port);
    seen_submit(s);
    for (int i = 0; i < 100; i++) /* some turns of the loop: the connection has begun */
        on_loop(f->client.loop, seen_nothing_on_loop, NULL);
    on_loop(f->client.loop, seen_cancel_on_loop, s);
    seen_wait(s);
    seen_expect(s, SF_CANCELLED, 0);
    seen_free(s);
    full_port_close(&full);
}

static void test_cancel_of_a_request_that_was_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *s = seen_new(&f->client, "GET", "http://127.0.0.1:%d/", f->server.port);

    s->config.connect_timeout_ms = -1; /* curl refuses the setting */
    on_loop(f->client.loop, submit_and_cancel, s);
    seen_wait(s);
    seen_expect(s, SF_INVALID, 0);
    seen_free(s);
}

/* One request's end cancels the other, whose end may lie ready already, and begins a third. */
struct trio {
    struct exchange_seen *list[3];
    int done;
};
static struct trio *trio_now; /* loop thread, once the requests are under way */

static void trio_on_done(sf_http_request *r)
{
    struct trio *t = trio_now;
    int first = t->done++;

    if (first == 0) {
        struct exchange_seen *other = t->list[r == &t->list[0]->r ? 1 : 0];

        sf__http_cancel(other->client->http, &other->r);
        seen_submit_on_loop(t->list[2]);
    }
    seen_on_done(r);
}

static void trio_start(void *arg)
{
    seen_submit_on_loop(trio_now->list[0]);
    seen_submit_on_loop(trio_now->list[1]);
}

static void test_completions_act_on_other_requests(void **state)
{
    for (int round = 0; round < 50; round++) {
        struct trio t = {.done = 0};
        int cancelled = 0;

        trio_now = &t;
        for (int i = 0; i < 3; i++) {
            t.list[i] = get(*state, "/ok");
            t.list[i]->r.done = trio_on_done;
        }
        on_loop(((struct fixture *)*state)->client.loop, trio_start, NULL);
        for (int i = 0; i < 3; i++) {
            seen_wait(t.list[i]);
            cancelled += t.list[i]->error.code == SF_CANCELLED;
            seen_free(t.list[i]);
        }
        assert_int_equal(cancelled, 1);
    }
}

/* Every state that a request can be cancelled in, by cancelling after ever more turns of the loop. */
static void test_cancel_at_every_turn(void **state)
{
    struct fixture *f = *state;

    for (int turns = 0;; turns++) {
        struct exchange_seen *s = get(f, "/body/200000");
        sf_status code;

        seen_submit(s);
        for (int i = 0; i < turns; i++)
            on_loop(f->client.loop, seen_nothing_on_loop, NULL);
        on_loop(f->client.loop, seen_cancel_on_loop, s);
        seen_wait(s);
        code = s->error.code;
        seen_free(s);
        if (code == SF_OK)
            break;
        assert_int_equal(code, SF_CANCELLED);
        if (f->server.accepted > HTTP_SERVER_CONNECTIONS - 4 || turns > 2000)
            break;
    }
}

/* ---------------------------------------------------------------- proxies, memory ------------------------------- */

static void test_proxy_from_the_environment(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *s;
    int fd, port = closed_port(&fd);
    char proxy[64];

    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", f->server.port);
    setenv("http_proxy", proxy, 1);
    s = seen_new(&f->client, "GET", "http://bucket.example:%d/echo", port);
    seen_run(s);
    seen_expect(s, SF_OK, 200);
    expect_in_body(s, "GET http://bucket.example:", true);
    seen_free(s);

    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", port); /* answers to nobody */
    setenv("http_proxy", proxy, 1);
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_UNAVAILABLE, 0);
    seen_free(s);
    setenv("no_proxy", "127.0.0.1", 1);
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_OK, 200);
    seen_free(s);
    setenv("no_proxy", "127.0.0.1:1", 1); /* another port */
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_UNAVAILABLE, 0);
    seen_free(s);
    snprintf(proxy, sizeof(proxy), "127.0.0.1:%d", f->server.port);
    setenv("no_proxy", proxy, 1);
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_OK, 200);
    seen_free(s);
    unsetenv("http_proxy");
    unsetenv("no_proxy");

    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", port);
    setenv("HTTP_PROXY", proxy, 1);
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_UNAVAILABLE, 0);
    seen_free(s);
    setenv("REQUEST_METHOD", "GET", 1); /* a CGI program: the client chose HTTP_PROXY */
    s = get(f, "/ok");
    seen_run(s);
    seen_expect(s, SF_OK, 200);
    seen_free(s);
    unsetenv("HTTP_PROXY");
    unsetenv("REQUEST_METHOD");
    close(fd);
}

static void test_every_allocation_may_fail(void **state)
{
    struct fixture *f = *state;

    for (long nth = 0;; nth++) {
        struct test_heap h;
        struct client c = {.max_connections = 4, .alloc = &h.alloc};
        struct exchange_seen *s;
        sf_status code = SF_NOMEM;

        heap_init(&h);
        assert_int_equal(sf__loop_new(&c.loop, &h.alloc, NULL), SF_OK); /* loop_test.c has its failures */
        heap_arm(&h, nth);
        on_loop(c.loop, client_new_http, &c);
        if (c.http) {
            s = seen_new(&c, "GET", "http://127.0.0.1:%d/chunked/50000", f->server.port);
            seen_run(s);
            code = s->error.code;
            seen_free(s);
        }
        client_stop(&c);
        assert_int_equal(h.live, 0);
        if (!h.fired) {
            assert_int_equal(code, SF_OK);
            assert_true(nth > 5);
            break;
        }
        assert_int_equal(code, SF_NOMEM);
    }
}

/* Connections that are kept, and watched, when all ends. */
static void test_free_with_kept_connections(void **state)
{
    struct fixture *f = *state;
    struct exchange_seen *list[8];
    struct client c;

    client_start(&c, 8);
    for (int i = 0; i < 8; i++) {
        list[i] = seen_new(&c, "GET", "http://127.0.0.1:%d/%s", f->server.port, i < 4 ? "ok" : "stall");
        seen_submit(list[i]);
    }
    for (int i = 0; i < 8; i++) {
        if (i >= 4)
            on_loop(c.loop, seen_cancel_on_loop, list[i]);
        seen_wait(list[i]);
        seen_expect(list[i], i < 4 ? SF_OK : SF_CANCELLED, i < 4 ? 200 : 0);
        seen_free(list[i]);
    }
    client_stop(&c);
}

#define HTTP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HTTP_TEST(test_outcomes),
        HTTP_TEST(test_body_has_no_slack),
        HTTP_TEST(test_headers),
        HTTP_TEST(test_what_is_sent),
        HTTP_TEST(test_bad_urls),
        HTTP_TEST(test_connections_are_reused),
        HTTP_TEST(test_dead_connections_are_replaced),
        HTTP_TEST(test_bounded_connections),
        HTTP_TEST(test_waiting_for_a_connection_is_no_connect_timeout),
        HTTP_TEST(test_connection_refused),
        HTTP_TEST(test_a_host_that_does_not_exist),
        HTTP_TEST(test_timeouts),
        HTTP_TEST(test_what_is_slow_but_moves),
        HTTP_TEST(test_cancel_in_the_middle_of_a_body),
        HTTP_TEST(test_cancel_before_anything_was_sent),
        HTTP_TEST(test_cancel_while_connecting),
        HTTP_TEST(test_cancel_of_a_request_that_was_refused_at_once),
        HTTP_TEST(test_completions_act_on_other_requests),
        HTTP_TEST(test_cancel_at_every_turn),
        HTTP_TEST(test_proxy_from_the_environment),
        HTTP_TEST(test_every_allocation_may_fail),
        HTTP_TEST(test_free_with_kept_connections),
    };

    unsetenv("http_proxy"); /* of whoever runs the test */
    unsetenv("HTTP_PROXY");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
