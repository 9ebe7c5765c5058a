#include "snapshot/cel/checker.h"

#include <stdio.h>

#include "base/error.h"
#include "base/limits.h"
#include "snapshot/cel/function.h"

enum { KIND_DYN = SF_CEL_DURATION + 1 }; /* known when it is evaluated */

/* Of a list, `a` is that of its elements; of a map, `a` is that of its keys and `b` of its values. Keys are
 * of no type that has parts: so a type has at most one long branch, however often variables of macros double
 * it. */
typedef struct sf_cel_type {
    int kind;
    const struct sf_cel_type *a, *b;
} sf_cel_type;

static const sf_cel_type type_dyn = {.kind = KIND_DYN};
static const sf_cel_type scalars[] = {
    [SF_CEL_NULL] = {.kind = SF_CEL_NULL},
    [SF_CEL_BOOL] = {.kind = SF_CEL_BOOL},
    [SF_CEL_INT] = {.kind = SF_CEL_INT},
    [SF_CEL_UINT] = {.kind = SF_CEL_UINT},
    [SF_CEL_DOUBLE] = {.kind = SF_CEL_DOUBLE},
    [SF_CEL_STRING] = {.kind = SF_CEL_STRING},
    [SF_CEL_BYTES] = {.kind = SF_CEL_BYTES},
    [SF_CEL_TYPE] = {.kind = SF_CEL_TYPE},
    [SF_CEL_TIMESTAMP] = {.kind = SF_CEL_TIMESTAMP},
    [SF_CEL_DURATION] = {.kind = SF_CEL_DURATION},
};

struct local {
    const struct local *outer;
    sf_bytes name;
    const sf_cel_type *type;
    uint32_t index;
};

struct checker {
    sf_bytes text;
    sf_arena *arena;
    sf_error *err;
    sf_cel_checked *checked;
    const struct local *locals;
    size_t prepared_left; /* bytes of `arena` for what is prepared; what finds no room is made at each
                             evaluation */
};

static sf_status check(struct checker *c, sf_cel_node *n);

static sf_status no_memory(const struct checker *c)
{
    return sf_fail(c->err, SF_NOMEM, "CEL expression");
}

/* ------------------------------------------------------------------ types ----------------------------------------- */

/* NULL without memory. */
static const sf_cel_type *type_of_two(struct checker *c, sf_cel_kind kind, const sf_cel_type *a, const sf_cel_type *b)
{
    sf_cel_type *t = a ? sf__arena_alloc(c->arena, sizeof(*t)) : NULL;

    if (t)
        *t = (sf_cel_type){.kind = (int)kind, .a = a, .b = b};
    return t;
}

static bool may_be_null(int kind)
{
    return kind == SF_CEL_TIMESTAMP || kind == SF_CEL_DURATION;
}

static bool agree(const sf_cel_type *a, const sf_cel_type *b)
{
    if (a->kind == KIND_DYN || b->kind == KIND_DYN)
        return true;
    if (a->kind != b->kind)
        return (a->kind == SF_CEL_NULL && may_be_null(b->kind)) || (b->kind == SF_CEL_NULL && may_be_null(a->kind));
    return (!a->a || agree(a->a, b->a)) && (!a->b || agree(a->b, b->b));
}

static bool same(const sf_cel_type *a, const sf_cel_type *b)
{
    return a == b || (a->kind == b->kind && (!a->a || same(a->a, b->a)) && (!a->b || same(a->b, b->b)));
}

static const sf_cel_type *join(const sf_cel_type *a, const sf_cel_type *b)
{
    return !a ? b : same(a, b) ? a : &type_dyn;
}

static bool is_bool(const sf_cel_type *t)
{
    return t->kind == SF_CEL_BOOL || t->kind == KIND_DYN;
}

