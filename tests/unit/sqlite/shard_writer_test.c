/* SQLite shards over memory and files: read back by SQLite itself, compared with the golden ones, with every request,
 * allocation and write of a file failing in turn. */
#include "../shard/support.h"
#include "golden.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend/sqlite/shard_writer.h"
#include "backend/sqlite/sidecar.h"
#include "fault_store.h"

#define PATH "shards/run_id=r/db=00003/attempt=00"

/* ------------------------------------------------------------------ rows ----------------------------------------- */

/* Row i of a set: the key is `u64be i`, cut to nothing for row 0 when the set has the empty key. */
struct row_set {
    const char *name;
    uint64_t rows;
    bool empty_key;
    uint32_t key_pad;     /* bytes behind the number */
    uint32_t value, step; /* the value of row i has (value + i * step) % 70001 bytes; row 1's is empty */
};

static sf_bytes set_key(const struct row_set *s, uint64_t i, uint8_t *buf)
{
    sf_store_be(buf, 8, i);
    memset(buf + 8, (int)(i & 0xff), s->key_pad);
    return sf_bytes_of(buf, s->empty_key && i == 0 ? 0 : 8 + s->key_pad);
}

/* A part of what is made once. */
static sf_bytes set_value(const struct row_set *s, uint64_t i)
{
    static uint8_t pattern[70001 + 251];

    for (size_t k = 0; pattern[1] == 0 && k < sizeof(pattern); k++)
        pattern[k] = (uint8_t)(k * 13 + (k >> 8));
    return sf_bytes_of(pattern + i % 251, i == 1 ? 0 : (size_t)((s->value + i * s->step) % 70001));
}

#define KEY_BUF 4096

/* ------------------------------------------------------------------ the world ------------------------------------ */

struct world {
    struct env env;
    sf_store *inner;
    fault_store *faults;
    char folder[64]; /* for temporary files */
    char root[64];   /* of the file store; empty with memory */
    char path[256];  /* of the shard */
    sf_cancel_flag cancel;
    uint64_t part_bytes;
};

static void world_init(struct world *w, bool files)
{
    sf_error e = SF_ERROR_INIT;

    memset(w, 0, sizeof(*w));
    env_init(&w->env, 1 << 20);
    snprintf(w->folder, sizeof(w->folder), "/tmp/sf-build-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    if (files) {
        snprintf(w->root, sizeof(w->root), "/tmp/sf-store-XXXXXX");
        assert_non_null(mkdtemp(w->root));
        if (sf__store_file_new(&w->inner, w->env.rt->loop, w->env.rt->alloc, &e) != SF_OK)
            fail_msg("%s", e.message);
        snprintf(w->path, sizeof(w->path), "%s/" PATH, w->root + 1);
    } else {
        w->inner = memory_store(&w->env, "sqlite");
        snprintf(w->path, sizeof(w->path), PATH);
    }
    w->faults = fault_store_new(w->inner);
    fault_store_reset(w->faults);
    atomic_init(&w->cancel, false);
    w->part_bytes = SF_UPLOAD_PART_BYTES;
}

static unsigned files_in(const char *folder)
{
    unsigned n = 0;
    DIR *d = opendir(folder);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void remove_tree(const char *path)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r '%s'", path);
    assert_int_equal(system(command), 0);
}

/* Nothing is left of the build. */
static void world_cleanup(struct world *w)
{
    heap_disarm(&w->env.heap);
    assert_int_equal(files_in(w->folder), 0);
    rmdir(w->folder);
    sf__store_release(&w->faults->base);
    sf__store_release(w->inner);
    env_cleanup(&w->env);
    if (w->root[0])
        remove_tree(w->root);
    assert_int_equal(sqlite3_memory_used(), 0);
}

static sf_shard_target target_of(struct world *w)
{
    sf_upload_options upload = SF_UPLOAD_OPTIONS_INIT;

    upload.part_bytes = w->part_bytes;
    upload.cancel = &w->cancel;
    return (sf_shard_target){
        .rt = w->env.rt,
        .store = &w->faults->base,
        .path = w->path,
        .url = "test://shard",
        .db_id = 3,
        .upload = upload,
    };
}

static sf_sqlite_writer_options options_of(const struct world *w, uint32_t page_bytes)
{
    sf_sqlite_writer_options o = SF_SQLITE_WRITER_OPTIONS_INIT;

    o.page_bytes = page_bytes;
    o.folder = w->folder;
    return o;
}

