/* verify, diff: whether a snapshot is whole, and what two of them differ in. */
#include "cli.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS_AT_A_TIME 1000

/* ------------------------------------------------------------------ verify
 * --------------------------------------- */

/* What one shard came to. Written by the worker that has it, read when all are home. */
struct verdict {
    uint64_t rows, bytes;   /* read: keys and values */
    uint64_t manifest_rows; /* more than that, perhaps for good reasons; 0: as many */
    bool done;
    char object[512];
    char error[768]; /* empty: it is good */
};

struct verification {
    struct cli *c;
    bool deep, routes;
    atomic_uint next;          /* shard to be taken */
    atomic_uint_fast64_t rows; /* so far, for progress */
    atomic_uint home;
    struct verdict *verdicts; /* num_dbs */
};

static void fail_shard(struct verdict *v, const sf_error *e)
{
    snprintf(v->object, sizeof(v->object), "%s", e->object);
    snprintf(v->error, sizeof(v->error), "%s", e->message);
}

static void wrong(struct verdict *v, const char *fmt, ...) SF_PRINTF(2, 3);
static void wrong(struct verdict *v, const char *fmt, ...)
{
    va_list args;

    if (v->error[0])
        return;
    va_start(args, fmt);
    vsnprintf(v->error, sizeof(v->error), fmt, args);
    va_end(args);
}

/* A stored key as the caller would have given it. */
static sf_key key_of(const struct cli *c, sf_bytes stored)
{
    struct cell cell = cli_key_cell(c, stored);

    if (cell.kind == CELL_UINT)
        return sf_key_uint(cell.number);
    return c->info.key_encoding == SF_KEY_UTF8 ? sf_key_str((const char *)stored.p, stored.n)
                                               : sf_key_bytes(stored.p, stored.n);
}

/* Keys ascend, belong to the shard, and are found when they are looked up: the filters cover them. */
static void check_rows(struct verification *f, struct verdict *v, uint32_t db_id, const sf_row *rows,
                       size_t count, struct text *last)
{
    const struct cli *c = f->c;
    sf_bytes *keys = cli_alloc(count, sizeof(*keys));
    sf_error e = SF_ERROR_INIT;
    sf_call *call = NULL;
    sf_value *found;
    size_t n;

    for (size_t i = 0; i < count && !v->error[0]; i++) {
        sf_bytes k = rows[i].key,
                 before = i > 0 ? rows[i - 1].key : (sf_bytes){(const uint8_t *)last->p, last->n};
        size_t common = k.n < before.n ? k.n : before.n;
        int order = common > 0 ? memcmp(before.p, k.p, common) : 0;
        sf_key key = key_of(c, k);
        uint32_t home;

        keys[i] = k;
        v->rows++;
        v->bytes += k.n + rows[i].value.n;
        if (v->rows > 1 && (order > 0 || (order == 0 && before.n >= k.n)))
            wrong(v, "row %" PRIu64 ": its key does not follow the one before", v->rows);
        if (!f->routes) /* by columns that are not stored */
            continue;
        if (sf_snapshot_route(c->snap, &key, &home, &e) != SF_OK)
            fail_shard(v, &e);
        else if (home != db_id)
            wrong(v, "row %" PRIu64 ": its key belongs to shard %u", v->rows, home);
    }
    if (!v->error[0] && sf_snapshot_get_start(&call, f->c->snap, db_id, keys, count, c->settings.timeout_ms,
                                              NULL, NULL, &e) != SF_OK)
        fail_shard(v, &e);
    if (call && sf_call_wait(call, &e) != SF_OK) {
        fail_shard(v, &e);
    } else if (call) {
        found = sf_call_values(call, &n);
        for (size_t i = 0; i < n; i++)
            if (!found[i].found || found[i].bytes.n != rows[i].value.n ||
                (found[i].bytes.n > 0 && memcmp(found[i].bytes.p, rows[i].value.p, found[i].bytes.n) != 0))
                wrong(v, "row %" PRIu64 ": a look-up of its key does not find it", v->rows - count + i + 1);
    }
    sf_call_release(call);
    last->n = 0;
    text_add(last, rows[count - 1].key.p, rows[count - 1].key.n);
    free(keys);
}

static void read_shard(struct verification *f, struct verdict *v, uint32_t db_id)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    struct text last = {0};
    sf_scan *scan = NULL;
    const sf_row *rows;
    size_t count;

    o.db_id = db_id;
    o.limit = f->deep ? UINT64_MAX : 1; /* to open it */
    if (sf_scan_open(&scan, f->c->snap, &o, &e) != SF_OK)
        fail_shard(v, &e);
    while (!v->error[0]) {
        if (sf_scan_next(scan, ROWS_AT_A_TIME, f->c->settings.timeout_ms, &rows, &count, &e) != SF_OK)
            fail_shard(v, &e);
        else if (count == 0)
            break;
        else if (f->deep)
            check_rows(f, v, db_id, rows, count, &last);
        atomic_fetch_add(&f->rows, v->error[0] ? 0 : count);
    }
    sf_scan_close(scan);
    text_free(&last);
}

