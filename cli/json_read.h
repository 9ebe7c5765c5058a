/* Reading of JSON texts: the members of one object, without building anything. One thread. */
#ifndef SHARDY_JSON_READ_H
#define SHARDY_JSON_READ_H

#include "text.h"

/* Where the next member is looked for. {text, end} of a whole text before the first one. */
struct json_cursor {
    const char *p, *end;
    bool begun;
};

struct json_member {
    sf_bytes name;  /* between its quotes, escapes and all */
    sf_bytes value; /* the JSON text */
};

/* 1: *m is the next member of the object; 0: there is none, and nothing stands behind the object; -1: it is no JSON object. */
int json_next(struct json_cursor *c, struct json_member *m);
/* The first member of that name, as JSON; empty when there is none. */
sf_bytes json_member(sf_bytes object, const char *name);
/* The code point of "\uXXXX" at `p`, or of the pair of them, and its length; 0: there is none, or half a pair. */
size_t json_escaped_code(const uint8_t *p, size_t left, unsigned *code);
/* What a JSON string says; false when it is no string, or half a pair of surrogates. Without its quotes: `bare`. */
bool json_unquote(struct text *t, sf_bytes string, bool bare);

#endif
