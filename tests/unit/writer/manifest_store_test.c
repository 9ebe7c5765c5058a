/* Publishing to a store of manifests that is the caller's, and clean-up that asks it: what it names stays, whatever dies when. */
#include "world.h"

#include "base/clock.h"
#include "shardyfusion/manifest_store.h"

#define MINUTE INT64_C(60000000)
#define MOST 8

enum trouble {
    TROUBLE_NONE,
    TROUBLE_BEFORE,
    TROUBLE_ANSWER_LOST,
    TROUBLE_NOT_THERE,
    TROUBLE_SILENT,
    TROUBLE_OWN_CONFLICT
};

/* A shelf with manifests. */
struct shelf {
    struct world *w;
    enum trouble trouble; /* of publishing, and of looking at the pointer */
    char refs[MOST][32];
    sf_buf *manifests[MOST];
    int64_t times[MOST];
    size_t count, current; /* MOST: nothing */
    size_t most;           /* that the list has; 0: all */
    int retained;
    char *record; /* of the run while it was published */
};

static size_t place_of(const struct shelf *s, const char *ref)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->refs[i], ref) == 0)
            return i;
    return MOST;
}

/* The newest run record, as it is now. */
static char *read_record(struct world *w)
{
    char *names = world_objects(w, "runs"), *last = NULL, *text = NULL;
    sf_buf *b;

    for (char *line = strtok(names, "\n"); line; line = strtok(NULL, "\n"))
        last = line;
    b = last ? world_get(w, last) : NULL;
    if (b)
        text = strndup((const char *)b->data, b->n);
    sf__buf_release(b);
    free(names);
    return text;
}

static sf_status shelf_publish(void *ctx, const sf_publication *what, sf_manifest_answer *out, sf_error *err)
{
    struct shelf *s = ctx;
    const char *current = s->current < MOST ? s->refs[s->current] : NULL;
    char ref[32];

    free(s->record);
    s->record = s->w->heap.fired || s->w->heap.until_failure >= 0 ? NULL : read_record(s->w);
    snprintf(ref, sizeof(ref), "shelf-%s", what->run_id);
    if (s->trouble == TROUBLE_BEFORE)
        return sf_fail(err, SF_UNAVAILABLE, "the shelf is shut");
    if (what->expected_current == SF_EXPECT_ABSENT ? current != NULL
        : what->expected_current == SF_EXPECT_REF  ? !current || strcmp(current, what->expected_ref) != 0
                                                   : false) {
        if (sf_manifest_answer_found(out, current) != SF_OK)
            return sf_fail(err, SF_NOMEM, "found");
        return sf_fail(err, SF_CONFLICT, "the shelf names %s", current ? current : "nothing");
    }
    if (s->trouble != TROUBLE_SILENT && sf_manifest_answer_ref(out, ref) != SF_OK)
        return sf_fail(err, SF_NOMEM, "reference");
    assert_true(s->count < MOST);
    snprintf(s->refs[s->count], sizeof(s->refs[0]), "%s", ref);
    s->manifests[s->count] = sf__buf_copy(&sf__allocator_default, what->manifest);
    s->times[s->count] = sf__clock_unix_us();
    s->current = s->count++;
    if (s->trouble == TROUBLE_OWN_CONFLICT) /* it has asked twice, and found what it did the first time */
        return sf_fail(err, SF_CONFLICT, "the shelf names %s", ref);
    return s->trouble == TROUBLE_ANSWER_LOST ? sf_fail(err, SF_UNAVAILABLE, "no answer") : SF_OK;
}

static sf_status shelf_current(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    struct shelf *s = ctx;

    if (s->trouble == TROUBLE_NOT_THERE)
        return sf_fail(err, SF_DENIED, "nobody of that name");
    if (sf_manifest_answer_ref(out, s->current < MOST ? s->refs[s->current] : NULL) != SF_OK)
        return sf_fail(err, SF_NOMEM, "reference");
    return SF_OK;
}

static sf_status shelf_load(void *ctx, const char *ref, sf_manifest_answer *out, sf_error *err)
{
    struct shelf *s = ctx;
    size_t i = place_of(s, ref);

    if (i == MOST)
        return SF_NOT_FOUND; /* without a word */
    return sf_manifest_answer_manifest(out, sf__buf_bytes(s->manifests[i])) == SF_OK
               ? SF_OK
               : sf_fail(err, SF_NOMEM, "manifest");
}

