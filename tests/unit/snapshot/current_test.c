#include "../../support/heap.h"
#include "vectors.h"

#include <dirent.h>

#include "snapshot/current.h"

static void expect_current(const char *where, const sf_json *expected, const sf_current *c)
{
    expect_text(where, need(expected, "manifest_ref"), c->manifest_ref);
    expect_text(where, need(expected, "run_id"), c->run_id);
    expect_time(where, need(expected, "updated_at"), c->updated_at_us, c->updated_at_naive);
}

static void test_vectors(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/current_pointer.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *text = sf__json_get(c, "text"), *ok = sf__json_get(c, "ok");
        sf_bytes payload = text ? text->str : hex_decode(need(c, "hex")->str);
        sf_error err = SF_ERROR_INIT;
        sf_current current;
        char name[100];
        sf_status rc = sf__current_parse(&current, payload, HEAP, &err);

        snprintf(name, sizeof(name), "%.*s", (int)need(c, "name")->str.n, (const char *)need(c, "name")->str.p);
        if (!text)
            free((void *)(uintptr_t)payload.p);
        if (rc != (ok ? SF_OK : SF_BAD_MANIFEST))
            fail_msg("%s: %s '%s'", name, sf_status_name(rc), err.message);
        if (rc != SF_OK) {
            assert_int_equal(err.code, SF_BAD_MANIFEST);
            assert_non_null(strstr(err.message, "CURRENT pointer validation failed: "));
            continue;
        }
        expect_current(name, ok, &current);
        sf__current_cleanup(&current, HEAP);
        sf__current_cleanup(&current, HEAP);
    }
    golden_close(&g);
}

/* What is written has the same bytes as the existing writer's, for its time of writing. */
static void test_written_vectors(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/current_pointer.json");
    for (const sf_json *c = need_cases(&g, "written"); c; c = c->next) {
        sf_bytes payload = need(c, "payload_with_now")->str;
        sf_current current;
        char *text;

        assert_int_equal(sf__current_parse(&current, payload, HEAP, NULL), SF_OK);
        expect_text("written", need(c, "manifest_ref"), current.manifest_ref);
        expect_text("written", need(c, "run_id"), current.run_id);
        assert_int_equal(sf__current_format(&text, current.manifest_ref, current.manifest_content_type, current.run_id,
                                            current.updated_at_us, HEAP, NULL),
                         SF_OK);
        if (!sf_bytes_eq(sf_bytes_str(text), payload))
            fail_msg("%s", text);
        sf__free(HEAP, text);
        sf__current_cleanup(&current, HEAP);
    }
    golden_close(&g);
}

static void test_refusals_of_our_own(void **state)
{
    static const char nul[] =
        "{\"manifest_ref\":\"a\\u0000b\",\"manifest_content_type\":\"c\",\"run_id\":\"r\",\"updated_at\":0}";
    sf_error err = SF_ERROR_INIT;
    sf_current c;
    char *big = calloc(1, 70000), *text = NULL;

    (void)state;
    assert_int_equal(sf__current_parse(&c, sf_bytes_str(nul), HEAP, &err), SF_BAD_MANIFEST);
    assert_non_null(strstr(err.message, "manifest_ref holds a NUL"));
    assert_non_null(big);
    memset(big, ' ', 70000);
    assert_int_equal(sf__current_parse(&c, sf_bytes_of(big, 70000), HEAP, &err), SF_BAD_MANIFEST);
    free(big);
    assert_int_equal(sf__current_parse(&c, sf_bytes_of(NULL, 0), HEAP, &err), SF_BAD_MANIFEST);
    assert_int_equal(sf__current_format(&text, "s3://b/\xff", "c", "r", 0, HEAP, &err), SF_INVALID);
    assert_null(text);
}

static void test_without_memory(void **state)
{
    static const char text[] =
        "{\"manifest_ref\":\"s3://b/p\",\"manifest_content_type\":\"c\",\"run_id\":\"r\",\"updated_at\":\"2026-01-02\"}";
    bool fired = true;
    long n;

    (void)state;
    for (n = 0; fired; n++) {
        struct test_heap h;
        sf_current c;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__current_parse(&c, sf_bytes_str(text), &h.alloc, NULL);
        if (rc == SF_OK)
            sf__current_cleanup(&c, &h.alloc);
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 4);
}

/* The pointers of the golden snapshots. */
static void test_snapshots(void **state)
{
    char dir[1024];
    size_t parsed = 0, refused = 0, missing = 0;
    struct dirent *e;
    DIR *d;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/snapshots", fixtures_dir());
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char name[1024];
        const sf_json *expected;
        sf_current current;
        struct golden g;
        sf_bytes text;
        sf_status rc;

        if (e->d_name[0] == '.' || strchr(e->d_name, '.'))
            continue;
        snprintf(name, sizeof(name), "snapshots/%s/expected.json", e->d_name);
        golden_open(&g, name);
        expected = need(g.doc.root, "current");
        snprintf(name, sizeof(name), "snapshots/%s/bucket/%.*s/_CURRENT", e->d_name,
                 (int)need(g.doc.root, "s3_prefix")->str.n - 12, (const char *)need(g.doc.root, "s3_prefix")->str.p + 12);
        text = file_try_read(name);
        if (!text.p) {
            assert_non_null(sf__json_get(expected, "error"));
            missing++;
        } else {
            rc = sf__current_parse(&current, text, HEAP, NULL);
            if (rc != (sf__json_get(expected, "error") ? SF_BAD_MANIFEST : SF_OK))
                fail_msg("%s: %s", name, sf_status_name(rc));
            parsed += rc == SF_OK;
            refused += rc != SF_OK;
            if (rc == SF_OK) {
                expect_current(name, expected, &current);
                sf__current_cleanup(&current, HEAP);
            }
        }
        free((void *)(uintptr_t)text.p);
        golden_close(&g);
    }
    closedir(d);
    assert_true(parsed >= 30);
    assert_int_equal(refused, 1);
    assert_int_equal(missing, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_written_vectors),
        cmocka_unit_test(test_refusals_of_our_own),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_snapshots),
    };

    return cmocka_run_group_tests_name("current", tests, NULL, NULL);
}
