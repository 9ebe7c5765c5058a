/* Byte spans and the cursor that all decoders of stored bytes read through. A failed read moves nothing and writes
 * nothing. Pure functions; any thread. */
#ifndef SF_BASE_BYTES_H
#define SF_BASE_BYTES_H

#include <string.h>

#include "shardyfusion/base.h"

typedef sf_bytes sf_cursor;

static inline sf_bytes sf_bytes_of(const void *p, size_t n)
{
    return (sf_bytes){p, n};
}

static inline sf_bytes sf_bytes_str(const char *s)
{
    return (sf_bytes){(const uint8_t *)s, strlen(s)};
}

/* Unsigned bytes; a proper prefix sorts first. */
static inline int sf_bytes_cmp(sf_bytes a, sf_bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* In small hexadecimal digits, with an end: 2 * b.n + 1 characters. */
static inline void sf__hex_format(char *out, sf_bytes b)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < b.n; i++) {
        out[2 * i] = digits[b.p[i] >> 4];
        out[2 * i + 1] = digits[b.p[i] & 15];
    }
    out[2 * b.n] = '\0';
}

/* Keys are short, mostly: then a call would cost more than it does. */
static inline bool sf_bytes_same(const uint8_t *a, const uint8_t *b, size_t n)
{
    if (n > 16)
        return memcmp(a, b, n) == 0;
    if (n >= 8) {
        uint64_t x[2], y[2];

        memcpy(&x[0], a, 8);
        memcpy(&x[1], a + n - 8, 8);
        memcpy(&y[0], b, 8);
        memcpy(&y[1], b + n - 8, 8);
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
    if (n >= 4) {
        uint32_t x[2], y[2];

        memcpy(&x[0], a, 4);
        memcpy(&x[1], a + n - 4, 4);
        memcpy(&y[0], b, 4);
        memcpy(&y[1], b + n - 4, 4);
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
    return n == 0 || ((a[0] ^ b[0]) | (a[n / 2] ^ b[n / 2]) | (a[n - 1] ^ b[n - 1])) == 0;
}

static inline bool sf_bytes_eq(sf_bytes a, sf_bytes b)
{
    return a.n == b.n && sf_bytes_same(a.p, b.p, a.n);
}

static inline bool sf_bytes_starts_with(sf_bytes s, sf_bytes prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* Without the ASCII blanks around it: space, and tab to carriage return. */
static inline sf_bytes sf_bytes_trim(sf_bytes s)
{
    while (s.n > 0 && (s.p[0] == ' ' || (s.p[0] >= '\t' && s.p[0] <= '\r')))
        s = (sf_bytes){s.p + 1, s.n - 1};
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || (s.p[s.n - 1] >= '\t' && s.p[s.n - 1] <= '\r')))
        s.n--;
    return s;
}

/* The sub-span [off, off + n); false when it does not lie inside. */
SF_MUST_USE static inline bool sf_bytes_slice(sf_bytes s, uint64_t off, uint64_t n, sf_bytes *out)
{
    if (off > s.n || n > s.n - off)
        return false;
    *out = (sf_bytes){n > 0 ? s.p + off : s.p, (size_t)n};
    return true;
}

SF_MUST_USE static inline bool sf_cursor_take(sf_cursor *c, size_t n, sf_bytes *out)
{
    if (n > c->n) /* one length against what is left; untrusted lengths are never added up */
        return false;
    *out = (sf_bytes){c->p, n};
    if (n > 0) { /* an empty cursor may be NULL, and NULL + 0 is still undefined */
        c->p += n;
        c->n -= n;
    }
    return true;
}

/* Integers of a machine word are one load: compilers do not make it of the loop. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SF_BE64(v) __builtin_bswap64(v)
#define SF_LE64(v) (v)
#else
#define SF_BE64(v) (v)
#define SF_LE64(v) __builtin_bswap64(v)
#endif

static inline uint64_t sf_load_be(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    if (n == sizeof(v)) {
        memcpy(&v, p, sizeof(v));
        return SF_BE64(v);
    }
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* The 8 bytes of s from `skip` <= s.n on as a number that sorts like them; a shorter rest is filled up with zeroes. */
static inline uint64_t sf_bytes_head(sf_bytes s, size_t skip)
{
    size_t n = s.n - skip;
    uint64_t v = 0;

    if (n >= 8)
        return sf_load_be(s.p + skip, 8);
    if (n == 0)
        return 0;
    if (s.n >= 8)
        return sf_load_be(s.p + s.n - 8, 8) << (8 * (8 - n));
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)s.p[skip + i] << (56 - 8 * i);
    return v;
}

static inline uint64_t sf_load_le(const uint8_t *p, size_t n)
{
    uint64_t v = 0;

    if (n == sizeof(v)) {
        memcpy(&v, p, sizeof(v));
        return SF_LE64(v);
    }
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static inline void sf_store_be(uint8_t *p, size_t n, uint64_t v)
{
    for (size_t i = n; i-- > 0; v >>= 8)
        p[i] = (uint8_t)v;
}

static inline void sf_store_le(uint8_t *p, size_t n, uint64_t v)
{
    for (size_t i = 0; i < n; i++, v >>= 8)
        p[i] = (uint8_t)v;
}

/* The 8 bytes of `key` from `depth` on as a number that orders as they do; zeroes stand behind the key's end. */
static inline uint64_t sf__key_head(sf_bytes key, size_t depth)
{
    uint64_t v = 0;

    if (key.n >= depth + 8) {
        memcpy(&v, key.p + depth, 8);
        return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(v) : v;
    }
    for (size_t i = depth; i < key.n; i++)
        v |= (uint64_t)key.p[i] << (56 - 8 * (i - depth));
    return v;
}

#define SF_CURSOR_INT(name, type, load)                                      \
    SF_MUST_USE static inline bool sf_cursor_##name(sf_cursor *c, type *out) \
    {                                                                        \
        sf_bytes b;                                                          \
                                                                             \
        if (!sf_cursor_take(c, sizeof(type), &b))                            \
            return false;                                                    \
        *out = (type)load(b.p, sizeof(type));                                \
        return true;                                                         \
    }
SF_CURSOR_INT(u8, uint8_t, sf_load_be)
SF_CURSOR_INT(u16be, uint16_t, sf_load_be)
SF_CURSOR_INT(u32be, uint32_t, sf_load_be)
SF_CURSOR_INT(u64be, uint64_t, sf_load_be)
SF_CURSOR_INT(u32le, uint32_t, sf_load_le)
SF_CURSOR_INT(u64le, uint64_t, sf_load_le)
#undef SF_CURSOR_INT

/* LEB128 of a u32: least significant group first, at most 5 bytes; bits above 32 are refused. */
SF_MUST_USE static inline bool sf_cursor_varint32(sf_cursor *c, uint32_t *out)
{
    uint32_t v = 0;

    for (size_t i = 0; i < 5 && i < c->n; i++) {
        uint8_t b = c->p[i];

        if (i == 4 && b > 0x0f)
            return false;
        v |= (uint32_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) {
            c->p += i + 1;
            c->n -= i + 1;
            *out = v;
            return true;
        }
    }
    return false;
}

#endif
