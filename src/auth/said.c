#include "auth/said.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_LAST_LINES 3u

struct bounded_line {
    char *s;
    size_t n, cap;
    bool cut;
};

static void put(struct bounded_line *l, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        l->cut = l->cut || l->n + 1 >= l->cap;
        if (!l->cut)
            l->s[l->n++] = s[i];
    }
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(uint8_t c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(uint8_t c)
{
    return c >= 'a' && c <= 'z';
}

/* Keys and tokens are made of these; a key in base64 has '+' and '/', one for URLs '-' and '_'. */
static bool is_word(uint8_t c)
{
    return is_digit(c) || is_upper(c) || is_lower(c) || c == '+' || c == '/' || c == '-' || c == '_';
}

static sf_bytes word_at(sf_bytes text)
{
    size_t n = 0;

    while (n < text.n && is_word(text.p[n]))
        n++;
    return sf_bytes_of(text.p, n);
}

/* Like an access key, a secret key, a token, a hash: none of them reads like a word, a path, a region or a date. */
static bool looks_secret(sf_bytes w)
{
    size_t digits = 0, uppers = 0, lowers = 0;
    bool slash = memchr(w.p, '/', w.n) != NULL;

    for (size_t i = 0; i < w.n; i++) {
        digits += is_digit(w.p[i]);
        uppers += is_upper(w.p[i]);
        lowers += is_lower(w.p[i]);
    }
    if (digits > 0 && uppers > 0 && uppers + lowers > 1 && w.n >= (slash ? 16 : 6))
        return true;
    if (w.n >= 16 && !slash && digits > 0 && uppers + lowers > 1)
        return true;
    return w.n >= 40 && (!slash || (uppers > 0 && lowers > 0));
}

static bool names_secret(sf_bytes w)
{
    static const char *const names[] = {"key", "secret", "token", "passw", "credential", "authorization"};

    for (size_t k = 0; k < sizeof(names) / sizeof(names[0]); k++) {
        size_t n = strlen(names[k]);

        for (size_t i = 0; i + n <= w.n; i++)
            if (strncasecmp((const char *)w.p + i, names[k], n) == 0)
                return true;
    }
    return false;
}

/* How much of the text is `": "` and the value behind it, of something that was named just before; *sign is the first part.
 * 0 when nothing is given. */
static size_t value_length(sf_bytes text, size_t *sign)
{
    size_t i = 0, begin;
    uint8_t quote = 0;

    while (i < text.n && (text.p[i] == '"' || text.p[i] == '\'' || text.p[i] == ' ' || text.p[i] == '>'))
        i++;
    if (i < text.n && (text.p[i] == ':' || text.p[i] == '=' || (i > 0 && text.p[i - 1] == '>')))
        i += text.p[i] == ':' || text.p[i] == '=';
    else
        return 0;
    while (i < text.n && text.p[i] <= ' ')
        i++;
    if (i < text.n && (text.p[i] == '"' || text.p[i] == '\''))
        quote = text.p[i++];
    *sign = begin = i;
    while (i < text.n && (quote ? text.p[i] != quote : text.p[i] > ' ' && text.p[i] != ',' && text.p[i] != '<'))
        i++;
    return i > begin ? i : 0;
}

static void put_plain(struct bounded_line *l, sf_bytes text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = (char)text.p[i], escaped[8];

        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            if (l->n > 0 && l->s[l->n - 1] != ' ')
                put(l, " ", 1);
        } else if (text.p[i] < ' ' || c == 0x7f) {
            put(l, escaped, (size_t)snprintf(escaped, sizeof(escaped), "\\x%02x", text.p[i]));
        } else {
            put(l, &c, 1);
        }
    }
}

/* Not in the middle of a character; dots where more was said. */
static void finish(struct bounded_line *l)
{
    while (l->n > 0 && l->s[l->n - 1] == ' ')
        l->n--;
    if (l->cut) {
        if (l->n > l->cap - 4)
            l->n = l->cap - 4;
        while (l->n > 0 && ((uint8_t)l->s[l->n - 1] & 0x80))
            l->n--;
        memcpy(l->s + l->n, "...", 3);
        l->n += 3;
    }
    l->s[l->n] = '\0';
}

void sf__said(char *out, size_t cap, sf_bytes text)
{
    struct bounded_line l = {.s = out, .cap = cap};

    while (text.n > 0 && text.p[text.n - 1] <= ' ')
        text.n--;
    while (text.n > 0 && !l.cut) {
        sf_bytes word = word_at(text);
        size_t n = word.n, sign;

        if (n == 0) {
            put_plain(&l, sf_bytes_of(text.p, 1));
            text = sf_bytes_of(text.p + 1, text.n - 1);
            continue;
        }
        if (looks_secret(word))
            put(&l, "***", 3);
        else
            put(&l, (const char *)word.p, n);
        text = sf_bytes_of(text.p + n, text.n - n);
        n = names_secret(word) ? value_length(text, &sign) : 0;
        if (n == 0)
            continue;
        put_plain(&l, sf_bytes_of(text.p, sign));
        put(&l, "***", 3);
        text = sf_bytes_of(text.p + n, text.n - n);
    }
    finish(&l);
}

void sf__said_last(char *out, size_t cap, sf_bytes text)
{
    sf_bytes last = {0};
    size_t lines = 0;

    while (text.n > 0 && text.p[text.n - 1] <= ' ')
        text.n--;
    for (size_t begin = text.n; begin > 0 && lines < MAX_LAST_LINES && text.n - begin < cap;) {
        begin--;
        if (begin > 0 && text.p[begin - 1] != '\n')
            continue;
        if (lines > 0 && text.n - begin >= cap)
            break;
        last = sf_bytes_of(text.p + begin, text.n - begin);
        lines++;
    }
    if (lines == 0 && text.n > 0) /* one long line: where it ends */
        last = sf_bytes_of(text.p + text.n - (text.n < cap ? text.n : cap), text.n < cap ? text.n : cap);
    sf__said(out, cap, last);
}
