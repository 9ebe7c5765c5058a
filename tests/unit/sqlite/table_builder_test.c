/* What is built page by page: SQLite finds it sound and reads the same rows, and so do our own look-ups; the sidecar's map is what
 * a walk through the file finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/sqlite/table_builder.h"
#include "backend/sqlite/tree.h"
#include "base/buf.h"
#include "base/pin.h"
#include "../../support/heap.h"

#define ROOT_PAGE 2u
#define BYTES_MAX 400000u

/* Row i: the key is `u32be i`, then zeroes up to its length; the value is a part of the pattern. */
struct shape {
    const char *name;
    uint32_t rows;
    uint32_t (*key_bytes)(const struct shape *s, uint32_t i);
    uint32_t (*value_bytes)(const struct shape *s, uint32_t i);
    uint32_t key, value; /* what those make of it is theirs */
};

static uint8_t pattern[BYTES_MAX + 256];

static sf_bytes shape_key(const struct shape *s, uint32_t i, uint8_t *buf)
{
    uint32_t n = s->key_bytes(s, i);

    sf_store_be(buf, 4, i);
    memset(buf + 4, 0, n);
    return sf_bytes_of(buf, 4 + n);
}

static sf_bytes shape_value(const struct shape *s, uint32_t i)
{
    uint32_t n = s->value_bytes(s, i);

    assert_true(n <= BYTES_MAX);
    return sf_bytes_of(pattern + i % 256, n);
}

static uint32_t all_keys(const struct shape *s, uint32_t i)
{
    (void)i;
    return s->key;
}

static uint32_t all_values(const struct shape *s, uint32_t i)
{
    (void)i;
    return s->value;
}

static uint32_t scatter(uint32_t i, uint32_t most)
{
    return most == 0 ? 0 : (uint32_t)((i * UINT64_C(2654435761) >> 7) % (most + 1));
}

static uint32_t some_keys(const struct shape *s, uint32_t i)
{
    return scatter(i, s->key);
}

/* Most are short. */
static uint32_t some_values(const struct shape *s, uint32_t i)
{
    return scatter(3 * i + 1, i % 7 == 0 ? s->value : i % 5 * 100);
}

/* ------------------------------------------------------------------ the file ------------------------------------- */

struct file {
    sf_buf *bytes;
    sf_tree tree;
};

static sf_status bytes_read(void *ctx, uint64_t off, size_t n, uint8_t *out, sf_error *err)
{
    const struct file *f = ctx;

    (void)err;
    memcpy(out, f->bytes->data + off, n);
    return SF_OK;
}

static sf_buf *file_page(void *ctx, uint32_t number)
{
    const struct file *f = ctx;

    return sf__buf_copy(&sf__allocator_default,
                        sf_bytes_of(f->bytes->data + (size_t)(number - 1) * f->tree.usable, f->tree.usable));
}

static void check_map(const struct shape *s, struct file *f, const sf_sidecar_map *map)
{
    sf_file_view view = {.size = f->bytes->n, .read = bytes_read, .ctx = f};
    sf_sidecar_map walked;
    sf_error e = SF_ERROR_INIT;

    if (sf__sidecar_map_walk(&walked, &view, &sf__allocator_default, &e) != SF_OK)
        fail_msg("%s: %s", s->name, e.message);
    assert_non_null(map);
    assert_int_equal(map->page_bytes, walked.page_bytes);
    assert_int_equal(map->page_count, walked.page_count);
    assert_int_equal(map->chain_count, walked.chain_count);
    assert_int_equal(map->area_bytes, walked.area_bytes);
    assert_memory_equal(map->pages, walked.pages, map->page_count * sizeof(*map->pages));
    for (size_t i = 0; i < map->chain_count; i++) {
        const struct sf_sidecar_map_chain *a = &map->chains[i], *b = &walked.chains[i];

        assert_int_equal(a->head, b->head);
        assert_int_equal(a->count, b->count);
        assert_memory_equal(map->chain_pages + a->first, walked.chain_pages + b->first, a->count * sizeof(uint32_t));
    }
    sf__sidecar_map_cleanup(&walked);
}

