/* Texts, lists and dictionaries. */
#include "convert.h"

bool text_check(PyObject *o, const char *what)
{
    Py_ssize_t n;
    const char *s = PyUnicode_Check(o) ? PyUnicode_AsUTF8AndSize(o, &n) : NULL;

    if (s && strlen(s) == (size_t)n)
        return true;
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s must be a str without NUL, not %R", what, o);
    return false;
}

PyObject *text_to_python(const char *text)
{
    return text ? PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace") : Py_NewRef(Py_None);
}

PyObject *text_or_none(const char *text)
{
    return text_to_python(text && text[0] ? text : NULL);
}

bool dict_put(PyObject *dict, const char *name, PyObject *value)
{
    bool ok = value && PyDict_SetItemString(dict, name, value) == 0;

    Py_XDECREF(value);
    return ok;
}

PyObject *list_to_python(const void *items, size_t count, size_t item_size, PyObject *(*one)(const void *item))
{
    PyObject *list = PyList_New((Py_ssize_t)count);

    for (size_t i = 0; list && i < count; i++) {
        PyObject *item = one((const char *)items + i * item_size);

        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *dict_item(PyObject *dict, const char *name)
{
    PyObject *key = PyUnicode_FromString(name); /* PyDict_GetItemString() would take want of memory for a missing name */
    PyObject *item = key ? PyDict_GetItemWithError(dict, key) : NULL;

    Py_XDECREF(key);
    return item;
}