static sf_status shelf_list(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    struct shelf *s = ctx;
    sf_status rc = SF_OK;

    for (size_t i = s->count; i-- > 0 && rc == SF_OK && (s->most == 0 || s->count - i <= s->most);)
        rc = sf_manifest_answer_entry(out, s->refs[i], s->refs[i] + strlen("shelf-"), s->times[i]);
    return rc == SF_OK ? rc : sf_fail(err, rc, "a list");
}

static sf_status shelf_delete(void *ctx, const char *ref, sf_error *err)
{
    struct shelf *s = ctx;
    size_t i = place_of(s, ref);

    if (i == s->current)
        return sf_fail(err, SF_CONFLICT, "the shelf names %s", ref);
    if (i == MOST)
        return SF_OK;
    sf__buf_release(s->manifests[i]);
    s->count--;
    memmove(s->refs[i], s->refs[i + 1], (s->count - i) * sizeof(s->refs[0]));
    memmove(&s->manifests[i], &s->manifests[i + 1], (s->count - i) * sizeof(s->manifests[0]));
    memmove(&s->times[i], &s->times[i + 1], (s->count - i) * sizeof(s->times[0]));
    s->current -= s->current < MOST && s->current > i;
    return SF_OK;
}

static void shelf_retain(void *ctx)
{
    ((struct shelf *)ctx)->retained++;
}

static void shelf_release(void *ctx)
{
    ((struct shelf *)ctx)->retained--;
}

static struct shelf shelf_of(struct world *w)
{
    return (struct shelf){.w = w, .current = MOST};
}

static sf_manifest_store store_of(struct shelf *s)
{
    return (sf_manifest_store){.size = sizeof(sf_manifest_store),
                               .name = "shelf",
                               .publish = shelf_publish,
                               .load_current = shelf_current,
                               .load_manifest = shelf_load,
                               .list_manifests = shelf_list,
                               .delete_manifest = shelf_delete,
                               .retain = shelf_retain,
                               .release = shelf_release,
                               .ctx = s};
}

static void shelf_empty(struct shelf *s)
{
    for (size_t i = 0; i < s->count; i++)
        sf__buf_release(s->manifests[i]);
    free(s->record);
    assert_int_equal(s->retained, 0);
    *s = shelf_of(s->w);
}

static sf_writer *open_writer(struct shelf *s, const sf_manifest_store *m, const char *run_id)
{
    sf_writer_options o = world_options();

    o.run_id = run_id;
    o.manifests = m;
    return world_writer(s->w, &o);
}

static void publish(struct shelf *s, const char *run_id, unsigned count, unsigned version)
{
    sf_manifest_store m = store_of(s);
    sf_writer_options o = world_options();

    o.run_id = run_id;
    o.manifests = &m;
    if (world_try_publish(s->w, &o, count, version) != SF_OK)
        fail_msg("%s: %s", run_id, s->w->err.message);
}

/* What goes, one a line: kind, run. Freed with free(). `m` NULL: by what lies below the prefix. */
static char *clean(struct world *w, const sf_manifest_store *m, const sf_cleanup_options *given, sf_status expected)
{
    static const char *const kinds[] = {"attempt", "manifest", "run", "record", "upload"};
    sf_cleanup_options o = *given;
    sf_cleanup_report *r = NULL;
    const sf_leftover *l = NULL;
    char *text = NULL;
    size_t n = 0, size = 0;
    FILE *f = open_memstream(&text, &size);
    sf_site site;
    sf_status rc;

    assert_non_null(f);
    world_site(w, &site);
    site.manifests = m;
    rc = sf__cleanup_on(&r, &site, &o, &w->err);
    sf__site_cleanup(&site);
    if (rc != expected)
        fail_msg("%s: %s", sf_status_name(rc), w->err.message);
    if (r)
        l = sf_cleanup_leftovers(r, &n);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s %s\n", kinds[l[i].kind], l[i].run_id);
    fclose(f);
    sf_cleanup_report_free(r);
    return text;
}

static void expect_cleaned(struct world *w, const sf_manifest_store *m, const sf_cleanup_options *o, const char *expected)
{
    char *text = clean(w, m, o, SF_OK);

    assert_string_equal(text, expected);
    free(text);
}

/* ------------------------------------------------------------------ publishing ----------------------------------- */

