/* Rows of scans as Arrow data, without an object per row: batches as pairs of capsules, and streams that ask for them. */
#include "convert.h"
#include "module.h"
#include "objects.h"

#include <errno.h>
#include <string.h>

static void schema_free(PyObject *capsule)
{
    struct ArrowSchema *s = PyCapsule_GetPointer(capsule, "arrow_schema");

    if (s && s->release)
        s->release(s);
    PyMem_RawFree(s);
}

static void array_free(PyObject *capsule)
{
    struct ArrowArray *a = PyCapsule_GetPointer(capsule, "arrow_array");

    if (a && a->release)
        a->release(a);
    PyMem_RawFree(a);
}

static PyObject *schema_capsule(native_state *st, sf_key_encoding keys)
{
    struct ArrowSchema *s = PyMem_RawCalloc(1, sizeof(*s));
    PyObject *capsule;
    sf_error err;

    if (!s)
        return PyErr_NoMemory();
    if (sf_rows_arrow_schema(s, keys, &err) != SF_OK) {
        PyMem_RawFree(s);
        raise_error(st, &err);
        return NULL;
    }
    capsule = PyCapsule_New(s, "arrow_schema", schema_free);
    if (!capsule) {
        s->release(s);
        PyMem_RawFree(s);
    }
    return capsule;
}

static PyObject *array_capsule(struct ArrowArray *array)
{
    struct ArrowArray *a = PyMem_RawCalloc(1, sizeof(*a));
    PyObject *capsule = a ? PyCapsule_New(a, "arrow_array", array_free) : PyErr_NoMemory();

    if (!capsule) {
        PyMem_RawFree(a);
        return NULL;
    }
    *a = *array;
    array->release = NULL; /* it has moved */
    return capsule;
}

PyObject *arrow_to_python(native_state *st, struct ArrowArray *array, sf_key_encoding keys)
{
    Py_ssize_t n = (Py_ssize_t)array->length;
    PyObject *schema = schema_capsule(st, keys), *capsule = schema ? array_capsule(array) : NULL;

    if (!capsule) {
        Py_XDECREF(schema);
        array->release(array);
        return NULL;
    }
    return Py_BuildValue("(NNn)", schema, capsule, n);
}

bool arrow_keys_from_python(const char *name, sf_key_encoding *out)
{
    for (int e = SF_KEY_U64BE; e <= SF_KEY_RAW; e++)
        if (strcmp(name, encoding_name((sf_key_encoding)e)) == 0) {
            *out = (sf_key_encoding)e;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "no key encoding: %s", name);
    return false;
}

/* ---------------------------------------------------------------- streams ---------------------------------------- */

/* Whoever reads it may be on any thread, without the GIL. */
struct row_stream {
    PyObject *next; /* gives a batch or None; NULL: over */
    sf_key_encoding keys;
    char error[512];
};

static int stream_failed(struct row_stream *s)
{
    PyObject *type, *value, *tb, *text;
    const char *utf8 = NULL;

    PyErr_Fetch(&type, &value, &tb);
    text = value ? PyObject_Str(value) : NULL;
    if (text)
        utf8 = PyUnicode_AsUTF8(text);
    snprintf(s->error, sizeof(s->error), "%s", utf8 ? utf8 : "reading rows failed");
    Py_XDECREF(text);
    PyErr_Clear();
    PyErr_Restore(type, value, tb);
    PyErr_Clear();
    return EIO;
}

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out)
{
    struct row_stream *s = stream->private_data;
    sf_error err;

    if (sf_rows_arrow_schema(out, s->keys, &err) == SF_OK)
        return 0;
    snprintf(s->error, sizeof(s->error), "%.500s", err.message);
    return ENOMEM;
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out)
{
    struct row_stream *s = stream->private_data;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *batch = s->next ? PyObject_CallNoArgs(s->next) : Py_NewRef(Py_None);
    struct ArrowArray *a = NULL;
    int rc = 0;

    *out = (struct ArrowArray){0};
    if (batch && batch != Py_None && PyTuple_Check(batch) && PyTuple_GET_SIZE(batch) == 3)
        a = PyCapsule_GetPointer(PyTuple_GET_ITEM(batch, 1), "arrow_array");
    if (a) {
        *out = *a;
        a->release = NULL; /* it has moved */
    } else if (batch != Py_None) {
        rc = stream_failed(s);
    }
    Py_XDECREF(batch);
    PyGILState_Release(gil);
    return rc;
}

static const char *stream_error(struct ArrowArrayStream *stream)
{
    return ((struct row_stream *)stream->private_data)->error;
}

static void stream_release(struct ArrowArrayStream *stream)
{
    struct row_stream *s = stream->private_data;
    PyGILState_STATE gil = PyGILState_Ensure();

    Py_CLEAR(s->next);
    PyGILState_Release(gil);
    PyMem_RawFree(s);
    stream->release = NULL;
}

static void stream_free(PyObject *capsule)
{
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");

    if (stream && stream->release)
        stream->release(stream);
    PyMem_RawFree(stream);
}

PyObject *native_arrow_stream(PyObject *module, PyObject *args)
{
    struct ArrowArrayStream *stream;
    struct row_stream *s;
    const char *keys;
    PyObject *next, *capsule;

    (void)module;
    if (!PyArg_ParseTuple(args, "Os:arrow_stream", &next, &keys))
        return NULL;
    stream = PyMem_RawCalloc(1, sizeof(*stream));
    s = PyMem_RawCalloc(1, sizeof(*s));
    if (!stream || !s || !arrow_keys_from_python(keys, &s->keys)) {
        PyMem_RawFree(stream);
        PyMem_RawFree(s);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    s->next = Py_NewRef(next);
    *stream = (struct ArrowArrayStream){.get_schema = stream_schema,
                                        .get_next = stream_next,
                                        .get_last_error = stream_error,
                                        .release = stream_release,
                                        .private_data = s};
    capsule = PyCapsule_New(stream, "arrow_array_stream", stream_free);
    if (!capsule) {
        stream_release(stream);
        PyMem_RawFree(stream);
    }
    return capsule;
}
