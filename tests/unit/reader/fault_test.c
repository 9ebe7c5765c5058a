/* A reader's whole life under faults: opening, look-ups, a scan, refreshes that move, stay and are overtaken by the
 * closing. The n-th allocation, then the n-th request of either store fails, until everything passes. A reader whose
 * refresh failed goes on as it was; nothing leaks, nothing hangs, no value is wrong. */
#include "../net/on_loop.h"

#include <dirent.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "fault_store.h"
#include "reader/load.h"
#include "reader/reader.h"

#define CASE SF_FIXTURES_DIR "/snapshots/history-three-runs"
#define PREFIX "mem://reader-fault-test/copy"
#define PUBLISHED "s3://bucket/golden/history-three-runs"
#define PATIENCE_MS 30000

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct heap {
    sf_allocator alloc;
    atomic_long live;
    atomic_long until_failure; /* < 0: never */
    atomic_bool fired;
};

struct world {
    struct heap heap;
    sf_runtime *rt;
    sf_bucket *bucket;
    sf_source *source;
    fault_store *stores[2]; /* by sf_source_kind; the source holds them */
    sf_status fault;        /* what may come out of it */
    bool failed;            /* something did */
    char runs[3][256];      /* manifest references */
};

static void *heap_realloc(void *ctx, void *p, size_t n)
{
    struct heap *h = ctx;
    void *q;

    if (atomic_load(&h->until_failure) >= 0 && atomic_fetch_sub(&h->until_failure, 1) == 0) {
        atomic_store(&h->fired, true);
        return NULL;
    }
    q = realloc(p, n);
    if (q && !p)
        atomic_fetch_add(&h->live, 1);
    return q;
}

static void heap_free(void *ctx, void *p)
{
    atomic_fetch_sub(&((struct heap *)ctx)->live, 1);
    free(p);
}

static void put_file(struct world *w, const char *path, const char *key)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *bytes;
    size_t n;

    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &st), 0);
    bytes = malloc((size_t)st.st_size + 1);
    n = fread(bytes, 1, (size_t)st.st_size, f);
    fclose(f);
    assert_int_equal(sf_bucket_put(w->bucket, key, (sf_bytes){bytes, n}, NULL, PATIENCE_MS, NULL, NULL), SF_OK);
    free(bytes);
}

static void put_folder(struct world *w, const char *path, const char *key)
{
    DIR *d = opendir(path);
    struct dirent *entry;

    assert_non_null(d);
    while ((entry = readdir(d))) {
        char below[1024], name[1024];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
        snprintf(name, sizeof(name), "%s/%s", key, entry->d_name);
        assert_int_equal(stat(below, &st), 0);
        if (S_ISDIR(st.st_mode))
            put_folder(w, below, name);
        else
            put_file(w, below, name);
    }
    closedir(d);
}

static void find_runs(struct world *w)
{
    DIR *d = opendir(CASE "/bucket/golden/history-three-runs/manifests");
    struct dirent *entry;

    assert_non_null(d);
    while ((entry = readdir(d))) {
        const char *run = strstr(entry->d_name, "_run_id=run-00");

        if (run)
            snprintf(w->runs[run[14] - '0'], sizeof(w->runs[0]), PUBLISHED "/manifests/%.150s/manifest", entry->d_name);
    }
    closedir(d);
}

/* Not under faults: the bucket has a store of its own. */
static void point_at(struct world *w, unsigned run)
{
    char text[1024];
    long until = atomic_exchange(&w->heap.until_failure, -1);

    snprintf(text, sizeof(text),
             "{\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":\"%s\",\"run_id\":\"x\",\"updated_at\":"
             "\"2026-01-01T00:00:00Z\"}", w->runs[run]);
    assert_int_equal(sf_bucket_put(w->bucket, "copy/_CURRENT", (sf_bytes){(const uint8_t *)text, strlen(text)}, NULL,
                                   PATIENCE_MS, NULL, NULL), SF_OK);
    atomic_store(&w->heap.until_failure, until);
}

static void wrap_stores(void *arg)
{
    struct world *w = arg;

    for (size_t i = 0; i < w->source->store_count; i++) {
        struct source_store *s = &w->source->stores[i];
        fault_store *f = fault_store_new(s->store);

        fault_store_reset(f);
        w->stores[s->kind] = f;
        sf__store_release(s->store);
        s->store = &f->base;
    }
    w->source->store = &w->stores[SF_SOURCE_MANIFESTS]->base;
}

