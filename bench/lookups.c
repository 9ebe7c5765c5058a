/* Look-ups and scans in C over one data set: ours, LMDB, RocksDB, and a hash table in memory as the floor, in turn.
 *     lookups FOLDER ROWS VALUE_BYTES NAME [ROUNDS]
 * Makes below FOLDER what is missing there: our snapshot (8 shards), an LMDB environment, a RocksDB database. Keys are the even numbers
 * below 2 * ROWS, eight bytes, big-endian; so absent keys lie between those that are there. A value begins with its key; every look-up reads
 * that, and the sum is compared, so nothing is optimised away and nothing is wrong. NAME: of the data set, part of the case.
 *
 * Everything fits into memory and has been read once. LMDB: one read transaction, values in place. RocksDB: opened for reading only, one level,
 * no codec, a Bloom filter of 10 bits a key, the hash index in blocks, a cache for all of it, values pinned. Times are processor time of the
 * thread, but for several threads and for scans, which are by the clock. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lmdb.h>
#include <rocksdb/c.h>

#include <shardyfusion/writer.h>

#include "reading.h"

#define SHARDS 8
#define HOT 10000u
#define LOOK_UPS 100000u
#define BATCH_MAX 10000u
#define MAX_THREADS 4u

struct world {
    const char *folder, *name;
    uint64_t rows;
    size_t value_bytes;
    unsigned rounds;
    sf_runtime *rt;
    sf_reader *reader;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    rocksdb_t *rocks;
    rocksdb_column_family_handle_t *rocks_family;
    rocksdb_readoptions_t *rocks_options;
    struct slot {
        uint64_t key; /* + 1; 0: empty */
        const uint8_t *value;
    } *slots;
    uint64_t slot_mask;
    uint8_t *values;
};

static void mdb_ok(int rc)
{
    must(rc == 0, mdb_strerror(rc));
}

static void rocks_ok(const char *error)
{
    must(error == NULL, error);
}

static void key_bytes(uint8_t out[8], uint64_t key)
{
    uint64_t be = __builtin_bswap64(key);

    memcpy(out, &be, 8);
}

static void make_value(const struct world *w, uint8_t *out, uint64_t key)
{
    for (size_t at = 0; at < w->value_bytes; at += 8) {
        uint64_t v = at == 0 ? key : mix(key + at);

        memcpy(out + at, &v, w->value_bytes - at < 8 ? w->value_bytes - at : 8);
    }
}

static bool is_there(const char *path)
{
    return access(path, R_OK) == 0;
}

/* ------------------------------------------------------------------ making them ---------------------------------- */

static void publish(struct world *w, const char *prefix)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    uint8_t *value = malloc(w->value_bytes);
    sf_writer *writer;

    o.num_dbs = SHARDS;
    ok(sf_writer_open(&writer, w->rt, prefix, &o, &err), &err);
    for (uint64_t i = 0; i < w->rows; i++) {
        sf_key key = sf_key_int((int64_t)(2 * i));

        make_value(w, value, 2 * i);
        ok(sf_writer_add(writer, &key, (sf_bytes){value, w->value_bytes}, &err), &err);
    }
    ok(sf_writer_finish(writer, &err), &err);
    sf_writer_free(writer);
    free(value);
}

static void open_ours(struct world *w)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    char path[4096], current[4200];

    o.cache_bytes = UINT64_C(4) << 30;
    ok(sf_runtime_new(&w->rt, &o, &err), &err);
    snprintf(path, sizeof(path), "%s/snapshot", w->folder);
    snprintf(current, sizeof(current), "%s/_CURRENT", path);
    if (!is_there(current))
        publish(w, path);
    for (unsigned round = 0; round < w->rounds; round++) {
        double start = seconds();

        sf_reader_free(w->reader);
        ok(sf_reader_open(&w->reader, w->rt, path, NULL, &err), &err);
        sample("open", w->name, "ours", "ms", (seconds() - start) * 1e3);
    }
}

static void open_lmdb(struct world *w)
{
    char path[4096];
    bool made;

    snprintf(path, sizeof(path), "%s/lmdb", w->folder);
    made = is_there(path);
    must(made || mkdir(path, 0700) == 0, path);
    mdb_ok(mdb_env_create(&w->env));
    mdb_ok(mdb_env_set_mapsize(w->env, UINT64_C(64) << 30));
    mdb_ok(mdb_env_open(w->env, path, made ? MDB_RDONLY : MDB_NOSYNC, 0600));
    if (!made) {
        uint8_t *value = malloc(w->value_bytes), key[8];

        mdb_ok(mdb_txn_begin(w->env, NULL, 0, &w->txn));
        mdb_ok(mdb_dbi_open(w->txn, NULL, 0, &w->dbi));
        for (uint64_t i = 0; i < w->rows; i++) {
            MDB_val k = {8, key}, v = {w->value_bytes, value};

            key_bytes(key, 2 * i);
            make_value(w, value, 2 * i);
            mdb_ok(mdb_put(w->txn, w->dbi, &k, &v, MDB_APPEND));
        }
        mdb_ok(mdb_txn_commit(w->txn));
        mdb_ok(mdb_env_sync(w->env, 1));
        free(value);
    }
    mdb_ok(mdb_txn_begin(w->env, NULL, MDB_RDONLY, &w->txn));
    mdb_ok(mdb_dbi_open(w->txn, NULL, 0, &w->dbi));
}

