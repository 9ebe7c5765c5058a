#include "net/http.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <curl/curl.h>
#include <uv.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "net/http_response.h"
#include "net/proxy.h"

/* S3 closes connections that idle for about 20 s or more; one that is younger is still there when we reuse it. */
#define IDLE_CONNECTION_SECONDS 18L
#define RECEIVE_BUFFER_BYTES (64L << 10)
#define EXPECT_100_MS 200L
/* Asking before a body goes out costs a round trip; a refusal costs the body. */
#define EXPECT_100_BYTES (1u << 20)

/*   RUNNING --> POSTED --> DONE      cancelled, or failed before or inside a call of ours: done() has to wait
 *      |                    ^
 *      +--------------------+        curl or a timer ended it
 * Every arrow passes through exchange_enter(). */
enum exchange_state { EXCHANGE_RUNNING, EXCHANGE_POSTED, EXCHANGE_DONE };

/* What a request needs while it is under way. Pooled, for the sake of the easy handle in it. */
struct exchange {
    sf_http *http;
    sf_http_request *r;
    CURL *easy;
    enum exchange_state state;
    struct curl_slist *headers;
    sf_timer deadline, idle;
    uint64_t moved_ns; /* when the last byte went either way */
    sf_http_collector in;
    int fd;            /* the socket opened last for it, or -1; only looked at before it is connected */
    bool connecting;   /* keeps the standard descriptors taken: the look-up of a name opens files on a thread of curl's */
    bool connected;    /* something answers at the other end, at least now */
    sf_status refused; /* why a callback of ours ended the transfer, as r->error tells; SF_OK otherwise */
    size_t body_sent;
    struct exchange *next_free;
    char text[CURL_ERROR_SIZE];
};

struct sf_http {
    const sf_allocator *alloc;
    sf_loop *loop;
    CURLM *multi;
    sf_timer timer; /* curl's */
    struct exchange *free_list;
    size_t free_count, free_max;
    size_t active; /* requests that are not done */
};

/* A socket that curl wants watched. Lives until libuv has closed the handle, which may be after sf__http_free(). */
struct watch {
    uv_poll_t poll;
    sf_http *http;
    const sf_allocator *alloc;
    curl_socket_t fd;
    int events; /* that curl wants */
};

static void exchange_enter(struct exchange *x, enum exchange_state next);

/* ---------------------------------------------------------------- curl's callbacks ------------------------------ */

static void exchange_moved(struct exchange *x)
{
    x->moved_ns = sf__clock_mono_ns();
}

static void idle_on_timer(sf_timer *timer);

static void idle_start(struct exchange *x)
{
    exchange_moved(x);
    if (x->r->config->idle_timeout_ms > 0)
        sf__timer_start(x->http->loop, &x->idle, sf__deadline_in_ms(x->r->config->idle_timeout_ms));
}

static void connecting_begin(struct exchange *x)
{
    x->connecting = true;
    sf__std_fds_hold();
}

static void connecting_end(struct exchange *x)
{
    if (x->connecting)
        sf__std_fds_let_go();
    x->connecting = false;
}

/* The connection stands and the request is about to go out: from here on silence counts. */
static int on_connected(void *ctx, char *ip, char *local_ip, int port, int local_port)
{
    struct exchange *x = ctx;

    x->r->resent = x->connected; /* curl takes another connection when a kept one turns out to be dead */
    x->connected = true;
    connecting_end(x);
    idle_start(x);
    return CURL_PREREQFUNC_OK;
}

static size_t on_send(char *to, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    size_t room = size * count, left = x->r->body.n - x->body_sent;
    size_t n = left < room ? left : room;

    if (n > 0)
        memcpy(to, x->r->body.p + x->body_sent, n);
    x->body_sent += n;
    exchange_moved(x);
    return n;
}

/* curl rewinds when a kept-alive connection turns out to be dead and it sends the request once more. */
static int on_rewind(void *ctx, curl_off_t off, int origin)
{
    struct exchange *x = ctx;

    if (origin != SEEK_SET || off < 0 || (uint64_t)off > x->r->body.n)
        return CURL_SEEKFUNC_FAIL;
    x->body_sent = (size_t)off;
    return CURL_SEEKFUNC_OK;
}

