#include "snapshot/cel/cel.h"

#include "base/error.h"
#include "base/limits.h"
#include "base/utf8.h"
#include "snapshot/cel/function.h"

struct sf_cel {
    sf_arena arena; /* everything else, this itself excepted */
    sf_cel_node *root;
    sf_cel_checked checked;
};

sf_cel_kind sf__cel_column_kind(sf_bytes type)
{
    for (sf_cel_kind kind = SF_CEL_BOOL; kind <= SF_CEL_BYTES; kind++)
        if (sf_bytes_eq(type, sf_bytes_str(sf__cel_kind_name(kind))))
            return kind;
    return SF_CEL_ABSENT;
}

/* ------------------------------------------------------------------ compiling ------------------------------------- */

static bool copy_bytes(sf_arena *arena, sf_bytes *b)
{
    const char *p = sf__arena_strndup(arena, b->p, b->n);

    b->p = (const uint8_t *)p;
    return p != NULL;
}

static bool copy_columns(sf_cel *c, const sf_cel_column *columns, size_t count)
{
    sf_cel_column *own = sf__arena_alloc(&c->arena, count * sizeof(*own) + 1);

    if (!own)
        return false;
    for (size_t i = 0; i < count; i++) {
        own[i] = columns[i];
        if (!copy_bytes(&c->arena, &own[i].name))
            return false;
    }
    c->checked.columns = own;
    c->checked.column_count = count;
    return true;
}

sf_status sf__cel_compile(sf_cel **out, sf_bytes text, const sf_cel_column *columns, size_t column_count,
                          const sf_allocator *a, sf_error *err)
{
    sf_cel *c = sf__calloc(a, 1, sizeof(*c));
    sf_status rc;

    if (!c)
        return sf_fail(err, SF_NOMEM, "CEL expression");
    sf__arena_init(&c->arena, a);
    if (column_count > SF_LIMIT_CEL_COLUMNS) {
        sf__cel_free(c);
        return sf_fail(err, SF_INVALID, "there are %zu columns, more than %u", column_count, SF_LIMIT_CEL_COLUMNS);
    }
    rc = copy_columns(c, columns, column_count) && copy_bytes(&c->arena, &text)
             ? SF_OK
             : sf_fail(err, SF_NOMEM, "CEL expression");
    if (rc == SF_OK)
        rc = sf__cel_parse(&c->root, text, &c->arena, err);
    if (rc == SF_OK)
        rc = sf__cel_check(c->root, text, &c->checked, &c->arena, err);
    if (rc == SF_OK)
        *out = c;
    else
        sf__cel_free(c);
    return rc;
}

void sf__cel_free(sf_cel *c)
{
    if (!c)
        return;
    sf_arena arena = c->arena;

    sf__arena_cleanup(&arena);
    sf__free(arena.alloc, c);
}

size_t sf__cel_column_count(const sf_cel *c)
{
    return c->checked.column_count;
}

const sf_cel_column *sf__cel_columns(const sf_cel *c)
{
    return c->checked.columns;
}

/* ------------------------------------------------------------------ columns --------------------------------------- */

static bool unexpected(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given)
{
    int n = (int)(column->name.n < 60 ? column->name.n : 60);

    if (given->kind == SF_CEL_ABSENT)
        return sf__cel_fail(m, "there is no value for column '%.*s'", n, (const char *)column->name.p);
    return sf__cel_fail(m, "column '%.*s' is of type %s and cannot take the %s given", n, (const char *)column->name.p,
                        sf__cel_kind_name(column->kind),
                        given->kind == SF_CEL_NULL ? "null" : sf__cel_kind_name(given->kind));
}

static bool out_of_range(sf_cel_memory *m, const sf_cel_column *column)
{
    return sf__cel_fail(m, "the value for column '%.*s' is outside of %s's range",
                        (int)(column->name.n < 60 ? column->name.n : 60), (const char *)column->name.p,
                        sf__cel_kind_name(column->kind));
}

static bool take_int(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, sf_cel_value *out)
{
    if (given->kind == SF_CEL_INT || given->kind == SF_CEL_BOOL)
        sf__cel_set_int(out, given->kind == SF_CEL_INT ? given->i : given->b);
    else if (given->kind != SF_CEL_UINT)
        return unexpected(m, column, given);
    else if (given->u > INT64_MAX)
        return out_of_range(m, column);
    else
        sf__cel_set_int(out, (int64_t)given->u);
    return true;
}

