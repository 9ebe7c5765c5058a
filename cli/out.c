#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "json_read.h"

/* ------------------------------------------------------------------ where results go ------------------------------ */

size_t out_terminal_width(FILE *to)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;

    if (!isatty(fileno(to)))
        return 0;
    if (columns && atoi(columns) > 0)
        return (size_t)atoi(columns);
    return ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static bool is_dumb(void)
{
    const char *term = getenv("TERM");

    return !term || !*term || strcmp(term, "dumb") == 0;
}

void out_init(struct out *o, FILE *to, const char *name, uint64_t colour)
{
    const char *none = getenv("NO_COLOR");

    o->to = to;
    o->name = name;
    o->terminal = isatty(fileno(to));
    o->width = out_terminal_width(to);
    o->colour = colour == 1 || (colour == 0 && o->terminal && !(none && *none) && !is_dumb());
}

void out_write(struct out *o, const struct text *t)
{
    if (t->n > 0 && fwrite(t->p, 1, t->n, o->to) < t->n && !o->why)
        o->why = errno;
}

bool out_failed(const struct out *o)
{
    return ferror(o->to) || interrupted();
}

bool out_close(struct out *o)
{
    if (fflush(o->to) != 0 && !o->why)
        o->why = errno;
    if (!ferror(o->to))
        return true;
    if (o->why != EPIPE)
        fprintf(stderr, "Error: %s could not be written: %s\n", o->name,
                o->why ? strerror(o->why) : "an earlier write failed");
    return false;
}

/* ------------------------------------------------------------------ progress -------------------------------------- */

/* Cut to `columns`, with an ellipsis. */
static void put_cut(struct text *t, const char *s, size_t columns)
{
    char *cut = cli_strdup(s);
    size_t n = strlen(cut);

    while (n > 0 && text_columns(cut) > columns - 1) {
        while (n > 0 && ((unsigned char)cut[n - 1] & 0xc0) == 0x80)
            n--;
        cut[n > 0 ? --n : 0] = '\0';
    }
    text_puts(t, cut);
    text_puts(t, "\xe2\x80\xa6");
    free(cut);
}

static bool progress_shown;

bool progress_is_wanted(const struct settings *s)
{
    return !s->quiet && isatty(STDERR_FILENO) && !is_dumb();
}

