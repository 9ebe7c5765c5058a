#include "writer/writer.h"

#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"
#include "base/options.h"
#include "snapshot/manifest_write.h"
#include "writer/arrow_rows.h"
#include "writer/rerun.h"
#include "writer/shuffle.h"
#include "writer/site_open.h"

#define ROWS_PER_LOOK 1024u /* at the clock, while adding */

/* ------------------------------------------------------------------ life ----------------------------------------- */

static void free_parts(sf_writer *w)
{
    const sf_allocator *a = w->site.rt->alloc;

    sf__site_lease_cleanup(&w->lease);
    sf__shard_build_cleanup(&w->build);
    sf__sorter_free(w->sorter);
    sf__sample_cleanup(&w->sample);
    sf__row_counts_cleanup(&w->counts);
    sf__cel_shards_cleanup(&w->cel);
    sf__free(a, w->groups);
    sf__free(a, w->attempts);
    sf__free(a, w->openings);
    sf__manifest_store_release(&w->manifests);
    sf__arena_cleanup(&w->arena);
}

/* Where no run record shows it: whether there is a bucket, and whether it knows the credentials. Those that may write and
 * not read are refused with "AccessDenied", which says nothing. */
static sf_status probe_store(const sf_writer *w, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_buf *bytes = NULL;
    sf_status rc = sf__site_get(&w->site, w->site.current_name, SF_LIMIT_CURRENT_BYTES, NULL, &bytes, NULL, &e);

    sf__buf_release(bytes);
    if (rc == SF_NOMEM || (rc == SF_NOT_FOUND && strstr(e.message, "NoSuchBucket")) ||
        (rc == SF_DENIED && !strstr(e.message, "AccessDenied")) || rc == SF_IO || rc == SF_INVALID) {
        if (err)
            *err = e;
        return rc;
    }
    return SF_OK;
}

/* A database that is not there, or knows nobody of this name, shows before the first row. What may pass may have passed by the
 * time that the shards are built. */
static sf_status probe_manifests(const sf_writer *w, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    char *ref = NULL;
    sf_status rc = sf__manifest_store_current(&w->site, &ref, &e);

    sf__free(w->site.rt->alloc, ref);
    if (rc == SF_OK || rc == SF_BAD_MANIFEST)
        return SF_OK;
    if (sf_status_is_retryable(rc)) {
        sf__log(&w->site.rt->log, SF_LOG_WARN, "writer", "%s", e.message);
        return SF_OK;
    }
    if (err)
        *err = e;
    return rc;
}

static sf_status start_parts(sf_writer *w, sf_error *err)
{
    const sf_writer_options *o = &w->options;
    const sf_allocator *a = w->site.rt->alloc;
    sf_sorter_options sorting = SF_SORTER_OPTIONS_INIT;
    sf_lease_options lease = {
        .run_id = w->run_id,
        .writer_type = o->writer_type,
        .shard_prefix = o->shard_prefix,
        .db_path_template = o->db_path_template,
        .lease_ms = o->lease_ms,
        .heartbeat_ms = o->heartbeat_ms,
    };
    sf_status rc = w->partition.cel ? SF_OK : sf__router_init_hash(&w->partition.router, o->num_dbs, err);

    if (rc != SF_OK)
        return rc;
    w->partition.encoding = o->key_encoding;
    w->partition.int64_keys = o->int64_keys;
    w->partition.limits = sf__shard_row_limits(o);
    sf__row_counts_init(&w->counts, a);
    if (!sf__row_counts_reserve(&w->counts, o->num_dbs) || !sf__sample_init(&w->sample, o->sample_keys, a))
        return sf_fail(err, SF_NOMEM, "writer of %u shards", o->num_dbs);
    sorting.groups = o->num_dbs > 0 ? o->num_dbs : SF_LIMIT_SHARDS;
    sorting.groups_are_shards = !w->partition.cel || w->cel.mode != SF_ROUTING_INFERRED;
    sorting.memory_bytes = o->memory_bytes;
    sorting.spill_folder = o->spill_folder;
    sorting.refuse_duplicates = o->on_duplicate == SF_DUPLICATES_ERROR;
    sorting.key_encoding = o->key_encoding;
    sorting.cancel = &w->stop;
    rc = sf__sorter_new(&w->sorter, &sorting, a, err);
    if (rc == SF_OK && o->run_registry_prefix && !o->new_run_id)
        rc = sf__rerun_check_lease(&w->site, o->run_registry_prefix, w->run_id, NULL, err);
    if (rc == SF_OK && !o->run_registry_prefix)
        rc = probe_store(w, err);
    if (rc == SF_OK && w->site.manifests)
        rc = probe_manifests(w, err);
    if (rc == SF_OK)
        rc = sf__site_lease_start(&w->lease, &w->site, o->run_registry_prefix, &lease, err);
    return rc;
}

