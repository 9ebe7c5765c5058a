/* Manifests in PostgreSQL: the source that readers ask, and what looks after the pointer. Each question has a thread of its own,
 * since connecting may wait for the resolver, which nothing ends. Such a thread belongs to nobody: its memory is the process's. */
#include "shardyfusion/postgres.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "base/thread.h"
#include "postgres/connection.h"
#include "snapshot/postgres_rows.h"

#define ATTEMPTS 5
#define FIRST_WAIT_MS 100 /* before the second attempt; twice as long before each further one */
#define MOST_OPEN 16      /* questions */

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

static const sf_allocator *const memory = &sf__allocator_default;

/* ------------------------------------------------------------------ making one ----------------------------------- */

static sf_postgres *acquire(sf_postgres *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void sf_postgres_release(sf_postgres *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < SF_POSTGRES_STATEMENT_COUNT; i++)
        sf__free(memory, p->statements[i]);
    sf__free(memory, p->conninfo);
    sf__free(memory, p);
}

const char *sf_postgres_name(const sf_postgres *p)
{
    return p->name;
}

/* Only of parts that are no secret, and not of a host that holds what was meant as a password. */
static sf_status name_it(sf_postgres *p, sf_error *err)
{
    const char *host = "", *port = "", *database = "";
    char *message = NULL;
    sf_pq_option *options = p->pq->conninfoParse(p->conninfo, &message);

    p->pq->freemem(message); /* may quote it */
    if (!options)
        return sf_fail(
            err, SF_INVALID,
            "the connection string of PostgreSQL is none that libpq takes: postgresql://USER@HOST:PORT/DATABASE, "
            "with %%XX for what is special in a password");
    for (const sf_pq_option *o = options; o->keyword; o++) {
        const char *v = o->val ? o->val : "";

        if (strcmp(o->keyword, "host") == 0)
            host = v;
        else if (strcmp(o->keyword, "port") == 0)
            port = v;
        else if (strcmp(o->keyword, "dbname") == 0)
            database = v;
    }
    if (strchr(host, '@') || strchr(port, '@') || strchr(database, '@'))
        host = port = database = "";
    snprintf(p->name, sizeof(p->name), "postgresql://%s%s%s/%s", host, *port ? ":" : "", port, database);
    p->pq->conninfoFree(options);
    return SF_OK;
}

static sf_status write_statements(sf_postgres *p, const sf_postgres_tables *tables, sf_error *err)
{
    for (int i = 0; i < SF_POSTGRES_STATEMENT_COUNT; i++) {
        sf_strbuf b;

        sf__strbuf_init(&b, memory);
        sf__postgres_statement_write(&b, (sf_postgres_statement)i, tables);
        p->statements[i] = sf__strbuf_detach(&b);
        if (!p->statements[i])
            return sf_fail(err, SF_NOMEM, "statements");
    }
    return SF_OK;
}

sf_status sf_postgres_open(sf_postgres **out, const char *conninfo, const sf_postgres_options *opts, sf_error *err)
{
    sf_postgres_options o = SF_POSTGRES_OPTIONS_INIT;
    sf_postgres_tables tables;
    const sf_libpq *pq = NULL;
    sf_postgres *p;
    sf_status rc = sf__options_take(&o, sizeof(o), opts, "PostgreSQL options", err);

    if (rc == SF_OK)
        rc = sf__postgres_tables_init(&tables, o.table_name, o.pointer_table_name, err);
    if (rc == SF_OK)
        rc = sf__libpq_load(&pq, err);
    if (rc != SF_OK)
        return rc;
    p = sf__calloc(memory, 1, sizeof(*p));
    if (!p)
        return sf_fail(err, SF_NOMEM, "manifests in PostgreSQL");
    atomic_init(&p->refs, 1);
    atomic_init(&p->open, 0);
    p->pq = pq;
    p->timeout_ms = o.timeout_ms;
    snprintf(p->builds, sizeof(p->builds), "%s", tables.builds);
    p->conninfo = sf__strdup(memory, conninfo);
    rc = p->conninfo ? name_it(p, err) : sf_fail(err, SF_NOMEM, "manifests in PostgreSQL");
    if (rc == SF_OK)
        rc = write_statements(p, &tables, err);
    if (rc != SF_OK) {
        sf_postgres_release(p);
        return rc;
    }
    *out = p;
    return SF_OK;
}

/* ------------------------------------------------------------------ attempts ------------------------------------- */

typedef sf_status pg_work_fn(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err);

static void pause_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

