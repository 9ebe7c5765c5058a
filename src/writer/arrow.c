/* Rows out of Arrow record batches: keys, values and routing columns are read where they lie, nothing is allocated a row. The memory is
 * the producer's, in this process: it is trusted like any pointer that a caller hands in, but for indexes, which data
 * frames are known to get wrong. */
#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "writer/arrow_format.h"
#include "writer/arrow_rows.h"

/* Categories in runs, say, have three: runs, index, text. */
#define MAX_LEVELS 4u

struct level {
    sf_arrow_format type;
    bool is_signed; /* of indexes */
    /* of the present batch */
    const struct ArrowArray *array;
    int64_t off; /* of row 0 */
    int64_t run; /* the run found last: rows come in order */
};

enum role { ROLE_KEY, ROLE_VALUE, ROLE_ROUTING };

struct arrow_column {
    int64_t index; /* of the child */
    enum role role;
    char name[64], type[64]; /* for messages */
    struct level levels[MAX_LEVELS];
    size_t level_count;
};

/* What is read of a stream. */
struct arrow_columns {
    struct arrow_column key, value;
    struct arrow_column *routing; /* of CEL, those that the stream has */
    sf_routing_value *values; /* theirs, of the present row */
    sf_routing_context context;
};

static const char *role_name(const struct arrow_column *c)
{
    static const char *const names[] = {[ROLE_KEY] = "key", [ROLE_VALUE] = "value", [ROLE_ROUTING] = "routing"};

    return names[c->role];
}

