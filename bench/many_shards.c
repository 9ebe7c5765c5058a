/* What snapshots of many shards cost: memory by an allocator that counts, time by the clock of all threads of the process.
 *
 *     many_shards manifest FOLDER SHARDS      a manifest of so many shards that nobody built, as our writers write it, and the pointer
 *     many_shards lazy FOLDER                 opens that, lazily
 *     many_shards open SHARDS ROWS            publishes so many shards of so many rows in memory, and opens them
 *     many_shards publish FOLDER SHARDS ROWS  the same to files
 * Each prints a line of JSON. */
#include <inttypes.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "backend/slatedb/format/opening_record.h"
#include "backend/slatedb/shard.h"
#include "base/base64.h"
#include "base/error.h"
#include "bench.h"
#include "reader/snapshot.h"
#include "shardyfusion/reader.h"
#include "shardyfusion/writer.h"
#include "snapshot/manifest_write.h"

#define VALUE_BYTES 100u

struct meter {
    sf_allocator alloc;
    atomic_long bytes, most;
};

static void count(struct meter *m, long bytes)
{
    long now = atomic_fetch_add(&m->bytes, bytes) + bytes, most = atomic_load(&m->most);

    while (now > most && !atomic_compare_exchange_weak(&m->most, &most, now))
        ;
}

static void *meter_realloc(void *ctx, void *p, size_t n)
{
    long before = p ? (long)malloc_usable_size(p) : 0;
    void *q = realloc(p, n);

    if (q)
        count(ctx, (long)malloc_usable_size(q) - before);
    return q;
}

static void meter_free(void *ctx, void *p)
{
    count(ctx, -(long)malloc_usable_size(p));
    free(p);
}

static struct meter meter = {.alloc = {sizeof(sf_allocator), meter_realloc, meter_free, &meter}};

static void check(sf_status rc, const sf_error *e, const char *what)
{
    if (rc == SF_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, e->message);
    exit(1);
}

static sf_runtime *new_runtime(void)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_runtime *rt = NULL;

    o.allocator = &meter.alloc;
    check(sf_runtime_new(&rt, &o, &e), &e, "runtime");
    return rt;
}

/* ------------------------------------------------------------------ a manifest alone ----------------------------- */

static char *opening_of(uint32_t shard)
{
    uint8_t keys[16];
    sf_built_sst sst = {{UINT64_C(0x016f5e66e8000000) | shard, UINT64_MAX / 7 * (shard + 1)},
                        {.has_first_key = true,
                         .has_last_key = true,
                         .filter_off = 90000,
                         .filter_len = 1254,
                         .index_off = 91254,
                         .index_len = 900,
                         .stats_off = 92154,
                         .stats_len = 600,
                         .sst_type = SF_SST_COMPACTED}};
    sf_built_database db = {.ssts = &sst, .sst_count = 1};
    sf_buf *record = NULL;
    char *text = NULL;

    sf_store_be(keys, 8, shard);
    sf_store_be(keys + 8, 8, UINT64_MAX - shard);
    sst.info.first_key = sf_bytes_of(keys, 8);
    sst.info.last_key = sf_bytes_of(keys + 8, 8);
    if (sf__opening_record_encode(&record, &db, 434, &sf__allocator_default, NULL) != SF_OK || !record ||
        !sf__base64_text(&text, sf__buf_bytes(record), &sf__allocator_default))
        exit(1);
    sf__buf_release(record);
    return text;
}