static void test_manifest_and_pointer_go_to_the_store(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_writer *writer = open_writer(&s, &m, "one");
    sf_snapshot_manifest *read;

    assert_non_null(writer);
    assert_int_equal(world_add_rows(w, writer, 20, 1, false), SF_OK);
    assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
    assert_string_equal(sf_writer_report(writer)->manifest_ref, "shelf-one");
    assert_true(sf_writer_report(writer)->published);
    sf_writer_free(writer);
    assert_int_equal(world_object_count(w, "manifests"), 0);
    assert_null(world_get(w, "_CURRENT"));
    assert_int_equal(
        sf__snapshot_manifest_parse(&read, sf__buf_bytes(s.manifests[0]), 0, &sf__allocator_default, &w->err), SF_OK);
    assert_string_equal(read->run_id, "one");
    assert_int_equal(read->row_count, 20);
    sf__snapshot_manifest_free(read);
    /* a run that is killed now is not taken for one without a snapshot */
    assert_non_null(strstr(s.record, "manifest_ref: one\n"));
    assert_non_null(strstr(s.record, "status: running\n"));
    free(s.record);
    s.record = read_record(w);
    assert_non_null(strstr(s.record, "manifest_ref: shelf-one\nmanifest_store: shelf\n"));
    shelf_empty(&s);
}

static void test_compare_and_swap(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_writer_options o = world_options();
    sf_writer *writers[2];

    o.manifests = &m;
    o.expected_current = SF_EXPECT_ABSENT;
    o.run_id = "first";
    writers[0] = world_writer(w, &o);
    o.run_id = "second";
    writers[1] = world_writer(w, &o);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(world_add_rows(w, writers[i], 10, 1, false), SF_OK);
    assert_int_equal(sf_writer_build(writers[1], &w->err), SF_OK);
    assert_int_equal(sf_writer_finish(writers[0], &w->err), SF_OK);
    assert_int_equal(sf_writer_publish(writers[1], &w->err), SF_CONFLICT);
    assert_string_equal(sf_writer_report(writers[1])->found_ref, "shelf-first");
    assert_null(sf_writer_report(writers[1])->manifest_ref);
    sf_writer_free(writers[0]);
    sf_writer_free(writers[1]);
    assert_int_equal(world_object_count(w, "shards/run_id=second"), 0);
    o.expected_current = SF_EXPECT_REF;
    o.expected_ref = "shelf-first";
    o.run_id = "third";
    assert_int_equal(world_try_publish(w, &o, 10, 2), SF_OK);
    assert_string_equal(s.refs[s.current], "shelf-third");
    shelf_empty(&s);
}

static void test_what_goes_wrong(void **state)
{
    static const struct {
        const char *name;
        enum trouble trouble;
        sf_status code;
        bool stays, named;
        const char *in_record;
    } cases[] = {
        {"shut", TROUBLE_BEFORE, SF_UNAVAILABLE, false, false, "manifest_ref: null"},
        {"the answer is lost", TROUBLE_ANSWER_LOST, SF_UNAVAILABLE, true, true, "manifest_ref: shelf-"},
        {"no reference", TROUBLE_SILENT, SF_INVALID, true, true, "manifest_ref: bad-"},
        {"a conflict with what may have been ours", TROUBLE_OWN_CONFLICT, SF_CONFLICT, true, true, "manifest_ref: shelf-"},
        {"refused before the first row", TROUBLE_NOT_THERE, SF_DENIED, false, false, NULL},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct shelf s = shelf_of(w);
        sf_manifest_store m = store_of(&s);
        char run_id[16], folder[40];
        sf_writer *writer;
        sf_status rc;

        snprintf(run_id, sizeof(run_id), "bad-%zu", i);
        snprintf(folder, sizeof(folder), "shards/run_id=%s", run_id);
        s.trouble = cases[i].trouble;
        writer = open_writer(&s, &m, run_id);
        rc = w->err.code;
        if (writer) {
            assert_int_equal(world_add_rows(w, writer, 20, 1, false), SF_OK);
            rc = sf_writer_finish(writer, &w->err);
            assert_int_equal(sf_writer_report(writer)->manifest_ref != NULL, cases[i].named);
            sf_writer_free(writer);
        }
        if (rc != cases[i].code || (world_object_count(w, folder) > 0) != cases[i].stays)
            fail_msg("%s: %s: %s, %zu objects", cases[i].name, sf_status_name(rc), w->err.message,
                     world_object_count(w, folder));
        free(s.record);
        s.record = cases[i].in_record ? read_record(w) : NULL;
        if (cases[i].in_record && !strstr(s.record, cases[i].in_record))
            fail_msg("%s: %s", cases[i].name, s.record);
        shelf_empty(&s);
    }
}

