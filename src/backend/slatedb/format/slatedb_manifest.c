#include "backend/slatedb/format/slatedb_manifest.h"

#include <assert.h>
#include <stdlib.h>

#include "base/limits.h"

/* Field ids (docs/formats/slatedb.md 4.2, 4.3). Roots: equal up to id 6. */
enum {
    ROOT_EXTERNAL_DBS = 1,
    ROOT_INITIALIZED = 2,
    ROOT_WRITER_EPOCH = 3,
    ROOT_REPLAY_AFTER_WAL_ID = 5,
    ROOT_WAL_ID_LAST_SEEN = 6,
    ROOT_LAST_COMPACTED = 7,
    ROOT_SEQUENCE_TRACKER = 15,
    V1_L0 = 8,
    V1_COMPACTED = 9,
    V1_CHECKPOINTS = 11,
    V1_LAST_L0_SEQ = 12,
    V1_WAL_OBJECT_STORE_URI = 13,
    V2_SSTS = 8,
    V2_L0 = 9,
    V2_COMPACTED = 10,
    V2_CHECKPOINTS = 12,
    V2_LAST_L0_SEQ = 13,
    V2_SEGMENTS = 16,
    V2_SEGMENT_EXTRACTOR_NAME = 17,
};
enum { ID_HIGH, ID_LOW };
enum { BOUND_KEY, BOUND_TYPE };
enum { RANGE_START, RANGE_END };
enum { SST_ID, SST_INFO, SST_V1_VISIBLE_RANGE, SST_V1_FORMAT_VERSION, SST_V2_FORMAT_VERSION = 2 };
enum { VIEW_ID, VIEW_SST_ID, VIEW_VISIBLE_RANGE };
enum { RUN_ID, RUN_SSTS };
enum { EXTERNAL_PATH, EXTERNAL_SOURCE_CHECKPOINT, EXTERNAL_FINAL_CHECKPOINT, EXTERNAL_SST_IDS };
enum { CHECKPOINT_ID, CHECKPOINT_MANIFEST_ID, CHECKPOINT_EXPIRE_S, CHECKPOINT_CREATE_S, CHECKPOINT_NAME = 6 };
enum { SEGMENT_PREFIX, SEGMENT_LAST_COMPACTED, SEGMENT_L0, SEGMENT_COMPACTED };

enum { STORED_BOUND_UNBOUNDED = 1, STORED_BOUND_INCLUDED = 2, STORED_BOUND_EXCLUDED = 3 };

/* What an element of a vector of tables takes at least: slot and table, and an id of 16 bytes somewhere. */
#define ELEMENT_MIN_BYTES 8u

/* Memory of one manifest: all of it goes at once. */
struct chunk {
    struct chunk *next;
    max_align_t data[];
};

/* An SST of version 2 by its id; or (path set) an SST that another database owns. */
struct named_sst {
    sf_id128 id;
    uint32_t order; /* in the file */
    const char *path;
    sf_sst_info info;
    uint16_t format_version;
};

struct builder {
    sf_slatedb_manifest *m;
    sf_slatedb_head *head; /* the manifest's */
    size_t plain_bytes;
    struct named_sst *ssts; /* version 2; by id */
    uint32_t sst_count;
    struct named_sst *external; /* by id, then order */
    uint32_t external_count;
    uint32_t views_used;
    uint32_t runs_used;
    sf_slatedb_sorted_run *runs;
};

/* What the trees need, counted before anything is allocated. */
struct totals {
    uint64_t views, runs;
};

void *sf__slatedb_manifest_memory(sf_slatedb_manifest *m, size_t count, size_t size)
{
    struct chunk *c = NULL;

    if (count <= (SIZE_MAX - sizeof(*c)) / size)
        c = sf__calloc(m->alloc, 1, sizeof(*c) + count * size);
    if (!c)
        return NULL;
    c->next = m->memory;
    m->memory = c;
    m->bytes += count * size;
    return c->data;
}

