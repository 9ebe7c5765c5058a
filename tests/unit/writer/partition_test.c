#include "../snapshot/vectors.h"

#include "writer/partition.h"
#include "writer/shard_build.h"

static sf_partition partition_of(sf_key_encoding encoding, uint32_t num_dbs)
{
    sf_partition p = {.encoding = encoding, .limits = {1, 100, 1000, 1050}};

    assert_int_equal(sf__router_init_hash(&p.router, num_dbs, NULL), SF_OK);
    return p;
}

/* What the existing writer stores and where, key by key. */
static void test_vectors(void **state)
{
    struct golden g;
    size_t placed = 0, refused = 0;

    (void)state;
    golden_open(&g, "vectors/key_encoding.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *bytes = sf__json_get(need(c, "write"), "bytes");
        sf_error err = SF_ERROR_INIT;
        sf_placed_row row;
        sf_partition p;
        sf_key key;
        sf_status rc;

        if (!key_of(need(c, "key"), &key))
            continue; /* the type cannot even be expressed */
        p = partition_of(SF_KEY_RAW, 7);
        assert_true(sf__key_encoding_from_name(need(c, "encoding")->str, &p.encoding));
        p.limits.min_key_bytes = 0;
        rc = sf__partition_place(&p, &key, sf_bytes_of(NULL, 0), 3, &row, &err);
        if (rc != (bytes ? SF_OK : SF_BAD_ROW))
            fail_msg("%.*s: %s %s", (int)c->raw.n, (const char *)c->raw.p, sf_status_name(rc), err.message);
        if (bytes) {
            sf_bytes expected = hex_decode(bytes->str);

            assert_true(sf_bytes_eq(row.key, expected));
            free((void *)(uintptr_t)expected.p);
            placed++;
        } else {
            assert_int_equal(err.code, SF_BAD_ROW);
            assert_int_equal(strncmp(err.message, "row 3: ", 7), 0);
            refused++;
        }
        key_cleanup(&key);
    }
    golden_close(&g);
    assert_true(placed > 40 && refused > 10);
}

static void test_routing(void **state)
{
    struct golden g;
    size_t routed = 0;

    (void)state;
    golden_open(&g, "vectors/routing.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *num = need(g.doc.root, "num_dbs")->first;
        sf_key key;

        if (!key_of(need(c, "key"), &key))
            continue;
        for (const sf_json *id = need(c, "db_id")->first; id; id = id->next, num = num->next) {
            uint32_t num_dbs = (uint32_t)strtoul((const char *)num->raw.p, NULL, 10);
            sf_partition p = partition_of(key.type == SF_KEY_INT ? SF_KEY_U64BE : SF_KEY_RAW, num_dbs);
            sf_placed_row row;

            p.limits = (sf_row_limits){0, SIZE_MAX, SIZE_MAX, SIZE_MAX};
            if (sf__partition_place(&p, &key, sf_bytes_of(NULL, 0), 1, &row, NULL) == SF_OK) {
                assert_int_equal(row.db_id, strtoul((const char *)id->raw.p, NULL, 10));
                routed++;
            }
        }
        key_cleanup(&key);
    }
    golden_close(&g);
    assert_true(routed > 500);
}

