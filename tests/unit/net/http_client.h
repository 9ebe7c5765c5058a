/* A client side for tests of the HTTP layer: loop, engine, one request at a time or several, waited for. */
#ifndef TESTS_HTTP_CLIENT_H
#define TESTS_HTTP_CLIENT_H

#include "on_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/http.h"

struct client {
    sf_loop *loop;
    sf_http *http;
    uint32_t max_connections;
    const sf_allocator *alloc;
};

static inline void client_new_http(void *arg)
{
    struct client *c = arg;

    if (sf__http_new(&c->http, c->loop, c->alloc, c->max_connections, NULL) != SF_OK)
        c->http = NULL;
}

static inline void client_free_http(void *arg)
{
    sf__http_free(((struct client *)arg)->http);
}

static inline void client_start(struct client *c, uint32_t max_connections)
{
    *c = (struct client){.max_connections = max_connections, .alloc = &sf__allocator_default};
    assert_int_equal(sf__loop_new(&c->loop, c->alloc, NULL), SF_OK);
    on_loop(c->loop, client_new_http, c);
    assert_non_null(c->http);
}

static inline void client_stop(struct client *c)
{
    on_loop(c->loop, client_free_http, c);
    sf__loop_free(c->loop);
}

/* One request with what is observed about its end. Zeroed but for the fields of sf_http_request that matter. */
struct exchange_seen {
    sf_http_request r;
    struct client *client;
    struct gate gate;
    sf_http_config config;
    char url[256];
    sf_error error;  /* with the status of the answer, also of one that is none */
    int completions; /* loop thread */
    bool submitting, inside, elsewhere;
};

static inline void seen_on_done(sf_http_request *r)
{
    struct exchange_seen *s = r->ctx;

    s->error = *r->error;
    if (s->error.code == SF_OK)
        s->error.http_status = (int)r->status;
    s->completions++;
    s->inside |= s->submitting;
    s->elsewhere |= !sf__loop_is_current(s->client->loop);
    gate_arrive(&s->gate);
}

__attribute__((format(printf, 3, 4))) static inline struct exchange_seen *seen_new(struct client *c, const char *method,
                                                                                   const char *fmt, ...)
{
    struct exchange_seen *s = calloc(1, sizeof(*s));
    va_list args;

    s->client = c;
    s->gate = (struct gate)GATE_INIT;
    s->config = (sf_http_config){.connect_timeout_ms = 10000, .idle_timeout_ms = 20000};
    va_start(args, fmt);
    vsnprintf(s->url, sizeof(s->url), fmt, args);
    va_end(args);
    s->r = (sf_http_request){
        .config = &s->config,
        .method = method,
        .url = s->url,
        .deadline_ns = sf__deadline_in_ms(20000),
        .max_body_bytes = 1 << 20,
        .done = seen_on_done,
        .ctx = s,
    };
    return s;
}

static inline void seen_submit_on_loop(void *arg)
{
    struct exchange_seen *s = arg;

    s->submitting = true;
    sf__http_submit(s->client->http, &s->r);
    s->submitting = false;
}

static inline void seen_cancel_on_loop(void *arg)
{
    struct exchange_seen *s = arg;

    s->submitting = true;
    sf__http_cancel(s->client->http, &s->r);
    sf__http_cancel(s->client->http, &s->r); /* once more is harmless */
    s->submitting = false;
}

static inline void seen_nothing_on_loop(void *arg) {}

static inline void seen_submit(struct exchange_seen *s)
{
    on_loop(s->client->loop, seen_submit_on_loop, s);
}

/* Waits for the end, and for what might come after it: a second completion. */
static inline void seen_wait(struct exchange_seen *s)
{
    gate_wait(&s->gate, 1);
    on_loop(s->client->loop, seen_nothing_on_loop, NULL);
    on_loop(s->client->loop, seen_nothing_on_loop, NULL);
    if (s->completions != 1 || s->inside || s->elsewhere)
        fail_msg("%s: %d completions, inside a call: %d, on another thread: %d", s->url, s->completions, s->inside,
                 s->elsewhere);
}

static inline void seen_run(struct exchange_seen *s)
{
    seen_submit(s);
    seen_wait(s);
}

static inline void seen_free(struct exchange_seen *s)
{
    sf__http_request_cleanup(&s->r, s->client->alloc);
    free(s);
}

static inline void seen_expect(const struct exchange_seen *s, sf_status code, long status)
{
    if (s->error.code != code || s->r.status != status)
        fail_msg("%s: %s, status %ld (\"%s\"), expected %s, status %ld", s->url, sf_status_name(s->error.code),
                 s->r.status, s->error.message, sf_status_name(code), status);
}

static inline void seen_expect_body(const struct exchange_seen *s, const char *text)
{
    sf_bytes got = sf__buf_bytes(s->r.response);

    if (!sf_bytes_eq(got, sf_bytes_str(text)))
        fail_msg("%s: body \"%.*s\", expected \"%s\"", s->url, (int)got.n, (const char *)got.p, text);
}

#endif
