#include "writer/reuse.h"

#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/error.h"
#include "base/limits.h"
#include "snapshot/key.h"
#include "snapshot/lax.h"
#include "snapshot/manifest_write.h"
#include "snapshot/names.h"
#include "writer/own_custom.h"
#include "writer/pointer.h"
#include "writer/published.h"
#include "writer/site_open.h"

/* What keeps a shard from being reused does not keep it from being built. */
static sf_status go_on(const sf_site *s, sf_status rc, const char *what, const sf_error *why, sf_error *err)
{
    if (rc == SF_NOMEM || rc == SF_CANCELLED) {
        if (err)
            *err = *why;
        return rc;
    }
    if (rc != SF_OK)
        sf__log(&s->rt->log, SF_LOG_WARN, "writer", "%s cannot be reused: %s", what, why->message);
    return SF_OK;
}

/* ------------------------------------------------------------------ the snapshot before -------------------------- */

/* Members of a manifest's custom part that say how its shards are stored; as sf__own_custom_write() names them. */
static const char *const stored_as_names[] = {"kv_backend", "sqlite_sidecar"};

/* Both say the same of every such member. */
static bool is_stored_alike(const sf_json *theirs, const sf_json *ours)
{
    for (size_t i = 0; i < sizeof(stored_as_names) / sizeof(stored_as_names[0]); i++) {
        const sf_json *x = sf__json_get(theirs, stored_as_names[i]), *y = sf__json_get(ours, stored_as_names[i]);

        if (!x != !y || (x && !sf_bytes_eq(x->raw, y->raw)))
            return false;
    }
    return true;
}

/* The other one is parsed already, NULL when it could not be. */
static sf_status compare_storage(const sf_reuse *r, const sf_json *theirs, bool *same, sf_error *err)
{
    sf_json_doc ours;
    sf_status rc = sf__json_parse(&ours, sf_bytes_str(r->stored_as), 0, r->site->rt->alloc, err);

    if (rc != SF_OK)
        return rc;
    *same = is_stored_alike(theirs, ours.root);
    sf__json_cleanup(&ours);
    return SF_OK;
}

static sf_status load_previous(sf_reuse *r, const sf_cancel_flag *cancel, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    sf_pointer p = {.exists = false};
    bool same = false;
    sf_status rc = sf__pointer_load(r->site, cancel, &p, err);

    if (rc == SF_OK && p.exists && !p.parsed) {
        *err = p.why;
        rc = SF_BAD_MANIFEST;
    }
    if (rc == SF_OK && p.exists) {
        r->previous_ref = sf__strdup(a, p.current.manifest_ref);
        rc = r->previous_ref ? sf__manifest_load(r->site, r->previous_ref, cancel, &r->previous, err)
                             : sf_fail(err, SF_NOMEM, "reusing shards");
    }
    sf__pointer_cleanup(r->site, &p);
    if (rc == SF_OK && r->previous)
        rc = sf__content_hashes_init(&r->hashes, r->previous, a, err);
    if (rc == SF_OK && r->previous)
        rc = compare_storage(r, r->hashes.doc.root, &same, err);
    if (rc != SF_OK || !same || r->previous->key_encoding != r->options->key_encoding) {
        sf__content_hashes_cleanup(&r->hashes);
        sf__snapshot_manifest_free(r->previous);
        r->previous = NULL;
    }
    return rc;
}

static bool copy_text(char **out, const char *text, const sf_allocator *a)
{
    *out = text ? sf__strdup(a, text) : NULL;
    return *out || !text;
}

