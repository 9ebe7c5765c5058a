#include "snapshot/snapshot_manifest.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "snapshot/datetime.h"
#include "snapshot/key.h"
#include "snapshot/lax.h"
#include "snapshot/manifest_db.h"
#include "snapshot/manifest_sharding.h"

#define VERSION 4
#define LEAST_LEGACY_VERSION 2
#define PREFIX "Manifest validation failed: "

struct decoder {
    sf_snapshot_manifest *m;
    sf_manifest_db db;
    size_t shard_room;
    const sf_allocator *alloc;
    sf_error *err;
    sf_status status; /* of the first failure */
};

/* ------------------------------------------------------------------ columns -------------------------------------- */

static bool fail(struct decoder *d, const char *name, const char *what)
{
    size_t row = d->m->shard_count;

    if (row > 0)
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, PREFIX "%s of shards row %zu %s", name, row, what);
    else
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, PREFIX "%s %s", name, what);
    return false;
}

static bool fail_nomem(struct decoder *d)
{
    d->status = sf_fail(d->err, SF_NOMEM, "snapshot manifest");
    return false;
}

static bool take_column(struct decoder *d, int column, sf_column *out)
{
    d->status = sf__manifest_db_column(&d->db, column, out, d->err);
    return d->status == SF_OK;
}

static bool keep_in(struct decoder *d, sf_arena *arena, sf_bytes text, const char **out)
{
    *out = sf__arena_strndup(arena, text.p, text.n);
    return *out || fail_nomem(d);
}

static bool keep_bytes(struct decoder *d, sf_bytes text, const char **out)
{
    return keep_in(d, &d->m->arena, text, out);
}

static bool take_optional_text_into(struct decoder *d, sf_arena *arena, int column, const char *name, const char **out)
{
    sf_column c;

    if (!take_column(d, column, &c))
        return false;
    if (c.kind == SF_COLUMN_NULL)
        return true;
    if (c.kind != SF_COLUMN_TEXT)
        return fail(d, name, "is a number, not a text");
    if (!sf_utf8_is_valid(c.text))
        return fail(d, name, "is not UTF-8");
    if (c.text.n > 0 && memchr(c.text.p, 0, c.text.n))
        return fail(d, name, "holds a NUL character");
    return keep_in(d, arena, c.text, out);
}

static bool take_optional_text(struct decoder *d, int column, const char *name, const char **out)
{
    return take_optional_text_into(d, &d->m->arena, column, name, out);
}

static bool take_text(struct decoder *d, int column, const char *name, const char **out)
{
    return take_optional_text(d, column, name, out) && (*out || fail(d, name, "is NULL"));
}

static bool real_to_int(double real, int64_t *out)
{
    if (!(real >= -0x1p63 && real < 0x1p63)) /* neither is NaN */
        return false;
    *out = (int64_t)real;
    return (double)*out == real;
}

static bool take_int(struct decoder *d, int column, const char *name, int64_t *out)
{
    sf_lax_int i = {.fits = true};
    sf_column c;
    bool ok = true;

    if (!take_column(d, column, &c))
        return false;
    switch (c.kind) {
    case SF_COLUMN_NULL:
        return fail(d, name, "is NULL");
    case SF_COLUMN_INT:
        i.v = c.i;
        break;
    case SF_COLUMN_REAL:
        ok = real_to_int(c.real, &i.v);
        break;
    case SF_COLUMN_TEXT:
        ok = sf__lax_int_from_text(c.text, &i);
        break;
    }
    if (!ok || !i.fits)
        return fail(d, name, ok ? "is out of range" : "is not an integer");
    *out = i.v;
    return true;
}

static bool take_count(struct decoder *d, int column, const char *name, uint64_t most, uint64_t *out)
{
    int64_t v;

    if (!take_int(d, column, name, &v))
        return false;
    if (v < 0 || (uint64_t)v > most)
        return fail(d, name, v < 0 ? "is negative" : "is out of range");
    *out = (uint64_t)v;
    return true;
}

