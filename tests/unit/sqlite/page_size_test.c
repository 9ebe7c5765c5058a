/* The page size that "auto" stands for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/sqlite/page_size.h"

static void limits_of_pages(void **state)
{
    assert_int_equal(sf__btree_local_max(4096), 1002);
    assert_int_equal(sf__btree_local_max(8192), 2030);
    assert_int_equal(sf__btree_local_max(16384), 4086);
    assert_int_equal(sf__btree_local_max(32768), 8198);
    assert_int_equal(sf__btree_local_max(65536), 16422);
}

static void chooses(void **state)
{
    static const struct {
        const char *name;
        struct {
            uint64_t rows;
            size_t key, value;
        } rows[3];
        uint32_t expected;
    } cases[] = {
        {"no rows", {{0}}, 4096},
        {"small rows", {{1000, 8, 100}}, 4096},
        {"an empty value", {{1, 0, 0}}, 4096},
        {"just fits", {{100, 8, 1002 - 12 - 8}}, 4096},
        {"one byte too many", {{100, 8, 1002 - 12 - 7}}, 8192},
        {"the longest key counts", {{99, 8, 900}, {1, 91, 0}}, 8192},
        {"the longest key just fits", {{99, 8, 900}, {1, 90, 0}}, 4096},
        {"a key alone is too long", {{1, 1000, 0}}, 8192},
        {"5 % may be longer", {{95, 8, 100}, {5, 8, 100000}}, 4096},
        {"6 % may not", {{94, 8, 100}, {6, 8, 5000}}, 32768},
        {"one of 19", {{18, 8, 100}, {1, 8, 2500}}, 16384},
        {"one of 20", {{19, 8, 100}, {1, 8, 2500}}, 4096},
        {"one of 21: rank 20", {{20, 8, 100}, {1, 8, 2500}}, 4096},
        {"two of 21", {{19, 8, 100}, {2, 8, 2500}}, 16384},
        {"16384", {{10, 8, 2374}}, 16384},
        {"32768", {{10, 8, 8198 - 20}}, 32768},
        {"65536", {{10, 8, 8198 - 19}}, 65536},
        {"the largest just fits", {{10, 8, 16422 - 20}}, 65536},
        {"none is large enough", {{10, 8, 1000000}}, 65536},
        {"no key fits", {{10, 100000, 0}}, 65536},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_page_size_picker p;
        uint32_t got;

        assert_true(sf__page_size_picker_init(&p, &sf__allocator_default));
        for (unsigned k = 0; k < 3; k++)
            for (uint64_t n = 0; n < cases[i].rows[k].rows; n++)
                sf__page_size_picker_add(&p, cases[i].rows[k].key, cases[i].rows[k].value);
        got = sf__page_size_picker_choose(&p);
        if (got != cases[i].expected)
            fail_msg("%s: %u, expected %u", cases[i].name, got, cases[i].expected);
        sf__page_size_picker_cleanup(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(limits_of_pages), cmocka_unit_test(chooses)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
