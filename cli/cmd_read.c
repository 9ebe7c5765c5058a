/* get, multiget, route, scan: what is in a snapshot. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define BATCH_KEYS 10000
#define SCAN_ROWS 1000

static struct cell text_cell(const char *text)
{
    return (struct cell){.kind = CELL_TEXT, .text = text};
}

static struct cell value_cell(const sf_value *v)
{
    return v->found ? (struct cell){.kind = CELL_VALUE, .bytes = v->bytes} : (struct cell){.kind = CELL_MISSING};
}

/* "KEY=VALUE": key, found, value */
static void pair_line(struct text *t, const struct out *o, const struct cell *cells)
{
    cell_put(t, o, &cells[0]);
    text_putc(t, '=');
    cell_put(t, o, &cells[2]);
    text_putc(t, '\n');
}

static const struct column pair_columns[] = {{"key", "KEY"}, {"found", NULL}, {"value", "VALUE"}};

/* ------------------------------------------------------------------ get ------------------------------------------- */

static void print_value(struct cli *c, const char *key, const sf_value *v)
{
    struct cell cells[] = {text_cell(key), {.kind = CELL_BOOL, .number = v->found}, value_cell(v)};
    struct text raw = {0};

    if (!args_has(&c->args, OPT_RAW)) {
        out_record(&c->out, "get", pair_columns, 3, cells, c->out.format == FORMAT_TABLE ? NULL : pair_line);
    } else if (v->found) {
        text_add(&raw, v->bytes.p, v->bytes.n);
        out_write(&c->out, &raw);
        text_free(&raw);
    }
}

int cmd_get(struct cli *c)
{
    const char *text = c->args.words[0];
    sf_error e = SF_ERROR_INIT;
    sf_value v = {0};
    sf_key key;
    bool found;

    if (!session_open(c) || !cli_parse_key(c, "get", text, &key))
        return 1;
    if (sf_reader_get(c->reader, &key, c->settings.timeout_ms, &v, &e) != SF_OK)
        return cli_fail_with(c, "get", text, &e);
    found = v.found;
    print_value(c, text, &v);
    sf_value_release(&v);
    if (!found && args_has(&c->args, OPT_EXIT_CODE))
        return 3;
    return !found && (args_has(&c->args, OPT_STRICT) || args_has(&c->args, OPT_RAW)) ? 1 : 0;
}

/* ------------------------------------------------------------------ multiget -------------------------------------- */

struct batch {
    const char **texts;
    size_t count;
    bool all_found;
};

static int multiget_some(struct cli *c, struct list *l, struct batch *b, size_t from, size_t n)
{
    sf_key *keys = cli_alloc(n, sizeof(*keys));
    sf_value *values = cli_alloc(n, sizeof(*values));
    sf_error e = SF_ERROR_INIT;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = cli_parse_key(c, "multiget", b->texts[from + i], &keys[i]) ? 0 : 1;
    if (rc == 0 && sf_reader_multi_get(c->reader, keys, n, c->settings.timeout_ms, values, &e) != SF_OK)
        rc = cli_fail_with(c, "multiget", NULL, &e);
    if (rc == 0 && from == 0)
        list_begin(l);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct cell cells[] = {
            text_cell(b->texts[from + i]), {.kind = CELL_BOOL, .number = values[i].found}, value_cell(&values[i])};

        if (!values[i].found && out_is_json(&c->out))
            cells[2].kind = CELL_ABSENT;
        b->all_found &= values[i].found;
        list_row(l, cells);
        sf_value_release(&values[i]);
    }
    free(keys);
    free(values);
    return rc;
}

