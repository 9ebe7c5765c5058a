/* info, shards, health, history: what a snapshot is. But for health, which opens all shards, they read the
 * pointer and the manifest only. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct cell text_cell(const char *text)
{
    return text ? (struct cell){.kind = CELL_TEXT, .text = text} : (struct cell){.kind = CELL_NONE};
}

static struct cell uint_cell(uint64_t v)
{
    return (struct cell){.kind = CELL_UINT, .number = v};
}

/* A member that is there only when there is something to say. */
static struct cell extra_cell(const char *text)
{
    return text ? (struct cell){.kind = CELL_TEXT, .text = text} : (struct cell){.kind = CELL_ABSENT};
}

/* ------------------------------------------------------------------ info ------------------------------------------ */

int cmd_info(struct cli *c)
{
    static const char *const encodings[] = {"u64be", "u32be", "utf8", "raw"};
    static const struct column columns[] = {
        {"run_id"},
        {"num_dbs"},
        {"sharding", .python = "ShardingStrategy"},
        {"created_at"},
        {"manifest_ref"},
        {"row_count"},
        {"key_encoding", .python = "KeyEncoding"},
        {"hash_algorithm", .python = "ShardHashAlgorithm"},
        {"rejected_ref"},
    };

    if (!session_open(c))
        return 1;
    struct cell cells[] = {
        text_cell(c->info.run_id),
        uint_cell(c->info.num_dbs),
        text_cell(c->info.strategy == SF_SHARDING_HASH ? "hash" : "cel"),
        {.kind = CELL_TIME, .time_us = c->info.created_at_us},
        text_cell(c->info.manifest_ref),
        uint_cell(c->info.row_count),
        text_cell(encodings[c->info.key_encoding]),
        text_cell("xxh3_64"),
        extra_cell(c->rejected_ref),
    };
    out_record(&c->out, "info", columns, sizeof(cells) / sizeof(cells[0]), cells, NULL);
    return 0;
}

/* ------------------------------------------------------------------ shards ---------------------------------------- */

static void shard_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const char *const names[] = {"db_id=", "  rows=", "  min=", "  max="};

    for (size_t i = 0; i < 4; i++) {
        text_puts(t, names[i]);
        cell_put(t, o, &cells[i]);
    }
    text_putc(t, '\n');
}

int cmd_shards(struct cli *c)
{
    static const struct column columns[] = {
        {"db_id", "DB_ID", true}, {"row_count", "ROWS", true}, {"min_key", "MIN_KEY"},
        {"max_key", "MAX_KEY"},   {"db_url", "URL"},
    };
    struct list l = {.out = &c->out, .op = "shards", .member = "shards", .columns = columns, .n = 5, .line = shard_line};
    sf_shard_info s;

    if (!session_open(c))
        return 1;
    list_begin(&l);
    for (uint32_t i = 0; sf_snapshot_get_shard(c->snap, i, &s) && !out_failed(&c->out); i++)
        list_row(&l, (struct cell[]){
                         uint_cell(i),
                         uint_cell(s.row_count),
                         {.kind = s.min_key_json ? CELL_JSON : CELL_NONE, .text = s.min_key_json},
                         {.kind = s.max_key_json ? CELL_JSON : CELL_NONE, .text = s.max_key_json},
                         text_cell(s.db_url),
                     });
    list_end(&l);
    return 0;
}

/* ------------------------------------------------------------------ health ---------------------------------------- */

static void health_line(struct text *t, const struct out *o, const struct cell *cells)
{
    const char *status = cells[0].text;

    text_puts(t, "status=");
    out_colour(o, t, status[0] == 'h' ? COLOUR_GREEN : status[0] == 'd' ? COLOUR_YELLOW : COLOUR_RED);
    text_puts(t, status);
    out_plain(o, t);
    text_puts(t, "  manifest_age=");
    cell_put(t, o, &cells[2]);
    text_puts(t, "  shards=");
    cell_put(t, o, &cells[3]);
    if (cells[5].kind != CELL_ABSENT) {
        text_puts(t, "  rejected_ref=");
        cell_put(t, o, &cells[5]);
    }
    if (cells[6].kind != CELL_ABSENT) {
        text_puts(t, "  current_ref=");
        cell_put(t, o, &cells[6]);
    }
    text_putc(t, '\n');
}

static double age_of(int64_t since_us)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 - (double)since_us / 1e6;
}

/* Opens every shard; false with the failure said. */
static bool opens_whole(struct cli *c)
{
    sf_reader_options o = session_reader_options(c);
    sf_error e = SF_ERROR_INIT;
    sf_reader *r = NULL;
    bool opens;

    o.lazy_shards = false;
    o.manifest_ref = c->info.manifest_ref; /* the very snapshot that was looked at */
    opens = sf_reader_open(&r, c->rt, c->prefix, &o, &e) == SF_OK;
    sf_reader_free(r);
    if (!opens)
        cli_fail_with(c, "health", NULL, &e);
    return opens;
}

