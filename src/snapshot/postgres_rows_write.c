#include "snapshot/postgres_rows_write.h"

#include <stdio.h>

#include "base/error.h"
#include "base/json.h"
#include "snapshot/key.h"
#include "snapshot/postgres_rows.h"

/* ------------------------------------------------------------------ the build ------------------------------------ */

static sf_status refuse_custom(sf_error *err, sf_status rc)
{
    return rc == SF_NOMEM ? rc : sf_error_prefix(err, SF_INVALID, "custom cannot be stored as JSON in PostgreSQL: ");
}

/* With the number of shards, of one name the last counts. */
static sf_status write_custom(sf_strbuf *out, const sf_snapshot_manifest *m, sf_error *err)
{
    const char *given = m->custom_json;
    sf_strbuf merged;
    sf_json_doc doc;
    sf_status rc = sf__json_parse(&doc, sf_bytes_str(given), 0, out->alloc, err);
    bool is_empty;

    if (rc != SF_OK)
        return refuse_custom(err, rc);
    is_empty = doc.root->count == 0;
    sf__strbuf_init(&merged, out->alloc);
    sf__strbuf_add(&merged, doc.root->raw.p, doc.root->raw.n - 1); /* an object, as the parser of manifests knows */
    sf__strbuf_printf(&merged, "%s\"" SF_POSTGRES_SHARD_ROWS "\": %zu}", is_empty ? "" : ", ", m->shard_count);
    sf__json_cleanup(&doc);
    rc = merged.failed ? sf_fail(err, SF_NOMEM, "rows of a manifest")
                       : sf__json_parse(&doc, sf_bytes_of(merged.s, merged.n), 0, out->alloc, err);
    if (rc == SF_OK) {
        rc = sf__json_write_sorted(out, doc.root, err);
        sf__json_cleanup(&doc);
    }
    sf__strbuf_cleanup(&merged);
    return rc == SF_OK ? rc : refuse_custom(err, rc);
}

/* ------------------------------------------------------------------ the shards ----------------------------------- */

static void write_text(sf_strbuf *out, const char *text)
{
    if (!text)
        sf__strbuf_puts(out, "null");
    else if (!sf__json_write_str(out, sf_bytes_str(text)))
        out->failed = true; /* the parser of manifests lets nothing else pass */
}

/* JSONB holds no NUL. */
static sf_status is_storable(bool *out, const char *key_json, const sf_allocator *a)
{
    sf_json_doc doc;
    sf_status rc;

    *out = true;
    if (!key_json)
        return SF_OK;
    rc = sf__json_parse(&doc, sf_bytes_str(key_json), 0, a, NULL);
    if (rc == SF_NOMEM)
        return rc;
    *out = rc == SF_OK; /* half a surrogate pair is none of JSONB's either */
    if (!*out)
        return SF_OK;
    *out = doc.root->kind != SF_JSON_STRING || doc.root->str.n == 0 || !memchr(doc.root->str.p, 0, doc.root->str.n);
    sf__json_cleanup(&doc);
    return SF_OK;
}

static sf_status write_shard(sf_strbuf *out, const sf_manifest_shard *s, sf_error *err)
{
    bool low, high;
    sf_status rc;

    if (s->row_count > INT32_MAX)
        return sf_fail(err, SF_INVALID,
                       "shard %u has %llu rows: PostgreSQL's column row_count ends at %d; use more shards", s->db_id,
                       (unsigned long long)s->row_count, INT32_MAX);
    rc = is_storable(&low, s->min_key_json, out->alloc);
    if (rc == SF_OK)
        rc = is_storable(&high, s->max_key_json, out->alloc);
    if (rc != SF_OK)
        return sf_fail(err, rc, "rows of a manifest");
    sf__strbuf_printf(out, "{\"db_id\": %u, \"attempt\": %u, \"row_count\": %llu, \"db_bytes\": %llu, \"db_url\": ",
                      s->db_id, s->attempt, (unsigned long long)s->row_count, (unsigned long long)s->db_bytes);
    write_text(out, s->db_url);
    sf__strbuf_puts(out, ", \"checkpoint_id\": ");
    write_text(out, s->checkpoint_id);
    /* they are only for people */
    sf__strbuf_printf(out, ", \"min_key\": %s, \"max_key\": %s, \"writer_info\": %s}",
                      low && high && s->min_key_json ? s->min_key_json : "null",
                      low && high && s->max_key_json ? s->max_key_json : "null", s->writer_info_json);
    return SF_OK;
}

static sf_status write_shards(sf_strbuf *out, const sf_snapshot_manifest *m, sf_error *err)
{
    sf_status rc = SF_OK;

    sf__strbuf_putc(out, '[');
    for (size_t i = 0; i < m->shard_count && rc == SF_OK; i++) {
        if (i > 0)
            sf__strbuf_puts(out, ", ");
        rc = write_shard(out, &m->shards[i], err);
    }
    sf__strbuf_putc(out, ']');
    return rc;
}

/* ------------------------------------------------------------------ both ----------------------------------------- */

static void fill_build(sf_postgres_rows *r)
{
    const sf_snapshot_manifest *m = r->manifest;
    const char *const values[SF_POSTGRES_BUILD_VALUES] = {m->run_id,        r->created_at_us,
                                                          r->num_dbs,       m->s3_prefix,
                                                          m->key_col,       m->db_path_template,
                                                          m->shard_prefix,  sf__key_encoding_name(m->key_encoding),
                                                          m->sharding_json, r->custom};

    snprintf(r->created_at_us, sizeof(r->created_at_us), "%lld", (long long)m->created_at_us);
    snprintf(r->num_dbs, sizeof(r->num_dbs), "%u", m->num_dbs);
    memcpy(r->build, values, sizeof(values));
}

sf_status sf__postgres_rows_init(sf_postgres_rows *r, sf_bytes manifest, const sf_allocator *a, sf_error *err)
{
    sf_strbuf custom, shards;
    sf_status rc;

    *r = (sf_postgres_rows){.alloc = a};
    rc = sf__snapshot_manifest_parse(&r->manifest, manifest, 0, a, err);
    if (rc != SF_OK)
        return rc;
    sf__strbuf_init(&custom, a);
    sf__strbuf_init(&shards, a);
    rc = write_custom(&custom, r->manifest, err);
    if (rc == SF_OK)
        rc = write_shards(&shards, r->manifest, err);
    if (rc == SF_OK && (custom.failed || shards.failed))
        rc = sf_fail(err, SF_NOMEM, "rows of a manifest");
    if (rc == SF_OK) {
        r->custom = sf__strbuf_detach(&custom);
        r->shards = sf__strbuf_detach(&shards);
        fill_build(r);
    }
    sf__strbuf_cleanup(&custom);
    sf__strbuf_cleanup(&shards);
    if (rc != SF_OK)
        sf__postgres_rows_cleanup(r);
    return rc;
}

void sf__postgres_rows_cleanup(sf_postgres_rows *r)
{
    sf__snapshot_manifest_free(r->manifest);
    sf__free(r->alloc, r->custom);
    sf__free(r->alloc, r->shards);
    *r = (sf_postgres_rows){.alloc = r->alloc};
}
