#include "base/json.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/utf8.h"

struct parser {
    const uint8_t *begin;
    sf_cursor c;
    unsigned flags, depth;
    size_t nodes;
    sf_arena *arena;
    sf_status status; /* of the first failure */
    sf_error *err;
};

static bool fail(struct parser *p, const char *what)
{
    p->status = sf_fail(p->err, SF_CORRUPT, "JSON: %s at byte %zu", what, (size_t)(p->c.p - p->begin));
    return false;
}

static bool fail_nomem(struct parser *p)
{
    p->status = sf_fail(p->err, SF_NOMEM, "JSON document");
    return false;
}

static void skip(struct parser *p, size_t n)
{
    p->c.p += n;
    p->c.n -= n;
}

static int peek(const struct parser *p)
{
    return p->c.n > 0 ? p->c.p[0] : -1;
}

static void skip_blanks(struct parser *p)
{
    while (p->c.n > 0 && (p->c.p[0] == ' ' || p->c.p[0] == '\t' || p->c.p[0] == '\n' || p->c.p[0] == '\r'))
        skip(p, 1);
}

static bool take_word(struct parser *p, const char *word)
{
    if (!sf_bytes_starts_with(p->c, sf_bytes_str(word)))
        return false;
    skip(p, strlen(word));
    return true;
}

/* ------------------------------------------------------------------ strings -------------------------------------- */

