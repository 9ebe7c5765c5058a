/* Sidecars: ours equal the golden ones, damaged ones are declined, and what the rules for pages and chains say. */
#include "golden.h"

#include <sqlite3.h>
#include <zstd.h>

#include "backend/sqlite/btree_page.h"
#include "backend/sqlite/sidecar.h"

static const sf_allocator *const heap = &sf__allocator_default;

/* The tag of a sidecar, as text. */
static void tag_of(sf_bytes sidecar, char out[static SF_SIDECAR_TAG_MAX + 1])
{
    sf_sidecar s;
    sf_error e = SF_ERROR_INIT;

    if (sf__sidecar_decode(&s, sidecar, NULL, NULL, heap, &e) != SF_OK)
        fail_msg("%s", e.message);
    memcpy(out, s.tag, s.tag_bytes);
    out[s.tag_bytes] = '\0';
    sf__sidecar_cleanup(&s);
}

/* ------------------------------------------------------------------ golden --------------------------------------- */

/* Every page in the sidecar is the database's, but for zeroes in its gap. */
static void check_pages(const char *name, const sf_sidecar *s, sf_bytes db)
{
    uint8_t *page = malloc(s->page_bytes);

    for (uint32_t i = 0; i < s->page_count; i++) {
        uint32_t number = sf__sidecar_page_number(s, i), found;
        sf_bytes original;
        size_t from, to;

        if (!sf_bytes_slice(db, (uint64_t)(number - 1) * s->page_bytes, s->page_bytes, &original))
            fail_msg("%s: page %u is not in the file", name, number);
        assert_true(sf__btree_gap(original, number, s->page_bytes, &from, &to));
        sf__sidecar_page(s, i, page);
        if (memcmp(page, original.p, from) != 0 || memcmp(page + to, original.p + to, s->page_bytes - to) != 0)
            fail_msg("%s: page %u differs", name, number);
        for (size_t k = from; k < to; k++)
            assert_int_equal(page[k], 0);
        assert_true(sf__sidecar_find_page(s, number, &found) && found == i);
    }
    free(page);
}

/* Every chain is linked in the database as the sidecar says. */
static void check_chains(const char *name, const sf_sidecar *s, sf_bytes db)
{
    for (uint32_t i = 0; i < s->chain_count; i++) {
        uint32_t head = sf__sidecar_chain_head(s, i), next = head, first, count;

        assert_true(sf__sidecar_find_chain(s, head, &first, &count));
        for (uint32_t k = 0; k < count; k++) {
            sf_bytes link;

            if (sf__sidecar_chain_page(s, first + k) != next ||
                !sf_bytes_slice(db, (uint64_t)(next - 1) * s->page_bytes, 4, &link))
                fail_msg("%s: chain %u, page %u", name, head, k);
            next = (uint32_t)sf_load_be(link.p, 4);
        }
        assert_int_equal(next, 0);
    }
}

static void equals_the_golden_ones(void **state)
{
    size_t chains = 0, interior = 0;
    glob_t found;

    golden_find(SF_SIDECAR_NAME, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *name = found.gl_pathv[i];
        sf_buf *golden = golden_read(name), *db = golden_read_beside(name, "shard.db"), *made = NULL;
        char etag[SF_SIDECAR_TAG_MAX + 1];
        sf_sidecar theirs, ours;
        sf_error e = SF_ERROR_INIT;

        tag_of(sf__buf_bytes(golden), etag);
        if (sf__sidecar_encode_bytes(sf__buf_bytes(db), etag, heap, &made, &e) != SF_OK ||
            sf__sidecar_decode(&theirs, sf__buf_bytes(golden), etag, NULL, heap, &e) != SF_OK ||
            sf__sidecar_decode(&ours, sf__buf_bytes(made), etag, NULL, heap, &e) != SF_OK)
            fail_msg("%s: %s", name, e.message);
        if (ours.page_bytes != theirs.page_bytes || !sf_bytes_eq(sf__buf_bytes(ours.body), sf__buf_bytes(theirs.body)))
            fail_msg("%s: the bodies differ", name);
        if (made->n < 18 || memcmp(made->data, golden->data, 18 + strlen(etag)) != 0)
            fail_msg("%s: the heads differ", name);
        check_pages(name, &theirs, sf__buf_bytes(db));
        check_chains(name, &theirs, sf__buf_bytes(db));
        chains += theirs.chain_count;
        interior += theirs.page_count - 1;
        sf__sidecar_cleanup(&theirs);
        sf__sidecar_cleanup(&ours);
        sf__buf_release(golden);
        sf__buf_release(made);
        sf__buf_release(db);
    }
    globfree(&found);
    assert_true(chains > 30 && interior > 15); /* the fixtures have both */
}