static void open_rocksdb(struct world *w)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    const char *families[1] = {"default"};
    const rocksdb_options_t *family_options[1] = {o};
    char path[4096], *error = NULL;

    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru((size_t)4 << 30));
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_data_block_index_type(table, 1); /* hash */
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_info_log_level(o, 4);
    snprintf(path, sizeof(path), "%s/rocksdb", w->folder);
    if (!is_there(path)) {
        rocksdb_writeoptions_t *wo = rocksdb_writeoptions_create();
        uint8_t *value = malloc(w->value_bytes), key[8];
        rocksdb_t *db;

        rocksdb_options_prepare_for_bulk_load(o);
        db = rocksdb_open(o, path, &error);
        rocks_ok(error);
        rocksdb_writeoptions_disable_WAL(wo, 1);
        for (uint64_t i = 0; i < w->rows; i++) {
            key_bytes(key, 2 * i);
            make_value(w, value, 2 * i);
            rocksdb_put(db, wo, (char *)key, 8, (char *)value, w->value_bytes, &error);
            rocks_ok(error);
        }
        rocksdb_compact_range(db, NULL, 0, NULL, 0);
        rocksdb_close(db);
        rocksdb_writeoptions_destroy(wo);
        free(value);
    }
    w->rocks =
        rocksdb_open_for_read_only_column_families(o, path, 1, families, family_options, &w->rocks_family, 0, &error);
    rocks_ok(error);
    w->rocks_options = rocksdb_readoptions_create();
}

static void fill_table(struct world *w)
{
    uint64_t slots = 1;

    while (slots < 2 * w->rows)
        slots *= 2;
    w->slots = calloc(slots, sizeof(*w->slots));
    w->values = malloc(w->rows * w->value_bytes);
    must(w->slots && w->values, "memory for the hash table");
    w->slot_mask = slots - 1;
    for (uint64_t i = 0; i < w->rows; i++) {
        uint64_t at = mix(2 * i) & w->slot_mask;

        while (w->slots[at].key)
            at = (at + 1) & w->slot_mask;
        make_value(w, w->values + i * w->value_bytes, 2 * i);
        w->slots[at] = (struct slot){2 * i + 1, w->values + i * w->value_bytes};
    }
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

/* The sum of what the values begin with; 1 for each key that is not there. */
typedef uint64_t look_ups_fn(struct world *w, const sf_key *keys, size_t count, size_t batch);

static uint64_t get_ours(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        sf_value v = {0};

        must(sf_reader_try_get(w->reader, &keys[i], &v, NULL) == SF_OK, "try_get");
        sum += v.found ? head_of(v.bytes.p) : 1;
        sf_value_release(&v);
    }
    return sum;
}

static uint64_t get_lmdb(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    uint64_t sum = 0;
    uint8_t key[8];

    for (size_t i = 0; i < count; i++) {
        MDB_val k = {8, key}, v;

        key_bytes(key, (uint64_t)keys[i].i);
        sum += mdb_get(w->txn, w->dbi, &k, &v) == 0 ? head_of(v.mv_data) : 1;
    }
    return sum;
}

static uint64_t get_rocksdb(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    uint64_t sum = 0;
    uint8_t key[8];

    for (size_t i = 0; i < count; i++) {
        rocksdb_pinnableslice_t *v;
        char *error = NULL;
        size_t n;

        key_bytes(key, (uint64_t)keys[i].i);
        v = rocksdb_get_pinned(w->rocks, w->rocks_options, (char *)key, 8, &error);
        rocks_ok(error);
        sum += v ? head_of(rocksdb_pinnableslice_value(v, &n)) : 1;
        rocksdb_pinnableslice_destroy(v);
    }
    return sum;
}

static uint64_t get_hash(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t key = (uint64_t)keys[i].i, at = mix(key) & w->slot_mask;

        while (w->slots[at].key && w->slots[at].key != key + 1)
            at = (at + 1) & w->slot_mask;
        sum += w->slots[at].key ? head_of(w->slots[at].value) : 1;
    }
    return sum;
}