/* The whole build. *r is filled on success only. */
static sf_status build(struct world *w, const sf_sqlite_writer_options *o, const struct row_set *set,
                       sf_shard_result *r, sf_error *err)
{
    static uint8_t key[KEY_BUF];
    sf_shard_target target = target_of(w);
    sf_shard_writer *writer = NULL;
    sf_status rc = sf__sqlite_shard_writer_open(&writer, &target, o, err);

    assert_int_equal(files_in(w->folder), 0); /* without a name from the start */
    for (uint64_t i = 0; i < set->rows && rc == SF_OK; i++)
        rc = sf__shard_writer_add(writer, set_key(set, i, key), set_value(set, i), err);
    if (rc == SF_OK)
        rc = sf__shard_writer_finish(writer, r, err);
    sf__shard_writer_free(writer);
    return rc;
}

/* ------------------------------------------------------------------ what is stored -------------------------------- */

/* A copy that outlives the world; NULL when there is no such object. */
static sf_buf *stored(struct world *w, const char *name, char etag[static 128])
{
    char key[400];
    sf_store_op op = {
        .verb = SF_STORE_GET,
        .key = key,
        .len = SF_STORE_ALL,
        .max_bytes = 1u << 30,
        .deadline_ns = SF_NO_DEADLINE,
    };
    sf_buf *copy;

    snprintf(key, sizeof(key), "%s/%s", w->path, name);
    if (sf__store_wait(w->inner, &op, NULL, NULL) != SF_OK)
        return NULL;
    memcpy(etag, op.etag, 128);
    copy = sf__buf_copy(&sf__allocator_default, sf__buf_bytes(op.data));
    assert_non_null(copy);
    sf__store_op_cleanup(&op, w->inner->alloc);
    return copy;
}

static size_t objects(struct world *w)
{
    sf_store_listing l = {.store = w->inner, .prefix = w->path, .deadline_ns = SF_NO_DEADLINE};
    sf_error e = SF_ERROR_INIT;
    size_t n;

    if (sf__store_list_wait(&l, NULL, &e) != SF_OK)
        fail_msg("%s", e.message);
    n = l.entry_count;
    sf__store_listing_cleanup(&l);
    return n;
}

static sqlite3 *open_bytes(sf_bytes db)
{
    sqlite3 *c = NULL;

    assert_int_equal(sqlite3_open(":memory:", &c), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(c, "main", (unsigned char *)(uintptr_t)db.p, (sqlite3_int64)db.n,
                                         (sqlite3_int64)db.n, SQLITE_DESERIALIZE_READONLY),
                     SQLITE_OK);
    return c;
}

static sqlite3_stmt *query(sqlite3 *c, const char *sql)
{
    sqlite3_stmt *s = NULL;

    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(c));
    return s;
}

static void check_text(sqlite3 *c, const char *sql, const char *expected)
{
    sqlite3_stmt *s = query(c, sql);

    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(s, 0), expected);
    sqlite3_finalize(s);
}

static sf_bytes column(sqlite3_stmt *s, int i)
{
    assert_int_equal(sqlite3_column_type(s, i), SQLITE_BLOB);
    return sf_bytes_of(sqlite3_column_blob(s, i), (size_t)sqlite3_column_bytes(s, i));
}

/* Sound, of the contract's one table, and with exactly these rows. */
static void check_db(const char *name, sf_bytes db, const struct row_set *set, uint32_t page_bytes)
{
    static uint8_t key[KEY_BUF];
    sqlite3 *c = open_bytes(db);
    sqlite3_stmt *s;
    uint64_t i = 0;

    check_text(c, "PRAGMA integrity_check", "ok");
    check_text(c, "SELECT group_concat(name || ':' || sql) FROM sqlite_schema",
               "kv:CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID");
    assert_int_equal(sf_load_be(db.p + 16, 2), page_bytes % 65536 ? page_bytes : 1);
    assert_int_equal(sf_load_be(db.p + 28, 4), db.n / page_bytes);
    s = query(c, "SELECT k, v FROM kv ORDER BY k");
    for (; sqlite3_step(s) == SQLITE_ROW; i++)
        if (i >= set->rows || !sf_bytes_eq(column(s, 0), set_key(set, i, key)) ||
            !sf_bytes_eq(column(s, 1), set_value(set, i)))
            fail_msg("%s: row %llu differs", name, (unsigned long long)i);
    sqlite3_finalize(s);
    assert_int_equal(i, set->rows);
    sqlite3_close(c);
}

