#include "writer/arrow_format.h"

#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ numbers -------------------------------------- */

/* Digits, perhaps behind a minus, that stay below a billion. *text moves behind them. */
static bool take_number(const char **text, long *out)
{
    const char *p = *text;
    bool negative = *p == '-';
    long n = 0;
    int digits = 0;

    for (p += negative; *p >= '0' && *p <= '9' && digits < 9; p++, digits++)
        n = 10 * n + (*p - '0');
    if (digits == 0 || (*p >= '0' && *p <= '9'))
        return false;
    *out = negative ? -n : n;
    *text = p;
    return true;
}

/* "d:38,0" or "d:38,0,256". */
static bool take_decimal(const char *format, long *precision, long *scale, long *bits)
{
    const char *p = format + strnlen(format, 2);

    *bits = 128;
    if (strncmp(format, "d:", 2) != 0 || !take_number(&p, precision) || *p++ != ',' || !take_number(&p, scale))
        return false;
    if (*p == ',') {
        p++;
        if (!take_number(&p, bits))
            return false;
    }
    return *p == '\0';
}

/* ------------------------------------------------------------------ names ---------------------------------------- */

static const char *unit_name(char c)
{
    return c == 's' ? "s" : c == 'm' ? "ms" : c == 'u' ? "us" : c == 'n' ? "ns" : NULL;
}

static bool time_name(const char *format, char *out, size_t n)
{
    char kind = format[0] == 't' ? format[1] : '\0', of = kind ? format[2] : '\0';
    const char *unit = of ? unit_name(of) : NULL;

    if (!of)
        return false;
    if (kind == 'd' && (of == 'D' || of == 'm'))
        snprintf(out, n, of == 'D' ? "date32" : "date64");
    else if (kind == 'i' && (of == 'M' || of == 'D' || of == 'n'))
        snprintf(out, n, "interval");
    else if (!unit || !strchr("tsD", kind))
        return false;
    else if (kind == 's' && format[3] == ':' && format[4])
        snprintf(out, n, "timestamp[%s, %.32s]", unit, format + 4);
    else
        snprintf(out, n, "%s[%s]", kind == 's' ? "timestamp" : kind == 'D' ? "duration" : "time", unit);
    return true;
}

static bool simple_name(const char *format, char *out, size_t n)
{
    static const struct {
        const char *format, *name;
    } names[] = {
        {"n", "null"},
        {"b", "bool"},
        {"c", "int8"},
        {"C", "uint8"},
        {"s", "int16"},
        {"S", "uint16"},
        {"i", "int32"},
        {"I", "uint32"},
        {"l", "int64"},
        {"L", "uint64"},
        {"e", "halffloat"},
        {"f", "float"},
        {"g", "double"},
        {"z", "binary"},
        {"Z", "large_binary"},
        {"vz", "binary_view"},
        {"u", "string"},
        {"U", "large_string"},
        {"vu", "string_view"},
        {"+l", "list"},
        {"+L", "large_list"},
        {"+vl", "list_view"},
        {"+vL", "large_list_view"},
        {"+s", "struct"},
        {"+m", "map"},
        {"+r", "run_end_encoded"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(format, names[i].format) == 0) {
            snprintf(out, n, "%s", names[i].name);
            return true;
        }
    }
    return false;
}

void sf__arrow_type_name(const struct ArrowSchema *s, char *out, size_t n)
{
    const char *of = s->dictionary ? "dictionary of " : "", *format = s->dictionary ? s->dictionary->format : s->format;
    char name[64];
    long precision, scale, bits;

    if (s->dictionary && s->dictionary->dictionary)
        snprintf(name, sizeof(name), "dictionaries");
    else if (take_decimal(format, &precision, &scale, &bits))
        snprintf(name, sizeof(name), "decimal(%ld, %ld)", precision, scale);
    else if (strncmp(format, "w:", 2) == 0)
        snprintf(name, sizeof(name), "fixed_size_binary(%.16s)", format + 2);
    else if (strncmp(format, "+w:", 3) == 0)
        snprintf(name, sizeof(name), "fixed_size_list(%.16s)", format + 3);
    else if (strncmp(format, "+u", 2) == 0)
        snprintf(name, sizeof(name), "union");
    else if (!simple_name(format, name, sizeof(name)) && !time_name(format, name, sizeof(name)))
        snprintf(name, sizeof(name), "Arrow format '%.16s'", format);
    snprintf(out, n, "%s%s", of, name);
}

/* ------------------------------------------------------------------ layouts -------------------------------------- */

static const struct {
    const char *format;
    sf_arrow_format is;
} formats[] = {
    {"c", {SF_ARROW_INT, 1, false}},      {"s", {SF_ARROW_INT, 2, false}},   {"i", {SF_ARROW_INT, 4, false}},
    {"l", {SF_ARROW_INT, 8, false}},      {"C", {SF_ARROW_UINT, 1, false}},  {"S", {SF_ARROW_UINT, 2, false}},
    {"I", {SF_ARROW_UINT, 4, false}},     {"L", {SF_ARROW_UINT, 8, false}},  {"u", {SF_ARROW_OFFSET32, 0, true}},
    {"U", {SF_ARROW_OFFSET64, 0, true}},  {"vu", {SF_ARROW_VIEW, 0, true}},  {"z", {SF_ARROW_OFFSET32, 0, false}},
    {"Z", {SF_ARROW_OFFSET64, 0, false}}, {"vz", {SF_ARROW_VIEW, 0, false}}, {"n", {SF_ARROW_NULL, 0, false}},
    {"b", {SF_ARROW_BOOL, 0, false}},     {"f", {SF_ARROW_FLOAT, 4, false}}, {"g", {SF_ARROW_FLOAT, 8, false}},
};

bool sf__arrow_format_parse(sf_arrow_format *out, const char *format)
{
    long precision, scale, bits, width;
    const char *p = format + strnlen(format, 2);

    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (strcmp(format, formats[i].format) == 0) {
            *out = formats[i].is;
            return true;
        }
    }
    if (take_decimal(format, &precision, &scale, &bits)) {
        if (scale != 0 || (bits != 32 && bits != 64 && bits != 128 && bits != 256))
            return false;
        *out = (sf_arrow_format){SF_ARROW_DECIMAL, (size_t)bits / 8, false};
        return true;
    }
    if (strncmp(format, "w:", 2) != 0 || !take_number(&p, &width) || *p || width < 0)
        return false;
    *out = (sf_arrow_format){SF_ARROW_FIXED, (size_t)width, false};
    return true;
}
