#include "snapshot/cel_rule.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/json.h"
#include "snapshot/cel/cel.h"
#include "snapshot/routing_values.h"

struct sf_cel_rule {
    const sf_allocator *alloc;
    sf_cel *cel;
    uint32_t num_dbs;
    bool by_key;              /* the one column is the key itself */
    bool categorical;         /* `values` name the shards; else the result does */
    sf_routing_values values; /* by shard */
};

/* ------------------------------------------------------------------ making ---------------------------------------- */

static sf_status no_memory(sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "CEL routing");
}

/* False: it has more than 64 bits. */
static bool parse_integer(sf_bytes digits, sf_cel_value *out)
{
    bool negative = digits.n > 0 && digits.p[0] == '-';
    uint64_t v = 0;

    for (size_t i = negative; i < digits.n; i++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digits.p[i] - '0', &v))
            return false;
    if (negative && v > (uint64_t)INT64_MAX + 1)
        return false;
    *out = negative ? sf__cel_int((int64_t)(0 - v)) : sf__cel_uint(v);
    return true;
}

static sf_status take_value(sf_cel_rule *rule, const sf_json *v, sf_error *err)
{
    sf_cel_value value = sf__cel_string(v->kind == SF_JSON_STRING ? v->str : sf_bytes_of(NULL, 0));
    uint32_t number, expected = rule->values.count;
    sf_status rc;

    if (v->kind == SF_JSON_INT && !parse_integer(v->raw, &value))
        return sf__routing_values_add_beyond(&rule->values) ? SF_OK : no_memory(err);
    rc = sf__routing_values_add(&rule->values, &value, &number, err);
    return rc == SF_OK && number != expected ? sf_fail(err, SF_INVALID, "routing_values must not contain duplicates")
                                             : rc;
}

/* Copies them: the document goes. */
static sf_status take_values(sf_cel_rule *rule, const sf_json *values, sf_error *err)
{
    sf_status rc = SF_OK;

    rule->categorical = true;
    for (const sf_json *v = values->first; v && rc == SF_OK; v = v->next)
        rc = take_value(rule, v, err);
    return rc;
}

static sf_status declare(const sf_json *columns, sf_cel_column *declared, sf_error *err)
{
    size_t count = 0;

    for (const sf_json *v = columns->first; v; v = v->next, count++) {
        declared[count] = (sf_cel_column){.name = v->key, .kind = sf__cel_column_kind(v->str)};
        if (declared[count].kind == SF_CEL_ABSENT)
            return sf_fail(err, SF_INVALID,
                           "Unsupported CEL column type: '%.*s' for column '%.*s'. Allowed: ['bool', "
                           "'bytes', 'double', 'int', "
                           "'string', 'uint']",
                           (int)(v->str.n < 60 ? v->str.n : 60), (const char *)v->str.p,
                           (int)(v->key.n < 60 ? v->key.n : 60), (const char *)v->key.p);
    }
    return SF_OK;
}

static sf_status compile(sf_cel_rule *rule, sf_bytes expr, const sf_json *columns, sf_error *err)
{
    sf_cel_column *declared = sf__calloc(rule->alloc, columns->count + 1, sizeof(*declared));
    sf_status rc = declared ? declare(columns, declared, err) : no_memory(err);

    if (rc == SF_OK) {
        rule->by_key = columns->count == 1 && sf_bytes_eq(declared[0].name, sf_bytes_str("key"));
        rc = sf__cel_compile(&rule->cel, expr, declared, columns->count, rule->alloc, err);
        if (rc == SF_INVALID)
            rc = sf_error_prefix(err, rc,
                                 "Failed to compile CEL expression '%.*s%s': ", (int)(expr.n < 200 ? expr.n : 200),
                                 (const char *)expr.p, expr.n < 200 ? "" : "...");
    }
    sf__free(rule->alloc, declared);
    return rc;
}