static void *take(const struct builder *b, size_t count, size_t size, sf_status *rc, sf_error *err)
{
    void *p = sf__slatedb_manifest_memory(b->m, count, size);

    *rc = p ? SF_OK : sf_fail(err, SF_NOMEM, "manifest: %zu entries", count);
    return p;
}

static sf_status count_check(const struct builder *b, uint64_t count, const char *what, sf_error *err)
{
    if (count > b->plain_bytes / ELEMENT_MIN_BYTES)
        return sf_fail(err, SF_CORRUPT, "manifest: %llu %s in %zu bytes", (unsigned long long)count, what,
                       b->plain_bytes);
    if (count > SF_LIMIT_SLATEDB_SSTS)
        return sf_fail(err, SF_UNSUPPORTED, "manifest: %llu %s, more than %u", (unsigned long long)count, what,
                       SF_LIMIT_SLATEDB_SSTS);
    return SF_OK;
}

static sf_status id_from_table(const sf_fb_table *t, sf_id128 *out, sf_error *err)
{
    sf_status rc = sf__fb_u64(t, ID_HIGH, 0, &out->hi, err);

    return rc == SF_OK ? sf__fb_u64(t, ID_LOW, 0, &out->lo, err) : rc;
}

static sf_status id_decode(const sf_fb_table *t, unsigned field, const char *what, sf_id128 *out, sf_error *err)
{
    sf_fb_table id;
    sf_status rc = sf__fb_table_field(t, field, SF_FB_REQUIRED, what, &id, NULL, err);

    return rc == SF_OK ? id_from_table(&id, out, err) : rc;
}

/* A field that reading does not need. Looked at all the same: damage shows wherever it is. */
static sf_status id_check(const sf_fb_table *t, unsigned field, sf_fb_need need, const char *what, sf_error *err)
{
    sf_fb_table id;
    sf_id128 unused;
    bool present;
    sf_status rc = sf__fb_table_field(t, field, need, what, &id, &present, err);

    return rc == SF_OK && present ? id_from_table(&id, &unused, err) : rc;
}

static int id_cmp(sf_id128 a, sf_id128 b)
{
    if (a.hi != b.hi)
        return a.hi < b.hi ? -1 : 1;
    return (a.lo > b.lo) - (a.lo < b.lo);
}

static int named_sst_cmp(const void *pa, const void *pb)
{
    const struct named_sst *a = pa, *b = pb;
    int c = id_cmp(a->id, b->id);

    return c != 0 ? c : (a->order > b->order) - (a->order < b->order);
}