static bool take_created_at(struct decoder *d, int column)
{
    char number[32];
    sf_datetime t;
    sf_column c;

    if (!take_column(d, column, &c))
        return false;
    if (c.kind == SF_COLUMN_NULL)
        return fail(d, "created_at", "is NULL");
    if (c.kind == SF_COLUMN_INT)
        c.text = sf_bytes_of(number, (size_t)snprintf(number, sizeof(number), "%lld", (long long)c.i));
    else if (c.kind == SF_COLUMN_REAL)
        c.text = sf_bytes_of(number, (size_t)snprintf(number, sizeof(number), "%.17g", c.real));
    if (!(c.kind == SF_COLUMN_TEXT ? sf__datetime_parse(c.text, &t) : sf__datetime_from_number(c.text, &t)))
        return fail(d, "created_at", "is not a date and time");
    d->m->created_at_us = t.us;
    d->m->created_at_naive = t.naive;
    return true;
}

/* ------------------------------------------------------------------ JSON columns --------------------------------- */

/* An absent value has no `p`; where one is needed it reads as empty text, which is no JSON. */
static bool take_json_text(struct decoder *d, int column, const char *name, sf_bytes *out)
{
    char *number;
    sf_column c;

    if (!take_column(d, column, &c))
        return false;
    *out = c.text;
    if (c.kind == SF_COLUMN_REAL)
        return fail(d, name, "is not a text");
    if (c.kind != SF_COLUMN_INT)
        return true;
    number = sf__arena_alloc(&d->m->arena, SF_LAX_INT_TEXT);
    if (!number)
        return fail_nomem(d);
    *out = sf_bytes_of(number, (size_t)snprintf(number, SF_LAX_INT_TEXT, "%lld", (long long)c.i));
    return true;
}

static bool parse_json(struct decoder *d, sf_json_doc *doc, sf_bytes text, unsigned flags, const char *name)
{
    d->status = sf__json_parse(doc, text, flags, d->alloc, d->err);
    if (d->status != SF_OK && d->status != SF_NOMEM)
        d->status = sf_error_prefix(d->err, SF_BAD_MANIFEST, PREFIX "%s: ", name);
    return d->status == SF_OK;
}

static bool take_sharding(struct decoder *d, int column, sf_sharding *out)
{
    sf_strbuf canonical;
    sf_bytes text;
    bool ok;

    if (!take_json_text(d, column, "sharding", &text))
        return false;
    sf__strbuf_init(&canonical, d->alloc);
    d->status = sf__sharding_decode(out, &canonical, text, d->m->format_version < VERSION, d->alloc, d->err);
    ok = d->status == SF_OK && keep_bytes(d, sf_bytes_of(canonical.s, canonical.n), &d->m->sharding_json);
    sf__strbuf_cleanup(&canonical);
    return ok;
}

static bool keep_backend(struct decoder *d, const sf_json *name)
{
    if (!name || name->kind != SF_JSON_STRING || (name->str.n > 0 && memchr(name->str.p, 0, name->str.n)))
        return true; /* a member of the user's own, then */
    return keep_bytes(d, name->str, &d->m->kv_backend);
}

/* The most explicit source counts: ours, then the metadata of combined snapshots, then what only SQLite shards have. */
static bool custom_decode(struct decoder *d, const sf_json *custom)
{
    const sf_json *vector = sf__json_get(custom, "vector"), *sidecar = sf__json_get(custom, "sqlite_sidecar");
    const sf_json *unified = sf__json_get(vector, "unified");

    if (custom->kind != SF_JSON_OBJECT)
        return fail(d, "custom", "is not a JSON object");
    d->m->vector_only = vector && vector->kind == SF_JSON_OBJECT && !(unified && sf__json_is_truthy(unified));
    if (!keep_backend(d, sf__json_get(custom, "kv_backend")))
        return false;
    if (!d->m->kv_backend && !keep_backend(d, sf__json_get(vector, "kv_backend")))
        return false;
    if (!d->m->kv_backend && sidecar && sidecar->kind == SF_JSON_OBJECT)
        d->m->kv_backend = "sqlite";
    return true;
}

