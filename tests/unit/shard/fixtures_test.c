/* Every fixture straight over the shard, with and without a cache: every row by every way to read it. Gets, scans and
 * seeks have to agree with what SlateDB's own reader returned, so with each other; damaged databases may fail as their
 * meta.json says, but never answer wrongly. */
#include "base/pin.h"
#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEK_CACHE_BYTES (UINT64_C(64) << 20) /* seeks are many, and need not be tried with every cache */

struct world {
    struct env env;
    sf_store *memory;
    struct fixture f;
    const char *name;
    sf_shard *shard;
    bool strict; /* nothing may fail: this is a checkpoint */
    bool complained;
};

static sf_bytes key_at(const struct world *w, size_t i)
{
    return (sf_bytes){w->f.rows[i].k, w->f.rows[i].kn};
}

static void failed(struct world *w, const char *what, size_t i, sf_status rc, const sf_error *e)
{
    if (w->strict || !fixture_may_fail(&w->f, rc))
        fail_msg("%s: %s of row %zu: %s: %s", w->name, what, i, sf_status_name(rc), e->message);
    if (e->message[0] == '\0' || e->code == SF_OK)
        fail_msg("%s: %s of row %zu: nothing is said about %s", w->name, what, i, sf_status_name(rc));
    w->complained = true;
}

static void check_value(struct world *w, const char *what, size_t i, const sf_value *v)
{
    if (!v->found || !expected_is(&w->f.rows[i], v->bytes))
        fail_msg("%s: %s of row %zu: %s", w->name, what, i, v->found ? "another value" : "not found");
}

static void check_gets(struct world *w)
{
    sf_bytes *keys = calloc(w->f.count + 1, sizeof(*keys));
    const cJSON *absent;
    struct got g;

    for (size_t i = 0; i < w->f.count; i++)
        keys[i] = key_at(w, i);
    get_begin(&g, w->shard, keys, w->f.count, SF_NO_DEADLINE);
    get_wait(&g);
    for (size_t i = 0; i < w->f.count; i++) {
        sf_value v = {0};
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        if (g.status[i] == SF_OK)
            check_value(w, "batched get", i, &g.values[i]);
        else
            failed(w, "batched get", i, g.status[i], &g.error);
        rc = try_one(w->shard, keys[i], &v, &e);
        if (rc == SF_WOULD_BLOCK)
            rc = get_one(w->shard, keys[i], &v, &e);
        if (rc != g.status[i])
            fail_msg("%s: row %zu alone: %s, in a batch: %s", w->name, i, sf_status_name(rc),
                     sf_status_name(g.status[i]));
        if (rc == SF_OK)
            check_value(w, "get", i, &v);
        sf__owner_release(v.owner);
    }
    get_free(&g);
    absent = w->strict ? NULL : cJSON_GetObjectItem(w->f.meta, "absent_keys"); /* of the newest state */
    for (absent = absent ? absent->child : NULL; absent; absent = absent->next) {
        sf_value v = {0};
        sf_error e = SF_ERROR_INIT;
        uint8_t *k;
        size_t n = unhex(absent->valuestring, &k);
        sf_status rc = get_one(w->shard, sf_bytes_of(k, n), &v, &e);

        if (rc != SF_OK)
            failed(w, "get of an absent key, which is none", 0, rc, &e);
        else if (v.found)
            fail_msg("%s: absent key %s was found", w->name, absent->valuestring);
        free(k);
    }
    free(keys);
}

/* One whole scan; a row that is shown has to be the next expected one. */
static void check_scan(struct world *w, bool reverse, size_t step)
{
    sf_scan_range all = {.reverse = reverse, .limit = UINT64_MAX};
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;
    size_t seen = 0;
    bool end = false;

    assert_int_equal(scan_begin(&r, w->shard, &all, &e), SF_OK);
    while (!end) {
        scan_step_begin(&r, step, 1 << 20, SF_NO_DEADLINE);
        scan_step_wait(&r);
        if (r.step.error.code != SF_OK) {
            failed(w, "scan", seen, r.step.error.code, &r.step.error);
            break;
        }
        for (size_t i = 0; i < r.step.batch->count; i++, seen++) {
            size_t at = reverse ? w->f.count - 1 - seen : seen;

            if (seen >= w->f.count || !sf_bytes_eq(r.step.batch->rows[i].key, key_at(w, at)) ||
                !expected_is(&w->f.rows[at], r.step.batch->rows[i].value))
                fail_msg("%s: row %zu of the %s scan", w->name, seen, reverse ? "backward" : "forward");
        }
        end = r.step.end;
        sf__row_batch_free(r.step.batch);
    }
    scan_end(&r);
    if (end && seen != w->f.count)
        fail_msg("%s: the %s scan gave %zu rows of %zu", w->name, reverse ? "backward" : "forward", seen, w->f.count);
}