/* The last of its name, or NULL. */
static const struct named_sst *named_sst_find(const struct named_sst *v, uint32_t count, sf_id128 id)
{
    uint32_t lo = 0, hi = count;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (id_cmp(v[mid].id, id) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 && sf__id128_eq(v[lo - 1].id, id) ? &v[lo - 1] : NULL;
}

static sf_status bound_decode(const sf_fb_table *range, unsigned field, const char *what, sf_key_bound *out, sf_error *err)
{
    sf_fb_table t;
    uint8_t type = 0;
    bool has_key = false;
    sf_status rc;

    if ((rc = sf__fb_table_field(range, field, SF_FB_REQUIRED, what, &t, NULL, err)) != SF_OK ||
        (rc = sf__fb_u8(&t, BOUND_TYPE, 0, &type, err)) != SF_OK ||
        (rc = sf__fb_bytes(&t, BOUND_KEY, SF_FB_OPTIONAL, "key", &out->key, &has_key, err)) != SF_OK)
        return rc;
    switch (type) {
    case STORED_BOUND_UNBOUNDED:
        *out = (sf_key_bound){.kind = SF_BOUND_UNBOUNDED};
        return SF_OK;
    case STORED_BOUND_INCLUDED:
        out->kind = SF_BOUND_INCLUDED;
        break;
    case STORED_BOUND_EXCLUDED:
        out->kind = SF_BOUND_EXCLUDED;
        break;
    default:
        return sf_fail(err, SF_CORRUPT, "%s: bound type %u", what, type);
    }
    return has_key ? SF_OK : sf_fail(err, SF_CORRUPT, "%s: bound type %u without a key", what, type);
}

/* *out stays where there is none, and where it leaves nothing out. */
static sf_status visible_range_decode(const struct builder *b, const sf_fb_table *t, unsigned field,
                                      const sf_key_range **out, sf_error *err)
{
    sf_key_range range = {0}, *kept;
    sf_fb_table table;
    bool present;
    sf_status rc = sf__fb_table_field(t, field, SF_FB_OPTIONAL, "visible_range", &table, &present, err);

    if (rc == SF_OK && present)
        rc = bound_decode(&table, RANGE_START, "start_bound", &range.start, err);
    if (rc == SF_OK && present)
        rc = bound_decode(&table, RANGE_END, "end_bound", &range.end, err);
    if (rc != SF_OK || (range.start.kind == SF_BOUND_UNBOUNDED && range.end.kind == SF_BOUND_UNBOUNDED))
        return rc;
    kept = take(b, 1, sizeof(*kept), &rc, err);
    if (kept) {
        *kept = range;
        *out = kept;
    }
    return rc;
}

static sf_status sst_decode(const sf_fb_table *t, unsigned version_field, sf_id128 *id, sf_sst_info *info,
                            uint16_t *format_version, sf_error *err)
{
    sf_fb_table ti;
    sf_status rc;

    if ((rc = id_decode(t, SST_ID, "id", id, err)) != SF_OK ||
        (rc = sf__fb_table_field(t, SST_INFO, SF_FB_REQUIRED, "info", &ti, NULL, err)) != SF_OK ||
        (rc = sf__sst_info_from_table(info, &ti, UINT64_MAX, err)) != SF_OK ||
        (rc = sf__fb_u16(t, version_field, 1, format_version, err)) != SF_OK) /* absent = 1 */
        return rc;
    return sf__sst_version_check(*format_version, err);
}

/* A view shows one part of an SST; two views of a run may even show two parts of SSTs that overlap. A view that shows
 * nothing stays in its place in the run, one key wide. */
static void narrow(sf_sst_view *v)
{
    const sf_key_range *visible = v->visible;
    sf_sst_info *info = &v->info;
    bool cut_start = false;

    if (!visible || !info->has_first_key)
        return;
    if (visible->start.kind != SF_BOUND_UNBOUNDED && sf_bytes_cmp(visible->start.key, info->first_key) > 0) {
        info->first_key = visible->start.key;
        cut_start = true;
    }
    if (visible->end.kind != SF_BOUND_UNBOUNDED &&
        (!info->has_last_key || sf_bytes_cmp(visible->end.key, info->last_key) < 0)) {
        info->last_key = visible->end.key;
        info->has_last_key = true;
    }
    if (info->has_last_key && sf_bytes_cmp(info->first_key, info->last_key) > 0) {
        if (cut_start)
            info->last_key = info->first_key;
        else
            info->first_key = info->last_key;
    }
}

static sf_status view_decode(const struct builder *b, const sf_fb_table *t, sf_sst_view *out, sf_error *err)
{
    const struct named_sst *named;
    sf_id128 id = {0, 0};
    sf_status rc;

    if (b->head->version == 1) {
        rc = sst_decode(t, SST_V1_FORMAT_VERSION, &id, &out->info, &out->format_version, err);
        if (rc == SF_OK)
            rc = visible_range_decode(b, t, SST_V1_VISIBLE_RANGE, &out->visible, err);
    } else {
        rc = id_decode(t, VIEW_SST_ID, "sst_id", &id, err);
        if (rc == SF_OK)
            rc = id_check(t, VIEW_ID, SF_FB_REQUIRED, "id", err);
        if (rc == SF_OK)
            rc = visible_range_decode(b, t, VIEW_VISIBLE_RANGE, &out->visible, err);
    }
    if (rc != SF_OK)
        return rc;
    sf__ulid_format(id, out->ulid);
    if (b->head->version != 1) {
        named = named_sst_find(b->ssts, b->sst_count, id);
        if (!named)
            return sf_fail(err, SF_CORRUPT, "SST %s is not among the manifest's SSTs", out->ulid);
        out->info = named->info;
        out->format_version = named->format_version;
    }
    named = named_sst_find(b->external, b->external_count, id);
    out->external_path = named ? named->path : NULL;
    narrow(out);
    return SF_OK;
}

/* Fills the next v->count views of the manifest's array. */
static sf_status views_decode(struct builder *b, const sf_fb_vector *v, sf_sst_view **out, uint32_t *count, sf_error *err)
{
    sf_sst_view *views = b->m->views + b->views_used;
    sf_fb_table t;

    assert(v->count <= b->m->view_count - b->views_used); /* they were counted from the same bytes */
    for (uint32_t i = 0; i < v->count; i++) {
        sf_status rc = sf__fb_tables_at(v, i, &t, err);

        if (rc == SF_OK)
            rc = view_decode(b, &t, &views[i], err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "SST %u: ", i);
    }
    b->views_used += v->count;
    *out = views;
    *count = v->count;
    return SF_OK;
}

static sf_status run_decode(struct builder *b, const sf_fb_table *t, sf_slatedb_sorted_run *out, sf_error *err)
{
    sf_fb_vector v;
    sf_status rc;

    if ((rc = sf__fb_u32(t, RUN_ID, 0, &out->id, err)) != SF_OK ||
        (rc = sf__fb_tables(t, RUN_SSTS, SF_FB_REQUIRED, "ssts", &v, NULL, err)) != SF_OK ||
        (rc = views_decode(b, &v, &out->ssts, &out->sst_count, err)) != SF_OK)
        return rc;
    for (uint32_t i = 0; i < out->sst_count; i++) {
        const sf_sst_info *info = &out->ssts[i].info, *before = i > 0 ? &out->ssts[i - 1].info : NULL;

        if (!info->has_first_key)
            return sf_fail(err, SF_CORRUPT, "SST %s has no first key", out->ssts[i].ulid);
        if (before && (sf_bytes_cmp(info->first_key, before->first_key) < 0 ||
                       (before->has_last_key && sf_bytes_cmp(info->first_key, before->last_key) < 0)))
            return sf_fail(err, SF_CORRUPT, "SSTs %s and %s are not in order of their keys", out->ssts[i - 1].ulid,
                           out->ssts[i].ulid);
    }
    return SF_OK;
}

static sf_status tree_vectors(const sf_fb_table *t, unsigned l0_field, unsigned runs_field, sf_fb_vector *l0,
                              sf_fb_vector *runs, sf_error *err)
{
    sf_status rc = sf__fb_tables(t, l0_field, SF_FB_REQUIRED, "l0", l0, NULL, err);

    return rc == SF_OK ? sf__fb_tables(t, runs_field, SF_FB_REQUIRED, "compacted", runs, NULL, err) : rc;
}

static sf_status tree_count(const struct builder *b, const sf_fb_table *t, unsigned l0_field, unsigned runs_field,
                            struct totals *sum, sf_error *err)
{
    sf_fb_vector l0, runs, ssts;
    sf_fb_table run;
    sf_status rc = tree_vectors(t, l0_field, runs_field, &l0, &runs, err);

    if (rc != SF_OK)
        return rc;
    sum->views += l0.count;
    sum->runs += runs.count;
    rc = count_check(b, sum->runs, "sorted runs", err);
    for (uint32_t i = 0; rc == SF_OK && i < runs.count; i++) {
        rc = sf__fb_tables_at(&runs, i, &run, err);
        if (rc == SF_OK)
            rc = sf__fb_tables(&run, RUN_SSTS, SF_FB_REQUIRED, "ssts", &ssts, NULL, err);
        if (rc == SF_OK) {
            sum->views += ssts.count;
            rc = count_check(b, sum->views, "SSTs", err);
        }
    }
    return rc == SF_OK ? count_check(b, sum->views, "SSTs", err) : rc;
}

static sf_status tree_decode(struct builder *b, const sf_fb_table *t, unsigned l0_field, unsigned runs_field,
                             sf_slatedb_tree *out, sf_error *err)
{
    sf_fb_vector l0, runs;
    sf_fb_table run;
    sf_status rc = tree_vectors(t, l0_field, runs_field, &l0, &runs, err);

    if (rc == SF_OK)
        rc = views_decode(b, &l0, &out->l0, &out->l0_count, err);
    if (rc != SF_OK)
        return sf_error_prefix(err, rc, "l0: ");
    out->runs = b->runs + b->runs_used;
    out->run_count = runs.count;
    b->runs_used += runs.count;
    for (uint32_t i = 0; i < runs.count; i++) {
        rc = sf__fb_tables_at(&runs, i, &run, err);
        if (rc == SF_OK)
            rc = run_decode(b, &run, &out->runs[i], err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "sorted run %u: ", i);
    }
    return SF_OK;
}

static int tree_cmp(const void *a, const void *b)
{
    return sf_bytes_cmp(((const sf_slatedb_tree *)a)->prefix, ((const sf_slatedb_tree *)b)->prefix);
}

/* One tree per segment, or one for everything. */
static sf_status trees_decode(struct builder *b, const sf_fb_table *root, sf_error *err)
{
    bool v1 = b->head->version == 1;
    sf_fb_vector segments = {0};
    sf_fb_table t = *root;
    struct totals sum = {0, 0};
    unsigned l0_field = v1 ? V1_L0 : V2_L0, runs_field = v1 ? V1_COMPACTED : V2_COMPACTED;
    uint32_t count;
    sf_slatedb_manifest *m = b->m;
    sf_status rc = tree_count(b, root, l0_field, runs_field, &sum, err); /* the fields are required in any case */

    if (rc == SF_OK && !v1)
        rc = sf__fb_tables(root, V2_SEGMENTS, SF_FB_OPTIONAL, "segments", &segments, NULL, err);
    if (rc == SF_OK)
        rc = count_check(b, segments.count, "segments", err);
    if (rc != SF_OK)
        return rc;
    b->head->segmented = segments.count > 0;
    if (b->head->segmented) {
        sum = (struct totals){0, 0};
        l0_field = SEGMENT_L0;
        runs_field = SEGMENT_COMPACTED;
    }
    for (uint32_t i = 0; i < segments.count; i++) {
        rc = sf__fb_tables_at(&segments, i, &t, err);
        if (rc == SF_OK)
            rc = tree_count(b, &t, l0_field, runs_field, &sum, err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "segment %u: ", i);
    }
    count = b->head->segmented ? segments.count : 1;
    m->view_count = (uint32_t)sum.views;
    if (!(m->views = take(b, (size_t)sum.views, sizeof(*m->views), &rc, err)) ||
        !(b->runs = take(b, (size_t)sum.runs, sizeof(*b->runs), &rc, err)) ||
        !(m->trees = take(b, count, sizeof(*m->trees), &rc, err)))
        return rc;
    m->tree_count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (b->head->segmented) {
            rc = sf__fb_tables_at(&segments, i, &t, err);
            if (rc == SF_OK)
                rc = id_check(&t, SEGMENT_LAST_COMPACTED, SF_FB_OPTIONAL, "last_compacted_l0_sst_view_id", err);
            if (rc == SF_OK)
                rc = sf__fb_bytes(&t, SEGMENT_PREFIX, SF_FB_REQUIRED, "prefix", &m->trees[i].prefix, NULL, err);
        }
        if (rc == SF_OK)
            rc = tree_decode(b, &t, l0_field, runs_field, &m->trees[i], err);
        if (rc != SF_OK)
            return b->head->segmented ? sf_error_prefix(err, rc, "segment %u: ", i) : rc;
    }
    qsort(m->trees, count, sizeof(*m->trees), tree_cmp);
    for (uint32_t i = 1; i < count; i++) { /* in this order a prefix is followed by what begins with it */
        if (sf_bytes_starts_with(m->trees[i].prefix, m->trees[i - 1].prefix))
            return sf_fail(err, SF_CORRUPT, "the prefix of a segment begins with that of another");
    }
    return SF_OK;
}

