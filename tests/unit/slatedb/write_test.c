/* What the encoders write, the decoders read: indexes, stats, SST infos, manifests, stored blocks of all codecs; and
 * the alignment that the FlatBuffers verifier asks for. (Blocks and filters: fixtures_test.c, against SlateDB's own
 * bytes.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "backend/slatedb/format/compressor.h"
#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/index_write.h"
#include "backend/slatedb/format/opening_record.h"
#include "backend/slatedb/format/slatedb_manifest.h"
#include "backend/slatedb/format/slatedb_manifest_write.h"
#include "backend/slatedb/format/sst_info_write.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "../../support/heap.h"
#include "format_build.h"

static const sf_allocator *const heap = &sf__allocator_default;

static sf_fb_table root_of(sf_bytes buf)
{
    sf_fb_table t;

    assert_int_equal(sf__fb_root(buf, &t, NULL), SF_OK);
    return t;
}

/* Of an offset that stands at `slot`, from byte 0. */
static size_t target_of(sf_bytes buf, size_t slot)
{
    return slot + (size_t)sf_load_le(buf.p + slot, 4);
}

/* A table: its vtable even, itself and its 4 byte fields at multiples of 4, its 8 byte fields at multiples of 8. */
static void check_table(sf_bytes buf, size_t t, const uint8_t *sizes, unsigned count)
{
    size_t vtable = t - (size_t)(int32_t)sf_load_le(buf.p + t, 4);

    assert_int_equal(t % 4, 0);
    assert_int_equal(vtable % 2, 0);
    assert_true(vtable < buf.n && t < buf.n);
    assert_int_equal(sf_load_le(buf.p + vtable, 2), 4 + 2 * count);
    assert_true(t + sf_load_le(buf.p + vtable + 2, 2) <= buf.n);
    for (unsigned i = 0; i < count; i++) {
        size_t off = (size_t)sf_load_le(buf.p + vtable + 4 + 2 * (size_t)i, 2);

        assert_int_equal(off == 0, sizes[i] == 0);
        if (off > 0)
            assert_int_equal((t + off) % sizes[i], 0);
    }
}

/* ------------------------------------------------------------------ index and stats ------------------------------ */

static void indexes_and_stats(void **state)
{
    static const size_t counts[] = {1, 2, 3, 1000};

    for (size_t c = 0; c < 4; c++) {
        sf_index_writer w;
        sf_fb_writer fb;
        sf_index idx;
        sf_bytes plain;
        size_t n = counts[c], slots;
        char key[32];

        sf__index_writer_init(&w, heap);
        for (size_t i = 0; i < n; i++) { /* block i holds the keys key-i.0 .. key-i.9; keys of changing length */
            int len = i == 0 ? 0 : snprintf(key, sizeof(key), "key-%05zu.9%.*s", i - 1, (int)(i % 7), "xxxxxxx");

            assert_true(sf__index_writer_add(&w, 100 * i, sf_bytes_of(key, (size_t)len), (uint32_t)(10 + i)));
        }
        sf__fb_writer_init(&fb, (sf_bytes){0}, heap);
        sf__index_writer_put(&w, &fb);
        assert_true(sf__fb_ok(&fb));
        plain = sf__fb_written(&fb);
        assert_true(plain.n <= sf__index_writer_bytes(&w) + 4 * n + 100); /* bounds are padded to 4 */
        assert_int_equal(sf__index_decode(&idx, plain, 100 * n, heap, NULL), SF_OK);
        assert_int_equal(idx.count, n);
        for (uint32_t i = 0; i < n; i++) {
            sf_index_range r;
            int len;

            assert_int_equal(sf__index_block_off(&idx, i), 100 * (uint64_t)i);
            for (unsigned k = 0; k < 10; k++) { /* every key has one candidate block */
                len = snprintf(key, sizeof(key), "key-%05u.%u%.*s", i, k, k == 9 ? (int)((i + 1) % 7) : 0, "xxxxxxx");
                r = sf__index_candidates(&idx, sf_bytes_of(key, (size_t)len));
                if (r.first != i || r.last != i)
                    fail_msg("%zu blocks, \"%s\": candidates %u to %u", n, key, r.first, r.last);
            }
        }
        slots = target_of(plain, root_of(plain).pos + 4) + 4;
        for (size_t i = 0; i < n; i++)
            check_table(plain, target_of(plain, slots + 4 * i), (const uint8_t[]){8, 4}, 2);
        sf__index_cleanup(&idx, heap);
        sf__fb_writer_cleanup(&fb);

        sf__fb_writer_init(&fb, (sf_bytes){0}, heap);
        sf__index_writer_put_stats(&w, &(sf_sst_stats){1234, 55, UINT64_C(1) << 40}, &fb);
        assert_true(sf__fb_ok(&fb));
        plain = sf__fb_written(&fb);
        {
            static const uint64_t want[] = {1234, 0, 0, 55, UINT64_C(1) << 40};
            sf_fb_table root = root_of(plain), t;
            sf_fb_vector v;
            uint64_t u64;
            uint16_t u16;

            check_table(plain, root.pos, (const uint8_t[]){8, 8, 8, 8, 8, 4}, 6);
            for (unsigned id = 0; id < 5; id++) {
                assert_int_equal(sf__fb_u64(&root, id, 0, &u64, NULL), SF_OK);
                assert_true(u64 == want[id]);
            }
            assert_int_equal(sf__fb_tables(&root, 5, SF_FB_REQUIRED, "block_stats", &v, NULL, NULL), SF_OK);
            assert_int_equal(v.count, n);
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(sf__fb_tables_at(&v, i, &t, NULL), SF_OK);
                assert_int_equal(sf__fb_u16(&t, 0, 0, &u16, NULL), SF_OK);
                assert_int_equal(u16, 10 + i);
            }
        }
        sf__fb_writer_cleanup(&fb);
        sf__index_writer_cleanup(&w);
    }
}

