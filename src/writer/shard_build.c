#include "writer/shard_build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/slatedb/shard_writer.h"
#include "backend/sqlite/shard_writer.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/limits.h"
#include "snapshot/manifest_write.h"
#include "snapshot/names.h"
#include "writer/site_open.h"

#define MAX_THREADS 256u
#define ROWS_PER_COUNT 1024u /* between updates of the shared counter */
#define TICK_MS 100
#define BACKOFF_SLICE_MS 20
#define BACKOFF_CAP_MS 3600000.0

/* ------------------------------------------------------------------ backends ------------------------------------- */

/* The reader of our own refuses larger rows than this (base/limits.h), so they must not be published. */
#define MAX_VALUE_BYTES (SF_LIMIT_BLOCK_BYTES - (1u << 20))

sf_row_limits sf__shard_row_limits(const sf_writer_options *options)
{
    size_t row = options->backend == SF_BACKEND_SQLITE ? SF_SQLITE_MAX_ROW_BYTES : MAX_VALUE_BYTES + UINT16_MAX;

    if (options->backend == SF_BACKEND_SQLITE)
        return (sf_row_limits){0, row, row, row};
    return (sf_row_limits){1, UINT16_MAX, MAX_VALUE_BYTES, row};
}

static sf_status open_sqlite(sf_shard_writer **out, const sf_shard_target *target, const sf_writer_options *o,
                             sf_error *err)
{
    sf_sqlite_writer_options sqlite = SF_SQLITE_WRITER_OPTIONS_INIT;

    sqlite.page_bytes = o->sqlite->page_bytes;
    sqlite.sidecar = o->sqlite->sidecar;
    sqlite.folder = o->spill_folder;
    return sf__sqlite_shard_writer_open(out, target, &sqlite, err);
}

static sf_status open_slatedb(sf_shard_writer **out, const sf_shard_target *target, const sf_writer_options *o,
                              sf_error *err)
{
    static const sf_codec codecs[] = {
        [SF_COMPRESSION_NONE] = SF_CODEC_NONE, [SF_COMPRESSION_SNAPPY] = SF_CODEC_SNAPPY,
        [SF_COMPRESSION_ZLIB] = SF_CODEC_ZLIB, [SF_COMPRESSION_LZ4] = SF_CODEC_LZ4,
        [SF_COMPRESSION_ZSTD] = SF_CODEC_ZSTD,
    };
    sf_slatedb_writer_options slatedb = SF_SLATEDB_WRITER_OPTIONS_INIT;

    slatedb.codec = codecs[o->slatedb->compression];
    slatedb.block_bytes = o->slatedb->block_bytes;
    slatedb.bits_per_key = o->slatedb->bits_per_key;
    slatedb.min_filter_keys = o->slatedb->min_filter_keys;
    slatedb.sst_bytes = o->slatedb->sst_bytes;
    return sf__slatedb_shard_writer_open(out, target, &slatedb, err);
}

sf_status sf__shard_backend_open(sf_shard_writer **out, const sf_shard_target *target, const sf_writer_options *o,
                                 sf_error *err)
{
    return (o->backend == SF_BACKEND_SQLITE ? open_sqlite : open_slatedb)(out, target, o, err);
}

/* ------------------------------------------------------------------ one attempt ---------------------------------- */

struct attempt {
    sf_shard_build *b;
    uint32_t db_id, number, retries;
    char *path, *url; /* of its folder; path below the store's root */
    sf_shard_result result;
    int64_t duration_ms;
};

static sf_status name_attempt(struct attempt *at, sf_error *err)
{
    const sf_site *site = at->b->site;
    const sf_writer_options *o = at->b->options;
    const sf_allocator *a = site->rt->alloc;
    char *db_path;
    sf_status rc = sf__db_path_format(&db_path, o->db_path_template, at->db_id, a, err);

    if (rc != SF_OK)
        return rc;
    at->path = sf__asprintf(a, "%s/%s/run_id=%s/%s/attempt=%02u", site->path, o->shard_prefix, at->b->run_id, db_path,
                            at->number);
    sf__free(a, db_path);
    at->url = at->path ? sf__site_url(site, at->path + strlen(site->path) + 1) : NULL;
    return at->url ? SF_OK : sf_fail(err, SF_NOMEM, "shard %u: name of its folder", at->db_id);
}

static void attempt_cleanup(struct attempt *at)
{
    const sf_allocator *a = at->b->site->rt->alloc;

    sf__shard_result_cleanup(&at->result);
    sf__free(a, at->path);
    sf__free(a, at->url);
    at->path = at->url = NULL;
}