static sf_status ssts_decode(struct builder *b, const sf_fb_table *root, sf_error *err)
{
    sf_fb_vector v;
    sf_fb_table t;
    sf_status rc = sf__fb_tables(root, V2_SSTS, SF_FB_REQUIRED, "ssts", &v, NULL, err);

    if (rc == SF_OK)
        rc = count_check(b, v.count, "SSTs", err);
    if (rc != SF_OK || !(b->ssts = take(b, v.count, sizeof(*b->ssts), &rc, err)))
        return rc;
    b->sst_count = v.count;
    for (uint32_t i = 0; i < v.count; i++) {
        struct named_sst *s = &b->ssts[i];

        s->order = i;
        rc = sf__fb_tables_at(&v, i, &t, err);
        if (rc == SF_OK)
            rc = sst_decode(&t, SST_V2_FORMAT_VERSION, &s->id, &s->info, &s->format_version, err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "ssts: SST %u: ", i);
    }
    qsort(b->ssts, v.count, sizeof(*b->ssts), named_sst_cmp);
    return SF_OK;
}

/* Object paths have no empty, "." or ".." parts; a file store must never be led out of its root. */
static bool path_ok(sf_bytes path)
{
    size_t start = 0;

    if (path.n > 0 && memchr(path.p, '\0', path.n))
        return false;
    for (size_t i = 0; i <= path.n && path.n > 0; i++) {
        if (i < path.n && path.p[i] != '/')
            continue;
        if (i == start || (i - start == 1 && path.p[start] == '.') ||
            (i - start == 2 && path.p[start] == '.' && path.p[start + 1] == '.'))
            return false;
        start = i + 1;
    }
    return true;
}

