/* Looking for damage in a shard of SQLite: the database, by SQLite's own check of its copy, and the sidecar
 * beside it. */
#include "backend/shard_check.h"
#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "backend/sqlite/sidecar.h"
#include "base/error.h"
#include "base/limits.h"
#include "store/wait.h"

static char *key_of(const sf_sqlite_shard *s, const char *name)
{
    return sf__asprintf(s->base.rt->alloc, "%s%s%s", s->path, s->path[0] ? "/" : "", name);
}

static sf_status check_file(sf_sqlite_shard *s, const sf_shard_check *c, sf_error *err)
{
    sf_sqlite_watch watch = {c->cancel, sf__clock_mono_ns(), SF_NO_DEADLINE};
    sf_sqlite_connection *connection;
    sf_status rc;

    if (c->db_bytes > 0 && c->db_bytes != s->view.size)
        return sf_fail(err, SF_CORRUPT, "it has %llu bytes, the manifest says %llu",
                       (unsigned long long)s->view.size, (unsigned long long)c->db_bytes);
    if (!c->deep)
        return SF_OK;
    rc = sf__sqlite_shard_take(s, &watch, &connection, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__sqlite_check_file(connection, &watch, err);
    sf__sqlite_shard_give_back(s, connection);
    return rc;
}

/* The tag that binds it to a database is the ETag in the store that it was published to; a copy elsewhere has
 * another. */
static sf_status check_sidecar(sf_sqlite_shard *s, sf_shard_check *c, const char *key, sf_error *err)
{
    const sf_allocator *a = s->base.rt->alloc;
    sf_store_op op = {.verb = SF_STORE_GET,
                      .key = key,
                      .len = SF_STORE_ALL,
                      .max_bytes = SF_LIMIT_SIDECAR_BYTES,
                      .deadline_ns = sf__deadline_in_ms(c->timeout_ms)};
    sf_sidecar sidecar = {0};
    sf_status rc = sf__store_wait(s->store, &op, c->cancel, err);

    if (rc == SF_NOT_FOUND) { /* not every writer makes one */
        sf__store_op_cleanup(&op, a);
        sf_error_clear(err);
        return SF_OK;
    }
    c->objects++;
    if (rc == SF_OK) {
        c->read(c, op.data->n);
        rc = sf__sidecar_decode(&sidecar, sf__buf_bytes(op.data), NULL, a, err);
        sf__sidecar_cleanup(&sidecar);
    }
    sf__store_op_cleanup(&op, a);
    return rc;
}

sf_status sf__sqlite_check(sf_shard *base, sf_shard_check *c, sf_error *err)
{
    sf_sqlite_shard *s = (sf_sqlite_shard *)base;
    char *db = key_of(s, SF_SQLITE_DB_NAME), *sidecar = key_of(s, SF_SIDECAR_NAME);
    sf_status rc = SF_OK;

    c->objects++;
    if (!db || !sidecar)
        rc = sf_fail(err, SF_NOMEM, "names of a shard's objects");
    if (rc == SF_OK)
        rc = sf__shard_check_judge(c, s->store, db, SF_NO_OFFSET, check_file(s, c, err), err);
    c->read(c, c->deep ? s->view.size : 0);
    if (rc == SF_OK)
        rc =
            sf__shard_check_judge(c, s->store, sidecar, SF_NO_OFFSET, check_sidecar(s, c, sidecar, err), err);
    sf__free(base->rt->alloc, db);
    sf__free(base->rt->alloc, sidecar);
    return rc;
}
