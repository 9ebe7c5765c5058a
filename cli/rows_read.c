#include "rows_read.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json_read.h"

/* A row that is longer is none: somewhere a quote is missing. */
#define ROW_BYTES_MAX ((size_t)1 << 30)

static sf_bytes bytes_of(const struct text *t)
{
    return (sf_bytes){(const uint8_t *)t->p, t->n};
}

static void say(struct rows *r, const char *fmt, va_list args)
{
    size_t n = (size_t)snprintf(r->why, sizeof(r->why), "%s, %s %" PRIu64 ": ", r->name, r->unit, r->line);

    n = n < sizeof(r->why) ? n : sizeof(r->why) - 1;
    r->reason = r->why + n;
    vsnprintf(r->why + n, sizeof(r->why) - n, fmt, args);
}

/* Of the row. */
static int fail(struct rows *r, const char *fmt, ...) SF_PRINTF(2, 3);
static int fail(struct rows *r, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(r, fmt, args);
    va_end(args);
    return -1;
}

/* Of all that follows: where the next row begins cannot be told, or it cannot be read. */
static int fail_for_good(struct rows *r, const char *fmt, ...) SF_PRINTF(2, 3);
static int fail_for_good(struct rows *r, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(r, fmt, args);
    va_end(args);
    r->broken = true;
    return -1;
}

/* ------------------------------------------------------------------ CSV ------------------------------------------- */

static void field_end(struct rows *r)
{
    if (r->count == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 16;
        r->ends = cli_realloc(r->ends, r->cap, sizeof(*r->ends));
    }
    r->ends[r->count++] = r->record.n;
}

static sf_bytes field(const struct text *all, const size_t *ends, size_t i)
{
    size_t from = i > 0 ? ends[i - 1] : 0;

    return (sf_bytes){(const uint8_t *)all->p + from, ends[i] - from};
}

static int next_char(struct rows *r)
{
    int c = getc_unlocked(r->from);

    r->next_line += c == '\n';
    return c;
}

/* The rest of a field that began with a quote; what stands behind it, or -2 with `why`. */
static int quoted(struct rows *r)
{
    for (;;) {
        int c = next_char(r);

        if (c == EOF)
            return fail_for_good(r, "a quoted field does not end"), -2;
        if (c == '"') {
            c = next_char(r);
            if (c != '"')
                return c;
        }
        text_putc(&r->record, (char)c);
        if (r->record.n > ROW_BYTES_MAX)
            return fail_for_good(r, "the row is too long: is a quote missing?"), -2;
    }
}

/* One record as RFC 4180 has it; lines without anything are skipped. As rows_next(). */
static int csv_record(struct rows *r)
{
    int c;

    do {
        r->line = r->next_line;
        c = next_char(r);
    } while (c == '\n' || c == '\r');
    r->record.n = r->count = 0;
    if (c == EOF)
        return ferror(r->from) ? fail_for_good(r, "%s", strerror(errno)) : 0;
    for (;;) {
        if (c == '"') {
            c = quoted(r);
            if (c == -2)
                return -1;
            if (c != ',' && c != '\n' && c != '\r' && c != EOF)
                return fail_for_good(r, "something stands behind the quote of field %zu", r->count + 1);
        }
        while (c != ',' && c != '\n' && c != '\r' && c != EOF) {
            if (c == '"')
                return fail_for_good(r, "field %zu has a quote in the middle", r->count + 1);
            text_putc(&r->record, (char)c);
            if (r->record.n > ROW_BYTES_MAX)
                return fail_for_good(r, "the row is too long");
            c = next_char(r);
        }
        field_end(r);
        if (c == '\r') {
            c = next_char(r);
            if (c != '\n' && c != EOF)
                return fail_for_good(r, "a carriage return stands alone");
        }
        if (c != ',')
            return c == EOF && ferror(r->from) ? fail_for_good(r, "%s", strerror(errno)) : 1;
        c = next_char(r);
    }
}

/* Names of columns are told up to so many bytes. */
#define NAMES_TOLD_MAX 200

static bool column_find(struct rows *r, const char *name, size_t *at)
{
    struct text there = {0};

    for (size_t i = 0; i < r->header_count; i++) {
        sf_bytes f = field(&r->header, r->header_ends, i);

        if (f.n == strlen(name) && memcmp(f.p, name, f.n) == 0) {
            text_free(&there);
            *at = i;
            return true;
        }
        text_puts(&there, i > 0 ? ", '" : "'");
        text_add(&there, f.p, f.n);
        text_putc(&there, '\'');
    }
    fail(r, "there is no column '%s' among %.*s%s", name, NAMES_TOLD_MAX, text_str(&there),
         there.n > NAMES_TOLD_MAX ? "..." : "");
    text_free(&there);
    return false;
}