static int16_t load_i16(const void *p)
{
    int16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static int32_t load_i32(const void *p)
{
    int32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static int64_t load_i64(const void *p)
{
    int64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* ------------------------------------------------------------------ schema --------------------------------------- */

static bool is_integer(const struct level *l)
{
    return l->type.layout == SF_ARROW_INT || l->type.layout == SF_ARROW_UINT;
}

/* From the column down to its values. False: nothing that is understood. */
static bool take_levels(const struct ArrowSchema *s, struct arrow_column *c)
{
    for (c->level_count = 0; c->level_count < MAX_LEVELS;) {
        struct level *l = &c->levels[c->level_count++];

        *l = (struct level){.type.layout = SF_ARROW_NULL};
        if (strcmp(s->format, "+r") == 0 && s->n_children == 2) {
            if (!sf__arrow_format_parse(&l->type, s->children[0]->format) || l->type.layout != SF_ARROW_INT)
                return false;
            l->type.layout = SF_ARROW_RUNS;
            s = s->children[1];
        } else if (s->dictionary) {
            if (!sf__arrow_format_parse(&l->type, s->format) || !is_integer(l))
                return false;
            l->is_signed = l->type.layout == SF_ARROW_INT;
            l->type.layout = SF_ARROW_INDEX;
            s = s->dictionary;
        } else {
            return sf__arrow_format_parse(&l->type, s->format);
        }
    }
    return false;
}

static const struct level *leaf_of(const struct arrow_column *c)
{
    return &c->levels[c->level_count - 1];
}

static sf_status find_column(const struct ArrowSchema *schema, const char *name, int64_t otherwise, struct arrow_column *out,
                             sf_error *err)
{
    int64_t found = name ? -1 : otherwise;
    unsigned long long count = 0;

    for (int64_t i = 0; name && i < schema->n_children; i++) {
        const char *have = schema->children[i]->name;

        if (have && strcmp(have, name) == 0 && count++ == 0)
            found = i;
    }
    if (count > 1)
        return sf_fail(err, SF_INVALID, "the rows have %llu columns '%s': which is the %s? Rename the others", count,
                       name, role_name(out));
    if (found < 0 || found >= schema->n_children)
        return sf_fail(err, SF_INVALID, "the rows have no %s column '%s' among %lld", role_name(out), name ? name : "",
                       (long long)schema->n_children);
    out->index = found;
    if (schema->children[found]->name)
        snprintf(out->name, sizeof(out->name), "%s", schema->children[found]->name);
    sf__arrow_type_name(schema->children[found], out->type, sizeof(out->type));
    if (!take_levels(schema->children[found], out))
        out->level_count = 0;
    return SF_OK;
}

static sf_status fail_type(const struct arrow_column *c, sf_error *err)
{
    static const char *const wanted[] = {[ROLE_KEY] = "neither integer, text nor binary",
                                         [ROLE_VALUE] = "neither text nor binary",
                                         [ROLE_ROUTING] = "neither bool, number, text nor binary"};

    return sf_fail(err, SF_INVALID, "%s column '%s' has type %s, which is %s", role_name(c), c->name, c->type, wanted[c->role]);
}

/* Only where there are rows: an empty frame's columns may have whatever type. */
static sf_status check_type(const struct arrow_column *c, sf_error *err)
{
    const struct level *leaf = c->level_count > 0 ? leaf_of(c) : NULL;
    bool is_number = leaf && (is_integer(leaf) || leaf->type.layout == SF_ARROW_DECIMAL);
    bool only_routes = leaf && (leaf->type.layout == SF_ARROW_BOOL || leaf->type.layout == SF_ARROW_FLOAT);

    if (!leaf || (c->role == ROLE_VALUE && is_number) || (c->role != ROLE_ROUTING && only_routes))
        return fail_type(c, err);
    return SF_OK;
}

static bool has_column(const struct ArrowSchema *schema, const char *name)
{
    for (int64_t i = 0; i < schema->n_children; i++)
        if (schema->children[i]->name && strcmp(schema->children[i]->name, name) == 0)
            return true;
    return false;
}

/* Those that the expression has and the stream, too; as `key` the row's key, unless there is such a column. */
static sf_status take_routing(const struct ArrowSchema *schema, const sf_cel_shards *cel, const char *key_column,
                              struct arrow_columns *c, sf_error *err)
{
    sf_status rc = SF_OK;

    for (size_t i = 0; i < cel->column_count && rc == SF_OK; i++) {
        const char *name = cel->columns[i].name;
        struct arrow_column *column = &c->routing[c->context.count];

        column->role = ROLE_ROUTING;
        if (has_column(schema, name))
            rc = find_column(schema, name, 0, column, err);
        else if (strcmp(name, "key") == 0)
            rc = find_column(schema, key_column, 0, column, err);
        else
            continue;
        c->values[c->context.count++].column = name;
    }
    return rc;
}

static sf_status take_schema(const struct ArrowSchema *schema, const sf_arrow_rows *r, struct arrow_columns *c, sf_error *err)
{
    char type[64];
    sf_status rc;

    if (strcmp(schema->format, "+s") != 0) {
        sf__arrow_type_name(schema, type, sizeof(type));
        return sf_fail(err, SF_INVALID, "rows of type %s are no record batches, which have columns", type);
    }
    rc = find_column(schema, r->key_column, 0, &c->key, err);
    if (rc == SF_OK && !r->keys_only)
        rc = find_column(schema, r->value_column, 1, &c->value, err);
    if (rc == SF_OK && r->cel)
        rc = take_routing(schema, r->cel, r->key_column, c, err);
    return rc;
}

/* ------------------------------------------------------------------ values --------------------------------------- */

/* `i`: with the array's offset. Its count of nulls may not be known (-1). */
static bool is_invalid(const struct ArrowArray *a, int64_t i)
{
    const uint8_t *valid = a->null_count != 0 && a->n_buffers > 0 ? a->buffers[0] : NULL;

    return valid && !(valid[i / 8] >> (i % 8) & 1);
}

static bool is_null(const struct level *l, int64_t i)
{
    if (l->type.layout == SF_ARROW_RUNS)
        return false; /* the values have the nulls */
    return l->type.layout == SF_ARROW_NULL || is_invalid(l->array, i);
}

static int64_t load_int(const uint8_t *p, size_t width)
{
    switch (width) {
    case 1:
        return (int8_t)*p;
    case 2:
        return load_i16(p);
    case 4:
        return load_i32(p);
    default:
        return load_i64(p);
    }
}

static int64_t int_at(const struct level *l, int64_t i)
{
    return load_int((const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width, l->type.width);
}

static uint64_t uint_at(const struct level *l, int64_t i)
{
    uint64_t v = (uint64_t)int_at(l, i);

    return l->type.width < 8 ? v & ((UINT64_C(1) << 8 * l->type.width) - 1) : v;
}

/* False: no integer of 64 bits. */
static bool decimal_at(const struct level *l, int64_t i, sf_key *out)
{
    const uint8_t *p = (const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width;
    int64_t low = load_int(p, l->type.width < 8 ? l->type.width : 8);
    bool negative = (p[l->type.width - 1] & 0x80) != 0; /* the C interface is of the machine's own order; so far little-endian */

    for (size_t k = 8; k < l->type.width; k++)
        if (p[k] != (negative ? 0xff : 0))
            return false;
    if (negative && low >= 0)
        return false;
    *out = negative || low >= 0 ? sf_key_int(low) : sf_key_uint((uint64_t)low);
    return true;
}

/* 4 bytes of length; up to 12 bytes stand right behind it, else 4 bytes of prefix, the number of a data buffer, and the
 * offset there. */
static sf_bytes view_at(const struct level *l, int64_t i)
{
    const uint8_t *view = (const uint8_t *)l->array->buffers[1] + 16 * (size_t)i;
    size_t n = (uint32_t)load_i32(view);

    if (n <= 12)
        return sf_bytes_of(view + 4, n);
    return sf_bytes_of((const uint8_t *)l->array->buffers[2 + load_i32(view + 8)] + load_i32(view + 12), n);
}

static sf_bytes bytes_at(const struct level *l, int64_t i)
{
    int64_t begin, end;
    const uint8_t *offsets, *data;

    if (l->type.layout == SF_ARROW_VIEW)
        return view_at(l, i);
    if (l->type.layout == SF_ARROW_FIXED)
        return sf_bytes_of((const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width, l->type.width);
    offsets = l->array->buffers[1];
    data = l->array->buffers[2];
    if (l->type.layout == SF_ARROW_OFFSET32) {
        begin = load_i32(offsets + 4 * (size_t)i);
        end = load_i32(offsets + 4 * (size_t)i + 4);
    } else {
        begin = load_i64(offsets + 8 * (size_t)i);
        end = load_i64(offsets + 8 * (size_t)i + 8);
    }
    return end > begin ? sf_bytes_of(data + begin, (size_t)(end - begin)) : sf_bytes_of(NULL, 0);
}

/* ------------------------------------------------------------------ nested levels -------------------------------- */

/* The run that holds logical row i: its first end beyond i. */
static int64_t run_of(struct level *l, int64_t i)
{
    const struct ArrowArray *ends = l->array->children[0];
    const uint8_t *p = (const uint8_t *)ends->buffers[1] + (size_t)ends->offset * l->type.width;
    int64_t low = 0, high = ends->length;

    if (l->run < high && load_int(p + (size_t)l->run * l->type.width, l->type.width) > i &&
        (l->run == 0 || load_int(p + (size_t)(l->run - 1) * l->type.width, l->type.width) <= i))
        return l->run;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (load_int(p + (size_t)middle * l->type.width, l->type.width) <= i)
            low = middle + 1;
        else
            high = middle;
    }
    return l->run = low;
}

enum found { FOUND_VALUE, FOUND_NULL, FOUND_NOWHERE };

/* Where a row's value lies among those of the innermost level. */
static enum found find_value(struct arrow_column *c, int64_t row, int64_t *at)
{
    size_t n = 0;

    for (;; n++) {
        struct level *l = &c->levels[n];
        int64_t i = l->off + row;

        if (is_null(l, i))
            return FOUND_NULL;
        if (n + 1 == c->level_count) {
            *at = i;
            return FOUND_VALUE;
        }
        if (l->type.layout == SF_ARROW_RUNS)
            row = run_of(l, i);
        else
            row = l->is_signed ? int_at(l, i) : (int64_t)uint_at(l, i);
        if (row < 0 || row >= c->levels[n + 1].array->length)
            return FOUND_NOWHERE;
    }
}

static void enter_batch(struct arrow_column *c, const struct ArrowArray *batch)
{
    const struct ArrowArray *a = batch->children[c->index];
    int64_t off = a->offset + batch->offset;

    for (size_t n = 0; n < c->level_count; n++) {
        struct level *l = &c->levels[n];

        l->array = a;
        l->off = off;
        l->run = 0;
        if (n + 1 < c->level_count) {
            a = l->type.layout == SF_ARROW_RUNS ? a->children[1] : a->dictionary;
            off = a->offset;
        }
    }
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status bad_row(const sf_arrow_rows *r, const struct arrow_column *c, const char *what, sf_error *err)
{
    return sf_fail(err, SF_BAD_ROW, "row %llu: the %s %s", (unsigned long long)r->rows + 1, role_name(c), what);
}

static sf_status locate(const sf_arrow_rows *r, struct arrow_column *c, int64_t row, int64_t *at, sf_error *err)
{
    enum found f = find_value(c, row, at);

    if (f == FOUND_NULL)
        return bad_row(r, c, "is null", err);
    if (f == FOUND_NOWHERE)
        return bad_row(r, c, "has an index outside of its dictionary", err);
    return SF_OK;
}

static sf_status key_at(const sf_arrow_rows *r, struct arrow_column *c, int64_t row, sf_key *out, sf_error *err)
{
    const struct level *l = leaf_of(c);
    int64_t at = 0;
    sf_status rc = locate(r, c, row, &at, err);

    if (rc != SF_OK)
        return rc;
    if (l->type.layout == SF_ARROW_INT)
        *out = sf_key_int(int_at(l, at));
    else if (l->type.layout == SF_ARROW_UINT)
        *out = sf_key_uint(uint_at(l, at));
    else if (l->type.layout != SF_ARROW_DECIMAL)
        *out = (sf_key){.type = l->type.is_text ? SF_KEY_STR : SF_KEY_BYTES, .b = bytes_at(l, at)};
    else if (!decimal_at(l, at, out))
        rc = bad_row(r, c, "is a decimal number of more than 64 bits", err);
    return rc;
}

static double float_at(const struct level *l, int64_t i)
{
    const uint8_t *p = (const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width;
    float narrow;
    double wide;

    if (l->type.width == sizeof(wide)) {
        memcpy(&wide, p, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, p, sizeof(narrow));
    return (double)narrow;
}

/* A null is one: what no column takes, and what an expression need not ask for. */
static sf_status routing_value_at(const sf_arrow_rows *r, struct arrow_column *c, int64_t row, sf_routing_value *out, sf_error *err)
{
    const struct level *l = leaf_of(c);
    int64_t at = 0;
    enum found f = find_value(c, row, &at);
    sf_status rc = SF_OK;
    sf_key number;

    out->type = SF_ROUTING_NULL;
    if (f == FOUND_NOWHERE)
        return bad_row(r, c, "column has an index outside of its dictionary", err);
    if (f == FOUND_NULL)
        return SF_OK;
    switch (l->type.layout) {
    case SF_ARROW_BOOL:
        out->type = SF_ROUTING_BOOL;
        out->boolean = ((const uint8_t *)l->array->buffers[1])[at / 8] >> (at % 8) & 1;
        break;
    case SF_ARROW_FLOAT:
        out->type = SF_ROUTING_DOUBLE;
        out->d = float_at(l, at);
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
        out->b = bytes_at(l, at);
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

static sf_status add_row(sf_arrow_rows *r, struct arrow_columns *c, int64_t row, sf_error *err)
{
    int64_t at = 0;
    sf_key key;
    sf_status rc = key_at(r, &c->key, row, &key, err);

    if (rc != SF_OK)
        return refuse(r, NULL, rc, err);
    if (!r->keys_only)
        rc = locate(r, &c->value, row, &at, err);
    for (size_t i = 0; i < c->context.count && rc == SF_OK; i++)
        rc = routing_value_at(r, &c->routing[i], row, &c->values[i], err);
    if (rc != SF_OK)
        return refuse(r, &key, rc, err);
    if (c->context.values)
        key.context = &c->context;
    rc = r->take(r->ctx, &key, r->keys_only ? sf_bytes_of(NULL, 0) : bytes_at(leaf_of(&c->value), at), err);
    r->rows += rc == SF_OK;
    return rc;
}

/* Of the struct that a batch is. */
static sf_status null_row(sf_arrow_rows *r, sf_error *err)
{
    sf_status rc = sf_fail(err, SF_BAD_ROW, "row %llu: a row of the batch is null", (unsigned long long)r->rows + 1);

    return refuse(r, NULL, rc, err);
}

static sf_status enter_column(struct arrow_column *c, const struct ArrowArray *batch, sf_error *err)
{
    sf_status rc;

    if (batch->n_children <= c->index)
        return sf_fail(err, SF_INVALID, "an Arrow batch has fewer columns than its schema");
    if (batch->length == 0)
        return SF_OK;
    rc = check_type(c, err);
    if (rc == SF_OK)
        enter_batch(c, batch);
    return rc;
}

static sf_status add_batch(sf_arrow_rows *r, const struct ArrowArray *batch, struct arrow_columns *c, sf_error *err)
{
    sf_status rc = enter_column(&c->key, batch, err);

    if (rc == SF_OK && !r->keys_only)
        rc = enter_column(&c->value, batch, err);
    for (size_t i = 0; i < c->context.count && rc == SF_OK; i++)
        rc = enter_column(&c->routing[i], batch, err);
    for (int64_t i = 0; i < batch->length && rc == SF_OK; i++)
        rc = is_invalid(batch, batch->offset + i) ? null_row(r, err) : add_row(r, c, i, err);
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
    struct arrow_columns c = {.key.role = ROLE_KEY, .value.role = ROLE_VALUE};
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
