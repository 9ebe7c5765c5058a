/* Rows as Arrow data: one array of structs with a column of keys and one of values. All of it is the C library's memory, since
 * it may outlive the runtime. A consumer may take a column by itself, so each has an allocation of its own. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/utf8.h"
#include "shardyfusion/reader.h"

#define HEAP (&sf__allocator_default)

/* ------------------------------------------------------------------ schema --------------------------------------- */

struct schema_parts {
    struct ArrowSchema columns[2], *children[2];
};

/* What is static: of columns, and of a schema that is being taken apart. */
static void schema_let_go(struct ArrowSchema *s)
{
    s->release = NULL;
}

static void schema_release(struct ArrowSchema *s)
{
    struct schema_parts *parts = s->private_data;

    for (size_t i = 0; i < 2; i++)
        if (parts->columns[i].release)
            parts->columns[i].release(&parts->columns[i]);
    sf__free(HEAP, parts);
    s->release = NULL;
}

static const char *key_format(sf_key_encoding keys)
{
    switch (keys) {
    case SF_KEY_U64BE:
        return "L";
    case SF_KEY_U32BE:
        return "I";
    case SF_KEY_UTF8:
        return "u";
    case SF_KEY_RAW:
        break;
    }
    return "z";
}

sf_status sf_rows_arrow_schema(struct ArrowSchema *out, sf_key_encoding keys, sf_error *err)
{
    struct schema_parts *parts = sf__calloc(HEAP, 1, sizeof(*parts));

    if (!parts)
        return sf_fail(err, SF_NOMEM, "schema of rows");
    parts->columns[0] = (struct ArrowSchema){.format = key_format(keys), .name = "key", .release = schema_let_go};
    parts->columns[1] = (struct ArrowSchema){.format = "z", .name = "value", .release = schema_let_go};
    parts->children[0] = &parts->columns[0];
    parts->children[1] = &parts->columns[1];
    *out = (struct ArrowSchema){.format = "+s",
                                .name = "",
                                .n_children = 2,
                                .children = parts->children,
                                .release = schema_release,
                                .private_data = parts};
    return SF_OK;
}

/* ------------------------------------------------------------------ columns -------------------------------------- */

/* Buffers of a column: validity, which none has, offsets or integers, and bytes. */
struct column_parts {
    const void *buffers[3];
    uint64_t data[]; /* aligned for all of them */
};

static void column_release(struct ArrowArray *a)
{
    sf__free(HEAP, a->private_data);
    a->release = NULL;
}

/* With room for its data, all of which the caller writes. */
static struct column_parts *column_new(struct ArrowArray *out, size_t count, size_t bytes, int64_t buffers)
{
    struct column_parts *c = sf__alloc(HEAP, sizeof(*c) + bytes);

    if (!c)
        return NULL;
    *c = (struct column_parts){.buffers = {NULL, c->data}};
    *out = (struct ArrowArray){.length = (int64_t)count,
                               .n_buffers = buffers,
                               .buffers = c->buffers,
                               .release = column_release,
                               .private_data = c};
    return c;
}

static sf_status export_integers(struct ArrowArray *out, const sf_row *rows, size_t count, size_t width, sf_error *err)
{
    struct column_parts *c;

    for (size_t i = 0; i < count; i++)
        if (rows[i].key.n != width)
            return sf_fail(err, SF_CORRUPT, "a key has %zu bytes, and integers of this snapshot have %zu",
                           rows[i].key.n, width);
    c = column_new(out, count, count * width, 2);
    if (!c)
        return sf_fail(err, SF_NOMEM, "%zu keys", count);
    for (size_t i = 0; i < count; i++) {
        uint64_t v = sf_load_be(rows[i].key.p, width);

        if (width == sizeof(v))
            c->data[i] = v;
        else
            ((uint32_t *)c->data)[i] = (uint32_t)v;
    }
    return SF_OK;
}

static sf_bytes cell(const sf_row *row, bool is_key)
{
    return is_key ? row->key : row->value;
}

static sf_status export_bytes(struct ArrowArray *out, const sf_row *rows, size_t count, bool is_key, sf_error *err)
{
    size_t total = 0, offsets_bytes = (count + 1) * sizeof(int32_t);
    struct column_parts *c;
    int32_t *offsets;
    uint8_t *at;

    for (size_t i = 0; i < count; i++) {
        size_t n = cell(&rows[i], is_key).n;

        if (n > INT32_MAX - total)
            return sf_fail(err, SF_INVALID, "a batch of %zu rows has 2 GiB or more: take fewer at a time", count);
        total += n;
    }
    c = column_new(out, count, offsets_bytes + total, 3);
    if (!c)
        return sf_fail(err, SF_NOMEM, "%zu rows of %zu bytes", count, total);
    offsets = (int32_t *)c->data;
    at = (uint8_t *)(offsets + count + 1);
    c->buffers[2] = at;
    offsets[0] = 0;
    for (size_t i = 0; i < count; i++) {
        sf_bytes b = cell(&rows[i], is_key);

        if (b.n > 0)
            memcpy(at, b.p, b.n);
        at += b.n;
        offsets[i + 1] = offsets[i] + (int32_t)b.n;
    }
    return SF_OK;
}

static sf_status export_keys(struct ArrowArray *out, const sf_row *rows, size_t count, sf_key_encoding keys, sf_error *err)
{
    if (keys == SF_KEY_U64BE || keys == SF_KEY_U32BE)
        return export_integers(out, rows, count, keys == SF_KEY_U64BE ? 8 : 4, err);
    for (size_t i = 0; keys == SF_KEY_UTF8 && i < count; i++)
        if (!sf_utf8_is_valid(rows[i].key))
            return sf_fail(err, SF_CORRUPT, "a key of %zu bytes is no UTF-8", rows[i].key.n);
    return export_bytes(out, rows, count, true, err);
}

/* ------------------------------------------------------------------ batches -------------------------------------- */

struct batch_parts {
    struct ArrowArray columns[2], *children[2];
    const void *buffers[1];
};

static void batch_release(struct ArrowArray *a)
{
    struct batch_parts *parts = a->private_data;

    for (size_t i = 0; i < 2; i++)
        if (parts->columns[i].release)
            parts->columns[i].release(&parts->columns[i]);
    sf__free(HEAP, parts);
    a->release = NULL;
}

sf_status sf_rows_export_arrow(struct ArrowArray *out, const sf_row *rows, size_t count, sf_key_encoding keys,
                               sf_error *err)
{
    struct batch_parts *parts = sf__calloc(HEAP, 1, sizeof(*parts));
    struct ArrowArray batch;
    sf_status rc;

    if (!parts)
        return sf_fail(err, SF_NOMEM, "batch of %zu rows", count);
    parts->children[0] = &parts->columns[0];
    parts->children[1] = &parts->columns[1];
    batch = (struct ArrowArray){.length = (int64_t)count,
                                .n_buffers = 1,
                                .buffers = parts->buffers,
                                .n_children = 2,
                                .children = parts->children,
                                .release = batch_release,
                                .private_data = parts};
    rc = export_keys(&parts->columns[0], rows, count, keys, err);
    if (rc == SF_OK)
        rc = export_bytes(&parts->columns[1], rows, count, false, err);
    if (rc == SF_OK)
        *out = batch;
    else
        batch_release(&batch);
    return rc;
}