sf_status sf__writer_open_on(sf_writer **out, sf_site *site, const sf_writer_options *opts, sf_error *err)
{
    sf_writer *w = sf__calloc(site->rt->alloc, 1, sizeof(*w));
    sf_status rc;

    if (!w)
        return sf_fail(err, SF_NOMEM, "writer");
    w->site = *site;
    sf_runtime_acquire(w->site.rt);
    w->started_ns = sf__clock_mono_ns();
    atomic_init(&w->stop, false);
    atomic_init(&w->cancelled, false);
    sf__arena_init(&w->arena, site->rt->alloc);
    rc = sf__writer_set_options(w, opts, err);
    if (rc == SF_OK)
        rc = start_parts(w, err);
    if (rc != SF_OK) {
        free_parts(w);
        sf__free(site->rt->alloc, w);
        sf_runtime_release(site->rt);
        return rc;
    }
    w->options.s3 = w->options.shard_s3 = NULL; /* the caller's */
    w->options.current_name = NULL;             /* the site's */
    w->options.cel = NULL;
    w->options.manifests = NULL; /* the site's, too */
    *site = (sf_site){.rt = NULL};
    *out = w;
    return SF_OK;
}

sf_status sf_writer_open(sf_writer **out, sf_runtime *rt, const char *prefix, const sf_writer_options *opts, sf_error *err)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_site_options s = SF_SITE_OPTIONS_INIT;
    sf_site site;
    sf_status rc;

    if (!opts)
        return sf_fail(err, SF_INVALID, "sharding.num_dbs must be > 0");
    rc = sf__options_take(&o, sizeof(o), opts, "options of a writer", err);
    if (rc != SF_OK)
        return rc;
    s.s3 = o.s3;
    s.shard_s3 = o.shard_s3;
    if (o.current_name)
        s.current_name = o.current_name;
    s.request_timeout_ms = o.request_timeout_ms;
    rc = sf__site_open(&site, rt, prefix, &s, err);
    if (rc != SF_OK)
        return rc;
    rc = sf__writer_open_on(out, &site, opts, err);
    if (rc != SF_OK)
        sf__site_cleanup(&site);
    return rc;
}

static void abort_run(sf_writer *w, const char *error_type, const char *error_message);

/* What has to wait for the store and for threads of the writer. */
static void leave_run(sf_work *work)
{
    sf_writer *w = sf_container_of(work, sf_writer, leave);

    if (w->state == SF_WRITER_ADDING || w->state == SF_WRITER_FAILED)
        abort_run(w, NULL, NULL);
    free_parts(w);
}

static void leave_done(sf_work *work)
{
    sf_writer *w = sf_container_of(work, sf_writer, leave);
    sf_site site = w->site;
    sf_runtime *rt = site.rt;

    sf__free(rt->alloc, w);
    sf__site_cleanup(&site);
    sf_runtime_release(rt);
}

static void leave_on_loop(sf_task *task)
{
    sf_writer *w = sf_container_of(task, sf_writer, leave_task);

    sf__work_submit(w->site.rt->loop, SF_WORK_WAIT, &w->leave);
}