static void check_lookups(const struct shape *s, struct file *f)
{
    static uint8_t key[BYTES_MAX];
    sf_tree_walk w = {.tree = &f->tree, .page = file_page, .ctx = f, .alloc = &sf__allocator_default};

    for (uint32_t i = 0; i <= s->rows; i++) { /* the last one is not there */
        sf_tree_descent d = {0};
        sf_error e = SF_ERROR_INIT;
        sf_value v;

        if (sf__tree_get(&w, &d, shape_key(s, i, key), &v, &e) != SF_OK)
            fail_msg("%s: row %u: %s", s->name, i, e.message);
        if (v.found != (i < s->rows) || (v.found && !sf_bytes_eq(v.bytes, shape_value(s, i))))
            fail_msg("%s: row %u differs in a look-up", s->name, i);
        sf__owner_release(v.owner);
        sf__tree_descent_drop(&d);
    }
}

static void check_sqlite(const struct shape *s, const struct file *f)
{
    static uint8_t key[BYTES_MAX];
    sqlite3 *c = NULL;
    sqlite3_stmt *q = NULL;
    sqlite3_int64 n = (sqlite3_int64)f->bytes->n;
    uint32_t i = 0;

    assert_int_equal(sqlite3_open(":memory:", &c), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(c, "main", f->bytes->data, n, n, SQLITE_DESERIALIZE_READONLY), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, "PRAGMA integrity_check", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    if (strcmp((const char *)sqlite3_column_text(q, 0), "ok") != 0)
        fail_msg("%s, %u rows, pages of %u: %s", s->name, s->rows, f->tree.usable,
                 (const char *)sqlite3_column_text(q, 0));
    sqlite3_finalize(q);
    assert_int_equal(sqlite3_prepare_v2(c, "SELECT k, v FROM kv ORDER BY k", -1, &q, NULL), SQLITE_OK);
    for (; sqlite3_step(q) == SQLITE_ROW; i++)
        if (i >= s->rows ||
            !sf_bytes_eq(sf_bytes_of(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0)),
                         shape_key(s, i, key)) ||
            !sf_bytes_eq(sf_bytes_of(sqlite3_column_blob(q, 1), (size_t)sqlite3_column_bytes(q, 1)), shape_value(s, i)))
            fail_msg("%s: row %u differs", s->name, i);
    assert_int_equal(i, s->rows);
    sqlite3_finalize(q);
    sqlite3_close(c);
}

static sf_status build(const struct shape *s, const sf_table_builder_options *o, const sf_allocator *a,
                       sf_table_builder **b, sf_file_view *view, const sf_sidecar_map **map, sf_error *err)
{
    static uint8_t key[BYTES_MAX];
    sf_status rc = sf__table_builder_open(b, o, a, err);

    for (uint32_t i = 0; rc == SF_OK && i < s->rows; i++)
        rc = sf__table_builder_add(*b, shape_key(s, i, key), shape_value(s, i), err);
    return rc == SF_OK ? sf__table_builder_finish(*b, view, map, err) : rc;
}