/* Before anything else: a quote may stand behind it. */
static void skip_byte_order_mark(struct rows *r)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf};
    size_t n = 0;
    int c = 0;

    while (n < sizeof(mark) && (c = getc_unlocked(r->from)) == mark[n])
        n++;
    if (n == sizeof(mark))
        return;
    ungetc(c, r->from);
    while (n > 0)
        ungetc(mark[--n], r->from);
}

static bool csv_header(struct rows *r)
{
    int rc;

    skip_byte_order_mark(r);
    rc = csv_record(r);
    if (rc == 0)
        fail(r, "there is no line with the names of the columns");
    if (rc != 1)
        return false;
    r->header = r->record;
    r->header_ends = r->ends;
    r->header_count = r->count;
    r->record = (struct text){0};
    r->ends = NULL;
    r->cap = r->count = 0;
    for (size_t i = 0; i < r->name_count; i++)
        if (!column_find(r, r->names[i], &r->at[i]))
            return false;
    return true;
}

/* As JSON; false: it is no UTF-8. */
static bool add_string(struct text *to, sf_bytes b)
{
    struct text utf8 = {0};
    bool same;

    text_utf8(&utf8, b);
    same = utf8.n == b.n && (b.n == 0 || memcmp(utf8.p, b.p, b.n) == 0);
    text_free(&utf8);
    text_putc(to, '"');
    for (size_t i = 0; same && i < b.n; i++) {
        if (b.p[i] < 0x20)
            text_printf(to, "\\u%04x", b.p[i]);
        else if (b.p[i] == '"' || b.p[i] == '\\')
            text_printf(to, "\\%c", b.p[i]);
        else
            text_putc(to, (char)b.p[i]);
    }
    text_putc(to, '"');
    return same;
}

static int csv_row(struct rows *r)
{
    int rc = csv_record(r);

    if (rc != 1)
        return rc;
    if (r->count != r->header_count)
        return fail(r, "%zu fields, there are %zu columns", r->count, r->header_count);
    for (size_t i = 0; i < r->name_count; i++)
        r->found[i] = field(&r->record, r->ends, r->at[i]);
    return 1;
}

static int csv_whole_row(struct rows *r)
{
    for (size_t i = 0; i < r->count; i++) {
        text_puts(&r->value, i > 0 ? ", " : "{");
        if (!add_string(&r->value, field(&r->header, r->header_ends, i)))
            return fail(r, "the name of column %zu is no UTF-8", i + 1);
        text_puts(&r->value, ": ");
        if (!add_string(&r->value, field(&r->record, r->ends, i)))
            return fail(r, "field %zu is no UTF-8", i + 1);
    }
    text_putc(&r->value, '}');
    return 1;
}

/* ------------------------------------------------------------------ JSON lines ------------------------------------ */

/* A string as it is meant, other JSON as it stands there. */
static bool add_plain(struct text *to, sf_bytes json)
{
    if (json.n > 0 && json.p[0] == '"')
        return json_unquote(to, json, false);
    text_add(to, json.p, json.n);
    return true;
}

static bool is_null(sf_bytes json)
{
    return json.n == 0 || (json.n == 4 && memcmp(json.p, "null", 4) == 0);
}

static int jsonl_line(struct rows *r)
{
    int c;

    do { /* blank lines are none */
        r->line = r->next_line;
        r->record.n = 0;
        while ((c = next_char(r)) != '\n' && c != EOF) {
            if (r->record.n > 0 || !memchr(" \t\r", c, 3))
                text_putc(&r->record, (char)c);
            if (r->record.n > ROW_BYTES_MAX)
                return fail_for_good(r, "the line is too long");
        }
        while (r->record.n > 0 && memchr(" \t\r", r->record.p[r->record.n - 1], 3))
            r->record.n--;
    } while (r->record.n == 0 && c != EOF);
    if (c == EOF && ferror(r->from))
        return fail_for_good(r, "%s", strerror(errno));
    return r->record.n > 0;
}

static int jsonl_row(struct rows *r)
{
    struct text name = {0};
    struct json_cursor at;
    struct json_member m;
    int rc = jsonl_line(r), more = 0;

    if (rc != 1)
        return rc;
    if (r->reader && r->record.p[0] == '!') {
        snprintf(r->why, sizeof(r->why), "%s: %.*s", r->name, (int)(r->record.n - 1), r->record.p + 1);
        r->broken = true;
        return -1;
    }
    for (size_t i = 0; i < r->name_count; i++)
        r->found[i] = (sf_bytes){NULL, 0};
    at = (struct json_cursor){r->record.p, r->record.p + r->record.n, false};
    while (rc == 1 && (more = json_next(&at, &m)) == 1) {
        name.n = 0;
        if (!json_unquote(&name, m.name, true))
            rc = -1;
        for (size_t i = 0; rc == 1 && i < r->name_count; i++)
            if (strcmp(text_str(&name), r->names[i]) == 0)
                r->found[i] = m.value;
    }
    text_free(&name);
    return rc == 1 && more == 0 ? 1 : fail(r, "it is no JSON object");
}

