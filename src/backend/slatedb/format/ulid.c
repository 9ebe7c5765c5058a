#include "backend/slatedb/format/ulid.h"

static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
static const char hex[] = "0123456789abcdef";

/* The value of a digit of `digits`, letters of either case; -1 for anything else. */
static int digit_value(const char *digits, uint8_t c)
{
    const char *at;

    if (c >= 'a' && c <= 'z' && digits == crockford)
        c = (uint8_t)(c - 'a' + 'A');
    if (c >= 'A' && c <= 'Z' && digits == hex)
        c = (uint8_t)(c - 'A' + 'a');
    at = c != 0 ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* 26 digits of 5 bits, the first of which holds 3. */
void sf__ulid_format(sf_id128 id, char out[SF_ULID_TEXT_LEN + 1])
{
    for (int i = SF_ULID_TEXT_LEN - 1; i >= 0; i--) {
        out[i] = crockford[id.lo & 31];
        id.lo = id.lo >> 5 | id.hi << 59;
        id.hi >>= 5;
    }
    out[SF_ULID_TEXT_LEN] = '\0';
}

bool sf__ulid_parse(sf_bytes text, sf_id128 *out)
{
    sf_id128 id = {0, 0};

    if (text.n != SF_ULID_TEXT_LEN)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        int v = digit_value(crockford, text.p[i]);

        if (v < 0 || (i == 0 && v > 7))
            return false;
        id.hi = id.hi << 5 | id.lo >> 59;
        id.lo = id.lo << 5 | (uint64_t)v;
    }
    *out = id;
    return true;
}

static bool is_dash(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

void sf__uuid_format(sf_id128 id, char out[SF_UUID_TEXT_LEN + 1])
{
    for (size_t i = 0; i < SF_UUID_TEXT_LEN; i++) {
        if (is_dash(i)) {
            out[i] = '-';
            continue;
        }
        out[i] = hex[id.hi >> 60];
        id.hi = id.hi << 4 | id.lo >> 60;
        id.lo <<= 4;
    }
    out[SF_UUID_TEXT_LEN] = '\0';
}

bool sf__uuid_parse(sf_bytes text, sf_id128 *out)
{
    sf_id128 id = {0, 0};

    if (text.n != SF_UUID_TEXT_LEN)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        int v = is_dash(i) ? -1 : digit_value(hex, text.p[i]);

        if (is_dash(i) && text.p[i] == '-')
            continue;
        if (v < 0)
            return false;
        id.hi = id.hi << 4 | id.lo >> 60;
        id.lo = id.lo << 4 | (uint64_t)v;
    }
    *out = id;
    return true;
}
