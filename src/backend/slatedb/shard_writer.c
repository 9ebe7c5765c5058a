#include "backend/slatedb/shard_writer.h"

#include <string.h>

#include "backend/slatedb/format/opening_record.h"
#include "backend/slatedb/format/slatedb_manifest_write.h"
#include "backend/slatedb/names.h"
#include "backend/slatedb/sst_writer.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/error.h"
#include "base/grow.h"
#include "base/limits.h"

/* Names. The same rows and options give the same files under the same names, whatever the input's order, the number of
 * threads, or the time. So nothing here comes from a clock or a random generator:
 *
 *   SST         ULID of a fixed time; its 80 free bits are a hash of the options, the SST's number in the run, and all
 *               rows up to and with its first block. (A name is needed when its upload begins, before the last row is
 *               known.) Two SSTs of a shard differ in their number; a path that holds anything is refused, so SSTs of
 *               two builds never lie side by side.
 *   checkpoint  UUID from a hash of the options and all rows, so it changes with the content; fixed creation time. */
#define FIXED_TIME_S UINT32_C(1577836800) /* 2020-01-01: plausible, and before any writer that may come after us */
#define CHECKPOINT_NAME "shardyfusion"
#define NAMES_VERSION 1u
#define CONTENT_TYPE "application/octet-stream"

#define MAX_KEY_BYTES 65535u                                /* of SlateDB 0.12 and 0.13 */
#define MAX_VALUE_BYTES (SF_LIMIT_BLOCK_BYTES - (1u << 20)) /* with its key it is a block that readers take */
#define SST_BYTES_MIN (UINT64_C(64) << 10)
#define SST_BYTES_MAX (UINT64_C(1) << 30)
#define CLEANUP_TIMEOUT_MS 30000
#define DELETE_BATCH 1000u

struct stored_sst {
    sf_built_sst built;
    sf_buf *keys; /* the info's */
    char *object;
    uint64_t size;
    bool ours; /* no other writer can have stored it */
};

/* What is known of manifest 1. Once it was sent it may exist; when it is somebody else's, so may be all other
 * objects. */
enum manifest_fate { MANIFEST_NOT_SENT, MANIFEST_SENT, MANIFEST_FOREIGN };

struct slatedb_writer {
    sf_shard_writer base;
    sf_slatedb_writer_options opts;
    sf_sst_writer sst;
    sf_upload *upload; /* of the SST that is being written; NULL before its first block */
    struct stored_sst current;
    struct stored_sst *ssts; /* stored */
    size_t count, cap;
    char *manifest;
    sf_buf *sent; /* as manifest */
    enum manifest_fate fate;
};

static struct slatedb_writer *writer_of(sf_shard_writer *w)
{
    return sf_container_of(w, struct slatedb_writer, base);
}

/* ------------------------------------------------------------------ names ---------------------------------------- */

/* Of the options, `what`, `number`, and the rows so far. */
static sf_hash128 name_hash(const struct slatedb_writer *w, uint8_t what, uint64_t number)
{
    sf_hash128 rows = sf__content_hash_value(&w->base.hash);
    uint8_t b[64] = {NAMES_VERSION, what, (uint8_t)w->opts.codec};

    sf_store_le(b + 4, 4, w->opts.block_bytes);
    sf_store_le(b + 8, 4, w->opts.bits_per_key);
    sf_store_le(b + 12, 4, w->opts.min_filter_keys);
    sf_store_le(b + 16, 8, w->opts.sst_bytes);
    sf_store_le(b + 24, 8, number);
    sf_store_le(b + 32, 8, w->base.rows);
    sf_store_le(b + 40, 8, rows.hi);
    sf_store_le(b + 48, 8, rows.lo);
    return sf__xxh3_128(sf_bytes_of(b, sizeof(b)));
}

static sf_id128 sst_ulid(const struct slatedb_writer *w)
{
    sf_hash128 h = name_hash(w, 's', w->count);

    return (sf_id128){(uint64_t)FIXED_TIME_S * 1000 << 16 | (h.hi & 0xffff), h.lo};
}

/* Marked as version 4, variant 1, which is what SlateDB writes. */
static sf_id128 checkpoint_uuid(const struct slatedb_writer *w)
{
    sf_hash128 h = name_hash(w, 'c', w->count);

    return (sf_id128){(h.hi & ~UINT64_C(0xf000)) | 0x4000, (h.lo & ~(UINT64_C(3) << 62)) | UINT64_C(2) << 62};
}

