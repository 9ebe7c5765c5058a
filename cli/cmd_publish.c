/* publish: a snapshot of the rows of a file. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rows_read.h"

/* ------------------------------------------------------------------ being stopped --------------------------------- */

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

struct publish_progress {
    bool shows;
};

static bool on_progress(void *ctx, const sf_write_progress *p)
{
    static const char *const phases[] = {"adding", "building", "checking", "publishing", "cleaning up", "done"};
    struct publish_progress *show = ctx;

    if (show->shows)
        progress_show("publish: %s, %" PRIu64 " rows added, %u of %u shards stored", phases[p->phase], p->rows_added,
                      p->shards_done, p->shards_total);
    return !stopped;
}

/* ------------------------------------------------------------------ options --------------------------------------- */

#define CEL_COLUMNS_MAX 64

struct publication {
    struct cli *c;
    const char *prefix;
    sf_writer_options options;
    sf_slatedb_options slatedb;
    sf_sqlite_options sqlite;
    struct rows rows;
    struct rows_wanted wanted;
    enum rows_format format;
    uint64_t key_format; /* as --key-format's choices */
    struct publish_progress progress;
    bool skips;        /* bad rows are left out */
    uint64_t bad_rows; /* those that were */
    FILE *rejects;     /* where they are told; NULL: nowhere */
    bool refused;      /* the present row, by the library, for `why` */
    char why[sizeof(((sf_error *)0)->message)];
    struct text custom;
    const char **names; /* of --value, then of columns of rows that the expression has */
    /* CEL */
    sf_cel_sharding cel;
    sf_routing_column columns[CEL_COLUMNS_MAX];
    char *column_names[CEL_COLUMNS_MAX];
    struct text column_texts[CEL_COLUMNS_MAX]; /* of the present row */
    size_t column_count;
    bool by_key_alone; /* rows need no context */
    sf_routing_value *values;
};

static uint64_t number_or(const struct args *a, enum option_id id, uint64_t otherwise)
{
    return args_has(a, id) ? a->opt[id].number : otherwise;
}

static const char *text_or(const struct args *a, enum option_id id, const char *otherwise)
{
    return args_has(a, id) ? a->opt[id].text : otherwise;
}

static int64_t milliseconds_or(const struct args *a, enum option_id id, int64_t otherwise)
{
    return args_has(a, id) ? (int64_t)(a->opt[id].real * 1000) : otherwise;
}

/* {KEY: JSON, ...}, of --custom. The library looks at it as a whole. */
static void set_custom(struct publication *p)
{
    const struct args *a = &p->c->args;
    struct json j;

    if (!args_has(a, OPT_CUSTOM))
        return;
    json_begin(&j, &p->custom, FORMAT_JSONL);
    json_open(&j, NULL, '{');
    for (size_t i = 0; i < a->pair_count; i++) {
        const char *equals = strchr(a->pairs[i].text, '=');
        char *name;

        if (a->pairs[i].id != OPT_CUSTOM)
            continue;
        name = cli_strndup(a->pairs[i].text, (size_t)(equals - a->pairs[i].text));
        json_raw(&j, name, equals + 1);
        free(name);
    }
    json_close(&j, '}');
}

/* ------------------------------------------------------------------ sharding by CEL ------------------------------- */

static bool is_routing_type(const char *type)
{
    uint64_t choice;

    return parse_choice("int|uint|double|bool|string|bytes", type, &choice);
}

