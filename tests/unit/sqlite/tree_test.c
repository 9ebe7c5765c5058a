/* Trees that lie: rows that claim more than there is take memory for what comes of them only; and what is needed of a file is read
 * in pieces of bounded size, however it overlaps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "backend/sqlite/pages.h"
#include "backend/sqlite/tree.h"
#include "base/pin.h"

#define PAGE_BYTES 512u
#define ROOT 2u
#define CHAIN 3u /* where the row goes on */

/* No allocation is larger. */
static void *small_realloc(void *ctx, void *p, size_t n)
{
    (void)ctx;
    return n <= (4u << 20) ? realloc(p, n) : NULL;
}

static void small_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

static const sf_allocator small = {sizeof(sf_allocator), small_realloc, small_free, NULL};

/* One leaf with one row, of the key "k", which goes on on page 3; of those each says where the next is. */
struct lie {
    const char *name;
    uint64_t payload; /* what the row claims to have */
    uint32_t pages;   /* of the file */
    uint32_t (*next)(uint32_t number);
    const char *why; /* NULL: it is sound */
};

static sf_buf *leaf(const struct lie *lie)
{
    sf_buf *page = sf__buf_new(&small, PAGE_BYTES);
    uint8_t *cell = page->data + 16, record[32];
    const size_t local = sf__btree_local_bytes(lie->payload, false, PAGE_BYTES);
    size_t n = 1, at;

    memset(page->data, 'v', PAGE_BYTES);
    memset(page->data, 0, 8);
    page->data[0] = SF_BTREE_INDEX_LEAF;
    sf_store_be(page->data + 3, 2, 1);
    sf_store_be(page->data + 5, 2, 16);
    sf_store_be(page->data + 8, 2, 16);
    n += sf__record_varint_put(record + n, SF_RECORD_BLOB + 2);
    n += sf__record_varint_put(record + n, SF_RECORD_BLOB + 2 * (lie->payload - 9)); /* and some bytes more, or it fits */
    record[0] = (uint8_t)n;
    record[n++] = 'k';
    at = sf__record_varint_put(cell, lie->payload);
    memcpy(cell + at, record, n);
    sf_store_be(cell + at + local, 4, CHAIN);
    return page;
}

static sf_buf *page_of(void *ctx, uint32_t number)
{
    const struct lie *lie = ctx;
    sf_buf *page;

    if (number == ROOT)
        return leaf(lie);
    page = sf__buf_new(&small, PAGE_BYTES);
    memset(page->data, 'v', PAGE_BYTES);
    sf_store_be(page->data, 4, lie->next(number));
    return page;
}

static uint32_t behind(uint32_t number)
{
    return number + 1;
}

static uint32_t itself(uint32_t number)
{
    return number;
}

static uint32_t circle(uint32_t number)
{
    return number < 40 ? number + 1 : 17;
}

static uint32_t ends(uint32_t number)
{
    return number < 9 ? number + 1 : 0;
}

static uint32_t outside(uint32_t number)
{
    return number < 9 ? number + 1 : UINT32_MAX;
}

static void rows_that_claim_much(void **state)
{
    static const struct lie lies[] = {
        {"it is there", 3000000, 10000, behind, NULL},
        {"longer than the file", 3000000, 5000, behind, "longer than the file"},
        {"longer than SQLite takes", 1000000001, 3000000, behind, "longer than SQLite takes"},
        {"longer than all numbers", UINT64_C(1) << 50, UINT32_MAX, behind, "longer than the file"},
        {"a page that leads to itself", 900000000, 3000000, itself, "in a circle"},
        {"a circle", 900000000, 3000000, circle, "in a circle"},
        {"it ends early", 900000000, 3000000, ends, "outside of the file"},
        {"it leaves the file", 900000000, 3000000, outside, "outside of the file"},
    };

    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        const struct lie *lie = &lies[i];
        sf_tree tree = {.root = ROOT, .value = 1, .usable = PAGE_BYTES, .page_count = lie->pages};
        sf_tree_walk w = {.tree = &tree, .page = page_of, .ctx = (void *)(uintptr_t)lie, .alloc = &small};
        sf_tree_descent d = {0};
        sf_error e = SF_ERROR_INIT;
        sf_value v;
        sf_status rc = sf__tree_get(&w, &d, sf_bytes_str("k"), &v, &e);

        if (rc != (lie->why ? SF_CORRUPT : SF_OK) || (lie->why && !strstr(e.message, lie->why)))
            fail_msg("%s: %s %s", lie->name, sf_status_name(rc), e.message);
        if (!lie->why) {
            assert_true(v.found);
            assert_int_equal(v.bytes.n, lie->payload - 9);
            for (size_t k = 0; k < v.bytes.n; k++)
                if (v.bytes.p[k] != 'v')
                    fail_msg("%s: byte %zu", lie->name, k);
            sf__owner_release(v.owner);
        }
        sf__tree_descent_drop(&d);
    }
}

static void needs_become_reads(void **state)
{
    static const struct {
        const char *name;
        uint32_t page_bytes;
        sf_page_need needs[5], reads[5];
    } cases[] = {
        {"none", 4096, {{0}}, {{0}}},
        {"one", 4096, {{7, 1}}, {{7, 1}}},
        {"neighbours, in any order", 4096, {{9, 1}, {7, 1}, {8, 1}}, {{7, 3}}},
        {"twice the same", 4096, {{7, 2}, {7, 2}}, {{7, 2}}},
        {"one within another", 4096, {{7, 20}, {9, 1}}, {{7, 20}}},
        {"a gap of 32 KiB", 4096, {{7, 1}, {16, 1}}, {{7, 10}}},
        {"a gap of more", 4096, {{7, 1}, {17, 1}}, {{7, 1}, {17, 1}}},
        {"a megabyte", 4096, {{1, 200}, {201, 56}}, {{1, 256}}},
        {"more than a megabyte", 4096, {{1, 200}, {201, 57}}, {{1, 200}, {201, 57}}},
        {"they overlap on and on",
         4096,
         {{1, 256}, {200, 256}, {400, 256}, {600, 256}, {800, 256}},
         {{1, 256}, {257, 199}, {456, 200}, {656, 200}, {856, 200}}},
        {"each a page later", 65536, {{1, 16}, {2, 16}, {3, 16}, {18, 16}}, {{1, 16}, {17, 2}, {19, 15}}},
        {"pages of the largest number", 512, {{UINT32_MAX - 1, 1}, {UINT32_MAX - 9, 1}}, {{UINT32_MAX - 9, 9}}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_page_need needs[5];
        size_t n = 0, expected = 0;

        memcpy(needs, cases[i].needs, sizeof(needs));
        while (n < 5 && needs[n].count > 0)
            n++;
        while (expected < 5 && cases[i].reads[expected].count > 0)
            expected++;
        n = sf__page_needs_merge(needs, n, cases[i].page_bytes, SF_PAGE_GAP_BYTES / cases[i].page_bytes);
        if (n != expected || memcmp(needs, cases[i].reads, n * sizeof(*needs)) != 0)
            fail_msg("%s: %zu reads, the second %u and %u", cases[i].name, n, needs[1].first, needs[1].count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_claim_much),
        cmocka_unit_test(needs_become_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
