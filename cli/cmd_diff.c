/* diff: what two published snapshots differ in, by their manifests and by their rows. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define CHANGES_AT_A_TIME 1000
#define RUNS_LOOKED_AT 10000

struct side {
    sf_reader *reader;
    sf_snapshot *snap;
    sf_snapshot_info info;
};

/* ------------------------------------------------------------------ opening --------------------------------------- */

/* A manifest by its number in the history, its run, or its name; to be freed; NULL with a message. */
static char *ref_of(struct cli *c, const char *told)
{
    sf_error e = SF_ERROR_INIT;
    struct publications p;
    uint64_t offset;
    char *ref = NULL;

    if (strchr(told, '/'))
        return cli_strdup(told);
    if (session_history(c, RUNS_LOOKED_AT, &p, &e) != SF_OK) {
        cli_fail_with(c, "diff", NULL, &e);
        session_history_free(&p);
        return NULL;
    }
    for (size_t i = 0; i < p.count && !ref; i++)
        if (strcmp(p.entries[i].run_id, told) == 0)
            ref = cli_strdup(p.entries[i].ref);
    if (!ref && parse_uint(told, 0, UINT32_MAX, &offset) && offset < p.count)
        ref = cli_strdup(p.entries[offset].ref);
    if (!ref)
        cli_fail(c, "diff", NULL, "there is no manifest '%s': neither a run nor a number of the history", told);
    session_history_free(&p);
    return ref;
}

static bool open_side(struct cli *c, struct side *s, const char *told)
{
    sf_reader_options o = session_reader_options(c);
    sf_error e = SF_ERROR_INIT;
    char *ref = ref_of(c, told);

    if (!ref)
        return false;
    o.manifest_ref = ref;
    if (sf_reader_open(&s->reader, c->rt, c->prefix, &o, &e) == SF_OK)
        s->snap = sf_reader_borrow(s->reader, &e);
    free(ref);
    if (s->snap)
        sf_snapshot_get_info(s->snap, &s->info);
    else
        cli_fail_with(c, "diff", NULL, &e);
    return s->snap != NULL;
}

static void close_side(struct side *s)
{
    sf_snapshot_give_back(s->snap);
    sf_reader_free(s->reader);
}

/* ------------------------------------------------------------------ metadata ----------------------------------------- */

static void fact_line(struct text *t, const struct out *o, const struct cell *cells)
{
    for (size_t i = 0; i < 3; i++) {
        text_puts(t, i == 0 ? "" : i == 1 ? ": " : " -> ");
        cell_put(t, o, &cells[i]);
    }
    text_putc(t, '\n');
}

static struct cell fact_cell(const sf_fact *f)
{
    switch (f->kind) {
    case SF_FACT_TEXT:
        return (struct cell){.kind = CELL_TEXT, .text = f->text};
    case SF_FACT_JSON:
        return (struct cell){.kind = CELL_JSON, .text = f->text};
    case SF_FACT_UINT:
        return (struct cell){.kind = CELL_UINT, .number = f->number};
    case SF_FACT_TIME:
        return (struct cell){.kind = CELL_TIME, .time_us = f->time_us};
    case SF_FACT_NONE:
        break;
    }
    return (struct cell){.kind = CELL_NONE};
}

static bool print_fact(void *ctx, const sf_difference *d)
{
    struct list *l = ctx;

    list_row(l, (struct cell[]){{.kind = CELL_TEXT, .text = d->name}, fact_cell(&d->from), fact_cell(&d->to)});
    return !out_failed(l->out);
}

