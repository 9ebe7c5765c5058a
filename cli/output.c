#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static bool pretty(const struct json *j)
{
    return j->format == CLI_JSON;
}

static void next_member(struct json *j, const char *name)
{
    if (!j->first)
        fputs(pretty(j) ? "," : ", ", j->to);
    j->first = false;
    if (pretty(j) && j->depth > 0)
        fprintf(j->to, "\n%*s", 2 * j->depth, "");
    if (name)
        fprintf(j->to, "\"%s\": ", name);
}

void json_begin(struct json *j, FILE *to, enum cli_format format)
{
    *j = (struct json){.to = to, .format = format, .first = true};
}

void json_open(struct json *j, const char *name, char bracket)
{
    next_member(j, name);
    fputc(bracket, j->to);
    j->depth++;
    j->first = true;
}

void json_close(struct json *j, char bracket)
{
    j->depth--;
    if (pretty(j) && !j->first)
        fprintf(j->to, "\n%*s", 2 * j->depth, "");
    fputc(bracket, j->to);
    j->first = false;
}

/* One character, in JSON's own escapes when a terminal must not have it as it is. Returns its bytes. */
static size_t put_character(FILE *to, const char *p)
{
    unsigned char lead = (unsigned char)*p;
    size_t n = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    char safe[48];
    unsigned code;

    n = strnlen(p, n);
    sf_text_escape(safe, sizeof(safe), (sf_bytes){(const uint8_t *)p, n});
    if (safe[0] != '\\' || lead == '\\') {
        fwrite(p, 1, n, to);
        return n;
    }
    if (safe[1] == 'x') { /* a control character, or a byte that is no text */
        fprintf(to, "\\u%04x", lead < 0x80 ? lead : 0xfffdu);
        return 1;
    }
    code = (unsigned)strtoul(safe + 2, NULL, 16);
    if (code > 0xffff) {
        fprintf(to, "\\u%04x", 0xd800 + ((code - 0x10000) >> 10));
        code = 0xdc00 + ((code - 0x10000) & 0x3ff);
    }
    fprintf(to, "\\u%04x", code);
    return n;
}

static void put_text(FILE *to, const char *text, bool quote)
{
    while (*text) {
        if (quote && (*text == '"' || *text == '\\'))
            fputc('\\', to);
        if (!quote && (*text == '\n' || *text == '\r' || *text == '\t')) {
            fputc(' ', to); /* between two parts of a JSON text */
            text++;
        } else {
            text += put_character(to, text);
        }
    }
}

void json_print(FILE *to, const char *json)
{
    put_text(to, json ? json : "null", false);
}

void json_text(struct json *j, const char *name, const char *text)
{
    next_member(j, name);
    if (!text) {
        fputs("null", j->to);
        return;
    }
    fputc('"', j->to);
    put_text(j->to, text, true);
    fputc('"', j->to);
}

void json_bytes64(struct json *j, const char *name, sf_bytes b)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    next_member(j, name);
    fputc('"', j->to);
    for (size_t i = 0; i < b.n; i += 3) {
        uint32_t v = (uint32_t)b.p[i] << 16;

        if (i + 1 < b.n)
            v |= (uint32_t)b.p[i + 1] << 8;
        if (i + 2 < b.n)
            v |= b.p[i + 2];
        fputc(digits[v >> 18], j->to);
        fputc(digits[v >> 12 & 63], j->to);
        fputc(i + 1 < b.n ? digits[v >> 6 & 63] : '=', j->to);
        fputc(i + 2 < b.n ? digits[v & 63] : '=', j->to);
    }
    fputc('"', j->to);
}

void json_raw(struct json *j, const char *name, const char *text)
{
    next_member(j, name);
    json_print(j->to, text);
}

void json_int(struct json *j, const char *name, int64_t v)
{
    next_member(j, name);
    fprintf(j->to, "%" PRId64, v);
}

void json_uint(struct json *j, const char *name, uint64_t v)
{
    next_member(j, name);
    fprintf(j->to, "%" PRIu64, v);
}

void json_bool(struct json *j, const char *name, bool v)
{
    next_member(j, name);
    fputs(v ? "true" : "false", j->to);
}

void json_end(struct json *j)
{
    fputc('\n', j->to);
}