/* ------------------------------------------------------------------ damage --------------------------------------- */

/* A flipped byte is noticed; but the frame has a bit that means nothing. */
static void notices_every_damaged_byte(void **state)
{
    glob_t found;

    golden_find(SF_SIDECAR_NAME, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        sf_buf *golden = golden_read(found.gl_pathv[i]);
        char etag[SF_SIDECAR_TAG_MAX + 1];
        sf_sidecar whole, s;
        size_t declined = 0;

        tag_of(sf__buf_bytes(golden), etag);
        assert_int_equal(sf__sidecar_decode(&whole, sf__buf_bytes(golden), etag, NULL, heap, NULL), SF_OK);
        for (size_t at = 0; at < golden->n; at += at < 64 ? 1 : 613) {
            for (unsigned bit = 0; bit < 8; bit++) {
                golden->data[at] ^= (uint8_t)(1u << bit);
                if (sf__sidecar_decode(&s, sf__buf_bytes(golden), etag, NULL, heap, NULL) == SF_OK) {
                    assert_true(sf_bytes_eq(sf__buf_bytes(s.body), sf__buf_bytes(whole.body)));
                    assert_int_equal(s.page_bytes, whole.page_bytes);
                    sf__sidecar_cleanup(&s);
                } else {
                    declined++;
                }
                golden->data[at] ^= (uint8_t)(1u << bit);
            }
        }
        assert_true(declined > 350);
        for (size_t n = 0; n < golden->n; n += n < 200 ? 1 : 331)
            assert_int_not_equal(sf__sidecar_decode(&s, sf_bytes_of(golden->data, n), etag, NULL, heap, NULL), SF_OK);
        sf__sidecar_cleanup(&whole);
        sf__buf_release(golden);
    }
    globfree(&found);
}

/* Nothing is unpacked that was not set aside. */
static void unpacks_within_its_room(void **state)
{
    glob_t found;
    sf_buf *golden;
    sf_sidecar s;
    sf_plain_room room = {.left = 100};
    sf_error e = SF_ERROR_INIT;

    golden_find(SF_SIDECAR_NAME, &found);
    golden = golden_read(found.gl_pathv[0]);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(golden), NULL, &room, heap, &e), SF_WOULD_BLOCK);
    assert_int_equal(room.left, 100);
    assert_int_equal(room.wanted, sf_load_le(golden->data + 5, 8));
    room.left = room.wanted - 1;
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(golden), NULL, &room, heap, &e), SF_WOULD_BLOCK);
    room.left = room.wanted;
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(golden), NULL, &room, heap, &e), SF_OK);
    assert_int_equal(room.left, 0);
    sf__sidecar_cleanup(&s);
    sf__buf_release(golden);
    globfree(&found);
}

static void belongs_to_one_etag(void **state)
{
    glob_t found;
    sf_buf *golden, *db, *unbound = NULL, *other = NULL;
    char long_etag[300];
    sf_sidecar s;

    golden_find(SF_SIDECAR_NAME, &found);
    golden = golden_read(found.gl_pathv[0]);
    db = golden_read_beside(found.gl_pathv[0], "shard.db");
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(golden), "\"another\"", NULL, heap, NULL), SF_CONFLICT);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(golden), "", NULL, heap, NULL), SF_CONFLICT);
    assert_int_equal(sf__sidecar_encode_bytes(sf__buf_bytes(db), "", heap, &unbound, NULL), SF_OK);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(unbound), "", NULL, heap, NULL), SF_CONFLICT);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(unbound), NULL, NULL, heap, NULL), SF_OK);
    assert_int_equal(s.tag_bytes, 0);
    sf__sidecar_cleanup(&s);
    memset(long_etag, 'x', sizeof(long_etag));
    long_etag[299] = '\0';
    assert_int_equal(sf__sidecar_encode_bytes(sf__buf_bytes(db), long_etag, heap, &other, NULL), SF_OK);
    assert_int_equal(other->data[17], 0);
    long_etag[255] = '\0';
    sf__buf_release(other);
    assert_int_equal(sf__sidecar_encode_bytes(sf__buf_bytes(db), long_etag, heap, &other, NULL), SF_OK);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(other), long_etag, NULL, heap, NULL), SF_OK);
    sf__sidecar_cleanup(&s);
    sf__buf_release(other);
    sf__buf_release(unbound);
    sf__buf_release(golden);
    sf__buf_release(db);
    globfree(&found);
}

