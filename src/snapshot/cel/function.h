/* The functions and operators of CEL: what they take, for the checker, and what they do, for the evaluator.
 * Pure; any thread. */
#ifndef SF_SNAPSHOT_CEL_FUNCTION_H
#define SF_SNAPSHOT_CEL_FUNCTION_H

#include "snapshot/cel/value.h"

typedef enum sf_cel_form { SF_CEL_GLOBAL = 1, SF_CEL_MEMBER = 2, SF_CEL_BOTH = 3 } sf_cel_form;

/* One overload. Types are written as letters: i u d b s y (bytes) t (timestamp) D (duration) T (type), ? for
 * anything, A and B for any type that is the same wherever the letter stands, L before a list's type, M
 * before a map's two. */
typedef struct sf_cel_function {
    const char *name;
    const char *params, *result;
    sf_cel_form form;
    /* Arguments of other kinds than those of the overload may come by dyn(): then it fails. All overloads of
     * a name and a number of arguments share it. `prepared` is of sf__cel_prepare(). False with the reason in
     * `m`. */
    bool (*call)(sf_cel_memory *m, const sf_cel_value *args, size_t count, const void *prepared, sf_cel_value *out);
} sf_cel_function;

#define SF_CEL_MAX_ARGS 3u

extern const sf_cel_function sf__cel_functions[];
extern const size_t sf__cel_function_count;

/* What a function can make of a constant argument once, for all its calls: in at most *left bytes of `arena`,
 * or NULL. */
const void *sf__cel_prepare(const sf_cel_function *f, const sf_cel_value *second, sf_arena *arena, size_t *left);

/* ------------------------------------------------------------------ its parts ------------------------------------- */

/* regex.c: a pattern as RE2 reads it, and whether it is found anywhere in a text. NULL: the reason is in
 * `reason`. */
const void *sf__cel_regex_compile(sf_bytes pattern, void *(*take)(size_t n, void *ctx), void *ctx, char *reason,
                                  size_t size);
bool sf__cel_regex_found(sf_cel_memory *m, const void *regex, sf_bytes text, bool *found) SF_MUST_USE;

/* time.c. Each takes checked kinds; false with the reason in `m`. */
bool sf__cel_timestamp_parse(sf_cel_memory *m, sf_bytes text, sf_cel_value *out);
bool sf__cel_timestamp_make(sf_cel_memory *m, int64_t seconds, int64_t nanos, sf_cel_value *out);
bool sf__cel_duration_parse(sf_cel_memory *m, sf_bytes text, sf_cel_value *out);
bool sf__cel_duration_make(sf_cel_memory *m, int64_t seconds, int64_t nanos, sf_cel_value *out);
#define SF_CEL_TIME_TEXT 32 /* "0001-01-01T00:00:00.000000001Z" */
/* A timestamp or a duration as text; how many bytes. */
size_t sf__cel_time_format(char out[SF_CEL_TIME_TEXT], const sf_cel_value *t);
/* Whether a text is a time zone that sf__cel_time_part() takes. */
bool sf__cel_zone_is_known(sf_bytes zone);
/* getFullYear and so on. `args`: the time, and perhaps the zone. */
bool sf__cel_time_part(sf_cel_memory *m, const char *name, const sf_cel_value *args, size_t count, sf_cel_value *out);

#endif
