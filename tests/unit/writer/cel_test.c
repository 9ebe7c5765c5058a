/* Publishing what is sharded by CEL. Where rows lie, the sampled keys tell: they are read back from the shard
 * that the writer holds for theirs. */
#include "world.h"

static const sf_routing_column columns[] = {{"region", "string"}, {"n", "int"}};
static const char *const regions[] = {"us", "\xc3\xa9u", "ap", "z"};

static sf_writer_options cel_options(sf_cel_sharding *cel, const char *expr, sf_routing_mode mode)
{
    sf_writer_options o = world_options();

    *cel = (sf_cel_sharding)SF_CEL_SHARDING_INIT;
    cel->expr = expr;
    cel->columns = columns;
    cel->column_count = 2;
    cel->mode = mode;
    o.num_dbs = 0;
    o.cel = cel;
    o.sample_keys = 50;
    return o;
}

/* Row i is of region i % 4. */
static sf_status add_rows(struct world *w, sf_writer *writer, unsigned count, size_t value_bytes)
{
    static const uint8_t zeros[4096];
    sf_status rc = SF_OK;

    for (unsigned i = 0; i < count && rc == SF_OK; i++) {
        const char *region = regions[i % 4];
        sf_routing_value values[] = {
            {.column = "n", .type = SF_ROUTING_INT, .i = i},
            {.column = "region", .type = SF_ROUTING_STR, .b = {(const uint8_t *)region, strlen(region)}}};
        sf_routing_context context = {.values = values, .count = 2};
        sf_key key = sf_key_int(i);

        key.context = &context;
        rc = sf_writer_add(writer, &key, (sf_bytes){zeros, value_bytes}, &w->err);
    }
    return rc;
}

static sf_status publish(struct world *w, const sf_writer_options *o, unsigned count, size_t value_bytes)
{
    sf_writer *writer = world_writer(w, o);
    sf_status rc;

    if (!writer)
        return w->err.code;
    rc = add_rows(w, writer, count, value_bytes);
    if (rc == SF_OK)
        rc = sf_writer_finish(writer, &w->err);
    sf_writer_free(writer);
    return rc;
}

#define JSON(expr, values)                                                              \
    "{\"cel_columns\": {\"n\": \"int\", \"region\": \"string\"}, \"cel_expr\": \"" expr \
    "\", \"hash_algorithm\": \"xxh3_64\", \"routing_values\": " values ", \"strategy\": \"cel\"}"

static void test_modes(void **state)
{
    static const struct {
        const char *expr;
        sf_routing_mode mode;
        uint32_t num_dbs; /* given */
        unsigned rows;
        uint32_t expected;
        const char *json;
    } cases[] = {
        {"n % 3", SF_ROUTING_DIRECT, 0, 100, 3, JSON("n % 3", "null")},
        {"n % 3", SF_ROUTING_DIRECT, 7, 100, 7, JSON("n % 3", "null")},
        {"n % 3", SF_ROUTING_DIRECT, 0, 0, 1, JSON("n % 3", "null")},
        {"region", SF_ROUTING_INFERRED, 0, 100, 4, JSON("region", "[\"ap\", \"us\", \"z\", \"\\u00e9u\"]")},
        {"region", SF_ROUTING_INFERRED, 0, 2, 2, JSON("region", "[\"us\", \"\\u00e9u\"]")},
        {"region", SF_ROUTING_INFERRED, 0, 0, 1, JSON("region", "[]")},
        {"0 - n % 5", SF_ROUTING_INFERRED, 0, 100, 5, JSON("0 - n % 5", "[-4, -3, -2, -1, 0]")},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_cel_sharding cel;
        sf_writer_options o = cel_options(&cel, cases[i].expr, cases[i].mode);
        sf_snapshot_manifest *m;
        uint64_t rows = 0;

        o.num_dbs = cases[i].num_dbs;
        o.run_id = NULL;
        if (publish(w, &o, cases[i].rows, 5) != SF_OK)
            fail_msg("%s: %s", cases[i].expr, w->err.message);
        m = world_manifest(w);
        assert_int_equal(m->strategy, SF_SHARDING_CEL);
        assert_int_equal(m->num_dbs, cases[i].expected);
        assert_string_equal(m->sharding_json, cases[i].json);
        for (size_t k = 0; k < m->shard_count; k++)
            rows += m->shards[k].row_count;
        assert_int_equal(rows, cases[i].rows);
        sf__snapshot_manifest_free(m);
    }
}

