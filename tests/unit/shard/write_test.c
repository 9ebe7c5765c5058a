/* Shards that we write: read back through our own shard, refused rows, and every store request and allocation failing
 * in turn: a shard is whole or not there, and nothing is left behind but what may be another writer's. (SlateDB reads them
 * in tests/python.) */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/slatedb/shard_writer.h"
#include "base/clock.h"
#include "fault_store.h"

#define DB "bucket/shard"
#define PART 2000u

struct world {
    struct env env;
    sf_store *inner;
    fault_store *faults;
};

static void world_init(struct world *w)
{
    env_init(&w->env, 1u << 20);
    w->inner = memory_store(&w->env, "shard-write");
    w->faults = fault_store_new(w->inner);
    fault_store_reset(w->faults);
}

static void world_cleanup(struct world *w)
{
    sf__store_release(&w->faults->base);
    sf__store_release(w->inner);
    env_cleanup(&w->env);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

struct numbers {
    uint32_t first, count; /* keys key-FIRST .. */
    size_t value_len;
};

static sf_bytes key_of(uint32_t n, char buf[static 32])
{
    return sf_bytes_of(buf, (size_t)snprintf(buf, 32, "key-%07u", n));
}

static void value_of(uint32_t n, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(n * 7 + i % (n % 13 + 1));
}

static sf_shard_target target_of(struct world *w)
{
    sf_shard_target t = {.rt = w->env.rt,
                         .store = &w->faults->base,
                         .path = DB,
                         .url = "mem://shard-write/" DB,
                         .db_id = 3,
                         .upload = SF_UPLOAD_OPTIONS_INIT};

    t.upload.part_bytes = PART;
    t.upload.parts_in_flight = 2;
    return t;
}

static sf_status add_numbers(sf_shard_writer *sw, const struct numbers *n, sf_error *e)
{
    uint8_t *value = malloc(n->value_len + 1);
    sf_status rc = SF_OK;

    for (uint32_t i = 0; i < n->count && rc == SF_OK; i++) {
        char key[32];

        value_of(n->first + i, value, n->value_len);
        rc = sf__shard_writer_add(sw, key_of(n->first + i, key), sf_bytes_of(value, n->value_len), e);
    }
    free(value);
    return rc;
}

static sf_status write_shard(struct world *w, const struct numbers *n, const sf_slatedb_writer_options *o,
                             const sf_shard_target *t, sf_shard_result *r, sf_error *e)
{
    sf_shard_writer *sw = NULL;
    sf_status rc = sf__slatedb_shard_writer_open(&sw, t, o, e);

    if (rc == SF_OK)
        rc = add_numbers(sw, n, e);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(sw, r, e);
    sf__shard_writer_free(sw);
    return rc;
}

/* ------------------------------------------------------------------ what is stored ------------------------------- */

struct content {
    size_t objects, ssts, manifests;
};

static struct content content_of(struct world *w)
{
    sf_store_listing l = {.store = w->inner, .prefix = "", .deadline_ns = SF_NO_DEADLINE};
    struct content c = {0};

    assert_int_equal(sf__store_list_wait(&l, NULL, NULL), SF_OK);
    for (size_t i = 0; i < l.entry_count; i++) {
        c.objects++;
        c.ssts += strstr(l.entries[i].key, DB "/compacted/") != NULL;
        c.manifests += strstr(l.entries[i].key, DB "/manifest/") != NULL;
    }
    sf__store_listing_cleanup(&l);
    return c;
}

static void remove_all(struct world *w)
{
    sf_store_listing l = {.store = w->inner, .prefix = "", .deadline_ns = SF_NO_DEADLINE};

    assert_int_equal(sf__store_list_wait(&l, NULL, NULL), SF_OK);
    for (size_t i = 0; i < l.entry_count; i++)
        store_delete(w->inner, l.entries[i].key);
    sf__store_listing_cleanup(&l);
}

/* All rows by a scan of our own shard. */
static void check_shard(struct world *w, const struct numbers *n, const char *checkpoint, const char *name)
{
    sf_scan_range range = {0};
    struct scan_run run;
    sf_shard *shard;
    sf_error e = SF_ERROR_INIT;
    uint8_t *value = malloc(n->value_len + 1);
    uint32_t seen = 0;
    bool end = false;

    if (shard_open(&w->env, w->inner, DB, checkpoint, &shard, &e) != SF_OK)
        fail_msg("%s: %s", name, e.message);
    assert_int_equal(scan_begin(&run, shard, &range, &e), SF_OK);
    while (!end) {
        scan_step_begin(&run, 1000, 1u << 20, SF_NO_DEADLINE);
        scan_step_wait(&run);
        if (run.step.error.code != SF_OK)
            fail_msg("%s: %s", name, run.step.error.message);
        for (size_t i = 0; i < run.step.batch->count; i++, seen++) {
            char key[32];

            value_of(n->first + seen, value, n->value_len);
            if (!sf_bytes_eq(run.step.batch->rows[i].key, key_of(n->first + seen, key)) ||
                !sf_bytes_eq(run.step.batch->rows[i].value, sf_bytes_of(value, n->value_len)))
                fail_msg("%s: row %u differs", name, seen);
        }
        end = run.step.end;
        sf__row_batch_free(run.step.batch);
    }
    if (seen != n->count)
        fail_msg("%s: %u rows, not %u", name, seen, n->count);
    scan_end(&run);
    sf__shard_release(shard);
    free(value);
}

static void written_shards_read_back(void **state)
{
    static const struct {
        const char *name;
        struct numbers rows;
        size_t min_ssts, max_ssts;
        sf_slatedb_writer_options o;
    } cases[] = {
        {"no rows", {0, 0, 0}, 0, 0, SF_SLATEDB_WRITER_OPTIONS_INIT},
        {"one row", {5, 1, 10}, 1, 1, SF_SLATEDB_WRITER_OPTIONS_INIT},
        {"empty values", {0, 3000, 0}, 1, 1, SF_SLATEDB_WRITER_OPTIONS_INIT},
        {"several SSTs", {0, 20000, 30}, 5, 20, {SF_CODEC_NONE, 4096, 10, 1, 65536}},
        {"zstd", {0, 20000, 90}, 2, 20, {SF_CODEC_ZSTD, 4096, 10, 1, 65536}},
        {"no filters", {0, 20000, 30}, 5, 20, {SF_CODEC_LZ4, 1024, 10, 1u << 30, 65536}},
        {"large rows", {0, 30, 100000}, 20, 30, {SF_CODEC_NONE, 65536, 10, 1, 65536}},
        /* they unpack to more than the budget has: one after the other, on a worker */
        {"rows that shrink to nothing", {0, 4, 9u << 20}, 1, 4, {SF_CODEC_ZSTD, 65536, 10, 1, 65536}},
        {"so do these", {0, 4, 9u << 20}, 1, 4, {SF_CODEC_LZ4, 65536, 10, 1, 65536}},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct numbers *n = &cases[i].rows;
        sf_shard_target t = target_of(&w);
        sf_shard_result r;
        sf_error e = SF_ERROR_INIT;
        struct content c;
        char key[32];

        if (write_shard(&w, n, &cases[i].o, &t, &r, &e) != SF_OK)
            fail_msg("%s: %s", cases[i].name, e.message);
        c = content_of(&w);
        assert_int_equal(c.manifests, 1);
        assert_int_equal(c.objects, c.ssts + 1);
        assert_int_equal(r.object_count, c.objects);
        if (c.ssts < cases[i].min_ssts || c.ssts > cases[i].max_ssts)
            fail_msg("%s: %zu SSTs", cases[i].name, c.ssts);
        assert_int_equal(r.rows, n->count);
        assert_int_equal(r.key_bytes, 11u * n->count);
        assert_int_equal(r.value_bytes, n->value_len * n->count);
        assert_int_equal(r.min_key != NULL, n->count > 0);
        if (n->count > 0) {
            assert_true(sf_bytes_eq(sf__buf_bytes(r.min_key), key_of(n->first, key)));
            assert_true(sf_bytes_eq(sf__buf_bytes(r.max_key), key_of(n->first + n->count - 1, key)));
        }
        check_shard(&w, n, NULL, cases[i].name);
        check_shard(&w, n, r.checkpoint_id, cases[i].name);
        sf__shard_result_cleanup(&r);
        remove_all(&w);
    }
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ bad rows ------------------------------------- */

static void bad_rows_are_named(void **state)
{
    static uint8_t long_key[65536];
    static const struct {
        const char *name, *text;
        sf_bytes key;
    } cases[] = {
        {"empty key", "shard 3, row 4: the key is empty", {NULL, 0}},
        {"the same key", "shard 3, row 4: its key is not above the key before", {(const uint8_t *)"key-0000002", 11}},
        {"a smaller key", "shard 3, row 4: its key is not above the key before", {(const uint8_t *)"a", 1}},
        {"too long", "shard 3, row 4: key of 65536 bytes, at most 65535 can be stored", {long_key, 65536}},
    };
    struct numbers three = {0, 3, 5000};
    struct world w;

    memset(long_key, 'z', sizeof(long_key));
    world_init(&w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_slatedb_writer_options o = SF_SLATEDB_WRITER_OPTIONS_INIT;
        sf_shard_target t = target_of(&w);
        sf_shard_writer *sw;
        sf_shard_result r;
        sf_error e = SF_ERROR_INIT, again = SF_ERROR_INIT;

        assert_int_equal(sf__slatedb_shard_writer_open(&sw, &t, &o, &e), SF_OK);
        assert_int_equal(add_numbers(sw, &three, &e), SF_OK);
        assert_int_equal(sf__shard_writer_add(sw, cases[i].key, (sf_bytes){0}, &e), SF_INVALID);
        if (strcmp(e.message, cases[i].text) != 0)
            fail_msg("%s: %s", cases[i].name, e.message);
        assert_int_equal(e.db_id, 3);
        assert_int_equal(sf__shard_writer_finish(sw, &r, &again), SF_INVALID); /* the first error stays */
        assert_string_equal(again.message, e.message);
        sf__shard_writer_free(sw);
        if (content_of(&w).objects != 0)
            fail_msg("%s: something is stored", cases[i].name);
    }
    world_cleanup(&w);
}

static void options_and_paths_are_checked(void **state)
{
    static const sf_slatedb_writer_options bad[] = {
        {(sf_codec)9, 4096, 10, 1, 1u << 20},         {SF_CODEC_NONE, 1023, 10, 1, 1u << 20},
        {SF_CODEC_NONE, 65537, 10, 1, 1u << 20},      {SF_CODEC_NONE, 4096, 0, 1, 1u << 20},
        {SF_CODEC_NONE, 4096, 65, 1, 1u << 20},       {SF_CODEC_NONE, 4096, 10, 1, 65535},
        {SF_CODEC_NONE, 4096, 10, 1, (1u << 30) + 1},
    };
    sf_slatedb_writer_options o = SF_SLATEDB_WRITER_OPTIONS_INIT;
    struct world w;
    sf_shard_target t;
    sf_shard_writer *sw = NULL;
    sf_error e = SF_ERROR_INIT;

    world_init(&w);
    t = target_of(&w);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (sf__slatedb_shard_writer_open(&sw, &t, &bad[i], &e) != SF_INVALID)
            fail_msg("options %zu", i);
    store_put(w.inner, DB "/leftover", "x", 1);
    assert_int_equal(sf__slatedb_shard_writer_open(&sw, &t, &o, &e), SF_CONFLICT);
    assert_string_equal(e.message,
                        "shard 3: mem://shard-write/" DB " is not empty: mem://shard-write/" DB "/leftover is there");
    assert_int_equal(content_of(&w).objects, 1);
    remove_all(&w);
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ faults --------------------------------------- */

static const sf_slatedb_writer_options small = {SF_CODEC_NONE, 1024, 10, 1, 65536};
static const struct numbers some = {0, 3000, 40}; /* two SSTs and a half */

static void any_failed_request_leaves_nothing_of_ours(void **state)
{
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE, FAULT_HOLD};
    size_t unsure = 0;
    struct world w;

    world_init(&w);
    for (size_t k = 0; k < 3; k++)
        for (unsigned long at = 1;; at++) {
            sf_shard_target t = target_of(&w);
            sf_shard_result r;
            sf_error e = SF_ERROR_INIT;
            sf_cancel_flag flag;
            sf_status rc;

            fault_store_reset(w.faults);
            w.faults->kind = kinds[k];
            w.faults->at = at;
            atomic_init(&flag, false);
            t.upload.cancel = w.faults->on_hold = &flag;
            rc = write_shard(&w, &some, &small, &t, &r, &e);
            if (!w.faults->fired) {
                assert_int_equal(rc, SF_OK);
                assert_int_equal(content_of(&w).manifests, 1);
                sf__shard_result_cleanup(&r);
                remove_all(&w);
                break;
            }
            if (rc != (kinds[k] == FAULT_HOLD ? SF_CANCELLED : SF_IO) || !strstr(e.message, "shard 3: "))
                fail_msg("fault %d at request %lu: %s %s", (int)kinds[k], at, sf_status_name(rc), e.message);
            /* an SST whose answer was lost may be another writer's */
            if (content_of(&w).manifests != 0 || content_of(&w).objects > (kinds[k] == FAULT_LOSE))
                fail_msg("fault %d at request %lu: %zu objects are left", (int)kinds[k], at, content_of(&w).objects);
            unsure += content_of(&w).objects;
            remove_all(&w);
        }
    assert_int_equal(unsure, 3); /* as many as there are SSTs */
    world_cleanup(&w);
}

/* The other one of a run that was started twice has stored his shard when ours is stopped, at whatever request. */
static void stopping_leaves_another_writer_s_shard_alone(void **state)
{
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE, FAULT_HOLD};
    struct world w;

    world_init(&w);
    for (size_t k = 0; k < 3; k++)
        for (unsigned long at = 1;; at++) {
            sf_shard_target t = target_of(&w);
            sf_shard_writer *first, *second;
            sf_shard_result r, r2;
            sf_error e = SF_ERROR_INIT;
            sf_cancel_flag flag;
            bool fired;

            fault_store_reset(w.faults);
            t.upload.part_bytes = 1u << 20; /* more than an SST: nobody looks before */
            assert_int_equal(sf__slatedb_shard_writer_open(&first, &t, &small, &e), SF_OK);
            atomic_init(&flag, false);
            t.upload.cancel = w.faults->on_hold = &flag;
            assert_int_equal(sf__slatedb_shard_writer_open(&second, &t, &small, &e), SF_OK);
            assert_int_equal(add_numbers(first, &some, &e), SF_OK);
            assert_int_equal(sf__shard_writer_finish(first, &r, &e), SF_OK);
            w.faults->kind = kinds[k];
            w.faults->at = w.faults->requests + at;
            if (add_numbers(second, &some, &e) == SF_OK)
                assert_int_not_equal(sf__shard_writer_finish(second, &r2, &e), SF_OK);
            fired = w.faults->fired;
            sf__shard_writer_free(second);
            sf__shard_writer_free(first);
            check_shard(&w, &some, r.checkpoint_id, "theirs");
            sf__shard_result_cleanup(&r);
            remove_all(&w);
            if (!fired) {
                assert_int_equal(at, 2); /* the first PUT meets theirs */
                break;
            }
        }
    world_cleanup(&w);
}

/* The store goes away for good: what is stored stays, but never as a database. */
static void a_store_that_goes_away_leaves_no_manifest(void **state)
{
    struct world w;

    world_init(&w);
    for (unsigned long at = 1;; at++) {
        sf_shard_target t = target_of(&w);
        sf_shard_result r;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        fault_store_reset(w.faults);
        w.faults->kind = FAULT_REFUSE;
        w.faults->at = at;
        w.faults->for_good = true;
        rc = write_shard(&w, &some, &small, &t, &r, &e);
        if (!w.faults->fired) {
            assert_int_equal(rc, SF_OK);
            sf__shard_result_cleanup(&r);
            break;
        }
        assert_int_equal(rc, SF_IO);
        assert_int_equal(content_of(&w).manifests, 0);
        remove_all(&w);
    }
    remove_all(&w);
    world_cleanup(&w);
}

/* The manifest's PUT was carried out, its answer lost, and the second attempt finds it there. */
static void conflict_with_oneself(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT && strstr(op->key, "/manifest/"))
        op->may_be_ours = fault_store_answer(f, op, SF_CONFLICT, "the object exists") == SF_CONFLICT;
}