static sf_status open_rows(const sf_shard_build *b, uint32_t db_id, sf_sorter_reader **out, sf_error *err)
{
    return sf__sorter_open(b->sorter, b->groups ? b->groups[db_id] : db_id, out, err);
}

static sf_status next_row(const sf_shard_build *b, sf_sorter_reader *rows, bool *end, sf_bytes *key, sf_bytes *value,
                          sf_error *err)
{
    sf_status rc = sf__sorter_next(rows, end, key, value, err);

    if (rc == SF_INVALID && b->options->on_duplicate == SF_DUPLICATES_ERROR)
        return sf_error_recode(err, SF_BAD_ROW); /* the sorter knows of no other fault in a row */
    return rc;
}

static sf_status copy_rows(sf_shard_build *b, sf_sorter_reader *rows, sf_shard_writer *w, sf_error *err)
{
    uint64_t uncounted = 0;
    sf_status rc;

    for (;;) {
        sf_bytes key, value;
        bool end;

        rc = next_row(b, rows, &end, &key, &value, err);
        if (rc != SF_OK || end)
            break;
        rc = sf__shard_writer_add(w, key, value, err);
        if (rc != SF_OK)
            break;
        if (++uncounted == ROWS_PER_COUNT) {
            atomic_fetch_add_explicit(&b->rows_built, uncounted, memory_order_relaxed);
            uncounted = 0;
        }
    }
    atomic_fetch_add_explicit(&b->rows_built, uncounted, memory_order_relaxed);
    return rc;
}

static sf_status write_shard(struct attempt *at, sf_error *err)
{
    sf_shard_build *b = at->b;
    sf_shard_target target = {.rt = b->site->rt,
                              .store = b->site->shard_store,
                              .path = at->path,
                              .url = at->url,
                              .db_id = (int32_t)at->db_id,
                              .upload = SF_UPLOAD_OPTIONS_INIT};
    sf_sorter_reader *rows = NULL;
    sf_shard_writer *w = NULL;
    sf_status rc;

    target.upload.timeout_ms = b->site->timeout_ms;
    target.upload.cancel = b->stop;
    rc = sf__shard_backend_open(&w, &target, b->options, err);
    if (rc == SF_OK)
        rc = open_rows(b, at->db_id, &rows, err);
    if (rc == SF_OK)
        rc = copy_rows(b, rows, w, err);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(w, &at->result, err);
    sf__sorter_close(rows);
    sf__shard_writer_free(w);
    return rc;
}

static sf_status run_attempt(struct attempt *at, sf_error *err)
{
    uint64_t begin = sf__clock_mono_ns();
    sf_status rc = name_attempt(at, err);

    if (rc == SF_OK)
        rc = write_shard(at, err);
    at->duration_ms = (int64_t)((sf__clock_mono_ns() - begin) / 1000000);
    if (rc != SF_OK && err)
        err->db_id = (int32_t)at->db_id;
    return rc;
}

/* ------------------------------------------------------------------ one shard ------------------------------------ */

static bool json_of_key(char **out, const sf_shard_build *b, const sf_buf *key, bool *has_form)
{
    sf_strbuf text;

    sf__strbuf_init(&text, b->site->rt->alloc);
    *has_form = key && sf__key_json_write(&text, b->options->key_encoding, sf__buf_bytes(key));
    if (*has_form) {
        *out = sf__strbuf_detach(&text);
        return *out != NULL;
    }
    sf__strbuf_cleanup(&text);
    return true;
}

void sf__shard_hash_format(char out[33], sf_hash128 h)
{
    uint8_t bytes[16];

    sf_store_be(bytes, 8, h.hi);
    sf_store_be(bytes + 8, 8, h.lo);
    sf__hex_format(out, sf_bytes_of(bytes, sizeof(bytes)));
}

void sf__shard_checkpoint_format(char out[33], const char *uuid)
{
    size_t n = 0;

    for (; *uuid && n < 32; uuid++)
        if (*uuid != '-')
            out[n++] = *uuid;
    out[n] = '\0';
}