static bool take_hex4(struct parser *p, uint32_t *out)
{
    uint32_t v = 0;

    if (p->c.n < 4)
        return fail(p, "unfinished \\u escape");
    for (size_t i = 0; i < 4; i++) {
        uint8_t c = p->c.p[i], d;

        if (c >= '0' && c <= '9')
            d = (uint8_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            d = (uint8_t)((c | 0x20) - 'a' + 10);
        else
            return fail(p, "malformed \\u escape");
        v = v << 4 | d;
    }
    skip(p, 4);
    *out = v;
    return true;
}

/* Behind "\u". */
static bool take_unicode_escape(struct parser *p, uint32_t *out)
{
    uint32_t low;
    sf_cursor behind_high;

    if (!take_hex4(p, out))
        return false;
    if (*out < 0xd800 || *out > 0xdfff)
        return true;
    behind_high = p->c;
    if (*out < 0xdc00 && take_word(p, "\\u")) {
        if (!take_hex4(p, &low))
            return false;
        if (low >= 0xdc00 && low <= 0xdfff) {
            *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
            return true;
        }
        p->c = behind_high; /* what follows is a character of its own */
    }
    if (!(p->flags & SF_JSON_LONE_SURROGATES))
        return fail(p, "lone surrogate escape");
    *out = 0xfffd;
    return true;
}

/* Behind the backslash. */
static bool take_escape(struct parser *p, uint32_t *out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    int c = peek(p);
    const char *at = c > 0 ? strchr(names, c) : NULL;

    if (c == 'u') {
        skip(p, 1);
        return take_unicode_escape(p, out);
    }
    if (!at)
        return fail(p, "unknown escape");
    skip(p, 1);
    *out = (uint8_t)values[at - names];
    return true;
}

/* From the opening quote to behind the closing one. Decoded text is never longer than its source. */
static bool take_string(struct parser *p, sf_bytes *out)
{
    const uint8_t *text;
    uint8_t *copy = NULL;
    size_t n = 0, bound = 0;
    uint32_t v;

    if (peek(p) != '"')
        return fail(p, "expected a string");
    skip(p, 1);
    text = p->c.p;
    for (;;) {
        const uint8_t *at = p->c.p;
        int c = peek(p);

        if (c < 0)
            return fail(p, "unfinished string");
        if (c < 0x20)
            return fail(p, "raw control character in a string");
        if (c == '"')
            break;
        if (c != '\\') {
            if (!sf_cursor_utf8(&p->c, &v))
                return fail(p, "invalid UTF-8");
            if (copy)
                memcpy(copy + n, at, (size_t)(p->c.p - at));
            n += (size_t)(p->c.p - at);
            continue;
        }
        if (!copy) {
            while (bound < p->c.n && p->c.p[bound] != '"') /* to the closing quote, over escaped ones */
                bound += p->c.p[bound] == '\\' ? 2 : 1;
            copy = sf__arena_alloc(p->arena, n + bound + 1);
            if (!copy)
                return fail_nomem(p);
            if (n > 0)
                memcpy(copy, text, n);
        }
        skip(p, 1);
        if (!take_escape(p, &v))
            return false;
        n += sf_utf8_encode(copy + n, v);
    }
    skip(p, 1);
    *out = sf_bytes_of(copy ? copy : text, n);
    return true;
}

/* ------------------------------------------------------------------ numbers -------------------------------------- */

static size_t skip_digits(struct parser *p)
{
    size_t n = 0;

    while (n < p->c.n && p->c.p[n] >= '0' && p->c.p[n] <= '9')
        n++;
    skip(p, n);
    return n;
}

static bool take_number(struct parser *p, sf_json *v)
{
    bool zero;

    v->kind = SF_JSON_INT;
    if (peek(p) == '-')
        skip(p, 1);
    zero = peek(p) == '0';
    if (zero)
        skip(p, 1);
    else if (skip_digits(p) == 0)
        return fail(p, "expected a value");
    if (zero && skip_digits(p) > 0)
        return fail(p, "number with a leading zero");
    if (peek(p) == '.') {
        skip(p, 1);
        v->kind = SF_JSON_FLOAT;
        if (skip_digits(p) == 0)
            return fail(p, "fraction without digits");
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        skip(p, 1);
        v->kind = SF_JSON_FLOAT;
        if (peek(p) == '+' || peek(p) == '-')
            skip(p, 1);
        if (skip_digits(p) == 0)
            return fail(p, "exponent without digits");
    }
    return true;
}

/* ------------------------------------------------------------------ values --------------------------------------- */

static sf_json *take_value(struct parser *p);

/* Behind the opening bracket or brace. */
static bool take_children(struct parser *p, sf_json *v)
{
    bool object = v->kind == SF_JSON_OBJECT;
    int close = object ? '}' : ']';
    sf_json **end = &v->first;

    if (++p->depth > SF_JSON_MAX_DEPTH)
        return fail(p, "nested too deeply");
    skip_blanks(p);
    if (peek(p) == close) {
        skip(p, 1);
        p->depth--;
        return true;
    }
    for (;;) {
        sf_bytes key = {NULL, 0};
        sf_json *child;

        skip_blanks(p);
        if (object) {
            if (!take_string(p, &key))
                return false;
            skip_blanks(p);
            if (peek(p) != ':')
                return fail(p, "expected ':'");
            skip(p, 1);
            skip_blanks(p);
        }
        child = take_value(p);
        if (!child)
            return false;
        child->key = key;
        *end = child;
        end = &child->next;
        v->count++;
        skip_blanks(p);
        if (peek(p) == close)
            break;
        if (peek(p) != ',')
            return fail(p, object ? "expected ',' or '}'" : "expected ',' or ']'");
        skip(p, 1);
    }
    skip(p, 1);
    p->depth--;
    return true;
}

static bool take_value_into(struct parser *p, sf_json *v)
{
    int c = peek(p);

    if (c == '{' || c == '[') {
        skip(p, 1);
        v->kind = c == '{' ? SF_JSON_OBJECT : SF_JSON_ARRAY;
        return take_children(p, v);
    }
    if (c == '"') {
        v->kind = SF_JSON_STRING;
        return take_string(p, &v->str);
    }
    if (take_word(p, "null")) {
        v->kind = SF_JSON_NULL;
        return true;
    }
    v->boolean = take_word(p, "true");
    if (v->boolean || take_word(p, "false")) {
        v->kind = SF_JSON_BOOL;
        return true;
    }
    if ((p->flags & SF_JSON_NAN) && (take_word(p, "NaN") || take_word(p, "Infinity") || take_word(p, "-Infinity"))) {
        v->kind = SF_JSON_FLOAT;
        return true;
    }
    return take_number(p, v);
}

static sf_json *take_value(struct parser *p)
{
    const uint8_t *begin = p->c.p;
    sf_json *v;

    if (p->nodes++ >= SF_JSON_MAX_NODES) {
        fail(p, "too many values");
        return NULL;
    }
    v = sf__arena_alloc(p->arena, sizeof(*v));
    if (!v) {
        fail_nomem(p);
        return NULL;
    }
    if (!take_value_into(p, v))
        return NULL;
    v->raw = sf_bytes_of(begin, (size_t)(p->c.p - begin));
    return v;
}

sf_status sf__json_parse(sf_json_doc *doc, sf_bytes text, unsigned flags, const sf_allocator *a, sf_error *err)
{
    sf_json_doc d = {.root = NULL};
    struct parser p = {.c = text, .flags = flags, .arena = &d.arena, .status = SF_OK, .err = err};

    if (text.n == 0)
        return sf_fail(err, SF_CORRUPT, "JSON: empty text");
    p.begin = text.p;
    sf__arena_init(&d.arena, a);
    skip_blanks(&p);
    d.root = take_value(&p);
    if (d.root) {
        skip_blanks(&p);
        if (p.c.n > 0)
            fail(&p, "text behind the value");
    }
    if (p.status != SF_OK) {
        sf__arena_cleanup(&d.arena);
        return p.status;
    }
    *doc = d;
    return SF_OK;
}

void sf__json_cleanup(sf_json_doc *doc)
{
    sf__arena_cleanup(&doc->arena);
    doc->root = NULL;
}

const sf_json *sf__json_get(const sf_json *object, const char *name)
{
    const sf_json *found = NULL;

    if (!object || object->kind != SF_JSON_OBJECT)
        return NULL;
    for (const sf_json *v = object->first; v; v = v->next)
        if (sf_bytes_eq(v->key, sf_bytes_str(name)))
            found = v;
    return found;
}

static bool number_is_zero(sf_bytes raw)
{
    for (size_t i = 0; i < raw.n && raw.p[i] != 'e' && raw.p[i] != 'E'; i++)
        if (raw.p[i] != '0' && raw.p[i] != '-' && raw.p[i] != '.')
            return false;
    return true;
}

bool sf__json_is_truthy(const sf_json *v)
{
    switch (v->kind) {
    case SF_JSON_NULL:
        return false;
    case SF_JSON_BOOL:
        return v->boolean;
    case SF_JSON_INT:
    case SF_JSON_FLOAT:
        return !number_is_zero(v->raw);
    case SF_JSON_STRING:
        return v->str.n > 0;
    case SF_JSON_ARRAY:
    case SF_JSON_OBJECT:
        return v->count > 0;
    }
    return false;
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

static void write_unit(sf_strbuf *out, uint32_t unit)
{
    static const char digits[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', digits[unit >> 12], digits[unit >> 8 & 15], digits[unit >> 4 & 15], digits[unit & 15]};

    sf__strbuf_add(out, text, sizeof(text));
}

static void write_escaped(sf_strbuf *out, uint32_t v)
{
    static const char raw[] = "\"\\\b\f\n\r\t", escaped[] = "\"\\bfnrt";
    const char *at = v > 0 && v < 0x80 ? strchr(raw, (int)v) : NULL;

    if (at) {
        sf__strbuf_putc(out, '\\');
        sf__strbuf_putc(out, escaped[at - raw]);
    } else if (v < 0x10000) {
        write_unit(out, v);
    } else {
        write_unit(out, 0xd800 + ((v - 0x10000) >> 10));
        write_unit(out, 0xdc00 + ((v - 0x10000) & 0x3ff));
    }
}

/* Bytes that stand for themselves. */
static void write_plain(sf_strbuf *out, sf_cursor *s)
{
    sf_bytes plain;
    size_t n = 0;

    while (n < s->n && s->p[n] >= 0x20 && s->p[n] < 0x7f && s->p[n] != '"' && s->p[n] != '\\')
        n++;
    if (sf_cursor_take(s, n, &plain))
        sf__strbuf_add(out, plain.p, plain.n);
}

bool sf__json_write_str(sf_strbuf *out, sf_bytes s)
{
    size_t before = out->n;
    uint32_t v;

    sf__strbuf_putc(out, '"');
    write_plain(out, &s);
    while (s.n > 0) {
        if (!sf_cursor_utf8(&s, &v)) {
            sf__strbuf_cut(out, before);
            return false;
        }
        write_escaped(out, v);
        write_plain(out, &s);
    }
    sf__strbuf_putc(out, '"');
    return true;
}

/* ------------------------------------------------------------------ writing values ------------------------------- */

struct member {
    const sf_json *v;
    size_t order; /* in the source: qsort is not stable */
};

static int by_name_then_order(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    int c = sf_bytes_cmp(x->v->key, y->v->key);

    return c != 0 ? c : (x->order > y->order) - (x->order < y->order);
}

static sf_status write_sorted(sf_strbuf *out, const sf_json *v, sf_error *err);

static sf_status write_object(sf_strbuf *out, const sf_json *object, sf_error *err)
{
    struct member *members = sf__calloc(out->alloc, object->count + 1, sizeof(*members));
    sf_status rc = SF_OK;
    bool first = true;
    size_t n = 0;

    if (!members)
        return sf_fail(err, SF_NOMEM, "JSON object of %zu members", object->count);
    for (const sf_json *v = object->first; v; v = v->next, n++)
        members[n] = (struct member){v, n};
    if (n > 1)
        qsort(members, n, sizeof(*members), by_name_then_order);
    sf__strbuf_putc(out, '{');
    for (size_t i = 0; i < n && rc == SF_OK; i++) {
        if (i + 1 < n && sf_bytes_eq(members[i].v->key, members[i + 1].v->key))
            continue; /* the last of one name counts */
        if (!first)
            sf__strbuf_puts(out, ", ");
        first = false;
        if (!sf__json_write_str(out, members[i].v->key))
            rc = sf_fail(err, SF_CORRUPT, "the name of a JSON member is not UTF-8");
        sf__strbuf_puts(out, ": ");
        if (rc == SF_OK)
            rc = write_sorted(out, members[i].v, err);
    }
    sf__strbuf_putc(out, '}');
    sf__free(out->alloc, members);
    return rc;
}

/* Recursion is bounded: a parsed document is SF_JSON_MAX_DEPTH deep at most. */
static sf_status write_sorted(sf_strbuf *out, const sf_json *v, sf_error *err)
{
    sf_status rc = SF_OK;

    switch (v->kind) {
    case SF_JSON_NULL:
    case SF_JSON_BOOL:
    case SF_JSON_INT:
    case SF_JSON_FLOAT:
        sf__strbuf_add(out, v->raw.p, v->raw.n);
        break;
    case SF_JSON_STRING:
        if (!sf__json_write_str(out, v->str))
            rc = sf_fail(err, SF_CORRUPT, "a JSON string is not UTF-8");
        break;
    case SF_JSON_ARRAY:
        sf__strbuf_putc(out, '[');
        for (const sf_json *e = v->first; e && rc == SF_OK; e = e->next) {
            if (e != v->first)
                sf__strbuf_puts(out, ", ");
            rc = write_sorted(out, e, err);
        }
        sf__strbuf_putc(out, ']');
        break;
    case SF_JSON_OBJECT:
        rc = write_object(out, v, err);
        break;
    }
    return rc;
}

sf_status sf__json_write_sorted(sf_strbuf *out, const sf_json *v, sf_error *err)
{
    return write_sorted(out, v, err);
}
