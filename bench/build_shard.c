/* How fast one shard is built out of rows in random order, next to the least that any builder has to do: sort the
 * rows and write their bytes. Called by write_snapshot.py; prints one line of JSON.
 *
 *     build_shard plain|sort|shard ROWS MEMORY_BYTES FOLDER [codec]
 * Rows: 8 key bytes (random, all different in practice) and 92 value bytes, made outside of the measured time one block
 * at a time, so that making them takes no memory. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "backend/slatedb/shard_writer.h"
#include "base/clock.h"
#include "site/location.h"
#include "writer/sorter.h"

#define KEY_BYTES 8u
#define VALUE_BYTES 92u
#define ROW_BYTES (KEY_BYTES + VALUE_BYTES)
#define BLOCK_ROWS 10000u

static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void make_rows(uint8_t *out, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++, out += ROW_BYTES) {
        uint64_t v = mix(first + i);

        sf_store_be(out, KEY_BYTES, v);
        for (size_t at = KEY_BYTES; at < ROW_BYTES; at += 4) { /* shrinks to about a half */
            v = v * 6364136223846793005u + 1442695040888963407u;
            sf_store_be(out + at, 4, v >> 48 | (v >> 60) << 24);
        }
    }
}

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static void ok(sf_status rc, const sf_error *e)
{
    must(rc == SF_OK, e->message);
}

