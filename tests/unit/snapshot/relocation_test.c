#include "vectors.h"

#include "snapshot/relocation.h"

static const struct {
    const char *url, *published, *given;
    bool relocate;
    const char *expected; /* NULL: SF_BAD_MANIFEST */
} shards[] = {
    {"s3://b/p/shards/x", "s3://b/p", "s3://b/p", false, "s3://b/p/shards/x"},
    {"s3://b/p/shards/x/", "s3://b/p", "s3://b/p", false, "s3://b/p/shards/x"},
    {"s3://b/p/shards/x", "s3://b/p", "s3://c/q", false, "s3://b/p/shards/x"},
    {"s3://b/p/shards/x", "s3://b/p", "s3://c/q", true, "s3://c/q/shards/x"},
    {"s3://b/p/shards/x", "s3://b/p/", "s3://c/q/", true, "s3://c/q/shards/x"},
    {"s3://b/other/x", "s3://b/p", "s3://c/q", true, "s3://b/other/x"},
    {"s3://b/pp/x", "s3://b/p", "s3://c/q", true, "s3://b/pp/x"},
    {"s3://b/p/shards/x", "s3://b/p", "/data/copy", false, "/data/copy/shards/x"},
    {"s3://b/p/shards/x", "s3://b/p", "file:///data/copy", false, "file:///data/copy/shards/x"},
    {"s3://b/p/shards/x", "s3://b/p", "mem://m/p", false, "mem://m/p/shards/x"},
    {"s3://b/p/../../etc", "s3://b/p", "/data/copy", false, NULL},
    {"s3://b/p/./x", "s3://b/p", "/data/copy", false, NULL},
    {"file:///etc/passwd", "s3://b/p", "s3://b/p", false, NULL},
    {"/etc/passwd", "s3://b/p", "s3://b/p", false, NULL},
    {"/etc/passwd", "s3://b/p", "s3://b/p", true, NULL},
    {"", "s3://b/p", "s3://b/p", false, NULL},
    {"s3://", "s3://b/p", "s3://b/p", false, NULL},
    {"s3://b/x", "s3://", "/data/copy", false, "s3://b/x"},
    {"/data/p/shards/x", "/data/p", "/data/q", true, "/data/q/shards/x"},
};

static void test_shards(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shards); i++) {
        sf_error err = SF_ERROR_INIT;
        char *url = NULL;
        sf_status rc = sf__location_resolve_shard(&url, shards[i].url, shards[i].published, shards[i].given,
                                                  shards[i].relocate, HEAP, &err);

        if (rc != (shards[i].expected ? SF_OK : SF_BAD_MANIFEST) ||
            (rc == SF_OK && strcmp(url, shards[i].expected) != 0))
            fail_msg("%s below %s: %s '%s' %s", shards[i].url, shards[i].given, sf_status_name(rc), url ? url : "",
                     err.message);
        sf__free(HEAP, url);
    }
}

static const struct {
    const char *ref, *given;
    bool relocate;
    const char *expected;
} manifests[] = {
    {"s3://b/p/manifests/n/manifest", "s3://b/p", false, "s3://b/p/manifests/n/manifest"},
    {"s3://b/p/manifests/n/manifest", "s3://c/q", false, "s3://b/p/manifests/n/manifest"},
    {"s3://b/p/manifests/n/manifest", "s3://c/q", true, "s3://c/q/manifests/n/manifest"},
    {"s3://b/p/manifests/n/manifest", "/data/copy/", false, "/data/copy/manifests/n/manifest"},
    {"s3://b/manifests/x/manifests/n/manifest", "/d", false, "/d/manifests/n/manifest"},
    {"mem://m/p/manifests/n/manifest", "mem://m/p", false, "mem://m/p/manifests/n/manifest"},
    {"s3://b/p/elsewhere/manifest", "/data/copy", false, NULL},
    {"s3://b/p/manifests/../manifest", "/data/copy", false, NULL},
    {"s3://b/p/manifests/", "/data/copy", false, NULL},
    {"manifests/n/manifest", "s3://b/p", false, NULL},
    {"r1", "s3://b/p", false, NULL},
    {"", "s3://b/p", false, NULL},
    {"/etc/passwd", "s3://b/p", false, NULL},
};

static void test_manifests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(manifests); i++) {
        sf_error err = SF_ERROR_INIT;
        char *url = NULL;
        sf_status rc = sf__location_resolve_manifest(&url, manifests[i].ref, manifests[i].given, manifests[i].relocate, HEAP,
                                                     &err);

        sf_status refused = strncmp(manifests[i].given, "s3:", 3) == 0 ? SF_INVALID : SF_BAD_MANIFEST;

        if (rc != (manifests[i].expected ? SF_OK : refused) ||
            (rc == SF_OK && strcmp(url, manifests[i].expected) != 0))
            fail_msg("%s below %s: %s '%s' %s", manifests[i].ref, manifests[i].given, sf_status_name(rc), url ? url : "",
                     err.message);
        sf__free(HEAP, url);
    }
}

static void test_prefix_length(void **state)
{
    (void)state;
    assert_int_equal(sf__prefix_length("s3://b/p//"), 8);
    assert_int_equal(sf__prefix_length("s3://"), 5);
    assert_int_equal(sf__prefix_length(""), 0);
    assert_int_equal(sf__prefix_length("/"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_manifests),
        cmocka_unit_test(test_prefix_length),
    };

    return cmocka_run_group_tests_name("location", tests, NULL, NULL);
}
