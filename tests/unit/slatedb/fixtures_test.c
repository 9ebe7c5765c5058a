/* Every object of every fixture database through the codecs: what SlateDB wrote decodes, agrees with itself and with the
 * rows that SlateDB read back; what is damaged is an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "backend/slatedb/format/block_write.h"
#include "backend/slatedb/format/filter_write.h"
#include "backend/slatedb/format/index.h"
#include "backend/slatedb/format/slatedb_manifest.h"
#include "base/json.h"
#include "base/limits.h"
#include "fixture_files.h"

static const sf_allocator *const heap = &sf__allocator_default;

#define DATABASES SF_FIXTURES_DIR "/slatedb"
#define PATH_MAX_LEN 1024

/* One object store path in a buffer that the caller owns. */
static const char *path_of(char *buf, const char *a, const char *b, const char *c, const char *d)
{
    if (snprintf(buf, PATH_MAX_LEN, "%s/%s/%s/%s", a, b, c, d) >= PATH_MAX_LEN)
        abort();
    return buf;
}

/* Rows of one SST, all versions, in file order; keys are copies, values too. */
struct stored_row {
    struct test_row row;
    uint32_t block;
};

struct sst {
    sf_sst_info info;
    sf_sst_footer footer;
    sf_index index;
    sf_filter filter;
    sf_buf *filter_buf;
    sf_buf **blocks;
    struct stored_row *rows;
    size_t count, cap;
};

static void sst_free(struct sst *s)
{
    for (uint32_t i = 0; s->blocks && i < s->index.count; i++)
        sf__buf_release(s->blocks[i]);
    free(s->blocks);
    for (size_t i = 0; i < s->count; i++) {
        free(s->rows[i].row.key);
        free(s->rows[i].row.value);
    }
    free(s->rows);
    sf__filter_cleanup(&s->filter);
    sf__buf_release(s->filter_buf);
    sf__index_cleanup(&s->index, heap);
}

static uint8_t *copy_of(sf_bytes b)
{
    uint8_t *p = malloc(b.n + 1);

    if (!p)
        abort();
    if (b.n > 0)
        memcpy(p, b.p, b.n);
    return p;
}

static void sst_add(struct sst *s, const sf_block_row *r, uint32_t block)
{
    if (s->count == s->cap) {
        s->cap = s->cap * 2 + 64;
        if (!(s->rows = realloc(s->rows, s->cap * sizeof(*s->rows))))
            abort();
    }
    s->rows[s->count++] = (struct stored_row){
        .row = {.key = copy_of(r->key),
                .key_len = r->key.n,
                .value = copy_of(r->value),
                .value_len = r->value.n,
                .seq = r->seq,
                .flags = r->flags,
                .expire_ts = r->expire_ts,
                .create_ts = r->create_ts},
        .block = block,
    };
}

static sf_bytes key_at(const struct sst *s, size_t i)
{
    return (sf_bytes){s->rows[i].row.key, s->rows[i].row.key_len};
}

static bool row_is(const sf_block_row *got, const struct test_row *want)
{
    return sf_bytes_eq(got->key, (sf_bytes){want->key, want->key_len}) &&
           sf_bytes_eq(got->value, (sf_bytes){want->value, want->value_len}) && got->seq == want->seq &&
           got->flags == want->flags && got->expire_ts == want->expire_ts && got->create_ts == want->create_ts;
}

static sf_status block_load(struct sst *s, sf_bytes object, uint32_t i, sf_error *err)
{
    sf_block b;
    sf_block_cursor c;
    sf_bytes stored;
    sf_status rc = SF_OK;

    if (!sf_bytes_slice(object, sf__index_block_off(&s->index, i), sf__index_block_len(&s->index, i), &stored))
        return sf_fail(err, SF_CORRUPT, "block %u outside the object", i);
    if ((rc = sf__stored_block_open(NULL, stored, s->info.codec, SF_LIMIT_BLOCK_BYTES, NULL, heap, &s->blocks[i], err)) !=
            SF_OK ||
        (rc = sf__block_check(sf__buf_bytes(s->blocks[i]), s->footer.version, err)) != SF_OK ||
        (rc = sf__block_init(&b, sf__buf_bytes(s->blocks[i]), s->footer.version, err)) != SF_OK)
        return rc;
    sf__block_cursor_init(&c, heap);
    sf__block_cursor_set(&c, &b);
    for (rc = sf__block_cursor_first(&c, err); rc == SF_OK && c.valid; rc = sf__block_cursor_next(&c, err))
        sst_add(s, &c.row, i);
    sf__block_cursor_cleanup(&c);
    return rc;
}

