/* A reader's whole life under faults: opening, look-ups, a scan, refreshes that move, stay and are overtaken by the
 * closing. The n-th allocation, then the n-th request of either store fails, until everything passes. A reader whose
 * refresh failed goes on as it was; nothing leaks, nothing hangs, no value is wrong. The same with eight threads that
 * read while one refreshes, and faults that never stop. */
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

static void begin_with_cache(struct world *w, sf_status fault, uint64_t cache_bytes)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;

    *w = (struct world){.fault = fault};
    w->heap.alloc = (sf_allocator){sizeof(sf_allocator), heap_realloc, heap_free, &w->heap};
    atomic_init(&w->heap.until_failure, -1);
    o.allocator = &w->heap.alloc;
    o.cache_bytes = cache_bytes;
    assert_int_equal(sf_runtime_new(&w->rt, &o, NULL), SF_OK);
    assert_int_equal(sf_bucket_open(&w->bucket, w->rt, PREFIX, NULL, NULL), SF_OK);
    put_folder(w, CASE "/bucket/golden/history-three-runs", "copy");
    find_runs(w);
    point_at(w, 0);
    assert_int_equal(sf__source_new(&w->source, w->rt, PREFIX, NULL, NULL), SF_OK);
    on_loop(w->rt->loop, open_shard_store, w);
    on_loop(w->rt->loop, wrap_stores, w);
}

