#include "../../support/heap.h"
#include "vectors.h"

#include <dirent.h>

#include "base/strbuf.h"
#include "snapshot/run_record.h"

static void expect_record(const char *where, const sf_json *expected, const sf_run_record *r)
{
    static const char *const statuses[] = {"running", "succeeded", "failed"};

    assert_int_equal(need_int(expected, "format_version"), r->format_version);
    expect_text(where, need(expected, "run_id"), r->run_id);
    expect_text(where, need(expected, "writer_type"), r->writer_type);
    expect_text(where, need(expected, "status"), statuses[r->status]);
    expect_text(where, need(expected, "s3_prefix"), r->s3_prefix);
    expect_text(where, need(expected, "shard_prefix"), r->shard_prefix);
    expect_text(where, need(expected, "db_path_template"), r->db_path_template);
    expect_text(where, need(expected, "manifest_ref"), r->manifest_ref);
    expect_text(where, need(expected, "error_type"), r->error_type);
    expect_text(where, need(expected, "error_message"), r->error_message);
    expect_time(where, need(expected, "started_at"), r->started_at_us, false);
    expect_time(where, need(expected, "updated_at"), r->updated_at_us, false);
    expect_time(where, need(expected, "lease_expires_at"), r->lease_expires_at_us, false);
}

/* What is written reads back the same. */
static void expect_round_trip(const char *where, const sf_run_record *r, char **out, size_t *n)
{
    sf_error err = SF_ERROR_INIT;
    sf_run_record back;
    sf_arena arena;

    if (sf__run_record_format(out, n, r, HEAP, &err) != SF_OK)
        fail_msg("%s: %s", where, err.message);
    sf__arena_init(&arena, HEAP);
    if (sf__run_record_parse(&back, &arena, sf_bytes_of(*out, *n), &err) != SF_OK)
        fail_msg("%s: %s in\n%s", where, err.message, *out);
    assert_string_equal(back.run_id, r->run_id);
    assert_string_equal(back.s3_prefix, r->s3_prefix);
    assert_int_equal(back.status, r->status);
    assert_true(back.started_at_us == r->started_at_us && back.updated_at_us == r->updated_at_us);
    assert_true(back.lease_expires_at_us == r->lease_expires_at_us);
    assert_true((back.error_message == NULL) == (r->error_message == NULL));
    if (r->error_message)
        assert_string_equal(back.error_message, r->error_message);
    if (r->manifest_ref)
        assert_string_equal(back.manifest_ref, r->manifest_ref);
    assert_true((back.manifest_store == NULL) == (r->manifest_store == NULL));
    if (r->manifest_store)
        assert_string_equal(back.manifest_store, r->manifest_store);
    sf__arena_cleanup(&arena);
}

static void test_vectors(void **state)
{
    size_t equal = 0;
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/run_record.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *ok = sf__json_get(c, "ok");
        sf_bytes text = need(c, "text")->str;
        sf_error err = SF_ERROR_INIT;
        sf_run_record r;
        sf_arena arena;
        char name[100], *written;
        size_t n;
        sf_status rc;

        snprintf(name, sizeof(name), "%.*s", (int)need(c, "name")->str.n, (const char *)need(c, "name")->str.p);
        sf__arena_init(&arena, HEAP);
        rc = sf__run_record_parse(&r, &arena, text, &err);
        if (rc != (ok ? SF_OK : SF_CORRUPT))
            fail_msg("%s: %s '%s'", name, sf_status_name(rc), err.message);
        if (rc == SF_OK) {
            expect_record(name, ok, &r);
            expect_round_trip(name, &r, &written, &n);
            equal += sf_bytes_eq(text, sf_bytes_of(written, n));
            /* the first three are what the existing writer makes of its three states */
            if (equal < 3 &&
                (strcmp(name, "running") == 0 || strcmp(name, "succeeded") == 0 || strcmp(name, "failed") == 0) &&
                !sf_bytes_eq(text, sf_bytes_of(written, n)))
                fail_msg("%s: written as\n%s", name, written);
            sf__free(HEAP, written);
        }
        sf__arena_cleanup(&arena);
    }
    assert_true(equal >= 3);
    golden_close(&g);
}

