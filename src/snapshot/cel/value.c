#include "snapshot/cel/value.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>

const char *sf__cel_kind_name(sf_cel_kind kind)
{
    switch (kind) {
    case SF_CEL_ABSENT:
        return "absent";
    case SF_CEL_NULL:
        return "null_type";
    case SF_CEL_BOOL:
        return "bool";
    case SF_CEL_INT:
        return "int";
    case SF_CEL_UINT:
        return "uint";
    case SF_CEL_DOUBLE:
        return "double";
    case SF_CEL_STRING:
        return "string";
    case SF_CEL_BYTES:
        return "bytes";
    case SF_CEL_LIST:
        return "list";
    case SF_CEL_MAP:
        return "map";
    case SF_CEL_TYPE:
        return "type";
    case SF_CEL_TIMESTAMP:
        return "google.protobuf.Timestamp";
    case SF_CEL_DURATION:
        return "google.protobuf.Duration";
    }
    return "?";
}

/* ------------------------------------------------------------------ order and equality ---------------------------- */

static bool is_number(const sf_cel_value *v)
{
    return v->kind == SF_CEL_INT || v->kind == SF_CEL_UINT || v->kind == SF_CEL_DOUBLE;
}

static int sign(bool greater, bool less)
{
    return greater - less;
}

static int order_doubles(double a, double b)
{
    return isnan(a) || isnan(b) ? 2 : sign(a > b, a < b);
}

/* Beyond the integers a double is what it is; among them the integer is rounded to a double first, as cel-cpp
 * has it. */
static int order_int_double(int64_t i, double d)
{
    return d > 0x1p63 ? -1 : d < -0x1p63 ? 1 : order_doubles((double)i, d);
}

static int order_uint_double(uint64_t u, double d)
{
    return d > 0x1p64 ? -1 : d < 0 ? 1 : order_doubles((double)u, d);
}

static int reversed(int order)
{
    return order == 2 ? 2 : -order;
}

static int order_numbers(const sf_cel_value *a, const sf_cel_value *b)
{
    if (a->kind > b->kind) /* INT, UINT, DOUBLE */
        return reversed(order_numbers(b, a));
    switch (a->kind) {
    case SF_CEL_INT:
        if (b->kind == SF_CEL_INT)
            return sign(a->i > b->i, a->i < b->i);
        if (b->kind == SF_CEL_UINT)
            return a->i < 0 ? -1 : sign((uint64_t)a->i > b->u, (uint64_t)a->i < b->u);
        return order_int_double(a->i, b->d);
    case SF_CEL_UINT:
        if (b->kind == SF_CEL_UINT)
            return sign(a->u > b->u, a->u < b->u);
        return order_uint_double(a->u, b->d);
    default:
        return order_doubles(a->d, b->d);
    }
}

bool sf__cel_order(const sf_cel_value *a, const sf_cel_value *b, int *order)
{
    int c;

    if (is_number(a) && is_number(b)) {
        *order = order_numbers(a, b);
        return true;
    }
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case SF_CEL_BOOL:
        *order = (int)a->b - (int)b->b;
        return true;
    case SF_CEL_STRING: /* the order of UTF-8 is that of code points */
    case SF_CEL_BYTES:
        c = sf_bytes_cmp(a->s, b->s);
        *order = sign(c > 0, c < 0);
        return true;
    case SF_CEL_TIMESTAMP:
    case SF_CEL_DURATION:
        *order = a->i != b->i ? sign(a->i > b->i, a->i < b->i) : sign(a->nanos > b->nanos, a->nanos < b->nanos);
        return true;
    default:
        return false;
    }
}

static bool equal_lists(sf_cel_memory *m, const sf_cel_value *a, const sf_cel_value *b, bool *equal)
{
    *equal = a->count == b->count;
    for (size_t i = 0; *equal && i < a->count; i++)
        if (!sf__cel_equal(m, &a->items[i], &b->items[i], equal))
            return false;
    return true;
}

static bool equal_maps(sf_cel_memory *m, const sf_cel_value *a, const sf_cel_value *b, bool *equal)
{
    *equal = a->count == b->count;
    for (size_t i = 0; *equal && i < a->count; i++) {
        const sf_cel_value *other;

        if (!sf__cel_map_find(m, b, &a->items[2 * i], &other))
            return false;
        *equal = other != NULL;
        if (other && !sf__cel_equal(m, &a->items[2 * i + 1], other, equal))
            return false;
    }
    return true;
}

/* What comparing two values takes, whatever they hold. */
static size_t steps_of_two(const sf_cel_value *a, const sf_cel_value *b)
{
    if (a->kind != b->kind || (a->kind != SF_CEL_STRING && a->kind != SF_CEL_BYTES))
        return 1;
    return 1 + (a->s.n < b->s.n ? a->s.n : b->s.n) / 64;
}

bool sf__cel_equal(sf_cel_memory *m, const sf_cel_value *a, const sf_cel_value *b, bool *equal)
{
    int order;

    if (!sf__cel_memory_steps(m, steps_of_two(a, b)))
        return false;
    if (sf__cel_order(a, b, &order)) {
        *equal = order == 0;
        return true;
    }
    *equal = false;
    if (a->kind != b->kind)
        return true;
    switch (a->kind) {
    case SF_CEL_LIST:
        return equal_lists(m, a, b, equal);
    case SF_CEL_MAP:
        return equal_maps(m, a, b, equal);
    case SF_CEL_TYPE:
        *equal = a->type == b->type;
        return true;
    default:
        *equal = a->kind == SF_CEL_NULL;
        return true;
    }
}