static sf_status external_db_decode(struct builder *b, const sf_fb_table *t, sf_fb_vector *ids, const char **path,
                                    sf_error *err)
{
    sf_bytes text;
    sf_status rc;

    if ((rc = sf__fb_string(t, EXTERNAL_PATH, SF_FB_REQUIRED, "path", &text, NULL, err)) != SF_OK ||
        (rc = id_check(t, EXTERNAL_SOURCE_CHECKPOINT, SF_FB_REQUIRED, "source_checkpoint_id", err)) != SF_OK ||
        (rc = id_check(t, EXTERNAL_FINAL_CHECKPOINT, SF_FB_OPTIONAL, "final_checkpoint_id", err)) != SF_OK ||
        (rc = sf__fb_tables(t, EXTERNAL_SST_IDS, SF_FB_REQUIRED, "sst_ids", ids, NULL, err)) != SF_OK)
        return rc;
    if (!path_ok(text))
        return sf_fail(err, SF_CORRUPT, "the path of an external database is not an object path");
    *path = (const char *)text.p; /* the buffer holds its trailing 0 as well */
    return SF_OK;
}

static sf_status external_decode(struct builder *b, const sf_fb_table *root, sf_error *err)
{
    sf_fb_vector dbs, ids;
    sf_fb_table t;
    uint64_t total = 0;
    const char *path;
    sf_status rc = sf__fb_tables(root, ROOT_EXTERNAL_DBS, SF_FB_OPTIONAL, "external_dbs", &dbs, NULL, err);

    for (uint32_t i = 0; rc == SF_OK && i < dbs.count; i++) {
        rc = sf__fb_tables_at(&dbs, i, &t, err);
        if (rc == SF_OK)
            rc = external_db_decode(b, &t, &ids, &path, err);
        if (rc == SF_OK) {
            total += ids.count;
            rc = count_check(b, total, "SSTs of external databases", err);
        }
    }
    if (rc != SF_OK)
        return sf_error_prefix(err, rc, "external_dbs: ");
    if (!(b->external = take(b, (size_t)total, sizeof(*b->external), &rc, err)))
        return rc;
    for (uint32_t i = 0; i < dbs.count; i++) {
        rc = sf__fb_tables_at(&dbs, i, &t, err);
        if (rc == SF_OK)
            rc = external_db_decode(b, &t, &ids, &path, err);
        for (uint32_t j = 0; rc == SF_OK && j < ids.count; j++) {
            struct named_sst *s = &b->external[b->external_count];

            s->order = b->external_count++;
            s->path = path;
            rc = sf__fb_tables_at(&ids, j, &t, err);
            if (rc == SF_OK)
                rc = id_from_table(&t, &s->id, err);
        }
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "external_dbs: ");
    }
    qsort(b->external, b->external_count, sizeof(*b->external), named_sst_cmp);
    return SF_OK;
}

