#include "snapshot/manifest_sharding.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/limits.h"
#include "snapshot/lax.h"

#define PREFIX "Manifest validation failed: sharding: "

struct members {
    const sf_json *strategy, *hash_algorithm, *cel_expr, *cel_columns, *routing_values;
};

static sf_status fail(sf_error *err, const char *what)
{
    return sf_fail(err, SF_BAD_MANIFEST, PREFIX "%s", what);
}

static bool is_text(const sf_json *v, const char *text)
{
    return v && v->kind == SF_JSON_STRING && sf_bytes_eq(v->str, sf_bytes_str(text));
}

static bool is_unset(const sf_json *v)
{
    return !v || v->kind == SF_JSON_NULL;
}

static sf_status check_names(const sf_json *root, bool boundaries_allowed, sf_error *err)
{
    static const char *const known[] = {"strategy", "hash_algorithm", "cel_expr", "cel_columns", "routing_values"};

    for (const sf_json *v = root->first; v; v = v->next) {
        size_t i = 0;

        while (i < sizeof(known) / sizeof(known[0]) && !sf_bytes_eq(v->key, sf_bytes_str(known[i])))
            i++;
        if (i < sizeof(known) / sizeof(known[0]))
            continue;
        if (boundaries_allowed && v->kind == SF_JSON_NULL && sf_bytes_eq(v->key, sf_bytes_str("boundaries")))
            continue;
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "unknown member '%.*s'", v->key.n < 64 ? (int)v->key.n : 64,
                       (const char *)v->key.p);
    }
    return SF_OK;
}

/* ------------------------------------------------------------------ CEL ------------------------------------------ */

/* Of several members of one name the last counts. */
static bool is_shadowed(const sf_json *member)
{
    for (const sf_json *v = member->next; v; v = v->next)
        if (sf_bytes_eq(v->key, member->key))
            return true;
    return false;
}

static sf_status columns_decode(sf_strbuf *out, const sf_json *columns, sf_error *err)
{
    bool first = true, ok = true;

    if (is_unset(columns) || columns->kind != SF_JSON_OBJECT || columns->count == 0)
        return fail(err, "cel_columns must be a non-empty object for strategy 'cel'");
    if (columns->count > SF_LIMIT_CEL_COLUMNS)
        return sf_fail(err, SF_BAD_MANIFEST, PREFIX "cel_columns has %zu members, more than %u", columns->count,
                       SF_LIMIT_CEL_COLUMNS);
    sf__strbuf_putc(out, '{');
    for (const sf_json *v = columns->first; v; v = v->next) {
        if (is_shadowed(v))
            continue;
        if (v->kind != SF_JSON_STRING)
            return fail(err, "cel_columns has a type that is not a string");
        if (!first)
            sf__strbuf_puts(out, ", ");
        first = false;
        ok = sf__json_write_str(out, v->key) && ok;
        sf__strbuf_puts(out, ": ");
        ok = sf__json_write_str(out, v->str) && ok;
    }
    sf__strbuf_putc(out, '}');
    return ok ? SF_OK : fail(err, "cel_columns is not UTF-8");
}

static int by_bytes(const void *a, const void *b)
{
    return sf_bytes_cmp(*(const sf_bytes *)a, *(const sf_bytes *)b);
}

static sf_status token_decode(sf_strbuf *out, const sf_json *v, bool texts, sf_error *err)
{
    char scratch[SF_LAX_INT_TEXT];
    sf_bytes text;

    if (texts != (v->kind == SF_JSON_STRING))
        return fail(err, "routing_values must be all integers or all strings");
    if (texts)
        return sf__json_write_str(out, v->str) ? SF_OK : fail(err, "routing_values has text that is not UTF-8");
    if (!sf__lax_int_text_from_json(v, scratch, &text))
        return fail(err, "routing_values must be all integers or all strings");
    sf__strbuf_add(out, text.p, text.n);
    return SF_OK;
}

