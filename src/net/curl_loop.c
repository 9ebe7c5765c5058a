#include "net/curl_loop.h"

#include <assert.h>
#include <pthread.h>

#include <uv.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"

/* A socket that curl wants watched. Lives until libuv has closed the handle, which may be after sf__curl_loop_cleanup(). */
struct watch {
    uv_poll_t poll;
    sf_curl_loop *curl;
    const sf_allocator *alloc;
    curl_socket_t fd;
    int events; /* that curl wants */
};

static void messages_read(sf_curl_loop *c)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(c->multi, &left)))
        if (m->msg == CURLMSG_DONE)
            c->ended(m->easy_handle, m->data.result); /* *m is gone after this */
}

/* Everything curl does happens in here: it moves what can be moved, then its results are read. */
static void multi_act(sf_curl_loop *c, curl_socket_t fd, int flags)
{
    int running;
    CURLMcode rc;

    sf__std_fds_hold(); /* a kept connection that is dead is opened anew */
    rc = curl_multi_socket_action(c->multi, fd, flags, &running);
    sf__std_fds_let_go();

    /* Faults of our own. Of the others, a socket that it has closed meanwhile is none (the event was on its way), and
     * where memory was short the deadline and the silence of that request remain. */
    assert(rc != CURLM_BAD_HANDLE && rc != CURLM_RECURSIVE_API_CALL);
    (void)rc;
    messages_read(c);
}

static void curl_on_timer(sf_timer *timer)
{
    sf_curl_loop *c = sf_container_of(timer, sf_curl_loop, timer);

    multi_act(c, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_wanted(CURLM *multi, long ms, void *ctx)
{
    sf_curl_loop *c = ctx;

    if (ms < 0)
        sf__timer_stop(c->loop, &c->timer);
    else
        sf__timer_start(c->loop, &c->timer, sf__clock_mono_ns() + (uint64_t)ms * 1000000);
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
    multi_act(w->curl, w->fd, flags);
}

static void watch_on_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;

    sf__free(w->alloc, w);
}

/* NULL and *rc, a number of libuv's. */
static struct watch *watch_new(sf_curl_loop *c, curl_socket_t fd, int *rc)
{
    struct watch *w = sf__calloc(c->alloc, 1, sizeof(*w));

    *rc = w ? uv_poll_init_socket(sf__loop_uv(c->loop), &w->poll, fd) : UV_ENOMEM;
    if (*rc != 0) {
        sf__free(c->alloc, w);
        return NULL;
    }
    w->poll.data = w;
    w->curl = c;
    w->alloc = c->alloc;
    w->fd = fd;
    return w;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    sf_curl_loop *c = ctx;
    struct watch *w = socket_ctx;
    int rc;

    if (what == CURL_POLL_REMOVE) {
        if (w) {
            curl_multi_assign(c->multi, fd, NULL);
            uv_poll_stop(&w->poll); /* now, while the descriptor is still open */
            uv_close((uv_handle_t *)&w->poll, watch_on_closed);
        }
        return 0;
    }
    if (!w) {
        w = watch_new(c, fd, &rc);
        if (!w) { /* -1 would kill the multi handle with all its transfers */
            c->unwatched(easy, -rc);
            return 0;
        }
        curl_multi_assign(c->multi, fd, w);
    }
    w->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    uv_poll_start(&w->poll, w->events, watch_on_event); /* fails only on a closing handle */
    return 0;
}

/* ---------------------------------------------------------------- life ------------------------------------------ */

static CURLcode curl_started;

static void curl_start(void)
{
    sf__std_fds_hold(); /* OpenSSL reads its configuration */
    curl_started = curl_global_init(CURL_GLOBAL_DEFAULT);
    sf__std_fds_let_go();
}

static CURLMcode multi_configure(sf_curl_loop *c, uint32_t max_connections)
{
    CURLMcode rc = CURLM_OK;
    CURLM *m = c->multi;

#define SET(option, value) (rc = rc == CURLM_OK ? curl_multi_setopt(m, option, value) : rc)
    SET(CURLMOPT_SOCKETFUNCTION, on_socket);
    SET(CURLMOPT_SOCKETDATA, c);
    SET(CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    SET(CURLMOPT_TIMERDATA, c);
    SET(CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)max_connections);
    SET(CURLMOPT_MAXCONNECTS, (long)max_connections);
#undef SET
    return rc;
}

/* curl says "out of memory" when it gets no socket pair to wake itself with, too. */
static sf_status no_multi(sf_error *err, CURLMcode rc)
{
    int e;

    if (rc != CURLM_OUT_OF_MEMORY)
        return sf_fail(err, SF_INVALID, "%s", curl_multi_strerror(rc));
    e = sf__fd_probe(2);
    return e ? sf__fail_errno(err, e, SF_NOMEM, "curl") : sf_fail(err, SF_NOMEM, "curl");
}

sf_status sf__curl_loop_init(sf_curl_loop *c, sf_loop *loop, const sf_allocator *a, uint32_t max_connections,
                             sf_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CURLMcode rc;

    pthread_once(&once, curl_start); /* curl's own start behind the scenes is not safe everywhere */
    if (curl_started != CURLE_OK)
        return sf_fail(err, SF_UNSUPPORTED, "%s", curl_easy_strerror(curl_started));
    c->alloc = a;
    c->loop = loop;
    c->timer.fire = curl_on_timer;
    sf__std_fds_hold();
    c->multi = curl_multi_init();
    sf__std_fds_let_go();
    rc = c->multi ? multi_configure(c, max_connections) : CURLM_OUT_OF_MEMORY;
    if (rc == CURLM_OK)
        return SF_OK;
    if (c->multi)
        curl_multi_cleanup(c->multi);
    return no_multi(err, rc);
}

void sf__curl_loop_cleanup(sf_curl_loop *c)
{
    curl_multi_cleanup(c->multi); /* closes the kept connections; their watches close with the loop's next turn */
    sf__timer_stop(c->loop, &c->timer);
}
