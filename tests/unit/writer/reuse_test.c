/* Shards that are there already: unchanged ones of the snapshot before, finished ones of earlier tries. Storage sees no
 * more requests than have to be, and neither a failure nor a clean-up takes what another snapshot names. */
#include "world.h"

#include "snapshot/content_hashes.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS 60u
#define SHARDS 4u
#define ENOUGH 1000ul /* requests: no publication takes as many */

static const sf_backend backends[] = {SF_BACKEND_SLATEDB, SF_BACKEND_SQLITE};
#define BACKENDS (sizeof(backends) / sizeof(backends[0]))

static sf_writer_options options(sf_backend backend, const char *run_id)
{
    sf_writer_options o = world_options();

    o.backend = backend;
    o.run_id = run_id;
    return o;
}

static sf_writer_options reusing(sf_backend backend, const char *run_id)
{
    sf_writer_options o = options(backend, run_id);

    o.reuse_unchanged = true;
    return o;
}

static sf_writer_options resuming(sf_backend backend, const char *run_id)
{
    sf_writer_options o = options(backend, run_id);

    o.resume = true;
    return o;
}

static void must(struct world *w, const sf_writer_options *o, unsigned version)
{
    if (world_try_publish(w, o, ROWS, version) != SF_OK)
        fail_msg("%s: %s", o->run_id, w->err.message);
}

static size_t clean(struct world *w, const sf_cleanup_options *o)
{
    sf_cleanup_report *r;
    sf_site s;
    size_t n;

    world_site(w, &s);
    if (sf__cleanup_on(&r, &s, o, &w->err) != SF_OK)
        fail_msg("clean-up: %s", w->err.message);
    sf_cleanup_leftovers(r, &n);
    sf_cleanup_report_free(r);
    sf__site_cleanup(&s);
    return n;
}

/* All but the newest snapshot. */
static void clean_old(struct world *w)
{
    sf_cleanup_options o = world_cleanup_options();

    o.keep_last = 1;
    clean(w, &o);
    assert_int_equal(clean(w, &o), 0);
}

/* How many shards of the snapshot that is served lie in this run's folder. */
static unsigned shards_of(struct world *w, const char *run_id)
{
    sf_snapshot_manifest *m = world_manifest(w);
    unsigned n = 0;
    char part[64];

    snprintf(part, sizeof(part), "/shards/run_id=%s/", run_id);
    for (size_t i = 0; i < m->shard_count; i++)
        n += m->shards[i].db_url && strstr(m->shards[i].db_url, part);
    sf__snapshot_manifest_free(m);
    return n;
}

static unsigned long puts_of(const struct world *w)
{
    return w->faults->verbs[SF_STORE_PUT] + w->faults->verbs[SF_STORE_MULTIPART_CREATE];
}

/* ------------------------------------------------------------------ unchanged ------------------------------------ */

static void test_unchanged(void **state)
{
    for (size_t i = 0; i < BACKENDS; i++) {
        struct world w;
        sf_writer_options o = options(backends[i], "a");
        sf_snapshot_manifest *before, *now;
        size_t objects;

        (void)state;
        world_init(&w, NULL);
        must(&w, &o, 1);
        before = world_manifest(&w);
        objects = world_object_count(&w, "shards");
        o = reusing(backends[i], "b");
        fault_store_reset(w.faults);
        must(&w, &o, 1);
        assert_int_equal(puts_of(&w), 4); /* run record at its begin and its end, manifest, pointer */
        assert_int_equal(world_object_count(&w, "shards"), objects);
        now = world_manifest(&w);
        assert_string_equal(now->run_id, "b");
        for (size_t k = 0; k < now->shard_count; k++) {
            assert_string_equal(now->shards[k].db_url, before->shards[k].db_url);
            assert_string_equal(now->shards[k].checkpoint_id, before->shards[k].checkpoint_id);
            assert_string_equal(now->shards[k].min_key_json, before->shards[k].min_key_json);
            assert_string_equal(now->shards[k].max_key_json, before->shards[k].max_key_json);
            assert_int_equal(now->shards[k].row_count, before->shards[k].row_count);
            assert_int_equal(now->shards[k].db_bytes, before->shards[k].db_bytes);
            assert_int_equal(now->shards[k].attempt, before->shards[k].attempt);
        }
        assert_string_equal(now->custom_json, before->custom_json);
        sf__snapshot_manifest_free(before);
        sf__snapshot_manifest_free(now);
        world_expect_snapshot(&w, ROWS, 1);
        clean_old(&w); /* the manifest of "a" is gone, its shards are those of "b" */
        assert_int_equal(world_object_count(&w, "shards"), objects);
        assert_int_equal(world_object_count(&w, "manifests"), 1);
        o.run_id = "c"; /* and so on from there */
        fault_store_reset(w.faults);
        must(&w, &o, 1);
        assert_int_equal(puts_of(&w), 4);
        assert_int_equal(shards_of(&w, "a"), SHARDS);
        clean_old(&w);
        world_expect_snapshot(&w, ROWS, 1);
        assert_int_equal(world_cleanup(&w), 0);
    }
}

