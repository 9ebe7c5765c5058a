#include "vectors.h"

#include <inttypes.h>

#include "base/limits.h"
#include "base/strbuf.h"
#include "snapshot/cel/cel.h"
#include "snapshot/cel_rule.h"

/* ------------------------------------------------------------------ golden cases ---------------------------------- */

static const char *raw(const sf_json *v)
{
    static char text[2000];

    snprintf(text, sizeof(text), "%.*s", (int)v->raw.n, (const char *)v->raw.p);
    return text;
}

/* {"int": "5"} and its like. Bytes are to be freed by value_cleanup(). */
static sf_cel_value value_of(const sf_json *typed, bool *whole)
{
    const sf_json *v = typed->first;
    char text[64];

    *whole = false;
    snprintf(text, sizeof(text), "%.*s", (int)(v->str.n < 63 ? v->str.n : 63), (const char *)v->str.p);
    if (sf_bytes_eq(v->key, sf_bytes_str("bool")))
        return sf__cel_bool(v->boolean);
    if (sf_bytes_eq(v->key, sf_bytes_str("null")))
        return (sf_cel_value){.kind = SF_CEL_NULL};
    if (sf_bytes_eq(v->key, sf_bytes_str("str")))
        return sf__cel_string(v->str);
    if (sf_bytes_eq(v->key, sf_bytes_str("double")))
        return sf__cel_double(strtod(text, NULL));
    if (sf_bytes_eq(v->key, sf_bytes_str("bytes")))
        return sf__cel_bytes(hex_decode(v->str));
    if (sf_bytes_eq(v->key, sf_bytes_str("bytearray"))) {
        *whole = true;
        return sf__cel_bytes(hex_decode(v->str));
    }
    if (sf_bytes_eq(v->key, sf_bytes_str("uint")))
        return sf__cel_uint(strtoull(text, NULL, 10));
    assert_true(sf_bytes_eq(v->key, sf_bytes_str("int")));
    errno = 0;
    if (text[0] != '-') {
        uint64_t u = strtoull(text, NULL, 10);

        if (errno == ERANGE) /* no C value holds it: a double beyond every integer stands for it */
            return sf__cel_double(1e30);
        return u > INT64_MAX ? sf__cel_uint(u) : sf__cel_int((int64_t)u);
    }
    return sf__cel_int(strtoll(text, NULL, 10));
}

static void value_cleanup(const sf_cel_value *v)
{
    if (v->kind == SF_CEL_BYTES)
        free((void *)(uintptr_t)v->s.p);
}

static bool value_is(const sf_cel_value *v, const sf_json *typed)
{
    bool whole, same;
    sf_cel_value expected = value_of(typed, &whole);
    int order;

    same = sf__cel_order(v, &expected, &order) && order == 0;
    value_cleanup(&expected);
    return same;
}

#define MAX_COLUMNS 16

struct compiled {
    sf_cel *cel;
    sf_status rc;
    sf_error err;
    sf_cel_column columns[MAX_COLUMNS];
    size_t count;
};

static void compile(struct compiled *c, const sf_json *expr, const sf_json *columns)
{
    memset(c, 0, sizeof(*c));
    c->rc = SF_OK;
    for (const sf_json *v = columns->first; v; v = v->next) {
        c->columns[c->count].name = v->key;
        c->columns[c->count].kind = sf__cel_column_kind(v->str);
        if (c->columns[c->count++].kind == SF_CEL_ABSENT)
            c->rc = SF_INVALID;
    }
    if (c->rc == SF_OK)
        c->rc = sf__cel_compile(&c->cel, expr->str, c->columns, c->count, HEAP, &c->err);
}

static bool evaluate(const struct compiled *c, const sf_json *context, sf_cel_memory *m, sf_cel_value *values,
                     sf_cel_value *out)
{
    bool whole[MAX_COLUMNS] = {false};

    sf__cel_memory_init(m, HEAP);
    for (size_t i = 0; i < c->count; i++) {
        values[i] = (sf_cel_value){.kind = SF_CEL_ABSENT};
        for (const sf_json *v = context->first; v; v = v->next)
            if (sf_bytes_eq(v->key, c->columns[i].name))
                values[i] = value_of(v, &whole[i]);
    }
    return sf__cel_eval(c->cel, values, whole, m, out);
}

