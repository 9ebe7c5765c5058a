/* A publisher that stops at any request: what a reader sees then is the snapshot before or the new one, whole; and
 * clean-up leaves what belongs to the history and nothing else. */
#include "world.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROWS_BEFORE 40
#define ROWS_AFTER 60
#define ENOUGH 1000 /* requests: no publication takes as many */

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

static bool current_is(struct world *w, const char *run_id)
{
    sf_snapshot_manifest *m = world_manifest(w);
    bool same = strcmp(m->run_id, run_id) == 0;

    sf__snapshot_manifest_free(m);
    return same;
}

static void expect_lines(const char *text, const char *lines)
{
    while (*lines) {
        size_t n = strcspn(lines, "\n") + 1;
        char *line = strndup(lines, n);

        assert_non_null(line);
        if (!strstr(text, line))
            fail_msg("gone: %s", line);
        free(line);
        lines += n;
    }
}

/* The publisher is dead, its lease may not be over yet. Everything is as it was before it, or its snapshot is there as if
 * nothing had happened. */
static bool expect_old_or_new(struct world *w, const char *run_id, const char *before, unsigned version_before,
                              unsigned rows_before, unsigned version, size_t objects_of_run)
{
    sf_cleanup_options o = world_cleanup_options();
    bool is_new = current_is(w, run_id);
    char *now, folder[64];

    world_expect_snapshot(w, is_new ? ROWS_AFTER : rows_before, is_new ? version : version_before);
    snprintf(folder, sizeof(folder), "shards/run_id=%s", run_id);
    {
        size_t shards = world_object_count(w, folder);

        clean(w, &o); /* may still be alive as far as it knows */
        if (!is_new && world_object_count(w, "runs") > 0 && world_object_count(w, folder) != shards)
            assert_int_equal(world_object_count(w, folder), 0); /* or it had time to say that it failed */
    }
    o.ignore_leases = true;
    clean(w, &o);
    assert_int_equal(clean(w, &o), 0);
    world_expect_snapshot(w, is_new ? ROWS_AFTER : rows_before, is_new ? version : version_before);
    now = world_objects(w, "");
    if (!is_new) {
        if (strcmp(now, before) != 0)
            fail_msg("%s: left over\n%s\ninstead of\n%s", run_id, now, before);
    } else {
        assert_int_equal(world_object_count(w, folder), objects_of_run);
        expect_lines(now, before); /* the history is there, too */
    }
    free(now);
    return is_new;
}

/* How many objects the shards of one whole run are. */
static size_t objects_of_whole_run(struct world *w)
{
    world_publish(w, "whole", ROWS_AFTER, 1);
    return world_object_count(w, "shards/run_id=whole");
}

static void crash_everywhere(fault_kind kind)
{
    unsigned long n;
    size_t objects;
    unsigned old = 0, new = 0;
    struct world w;

    world_init(&w, "mem://crash-test/snap");
    objects = objects_of_whole_run(&w);
    world_publish(&w, "before", ROWS_BEFORE, 1);
    for (n = 1; n < ENOUGH; n++) {
        char *before = world_objects(&w, ""), run_id[32];
        sf_writer_options o = world_options();
        bool fired;
        sf_status rc;

        snprintf(run_id, sizeof(run_id), "crash-%lu", n);
        o.run_id = run_id;
        o.threads = 1;
        fault_store_reset(w.faults);
        w.faults->kind = kind;
        w.faults->at = n;
        w.faults->for_good = true;
        rc = world_try_publish(&w, &o, ROWS_AFTER, 2);
        fired = w.faults->fired;
        fault_store_reset(w.faults);
        if (!fired) {
            assert_int_equal(rc, SF_OK);
            free(before);
            break;
        }
        if (expect_old_or_new(&w, run_id, before, 1, ROWS_BEFORE, 2, objects)) {
            new++;
            world_publish(&w, run_id + 6, ROWS_BEFORE, 1); /* the next one finds an older version again */
        } else {
            assert_int_not_equal(rc, SF_OK);
            old++;
        }
        free(before);
    }
    assert_true(n < ENOUGH);
    assert_true(old >= 10);
    assert_true(new >= 1);
    assert_int_equal(world_cleanup(&w), 0);
}

static void test_requests_refused(void **state)
{
    (void)state;
    crash_everywhere(FAULT_REFUSE);
}

static void test_answers_lost(void **state)
{
    (void)state;
    crash_everywhere(FAULT_LOSE);
}

/* ------------------------------------------------------------------ killed --------------------------------------- */

struct killer {
    unsigned long at;
    unsigned long seen;
};

static void kill_after(fault_store *f, sf_store_op *op)
{
    struct killer *k = f->ctx;

    (void)op;
    if (++k->seen == k->at)
        kill(getpid(), SIGKILL);
}

/* In a process of its own: publishes version `n` and is killed when the nth request has been carried out. */
static void publish_and_die(const char *url, const char *run_id, unsigned long n)
{
    struct killer k = {.at = n};
    sf_writer_options o = world_options();
    struct world w;
    sf_status rc;

    world_init(&w, url);
    w.faults->after = kill_after;
    w.faults->ctx = &k;
    o.run_id = run_id;
    rc = world_try_publish(&w, &o, ROWS_AFTER, (unsigned)n + 10);
    if (rc != SF_OK)
        fprintf(stderr, "%s: %s\n", run_id, w.err.message);
    world_cleanup(&w);
    _exit(rc == SF_OK ? 0 : 1);
}

static void test_killed(void **state)
{
    char *objects_before = NULL;
    char folder[64] = "/tmp/sf-crash-test-XXXXXX", url[128];
    unsigned version = 1, rows = ROWS_BEFORE, old = 0, new = 0;
    size_t objects = 0;
    int status = 0;
    unsigned long n;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it cannot follow threads into a forked process */
#endif
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof(url), "file://%s/snap", folder);
    world_parent = folder; /* who is killed does not tidy up */
    for (n = 0; n < ENOUGH; n++) {
        char run_id[32] = "", *before;
        struct world w;
        pid_t pid;

        if (n > 0) {
            snprintf(run_id, sizeof(run_id), "kill-%lu", n);
            pid = fork();
            assert_true(pid >= 0);
            if (pid == 0)
                publish_and_die(url, run_id, n);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            if (WIFEXITED(status))
                break;
        }
        world_init(&w, url);
        if (n == 0) {
            objects = objects_of_whole_run(&w);
            world_publish(&w, "before", ROWS_BEFORE, 1);
        }
        before = objects_before;
        if (before && expect_old_or_new(&w, run_id, before, version, rows, (unsigned)n + 10, objects)) {
            version = (unsigned)n + 10;
            rows = ROWS_AFTER;
            new++;
        } else if (before) {
            old++;
        }
        free(before);
        objects_before = world_objects(&w, "");
        assert_int_equal(world_cleanup(&w), 0);
    }
    free(objects_before);
    world_parent = "/tmp";
    world_remove_folder(folder);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0); /* at last one went through */
    assert_true(old >= 10);
    assert_true(new >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_requests_refused),
        cmocka_unit_test(test_answers_lost),
    };

    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
