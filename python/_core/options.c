/* Options of the library from dictionaries. */
#include "convert.h"
#include "options.h"

bool options_take(PyObject *dict, const struct option *table, void *out)
{
    for (; table->name; table++) {
        PyObject *o = dict_item(dict, table->name);

        if (o ? o != Py_None && !table->take(o, table, (char *)out + table->at) : PyErr_Occurred() != NULL)
            return false;
    }
    return true;
}

bool option_text(PyObject *o, const struct option *of, void *out)
{
    return text_check(o, of->name) && (*(const char **)out = PyUnicode_AsUTF8(o)) != NULL;
}

bool option_bool(PyObject *o, const struct option *of, void *out)
{
    int truth = PyObject_IsTrue(o);

    (void)of;
    *(bool *)out = truth > 0;
    return truth >= 0;
}

/* False, always: why there is no number, with the option's name where it is for its type. */
static bool no_number(PyObject *o, const struct option *of, const char *what)
{
    if (PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s must be %s, not %.200s", of->name, what, Py_TYPE(o)->tp_name);
    else if (PyErr_ExceptionMatches(PyExc_OverflowError))
        PyErr_Format(PyExc_OverflowError, "%s is too large", of->name);
    return false;
}

/* An integer, or the nearest one from `least` to `most`. */
static bool nearest(PyObject *o, const struct option *of, int64_t least, int64_t most, int64_t *out)
{
    int beyond;
    long long v = PyLong_AsLongLongAndOverflow(o, &beyond);

    if (v == -1 && PyErr_Occurred())
        return no_number(o, of, "an integer");
    if (beyond < 0 || v < least)
        v = least;
    else if (beyond > 0 || v > most)
        v = most;
    *out = v;
    return true;
}

bool option_count(PyObject *o, const struct option *of, void *out)
{
    int64_t v = 0;
    bool ok = nearest(o, of, 0, UINT32_MAX, &v);

    *(uint32_t *)out = (uint32_t)v;
    return ok;
}

bool option_i32(PyObject *o, const struct option *of, void *out)
{
    int64_t v = 0;
    bool ok = nearest(o, of, INT32_MIN, INT32_MAX, &v);

    *(int32_t *)out = (int32_t)v;
    return ok;
}

bool option_i64(PyObject *o, const struct option *of, void *out)
{
    long long v = PyLong_AsLongLong(o);

    *(int64_t *)out = v;
    return v != -1 || !PyErr_Occurred() || no_number(o, of, "an integer");
}

static bool whole_number(PyObject *o, const char *name, uint64_t max, uint64_t *out)
{
    unsigned long long v = PyLong_Check(o) ? PyLong_AsUnsignedLongLong(o) : 0;

    if (PyLong_Check(o) && v <= max && !PyErr_Occurred()) {
        *out = v;
        return true;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s must be an integer from 0 to %llu, not %R", name, (unsigned long long)max, o);
    return false;
}

bool option_u64(PyObject *o, const struct option *of, void *out)
{
    return whole_number(o, of->name, UINT64_MAX, out);
}

bool option_u32(PyObject *o, const struct option *of, void *out)
{
    uint64_t v = 0;
    bool ok = whole_number(o, of->name, UINT32_MAX, &v);

    *(uint32_t *)out = (uint32_t)v;
    return ok;
}

bool option_ms(PyObject *o, const struct option *of, void *out)
{
    uint64_t v = 0;
    bool ok = whole_number(o, of->name, INT64_MAX, &v);

    *(int64_t *)out = (int64_t)v;
    return ok;
}

bool option_double(PyObject *o, const struct option *of, void *out)
{
    double v = PyFloat_AsDouble(o);

    *(double *)out = v;
    return v != -1.0 || !PyErr_Occurred() || no_number(o, of, "a number");
}

bool option_word(PyObject *o, const struct option *of, void *out)
{
    const char *word;

    if (!option_text(o, of, &word))
        return false;
    for (int i = 0; of->words[i]; i++)
        if (strcmp(of->words[i], word) == 0) {
            memcpy(out, &i, sizeof(i));
            return true;
        }
    PyErr_Format(PyExc_ValueError, "%s cannot be %s", of->name, word);
    return false;
}