/* ------------------------------------------------------------------ maps ------------------------------------------ */

bool sf__cel_is_key(const sf_cel_value *v)
{
    return v->kind == SF_CEL_BOOL || v->kind == SF_CEL_INT || v->kind == SF_CEL_UINT || v->kind == SF_CEL_STRING;
}

/* The order of an index: bools, integers, texts. */
static int rank(const sf_cel_value *key)
{
    return key->kind == SF_CEL_BOOL ? 0 : is_number(key) ? 1 : 2;
}

static int order_keys(const sf_cel_value *a, const sf_cel_value *b)
{
    int order = 0;

    if (rank(a) != rank(b))
        return rank(a) - rank(b) < 0 ? -1 : 1;
    (void)!sf__cel_order(a, b, &order);
    return order;
}

static int by_key(const void *a, const void *b)
{
    return order_keys(*(const sf_cel_value *const *)a, *(const sf_cel_value *const *)b);
}

size_t sf__cel_map_bytes(size_t pairs)
{
    return pairs * (2 * sizeof(sf_cel_value) + sizeof(sf_cel_value *));
}

static const sf_cel_value **index_of(const sf_cel_value *map)
{
    return (const sf_cel_value **)(uintptr_t)(map->items + 2 * map->count);
}

bool sf__cel_map_index(sf_cel_value *map)
{
    const sf_cel_value **index = index_of(map);

    for (size_t i = 0; i < map->count; i++) {
        index[i] = &map->items[2 * i];
        if (!sf__cel_is_key(index[i]))
            return false;
    }
    if (map->count > 1)
        qsort(index, map->count, sizeof(*index), by_key);
    for (size_t i = 1; i < map->count; i++)
        if (order_keys(index[i - 1], index[i]) == 0)
            return false;
    map->indexed = true;
    return true;
}

static const sf_cel_value *find_by_index(const sf_cel_value *map, const sf_cel_value *key)
{
    const sf_cel_value **index = index_of(map);
    size_t from = 0, to = map->count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = order_keys(index[middle], key);

        if (order == 0)
            return index[middle] + 1;
        if (order < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static const sf_cel_value *find_in_turn(const sf_cel_value *map, const sf_cel_value *key)
{
    for (size_t i = 0; i < map->count; i++) {
        int order;

        if (sf__cel_order(&map->items[2 * i], key, &order) && order == 0)
            return &map->items[2 * i + 1];
    }
    return NULL;
}

/* Keys are no doubles, but one that is an integer finds that one: as it is, not rounded as comparisons do. */
static bool key_of_double(double d, sf_cel_value *key)
{
    if (d >= -0x1p63 && d < 0x1p63 && d == (double)(int64_t)d)
        *key = sf__cel_int((int64_t)d);
    else if (d >= 0x1p63 && d < 0x1p64)
        *key = sf__cel_uint((uint64_t)d);
    else
        return false;
    return true;
}

bool sf__cel_map_find(sf_cel_memory *m, const sf_cel_value *map, const sf_cel_value *key, const sf_cel_value **found)
{
    size_t blocks = key->kind == SF_CEL_STRING ? key->s.n / 64 : 0;
    sf_cel_value integer;

    *found = NULL;
    if (key->kind == SF_CEL_DOUBLE) {
        if (!key_of_double(key->d, &integer))
            return true;
        key = &integer;
    }
    if (!sf__cel_is_key(key))
        return sf__cel_fail(m, "no map has a key of type %s", sf__cel_kind_name(key->kind));

    if (!sf__cel_memory_steps(m, map->indexed ? 16 * blocks : map->count / 16 + map->count * blocks))
        return false;
    *found = map->indexed ? find_by_index(map, key) : find_in_turn(map, key);
    return true;
}

/* ------------------------------------------------------------------ integers -------------------------------------- */

bool sf__cel_integer_parse(sf_bytes text, bool *negative, uint64_t *out)
{
    size_t i = 0, end;
    uint64_t v = 0;

    text = sf_bytes_trim(text);
    end = text.n;
    *negative = i < end && text.p[i] == '-';
    i += i < end && (text.p[i] == '-' || text.p[i] == '+');
    if (i == end)
        return false;
    for (; i < end; i++)
        if (text.p[i] < '0' || text.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, text.p[i] - '0', &v))
            return false;
    *out = v;
    return true;
}

/* ------------------------------------------------------------------ doubles --------------------------------------- */

/* By the "C" locale, whatever the program has set: in glibc that one costs nothing to make. */
static double read_double(const char *text, char **end)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double d = strtod_l(text, end, c);

    freelocale(c);
    return d;
}

size_t sf__cel_double_format(char out[SF_CEL_DOUBLE_TEXT], double d)
{
    static const sf_float_style style = {.most_digits = 6, .whole = "", .nan = "nan", .infinity = "inf"};
    size_t n = 0;

    if (isnan(d) && signbit(d))
        out[n++] = '-';
    return n + sf__float_text(out + n, d, &style);
}

bool sf__cel_double_parse(sf_bytes text, double *out)
{
    char copy[512], *end; /* longer ones are no number that anybody writes */
    bool digit = false;

    if (text.n == 0 || text.n >= sizeof(copy))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i];

        if (c <= ' ' || c == '(') /* strtod's, not CEL's */
            return false;
        digit = digit || (c >= '0' && c <= '9') || c == 'n' || c == 'N';
        copy[i] = (char)c;
    }
    copy[text.n] = '\0';
    *out = read_double(copy, &end);
    return digit && *end == '\0';
}
