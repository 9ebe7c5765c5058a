/* One shard over a store that counts, holds back and damages: what each operation answers, and what it asks for. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pin.h"

#define CACHED (UINT64_C(64) << 20)
/* One run of two SSTs: the first is too large to be read whole at open and has a filter, the second has neither. */
#define BIG "0.13.1-u64be_compacted"
#define BIG_FILTERED 4246 /* rows in the first */

struct world {
    struct env env;
    sf_store *memory;
    struct probe_store *probe;
    struct fixture f;
    sf_shard *shard;
};

/* The probe is written on the loop thread only: so it is read and reset there, too. */
static void reset_on_loop(void *arg)
{
    probe_reset(arg);
}

static void probe_clear(struct world *w)
{
    on_loop(w->env.rt->loop, reset_on_loop, w->probe);
}

static void world_load(struct world *w, const char *name, const char *rows, uint64_t cache_bytes)
{
    static unsigned no;
    char space[64];

    *w = (struct world){0};
    env_init(&w->env, cache_bytes);
    snprintf(space, sizeof(space), "shard-test-%u", no++);
    w->memory = memory_store(&w->env, space);
    if (!fixture_load(&w->f, name, rows))
        fail_msg("%s: no such fixture", name);
    fixture_into_store(w->f.dir, w->memory);
    w->probe = probe_new(w->memory);
}

static void world_open(struct world *w, const char *checkpoint)
{
    sf_error e = SF_ERROR_INIT;

    if (shard_open(&w->env, &w->probe->base, "db", checkpoint, &w->shard, &e) != SF_OK)
        fail_msg("open: %s", e.message);
}

static void world_begin(struct world *w, const char *name, uint64_t cache_bytes)
{
    world_load(w, name, "expected.jsonl", cache_bytes);
    world_open(w, NULL);
    probe_clear(w);
}

static void world_end(struct world *w)
{
    assert_int_equal(w->probe->requests, w->probe->gets + w->probe->lists); /* reading never writes */
    sf__shard_release(w->shard);
    sf__store_release(&w->probe->base);
    sf__store_release(w->memory);
    fixture_free(&w->f);
    env_cleanup(&w->env);
}

static sf_bytes key_at(const struct world *w, size_t i)
{
    return (sf_bytes){w->f.rows[i].k, w->f.rows[i].kn};
}

static void assert_row(struct world *w, size_t i, const sf_value *v)
{
    if (!v->found || !expected_is(&w->f.rows[i], v->bytes))
        fail_msg("row %zu: %s", i, v->found ? "another value" : "not found");
}

/* ------------------------------------------------------------------ look-ups ------------------------------------- */

static void many_keys_in_any_order(void **state)
{
    static const char *const names[] = {"0.13.1-mixed", "0.12.1-versions", "0.17.0-segments", "0.13.1-edge_keys",
                                        "0.17.0-mixed_codecs"};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        struct world w;
        const cJSON *absent;
        sf_bytes *keys;
        uint8_t **owned;
        size_t count = 0, total;
        struct got g;

        world_begin(&w, names[n], CACHED);
        absent = cJSON_GetObjectItem(w.f.meta, "absent_keys");
        total = 2 * w.f.count + (size_t)cJSON_GetArraySize(absent);
        keys = calloc(total, sizeof(*keys));
        owned = calloc(total, sizeof(*owned));
        for (; count < 2 * w.f.count; count++) /* backwards, each twice, absent ones behind */
            keys[count] = key_at(&w, w.f.count - 1 - count / 2);
        for (const cJSON *a = absent ? absent->child : NULL; a; a = a->next, count++) {
            size_t bytes = unhex(a->valuestring, &owned[count]);

            keys[count] = sf_bytes_of(owned[count], bytes);
        }
        get_begin(&g, w.shard, keys, count, SF_NO_DEADLINE);
        get_wait(&g);
        assert_int_equal(g.error.code, SF_OK);
        for (size_t i = 0; i < count; i++) {
            size_t row = i < 2 * w.f.count ? w.f.count - 1 - i / 2 : w.f.count;

            assert_int_equal(g.status[i], SF_OK);
            if (row < w.f.count)
                assert_row(&w, row, &g.values[i]);
            else
                assert_false(g.values[i].found);
        }
        get_free(&g);
        for (size_t i = 0; i < total; i++)
            free(owned[i]);
        free(owned);
        free(keys);
        world_end(&w);
    }
}

static void an_empty_batch_is_answered(void **state)
{
    struct world w;
    struct got g;
    sf_value v;
    sf_error e = SF_ERROR_INIT;

    world_begin(&w, "0.13.1-mixed", CACHED);
    get_begin(&g, w.shard, NULL, 0, SF_NO_DEADLINE);
    get_wait(&g);
    assert_int_equal(g.error.code, SF_OK);
    get_free(&g);
    assert_int_equal(get_one(w.shard, sf_bytes_of(NULL, 0), &v, &e), SF_OK); /* no row has an empty key */
    assert_false(v.found);
    assert_int_equal(w.probe->requests, 0);
    world_end(&w);
}

static void warm_look_ups_need_no_request(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;

    world_begin(&w, BIG, CACHED);
    for (size_t i = 0; i < w.f.count; i += 97) {
        sf_value cold = {0}, warm = {0};
        sf_buf *owner;

        assert_int_equal(get_one(w.shard, key_at(&w, i), &cold, &e), SF_OK);
        assert_row(&w, i, &cold);
        probe_clear(&w);
        assert_int_equal(try_one(w.shard, key_at(&w, i), &warm, &e), SF_OK);
        assert_row(&w, i, &warm);
        assert_ptr_equal(warm.bytes.p, cold.bytes.p); /* no copy */
        owner = warm.owner;
        assert_int_equal(w.probe->requests, 0);
        sf__owner_release(cold.owner);
        assert_row(&w, i, &warm);
        sf__owner_release(owner);
    }
    world_end(&w);
}

static void values_outlive_cache_and_shard(void **state)
{
    struct world w;
    sf_value v = {0};
    sf_error e = SF_ERROR_INIT;

    world_begin(&w, BIG, 0);
    assert_int_equal(get_one(w.shard, key_at(&w, 17), &v, &e), SF_OK);
    sf__shard_release(w.shard);
    w.shard = NULL;
    assert_row(&w, 17, &v);
    sf__owner_release(v.owner);
    world_end(&w);
}

/* ------------------------------------------------------------------ what look-ups cost --------------------------- */