/* The first row of a scan over [start, ...), or of one backwards over [..., end). */
static void check_seek(struct world *w, const sf_scan_range *range, size_t expected)
{
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;

    assert_int_equal(scan_begin(&r, w->shard, range, &e), SF_OK);
    scan_step_begin(&r, 1, 1 << 20, SF_NO_DEADLINE);
    scan_step_wait(&r);
    if (r.step.error.code != SF_OK) {
        failed(w, "seek", expected, r.step.error.code, &r.step.error);
    } else if (expected == w->f.count
                   ? r.step.batch->count != 0
                   : r.step.batch->count != 1 || !sf_bytes_eq(r.step.batch->rows[0].key, key_at(w, expected)) ||
                         !expected_is(&w->f.rows[expected], r.step.batch->rows[0].value)) {
        fail_msg("%s: a %s seek to row %zu shows another row, or none", w->name,
                 range->reverse ? "backward" : "forward", expected);
    }
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
}

/* To every row (of large cases, to some), to just above it, and from both ends. */
static void check_seeks(struct world *w)
{
    size_t stride = w->f.count / 100 + 1;

    for (size_t i = 0; i < w->f.count; i += stride) {
        sf_bytes key = key_at(w, i);
        uint8_t *above = malloc(key.n + 1);
        size_t next = i + 1;

        memcpy(above, key.p, key.n);
        above[key.n] = 0; /* the smallest key above; it may be a stored one */
        check_seek(w, &(sf_scan_range){.start = key}, i);
        check_seek(w, &(sf_scan_range){.start = {above, key.n + 1}}, next < w->f.count ? next : w->f.count);
        check_seek(w, &(sf_scan_range){.end = {above, key.n + 1}, .has_end = true, .reverse = true}, i);
        check_seek(w, &(sf_scan_range){.end = key, .has_end = true, .reverse = true}, i > 0 ? i - 1 : w->f.count);
        free(above);
    }
}

static void check_state(const char *name, const char *rows, const char *checkpoint, uint64_t cache_bytes)
{
    struct world w = {.name = name, .strict = checkpoint != NULL};
    sf_error e = SF_ERROR_INIT;
    char space[160];

    env_init(&w.env, cache_bytes);
    snprintf(space, sizeof(space), "fixtures-test-%s", name);
    w.memory = memory_store(&w.env, space);
    if (!fixture_load(&w.f, name, rows))
        fail_msg("%s: no %s", name, rows);
    fixture_into_store(w.f.dir, w.memory);
    if (shard_open(&w.env, w.memory, "db", checkpoint, &w.shard, &e) == SF_OK) {
        check_gets(&w);
        check_scan(&w, false, 17);
        check_scan(&w, true, 17);
        check_scan(&w, false, 100000);
        if (cache_bytes >= SEEK_CACHE_BYTES)
            check_seeks(&w);
        sf__shard_release(w.shard);
    } else {
        failed(&w, "opening", 0, e.code, &e);
    }
    if (!checkpoint && fixture_must_fail(&w.f) && !w.complained)
        fail_msg("%s: nobody reported the damage", name);
    fixture_free(&w.f);
    sf__store_release(w.memory);
    env_cleanup(&w.env);
}

static void check_case(const char *name)
{
    static const uint64_t cache_bytes[] = {SEEK_CACHE_BYTES, UINT64_C(64) << 10, 0};
    struct fixture f;
    const cJSON *checkpoint;

    if (!fixture_load(&f, name, "expected.jsonl"))
        fail_msg("%s: not a case", name);
    checkpoint = cJSON_GetObjectItem(f.meta, "checkpoint_id");
    for (size_t i = 0; i < sizeof(cache_bytes) / sizeof(cache_bytes[0]); i++) {
        check_state(name, "expected.jsonl", NULL, cache_bytes[i]);
        if (checkpoint)
            check_state(name, "expected_checkpoint.jsonl", checkpoint->valuestring, cache_bytes[i]);
    }
    fixture_free(&f);
}

static void every_fixture_holds(void **state)
{
    const char *root = getenv("SF_FIXTURES");
    char folder[1024];
    struct dirent *d;
    unsigned cases = 0;
    DIR *dir;

    snprintf(folder, sizeof(folder), "%s/slatedb", root ? root : SF_FIXTURES_DIR);
    dir = opendir(folder);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.' || strstr(d->d_name, "README"))
            continue;
        check_case(d->d_name);
        cases++;
    }
    closedir(dir);
    assert_true(cases >= 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_fixture_holds)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
