#include "writer/cel_shards.h"

#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/options.h"
#include "snapshot/manifest_sharding.h"

static sf_status no_memory(sf_error *err)
{
    return sf_fail(err, SF_NOMEM, "sharding by CEL");
}

/* ------------------------------------------------------------------ what is given --------------------------------- */

static bool copy_text(sf_cel_shards *s, const char **text)
{
    *text = sf__arena_strndup(&s->arena, *text, strlen(*text));
    return *text != NULL;
}

static sf_status copy_given(sf_cel_shards *s, const sf_cel_sharding *given, sf_error *err)
{
    sf_routing_column *columns = sf__arena_alloc(&s->arena, (given->column_count + 1) * sizeof(*columns));

    s->expr = given->expr ? given->expr : "";
    if (!columns || !copy_text(s, &s->expr))
        return no_memory(err);
    for (size_t i = 0; i < given->column_count; i++) {
        columns[i] = given->columns[i];
        if (!columns[i].name || !columns[i].type)
            return sf_fail(err, SF_INVALID, "a CEL column has no name or no type");
        if (!copy_text(s, &columns[i].name) || !copy_text(s, &columns[i].type))
            return no_memory(err);
    }
    s->columns = columns;
    s->column_count = given->column_count;
    s->mode = given->mode;
    return SF_OK;
}

static sf_status take_value(sf_cel_shards *s, const sf_routing_value *v, sf_error *err)
{
    uint32_t number, expected = s->values.count;
    sf_cel_value value;
    sf_status rc;

    switch (v->type) {
    case SF_ROUTING_INT:
        value = sf__cel_int(v->i);
        break;
    case SF_ROUTING_UINT:
        value = sf__cel_uint(v->u);
        break;
    case SF_ROUTING_STR:
        value = sf__cel_string(v->b);
        break;
    case SF_ROUTING_BYTES:
        value = sf__cel_bytes(v->b); /* why not, is said once */
        break;
    default:
        return sf_fail(err, SF_INVALID, "routing_values must be int or str");
    }
    rc = sf__routing_values_add(&s->values, &value, &number, err);
    return rc == SF_OK && number != expected ? sf_fail(err, SF_INVALID, "routing_values must not contain duplicates")
                                             : rc;
}

static sf_status take_values(sf_cel_shards *s, const sf_cel_sharding *given, sf_error *err)
{
    sf_status rc = SF_OK;

    if ((unsigned)given->mode > SF_ROUTING_INFERRED)
        return sf_fail(err, SF_INVALID, "there is no mode %d of CEL sharding: see sf_routing_mode", (int)given->mode);
    if (given->mode != SF_ROUTING_CATEGORICAL && given->value_count > 0)
        return sf_fail(err, SF_INVALID, "routing_values are given in categorical mode only");
    for (size_t i = 0; i < given->value_count && rc == SF_OK; i++)
        rc = take_value(s, &given->values[i], err);
    return rc;
}

static sf_status count_shards(sf_cel_shards *s, uint32_t num_dbs, sf_error *err)
{
    if (s->mode == SF_ROUTING_CATEGORICAL)
        s->num_dbs = s->values.count > 0 ? s->values.count : 1;
    if (s->mode == SF_ROUTING_DIRECT)
        s->num_dbs = num_dbs;
    if (num_dbs > 0 && num_dbs != s->num_dbs)
        return sf_fail(err, SF_INVALID, "sharding.num_dbs is %u, and the routing values make it %u: leave it at 0",
                       num_dbs, s->num_dbs);
    return SF_OK;
}

/* The manifest's text. */
static sf_status write_sharding(const sf_cel_shards *s, char **out, sf_error *err)
{
    sf_strbuf text;
    sf_status rc;

    sf__strbuf_init(&text, s->alloc);
    rc = sf__sharding_cel_write(&text, s->expr, s->columns, s->column_count,
                                s->mode == SF_ROUTING_DIRECT ? NULL : &s->values, err);
    if (rc == SF_OK) {
        *out = sf__strbuf_detach(&text);
        rc = *out ? SF_OK : no_memory(err);
    }
    sf__strbuf_cleanup(&text);
    return rc;
}

/* Of values that are inferred the rule knows none. Without a number of shards it takes any that may be. */
static sf_status make_rule(sf_cel_shards *s, sf_error *err)
{
    char *text = NULL;
    sf_status rc = write_sharding(s, &text, err);

    if (rc == SF_OK)
        rc = sf__cel_rule_new(&s->rule, sf_bytes_str(text), s->num_dbs > 0 ? s->num_dbs : SF_LIMIT_SHARDS, s->alloc, err);
    if (rc == SF_OK && s->num_dbs > 0)
        s->sharding_json = text;
    else
        sf__free(s->alloc, text);
    return rc;
}