/* NAME=TYPE, of --cel-column; without any, the key. 0, or 2 with a message. */
static int set_cel_columns(struct publication *p, sf_key_encoding encoding)
{
    static const char *const types[] = {"int", "int", "string", "bytes"};
    const struct args *a = &p->c->args;
    bool has_key = false;

    for (size_t i = 0; i < a->pair_count; i++) {
        const char *equals = strchr(a->pairs[i].text, '=');

        if (a->pairs[i].id != OPT_CEL_COLUMN)
            continue;
        if (!is_routing_type(equals + 1))
            return args_usage_error(a->command,
                                    "Invalid value for '--cel-column': '%s' is not one of int, uint, double, bool, "
                                    "string, bytes.",
                                    equals + 1);
        if (p->column_count == CEL_COLUMNS_MAX)
            return args_usage_error(a->command, "More than %d columns", CEL_COLUMNS_MAX);
        p->column_names[p->column_count] = cli_strndup(a->pairs[i].text, (size_t)(equals - a->pairs[i].text));
        p->columns[p->column_count].name = p->column_names[p->column_count];
        p->columns[p->column_count].type = equals + 1;
        has_key |= strcmp(p->columns[p->column_count++].name, "key") == 0;
    }
    if (p->column_count == 0) {
        p->columns[p->column_count++] = (sf_routing_column){"key", types[encoding]};
        has_key = true;
    }
    p->by_key_alone = has_key && p->column_count == 1;
    return 0;
}

/* --cel-value: integers when all of them are. */
static int set_cel_values(struct publication *p)
{
    const struct args *a = &p->c->args;
    bool integers = true;
    size_t n = 0;

    p->values = cli_alloc(a->pair_count, sizeof(*p->values));
    for (size_t i = 0; i < a->pair_count; i++) {
        if (a->pairs[i].id != OPT_CEL_VALUE)
            continue;
        integers &= cli_parse_routing_value("int", a->pairs[i].text, &p->values[n]);
        n++;
    }
    n = 0;
    for (size_t i = 0; i < a->pair_count && !integers; i++)
        if (a->pairs[i].id == OPT_CEL_VALUE)
            cli_parse_routing_value("string", a->pairs[i].text, &p->values[n++]);
    for (size_t i = 0; i < a->pair_count && integers; i++)
        n += a->pairs[i].id == OPT_CEL_VALUE;
    p->cel.values = p->values;
    p->cel.value_count = n;
    return 0;
}

static int set_cel(struct publication *p)
{
    const struct args *a = &p->c->args;
    int rc;

    if (!args_has(a, OPT_CEL)) {
        if (args_has(a, OPT_CEL_COLUMN) || args_has(a, OPT_CEL_MODE) || args_has(a, OPT_CEL_VALUE))
            return args_usage_error(a->command, "--cel-column, --cel-mode and --cel-value belong to --cel");
        return 0;
    }
    p->cel = (sf_cel_sharding)SF_CEL_SHARDING_INIT;
    p->cel.expr = a->opt[OPT_CEL].text;
    rc = set_cel_columns(p, (sf_key_encoding)number_or(a, OPT_KEY_ENCODING, SF_KEY_U64BE));
    if (rc == 0)
        rc = set_cel_values(p);
    p->cel.columns = p->columns;
    p->cel.column_count = p->column_count;
    p->cel.mode =
        (sf_routing_mode)number_or(a, OPT_CEL_MODE, p->cel.value_count > 0 ? SF_ROUTING_CATEGORICAL : SF_ROUTING_DIRECT);
    return rc;
}

/* What is looked at in each row. `key` among the columns of an expression is the key. */
static void set_wanted(struct publication *p)
{
    const struct args *a = &p->c->args;
    size_t n = 0;

    p->names = cli_alloc(a->pair_count + CEL_COLUMNS_MAX, sizeof(*p->names));
    for (size_t i = 0; i < a->pair_count; i++)
        if (a->pairs[i].id == OPT_VALUE)
            p->names[n++] = a->pairs[i].text;
    p->wanted = (struct rows_wanted){.key = a->opt[OPT_KEY].text,
                                     .values = p->names,
                                     .value_count = n,
                                     .as_json = args_has(a, OPT_VALUES),
                                     .columns = p->names + n};
    for (size_t i = 0; i < p->column_count && !p->by_key_alone; i++)
        p->names[n++] = strcmp(p->columns[i].name, "key") == 0 ? p->wanted.key : p->columns[i].name;
    p->wanted.column_count = n - p->wanted.value_count;
}

