/* Regular expressions, written as RE2 reads them, found by PCRE2's search without backtracking. PCRE2 would
 * begin anew at each character of the text; with what may stand before the pattern put in front of it, it
 * begins once, and a search takes the text's length times the states that are alive. What PCRE2 would read in
 * another way than RE2 is refused or rewritten first: https://github.com/google/re2/wiki/Syntax beside
 * pcre2pattern(3).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdio.h>

#include "base/limits.h"
#include "snapshot/cel/function.h"

#define BLANKS "\\t\\n\\f\\r " /* RE2's \s; PCRE2's has the vertical tab, too */

struct rewriting {
    sf_bytes in;
    size_t pos;
    char *out; /* has room for what one byte may become, 16, each */
    size_t n;
    bool in_class;
    size_t open;         /* parentheses */
    bool folds;          /* there was an (?i) */
    const char *refused; /* what is not RE2's */
};

static int next(const struct rewriting *r, size_t ahead)
{
    return r->pos + ahead < r->in.n ? r->in.p[r->pos + ahead] : -1;
}

static void copy(struct rewriting *r, size_t n)
{
    memcpy(r->out + r->n, r->in.p + r->pos, n);
    r->n += n;
    r->pos += n;
}

static void put(struct rewriting *r, const char *text)
{
    size_t n = strlen(text);

    memcpy(r->out + r->n, text, n);
    r->n += n;
}

static void rewrite_quoted(struct rewriting *r)
{
    copy(r, 2);
    while (next(r, 0) >= 0 && !(next(r, 0) == '\\' && next(r, 1) == 'E'))
        copy(r, 1);
    if (next(r, 0) >= 0)
        copy(r, 2);
    else
        put(r, "\\E");
}

static bool is_digit(int c, int last)
{
    return c >= '0' && c <= last;
}

