/* Readers of every backend that are switched from snapshot to snapshot while eight threads read them: what a read tells is
 * of one snapshot, and a rightful one. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "shardyfusion/shard_opener.h"
#include "shardyfusion/writer.h"

#define THREADS 8u
#define SWITCHES 200u
#define KEYS 64u
#define SHARDS 2u
#define BATCH 8u
#define ROUNDS 4u /* of a thread between two switches: then it waits for the next one, which needs the processor, too */
#define WAIT_MS 60000

/* ------------------------------------------------------------------ shards of the caller's ------------------------- */

/* A shard is the name of its run. */
static void open_shard(void *ctx, const sf_shard_to_open *what, sf_shard_request *q)
{
    (void)ctx;
    sf_shard_request_opened(q, strstr(what->url, "run_id=a/") ? "a" : "b");
}

static void get_many(void *shard, const sf_bytes *keys, size_t count, sf_shard_request *q)
{
    for (size_t i = 0; i < count; i++) {
        char value[32];
        int n =
            snprintf(value, sizeof(value), "%s%llu", (const char *)shard, (unsigned long long)sf_load_be(keys[i].p, 8));

        sf_shard_request_value(q, i, sf_bytes_of(value, (size_t)n));
    }
    sf_shard_request_done(q);
}

static void close_shard(void *shard)
{
    (void)shard;
}

static const sf_shard_opener opener = {
    .size = sizeof(sf_shard_opener), .open = open_shard, .get_many = get_many, .close = close_shard};

/* ------------------------------------------------------------------ the readers ------------------------------------- */

static const struct backend {
    const char *name;
    sf_backend backend;
    sf_sqlite_mode mode;
    bool lazy, foreign;
} backends[] = {
    {"slatedb", SF_BACKEND_SLATEDB, SF_SQLITE_AUTO, false, false},
    {"slatedb, lazy", SF_BACKEND_SLATEDB, SF_SQLITE_AUTO, true, false},
    {"sqlite, copies", SF_BACKEND_SQLITE, SF_SQLITE_DOWNLOAD, false, false},
    {"sqlite, ranges", SF_BACKEND_SQLITE, SF_SQLITE_RANGE, false, false},
    {"the caller's", SF_BACKEND_SLATEDB, SF_SQLITE_AUTO, false, true},
};
#define BACKENDS (sizeof(backends) / sizeof(backends[0]))

struct world {
    sf_runtime *rt;
    char folder[64];
    struct site {
        const struct backend *backend;
        char prefix[64], *refs[2];
        sf_reader *reader;
    } sites[BACKENDS];
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned switches; /* under the lock */
    atomic_uint begun;
};

static void publish(struct world *w, struct site *site, unsigned run)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    const char *run_id = run == 0 ? "a" : "b";
    sf_error err = SF_ERROR_INIT;
    sf_writer *writer;

    o.run_id = run_id;
    o.num_dbs = SHARDS;
    o.backend = site->backend->backend;
    o.spill_folder = w->folder;
    o.threads = 1;
    assert_int_equal(sf_writer_open(&writer, w->rt, site->prefix, &o, &err), SF_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        char value[32];
        sf_key key = sf_key_int(i);
        int n = snprintf(value, sizeof(value), "%s%u", run_id, i);

        assert_int_equal(sf_writer_add(writer, &key, sf_bytes_of(value, (size_t)n), &err), SF_OK);
    }
    if (sf_writer_finish(writer, &err) != SF_OK)
        fail_msg("%s: %s", site->backend->name, err.message);
    site->refs[run] = strdup(sf_writer_report(writer)->manifest_ref);
    sf_writer_free(writer);
}

static void open_site(struct world *w, struct site *site, const struct backend *backend)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;

    site->backend = backend;
    snprintf(site->prefix, sizeof(site->prefix), "mem://switch/site-%zu", (size_t)(backend - backends));
    for (unsigned run = 0; run < 2; run++)
        publish(w, site, run);
    o.sqlite_folder = w->folder;
    o.sqlite_mode = backend->mode;
    o.lazy_shards = backend->lazy;
    o.shard_opener = backend->foreign ? &opener : NULL;
    if (sf_reader_open(&site->reader, w->rt, site->prefix, &o, &err) != SF_OK)
        fail_msg("%s: %s", backend->name, err.message);
}

/* ------------------------------------------------------------------ reading ------------------------------------------ */

/* cmocka's own checks are for the main thread. */
static void must(bool held, const struct site *site, const char *what, const sf_error *err)
{
    if (held)
        return;
    fprintf(stderr, "%s: %s: %s\n", site->backend->name, what, err->message);
    abort();
}

/* Which run the value of this key is of. */
static char run_of(sf_bytes value, unsigned key)
{
    char wanted[32];
    int n = snprintf(wanted, sizeof(wanted), "%u", key);

    if (value.n != (size_t)n + 1 || memcmp(value.p + 1, wanted, (size_t)n) != 0 ||
        (value.p[0] != 'a' && value.p[0] != 'b'))
        return '?';
    return (char)value.p[0];
}

