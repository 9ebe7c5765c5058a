/* What a writer was told: copied, completed and checked before anything is done. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/options.h"
#include "snapshot/names.h"
#include "writer/writer.h"

sf_status sf__writer_keep(sf_writer *w, const char **text, sf_error *err)
{
    if (!*text)
        return SF_OK;
    *text = sf__arena_strndup(&w->arena, *text, strlen(*text));
    return *text ? SF_OK : sf_fail(err, SF_NOMEM, "options of a writer");
}

static sf_status keep_texts(sf_writer *w, sf_error *err)
{
    sf_writer_options *o = &w->options;
    const char **const texts[] = {
        &o->run_id,       &o->key_col,      &o->custom_json,         &o->db_path_template,
        &o->shard_prefix, &o->spill_folder, &o->run_registry_prefix, &o->writer_type,
        &o->expected_ref,
    };
    sf_status rc = SF_OK;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && rc == SF_OK; i++)
        rc = sf__writer_keep(w, texts[i], err);
    return rc;
}

static sf_status check_custom(sf_writer *w, sf_error *err)
{
    sf_json_doc doc;
    sf_status rc;

    if (!w->options.custom_json)
        w->options.custom_json = "{}";
    rc = sf__json_parse(&doc, sf_bytes_str(w->options.custom_json), SF_JSON_NAN, w->site.rt->alloc, err);
    if (rc != SF_OK)
        return rc == SF_NOMEM ? rc : sf_error_prefix(err, SF_INVALID, "custom fields of the manifest: ");
    if (doc.root->kind != SF_JSON_OBJECT)
        rc = sf_fail(err, SF_INVALID, "custom fields of the manifest are no JSON object");
    else /* without blanks around it */
        w->options.custom_json = sf__arena_strndup(&w->arena, doc.root->raw.p, doc.root->raw.n);
    sf__json_cleanup(&doc);
    if (rc == SF_OK && !w->options.custom_json)
        rc = sf_fail(err, SF_NOMEM, "custom fields of the manifest");
    return rc;
}

static sf_status check_backend(const sf_writer *w, sf_error *err)
{
    const sf_slatedb_options *s = &w->slatedb;
    uint32_t page = w->sqlite.page_bytes;

    if (w->options.backend != SF_BACKEND_SLATEDB && w->options.backend != SF_BACKEND_SQLITE)
        return sf_fail(err, SF_INVALID, "there is no backend %d: see sf_backend", (int)w->options.backend);
    if ((unsigned)s->compression > SF_COMPRESSION_ZSTD)
        return sf_fail(err, SF_INVALID, "there is no compression %d: see sf_compression", (int)s->compression);
    if (s->block_bytes < 1024 || s->block_bytes > 65536)
        return sf_fail(err, SF_INVALID, "block_bytes must be from 1024 to 65536, not %u", s->block_bytes);
    if (s->bits_per_key < 1 || s->bits_per_key > 64)
        return sf_fail(err, SF_INVALID, "bits_per_key must be from 1 to 64, not %u", s->bits_per_key);
    if (s->sst_bytes < (64 << 10) || s->sst_bytes > (UINT64_C(1) << 30))
        return sf_fail(err, SF_INVALID, "sst_bytes must be from 64 KiB to 1 GiB, not %llu",
                       (unsigned long long)s->sst_bytes);
    if (page != 0 && page != 4096 && page != 8192 && page != 16384 && page != 32768 && page != 65536)
        return sf_fail(err, SF_INVALID, "page_size %u not in supported sizes (4096, 8192, 16384, 32768, 65536)", page);
    return SF_OK;
}