/* Every record of the golden snapshots is written again to the byte. */
static void test_golden_bytes(void **state)
{
    char dir[1024];
    size_t same = 0;
    struct dirent *e;
    DIR *d;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/snapshots", fixtures_dir());
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char path[2048];
        struct dirent *run;
        DIR *runs;

        if (e->d_name[0] == '.' || strchr(e->d_name, '.'))
            continue;
        snprintf(path, sizeof(path), "%s/%s/bucket/golden/%s/runs", dir, e->d_name, e->d_name);
        runs = opendir(path);
        while (runs && (run = readdir(runs)) != NULL) {
            sf_run_record r;
            sf_arena arena;
            sf_bytes text;
            char *written;
            size_t n;

            if (run->d_name[0] == '.')
                continue;
            snprintf(path, sizeof(path), "snapshots/%s/bucket/golden/%s/runs/%s/run.yaml", e->d_name, e->d_name,
                     run->d_name);
            text = file_read(path);
            sf__arena_init(&arena, HEAP);
            assert_int_equal(sf__run_record_parse(&r, &arena, text, NULL), SF_OK);
            expect_round_trip(path, &r, &written, &n);
            if (!sf_bytes_eq(text, sf_bytes_of(written, n)))
                fail_msg("%s: written as\n%s", path, written);
            same++;
            sf__free(HEAP, written);
            sf__arena_cleanup(&arena);
            free((void *)(uintptr_t)text.p);
        }
        if (runs)
            closedir(runs);
    }
    closedir(d);
    assert_true(same >= 25);
}

#define HEAD                                                                                                      \
    "db_path_template: d\nlease_expires_at: '2026-01-02'\nrun_id: r\nshard_prefix: s\nstarted_at: '2026-01-02'\n" \
    "status: running\nupdated_at: '2026-01-02'\nwriter_type: c\n"

