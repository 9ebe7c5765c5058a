#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend/slatedb/format/slatedb_manifest.h"
#include "../../support/heap.h"
#include "format_build.h"

static const sf_allocator *const heap = &sf__allocator_default;

struct sst {
    uint8_t id;
    const char *first, *last;              /* NULL: absent */
    const char *visible_from, *visible_to; /* "": unbounded; both NULL: no range */
};

/* What differs from an orderly manifest. */
enum tweak {
    AS_IT_SHOULD_BE,
    NOT_INITIALIZED,
    WAL_STORE,
    NO_CHECKPOINTS_FIELD,
    NO_RUNS_FIELD,
    NO_SST_INFO,
    NO_FORMAT_VERSION,
    FORMAT_VERSION_3,
    UNKNOWN_BOUND_TYPE,
    BOUND_WITHOUT_KEY,
    VIEW_OF_UNKNOWN_SST,
};

struct spec {
    const char *name;
    sf_status want;
    unsigned version;
    enum tweak tweak;
    struct sst l0[3];
    struct sst run[4];
    const char *external_path; /* owns SST 2 */
    const char *segments[3];   /* version 2: the run and L0 of each are those above */
};

enum { ULL = 8, REF = 4, BYTE = 1 };
static const uint8_t v1_fields[] = {ULL, REF, BYTE, ULL, ULL, ULL, ULL, REF, REF, REF, ULL, REF, ULL, REF, ULL, REF};
static const uint8_t v2_fields[] = {ULL, REF, BYTE, ULL, ULL, ULL, ULL, REF, REF,
                                    REF, REF, ULL,  REF, ULL, ULL, REF, REF, REF};
static const uint8_t id_fields[] = {8, 8};
static const uint8_t info_fields[] = {4, 8, 8, 8, 8, 1, 1, 4, 8, 8, 1};
static const uint8_t sst_v2_fields[] = {4, 4, 2};
static const uint8_t view_fields[] = {4, 4, 4};
static const uint8_t run_fields[] = {4, 4};
static const uint8_t range_fields[] = {4, 4};
static const uint8_t bound_fields[] = {4, 1};
static const uint8_t external_fields[] = {4, 4, 4, 4};
static const uint8_t checkpoint_fields[] = {4, 8, 4, 4, 0, 0, 4};
static const uint8_t segment_fields[] = {4, 4, 4, 4};

/* `leave_out` is a field id, or -1. */
static size_t table(struct out *o, size_t ref, const uint8_t *sizes, size_t count, int leave_out)
{
    uint8_t copy[20];

    memcpy(copy, sizes, count);
    if (leave_out >= 0)
        copy[leave_out] = 0;
    return fb_table(o, ref, copy, count);
}
#define TABLE(o, ref, fields, leave_out) table(o, ref, fields, sizeof(fields), leave_out)

static void put_id(struct out *o, size_t ref, uint64_t low)
{
    size_t t = TABLE(o, ref, id_fields, -1);

    fb_set(o, t, 0, 0x0123456789abcdef);
    fb_set(o, t, 1, low);
}

static void put_info(struct out *o, size_t ref, const struct sst *s)
{
    uint8_t fields[sizeof(info_fields)];
    size_t t;

    memcpy(fields, info_fields, sizeof(fields));
    fields[0] = s->first ? 4 : 0;
    fields[7] = s->last ? 4 : 0;
    t = fb_table(o, ref, fields, sizeof(fields));
    fb_set(o, t, 1, 1200);
    fb_set(o, t, 2, 100);
    fb_set(o, t, 3, 1000);
    fb_set(o, t, 4, 200);
    fb_set(o, t, 5, SF_CODEC_ZSTD);
    fb_set(o, t, 10, 1);
    if (s->first)
        fb_bytes(o, t, 0, sf_bytes_str(s->first));
    if (s->last)
        fb_bytes(o, t, 7, sf_bytes_str(s->last));
}

static void put_bound(struct out *o, size_t ref, const char *key, unsigned type, enum tweak tweak)
{
    size_t t = TABLE(o, ref, bound_fields, *key && tweak != BOUND_WITHOUT_KEY ? -1 : 0);

    fb_set(o, t, 1, tweak == UNKNOWN_BOUND_TYPE ? 0 : *key ? type : 1);
    if (*key && tweak != BOUND_WITHOUT_KEY)
        fb_bytes(o, t, 0, sf_bytes_str(key));
}

