/* The life of a reader over a snapshot in memory: opening, looking up, following the pointer, closing, and what happens
 * when each of them fails. The rows themselves are the conformance test's business. */
#include "../../support/heap.h"
#include "world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/runtime.h"

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static void looks_up_in_every_form(void **state)
{
    sf_reader *r = world_open_reader(*state);
    sf_key keys[KEYS];
    sf_value values[KEYS] = {0};
    sf_snapshot *pinned = sf_reader_borrow(r, NULL);
    unsigned found = 0;

    for (unsigned i = 0; i < KEYS; i++)
        keys[i] = sf_key_int(i);
    assert_int_equal(sf_reader_multi_get(r, keys, KEYS, 10000, values, NULL), SF_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        sf_value one = {0}, warm = {0};

        assert_int_equal(sf_reader_get(r, &keys[i], 10000, &one, NULL), SF_OK);
        assert_int_equal(one.found, values[i].found);
        assert_true(sf_bytes_eq(one.bytes, values[i].bytes));
        assert_int_equal(sf_reader_try_get(r, &keys[i], &warm, NULL), SF_OK);
        assert_int_equal(warm.found, one.found);
        assert_true(sf_bytes_eq(warm.bytes, one.bytes));
        sf_value_release(&warm);
        assert_int_equal(sf_snapshot_try_get_key(pinned, &keys[i], &warm, NULL), SF_OK);
        assert_true(warm.found == one.found && sf_bytes_eq(warm.bytes, one.bytes));
        found += one.found;
        sf_value_release(&one);
        sf_value_release(&warm);
        sf_value_release(&values[i]);
        sf_value_release(&values[i]); /* twice is harmless */
    }
    sf_snapshot_give_back(pinned);
    assert_int_equal(found, 120);
    sf_reader_free(r);
}

static void refresh_follows_the_pointer(void **state)
{
    struct world *w = *state;
    sf_reader *r;
    sf_snapshot *old;
    sf_snapshot_info info;
    bool changed = true;

    world_point_at_run(w, 0);
    r = world_open_reader(w);
    assert_string_equal(world_run_id(r), "run-000");
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, NULL), SF_OK);
    assert_false(changed);
    old = sf_reader_borrow(r, NULL);
    world_point_at_run(w, 2);
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, NULL), SF_OK);
    assert_true(changed);
    assert_string_equal(world_run_id(r), "run-002");
    sf_snapshot_get_info(old, &info);
    assert_string_equal(info.run_id, "run-000"); /* pinned */
    sf_reader_free(r);
    sf_snapshot_get_info(old, &info);
    assert_string_equal(info.run_id, "run-000"); /* also when the reader is gone */
    sf_snapshot_give_back(old);
}

static void a_named_manifest_is_served_for_good(void **state)
{
    struct world *w = *state;
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_reader *r;
    bool changed = true;
    char name[256], ref[400], key[300];

    world_manifest_name(0, name);
    snprintf(ref, sizeof(ref), "s3://bucket/golden/history-three-runs/%s", name);
    o.manifest_ref = ref;
    world_delete_object(w, "copy/_CURRENT"); /* nobody asks for it */
    assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_OK);
    assert_string_equal(world_run_id(r), "run-000");
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, &e), SF_OK);
    assert_false(changed);
    sf_reader_free(r);
    o.manifest_ref = "run_id=run-001";
    assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_OK);
    assert_string_equal(world_run_id(r), "run-001");
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, &e), SF_OK);
    assert_false(changed);
    sf_reader_free(r);
    for (size_t i = 0; i < 3; i++) {
        o.manifest_ref = (const char *const[]){"run_id=", "run_id=run-00", "run_id=run-0011"}[i];
        assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_NOT_FOUND);
        assert_non_null(strstr(e.message, o.manifest_ref));
    }
    o.manifest_ref = ref;
    snprintf(key, sizeof(key), "copy/%s", name);
    world_put_object(w, key, sf_bytes_str("no manifest"));
    assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_BAD_MANIFEST); /* no fallback */
    world_delete_object(w, key);
    assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_NOT_FOUND);
}

