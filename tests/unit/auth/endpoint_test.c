/* The public endpoints: those that botocore takes (tests/fixtures/endpoints). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "auth/endpoint.h"
#include "base/error.h"

static const sf_allocator *const a = &sf__allocator_default;

static void expect(const char *service, const char *name, const char *region, const sf_endpoint_choice *choice,
                   const char *want)
{
    sf_error err = SF_ERROR_INIT;
    char *got = NULL;
    sf_status rc = sf__aws_endpoint(&got, service, region, choice, a, &err);

    if (strcmp(want, "https://s3.amazonaws.com") == 0) /* the same place by its older name */
        want = "https://s3.us-east-1.amazonaws.com";
    if (rc == SF_OK ? strcmp(got, want) != 0 : strcmp(want, "-") != 0 || rc != SF_INVALID || !strstr(err.message, region))
        fail_msg("%s of %s, fips %d, dual stack %d: %s, not %s", service, name, choice->fips, choice->dualstack,
                 rc == SF_OK ? got : err.message, want);
    sf__free(a, got);
}

static void as_botocore_decides(void **state)
{
    char line[1024], region[128];
    unsigned rows = 0;
    FILE *f = fopen(SF_FIXTURES_DIR "/endpoints/endpoints.tsv", "r");

    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        char *columns[7], *rest = line;
        sf_endpoint_choice choice = {.fips = false};

        for (size_t i = 0; i < 7; i++) {
            columns[i] = strsep(&rest, "\t\n");
            assert_non_null(columns[i]);
        }
        assert_true((size_t)snprintf(region, sizeof(region), "%s", columns[0]) < sizeof(region));
        choice.fips = sf__region_resolve(region) || columns[1][0] == '1';
        choice.dualstack = columns[2][0] == '1';
        if (strcmp(columns[3], "-") != 0 && strcmp(columns[3], region) != 0)
            fail_msg("%s is signed for %s, not %s", columns[0], region, columns[3]);
        expect("s3", columns[0], region, &choice, columns[4]);
        expect("sts", columns[0], region, &choice, columns[5]);
        expect("portal.sso", columns[0], region, &choice, columns[6]);
        rows++;
    }
    fclose(f);
    assert_int_equal(rows, 112);
}

static void names_of_regions(void **state)
{
    static const struct {
        const char *name, *region;
        bool fips;
    } rows[] = {
        {"us-east-1", "us-east-1", false},
        {"fips-us-east-1", "us-east-1", true},
        {"us-east-1-fips", "us-east-1", true},
        {"aws-global", "us-east-1", false},
        {"fips-aws-global", "us-east-1", true},
        {"fips-", "fips-", false},
        {"-fips", "-fips", false},
        {"fips", "fips", false},
        {"fips-x-fips", "x", true},
        {"", "", false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char region[32];
        bool fips;

        strcpy(region, rows[i].name);
        fips = sf__region_resolve(region);
        if (fips != rows[i].fips || strcmp(region, rows[i].region) != 0)
            fail_msg("%s: %s, %d", rows[i].name, region, fips);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_botocore_decides), cmocka_unit_test(names_of_regions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
