/* What a look-up costs in C, without network: warm try_get, one thread and several; a warm batch; a scan. Or, without a cache,
 * what one costs that has to read: single ones, and batches.
 *     read_path FOLDER [ROWS [WHAT]]   default: 1,000,000 rows of 100 bytes in 8 shards, published there when missing
 *     WHAT                             warm (default), cold-get, cold-multi_get
 * Prints one line a measurement: the best of five rounds. CPU time of the calling thread is what another machine, or a busy
 * one, can compare with. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shardyfusion/writer.h>

#define SHARDS 8
#define VALUE_BYTES 100
#define HOT 10000
#define ROUNDS 5
#define MAX_THREADS 16

static double clock_of(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

static sf_status publish(sf_runtime *rt, const char *prefix, int64_t rows, sf_error *err)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    uint8_t value[VALUE_BYTES];
    sf_writer *w;
    sf_status rc;

    o.num_dbs = SHARDS;
    rc = sf_writer_open(&w, rt, prefix, &o, err);
    memset(value, '.', sizeof(value));
    for (int64_t i = 0; i < rows && rc == SF_OK; i++) {
        sf_key key = sf_key_int(i);

        memcpy(value, &i, sizeof(i));
        rc = sf_writer_add(w, &key, (sf_bytes){value, sizeof(value)}, err);
    }
    if (rc == SF_OK)
        rc = sf_writer_finish(w, err);
    sf_writer_free(w);
    return rc;
}

struct hammer {
    sf_reader *reader;
    const sf_key *keys;
    unsigned passes;
    uint64_t wrong;
    double cpu;
};

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;
    double start = clock_of(CLOCK_THREAD_CPUTIME_ID);

    for (unsigned pass = 0; pass < h->passes; pass++)
        for (size_t i = 0; i < HOT; i++) {
            sf_value v = {0};

            if (sf_reader_try_get(h->reader, &h->keys[i], &v, NULL) != SF_OK || !v.found)
                h->wrong++;
            sf_value_release(&v);
        }
    h->cpu = clock_of(CLOCK_THREAD_CPUTIME_ID) - start;
    return NULL;
}

static void measure_try_get(sf_reader *r, const sf_key *keys, unsigned threads)
{
    struct hammer hammers[MAX_THREADS];
    pthread_t ids[MAX_THREADS];
    double best = 1e9, cpu = 1e9;
    uint64_t wrong = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        double start = seconds(), each;

        for (unsigned i = 0; i < threads; i++) {
            hammers[i] = (struct hammer){r, keys, 50, 0, 0};
            if (pthread_create(&ids[i], NULL, hammer_run, &hammers[i]) != 0)
                exit(1);
        }
        for (unsigned i = 0; i < threads; i++) {
            pthread_join(ids[i], NULL);
            wrong += hammers[i].wrong;
            cpu = hammers[i].cpu < cpu ? hammers[i].cpu : cpu;
        }
        each = (seconds() - start) / (50.0 * HOT);
        best = each < best ? each : best;
    }
    printf("try_get, warm, %u threads: %6.0f ns a look-up and thread (%4.0f ns of CPU), %" PRIu64 " wrong\n", threads,
           best * 1e9, cpu / (50.0 * HOT) * 1e9, wrong);
}

static void measure_multi_get(sf_reader *r, const sf_key *keys, size_t count)
{
    sf_value *values = calloc(count, sizeof(*values));
    double best = 1e9;

    for (unsigned round = 0; values && round < ROUNDS; round++) {
        double start = seconds(), each;

        for (unsigned pass = 0; pass < 20; pass++) {
            if (sf_reader_multi_get(r, keys, count, SF_TIMEOUT_NONE, values, NULL) != SF_OK)
                exit(1);
            for (size_t i = 0; i < count; i++)
                sf_value_release(&values[i]);
        }
        each = (seconds() - start) / (20.0 * (double)count);
        best = each < best ? each : best;
    }
    printf("multi_get, warm, %5zu keys: %6.0f ns a key\n", count, best * 1e9);
    free(values);
}

static void measure_scan(sf_reader *r)
{
    sf_snapshot *s = sf_reader_borrow(r, NULL);
    double best = 1e9;
    uint64_t rows_seen = 0;

    for (unsigned round = 0; round < 2; round++) {
        sf_scan_options o = SF_SCAN_OPTIONS_INIT;
        const sf_row *rows;
        size_t count;
        sf_scan *scan;
        double start = seconds(), each;

        rows_seen = 0;
        if (sf_scan_open(&scan, s, &o, NULL) != SF_OK)
            exit(1);
        while (sf_scan_next(scan, 4096, SF_TIMEOUT_NONE, &rows, &count, NULL) == SF_OK && count > 0)
            rows_seen += count;
        sf_scan_close(scan);
        each = (seconds() - start) / (double)rows_seen;
        best = each < best ? each : best;
    }
    printf("scan of all shards, merged: %6.0f ns a row, %" PRIu64 " rows\n", best * 1e9, rows_seen);
    sf_snapshot_give_back(s);
}

static double process_cpu(void)
{
    return clock_of(CLOCK_PROCESS_CPUTIME_ID);
}

/* Batches of `count` keys out of those there are, 20,000 look-ups a round. */
static void measure_cold(sf_reader *r, const sf_key *keys, size_t count)
{
    sf_value *values = calloc(count, sizeof(*values));
    double best = 1e9, cpu = 1e9;

    for (unsigned round = 0; values && round < ROUNDS; round++) {
        double start = seconds(), begun = process_cpu(), each;

        for (size_t at = 0; at < 2 * HOT; at += count) {
            if (sf_reader_multi_get(r, keys + at % HOT, count, SF_TIMEOUT_NONE, values, NULL) != SF_OK)
                exit(1);
            for (size_t i = 0; i < count; i++)
                sf_value_release(&values[i]);
        }
        each = (process_cpu() - begun) / (2.0 * HOT);
        cpu = each < cpu ? each : cpu;
        each = (seconds() - start) / (2.0 * HOT);
        best = each < best ? each : best;
    }
    printf("cold, batches of %5zu keys: %6.2f us a key (%.2f us of CPU, all threads)\n", count, best * 1e6, cpu * 1e6);
    free(values);
}