/* Builds it and checks everything; returns how many pages there are. */
static uint32_t check(const struct shape *s, const sf_table_builder_options *options)
{
    sf_table_builder_options o = *options;
    sf_table_builder *b = NULL;
    const sf_sidecar_map *map = NULL;
    sf_error e = SF_ERROR_INIT;
    sf_file_view view;
    struct file f;
    uint32_t pages;

    o.sidecar = true;
    if (build(s, &o, &sf__allocator_default, &b, &view, &map, &e) != SF_OK)
        fail_msg("%s: %s", s->name, e.message);
    pages = (uint32_t)(view.size / o.page_bytes);
    f.bytes = sf__buf_new(&sf__allocator_default, (size_t)view.size);
    f.tree = (sf_tree){.root = ROOT_PAGE, .value = 1, .usable = o.page_bytes, .page_count = pages};
    assert_int_equal(view.read(view.ctx, 0, (size_t)view.size, f.bytes->data, &e), SF_OK);
    check_sqlite(s, &f);
    check_lookups(s, &f);
    check_map(s, &f, map);
    sf__buf_release(f.bytes);
    sf__table_builder_free(b);
    return pages;
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

/* Four rows a page, five pages below one: each number of rows ends the tree in another way, four levels of it in the end. */
static void every_number_of_rows(void **state)
{
    sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;

    for (uint32_t rows = 0; rows <= 630; rows += rows < 30 || (rows >= 120 && rows < 130) || rows >= 620 ? 1 : 10)
        check(&(struct shape){"four rows a page", rows, all_keys, all_values, 8, 980}, &o);
}

/* Payloads around the lengths at which they no longer lie in one page, or fill one more page of a chain. */
static void edges_of_pages(void **state)
{
    for (uint32_t page = 4096; page <= 65536; page *= 2) {
        sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;
        const uint32_t most = (page - 12) * 64 / 255 - 23, least = (page - 12) * 32 / 255 - 23;
        const uint32_t edges[] = {most, least + page - 4, most + page - 4, least + 2 * (page - 4)};

        o.page_bytes = page;
        for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
            for (uint32_t around = 0; around <= 6; around++) {
                /* a header of 4 to 8 bytes and a key of 4 are in it */
                check(&(struct shape){"an edge", 6, all_keys, all_values, 0, edges[i] - 14 + around}, &o);
                if (page == 4096)
                    check(&(struct shape){"an edge of keys", 6, all_keys, all_values, edges[i] - 14 + around, 0}, &o);
            }
    }
}

static void rows_of_all_lengths(void **state)
{
    for (uint32_t page = 4096; page <= 65536; page *= 4) {
        sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;

        o.page_bytes = page;
        check(&(struct shape){"small rows", 3000, some_keys, some_values, 20, 60}, &o);
        check(&(struct shape){"some long values", 300, some_keys, some_values, 60, 30000}, &o);
        check(&(struct shape){"some long keys", 200, some_keys, some_values, 9000, 20000}, &o);
        check(&(struct shape){"a few very long rows", 8, some_keys, some_values, 100000, BYTES_MAX}, &o);
    }
}

/* The page that SQLite locks holds nothing, whatever would have come there. */
static void the_page_of_locks(void **state)
{
    static const struct shape shapes[] = {
        {"leaves and what is above them", 70, all_keys, all_values, 8, 980},
        {"chains", 24, all_keys, some_values, 8, 40000},
    };
    const int before = sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, 0);

    assert_int_equal(before, SF_SQLITE_LOCK_OFF);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;
        uint32_t pages = check(&shapes[i], &o);

        for (uint32_t number = 3; number <= pages + 1; number++) {
            uint32_t now;

            o.lock_off = (uint64_t)(number - 1) * o.page_bytes;
            sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, (int)o.lock_off);
            now = check(&shapes[i], &o);
            if (now != pages + (number <= pages))
                fail_msg("%s: %u pages, and %u of which %u is SQLite's", shapes[i].name, pages, now, number);
        }
        sqlite3_test_control(SQLITE_TESTCTRL_PENDING_BYTE, before);
    }
}

static void every_allocation_fails_in_turn(void **state)
{
    static const struct shape shape = {"two levels with chains", 40, all_keys, some_values, 8, 20000};
    sf_table_builder_options o = SF_TABLE_BUILDER_OPTIONS_INIT;
    struct test_heap heap;

    o.sidecar = true;
    for (long nth = 0;; nth++) {
        sf_table_builder *b = NULL;
        const sf_sidecar_map *map = NULL;
        sf_error e = SF_ERROR_INIT;
        sf_file_view view;
        sf_status rc;
        bool fired;

        heap_init(&heap);
        heap_arm(&heap, nth);
        rc = build(&shape, &o, &heap.alloc, &b, &view, &map, &e);
        fired = heap_disarm(&heap);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        sf__table_builder_free(b);
        assert_int_equal(atomic_load(&heap.live), 0);
        if (!fired) {
            assert_true(nth >= 10);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_rows),
        cmocka_unit_test(edges_of_pages),
        cmocka_unit_test(rows_of_all_lengths),
        cmocka_unit_test(the_page_of_locks),
        cmocka_unit_test(every_allocation_fails_in_turn),
    };

    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 167 + (i >> 8) * 13);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