static bool take_custom(struct decoder *d, int column)
{
    sf_json_doc doc;
    sf_bytes text;
    bool ok;

    if (!take_json_text(d, column, "custom", &text))
        return false;
    if (text.n == 0)
        text = sf_bytes_str("{}");
    /* free text of the user: what Python's parser lets pass must not make the rows unreadable */
    if (!parse_json(d, &doc, text, SF_JSON_NAN | SF_JSON_LONE_SURROGATES, "custom"))
        return false;
    ok = custom_decode(d, doc.root) && keep_bytes(d, doc.root->raw, &d->m->custom_json);
    sf__json_cleanup(&doc);
    return ok;
}

static bool key_decode(struct decoder *d, const sf_json *v, const char *name, const char **out)
{
    char scratch[SF_LAX_INT_TEXT];
    sf_bytes text;

    if (v->kind == SF_JSON_NULL)
        return true;
    if (v->kind == SF_JSON_STRING)
        return keep_bytes(d, v->raw, out);
    if (!sf__lax_int_text_from_json(v, scratch, &text))
        return fail(d, name, "is neither an integer nor a string");
    return keep_bytes(d, text, out);
}

/* As it is written again: most keys of most manifests are such, and need no parser. */
static bool is_plain_int(sf_bytes text)
{
    size_t i = text.n > 0 && text.p[0] == '-', digits = text.n - i;

    if (digits == 0 || digits > 18 || (text.p[i] == '0' && text.n > 1))
        return false;
    while (i < text.n && text.p[i] >= '0' && text.p[i] <= '9')
        i++;
    return i == text.n;
}

static bool take_key(struct decoder *d, int column, const char *name, const char **out)
{
    sf_json_doc doc;
    sf_bytes text;
    bool ok;

    if (!take_json_text(d, column, name, &text))
        return false;
    if (!text.p)
        return true;
    if (is_plain_int(text))
        return keep_bytes(d, text, out);
    if (!parse_json(d, &doc, text, 0, name))
        return false;
    ok = key_decode(d, doc.root, name, out);
    sf__json_cleanup(&doc);
    return ok;
}

/* One integer member: `text` is set to it, or stays when the member is absent, or null where that is allowed. */
static bool writer_info_member(struct decoder *d, const sf_json *root, const char *name, bool nullable,
                               char text[SF_LAX_INT_TEXT])
{
    const sf_json *v = sf__json_get(root, name);
    sf_lax_int i;

    if (!v || (nullable && v->kind == SF_JSON_NULL))
        return true;
    if (!sf__lax_int_from_json(v, &i) || !i.fits) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, PREFIX "%s in writer_info of shards row %zu is not an integer",
                            name, d->m->shard_count);
        return false;
    }
    snprintf(text, SF_LAX_INT_TEXT, "%lld", (long long)i.v);
    return true;
}

/* Base64 of a record. One that cannot be made sense of is as none: *v becomes NULL. */
static bool check_opening(struct decoder *d, const sf_json **v)
{
    const sf_json *given = *v;
    uint8_t *bytes;
    size_t n;

    *v = NULL;
    if (!given || given->kind != SF_JSON_STRING || given->str.n == 0 ||
        sf__base64_room(given->str.n) > SF_LIMIT_OPENING_RECORD_BYTES + 2)
        return true;
    bytes = sf__alloc(d->alloc, sf__base64_room(given->str.n) + 1);
    if (!bytes)
        return fail_nomem(d);
    if (sf__base64_read(bytes, &n, given->str))
        *v = given;
    sf__free(d->alloc, bytes);
    return true;
}

#define BEFORE_OPENING ", \"opening\": \""

