/* What a full scan does to the look-ups of another reader of the same runtime, from local files.
 *     scan_beside FOLDER [SECONDS]       publishes two snapshots of 1,000,000 rows of 100 bytes below FOLDER
 * when missing Slices of 200 ms in turn: nothing beside, one and two threads that only compute (what the
 * processors alone explain), a scan over all shards of the other snapshot, which keeps about two threads
 * busy. Prints the latency of `get` by each, for keys that memory has and for ones that it has not. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shardyfusion/writer.h>

#define SHARDS 8
#define VALUE_BYTES 100
#define ROWS 1000000
#define HOT 1000
#define SLICE_NS UINT64_C(200000000)
#define PAUSE_NS 50000 /* between two gets: a service, not a stress test */
#define MAX_SAMPLES (1u << 20)

enum beside { NOTHING, ONE_COMPUTES, TWO_COMPUTE, SCANNING, BESIDES };
static const char *const beside_names[] = {"nothing", "one computing thread", "two of them", "a scan"};

struct samples {
    uint32_t *ns;
    size_t count;
};

struct disturber {
    sf_snapshot *snap;
    atomic_int mode;
    atomic_bool stop;
    uint64_t rows, scanned_ns;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const sf_error *err)
{
    fprintf(stderr, "%s: %s: %s\n", what, sf_status_name(err->code), err->message);
    exit(1);
}

static void publish(sf_runtime *rt, const char *prefix)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    uint8_t value[VALUE_BYTES];
    sf_writer *w;
    sf_status rc;

    o.num_dbs = SHARDS;
    rc = sf_writer_open(&w, rt, prefix, &o, &err);
    memset(value, '.', sizeof(value));
    for (int64_t i = 0; i < ROWS && rc == SF_OK; i++) {
        sf_key key = sf_key_int(i);

        memcpy(value, &i, sizeof(i));
        rc = sf_writer_add(w, &key, (sf_bytes){value, sizeof(value)}, &err);
    }
    if (rc == SF_OK)
        rc = sf_writer_finish(w, &err);
    sf_writer_free(w);
    if (rc != SF_OK)
        die("publish", &err);
}

static sf_reader *open_below(sf_runtime *rt, const char *folder, const char *name)
{
    char prefix[4000], current[4096];
    sf_error err = SF_ERROR_INIT;
    sf_reader *r;

    snprintf(prefix, sizeof(prefix), "%s/%s", folder, name);
    snprintf(current, sizeof(current), "%s/_CURRENT", prefix);
    if (access(current, R_OK) != 0)
        publish(rt, prefix);
    if (sf_reader_open(&r, rt, prefix, NULL, &err) != SF_OK)
        die("open", &err);
    return r;
}

/* ------------------------------------------------------------------ beside ---------------------------------------- */

static void scan_a_while(struct disturber *d)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    const sf_row *rows;
    size_t count;
    sf_scan *scan;
    uint64_t start = now_ns();

    if (sf_scan_open(&scan, d->snap, &o, &err) != SF_OK)
        die("scan", &err);
    while (atomic_load(&d->mode) == SCANNING) {
        if (sf_scan_next(scan, 1000, SF_TIMEOUT_NONE, &rows, &count, &err) != SF_OK)
            die("scan", &err);
        if (count == 0)
            break;
        d->rows += count;
    }
    sf_scan_close(scan);
    d->scanned_ns += now_ns() - start;
}

static void *disturb(void *arg)
{
    struct disturber *d = arg;

    while (!atomic_load(&d->stop)) {
        switch (atomic_load(&d->mode)) {
        case NOTHING:
            usleep(200);
            break;
        case ONE_COMPUTES:
        case TWO_COMPUTE:
            while (atomic_load(&d->mode) == ONE_COMPUTES || atomic_load(&d->mode) == TWO_COMPUTE)
                ;
            break;
        case SCANNING:
            scan_a_while(d);
            break;
        }
    }
    return NULL;
}

