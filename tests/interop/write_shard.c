/* Builds one SlateDB database out of rows on stdin, for tests that read it with SlateDB itself.
 *
 *     write_shard URL [codec=zstd] [block_bytes=4096] [sst_bytes=...] [bits_per_key=10] [min_filter_keys=1]
 *                 [part_bytes=...] [memory_bytes=...] < rows
 *
 * rows: u32le key length | u32le value length | key | value, in any order; the last of equal keys wins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/slatedb/shard_writer.h"
#include "base/error.h"
#include "site/location.h"
#include "writer/sorter.h"

struct settings {
    sf_slatedb_writer_options slatedb;
    sf_upload_options upload;
    sf_sorter_options sorter;
};

static bool set(struct settings *s, const char *arg)
{
    const char *value = strchr(arg, '=');
    size_t n = value ? (size_t)(value - arg) : 0;
    unsigned long long v;

    if (!value)
        return false;
    v = strtoull(value + 1, NULL, 10);
    if (strncmp(arg, "codec", n) == 0) {
        for (int c = SF_CODEC_NONE; c <= SF_CODEC_ZSTD; c++)
            if (strcmp(value + 1, sf__codec_name((sf_codec)c)) == 0) {
                s->slatedb.codec = (sf_codec)c;
                return true;
            }
        return false;
    }
    if (strncmp(arg, "block_bytes", n) == 0)
        s->slatedb.block_bytes = (uint32_t)v;
    else if (strncmp(arg, "sst_bytes", n) == 0)
        s->slatedb.sst_bytes = v;
    else if (strncmp(arg, "bits_per_key", n) == 0)
        s->slatedb.bits_per_key = (uint32_t)v;
    else if (strncmp(arg, "min_filter_keys", n) == 0)
        s->slatedb.min_filter_keys = (uint32_t)v;
    else if (strncmp(arg, "part_bytes", n) == 0)
        s->upload.part_bytes = v;
    else if (strncmp(arg, "memory_bytes", n) == 0)
        s->sorter.memory_bytes = v;
    else
        return false;
    return true;
}

static sf_status read_rows(sf_sorter *sorter, sf_error *e)
{
    uint8_t lengths[8];
    uint8_t *row = NULL;
    size_t cap = 0;
    sf_status rc = SF_OK;

    while (rc == SF_OK && fread(lengths, 1, 8, stdin) == 8) {
        size_t k = (size_t)sf_load_le(lengths, 4), v = (size_t)sf_load_le(lengths + 4, 4);

        if (k + v > cap && !(row = realloc(row, cap = 2 * (k + v))))
            abort();
        if (k + v > 0 && fread(row, 1, k + v, stdin) != k + v)
            rc = sf_fail(e, SF_INVALID, "the input ends inside a row");
        else
            rc = sf__sorter_add(sorter, 0, sf_bytes_of(row, k), sf_bytes_of(row + k, v), e);
    }
    free(row);
    return rc == SF_OK ? sf__sorter_seal(sorter, e) : rc;
}

static sf_status write_rows(sf_sorter *sorter, sf_shard_writer *w, sf_error *e)
{
    sf_sorter_reader *r = NULL;
    sf_status rc = sf__sorter_open(sorter, 0, &r, e);
    bool end = false;

    while (rc == SF_OK && !end) {
        sf_bytes key, value;

        rc = sf__sorter_next(r, &end, &key, &value, e);
        if (rc == SF_OK && !end)
            rc = sf__shard_writer_add(w, key, value, e);
    }
    sf__sorter_close(r);
    return rc;
}

static sf_status write_shard(sf_runtime *rt, const char *url, const struct settings *s, sf_error *e)
{
    sf_shard_target target = {.rt = rt, .url = url, .upload = s->upload};
    sf_shard_result result = {0};
    sf_sorter_stats stats;
    sf_sorter *sorter = NULL;
    sf_shard_writer *w = NULL;
    char *path = NULL;
    sf_status rc = sf__location_open(rt, url, NULL, &target.store, &path, e);

    target.path = path;
    if (rc == SF_OK)
        rc = sf__slatedb_shard_writer_open(&w, &target, &s->slatedb, e);
    if (rc == SF_OK)
        rc = sf__sorter_new(&sorter, &s->sorter, &sf__allocator_default, e);
    if (rc == SF_OK)
        rc = read_rows(sorter, e);
    if (rc == SF_OK)
        rc = write_rows(sorter, w, e);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(w, &result, e);
    if (rc == SF_OK) {
        sf__sorter_get_stats(sorter, &stats);
        printf("{\"rows\": %llu, \"stored_bytes\": %llu, \"objects\": %llu, \"duplicates\": %llu, \"runs\": %llu, "
               "\"content_hash\": \"%016llx%016llx\", \"checkpoint\": \"%s\"}\n",
               (unsigned long long)result.rows, (unsigned long long)result.stored_bytes,
               (unsigned long long)result.object_count, (unsigned long long)stats.duplicates,
               (unsigned long long)stats.spilled_runs, (unsigned long long)result.content_hash.hi,
               (unsigned long long)result.content_hash.lo, result.checkpoint_id);
    }
    sf__shard_result_cleanup(&result);
    sf__shard_writer_free(w);
    sf__sorter_free(sorter);
    sf__store_release(target.store);
    sf__free(rt->alloc, path);
    return rc;
}

int main(int argc, char **argv)
{
    struct settings s = {SF_SLATEDB_WRITER_OPTIONS_INIT, SF_UPLOAD_OPTIONS_INIT, SF_SORTER_OPTIONS_INIT};
    sf_runtime *rt = NULL;
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    for (int i = 2; i < argc; i++)
        if (!set(&s, argv[i])) {
            fprintf(stderr, "%s is no setting\n", argv[i]);
            return 2;
        }
    if (argc < 2) {
        fprintf(stderr, "write_shard URL [name=value ...] < rows\n");
        return 2;
    }
    rc = sf_runtime_new(&rt, NULL, &e);
    if (rc == SF_OK)
        rc = write_shard(rt, argv[1], &s, &e);
    sf_runtime_release(rt);
    if (rc != SF_OK)
        fprintf(stderr, "%s: %s\n", sf_status_name(rc), e.message);
    return rc == SF_OK ? 0 : 1;
}