void sf_writer_free(sf_writer *w)
{
    /* In a forked child there is neither the heartbeat's thread nor the loop: the memory goes with the child. */
    if (!w || sf__runtime_check_process(w->site.rt, NULL) != SF_OK)
        return;
    w->leave = (sf_work){.run = leave_run, .done = leave_done};
    if (sf__runtime_check_may_wait(w->site.rt, NULL) == SF_OK) {
        leave_run(&w->leave);
        leave_done(&w->leave);
    } else {
        w->leave_task.run = leave_on_loop;
        sf__loop_post(w->site.rt->loop, &w->leave_task);
    }
}

static void writer_enter(sf_writer *w, sf_writer_state next)
{
    w->state = next;
}

/* ------------------------------------------------------------------ progress ------------------------------------- */

void sf_writer_cancel(sf_writer *w)
{
    atomic_store_explicit(&w->cancelled, true, memory_order_relaxed);
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
}

sf_status sf__writer_check_cancelled(const sf_writer *w, sf_error *err)
{
    return sf__is_cancelled(&w->cancelled) ? sf_fail(err, SF_CANCELLED, "run %s: cancelled", w->run_id) : SF_OK;
}

void sf_writer_get_progress(const sf_writer *w, sf_write_progress *out)
{
    *out = (sf_write_progress){
        .phase = (sf_write_phase)atomic_load_explicit(&w->phase, memory_order_relaxed),
        .rows_added = atomic_load_explicit(&w->rows_added, memory_order_relaxed),
        .bytes_added = atomic_load_explicit(&w->bytes_added, memory_order_relaxed),
        .rows_built = atomic_load_explicit(&w->build.rows_built, memory_order_relaxed),
        .bytes_stored = atomic_load_explicit(&w->build.bytes_stored, memory_order_relaxed),
        .shards_done = atomic_load_explicit(&w->build.shards_done, memory_order_relaxed),
        .shards_total = atomic_load_explicit(&w->shards_total, memory_order_relaxed),
        .elapsed_ms = (int64_t)((sf__clock_mono_ns() - w->started_ns) / 1000000),
    };
}

void sf__writer_progress(sf_writer *w, bool force)
{
    uint64_t now = sf__clock_mono_ns();
    sf_write_progress p;

    atomic_store_explicit(&w->rows_added, w->counts.rows, memory_order_relaxed);
    atomic_store_explicit(&w->bytes_added, w->counts.key_bytes + w->counts.value_bytes, memory_order_relaxed);
    if (!w->options.progress)
        return;
    if (!force && now - w->last_progress_ns < (uint64_t)w->options.progress_interval_ms * 1000000)
        return;
    w->last_progress_ns = now;
    sf_writer_get_progress(w, &p);
    if (!w->options.progress(w->options.progress_ctx, &p))
        sf_writer_cancel(w);
}