static bool take_uint(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, sf_cel_value *out)
{
    if (given->kind == SF_CEL_UINT || given->kind == SF_CEL_BOOL)
        sf__cel_set_uint(out, given->kind == SF_CEL_UINT ? given->u : given->b);
    else if (given->kind != SF_CEL_INT)
        return unexpected(m, column, given);
    else if (given->i < 0)
        return out_of_range(m, column);
    else
        sf__cel_set_uint(out, (uint64_t)given->i);
    return true;
}

static bool take_double(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, sf_cel_value *out)
{
    if (given->kind == SF_CEL_DOUBLE)
        sf__cel_set_double(out, given->d);
    else if (given->kind == SF_CEL_INT)
        sf__cel_set_double(out, (double)given->i);
    else if (given->kind == SF_CEL_UINT)
        sf__cel_set_double(out, (double)given->u);
    else if (given->kind == SF_CEL_BOOL)
        sf__cel_set_double(out, given->b);
    else
        return unexpected(m, column, given);
    return true;
}

static bool take_text(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, bool whole,
                      sf_cel_value *out)
{
    const uint8_t *nul;

    if (given->kind != SF_CEL_BYTES && (given->kind != SF_CEL_STRING || column->kind == SF_CEL_BYTES))
        return unexpected(m, column, given);
    if (!sf__cel_memory_steps(m, given->s.n / 64)) /* it is searched, below */
        return false;
    sf__cel_set_bytes(out, given->s);
    out->kind = column->kind;
    nul = out->s.n > 0 && !whole ? memchr(out->s.p, 0, out->s.n) : NULL;
    if (nul) {
        out->s.n = (size_t)(nul - out->s.p);
        m->cut = true;
    }
    if (column->kind == SF_CEL_STRING && !sf_utf8_is_valid(out->s)) /* what is searched below must be */
        return sf__cel_fail(m, "the text given for column '%.*s' is not UTF-8",
                            (int)(column->name.n < 60 ? column->name.n : 60), (const char *)column->name.p);
    return true;
}

bool sf__cel_column_take(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, bool whole,
                         sf_cel_value *out)
{
    switch (column->kind) {
    case SF_CEL_INT:
        return take_int(m, column, given, out);
    case SF_CEL_UINT:
        return take_uint(m, column, given, out);
    case SF_CEL_DOUBLE:
        return take_double(m, column, given, out);
    case SF_CEL_BOOL:
        if (given->kind != SF_CEL_BOOL)
            return unexpected(m, column, given);
        sf__cel_set_bool(out, given->b);
        return true;
    default:
        return take_text(m, column, given, whole, out);
    }
}

/* ------------------------------------------------------------------ evaluation ------------------------------------ */

struct evaluation {
    sf_cel_memory *m;
    const sf_cel_checked *checked;
    const sf_cel_value *values;
    const bool *whole;
    sf_cel_value *locals;
};

static bool eval(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out);

static bool fail_kind(const struct evaluation *e, const char *name, const sf_cel_value *v)
{
    return sf__cel_fail(e->m, "found no matching overload for '%s' applied to '(%s)'", name, sf__cel_kind_name(v->kind));
}

/* A condition; false when it has none. */
static bool eval_bool(const struct evaluation *e, const sf_cel_node *n, bool *out)
{
    sf_cel_value v;

    if (!eval(e, n, &v))
        return false;
    *out = v.kind == SF_CEL_BOOL && v.b;
    return v.kind == SF_CEL_BOOL || fail_kind(e, "condition", &v);
}

/* Logic goes on behind a failure: another part may decide. The first reason is the one to tell. */
struct failure {
    bool failed;
    char reason[sizeof(((sf_cel_memory *)0)->reason)];
};

/* False when it is final. */
static bool absorb(const struct evaluation *e, struct failure *f)
{
    if (e->m->final)
        return false;
    if (!f->failed)
        memcpy(f->reason, e->m->reason, sizeof(f->reason));
    f->failed = true;
    e->m->failed = false;
    return true;
}

/* After all parts: none has decided. */
static bool undecided(const struct evaluation *e, const struct failure *f)
{
    return !f->failed || sf__cel_fail(e->m, "%s", f->reason);
}