sf_status sf__cel_shards_init(sf_cel_shards *s, const sf_cel_sharding *given, uint32_t num_dbs, const sf_allocator *a,
                              sf_error *err)
{
    sf_cel_sharding known = SF_CEL_SHARDING_INIT;
    sf_status rc = sf__options_take(&known, sizeof(known), given, "CEL sharding", err);

    *s = (sf_cel_shards){.alloc = a};
    sf__arena_init(&s->arena, a);
    sf__routing_values_init(&s->values, a);
    if (rc == SF_OK)
        rc = copy_given(s, &known, err);
    if (rc == SF_OK)
        rc = take_values(s, &known, err);
    if (rc == SF_OK)
        rc = count_shards(s, num_dbs, err);
    if (rc == SF_OK)
        rc = make_rule(s, err);
    if (rc != SF_OK)
        sf__cel_shards_cleanup(s);
    return rc;
}

void sf__cel_shards_cleanup(sf_cel_shards *s)
{
    if (!s->alloc)
        return;
    sf__cel_rule_free(s->rule);
    sf__free(s->alloc, s->sharding_json);
    sf__routing_values_cleanup(&s->values);
    sf__arena_cleanup(&s->arena);
    *s = (sf_cel_shards){0};
}

/* ------------------------------------------------------------------ rows ------------------------------------------ */

static sf_routing_value value_of_key(const sf_key *key)
{
    sf_routing_value v = {.column = "key", .b = key->b};

    switch (key->type) {
    case SF_KEY_INT:
        v.type = SF_ROUTING_INT;
        v.i = key->i;
        break;
    case SF_KEY_UINT:
        v.type = SF_ROUTING_UINT;
        v.u = key->u;
        break;
    case SF_KEY_STR:
        v.type = SF_ROUTING_STR;
        break;
    case SF_KEY_BYTES:
        v.type = SF_ROUTING_BYTES;
        break;
    }
    return v;
}

static sf_status infer(sf_cel_shards *s, const sf_cel_value *token, uint32_t *number, sf_error *err)
{
    if (s->num_dbs == 0)
        return sf__routing_values_add(&s->values, token, number, err);
    if (sf__routing_values_find(&s->values, token, number))
        return SF_OK; /* rows come again, and have nothing new */
    return sf_fail(err, SF_NO_ROUTE, "the routing values were inferred from rows without this one's");
}

static sf_status place(sf_cel_shards *s, const sf_key *key, uint32_t *number, sf_error *err)
{
    sf_cel_value token;
    sf_cel_memory m;
    sf_status rc;

    sf__cel_memory_init(&m, s->alloc);
    rc = sf__cel_rule_token(s->rule, key, &m, &token, err);
    if (rc == SF_OK && s->mode == SF_ROUTING_INFERRED)
        rc = infer(s, &token, number, err);
    else if (rc == SF_OK)
        rc = sf__cel_rule_shard(s->rule, &token, number, err);
    s->cut_rows += m.cut;
    sf__cel_memory_cleanup(&m);
    return rc;
}

sf_status sf__cel_shards_place(sf_cel_shards *s, const sf_key *key, uint32_t *number, sf_error *err)
{
    sf_routing_value value;
    sf_routing_context context = {.values = &value, .count = 1};
    sf_key with_context = *key;
    sf_status rc;

    if (!key->context && !sf__cel_rule_is_by_key(s->rule)) {
        value = value_of_key(key);
        with_context.context = &context;
        key = &with_context;
    }
    rc = place(s, key, number, err);
    return rc == SF_INVALID_KEY ? sf_error_recode(err, SF_NO_ROUTE) : rc;
}

/* ------------------------------------------------------------------ all rows are there ---------------------------- */

/* As many as the highest number asks for. `count` is one more than that. */
static sf_status seal_direct(sf_cel_shards *s, bool (*has_rows)(const void *ctx, uint32_t n), const void *ctx,
                             uint32_t count, sf_error *err)
{
    uint32_t distinct = 0;

    for (uint32_t n = 0; n < count; n++)
        distinct += has_rows(ctx, n);
    if (distinct < count)
        return sf_fail(err, SF_NO_ROUTE,
                       "CEL expression produced non-consecutive shard IDs: distinct count=%u, max+1=%u. Every number "
                       "from 0 to "
                       "the highest must occur; let values that are no such numbers be inferred as routing values",
                       distinct, count);
    s->num_dbs = count > 0 ? count : 1;
    return SF_OK;
}

static sf_status seal_inferred(sf_cel_shards *s, uint32_t **places, sf_error *err)
{
    *places = sf__calloc(s->alloc, (size_t)s->values.count + 1, sizeof(**places));
    if (!*places)
        return no_memory(err);
    sf__routing_values_sort(&s->values, *places);
    s->num_dbs = s->values.count > 0 ? s->values.count : 1;
    return SF_OK;
}

sf_status sf__cel_shards_seal(sf_cel_shards *s, bool (*has_rows)(const void *ctx, uint32_t n), const void *ctx,
                              uint32_t count, uint32_t **places, sf_error *err)
{
    sf_status rc;

    *places = NULL;
    if (s->num_dbs > 0)
        return SF_OK;
    rc = s->mode == SF_ROUTING_INFERRED ? seal_inferred(s, places, err) : seal_direct(s, has_rows, ctx, count, err);
    return rc == SF_OK ? write_sharding(s, &s->sharding_json, err) : rc;
}
