/* Rows out of Arrow record batches: keys and values are read where they lie, nothing is allocated a row. The memory is
 * the producer's, in this process: it is trusted like any pointer that a caller hands in. */
#include "base/error.h"
#include "writer/writer.h"

/* How a column's values lie in its buffers. */
enum layout {
    LAYOUT_INT,     /* signed, `width` bytes each */
    LAYOUT_UINT,
    LAYOUT_FIXED,   /* `width` bytes each */
    LAYOUT_OFFSET32, /* buffer 1: int32 offsets into buffer 2 */
    LAYOUT_OFFSET64,
    LAYOUT_VIEW     /* buffer 1: 16 bytes each: length, then the bytes or where they are */
};

struct column {
    int64_t index; /* of the child */
    enum layout layout;
    size_t width;
    bool is_text;
    /* of the present batch */
    const struct ArrowArray *array;
    int64_t off; /* of row 0 */
};

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

static const struct {
    const char *format;
    enum layout layout;
    size_t width;
    bool is_text;
} formats[] = {
    {"c", LAYOUT_INT, 1, false},      {"s", LAYOUT_INT, 2, false},       {"i", LAYOUT_INT, 4, false},
    {"l", LAYOUT_INT, 8, false},      {"C", LAYOUT_UINT, 1, false},      {"S", LAYOUT_UINT, 2, false},
    {"I", LAYOUT_UINT, 4, false},     {"L", LAYOUT_UINT, 8, false},      {"u", LAYOUT_OFFSET32, 0, true},
    {"U", LAYOUT_OFFSET64, 0, true},  {"vu", LAYOUT_VIEW, 0, true},      {"z", LAYOUT_OFFSET32, 0, false},
    {"Z", LAYOUT_OFFSET64, 0, false}, {"vz", LAYOUT_VIEW, 0, false},
};

static bool take_format(const char *format, struct column *c)
{
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (strcmp(format, formats[i].format) == 0) {
            c->layout = formats[i].layout;
            c->width = formats[i].width;
            c->is_text = formats[i].is_text;
            return true;
        }
    }
    if (strncmp(format, "w:", 2) != 0)
        return false;
    c->layout = LAYOUT_FIXED;
    c->width = 0;
    for (const char *p = format + 2; *p >= '0' && *p <= '9' && c->width < (1u << 30); p++)
        c->width = c->width * 10 + (size_t)(*p - '0');
    return true;
}

static sf_status find_column(const struct ArrowSchema *schema, const char *name, int64_t otherwise, const char *role,
                             struct column *out, sf_error *err)
{
    const struct ArrowSchema *child;
    int64_t i = name ? 0 : otherwise;

    while (name && i < schema->n_children &&
           (!schema->children[i]->name || strcmp(schema->children[i]->name, name) != 0))
        i++;
    if (i >= schema->n_children)
        return sf_fail(err, SF_INVALID, "the rows have no %s column '%s' among %lld", role, name ? name : "",
                       (long long)schema->n_children);
    child = schema->children[i];
    out->index = i;
    if (child->dictionary)
        return sf_fail(err, SF_INVALID, "%s column '%s' is dictionary-encoded; decode it first", role,
                       child->name ? child->name : "");
    if (!take_format(child->format, out))
        return sf_fail(err, SF_INVALID,
                       "%s column '%s' has Arrow type '%s', which is neither integer, text nor binary", role,
                       child->name ? child->name : "", child->format);
    return SF_OK;
}

static sf_status take_schema(const struct ArrowSchema *schema, const char *key_column, const char *value_column,
                             struct column *key, struct column *value, sf_error *err)
{
    sf_status rc;

    if (strcmp(schema->format, "+s") != 0)
        return sf_fail(err, SF_INVALID, "rows of Arrow type '%s' are no record batches", schema->format);
    rc = find_column(schema, key_column, 0, "key", key, err);
    if (rc == SF_OK)
        rc = find_column(schema, value_column, 1, "value", value, err);
    if (rc == SF_OK && (value->layout == LAYOUT_INT || value->layout == LAYOUT_UINT))
        rc = sf_fail(err, SF_INVALID, "value column '%s' holds integers, not binary or text",
                     schema->children[value->index]->name ? schema->children[value->index]->name : "");
    return rc;
}

/* ------------------------------------------------------------------ values --------------------------------------- */

static bool is_null(const struct column *c, int64_t row)
{
    const uint8_t *valid = c->array->buffers[0];
    int64_t i = c->off + row;

    return c->array->null_count != 0 && valid && !(valid[i / 8] >> (i % 8) & 1);
}

