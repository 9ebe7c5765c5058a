#include "backend/shard_writer.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

/* ------------------------------------------------------------------ content hash --------------------------------- */

bool sf__content_hash_init(sf_content_hash *h, const sf_allocator *a)
{
    return sf__hasher_init(&h->hasher, a);
}

void sf__content_hash_add(sf_content_hash *h, sf_bytes key, sf_bytes value)
{
    uint8_t lengths[8];

    sf_store_le(lengths, 4, key.n);
    sf_store_le(lengths + 4, 4, value.n);
    sf__hasher_add(&h->hasher, sf_bytes_of(lengths, sizeof(lengths)));
    sf__hasher_add(&h->hasher, key);
    sf__hasher_add(&h->hasher, value);
}

sf_hash128 sf__content_hash_value(const sf_content_hash *h)
{
    return sf__hasher_value(&h->hasher);
}

void sf__content_hash_cleanup(sf_content_hash *h)
{
    sf__hasher_cleanup(&h->hasher);
}

/* ------------------------------------------------------------------ life ----------------------------------------- */

sf_shard_label sf__shard_label(int32_t db_id)
{
    sf_shard_label l = {"the database"};

    if (db_id >= 0)
        snprintf(l.text, sizeof(l.text), "shard %d", db_id);
    return l;
}

sf_status sf__shard_writer_init(sf_shard_writer *w, const sf_shard_writer_vtable *vtable, const sf_shard_target *target,
                                size_t max_key_bytes, size_t max_value_bytes, sf_error *err)
{
    const sf_allocator *a = target->rt->alloc;

    *w = (sf_shard_writer){
        .vtable = vtable,
        .db_id = target->db_id,
        .min_key_bytes = 1,
        .max_key_bytes = max_key_bytes,
        .max_value_bytes = max_value_bytes,
        .upload = target->upload,
    };
    w->path = sf__strdup(a, target->path);
    w->url = sf__strdup(a, target->url);
    w->last_key = sf__buf_new(a, 64);
    if (w->last_key)
        w->last_key->n = 0;
    w->rt = sf__runtime_ref(target->rt);
    w->store = sf__store_acquire(target->store);
    if (w->path && w->url && w->last_key && sf__content_hash_init(&w->hash, a))
        return SF_OK;
    sf__shard_writer_fini(w);
    return sf_fail(err, SF_NOMEM, "%s: writer", sf__shard_label(target->db_id).text);
}

void sf__shard_writer_fini(sf_shard_writer *w)
{
    const sf_allocator *a = w->rt->alloc;

    sf__content_hash_cleanup(&w->hash);
    sf__buf_release(w->min_key);
    sf__buf_release(w->last_key);
    sf__free(a, w->path);
    sf__free(a, w->url);
    sf__store_release(w->store);
    sf__runtime_unref(w->rt);
}

sf_status sf__shard_target_check_free(const sf_shard_target *target, sf_error *err)
{
    const sf_allocator *a = target->rt->alloc;
    char *prefix = sf__asprintf(a, "%s/", target->path);
    sf_store_listing l = {
        .store = target->store,
        .prefix = prefix,
        .deadline_ns = sf__deadline_in_ms(target->upload.timeout_ms),
        .max_pages = 1,
    };
    sf_status rc;

    if (!prefix)
        return sf_fail(err, SF_NOMEM, "%s: path", sf__shard_label(target->db_id).text);
    rc = sf__store_list_wait(&l, target->upload.cancel, err);
    if (rc == SF_OK && l.entry_count > 0)
        rc = sf_fail(err, SF_CONFLICT, "%s: %s is taken: %s/%s exists", sf__shard_label(target->db_id).text,
                     target->url, target->store->url, l.entries[0].key);
    sf__store_listing_cleanup(&l);
    sf__free(a, prefix);
    return rc;
}

void sf__shard_writer_free(sf_shard_writer *w)
{
    if (w)
        w->vtable->free(w, w->state == SF_SHARD_FINISHED);
}