static void a_cold_look_up_is_one_get(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;

    world_begin(&w, BIG, 0);
    for (size_t i = 0; i < w.f.count; i += 53) {
        sf_value v = {0};

        assert_int_equal(try_one(w.shard, key_at(&w, i), &v, &e), SF_WOULD_BLOCK);
        assert_int_equal(get_one(w.shard, key_at(&w, i), &v, &e), SF_OK);
        assert_row(&w, i, &v);
        sf__owner_release(v.owner);
        assert_int_equal(w.probe->requests, 1);
        assert_int_equal(w.probe->gets, 1);
        assert_true(w.probe->last_len < 8192); /* the block, not the object */
        probe_clear(&w);
    }
    world_end(&w);
}

/* Requests for *count look-ups of keys that are not there: keys of the first rows with one more byte. */
static unsigned requests_for_absent(struct world *w, size_t rows, size_t *count)
{
    unsigned requests = 0;

    *count = 0;
    for (size_t i = 0; i < rows; i++) {
        uint8_t key[64];
        sf_value v = {0};
        sf_error e = SF_ERROR_INIT;
        size_t n = w->f.rows[i].kn;

        if (n >= sizeof(key))
            continue;
        memcpy(key, w->f.rows[i].k, n);
        key[n] = 0x21;
        if (fixture_find(&w->f, sf_bytes_of(key, n + 1)) < w->f.count)
            continue;
        assert_int_equal(get_one(w->shard, sf_bytes_of(key, n + 1), &v, &e), SF_OK);
        assert_false(v.found);
        requests += w->probe->requests;
        (*count)++;
        probe_clear(w);
    }
    return requests;
}

static void excluded_keys_ask_for_nothing(void **state)
{
    struct world w;
    sf_value v = {0};
    sf_error e = SF_ERROR_INIT;
    size_t count;
    unsigned requests;

    world_begin(&w, BIG, 0);                                                       /* keys 0..5000 as u64be */
    assert_int_equal(get_one(w.shard, sf_bytes_of("\xff\xff", 2), &v, &e), SF_OK); /* above all ranges */
    assert_false(v.found);
    assert_int_equal(get_one(w.shard, sf_bytes_of("\0", 1), &v, &e), SF_OK); /* below */
    assert_false(v.found);
    assert_int_equal(w.probe->requests, 0);
    requests = requests_for_absent(&w, BIG_FILTERED, &count);
    if (count < 1000 || requests > count / 20) /* 10 bits a key: about 1 in 120 passes the filter */
        fail_msg("%u requests for %zu absent keys", requests, count);
    world_end(&w);

    world_begin(&w, "0.12.1-bloom_off", 0); /* the counter-proof: without filters absent keys cost requests */
    requests = requests_for_absent(&w, w.f.count, &count);
    if (requests < count / 2)
        fail_msg("only %u requests for %zu absent keys without a filter", requests, count);
    world_end(&w);
}

static void neighbours_share_requests(void **state)
{
    struct world w;
    struct got g;
    sf_bytes *keys;

    world_begin(&w, BIG, 0);
    keys = calloc(w.f.count, sizeof(*keys));
    for (size_t i = 0; i < w.f.count; i++)
        keys[i] = key_at(&w, i);
    get_begin(&g, w.shard, keys, w.f.count, SF_NO_DEADLINE);
    get_wait(&g);
    assert_int_equal(g.error.code, SF_OK);
    for (size_t i = 0; i < w.f.count; i++)
        assert_row(&w, i, &g.values[i]);
    get_free(&g);
    assert_int_equal(w.probe->gets, 2); /* all blocks of each of the two SSTs */
    assert_int_equal(w.probe->rounds, 1);
    probe_clear(&w);
    keys[1] = keys[w.f.count - 1]; /* two blocks far apart */
    get_begin(&g, w.shard, keys, 2, SF_NO_DEADLINE);
    get_wait(&g);
    assert_int_equal(w.probe->gets, 2);
    assert_int_equal(w.probe->rounds, 1);
    assert_true(w.probe->bytes < 16384);
    get_free(&g);
    free(keys);
    world_end(&w);
}

/* Blocks that are near one another come with one request, and what lies between them is passed over: nothing is made of it. */
static void near_blocks_share_requests(void **state)
{
    static const struct {
        const char *name;
        sf_read_cost cost;
        unsigned least, most; /* requests */
    } cases[] = {
        {"neighbours only", {0, 1 << 20}, 8, 1000},
        {"within 32 KiB", {32 << 10, 1 << 20}, 2, 4},
        {"at most 24 KiB each", {32 << 10, 24 << 10}, 5, 1000},
    };

    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct world w;
        struct got g;
        sf_bytes *keys;
        size_t n = 0;

        shard_cost = cases[c].cost;
        world_begin(&w, BIG, 0);
        shard_cost = (sf_read_cost){0, 1 << 20};
        keys = calloc(w.f.count, sizeof(*keys));
        for (size_t i = 0; i < w.f.count; i += w.f.count / 20)
            keys[n++] = key_at(&w, i);
        get_begin(&g, w.shard, keys, n, SF_NO_DEADLINE);
        get_wait(&g);
        assert_int_equal(g.error.code, SF_OK);
        for (size_t i = 0; i < n; i++)
            assert_row(&w, i * (w.f.count / 20), &g.values[i]);
        get_free(&g);
        if (w.probe->gets < cases[c].least || w.probe->gets > cases[c].most || w.probe->rounds != 1)
            fail_msg("%s: %u requests for %zu keys in %u rounds", cases[c].name, w.probe->gets, n, w.probe->rounds);
        probe_clear(&w);
        get_begin(&g, w.shard, keys, n, SF_NO_DEADLINE); /* nothing is kept here: the same again */
        get_wait(&g);
        for (size_t i = 0; i < n; i++)
            assert_row(&w, i * (w.f.count / 20), &g.values[i]);
        get_free(&g);
        free(keys);
        world_end(&w);
    }
}

