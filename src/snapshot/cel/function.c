#include "snapshot/cel/function.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/checksum.h"
#include "base/utf8.h"

/* ------------------------------------------------------------------ tools ----------------------------------------- */

static bool no_overload(sf_cel_memory *m, const char *name, const sf_cel_value *args, size_t count)
{
    if (count == 1)
        return sf__cel_fail(m, "found no matching overload for '%s' applied to '(%s)'", name,
                            sf__cel_kind_name(args[0].kind));
    return sf__cel_fail(m, "found no matching overload for '%s' applied to '(%s, %s)'", name,
                        sf__cel_kind_name(args[0].kind), sf__cel_kind_name(args[1].kind));
}

static bool both(const sf_cel_value *args, sf_cel_kind kind)
{
    return args[0].kind == kind && args[1].kind == kind;
}

static bool overflow(sf_cel_memory *m, const sf_cel_value *v)
{
    return sf__cel_fail(m, v->kind == SF_CEL_UINT ? "unsigned integer overflow" : "integer overflow");
}

/* Text or bytes of both, one after the other. */
static bool concat(sf_cel_memory *m, const sf_cel_value *args, sf_cel_value *out)
{
    size_t n = args[0].s.n + args[1].s.n;
    uint8_t *p = sf__cel_memory_take(m, n);

    if (!p)
        return false;
    if (args[0].s.n > 0)
        memcpy(p, args[0].s.p, args[0].s.n);
    if (args[1].s.n > 0)
        memcpy(p + args[0].s.n, args[1].s.p, args[1].s.n);
    *out = (sf_cel_value){.kind = args[0].kind, .s = {p, n}};
    return true;
}

static bool concat_lists(sf_cel_memory *m, const sf_cel_value *args, sf_cel_value *out)
{
    size_t n = args[0].count + args[1].count;
    sf_cel_value *items = sf__cel_memory_take(m, n * sizeof(*items));

    if (!items)
        return false;
    if (args[0].count > 0)
        memcpy(items, args[0].items, args[0].count * sizeof(*items));
    if (args[1].count > 0)
        memcpy(items + args[0].count, args[1].items, args[1].count * sizeof(*items));
    *out = (sf_cel_value){.kind = SF_CEL_LIST, .items = items, .count = n};
    return true;
}

static bool is_time(const sf_cel_value *v)
{
    return v->kind == SF_CEL_TIMESTAMP || v->kind == SF_CEL_DURATION;
}

/* ------------------------------------------------------------------ arithmetic ------------------------------------ */

static bool add(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (both(a, SF_CEL_INT)) {
        out->kind = SF_CEL_INT;
        return !__builtin_add_overflow(a[0].i, a[1].i, &out->i) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_UINT)) {
        out->kind = SF_CEL_UINT;
        return !__builtin_add_overflow(a[0].u, a[1].u, &out->u) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_DOUBLE)) {
        sf__cel_set_double(out, a[0].d + a[1].d);
        return true;
    }
    if (both(a, SF_CEL_STRING) || both(a, SF_CEL_BYTES))
        return concat(m, a, out);
    if (both(a, SF_CEL_LIST))
        return concat_lists(m, a, out);
    if (both(a, SF_CEL_DURATION))
        return sf__cel_duration_make(m, a[0].i + a[1].i, (int64_t)a[0].nanos + a[1].nanos, out);
    if (is_time(&a[0]) && is_time(&a[1]) && !both(a, SF_CEL_TIMESTAMP))
        return sf__cel_timestamp_make(m, a[0].i + a[1].i, (int64_t)a[0].nanos + a[1].nanos, out);
    return no_overload(m, "_+_", a, count);
}