static char *sst_object(const struct slatedb_writer *w, sf_id128 ulid)
{
    char text[SF_ULID_TEXT_LEN + 1];

    sf__ulid_format(ulid, text);
    return sf__asprintf(w->base.rt->alloc, "%s%scompacted/%s.sst", w->base.path, w->base.path[0] ? "/" : "", text);
}

/* ------------------------------------------------------------------ SSTs ----------------------------------------- */

static void stored_sst_cleanup(struct stored_sst *s, const sf_allocator *a)
{
    sf__buf_release(s->keys);
    sf__free(a, s->object);
    *s = (struct stored_sst){0};
}

/* The sink of the SST writer; the first bytes of an SST open its upload. */
static sf_status sst_write(void *ctx, sf_bytes bytes, sf_error *err)
{
    struct slatedb_writer *w = ctx;
    sf_status rc = SF_OK;

    if (!w->upload) {
        w->current.built.ulid = sst_ulid(w);
        w->current.object = sst_object(w, w->current.built.ulid);
        if (!w->current.object)
            return sf_fail(err, SF_NOMEM, "object name");
        rc = sf__upload_open(&w->upload, w->base.store, w->current.object, CONTENT_TYPE, &w->base.upload, err);
    }
    return rc == SF_OK ? sf__upload_append(w->upload, bytes, err) : rc;
}

static sf_status ssts_reserve(struct slatedb_writer *w, sf_error *err)
{
    return SF_RESERVE(w->base.rt->alloc, &w->ssts, &w->cap, w->count + 1) ? SF_OK
                                                                          : sf_fail(err, SF_NOMEM, "%zu SSTs", w->count);
}

static sf_status sst_finish(struct slatedb_writer *w, sf_error *err)
{
    struct stored_sst *s = &w->current;
    sf_upload_result stored;
    sf_status rc = ssts_reserve(w, err);

    if (rc == SF_OK)
        rc = sf__sst_writer_finish(&w->sst, &s->built.info, &s->keys, &s->size, err);
    if (rc == SF_OK)
        rc = sf__upload_finish(w->upload, &stored, err);
    if (rc != SF_OK)
        return rc;
    s->ours = stored.ours;
    sf__upload_free(w->upload);
    w->upload = NULL;
    w->ssts[w->count++] = *s;
    *s = (struct stored_sst){0};
    return SF_OK;
}

static sf_status prefix_shard(const struct slatedb_writer *w, sf_status rc, sf_error *err)
{
    return rc == SF_OK ? rc : sf_error_prefix(err, rc, "%s: ", sf__shard_label(w->base.db_id).text);
}

static sf_status slatedb_add(sf_shard_writer *base, sf_bytes key, sf_bytes value, sf_error *err)
{
    struct slatedb_writer *w = writer_of(base);
    bool full;
    sf_status rc = sf__sst_writer_add(&w->sst, key, value, &full, err);

    if (rc == SF_OK && full) {
        rc = sst_finish(w, err);
        if (rc == SF_OK)
            rc = sf__sst_writer_add(&w->sst, key, value, &full, err);
    }
    return prefix_shard(w, rc, err);
}

/* ------------------------------------------------------------------ manifest ------------------------------------- */

static sf_store_op new_op(const struct slatedb_writer *w, sf_store_verb verb, const char *key, int64_t timeout_ms)
{
    return (sf_store_op){
        .verb = verb,
        .key = key,
        .deadline_ns = sf__deadline_in_ms(timeout_ms),
    };
}

/* Whether the stored manifest is the one that was sent: *same. */
static sf_status manifest_compare(struct slatedb_writer *w, int64_t timeout_ms, const sf_cancel_flag *cancel, bool *same)
{
    sf_store_op op = new_op(w, SF_STORE_GET, w->manifest, timeout_ms);
    sf_status rc;

    op.len = SF_STORE_ALL;
    op.max_bytes = SF_LIMIT_SLATEDB_MANIFEST_BYTES;
    rc = sf__store_wait(w->base.store, &op, cancel, NULL);
    *same = rc == SF_OK && sf_bytes_eq(sf__buf_bytes(op.data), sf__buf_bytes(w->sent));
    sf__store_op_cleanup(&op, w->base.rt->alloc);
    return rc;
}

/* The last object, and the one that makes the database. A PUT whose answer was lost finds itself there when it is tried
 * again. The same bytes without that are of another writer of the same rows to the same place: what he has stored must
 * not become ours to take back. */
