/* Values of CEL expressions. Spans and trees are borrowed: from the expression, from its caller's context, or
 * from the memory of one evaluation (memory.h). Pure; any thread. */
#ifndef SF_SNAPSHOT_CEL_VALUE_H
#define SF_SNAPSHOT_CEL_VALUE_H

#include "base/bytes.h"
#include "base/number_text.h"
#include "snapshot/cel/memory.h"

typedef enum sf_cel_kind {
    SF_CEL_ABSENT, /* of a column: the context has none */
    SF_CEL_NULL,
    SF_CEL_BOOL,
    SF_CEL_INT,
    SF_CEL_UINT,
    SF_CEL_DOUBLE,
    SF_CEL_STRING, /* valid UTF-8 */
    SF_CEL_BYTES,
    SF_CEL_LIST,
    SF_CEL_MAP,
    SF_CEL_TYPE,
    SF_CEL_TIMESTAMP, /* seconds since 1970 in `i`, and `nanos` */
    SF_CEL_DURATION,  /* seconds in `i`, and `nanos` of the same sign */
} sf_cel_kind;

typedef struct sf_cel_value {
    sf_cel_kind kind;
    union {
        int32_t nanos;
        bool indexed; /* MAP: behind its pairs lie pointers to them, in the order of their keys */
    };
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double d;
        sf_cel_kind type; /* TYPE: of which kind */
        sf_bytes s;       /* STRING, BYTES */
        struct {
            const struct sf_cel_value *items; /* LIST; MAP: keys and values in turn */
            size_t count;                     /* MAP: of pairs */
        };
    };
} sf_cel_value;

/* "int", "string", "google.protobuf.Timestamp", ... as type() and messages have it. */
const char *sf__cel_kind_name(sf_cel_kind kind);

/* A value that is made in one place and copied to another is read back wider than it was written, which costs processors a dozen
 * cycles: results are set where they belong. */
static inline void sf__cel_set_bool(sf_cel_value *out, bool b)
{
    out->kind = SF_CEL_BOOL;
    out->nanos = 0;
    out->b = b;
}

static inline void sf__cel_set_int(sf_cel_value *out, int64_t i)
{
    out->kind = SF_CEL_INT;
    out->nanos = 0;
    out->i = i;
}

static inline void sf__cel_set_uint(sf_cel_value *out, uint64_t u)
{
    out->kind = SF_CEL_UINT;
    out->nanos = 0;
    out->u = u;
}

static inline void sf__cel_set_double(sf_cel_value *out, double d)
{
    out->kind = SF_CEL_DOUBLE;
    out->nanos = 0;
    out->d = d;
}

static inline void sf__cel_set_string(sf_cel_value *out, sf_bytes s)
{
    out->kind = SF_CEL_STRING;
    out->nanos = 0;
    out->s = s;
}

static inline void sf__cel_set_bytes(sf_cel_value *out, sf_bytes s)
{
    out->kind = SF_CEL_BYTES;
    out->nanos = 0;
    out->s = s;
}

static inline sf_cel_value sf__cel_bool(bool b)
{
    return (sf_cel_value){.kind = SF_CEL_BOOL, .b = b};
}

static inline sf_cel_value sf__cel_int(int64_t i)
{
    return (sf_cel_value){.kind = SF_CEL_INT, .i = i};
}

static inline sf_cel_value sf__cel_uint(uint64_t u)
{
    return (sf_cel_value){.kind = SF_CEL_UINT, .u = u};
}

static inline sf_cel_value sf__cel_double(double d)
{
    return (sf_cel_value){.kind = SF_CEL_DOUBLE, .d = d};
}

static inline sf_cel_value sf__cel_string(sf_bytes s)
{
    return (sf_cel_value){.kind = SF_CEL_STRING, .s = s};
}

static inline sf_cel_value sf__cel_bytes(sf_bytes s)
{
    return (sf_cel_value){.kind = SF_CEL_BYTES, .s = s};
}

/* The order of two values that have one: numbers of whatever kind, and two of one kind of bool, string,
 * bytes, timestamp, duration: -1, 0, 1, or 2 when one is a NaN. False when they have none. */
bool sf__cel_order(const sf_cel_value *a, const sf_cel_value *b, int *order) SF_MUST_USE;
/* Values of different kinds are unequal, but for numbers. What is looked at costs steps: false when they ran
 * out. */
bool sf__cel_equal(struct sf_cel_memory *m, const sf_cel_value *a, const sf_cel_value *b, bool *equal) SF_MUST_USE;
/* The value of a key, or NULL. Integers find one another across int, uint, and double. False when the key is
 * of a kind that no map has, or the steps, which it costs, ran out. */
bool sf__cel_map_find(struct sf_cel_memory *m, const sf_cel_value *map, const sf_cel_value *key,
                      const sf_cel_value **found) SF_MUST_USE;
/* Of bytes for a map of so many pairs with an index. */
size_t sf__cel_map_bytes(size_t pairs);
/* Makes the index of a map whose items lie in so many bytes. False when a key is there twice, or cannot be
 * one. */
bool sf__cel_map_index(sf_cel_value *map) SF_MUST_USE;
bool sf__cel_is_key(const sf_cel_value *v); /* of a kind that keys of maps have */

/* [+-]digits with blanks around: the digits' value, and whether a minus stood before them. */
bool sf__cel_integer_parse(sf_bytes text, bool *negative, uint64_t *out) SF_MUST_USE;

/* What writing a double or a time takes. */
#define SF_CEL_TEXT_STEPS 10u
#define SF_CEL_DOUBLE_TEXT (SF_FLOAT_TEXT_BYTES + 1)
/* Shortest digits that read back the same: "0.1", "999999", "1e+06", "-0", "inf", "nan". Returns how many
 * bytes. */
size_t sf__cel_double_format(char out[SF_CEL_DOUBLE_TEXT], double d);
/* All of `text`, in the "C" locale: digits, fraction, exponent, inf, nan. It takes a microsecond or more: SF_CEL_DOUBLE_STEPS. */
#define SF_CEL_DOUBLE_STEPS 150u
bool sf__cel_double_parse(sf_bytes text, double *out) SF_MUST_USE;

#endif
