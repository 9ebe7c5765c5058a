/* The S3 store against a real server, which checks every signature. Run by tests/support/s3_server.py --tls, which hands
 * in its address and credentials:
 *     python tests/support/s3_server.py --tls -- build-asan/tests/unit/store/s3_test */
#include "s3_bench.h"
#include "scripted_server.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/checksum.h"

static const sf_allocator *const heap = &sf__allocator_default;

static const char *must_env(const char *name)
{
    const char *v = getenv(name);

    if (!v)
        fail_msg("%s is not set: run this through tests/support/s3_server.py --tls", name);
    return v;
}

/* ------------------------------------------------------------------ set-up --------------------------------------- */

static sf_s3_options server_options(void)
{
    sf_s3_options o = SF_S3_OPTIONS_INIT;

    o.endpoint_url = must_env("SF_TEST_S3_ENDPOINT");
    o.access_key_id = must_env("SF_TEST_S3_ACCESS_KEY");
    o.secret_access_key = must_env("SF_TEST_S3_SECRET_KEY");
    o.region = must_env("SF_TEST_S3_REGION");
    o.addressing = SF_ADDRESSING_PATH;
    o.retry_base_ms = 1;
    o.retry_cap_ms = 2;
    return o;
}

static void open_with(struct bench *b, const char *bucket, const sf_s3_options *o)
{
    sf_s3_resolved *resolved;
    sf_error err = SF_ERROR_INIT;

    if (sf__s3_options_resolve(&resolved, o, NULL, NULL, heap, &err) != SF_OK)
        fail_msg("%s", err.message);
    assert_int_equal(bench_open_bucket(b, heap, bucket, resolved, NULL), SF_OK);
    sf__s3_resolved_free(resolved, heap);
}

/* The endpoint that the tests use, with another host: the server takes BUCKET.localhost as a bucket's name. */
static const char *virtual_endpoint(char out[128])
{
    const char *port = strrchr(must_env("SF_TEST_S3_ENDPOINT"), ':');

    snprintf(out, 128, "http://localhost%s", port);
    return out;
}

static int set_up_style(void **state, sf_addressing style)
{
    struct bench *b = calloc(1, sizeof(*b));
    sf_s3_options o = server_options();
    char url[128];

    if (style == SF_ADDRESSING_VIRTUAL)
        o.endpoint_url = virtual_endpoint(url);
    o.addressing = style;
    open_with(b, must_env("SF_TEST_S3_BUCKET"), &o);
    *state = b;
    return 0;
}

static int set_up_path(void **state)
{
    return set_up_style(state, SF_ADDRESSING_PATH);
}

static int set_up_virtual(void **state)
{
    return set_up_style(state, SF_ADDRESSING_VIRTUAL);
}

static int tear_down(void **state)
{
    bench_close(*state);
    free(*state);
    return 0;
}

/* ------------------------------------------------------------------ helpers -------------------------------------- */

static sf_status run(struct bench *b, sf_store_op op)
{
    bench_run(b, &op);
    return b->error.code;
}

static void must(struct bench *b, const char *what, sf_store_op op)
{
    if (run(b, op) != SF_OK)
        fail_msg("%s: %s", what, b->error.message);
}

static void must_put(struct bench *b, const char *key, const char *text)
{
    must(b, key, (sf_store_op){.verb = SF_STORE_PUT, .key = key, .body = sf_bytes_str(text)});
}

static void expect_data(struct bench *b, const char *what, const char *text, uint64_t object_size)
{
    sf_bytes got = sf__buf_bytes(b->op.data);

    if (!sf_bytes_eq(got, sf_bytes_str(text)) || b->op.object_size != object_size)
        fail_msg("%s: \"%.*s\" of %llu bytes", what, (int)got.n, (const char *)got.p,
                 (unsigned long long)b->op.object_size);
    sf__store_op_cleanup(&b->op, heap);
}

struct listing {
    sf_store_listing l;
    sf_error error;
    struct gate gate;
};

static void listing_done(sf_store_listing *l)
{
    struct listing *g = l->ctx;

    g->error = *l->error;
    gate_arrive(&g->gate);
}

static void listing_start(void *arg)
{
    sf__store_list_all(&((struct listing *)arg)->l);
}

/* The caller cleans up. */
static void list_all(struct bench *b, struct listing *g, const char *prefix, const char *delimiter, const char *after)
{
    *g = (struct listing){.gate = GATE_INIT};
    g->l = (sf_store_listing){.store = b->store,
                              .prefix = prefix,
                              .delimiter = delimiter,
                              .start_after = after,
                              .deadline_ns = sf__deadline_in_ms(20000),
                              .done = listing_done,
                              .ctx = g};
    on_loop(b->loop, listing_start, g);
    gate_wait(&g->gate, 1);
    if (g->error.code != SF_OK)
        fail_msg("%s: %s", prefix, g->error.message);
}