/* The library counts rows, people look at lines. */
static const char *without_row(const char *message)
{
    size_t digits = strncmp(message, "row ", 4) == 0 ? strspn(message + 4, "0123456789") : 0;

    return digits > 0 && strncmp(message + 4 + digits, ": ", 2) == 0 ? message + 6 + digits : message;
}

/* The library leaves it out; what becomes of that is seen behind the call. */
static bool note_refused(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why)
{
    struct publication *p = ctx;

    (void)number;
    (void)key;
    (void)value;
    snprintf(p->why, sizeof(p->why), "%s", without_row(why->message));
    p->refused = true;
    return true;
}

static void set_options(struct publication *p)
{
    const struct args *a = &p->c->args;
    const char *expect = a->opt[OPT_EXPECT].text;
    sf_writer_options *o = &p->options;

    *o = (sf_writer_options)SF_WRITER_OPTIONS_INIT;
    p->slatedb = (sf_slatedb_options)SF_SLATEDB_OPTIONS_INIT;
    p->slatedb.compression = (sf_compression)number_or(a, OPT_COMPRESSION, p->slatedb.compression);
    p->slatedb.block_bytes = (uint32_t)number_or(a, OPT_BLOCK_BYTES, p->slatedb.block_bytes);
    p->slatedb.bits_per_key = (uint32_t)number_or(a, OPT_BITS_PER_KEY, p->slatedb.bits_per_key);
    p->slatedb.min_filter_keys = (uint32_t)number_or(a, OPT_MIN_FILTER_KEYS, p->slatedb.min_filter_keys);
    p->slatedb.sst_bytes = number_or(a, OPT_SST_BYTES, p->slatedb.sst_bytes);
    p->sqlite = (sf_sqlite_options)SF_SQLITE_OPTIONS_INIT;
    p->sqlite.page_bytes = (uint32_t)number_or(a, OPT_PAGE_BYTES, p->sqlite.page_bytes);
    p->sqlite.sidecar = !args_has(a, OPT_NO_SIDECAR);
    o->s3 = &p->c->settings.s3;
    o->current_name = p->c->current_name;
    o->manifests = p->c->postgres ? &p->c->store : NULL;
    o->request_timeout_ms = p->c->settings.timeout_ms;
    o->writer_type = "shardy";
    o->key_col = p->wanted.key;
    o->run_id = a->opt[OPT_RUN_ID].text;
    o->num_dbs = (uint32_t)a->opt[OPT_NUM_DBS].number; /* 0 when it is not given */
    o->custom_json = p->custom.n > 0 ? text_str(&p->custom) : NULL;
    o->cel = p->cel.expr ? &p->cel : NULL;
    o->int64_keys = args_has(a, OPT_INT64_KEYS);
    o->key_encoding = (sf_key_encoding)number_or(a, OPT_KEY_ENCODING, SF_KEY_U64BE);
    o->backend = (sf_backend)number_or(a, OPT_BACKEND, SF_BACKEND_SLATEDB);
    o->slatedb = &p->slatedb;
    o->sqlite = &p->sqlite;
    o->on_duplicate = (sf_duplicates)number_or(a, OPT_ON_DUPLICATE, SF_DUPLICATES_LAST);
    o->memory_bytes = number_or(a, OPT_MEMORY_BYTES, o->memory_bytes);
    o->spill_folder = a->opt[OPT_SPILL_FOLDER].text;
    o->threads = (uint32_t)number_or(a, OPT_JOBS, 0);
    o->max_retries = (uint32_t)number_or(a, OPT_MAX_RETRIES, o->max_retries);
    o->retry_base_ms = milliseconds_or(a, OPT_RETRY_SECONDS, o->retry_base_ms);
    if (args_has(a, OPT_RETRY_MULTIPLIER))
        o->retry_multiplier = a->opt[OPT_RETRY_MULTIPLIER].real;
    o->resume = args_has(a, OPT_RESUME);
    o->reuse_unchanged = args_has(a, OPT_REUSE_UNCHANGED);
    o->keep_losers = args_has(a, OPT_KEEP_LOSERS);
    o->shard_prefix = text_or(a, OPT_SHARD_PREFIX, o->shard_prefix);
    o->db_path_template = text_or(a, OPT_DB_PATH_TEMPLATE, o->db_path_template);
    o->run_registry_prefix = args_has(a, OPT_NO_RUN_RECORD) ? NULL : text_or(a, OPT_RUN_REGISTRY, o->run_registry_prefix);
    o->lease_ms = (int64_t)number_or(a, OPT_LEASE_SECONDS, (uint64_t)o->lease_ms / 1000) * 1000;
    o->heartbeat_ms = (int64_t)number_or(a, OPT_HEARTBEAT_SECONDS, (uint64_t)o->heartbeat_ms / 1000) * 1000;
    o->max_empty_shards = (uint32_t)number_or(a, OPT_MAX_EMPTY_SHARDS, o->max_empty_shards);
    o->min_rows_share = (double)number_or(a, OPT_MIN_ROWS_PERCENT, 0) / 100;
    o->max_rows_share = (double)number_or(a, OPT_MAX_ROWS_PERCENT, 0) / 100;
    o->sample_keys = (uint32_t)number_or(a, OPT_SAMPLE_KEYS, 0);
    if (expect && strcmp(expect, "any") != 0) {
        o->expected_current = strcmp(expect, "absent") == 0 ? SF_EXPECT_ABSENT : SF_EXPECT_REF;
        o->expected_ref = o->expected_current == SF_EXPECT_REF ? expect : NULL;
    }
    o->on_bad_row = note_refused;
    o->on_bad_row_ctx = p;
    o->progress = on_progress;
    o->progress_ctx = &p->progress;
    o->progress_interval_ms = 200;
}