static void refresh_survives_a_bad_snapshot(void **state)
{
    struct world *w = *state;
    sf_reader *r;
    sf_reader_health health;
    bool changed = true;
    char name[256], key[300];

    world_point_at_run(w, 0);
    r = world_open_reader(w);
    world_manifest_name(2, name);
    snprintf(key, sizeof(key), "copy/%s", name);
    world_put_object(w, key, sf_bytes_str("no database"));
    world_point_at_run(w, 2);
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, NULL), SF_OK); /* malformed: stay, and say so */
    assert_false(changed);
    sf_reader_get_health(r, -1, SF_STALENESS_OF_READER, &health);
    assert_true(health.last_refresh_error[0] != '\0');
    world_delete_object(w, key);
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, NULL), SF_NOT_FOUND);
    world_delete_object(w, "copy/_CURRENT");
    assert_int_equal(sf_reader_refresh(r, 10000, &changed, NULL), SF_NO_CURRENT);
    assert_string_equal(world_run_id(r), "run-000");
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ caches --------------------------------------- */

static void get_all(sf_reader *r)
{
    for (int64_t i = 0; i < KEYS; i++) {
        sf_key key = sf_key_int(i);
        sf_value v;

        assert_int_equal(sf_reader_get(r, &key, 10000, &v, NULL), SF_OK);
        sf_value_release(&v);
    }
}

static void a_reader_may_have_a_cache_of_its_own(void **state)
{
    struct world *w = *state;
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_reader *own, *without, *sharing = world_open_reader(w);
    sf_cache_stats before, after, s;

    o.cache_bytes = 1 << 20;
    assert_int_equal(sf_reader_open(&own, w->rt, PREFIX, &o, NULL), SF_OK);
    o.cache_bytes = 0;
    assert_int_equal(sf_reader_open(&without, w->rt, PREFIX, &o, NULL), SF_OK);
    sf_reader_cache_stats(sharing, &before);
    assert_int_equal(before.max_bytes, UINT64_C(256) << 20);
    get_all(own);
    get_all(own);
    sf_reader_cache_stats(own, &s);
    assert_true(s.hits > 0 && s.bytes > 0);
    assert_int_equal(s.max_bytes, 1 << 20);
    get_all(without);
    sf_reader_cache_stats(without, &s);
    assert_int_equal(s.hits, 0);
    assert_int_equal(s.max_bytes, 0);
    sf_reader_cache_stats(sharing, &after);
    assert_int_equal(after.hits + after.misses + after.bytes, before.hits + before.misses + before.bytes);
    sf_reader_free(own);
    sf_reader_free(without);
    sf_reader_free(sharing);
}

static void a_reader_is_ready(void **state)
{
    static const struct {
        const char *name;
        sf_residency residency;
        uint64_t cache_bytes;
        sf_status status;
    } cases[] = {
        {"none", SF_RESIDENCY_NONE, SF_CACHE_SHARED, SF_OK},
        {"index", SF_RESIDENCY_INDEX, SF_CACHE_SHARED, SF_OK},
        {"memory", SF_RESIDENCY_MEMORY, SF_CACHE_SHARED, SF_OK},
        {"memory of its own", SF_RESIDENCY_MEMORY, 1 << 20, SF_OK},
        {"too little memory", SF_RESIDENCY_MEMORY, 1 << 10, SF_EXHAUSTED},
    };
    struct world *w = *state;

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        sf_reader_options o = SF_READER_OPTIONS_INIT;
        sf_error e = SF_ERROR_INIT;
        sf_runtime_stats before, after;
        uint64_t done, total;
        sf_reader *r;

        o.residency = cases[n].residency;
        o.cache_bytes = cases[n].cache_bytes;
        assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, &o, &e), SF_OK);
        if (sf_reader_ready(r, 10000, &e) != cases[n].status)
            fail_msg("%s: %s", cases[n].name, e.message);
        sf_reader_ready_bytes(r, &done, &total);
        assert_int_equal(sf_reader_ready(r, 10000, &e), cases[n].status); /* what is there is passed over, and counts */
        sf_reader_ready_bytes(r, &done, &total);
        assert_int_equal(done == total && total > 0, o.residency == SF_RESIDENCY_MEMORY && cases[n].status == SF_OK);
        assert_int_equal(done == total && total > 0, o.residency == SF_RESIDENCY_MEMORY && cases[n].status == SF_OK);
        sf_runtime_get_stats(w->rt, &before);
        get_all(r);
        sf_runtime_get_stats(w->rt, &after);
        if (o.residency == SF_RESIDENCY_MEMORY && cases[n].status == SF_OK)
            assert_int_equal(after.requests, before.requests);
        sf_reader_close(r);
        assert_int_equal(sf_reader_ready(r, 10000, &e), SF_STATE);
        sf_reader_free(r);
    }
}