/* "name=size", prefixes without a size, separated by blanks; `prefix` is cut off. */
static const char *list_text(struct bench *b, const char *prefix, const char *delimiter, const char *after)
{
    static char text[4096];
    struct listing g;
    size_t n = 0;

    text[0] = '\0';
    list_all(b, &g, prefix, delimiter, after);
    for (size_t i = 0; i < g.l.entry_count && n < sizeof(text); i++) {
        const sf_store_entry *e = &g.l.entries[i];

        assert_memory_equal(e->key, prefix, strlen(prefix));
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? " " : "", e->key + strlen(prefix));
        if (!e->is_prefix)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "=%llu", (unsigned long long)e->size);
    }
    sf__store_listing_cleanup(&g.l);
    return text;
}

static void delete_below(struct bench *b, const char *prefix)
{
    const char *keys[1000];
    struct listing g;

    list_all(b, &g, prefix, NULL, NULL);
    for (size_t at = 0; at < g.l.entry_count; at += 1000) {
        size_t n = g.l.entry_count - at < 1000 ? g.l.entry_count - at : 1000;

        for (size_t i = 0; i < n; i++)
            keys[i] = g.l.entries[at + i].key;
        must(b, prefix, (sf_store_op){.verb = SF_STORE_DELETE_MANY, .key = "", .keys = keys, .key_count = n});
    }
    sf__store_listing_cleanup(&g.l);
    assert_string_equal(list_text(b, prefix, NULL, NULL), "");
}

/* ------------------------------------------------------------------ keys ----------------------------------------- */

/* Every key that a snapshot can have, and some that only a careless name gives. */
static const char *const odd_keys[] = {
    "odd/plain",
    "odd/run_id=0a/db=00001/attempt=00/manifest/00000000000000000001.manifest",
    "odd/manifests/2026-01-02T03:04:05.678901Z_run_id=r1/manifest",
    "odd/with space/x y",
    "odd/\xc3\xbcn\xc3\xaf"
    "c\xc3\xb6"
    "de/\xe2\x9c\x93/\xe6\x97\xa5\xe6\x9c\xac/\xf0\x9f\x90\x98",
    "odd/100%",
    "odd/per%20cent%2Fslash",
    "odd/plus+sign",
    "odd/semi;comma,amp&eq=",
    "odd/question?mark=1",
    "odd/number#sign",
    "odd/quote'double\"",
    "odd/paren()!*~_-.",
    "odd/at@dollar$",
    "odd/brackets[]{}|^`",
    "odd/less<than>more",
    "odd/back\\slash",
    "odd/.hidden",
    "odd/two  blanks",
};
#define ODD_KEYS (sizeof(odd_keys) / sizeof(odd_keys[0]))

static void odd_keys_make_the_round(void **state)
{
    struct bench *b = *state;
    char text[64];

    for (size_t i = 0; i < ODD_KEYS; i++) {
        const char *key = odd_keys[i];

        snprintf(text, sizeof(text), "value %02zu", i);
        must_put(b, key, text);
        must(b, key, (sf_store_op){.verb = SF_STORE_HEAD, .key = key});
        assert_int_equal(b->op.object_size, 8);
        assert_true(b->op.etag[0] == '"');
        must(b, key, (sf_store_op){.verb = SF_STORE_GET, .key = key, .len = SF_STORE_ALL, .max_bytes = 100});
        expect_data(b, key, text, 8);
        must(b, key, (sf_store_op){.verb = SF_STORE_GET, .key = key, .off = 6, .len = 2});
        expect_data(b, key, text + 6, 8);
        snprintf(text, sizeof(text), "=8");
        if (strcmp(list_text(b, key, NULL, NULL), text) != 0)
            fail_msg("%s is listed as \"%s\"", key, list_text(b, key, NULL, NULL));
    }
    for (size_t i = 0; i < ODD_KEYS; i += 2) {
        must(b, odd_keys[i], (sf_store_op){.verb = SF_STORE_DELETE, .key = odd_keys[i]});
        assert_int_equal(run(b, (sf_store_op){.verb = SF_STORE_HEAD, .key = odd_keys[i]}), SF_NOT_FOUND);
    }
    must(b, "delete many",
         (sf_store_op){.verb = SF_STORE_DELETE_MANY, .key = "", .keys = odd_keys, .key_count = ODD_KEYS});
    assert_string_equal(list_text(b, "odd/", NULL, NULL), "");
}

/* ------------------------------------------------------------------ bytes ---------------------------------------- */

