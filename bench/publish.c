/* How fast whole snapshots are published: rows in random order through the public API, one by one or as Arrow batches.
 *
 *     publish rows|arrow slatedb|sqlite ROWS SHARDS MEMORY_MIB PREFIX
 * Rows: an int64 key (random, all different) and 92 value bytes that shrink to about a half. Making them is part of the
 * measured time for `rows`, not for `arrow`, which takes one batch again and again with new keys. Prints a line of JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <shardyfusion/writer.h>

#include "bench.h"

#define VALUE_BYTES 92u
#define BATCH_ROWS 65536

static int64_t key_of(uint64_t row)
{
    return (int64_t)(mix(row) >> 1); /* what routing takes */
}

static void make_value(uint8_t out[VALUE_BYTES], uint64_t row)
{
    uint64_t v = row;

    for (size_t at = 0; at < VALUE_BYTES; at += 4) {
        v = v * 6364136223846793005u + 1442695040888963407u;
        memcpy(out + at, &(uint32_t){(uint32_t)(v >> 48 | (v >> 60) << 24)}, 4);
    }
}

/* ------------------------------------------------------------------ Arrow ---------------------------------------- */

struct producer {
    uint64_t next, rows;
    int64_t keys[BATCH_ROWS];
    int32_t offsets[BATCH_ROWS + 1];
    uint8_t values[BATCH_ROWS * VALUE_BYTES];
    struct ArrowSchema key_schema, value_schema, *schemas[2];
    struct ArrowArray key_array, value_array, *arrays[2];
    const void *key_buffers[2], *value_buffers[3];
};

static void release_schema(struct ArrowSchema *s)
{
    s->release = NULL;
}

static void release_array(struct ArrowArray *a)
{
    a->release = NULL;
}

static void release_stream(struct ArrowArrayStream *s)
{
    s->release = NULL;
}

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    struct producer *p = stream->private_data;

    p->key_schema = (struct ArrowSchema){.format = "l", .name = "key", .release = release_schema};
    p->value_schema = (struct ArrowSchema){.format = "z", .name = "value", .release = release_schema};
    p->schemas[0] = &p->key_schema;
    p->schemas[1] = &p->value_schema;
    *out = (struct ArrowSchema){.format = "+s", .n_children = 2, .children = p->schemas, .release = release_schema};
    return 0;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct producer *p = stream->private_data;
    int64_t n = p->rows - p->next < BATCH_ROWS ? (int64_t)(p->rows - p->next) : BATCH_ROWS;

    *out = (struct ArrowArray){.release = NULL};
    if (n == 0)
        return 0;
    for (int64_t i = 0; i < n; i++)
        p->keys[i] = key_of(p->next++);
    p->key_buffers[1] = p->keys;
    p->value_buffers[1] = p->offsets;
    p->value_buffers[2] = p->values;
    p->key_array = (struct ArrowArray){.length = n, .n_buffers = 2, .buffers = p->key_buffers, .release = release_array};
    p->value_array =
        (struct ArrowArray){.length = n, .n_buffers = 3, .buffers = p->value_buffers, .release = release_array};
    p->arrays[0] = &p->key_array;
    p->arrays[1] = &p->value_array;
    *out = (struct ArrowArray){.length = n,
                               .n_buffers = 1,
                               .n_children = 2,
                               .children = p->arrays,
                               .buffers = p->key_buffers,
                               .release = release_array};
    return 0;
}

static struct producer *producer_new(uint64_t rows)
{
    struct producer *p = calloc(1, sizeof(*p));

    if (!p)
        exit(1);
    p->rows = rows;
    for (int i = 0; i < BATCH_ROWS; i++) {
        make_value(p->values + (size_t)i * VALUE_BYTES, (uint64_t)i);
        p->offsets[i + 1] = (i + 1) * (int32_t)VALUE_BYTES;
    }
    return p;
}

/* ------------------------------------------------------------------ measuring ------------------------------------ */

static sf_status add_rows(sf_writer *w, uint64_t rows, sf_error *err)
{
    sf_status rc = SF_OK;

    for (uint64_t i = 0; i < rows && rc == SF_OK; i++) {
        uint8_t value[VALUE_BYTES];
        sf_key key = sf_key_int(key_of(i));

        make_value(value, i);
        rc = sf_writer_add(w, &key, (sf_bytes){value, VALUE_BYTES}, err);
    }
    return rc;
}

int main(int argc, char **argv)
{
    sf_error err = SF_ERROR_INIT;
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    struct ArrowArrayStream stream = {get_schema, get_next, NULL, release_stream, NULL};
    sf_runtime *rt = NULL;
    sf_writer *w = NULL;
    double start, added, cpu;
    uint64_t rows;
    struct rusage u;
    sf_status rc;

    if (argc != 7) {
        fprintf(stderr, "usage: %s rows|arrow slatedb|sqlite ROWS SHARDS MEMORY_MIB PREFIX\n", argv[0]);
        return 2;
    }
    rows = strtoull(argv[3], NULL, 10);
    o.backend = strcmp(argv[2], "sqlite") == 0 ? SF_BACKEND_SQLITE : SF_BACKEND_SLATEDB;
    o.num_dbs = (uint32_t)strtoul(argv[4], NULL, 10);
    o.memory_bytes = strtoull(argv[5], NULL, 10) << 20;
    stream.private_data = producer_new(rows);
    rc = sf_runtime_new(&rt, NULL, &err);
    start = seconds();
    cpu = process_cpu();
    if (rc == SF_OK)
        rc = sf_writer_open(&w, rt, argv[6], &o, &err);
    if (rc == SF_OK)
        rc = strcmp(argv[1], "arrow") == 0 ? sf_writer_add_arrow(w, &stream, "key", "value", &err)
                                           : add_rows(w, rows, &err);
    added = seconds();
    if (rc == SF_OK)
        rc = sf_writer_finish(w, &err);
    if (rc == SF_OK) {
        double took = seconds() - start;
        const sf_write_report *r = sf_writer_report(w);

        getrusage(RUSAGE_SELF, &u);
        printf("{\"rows\": %" PRIu64 ", \"rows_per_s\": %.0f, \"adding_s\": %.2f, \"building_s\": %.2f, \"cpu_s\": %.2f, "
               "\"rows_per_cpu_s\": %.0f, \"bytes\": %" PRIu64 ", \"spilled\": %" PRIu64 ", \"peak_rss_mib\": %ld}\n",
               rows, (double)rows / took, added - start, start + took - added, process_cpu() - cpu,
               (double)rows / (process_cpu() - cpu), r->published_bytes, r->spilled_bytes, u.ru_maxrss / 1024);
    } else {
        fprintf(stderr, "%s\n", err.message);
    }
    sf_writer_free(w);
    sf_runtime_release(rt);
    free(stream.private_data);
    return rc == SF_OK ? 0 : 1;
}
