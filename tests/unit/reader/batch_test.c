/* Keys that are looked up together get what each of them gets by itself, however long keys and values are, and keep it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/value_room.h"
#include "shardyfusion/reader.h"
#include "shardyfusion/writer.h"
#include "../../support/heap.h"

#define ROWS 3000u
#define LONGEST 1500u
#define PATIENCE_MS 30000

struct text_key {
    char text[64];
};

/* Every fourth is not there. Some have a long beginning in common, some are short, some lie in a crowd, some far out. */
static sf_key key_of(sf_key_encoding encoding, unsigned i, struct text_key *room)
{
    static const char *const before[] = {"", "customers/of/the/north/", "0", "a"},
                             *const behind[] = {"", "", "", "-and-what-follows-it-is-longer-than-the-rest"};
    unsigned shape = i % 4 ^ (i >> 5 & 3);
    uint64_t far = (uint64_t)(i % 5 + 1) << 40;

    if (encoding == SF_KEY_U64BE)
        return sf_key_int((int64_t)(i % 3 == 0 ? far + i : i));
    snprintf(room->text, sizeof(room->text), shape % 3 == 0 ? "%s%u%s" : "%s%08u%s", before[shape], i * 7, behind[shape]);
    return (sf_key){.type = SF_KEY_STR, .b = {(const uint8_t *)room->text, strlen(room->text)}};
}

static bool is_there(unsigned i)
{
    return i % 4 != 3;
}

static sf_bytes value_of(unsigned i)
{
    static uint8_t bytes[LONGEST];
    size_t n = i % 11 == 0   ? 0
               : i % 13 == 0 ? LONGEST - i % 100
               : i % 7 == 0  ? SF_VALUE_COPIED_BYTES + i % 3 - 1
                             : 1 + i % 120;

    memset(bytes, (int)(i * 31 % 251), n);
    return (sf_bytes){bytes, n};
}

static void publish(sf_runtime *rt, const char *url, sf_key_encoding encoding, uint64_t sst_bytes)
{
    sf_writer_options o = SF_WRITER_OPTIONS_INIT;
    sf_slatedb_options slatedb = SF_SLATEDB_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    struct text_key room;
    sf_writer *w;

    o.num_dbs = 3;
    o.key_encoding = encoding;
    slatedb.sst_bytes = sst_bytes;
    o.slatedb = &slatedb;
    if (sf_writer_open(&w, rt, url, &o, &e) != SF_OK)
        fail_msg("%s", e.message);
    for (unsigned i = 0; i < ROWS; i++) {
        sf_key key = key_of(encoding, i, &room);

        if (is_there(i) && sf_writer_add(w, &key, value_of(i), &e) != SF_OK)
            fail_msg("%s", e.message);
    }
    if (sf_writer_finish(w, &e) != SF_OK)
        fail_msg("%s", e.message);
    sf_writer_free(w);
}

static void expect(unsigned i, const sf_value *v)
{
    sf_bytes expected = value_of(i);

    assert_int_equal(v->found, is_there(i));
    if (!v->found)
        return;
    assert_int_equal(v->bytes.n, expected.n);
    assert_memory_equal(v->bytes.p, expected.p, expected.n);
}

static void together_as_alone(void **state)
{
    static const size_t batches[] = {1, 2, 15, 16, 17, 100, 1000};
    static const struct {
        sf_key_encoding encoding;
        uint64_t sst_bytes;
    } cases[] = {{SF_KEY_U64BE, 64 << 20}, {SF_KEY_U64BE, 64 << 10}, {SF_KEY_UTF8, 64 << 20}, {SF_KEY_UTF8, 64 << 10}};
    static struct text_key rooms[ROWS];
    static sf_key keys[ROWS];
    static sf_value values[ROWS];

    for (size_t e = 0; e < sizeof(cases) / sizeof(cases[0]); e++) {
        sf_runtime *rt;
        sf_reader *r;
        unsigned which[ROWS];
        char url[64];

        snprintf(url, sizeof(url), "mem://batch/%zu", e);
        assert_int_equal(sf_runtime_new(&rt, NULL, NULL), SF_OK);
        publish(rt, url, cases[e].encoding, cases[e].sst_bytes);
        assert_int_equal(sf_reader_open(&r, rt, url, NULL, NULL), SF_OK);
        for (unsigned i = 0; i < ROWS; i++) {
            which[i] = i * 1009 % ROWS;
            keys[i] = key_of(cases[e].encoding, which[i], &rooms[i]);
        }
        for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++) { /* the first ones find nothing in memory */
            for (unsigned at = 0; at < ROWS; at += (unsigned)batches[b]) {
                size_t n = ROWS - at < batches[b] ? ROWS - at : batches[b];

                assert_int_equal(sf_reader_multi_get(r, &keys[at], n, PATIENCE_MS, &values[at], NULL), SF_OK);
            }
            for (unsigned i = 0; i < ROWS; i++) {
                sf_value alone;

                expect(which[i], &values[i]);
                assert_int_equal(sf_reader_try_get(r, &keys[i], &alone, NULL), SF_OK);
                expect(which[i], &alone);
                sf_value_release(&alone);
            }
            for (unsigned i = 0; i < ROWS; i++) /* neighbours of values that are kept go first */
                if (i % 7 != 0)
                    sf_value_release(&values[i]);
            for (unsigned i = 0; i < ROWS; i += 7) {
                expect(which[i], &values[i]);
                sf_value_release(&values[i]);
            }
        }
        sf_reader_free(r);
        sf_runtime_release(rt);
    }
}

static void values_share_buffers(void **state)
{
    struct test_heap heap;
    sf_value_room room = {.alloc = &heap.alloc};
    uint8_t bytes[SF_VALUE_COPIED_BYTES + 1] = {7};
    sf_value values[100], large;

    heap_init(&heap);
    for (unsigned i = 0; i < 100; i++) {
        room.keys = 100 - i;
        assert_true(sf__value_room_copy(&room, sf_bytes_of(bytes, 200), &values[i]));
    }
    assert_int_equal(atomic_load(&heap.live), 2); /* 20,000 bytes, of 16 KiB each */
    assert_false(sf__value_room_copy(&room, sf_bytes_of(bytes, sizeof(bytes)), &large));
    sf__value_room_cleanup(&room);
    for (unsigned i = 0; i < 100; i++) {
        assert_memory_equal(values[i].bytes.p, bytes, 200);
        sf_value_release(&values[i]);
    }
    assert_int_equal(atomic_load(&heap.live), 0);

    atomic_store(&heap.until_failure, 0);
    room = (sf_value_room){.alloc = &heap.alloc, .keys = 1};
    assert_false(sf__value_room_copy(&room, sf_bytes_of(bytes, 1), &large));
    sf__value_room_cleanup(&room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_as_alone),
        cmocka_unit_test(values_share_buffers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