sf_status sf__cel_rule_new(sf_cel_rule **out, sf_bytes sharding, uint32_t num_dbs, const sf_allocator *a, sf_error *err)
{
    sf_cel_rule *rule = sf__calloc(a, 1, sizeof(*rule));
    const sf_json *expr, *columns, *values;
    sf_json_doc doc;
    sf_status rc;

    if (!rule)
        return no_memory(err);
    rule->alloc = a;
    rule->num_dbs = num_dbs;
    sf__routing_values_init(&rule->values, a);
    rc = sf__json_parse(&doc, sharding, 0, a, err);
    if (rc != SF_OK) {
        sf__cel_rule_free(rule);
        return rc;
    }
    expr = sf__json_get(doc.root, "cel_expr");
    columns = sf__json_get(doc.root, "cel_columns");
    values = sf__json_get(doc.root, "routing_values");
    if (!expr || expr->kind != SF_JSON_STRING || !columns || columns->kind != SF_JSON_OBJECT)
        rc = sf_fail(err, SF_INVALID, "CEL sharding without cel_expr or cel_columns");
    if (rc == SF_OK)
        rc = compile(rule, expr->str, columns, err);
    if (rc == SF_OK && values && values->kind == SF_JSON_ARRAY)
        rc = take_values(rule, values, err);
    sf__json_cleanup(&doc);
    if (rc == SF_OK)
        *out = rule;
    else
        sf__cel_rule_free(rule);
    return rc;
}

void sf__cel_rule_free(sf_cel_rule *rule)
{
    if (!rule)
        return;
    sf__cel_free(rule->cel);
    sf__routing_values_cleanup(&rule->values);
    sf__free(rule->alloc, rule);
}

/* ------------------------------------------------------------------ values ---------------------------------------- */

static void set_value(sf_cel_value *out, const sf_routing_value *v)
{
    switch (v->type) {
    case SF_ROUTING_BOOL:
        sf__cel_set_bool(out, v->boolean);
        return;
    case SF_ROUTING_INT:
        sf__cel_set_int(out, v->i);
        return;
    case SF_ROUTING_UINT:
        sf__cel_set_uint(out, v->u);
        return;
    case SF_ROUTING_DOUBLE:
        sf__cel_set_double(out, v->d);
        return;
    case SF_ROUTING_STR:
        sf__cel_set_string(out, v->b);
        return;
    case SF_ROUTING_BYTES:
        sf__cel_set_bytes(out, v->b);
        return;
    case SF_ROUTING_NULL:
        break;
    }
    out->kind = SF_CEL_NULL;
}

static void set_key(sf_cel_value *out, const sf_key *key)
{
    switch (key->type) {
    case SF_KEY_INT:
        sf__cel_set_int(out, key->i);
        return;
    case SF_KEY_UINT:
        sf__cel_set_uint(out, key->u);
        return;
    case SF_KEY_STR:
        sf__cel_set_string(out, key->b);
        return;
    default:
        sf__cel_set_bytes(out, key->b);
    }
}

static bool is_named(const sf_cel_column *c, const char *name)
{
    return name == (const char *)c->name.p || sf_bytes_eq(c->name, sf_bytes_str(name));
}

const char *sf__cel_rule_column(const sf_cel_rule *rule, const char *name)
{
    const sf_cel_column *columns = sf__cel_columns(rule->cel);

    for (size_t i = 0; i < sf__cel_column_count(rule->cel); i++)
        if (is_named(&columns[i], name))
            return (const char *)columns[i].name.p;
    return name;
}

/* The last one of a name counts, as in a Python dict. */
static void find_values(const sf_cel_rule *rule, const sf_routing_context *context, sf_cel_value *values, bool *whole)
{
    const sf_cel_column *columns = sf__cel_columns(rule->cel);

    for (size_t i = 0; i < sf__cel_column_count(rule->cel); i++) {
        values[i].kind = SF_CEL_ABSENT;
        whole[i] = false;
        for (size_t k = 0; k < context->count; k++) {
            if (!is_named(&columns[i], context->values[k].column))
                continue;
            set_value(&values[i], &context->values[k]);
            whole[i] = context->values[k].whole;
        }
    }
}

/* ------------------------------------------------------------------ results --------------------------------------- */

/* As Python calls them, for the existing package's text. */
static const char *python_name(sf_cel_kind kind)
{
    switch (kind) {
    case SF_CEL_NULL:
        return "NoneType";
    case SF_CEL_DOUBLE:
        return "float";
    case SF_CEL_MAP:
        return "dict";
    case SF_CEL_TIMESTAMP:
        return "datetime";
    case SF_CEL_DURATION:
        return "timedelta";
    default:
        return sf__cel_kind_name(kind);
    }
}

/* The text of a token, in `scratch` when it is a number. */
static sf_bytes text_of(const sf_cel_value *v, char scratch[24])
{
    if (v->kind == SF_CEL_INT)
        return sf_bytes_of(scratch, (size_t)snprintf(scratch, 24, "%" PRId64, v->i));
    if (v->kind == SF_CEL_UINT)
        return sf_bytes_of(scratch, (size_t)snprintf(scratch, 24, "%" PRIu64, v->u));
    return v->s;
}