static sf_status manifest_put(struct slatedb_writer *w, sf_error *err)
{
    sf_store_op op = new_op(w, SF_STORE_PUT, w->manifest, w->base.upload.timeout_ms);
    bool same = false;
    sf_status rc;

    op.body = sf__buf_bytes(w->sent);
    op.content_type = CONTENT_TYPE;
    op.create_only = true;
    w->fate = MANIFEST_SENT;
    rc = sf__store_wait(w->base.store, &op, w->base.upload.cancel, err);
    sf__store_op_cleanup(&op, w->base.rt->alloc);
    if (rc == SF_CONFLICT && op.may_be_ours)
        (void)manifest_compare(w, w->base.upload.timeout_ms, w->base.upload.cancel, &same);
    if (rc == SF_CONFLICT && !same)
        w->fate = MANIFEST_FOREIGN;
    return same ? SF_OK : rc;
}

/* The manifest, and what spares readers to look at it, as far as that can be told. */
static sf_status manifest_encode(struct slatedb_writer *w, sf_id128 checkpoint, sf_buf **record, sf_error *err)
{
    const sf_allocator *a = w->base.rt->alloc;
    sf_built_sst *ssts = sf__alloc(a, w->count * sizeof(*ssts));
    sf_built_database db = {
        .ssts = ssts,
        .sst_count = w->count,
        .checkpoint = checkpoint,
        .checkpoint_create_s = FIXED_TIME_S,
        .checkpoint_name = CHECKPOINT_NAME,
    };
    sf_status rc;

    if (!ssts)
        return sf_fail(err, SF_NOMEM, "manifest of %zu SSTs", w->count);
    for (size_t i = 0; i < w->count; i++)
        ssts[i] = w->ssts[i].built;
    rc = sf__slatedb_manifest_encode(&w->sent, &db, a, err);
    if (rc == SF_OK)
        rc = sf__opening_record_encode(record, &db, w->sent->n, a, err);
    sf__free(a, ssts);
    return rc;
}