static size_t type_format(char *out, size_t size, const sf_cel_type *t)
{
    size_t n;

    if (t->kind == KIND_DYN)
        return (size_t)snprintf(out, size, "dyn");
    n = (size_t)snprintf(out, size, "%s", sf__cel_kind_name((sf_cel_kind)t->kind));
    if (!t->a || n + 1 >= size)
        return n < size ? n : size - 1;
    n += (size_t)snprintf(out + n, size - n, "(");
    n += type_format(out + n, size - n, t->a);
    if (t->b && n + 2 < size) {
        n += (size_t)snprintf(out + n, size - n, ", ");
        n += type_format(out + n, size - n, t->b);
    }
    if (n + 1 < size)
        n += (size_t)snprintf(out + n, size - n, ")");
    return n;
}

static sf_status no_overload(const struct checker *c, const sf_cel_node *n, sf_bytes name)
{
    char types[200] = "";
    size_t used = 0;

    for (size_t i = 0; i < n->arg_count && used + 4 < sizeof(types); i++) {
        if (i > 0)
            used += (size_t)snprintf(types + used, sizeof(types) - used, ", ");
        used += type_format(types + used, sizeof(types) - used, n->args[i]->type);
    }
    return sf__cel_complain(c->err, c->text, n->pos, "found no matching overload for '%.*s' applied to '(%s)'",
                            (int)(name.n < 60 ? name.n : 60), (const char *)name.p, types);
}

/* ------------------------------------------------------------------ overloads ------------------------------------- */

struct bound {
    const sf_cel_type *a, *b;
};

static const sf_cel_type *letter_type(char letter)
{
    switch (letter) {
    case 'b':
        return &scalars[SF_CEL_BOOL];
    case 'i':
        return &scalars[SF_CEL_INT];
    case 'u':
        return &scalars[SF_CEL_UINT];
    case 'd':
        return &scalars[SF_CEL_DOUBLE];
    case 's':
        return &scalars[SF_CEL_STRING];
    case 'y':
        return &scalars[SF_CEL_BYTES];
    case 't':
        return &scalars[SF_CEL_TIMESTAMP];
    case 'D':
        return &scalars[SF_CEL_DURATION];
    case 'T':
        return &scalars[SF_CEL_TYPE];
    default:
        return &type_dyn;
    }
}

static bool bind(const sf_cel_type **bound, const sf_cel_type *t)
{
    if (!*bound) {
        *bound = t;
        return true;
    }
    if (!agree(*bound, t))
        return false;
    if (!same(*bound, t)) /* one of them says less */
        *bound = (*bound)->kind == SF_CEL_NULL ? t : t->kind == SF_CEL_NULL ? *bound : &type_dyn;
    return true;
}

/* Whether a type fits the pattern at *p, which is moved behind what was read. */
static bool fits(const char **p, const sf_cel_type *t, struct bound *bound)
{
    char letter = *(*p)++;
    bool dyn = t->kind == KIND_DYN;

    switch (letter) {
    case 'A':
        return bind(&bound->a, t);
    case 'B':
        return bind(&bound->b, t);
    case 'L':
        return fits(p, dyn ? t : t->kind == SF_CEL_LIST ? t->a : &type_dyn, bound) && (dyn || t->kind == SF_CEL_LIST);
    case 'M': {
        bool map = t->kind == SF_CEL_MAP, key = fits(p, map ? t->a : &type_dyn, bound);

        return fits(p, map ? t->b : &type_dyn, bound) && key && (dyn || map);
    }
    default:
        return agree(letter_type(letter), t);
    }
}

static const sf_cel_type *result_type(struct checker *c, const char *pattern, const struct bound *bound)
{
    if (*pattern == 'A')
        return bound->a;
    if (*pattern == 'B')
        return bound->b;
    if (*pattern == 'L')
        return type_of_two(c, SF_CEL_LIST, result_type(c, pattern + 1, bound), NULL);
    return letter_type(*pattern);
}

/* How many parameters a pattern has. */
static size_t param_count(const char *p)
{
    size_t open = 0, count = 0;

    for (; *p != '\0'; p++) {
        if (*p == 'L' || *p == 'M') {
            open += *p == 'M';
            continue;
        }
        if (open > 0)
            open--;
        else
            count++;
    }
    return count;
}