int main(int argc, char **argv)
{
    int64_t rows = argc > 2 ? strtoll(argv[2], NULL, 10) : 1000000;
    const char *what = argc > 3 ? argv[3] : "warm";
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    static sf_key keys[HOT];
    sf_error err = SF_ERROR_INIT;
    sf_reader *r = NULL;
    char current[4096];
    sf_runtime *rt;
    double start;

    if (strncmp(what, "cold", 4) == 0)
        o.cache_bytes = 0;
    if (argc < 2 || sf_runtime_new(&rt, &o, &err) != SF_OK) {
        fprintf(stderr, "usage: %s FOLDER [ROWS [WHAT]]\n%s\n", argv[0], err.message);
        return 2;
    }
    snprintf(current, sizeof(current), "%s/_CURRENT", argv[1]);
    if (access(current, R_OK) != 0 && publish(rt, argv[1], rows, &err) != SF_OK)
        goto fail;
    start = seconds();
    if (sf_reader_open(&r, rt, argv[1], NULL, &err) != SF_OK)
        goto fail;
    printf("open: %.1f ms\n", (seconds() - start) * 1e3);
    for (size_t i = 0; i < HOT; i++) { /* spread over all rows: nearly every key in a block of its own */
        sf_value v = {0};

        keys[i] = sf_key_int((int64_t)((i * UINT64_C(2654435761)) % (uint64_t)rows));
        if (sf_reader_get(r, &keys[i], SF_TIMEOUT_NONE, &v, &err) != SF_OK)
            goto fail;
        sf_value_release(&v);
    }
    if (strcmp(what, "cold-get") == 0) {
        measure_cold(r, keys, 1);
    } else if (strcmp(what, "cold-multi_get") == 0) {
        measure_cold(r, keys, 100);
        measure_cold(r, keys, 1000);
    } else {
        measure_try_get(r, keys, 1);
        measure_try_get(r, keys, 2);
        measure_try_get(r, keys, 4);
        measure_multi_get(r, keys, 1);
        measure_multi_get(r, keys, 100);
        measure_multi_get(r, keys, HOT);
        measure_scan(r);
    }
    sf_reader_free(r);
    sf_runtime_release(rt);
    return 0;
fail:
    fprintf(stderr, "%s: %s\n", sf_status_name(err.code), err.message);
    sf_reader_free(r);
    sf_runtime_release(rt);
    return 1;
}
