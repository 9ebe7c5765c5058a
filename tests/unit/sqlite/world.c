#include "world.h"

#include <dirent.h>
#include <sched.h>
#include <sqlite3.h>
#include <unistd.h>

#include "backend/sqlite/shard.h"
#include "backend/sqlite/shard_writer.h"
#include "base/clock.h"
#include "base/container.h"
#include "runtime/runtime.h"
#include "store/wait.h"

void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    env_init(&w->env, 1 << 20);
    snprintf(w->folder, sizeof(w->folder), "/tmp/sf-copies-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    w->inner = memory_store(&w->env, "sqlite-reader");
    w->faults = fault_store_new(w->inner);
    fault_store_reset(w->faults);
    w->refs = atomic_load(&w->env.rt->refs);
}

void world_cleanup(struct world *w)
{
    char command[128];

    heap_disarm(&w->env.heap);
    sf__store_release(&w->faults->base);
    sf__store_release(w->inner);
    env_cleanup(&w->env);
    assert_int_equal(sqlite3_memory_used(), 0);
    snprintf(command, sizeof(command), "rm -r '%s'", w->folder);
    assert_int_equal(system(command), 0);
}

/* Files in the folder; *path is the last one's. */
unsigned copies(struct world *w, char path[static 512])
{
    unsigned n = 0;
    DIR *d = opendir(w->folder);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, 512, "%s/%s", w->folder, e->d_name);
        n++;
    }
    closedir(d);
    return n;
}

/* ------------------------------------------------------------------ opening -------------------------------------- */

static void begun_done(sf_shard_open *op)
{
    struct begun *b = op->ctx;

    sf_error_tell(op->rt->alloc, &op->error, &b->error);
    gate_arrive(&b->gate);
}

static void cancel_on_task(sf_task *task)
{
    begun_cancel(sf_container_of(task, struct begun, cancel));
}

/* What is posted runs in its order: the cancel behind the first step's beginning, ahead of its end. */
static void begun_start(void *arg)
{
    struct begun *b = arg;

    sf__sqlite_shard_open(&b->op, &b->reading);
    b->cancel.run = cancel_on_task;
    if (b->cancelled)
        sf__loop_post(b->op.rt->loop, &b->cancel);
}

void begun_cancel(void *arg)
{
    sf__sqlite_shard_open_cancel(&((struct begun *)arg)->op);
}

void open_begin_at(struct begun *b, struct world *w, const char *checkpoint, uint64_t deadline_ns)
{
    *b = (struct begun){.gate = GATE_INIT, .error = SF_ERROR_INIT, .cancelled = w->cancelled};
    b->reading = (sf_sqlite_reading){
        .mode = w->mode == SF_SQLITE_AUTO ? SF_SQLITE_DOWNLOAD : w->mode, .folder = w->folder, .uncached = w->uncached};
    b->op = (sf_shard_open){
        .rt = w->env.rt,
        .store = &w->faults->base,
        .path = PATH,
        .url = "test://shard",
        .db_id = 1,
        .checkpoint = checkpoint,
        .record = w->record,
        .cache = w->cache,
        .deadline_ns = deadline_ns,
        .done = begun_done,
        .ctx = b,
    };
    on_loop(w->env.rt->loop, begun_start, b);
}

sf_status open_at(struct world *w, const char *checkpoint, sf_shard **out, sf_error *err)
{
    struct begun b;

    open_begin_at(&b, w, checkpoint, SF_NO_DEADLINE);
    gate_wait(&b.gate, 1);
    if (b.error.code == SF_OK)
        *out = b.op.shard;
    else
        *err = b.error;
    return b.error.code;
}

sf_shard *opened(struct world *w)
{
    sf_shard *s = NULL;
    sf_error e = SF_ERROR_INIT;

    if (open_at(w, "c1", &s, &e) != SF_OK)
        fail_msg("%s", e.message);
    return s;
}

void put_db(struct world *w, sf_bytes db)
{
    store_put(w->inner, PATH "/" SF_SQLITE_DB_NAME, db.p, db.n);
}

const struct way ways[WAY_COUNT] = {
    {"download", SF_SQLITE_DOWNLOAD, false, false},
    {"range", SF_SQLITE_RANGE, true, false},
    {"range, without sidecar", SF_SQLITE_RANGE, false, false},
    {"range, without cache", SF_SQLITE_RANGE, false, true},
};

sf_status store_ask(sf_store *store, sf_store_op *op)
{
    sf_error e = SF_ERROR_INIT;

    return sf__store_wait(store, op, NULL, &e);
}

static sf_store_op ask_store(struct world *w, sf_store_verb verb)
{
    sf_store_op op = {.verb = verb,
                      .key = PATH "/" SF_SQLITE_DB_NAME,
                      .len = verb == SF_STORE_GET ? SF_STORE_ALL : 0,
                      .max_bytes = UINT64_C(1) << 30,
                      .deadline_ns = SF_NO_DEADLINE};

    assert_int_equal(store_ask(w->inner, &op), SF_OK);
    return op;
}

sf_buf *store_get(struct world *w)
{
    sf_store_op op = ask_store(w, SF_STORE_GET);
    sf_buf *data = op.data;

    op.data = NULL;
    sf__store_op_cleanup(&op, w->inner->alloc);
    return data;
}

