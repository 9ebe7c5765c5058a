#include "writer/arrow_rows.h"

#include "base/error.h"

/* What is read of a stream. */
struct arrow_columns {
    sf_arrow_column key, value;
    sf_arrow_json json;       /* in place of `value` */
    sf_arrow_column *routing; /* of CEL, those that the stream has */
    sf_routing_value *values; /* theirs, of the present row */
    sf_routing_context context;
};

/* Those that the expression has and the stream, too; as `key` the row's key, unless there is such a column. */
static sf_status take_routing(const struct ArrowSchema *schema, const sf_cel_shards *cel, const char *key_column,
                              struct arrow_columns *c, sf_error *err)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; i < cel->column_count && rc == SF_OK; i++) {
        const char *name = cel->columns[i].name;
        sf_arrow_column *column = &c->routing[c->context.count];

        column->role = SF_ARROW_ROUTING;
        if (sf__arrow_columns_named(schema, name) > 0)
            rc = sf__arrow_column_find(schema, name, 0, column, err);
        else if (strcmp(name, "key") == 0)
            rc = sf__arrow_column_find(schema, key_column, 0, column, err);
        else
            continue;
        c->values[c->context.count++].column = sf__cel_rule_column(cel->rule, name);
    }
    return rc;
}

static sf_status take_schema(const struct ArrowSchema *schema, const sf_arrow_rows *r, struct arrow_columns *c,
                             sf_error *err)
{
    char type[64];
    sf_status rc;

    if (strcmp(schema->format, "+s") != 0) {
        sf__arrow_type_name(schema, type, sizeof(type));
        return sf_fail(err, SF_INVALID, "rows of type %s are no record batches, which have columns", type);
    }
    rc = sf__arrow_column_find(schema, r->key_column, 0, &c->key, err);
    if (rc == SF_OK && r->value.kind == SF_ARROW_VALUE_COLUMN)
        rc = sf__arrow_column_find(schema, r->value.column, 1, &c->value, err);
    if (rc == SF_OK && r->value.kind == SF_ARROW_VALUE_JSON)
        rc = sf__arrow_json_init(&c->json, schema, &r->value.members, r->alloc, err);
    if (rc == SF_OK && r->cel)
        rc = take_routing(schema, r->cel, r->key_column, c, err);
    return rc;
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status bad_row(const sf_arrow_rows *r, const sf_arrow_column *c, const char *what, sf_error *err)
{
    return sf_fail(err, SF_BAD_ROW, "row %llu: the %s %s", (unsigned long long)r->rows + 1, sf__arrow_role_name(c), what);
}

static sf_status locate(const sf_arrow_rows *r, sf_arrow_column *c, int64_t row, int64_t *at, sf_error *err)
{
    sf_arrow_found f = sf__arrow_column_at(c, row, at);

    if (f == SF_ARROW_FOUND_NULL)
        return bad_row(r, c, "is null", err);
    if (f == SF_ARROW_FOUND_NOWHERE)
        return bad_row(r, c, "has an index outside of its dictionary", err);
    return SF_OK;
}

static sf_status key_at(const sf_arrow_rows *r, sf_arrow_column *c, int64_t row, sf_key *out, sf_error *err)
{
    const sf_arrow_level *l = sf_arrow_leaf(c);
    int64_t at = 0;
    sf_status rc = locate(r, c, row, &at, err);

    if (rc != SF_OK)
        return rc;
    if (l->type.layout == SF_ARROW_INT)
        *out = sf_key_int(sf_arrow_int(l, at));
    else if (l->type.layout == SF_ARROW_UINT)
        *out = sf_key_uint(sf_arrow_uint(l, at));
    else if (l->type.layout != SF_ARROW_DECIMAL)
        *out = (sf_key){.type = l->type.is_text ? SF_KEY_STR : SF_KEY_BYTES, .b = sf__arrow_bytes(l, at)};
    else if (!sf__arrow_decimal(l, at, out))
        rc = bad_row(r, c, "is a decimal number of more than 64 bits", err);
    return rc;
}

/* A null is one: what no column takes, and what an expression need not ask for. */
static sf_status routing_value_at(const sf_arrow_rows *r, sf_arrow_column *c, int64_t row, sf_routing_value *out,
                                  sf_error *err)
{
    const sf_arrow_level *l = sf_arrow_leaf(c);
    int64_t at = 0;
    sf_arrow_found f = sf__arrow_column_at(c, row, &at);
    sf_status rc = SF_OK;
    sf_key number;

    out->type = SF_ROUTING_NULL;
    if (f == SF_ARROW_FOUND_NOWHERE)
        return bad_row(r, c, "column has an index outside of its dictionary", err);
    if (f == SF_ARROW_FOUND_NULL)
        return SF_OK;
    switch (l->type.layout) {
    case SF_ARROW_BOOL:
        out->type = SF_ROUTING_BOOL;
        out->boolean = sf_arrow_bool(l, at);
        break;
    case SF_ARROW_FLOAT:
        out->type = SF_ROUTING_DOUBLE;
        out->d = sf_arrow_float(l, at);
        break;
    case SF_ARROW_INT:
    case SF_ARROW_UINT:
    case SF_ARROW_DECIMAL:
        rc = key_at(r, c, row, &number, err);
        out->type = rc == SF_OK && number.type == SF_KEY_UINT ? SF_ROUTING_UINT : SF_ROUTING_INT;
        out->u = number.u;
        break;
    default:
        out->type = l->type.is_text ? SF_ROUTING_STR : SF_ROUTING_BYTES;
        out->b = sf__arrow_bytes(l, at);
        break;
    }
    return rc;
}

/* The row failed: SF_OK when it is left out. */
static sf_status refuse(sf_arrow_rows *r, const sf_key *key, sf_status rc, sf_error *err)
{
    if (r->refuse)
        rc = r->refuse(r->ctx, key, rc, err);
    r->rows += rc == SF_OK;
    return rc;
}

static sf_status value_at(const sf_arrow_rows *r, struct arrow_columns *c, int64_t row, sf_bytes *out, sf_error *err)
{
    int64_t at = 0;
    sf_status rc;

    switch (r->value.kind) {
    case SF_ARROW_VALUE_COLUMN:
        rc = locate(r, &c->value, row, &at, err);
        if (rc == SF_OK)
            *out = sf__arrow_bytes(sf_arrow_leaf(&c->value), at);
        return rc;
    case SF_ARROW_VALUE_JSON:
        rc = sf__arrow_json_row(&c->json, row, out, err);
        return rc == SF_OK ? SF_OK : sf_error_prefix(err, rc, "row %llu: ", (unsigned long long)r->rows + 1);
    default:
        *out = sf_bytes_str("");
        return SF_OK;
    }
}

static sf_status add_row(sf_arrow_rows *r, struct arrow_columns *c, int64_t row, sf_error *err)
{
    sf_bytes value = {NULL, 0};
    sf_key key;
    sf_status rc = key_at(r, &c->key, row, &key, err);

    if (rc != SF_OK)
        return refuse(r, NULL, rc, err);
    rc = value_at(r, c, row, &value, err);
    for (size_t i = 0; i < c->context.count && rc == SF_OK; i++)
        rc = routing_value_at(r, &c->routing[i], row, &c->values[i], err);
    if (rc != SF_OK)
        return refuse(r, &key, rc, err);
    if (c->context.values)
        key.context = &c->context;
    rc = r->take(r->ctx, &key, value, err);
    r->rows += rc == SF_OK;
    return rc;
}

/* Of the struct that a batch is. */
static sf_status null_row(sf_arrow_rows *r, sf_error *err)
{
    sf_status rc = sf_fail(err, SF_BAD_ROW, "row %llu: a row of the batch is null", (unsigned long long)r->rows + 1);

    return refuse(r, NULL, rc, err);
}

static sf_status add_batch(sf_arrow_rows *r, const struct ArrowArray *batch, struct arrow_columns *c, sf_error *err)
{
    sf_status rc = sf__arrow_column_enter(&c->key, batch, err);

    if (rc == SF_OK && r->value.kind == SF_ARROW_VALUE_COLUMN)
        rc = sf__arrow_column_enter(&c->value, batch, err);
    if (rc == SF_OK && r->value.kind == SF_ARROW_VALUE_JSON)
        rc = sf__arrow_json_enter(&c->json, batch, err);
    for (size_t i = 0; i < c->context.count && rc == SF_OK; i++)
        rc = sf__arrow_column_enter(&c->routing[i], batch, err);
    for (int64_t i = 0; i < batch->length && rc == SF_OK; i++)
        rc = sf_arrow_is_invalid(batch, batch->offset + i) ? null_row(r, err) : add_row(r, c, i, err);
    return rc;
}

static sf_status fail_stream(struct ArrowArrayStream *stream, const char *what, int code, sf_error *err)
{
    const char *text = stream->get_last_error ? stream->get_last_error(stream) : NULL;

    return sf_fail(err, SF_INVALID, "the Arrow stream failed at its %s (%d): %s", what, code,
                   text ? text : "no reason given");
}

static sf_status reserve_routing(const sf_arrow_rows *r, struct arrow_columns *c, sf_error *err)
{
    const sf_allocator *a = r->alloc;
    size_t count = r->cel ? r->cel->column_count : 0;

    if (count == 0)
        return SF_OK;
    c->routing = sf__calloc(a, count, sizeof(*c->routing));
    c->values = sf__calloc(a, count, sizeof(*c->values));
    c->context.values = c->values;
    return c->routing && c->values ? SF_OK : sf_fail(err, SF_NOMEM, "%zu routing columns", count);
}

static sf_status add_batches(sf_arrow_rows *r, struct ArrowArrayStream *stream, struct arrow_columns *c, sf_error *err)
{
    sf_status rc = SF_OK;

    while (rc == SF_OK) {
        struct ArrowArray batch = {.release = NULL};
        int code = stream->get_next(stream, &batch);

        if (code != 0)
            return fail_stream(stream, "next batch", code, err);
        if (!batch.release)
            break;
        rc = add_batch(r, &batch, c, err);
        batch.release(&batch);
    }
    return rc;
}

static sf_status read_stream(sf_arrow_rows *r, struct ArrowArrayStream *stream, sf_error *err)
{
    struct arrow_columns c = {.key.role = SF_ARROW_KEY, .value.role = SF_ARROW_VALUE};
    struct ArrowSchema schema = {.release = NULL};
    sf_status rc;
    int code = stream->get_schema(stream, &schema);

    if (code != 0)
        return fail_stream(stream, "schema", code, err);
    rc = reserve_routing(r, &c, err);
    if (rc == SF_OK)
        rc = take_schema(&schema, r, &c, err);
    if (schema.release)
        schema.release(&schema);
    if (rc == SF_OK)
        rc = add_batches(r, stream, &c, err);
    sf__arrow_json_cleanup(&c.json);
    sf__free(r->alloc, c.routing);
    sf__free(r->alloc, c.values);
    return rc;
}

sf_status sf__arrow_rows_read(sf_arrow_rows *r, struct ArrowArrayStream *stream, sf_error *err)
{
    sf_status rc;

    if (!stream->release) /* none of its functions may be called any more */
        return sf_fail(err, SF_INVALID, "the Arrow stream was read before");
    rc = read_stream(r, stream, err);
    stream->release(stream);
    return rc;
}