static sf_status checkpoint_decode(const sf_fb_table *t, sf_slatedb_checkpoint *out, sf_error *err)
{
    sf_status rc;

    if ((rc = id_decode(t, CHECKPOINT_ID, "id", &out->uuid, err)) != SF_OK ||
        (rc = sf__fb_u64(t, CHECKPOINT_MANIFEST_ID, 0, &out->manifest_id, err)) != SF_OK ||
        (rc = sf__fb_u32(t, CHECKPOINT_EXPIRE_S, 0, &out->expire_s, err)) != SF_OK ||
        (rc = sf__fb_u32(t, CHECKPOINT_CREATE_S, 0, &out->create_s, err)) != SF_OK ||
        (rc = sf__fb_string(t, CHECKPOINT_NAME, SF_FB_OPTIONAL, "name", &out->name, NULL, err)) != SF_OK)
        return rc;
    sf__uuid_format(out->uuid, out->id);
    return SF_OK;
}

static sf_status checkpoints_decode(struct builder *b, const sf_fb_table *root, sf_error *err)
{
    sf_fb_vector v;
    sf_fb_table t;
    sf_status rc = sf__fb_tables(root, b->head->version == 1 ? V1_CHECKPOINTS : V2_CHECKPOINTS, SF_FB_REQUIRED,
                                 "checkpoints", &v, NULL, err);

    if (rc == SF_OK)
        rc = count_check(b, v.count, "checkpoints", err);
    if (rc != SF_OK || !(b->head->checkpoints = take(b, v.count, sizeof(*b->head->checkpoints), &rc, err)))
        return rc;
    b->head->checkpoint_count = v.count;
    for (uint32_t i = 0; i < v.count; i++) {
        rc = sf__fb_tables_at(&v, i, &t, err);
        if (rc == SF_OK)
            rc = checkpoint_decode(&t, &b->head->checkpoints[i], err);
        if (rc != SF_OK)
            return sf_error_prefix(err, rc, "checkpoint %u: ", i);
    }
    return SF_OK;
}