/* `decides`: true for ||, false for &&. */
static bool eval_logic(const struct evaluation *e, const sf_cel_node *n, bool decides, sf_cel_value *out)
{
    struct failure failure;

    failure.failed = false;
    for (size_t i = 0; i < n->arg_count; i++) {
        bool part;

        if (!eval_bool(e, n->args[i], &part)) {
            if (!absorb(e, &failure))
                return false;
        } else if (part == decides) {
            sf__cel_set_bool(out, decides);
            return true;
        }
    }
    sf__cel_set_bool(out, !decides);
    return undecided(e, &failure);
}

/* What a function does with an argument takes time by its size. */
static size_t steps_of(const sf_cel_value *v)
{
    switch (v->kind) {
    case SF_CEL_STRING:
    case SF_CEL_BYTES:
        return v->s.n / 64;
    case SF_CEL_LIST:
    case SF_CEL_MAP:
        return v->count / 16;
    default:
        return 0;
    }
}

static bool eval_call(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    sf_cel_value args[SF_CEL_MAX_ARGS];

    for (size_t i = 0; i < n->arg_count; i++)
        if (!eval(e, n->args[i], &args[i]) || !sf__cel_memory_steps(e->m, steps_of(&args[i])))
            return false;
    return n->function->call(e->m, args, n->arg_count, n->prepared, out);
}

static bool eval_select(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    const sf_cel_value name = sf__cel_string(n->name), *found;
    sf_cel_value map;

    if (!eval(e, n->args[0], &map))
        return false;
    if (map.kind != SF_CEL_MAP)
        return fail_kind(e, "select", &map);
    if (!sf__cel_map_find(e->m, &map, &name, &found))
        return false;
    if (n->test) {
        sf__cel_set_bool(out, found != NULL);
        return true;
    }
    if (!found)
        return sf__cel_fail(e->m, "the map has no key '%.*s'", (int)(n->name.n < 60 ? n->name.n : 60),
                            (const char *)n->name.p);
    *out = *found;
    return true;
}

static bool eval_items(const struct evaluation *e, const sf_cel_node *n, sf_cel_value **out)
{
    sf_cel_value *items = sf__cel_memory_take(e->m, n->arg_count * sizeof(*items));

    if (!items)
        return false;
    for (size_t i = 0; i < n->arg_count; i++)
        if (!eval(e, n->args[i], &items[i]))
            return false;
    *out = items;
    return true;
}

static bool eval_map(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    sf_cel_value map = {.kind = SF_CEL_MAP}, *items;

    if (!eval_items(e, n, &items))
        return false;
    map.items = items;
    for (; map.count < n->arg_count / 2; map.count++) {
        const sf_cel_value *key = &items[2 * map.count], *found;

        if (!sf__cel_is_key(key))
            return fail_kind(e, "key of a map", key);
        if (!sf__cel_map_find(e->m, &map, key, &found))
            return false;
        if (found)
            return sf__cel_fail(e->m, "a map has one key twice");
    }
    *out = map;
    return true;
}

static bool eval_list(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    sf_cel_value *items;

    if (!eval_items(e, n, &items))
        return false;
    *out = (sf_cel_value){.kind = SF_CEL_LIST, .items = items, .count = n->arg_count};
    return true;
}

/* ------------------------------------------------------------------ macros ---------------------------------------- */

/* all and exists: logic over the elements. */
static bool eval_quantifier(const struct evaluation *e, const sf_cel_node *n, const sf_cel_value *range, sf_cel_value *out)
{
    bool decides = n->macro == SF_CEL_EXISTS;
    size_t stride = range->kind == SF_CEL_MAP ? 2 : 1;
    struct failure failure;

    failure.failed = false;
    for (size_t i = 0; i < range->count; i++) {
        bool part;

        e->locals[n->index] = range->items[i * stride];
        if (!eval_bool(e, n->args[1], &part)) {
            if (!absorb(e, &failure))
                return false;
        } else if (part == decides) {
            sf__cel_set_bool(out, decides);
            return true;
        }
    }
    sf__cel_set_bool(out, !decides);
    return undecided(e, &failure);
}

