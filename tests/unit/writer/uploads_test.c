/* Clean-up of uploads in parts that writers began and never completed. */
#include "world.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define MINUTE INT64_C(60000000)
#define SST "compacted/01JGXK.sst"

/* How often was told of leftovers, and how often of those that are gone. */
struct told {
    size_t found, deleted;
};

static void tell(void *ctx, const sf_leftover *l)
{
    struct told *t = ctx;

    assert_true(l->objects > 0);
    t->found += !l->deleted;
    t->deleted += l->deleted;
}

/* What was or would be removed: kind, run, how many; then the warning, if any. Freed with free(). */
static char *clean(struct world *w, const sf_cleanup_options *options, sf_status expected)
{
    sf_cleanup_options with_progress = *options;
    const sf_cleanup_options *o = &with_progress;
    struct told told = {0};
    size_t deleted = 0;
    static const char *const kinds[] = {"attempt", "manifest", "run", "record", "upload"};
    sf_cleanup_report *r = NULL;
    const sf_leftover *l;
    char *text = NULL;
    size_t n, size = 0;
    FILE *f = open_memstream(&text, &size);
    sf_site s;
    sf_status rc;

    assert_non_null(f);
    with_progress.progress = tell;
    with_progress.progress_ctx = &told;
    world_site(w, &s);
    rc = sf__cleanup_on(&r, &s, o, &w->err);
    sf__site_cleanup(&s);
    if (rc != expected)
        fail_msg("%s: %s", sf_status_name(rc), w->err.message);
    l = sf_cleanup_leftovers(r, &n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strncmp(l[i].url, w->prefix, strlen(w->prefix)), 0);
        assert_int_equal(l[i].url[strlen(l[i].url) - 1], '/');
        fprintf(f, "%s %s %llu%s\n", kinds[l[i].kind], l[i].run_id, (unsigned long long)l[i].objects,
                l[i].deleted || o->dry_run ? "" : " stay");
        assert_false(l[i].deleted && o->dry_run);
        deleted += l[i].deleted;
    }
    assert_int_equal(told.found, n);
    assert_int_equal(told.deleted, deleted);
    if (sf_cleanup_warning(r))
        fprintf(f, "%s", sf_cleanup_warning(r));
    fclose(f);
    sf_cleanup_report_free(r);
    return text;
}

/* The same is told by a dry run, which changes nothing; and nothing is left for a second one. */
static void expect_cleaned(struct world *w, const sf_cleanup_options *o, const char *expected, const char *left)
{
    sf_cleanup_options dry = *o;
    char *before = world_uploads(w, "shards"), *text, *after;

    dry.dry_run = true;
    text = clean(w, &dry, SF_OK);
    after = world_uploads(w, "shards");
    assert_string_equal(text, expected);
    assert_string_equal(after, before);
    free(text);
    free(after);
    free(before);
    text = clean(w, o, SF_OK);
    after = world_uploads(w, "shards");
    assert_string_equal(text, expected);
    assert_string_equal(after, left);
    free(text);
    free(after);
    text = clean(w, o, SF_OK);
    assert_string_equal(text, "");
    free(text);
}

/* "shards/run_id=RUN/db=00000/attempt=ATTEMPT/..." */
static void begin(struct world *w, const char *run_id, const char *attempt, const char *object)
{
    char name[300];

    snprintf(name, sizeof(name), "shards/run_id=%s/db=00000/attempt=%s/%s", run_id, attempt, object);
    world_begin_upload(w, name);
}

/* ------------------------------------------------------------------ rules ---------------------------------------- */

#define STAYS                                                                                                          \
    "shards/notes/x\nshards/run_id=elsewhere/db=00000/attempt=00/" SST "\nshards/run_id=kept/db=00000/attempt=00/" SST \
    "\n"
#define OF_LIVING "shards/run_id=running/db=00000/attempt=00/" SST "\n"
#define OF_UNKNOWN "shards/run_id=unknown/db=00000/attempt=00/" SST "\n"

