#include "backend/slatedb/format/slatedb_manifest_write.h"

#include "backend/slatedb/format/sst_info_write.h"
#include "base/limits.h"

#define MANIFEST_VERSION 1u
#define MANIFEST_ID 1u
#define RUN_ID 0u

/* Field ids, version 1. */
enum {
    M_MANIFEST_ID,
    M_EXTERNAL_DBS,
    M_INITIALIZED,
    M_WRITER_EPOCH,
    M_COMPACTOR_EPOCH,
    M_REPLAY_AFTER_WAL_ID,
    M_WAL_ID_LAST_SEEN,
    M_L0_LAST_COMPACTED,
    M_L0,
    M_COMPACTED,
    M_LAST_L0_CLOCK_TICK,
    M_CHECKPOINTS,
    M_LAST_L0_SEQ,
    M_WAL_OBJECT_STORE_URI,
    M_RECENT_SNAPSHOT_MIN_SEQ,
    M_SEQUENCE_TRACKER,
    M_FIELDS
};
enum { ID_HIGH, ID_LOW, ID_FIELDS };
enum { SST_ID, SST_INFO, SST_VISIBLE_RANGE, SST_FORMAT_VERSION, SST_FIELDS };
enum { RUN_FIELD_ID, RUN_SSTS, RUN_FIELDS };
enum { CP_ID, CP_MANIFEST_ID, CP_EXPIRE_S, CP_CREATE_S, CP_METADATA_TYPE, CP_METADATA, CP_NAME, CP_FIELDS };

/* What is not listed is absent: no external databases, nothing compacted from L0, and above all no WAL store, whose
 * mere presence would mean that there is one. */
static const uint8_t manifest_sizes[M_FIELDS] = {
    [M_MANIFEST_ID] = 8,         [M_INITIALIZED] = 1,      [M_WRITER_EPOCH] = 8, [M_COMPACTOR_EPOCH] = 8,
    [M_REPLAY_AFTER_WAL_ID] = 8, [M_WAL_ID_LAST_SEEN] = 8, [M_L0] = 4,           [M_COMPACTED] = 4,
    [M_LAST_L0_CLOCK_TICK] = 8,  [M_CHECKPOINTS] = 4,      [M_LAST_L0_SEQ] = 8,  [M_RECENT_SNAPSHOT_MIN_SEQ] = 8,
    [M_SEQUENCE_TRACKER] = 4,
};
static const uint8_t id_sizes[ID_FIELDS] = {8, 8};
static const uint8_t sst_sizes[SST_FIELDS] = {[SST_ID] = 4, [SST_INFO] = 4, [SST_FORMAT_VERSION] = 2};
static const uint8_t run_sizes[RUN_FIELDS] = {[RUN_FIELD_ID] = 4, [RUN_SSTS] = 4};
static const uint8_t checkpoint_sizes[CP_FIELDS] = {
    [CP_ID] = 4, [CP_MANIFEST_ID] = 8, [CP_EXPIRE_S] = 4, [CP_CREATE_S] = 4, [CP_NAME] = 4,
};

/* A layout and where its vtable lies. */
struct kind {
    sf_fb_layout l;
    size_t vtable;
};

static struct kind kind_put(sf_fb_writer *w, const uint8_t *sizes, unsigned count)
{
    struct kind k = {.l = sf__fb_layout(sizes, count)};

    k.vtable = sf__fb_put_vtable(w, &k.l);
    return k;
}

static size_t put(sf_fb_writer *w, const struct kind *k, size_t ref)
{
    return sf__fb_put_table(w, &k->l, k->vtable, ref);
}

static void put_id(sf_fb_writer *w, const struct kind *id, size_t ref, sf_id128 v)
{
    size_t t = put(w, id, ref);

    sf__fb_set(w, &id->l, t, ID_HIGH, v.hi);
    sf__fb_set(w, &id->l, t, ID_LOW, v.lo);
}