static void check_result(const sf_shard_result *r, const struct row_set *set, sf_bytes db, size_t sidecar_bytes)
{
    static uint8_t key[KEY_BUF];
    sf_content_hash h;
    char hex[40];
    uint64_t key_bytes = 0, value_bytes = 0;

    assert_true(sf__content_hash_init(&h, &sf__allocator_default));
    for (uint64_t i = 0; i < set->rows; i++) {
        sf_bytes k = set_key(set, i, key), v = set_value(set, i);

        sf__content_hash_add(&h, k, v);
        key_bytes += k.n;
        value_bytes += v.n;
    }
    assert_int_equal(r->rows, set->rows);
    assert_int_equal(r->key_bytes, key_bytes);
    assert_int_equal(r->value_bytes, value_bytes);
    assert_int_equal(r->db_bytes, db.n);
    assert_int_equal(r->stored_bytes, db.n + sidecar_bytes);
    assert_int_equal(r->object_count, sidecar_bytes ? 2 : 1);
    assert_int_equal(r->content_hash.hi, sf__content_hash_value(&h).hi);
    assert_int_equal(r->content_hash.lo, sf__content_hash_value(&h).lo);
    snprintf(hex, sizeof(hex), "%016llx%016llx", (unsigned long long)r->content_hash.hi,
             (unsigned long long)r->content_hash.lo);
    assert_string_equal(r->checkpoint_id, hex);
    if (set->rows > 0) {
        assert_true(sf_bytes_eq(sf__buf_bytes(r->min_key), set_key(set, 0, key)));
        assert_true(sf_bytes_eq(sf__buf_bytes(r->max_key), set_key(set, set->rows - 1, key)));
    } else {
        assert_null(r->min_key);
        assert_null(r->max_key);
    }
    sf__content_hash_cleanup(&h);
}

/* Builds, checks all, and gives shard.db away. */
static sf_buf *built(struct world *w, const char *name, const sf_sqlite_writer_options *o, const struct row_set *set,
                     uint32_t page_bytes)
{
    char db_etag[128], etag[128];
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    sf_buf *db, *sidecar;

    if (build(w, o, set, &r, &e) != SF_OK)
        fail_msg("%s: %s", name, e.message);
    db = stored(w, SF_SQLITE_DB_NAME, db_etag);
    sidecar = stored(w, SF_SIDECAR_NAME, etag);
    assert_non_null(db);
    check_db(name, sf__buf_bytes(db), set, page_bytes);
    check_result(&r, set, sf__buf_bytes(db), sidecar ? sidecar->n : 0);
    assert_int_equal(sidecar != NULL, o->sidecar);
    if (sidecar) {
        sf_sidecar s;

        if (sf__sidecar_decode(&s, sf__buf_bytes(sidecar), db_etag, NULL, &sf__allocator_default, &e) != SF_OK)
            fail_msg("%s: %s", name, e.message);
        assert_int_equal(s.page_bytes, page_bytes);
        sf__sidecar_cleanup(&s);
        sf__buf_release(sidecar);
    }
    sf__shard_result_cleanup(&r);
    return db;
}

static void forget(struct world *w)
{
    static const char *const names[] = {SF_SQLITE_DB_NAME, SF_SIDECAR_NAME};

    for (unsigned i = 0; i < 2; i++) {
        char key[400];

        snprintf(key, sizeof(key), "%s/%s", w->path, names[i]);
        store_delete(w->inner, key);
    }
}

/* ------------------------------------------------------------------ tests ---------------------------------------- */

static const struct row_set sets[] = {
    {"no rows", 0, false, 0, 0, 0},
    {"one row", 1, false, 0, 20, 0},
    {"one row with the empty key", 1, true, 0, 0, 0},
    {"a batch", 64, false, 0, 20, 0},
    {"a batch and one", 65, true, 0, 20, 0},
    {"5,000 small rows", 5000, true, 0, 40, 0},
    {"long keys", 500, false, 3000, 10, 0},
    {"values of all lengths, with overflow chains", 300, true, 5, 3, 233},
};