/* What a callback of curl's returns: the count it was given, or the end of the transfer. */
static size_t taken(struct exchange *x, sf_status rc, size_t n)
{
    if (rc != SF_OK)
        x->refused = rc;
    return rc == SF_OK && !x->in.cut ? n : CURL_WRITEFUNC_ERROR;
}

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;

    exchange_moved(x);
    return taken(x, sf__http_collect_header(&x->in, line, size * count), size * count);
}

static size_t on_body(char *from, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    curl_off_t announced = -1;
    long status = 0;

    exchange_moved(x);
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
    return taken(x, sf__http_collect_body(&x->in, status, announced, from, size * count), size * count);
}

static curl_socket_t on_open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct exchange *x = ctx;

    x->fd = SF_FD(socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol));
    return x->fd;
}

/* ---------------------------------------------------------------- the end of a request -------------------------- */

static sf_status status_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return SF_OK;
    case CURLE_OUT_OF_MEMORY:
        return SF_NOMEM;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_NOT_BUILT_IN:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_UNKNOWN_OPTION:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_PEER_FAILED_VERIFICATION: /* the same certificate comes again */
        return SF_INVALID;
    default:
        return SF_UNAVAILABLE;
    }
}

static void exchange_note_status(struct exchange *x)
{
    long status = 0;

    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    x->r->error.http_status = (int)status;
}

SF_PRINTF(3, 4) static void exchange_fail(struct exchange *x, sf_status rc, const char *fmt, ...)
{
    char text[sizeof(x->text)];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sf_fail(&x->r->error, rc, "%s", text);
    exchange_note_status(x);
}

/* curl says "could not connect" and "could not resolve" where it got no descriptor. Whether there is one now tells. */
static int missing_descriptor(CURLcode code)
{
    int e;

    if (code != CURLE_COULDNT_CONNECT && code != CURLE_COULDNT_RESOLVE_HOST && code != CURLE_COULDNT_RESOLVE_PROXY &&
        code != CURLE_SSL_CACERT_BADFILE)
        return 0;
    e = sf__fd_probe(2); /* its look-ups take a pair */
    return sf__errno_is_exhausted(e) ? e : 0;
}

static void exchange_on_result(struct exchange *x, CURLcode code)
{
    const char *text = x->text[0] ? x->text : curl_easy_strerror(code);
    int exhausted = x->refused == SF_OK && !x->in.cut ? missing_descriptor(code) : 0;
    sf_http_request *r = x->r;

    if (x->refused != SF_OK) {
        exchange_note_status(x);
    } else if (code == CURLE_OK || x->in.cut) {
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &r->status);
        sf_error_clear(&r->error);
        r->error.http_status = (int)r->status;
    } else if (x->connected && code == CURLE_UNSUPPORTED_PROTOCOL) { /* ours is one; what came back is none */
        exchange_fail(x, SF_UNAVAILABLE, "the answer is not HTTP");
    } else if (exhausted != 0) {
        sf__fail_errno(&r->error, exhausted, SF_EXHAUSTED, "%s", text);
    } else {
        exchange_fail(x, status_of(code), "%s", text);
    }
    exchange_enter(x, EXCHANGE_DONE);
}

/* curl tells how far a connection has come when it has come all the way. */
static bool has_peer(int fd)
{
    struct sockaddr_storage peer;
    socklen_t n = sizeof(peer);

    return getpeername(fd, (struct sockaddr *)&peer, &n) == 0;
}

const char *sf__http_waits_for(const sf_http_request *r)
{
    const struct exchange *x = r->impl;

    if (!x)
        return "its completion";
    if (r->response_header_count > 0 || r->response)
        return "the rest of the answer";
    if (x->connected)
        return "an answer";
    if (x->fd < 0)
        return "the address of the host";
    if (!has_peer(x->fd))
        return "a connection";
    return strncasecmp(r->url, "https:", 6) == 0 ? "the TLS handshake, or the proxy" : "the proxy";
}

static void deadline_on_timer(sf_timer *timer)
{
    struct exchange *x = sf_container_of(timer, struct exchange, deadline);

    if (x->refused == SF_OK) { /* else: on_socket() has pulled the deadline forward */
        x->r->waited_for = sf__http_waits_for(x->r);
        exchange_fail(x, SF_TIMEOUT, "the deadline passed while it waited for %s", x->r->waited_for);
    }
    exchange_enter(x, EXCHANGE_DONE);
}

