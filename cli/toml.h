/* TOML files, by a library that is written in C++: this is all that the command needs of it. One thread. */
#ifndef SHARDY_TOML_H
#define SHARDY_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct toml_document;

enum toml_kind { TOML_NONE, TOML_TEXT, TOML_INTEGER, TOML_REAL, TOML_BOOL, TOML_OTHER };

struct toml_value {
    enum toml_kind kind;
    const char *text; /* valid as long as the document; without zeros */
    int64_t integer;
    double real;
    bool boolean;
};

/* NULL, with the place and the cause in `why`. Freed with toml_free(). */
struct toml_document *toml_parse(const char *text, size_t n, char *why, size_t why_size);
void toml_free(struct toml_document *t); /* takes NULL */
bool toml_has_table(const struct toml_document *t, const char *table);
struct toml_value toml_get(const struct toml_document *t, const char *table, const char *key);

/* Tells of each key of `table` (NULL: of the document), in the order of their names. */
typedef void (*toml_key_fn)(void *of, const char *key);
void toml_each_key(const struct toml_document *t, const char *table, toml_key_fn tell, void *of);

#ifdef __cplusplus
}
#endif
#endif