/* Uploads go with the run or the attempt that they belong to, and by no other rule. */
static void test_whose_uploads_go(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    world_publish(w, "kept", 20, 1);
    begin(w, "kept", "00", SST); /* its folder is in use: a compactor may be at work there */
    begin(w, "kept", "01", SST);
    begin(w, "running", "00", SST);
    world_put_record(w, "running", SF_RUN_RUNNING, now, now + 5 * MINUTE, NULL);
    begin(w, "dead", "00", SST); /* no object, two uploads */
    begin(w, "dead", "00", SST);
    world_put_record(w, "dead", SF_RUN_RUNNING, now - 90 * MINUTE, now - 80 * MINUTE, NULL);
    begin(w, "failed", "03", SST);
    world_put(w, "shards/run_id=failed/db=00000/attempt=03/manifest/1", sf_bytes_str("x"));
    world_put_record(w, "failed", SF_RUN_FAILED, now - 90 * MINUTE, now - 90 * MINUTE, NULL);
    begin(w, "elsewhere", "00", SST);
    world_put_record(w, "elsewhere", SF_RUN_SUCCEEDED, now - 90 * MINUTE, now - 90 * MINUTE, "pg-run");
    begin(w, "unknown", "00", SST);
    world_begin_upload(w, "shards/notes/x");
    world_begin_upload(w, "somewhere/else");

    o.old_runs = false;
    o.min_age_ms = 30 * MINUTE / 1000;
    expect_cleaned(w, &o, "upload kept 1\n",
                   "shards/notes/x\nshards/run_id=dead/db=00000/attempt=00/" SST
                   "\nshards/run_id=dead/db=00000/attempt=00/" SST "\nshards/run_id=elsewhere/db=00000/attempt=00/" SST
                   "\nshards/run_id=failed/db=00000/attempt=03/" SST "\nshards/run_id=kept/db=00000/attempt=00/" SST
                   "\n" OF_LIVING OF_UNKNOWN);
    o.old_runs = true; /* what was begun a moment ago is a sign of life, however old the record */
    expect_cleaned(w, &o, "",
                   "shards/notes/x\nshards/run_id=dead/db=00000/attempt=00/" SST
                   "\nshards/run_id=dead/db=00000/attempt=00/" SST "\nshards/run_id=elsewhere/db=00000/attempt=00/" SST
                   "\nshards/run_id=failed/db=00000/attempt=03/" SST "\nshards/run_id=kept/db=00000/attempt=00/" SST
                   "\n" OF_LIVING OF_UNKNOWN);
    o.min_age_ms = 0;
    expect_cleaned(w, &o, "upload dead 2\nrecord dead 1\nupload failed 1\nrun failed 1\nrecord failed 1\n",
                   STAYS OF_LIVING OF_UNKNOWN);
    o.ignore_leases = true;
    expect_cleaned(w, &o, "upload running 1\nrecord running 1\n", STAYS OF_UNKNOWN);
    o.unrecorded_runs = true;
    expect_cleaned(w, &o, "upload unknown 1\n", STAYS);
    world_expect_snapshot(w, 20, 1);
}

/* ------------------------------------------------------------------ stores that do not ---------------------------- */

struct refusal {
    sf_store_verb verb;
    sf_status rc;
};

static void refuse(fault_store *f, sf_store_op *op)
{
    const struct refusal *r = f->ctx;

    if (op->verb == r->verb)
        fault_store_answer(f, op, r->rc, "not here");
}

