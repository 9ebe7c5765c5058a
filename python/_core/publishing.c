/* The rules of publishing, for shards that the engine did not build or snapshots that it does not announce. */
#include "convert.h"
#include "module.h"
#include "writing.h"

#include "writer/gate.h"
#include "writer/own_custom.h"
#include "writer/winner.h"

/* For PyArg_ParseTuple(): "I" would cut what is too large. */
static int take_u32(PyObject *o, void *out)
{
    unsigned long v = PyLong_AsUnsignedLong(o);

    if (v == (unsigned long)-1 && PyErr_Occurred())
        return 0;
    if (v > UINT32_MAX) {
        PyErr_Format(PyExc_OverflowError, "%lu is more than 32 bits hold", v);
        return 0;
    }
    *(uint32_t *)out = (uint32_t)v;
    return 1;
}

/* Of (db_id, attempt, db_url, content_hash=None) or of a db_id; texts are borrowed. False with an exception. */
static bool attempt_from_python(PyObject *o, sf_attempt *out)
{
    long long db_id;
    uint32_t attempt = 0;
    const char *db_url = NULL, *content_hash = NULL;

    if (PyTuple_Check(o)) {
        if (!PyArg_ParseTuple(o, "LO&z|z", &db_id, take_u32, &attempt, &db_url, &content_hash))
            return false;
    } else {
        db_id = PyLong_AsLongLong(o);
        if (db_id == -1 && PyErr_Occurred())
            return false;
    }
    *out = (sf_attempt){.db_id = db_id, .attempt = attempt, .db_url = db_url, .content_hash = content_hash};
    return true;
}

/* To be freed with sf__free(). `given` is a tuple, which keeps the texts. NULL with an exception. */
static sf_attempt *attempts_from_python(PyObject *given)
{
    size_t n = (size_t)PyTuple_GET_SIZE(given);
    sf_attempt *attempts = sf__calloc(&sf__allocator_default, n + 1, sizeof(*attempts));
    bool ok = attempts != NULL;

    if (!ok)
        PyErr_NoMemory();
    for (size_t i = 0; ok && i < n; i++)
        ok = attempt_from_python(PyTuple_GET_ITEM(given, (Py_ssize_t)i), &attempts[i]);
    if (ok)
        return attempts;
    sf__free(&sf__allocator_default, attempts);
    return NULL;
}

static PyObject *index_to_python(const void *item)
{
    return PyLong_FromSize_t(*(const size_t *)item);
}

PyObject *native_choose_winners(PyObject *module, PyObject *args)
{
    const sf_allocator *a = &sf__allocator_default;
    PyObject *given, *tuple, *list = NULL;
    sf_error err = SF_ERROR_INIT;
    size_t *indexes, count;
    sf_attempt *attempts;
    uint32_t num_dbs;

    if (!PyArg_ParseTuple(args, "OO&:choose_winners", &given, take_u32, &num_dbs))
        return NULL;
    tuple = PySequence_Tuple(given);
    attempts = tuple ? attempts_from_python(tuple) : NULL;
    if (attempts) {
        if (sf__winners_choose(&indexes, &count, attempts, (size_t)PyTuple_GET_SIZE(tuple), num_dbs, a, &err) == SF_OK) {
            list = list_to_python(indexes, count, sizeof(*indexes), index_to_python);
            sf__free(a, indexes);
        } else {
            raise_error(PyModule_GetState(module), &err);
        }
        sf__free(a, attempts);
    }
    Py_XDECREF(tuple);
    return list;
}

PyObject *native_check_empty_shards(PyObject *module, PyObject *args)
{
    PyObject *given, *tuple, *result = NULL;
    sf_error err = SF_ERROR_INIT;
    uint32_t num_dbs, most;
    sf_attempt *winners;

    if (!PyArg_ParseTuple(args, "OO&O&:check_empty_shards", &given, take_u32, &num_dbs, take_u32, &most))
        return NULL;
    tuple = PySequence_Tuple(given);
    winners = tuple ? attempts_from_python(tuple) : NULL;
    if (winners) {
        if (sf__gate_check_empty_shards(winners, (size_t)PyTuple_GET_SIZE(tuple), num_dbs, most, &err) == SF_OK)
            result = Py_NewRef(Py_None);
        else
            raise_error(PyModule_GetState(module), &err);
        sf__free(&sf__allocator_default, winners);
    }
    Py_XDECREF(tuple);
    return result;
}

PyObject *native_check_rows_share(PyObject *module, PyObject *args)
{
    unsigned long long rows, previous_rows;
    sf_error err = SF_ERROR_INIT;
    double least, most;

    if (!PyArg_ParseTuple(args, "KKdd:check_rows_share", &rows, &previous_rows, &least, &most))
        return NULL;
    if (sf__gate_check_rows(rows, previous_rows, least, most, &err) == SF_OK)
        Py_RETURN_NONE;
    raise_error(PyModule_GetState(module), &err);
    return NULL;
}

static PyObject *own_custom_to_python(const sf_own_custom *c)
{
    PyObject *text = NULL;
    sf_strbuf out;

    sf__strbuf_init(&out, &sf__allocator_default);
    sf__strbuf_putc(&out, '{');
    sf__own_custom_write(&out, c);
    sf__strbuf_putc(&out, '}');
    if (out.failed)
        PyErr_NoMemory();
    else
        text = PyUnicode_FromStringAndSize(out.s, (Py_ssize_t)out.n);
    sf__strbuf_cleanup(&out);
    return text;
}

PyObject *native_own_custom(PyObject *module, PyObject *args)
{
    PyObject *sqlite_dict, *shards, *tuple = NULL, *text = NULL;
    sf_sqlite_options sqlite;
    sf_own_custom c = {.backend = SF_BACKEND_SLATEDB, .sqlite = &sqlite};
    sf_attempt *attempts = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "OO:own_custom", &sqlite_dict, &shards) ||
        !sqlite_options_from_python(sqlite_dict, &sqlite))
        return NULL;
    if (sqlite_dict != Py_None)
        c.backend = SF_BACKEND_SQLITE;
    if (shards != Py_None) {
        tuple = PySequence_Tuple(shards);
        attempts = tuple ? attempts_from_python(tuple) : NULL;
        c.shards = attempts;
        c.count = tuple ? (size_t)PyTuple_GET_SIZE(tuple) : 0;
    }
    if (shards == Py_None || attempts)
        text = own_custom_to_python(&c);
    sf__free(&sf__allocator_default, attempts);
    Py_XDECREF(tuple);
    return text;
}