/* One key has another value: its shard alone is built. */
static void test_one_shard_changed(void **state)
{
    for (size_t i = 0; i < BACKENDS; i++) {
        struct world w;
        sf_writer_options o = options(backends[i], "a");
        sf_key key = sf_key_int(7);
        sf_rollback_options back = SF_ROLLBACK_OPTIONS_INIT;
        size_t objects;
        char ref[512];
        sf_writer *writer;
        sf_site site;
        sf_snapshot_manifest *m;

        (void)state;
        world_init(&w, NULL);
        must(&w, &o, 1);
        objects = world_object_count(&w, "shards");
        {
            sf_pointer p;

            world_site(&w, &site);
            assert_int_equal(sf__pointer_load(&site, NULL, &p, &w.err), SF_OK);
            snprintf(ref, sizeof(ref), "%s", p.current.manifest_ref);
            sf__pointer_cleanup(&site, &p);
        }
        o = reusing(backends[i], "b");
        writer = world_writer(&w, &o);
        assert_int_equal(world_add_rows(&w, writer, ROWS, 1, true), SF_OK);
        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_str("other"), &w.err), SF_OK);
        assert_int_equal(sf_writer_finish(writer, &w.err), SF_OK);
        assert_int_equal(sf_writer_report(writer)->reused_shards, SHARDS - 1);
        assert_int_equal(sf_writer_report(writer)->published_duplicates, 1);
        sf_writer_free(writer);
        assert_int_equal(shards_of(&w, "a"), SHARDS - 1);
        assert_int_equal(shards_of(&w, "b"), 1);
        clean(&w, &(sf_cleanup_options)SF_CLEANUP_OPTIONS_INIT);
        assert_int_equal(sf__rollback_on(&site, ref, &back, &w.err), SF_OK); /* "a" is whole */
        world_expect_snapshot(&w, ROWS, 1);
        o.run_id = "c";
        must(&w, &o, 1);
        assert_int_equal(shards_of(&w, "a"), SHARDS); /* what the pointer names counts */
        clean_old(&w);
        assert_int_equal(world_object_count(&w, "shards"), objects);
        assert_int_equal(world_object_count(&w, "shards/run_id=b"), 0);
        world_expect_snapshot(&w, ROWS, 1);
        o.run_id = "d"; /* shards of two runs, of which one is cleaned up in parts */
        writer = world_writer(&w, &o);
        assert_int_equal(world_add_rows(&w, writer, ROWS, 1, true), SF_OK);
        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_str("other"), &w.err), SF_OK);
        assert_int_equal(sf_writer_finish(writer, &w.err), SF_OK);
        sf_writer_free(writer);
        clean_old(&w);
        assert_int_equal(world_object_count(&w, "shards"), objects);
        m = world_manifest(&w);
        for (size_t k = 0; k < m->shard_count; k++)
            assert_true(world_object_count(&w, strstr(m->shards[k].db_url, "/shards/") + 1) > 0);
        sf__snapshot_manifest_free(m);
        sf__site_cleanup(&site);
        assert_int_equal(world_cleanup(&w), 0);
    }
}

static void other_backend(sf_writer_options *o)
{
    o->backend = o->backend == SF_BACKEND_SQLITE ? SF_BACKEND_SLATEDB : SF_BACKEND_SQLITE;
}

static void other_encoding(sf_writer_options *o)
{
    o->key_encoding = SF_KEY_U32BE;
}

