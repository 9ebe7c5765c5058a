/* Base64 as RFC 4648 section 4 has it, with its padding. Pure; any thread. */
#ifndef SF_BASE_BASE64_H
#define SF_BASE_BASE64_H

#include "base/strbuf.h"

/* Bytes that so many digits stand for, at most. */
static inline size_t sf__base64_room(size_t digits)
{
    return digits / 4 * 3;
}

void sf__base64_write(sf_strbuf *out, sf_bytes plain);
/* The text, freed with sf__free(); NULL of nothing. False without memory. */
bool sf__base64_text(char **out, sf_bytes plain, const sf_allocator *a) SF_MUST_USE;
/* `out` has room for sf__base64_room(text.n) bytes. False: it is none, to the last bit; then what is in `out` is undefined. */
bool sf__base64_read(uint8_t *out, size_t *n, sf_bytes text) SF_MUST_USE;

#endif
