/* Whatever fails, an operation ends, says so with the right error, leaves no memory behind, and never answers wrongly:
 * the n-th allocation, then the n-th store request, until the whole scenario passes. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

struct scenario {
    const char *name; /* of the fixture */
    const char *rows;
    bool checkpoint;
    uint64_t cache_bytes;
};

static const struct scenario scenarios[] = {
    {"0.13.1-mixed", "expected.jsonl", false, UINT64_C(64) << 20},
    {"0.13.1-mixed", "expected.jsonl", false, 0},
    {"0.17.0-clone_projection", "expected.jsonl", false, 0},
    {"0.13.1-checkpoint_wal", "expected_checkpoint.jsonl", true, 0},
    {"0.12.1-wal_only_reopened", "expected.jsonl", false, UINT64_C(64) << 20},
    {"0.17.0-segments", "expected.jsonl", false, 0},
    {"0.17.0-codec_zstd", "expected.jsonl", false, 0},
};

struct run {
    struct env env;
    struct fixture f;
    const struct scenario *sc;
    sf_store *memory;
    struct probe_store *probe;
    sf_status fault; /* what may come out of it */
    bool failed;     /* something did */
};

static void run_begin(struct run *r, const struct scenario *sc, sf_status fault)
{
    char space[160];

    *r = (struct run){.sc = sc, .fault = fault};
    env_init(&r->env, sc->cache_bytes);
    snprintf(space, sizeof(space), "fault-test-%s", sc->name);
    r->memory = memory_store(&r->env, space);
    if (!fixture_load(&r->f, sc->name, sc->rows))
        fail_msg("%s: no such fixture", sc->name);
    fixture_into_store(r->f.dir, r->memory);
    r->probe = probe_new(r->memory);
}

static void run_end(struct run *r)
{
    sf__store_release(&r->probe->base);
    sf__store_release(r->memory);
    fixture_free(&r->f);
    env_cleanup(&r->env); /* fails when memory is left */
}

static bool went_well(struct run *r, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if (rc != r->fault || e->code == SF_OK || e->message[0] == '\0')
        fail_msg("%s: %s: %s: %s", r->sc->name, what, sf_status_name(rc), e->message);
    r->failed = true;
    return false;
}

static sf_bytes key_at(const struct run *r, size_t i)
{
    return (sf_bytes){r->f.rows[i].k, r->f.rows[i].kn};
}

static void check_row(struct run *r, size_t i, sf_bytes value)
{
    if (!expected_is(&r->f.rows[i], value))
        fail_msg("%s: row %zu has another value", r->sc->name, i);
}

static void get_some(struct run *r, sf_shard *s, size_t stride)
{
    sf_bytes *keys = calloc(r->f.count + 1, sizeof(*keys));
    size_t count = 0;
    struct got g;

    for (size_t i = 0; i < r->f.count; i += stride)
        keys[count++] = key_at(r, i);
    get_begin(&g, s, keys, count, SF_NO_DEADLINE);
    get_wait(&g);
    went_well(r, "get", g.error.code, &g.error);
    for (size_t i = 0; i < count; i++) {
        if (g.status[i] != SF_OK) {
            assert_int_equal(g.status[i], r->fault);
            assert_false(g.values[i].found);
            assert_int_not_equal(g.error.code, SF_OK);
        } else {
            assert_true(g.values[i].found);
            check_row(r, i * stride, g.values[i].bytes);
        }
    }
    get_free(&g);
    free(keys);
}

/* A step that failed may be tried again: no row is lost or shown twice. */
static void scan_all(struct run *r, sf_shard *s, bool reverse)
{
    sf_scan_range all = {.reverse = reverse};
    struct scan_run run;
    sf_error e = SF_ERROR_INIT;
    size_t seen = 0;
    unsigned retries = 0;
    bool end = false;

    if (!went_well(r, "opening of a scan", scan_begin(&run, s, &all, &e), &e))
        return;
    while (!end) {
        scan_step_begin(&run, 40, 1 << 20, SF_NO_DEADLINE);
        scan_step_wait(&run);
        if (!went_well(r, "scan", run.step.error.code, &run.step.error)) {
            if (++retries > 1)
                break; /* it has lost its place, and says so again */
            continue;
        }
        for (size_t i = 0; i < run.step.batch->count; i++, seen++) {
            size_t at = reverse ? r->f.count - 1 - seen : seen;

            assert_true(seen < r->f.count);
            assert_true(sf_bytes_eq(run.step.batch->rows[i].key, key_at(r, at)));
            check_row(r, at, run.step.batch->rows[i].value);
        }
        end = run.step.end;
        sf__row_batch_free(run.step.batch);
    }
    scan_end(&run);
    if (end)
        assert_int_equal(seen, r->f.count);
}

static void play(struct run *r)
{
    const char *checkpoint = r->sc->checkpoint ? cJSON_GetObjectItem(r->f.meta, "checkpoint_id")->valuestring : NULL;
    sf_error e = SF_ERROR_INIT;
    sf_shard *s = NULL;

    if (!went_well(r, "open", shard_open(&r->env, &r->probe->base, "db", checkpoint, &s, &e), &e)) {
        assert_null(s);
        return;
    }
    get_some(r, s, 1);
    get_some(r, s, r->f.count);
    scan_all(r, s, false);
    scan_all(r, s, true);
    sf__shard_release(s);
}

/* Past the first hundreds the same loops allocate again and again: then every few is enough. */
static long next_point(long n)
{
    return n < 300 ? n + 1 : n + 1 + n / 64;
}

static void every_failed_allocation_is_survived(void **state)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        unsigned failures = 0;
        bool fired = true;

        for (long n = 0; fired; n = next_point(n)) {
            struct run r;

            run_begin(&r, &scenarios[i], SF_NOMEM);
            heap_arm(&r.env.heap, n);
            play(&r);
            fired = atomic_load(&r.env.heap.fired);
            if (!fired)
                assert_false(r.failed);
            failures += r.failed;
            run_end(&r);
            assert_true(n < 100000);
        }
        assert_true(failures > 30);
    }
}

static void every_failed_request_is_survived(void **state)
{
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        unsigned n, failures = 0;
        bool fired = true;

        for (n = 1; fired; n++) {
            struct run r;

            run_begin(&r, &scenarios[i], SF_UNAVAILABLE);
            r.probe->fail_at = n;
            play(&r);
            fired = r.probe->failed;
            if (!fired)
                assert_false(r.failed);
            failures += r.failed;
            run_end(&r);
            assert_true(n < 1000);
        }
        assert_true(2 * failures > n); /* some fail unseen: a scan delivers what it has, and asks again */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(every_failed_request_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