static void open_shard_store(void *arg)
{
    struct world *w = arg;
    sf_store *store;
    char *path;

    if (sf__source_store(w->source, SF_SOURCE_SHARDS, PREFIX, &store, &path, NULL) != SF_OK)
        abort();
    sf__free(w->rt->alloc, path);
}

static void begin(struct world *w, sf_status fault)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;

    *w = (struct world){.fault = fault};
    w->heap.alloc = (sf_allocator){sizeof(sf_allocator), heap_realloc, heap_free, &w->heap};
    atomic_init(&w->heap.until_failure, -1);
    o.allocator = &w->heap.alloc;
    o.cache_bytes = 0; /* so that look-ups ask the store, every time */
    assert_int_equal(sf_runtime_new(&w->rt, &o, NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&w->bucket, w->rt, PREFIX, NULL, NULL), SF_OK);
    put_folder(w, CASE "/bucket/golden/history-three-runs", "copy");
    find_runs(w);
    point_at(w, 0);
    assert_int_equal(sf__source_new(&w->source, w->rt, PREFIX, NULL, NULL), SF_OK);
    on_loop(w->rt->loop, open_shard_store, w);
    on_loop(w->rt->loop, wrap_stores, w);
}

static void end(struct world *w)
{
    atomic_store(&w->heap.until_failure, -1);
    sf__source_release(w->source);
    sf_bucket_close(w->bucket);
    sf_runtime_release(w->rt);
    for (unsigned i = 0; atomic_load(&w->heap.live) != 0 && i < 10000000; i++)
        sched_yield(); /* the loop thread may have held the last reference, and goes on its own */
    if (atomic_load(&w->heap.live) != 0)
        fail_msg("%ld allocations are left", atomic_load(&w->heap.live));
}

/* ------------------------------------------------------------------ one life ------------------------------------- */

static bool went_well(struct world *w, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if (rc != w->fault || e->message[0] == '\0')
        fail_msg("%s: %s: %s", what, sf_status_name(rc), e->message);
    w->failed = true;
    return false;
}

struct loading {
    struct world *w;
    sf_load load;
    struct gate gate;
};

static void loaded(sf_load *l)
{
    gate_arrive(&((struct loading *)l->ctx)->gate);
}

static void load_on_loop(void *arg)
{
    struct loading *l = arg;

    l->load = (sf_load){.source = l->w->source, .deadline_ns = SF_NO_DEADLINE, .done = loaded, .ctx = l};
    if (!sf__load_start(&l->load)) {
        sf_fail(&l->load.error, SF_NOMEM, "start of a load");
        gate_arrive(&l->gate);
    }
}

static sf_reader *open_reader(struct world *w)
{
    struct loading l = {.w = w, .gate = GATE_INIT};
    sf_reader *r = NULL;

    on_loop(w->rt->loop, load_on_loop, &l);
    gate_wait(&l.gate, 1);
    if (went_well(w, "load", l.load.error.code, &l.load.error)) {
        sf_error e = SF_ERROR_INIT;

        went_well(w, "reader", sf__reader_new(&r, w->rt, w->source, l.load.snapshot, l.load.fallback, &e), &e);
    } else {
        assert_null(l.load.snapshot);
    }
    return r;
}

/* Of the three runs: key -> value begins with the run's name. */
static void check_gets(struct world *w, sf_reader *r, const char *run)
{
    sf_key keys[40];
    sf_value values[40] = {0};
    sf_error e = SF_ERROR_INIT;
    unsigned found = 0;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    if (went_well(w, "multi_get", sf_reader_multi_get(r, keys, 40, PATIENCE_MS, values, &e), &e)) {
        for (unsigned i = 0; i < 40; i++) {
            found += values[i].found;
            if (values[i].found && (values[i].bytes.n < 4 || memcmp(values[i].bytes.p, run, 4) != 0))
                fail_msg("key %u: a value of another run than %s", i, run);
        }
        assert_true(found > 0);
    }
    for (unsigned i = 0; i < 40; i++)
        sf_value_release(&values[i]);
}