static void rows_of_many_shapes(void **state)
{
    for (int files = 0; files < 2; files++) {
        for (uint32_t page = 4096; page <= 65536; page *= files ? 16 : 2) {
            for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
                struct world w;
                sf_sqlite_writer_options o;

                world_init(&w, files);
                w.part_bytes = 1 << 20;
                o = options_of(&w, page);
                o.sidecar = i % 2 == 0 || page == 4096;
                sf__buf_release(built(&w, sets[i].name, &o, &sets[i], page));
                world_cleanup(&w);
            }
        }
    }
}

/* What "auto" builds is what the size it chose builds. */
static void auto_page_size(void **state)
{
    static const struct {
        struct row_set set;
        uint32_t page;
    } cases[] = {
        {{"no rows", 0, false, 0, 0, 0}, 4096},
        {{"small rows", 5000, true, 0, 40, 0}, 4096},
        {{"values of 2 kB", 2000, false, 0, 2374, 0}, 16384},
        {{"values of 8 kB", 400, false, 0, 8000, 0}, 32768},
        {{"long keys", 100, false, 1500, 0, 0}, 8192},
        {{"long values", 60, false, 0, 50000, 0}, 65536},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world w;
        sf_sqlite_writer_options o;
        sf_buf *chosen, *fixed;

        world_init(&w, false);
        o = options_of(&w, SF_SQLITE_PAGE_BYTES_AUTO);
        chosen = built(&w, cases[i].set.name, &o, &cases[i].set, cases[i].page);
        forget(&w);
        o.page_bytes = cases[i].page;
        fixed = built(&w, cases[i].set.name, &o, &cases[i].set, cases[i].page);
        assert_true(sf_bytes_eq(sf__buf_bytes(chosen), sf__buf_bytes(fixed)));
        sf__buf_release(chosen);
        sf__buf_release(fixed);
        world_cleanup(&w);
    }
}

/* Twice the same bytes, over other stores and parts. */
static void many_rows_give_the_same_bytes(void **state)
{
    static const struct row_set set = {"100,000 rows", 100000, true, 0, 90, 0};
    sf_buf *first = NULL;

    for (int files = 0; files < 2; files++) {
        struct world w;
        sf_sqlite_writer_options o;
        sf_buf *db;

        world_init(&w, files);
        w.part_bytes = files ? 8 << 20 : 100000;
        o = options_of(&w, files ? SF_SQLITE_PAGE_BYTES_AUTO : 4096);
        db = built(&w, set.name, &o, &set, 4096);
        if (first)
            assert_true(sf_bytes_eq(sf__buf_bytes(first), sf__buf_bytes(db)));
        sf__buf_release(first);
        first = db;
        world_cleanup(&w);
    }
    sf__buf_release(first);
}

/* The rows of each golden shard, built by us: the same header, page 1, and rows. Theirs was written in several
 * transactions and by VACUUM; change counter, the version it was valid for and the schema cookie say so. */
