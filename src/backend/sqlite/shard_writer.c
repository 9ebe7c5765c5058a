#include "backend/sqlite/shard_writer.h"

#include <inttypes.h>
#include <stdio.h>

#include "backend/sqlite/opening_record.h"
#include "backend/sqlite/page_size.h"
#include "backend/sqlite/row_spool.h"
#include "backend/sqlite/sidecar.h"
#include "base/clock.h"
#include "base/container.h"

/* As in store/upload.c: what is left behind is taken back with a deadline of its own. */
#define CLEANUP_TIMEOUT_MS 30000
#define CHUNK_BYTES ((size_t)1 << 20)

/* With a page size rows go into the table at once. With "auto" they wait in the spool until all have been seen: writing
 * and reading them once in order costs less than building the table twice, as VACUUM would. */
struct sqlite_writer {
    sf_shard_writer base;          /* first */
    sf_sqlite_writer_options opts; /* folder: ours */
    char *folder;                  /* NULL: the default */
    char *db_key, *sidecar_key;
    sf_table_builder *table;    /* NULL while rows are spooled */
    sf_page_size_picker picker; /* with "auto" */
    sf_row_spool spool;         /* likewise */
    bool db_is_ours;
};

/* ------------------------------------------------------------------ life ----------------------------------------- */

static sf_status check_options(const sf_sqlite_writer_options *o, sf_error *err)
{
    if (o->page_bytes == SF_SQLITE_PAGE_BYTES_AUTO)
        return SF_OK;
    if (o->page_bytes < SF_SQLITE_PAGE_BYTES_MIN || o->page_bytes > SF_SQLITE_PAGE_BYTES_MAX ||
        (o->page_bytes & (o->page_bytes - 1)) != 0)
        return sf_fail(err, SF_INVALID,
                       "SQLite pages of %u bytes: 4096, 8192, 16384, 32768, 65536 or auto are possible", o->page_bytes);
    return SF_OK;
}

static bool is_auto(const struct sqlite_writer *w)
{
    return w->opts.page_bytes == SF_SQLITE_PAGE_BYTES_AUTO;
}

static sf_status open_table(struct sqlite_writer *w, uint32_t page_bytes, sf_error *err)
{
    sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;

    o.folder = w->folder;
    o.page_bytes = page_bytes;
    o.sidecar = w->opts.sidecar;
    return sf__table_builder_open(&w->table, &o, w->base.rt->alloc, err);
}

/* As far as it works: nobody is left to hear of a failure, and what stays is not part of anything. */
static void take_back(struct sqlite_writer *w)
{
    sf_store_op op = {
        .verb = SF_STORE_DELETE,
        .key = w->db_key,
        .tidy = true,
        .deadline_ns = sf__deadline_in_ms(CLEANUP_TIMEOUT_MS),
    };

    if (sf__store_wait(w->base.store, &op, NULL, NULL) == SF_OK)
        sf__store_op_cleanup(&op, w->base.rt->alloc);
}

static void writer_free(sf_shard_writer *base, bool finished)
{
    struct sqlite_writer *w = sf_container_of(base, struct sqlite_writer, base);
    const sf_allocator *a = base->rt->alloc;
    sf_runtime *rt = sf__runtime_ref(base->rt); /* the allocator's owner outlives `w` */

    if (w->db_is_ours && !finished)
        take_back(w);
    sf__table_builder_free(w->table);
    sf__page_size_picker_cleanup(&w->picker);
    sf__row_spool_cleanup(&w->spool);
    sf__free(a, w->folder);
    sf__free(a, w->db_key);
    sf__free(a, w->sidecar_key);
    sf__shard_writer_fini(base);
    sf__free(a, w);
    sf__runtime_unref(rt);
}

static sf_status writer_add(sf_shard_writer *base, sf_bytes key, sf_bytes value, sf_error *err);
static sf_status writer_finish(sf_shard_writer *base, sf_shard_result *r, sf_error *err);

