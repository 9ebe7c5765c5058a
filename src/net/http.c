#include "net/http.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "net/curl_loop.h"
#include "net/http_options.h"
#include "net/http_response.h"

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
    int fd;          /* the socket opened last for it, or -1; only looked at before it is connected */
    bool connecting; /* keeps the standard descriptors taken: the look-up of a name opens files on a thread of curl's */
    bool connected;  /* something answers at the other end, at least now */
    const sf_error *failed; /* how it has failed, kept; NULL: it has not */
    bool refused;           /* by a callback of ours */
    size_t body_sent;
    struct exchange *next_free;
    char text[CURL_ERROR_SIZE];
};

struct sf_http {
    const sf_allocator *alloc;
    sf_loop *loop;
    sf_curl_loop curl;
    struct exchange *free_list;
    size_t free_count, free_max;
    size_t active; /* requests that are not done */
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

/* Replaces what it has failed with before. */
static void exchange_failed(struct exchange *x, sf_error *e)
{
    long status = 0;

    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    e->http_status = (int)status;
    sf_error_drop(x->http->alloc, x->failed);
    x->failed = sf_error_keep(x->http->alloc, e);
}

/* A callback of ours ends the transfer. */
static void exchange_refuse(struct exchange *x, sf_error *e)
{
    x->refused = true;
    exchange_failed(x, e);
}

/* What a callback of curl's returns: the count it was given, or the end of the transfer. */
static size_t taken(struct exchange *x, sf_status rc, sf_error *e, size_t n)
{
    if (rc != SF_OK)
        exchange_refuse(x, e);
    return rc == SF_OK && !x->in.cut ? n : CURL_WRITEFUNC_ERROR;
}

static size_t on_header(char *line, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    sf_error e; /* filled by failures only */

    exchange_moved(x);
    return taken(x, sf__http_collect_header(&x->in, line, size * count, &e), &e, size * count);
}

static size_t on_body(char *from, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    curl_off_t announced = -1;
    long status = 0;
    sf_error e; /* filled by failures only */

    exchange_moved(x);
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &announced);
    return taken(x, sf__http_collect_body(&x->in, status, announced, from, size * count, &e), &e, size * count);
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

SF_PRINTF(3, 4) static void exchange_fail(struct exchange *x, sf_status rc, const char *fmt, ...)
{
    char text[sizeof(x->text)];
    sf_error e;
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sf_fail(&e, rc, "%s", text);
    exchange_failed(x, &e);
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

static struct exchange *exchange_of(CURL *easy)
{
    struct exchange *x = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&x);
    return x;
}

static void exchange_on_result(CURL *easy, CURLcode code)
{
    struct exchange *x = exchange_of(easy);
    const char *text = x->text[0] ? x->text : curl_easy_strerror(code);
    int exhausted = !x->refused && !x->in.cut ? missing_descriptor(code) : 0;
    sf_error e;

    if (x->refused) {
        exchange_enter(x, EXCHANGE_DONE);
        return;
    }
    if (code == CURLE_OK || x->in.cut) {
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &x->r->status);
    } else if (x->connected && code == CURLE_UNSUPPORTED_PROTOCOL) { /* ours is one; what came back is none */
        exchange_fail(x, SF_UNAVAILABLE, "the answer is not HTTP");
    } else if (exhausted != 0) {
        sf__fail_errno(&e, exhausted, SF_EXHAUSTED, "%s", text);
        exchange_failed(x, &e);
    } else {
        exchange_fail(x, status_of(code), "%s", text);
    }
    exchange_enter(x, EXCHANGE_DONE);
}