static sf_status unused_check(const struct builder *b, const sf_fb_table *root, sf_error *err)
{
    sf_bytes unused;
    sf_status rc;

    if ((rc = id_check(root, ROOT_LAST_COMPACTED, SF_FB_OPTIONAL, "last compacted L0", err)) != SF_OK ||
        (rc = sf__fb_bytes(root, ROOT_SEQUENCE_TRACKER, SF_FB_OPTIONAL, "sequence_tracker", &unused, NULL, err)) != SF_OK)
        return rc;
    return b->head->version == 1 ? SF_OK
                                 : sf__fb_string(root, V2_SEGMENT_EXTRACTOR_NAME, SF_FB_OPTIONAL,
                                                 "segment_extractor_name", &unused, NULL, err);
}

static sf_status root_decode(struct builder *b, sf_bytes flat, sf_error *err)
{
    sf_fb_table root;
    sf_bytes uri;
    sf_status rc;

    if ((rc = sf__fb_root(flat, &root, err)) != SF_OK ||
        (rc = sf__fb_bool(&root, ROOT_INITIALIZED, false, &b->head->initialized, err)) != SF_OK ||
        (rc = sf__fb_u64(&root, ROOT_WRITER_EPOCH, 0, &b->head->writer_epoch, err)) != SF_OK ||
        (rc = sf__fb_u64(&root, ROOT_REPLAY_AFTER_WAL_ID, 0, &b->head->replay_after_wal_id, err)) != SF_OK ||
        (rc = sf__fb_u64(&root, ROOT_WAL_ID_LAST_SEEN, 0, &b->head->wal_id_last_seen, err)) != SF_OK ||
        (rc = sf__fb_u64(&root, b->head->version == 1 ? V1_LAST_L0_SEQ : V2_LAST_L0_SEQ, 0, &b->head->last_l0_seq, err)) !=
            SF_OK)
        return rc;
    if (b->head->version == 1) /* an empty string counts: its presence is the flag */
        rc = sf__fb_string(&root, V1_WAL_OBJECT_STORE_URI, SF_FB_OPTIONAL, "wal_object_store_uri", &uri,
                           &b->head->has_wal_store, err);
    if (rc == SF_OK)
        rc = unused_check(b, &root, err);
    if (rc == SF_OK)
        rc = external_decode(b, &root, err);
    if (rc == SF_OK && b->head->version != 1)
        rc = ssts_decode(b, &root, err);
    if (rc == SF_OK)
        rc = trees_decode(b, &root, err);
    if (rc == SF_OK)
        rc = checkpoints_decode(b, &root, err);
    return rc;
}