static sf_status find_token(const sf_cel_rule *rule, const sf_cel_value *v, uint32_t *db_id, sf_error *err)
{
    const char *quote = v->kind == SF_CEL_INT || v->kind == SF_CEL_UINT ? "" : "'";
    char scratch[24];
    sf_bytes text;

    if (sf__routing_values_find(&rule->values, v, db_id))
        return SF_OK;
    text = text_of(v, scratch);
    return sf_fail(err, SF_NO_ROUTE, "Categorical CEL routing token %s%s%.*s%s is not present in this snapshot.",
                   v->kind == SF_CEL_BYTES ? "b" : "", quote, (int)(text.n < 200 ? text.n : 200), (const char *)text.p,
                   quote);
}

/* As the texts that name integers are read; the existing package takes what Python's int() takes, and nobody writes the rest. */
static bool parse_shard(sf_bytes text, uint64_t *out)
{
    bool negative;

    if (!sf__cel_integer_parse(text, &negative, out))
        return false;
    if (negative && *out > 0)
        *out = UINT64_MAX;
    return true;
}

static sf_status find_shard(const sf_cel_rule *rule, const sf_cel_value *v, uint32_t *db_id, sf_error *err)
{
    bool is_number = true;
    char scratch[24];
    uint64_t number = 0;
    sf_bytes text;

    if (v->kind == SF_CEL_INT)
        number = v->i < 0 ? UINT64_MAX : (uint64_t)v->i;
    else if (v->kind == SF_CEL_UINT)
        number = v->u;
    else
        is_number = parse_shard(v->s, &number);
    if (is_number && number < rule->num_dbs) {
        *db_id = (uint32_t)number;
        return SF_OK;
    }
    text = text_of(v, scratch);
    if (!is_number)
        return sf_fail(err, SF_INVALID_KEY,
                       "the CEL expression gave '%.*s', which is no number of a shard: other results need routing values",
                       (int)(text.n < 200 ? text.n : 200), (const char *)text.p);
    return sf_fail(err, SF_INVALID_KEY, "the CEL expression gave shard %.*s: shards have the numbers 0 to %u",
                   (int)(text.n < 200 ? text.n : 200), (const char *)text.p, rule->num_dbs - 1);
}

/* ------------------------------------------------------------------ routing --------------------------------------- */

bool sf__cel_rule_is_by_key(const sf_cel_rule *rule)
{
    return rule->by_key;
}

sf_status sf__cel_rule_token(const sf_cel_rule *rule, const sf_key *key, sf_cel_memory *m, sf_cel_value *out,
                             sf_error *err)
{
    size_t count = sf__cel_column_count(rule->cel);
    sf_cel_value few[8], *values = few;
    bool few_whole[8] = {false}, *whole = few_whole;

    if (!key->context && !rule->by_key)
        return sf_fail(err, SF_INVALID_KEY,
                       "Multi-column CEL sharding requires routing_context; use route(key, routing_context=...) instead of "
                       "route_one(key)");
    if (count > sizeof(few) / sizeof(few[0])) {
        values = sf__cel_memory_take(m, count * sizeof(*values));
        whole = sf__cel_memory_take(m, count * sizeof(*whole));
        if (!values || !whole)
            return no_memory(err);
    }
    if (key->context)
        find_values(rule, key->context, values, whole);
    else
        set_key(&values[0], key);
    if (!sf__cel_eval(rule->cel, values, whole, m, out))
        return sf_fail(err, SF_INVALID_KEY, "CEL evaluation failed: %s", m->reason);
    if (out->kind != SF_CEL_INT && out->kind != SF_CEL_UINT && out->kind != SF_CEL_STRING && out->kind != SF_CEL_BYTES)
        return sf_fail(err, SF_INVALID, "CEL expression must return int, str, or bytes; got %s", python_name(out->kind));
    return SF_OK;
}

sf_status sf__cel_rule_shard(const sf_cel_rule *rule, const sf_cel_value *token, uint32_t *db_id, sf_error *err)
{
    return (rule->categorical ? find_token : find_shard)(rule, token, db_id, err);
}

sf_status sf__cel_rule_route(const sf_cel_rule *rule, const sf_key *key, uint32_t *db_id, sf_error *err)
{
    sf_cel_value token;
    sf_cel_memory m;
    sf_status rc;

    sf__cel_memory_init(&m, rule->alloc);
    rc = sf__cel_rule_token(rule, key, &m, &token, err);
    if (rc == SF_OK)
        rc = sf__cel_rule_shard(rule, &token, db_id, err);
    sf__cel_memory_cleanup(&m);
    return rc;
}
