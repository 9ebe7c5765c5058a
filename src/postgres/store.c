/* Publishing to PostgreSQL, and what else changes something there. The order is that of Python's PostgresManifestStore, whose
 * statements and rows these are. What fails goes with its connection, which rolls it back. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "postgres/postgres.h"
#include "shardyfusion/manifest_store.h"
#include "snapshot/postgres_rows_write.h"

/* ------------------------------------------------------------------ transactions --------------------------------- */

/* A server whose client has gone silent gives its locks up by itself. */
static sf_status begin(sf_postgres *p, sf_pg_connection *c, sf_error *err)
{
    long long most_ms = p->timeout_ms < INT32_MAX ? p->timeout_ms : INT32_MAX;
    char text[160];

    snprintf(text, sizeof(text),
             "BEGIN; SET LOCAL statement_timeout = %lld; SET LOCAL idle_in_transaction_session_timeout = %lld", most_ms,
             most_ms);
    return sf__pg_run(c, text, NULL, 0, NULL, err);
}

static sf_status commit(sf_pg_connection *c, sf_error *err)
{
    return sf__pg_run(c, "COMMIT", NULL, 0, NULL, err);
}

/* From here to the end no other publisher moves the pointer. */
static sf_status begin_locked(sf_postgres *p, sf_pg_connection *c, sf_error *err)
{
    sf_status rc = begin(p, c, err);

    return rc == SF_OK ? sf__postgres_query(p, c, SF_POSTGRES_LOCK, NULL, 0, NULL, err) : rc;
}

/* Whether the statement answers with a row. */
static sf_status has_row(sf_postgres *p, sf_pg_connection *c, sf_postgres_statement which, const char *const *values,
                         int n, bool *out, sf_error *err)
{
    PGresult *r;
    sf_status rc = sf__postgres_query(p, c, which, values, n, &r, err);

    if (rc != SF_OK)
        return rc;
    *out = p->pq->ntuples(r) > 0;
    p->pq->clear(r);
    return SF_OK;
}

/* ------------------------------------------------------------------ the pointer ---------------------------------- */

struct pg_move {
    const char *ref, *expected_ref;
    sf_expected_current expected;
    sf_manifest_answer *out; /* NULL: nobody asks what was found instead */
};

static sf_status check_expected(sf_postgres *p, sf_pg_connection *c, const struct pg_move *m, sf_error *err)
{
    char *found;
    sf_status rc;

    if (m->expected == SF_EXPECT_ANY)
        return SF_OK;
    rc = sf__postgres_pointer(p, c, &found, err);
    if (rc == SF_OK && (m->expected == SF_EXPECT_ABSENT ? found != NULL : !found || strcmp(found, m->expected_ref) != 0)) {
        rc = sf_fail(err, SF_CONFLICT, "another snapshot was published: the pointer names %s, expected was %s",
                     found ? found : "nothing", m->expected == SF_EXPECT_ABSENT ? "none" : m->expected_ref);
        if (m->out &&
            (sf_manifest_answer_ref(m->out, NULL) != SF_OK /* an earlier commit is known by now not to have happened */
             || sf_manifest_answer_found(m->out, found) != SF_OK))
            rc = sf_fail(err, SF_NOMEM, "publishing");
    }
    sf__free(SF_POSTGRES_MEMORY, found);
    return rc;
}

static sf_status point(sf_postgres *p, sf_pg_connection *c, const char *ref, sf_error *err)
{
    bool is_there;
    sf_status rc = has_row(p, c, SF_POSTGRES_POINT, &ref, 1, &is_there, err);

    if (rc == SF_OK && !is_there)
        rc = sf_fail(err, SF_NOT_FOUND, "table %s has no row of run_id %s: CURRENT stays as it is", p->builds, ref);
    return rc;
}

static sf_status move_pointer(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    const struct pg_move *m = ctx;
    sf_status rc = begin_locked(p, c, err);

    if (rc == SF_OK)
        rc = check_expected(p, c, m, err);
    if (rc == SF_OK)
        rc = point(p, c, m->ref, err);
    if (rc == SF_OK) {
        rc = commit(c, err);
        c->again = false; /* it may have happened, and others may have moved it since */
    }
    return rc;
}