static sf_status resolve(struct checker *c, sf_cel_node *n)
{
    bool known = false;

    for (size_t i = 0; i < sf__cel_function_count; i++) {
        const sf_cel_function *f = &sf__cel_functions[i];
        struct bound bound = {NULL, NULL};
        const char *p = f->params;
        const sf_cel_type *result;
        bool ok = true;

        if (!sf_bytes_eq(n->name, sf_bytes_str(f->name)) || !(f->form & (n->member ? SF_CEL_MEMBER : SF_CEL_GLOBAL)) ||
            param_count(f->params) != n->arg_count)
            continue;
        known = true;
        for (size_t k = 0; ok && k < n->arg_count; k++)
            ok = fits(&p, n->args[k]->type, &bound);
        if (!ok)
            continue;
        result = result_type(c, f->result, &bound);
        if (!result)
            return no_memory(c);
        n->function = f;
        n->type = join(n->type, result);
    }
    if (n->function)
        return SF_OK;
    if (known)
        return no_overload(c, n, n->name);
    return sf__cel_complain(c->err, c->text, n->pos, "undeclared reference to '%.*s'",
                            (int)(n->name.n < 60 ? n->name.n : 60), (const char *)n->name.p);
}

static sf_status check_args(struct checker *c, sf_cel_node *n)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; rc == SF_OK && i < n->arg_count; i++)
        rc = check(c, n->args[i]);
    return rc;
}

static sf_status check_call(struct checker *c, sf_cel_node *n)
{
    sf_status rc = check_args(c, n);
    const sf_cel_value *second;

    if (rc == SF_OK)
        rc = resolve(c, n);
    if (rc != SF_OK || n->arg_count != 2 || n->args[1]->kind != SF_CEL_N_CONSTANT)
        return rc;
    second = &n->args[1]->constant;
    if (second->kind == SF_CEL_STRING && strcmp(n->function->params, "ts") == 0 && !sf__cel_zone_is_known(second->s))
        return sf__cel_complain(c->err, c->text, n->args[1]->pos,
                                "'%.*s' is no offset such as '+02:00': names of regions are not supported",
                                (int)(second->s.n < 60 ? second->s.n : 60), (const char *)second->s.p);
    n->prepared = sf__cel_prepare(n->function, second, c->arena, &c->prepared_left);
    return SF_OK;
}

/* ------------------------------------------------------------------ names ----------------------------------------- */

static const struct local *find_local(const struct checker *c, const sf_cel_node *ident)
{
    const struct local *l = ident->rooted ? NULL : c->locals;

    while (l && !sf_bytes_eq(l->name, ident->name))
        l = l->outer;
    return l;
}

/* Whether a chain of selections, or a single name, reads as `name`: a.b is the column "a.b", too. */
static bool chain_is(const sf_cel_node *n, sf_bytes name)
{
    if (n->kind == SF_CEL_N_IDENT)
        return sf_bytes_eq(n->name, name);
    if (n->kind != SF_CEL_N_SELECT || n->test || name.n < n->name.n + 2 || name.p[name.n - n->name.n - 1] != '.')
        return false;
    if (memcmp(name.p + name.n - n->name.n, n->name.p, n->name.n) != 0)
        return false;
    return chain_is(n->args[0], sf_bytes_of(name.p, name.n - n->name.n - 1));
}

static bool root_is_local(const struct checker *c, const sf_cel_node *n)
{
    while (n->kind == SF_CEL_N_SELECT)
        n = n->args[0];
    return n->kind == SF_CEL_N_IDENT && find_local(c, n) != NULL;
}

/* As the name of a column or a type. */
static bool resolve_name(const struct checker *c, sf_cel_node *n)
{
    for (size_t i = 0; i < c->checked->column_count; i++) {
        if (!chain_is(n, c->checked->columns[i].name))
            continue;
        n->kind = SF_CEL_N_COLUMN;
        n->index = (uint32_t)i;
        n->type = &scalars[c->checked->columns[i].kind];
        return true;
    }
    for (int kind = SF_CEL_NULL; kind <= SF_CEL_DURATION; kind++) {
        if (!chain_is(n, sf_bytes_str(sf__cel_kind_name((sf_cel_kind)kind))))
            continue;
        n->kind = SF_CEL_N_CONSTANT;
        n->constant = (sf_cel_value){.kind = SF_CEL_TYPE, .type = (sf_cel_kind)kind};
        n->type = &scalars[SF_CEL_TYPE];
        return true;
    }
    return false;
}

