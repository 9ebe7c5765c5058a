/* Arrow streams that Python hands in, and what of their rows is the value. */
#ifndef SHARDYFUSION_PYTHON_ARROW_INPUT_H
#define SHARDYFUSION_PYTHON_ARROW_INPUT_H

#include "convert.h"

#include "writer/arrow_rows.h"

/* The stream of anything with __arrow_c_stream__, as long as *capsule (a new reference) lives. NULL with an exception, and without a
 * capsule. */
struct ArrowArrayStream *arrow_stream_from_python(PyObject *records, PyObject **capsule);

/* A text is the name of a column; a tuple of texts those of the members of a JSON object; True: its members are all columns. */
struct parsed_value {
    sf_arrow_value value;
    const char **names;
};

/* To be cleaned up in any case; texts are borrowed. False with an exception. */
bool value_columns_from_python(PyObject *o, struct parsed_value *p);
void parsed_value_cleanup(struct parsed_value *p);

#endif