/* Below the prefix only: what lies elsewhere no clean-up of ours looks after. */
static sf_status find_previous(const sf_reuse *r, uint32_t db_id, uint64_t rows, sf_reusable *out, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    const sf_manifest_shard *m = sf__snapshot_manifest_shard(r->previous, db_id);
    sf_bytes hash = m && db_id < r->previous->num_dbs ? sf__content_hashes_of(&r->hashes, db_id) : (sf_bytes){0};
    sf_built_shard *s = &out->shards[out->count];
    char *folder = NULL;
    sf_status rc;

    if (!m || !m->db_url || hash.n != 32 || m->row_count == 0 || m->row_count > rows ||
        (m->checkpoint_id && strlen(m->checkpoint_id) >= sizeof(s->checkpoint_id)))
        return SF_OK;
    rc = sf__site_name_of(r->site, m->db_url, &folder, err);
    if (rc != SF_OK || !folder)
        return rc;
    sf__free(a, folder);
    *s = (sf_built_shard){
        .db_id = db_id, .attempt = m->attempt, .reused = true, .rows = m->row_count, .db_bytes = m->db_bytes};
    out->count++;
    snprintf(s->checkpoint_id, sizeof(s->checkpoint_id), "%s", m->checkpoint_id ? m->checkpoint_id : "");
    memcpy(s->content_hash, hash.p, hash.n);
    if (m->opening_len > 0 && !(s->opening = sf__strndup(a, sf__manifest_shard_opening(m).p, m->opening_len)))
        return sf_fail(err, SF_NOMEM, "shard %u of the snapshot before", db_id);
    return copy_text(&s->db_url, m->db_url, a) && copy_text(&s->taken_from, r->previous_ref, a) &&
                   copy_text(&s->min_key_json, m->min_key_json, a) && copy_text(&s->max_key_json, m->max_key_json, a)
               ? SF_OK
               : sf_fail(err, SF_NOMEM, "shard %u of the snapshot before", db_id);
}

/* ------------------------------------------------------------------ earlier tries -------------------------------- */

static bool take_uint(const sf_json *root, const char *name, uint64_t most, uint64_t *out)
{
    const sf_json *v = sf__json_get(root, name);
    sf_lax_int i;

    if (!v || v->kind != SF_JSON_INT || !sf__lax_int_from_json(v, &i) || !i.fits || i.v < 0 || (uint64_t)i.v > most)
        return false;
    *out = (uint64_t)i.v;
    return true;
}

static bool take_hex(const sf_json *root, const char *name, char out[33])
{
    const sf_json *v = sf__json_get(root, name);

    if (!v || v->kind != SF_JSON_STRING || v->str.n != 32)
        return false;
    for (size_t i = 0; i < 32; i++)
        if (!strchr("0123456789abcdef", v->str.p[i]) || v->str.p[i] == 0)
            return false;
    memcpy(out, v->str.p, 32);
    out[32] = '\0';
    return true;
}

/* An integer or a text, as the manifest has it; NULL: neither. */
static bool take_key(const sf_json *root, const char *name, const sf_allocator *a, char **out)
{
    const sf_json *v = sf__json_get(root, name);

    if (!v || (v->kind != SF_JSON_INT && v->kind != SF_JSON_STRING))
        return v && v->kind == SF_JSON_NULL;
    *out = sf__strndup(a, v->raw.p, v->raw.n);
    return *out != NULL;
}

/* One that is none counts as absent. False without memory. */
static bool take_opening(const sf_json *v, const sf_allocator *a, char **out)
{
    uint8_t *bytes;
    size_t n;
    bool sound;

    if (!v || v->kind != SF_JSON_STRING || v->str.n == 0 || v->str.n > 2 * (size_t)SF_LIMIT_OPENING_RECORD_BYTES)
        return true;
    bytes = sf__alloc(a, sf__base64_room(v->str.n) + 1);
    if (!bytes)
        return false;
    sound = sf__base64_read(bytes, &n, v->str);
    sf__free(a, bytes);
    if (sound)
        *out = sf__strndup(a, v->str.p, v->str.n);
    return *out || !sound;
}