static void check_scan(struct world *w, sf_reader *r, const char *run)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows = NULL;
    size_t count = 0;

    assert_non_null(s);
    o.limit = 20;
    if (went_well(w, "scan_open", sf_scan_open(&scan, s, &o, &e), &e)) {
        do {
            count = 0;
            if (!went_well(w, "scan_next", sf_scan_next(scan, 8, PATIENCE_MS, &rows, &count, &e), &e))
                break;
            for (size_t i = 0; i < count; i++)
                assert_true(rows[i].value.n >= 4 && memcmp(rows[i].value.p, run, 4) == 0);
        } while (count > 0);
        sf_scan_close(scan);
    }
    sf_snapshot_give_back(s);
}

/* The run that the reader serves afterwards: a failed refresh changes nothing. */
static unsigned check_refresh(struct world *w, sf_reader *r, unsigned before, unsigned wanted)
{
    bool changed = false;
    sf_error e = SF_ERROR_INIT;

    point_at(w, wanted);
    if (!went_well(w, "refresh", sf_reader_refresh(r, PATIENCE_MS, &changed, &e), &e)) {
        assert_false(changed);
        return before;
    }
    assert_int_equal(changed, before != wanted);
    return wanted;
}

/* Closing does not wait for what is in flight, and what is in flight ends. */
static void close_under_fire(struct world *w, sf_reader *r)
{
    sf_call *calls[3] = {NULL};
    sf_key key = sf_key_int(4);
    sf_error e = SF_ERROR_INIT;

    point_at(w, 0);
    went_well(w, "start", sf_reader_refresh_start(&calls[0], r, PATIENCE_MS, NULL, NULL, &e), &e);
    went_well(w, "start", sf_reader_get_start(&calls[1], r, &key, PATIENCE_MS, NULL, NULL, &e), &e);
    went_well(w, "start", sf_reader_refresh_start(&calls[2], r, PATIENCE_MS, NULL, NULL, &e), &e);
    sf_reader_free(r);
    if (calls[2])
        sf_call_cancel(calls[2]);
    for (unsigned i = 0; i < 3; i++) {
        sf_status rc = calls[i] ? sf_call_wait(calls[i], &e) : SF_OK;

        if (rc != SF_STATE && rc != SF_CANCELLED)
            went_well(w, "call in flight", rc, &e);
        sf_call_release(calls[i]);
    }
}

static void live(struct world *w)
{
    static const char *const runs[] = {"run0", "run1", "run2"};
    sf_reader *r = open_reader(w);
    unsigned run = 0;

    if (!r)
        return;
    check_gets(w, r, runs[run]);
    check_scan(w, r, runs[run]);
    run = check_refresh(w, r, run, 2);
    check_gets(w, r, runs[run]);
    run = check_refresh(w, r, run, run);
    run = check_refresh(w, r, run, 1);
    check_scan(w, r, runs[run]);
    close_under_fire(w, r);
}

/* ------------------------------------------------------------------ faults --------------------------------------- */

static void every_failed_allocation_is_survived(void **state)
{
    bool fired = true;
    unsigned failures = 0;

    for (long n = 0; fired; n += n < 200 ? 1 : 1 + n / 64) {
        struct world w;

        begin(&w, SF_NOMEM);
        atomic_store(&w.heap.until_failure, n);
        live(&w);
        fired = atomic_load(&w.heap.fired);
        failures += w.failed;
        if (!fired)
            assert_false(w.failed);
        end(&w);
        assert_true(n < 100000);
    }
    assert_true(failures > 50);
}

static void every_failed_request_is_survived(void **state)
{
    for (int kind = 0; kind < 2; kind++) {
        bool fired = true;
        unsigned failures = 0;
        unsigned long n;

        for (n = 1; fired; n++) {
            struct world w;

            begin(&w, SF_UNAVAILABLE);
            w.stores[kind]->kind = FAULT_REFUSE;
            w.stores[kind]->status = SF_UNAVAILABLE;
            w.stores[kind]->at = n;
            live(&w);
            fired = w.stores[kind]->fired;
            failures += w.failed;
            if (!fired)
                assert_false(w.failed);
            end(&w);
            assert_true(n < 1000);
        }
        assert_true(failures > 3);
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