static void idle_on_timer(sf_timer *timer)
{
    struct exchange *x = sf_container_of(timer, struct exchange, idle);
    uint64_t limit = (uint64_t)x->r->config->idle_timeout_ms * 1000000, now = sf__clock_mono_ns();

    if (now - x->moved_ns < limit) { /* something moved since: this is cheaper than re-arming at every byte */
        sf__timer_start(x->http->loop, &x->idle, x->moved_ns + limit);
        return;
    }
    exchange_fail(x, SF_UNAVAILABLE, "stalled: no byte moved for %lld ms",
                  (long long)x->r->config->idle_timeout_ms);
    exchange_enter(x, EXCHANGE_DONE);
}

static void post_on_task(sf_task *task)
{
    sf_http_request *r = sf_container_of(task, sf_http_request, task);

    exchange_enter(r->impl, EXCHANGE_DONE);
}

/* ---------------------------------------------------------------- sockets and curl's timer ---------------------- */

static void messages_read(sf_http *http)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(http->multi, &left))) {
        struct exchange *x = NULL;

        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        exchange_on_result(x, m->data.result); /* *m is gone after this */
    }
}

/* Everything curl does happens in here: it moves what can be moved, then its results are read. */
static void multi_act(sf_http *http, curl_socket_t fd, int flags)
{
    int running;
    CURLMcode rc;

    sf__std_fds_hold(); /* a kept connection that is dead is opened anew */
    rc = curl_multi_socket_action(http->multi, fd, flags, &running);
    sf__std_fds_let_go();

    /* Faults of our own. Of the others, a socket that it has closed meanwhile is none (the event was on its way), and
     * where memory was short the deadline and the silence of that request remain. */
    assert(rc != CURLM_BAD_HANDLE && rc != CURLM_RECURSIVE_API_CALL);
    (void)rc;
    messages_read(http);
}

static void curl_on_timer(sf_timer *timer)
{
    sf_http *http = sf_container_of(timer, sf_http, timer);

    multi_act(http, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_wanted(CURLM *multi, long ms, void *ctx)
{
    sf_http *http = ctx;

    if (ms < 0)
        sf__timer_stop(http->loop, &http->timer);
    else
        sf__timer_start(http->loop, &http->timer, sf__clock_mono_ns() + (uint64_t)ms * 1000000);
    return 0;
}

static void watch_on_event(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    int flags = 0;

    /* An error of the socket, a reset for one. curl is not told so: it would give up without a look, at what arrived
     * before the reset, and at whether the connection died before this request, which it then sends once more. It
     * finds the error when it does what it is waiting to do. */
    if (status < 0) {
        uv_poll_start(&w->poll, w->events, watch_on_event); /* libuv has stopped watching and curl does not know */
        events = w->events;
    }
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    multi_act(w->http, w->fd, flags);
}

static void watch_on_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;

    sf__free(w->alloc, w);
}

/* NULL and *rc, a number of libuv's. */
static struct watch *watch_new(sf_http *http, curl_socket_t fd, int *rc)
{
    struct watch *w = sf__calloc(http->alloc, 1, sizeof(*w));

    *rc = w ? uv_poll_init_socket(sf__loop_uv(http->loop), &w->poll, fd) : UV_ENOMEM;
    if (*rc != 0) {
        sf__free(http->alloc, w);
        return NULL;
    }
    w->poll.data = w;
    w->http = http;
    w->alloc = http->alloc;
    w->fd = fd;
    return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    sf_http *http = ctx;
    struct watch *w = socket_ctx;
    int rc;

    if (what == CURL_POLL_REMOVE) {
        if (w) {
            curl_multi_assign(http->multi, fd, NULL);
            uv_poll_stop(&w->poll); /* now, while the descriptor is still open */
            uv_close((uv_handle_t *)&w->poll, watch_on_closed);
        }
        return 0;
    }
    if (!w) {
        w = watch_new(http, fd, &rc);
        if (!w) {
            struct exchange *x = NULL;

            /* -1 would kill the multi handle with all its transfers: end this one only, and not in here */
            curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&x);
            if (x && x->state == EXCHANGE_RUNNING) {
                x->refused = sf__fail_errno(&x->r->error, -rc, SF_UNAVAILABLE, "watching a socket");
                sf__timer_start(http->loop, &x->deadline, 0);
            }
            return 0;
        }
        curl_multi_assign(http->multi, fd, w);
    }
    w->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    uv_poll_start(&w->poll, w->events, watch_on_event); /* fails only on a closing handle */
    return 0;
}