static uint64_t multi_get_ours(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    static sf_value values[BATCH_MAX];
    uint64_t sum = 0;

    for (size_t at = 0; at < count; at += batch) {
        must(sf_reader_multi_get(w->reader, keys + at, batch, SF_TIMEOUT_NONE, values, NULL) == SF_OK, "multi_get");
        for (size_t i = 0; i < batch; i++) {
            sum += values[i].found ? head_of(values[i].bytes.p) : 1;
            sf_value_release(&values[i]);
        }
    }
    return sum;
}

static uint64_t multi_get_rocksdb(struct world *w, const sf_key *keys, size_t count, size_t batch)
{
    static rocksdb_pinnableslice_t *values[BATCH_MAX];
    static const char *places[BATCH_MAX];
    static char *errors[BATCH_MAX];
    static size_t sizes[BATCH_MAX];
    static uint8_t bytes[BATCH_MAX][8];
    uint64_t sum = 0;

    for (size_t at = 0; at < count; at += batch) {
        for (size_t i = 0; i < batch; i++) {
            key_bytes(bytes[i], (uint64_t)keys[at + i].i);
            places[i] = (char *)bytes[i];
            sizes[i] = 8;
        }
        rocksdb_batched_multi_get_cf(w->rocks, w->rocks_options, w->rocks_family, batch, places, sizes, values, errors,
                                     false);
        for (size_t i = 0; i < batch; i++) {
            size_t n;

            rocks_ok(errors[i]);
            sum += values[i] ? head_of(rocksdb_pinnableslice_value(values[i], &n)) : 1;
            rocksdb_pinnableslice_destroy(values[i]);
        }
    }
    return sum;
}

static const struct engine {
    const char *who;
    look_ups_fn *get, *multi_get;
} engines[] = {
    {"ours", get_ours, multi_get_ours},
    {"lmdb", get_lmdb, NULL},
    {"rocksdb", get_rocksdb, multi_get_rocksdb},
    {"hash table", get_hash, NULL},
};
#define ENGINES (sizeof(engines) / sizeof(engines[0]))

/* ------------------------------------------------------------------ which keys ----------------------------------- */

/* Ranks of Zipf's law with exponent 0.99, by the inverse of its sum as an integral; a rank is a key that says nothing of it. */
static uint64_t zipf(uint64_t rows, double uniform)
{
    const double s = 1 - 0.99;
    double rank = pow(uniform * (pow((double)rows + 0.5, s) - pow(0.5, s)) + pow(0.5, s), 1 / s) - 0.5;
    uint64_t r = rank < 0 ? 0 : (uint64_t)rank;

    return mix(r < rows ? r : rows - 1) % rows;
}

static void draw(const struct world *w, const char *distribution, sf_key keys[LOOK_UPS])
{
    for (uint64_t i = 0; i < LOOK_UPS; i++) {
        uint64_t random = mix(i + UINT64_C(0x5eed)), row = random % w->rows;

        if (strcmp(distribution, "hot") == 0)
            row = mix(random % HOT) % w->rows;
        else if (strcmp(distribution, "zipf") == 0)
            row = zipf(w->rows, (double)(random >> 11) / (double)(UINT64_C(1) << 53));
        keys[i] = sf_key_int((int64_t)(2 * row + (strcmp(distribution, "absent") == 0)));
    }
}

static uint64_t expected(const sf_key keys[LOOK_UPS])
{
    uint64_t sum = 0;

    for (size_t i = 0; i < LOOK_UPS; i++)
        sum += keys[i].i & 1 ? 1 : (uint64_t)keys[i].i;
    return sum;
}

static void measure(struct world *w, const char *path, const char *distribution, const sf_key *keys, size_t batch)
{
    uint64_t sum = expected(keys);
    char the_case[64];

    snprintf(the_case, sizeof(the_case), "%s %s", w->name, distribution);
    for (unsigned round = 0; round <= w->rounds; round++) /* the first one warms up */
        for (size_t e = 0; e < ENGINES; e++) {
            look_ups_fn *run = batch > 1 ? engines[e].multi_get : engines[e].get;
            double start = thread_cpu();

            if (!run)
                continue;
            must(run(w, keys, LOOK_UPS, batch) == sum, engines[e].who);
            if (round > 0)
                sample(path, the_case, engines[e].who, "ns", (thread_cpu() - start) / LOOK_UPS * 1e9);
        }
}

/* ------------------------------------------------------------------ threads -------------------------------------- */

struct hammer {
    struct world w;
    const sf_key *keys;
    look_ups_fn *get;
};

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;

    if (h->get == get_lmdb) /* a transaction of its own */
        mdb_ok(mdb_txn_begin(h->w.env, NULL, MDB_RDONLY, &h->w.txn));
    h->get(&h->w, h->keys, LOOK_UPS, 1);
    if (h->get == get_lmdb)
        mdb_txn_abort(h->w.txn);
    return NULL;
}