static void ranges(void **state)
{
    static const struct {
        const char *name;
        sf_store_verb verb;
        uint64_t off, len, max;
        sf_status rc;
        const char *text;
    } rows[] = {
        {"whole", SF_STORE_GET, 0, SF_STORE_ALL, 10, SF_OK, "0123456789"},
        {"whole, over its bound", SF_STORE_GET, 0, SF_STORE_ALL, 9, SF_CORRUPT, NULL},
        {"all of it as a range", SF_STORE_GET, 0, 10, 0, SF_OK, "0123456789"},
        {"a part", SF_STORE_GET, 3, 4, 0, SF_OK, "3456"},
        {"the last byte", SF_STORE_GET, 9, 1, 0, SF_OK, "9"},
        {"beyond the end", SF_STORE_GET, 9, 2, 0, SF_CORRUPT, NULL},
        {"behind the end", SF_STORE_GET, 10, 1, 0, SF_CORRUPT, NULL},
        {"suffix", SF_STORE_GET_SUFFIX, 0, 3, 0, SF_OK, "789"},
        {"suffix of all", SF_STORE_GET_SUFFIX, 0, 10, 0, SF_OK, "0123456789"},
        {"suffix of more than there is", SF_STORE_GET_SUFFIX, 0, 100, 0, SF_OK, "0123456789"},
    };
    struct bench *b = *state;

    must_put(b, "ranges/ten", "0123456789");
    must_put(b, "ranges/none", "");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_status rc = run(b, (sf_store_op){.verb = rows[i].verb,
                                            .key = "ranges/ten",
                                            .off = rows[i].off,
                                            .len = rows[i].len,
                                            .max_bytes = rows[i].max});

        if (rc != rows[i].rc)
            fail_msg("%s: %s: %s", rows[i].name, sf_status_name(rc), b->error.message);
        if (rc == SF_OK)
            expect_data(b, rows[i].name, rows[i].text, 10);
    }
    must(b, "empty", (sf_store_op){.verb = SF_STORE_GET, .key = "ranges/none", .len = SF_STORE_ALL, .max_bytes = 1});
    expect_data(b, "empty", "", 0);
    must(b, "suffix of nothing", (sf_store_op){.verb = SF_STORE_GET_SUFFIX, .key = "ranges/none", .len = 5});
    expect_data(b, "suffix of nothing", "", 0);
    delete_below(b, "ranges/");
}

/* Above the size from which the server is asked before the body goes out, and with bytes of every value. */
static void large_objects(void **state)
{
    struct bench *b = *state;
    size_t n = (3u << 20) + 12345;
    uint8_t *bytes = malloc(n);
    uint64_t sum;

    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    sum = sf__xxh3_64(sf_bytes_of(bytes, n));
    must(b, "put", (sf_store_op){.verb = SF_STORE_PUT, .key = "large", .body = {bytes, n}, .content_type = "a/b"});
    assert_int_equal(run(b, (sf_store_op){.verb = SF_STORE_GET, .key = "large", .len = SF_STORE_ALL, .max_bytes = n - 1}),
                     SF_CORRUPT);
    assert_int_equal(b->op.longer, n); /* told by the header, and the next one is not disturbed */
    must(b, "get", (sf_store_op){.verb = SF_STORE_GET, .key = "large", .len = SF_STORE_ALL, .max_bytes = b->op.longer});
    assert_int_equal(b->op.data->n, n);
    assert_int_equal(b->op.data->cap, n);
    assert_true(sf__xxh3_64(sf__buf_bytes(b->op.data)) == sum);
    sf__store_op_cleanup(&b->op, heap);
    must(b, "delete", (sf_store_op){.verb = SF_STORE_DELETE, .key = "large"});
    free(bytes);
}

/* ------------------------------------------------------------------ conditions ----------------------------------- */

static void conditional_puts(void **state)
{
    struct bench *b = *state;
    char first[128], second[128];
    sf_store_op put = {.verb = SF_STORE_PUT, .key = "cond/_CURRENT", .body = sf_bytes_str("one"), .create_only = true};
    sf_store_op get = {.verb = SF_STORE_GET, .key = "cond/_CURRENT", .len = 3};

    must(b, "create", put);
    strcpy(first, b->op.etag);
    assert_int_equal(run(b, put), SF_CONFLICT);
    assert_int_equal(b->error.http_status, 412);
    put.create_only = false;
    put.body = sf_bytes_str("two");
    put.if_match = first;
    must(b, "replace", put);
    strcpy(second, b->op.etag);
    assert_string_not_equal(first, second);
    put.body = sf_bytes_str("ten");
    assert_int_equal(run(b, put), SF_CONFLICT);
    get.if_match = second;
    must(b, "get", get);
    assert_string_equal(b->op.etag, second);
    expect_data(b, "get", "two", 3);
    get.if_match = first;
    assert_int_equal(run(b, get), SF_CONFLICT);
    get = (sf_store_op){
        .verb = SF_STORE_GET, .key = "cond/_CURRENT", .len = SF_STORE_ALL, .max_bytes = 9, .if_none_match = second};
    must(b, "get what has not changed", get);
    assert_true(b->op.not_modified);
    expect_data(b, "get what has not changed", "", SF_STORE_ALL);
    get.if_none_match = first;
    must(b, "get what has changed", get);
    assert_false(b->op.not_modified);
    expect_data(b, "get what has changed", "two", 3);
    put.key = "cond/none";
    assert_int_equal(run(b, put), SF_CONFLICT); /* what was to be replaced is not there */
    delete_below(b, "cond/");
}