static void other_number(sf_writer_options *o)
{
    o->num_dbs = 3;
}

static void other_pages(sf_writer_options *o)
{
    static sf_sqlite_options larger = SF_SQLITE_OPTIONS_INIT;

    larger.page_bytes = 8192;
    o->sqlite = &larger;
}

static void no_sidecar(sf_writer_options *o)
{
    static sf_sqlite_options without = SF_SQLITE_OPTIONS_INIT;

    without.sidecar = false;
    o->sqlite = &without;
}

static void off(sf_writer_options *o)
{
    o->reuse_unchanged = o->resume = false;
}

/* Nothing is reused, and everything is right. */
static void test_what_differs(void **state)
{
    static const struct {
        const char *name;
        void (*change)(sf_writer_options *o);
        sf_backend backend;
    } cases[] = {
        {"backend", other_backend, SF_BACKEND_SLATEDB}, {"encoding", other_encoding, SF_BACKEND_SLATEDB},
        {"number", other_number, SF_BACKEND_SLATEDB},   {"pages", other_pages, SF_BACKEND_SQLITE},
        {"sidecar", no_sidecar, SF_BACKEND_SQLITE},     {"off", off, SF_BACKEND_SLATEDB},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        sf_writer_options o = resuming(cases[i].backend, "a");

        world_init(&w, NULL);
        must(&w, &o, 1);
        o = reusing(cases[i].backend, "b");
        cases[i].change(&o);
        must(&w, &o, 1);
        if (shards_of(&w, "b") != o.num_dbs)
            fail_msg("%s: %u shards", cases[i].name, shards_of(&w, "b"));
        world_expect_snapshot(&w, ROWS, 1);
        o = resuming(cases[i].backend, "a");
        cases[i].change(&o);
        must(&w, &o, 1);
        {
            sf_snapshot_manifest *m = world_manifest(&w);

            for (size_t k = 0; k < m->shard_count; k++)
                if (!strstr(m->shards[k].db_url, "/attempt=01"))
                    fail_msg("%s: %s", cases[i].name, m->shards[k].db_url);
            sf__snapshot_manifest_free(m);
        }
        world_expect_snapshot(&w, ROWS, 1);
        assert_int_equal(world_cleanup(&w), 0);
    }
}

/* The run of somebody else, at the last moment before ours is announced. */
static sf_status publish_between(void *ctx, const sf_write_report *report, sf_error *err)
{
    (void)report;
    (void)err;
    world_publish(ctx, "between", ROWS, 2);
    return SF_OK;
}

static sf_status refuse(void *ctx, const sf_write_report *report, sf_error *err)
{
    (void)ctx;
    assert_int_equal(report->reused_shards, SHARDS);
    return sf_fail(err, SF_REFUSED, "no");
}

/* Failures take back nothing of the snapshot before. */
static void test_failures_take_nothing(void **state)
{
    struct world *w = *state;
    sf_writer_options o = reusing(SF_BACKEND_SLATEDB, "b");
    size_t objects;

    world_publish(w, "a", ROWS, 1);
    objects = world_object_count(w, "shards");
    o.check = refuse;
    assert_int_equal(world_try_publish(w, &o, ROWS, 1), SF_REFUSED);
    assert_int_equal(world_object_count(w, "shards"), objects);
    world_expect_snapshot(w, ROWS, 1);
    o.expected_current = SF_EXPECT_REF;
    o.expected_ref = "mem://elsewhere/manifests/x/manifest";
    o.check = NULL;
    assert_int_equal(world_try_publish(w, &o, ROWS, 1), SF_CONFLICT);
    o.expected_current = SF_EXPECT_ABSENT;
    assert_int_equal(world_try_publish(w, &o, ROWS, 1), SF_CONFLICT);
    o.expected_current = SF_EXPECT_ANY;
    o.check = publish_between;
    o.check_ctx = w;
    assert_int_equal(world_try_publish(w, &o, ROWS, 1), SF_CONFLICT);
    assert_non_null(strstr(w->err.message, "another snapshot was published: the pointer names "));
    world_expect_current(w, "between");
    world_expect_snapshot(w, ROWS, 2);
    assert_int_equal(world_object_count(w, "shards/run_id=b"), 0);
    assert_int_equal(world_object_count(w, "shards/run_id=a"), objects);
    o.run_id = "c"; /* with nothing to take over the last writer wins, as ever */
    o.check_ctx = w;
    world_delete(w, "shards/run_id=between");
    o.check = NULL;
    assert_int_equal(world_try_publish(w, &o, ROWS, 2), SF_OK);
    assert_int_equal(shards_of(w, "c"), SHARDS); /* what was to be reused is gone */
    world_expect_snapshot(w, ROWS, 2);
}

