#include "writer/arrow_column.h"

#include <stdio.h>

#include "base/error.h"

/* ------------------------------------------------------------------ schema --------------------------------------- */

const char *sf__arrow_role_name(const sf_arrow_column *c)
{
    static const char *const names[] = {
        [SF_ARROW_KEY] = "key", [SF_ARROW_VALUE] = "value", [SF_ARROW_ROUTING] = "routing", [SF_ARROW_MEMBER] = "value"};

    return names[c->role];
}

static bool is_integer(const sf_arrow_level *l)
{
    return l->type.layout == SF_ARROW_INT || l->type.layout == SF_ARROW_UINT;
}

/* From the column down to its values. False: nothing that is understood. */
static bool take_levels(const struct ArrowSchema *s, sf_arrow_column *c)
{
    for (c->level_count = 0; c->level_count < SF_ARROW_LEVELS;) {
        sf_arrow_level *l = &c->levels[c->level_count++];

        *l = (sf_arrow_level){.type.layout = SF_ARROW_NULL};
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

size_t sf__arrow_columns_named(const struct ArrowSchema *schema, const char *name)
{
    size_t count = 0;

    for (int64_t i = 0; i < schema->n_children; i++)
        count += strcmp(sf_arrow_name(schema, i), name) == 0;
    return count;
}

static int64_t place_of(const struct ArrowSchema *schema, const char *name)
{
    int64_t i = 0;

    while (i < schema->n_children && strcmp(sf_arrow_name(schema, i), name) != 0)
        i++;
    return i;
}

/* The names that there are, as many of them as a message has room for. */
static sf_status fail_missing(const struct ArrowSchema *schema, const char *role, const char *name, sf_error *err)
{
    char names[300] = "";
    size_t n = 0;
    int64_t i = 0;

    for (; i < schema->n_children && strlen(sf_arrow_name(schema, i)) + n < sizeof(names) - 8; i++)
        n += (size_t)snprintf(names + n, sizeof(names) - n, "%s'%s'", i > 0 ? ", " : "", sf_arrow_name(schema, i));
    return sf_fail(err, SF_INVALID, "the rows have no %s column%s%s%s among %lld%s%s%s", role, name ? " '" : "",
                   name ? name : "", name ? "'" : "", (long long)schema->n_children, n > 0 ? ": " : "", names,
                   n > 0 && i < schema->n_children ? ", ..." : "");
}

sf_status sf__arrow_column_find(const struct ArrowSchema *schema, const char *name, int64_t otherwise,
                                sf_arrow_column *out, sf_error *err)
{
    int64_t found = name ? place_of(schema, name) : otherwise;
    size_t count = name ? sf__arrow_columns_named(schema, name) : 1;

    if (count > 1)
        return sf_fail(err, SF_INVALID, "the rows have %zu columns '%s': which is the %s? Rename the others", count,
                       name, sf__arrow_role_name(out));
    if (found >= schema->n_children)
        return fail_missing(schema, sf__arrow_role_name(out), name, err);
    out->index = found;
    snprintf(out->name, sizeof(out->name), "%s", sf_arrow_name(schema, found));
    sf__arrow_type_name(schema->children[found], out->type, sizeof(out->type));
    if (!take_levels(schema->children[found], out))
        out->level_count = 0;
    return SF_OK;
}

static sf_status fail_type(const sf_arrow_column *c, sf_error *err)
{
    static const char *const wanted[] = {[SF_ARROW_KEY] = "neither integer, text nor binary: cast it",
                                         [SF_ARROW_VALUE] =
                                             "neither text nor binary: cast it, or have each value be a JSON object "
                                             "(ValueSpec.json_cols, --values json)",
                                         [SF_ARROW_ROUTING] = "neither bool, number, text nor binary: cast it",
                                         [SF_ARROW_MEMBER] = "neither bool, integer, floating-point number nor text: "
                                                             "cast it, or name the columns that a value has, without it"};

    return sf_fail(err, SF_INVALID, "%s column '%s' has type %s, which is %s", sf__arrow_role_name(c), c->name, c->type,
                   wanted[c->role]);
}

bool sf__arrow_column_fits(const sf_arrow_column *c)
{
    sf_arrow_layout layout;
    bool is_number, is_bool_or_float;

    if (c->level_count == 0)
        return false;
    layout = sf_arrow_leaf(c)->type.layout;
    is_number = is_integer(sf_arrow_leaf(c)) || layout == SF_ARROW_DECIMAL;
    is_bool_or_float = layout == SF_ARROW_BOOL || layout == SF_ARROW_FLOAT;
    switch (c->role) {
    case SF_ARROW_KEY:
        return !is_bool_or_float;
    case SF_ARROW_VALUE:
        return !is_number && !is_bool_or_float;
    case SF_ARROW_ROUTING:
        return true;
    default:
        return layout == SF_ARROW_NULL || is_integer(sf_arrow_leaf(c)) || is_bool_or_float ||
               sf_arrow_leaf(c)->type.is_text;
    }
}

/* ------------------------------------------------------------------ values --------------------------------------- */

static bool is_null(const sf_arrow_level *l, int64_t i)
{
    if (l->type.layout == SF_ARROW_RUNS)
        return false; /* the values have the nulls */
    return l->type.layout == SF_ARROW_NULL || sf_arrow_is_invalid(l->array, i);
}

bool sf__arrow_decimal(const sf_arrow_level *l, int64_t i, sf_key *out)
{
    const uint8_t *p = (const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width;
    int64_t low = sf_arrow_load_int(p, l->type.width < 8 ? l->type.width : 8);
    bool negative =
        (p[l->type.width - 1] & 0x80) != 0; /* the C interface is of the machine's own order; so far little-endian */

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
static sf_bytes view_at(const struct ArrowArray *a, int64_t i)
{
    const uint8_t *view = (const uint8_t *)a->buffers[1] + 16 * (size_t)i;
    size_t n = (uint32_t)sf_arrow_load_int(view, 4);

    if (n <= 12)
        return sf_bytes_of(view + 4, n);
    return sf_bytes_of((const uint8_t *)a->buffers[2 + sf_arrow_load_int(view + 8, 4)] + sf_arrow_load_int(view + 12, 4),
                       n);
}

sf_bytes sf__arrow_bytes(const sf_arrow_level *l, int64_t i)
{
    const struct ArrowArray *a = l->array;
    size_t width = l->type.layout == SF_ARROW_OFFSET32 ? 4 : 8;
    sf_bytes b = {NULL, 0};
    const uint8_t *offsets;
    int64_t begin, end;

    if (l->type.layout == SF_ARROW_VIEW) {
        b = view_at(a, i);
    } else if (l->type.layout == SF_ARROW_FIXED) {
        b = sf_bytes_of((const uint8_t *)a->buffers[1] + (size_t)i * l->type.width, l->type.width);
    } else {
        offsets = (const uint8_t *)a->buffers[1] + width * (size_t)i;
        begin = sf_arrow_load_int(offsets, width);
        end = sf_arrow_load_int(offsets + width, width);
        if (end > begin)
            b = sf_bytes_of((const uint8_t *)a->buffers[2] + begin, (size_t)(end - begin));
    }
    return b.n > 0 ? b : sf_bytes_str(""); /* where nothing is, may be no buffer either */
}

/* ------------------------------------------------------------------ nested levels -------------------------------- */

/* The run that holds logical row i: its first end beyond i. */
static int64_t run_of(sf_arrow_level *l, int64_t i)
{
    const struct ArrowArray *ends = l->array->children[0];
    const uint8_t *p = (const uint8_t *)ends->buffers[1] + (size_t)ends->offset * l->type.width;
    int64_t low = 0, high = ends->length;

    if (l->run < high && sf_arrow_load_int(p + (size_t)l->run * l->type.width, l->type.width) > i &&
        (l->run == 0 || sf_arrow_load_int(p + (size_t)(l->run - 1) * l->type.width, l->type.width) <= i))
        return l->run;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (sf_arrow_load_int(p + (size_t)middle * l->type.width, l->type.width) <= i)
            low = middle + 1;
        else
            high = middle;
    }
    return l->run = low;
}

sf_arrow_found sf__arrow_column_at(sf_arrow_column *c, int64_t row, int64_t *at)
{
    size_t n = 0;

    for (;; n++) {
        sf_arrow_level *l = &c->levels[n];
        int64_t i = l->off + row;

        if (is_null(l, i))
            return SF_ARROW_FOUND_NULL;
        if (n + 1 == c->level_count) {
            *at = i;
            return SF_ARROW_FOUND;
        }
        if (l->type.layout == SF_ARROW_RUNS)
            row = run_of(l, i);
        else
            row = l->is_signed ? sf_arrow_int(l, i) : (int64_t)sf_arrow_uint(l, i);
        if (row < 0 || row >= c->levels[n + 1].array->length)
            return SF_ARROW_FOUND_NOWHERE;
    }
}

/* Whether an array has the buffers that its type lies in. Readers that are made of batches of whatever types do not look. */
static bool has_layout(const sf_arrow_level *l, const struct ArrowArray *a)
{
    switch (l->type.layout) {
    case SF_ARROW_NULL:
        return true;
    case SF_ARROW_RUNS:
        return a->n_children == 2 && a->children[0]->n_buffers == 2;
    case SF_ARROW_INDEX:
        return a->n_buffers == 2 && a->dictionary;
    case SF_ARROW_OFFSET32:
    case SF_ARROW_OFFSET64:
        return a->n_buffers == 3;
    case SF_ARROW_VIEW:
        return a->n_buffers >= 2;
    default:
        return a->n_buffers == 2;
    }
}

static bool enter_batch(sf_arrow_column *c, const struct ArrowArray *batch)
{
    const struct ArrowArray *a = batch->children[c->index];
    int64_t off = a->offset + batch->offset;

    for (size_t n = 0; n < c->level_count; n++) {
        sf_arrow_level *l = &c->levels[n];

        if (!has_layout(l, a))
            return false;
        l->array = a;
        l->off = off;
        l->run = 0;
        if (n + 1 < c->level_count) {
            a = l->type.layout == SF_ARROW_RUNS ? a->children[1] : a->dictionary;
            off = a->offset;
        }
    }
    return true;
}

sf_status sf__arrow_column_enter(sf_arrow_column *c, const struct ArrowArray *batch, sf_error *err)
{
    if (batch->n_children <= c->index)
        return sf_fail(err, SF_INVALID, "an Arrow batch has fewer columns than its schema");
    if (batch->length == 0)
        return SF_OK; /* an empty frame's columns may have whatever type */
    if (!sf__arrow_column_fits(c))
        return fail_type(c, err);
    if (!enter_batch(c, batch))
        return sf_fail(err, SF_INVALID,
                       "an Arrow batch has another %s column '%s' than its schema, in which it has type %s",
                       sf__arrow_role_name(c), c->name, c->type);
    return SF_OK;
}