static void a_lost_answer_to_the_manifest_is_no_failure(void **state)
{
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_shard_target t;
    struct world w;

    world_init(&w);
    t = target_of(&w);
    w.faults->after = conflict_with_oneself;
    if (write_shard(&w, &some, &small, &t, &r, &e) != SF_OK)
        fail_msg("%s", e.message);
    check_shard(&w, &some, r.checkpoint_id, "lost answer");
    sf__shard_result_cleanup(&r);
    remove_all(&w);
    world_cleanup(&w);
}

/* The same happens to the SSTs, and the manifest cannot be stored. */
static void ssts_without_answers_and_no_manifest(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT && strstr(op->key, "/compacted/"))
        op->may_be_ours = fault_store_answer(f, op, SF_CONFLICT, "the object exists") == SF_CONFLICT;
    if (op->verb == SF_STORE_PUT && strstr(op->key, "/manifest/"))
        fault_store_answer(f, op, SF_DENIED, "no manifests here");
}

static void ssts_without_answers_are_used_and_not_taken_back(void **state)
{
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_shard_target t;
    struct world w;

    world_init(&w);
    t = target_of(&w);
    t.upload.part_bytes = 1u << 20;
    w.faults->after = ssts_without_answers_and_no_manifest;
    assert_int_equal(write_shard(&w, &some, &small, &t, &r, &e), SF_DENIED);
    assert_int_equal(content_of(&w).ssts, 3);
    assert_int_equal(content_of(&w).manifests, 1); /* stored all the same, and nobody knows by whom */
    remove_all(&w);
    world_cleanup(&w);
}