static void put_run(sf_fb_writer *w, size_t ref, const struct kind *id, const sf_built_database *db)
{
    struct kind run = kind_put(w, run_sizes, RUN_FIELDS), sst = kind_put(w, sst_sizes, SST_FIELDS);
    struct kind info = {.l = sf__sst_info_layout()};
    size_t t, slots;

    info.vtable = sf__fb_put_vtable(w, &info.l);
    t = put(w, &run, ref);
    sf__fb_set(w, &run.l, t, RUN_FIELD_ID, RUN_ID);
    slots = sf__fb_put_tables(w, sf__fb_slot(&run.l, t, RUN_SSTS), db->sst_count);
    for (size_t i = 0; i < db->sst_count; i++) {
        t = put(w, &sst, slots + 4 * i);
        sf__fb_set(w, &sst.l, t, SST_FORMAT_VERSION, SF_SST_VERSION_WRITTEN); /* absent means 1 */
        put_id(w, id, sf__fb_slot(&sst.l, t, SST_ID), db->ssts[i].ulid);
        sf__sst_info_put(w, &info.l, info.vtable, sf__fb_slot(&sst.l, t, SST_INFO), &db->ssts[i].info);
    }
}

static void put_checkpoint(sf_fb_writer *w, size_t ref, const struct kind *id, const sf_built_database *db)
{
    struct kind cp = kind_put(w, checkpoint_sizes, CP_FIELDS);
    size_t t = put(w, &cp, ref);

    sf__fb_set(w, &cp.l, t, CP_MANIFEST_ID, MANIFEST_ID);
    sf__fb_set(w, &cp.l, t, CP_EXPIRE_S, 0);
    sf__fb_set(w, &cp.l, t, CP_CREATE_S, db->checkpoint_create_s);
    put_id(w, id, sf__fb_slot(&cp.l, t, CP_ID), db->checkpoint);
    sf__fb_put_string(w, sf__fb_slot(&cp.l, t, CP_NAME), sf_bytes_str(db->checkpoint_name));
}

static void put_manifest(sf_fb_writer *w, const sf_built_database *db)
{
    /* version 1 of the tracker, no entries: u32 count and two empty streams (docs/formats/slatedb.md 4.5) */
    static const uint8_t empty_tracker[13] = {1};
    struct kind manifest = kind_put(w, manifest_sizes, M_FIELDS), id = kind_put(w, id_sizes, ID_FIELDS);
    const sf_fb_layout *l = &manifest.l;
    size_t t = put(w, &manifest, 0), slots;

    sf__fb_set(w, l, t, M_INITIALIZED, 1);
    sf__fb_set(w, l, t, M_LAST_L0_CLOCK_TICK, (uint64_t)INT64_MIN); /* rows carry no times */
    sf__fb_set(w, l, t, M_LAST_L0_SEQ, SF_BUILT_SEQ);
    sf__fb_put_tables(w, sf__fb_slot(l, t, M_L0), 0);
    slots = sf__fb_put_tables(w, sf__fb_slot(l, t, M_COMPACTED), db->sst_count > 0 ? 1 : 0);
    if (db->sst_count > 0)
        put_run(w, slots, &id, db);
    put_checkpoint(w, sf__fb_put_tables(w, sf__fb_slot(l, t, M_CHECKPOINTS), 1), &id, db);
    sf__fb_put_bytes(w, sf__fb_slot(l, t, M_SEQUENCE_TRACKER), sf_bytes_of(empty_tracker, sizeof(empty_tracker)));
}

sf_status sf__slatedb_manifest_encode(sf_buf **out, const sf_built_database *db, const sf_allocator *a, sf_error *err)
{
    static const uint8_t version[2] = {0, MANIFEST_VERSION};
    sf_fb_writer w;
    sf_bytes bytes;
    sf_buf *b = NULL;

    sf__fb_writer_init(&w, sf_bytes_of(version, sizeof(version)), a);
    put_manifest(&w, db);
    bytes = sf__fb_written(&w);
    if (sf__fb_ok(&w) && bytes.n <= SF_LIMIT_SLATEDB_MANIFEST_BYTES)
        b = sf__buf_copy(a, bytes);
    sf__fb_writer_cleanup(&w);
    if (!b && bytes.n > SF_LIMIT_SLATEDB_MANIFEST_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "manifest of %zu bytes for %zu SSTs, more than %u", bytes.n, db->sst_count,
                       SF_LIMIT_SLATEDB_MANIFEST_BYTES);
    if (!b)
        return sf_fail(err, SF_NOMEM, "manifest of %zu SSTs", db->sst_count);
    *out = b;
    return SF_OK;
}
