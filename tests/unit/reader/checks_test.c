/* Verifying all shards of a snapshot, and comparing two: three runs of one prefix. With the n-th allocation
 * failing, too. */
#include "../../support/heap.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trial {
    struct test_heap heap;
    struct world world;
    bool failed; /* something did: SF_NOMEM is all that may come of it */
};

static bool went_well(struct trial *t, const char *what, sf_status rc, const sf_error *e)
{
    if (rc == SF_OK)
        return true;
    if (rc != SF_NOMEM || e->message[0] == '\0')
        fail_msg("%s: %s: %s", what, sf_status_name(rc), e->message);
    t->failed = true;
    return false;
}

static sf_snapshot *open_run(struct trial *t, unsigned n)
{
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    char ref[512], name[256];
    sf_reader *r = NULL;
    sf_snapshot *s = NULL;

    world_manifest_name(n, name);
    snprintf(ref, sizeof(ref), "s3://bucket/golden/history-three-runs/%s", name);
    o.manifest_ref = ref;
    o.relocate = true;
    o.lazy_shards = true;
    if (went_well(t, "open", sf_reader_open(&r, t->world.rt, PREFIX, &o, &e), &e))
        s = sf_reader_borrow(r, &e);
    sf_reader_free(r);
    return s;
}

/* ------------------------------------------------------------------ verifying ---------------------------------------- */

struct told {
    unsigned times;
    sf_verify_progress last;
};

static bool note_progress(void *ctx, const sf_verify_progress *p)
{
    struct told *t = ctx;

    assert_true(p->bytes >= t->last.bytes && p->rows >= t->last.rows && p->shards_done >= t->last.shards_done);
    t->times++;
    t->last = *p;
    return true;
}

static void check_verification(struct trial *t, sf_snapshot *s, uint32_t threads, uint32_t bad)
{
    sf_verification_options o = SF_VERIFICATION_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_verification *v = NULL;
    const sf_shard_verdict *verdicts;
    struct told told = {0};
    uint64_t rows = 0;
    size_t count;

    o.deep = true;
    o.threads = threads;
    o.progress = note_progress;
    o.ctx = &told;
    if (!went_well(t, "verify", sf_snapshot_verify(&v, s, &o, &e), &e)) {
        assert_null(v);
        return;
    }
    verdicts = sf_verification_verdicts(v, &count);
    assert_int_equal(count, 4);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(verdicts[i].db_id, i);
        if (!verdicts[i].first != (i != bad))
            fail_msg("shard %u: %s", i, verdicts[i].first ? verdicts[i].first->error.message : "good");
        rows += verdicts[i].result.rows;
    }
    if (bad >= count)
        assert_int_equal(rows, 120);
    assert_true(told.times > 0 && told.last.shards_done == 4 && told.last.shards_total == 4 && told.last.rows == rows);
    sf_verification_free(v);
}

static bool stop(void *ctx, const sf_verify_progress *p)
{
    (void)ctx;
    (void)p;
    return false;
}

static void delete_below(struct world *w, const char *prefix)
{
    const sf_object_entry *entries;
    sf_call *list;
    size_t count;

    assert_int_equal(sf_bucket_list(&list, w->bucket, prefix, NULL, 60000, NULL), SF_OK);
    entries = sf_call_entries(list, &count);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++)
        world_delete_object(w, entries[i].key);
    sf_call_release(list);
}

static void verdicts(void **state)
{
    struct trial t = {.world = *(struct world *)*state};
    sf_verification_options o = SF_VERIFICATION_OPTIONS_INIT;
    sf_snapshot *s = open_run(&t, 2);
    sf_verification *v = NULL;
    sf_error e = SF_ERROR_INIT;
    sf_shard_info info;
    char key[512];

    for (uint32_t threads = 0; threads < 6; threads++)
        check_verification(&t, s, threads, UINT32_MAX);
    o.progress = stop;
    assert_int_equal(sf_snapshot_verify(&v, s, &o, &e), SF_CANCELLED);
    o.progress_interval_ms = 0;
    assert_int_equal(sf_snapshot_verify(&v, s, &o, &e), SF_INVALID);
    assert_null(v);
    assert_true(sf_snapshot_get_shard(s, 1, &info));
    snprintf(key, sizeof(key), "copy/shards/run_id=run-002/db=00001/attempt=%02u/", info.attempt);
    sf_snapshot_give_back(s);
    delete_below(&t.world, key);
    s = open_run(&t, 2); /* whose shards are not open yet */
    for (uint32_t threads = 1; threads < 4; threads++)
        check_verification(&t, s, threads, 1);
    sf_snapshot_give_back(s);
}

/* ------------------------------------------------------------------ comparing ---------------------------------------- */

#define ROWS_MAX 1000

struct rows {
    size_t count;
    struct {
        uint8_t key[8];
        uint8_t value[128];
        size_t value_length;
    } row[ROWS_MAX];
};

static bool read_rows(struct trial *t, sf_snapshot *s, struct rows *out)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    const sf_row *rows;
    sf_scan *scan;
    size_t count = 1;
    bool good;

    out->count = 0;
    if (!went_well(t, "scan", sf_scan_open(&scan, s, &o, &e), &e))
        return false;
    while ((good = went_well(t, "scan", sf_scan_next(scan, 64, 60000, &rows, &count, &e), &e)) && count > 0) {
        for (size_t i = 0; i < count; i++) {
            assert_true(out->count < ROWS_MAX && rows[i].key.n == 8 && rows[i].value.n <= 128);
            memcpy(out->row[out->count].key, rows[i].key.p, 8);
            memcpy(out->row[out->count].value, rows[i].value.p, rows[i].value.n);
            out->row[out->count++].value_length = rows[i].value.n;
        }
    }
    sf_scan_close(scan);
    return good;
}