static bool writer_info_decode(struct decoder *d, const sf_json *root, sf_manifest_shard *s)
{
    char attempt[SF_LAX_INT_TEXT] = "0", duration[SF_LAX_INT_TEXT] = "0";
    char stage[SF_LAX_INT_TEXT] = "null", task[SF_LAX_INT_TEXT] = "null";
    const sf_json *opening;
    sf_strbuf text;
    size_t at;
    bool ok;

    if (root->kind != SF_JSON_OBJECT)
        return fail(d, "writer_info", "is not a JSON object");
    if (!writer_info_member(d, root, "attempt", false, attempt) ||
        !writer_info_member(d, root, "duration_ms", false, duration) ||
        !writer_info_member(d, root, "stage_id", true, stage) ||
        !writer_info_member(d, root, "task_attempt_id", true, task))
        return false;
    opening = sf__json_get(root, "opening");
    if (!check_opening(d, &opening))
        return false;
    sf__strbuf_init(&text, d->alloc);
    sf__strbuf_printf(&text, "{\"attempt\": %s, \"duration_ms\": %s", attempt, duration);
    at = text.n + sizeof(BEFORE_OPENING) - 1;
    if (opening)
        sf__strbuf_printf(&text, BEFORE_OPENING "%.*s\"", (int)opening->str.n, (const char *)opening->str.p);
    sf__strbuf_printf(&text, ", \"stage_id\": %s, \"task_attempt_id\": %s}", stage, task);
    ok = text.failed ? fail_nomem(d) : keep_in(d, &d->m->until_opened, sf_bytes_of(text.s, text.n), &s->writer_info_json);
    sf__strbuf_cleanup(&text);
    if (ok && opening) {
        s->opening_pos = (uint32_t)at;
        s->opening_len = (uint32_t)opening->str.n; /* no longer than a record may be */
    }
    return ok;
}

static bool take_writer_info(struct decoder *d, int column, sf_manifest_shard *s)
{
    sf_json_doc doc;
    sf_bytes text;
    bool ok;

    if (!take_json_text(d, column, "writer_info", &text) || !parse_json(d, &doc, text, SF_JSON_NAN, "writer_info"))
        return false;
    ok = writer_info_decode(d, doc.root, s);
    sf__json_cleanup(&doc);
    return ok;
}

/* ------------------------------------------------------------------ build_meta ----------------------------------- */

enum {
    RUN_ID,
    CREATED_AT,
    NUM_DBS,
    S3_PREFIX,
    KEY_COL,
    SHARDING,
    DB_PATH_TEMPLATE,
    SHARD_PREFIX,
    FORMAT_VERSION,
    KEY_ENCODING,
    CUSTOM
};

static const char build_meta_query[] =
    "SELECT run_id, created_at, num_dbs, s3_prefix, key_col, sharding, db_path_template, shard_prefix, format_version, "
    "key_encoding, custom FROM build_meta LIMIT 1";

static bool take_version(struct decoder *d, bool legacy)
{
    int64_t v;

    if (!take_int(d, FORMAT_VERSION, "format_version", &v))
        return false;
    if (v != VERSION && !(legacy && v >= LEAST_LEGACY_VERSION && v < VERSION)) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, "Unsupported manifest format_version: %lld. Supported: %s",
                            (long long)v, legacy ? "[2, 3, 4]" : "[4]");
        return false;
    }
    d->m->format_version = (int32_t)v;
    return true;
}

static bool take_num_dbs(struct decoder *d)
{
    uint64_t v;

    if (!take_count(d, NUM_DBS, "num_dbs", INT64_MAX, &v))
        return false;
    if (v == 0)
        return fail(d, "num_dbs", "is 0");
    if (v > SF_LIMIT_SHARDS) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, PREFIX "num_dbs %llu is more than %u", (unsigned long long)v,
                            SF_LIMIT_SHARDS);
        return false;
    }
    d->m->num_dbs = (uint32_t)v;
    return true;
}

static bool take_key_encoding(struct decoder *d)
{
    const char *name = NULL;

    return take_text(d, KEY_ENCODING, "key_encoding", &name) &&
           (sf__key_encoding_from_name(sf_bytes_str(name), &d->m->key_encoding) ||
            fail(d, "key_encoding", "is none of u64be, u32be, utf8, raw"));
}