static bool may_be_token(sf_cel_kind kind)
{
    return kind == SF_CEL_INT || kind == SF_CEL_UINT || kind == SF_CEL_STRING || kind == SF_CEL_BYTES;
}

static void test_golden_cases(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/cel.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *outcome = need(c, "outcome");
        struct compiled compiled;
        sf_cel_value values[MAX_COLUMNS], result;
        sf_cel_memory m;
        bool ok;

        compile(&compiled, need(c, "expr"), need(c, "columns"));
        if (text_is(outcome, "compile_error") != (compiled.rc == SF_INVALID))
            fail_msg("%s: %s", raw(c), compiled.err.message);
        if (compiled.rc != SF_OK)
            continue;
        ok = evaluate(&compiled, need(c, "context"), &m, values, &result);
        if (text_is(outcome, "ok")           ? !ok || !value_is(&result, need(c, "token"))
            : text_is(outcome, "eval_error") ? ok
                                             : ok && may_be_token(result.kind))
            fail_msg("%s: %s", raw(c), ok ? "another value" : m.reason);
        if (!ok)
            assert_true(m.reason[0] != '\0');
        for (size_t i = 0; i < compiled.count; i++)
            value_cleanup(&values[i]);
        sf__cel_memory_cleanup(&m);
        sf__cel_free(compiled.cel);
    }
    golden_close(&g);
}

/* ------------------------------------------------------------------ shards ---------------------------------------- */

/* The text of a manifest's `sharding` column. */
static char *sharding_of(const sf_json *expr, const sf_json *columns, const sf_json *values)
{
    sf_strbuf b;

    sf__strbuf_init(&b, HEAP);
    sf__strbuf_puts(&b, "{\"cel_columns\": ");
    sf__strbuf_add(&b, columns->raw.p, columns->raw.n);
    sf__strbuf_puts(&b, ", \"cel_expr\": ");
    sf__strbuf_add(&b, expr->raw.p, expr->raw.n);
    sf__strbuf_puts(&b, ", \"hash_algorithm\": \"xxh3_64\", \"routing_values\": [");
    for (const sf_json *v = values->first; v; v = v->next) {
        bool integer = sf_bytes_eq(v->first->key, sf_bytes_str("int"));

        sf__strbuf_puts(&b, v == values->first ? "" : ", ");
        sf__strbuf_add(&b, integer ? v->first->str.p : v->first->raw.p, integer ? v->first->str.n : v->first->raw.n);
    }
    sf__strbuf_puts(&b, "], \"strategy\": \"cel\"}");
    return sf__strbuf_detach(&b);
}

static void test_categorical(void **state)
{
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/cel.json");
    for (const sf_json *c = need_cases(&g, "categorical"); c; c = c->next) {
        const sf_json *values = need(c, "routing_values"), *error = sf__json_get(c, "error");
        bool by_bytes = values->first && sf_bytes_eq(values->first->first->key, sf_bytes_str("bytes"));
        struct golden_context given;
        sf_key key = {.type = SF_KEY_INT, .i = 1, .context = &given.context};
        char *sharding;
        sf_error err = SF_ERROR_INIT;
        sf_cel_rule *rule;
        uint32_t db_id;
        sf_status rc;

        if (by_bytes) /* no manifest holds them */
            continue;
        sharding = sharding_of(need(c, "expr"), need(c, "columns"), values);
        assert_int_equal(sf__cel_rule_new(&rule, sf_bytes_str(sharding), 10, HEAP, &err), SF_OK);
        context_of(need(c, "context"), &given);
        rc = sf__cel_rule_route(rule, &key, &db_id, &err);
        if (error ? rc != SF_NO_ROUTE && rc != SF_INVALID_KEY : rc != SF_OK || db_id != (uint32_t)need_int(c, "db_id"))
            fail_msg("%s: %s", raw(c), err.message);
        context_cleanup(&given);
        sf__cel_rule_free(rule);
        sf__free(HEAP, sharding);
    }
    golden_close(&g);
}