static bool eval_exists_one(const struct evaluation *e, const sf_cel_node *n, const sf_cel_value *range, sf_cel_value *out)
{
    size_t stride = range->kind == SF_CEL_MAP ? 2 : 1, found = 0;

    for (size_t i = 0; i < range->count; i++) {
        bool part;

        e->locals[n->index] = range->items[i * stride];
        if (!eval_bool(e, n->args[1], &part))
            return false;
        found += part;
    }
    sf__cel_set_bool(out, found == 1);
    return true;
}

/* map and filter. */
static bool eval_each(const struct evaluation *e, const sf_cel_node *n, const sf_cel_value *range, sf_cel_value *out)
{
    size_t stride = range->kind == SF_CEL_MAP ? 2 : 1, count = 0;
    const sf_cel_node *predicate = n->macro == SF_CEL_FILTER || n->arg_count == 3 ? n->args[1] : NULL;
    const sf_cel_node *transform = n->macro == SF_CEL_FILTER ? NULL : n->args[n->arg_count - 1];
    sf_cel_value *items = sf__cel_memory_take(e->m, range->count * sizeof(*items));

    if (!items)
        return false;
    for (size_t i = 0; i < range->count; i++) {
        bool taken = true;

        e->locals[n->index] = range->items[i * stride];
        if (predicate && !eval_bool(e, predicate, &taken))
            return false;
        if (!taken)
            continue;
        items[count] = range->items[i * stride];
        if (transform && !eval(e, transform, &items[count]))
            return false;
        count++;
    }
    *out = (sf_cel_value){.kind = SF_CEL_LIST, .items = items, .count = count};
    return true;
}

static bool eval_macro(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    sf_cel_value range;

    if (!eval(e, n->args[0], &range))
        return false;
    if (range.kind != SF_CEL_LIST && range.kind != SF_CEL_MAP)
        return fail_kind(e, "range of a macro", &range);
    switch (n->macro) {
    case SF_CEL_ALL:
    case SF_CEL_EXISTS:
        return eval_quantifier(e, n, &range, out);
    case SF_CEL_EXISTS_ONE:
        return eval_exists_one(e, n, &range, out);
    case SF_CEL_MAP_EACH:
    case SF_CEL_FILTER:
        break;
    }
    return eval_each(e, n, &range, out);
}

static bool eval(const struct evaluation *e, const sf_cel_node *n, sf_cel_value *out)
{
    bool then;

    for (;;) { /* a chain of conditions is a loop */
        if (!sf__cel_memory_steps(e->m, 1))
            return false;
        if (n->kind != SF_CEL_N_COND)
            break;
        if (!eval_bool(e, n->args[0], &then))
            return false;
        n = n->args[then ? 1 : 2];
    }
    switch (n->kind) {
    case SF_CEL_N_CONSTANT:
        *out = n->constant;
        return true;
    case SF_CEL_N_COLUMN:
        return sf__cel_column_take(e->m, &e->checked->columns[n->index], &e->values[n->index],
                                   e->whole && e->whole[n->index], out);
    case SF_CEL_N_LOCAL:
        *out = e->locals[n->index];
        return true;
    case SF_CEL_N_SELECT:
        return eval_select(e, n, out);
    case SF_CEL_N_CALL:
        return eval_call(e, n, out);
    case SF_CEL_N_LIST:
        return eval_list(e, n, out);
    case SF_CEL_N_MAP:
        return eval_map(e, n, out);
    case SF_CEL_N_AND:
        return eval_logic(e, n, false, out);
    case SF_CEL_N_OR:
        return eval_logic(e, n, true, out);
    case SF_CEL_N_MACRO:
        return eval_macro(e, n, out);
    case SF_CEL_N_IDENT: /* none is left by the checker */
    case SF_CEL_N_COND:
        break;
    }
    return sf__cel_fail(e->m, "internal error: a name is left");
}

bool sf__cel_eval(const sf_cel *c, const sf_cel_value *values, const bool *whole, sf_cel_memory *m, sf_cel_value *out)
{
    struct evaluation e = {.m = m, .checked = &c->checked, .values = values, .whole = whole};

    if (c->checked.local_count > 0) {
        e.locals = sf__cel_memory_take(m, c->checked.local_count * sizeof(*e.locals));
        if (!e.locals)
            return false;
    }
    return eval(&e, c->root, out);
}
