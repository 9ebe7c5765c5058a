/* A small HTTP server on the loopback for tests. The path of a request is its script, so that no state is shared with
 * the test:
 *   /ok                  200, body "hello"
 *   /body/<n>            200, n bytes of 'x' with their Content-Length;  /chunked/<n>: without
 *   /status/<s>/<n>      status s, n bytes
 *   /headers             200, header lines that need care;  /headers/<n>: n of them;  /long-header/<n>: one of n bytes
 *   /interim             a 100 with headers, then as /ok
 *   /echo                200, the body is the request as it arrived
 *   /die                 as /ok, then the connection is closed without a word about it
 *   /short               announces 100 bytes, sends 10, closes
 *   /reset               announces 100 bytes, sends 10, resets the connection
 *   /stall               announces 100 bytes, sends 10, then waits for the client to close
 *   /silent              no answer, waits for the client to close
 *   /drip/<n>            n bytes, 10 ms apart
 * An absolute URL, as proxies get it, goes by its path too. */
#ifndef TESTS_HTTP_SERVER_H
#define TESTS_HTTP_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <openssl/ssl.h>

enum { HTTP_SERVER_CONNECTIONS = 64 };

struct http_server {
    int fd, port;
    SSL_CTX *tls; /* NULL: plain */
    pthread_t thread, workers[HTTP_SERVER_CONNECTIONS];
    pthread_mutex_t lock;
    int fds[HTTP_SERVER_CONNECTIONS]; /* under lock; -1: closed */
    /* read by the test at any time */
    atomic_int accepted; /* connections */
    atomic_int requests; /* whose header has arrived */
    atomic_int gone;     /* connections that have ended */
};

/* `certificate` is a PEM file with certificate and key, or NULL: plain HTTP. False when it cannot start. */
bool http_server_start(struct http_server *s, const char *certificate);
void http_server_stop(struct http_server *s);

#endif
