/* Builds one SQLite shard of generated rows and says how long it took, in seconds of wall clock and of CPU:
 * sqlite_write FOLDER URL ROWS VALUE_BYTES PAGE_BYTES (0: auto). The rows are in memory before the clock starts; FOLDER is
 * for the build, the shard goes to URL/shard with its sidecar. With the URL "-" only the table is built. Run by
 * sqlite_write.py. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/sqlite/shard_writer.h"
#include "base/clock.h"
#include "site/location.h"

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct rows {
    uint64_t count;
    size_t value_bytes;
    uint8_t *values;
};

static bool rows_make(struct rows *r)
{
    uint64_t state = 88172645463325252u;

    r->values = malloc(r->count * r->value_bytes + 8);
    for (size_t i = 0; r->values && i < r->count * r->value_bytes; i += 8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sf_store_le(r->values + i, 8, state);
    }
    return r->values != NULL;
}

static sf_bytes row_key(uint64_t i, uint8_t buf[static 8])
{
    sf_store_be(buf, 8, i);
    return sf_bytes_of(buf, 8);
}

static sf_bytes row_value(const struct rows *r, uint64_t i)
{
    return sf_bytes_of(r->values + i * r->value_bytes, r->value_bytes);
}

static sf_status build_table(const struct rows *rows, const sf_sqlite_writer_options *o, sf_error *err)
{
    sf_table_builder_options options = SF_TABLE_BUILDER_OPTIONS_INIT;
    sf_table_builder *b = NULL;
    sf_status rc;
    uint8_t key[8];
    sf_file_view file;

    options.folder = o->folder;
    options.page_bytes = o->page_bytes;
    rc = sf__table_builder_open(&b, &options, &sf__allocator_default, err);
    for (uint64_t i = 0; i < rows->count && rc == SF_OK; i++)
        rc = sf__table_builder_add(b, row_key(i, key), row_value(rows, i), err);
    if (rc == SF_OK)
        rc = sf__table_builder_finish(b, &file, NULL, err);
    sf__table_builder_free(b);
    return rc;
}

static sf_status build_shard(const struct rows *rows, const sf_sqlite_writer_options *o, const sf_shard_target *target,
                             sf_error *err)
{
    sf_shard_writer *w = NULL;
    sf_status rc = sf__sqlite_shard_writer_open(&w, target, o, err);
    sf_shard_result r = {0};
    uint8_t key[8];

    for (uint64_t i = 0; i < rows->count && rc == SF_OK; i++)
        rc = sf__shard_writer_add(w, row_key(i, key), row_value(rows, i), err);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(w, &r, err);
    sf__shard_writer_free(w);
    sf__shard_result_cleanup(&r);
    return rc;
}

/* Opens what is needed, takes the time. */
static sf_status measure(const struct rows *rows, const sf_sqlite_writer_options *o, const char *url, sf_error *err)
{
    sf_runtime_options runtime = SF_RUNTIME_OPTIONS_INIT;
    sf_shard_target target = {.url = "shard", .upload = SF_UPLOAD_OPTIONS_INIT};
    char *path = NULL, *shard = NULL;
    sf_status rc = sf_runtime_new(&target.rt, &runtime, err);
    bool table = strcmp(url, "-") == 0;
    uint64_t start;
    double cpu;

    if (rc == SF_OK && !table)
        rc = sf__location_open(target.rt, url, NULL, &target.store, &path, err);
    if (rc != SF_OK)
        return rc;
    shard = sf__asprintf(&sf__allocator_default, "%s/shard", path ? path : "");
    target.path = shard;
    start = sf__clock_mono_ns();
    cpu = cpu_seconds();
    rc = table ? build_table(rows, o, err) : build_shard(rows, o, &target, err);
    printf("%.6f %.6f\n", (double)(sf__clock_mono_ns() - start) / 1e9, cpu_seconds() - cpu);
    sf__free(&sf__allocator_default, shard);
    sf__free(target.rt->alloc, path);
    sf__store_release(target.store);
    sf_runtime_release(target.rt);
    return rc;
}

int main(int argc, char **argv)
{
    sf_sqlite_writer_options options = SF_SQLITE_WRITER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    struct rows rows;
    sf_status rc;

    if (argc != 6) {
        fprintf(stderr, "sqlite_write FOLDER URL ROWS VALUE_BYTES PAGE_BYTES\n");
        return 2;
    }
    options.folder = argv[1];
    rows.count = strtoull(argv[3], NULL, 10);
    rows.value_bytes = strtoull(argv[4], NULL, 10);
    options.page_bytes = (uint32_t)strtoul(argv[5], NULL, 10);
    if (!rows_make(&rows))
        return 1;
    rc = measure(&rows, &options, argv[2], &err);
    if (rc != SF_OK)
        fprintf(stderr, "%s\n", err.message);
    free(rows.values);
    return rc == SF_OK ? 0 : 1;
}
