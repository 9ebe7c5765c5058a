/* Where authorities are looked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/ca_bundle.h"

static void the_first_that_can_be_read(void **state)
{
    static const struct {
        const char *places[4], *found;
    } rows[] = {
        {{NULL}, NULL},
        {{"/nowhere/a.pem", NULL}, NULL},
        {{"/nowhere/a.pem", "/dev/null", "/dev/zero", NULL}, "/dev/null"},
        {{"", "/dev/zero", NULL}, "/dev/zero"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *found = sf__ca_bundle_among(rows[i].places);

        if (rows[i].found)
            assert_string_equal(found, rows[i].found);
        else
            assert_null(found);
    }
}

/* The machine of the tests has some: libcurl's own or another one. */
static void the_system_has_some(void **state)
{
    const char *file;

    assert_true(sf__ca_bundle_of_system(&file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_first_that_can_be_read),
                                       cmocka_unit_test(the_system_has_some)};

    return cmocka_run_group_tests_name("certificate authorities", tests, NULL, NULL);
}
