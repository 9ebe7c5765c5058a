/* publish: a snapshot of the rows of a file. */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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
    static const char *const phases[] = {"adding",     "building",    "checking",
                                         "publishing", "cleaning up", "done"};
    struct publish_progress *show = ctx;

    if (show->shows)
        fprintf(stderr, "\r\033[Kpublish: %s, %" PRIu64 " rows added, %u of %u shards stored",
                phases[p->phase], p->rows_added, p->shards_done, p->shards_total);
    return !stopped;
}

/* ------------------------------------------------------------------ options --------------------------------------- */

struct publication {
    struct cli *c;
    sf_writer_options options;
    sf_slatedb_options slatedb;
    struct rows rows;
    struct rows_wanted wanted;
    enum rows_format format;
    struct publish_progress progress;
};

static uint64_t number_or(const struct args *a, enum option_id id, uint64_t otherwise)
{
    return args_has(a, id) ? a->opt[id].number : otherwise;
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
    o->s3 = &p->c->settings.s3;
    o->current_name = p->c->current_name;
    o->request_timeout_ms = p->c->settings.timeout_ms;
    o->writer_type = "shardy";
    o->key_col = p->wanted.key;
    o->run_id = a->opt[OPT_RUN_ID].text;
    o->num_dbs = (uint32_t)a->opt[OPT_NUM_DBS].number;
    o->key_encoding = (sf_key_encoding)number_or(a, OPT_KEY_ENCODING, SF_KEY_U64BE);
    o->backend = (sf_backend)number_or(a, OPT_BACKEND, SF_BACKEND_SLATEDB);
    o->slatedb = &p->slatedb;
    o->on_duplicate = (sf_duplicates)number_or(a, OPT_ON_DUPLICATE, SF_DUPLICATES_LAST);
    o->memory_bytes = number_or(a, OPT_MEMORY_BYTES, o->memory_bytes);
    o->spill_folder = a->opt[OPT_SPILL_FOLDER].text;
    o->threads = (uint32_t)number_or(a, OPT_JOBS, 0);
    o->max_retries = (uint32_t)number_or(a, OPT_MAX_RETRIES, o->max_retries);
    o->min_rows_share = (double)number_or(a, OPT_MIN_ROWS_PERCENT, 0) / 100;
    o->max_rows_share = (double)number_or(a, OPT_MAX_ROWS_PERCENT, 0) / 100;
    o->sample_keys = (uint32_t)number_or(a, OPT_SAMPLE_KEYS, 0);
    if (expect && strcmp(expect, "any") != 0) {
        o->expected_current = strcmp(expect, "absent") == 0 ? SF_EXPECT_ABSENT : SF_EXPECT_REF;
        o->expected_ref = o->expected_current == SF_EXPECT_REF ? expect : NULL;
    }
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
    p->format = dot && strcasecmp(dot, ".csv") == 0 ? ROWS_CSV : ROWS_JSONL;
    return p->format == ROWS_CSV ||
           (dot && (strcasecmp(dot, ".jsonl") == 0 || strcasecmp(dot, ".ndjson") == 0));
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

static int fail_row(struct publication *p, const char *why)
{
    return cli_fail(p->c, "publish", NULL, "%s, line %" PRIu64 ": %s", p->rows.name, p->rows.line, why);
}

/* --value-encoding tells how values stand in the file. */
static bool decode_value(const struct publication *p, struct text *scratch, sf_bytes *value)
{
    const struct settings *s = &p->c->settings;

    scratch->n = 0;
    if (!p->wanted.value || !args_has(p->c->line, OPT_VALUE_ENCODING) || s->encoding == ENCODE_UTF8 ||
        s->encoding == ENCODE_AUTO)
        return true;
    if (!(s->encoding == ENCODE_HEX ? text_unhex(scratch, *value) : text_unbase64(scratch, *value)))
        return false;
    *value = (sf_bytes){(const uint8_t *)scratch->p, scratch->n};
    return true;
}

static bool parse_key(const struct publication *p, sf_key *key)
{
    const struct text *t = &p->rows.key;
    sf_key_encoding encoding = p->options.key_encoding;
    uint64_t v;

    if (encoding == SF_KEY_UTF8 || encoding == SF_KEY_RAW) {
        *key = encoding == SF_KEY_UTF8 ? sf_key_str(text_str(t), t->n) : sf_key_bytes(text_str(t), t->n);
        return true;
    }
    if (strlen(text_str(t)) != t->n || !parse_uint(text_str(t), 0, UINT64_MAX, &v))
        return false;
    *key = sf_key_uint(v);
    return true;
}

static int add_rows(struct publication *p, sf_writer *w)
{
    struct text scratch = {0};
    sf_error e = SF_ERROR_INIT;
    int rc = 0, more;

    while (rc == 0 && (more = rows_next(&p->rows)) != 0) {
        sf_bytes value = {(const uint8_t *)p->rows.value.p, p->rows.value.n};
        sf_key key;

        text_add(&p->rows.key, "", 0);
        if (stopped) /* which may have cut short the reading as well */
            rc = cli_fail(p->c, "publish", NULL, "it was stopped; nothing was published");
        else if (more < 0)
            rc = cli_fail(p->c, "publish", NULL, "%s", p->rows.why);
        else if (!parse_key(p, &key))
            rc = fail_row(p, "the key is not a whole number from 0, which --key-encoding asks for");
        else if (!decode_value(p, &scratch, &value))
            rc = fail_row(p, "the value is not what --value-encoding says");
        else if (sf_writer_add(w, &key, value, &e) != SF_OK)
            rc = fail_row(p, e.message);
    }
    text_free(&scratch);
    return rc;
}

/* ------------------------------------------------------------------ all of it ------------------------------------- */

static void print_report(struct cli *c, const sf_write_report *r)
{
    static const struct column columns[] = {{"run_id"},     {"manifest_ref"}, {"num_dbs"},      {"row_count"},
                                            {"duplicates"}, {"bytes"},        {"empty_shards"}, {"seconds"}};

    out_record(&c->out, "publish", columns, 8,
               (struct cell[]){{.kind = CELL_TEXT, .text = r->run_id},
                               {.kind = CELL_TEXT, .text = r->manifest_ref},
                               {.kind = CELL_UINT, .number = r->num_dbs},
                               {.kind = CELL_UINT, .number = r->published_rows},
                               {.kind = CELL_UINT, .number = r->published_duplicates},
                               {.kind = CELL_SIZE, .number = r->published_bytes},
                               {.kind = CELL_UINT, .number = r->num_dbs - r->winner_count},
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

    if (sf_writer_open(&w, p->c->rt, p->c->prefix, &p->options, &e) != SF_OK)
        return cli_fail_with(p->c, "publish", NULL, &e);
    rc = add_rows(p, w);
    if (rc == 0 && sf_writer_finish(w, &e) != SF_OK)
        rc = cli_fail_with(p->c, "publish", NULL, &e);
    else if (rc != 0)
        sf_writer_abort(w, "BadInput", "the rows to be published could not be read");
    if (p->progress.shows)
        fputs("\r\033[K", stderr);
    if (rc == 0)
        print_report(p->c, sf_writer_report(w));
    sf_writer_free(w);
    return rc;
}

int cmd_publish(struct cli *c)
{
    const struct args *a = &c->args;
    struct publication p = {.c = c, .wanted = {a->opt[OPT_KEY].text, a->opt[OPT_VALUE].text}};
    struct sigaction stop = {.sa_handler = on_signal}, interrupt, terminate;
    int rc;

    if (!args_has(a, OPT_KEY) || !args_has(a, OPT_NUM_DBS))
        return args_usage_error(a->command, "--key and --num-dbs are required");
    if (args_has(a, OPT_VALUE) + args_has(a, OPT_VALUES) != 1)
        return args_usage_error(a->command, "Exactly one of --value and --values is required");
    if (!find_format(&p, a->words[0]))
        return args_usage_error(a->command,
                                "The name of the file does not tell its format: give --input-format");
    if (!session_has_prefix(c, "publish") || !session_locate(c))
        return 1;
    set_options(&p);
    p.progress.shows = !c->settings.quiet && isatty(STDERR_FILENO);
    if (!rows_open(&p.rows, a->words[0], p.format, &p.wanted)) {
        rc = cli_fail(c, "publish", NULL, "%s", p.rows.why);
    } else {
        stopped = 0;
        sigaction(SIGINT, &stop, &interrupt);
        sigaction(SIGTERM, &stop, &terminate);
        rc = publish(&p);
        sigaction(SIGINT, &interrupt, NULL);
        sigaction(SIGTERM, &terminate, NULL);
    }
    rows_close(&p.rows);
    return rc;
}
