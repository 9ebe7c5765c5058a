/* Numbers as text, whatever the locale. Nothing is terminated; each returns how many bytes it wrote. Pure; any thread. */
#ifndef SF_BASE_NUMBER_TEXT_H
#define SF_BASE_NUMBER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SF_INTEGER_TEXT_BYTES 21u /* "-18446744073709551615" */
#define SF_FLOAT_TEXT_BYTES 24u   /* "-1.7976931348623157e+308" */

size_t sf__integer_text(char out[SF_INTEGER_TEXT_BYTES], uint64_t magnitude, bool negative);
/* With zeros in front up to `width` digits, of which `v` has no more. */
size_t sf__padded_text(char *out, uint64_t v, size_t width);

typedef struct sf_float_style {
    int most_digits; /* in front of the point; larger numbers, and those below 1e-4, have an exponent of two digits or three */
    const char *whole; /* what stands behind a number without a fraction or an exponent */
    const char *nan, *infinity;
} sf_float_style;

/* As json.dumps() of Python writes them; numbers as its repr(). */
extern const sf_float_style sf__float_json;

/* Of all texts that read back as the number the shortest, of those the closest. A NaN has no sign. */
size_t sf__float_text(char out[SF_FLOAT_TEXT_BYTES], double v, const sf_float_style *style);

#endif