void progress_show(const char *fmt, ...)
{
    size_t width = out_terminal_width(stderr);
    struct text line = {0};
    char one[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(one, sizeof(one), fmt, args);
    va_end(args);
    if (width > 1 && text_columns(one) >= width) /* in the last column some terminals begin a new line */
        put_cut(&line, one, width - 1);
    else
        text_puts(&line, one);
    fprintf(stderr, "\r\033[K%s", text_str(&line));
    fflush(stderr);
    text_free(&line);
    progress_shown = true;
}

void progress_end(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

/* ------------------------------------------------------------------ colours --------------------------------------- */

void out_colour(const struct out *o, struct text *t, enum out_colour c)
{
    static const char *const codes[] = {"\033[1m", "\033[1;31m", "\033[32m", "\033[33m"};

    if (o->colour)
        text_puts(t, codes[c]);
}

void out_plain(const struct out *o, struct text *t)
{
    if (o->colour)
        text_puts(t, "\033[0m");
}

/* ------------------------------------------------------------------ JSON ------------------------------------------ */

static void next_member(struct json *j, const char *name)
{
    if (!j->first)
        text_puts(j->to, j->pretty ? "," : ", ");
    j->first = false;
    if (j->pretty && j->depth > 0)
        text_printf(j->to, "\n%*s", 2 * j->depth, "");
    if (name)
        text_printf(j->to, "\"%s\": ", name);
}

void json_begin(struct json *j, struct text *to, enum out_format format)
{
    *j = (struct json){.to = to, .pretty = format == FORMAT_JSON, .first = true};
}

void json_open(struct json *j, const char *name, char bracket)
{
    next_member(j, name);
    text_putc(j->to, bracket);
    j->depth++;
    j->first = true;
}

void json_close(struct json *j, char bracket)
{
    j->depth--;
    if (j->pretty && !j->first)
        text_printf(j->to, "\n%*s", 2 * j->depth, "");
    text_putc(j->to, bracket);
    j->first = false;
}

/* One character, in JSON's own escapes when a terminal must not have it as it is. Returns its bytes. */
static size_t put_character(struct text *to, const uint8_t *p, size_t left)
{
    size_t n = *p < 0xc0 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
    char safe[48];
    unsigned code;

    n = n < left ? n : left;
    if (*p >= 0x20 && *p < 0x7f) {
        text_putc(to, (char)*p);
        return 1;
    }
    sf_text_escape(safe, sizeof(safe), (sf_bytes){p, n});
    if (safe[0] != '\\') {
        text_add(to, p, n);
        return n;
    }
    if (safe[1] == 'x') { /* a control character, or a byte that is no text */
        text_printf(to, "\\u%04x", *p < 0x80 ? *p : 0xfffdu);
        return 1;
    }
    code = (unsigned)strtoul(safe + 2, NULL, 16);
    if (code > 0xffff) {
        text_printf(to, "\\u%04x", 0xd800 + ((code - 0x10000) >> 10));
        code = 0xdc00 + ((code - 0x10000) & 0x3ff);
    }
    text_printf(to, "\\u%04x", code);
    return n;
}

static void put_quoted(struct text *to, sf_bytes b)
{
    text_putc(to, '"');
    for (size_t i = 0; i < b.n;) {
        const char *in = "\"\\\n\r\t", *out = "\"\\nrt", *special = b.p[i] ? strchr(in, b.p[i]) : NULL;

        if (special) {
            text_putc(to, '\\');
            text_putc(to, out[special - in]);
            i++;
        } else {
            i += put_character(to, b.p + i, b.n - i);
        }
    }
    text_putc(to, '"');
}

/* A JSON text that stands in one line; what needs no escape has none. */
static void put_json(struct text *to, const char *json)
{
    size_t n = json ? strlen(json) : 0;

    if (!json)
        text_puts(to, "null");
    for (size_t i = 0; i < n;) {
        unsigned code;
        size_t length = json_escaped_code((const uint8_t *)json + i, n - i, &code);
        struct text utf8 = {0};

        if (json[i] == '\n' || json[i] == '\r' || json[i] == '\t') { /* between two parts of it */
            text_putc(to, ' ');
            i++;
        } else if (length > 0 && code >= 0x80) {
            text_code(&utf8, code);
            put_character(to, (const uint8_t *)utf8.p, utf8.n);
            text_free(&utf8);
            i += length;
        } else if (json[i] == '\\' && i + 1 < n) { /* what follows is no escape of its own */
            text_add(to, json + i, 2);
            i += 2;
        } else {
            i += put_character(to, (const uint8_t *)json + i, n - i);
        }
    }
}

/* What a JSON string says; other JSON as it is. */
static void put_json_plain(struct text *to, const char *json)
{
    size_t before = to->n;

    if (json_unquote(to, (sf_bytes){(const uint8_t *)json, strlen(json)}, false))
        return;
    to->n = before;
    put_json(to, json);
}

void json_bytes(struct json *j, const char *name, sf_bytes text)
{
    next_member(j, name);
    put_quoted(j->to, text);
}

void json_text(struct json *j, const char *name, const char *text)
{
    if (text)
        json_bytes(j, name, (sf_bytes){(const uint8_t *)text, strlen(text)});
    else
        json_raw(j, name, NULL);
}

void json_raw(struct json *j, const char *name, const char *json_or_null)
{
    next_member(j, name);
    put_json(j->to, json_or_null);
}

void json_uint(struct json *j, const char *name, uint64_t v)
{
    next_member(j, name);
    text_printf(j->to, "%" PRIu64, v);
}

void json_real(struct json *j, const char *name, double v)
{
    next_member(j, name);
    text_printf(j->to, "%.1f", v);
}

void json_bool(struct json *j, const char *name, bool v)
{
    next_member(j, name);
    text_puts(j->to, v ? "true" : "false");
}

void json_end(struct json *j)
{
    text_putc(j->to, '\n');
}

/* ------------------------------------------------------------------ cells ----------------------------------------- */

static enum out_encoding encoding_of(const struct out *o)
{
    if (o->has_encoding)
        return o->encoding;
    return out_is_json(o) ? ENCODE_BASE64 : ENCODE_AUTO;
}

static void put_value(struct text *t, const struct out *o, sf_bytes b)
{
    switch (encoding_of(o)) {
    case ENCODE_BASE64:
        text_base64(t, b);
        return;
    case ENCODE_HEX:
        text_hex(t, b);
        return;
    case ENCODE_UTF8:
        text_utf8(t, b);
        return;
    case ENCODE_AUTO:
        if (text_is_printable(b)) {
            text_add(t, b.p, b.n);
        } else {
            text_puts(t, "0x");
            text_hex(t, b);
        }
        return;
    }
}

static bool is_for_people(const struct out *o)
{
    return o->format == FORMAT_TEXT || o->format == FORMAT_TABLE;
}

static void put_plain(struct text *t, const struct out *o, const struct cell *c)
{
    switch (c->kind) {
    case CELL_NONE:
        if (is_for_people(o))
            text_puts(t, "null");
        return;
    case CELL_ABSENT:
        return;
    case CELL_MISSING:
        if (is_for_people(o))
            text_puts(t, o->null_repr);
        return;
    case CELL_TEXT:
        text_puts(t, c->text);
        return;
    case CELL_STRING:
        text_add(t, c->bytes.p, c->bytes.n);
        return;
    case CELL_UINT:
        text_printf(t, "%" PRIu64, c->number);
        return;
    case CELL_BOOL:
        text_puts(t, c->number ? "true" : "false");
        return;
    case CELL_JSON:
        put_json_plain(t, c->text);
        return;
    case CELL_VALUE:
        put_value(t, o, c->bytes);
        return;
    case CELL_SIZE:
        if (is_for_people(o))
            text_size(t, c->number);
        else
            text_printf(t, "%" PRIu64, c->number);
        return;
    case CELL_TIME:
        text_time(t, c->time_us);
        return;
    case CELL_SECONDS:
        if (is_for_people(o))
            text_duration(t, c->seconds);
        else
            text_printf(t, "%.1f", c->seconds);
        return;
    }
}

void cell_put(struct text *t, const struct out *o, const struct cell *c)
{
    struct text plain = {0};

    if (!o->terminal && !is_for_people(o)) {
        put_plain(t, o, c);
        return;
    }
    put_plain(&plain, o, c);
    text_escaped(t, plain.p, plain.n);
    text_free(&plain);
}

void cell_json(struct json *j, const char *name, const struct out *o, const struct cell *c)
{
    struct text t = {0};

    if (!name)
        return;
    switch (c->kind) {
    case CELL_ABSENT:
        return;
    case CELL_NONE:
        json_raw(j, name, NULL);
        return;
    case CELL_JSON:
        json_raw(j, name, c->text);
        return;
    case CELL_UINT:
    case CELL_SIZE:
        json_uint(j, name, c->number);
        return;
    case CELL_BOOL:
        json_bool(j, name, c->number);
        return;
    case CELL_SECONDS:
        json_real(j, name, c->seconds);
        return;
    case CELL_MISSING:
        json_text(j, name, o->null_repr);
        return;
    case CELL_TEXT:
        json_text(j, name, c->text);
        return;
    case CELL_STRING:
        json_bytes(j, name, c->bytes);
        return;
    case CELL_VALUE:
    case CELL_TIME:
        put_plain(&t, o, c);
        json_bytes(j, name, (sf_bytes){(const uint8_t *)t.p, t.n});
        text_free(&t);
        return;
    }
}

/* ------------------------------------------------------------------ CSV ------------------------------------------- */

static void put_field(struct text *t, const struct out *o, const char *field)
{
    if (o->format == FORMAT_TSV) {
        for (; *field; field++) {
            const char *in = "\t\n\r\\", *out = "tnr\\", *special = strchr(in, *field);

            if (special)
                text_putc(t, '\\');
            text_putc(t, special ? out[special - in] : *field);
        }
    } else if (field[strcspn(field, ",\"\r\n")]) {
        text_putc(t, '"');
        for (; *field; field++) {
            if (*field == '"')
                text_putc(t, '"');
            text_putc(t, *field);
        }
        text_putc(t, '"');
    } else {
        text_puts(t, field);
    }
}

static void put_fields(struct text *t, const struct out *o, const struct column *columns, size_t n,
                       const struct cell *cells)
{
    bool first = true;

    for (size_t i = 0; i < n; i++) {
        struct text field = {0};

        if (!columns[i].name)
            continue;
        if (!first)
            text_putc(t, o->format == FORMAT_TSV ? '\t' : ',');
        if (cells)
            cell_put(&field, o, &cells[i]);
        else
            text_puts(&field, columns[i].name);
        put_field(t, o, text_str(&field));
        text_free(&field);
        first = false;
    }
    text_putc(t, '\n');
}

/* ------------------------------------------------------------------ records --------------------------------------- */

/* "SF_SHARDING_HASH" as Python prints its enums: ShardingStrategy.HASH */
static void put_enum(struct text *t, const char *python, const char *value)
{
    text_printf(t, "%s.", python);
    for (; *value; value++)
        text_putc(t, *value >= 'a' && *value <= 'z' ? (char)(*value - 32) : *value);
}

static void put_lines(struct text *t, const struct out *o, const struct column *columns, size_t n,
                      const struct cell *cells)
{
    for (size_t i = 0; i < n; i++) {
        if (!columns[i].name || cells[i].kind == CELL_ABSENT)
            continue;
        text_printf(t, "%s=", columns[i].name);
        if (columns[i].python && cells[i].kind == CELL_TEXT)
            put_enum(t, columns[i].python, cells[i].text);
        else
            cell_put(t, o, &cells[i]);
        text_putc(t, '\n');
    }
}

void out_record(struct out *o, const char *op, const struct column *columns, size_t n, const struct cell *cells,
                line_fn line)
{
    struct text t = {0};
    struct json j;

    if (o->format == FORMAT_CSV || o->format == FORMAT_TSV) {
        put_fields(&t, o, columns, n, NULL);
        put_fields(&t, o, columns, n, cells);
    } else if (o->format == FORMAT_TEXT || (o->format == FORMAT_TABLE && line)) {
        if (line)
            line(&t, o, cells);
        else
            put_lines(&t, o, columns, n, cells);
    } else {
        json_begin(&j, &t, o->format == FORMAT_TABLE ? FORMAT_JSON : o->format);
        json_open(&j, NULL, '{');
        json_text(&j, "op", op);
        for (size_t i = 0; i < n; i++)
            cell_json(&j, columns[i].name, o, &cells[i]);
        json_close(&j, '}');
        json_end(&j);
    }
    out_write(o, &t);
    text_free(&t);
}

/* ------------------------------------------------------------------ tables ---------------------------------------- */

#define HELD_ROWS 1000
#define NARROWEST 5

static bool is_shown(const struct list *l, size_t column)
{
    return l->columns[column].heading && !l->left_out[column];
}

/* Of the lines in hand. */
static size_t line_width(const struct list *l)
{
    size_t sum = 0;

    for (size_t i = 0; i < l->n; i++)
        if (is_shown(l, i))
            sum += l->widths[i] + (sum > 0 ? 2 : 0);
    return sum;
}

static void leave_out_empty(struct list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        bool empty = true;

        for (size_t r = 0; r < l->held_rows && empty; r++)
            empty = !*l->held[r * l->n + i];
        l->left_out[i] = empty && l->held_rows > 0;
    }
}

/* Where the terminal is too narrow, columns without anything in them go; then the widest one gives way, again and again. */
static void fit(struct list *l)
{
    size_t room = l->out->width;

    if (room > 0 && !l->headed && line_width(l) > room)
        leave_out_empty(l);
    for (;;) {
        size_t sum = line_width(l), widest = 0;

        for (size_t i = 0; i < l->n; i++)
            if (is_shown(l, i) && (!is_shown(l, widest) || l->widths[i] > l->widths[widest]))
                widest = i;
        if (room == 0 || sum <= room || l->widths[widest] <= NARROWEST)
            return;
        l->widths[widest] -= sum - room < l->widths[widest] - NARROWEST ? sum - room : l->widths[widest] - NARROWEST;
    }
}

static void put_padded(struct text *t, const struct list *l, size_t column, bool is_last, const char *s)
{
    size_t width = l->widths[column], have = text_columns(s);
    int pad = have < width ? (int)(width - have) : 0;

    if (l->columns[column].right)
        text_printf(t, "%*s", pad, "");
    if (have > width && l->out->width > 0)
        put_cut(t, s, width);
    else
        text_puts(t, s);
    if (!l->columns[column].right && !is_last)
        text_printf(t, "%*s", pad, "");
    if (!is_last)
        text_puts(t, "  ");
}

static void put_heading(struct list *l, size_t last)
{
    struct text *t = &l->text;

    for (int rule = 0; rule < 2; rule++) {
        if (rule == 0)
            out_colour(l->out, t, COLOUR_BOLD);
        for (size_t i = 0; i < l->n; i++) {
            char dashes[4096];
            size_t n = l->widths[i] < sizeof(dashes) - 1 ? l->widths[i] : sizeof(dashes) - 1;

            if (!is_shown(l, i))
                continue;
            memset(dashes, '-', n);
            dashes[n] = '\0';
            put_padded(t, l, i, i == last, rule ? dashes : l->columns[i].heading);
        }
        if (rule == 0)
            out_plain(l->out, t);
        text_putc(t, '\n');
    }
}

static void put_held(struct list *l)
{
    size_t last = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (!l->columns[i].heading)
            continue;
        if (text_columns(l->columns[i].heading) > l->widths[i])
            l->widths[i] = text_columns(l->columns[i].heading);
        for (size_t r = 0; r < l->held_rows; r++)
            if (text_columns(l->held[r * l->n + i]) > l->widths[i])
                l->widths[i] = text_columns(l->held[r * l->n + i]);
    }
    fit(l);
    for (size_t i = 0; i < l->n; i++)
        last = is_shown(l, i) ? i : last;
    if (!l->headed)
        put_heading(l, last);
    l->headed = true;
    for (size_t r = 0; r < l->held_rows; r++) {
        for (size_t i = 0; i < l->n; i++) {
            if (is_shown(l, i))
                put_padded(&l->text, l, i, i == last, l->held[r * l->n + i]);
            free(l->held[r * l->n + i]);
        }
        text_putc(&l->text, '\n');
    }
    l->held_rows = 0;
}

