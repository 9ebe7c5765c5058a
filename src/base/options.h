/* Options that a caller hands in: structs whose first field is the size that the caller's header gave them. */
#ifndef SF_BASE_OPTIONS_H
#define SF_BASE_OPTIONS_H

#include <string.h>

#include "base/error.h"

/* Copies `given` over the defaults in `out`, a struct of `known` bytes. A field that an older caller has never heard of keeps
 * its default; one of a newer caller that we have never heard of must be unset. `given` may be NULL. */
SF_MUST_USE static inline sf_status sf__options_take(void *out, size_t known, const void *given, const char *name,
                                                     sf_error *err)
{
    const uint8_t *bytes = given;
    size_t size;

    if (!given)
        return SF_OK;
    memcpy(&size, given, sizeof(size));
    if (size < sizeof(size))
        return sf_fail(err, SF_INVALID, "%s: size is not set", name);
    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0)
            return sf_fail(err, SF_UNSUPPORTED, "%s: a newer field is set", name);
    memcpy(out, given, size < known ? size : known);
    memcpy(out, &known, sizeof(known));
    return SF_OK;
}

#endif
