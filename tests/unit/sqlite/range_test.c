/* SQLite shards read by ranges: how many requests that takes, and what becomes of bad answers, pages, trees and sidecars. */
#include "world.h"

#include <zstd.h>

#include "backend/shard_check.h"
#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/opening_record.h"
#include "backend/sqlite/shard_writer.h"
#include "base/clock.h"
#include "base/pin.h"

#define ROWS 20000u
#define FEW_ROWS 2000u

/* By our own writer, with its sidecar. */
static void put_rows_of(struct world *w, uint32_t count, size_t value_bytes)
{
    sf_sqlite_writer_options o = SF_SQLITE_WRITER_OPTIONS_INIT;
    sf_shard_target target = {
        .rt = w->env.rt, .store = w->inner, .path = PATH, .url = "u", .db_id = 1, .upload = SF_UPLOAD_OPTIONS_INIT};
    sf_shard_writer *writer = NULL;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    uint8_t key[8], *value = calloc(1, value_bytes);

    assert_non_null(value);
    assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_OK);
    for (uint32_t i = 0; i < count; i++) {
        sf_store_be(key, 8, 2 * i);
        sf_store_be(value, 8, i);
        assert_int_equal(sf__shard_writer_add(writer, sf_bytes_of(key, 8), sf_bytes_of(value, value_bytes), &e), SF_OK);
    }
    free(value);
    assert_int_equal(sf__shard_writer_finish(writer, &r, &e), SF_OK);
    sf__shard_writer_free(writer);
    sf__shard_result_cleanup(&r);
}

/* Of some 100 bytes each. */
static void put_rows(struct world *w, uint32_t count)
{
    put_rows_of(w, count, 92);
}

static sf_status look_up(sf_shard *s, uint32_t row, sf_error *err)
{
    uint8_t key[8];
    sf_value v = {0};
    sf_status rc;

    sf_store_be(key, 8, 2 * row);
    rc = get_one(s, sf_bytes_of(key, 8), &v, err);
    if (rc == SF_OK && (!v.found || sf_load_be(v.bytes.p, 8) != row))
        fail_msg("row %u", row);
    sf__owner_release(v.owner);
    return rc;
}

static bool is_in_memory(sf_shard *s, uint32_t row)
{
    uint8_t key[8];
    sf_value v = {0};
    sf_status rc;

    sf_store_be(key, 8, 2 * row);
    rc = try_one(s, sf_bytes_of(key, 8), &v, NULL);
    sf__owner_release(v.owner);
    return rc == SF_OK;
}

static void world_of(struct world *w, uint32_t rows)
{
    world_init(w);
    w->mode = SF_SQLITE_RANGE;
    put_rows(w, rows);
}

static void world_by_ranges(struct world *w)
{
    world_of(w, ROWS);
}

static unsigned long gets(const struct world *w)
{
    return w->faults->verbs[SF_STORE_GET];
}

/* ------------------------------------------------------------------ requests ------------------------------------- */

static void a_cold_look_up_is_one_request(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;
    char path[512];
    sf_shard *s;
    unsigned looked = 0;

    world_by_ranges(&w);
    s = opened(&w);
    assert_int_equal(w.faults->verbs[SF_STORE_HEAD], 1);
    assert_int_equal(gets(&w), 1); /* the sidecar */
    assert_int_equal(copies(&w, path), 0);
    for (uint32_t row = 5; row < ROWS; row += 4321) {
        unsigned long before = gets(&w);

        if (is_in_memory(s, row)) /* one of those above the leaves */
            continue;
        looked++;
        assert_int_equal(look_up(s, row, &e), SF_OK);
        assert_int_equal(gets(&w), before + 1);
        assert_true(is_in_memory(s, row));
        assert_int_equal(look_up(s, row, &e), SF_OK);
        assert_int_equal(gets(&w), before + 1);
    }
    assert_true(looked >= 3);
    sf__shard_release(s);
    world_cleanup(&w);
}