static void hold(struct list *l, const struct cell *cells)
{
    if (!l->held)
        l->held = cli_alloc(HELD_ROWS * l->n, sizeof(*l->held));
    for (size_t i = 0; i < l->n; i++) {
        struct text t = {0};

        cell_put(&t, l->out, &cells[i]);
        l->held[l->held_rows * l->n + i] = t.p ? t.p : cli_strdup("");
    }
    if (++l->held_rows == HELD_ROWS)
        put_held(l);
}

/* ------------------------------------------------------------------ lists ----------------------------------------- */

void list_begin(struct list *l)
{
    json_begin(&l->json, &l->text, l->out->format);
    if (out_is_json(l->out) && (l->member || l->out->format == FORMAT_JSON)) {
        if (l->member) {
            json_open(&l->json, NULL, '{');
            json_text(&l->json, "op", l->op);
        }
        json_open(&l->json, l->member, '[');
    } else if (l->out->format == FORMAT_CSV || l->out->format == FORMAT_TSV) {
        put_fields(&l->text, l->out, l->columns, l->n, NULL);
    }
}

void list_row(struct list *l, const struct cell *cells)
{
    struct out *o = l->out;
    bool lines = o->format == FORMAT_JSONL && !l->member;

    l->rows++;
    if (o->format == FORMAT_TABLE) {
        hold(l, cells);
    } else if (o->format == FORMAT_TEXT) {
        l->line(&l->text, o, cells);
    } else if (!out_is_json(o)) {
        put_fields(&l->text, o, l->columns, l->n, cells);
    } else {
        if (lines)
            json_begin(&l->json, &l->text, o->format);
        json_open(&l->json, NULL, '{');
        for (size_t i = 0; i < l->n; i++)
            cell_json(&l->json, l->columns[i].name, o, &cells[i]);
        json_close(&l->json, '}');
        if (lines)
            json_end(&l->json);
    }
    out_write(o, &l->text);
    l->text.n = 0;
}

void list_end(struct list *l)
{
    if (l->out->format == FORMAT_TABLE)
        put_held(l);
    if (out_is_json(l->out) && (l->member || l->out->format == FORMAT_JSON)) {
        json_close(&l->json, ']');
        if (l->member)
            json_close(&l->json, '}');
        json_end(&l->json);
    }
    if (l->out->format == FORMAT_TEXT && l->rows == 0 && l->empty) {
        text_puts(&l->text, l->empty);
        text_putc(&l->text, '\n');
    }
    out_write(l->out, &l->text);
    text_free(&l->text);
    free(l->held);
    l->held = NULL;
}