static sf_status writer_init(struct sqlite_writer *w, const sf_sqlite_writer_options *opts, sf_error *err)
{
    const sf_allocator *a = w->base.rt->alloc;

    w->base.min_key_bytes = 0;
    w->base.upload.create_only = true; /* the folder was empty; another writer may have filled it since */
    w->opts = *opts;
    w->folder = opts->folder ? sf__strdup(a, opts->folder) : NULL;
    w->opts.folder = w->folder;
    w->db_key = sf__asprintf(a, "%s/" SF_SQLITE_DB_NAME, w->base.path);
    w->sidecar_key = sf__asprintf(a, "%s/" SF_SIDECAR_NAME, w->base.path);
    sf__row_spool_init(&w->spool, w->folder, a);
    if ((opts->folder && !w->folder) || !w->db_key || !w->sidecar_key)
        return sf_fail(err, SF_NOMEM, "%s: writer", sf__shard_label(w->base.db_id).text);
    if (!is_auto(w))
        return open_table(w, opts->page_bytes, err);
    return sf__page_size_picker_init(&w->picker, a)
               ? SF_OK
               : sf_fail(err, SF_NOMEM, "%s: sizes of rows", sf__shard_label(w->base.db_id).text);
}

sf_status sf__sqlite_shard_writer_open(sf_shard_writer **out, const sf_shard_target *target,
                                       const sf_sqlite_writer_options *opts, sf_error *err)
{
    static const sf_shard_writer_vtable vtable = {.add = writer_add, .finish = writer_finish, .free = writer_free};
    const sf_allocator *a = target->rt->alloc;
    struct sqlite_writer *w;
    sf_status rc = check_options(opts, err);

    if (rc == SF_OK)
        rc = sf__shard_target_check_free(target, err);
    if (rc != SF_OK)
        return rc;
    w = sf__calloc(a, 1, sizeof(*w));
    if (!w)
        return sf_fail(err, SF_NOMEM, "%s: writer", sf__shard_label(target->db_id).text);
    rc = sf__shard_writer_init(&w->base, &vtable, target, SF_SQLITE_MAX_ROW_BYTES, SF_SQLITE_MAX_ROW_BYTES, err);
    if (rc != SF_OK) {
        sf__free(a, w);
        return rc;
    }
    rc = writer_init(w, opts, err);
    if (rc != SF_OK) {
        writer_free(&w->base, false);
        return rc;
    }
    *out = &w->base;
    return SF_OK;
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status writer_add(sf_shard_writer *base, sf_bytes key, sf_bytes value, sf_error *err)
{
    struct sqlite_writer *w = sf_container_of(base, struct sqlite_writer, base);

    if (key.n + value.n > SF_SQLITE_MAX_ROW_BYTES)
        return sf_fail(err, SF_INVALID, "%s, row %" PRIu64 ": key and value of %zu bytes, at most %u can be stored",
                       sf__shard_label(base->db_id).text, base->rows + 1, key.n + value.n, SF_SQLITE_MAX_ROW_BYTES);
    if (!is_auto(w))
        return sf__table_builder_add(w->table, key, value, err);
    sf__page_size_picker_add(&w->picker, key.n, value.n);
    return sf__row_spool_add(&w->spool, key, value, err);
}

static sf_status build_from_spool(struct sqlite_writer *w, sf_error *err)
{
    sf_status rc = open_table(w, sf__page_size_picker_choose(&w->picker), err);
    bool end = false;

    if (rc == SF_OK)
        rc = sf__row_spool_rewind(&w->spool, err);
    while (rc == SF_OK && !end) {
        sf_bytes key, value;

        if (sf__is_cancelled(w->base.upload.cancel))
            return sf_fail(err, SF_CANCELLED, "%s: cancelled while " SF_SQLITE_DB_NAME " was built",
                           sf__shard_label(w->base.db_id).text);
        rc = sf__row_spool_next(&w->spool, &end, &key, &value, err);
        if (rc == SF_OK && !end)
            rc = sf__table_builder_add(w->table, key, value, err);
    }
    sf__row_spool_cleanup(&w->spool); /* its room on disk is wanted */
    return rc;
}

/* ------------------------------------------------------------------ the end -------------------------------------- */

static sf_status upload_db(struct sqlite_writer *w, const sf_file_view *db, sf_upload_result *stored, sf_error *err)
{
    sf_upload *u = NULL;
    uint8_t *chunk = sf__alloc(w->base.rt->alloc, CHUNK_BYTES);
    sf_status rc = chunk ? sf__upload_open(&u, w->base.store, w->db_key, "application/x-sqlite3", &w->base.upload, err)
                         : sf_fail(err, SF_NOMEM, "chunk of %zu bytes", CHUNK_BYTES);

    for (uint64_t off = 0; rc == SF_OK && off < db->size; off += CHUNK_BYTES) {
        size_t n = db->size - off < CHUNK_BYTES ? (size_t)(db->size - off) : CHUNK_BYTES;

        rc = db->read(db->ctx, off, n, chunk, err);
        if (rc == SF_OK)
            rc = sf__upload_append(u, sf_bytes_of(chunk, n), err);
    }
    if (rc == SF_OK)
        rc = sf__upload_finish(u, stored, err);
    sf__upload_free(u);
    sf__free(w->base.rt->alloc, chunk);
    return rc;
}

static sf_status append(void *ctx, sf_bytes piece, sf_error *err)
{
    return sf__upload_append(ctx, piece, err);
}

static sf_status add_sidecar(struct sqlite_writer *w, const sf_file_view *db, const sf_sidecar_map *map,
                             const char *etag, sf_shard_result *r, sf_error *err)
{
    sf_upload_result stored;
    sf_upload *u = NULL;
    sf_status rc = sf__upload_open(&u, w->base.store, w->sidecar_key, "application/octet-stream", &w->base.upload, err);

    if (rc == SF_OK)
        rc = sf__sidecar_encode(db, map, etag, w->base.rt->alloc, append, u, err);
    if (rc == SF_OK)
        rc = sf__upload_finish(u, &stored, err);
    sf__upload_free(u);
    if (rc == SF_OK) {
        r->stored_bytes += stored.size;
        r->object_count++;
    }
    return rc;
}

static sf_status record(const struct sqlite_writer *w, const sf_upload_result *stored, bool has_sidecar,
                        sf_shard_result *r, sf_error *err)
{
    sf_sqlite_record of = {.db_bytes = stored->size, .has_sidecar = has_sidecar};

    memcpy(of.etag, stored->etag, sizeof(of.etag));
    return sf__sqlite_record_encode(&r->opening, &of, w->base.rt->alloc, err);
}

static sf_status writer_finish(sf_shard_writer *base, sf_shard_result *r, sf_error *err)
{
    struct sqlite_writer *w = sf_container_of(base, struct sqlite_writer, base);
    sf_status rc = is_auto(w) ? build_from_spool(w, err) : SF_OK;
    const sf_sidecar_map *map = NULL;
    sf_upload_result stored;
    sf_file_view db;

    if (rc == SF_OK)
        rc = sf__table_builder_finish(w->table, &db, &map, err);
    if (rc == SF_OK)
        rc = upload_db(w, &db, &stored, err);
    if (rc != SF_OK)
        return rc;
    w->db_is_ours = stored.ours;
    r->db_bytes = r->stored_bytes = stored.size;
    r->object_count = 1;
    rc = record(w, &stored, map != NULL, r, err);
    if (rc == SF_OK && map) /* the last thing that can fail: nobody takes it back */
        rc = add_sidecar(w, &db, map, stored.etag, r, err);
    sf__table_builder_free(w->table); /* its room on disk is wanted */
    w->table = NULL;
    snprintf(r->checkpoint_id, sizeof(r->checkpoint_id), "%016" PRIx64 "%016" PRIx64, r->content_hash.hi,
             r->content_hash.lo);
    return rc;
}
