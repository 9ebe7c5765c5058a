#include "reader/snapshot.h"

#include "base/error.h"
#include "base/pin.h"
#include "snapshot/key.h"

static sf_status snapshot_alloc(sf_snapshot **out, sf_runtime *rt, uint32_t num_dbs, sf_error *err)
{
    sf_snapshot *s = sf__calloc(rt->alloc, 1, sizeof(*s));

    if (!s)
        return sf_fail(err, SF_NOMEM, "snapshot");
    atomic_init(&s->refs, 1);
    s->alloc = rt->alloc;
    s->rt = sf__runtime_ref(rt);
    s->num_dbs = num_dbs;
    s->shards = sf__calloc(rt->alloc, num_dbs, sizeof(*s->shards));
    if (!s->shards) {
        sf__snapshot_release(s);
        return sf_fail(err, SF_NOMEM, "snapshot of %u shards", num_dbs);
    }
    *out = s;
    return SF_OK;
}

sf_status sf__snapshot_new(sf_snapshot **out, sf_runtime *rt, sf_snapshot_manifest *m, const char *manifest_ref,
                           bool lazy, sf_error *err)
{
    sf_snapshot *s;
    sf_status rc = snapshot_alloc(&s, rt, m->num_dbs, err);

    if (rc != SF_OK)
        return rc;
    rc = sf__router_init(&s->router, m, s->alloc, err);
    if (rc == SF_INVALID && lazy) { /* then only the keys that it does not route fail */
        sf_error_clear(err);
        rc = SF_OK;
    }
    if (rc != SF_OK)
        goto fail;
    s->manifest_ref = sf__strdup(s->alloc, manifest_ref);
    if (!s->manifest_ref) {
        rc = sf_fail(err, SF_NOMEM, "snapshot");
        goto fail;
    }
    s->manifest = m;
    s->int_keys = s->router.strategy == SF_SHARDING_HASH && m->key_encoding == SF_KEY_U64BE;
    *out = s;
    return SF_OK;
fail:
    sf__snapshot_release(s);
    return rc;
}

static const char *url_of(void *ctx, uint32_t db_id)
{
    const sf_shard *shard = ((const sf_snapshot *)ctx)->shards[db_id];

    return shard ? shard->url : NULL;
}

void sf__snapshot_settle(sf_snapshot *s)
{
    sf__snapshot_manifest_settle(s->manifest, url_of, s);
}

sf_status sf__snapshot_of_shard(sf_snapshot **out, sf_runtime *rt, sf_shard *shard, sf_error *err)
{
    sf_status rc = snapshot_alloc(out, rt, 1, err);

    if (rc == SF_OK)
        (*out)->shards[0] = shard;
    return rc;
}