/* The lines of standard input, without blanks around them, and without blank ones. */
static bool read_keys(struct cli *c, struct batch *b, struct text *all)
{
    char why[256], *line, *rest = NULL;

    if (!text_read_file(all, "-", SIZE_MAX / 4, why, sizeof(why))) {
        cli_fail(c, "multiget", NULL, "standard input cannot be read: %s", why);
        return false;
    }
    for (line = strtok_r(all->p, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
        size_t n;

        line += strspn(line, " \t");
        n = strlen(line);
        while (n > 0 && strchr(" \t", line[n - 1]))
            line[--n] = '\0';
        if (n == 0)
            continue;
        if (b->count % 1024 == 0)
            b->texts = cli_realloc(b->texts, b->count + 1024, sizeof(*b->texts));
        b->texts[b->count++] = line;
    }
    return true;
}

int cmd_multiget(struct cli *c)
{
    bool from_input = c->args.word_count == 1 && strcmp(c->args.words[0], "-") == 0;
    struct list l = {
        .out = &c->out, .op = "multiget", .member = "results", .columns = pair_columns, .n = 3, .line = pair_line};
    struct batch b = {.texts = c->args.words, .count = c->args.word_count, .all_found = true};
    struct text all = {0};
    int rc = 0;

    if (!session_open(c))
        return 1;
    if (from_input) {
        b = (struct batch){.all_found = true};
        rc = read_keys(c, &b, &all) ? 0 : 1;
    }
    if (rc == 0 && b.count == 0)
        list_begin(&l);
    for (size_t i = 0; i < b.count && rc == 0 && !out_failed(&c->out); i += BATCH_KEYS)
        rc = multiget_some(c, &l, &b, i, b.count - i < BATCH_KEYS ? b.count - i : BATCH_KEYS);
    if (rc == 0)
        list_end(&l);
    text_free(&l.text);
    text_free(&all);
    if (from_input)
        free((void *)b.texts);
    return rc == 0 && !b.all_found && args_has(&c->args, OPT_EXIT_CODE) ? 3 : rc;
}

/* ------------------------------------------------------------------ route ----------------------------------------- */

static void route_line(struct text *t, const struct out *o, const struct cell *cells)
{
    cell_put(t, o, &cells[0]);
    text_puts(t, " -> shard ");
    cell_put(t, o, &cells[1]);
    text_putc(t, '\n');
}

int cmd_route(struct cli *c)
{
    static const struct column columns[] = {{"key"}, {"db_id"}};
    const char *text = c->args.words[0];
    sf_error e = SF_ERROR_INIT;
    uint32_t db_id;
    sf_key key;

    if (!session_open(c) || !cli_parse_key(c, "route", text, &key))
        return 1;
    if (sf_snapshot_route(c->snap, &key, &db_id, &e) != SF_OK)
        return cli_fail_with(c, "route", text, &e);
    out_record(&c->out, "route", columns, 2, (struct cell[]){text_cell(text), {.kind = CELL_UINT, .number = db_id}},
               c->out.format == FORMAT_TABLE ? NULL : route_line);
    return 0;
}

/* ------------------------------------------------------------------ scan ------------------------------------------ */

static void scan_line(struct text *t, const struct out *o, const struct cell *cells)
{
    cell_put(t, o, &cells[0]);
    text_putc(t, '=');
    cell_put(t, o, &cells[1]);
    text_putc(t, '\n');
}

static int scan_rows(struct cli *c, sf_scan *scan, struct list *l)
{
    sf_error e = SF_ERROR_INIT;
    const sf_row *rows;
    size_t count;

    for (;;) {
        if (sf_scan_next(scan, SCAN_ROWS, c->settings.timeout_ms, &rows, &count, &e) != SF_OK)
            return cli_fail_with(c, "scan", NULL, &e);
        if (count == 0 || out_failed(&c->out))
            return 0;
        for (size_t i = 0; i < count; i++)
            list_row(l, (struct cell[]){cli_key_cell(c, rows[i].key), {.kind = CELL_VALUE, .bytes = rows[i].value}});
    }
}

/* A bound as the snapshot stores it; false with the failure said. `scratch` holds integers. */
static bool bound(struct cli *c, enum option_id id, uint8_t scratch[8], sf_bytes *out)
{
    const char *text = c->args.opt[id].text;
    sf_error e = SF_ERROR_INIT;
    sf_key key;

    if (!cli_parse_key(c, "scan", text, &key))
        return false;
    if (sf_snapshot_encode_key(c->snap, &key, scratch, out, &e) == SF_OK)
        return true;
    cli_fail_with(c, "scan", text, &e);
    return false;
}

int cmd_scan(struct cli *c)
{
    static const struct column columns[] = {{"key", "KEY"}, {"value", "VALUE"}};
    struct list l = {.out = &c->out, .op = "scan", .columns = columns, .n = 2, .line = scan_line};
    const struct args *a = &c->args;
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_error e = SF_ERROR_INIT;
    sf_scan *scan = NULL;
    uint8_t first[8], last[8];
    int rc;

    if (args_has(a, OPT_PREFIX) && (args_has(a, OPT_FROM) || args_has(a, OPT_TO)))
        return args_usage_error(a->command, "--prefix and --from, --to are mutually exclusive");
    if (!session_open(c))
        return 1;
    if ((args_has(a, OPT_FROM) && !bound(c, OPT_FROM, first, &o.start)) ||
        (args_has(a, OPT_TO) && !bound(c, OPT_TO, last, &o.end)))
        return 1;
    o.has_end = args_has(a, OPT_TO);
    o.has_prefix = args_has(a, OPT_PREFIX);
    if (o.has_prefix)
        o.prefix = (sf_bytes){(const uint8_t *)a->opt[OPT_PREFIX].text, strlen(a->opt[OPT_PREFIX].text)};
    o.reverse = args_has(a, OPT_REVERSE);
    if (args_has(a, OPT_LIMIT))
        o.limit = a->opt[OPT_LIMIT].number;
    if (args_has(a, OPT_SHARD)) {
        if (a->opt[OPT_SHARD].number >= c->info.num_dbs)
            return cli_fail(c, "scan", NULL, "there is no shard %u: the snapshot has %u",
                            (unsigned)a->opt[OPT_SHARD].number, c->info.num_dbs);
        o.db_id = (uint32_t)a->opt[OPT_SHARD].number;
    }
    if (sf_scan_open(&scan, c->snap, &o, &e) != SF_OK)
        return cli_fail_with(c, "scan", NULL, &e);
    list_begin(&l);
    rc = scan_rows(c, scan, &l);
    list_end(&l);
    sf_scan_close(scan);
    return rc;
}