sf_status sf_postgres_set_current(sf_postgres *p, const char *ref, sf_expected_current expected,
                                  const char *expected_ref, sf_error *err)
{
    struct pg_move m = {ref, expected_ref, expected, NULL};

    if (expected == SF_EXPECT_REF && !expected_ref)
        return sf_fail(err, SF_INVALID, "expected_current needs the reference that is expected");
    return sf__postgres_run(p, "set_current", move_pointer, &m, err);
}

/* ------------------------------------------------------------------ tables --------------------------------------- */

static sf_status create_tables(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    PGresult *r;
    bool exist;
    sf_status rc = sf__postgres_query(p, c, SF_POSTGRES_TABLES_EXIST, NULL, 0, &r, err);

    (void)ctx;
    if (rc != SF_OK)
        return rc;
    exist = p->pq->ntuples(r) > 0 && p->pq->getvalue(r, 0, 0)[0] == 't';
    p->pq->clear(r);
    if (exist) /* who may only read and write rows needs no more */
        return SF_OK;
    rc = begin(p, c, err);
    if (rc == SF_OK)
        rc = sf__postgres_query(p, c, SF_POSTGRES_CREATE, NULL, 0, NULL, err);
    return rc == SF_OK ? commit(c, err) : rc;
}

sf_status sf_postgres_create_tables(sf_postgres *p, sf_error *err)
{
    return sf__postgres_run(p, "create tables", create_tables, NULL, err);
}

/* ------------------------------------------------------------------ publishing ----------------------------------- */

struct pg_publication {
    const sf_publication *what;
    const sf_postgres_rows *rows;
    sf_manifest_answer *out;
    bool sent; /* a commit that may have happened */
};

static sf_status put_rows(sf_postgres *p, sf_pg_connection *c, const struct pg_publication *x, sf_error *err)
{
    const char *const shards[] = {x->rows->build[0], x->rows->shards};
    sf_status rc = sf__postgres_query(p, c, SF_POSTGRES_PUT_BUILD, x->rows->build, SF_POSTGRES_BUILD_VALUES, NULL, err);

    if (rc == SF_OK)
        rc = sf__postgres_query(p, c, SF_POSTGRES_DROP_SHARDS, shards, 1, NULL, err);
    if (rc == SF_OK)
        rc = sf__postgres_query(p, c, SF_POSTGRES_PUT_SHARDS, shards, 2, NULL, err);
    return rc;
}

static sf_status publish_rows(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_publication *x = ctx;
    const struct pg_move m = {x->rows->build[0], x->what->expected_ref, x->what->expected_current, x->out};
    bool done = false;
    sf_status rc = begin_locked(p, c, err);

    if (rc == SF_OK &&
        x->sent) /* behind the lock: a commit that is still under way holds it. Others may have published since */
        rc = has_row(p, c, SF_POSTGRES_POINTED, x->rows->build, 2, &done, err);
    if (rc != SF_OK || done)
        return rc;
    rc = check_expected(p, c, &m, err);
    if (rc == SF_OK)
        rc = put_rows(p, c, x, err);
    if (rc == SF_OK)
        rc = point(p, c, m.ref, err);
    if (rc == SF_OK && sf_manifest_answer_ref(x->out, m.ref) != SF_OK)
        rc = sf_fail(err, SF_NOMEM, "publishing");
    if (rc != SF_OK)
        return rc;
    x->sent = true;
    return commit(c, err);
}

static sf_status store_publish(void *ctx, const sf_publication *what, sf_manifest_answer *out, sf_error *err)
{
    struct pg_publication x = {.what = what, .out = out};
    sf_postgres_rows rows;
    sf_status rc = sf__postgres_rows_init(&rows, what->manifest, SF_POSTGRES_MEMORY, err);

    if (rc != SF_OK)
        return rc;
    x.rows = &rows;
    rc = sf__postgres_run(ctx, "publish", publish_rows, &x, err);
    sf__postgres_rows_cleanup(&rows);
    return rc;
}