/* ------------------------------------------------------------------ uploads -------------------------------------- */

#define PART (5u << 20) /* S3 takes no smaller one but as the last */

static void multipart(void **state)
{
    struct bench *b = *state;
    char id[512], first[128], second[128];
    const char *etags[2] = {first, second};
    uint8_t *big = malloc(PART);
    sf_store_op complete = {
        .verb = SF_STORE_MULTIPART_COMPLETE, .key = "up/k=1 %", .upload_id = id, .keys = etags, .key_count = 2};

    memset(big, 'b', PART);
    must(b, "create", (sf_store_op){.verb = SF_STORE_MULTIPART_CREATE, .key = complete.key, .content_type = "x/y"});
    snprintf(id, sizeof(id), "%s", b->op.upload_id_out);
    sf__store_op_cleanup(&b->op, heap);
    must(b, "part 2",
         (sf_store_op){.verb = SF_STORE_MULTIPART_PART,
                       .key = complete.key,
                       .upload_id = id,
                       .part_number = 2,
                       .body = sf_bytes_str("the end")});
    strcpy(second, b->op.etag);
    must(b, "part 1",
         (sf_store_op){
             .verb = SF_STORE_MULTIPART_PART, .key = complete.key, .upload_id = id, .part_number = 1, .body = {big, PART}});
    strcpy(first, b->op.etag);
    assert_string_equal(list_text(b, "up/", NULL, NULL), "");
    etags[0] = second;
    assert_int_equal(run(b, complete), SF_IO); /* InvalidPart */
    assert_non_null(strstr(b->error.message, "InvalidPart"));
    etags[0] = first;
    must(b, "complete", complete);
    assert_true(b->op.etag[0] != '\0');
    sf__store_op_cleanup(&b->op, heap);
    must(b, "get", (sf_store_op){.verb = SF_STORE_GET, .key = complete.key, .off = PART - 2, .len = 9});
    expect_data(b, "get", "bbthe end", PART + 7);
    assert_int_equal(run(b, (sf_store_op){.verb = SF_STORE_MULTIPART_PART,
                                          .key = complete.key,
                                          .upload_id = id,
                                          .part_number = 1,
                                          .body = {big, PART}}),
                     SF_NOT_FOUND); /* it is over */
    delete_below(b, "up/");
    free(big);
}

/* A server that knows no conditions for it would replace the object: then this fails. */
static void uploads_on_a_condition(void **state)
{
    struct bench *b = *state;
    char id[512], etag[128];
    const char *etags[1] = {etag};
    sf_store_op complete = {.verb = SF_STORE_MULTIPART_COMPLETE,
                            .key = "new/k",
                            .upload_id = id,
                            .keys = etags,
                            .key_count = 1,
                            .create_only = true};

    for (int taken = 0; taken < 2; taken++) {
        if (taken)
            must(b, "put", (sf_store_op){.verb = SF_STORE_PUT, .key = complete.key, .body = sf_bytes_str("theirs")});
        must(b, "create", (sf_store_op){.verb = SF_STORE_MULTIPART_CREATE, .key = complete.key});
        snprintf(id, sizeof(id), "%s", b->op.upload_id_out);
        sf__store_op_cleanup(&b->op, heap);
        must(b, "part",
             (sf_store_op){.verb = SF_STORE_MULTIPART_PART,
                           .key = complete.key,
                           .upload_id = id,
                           .part_number = 1,
                           .body = sf_bytes_str("ours")});
        strcpy(etag, b->op.etag);
        assert_int_equal(run(b, complete), taken ? SF_CONFLICT : SF_OK);
        assert_false(b->op.may_be_ours);
        sf__store_op_cleanup(&b->op, heap);
        must(b, "get", (sf_store_op){.verb = SF_STORE_GET, .key = complete.key, .len = SF_STORE_ALL, .max_bytes = 100});
        expect_data(b, "get", taken ? "theirs" : "ours", taken ? 6 : 4);
    }
    must(b, "abort", (sf_store_op){.verb = SF_STORE_MULTIPART_ABORT, .key = complete.key, .upload_id = id});
    delete_below(b, "new/");
}

static void aborted_uploads(void **state)
{
    struct bench *b = *state;
    char id[512];
    sf_store_op part = {
        .verb = SF_STORE_MULTIPART_PART, .key = "gone/k", .upload_id = id, .part_number = 1, .body = sf_bytes_str("text")};

    must(b, "create", (sf_store_op){.verb = SF_STORE_MULTIPART_CREATE, .key = part.key});
    snprintf(id, sizeof(id), "%s", b->op.upload_id_out);
    sf__store_op_cleanup(&b->op, heap);
    must(b, "part", part);
    must(b, "abort", (sf_store_op){.verb = SF_STORE_MULTIPART_ABORT, .key = part.key, .upload_id = id});
    must(b, "abort again", (sf_store_op){.verb = SF_STORE_MULTIPART_ABORT, .key = part.key, .upload_id = id});
    assert_int_equal(run(b, part), SF_NOT_FOUND);
    assert_string_equal(list_text(b, "gone/", NULL, NULL), "");
}