/* `empty`: no rows, nothing else decoded. Anything that is wrong with the object is an error. */
static sf_status sst_load(struct sst *s, sf_bytes object, bool *empty, sf_error *err)
{
    sf_bytes stored, plain;
    sf_buf *buf = NULL;
    sf_status rc = sf__sst_open(&s->info, &s->footer, empty, object, err);

    if (rc != SF_OK || *empty)
        return rc;
    if (!sf_bytes_slice(object, s->info.index_off, s->info.index_len, &stored))
        return sf_fail(err, SF_CORRUPT, "index outside the object");
    rc = sf__stored_block_view(NULL, stored, s->info.codec, SF_LIMIT_META_BYTES, heap, &plain, &buf, err);
    if (rc == SF_OK)
        rc = sf__index_decode(&s->index, plain, sf__sst_blocks_end(&s->info), heap, err);
    sf__buf_release(buf);
    if (rc == SF_OK && s->info.filter_len > 0) {
        if (!sf_bytes_slice(object, s->info.filter_off, s->info.filter_len, &stored))
            return sf_fail(err, SF_CORRUPT, "filter outside the object");
        rc = sf__stored_block_open(NULL, stored, s->info.codec, SF_LIMIT_META_BYTES, NULL, heap, &s->filter_buf, err);
        if (rc == SF_OK)
            rc = sf__filter_decode(&s->filter, sf__buf_bytes(s->filter_buf), s->filter_buf, s->info.filter_format, err);
    }
    if (rc == SF_OK && !(s->blocks = calloc(s->index.count + 1, sizeof(*s->blocks))))
        abort();
    for (uint32_t i = 0; rc == SF_OK && i < s->index.count; i++)
        rc = block_load(s, object, i, err);
    return rc;
}

