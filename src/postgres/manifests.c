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
#include "postgres/postgres.h"

#define ATTEMPTS 5
#define FIRST_WAIT_MS 100 /* before the second attempt; twice as long before each further one */
#define MOST_OPEN 16      /* questions */

/* ------------------------------------------------------------------ making one ----------------------------------- */

sf_postgres *sf__postgres_acquire(sf_postgres *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void sf_postgres_release(sf_postgres *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < SF_POSTGRES_STATEMENT_COUNT; i++)
        sf__free(SF_POSTGRES_MEMORY, p->statements[i]);
    sf__free(SF_POSTGRES_MEMORY, p->conninfo);
    sf__free(SF_POSTGRES_MEMORY, p);
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
        return sf_fail(err, SF_INVALID,
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

        sf__strbuf_init(&b, SF_POSTGRES_MEMORY);
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
    p = sf__calloc(SF_POSTGRES_MEMORY, 1, sizeof(*p));
    if (!p)
        return sf_fail(err, SF_NOMEM, "manifests in PostgreSQL");
    atomic_init(&p->refs, 1);
    atomic_init(&p->open, 0);
    p->pq = pq;
    p->timeout_ms = o.timeout_ms;
    snprintf(p->builds, sizeof(p->builds), "%s", tables.builds);
    p->conninfo = sf__strdup(SF_POSTGRES_MEMORY, conninfo);
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

static void pause_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

sf_status sf__postgres_run(sf_postgres *p, const char *what, sf_postgres_work_fn *work, void *ctx, sf_error *err)
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

sf_status sf__postgres_query(sf_postgres *p, sf_pg_connection *c, sf_postgres_statement which,
                             const char *const *values, int n, PGresult **out, sf_error *err)
{
    return sf__pg_run(c, p->statements[which], values, n, out, err);
}

static const char *text_at(const sf_postgres *p, const PGresult *r, int row, int column)
{
    return p->pq->getisnull(r, row, column) ? NULL : p->pq->getvalue(r, row, column);
}

sf_status sf__postgres_pointer(sf_postgres *p, sf_pg_connection *c, char **ref, sf_error *err)
{
    PGresult *r;
    sf_status rc = sf__postgres_query(p, c, SF_POSTGRES_CURRENT, NULL, 0, &r, err);

    *ref = NULL;
    if (rc != SF_OK)
        return rc;
    if (p->pq->ntuples(r) > 0) {
        const char *text = text_at(p, r, 0, 0);

        if (!text)
            rc = sf_fail(err, SF_BAD_MANIFEST, "CURRENT pointer validation failed: its newest row has no reference");
        else if (!(*ref = sf__strdup(SF_POSTGRES_MEMORY, text)))
            rc = sf_fail(err, SF_NOMEM, "pointer");
    }
    p->pq->clear(r);
    return rc;
}

sf_status sf__postgres_manifest(sf_postgres *p, sf_pg_connection *c, const char *ref, sf_buf **out, sf_error *err)
{
    const char *values[] = {ref};
    PGresult *r;
    sf_status rc = sf__postgres_query(p, c, SF_POSTGRES_MANIFEST, values, 1, &r, err);

    if (rc != SF_OK)
        return rc;
    if (p->pq->ntuples(r) == 0)
        rc = sf_fail(err, SF_NOT_FOUND, "there is no such row");
    else if (p->pq->getisnull(r, 0, 0))
        rc = sf_fail(err, SF_BAD_MANIFEST, "Manifest validation failed: the row is not a text");
    else
        rc = sf__postgres_manifest_encode(out, sf_bytes_of(p->pq->getvalue(r, 0, 0), (size_t)p->pq->getlength(r, 0, 0)),
                                          SF_POSTGRES_MEMORY, err);
    p->pq->clear(r);
    return rc == SF_BAD_MANIFEST || rc == SF_NOT_FOUND
               ? sf_error_prefix(err, rc, "%s, table %s, run_id %s: ", p->name, p->builds, ref)
               : rc;
}

void sf_postgres_entries_free(sf_history_entry *entries, size_t count)
{
    for (size_t i = 0; entries && i < count; i++)
        sf__free(SF_POSTGRES_MEMORY, (void *)(uintptr_t)entries[i].ref);
    sf__free(SF_POSTGRES_MEMORY, entries);
}

void sf__postgres_entries_drop(sf_postgres_entries *l)
{
    sf_postgres_entries_free(l->entries, l->count);
    l->entries = NULL;
    l->count = 0;
}

/* Times that are none are left out, as names of folders are. */
static sf_status fill_entries(const sf_postgres *p, const PGresult *r, sf_postgres_entries *l, sf_error *err)
{
    int n = p->pq->ntuples(r);

    l->entries = sf__calloc(SF_POSTGRES_MEMORY, (size_t)n + 1, sizeof(*l->entries));
    if (!l->entries)
        return sf_fail(err, SF_NOMEM, "a list of %d manifests", n);
    for (int i = 0; i < n; i++) {
        const char *ref = text_at(p, r, i, 0), *us = text_at(p, r, i, 1);
        char *copy;

        if (!ref || !us)
            continue;
        copy = sf__strdup(SF_POSTGRES_MEMORY, ref);
        if (!copy)
            return sf_fail(err, SF_NOMEM, "a list of %d manifests", n);
        l->entries[l->count++] =
            (sf_history_entry){.ref = copy, .run_id = copy, .published_at_us = strtoll(us, NULL, 10)};
    }
    return SF_OK;
}

sf_status sf__postgres_entries(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    sf_postgres_entries *l = ctx;
    char limit[24];
    const char *values[] = {limit};
    PGresult *r;
    sf_status rc;

    sf__postgres_entries_drop(l);
    snprintf(limit, sizeof(limit), "%zu", l->limit > INT32_MAX ? INT32_MAX : l->limit);
    rc = sf__postgres_query(p, c, SF_POSTGRES_LIST, values, 1, &r, err);
    if (rc != SF_OK)
        return rc;
    rc = fill_entries(p, r, l, err);
    p->pq->clear(r);
    return rc;
}

/* ------------------------------------------------------------------ what the caller waits for --------------------- */

static sf_status list_history(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    sf_postgres_entries *l = ctx;
    char *current = NULL;
    sf_status rc = sf__postgres_entries(p, c, ctx, err);

    if (rc == SF_OK)
        rc = sf__postgres_pointer(p, c, &current, err);
    for (size_t i = 0; i < l->count && current; i++)
        l->entries[i].is_current = strcmp(l->entries[i].ref, current) == 0;
    sf__free(SF_POSTGRES_MEMORY, current);
    return rc;
}

sf_status sf_postgres_list(sf_postgres *p, size_t limit, sf_history_entry **entries, size_t *count, sf_error *err)
{
    sf_postgres_entries l = {.limit = limit};
    sf_status rc = sf__postgres_run(p, "list", list_history, &l, err);

    if (rc != SF_OK) {
        sf__postgres_entries_drop(&l);
        return rc;
    }
    *entries = l.entries;
    *count = l.count;
    return SF_OK;
}

/* ------------------------------------------------------------------ the source ----------------------------------- */

enum pg_question_kind { PG_CURRENT, PG_MANIFEST, PG_LIST };

struct pg_question {
    sf_postgres *p; /* acquired */
    enum pg_question_kind kind;
    sf_manifest_request *rq;
    char *ref;        /* PG_MANIFEST; PG_CURRENT: the answer */
    sf_buf *manifest; /* the answer */
    sf_postgres_entries list;
};

static sf_status ask(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_question *q = ctx;

    switch (q->kind) {
    case PG_CURRENT:
        return sf__postgres_pointer(p, c, &q->ref, err);
    case PG_MANIFEST:
        return sf__postgres_manifest(p, c, q->ref, &q->manifest, err);
    case PG_LIST:
        break;
    }
    return sf__postgres_entries(p, c, &q->list, err);
}

static void answer_list(struct pg_question *q)
{
    const char **refs = sf__calloc(SF_POSTGRES_MEMORY, q->list.count + 1, sizeof(*refs));

    if (!refs) {
        sf_manifest_request_fail(q->rq, SF_NOMEM, "a list of manifests");
        return;
    }
    for (size_t i = 0; i < q->list.count; i++)
        refs[i] = q->list.entries[i].ref;
    sf_manifest_request_refs(q->rq, refs, q->list.count);
    sf__free(SF_POSTGRES_MEMORY, refs);
}

static void question_end(struct pg_question *q)
{
    sf_manifest_request_release(q->rq);
    sf__buf_release(q->manifest);
    sf__postgres_entries_drop(&q->list);
    sf__free(SF_POSTGRES_MEMORY, q->ref);
    atomic_fetch_sub_explicit(&q->p->open, 1, memory_order_relaxed);
    sf_postgres_release(q->p);
    sf__free(SF_POSTGRES_MEMORY, q);
}

static void *question_run(void *ctx)
{
    static const char *const names[] = {"load_current", "load_manifest", "list_manifests"};
    struct pg_question *q = ctx;
    sf_error err = SF_ERROR_INIT;

    sf__thread_name("sf-postgres");
    if (sf__postgres_run(q->p, names[q->kind], ask, q, &err) != SF_OK)
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
    struct pg_question *q = sf__calloc(SF_POSTGRES_MEMORY, 1, sizeof(*q));
    char *copy = ref ? sf__strdup(SF_POSTGRES_MEMORY, ref) : NULL;
    pthread_t thread;

    if (!q || (ref && !copy)) {
        sf_manifest_request_fail(rq, SF_NOMEM, "a question to PostgreSQL");
        sf_manifest_request_release(rq);
        sf__free(SF_POSTGRES_MEMORY, copy);
        sf__free(SF_POSTGRES_MEMORY, q);
        return;
    }
    *q = (struct pg_question){.p = sf__postgres_acquire(p), .kind = kind, .rq = rq, .ref = copy, .list = {.limit = limit}};
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
    sf__postgres_acquire(ctx);
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