static void test_functions_that_lack(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);

    m.list_manifests = NULL;
    assert_null(open_writer(&s, &m, "one"));
    assert_int_equal(w->err.code, SF_INVALID);
    shelf_empty(&s);
}

/* Comparing with the snapshot before, and taking its shards over, goes by the store, too. */
static void test_the_snapshot_before(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_writer_options o = world_options();

    publish(&s, "one", 40, 1);
    o.manifests = &m;
    o.run_id = "two";
    o.reuse_unchanged = true;
    assert_int_equal(world_try_publish(w, &o, 40, 1), SF_OK);
    assert_int_equal(world_object_count(w, "shards/run_id=two"), 0);
    o.run_id = "three";
    o.min_rows_share = 0.9;
    assert_int_equal(world_try_publish(w, &o, 20, 2), SF_REFUSED);
    assert_string_equal(s.refs[s.current], "shelf-two");
    shelf_empty(&s);
}

static void test_memory_that_runs_out(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    unsigned long n;
    sf_status rc = SF_OK;

    publish(&s, "before", 5, 1);
    for (n = 0; n < 20000; n += n < 100 ? 1 : 11) {
        sf_manifest_store m = store_of(&s);
        sf_writer_options o = world_options();
        char run_id[16], ref[32];
        bool fired;

        snprintf(run_id, sizeof(run_id), "mem-%lu", n);
        snprintf(ref, sizeof(ref), "shelf-%s", run_id);
        o.manifests = &m;
        o.run_id = run_id;
        o.num_dbs = 1;
        o.threads = 1;
        heap_arm(&w->heap, (long)n);
        rc = world_try_publish(w, &o, 3, 2);
        fired = heap_disarm(&w->heap);
        if (rc != SF_OK && rc != SF_NOMEM)
            fail_msg("allocation %lu: %s %s", n, sf_status_name(rc), w->err.message);
        if (rc == SF_OK)
            assert_string_equal(s.refs[s.current], ref);
        s.current = 0;
        assert_int_equal(shelf_delete(&s, ref, &w->err), SF_OK);
        if (!fired)
            break;
    }
    assert_int_equal(rc, SF_OK);
    assert_true(n < 20000);
    shelf_empty(&s);
}

/* ------------------------------------------------------------------ clean-up ------------------------------------- */

static void put_shard(struct world *w, const char *run_id)
{
    char name[300];

    snprintf(name, sizeof(name), "shards/run_id=%s/db=00000/attempt=00/manifest/1", run_id);
    world_put(w, name, sf_bytes_str("x"));
}

static void test_clean_up_keeps_what_the_store_names(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();

    publish(&s, "one", 20, 1);
    publish(&s, "two", 20, 2);
    publish(&s, "three", 20, 3);
    put_shard(w, "dead");
    world_put_record(w, "dead", SF_RUN_RUNNING, now - 20 * MINUTE, now - 10 * MINUTE, NULL);
    put_shard(w, "intended"); /* killed before the store had it */
    world_put_record(w, "intended", SF_RUN_RUNNING, now - 20 * MINUTE, now - 10 * MINUTE, "intended");
    put_shard(w, "stored"); /* published to storage, and by that in use */
    world_put_record(w, "stored", SF_RUN_SUCCEEDED, now - 20 * MINUTE, now - 20 * MINUTE, w->prefix);
    /* who does not know the store leaves alone what was, or may have been, published there */
    expect_cleaned(w, NULL, &o, "run dead\nrecord dead\n");
    expect_cleaned(w, &m, &o, "run intended\nrecord intended\n");
    assert_true(world_object_count(w, "shards/run_id=stored") > 0);
    m.delete_manifest = NULL;
    o.keep_last = 1;
    expect_cleaned(w, &m, &o, "");
    m = store_of(&s);
    o.dry_run = true;
    expect_cleaned(w, &m, &o, "manifest one\nrun one\nrecord one\nmanifest two\nrun two\nrecord two\n");
    assert_int_equal(s.count, 3);
    o.dry_run = false;
    s.current = 0; /* set back */
    expect_cleaned(w, &m, &o, "manifest two\nrun two\nrecord two\n");
    assert_int_equal(s.count, 2);
    assert_true(world_object_count(w, "shards/run_id=one") > 0 && world_object_count(w, "shards/run_id=three") > 0);
    shelf_empty(&s);
}