/* ------------------------------------------------------------------ rejected manifests --------------------------- */

/* What happens to the manifest of a run before the call. */
enum damage { SOUND, MALFORMED, GONE };

static void damage_run(struct world *w, unsigned run, enum damage damage)
{
    char name[256], key[300];

    world_manifest_name(run, name);
    snprintf(key, sizeof(key), "copy/%s", name);
    if (damage == MALFORMED)
        world_put_object(w, key, sf_bytes_str("no database"));
    else if (damage == GONE)
        world_delete_object(w, key);
    if (damage == GONE) { /* its folder is still listed */
        snprintf(strrchr(key, '/'), sizeof("/other"), "/other");
        world_put_object(w, key, sf_bytes_str(""));
    }
}

struct told {
    unsigned run;
    sf_status code;
};

static void check_rejected(const char *name, sf_call *call, const struct told *told, size_t told_count)
{
    size_t n;
    const sf_rejected_manifest *rejected = sf_call_rejected_manifests(call, &n);

    if (n != told_count)
        fail_msg("%s: %zu manifests were rejected, not %zu", name, n, told_count);
    for (size_t i = 0; i < n; i++) {
        char run[32];

        snprintf(run, sizeof(run), "run_id=run-%03u/", told[i].run);
        if (!strstr(rejected[i].manifest_ref, run) || rejected[i].error.code != told[i].code ||
            !rejected[i].error.message[0])
            fail_msg("%s: %zu: %s: %s %s", name, i, rejected[i].manifest_ref, sf_status_name(rejected[i].error.code),
                     rejected[i].error.message);
    }
}

/* The pointer names run 2. Its location is not the one that is read from, so the listing brings it up once more. */
static const struct rejected_case {
    const char *name;
    enum damage runs[3];
    uint32_t max_fallbacks;
    sf_status open;
    struct told told[4];
    sf_status refresh; /* of a reader over run 0 */
    struct told told_then[1];
} rejected_cases[] = {
    {"all sound", {SOUND}, 3, SF_OK, {{0}}, SF_OK, {{0}}},
    {"the newest",
     {SOUND, SOUND, MALFORMED},
     3,
     SF_OK,
     {{2, SF_BAD_MANIFEST}, {2, SF_BAD_MANIFEST}},
     SF_OK,
     {{2, SF_BAD_MANIFEST}}},
    {"two",
     {SOUND, MALFORMED, MALFORMED},
     3,
     SF_OK,
     {{2, SF_BAD_MANIFEST}, {2, SF_BAD_MANIFEST}, {1, SF_BAD_MANIFEST}},
     SF_OK,
     {{2, SF_BAD_MANIFEST}}},
    {"no fallback", {SOUND, SOUND, MALFORMED}, 0, SF_BAD_MANIFEST, {{2, SF_BAD_MANIFEST}}, SF_OK, {{2, SF_BAD_MANIFEST}}},
    {"too few fallbacks",
     {SOUND, MALFORMED, MALFORMED},
     1,
     SF_NO_SNAPSHOT,
     {{2, SF_BAD_MANIFEST}, {2, SF_BAD_MANIFEST}, {1, SF_BAD_MANIFEST}},
     SF_OK,
     {{2, SF_BAD_MANIFEST}}},
    {"gone", {SOUND, SOUND, GONE}, 3, SF_NOT_FOUND, {{2, SF_NOT_FOUND}}, SF_NOT_FOUND, {{2, SF_NOT_FOUND}}},
    {"malformed, then gone",
     {SOUND, GONE, MALFORMED},
     3,
     SF_NOT_FOUND,
     {{2, SF_BAD_MANIFEST}, {2, SF_BAD_MANIFEST}, {1, SF_NOT_FOUND}},
     SF_OK,
     {{2, SF_BAD_MANIFEST}}},
};