/* ------------------------------------------------------------------ infos ---------------------------------------- */

static sf_sst_info some_info(uint64_t at, sf_bytes first, sf_bytes last)
{
    return (sf_sst_info){
        .first_key = first,
        .last_key = last,
        .has_first_key = true,
        .has_last_key = true,
        .filter_off = at,
        .filter_len = 30,
        .index_off = at + 30,
        .index_len = 40,
        .stats_off = at + 70,
        .stats_len = 20,
        .codec = SF_CODEC_LZ4,
        .sst_type = SF_SST_COMPACTED,
        .filter_format = 0,
    };
}

static void check_info(const sf_sst_info *got, const sf_sst_info *want)
{
    assert_true(got->has_first_key && sf_bytes_eq(got->first_key, want->first_key));
    assert_true(got->has_last_key && sf_bytes_eq(got->last_key, want->last_key));
    assert_true(got->filter_off == want->filter_off && got->filter_len == want->filter_len);
    assert_true(got->index_off == want->index_off && got->index_len == want->index_len);
    assert_true(got->stats_off == want->stats_off && got->stats_len == want->stats_len);
    assert_int_equal(got->codec, want->codec);
    assert_int_equal(got->sst_type, want->sst_type);
    assert_int_equal(got->filter_format, want->filter_format);
}

static void tails(void **state)
{
    for (size_t len = 1; len < 20; len++) {
        sf_sst_info want =
            some_info(500, sf_bytes_of("abcdefghijklmnopqrst", len), sf_bytes_of("zyxwvutsrqponmlkjihg", 20 - len));
        sf_sst_info got;
        sf_sst_footer footer;
        struct out o = {0};
        bool empty;
        sf_buf *tail = sf__sst_tail_encode(&want, 590, heap);

        while (o.n < 590)
            out_be(&o, 1, 0);
        out_put(&o, tail->data, tail->n);
        assert_int_equal(sf__sst_open(&got, &footer, &empty, out_bytes(&o), NULL), SF_OK);
        assert_false(empty);
        assert_int_equal(footer.version, 2);
        assert_int_equal(footer.info_off, 590);
        check_info(&got, &want);
        check_table(sf__buf_bytes(tail), root_of(sf_bytes_of(tail->data, footer.info_len - 4)).pos,
                    (const uint8_t[]){4, 8, 8, 8, 8, 1, 1, 4, 8, 8, 1}, 11);
        sf__buf_release(tail);
        out_free(&o);
    }
}

