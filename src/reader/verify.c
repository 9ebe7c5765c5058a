/* Verifying one shard: what its backend finds in the objects, and what its rows are against the snapshot's
 * manifest. */
#include <stdio.h>

#include "backend/shard_check.h"
#include "backend/shard_writer.h"
#include "base/container.h"
#include "base/error.h"
#include "base/json.h"
#include "base/options.h"
#include "reader/snapshot.h"
#include "snapshot/content_hashes.h"

#define ROWS_AT_A_TIME 1000
#define BYTES_PER_REPORT (UINT64_C(8) << 20)
#define ROWS_PER_REPORT 100000u

struct verify_call {
    sf_shard_check check; /* first */
    const sf_snapshot *snap;
    uint32_t db_id;
    sf_verify_options opts;
    sf_verify_result *result;
    sf_cancel_flag cancelled;
    uint64_t told_bytes, told_rows; /* of them the caller knows */
    /* rows */
    char wanted[33]; /* content hash; empty: the manifest tells none */
    sf_content_hash hash;
    bool misplaced; /* told of one */
    sf_buf *first;  /* key of the first row */
    uint8_t *last;  /* and of the last one */
    size_t last_len, last_cap;
    bool no_memory; /* for them */
};

/* ------------------------------------------------------------------ telling --------------------------------------- */

static void found(sf_shard_check *c, const sf_error *e, uint64_t off)
{
    struct verify_call *v = sf_container_of(c, struct verify_call, check);
    sf_damage d = {.error = *e, .offset = off};

    d.error.db_id = (int32_t)v->db_id;
    v->result->damages++;
    if (v->opts.found)
        v->opts.found(v->opts.ctx, &d);
}

/* Something is wrong with the shard as a whole. */
static void found_of_shard(struct verify_call *v, sf_status rc, sf_error *e)
{
    const sf_manifest_shard *row = sf__snapshot_row(v->snap, v->db_id);
    const sf_shard *shard = v->snap->shards[v->db_id];

    e->code = rc;
    if (e->object[0] == '\0')
        sf_error_object(e, row && row->db_url ? row->db_url : shard ? shard->url : v->snap->manifest_ref);
    found(&v->check, e, SF_NO_OFFSET);
    sf_error_clear(e);
}

static void report(struct verify_call *v, bool now)
{
    uint64_t bytes = v->result->bytes - v->told_bytes, rows = v->result->rows - v->told_rows;

    if (!now && bytes < BYTES_PER_REPORT && rows < ROWS_PER_REPORT)
        return;
    v->told_bytes = v->result->bytes;
    v->told_rows = v->result->rows;
    if (v->opts.progress && !v->opts.progress(v->opts.ctx, bytes, rows))
        atomic_store_explicit(&v->cancelled, true, memory_order_relaxed);
}