/* ------------------------------------------------------------------ bodies --------------------------------------- */

#define U(v) (v) & 0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define NUMBERS_MAX 16u

/* A head for pages of 512 bytes, and the body in a frame. */
static sf_buf *wrap(sf_bytes body, bool checksum)
{
    size_t bound = ZSTD_compressBound(body.n), n;
    sf_buf *b = sf__buf_new(heap, 18 + bound);
    ZSTD_CCtx *c = ZSTD_createCCtx();

    memcpy(b->data, "SQPC\x08", 5);
    sf_store_le(b->data + 5, 8, body.n);
    sf_store_le(b->data + 13, 4, 512);
    b->data[17] = 0;
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
    n = ZSTD_compress2(c, b->data + 18, bound, body.p, body.n);
    assert_false(ZSTD_isError(n));
    ZSTD_freeCCtx(c);
    b->n = 18 + n;
    return b;
}

/* Numbers, then an area of `area` bytes that are pages of type 0: whole ones. */
static void refuses_senseless_bodies(void **state)
{
    static const struct {
        const char *name;
        unsigned count;
        uint32_t numbers[NUMBERS_MAX];
        size_t area;
        sf_status expected;
    } cases[] = {
        {"nothing at all", 4, {0, 0, 0, 0}, 0, SF_OK},
        {"one page", 6, {1, 2, 0, 512, 0, 0}, 512, SF_OK},
        {"two pages", 8, {2, 2, 9, 0, 512, 1024, 0, 0}, 1024, SF_OK},
        {"a chain of two", 8, {0, 0, 1, 5, 0, 2, 5, 4}, 0, SF_OK},
        {"two chains", 10, {0, 0, 2, 5, 7, 0, 1, 2, 5, 7}, 0, SF_OK},
        {"empty", 0, {0}, 0, SF_CORRUPT},
        {"more pages than bytes", 4, {UINT32_MAX, 0, 0, 0}, 0, SF_CORRUPT},
        {"page 0", 6, {1, 0, 0, 512, 0, 0}, 512, SF_CORRUPT},
        {"pages out of order", 8, {2, 9, 2, 0, 512, 1024, 0, 0}, 1024, SF_CORRUPT},
        {"the same page twice", 8, {2, 2, 2, 0, 512, 1024, 0, 0}, 1024, SF_CORRUPT},
        {"first offset not 0", 6, {1, 2, 1, 512, 0, 0}, 512, SF_CORRUPT},
        {"offsets out of order", 8, {2, 2, 3, 0, 1024, 512, 0, 0}, 512, SF_CORRUPT},
        {"area too short", 6, {1, 2, 0, 512, 0, 0}, 511, SF_CORRUPT},
        {"area too long", 6, {1, 2, 0, 512, 0, 0}, 513, SF_CORRUPT},
        {"a page that is too short", 6, {1, 2, 0, 511, 0, 0}, 511, SF_CORRUPT},
        {"more chains than bytes", 4, {0, 0, UINT32_MAX, 0}, 0, SF_CORRUPT},
        {"a chain that is cut short", 7, {0, 0, 1, 5, 0, 2, 5}, 0, SF_CORRUPT},
        {"more chain pages than bytes", 7, {0, 0, 1, 5, 0, UINT32_MAX, 5}, 0, SF_CORRUPT},
        {"a head that is not the first", 8, {0, 0, 1, 5, 0, 2, 4, 5}, 0, SF_CORRUPT},
        {"an empty chain", 8, {0, 0, 2, 5, 7, 0, 0, 1}, 0, SF_CORRUPT},
        {"heads out of order", 10, {0, 0, 2, 7, 5, 0, 1, 2, 7, 5}, 0, SF_CORRUPT},
        {"page 0 in a chain", 8, {0, 0, 1, 5, 0, 2, 5, 0}, 0, SF_CORRUPT},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t body[4 * NUMBERS_MAX + 2048] = {0};
        size_t n = 4 * cases[i].count;
        sf_buf *object;
        sf_sidecar s;
        sf_status rc;

        for (unsigned k = 0; k < cases[i].count; k++)
            sf_store_le(body + 4 * k, 4, cases[i].numbers[k]);
        object = wrap(sf_bytes_of(body, n + cases[i].area), true);
        rc = sf__sidecar_decode(&s, sf__buf_bytes(object), NULL, NULL, heap, NULL);
        if (rc != cases[i].expected)
            fail_msg("%s: %s", cases[i].name, sf_status_name(rc));
        if (rc == SF_OK)
            sf__sidecar_cleanup(&s);
        sf__buf_release(object);
    }
}