/* ---------------------------------------------------------------- one request ----------------------------------- */

static struct exchange *exchange_take(sf_http *http)
{
    struct exchange *x = http->free_list;

    if (x) {
        http->free_list = x->next_free;
        http->free_count--;
        return x;
    }
    x = sf__calloc(http->alloc, 1, sizeof(*x));
    if (!x)
        return NULL;
    x->http = http;
    x->easy = curl_easy_init();
    if (!x->easy) {
        sf__free(http->alloc, x);
        return NULL;
    }
    return x;
}

static void exchange_give_back(struct exchange *x)
{
    sf_http *http = x->http;

    curl_slist_free_all(x->headers);
    curl_easy_reset(x->easy); /* forgets the credentials too */
    /* After a transfer that could not even connect (no such host) curl 7.88 keeps the receive buffer beyond the reset, and
     * takes no size for it any more: such a handle would fail every request to come. */
    if (http->free_count >= http->free_max ||
        curl_easy_setopt(x->easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES) != CURLE_OK) {
        curl_easy_cleanup(x->easy);
        sf__free(http->alloc, x);
        return;
    }
    *x = (struct exchange){.http = http, .easy = x->easy, .next_free = http->free_list};
    http->free_list = x;
    http->free_count++;
}

static CURLcode set_transport(struct exchange *x)
{
    const sf_http_config *c = x->r->config;
    CURL *e = x->easy;
    const char *proxy = c->direct ? NULL : sf__proxy_of(x->r->url, &(sf_environment){0});
    CURLcode rc = c->connect_timeout_ms < 0 ? CURLE_BAD_FUNCTION_ARGUMENT : CURLE_OK; /* some curls take it for "never" */

/* collects the first failure */
#define SET(option, value) (rc = rc == CURLE_OK ? curl_easy_setopt(e, option, value) : rc)
    SET(CURLOPT_PRIVATE, x);
    SET(CURLOPT_ERRORBUFFER, x->text);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PATH_AS_IS, 1L); /* "..", "." and "//" are parts of keys */
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* a redirect is an answer: it has to be signed anew */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_MAXAGE_CONN, IDLE_CONNECTION_SECONDS);
    SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
    SET(CURLOPT_EXPECT_100_TIMEOUT_MS, EXPECT_100_MS);
    SET(CURLOPT_QUICK_EXIT, 1L); /* cancelling must not wait for a name server */
    SET(CURLOPT_USERAGENT, "shardyfusion/" SF_VERSION);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_timeout_ms);
    SET(CURLOPT_SSL_VERIFYPEER, c->insecure ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, c->insecure ? 0L : 2L);
    if (c->ca_bundle)
        SET(CURLOPT_CAINFO, c->ca_bundle);
    SET(CURLOPT_PROXY, proxy ? proxy : ""); /* decided here: curl's own rules vary by its version */
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, x);
    SET(CURLOPT_PREREQFUNCTION, on_connected);
    SET(CURLOPT_PREREQDATA, x);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, x);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, x);
    return rc;
}

static CURLcode add_header(struct exchange *x, const char *line)
{
    struct curl_slist *more = curl_slist_append(x->headers, line);

    if (!more)
        return CURLE_OUT_OF_MEMORY;
    x->headers = more;
    return CURLE_OK;
}

static bool has_content_type(const sf_http_request *r)
{
    for (const char *const *h = r->headers; h && *h; h++)
        if (strncasecmp(*h, "Content-Type:", 13) == 0)
            return true;
    return false;
}

/* A small body goes out as that of a form does, with the header and unasked. Uploads wait for the server's word first,
 * and cannot be told otherwise when they are signed: curl 7.88 signs the empty Expect header that switches it off and then
 * leaves it out, which AWS refuses. Without a content type of ours the form would bring its own. */
