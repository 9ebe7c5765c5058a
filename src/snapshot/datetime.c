#include "snapshot/datetime.h"

#include <stdio.h>

#include "base/civil.h"
#include "snapshot/lax.h"

#define US_PER_SECOND INT64_C(1000000)
#define US_PER_DAY (86400 * US_PER_SECOND)
/* 0001-01-01 and the last microsecond of 9999: outside, Python has no datetime */
#define LEAST_US (INT64_C(-62135596800) * US_PER_SECOND)
#define GREATEST_US (INT64_C(253402300800) * US_PER_SECOND - 1)
/* Numbers above are milliseconds: as seconds they would lie behind the year 2603. */
#define WATERSHED INT64_C(20000000000)

bool sf__datetime_from_fields(unsigned year, unsigned month, unsigned day, unsigned hour, unsigned minute,
                              unsigned second, int64_t *us)
{
    if (year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 || day > sf__days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59)
        return false;
    *us = sf__days_from_civil(year, month, day) * US_PER_DAY +
          (int64_t)(hour * 3600 + minute * 60 + second) * US_PER_SECOND;
    return true;
}

/* ------------------------------------------------------------------ parsing -------------------------------------- */

static bool take_char(sf_cursor *c, char expected)
{
    if (c->n == 0 || c->p[0] != (uint8_t)expected)
        return false;
    c->p++;
    c->n--;
    return true;
}

/* Exactly n digits. */
static bool take_digits(sf_cursor *c, size_t n, unsigned *out)
{
    unsigned v = 0;

    if (c->n < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (c->p[i] < '0' || c->p[i] > '9')
            return false;
        v = v * 10 + (unsigned)(c->p[i] - '0');
    }
    c->p += n;
    c->n -= n;
    *out = v;
    return true;
}

/* Behind the point: one digit at least; those behind the sixth are dropped. */
static bool take_fraction(sf_cursor *c, int64_t *us)
{
    int64_t unit = US_PER_SECOND / 10;
    unsigned digit;
    bool any = false;

    while (take_digits(c, 1, &digit)) {
        *us += digit * unit;
        unit /= 10;
        any = true;
    }
    return any;
}

static bool take_zone(sf_cursor *c, int64_t *offset_us)
{
    unsigned hour, minute;
    bool negative;

    if (take_char(c, 'Z') || take_char(c, 'z'))
        return true;
    negative = c->n > 0 && c->p[0] != '+';
    if (!take_char(c, '+') && !take_char(c, '-') &&
        (!take_char(c, '\xe2') || !take_char(c, '\x88') || !take_char(c, '\x92'))) /* U+2212, the typographic minus */
        return false;
    if (!take_digits(c, 2, &hour))
        return false;
    (void)take_char(c, ':');
    if (!take_digits(c, 2, &minute) || hour > 23 || minute > 59)
        return false;
    *offset_us = (int64_t)(hour * 60 + minute) * 60 * US_PER_SECOND;
    if (negative)
        *offset_us = -*offset_us;
    return true;
}

static bool iso_parse(sf_cursor c, sf_datetime *out)
{
    unsigned year, month, day, hour = 0, minute = 0, second = 0;
    int64_t us, fraction = 0, offset = 0;
    bool naive = true;

    if (!take_digits(&c, 4, &year) || !take_char(&c, '-') || !take_digits(&c, 2, &month) || !take_char(&c, '-') ||
        !take_digits(&c, 2, &day))
        return false;
    if (c.n > 0) {
        if (!take_char(&c, 'T') && !take_char(&c, 't') && !take_char(&c, ' ') && !take_char(&c, '_'))
            return false;
        if (!take_digits(&c, 2, &hour) || !take_char(&c, ':') || !take_digits(&c, 2, &minute))
            return false;
        if (take_char(&c, ':')) {
            if (!take_digits(&c, 2, &second))
                return false;
            if ((take_char(&c, '.') || take_char(&c, ',')) && !take_fraction(&c, &fraction))
                return false;
        }
        naive = c.n == 0;
        if (!naive && !take_zone(&c, &offset))
            return false;
    }
    if (c.n > 0 || !sf__datetime_from_fields(year, month, day, hour, minute, second, &us))
        return false;
    us += fraction - offset;
    if (us < LEAST_US || us > GREATEST_US) /* its zone takes it out of the calendar */
        return false;
    *out = (sf_datetime){us, naive};
    return true;
}

bool sf__datetime_from_number(sf_bytes number, sf_datetime *out)
{
    sf_decimal d;
    int64_t size, us, fraction;
    bool millis;

    if (!sf__decimal_parse(number, &d) || d.whole == INT64_MIN)
        return false;
    size = d.whole < 0 ? -d.whole : d.whole;
    millis = size > WATERSHED || (size == WATERSHED && d.has_fraction);
    fraction = millis ? (d.nanos + 500000) / 1000000 : (d.nanos + 500) / 1000;
    if (__builtin_mul_overflow(size, millis ? 1000 : US_PER_SECOND, &us) || __builtin_add_overflow(us, fraction, &us))
        return false;
    us = d.negative ? -us : us;
    if (us < LEAST_US || us > GREATEST_US)
        return false;
    *out = (sf_datetime){.us = us};
    return true;
}

static bool is_plain_number(sf_bytes s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < '0' || s.p[i] > '9') && s.p[i] != '.' && !(i == 0 && (s.p[i] == '-' || s.p[i] == '+')))
            return false;
    return s.n > 0;
}

bool sf__datetime_parse(sf_bytes text, sf_datetime *out)
{
    return is_plain_number(text) ? sf__datetime_from_number(text, out) : iso_parse(text, out);
}

/* ------------------------------------------------------------------ formatting ----------------------------------- */

static size_t format_seconds(char out[SF_DATETIME_TEXT], int64_t us, unsigned *fraction)
{
    int64_t days = us / US_PER_DAY, rest = us % US_PER_DAY, year;
    unsigned month, day, seconds;

    if (rest < 0) {
        rest += US_PER_DAY;
        days--;
    }
    sf__civil_from_days(days, &year, &month, &day);
    seconds = (unsigned)(rest / US_PER_SECOND);
    *fraction = (unsigned)(rest % US_PER_SECOND);
    return (size_t)snprintf(out, SF_DATETIME_TEXT, "%04lld-%02u-%02uT%02u:%02u:%02u", (long long)year, month, day,
                            seconds / 3600, seconds / 60 % 60, seconds % 60);
}

void sf__datetime_format_folder(char out[SF_DATETIME_TEXT], int64_t us)
{
    unsigned fraction;
    size_t n = format_seconds(out, us, &fraction);

    snprintf(out + n, SF_DATETIME_TEXT - n, ".%06uZ", fraction);
}

void sf__datetime_format(char out[SF_DATETIME_TEXT], int64_t us)
{
    unsigned fraction;
    size_t n = format_seconds(out, us, &fraction);

    if (fraction > 0)
        snprintf(out + n, SF_DATETIME_TEXT - n, ".%06uZ", fraction);
    else
        snprintf(out + n, SF_DATETIME_TEXT - n, "Z");
}