/* Direct routing: the result is the shard. */
static void test_direct(void **state)
{
    static const struct {
        const char *sharding;
        sf_status status;
        const char *expected; /* shard, or part of the message */
    } cases[] = {
#define RULE(expr, columns) \
    "{\"cel_columns\": " columns ", \"cel_expr\": \"" expr "\", \"routing_values\": null, \"strategy\": \"cel\"}"
        {RULE("key % 4", "{\"key\": \"int\"}"), SF_OK, "3"},
        {RULE("'2'", "{\"key\": \"int\"}"), SF_OK, "2"},
        {RULE("' +3 '", "{\"key\": \"int\"}"), SF_OK, "3"},
        {RULE("b'1'", "{\"key\": \"int\"}"), SF_OK, "1"},
        {RULE("'-0'", "{\"key\": \"int\"}"), SF_OK, "0"},
        {RULE("1u", "{\"key\": \"int\"}"), SF_OK, "1"},
        {RULE("'1_0'", "{\"key\": \"int\"}"), SF_INVALID_KEY, "gave '1_0', which is no number of a shard"},
        {RULE("''", "{\"key\": \"int\"}"), SF_INVALID_KEY, "which is no number of a shard"},
        {RULE("key - 8", "{\"key\": \"int\"}"), SF_INVALID_KEY, "gave shard -1: shards have the numbers 0 to 3"},
        {RULE("4", "{\"key\": \"int\"}"), SF_INVALID_KEY, "gave shard 4: shards have the numbers 0 to 3"},
        {RULE("'-1'", "{\"key\": \"int\"}"), SF_INVALID_KEY, "gave shard -1"},
        {RULE("1.5", "{\"key\": \"int\"}"), SF_INVALID, "CEL expression must return int, str, or bytes; got float"},
        {RULE("null", "{\"key\": \"int\"}"), SF_INVALID, "got NoneType"},
        {RULE("key / 0", "{\"key\": \"int\"}"), SF_INVALID_KEY, "CEL evaluation failed: divide by zero"},
        {RULE("size(key)", "{\"key\": \"string\"}"), SF_INVALID_KEY,
         "column 'key' is of type string and cannot take the int given"},
        {RULE("x", "{\"x\": \"int\"}"), SF_INVALID_KEY, "Multi-column CEL sharding requires routing_context"},
        {RULE("x", "{\"key\": \"int\"}"), SF_INVALID,
         "Failed to compile CEL expression 'x': line 1, column 1: undeclared"},
        {RULE("key", "{\"key\": \"INT\"}"), SF_INVALID, "Unsupported CEL column type: 'INT' for column 'key'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        sf_key key = sf_key_int(7);
        sf_error err = SF_ERROR_INIT;
        sf_cel_rule *rule = NULL;
        uint32_t db_id = 99;
        char got[900];
        sf_status rc = sf__cel_rule_new(&rule, sf_bytes_str(cases[i].sharding), 4, HEAP, &err);

        if (rc == SF_OK)
            rc = sf__cel_rule_route(rule, &key, &db_id, &err);
        snprintf(got, sizeof(got), "%u", db_id);
        if (rc != cases[i].status || strstr(rc == SF_OK ? got : err.message, cases[i].expected) == NULL)
            fail_msg("%s: %s %s", cases[i].sharding, got, err.message);
        sf__cel_rule_free(rule);
    }
}

/* ------------------------------------------------------------------ conformance ----------------------------------- */

static bool conforms(sf_cel_memory *m, const sf_cel_value *v, const sf_json *typed)
{
    const sf_json *e = typed->first;
    char text[64];
    bool whole;
    sf_cel_value expected;
    size_t i = 0;

    if (sf_bytes_eq(e->key, sf_bytes_str("list"))) {
        if (v->kind != SF_CEL_LIST || v->count != e->count)
            return false;
        for (const sf_json *x = e->first; x; x = x->next)
            if (!conforms(m, &v->items[i++], x))
                return false;
        return true;
    }
    if (sf_bytes_eq(e->key, sf_bytes_str("map"))) {
        if (v->kind != SF_CEL_MAP || v->count != e->count)
            return false;
        for (const sf_json *x = e->first; x; x = x->next) {
            sf_cel_value key = value_of(x->first, &whole);
            const sf_cel_value *found;

            if (!sf__cel_map_find(m, v, &key, &found) || !found || !conforms(m, found, x->first->next))
                return false;
        }
        return true;
    }
    if (sf_bytes_eq(e->key, sf_bytes_str("type")))
        return v->kind == SF_CEL_TYPE && text_is(e, sf__cel_kind_name(v->type));
    if (sf_bytes_eq(e->key, sf_bytes_str("null")))
        return v->kind == SF_CEL_NULL;
    if (sf_bytes_eq(e->key, sf_bytes_str("uint"))) {
        snprintf(text, sizeof(text), "%.*s", (int)e->str.n, (const char *)e->str.p);
        return v->kind == SF_CEL_UINT && v->u == strtoull(text, NULL, 10);
    }
    expected = value_of(typed, &whole);
    if (expected.kind == SF_CEL_DOUBLE && expected.d != expected.d)
        return v->kind == SF_CEL_DOUBLE && v->d != v->d;
    whole = v->kind == expected.kind && value_is(v, typed);
    value_cleanup(&expected);
    return whole;
}

/* The public conformance data of CEL (tests/fixtures/vectors/README.md says how it came here): what we
 * support holds; what we do not is refused when it is compiled, never evaluated to something else. */
static void test_conformance(void **state)
{
    size_t passed = 0, refused = 0;
    struct golden g;

    (void)state;
    golden_open(&g, "vectors/cel_conformance.json");
    for (const sf_json *c = need_cases(&g, "cases"); c; c = c->next) {
        const sf_json *value = sf__json_get(c, "value"), *outside = sf__json_get(c, "outside");
        struct compiled compiled;
        sf_cel_value values[MAX_COLUMNS], result;
        sf_cel_memory m;
        bool ok;

        compile(&compiled, need(c, "expr"), need(c, "columns"));
        if (outside ? compiled.rc == SF_OK : compiled.rc != SF_OK && value)
            fail_msg("%s: %s", raw(c), compiled.rc == SF_OK ? "it compiles" : compiled.err.message);
        refused += outside != NULL;
        if (compiled.rc != SF_OK)
            continue;
        ok = evaluate(&compiled, need(c, "context"), &m, values, &result);
        if (value ? !ok || !conforms(&m, &result, value) : ok)
            fail_msg("%s: %s", raw(c), ok ? "another value" : m.reason);
        passed++;
        for (size_t i = 0; i < compiled.count; i++)
            value_cleanup(&values[i]);
        sf__cel_memory_cleanup(&m);
        sf__cel_free(compiled.cel);
    }
    print_message("%zu evaluated as they should be, %zu outside refused\n", passed, refused);
    golden_close(&g);
}

/* ------------------------------------------------------------------ our own --------------------------------------- */

/* Evaluates without columns; the text of the result, or of the failure. */
static const char *result_of(const char *expr)
{
    static char text[900];
    sf_cel_column column = {sf_bytes_str("key"), SF_CEL_INT};
    sf_cel_value key = sf__cel_int(7), v;
    sf_error err = SF_ERROR_INIT;
    sf_cel_memory m;
    sf_cel *c;

    if (sf__cel_compile(&c, sf_bytes_str(expr), &column, 1, HEAP, &err) != SF_OK) {
        snprintf(text, sizeof(text), "compile: %s", err.message);
        return text;
    }
    sf__cel_memory_init(&m, HEAP);
    if (!sf__cel_eval(c, &key, NULL, &m, &v))
        snprintf(text, sizeof(text), "eval: %s", m.reason);
    else if (v.kind == SF_CEL_STRING)
        snprintf(text, sizeof(text), "%.*s", (int)v.s.n, (const char *)v.s.p);
    else if (v.kind == SF_CEL_BOOL)
        snprintf(text, sizeof(text), "%s", v.b ? "true" : "false");
    else if (v.kind == SF_CEL_UINT)
        snprintf(text, sizeof(text), "%" PRIu64 "u", v.u);
    else if (v.kind == SF_CEL_INT)
        snprintf(text, sizeof(text), "%" PRId64, v.i);
    else
        snprintf(text, sizeof(text), "%s", sf__cel_kind_name(v.kind));
    sf__cel_memory_cleanup(&m);
    sf__cel_free(c);
    return text;
}

static void test_language(void **state)
{
    static const char *const cases[][2] = {
        /* logic absorbs failures, wherever they stand */
        {"[1, 0, 2].exists(x, 4 / x == 2)", "true"},
        {"[0, 4].all(x, 4 / x == 2)", "false"},
        {"[0, 1].exists(x, 4 / x == 9)", "eval: divide by zero"},
        {"1 / 0 == 1 && 2 / 0 == 1", "eval: divide by zero"},
        {"[1, 1].exists_one(x, x == 1)", "false"},
        {"dyn(1) && true", "eval: found no matching overload for 'condition' applied to '(int)'"},
        /* macros over maps take keys; three arguments filter first */
        {"{'a': 1, 'b': 2}.exists(k, k == 'b')", "true"},
        {"[1, 2, 3].map(x, x > 1, x * 10)[0]", "20"},
        {"[1, 2].map(x, [10, 20].map(y, x * y))[1][1]", "40"},
        {"[1].map(key, key + 1)[0]", "2"}, /* the variable hides the column */
        {"[1].map(x, .key)[0]", "7"},
        {"[1, 2].all(3, true)", "compile: line 1, column 12: all() takes the name of a variable first"},
        {"1.all(x, x)", "compile: line 1, column 2: expression of type 'int' cannot be the range of a macro"},
        {"[1].filter(x, x)", "compile: line 1, column 15: a condition is expected, not an expression of type 'int'"},
        /* maps */
        {"has({'a': 1}.a)", "true"},
        {"has({'a': 1}.b)", "false"},
        {"{'a': {'b': 5}}.a.b", "5"},
        {"{'a': 1}.b", "eval: the map has no key 'b'"},
        {"{1: 'x', 2u: 'y'}[dyn(2.0)]", "y"},
        {"{'b': 1, 2: 2, true: 3, 'a': 4, 1u: 5}[1] == 5 && {'b': 1, 2: 2, true: 3, 'a': 4}['a'] == 4", "true"},
        {"{true: 3, 'a': 4, 1: 5}[true] == 3 && !(dyn(0.0 / 0.0) in {0: 1, 1: 1, 2: 1})", "true"},
        {"{'b': 1, 'a': 2}.map(k, k)[0]", "b"},                        /* in the order of the text */
        {"dyn(9007199254740992.0) in {9007199254740993: 1}", "false"}, /* not rounded */
        {"dyn(18446744073709549568.0) in {18446744073709549568u: 1, 2: 1} && !(dyn(0.5) in {0: 1})", "true"},
        {"dyn([]) in {1: 1}", "eval: no map has a key of type list"},
        {"dyn(b'a') in {'a': 1} || true", "true"},
        {"{1: 'a', 1u: 'b'}[1]", "eval: a map has one key twice"},
        {"{1: 'a', 1: 'b'}[1]", "eval: a map has one key twice"},
        {"{1.5: 'a'}[1.5]", "eval: found no matching overload for 'key of a map' applied to '(double)'"},
        {"{'a': 1} == {'a': 1}", "true"},
        {"{} == {} && [] == []", "true"},
        {"has(key)", "compile: line 1, column 1: has() takes a field: has(a.b)"},
        /* numbers of different kinds, by dyn */
        {"dyn(9223372036854775807) == 9223372036854775808.0 && dyn(9223372036854775807) < 1e19", "true"},
        {"dyn(1) < 1.5", "true"},
        {"dyn(18446744073709551615u) > 1", "true"},
        {"dyn(0.0 / 0.0) == dyn(0.0 / 0.0)", "false"},
        {"0.0 / 0.0 < 1.0 || 0.0 / 0.0 >= 1.0", "false"},
        {"[1, 'a', 2.5].size()", "3"},
        {"type([]) == list && type({}) == map && type(null) == null_type && type(int) == type", "true"},
        {"type(timestamp(0)) == google.protobuf.Timestamp", "true"},
        /* as the existing package's engine has it */
        {"--'a'", "a"},
        {"---key", "-7"},
        {"--9223372036854775808", "compile: line 1, column 3: invalid number '9223372036854775808'"},
        {"int(dyn(true))", "1"},
        {"double('\\t5 ') == 5.0 && double('0x10') == 16.0", "true"},
        {"timestamp('2026-1-2T03:04:60Z') == timestamp('2026-01-02T03:05:00Z')", "true"},
        /* times */
        {"string(timestamp('2026-02-28T23:59:59.5+01:00') + duration('1h30m'))", "2026-03-01T00:29:59.500Z"},
        {"string(timestamp('0001-01-01T00:00:00Z') - duration('1ns'))",
         "eval: the timestamp lies outside of the years 1 to 9999"},
        {"timestamp('2026-02-29T00:00:00Z') == timestamp(0)", "eval: cannot convert string to timestamp"},
        {"string(duration('-1.5s'))", "-1.500s"},
        {"timestamp('2026-01-01T00:30:00Z').getDayOfYear('-01:00')", "364"},
        {"timestamp('2026-01-01T00:30:00Z').getDayOfWeek()", "4"},
        {"timestamp(0).getHours('Europe/Berlin')", "compile: line 1, column 23: 'Europe/Berlin' is no offset "
                                                   "such as '+02:00': names of regions are not supported"},
        {"timestamp(0).getHours('Europe/' + 'Berlin')",
         "eval: the time zone 'Europe/Berlin' is no offset such as '+02:00': names of regions are not "
         "supported"},
        /* regular expressions as RE2 reads them */
        {"'a\\nb'.matches('a$')", "false"},
        {"'ab\\n'.matches('b$')", "false"},
        {"'x\\v'.matches('x\\\\s')", "false"},
        {"'\\u00e9'.matches('^.$')", "true"},
        {"'aaa'.matches('^a{2,3}$') && '{x'.matches('{x') && 'a]'.matches('[]]')", "true"},
        {"'ab'.matches('(?P<n>a)(?:b)(?i)B?')", "true"},
        {"'ab'.matches('a(?=b)')", "eval: invalid regular expression: a group that RE2 does not have"},
        {"'aa'.matches('(a)\\\\1')", "eval: invalid regular expression: an escape that RE2 does not have"},
        {"'aa'.matches('a**')", "eval: invalid regular expression: a repetition of a repetition"},
        {"'aa'.matches('a{1001}')", "eval: invalid regular expression: a repetition of more than 1000 times"},
        {"'\\v'.matches('^\\\\v$') && !'\\n'.matches('\\\\v') && '\\n'.matches('[\\\\12]') && "
         "'a\\u0000'.matches('a\\\\0')",
         "true"},
        {"'a'.matches('\\\\x4')", "eval: invalid regular expression: \\x without its digits"},
        {"'ab'.matches('^*\\\\bab$+') && '^ab'.matches('\\\\^{1}ab')", "true"},
        {"'ab'.matches('(?P<1>a)(?<1>b)')", "true"}, /* names of groups are for others */
        {"'ab'.matches('(?P<a b>a)')", "eval: invalid regular expression: a group with a bad name"},
        {"'aB'.matches('\\\\p{Lu}(?i)$') && '\\u00e9'.matches('(?i)^\\\\pL$')", "true"},
        {"'a'.matches('(?i:\\\\p{Lu})')",
         "eval: invalid regular expression: a property of upper or lower case behind (?i)"},
        {"'a'.matches('\\\\p{sc:Latin}')", "eval: invalid regular expression: a property that RE2 does not have"},
        {"'a'.matches('(?i-)a')", "eval: invalid regular expression: a group that RE2 does not have"},
        {"'ab'.matches('a)|(b')", "eval: invalid regular expression: a parenthesis that none has opened"},
        {"'ab'.matches('(a')", "eval: invalid regular expression: missing closing parenthesis"},
        {"'xa)b'.matches('\\\\Qa)') && 'x)'.matches('(?i)\\\\)$')", "true"},
        {"'xab'.matches('^ab|ba$') || 'a\\nb'.matches('^b')", "false"},
        {"'a\\nb'.matches('(?m)^b') && 'xab'.matches('\\\\Bab\\\\b') && ''.matches('^$')", "true"},
        {"'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$')", "false"}, /* no backtracking */
        /* what is refused, and where */
        {"key.foo()", "compile: line 1, column 4: undeclared reference to 'foo'"},
        {"1 +\n 'a'", "compile: line 1, column 3: found no matching overload for '_+_' applied to '(int, string)'"},
        {"[1\n, 'a' 2]", "compile: line 2, column 7: ']' is expected, not '2'"},
        {"Msg{a: 1}", "compile: line 1, column 4: messages are not supported"},
        {"'\\u00e9' + x", "compile: line 1, column 12: undeclared reference to 'x'"},
        {"'open", "compile: line 1, column 1: invalid string literal: it is not closed"},
        {"key ? 1 : 2", "compile: line 1, column 5: found no matching overload for '_?_:_' applied to '(int, int, int)'"},
        {"key.size", "compile: line 1, column 4: expression of type 'int' cannot be the operand of a select operation"},
        {"contains('a', 'b')", "compile: line 1, column 1: undeclared reference to 'contains'"},
        {"[1,].size() + {'a': 1,}.size()", "2"},
        {"size('a',)", "compile: line 1, column 10: an expression is expected, not ')'"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *got = result_of(cases[i][0]);

        if (strcmp(got, cases[i][1]) != 0)
            fail_msg("%s\n  got      %s\n  expected %s", cases[i][0], got, cases[i][1]);
    }
}

/* `count` times `part` between two texts. */
static char *repeated(const char *before, const char *part, size_t count, const char *after)
{
    size_t n = strlen(part);
    char *text = malloc(strlen(before) + n * count + strlen(after) + 1), *p = text;

    assert_non_null(text);
    p = stpcpy(p, before);
    for (size_t i = 0; i < count; i++)
        p = stpcpy(p, part);
    strcpy(p, after);
    return text;
}

static void expect_result(char *expr, const char *expected)
{
    const char *got = result_of(expr);

    if (strstr(got, expected) == NULL)
        fail_msg("%.60s...: %s, expected %s", expr, got, expected);
    free(expr);
}

static void test_bounds(void **state)
{
    (void)state;
    expect_result(repeated("", "(", 199, "1") /* not closed */, "is missing at the end");
    expect_result(repeated("", "(", 300, "1"), "nested more than 200 deep");
    expect_result(repeated("", "-", 300, "key"), "nested more than 200 deep");
    expect_result(repeated("", "[", 300, "1"), "nested more than 200 deep");
    expect_result(repeated("1", " + 1", 300, ""), "nested more than 200 deep");
    expect_result(repeated("key", ".a", 300, ""), "nested more than 200 deep");
    expect_result(repeated("key == 1", " || key == 2", 5000, " || true"), "true"); /* chains are flat */
    expect_result(repeated("1", " ", SF_LIMIT_CEL_TEXT_BYTES, ""), "bytes, more than 100000");
    expect_result(repeated("[", "'a',", 20000, "].size()"), "20000"); /* memory is linear in the text */
    expect_result(repeated("{", "'a': 1,", 5000, "}.size()"), "a map has one key twice");
    expect_result(repeated("[1,2,3,4,5,6,7,8,9,10]", ".map(x, [1,2,3,4,5,6,7,8,9,10].map(y, [x, y]))", 1, ".size()"),
                  "10");
    expect_result(repeated("[", "1,", 1000,
                           "].exists(a, [1,2,3,4,5,6,7,8,9].exists(b, [1,2,3,4,5,6,7,8,9].exists(c, a + b + c < 0)))"),
                  "it takes more than 200000 steps");
    expect_result(repeated("'0123456789abcdef'", ".matches('x') ? 'a' : 'b'", 1, ""), "b");
    expect_result(repeated("['0123456789abcdef0123456789abcdef']", ".map(s, s + s)", 16, "[0].size()"),
                  "it needs more than 1048576 bytes");
}

/* Variables of macros double types; here they would have 2^60 parts. */
static void test_doubled_types(void **state)
{
    char text[4096] = "[{1: 1}]";

    (void)state;
    for (int i = 0; i < 60; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ".map(a, {a: a}).filter(b, [b, b] == [b, b])");
    assert_non_null(strstr(result_of(text), "'key of a map' applied to '(map)'"));
}

/* What takes time takes steps, so that a rule from a hostile manifest comes to an end. */
static void test_costs(void **state)
{
    char *loops = repeated("[", "1,", 450, "]"), *text = repeated("'", "a", 9000, "'"), *map, *expr;
    static const char *const costly[] = {
        "string(1.2345e-310) == ''",
        "double('0.1') == 1.0",
        "s == t",
        "[s] == [t]",
        "t in [s]",
        "s.matches('a*b|a*c')",
        "s.matches('(a?){40}$b')",
        "{s: 1, t + 'b': 2} == {}",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(costly); i++) {
        assert_true(asprintf(&expr, "[%s].exists(s, [%s].exists(t, %s.exists(x, %s.exists(y, %s && false))))", text,
                             text, loops, loops, costly[i]) > 0);
        expect_result(expr, "it ");
    }
    free(text);
    free(loops);
    /* 100 searches that compare 200 bytes at each place */
    loops = repeated("[", "1,", 100, "]");
    text = repeated("'", "a", 40000, "'");
    assert_true(asprintf(&expr, "%s.exists(x, %s.contains('b%.*s'))", loops, text, 200, text + 1) > 0);
    expect_result(expr, "it takes more than");
    assert_true(asprintf(&expr, "[1, 2].exists(x, %s.contains('b%.*s'))", text, 200, text + 1) > 0);
    expect_result(expr, "false");
    free(text);
    free(loops);
    /* one look into a large map of constants is cheap */
    map = repeated("{", "", 0, "");
    for (int i = 0; i < 5000; i++) {
        assert_true(asprintf(&expr, "%d: %d,", i, i) > 0);
        map = realloc(map, strlen(map) + strlen(expr) + 64);
        strcat(map, expr);
        free(expr);
    }
    strcat(map, "}[4999]");
    expect_result(map, "4999");
}

/* Every allocation fails in turn: an error, and nothing is lost. */
static void *failing_realloc(void *ctx, void *p, size_t n)
{
    size_t *left = ctx;

    if (*left == 0)
        return NULL;
    (*left)--;
    return realloc(p, n);
}

static void plain_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

static void *counting_realloc(void *ctx, void *p, size_t n)
{
    *(size_t *)ctx += n;
    return realloc(p, n);
}

/* Each of them is 60 KB when it is compiled. */
static void test_many_regexes(void **state)
{
    char *expr = repeated("[", "'a'.matches('(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa){1000}'),", 1500, "].size()");
    size_t taken = 0;
    sf_allocator heap = {.size = sizeof(heap), .realloc = counting_realloc, .free = plain_free, .ctx = &taken};
    sf_error err = SF_ERROR_INIT;
    sf_cel *c;

    (void)state;
    assert_int_equal(sf__cel_compile(&c, sf_bytes_str(expr), NULL, 0, &heap, &err), SF_OK);
    assert_true(taken < 4u << 20);
    sf__cel_free(c);
    free(expr);
}

static void test_many_columns(void **state)
{
    sf_cel_column columns[SF_LIMIT_CEL_COLUMNS + 1];
    sf_error err = SF_ERROR_INIT;
    sf_cel *c;

    (void)state;
    for (size_t i = 0; i < COUNT(columns); i++)
        columns[i] = (sf_cel_column){sf_bytes_str("a"), SF_CEL_INT};
    assert_int_equal(sf__cel_compile(&c, sf_bytes_str("a"), columns, COUNT(columns) - 1, &sf__allocator_default, &err),
                     SF_OK);
    sf__cel_free(c);
    assert_int_equal(sf__cel_compile(&c, sf_bytes_str("a"), columns, COUNT(columns), &sf__allocator_default, &err),
                     SF_INVALID);
    assert_string_equal(err.message, "there are 257 columns, more than 256");
}

static void test_out_of_memory(void **state)
{
    const char *expr =
        "['a', 'b'].map(x, x + 'c' + string(key)).filter(y, y.matches('^a.*')).size() + {'k': [key, 2]}.k[1]";
    sf_cel_column column = {sf_bytes_str("key"), SF_CEL_INT};
    sf_cel_value key = sf__cel_int(7), v;
    bool done = false;

    (void)state;
    for (size_t allowed = 0; !done; allowed++) {
        size_t left = allowed;
        sf_allocator heap = {.size = sizeof(heap), .realloc = failing_realloc, .free = plain_free, .ctx = &left};
        sf_error err = SF_ERROR_INIT;
        sf_cel_memory m;
        sf_cel *c;
        sf_status rc = sf__cel_compile(&c, sf_bytes_str(expr), &column, 1, &heap, &err);

        assert_true(allowed < 1000);
        if (rc != SF_OK) {
            assert_int_equal(rc, SF_NOMEM);
            continue;
        }
        sf__cel_memory_init(&m, &heap);
        if (sf__cel_eval(c, &key, NULL, &m, &v)) {
            assert_int_equal(v.kind, SF_CEL_INT);
            assert_int_equal(v.i, 3);
            done = true;
        } else {
            assert_string_equal(m.reason, "out of memory");
        }
        sf__cel_memory_cleanup(&m);
        sf__cel_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_cases),  cmocka_unit_test(test_categorical),   cmocka_unit_test(test_direct),
        cmocka_unit_test(test_conformance),   cmocka_unit_test(test_language),      cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_doubled_types), cmocka_unit_test(test_costs),
        cmocka_unit_test(test_many_regexes),  cmocka_unit_test(test_many_columns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
