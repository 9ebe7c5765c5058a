#include "rows_read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "json_read.h"

/* A row that is longer is none: somewhere a quote is missing. */
#define ROW_BYTES_MAX ((size_t)1 << 30)

static sf_bytes bytes_of(const struct text *t)
{
    return (sf_bytes){(const uint8_t *)t->p, t->n};
}

static int fail(struct rows *r, const char *fmt, ...) SF_PRINTF(2, 3);
static int fail(struct rows *r, const char *fmt, ...)
{
    size_t n = (size_t)snprintf(r->why, sizeof(r->why), "%s, line %" PRIu64 ": ", r->name, r->line);
    va_list args;

    va_start(args, fmt);
    if (n < sizeof(r->why))
        vsnprintf(r->why + n, sizeof(r->why) - n, fmt, args);
    va_end(args);
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
            return fail(r, "a quoted field does not end"), -2;
        if (c == '"') {
            c = next_char(r);
            if (c != '"')
                return c;
        }
        text_putc(&r->record, (char)c);
        if (r->record.n > ROW_BYTES_MAX)
            return fail(r, "the row is too long: is a quote missing?"), -2;
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
        return ferror(r->from) ? fail(r, "%s", strerror(errno)) : 0;
    for (;;) {
        if (c == '"') {
            c = quoted(r);
            if (c == -2)
                return -1;
            if (c != ',' && c != '\n' && c != '\r' && c != EOF)
                return fail(r, "something stands behind the quote of field %zu", r->count + 1);
        }
        while (c != ',' && c != '\n' && c != '\r' && c != EOF) {
            if (c == '"')
                return fail(r, "field %zu has a quote in the middle", r->count + 1);
            text_putc(&r->record, (char)c);
            if (r->record.n > ROW_BYTES_MAX)
                return fail(r, "the row is too long");
            c = next_char(r);
        }
        field_end(r);
        if (c == '\r') {
            c = next_char(r);
            if (c != '\n' && c != EOF)
                return fail(r, "a carriage return stands alone");
        }
        if (c != ',')
            return c == EOF && ferror(r->from) ? fail(r, "%s", strerror(errno)) : 1;
        c = next_char(r);
    }
}

static bool column_find(struct rows *r, const char *name, size_t *at)
{
    for (size_t i = 0; i < r->header_count; i++) {
        sf_bytes f = field(&r->header, r->header_ends, i);

        if (f.n == strlen(name) && memcmp(f.p, name, f.n) == 0) {
            *at = i;
            return true;
        }
    }
    fail(r, "there is no column '%s'", name);
    return false;
}

static bool csv_header(struct rows *r)
{
    int rc = csv_record(r);

    if (rc == 0)
        fail(r, "there is no line with the names of the columns");
    if (rc != 1)
        return false;
    if (r->record.n >= 3 && memcmp(r->record.p, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        memmove(r->record.p, r->record.p + 3, r->record.n - 3);
        r->record.n -= 3;
        for (size_t i = 0; i < r->count; i++)
            r->ends[i] -= 3;
    }
    r->header = r->record;
    r->header_ends = r->ends;
    r->header_count = r->count;
    r->record = (struct text){0};
    r->ends = NULL;
    r->cap = r->count = 0;
    return column_find(r, r->wanted.key, &r->key_at) &&
           (!r->wanted.value || column_find(r, r->wanted.value, &r->value_at));
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
    sf_bytes f;

    if (rc != 1)
        return rc;
    if (r->count != r->header_count)
        return fail(r, "%zu fields, there are %zu columns", r->count, r->header_count);
    f = field(&r->record, r->ends, r->key_at);
    text_add(&r->key, f.p, f.n);
    if (r->wanted.value) {
        f = field(&r->record, r->ends, r->value_at);
        text_add(&r->value, f.p, f.n);
        return 1;
    }
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
            if (r->record.n > 0 || !strchr(" \t\r", c))
                text_putc(&r->record, (char)c);
            if (r->record.n > ROW_BYTES_MAX)
                return fail(r, "the line is too long");
        }
        while (r->record.n > 0 && strchr(" \t\r", r->record.p[r->record.n - 1]))
            r->record.n--;
    } while (r->record.n == 0 && c != EOF);
    if (c == EOF && ferror(r->from))
        return fail(r, "%s", strerror(errno));
    return r->record.n > 0;
}

static int jsonl_row(struct rows *r)
{
    struct json_cursor at;
    struct json_member m;
    sf_bytes key = {0}, value = {0};
    int rc = jsonl_line(r), more;

    if (rc != 1)
        return rc;
    at = (struct json_cursor){r->record.p, r->record.p + r->record.n, false};
    while ((more = json_next(&at, &m)) == 1) {
        struct text name = {0};

        if (!json_unquote(&name, m.name, true)) {
            text_free(&name);
            return fail(r, "it is no JSON object");
        }
        if (strcmp(text_str(&name), r->wanted.key) == 0)
            key = m.value;
        if (r->wanted.value && strcmp(text_str(&name), r->wanted.value) == 0)
            value = m.value;
        text_free(&name);
    }
    if (more != 0)
        return fail(r, "it is no JSON object");
    if (is_null(key))
        return fail(r, "it has no '%s'", r->wanted.key);
    if (r->wanted.value && is_null(value))
        return fail(r, "it has no '%s'", r->wanted.value);
    if (!add_plain(&r->key, key) || !add_plain(&r->value, r->wanted.value ? value : bytes_of(&r->record)))
        return fail(r, "it has half a surrogate pair");
    return 1;
}

/* ------------------------------------------------------------------ either ---------------------------------------- */

bool rows_open(struct rows *r, const char *path, enum rows_format format, const struct rows_wanted *wanted)
{
    bool is_input = strcmp(path, "-") == 0;

    *r = (struct rows){.format = format, .wanted = *wanted, .line = 1, .next_line = 1};
    r->name = is_input ? "standard input" : path;
    r->from = is_input ? stdin : fopen(path, "re");
    if (!r->from) {
        snprintf(r->why, sizeof(r->why), "%s cannot be read: %s", path, strerror(errno));
        return false;
    }
    return format == ROWS_JSONL || csv_header(r);
}

int rows_next(struct rows *r)
{
    r->key.n = r->value.n = 0;
    return r->format == ROWS_CSV ? csv_row(r) : jsonl_row(r);
}

void rows_close(struct rows *r)
{
    if (r->from && r->from != stdin)
        fclose(r->from);
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
