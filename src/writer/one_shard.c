#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "site/location.h"
#include "snapshot/relocation.h"
#include "writer/shard_build.h"

/*   ADDING --> FINISHED        a failure goes to FAILED, from where only the end is left */
enum builder_state { ADDING, FINISHED, FAILED };

struct sf_shard_builder {
    sf_runtime *rt;            /* acquired */
    sf_store *store;           /* acquired */
    char *path, *url;          /* of the shard; path below the store's root */
    char *spill_folder;        /* NULL: the default */
    sf_writer_options options; /* of these, those that say how a shard is stored */
    sf_slatedb_options slatedb;
    sf_sqlite_options sqlite;
    int64_t request_timeout_ms;
    sf_row_limits limits;
    sf_sorter *sorter;
    uint64_t rows; /* added */
    enum builder_state state;
    sf_cancel_flag stop; /* any thread */
};

static sf_status take_options(sf_shard_builder *b, const sf_shard_builder_options *o, sf_error *err)
{
    sf_status rc;

    b->slatedb = (sf_slatedb_options)SF_SLATEDB_OPTIONS_INIT;
    b->sqlite = (sf_sqlite_options)SF_SQLITE_OPTIONS_INIT;
    rc = sf__options_take(&b->slatedb, sizeof(b->slatedb), o->slatedb, "SlateDB options", err);
    if (rc == SF_OK)
        rc = sf__options_take(&b->sqlite, sizeof(b->sqlite), o->sqlite, "SQLite options", err);
    b->options = (sf_writer_options)SF_WRITER_OPTIONS_INIT;
    b->options.backend = o->backend;
    b->options.slatedb = &b->slatedb;
    b->options.sqlite = &b->sqlite;
    b->options.spill_folder = b->spill_folder;
    b->request_timeout_ms = o->request_timeout_ms;
    b->limits = sf__shard_row_limits(&b->options);
    return rc;
}

static sf_status start(sf_shard_builder *b, const char *url, const sf_shard_builder_options *o, sf_error *err)
{
    const sf_allocator *a = b->rt->alloc;
    sf_sorter_options sorting = SF_SORTER_OPTIONS_INIT;
    sf_status rc = sf__location_open(b->rt, url, o->s3, &b->store, &b->path, err);

    if (rc != SF_OK)
        return rc;
    if (b->path[0] == '\0')
        return sf_fail(err, SF_INVALID, "%s names no folder", url);
    b->url = sf__location_join(b->store->url, b->path, a);
    b->spill_folder = o->spill_folder ? sf__strdup(a, o->spill_folder) : NULL;
    if (!b->url || (o->spill_folder && !b->spill_folder))
        return sf_fail(err, SF_NOMEM, "builder of the shard %s", url);
    rc = take_options(b, o, err);
    if (rc != SF_OK)
        return rc;
    sorting.memory_bytes = o->memory_bytes;
    sorting.spill_folder = b->spill_folder;
    sorting.cancel = &b->stop;
    return sf__sorter_new(&b->sorter, &sorting, a, err);
}