static void test_previous_unreadable(void **state)
{
    static const char *const pointers[] = {"{", "{\"manifest_ref\": 1}", ""};
    struct world *w = *state;
    sf_writer_options o = reusing(SF_BACKEND_SLATEDB, "none");

    must(w, &o, 1); /* nothing before */
    for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
        char run_id[16];

        snprintf(run_id, sizeof(run_id), "r%zu", i);
        world_put(w, "_CURRENT", sf_bytes_str(pointers[i]));
        o.run_id = run_id;
        must(w, &o, 1);
        assert_int_equal(shards_of(w, run_id), SHARDS);
        world_expect_snapshot(w, ROWS, 1);
    }
    world_delete(w, "manifests");
    o.run_id = "after";
    must(w, &o, 1);
    assert_int_equal(shards_of(w, "after"), SHARDS);
}

/* Shards of somebody else's writer: what this one has no room for is not cut short. */
static void test_long_checkpoints(void **state)
{
    static const char uuid[] = "01234567-89ab-cdef-0123-456789abcdef";
    struct world *w = *state;
    sf_writer_options o = options(SF_BACKEND_SLATEDB, "b");
    sf_snapshot_manifest *m;
    sf_content_hashes hashes;
    sf_writer *writer;

    world_publish(w, "a", ROWS, 1);
    m = world_manifest(w);
    assert_int_equal(sf__content_hashes_init(&hashes, m, w->rt->alloc, &w->err), SF_OK);
    writer = world_writer(w, &o);
    for (size_t i = 0; i < m->shard_count; i++) {
        char hex[33] = "";
        sf_attempt at = {.db_id = m->shards[i].db_id,
                         .db_url = m->shards[i].db_url,
                         .row_count = m->shards[i].row_count,
                         .db_bytes = m->shards[i].db_bytes,
                         .content_hash = hex,
                         .checkpoint_id = i == 0 ? uuid : m->shards[i].checkpoint_id};

        memcpy(hex, sf__content_hashes_of(&hashes, m->shards[i].db_id).p, 32);
        assert_int_equal(sf_writer_add_attempt(writer, &at, &w->err), SF_OK);
    }
    assert_int_equal(sf_writer_publish(writer, &w->err), SF_OK);
    sf_writer_free(writer);
    sf__content_hashes_cleanup(&hashes);
    sf__snapshot_manifest_free(m);
    o = reusing(SF_BACKEND_SLATEDB, "c");
    must(w, &o, 1);
    assert_int_equal(shards_of(w, "c"), 1); /* the first one */
    assert_int_equal(shards_of(w, "a"), SHARDS - 1);
    world_expect_snapshot(w, ROWS, 1);
}

/* ------------------------------------------------------------------ resume --------------------------------------- */

static void test_resume_needs_a_run_id(void **state)
{
    struct world *w = *state;
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, NULL);

    assert_null(world_writer(w, &o));
    assert_int_equal(w->err.code, SF_INVALID);
    o.run_id = "r";
    o.new_run_id = true;
    assert_null(world_writer(w, &o));
    assert_int_equal(w->err.code, SF_INVALID);
}

/* While another writer is at the run nobody goes on with it. */
static void test_lease_is_respected(void **state)
{
    struct world *w = *state;
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, "r");
    sf_writer *first = world_writer(w, &o);

    assert_non_null(first);
    assert_null(world_writer(w, &o));
    assert_int_equal(w->err.code, SF_CONFLICT);
    sf_writer_free(first);
    must(w, &o, 1);
}