static sf_status keep_result(sf_built_shard *out, struct attempt *at, sf_error *err)
{
    const sf_allocator *a = at->b->site->rt->alloc;
    sf_built_shard s = {.db_id = at->db_id,
                        .attempt = at->number,
                        .retries = at->retries,
                        .rows = at->result.rows,
                        .db_bytes = at->result.db_bytes,
                        .duration_ms = at->duration_ms};
    bool min_has, max_has;

    if (!json_of_key(&s.min_key_json, at->b, at->result.min_key, &min_has) ||
        !json_of_key(&s.max_key_json, at->b, at->result.max_key, &max_has) ||
        !sf__base64_text(&s.opening, sf__buf_bytes(at->result.opening), a)) {
        sf__built_shard_cleanup(&s, a);
        return sf_fail(err, SF_NOMEM, "shard %u: result", at->db_id);
    }
    if (!min_has || !max_has) { /* both or none: half a range would mislead */
        sf__free(a, s.min_key_json);
        sf__free(a, s.max_key_json);
        s.min_key_json = s.max_key_json = NULL;
    }
    if (at->b->options->backend == SF_BACKEND_SLATEDB)
        s.db_bytes = at->result.stored_bytes; /* nobody decides by it, but people like to know */
    sf__shard_checkpoint_format(s.checkpoint_id, at->result.checkpoint_id);
    sf__shard_hash_format(s.content_hash, at->result.content_hash);
    s.db_url = at->url;
    at->url = NULL;
    *out = s;
    return SF_OK;
}

static bool is_worth_another(sf_status rc)
{
    /* out of memory passes seldom, and never by asking again at once; a folder in use is another attempt's */
    return rc == SF_CONFLICT || (sf_status_is_retryable(rc) && rc != SF_NOMEM);
}

int64_t sf__shard_backoff_ms(const sf_writer_options *options, uint32_t retry)
{
    double ms = (double)options->retry_base_ms;

    for (uint32_t i = 0; i < retry && ms < BACKOFF_CAP_MS; i++)
        ms *= options->retry_multiplier;
    return (int64_t)(ms < BACKOFF_CAP_MS ? ms : BACKOFF_CAP_MS);
}

static void back_off(const sf_shard_build *b, uint32_t retry)
{
    for (int64_t ms = sf__shard_backoff_ms(b->options, retry); ms > 0 && !sf__is_cancelled(b->stop);
         ms -= BACKOFF_SLICE_MS) {
        int64_t slice = ms < BACKOFF_SLICE_MS ? ms : BACKOFF_SLICE_MS;

        nanosleep(&(struct timespec){.tv_nsec = (long)slice * 1000000}, NULL);
    }
}

/* Behind those of other writers under this run id. */
static sf_status first_number(const sf_shard_build *b, uint32_t db_id, uint32_t *out, sf_error *err)
{
    const sf_allocator *a = b->site->rt->alloc;
    char *db_path = NULL, *folder;
    uint32_t next;
    sf_status rc;

    *out = b->options->attempt;
    if (!b->earlier.listed || b->earlier.listing.entry_count == 0)
        return SF_OK;
    rc = sf__db_path_format(&db_path, b->options->db_path_template, db_id, a, err);
    if (rc != SF_OK)
        return rc;
    folder = sf__asprintf(a, "%s/run_id=%s/%s/attempt=", b->options->shard_prefix, b->run_id, db_path);
    sf__free(a, db_path);
    if (!folder)
        return sf_fail(err, SF_NOMEM, "shard %u: name of its folder", db_id);
    next = sf__earlier_attempts_next(&b->earlier, folder);
    sf__free(a, folder);
    *out = next > *out ? next : *out;
    return *out <= UINT32_MAX - b->options->max_retries
               ? SF_OK
               : sf_fail(err, SF_INVALID, "shard %u: attempts of run '%s' are numbered up to %u", db_id, b->run_id, next);
}

/* ------------------------------------------------------------------ shards that are there already ---------------- */

/* What the content hash of the shard would be. */
static sf_status hash_rows(const sf_shard_build *b, uint32_t db_id, char out[33], sf_error *err)
{
    sf_content_hash hash = {0};
    sf_sorter_reader *rows = NULL;
    bool end = false;
    sf_status rc = sf__content_hash_init(&hash, b->site->rt->alloc) ? open_rows(b, db_id, &rows, err)
                                                                    : sf_fail(err, SF_NOMEM, "hash of shard %u", db_id);

    for (uint64_t n = 0; rc == SF_OK && !end; n++) {
        sf_bytes key, value;

        rc = next_row(b, rows, &end, &key, &value, err);
        if (rc == SF_OK && !end)
            sf__content_hash_add(&hash, key, value);
        if (rc == SF_OK && n % ROWS_PER_COUNT == 0 && sf__is_cancelled(b->stop))
            rc = sf_fail(err, SF_CANCELLED, "shard %u: cancelled", db_id);
    }
    if (rc == SF_OK)
        sf__shard_hash_format(out, sf__content_hash_value(&hash));
    sf__sorter_close(rows);
    sf__content_hash_cleanup(&hash);
    return rc;
}