sf_status sf_shard_builder_open(sf_shard_builder **out, sf_runtime *rt, const char *url,
                                const sf_shard_builder_options *opts, sf_error *err)
{
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;
    sf_shard_builder *b;
    sf_status rc = sf__runtime_check_may_wait(rt, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__options_take(&o, sizeof(o), opts, "options of a shard's builder", err);
    if (rc != SF_OK)
        return rc;
    b = sf__calloc(rt->alloc, 1, sizeof(*b));
    if (!b)
        return sf_fail(err, SF_NOMEM, "builder of the shard %s", url);
    b->rt = sf_runtime_acquire(rt);
    atomic_init(&b->stop, false);
    rc = start(b, url, &o, err);
    if (rc != SF_OK) {
        sf_shard_builder_free(b);
        return rc;
    }
    *out = b;
    return SF_OK;
}

static sf_status check_adding(const sf_shard_builder *b, sf_error *err)
{
    sf_status rc = sf__runtime_check_may_wait(b->rt, err);

    if (rc == SF_OK && b->state != ADDING)
        rc = sf_fail(err, SF_STATE, "shard %s: %s", b->url, b->state == FINISHED ? "it is finished" : "it has failed");
    return rc;
}

static sf_status check_row(const sf_shard_builder *b, sf_bytes key, sf_bytes value, sf_error *err)
{
    unsigned long long number = b->rows + 1;

    if (key.n < b->limits.min_key_bytes)
        return sf_fail(err, SF_BAD_ROW, "row %llu: the key is empty", number);
    if (key.n > b->limits.max_key_bytes)
        return sf_fail(err, SF_BAD_ROW, "row %llu: the key has %zu bytes, at most %zu are possible", number, key.n,
                       b->limits.max_key_bytes);
    if (value.n > b->limits.max_value_bytes)
        return sf_fail(err, SF_BAD_ROW, "row %llu: the value has %zu bytes, at most %zu are possible", number, value.n,
                       b->limits.max_value_bytes);
    return SF_OK;
}

sf_status sf_shard_builder_add(sf_shard_builder *b, sf_bytes key, sf_bytes value, sf_error *err)
{
    sf_status rc = check_adding(b, err);

    if (rc != SF_OK)
        return rc;
    rc = check_row(b, key, value, err);
    if (rc == SF_OK)
        rc = sf__sorter_add(b->sorter, 0, key, value, err);
    if (rc == SF_OK)
        b->rows++;
    else
        b->state = FAILED;
    return rc;
}

static sf_status copy_rows(sf_shard_builder *b, sf_shard_writer *w, sf_error *err)
{
    sf_sorter_reader *rows = NULL;
    sf_status rc = sf__sorter_seal(b->sorter, err);

    if (rc == SF_OK)
        rc = sf__sorter_open(b->sorter, 0, &rows, err);
    while (rc == SF_OK) {
        sf_bytes key, value;
        bool end;

        rc = sf__sorter_next(rows, &end, &key, &value, err);
        if (rc != SF_OK || end)
            break;
        rc = sf__shard_writer_add(w, key, value, err);
    }
    sf__sorter_close(rows);
    return rc;
}

sf_status sf_shard_builder_finish(sf_shard_builder *b, sf_shard_summary *out, sf_error *err)
{
    sf_shard_target target = {
        .rt = b->rt, .store = b->store, .path = b->path, .url = b->url, .db_id = -1, .upload = SF_UPLOAD_OPTIONS_INIT};
    sf_shard_result result = {0};
    sf_shard_writer *w = NULL;
    sf_status rc = check_adding(b, err);

    if (rc != SF_OK)
        return rc;
    target.upload.timeout_ms = b->request_timeout_ms;
    target.upload.cancel = &b->stop;
    rc = sf__shard_backend_open(&w, &target, &b->options, err);
    if (rc == SF_OK)
        rc = copy_rows(b, w, err);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(w, &result, err);
    sf__shard_writer_free(w); /* takes back what an unfinished one stored */
    b->state = rc == SF_OK ? FINISHED : FAILED;
    if (rc == SF_OK) {
        *out = (sf_shard_summary){.rows_added = b->rows,
                                  .rows = result.rows,
                                  .stored_bytes = result.stored_bytes,
                                  .db_bytes = result.db_bytes ? result.db_bytes : result.stored_bytes};
        sf__shard_checkpoint_format(out->checkpoint_id, result.checkpoint_id);
        sf__shard_hash_format(out->content_hash, result.content_hash);
    }
    sf__shard_result_cleanup(&result);
    sf__sorter_free(b->sorter); /* its memory and its files */
    b->sorter = NULL;
    return rc;
}

void sf_shard_builder_cancel(sf_shard_builder *b)
{
    atomic_store_explicit(&b->stop, true, memory_order_relaxed);
}

void sf_shard_builder_free(sf_shard_builder *b)
{
    sf_runtime *rt;

    /* In a forked child there are no threads: the memory goes with the child. */
    if (!b || sf__runtime_check_process(b->rt, NULL) != SF_OK)
        return;
    rt = b->rt;
    sf_shard_builder_cancel(b); /* rows that are being spilled are for nobody */
    sf__sorter_free(b->sorter);
    sf__store_release(b->store);
    sf__free(rt->alloc, b->path);
    sf__free(rt->alloc, b->url);
    sf__free(rt->alloc, b->spill_folder);
    sf__free(rt->alloc, b);
    sf_runtime_release(rt);
}
