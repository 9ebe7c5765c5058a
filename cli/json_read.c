#include "json_read.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 512

static void skip_blanks(struct json_cursor *c)
{
    while (c->p < c->end && strchr(" \t\r\n", *c->p) && *c->p)
        c->p++;
}

static bool take(struct json_cursor *c, char wanted)
{
    if (c->p >= c->end || *c->p != wanted)
        return false;
    c->p++;
    return true;
}

static bool skip_string(struct json_cursor *c)
{
    if (!take(c, '"'))
        return false;
    for (; c->p < c->end && *c->p != '"'; c->p++) {
        if ((unsigned char)*c->p < 0x20)
            return false;
        if (*c->p == '\\' && (++c->p >= c->end || !strchr("\"\\/bfnrtu", *c->p) || !*c->p))
            return false;
    }
    return take(c, '"');
}

static size_t skip_digits(struct json_cursor *c)
{
    const char *from = c->p;

    while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
        c->p++;
    return (size_t)(c->p - from);
}

static bool skip_number(struct json_cursor *c)
{
    take(c, '-');
    if (!take(c, '0') && skip_digits(c) == 0)
        return false;
    if (take(c, '.') && skip_digits(c) == 0)
        return false;
    if (c->p < c->end && (*c->p == 'e' || *c->p == 'E')) {
        c->p++;
        if (c->p < c->end && (*c->p == '+' || *c->p == '-'))
            c->p++;
        return skip_digits(c) > 0;
    }
    return true;
}

static bool skip_scalar(struct json_cursor *c)
{
    static const char *const words[] = {"true", "false", "null"};

    if (c->p < c->end && *c->p == '"')
        return skip_string(c);
    for (size_t i = 0; i < 3; i++)
        if ((size_t)(c->end - c->p) >= strlen(words[i]) && memcmp(c->p, words[i], strlen(words[i])) == 0) {
            c->p += strlen(words[i]);
            return true;
        }
    return skip_number(c);
}

/* A value with all that is in it. Brackets are kept in a stack of bits: whether it is an object. */
static bool skip_value(struct json_cursor *c)
{
    bool is_object[DEPTH_MAX];
    size_t depth = 0;

    for (;;) {
        skip_blanks(c);
        if (c->p < c->end && (*c->p == '{' || *c->p == '[')) {
            if (depth == DEPTH_MAX)
                return false;
            is_object[depth] = *c->p++ == '{';
            skip_blanks(c);
            if (!take(c, is_object[depth] ? '}' : ']')) {
                if (is_object[depth++] && (!skip_string(c) || (skip_blanks(c), !take(c, ':'))))
                    return false;
                continue;
            }
        } else if (!skip_scalar(c)) {
            return false;
        }
        for (;;) { /* behind a value */
            if (depth == 0)
                return true;
            skip_blanks(c);
            if (take(c, ',')) {
                skip_blanks(c);
                if (is_object[depth - 1] && (!skip_string(c) || (skip_blanks(c), !take(c, ':'))))
                    return false;
                break;
            }
            if (!take(c, is_object[depth - 1] ? '}' : ']'))
                return false;
            depth--;
        }
    }
}

int json_next(struct json_cursor *c, struct json_member *m)
{
    const char *from;

    skip_blanks(c);
    if (!c->begun) {
        if (!take(c, '{'))
            return -1;
        skip_blanks(c);
    }
    if (take(c, '}')) {
        skip_blanks(c);
        return c->p == c->end ? 0 : -1;
    }
    if (c->begun) {
        if (!take(c, ','))
            return -1;
        skip_blanks(c);
    }
    c->begun = true;
    from = c->p;
    if (!skip_string(c))
        return -1;
    m->name = (sf_bytes){(const uint8_t *)from + 1, (size_t)(c->p - from) - 2};
    skip_blanks(c);
    if (!take(c, ':'))
        return -1;
    skip_blanks(c);
    from = c->p;
    if (!skip_value(c))
        return -1;
    m->value = (sf_bytes){(const uint8_t *)from, (size_t)(c->p - from)};
    return 1;
}

sf_bytes json_member(sf_bytes object, const char *name)
{
    struct json_cursor at = {(const char *)object.p, (const char *)object.p + object.n, false};
    struct json_member m;

    while (object.n > 0 && json_next(&at, &m) == 1)
        if (m.name.n == strlen(name) && memcmp(m.name.p, name, m.name.n) == 0)
            return m.value;
    return (sf_bytes){NULL, 0};
}

/* ------------------------------------------------------------------ strings --------------------------------------- */

/* The four digits at `p`; -1: there are none. */
static int hex4(const uint8_t *p, size_t left)
{
    int code = 0;

    if (left < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *found = p[i] ? strchr(digits, p[i] | 0x20) : NULL;

        if (!found || (p[i] < '0' || (p[i] > '9' && p[i] < 'A')))
            return -1;
        code = code << 4 | (int)(found - digits);
    }
    return code;
}

size_t json_escaped_code(const uint8_t *p, size_t left, unsigned *code)
{
    int high = left >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2, left - 2) : -1;
    int low = high >= 0xd800 && high < 0xdc00 && left >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, left - 8) : -1;

    if (low >= 0xdc00 && low < 0xe000) {
        *code = 0x10000 + ((unsigned)(high - 0xd800) << 10) + (unsigned)(low - 0xdc00);
        return 12;
    }
    *code = (unsigned)high;
    return high < 0 || (high >= 0xd800 && high < 0xe000) ? 0 : 6;
}

bool json_unquote(struct text *t, sf_bytes s, bool bare)
{
    static const char letters[] = "nrtbf", said[] = "\n\r\t\b\f";

    if (!bare) {
        if (s.n < 2 || s.p[0] != '"' || s.p[s.n - 1] != '"')
            return false;
        s = (sf_bytes){s.p + 1, s.n - 2};
    }
    for (size_t i = 0; i < s.n; i++) {
        const char *letter;
        unsigned code;
        size_t n;

        if (s.p[i] != '\\') {
            text_add(t, s.p + i, 1);
            continue;
        }
        if (i + 1 >= s.n)
            return false;
        if (s.p[i + 1] == 'u') {
            n = json_escaped_code(s.p + i, s.n - i, &code);
            if (n == 0)
                return false;
            text_code(t, code);
            i += n - 1;
            continue;
        }
        i++;
        letter = s.p[i] ? strchr(letters, s.p[i]) : NULL;
        text_putc(t, letter ? said[letter - letters] : (char)s.p[i]);
    }
    return true;
}