static void put_range(struct out *o, size_t t, unsigned id, const struct sst *s, enum tweak tweak)
{
    size_t range = TABLE(o, fb_field(o, t, id), range_fields, -1);

    put_bound(o, fb_field(o, range, 0), s->visible_from, 2, tweak);
    put_bound(o, fb_field(o, range, 1), s->visible_to, 3, tweak);
}

static void put_sst(struct out *o, size_t ref, const struct sst *s, unsigned version, enum tweak tweak)
{
    unsigned format_field = version == 1 ? 3 : 2;
    size_t t;

    if (version == 1) {
        uint8_t fields[] = {4, 4, s->visible_from ? 4 : 0, 2};

        t = table(o, ref, fields, sizeof(fields), tweak == NO_SST_INFO ? 1 : tweak == NO_FORMAT_VERSION ? 3 : -1);
    } else {
        t = TABLE(o, ref, sst_v2_fields, tweak == NO_SST_INFO ? 1 : tweak == NO_FORMAT_VERSION ? 2 : -1);
    }
    put_id(o, fb_field(o, t, 0), s->id);
    if (tweak != NO_SST_INFO)
        put_info(o, fb_field(o, t, 1), s);
    if (tweak != NO_FORMAT_VERSION)
        fb_set(o, t, format_field, tweak == FORMAT_VERSION_3 ? 3 : 2);
    if (version == 1 && s->visible_from)
        put_range(o, t, 2, s, tweak);
}

static void put_view(struct out *o, size_t ref, const struct sst *s, enum tweak tweak)
{
    size_t t = TABLE(o, ref, view_fields, s->visible_from ? -1 : 2);

    put_id(o, fb_field(o, t, 0), 1000u + s->id);
    put_id(o, fb_field(o, t, 1), tweak == VIEW_OF_UNKNOWN_SST ? 99 : s->id);
    if (s->visible_from)
        put_range(o, t, 2, s, tweak);
}

static size_t sst_count(const struct sst *v, size_t max)
{
    size_t n = 0;

    while (n < max && v[n].id != 0)
        n++;
    return n;
}

static void put_views(struct out *o, size_t t, unsigned id, const struct sst *v, size_t max, const struct spec *s)
{
    size_t n = sst_count(v, max), slots = fb_vector(o, t, id, n);

    for (size_t i = 0; i < n; i++) {
        if (s->version == 1)
            put_sst(o, slots + 4 * i, &v[i], 1, s->tweak);
        else
            put_view(o, slots + 4 * i, &v[i], s->tweak);
    }
}

static void put_tree(struct out *o, size_t t, unsigned l0_field, unsigned runs_field, const struct spec *s, bool empty)
{
    size_t slots, run;

    if (empty) {
        (void)fb_vector(o, t, l0_field, 0);
        (void)fb_vector(o, t, runs_field, 0);
        return;
    }
    put_views(o, t, l0_field, s->l0, 3, s);
    if (s->tweak == NO_RUNS_FIELD)
        return;
    slots = fb_vector(o, t, runs_field, 1);
    run = TABLE(o, slots, run_fields, -1);
    fb_set(o, run, 0, 7);
    put_views(o, run, 1, s->run, 4, s);
}

static void put_checkpoint(struct out *o, size_t t, unsigned field)
{
    size_t c = TABLE(o, fb_vector(o, t, field, 1), checkpoint_fields, -1);

    put_id(o, fb_field(o, c, 0), 0xfedcba9876543210);
    fb_set(o, c, 1, 12);
    fb_set(o, c, 2, 13);
    fb_set(o, c, 3, 14);
    fb_bytes(o, c, 6, sf_bytes_str("nightly"));
}

static void put_all_ssts(struct out *o, size_t t, const struct spec *s)
{
    size_t l0 = sst_count(s->l0, 3), run = sst_count(s->run, 4), slots = fb_vector(o, t, 8, l0 + run);

    for (size_t i = 0; i < l0 + run; i++) /* last first: the order promises nothing */
        put_sst(o, slots + 4 * (l0 + run - 1 - i), i < l0 ? &s->l0[i] : &s->run[i - l0], 2, s->tweak);
}