void sf__writer_enter_phase(sf_writer *w, sf_write_phase phase)
{
    atomic_store_explicit(&w->phase, (int)phase, memory_order_relaxed);
    sf__writer_progress(w, true);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status check_state(const sf_writer *w, sf_writer_state wanted, sf_error *err)
{
    static const char *const words[] = {"takes rows", "has built its shards", "has published", "has failed"};
    sf_status rc = sf__runtime_check_may_wait(w->site.rt, err);

    if (rc != SF_OK)
        return rc;
    if (w->state == wanted)
        return SF_OK;
    return sf_fail(err, SF_STATE, "the writer %s already", words[w->state]);
}

/* The sorter knows of no rows but its own. */
static sf_status explain_sorter(const sf_writer *w, sf_status rc, sf_error *err)
{
    return rc == SF_INVALID && w->options.on_duplicate == SF_DUPLICATES_ERROR ? sf_error_recode(err, SF_BAD_ROW) : rc;
}

/* Room for the row among what is counted; and whether the shard's keys are of its type. */
static sf_status check_shard(sf_writer *w, uint32_t db_id, sf_key_type type, uint64_t number, sf_error *err)
{
    const sf_shard_rows *shard;

    if (db_id >= w->counts.shard_count && !sf__row_counts_reserve(&w->counts, db_id + 1))
        return sf_fail(err, SF_NOMEM, "row %llu in shard %u", (unsigned long long)number, db_id);
    shard = &w->counts.shards[db_id];
    if (!w->options.one_key_type || shard->count == 0 || shard->key_type == type || type == SF_KEY_INT ||
        type == SF_KEY_UINT)
        return SF_OK;
    return sf_fail(err, SF_BAD_ROW, "row %llu: Shard key type changed within partition: mixed int/str keys",
                   (unsigned long long)number);
}

uint64_t sf__writer_row_number(const sf_writer *w)
{
    return w->counts.rows + w->report.bad_rows + 1;
}

/* So many rows have come. */
static sf_status row_done(sf_writer *w, uint64_t number, sf_error *err)
{
    if (number % ROWS_PER_LOOK != 0)
        return SF_OK;
    sf__writer_progress(w, false);
    return sf__writer_check_cancelled(w, err);
}

static sf_status leave_out(sf_writer *w, sf_error *err)
{
    uint64_t number = sf__writer_row_number(w);

    w->report.bad_rows++;
    sf__sorter_leave_out(w->sorter);
    return row_done(w, number, err);
}

sf_status sf__writer_leave_out(sf_writer *w, sf_error *err)
{
    sf_status rc = check_state(w, SF_WRITER_ADDING, err);

    if (rc != SF_OK)
        return rc;
    rc = leave_out(w, err);
    if (rc != SF_OK)
        writer_enter(w, SF_WRITER_FAILED);
    return rc;
}

/* A row failed with `rc`: SF_OK when it is left out, as the user wants. `key` may be NULL, `err` not. */
static sf_status bad_row(sf_writer *w, const sf_key *key, sf_bytes value, sf_status rc, sf_error *err)
{
    if (!w->options.on_bad_row || !sf__row_is_bad(rc) ||
        !w->options.on_bad_row(w->options.on_bad_row_ctx, sf__writer_row_number(w), key, value, err))
        return rc;
    *err = (sf_error)SF_ERROR_INIT;
    return leave_out(w, err);
}

/* One that its shard may hold. */
static sf_status add_placed(sf_writer *w, const sf_placed_row *row, sf_key_type type, sf_bytes value, sf_error *err)
{
    uint64_t number = sf__writer_row_number(w);
    sf_status rc = sf__sorter_add(w->sorter, row->db_id, row->key, value, err);

    if (rc != SF_OK)
        return explain_sorter(w, rc, err);
    if (!sf__sample_add(&w->sample, row, value))
        return sf_fail(err, SF_NOMEM, "row %llu", (unsigned long long)number);
    sf__row_counts_add(&w->counts, row, type, value.n);
    return row_done(w, number, err);
}

static sf_status add_row(void *ctx, const sf_key *key, sf_bytes value, sf_error *err)
{
    sf_writer *w = ctx;
    uint64_t number = sf__writer_row_number(w);
    sf_placed_row row;
    sf_status rc = sf__partition_place(&w->partition, key, value, number, &row, err);

    if (rc == SF_OK)
        rc = check_shard(w, row.db_id, key->type, number, err);
    if (rc == SF_OK)
        return add_placed(w, &row, key->type, value, err);
    return bad_row(w, key, value.p ? value : sf_bytes_str(""), rc, err); /* a value without bytes is one */
}

static sf_status refuse_row(void *ctx, const sf_key *key, sf_status rc, sf_error *err)
{
    return bad_row(ctx, key, (sf_bytes){NULL, 0}, rc, err);
}

static sf_status add_block(sf_writer *w, sf_bytes block, sf_error *err)
{
    sf_placed_row row = {.db_id = 0};
    sf_shuffle_block b;
    sf_bytes value;
    sf_status rc = sf__shuffle_block_open(&b, block, err);

    if (rc == SF_OK && (w->options.num_dbs == 0 || b.db_id >= w->options.num_dbs))
        rc = sf_fail(err, SF_INVALID, "rows are for shard %u, the snapshot has %u", b.db_id, w->options.num_dbs);
    w->report.bad_rows += rc == SF_OK ? b.left_out : 0;
    while (rc == SF_OK && b.rows > 0) {
        uint64_t number = sf__writer_row_number(w);

        rc = sf__shuffle_block_next(&b, &row.key, &value, err);
        row.db_id = b.db_id;
        if (rc == SF_OK)
            rc = sf__partition_check(&w->partition, &row, b.key_type, value, number, err);
        if (rc == SF_OK)
            rc = check_shard(w, row.db_id, b.key_type, number, err);
        if (rc == SF_OK)
            rc = add_placed(w, &row, b.key_type, value, err);
    }
    return rc;
}

sf_status sf_writer_add_many(sf_writer *w, const sf_key *keys, const sf_bytes *values, size_t count, sf_error *err)
{
    sf_error own = SF_ERROR_INIT;
    sf_status rc;

    if (!err)
        err = &own;
    rc = check_state(w, SF_WRITER_ADDING, err);
    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < count && rc == SF_OK; i++)
        rc = add_row(w, &keys[i], values[i], err);
    if (rc != SF_OK)
        writer_enter(w, SF_WRITER_FAILED);
    return rc;
}

