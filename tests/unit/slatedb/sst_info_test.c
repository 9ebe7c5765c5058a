#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend/slatedb/format/sst_info.h"
#include "base/limits.h"
#include "format_build.h"

enum { FIRST, INDEX_OFF, INDEX_LEN, FILTER_OFF, FILTER_LEN, CODEC, TYPE, LAST, STATS_OFF, STATS_LEN, FILTER_FORMAT };
static const uint8_t fields[] = {4, 8, 8, 8, 8, 1, 1, 4, 8, 8, 1};

#define INFO_OFF 400

struct info {
    const char *name;
    sf_status want;
    uint64_t filter_off, filter_len, index_off, index_len, stats_off, stats_len;
    uint8_t codec, type;
    const char *first, *last;
};

static const struct info cases[] = {
    {"all parts", SF_OK, 100, 50, 150, 60, 210, 70, 4, 0, "a", "b"},
    {"no filter", SF_OK, 150, 0, 150, 60, 210, 70, 0, 0, "a", "b"},
    {"no filter, offset 0", SF_OK, 0, 0, 150, 60, 210, 70, 0, 0, "a", "b"},
    {"no stats", SF_OK, 100, 50, 150, 60, 0, 0, 0, 0, "a", "b"},
    {"no last key", SF_OK, 100, 50, 150, 60, 0, 0, 0, 1, "a", NULL},
    {"no rows", SF_OK, 0, 0, 0, 20, 0, 0, 0, 0, NULL, NULL},
    {"codec 5", SF_UNSUPPORTED, 100, 50, 150, 60, 210, 70, 5, 0, "a", "b"},
    {"codec 255", SF_UNSUPPORTED, 100, 50, 150, 60, 210, 70, 255, 0, "a", "b"},
    {"type 2", SF_UNSUPPORTED, 100, 50, 150, 60, 210, 70, 0, 2, "a", "b"},
    {"no index", SF_CORRUPT, 100, 50, 150, 0, 210, 70, 0, 0, "a", "b"},
    {"index shorter than a checksum", SF_CORRUPT, 100, 50, 150, 3, 210, 70, 0, 0, "a", "b"},
    {"filter shorter than a checksum", SF_CORRUPT, 147, 3, 150, 60, 210, 70, 0, 0, "a", "b"},
    {"filter overlaps the index", SF_CORRUPT, 100, 51, 150, 60, 210, 70, 0, 0, "a", "b"},
    {"gap behind the filter", SF_CORRUPT, 100, 49, 150, 60, 210, 70, 0, 0, "a", "b"},
    {"index before the filter", SF_CORRUPT, 100, 50, 10, 60, 210, 70, 0, 0, "a", "b"},
    {"stats overlap the index", SF_CORRUPT, 100, 50, 150, 60, 209, 70, 0, 0, "a", "b"},
    {"stats overlap the info", SF_CORRUPT, 100, 50, 150, 60, 210, 191, 0, 0, "a", "b"},
    {"stats end at the info", SF_OK, 100, 50, 150, 60, 210, 190, 0, 0, "a", "b"},
    {"index past the end", SF_CORRUPT, 100, 50, 150, 251, 0, 0, 0, 0, "a", "b"},
    {"index wraps around", SF_CORRUPT, 100, 50, 150, UINT64_MAX - 100, 0, 0, 0, 0, "a", "b"},
    {"filter wraps around", SF_CORRUPT, UINT64_MAX - 10, 50, 150, 60, 0, 0, 0, 0, "a", "b"},
    {"an index too large for the object", SF_CORRUPT, 100, 50, 150, SF_LIMIT_META_BYTES + 1u, 0, 0, 0, 0, "a", "b"},
    {"keys the wrong way", SF_CORRUPT, 100, 50, 150, 60, 210, 70, 0, 0, "b", "a"},
    {"one key", SF_OK, 100, 50, 150, 60, 210, 70, 0, 0, "a", "a"},
};