/* By --input-format, else by what the file's name ends with. False: neither tells. */
static bool find_format(struct publication *p, const char *path)
{
    const struct given *told = &p->c->args.opt[OPT_INPUT_FORMAT];
    const char *dot = strrchr(path, '.');

    if (told->text) {
        p->format = (enum rows_format)told->number;
        return true;
    }
    p->format = ROWS_JSONL;
    if (dot && strcasecmp(dot, ".csv") == 0)
        p->format = ROWS_CSV;
    else if (dot && (strcasecmp(dot, ".parquet") == 0 || strcasecmp(dot, ".pq") == 0))
        p->format = ROWS_PARQUET;
    return p->format != ROWS_JSONL || (dot && (strcasecmp(dot, ".jsonl") == 0 || strcasecmp(dot, ".ndjson") == 0));
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

/* Whether a file, by whatever name, is what the rows come from. */
static bool is_input(const char *input, const char *file)
{
    struct stat x, y;
    bool known = strcmp(input, "-") == 0 ? fstat(STDIN_FILENO, &x) == 0 : stat(input, &x) == 0;

    return known && S_ISREG(x.st_mode) && stat(file, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int fail_rejects(struct publication *p)
{
    return cli_fail(p->c, "publish", NULL, "%s: %s", p->c->args.opt[OPT_REJECTS].text, strerror(errno));
}

static int fail_row(struct publication *p, const char *why)
{
    return cli_fail(p->c, "publish", NULL, "%s, %s %" PRIu64 ": %s", p->rows.name, p->rows.unit, p->rows.line, why);
}

/* {"line": 3, "reason": "..."} to the file of rejects, if there is one. 0, or 1 with the failure said. */
static int write_reject(struct publication *p, const char *why)
{
    struct text line = {0};
    struct json j;
    bool good = true;

    if (p->rejects) {
        json_begin(&j, &line, FORMAT_JSONL);
        json_open(&j, NULL, '{');
        json_uint(&j, p->rows.unit, p->rows.line);
        json_text(&j, "reason", why);
        json_close(&j, '}');
        text_putc(&line, '\n');
        good = fwrite(line.p, 1, line.n, p->rejects) == line.n;
    }
    text_free(&line);
    return good ? 0 : fail_rejects(p);
}

/* The present row cannot be published: 0 when it is left out, else 1 with the failure said. */
static int bad_row(struct publication *p, const char *why)
{
    if (!p->skips)
        return fail_row(p, why);
    if (p->bad_rows++ == 0)
        cli_warn(p->c, "rows are left out, the first of them at %s, %s %" PRIu64 ": %s", p->rows.name, p->rows.unit,
                 p->rows.line, why);
    return write_reject(p, why);
}

/* --value-encoding tells how values stand in the file. */
static bool decode_value(const struct publication *p, struct text *scratch, sf_bytes *value)
{
    const struct settings *s = &p->c->settings;

    scratch->n = 0;
    if (p->wanted.value_count != 1 || p->wanted.as_json || p->rows.binary[1] ||
        !args_has(p->c->line, OPT_VALUE_ENCODING) || s->encoding == ENCODE_UTF8 || s->encoding == ENCODE_AUTO)
        return true;
    if (!(s->encoding == ENCODE_HEX ? text_unhex(scratch, *value) : text_unbase64(scratch, *value)))
        return false;
    *value = (sf_bytes){(const uint8_t *)scratch->p, scratch->n};
    return true;
}

static bool parse_hex(sf_bytes text, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.n; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = text.p[i] >= '0' ? strchr(digits, text.p[i] | 0x20) : NULL;

        if (!at || *out >> 60 != 0)
            return false;
        *out = *out << 4 | (uint64_t)(at - digits);
    }
    return text.n > 0;
}

/* Why not, or NULL. `scratch` keeps what the key borrows. */
static const char *parse_key(struct publication *p, struct text *scratch, sf_key *key)
{
    enum { KEY_TEXT, KEY_HEX, KEY_BASE64 };
    const struct text *t = &p->rows.key;
    sf_key_encoding encoding = p->options.key_encoding;
    sf_bytes b = {(const uint8_t *)t->p, t->n};
    uint64_t v;

    if (encoding == SF_KEY_U64BE || encoding == SF_KEY_U32BE) {
        if (strlen(text_str(t)) != t->n ||
            !(p->key_format == KEY_HEX ? parse_hex(b, &v) : parse_uint(text_str(t), 0, UINT64_MAX, &v))) {
            snprintf(
                p->why, sizeof(p->why),
                "the key '%.100s' is no %s number from 0 to %s; keys of other kinds need another --key-encoding, such as utf8",
                text_str(t), p->key_format == KEY_HEX ? "hexadecimal" : "whole",
                encoding == SF_KEY_U64BE ? "2^64-1" : "2^32-1");
            return p->why;
        }
        *key = sf_key_uint(v);
        return NULL;
    }
    scratch->n = 0;
    if (p->key_format != KEY_TEXT) {
        if (!(p->key_format == KEY_HEX ? text_unhex(scratch, b) : text_unbase64(scratch, b)))
            return "the key is not what --key-format says";
        b = (sf_bytes){(const uint8_t *)scratch->p, scratch->n};
    }
    *key = encoding == SF_KEY_UTF8 ? sf_key_str((const char *)b.p, b.n) : sf_key_bytes(b.p, b.n);
    return NULL;
}

/* The columns of the expression in the present row. Why not, or NULL. */
static const char *read_context(struct publication *p, sf_routing_value *values, sf_routing_context *context)
{
    size_t n = 0;

    for (size_t i = 0; i < p->wanted.column_count; i++) {
        struct text *t = &p->column_texts[i];
        int rc;

        t->n = 0;
        rc = rows_column(&p->rows, i, t);
        if (rc < 0)
            return p->rows.reason;
        if (rc == 0)
            continue;
        if (strlen(text_str(t)) != t->n || !cli_parse_routing_value(p->columns[i].type, text_str(t), &values[n])) {
            snprintf(p->why, sizeof(p->why), "'%.100s' is no %s, of which column '%.100s' is", text_str(t),
                     p->columns[i].type, p->columns[i].name);
            return p->why;
        }
        values[n++].column = p->columns[i].name;
    }
    *context = (sf_routing_context){values, n};
    return NULL;
}

static int add_row(struct publication *p, sf_writer *w, struct text scratch[2])
{
    sf_bytes value = {(const uint8_t *)p->rows.value.p, p->rows.value.n};
    sf_routing_value values[CEL_COLUMNS_MAX] = {0};
    sf_error e = SF_ERROR_INIT;
    sf_routing_context context;
    const char *why;
    sf_key key;

    text_add(&p->rows.key, "", 0);
    why = parse_key(p, &scratch[0], &key);
    if (!why && !decode_value(p, &scratch[1], &value))
        why = "the value is not what --value-encoding says";
    if (!why && p->wanted.column_count > 0) {
        why = read_context(p, values, &context);
        key.context = &context;
    }
    if (why)
        return bad_row(p, why);
    p->refused = false;
    if (sf_writer_add(w, &key, value, &e) != SF_OK)
        return fail_row(p, without_row(e.message));
    return p->refused ? bad_row(p, p->why) : 0;
}

static int add_rows(struct publication *p, sf_writer *w)
{
    struct text scratch[2] = {{0}};
    int rc = 0, more;

    while (rc == 0 && (more = rows_next(&p->rows)) != 0) {
        if (stopped) /* which may have cut short the reading as well */
            rc = cli_fail(p->c, "publish", NULL, "it was stopped; nothing was published");
        else if (more < 0)
            rc = p->rows.broken ? cli_fail(p->c, "publish", NULL, "%s", p->rows.why) : bad_row(p, p->rows.reason);
        else
            rc = add_row(p, w, scratch);
    }
    text_free(&scratch[0]);
    text_free(&scratch[1]);
    if (rc == 0 && p->rejects && fflush(p->rejects) != 0)
        rc = fail_rejects(p);
    return rc;
}

/* ------------------------------------------------------------------ all of it ------------------------------------- */

static void print_report(struct cli *c, const sf_write_report *r, uint64_t bad_rows)
{
    static const struct column columns[] = {{"run_id"},     {"manifest_ref"}, {"num_dbs"},      {"row_count"},
                                            {"duplicates"}, {"bytes"},        {"empty_shards"}, {"reused_shards"},
                                            {"bad_rows"},   {"seconds"}};

    out_record(&c->out, "publish", columns, sizeof(columns) / sizeof(columns[0]),
               (struct cell[]){{.kind = CELL_TEXT, .text = r->run_id},
                               {.kind = CELL_TEXT, .text = r->manifest_ref},
                               {.kind = CELL_UINT, .number = r->num_dbs},
                               {.kind = CELL_UINT, .number = r->published_rows},
                               {.kind = CELL_UINT, .number = r->published_duplicates},
                               {.kind = CELL_SIZE, .number = r->published_bytes},
                               {.kind = CELL_UINT, .number = r->num_dbs - r->winner_count},
                               {.kind = CELL_UINT, .number = r->reused_shards},
                               {.kind = CELL_UINT, .number = bad_rows},
                               {.kind = CELL_SECONDS, .seconds = (double)r->total_ms / 1000}},
               NULL);
    if (r->warning)
        cli_warn(c, "%s", r->warning);
}

static int publish(struct publication *p)
{
    sf_error e = SF_ERROR_INIT;
    sf_writer *w;
    int rc;

    if (p->c->postgres && !p->c->settings.keep_tables && sf_postgres_create_tables(p->c->postgres, &e) != SF_OK)
        return cli_fail_with(p->c, "publish", NULL, &e);
    if (sf_writer_open(&w, p->c->rt, p->prefix, &p->options, &e) != SF_OK)
        return cli_fail_with(p->c, "publish", NULL, &e);
    rc = add_rows(p, w);
    if (rc == 0 && sf_writer_finish(w, &e) != SF_OK)
        rc = cli_fail_with(p->c, "publish", NULL, &e);
    else if (rc != 0)
        sf_writer_abort(w, "BadInput", "the rows to be published could not be read");
    progress_end();
    if (rc == 0)
        print_report(p->c, sf_writer_report(w), p->bad_rows);
    sf_writer_free(w);
    return rc;
}

static void release(struct publication *p)
{
    rows_close(&p->rows);
    for (size_t i = 0; i < p->column_count; i++) {
        free(p->column_names[i]);
        text_free(&p->column_texts[i]);
    }
    if (p->rejects)
        fclose(p->rejects);
    free(p->values);
    free((void *)p->names);
    text_free(&p->custom);
}

static int run(struct publication *p, const char *path)
{
    struct sigaction stop = {.sa_handler = on_signal}, interrupt, terminate;
    const struct args *a = &p->c->args;
    int rc;

    set_custom(p);
    set_wanted(p);
    set_options(p);
    p->progress.shows = progress_is_wanted(&p->c->settings);
    if (!rows_open(&p->rows, path, p->format, &p->wanted))
        return cli_fail(p->c, "publish", NULL, "%s", p->rows.why);
    if (args_has(a, OPT_REJECTS) && is_input(path, a->opt[OPT_REJECTS].text))
        return cli_fail(p->c, "publish", NULL, "%s holds the rows: it would be emptied for those that are left out",
                        a->opt[OPT_REJECTS].text);
    if (args_has(a, OPT_REJECTS) && !(p->rejects = fopen(a->opt[OPT_REJECTS].text, "we")))
        return fail_rejects(p);
    stopped = 0;
    sigaction(SIGINT, &stop, &interrupt);
    sigaction(SIGTERM, &stop, &terminate);
    rc = publish(p);
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGTERM, &terminate, NULL);
    return rc;
}

int cmd_publish(struct cli *c)
{
    const struct args *a = &c->args;
    struct publication p = {.c = c, .key_format = number_or(a, OPT_KEY_FORMAT, 0)};
    int rc;

    if (!args_has(a, OPT_KEY))
        return args_usage_error(a->command, "Missing option --key, the column of keys");
    if (!args_has(a, OPT_VALUE) && !args_has(a, OPT_VALUES))
        return args_usage_error(a->command,
                                "Missing option --value, the column of values, or --values json for all of them");
    if (!args_has(a, OPT_NUM_DBS) && !args_has(a, OPT_CEL))
        return args_usage_error(a->command, "Missing option --num-dbs, the number of shards, or --cel, a rule");
    if (p.key_format == 2 && number_or(a, OPT_KEY_ENCODING, SF_KEY_U64BE) <= SF_KEY_U32BE)
        return args_usage_error(a->command, "Integers do not stand in base64: --key-encoding tells what keys are");
    if (!find_format(&p, a->words[0]))
        return args_usage_error(
            a->command, "The name of the file does not tell its format: give --input-format csv, jsonl or parquet");
    if (args_has(a, OPT_RESUME) && !args_has(a, OPT_RUN_ID))
        return args_usage_error(a->command, "--resume needs --run-id, of the run that goes on");
    p.skips = number_or(a, OPT_ON_BAD_ROW, 0) > 0;
    if (args_has(a, OPT_REJECTS) && !p.skips)
        return args_usage_error(a->command, "--rejects needs --on-bad-row skip");
    rc = set_cel(&p);
    if (rc == 0) {
        p.prefix = session_prefix(c, "publish");
        rc = p.prefix ? run(&p, a->words[0]) : 1;
    }
    release(&p);
    return rc;
}