/* Tokens written the same way are the same: the form is canonical. */
static sf_status check_duplicates(const sf_strbuf *out, const size_t *ends, size_t begin, size_t count,
                                  const sf_allocator *a, sf_error *err)
{
    sf_bytes *tokens;
    bool twice = false;

    if (out->failed)
        return sf_fail(err, SF_NOMEM, "routing_values of a manifest");
    if (count < 2)
        return SF_OK;
    tokens = sf__calloc(a, count, sizeof(*tokens));
    if (!tokens)
        return sf_fail(err, SF_NOMEM, "routing_values of a manifest");
    for (size_t i = 0; i < count; i++) {
        tokens[i] = sf_bytes_of(out->s + begin, ends[i] - begin);
        begin = ends[i] + 2; /* ", " */
    }
    qsort(tokens, count, sizeof(*tokens), by_bytes);
    for (size_t i = 1; i < count; i++)
        twice = twice || sf_bytes_eq(tokens[i - 1], tokens[i]);
    sf__free(a, tokens);
    return twice ? fail(err, "routing_values has duplicates") : SF_OK;
}

static sf_status values_decode(sf_strbuf *out, const sf_json *values, const sf_allocator *a, sf_error *err)
{
    size_t begin, i = 0, *ends;
    sf_status rc = SF_OK;

    if (values->kind != SF_JSON_ARRAY)
        return fail(err, "routing_values is not an array");
    ends = sf__calloc(a, values->count + 1, sizeof(*ends));
    if (!ends)
        return sf_fail(err, SF_NOMEM, "routing_values of a manifest");
    sf__strbuf_putc(out, '[');
    begin = out->n;
    for (const sf_json *v = values->first; v && rc == SF_OK; v = v->next, i++) {
        if (i > 0)
            sf__strbuf_puts(out, ", ");
        rc = token_decode(out, v, values->first->kind == SF_JSON_STRING, err);
        ends[i] = out->n;
    }
    if (rc == SF_OK)
        rc = check_duplicates(out, ends, begin, values->count, a, err);
    sf__strbuf_putc(out, ']');
    sf__free(a, ends);
    return rc;
}

/* ------------------------------------------------------------------ both ----------------------------------------- */

static sf_status cel_decode(sf_sharding *s, sf_strbuf *out, const struct members *m, const sf_allocator *a, sf_error *err)
{
    sf_status rc;

    s->strategy = SF_SHARDING_CEL;
    if (!m->cel_expr || m->cel_expr->kind != SF_JSON_STRING || m->cel_expr->str.n == 0)
        return fail(err, "cel_expr must be a non-empty string for strategy 'cel'");
    sf__strbuf_puts(out, "{\"cel_columns\": ");
    rc = columns_decode(out, m->cel_columns, err);
    if (rc != SF_OK)
        return rc;
    sf__strbuf_puts(out, ", \"cel_expr\": ");
    if (!sf__json_write_str(out, m->cel_expr->str))
        return fail(err, "cel_expr is not UTF-8");
    sf__strbuf_puts(out, ", \"hash_algorithm\": \"xxh3_64\", \"routing_values\": ");
    if (is_unset(m->routing_values)) {
        sf__strbuf_puts(out, "null");
    } else {
        rc = values_decode(out, m->routing_values, a, err);
        s->categorical = true;
        s->value_count = m->routing_values->count;
    }
    sf__strbuf_puts(out, ", \"strategy\": \"cel\"}");
    return rc;
}

static sf_status hash_decode(sf_sharding *s, sf_strbuf *out, const struct members *m, sf_error *err)
{
    s->strategy = SF_SHARDING_HASH;
    if (!is_unset(m->cel_expr) || !is_unset(m->cel_columns) || !is_unset(m->routing_values))
        return fail(err, "cel_expr, cel_columns and routing_values must be unset for strategy 'hash'");
    sf__strbuf_puts(out, "{\"cel_columns\": null, \"cel_expr\": null, \"hash_algorithm\": \"xxh3_64\", "
                         "\"routing_values\": null, \"strategy\": \"hash\"}");
    return SF_OK;
}

static sf_status root_decode(sf_sharding *s, sf_strbuf *out, const sf_json *root, bool boundaries_allowed,
                             const sf_allocator *a, sf_error *err)
{
    struct members m = {
        .strategy = sf__json_get(root, "strategy"),
        .hash_algorithm = sf__json_get(root, "hash_algorithm"),
        .cel_expr = sf__json_get(root, "cel_expr"),
        .cel_columns = sf__json_get(root, "cel_columns"),
        .routing_values = sf__json_get(root, "routing_values"),
    };
    sf_status rc;

    if (root->kind != SF_JSON_OBJECT)
        return fail(err, "not a JSON object");
    rc = check_names(root, boundaries_allowed, err);
    if (rc != SF_OK)
        return rc;
    if (!is_text(m.hash_algorithm, "xxh3_64"))
        return fail(err, "hash_algorithm must be 'xxh3_64'");
    if (!m.strategy || is_text(m.strategy, "hash"))
        return hash_decode(s, out, &m, err);
    if (is_text(m.strategy, "cel"))
        return cel_decode(s, out, &m, a, err);
    return fail(err, "strategy must be 'hash' or 'cel'");
}