#define CHECK(cond)                          \
    do {                                     \
        if (!(cond))                         \
            fail_msg("%s: %s", name, #cond); \
    } while (0)

/* As a reader gets: the first hit among the candidate blocks. */
static void check_get(const struct sst *s, sf_bytes key, const struct test_row *want, const char *name)
{
    sf_index_range r = sf__index_candidates(&s->index, key);
    bool found = false;
    sf_block_row row;

    for (uint32_t i = r.first; i <= r.last && !found && r.first <= r.last; i++) {
        sf_block b;

        CHECK(sf__block_init(&b, sf__buf_bytes(s->blocks[i]), s->footer.version, NULL) == SF_OK);
        CHECK(sf__block_get(&b, key, SF_SEQ_MAX, &found, &row, NULL) == SF_OK);
    }
    CHECK(found == (want != NULL));
    CHECK(!found || row_is(&row, want));
}

static void check_backwards(const struct sst *s, const char *name)
{
    size_t i = s->count;
    sf_block_cursor c;

    sf__block_cursor_init(&c, heap);
    for (uint32_t block = s->index.count; block-- > 0;) {
        sf_block b;

        CHECK(sf__block_init(&b, sf__buf_bytes(s->blocks[block]), s->footer.version, NULL) == SF_OK);
        sf__block_cursor_set(&c, &b);
        CHECK(sf__block_cursor_last(&c, NULL) == SF_OK);
        while (c.valid) {
            CHECK(i > 0 && s->rows[--i].block == block && row_is(&c.row, &s->rows[i].row));
            CHECK(sf__block_cursor_prev(&c, NULL) == SF_OK);
        }
    }
    CHECK(i == 0);
    sf__block_cursor_cleanup(&c);
}

/* Both seeks, in the block of the row. */
static void check_seeks(const struct sst *s, size_t i, sf_block_cursor *c, const char *name)
{
    uint32_t block = s->rows[i].block;
    size_t first = i, ge;
    sf_block b;

    CHECK(sf__block_init(&b, sf__buf_bytes(s->blocks[block]), s->footer.version, NULL) == SF_OK);
    while (first > 0 && s->rows[first - 1].block == block && sf_bytes_eq(key_at(s, first - 1), key_at(s, i)))
        first--;
    sf__block_cursor_set(c, &b);
    CHECK(sf__block_cursor_seek_ge(c, key_at(s, i), NULL) == SF_OK);
    for (ge = first; ge < s->count && ge < first + 3 && s->rows[ge].block == block; ge++) {
        CHECK(c->valid && row_is(&c->row, &s->rows[ge].row));
        CHECK(sf__block_cursor_next(c, NULL) == SF_OK);
    }
    CHECK(sf__block_cursor_seek_lt(c, key_at(s, i), NULL) == SF_OK);
    CHECK(c->valid == (first > 0 && s->rows[first - 1].block == block));
    CHECK(!c->valid || row_is(&c->row, &s->rows[first - 1].row));
}

static void check_compacted(const struct sst *s, const char *name)
{
    sf_block_cursor c;
    size_t distinct = 0, passed = 0;

    CHECK(s->count > 0 && s->info.has_first_key && sf_bytes_eq(s->info.first_key, key_at(s, 0)));
    CHECK(!s->info.has_last_key || sf_bytes_eq(s->info.last_key, key_at(s, s->count - 1)));
    sf__block_cursor_init(&c, heap);
    for (size_t i = 0; i < s->count; i++) {
        sf_bytes key = key_at(s, i), absent;
        uint32_t block = s->rows[i].block;
        int order = i > 0 ? sf_bytes_cmp(key_at(s, i - 1), key) : -1;
        uint8_t *longer;
        size_t next = i + 1;

        CHECK(order < 0 || (order == 0 && s->rows[i - 1].row.seq > s->rows[i].row.seq));
        CHECK(sf_bytes_cmp(sf__index_block_bound(&s->index, block), key) <= 0);
        CHECK(block + 1 == s->index.count || sf_bytes_cmp(sf__index_block_bound(&s->index, block + 1), key) >= 0);
        CHECK(sf__filter_may_contain(&s->filter, key));
        check_seeks(s, i, &c, name);
        if (order == 0)
            continue;
        distinct++;
        check_get(s, key, &s->rows[i].row, name);
        longer = copy_of(key);
        longer[key.n] = 0;
        absent = (sf_bytes){longer, key.n + 1};
        while (next < s->count && sf_bytes_eq(key_at(s, next), key))
            next++;
        if (next == s->count || !sf_bytes_eq(key_at(s, next), absent)) {
            passed += sf__filter_may_contain(&s->filter, absent);
            check_get(s, absent, NULL, name);
        }
        free(longer);
    }
    /* at 10 bits and 6 probes 1 % pass; the case of 1 bit has no probes at all */
    if (s->filter.count > 0 && s->filter.blooms[0].probes > 5 && distinct > 50)
        CHECK(passed < distinct / 10);
    sf__block_cursor_cleanup(&c);
    check_backwards(s, name);
}

static void check_wal(const struct sst *s, const char *name)
{
    CHECK(s->info.filter_len == 0 && s->info.first_key.n == 8);
    for (size_t i = 0; i < s->count; i++) {
        sf_bytes bound = sf__index_block_bound(&s->index, s->rows[i].block);

        CHECK(i == 0 || s->rows[i].row.seq >= s->rows[i - 1].row.seq);
        if (i == 0 || s->rows[i].block != s->rows[i - 1].block)
            CHECK(bound.n == 8 && sf_load_be(bound.p, 8) == s->rows[i].row.seq);
    }
    CHECK(s->count == 0 || sf_load_be(s->info.first_key.p, 8) == s->rows[0].row.seq);
    check_backwards(s, name);
}

static sf_block_row row_of(const struct test_row *r)
{
    return (sf_block_row){
        .key = {r->key, r->key_len},
        .value = {r->value, r->value_len},
        .seq = r->seq,
        .create_ts = r->create_ts,
        .expire_ts = r->expire_ts,
        .flags = r->flags,
    };
}

/* Packs all rows into blocks of `block_bytes`; whether the blocks are those of the file, byte for byte. */
static bool packs_alike(const struct sst *s, size_t block_bytes)
{
    sf_block_writer w;
    uint32_t block = 0;
    bool alike = true;

    sf__block_writer_init(&w, block_bytes, heap);
    for (size_t i = 0; i <= s->count && alike; i++) {
        bool full = i == s->count;
        sf_block_row row;
        sf_bytes plain;

        if (!full) {
            row = row_of(&s->rows[i].row);
            assert_int_equal(sf__block_writer_add(&w, &row, &full, NULL), SF_OK);
        }
        if (!full)
            continue;
        assert_int_equal(sf__block_writer_finish(&w, &plain, NULL), SF_OK);
        alike = block < s->index.count && sf_bytes_eq(plain, sf__buf_bytes(s->blocks[block]));
        block++;
        if (i < s->count) {
            assert_int_equal(sf__block_writer_add(&w, &row, &full, NULL), SF_OK);
            assert_false(full);
        }
    }
    sf__block_writer_cleanup(&w);
    return alike && block == s->index.count;
}

/* SlateDB's own bytes come out of our encoders: blocks with their bounds, and the filter's bits. */
static void check_rewritten(const struct sst *s, const char *name)
{
    size_t block_bytes = SF_BLOCK_BYTES_MIN, bits = 1;
    sf_filter_writer f;
    sf_buf *b;

    if (s->footer.version == 2) {
        while (block_bytes < SF_BLOCK_BYTES_MAX && !packs_alike(s, block_bytes))
            block_bytes *= 2;
        CHECK(packs_alike(s, block_bytes));
    }
    if (s->filter.count != 1 || strstr(name, "filter_prefix") || strstr(name, "filter_two"))
        return;
    while (bits < 64 && (s->count * bits + 7) / 8 * 8 < s->filter.blooms[0].bit_count)
        bits++;
    sf__filter_writer_init(&f, heap);
    for (size_t i = 0; i < s->count; i++)
        CHECK(sf__filter_writer_add(&f, sf__filter_hash(key_at(s, i))));
    b = sf__filter_writer_finish(&f, (uint32_t)bits);
    CHECK(b && b->n == 2 + s->filter.blooms[0].bit_count / 8 && sf_load_be(b->data, 2) == s->filter.blooms[0].probes &&
          memcmp(b->data + 2, s->filter.blooms[0].bits, b->n - 2) == 0);
    sf__buf_release(b);
    sf__filter_writer_cleanup(&f);
}

/* Cut and flipped bytes: an error, or what nothing here reads (the stats, a WAL object cut to a fence marker). */
static void check_damage(sf_bytes object, size_t row_count, const char *name)
{
    uint64_t seed = object.n;
    size_t step = 1 + object.n / 60;

    for (size_t n = 0; n < object.n; n += n + 30 < object.n ? step : 1) {
        uint8_t *copy = copy_of((sf_bytes){object.p, n});
        struct sst s = {0};
        bool empty = false;
        sf_status rc = sst_load(&s, (sf_bytes){copy, n}, &empty, NULL);

        CHECK(n <= SF_SST_FOOTER_BYTES ? rc == SF_OK && empty : rc == SF_CORRUPT || rc == SF_UNSUPPORTED);
        sst_free(&s);
        free(copy);
    }
    for (int i = 0; i < 12; i++) {
        uint64_t bit = rng_next(&seed) % (i % 2 ? 8 * object.n : 8 * (object.n < 300 ? object.n : 300));
        uint8_t *copy = copy_of(object);
        struct sst s = {0};
        bool empty = false;
        size_t at = object.n - 1 - (size_t)(bit / 8); /* every second one in the last 300 bytes */
        sf_status rc;

        copy[at] ^= (uint8_t)(1u << bit % 8);
        rc = sst_load(&s, (sf_bytes){copy, object.n}, &empty, NULL);
        CHECK(rc == SF_CORRUPT || rc == SF_UNSUPPORTED ||
              (rc == SF_OK && s.count == row_count && at >= s.info.stats_off && at < s.info.stats_off + s.info.stats_len));
        sst_free(&s);
        free(copy);
    }
}

/* Counts of one pass over the fixtures. */
struct seen {
    size_t ssts, rows, empty, wal, filters, manifests, versions[3], codecs[5], failed;
};

static void check_sst_file(const char *path, struct seen *seen, const char *name)
{
    struct out o = {0};
    struct sst s = {0};
    bool empty = false;
    sf_error err;
    sf_status rc;

    CHECK(file_read(path, &o));
    rc = sst_load(&s, out_bytes(&o), &empty, &err);
    if (rc != SF_OK) {
        if (!strstr(name, "corrupt_"))
            fail_msg("%s: %s", path, err.message);
        seen->failed++;
    } else if (empty) {
        seen->empty++;
    } else {
        seen->ssts++;
        seen->rows += s.count;
        seen->filters += s.info.filter_len > 0;
        seen->codecs[s.info.codec]++;
        if (strstr(path, "/wal/")) {
            seen->wal++;
            CHECK(s.info.sst_type == SF_SST_WAL || s.count == 0);
            if (s.count > 0)
                check_wal(&s, path);
        } else {
            check_compacted(&s, path);
            check_rewritten(&s, path);
        }
        check_damage(out_bytes(&o), s.count, path);
    }
    sst_free(&s);
    out_free(&o);
}

static void check_manifest_damage(sf_bytes object)
{
    uint64_t seed = object.n;

    for (int i = 0; i < 60; i++) {
        size_t n = i % 2 ? object.n : (size_t)(rng_next(&seed) % object.n);
        sf_buf *copy = sf__buf_copy(heap, (sf_bytes){object.p, n});
        sf_slatedb_manifest m;
        uint64_t bit = rng_next(&seed) % (8 * object.n);

        assert_non_null(copy);
        if (i % 2) /* no checksum protects it: the sanitizer is the judge */
            copy->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)!sf__slatedb_manifest_decode(&m, copy, heap, NULL);
        sf__slatedb_manifest_cleanup(&m);
        sf__buf_release(copy);
    }
}