/* `work` over a connection, and again over another one while that may help. The calling thread waits. */
static sf_status with_connection(sf_postgres *p, const char *what, pg_work_fn *work, void *ctx, sf_error *err)
{
    uint64_t deadline_ns = sf__deadline_in_ms(p->timeout_ms);
    unsigned wait_ms = FIRST_WAIT_MS;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    for (unsigned attempt = 1;; attempt++, wait_ms *= 2) {
        sf_pg_connection c;

        rc = sf__pg_connect(&c, p->pq, p->conninfo, deadline_ns, &e);
        if (rc == SF_OK)
            rc = work(p, &c, ctx, &e);
        sf__pg_cleanup(&c);
        e.attempts = attempt;
        if (rc == SF_OK)
            return rc;
        if (!c.again || attempt == ATTEMPTS || sf__clock_mono_ns() + wait_ms * UINT64_C(1000000) >= deadline_ns)
            break;
        pause_ms(wait_ms);
    }
    if (err)
        *err = e;
    sf_error_object(err, p->name);
    return rc == SF_BAD_MANIFEST ? rc : sf_error_prefix(err, rc, "%s: %s: ", p->name, what);
}

/* ------------------------------------------------------------------ statements ----------------------------------- */

static sf_status query(sf_postgres *p, sf_pg_connection *c, sf_postgres_statement which, const char *const *values,
                       int n, PGresult **out, sf_error *err)
{
    return sf__pg_run(c, p->statements[which], values, n, out, err);
}

static const char *text_at(const sf_postgres *p, const PGresult *r, int row, int column)
{
    return p->pq->getisnull(r, row, column) ? NULL : p->pq->getvalue(r, row, column);
}

static sf_status pointer_of(sf_postgres *p, sf_pg_connection *c, char **ref, sf_error *err)
{
    PGresult *r;
    sf_status rc = query(p, c, SF_POSTGRES_CURRENT, NULL, 0, &r, err);

    *ref = NULL;
    if (rc != SF_OK)
        return rc;
    if (p->pq->ntuples(r) > 0) {
        const char *text = text_at(p, r, 0, 0);

        if (!text)
            rc = sf_fail(err, SF_BAD_MANIFEST, "CURRENT pointer validation failed: its newest row has no reference");
        else if (!(*ref = sf__strdup(memory, text)))
            rc = sf_fail(err, SF_NOMEM, "pointer");
    }
    p->pq->clear(r);
    return rc;
}

static sf_status load_manifest(sf_postgres *p, sf_pg_connection *c, const char *ref, sf_buf **out, sf_error *err)
{
    const char *values[] = {ref};
    PGresult *r;
    sf_status rc = query(p, c, SF_POSTGRES_MANIFEST, values, 1, &r, err);

    if (rc != SF_OK)
        return rc;
    if (p->pq->ntuples(r) == 0)
        rc = sf_fail(err, SF_NOT_FOUND, "there is no such row");
    else if (p->pq->getisnull(r, 0, 0))
        rc = sf_fail(err, SF_BAD_MANIFEST, "Manifest validation failed: the row is not a text");
    else
        rc = sf__postgres_manifest_encode(out, sf_bytes_of(p->pq->getvalue(r, 0, 0), (size_t)p->pq->getlength(r, 0, 0)),
                                          memory, err);
    p->pq->clear(r);
    return rc == SF_BAD_MANIFEST || rc == SF_NOT_FOUND ? sf_error_prefix(err, rc, "%s, table %s, run_id %s: ", p->name, p->builds, ref) : rc;
}

struct pg_entries {
    size_t limit;
    sf_history_entry *entries;
    size_t count;
};

void sf_postgres_entries_free(sf_history_entry *entries, size_t count)
{
    for (size_t i = 0; entries && i < count; i++)
        sf__free(memory, (void *)(uintptr_t)entries[i].ref);
    sf__free(memory, entries);
}

static void drop_entries(struct pg_entries *l)
{
    sf_postgres_entries_free(l->entries, l->count);
    l->entries = NULL;
    l->count = 0;
}

/* Times that are none are left out, as names of folders are. */
static sf_status fill_entries(const sf_postgres *p, const PGresult *r, struct pg_entries *l, sf_error *err)
{
    int n = p->pq->ntuples(r);

    l->entries = sf__calloc(memory, (size_t)n + 1, sizeof(*l->entries));
    if (!l->entries)
        return sf_fail(err, SF_NOMEM, "a list of %d manifests", n);
    for (int i = 0; i < n; i++) {
        const char *ref = text_at(p, r, i, 0), *us = text_at(p, r, i, 1);
        char *copy;

        if (!ref || !us)
            continue;
        copy = sf__strdup(memory, ref);
        if (!copy)
            return sf_fail(err, SF_NOMEM, "a list of %d manifests", n);
        l->entries[l->count++] =
            (sf_history_entry){.ref = copy, .run_id = copy, .published_at_us = strtoll(us, NULL, 10)};
    }
    return SF_OK;
}