/* Once they stay no look-up asks for blocks, whatever the cache does. */
static void blocks_that_stay(void **state)
{
    struct staying s;
    struct world w;
    uint64_t room = 0;

    world_begin(&w, BIG, 64 << 20);
    assert_int_equal(stay(w.shard, &s, SF_RESIDENCY_MEMORY, false), SF_OK);
    assert_int_equal(s.bytes, w.shard->vtable->resident_bytes(w.shard, SF_RESIDENCY_MEMORY, &room));
    assert_int_equal(s.bytes, room);
    assert_true(s.bytes > 0);
    probe_clear(&w);
    assert_int_equal(stay(w.shard, &s, SF_RESIDENCY_MEMORY, false), SF_OK); /* what is there is not read again */
    assert_int_equal(s.bytes, 0);
    sf__block_cache_charge(w.shard->cache, 64 << 20); /* others take all that there is: that is no matter of what is there */
    assert_int_equal(stay(w.shard, &s, SF_RESIDENCY_MEMORY, false), SF_OK);
    sf__block_cache_charge(w.shard->cache, -(64 << 20));
    for (size_t i = 0; i < w.f.count; i++) {
        sf_value v;

        assert_int_equal(w.shard->vtable->try_get(w.shard, key_at(&w, i), &v, NULL, NULL), SF_OK);
        assert_row(&w, i, &v);
        sf__owner_release(v.owner);
    }
    assert_int_equal(w.probe->requests, 0);
    world_end(&w);

    world_begin(&w, BIG, 0);
    assert_int_equal(stay(w.shard, &s, SF_RESIDENCY_MEMORY, false), SF_EXHAUSTED); /* no more than the runtime may cache */
    world_end(&w);

    world_begin(&w, BIG, 64 << 20);
    assert_int_equal(stay(w.shard, &s, SF_RESIDENCY_MEMORY, true), SF_CANCELLED);
    assert_int_equal(w.shard->vtable->can_stay(w.shard, SF_RESIDENCY_DISK, NULL),
                     SF_UNSUPPORTED); /* a store in memory has no disk cache */
    world_end(&w);
}

struct pair {
    struct got a, b;
};

static void start_both(void *arg)
{
    struct pair *p = arg;

    p->a.shard->vtable->get_many(p->a.shard, &p->a.op);
    p->b.shard->vtable->get_many(p->b.shard, &p->b.op);
}

static void equal_reads_share_one_flight(void **state)
{
    struct world w;
    struct pair p;
    sf_bytes key;

    world_begin(&w, BIG, 0);
    key = key_at(&w, 1000);
    get_prepare(&p.a, w.shard, &key, 1, SF_NO_DEADLINE);
    get_prepare(&p.b, w.shard, &key, 1, SF_NO_DEADLINE);
    on_loop(w.env.rt->loop, start_both, &p);
    get_wait(&p.a);
    get_wait(&p.b);
    assert_row(&w, 1000, &p.a.values[0]);
    assert_row(&w, 1000, &p.b.values[0]);
    assert_int_equal(w.probe->gets, 1);
    get_free(&p.a);
    get_free(&p.b);
    world_end(&w);
}

/* ------------------------------------------------------------------ damage --------------------------------------- */

static bool is_error_key(const struct world *w, sf_bytes key)
{
    const cJSON *k;

    cJSON_ArrayForEach(k, cJSON_GetObjectItem(w->f.meta, "error_keys"))
    {
        uint8_t *bytes;
        size_t n = unhex(k->valuestring, &bytes);
        bool same = sf_bytes_eq(key, sf_bytes_of(bytes, n));

        free(bytes);
        if (same)
            return true;
    }
    return false;
}

static void damage_fails_only_its_keys(void **state)
{
    static const struct {
        const char *name;
        sf_status status;
    } rows[] = {
        {"0.13.1-corrupt_flip_data", SF_CORRUPT},
        {"0.13.1-corrupt_flip_run_data", SF_CORRUPT},
        {"0.17.0-corrupt_lz4_flip_data", SF_CORRUPT},
        {"0.13.1-merge", SF_MERGE_OPERATOR},
    };

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct world w;
        sf_bytes *keys;
        struct got g;
        unsigned failures = 0;

        world_begin(&w, rows[n].name, CACHED);
        keys = calloc(w.f.count, sizeof(*keys));
        for (size_t i = 0; i < w.f.count; i++)
            keys[i] = key_at(&w, i);
        get_begin(&g, w.shard, keys, w.f.count, SF_NO_DEADLINE);
        get_wait(&g);
        for (size_t i = 0; i < w.f.count; i++) {
            bool damaged = is_error_key(&w, keys[i]);

            if (g.status[i] != (damaged ? rows[n].status : SF_OK))
                fail_msg("%s: row %zu: %s", rows[n].name, i, sf_status_name(g.status[i]));
            if (damaged)
                assert_false(g.values[i].found);
            else
                assert_row(&w, i, &g.values[i]);
            failures += damaged;
        }
        if (rows[n].status == SF_CORRUPT) {
            assert_true(failures > 0);
            assert_int_equal(g.error.code, SF_CORRUPT);
            assert_non_null(strstr(g.error.message, "compacted/"));
            assert_non_null(strstr(g.error.message, "data block at "));
            assert_non_null(strstr(g.error.object, "compacted/"));
            assert_int_equal(g.error.db_id, 7);
        }
        get_free(&g);
        free(keys);
        world_end(&w);
    }
}

/* Answers that are damaged on their way are read once more; what stays damaged is reported, and not remembered. */
static void damage_is_read_once_more(void **state)
{
    static const struct {
        unsigned damaged_answers;
        sf_status status;
        unsigned gets;
    } rows[] = {{0, SF_OK, 1}, {1, SF_OK, 2}, {2, SF_CORRUPT, 2}, {3, SF_CORRUPT, 2}};

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct world w;
        sf_value v = {0};
        sf_error e = SF_ERROR_INIT;
        uint64_t at;

        world_begin(&w, BIG, CACHED);
        assert_int_equal(get_one(w.shard, key_at(&w, 2500), &v, &e), SF_OK);
        sf__owner_release(v.owner);
        at = w.probe->last_off + w.probe->last_len / 2;
        world_end(&w);

        world_begin(&w, BIG, CACHED);
        w.probe->damage = "compacted/";
        w.probe->damage_at = at;
        w.probe->damage_left = rows[n].damaged_answers;
        v = (sf_value){0};
        assert_int_equal(get_one(w.shard, key_at(&w, 2500), &v, &e), rows[n].status);
        assert_int_equal(w.probe->gets, rows[n].gets);
        if (rows[n].status == SF_OK)
            assert_row(&w, 2500, &v);
        sf__owner_release(v.owner);
        v = (sf_value){0};
        if (rows[n].damaged_answers == 2) { /* the store has recovered */
            assert_int_equal(get_one(w.shard, key_at(&w, 2500), &v, &e), SF_OK);
            assert_row(&w, 2500, &v);
            sf__owner_release(v.owner);
        }
        world_end(&w);
    }
}