/* ------------------------------------------------------------------ deleting ------------------------------------- */

static sf_status delete_rows(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    const char *ref = ctx;
    char *current = NULL;
    sf_status rc = begin_locked(p, c, err);

    if (rc == SF_OK)
        rc = sf__postgres_pointer(p, c, &current, err);
    if (rc == SF_OK && current && strcmp(current, ref) == 0)
        rc = sf_fail(err, SF_CONFLICT, "CURRENT names %s, which therefore stays", ref);
    sf__free(SF_POSTGRES_MEMORY, current);
    if (rc == SF_OK)
        rc = sf__postgres_query(p, c, SF_POSTGRES_DROP_SHARDS, &ref, 1, NULL, err);
    if (rc == SF_OK)
        rc = sf__postgres_query(p, c, SF_POSTGRES_DROP_BUILD, &ref, 1, NULL, err);
    return rc == SF_OK ? commit(c, err) : rc;
}

static sf_status store_delete(void *ctx, const char *ref, sf_error *err)
{
    return sf__postgres_run(ctx, "delete_manifest", delete_rows, (void *)(uintptr_t)ref, err);
}

/* ------------------------------------------------------------------ reading -------------------------------------- */

struct pg_wanted {
    const char *ref;
    char *current;
    sf_buf *manifest;
};

static sf_status find_current(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    return sf__postgres_pointer(p, c, &((struct pg_wanted *)ctx)->current, err);
}

static sf_status store_current(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    struct pg_wanted w = {.ref = NULL};
    sf_status rc = sf__postgres_run(ctx, "load_current", find_current, &w, err);

    if (rc == SF_OK && sf_manifest_answer_ref(out, w.current) != SF_OK)
        rc = sf_fail(err, SF_NOMEM, "pointer");
    sf__free(SF_POSTGRES_MEMORY, w.current);
    return rc;
}

static sf_status find_manifest(sf_postgres *p, sf_pg_connection *c, void *ctx, sf_error *err)
{
    struct pg_wanted *w = ctx;

    return sf__postgres_manifest(p, c, w->ref, &w->manifest, err);
}

static sf_status store_manifest(void *ctx, const char *ref, sf_manifest_answer *out, sf_error *err)
{
    struct pg_wanted w = {.ref = ref};
    sf_status rc = sf__postgres_run(ctx, "load_manifest", find_manifest, &w, err);

    if (rc == SF_OK && sf_manifest_answer_manifest(out, sf__buf_bytes(w.manifest)) != SF_OK)
        rc = sf_fail(err, SF_NOMEM, "manifest");
    sf__buf_release(w.manifest);
    return rc;
}

static sf_status store_list(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    sf_postgres_entries l = {.limit = SIZE_MAX};
    sf_status rc = sf__postgres_run(ctx, "list_manifests", sf__postgres_entries, &l, err);

    for (size_t i = 0; i < l.count && rc == SF_OK; i++)
        if (sf_manifest_answer_entry(out, l.entries[i].ref, l.entries[i].run_id, l.entries[i].published_at_us) != SF_OK)
            rc = sf_fail(err, SF_NOMEM, "a list of %zu manifests", l.count);
    sf__postgres_entries_drop(&l);
    return rc;
}

/* ------------------------------------------------------------------ the store ------------------------------------ */

static void store_retain(void *ctx)
{
    sf__postgres_acquire(ctx);
}

static void store_release(void *ctx)
{
    sf_postgres_release(ctx);
}

sf_manifest_store sf_postgres_manifest_store(sf_postgres *p)
{
    return (sf_manifest_store){.size = sizeof(sf_manifest_store),
                               .name = p->name,
                               .publish = store_publish,
                               .load_current = store_current,
                               .load_manifest = store_manifest,
                               .list_manifests = store_list,
                               .delete_manifest = store_delete,
                               .retain = store_retain,
                               .release = store_release,
                               .ctx = p};
}