static void test_refusals_of_our_own(void **state)
{
    static const struct {
        const char *name, *text, *message;
    } cases[] = {
        {"alias", HEAD "s3_prefix: &a p\nmanifest_ref: *a\n", "manifest_ref is not a plain value"},
        {"alias elsewhere", HEAD "s3_prefix: &a p\nother: [*a]\n", "tag or an alias"},
        {"tag", HEAD "s3_prefix: !!str p\n", "not a plain value"},
        {"tag elsewhere", HEAD "s3_prefix: p\nother: {a: !x 1}\n", "tag or an alias"},
        {"tagged root", "!!map\n" HEAD "s3_prefix: p\n", "must decode to a mapping"},
        {"list as a value", HEAD "s3_prefix: [p]\n", "s3_prefix is not a plain value"},
        {"two documents", HEAD "s3_prefix: p\n---\na: 1\n", "more than one document"},
        {"NUL", HEAD "s3_prefix: \"a\\0b\"\n", "s3_prefix holds a NUL"},
        {"null", HEAD "s3_prefix: ~\n", "s3_prefix is not a text"},
        {"number", HEAD "s3_prefix: 0.5\n", "s3_prefix is not a text"},
        {"version", HEAD "s3_prefix: p\nformat_version: x\n", "format_version is not an integer"},
        {"list as a name", HEAD "s3_prefix: p\n? [a]\n: b\n", "name is not a plain text"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_error err = SF_ERROR_INIT;
        sf_run_record r;
        sf_arena arena;

        sf__arena_init(&arena, HEAP);
        if (sf__run_record_parse(&r, &arena, sf_bytes_str(cases[i].text), &err) != SF_CORRUPT ||
            !strstr(err.message, cases[i].message))
            fail_msg("%s: '%s'", cases[i].name, err.message);
        sf__arena_cleanup(&arena);
    }
}

static void test_bounds(void **state)
{
    char *big = malloc(70000);
    sf_error err = SF_ERROR_INIT;
    sf_run_record r;
    sf_arena arena;

    (void)state;
    assert_non_null(big);
    memset(big, ' ', 70000);
    sf__arena_init(&arena, HEAP);
    assert_int_equal(sf__run_record_parse(&r, &arena, sf_bytes_of(big, 70000), &err), SF_CORRUPT);
    memset(big, '[', 60000);
    memcpy(big, "x: ", 3);
    assert_int_equal(sf__run_record_parse(&r, &arena, sf_bytes_of(big, 60000), &err), SF_CORRUPT);
    assert_non_null(strstr(err.message, "too deep"));
    assert_int_equal(sf__run_record_parse(&r, &arena, sf_bytes_of(NULL, 0), &err), SF_CORRUPT);
    sf__arena_cleanup(&arena);
    free(big);
}

/* Texts that YAML would take for something else, or that its emitter must fold, escape or quote. */
static void test_odd_texts(void **state)
{
    static const char *const texts[] = {
        "null",
        "~",
        "true",
        "1",
        "-1.5",
        "2026-01-02",
        "12:30:45",
        "a: b",
        "# c",
        "a #b",
        "- a",
        "",
        " a ",
        "'",
        "\"",
        "\xc3\xa9\xf0\x9f\x98\x80",
        "a\nb\n\n c\n",
        "{x}",
        "[1]",
        "&a",
        "*a",
        "!t",
        "%d",
        "@",
        "`",
        "yes",
        "=",
        "<<",
        "a long text of more than eighty characters that the emitter will break into lines at its blanks, once or twice",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        sf_run_record r = {.format_version = 1,
                           .run_id = texts[i],
                           .writer_type = "c",
                           .s3_prefix = texts[i],
                           .shard_prefix = "s",
                           .db_path_template = "d",
                           .status = SF_RUN_FAILED,
                           .started_at_us = 1,
                           .updated_at_us = INT64_C(1767323045678901),
                           .manifest_store = i % 2 == 0 ? texts[i] : NULL,
                           .error_type = "IO",
                           .error_message = texts[i]};
        char *written;
        size_t n;

        expect_round_trip(texts[i], &r, &written, &n);
        sf__free(HEAP, written);
    }
}

static void test_liveness(void **state)
{
    sf_run_record r = {.status = SF_RUN_RUNNING, .lease_expires_at_us = 100};

    (void)state;
    assert_true(sf__run_record_is_live(&r, 99));
    assert_false(sf__run_record_is_live(&r, 100));
    r.status = SF_RUN_FAILED;
    assert_false(sf__run_record_is_live(&r, 99));
}

static void test_without_memory(void **state)
{
    sf_run_record r = {.format_version = 1,
                       .run_id = "r",
                       .writer_type = "c",
                       .s3_prefix = "p",
                       .shard_prefix = "s",
                       .db_path_template = "d"};
    bool fired = true;
    long n;

    (void)state;
    for (n = 0; fired; n++) {
        struct test_heap h;
        sf_run_record back;
        sf_arena arena;
        char *text;
        size_t length;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, n);
        rc = sf__run_record_format(&text, &length, &r, &h.alloc, NULL);
        if (rc == SF_OK) {
            sf__arena_init(&arena, &h.alloc);
            rc = sf__run_record_parse(&back, &arena, sf_bytes_of(text, length), NULL);
            sf__arena_cleanup(&arena);
            sf__free(&h.alloc, text);
        }
        fired = heap_disarm(&h);
        assert_int_equal(rc, fired ? SF_NOMEM : SF_OK);
        assert_int_equal(h.live, 0);
    }
    assert_true(n > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_golden_bytes),
        cmocka_unit_test(test_refusals_of_our_own),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_odd_texts),
        cmocka_unit_test(test_liveness),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests_name("run_record", tests, NULL, NULL);
}
