/* diff: what two published snapshots differ in, by their manifests and by their rows. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_AT_A_TIME 1000
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
    sf_site_options o = session_site_options(c);
    sf_error e = SF_ERROR_INIT;
    sf_history *history;
    const sf_history_entry *entries;
    uint64_t offset;
    size_t count;
    char *ref = NULL;

    if (strchr(told, '/'))
        return cli_strdup(told);
    if (sf_history_list(&history, c->rt, c->prefix, &o, RUNS_LOOKED_AT, &e) != SF_OK) {
        cli_fail_with(c, "diff", NULL, &e);
        return NULL;
    }
    entries = sf_history_entries(history, &count);
    for (size_t i = 0; i < count && !ref; i++)
        if (strcmp(entries[i].run_id, told) == 0)
            ref = cli_strdup(entries[i].ref);
    if (!ref && parse_uint(told, 0, UINT32_MAX, &offset) && offset < count)
        ref = cli_strdup(entries[offset].ref);
    if (!ref)
        cli_fail(c, "diff", NULL, "there is no manifest '%s': neither a run nor a number of the history",
                 told);
    sf_history_free(history);
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

/* ------------------------------------------------------------------ the same shard? ------------------------------- */

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_shard(const struct side *a, const struct side *b, uint32_t db_id)
{
    sf_bytes x = cli_content_hash(&a->info, db_id), y = cli_content_hash(&b->info, db_id);
    sf_shard_info p, q;

    if (!sf_snapshot_get_shard(a->snap, db_id, &p) || !sf_snapshot_get_shard(b->snap, db_id, &q))
        return false;
    if (same_text(p.db_url, q.db_url) &&
        (!p.db_url || (p.checkpoint_id && same_text(p.checkpoint_id, q.checkpoint_id))))
        return true;
    return x.n > 0 && x.n == y.n && memcmp(x.p, y.p, x.n) == 0 && p.row_count == q.row_count;
}

/* ------------------------------------------------------------------ metadata -------------------------------------- */

static void fact_line(struct text *t, const struct out *o, const struct cell *cells)
{
    for (size_t i = 0; i < 3; i++) {
        text_puts(t, i == 0 ? "" : i == 1 ? ": " : " -> ");
        cell_put(t, o, &cells[i]);
    }
    text_putc(t, '\n');
}

/* A row when the two differ. */
static void fact(struct list *l, const char *name, struct cell from, struct cell to)
{
    struct text a = {0}, b = {0};

    cell_put(&a, l->out, &from);
    cell_put(&b, l->out, &to);
    if (strcmp(text_str(&a), text_str(&b)) != 0)
        list_row(l, (struct cell[]){{.kind = CELL_TEXT, .text = name}, from, to});
    text_free(&a);
    text_free(&b);
}

static struct cell text_cell(const char *text)
{
    return text ? (struct cell){.kind = CELL_TEXT, .text = text} : (struct cell){.kind = CELL_NONE};
}

static struct cell uint_cell(uint64_t v)
{
    return (struct cell){.kind = CELL_UINT, .number = v};
}

static void shard_facts(struct list *l, const struct side *a, const struct side *b)
{
    uint32_t most = a->info.num_dbs > b->info.num_dbs ? a->info.num_dbs : b->info.num_dbs;

    for (uint32_t i = 0; i < most; i++) {
        sf_shard_info p = {0}, q = {0};
        bool in_a = sf_snapshot_get_shard(a->snap, i, &p), in_b = sf_snapshot_get_shard(b->snap, i, &q);
        char name[64];

        if (in_a && in_b && same_shard(a, b, i))
            continue;
        snprintf(name, sizeof(name), "shards[%u].row_count", i);
        list_row(l, (struct cell[]){text_cell(name), in_a ? uint_cell(p.row_count) : text_cell(NULL),
                                    in_b ? uint_cell(q.row_count) : text_cell(NULL)});
        snprintf(name, sizeof(name), "shards[%u].db_url", i);
        fact(l, name, text_cell(p.db_url), text_cell(q.db_url));
    }
}

static bool print_facts(struct cli *c, const struct side *a, const struct side *b)
{
    static const char *const encodings[] = {"u64be", "u32be", "utf8", "raw"};
    static const struct column columns[] = {{"name", "NAME"}, {"from", "FROM"}, {"to", "TO"}};
    struct list l = {.out = &c->out,
                     .op = "diff",
                     .member = "differences",
                     .columns = columns,
                     .n = 3,
                     .line = fact_line,
                     .empty = "(no differences)"};
    const sf_snapshot_info *p = &a->info, *q = &b->info;

    list_begin(&l);
    fact(&l, "run_id", text_cell(p->run_id), text_cell(q->run_id));
    fact(&l, "manifest_ref", text_cell(p->manifest_ref), text_cell(q->manifest_ref));
    fact(&l, "created_at", (struct cell){.kind = CELL_TIME, .time_us = p->created_at_us},
         (struct cell){.kind = CELL_TIME, .time_us = q->created_at_us});
    fact(&l, "num_dbs", uint_cell(p->num_dbs), uint_cell(q->num_dbs));
    fact(&l, "row_count", uint_cell(p->row_count), uint_cell(q->row_count));
    fact(&l, "key_encoding", text_cell(encodings[p->key_encoding]), text_cell(encodings[q->key_encoding]));
    fact(&l, "sharding", (struct cell){.kind = CELL_JSON, .text = p->sharding_json},
         (struct cell){.kind = CELL_JSON, .text = q->sharding_json});
    fact(&l, "key_col", text_cell(p->key_col), text_cell(q->key_col));
    shard_facts(&l, a, b);
    list_end(&l);
    return l.rows == 0;
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

/* One of two scans that are merged. */
struct cursor {
    sf_scan *scan;
    const sf_row *rows;
    size_t count, at;
    bool ended;
};

static bool cursor_open(struct cli *c, struct cursor *x, const struct side *s, uint32_t db_id)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;

    o.db_id = db_id;
    if (sf_scan_open(&x->scan, s->snap, &o, &e) == SF_OK)
        return true;
    cli_fail_with(c, "diff", NULL, &e);
    return false;
}