sf_status sf__sharding_decode(sf_sharding *out, sf_strbuf *canonical, sf_bytes text, bool boundaries_allowed,
                              const sf_allocator *a, sf_error *err)
{
    sf_sharding s = {.strategy = SF_SHARDING_HASH};
    sf_json_doc doc;
    sf_status rc = sf__json_parse(&doc, text, 0, a, err);

    if (rc != SF_OK)
        return rc == SF_NOMEM ? rc : sf_error_prefix(err, SF_BAD_MANIFEST, PREFIX);
    rc = root_decode(&s, canonical, doc.root, boundaries_allowed, a, err);
    sf__json_cleanup(&doc);
    if (rc == SF_OK && canonical->failed)
        rc = sf_fail(err, SF_NOMEM, "sharding of a manifest");
    if (rc == SF_OK)
        *out = s;
    return rc;
}

/* ------------------------------------------------------------------ writing -------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const sf_routing_column *const *)a)->name, (*(const sf_routing_column *const *)b)->name);
}

static sf_status columns_write(sf_strbuf *out, const sf_routing_column **columns, size_t count, sf_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(columns[i - 1]->name, columns[i]->name) == 0)
            return sf_fail(err, SF_INVALID, "there are two cel_columns '%s'", columns[i]->name);
        sf__strbuf_puts(out, i > 0 ? ", " : "{");
        if (!sf__json_write_str(out, sf_bytes_str(columns[i]->name)))
            return sf_fail(err, SF_INVALID, "the name of a CEL column is not UTF-8");
        sf__strbuf_puts(out, ": ");
        if (!sf__json_write_str(out, sf_bytes_str(columns[i]->type)))
            return sf_fail(err, SF_INVALID, "the type of CEL column '%s' is not UTF-8", columns[i]->name);
    }
    sf__strbuf_putc(out, '}');
    return SF_OK;
}

static sf_status columns_sort(sf_strbuf *out, const sf_routing_column *columns, size_t count, sf_error *err)
{
    const sf_routing_column **sorted = sf__calloc(out->alloc, count, sizeof(*sorted));
    sf_status rc;

    if (!sorted)
        return sf_fail(err, SF_NOMEM, "%zu CEL columns", count);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &columns[i];
    qsort((void *)sorted, count, sizeof(*sorted), by_name);
    rc = columns_write(out, sorted, count, err);
    sf__free(out->alloc, (void *)sorted);
    return rc;
}

sf_status sf__sharding_cel_write(sf_strbuf *out, const char *expr, const sf_routing_column *columns,
                                 size_t column_count, const sf_routing_values *values, sf_error *err)
{
    sf_status rc;

    if (!expr || !*expr)
        return sf_fail(err, SF_INVALID, "CEL strategy requires cel_expr");
    if (column_count == 0)
        return sf_fail(err, SF_INVALID, "CEL strategy requires cel_columns");
    if (column_count > SF_LIMIT_CEL_COLUMNS)
        return sf_fail(err, SF_INVALID, "%zu cel_columns are more than %u", column_count, SF_LIMIT_CEL_COLUMNS);
    sf__strbuf_puts(out, "{\"cel_columns\": ");
    rc = columns_sort(out, columns, column_count, err);
    if (rc != SF_OK)
        return rc;
    sf__strbuf_puts(out, ", \"cel_expr\": ");
    if (!sf__json_write_str(out, sf_bytes_str(expr)))
        return sf_fail(err, SF_INVALID, "cel_expr is not UTF-8");
    sf__strbuf_puts(out, ", \"hash_algorithm\": \"xxh3_64\", \"routing_values\": ");
    if (values)
        sf__routing_values_write(out, values);
    else
        sf__strbuf_puts(out, "null");
    sf__strbuf_puts(out, ", \"strategy\": \"cel\"}");
    return out->failed ? sf_fail(err, SF_NOMEM, "sharding of a manifest") : SF_OK;
}