#define MANY_UPLOADS 1005 /* more than one page */

/* By names alone: this server refuses its own ids as markers (what that comes to is in the tests of clean-up). */

static void unfinished_uploads(void **state)
{
    struct bench *b = *state;
    char key[64], marker[128] = "";
    sf_store_upload all[MANY_UPLOADS + 1000];
    unsigned seen = 0, pages = 0;
    int64_t now = sf__clock_unix_us();

    must(b, "another", (sf_store_op){.verb = SF_STORE_MULTIPART_CREATE, .key = "left2/k"});
    sf__store_op_cleanup(&b->op, heap);
    for (unsigned i = 0; i < MANY_UPLOADS; i++) {
        snprintf(key, sizeof(key), "left/k=%04u +%%", i);
        must(b, "create", (sf_store_op){.verb = SF_STORE_MULTIPART_CREATE, .key = key});
        sf__store_op_cleanup(&b->op, heap);
    }
    do {
        sf_store_op page;

        must(b, "list",
             (sf_store_op){.verb = SF_STORE_MULTIPART_LIST, .key = "left/", .continuation = marker[0] ? marker : NULL});
        page = b->op;
        assert_true(page.upload_count <= 1000 && page.upload_count > 0);
        for (size_t i = 0; i < page.upload_count; i++) {
            unsigned number = 0;
            char rest[8] = "";

            assert_int_equal(sscanf(page.uploads[i].key, "left/k=%4u%4[ +%%]", &number, rest), 2);
            assert_string_equal(rest, " +%");
            assert_int_equal(number, seen);
            assert_true(page.uploads[i].begun_us > now - 600000000 && page.uploads[i].begun_us < now + 600000000);
            all[seen++] = page.uploads[i];
            page.uploads[i] = (sf_store_upload){0};
        }
        snprintf(marker, sizeof(marker), "%s", page.next ? page.next : "");
        assert_true(!page.next == !page.upload_id_out);
        pages++;
        sf__store_op_cleanup(&page, heap);
    } while (marker[0] && seen <= MANY_UPLOADS);
    assert_int_equal(seen, MANY_UPLOADS);
    assert_int_equal(pages, 2);
    for (unsigned i = 0; i < seen; i++) {
        must(b, "abort", (sf_store_op){.verb = SF_STORE_MULTIPART_ABORT, .key = all[i].key, .upload_id = all[i].id});
        sf__free(heap, all[i].key);
        sf__free(heap, all[i].id);
    }
    must(b, "list", (sf_store_op){.verb = SF_STORE_MULTIPART_LIST, .key = ""});
    assert_int_equal(b->op.upload_count, 1);
    assert_string_equal(b->op.uploads[0].key, "left2/k");
    all[0] = b->op.uploads[0];
    b->op.uploads[0] = (sf_store_upload){0};
    sf__store_op_cleanup(&b->op, heap);
    must(b, "abort", (sf_store_op){.verb = SF_STORE_MULTIPART_ABORT, .key = "left2/k", .upload_id = all[0].id});
    sf__free(heap, all[0].key);
    sf__free(heap, all[0].id);
}

/* ------------------------------------------------------------------ listings ------------------------------------- */

static void listings(void **state)
{
    static const char *const keys[] = {
        "ls/a",          "ls/b/x",   "ls/b/y",          "ls/b.c",
        "ls/c",          "ls2/z",    "ls/db=00001/m n", "ls/2026-01-02T03:04:05.678901Z_run_id=r/m",
        "ls/\xc3\xa9/1", "ls/p%20/1"};
    static const struct {
        const char *prefix, *delimiter, *after, *text;
    } rows[] = {
        {"ls/b", NULL, NULL, ".c=1 /x=1 /y=1"},
        {"ls/b", "/", NULL, ".c=1 /"},
        {"ls", "/", NULL, "/ 2/"},
        {"ls/", "/", NULL, "2026-01-02T03:04:05.678901Z_run_id=r/ a=1 b.c=1 b/ c=1 db=00001/ p%20/ \xc3\xa9/"},
        {"ls/", "/", "ls/b.c", "b/ c=1 db=00001/ p%20/ \xc3\xa9/"},
        {"ls/", NULL, "ls/b/x", "b/y=1 c=1 db=00001/m n=1 p%20/1=1 \xc3\xa9/1=1"},
        {"ls/db=00001/", NULL, NULL, "m n=1"},
        {"ls/\xc3\xa9/", NULL, NULL, "1=1"},
        {"ls/none/", NULL, NULL, ""},
        {"ls/", NULL, "ls/\xc3\xa9/1", ""},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        must_put(b, keys[i], "v");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *got = list_text(b, rows[i].prefix, rows[i].delimiter, rows[i].after);

        if (strcmp(got, rows[i].text) != 0)
            fail_msg("%s after %s: \"%s\"", rows[i].prefix, rows[i].after ? rows[i].after : "nothing", got);
    }
    delete_below(b, "ls");
}