static void put_segments(struct out *o, size_t t, const struct spec *s)
{
    size_t n = 0, slots;

    while (n < 3 && s->segments[n])
        n++;
    slots = fb_vector(o, t, 16, n);
    for (size_t i = 0; i < n; i++) {
        size_t seg = TABLE(o, slots + 4 * i, segment_fields, 1);

        fb_bytes(o, seg, 0, sf_bytes_str(s->segments[i]));
        put_tree(o, seg, 2, 3, s, i > 0);
    }
}

static void put_external(struct out *o, size_t t, const char *path)
{
    size_t e = TABLE(o, fb_vector(o, t, 1, 1), external_fields, 2);

    fb_bytes(o, e, 0, sf_bytes_str(path));
    put_id(o, fb_field(o, e, 1), 5);
    put_id(o, fb_vector(o, e, 3, 1), 2);
}

static sf_buf *manifest_build(const struct spec *s)
{
    bool v1 = s->version == 1;
    uint8_t fields[20];
    size_t n = v1 ? sizeof(v1_fields) : sizeof(v2_fields), t;
    struct out o = {0}, flat = {0};
    sf_buf *buf;

    memcpy(fields, v1 ? v1_fields : v2_fields, n);
    fields[7] = 0;
    fields[1] = s->external_path ? 4 : 0;
    if (v1)
        fields[13] = s->tweak == WAL_STORE ? 4 : 0;
    else
        fields[16] = s->segments[0] ? 4 : 0;
    if (s->tweak == NO_CHECKPOINTS_FIELD)
        fields[v1 ? 11 : 12] = 0;
    if (s->tweak == NO_RUNS_FIELD)
        fields[v1 ? 9 : 10] = 0;
    fields[15] = 0;
    if (!v1)
        fields[17] = 0;
    t = fb_table(&flat, 0, fields, n);
    fb_set(&flat, t, 2, s->tweak != NOT_INITIALIZED);
    fb_set(&flat, t, 3, 31);
    fb_set(&flat, t, 5, 32);
    fb_set(&flat, t, 6, 33);
    fb_set(&flat, t, v1 ? 12 : 13, 34);
    if (s->external_path)
        put_external(&flat, t, s->external_path);
    if (v1 && s->tweak == WAL_STORE)
        fb_bytes(&flat, t, 13, sf_bytes_str(""));
    put_tree(&flat, t, v1 ? 8 : 9, v1 ? 9 : 10, s, s->segments[0] != NULL);
    if (!v1)
        put_all_ssts(&flat, t, s);
    if (!v1 && s->segments[0])
        put_segments(&flat, t, s);
    if (s->tweak != NO_CHECKPOINTS_FIELD)
        put_checkpoint(&flat, t, v1 ? 11 : 12);
    out_be(&o, 2, s->version);
    out_put(&o, flat.p, flat.n);
    buf = sf__buf_copy(heap, out_bytes(&o));
    assert_non_null(buf);
    out_free(&flat);
    out_free(&o);
    return buf;
}

#define L0                          \
    {                               \
        {1, "b", "m", NULL, NULL},  \
        {                           \
            2, "a", "z", NULL, NULL \
        }                           \
    }
#define RUN                                                   \
    {                                                         \
        {3, "a", "f", NULL, NULL}, {4, "f", "k", NULL, NULL}, \
        {                                                     \
            5, "m", NULL, NULL, NULL                          \
        }                                                     \
    }