/* Each look-up reads what it needs, whenever it is asked. */
static void nothing_is_kept_without_a_cache(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;

    world_by_ranges(&w);
    w.uncached = true;
    s = opened(&w);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(look_up(s, 7777, &e), SF_OK);
        assert_int_equal(gets(&w), 2 + i);
    }
    sf__shard_release(s);
    world_cleanup(&w);
}

static void neighbours_are_one_request(void **state)
{
    enum { COUNT = 1000 };
    struct world w;
    struct got g;
    uint8_t bytes[COUNT][8];
    sf_bytes keys[COUNT];
    sf_shard *s;

    world_by_ranges(&w);
    s = opened(&w);
    for (uint32_t i = 0; i < COUNT; i++) { /* 1,000 rows side by side, in any order */
        sf_store_be(bytes[i], 8, 2 * (4000 + i * 7 % COUNT));
        keys[i] = sf_bytes_of(bytes[i], 8);
    }
    get_begin(&g, s, keys, COUNT, SF_NO_DEADLINE);
    get_wait(&g);
    assert_int_equal(g.error.code, SF_OK);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_true(g.values[i].found && sf_load_be(g.values[i].bytes.p, 8) == 4000 + i * 7 % COUNT);
    assert_int_equal(gets(&w), 2);
    get_free(&g);
    sf__shard_release(s);
    world_cleanup(&w);
}