static bool is_upper(int c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_letter(int c)
{
    return is_upper(c) || (c >= 'a' && c <= 'z');
}

static bool is_word(int c)
{
    return is_letter(c) || is_digit(c, '9');
}

static bool is_hex(int c)
{
    return is_digit(c, '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f' && is_letter(c));
}

/* "^", "$", "\b": PCRE2 repeats them in a group only. */
static void rewrite_assertion(struct rewriting *r, size_t n)
{
    int behind = next(r, n);
    bool repeated = behind == '*' || behind == '+' || behind == '?' || behind == '{';

    if (repeated)
        put(r, "(?:");
    copy(r, n);
    if (repeated)
        put(r, ")");
}

/* "\x" and two digits, or some in braces. */
static void rewrite_hex(struct rewriting *r)
{
    size_t begin = next(r, 2) == '{' ? 3 : 2, i = begin;

    while (next(r, i) >= 0 && is_hex(next(r, i)) && (begin == 3 || i < 4))
        i++;
    if (begin == 2 ? i < 4 : i == 3 || next(r, i) != '}')
        r->refused = "\\x without its digits";
    else
        copy(r, begin == 2 ? i : i + 1);
}

/* "\0", or up to three digits. */
static void rewrite_octal(struct rewriting *r)
{
    unsigned code = 0;
    char text[16];
    size_t i = 1;

    for (; i < 4 && is_digit(next(r, i), '7'); i++)
        code = 8 * code + (unsigned)(next(r, i) - '0');
    snprintf(text, sizeof(text), "\\x{%x}", code);
    put(r, text);
    r->pos += i;
}

/* "\pL", "\p{Greek}", "\p{^Lu}". PCRE2 has more names, and under (?i) it knows what lies in a category, RE2
 * what is the same as something there but for its case. */
static void rewrite_property(struct rewriting *r)
{
    static const char *const cased[] = {"Lu", "Ll", "Lt"};
    bool braces = next(r, 2) == '{';
    size_t begin = braces ? 3 : 2, n = 0;

    begin += braces && next(r, begin) == '^';
    while (next(r, begin + n) >= 0 && (is_letter(next(r, begin + n)) || next(r, begin + n) == '_') && (braces || n < 1))
        n++;
    if (n == 0 || !is_upper(next(r, begin)) || (n == 3 && next(r, begin) == 'X') ||
        (braces && next(r, begin + n) != '}')) {
        r->refused = "a property that RE2 does not have";
        return;
    }
    for (size_t i = 0; r->folds && i < sizeof(cased) / sizeof(cased[0]); i++)
        if (n == 2 && memcmp(r->in.p + r->pos + begin, cased[i], 2) == 0)
            r->refused = "a property of upper or lower case behind (?i)";
    copy(r, begin + n + braces);
}

static void rewrite_escape(struct rewriting *r)
{
    int c = next(r, 1);

    if (c == 's' || c == 'S') {
        if (c == 'S' && r->in_class)
            r->refused = "\\S in a class";
        put(r, r->in_class ? BLANKS : c == 's' ? "[" BLANKS "]" : "[^" BLANKS "]");
        r->pos += 2;
    } else if (c == 'v') { /* to PCRE2, any vertical blank */
        put(r, "\\x0b");
        r->pos += 2;
    } else if (c == 'Q' && !r->in_class) {
        rewrite_quoted(r);
    } else if (c == 'x') {
        rewrite_hex(r);
    } else if (c == '0' || (is_digit(c, '7') && is_digit(next(r, 2), '7'))) {
        rewrite_octal(r);
    } else if (c == 'p' || c == 'P') {
        rewrite_property(r);
    } else if (c > 0 && strchr("bBAz", c) && !r->in_class) {
        rewrite_assertion(r, 2);
    } else if (c > 0 && c < 0x80 && (strchr("dDwWnrtfa", c) || !is_word(c))) {
        copy(r, 2);
    } else {
        r->refused = "an escape that RE2 does not have";
    }
}

/* Its name is for those who ask what it has matched; nobody does, and PCRE2 has rules of its own for names.
 */
static void rewrite_named_group(struct rewriting *r, size_t name)
{
    size_t i = name;

    while (next(r, i) >= 0 && (is_word(next(r, i)) || next(r, i) == '_' || next(r, i) >= 0x80))
        i++;
    if (i == name || next(r, i) != '>') {
        r->refused = "a group with a bad name";
        return;
    }
    put(r, "(");
    r->pos += i + 1;
    r->open++;
}

/* "(?" is followed by flags, or by a name. */
static void rewrite_group(struct rewriting *r)
{
    bool folds = false;
    size_t i = 2;

    if (next(r, 1) == '*') {
        r->refused = "(*";
        return;
    }
    if (next(r, 1) != '?') {
        r->open++;
        copy(r, 1);
        return;
    }
    if (next(r, 2) == 'P' && next(r, 3) == '<') {
        rewrite_named_group(r, 4);
        return;
    }
    if (next(r, 2) == '<' && next(r, 3) != '=' && next(r, 3) != '!') {
        rewrite_named_group(r, 3);
        return;
    }
    for (; next(r, i) > 0 && strchr("imsU-", next(r, i)); i++)
        folds = folds || next(r, i) == 'i';
    if ((next(r, i) != ':' && next(r, i) != ')') || next(r, i - 1) == '-') {
        r->refused = "a group that RE2 does not have";
        return;
    }
    r->folds = r->folds || folds;
    r->open += next(r, i) == ':'; /* flags alone are closed already */
    copy(r, i + 1);
}

static void rewrite_end_of_group(struct rewriting *r)
{
    if (r->open == 0)
        r->refused = "a parenthesis that none has opened";
    else
        r->open--;
    copy(r, 1);
}

/* Behind a repetition stands at most one "?". */
static void rewrite_repeat(struct rewriting *r, size_t n)
{
    copy(r, n);
    if (next(r, 0) == '?')
        copy(r, 1);
    if (next(r, 0) == '*' || next(r, 0) == '+' || next(r, 0) == '?')
        r->refused = "a repetition of a repetition";
}

/* "{2}", "{2,}", "{2,5}"; any other brace is itself. */
static void rewrite_brace(struct rewriting *r)
{
    size_t i = 1;
    unsigned long v = 0, most = 0;

    for (; next(r, i) >= 0 && ((next(r, i) >= '0' && next(r, i) <= '9') || (next(r, i) == ',' && i > 1)); i++) {
        v = next(r, i) == ',' ? 0 : v * 10 + (unsigned long)(next(r, i) - '0');
        most = v > most ? v : most;
        if (most > 1000) {
            r->refused = "a repetition of more than 1000 times";
            return;
        }
    }
    if (i > 1 && next(r, i) == '}') {
        rewrite_repeat(r, i + 1);
    } else {
        put(r, "\\{");
        r->pos++;
    }
}

static void rewrite(struct rewriting *r)
{
    while (r->pos < r->in.n && !r->refused) {
        int c = next(r, 0);

        if (c == '\\') {
            rewrite_escape(r);
        } else if (r->in_class) {
            if (c == '[' && next(r, 1) == ':') { /* [:alpha:] */
                copy(r, 2);
                while (next(r, 0) >= 0 && next(r, 0) != ']')
                    copy(r, 1);
            } else if (c == '[') {
                put(r, "\\");
            }
            if (next(r, 0) < 0)
                break;
            r->in_class = next(r, 0) != ']' || c == '[';
            copy(r, 1);
        } else if (c == '[') {
            r->in_class = true;
            copy(r, next(r, 1) == '^' ? 2 : 1);
            if (next(r, 0) == ']') /* the first one is itself */
                copy(r, 1);
        } else if (c == '(') {
            rewrite_group(r);
        } else if (c == ')') {
            rewrite_end_of_group(r);
        } else if (c == '^' || c == '$') {
            rewrite_assertion(r, 1);
        } else if (c == '*' || c == '+' || c == '?') {
            rewrite_repeat(r, 1);
        } else if (c == '{') {
            rewrite_brace(r);
        } else {
            copy(r, 1);
        }
    }
}

struct taker {
    void *(*take)(size_t n, void *ctx);
    void *ctx;
};

static void *take_for_pcre(PCRE2_SIZE n, void *data)
{
    struct taker *t = data;

    return t->take(n, t->ctx);
}

static void free_nothing(void *p, void *data)
{
    (void)p;
    (void)data;
}

const void *sf__cel_regex_compile(sf_bytes pattern, void *(*take)(size_t n, void *ctx), void *ctx, char *reason,
                                  size_t size)
{
    struct rewriting r = {.in = pattern};
    struct taker *taker = take(sizeof(*taker), ctx);
    pcre2_general_context *general;
    pcre2_compile_context *options;
    const void *code = NULL;
    PCRE2_SIZE pos;
    int error;

    if (pattern.n > SF_LIMIT_CEL_PATTERN_BYTES) {
        snprintf(reason, size, "the regular expression has %zu bytes, more than %u", pattern.n,
                 SF_LIMIT_CEL_PATTERN_BYTES);
        return NULL;
    }
    snprintf(reason, size, "out of memory");
    r.out = take(16 * pattern.n + 32, ctx);
    if (!taker || !r.out)
        return NULL;
    put(&r, "(?s:.*?)(?:");
    rewrite(&r);
    put(&r, ")");
    if (r.refused) {
        snprintf(reason, size, "invalid regular expression: %s", r.refused);
        return NULL;
    }
    *taker = (struct taker){take, ctx};
    general = pcre2_general_context_create(take_for_pcre, free_nothing, taker);
    options = general ? pcre2_compile_context_create(general) : NULL;
    if (!options)
        return NULL;
    pcre2_set_newline(options, PCRE2_NEWLINE_LF);
    code = pcre2_compile((PCRE2_SPTR)r.out, r.n,
                         PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | PCRE2_ANCHORED, &error, &pos,
                         options);
    if (!code) {
        PCRE2_UCHAR text[100] = "";

        pcre2_get_error_message(error, text, sizeof(text));
        snprintf(reason, size, "invalid regular expression: %s", (const char *)text);
    }
    return code;
}

/* Room for the states of a search, and what a byte of the text takes at most when they are all alive: each is
 * compared with each, for none is kept twice. */
static const struct {
    size_t ints, steps;
} rooms[] = {{256, 4}, {512, 16}, {1024, 64}, {2048, 256}, {4096, 1024}};

bool sf__cel_regex_found(sf_cel_memory *m, const void *regex, sf_bytes text, bool *found)
{
    struct taker taker = {sf__cel_memory_take_for, m};
    pcre2_general_context *general = pcre2_general_context_create(take_for_pcre, free_nothing, &taker);
    pcre2_match_data *match = general ? pcre2_match_data_create(1, general) : NULL;
    pcre2_match_context *limits = general ? pcre2_match_context_create(general) : NULL;
    int rc = PCRE2_ERROR_NOMEMORY, few[256];

    if (!match || !limits)
        return sf__cel_fail(m, "out of memory");
    pcre2_set_match_limit(limits, 10 * SF_LIMIT_CEL_STEPS);
    pcre2_set_depth_limit(limits, 500);
    pcre2_set_heap_limit(limits, SF_LIMIT_CEL_BYTES / 1024);
    /* By what is alive at one time; it tells when there is more. */
    for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
        int *states = i == 0 ? few : sf__cel_memory_take(m, rooms[i].ints * sizeof(*states));

        if (!states || !sf__cel_memory_steps(m, rooms[i].steps + text.n * rooms[i].steps))
            return false;
        rc = pcre2_dfa_match(regex, (PCRE2_SPTR)(text.p ? text.p : (const uint8_t *)""), text.n, 0,
                             PCRE2_NO_UTF_CHECK | PCRE2_DFA_SHORTEST, match, limits, states, rooms[i].ints);
        if (rc != PCRE2_ERROR_DFA_WSSIZE)
            break;
    }
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) {
        *found = rc >= 0;
        return true;
    }
    return sf__cel_fail(m, "the regular expression takes too long (PCRE2 error %d)", rc);
}