/* A view agrees with the file that it names. */
static void check_view(const sf_sst_view *v, const char *store, const char *db, const char *name)
{
    char path[PATH_MAX_LEN], folder[PATH_MAX_LEN];
    struct out o = {0};
    sf_sst_info info;
    sf_sst_footer footer;
    bool empty;

    snprintf(folder, sizeof(folder), "%s/compacted/%s.sst", v->external_path ? v->external_path : db, v->ulid);
    snprintf(path, sizeof(path), "%s/%.900s", store, folder);
    if (file_read(path, &o) && sf__sst_open(&info, &footer, &empty, out_bytes(&o), NULL) == SF_OK && !empty) {
        CHECK(footer.version == v->format_version);
        CHECK(info.index_off == v->info.index_off && info.index_len == v->info.index_len);
        CHECK(info.filter_off == v->info.filter_off && info.filter_len == v->info.filter_len);
        CHECK(info.codec == v->info.codec && info.filter_format == v->info.filter_format);
        CHECK(info.stats_off == v->info.stats_off && info.stats_len == v->info.stats_len);
        if (!v->visible || v->visible->start.kind == SF_BOUND_UNBOUNDED)
            CHECK(sf_bytes_eq(info.first_key, v->info.first_key));
        if (!v->visible || v->visible->end.kind == SF_BOUND_UNBOUNDED)
            CHECK(sf_bytes_eq(info.last_key, v->info.last_key));
    } /* else collected since, or damaged on purpose */
    out_free(&o);
}