/* Every case in both versions, unless it names one. */
static const struct spec cases[] = {
    {"everything", SF_OK, 0, AS_IT_SHOULD_BE, L0, RUN, "other/db", {0}},
    {"an empty database", SF_OK, 0, AS_IT_SHOULD_BE, {{0}}, {{0}}, NULL, {0}},
    {"not initialized", SF_OK, 0, NOT_INITIALIZED, L0, RUN, NULL, {0}},
    {"a WAL store", SF_OK, 1, WAL_STORE, L0, RUN, NULL, {0}},
    {"no checkpoints field", SF_CORRUPT, 0, NO_CHECKPOINTS_FIELD, L0, RUN, NULL, {0}},
    {"no runs field", SF_CORRUPT, 0, NO_RUNS_FIELD, L0, RUN, NULL, {0}},
    {"an SST without info", SF_CORRUPT, 0, NO_SST_INFO, L0, RUN, NULL, {0}},
    {"no format version", SF_OK, 0, NO_FORMAT_VERSION, L0, RUN, NULL, {0}},
    {"format version 3", SF_UNSUPPORTED, 0, FORMAT_VERSION_3, L0, RUN, NULL, {0}},
    {"view of an SST that is not listed", SF_CORRUPT, 2, VIEW_OF_UNKNOWN_SST, L0, RUN, NULL, {0}},
    {"run out of order", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, {{3, "f", "g", NULL, NULL}, {4, "a", "b", NULL, NULL}}, NULL, {0}},
    {"run overlaps", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, {{3, "a", "g", NULL, NULL}, {4, "f", "k", NULL, NULL}}, NULL, {0}},
    {"run overlaps, but not what is visible",
     SF_OK,
     0,
     AS_IT_SHOULD_BE,
     L0,
     {{3, "a", "z", "", "g"}, {4, "c", "x", "g", ""}},
     NULL,
     {0}},
    {"a view that shows nothing", SF_OK, 0, AS_IT_SHOULD_BE, L0, {{3, "m", "p", "", "g"}, {4, "h", "x", "", ""}}, NULL, {0}},
    {"SST of a run without keys", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, {{3, NULL, NULL, NULL, NULL}}, NULL, {0}},
    {"SST of L0 without keys", SF_OK, 0, AS_IT_SHOULD_BE, {{1, NULL, NULL, NULL, NULL}}, RUN, NULL, {0}},
    {"first key above the last", SF_CORRUPT, 0, AS_IT_SHOULD_BE, {{1, "m", "b", NULL, NULL}}, RUN, NULL, {0}},
    {"visible ranges", SF_OK, 0, AS_IT_SHOULD_BE, {{1, "b", "m", "c", "d"}, {2, "a", "z", "", "q"}}, RUN, NULL, {0}},
    {"bound type 0", SF_CORRUPT, 0, UNKNOWN_BOUND_TYPE, {{1, "b", "m", "c", "d"}}, RUN, NULL, {0}},
    {"bound without a key", SF_CORRUPT, 0, BOUND_WITHOUT_KEY, {{1, "b", "m", "c", "d"}}, RUN, NULL, {0}},
    {"path of one part", SF_OK, 0, AS_IT_SHOULD_BE, L0, RUN, "db", {0}},
    {"path leads up", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, RUN, "../db", {0}},
    {"path leads up later", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, RUN, "a/../../db", {0}},
    {"path is absolute", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, RUN, "/etc", {0}},
    {"path ends in a slash", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, RUN, "db/", {0}},
    {"path with a dot part", SF_CORRUPT, 0, AS_IT_SHOULD_BE, L0, RUN, "a/./db", {0}},
    {"path with dots in a name", SF_OK, 0, AS_IT_SHOULD_BE, L0, RUN, "a/..b/.c", {0}},
    {"segments", SF_OK, 2, AS_IT_SHOULD_BE, L0, RUN, NULL, {"b", "aa", "ab"}},
    {"segment within a segment", SF_CORRUPT, 2, AS_IT_SHOULD_BE, L0, RUN, NULL, {"ab", "b", "a"}},
    {"a segment twice", SF_CORRUPT, 2, AS_IT_SHOULD_BE, L0, RUN, NULL, {"a", "b", "a"}},
    {"one segment for all", SF_OK, 2, AS_IT_SHOULD_BE, L0, RUN, NULL, {""}},
};

