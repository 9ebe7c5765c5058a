/* Integers as the published formats take them: the validator of the existing writer and reader coerces, so documents
 * with "4", 4.0 or true where 4 is meant are in use and must read the same. Pure; any thread. */
#ifndef SF_SNAPSHOT_LAX_H
#define SF_SNAPSHOT_LAX_H

#include "base/json.h"

typedef struct sf_lax_int {
    bool fits; /* in int64; else `v` is unset */
    int64_t v;
} sf_lax_int;

/* An integer of any size, an integral float within int64, true, false, or a text that sf__lax_int_from_text() takes. */
bool sf__lax_int_from_json(const sf_json *v, sf_lax_int *out) SF_MUST_USE;
/* Sign, digits with single underscores between them, ".0" with any number of zeros; ASCII blanks around. */
bool sf__lax_int_from_text(sf_bytes text, sf_lax_int *out) SF_MUST_USE;

/* Room for an int64; and the most digits that Python makes an integer of. */
#define SF_LAX_INT_TEXT 24
#define SF_LAX_INT_MAX_DIGITS 4300u
/* The decimal text of an integer of any size, an integral float within int64, true or false; not of texts. It lies in
 * `scratch` or in the document. */
bool sf__lax_int_text_from_json(const sf_json *v, char scratch[SF_LAX_INT_TEXT], sf_bytes *out) SF_MUST_USE;

/* A decimal number cut into its integer and the first 9 digits of its fraction (the rest is dropped). */
typedef struct sf_decimal {
    bool negative;
    bool has_fraction; /* some digit behind the point is not 0, dropped ones included */
    int64_t whole;
    uint32_t nanos;
} sf_decimal;

/* "[+-]digits[.digits][e[+-]digits]", one side of the point may be empty. False for other text, or when the integer
 * part does not fit an int64. */
bool sf__decimal_parse(sf_bytes text, sf_decimal *out) SF_MUST_USE;

#endif
