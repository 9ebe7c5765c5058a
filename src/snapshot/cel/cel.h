/* CEL, the language of routing rules: a text is compiled once, with the names and types of its columns, and
 * evaluated for each key or row. Language, and what the peer makes of it: docs/formats/snapshot.md 7; what is
 * left out: docs/cel.md. A compiled expression never changes: any thread may evaluate it, each with a memory
 * of its own. */
#ifndef SF_SNAPSHOT_CEL_CEL_H
#define SF_SNAPSHOT_CEL_CEL_H

#include "snapshot/cel/checker.h"
#include "snapshot/cel/value.h"

typedef struct sf_cel sf_cel;

/* The kind that a column's type is ("int", "uint", "double", "bool", "string", "bytes"); SF_CEL_ABSENT for
 * any other text. */
sf_cel_kind sf__cel_column_kind(sf_bytes type);

/* Copies everything. SF_INVALID says where the text is wrong: "line 1, column 5: ..."; SF_NOMEM. *out is
 * freed with sf__cel_free(). */
sf_status sf__cel_compile(sf_cel **out, sf_bytes text, const sf_cel_column *columns, size_t column_count,
                          const sf_allocator *a, sf_error *err);
void sf__cel_free(sf_cel *c); /* takes NULL */

size_t sf__cel_column_count(const sf_cel *c);
const sf_cel_column *sf__cel_columns(const sf_cel *c);

/* A value from outside, as a column of `kind` takes it: integers and bools for int, valid UTF-8 in bytes for
 * string, and so on. Text and bytes end at their first NUL, as the peer's do, unless `whole`. False with the
 * reason in `m`. */
bool sf__cel_column_take(sf_cel_memory *m, const sf_cel_column *column, const sf_cel_value *given, bool whole,
                         sf_cel_value *out);

/* `values`: one for each column, as given (ABSENT: the context has none); only those that are needed are
 * looked at. `whole`, or NULL: for each column, see above. The result, and what it points to, lives as long
 * as `m` and the values. False with the reason in m->reason. */
bool sf__cel_eval(const sf_cel *c, const sf_cel_value *values, const bool *whole, sf_cel_memory *m, sf_cel_value *out)
    SF_MUST_USE;

#endif