static sf_status list_entries(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_entries *l = ctx;
    char limit[24];
    const char *values[] = {limit};
    PGresult *r;
    sf_status rc;

    drop_entries(l);
    snprintf(limit, sizeof(limit), "%zu", l->limit > INT32_MAX ? INT32_MAX : l->limit);
    rc = query(p, c, SF_POSTGRES_LIST, values, 1, &r, err);
    if (rc != SF_OK)
        return rc;
    rc = fill_entries(p, r, l, err);
    p->pq->clear(r);
    return rc;
}

/* ------------------------------------------------------------------ what the caller waits for --------------------- */

static sf_status list_history(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_entries *l = ctx;
    char *current = NULL;
    sf_status rc = list_entries(p, c, ctx, err);

    if (rc == SF_OK)
        rc = pointer_of(p, c, &current, err);
    for (size_t i = 0; i < l->count && current; i++)
        l->entries[i].is_current = strcmp(l->entries[i].ref, current) == 0;
    sf__free(memory, current);
    return rc;
}

sf_status sf_postgres_list(sf_postgres *p, size_t limit, sf_history_entry **entries, size_t *count, sf_error *err)
{
    struct pg_entries l = {.limit = limit};
    sf_status rc = with_connection(p, "list", list_history, &l, err);

    if (rc != SF_OK) {
        drop_entries(&l);
        return rc;
    }
    *entries = l.entries;
    *count = l.count;
    return SF_OK;
}

struct pg_move {
    const char *ref, *expected_ref;
    sf_expected_current expected;
};

static sf_status check_expected(sf_postgres *p, sf_pg_connection *c, const struct pg_move *m, sf_error *err)
{
    char *found;
    sf_status rc;

    if (m->expected == SF_EXPECT_ANY)
        return SF_OK;
    rc = pointer_of(p, c, &found, err);
    if (rc == SF_OK &&
        (m->expected == SF_EXPECT_ABSENT ? found != NULL : !found || strcmp(found, m->expected_ref) != 0))
        rc = sf_fail(err, SF_CONFLICT, "CURRENT names %s, expected %s", found ? found : "no manifest",
                     m->expected == SF_EXPECT_ABSENT ? "none" : m->expected_ref);
    sf__free(memory, found);
    return rc;
}

static sf_status point(sf_postgres *p, sf_pg_connection *c, const struct pg_move *m, sf_error *err)
{
    const char *values[] = {m->ref};
    PGresult *r;
    sf_status rc = query(p, c, SF_POSTGRES_POINT, values, 1, &r, err);

    if (rc != SF_OK)
        return rc;
    if (p->pq->ntuples(r) == 0)
        rc = sf_fail(err, SF_NOT_FOUND, "table %s has no row of run_id %s: CURRENT stays as it is", p->builds, m->ref);
    p->pq->clear(r);
    return rc;
}

/* What fails goes with the connection, which rolls it back. */
static sf_status move_pointer(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    const struct pg_move *m = ctx;
    char begin[160];
    sf_status rc;

    snprintf(begin, sizeof(begin),
             "BEGIN; SET LOCAL statement_timeout = %lld; SET LOCAL idle_in_transaction_session_timeout = %lld",
             (long long)(p->timeout_ms < INT32_MAX ? p->timeout_ms : INT32_MAX),
             (long long)(p->timeout_ms < INT32_MAX ? p->timeout_ms : INT32_MAX));
    rc = sf__pg_run(c, begin, NULL, 0, NULL, err);
    if (rc == SF_OK)
        rc = query(p, c, SF_POSTGRES_LOCK, NULL, 0, NULL, err);
    if (rc == SF_OK)
        rc = check_expected(p, c, m, err);
    if (rc == SF_OK)
        rc = point(p, c, m, err);
    if (rc == SF_OK) {
        rc = sf__pg_run(c, "COMMIT", NULL, 0, NULL, err);
        c->again = false; /* it may have happened, and others may have moved it since */
    }
    return rc;
}

sf_status sf_postgres_set_current(sf_postgres *p, const char *ref, sf_expected_current expected,
                                  const char *expected_ref, sf_error *err)
{
    struct pg_move m = {ref, expected_ref, expected};

    if (expected == SF_EXPECT_REF && !expected_ref)
        return sf_fail(err, SF_INVALID, "expected_current needs the reference that is expected");
    return with_connection(p, "set_current", move_pointer, &m, err);
}

