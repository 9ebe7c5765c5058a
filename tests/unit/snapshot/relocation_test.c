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
    {"file:///a%20b/x", "/a b", "s3://c/q", true, "s3://c/q/x"}, /* compared by what they mean */
    {"file:///a b/x", "file:///a%20b", "s3://c/q", true, "s3://c/q/x"},
    {"file:///a%41/x%42", "file:///aA", "file:///c", true, "file:///c/xB"},
    {"file:///a%2Fb/x", "file:///a/b", "file:///c", true, "file:///c/x"},
    {"file:///a%41/x", "/a%41", "file:///c", true, "file:///a%41/x"}, /* the one is /aA */
    {"file:///p/100%", "file:///p", "file:///c", true, "file:///c/100%25"},
    {"s3://b/p%41/x", "s3://b/pA", "s3://c/q", true, "s3://b/p%41/x"},
    {"file:///p/%2e%2e/x", "file:///p", "s3://c/q", false, NULL},
    {"file:///p/x%00y", "file:///p", "file:///q", true, NULL},
};

static void test_shards(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(shards); i++) {
        sf_error err = SF_ERROR_INIT;
        char *url = NULL;
        sf_status rc = sf__location_resolve_shard(&url, shards[i].url, shards[i].published, shards[i].given,
                                                  shards[i].relocate, HEAP, &err);

        if (rc != (shards[i].expected ? SF_OK : SF_BAD_MANIFEST) || (rc == SF_OK && strcmp(url, shards[i].expected) != 0))
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
        sf_status rc =
            sf__location_resolve_manifest(&url, manifests[i].ref, manifests[i].given, manifests[i].relocate, HEAP, &err);

        sf_status refused = strncmp(manifests[i].given, "s3:", 3) == 0 ? SF_INVALID : SF_BAD_MANIFEST;

        if (rc != (manifests[i].expected ? SF_OK : refused) || (rc == SF_OK && strcmp(url, manifests[i].expected) != 0))
            fail_msg("%s below %s: %s '%s' %s", manifests[i].ref, manifests[i].given, sf_status_name(rc),
                     url ? url : "", err.message);
        sf__free(HEAP, url);
    }
}

/* There and back. */
static void test_names(void **state)
{
    static const struct {
        const char *prefix, *name, *url;
    } cases[] = {
        {"s3://b/p", "run_id=a%41 b?c#d/x", "s3://b/p/run_id=a%41 b?c#d/x"},
        {"mem://m/p%41", "%", "mem://m/p%41/%"},
        {"file:///p%2541", "run_id=a%41 b?c#d/x:1", "file:///p%2541/run_id=a%2541%20b%3Fc%23d/x:1"},
        {"file:///p", "100%", "file:///p/100%25"},
        {"FILE:///p/", "\xc3\xa4", "FILE:///p/%C3%A4"},
        {"/p q", "a%20b", "/p q/a%20b"},
        {"s3://b/p/", "", "s3://b/p/"},
        {"file:///p", "", "file:///p/"},
    };
    static const struct {
        const char *url, *prefix, *name; /* NULL: elsewhere */
    } more[] = {
        {"file:///p%20q/x", "/p q", "x"},     {"file:///p q/%78", "file:///p%20q", "x"},
        {"/p q/%78", "file:///p%20q", "%78"}, {"file:///p/100%", "/p", "100%"},
        {"s3://b/p%78", "s3://b", "p%78"},    {"s3://b/px/y", "s3://b/p", NULL},
        {"file:///p/x%00y", "/p", NULL},      {"file:///p/", "/p", NULL},
        {"s3://c/p/x", "s3://b/p", NULL},     {"mem://b/p/x", "s3://b/p", NULL},
        {"file:///p%2", "file:///p", NULL},
    };
    sf_error err = SF_ERROR_INIT;
    char *url, *name;

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        url = sf__location_join(cases[i].prefix, cases[i].name, HEAP);
        assert_string_equal(url, cases[i].url);
        assert_int_equal(sf__location_below(&name, url, cases[i].prefix, HEAP, &err), SF_OK);
        assert_string_equal(name ? name : "", cases[i].name); /* nothing is below itself */
        sf__free(HEAP, name);
        sf__free(HEAP, url);
    }
    for (size_t i = 0; i < COUNT(more); i++) {
        assert_int_equal(sf__location_below(&name, more[i].url, more[i].prefix, HEAP, &err), SF_OK);
        if (!name != !more[i].name || (name && strcmp(name, more[i].name) != 0))
            fail_msg("%s below %s: %s", more[i].url, more[i].prefix, name ? name : "elsewhere");
        sf__free(HEAP, name);
    }
}

static void test_the_same(void **state)
{
    static const struct {
        const char *a, *b;
        bool place, manifest;
    } cases[] = {
        {"file:///p/manifests/n%20m/manifest", "file:///p/manifests/n m/manifest", true, true},
        {"file:///p/manifests/n%20m/manifest", "/p/manifests/n m/manifest", true, true},
        {"file:///p/manifests/n%20m/manifest", "s3://b/q/manifests/n m/manifest", false, true},
        {"file:///p/manifests/n%20m/manifest", "s3://b/q/manifests/n%20m/manifest", false, false},
        {"s3://b/manifests/n%41/manifest", "s3://b/manifests/nA/manifest", false, false},
        {"s3://b/manifests/n/manifest", "s3://b/manifests/n/manifest2", false, false},
        {"s3://b/manifests/n/manifest/", "s3://b/manifests/n/manifest", true, true},
        {"s3://b/x", "s3://b/x", true, true},
        {"s3://b/x", "s3://c/x", false, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int turned = 0; turned < 2; turned++) {
            const char *a = turned ? cases[i].b : cases[i].a, *b = turned ? cases[i].a : cases[i].b;

            if (sf__location_same(a, b) != cases[i].place || sf__location_same_manifest(a, b) != cases[i].manifest)
                fail_msg("%s and %s", a, b);
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
        cmocka_unit_test(test_shards),   cmocka_unit_test(test_manifests),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_the_same), cmocka_unit_test(test_prefix_length),
    };

    return cmocka_run_group_tests_name("location", tests, NULL, NULL);
}