static size_t told_count(const struct told *told, size_t max)
{
    size_t n = 0;

    while (n < max && told[n].code != SF_OK)
        n++;
    return n;
}

static void rejected_manifests_are_told(void **state)
{
    for (size_t i = 0; i < sizeof(rejected_cases) / sizeof(rejected_cases[0]); i++) {
        const struct rejected_case *c = &rejected_cases[i];
        sf_reader_options o = SF_READER_OPTIONS_INIT;
        struct world *w;
        sf_reader *r, *opened;
        sf_call *call;
        size_t n;

        assert_int_equal(world_set_up((void **)&w), 0);
        world_point_at_run(w, 0);
        r = world_open_reader(w);
        for (unsigned run = 0; run < 3; run++)
            damage_run(w, run, c->runs[run]);
        world_point_at_run(w, 2);
        o.max_fallbacks = c->max_fallbacks;
        assert_int_equal(sf_reader_open_start(&call, w->rt, PREFIX, &o, NULL, NULL, NULL), SF_OK);
        assert_int_equal(sf_call_wait(call, NULL), c->open);
        check_rejected(c->name, call, c->told, told_count(c->told, 4));
        if (c->open == SF_NO_SNAPSHOT) /* whoever sees only the message learns why the first is no good */
            assert_non_null(strstr(sf_call_error(call)->message, sf_call_rejected_manifests(call, &n)[0].error.message));
        opened = sf_call_take_reader(call);
        assert_int_equal(opened != NULL, c->open == SF_OK);
        sf_reader_free(opened);
        sf_call_release(call);
        assert_int_equal(sf_reader_refresh_start(&call, r, 10000, NULL, NULL, NULL), SF_OK);
        assert_int_equal(sf_call_wait(call, NULL), c->refresh);
        check_rejected(c->name, call, c->told_then, told_count(c->told_then, 1));
        sf_call_release(call);
        assert_int_equal(sf_reader_get_start(&call, r, &(sf_key){.type = SF_KEY_INT, .i = 1}, 10000, NULL, NULL, NULL),
                         SF_OK);
        assert_int_equal(sf_call_wait(call, NULL), SF_OK);
        check_rejected(c->name, call, NULL, 0); /* another kind of call */
        sf_call_release(call);
        sf_reader_free(r);
        world_tear_down((void **)&w);
    }
}

static void opening_names_what_is_wrong(void **state)
{
    static const struct {
        const char *pointer;
        sf_status expected;
        const char *text;
    } rows[] = {
        {NULL, SF_NO_CURRENT, "_CURRENT"},
        {"", SF_BAD_MANIFEST, "_CURRENT"},
        {"[]", SF_BAD_MANIFEST, "_CURRENT"},
        {"{\"format_version\":2}", SF_BAD_MANIFEST, "_CURRENT"},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_error e = SF_ERROR_INIT;
        sf_reader *r = NULL;

        if (rows[i].pointer)
            world_put_object(w, "copy/_CURRENT", sf_bytes_str(rows[i].pointer));
        else
            world_delete_object(w, "copy/_CURRENT");
        assert_int_equal(sf_reader_open(&r, w->rt, PREFIX, NULL, &e), rows[i].expected);
        assert_null(r);
        assert_non_null(strstr(e.message, rows[i].text));
        assert_non_null(strstr(e.object, PREFIX));
    }
}