static void another_writer_s_manifest_is_left_alone(void **state)
{
    sf_shard_writer *sw;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_shard_target t;
    struct world w;
    struct content c;

    world_init(&w);
    t = target_of(&w);
    assert_int_equal(sf__slatedb_shard_writer_open(&sw, &t, &small, &e), SF_OK);
    assert_int_equal(add_numbers(sw, &some, &e), SF_OK);
    store_put(w.inner, DB "/manifest/00000000000000000001.manifest", "theirs", 6);
    assert_int_equal(sf__shard_writer_finish(sw, &r, &e), SF_CONFLICT);
    sf__shard_writer_free(sw);
    c = content_of(&w);
    assert_int_equal(c.manifests, 1);
    assert_true(c.ssts > 0); /* they may be theirs too: the same content has the same names */
    remove_all(&w);
    world_cleanup(&w);
}

/* Of a run that was started twice, say: both store the same objects. The second is not told that they are its own, for it
 * would take them back when it fails later. */
static void the_same_rows_by_another_writer_are_left_alone(void **state)
{
    sf_shard_writer *first, *second;
    sf_shard_result r, r2;
    sf_error e = SF_ERROR_INIT;
    sf_shard_target t;
    struct world w;

    world_init(&w);
    t = target_of(&w);
    assert_int_equal(sf__slatedb_shard_writer_open(&first, &t, &small, &e), SF_OK);
    assert_int_equal(sf__slatedb_shard_writer_open(&second, &t, &small, &e), SF_OK);
    assert_int_equal(add_numbers(first, &some, &e), SF_OK);
    assert_int_equal(sf__shard_writer_finish(first, &r, &e), SF_OK);
    if (add_numbers(second, &some, &e) == SF_OK)
        assert_int_equal(sf__shard_writer_finish(second, &r2, &e), SF_CONFLICT);
    assert_int_equal(e.code, SF_CONFLICT);
    sf__shard_writer_free(second);
    sf__shard_writer_free(first);
    check_shard(&w, &some, r.checkpoint_id, "of two");
    sf__shard_result_cleanup(&r);
    remove_all(&w);
    world_cleanup(&w);
}