static void read_one(const struct site *site, unsigned k)
{
    sf_error err = SF_ERROR_INIT;
    sf_key key = sf_key_int(k);
    sf_value value = {0};
    sf_status rc = sf_reader_try_get(site->reader, &key, &value, &err);

    must(rc == SF_OK || rc == SF_WOULD_BLOCK, site, "try_get", &err);
    if (rc == SF_WOULD_BLOCK)
        must(sf_reader_get(site->reader, &key, WAIT_MS, &value, &err) == SF_OK, site, "get", &err);
    must(value.found && run_of(value.bytes, k) != '?', site, "the value of get", &err);
    sf_value_release(&value);
}

static void read_batch(const struct site *site, unsigned from)
{
    sf_error err = SF_ERROR_INIT;
    sf_key keys[BATCH];
    sf_value values[BATCH] = {{0}};

    for (unsigned i = 0; i < BATCH; i++)
        keys[i] = sf_key_int((from + i) % KEYS);
    must(sf_reader_multi_get(site->reader, keys, BATCH, WAIT_MS, values, &err) == SF_OK, site, "multi_get", &err);
    for (unsigned i = 0; i < BATCH; i++) {
        char run = values[i].found ? run_of(values[i].bytes, (from + i) % KEYS) : '?';

        must(run != '?' && (char)values[0].bytes.p[0] == run, site, "a batch of one snapshot", &err);
    }
    for (unsigned i = 0; i < BATCH; i++)
        sf_value_release(&values[i]);
}

static void read_rows(const struct site *site)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    sf_snapshot *snapshot = sf_reader_borrow(site->reader, &err);
    sf_snapshot_info info;
    sf_scan *scan = NULL;
    const sf_row *rows;
    size_t count, seen = 0;

    must(snapshot != NULL, site, "borrow", &err);
    sf_snapshot_get_info(snapshot, &info);
    o.limit = KEYS / 2;
    must(sf_scan_open(&scan, snapshot, &o, &err) == SF_OK, site, "scan", &err);
    for (;;) {
        must(sf_scan_next(scan, 10, WAIT_MS, &rows, &count, &err) == SF_OK, site, "rows", &err);
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++)
            must(run_of(rows[i].value, (unsigned)seen++) == info.run_id[0], site, "rows of the snapshot", &err);
    }
    must(seen == KEYS / 2, site, "all rows", &err);
    sf_scan_close(scan);
    sf_snapshot_give_back(snapshot);
}

/* Returns at the next switch; false after the last one. */
static bool wait_for_a_switch(struct world *w, unsigned *seen)
{
    pthread_mutex_lock(&w->lock);
    while (w->switches == *seen)
        pthread_cond_wait(&w->moved, &w->lock);
    *seen = w->switches;
    pthread_mutex_unlock(&w->lock);
    return *seen < SWITCHES;
}

static void *read_all(void *ctx)
{
    struct world *w = ctx;
    unsigned n = atomic_fetch_add(&w->begun, 1), seen = 0; /* each begins elsewhere */

    do {
        for (unsigned i = 0; i < ROUNDS; i++, n++) {
            const struct site *site = &w->sites[n % BACKENDS];

            read_one(site, n % KEYS);
            if (n % 3 == 0)
                read_batch(site, n % KEYS);
            if (n % 7 == 0 && !site->backend->foreign)
                read_rows(site);
        }
    } while (wait_for_a_switch(w, &seen));
    return NULL;
}

/* A look-up has its snapshot until the engine's thread has put it away, a moment after its answer. */
static void settle(sf_runtime *rt)
{
    sf_error err = SF_ERROR_INIT;
    sf_call *call;

    assert_int_equal(sf_runtime_settle_start(&call, rt, NULL, NULL, &err), SF_OK);
    assert_int_equal(sf_call_wait(call, &err), SF_OK);
    sf_call_release(call);
}

/* ------------------------------------------------------------------ switching ---------------------------------------- */

static void threads_and_a_refresher_of_every_backend(void **state)
{
    struct world w = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};
    sf_error err = SF_ERROR_INIT;
    pthread_t threads[THREADS];

    (void)state;
    strcpy(w.folder, "/tmp/sf-switch-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    assert_int_equal(sf_runtime_new(&w.rt, NULL, &err), SF_OK);
    for (size_t i = 0; i < BACKENDS; i++)
        open_site(&w, &w.sites[i], &backends[i]);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &w), 0);
    for (unsigned n = 0; n < SWITCHES; n++) {
        struct site *site = &w.sites[n % BACKENDS];
        sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
        bool changed = false;

        o.force = true;
        must(sf_rollback(w.rt, site->prefix, site->refs[n / BACKENDS % 2], &o, &err) == SF_OK, site, "rollback", &err);
        must(sf_reader_refresh(site->reader, WAIT_MS, &changed, &err) == SF_OK && changed, site, "refresh", &err);
        pthread_mutex_lock(&w.lock);
        w.switches++;
        pthread_cond_broadcast(&w.moved);
        pthread_mutex_unlock(&w.lock);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    settle(w.rt);
    for (size_t i = 0; i < BACKENDS; i++) {
        sf_reader_health health;

        sf_reader_get_health(w.sites[i].reader, -1, SF_STALENESS_OF_READER, &health);
        assert_int_equal(health.borrowed, 0);
        sf_reader_free(w.sites[i].reader);
        free(w.sites[i].refs[0]);
        free(w.sites[i].refs[1]);
    }
    sf_runtime_release(w.rt);
    char command[96];
    snprintf(command, sizeof(command), "rm -r %s", w.folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_and_a_refresher_of_every_backend)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