/* ------------------------------------------------------------------ the source ----------------------------------- */

enum pg_question_kind { PG_CURRENT, PG_MANIFEST, PG_LIST };

struct pg_question {
    sf_postgres *p; /* acquired */
    enum pg_question_kind kind;
    sf_manifest_request *rq;
    char *ref;        /* PG_MANIFEST; PG_CURRENT: the answer */
    sf_buf *manifest; /* the answer */
    struct pg_entries list;
};

static sf_status ask(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_question *q = ctx;

    switch (q->kind) {
    case PG_CURRENT:
        return pointer_of(p, c, &q->ref, err);
    case PG_MANIFEST:
        return load_manifest(p, c, q->ref, &q->manifest, err);
    case PG_LIST:
        break;
    }
    return list_entries(p, c, &q->list, err);
}

static void answer_list(struct pg_question *q)
{
    const char **refs = sf__calloc(memory, q->list.count + 1, sizeof(*refs));

    if (!refs) {
        sf_manifest_request_fail(q->rq, SF_NOMEM, "a list of manifests");
        return;
    }
    for (size_t i = 0; i < q->list.count; i++)
        refs[i] = q->list.entries[i].ref;
    sf_manifest_request_refs(q->rq, refs, q->list.count);
    sf__free(memory, refs);
}

static void question_end(struct pg_question *q)
{
    sf_manifest_request_release(q->rq);
    sf__buf_release(q->manifest);
    drop_entries(&q->list);
    sf__free(memory, q->ref);
    atomic_fetch_sub_explicit(&q->p->open, 1, memory_order_relaxed);
    sf_postgres_release(q->p);
    sf__free(memory, q);
}

static void *question_run(void *ctx)
{
    static const char *const names[] = {"load_current", "load_manifest", "list_manifests"};
    struct pg_question *q = ctx;
    sf_error err = SF_ERROR_INIT;

    sf__thread_name("sf-postgres");
    if (with_connection(q->p, names[q->kind], ask, q, &err) != SF_OK)
        sf_manifest_request_fail(q->rq, err.code, err.message);
    else if (q->kind == PG_CURRENT)
        sf_manifest_request_current(q->rq, q->ref);
    else if (q->kind == PG_MANIFEST)
        sf_manifest_request_manifest(q->rq, sf__buf_bytes(q->manifest));
    else
        answer_list(q);
    question_end(q);
    return NULL;
}

/* Loop thread. */
static void question_start(sf_postgres *p, enum pg_question_kind kind, const char *ref, size_t limit,
                           sf_manifest_request *rq)
{
    struct pg_question *q = sf__calloc(memory, 1, sizeof(*q));
    char *copy = ref ? sf__strdup(memory, ref) : NULL;
    pthread_t thread;

    if (!q || (ref && !copy)) {
        sf_manifest_request_fail(rq, SF_NOMEM, "a question to PostgreSQL");
        sf_manifest_request_release(rq);
        sf__free(memory, copy);
        sf__free(memory, q);
        return;
    }
    *q = (struct pg_question){.p = acquire(p), .kind = kind, .rq = rq, .ref = copy, .list = {.limit = limit}};
    if (atomic_fetch_add_explicit(&p->open, 1, memory_order_relaxed) >= MOST_OPEN) {
        sf_manifest_request_fail(rq, SF_EXHAUSTED, "PostgreSQL: 16 questions have not been answered yet");
        question_end(q);
    } else if (sf__thread_start(&thread, question_run, q) != 0) {
        sf_manifest_request_fail(rq, SF_EXHAUSTED, "a thread for a question to PostgreSQL");
        question_end(q);
    } else {
        pthread_detach(thread);
    }
}

static void source_current(void *ctx, sf_manifest_request *rq)
{
    question_start(ctx, PG_CURRENT, NULL, 0, rq);
}

static void source_manifest(void *ctx, const char *ref, sf_manifest_request *rq)
{
    question_start(ctx, PG_MANIFEST, ref, 0, rq);
}

static void source_list(void *ctx, size_t limit, sf_manifest_request *rq)
{
    question_start(ctx, PG_LIST, NULL, limit, rq);
}

static void source_retain(void *ctx)
{
    acquire(ctx);
}

static void source_release(void *ctx)
{
    sf_postgres_release(ctx);
}

sf_manifest_source sf_postgres_manifest_source(sf_postgres *p)
{
    return (sf_manifest_source){.size = sizeof(sf_manifest_source),
                                .load_current = source_current,
                                .load_manifest = source_manifest,
                                .list_manifests = source_list,
                                .retain = source_retain,
                                .release = source_release,
                                .ctx = p};
}