#define MANY 1203 /* more than one page, and more than one batch to delete */

static void pages(void **state)
{
    struct bench *b = *state;
    struct listing g;
    char key[64];
    const char *from;

    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "many/k+%05d", i);
        must_put(b, key, "");
    }
    from = "many/k+00100";
    list_all(b, &g, "many/", NULL, from);
    assert_int_equal(g.l.pages, 2);
    assert_int_equal(g.l.entry_count, MANY - 101);
    for (size_t i = 0; i < g.l.entry_count; i++) {
        snprintf(key, sizeof(key), "many/k+%05zu", i + 101);
        assert_string_equal(g.l.entries[i].key, key);
    }
    sf__store_listing_cleanup(&g.l);
    delete_below(b, "many/");
}

/* ------------------------------------------------------------------ errors --------------------------------------- */

static void errors_say_what_and_where(void **state)
{
    static const char *const no_keys[] = {"err/none"};
    static const struct {
        const char *name, *bucket, *secret;
        bool anonymous;
        sf_store_op op;
        sf_status rc;
        int http_status;
        const char *operation, *parts[4]; /* of the message */
    } rows[] = {
        /* clang-format off */
        {"missing object", NULL, NULL, false, {.verb = SF_STORE_GET, .key = "err/none", .len = 1}, SF_NOT_FOUND, 404, "get",
         {"get s3://scratch/err/none: GET answered 404 NoSuchKey", "(request id "}},
        {"missing object, HEAD", NULL, NULL, false, {.verb = SF_STORE_HEAD, .key = "err/none"}, SF_NOT_FOUND, 404, "head",
         {"head s3://scratch/err/none: HEAD answered 404", "(request id "}},
        {"missing bucket", "no-such-bucket", NULL, false, {.verb = SF_STORE_LIST, .key = "p/"}, SF_NOT_FOUND, 404, "list",
         {"list s3://no-such-bucket/p/: GET answered 404 NoSuchBucket", "there is no bucket \"no-such-bucket\""}},
        {"missing bucket, put", "no-such-bucket", NULL, false, {.verb = SF_STORE_PUT, .key = "k"}, SF_NOT_FOUND, 404, "put",
         {"put s3://no-such-bucket/k: PUT answered 404 NoSuchBucket"}},
        {"missing bucket, delete many", "no-such-bucket", NULL, false,
         {.verb = SF_STORE_DELETE_MANY, .key = "", .keys = no_keys, .key_count = 1}, SF_NOT_FOUND, 404, "delete",
         {"NoSuchBucket"}},
        {"wrong secret", NULL, "WRONG-SECRET-KEY", false, {.verb = SF_STORE_GET, .key = "k", .len = 1}, SF_DENIED, 403, "get",
         {"get s3://scratch/k: GET answered 403 SignatureDoesNotMatch", "(request id "}},
        {"no credentials", NULL, NULL, true, {.verb = SF_STORE_GET, .key = "k", .len = 1}, SF_DENIED, 403, "get",
         {"GET answered 403 AccessDenied"}},
        {"no such upload", NULL, NULL, false, {.verb = SF_STORE_MULTIPART_PART, .key = "k", .upload_id = "none",
         .part_number = 1}, SF_NOT_FOUND, 404, "upload part", {"PUT answered 404 NoSuchUpload"}},
        /* clang-format on */
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_s3_options o = server_options();
        const char *bucket = rows[i].bucket ? rows[i].bucket : must_env("SF_TEST_S3_BUCKET");
        const sf_error *e;
        struct bench b;

        if (rows[i].secret)
            o.secret_access_key = rows[i].secret;
        o.anonymous = rows[i].anonymous;
        open_with(&b, bucket, &o);
        run(&b, rows[i].op);
        e = &b.error;
        if (e->code != rows[i].rc || e->http_status != rows[i].http_status || e->attempts != 1 ||
            strcmp(e->operation, rows[i].operation) != 0)
            fail_msg("%s: %s, HTTP %d, %u attempts, %s: %s", rows[i].name, sf_status_name(e->code), e->http_status,
                     e->attempts, e->operation, e->message);
        for (size_t k = 0; k < 4 && rows[i].parts[k]; k++)
            if (!strstr(e->message, rows[i].parts[k]))
                fail_msg("%s: no \"%s\" in \"%s\"", rows[i].name, rows[i].parts[k], e->message);
        if (strstr(e->message, must_env("SF_TEST_S3_SECRET_KEY")) || strstr(e->message, "WRONG-SECRET-KEY") ||
            strstr(e->message, "Signature="))
            fail_msg("%s: a secret in \"%s\"", rows[i].name, e->message);
        bench_close(&b);
    }
}

/* ------------------------------------------------------------------ ways to the server --------------------------- */