static CURLcode set_body(struct exchange *x)
{
    const sf_http_request *r = x->r;
    CURL *e = x->easy;
    CURLcode rc = CURLE_OK;
    bool small = r->body.n < EXPECT_100_BYTES;

    SET(CURLOPT_CUSTOMREQUEST, r->method);
    if (small && r->body.n > 0 && has_content_type(r)) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
        SET(CURLOPT_POSTFIELDS, (const char *)r->body.p);
        return rc;
    }
    SET(CURLOPT_UPLOAD, 1L);
    SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body.n);
    SET(CURLOPT_READFUNCTION, on_send);
    SET(CURLOPT_READDATA, x);
    SET(CURLOPT_SEEKFUNCTION, on_rewind);
    SET(CURLOPT_SEEKDATA, x);
    if (small && !r->sigv4)
        rc = rc == CURLE_OK ? add_header(x, "Expect:") : rc;
    return rc;
}

static CURLcode set_request(struct exchange *x)
{
    const sf_http_request *r = x->r;
    CURL *e = x->easy;
    CURLcode rc = CURLE_OK;

    SET(CURLOPT_URL, r->url);
    if (strcmp(r->method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    else if (r->body.n > 0 || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0)
        rc = rc == CURLE_OK ? set_body(x) : rc;
    else if (strcmp(r->method, "GET") != 0)
        SET(CURLOPT_CUSTOMREQUEST, r->method);
    if (r->sigv4) {
        SET(CURLOPT_AWS_SIGV4, r->sigv4);
        SET(CURLOPT_USERNAME, r->access_key); /* not USERPWD: that one splits at the first colon */
        SET(CURLOPT_PASSWORD, r->secret_key);
    }
    for (const char *const *h = r->headers; rc == CURLE_OK && h && *h; h++)
        rc = add_header(x, *h);
    if (x->headers)
        SET(CURLOPT_HTTPHEADER, x->headers);
#undef SET
    return rc;
}

static void exchange_start(struct exchange *x)
{
    CURLcode rc = set_transport(x);
    CURLMcode mrc;

    if (rc == CURLE_OK)
        rc = set_request(x);
    if (rc != CURLE_OK) {
        exchange_fail(x, status_of(rc), "%s", x->text[0] ? x->text : curl_easy_strerror(rc));
        exchange_enter(x, EXCHANGE_POSTED);
        return;
    }
    sf__timer_start(x->http->loop, &x->deadline, x->r->deadline_ns);
    connecting_begin(x);
    mrc = curl_multi_add_handle(x->http->multi, x->easy); /* only queues it: curl's timer gets it going */
    if (mrc != CURLM_OK) {
        exchange_fail(x, mrc == CURLM_OUT_OF_MEMORY ? SF_NOMEM : SF_UNAVAILABLE, "%s", curl_multi_strerror(mrc));
        exchange_enter(x, EXCHANGE_POSTED);
    }
}

static void exchange_stop(struct exchange *x)
{
    sf__timer_stop(x->http->loop, &x->deadline);
    sf__timer_stop(x->http->loop, &x->idle);
    curl_multi_remove_handle(x->http->multi, x->easy); /* harmless when it is not in there */
    connecting_end(x);
}

static void exchange_end(struct exchange *x)
{
    x->r->impl = NULL;
    x->http->active--;
    exchange_give_back(x); /* x is somebody else's */
}

static void exchange_enter(struct exchange *x, enum exchange_state next)
{
    sf_http *http = x->http;
    sf_http_request *r = x->r;

    x->state = next;
    switch (next) {
    case EXCHANGE_RUNNING:
        exchange_start(x); /* ends in exchange_on_result(), a timer, or sf__http_cancel() */
        break;
    case EXCHANGE_POSTED: /* ends in post_on_task() */
        exchange_stop(x);
        r->task.run = post_on_task;
        sf__loop_post(http->loop, &r->task);
        break;
    case EXCHANGE_DONE:
        exchange_stop(x);
        exchange_end(x);
        r->done(r); /* r is the owner's again: nothing after this line */
        break;
    }
}

static void nomem_on_task(sf_task *task)
{
    sf_http_request *r = sf_container_of(task, sf_http_request, task);

    r->done(r);
}

void sf__http_submit(sf_http *http, sf_http_request *r)
{
    struct exchange *x;

    assert(sf__loop_is_current(http->loop));
    x = exchange_take(http);
    sf_error_clear(&r->error);
    r->status = 0;
    r->waited_for = NULL;
    r->resent = r->too_long = false;
    r->response_headers = NULL;
    r->response_header_count = 0;
    r->response = NULL;
    r->impl = x;
    if (!x) {
        sf_fail(&r->error, SF_NOMEM, "HTTP request");
        r->task.run = nomem_on_task;
        sf__loop_post(http->loop, &r->task);
        return;
    }
    x->r = r;
    x->fd = -1;
    x->in = (sf_http_collector){.r = r, .alloc = http->alloc};
    x->deadline.fire = deadline_on_timer;
    x->idle.fire = idle_on_timer;
    http->active++;
    exchange_enter(x, EXCHANGE_RUNNING);
}

void sf__http_cancel(sf_http *http, sf_http_request *r)
{
    struct exchange *x = r->impl;

    assert(sf__loop_is_current(http->loop));
    if (!x || x->state != EXCHANGE_RUNNING)
        return;
    exchange_fail(x, SF_CANCELLED, "cancelled while a response was awaited");
    exchange_enter(x, EXCHANGE_POSTED);
}

bool sf__http_abandon(sf_http *http, sf_http_request *r)
{
    struct exchange *x = r->impl;

    assert(sf__loop_is_current(http->loop));
    if (!x || x->state != EXCHANGE_RUNNING)
        return false;
    exchange_stop(x);
    exchange_end(x);
    return true;
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

static CURLcode curl_started;

static void curl_start(void)
{
    sf__std_fds_hold(); /* OpenSSL reads its configuration */
    curl_started = curl_global_init(CURL_GLOBAL_DEFAULT);
    sf__std_fds_let_go();
}

static CURLMcode multi_configure(sf_http *http, uint32_t max_connections)
{
    CURLMcode rc = CURLM_OK;
    CURLM *m = http->multi;

#define SET(option, value) (rc = rc == CURLM_OK ? curl_multi_setopt(m, option, value) : rc)
    SET(CURLMOPT_SOCKETFUNCTION, on_socket);
    SET(CURLMOPT_SOCKETDATA, http);
    SET(CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    SET(CURLMOPT_TIMERDATA, http);
    SET(CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)max_connections);
    SET(CURLMOPT_MAXCONNECTS, (long)max_connections);
#undef SET
    return rc;
}

/* curl says "out of memory" when it gets no socket pair to wake itself with, too. */
static sf_status http_new_fail(sf_error *err, CURLMcode rc)
{
    int e;

    if (rc != CURLM_OUT_OF_MEMORY)
        return sf_fail(err, SF_INVALID, "HTTP engine: %s", curl_multi_strerror(rc));
    e = sf__fd_probe(2);
    return e ? sf__fail_errno(err, e, SF_NOMEM, "HTTP engine") : sf_fail(err, SF_NOMEM, "HTTP engine");
}

sf_status sf__http_new(sf_http **out, sf_loop *loop, const sf_allocator *a, uint32_t max_connections, sf_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sf_http *http;
    CURLMcode rc;

    pthread_once(&once, curl_start); /* curl's own start behind the scenes is not safe everywhere */
    if (curl_started != CURLE_OK)
        return sf_fail(err, SF_UNSUPPORTED, "HTTP engine: %s", curl_easy_strerror(curl_started));
    http = sf__calloc(a, 1, sizeof(*http));
    if (!http)
        return sf_fail(err, SF_NOMEM, "HTTP engine");
    http->alloc = a;
    http->loop = loop;
    http->timer.fire = curl_on_timer;
    http->free_max = max_connections;
    sf__std_fds_hold();
    http->multi = curl_multi_init();
    sf__std_fds_let_go();
    rc = http->multi ? multi_configure(http, max_connections) : CURLM_OUT_OF_MEMORY;
    if (rc != CURLM_OK) {
        if (http->multi)
            curl_multi_cleanup(http->multi);
        sf__free(a, http);
        return http_new_fail(err, rc);
    }
    *out = http;
    return SF_OK;
}

bool sf__http_is_idle(const sf_http *http)
{
    return http->active == 0;
}

void sf__http_free(sf_http *http)
{
    if (!http)
        return;
    assert(http->active == 0);
    for (struct exchange *x = http->free_list, *next; x; x = next) {
        next = x->next_free;
        curl_easy_cleanup(x->easy);
        sf__free(http->alloc, x);
    }
    curl_multi_cleanup(http->multi); /* closes the kept connections; their watches close with the loop's next turn */
    sf__timer_stop(http->loop, &http->timer);
    sf__free(http->alloc, http);
}

int64_t sf__http_date(const char *text)
{
    return (int64_t)curl_getdate(text, NULL);
}