static void refuses_senseless_heads(void **state)
{
    static const uint8_t body[] = {U(0u), U(0u), U(0u), U(0u)};
    sf_buf *b = wrap(sf_bytes_of(body, sizeof(body)), false), *twice;
    sf_sidecar s;

    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL), SF_CORRUPT); /* no checksum */
    sf__buf_release(b);
    b = wrap(sf_bytes_of(body, sizeof(body)), true);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL), SF_OK);
    sf__sidecar_cleanup(&s);
    for (unsigned version = 0; version < 256; version++) {
        b->data[4] = (uint8_t)version;
        if (version != 8)
            assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL), SF_UNSUPPORTED);
    }
    b->data[4] = 8;
    for (uint64_t claim = 0; claim < 64; claim++) { /* no length but the right one, however large */
        sf_store_le(b->data + 5, 8, UINT64_C(1) << claim);
        if (UINT64_C(1) << claim != sizeof(body))
            assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL), SF_CORRUPT);
    }
    sf_store_le(b->data + 5, 8, sizeof(body));
    for (uint32_t shift = 0; shift < 32; shift++) {
        sf_store_le(b->data + 13, 4, UINT32_C(1) << shift);
        assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL),
                         shift >= 9 && shift <= 16 ? SF_OK : SF_CORRUPT);
        sf__sidecar_cleanup(&s);
    }
    sf_store_le(b->data + 13, 4, 5000);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(b), NULL, NULL, heap, NULL), SF_CORRUPT);
    sf_store_le(b->data + 13, 4, 4096);
    twice = sf__buf_new(heap, b->n + b->n - 18); /* a second frame */
    memcpy(twice->data, b->data, b->n);
    memcpy(twice->data + b->n, b->data + 18, b->n - 18);
    assert_int_equal(sf__sidecar_decode(&s, sf__buf_bytes(twice), NULL, NULL, heap, NULL), SF_CORRUPT);
    sf__buf_release(twice);
    sf__buf_release(b);
}

/* ------------------------------------------------------------------ databases ------------------------------------ */

/* A database in memory, made by SQLite itself from statements. */
static sf_buf *database(const char *sql)
{
    sqlite3_int64 n = 0;
    unsigned char *bytes;
    sqlite3 *db = NULL;
    char *text = NULL;
    sf_buf *b;

    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        fail_msg("%s: %s", sql, text);
    bytes = sqlite3_serialize(db, "main", &n, 0);
    assert_non_null(bytes);
    b = sf__buf_copy(heap, sf_bytes_of(bytes, (size_t)n));
    sqlite3_free(bytes);
    sqlite3_close(db);
    return b;
}

#define NUMBERS_TO(n) "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<" #n ") "