static bool manifest_load(const char *path, sf_slatedb_manifest *m, struct out *o, sf_error *err)
{
    sf_buf *buf;
    sf_status rc;

    if (!file_read(path, o))
        abort();
    buf = sf__buf_copy(heap, out_bytes(o));
    if (!buf)
        abort();
    rc = sf__slatedb_manifest_decode(m, buf, heap, err);
    sf__buf_release(buf);
    return rc == SF_OK;
}

static void check_manifest_file(const char *path, const char *store, const char *db, struct seen *seen, const char *name)
{
    struct out o = {0};
    sf_slatedb_manifest m;
    sf_error err;

    if (!manifest_load(path, &m, &o, &err)) {
        if (!strstr(name, "corrupt_"))
            fail_msg("%s: %s", path, err.message);
        seen->failed++;
    } else {
        CHECK(m.head->initialized || strstr(name, "clone"));
        seen->manifests++;
        seen->versions[m.head->version]++;
        for (uint32_t i = 0; i < m.view_count; i++)
            check_view(&m.views[i], store, db, name);
        for (uint32_t i = 0; i < m.head->checkpoint_count; i++)
            CHECK(sf__slatedb_manifest_checkpoint(&m, m.head->checkpoints[i].id) != NULL);
        check_manifest_damage(out_bytes(&o));
    }
    sf__slatedb_manifest_cleanup(&m);
    out_free(&o);
}