static sf_status check_ident(struct checker *c, sf_cel_node *n)
{
    const struct local *l = find_local(c, n);

    if (l) {
        n->kind = SF_CEL_N_LOCAL;
        n->index = l->index;
        n->type = l->type;
        return SF_OK;
    }
    if (resolve_name(c, n))
        return SF_OK;
    return sf__cel_complain(c->err, c->text, n->pos, "undeclared reference to '%.*s'",
                            (int)(n->name.n < 60 ? n->name.n : 60), (const char *)n->name.p);
}

static sf_status check_select(struct checker *c, sf_cel_node *n)
{
    const sf_cel_type *operand;
    char type[80];
    sf_status rc;

    if (!n->test && !root_is_local(c, n) && resolve_name(c, n))
        return SF_OK;
    rc = check(c, n->args[0]);
    if (rc != SF_OK)
        return rc;
    operand = n->args[0]->type;
    if (operand->kind != SF_CEL_MAP && operand->kind != KIND_DYN) {
        type_format(type, sizeof(type), operand);
        return sf__cel_complain(c->err, c->text, n->pos,
                                "expression of type '%s' cannot be the operand of a select operation", type);
    }
    n->type = n->test ? &scalars[SF_CEL_BOOL] : operand->kind == SF_CEL_MAP ? operand->b : operand;
    return SF_OK;
}

/* ------------------------------------------------------------------ the rest -------------------------------------- */

static bool all_constant(const sf_cel_node *n)
{
    for (size_t i = 0; i < n->arg_count; i++)
        if (n->args[i]->kind != SF_CEL_N_CONSTANT)
            return false;
    return true;
}

/* Lists and maps of constants are constants. A map that would fail, for a key twice or of no kind for keys,
 * is left to fail when it is evaluated. */
static sf_status fold(struct checker *c, sf_cel_node *n)
{
    sf_cel_value v = {.kind = n->kind == SF_CEL_N_MAP ? SF_CEL_MAP : SF_CEL_LIST}, *items;

    if (!all_constant(n))
        return SF_OK;
    items = sf__arena_alloc(
        c->arena, (n->kind == SF_CEL_N_MAP ? sf__cel_map_bytes(n->arg_count / 2) : n->arg_count * sizeof(*items)) + 1);
    if (!items)
        return no_memory(c);
    for (size_t i = 0; i < n->arg_count; i++)
        items[i] = n->args[i]->constant;
    v.items = items;
    v.count = v.kind == SF_CEL_MAP ? n->arg_count / 2 : n->arg_count;
    if (v.kind == SF_CEL_MAP && !sf__cel_map_index(&v))
        return SF_OK;
    n->kind = SF_CEL_N_CONSTANT;
    n->constant = v;
    return SF_OK;
}

static sf_status check_list(struct checker *c, sf_cel_node *n)
{
    const sf_cel_type *element = NULL;
    sf_status rc = check_args(c, n);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < n->arg_count; i++)
        element = join(element, n->args[i]->type);
    n->type = type_of_two(c, SF_CEL_LIST, element ? element : &type_dyn, NULL);
    return n->type ? fold(c, n) : no_memory(c);
}

static sf_status check_map(struct checker *c, sf_cel_node *n)
{
    const sf_cel_type *key = NULL, *value = NULL;
    sf_status rc = check_args(c, n);

    if (rc != SF_OK)
        return rc;
    for (size_t i = 0; i < n->arg_count; i += 2) {
        key = join(key, n->args[i]->type);
        value = join(value, n->args[i + 1]->type);
    }
    n->type = type_of_two(c, SF_CEL_MAP, key && !key->a ? key : &type_dyn, value ? value : &type_dyn);
    return n->type ? fold(c, n) : no_memory(c);
}