static void test_given_values(void **state)
{
    const sf_routing_value values[] = {{.type = SF_ROUTING_STR, .b = {(const uint8_t *)"z", 1}},
                                       {.type = SF_ROUTING_STR, .b = {(const uint8_t *)"us", 2}},
                                       {.type = SF_ROUTING_STR, .b = {(const uint8_t *)"ap", 2}}};
    struct world *w = *state;
    sf_cel_sharding cel;
    sf_writer_options o = cel_options(&cel, "region", SF_ROUTING_CATEGORICAL);
    sf_snapshot_manifest *m;

    cel.values = values;
    cel.value_count = 3;
    assert_int_equal(publish(w, &o, 1, 5), SF_OK);
    m = world_manifest(w);
    assert_int_equal(m->num_dbs, 3);
    assert_string_equal(m->sharding_json, JSON("region", "[\"z\", \"us\", \"ap\"]"));
    assert_int_equal(m->shard_count, 1);
    assert_int_equal(m->shards[0].db_id, 1);
    sf__snapshot_manifest_free(m);
    o.run_id = "r2";
    assert_int_equal(publish(w, &o, 2, 5), SF_NO_ROUTE);
    assert_string_equal(w->err.message,
                        "row 2: Categorical CEL routing token '\xc3\xa9u' is not present in this snapshot.");
    o.num_dbs = 4;
    assert_int_equal(publish(w, &o, 1, 5), SF_INVALID);
}

/* Shards that are found while rows spill, in an order that is not theirs. */
static void test_spills(void **state)
{
    struct world *w = *state;
    sf_cel_sharding cel;
    sf_writer_options o = cel_options(&cel, "'x' + string(n * 7919 % 499)", SF_ROUTING_INFERRED);
    sf_snapshot_manifest *m;

    o.memory_bytes = 1 << 16;
    o.spill_folder = w->folder;
    if (publish(w, &o, 3000, 200) != SF_OK)
        fail_msg("%s", w->err.message);
    m = world_manifest(w);
    assert_int_equal(m->num_dbs, 499);
    assert_int_equal(m->shard_count, 499);
    for (size_t i = 0; i < m->shard_count; i++)
        assert_true(m->shards[i].row_count == 6 || m->shards[i].row_count == 7);
    sf__snapshot_manifest_free(m);
}

