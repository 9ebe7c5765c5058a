/* A tiny HTTP server on loopback, in a thread of the test: one scripted answer a connection, whatever is asked. */
#ifndef TESTS_SCRIPTED_SERVER_H
#define TESTS_SCRIPTED_SERVER_H

#include "../net/on_loop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Answers that are none. */
#define STEP_RESET "reset" /* the connection is reset once the request has come */
#define STEP_STALL "stall" /* silence until the client goes away */

#define SERVER_STEPS 8
#define SERVER_REQUEST_BYTES 8192

struct server {
    int fd;
    uint16_t port;
    pthread_t thread;
    const char *const *steps; /* NULL-terminated; the last one is repeated when `endless` */
    bool endless;
    struct gate requests;                          /* how many have come */
    char first[SERVER_REQUEST_BYTES];              /* the first request, terminated; read it after server_stop() */
    char all[SERVER_STEPS * SERVER_REQUEST_BYTES]; /* one behind the other, as far as there is room */
};

/* Headers and body of one request; false when the client goes away before. */
static inline bool server_read(int fd, char *buf)
{
    size_t n = 0, body = 0;
    char *end = NULL, *length;

    do {
        ssize_t got = recv(fd, buf + n, SERVER_REQUEST_BYTES - 1 - n, 0);

        if (got <= 0)
            return false;
        n += (size_t)got;
        buf[n] = '\0';
        if (!end && (end = strstr(buf, "\r\n\r\n")) != NULL) {
            end += 4;
            length = strcasestr(buf, "\r\ncontent-length:");
            if (length && length < end)
                body = strtoull(length + 17, NULL, 10);
        }
    } while (!end || n - (size_t)(end - buf) < body);
    return true;
}

static inline void server_play(int fd, const char *step)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    char byte;

    if (strcmp(step, STEP_RESET) == 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    } else if (strcmp(step, STEP_STALL) == 0) {
        while (recv(fd, &byte, 1, 0) > 0)
            continue;
    } else {
        size_t n = strlen(step);

        for (ssize_t sent; n > 0 && (sent = send(fd, step, n, MSG_NOSIGNAL)) > 0; n -= (size_t)sent)
            step += sent;
        shutdown(fd, SHUT_WR);
        while (recv(fd, &byte, 1, 0) > 0) /* a reset must not overtake the answer */
            continue;
    }
}

static inline void *server_run(void *arg)
{
    struct server *s = arg;
    char buf[SERVER_REQUEST_BYTES];
    size_t next = 0;

    for (;;) {
        int fd = accept(s->fd, NULL, NULL);

        if (fd < 0) /* server_stop() */
            return NULL;
        if (server_read(fd, buf)) {
            const char *step = s->steps[next];

            if (s->requests.count == 0)
                memcpy(s->first, buf, sizeof(buf));
            strncat(s->all, buf, sizeof(s->all) - 1 - strlen(s->all));
            gate_arrive(&s->requests);
            server_play(fd, step ? step : STEP_RESET);
            if (step && !(s->endless && !s->steps[next + 1]))
                next++;
        }
        close(fd);
    }
}

static inline void server_start(struct server *s, const char *const *steps, bool endless)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);

    *s = (struct server){.steps = steps, .endless = endless, .requests = GATE_INIT};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &n), 0);
    s->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, server_run, s), 0);
}

static inline void server_stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

#endif
