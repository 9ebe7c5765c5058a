/* Recursive descent over CEL's grammar, lowest precedence first:
 *     expr   = or ["?" or ":" expr]
 *     or     = and {"||" and}          and   = relation {"&&" relation}
 *     relation = sum {("<" | "<=" | ">=" | ">" | "==" | "!=" | "in") sum}
 *     sum    = product {("+" | "-") product}      product = unary {("*" | "/" | "%") unary}
 *     unary  = {"!"} member | {"-"} member
 *     member = primary {"." name ["(" args ")"] | "[" expr "]"}
 *     primary = ["."] name ["(" args ")"] | "(" expr ")" | "[" args "]" | "{" [expr ":" expr {"," ...}] "}" |
 * literal */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "snapshot/cel/lexer.h"
#include "snapshot/cel/syntax.h"

typedef struct sf_cel_parser {
    sf_bytes text;
    sf_arena *arena;
    sf_error *err;
    sf_status status; /* the first failure; then every token is the end */
    sf_cel_token token;
    uint32_t next;  /* where the token after it begins */
    uint32_t depth; /* of the recursion */
} sf_cel_parser;

sf_status sf__cel_complain(sf_error *err, sf_bytes text, uint32_t pos, const char *fmt, ...)
{
    unsigned long line = 1, column = 1;
    char what[256];
    va_list args;

    for (uint32_t i = 0; i < pos && i < text.n; i++) {
        column = text.p[i] == '\n' ? 1 : column + ((text.p[i] & 0xc0) != 0x80);
        line += text.p[i] == '\n';
    }
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return sf_fail(err, SF_INVALID, "line %lu, column %lu: %s", line, column, what);
}

/* ------------------------------------------------------------------ tools ----------------------------------------- */

static void fail(sf_cel_parser *p, sf_status rc)
{
    if (p->status != SF_OK)
        return;
    p->status = rc;
    p->token = (sf_cel_token){.kind = SF_CEL_T_END, .pos = p->token.pos};
}

static void advance(sf_cel_parser *p)
{
    sf_status rc;

    if (p->status != SF_OK)
        return;
    rc = sf__cel_token(&p->token, p->text, p->next, &p->next, p->arena, p->err);
    if (rc != SF_OK)
        fail(p, rc);
}

static void fail_expected(sf_cel_parser *p, const char *what)
{
    const sf_cel_token *t = &p->token;

    if (p->status != SF_OK)
        return;
    if (t->kind == SF_CEL_T_END)
        fail(p, sf__cel_complain(p->err, p->text, t->pos, "%s is missing at the end", what));
    else
        fail(p, sf__cel_complain(p->err, p->text, t->pos, "%s is expected, not '%.*s'", what,
                                 (int)(t->text.n < 40 ? t->text.n : 40), (const char *)t->text.p));
}

static bool is_sign(const sf_cel_parser *p, unsigned sign)
{
    return p->token.kind == SF_CEL_T_SIGN && p->token.sign == sign;
}

static bool take_sign(sf_cel_parser *p, unsigned sign)
{
    if (!is_sign(p, sign))
        return false;
    advance(p);
    return true;
}

static void need_sign(sf_cel_parser *p, unsigned sign, const char *what)
{
    if (!take_sign(p, sign))
        fail_expected(p, what);
}

static bool is_word(const sf_cel_parser *p, const char *word)
{
    return p->token.kind == SF_CEL_T_IDENT && sf_bytes_eq(p->token.text, sf_bytes_str(word));
}

/* NULL without memory: noted. */
static sf_cel_node *node_new(sf_cel_parser *p, sf_cel_node_kind kind, uint32_t pos)
{
    sf_cel_node *n = sf__arena_alloc(p->arena, sizeof(*n));

    if (!n) {
        fail(p, sf_fail(p->err, SF_NOMEM, "CEL expression"));
        return NULL;
    }
    *n = (sf_cel_node){.kind = kind, .pos = pos, .depth = 1};
    return n;
}

