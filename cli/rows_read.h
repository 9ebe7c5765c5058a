/* Rows of a file of CSV or JSON lines, one by one. One thread. */
#ifndef SHARDY_ROWS_READ_H
#define SHARDY_ROWS_READ_H

#include "text.h"

enum rows_format { ROWS_CSV, ROWS_JSONL }; /* as --input-format's choices */

/* What stands where in a row. */
struct rows_wanted {
    const char *key;   /* column, or member */
    const char *value; /* likewise; NULL: the whole row as a JSON object */
};

struct rows {
    FILE *from;
    const char *name; /* for messages */
    enum rows_format format;
    struct rows_wanted wanted;
    uint64_t line;    /* on which the row begins */
    char why[512];    /* of a failure */
    /* the row */
    struct text key, value;
    /* private */
    uint64_t next_line;
    struct text record; /* fields one after the other; or the line */
    size_t *ends;       /* of the fields */
    size_t count, cap;
    struct text header; /* names, likewise */
    size_t *header_ends;
    size_t header_count, key_at, value_at;
};

/* "-" is standard input. False with `why`. Release with rows_close() in any case. */
bool rows_open(struct rows *r, const char *path, enum rows_format format, const struct rows_wanted *wanted);
/* 1: the next row; 0: there is none; -1: `why`, with the line. */
int rows_next(struct rows *r);
void rows_close(struct rows *r);

/* Into `to`; false: it is none. Base64 with or without its padding. */
bool text_unbase64(struct text *to, sf_bytes text);
bool text_unhex(struct text *to, sf_bytes text);

#endif