/* The records of finished shards, by number. */
static unsigned finished_of(struct world *w, const char *run_id, bool finished[SHARDS])
{
    char folder[64], *objects;
    unsigned n = 0;

    snprintf(folder, sizeof(folder), "shards/run_id=%s", run_id);
    objects = world_objects(w, folder);
    for (unsigned i = 0; i < SHARDS; i++) {
        char path[32], *at = objects;

        snprintf(path, sizeof(path), "/db=%05u/", i);
        finished[i] = false;
        while (at && (at = strstr(at, path)) != NULL) {
            const char *slash = strchr(at + strlen(path), '/');

            finished[i] |= slash && strncmp(slash, "/finished.json\n", 15) == 0;
            at++;
        }
        n += finished[i];
    }
    free(objects);
    return n;
}

/* Puts of a whole run: `*base` for the run, `*each` for a shard. */
static void count_puts(struct world *w, sf_writer_options o, unsigned long *base, unsigned long *each)
{
    o.run_id = "counted";
    *base = o.run_registry_prefix ? 4 : 2;
    fault_store_reset(w->faults);
    must(w, &o, 1);
    assert_int_equal((puts_of(w) - *base) % SHARDS, 0);
    *each = (puts_of(w) - *base) / SHARDS;
    assert_true(*each >= 2);
}

/* The second try: it stores what is missing and nothing else. */
static void go_on(struct world *w, const sf_writer_options *o, unsigned version, unsigned long base, unsigned long each)
{
    bool finished[SHARDS];
    unsigned before = finished_of(w, o->run_id, finished);
    sf_snapshot_manifest *m;

    fault_store_reset(w->faults);
    must(w, o, version);
    assert_int_equal(puts_of(w), base + (SHARDS - before) * each);
    m = world_manifest(w);
    assert_string_equal(m->run_id, o->run_id);
    for (size_t i = 0; i < m->shard_count; i++)
        if (finished[m->shards[i].db_id] && !strstr(m->shards[i].db_url, "/attempt=00"))
            fail_msg("%s was built again", m->shards[i].db_url);
    sf__snapshot_manifest_free(m);
    world_expect_snapshot(w, ROWS, version);
}

/* Only the snapshot that is served, with all that belongs to it, is left. */
static void expect_clean(struct world *w)
{
    sf_cleanup_options o = world_cleanup_options();
    sf_snapshot_manifest *m = world_manifest(w);
    size_t objects = 0;

    o.keep_last = 1;
    o.ignore_leases = o.unrecorded_runs = true;
    clean(w, &o);
    assert_int_equal(clean(w, &o), 0);
    for (size_t i = 0; i < m->shard_count; i++)
        objects += world_object_count(w, strstr(m->shards[i].db_url, "/shards/") + 1);
    sf__snapshot_manifest_free(m);
    assert_int_equal(world_object_count(w, "shards"), objects);
}

static void resume_everywhere(sf_backend backend, fault_kind kind)
{
    unsigned long base, each, n;
    unsigned some = 0;
    struct world w;
    sf_writer_options o = resuming(backend, "r");

    world_init(&w, NULL);
    o.run_registry_prefix = NULL; /* this process lives, and would be taken for a writer at work */
    o.threads = 1;
    count_puts(&w, o, &base, &each);
    for (n = 1; n < ENOUGH; n++) {
        bool fired, finished[SHARDS];
        unsigned before;
        char run_id[32];
        sf_status rc;

        snprintf(run_id, sizeof(run_id), "r-%lu", n);
        o.run_id = run_id;
        fault_store_reset(w.faults);
        w.faults->kind = kind;
        w.faults->at = n;
        w.faults->for_good = true;
        rc = world_try_publish(&w, &o, ROWS, (unsigned)n);
        fired = w.faults->fired;
        fault_store_reset(w.faults);
        if (!fired) {
            assert_int_equal(rc, SF_OK);
            break;
        }
        before = finished_of(&w, run_id, finished);
        some += before > 0 && before < SHARDS;
        go_on(&w, &o, (unsigned)n, base, each);
        if (n % 8 == 0)
            expect_clean(&w);
    }
    assert_true(n < ENOUGH);
    assert_true(some >= 6);
    assert_int_equal(world_cleanup(&w), 0);
}

static void test_resume_after_failures(void **state)
{
    (void)state;
    resume_everywhere(SF_BACKEND_SLATEDB, FAULT_REFUSE);
    resume_everywhere(SF_BACKEND_SLATEDB, FAULT_LOSE);
    resume_everywhere(SF_BACKEND_SQLITE, FAULT_LOSE);
}

struct killer {
    unsigned long at, seen;
};