static sf_status head_of_nothing(const sf_s3_options *o, const char *name, sf_error *out)
{
    struct bench b;

    open_with(&b, must_env("SF_TEST_S3_BUCKET"), o);
    run(&b, (sf_store_op){.verb = SF_STORE_HEAD, .key = name});
    *out = b.error;
    bench_close(&b);
    return out->code;
}

/* SF_NOT_FOUND: the server was reached, and has taken the signature. */
static void encrypted_connections(void **state)
{
    static const struct {
        const char *name, *ca_option, *ca_env, *cert_file; /* names of variables */
        bool insecure;
        sf_status rc;
    } rows[] = {
        {"the authority as an option", "SF_TEST_CA", NULL, NULL, false, SF_NOT_FOUND},
        {"the authority in the environment", NULL, "SF_TEST_CA", NULL, false, SF_NOT_FOUND},
        {"the system's authorities", NULL, NULL, NULL, false, SF_INVALID},
        {"another authority", "SF_TEST_OTHER_CA", NULL, NULL, false, SF_INVALID},
        {"the authority as OpenSSL's variable", NULL, NULL, "SF_TEST_CA", false, SF_NOT_FOUND},
        {"AWS's variable wins", NULL, "SF_TEST_OTHER_CA", "SF_TEST_CA", false, SF_INVALID},
        {"the option wins", "SF_TEST_OTHER_CA", "SF_TEST_CA", NULL, false, SF_INVALID},
        {"not verified", NULL, NULL, NULL, true, SF_NOT_FOUND},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_s3_options o = server_options();
        sf_error e;

        o.endpoint_url = must_env("SF_TEST_S3_TLS_ENDPOINT");
        o.ca_bundle = rows[i].ca_option ? must_env(rows[i].ca_option) : NULL;
        o.insecure = rows[i].insecure;
        if (rows[i].ca_env)
            setenv("AWS_CA_BUNDLE", must_env(rows[i].ca_env), 1);
        if (rows[i].cert_file)
            setenv("SSL_CERT_FILE", must_env(rows[i].cert_file), 1);
        head_of_nothing(&o, "tls/none", &e);
        unsetenv("AWS_CA_BUNDLE");
        unsetenv("SSL_CERT_FILE");
        if (e.code != rows[i].rc || e.attempts != 1)
            fail_msg("%s: %s in %u attempts: %s", rows[i].name, sf_status_name(e.code), e.attempts, e.message);
        if (e.code == SF_INVALID && !strstr(e.message, "certificate"))
            fail_msg("%s: \"%s\" does not name the certificate", rows[i].name, e.message);
    }
}

/* A large body is not hashed where TLS vouches for it, and its signature has to say so. */
static void large_bodies_over_tls(void **state)
{
    sf_s3_options o = server_options();
    size_t n = 2u << 20;
    uint8_t *bytes = calloc(1, n);
    struct bench b;

    o.endpoint_url = must_env("SF_TEST_S3_TLS_ENDPOINT");
    o.ca_bundle = must_env("SF_TEST_CA");
    open_with(&b, must_env("SF_TEST_S3_BUCKET"), &o);
    must(&b, "put", (sf_store_op){.verb = SF_STORE_PUT, .key = "tls/large", .body = {bytes, n}});
    must(&b, "get", (sf_store_op){.verb = SF_STORE_GET, .key = "tls/large", .off = n - 3, .len = 3});
    assert_int_equal(b.op.object_size, n);
    sf__store_op_cleanup(&b.op, heap);
    must(&b, "delete", (sf_store_op){.verb = SF_STORE_DELETE, .key = "tls/large"});
    bench_close(&b);
    free(bytes);
}

/* The server itself stands in for a proxy: it takes requests in the form that proxies get. Nobody else could find a host
 * of this name. */
static void a_proxy_from_the_environment(void **state)
{
    sf_s3_options o = server_options();
    sf_error e;

    o.endpoint_url = "http://s3.invalid:1";
    o.max_retries = 0;
    setenv("http_proxy", must_env("SF_TEST_S3_ENDPOINT"), 1);
    if (head_of_nothing(&o, "through a proxy", &e) != SF_NOT_FOUND)
        fail_msg("%s", e.message);
    setenv("no_proxy", "s3.invalid", 1);
    assert_int_equal(head_of_nothing(&o, "past it", &e), SF_UNAVAILABLE);
    unsetenv("http_proxy");
    unsetenv("no_proxy");
}