static void check_view(const sf_sst_view *v, const struct sst *s, const struct spec *spec)
{
    char want[SF_ULID_TEXT_LEN + 1];
    bool external = spec->external_path && s->id == 2;

    sf__ulid_format((sf_id128){0x0123456789abcdef, s->id}, want);
    assert_string_equal(v->ulid, want);
    assert_int_equal(v->format_version, spec->tweak == NO_FORMAT_VERSION ? 1 : 2);
    assert_int_equal(v->info.has_first_key, s->first != NULL);
    assert_int_equal(v->info.index_off, 1200);
    assert_int_equal(v->info.filter_len, 200);
    assert_int_equal(v->info.codec, SF_CODEC_ZSTD);
    assert_int_equal(v->info.filter_format, 1);
    assert_true(external ? strcmp(v->external_path, spec->external_path) == 0 : v->external_path == NULL);
    for (const char *k = "a\0b\0c\0cc\0d\0f\0g\0k\0m\0p\0q\0x\0z\0"; s->first && *k; k += strlen(k) + 1) {
        bool inside = strcmp(k, s->first) >= 0 && (!s->last || strcmp(k, s->last) <= 0);
        bool visible =
            !s->visible_from || (strcmp(k, s->visible_from) >= 0 && (!*s->visible_to || strcmp(k, s->visible_to) < 0));

        if (inside && visible && !sf__sst_view_may_hold(v, sf_bytes_str(k)))
            fail_msg("%s: SST %u hides %s", spec->name, s->id, k);
        if (!visible && sf__sst_view_may_hold(v, sf_bytes_str(k)))
            fail_msg("%s: SST %u shows %s", spec->name, s->id, k);
        if (!inside && !s->visible_from && sf__sst_view_may_hold(v, sf_bytes_str(k)))
            fail_msg("%s: SST %u may hold %s", spec->name, s->id, k);
    }
}

static void check_tree(const sf_slatedb_tree *t, const struct spec *s)
{
    assert_int_equal(t->l0_count, sst_count(s->l0, 3));
    assert_int_equal(t->run_count, 1);
    assert_int_equal(t->runs[0].id, 7);
    assert_int_equal(t->runs[0].sst_count, sst_count(s->run, 4));
    for (size_t i = 0; i < t->l0_count; i++)
        check_view(&t->l0[i], &s->l0[i], s);
    for (size_t i = 0; i < t->runs[0].sst_count; i++)
        check_view(&t->runs[0].ssts[i], &s->run[i], s);
}

static void check_manifest(const sf_slatedb_manifest *m, const struct spec *s)
{
    static const char id[] = "01234567-89ab-cdef-fedc-ba9876543210";
    const sf_slatedb_checkpoint *c = sf__slatedb_manifest_checkpoint(m, id);

    assert_int_equal(m->head->version, s->version);
    assert_int_equal(m->head->initialized, s->tweak != NOT_INITIALIZED);
    assert_int_equal(m->head->has_wal_store, s->tweak == WAL_STORE);
    assert_int_equal(m->head->writer_epoch, 31);
    assert_int_equal(m->head->replay_after_wal_id, 32);
    assert_int_equal(m->head->wal_id_last_seen, 33);
    assert_int_equal(m->head->last_l0_seq, 34);
    assert_int_equal(m->view_count, sst_count(s->l0, 3) + sst_count(s->run, 4));
    assert_non_null(c);
    assert_string_equal(c->id, id);
    assert_true(c->manifest_id == 12 && c->expire_s == 13 && c->create_s == 14);
    assert_true(sf_bytes_eq(c->name, sf_bytes_str("nightly")));
    assert_ptr_equal(sf__slatedb_manifest_checkpoint(m, "01234567-89AB-CDEF-FEDC-BA9876543210"), c);
    assert_null(sf__slatedb_manifest_checkpoint(m, "01234567-89ab-cdef-fedc-ba9876543211"));
    assert_null(sf__slatedb_manifest_checkpoint(m, "nightly"));
    assert_int_equal(m->head->segmented, s->segments[0] != NULL);
    if (!m->head->segmented) {
        assert_int_equal(m->tree_count, 1);
        assert_int_equal(m->trees[0].prefix.n, 0);
        check_tree(&m->trees[0], s);
        assert_ptr_equal(sf__slatedb_manifest_tree(m, (sf_bytes){0}), &m->trees[0]);
        return;
    }
    for (size_t i = 0; i < 3 && s->segments[i]; i++) {
        const sf_slatedb_tree *t = sf__slatedb_manifest_tree(m, sf_bytes_str(s->segments[i]));

        assert_non_null(t);
        assert_true(sf_bytes_eq(t->prefix, sf_bytes_str(s->segments[i])));
        if (i == 0)
            check_tree(t, s);
        else
            assert_true(t->l0_count == 0 && t->run_count == 0);
    }
    if (s->segments[1]) {
        assert_null(sf__slatedb_manifest_tree(m, sf_bytes_str("a")));
        assert_null(sf__slatedb_manifest_tree(m, sf_bytes_str("ac")));
        assert_null(sf__slatedb_manifest_tree(m, sf_bytes_str("c")));
        assert_non_null(sf__slatedb_manifest_tree(m, sf_bytes_str("aba")));
    }
}