static void too_deep(sf_cel_parser *p, uint32_t pos)
{
    if (p->status == SF_OK)
        fail(p, sf__cel_complain(p->err, p->text, pos, "the expression is nested more than %u deep", SF_LIMIT_CEL_DEPTH));
}

/* Adds a part, NULL after a failure. Room doubles: what is left behind in the arena is no more than what is
 * used. */
static void add_arg(sf_cel_parser *p, sf_cel_node *n, sf_cel_node *arg)
{
    size_t count = n ? n->arg_count : 0;

    if (!n || !arg)
        return;
    if (count == 0 || (count >= 4 && (count & (count - 1)) == 0)) {
        sf_cel_node **grown = sf__arena_alloc(p->arena, (count == 0 ? 4 : 2 * count) * sizeof(*grown));

        if (!grown) {
            fail(p, sf_fail(p->err, SF_NOMEM, "CEL expression"));
            return;
        }
        if (count > 0)
            memcpy(grown, n->args, count * sizeof(*grown));
        n->args = grown;
    }
    n->args[n->arg_count++] = arg;
    if (arg->depth + 1 > n->depth)
        n->depth = arg->depth + 1;
    if (n->depth > SF_LIMIT_CEL_DEPTH)
        too_deep(p, n->pos);
}

static sf_cel_node *call_new(sf_cel_parser *p, const char *name, uint32_t pos, sf_cel_node *a, sf_cel_node *b)
{
    sf_cel_node *n = node_new(p, SF_CEL_N_CALL, pos);

    if (n)
        n->name = sf_bytes_str(name);
    add_arg(p, n, a);
    add_arg(p, n, b);
    return n;
}

/* ------------------------------------------------------------------ literals -------------------------------------- */

static bool parse_int(const char *digits, bool negative, int64_t *out)
{
    uint64_t u;
    char *end;
    int base = digits[0] == '0' && digits[1] == 'x' ? 16 : 10;

    errno = 0;
    u = strtoull(digits, &end, base);
    if (errno != 0 || *end != '\0' || u > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - u) : (int64_t)u;
    return true;
}

static bool parse_uint(char *digits, uint64_t *out)
{
    int base = digits[0] == '0' && digits[1] == 'x' ? 16 : 10;
    char *end;

    errno = 0;
    *out = strtoull(digits, &end, base);
    return errno == 0 && (*end | 0x20) == 'u' && end[1] == '\0';
}

static bool parse_number(sf_bytes text, bool negative, sf_cel_value *out)
{
    char copy[400];
    bool hex = text.n > 1 && text.p[1] == 'x';
    double d;

    if (text.n >= sizeof(copy))
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    if ((text.p[text.n - 1] | 0x20) == 'u') {
        out->kind = SF_CEL_UINT;
        return !negative && parse_uint(copy, &out->u);
    }
    if (!hex && strpbrk(copy, ".eE")) {
        if (!sf__cel_double_parse(text, &d))
            return false;
        *out = sf__cel_double(negative ? -d : d);
        return true;
    }
    out->kind = SF_CEL_INT;
    return parse_int(copy, negative, &out->i);
}

static sf_cel_node *number(sf_cel_parser *p, bool negative, uint32_t pos)
{
    sf_cel_node *n = node_new(p, SF_CEL_N_CONSTANT, pos);

    if (n && !parse_number(p->token.text, negative, &n->constant))
        fail(p, sf__cel_complain(p->err, p->text, pos, "invalid number '%s%.*s'", negative ? "-" : "",
                                 (int)(p->token.text.n < 60 ? p->token.text.n : 60), (const char *)p->token.text.p));
    advance(p);
    return n;
}

static sf_cel_node *constant(sf_cel_parser *p, sf_cel_value value)
{
    sf_cel_node *n = node_new(p, SF_CEL_N_CONSTANT, p->token.pos);

    if (n)
        n->constant = value;
    advance(p);
    return n;
}