static void info_build(struct out *o, const struct info *c)
{
    uint8_t sizes[sizeof(fields)];
    size_t t;

    memcpy(sizes, fields, sizeof(fields));
    sizes[FIRST] = c->first ? 4 : 0;
    sizes[LAST] = c->last ? 4 : 0;
    t = fb_table(o, 0, sizes, sizeof(fields));
    fb_set(o, t, INDEX_OFF, c->index_off);
    fb_set(o, t, INDEX_LEN, c->index_len);
    fb_set(o, t, FILTER_OFF, c->filter_off);
    fb_set(o, t, FILTER_LEN, c->filter_len);
    fb_set(o, t, STATS_OFF, c->stats_off);
    fb_set(o, t, STATS_LEN, c->stats_len);
    fb_set(o, t, CODEC, c->codec);
    fb_set(o, t, TYPE, c->type);
    fb_set(o, t, FILTER_FORMAT, 1);
    if (c->first)
        fb_bytes(o, t, FIRST, sf_bytes_str(c->first));
    if (c->last)
        fb_bytes(o, t, LAST, sf_bytes_str(c->last));
}

static void object_build(struct out *o, const struct info *c, uint16_t version)
{
    struct out flat = {0};

    for (size_t i = 0; i < INFO_OFF; i++)
        out_be(o, 1, 0xee);
    info_build(&flat, c);
    build_stored(o, out_bytes(&flat), SF_CODEC_NONE);
    out_be(o, 8, INFO_OFF);
    out_be(o, 2, version);
    out_free(&flat);
}

static void test_infos(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct info *c = &cases[i];
        struct out o = {0};
        sf_sst_info info;
        sf_sst_footer footer;
        bool empty = true;
        sf_error err = {0};
        sf_status rc;

        object_build(&o, c, 2);
        rc = sf__sst_open(&info, &footer, &empty, out_bytes(&o), &err);
        if (rc != c->want)
            fail_msg("%s: %s: %s", c->name, sf_status_name(rc), err.message);
        if (rc == SF_OK) {
            assert_false(empty);
            assert_true(footer.info_off == INFO_OFF && footer.version == 2 && footer.info_len == o.n - INFO_OFF - 10);
            assert_true(info.filter_off == c->filter_off && info.filter_len == c->filter_len);
            assert_true(info.index_off == c->index_off && info.index_len == c->index_len);
            assert_true(info.stats_off == c->stats_off && info.stats_len == c->stats_len);
            assert_true(info.codec == (sf_codec)c->codec && info.sst_type == c->type && info.filter_format == 1);
            assert_true(info.has_first_key == (c->first != NULL) && info.has_last_key == (c->last != NULL));
            assert_true(!c->first || sf_bytes_eq(info.first_key, sf_bytes_str(c->first)));
            assert_true(!c->last || sf_bytes_eq(info.last_key, sf_bytes_str(c->last)));
            assert_int_equal(sf__sst_blocks_end(&info), c->filter_len > 0 ? c->filter_off : c->index_off);
            assert_int_equal(sf__sst_meta_off(&info) + sf__sst_meta_len(&info), c->index_off + c->index_len);
        }
        out_free(&o);
    }
}

