#include "snapshot/lax.h"

#include <stdio.h>

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static size_t count_digits(sf_bytes s)
{
    size_t n = 0;

    while (n < s.n && is_digit(s.p[n]))
        n++;
    return n;
}

static sf_bytes drop(sf_bytes s, size_t n)
{
    return n > 0 ? sf_bytes_of(s.p + n, s.n - n) : s;
}

static bool take_sign(sf_bytes *s)
{
    bool negative = s->n > 0 && s->p[0] == '-';

    if (s->n > 0 && (s->p[0] == '-' || s->p[0] == '+'))
        *s = drop(*s, 1);
    return negative;
}

/* One digit more, towards the far side of zero. */
static bool push_digit(int64_t *v, bool negative, uint8_t digit)
{
    int d = digit - '0';

    return !__builtin_mul_overflow(*v, 10, v) && !__builtin_add_overflow(*v, negative ? -d : d, v);
}

/* ------------------------------------------------------------------ decimals ------------------------------------- */

/* The exponent, cut to a range in which it already decides everything. */
static bool take_exponent(sf_bytes *s, int64_t *out)
{
    bool negative;
    size_t n;
    int64_t v = 0;

    *out = 0;
    if (s->n == 0 || (s->p[0] != 'e' && s->p[0] != 'E'))
        return true;
    *s = drop(*s, 1);
    negative = take_sign(s);
    n = count_digits(*s);
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (v < (INT64_C(1) << 40))
            v = v * 10 + (s->p[i] - '0');
    *s = drop(*s, n);
    *out = negative ? -v : v;
    return true;
}

bool sf__decimal_parse(sf_bytes text, sf_decimal *out)
{
    sf_decimal d = {.negative = take_sign(&text)};
    sf_bytes whole, fraction = {NULL, 0};
    int64_t exponent, point;
    uint32_t unit = 100000000;

    whole = sf_bytes_of(text.p, count_digits(text));
    text = drop(text, whole.n);
    if (text.n > 0 && text.p[0] == '.') {
        text = drop(text, 1);
        fraction = sf_bytes_of(text.p, count_digits(text));
        text = drop(text, fraction.n);
    }
    if (whole.n + fraction.n == 0 || !take_exponent(&text, &exponent) || text.n > 0)
        return false;
    point = (int64_t)whole.n + exponent; /* digits before the decimal point; negative: zeros behind it */
    for (int64_t i = point; i < 0 && unit > 0; i++)
        unit /= 10;
    for (size_t i = 0; i < whole.n + fraction.n; i++) {
        uint8_t c = i < whole.n ? whole.p[i] : fraction.p[i - whole.n];

        if ((int64_t)i < point) {
            if (!push_digit(&d.whole, d.negative, c))
                return false;
            continue;
        }
        d.has_fraction = d.has_fraction || c != '0';
        d.nanos += unit * (uint32_t)(c - '0');
        unit /= 10;
    }
    /* zeros that the exponent adds; 0 stays 0 however many there are */
    for (int64_t i = (int64_t)(whole.n + fraction.n); i < point && d.whole != 0; i++)
        if (!push_digit(&d.whole, d.negative, '0'))
            return false;
    *out = d;
    return true;
}

/* ------------------------------------------------------------------ integers ------------------------------------- */

bool sf__lax_int_from_text(sf_bytes text, sf_lax_int *out)
{
    sf_lax_int r = {.fits = true};
    bool negative, after_digit = false;

    text = sf_bytes_trim(text);
    negative = take_sign(&text);
    while (text.n > 0 && text.p[0] != '.') {
        uint8_t c = text.p[0];

        if (is_digit(c))
            r.fits = r.fits && push_digit(&r.v, negative, c);
        else if (c != '_' || !after_digit || text.n == 1 || !is_digit(text.p[1]))
            return false;
        after_digit = is_digit(c);
        text = drop(text, 1);
    }
    if (!after_digit)
        return false;
    if (text.n == 1) /* a point without zeros */
        return false;
    for (size_t i = 1; i < text.n; i++)
        if (text.p[i] != '0')
            return false;
    *out = r;
    return true;
}

bool sf__lax_int_from_json(const sf_json *v, sf_lax_int *out)
{
    sf_decimal d;

    switch (v->kind) {
    case SF_JSON_BOOL:
        *out = (sf_lax_int){true, v->boolean};
        return true;
    case SF_JSON_INT:
        return sf__lax_int_from_text(v->raw, out);
    case SF_JSON_FLOAT:
        if (!sf__decimal_parse(v->raw, &d) || d.has_fraction)
            return false;
        *out = (sf_lax_int){true, d.whole};
        return true;
    case SF_JSON_STRING:
        return sf__lax_int_from_text(v->str, out);
    case SF_JSON_NULL:
    case SF_JSON_ARRAY:
    case SF_JSON_OBJECT:
        break;
    }
    return false;
}

bool sf__lax_int_text_from_json(const sf_json *v, char scratch[SF_LAX_INT_TEXT], sf_bytes *out)
{
    sf_lax_int i;

    if (v->kind == SF_JSON_INT && !sf_bytes_eq(v->raw, sf_bytes_str("-0"))) {
        *out = v->raw;
        return v->raw.n <= SF_LAX_INT_MAX_DIGITS + (v->raw.p[0] == '-');
    }
    if (v->kind == SF_JSON_STRING || !sf__lax_int_from_json(v, &i) || !i.fits)
        return false;
    *out = sf_bytes_of(scratch, (size_t)snprintf(scratch, SF_LAX_INT_TEXT, "%lld", (long long)i.v));
    return true;
}