static void stored_keys_are_keys_again(void **state)
{
    static const struct {
        const char *stored;
        size_t n;
        sf_status status;
        uint64_t key;
    } rows[] = {
        {"\0\0\0\0\0\0\0\x2a", 8, SF_OK, 42},
        {"\xff\xff\xff\xff\xff\xff\xff\xff", 8, SF_OK, UINT64_MAX},
        {"\0\0\0\x2a", 4, SF_INVALID_KEY, 0},
        {"", 0, SF_INVALID_KEY, 0},
    };
    sf_reader *r = world_open_reader(*state);
    sf_snapshot *s = sf_reader_borrow(r, NULL);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t scratch[8];
        sf_bytes again;
        sf_key key;

        assert_int_equal(sf_snapshot_decode_key(s, sf_bytes_of(rows[i].stored, rows[i].n), &key, NULL), rows[i].status);
        if (rows[i].status != SF_OK)
            continue;
        assert_int_equal(key.u, rows[i].key);
        assert_int_equal(sf_snapshot_encode_key(s, &key, scratch, &again, NULL), SF_OK);
        assert_int_equal(again.n, rows[i].n);
        assert_memory_equal(again.p, rows[i].stored, again.n);
    }
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

static void staleness_is_of_what_was_asked(void **state)
{
    struct world *w = *state;
    static const struct {
        sf_staleness_of of;
        int64_t staleness_ms;
        sf_health_status status;
    } rows[] = {{SF_STALENESS_OF_READER, -1, SF_HEALTHY},          {SF_STALENESS_OF_READER, 3600000, SF_HEALTHY},
                {SF_STALENESS_OF_SNAPSHOT, -1, SF_HEALTHY},        {SF_STALENESS_OF_SNAPSHOT, 3600000, SF_DEGRADED},
                {SF_STALENESS_OF_SNAPSHOT, INT64_MAX, SF_HEALTHY}, {SF_STALENESS_OF_REFRESH, 3600000, SF_HEALTHY}};
    sf_reader *r = world_open_reader(w);
    sf_reader_health h;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sf_reader_get_health(r, rows[i].staleness_ms, rows[i].of, &h);
        if (h.status != rows[i].status)
            fail_msg("row %zu: status %d", i, (int)h.status);
    }
    assert_true(h.snapshot_age_ms > h.age_ms && h.age_ms >= h.since_refresh_ms);
    sf_reader_free(r);
}

static void closed_readers_say_so(void **state)
{
    sf_reader *r = world_open_reader(*state);
    sf_snapshot *pinned = sf_reader_borrow(r, NULL);
    sf_key key = sf_key_int(1);
    sf_value value = {0};
    sf_reader_health health;
    sf_error e = SF_ERROR_INIT;
    uint32_t db_id;
    bool changed;

    sf_reader_close(r);
    sf_reader_close(r);
    assert_true(sf_reader_is_closed(r));
    assert_int_equal(sf_reader_get(r, &key, 1000, &value, &e), SF_STATE);
    assert_int_equal(sf_reader_try_get(r, &key, &value, NULL), SF_STATE);
    assert_int_equal(sf_reader_refresh(r, 1000, &changed, NULL), SF_STATE);
    assert_null(sf_reader_borrow(r, NULL));
    sf_reader_get_health(r, -1, SF_STALENESS_OF_READER, &health);
    assert_true(health.closed);
    assert_int_equal(health.status, SF_UNHEALTHY);
    assert_int_equal(sf_snapshot_route(pinned, &key, &db_id, NULL), SF_OK);
    sf_snapshot_give_back(pinned);
    sf_reader_free(r);
}