static void test_stores_that_do_not(void **state)
{
    static const struct {
        struct refusal refusal;
        sf_status rc;
        const char *text;
    } cases[] = {
        {{SF_STORE_MULTIPART_LIST, SF_UNSUPPORTED},
         SF_OK,
         "run dead 1\nrecord dead 1\nunfinished uploads could not be listed: not here"},
        {{SF_STORE_MULTIPART_LIST, SF_DENIED},
         SF_OK,
         "run dead 1\nrecord dead 1\nunfinished uploads could not be listed: not here"},
        {{SF_STORE_MULTIPART_LIST, SF_IO},
         SF_OK, /* a list that does not read as one, a refusal with another word */
         "run dead 1\nrecord dead 1\nunfinished uploads could not be listed: not here"},
        {{SF_STORE_MULTIPART_LIST, SF_NOT_FOUND},
         SF_OK,
         "run dead 1\nrecord dead 1\nunfinished uploads could not be listed: not here"},
        {{SF_STORE_MULTIPART_LIST, SF_UNAVAILABLE}, SF_UNAVAILABLE, ""},
        {{SF_STORE_MULTIPART_ABORT, SF_UNSUPPORTED},
         SF_OK,
         "upload dead 1 stay\nrun dead 1\nrecord dead 1\nunfinished uploads could not be aborted: not here"},
        {{SF_STORE_MULTIPART_ABORT, SF_DENIED},
         SF_OK,
         "upload dead 1 stay\nrun dead 1\nrecord dead 1\nunfinished uploads could not be aborted: not here"},
        {{SF_STORE_MULTIPART_ABORT, SF_IO},
         SF_OK,
         "upload dead 1 stay\nrun dead 1\nrecord dead 1\nunfinished uploads could not be aborted: not here"},
        {{SF_STORE_MULTIPART_ABORT, SF_UNAVAILABLE}, SF_UNAVAILABLE, "upload dead 0 stay\n"},
    };
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    world_publish(w, "kept", 20, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text;

        begin(w, "dead", "00", SST);
        world_put(w, "shards/run_id=dead/db=00000/attempt=00/manifest/1", sf_bytes_str("x"));
        world_put_record(w, "dead", SF_RUN_FAILED, now, now, NULL);
        w->faults->after = refuse;
        w->faults->ctx = (void *)&cases[i].refusal;
        text = clean(w, &o, cases[i].rc);
        if (strcmp(text, cases[i].text) != 0)
            fail_msg("case %zu: %s", i, text);
        free(text);
        w->faults->after = NULL;
        o.unrecorded_runs = true; /* the record is gone */
        free(clean(w, &o, SF_OK));
        o.unrecorded_runs = false;
        text = world_uploads(w, "shards");
        assert_string_equal(text, "");
        free(text);
        assert_int_equal(world_object_count(w, "shards/run_id=dead"), 0);
    }
    world_expect_snapshot(w, 20, 1);
}

/* ------------------------------------------------------------------ pages ----------------------------------------- */

/* One upload a page; the continuation is its number. */
static void one_a_page(fault_store *f, sf_store_op *op)
{
    const sf_allocator *a = f->base.alloc;
    size_t at = op->continuation ? strtoul(op->continuation, NULL, 10) : 0;
    sf_store_upload kept;

    if (op->verb != SF_STORE_MULTIPART_LIST || op->upload_count == 0)
        return;
    assert_true(!op->upload_id || strcmp(op->upload_id, "id") == 0);
    kept = op->uploads[at];
    op->uploads[at] = op->uploads[0];
    op->uploads[0] = kept;
    while (op->upload_count > 1) {
        op->upload_count--;
        sf__free(a, op->uploads[op->upload_count].key);
        sf__free(a, op->uploads[op->upload_count].id);
    }
    if (at + 1 < *(size_t *)f->ctx) {
        op->next = sf__asprintf(a, "%zu", at + 1);
        op->upload_id_out = sf__strdup(a, "id");
    }
}

/* The same, by a server that refuses the ids it gave. */
static void one_a_page_by_name(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_MULTIPART_LIST && op->upload_id)
        fault_store_answer(f, op, SF_IO, "no such marker");
    else
        one_a_page(f, op);
}

/* A server that ignores where the page is to begin. */
static void the_same_page(fault_store *f, sf_store_op *op)
{
    if (op->verb != SF_STORE_MULTIPART_LIST)
        return;
    op->next = sf__strdup(f->base.alloc, "k");
    op->upload_id_out = sf__strdup(f->base.alloc, "id");
}

/* A server whose list has no end; the pages behind the first are empty. */
static void endless_pages(fault_store *f, sf_store_op *op)
{
    const sf_allocator *a = f->base.alloc;

    if (op->verb != SF_STORE_MULTIPART_LIST)
        return;
    if (op->continuation) {
        sf__store_uploads_free(op->uploads, op->upload_count, a);
        op->uploads = NULL;
        op->upload_count = 0;
    }
    op->next = sf__asprintf(a, "%lu", f->requests);
}