/* ------------------------------------------------------------------ Parquet --------------------------------------- */

/* Nothing more comes: because all was read, or because the reader has ended before. */
static int parquet_end(struct rows *r)
{
    int status;

    if (waitpid(r->reader, &status, 0) != r->reader)
        status = -1;
    r->reader = 0;
    return status == 0 ? 0
                       : fail_for_good(r, "the reader of Parquet files ended before all was read; it takes a Python with "
                                          "shardyfusion and pyarrow, which SHARDY_PYTHON names");
}

/* {"binary": {COLUMN: true, ...}}: what the reader of Parquet says before the first row. */
static bool parquet_header(struct rows *r)
{
    struct json_cursor at;
    struct json_member m;
    sf_bytes columns;
    int rc = jsonl_row(r);

    if (rc == 0)
        rc = parquet_end(r);
    if (rc < 0)
        return false;
    columns = rc == 1 ? json_member(bytes_of(&r->record), "binary") : (sf_bytes){NULL, 0};
    at = (struct json_cursor){(const char *)columns.p, (const char *)columns.p + columns.n, false};
    while (columns.n > 0 && json_next(&at, &m) == 1) {
        struct text name = {0};

        json_unquote(&name, m.name, true);
        for (size_t i = 0; i < r->name_count; i++)
            r->binary[i] |= strcmp(text_str(&name), r->names[i]) == 0;
        if (r->wanted.value_count == 0)
            snprintf(r->why, sizeof(r->why), "%s: '%.100s' is binary, which JSON has no form for: name others by --value",
                     r->name, text_str(&name));
        text_free(&name);
    }
    r->next_line = 1;
    if (columns.n == 0)
        fail(r, "the reader of Parquet files cannot be understood");
    return !r->why[0];
}