static sf_status check_numbers(const sf_writer_options *o, sf_error *err)
{
    if (o->num_dbs == 0 && !o->cel)
        return sf_fail(err, SF_INVALID, "sharding.num_dbs must be > 0");
    if (o->num_dbs > SF_LIMIT_SHARDS)
        return sf_fail(err, SF_INVALID, "sharding.num_dbs must be at most %u, not %u", SF_LIMIT_SHARDS, o->num_dbs);
    if ((unsigned)o->key_encoding > SF_KEY_RAW)
        return sf_fail(err, SF_INVALID, "Unsupported key encoding: %d. Allowed: u64be, u32be, utf8, raw",
                       (int)o->key_encoding);
    if (o->memory_bytes == 0)
        return sf_fail(err, SF_INVALID, "memory_bytes must be > 0");
    if (o->lease_ms <= 0 || o->heartbeat_ms <= 0 || o->heartbeat_ms >= o->lease_ms)
        return sf_fail(err, SF_INVALID, "a lease must outlive the interval of its heartbeats");
    if (o->lease_ms > SF_LEASE_MAX_MS)
        return sf_fail(err, SF_INVALID, "a lease must end within a century");
    if (o->retry_base_ms < 0 || o->progress_interval_ms < 0)
        return sf_fail(err, SF_INVALID, "intervals must not be negative");
    if (!isfinite(o->retry_multiplier) || o->retry_multiplier < 0)
        return sf_fail(err, SF_INVALID, "retry_multiplier must be a number >= 0");
    if (o->attempt > UINT32_MAX - o->max_retries - 1 || o->max_retries > 1000)
        return sf_fail(err, SF_INVALID, "attempt and max_retries are too large");
    if (!(o->min_rows_share >= 0) || !(o->max_rows_share >= 0) ||
        (o->max_rows_share > 0 && o->max_rows_share < o->min_rows_share))
        return sf_fail(err, SF_INVALID, "the row shares must not be negative, and the largest not below the smallest");
    if ((unsigned)o->expected_current > SF_EXPECT_REF || (o->expected_current == SF_EXPECT_REF && !o->expected_ref))
        return sf_fail(err, SF_INVALID, "expected_current needs the reference that is expected");
    if (o->resume && (!o->run_id || o->new_run_id))
        return sf_fail(err, SF_INVALID, "resume needs the run_id of the run that goes on");
    return SF_OK;
}

static sf_status check_names(sf_writer *w, sf_error *err)
{
    sf_writer_options *o = &w->options;
    sf_status rc = SF_OK;

    if (!o->key_col || !o->db_path_template || !o->shard_prefix || !o->writer_type)
        return sf_fail(err, SF_INVALID, "an option that needs a text has none");
    if (!o->run_id) {
        char *id = sf__arena_alloc(&w->arena, SF_HEX128_TEXT);

        if (!id || !sf__uuid_hex(id))
            return sf_fail(err, id ? SF_IO : SF_NOMEM, "run id");
        o->run_id = id;
        o->new_run_id = true;
    }
    w->run_id = o->run_id;
    rc = sf__run_id_check(o->run_id, err);
    if (rc == SF_OK)
        rc = sf__prefix_segment_check("output.shard_prefix", o->shard_prefix, err);
    if (rc == SF_OK && o->run_registry_prefix)
        rc = sf__prefix_segment_check("output.run_registry_prefix", o->run_registry_prefix, err);
    if (rc == SF_OK)
        rc = sf__db_path_check(o->db_path_template, o->num_dbs > 0 ? o->num_dbs : SF_LIMIT_SHARDS, w->site.rt->alloc,
                               err);
    return rc;
}

static sf_status take_cel(sf_writer *w, sf_error *err)
{
    sf_writer_options *o = &w->options;
    sf_status rc;

    if (!o->cel)
        return SF_OK;
    rc = sf__cel_shards_init(&w->cel, o->cel, o->num_dbs, w->site.rt->alloc, err);
    if (rc != SF_OK)
        return rc;
    w->partition.cel = &w->cel;
    o->num_dbs = w->cel.num_dbs;
    return SF_OK;
}

sf_status sf__writer_set_options(sf_writer *w, const sf_writer_options *given, sf_error *err)
{
    sf_writer_options *o = &w->options;
    sf_status rc;

    *o = (sf_writer_options)SF_WRITER_OPTIONS_INIT;
    w->slatedb = (sf_slatedb_options)SF_SLATEDB_OPTIONS_INIT;
    w->sqlite = (sf_sqlite_options)SF_SQLITE_OPTIONS_INIT;
    rc = sf__options_take(o, sizeof(*o), given, "options of a writer", err);
    if (rc == SF_OK)
        rc = sf__options_take(&w->slatedb, sizeof(w->slatedb), o->slatedb, "SlateDB options", err);
    if (rc == SF_OK)
        rc = sf__options_take(&w->sqlite, sizeof(w->sqlite), o->sqlite, "SQLite options", err);
    o->slatedb = &w->slatedb;
    o->sqlite = &w->sqlite;
    if (rc == SF_OK && o->manifests) {
        rc = sf__manifest_store_copy(&w->manifests, o->manifests, err);
        w->site.manifests = rc == SF_OK ? &w->manifests : NULL;
    }
    if (rc == SF_OK)
        rc = keep_texts(w, err);
    if (rc == SF_OK)
        rc = check_numbers(o, err);
    if (rc == SF_OK)
        rc = take_cel(w, err);
    if (rc == SF_OK)
        rc = check_backend(w, err);
    if (rc == SF_OK)
        rc = check_names(w, err);
    if (rc == SF_OK)
        rc = check_custom(w, err);
    return rc;
}