static void kill_after(fault_store *f, sf_store_op *op)
{
    struct killer *k = f->ctx;

    (void)op;
    if (++k->seen == k->at)
        kill(getpid(), SIGKILL);
}

static void publish_and_die(const char *url, const sf_writer_options *o, unsigned long n)
{
    struct killer k = {.at = n};
    struct world w;
    sf_status rc;

    world_init(&w, url);
    w.faults->after = kill_after;
    w.faults->ctx = &k;
    rc = world_try_publish(&w, o, ROWS, (unsigned)n);
    world_cleanup(&w);
    _exit(rc == SF_OK ? 0 : 1);
}

static void test_resume_after_kills(void **state)
{
    bool in_memory = access("/dev/shm", W_OK) == 0; /* where nobody waits for a disk */
    char folder[64], url[128];
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, "r");
    unsigned long base = 0, each = 0, n;
    int status = 0;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it cannot follow threads into a forked process */
#endif
    snprintf(folder, sizeof(folder), "%s/sf-reuse-test-XXXXXX", in_memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof(url), "file://%s/snap", folder);
    world_parent = folder; /* who is killed does not tidy up */
    for (n = 0; n < ENOUGH; n++) {
        char run_id[32];
        struct world w;
        pid_t pid;

        snprintf(run_id, sizeof(run_id), "kill-%lu", n);
        o.run_id = run_id;
        if (n > 0) {
            pid = fork();
            assert_true(pid >= 0);
            if (pid == 0)
                publish_and_die(url, &o, n);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            if (WIFEXITED(status))
                break;
        }
        world_init(&w, url);
        if (n == 0) {
            count_puts(&w, o, &base, &each);
        } else {
            go_on(&w, &o, (unsigned)n, base, each); /* though the lease of the dead one lasts */
            if (n % 8 == 0)
                expect_clean(&w);
        }
        assert_int_equal(world_cleanup(&w), 0);
    }
    world_parent = "/tmp";
    world_remove_folder(folder);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* at last one went through */
    assert_true(n > 10);
}

/* Other rows under the same run id. */
static void test_resume_with_other_rows(void **state)
{
    struct world *w = *state;
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, "r");
    unsigned long base, each;

    count_puts(w, o, &base, &each);
    must(w, &o, 1);
    go_on(w, &o, 1, base, each); /* whole */
    fault_store_reset(w->faults);
    must(w, &o, 2);
    assert_int_equal(puts_of(w), base + SHARDS * each);
    world_expect_snapshot(w, ROWS, 2);
    fault_store_reset(w->faults);
    must(w, &o, 1); /* the first attempts are still there */
    assert_int_equal(puts_of(w), base);
    world_expect_snapshot(w, ROWS, 1);
}

struct lost {
    struct world *w;
    const char *folder;
};

static sf_status lose_finished(void *ctx, const sf_write_report *report, sf_error *err)
{
    const struct lost *lost = ctx;

    (void)err;
    assert_int_equal(report->reused_shards, SHARDS);
    world_delete(lost->w, lost->folder);
    return SF_OK;
}

/* A clean-up that ran when nobody held the lease, or still runs. */
static void test_finished_is_gone(void **state)
{
    struct world *w = *state;
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, "r");
    struct lost lost[] = {{w, "shards/run_id=r/db=00002"}, {w, "shards/run_id=r/db=00002/attempt=00/compacted"}};

    for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
        must(w, &o, 1);
        o.check = lose_finished;
        o.check_ctx = &lost[i];
        assert_int_equal(world_try_publish(w, &o, ROWS, 1), SF_NOT_FOUND);
        assert_string_equal(w->err.message,
                            "shard 2, which an earlier try of run r had finished, is gone: a clean-up removed it");
        o.check = NULL;
        must(w, &o, 1);
        world_expect_snapshot(w, ROWS, 1);
    }
}