/* False: it is none, or one of a shard that these options would not make. */
static bool record_decode(const sf_reuse *r, const sf_json *root, sf_built_shard *s, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    const sf_json *encoding = sf__json_get(root, "key_encoding");
    uint64_t version, db_id, attempt;
    sf_key_encoding found;
    bool same = false;

    if (!take_uint(root, "format_version", UINT32_MAX, &version) || version != 1 ||
        !take_uint(root, "db_id", UINT32_MAX, &db_id) || !take_uint(root, "attempt", UINT32_MAX, &attempt) ||
        !take_uint(root, "row_count", INT64_MAX, &s->rows) || !take_uint(root, "db_bytes", INT64_MAX, &s->db_bytes) ||
        !take_hex(root, "checkpoint_id", s->checkpoint_id) || !take_hex(root, "content_hash", s->content_hash) ||
        !take_key(root, "min_key", a, &s->min_key_json) || !take_key(root, "max_key", a, &s->max_key_json)) {
        sf_fail(err, SF_CORRUPT, "it is no record of a finished shard");
        return false;
    }
    if (!take_opening(sf__json_get(root, "opening"), a, &s->opening)) {
        sf_fail(err, SF_NOMEM, "record of a finished shard");
        return false;
    }
    if (!encoding || encoding->kind != SF_JSON_STRING || !sf__key_encoding_from_name(encoding->str, &found) ||
        found != r->options->key_encoding || compare_storage(r, sf__json_get(root, "stored_as"), &same, err) != SF_OK ||
        !same) {
        sf_fail(err, SF_UNSUPPORTED, "it is stored in another way than the options say");
        return false;
    }
    if (db_id != s->db_id || attempt != s->attempt || s->rows == 0) {
        sf_fail(err, SF_CORRUPT, "it is the record of another shard");
        return false;
    }
    return true;
}

static sf_status record_load(const sf_reuse *r, const char *name, const sf_cancel_flag *cancel, sf_built_shard *s,
                             sf_error *err)
{
    sf_site shards = *r->site; /* for a moment; it owns nothing */
    sf_buf *bytes = NULL;
    sf_json_doc doc;
    sf_status rc;

    shards.store = r->site->shard_store;
    rc = sf__site_get(&shards, name, SF_LIMIT_SHARD_RECORD_BYTES, cancel, &bytes, NULL, err);
    if (rc == SF_OK)
        rc = sf__json_parse(&doc, sf__buf_bytes(bytes), 0, r->site->rt->alloc, err);
    if (rc == SF_OK) {
        if (!record_decode(r, doc.root, s, err))
            rc = SF_CORRUPT;
        sf__json_cleanup(&doc);
    }
    sf__buf_release(bytes);
    return rc;
}

/* "shards/run_id=X/db=00000/attempt=", freed with sf__free(). */
static sf_status attempts_folder(const sf_reuse *r, uint32_t db_id, char **out, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    char *db_path;
    sf_status rc = sf__db_path_format(&db_path, r->options->db_path_template, db_id, a, err);

    if (rc != SF_OK)
        return rc;
    *out = sf__asprintf(a, "%s/run_id=%s/%s/attempt=", r->options->shard_prefix, r->run_id, db_path);
    sf__free(a, db_path);
    return *out ? SF_OK : sf_fail(err, SF_NOMEM, "shard %u: name of its folder", db_id);
}

/* One listed record, of an attempt whose objects are all there. */
static sf_status add_finished(const sf_reuse *r, uint32_t db_id, size_t index, uint64_t rows,
                              const sf_cancel_flag *cancel, sf_reusable *out, sf_error *err)
{
    const sf_allocator *a = r->site->rt->alloc;
    const char *key = r->earlier->listing.entries[index].key;
    sf_built_shard *s = &out->shards[out->count];
    char *folder = sf__strndup(a, key, strlen(key) - strlen(SF_FINISHED_RECORD_NAME));
    sf_error why = SF_ERROR_INIT;
    sf_bytes path;
    sf_status rc;

    if (!folder)
        return sf_fail(err, SF_NOMEM, "shard %u: earlier tries", db_id);
    *s = (sf_built_shard){.db_id = db_id, .reused = true};
    if (!sf__earlier_attempts_at(r->earlier, index, &path, &s->attempt)) {
        sf__free(a, folder);
        return SF_OK;
    }
    rc = record_load(r, key, cancel, s, &why);
    if (rc == SF_OK && sf__earlier_attempts_bytes(r->earlier, folder) < s->db_bytes)
        rc = sf_fail(&why, SF_NOT_FOUND, "objects of it are missing");
    if (rc == SF_OK) {
        folder[strlen(folder) - 1] = '\0';
        s->db_url = sf__site_url(r->site, folder);
        rc = s->db_url ? SF_OK : sf_fail(&why, SF_NOMEM, "shard %u: its URL", db_id);
    }
    sf__free(a, folder);
    if (rc == SF_OK && s->rows <= rows)
        out->count++;
    else
        sf__built_shard_cleanup(s, a);
    return go_on(r->site, rc, key, &why, err);
}