static void equals_the_golden_ones(void **state)
{
    static const struct {
        size_t off, n;
    } differ[] = {{24, 4}, {28, 4}, {40, 4}, {92, 4}};
    glob_t found;

    golden_find(SF_SQLITE_DB_NAME, &found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        sf_buf *golden = golden_read(found.gl_pathv[i]), *db;
        bool automatic = strstr(found.gl_pathv[i], "auto") != NULL;
        sqlite3 *theirs = open_bytes(sf__buf_bytes(golden)), *ours;
        sf_shard_writer *writer = NULL;
        sf_shard_result r;
        sf_shard_target target;
        sf_sqlite_writer_options o;
        sf_error e = SF_ERROR_INIT;
        sqlite3_stmt *a = query(theirs, "SELECT k, v FROM kv ORDER BY k"), *b;
        char etag[128];
        struct world w;

        world_init(&w, false);
        target = target_of(&w);
        o = options_of(&w, automatic ? SF_SQLITE_PAGE_BYTES_AUTO : (uint32_t)sf_load_be(golden->data + 16, 2));
        assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_OK);
        while (sqlite3_step(a) == SQLITE_ROW)
            if (sf__shard_writer_add(writer, column(a, 0), column(a, 1), &e) != SF_OK)
                fail_msg("%s: %s", found.gl_pathv[i], e.message);
        assert_int_equal(sf__shard_writer_finish(writer, &r, &e), SF_OK);
        sf__shard_writer_free(writer);
        sf__shard_result_cleanup(&r);
        db = stored(&w, SF_SQLITE_DB_NAME, etag);
        ours = open_bytes(sf__buf_bytes(db));
        sqlite3_reset(a);
        b = query(ours, "SELECT k, v FROM kv ORDER BY k");
        for (;;) {
            int step = sqlite3_step(a);

            assert_int_equal(sqlite3_step(b), step);
            if (step != SQLITE_ROW)
                break;
            assert_true(sf_bytes_eq(column(a, 0), column(b, 0)) && sf_bytes_eq(column(a, 1), column(b, 1)));
        }
        for (unsigned k = 0; k < 4; k++) {
            memset(db->data + differ[k].off, 0, differ[k].n);
            memset(golden->data + differ[k].off, 0, differ[k].n);
        }
        if (memcmp(db->data + 96, golden->data + 96, 4) != 0) /* another version of SQLite made the golden ones */
            memcpy(golden->data + 96, db->data + 96, 4);
        if (memcmp(db->data, golden->data, (size_t)sf_load_be(golden->data + 16, 2)) != 0)
            fail_msg("%s: page 1 differs", found.gl_pathv[i]);
        sqlite3_finalize(a);
        sqlite3_finalize(b);
        sqlite3_close(theirs);
        sqlite3_close(ours);
        sf__buf_release(golden);
        sf__buf_release(db);
        world_cleanup(&w);
    }
    globfree(&found);
}

static void refuses_bad_input(void **state)
{
    static const uint32_t pages[] = {1, 512, 2048, 4095, 5000, 131072, UINT32_MAX};
    struct world w;
    sf_shard_target target;
    sf_sqlite_writer_options o;
    sf_shard_writer *writer = NULL;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    uint8_t zero = 0;

    world_init(&w, false);
    target = target_of(&w);
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        o = options_of(&w, pages[i]);
        assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_INVALID);
    }
    o = options_of(&w, 4096);
    o.folder = "/nonexistent/folder";
    assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_IO);
    o = options_of(&w, 4096);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(sf__sqlite_shard_writer_open(&writer, &target, &o, &e), SF_OK);
        assert_int_equal(sf__shard_writer_add(writer, sf_bytes_str("b"), sf_bytes_str("1"), &e), SF_OK);
        switch (i) {
        case 0: /* twice */
            assert_int_equal(sf__shard_writer_add(writer, sf_bytes_str("b"), sf_bytes_str("2"), &e), SF_INVALID);
            break;
        case 1: /* the empty key is below all others */
            assert_int_equal(sf__shard_writer_add(writer, sf_bytes_of(NULL, 0), sf_bytes_str("2"), &e), SF_INVALID);
            break;
        default: /* refused before a byte of it is looked at */
            assert_int_equal(
                sf__shard_writer_add(writer, sf_bytes_str("c"), sf_bytes_of(&zero, SF_SQLITE_MAX_ROW_BYTES), &e),
                SF_INVALID);
        }
        assert_non_null(strstr(e.message, "row 2"));
        assert_int_equal(e.db_id, 3);
        assert_int_equal(sf__shard_writer_finish(writer, &r, &e), SF_INVALID);
        sf__shard_writer_free(writer);
        assert_int_equal(objects(&w), 0);
    }
    world_cleanup(&w);
}

static void takes_no_place_that_is_taken(void **state)
{
    struct world w;
    sf_sqlite_writer_options o;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;
    char key[400];

    world_init(&w, false);
    o = options_of(&w, 4096);
    snprintf(key, sizeof(key), "%s/other", w.path);
    store_put(w.inner, key, "x", 1);
    assert_int_equal(build(&w, &o, &sets[1], &r, &e), SF_CONFLICT);
    assert_int_equal(objects(&w), 1);
    store_delete(w.inner, key);
    snprintf(key, sizeof(key), "%s0/other", w.path); /* a neighbour whose name begins alike */
    store_put(w.inner, key, "x", 1);
    assert_int_equal(build(&w, &o, &sets[1], &r, &e), SF_OK);
    sf__shard_result_cleanup(&r);
    store_delete(w.inner, key);
    forget(&w);
    world_cleanup(&w);
}