static sf_status slatedb_finish(sf_shard_writer *base, sf_shard_result *result, sf_error *err)
{
    struct slatedb_writer *w = writer_of(base);
    sf_id128 checkpoint;
    sf_status rc = sf__sst_writer_is_empty(&w->sst) ? SF_OK : sst_finish(w, err);

    if (rc == SF_OK) {
        checkpoint = checkpoint_uuid(w);
        rc = manifest_encode(w, checkpoint, &result->opening, err);
    }
    if (rc == SF_OK)
        rc = manifest_put(w, err);
    if (rc == SF_OK) {
        sf__uuid_format(checkpoint, result->checkpoint_id);
        result->object_count = w->count + 1;
        result->stored_bytes = w->sent->n;
        for (size_t i = 0; i < w->count; i++)
            result->stored_bytes += w->ssts[i].size;
    }
    return prefix_shard(w, rc, err);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

/* Whether the manifest that is stored, if one is, may go. Another writer of the same rows would have met the SSTs that are
 * ours, and gone elsewhere; one of other rows has another manifest, to which this folder belongs then. */
static bool manifest_is_ours(struct slatedb_writer *w, bool *stored)
{
    sf_status rc = manifest_compare(w, CLEANUP_TIMEOUT_MS, NULL, stored);
    bool ours = false;

    for (size_t i = 0; i < w->count; i++)
        ours |= w->ssts[i].ours;
    return rc == SF_NOT_FOUND || (*stored && ours);
}

/* The manifest first: no database is ever there whose SSTs are gone. As far as that works, and of what is ours alone. */
static void take_back(struct slatedb_writer *w)
{
    const sf_allocator *a = w->base.rt->alloc;
    const char *keys[DELETE_BATCH];
    bool stored = false;
    sf_error ignored;
    sf_store_op op;

    if (w->fate == MANIFEST_SENT && !manifest_is_ours(w, &stored))
        return;
    if (stored) {
        op = new_op(w, SF_STORE_DELETE, w->manifest, CLEANUP_TIMEOUT_MS);
        op.tidy = true;
        if (sf__store_wait(w->base.store, &op, NULL, &ignored) != SF_OK)
            return;
        sf__store_op_cleanup(&op, a);
    }
    for (size_t i = 0; i < w->count;) {
        size_t n = 0;

        for (; n < DELETE_BATCH && i < w->count; i++)
            if (w->ssts[i].ours)
                keys[n++] = w->ssts[i].object;
        if (n == 0)
            return;
        op = new_op(w, SF_STORE_DELETE_MANY, w->base.path, CLEANUP_TIMEOUT_MS);
        op.keys = keys;
        op.key_count = n;
        op.tidy = true;
        if (sf__store_wait(w->base.store, &op, NULL, &ignored) != SF_OK)
            return;
        sf__store_op_cleanup(&op, a);
    }
}

static void slatedb_free(sf_shard_writer *base, bool finished)
{
    struct slatedb_writer *w = writer_of(base);
    const sf_allocator *a = base->rt->alloc;
    sf_runtime *rt = sf__runtime_ref(base->rt); /* the allocator lives that long */

    sf__upload_free(w->upload);
    if (!finished && w->fate != MANIFEST_FOREIGN)
        take_back(w);
    for (size_t i = 0; i < w->count; i++)
        stored_sst_cleanup(&w->ssts[i], a);
    stored_sst_cleanup(&w->current, a);
    sf__free(a, w->ssts);
    sf__free(a, w->manifest);
    sf__buf_release(w->sent);
    sf__sst_writer_cleanup(&w->sst);
    sf__shard_writer_fini(base);
    sf__free(a, w);
    sf__runtime_unref(rt);
}

static sf_status check_options(const sf_slatedb_writer_options *o, sf_error *err)
{
    if (o->codec < SF_CODEC_NONE || o->codec > SF_CODEC_ZSTD)
        return sf_fail(err, SF_INVALID, "unknown codec %d", (int)o->codec);
    if (o->block_bytes < SF_BLOCK_BYTES_MIN || o->block_bytes > SF_BLOCK_BYTES_MAX)
        return sf_fail(err, SF_INVALID, "blocks of %u bytes are not within %u to %u", o->block_bytes,
                       SF_BLOCK_BYTES_MIN, SF_BLOCK_BYTES_MAX);
    if (o->bits_per_key == 0 || o->bits_per_key > SF_FILTER_BITS_PER_KEY_MAX)
        return sf_fail(err, SF_INVALID, "%u filter bits per key are not within 1 to %u", o->bits_per_key,
                       SF_FILTER_BITS_PER_KEY_MAX);
    if (o->sst_bytes < SST_BYTES_MIN || o->sst_bytes > SST_BYTES_MAX)
        return sf_fail(err, SF_INVALID, "SSTs of %llu bytes are not within %llu to %llu",
                       (unsigned long long)o->sst_bytes, (unsigned long long)SST_BYTES_MIN,
                       (unsigned long long)SST_BYTES_MAX);
    return SF_OK;
}

static sf_status check_empty(const struct slatedb_writer *w, sf_error *err)
{
    const sf_allocator *a = w->base.rt->alloc;
    char *prefix = sf__asprintf(a, "%s%s", w->base.path, w->base.path[0] ? "/" : "");
    sf_store_listing l = {
        .store = w->base.store,
        .prefix = prefix,
        .deadline_ns = sf__deadline_in_ms(w->base.upload.timeout_ms),
        .max_pages = 1,
    };
    sf_status rc;

    if (!prefix)
        return sf_fail(err, SF_NOMEM, "object name");
    rc = sf__store_list_wait(&l, w->base.upload.cancel, err);
    if (rc == SF_OK && l.entry_count > 0)
        rc = sf_fail(err, SF_CONFLICT, "%s is not empty: %s/%s is there", w->base.url, w->base.store->url,
                     l.entries[0].key);
    sf__store_listing_cleanup(&l);
    sf__free(a, prefix);
    return rc;
}

sf_status sf__slatedb_shard_writer_open(sf_shard_writer **out, const sf_shard_target *target,
                                        const sf_slatedb_writer_options *opts, sf_error *err)
{
    static const sf_shard_writer_vtable vtable = {slatedb_add, slatedb_finish, slatedb_free};
    const sf_allocator *a = target->rt->alloc;
    struct slatedb_writer *w;
    sf_status rc = check_options(opts, err);

    if (rc != SF_OK)
        return rc;
    w = sf__calloc(a, 1, sizeof(*w));
    if (!w)
        return sf_fail(err, SF_NOMEM, "%s: writer", sf__shard_label(target->db_id).text);
    rc = sf__shard_writer_init(&w->base, &vtable, target, MAX_KEY_BYTES, MAX_VALUE_BYTES, err);
    if (rc != SF_OK) {
        sf__free(a, w);
        return rc;
    }
    w->opts = *opts;
    w->base.upload.create_only = true; /* another writer of the same rows gives his SSTs the same names */
    w->manifest = sf__db_object_key(w->base.path, SF_DB_MANIFEST, 1, a);
    rc = w->manifest ? sf__sst_writer_init(&w->sst, opts, sst_write, w, a, err) : sf_fail(err, SF_NOMEM, "object name");
    if (rc == SF_OK)
        rc = check_empty(w, err);
    if (rc != SF_OK) {
        slatedb_free(&w->base, false);
        return sf_error_prefix(err, rc, "%s: ", sf__shard_label(target->db_id).text);
    }
    *out = &w->base;
    return SF_OK;
}