/* The key range of an SST, which only the manifest has and no checksum covers, is compared with the file. */
static void wrong_key_ranges_are_noticed(void **state)
{
    static const struct {
        uint16_t from, to; /* the last bytes of a key in the manifest */
        sf_status open, get;
    } rows[] = {
        {0x1095, 0x1095, SF_OK, SF_OK},
        {0x1095, 0x0f95, SF_CORRUPT, SF_OK}, /* the first SST ends before its last block begins */
        {0x1095, 0x1096, SF_OK, SF_CORRUPT}, /* ... or behind its last key: whoever reads the last block is told */
        {0x1096, 0x1098, SF_CORRUPT, SF_OK}, /* the second is read whole at open */
        {0x1387, 0x1386, SF_CORRUPT, SF_OK},
        {0x1387, 0x1397, SF_CORRUPT, SF_OK},
    };
    char name[64] = "db/manifest/00000000000000000011.manifest", path[1024];

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        uint8_t bytes[4096], from[8] = {0}, *at;
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_value v = {0};
        sf_status rc;
        size_t size;
        FILE *f;

        world_load(&w, BIG, "expected.jsonl", 0);
        snprintf(path, sizeof(path), "%s/%s", w.f.dir, name);
        f = fopen(path, "rb");
        assert_non_null(f);
        size = fread(bytes, 1, sizeof(bytes), f);
        fclose(f);
        sf_store_be(from + 6, 2, rows[n].from);
        at = memmem(bytes, size, from, sizeof(from));
        assert_non_null(at);
        sf_store_be(at + 6, 2, rows[n].to);
        store_put(w.memory, name, bytes, size);
        rc = shard_open(&w.env, &w.probe->base, "db", NULL, &w.shard, &e);
        if (rc != rows[n].open)
            fail_msg("row %zu: %s: %s", n, sf_status_name(rc), e.message);
        if (rc == SF_OK && get_one(w.shard, key_at(&w, 0x1095), &v, &e) != rows[n].get)
            fail_msg("row %zu: get: %s", n, e.message);
        if (rc == SF_CORRUPT)
            assert_non_null(strstr(e.message, "with another key"));
        sf__owner_release(v.owner);
        world_end(&w);
    }
}

/* A scan, too, reads damage once more, and goes on behind a block that stays damaged only by failing there. */
static void scans_read_damage_once_more(void **state)
{
    struct world w;
    sf_scan_range all = {0};
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;
    size_t seen = 0;

    world_begin(&w, BIG, 0);
    w.probe->damage = "compacted/";
    w.probe->damage_at = 10; /* in the first block */
    w.probe->damage_left = 1;
    assert_int_equal(scan_begin(&r, w.shard, &all, &e), SF_OK);
    do {
        scan_step_begin(&r, 1000, 1 << 20, SF_NO_DEADLINE);
        scan_step_wait(&r);
        assert_int_equal(r.step.error.code, SF_OK);
        for (size_t i = 0; i < r.step.batch->count; i++, seen++)
            assert_true(sf_bytes_eq(r.step.batch->rows[i].key, key_at(&w, seen)));
        sf__row_batch_free(r.step.batch);
    } while (!r.step.end);
    scan_end(&r);
    assert_int_equal(seen, w.f.count);
    assert_int_equal(w.probe->damage_left, 0);
    world_end(&w);
}

/* ------------------------------------------------------------------ scans ---------------------------------------- */

/* Rows [from, to) of the fixture, in either direction, in steps of `step` rows. */
static void check_scan(struct world *w, const sf_scan_range *range, size_t from, size_t to, size_t step, const char *what)
{
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;
    size_t seen = 0, wanted = to > from ? to - from : 0;
    bool end = false;

    assert_int_equal(scan_begin(&r, w->shard, range, &e), SF_OK);
    while (!end) {
        scan_step_begin(&r, step, SIZE_MAX, SF_NO_DEADLINE);
        scan_step_wait(&r);
        if (r.step.error.code != SF_OK)
            fail_msg("%s: %s", what, r.step.error.message);
        if (r.step.batch->count > step || (r.step.batch->count == 0 && !r.step.end))
            fail_msg("%s: %zu rows in a step of %zu", what, r.step.batch->count, step);
        for (size_t i = 0; i < r.step.batch->count; i++, seen++) {
            size_t at = range->reverse ? to - 1 - seen : from + seen;
            const sf_row *row = &r.step.batch->rows[i];

            if (seen >= wanted || !sf_bytes_eq(row->key, key_at(w, at)) || !expected_is(&w->f.rows[at], row->value))
                fail_msg("%s: row %zu of %zu is not the expected one", what, seen, wanted);
        }
        end = r.step.end;
        sf__row_batch_free(r.step.batch);
    }
    scan_end(&r);
    if (seen != wanted)
        fail_msg("%s: %zu rows of %zu", what, seen, wanted);
}

static size_t lower_bound(const struct world *w, sf_bytes key)
{
    size_t i = 0;

    while (i < w->f.count && sf_bytes_cmp(key_at(w, i), key) < 0)
        i++;
    return i;
}

static void scans_keep_to_their_bounds(void **state)
{
    static const char *const names[] = {"0.13.1-mixed",     "0.17.0-segments",    "0.12.1-versions", "0.13.1-edge_keys",
                                        "0.17.0-many_runs", "0.13.1-deleted_all", "0.12.1-empty"};
    static const size_t steps[] = {1, 3, 1000};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        struct world w;
        char what[128];

        world_begin(&w, names[n], n % 2 ? CACHED : 0);
        for (unsigned pick = 0; pick < 24; pick++) {
            size_t a = w.f.count ? (pick * 37u) % w.f.count : 0, b = w.f.count ? (pick * 101u + 11) % w.f.count : 0;
            sf_scan_range range = {.reverse = pick % 2};
            uint8_t between[200];
            sf_bytes lo = {NULL, 0}, hi = {NULL, 0};

            if (w.f.count > 0 && pick % 4 != 0) { /* a stored key, or a little above one */
                lo = key_at(&w, a < b ? a : b);
                hi = key_at(&w, a < b ? b : a);
                if (pick % 3 == 0 && lo.n < sizeof(between)) {
                    memcpy(between, lo.p, lo.n);
                    between[lo.n] = 0;
                    lo = sf_bytes_of(between, lo.n + 1);
                }
                range.has_end = pick % 5 != 0;
            }
            range.start = lo;
            range.end = range.has_end ? hi : (sf_bytes){NULL, 0};
            snprintf(what, sizeof(what), "%s: scan %u", names[n], pick);
            check_scan(&w, &range, lower_bound(&w, lo), range.has_end ? lower_bound(&w, hi) : w.f.count,
                       steps[pick % 3], what);
        }
        if (w.f.count > 2) { /* nothing lies in an empty range, or one that ends before it begins */
            sf_scan_range none = {.start = key_at(&w, 2), .end = key_at(&w, 2), .has_end = true};

            check_scan(&w, &none, 0, 0, 10, "empty range");
            none.end = key_at(&w, 0);
            none.reverse = true;
            check_scan(&w, &none, 0, 0, 10, "reversed range");
        }
        world_end(&w);
    }
}