/* ------------------------------------------------------------------ manifests ------------------------------------ */

static void manifests(void **state)
{
    static const size_t counts[] = {0, 1, 2, 50};

    for (size_t c = 0; c < 4; c++) {
        size_t n = counts[c];
        sf_built_sst ssts[50];
        char keys[50][2][16], ulid[SF_ULID_TEXT_LEN + 1];
        sf_built_database db = {
            .ssts = ssts,
            .sst_count = n,
            .checkpoint = {UINT64_C(0x0123456789ab4def), UINT64_C(0x8123456789abcdef)},
            .checkpoint_create_s = 1577836800,
            .checkpoint_name = "shardyfusion",
        };
        sf_slatedb_manifest m;
        const sf_slatedb_checkpoint *cp;
        sf_buf *b = NULL;
        sf_fb_table root;

        for (size_t i = 0; i < n; i++) {
            int first = snprintf(keys[i][0], 16, "%03zu%.*s", i, (int)(i % 5), "aaaaa");
            int last = snprintf(keys[i][1], 16, "%03zu%.*s", i, (int)(i % 7) + 1, "zzzzzzzz");

            ssts[i] = (sf_built_sst){
                {1000 + i, UINT64_MAX - i},
                some_info(100 * i + 10, sf_bytes_of(keys[i][0], (size_t)first), sf_bytes_of(keys[i][1], (size_t)last))};
        }
        assert_int_equal(sf__slatedb_manifest_encode(&b, &db, heap, NULL), SF_OK);
        assert_int_equal(sf__slatedb_manifest_decode(&m, b, heap, NULL), SF_OK);
        assert_int_equal(m.head->version, 1);
        assert_true(m.head->initialized && !m.head->has_wal_store && !m.head->segmented);
        assert_int_equal(m.head->writer_epoch, 0);
        assert_int_equal(m.head->replay_after_wal_id, 0);
        assert_int_equal(m.head->wal_id_last_seen, 0);
        assert_int_equal(m.head->last_l0_seq, SF_BUILT_SEQ);
        assert_int_equal(m.tree_count, 1);
        assert_int_equal(m.trees[0].l0_count, 0);
        assert_int_equal(m.trees[0].run_count, n > 0);
        assert_int_equal(m.view_count, n);
        for (size_t i = 0; i < n; i++) {
            const sf_sst_view *v = &m.trees[0].runs[0].ssts[i];

            sf__ulid_format(ssts[i].ulid, ulid);
            assert_string_equal(v->ulid, ulid);
            assert_int_equal(v->format_version, 2);
            assert_null(v->external_path);
            check_info(&v->info, &ssts[i].info);
        }
        cp = sf__slatedb_manifest_checkpoint(&m, "01234567-89ab-4def-8123-456789abcdef");
        assert_non_null(cp);
        assert_int_equal(m.head->checkpoint_count, 1);
        assert_int_equal(cp->manifest_id, 1);
        assert_int_equal(cp->expire_s, 0);
        assert_int_equal(cp->create_s, 1577836800);
        assert_true(sf_bytes_eq(cp->name, sf_bytes_str("shardyfusion")));
        root = root_of(sf_bytes_of(b->data + 2, b->n - 2));
        check_table(sf_bytes_of(b->data + 2, b->n - 2), root.pos,
                    (const uint8_t[]){8, 0, 1, 8, 8, 8, 8, 0, 4, 4, 8, 4, 8, 0, 8, 4}, 16);
        sf__slatedb_manifest_cleanup(&m);
        sf__buf_release(b);
    }
}

/* ------------------------------------------------------------------ records for the snapshot manifest ------------ */

