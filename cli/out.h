/* Where results go, and how: JSON, lines of text, aligned tables, CSV. Nothing is lost unnoticed: out_close()
 * tells. One thread. */
#ifndef SHARDY_OUT_H
#define SHARDY_OUT_H

#include "text.h"

enum out_format {
    FORMAT_JSON,
    FORMAT_JSONL,
    FORMAT_TABLE,
    FORMAT_TEXT,
    FORMAT_CSV,
    FORMAT_TSV
}; /* as --output-format's choices */
enum out_encoding { ENCODE_BASE64, ENCODE_HEX, ENCODE_UTF8, ENCODE_AUTO }; /* as --value-encoding's */

struct settings;

struct out {
    FILE *to;
    const char *name; /* for messages: "Standard output", or the file's */
    enum out_format format;
    bool has_encoding; /* false: by the format */
    enum out_encoding encoding;
    const char *null_repr; /* of a missing value */
    bool terminal, colour;
    size_t width; /* of the terminal; 0: as wide as need be */
    int why;      /* errno of the first write that failed; 0: not known, or none did */
};

/* `colour` is --color's choice: auto, always, never. The other fields stay as they are. */
void out_init(struct out *o, FILE *to, const char *name, uint64_t colour);
/* Columns of the terminal now; 0: it is none. */
size_t out_terminal_width(FILE *to);
void out_write(struct out *o, const struct text *t);
/* Whether writing has failed, or nobody wants it any more: what goes on for long asks. */
bool out_failed(const struct out *o);
/* Flushes; false with a message on standard error, or without one where nobody reads any more. */
bool out_close(struct out *o);

/* How far something is: one line on standard error, where that is a terminal which can take it back, and cut to it. */
bool progress_is_wanted(const struct settings *s);
void progress_show(const char *fmt, ...) SF_PRINTF(1, 2);
void progress_end(void); /* the line goes */

enum out_colour { COLOUR_BOLD, COLOUR_RED, COLOUR_GREEN, COLOUR_YELLOW };
/* Nothing where there are no colours. */
void out_colour(const struct out *o, struct text *t, enum out_colour c);
void out_plain(const struct out *o, struct text *t);

static inline bool out_is_json(const struct out *o)
{
    return o->format == FORMAT_JSON || o->format == FORMAT_JSONL;
}

/* ------------------------------------------------------------------ JSON ------------------------------------------ */

/* One object, member by member. With FORMAT_JSON indented. */
struct json {
    struct text *to;
    bool pretty;
    int depth;
    bool first;
};

void json_begin(struct json *j, struct text *to, enum out_format format);
void json_open(struct json *j, const char *name, char bracket); /* '{' or '['; name NULL inside an array */
void json_close(struct json *j, char bracket);
void json_text(struct json *j, const char *name, const char *text); /* NULL is null */
void json_bytes(struct json *j, const char *name, sf_bytes text);
void json_raw(struct json *j, const char *name, const char *json_or_null); /* a JSON text; NULL is null */
void json_uint(struct json *j, const char *name, uint64_t v);
void json_real(struct json *j, const char *name, double v); /* one digit */
void json_bool(struct json *j, const char *name, bool v);
void json_end(struct json *j);

/* ------------------------------------------------------------------ rows ------------------------------------------ */

enum cell_kind {
    CELL_NONE,    /* JSON: null; else empty */
    CELL_ABSENT,  /* JSON: no such member */
    CELL_MISSING, /* a value that is not there: null_repr */
    CELL_TEXT,
    CELL_STRING, /* bytes that are text, perhaps with zeros */
    CELL_UINT,
    CELL_BOOL,
    CELL_JSON,   /* a JSON text of the snapshot's */
    CELL_VALUE,  /* bytes, by the encoding of values */
    CELL_SIZE,   /* bytes: for people "1.4 GiB" */
    CELL_TIME,   /* microseconds since 1970 */
    CELL_SECONDS /* for people "3m 20s" */
};

struct cell {
    enum cell_kind kind;
    union {
        const char *text;
        uint64_t number;
        int64_t time_us;
        double seconds;
        sf_bytes bytes;
    };
};

struct column {
    const char *name;    /* in JSON and CSV; NULL: not in them */
    const char *heading; /* of the table; NULL: not in it */
    bool right;          /* aligned */
    const char *python;  /* FORMAT_TEXT writes this in front of the value in capitals: an enum's class; NULL:
                            as it is */
};

/* As people read it; escaped in text and tables, where a row is a line, and on a terminal. */
void cell_put(struct text *t, const struct out *o, const struct cell *c);
void cell_json(struct json *j, const char *name, const struct out *o, const struct cell *c);

/* One line of text of a row. */
typedef void (*line_fn)(struct text *t, const struct out *o, const struct cell *cells);

/* One object {"op": OP, ...}; as text by `line`, or NAME=VALUE lines when it is NULL. */
void out_record(struct out *o, const char *op, const struct column *columns, size_t n, const struct cell *cells,
                line_fn line);

/* Rows, as many as there are. JSON: {"op": OP, MEMBER: [...]}, or without MEMBER the bare rows, one a line in
 * JSONL. */
struct list {
    struct out *out;
    const char *op, *member;
    const struct column *columns;
    size_t n;
    line_fn line;
    const char *empty; /* as text, when there is no row; NULL: nothing */
    /* private */
    struct json json;
    struct text text;
    char **held; /* cells of a table that wait until the widths are known */
    size_t held_rows, rows;
    size_t widths[16];
    bool left_out[16]; /* has nothing in it, and the terminal is narrow */
    bool headed;
};
void list_begin(struct list *l);
void list_row(struct list *l, const struct cell *cells);
void list_end(struct list *l);

#endif