/* The second of two. */
static void *compute(void *arg)
{
    struct disturber *d = arg;

    while (!atomic_load(&d->stop))
        if (atomic_load(&d->mode) != TWO_COMPUTE)
            usleep(200);
    return NULL;
}

/* ------------------------------------------------------------------ look-ups -------------------------------------- */

/* Of keys in an order that visits blocks far apart. */
static int64_t key_at(uint64_t n)
{
    return (int64_t)(n * UINT64_C(2654435761) % ROWS);
}

static void get(sf_reader *r, int64_t n, struct samples *out)
{
    sf_error err = SF_ERROR_INIT;
    sf_key key = sf_key_int(n);
    sf_value v = {0};
    uint64_t start = now_ns();

    if (sf_reader_get(r, &key, SF_TIMEOUT_NONE, &v, &err) != SF_OK || !v.found)
        die("get", &err);
    if (out && out->count < MAX_SAMPLES)
        out->ns[out->count++] = (uint32_t)(now_ns() - start);
    sf_value_release(&v);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double percentile(const struct samples *s, double share)
{
    return s->count ? s->ns[(size_t)((double)(s->count - 1) * share)] / 1e3 : 0;
}

static void measure(const char *folder, bool warm, double seconds)
{
    struct samples samples[BESIDES];
    struct disturber d = {0};
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    sf_reader *scanned, *asked;
    sf_runtime *rt;
    pthread_t thread, second;
    uint64_t end, n = 0;
    unsigned slice = 0;

    o.cache_bytes = warm ? o.cache_bytes : 1 << 20; /* less than there are blocks: each key is read anew */
    if (sf_runtime_new(&rt, &o, &err) != SF_OK)
        die("runtime", &err);
    scanned = open_below(rt, folder, "scanned");
    asked = open_below(rt, folder, "asked");
    d.snap = sf_reader_borrow(scanned, NULL);
    for (unsigned i = 0; i < BESIDES; i++)
        samples[i] = (struct samples){.ns = calloc(MAX_SAMPLES, sizeof(uint32_t))};
    for (unsigned i = 0; warm && i < HOT; i++)
        get(asked, key_at(i), NULL);
    if (pthread_create(&thread, NULL, disturb, &d) != 0 || pthread_create(&second, NULL, compute, &d) != 0)
        exit(1);
    end = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) {
        enum beside b = slice++ % BESIDES;
        uint64_t slice_end;

        atomic_store(&d.mode, b);
        usleep(20000);
        slice_end = now_ns() + SLICE_NS;
        while (now_ns() < slice_end) {
            get(asked, key_at(warm ? n % HOT : n), &samples[b]);
            n++;
            usleep(PAUSE_NS / 1000);
        }
        atomic_store(&d.mode, NOTHING);
    }
    atomic_store(&d.stop, true);
    pthread_join(thread, NULL);
    pthread_join(second, NULL);
    for (unsigned i = 0; i < BESIDES; i++) {
        qsort(samples[i].ns, samples[i].count, sizeof(uint32_t), by_value);
        printf("%s get beside %-20s: p50 %8.1f us, p90 %8.1f, p99 %8.1f us, p99.9 %8.1f us (%zu gets)\n",
               warm ? "warm" : "cold", beside_names[i], percentile(&samples[i], 0.5), percentile(&samples[i], 0.9),
               percentile(&samples[i], 0.99), percentile(&samples[i], 0.999), samples[i].count);
        free(samples[i].ns);
    }
    printf("the scan: %.2f million rows/s\n", d.scanned_ns ? (double)d.rows / (double)d.scanned_ns * 1e3 : 0);
    sf_snapshot_give_back(d.snap);
    sf_reader_free(scanned);
    sf_reader_free(asked);
    sf_runtime_release(rt);
}

int main(int argc, char **argv)
{
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 10;

    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [SECONDS]\n", argv[0]);
        return 2;
    }
    measure(argv[1], true, seconds);
    measure(argv[1], false, seconds);
    return 0;
}