static void a_scan_reads_ahead_in_large_pieces(void **state)
{
    struct world w;
    sf_scan_range all = {0};

    for (int reverse = 0; reverse < 2; reverse++) {
        world_begin(&w, BIG, 0);
        all.reverse = reverse;
        check_scan(&w, &all, 0, w.f.count, 500, reverse ? "backward" : "forward");
        assert_true(w.probe->gets <= 8); /* windows of 64 KiB, then larger ones: not one GET a block */
        world_end(&w);
    }
}

struct asked_for {
    const struct world *w;
    uint64_t bytes, gets;
};

static void read_asked_for(void *arg)
{
    struct asked_for *a = arg;

    a->bytes = a->w->probe->bytes;
    a->gets = a->w->probe->gets;
}

/* What has been asked of storage; scans read ahead while their callers do other things. */
static struct asked_for asked_for(const struct world *w)
{
    struct asked_for a = {.w = w};

    on_loop(w->env.rt->loop, read_asked_for, &a);
    return a;
}

/* However many scans are merged: together they ask for no more than they may hold, but for a block each. */
static void merged_scans_share_a_buffer(void **state)
{
    static const struct {
        uint64_t buffer_bytes;  /* of each of the scans */
        uint64_t asked_for_max; /* until the first row is there */
    } cases[] = {{0, 24 * (5 << 10)},
                 {2 << 10, 24 * (5 << 10)},
                 {32 << 10, 24 * (32 << 10)},
                 {UINT64_C(16) << 20, 24 * (128 << 10)}};

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++)
        for (int reverse = 0; reverse < 2; reverse++) {
            struct world w;
            struct scan_run r = {.gate = GATE_INIT};
            sf_scan_range range = {.reverse = reverse};
            sf_error e = SF_ERROR_INIT;
            size_t seen = 0;

            world_begin(&w, BIG, 0);
            r.shard = w.shard;
            assert_int_equal(sf__scan_merge_init(&r.merge, w.env.rt, 24, reverse, 3000, &e), SF_OK);
            for (unsigned i = 0; i < 24; i++) { /* the same shard: every key comes from each of them */
                sf_shard_scan *scan;

                assert_int_equal(w.shard->vtable->scan_open(w.shard, &range, cases[n].buffer_bytes, &scan, &e), SF_OK);
                sf__scan_merge_add(&r.merge, scan);
            }
            for (r.step.end = false; !r.step.end;) {
                scan_step_begin(&r, 100, SIZE_MAX, SF_NO_DEADLINE);
                scan_step_wait(&r);
                assert_int_equal(r.step.error.code, SF_OK);
                if (seen == 0 && asked_for(&w).bytes > cases[n].asked_for_max)
                    fail_msg("too many bytes were asked for, case %zu", n);
                for (size_t i = 0; i < r.step.batch->count; i++, seen++)
                    assert_true(sf_bytes_eq(r.step.batch->rows[i].key,
                                            key_at(&w, reverse ? w.f.count - 1 - seen / 24 : seen / 24)));
                sf__row_batch_free(r.step.batch);
            }
            assert_int_equal(seen, 3000);
            scan_end(&r);
            world_end(&w);
        }
}

/* Many rows at a time, but for a scan that may hold hardly more than those would take. */
static void only_what_may_hold_more_shows_many_rows(void **state)
{
    static const struct {
        uint64_t buffer_bytes;
        bool reverse, many;
    } cases[] = {
        {0, false, false}, {4 << 10, false, false}, {4 << 10, true, false}, {1 << 20, false, true}, {1 << 20, true, true}};

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        struct world w;
        struct scan_run r = {.gate = GATE_INIT};
        sf_scan_range range = {.reverse = cases[n].reverse, .limit = UINT64_MAX};
        sf_error e = SF_ERROR_INIT;
        sf_shard_scan *scan;

        world_begin(&w, "0.12.1-one_run", 0);
        r.shard = w.shard;
        assert_int_equal(sf__scan_merge_init(&r.merge, w.env.rt, 1, cases[n].reverse, UINT64_MAX, &e), SF_OK);
        assert_int_equal(w.shard->vtable->scan_open(w.shard, &range, cases[n].buffer_bytes, &scan, &e), SF_OK);
        sf__scan_merge_add(&r.merge, scan);
        scan_step_begin(&r, 1, SIZE_MAX, SF_NO_DEADLINE);
        scan_step_wait(&r);
        assert_int_equal(r.step.error.code, SF_OK);
        assert_int_equal(scan->at, SF_SCAN_AT_ROW);
        assert_int_equal(scan->count > 1, cases[n].many);
        sf__row_batch_free(r.step.batch);
        scan_end(&r);
        world_end(&w);
    }
}

/* What memory has is had on the calling thread; else it is being read already, and a step waits for it. */
static void tries_what_memory_has(void **state)
{
    struct world w;
    struct scan_run r;
    sf_scan_range all = {0};
    sf_scan_limits limits = {.max_rows = 50, .max_bytes = SIZE_MAX};
    sf_error e = SF_ERROR_INIT;
    size_t seen = 0, tried = 0;
    bool end = false;

    world_begin(&w, BIG, 0);
    assert_int_equal(scan_begin(&r, w.shard, &all, &e), SF_OK);
    while (!end) {
        sf_row_batch *batch = NULL;
        sf_status rc = sf__scan_merge_try(&r.merge, &limits, &batch, &end, &e);

        if (rc == SF_WOULD_BLOCK) {
            assert_null(batch);
            scan_step_begin(&r, 50, SIZE_MAX, SF_NO_DEADLINE);
            scan_step_wait(&r);
            assert_int_equal(r.step.error.code, SF_OK);
            batch = r.step.batch;
            end = r.step.end;
        } else {
            assert_int_equal(rc, SF_OK);
            tried++;
        }
        assert_in_range(batch->count, end ? 0 : 1, 50);
        for (size_t i = 0; i < batch->count; i++, seen++)
            assert_true(sf_bytes_eq(batch->rows[i].key, key_at(&w, seen)));
        sf__row_batch_free(batch);
    }
    assert_int_equal(seen, w.f.count);
    assert_true(tried > 10 * asked_for(&w).gets);
    scan_end(&r);
    world_end(&w);
}