static void check_database(const char *store, const char *db, struct seen *seen, const char *name)
{
    static const char *const folders[] = {"compacted", "wal", "manifest"};
    char dir[PATH_MAX_LEN], path[PATH_MAX_LEN + 300];

    for (size_t f = 0; f < 3; f++) {
        struct names files;

        path_of(dir, store, db, folders[f], "");
        files = names_in(dir, f < 2 ? ".sst" : ".manifest");
        for (size_t i = 0; i < files.count; i++) {
            snprintf(path, sizeof(path), "%s%s", dir, files.v[i]);
            if (f < 2)
                check_sst_file(path, seen, name);
            else
                check_manifest_file(path, store, db, seen, name);
        }
        names_free(&files);
    }
}

static void test_every_object(void **state)
{
    struct names cases = names_in(DATABASES, "");
    struct seen sum = {0};

    (void)state;
    assert_true(cases.count > 70);
    for (size_t i = 0; i < cases.count; i++) {
        char store[PATH_MAX_LEN];
        size_t failed = sum.failed;

        if (strchr(cases.v[i], '-') == NULL) /* README.md */
            continue;
        snprintf(store, sizeof(store), DATABASES "/%s", cases.v[i]);
        check_database(store, "db", &sum, cases.v[i]);
        check_database(store, "parent", &sum, cases.v[i]);
        assert_true(sum.failed - failed <= 1); /* one object is damaged, no more */
    }
    names_free(&cases);
    printf("%zu SSTs (%zu WAL, %zu more empty) with %zu rows, %zu filters, %zu manifests, %zu damaged objects\n",
           sum.ssts, sum.wal, sum.empty, sum.rows, sum.filters, sum.manifests, sum.failed);
    assert_true(sum.filters > 0 && sum.versions[1] > 0 && sum.versions[2] > 0 && sum.failed > 10 && sum.empty > 0);
    for (size_t i = 0; i < 5; i++)
        assert_true(sum.codecs[i] > 0);
}

/* The visible rows of a whole database, by the slow and simple way: all rows of all sources, sorted. */
struct table {
    struct stored_row *rows;
    size_t count, cap;
    bool merge; /* met an operand: no rows without an operator */
};

static void table_add(struct table *t, const struct sst *s, const sf_sst_view *view, uint64_t above_seq)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct test_row *r = &s->rows[i].row;

        if ((view && view->visible && !sf__key_range_contains(view->visible, key_at(s, i))) ||
            (!view && r->seq <= above_seq))
            continue;
        if (t->count == t->cap) {
            t->cap = t->cap * 2 + 64;
            if (!(t->rows = realloc(t->rows, t->cap * sizeof(*t->rows))))
                abort();
        }
        t->merge |= (r->flags & SF_ROW_MERGE) != 0;
        t->rows[t->count] = s->rows[i];
        t->rows[t->count].row.key = copy_of(key_at(s, i));
        t->rows[t->count++].row.value = copy_of((sf_bytes){r->value, r->value_len});
    }
}

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->rows[i].row.key);
        free(t->rows[i].row.value);
    }
    free(t->rows);
}

static int stored_row_cmp(const void *pa, const void *pb)
{
    const struct test_row *a = &((const struct stored_row *)pa)->row, *b = &((const struct stored_row *)pb)->row;
    int c = sf_bytes_cmp((sf_bytes){a->key, a->key_len}, (sf_bytes){b->key, b->key_len});

    return c != 0 ? c : (a->seq < b->seq) - (a->seq > b->seq);
}

static void table_add_file(struct table *t, const char *path, const sf_sst_view *view, uint64_t above_seq)
{
    struct out o = {0};
    struct sst s = {0};
    bool empty;
    sf_error err;

    if (!file_read(path, &o))
        fail_msg("%s is missing", path);
    if (sst_load(&s, out_bytes(&o), &empty, &err) != SF_OK)
        fail_msg("%s: %s", path, err.message);
    table_add(t, &s, view, above_seq);
    sst_free(&s);
    out_free(&o);
}