static bool subtract(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (both(a, SF_CEL_INT)) {
        out->kind = SF_CEL_INT;
        return !__builtin_sub_overflow(a[0].i, a[1].i, &out->i) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_UINT)) {
        out->kind = SF_CEL_UINT;
        return !__builtin_sub_overflow(a[0].u, a[1].u, &out->u) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_DOUBLE)) {
        sf__cel_set_double(out, a[0].d - a[1].d);
        return true;
    }
    if (both(a, SF_CEL_TIMESTAMP) && llabs(a[0].i - a[1].i) > INT64_MAX / 1000000000) /* CEL's durations between two times */
        return sf__cel_fail(m, "the duration is out of range");
    if (both(a, SF_CEL_DURATION) || both(a, SF_CEL_TIMESTAMP))
        return sf__cel_duration_make(m, a[0].i - a[1].i, (int64_t)a[0].nanos - a[1].nanos, out);
    if (a[0].kind == SF_CEL_TIMESTAMP && a[1].kind == SF_CEL_DURATION)
        return sf__cel_timestamp_make(m, a[0].i - a[1].i, (int64_t)a[0].nanos - a[1].nanos, out);
    return no_overload(m, "_-_", a, count);
}

static bool multiply(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (both(a, SF_CEL_INT)) {
        out->kind = SF_CEL_INT;
        return !__builtin_mul_overflow(a[0].i, a[1].i, &out->i) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_UINT)) {
        out->kind = SF_CEL_UINT;
        return !__builtin_mul_overflow(a[0].u, a[1].u, &out->u) || overflow(m, &a[0]);
    }
    if (both(a, SF_CEL_DOUBLE)) {
        sf__cel_set_double(out, a[0].d * a[1].d);
        return true;
    }
    return no_overload(m, "_*_", a, count);
}

static bool divide(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (both(a, SF_CEL_DOUBLE)) {
        sf__cel_set_double(out, a[0].d / a[1].d);
        return true;
    }
    if (both(a, SF_CEL_INT)) {
        if (a[1].i == 0)
            return sf__cel_fail(m, "divide by zero");
        if (a[0].i == INT64_MIN && a[1].i == -1)
            return overflow(m, &a[0]);
        sf__cel_set_int(out, a[0].i / a[1].i);
        return true;
    }
    if (both(a, SF_CEL_UINT)) {
        if (a[1].u == 0)
            return sf__cel_fail(m, "divide by zero");
        sf__cel_set_uint(out, a[0].u / a[1].u);
        return true;
    }
    return no_overload(m, "_/_", a, count);
}

static bool modulo(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (both(a, SF_CEL_UINT)) {
        if (a[1].u == 0)
            return sf__cel_fail(m, "modulus by zero");
        sf__cel_set_uint(out, a[0].u % a[1].u);
        return true;
    }
    if (both(a, SF_CEL_INT)) {
        if (a[1].i == 0)
            return sf__cel_fail(m, "modulus by zero");
        if (a[0].i == INT64_MIN && a[1].i == -1)
            return overflow(m, &a[0]);
        sf__cel_set_int(out, a[0].i % a[1].i);
        return true;
    }
    return no_overload(m, "_%_", a, count);
}

static bool negate(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (a->kind == SF_CEL_DOUBLE) {
        sf__cel_set_double(out, -a->d);
        return true;
    }
    if (a->kind != SF_CEL_INT)
        return no_overload(m, "-_", a, count);
    out->kind = SF_CEL_INT;
    return !__builtin_sub_overflow(0, a->i, &out->i) || overflow(m, a);
}

static bool not_bool(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (a->kind != SF_CEL_BOOL)
        return no_overload(m, "!_", a, count);
    sf__cel_set_bool(out, !a->b);
    return true;
}

/* ------------------------------------------------------------------ comparison ------------------------------------ */

static bool equals(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    (void)count;
    sf__cel_set_bool(out, false);
    return sf__cel_equal(m, &a[0], &a[1], &out->b);
}

static bool differs(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    bool ok = equals(m, a, count, prepared, out);

    out->b = !out->b;
    return ok;
}

static bool less(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    int order;

    (void)prepared;
    if (!sf__cel_order(&a[0], &a[1], &order))
        return no_overload(m, "_<_", a, count);
    sf__cel_set_bool(out, order == -1);
    return true;
}

