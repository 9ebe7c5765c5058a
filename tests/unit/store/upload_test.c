/* Uploads from a waiting thread, over memory and files, with every request failing in turn. */
#include "../../support/heap.h"
#include "../net/on_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "fault_store.h"
#include "store/upload.h"

static const sf_allocator *const heap = &sf__allocator_default;

#define PART 1000u

struct world {
    sf_loop *loop;
    sf_store *inner;
    fault_store *faults;
    char key[128];
};

static void world_init(struct world *w)
{
    sf_error e;

    assert_int_equal(sf__loop_new(&w->loop, heap, &e), SF_OK);
    assert_int_equal(sf__store_memory_open(&w->inner, "upload", w->loop, heap, &e), SF_OK);
    w->faults = fault_store_new(w->inner);
    fault_store_reset(w->faults);
    snprintf(w->key, sizeof(w->key), "folder/object");
}

static void world_cleanup(struct world *w)
{
    sf__store_release(&w->faults->base);
    sf__store_release(w->inner);
    sf__loop_free(w->loop);
}

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 31 + (i >> 8));
}

/* In pieces of many sizes. */
static sf_status upload(struct world *w, uint64_t size, const sf_upload_options *o, sf_upload_result *r, sf_error *e)
{
    sf_upload *u = NULL;
    uint8_t piece[777];
    sf_status rc = sf__upload_open(&u, &w->faults->base, w->key, "application/octet-stream", o, e);

    for (uint64_t at = 0, step = 1; at < size && rc == SF_OK; step = step * 7 % 777 + 1) {
        uint64_t n = step < size - at ? step : size - at;

        for (uint64_t i = 0; i < n; i++)
            piece[i] = byte_at(at + i);
        rc = sf__upload_append(u, sf_bytes_of(piece, (size_t)n), e);
        at += n;
    }
    if (rc == SF_OK)
        rc = sf__upload_finish(u, r, e);
    if (rc == SF_OK) {
        assert_int_equal(sf__upload_size(u), size);
        assert_int_equal(sf__upload_append(u, sf_bytes_str("x"), e), SF_STATE);
    }
    sf__upload_free(u);
    return rc;
}

static sf_upload_options options(void)
{
    sf_upload_options o = SF_UPLOAD_OPTIONS_INIT;

    o.part_bytes = PART;
    return o;
}

/* The whole object, or NULL. */
static sf_buf *stored(struct world *w)
{
    sf_store_op op = {
        .verb = SF_STORE_GET,
        .key = w->key,
        .len = SF_STORE_ALL,
        .max_bytes = 1u << 30,
        .deadline_ns = SF_NO_DEADLINE,
    };

    return sf__store_wait(w->inner, &op, NULL, NULL) == SF_OK ? op.data : NULL;
}

static void check_stored(struct world *w, const char *name, uint64_t size)
{
    sf_buf *b = stored(w);
    uint64_t bad = 0;

    if (!b || b->n != size)
        fail_msg("%s: %zu bytes stored, %llu expected", name, b ? b->n : 0, (unsigned long long)size);
    for (uint64_t i = 0; i < size; i++)
        bad += b->data[i] != byte_at(i);
    if (bad)
        fail_msg("%s: %llu bytes differ", name, (unsigned long long)bad);
    sf__buf_release(b);
}

static void remove_object(struct world *w)
{
    sf_store_op op = {.verb = SF_STORE_DELETE, .key = w->key, .deadline_ns = SF_NO_DEADLINE};

    assert_int_equal(sf__store_wait(w->inner, &op, NULL, NULL), SF_OK);
}

static void objects_of_many_sizes(void **state)
{
    static const struct {
        const char *name;
        uint64_t size;
        unsigned parts; /* 0: a single PUT */
    } cases[] = {
        {"empty", 0, 0},
        {"one byte", 1, 0},
        {"just below a part", PART - 1, 0},
        {"a part", PART, 0},
        {"a byte more", PART + 1, 2},
        {"two parts", 2 * PART, 2},
        {"many", 17 * PART + 5, 18},
        {"as many as slots", 4 * PART, 4},
        {"past the slots", 4 * PART + 1, 5},
        {"into the double parts", 1000 * PART + 3 * PART, 1002},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e;

        fault_store_reset(w.faults);
        if (upload(&w, cases[i].size, &o, &r, &e) != SF_OK)
            fail_msg("%s: %s", cases[i].name, e.message);
        check_stored(&w, cases[i].name, cases[i].size);
        if (w.faults->verbs[SF_STORE_MULTIPART_PART] != cases[i].parts ||
            w.faults->verbs[SF_STORE_PUT] != (cases[i].parts ? 0 : 1))
            fail_msg("%s: %lu parts, %lu puts", cases[i].name, w.faults->verbs[SF_STORE_MULTIPART_PART],
                     w.faults->verbs[SF_STORE_PUT]);
        if (w.faults->most_in_flight > o.parts_in_flight + 1)
            fail_msg("%s: %u parts in flight", cases[i].name, w.faults->most_in_flight);
        assert_int_equal(r.size, cases[i].size);
        assert_true(r.etag[0]);
        remove_object(&w);
    }
    world_cleanup(&w);
}