/* Killed between the store and the record: only the store knows. */
static void test_a_run_that_was_killed_once_it_was_published(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();
    size_t objects;

    publish(&s, "one", 20, 1);
    publish(&s, "two", 20, 1);
    world_delete(w, "runs");
    world_put_record(w, "two", SF_RUN_RUNNING, now - 20 * MINUTE, now - 10 * MINUTE, "two");
    objects = world_object_count(w, "shards");
    o.keep_last = 2;
    expect_cleaned(w, NULL, &o, "");
    expect_cleaned(w, &m, &o, "");
    assert_int_equal(world_object_count(w, "shards"), objects);
    shelf_empty(&s);
}

/* Some store has its list end somewhere. */
static void test_a_list_that_is_cut_short(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_cleanup_options o = world_cleanup_options();
    int64_t now = sf__clock_unix_us();
    size_t objects;

    publish(&s, "one", 20, 1);
    publish(&s, "two", 20, 2);
    world_put_record(w, "one", SF_RUN_SUCCEEDED, now - 20 * MINUTE, now - 20 * MINUTE, "shelf-one");
    world_put_record(w, "two", SF_RUN_SUCCEEDED, now - 20 * MINUTE, now - 20 * MINUTE, "shelf-two");
    objects = world_object_count(w, "shards");
    s.most = 1;
    expect_cleaned(w, &m, &o, "");
    assert_int_equal(world_object_count(w, "shards"), objects);
    assert_int_equal(shelf_delete(&s, "shelf-one", &w->err), SF_OK); /* as a clean-up that got no further leaves it */
    expect_cleaned(w, &m, &o, "run one\nrecord one\nrecord one\n");
    shelf_empty(&s);
}

/* The same tables may have served another prefix before. */
static void test_manifests_of_another_prefix_are_left_alone(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w);
    sf_manifest_store m = store_of(&s);
    sf_cleanup_options o = world_cleanup_options();
    struct world elsewhere;

    world_init(&elsewhere, NULL);
    s.w = &elsewhere;
    publish(&s, "foreign", 20, 1);
    s.w = w;
    publish(&s, "one", 20, 1);
    publish(&s, "two", 20, 2);
    o.keep_last = 1;
    expect_cleaned(w, &m, &o, "manifest one\nrun one\nrecord one\n");
    assert_int_equal(s.count, 2);
    assert_int_equal(place_of(&s, "shelf-foreign"), 0);
    assert_int_equal(world_cleanup(&elsewhere), 0);
    shelf_empty(&s);
}

static void test_another_prefix_s_store(void **state)
{
    struct world *w = *state;
    struct shelf s = shelf_of(w), other = shelf_of(w);
    sf_manifest_store m = store_of(&s), wrong = store_of(&other);
    sf_cleanup_options o = world_cleanup_options();
    struct world elsewhere;

    publish(&s, "one", 20, 1);
    o.keep_last = 1;
    free(clean(w, &wrong, &o, SF_INVALID));
    assert_non_null(strstr(w->err.message, "shelf names no snapshot, and run one was published"));
    world_init(&elsewhere, NULL);
    other.w = &elsewhere;
    publish(&other, "two", 20, 1);
    other.w = w;
    free(clean(w, &wrong, &o, SF_INVALID));
    assert_non_null(strstr(w->err.message, "shelf names a snapshot of"));
    expect_cleaned(w, &m, &o, "");
    assert_int_equal(world_cleanup(&elsewhere), 0);
    shelf_empty(&s);
    shelf_empty(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(test_manifest_and_pointer_go_to_the_store),
        WORLD_TEST(test_compare_and_swap),
        WORLD_TEST(test_what_goes_wrong),
        WORLD_TEST(test_functions_that_lack),
        WORLD_TEST(test_the_snapshot_before),
        WORLD_TEST(test_memory_that_runs_out),
        WORLD_TEST(test_clean_up_keeps_what_the_store_names),
        WORLD_TEST(test_a_run_that_was_killed_once_it_was_published),
        WORLD_TEST(test_a_list_that_is_cut_short),
        WORLD_TEST(test_manifests_of_another_prefix_are_left_alone),
        WORLD_TEST(test_another_prefix_s_store),
    };

    return cmocka_run_group_tests_name("writer manifest store", tests, NULL, NULL);
}