sf_snapshot *sf__snapshot_acquire(sf_snapshot *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

sf_snapshot *sf__snapshot_hand_out(sf_snapshot *s)
{
    if (s)
        sf_runtime_acquire(s->rt);
    return s;
}

sf_snapshot *sf_snapshot_acquire(sf_snapshot *s)
{
    return sf__snapshot_hand_out(sf__snapshot_acquire(s));
}

void sf_snapshot_give_back(sf_snapshot *s)
{
    sf_runtime *rt = s ? s->rt : NULL;

    sf__snapshot_release(s);
    sf_runtime_release(rt);
}

void sf__snapshot_release(sf_snapshot *s)
{
    sf_runtime *rt;

    if (!s || sf__runtime_check_process(s->rt, NULL) != SF_OK) /* in a forked child it goes with the process */
        return;
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    rt = s->rt;
    for (uint32_t i = 0; s->shards && i < s->num_dbs; i++)
        sf__shard_release(s->shards[i]);
    sf__router_cleanup(&s->router);
    sf__snapshot_manifest_free(s->manifest);
    sf__free(s->alloc, s->manifest_ref);
    sf__free(s->alloc, s->shards);
    sf__free(s->alloc, s);
    sf__runtime_unref(rt);
}

void sf__snapshot_withdraw(sf_snapshot *s)
{
    void *object = s;
    atomic_uint *refs = s ? &s->refs : NULL;

    if (s)
        sf__pins_to_references(&object, &refs, 1, SF_PIN_SNAPSHOT, SF_PIN_SNAPSHOT + 1);
    sf__snapshot_release(s);
}

void sf__snapshot_info_of(const sf_snapshot_manifest *m, sf_snapshot_info *out)
{
    *out = (sf_snapshot_info){
        .run_id = m->run_id,
        .s3_prefix = m->s3_prefix,
        .key_col = m->key_col,
        .db_path_template = m->db_path_template,
        .shard_prefix = m->shard_prefix,
        .sharding_json = m->sharding_json,
        .custom_json = m->custom_json,
        .created_at_us = m->created_at_us,
        .num_dbs = m->num_dbs,
        .shard_count = (uint32_t)m->shard_count,
        .format_version = m->format_version,
        .row_count = m->row_count,
        .key_encoding = m->key_encoding,
        .strategy = m->strategy,
    };
}

void sf__shard_info_of(const sf_manifest_shard *s, sf_shard_info *out)
{
    *out = (sf_shard_info){
        .db_id = s->db_id,
        .db_url = s->db_url,
        .attempt = s->attempt,
        .row_count = s->row_count,
        .db_bytes = s->db_bytes,
        .min_key_json = s->min_key_json,
        .max_key_json = s->max_key_json,
        .checkpoint_id = s->checkpoint_id,
        .writer_info_json = s->writer_info_json,
    };
}

void sf_snapshot_get_info(const sf_snapshot *s, sf_snapshot_info *out)
{
    *out = (sf_snapshot_info){.num_dbs = s->num_dbs};
    if (!s->manifest)
        return;
    sf__snapshot_info_of(s->manifest, out);
    out->manifest_ref = s->manifest_ref;
}

bool sf_snapshot_get_shard(const sf_snapshot *s, uint32_t db_id, sf_shard_info *out)
{
    const sf_manifest_shard *row;

    if (db_id >= s->num_dbs)
        return false;
    *out = (sf_shard_info){.db_id = db_id};
    row = sf__snapshot_row(s, db_id);
    if (row)
        sf__shard_info_of(row, out);
    return true;
}

sf_status sf_snapshot_route(const sf_snapshot *s, const sf_key *key, uint32_t *db_id, sf_error *err)
{
    if (!s->manifest)
        return sf_fail(err, SF_INVALID, "a shard that was opened on its own routes no keys");
    return sf__router_route(&s->router, key, db_id, err);
}

sf_status sf_snapshot_encode_key(const sf_snapshot *s, const sf_key *key, uint8_t scratch[8], sf_bytes *out, sf_error *err)
{
    if (!s->manifest)
        return sf_fail(err, SF_INVALID, "a shard that was opened on its own encodes no keys");
    return sf__key_encode(s->manifest->key_encoding, key, scratch, out, err);
}

sf_status sf_snapshot_decode_key(const sf_snapshot *s, sf_bytes stored, sf_key *out, sf_error *err)
{
    if (!s->manifest)
        return sf_fail(err, SF_INVALID, "a shard that was opened on its own has no encoding of keys");
    return sf__key_decode(s->manifest->key_encoding, stored, out, err);
}

bool sf_snapshot_shard_is_sqlite(const sf_snapshot *s, uint32_t db_id, const char **file)
{
    const sf_shard *shard = db_id < s->num_dbs ? s->shards[db_id] : NULL;
    const char *unused;

    return shard && shard->vtable->is_sqlite && sf__runtime_check_process(s->rt, NULL) == SF_OK &&
           shard->vtable->is_sqlite(shard, file ? file : &unused);
}

void sf_snapshot_explain(const sf_snapshot *s, uint32_t db_id, sf_bytes key, sf_look_fn look, void *ctx)
{
    sf_shard *shard = db_id < s->num_dbs ? s->shards[db_id] : NULL;

    if (shard && shard->vtable->explain && sf__runtime_check_process(s->rt, NULL) == SF_OK)
        shard->vtable->explain(shard, key, look, ctx);
}