static void short_scans_read_little(void **state)
{
    struct world w;
    struct scan_run r;
    sf_error e = SF_ERROR_INIT;
    sf_scan_range range = {.has_end = true};

    world_begin(&w, BIG, 0);
    range.start = key_at(&w, 700);
    range.end = key_at(&w, 703);
    assert_int_equal(scan_begin(&r, w.shard, &range, &e), SF_OK);
    scan_step_begin(&r, 100, SIZE_MAX, SF_NO_DEADLINE);
    scan_step_wait(&r);
    assert_int_equal(r.step.batch->count, 3);
    assert_true(r.step.end);
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
    assert_int_equal(w.probe->gets, 1);
    assert_true(w.probe->bytes <= 16384);
    world_end(&w);
}

/* ------------------------------------------------------------------ checkpoints, clones -------------------------- */

static void checkpoints_pin_their_rows(void **state)
{
    static const char *const names[] = {"0.12.1-checkpoint", "0.13.1-checkpoint", "0.13.1-checkpoint_wal",
                                        "0.17.0-checkpoint_wal"};
    static const char *const others[] = {"00000000-0000-0000-0000-000000000000", "", "no uuid"};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        struct world w;
        sf_scan_range all = {0};
        sf_shard *none = NULL;
        sf_error e = SF_ERROR_INIT;

        world_load(&w, names[n], "expected_checkpoint.jsonl", CACHED);
        world_open(&w, cJSON_GetObjectItem(w.f.meta, "checkpoint_id")->valuestring);
        check_scan(&w, &all, 0, w.f.count, 100, names[n]);
        for (size_t i = 0; i < w.f.count; i += 7) {
            sf_value v = {0};

            assert_int_equal(get_one(w.shard, key_at(&w, i), &v, &e), SF_OK);
            assert_row(&w, i, &v);
            sf__owner_release(v.owner);
        }
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
            assert_int_equal(shard_open(&w.env, &w.probe->base, "db", others[i], &none, &e), SF_INVALID);
            assert_non_null(strstr(e.message, "checkpoint"));
        }
        world_end(&w);
    }
}

static void clones_read_their_parents(void **state)
{
    static const char *const names[] = {"0.12.1-clone", "0.17.0-clone", "0.17.0-clone_projection"};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        for (int reverse = 0; reverse < 2; reverse++) {
            struct world w;
            sf_scan_range all = {.reverse = reverse};
            sf_error e = SF_ERROR_INIT;

            world_begin(&w, names[n], reverse ? 0 : CACHED);
            check_scan(&w, &all, 0, w.f.count, 10, names[n]);
            for (size_t i = 0; i < w.f.count; i++) {
                sf_value v = {0};

                assert_int_equal(get_one(w.shard, key_at(&w, i), &v, &e), SF_OK);
                assert_row(&w, i, &v);
                sf__owner_release(v.owner);
            }
            world_end(&w);
        }
    }
}

/* The parent's rows outside of the projection are there, and must not show. */
static void visible_ranges_hide_rows(void **state)
{
    struct world w, parent;
    sf_error e = SF_ERROR_INIT;
    unsigned hidden = 0;
    struct scan_run r;
    sf_scan_range all = {0};
    sf_shard *shard = NULL;

    world_begin(&w, "0.17.0-clone_projection", 0);
    world_load(&parent, "0.17.0-clone_projection", "expected.jsonl", CACHED);
    assert_int_equal(shard_open(&parent.env, &parent.probe->base, "parent", NULL, &shard, &e), SF_OK);
    parent.shard = shard;
    assert_int_equal(scan_begin(&r, shard, &all, &e), SF_OK);
    scan_step_begin(&r, 10000, SIZE_MAX, SF_NO_DEADLINE);
    scan_step_wait(&r);
    assert_int_equal(r.step.error.code, SF_OK);
    for (size_t i = 0; i < r.step.batch->count; i++) {
        sf_bytes key = r.step.batch->rows[i].key;
        sf_value v = {0};

        if (fixture_find(&w.f, key) < w.f.count || (key.n > 0 && sf_bytes_cmp(key, sf_bytes_str("key000050")) >= 0 &&
                                                    sf_bytes_cmp(key, sf_bytes_str("key000210")) < 0))
            continue;
        probe_clear(&w);
        assert_int_equal(get_one(w.shard, key, &v, &e), SF_OK);
        assert_false(v.found);
        assert_int_equal(w.probe->requests, 0);
        hidden++;
    }
    assert_true(hidden > 10);
    sf__row_batch_free(r.step.batch);
    scan_end(&r);
    world_end(&parent);
    world_end(&w);
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

static void opening_is_few_round_trips(void **state)
{
    static const char *const names[] = {"0.13.1-mixed", "0.17.0-many_l0", "0.12.1-wal_only_reopened", BIG};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        struct world w;

        world_load(&w, names[n], "expected.jsonl", CACHED);
        world_open(&w, NULL);
        if (w.probe->rounds > 4) /* listings, manifest, parts; a second listing of the WAL at most */
            fail_msg("%s: %u round trips", names[n], w.probe->rounds);
        world_end(&w);
    }
}