/* Everything from the environment, as a service would have it. */
static void options_from_the_environment(void **state)
{
    static const struct {
        const char *endpoint, *region, *id, *secret;
    } names[] = {
        {"SLATEDB_S3_ENDPOINT_URL", "S3_REGION", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"},
        {"AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    };
    sf_s3_options o = SF_S3_OPTIONS_INIT;
    char url[128];
    sf_error e;

    for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
        bool virtual_hosts = i % 2 == 1;

        setenv(names[i / 2].endpoint, virtual_hosts ? virtual_endpoint(url) : must_env("SF_TEST_S3_ENDPOINT"), 1);
        setenv(names[i / 2].region, must_env("SF_TEST_S3_REGION"), 1);
        setenv(names[i / 2].id, must_env("SF_TEST_S3_ACCESS_KEY"), 1);
        setenv(names[i / 2].secret, must_env("SF_TEST_S3_SECRET_KEY"), 1);
        if (virtual_hosts)
            setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true", 1);
        if (head_of_nothing(&o, "none", &e) != SF_NOT_FOUND)
            fail_msg("%s: %s", names[i / 2].endpoint, e.message);
        unsetenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST");
        unsetenv(names[i / 2].endpoint);
        unsetenv(names[i / 2].region);
        unsetenv(names[i / 2].id);
        unsetenv(names[i / 2].secret);
    }
}

/* The keys of the server, as the services of a cloud would give them; it checks what is signed with them. */
static void credentials_from_services(void **state)
{
#define CLOSED "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    static const struct {
        const char *name, *variable, *format; /* of its value: the port, or the keys */
        unsigned steps;                       /* answers before the one with the keys */
        bool by_port;
    } rows[] = {
        {"container", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:%u/keys", 0, true},
        {"machine", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:%u", 2, true},
        {"process", "AWS_CONFIG_FILE",
         "[default]\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"%s\","
         "\"SecretAccessKey\":\"%s\"}'\n",
         0, false},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *id = must_env("SF_TEST_S3_ACCESS_KEY"), *secret = must_env("SF_TEST_S3_SECRET_KEY");
        char keys[512], value[512], file[] = "/tmp/sf-s3-test-XXXXXX";
        const char *const few[] = {keys, NULL}, *const more[] = {CLOSED "token", CLOSED "role", keys, NULL};
        sf_s3_options o = server_options();
        struct server server;
        sf_error e;
        int fd = mkstemp(file);

        assert_true(fd >= 0);
        snprintf(keys, sizeof(keys),
                 CLOSED "{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\","
                        "\"Expiration\":\"2099-01-01T00:00:00Z\"}",
                 id, secret);
        server_start(&server, rows[i].steps ? more : few, false);
        o.access_key_id = o.secret_access_key = NULL;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (rows[i].by_port)
            snprintf(value, sizeof(value), rows[i].format, server.port);
        else
            snprintf(value, sizeof(value), rows[i].format, id, secret);
#pragma GCC diagnostic pop
        if (!rows[i].by_port) {
            assert_int_equal(write(fd, value, strlen(value)), strlen(value));
            strcpy(value, file);
        }
        setenv(rows[i].variable, value, 1);
        if (head_of_nothing(&o, "none", &e) != SF_NOT_FOUND)
            fail_msg("%s: %s", rows[i].name, e.message);
        if (strcmp(rows[i].variable, "AWS_CONFIG_FILE") == 0)
            setenv("AWS_CONFIG_FILE", "/dev/null", 1);
        else
            unsetenv(rows[i].variable);
        server_stop(&server);
        close(fd);
        unlink(file);
    }
}

int main(void)
{
    static const char *const inherited[] = {"http_proxy",
                                            "HTTP_PROXY",
                                            "https_proxy",
                                            "HTTPS_PROXY",
                                            "all_proxy",
                                            "ALL_PROXY",
                                            "no_proxy",
                                            "NO_PROXY",
                                            "AWS_ENDPOINT_URL",
                                            "AWS_REGION",
                                            "AWS_ACCESS_KEY_ID",
                                            "AWS_SECRET_ACCESS_KEY",
                                            "AWS_SESSION_TOKEN",
                                            "AWS_PROFILE",
                                            "AWS_CA_BUNDLE",
                                            "S3_ACCESS_KEY_ID",
                                            "S3_SECRET_ACCESS_KEY",
                                            "S3_SESSION_TOKEN",
                                            "S3_REGION"};
#define BOTH(f) {#f " (path)", f, set_up_path, tear_down, NULL}, {#f " (virtual)", f, set_up_virtual, tear_down, NULL}
#define PATH(f) cmocka_unit_test_setup_teardown(f, set_up_path, tear_down)
    const struct CMUnitTest tests[] = {
        BOTH(odd_keys_make_the_round),
        BOTH(ranges),
        PATH(large_objects),
        BOTH(conditional_puts),
        BOTH(multipart),
        PATH(uploads_on_a_condition),
        PATH(aborted_uploads),
        PATH(unfinished_uploads),
        BOTH(listings),
        PATH(pages),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(encrypted_connections),
        cmocka_unit_test(large_bodies_over_tls),
        cmocka_unit_test(a_proxy_from_the_environment),
        cmocka_unit_test(options_from_the_environment),
        cmocka_unit_test(credentials_from_services),
    };

    for (size_t i = 0; i < sizeof(inherited) / sizeof(inherited[0]); i++)
        unsetenv(inherited[i]);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1); /* the machine's own are not wanted */
    setenv("AWS_CONFIG_FILE", "/dev/null", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
