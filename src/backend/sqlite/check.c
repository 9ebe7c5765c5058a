/* Looking for damage in a shard of SQLite: the database, by SQLite's own check of its copy or, where it has none, of one that is made
 * for that, and the sidecar beside it. */
#include <unistd.h>

#include "backend/shard_check.h"
#include "backend/sqlite/file_view.h"
#include "backend/sqlite/schema.h"
#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h" /* SF_SQLITE_DB_NAME */
#include "backend/sqlite/sidecar.h"
#include "base/container.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/temp_file.h"
#include "store/wait.h"

#define PIECE_BYTES (UINT64_C(8) << 20)

static sf_status read_piece(sf_sqlite_shard *s, const sf_shard_check *c, sf_store_op *op, sf_error *err)
{
    const sf_page_source *p = &s->pages;
    const char *condition = sf__page_source_condition(p);
    sf_store_op ask = *op;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    op->if_match = condition;
    rc = sf__store_wait(s->store, op, c->cancel, &e);
    if (rc != SF_OK && sf__page_source_refuses_conditions(p, condition, &e)) {
        sf__store_op_cleanup(op, s->base.rt->alloc);
        *op = ask;
        rc = sf__store_wait(s->store, op, c->cancel, &e);
    }
    e.code = rc;
    rc = sf__page_source_judge(p, &e, op->object_size, err);
    if (rc == SF_OK && sf__buf_bytes(op->data).n != op->len)
        return sf_fail(err, SF_IO, "%llu bytes came, %llu were asked for",
                       (unsigned long long)sf__buf_bytes(op->data).n, (unsigned long long)op->len);
    return rc;
}

/* The object as it was opened. */
static sf_status copy_all(sf_sqlite_shard *s, const sf_shard_check *c, int fd, sf_error *err)
{
    const sf_page_source *p = &s->pages;

    for (uint64_t off = 0; off < p->bytes;) {
        sf_store_op op = {.verb = SF_STORE_GET,
                          .key = p->key,
                          .off = off,
                          .len = p->bytes - off < PIECE_BYTES ? p->bytes - off : PIECE_BYTES,
                          .deadline_ns = sf__deadline_in_ms(c->timeout_ms)};
        sf_status rc = read_piece(s, c, &op, err);
        char folder[SF_TEMP_FILE_FOLDER_BYTES];
        int e = rc == SF_OK ? sf__pwrite_all(fd, sf__buf_bytes(op.data), off) : 0;

        off += op.len;
        sf__store_op_cleanup(&op, s->base.rt->alloc);
        if (rc != SF_OK)
            return rc;
        if (e != 0)
            return sf__fail_errno(err, e, SF_IO, "copy of " SF_SQLITE_DB_NAME " in %s, to check it",
                                  sf__temp_file_folder(fd, folder));
    }
    return SF_OK;
}

static sf_status check_all(sf_sqlite_shard *s, const sf_shard_check *c, sf_error *err)
{
    sf_sqlite_watch watch = {c->cancel, sf__clock_mono_ns(), SF_NO_DEADLINE};
    sf_file_view view = sf__file_view_of(s->pages.copy, s->pages.bytes);
    sf_status rc = SF_OK;
    int fd = -1;

    if (s->pages.copy < 0) {
        rc = sf__temp_file_nameless(NULL, "folder for temporary files", s->base.rt->alloc, &fd, err);
        if (rc != SF_OK)
            return rc;
        rc = copy_all(s, c, fd, err);
        view = sf__file_view_of(fd, s->pages.bytes);
    }
    if (rc == SF_OK)
        rc = sf__sqlite_check_file(&view, &watch, err);
    if (fd >= 0)
        close(fd);
    return rc;
}

static sf_status check_db(sf_sqlite_shard *s, const sf_shard_check *c, sf_error *err)
{
    if (c->db_bytes > 0 && c->db_bytes != s->pages.bytes)
        return sf_fail(err, SF_CORRUPT, "it has %llu bytes, the manifest says %llu", (unsigned long long)s->pages.bytes,
                       (unsigned long long)c->db_bytes);
    return c->deep ? check_all(s, c, err) : SF_OK;
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
        rc = sf__sidecar_decode(&sidecar, sf__buf_bytes(op.data), NULL, NULL, a, err);
        sf__sidecar_cleanup(&sidecar);
    }
    sf__store_op_cleanup(&op, a);
    return rc;
}

sf_status sf__sqlite_check(sf_shard *base, sf_shard_check *c, sf_error *err)
{
    sf_sqlite_shard *s = sf_container_of(base, sf_sqlite_shard, base);
    char *sidecar = sf__asprintf(base->rt->alloc, "%s%s" SF_SIDECAR_NAME, s->path, s->path[0] ? "/" : "");
    sf_status rc;

    if (!sidecar)
        return sf_fail(err, SF_NOMEM, "names of a shard's objects");
    c->objects++;
    rc = sf__shard_check_judge(c, s->store, s->key, SF_NO_OFFSET, check_db(s, c, err), err);
    c->read(c, c->deep ? s->pages.bytes : 0);
    if (rc == SF_OK)
        rc = sf__shard_check_judge(c, s->store, sidecar, SF_NO_OFFSET, check_sidecar(s, c, sidecar, err), err);
    sf__free(base->rt->alloc, sidecar);
    return rc;
}
