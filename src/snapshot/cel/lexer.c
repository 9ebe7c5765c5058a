#include "snapshot/cel/lexer.h"

#include "base/error.h"
#include "base/utf8.h"
#include "snapshot/cel/syntax.h"

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_name(int c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The byte at `pos`, or -1 behind the end. */
static int at(sf_bytes text, size_t pos)
{
    return pos < text.n ? text.p[pos] : -1;
}

static uint32_t skip_blanks(sf_bytes text, uint32_t pos)
{
    for (;;) {
        int c = at(text, pos);

        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') {
            pos++;
        } else if (c == '/' && at(text, pos + 1) == '/') {
            while (pos < text.n && text.p[pos] != '\n')
                pos++;
        } else {
            return pos;
        }
    }
}

/* ------------------------------------------------------------------ numbers --------------------------------------- */

static size_t skip_digits(sf_bytes text, size_t pos)
{
    while (is_digit(at(text, pos)))
        pos++;
    return pos;
}

/* Behind the number that begins at `pos`: 12, 0x1f, 12u, 1.5, .5, 1e3. */
static size_t skip_number(sf_bytes text, size_t pos)
{
    size_t end, exponent;
    bool whole = true;

    if (at(text, pos) == '0' && at(text, pos + 1) == 'x' && is_hex(at(text, pos + 2))) {
        for (end = pos + 2; is_hex(at(text, end));)
            end++;
    } else {
        end = skip_digits(text, pos);
        if (at(text, end) == '.' && is_digit(at(text, end + 1))) {
            end = skip_digits(text, end + 1);
            whole = false;
        }
        if (at(text, end) == 'e' || at(text, end) == 'E') {
            exponent = end + 1;
            if (at(text, exponent) == '+' || at(text, exponent) == '-')
                exponent++;
            if (is_digit(at(text, exponent))) {
                end = skip_digits(text, exponent);
                whole = false;
            }
        }
    }
    if (whole && (at(text, end) == 'u' || at(text, end) == 'U'))
        end++;
    return end;
}

/* ------------------------------------------------------------------ strings and bytes ----------------------------- */

struct literal {
    sf_bytes text;
    size_t pos;     /* of what is read next */
    uint32_t begin; /* for messages */
    bool raw, bytes;
    uint8_t quote;
    size_t quotes; /* 1 or 3 */
    uint8_t *out;
    size_t n;
};

static sf_status bad_literal(const struct literal *l, const char *what, sf_error *err)
{
    return sf__cel_complain(err, l->text, l->begin, "invalid %s literal: %s", l->bytes ? "bytes" : "string", what);
}

static bool closes(const struct literal *l)
{
    for (size_t i = 0; i < l->quotes; i++)
        if (at(l->text, l->pos + i) != l->quote)
            return false;
    return true;
}

/* `count` digits of the base at l->pos; false when there are fewer. */
static bool take_number(struct literal *l, unsigned base, size_t count, uint32_t *out)
{
    uint32_t v = 0;

    for (size_t i = 0; i < count; i++) {
        int c = at(l->text, l->pos + i);
        unsigned digit;

        if (!is_hex(c))
            return false;
        digit = is_digit(c) ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
        if (digit >= base)
            return false;
        v = v * base + digit;
    }
    l->pos += count;
    *out = v;
    return true;
}

/* A code point of a string, a byte of bytes. */
static sf_status put_code(struct literal *l, uint32_t v, sf_error *err)
{
    if (l->bytes) {
        if (v > 255)
            return bad_literal(l, "an escape exceeds one byte", err);
        l->out[l->n++] = (uint8_t)v;
        return SF_OK;
    }
    if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return bad_literal(l, "an escape is no code point of Unicode", err);
    l->n += sf_utf8_encode(l->out + l->n, v); /* no escape is shorter than what it stands for */
    return SF_OK;
}

static sf_status escape_decode(struct literal *l, sf_error *err)
{
    static const char names[] = "abfnrtv\\?\"'`", codes[] = "\a\b\f\n\r\t\v\\?\"'`";
    int c = at(l->text, ++l->pos);
    const char *name = c > 0 ? strchr(names, c) : NULL;
    uint32_t v;
    bool ok;

    if (name) {
        l->pos++;
        return put_code(l, (uint8_t)codes[name - names], err);
    }
    if (c >= '0' && c <= '3') {
        ok = take_number(l, 8, 3, &v);
        return ok ? put_code(l, v, err) : bad_literal(l, "an octal escape has three digits", err);
    }
    if (c != 'x' && c != 'X' && c != 'u' && c != 'U')
        return bad_literal(l, "there is no such escape", err);
    if (l->bytes && (c == 'u' || c == 'U'))
        return bad_literal(l, "\\u and \\U are for strings", err);
    l->pos++;
    ok = take_number(l, 16, c == 'u' ? 4 : c == 'U' ? 8 : 2, &v);
    return ok ? put_code(l, v, err) : bad_literal(l, "an escape has too few digits", err);
}