static void stops_when_cancelled(void **state)
{
    for (unsigned when = 0; when < 3; when++) { /* before it opens, at the second row, before the end */
        struct world w;
        sf_shard_target target;
        sf_sqlite_writer_options o;
        sf_shard_writer *writer = NULL;
        sf_shard_result r;
        sf_error e = SF_ERROR_INIT;
        sf_status rc;

        world_init(&w, false);
        target = target_of(&w);
        o = options_of(&w, when == 1 ? SF_SQLITE_PAGE_BYTES_AUTO : 4096);
        w.faults->kind = when == 0 ? FAULT_HOLD : FAULT_NONE; /* the listing gets no answer */
        w.faults->at = 1;
        atomic_store(&w.cancel, when == 0);
        rc = sf__sqlite_shard_writer_open(&writer, &target, &o, &e);
        if (rc == SF_OK)
            rc = sf__shard_writer_add(writer, sf_bytes_str("a"), sf_bytes_str("1"), &e);
        atomic_store(&w.cancel, when <= 1);
        if (rc == SF_OK)
            rc = sf__shard_writer_add(writer, sf_bytes_str("b"), sf_bytes_str("1"), &e);
        atomic_store(&w.cancel, true);
        if (rc == SF_OK)
            rc = sf__shard_writer_finish(writer, &r, &e);
        assert_int_equal(rc, SF_CANCELLED);
        sf__shard_writer_free(writer);
        assert_int_equal(objects(&w), 0);
        world_cleanup(&w);
    }
}

static void cancel_after(fault_store *f, sf_store_op *op)
{
    if (f->requests + 1 == f->at)
        atomic_store((sf_cancel_flag *)f->ctx, true);
}

/* The nth request hangs, and the one before sets the flag. */
static void stops_a_hanging_upload(void **state)
{
    for (unsigned long nth = 2; nth <= 5; nth++) { /* shard.db: PUT, HEAD; the sidecar: PUT, HEAD */
        struct world w;
        sf_sqlite_writer_options o;
        sf_shard_result r;
        sf_error e = SF_ERROR_INIT;

        world_init(&w, false);
        o = options_of(&w, 4096);
        w.faults->kind = FAULT_HOLD;
        w.faults->at = nth;
        w.faults->after = cancel_after;
        w.faults->ctx = &w.cancel;
        assert_int_equal(build(&w, &o, &sets[0], &r, &e), SF_CANCELLED);
        assert_true(w.faults->fired || nth == 2); /* the flag is seen before the first of them is made */
        assert_int_equal(objects(&w), 0);
        world_cleanup(&w);
    }
}

/* A request that never reaches the store, or whose answer is lost; then nothing of the shard is left, but for an object
 * that may be another writer's. */
static void every_request_fails_in_turn(void **state)
{
    static const struct row_set set = {"values of all lengths", 60, true, 5, 3, 1009};
    static const fault_kind kinds[] = {FAULT_REFUSE, FAULT_LOSE};
    size_t unsure = 0;

    for (unsigned kind = 0; kind < 2; kind++) {
        for (unsigned long nth = 1;; nth++) {
            struct world w;
            sf_sqlite_writer_options o;
            sf_shard_result r;
            sf_error e = SF_ERROR_INIT;
            sf_status rc;
            bool fired;

            world_init(&w, false);
            w.part_bytes = 500000;
            o = options_of(&w, 4096);
            w.faults->kind = kinds[kind];
            w.faults->at = nth;
            rc = build(&w, &o, &set, &r, &e);
            fired = w.faults->fired;
            if (rc == SF_OK)
                sf__shard_result_cleanup(&r);
            if (rc != (fired ? SF_IO : SF_OK))
                fail_msg("request %lu: %s %s", nth, sf_status_name(rc), e.message);
            if (fired ? objects(&w) > kind : objects(&w) != 2)
                fail_msg("request %lu: %zu objects are left", nth, objects(&w));
            unsure += fired * objects(&w);
            world_cleanup(&w);
            if (!fired) {
                assert_true(nth > 6); /* list, parts of shard.db and its ends, sidecar */
                break;
            }
        }
    }
    assert_int_equal(unsure, 2); /* shard.db, its sidecar */
}

static void shard_db_without_an_answer(fault_store *f, sf_store_op *op)
{
    if (op->verb == SF_STORE_PUT && strstr(op->key, "/" SF_SQLITE_DB_NAME))
        op->may_be_ours = fault_store_answer(f, op, SF_CONFLICT, "the object exists") == SF_CONFLICT;
}

