/* An SST that is read whole, and read once more since what came first was damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend/slatedb/sst.h"
#include "../../support/heap.h"
#include "format_build.h"

#define BLOCKS 100u
#define VALUE 20u

static const uint8_t root_fields[] = {4};
static const uint8_t meta_fields[] = {8, 4};

static void put_block(struct out *o, const char *key, size_t value_len)
{
    uint8_t *value = calloc(1, value_len);
    struct test_row row = {
        .key = (uint8_t *)(uintptr_t)key, .key_len = 1, .value = value, .value_len = value_len, .seq = 1};
    struct out plain = {0};

    assert_non_null(value);
    build_block(&plain, &row, 1, 2, 16);
    build_stored(o, out_bytes(&plain), SF_CODEC_NONE);
    out_free(&plain);
    free(value);
}

/* Of blocks that are `step` bytes apart. */
static void index_build(struct out *plain, size_t count, size_t step)
{
    size_t slots = fb_vector(plain, fb_table(plain, 0, root_fields, 1), 0, count);

    for (size_t i = 0; i < count; i++) {
        size_t meta = fb_table(plain, slots + 4 * i, meta_fields, 2);

        fb_set(plain, meta, 0, i * step);
        fb_bytes(plain, meta, 1, sf_bytes_str(i == 0 ? "" : "b"));
    }
}

/* Blocks, and an index that is filled up to `index_len`, which its checksum covers. */
static void file_end(struct out *file, struct out *index, size_t index_len)
{
    static const uint8_t fill[1] = {0};

    while (index->n < index_len)
        out_put(index, fill, 1);
    build_stored(file, out_bytes(index), SF_CODEC_NONE);
    out_free(index);
}

/* What comes the second time may have more blocks than what came the first time and was refused when some were in memory. */
static void a_second_reading_may_have_more_blocks(void **state)
{
    struct test_heap heap;
    struct out first = {0}, second = {0}, index = {0};
    size_t block_len, blocks_end, index_len;
    sf_sst_view view = {
        .format_version = 2,
        .info = {
            .first_key = sf_bytes_str("a"), .last_key = sf_bytes_str("z"), .has_first_key = true, .has_last_key = true}};
    sf_sst sst = {.view = &view, .object = {1, 2}};
    sf_block_cache *cache;
    sf_error e = SF_ERROR_INIT;
    sf_buf *b;

    (void)state;
    put_block(&second, "a", VALUE);
    block_len = second.n;
    for (size_t i = 1; i < BLOCKS; i++)
        put_block(&second, i < BLOCKS - 1 ? "m" : "z", VALUE);
    blocks_end = second.n;
    assert_int_equal(blocks_end, BLOCKS * block_len);
    index_build(&index, BLOCKS, block_len);
    index_len = index.n;
    file_end(&second, &index, index_len);
    put_block(&first, "a", VALUE);
    put_block(&first, "y", VALUE + blocks_end - 2 * block_len - 1); /* not the last key; its length takes a byte more */
    assert_int_equal(first.n, blocks_end);
    index_build(&index, 2, block_len);
    file_end(&first, &index, index_len);
    view.info.index_off = blocks_end;
    view.info.index_len = second.n - blocks_end;

    heap_init(&heap);
    assert_int_equal(sf__block_cache_new(&cache, 1u << 20, &heap.alloc, NULL), SF_OK);
    assert_int_equal(sf__sst_meta_decode(&sst, out_bytes(&first), 0, NULL, &heap.alloc, &e), SF_OK);
    assert_int_equal(sst.index.count, 2);
    assert_int_equal(sf__sst_blocks_to_cache(&sst, out_bytes(&first), 0, NULL, cache, &heap.alloc, &e), SF_CORRUPT);
    assert_int_equal(sf__sst_meta_decode(&sst, out_bytes(&second), 0, NULL, &heap.alloc, &e), SF_OK);
    assert_int_equal(sst.index.count, BLOCKS);
    assert_int_equal(sf__sst_blocks_to_cache(&sst, out_bytes(&second), 0, NULL, cache, &heap.alloc, &e), SF_OK);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        b = sf__sst_block_cached(&sst, i, cache);
        assert_non_null(b);
        sf__buf_release(b);
    }
    assert_int_equal(atomic_load(&sst.table)->count, BLOCKS);
    sf__sst_cleanup(&sst, &heap.alloc);
    sf__block_cache_release(cache);
    assert_int_equal(atomic_load(&heap.live), 0);
    out_free(&first);
    out_free(&second);
}

/* A block that stays in the buffer it came in: a try that has no room for its directory leaves that as it was. */
static void a_try_without_room_leaves_the_bytes(void **state)
{
    sf_sst_view view = {.format_version = 2, .info = {.codec = SF_CODEC_NONE}};
    sf_sst sst = {.view = &view, .index = {.count = 3}};
    struct out block = {0};
    sf_plain_room room = {.left = 0};
    sf_buf *owner, *plain = NULL;
    uint64_t offs[4] = {0};

    (void)state;
    sst.index.offs = offs;
    put_block(&block, "a", VALUE);
    owner = sf__buf_copy(&sf__allocator_default, out_bytes(&block));
    assert_non_null(owner);
    assert_int_equal(sf__sst_block_open(&sst, 1, sf__buf_bytes(owner), owner, true, NULL, &room, &sf__allocator_default,
                                        &plain, NULL),
                     SF_WOULD_BLOCK);
    assert_null(plain);
    assert_true(room.wanted > 0 && sf_bytes_eq(sf__buf_bytes(owner), out_bytes(&block)));
    room = (sf_plain_room){.left = room.wanted};
    assert_int_equal(sf__sst_block_open(&sst, 1, sf__buf_bytes(owner), owner, true, NULL, &room, &sf__allocator_default,
                                        &plain, NULL),
                     SF_OK);
    assert_true(plain->front > 0);
    sf__buf_release(plain);
    sf__buf_release(owner);
    out_free(&block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_second_reading_may_have_more_blocks),
                                       cmocka_unit_test(a_try_without_room_leaves_the_bytes)};

    return cmocka_run_group_tests_name("sst", tests, NULL, NULL);
}
