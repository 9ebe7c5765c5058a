/* verify: whether a snapshot is whole. */
#include "cli.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ verify ---------------------------------------- */

/* What one shard came to. Written by the worker that has it, read when all are home. */
struct verdict {
    sf_verify_result result;
    uint64_t manifest_rows; /* more than that, perhaps for good reasons; 0: as many */
    sf_damage first;        /* its code SF_OK: it is good */
};

struct verification {
    struct cli *c;
    sf_verify_options options;
    atomic_uint next;                 /* shard to be taken */
    atomic_uint_fast64_t bytes, rows; /* so far, for progress */
    atomic_uint home;
    struct verdict *verdicts; /* num_dbs */
};

/* What the library tells, of one shard. */
struct listener {
    struct verification *f;
    struct verdict *v;
};

static void on_damage(void *ctx, const sf_damage *d)
{
    struct listener *l = ctx;

    if (l->v->first.error.code == SF_OK)
        l->v->first = *d;
}

static bool on_progress(void *ctx, uint64_t bytes, uint64_t rows)
{
    struct listener *l = ctx;

    atomic_fetch_add(&l->f->bytes, bytes);
    atomic_fetch_add(&l->f->rows, rows);
    return true;
}

static void check_shard(struct verification *f, uint32_t db_id)
{
    struct verdict *v = &f->verdicts[db_id];
    struct listener l = {f, v};
    sf_verify_options o = f->options;
    sf_damage failed = {.error = SF_ERROR_INIT, .offset = SF_NO_OFFSET};
    sf_shard_info s;

    o.found = on_damage;
    o.progress = on_progress;
    o.ctx = &l;
    sf_snapshot_get_shard(f->c->snap, db_id, &s);
    if (sf_snapshot_verify_shard(f->c->snap, db_id, &o, &v->result, &failed.error) != SF_OK)
        on_damage(&l, &failed); /* it is not known to be good */
    if (o.deep && v->first.error.code == SF_OK && v->result.rows < s.row_count)
        v->manifest_rows = s.row_count;
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

static void show_progress(const struct verification *f)
{
    struct text size = {0};

    text_size(&size, atomic_load(&f->bytes));
    fprintf(stderr, "\r\033[Kverify: %u of %u shards, %" PRIuFAST64 " rows, %s", atomic_load(&f->home),
            f->c->info.num_dbs, atomic_load(&f->rows), text_str(&size));
    text_free(&size);
}

/* This thread waits for the others, and shows how far they are. */
static void watch_workers(struct verification *f)
{
    bool shows = !f->c->settings.quiet && isatty(STDERR_FILENO);

    while (atomic_load(&f->home) < f->c->info.num_dbs) {
        if (shows)
            show_progress(f);
        usleep(shows ? 100000 : 5000);
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
        "db_id=",           "  status=",  "  objects=", "  bytes=",  "  rows=",
        "  manifest_rows=", "  damages=", "  object=",  "  offset=", "  error="};

    for (size_t i = 0; i < 10; i++) {
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
    static const struct column columns[] = {
        {"db_id", "DB_ID", true},     {"status", "STATUS"},
        {"objects", "OBJECTS", true}, {"bytes", "BYTES", true},
        {"rows", "ROWS", true},       {"manifest_rows", "IN_MANIFEST", true},
        {"damages", "DAMAGES", true}, {"object", "OBJECT"},
        {"offset", "OFFSET", true},   {"error", "ERROR"}};
    struct list l = {
        .out = &c->out, .op = "verify", .member = "shards", .columns = columns, .n = 10, .line = verify_line};
    uint32_t bad = 0;

    list_begin(&l);
    for (uint32_t i = 0; i < c->info.num_dbs; i++) {
        const struct verdict *v = &f->verdicts[i];
        const sf_verify_result *r = &v->result;
        bool is_bad = v->first.error.code != SF_OK;

        bad += is_bad;
        list_row(&l, (struct cell[]){
                         {.kind = CELL_UINT, .number = i},
                         {.kind = CELL_TEXT, .text = is_bad ? "bad" : "good"},
                         {.kind = CELL_UINT, .number = r->objects},
                         {.kind = CELL_SIZE, .number = r->bytes},
                         {.kind = f->options.deep ? CELL_UINT : CELL_ABSENT, .number = r->rows},
                         {.kind = v->manifest_rows > 0 ? CELL_UINT : CELL_ABSENT, .number = v->manifest_rows},
                         {.kind = is_bad ? CELL_UINT : CELL_ABSENT, .number = r->damages},
                         {.kind = v->first.error.object[0] ? CELL_TEXT : CELL_ABSENT,
                          .text = v->first.error.object},
                         {.kind = is_bad && v->first.offset != SF_NO_OFFSET ? CELL_UINT : CELL_ABSENT,
                          .number = v->first.offset},
                         {.kind = is_bad ? CELL_TEXT : CELL_ABSENT, .text = v->first.error.message}});
    }
    list_end(&l);
    return bad == 0 ? 0 : cli_fail(c, "verify", NULL, "%u of %u shards are bad", bad, c->info.num_dbs);
}

int cmd_verify(struct cli *c)
{
    struct verification f = {.c = c, .options = SF_VERIFY_OPTIONS_INIT};
    int rc;

    f.options.deep = args_has(&c->args, OPT_DEEP);
    f.options.timeout_ms = c->settings.timeout_ms;
    if (!session_open(c))
        return 1;
    f.verdicts = cli_alloc(c->info.num_dbs, sizeof(*f.verdicts));
    run_workers(&f);
    rc = print_verdicts(c, &f);
    if (c->rejected_ref && rc == 0)
        rc = cli_fail(c, "verify", NULL, "the manifest that the pointer names is malformed: %s",
                      c->rejected_ref);
    free(f.verdicts);
    return rc;
}
