/* Rows of a file of CSV, JSON lines or Parquet, one by one. Parquet is read by a Python with pyarrow (shardyfusion.cli.parquet), which
 * gives them as JSON lines. One thread. */
#ifndef SHARDY_ROWS_READ_H
#define SHARDY_ROWS_READ_H

#include <sys/types.h>

#include "text.h"

enum rows_format { ROWS_CSV, ROWS_JSONL, ROWS_PARQUET }; /* as --input-format's choices */

/* What stands where in a row: names of columns, or of members. */
struct rows_wanted {
    const char *key;
    const char *const *values; /* of the value; none: the whole row */
    size_t value_count;
    bool as_json;               /* the value is a JSON object; always so but for one column */
    const char *const *columns; /* others, for rows_column() */
    size_t column_count;
};

struct rows {
    FILE *from;
    const char *name; /* for messages */
    const char *unit; /* "line", or "row" of Parquet */
    enum rows_format format;
    struct rows_wanted wanted;
    uint64_t line;      /* on which the row begins */
    char why[512];      /* of a failure */
    const char *reason; /* in it, behind the place: of a row's failure */
    bool broken;        /* the failure is not of the row alone: nothing can be read behind it */
    /* the row */
    struct text key, value;
    /* private */
    const char **names; /* all that are wanted: key, values, columns */
    sf_bytes *found;    /* of each, in the record; of JSON as it stands there. Empty without address: it is not there */
    bool *binary;       /* of each: base64 stands for bytes */
    size_t name_count;
    uint64_t next_line;
    struct text record; /* fields one after the other; or the line */
    size_t *ends;       /* of the fields */
    size_t count, cap;
    struct text header; /* names, likewise */
    size_t *header_ends;
    size_t header_count, *at; /* where each name is in it */
    pid_t reader;             /* of Parquet; 0: none */
};

/* "-" is standard input, but not of Parquet. False with `why`. Release with rows_close() in any case. */
bool rows_open(struct rows *r, const char *path, enum rows_format format, const struct rows_wanted *wanted);
/* 1: the next row; 0: there is none; -1: `why`, with the line; unless it is broken, the next call takes the row behind. */
int rows_next(struct rows *r);
/* Of that row: 1: the text of wanted.columns[i] is in `to`; 0: it is not there, or null; -1: `why`. */
int rows_column(struct rows *r, size_t i, struct text *to);
void rows_close(struct rows *r);

/* Into `to`; false: it is none. Base64 with or without its padding. */
bool text_unbase64(struct text *to, sf_bytes text);
bool text_unhex(struct text *to, sf_bytes text);

#endif