/* The number of changes that must come, by looking each key up in the other's rows. */
static size_t changes_of(const struct rows *from, const struct rows *to)
{
    size_t same = 0, both = 0;

    for (size_t i = 0; i < from->count; i++)
        for (size_t j = 0; j < to->count; j++)
            if (memcmp(from->row[i].key, to->row[j].key, 8) == 0) {
                both++;
                same += from->row[i].value_length == to->row[j].value_length &&
                        memcmp(from->row[i].value, to->row[j].value, to->row[j].value_length) == 0;
            }
    return from->count + to->count - both - same;
}

static bool has_row(const struct rows *r, sf_bytes key, sf_bytes value)
{
    for (size_t i = 0; i < r->count; i++)
        if (key.n == 8 && memcmp(r->row[i].key, key.p, 8) == 0)
            return r->row[i].value_length == value.n && memcmp(r->row[i].value, value.p, value.n) == 0;
    return false;
}

static void check_row_diff(struct trial *t, sf_snapshot *from, sf_snapshot *to, size_t step)
{
    static struct rows a, b;
    const sf_row_change *changes;
    sf_error e = SF_ERROR_INIT;
    sf_row_diff_progress p;
    sf_row_diff *d = NULL;
    size_t count, seen = 0;
    bool end = false, good;

    if (!read_rows(t, from, &a) || !read_rows(t, to, &b))
        return;
    if (!went_well(t, "diff", sf_row_diff_open(&d, from, to, &e), &e)) {
        assert_null(d);
        return;
    }
    do {
        good = went_well(t, "diff", sf_row_diff_next(d, step, 60000, &changes, &count, &end, &e), &e);
        for (size_t i = 0; good && i < count; i++, seen++) {
            const sf_row_change *c = &changes[i];

            assert_true(count <= step);
            assert_int_equal(has_row(&a, c->key, c->from), c->change != SF_ROW_ADDED);
            assert_int_equal(has_row(&b, c->key, c->to), c->change != SF_ROW_REMOVED);
        }
    } while (good && !end);
    sf_row_diff_get_progress(d, &p);
    if (good) {
        assert_int_equal(seen, changes_of(&a, &b));
        assert_int_equal(p.shards_done, p.shards_total);
        assert_int_equal(p.rows, from == to ? 0 : a.count + b.count);
    }
    sf_row_diff_close(d);
}

static bool count_facts(void *ctx, const sf_difference *d)
{
    unsigned *n = ctx;

    assert_true(d->name[0] != '\0');
    return ++*n != 3;
}

static void differences(void **state)
{
    struct trial t = {.world = *(struct world *)*state};
    sf_snapshot *runs[3];
    sf_error e = SF_ERROR_INIT;
    const sf_row_change *changes;
    sf_row_diff *d = NULL;
    unsigned facts;
    size_t count;
    bool end;

    for (unsigned n = 0; n < 3; n++)
        runs[n] = open_run(&t, n);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < 3; j++) {
            check_row_diff(&t, runs[i], runs[j], i + 1);
            facts = 0;
            assert_int_equal(sf_snapshot_compare(runs[i], runs[j], count_facts, &facts, &e), SF_OK);
            assert_int_equal(facts, i == j ? 0 : 3); /* and then nobody listens any more */
        }
    assert_int_equal(sf_row_diff_open(&d, runs[0], runs[1], NULL), SF_OK);
    assert_int_equal(sf_row_diff_next(d, 0, 60000, &changes, &count, &end, &e), SF_INVALID);
    sf_row_diff_close(d);
    sf_row_diff_close(NULL);
    sf_verification_free(NULL);
    for (unsigned n = 0; n < 3; n++)
        sf_snapshot_give_back(runs[n]);
}

/* ------------------------------------------------------------------ without memory ----------------------------------- */

static void check_all(struct trial *t)
{
    sf_snapshot *from = open_run(t, 1), *to = open_run(t, 2);
    sf_error e = SF_ERROR_INIT;
    unsigned facts = 0;

    if (from && to) {
        check_verification(t, to, 1, UINT32_MAX);
        went_well(t, "compare", sf_snapshot_compare(from, to, count_facts, &facts, &e), &e);
        check_row_diff(t, from, to, 100);
    }
    sf_snapshot_give_back(from);
    sf_snapshot_give_back(to);
}

static void without_memory(void **state)
{
    sf_runtime_options o = SF_RUNTIME_OPTIONS_INIT;
    struct trial t = {0};
    bool fired = true;

    (void)state;
    heap_init(&t.heap);
    o.allocator = &t.heap.alloc;
    o.cache_bytes = 0;
    world_open(&t.world, &o);
    for (long nth = 0; fired; nth++) {
        t.failed = false;
        heap_arm(&t.heap, nth);
        check_all(&t);
        fired = heap_disarm(&t.heap);
        assert_true(fired || !t.failed);
    }
    world_close(&t.world);
    assert_int_equal(heap_settle(&t.heap, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(verdicts, world_set_up, world_tear_down),
        cmocka_unit_test_setup_teardown(differences, world_set_up, world_tear_down),
        cmocka_unit_test(without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
