/* The tokens of a CEL expression. Pure; any thread. */
#ifndef SF_SNAPSHOT_CEL_LEXER_H
#define SF_SNAPSHOT_CEL_LEXER_H

#include "base/arena.h"
#include "snapshot/cel/value.h"

typedef enum sf_cel_token_kind {
    SF_CEL_T_END,
    SF_CEL_T_IDENT,   /* reserved words, too: the parser knows where they may stand */
    SF_CEL_T_NUMBER,  /* `text`: int, uint or double as written */
    SF_CEL_T_LITERAL, /* string or bytes: `value` */
    SF_CEL_T_SIGN,    /* `sign`: one character, or two in big-endian order: '&&' */
} sf_cel_token_kind;

#define SF_CEL_SIGN2(a, b) ((unsigned)(a) << 8 | (unsigned)(b))

typedef struct sf_cel_token {
    sf_cel_token_kind kind;
    uint32_t pos;
    sf_bytes text;
    unsigned sign;
    sf_cel_value value;
} sf_cel_token;

/* The token at `pos` or behind the blanks and comments there; *next is where the one after it begins.
 * SF_INVALID, SF_NOMEM. */
sf_status sf__cel_token(sf_cel_token *out, sf_bytes text, uint32_t pos, uint32_t *next, sf_arena *arena, sf_error *err);

#endif