/* Over files, which do not mind what page is asked for. */
static void test_pages(void **state)
{
    static const struct {
        void (*after)(fault_store *f, sf_store_op *op);
        unsigned requests;
        const char *text;
    } servers[] = {
        {one_a_page, 5, "upload dead 2\nrecord dead 1\nupload failed 3\nrecord failed 1\n"},
        {one_a_page_by_name, 9, "upload dead 2\nrecord dead 1\nupload failed 3\nrecord failed 1\n"},
        /* what came twice is gone the second time, which is fine */
        {the_same_page, 2,
         "upload dead 4\nrecord dead 1\nupload failed 6\nrecord failed 1\n"
         "unfinished uploads could not be listed: the list of uploads does not go on behind its first page"},
        {endless_pages, 10000,
         "upload dead 2\nrecord dead 1\nupload failed 3\nrecord failed 1\n"
         "unfinished uploads could not be listed: more than 10000 pages of uploads"},
    };
    char folder[64] = "/tmp/sf-uploads-test-XXXXXX", url[128];
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();
    struct world files, *w = &files;
    size_t count = 5;
    char *text;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof(url), "file://%s/snap", folder);
    world_init(w, url);
    world_publish(w, "kept", 20, 1);
    for (size_t i = 0; i < sizeof(servers) / sizeof(servers[0]); i++) {
        begin(w, "dead", "00", SST);
        begin(w, "dead", "02", SST);
        begin(w, "failed", "00", SST);
        begin(w, "failed", "01", SST);
        begin(w, "failed", "01", "x");
        world_put_record(w, "dead", SF_RUN_FAILED, now, now, NULL);
        world_put_record(w, "failed", SF_RUN_FAILED, now, now, NULL);
        w->faults->after = servers[i].after;
        w->faults->ctx = &count;
        w->faults->verbs[SF_STORE_MULTIPART_LIST] = 0;
        text = clean(w, &o, SF_OK);
        assert_string_equal(text, servers[i].text);
        assert_int_equal(w->faults->verbs[SF_STORE_MULTIPART_LIST], servers[i].requests);
        free(text);
        text = world_uploads(w, "shards");
        assert_string_equal(text, "");
        free(text);
    }
    assert_int_equal(world_cleanup(w), 0);
    world_remove_folder(folder);
}

/* More than a page of a real server. */
static void test_many(void **state)
{
    struct world *w = *state;
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();
    char name[64];

    world_publish(w, "kept", 20, 1);
    for (unsigned i = 0; i < 1003; i++) {
        snprintf(name, sizeof(name), "compacted/%04u", i);
        begin(w, "dead", "00", name);
    }
    world_put_record(w, "dead", SF_RUN_FAILED, now, now, NULL);
    expect_cleaned(w, &o, "upload dead 1003\nrecord dead 1\n", "");
}

/* Files that puts left in whichever folder; nobody else has such. */
static void test_killed_puts(void **state)
{
    static const char *const names[] = {"snap/.sf-tmp-0123456789abcdef0123456789abcdef",
                                        "snap/.sf-tmp-claim-0123456789abcdef",
                                        "snap/manifests/old/.sf-tmp-1123456789abcdef0123456789abcdef",
                                        "snap/manifests/new/.sf-tmp-2123456789abcdef0123456789abcdef"};
    char folder[] = "/tmp/sf-killed-XXXXXX", url[128], path[256];
    sf_cleanup_options o = world_cleanup_options(), dry;
    struct world w;
    char *text;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof(url), "file://%s/snap", folder);
    world_init(&w, url);
    snprintf(path, sizeof(path), "mkdir -p %s/snap/manifests/old %s/snap/manifests/new", folder, folder);
    assert_int_equal(system(path), 0);
    for (size_t i = 0; i < 4; i++) {
        struct timespec old[2] = {{1, 0}, {1, 0}};
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        f = fopen(path, "w");
        assert_non_null(f);
        fclose(f);
        if (i < 3)
            assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    }
    dry = o;
    dry.min_age_ms = INT64_MAX; /* nothing is as old */
    text = clean(&w, &dry, SF_OK);
    assert_string_equal(text, "");
    free(text);
    dry = o;
    dry.dry_run = true;
    text = clean(&w, &dry, SF_OK);
    assert_string_equal(text, "upload  2\nupload  1\n");
    free(text);
    text = clean(&w, &o, SF_OK);
    assert_string_equal(text, "upload  2\nupload  1\n");
    free(text);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(access(path, F_OK) == 0, i == 3);
    }
    assert_int_equal(world_cleanup(&w), 0);
    world_remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {WORLD_TEST(test_whose_uploads_go), WORLD_TEST(test_stores_that_do_not),
                                       WORLD_TEST(test_many), cmocka_unit_test(test_pages),
                                       cmocka_unit_test(test_killed_puts)};

    return cmocka_run_group_tests_name("uploads", tests, NULL, NULL);
}