static void table_fill(struct table *t, const char *store)
{
    char dir[PATH_MAX_LEN], path[PATH_MAX_LEN + 300];
    struct names manifests, wals;
    struct out o = {0};
    sf_slatedb_manifest m;
    sf_error err;

    manifests = names_in(path_of(dir, store, "db", "manifest", ""), ".manifest");
    assert_true(manifests.count > 0);
    snprintf(path, sizeof(path), "%s%s", dir, manifests.v[manifests.count - 1]);
    if (!manifest_load(path, &m, &o, &err))
        fail_msg("%s: %s", path, err.message);
    for (uint32_t i = 0; i < m.view_count; i++) {
        snprintf(path, sizeof(path), "%.400s/%.100s/compacted/%s.sst", store,
                 m.views[i].external_path ? m.views[i].external_path : "db", m.views[i].ulid);
        table_add_file(t, path, &m.views[i], 0);
    }
    wals = names_in(path_of(dir, store, "db", "wal", ""), ".sst");
    for (size_t i = 0; i < wals.count; i++) {
        if (strtoull(wals.v[i], NULL, 10) <= m.head->replay_after_wal_id)
            continue;
        snprintf(path, sizeof(path), "%s%s", dir, wals.v[i]);
        table_add_file(t, path, NULL, m.head->last_l0_seq);
    }
    if (t->count > 0)
        qsort(t->rows, t->count, sizeof(*t->rows), stored_row_cmp);
    names_free(&wals);
    names_free(&manifests);
    sf__slatedb_manifest_cleanup(&m);
    out_free(&o);
}

/* Row i is the newest of its key, and a value. */
static bool is_visible(const struct table *t, size_t i)
{
    return (i == 0 || sf_bytes_cmp((sf_bytes){t->rows[i - 1].row.key, t->rows[i - 1].row.key_len},
                                   (sf_bytes){t->rows[i].row.key, t->rows[i].row.key_len}) != 0) &&
           !(t->rows[i].row.flags & SF_ROW_TOMBSTONE);
}

static bool hex_is(const sf_json *hex, const uint8_t *p, size_t n)
{
    if (!hex || hex->kind != SF_JSON_STRING || hex->str.n != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char text[3];

        snprintf(text, sizeof(text), "%02x", p[i]);
        if (memcmp(text, hex->str.p + 2 * i, 2) != 0)
            return false;
    }
    return true;
}

static size_t check_rows(const struct table *t, sf_bytes expected, const char *name)
{
    size_t at = 0, lines = 0;

    for (sf_bytes line; expected.n > 0; lines++) {
        const uint8_t *nl = memchr(expected.p, '\n', expected.n);
        const struct test_row *r;
        const sf_json *v;
        sf_json_doc doc;
        sf_bytes newline;

        CHECK(nl && sf_cursor_take(&expected, (size_t)(nl - expected.p), &line) && sf_cursor_take(&expected, 1, &newline));
        while (at < t->count && !is_visible(t, at))
            at++;
        if (at == t->count)
            fail_msg("%s: only %zu rows", name, lines);
        r = &t->rows[at++].row;
        CHECK(sf__json_parse(&doc, line, 0, heap, NULL) == SF_OK);
        CHECK(hex_is(sf__json_get(doc.root, "k"), r->key, r->key_len));
        v = sf__json_get(doc.root, "v");
        if (v) {
            CHECK(hex_is(v, r->value, r->value_len));
        } else { /* a long value: its length and a hash */
            char want[32];

            v = sf__json_get(doc.root, "vn");
            snprintf(want, sizeof(want), "%zu", r->value_len);
            CHECK(v && sf_bytes_eq(v->raw, sf_bytes_str(want)));
        }
        sf__json_cleanup(&doc);
    }
    for (; at < t->count; at++) {
        if (is_visible(t, at))
            fail_msg("%s: a row behind the %zu expected", name, lines);
    }
    return lines;
}

static void test_visible_rows(void **state)
{
    struct names cases = names_in(DATABASES, "");
    size_t databases = 0, rows = 0;

    (void)state;
    for (size_t i = 0; i < cases.count; i++) {
        char store[PATH_MAX_LEN], path[PATH_MAX_LEN + 20];
        struct table t = {0};
        struct out expected = {0};

        if (strchr(cases.v[i], '-') == NULL || strstr(cases.v[i], "corrupt_"))
            continue;
        snprintf(store, sizeof(store), DATABASES "/%s", cases.v[i]);
        snprintf(path, sizeof(path), "%s/expected.jsonl", store);
        assert_true(file_read(path, &expected));
        table_fill(&t, store);
        assert_int_equal(t.merge, strstr(cases.v[i], "merge") != NULL);
        if (!t.merge) {
            rows += check_rows(&t, out_bytes(&expected), cases.v[i]);
            databases++;
        }
        out_free(&expected);
        table_free(&t);
    }
    names_free(&cases);
    printf("%zu databases, %zu rows\n", databases, rows);
    assert_true(databases > 50 && rows > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_object),
        cmocka_unit_test(test_visible_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