/* In a manifest nothing is known of the object's size. */
static void test_parts_of_any_object(void **state)
{
    static const struct info big[] = {
        {"a large object", SF_OK, 1u << 30, 50, (1u << 30) + 50, 60, 0, 0, 0, 0, "a", "b"},
        {"a large index", SF_OK, 0, 0, 150, SF_LIMIT_META_BYTES, 0, 0, 0, 0, "a", "b"},
        {"an index too large", SF_UNSUPPORTED, 0, 0, 150, SF_LIMIT_META_BYTES + 1u, 0, 0, 0, 0, "a", "b"},
        {"a filter too large", SF_UNSUPPORTED, 0, UINT64_MAX - 9, UINT64_MAX - 9, 9, 0, 0, 0, 0, "a", "b"},
        {"an index that wraps around", SF_CORRUPT, 0, 0, UINT64_MAX - 8, 9, 0, 0, 0, 0, "a", "b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(big) / sizeof(big[0]); i++) {
        struct out o = {0};
        sf_fb_table t;
        sf_sst_info info;
        sf_status rc;

        info_build(&o, &big[i]);
        assert_int_equal(sf__fb_root(out_bytes(&o), &t, NULL), SF_OK);
        rc = sf__sst_info_from_table(&info, &t, UINT64_MAX, NULL);
        if (rc != big[i].want)
            fail_msg("%s: %s", big[i].name, sf_status_name(rc));
        out_free(&o);
    }
}

static void test_damage_is_found(void **state)
{
    struct out o = {0};
    sf_sst_info info;
    sf_sst_footer footer;
    bool empty;

    (void)state;
    object_build(&o, &cases[0], 2);
    for (size_t n = 0; n < o.n; n++) {
        uint8_t *copy = malloc(n + 1);
        sf_status rc;

        assert_non_null(copy);
        memcpy(copy + 1, o.p, n);
        empty = false;
        rc = sf__sst_open(&info, &footer, &empty, (sf_bytes){copy + 1, n}, NULL);
        if (n <= SF_SST_FOOTER_BYTES)
            assert_true(rc == SF_OK && empty && info.index_len == 0);
        else
            assert_true(rc == SF_CORRUPT || rc == SF_UNSUPPORTED);
        free(copy);
    }
    for (size_t bit = 8 * INFO_OFF; bit < 8 * o.n; bit++) {
        o.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sf__sst_open(&info, &footer, &empty, out_bytes(&o), NULL) == SF_OK)
            fail_msg("bit %zu flipped: accepted", bit);
        o.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    out_free(&o);
}

static void test_footers(void **state)
{
    static const struct {
        const char *name;
        uint64_t info_off;
        uint16_t version;
        uint64_t object_size;
        size_t tail;
        sf_status want;
    } footers[] = {
        {"right", 900, 2, 1000, 10, SF_OK},
        {"version 1", 900, 1, 1000, 10, SF_OK},
        {"longer tail", 900, 2, 1000, 500, SF_OK},
        {"version 0", 900, 0, 1000, 10, SF_UNSUPPORTED},
        {"version 3", 900, 3, 1000, 10, SF_UNSUPPORTED},
        {"a checksum and no info", 986, 2, 1000, 10, SF_CORRUPT},
        {"one byte of info", 985, 2, 1000, 10, SF_OK},
        {"info in the footer", 990, 2, 1000, 10, SF_CORRUPT},
        {"info outside", 1000, 2, 1000, 10, SF_CORRUPT},
        {"info at 2^64-1", UINT64_MAX, 2, 1000, 10, SF_CORRUPT},
        {"tail too short", 900, 2, 1000, 9, SF_CORRUPT},
        {"tail longer than the object", 0, 2, 100, 101, SF_CORRUPT},
        {"object too small", 0, 2, 10, 10, SF_CORRUPT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(footers) / sizeof(footers[0]); i++) {
        uint8_t tail[600] = {0};
        sf_sst_footer f;
        sf_status rc;

        sf_store_be(tail + 590, 8, footers[i].info_off);
        sf_store_be(tail + 598, 2, footers[i].version);
        rc = sf__sst_footer_decode(&f, (sf_bytes){tail + 600 - footers[i].tail, footers[i].tail},
                                   footers[i].object_size, NULL);
        if (rc != footers[i].want)
            fail_msg("%s: %s", footers[i].name, sf_status_name(rc));
        if (rc == SF_OK)
            assert_true(f.info_off + f.info_len + SF_SST_FOOTER_BYTES == footers[i].object_size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_infos),
        cmocka_unit_test(test_parts_of_any_object),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_footers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