/* Wall clock and processor time, of all threads, while it runs. */
struct watch {
    double wall_s, cpu_s;
    uint64_t wall_start, cpu_start;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void watch_start(struct watch *w)
{
    w->cpu_start = cpu_ns();
    w->wall_start = sf__clock_mono_ns();
}

static void watch_stop(struct watch *w)
{
    w->wall_s += (double)(sf__clock_mono_ns() - w->wall_start) / 1e9;
    w->cpu_s += (double)(cpu_ns() - w->cpu_start) / 1e9;
}

/* ------------------------------------------------------------------ the least ------------------------------------ */

static int by_key(const void *a, const void *b)
{
    return memcmp(*(const uint8_t *const *)a, *(const uint8_t *const *)b, KEY_BYTES);
}

/* Copies the rows, as anybody must who takes them from a caller; sorts pointers; writes in order. */
static void plain(uint64_t rows, const char *folder, struct watch *w)
{
    uint8_t *all = malloc(rows * ROW_BYTES), *block = malloc(BLOCK_ROWS * ROW_BYTES);
    const uint8_t **order = malloc(rows * sizeof(*order));
    char name[4096];
    FILE *f;

    must(all && block && order, "malloc");
    for (uint64_t i = 0; i < rows; i += BLOCK_ROWS) {
        make_rows(block, i, BLOCK_ROWS);
        watch_start(w);
        memcpy(all + i * ROW_BYTES, block, BLOCK_ROWS * ROW_BYTES);
        watch_stop(w);
    }
    watch_start(w);
    for (uint64_t i = 0; i < rows; i++)
        order[i] = all + i * ROW_BYTES;
    qsort(order, rows, sizeof(*order), by_key);
    snprintf(name, sizeof(name), "%s/plain", folder);
    f = fopen(name, "wb");
    must(f && setvbuf(f, NULL, _IOFBF, 1 << 20) == 0, "fopen");
    for (uint64_t i = 0; i < rows; i++)
        must(fwrite(order[i], ROW_BYTES, 1, f) == 1, "fwrite");
    must(fflush(f) == 0 && fsync(fileno(f)) == 0 && fclose(f) == 0, "fclose");
    watch_stop(w);
    unlink(name);
}

/* ------------------------------------------------------------------ ours ----------------------------------------- */

static sf_sorter *sort_rows(uint64_t rows, uint64_t memory, const char *folder, struct watch *w)
{
    sf_sorter_options o = SF_SORTER_OPTIONS_INIT;
    uint8_t *block = malloc(BLOCK_ROWS * ROW_BYTES);
    sf_sorter *s = NULL;
    sf_error e = SF_ERROR_INIT;

    must(block != NULL, "malloc");
    o.memory_bytes = memory;
    o.spill_folder = folder;
    ok(sf__sorter_new(&s, &o, &sf__allocator_default, &e), &e);
    for (uint64_t i = 0; i < rows; i += BLOCK_ROWS) {
        make_rows(block, i, BLOCK_ROWS);
        watch_start(w);
        for (size_t k = 0; k < BLOCK_ROWS; k++)
            ok(sf__sorter_add(s, 0, sf_bytes_of(block + k * ROW_BYTES, KEY_BYTES),
                              sf_bytes_of(block + k * ROW_BYTES + KEY_BYTES, VALUE_BYTES), &e),
               &e);
        watch_stop(w);
    }
    watch_start(w);
    ok(sf__sorter_seal(s, &e), &e);
    watch_stop(w);
    free(block);
    return s;
}

static void build(sf_runtime *rt, sf_sorter *s, const char *folder, sf_codec codec, sf_shard_result *result)
{
    sf_slatedb_writer_options o = SF_SLATEDB_WRITER_OPTIONS_INIT;
    sf_shard_target t = {.rt = rt, .upload = SF_UPLOAD_OPTIONS_INIT};
    sf_error e = SF_ERROR_INIT;
    sf_sorter_reader *r;
    sf_shard_writer *w;
    char url[4096], *path;
    bool end = false;

    snprintf(url, sizeof(url), "file://%s/db", folder);
    ok(sf__location_open(rt, url, NULL, &t.store, &path, &e), &e);
    t.path = path;
    t.url = url;
    o.codec = codec;
    ok(sf__slatedb_shard_writer_open(&w, &t, &o, &e), &e);
    ok(sf__sorter_open(s, 0, &r, &e), &e);
    while (!end) {
        sf_bytes key, value;

        ok(sf__sorter_next(r, &end, &key, &value, &e), &e);
        if (!end)
            ok(sf__shard_writer_add(w, key, value, &e), &e);
    }
    ok(sf__shard_writer_finish(w, result, &e), &e);
    sf__sorter_close(r);
    sf__shard_writer_free(w);
    sf__store_release(t.store);
    sf__free(rt->alloc, path);
}

/* Reads the sorted rows and does nothing with them. */
static void drain(sf_sorter *s)
{
    sf_error e = SF_ERROR_INIT;
    sf_sorter_reader *r;
    bool end = false;

    ok(sf__sorter_open(s, 0, &r, &e), &e);
    while (!end) {
        sf_bytes key, value;

        ok(sf__sorter_next(r, &end, &key, &value, &e), &e);
    }
    sf__sorter_close(r);
}

int main(int argc, char **argv)
{
    sf_shard_result result = {0};
    sf_sorter_stats stats = {0};
    sf_error e = SF_ERROR_INIT;
    sf_codec codec = SF_CODEC_NONE;
    struct rusage usage;
    struct watch watch = {0};
    uint64_t rows;

    must(argc >= 5, "build_shard plain|sort|shard ROWS MEMORY_BYTES FOLDER [codec]");
    rows = strtoull(argv[2], NULL, 10) / BLOCK_ROWS * BLOCK_ROWS;
    for (int c = SF_CODEC_NONE; argc > 5 && c <= SF_CODEC_ZSTD; c++)
        if (strcmp(argv[5], sf__codec_name((sf_codec)c)) == 0)
            codec = (sf_codec)c;
    if (strcmp(argv[1], "plain") == 0) {
        plain(rows, argv[4], &watch);
    } else {
        sf_runtime *rt = NULL;
        sf_sorter *s;

        ok(sf_runtime_new(&rt, NULL, &e), &e);
        s = sort_rows(rows, strtoull(argv[3], NULL, 10), argv[4], &watch);
        watch_start(&watch);
        if (strcmp(argv[1], "shard") == 0)
            build(rt, s, argv[4], codec, &result);
        else
            drain(s);
        watch_stop(&watch);
        sf__sorter_get_stats(s, &stats);
        sf__sorter_free(s);
        sf_runtime_release(rt);
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"rows\": %llu, \"seconds\": %.3f, \"rows_per_s\": %.0f, \"peak_mib\": %.0f, \"runs\": %llu, "
           "\"stored_bytes\": %llu, \"cpu_s\": %.3f}\n",
           (unsigned long long)rows, watch.wall_s, (double)rows / watch.wall_s, (double)usage.ru_maxrss / 1024,
           (unsigned long long)stats.spilled_runs, (unsigned long long)result.stored_bytes, watch.cpu_s);
    sf__shard_result_cleanup(&result);
    return 0;
}
