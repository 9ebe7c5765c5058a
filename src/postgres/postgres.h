/* Manifests in PostgreSQL: what the source (manifests.c) and the store that publishes (store.c) ask alike. Everything here waits. */
#ifndef SF_POSTGRES_POSTGRES_H
#define SF_POSTGRES_POSTGRES_H

#include <stdatomic.h>

#include "postgres/connection.h"
#include "shardyfusion/postgres.h"
#include "snapshot/postgres_rows.h"

struct sf_postgres {
    atomic_uint refs;
    atomic_uint open; /* threads */
    const sf_libpq *pq;
    char *conninfo;
    char name[512];
    int64_t timeout_ms;
    char builds[2 * SF_POSTGRES_NAME_BYTES + 2]; /* for messages */
    char *statements[SF_POSTGRES_STATEMENT_COUNT];
};

/* Whoever asks may outlive every runtime. */
#define SF_POSTGRES_MEMORY (&sf__allocator_default)

sf_postgres *sf__postgres_acquire(sf_postgres *p);

typedef sf_status sf_postgres_work_fn(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err);
/* `work` over a connection, and again over another one while that may help (`again` of the connection). `what`: in messages. */
sf_status sf__postgres_run(sf_postgres *p, const char *what, sf_postgres_work_fn *work, void *ctx, sf_error *err);

/* `out` may be NULL. */
sf_status sf__postgres_query(sf_postgres *p, sf_pg_connection *c, sf_postgres_statement which,
                             const char *const *values, int n, PGresult **out, sf_error *err);
/* *ref is freed with sf__free(); NULL: nothing was published. */
sf_status sf__postgres_pointer(sf_postgres *p, sf_pg_connection *c, char **ref, sf_error *err);
/* *out is released with sf__buf_release(). */
sf_status sf__postgres_manifest(sf_postgres *p, sf_pg_connection *c, const char *ref, sf_buf **out, sf_error *err);

typedef struct sf_postgres_entries {
    size_t limit;
    sf_history_entry *entries;
    size_t count;
} sf_postgres_entries;
/* A sf_postgres_work_fn; `ctx`: sf_postgres_entries. */
sf_status sf__postgres_entries(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err);
void sf__postgres_entries_drop(sf_postgres_entries *l);

#endif