static sf_status find_finished(const sf_reuse *r, uint32_t db_id, uint64_t rows, const sf_cancel_flag *cancel,
                               sf_reusable *out, sf_error *err)
{
    const sf_store_listing *l = &r->earlier->listing;
    char *folder;
    size_t n, suffix = strlen("/" SF_FINISHED_RECORD_NAME);
    sf_status rc = attempts_folder(r, db_id, &folder, err);

    if (rc != SF_OK)
        return rc;
    n = strlen(folder);
    for (size_t i = sf__earlier_attempts_first(r->earlier, folder);
         i < l->entry_count && out->count < SF_REUSE_CANDIDATES && rc == SF_OK &&
         strncmp(l->entries[i].key, folder, n) == 0;
         i++) {
        const char *key = l->entries[i].key;
        size_t length = strlen(key);

        if (length > n + suffix && strcmp(key + length - suffix, "/" SF_FINISHED_RECORD_NAME) == 0)
            rc = add_finished(r, db_id, i, rows, cancel, out, err);
    }
    sf__free(r->site->rt->alloc, folder);
    return rc;
}

void sf__reuse_note(const sf_reuse *r, const sf_built_shard *s, const sf_cancel_flag *cancel)
{
    const sf_allocator *a = r->site->rt->alloc;
    sf_site shards = *r->site; /* for a moment; it owns nothing */
    sf_site_put put = {.content_type = "application/json", .create_only = true};
    sf_error e = SF_ERROR_INIT;
    char *folder = NULL, *name;
    sf_strbuf text;
    sf_status rc = sf__site_name_of(r->site, s->db_url, &folder, &e);

    shards.store = r->site->shard_store;
    name = folder ? sf__asprintf(a, "%s/" SF_FINISHED_RECORD_NAME, folder) : NULL;
    sf__strbuf_init(&text, a);
    sf__strbuf_printf(&text,
                      "{\"format_version\": 1, \"db_id\": %u, \"attempt\": %u, \"row_count\": %llu, \"db_bytes\": %llu, "
                      "\"min_key\": ",
                      s->db_id, s->attempt, (unsigned long long)s->rows, (unsigned long long)s->db_bytes);
    sf__strbuf_puts(&text, s->min_key_json ? s->min_key_json : "null");
    sf__strbuf_puts(&text, ", \"max_key\": ");
    sf__strbuf_puts(&text, s->max_key_json ? s->max_key_json : "null");
    sf__strbuf_printf(&text,
                      ", \"checkpoint_id\": \"%s\", \"content_hash\": \"%s\", \"key_encoding\": \"%s\", \"stored_as\": ",
                      s->checkpoint_id, s->content_hash, sf__key_encoding_name(r->options->key_encoding));
    sf__strbuf_puts(&text, r->stored_as);
    if (s->opening)
        sf__strbuf_printf(&text, ", \"opening\": \"%s\"", s->opening);
    sf__strbuf_putc(&text, '}');
    if (rc == SF_OK && (!name || text.failed))
        rc = sf_fail(&e, SF_NOMEM, "record of shard %u", s->db_id);
    if (rc == SF_OK) {
        put.name = name;
        put.body = sf_bytes_of(text.s, text.n);
        rc = sf__site_put(&shards, &put, cancel, NULL, &e);
    }
    if (rc != SF_OK && rc != SF_CANCELLED)
        sf__log(&r->site->rt->log, SF_LOG_WARN, "writer", "%s: a later try cannot resume from it: %s", s->db_url,
                e.message);
    sf__strbuf_cleanup(&text);
    sf__free(a, folder);
    sf__free(a, name);
}

/* ------------------------------------------------------------------ all ------------------------------------------ */