static bool less_or_equal(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    int order;

    (void)prepared;
    if (!sf__cel_order(&a[0], &a[1], &order))
        return no_overload(m, "_<=_", a, count);
    sf__cel_set_bool(out, order <= 0);
    return true;
}

static bool greater(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    const sf_cel_value swapped[2] = {a[1], a[0]};

    return less(m, swapped, count, prepared, out);
}

static bool greater_or_equal(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared,
                             sf_cel_value *out)
{
    const sf_cel_value swapped[2] = {a[1], a[0]};

    return less_or_equal(m, swapped, count, prepared, out);
}

/* ------------------------------------------------------------------ lists and maps -------------------------------- */

static bool is_in(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    sf__cel_set_bool(out, false);
    if (a[1].kind == SF_CEL_MAP) {
        const sf_cel_value *found = NULL;
        bool ok = sf__cel_map_find(m, &a[1], &a[0], &found);

        out->b = found != NULL;
        return ok;
    }
    if (a[1].kind != SF_CEL_LIST)
        return no_overload(m, "@in", a, count);
    for (size_t i = 0; !out->b && i < a[1].count; i++)
        if (!sf__cel_equal(m, &a[0], &a[1].items[i], &out->b))
            return false;
    return true;
}

/* The integer that a number is, for an index. */
static bool whole(const sf_cel_value *v, int64_t *out)
{
    switch (v->kind) {
    case SF_CEL_INT:
        *out = v->i;
        return true;
    case SF_CEL_UINT:
        *out = v->u > INT64_MAX ? INT64_MAX : (int64_t)v->u;
        return true;
    case SF_CEL_DOUBLE:
        *out = fabs(v->d) < 0x1p62 ? (int64_t)v->d : INT64_MAX;
        return (double)*out == v->d;
    default:
        return false;
    }
}

static bool index_of(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    const sf_cel_value *found;
    int64_t i;

    (void)prepared;
    if (a[0].kind == SF_CEL_MAP) {
        if (!sf__cel_map_find(m, &a[0], &a[1], &found))
            return false;
        if (!found)
            return sf__cel_fail(m, "the key is not in the map");
        *out = *found;
        return true;
    }
    if (a[0].kind != SF_CEL_LIST || !whole(&a[1], &i))
        return no_overload(m, "_[_]", a, count);
    if (i < 0 || (uint64_t)i >= a[0].count)
        return sf__cel_fail(m, "index %" PRId64 " is outside of a list of %zu", i, a[0].count);
    *out = a[0].items[i];
    return true;
}

static bool size(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    int64_t n = 0;

    (void)prepared;
    if (a->kind == SF_CEL_LIST || a->kind == SF_CEL_MAP)
        n = (int64_t)a->count;
    else if (a->kind == SF_CEL_BYTES)
        n = (int64_t)a->s.n;
    else if (a->kind != SF_CEL_STRING)
        return no_overload(m, "size", a, count);
    else if (!sf__cel_memory_steps(m, a->s.n / 16)) /* byte by byte */
        return false;
    else
        for (size_t i = 0; i < a->s.n; i++)
            n += (a->s.p[i] & 0xc0) != 0x80;
    sf__cel_set_int(out, n);
    return true;
}

/* ------------------------------------------------------------------ texts ----------------------------------------- */

/* memmem() may compare all of a short text at each place of a long one; of one that is longer than this it does not. */
#define COMPARED_EACH 256u

static size_t search_steps(sf_bytes in, sf_bytes what)
{
    return in.n / 64 * (1 + (what.n < COMPARED_EACH ? what.n : COMPARED_EACH) / 8);
}

static bool contains(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (!both(a, SF_CEL_STRING))
        return no_overload(m, "contains", a, count);
    if (!sf__cel_memory_steps(m, search_steps(a[0].s, a[1].s)))
        return false;
    sf__cel_set_bool(out, a[1].s.n == 0 || (a[0].s.n > 0 && memmem(a[0].s.p, a[0].s.n, a[1].s.p, a[1].s.n) != NULL));
    return true;
}