/* Of the right size, so it is used; but when the sidecar fails, it is not taken back. */
static void a_shard_db_that_may_be_another_s_stays(void **state)
{
    struct world w;
    sf_sqlite_writer_options o;
    sf_shard_result r;
    sf_error e = SF_ERROR_INIT;

    world_init(&w, false);
    o = options_of(&w, 4096);
    w.faults->after = shard_db_without_an_answer;
    w.faults->kind = FAULT_REFUSE;
    w.faults->at = 4; /* list, PUT, HEAD; the sidecar's PUT */
    assert_int_equal(build(&w, &o, &sets[0], &r, &e), SF_IO);
    assert_true(w.faults->fired);
    assert_int_equal(objects(&w), 1);
    assert_int_equal(w.faults->verbs[SF_STORE_DELETE], 0);
    world_cleanup(&w);
}

static void every_allocation_fails_in_turn(void **state)
{
    static const struct row_set set = {"a few rows with chains", 3, true, 0, 5000, 60000};

    for (unsigned automatic = 0; automatic < 2; automatic++) {
        for (long nth = 0;; nth++) {
            struct world w;
            sf_sqlite_writer_options o;
            sf_shard_result r;
            sf_error e = SF_ERROR_INIT;
            sf_status rc;
            bool fired;

            world_init(&w, false);
            w.part_bytes = 40000;
            o = options_of(&w, automatic ? SF_SQLITE_PAGE_BYTES_AUTO : 4096);
            heap_arm(&w.env.heap, nth);
            rc = build(&w, &o, &set, &r, &e);
            fired = heap_disarm(&w.env.heap);
            if (rc == SF_OK)
                sf__shard_result_cleanup(&r);
            if (rc != (fired ? SF_NOMEM : SF_OK))
                fail_msg("allocation %ld: %s %s", nth, sf_status_name(rc), e.message);
            if (objects(&w) != (fired ? 0 : 2))
                fail_msg("allocation %ld: %zu objects are left", nth, objects(&w));
            world_cleanup(&w);
            if (!fired) {
                assert_true(nth > 20);
                break;
            }
        }
    }
}

/* Files may not grow beyond a limit, so that one write after the other fails: of the table with a page size, of the spool or the
 * table with "auto". */
static void no_room_on_disk(void **state)
{
    static const struct row_set set = {"rows", 3000, false, 0, 400, 0};
    struct rlimit before, less;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    less = before;
    for (unsigned automatic = 0; automatic < 2; automatic++) {
        for (less.rlim_cur = 0;; less.rlim_cur += 100000) {
            struct world w;
            sf_sqlite_writer_options o;
            sf_shard_result r;
            sf_error e = SF_ERROR_INIT;
            sf_status rc;

            world_init(&w, false);
            o = options_of(&w, automatic ? SF_SQLITE_PAGE_BYTES_AUTO : 4096);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
            rc = build(&w, &o, &set, &r, &e);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
            if (rc == SF_OK)
                sf__shard_result_cleanup(&r);
            if (rc != (less.rlim_cur < 1200000 ? SF_IO : rc == SF_OK ? SF_OK : SF_IO))
                fail_msg("limit %lu: %s", (unsigned long)less.rlim_cur, sf_status_name(rc));
            assert_int_equal(objects(&w), rc == SF_OK ? 2 : 0);
            world_cleanup(&w);
            if (rc == SF_OK)
                break;
            assert_non_null(strstr(e.message, strerror(EFBIG)));
        }
    }
    signal(SIGXFSZ, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_many_shapes),
        cmocka_unit_test(auto_page_size),
        cmocka_unit_test(many_rows_give_the_same_bytes),
        cmocka_unit_test(equals_the_golden_ones),
        cmocka_unit_test(refuses_bad_input),
        cmocka_unit_test(takes_no_place_that_is_taken),
        cmocka_unit_test(stops_when_cancelled),
        cmocka_unit_test(stops_a_hanging_upload),
        cmocka_unit_test(every_request_fails_in_turn),
        cmocka_unit_test(a_shard_db_that_may_be_another_s_stays),
        cmocka_unit_test(every_allocation_fails_in_turn),
        cmocka_unit_test(no_room_on_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