static void opening_says_what_is_missing(void **state)
{
    static const struct {
        const char *name;
        sf_status status;
        const char *object;
    } rows[] = {
        {"0.13.1-corrupt_missing_l0", SF_NOT_FOUND, "db/compacted/"},
        {"0.13.1-corrupt_no_manifest", SF_NOT_FOUND, "db/manifest/"},
        {"0.13.1-corrupt_zero_manifest", SF_CORRUPT, "db/manifest/"},
        {"0.13.1-corrupt_manifest_version", SF_UNSUPPORTED, "db/manifest/"},
        {"0.13.1-corrupt_flip_index", SF_CORRUPT, "db/compacted/"},
        {"0.13.1-corrupt_flip_wal", SF_CORRUPT, "db/wal/"},
        {"0.13.1-corrupt_sst_version_wal", SF_UNSUPPORTED, "db/wal/"},
    };

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct world w;
        sf_error e = SF_ERROR_INIT;

        world_load(&w, rows[n].name, "expected.jsonl", CACHED);
        if (shard_open(&w.env, &w.probe->base, "db", NULL, &w.shard, &e) != rows[n].status)
            fail_msg("%s: %s: %s", rows[n].name, sf_status_name(e.code), e.message);
        assert_null(w.shard);
        assert_int_equal(e.db_id, 7);
        if (!strstr(e.object, rows[n].object) || !strstr(e.message, rows[n].object))
            fail_msg("%s: object %s, message %s", rows[n].name, e.object, e.message);
        world_end(&w);
    }
}

static void a_manifest_that_vanishes_is_listed_again(void **state)
{
    for (unsigned lost = 0; lost < 4; lost++) {
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        world_load(&w, "0.13.1-mixed", "expected.jsonl", CACHED);
        w.probe->lose = "db/manifest/";
        w.probe->lose_left = lost;
        rc = shard_open(&w.env, &w.probe->base, "db", NULL, &w.shard, &e);
        if (rc != SF_OK)
            fail_msg("%u lost: %s", lost, e.message);
        assert_int_equal(w.probe->lose_left, 0);
        world_end(&w);
    }
}

/* What a listing says bounds what is asked for; more than anybody stores is refused unread, a false size is damage. */
static void sizes_in_listings_are_bounds(void **state)
{
    static const struct {
        const char *object;
        uint64_t size;
        sf_status status;
    } rows[] = {
        {"wal/00000000000000000002.sst", UINT64_C(1) << 40, SF_UNSUPPORTED},
        {"wal/00000000000000000002.sst", UINT64_MAX, SF_UNSUPPORTED},
        {"wal/00000000000000000002.sst", 1 << 20, SF_CORRUPT},
        {".manifest", UINT64_C(1) << 40, SF_UNSUPPORTED},
        {".manifest", UINT64_MAX, SF_UNSUPPORTED},
        {".manifest", 60, SF_CORRUPT},
        {".manifest", 1 << 20, SF_CORRUPT},
        {".manifest", 0, SF_OK}, /* not known */
    };

    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct world w;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        world_load(&w, "0.12.1-wal_only_reopened", "expected.jsonl", CACHED);
        w.probe->swell = rows[n].object;
        w.probe->swell_to = rows[n].size;
        rc = shard_open(&w.env, &w.probe->base, "db", NULL, &w.shard, &e);
        if (rc != rows[n].status || (rc != SF_OK && !strstr(e.message, "db/")))
            fail_msg("%s of %llu bytes: %s: %s", rows[n].object, (unsigned long long)rows[n].size, sf_status_name(rc),
                     e.message);
        if (rc == SF_UNSUPPORTED)
            assert_null(strstr(w.probe->last_key, rows[n].object));
        world_end(&w);
    }
}

static void sqlite_shards_are_told_apart(void **state)
{
    struct world w;
    sf_error e = SF_ERROR_INIT;

    world_load(&w, "0.13.1-corrupt_no_manifest", "expected.jsonl", CACHED);
    store_put(w.memory, "lite/shard.db", "SQLite format 3", 16);
    assert_int_equal(shard_open(&w.env, &w.probe->base, "lite", NULL, &w.shard, &e), SF_UNSUPPORTED);
    assert_non_null(strstr(e.message, "not supported by a reader that was made for SlateDB"));
    assert_int_equal(shard_open(&w.env, &w.probe->base, "lit", NULL, &w.shard, &e), SF_NOT_FOUND);
    world_end(&w);
}

/* ------------------------------------------------------------------ cancel and deadlines ------------------------- */

struct held {
    struct gate gate;
};

static void on_hold(void *ctx)
{
    gate_arrive(&((struct held *)ctx)->gate);
}

static void hold_next(struct world *w, struct held *h)
{
    *h = (struct held){.gate = GATE_INIT};
    probe_clear(w);
    w->probe->hold_at = 1;
    w->probe->on_hold = on_hold;
    w->probe->on_hold_ctx = h;
}

static void let_go(void *arg)
{
    probe_let_go(arg);
}

static void cancel_get(void *arg)
{
    struct got *g = arg;

    g->shard->vtable->get_many_cancel(g->shard, &g->op);
}

static void cancel_step(void *arg)
{
    struct scan_run *r = arg;

    sf__scan_merge_cancel(&r->merge);
}

static void cancel_open(void *arg)
{
    sf__slatedb_shard_open_cancel(&((struct opened *)arg)->op);
}

static void look_ups_can_be_cancelled(void **state)
{
    struct world w;
    struct held h;
    struct got g;
    sf_bytes key;

    world_begin(&w, BIG, CACHED);
    key = key_at(&w, 9);
    hold_next(&w, &h);
    get_begin(&g, w.shard, &key, 1, SF_NO_DEADLINE);
    gate_wait(&h.gate, 1);
    on_loop(w.env.rt->loop, cancel_get, &g);
    on_loop(w.env.rt->loop, cancel_get, &g); /* twice is harmless */
    get_wait(&g);
    assert_int_equal(g.status[0], SF_CANCELLED);
    get_free(&g);
    hold_next(&w, &h);
    get_begin(&g, w.shard, &key, 1, sf__deadline_in_ms(5));
    get_wait(&g);
    assert_int_equal(g.status[0], SF_TIMEOUT);
    get_free(&g);
    probe_clear(&w);
    get_begin(&g, w.shard, &key, 1, 0); /* over before it began */
    get_wait(&g);
    assert_int_equal(g.status[0], SF_TIMEOUT);
    assert_int_equal(w.probe->requests, 0);
    get_free(&g);
    get_begin(&g, w.shard, &key, 1, SF_NO_DEADLINE);
    get_wait(&g);
    assert_row(&w, 9, &g.values[0]);
    get_free(&g);
    world_end(&w);
}