static bool starts_with(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (!both(a, SF_CEL_STRING))
        return no_overload(m, "startsWith", a, count);
    sf__cel_set_bool(out, sf_bytes_starts_with(a[0].s, a[1].s));
    return true;
}

static bool ends_with(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    sf_bytes tail;

    (void)prepared;
    if (!both(a, SF_CEL_STRING))
        return no_overload(m, "endsWith", a, count);
    sf__cel_set_bool(out, a[1].s.n <= a[0].s.n && sf_bytes_slice(a[0].s, a[0].s.n - a[1].s.n, a[1].s.n, &tail) &&
                              sf_bytes_eq(tail, a[1].s));
    return true;
}

/* Making a regular expression ready takes tens of microseconds. */
#define COMPILE_STEPS 500u

static bool matches(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    char reason[150];

    if (!both(a, SF_CEL_STRING))
        return no_overload(m, "matches", a, count);
    if (!prepared && !sf__cel_memory_steps(m, COMPILE_STEPS))
        return false;
    if (!prepared)
        prepared = sf__cel_regex_compile(a[1].s, sf__cel_memory_take_for, m, reason, sizeof(reason));
    if (!prepared)
        return sf__cel_fail(m, "%s", reason);
    sf__cel_set_bool(out, false);
    return sf__cel_regex_found(m, prepared, a[0].s, &out->b);
}

/* ------------------------------------------------------------------ conversions ----------------------------------- */

static bool int_of_text(sf_cel_memory *m, sf_bytes text, sf_cel_value *out)
{
    bool negative;
    uint64_t u;

    if (!sf__cel_integer_parse(text, &negative, &u) || u > (uint64_t)INT64_MAX + negative)
        return sf__cel_fail(m, "cannot convert string to int");
    sf__cel_set_int(out, negative ? (int64_t)(0 - u) : (int64_t)u);
    return true;
}

static bool to_int(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    switch (a->kind) {
    case SF_CEL_INT:
    case SF_CEL_TIMESTAMP:
        sf__cel_set_int(out, a->i);
        return true;
    case SF_CEL_BOOL: /* by dyn() only, as in cel-cpp */
        sf__cel_set_int(out, a->b);
        return true;
    case SF_CEL_UINT:
        sf__cel_set_int(out, (int64_t)a->u);
        return a->u <= INT64_MAX || sf__cel_fail(m, "uint out of int range");
    case SF_CEL_DOUBLE:
        if (!(a->d > -0x1p63 && a->d < 0x1p63)) /* -2^63 itself is refused, too: it may have been rounded */
            return sf__cel_fail(m, "double out of int range");
        sf__cel_set_int(out, (int64_t)a->d);
        return true;
    case SF_CEL_STRING:
        return int_of_text(m, a->s, out);
    default:
        return no_overload(m, "int", a, count);
    }
}

static bool to_uint(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    bool negative;

    (void)prepared;
    sf__cel_set_uint(out, 0);
    switch (a->kind) {
    case SF_CEL_UINT:
        *out = *a;
        return true;
    case SF_CEL_INT:
        out->u = (uint64_t)a->i;
        return a->i >= 0 || sf__cel_fail(m, "int out of uint range");
    case SF_CEL_DOUBLE:
        if (!(a->d >= 0 && a->d < 0x1p64))
            return sf__cel_fail(m, "double out of uint range");
        out->u = (uint64_t)a->d;
        return true;
    case SF_CEL_STRING:
        return (sf__cel_integer_parse(a->s, &negative, &out->u) && !negative) ||
               sf__cel_fail(m, "cannot convert string to uint");
    default:
        return no_overload(m, "uint", a, count);
    }
}

