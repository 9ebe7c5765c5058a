/* Options of the library from dictionaries. Each struct has one table, which says what its fields are called
 * in Python: a new option is a row there. */
#ifndef SHARDYFUSION_PYTHON_OPTIONS_H
#define SHARDYFUSION_PYTHON_OPTIONS_H

#include "state.h"

struct option {
    const char *name;
    bool (*take)(PyObject *o, const struct option *of, void *out); /* false with an exception. Texts are borrowed */
    size_t at;                                                     /* of the field in the struct */
    const char *const *words;                                      /* option_word's, up to NULL */
};

/* The end of a table is a row without a name. A field whose name is missing, or is None, is left alone. Names
 * that no row has are for others. */
bool options_take(PyObject *dict, const struct option *table, void *out);

bool option_text(PyObject *o, const struct option *of, void *out);  /* const char * */
bool option_bool(PyObject *o, const struct option *of, void *out);  /* bool */
bool option_count(PyObject *o, const struct option *of, void *out); /* uint32_t; what is beyond either end is that end */
bool option_u32(PyObject *o, const struct option *of, void *out);   /* uint32_t */
bool option_u64(PyObject *o, const struct option *of, void *out);   /* uint64_t */
bool option_i32(PyObject *o, const struct option *of, void *out);   /* int32_t; as option_count */
bool option_i64(PyObject *o, const struct option *of, void *out);   /* int64_t, which may be below 0 */
bool option_ms(PyObject *o, const struct option *of, void *out);    /* int64_t */
bool option_double(PyObject *o, const struct option *of, void *out); /* double */
bool option_word(PyObject *o, const struct option *of, void *out);   /* an enum: one of the words, by its place */

/* reader_options.c */
bool reader_options_from_python(PyObject *dict, sf_reader_options *o, sf_s3_options s3[2]);

#endif