void sf__shard_result_cleanup(sf_shard_result *r)
{
    sf__buf_release(r->min_key);
    sf__buf_release(r->max_key);
    sf__buf_release(r->opening);
    *r = (sf_shard_result){0};
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

/* The only way into FAILED. `e` may be the writer's own. */
static sf_status fail(sf_shard_writer *w, const sf_error *e, sf_error *err)
{
    w->error = *e;
    w->error.db_id = w->db_id;
    w->state = SF_SHARD_FAILED;
    if (err)
        *err = w->error;
    return w->error.code;
}

static sf_status check_state(const sf_shard_writer *w, sf_error *err)
{
    if (w->state == SF_SHARD_WRITING)
        return SF_OK;
    if (w->state == SF_SHARD_FINISHED)
        return sf_fail(err, SF_STATE, "%s is finished", sf__shard_label(w->db_id).text);
    if (err)
        *err = w->error;
    return w->error.code;
}

static sf_status check_row(const sf_shard_writer *w, sf_bytes key, sf_bytes value, sf_error *err)
{
    unsigned long long row = w->rows + 1;

    if (sf__is_cancelled(w->upload.cancel))
        return sf_fail(err, SF_CANCELLED, "%s: cancelled at row %llu", sf__shard_label(w->db_id).text, row);
    if (key.n < w->min_key_bytes)
        return sf_fail(err, SF_INVALID, "%s, row %llu: the key is empty", sf__shard_label(w->db_id).text, row);
    if (key.n > w->max_key_bytes)
        return sf_fail(err, SF_INVALID, "%s, row %llu: key of %zu bytes, at most %zu can be stored",
                       sf__shard_label(w->db_id).text, row, key.n, w->max_key_bytes);
    if (value.n > w->max_value_bytes)
        return sf_fail(err, SF_INVALID, "%s, row %llu: value of %zu bytes, at most %zu can be stored",
                       sf__shard_label(w->db_id).text, row, value.n, w->max_value_bytes);
    if (w->rows > 0 && sf_bytes_cmp(key, sf__buf_bytes(w->last_key)) <= 0)
        return sf_fail(err, SF_INVALID, "%s, row %llu: its key is not above the key before",
                       sf__shard_label(w->db_id).text, row);
    return SF_OK;
}

static bool remember_key(sf_shard_writer *w, sf_bytes key)
{
    if (key.n > w->last_key->cap) {
        sf_buf *bigger = sf__buf_reserve(w->last_key, key.n > 2 * w->last_key->cap ? key.n : 2 * w->last_key->cap);

        if (!bigger)
            return false;
        w->last_key = bigger;
    }
    if (key.n > 0)
        memcpy(w->last_key->data, key.p, key.n);
    w->last_key->n = key.n;
    if (w->rows == 0)
        w->min_key = sf__buf_copy(w->last_key->alloc, key);
    return w->min_key != NULL;
}

sf_status sf__shard_writer_add(sf_shard_writer *w, sf_bytes key, sf_bytes value, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_status rc = check_state(w, err);

    if (rc != SF_OK)
        return rc;
    rc = check_row(w, key, value, &e);
    if (rc == SF_OK)
        rc = w->vtable->add(w, key, value, &e);
    if (rc == SF_OK && !remember_key(w, key))
        rc = sf_fail(&e, SF_NOMEM, "key of %zu bytes", key.n);
    if (rc != SF_OK)
        return fail(w, &e, err);
    sf__content_hash_add(&w->hash, key, value);
    w->rows++;
    w->key_bytes += key.n;
    w->value_bytes += value.n;
    return SF_OK;
}

sf_status sf__shard_writer_finish(sf_shard_writer *w, sf_shard_result *result, sf_error *err)
{
    sf_error e = SF_ERROR_INIT;
    sf_shard_result r = {
        .rows = w->rows,
        .key_bytes = w->key_bytes,
        .value_bytes = w->value_bytes,
    };
    sf_status rc = check_state(w, err);

    if (rc != SF_OK)
        return rc;
    r.content_hash = sf__content_hash_value(&w->hash);
    if (w->rows > 0) {
        r.min_key = sf__buf_acquire(w->min_key);
        r.max_key = sf__buf_acquire(w->last_key);
    }
    rc = sf__is_cancelled(w->upload.cancel) ? sf_fail(&e, SF_CANCELLED, "%s: cancelled", sf__shard_label(w->db_id).text)
                                            : w->vtable->finish(w, &r, &e);
    if (rc != SF_OK) {
        sf__shard_result_cleanup(&r);
        return fail(w, &e, err);
    }
    w->state = SF_SHARD_FINISHED;
    *result = r;
    return SF_OK;
}