static bool build_meta_decode(struct decoder *d, bool legacy, sf_sharding *sharding)
{
    sf_snapshot_manifest *m = d->m;
    bool row;

    d->status = sf__manifest_db_query(&d->db, build_meta_query, 1, d->err);
    if (d->status == SF_OK)
        d->status = sf__manifest_db_next(&d->db, &row, d->err);
    if (d->status != SF_OK)
        return false;
    if (!row) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, "SQLite manifest has no build_meta row");
        return false;
    }
    /* the version first: another one explains whatever else is different */
    return take_version(d, legacy) && take_text(d, RUN_ID, "run_id", &m->run_id) && take_created_at(d, CREATED_AT) &&
           take_num_dbs(d) && take_text(d, S3_PREFIX, "s3_prefix", &m->s3_prefix) &&
           take_text(d, KEY_COL, "key_col", &m->key_col) && take_sharding(d, SHARDING, sharding) &&
           take_text(d, DB_PATH_TEMPLATE, "db_path_template", &m->db_path_template) &&
           take_text(d, SHARD_PREFIX, "shard_prefix", &m->shard_prefix) && take_key_encoding(d) &&
           take_custom(d, CUSTOM);
}

/* ------------------------------------------------------------------ shards --------------------------------------- */

enum { DB_ID, DB_URL, ATTEMPT, ROW_COUNT, DB_BYTES, MIN_KEY, MAX_KEY, CHECKPOINT_ID, WRITER_INFO };

#define SHARDS_QUERY(db_bytes) \
    "SELECT db_id, db_url, attempt, row_count, " db_bytes ", min_key, max_key, checkpoint_id, writer_info FROM shards"

static bool take_db_id(struct decoder *d, uint32_t *out)
{
    int64_t v;

    if (!take_int(d, DB_ID, "db_id", &v))
        return false;
    if (v < 0 || v >= (int64_t)d->m->num_dbs) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST, "Manifest shard db_ids out of range [0, %u): [%lld]",
                            d->m->num_dbs, (long long)v);
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

static bool shard_decode(struct decoder *d, sf_manifest_shard *s)
{
    uint64_t attempt;

    if (!take_db_id(d, &s->db_id) || !take_optional_text_into(d, &d->m->until_opened, DB_URL, "db_url", &s->db_url) ||
        !take_count(d, ATTEMPT, "attempt", UINT32_MAX, &attempt) ||
        !take_count(d, ROW_COUNT, "row_count", INT64_MAX, &s->row_count) ||
        !take_count(d, DB_BYTES, "db_bytes", INT64_MAX, &s->db_bytes) ||
        !take_key(d, MIN_KEY, "min_key", &s->min_key_json) || !take_key(d, MAX_KEY, "max_key", &s->max_key_json) ||
        !take_optional_text(d, CHECKPOINT_ID, "checkpoint_id", &s->checkpoint_id) || !take_writer_info(d, WRITER_INFO, s))
        return false;
    s->attempt = (uint32_t)attempt;
    return true;
}

/* Grows with the rows that are there: num_dbs is only a claim. */
static sf_manifest_shard *shard_add(struct decoder *d)
{
    sf_snapshot_manifest *m = d->m;
    sf_manifest_shard *s;

    if (!SF_RESERVE(d->alloc, &m->shards, &d->shard_room, m->shard_count + 1)) {
        fail_nomem(d);
        return NULL;
    }
    s = &m->shards[m->shard_count++];
    *s = (sf_manifest_shard){.db_id = 0};
    return s;
}

static bool shards_decode(struct decoder *d)
{
    sf_snapshot_manifest *m = d->m;
    sf_manifest_shard *s;
    bool row = true;

    d->status = sf__manifest_db_query(&d->db, m->format_version < VERSION ? SHARDS_QUERY("0") : SHARDS_QUERY("db_bytes"),
                                      m->num_dbs, d->err);
    for (;;) {
        if (d->status == SF_OK)
            d->status = sf__manifest_db_next(&d->db, &row, d->err);
        if (d->status != SF_OK || !row)
            return d->status == SF_OK;
        if (m->shard_count == m->num_dbs) {
            d->status = sf_fail(d->err, SF_BAD_MANIFEST, "Manifest shard count exceeds num_dbs: at least %llu > %u",
                                (unsigned long long)m->num_dbs + 1, m->num_dbs);
            return false;
        }
        s = shard_add(d);
        if (!s)
            return false;
        if (!shard_decode(d, s))
            return false;
        if (__builtin_add_overflow(m->row_count, s->row_count, &m->row_count))
            return fail(d, "row_count", "makes the sum of all too large");
    }
}