static void put_file(const char *path, sf_bytes bytes)
{
    FILE *f = fopen(path, "wb");

    if (!f || fwrite(bytes.p, 1, bytes.n, f) != bytes.n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

#define RUN "0123456789abcdef0123456789abcdef"
#define MANIFEST "manifests/2026-01-02T03:04:05.678901Z_run_id=" RUN

static void write_manifest(const char *folder, uint32_t shards)
{
    const sf_allocator *a = &sf__allocator_default;
    sf_snapshot_manifest m = {.run_id = RUN,
                              .key_col = "_key",
                              .sharding_json = sf__sharding_hash_json,
                              .db_path_template = "db={db_id:05d}",
                              .shard_prefix = "shards",
                              .created_at_us = 1767323045678901,
                              .num_dbs = shards,
                              .format_version = 4,
                              .key_encoding = SF_KEY_U64BE,
                              .shard_count = shards};
    sf_manifest_shard *rows = sf__calloc(a, shards, sizeof(*rows));
    char *prefix = sf__asprintf(a, "file://%s", folder), *path, *pointer;
    sf_error e = SF_ERROR_INIT;
    sf_strbuf custom, info;
    sf_buf *file;
    double begin;

    if (!rows || !prefix)
        exit(1);
    m.shards = rows;
    m.s3_prefix = prefix;
    sf__strbuf_init(&custom, a);
    sf__strbuf_puts(&custom, "{\"content_hash\": {\"algorithm\": \"xxh3_128\", \"shards\": {");
    for (uint32_t i = 0; i < shards; i++) {
        char *opening = opening_of(i);
        const sf_writer_info written = {.duration_ms = 12, .opening = opening};

        sf__strbuf_printf(&custom, "%s\"%u\": \"%032u\"", i > 0 ? ", " : "", i, i);
        sf__strbuf_init(&info, a);
        sf__writer_info_write(&info, &written);
        rows[i] = (sf_manifest_shard){
            .db_id = i,
            .row_count = 1000,
            .db_bytes = 100000,
            .db_url = sf__asprintf(a, "%s/shards/run_id%%3D" RUN "/db%%3D%05u/attempt%%3D00", prefix, i),
            .min_key_json = "12345",
            .max_key_json = "99999999",
            .writer_info_json = sf__strbuf_detach(&info),
            .checkpoint_id = "0123456789abcdef0123456789abcdef"};
        sf__free(a, opening);
    }
    sf__strbuf_puts(&custom, "}}, \"kv_backend\": \"slatedb\"}");
    m.custom_json = custom.s;
    begin = process_cpu();
    check(sf__snapshot_manifest_write(&file, &m, a, &e), &e, "manifest");
    printf("{\"shards\": %u, \"manifest_bytes\": %zu, \"write_processor_s\": %.3f}\n", shards, file->n,
           process_cpu() - begin);
    mkdir(folder, 0777);
    path = sf__asprintf(a, "%s/manifests", folder);
    mkdir(path, 0777);
    path = sf__asprintf(a, "%s/" MANIFEST, folder);
    mkdir(path, 0777);
    put_file(sf__asprintf(a, "%s/manifest", path), sf__buf_bytes(file));
    pointer = sf__asprintf(
        a,
        "{\"format_version\":1,\"manifest_content_type\":\"application/x-sqlite3\",\"manifest_ref\":\"%s/manifests/"
        "2026-01-02T03:04:05.678901Z_run_id%%3D" RUN "/manifest\",\"run_id\":\"" RUN
        "\",\"updated_at\":\"2026-01-02T03:04:05Z\"}",
        prefix);
    put_file(sf__asprintf(a, "%s/_CURRENT", folder), sf_bytes_str(pointer));
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

/* Indexes and filters of the shards that are open. */
static uint64_t metadata_bytes(const sf_snapshot *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->num_dbs; i++) {
        const sf_slatedb_shard *shard = (const sf_slatedb_shard *)(const void *)s->shards[i];

        for (uint32_t j = 0; shard && j < shard->view.sst_count; j++)
            n += sf__index_bytes(&shard->view.ssts[j].index) + sf__filter_bytes(&shard->view.ssts[j].filter);
    }
    return n;
}

static void open_reader(sf_runtime *rt, const char *prefix, bool lazy)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    long before = atomic_load(&meter.bytes);
    double wall = seconds(), processor = process_cpu();
    sf_error e = SF_ERROR_INIT;
    sf_snapshot *s;
    sf_reader *r;
    long bytes;
    uint64_t metadata;

    o.lazy_shards = lazy;
    atomic_store(&meter.most, before);
    check(sf_reader_open(&r, rt, prefix, &o, &e), &e, "open");
    wall = seconds() - wall;
    processor = process_cpu() - processor;
    s = sf_reader_borrow(r, NULL);
    bytes = atomic_load(&meter.bytes) - before;
    metadata = lazy ? 0 : metadata_bytes(s);
    printf("{\"shards\": %u, \"lazy\": %s, \"wall_s\": %.3f, \"processor_s\": %.3f, \"bytes_per_shard\": %.0f, "
           "\"index_and_filter_per_shard\": %.0f, \"others_per_shard\": %.0f, \"most_bytes_per_shard\": %.0f}\n",
           s->num_dbs, lazy ? "true" : "false", wall, processor, (double)bytes / s->num_dbs,
           (double)metadata / s->num_dbs, ((double)bytes - (double)metadata) / s->num_dbs,
           (double)(atomic_load(&meter.most) - before) / s->num_dbs);
    sf_snapshot_give_back(s);
    sf_reader_free(r);
}

/* ------------------------------------------------------------------ publishing ----------------------------------- */

static void publish(sf_runtime *rt, const char *prefix, uint32_t shards, uint64_t rows, bool tell)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    double wall = seconds(), processor = process_cpu();
    uint8_t value[VALUE_BYTES];
    sf_error e = SF_ERROR_INIT;
    sf_writer *w;

    o.num_dbs = shards;
    check(sf_writer_open(&w, rt, prefix, &o, &e), &e, "writer");
    memset(value, 'v', sizeof(value));
    for (uint64_t i = 0; i < rows * shards; i++) {
        sf_key key = sf_key_int((int64_t)i);

        memcpy(value, &i, sizeof(i));
        check(sf_writer_add(w, &key, sf_bytes_of(value, sizeof(value)), &e), &e, "row");
    }
    check(sf_writer_finish(w, &e), &e, "publish");
    sf_writer_free(w);
    if (tell)
        printf("{\"shards\": %u, \"rows\": %" PRIu64
               ", \"publish_wall_s\": %.2f, \"processor_s\": %.2f, \"processor_us_per_shard\": %.0f}\n",
               shards, rows * shards, seconds() - wall, process_cpu() - processor,
               (process_cpu() - processor) / shards * 1e6);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    char prefix[4096] = "mem://many/shards";
    sf_runtime *rt = new_runtime();

    if (argc > 2)
        snprintf(prefix, sizeof(prefix), "file://%s", argv[2]);
    if (strcmp(what, "manifest") == 0 && argc == 4) {
        write_manifest(argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
    } else if (strcmp(what, "lazy") == 0 && argc == 3) {
        open_reader(rt, prefix, true);
    } else if (strcmp(what, "open") == 0 && argc == 4) {
        publish(rt, "mem://many/shards", (uint32_t)strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), false);
        open_reader(rt, "mem://many/shards", false);
    } else if (strcmp(what, "publish") == 0 && argc == 5) {
        publish(rt, prefix, (uint32_t)strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), true);
    } else {
        fprintf(
            stderr,
            "usage: many_shards manifest FOLDER SHARDS | lazy FOLDER | open SHARDS ROWS | publish FOLDER SHARDS ROWS\n");
        return 2;
    }
    sf_runtime_release(rt);
    return 0;
}
