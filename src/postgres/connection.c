#include "postgres/connection.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "snapshot/postgres_rows.h"

/* ------------------------------------------------------------------ failures ------------------------------------- */

static sf_status fail(sf_pg_connection *c, const char *state, const char *text, sf_error *err)
{
    size_t n;
    char line[512];

    if (sf__postgres_may_tell_password(state, text)) {
        c->again = false;
        return sf_fail(err, SF_IO,
                       "the connection cannot be made; libpq's text is left out, since it may quote the password");
    }
    /* of several lines, as libpq has them, the first */
    n = strcspn(text, "\n");
    n = n < sizeof(line) ? n : sizeof(line) - 1;
    memcpy(line, text, n);
    line[n] = '\0';
    return sf_fail(err, sf__postgres_status(state, text, &c->again), "%s", line);
}

static sf_status fail_connection(sf_pg_connection *c, sf_error *err)
{
    return fail(c, "", c->conn ? c->pq->errorMessage(c->conn) : "out of memory", err);
}

static void ignore_notice(void *ctx, const PGresult *r) /* libpq would print it */
{
    (void)ctx;
    (void)r;
}

/* ------------------------------------------------------------------ waiting -------------------------------------- */

static sf_status wait_for(sf_pg_connection *c, short events, sf_error *err)
{
    struct pollfd fd = {.fd = c->pq->socket(c->conn), .events = events};

    if (fd.fd < 0)
        return fail_connection(c, err);
    for (;;) {
        uint64_t now = sf__clock_mono_ns();
        uint64_t left_ms = now >= c->deadline_ns ? 0 : (c->deadline_ns - now) / 1000000 + 1;
        int rc = left_ms == 0 ? 0 : poll(&fd, 1, left_ms > 60000 ? 60000 : (int)left_ms);

        if (rc > 0)
            return SF_OK;
        if (rc < 0 && errno != EINTR)
            return sf_fail(err, SF_IO, "poll: %s", strerror(errno));
        if (left_ms == 0)
            return sf_fail(err, SF_TIMEOUT, "the server has not answered in time");
    }
}

/* ------------------------------------------------------------------ connecting ----------------------------------- */

static sf_status connect_within(sf_pg_connection *c, sf_error *err)
{
    int state = SF_PQ_POLLING_WRITING;
    sf_status rc = SF_OK;

    while (rc == SF_OK && state != SF_PQ_POLLING_OK) {
        rc = wait_for(c, state == SF_PQ_POLLING_READING ? POLLIN : POLLOUT, err);
        if (rc != SF_OK)
            break;
        sf__std_fds_hold(); /* it may go on with another address, over another socket */
        state = c->pq->connectPoll(c->conn);
        sf__std_fds_let_go();
        if (state == SF_PQ_POLLING_FAILED)
            rc = fail_connection(c, err);
    }
    return rc;
}

sf_status sf__pg_connect(sf_pg_connection *c, const sf_libpq *pq, const char *conninfo, uint64_t deadline_ns,
                         sf_error *err)
{
    static const char *const keywords[] = {"dbname", "fallback_application_name", NULL};
    const char *values[] = {conninfo, "shardyfusion", NULL};

    *c = (sf_pg_connection){.pq = pq, .deadline_ns = deadline_ns};
    sf__std_fds_hold();
    c->conn = pq->connectStartParams(keywords, values, 1);
    sf__std_fds_let_go();
    if (!c->conn)
        return sf_fail(err, SF_NOMEM, "a connection");
    pq->setNoticeReceiver(c->conn, ignore_notice, NULL);
    if (pq->socket(c->conn) < 0) /* the name is unknown, or nobody listens there */
        return fail_connection(c, err);
    return connect_within(c, err);
}

void sf__pg_cleanup(sf_pg_connection *c)
{
    if (c->conn)
        c->pq->finish(c->conn);
    c->conn = NULL;
}

/* ------------------------------------------------------------------ statements ----------------------------------- */

static sf_status send_all(sf_pg_connection *c, sf_error *err)
{
    for (;;) {
        int left = c->pq->flush(c->conn);
        sf_status rc;

        if (left == 0)
            return SF_OK;
        rc = left < 0 ? fail_connection(c, err) : wait_for(c, POLLIN | POLLOUT, err);
        if (rc != SF_OK)
            return rc;
        if (!c->pq->consumeInput(c->conn))
            return fail_connection(c, err);
    }
}

static sf_status next_result(sf_pg_connection *c, PGresult **out, sf_error *err)
{
    while (c->pq->isBusy(c->conn)) {
        sf_status rc = wait_for(c, POLLIN, err);

        if (rc != SF_OK)
            return rc;
        if (!c->pq->consumeInput(c->conn))
            return fail_connection(c, err);
    }
    *out = c->pq->getResult(c->conn);
    return SF_OK;
}

static sf_status check_result(sf_pg_connection *c, const PGresult *r, sf_error *err)
{
    int status = c->pq->resultStatus(r);
    const char *state, *text;

    if (status == SF_PQ_COMMAND_OK || status == SF_PQ_TUPLES_OK)
        return SF_OK;
    state = c->pq->resultErrorField(r, SF_PQ_DIAG_SQLSTATE);
    text = c->pq->resultErrorField(r, SF_PQ_DIAG_MESSAGE_PRIMARY);
    return text ? fail(c, state ? state : "", text, err) : fail_connection(c, err);
}

sf_status sf__pg_run(sf_pg_connection *c, const char *text, const char *const *values, int n, PGresult **out,
                     sf_error *err)
{
    PGresult *last = NULL, *r = NULL;
    sf_status rc;

    if (c->pq->setnonblocking(c->conn, 1) != 0 ||
        !(values ? c->pq->sendQueryParams(c->conn, text, n, NULL, values, NULL, NULL, 0)
                 : c->pq->sendQuery(c->conn, text)))
        return fail_connection(c, err);
    rc = send_all(c, err);
    while (rc == SF_OK) {
        rc = next_result(c, &r, err);
        if (rc != SF_OK || !r)
            break;
        c->pq->clear(last);
        last = r;
        rc = check_result(c, r, err);
    }
    if (rc == SF_OK && !last)
        rc = sf_fail(err, SF_IO, "the server has answered nothing");
    if (rc == SF_OK && out)
        *out = last;
    else
        c->pq->clear(last);
    return rc;
}