/* What another one stored meanwhile is neither replaced nor deleted. */
static void another_one_s_object_stays(void **state)
{
    static const uint64_t sizes[] = {10, 3 * PART + 1};
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < 2; i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e;

        fault_store_reset(w.faults);
        o.create_only = true;
        assert_int_equal(upload(&w, sizes[i], &o, &r, &e), SF_OK);
        assert_int_equal(upload(&w, sizes[i] + PART, &o, &r, &e), SF_CONFLICT);
        check_stored(&w, "theirs", sizes[i]);
        assert_int_equal(w.faults->verbs[SF_STORE_MULTIPART_ABORT], 1);
        remove_object(&w);
        o.create_only = false;
        assert_int_equal(upload(&w, 5, &o, &r, &e), SF_OK);
        o.create_only = true;
        assert_int_equal(upload(&w, 6, &o, &r, &e), SF_CONFLICT);
        check_stored(&w, "theirs", 5);
        remove_object(&w);
    }
    world_cleanup(&w);
}

/* It was not there yet when it was looked for. */
static void too_early(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_HEAD)
        fault_store_answer(f, op, SF_NOT_FOUND, "no such object");
}

/* Between the look and the completion. */
static void completing_never_replaces(void **state)
{
    sf_upload_options o = options();
    sf_upload_result r;
    sf_error e = SF_ERROR_INIT;
    struct world w;

    world_init(&w);
    assert_int_equal(upload(&w, 10, &o, &r, &e), SF_OK);
    fault_store_reset(w.faults);
    w.faults->after = too_early;
    o.create_only = true;
    assert_int_equal(upload(&w, 3 * PART, &o, &r, &e), SF_CONFLICT);
    assert_int_equal(w.faults->verbs[SF_STORE_MULTIPART_COMPLETE], 1);
    assert_int_equal(w.faults->verbs[SF_STORE_MULTIPART_ABORT], 1);
    assert_int_equal(w.faults->verbs[SF_STORE_DELETE], 0);
    check_stored(&w, "theirs", 10);
    remove_object(&w);
    world_cleanup(&w);
}

static void conflict_and_another_size(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_COMPLETE)
        op->may_be_ours = fault_store_answer(f, op, SF_CONFLICT, "it exists") == SF_CONFLICT;
    if (op->verb == SF_STORE_HEAD)
        op->object_size++;
}

/* What may be ours after a lost answer, and is of another size, is not: nor is it ours to delete. */
static void a_lost_answer_and_another_one_s_object(void **state)
{
    static const uint64_t sizes[] = {10, 3 * PART + 1};
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < 2; i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e = SF_ERROR_INIT;

        fault_store_reset(w.faults);
        w.faults->after = conflict_and_another_size;
        o.create_only = true;
        assert_int_equal(upload(&w, sizes[i], &o, &r, &e), SF_CONFLICT);
        assert_int_equal(w.faults->verbs[SF_STORE_DELETE], 0);
        remove_object(&w);
    }
    world_cleanup(&w);
}

/* Cancelled, or the answer lost: nobody knows whose the object is, and the other one may have announced it. */
static void what_nobody_knows_is_not_deleted(void **state)
{
    static const struct {
        const char *name;
        fault_kind kind;
        uint64_t size;
        unsigned long at; /* the request that makes the object */
    } cases[] = {
        {"put, no answer", FAULT_LOSE, 10, 1},
        {"put, cancelled", FAULT_HOLD, 10, 1},
        {"complete, no answer", FAULT_LOSE, 2 * PART, 5}, /* create, two parts, look, complete */
        {"complete, cancelled", FAULT_HOLD, 2 * PART, 5},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e = SF_ERROR_INIT;
        sf_cancel_flag flag;

        fault_store_reset(w.faults);
        assert_int_equal(upload(&w, cases[i].size, &o, &r, &e), SF_OK); /* the same rows: the same bytes */
        assert_true(r.ours);
        fault_store_reset(w.faults);
        w.faults->kind = cases[i].kind;
        w.faults->at = cases[i].at;
        w.faults->after = too_early;
        atomic_init(&flag, false);
        o.cancel = w.faults->on_hold = &flag;
        o.create_only = true;
        if (upload(&w, cases[i].size, &o, &r, &e) == SF_OK || !w.faults->fired)
            fail_msg("%s: %d", cases[i].name, w.faults->fired);
        assert_int_equal(w.faults->verbs[SF_STORE_DELETE], 0);
        check_stored(&w, cases[i].name, cases[i].size);
        remove_object(&w);
    }
    world_cleanup(&w);
}

