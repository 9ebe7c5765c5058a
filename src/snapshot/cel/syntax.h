/* From the text of a CEL expression to its tree. Everything lies in one arena. Pure; any thread. */
#ifndef SF_SNAPSHOT_CEL_SYNTAX_H
#define SF_SNAPSHOT_CEL_SYNTAX_H

#include "base/arena.h"
#include "snapshot/cel/value.h"

typedef enum sf_cel_node_kind {
    SF_CEL_N_CONSTANT,
    SF_CEL_N_IDENT,  /* `name`; the checker makes it a column, a local, or a constant */
    SF_CEL_N_COLUMN, /* index */
    SF_CEL_N_LOCAL,  /* index: the variable of a macro */
    SF_CEL_N_SELECT, /* args[0].name; `test`: has() */
    SF_CEL_N_CALL,   /* name(args), or args[0].name(args + 1) when `member` */
    SF_CEL_N_LIST,   /* args */
    SF_CEL_N_MAP,    /* args: keys and values in turn */
    SF_CEL_N_AND,    /* args: two or more */
    SF_CEL_N_OR,
    SF_CEL_N_COND,  /* args: condition, then, else */
    SF_CEL_N_MACRO, /* all, exists, exists_one, map, filter: args: range, then what stands in the body, one or
                       two */
} sf_cel_node_kind;

typedef enum sf_cel_macro {
    SF_CEL_ALL,
    SF_CEL_EXISTS,
    SF_CEL_EXISTS_ONE,
    SF_CEL_MAP_EACH, /* args: range, transform; or range, predicate, transform */
    SF_CEL_FILTER,
} sf_cel_macro;

typedef struct sf_cel_node {
    sf_cel_node_kind kind;
    uint32_t pos;              /* in the text, bytes */
    uint32_t depth;            /* of the tree below it, itself included */
    bool member, test, rooted; /* rooted: a name that began with a dot */
    sf_cel_macro macro;
    uint32_t index; /* COLUMN, LOCAL, MACRO: of its variable */
    sf_bytes name;  /* of the function, field, identifier, or macro's variable */
    struct sf_cel_node **args;
    size_t arg_count;
    sf_cel_value constant;
    const struct sf_cel_type *type;         /* the checker's */
    const struct sf_cel_function *function; /* the checker's */
    const void *prepared;                   /* of a function whose argument is constant: a regular expression */
} sf_cel_node;

/* SF_INVALID: what is wrong, with its line and column; SF_NOMEM. `text` must live as long as the tree. */
sf_status sf__cel_parse(sf_cel_node **out, sf_bytes text, sf_arena *arena, sf_error *err);

/* "line 1, column 5: found no ..." */
sf_status sf__cel_complain(sf_error *err, sf_bytes text, uint32_t pos, const char *fmt, ...) SF_PRINTF(4, 5);

#endif