/* Million look-ups a second, all threads together. */
static void measure_threads(struct world *w, const sf_key *keys, unsigned threads)
{
    char path[32], the_case[64];

    snprintf(path, sizeof(path), "get by %u threads", threads);
    snprintf(the_case, sizeof(the_case), "%s uniform", w->name);
    for (unsigned round = 0; round < w->rounds; round++)
        for (size_t e = 0; e < ENGINES; e++) {
            static struct hammer hammers[MAX_THREADS];
            pthread_t ids[MAX_THREADS];
            double start = seconds();

            for (unsigned t = 0; t < threads; t++) {
                hammers[t] = (struct hammer){*w, keys, engines[e].get};
                must(pthread_create(&ids[t], NULL, hammer_run, &hammers[t]) == 0, "pthread_create");
            }
            for (unsigned t = 0; t < threads; t++)
                pthread_join(ids[t], NULL);
            sample(path, the_case, engines[e].who, "M/s", threads * (double)LOOK_UPS / (seconds() - start) / 1e6);
        }
}

/* ------------------------------------------------------------------ scans ---------------------------------------- */

static uint64_t scan_ours(struct world *w)
{
    uint64_t count;

    return scan_all(w->reader, &count);
}

static uint64_t scan_lmdb(struct world *w)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    uint64_t sum = 0;

    mdb_ok(mdb_cursor_open(w->txn, w->dbi, &cursor));
    while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0)
        sum += head_of(v.mv_data);
    mdb_cursor_close(cursor);
    return sum;
}

static uint64_t scan_rocksdb(struct world *w)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(w->rocks, w->rocks_options);
    uint64_t sum = 0;
    size_t n;

    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it))
        sum += head_of(rocksdb_iter_value(it, &n));
    rocksdb_iter_destroy(it);
    return sum;
}

static void measure_scans(struct world *w)
{
    static const struct {
        const char *who;
        uint64_t (*scan)(struct world *w);
    } scans[] = {{"ours", scan_ours}, {"lmdb", scan_lmdb}, {"rocksdb", scan_rocksdb}};

    for (unsigned round = 0; round <= w->rounds; round++)
        for (size_t e = 0; e < 3; e++) {
            double start = seconds(), cpu = process_cpu();

            must(scans[e].scan(w) == w->rows * (w->rows - 1), scans[e].who);
            if (round == 0)
                continue;
            sample("scan", w->name, scans[e].who, "ns", (seconds() - start) / (double)w->rows * 1e9);
            sample("scan, processor", w->name, scans[e].who, "ns", (process_cpu() - cpu) / (double)w->rows * 1e9);
        }
}

int main(int argc, char **argv)
{
    static const char *distributions[] = {"uniform", "hot", "zipf", "absent"};
    static sf_key keys[LOOK_UPS];
    struct world w = {0};

    if (argc < 5) {
        fprintf(stderr, "usage: %s FOLDER ROWS VALUE_BYTES NAME [ROUNDS]\n", argv[0]);
        return 2;
    }
    w.folder = argv[1];
    w.rows = strtoull(argv[2], NULL, 10);
    w.value_bytes = strtoull(argv[3], NULL, 10);
    w.name = argv[4];
    w.rounds = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) : 5;
    must(w.rows > 0 && w.value_bytes >= 8, "ROWS of at least 1, VALUE_BYTES of at least 8");
    open_ours(&w);
    open_lmdb(&w);
    open_rocksdb(&w);
    fill_table(&w);
    for (uint64_t row = 0; row < w.rows; row++) { /* brings all into memory */
        sf_key key = sf_key_int((int64_t)(2 * row));
        sf_value v = {0};
        sf_error err = SF_ERROR_INIT;

        ok(sf_reader_get(w.reader, &key, SF_TIMEOUT_NONE, &v, &err), &err);
        sf_value_release(&v);
    }
    for (size_t d = 0; d < 4; d++) {
        draw(&w, distributions[d], keys);
        measure(&w, "get", distributions[d], keys, 1);
        if (d == 3)
            continue;
        measure(&w, "multi_get(100) in C", distributions[d], keys, 100);
        measure(&w, "multi_get(1000) in C", distributions[d], keys, 1000);
    }
    draw(&w, "uniform", keys);
    for (unsigned threads = 1; threads <= MAX_THREADS; threads *= 2)
        measure_threads(&w, keys, threads);
    measure_scans(&w);
    sf_reader_free(w.reader);
    sf_runtime_release(w.rt);
    mdb_txn_abort(w.txn);
    mdb_env_close(w.env);
    return 0;
}