/* What lies where a record should be, or a part of a shard that is gone: the shard is built. */
static void test_bad_records(void **state)
{
    static const char name[] = "shards/run_id=r/db=00001/attempt=00/finished.json";
    struct world *w = *state;
    sf_writer_options o = resuming(SF_BACKEND_SLATEDB, "r");
    const struct {
        const char *from, *to;
    } cases[] = {
        {"{", "["},
        {"\"format_version\": 1", "\"format_version\": 2"},
        {"\"db_id\": 1", "\"db_id\": 2"},
        {"\"db_id\": 1", "\"db_id\": -1"},
        {"\"attempt\": 0", "\"attempt\": 7"},
        {"\"row_count\": ", "\"row_count\": -"},
        {"\"row_count\": ", "\"row_count\": 99999999999999999999"},
        {"\"row_count\": ", "\"rows\": "},
        {"\"db_bytes\": ", "\"db_bytes\": 1"},
        {"\"min_key\": ", "\"min_key\": [], \"x\": "},
        {"\"max_key\": ", "\"y\": "},
        {"\"checkpoint_id\": \"", "\"checkpoint_id\": \"Z"},
        {"\"content_hash\": \"", "\"content_hash\": \"0"},
        {"u64be", "u32be"},
        {"u64be", "u65be"},
        {"slatedb", "sqlite"},
        {"\"stored_as\": ", "\"stored_as\": null, \"z\": "},
        {"\"stored_as\"", "\"stored\""},
    };
    sf_buf *record;
    char *text;

    must(w, &o, 1);
    record = world_get(w, name);
    assert_non_null(record);
    text = strndup((const char *)sf__buf_bytes(record).p, sf__buf_bytes(record).n);
    sf__buf_release(record);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *at = strstr(text, cases[i].from);
        char bad[2048];

        if (!at)
            fail_msg("no %s in %s", cases[i].from, text);
        snprintf(bad, sizeof(bad), "%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from));
        world_delete(w, "shards/run_id=r/db=00001");
        o.resume = true;
        must(w, &o, 1);
        world_put(w, name, sf_bytes_str(bad));
        must(w, &o, 1);
        {
            sf_snapshot_manifest *m = world_manifest(w);

            if (!strstr(m->shards[1].db_url, "/db=00001/attempt=01"))
                fail_msg("%s -> %s: %s", cases[i].from, cases[i].to, m->shards[1].db_url);
            sf__snapshot_manifest_free(m);
        }
        world_expect_snapshot(w, ROWS, 1);
    }
    free(text);
}

/* Both at once: an interrupted publish of which some shards are as before. */
static void test_resume_and_reuse(void **state)
{
    struct world *w = *state;
    sf_writer_options o = options(SF_BACKEND_SQLITE, "a");
    sf_key key = sf_key_int(7);
    sf_writer *writer;

    must(w, &o, 1);
    o = reusing(SF_BACKEND_SQLITE, "b");
    o.resume = true;
    o.check = refuse;
    for (int i = 0; i < 2; i++) {
        writer = world_writer(w, &o);
        o.check = NULL;
        assert_int_equal(world_add_rows(w, writer, ROWS, 1, false), SF_OK);
        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_str("other"), &w->err), SF_OK);
        if (i == 0) {
            assert_int_equal(sf_writer_build(writer, &w->err), SF_OK);
            assert_int_equal(sf_writer_report(writer)->reused_shards, SHARDS - 1);
            sf_writer_abort(writer, "Test", "given up");
        } else {
            assert_int_equal(sf_writer_finish(writer, &w->err), SF_OK);
            assert_int_equal(sf_writer_report(writer)->reused_shards, SHARDS);
        }
        sf_writer_free(writer);
    }
    assert_int_equal(shards_of(w, "a"), SHARDS - 1);
    assert_int_equal(shards_of(w, "b"), 1);
    assert_int_equal(world_object_count(w, "shards/run_id=b"), 3); /* shard.db, its sidecar, the record */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_after_kills), /* before this process has threads */
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_one_shard_changed),
        cmocka_unit_test(test_what_differs),
        WORLD_TEST(test_failures_take_nothing),
        WORLD_TEST(test_previous_unreadable),
        WORLD_TEST(test_long_checkpoints),
        WORLD_TEST(test_resume_needs_a_run_id),
        WORLD_TEST(test_lease_is_respected),
        cmocka_unit_test(test_resume_after_failures),
        WORLD_TEST(test_resume_with_other_rows),
        WORLD_TEST(test_finished_is_gone),
        WORLD_TEST(test_bad_records),
        WORLD_TEST(test_resume_and_reuse),
    };

    return cmocka_run_group_tests_name("reuse", tests, NULL, NULL);
}
