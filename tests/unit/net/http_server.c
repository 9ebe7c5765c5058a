#include "http_server.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct connection {
    struct http_server *server;
    int index, fd;
    SSL *ssl;
    char in[4 << 20]; /* the request under way */
    size_t n;
};

static ssize_t receive(struct connection *c, void *to, size_t n)
{
    return c->ssl ? SSL_read(c->ssl, to, (int)n) : recv(c->fd, to, n, 0);
}

static bool send_all(struct connection *c, const void *from, size_t n)
{
    const char *p = from;

    while (n > 0) {
        ssize_t sent = c->ssl ? SSL_write(c->ssl, p, (int)n) : send(c->fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

__attribute__((format(printf, 2, 3))) static bool send_text(struct connection *c, const char *fmt, ...)
{
    char text[4096];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return send_all(c, text, (size_t)n);
}

/* As much of the body as the client takes: it may well hang up. */
static bool send_fill(struct connection *c, size_t n)
{
    char block[16384];

    memset(block, 'x', sizeof(block));
    while (n > 0) {
        size_t part = n < sizeof(block) ? n : sizeof(block);

        if (!send_all(c, block, part))
            return false;
        n -= part;
    }
    return true;
}

static bool send_chunks(struct connection *c, size_t n)
{
    while (n > 0) {
        size_t part = n < 1000 ? n : 1000;

        if (!send_text(c, "%zx\r\n", part) || !send_fill(c, part) || !send_text(c, "\r\n"))
            return false;
        n -= part;
    }
    return send_text(c, "0\r\n\r\n");
}

static bool send_drops(struct connection *c, size_t n)
{
    const struct timespec pause = {.tv_nsec = 10000000};

    for (; n > 0; n--) {
        if (!send_all(c, "x", 1))
            return false;
        nanosleep(&pause, NULL); /* the test wants bytes that come slowly */
    }
    return true;
}

static bool wait_for_close(struct connection *c)
{
    char dump[256];

    while (receive(c, dump, sizeof(dump)) > 0)
        continue;
    return false;
}

static bool reset(struct connection *c)
{
    const struct linger now = {.l_onoff = 1};

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    return false;
}

/* The answers; false ends the connection. `total` is the length of the request in c->in. */
static bool answer(struct connection *c, const char *path, size_t total)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    static const char cut_short[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789";
    int status;
    size_t n;

    if (strcmp(path, "/ok") == 0)
        return send_all(c, ok, sizeof(ok) - 1);
    if (strcmp(path, "/die") == 0)
        return send_all(c, ok, sizeof(ok) - 1) && false;
    if (strcmp(path, "/short") == 0)
        return send_all(c, cut_short, sizeof(cut_short) - 1) && false;
    if (strcmp(path, "/reset") == 0)
        return send_all(c, cut_short, sizeof(cut_short) - 1) && reset(c);
    if (strcmp(path, "/stall") == 0)
        return send_all(c, cut_short, sizeof(cut_short) - 1) && wait_for_close(c);
    if (strcmp(path, "/silent") == 0)
        return wait_for_close(c);
    if (strcmp(path, "/interim") == 0)
        return send_text(c, "HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n") && send_all(c, ok, sizeof(ok) - 1);
    if (strcmp(path, "/headers") == 0)
        return send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"a:b\"\r\nX-EMPTY:\r\n"
                            "x-blanks: \t in the middle \t\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n");
    if (sscanf(path, "/headers/%zu", &n) == 1) {
        send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
        for (; n > 1; n--)
            if (!send_text(c, "X-%zu: y\r\n", n))
                return false;
        return send_text(c, "\r\n");
    }
    if (sscanf(path, "/long-header/%zu", &n) == 1)
        return send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: ") && send_fill(c, n) &&
               send_text(c, "\r\n\r\n");
    if (sscanf(path, "/body/%zu", &n) == 1)
        return send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n) && send_fill(c, n);
    if (sscanf(path, "/drip/%zu", &n) == 1)
        return send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n) && send_drops(c, n);
    if (sscanf(path, "/chunked/%zu", &n) == 1)
        return send_text(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") && send_chunks(c, n);
    if (sscanf(path, "/status/%d/%zu", &status, &n) == 2)
        return send_text(c, "HTTP/1.1 %d Whatever\r\nContent-Length: %zu\r\n\r\n", status, n) && send_fill(c, n);
    if (strcmp(path, "/echo") == 0)
        return send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", total) && send_all(c, c->in, total);
    return send_text(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
}

/* Bytes of the request's header, reading until it is complete; 0 when the client has hung up. */
static size_t read_header(struct connection *c)
{
    for (;;) {
        char *end;
        ssize_t n;

        c->in[c->n] = '\0';
        end = strstr(c->in, "\r\n\r\n");
        if (end)
            return (size_t)(end - c->in) + 4;
        n = receive(c, c->in + c->n, sizeof(c->in) - 1 - c->n);
        if (n <= 0)
            return 0;
        c->n += (size_t)n;
    }
}

static size_t content_length(const struct connection *c, size_t header)
{
    const char *line = strcasestr(c->in, "\r\ncontent-length:");

    return line && line < c->in + header ? strtoul(line + 17, NULL, 10) : 0;
}

static bool serve_one(struct connection *c)
{
    size_t header = read_header(c), total;
    char method[16], target[512], *path = target;
    bool again;

    if (header == 0 || sscanf(c->in, "%15s %511s", method, target) != 2)
        return false;
    atomic_fetch_add(&c->server->requests, 1);
    total = header + content_length(c, header);
    if (strcasestr(c->in, "\r\nexpect: 100-continue") && !send_text(c, "HTTP/1.1 100 Continue\r\n\r\n"))
        return false;
    while (c->n < total) {
        ssize_t n = receive(c, c->in + c->n, sizeof(c->in) - 1 - c->n);

        if (n <= 0)
            return false;
        c->n += (size_t)n;
    }
    if (strncmp(target, "http://", 7) == 0) {
        path = strchr(target + 7, '/');
        if (!path)
            return false;
    }
    if (strcmp(method, "HEAD") == 0)
        again = send_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n");
    else
        again = answer(c, path, total);
    memmove(c->in, c->in + total, c->n - total);
    c->n -= total;
    return again;
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;
    bool sound = true;
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE); /* SSL_write() to a client that has hung up */
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    if (c->server->tls) {
        c->ssl = SSL_new(c->server->tls);
        SSL_set_fd(c->ssl, c->fd);
        sound = SSL_accept(c->ssl) == 1;
    }
    while (sound)
        sound = serve_one(c);
    SSL_free(c->ssl);
    pthread_mutex_lock(&c->server->lock);
    c->server->fds[c->index] = -1;
    pthread_mutex_unlock(&c->server->lock);
    close(c->fd);
    atomic_fetch_add(&c->server->gone, 1);
    free(c);
    return NULL;
}

static void *server_main(void *arg)
{
    struct http_server *s = arg;

    for (int i = 0; i < HTTP_SERVER_CONNECTIONS; i++) {
        struct connection *c;

        int fd = accept(s->fd, NULL, NULL);

        if (fd < 0)
            break;
        c = calloc(1, sizeof(*c));
        c->server = s;
        c->index = i;
        c->fd = s->fds[i] = fd;
        atomic_fetch_add(&s->accepted, 1); /* before anything is answered: tests count after that */
        pthread_create(&s->workers[i], NULL, connection_main, c);
    }
    return NULL;
}

bool http_server_start(struct http_server *s, const char *certificate)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);

    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    if (certificate) {
        s->tls = SSL_CTX_new(TLS_server_method());
        if (!s->tls || SSL_CTX_use_certificate_file(s->tls, certificate, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_use_PrivateKey_file(s->tls, certificate, SSL_FILETYPE_PEM) != 1)
            return false;
    }
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(s->fd, 64) != 0 ||
        getsockname(s->fd, (struct sockaddr *)&address, &n) != 0)
        return false;
    s->port = ntohs(address.sin_port);
    return pthread_create(&s->thread, NULL, server_main, s) == 0;
}

void http_server_stop(struct http_server *s)
{
    shutdown(s->fd, SHUT_RDWR); /* accept() returns */
    pthread_join(s->thread, NULL);
    close(s->fd);
    for (int i = 0; i < s->accepted; i++) {
        pthread_mutex_lock(&s->lock);
        if (s->fds[i] >= 0)
            shutdown(s->fds[i], SHUT_RDWR);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->workers[i], NULL);
    }
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->lock);
}