static bool to_double(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    sf__cel_set_double(out, 0);
    switch (a->kind) {
    case SF_CEL_DOUBLE:
        out->d = a->d;
        return true;
    case SF_CEL_INT:
        out->d = (double)a->i;
        return true;
    case SF_CEL_UINT:
        out->d = (double)a->u;
        return true;
    case SF_CEL_STRING:
        return sf__cel_memory_steps(m, SF_CEL_DOUBLE_STEPS) && (sf__cel_double_parse(sf_bytes_trim(a->s), &out->d) ||
                                                                sf__cel_fail(m, "cannot convert string to double"));
    default:
        return no_overload(m, "double", a, count);
    }
}

static bool to_bool(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    static const char *const texts[2][5] = {{"0", "f", "false", "False", "FALSE"}, {"1", "t", "true", "True", "TRUE"}};

    (void)prepared;
    *out = *a;
    if (a->kind == SF_CEL_BOOL)
        return true;
    if (a->kind != SF_CEL_STRING)
        return no_overload(m, "bool", a, count);
    for (size_t i = 0; i < 10; i++) {
        sf__cel_set_bool(out, i % 2);
        if (sf_bytes_eq(a->s, sf_bytes_str(texts[i % 2][i / 2])))
            return true;
    }
    return sf__cel_fail(m, "cannot convert string to bool");
}

static bool text_of(sf_cel_memory *m, const char *text, size_t n, sf_cel_value *out)
{
    char *p = sf__cel_memory_take(m, n);

    if (!p)
        return false;
    memcpy(p, text, n);
    sf__cel_set_string(out, sf_bytes_of(p, n));
    return true;
}

static bool to_string(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    char text[SF_CEL_TIME_TEXT]; /* the longest of them */

    (void)prepared;
    switch (a->kind) {
    case SF_CEL_STRING:
        *out = *a;
        return true;
    case SF_CEL_BYTES:
        sf__cel_set_string(out, a->s);
        return sf_utf8_is_valid(a->s) || sf__cel_fail(m, "malformed UTF-8 bytes");
    case SF_CEL_BOOL:
        sf__cel_set_string(out, sf_bytes_str(a->b ? "true" : "false"));
        return true;
    case SF_CEL_INT:
        return text_of(m, text, sf__integer_text(text, a->i < 0 ? -a->u : a->u, a->i < 0), out);
    case SF_CEL_UINT:
        return text_of(m, text, sf__integer_text(text, a->u, false), out);
    case SF_CEL_DOUBLE:
        return sf__cel_memory_steps(m, SF_CEL_TEXT_STEPS) && text_of(m, text, sf__cel_double_format(text, a->d), out);
    case SF_CEL_TIMESTAMP:
    case SF_CEL_DURATION:
        return sf__cel_memory_steps(m, SF_CEL_TEXT_STEPS) && text_of(m, text, sf__cel_time_format(text, a), out);
    default:
        return no_overload(m, "string", a, count);
    }
}

static bool to_bytes(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (a->kind != SF_CEL_BYTES && a->kind != SF_CEL_STRING)
        return no_overload(m, "bytes", a, count);
    sf__cel_set_bytes(out, a->s);
    return true;
}

static bool to_dyn(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)m;
    (void)count;
    (void)prepared;
    *out = *a;
    return true;
}

static bool type_of(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)m;
    (void)count;
    (void)prepared;
    *out = (sf_cel_value){.kind = SF_CEL_TYPE, .type = a->kind};
    return true;
}

static bool to_timestamp(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (a->kind == SF_CEL_STRING)
        return sf__cel_timestamp_parse(m, a->s, out);
    if (a->kind == SF_CEL_INT)
        return sf__cel_timestamp_make(m, a->i, 0, out);
    *out = *a;
    return a->kind == SF_CEL_TIMESTAMP || no_overload(m, "timestamp", a, count);
}

static bool to_duration(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    (void)prepared;
    if (a->kind == SF_CEL_STRING)
        return sf__cel_duration_parse(m, a->s, out);
    *out = *a;
    return a->kind == SF_CEL_DURATION || no_overload(m, "duration", a, count);
}