static void begin(struct world *w, sf_status fault)
{
    begin_with_cache(w, fault, 0); /* so that look-ups ask the store, every time */
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

/* ------------------------------------------------------------------ calls whose answer does not come -------------- */

enum held_call { HELD_GET, HELD_MULTI_GET, HELD_SCAN, HELD_REFRESH, HELD_CALLS };

struct holding {
    struct world w;
    fault_store *store;
    fault_kind kind;
    sf_cancel_flag held;
};

static void set_fault(void *arg)
{
    struct holding *h = arg;

    h->store->kind = h->kind;
    h->store->status = SF_UNAVAILABLE;
    h->store->at = h->store->requests + 1;
    h->store->on_hold = &h->held;
}

static void plan_fault(struct holding *h, sf_source_kind which, fault_kind kind)
{
    h->store = h->w.stores[which];
    h->kind = kind;
    atomic_store(&h->held, false);
    on_loop(h->w.rt->loop, set_fault, h);
}

static void wait_until_held(struct holding *h)
{
    while (!atomic_load(&h->held))
        sched_yield(); /* until the test's own timeout: the request is on its way */
}

static sf_call *start_held(struct holding *h, enum held_call which, sf_reader *r, sf_scan *scan, int64_t timeout_ms)
{
    sf_key keys[40];
    sf_call *call = NULL;
    sf_status rc;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    plan_fault(h, which == HELD_REFRESH ? SF_SOURCE_MANIFESTS : SF_SOURCE_SHARDS, FAULT_HOLD);
    switch (which) {
    case HELD_GET:       rc = sf_reader_get_start(&call, r, &keys[4], timeout_ms, NULL, NULL, NULL); break;
    case HELD_MULTI_GET: rc = sf_reader_multi_get_start(&call, r, keys, 40, timeout_ms, NULL, NULL, NULL); break;
    case HELD_SCAN:      rc = sf_scan_next_start(&call, scan, 8, timeout_ms, NULL, NULL, NULL); break;
    default:             rc = sf_reader_refresh_start(&call, r, timeout_ms, NULL, NULL, NULL); break;
    }
    assert_int_equal(rc, SF_OK);
    return call;
}

static void expect_end(sf_call *call, sf_status expected)
{
    sf_error e = SF_ERROR_INIT;

    assert_int_equal(sf_call_wait(call, &e), expected);
    assert_true(e.message[0] != '\0');
    sf_call_release(call);
}

static void held_calls_end_when_told_and_in_time(void **state)
{
    for (int which = 0; which < HELD_CALLS; which++) {
        for (int cancelled = 0; cancelled < 2; cancelled++) {
            struct holding h = {.store = NULL};
            sf_scan_options o = SF_SCAN_OPTIONS_INIT;
            sf_snapshot *pinned;
            sf_scan *scan = NULL;
            sf_reader *r;
            sf_call *call;

            begin(&h.w, SF_OK);
            r = open_reader(&h.w);
            pinned = sf_reader_borrow(r, NULL);
            assert_int_equal(sf_scan_open(&scan, pinned, &o, NULL), SF_OK);
            call = start_held(&h, which, r, scan, cancelled ? PATIENCE_MS : 30);
            if (cancelled) {
                wait_until_held(&h);
                assert_false(sf_call_is_done(call));
                if (which == HELD_SCAN) { /* one step at a time */
                    sf_call *second = NULL;

                    assert_int_equal(sf_scan_next_start(&second, scan, 8, PATIENCE_MS, NULL, NULL, NULL), SF_STATE);
                }
                sf_call_cancel(call);
            }
            expect_end(call, cancelled ? SF_CANCELLED : SF_TIMEOUT);
            sf_scan_close(scan); /* until then, what a step asked for may yet serve the next one */
            sf_snapshot_give_back(pinned);
            plan_fault(&h, SF_SOURCE_SHARDS, FAULT_NONE);
            check_gets(&h.w, r, "run0"); /* as if nothing had happened */
            sf_reader_free(r);
            end(&h.w);
        }
    }
}

/* Refreshes run one after the other: those that wait for their turn end without it. */
static void refreshes_that_wait_for_another_end(void **state)
{
    struct holding h = {.store = NULL};
    sf_call *calls[4] = {NULL};
    sf_reader *r;
    bool changed;

    begin(&h.w, SF_OK);
    r = open_reader(&h.w);
    calls[0] = start_held(&h, HELD_REFRESH, r, NULL, PATIENCE_MS);
    wait_until_held(&h);
    plan_fault(&h, SF_SOURCE_MANIFESTS, FAULT_NONE);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(sf_reader_refresh_start(&calls[i], r, i == 1 ? 20 : PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    expect_end(calls[1], SF_TIMEOUT);
    sf_call_cancel(calls[2]);
    expect_end(calls[2], SF_CANCELLED);
    point_at(&h.w, 2);
    assert_false(sf_call_is_done(calls[3]));
    sf_call_cancel(calls[0]);
    expect_end(calls[0], SF_CANCELLED);
    assert_int_equal(sf_call_wait(calls[3], NULL), SF_OK); /* its turn has come */
    assert_true(sf_call_changed(calls[3]));
    sf_call_release(calls[3]);
    check_gets(&h.w, r, "run2");
    assert_int_equal(sf_reader_refresh(r, PATIENCE_MS, &changed, NULL), SF_OK);
    assert_false(changed);
    sf_reader_free(r);
    end(&h.w);
}

/* One request of a look-up in many shards fails: which keys have no answer, and why, is told. */
static void failures_are_told_by_key_and_by_shard(void **state)
{
    struct holding h = {.store = NULL};
    sf_error e = SF_ERROR_INIT;
    sf_key keys[40];
    sf_call *call = NULL;
    const sf_status *statuses;
    const sf_error *errors;
    size_t count, error_count, failed = 0;
    sf_snapshot *s;
    sf_reader *r;

    for (unsigned i = 0; i < 40; i++)
        keys[i] = sf_key_int(i);
    begin(&h.w, SF_OK);
    r = open_reader(&h.w);
    s = sf_reader_borrow(r, NULL);
    plan_fault(&h, SF_SOURCE_SHARDS, FAULT_REFUSE);
    assert_int_equal(sf_reader_multi_get_start(&call, r, keys, 40, PATIENCE_MS, NULL, NULL, NULL), SF_OK);
    assert_int_equal(sf_call_wait(call, &e), SF_UNAVAILABLE);
    statuses = sf_call_statuses(call);
    errors = sf_call_shard_errors(call, &error_count);
    assert_non_null(sf_call_values(call, &count));
    assert_int_equal(count, 40);
    assert_int_equal(error_count, 1);
    assert_int_equal(errors[0].code, SF_UNAVAILABLE);
    for (unsigned i = 0; i < 40; i++) {
        uint32_t db_id;

        assert_int_equal(sf_snapshot_route(s, &keys[i], &db_id, NULL), SF_OK);
        assert_true(statuses[i] == SF_OK || (statuses[i] == SF_UNAVAILABLE && (int32_t)db_id == errors[0].db_id));
        failed += statuses[i] != SF_OK;
    }
    assert_true(failed > 0 && failed < 40);
    sf_call_release(call);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
    end(&h.w);
}

/* ------------------------------------------------------------------ threads under faults ------------------------- */

#define SIEGE_KEYS 120
#define SIEGE_BATCH 12
#define SIEGE_THREADS 8
#define SIEGE_SWITCHES 200

struct siege {
    struct world w; /* here, and so on no stack that a failed test leaves */
    sf_reader *r;
    bool cached;
    sf_value rows[3][SIEGE_KEYS]; /* what each run answers; not changed while threads run */
    atomic_bool over;
    atomic_uint right, faulted, wrong;
    char first_wrong[512]; /* whoever made `wrong` 1; read after the threads have gone */
    unsigned seed;         /* of the faults */
};

struct besieger {
    pthread_t thread;
    struct siege *s;
    unsigned number;
};

/* No assertions here: cmocka leaves a failed one by longjmp, which ends on another thread's stack. */
static void siege_wrong(struct siege *s, const char *what, sf_status rc, const char *message)
{
    if (atomic_fetch_add(&s->wrong, 1) == 0)
        snprintf(s->first_wrong, sizeof(s->first_wrong), "%s: %s: %.300s", what, sf_status_name(rc), message);
}

/* True when there is a result to look at. What faults may cause is counted; anything else is wrong. */
static bool siege_went_well(struct siege *s, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if ((rc == SF_UNAVAILABLE || rc == SF_CORRUPT || rc == SF_IO) && e->message[0] != '\0')
        atomic_fetch_add(&s->faulted, 1);
    else
        siege_wrong(s, what, rc, e->message);
    return false;
}

static bool same_value(const sf_value *a, const sf_value *b)
{
    return a->found == b->found && a->bytes.n == b->bytes.n &&
           (a->bytes.n == 0 || memcmp(a->bytes.p, b->bytes.p, a->bytes.n) == 0);
}

/* One snapshot answers a whole batch. */
static void siege_check(struct siege *s, const char *what, const sf_key *keys, const sf_value *values, size_t count)
{
    for (unsigned run = 0; run < 3; run++) {
        size_t i = 0;

        while (i < count && same_value(&values[i], &s->rows[run][keys[i].i]))
            i++;
        if (i == count) {
            atomic_fetch_add(&s->right, 1);
            return;
        }
    }
    siege_wrong(s, what, SF_OK, "values of no run, or of several");
}

static void siege_multi_get(struct siege *s, const sf_key *keys)
{
    sf_value values[SIEGE_BATCH] = {0};
    sf_error e = SF_ERROR_INIT;

    if (siege_went_well(s, "multi_get", sf_reader_multi_get(s->r, keys, SIEGE_BATCH, PATIENCE_MS, values, &e), &e))
        siege_check(s, "multi_get", keys, values, SIEGE_BATCH);
    for (size_t i = 0; i < SIEGE_BATCH; i++)
        sf_value_release(&values[i]);
}

static void siege_get(struct siege *s, const sf_key *keys)
{
    sf_value value = {0};
    sf_error e = SF_ERROR_INIT;

    if (siege_went_well(s, "get", sf_reader_get(s->r, keys, PATIENCE_MS, &value, &e), &e))
        siege_check(s, "get", keys, &value, 1);
    sf_value_release(&value);
}

/* A pinned snapshot answers as it was, wherever the reader has gone. */
static void siege_pinned(struct siege *s, const sf_key *keys)
{
    sf_snapshot *pinned = sf_reader_borrow(s->r, NULL);
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;

    if (siege_went_well(s, "pinned", sf_snapshot_multi_get_start(&call, pinned, keys, SIEGE_BATCH, PATIENCE_MS, NULL,
                                                                 NULL, &e), &e)) {
        if (siege_went_well(s, "pinned", sf_call_wait(call, &e), &e)) {
            size_t count = 0;
            const sf_value *values = sf_call_values(call, &count);

            siege_check(s, "pinned", keys, values, count);
        }
        sf_call_release(call);
    }
    sf_snapshot_give_back(pinned);
}

static void siege_scan(struct siege *s)
{
    sf_snapshot *pinned = sf_reader_borrow(s->r, NULL);
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    const sf_row *rows = NULL;
    size_t count = 0;
    char run[4];

    o.limit = 30;
    if (siege_went_well(s, "scan", sf_scan_open(&scan, pinned, &o, &e), &e)) {
        bool first = true, good = true;

        while (siege_went_well(s, "scan", sf_scan_next(scan, 8, PATIENCE_MS, &rows, &count, &e), &e) && count > 0) {
            for (size_t i = 0; i < count; i++) {
                good &= rows[i].value.n >= 4 && memcmp(rows[i].value.p, first ? "run" : run, first ? 3 : 4) == 0;
                if (first && good)
                    memcpy(run, rows[i].value.p, 4);
                first = false;
            }
        }
        if (!good)
            siege_wrong(s, "scan", SF_OK, "values of several runs");
        sf_scan_close(scan);
    }
    sf_snapshot_give_back(pinned);
}

static void *besiege(void *arg)
{
    struct besieger *b = arg;
    unsigned random = b->number + 1;

    for (unsigned turn = b->number; !atomic_load(&b->s->over); turn++) {
        sf_key keys[SIEGE_BATCH];

        for (size_t i = 0; i < SIEGE_BATCH; i++)
            keys[i] = sf_key_int(rand_r(&random) % SIEGE_KEYS);
        switch (turn % 4) {
        case 0: siege_multi_get(b->s, keys); break;
        case 1: siege_get(b->s, keys); break;
        case 2: siege_pinned(b->s, keys); break;
        default: siege_scan(b->s); break;
        }
    }
    return NULL;
}

/* On the loop thread, where the stores read it: the next fault of each. */
static void siege_plan(void *arg)
{
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE, FAULT_SHORT, FAULT_BREAK, FAULT_NONE, FAULT_REORDER};
    struct siege *s = arg;
    /* out of order only where there is always a later request: pointer and manifests have none but the refresh's */
    unsigned of_shards = s->cached ? 5 : 6;

    for (int i = 0; i < 2; i++) {
        fault_store *f = s->w.stores[i];

        f->kind = kinds[(unsigned)rand_r(&s->seed) % (i == SF_SOURCE_SHARDS ? of_shards : 5)];
        f->status = SF_UNAVAILABLE;
        f->at = f->requests + 1 + (unsigned)rand_r(&s->seed) % 6;
        f->times = 1 + (unsigned)rand_r(&s->seed) % 3;
    }
}

static void siege_plan_nothing(void *arg)
{
    struct siege *s = arg;

    for (int i = 0; i < 2; i++)
        s->w.stores[i]->kind = FAULT_NONE;
}

/* No fault is planned: it must work. */
static void siege_move(struct siege *s, unsigned run)
{
    bool changed;
    sf_error e = SF_ERROR_INIT;

    point_at(&s->w, run);
    if (sf_reader_refresh(s->r, PATIENCE_MS, &changed, &e) != SF_OK)
        fail_msg("refresh to run %u: %s", run, e.message);
}

static void siege_learn(struct siege *s)
{
    sf_key keys[SIEGE_KEYS];
    unsigned found = 0;

    for (unsigned i = 0; i < SIEGE_KEYS; i++)
        keys[i] = sf_key_int(i);
    for (unsigned run = 0; run < 3; run++) {
        siege_move(s, run);
        assert_int_equal(sf_reader_multi_get(s->r, keys, SIEGE_KEYS, PATIENCE_MS, s->rows[run], NULL), SF_OK);
        for (unsigned i = 0; i < SIEGE_KEYS; i++) {
            const sf_value *v = &s->rows[run][i];

            found += v->found;
            assert_true(!v->found || (v->bytes.n >= 4 && v->bytes.p[3] == '0' + run));
        }
    }
    assert_true(found > SIEGE_KEYS);
}

/* Refreshes, most of which some fault meets, until the reader has moved so many times. */
static void siege_refresh(struct siege *s)
{
    unsigned switches = 0, refused = 0;

    while (switches < SIEGE_SWITCHES && atomic_load(&s->wrong) == 0) {
        bool changed = false;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        on_loop(s->w.rt->loop, siege_plan, s);
        point_at(&s->w, (switches + 1) % 3);
        rc = sf_reader_refresh(s->r, PATIENCE_MS, &changed, &e);
        if (rc != SF_BAD_MANIFEST) /* a pointer that was cut short */
            siege_went_well(s, "refresh", rc, &e);
        switches += changed;
        refused += !changed;
        assert_true(refused < 20 * SIEGE_SWITCHES);
    }
    assert_true(refused > 0 || atomic_load(&s->wrong) > 0);
}

/* What is alive when the reader serves run 0, and nobody asks it anything. */
static bool siege_comes_to_rest(struct siege *s, long live)
{
    for (unsigned i = 0; atomic_load(&s->w.heap.live) != live && i < 10000000; i++)
        sched_yield();
    return atomic_load(&s->w.heap.live) == live;
}

static void nothing(void *arg)
{
}

static void lay_siege(uint64_t cache_bytes)
{
    struct besieger besiegers[SIEGE_THREADS];
    struct siege *s = calloc(1, sizeof(*s));
    sf_reader_health health;
    long live;

    assert_non_null(s);
    begin_with_cache(&s->w, SF_OK, cache_bytes);
    s->cached = cache_bytes > 0;
    s->seed = 1;
    s->r = open_reader(&s->w);
    siege_learn(s);
    siege_move(s, 0);
    on_loop(s->w.rt->loop, nothing, NULL); /* what was posted to it before is done */
    live = atomic_load(&s->w.heap.live);
    for (unsigned i = 0; i < SIEGE_THREADS; i++) {
        besiegers[i] = (struct besieger){.s = s, .number = i};
        assert_int_equal(pthread_create(&besiegers[i].thread, NULL, besiege, &besiegers[i]), 0);
    }
    siege_refresh(s);
    on_loop(s->w.rt->loop, siege_plan_nothing, s);
    for (unsigned i = 0; i < 3; i++)
        siege_move(s, i); /* whose requests end what waits for later ones */
    atomic_store(&s->over, true);
    for (unsigned i = 0; i < SIEGE_THREADS; i++)
        pthread_join(besiegers[i].thread, NULL);
    if (atomic_load(&s->wrong) > 0)
        fail_msg("%u times wrong, first %s", atomic_load(&s->wrong), s->first_wrong);
    assert_true(atomic_load(&s->right) > SIEGE_SWITCHES);
    assert_true(atomic_load(&s->faulted) > 0);
    siege_move(s, 0);
    on_loop(s->w.rt->loop, nothing, NULL);
    sf_reader_get_health(s->r, -1, &health);
    assert_int_equal(health.borrowed, 0);
    /* every old snapshot is closed: not one allocation more than before; a cache keeps what it likes */
    if (cache_bytes == 0 && !siege_comes_to_rest(s, live))
        fail_msg("%ld allocations before, %ld after", live, atomic_load(&s->w.heap.live));
    for (unsigned run = 0; run < 3; run++)
        for (unsigned i = 0; i < SIEGE_KEYS; i++)
            sf_value_release(&s->rows[run][i]);
    sf_reader_free(s->r);
    end(&s->w);
    free(s);
}

static void threads_and_a_refresher_under_faults(void **state)
{
    lay_siege(0);
}

static void threads_and_a_refresher_over_a_small_cache(void **state)
{
    lay_siege(UINT64_C(1) << 16); /* hits, misses and evictions */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_calls_end_when_told_and_in_time),
        cmocka_unit_test(refreshes_that_wait_for_another_end),
        cmocka_unit_test(failures_are_told_by_key_and_by_shard),
        cmocka_unit_test(threads_and_a_refresher_under_faults),
        cmocka_unit_test(threads_and_a_refresher_over_a_small_cache),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(every_failed_request_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