static void conflict_with_oneself(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT || op->verb == SF_STORE_MULTIPART_COMPLETE)
        op->may_be_ours = fault_store_answer(f, op, SF_CONFLICT, "it exists") == SF_CONFLICT;
}

static void a_lost_answer_is_no_conflict(void **state)
{
    static const uint64_t sizes[] = {10, 3 * PART + 1};
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < 2; i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e;

        o.create_only = true;
        w.faults->after = conflict_with_oneself;
        assert_int_equal(upload(&w, sizes[i], &o, &r, &e), SF_OK);
        w.faults->after = NULL;
        assert_true(r.etag[0]);
        assert_false(r.ours); /* it is taken for ours, but not to be deleted */
        check_stored(&w, "ours", sizes[i]);
        remove_object(&w);
    }
    world_cleanup(&w);
}

/* What may be left: nothing, or (the clean-up itself failed) what nobody names. */
static void any_failed_request_is_reported(void **state)
{
    static const uint64_t sizes[] = {10, 9 * PART};
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE, FAULT_HOLD};
    struct world w;

    world_init(&w);
    for (size_t s = 0; s < 2; s++)
        for (size_t k = 0; k < 3; k++)
            for (unsigned long at = 1;; at++) {
                sf_upload_options o = options();
                sf_upload_result r;
                sf_error e = SF_ERROR_INIT;
                sf_cancel_flag flag;
                sf_status rc;
                sf_buf *left;

                fault_store_reset(w.faults);
                w.faults->kind = kinds[k];
                w.faults->at = at;
                atomic_init(&flag, false);
                o.cancel = w.faults->on_hold = &flag;
                rc = upload(&w, sizes[s], &o, &r, &e);
                if (!w.faults->fired) {
                    assert_int_equal(rc, SF_OK);
                    remove_object(&w);
                    break;
                }
                if (rc != (kinds[k] == FAULT_HOLD ? SF_CANCELLED : SF_IO))
                    fail_msg("size %llu, fault %d at request %lu: %s %s", (unsigned long long)sizes[s], (int)kinds[k],
                             at, sf_status_name(rc), e.message);
                assert_true(e.message[0]);
                left = stored(&w);
                if (left)
                    fail_msg("size %llu, fault %d at request %lu: the object stayed", (unsigned long long)sizes[s],
                             (int)kinds[k], at);
                if (sizes[s] > PART && at > 1 && w.faults->verbs[SF_STORE_MULTIPART_ABORT] != 1)
                    fail_msg("fault %d at request %lu: the upload was not aborted", (int)kinds[k], at);
            }
    world_cleanup(&w);
}

static void lie_about_size(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_HEAD)
        op->object_size--;
}

static void lie_about_etag(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_HEAD)
        strcpy(op->etag, "\"another\"");
}

static void what_the_store_reports_must_be_what_was_sent(void **state)
{
    static const struct {
        const char *name;
        void (*after)(fault_store *f, sf_store_op *op);
        const char *text;
    } cases[] = {
        {"size", lie_about_size, "bytes were uploaded, the store has"},
        {"etag", lie_about_etag, "the store has \"another\""},
    };
    struct world w;

    world_init(&w);
    for (size_t i = 0; i < 4; i++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e = SF_ERROR_INIT;

        fault_store_reset(w.faults);
        w.faults->after = cases[i / 2].after;
        assert_int_equal(upload(&w, i % 2 ? 3 * PART : 10, &o, &r, &e), SF_CORRUPT);
        if (!strstr(e.message, cases[i / 2].text))
            fail_msg("%s: \"%s\"", cases[i / 2].name, e.message);
        assert_null(stored(&w));
    }
    world_cleanup(&w);
}

/* The upload is gone because the first attempt completed it. */
static void forget_upload(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_MULTIPART_COMPLETE) {
        fault_store_answer(f, op, SF_NOT_FOUND, "no such upload");
        op->may_be_ours = true;
    }
}

static void a_lost_answer_to_complete_is_no_failure(void **state)
{
    sf_upload_options o = options();
    sf_upload_result r;
    sf_error e = SF_ERROR_INIT;
    struct world w;

    world_init(&w);
    w.faults->after = forget_upload;
    if (upload(&w, 3 * PART, &o, &r, &e) != SF_OK)
        fail_msg("%s", e.message);
    check_stored(&w, "after a lost answer", 3 * PART);
    world_cleanup(&w);
}

static void a_deadline_stops_it(void **state)
{
    sf_upload_options o = options();
    sf_upload_result r;
    sf_error e = SF_ERROR_INIT;
    struct world w;

    world_init(&w);
    o.timeout_ms = 10;
    w.faults->kind = FAULT_HOLD;
    w.faults->at = 1;
    assert_int_equal(upload(&w, 10, &o, &r, &e), SF_TIMEOUT);
    if (!strstr(e.message, "put mem://upload/folder/object: the deadline passed"))
        fail_msg("%s", e.message);
    assert_null(stored(&w));
    world_cleanup(&w);
}

