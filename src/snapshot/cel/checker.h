/* Names and types of a parsed CEL expression. Pure; any thread. */
#ifndef SF_SNAPSHOT_CEL_CHECKER_H
#define SF_SNAPSHOT_CEL_CHECKER_H

#include "snapshot/cel/syntax.h"

/* A column of the context. */
typedef struct sf_cel_column {
    sf_bytes name;
    sf_cel_kind kind; /* BOOL, INT, UINT, DOUBLE, STRING or BYTES */
} sf_cel_column;

typedef struct sf_cel_checked {
    const sf_cel_column *columns;
    size_t column_count;
    size_t local_count; /* result: variables of macros that live at one time */
} sf_cel_checked;

/* Resolves names and functions, folds constant lists and maps; what it adds lies in `arena`. SF_INVALID,
 * SF_NOMEM. */
sf_status sf__cel_check(sf_cel_node *root, sf_bytes text, sf_cel_checked *checked, sf_arena *arena, sf_error *err);

#endif
