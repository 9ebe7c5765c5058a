/* Strict UTF-8 after RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. Pure; any thread. */
#ifndef SF_BASE_UTF8_H
#define SF_BASE_UTF8_H

#include "base/bytes.h"

/* Takes one code point off the front. False, with nothing moved, at the end or before a malformed sequence. */
SF_MUST_USE static inline bool sf_cursor_utf8(sf_cursor *c, uint32_t *out)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t v;
    size_t len;

    if (c->n == 0)
        return false;
    v = c->p[0];
    if (v < 0x80)
        len = 1;
    else if (v >= 0xc2 && v < 0xe0)
        len = 2;
    else if (v >= 0xe0 && v < 0xf0)
        len = 3;
    else if (v >= 0xf0 && v < 0xf5)
        len = 4;
    else
        return false;
    if (len > c->n)
        return false;
    if (len > 1)
        v &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((c->p[i] & 0xc0) != 0x80)
            return false;
        v = v << 6 | (c->p[i] & 0x3fu);
    }
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        return false;
    c->p += len;
    c->n -= len;
    *out = v;
    return true;
}

/* Goes behind the bytes below 0x80 at the front, but for the last few. */
static inline void sf_cursor_skip_ascii(sf_cursor *c)
{
    uint64_t eight;

    for (; c->n >= sizeof(eight); c->p += sizeof(eight), c->n -= sizeof(eight)) {
        memcpy(&eight, c->p, sizeof(eight));
        if (eight & UINT64_C(0x8080808080808080))
            break;
    }
}

static inline bool sf_utf8_is_valid(sf_bytes b)
{
    uint32_t v;

    for (;;) {
        sf_cursor_skip_ascii(&b);
        if (b.n == 0)
            return true;
        if (!sf_cursor_utf8(&b, &v))
            return false;
    }
}

/* Writes the 1 to 4 bytes of a code point (a surrogate is the caller's mistake) and returns how many. */
static inline size_t sf_utf8_encode(uint8_t out[4], uint32_t v)
{
    if (v < 0x80) {
        out[0] = (uint8_t)v;
        return 1;
    }
    if (v < 0x800) {
        out[0] = (uint8_t)(0xc0 | v >> 6);
        out[1] = (uint8_t)(0x80 | (v & 0x3f));
        return 2;
    }
    if (v < 0x10000) {
        out[0] = (uint8_t)(0xe0 | v >> 12);
        out[1] = (uint8_t)(0x80 | (v >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (v & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | v >> 18);
    out[1] = (uint8_t)(0x80 | (v >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (v >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (v & 0x3f));
    return 4;
}

#endif
