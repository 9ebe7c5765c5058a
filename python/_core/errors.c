/* The engine's errors as the package's exceptions: the package's own hook decides which. */
#include "convert.h"
#include "operation.h"

void raise_exception(PyObject *exception)
{
    if (!exception)
        return;
    if (PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else
        PyErr_Format(PyExc_TypeError, "the error hook returned %.200s, not an exception", Py_TYPE(exception)->tp_name);
    Py_DECREF(exception);
}

PyObject *raised(void)
{
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (value && tb)
        PyException_SetTraceback(value, tb);
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
}

static PyObject *db_id_or_none(int32_t db_id)
{
    if (db_id < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(db_id);
}

PyObject *exception_of(native_state *st, const sf_error *e)
{
    PyObject *args, *kwargs, *exception = NULL;
    const char *message = e->message[0] ? e->message : sf_status_text(e->code);

    if (e->code == SF_NOMEM && !st->error_hook)
        return PyErr_NoMemory();
    if (!st->error_hook)
        return PyObject_CallFunction(PyExc_RuntimeError, "s", message);
    args = Py_BuildValue("(sN)", sf_status_name(e->code), text_to_python(message));
    kwargs = Py_BuildValue("{s:i,s:N,s:N,s:N,s:I,s:O}", "http_status", e->http_status, "db_id", db_id_or_none(e->db_id),
                           "object_url", text_or_none(e->object), "operation", text_or_none(e->operation), "attempts",
                           (unsigned)e->attempts, "retryable", sf_status_is_retryable(e->code) ? Py_True : Py_False);
    if (args && kwargs)
        exception = PyObject_Call(st->error_hook, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return exception;
}

bool status_of_name(const char *name, sf_status *out)
{
    for (int s = SF_WOULD_BLOCK + 1; s < SF_STATUS_COUNT; s++) {
        if (strcmp(sf_status_name((sf_status)s), name) == 0) {
            *out = (sf_status)s;
            return true;
        }
    }
    PyErr_Format(PyExc_ValueError, "no failure is called %s", name);
    return false;
}

void raise_error(native_state *st, const sf_error *e)
{
    raise_exception(exception_of(st, e));
}

PyObject *native_not_copied(PyObject *self, PyObject *unused)
{
    PyObject *name = PyType_GetName(Py_TYPE(self));

    (void)unused;
    if (name)
        PyErr_Format(PyExc_TypeError, "%U objects cannot be copied or pickled: open one in each process", name);
    Py_XDECREF(name);
    return NULL;
}