/* out->db_url stays NULL when the shard has to be built. */
static sf_status reuse_shard(sf_shard_build *b, uint32_t db_id, sf_built_shard *out, sf_error *err)
{
    uint64_t begin = sf__clock_mono_ns();
    sf_reusable found;
    char hash[33];
    sf_status rc;

    if (!b->reuse.site)
        return SF_OK;
    rc = sf__reuse_find(&b->reuse, db_id, b->shards[db_id].count, b->stop, &found, err);
    if (rc == SF_OK && found.count > 0) {
        rc = hash_rows(b, db_id, hash, err);
        if (rc == SF_OK)
            rc = sf__reuse_take(&b->reuse, &found, hash, b->stop, out, err);
        out->duration_ms = (int64_t)((sf__clock_mono_ns() - begin) / 1000000);
    }
    sf__reusable_cleanup(&found, b->site->rt->alloc);
    if (rc != SF_OK && err)
        err->db_id = (int32_t)db_id;
    return rc;
}

/* ------------------------------------------------------------------ all attempts --------------------------------- */

/* Until one attempt is stored, or the failure is for good. */
static sf_status build_shard(sf_shard_build *b, uint32_t db_id, sf_built_shard *out, sf_error *err)
{
    uint32_t first = 0;
    sf_status rc = reuse_shard(b, db_id, out, err);

    if (rc != SF_OK || out->db_url)
        return rc;
    rc = first_number(b, db_id, &first, err);
    if (rc != SF_OK)
        return rc;
    for (uint32_t retry = 0;; retry++) {
        struct attempt at = {.b = b, .db_id = db_id, .number = first + retry, .retries = retry};
        sf_error e = SF_ERROR_INIT;

        rc = run_attempt(&at, &e);
        if (rc == SF_OK)
            rc = keep_result(out, &at, &e);
        if (rc == SF_OK)
            atomic_fetch_add_explicit(&b->bytes_stored, at.result.stored_bytes, memory_order_relaxed);
        attempt_cleanup(&at);
        if (rc == SF_OK && b->options->resume)
            sf__reuse_note(&b->reuse, out, b->stop);
        if (rc == SF_OK)
            return SF_OK;
        if (err)
            *err = e;
        if (!is_worth_another(rc) || retry == b->options->max_retries || sf__is_cancelled(b->stop))
            break;
        sf__log(&b->site->rt->log, SF_LOG_WARN, "writer", "shard %u, attempt %u: %s; trying again", db_id,
                first + retry, e.message);
        if (rc != SF_CONFLICT)
            back_off(b, retry);
    }
    if (rc != SF_CONFLICT)
        return rc;
    return sf_error_prefix(err, SF_INVALID, "run id '%s' has shards already: ", b->run_id);
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

static void fail_run(sf_shard_build *b, const sf_error *e)
{
    sf_mutex_lock(&b->lock);
    if (b->error.code == SF_OK)
        b->error = *e;
    sf_mutex_unlock(&b->lock);
    atomic_store_explicit(b->stop, true, memory_order_relaxed); /* the others need not go on */
}

static bool take_job(sf_shard_build *b, size_t *job)
{
    bool got;

    sf_mutex_lock(&b->lock);
    got = b->next < b->order_count && b->error.code == SF_OK && !sf__is_cancelled(b->stop);
    if (got)
        *job = b->next++;
    sf_mutex_unlock(&b->lock);
    return got;
}

static void *work(void *ctx)
{
    sf_shard_build *b = ctx;
    size_t job;

    while (take_job(b, &job)) {
        sf_error e = SF_ERROR_INIT;

        if (build_shard(b, b->order[job], &b->built[job], &e) == SF_OK)
            atomic_fetch_add_explicit(&b->shards_done, 1, memory_order_relaxed);
        else
            fail_run(b, &e);
    }
    sf_mutex_lock(&b->lock);
    b->running--;
    pthread_cond_signal(&b->wake);
    sf_mutex_unlock(&b->lock);
    return NULL;
}

static size_t thread_count(const sf_shard_build *b)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = b->options->threads > 0 ? b->options->threads : processors > 0 ? (size_t)processors : 1;

    if (n > MAX_THREADS)
        n = MAX_THREADS;
    return n < b->order_count ? n : b->order_count;
}

static void wait_for_threads(sf_shard_build *b)
{
    sf_mutex_lock(&b->lock);
    while (b->running > 0) {
        sf_cond_wait_until(&b->wake, &b->lock, sf__deadline_in_ms(TICK_MS));
        sf_mutex_unlock(&b->lock); /* no callback runs under a lock */
        if (b->tick)
            b->tick(b->tick_ctx);
        sf_mutex_lock(&b->lock);
    }
    sf_mutex_unlock(&b->lock);
}