/* ------------------------------------------------------------------ macros ---------------------------------------- */

/* has(a.b): a look whether it is there. */
static sf_cel_node *expand_has(sf_cel_parser *p, sf_cel_node *call)
{
    if (call->arg_count != 1 || call->args[0]->kind != SF_CEL_N_SELECT) {
        fail(p, sf__cel_complain(p->err, p->text, call->pos, "has() takes a field: has(a.b)"));
        return call;
    }
    call->args[0]->test = true;
    return call->args[0];
}

/* list.all(x, ...) and its like; anything else stays the call that it is. */
static sf_cel_node *expand_macro(sf_cel_parser *p, sf_cel_node *call)
{
    static const char *const names[] = {"all", "exists", "exists_one", "map", "filter"};
    size_t i = 0;

    while (i < 5 && !sf_bytes_eq(call->name, sf_bytes_str(names[i])))
        i++;
    if (i == 5 || !(call->arg_count == 3 || (call->arg_count == 4 && i == SF_CEL_MAP_EACH)))
        return call;
    if (call->args[1]->kind != SF_CEL_N_IDENT || call->args[1]->rooted) {
        fail(p,
             sf__cel_complain(p->err, p->text, call->args[1]->pos, "%s() takes the name of a variable first", names[i]));
        return call;
    }
    call->kind = SF_CEL_N_MACRO;
    call->macro = (sf_cel_macro)i;
    call->name = call->args[1]->name;
    for (size_t k = 2; k < call->arg_count; k++)
        call->args[k - 1] = call->args[k];
    call->arg_count--;
    return call;
}

/* ------------------------------------------------------------------ grammar --------------------------------------- */

static sf_cel_node *expr(sf_cel_parser *p);

/* Up to the closing sign; a comma may stand before it when `trailing`. */
static void args(sf_cel_parser *p, sf_cel_node *n, unsigned close, const char *what, bool trailing)
{
    while (!is_sign(p, close) && p->status == SF_OK) {
        add_arg(p, n, expr(p));
        if (!take_sign(p, ','))
            break;
        if (!trailing && is_sign(p, close))
            fail_expected(p, "an expression");
    }
    need_sign(p, close, what);
}

static sf_cel_node *map_literal(sf_cel_parser *p)
{
    sf_cel_node *n = node_new(p, SF_CEL_N_MAP, p->token.pos);

    advance(p);
    while (!is_sign(p, '}') && p->status == SF_OK) {
        add_arg(p, n, expr(p));
        need_sign(p, ':', "':'");
        add_arg(p, n, expr(p));
        if (!take_sign(p, ','))
            break;
    }
    need_sign(p, '}', "'}'");
    return n;
}