/* There will be no more. */
static bool shards_shrink(struct decoder *d)
{
    sf_snapshot_manifest *m = d->m;
    sf_manifest_shard *less;

    if (d->shard_room <= m->shard_count || m->shard_count == 0)
        return true;
    less = sf__realloc(d->alloc, m->shards, m->shard_count * sizeof(*less));
    if (!less)
        return fail_nomem(d);
    m->shards = less;
    return true;
}

static int by_db_id(const void *a, const void *b)
{
    const sf_manifest_shard *x = a, *y = b;

    return (x->db_id > y->db_id) - (x->db_id < y->db_id);
}

static bool check_whole(struct decoder *d, const sf_sharding *sharding)
{
    sf_snapshot_manifest *m = d->m;
    size_t expected = sharding->value_count > 0 ? sharding->value_count : 1;

    if (!shards_shrink(d))
        return false;
    if (m->shard_count > 1)
        qsort(m->shards, m->shard_count, sizeof(m->shards[0]), by_db_id);
    for (size_t i = 1; i < m->shard_count; i++) {
        if (m->shards[i - 1].db_id != m->shards[i].db_id)
            continue;
        d->status =
            sf_fail(d->err, SF_BAD_MANIFEST, "Manifest contains duplicate shard db_ids: [%u]", m->shards[i].db_id);
        return false;
    }
    if (sharding->categorical && expected != m->num_dbs) {
        d->status = sf_fail(d->err, SF_BAD_MANIFEST,
                            "Categorical CEL manifest num_dbs must match routing_values cardinality "
                            "(expected %zu, got %u)",
                            expected, m->num_dbs);
        return false;
    }
    m->strategy = sharding->strategy;
    return true;
}

/* ------------------------------------------------------------------ the whole ------------------------------------ */

sf_status sf__snapshot_manifest_parse(sf_snapshot_manifest **out, sf_bytes bytes, unsigned flags, const sf_allocator *a,
                                      sf_error *err)
{
    struct decoder d = {.alloc = a, .err = err};
    sf_sharding sharding = {.strategy = SF_SHARDING_HASH};

    d.m = sf__calloc(a, 1, sizeof(*d.m));
    if (!d.m)
        return sf_fail(err, SF_NOMEM, "snapshot manifest");
    sf__arena_init(&d.m->arena, a);
    sf__arena_init(&d.m->until_opened, a);
    d.status = sf__manifest_db_open(&d.db, bytes, err);
    if (d.status == SF_OK && build_meta_decode(&d, flags & SF_MANIFEST_LEGACY, &sharding) &&
        (flags & SF_MANIFEST_HEAD_ONLY || shards_decode(&d)))
        check_whole(&d, &sharding);
    sf__manifest_db_close(&d.db);
    if (d.status != SF_OK) {
        sf__snapshot_manifest_free(d.m);
        return d.status;
    }
    *out = d.m;
    return SF_OK;
}

void sf__snapshot_manifest_free(sf_snapshot_manifest *m)
{
    const sf_allocator *a;

    if (!m)
        return;
    a = m->arena.alloc;
    sf__arena_cleanup(&m->arena);
    sf__arena_cleanup(&m->until_opened);
    sf__free(a, m->shards);
    sf__free(a, m);
}