/* To end it now would be inside of a call of curl's. */
static void exchange_on_unwatched(CURL *easy, int e)
{
    struct exchange *x = exchange_of(easy);
    sf_error why;

    if (!x || x->state != EXCHANGE_RUNNING)
        return;
    sf__fail_errno(&why, e, SF_UNAVAILABLE, "watching a socket");
    exchange_refuse(x, &why);
    sf__timer_start(x->http->loop, &x->deadline, 0);
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

    if (!x->refused) { /* else: exchange_on_unwatched() has pulled the deadline forward */
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
    exchange_fail(x, SF_UNAVAILABLE, "stalled: no byte moved for %lld ms", (long long)x->r->config->idle_timeout_ms);
    exchange_enter(x, EXCHANGE_DONE);
}

static void post_on_task(sf_task *task)
{
    sf_http_request *r = sf_container_of(task, sf_http_request, task);

    exchange_enter(r->impl, EXCHANGE_DONE);
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

    sf_error_drop(http->alloc, x->failed);
    curl_slist_free_all(x->headers);
    if (!sf__http_options_reset(x->easy) || http->free_count >= http->free_max) {
        curl_easy_cleanup(x->easy);
        sf__free(http->alloc, x);
        return;
    }
    *x = (struct exchange){.http = http, .easy = x->easy, .next_free = http->free_list};
    http->free_list = x;
    http->free_count++;
}

static CURLcode set_callbacks(struct exchange *x)
{
    CURL *e = x->easy;
    CURLcode rc = CURLE_OK;

    SF_CURL_SET(rc, e, CURLOPT_PRIVATE, x);
    SF_CURL_SET(rc, e, CURLOPT_ERRORBUFFER, x->text);
    SF_CURL_SET(rc, e, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SF_CURL_SET(rc, e, CURLOPT_OPENSOCKETDATA, x);
    SF_CURL_SET(rc, e, CURLOPT_PREREQFUNCTION, on_connected);
    SF_CURL_SET(rc, e, CURLOPT_PREREQDATA, x);
    SF_CURL_SET(rc, e, CURLOPT_HEADERFUNCTION, on_header);
    SF_CURL_SET(rc, e, CURLOPT_HEADERDATA, x);
    SF_CURL_SET(rc, e, CURLOPT_WRITEFUNCTION, on_body);
    SF_CURL_SET(rc, e, CURLOPT_WRITEDATA, x);
    SF_CURL_SET(rc, e, CURLOPT_READFUNCTION, on_send);
    SF_CURL_SET(rc, e, CURLOPT_READDATA, x);
    SF_CURL_SET(rc, e, CURLOPT_SEEKFUNCTION, on_rewind);
    SF_CURL_SET(rc, e, CURLOPT_SEEKDATA, x);
    return rc;
}

static void exchange_start(struct exchange *x)
{
    CURLcode rc = set_callbacks(x);
    CURLMcode mrc;

    if (rc == CURLE_OK)
        rc = sf__http_options_set(x->easy, x->r, &x->headers);
    if (rc != CURLE_OK) {
        exchange_fail(x, status_of(rc), "%s", x->text[0] ? x->text : curl_easy_strerror(rc));
        exchange_enter(x, EXCHANGE_POSTED);
        return;
    }
    sf__timer_start(x->http->loop, &x->deadline, x->r->deadline_ns);
    connecting_begin(x);
    mrc = curl_multi_add_handle(x->http->curl.multi, x->easy); /* only queues it: curl's timer gets it going */
    if (mrc != CURLM_OK) {
        exchange_fail(x, mrc == CURLM_OUT_OF_MEMORY ? SF_NOMEM : SF_UNAVAILABLE, "%s", curl_multi_strerror(mrc));
        exchange_enter(x, EXCHANGE_POSTED);
    }
}

static void exchange_stop(struct exchange *x)
{
    sf__timer_stop(x->http->loop, &x->deadline);
    sf__timer_stop(x->http->loop, &x->idle);
    curl_multi_remove_handle(x->http->curl.multi, x->easy); /* harmless when it is not in there */
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
    const sf_allocator *a = http->alloc;
    const sf_error *failed;
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
        failed = x->failed;
        x->failed = NULL;
        exchange_stop(x);
        exchange_end(x);
        r->error = failed ? failed : &sf__no_error;
        r->done(r); /* r is the owner's again */
        sf_error_drop(a, failed);
        break;
    }
}

static void nomem_on_task(sf_task *task)
{
    sf_http_request *r = sf_container_of(task, sf_http_request, task);
    sf_error e;

    sf_fail(&e, SF_NOMEM, "HTTP request");
    r->error = &e;
    r->done(r);
}

void sf__http_submit(sf_http *http, sf_http_request *r)
{
    struct exchange *x;

    assert(sf__loop_is_current(http->loop));
    x = exchange_take(http);
    r->error = &sf__no_error;
    r->status = 0;
    r->waited_for = NULL;
    r->resent = r->too_long = false;
    r->response_headers = NULL;
    r->response_header_count = 0;
    r->response = NULL;
    r->impl = x;
    if (!x) {
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

sf_status sf__http_new(sf_http **out, sf_loop *loop, const sf_allocator *a, uint32_t max_connections, sf_error *err)
{
    sf_http *http = sf__calloc(a, 1, sizeof(*http));
    sf_status rc;

    if (!http)
        return sf_fail(err, SF_NOMEM, "HTTP engine");
    http->alloc = a;
    http->loop = loop;
    http->free_max = max_connections;
    http->curl.ended = exchange_on_result;
    http->curl.unwatched = exchange_on_unwatched;
    rc = sf__curl_loop_init(&http->curl, loop, a, max_connections, err);
    if (rc != SF_OK) {
        sf__free(a, http);
        return sf_error_prefix(err, rc, "HTTP engine: ");
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
    sf__curl_loop_cleanup(&http->curl);
    sf__free(http->alloc, http);
}

int64_t sf__http_date(const char *text)
{
    return (int64_t)curl_getdate(text, NULL);
}