sf_status sf_writer_add(sf_writer *w, const sf_key *key, sf_bytes value, sf_error *err)
{
    return sf_writer_add_many(w, key, &value, 1, err);
}

static sf_status add_arrow(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                           const sf_arrow_value *value, sf_error *err)
{
    sf_arrow_rows rows = {.alloc = w->site.rt->alloc,
                          .key_column = key_column,
                          .value = *value,
                          .cel = w->partition.cel,
                          .take = add_row,
                          .refuse = refuse_row,
                          .ctx = w,
                          .rows = sf__writer_row_number(w) - 1};
    sf_error own = SF_ERROR_INIT;
    sf_status rc;

    if (!err)
        err = &own;
    rc = check_state(w, SF_WRITER_ADDING, err);
    if (rc != SF_OK) {
        if (stream->release)
            stream->release(stream);
        return rc;
    }
    rc = sf__arrow_rows_read(&rows, stream, err);
    if (rc != SF_OK)
        writer_enter(w, SF_WRITER_FAILED);
    return rc;
}

sf_status sf_writer_add_arrow(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                              const char *value_column, sf_error *err)
{
    return add_arrow(w, stream, key_column, &(sf_arrow_value){.kind = SF_ARROW_VALUE_COLUMN, .column = value_column},
                     err);
}

sf_status sf_writer_add_arrow_json(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                                   const char *const *columns, size_t column_count, sf_error *err)
{
    return add_arrow(w, stream, key_column,
                     &(sf_arrow_value){.kind = SF_ARROW_VALUE_JSON, .members = {columns, column_count}}, err);
}

sf_status sf__writer_add_shuffled(sf_writer *w, const sf_bytes *blocks, size_t count, sf_error *err)
{
    sf_status rc = check_state(w, SF_WRITER_ADDING, err);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < count && rc == SF_OK; i++)
        rc = add_block(w, blocks[i], err);
    if (rc != SF_OK)
        writer_enter(w, SF_WRITER_FAILED);
    return rc;
}

/* ------------------------------------------------------------------ attempts ------------------------------------- */

static sf_status add_attempt(sf_writer *w, const sf_attempt *given, const char *opening, sf_error *err)
{
    sf_attempt at = *given;
    const char **const texts[] = {&at.db_url,       &at.min_key_json, &at.max_key_json, &at.checkpoint_id,
                                  &at.content_hash, &at.taken_from,   &opening};
    sf_status rc = SF_OK;

    if (!SF_RESERVE(w->site.rt->alloc, &w->attempts, &w->attempt_cap, w->attempt_count + 1) ||
        !SF_RESERVE(w->site.rt->alloc, &w->openings, &w->opening_cap, w->attempt_count + 1))
        return sf_fail(err, SF_NOMEM, "%zu attempts", w->attempt_count + 1);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && rc == SF_OK; i++)
        rc = sf__writer_keep(w, texts[i], err);
    if (rc != SF_OK)
        return rc;
    w->openings[w->attempt_count] = opening;
    w->attempts[w->attempt_count++] = at;
    return SF_OK;
}