/* A scan asks for more each time; one that stops soon has not read much. */
static void scans_read_ahead(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;

    for (int reverse = 0; reverse < 2; reverse++) {
        sf_scan_range few = {.reverse = reverse, .limit = 10}, all = {.reverse = reverse};
        struct scan_run r;
        sf_shard *s;
        uint32_t rows = 0;

        world_by_ranges(&w);
        s = opened(&w);
        assert_int_equal(scan_begin(&r, s, &few, &e), SF_OK);
        scan_step_begin(&r, 10, SIZE_MAX, SF_NO_DEADLINE);
        scan_step_wait(&r);
        assert_int_equal(r.step.batch->count, 10);
        sf__row_batch_free(r.step.batch);
        scan_end(&r);
        assert_int_equal(gets(&w), 2);
        fault_store_reset(w.faults);
        assert_int_equal(scan_begin(&r, s, &all, &e), SF_OK);
        do {
            scan_step_begin(&r, 5000, SIZE_MAX, SF_NO_DEADLINE);
            scan_step_wait(&r);
            for (size_t i = 0; i < r.step.batch->count; i++, rows++)
                assert_int_equal(sf_load_be(r.step.batch->rows[i].key.p, 8), 2 * (reverse ? ROWS - 1 - rows : rows));
            sf__row_batch_free(r.step.batch);
        } while (!r.step.end);
        assert_int_equal(rows, ROWS);
        assert_true(gets(&w) < 16); /* 600 leaves */
        scan_end(&r);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

/* Pages that rows go on on are read as leaves are: many at a time, and each once. */
static void scans_read_rows_on_other_pages_once(void **state)
{
    static const struct {
        size_t value_bytes;
        uint32_t rows;
        unsigned long most; /* requests */
    } cases[] = {{2000, 4000, 80}, {30000, 400, 80}};

    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        const bool reverse = i % 2;
        const uint32_t rows = cases[i / 2].rows;
        sf_scan_range all = {.reverse = reverse};
        uint32_t found = 0;
        struct scan_run r;
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_shard *s;

        world_init(&w);
        w.mode = SF_SQLITE_RANGE;
        put_rows_of(&w, rows, cases[i / 2].value_bytes);
        s = opened(&w);
        fault_store_reset(w.faults);
        assert_int_equal(scan_begin(&r, s, &all, &e), SF_OK);
        do {
            scan_step_begin(&r, 1000, SIZE_MAX, SF_NO_DEADLINE);
            scan_step_wait(&r);
            assert_int_equal(r.step.error.code, SF_OK);
            for (size_t k = 0; k < r.step.batch->count; k++, found++) {
                assert_int_equal(sf_load_be(r.step.batch->rows[k].value.p, 8), reverse ? rows - 1 - found : found);
                assert_int_equal(r.step.batch->rows[k].value.n, cases[i / 2].value_bytes);
            }
            sf__row_batch_free(r.step.batch);
        } while (!r.step.end);
        assert_int_equal(found, rows);
        if (gets(&w) > cases[i / 2].most)
            fail_msg("%zu bytes, %s: %lu requests", cases[i / 2].value_bytes, reverse ? "backwards" : "forwards",
                     gets(&w));
        scan_end(&r);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

/* ------------------------------------------------------------------ residency ------------------------------------ */

static void check_in_memory(const char *name, struct world *w, sf_shard *s, uint32_t rows)
{
    fault_store_reset(w->faults);
    for (uint32_t row = 0; row < rows; row += 7)
        if (!is_in_memory(s, row))
            fail_msg("%s: row %u is not in memory", name, row);
    assert_int_equal(gets(w), 0);
}

static void pages_that_stay(void **state)
{
    for (unsigned i = 0; i < WAY_COUNT; i++) {
        const uint64_t most = 64 << 20;
        struct staying how;
        struct world w;
        uint64_t room = 0, bytes;
        sf_shard *s;

        world_of(&w, ROWS);
        w.mode = ways[i].mode;
        w.uncached = ways[i].uncached;
        if (!ways[i].sidecar)
            store_delete(w.inner, PATH "/" SF_SIDECAR_NAME);
        assert_int_equal(sf__block_cache_new(&w.cache, most, &sf__allocator_default, NULL), SF_OK);
        s = opened(&w);
        bytes = s->vtable->resident_bytes(s, SF_RESIDENCY_MEMORY, &room);
        assert_true(bytes == room && bytes > 0 && bytes < most);
        fault_store_reset(w.faults);
        assert_int_equal(stay(s, &how, SF_RESIDENCY_INDEX, false), SF_OK);
        if (ways[i].sidecar || ways[i].mode != SF_SQLITE_RANGE)
            assert_int_equal(gets(&w), 0);
        else
            assert_in_range(gets(&w), 1, 20); /* of 580 pages */
        fault_store_reset(w.faults);
        assert_int_equal(stay(s, &how, SF_RESIDENCY_INDEX, false), SF_OK);
        assert_int_equal(gets(&w), 0);
        assert_int_equal(stay(s, &how, SF_RESIDENCY_MEMORY, true), SF_CANCELLED);
        assert_int_equal(stay(s, &how, SF_RESIDENCY_MEMORY, false), SF_OK);
        assert_true(how.bytes <= bytes);
        check_in_memory(ways[i].name, &w, s, ROWS);
        assert_int_equal(stay(s, &how, SF_RESIDENCY_MEMORY, false), SF_OK);
        assert_int_equal(how.bytes, 0);
        assert_int_equal(s->vtable->can_stay(s, SF_RESIDENCY_DISK, NULL),
                         ways[i].mode == SF_SQLITE_RANGE ? SF_UNSUPPORTED : SF_OK);
        if (ways[i].mode != SF_SQLITE_RANGE)
            assert_int_equal(stay(s, &how, SF_RESIDENCY_DISK, false), SF_OK);
        sf__shard_release(s);
        expect_closed(&w);
        assert_int_equal(sf__block_cache_charged(w.cache), 0);
        sf__block_cache_release(w.cache);
        world_cleanup(&w);
    }
}

/* Whoever comes behind another one has nothing left to read when that has ended. */
static void two_who_are_to_stay(void **state)
{
    static const sf_residency where[] = {SF_RESIDENCY_INDEX, SF_RESIDENCY_MEMORY};

    for (size_t i = 0; i < 2; i++) {
        struct staying both[2];
        struct world w;
        sf_shard *s;

        world_of(&w, ROWS);
        w.mode = SF_SQLITE_RANGE;
        store_delete(w.inner, PATH "/" SF_SIDECAR_NAME);
        assert_int_equal(sf__block_cache_new(&w.cache, 64 << 20, &sf__allocator_default, NULL), SF_OK);
        s = opened(&w);
        stay_both(s, both, where[i]);
        assert_int_equal(both[0].error.code, SF_OK);
        assert_int_equal(both[1].error.code, SF_OK);
        sf__shard_release(s);
        expect_closed(&w);
        sf__block_cache_release(w.cache);
        world_cleanup(&w);
    }
}

/* ------------------------------------------------------------------ records -------------------------------------- */

static sf_buf *record_of(struct world *w, bool has_sidecar, const char *etag)
{
    sf_store_op op = {.verb = SF_STORE_HEAD, .key = PATH "/" SF_SQLITE_DB_NAME, .deadline_ns = SF_NO_DEADLINE};
    sf_sqlite_record r = {.has_sidecar = has_sidecar};
    sf_buf *b;

    assert_int_equal(store_ask(w->inner, &op), SF_OK);
    r.db_bytes = op.object_size;
    snprintf(r.etag, sizeof(r.etag), "%s", etag ? etag : op.etag);
    sf__store_op_cleanup(&op, &sf__allocator_default);
    assert_int_equal(sf__sqlite_record_encode(&b, &r, &sf__allocator_default, NULL), SF_OK);
    assert_non_null(b);
    return b;
}

static void a_record_spares_a_request(void **state)
{
    static const struct {
        const char *name, *etag; /* recorded; NULL: its */
        bool sidecar, recorded_sidecar;
        unsigned heads, gets;
    } cases[] = {
        {"as it is", NULL, true, true, 0, 1},
        {"without a sidecar", NULL, false, false, 0, 1},
        {"a sidecar that is gone", NULL, false, true, 0, 2},
        {"a sidecar that is not told of", NULL, true, false, 0, 1},
        {"another object", "\"x\"", true, true, 1,
         3}, /* its sidecar is not that of the recorded one, which has no beginning */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_shard *s;

        world_by_ranges(&w);
        if (!cases[i].sidecar)
            store_delete(w.inner, PATH "/" SF_SIDECAR_NAME);
        w.record = record_of(&w, cases[i].recorded_sidecar, cases[i].etag);
        fault_store_reset(w.faults);
        s = opened(&w);
        if (w.faults->verbs[SF_STORE_HEAD] != cases[i].heads || gets(&w) != cases[i].gets)
            fail_msg("%s: %lu HEADs, %lu GETs", cases[i].name, w.faults->verbs[SF_STORE_HEAD], gets(&w));
        assert_int_equal(look_up(s, 5, &e), SF_OK);
        sf__shard_release(s);
        sf__buf_release(w.record);
        world_cleanup(&w);
    }
}

/* No request goes out for one that was cancelled while a worker looked for its copy, which is not there. */
static void a_recorded_shard_is_cancelled(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;

    world_of(&w, FEW_ROWS);
    w.mode = SF_SQLITE_DOWNLOAD;
    w.record = record_of(&w, true, NULL);
    w.cancelled = true;
    fault_store_reset(w.faults);
    assert_int_equal(open_at(&w, NULL, &s, &e), SF_CANCELLED);
    assert_int_equal(w.faults->requests, 0);
    sf__buf_release(w.record);
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ faults --------------------------------------- */

static sf_status scenario(struct world *w, sf_error *err)
{
    sf_scan_range range = {0};
    struct scan_run r;
    sf_shard *s = NULL;
    struct staying how;
    sf_status rc = open_at(w, NULL, &s, err);

    if (rc != SF_OK)
        return rc;
    rc = stay(s, &how, SF_RESIDENCY_INDEX, false);
    *err = how.error;
    if (rc == SF_OK)
        rc = look_up(s, 3, err);
    if (rc == SF_OK)
        rc = look_up(s, FEW_ROWS - 1, err);
    if (rc == SF_OK && (rc = scan_begin(&r, s, &range, err)) == SF_OK) {
        for (unsigned i = 0; i < 2 && rc == SF_OK; i++) {
            scan_step_begin(&r, 400, SIZE_MAX, SF_NO_DEADLINE);
            scan_step_wait(&r);
            rc = r.step.error.code;
            *err = r.step.error;
            sf__row_batch_free(r.step.batch);
        }
        scan_end(&r);
    }
    if (rc == SF_OK) {
        rc = stay(s, &how, SF_RESIDENCY_MEMORY, false);
        *err = how.error;
    }
    sf__shard_release(s);
    return rc;
}

static void everything_fails_in_turn(void **state)
{
    for (unsigned what = 0; what < 9;
         what++) { /* allocations, requests, answers; with a sidecar, without, with a wrong record */
        for (unsigned long nth = 1;; nth += TEST_STEP) {
            struct world w;
            sf_error e = SF_ERROR_INIT;
            sf_status rc;
            bool fired;

            world_of(&w, FEW_ROWS);
            if (what >= 6)
                w.record = record_of(&w, true, "\"x\"");
            else if (what >= 3)
                store_delete(w.inner, PATH "/" SF_SIDECAR_NAME);
            fault_store_reset(w.faults);
            if (what % 3 == 0)
                heap_arm(&w.env.heap, (long)nth - 1);
            w.faults->kind = what % 3 == 1 ? FAULT_REFUSE : what % 3 == 2 ? FAULT_LOSE : FAULT_NONE;
            w.faults->at = nth;
            rc = scenario(&w, &e);
            fired = what % 3 == 0 ? heap_disarm(&w.env.heap) : w.faults->fired;
            /* what the cache has no memory for is read again when it is needed, and not all that is read ahead is */
            if (rc != SF_OK && (!fired || rc != (what % 3 == 0 ? SF_NOMEM : SF_IO)))
                fail_msg("%u, %lu: %s %s", what, nth, sf_status_name(rc), e.message);
            sf__buf_release(w.record);
            world_cleanup(&w);
            if (!fired) {
                assert_true(nth > (what % 3 == 0 ? 15 : 4));
                break;
            }
            nth += what % 3 == 0 ? nth / 8 : 0; /* the later ones are of one kind */
        }
    }
}

/* What the page of row 3 becomes in answers, the first `left` of them. */
struct damage {
    unsigned left;
    uint64_t off; /* of the page, once an answer was damaged */
};

static void damage_leaves(fault_store *f, sf_store_op *op)
{
    struct damage *d = f->ctx;

    if (op->verb != SF_STORE_GET || op->len == SF_STORE_ALL || d->left == 0)
        return;
    d->left--;
    d->off = op->off;
    op->data->data[0] = 0x77;
}

static void damaged_pages(void **state)
{
    struct damage d = {0};
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;
    char at[64];

    world_by_ranges(&w);
    s = opened(&w);
    w.faults->after = damage_leaves;
    w.faults->ctx = &d;
    d.left = 1; /* a torn answer: the next one is good */
    assert_int_equal(look_up(s, 3, &e), SF_OK);
    assert_int_equal(d.left, 0);
    assert_true(is_in_memory(s, 3));
    d.left = 2;
    assert_int_equal(look_up(s, ROWS / 2, &e), SF_CORRUPT);
    snprintf(at, sizeof(at), "/shard.db at %llu: ", (unsigned long long)d.off);
    assert_non_null(strstr(e.message, at));
    assert_non_null(strstr(e.object, "shard.db"));
    assert_int_equal(look_up(s, ROWS - 1, &e), SF_OK); /* others are read */
    assert_int_equal(look_up(s, ROWS / 2, &e), SF_OK); /* and so is it, once storage has it right */
    sf__shard_release(s);
    world_cleanup(&w);
}

/* Bytes of the database that are set to others. */
static void put_patched(struct world *w, uint64_t off, sf_bytes with)
{
    sf_buf *db = store_get(w);

    memcpy(db->data + off, with.p, with.n);
    put_db(w, sf__buf_bytes(db));
    sf__buf_release(db);
}

static sf_status scan_all(sf_shard *s, sf_error *err)
{
    sf_scan_range all = {0};
    struct scan_run r;
    sf_status rc = scan_begin(&r, s, &all, err);

    while (rc == SF_OK) {
        scan_step_begin(&r, SIZE_MAX, SIZE_MAX, SF_NO_DEADLINE);
        scan_step_wait(&r);
        rc = r.step.error.code;
        *err = r.step.error;
        sf__row_batch_free(r.step.batch);
        if (r.step.end)
            break;
    }
    scan_end(&r);
    return rc;
}

/* Trees that no writer makes end look-ups and scans with an error, soon. */
static void hostile_trees(void **state)
{
    static const struct {
        const char *name;
        uint32_t page, off; /* of the root: its rightmost child, and so on */
        uint8_t bytes[4];
        const char *get, *scan;
    } cases[] = {
        {"the root is its own child", 2, 8, {0, 0, 0, 2}, "too deep", "too deep"},
        {"a child outside of the file", 2, 8, {0, 0x7f, 0, 0}, "outside of the file", "outside of the file"},
        {"page 0 as a child", 2, 8, {0, 0, 0, 0}, "outside of the file", "outside of the file"},
        {"the schema as a child", 2, 8, {0, 0, 0, 1}, "no page of an index", "no page of an index"},
        {"cells outside of the page", 2, 12, {0xff, 0xff, 0xff, 0xff}, "past its end", "past its end"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_shard *s;
        bool first = cases[i].off == 12; /* whose cells are compared with every key */

        world_by_ranges(&w);
        put_patched(&w, (cases[i].page - 1) * UINT64_C(4096) + cases[i].off, sf_bytes_of(cases[i].bytes, 4));
        store_delete(w.inner, PATH "/" SF_SIDECAR_NAME);
        s = opened(&w);
        if (look_up(s, first ? 0 : ROWS - 1, &e) != SF_CORRUPT || !strstr(e.message, cases[i].get))
            fail_msg("%s: %s", cases[i].name, e.message);
        if (scan_all(s, &e) != SF_CORRUPT || !strstr(e.message, cases[i].scan))
            fail_msg("%s, scan: %s", cases[i].name, e.message);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

static void an_object_that_is_replaced(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_buf *db;
    sf_shard *s;

    world_by_ranges(&w);
    s = opened(&w);
    assert_int_equal(look_up(s, 3, &e), SF_OK);
    db = store_get(&w);
    put_db(&w, sf__buf_bytes(db)); /* the same bytes, another ETag */
    sf__buf_release(db);
    assert_int_equal(look_up(s, 3, &e), SF_OK); /* out of memory */
    assert_int_equal(look_up(s, ROWS - 1, &e), SF_CORRUPT);
    assert_non_null(strstr(e.message, "it was replaced"));
    store_delete(w.inner, PATH "/" SF_SQLITE_DB_NAME);
    assert_int_equal(look_up(s, ROWS - 1, &e), SF_NOT_FOUND);
    sf__shard_release(s);
    world_cleanup(&w);
}

static void sidecars_are_optional(void **state)
{
    static const struct {
        const char *name;
        size_t off;
        bool gone, fits;
    } cases[] = {
        {"as it was written", 0, false, true},     {"missing", 0, true, false},
        {"another magic number", 0, false, false}, {"another version", 4, false, false},
        {"another length", 5, false, false},       {"another tag", 19, false, false},
        {"a damaged frame", 60, false, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_store_op op = {.verb = SF_STORE_GET,
                          .key = PATH "/" SF_SIDECAR_NAME,
                          .len = SF_STORE_ALL,
                          .max_bytes = 1 << 20,
                          .deadline_ns = SF_NO_DEADLINE};
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_shard *s;

        world_by_ranges(&w);
        assert_int_equal(store_ask(w.inner, &op), SF_OK);
        if (cases[i].gone)
            store_delete(w.inner, op.key);
        else if (!cases[i].fits)
            op.data->data[cases[i].off] ^= 0x55;
        if (!cases[i].gone)
            store_put(w.inner, PATH "/" SF_SIDECAR_NAME, op.data->data, op.data->n);
        sf__store_op_cleanup(&op, w.inner->alloc);
        s = opened(&w);
        if ((s->bytes_resident > 0) != cases[i].fits)
            fail_msg("%s: %llu bytes are kept", cases[i].name, (unsigned long long)s->bytes_resident);
        for (uint32_t row = 0; row < ROWS; row += 1999)
            if (look_up(s, row, &e) != SF_OK)
                fail_msg("%s: %s", cases[i].name, e.message);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

/* A sidecar with one page, of a size that the database's pages do not have; its bytes are the database's. */
static void put_sidecar_of_size(struct world *w, uint32_t number, uint32_t page_bytes)
{
    sf_store_op op = {.verb = SF_STORE_GET,
                      .key = PATH "/" SF_SQLITE_DB_NAME,
                      .len = SF_STORE_ALL,
                      .max_bytes = 1 << 24,
                      .deadline_ns = SF_NO_DEADLINE};
    size_t from, to, n, room = ZSTD_compressBound(page_bytes + 64), frame;
    uint8_t *body = calloc(1, page_bytes + 64), *object = calloc(1, room + 300), *p = object;
    ZSTD_CCtx *z = ZSTD_createCCtx();
    sf_bytes page;

    assert_int_equal(store_ask(w->inner, &op), SF_OK);
    assert_true(sf_bytes_slice(sf__buf_bytes(op.data), (uint64_t)(number - 1) * page_bytes, page_bytes, &page));
    assert_true(sf__btree_gap(page, number, page_bytes, &from, &to));
    n = page_bytes - (to - from);
    sf_store_le(body, 4, 1); /* pages: how many, which, and where */
    sf_store_le(body + 4, 4, number);
    sf_store_le(body + 12, 4, n); /* behind them the numbers of no chains */
    memcpy(body + 24, page.p, from);
    memcpy(body + 24 + from, page.p + to, page_bytes - to);
    memcpy(p, "SQPC\x08", 5);
    sf_store_le(p + 5, 8, 24 + n);
    sf_store_le(p + 13, 4, page_bytes);
    p[17] = (uint8_t)strlen(op.etag);
    memcpy(p + 18, op.etag, p[17]);
    ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
    frame = ZSTD_compress2(z, p + 18 + p[17], room, body, 24 + n);
    assert_false(ZSTD_isError(frame));
    store_put(w->inner, PATH "/" SF_SIDECAR_NAME, object, 18 + p[17] + frame);
    sf__store_op_cleanup(&op, w->inner->alloc);
    ZSTD_freeCCtx(z);
    free(body);
    free(object);
}

/* Page 1 begins with the head of the database, which says how long its pages are. */
static void sidecars_of_other_pages(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;

    world_by_ranges(&w);
    put_sidecar_of_size(&w, 1, 65536);
    s = opened(&w);
    assert_int_equal(s->bytes_resident, 0); /* it was not taken */
    for (uint32_t row = 0; row < ROWS; row += 1999)
        assert_int_equal(look_up(s, row, &e), SF_OK);
    sf__shard_release(s);

    put_sidecar_of_size(&w, 2, 65536); /* that tells nothing of the kind */
    assert_int_equal(open_at(&w, "c1", &s, &e), SF_CORRUPT);
    assert_non_null(strstr(e.message, "4096 bytes, those of its sidecar 65536"));
    world_cleanup(&w);
}

static void refuse_conditions(fault_store *f, sf_store_op *op)
{
    if (op->if_match)
        fault_store_answer(f, op, SF_UNSUPPORTED, "no conditions");
}

static void tell_damage(sf_shard_check *c, const sf_error *e, uint64_t off)
{
    (void)c;
    (void)off;
    fail_msg("%s", e->message);
}

static void count_read(sf_shard_check *c, uint64_t bytes)
{
    (void)c;
    (void)bytes;
}

/* A store without conditions holds no damage. */
static void checks_where_conditions_are_refused(void **state)
{
    sf_shard_check c = {.deep = true, .timeout_ms = 10000, .found = tell_damage, .read = count_read};
    struct world w;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s;

    world_of(&w, FEW_ROWS);
    w.faults->after = refuse_conditions;
    s = opened(&w);
    assert_int_equal(look_up(s, FEW_ROWS / 3, &e), SF_OK);
    sf__shard_release(s);
    s = opened(&w);
    if (s->vtable->check(s, &c, &e) != SF_OK)
        fail_msg("%s", e.message);
    w.faults->kind = FAULT_SHORT; /* what is missing in an answer is none either */
    w.faults->at = w.faults->requests + 1;
    assert_int_equal(s->vtable->check(s, &c, &e), SF_IO);
    assert_non_null(strstr(e.message, "were asked for"));
    sf__shard_release(s);
    world_cleanup(&w);
}

struct stalled {
    struct got *g;
    struct fault_store *f;
    bool fired;
};

static void look_at_fired(void *arg)
{
    ((struct stalled *)arg)->fired = ((struct stalled *)arg)->f->fired;
}

static void cancel_get(void *arg)
{
    struct stalled *c = arg;

    c->g->shard->vtable->get_many_cancel(c->g->shard, &c->g->op);
}

/* A request that hangs ends with the look-up's deadline, or when that is cancelled. */
static void stops(void **state)
{
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        struct world w;
        struct got g;
        struct stalled c = {.g = &g};
        uint8_t key[8] = {0};
        sf_bytes k = sf_bytes_of(key, 8);
        sf_error e = SF_ERROR_INIT;
        sf_shard *s;

        world_by_ranges(&w);
        s = opened(&w);
        fault_store_reset(w.faults);
        w.faults->kind = FAULT_HOLD;
        w.faults->at = 1;
        c.f = w.faults;
        get_begin(&g, s, &k, 1, cancelled ? SF_NO_DEADLINE : sf__deadline_in_ms(50));
        while (cancelled && !c.fired) /* else the deadline may pass before */
            on_loop(w.env.rt->loop, look_at_fired, &c);
        if (cancelled)
            on_loop(w.env.rt->loop, cancel_get, &c);
        get_wait(&g);
        assert_int_equal(g.error.code, cancelled ? SF_CANCELLED : SF_TIMEOUT);
        get_free(&g);
        assert_int_equal(look_up(s, 0, &e), SF_OK);
        sf__shard_release(s);
        world_cleanup(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cold_look_up_is_one_request),
        cmocka_unit_test(nothing_is_kept_without_a_cache),
        cmocka_unit_test(neighbours_are_one_request),
        cmocka_unit_test(scans_read_ahead),
        cmocka_unit_test(scans_read_rows_on_other_pages_once),
        cmocka_unit_test(damaged_pages),
        cmocka_unit_test(hostile_trees),
        cmocka_unit_test(an_object_that_is_replaced),
        cmocka_unit_test(sidecars_are_optional),
        cmocka_unit_test(sidecars_of_other_pages),
        cmocka_unit_test(checks_where_conditions_are_refused),
        cmocka_unit_test(pages_that_stay),
        cmocka_unit_test(two_who_are_to_stay),
        cmocka_unit_test(a_record_spares_a_request),
        cmocka_unit_test(a_recorded_shard_is_cancelled),
        cmocka_unit_test(stops),
        cmocka_unit_test(everything_fails_in_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
