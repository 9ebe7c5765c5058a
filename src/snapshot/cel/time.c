/* Timestamps and durations: RFC 3339 texts, durations like "1h30m", and the parts of both. */
#include "base/civil.h"
#include "snapshot/cel/function.h"

#define NANOS_PER_SECOND INT64_C(1000000000)
/* 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z */
#define LEAST_SECONDS INT64_C(-62135596800)
#define GREATEST_SECONDS INT64_C(253402300799)
/* Some 10,000 years, as in protobuf. */
#define GREATEST_DURATION INT64_C(315576000000)

/* Brings nanoseconds below a second; false when the seconds overflow. */
static bool carry(int64_t *seconds, int64_t *nanos)
{
    if (__builtin_add_overflow(*seconds, *nanos / NANOS_PER_SECOND, seconds))
        return false;
    *nanos %= NANOS_PER_SECOND;
    return true;
}

bool sf__cel_timestamp_make(sf_cel_memory *m, int64_t seconds, int64_t nanos, sf_cel_value *out)
{
    bool ok = carry(&seconds, &nanos);

    if (ok && nanos < 0) {
        nanos += NANOS_PER_SECOND;
        ok = !__builtin_sub_overflow(seconds, 1, &seconds);
    }
    if (!ok || seconds < LEAST_SECONDS || seconds > GREATEST_SECONDS)
        return sf__cel_fail(m, "the timestamp lies outside of the years 1 to 9999");
    *out = (sf_cel_value){.kind = SF_CEL_TIMESTAMP, .i = seconds, .nanos = (int32_t)nanos};
    return true;
}

bool sf__cel_duration_make(sf_cel_memory *m, int64_t seconds, int64_t nanos, sf_cel_value *out)
{
    if (!carry(&seconds, &nanos) || seconds > GREATEST_DURATION || seconds < -GREATEST_DURATION)
        return sf__cel_fail(m, "the duration is longer than 10,000 years");
    if (seconds > 0 && nanos < 0) {
        seconds--;
        nanos += NANOS_PER_SECOND;
    } else if (seconds < 0 && nanos > 0) {
        seconds++;
        nanos -= NANOS_PER_SECOND;
    }
    *out = (sf_cel_value){.kind = SF_CEL_DURATION, .i = seconds, .nanos = (int32_t)nanos};
    return true;
}

/* ------------------------------------------------------------------ parsing --------------------------------------- */

static bool take(sf_cursor *c, char expected)
{
    if (c->n == 0 || c->p[0] != (uint8_t)expected)
        return false;
    c->p++;
    c->n--;
    return true;
}

static bool take_digits(sf_cursor *c, size_t count, int64_t *out)
{
    int64_t v = 0;

    if (c->n < count)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (c->p[i] < '0' || c->p[i] > '9')
            return false;
        v = v * 10 + (c->p[i] - '0');
    }
    c->p += count;
    c->n -= count;
    *out = v;
    return true;
}

/* One digit or two. */
static bool take_field(sf_cursor *c, int64_t *out)
{
    return take_digits(c, 2, out) || take_digits(c, 1, out);
}

/* Up to nine digits behind a point that is read already; more are cut. */
static bool take_fraction(sf_cursor *c, int64_t *nanos)
{
    int64_t scale = NANOS_PER_SECOND / 10, digit;
    size_t before = c->n;

    for (*nanos = 0; take_digits(c, 1, &digit); scale /= 10)
        *nanos += digit * scale;
    return c->n < before;
}