static void was_read(sf_shard_check *c, uint64_t bytes)
{
    struct verify_call *v = sf_container_of(c, struct verify_call, check);

    v->result->bytes += bytes;
    report(v, false);
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

/* A shard on its own has no rule; nor can one be followed that asks for more than the key. */
static bool belongs_elsewhere(const struct verify_call *v, sf_bytes stored, uint32_t *home)
{
    sf_key key;

    return v->snap->manifest && sf__key_decode(v->snap->manifest->key_encoding, stored, &key, NULL) == SF_OK &&
           sf__router_route(&v->snap->router, &key, home, NULL) == SF_OK && *home != v->db_id;
}

static void tell_misplaced(struct verify_call *v, uint32_t home)
{
    sf_error e = SF_ERROR_INIT; /* of more than a kilobyte: not for every row */

    sf_fail(&e, SF_CORRUPT, "the key of row %llu belongs to shard %u", (unsigned long long)v->result->rows, home);
    found_of_shard(v, SF_CORRUPT, &e);
    v->misplaced = true;
}

static void keep_first(struct verify_call *v, sf_bytes key)
{
    sf__buf_release(v->first);
    v->first = sf__buf_copy(v->snap->alloc, key);
    v->no_memory |= !v->first;
}

static void keep_last(struct verify_call *v, sf_bytes key)
{
    if (key.n > v->last_cap) {
        size_t cap = 2 * key.n;
        uint8_t *grown = sf__realloc(v->snap->alloc, v->last, cap);

        v->no_memory |= !grown;
        if (!grown)
            return;
        v->last = grown;
        v->last_cap = cap;
    }
    if (key.n > 0)
        memcpy(v->last, key.p, key.n);
    v->last_len = key.n;
}

static void row(sf_shard_check *c, sf_bytes key, sf_bytes value)
{
    struct verify_call *v = sf_container_of(c, struct verify_call, check);
    uint32_t home;

    if (v->result->rows++ == 0)
        keep_first(v, key);
    keep_last(v, key);
    if (v->wanted[0])
        sf__content_hash_add(&v->hash, key, value);
    if (!v->misplaced && belongs_elsewhere(v, key, &home))
        tell_misplaced(v, home);
    if (v->result->rows % ROWS_PER_REPORT == 0)
        report(v, false);
}

static bool follows(sf_bytes key, const sf_buf *last)
{
    return !last || sf_bytes_cmp(key, sf__buf_bytes(last)) > 0;
}

static sf_status scan_rows(struct verify_call *v, sf_scan *scan, sf_error *err)
{
    sf_buf *last = NULL;
    const sf_row *rows;
    size_t count;
    sf_status rc;

    while ((rc = sf_scan_next(scan, ROWS_AT_A_TIME, v->opts.timeout_ms, &rows, &count, err)) == SF_OK && count > 0) {
        for (size_t i = 0; i < count; i++) {
            if (rc == SF_OK && !(i > 0 ? sf_bytes_cmp(rows[i].key, rows[i - 1].key) > 0 : follows(rows[i].key, last)))
                rc = sf_fail(err, SF_CORRUPT, "the key of row %llu does not follow the one before",
                             (unsigned long long)v->result->rows + 1);
            row(&v->check, rows[i].key, rows[i].value);
        }
        sf__buf_release(last);
        last = sf__buf_copy(v->snap->alloc, rows[count - 1].key);
        if (!last)
            rc = sf_fail(err, SF_NOMEM, "key of a row");
        else if (rc == SF_OK && sf__is_cancelled(&v->cancelled))
            rc = sf_fail(err, SF_CANCELLED, "cancelled");
        if (rc != SF_OK)
            break;
    }
    sf__buf_release(last);
    return rc;
}

/* *whole: all rows were seen. */
static sf_status read_rows(struct verify_call *v, bool *whole, sf_error *err)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_scan *scan;
    sf_status rc;

    v->result->rows = v->told_rows = 0; /* of the objects, perhaps hidden by others */
    o.db_id = v->db_id;
    rc = sf_scan_open(&scan, (sf_snapshot *)v->snap, &o, err);
    if (rc != SF_OK)
        return rc;
    rc = scan_rows(v, scan, err);
    sf_scan_close(scan);
    *whole = rc == SF_OK;
    if (sf__is_damage(rc) && v->result->damages == 0) /* else that is where it stopped */
        found_of_shard(v, rc, err);
    if (rc != SF_MERGE_OPERATOR && !sf__is_damage(rc))
        return rc;
    sf_error_clear(err);
    return SF_OK;
}

/* ------------------------------------------------------------------ against the manifest -------------------------- */

static sf_status find_wanted(struct verify_call *v, sf_error *err)
{
    sf_content_hashes told;
    sf_status rc = sf__content_hashes_init(&told, v->snap->manifest, v->snap->alloc, err);
    sf_bytes one;

    if (rc != SF_OK)
        return rc;
    one = sf__content_hashes_of(&told, v->db_id);
    if (one.n > 0)
        memcpy(v->wanted, one.p, 32);
    sf__content_hashes_cleanup(&told);
    return SF_OK;
}

/* Whether a key of the manifest, as JSON, is this one: an integer, or a text. What cannot be told is no damage. */
static bool is_key(const struct verify_call *v, const char *json, sf_bytes stored)
{
    sf_key_encoding encoding = v->snap->manifest->key_encoding;
    bool number = encoding == SF_KEY_U64BE || encoding == SF_KEY_U32BE, same = true;
    sf_json_doc doc;
    char text[24];

    if (!json || sf__json_parse(&doc, sf_bytes_str(json), SF_JSON_LONE_SURROGATES, v->snap->alloc, NULL) != SF_OK)
        return true;
    if (doc.root->kind == SF_JSON_INT && number && stored.n <= 8) {
        snprintf(text, sizeof(text), "%llu", (unsigned long long)sf_load_be(stored.p, stored.n));
        same = sf_bytes_eq(doc.root->raw, sf_bytes_str(text));
    } else if (doc.root->kind == SF_JSON_STRING && !number) {
        same = sf_bytes_eq(doc.root->str, stored);
    }
    sf__json_cleanup(&doc);
    return same;
}

static void compare_keys(struct verify_call *v, const sf_manifest_shard *m)
{
    sf_bytes last = {v->last, v->last_len};
    sf_error e = SF_ERROR_INIT;

    if (v->result->rows == 0)
        return;
    if (!is_key(v, m->min_key_json, sf__buf_bytes(v->first)))
        sf_fail(&e, SF_CORRUPT, "its lowest key is another one than the manifest says: %s", m->min_key_json);
    else if (!is_key(v, m->max_key_json, last))
        sf_fail(&e, SF_CORRUPT, "its highest key is another one than the manifest says: %s", m->max_key_json);
    if (e.code != SF_OK)
        found_of_shard(v, SF_CORRUPT, &e);
}