static bool is_base64(const char *text)
{
    size_t n = strlen(text);

    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") == n &&
           n <= 2 * (size_t)SF_LIMIT_OPENING_RECORD_BYTES;
}

sf_status sf_writer_add_attempt(sf_writer *w, const sf_attempt *attempt, sf_error *err)
{
    return sf_writer_add_attempt_with(w, attempt, NULL, err);
}

sf_status sf_writer_add_attempt_with(sf_writer *w, const sf_attempt *attempt, const char *opening, sf_error *err)
{
    if (w->state != SF_WRITER_ADDING && w->state != SF_WRITER_BUILT)
        return check_state(w, SF_WRITER_BUILT, err);
    if (w->options.num_dbs == 0)
        return sf_fail(err, SF_INVALID, "sharding.num_dbs must be > 0 for attempts from elsewhere");
    if (attempt->db_id < 0 || attempt->db_id >= w->options.num_dbs)
        return sf_fail(err, SF_INVALID, "an attempt names shard %lld, the snapshot has shards 0 to %u",
                       (long long)attempt->db_id, w->options.num_dbs - 1);
    if (opening && !is_base64(opening))
        return sf_fail(err, SF_INVALID, "shard %lld: `opening` is no text of sf_writer_attempt_opening()",
                       (long long)attempt->db_id);
    return add_attempt(w, attempt, opening, err);
}

static const char *opening_of(const sf_attempt *all, size_t count, const char *const *openings, const sf_attempt *attempt)
{
    size_t i = (size_t)(((uintptr_t)attempt - (uintptr_t)all) / sizeof(*all));

    return count > 0 && (uintptr_t)attempt >= (uintptr_t)all && i < count ? openings[i] : NULL;
}

const char *sf_writer_attempt_opening(const sf_writer *w, const sf_attempt *attempt)
{
    const char *found = opening_of(w->attempts, w->attempt_count, w->openings, attempt);

    return found ? found : opening_of(w->winners, w->winner_count, w->winner_openings, attempt);
}

static sf_status take_built(sf_writer *w, sf_error *err)
{
    sf_status rc = SF_OK;

    w->own_begin = w->attempt_count;
    for (size_t i = 0; i < w->build.built_count && rc == SF_OK; i++) {
        const sf_built_shard *b = &w->build.built[i];
        sf_attempt at = {
            .db_id = b->db_id,
            .attempt = b->attempt,
            .retries = b->retries,
            .has_stage_id = w->options.has_stage_id,
            .stage_id = w->options.stage_id,
            .has_task_attempt_id = w->options.has_task_attempt_id,
            .task_attempt_id = w->options.task_attempt_id,
            .db_url = b->db_url,
            .row_count = b->rows,
            .duplicates = w->counts.shards[b->db_id].count - b->rows,
            .bytes_keys = w->counts.shards[b->db_id].key_type == SF_KEY_BYTES,
            .db_bytes = b->db_bytes,
            .min_key_json = b->min_key_json,
            .max_key_json = b->max_key_json,
            .checkpoint_id = b->checkpoint_id,
            .content_hash = b->content_hash,
            .duration_ms = b->duration_ms,
            .reused = b->reused,
            .taken_from = b->taken_from,
        };

        rc = add_attempt(w, &at, b->opening, err);
        w->report.duplicates += at.duplicates;
        w->report.reused_shards += at.reused;
    }
    w->own_count = w->attempt_count - w->own_begin;
    return rc;
}

/* ------------------------------------------------------------------ building and publishing ---------------------- */

static bool has_rows(const void *ctx, uint32_t shard)
{
    return ((const sf_row_counts *)ctx)->shards[shard].count > 0;
}