static bool is_reserved(sf_bytes name)
{
    static const char *const words[] = {"as",       "break",     "const",  "continue", "else", "for",
                                        "function", "if",        "import", "in",       "let",  "loop",
                                        "package",  "namespace", "return", "var",      "void", "while"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (sf_bytes_eq(name, sf_bytes_str(words[i])))
            return true;
    return false;
}

/* A name, or a call of a global function. */
static sf_cel_node *named(sf_cel_parser *p, bool rooted)
{
    sf_cel_token t = p->token;
    sf_cel_node *n;

    if (t.kind != SF_CEL_T_IDENT) {
        fail_expected(p, "a name");
        return NULL;
    }
    if (is_reserved(t.text)) {
        fail(p, sf__cel_complain(p->err, p->text, t.pos, "'%.*s' is a reserved word", (int)t.text.n,
                                 (const char *)t.text.p));
        return NULL;
    }
    n = node_new(p, SF_CEL_N_IDENT, t.pos);
    advance(p);
    if (!n)
        return NULL;
    n->name = t.text;
    n->rooted = rooted;
    if (take_sign(p, '(')) {
        n->kind = SF_CEL_N_CALL;
        args(p, n, ')', "')'", false);
        if (sf_bytes_eq(n->name, sf_bytes_str("has")) && p->status == SF_OK)
            n = expand_has(p, n);
    } else if (is_sign(p, '{')) {
        fail(p, sf__cel_complain(p->err, p->text, p->token.pos, "messages are not supported"));
    }
    return n;
}

static sf_cel_node *primary(sf_cel_parser *p)
{
    sf_cel_token t = p->token;
    sf_cel_node *n;

    if (t.kind == SF_CEL_T_NUMBER)
        return number(p, false, t.pos);
    if (t.kind == SF_CEL_T_LITERAL)
        return constant(p, t.value);
    if (is_word(p, "true") || is_word(p, "false"))
        return constant(p, sf__cel_bool(is_word(p, "true")));
    if (is_word(p, "null"))
        return constant(p, (sf_cel_value){.kind = SF_CEL_NULL});
    if (t.kind == SF_CEL_T_IDENT)
        return named(p, false);
    if (take_sign(p, '.'))
        return named(p, true);
    if (take_sign(p, '(')) {
        n = expr(p);
        need_sign(p, ')', "')'");
        return n;
    }
    if (is_sign(p, '{'))
        return map_literal(p);
    if (is_sign(p, '[')) {
        n = node_new(p, SF_CEL_N_LIST, t.pos);
        advance(p);
        args(p, n, ']', "']'", true);
        return n;
    }
    fail_expected(p, "an expression");
    return NULL;
}

static sf_cel_node *selection(sf_cel_parser *p, sf_cel_node *operand)
{
    uint32_t pos = p->token.pos;
    sf_cel_node *n;

    advance(p); /* the dot */
    n = node_new(p, SF_CEL_N_SELECT, pos);
    if (p->token.kind != SF_CEL_T_IDENT || is_word(p, "in") || is_word(p, "true") || is_word(p, "false") ||
        is_word(p, "null")) {
        fail_expected(p, "the name of a field or function");
        return NULL;
    }
    if (n)
        n->name = p->token.text;
    add_arg(p, n, operand);
    advance(p);
    if (n && take_sign(p, '(')) {
        n->kind = SF_CEL_N_CALL;
        n->member = true;
        args(p, n, ')', "')'", false);
        if (p->status == SF_OK)
            n = expand_macro(p, n);
    } else if (is_sign(p, '{')) {
        fail(p, sf__cel_complain(p->err, p->text, p->token.pos, "messages are not supported"));
    }
    return n;
}

static sf_cel_node *member(sf_cel_parser *p)
{
    sf_cel_node *n = primary(p);

    while (p->status == SF_OK) {
        uint32_t pos = p->token.pos;

        if (is_sign(p, '.')) {
            n = selection(p, n);
        } else if (take_sign(p, '[')) {
            n = call_new(p, "_[_]", pos, n, expr(p));
            need_sign(p, ']', "']'");
        } else {
            break;
        }
    }
    return n;
}

static sf_cel_node *unary(sf_cel_parser *p)
{
    uint32_t pos = p->token.pos;
    unsigned sign = is_sign(p, '-') ? '-' : '!', count = 0;
    sf_cel_node *n;

    while (take_sign(p, sign))
        count++;
    if (count > SF_LIMIT_CEL_DEPTH)
        too_deep(p, pos);
    if (sign == '-' && count == 1 && p->token.kind == SF_CEL_T_NUMBER) /* the least int has no positive twin */
        return number(p, true, pos);
    n = member(p);
    if (count % 2 == 1 && p->status == SF_OK) /* an even number of them is none, as cel-cpp has it */
        n = call_new(p, sign == '-' ? "-_" : "!_", pos, n, NULL);
    return n;
}

static sf_cel_node *product(sf_cel_parser *p)
{
    sf_cel_node *n = unary(p);

    while (p->status == SF_OK && (is_sign(p, '*') || is_sign(p, '/') || is_sign(p, '%'))) {
        const char *name = is_sign(p, '*') ? "_*_" : is_sign(p, '/') ? "_/_" : "_%_";
        uint32_t pos = p->token.pos;

        advance(p);
        n = call_new(p, name, pos, n, unary(p));
    }
    return n;
}

static sf_cel_node *sum(sf_cel_parser *p)
{
    sf_cel_node *n = product(p);

    while (p->status == SF_OK && (is_sign(p, '+') || is_sign(p, '-'))) {
        const char *name = is_sign(p, '+') ? "_+_" : "_-_";
        uint32_t pos = p->token.pos;

        advance(p);
        n = call_new(p, name, pos, n, product(p));
    }
    return n;
}

/* The function of the relation that stands here, or NULL. */
static const char *relation_name(const sf_cel_parser *p)
{
    if (is_word(p, "in"))
        return "in";
    if (p->token.kind != SF_CEL_T_SIGN)
        return NULL;
    switch (p->token.sign) {
    case '<':
        return "_<_";
    case '>':
        return "_>_";
    case SF_CEL_SIGN2('<', '='):
        return "_<=_";
    case SF_CEL_SIGN2('>', '='):
        return "_>=_";
    case SF_CEL_SIGN2('=', '='):
        return "_==_";
    case SF_CEL_SIGN2('!', '='):
        return "_!=_";
    default:
        return NULL;
    }
}

static sf_cel_node *relation(sf_cel_parser *p)
{
    sf_cel_node *n = sum(p);

    for (const char *name; p->status == SF_OK && (name = relation_name(p)) != NULL;) {
        uint32_t pos = p->token.pos;

        advance(p);
        n = call_new(p, name, pos, n, sum(p));
    }
    return n;
}

/* One or more parts between && or ||, as one node. */
static sf_cel_node *chain(sf_cel_parser *p, unsigned sign, sf_cel_node_kind kind, sf_cel_node *(*part)(sf_cel_parser *))
{
    sf_cel_node *first = part(p), *n;

    if (!is_sign(p, sign))
        return first;
    n = node_new(p, kind, p->token.pos);
    add_arg(p, n, first);
    while (take_sign(p, sign))
        add_arg(p, n, part(p));
    return n;
}

static sf_cel_node *conjunction(sf_cel_parser *p)
{
    return chain(p, SF_CEL_SIGN2('&', '&'), SF_CEL_N_AND, relation);
}

static sf_cel_node *expr(sf_cel_parser *p)
{
    uint32_t pos;
    sf_cel_node *n, *cond;

    if (++p->depth > SF_LIMIT_CEL_DEPTH)
        too_deep(p, p->token.pos);
    if (p->status != SF_OK)
        return NULL;
    n = chain(p, SF_CEL_SIGN2('|', '|'), SF_CEL_N_OR, conjunction);
    pos = p->token.pos;
    if (take_sign(p, '?')) {
        cond = node_new(p, SF_CEL_N_COND, pos);
        add_arg(p, cond, n);
        add_arg(p, cond, chain(p, SF_CEL_SIGN2('|', '|'), SF_CEL_N_OR, conjunction));
        need_sign(p, ':', "':'");
        add_arg(p, cond, expr(p));
        n = cond;
    }
    p->depth--;
    return n;
}

sf_status sf__cel_parse(sf_cel_node **out, sf_bytes text, sf_arena *arena, sf_error *err)
{
    sf_cel_parser p = {.text = text, .arena = arena, .err = err, .status = SF_OK};

    if (text.n > SF_LIMIT_CEL_TEXT_BYTES)
        return sf_fail(err, SF_INVALID, "the expression has %zu bytes, more than %u", text.n, SF_LIMIT_CEL_TEXT_BYTES);
    advance(&p);
    *out = expr(&p);
    if (p.status == SF_OK && p.token.kind != SF_CEL_T_END)
        fail_expected(&p, "the end");
    return p.status;
}