static void test_manifests(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        struct spec s = cases[i / 2];
        unsigned version = 1 + i % 2;
        sf_slatedb_manifest m;
        sf_buf *buf;
        sf_error err = {0};
        sf_status rc;

        if (s.version != 0 && s.version != version)
            continue;
        s.version = version;
        buf = manifest_build(&s);
        rc = sf__slatedb_manifest_decode(&m, buf, heap, &err);
        sf__buf_release(buf);
        if (rc != s.want)
            fail_msg("%s, version %u: %s: %s", s.name, version, sf_status_name(rc), err.message);
        if (rc == SF_OK)
            check_manifest(&m, &s);
        sf__slatedb_manifest_cleanup(&m);
    }
}

static void test_container(void **state)
{
    static const struct {
        const char *name;
        const char *bytes;
        size_t n;
        sf_status want;
    } bad[] = {
        {"nothing", "", 0, SF_CORRUPT},
        {"half a version", "\0", 1, SF_CORRUPT},
        {"version only", "\0\1", 2, SF_CORRUPT},
        {"version 0", "\0\0\0\0\0\0", 6, SF_UNSUPPORTED},
        {"version 3", "\0\3\0\0\0\0", 6, SF_UNSUPPORTED},
        {"root outside", "\0\1\xff\0\0\0", 6, SF_CORRUPT},
        {"root is its own offset", "\0\1\0\0\0\0", 6, SF_CORRUPT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        sf_buf *buf = sf__buf_copy(heap, sf_bytes_of(bad[i].bytes, bad[i].n));
        sf_slatedb_manifest m;
        sf_status rc;

        assert_non_null(buf);
        rc = sf__slatedb_manifest_decode(&m, buf, heap, NULL);
        if (rc != bad[i].want)
            fail_msg("%s: %s", bad[i].name, sf_status_name(rc));
        sf__buf_release(buf);
    }
}

/* The same manifest further back in its buffer: all it refers to is there, but only multiples of 8 keep it aligned. */
static void test_alignment(void **state)
{
    (void)state;
    for (unsigned version = 1; version <= 2; version++) {
        struct spec s = cases[0];
        sf_buf *whole;

        s.version = version;
        whole = manifest_build(&s);
        for (size_t shift = 0; shift <= 16; shift++) {
            sf_buf *moved = sf__buf_new(heap, whole->n + shift);
            uint32_t root = (uint32_t)sf_load_le(whole->data + 2, 4);
            sf_slatedb_manifest m;
            sf_error err = {0};
            sf_status rc;

            assert_non_null(moved);
            memcpy(moved->data, whole->data, 2);
            memset(moved->data + 2, 0, shift);
            memcpy(moved->data + 2 + shift, whole->data + 2, whole->n - 2);
            for (unsigned i = 0; i < 4; i++)
                moved->data[2 + i] = (uint8_t)((root + shift) >> 8 * i);
            rc = sf__slatedb_manifest_decode(&m, moved, heap, &err);
            if (shift % 8 == 0)
                assert_int_equal(rc, SF_OK);
            else if (rc != SF_CORRUPT || !strstr(err.message, "is not aligned"))
                fail_msg("version %u, shift %zu: %s: %s", version, shift, sf_status_name(rc), err.message);
            sf__slatedb_manifest_cleanup(&m);
            sf__buf_release(moved);
        }
        sf__buf_release(whole);
    }
}

static void test_damaged(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct spec s = i < 2 ? cases[0] : (struct spec){"", SF_OK, 2, 0, L0, RUN, "x", {"a", "b"}};
        sf_buf *whole, *copy;
        sf_slatedb_manifest m;

        s.version = i < 2 ? (unsigned)i + 1 : 2;
        whole = manifest_build(&s);
        for (size_t n = 0; n < whole->n; n++) { /* no checksum: what is cut may be what nobody reads */
            copy = sf__buf_copy(heap, (sf_bytes){whole->data, n});
            assert_non_null(copy);
            if (sf__slatedb_manifest_decode(&m, copy, heap, NULL) == SF_OK)
                assert_int_equal(m.head->checkpoint_count, 1);
            sf__slatedb_manifest_cleanup(&m);
            sf__buf_release(copy);
        }
        for (size_t bit = 0; bit < 8 * whole->n; bit++) {
            copy = sf__buf_copy(heap, sf__buf_bytes(whole));
            assert_non_null(copy);
            copy->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            (void)!sf__slatedb_manifest_decode(&m, copy, heap, NULL);
            sf__slatedb_manifest_cleanup(&m);
            sf__buf_release(copy);
        }
        for (long nth = 0;; nth++) {
            struct test_heap h;
            sf_status rc;

            heap_init(&h);
            heap_arm(&h, nth);
            rc = sf__slatedb_manifest_decode(&m, whole, &h.alloc, NULL);
            sf__slatedb_manifest_cleanup(&m);
            assert_int_equal(h.live, 0);
            if (!h.fired) {
                assert_int_equal(rc, SF_OK);
                assert_true(nth > 0);
                break;
            }
            assert_int_equal(rc, SF_NOMEM);
        }
        sf__buf_release(whole);
    }
}

