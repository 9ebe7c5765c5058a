#include "arrow_input.h"

#include "module.h"

struct ArrowArrayStream *arrow_stream_from_python(PyObject *records, PyObject **capsule)
{
    struct ArrowArrayStream *stream = NULL;

    *capsule = PyObject_CallMethod(records, "__arrow_c_stream__", NULL);
    if (*capsule)
        stream = PyCapsule_GetPointer(*capsule, "arrow_array_stream");
    if (!stream)
        Py_CLEAR(*capsule);
    return stream;
}

bool value_columns_from_python(PyObject *o, struct parsed_value *p)
{
    Py_ssize_t n = PyTuple_Check(o) ? PyTuple_GET_SIZE(o) : 0;

    *p = (struct parsed_value){.value.kind = SF_ARROW_VALUE_JSON};
    if (PyUnicode_Check(o)) {
        p->value.kind = SF_ARROW_VALUE_COLUMN;
        return text_check(o, "value column") && (p->value.column = PyUnicode_AsUTF8(o)) != NULL;
    }
    if (o == Py_True)
        return true;
    if (!PyTuple_Check(o)) {
        PyErr_SetString(PyExc_TypeError, "the value is a column, a tuple of columns, or True");
        return false;
    }
    p->names = PyMem_Calloc((size_t)n + 1, sizeof(*p->names));
    if (!p->names) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(o, i);

        if (!text_check(name, "value column") || !(p->names[i] = PyUnicode_AsUTF8(name)))
            return false;
    }
    p->value.members = (sf_arrow_members){p->names, (size_t)n};
    return true;
}

void parsed_value_cleanup(struct parsed_value *p)
{
    PyMem_Free(p->names);
}

PyObject *native_takes_json_of(PyObject *module, PyObject *args)
{
    struct ArrowSchema schema = {.release = NULL};
    struct ArrowArrayStream *stream;
    PyObject *records, *columns, *capsule = NULL;
    struct parsed_value parsed;
    bool takes = false;

    (void)module;
    if (!PyArg_ParseTuple(args, "OO:takes_json_of", &records, &columns))
        return NULL;
    if (!value_columns_from_python(columns, &parsed)) {
        if (PyErr_ExceptionMatches(PyExc_ValueError)) /* names that no Arrow column of C can have */
            PyErr_Clear();
    } else if ((stream = arrow_stream_from_python(records, &capsule)) != NULL && !stream->release) {
        takes = true; /* add_arrow() says why not */
    } else if (stream) {
        takes = stream->get_schema(stream, &schema) == 0 && (strcmp(schema.format, "+s") != 0 /* likewise */ ||
                                                             sf__arrow_json_takes(&schema, &parsed.value.members));
        if (schema.release)
            schema.release(&schema);
    }
    parsed_value_cleanup(&parsed);
    Py_XDECREF(capsule);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(takes);
}
