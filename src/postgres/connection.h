/* One connection to PostgreSQL, for a question or a transaction. Waits, but never beyond its deadline, once the server's name
 * is known: looking that up takes what the resolver takes. So it belongs on a thread that may wait. */
#ifndef SF_POSTGRES_CONNECTION_H
#define SF_POSTGRES_CONNECTION_H

#include "base/alloc.h"
#include "postgres/libpq.h"

typedef struct sf_pg_connection {
    const sf_libpq *pq;
    PGconn *conn;
    uint64_t deadline_ns;
    bool again; /* after a failure: another attempt, over another connection, may succeed */
} sf_pg_connection;

/* `c` is cleaned up in any case. Messages have no password. */
sf_status sf__pg_connect(sf_pg_connection *c, const sf_libpq *pq, const char *conninfo, uint64_t deadline_ns,
                         sf_error *err);
/* With `values` one statement, else any number. On success *out, of the last one, is released with pq->clear(). `out` may be NULL. */
sf_status sf__pg_run(sf_pg_connection *c, const char *text, const char *const *values, int n, PGresult **out,
                     sf_error *err);
void sf__pg_cleanup(sf_pg_connection *c);

#endif