/* What one says is what the database's manifest says. */
static void records(void **state)
{
    static const size_t counts[] = {1, 2, 50};

    for (size_t c = 0; c < 3; c++) {
        size_t n = counts[c];
        sf_built_sst ssts[50];
        char keys[50][2][16], ulid[SF_ULID_TEXT_LEN + 1];
        sf_built_database db = {.ssts = ssts, .sst_count = n};
        uint64_t bytes = 0, objects = 0;
        sf_slatedb_manifest m;
        sf_buf *b = NULL;

        for (size_t i = 0; i < n; i++) {
            int first = snprintf(keys[i][0], 16, "%03zu%.*s", i, (int)(i % 5), "aaaaa");
            int last = snprintf(keys[i][1], 16, "%03zu%.*s", i, (int)(i % 7) + 1, "zzzzzzzz");

            ssts[i] = (sf_built_sst){
                {1000 + i, UINT64_MAX - i},
                some_info(100 * i + 10, sf_bytes_of(keys[i][0], (size_t)first), sf_bytes_of(keys[i][1], (size_t)last))};
        }
        assert_int_equal(sf__opening_record_encode(&b, &db, 70000, heap, NULL), SF_OK);
        assert_non_null(b);
        assert_true(sf__opening_record_facts(sf__buf_bytes(b), &bytes, &objects));
        assert_int_equal(bytes, 70000);
        assert_int_equal(objects, n + 1);
        assert_int_equal(sf__opening_record_decode(&m, sf__buf_bytes(b), heap, NULL), SF_OK);
        assert_true(m.head->initialized && !m.head->has_wal_store && !m.head->segmented);
        assert_int_equal(m.head->replay_after_wal_id, m.head->wal_id_last_seen);
        assert_int_equal(m.head->last_l0_seq, SF_BUILT_SEQ);
        assert_int_equal(m.tree_count, 1);
        assert_int_equal(m.trees[0].l0_count, 0);
        assert_int_equal(m.trees[0].run_count, 1);
        assert_int_equal(m.view_count, n);
        for (size_t i = 0; i < n; i++) {
            const sf_sst_view *v = &m.trees[0].runs[0].ssts[i];

            sf__ulid_format(ssts[i].ulid, ulid);
            assert_string_equal(v->ulid, ulid);
            assert_int_equal(v->format_version, 2);
            assert_null(v->external_path);
            check_info(&v->info, &ssts[i].info);
        }
        sf__slatedb_manifest_cleanup(&m);
        for (size_t cut = 0; cut < b->n; cut++) { /* less of it is none, and reads nothing behind its end */
            sf_buf *less = sf__buf_copy(heap, sf_bytes_of(b->data, cut));

            assert_int_equal(sf__opening_record_decode(&m, sf__buf_bytes(less), heap, NULL), SF_CORRUPT);
            sf__buf_release(less);
        }
        sf__buf_release(b);
    }
}

static void records_that_are_none(void **state)
{
    static const struct {
        const char *name;
        const char *bytes;
        size_t n;
    } cases[] = {
        {"of another backend",
         "\2\1\1"
         "0123456789abcdef"
         "\1a\1z"
         "\x10\0\x10\0\0\0",
         29},
        {"no SST, which would hide all rows", "\1\1\0", 3},
        {"bytes behind it",
         "\1\1\1"
         "0123456789abcdef"
         "\1a\1z"
         "\x10\0\x10\0\0\0x",
         30},
        {"more SSTs than bytes", "\1\1\xff\xff\xff\xff\x0f", 7},
        {"first key above the last",
         "\1\1\1"
         "0123456789abcdef"
         "\1z\1a"
         "\x10\0\x10\0\0\0",
         29},
        {"an index of no bytes",
         "\1\1\1"
         "0123456789abcdef"
         "\1a\1z"
         "\x10\0\0\0\0\0",
         29},
        {"an unknown codec",
         "\1\1\1"
         "0123456789abcdef"
         "\1a\1z"
         "\x10\0\x10\0\x09\0",
         29},
        {"a key that is longer than it",
         "\1\1\1"
         "0123456789abcdef"
         "\xff\1a\1z"
         "\x10\0\x10\0\0\0",
         30},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_buf *b = sf__buf_copy(heap, sf_bytes_of(cases[i].bytes, cases[i].n));
        sf_slatedb_manifest m;

        if (sf__opening_record_decode(&m, sf__buf_bytes(b), heap, NULL) == SF_OK)
            fail_msg("%s: taken", cases[i].name);
        assert_null(m.memory);
        sf__buf_release(b);
    }
}