/* "Z", "+05:30", "-08:00": seconds east of UTC. */
static bool take_offset(sf_cursor *c, int64_t *offset)
{
    int64_t hours, minutes, sign = 1;

    *offset = 0;
    if (take(c, 'Z') || take(c, 'z'))
        return true;
    if (take(c, '-'))
        sign = -1;
    else if (!take(c, '+'))
        return false;
    if (!take_digits(c, 2, &hours) || !take(c, ':') || !take_digits(c, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool sf__cel_timestamp_parse(sf_cel_memory *m, sf_bytes text, sf_cel_value *out)
{
    sf_cursor c = text;
    int64_t year, month, day, hour, minute, second, nanos = 0, offset;
    bool ok = take_digits(&c, 4, &year) && take(&c, '-') && take_field(&c, &month) && take(&c, '-') &&
              take_field(&c, &day) && (take(&c, 'T') || take(&c, 't')) && take_field(&c, &hour) && take(&c, ':') &&
              take_field(&c, &minute) && take(&c, ':') && take_field(&c, &second) &&
              (!take(&c, '.') || take_fraction(&c, &nanos)) && take_offset(&c, &offset) && c.n == 0;

    if (!ok || year < 1 || month < 1 || month > 12 || day < 1 || day > sf__days_in_month(year, (unsigned)month) ||
        hour > 23 || minute > 59 || second > 60) /* a leap second is the next minute's first */
        return sf__cel_fail(m, "cannot convert string to timestamp");
    return sf__cel_timestamp_make(m,
                                  sf__days_from_civil(year, (unsigned)month, (unsigned)day) * 86400 + hour * 3600 +
                                      minute * 60 + second - offset,
                                  nanos, out);
}

/* The unit that stands here, in nanoseconds; 0: none. */
static int64_t take_unit(sf_cursor *c)
{
    if (take(c, 'h'))
        return 3600 * NANOS_PER_SECOND;
    if (take(c, 's'))
        return NANOS_PER_SECOND;
    if (take(c, 'm'))
        return take(c, 's') ? 1000000 : 60 * NANOS_PER_SECOND;
    if (take(c, 'u'))
        return take(c, 's') ? 1000 : 0;
    if (take(c, 'n'))
        return take(c, 's') ? 1 : 0;
    return 0;
}

/* "1.5h": adds it to *seconds and *nanos. */
static bool take_span(sf_cursor *c, int64_t *seconds, int64_t *nanos)
{
    int64_t whole = 0, fraction = 0, digit, unit, part;
    bool some = false;

    for (; take_digits(c, 1, &digit); some = true)
        if (__builtin_mul_overflow(whole, 10, &whole) || __builtin_add_overflow(whole, digit, &whole))
            return false;
    if (take(c, '.'))
        some = take_fraction(c, &fraction) || some;
    unit = take_unit(c);
    if (!some || unit == 0)
        return false;
    if (unit >= NANOS_PER_SECOND) {
        if (__builtin_mul_overflow(whole, unit / NANOS_PER_SECOND, &part) ||
            __builtin_add_overflow(*seconds, part, seconds))
            return false;
        *nanos += fraction * (unit / NANOS_PER_SECOND); /* below 3,600 * 10^9 */
    } else {
        int64_t per_second = NANOS_PER_SECOND / unit;

        if (__builtin_add_overflow(*seconds, whole / per_second, seconds))
            return false;
        *nanos += whole % per_second * unit + fraction / per_second;
    }
    return carry(seconds, nanos);
}

bool sf__cel_duration_parse(sf_cel_memory *m, sf_bytes text, sf_cel_value *out)
{
    sf_cursor c = text;
    int64_t seconds = 0, nanos = 0;
    bool negative = take(&c, '-'), ok;

    if (!negative)
        (void)take(&c, '+');
    ok = c.n > 0;
    if (c.n == 1 && c.p[0] == '0') /* the only one without a unit */
        (void)take(&c, '0');
    while (ok && c.n > 0)
        ok = take_span(&c, &seconds, &nanos);
    if (!ok)
        return sf__cel_fail(m, "cannot convert string to duration");
    return sf__cel_duration_make(m, negative ? -seconds : seconds, negative ? -nanos : nanos, out);
}

/* ------------------------------------------------------------------ formatting ------------------------------------ */

/* Nothing, or a point and three, six or nine digits. */
static size_t fraction_format(char *out, int32_t nanos)
{
    uint32_t v = (uint32_t)(nanos < 0 ? -nanos : nanos);
    size_t digits = 9;

    if (v == 0)
        return 0;
    for (; v % 1000 == 0; v /= 1000)
        digits -= 3;
    *out = '.';
    return 1 + sf__padded_text(out + 1, v, digits);
}

static size_t duration_format(char *out, const sf_cel_value *d)
{
    size_t n = sf__integer_text(out, (uint64_t)(d->i < 0 ? -d->i : d->i), d->i < 0 || d->nanos < 0);

    n += fraction_format(out + n, d->nanos);
    out[n++] = 's';
    return n;
}

size_t sf__cel_time_format(char out[SF_CEL_TIME_TEXT], const sf_cel_value *t)
{
    int64_t days = t->i / 86400, rest = t->i % 86400, year;
    static const char signs[] = "--T::";
    unsigned month, day;
    size_t n;

    if (t->kind == SF_CEL_DURATION)
        return duration_format(out, t);
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    sf__civil_from_days(days, &year, &month, &day);
    const uint64_t parts[] = {month, day, (uint64_t)rest / 3600, (uint64_t)rest / 60 % 60, (uint64_t)rest % 60};

    n = sf__padded_text(out, (uint64_t)year, 4);
    for (size_t i = 0; i < 5; i++) {
        out[n++] = signs[i];
        n += sf__padded_text(out + n, parts[i], 2);
    }
    n += fraction_format(out + n, t->nanos);
    out[n++] = 'Z';
    return n;
}

/* ------------------------------------------------------------------ parts ----------------------------------------- */

/* "", "UTC", "+05:30", "05:30", "-08:00". Names of regions need a database that changes: what it says today
 * would move keys tomorrow, so they are refused. */
static bool zone_offset(sf_bytes zone, int64_t *offset)
{
    uint8_t plus[6] = "+";
    sf_cursor c = zone;

    *offset = 0;
    if (zone.n == 0 || sf_bytes_eq(zone, sf_bytes_str("UTC")))
        return true;
    if (zone.n == 5 && zone.p[0] >= '0' && zone.p[0] <= '9') {
        memcpy(plus + 1, zone.p, 5);
        c = sf_bytes_of(plus, 6);
    }
    return c.n == 6 && take_offset(&c, offset);
}

bool sf__cel_zone_is_known(sf_bytes zone)
{
    int64_t offset;

    return zone_offset(zone, &offset);
}

static bool duration_part(sf_cel_memory *m, const char *name, const sf_cel_value *d, int64_t *part)
{
    if (strcmp(name, "getHours") == 0)
        *part = d->i / 3600;
    else if (strcmp(name, "getMinutes") == 0)
        *part = d->i / 60;
    else if (strcmp(name, "getSeconds") == 0)
        *part = d->i;
    else if (strcmp(name, "getMilliseconds") == 0)
        *part = d->nanos / 1000000;
    else
        return sf__cel_fail(m, "a duration has no %s()", name);
    return true;
}

static int64_t timestamp_part(const char *name, int64_t seconds, int32_t nanos)
{
    int64_t days = seconds / 86400, rest = seconds % 86400, year;
    unsigned month, day;

    if (rest < 0) {
        rest += 86400;
        days--;
    }
    sf__civil_from_days(days, &year, &month, &day);
    if (strcmp(name, "getFullYear") == 0)
        return year;
    if (strcmp(name, "getMonth") == 0)
        return month - 1;
    if (strcmp(name, "getDate") == 0)
        return day;
    if (strcmp(name, "getDayOfMonth") == 0)
        return day - 1;
    if (strcmp(name, "getDayOfWeek") == 0)
        return ((days + 4) % 7 + 7) % 7; /* day 0 was a Thursday */
    if (strcmp(name, "getDayOfYear") == 0)
        return days - sf__days_from_civil(year, 1, 1);
    if (strcmp(name, "getHours") == 0)
        return rest / 3600;
    if (strcmp(name, "getMinutes") == 0)
        return rest / 60 % 60;
    if (strcmp(name, "getSeconds") == 0)
        return rest % 60;
    return nanos / 1000000;
}

bool sf__cel_time_part(sf_cel_memory *m, const char *name, const sf_cel_value *args, size_t count, sf_cel_value *out)
{
    int64_t offset = 0, part;

    if (args[0].kind == SF_CEL_DURATION && count == 1) {
        if (!duration_part(m, name, &args[0], &part))
            return false;
    } else if (count == 1 || args[1].kind == SF_CEL_STRING) {
        if (count == 2 && !zone_offset(args[1].s, &offset))
            return sf__cel_fail(m,
                                "the time zone '%.*s' is no offset such as '+02:00': names of regions are not supported",
                                (int)(args[1].s.n < 60 ? args[1].s.n : 60), (const char *)args[1].s.p);
        part = timestamp_part(name, args[0].i + offset, args[0].nanos);
    } else {
        return sf__cel_fail(m, "no matching overload for %s()", name);
    }
    sf__cel_set_int(out, part);
    return true;
}