/* Trees of all kinds, and a schema of several pages with overflow of its own. */
static void walks_all_kinds_of_trees(void **state)
{
    static const struct {
        const char *name, *sql;
        uint32_t pages_min, chains;
    } cases[] = {
        {"no tables", "PRAGMA user_version=1", 1, 0},
        {"an index b-tree of three levels",
         "PRAGMA page_size=512; CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;" NUMBERS_TO(
             3000) "INSERT INTO kv SELECT printf('%08d',i), zeroblob(30) FROM n",
         10, 0},
        {"a table b-tree with an index",
         "PRAGMA page_size=1024; CREATE TABLE t (a, b); CREATE INDEX x ON t (b);" NUMBERS_TO(
             2000) "INSERT INTO t SELECT i, printf('%020d', i) FROM n",
         5, 0},
        {"chains in leaves and interior pages",
         "PRAGMA page_size=512; CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;" NUMBERS_TO(
             100) "INSERT INTO kv SELECT printf('%08d',i), zeroblob(2000) FROM n",
         2, 100},
        {"chains of a table", "CREATE TABLE t (a);" NUMBERS_TO(7) "INSERT INTO t SELECT zeroblob(70000) FROM n", 1, 7},
        {"a schema of many rows, with views, triggers and statistics",
         "CREATE TABLE a (x); CREATE TABLE b (x); CREATE VIEW v AS SELECT * FROM a; CREATE TRIGGER g AFTER INSERT ON a "
         "BEGIN SELECT 1; END; INSERT INTO b VALUES (1); CREATE INDEX i ON b (x); ANALYZE",
         1, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_buf *db = database(cases[i].sql), *object = NULL;
        sf_error e = SF_ERROR_INIT;
        sf_sidecar s;

        if (sf__sidecar_encode_bytes(sf__buf_bytes(db), "\"e\"", heap, &object, &e) != SF_OK ||
            sf__sidecar_decode(&s, sf__buf_bytes(object), "\"e\"", NULL, heap, &e) != SF_OK)
            fail_msg("%s: %s", cases[i].name, e.message);
        if (s.page_count < cases[i].pages_min || s.chain_count != cases[i].chains || sf__sidecar_page_number(&s, 0) != 1)
            fail_msg("%s: %u pages, %u chains", cases[i].name, s.page_count, s.chain_count);
        check_pages(cases[i].name, &s, sf__buf_bytes(db));
        check_chains(cases[i].name, &s, sf__buf_bytes(db));
        sf__sidecar_cleanup(&s);
        sf__buf_release(object);
        sf__buf_release(db);
    }
}

static void declines_what_cannot_have_one(void **state)
{
    static const struct {
        const char *name;
        size_t off;
        uint8_t bytes[2];
        sf_status expected;
    } cases[] = {
        {"sound", 18, {1, 1}, SF_OK},
        {"reserved bytes", 20, {8, 64}, SF_UNSUPPORTED},
        {"written in WAL mode", 18, {2, 1}, SF_UNSUPPORTED},
        {"read in WAL mode", 18, {1, 2}, SF_UNSUPPORTED},
        {"no magic", 3, {'X', 't'}, SF_CORRUPT},
        {"pages of 257 bytes", 16, {1, 1}, SF_CORRUPT},
        {"pages that are larger than the file", 16, {0, 1}, SF_CORRUPT},
        {"page 1 of no tree", 100, {7, 0}, SF_CORRUPT},
        {"page 1 an index", 100, {10, 0}, SF_CORRUPT},
        {"cells inside the cell pointers", 105, {0, 101}, SF_CORRUPT},
        {"cells outside the page", 105, {0xff, 0xff}, SF_CORRUPT},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sf_buf *db = database("CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"), *object = NULL;
        sf_status rc;

        memcpy(db->data + cases[i].off, cases[i].bytes, 2);
        rc = sf__sidecar_encode_bytes(sf__buf_bytes(db), "\"e\"", heap, &object, NULL);
        if (rc != cases[i].expected)
            fail_msg("%s: %s", cases[i].name, sf_status_name(rc));
        sf__buf_release(object);
        sf__buf_release(db);
    }
}

/* A page that is reached twice, a chain that never ends: refused, not followed. */
static void refuses_unsound_databases(void **state)
{
    sf_buf *db = database(
               "PRAGMA page_size=512; CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID;" NUMBERS_TO(
                   100) "INSERT INTO kv SELECT printf('%08d',i), zeroblob(2000) FROM n"),
           *object = NULL;
    size_t refused = 0;

    for (size_t off = 512; off < db->n; off += 41) {
        uint8_t was = db->data[off];

        db->data[off] ^= 0xff;
        if (sf__sidecar_encode_bytes(sf__buf_bytes(db), "\"e\"", heap, &object, NULL) == SF_OK)
            sf__buf_release(object);
        else
            refused++;
        db->data[off] = was;
    }
    assert_true(refused > 50);
    for (size_t n = 0; n < db->n; n += 512)
        assert_int_equal(sf__sidecar_encode_bytes(sf_bytes_of(db->data, n), "\"e\"", heap, &object, NULL), SF_CORRUPT);
    sf__buf_release(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_golden_ones),    cmocka_unit_test(notices_every_damaged_byte),
        cmocka_unit_test(unpacks_within_its_room),   cmocka_unit_test(belongs_to_one_etag),
        cmocka_unit_test(refuses_senseless_bodies),  cmocka_unit_test(refuses_senseless_heads),
        cmocka_unit_test(walks_all_kinds_of_trees),  cmocka_unit_test(declines_what_cannot_have_one),
        cmocka_unit_test(refuses_unsound_databases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