/* ------------------------------------------------------------------ times ----------------------------------------- */

#define TIME_PART(function, name)                                                                                        \
    static bool function(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out) \
    {                                                                                                                    \
        (void)prepared;                                                                                                  \
        return is_time(&a[0]) ? sf__cel_time_part(m, name, a, count, out) : no_overload(m, name, a, count);              \
    }
TIME_PART(full_year, "getFullYear")
TIME_PART(month, "getMonth")
TIME_PART(date, "getDate")
TIME_PART(day_of_month, "getDayOfMonth")
TIME_PART(day_of_week, "getDayOfWeek")
TIME_PART(day_of_year, "getDayOfYear")
TIME_PART(hours, "getHours")
TIME_PART(minutes, "getMinutes")
TIME_PART(seconds, "getSeconds")
TIME_PART(milliseconds, "getMilliseconds")

/* ------------------------------------------------------------------ ours ------------------------------------------ */

/* XXH3 of the canonical bytes of a key (docs/formats/snapshot.md 6.1), whatever the snapshot's own hash is.
 */
static bool shard_hash(sf_cel_memory *m, const sf_cel_value *a, size_t count, const void *prepared, sf_cel_value *out)
{
    uint8_t integer[8];

    (void)prepared;
    switch (a->kind) {
    case SF_CEL_UINT:
        if (a->u > INT64_MAX)
            return sf__cel_fail(m, "integer key %" PRIu64 " is above %" PRId64, a->u, INT64_MAX);
        /* fall through */
    case SF_CEL_INT:
        sf_store_le(integer, sizeof(integer), (uint64_t)a->i);
        sf__cel_set_uint(out, sf__xxh3_64(sf_bytes_of(integer, sizeof(integer))));
        return true;
    case SF_CEL_STRING:
    case SF_CEL_BYTES:
        sf__cel_set_uint(out, sf__xxh3_64(a->s));
        return true;
    default:
        return no_overload(m, "shard_hash", a, count);
    }
}

/* ------------------------------------------------------------------ table ----------------------------------------- */