/* Neither keys nor SSTs make it long: then there is none. */
static void records_that_would_be_long(void **state)
{
    static const sf_built_database none = {.sst_count = 0};
    static char key[SF_LIMIT_OPENING_RECORD_BYTES];
    sf_built_sst sst = {{1, 2}, some_info(10, sf_bytes_str("a"), sf_bytes_of(key, sizeof(key)))};
    sf_built_database db = {.ssts = &sst, .sst_count = 1};
    sf_buf *b = NULL;

    assert_int_equal(sf__opening_record_encode(&b, &none, 500, heap, NULL), SF_OK);
    assert_null(b);
    memset(key, 'z', sizeof(key));
    assert_int_equal(sf__opening_record_encode(&b, &db, 500, heap, NULL), SF_OK);
    assert_null(b);
    sst.info.last_key = sf_bytes_of(key, sizeof(key) / 2);
    assert_int_equal(sf__opening_record_encode(&b, &db, UINT64_C(1) << 33, heap, NULL), SF_OK);
    assert_null(b);
    assert_int_equal(sf__opening_record_encode(&b, &db, 500, heap, NULL), SF_OK);
    assert_non_null(b);
    sf__buf_release(b);
}

/* ------------------------------------------------------------------ stored blocks -------------------------------- */

static void stored_blocks(void **state)
{
    static const size_t sizes[] = {1, 2, 17, 4096, 65536, 300000};
    uint8_t *plain = malloc(300000);
    uint64_t rng = 1;

    for (int codec = SF_CODEC_NONE; codec <= SF_CODEC_ZSTD; codec++) {
        sf_compressor c;
        sf_error e = SF_ERROR_INIT;

        assert_int_equal(sf__compressor_init(&c, (sf_codec)codec, heap, &e), SF_OK);
        for (size_t i = 0; i < 12; i++) {
            sf_bytes stored, in = sf_bytes_of(plain, sizes[i / 2]);
            sf_buf *back;

            for (size_t k = 0; k < in.n; k++) /* what shrinks, and what grows */
                plain[k] = i % 2 ? (uint8_t)(k / 100) : (uint8_t)rng_next(&rng);
            assert_int_equal(sf__compressor_store(&c, in, &stored, &e), SF_OK);
            assert_int_equal(
                sf__stored_block_open(NULL, stored, (sf_codec)codec, SF_LIMIT_BLOCK_BYTES, NULL, heap, &back, &e), SF_OK);
            assert_true(sf_bytes_eq(in, sf__buf_bytes(back)));
            if (codec != SF_CODEC_NONE && i % 2 && in.n > 4000)
                assert_true(stored.n < in.n / 2);
            sf__buf_release(back);
        }
        sf__compressor_cleanup(&c);
    }
    free(plain);
}