const sf_manifest_shard *sf__snapshot_manifest_shard(const sf_snapshot_manifest *m, uint32_t db_id)
{
    size_t low = 0, high = m->shard_count;

    if (db_id < high && m->shards[db_id].db_id == db_id) /* most often no shard is empty */
        return &m->shards[db_id];
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (m->shards[middle].db_id < db_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < m->shard_count && m->shards[low].db_id == db_id ? &m->shards[low] : NULL;
}

/* ------------------------------------------------------------------ settling ------------------------------------- */

/* What stays of the rows, in place of what goes. */
struct settled {
    const char *url, *writer_info;
};

/* Texts of the last shards, of which many are the same, each at a place of its hash. */
#define KNOWN_TEXTS 256u

/* Without `opening`. */
static const char *settled_info(sf_arena *arena, const sf_manifest_shard *s, const char *known[KNOWN_TEXTS],
                                sf_strbuf *text)
{
    const char *info = s->writer_info_json, **same;

    sf__strbuf_cut(text, 0);
    if (s->opening_len > 0) {
        sf__strbuf_add(text, info, s->opening_pos - (sizeof(BEFORE_OPENING) - 1));
        sf__strbuf_puts(text, info + s->opening_pos + s->opening_len + 1); /* behind its quote */
    } else {
        sf__strbuf_puts(text, info);
    }
    if (text->failed)
        return NULL;
    same = &known[sf__xxh3_64(sf_bytes_of(text->s, text->n)) % KNOWN_TEXTS];
    if (!*same || strcmp(*same, text->s) != 0)
        *same = sf__arena_strndup(arena, text->s, text->n);
    return *same;
}

static bool settle_rows(sf_snapshot_manifest *m, struct settled *settled,
                        const char *(*url_of)(void *ctx, uint32_t db_id), void *ctx, sf_strbuf *text)
{
    const char *known[KNOWN_TEXTS] = {NULL};

    for (size_t i = 0; i < m->shard_count; i++) {
        const sf_manifest_shard *s = &m->shards[i];
        struct settled *t = &settled[i];

        t->url = s->db_url ? url_of(ctx, s->db_id) : NULL;
        if (s->db_url && (!t->url || strcmp(t->url, s->db_url) != 0))
            return false;
        t->writer_info = settled_info(&m->arena, s, known, text);
        if (!t->writer_info)
            return false;
    }
    return true;
}

void sf__snapshot_manifest_settle(sf_snapshot_manifest *m, const char *(*url_of)(void *ctx, uint32_t db_id), void *ctx)
{
    const sf_allocator *a = m->arena.alloc;
    struct settled *settled = sf__calloc(a, m->shard_count + 1, sizeof(*settled));
    sf_strbuf text;

    sf__strbuf_init(&text, a);
    if (settled && settle_rows(m, settled, url_of, ctx, &text)) {
        for (size_t i = 0; i < m->shard_count; i++) {
            m->shards[i].db_url = settled[i].url;
            m->shards[i].writer_info_json = settled[i].writer_info;
            m->shards[i].opening_pos = m->shards[i].opening_len = 0;
        }
        sf__arena_cleanup(&m->until_opened);
    }
    sf__strbuf_cleanup(&text);
    sf__free(a, settled);
}

sf_buf *sf__manifest_shard_record(const sf_manifest_shard *s, const sf_allocator *a)
{
    sf_bytes opening = sf__manifest_shard_opening(s);
    sf_buf *b = opening.n > 0 ? sf__buf_new(a, sf__base64_room(opening.n)) : NULL;

    if (b && !sf__base64_read(b->data, &b->n, opening)) {
        sf__buf_release(b);
        b = NULL;
    }
    return b;
}

sf_status sf__snapshot_manifest_check_readable(const sf_snapshot_manifest *m, bool own, sf_error *err)
{
    if (m->vector_only)
        return sf_fail(err, SF_INVALID,
                       "This manifest contains unsupported or incomplete vector metadata and cannot be opened with a "
                       "generic KV reader. Use ShardedVectorReader instead.");
    if (own && m->kv_backend && strcmp(m->kv_backend, "slatedb") != 0 && strcmp(m->kv_backend, "sqlite") != 0)
        return sf_fail(err, SF_UNSUPPORTED, "shards of backend '%s' are not supported yet", m->kv_backend);
    return SF_OK;
}