static void run_threads(sf_shard_build *b, pthread_t *threads, size_t count)
{
    size_t started = 0;
    int rc = 0;

    b->running = count;
    while (started < count && (rc = sf__thread_start(&threads[started], work, b)) == 0)
        started++;
    if (started < count) { /* those that did start take all jobs */
        sf_mutex_lock(&b->lock);
        b->running -= count - started;
        sf_mutex_unlock(&b->lock);
    }
    if (started == 0) {
        sf__fail_errno(&b->error, rc, SF_EXHAUSTED, "starting a thread that builds shards");
        return;
    }
    wait_for_threads(b);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

/* ------------------------------------------------------------------ the run -------------------------------------- */

struct sized {
    uint64_t rows;
    uint32_t db_id;
};

static int fullest_first(const void *x, const void *y)
{
    const struct sized *a = x, *b = y;

    if (a->rows != b->rows)
        return a->rows > b->rows ? -1 : 1;
    return (a->db_id > b->db_id) - (a->db_id < b->db_id);
}

/* The fullest shard first: the last thread is home soonest. */
static sf_status make_order(sf_shard_build *b, sf_error *err)
{
    const sf_allocator *a = b->site->rt->alloc;
    uint32_t num_dbs = b->options->num_dbs;
    struct sized *sized = sf__calloc(a, num_dbs, sizeof(*sized));
    size_t n = 0;

    if (!sized)
        return sf_fail(err, SF_NOMEM, "building %u shards", num_dbs);
    for (uint32_t i = 0; i < num_dbs; i++)
        if (b->shards[i].count > 0)
            sized[n++] = (struct sized){b->shards[i].count, i};
    if (n > 1)
        qsort(sized, n, sizeof(*sized), fullest_first);
    b->order = n > 0 ? sf__calloc(a, n, sizeof(*b->order)) : NULL;
    b->built = n > 0 ? sf__calloc(a, n, sizeof(*b->built)) : NULL;
    b->order_count = n;
    for (size_t i = 0; i < n && b->order; i++)
        b->order[i] = sized[i].db_id;
    sf__free(a, sized);
    return n == 0 || (b->order && b->built) ? SF_OK : sf_fail(err, SF_NOMEM, "building %u shards", num_dbs);
}

static int by_shard(const void *x, const void *y)
{
    const sf_built_shard *a = x, *b = y;

    return (a->db_id > b->db_id) - (a->db_id < b->db_id);
}

/* Those that are stored, in order. */
static void compact_results(sf_shard_build *b)
{
    for (size_t i = 0; i < b->order_count; i++)
        if (b->built[i].db_url)
            b->built[b->built_count++] = b->built[i];
    if (b->built_count > 1)
        qsort(b->built, b->built_count, sizeof(*b->built), by_shard);
}

sf_status sf__shard_build_run(sf_shard_build *b, sf_error *err)
{
    const sf_allocator *a = b->site->rt->alloc;
    pthread_t *threads;
    size_t count;
    sf_status rc = make_order(b, err);

    if (rc != SF_OK || b->order_count == 0)
        return rc;
    count = thread_count(b);
    threads = sf__calloc(a, count, sizeof(*threads));
    if (!threads)
        return sf_fail(err, SF_NOMEM, "%zu threads", count);
    b->error = (sf_error)SF_ERROR_INIT;
    sf_mutex_init(&b->lock);
    sf_cond_init(&b->wake);
    run_threads(b, threads, count);
    sf_cond_destroy(&b->wake);
    sf_mutex_destroy(&b->lock);
    sf__free(a, threads);
    compact_results(b);
    if (b->error.code != SF_OK && err)
        *err = b->error;
    if (b->error.code == SF_OK && b->built_count < b->order_count)
        return sf_fail(err, SF_CANCELLED, "cancelled with %zu of %zu shards stored", b->built_count, b->order_count);
    return b->error.code;
}

void sf__shard_build_cleanup(sf_shard_build *b)
{
    const sf_allocator *a;

    if (!b->site)
        return;
    a = b->site->rt->alloc;
    for (size_t i = 0; i < b->built_count; i++)
        sf__built_shard_cleanup(&b->built[i], a);
    sf__free(a, b->built);
    sf__free(a, b->order);
    sf__reuse_close(&b->reuse);
    sf__earlier_attempts_free(&b->earlier);
    *b = (sf_shard_build){.site = NULL};
}