static void a_flag_stops_it(void **state)
{
    sf_cancel_flag flag;
    sf_upload_options o = options();
    sf_upload_result r;
    sf_error e = SF_ERROR_INIT;
    struct world w;

    world_init(&w);
    atomic_init(&flag, true);
    o.cancel = &flag;
    w.faults->kind = FAULT_HOLD;
    w.faults->at = 1;
    assert_int_equal(upload(&w, 3 * PART, &o, &r, &e), SF_CANCELLED);
    assert_null(stored(&w));
    world_cleanup(&w);
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static void any_failed_allocation_is_survived(void **state)
{
    struct test_heap h;

    heap_init(&h);
    for (long nth = 0;; nth++) {
        sf_upload_options o = options();
        sf_upload_result r;
        sf_error e = SF_ERROR_INIT;
        struct world w;
        sf_status rc;

        assert_int_equal(sf__loop_new(&w.loop, heap, &e), SF_OK);
        assert_int_equal(sf__store_memory_open(&w.inner, "upload-oom", w.loop, &h.alloc, &e), SF_OK);
        w.faults = fault_store_new(w.inner);
        fault_store_reset(w.faults);
        strcpy(w.key, "object");
        heap_arm(&h, nth);
        rc = upload(&w, 7 * PART, &o, &r, &e);
        heap_disarm(&h);
        if (rc != SF_OK)
            assert_null(stored(&w));
        sf__store_release(&w.faults->base);
        sf__store_release(w.inner);
        sf__loop_free(w.loop);
        if (h.live != 0)
            fail_msg("allocation %ld: %ld left", nth, h.live);
        if (!h.fired) {
            assert_int_equal(rc, SF_OK);
            assert_true(nth > 10);
            break;
        }
        if (rc != SF_NOMEM)
            fail_msg("allocation %ld: %s %s", nth, sf_status_name(rc), e.message);
    }
}

static void files(void **state)
{
    char folder[] = "/tmp/sf-upload-XXXXXX";
    sf_upload_options o = options();
    sf_upload_result r;
    sf_error e = SF_ERROR_INIT;
    struct world w;

    assert_non_null(mkdtemp(folder));
    assert_int_equal(sf__loop_new(&w.loop, heap, &e), SF_OK);
    assert_int_equal(sf__store_file_new(&w.inner, w.loop, heap, &e), SF_OK);
    w.faults = fault_store_new(w.inner);
    fault_store_reset(w.faults);
    snprintf(w.key, sizeof(w.key), "%s/object", folder + 1);
    if (upload(&w, 5 * PART + 1, &o, &r, &e) != SF_OK)
        fail_msg("%s", e.message);
    check_stored(&w, "file", 5 * PART + 1);
    remove_object(&w);
    fault_store_reset(w.faults);
    w.faults->kind = FAULT_REFUSE;
    w.faults->at = 4;
    assert_int_equal(upload(&w, 5 * PART + 1, &o, &r, &e), SF_IO);
    fault_store_reset(w.faults);
    assert_int_equal(upload(&w, 7, &o, &r, &e), SF_OK);
    w.faults->after = too_early;
    o.create_only = true;
    assert_int_equal(upload(&w, 5 * PART + 1, &o, &r, &e), SF_CONFLICT);
    check_stored(&w, "another one's file", 7);
    remove_object(&w);
    fault_store_reset(w.faults);
    assert_int_equal(upload(&w, 5 * PART + 1, &o, &r, &e), SF_OK);
    check_stored(&w, "new file", 5 * PART + 1);
    remove_object(&w);
    assert_int_equal(rmdir(folder), 0); /* neither the object nor parts are left */
    sf__store_release(&w.faults->base);
    sf__store_release(w.inner);
    sf__loop_free(w.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_of_many_sizes),
        cmocka_unit_test(another_one_s_object_stays),
        cmocka_unit_test(completing_never_replaces),
        cmocka_unit_test(a_lost_answer_and_another_one_s_object),
        cmocka_unit_test(what_nobody_knows_is_not_deleted),
        cmocka_unit_test(a_lost_answer_is_no_conflict),
        cmocka_unit_test(any_failed_request_is_reported),
        cmocka_unit_test(what_the_store_reports_must_be_what_was_sent),
        cmocka_unit_test(a_lost_answer_to_complete_is_no_failure),
        cmocka_unit_test(a_deadline_stops_it),
        cmocka_unit_test(a_flag_stops_it),
        cmocka_unit_test(any_failed_allocation_is_survived),
        cmocka_unit_test(files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