struct cancelled_opening {
    struct world *w;
    sf_call *call;
};

/* On the loop thread, so that the opening cannot have got on when it is called back. */
static void open_and_cancel(void *arg)
{
    struct cancelled_opening *o = arg;

    if (sf_reader_open_start(&o->call, o->w->rt, PREFIX, NULL, NULL, NULL, NULL) != SF_OK)
        return;
    sf_call_cancel(o->call);
    sf_call_cancel(o->call);
}

static void cancelling_and_deadlines_end_calls(void **state)
{
    struct world *w = *state;
    sf_reader *r;
    struct cancelled_opening opening = {.w = w};
    sf_key key = sf_key_int(7);
    sf_value value = {0};
    sf_error e = SF_ERROR_INIT;

    on_loop(w->rt->loop, open_and_cancel, &opening);
    assert_int_equal(sf_call_wait(opening.call, &e), SF_CANCELLED);
    assert_null(sf_call_take_reader(opening.call));
    sf_call_release(opening.call);
    r = world_open_reader(w);
    for (int64_t i = 0; i < KEYS; i++) {
        key = sf_key_int(i);
        if (sf_reader_try_get(r, &key, &value, NULL) == SF_WOULD_BLOCK)
            break;
        sf_value_release(&value);
    }
    if (sf_reader_try_get(r, &key, &value, NULL) == SF_WOULD_BLOCK) {
        assert_int_equal(sf_reader_get(r, &key, 0, &value, NULL), SF_TIMEOUT);
        assert_int_equal(sf_reader_get(r, &key, 20000, &value, NULL), SF_OK);
    }
    sf_value_release(&value);
    sf_reader_free(r);
}

static void scans_in_key_order(void **state)
{
    sf_reader *r = world_open_reader(*state);
    sf_snapshot *s = sf_reader_borrow(r, NULL);

    for (int reverse = 0; reverse < 2; reverse++) {
        sf_scan_options o = SF_SCAN_OPTIONS_INIT;
        sf_scan *scan = NULL;
        const sf_row *rows;
        uint8_t last[8];
        size_t count, total = 0;

        o.reverse = reverse;
        assert_int_equal(sf_scan_open(&scan, s, &o, NULL), SF_OK);
        do {
            assert_int_equal(sf_scan_next(scan, 7, 10000, &rows, &count, NULL), SF_OK);
            assert_true(count <= 7);
            for (size_t i = 0; i < count; i++, total++) {
                int c = total > 0 ? memcmp(rows[i].key.p, last, 8) : 0;

                assert_int_equal(rows[i].key.n, 8);
                assert_true(total == 0 || (reverse ? c < 0 : c > 0));
                memcpy(last, rows[i].key.p, 8);
            }
        } while (count > 0);
        assert_int_equal(total, 120);
        sf_scan_close(scan);
    }
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

static void a_forked_child_is_told(void **state)
{
    sf_reader *r = world_open_reader(*state);
    sf_key key = sf_key_int(1);
    sf_value value = {0};
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        sf_status rc = sf_reader_get(r, &key, 1000, &value, NULL);

        _exit(rc == SF_FORKED ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(sf_reader_get(r, &key, 10000, &value, NULL), SF_OK);
    sf_value_release(&value);
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

struct hammer {
    sf_reader *r;
    atomic_bool stop;
    atomic_uint wrong, right;
};

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;

    for (int64_t i = 0; !atomic_load(&h->stop); i = (i + 1) % KEYS) {
        sf_key key = sf_key_int(i);
        sf_value value = {0};

        if (sf_reader_get(h->r, &key, 20000, &value, NULL) == SF_OK)
            atomic_fetch_add(&h->right, 1);
        else
            atomic_fetch_add(&h->wrong, 1);
        sf_value_release(&value);
    }
    return NULL;
}

static void refreshes_under_readers(void **state)
{
    struct world *w = *state;
    struct hammer h = {.r = world_open_reader(w)};
    pthread_t threads[3];
    bool changed;

    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer_run, &h), 0);
    for (unsigned i = 0; i < 12; i++) {
        world_point_at_run(w, i % 3);
        assert_int_equal(sf_reader_refresh(h.r, 20000, &changed, NULL), SF_OK);
        assert_true(changed || i == 0);
    }
    atomic_store(&h.stop, true);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(h.wrong, 0);
    assert_true(h.right > 0);
    sf_reader_free(h.r);
}