/* What the pointer names now, whatever the session looks at, also where that manifest is malformed. NULL with the failure said. Freed
 * with free(). */
static char *named_now(struct cli *c)
{
    sf_reader_options o = session_reader_options(c);
    const sf_rejected_manifest *rejected;
    sf_error e = SF_ERROR_INIT;
    sf_snapshot *snap = NULL;
    sf_snapshot_info info;
    sf_reader *r = NULL;
    sf_call *call = NULL;
    char *ref = NULL;
    size_t count;

    o.manifest_ref = NULL;
    if (sf_reader_open_start(&call, c->rt, c->prefix, &o, NULL, NULL, &e) == SF_OK && sf_call_wait(call, &e) == SF_OK) {
        r = sf_call_take_reader(call);
        snap = sf_reader_borrow(r, &e);
    }
    if (snap) {
        rejected = sf_call_rejected_manifests(call, &count);
        sf_snapshot_get_info(snap, &info);
        ref = cli_strdup(count > 0 ? rejected[0].manifest_ref : info.manifest_ref);
    } else {
        cli_fail_with(c, "health", NULL, &e);
    }
    sf_snapshot_give_back(snap);
    sf_reader_free(r);
    sf_call_release(call);
    return ref;
}

int cmd_health(struct cli *c)
{
    static const struct column columns[] = {
        {"status"},    {"manifest_ref"}, {"manifest_age_seconds"}, {"num_shards"},
        {"is_closed"}, {"rejected_ref"}, {"current_ref"},
    };
    static const char *const names[] = {"healthy", "degraded", "unhealthy"};
    const bool remote = args_has(&c->args, OPT_REMOTE);
    sf_health_status status = SF_HEALTHY;
    char *current = NULL;
    double age;

    if (!session_open(c))
        return 2;
    if (remote && !(current = named_now(c)))
        return 2;
    age = age_of(c->info.created_at_us);
    if (!opens_whole(c))
        status = SF_UNHEALTHY;
    else if (c->rejected_ref || (remote && strcmp(current, c->info.manifest_ref) != 0) ||
             (args_has(&c->args, OPT_STALENESS) && age > c->args.opt[OPT_STALENESS].real))
        status = SF_DEGRADED;
    struct cell cells[] = {
        text_cell(names[status]),
        text_cell(c->info.manifest_ref),
        {.kind = CELL_SECONDS, .seconds = age < 0 ? 0 : age},
        uint_cell(c->info.num_dbs),
        {.kind = CELL_BOOL, .number = false},
        extra_cell(c->rejected_ref),
        extra_cell(current),
    };
    /* rows have the last column only where it was asked for */
    out_record(&c->out, "health", columns, sizeof(cells) / sizeof(cells[0]) - !remote, cells, health_line);
    free(current);
    return (int)status;
}

/* ------------------------------------------------------------------ history --------------------------------------- */

static void history_line(struct text *t, const struct out *o, const struct cell *cells)
{
    text_putc(t, '[');
    cell_put(t, o, &cells[0]);
    text_puts(t, "] ");
    cell_put(t, o, &cells[1]);
    text_puts(t, "  run_id=");
    cell_put(t, o, &cells[2]);
    if (cells[5].kind != CELL_ABSENT)
        text_puts(t, "  (current)");
    text_putc(t, '\n');
}

int cmd_history(struct cli *c)
{
    /* the table has them in another order than the objects */
    static const struct column columns[] = {
        {"offset", "#", true}, {NULL, "PUBLISHED_AT"}, {"run_id", "RUN_ID"}, {"published_at"}, {"ref"},
        {"current"},           {NULL, "CURRENT"},
    };
    struct list l = {.out = &c->out,
                     .op = "history",
                     .member = "manifests",
                     .columns = columns,
                     .n = 7,
                     .line = history_line,
                     .empty = "(no manifests)"};
    sf_error e = SF_ERROR_INIT;
    struct publications p;

    if (!session_locate(c))
        return 1;
    if (session_history(c, args_has(&c->args, OPT_LIMIT) ? (size_t)c->args.opt[OPT_LIMIT].number : 10, &p, &e) != SF_OK) {
        session_history_free(&p);
        return cli_fail_with(c, "history", NULL, &e);
    }
    list_begin(&l);
    for (size_t i = 0; i < p.count; i++) {
        const sf_history_entry *h = &p.entries[i];
        struct cell at = {.kind = CELL_TIME, .time_us = h->published_at_us};
        struct cell current = {.kind = CELL_ABSENT};

        if (h->is_current)
            current = (struct cell){.kind = CELL_BOOL, .number = true};
        list_row(&l, (struct cell[]){uint_cell(i), at, text_cell(h->run_id), at, text_cell(h->ref), current,
                                     extra_cell(h->is_current ? "*" : NULL)});
    }
    list_end(&l);
    session_history_free(&p);
    return 0;
}