static void compare(struct verify_call *v)
{
    const sf_manifest_shard *m = sf__snapshot_row(v->snap, v->db_id);
    sf_error e = SF_ERROR_INIT;
    char got[33];
    sf_hash128 h;

    if (!m)
        return;
    if (v->result->rows > m->row_count || (v->wanted[0] && v->result->rows != m->row_count)) {
        sf_fail(&e, SF_CORRUPT, "it has %llu rows, the manifest says %llu", (unsigned long long)v->result->rows,
                (unsigned long long)m->row_count);
        found_of_shard(v, SF_CORRUPT, &e);
    } else if (v->wanted[0]) {
        h = sf__content_hash_value(&v->hash);
        snprintf(got, sizeof(got), "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
        v->result->hashed = strcmp(got, v->wanted) == 0;
        if (!v->result->hashed) {
            sf_fail(&e, SF_CORRUPT, "its rows have the content hash %s, the manifest says %s", got, v->wanted);
            found_of_shard(v, SF_CORRUPT, &e);
        }
    }
    compare_keys(v, m);
}

/* ------------------------------------------------------------------ all of it ------------------------------------- */

/* Looking for a key that hardly any shard has: by ranges and filter, most often. */
static sf_status open_shard(struct verify_call *v, sf_error *err)
{
    sf_bytes none = {(const uint8_t *)"", 0};
    sf_call *call;
    sf_status rc =
        sf_snapshot_get_start(&call, (sf_snapshot *)v->snap, v->db_id, &none, 1, v->opts.timeout_ms, NULL, NULL, err);

    if (rc != SF_OK)
        return rc;
    rc = sf_call_wait(call, err);
    sf_call_release(call);
    return rc;
}

static sf_status check_rows(struct verify_call *v, sf_error *err)
{
    bool whole = v->check.shows_rows && v->result->damages == 0;
    sf_status rc = SF_OK;

    if (!v->check.shows_rows && v->wanted[0]) { /* begins anew */
        sf__content_hash_cleanup(&v->hash);
        if (!sf__content_hash_init(&v->hash, v->snap->alloc))
            return sf_fail(err, SF_NOMEM, "content hash");
    }
    if (!v->check.shows_rows)
        rc = read_rows(v, &whole, err);
    if (rc == SF_OK && v->no_memory)
        return sf_fail(err, SF_NOMEM, "key of a row");
    if (rc == SF_OK && whole)
        compare(v);
    return rc;
}

static sf_status verify(struct verify_call *v, sf_error *err)
{
    sf_shard *shard = v->snap->shards[v->db_id];
    const sf_manifest_shard *m = sf__snapshot_row(v->snap, v->db_id);
    sf_status rc;

    if (!shard) {
        if (m && m->row_count > 0) {
            rc = sf_fail(err, SF_BAD_MANIFEST, "the manifest says that it has %llu rows, and names no database",
                         (unsigned long long)m->row_count);
            found_of_shard(v, rc, err);
        }
        return SF_OK;
    }
    rc = open_shard(v, err);
    if (sf__is_damage(rc)) {
        found_of_shard(v, rc, err);
        return SF_OK;
    }
    if (rc == SF_OK && shard->vtable->check)
        rc = shard->vtable->check(shard, &v->check, err);
    v->result->objects = v->check.objects;
    return rc == SF_OK && v->opts.deep ? check_rows(v, err) : rc;
}

static sf_status prepare(struct verify_call *v, const sf_verify_options *opts, sf_error *err)
{
    sf_status rc = sf__runtime_check_may_wait(v->snap->rt, err);

    if (rc == SF_OK)
        rc = sf__options_take(&v->opts, sizeof(v->opts), opts, "verify options", err);
    if (rc == SF_OK && v->db_id >= v->snap->num_dbs)
        rc = sf_fail(err, SF_INVALID, "shard %u does not exist: the snapshot has %u", v->db_id, v->snap->num_dbs);
    if (rc != SF_OK)
        return rc;
    v->check.deep = v->opts.deep;
    v->check.timeout_ms = v->opts.timeout_ms;
    if (v->opts.deep)
        rc = find_wanted(v, err);
    if (rc != SF_OK)
        return rc;
    if (v->wanted[0] && !sf__content_hash_init(&v->hash, v->snap->alloc))
        return sf_fail(err, SF_NOMEM, "content hash");
    return SF_OK;
}

sf_status sf_snapshot_verify_shard(sf_snapshot *s, uint32_t db_id, const sf_verify_options *opts,
                                   sf_verify_result *result, sf_error *err)
{
    struct verify_call v = {.check = {.found = found, .row = row, .read = was_read, .cancel = &v.cancelled},
                            .snap = s,
                            .db_id = db_id,
                            .opts = SF_VERIFY_OPTIONS_INIT,
                            .result = result};
    sf_error local = SF_ERROR_INIT, *e = err ? err : &local;
    sf_status rc;

    *result = (sf_verify_result){0};
    atomic_init(&v.cancelled, false);
    rc = prepare(&v, opts, e);
    if (rc == SF_OK && sf__snapshot_row(s, db_id))
        v.check.db_bytes = sf__snapshot_row(s, db_id)->db_bytes;
    if (rc == SF_OK) {
        rc = verify(&v, e);
        report(&v, true);
    }
    sf__content_hash_cleanup(&v.hash);
    sf__buf_release(v.first);
    sf__free(s->alloc, v.last);
    return rc;
}
