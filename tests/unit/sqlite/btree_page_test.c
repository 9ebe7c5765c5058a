/* Pages and cells that point where they must not, byte by byte; whole databases are the sidecar test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "backend/sqlite/btree_page.h"

#define PAGE 512

static void headers(void **state)
{
    static const struct {
        const char *name;
        uint8_t type;
        uint32_t number;
        size_t n;
        bool ok, known;
    } cases[] = {
        {"no page", 13, 2, 0, false, false},
        {"leaf", 13, 2, PAGE, true, true},
        {"leaf, cut inside its header", 13, 2, 7, false, true},
        {"interior", 5, 2, PAGE, true, true},
        {"interior, cut inside its header", 5, 2, 11, false, true},
        {"the first page", 13, 1, PAGE, true, true},
        {"the first page, only the header of the file", 13, 1, 100, false, false},
        {"no type", 0, 2, PAGE, false, false},
        {"no such type", 7, 2, PAGE, false, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t page[PAGE] = {0};
        sf_btree_header h;

        page[cases[i].number == 1 ? 100 : 0] = cases[i].type;
        if (sf__btree_header_decode(&h, sf_bytes_of(page, cases[i].n), cases[i].number) != cases[i].ok ||
            sf__btree_page_type_known(sf_bytes_of(page, cases[i].n), cases[i].number) != cases[i].known)
            fail_msg("%s", cases[i].name);
    }
}

static void cells(void **state)
{
    static const struct {
        const char *name;
        uint8_t type;
        uint16_t count, pointer;
        uint32_t cell;
        uint8_t bytes[8]; /* at the pointer */
        bool ok;
        size_t local;
    } cases[] = {
        {"inline", 13, 1, 500, 0, {3, 1, 'a', 'b', 'c'}, true, 3},
        {"of an index", 10, 1, 500, 0, {2, 'a', 'b'}, true, 2},
        {"interior of a table", 5, 1, 500, 0, {0, 0, 0, 9, 1}, true, 0},
        {"interior of an index", 2, 1, 500, 0, {0, 0, 0, 9, 1, 'a'}, true, 1},
        {"behind the last", 13, 1, 500, 1, {3, 1}, false, 0},
        {"its pointer lies outside", 13, 1000, 500, 999, {3, 1}, false, 0},
        {"points into the header", 13, 1, 4, 0, {0}, false, 0},
        {"points behind the page", 13, 1, 513, 0, {0}, false, 0},
        {"at the end of the page", 13, 1, 512, 0, {0}, false, 0},
        {"child cut", 5, 1, 510, 0, {0, 0}, false, 0},
        {"length without an end", 13, 1, 510, 0, {0xff, 0xff}, false, 0},
        {"row id without an end", 13, 1, 510, 0, {1, 0xff}, false, 0},
        {"payload longer than the page's rest", 13, 1, 505, 0, {100, 1}, false, 0},
        {"the rest is nowhere", 10, 1, 100, 0, {0x87, 0x68}, false, 0}, /* 1000 bytes, overflow page 0 */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t header = cases[i].type == 2 || cases[i].type == 5 ? 12 : 8, at = cases[i].pointer;
        uint8_t page[PAGE] = {cases[i].type};
        sf_btree_header h;
        sf_btree_cell cell = {.local = {NULL, 77}};

        for (size_t k = 0; k < sizeof(cases[i].bytes) && at + k < PAGE; k++)
            page[at + k] = cases[i].bytes[k];
        page[0] = cases[i].type;
        page[3] = (uint8_t)(cases[i].count >> 8);
        page[4] = (uint8_t)cases[i].count;
        page[header] = (uint8_t)(cases[i].pointer >> 8);
        page[header + 1] = (uint8_t)cases[i].pointer;
        assert_true(sf__btree_header_decode(&h, sf_bytes_of(page, PAGE), 2));
        if (sf__btree_cell_decode(&cell, &h, sf_bytes_of(page, PAGE), cases[i].cell) != cases[i].ok)
            fail_msg("%s", cases[i].name);
        if (cell.local.n != (cases[i].ok ? cases[i].local : 77)) /* a failure writes nothing */
            fail_msg("%s: %zu bytes", cases[i].name, cell.local.n);
    }
}

/* type, name, tbl_name, rootpage, sql: lengths by serial type, 13 + 2 n for texts. */
static void schema_rows(void **state)
{
    static const struct {
        const char *name;
        uint8_t bytes[16];
        size_t n;
        bool ok;
        uint32_t root;
    } cases[] = {
        {"a table", {5, 15, 15, 15, 1, 't', 'n', 'n', 7}, 9, true, 7},
        {"two bytes", {5, 15, 15, 15, 2, 't', 'n', 'n', 1, 2}, 10, true, 258},
        {"a view has none", {5, 15, 15, 15, 8, 't', 'n', 'n'}, 8, true, 0},
        {"NULL", {5, 15, 15, 15, 0, 't', 'n', 'n'}, 8, true, 0},
        {"the first page", {5, 15, 15, 15, 9, 't', 'n', 'n'}, 8, true, 1},
        {"nothing", {0}, 0, false, 0},
        {"header longer than the row", {50, 15, 15, 15, 1, 't', 'n', 'n', 7}, 9, false, 0},
        {"header shorter than itself", {0, 15, 15, 15, 1, 't', 'n', 'n', 7}, 9, false, 0},
        {"too few columns", {3, 15, 15, 't', 'n'}, 5, false, 0},
        {"columns longer than the row", {5, 15, 120, 15, 1, 't', 'n', 'n', 7}, 9, false, 0},
        {"root behind the end", {5, 15, 15, 15, 4, 't', 'n', 'n', 7}, 9, false, 0},
        {"root is a text", {5, 15, 15, 15, 15, 't', 'n', 'n', 'x'}, 9, false, 0},
        {"root beyond all pages", {5, 15, 15, 15, 5, 't', 'n', 'n', 1, 0, 0, 0, 0, 0}, 14, false, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t root = 0;

        if (sf__btree_schema_root(sf_bytes_of(cases[i].bytes, cases[i].n), &root) != cases[i].ok || root != cases[i].root)
            fail_msg("%s: root %u", cases[i].name, root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(cells),
        cmocka_unit_test(schema_rows),
    };

    return cmocka_run_group_tests_name("btree_page", tests, NULL, NULL);
}
