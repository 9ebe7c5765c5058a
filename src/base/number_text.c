/* Digits of doubles are found as Raffaele Giulietti's "The Schubfach way to render doubles" finds them: of the two neighbours of v among the multiples of 10^(k+1),
 * and else among those of 10^k, where 10^k <= 2^q < 10^(k+1) and v = c * 2^q, the one that lies among the numbers that read
 * back as v. */
#include "base/number_text.h"

#include <string.h>

#include "base/power_table.h"

/* ------------------------------------------------------------------ digits ---------------------------------------- */

/* Right for all exponents of a double. */
static int floor_log10_of_power_of_2(int q)
{
    return (q * 1262611) >> 22;
}

static int floor_log10_of_three_quarters_of_power_of_2(int q)
{
    return (q * 1262611 - 524031) >> 22;
}

static int floor_log2_of_power_of_10(int e)
{
    return (e * 1741647) >> 19;
}

/* The high 64 bits of g * x; the last bit is set when something was cut off. */
static uint64_t multiply(const uint64_t g[2], uint64_t x)
{
    unsigned __int128 low = (unsigned __int128)g[1] * x;
    unsigned __int128 high = (unsigned __int128)g[0] * x + (uint64_t)(low >> 64);

    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* v = *digits * 10^*exponent, for a finite v > 0 of these bits. */
static void shortest(uint64_t bits, uint64_t *digits, int *exponent)
{
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1), biased = bits >> 52;
    uint64_t c = biased > 0 ? fraction | UINT64_C(1) << 52 : fraction;
    int q = biased > 0 ? (int)biased - 1075 : -1074;
    bool even = c % 2 == 0;                          /* then the limits themselves read back as v */
    bool closer_below = fraction == 0 && biased > 1; /* the number below is half as far as the one above */
    int k = closer_below ? floor_log10_of_three_quarters_of_power_of_2(q) : floor_log10_of_power_of_2(q);
    int h = q + floor_log2_of_power_of_10(-k) + 1;
    const uint64_t *g = sf__power_table[-k - SF_POWER_MIN];
    /* four times what they are */
    uint64_t v = multiply(g, 4 * c << h);
    uint64_t lower = multiply(g, (4 * c - (closer_below ? 1 : 2)) << h) + !even;
    uint64_t upper = multiply(g, (4 * c + 2) << h) - !even;
    uint64_t s = v / 4;

    *exponent = k;
    if (s >= 10) {
        uint64_t tens = s / 10;
        bool below = lower <= 40 * tens, above = 40 * (tens + 1) <= upper;

        if (below != above) {
            *digits = tens + above;
            *exponent = k + 1;
            return;
        }
    }
    if ((lower <= 4 * s) != (4 * (s + 1) <= upper))
        *digits = s + (4 * (s + 1) <= upper);
    else
        *digits = s + (v > 4 * s + 2 || (v == 4 * s + 2 && s % 2 == 1));
}

/* ------------------------------------------------------------------ integers -------------------------------------- */

size_t sf__integer_text(char out[SF_INTEGER_TEXT_BYTES], uint64_t magnitude, bool negative)
{
    char reversed[20];
    size_t n = 0, at = 0;

    do {
        reversed[n++] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    if (negative)
        out[at++] = '-';
    while (n > 0)
        out[at++] = reversed[--n];
    return at;
}

size_t sf__padded_text(char *out, uint64_t v, size_t width)
{
    for (size_t i = width; i > 0; v /= 10)
        out[--i] = (char)('0' + v % 10);
    return width;
}

/* ------------------------------------------------------------------ arranging ------------------------------------- */

const sf_float_style sf__float_json = {.most_digits = 16, .whole = ".0", .nan = "NaN", .infinity = "Infinity"};

static size_t put(char *out, const char *text)
{
    size_t n = strlen(text);

    memcpy(out, text, n);
    return n;
}

static size_t write_exponent(char *out, int e)
{
    unsigned magnitude = (unsigned)(e < 0 ? -e : e);
    size_t n = put(out, e < 0 ? "e-" : "e+");

    return n + sf__padded_text(out + n, magnitude, magnitude < 100 ? 2 : 3);
}

static size_t with_exponent(char *out, const char *digits, size_t n, int exponent)
{
    size_t at = 0;

    out[at++] = digits[0];
    if (n > 1) {
        out[at++] = '.';
        memcpy(out + at, digits + 1, n - 1);
        at += n - 1;
    }
    return at + write_exponent(out + at, exponent);
}

/* The point stands behind so many of the digits. */
static size_t arrange(char *out, const char *digits, size_t n, int point, const sf_float_style *style)
{
    size_t at = 0, whole = point > 0 ? (size_t)point : 0;

    if (point < -3 || point > style->most_digits)
        return with_exponent(out, digits, n, point - 1);
    if (point <= 0) {
        at = put(out, "0.");
        memset(out + at, '0', (size_t)-point);
        at += (size_t)-point;
    }
    for (size_t i = 0; i < n; i++) {
        if (i == whole && i > 0)
            out[at++] = '.';
        out[at++] = digits[i];
    }
    if (whole < n)
        return at;
    memset(out + at, '0', whole - n);
    at += whole - n;
    return at + put(out + at, style->whole);
}

size_t sf__float_text(char out[SF_FLOAT_TEXT_BYTES], double v, const sf_float_style *style)
{
    char digits[SF_INTEGER_TEXT_BYTES];
    uint64_t bits, number;
    size_t at = 0, n;
    int exponent;

    memcpy(&bits, &v, sizeof(bits));
    if (v != v)
        return put(out, style->nan);
    if (bits >> 63)
        out[at++] = '-';
    bits &= UINT64_MAX >> 1;
    if (bits == UINT64_C(0x7ff) << 52)
        return at + put(out + at, style->infinity);
    if (bits == 0)
        return at + arrange(out + at, "0", 1, 1, style);
    shortest(bits, &number, &exponent);
    for (; number % 10 == 0; number /= 10)
        exponent++;
    n = sf__integer_text(digits, number, false);
    return at + arrange(out + at, digits, n, (int)n + exponent, style);
}