static int64_t int_at(const struct column *c, int64_t row)
{
    const uint8_t *p = (const uint8_t *)c->array->buffers[1] + (size_t)(c->off + row) * c->width;

    switch (c->width) {
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

static uint64_t uint_at(const struct column *c, int64_t row)
{
    uint64_t v = (uint64_t)int_at(c, row);

    return c->width < 8 ? v & ((UINT64_C(1) << 8 * c->width) - 1) : v;
}

/* 4 bytes of length; up to 12 bytes stand right behind it, else 4 bytes of prefix, the number of a data buffer, and the
 * offset there. */
static sf_bytes view_at(const struct column *c, int64_t i)
{
    const uint8_t *view = (const uint8_t *)c->array->buffers[1] + 16 * (size_t)i;
    size_t n = (uint32_t)load_i32(view);

    if (n <= 12)
        return sf_bytes_of(view + 4, n);
    return sf_bytes_of((const uint8_t *)c->array->buffers[2 + load_i32(view + 8)] + load_i32(view + 12), n);
}

static sf_bytes bytes_at(const struct column *c, int64_t row)
{
    int64_t i = c->off + row, begin, end;
    const uint8_t *offsets, *data;

    if (c->layout == LAYOUT_VIEW)
        return view_at(c, i);
    if (c->layout == LAYOUT_FIXED)
        return sf_bytes_of((const uint8_t *)c->array->buffers[1] + (size_t)i * c->width, c->width);
    offsets = c->array->buffers[1];
    data = c->array->buffers[2];
    if (c->layout == LAYOUT_OFFSET32) {
        begin = load_i32(offsets + 4 * (size_t)i);
        end = load_i32(offsets + 4 * (size_t)i + 4);
    } else {
        begin = load_i64(offsets + 8 * (size_t)i);
        end = load_i64(offsets + 8 * (size_t)i + 8);
    }
    return end > begin ? sf_bytes_of(data + begin, (size_t)(end - begin)) : sf_bytes_of(NULL, 0);
}

/* ------------------------------------------------------------------ rows ----------------------------------------- */

static sf_status bad_row(const sf_writer *w, const char *what, sf_error *err)
{
    return sf_fail(err, SF_BAD_ROW, "row %llu: %s", (unsigned long long)w->counts.rows + 1, what);
}

static sf_status key_at(const sf_writer *w, const struct column *c, int64_t row, sf_key *out, sf_error *err)
{
    uint64_t v;

    if (is_null(c, row))
        return bad_row(w, "the key is null", err);
    if (c->layout == LAYOUT_INT) {
        *out = sf_key_int(int_at(c, row));
    } else if (c->layout == LAYOUT_UINT) {
        v = uint_at(c, row);
        if (v > INT64_MAX)
            return bad_row(w, "the key is above 2^63-1 and cannot be routed", err);
        *out = sf_key_int((int64_t)v);
    } else {
        *out = (sf_key){.type = c->is_text ? SF_KEY_STR : SF_KEY_BYTES, .b = bytes_at(c, row)};
    }
    return SF_OK;
}

static sf_status add_batch(sf_writer *w, const struct ArrowArray *batch, struct column *key, struct column *value,
                           sf_error *err)
{
    sf_status rc = SF_OK;

    if (batch->n_children <= key->index || batch->n_children <= value->index)
        return sf_fail(err, SF_INVALID, "an Arrow batch has fewer columns than its schema");
    if (batch->null_count > 0)
        return bad_row(w, "a row of the batch is null", err);
    key->array = batch->children[key->index];
    value->array = batch->children[value->index];
    key->off = key->array->offset + batch->offset;
    value->off = value->array->offset + batch->offset;
    for (int64_t i = 0; i < batch->length && rc == SF_OK; i++) {
        sf_key k;

        rc = key_at(w, key, i, &k, err);
        if (rc == SF_OK && is_null(value, i))
            rc = bad_row(w, "the value is null", err);
        if (rc == SF_OK)
            rc = sf__writer_add_row(w, &k, bytes_at(value, i), err);
    }
    return rc;
}

static sf_status fail_stream(struct ArrowArrayStream *stream, const char *what, int code, sf_error *err)
{
    const char *text = stream->get_last_error ? stream->get_last_error(stream) : NULL;

    return sf_fail(err, SF_INVALID, "the Arrow stream failed at its %s (%d): %s", what, code,
                   text ? text : "no reason given");
}

sf_status sf__writer_add_stream(sf_writer *w, struct ArrowArrayStream *stream, const char *key_column,
                                const char *value_column, sf_error *err)
{
    struct column key = {.index = -1}, value = {.index = -1};
    struct ArrowSchema schema = {.release = NULL};
    sf_status rc;
    int code = stream->get_schema(stream, &schema);

    if (code != 0)
        return fail_stream(stream, "schema", code, err);
    rc = take_schema(&schema, key_column, value_column, &key, &value, err);
    if (schema.release)
        schema.release(&schema);
    while (rc == SF_OK) {
        struct ArrowArray batch = {.release = NULL};

        code = stream->get_next(stream, &batch);
        if (code != 0)
            return fail_stream(stream, "next batch", code, err);
        if (!batch.release)
            break;
        rc = add_batch(w, &batch, &key, &value, err);
        batch.release(&batch);
    }
    return rc;
}