static void a_flag_stops_it(void **state)
{
    sf_cancel_flag flag;
    sf_shard_writer *sw;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_shard_target t;
    struct world w;

    for (int late = 0; late < 2; late++) {
        world_init(&w);
        atomic_init(&flag, false);
        t = target_of(&w);
        t.upload.cancel = &flag;
        assert_int_equal(sf__slatedb_shard_writer_open(&sw, &t, &small, &e), SF_OK);
        assert_int_equal(add_numbers(sw, &some, &e), SF_OK);
        atomic_store(&flag, true);
        if (late)
            assert_int_equal(sf__shard_writer_finish(sw, &r, &e), SF_CANCELLED);
        else
            assert_int_equal(sf__shard_writer_add(sw, sf_bytes_str("z"), (sf_bytes){0}, &e), SF_CANCELLED);
        sf__shard_writer_free(sw);
        assert_int_equal(content_of(&w).objects, 0);
        world_cleanup(&w);
    }
}

static void any_failed_allocation_is_survived(void **state)
{
    static const struct numbers rows = {0, 1200, 100};

    for (int codec = SF_CODEC_NONE; codec <= SF_CODEC_LZ4; codec += SF_CODEC_LZ4)
        for (long nth = 0;; nth += TEST_STEP) {
            sf_slatedb_writer_options o = {(sf_codec)codec, 4096, 10, 1, 65536};
            sf_shard_result r;
            sf_error e = SF_ERROR_INIT;
            sf_shard_target t;
            struct world w;
            sf_status rc;
            bool fired;

            world_init(&w);
            t = target_of(&w);
            heap_arm(&w.env.heap, nth);
            rc = write_shard(&w, &rows, &o, &t, &r, &e);
            fired = heap_disarm(&w.env.heap);
            if (rc == SF_OK)
                sf__shard_result_cleanup(&r);
            if (!fired) {
                assert_int_equal(rc, SF_OK);
                assert_true(nth > 10);
            } else {
                if (rc != SF_NOMEM)
                    fail_msg("allocation %ld: %s %s", nth, sf_status_name(rc), e.message);
                if (content_of(&w).manifests != 0)
                    fail_msg("allocation %ld: a manifest is there", nth);
            }
            remove_all(&w);
            world_cleanup(&w);
            if (!fired)
                break;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_shards_read_back),
        cmocka_unit_test(bad_rows_are_named),
        cmocka_unit_test(options_and_paths_are_checked),
        cmocka_unit_test(any_failed_request_leaves_nothing_of_ours),
        cmocka_unit_test(a_store_that_goes_away_leaves_no_manifest),
        cmocka_unit_test(a_lost_answer_to_the_manifest_is_no_failure),
        cmocka_unit_test(ssts_without_answers_are_used_and_not_taken_back),
        cmocka_unit_test(another_writer_s_manifest_is_left_alone),
        cmocka_unit_test(the_same_rows_by_another_writer_are_left_alone),
        cmocka_unit_test(stopping_leaves_another_writer_s_shard_alone),
        cmocka_unit_test(a_flag_stops_it),
        cmocka_unit_test(any_failed_allocation_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