/* Which shard a group of the sorter is, is known now. */
static sf_status renumber(sf_writer *w, const uint32_t *places, sf_error *err)
{
    uint32_t groups = w->counts.shard_count;

    if (!sf__row_counts_renumber(&w->counts, w->options.num_dbs, places))
        return sf_fail(err, SF_NOMEM, "writer of %u shards", w->options.num_dbs);
    if (!places)
        return SF_OK;
    sf__sample_renumber(&w->sample, places);
    w->groups = sf__calloc(w->site.rt->alloc, w->options.num_dbs, sizeof(*w->groups));
    if (!w->groups)
        return sf_fail(err, SF_NOMEM, "writer of %u shards", w->options.num_dbs);
    for (uint32_t g = 0; g < groups; g++)
        w->groups[places[g]] = g;
    return SF_OK;
}

/* All rows are there: so many shards, and such ones. */
static sf_status settle_shards(sf_writer *w, sf_error *err)
{
    uint32_t *places = NULL;
    sf_status rc;

    w->report.sharding_json = sf__sharding_hash_json;
    if (!w->partition.cel)
        return SF_OK;
    rc = sf__cel_shards_seal(&w->cel, has_rows, &w->counts, w->counts.shard_count, &places, err);
    if (rc == SF_OK) {
        w->options.num_dbs = w->cel.num_dbs;
        w->report.sharding_json = w->cel.sharding_json;
        rc = renumber(w, places, err);
    }
    sf__free(w->site.rt->alloc, places);
    return rc;
}

static void tick(void *ctx)
{
    sf__writer_progress(ctx, false);
}

static sf_status build(sf_writer *w, sf_error *err)
{
    uint64_t begin = sf__clock_mono_ns();
    uint32_t with_rows = 0;
    sf_status rc = settle_shards(w, err);

    w->report.adding_ms = (int64_t)((begin - w->started_ns) / 1000000);
    if (rc != SF_OK)
        return rc;
    for (uint32_t i = 0; i < w->options.num_dbs; i++)
        with_rows += w->counts.shards[i].count > 0;
    atomic_store_explicit(&w->shards_total, with_rows, memory_order_relaxed);
    sf__writer_enter_phase(w, SF_PHASE_BUILDING);
    rc = sf__writer_check_cancelled(w, err);
    if (rc == SF_OK)
        rc = explain_sorter(w, sf__sorter_seal(w->sorter, err), err);
    if (rc == SF_OK) {
        w->build.site = &w->site;
        w->build.sorter = w->sorter;
        w->build.options = &w->options;
        w->build.run_id = w->run_id;
        w->build.groups = w->groups;
        w->build.shards = w->counts.shards;
        w->build.stop = &w->stop;
        if (!w->options.new_run_id)
            rc = sf__earlier_attempts_load(&w->build.earlier, &w->site, w->options.shard_prefix, w->run_id, &w->stop,
                                           err);
    }
    if (rc == SF_OK)
        rc = sf__reuse_open(&w->build.reuse, &w->site, &w->options, w->run_id, &w->build.earlier, &w->stop, err);
    if (rc == SF_OK) {
        w->build.tick = tick;
        w->build.tick_ctx = w;
        rc = sf__shard_build_run(&w->build, err);
        if (take_built(w, rc == SF_OK ? err : NULL) != SF_OK && rc == SF_OK)
            rc = SF_NOMEM;
    }
    w->report.building_ms = (int64_t)((sf__clock_mono_ns() - begin) / 1000000);
    return rc;
}

/* What is under way has been stopped: says why, when it was the user. */
static sf_status settle(sf_writer *w, sf_status rc, sf_error *err)
{
    if (rc == SF_OK)
        return rc;
    writer_enter(w, SF_WRITER_FAILED);
    if (rc == SF_CANCELLED)
        return sf__writer_check_cancelled(w, err) == SF_OK ? rc : SF_CANCELLED;
    return rc;
}