sf_status sf__slatedb_manifest_decode(sf_slatedb_manifest *out, sf_buf *buf, const sf_allocator *a, sf_error *err)
{
    sf_slatedb_manifest m = {.alloc = a};
    struct builder b = {.m = &m};
    sf_cursor c = sf__buf_bytes(buf);
    uint16_t version;
    sf_status rc;

    *out = (sf_slatedb_manifest){0};
    if (c.n > SF_LIMIT_SLATEDB_MANIFEST_BYTES)
        return sf_fail(err, SF_UNSUPPORTED, "a SlateDB manifest of %zu bytes, more than %u", c.n,
                       SF_LIMIT_SLATEDB_MANIFEST_BYTES);
    if (!sf_cursor_u16be(&c, &version))
        return sf_fail(err, SF_CORRUPT, "a SlateDB manifest of %zu bytes", c.n);
    if (version != 1 && version != 2)
        return sf_fail(err, SF_UNSUPPORTED, "SlateDB manifest version %u", version);
    b.plain_bytes = c.n;
    m.bytes = sizeof(*buf) + buf->cap;
    b.head = take(&b, 1, sizeof(*b.head), &rc, err);
    if (b.head) {
        m.head = b.head;
        b.head->version = version;
        rc = root_decode(&b, c, err);
    }
    if (rc != SF_OK) {
        sf__slatedb_manifest_cleanup(&m);
        return sf_error_prefix(err, rc, "SlateDB manifest: ");
    }
    m.buf = sf__buf_acquire(buf);
    *out = m;
    return SF_OK;
}

void sf__slatedb_manifest_cleanup(sf_slatedb_manifest *m)
{
    struct chunk *c = m->memory;

    while (c) {
        struct chunk *next = c->next;

        sf__free(m->alloc, c);
        c = next;
    }
    sf__buf_release(m->buf);
    *m = (sf_slatedb_manifest){0};
}

const sf_slatedb_checkpoint *sf__slatedb_manifest_checkpoint(const sf_slatedb_manifest *m, const char *id)
{
    sf_id128 want;

    if (!sf__uuid_parse(sf_bytes_str(id), &want))
        return NULL;
    for (uint32_t i = 0; i < m->head->checkpoint_count; i++) {
        if (sf__id128_eq(m->head->checkpoints[i].uuid, want))
            return &m->head->checkpoints[i];
    }
    return NULL;
}

const sf_slatedb_tree *sf__slatedb_manifest_tree(const sf_slatedb_manifest *m, sf_bytes key)
{
    uint32_t lo = 0, hi = m->tree_count; /* the last prefix <= key is the only one the key can begin with */

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (sf_bytes_cmp(m->trees[mid].prefix, key) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 && sf_bytes_starts_with(key, m->trees[lo - 1].prefix) ? &m->trees[lo - 1] : NULL;
}

bool sf__sst_view_may_hold(const sf_sst_view *v, sf_bytes key)
{
    return v->info.has_first_key && sf_bytes_cmp(key, v->info.first_key) >= 0 &&
           (!v->info.has_last_key || sf_bytes_cmp(key, v->info.last_key) <= 0) &&
           (!v->visible || sf__key_range_contains(v->visible, key));
}
