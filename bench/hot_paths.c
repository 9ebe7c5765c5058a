/* The look-ups that must stay cheap, over and over, for tools/check_instructions.py, which counts the instructions inside of the functions
 * whose names begin with `counted_`.
 *     hot_paths FOLDER     publishes 20,000 rows of 100 bytes in 4 shards there
 * Prints how many keys each of them looks up. */
#include <string.h>

#include <shardyfusion/writer.h>

#include "reading.h"

#define ROWS 20000u
#define KEYS 4000u
#define BATCH 1000u

static void publish(sf_runtime *rt, const char *prefix)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    uint8_t value[100];
    sf_writer *w;

    o.num_dbs = 4;
    o.run_id = "hot-paths"; /* the same bytes each time */
    ok(sf_writer_open(&w, rt, prefix, &o, &err), &err);
    for (uint32_t i = 0; i < ROWS; i++) {
        sf_key key = sf_key_int(2 * i);

        memset(value, (int)i, sizeof(value));
        ok(sf_writer_add(w, &key, (sf_bytes){value, sizeof(value)}, &err), &err);
    }
    ok(sf_writer_finish(w, &err), &err);
    sf_writer_free(w);
}

static __attribute__((noinline, noclone)) void counted_try_get(sf_reader *r, const sf_key *keys)
{
    for (size_t i = 0; i < KEYS; i++) {
        sf_value v = {0};

        must(sf_reader_try_get(r, &keys[i], &v, NULL) == SF_OK && v.found, "try_get");
        sf_value_release(&v);
    }
}

static __attribute__((noinline, noclone)) void counted_multi_get(sf_reader *r, const sf_key *keys)
{
    static sf_value values[BATCH];

    for (size_t at = 0; at < KEYS; at += BATCH) {
        must(sf_reader_multi_get(r, keys + at, BATCH, SF_TIMEOUT_NONE, values, NULL) == SF_OK, "multi_get");
        for (size_t i = 0; i < BATCH; i++) {
            must(values[i].found, "multi_get");
            sf_value_release(&values[i]);
        }
    }
}

int main(int argc, char **argv)
{
    static sf_key keys[KEYS];
    sf_error err = SF_ERROR_INIT;
    sf_reader *r;
    sf_runtime *rt;

    must(argc == 2, "usage: hot_paths FOLDER; this");
    ok(sf_runtime_new(&rt, NULL, &err), &err);
    publish(rt, argv[1]);
    ok(sf_reader_open(&r, rt, argv[1], NULL, &err), &err);
    for (uint32_t i = 0; i < ROWS; i++) {
        sf_key key = sf_key_int(2 * i);
        sf_value v = {0};

        ok(sf_reader_get(r, &key, SF_TIMEOUT_NONE, &v, &err), &err);
        sf_value_release(&v);
    }
    for (size_t i = 0; i < KEYS; i++)
        keys[i] = sf_key_int((int64_t)(2 * (mix(i) % ROWS)));
    counted_try_get(r, keys);
    counted_multi_get(r, keys);
    printf("%u\n", KEYS);
    sf_reader_free(r);
    sf_runtime_release(rt);
    return 0;
}