/* ------------------------------------------------------------------ memory that runs out ------------------------- */

/* Two keys of the snapshot that is served now, and one that no run has. */
static void find_keys(struct world *w, sf_key keys[static 3])
{
    sf_reader *r = world_open_reader(w);
    size_t n = 0;

    for (unsigned i = 0; i < KEYS && n < 2; i++) {
        sf_value v = {0};

        keys[n] = sf_key_int(i);
        assert_int_equal(sf_reader_get(r, &keys[n], 10000, &v, NULL), SF_OK);
        n += v.found;
        sf_value_release(&v);
    }
    assert_int_equal(n, 2);
    keys[2] = sf_key_int(KEYS);
    sf_reader_free(r);
}

static void live_with_failing_allocations(struct world *w)
{
    struct test_heap heap; /* of a runtime of its own: the objects are another's */
    unsigned failures = 0;
    bool fired = true;
    sf_key keys[3];

    find_keys(w, keys);
    heap_init(&heap);
    for (long n = 0; fired; n += n < 400 ? 1 : 7) {
        sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
        sf_runtime *rt = NULL;
        sf_reader *r = NULL;
        sf_error e = SF_ERROR_INIT;
        sf_value values[3] = {0};
        bool changed;
        sf_status rc;

        heap_arm(&heap, n);
        o.allocator = &heap.alloc;
        rc = sf_runtime_new(&rt, &o, &e);
        if (rc == SF_OK)
            rc = sf_reader_open(&r, rt, PREFIX, NULL, &e);
        if (rc == SF_OK)
            rc = sf_reader_multi_get(r, keys, 3, 10000, values, &e);
        if (rc == SF_OK) {
            assert_true(values[0].found && values[1].found && !values[2].found);
            rc = sf_reader_refresh(r, 10000, &changed, &e);
        }
        if (rc != SF_OK && (rc != SF_NOMEM || !heap.fired))
            fail_msg("allocation %ld: %s: %s", n, sf_status_name(rc), e.message);
        failures += rc == SF_NOMEM;
        for (size_t i = 0; i < 3; i++)
            sf_value_release(&values[i]);
        sf_reader_free(r);
        sf_runtime_release(rt);
        assert_int_equal(heap_settle(&heap, 0), 0);
        fired = heap_disarm(&heap);
        assert_true(n < 20000);
    }
    assert_true(failures > 50);
}

/* The world's runtime keeps the objects in memory. First over sound manifests, then by falling back over two. */
static void any_failed_allocation_is_survived(void **state)
{
    live_with_failing_allocations(*state);
    damage_run(*state, 2, MALFORMED);
    damage_run(*state, 1, MALFORMED);
    live_with_failing_allocations(*state);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(looks_up_in_every_form),
        TEST(refresh_follows_the_pointer),
        TEST(refresh_survives_a_bad_snapshot),
        cmocka_unit_test(rejected_manifests_are_told),
        TEST(a_named_manifest_is_served_for_good),
        TEST(opening_names_what_is_wrong),
        TEST(stored_keys_are_keys_again),
        TEST(staleness_is_of_what_was_asked),
        TEST(a_reader_may_have_a_cache_of_its_own),
        TEST(a_reader_is_ready),
        TEST(closed_readers_say_so),
        TEST(cancelling_and_deadlines_end_calls),
        TEST(scans_in_key_order),
        TEST(a_forked_child_is_told),
        TEST(refreshes_under_readers),
        TEST(any_failed_allocation_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