sf_status sf__reuse_open(sf_reuse *r, const sf_site *site, const sf_writer_options *options, const char *run_id,
                         const sf_earlier_attempts *earlier, const sf_cancel_flag *cancel, sf_error *err)
{
    sf_error why = SF_ERROR_INIT;
    sf_strbuf text;
    sf_status rc = SF_OK;

    *r = (sf_reuse){.options = options, .run_id = run_id, .earlier = earlier};
    if (!options->resume && !options->reuse_unchanged)
        return SF_OK;
    r->site = site;
    sf__strbuf_init(&text, site->rt->alloc);
    sf__strbuf_putc(&text, '{');
    sf__own_custom_write(&text, &(sf_own_custom){.backend = options->backend, .sqlite = options->sqlite});
    sf__strbuf_putc(&text, '}');
    r->stored_as = sf__strbuf_detach(&text);
    if (!r->stored_as)
        rc = sf_fail(err, SF_NOMEM, "reusing shards");
    if (rc == SF_OK && options->reuse_unchanged)
        rc = go_on(site, load_previous(r, cancel, &why), "the snapshot before", &why, err);
    if (rc != SF_OK)
        sf__reuse_close(r);
    return rc;
}

void sf__reuse_close(sf_reuse *r)
{
    if (!r->site)
        return;
    sf__content_hashes_cleanup(&r->hashes);
    sf__snapshot_manifest_free(r->previous);
    sf__free(r->site->rt->alloc, r->previous_ref);
    sf__free(r->site->rt->alloc, r->stored_as);
    *r = (sf_reuse){.site = NULL};
}

sf_status sf__reuse_find(const sf_reuse *r, uint32_t db_id, uint64_t rows, const sf_cancel_flag *cancel,
                         sf_reusable *out, sf_error *err)
{
    sf_error why = SF_ERROR_INIT;
    sf_status rc = SF_OK;

    out->count = 0;
    if (r->options->resume && r->earlier->listed)
        rc = find_finished(r, db_id, rows, cancel, out, err);
    if (rc == SF_OK && r->previous && out->count < SF_REUSE_CANDIDATES)
        rc = go_on(r->site, find_previous(r, db_id, rows, out, &why), "the snapshot before", &why, err);
    return rc;
}

/* Those of earlier tries were listed with all the others. */
static sf_status is_there(const sf_reuse *r, const sf_built_shard *s, const sf_cancel_flag *cancel, bool *there,
                          sf_error *err)
{
    uint64_t bytes = 0;
    sf_store_listing l;
    char *folder;
    sf_status rc;

    *there = !s->taken_from;
    if (*there)
        return SF_OK;
    rc = sf__site_name_of(r->site, s->db_url, &folder, err);
    if (rc != SF_OK || !folder)
        return rc;
    rc = sf__site_list(r->site, r->site->shard_store, folder, NULL, cancel, &l, err);
    sf__free(r->site->rt->alloc, folder);
    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < l.entry_count; i++)
        bytes += l.entries[i].size;
    *there = l.entry_count > 0 && bytes >= s->db_bytes;
    sf__store_listing_cleanup(&l);
    return *there ? SF_OK : sf_fail(err, SF_NOT_FOUND, "objects of it are missing");
}

sf_status sf__reuse_take(const sf_reuse *r, sf_reusable *from, const char *content_hash, const sf_cancel_flag *cancel,
                         sf_built_shard *out, sf_error *err)
{
    for (size_t i = 0; i < from->count; i++) {
        sf_built_shard *s = &from->shards[i];
        sf_error why = SF_ERROR_INIT;
        bool there = false;
        sf_status rc;

        if (strcmp(s->content_hash, content_hash) != 0)
            continue;
        rc = go_on(r->site, is_there(r, s, cancel, &there, &why), s->db_url, &why, err);
        if (rc != SF_OK)
            return rc;
        if (there) {
            *out = *s;
            *s = (sf_built_shard){0};
            return SF_OK;
        }
    }
    return SF_OK;
}

void sf__reusable_cleanup(sf_reusable *f, const sf_allocator *a)
{
    for (size_t i = 0; i < f->count; i++)
        sf__built_shard_cleanup(&f->shards[i], a);
    f->count = 0;
}