static sf_status check_logic(struct checker *c, sf_cel_node *n)
{
    sf_status rc = check_args(c, n);

    for (size_t i = 0; rc == SF_OK && i < n->arg_count; i++)
        if (!is_bool(n->args[i]->type))
            rc = no_overload(c, n, sf_bytes_str(n->kind == SF_CEL_N_AND ? "_&&_" : "_||_"));
    n->type = &scalars[SF_CEL_BOOL];
    return rc;
}

static sf_status check_cond(struct checker *c, sf_cel_node *n)
{
    const sf_cel_type *result = NULL;
    sf_status rc = check_args(c, n);

    if (rc != SF_OK)
        return rc;
    if (!is_bool(n->args[0]->type) || !bind(&result, n->args[1]->type) || !bind(&result, n->args[2]->type))
        return no_overload(c, n, sf_bytes_str("_?_:_"));
    n->type = result;
    return SF_OK;
}

static sf_status macro_type(struct checker *c, sf_cel_node *n, const sf_cel_type *element)
{
    const sf_cel_node *predicate = n->macro == SF_CEL_MAP_EACH && n->arg_count == 2 ? NULL : n->args[1];

    if (predicate && !is_bool(predicate->type)) {
        char type[80];

        type_format(type, sizeof(type), predicate->type);
        return sf__cel_complain(c->err, c->text, predicate->pos,
                                "a condition is expected, not an expression of type '%s'", type);
    }
    if (n->macro == SF_CEL_MAP_EACH || n->macro == SF_CEL_FILTER)
        n->type =
            type_of_two(c, SF_CEL_LIST, n->macro == SF_CEL_FILTER ? element : n->args[n->arg_count - 1]->type, NULL);
    else
        n->type = &scalars[SF_CEL_BOOL];
    return n->type ? SF_OK : no_memory(c);
}

static sf_status check_macro(struct checker *c, sf_cel_node *n)
{
    sf_status rc = check(c, n->args[0]);
    const sf_cel_type *range = n->args[0]->type;
    struct local variable = {.outer = c->locals, .name = n->name};
    char type[80];

    if (rc != SF_OK)
        return rc;
    if (range->kind != SF_CEL_LIST && range->kind != SF_CEL_MAP && range->kind != KIND_DYN) {
        type_format(type, sizeof(type), range);
        return sf__cel_complain(c->err, c->text, n->pos, "expression of type '%s' cannot be the range of a macro", type);
    }
    variable.type = range->a ? range->a : &type_dyn;
    variable.index = c->locals ? c->locals->index + 1 : 0;
    if (variable.index + 1 > c->checked->local_count)
        c->checked->local_count = variable.index + 1;
    n->index = variable.index;
    c->locals = &variable;
    for (size_t i = 1; rc == SF_OK && i < n->arg_count; i++)
        rc = check(c, n->args[i]);
    c->locals = variable.outer;
    return rc == SF_OK ? macro_type(c, n, variable.type) : rc;
}

static sf_status check(struct checker *c, sf_cel_node *n)
{
    switch (n->kind) {
    case SF_CEL_N_CONSTANT:
        n->type = &scalars[n->constant.kind];
        return SF_OK;
    case SF_CEL_N_IDENT:
        return check_ident(c, n);
    case SF_CEL_N_SELECT:
        return check_select(c, n);
    case SF_CEL_N_CALL:
        return check_call(c, n);
    case SF_CEL_N_LIST:
        return check_list(c, n);
    case SF_CEL_N_MAP:
        return check_map(c, n);
    case SF_CEL_N_AND:
    case SF_CEL_N_OR:
        return check_logic(c, n);
    case SF_CEL_N_COND:
        return check_cond(c, n);
    case SF_CEL_N_MACRO:
        return check_macro(c, n);
    case SF_CEL_N_COLUMN:
    case SF_CEL_N_LOCAL:
        break;
    }
    return SF_OK;
}

sf_status sf__cel_check(sf_cel_node *root, sf_bytes text, sf_cel_checked *checked, sf_arena *arena, sf_error *err)
{
    struct checker c = {.text = text, .arena = arena, .err = err, .checked = checked, .prepared_left = SF_LIMIT_CEL_BYTES};

    checked->local_count = 0;
    return check(&c, root);
}