sf_status sf_writer_build(sf_writer *w, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_sorter_stats sorted;
    sf_status rc = check_state(w, SF_WRITER_ADDING, err);

    if (rc != SF_OK)
        return rc;
    rc = settle(w, build(w, &e), &e);
    sf__sorter_get_stats(w->sorter, &sorted);
    w->report.spilled_bytes = sorted.spilled_bytes;
    if (rc != SF_OK) {
        if (err)
            *err = e;
        sf_writer_abort(w, sf_status_name(rc), e.message);
        return rc;
    }
    sf__sorter_free(w->sorter); /* its memory and its files */
    w->sorter = NULL;
    writer_enter(w, SF_WRITER_BUILT);
    return SF_OK;
}

sf_status sf_writer_publish(sf_writer *w, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = sf__runtime_check_may_wait(w->site.rt, err);

    if (rc != SF_OK)
        return rc;
    if (w->state == SF_WRITER_ADDING && w->counts.rows == 0) { /* all shards come from elsewhere, or there are none */
        rc = settle_shards(w, err);
        writer_enter(w, rc == SF_OK ? SF_WRITER_BUILT : SF_WRITER_FAILED);
    }
    if (rc == SF_OK)
        rc = check_state(w, SF_WRITER_BUILT, err);
    if (rc != SF_OK)
        return rc;
    rc = settle(w, sf__writer_publish(w, &e), &e);
    if (rc != SF_OK) {
        if (err)
            *err = e;
        sf_writer_abort(w, sf_status_name(rc), e.message);
        return rc;
    }
    writer_enter(w, SF_WRITER_PUBLISHED);
    w->ended = true;
    sf__site_lease_finish(&w->lease, SF_RUN_SUCCEEDED, NULL, NULL);
    w->report.total_ms = (int64_t)((sf__clock_mono_ns() - w->started_ns) / 1000000);
    sf__writer_enter_phase(w, SF_PHASE_DONE);
    return SF_OK;
}

sf_status sf_writer_finish(sf_writer *w, sf_error *err)
{
    sf_status rc = w->state == SF_WRITER_BUILT ? SF_OK : sf_writer_build(w, err);

    return rc == SF_OK ? sf_writer_publish(w, err) : rc;
}

void sf_writer_abort(sf_writer *w, const char *error_type, const char *error_message)
{
    if (sf__runtime_check_process(w->site.rt, NULL) != SF_OK)
        return;
    if (sf__runtime_check_may_wait(w->site.rt, NULL) == SF_OK)
        abort_run(w, error_type, error_message);
    else if (!w->ended && w->state != SF_WRITER_PUBLISHED)
        writer_enter(w, SF_WRITER_FAILED);
}

static void abort_run(sf_writer *w, const char *error_type, const char *error_message)
{
    if (w->ended || w->state == SF_WRITER_PUBLISHED)
        return;
    w->ended = true;
    writer_enter(w, SF_WRITER_FAILED);
    atomic_store_explicit(&w->stop, true, memory_order_relaxed);
    if (!w->manifest_stored)
        sf__writer_delete_own(w);
    else
        sf__lease_announce(&w->lease.lease, w->report.manifest_ref);
    sf__site_lease_finish(&w->lease, SF_RUN_FAILED, error_type, error_message);
    w->report.total_ms = (int64_t)((sf__clock_mono_ns() - w->started_ns) / 1000000);
}

const sf_write_report *sf_writer_report(sf_writer *w)
{
    sf_write_report *r = &w->report;

    r->run_id = w->run_id;
    r->run_record_ref = w->lease.url;
    r->num_dbs = w->options.num_dbs;
    r->attempts = w->attempts;
    r->attempt_count = w->attempt_count;
    r->rows = w->counts.rows;
    r->key_bytes = w->counts.key_bytes;
    r->value_bytes = w->counts.value_bytes;
    memcpy(r->key_sizes, w->counts.key_sizes, sizeof(r->key_sizes));
    memcpy(r->value_sizes, w->counts.value_sizes, sizeof(r->value_sizes));
    return r;
}