static void test_bad_rows(void **state)
{
    static uint8_t big[2000];
    const struct {
        const char *name;
        sf_key_encoding encoding;
        sf_key key;
        sf_bytes value;
        const char *message;
    } cases[] = {
        {"negative", SF_KEY_U64BE, sf_key_int(-1), {NULL, 0}, "row 9: u64be encoding requires value in [0, 2^64-1]"},
        {"too large", SF_KEY_U32BE, sf_key_int(INT64_C(1) << 32), {NULL, 0}, "row 9: u32be encoding requires"},
        {"text for a number", SF_KEY_U64BE, sf_key_str("a", 1), {NULL, 0}, "expects int key, got <class 'str'>"},
        {"bytes for a number", SF_KEY_U64BE, sf_key_bytes("12345678", 8), {NULL, 0}, "expects int key, got <class 'bytes'>"},
        {"number for a text", SF_KEY_UTF8, sf_key_int(1), {NULL, 0}, "got <class 'int'>"},
        {"empty", SF_KEY_UTF8, sf_key_str("", 0), {NULL, 0}, "row 9: the key is empty"},
        {"long key", SF_KEY_RAW, sf_key_bytes(big, 101), {NULL, 0}, "row 9: key of 101 bytes, at most 100"},
        {"long value", SF_KEY_RAW, sf_key_bytes(big, 100), {big, 1001}, "row 9: value of 1001 bytes, at most 1000"},
        {"long row", SF_KEY_RAW, sf_key_bytes(big, 60), {big, 991}, "row 9: row of 1051 bytes, at most 1050"},
        {"not UTF-8", SF_KEY_UTF8, sf_key_str("\xff", 1), {NULL, 0}, "row 9: the key is not valid UTF-8"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_partition p = partition_of(cases[i].encoding, 3);
        sf_error err = SF_ERROR_INIT;
        sf_placed_row row;

        if (sf__partition_place(&p, &cases[i].key, cases[i].value, 9, &row, &err) != SF_BAD_ROW ||
            !strstr(err.message, cases[i].message))
            fail_msg("%s: '%s'", cases[i].name, err.message);
    }
}

static void test_counts(void **state)
{
    sf_row_counts c;

    (void)state;
    sf__row_counts_init(&c, HEAP);
    assert_true(sf__row_counts_reserve(&c, 3));
    sf__row_counts_add(&c, &(sf_placed_row){.db_id = 0, .key = {NULL, 1}}, SF_KEY_STR, 0);
    sf__row_counts_add(&c, &(sf_placed_row){.db_id = 2, .key = {NULL, 8}}, SF_KEY_BYTES, 255);
    sf__row_counts_add(&c, &(sf_placed_row){.db_id = 2, .key = {NULL, 7}}, SF_KEY_STR, 256);
    assert_int_equal(c.rows, 3);
    assert_int_equal(c.key_bytes, 16);
    assert_int_equal(c.value_bytes, 511);
    assert_int_equal(c.shards[0].count, 1);
    assert_int_equal(c.shards[1].count, 0);
    assert_int_equal(c.shards[2].count, 2);
    assert_int_equal(c.shards[2].key_type, SF_KEY_BYTES); /* the first one's */
    assert_int_equal(c.key_sizes[1], 1);
    assert_int_equal(c.key_sizes[3], 1);
    assert_int_equal(c.key_sizes[4], 1);
    assert_int_equal(c.value_sizes[0], 1);
    assert_int_equal(c.value_sizes[8], 1);
    assert_int_equal(c.value_sizes[9], 1);
    assert_true(sf__row_counts_renumber(&c, 4, (const uint32_t[]){2, 0, 1}));
    assert_int_equal(c.shard_count, 4);
    assert_int_equal(c.shards[0].count, 0);
    assert_int_equal(c.shards[1].count, 2);
    assert_int_equal(c.shards[2].count, 1);
    assert_int_equal(c.shards[3].count, 0);
    sf__row_counts_cleanup(&c);
}

static void sample_rows(sf_sample *s, uint32_t first, uint32_t count, uint32_t step, uint32_t round)
{
    for (uint32_t i = 0, k = first; i < count; i++, k = (k + step) % count) {
        uint8_t key[8];
        sf_placed_row row = {.db_id = k % 5, .key = sf_bytes_of(key, 8)};
        uint32_t value[2] = {k, round};

        sf_store_be(key, 8, k);
        assert_true(sf__sample_add(s, &row, sf_bytes_of(value, sizeof(value))));
    }
}

/* The same keys whatever the order, and the value that came last. */
static void test_sample(void **state)
{
    sf_sample a, b;

    (void)state;
    assert_true(sf__sample_init(&a, 20, HEAP) && sf__sample_init(&b, 20, HEAP));
    sample_rows(&a, 0, 1000, 1, 1);
    sample_rows(&b, 17, 1000, 333, 0);
    sample_rows(&b, 5, 1000, 7, 1);
    assert_int_equal(a.count, 20);
    assert_int_equal(b.count, 20);
    for (size_t i = 0; i < 20; i++) {
        assert_true(sf_bytes_eq(a.rows[i].key, b.rows[i].key));
        assert_true(a.rows[i].value_hash.lo == b.rows[i].value_hash.lo &&
                    a.rows[i].value_hash.hi == b.rows[i].value_hash.hi);
        assert_int_equal(a.rows[i].db_id, b.rows[i].db_id);
        assert_true(i == 0 || a.rows[i - 1].hash <= a.rows[i].hash);
    }
    sf__sample_cleanup(&a);
    sf__sample_cleanup(&b);
    assert_true(sf__sample_init(&a, 0, HEAP));
    sample_rows(&a, 0, 10, 1, 0);
    assert_int_equal(a.count, 0);
    sf__sample_cleanup(&a);
    assert_true(sf__sample_init(&a, 100, HEAP));
    sample_rows(&a, 0, 10, 1, 0);
    assert_int_equal(a.count, 10);
    sf__sample_cleanup(&a);
}

static void test_backoff(void **state)
{
    static const struct {
        int64_t base_ms;
        double multiplier;
        uint32_t retry;
        int64_t wait_ms;
    } cases[] = {
        {1000, 2, 0, 1000},   {1000, 2, 1, 2000},       {1000, 2, 3, 8000},     {1000, 3, 2, 9000}, {1000, 1, 5, 1000},
        {1000, 1.5, 1, 1500}, {1000, 0.5, 2, 250},      {1000, 0, 0, 1000},     {1000, 0, 1, 0},    {0, 2, 7, 0},
        {90000, 2, 0, 90000}, {1000, 2, 1000, 3600000}, {1, 1e308, 3, 3600000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        sf_writer_options o = SF_WRITER_OPTIONS_INIT;

        assert_true(o.retry_multiplier == 2);
        o.retry_base_ms = cases[i].base_ms;
        o.retry_multiplier = cases[i].multiplier;
        assert_int_equal(sf__shard_backoff_ms(&o, cases[i].retry), cases[i].wait_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_routing), cmocka_unit_test(test_bad_rows),
        cmocka_unit_test(test_counts),  cmocka_unit_test(test_sample),  cmocka_unit_test(test_backoff),
    };

    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