static void test_what_is_refused(void **state)
{
    static const sf_routing_value twice[] = {{.type = SF_ROUTING_INT, .i = 1}, {.type = SF_ROUTING_UINT, .u = 1}};
    static const sf_routing_value real[] = {{.type = SF_ROUTING_DOUBLE, .d = 1}};
    static const struct {
        const char *expr;
        sf_routing_mode mode;
        const sf_routing_value *values;
        size_t value_count;
        uint32_t num_dbs;
        sf_status status;
        const char *message;
    } cases[] = {
        {"", SF_ROUTING_DIRECT, NULL, 0, 0, SF_INVALID, "CEL strategy requires cel_expr"},
        {NULL, SF_ROUTING_DIRECT, NULL, 0, 0, SF_INVALID, "CEL strategy requires cel_expr"},
        {"n +", SF_ROUTING_DIRECT, NULL, 0, 0, SF_INVALID, "Failed to compile CEL expression 'n +'"},
        {"n", SF_ROUTING_CATEGORICAL, twice, 2, 0, SF_INVALID, "must not contain duplicates"},
        {"n", SF_ROUTING_CATEGORICAL, real, 1, 0, SF_INVALID, "must be int or str"},
        {"n", SF_ROUTING_DIRECT, twice, 1, 0, SF_INVALID, "in categorical mode only"},
        {"n", SF_ROUTING_INFERRED, NULL, 0, 3, SF_INVALID, "sharding.num_dbs is 3, and the routing values make it 0"},
        {"n", (sf_routing_mode)3, NULL, 0, 0, SF_INVALID, "there is no mode 3"},
        {"n + 1", SF_ROUTING_DIRECT, NULL, 0, 0, SF_NO_ROUTE, "non-consecutive shard IDs: distinct count=5, max+1=6."},
        {"n", SF_ROUTING_DIRECT, NULL, 0, 3, SF_NO_ROUTE, "row 4: the CEL expression gave shard 3"},
        {"n * 1000000", SF_ROUTING_DIRECT, NULL, 0, 0, SF_NO_ROUTE, "row 3: the CEL expression gave shard 2000000"},
        {"n - 3", SF_ROUTING_DIRECT, NULL, 0, 0, SF_NO_ROUTE,
         "row 1: the CEL expression gave shard -3: shards have the numbers 0 to 1048575"},
        {"10 / n", SF_ROUTING_INFERRED, NULL, 0, 0, SF_NO_ROUTE, "row 1: CEL evaluation failed: divide by zero"},
        {"n > 1 ? dyn(n) : dyn(region)", SF_ROUTING_INFERRED, NULL, 0, 0, SF_INVALID,
         "row 3: routing_values must all be of one type"},
        {"n > 1", SF_ROUTING_DIRECT, NULL, 0, 0, SF_INVALID,
         "row 1: CEL expression must return int, str, or bytes; got bool"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_cel_sharding cel;
        sf_writer_options o = cel_options(&cel, cases[i].expr, cases[i].mode);
        sf_status rc;

        cel.values = cases[i].values;
        cel.value_count = cases[i].value_count;
        o.num_dbs = cases[i].num_dbs;
        o.run_id = NULL;
        rc = publish(w, &o, 5, 5);
        if (rc != cases[i].status || !strstr(w->err.message, cases[i].message))
            fail_msg("case %zu: %s %s", i, sf_status_name(rc), w->err.message);
    }
    world_expect_current(w, NULL);
    assert_int_equal(world_object_count(w, "shards"), 0);
}

/* What stands behind a NUL does not route, for readers either; that is said. */
static void test_columns_with_nul(void **state)
{
    struct world *w = *state;
    sf_cel_sharding cel;
    sf_writer_options o = cel_options(&cel, "region", SF_ROUTING_INFERRED);
    sf_writer *writer = world_writer(w, &o);
    sf_snapshot_manifest *m;

    assert_non_null(writer);
    for (int i = 0; i < 3; i++) {
        const sf_routing_value value = {
            .column = "region", .type = SF_ROUTING_STR, .whole = i == 2, .b = {(const uint8_t *)"us\0x", 4}};
        const sf_routing_context context = {&value, 1};
        sf_key key = sf_key_int(i);

        key.context = &context;
        assert_int_equal(sf_writer_add(writer, &key, (sf_bytes){NULL, 0}, &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    assert_string_equal(sf_writer_report(writer)->warning,
                        "of 2 rows a routing column has a NUL: what stands behind it did not count for their shard");
    sf_writer_free(writer);
    m = world_manifest(w);
    assert_string_equal(m->sharding_json, JSON("region", "[\"us\", \"us\\u0000x\"]"));
    sf__snapshot_manifest_free(m);
}

/* A driver that only publishes knows of shards what it is told. */
static void test_built_elsewhere(void **state)
{
    struct world *w = *state;
    sf_cel_sharding cel;
    sf_writer_options o = cel_options(&cel, "n", SF_ROUTING_DIRECT);
    sf_writer *builder, *driver = world_writer(w, &o);
    sf_snapshot_manifest *m;
    const sf_write_report *r;

    assert_non_null(driver);
    assert_int_equal(sf_writer_add_attempt(driver, &(sf_attempt){.db_id = 0}, &w->err), SF_INVALID);
    assert_non_null(strstr(w->err.message, "num_dbs must be > 0"));
    sf_writer_free(driver);
    o.num_dbs = 9;
    o.run_id = "r2";
    builder = world_writer(w, &o);
    assert_non_null(builder);
    assert_int_equal(add_rows(w, builder, 3, 5), SF_OK);
    assert_int_equal(sf_writer_build(builder, &w->err), SF_OK);
    r = sf_writer_report(builder);
    o.run_id = "r3";
    driver = world_writer(w, &o);
    assert_non_null(driver);
    for (size_t i = 0; i < r->attempt_count; i++)
        assert_int_equal(sf_writer_add_attempt(driver, &r->attempts[i], &w->err), SF_OK);
    assert_int_equal(sf_writer_publish(driver, &w->err), SF_OK);
    sf_writer_free(driver);
    sf_writer_free(builder);
    m = world_manifest(w);
    assert_int_equal(m->num_dbs, 9);
    assert_int_equal(m->shard_count, 3);
    assert_int_equal(m->strategy, SF_SHARDING_CEL);
    sf__snapshot_manifest_free(m);
}

static void test_without_memory(void **state)
{
    struct world *w = *state;
    unsigned refused = 0;
    sf_status rc = SF_NOMEM;
    unsigned long n;

    for (n = 0; n < 20000; n += n < 300 ? 1 : 7) {
        sf_cel_sharding cel;
        sf_writer_options o = cel_options(&cel, "region + 'x'", SF_ROUTING_INFERRED);
        bool fired;

        o.run_id = NULL;
        o.threads = 1;
        o.sample_keys = 3;
        heap_arm(&w->heap, (long)n);
        rc = publish(w, &o, 12, 5);
        fired = heap_disarm(&w->heap);
        if (rc != SF_OK && rc != SF_NOMEM)
            fail_msg("allocation %lu: %s %s", n, sf_status_name(rc), w->err.message);
        refused += rc == SF_NOMEM;
        if (!fired)
            break;
    }
    assert_int_equal(rc, SF_OK);
    assert_true(n < 20000);
    assert_true(refused > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_modes),
        WORLD_TEST(test_given_values),
        WORLD_TEST(test_spills),
        WORLD_TEST(test_what_is_refused),
        WORLD_TEST(test_built_elsewhere),
        WORLD_TEST(test_without_memory),
        WORLD_TEST(test_columns_with_nul),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
