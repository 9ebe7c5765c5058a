#include <inttypes.h>
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

void json_text(struct json *j, const char *name, const char *text)
{
    next_member(j, name);
    if (!text) {
        fputs("null", j->to);
        return;
    }
    fputc('"', j->to);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(j->to, "\\%c", *p);
        else if (*p < 0x20)
            fprintf(j->to, "\\u%04x", *p);
        else
            fputc(*p, j->to);
    }
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
    fputs(text ? text : "null", j->to);
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