/* One character as it stands there. */
static sf_status plain_decode(struct literal *l, sf_error *err)
{
    sf_cursor c = sf_bytes_of(l->text.p + l->pos, l->text.n - l->pos);
    size_t before = c.n;
    uint32_t v;

    if (l->quotes == 1 && (*c.p == '\n' || *c.p == '\r'))
        return bad_literal(l, "it is not closed on its line", err);
    if (!sf_cursor_utf8(&c, &v))
        return bad_literal(l, "it is not UTF-8", err);
    memcpy(l->out + l->n, l->text.p + l->pos, before - c.n);
    l->n += before - c.n;
    l->pos += before - c.n;
    return SF_OK;
}

/* l->pos stands behind the opening quotes. */
static sf_status literal_decode(struct literal *l, sf_error *err)
{
    while (!closes(l)) {
        sf_status rc;

        if (l->pos >= l->text.n)
            return bad_literal(l, "it is not closed", err);
        rc = !l->raw && l->text.p[l->pos] == '\\' ? escape_decode(l, err) : plain_decode(l, err);
        if (rc != SF_OK)
            return rc;
    }
    l->pos += l->quotes;
    return SF_OK;
}

/* How many letters of prefix stand before the quote of a literal: "", r, b, br, in either case. False when
 * none begins here. */
static bool literal_begins(sf_bytes text, size_t pos, struct literal *l)
{
    size_t quote = pos;

    l->bytes = (at(text, quote) | 0x20) == 'b';
    quote += l->bytes;
    l->raw = (at(text, quote) | 0x20) == 'r';
    quote += l->raw;
    if (at(text, quote) != '"' && at(text, quote) != '\'')
        return false;
    l->quote = text.p[quote];
    l->quotes = at(text, quote + 1) == l->quote && at(text, quote + 2) == l->quote ? 3 : 1;
    l->pos = quote + l->quotes;
    return true;
}

/* ------------------------------------------------------------------ tokens ---------------------------------------- */

/* At most as many bytes as it stands for. */
static size_t literal_room(struct literal l)
{
    size_t begin = l.pos;

    while (l.pos < l.text.n && !closes(&l))
        l.pos += !l.raw && l.text.p[l.pos] == '\\' ? 2 : 1;
    return l.pos - begin;
}

static sf_status literal_token(sf_cel_token *out, struct literal *l, sf_arena *arena, sf_error *err)
{
    sf_status rc;

    l->out = sf__arena_alloc(arena, literal_room(*l) + 4); /* one character more than fits may be written before it ends */
    if (!l->out)
        return sf_fail(err, SF_NOMEM, "CEL expression");
    rc = literal_decode(l, err);
    out->kind = SF_CEL_T_LITERAL;
    out->value = l->bytes ? sf__cel_bytes(sf_bytes_of(l->out, l->n)) : sf__cel_string(sf_bytes_of(l->out, l->n));
    return rc;
}

static bool sign_token(sf_cel_token *out, sf_bytes text, size_t pos, size_t *end)
{
    static const char *const pairs[] = {"&&", "||", "==", "!=", "<=", ">="};
    int c = at(text, pos);

    out->kind = SF_CEL_T_SIGN;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (c == pairs[i][0] && at(text, pos + 1) == pairs[i][1]) {
            out->sign = SF_CEL_SIGN2(pairs[i][0], pairs[i][1]);
            *end = pos + 2;
            return true;
        }
    }
    out->sign = (unsigned)c;
    *end = pos + 1;
    return c > 0 && strchr("+-*/%<>!?:.,()[]{}", c) != NULL;
}

sf_status sf__cel_token(sf_cel_token *out, sf_bytes text, uint32_t pos, uint32_t *next, sf_arena *arena, sf_error *err)
{
    struct literal l = {.text = text};
    sf_status rc = SF_OK;
    size_t end;
    int c;

    pos = skip_blanks(text, pos);
    l.begin = pos;
    c = at(text, pos);
    *out = (sf_cel_token){.kind = SF_CEL_T_END, .pos = pos};
    end = pos;
    if (c < 0) {
        /* the end */
    } else if (literal_begins(text, pos, &l)) {
        rc = literal_token(out, &l, arena, err);
        end = l.pos;
    } else if (is_digit(c) || (c == '.' && is_digit(at(text, pos + 1)))) {
        out->kind = SF_CEL_T_NUMBER;
        end = skip_number(text, pos);
    } else if (is_name(c)) {
        out->kind = SF_CEL_T_IDENT;
        while (is_name(at(text, end)))
            end++;
    } else if (!sign_token(out, text, pos, &end)) {
        rc = sf__cel_complain(err, text, pos, "no expression has the character 0x%02x here", (unsigned)c);
    }
    out->text = sf_bytes_of(text.p + pos, end - pos);
    *next = (uint32_t)end;
    return rc;
}
