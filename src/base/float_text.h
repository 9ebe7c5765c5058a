/* Floating-point numbers as text: of all texts that read back as the number the shortest, of those the closest. Whatever the
 * locale. Pure; any thread. */
#ifndef SF_BASE_FLOAT_TEXT_H
#define SF_BASE_FLOAT_TEXT_H

#include <stddef.h>

#define SF_FLOAT_TEXT_BYTES 25u /* "-1.7976931348623157e+308" and its end, at most */

/* As Python's repr() writes it: with an exponent below 1e-4 and from 1e16 on, else with a point. A number that is not finite is NaN,
 * Infinity or -Infinity, as json.dumps() writes it. The length, without the NUL. */
size_t sf__float_text(char out[SF_FLOAT_TEXT_BYTES], double v);

#endif
