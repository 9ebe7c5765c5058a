/* SSTs that a manifest shows more than once, as projections of a clone may: one object each, described in one way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "backend/slatedb/view.h"
#include "store/store.h"

static const sf_allocator *const heap = &sf__allocator_default;

enum change { NOTHING, INDEX_OFF, INDEX_LEN, FILTER_OFF, FILTER_LEN, FILTER_FORMAT, CODEC, VERSION, CHANGES };

static void change(sf_sst_view *v, enum change what)
{
    switch (what) {
    case INDEX_OFF:
        v->info.index_off++;
        break;
    case INDEX_LEN:
        v->info.index_len++;
        break;
    case FILTER_OFF:
        v->info.filter_off++;
        break;
    case FILTER_LEN:
        v->info.filter_len++;
        break;
    case FILTER_FORMAT:
        v->info.filter_format++;
        break;
    case CODEC:
        v->info.codec++;
        break;
    case VERSION:
        v->format_version++;
        break;
    default:
        break;
    }
}

static void views_of_one_sst(void **state)
{
    sf_loop *loop;
    sf_store *store;

    assert_int_equal(sf__loop_new(&loop, heap, NULL), SF_OK);
    assert_int_equal(sf__store_memory_open(&store, "view-test", loop, heap, NULL), SF_OK);
    for (int what = NOTHING; what < CHANGES; what++) {
        sf_sst_view views[3] = {0};
        sf_read_view v = {.manifest = {.views = views, .view_count = 3}};
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        for (int i = 0; i < 3; i++) { /* the first and the last are of the same SST */
            snprintf(views[i].ulid, sizeof(views[i].ulid), "01ARZ3NDEKTSV4RRFFQ69G5FA%d", i % 2);
            views[i].info = (sf_sst_info){
                .sst_type = SF_SST_COMPACTED, .filter_off = 100, .filter_len = 50, .index_off = 150, .index_len = 60};
            views[i].format_version = 1;
        }
        change(&views[2], what);
        rc = sf__read_view_ssts(&v, store, "db", NULL, heap, &e);
        assert_int_equal(rc, what == NOTHING ? SF_OK : SF_CORRUPT);
        if (rc == SF_OK) {
            assert_int_equal(v.sst_count, 2);
            assert_ptr_equal(sf__read_view_sst(&v, &views[0]), sf__read_view_sst(&v, &views[2]));
            assert_ptr_not_equal(sf__read_view_sst(&v, &views[0]), sf__read_view_sst(&v, &views[1]));
        } else {
            assert_non_null(strstr(e.message, "01ARZ3NDEKTSV4RRFFQ69G5FA0 is described in two ways"));
        }
        memset(&v.manifest, 0, sizeof(v.manifest)); /* ours */
        sf__read_view_cleanup(&v, heap);
    }
    sf__store_release(store);
    sf__loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(views_of_one_sst)};

    return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