/* Look-ups that wait for one block get one copy of it. */
static void look_ups_of_one_block_share_it(void **state)
{
    enum { GETS = 5 };
    struct got g[GETS];
    struct world w;
    struct held h;
    sf_bytes key;

    world_begin(&w, BIG, CACHED);
    key = key_at(&w, 9);
    hold_next(&w, &h);
    for (unsigned i = 0; i < GETS; i++)
        get_begin(&g[i], w.shard, &key, 1, SF_NO_DEADLINE);
    gate_wait(&h.gate, 1);
    on_loop(w.env.rt->loop, let_go, w.probe);
    for (unsigned i = 0; i < GETS; i++) {
        get_wait(&g[i]);
        assert_row(&w, 9, &g[i].values[0]);
        assert_ptr_equal(g[i].values[0].owner, g[0].values[0].owner);
    }
    assert_int_equal(w.probe->requests, 1);
    for (unsigned i = 0; i < GETS; i++)
        get_free(&g[i]);
    world_end(&w);
}

/* Steps that are cancelled or late leave what they have read to the next one. */
static void stopped_scans_lose_no_row(void **state)
{
    for (int reverse = 0; reverse < 2; reverse++) {
        struct world w;
        struct held h;
        struct scan_run r;
        sf_scan_range all = {.reverse = reverse};
        sf_error e = SF_ERROR_INIT;
        size_t seen = 0, cancelled = 0, late = 0;
        bool end = false;

        world_begin(&w, BIG, 0);
        assert_int_equal(scan_begin(&r, w.shard, &all, &e), SF_OK);
        for (unsigned n = 0; !end; n++) {
            bool cancel = n % 3 == 0, hurry = n % 3 == 1;

            if (cancel)
                hold_next(&w, &h); /* a step that has to ask waits */
            scan_step_begin(&r, 300, SIZE_MAX, hurry ? 0 : SF_NO_DEADLINE);
            if (cancel)
                on_loop(w.env.rt->loop, cancel_step, &r);
            scan_step_wait(&r);
            if (cancel) {
                on_loop(w.env.rt->loop, let_go, w.probe);
                probe_clear(&w);
            }
            if (r.step.error.code != SF_OK) {
                assert_int_equal(r.step.error.code, cancel ? SF_CANCELLED : SF_TIMEOUT);
                assert_true(cancel || hurry);
                assert_null(r.step.batch);
                cancelled += cancel;
                late += hurry;
                continue;
            }
            for (size_t i = 0; i < r.step.batch->count; i++, seen++)
                assert_true(sf_bytes_eq(r.step.batch->rows[i].key, key_at(&w, reverse ? w.f.count - 1 - seen : seen)));
            sf__row_batch_free(r.step.batch);
            end = r.step.end;
        }
        assert_int_equal(seen, w.f.count);
        assert_true(cancelled > 0 && late > 0);
        scan_end(&r);
        world_end(&w);
    }
}

static void a_scan_can_be_dropped_while_it_reads(void **state)
{
    struct world w;
    struct held h;
    struct scan_run r;
    sf_scan_range all = {0};
    sf_error e = SF_ERROR_INIT;

    world_begin(&w, BIG, 0);
    assert_int_equal(scan_begin(&r, w.shard, &all, &e), SF_OK);
    hold_next(&w, &h);
    scan_step_begin(&r, 10, SIZE_MAX, SF_NO_DEADLINE);
    gate_wait(&h.gate, 1);
    on_loop(w.env.rt->loop, cancel_step, &r);
    scan_step_wait(&r);
    assert_int_equal(r.step.error.code, SF_CANCELLED);
    scan_end(&r); /* what it asked for is still under way */
    assert_int_equal(scan_begin(&r, w.shard, &all, &e), SF_OK);
    scan_end(&r); /* never stepped */
    world_end(&w);
}

static void openings_can_be_cancelled(void **state)
{
    struct world w;
    unsigned requests, n;

    world_load(&w, "0.13.1-mixed", "expected.jsonl", CACHED);
    world_open(&w, NULL);
    requests = w.probe->requests;
    for (n = 1; n <= requests; n++) {
        struct held h = {.gate = GATE_INIT};
        struct opened o;

        probe_clear(&w);
        w.probe->hold_at = n;
        w.probe->on_hold = on_hold;
        w.probe->on_hold_ctx = &h;
        open_begin(&o, &w.env, &w.probe->base, "db", NULL, n % 2 ? SF_NO_DEADLINE : sf__deadline_in_ms(10));
        if (n % 2) { /* else the deadline passes then, or on the way there */
            gate_wait(&h.gate, 1);
            on_loop(w.env.rt->loop, cancel_open, &o);
        }
        assert_int_equal(open_wait(&o), n % 2 ? SF_CANCELLED : SF_TIMEOUT);
        assert_null(o.op.shard);
    }
    assert_true(n > 10);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_keys_in_any_order),
        cmocka_unit_test(an_empty_batch_is_answered),
        cmocka_unit_test(warm_look_ups_need_no_request),
        cmocka_unit_test(values_outlive_cache_and_shard),
        cmocka_unit_test(a_cold_look_up_is_one_get),
        cmocka_unit_test(look_ups_of_one_block_share_it),
        cmocka_unit_test(excluded_keys_ask_for_nothing),
        cmocka_unit_test(neighbours_share_requests),
        cmocka_unit_test(near_blocks_share_requests),
        cmocka_unit_test(blocks_that_stay),
        cmocka_unit_test(equal_reads_share_one_flight),
        cmocka_unit_test(damage_fails_only_its_keys),
        cmocka_unit_test(damage_is_read_once_more),
        cmocka_unit_test(wrong_key_ranges_are_noticed),
        cmocka_unit_test(scans_read_damage_once_more),
        cmocka_unit_test(scans_keep_to_their_bounds),
        cmocka_unit_test(a_scan_reads_ahead_in_large_pieces),
        cmocka_unit_test(merged_scans_share_a_buffer),
        cmocka_unit_test(only_what_may_hold_more_shows_many_rows),
        cmocka_unit_test(tries_what_memory_has),
        cmocka_unit_test(short_scans_read_little),
        cmocka_unit_test(checkpoints_pin_their_rows),
        cmocka_unit_test(clones_read_their_parents),
        cmocka_unit_test(visible_ranges_hide_rows),
        cmocka_unit_test(opening_is_few_round_trips),
        cmocka_unit_test(opening_says_what_is_missing),
        cmocka_unit_test(a_manifest_that_vanishes_is_listed_again),
        cmocka_unit_test(sizes_in_listings_are_bounds),
        cmocka_unit_test(sqlite_shards_are_told_apart),
        cmocka_unit_test(look_ups_can_be_cancelled),
        cmocka_unit_test(stopped_scans_lose_no_row),
        cmocka_unit_test(a_scan_can_be_dropped_while_it_reads),
        cmocka_unit_test(openings_can_be_cancelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
