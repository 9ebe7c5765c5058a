/* 128-bit names as text. Pure; any thread. */
#ifndef SF_BACKEND_SLATEDB_FORMAT_ULID_H
#define SF_BACKEND_SLATEDB_FORMAT_ULID_H

#include "base/bytes.h"

#define SF_ULID_TEXT_LEN 26
#define SF_UUID_TEXT_LEN 36

typedef struct sf_id128 {
    uint64_t hi, lo;
} sf_id128;

static inline bool sf__id128_eq(sf_id128 a, sf_id128 b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

/* Both terminate the text. */
void sf__ulid_format(sf_id128 id, char out[SF_ULID_TEXT_LEN + 1]);
void sf__uuid_format(sf_id128 id, char out[SF_UUID_TEXT_LEN + 1]);
/* Upper or lower case; false unless the whole text is one. */
SF_MUST_USE bool sf__ulid_parse(sf_bytes text, sf_id128 *out);
SF_MUST_USE bool sf__uuid_parse(sf_bytes text, sf_id128 *out); /* 8-4-4-4-12 hex digits */

#endif