static void test_names(void **state)
{
    static const struct {
        const char *ulid;
        sf_id128 id;
        bool ok;
    } ulids[] = {
        {"00000000000000000000000000", {0, 0}, true},
        {"7ZZZZZZZZZZZZZZZZZZZZZZZZZ", {UINT64_MAX, UINT64_MAX}, true},
        {"01ARZ3NDEKTSV4RRFFQ69G5FAV", {0x01563e3ab5d3d676, 0x4c61efb99302bd5b}, true},
        {"8ZZZZZZZZZZZZZZZZZZZZZZZZZ", {0, 0}, false},
        {"01ARZ3NDEKTSV4RRFFQ69G5FAI", {0, 0}, false},
        {"01ARZ3NDEKTSV4RRFFQ69G5FA", {0, 0}, false},
        {"01ARZ3NDEKTSV4RRFFQ69G5FAVX", {0, 0}, false},
        {"", {0, 0}, false},
    };
    static const struct {
        const char *uuid;
        bool ok;
    } uuids[] = {
        {"01234567-89ab-cdef-fedc-ba9876543210", true},  {"01234567-89AB-CDEF-FEDC-BA9876543210", true},
        {"01234567-89ab-cdef-fedc-ba987654321", false},  {"01234567-89ab-cdef-fedc-ba98765432100", false},
        {"0123456789abcdeffedcba9876543210", false},     {"01234567-89ab-cdef-fedc_ba9876543210", false},
        {"01234567-89ab-cdef-fedc-ba987654321g", false}, {"-1234567-89ab-cdef-fedc-ba9876543210", false},
    };
    sf_id128 id;
    char text[SF_UUID_TEXT_LEN + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(ulids) / sizeof(ulids[0]); i++) {
        if (sf__ulid_parse(sf_bytes_str(ulids[i].ulid), &id) != ulids[i].ok)
            fail_msg("%s", ulids[i].ulid);
        if (!ulids[i].ok)
            continue;
        assert_true(sf__id128_eq(id, ulids[i].id));
        sf__ulid_format(id, text);
        assert_string_equal(text, ulids[i].ulid);
    }
    for (size_t i = 0; i < sizeof(uuids) / sizeof(uuids[0]); i++) {
        if (sf__uuid_parse(sf_bytes_str(uuids[i].uuid), &id) != uuids[i].ok)
            fail_msg("%s", uuids[i].uuid);
        if (!uuids[i].ok)
            continue;
        assert_true(sf__id128_eq(id, (sf_id128){0x0123456789abcdef, 0xfedcba9876543210}));
        sf__uuid_format(id, text);
        assert_string_equal(text, uuids[0].uuid);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifests), cmocka_unit_test(test_container), cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