/* False with the failure said; at the end there is no row. */
static bool cursor_fill(struct cli *c, struct cursor *x)
{
    sf_error e = SF_ERROR_INIT;

    if (x->ended || x->at < x->count)
        return true;
    x->at = 0;
    if (sf_scan_next(x->scan, ROWS_AT_A_TIME, c->settings.timeout_ms, &x->rows, &x->count, &e) != SF_OK) {
        cli_fail_with(c, "diff", NULL, &e);
        return false;
    }
    x->ended = x->count == 0;
    return true;
}

static int compare(sf_bytes a, sf_bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

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

static void print_change(const struct cli *c, struct list *l, const sf_row *from, const sf_row *to)
{
    struct cell none = {.kind = CELL_ABSENT};

    list_row(l, (struct cell[]){text_cell(!from ? "added"
                                          : !to ? "removed"
                                                : "changed"),
                                cli_key_cell(c, from ? from->key : to->key),
                                from ? (struct cell){.kind = CELL_VALUE, .bytes = from->value} : none,
                                to ? (struct cell){.kind = CELL_VALUE, .bytes = to->value} : none});
}

static bool merge(struct cli *c, struct list *l, struct cursor *x, struct cursor *y)
{
    while (cursor_fill(c, x) && cursor_fill(c, y)) {
        const sf_row *from = x->ended ? NULL : &x->rows[x->at], *to = y->ended ? NULL : &y->rows[y->at];
        int order = !from ? 1 : !to ? -1 : compare(from->key, to->key);

        if ((!from && !to) || out_failed(&c->out))
            return true;
        if (order == 0 && compare(from->value, to->value) != 0)
            print_change(c, l, from, to);
        else if (order != 0)
            print_change(c, l, order < 0 ? from : NULL, order < 0 ? NULL : to);
        x->at += order <= 0;
        y->at += order >= 0;
    }
    return false;
}

static bool diff_scans(struct cli *c, struct list *l, const struct side *a, const struct side *b,
                       uint32_t db_id)
{
    struct cursor x = {0}, y = {0};
    bool good = cursor_open(c, &x, a, db_id) && cursor_open(c, &y, b, db_id) && merge(c, l, &x, &y);

    sf_scan_close(x.scan);
    sf_scan_close(y.scan);
    return good;
}

/* Where keys lie in the same shards, shard by shard, without those that are the same; else all of them in one
 * order. */
static bool diff_rows(struct cli *c, struct list *l, const struct side *a, const struct side *b)
{
    bool good = true;

    if (a->info.num_dbs != b->info.num_dbs || a->info.strategy != SF_SHARDING_HASH ||
        b->info.strategy != SF_SHARDING_HASH)
        return diff_scans(c, l, a, b, SF_ALL_SHARDS);
    for (uint32_t i = 0; i < a->info.num_dbs && good; i++)
        good = same_shard(a, b, i) || diff_scans(c, l, a, b, i);
    return good;
}

static int print_rows(struct cli *c, const struct side *a, const struct side *b, bool *same)
{
    static const struct column columns[] = {
        {"change", "CHANGE"}, {"key", "KEY"}, {"from", "FROM"}, {"to", "TO"}};
    struct list l = {.out = &c->out, .op = "diff", .columns = columns, .n = 4, .line = change_line};
    bool good;

    if (a->info.key_encoding != b->info.key_encoding)
        return cli_fail(c, "diff", NULL,
                        "the two have keys of different encodings: their rows cannot be compared");
    c->info = b->info; /* for the encoding of keys */
    list_begin(&l);
    good = diff_rows(c, &l, a, b);
    list_end(&l);
    *same = l.rows == 0;
    return good ? 0 : 1;
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
        rc = 0;
        if (args_has(&c->args, OPT_KEYS))
            rc = print_rows(c, &a, &b, &same);
        else
            same = print_facts(c, &a, &b);
    }
    c->info = info;
    close_side(&a);
    close_side(&b);
    return rc == 0 && !same && args_has(&c->args, OPT_EXIT_CODE) ? 3 : rc;
}