static void check_shard(struct verification *f, uint32_t db_id)
{
    struct verdict *v = &f->verdicts[db_id];
    sf_shard_info s;

    sf_snapshot_get_shard(f->c->snap, db_id, &s);
    if (s.db_url) {
        read_shard(f, v, db_id);
        if (f->deep && !v->error[0] && v->rows != s.row_count) {
            /* the existing package counts rows that were overwritten, our writers those that are stored */
            if (v->rows > s.row_count || cli_content_hash(&f->c->info, db_id).n > 0)
                wrong(v, "it has %" PRIu64 " rows, the manifest says %" PRIu64, v->rows, s.row_count);
            else
                v->manifest_rows = s.row_count;
        }
    } else if (s.row_count != 0) {
        wrong(v, "the manifest says that it has %" PRIu64 " rows, and names no database", s.row_count);
    }
    v->done = true;
    atomic_fetch_add(&f->home, 1);
}

static void *work(void *ctx)
{
    struct verification *f = ctx;
    unsigned i;

    while ((i = atomic_fetch_add(&f->next, 1)) < f->c->info.num_dbs)
        check_shard(f, i);
    return NULL;
}

/* This thread waits for the others, and shows how far they are. */
static void watch_workers(struct verification *f)
{
    bool shows = !f->c->settings.quiet && isatty(STDERR_FILENO);

    while (atomic_load(&f->home) < f->c->info.num_dbs) {
        if (shows)
            fprintf(stderr, "\r\033[Kverify: %u of %u shards, %" PRIuFAST64 " rows", atomic_load(&f->home),
                    f->c->info.num_dbs, atomic_load(&f->rows));
        usleep(100000);
    }
    if (shows)
        fputs("\r\033[K", stderr);
}

static void run_workers(struct verification *f)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = args_has(&f->c->args, OPT_JOBS) ? (size_t)f->c->args.opt[OPT_JOBS].number
               : processors > 0                ? (size_t)processors
                                               : 1;
    pthread_t *threads;
    size_t started = 0;

    n = n < f->c->info.num_dbs ? n : f->c->info.num_dbs;
    threads = cli_alloc(n, sizeof(*threads));
    while (started < n && pthread_create(&threads[started], NULL, work, f) == 0)
        started++;
    if (started == 0)
        work(f);
    watch_workers(f);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}

static void verify_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const char *const names[] = {
        "db_id=", "  status=", "  rows=", "  bytes=", "  manifest_rows=", "  object=", "  error="};

    for (size_t i = 0; i < 7; i++) {
        if (cells[i].kind == CELL_ABSENT)
            continue;
        text_puts(t, names[i]);
        if (i == 1)
            out_colour(o, t, cells[i].text[0] == 'g' ? COLOUR_GREEN : COLOUR_RED);
        cell_put(t, o, &cells[i]);
        if (i == 1)
            out_plain(o, t);
    }
    text_putc(t, '\n');
}

static int print_verdicts(struct cli *c, const struct verification *f)
{
    static const struct column columns[] = {{"db_id", "DB_ID", true},
                                            {"status", "STATUS"},
                                            {"rows", "ROWS", true},
                                            {"bytes", "BYTES", true},
                                            {"manifest_rows", "IN_MANIFEST", true},
                                            {"object", "OBJECT"},
                                            {"error", "ERROR"}};
    struct list l = {
        .out = &c->out, .op = "verify", .member = "shards", .columns = columns, .n = 7, .line = verify_line};
    uint32_t bad = 0;

    list_begin(&l);
    for (uint32_t i = 0; i < c->info.num_dbs; i++) {
        const struct verdict *v = &f->verdicts[i];
        struct cell read = {.kind = f->deep ? CELL_UINT : CELL_ABSENT, .number = v->rows};
        struct cell bytes = {.kind = f->deep ? CELL_SIZE : CELL_ABSENT, .number = v->bytes};
        bool is_bad = v->error[0] != '\0';

        bad += is_bad;
        list_row(&l, (struct cell[]){
                         {.kind = CELL_UINT, .number = i},
                         {.kind = CELL_TEXT, .text = is_bad ? "bad" : "good"},
                         read,
                         bytes,
                         {.kind = v->manifest_rows > 0 ? CELL_UINT : CELL_ABSENT, .number = v->manifest_rows},
                         {.kind = v->object[0] ? CELL_TEXT : CELL_ABSENT, .text = v->object},
                         {.kind = is_bad ? CELL_TEXT : CELL_ABSENT, .text = v->error}});
    }
    list_end(&l);
    return bad == 0 ? 0 : cli_fail(c, "verify", NULL, "%u of %u shards are bad", bad, c->info.num_dbs);
}

int cmd_verify(struct cli *c)
{
    struct verification f = {.c = c, .deep = args_has(&c->args, OPT_DEEP)};
    int rc;

    if (!session_open(c))
        return 1;
    f.routes = cli_routes_by_key(&c->info);
    f.verdicts = cli_alloc(c->info.num_dbs, sizeof(*f.verdicts));
    run_workers(&f);
    rc = print_verdicts(c, &f);
    if (c->rejected_ref && rc == 0)
        rc = cli_fail(c, "verify", NULL, "the manifest that the pointer names is malformed: %s",
                      c->rejected_ref);
    free(f.verdicts);
    return rc;
}