/* Large ones of one byte, which we and any decoder with a small window read again. */
static void blocks_that_shrink_to_nothing(void **state)
{
    static const size_t sizes[] = {SF_LIMIT_INFLATE_FREE_BYTES, SF_LIMIT_INFLATE_FREE_BYTES + 1, (65u << 20) + 7,
                                   80u << 20};
    uint8_t *plain = calloc(1, 80u << 20), *again = malloc(80u << 20);

    (void)state;
    assert_non_null(plain);
    assert_non_null(again);
    for (int codec = SF_CODEC_NONE; codec <= SF_CODEC_ZSTD; codec++) {
        sf_compressor c;
        sf_error e = SF_ERROR_INIT;

        assert_int_equal(sf__compressor_init(&c, (sf_codec)codec, heap, &e), SF_OK);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            sf_bytes stored, in = sf_bytes_of(plain, sizes[i]);
            sf_buf *back;

            plain[1] = (uint8_t)(i * 3);
            assert_int_equal(sf__compressor_store(&c, in, &stored, &e), SF_OK);
            if (sf__stored_block_open(NULL, stored, (sf_codec)codec, SF_LIMIT_BLOCK_BYTES, NULL, heap, &back, &e) != SF_OK)
                fail_msg("%s, %zu bytes: %s", sf__codec_name((sf_codec)codec), in.n, e.message);
            assert_true(sf_bytes_eq(in, sf__buf_bytes(back)));
            sf__buf_release(back);
            if (codec == SF_CODEC_ZSTD) {
                ZSTD_DCtx *d = ZSTD_createDCtx();
                ZSTD_outBuffer to = {again, in.n, 0};
                ZSTD_inBuffer from = {stored.p, stored.n - SF_STORED_CRC_BYTES, 0};

                assert_int_equal(ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, i == 0 ? 21 : 17)), 0);
                assert_int_equal(ZSTD_decompressStream(d, &to, &from), 0);
                assert_int_equal(to.pos, in.n);
                assert_int_equal(from.pos, from.size);
                assert_memory_equal(again, plain, in.n);
                ZSTD_freeDCtx(d);
            }
        }
        sf__compressor_cleanup(&c);
    }
    free(again);
    free(plain);
}

/* ------------------------------------------------------------------ memory --------------------------------------- */

static sf_status write_all(const sf_allocator *a)
{
    sf_index_writer w;
    sf_fb_writer fb = {0};
    sf_sst_info info = some_info(0, sf_bytes_str("a"), sf_bytes_str("b"));
    sf_built_sst sst = {{1, 2}, info};
    sf_built_database db = {.ssts = &sst, .sst_count = 1, .checkpoint_name = "x"};
    sf_buf *b = NULL;
    sf_status rc = SF_OK;

    sf__index_writer_init(&w, a);
    for (size_t i = 0; i < 600 && rc == SF_OK; i++)
        rc = sf__index_writer_add(&w, 10 * i, sf_bytes_str("some key"), 1) ? SF_OK : SF_NOMEM;
    if (rc == SF_OK) {
        sf__fb_writer_init(&fb, (sf_bytes){0}, a);
        sf__index_writer_put(&w, &fb);
        rc = sf__fb_ok(&fb) ? SF_OK : SF_NOMEM;
        sf__fb_writer_cleanup(&fb);
    }
    sf__index_writer_cleanup(&w);
    if (rc == SF_OK)
        rc = (b = sf__sst_tail_encode(&info, 100, a)) ? SF_OK : SF_NOMEM;
    sf__buf_release(b);
    b = NULL;
    if (rc == SF_OK)
        rc = sf__slatedb_manifest_encode(&b, &db, a, NULL);
    sf__buf_release(b);
    b = NULL;
    if (rc == SF_OK)
        rc = sf__opening_record_encode(&b, &db, 400, a, NULL);
    if (rc == SF_OK) {
        sf_slatedb_manifest m;

        rc = sf__opening_record_decode(&m, sf__buf_bytes(b), a, NULL);
        sf__slatedb_manifest_cleanup(&m);
    }
    sf__buf_release(b);
    return rc;
}

static void any_failed_allocation_is_survived(void **state)
{
    for (long nth = 0;; nth++) {
        struct test_heap h;
        sf_status rc;

        heap_init(&h);
        heap_arm(&h, nth);
        rc = write_all(&h.alloc);
        if (h.live != 0)
            fail_msg("allocation %ld: %ld left", nth, h.live);
        if (!h.fired) {
            assert_int_equal(rc, SF_OK);
            assert_true(nth > 5);
            break;
        }
        if (rc != SF_NOMEM)
            fail_msg("allocation %ld: %s", nth, sf_status_name(rc));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(indexes_and_stats),
        cmocka_unit_test(tails),
        cmocka_unit_test(manifests),
        cmocka_unit_test(records),
        cmocka_unit_test(records_that_are_none),
        cmocka_unit_test(records_that_would_be_long),
        cmocka_unit_test(stored_blocks),
        cmocka_unit_test(blocks_that_shrink_to_nothing),
        cmocka_unit_test(any_failed_allocation_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