const sf_cel_function sf__cel_functions[] = {
    {"_+_", "ii", "i", SF_CEL_GLOBAL, add},
    {"_+_", "uu", "u", SF_CEL_GLOBAL, add},
    {"_+_", "dd", "d", SF_CEL_GLOBAL, add},
    {"_+_", "ss", "s", SF_CEL_GLOBAL, add},
    {"_+_", "yy", "y", SF_CEL_GLOBAL, add},
    {"_+_", "LALA", "LA", SF_CEL_GLOBAL, add},
    {"_+_", "DD", "D", SF_CEL_GLOBAL, add},
    {"_+_", "tD", "t", SF_CEL_GLOBAL, add},
    {"_+_", "Dt", "t", SF_CEL_GLOBAL, add},
    {"_-_", "ii", "i", SF_CEL_GLOBAL, subtract},
    {"_-_", "uu", "u", SF_CEL_GLOBAL, subtract},
    {"_-_", "dd", "d", SF_CEL_GLOBAL, subtract},
    {"_-_", "DD", "D", SF_CEL_GLOBAL, subtract},
    {"_-_", "tt", "D", SF_CEL_GLOBAL, subtract},
    {"_-_", "tD", "t", SF_CEL_GLOBAL, subtract},
    {"_*_", "ii", "i", SF_CEL_GLOBAL, multiply},
    {"_*_", "uu", "u", SF_CEL_GLOBAL, multiply},
    {"_*_", "dd", "d", SF_CEL_GLOBAL, multiply},
    {"_/_", "ii", "i", SF_CEL_GLOBAL, divide},
    {"_/_", "uu", "u", SF_CEL_GLOBAL, divide},
    {"_/_", "dd", "d", SF_CEL_GLOBAL, divide},
    {"_%_", "ii", "i", SF_CEL_GLOBAL, modulo},
    {"_%_", "uu", "u", SF_CEL_GLOBAL, modulo},
    {"-_", "i", "i", SF_CEL_GLOBAL, negate},
    {"-_", "d", "d", SF_CEL_GLOBAL, negate},
    {"!_", "b", "b", SF_CEL_GLOBAL, not_bool},
    {"_==_", "AA", "b", SF_CEL_GLOBAL, equals},
    {"_!=_", "AA", "b", SF_CEL_GLOBAL, differs},
#define ORDERED(letters)                                                                              \
    {"_<_", letters, "b", SF_CEL_GLOBAL, less}, {"_<=_", letters, "b", SF_CEL_GLOBAL, less_or_equal}, \
        {"_>_", letters, "b", SF_CEL_GLOBAL, greater},                                                \
    {                                                                                                 \
        "_>=_", letters, "b", SF_CEL_GLOBAL, greater_or_equal                                         \
    }
    ORDERED("bb"),
    ORDERED("ii"),
    ORDERED("uu"),
    ORDERED("dd"),
    ORDERED("ss"),
    ORDERED("yy"),
    ORDERED("tt"),
    ORDERED("DD"),
#undef ORDERED
    {"in", "ALA", "b", SF_CEL_GLOBAL, is_in},
    {"in", "AMAB", "b", SF_CEL_GLOBAL, is_in},
    {"_[_]", "LAi", "A", SF_CEL_GLOBAL, index_of},
    {"_[_]", "MABA", "B", SF_CEL_GLOBAL, index_of},
    {"size", "s", "i", SF_CEL_BOTH, size},
    {"size", "y", "i", SF_CEL_BOTH, size},
    {"size", "LA", "i", SF_CEL_BOTH, size},
    {"size", "MAB", "i", SF_CEL_BOTH, size},
    {"contains", "ss", "b", SF_CEL_MEMBER, contains},
    {"startsWith", "ss", "b", SF_CEL_MEMBER, starts_with},
    {"endsWith", "ss", "b", SF_CEL_MEMBER, ends_with},
    {"matches", "ss", "b", SF_CEL_BOTH, matches},
    {"int", "i", "i", SF_CEL_GLOBAL, to_int},
    {"int", "u", "i", SF_CEL_GLOBAL, to_int},
    {"int", "d", "i", SF_CEL_GLOBAL, to_int},
    {"int", "s", "i", SF_CEL_GLOBAL, to_int},
    {"int", "t", "i", SF_CEL_GLOBAL, to_int},
    {"uint", "u", "u", SF_CEL_GLOBAL, to_uint},
    {"uint", "i", "u", SF_CEL_GLOBAL, to_uint},
    {"uint", "d", "u", SF_CEL_GLOBAL, to_uint},
    {"uint", "s", "u", SF_CEL_GLOBAL, to_uint},
    {"double", "d", "d", SF_CEL_GLOBAL, to_double},
    {"double", "i", "d", SF_CEL_GLOBAL, to_double},
    {"double", "u", "d", SF_CEL_GLOBAL, to_double},
    {"double", "s", "d", SF_CEL_GLOBAL, to_double},
    {"bool", "b", "b", SF_CEL_GLOBAL, to_bool},
    {"bool", "s", "b", SF_CEL_GLOBAL, to_bool},
    {"string", "s", "s", SF_CEL_GLOBAL, to_string},
    {"string", "y", "s", SF_CEL_GLOBAL, to_string},
    {"string", "b", "s", SF_CEL_GLOBAL, to_string},
    {"string", "i", "s", SF_CEL_GLOBAL, to_string},
    {"string", "u", "s", SF_CEL_GLOBAL, to_string},
    {"string", "d", "s", SF_CEL_GLOBAL, to_string},
    {"string", "t", "s", SF_CEL_GLOBAL, to_string},
    {"string", "D", "s", SF_CEL_GLOBAL, to_string},
    {"bytes", "y", "y", SF_CEL_GLOBAL, to_bytes},
    {"bytes", "s", "y", SF_CEL_GLOBAL, to_bytes},
    {"dyn", "A", "?", SF_CEL_GLOBAL, to_dyn},
    {"type", "A", "T", SF_CEL_GLOBAL, type_of},
    {"timestamp", "t", "t", SF_CEL_GLOBAL, to_timestamp},
    {"timestamp", "s", "t", SF_CEL_GLOBAL, to_timestamp},
    {"timestamp", "i", "t", SF_CEL_GLOBAL, to_timestamp},
    {"duration", "D", "D", SF_CEL_GLOBAL, to_duration},
    {"duration", "s", "D", SF_CEL_GLOBAL, to_duration},
    {"getFullYear", "t", "i", SF_CEL_MEMBER, full_year},
    {"getFullYear", "ts", "i", SF_CEL_MEMBER, full_year},
    {"getMonth", "t", "i", SF_CEL_MEMBER, month},
    {"getMonth", "ts", "i", SF_CEL_MEMBER, month},
    {"getDate", "t", "i", SF_CEL_MEMBER, date},
    {"getDate", "ts", "i", SF_CEL_MEMBER, date},
    {"getDayOfMonth", "t", "i", SF_CEL_MEMBER, day_of_month},
    {"getDayOfMonth", "ts", "i", SF_CEL_MEMBER, day_of_month},
    {"getDayOfWeek", "t", "i", SF_CEL_MEMBER, day_of_week},
    {"getDayOfWeek", "ts", "i", SF_CEL_MEMBER, day_of_week},
    {"getDayOfYear", "t", "i", SF_CEL_MEMBER, day_of_year},
    {"getDayOfYear", "ts", "i", SF_CEL_MEMBER, day_of_year},
    {"getHours", "t", "i", SF_CEL_MEMBER, hours},
    {"getHours", "ts", "i", SF_CEL_MEMBER, hours},
    {"getHours", "D", "i", SF_CEL_MEMBER, hours},
    {"getMinutes", "t", "i", SF_CEL_MEMBER, minutes},
    {"getMinutes", "ts", "i", SF_CEL_MEMBER, minutes},
    {"getMinutes", "D", "i", SF_CEL_MEMBER, minutes},
    {"getSeconds", "t", "i", SF_CEL_MEMBER, seconds},
    {"getSeconds", "ts", "i", SF_CEL_MEMBER, seconds},
    {"getSeconds", "D", "i", SF_CEL_MEMBER, seconds},
    {"getMilliseconds", "t", "i", SF_CEL_MEMBER, milliseconds},
    {"getMilliseconds", "ts", "i", SF_CEL_MEMBER, milliseconds},
    {"getMilliseconds", "D", "i", SF_CEL_MEMBER, milliseconds},
    {"shard_hash", "i", "u", SF_CEL_GLOBAL, shard_hash},
    {"shard_hash", "u", "u", SF_CEL_GLOBAL, shard_hash},
    {"shard_hash", "s", "u", SF_CEL_GLOBAL, shard_hash},
    {"shard_hash", "y", "u", SF_CEL_GLOBAL, shard_hash},
};
const size_t sf__cel_function_count = sizeof(sf__cel_functions) / sizeof(sf__cel_functions[0]);

struct room {
    sf_arena *arena;
    size_t *left;
};

static void *take_from_arena(size_t n, void *ctx)
{
    const struct room *room = ctx;

    if (n > *room->left) {
        *room->left = 0;
        return NULL;
    }
    *room->left -= n;
    return sf__arena_alloc(room->arena, n > 0 ? n : 1);
}

const void *sf__cel_prepare(const sf_cel_function *f, const sf_cel_value *second, sf_arena *arena, size_t *left)
{
    struct room room = {arena, left};
    char reason[8];

    if (*left == 0 || f->call != matches || second->kind != SF_CEL_STRING)
        return NULL;
    return sf__cel_regex_compile(second->s, take_from_arena, &room, reason, sizeof(reason));
}
