/* JSON (RFC 8259), strictly: the text is untrusted. Refused are a BOM, anything but valid UTF-8, raw control characters
 * in strings, lone surrogate escapes, comments, trailing commas and trailing text, and what is too large or too deep.
 *
 * Our own reader rather than cJSON: the formats need strings that hold NUL, integers of any size kept exactly, NaN where
 * the writers of these files let it pass, memory from the caller's allocator, and positions for messages; cJSON has
 * none of these, and takes most of what must be refused. Pure; a document belongs to one thread at a time. */
#ifndef SF_BASE_JSON_H
#define SF_BASE_JSON_H

#include "base/arena.h"
#include "base/strbuf.h"

#define SF_JSON_MAX_DEPTH 128u
/* A node takes 80 bytes: 160 MiB at most. A categorical snapshot of 2^20 tokens still fits. */
#define SF_JSON_MAX_NODES (1u << 21)

typedef enum sf_json_kind {
    SF_JSON_NULL,
    SF_JSON_BOOL,
    SF_JSON_INT,   /* no fraction, no exponent; any number of digits */
    SF_JSON_FLOAT, /* also NaN, Infinity, -Infinity when allowed */
    SF_JSON_STRING,
    SF_JSON_ARRAY,
    SF_JSON_OBJECT
} sf_json_kind;

typedef struct sf_json {
    sf_json_kind kind;
    bool boolean;
    sf_bytes raw; /* the value's source text, without blanks around it */
    sf_bytes key; /* as a member of an object: its name, decoded */
    union {
        sf_bytes str; /* SF_JSON_STRING: decoded, not terminated, may hold NUL */
        struct {
            struct sf_json *first; /* SF_JSON_ARRAY, SF_JSON_OBJECT: in source order, duplicates kept */
            size_t count;
        };
    };
    struct sf_json *next;
} sf_json;

typedef struct sf_json_doc {
    sf_arena arena;
    sf_json *root;
} sf_json_doc;

enum {
    SF_JSON_NAN = 1,             /* take NaN, Infinity, -Infinity as values */
    SF_JSON_LONE_SURROGATES = 2, /* take lone surrogate escapes; they decode to U+FFFD */
};

/* The document borrows `text`. On success *doc must be cleaned up; on failure it needs no clean-up. SF_CORRUPT with the
 * position, or SF_NOMEM. */
sf_status sf__json_parse(sf_json_doc *doc, sf_bytes text, unsigned flags, const sf_allocator *a, sf_error *err);
void sf__json_cleanup(sf_json_doc *doc);

/* The member, NULL when there is none; the last one when there are several. NULL too when `object` is none. */
const sf_json *sf__json_get(const sf_json *object, const char *name);
/* Python's truth: false, null, 0, "", [] and {} are false. */
bool sf__json_is_truthy(const sf_json *v);

/* Appends "s" with its quotes, escaped as Python's json.dumps does by default: ASCII only, \uXXXX in lower case with
 * surrogate pairs. False, with nothing appended, when `s` is not valid UTF-8. */
bool sf__json_write_str(sf_strbuf *out, sf_bytes s) SF_MUST_USE;
/* Appends a parsed value as json.dumps(v, sort_keys=True) does: members by name, ", " and ": " between, of several
 * members with one name the last; numbers keep their own text. SF_NOMEM, or SF_CORRUPT for what is not UTF-8. */
sf_status sf__json_write_sorted(sf_strbuf *out, const sf_json *v, sf_error *err);

#endif