static int print_facts(struct cli *c, const struct side *a, const struct side *b, bool *same)
{
    static const struct column columns[] = {{"name", "NAME"}, {"from", "FROM"}, {"to", "TO"}};
    struct list l = {.out = &c->out,
                     .op = "diff",
                     .member = "differences",
                     .columns = columns,
                     .n = 3,
                     .line = fact_line,
                     .empty = "(no differences)"};
    sf_error e = SF_ERROR_INIT;
    sf_status rc;

    list_begin(&l);
    rc = sf_snapshot_compare(a->snap, b->snap, print_fact, &l, &e);
    list_end(&l);
    *same = l.rows == 0;
    return rc == SF_OK ? 0 : cli_fail_with(c, "diff", NULL, &e);
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

static void change_line(struct text *t, const struct out *o, const struct cell *cells)
{
    static const enum out_colour colours[] = {COLOUR_GREEN, COLOUR_RED, COLOUR_YELLOW};
    size_t which = cells[0].text[0] == 'a' ? 0 : cells[0].text[0] == 'r' ? 1 : 2;

    out_colour(o, t, colours[which]);
    text_putc(t, "+-~"[which]);
    out_plain(o, t);
    text_putc(t, ' ');
    cell_put(t, o, &cells[1]);
    if (which != 0) {
        text_putc(t, '=');
        cell_put(t, o, &cells[2]);
    }
    if (which != 1) {
        text_puts(t, which == 0 ? "=" : " -> ");
        cell_put(t, o, &cells[3]);
    }
    text_putc(t, '\n');
}

static void print_change(const struct cli *c, struct list *l, const sf_row_change *change)
{
    static const char *const names[] = {"added", "removed", "changed"};
    struct cell none = {.kind = CELL_ABSENT};

    list_row(l, (struct cell[]){
                    {.kind = CELL_TEXT, .text = names[change->change]},
                    cli_key_cell(c, change->key),
                    change->change == SF_ROW_ADDED ? none : (struct cell){.kind = CELL_VALUE, .bytes = change->from},
                    change->change == SF_ROW_REMOVED ? none : (struct cell){.kind = CELL_VALUE, .bytes = change->to}});
}

static sf_status print_changes(struct cli *c, struct list *l, sf_row_diff *d, sf_error *e)
{
    const sf_row_change *changes;
    size_t count;
    bool end = false;
    sf_status rc = SF_OK;

    while (!end && !out_failed(&c->out)) {
        rc = sf_row_diff_next(d, CHANGES_AT_A_TIME, c->settings.timeout_ms, &changes, &count, &end, e);
        if (rc != SF_OK)
            break;
        for (size_t i = 0; i < count; i++)
            print_change(c, l, &changes[i]);
    }
    return rc;
}

static int print_rows(struct cli *c, const struct side *a, const struct side *b, bool *same)
{
    static const struct column columns[] = {{"change", "CHANGE"}, {"key", "KEY"}, {"from", "FROM"}, {"to", "TO"}};
    struct list l = {.out = &c->out, .op = "diff", .columns = columns, .n = 4, .line = change_line};
    sf_error e = SF_ERROR_INIT;
    sf_row_diff *d;
    sf_status rc;

    if (sf_row_diff_open(&d, a->snap, b->snap, &e) != SF_OK)
        return cli_fail_with(c, "diff", NULL, &e);
    c->info = b->info; /* for the encoding of keys */
    list_begin(&l);
    rc = print_changes(c, &l, d, &e);
    list_end(&l);
    sf_row_diff_close(d);
    *same = l.rows == 0;
    return rc == SF_OK ? 0 : cli_fail_with(c, "diff", NULL, &e);
}

int cmd_diff(struct cli *c)
{
    struct side a = {0}, b = {0};
    sf_snapshot_info info = c->info;
    bool same = true;
    int rc = 1;

    if (!session_locate(c))
        return 1;
    if (open_side(c, &a, c->args.words[0]) && open_side(c, &b, c->args.words[1])) {
        if (args_has(&c->args, OPT_KEYS))
            rc = print_rows(c, &a, &b, &same);
        else
            rc = print_facts(c, &a, &b, &same);
    }
    c->info = info;
    close_side(&a);
    close_side(&b);
    return rc == 0 && !same && args_has(&c->args, OPT_EXIT_CODE) ? 3 : rc;
}
