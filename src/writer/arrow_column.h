/* A column of Arrow record batches, from its schema down to the values of a row, which are read where they lie; nothing is allocated a
 * row. The memory is the producer's, in this process: it is trusted like any pointer that a caller hands in, but for indexes,
 * which data frames are known to get wrong. One thread. */
#ifndef SF_WRITER_ARROW_COLUMN_H
#define SF_WRITER_ARROW_COLUMN_H

#include <string.h>

#include "base/bytes.h"
#include "writer/arrow_format.h"

/* Categories in runs, say, have three: runs, index, text. */
#define SF_ARROW_LEVELS 4u

typedef struct sf_arrow_level {
    sf_arrow_format type;
    bool is_signed; /* of indexes */
    /* of the present batch */
    const struct ArrowArray *array;
    int64_t off; /* of row 0 */
    int64_t run; /* the run found last: rows come in order */
} sf_arrow_level;

typedef enum sf_arrow_role {
    SF_ARROW_KEY,
    SF_ARROW_VALUE,
    SF_ARROW_ROUTING,
    SF_ARROW_MEMBER /* of a JSON object */
} sf_arrow_role;

typedef struct sf_arrow_column {
    int64_t index; /* of the child */
    sf_arrow_role role;
    char name[64], type[64]; /* for messages */
    sf_arrow_level levels[SF_ARROW_LEVELS];
    size_t level_count; /* 0: a type that is not understood */
} sf_arrow_column;

typedef enum sf_arrow_found { SF_ARROW_FOUND, SF_ARROW_FOUND_NULL, SF_ARROW_FOUND_NOWHERE } sf_arrow_found;

/* ------------------------------------------------------------------ schema --------------------------------------- */

static inline const char *sf_arrow_name(const struct ArrowSchema *schema, int64_t i)
{
    return schema->children[i]->name ? schema->children[i]->name : "";
}

/* How many columns of the name a stream has. */
size_t sf__arrow_columns_named(const struct ArrowSchema *schema, const char *name);
/* The column of `name` (NULL: number `otherwise`) for out->role, whatever its type. SF_INVALID: none, or more than one. */
sf_status sf__arrow_column_find(const struct ArrowSchema *schema, const char *name, int64_t otherwise,
                                sf_arrow_column *out, sf_error *err) SF_MUST_USE;
/* Whether its role takes its type. */
bool sf__arrow_column_fits(const sf_arrow_column *c);
/* "key", "value" or "routing". */
const char *sf__arrow_role_name(const sf_arrow_column *c);

/* ------------------------------------------------------------------ batches and rows ----------------------------- */

/* SF_INVALID: the batch has rows and not this column, or not of a type that fits. */
sf_status sf__arrow_column_enter(sf_arrow_column *c, const struct ArrowArray *batch, sf_error *err) SF_MUST_USE;
/* Where a row's value lies among those of the innermost level. */
sf_arrow_found sf__arrow_column_at(sf_arrow_column *c, int64_t row, int64_t *at) SF_MUST_USE;

static inline const sf_arrow_level *sf_arrow_leaf(const sf_arrow_column *c)
{
    return &c->levels[c->level_count - 1];
}

/* `i`: with the array's offset. Its count of nulls may not be known (-1). */
static inline bool sf_arrow_is_invalid(const struct ArrowArray *a, int64_t i)
{
    const uint8_t *valid = a->null_count != 0 && a->n_buffers > 0 ? a->buffers[0] : NULL;

    return valid && !(valid[i / 8] >> (i % 8) & 1);
}

static inline int64_t sf_arrow_load_int(const uint8_t *p, size_t width)
{
    int64_t wide;
    int32_t narrow;
    int16_t narrower;

    switch (width) {
    case 1:
        return (int8_t)*p;
    case 2:
        memcpy(&narrower, p, sizeof(narrower));
        return narrower;
    case 4:
        memcpy(&narrow, p, sizeof(narrow));
        return narrow;
    default:
        memcpy(&wide, p, sizeof(wide));
        return wide;
    }
}

static inline int64_t sf_arrow_int(const sf_arrow_level *l, int64_t i)
{
    return sf_arrow_load_int((const uint8_t *)l->array->buffers[1] + (size_t)i * l->type.width, l->type.width);
}

static inline uint64_t sf_arrow_uint(const sf_arrow_level *l, int64_t i)
{
    uint64_t v = (uint64_t)sf_arrow_int(l, i);

    return l->type.width < 8 ? v & ((UINT64_C(1) << 8 * l->type.width) - 1) : v;
}

static inline bool sf_arrow_bool(const sf_arrow_level *l, int64_t i)
{
    return ((const uint8_t *)l->array->buffers[1])[i / 8] >> (i % 8) & 1;
}

static inline double sf_arrow_float(const sf_arrow_level *l, int64_t i)
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

/* False: no integer of 64 bits. */
bool sf__arrow_decimal(const sf_arrow_level *l, int64_t i, sf_key *out) SF_MUST_USE;
/* Never NULL, also when there are none. */
sf_bytes sf__arrow_bytes(const sf_arrow_level *l, int64_t i);

#endif