void put_sidecar(struct world *w, sf_bytes db)
{
    sf_store_op op = ask_store(w, SF_STORE_HEAD);
    sf_buf *sidecar = NULL;
    sf_error e = SF_ERROR_INIT;

    if (sf__sidecar_encode_bytes(db, op.etag, &sf__allocator_default, &sidecar, &e) != SF_OK)
        fail_msg("%s", e.message);
    store_put(w->inner, PATH "/" SF_SIDECAR_NAME, sidecar->data, sidecar->n);
    sf__buf_release(sidecar);
    sf__store_op_cleanup(&op, w->inner->alloc);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

/* All rows of a database, by SQLite itself. */
void table_read(struct table *t, sf_bytes db)
{
    sqlite3 *c = NULL;
    sqlite3_stmt *s = NULL;

    *t = (struct table){0};
    assert_int_equal(sqlite3_open(":memory:", &c), SQLITE_OK);
    assert_int_equal(sqlite3_deserialize(c, "main", (unsigned char *)(uintptr_t)db.p, (sqlite3_int64)db.n,
                                         (sqlite3_int64)db.n, SQLITE_DESERIALIZE_READONLY),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, "SELECT k, v FROM kv ORDER BY k", -1, &s, NULL), SQLITE_OK);
    for (; sqlite3_step(s) == SQLITE_ROW; t->count++) {
        if ((t->count & (t->count - 1)) == 0) {
            t->keys = realloc(t->keys, (2 * t->count + 1) * sizeof(*t->keys));
            t->values = realloc(t->values, (2 * t->count + 1) * sizeof(*t->values));
        }
        t->keys[t->count] = sf__buf_copy(&sf__allocator_default,
                                         sf_bytes_of(sqlite3_column_blob(s, 0), (size_t)sqlite3_column_bytes(s, 0)));
        t->values[t->count] = sf__buf_copy(&sf__allocator_default,
                                           sf_bytes_of(sqlite3_column_blob(s, 1), (size_t)sqlite3_column_bytes(s, 1)));
    }
    sqlite3_finalize(s);
    sqlite3_close(c);
}

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        sf__buf_release(t->keys[i]);
        sf__buf_release(t->values[i]);
    }
    free(t->keys);
    free(t->values);
}

sf_bytes key_at(const struct table *t, size_t i)
{
    return sf__buf_bytes(t->keys[i]);
}

/* All rows backwards, each twice, and absent keys in between, as one operation. */
void check_look_ups(const char *name, sf_shard *s, const struct table *t)
{
    size_t total = 3 * t->count;
    sf_bytes *keys = calloc(total + 1, sizeof(*keys));
    uint8_t (*absent)[2048] = calloc(t->count + 1, sizeof(*absent));
    struct got g;

    for (size_t i = 0; i < t->count; i++) {
        sf_bytes key = key_at(t, t->count - 1 - i);

        keys[3 * i] = keys[3 * i + 2] = key;
        if (key.n > 0)
            memcpy(absent[i], key.p, key.n);
        absent[i][key.n] = 0xee;
        keys[3 * i + 1] = sf_bytes_of(absent[i], key.n + 1);
    }
    get_begin(&g, s, keys, total, SF_NO_DEADLINE);
    get_wait(&g);
    if (g.error.code != SF_OK)
        fail_msg("%s: %s", name, g.error.message);
    for (size_t i = 0; i < total; i++) {
        const sf_value *v = &g.values[i];

        assert_int_equal(g.status[i], SF_OK);
        if (v->found != (i % 3 != 1) ||
            (v->found && !sf_bytes_eq(v->bytes, sf__buf_bytes(t->values[t->count - 1 - i / 3]))))
            fail_msg("%s: look-up %zu", name, i);
    }
    get_free(&g);
    free(keys);
    free(absent);
}

/* ------------------------------------------------------------------ objects -------------------------------------- */

/* An object that is no shard: an error that leaves no file. */
void put_schema(struct world *w, const char *sql)
{
    sqlite3 *c = NULL;
    sqlite3_int64 n;
    unsigned char *bytes;

    assert_int_equal(sqlite3_open(":memory:", &c), SQLITE_OK);
    if (sqlite3_exec(c, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(c));
    bytes = sqlite3_serialize(c, "main", &n, 0);
    put_db(w, sf_bytes_of(bytes, (size_t)n));
    sqlite3_free(bytes);
    sqlite3_close(c);
}

/* ------------------------------------------------------------------ more of copies ------------------------------- */

void expect_copies(struct world *w, unsigned n, char path[static 512])
{
    uint64_t deadline = sf__deadline_in_ms(10000);

    for (; copies(w, path) != n; sched_yield())
        if (sf__clock_mono_ns() > deadline)
            fail_msg("%u copies, not %u", copies(w, path), n);
}

void expect_closed(struct world *w)
{
    uint64_t deadline = sf__deadline_in_ms(10000);

    for (; atomic_load(&w->env.rt->refs) != w->refs; sched_yield())
        if (sf__clock_mono_ns() > deadline)
            fail_msg("%u references to the runtime, not %u", atomic_load(&w->env.rt->refs), w->refs);
}

sf_shard *opened_at(struct world *w, const char *checkpoint)
{
    sf_shard *s = NULL;
    sf_error e = SF_ERROR_INIT;

    if (open_at(w, checkpoint, &s, &e) != SF_OK)
        fail_msg("%s", e.message);
    return s;
}
