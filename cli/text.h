/* Memory and text of a command that ends when it has none: what these return is never NULL. One thread. */
#ifndef SHARDY_TEXT_H
#define SHARDY_TEXT_H

#include <stdio.h>

#include "shardyfusion/base.h"

/* Freed with free(). Without memory the process ends with a message and 1. */
void *cli_alloc(size_t count, size_t size); /* zeroed */
void *cli_realloc(void *p, size_t count, size_t size);
char *cli_strdup(const char *text);
char *cli_strndup(const char *text, size_t n);
char *cli_format(const char *fmt, ...) SF_PRINTF(1, 2);

/* Text that grows. {0} is an empty one; `p` is terminated once anything was added. */
struct text {
    char *p;
    size_t n, cap;
};

void text_add(struct text *t, const void *p, size_t n);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);
void text_printf(struct text *t, const char *fmt, ...) SF_PRINTF(2, 3);
/* As a terminal may have it (sf_text_escape). */
void text_escaped(struct text *t, const void *p, size_t n);
/* A code point in UTF-8. */
void text_code(struct text *t, unsigned code);
void text_free(struct text *t);
static inline const char *text_str(const struct text *t)
{
    return t->p ? t->p : "";
}

void text_base64(struct text *t, sf_bytes b);
void text_hex(struct text *t, sf_bytes b);
/* Bytes that are no UTF-8 become U+FFFD. */
void text_utf8(struct text *t, sf_bytes b);
bool text_is_utf8(sf_bytes b);
/* UTF-8 without control characters other than tab and line ends. */
bool text_is_printable(sf_bytes b);

/* The whole of a file, or of standard input for "-"; false with a message. */
bool text_read_file(struct text *t, const char *path, size_t max_bytes, char *why, size_t why_size);

/* Microseconds since 1970 as 2026-11-23T22:10:48.623557+00:00. */
void text_time(struct text *t, int64_t us);
/* "3m 20s", "5d 3h"; below a minute with one digit. */
void text_duration(struct text *t, double seconds);
/* "1.4 GiB". */
void text_size(struct text *t, uint64_t bytes);

/* How many columns of a terminal a text takes. */
size_t text_columns(const char *s);
/* How unlike two names are: the number of letters to change, add, drop or swap. For "did you mean". */
size_t text_distance(const char *a, const char *b);

#endif