static bool parquet_open(struct rows *r, const char *path)
{
    const char *python = getenv("SHARDY_PYTHON");
    const char **line = cli_alloc(r->name_count + 6, sizeof(*line));
    posix_spawn_file_actions_t actions;
    int ends[2] = {-1, -1}, error;
    size_t n = 0;

    python = python && *python ? python : "python3";
    line[n++] = python;
    line[n++] = "-m";
    line[n++] = "shardyfusion.cli.parquet";
    line[n++] = path;
    for (size_t i = 0; r->wanted.value_count > 0 && i < r->name_count; i++) /* else all columns */
        line[n++] = r->names[i];
    error = pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno;
    if (error == 0) {
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        error = posix_spawnp(&r->reader, python, &actions, NULL, (char *const *)line, environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        r->from = fdopen(ends[0], "r");
        if (!r->from) { /* the program's next write ends it */
            error = error == 0 ? errno : error;
            close(ends[0]);
        }
    }
    free((void *)line);
    if (error == 0)
        return parquet_header(r);
    r->reader = error == 0 ? r->reader : 0;
    snprintf(r->why, sizeof(r->why),
             "%s cannot be read: it takes a Python with shardyfusion and pyarrow, and %s cannot be started: %s", path,
             python, strerror(error));
    return false;
}

/* ------------------------------------------------------------------ the parts of a row ---------------------------- */

static bool is_missing(const struct rows *r, size_t i)
{
    return r->format == ROWS_CSV ? false : is_null(r->found[i]);
}

static int add_text(struct rows *r, size_t i, struct text *to)
{
    struct text encoded = {0};
    bool good;

    if (is_missing(r, i))
        return fail(r, "it has no '%s'", r->names[i]);
    if (r->format == ROWS_CSV) {
        text_add(to, r->found[i].p, r->found[i].n);
        return 1;
    }
    good = add_plain(r->binary[i] ? &encoded : to, r->found[i]);
    if (good && r->binary[i])
        good = text_unbase64(to, bytes_of(&encoded));
    text_free(&encoded);
    return good ? 1 : fail(r, "it has half a surrogate pair");
}

static int add_json(struct rows *r, size_t i, struct text *to)
{
    if (r->binary[i])
        return fail(r, "'%s' is binary, which JSON has no form for", r->names[i]);
    if (r->format == ROWS_CSV)
        return add_string(to, r->found[i]) ? 1 : fail(r, "the field of '%s' is no UTF-8", r->names[i]);
    if (is_missing(r, i))
        text_puts(to, "null");
    else
        text_add(to, r->found[i].p, r->found[i].n);
    return 1;
}

static int add_object(struct rows *r)
{
    for (size_t i = 1; i <= r->wanted.value_count; i++) {
        text_puts(&r->value, i > 1 ? ", " : "{");
        if (!add_string(&r->value, (sf_bytes){(const uint8_t *)r->names[i], strlen(r->names[i])}))
            return fail(r, "the name of a column is no UTF-8");
        text_puts(&r->value, ": ");
        if (add_json(r, i, &r->value) < 0)
            return -1;
    }
    text_putc(&r->value, '}');
    return 1;
}

static int add_whole_row(struct rows *r)
{
    if (r->format == ROWS_CSV)
        return csv_whole_row(r);
    text_add(&r->value, r->record.p, r->record.n);
    return 1;
}

int rows_column(struct rows *r, size_t i, struct text *to)
{
    size_t at = 1 + r->wanted.value_count + i;

    return is_missing(r, at) ? 0 : add_text(r, at, to);
}

/* ------------------------------------------------------------------ any of them ----------------------------------- */

static void set_names(struct rows *r)
{
    const struct rows_wanted *w = &r->wanted;
    size_t n = 0;

    r->name_count = 1 + w->value_count + w->column_count;
    r->names = cli_alloc(r->name_count, sizeof(*r->names));
    r->found = cli_alloc(r->name_count, sizeof(*r->found));
    r->binary = cli_alloc(r->name_count, sizeof(*r->binary));
    r->at = cli_alloc(r->name_count, sizeof(*r->at));
    r->names[n++] = w->key;
    for (size_t i = 0; i < w->value_count; i++)
        r->names[n++] = w->values[i];
    for (size_t i = 0; i < w->column_count; i++)
        r->names[n++] = w->columns[i];
}

bool rows_open(struct rows *r, const char *path, enum rows_format format, const struct rows_wanted *wanted)
{
    bool is_input = strcmp(path, "-") == 0;

    *r = (struct rows){.format = format, .wanted = *wanted, .unit = "line", .line = 1, .next_line = 1};
    set_names(r);
    r->name = is_input ? "standard input" : path;
    if (format == ROWS_PARQUET) {
        r->unit = "row";
        if (!is_input)
            return parquet_open(r, path);
        snprintf(r->why, sizeof(r->why), "Parquet is not read from standard input: its end comes first");
        return false;
    }
    r->from = is_input ? stdin : fopen(path, "re");
    if (!r->from) {
        snprintf(r->why, sizeof(r->why), "%s cannot be read: %s", path, strerror(errno));
        return false;
    }
    return format == ROWS_JSONL || csv_header(r);
}

int rows_next(struct rows *r)
{
    int rc = r->format == ROWS_CSV ? csv_row(r) : jsonl_row(r);

    r->key.n = r->value.n = 0;
    if (rc == 0 && r->reader)
        rc = parquet_end(r);
    if (rc != 1)
        return rc;
    rc = add_text(r, 0, &r->key);
    if (rc < 0)
        return rc;
    if (r->wanted.value_count == 0)
        return add_whole_row(r);
    return r->wanted.as_json || r->wanted.value_count > 1 ? add_object(r) : add_text(r, 1, &r->value);
}

void rows_close(struct rows *r)
{
    if (r->from && r->from != stdin)
        fclose(r->from);
    if (r->reader) /* which has nowhere to write to */
        waitpid(r->reader, NULL, 0);
    free((void *)r->names);
    free(r->found);
    free(r->binary);
    free(r->at);
    text_free(&r->key);
    text_free(&r->value);
    text_free(&r->record);
    text_free(&r->header);
    free(r->ends);
    free(r->header_ends);
}

/* ------------------------------------------------------------------ encodings ------------------------------------- */

static int digit(const char *digits, uint8_t c)
{
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

bool text_unbase64(struct text *to, sf_bytes text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = text.n, padding = 0;
    uint32_t bits = 0;

    while (n > 0 && padding < 2 && text.p[n - 1] == '=') {
        n--;
        padding++;
    }
    if (n % 4 == 1 || (padding > 0 && text.n % 4 != 0))
        return false;
    for (size_t i = 0; i < n; i++) {
        int d = digit(digits, text.p[i]);

        if (d < 0)
            return false;
        bits = bits << 6 | (uint32_t)d;
        if (i % 4 != 0)
            text_putc(to, (char)(bits >> (6 - 2 * (i % 4))));
    }
    return true;
}

bool text_unhex(struct text *to, sf_bytes text)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    int high = 0;

    for (size_t i = 0; i < text.n; i++) {
        int d = digit(lower, text.p[i]);

        d = d < 0 ? digit(upper, text.p[i]) : d;
        if (d < 0)
            return false;
        if (i % 2 == 1)
            text_putc(to, (char)(high << 4 | d));
        high = d;
    }
    return text.n % 2 == 0;
}
