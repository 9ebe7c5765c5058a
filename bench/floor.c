/* A Python extension that does nothing but what any client in C would have to: the floors of asyncio, and of a batch.
 *     floor.get(n)             an awaitable whose `await` returns n fresh bytes at once
 *     floor.multi_get(keys, n) a dict with n fresh bytes for each key of a list
 *     floor.drive(co)          runs a coroutine to its end without a loop: what check_instructions.py counts */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct ready {
    PyObject_HEAD
    Py_ssize_t bytes;
};

static PyObject *ready_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *fresh(Py_ssize_t n)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, n);

    if (bytes)
        memset(PyBytes_AS_STRING(bytes), '.', (size_t)n);
    return bytes;
}

static PySendResult ready_send(PyObject *self, PyObject *arg, PyObject **result)
{
    *result = fresh(((struct ready *)self)->bytes);
    return *result ? PYGEN_RETURN : PYGEN_ERROR;
}

/* For whoever does not send. */
static PyObject *ready_next(PyObject *self)
{
    PyObject *result;

    if (ready_send(self, Py_None, &result) == PYGEN_RETURN) {
        PyErr_SetObject(PyExc_StopIteration, result);
        Py_DECREF(result);
    }
    return NULL;
}

static PyAsyncMethods ready_async = {.am_await = ready_self, .am_send = ready_send};
static PyTypeObject ready_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Ready",
    .tp_basicsize = sizeof(struct ready),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &ready_async,
    .tp_iter = ready_self,
    .tp_iternext = ready_next,
};

static PyObject *floor_get(PyObject *module, PyObject *bytes)
{
    Py_ssize_t n = PyLong_AsSsize_t(bytes);
    struct ready *ready;

    if (n < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a count is at least 0");
    ready = PyObject_New(struct ready, &ready_type);
    if (ready)
        ready->bytes = n;
    return (PyObject *)ready;
}

static PyObject *floor_multi_get(PyObject *module, PyObject *args)
{
    PyObject *keys, *answers, *value;
    Py_ssize_t bytes;
    int failed = 0;

    if (!PyArg_ParseTuple(args, "O!n:multi_get", &PyList_Type, &keys, &bytes))
        return NULL;
    answers = PyDict_New();
    for (Py_ssize_t i = 0; answers && !failed && i < PyList_GET_SIZE(keys); i++) {
        value = fresh(bytes);
        failed = !value || PyDict_SetItem(answers, PyList_GET_ITEM(keys, i), value) < 0;
        Py_XDECREF(value);
    }
    if (failed)
        Py_CLEAR(answers);
    return answers;
}

/* Not inlined: valgrind is told its name. */
static __attribute__((noinline, noclone)) PyObject *floor_drive(PyObject *module, PyObject *coroutine)
{
    PyObject *result = NULL;
    PySendResult sent;

    while ((sent = PyIter_Send(coroutine, Py_None, &result)) == PYGEN_NEXT)
        Py_DECREF(result); /* it gave way to a loop that is not there */
    return sent == PYGEN_RETURN ? result : NULL;
}

static PyMethodDef methods[] = {
    {"get", floor_get, METH_O, "get(bytes: int): an awaitable that returns as many bytes at once."},
    {"multi_get", floor_multi_get, METH_VARARGS, "multi_get(keys: list, bytes: int): fresh bytes for each key."},
    {"drive", floor_drive, METH_O, "drive(coroutine): runs it to its end."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "floor", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit_floor(void);
PyMODINIT_FUNC PyInit_floor(void)
{
    return PyType_Ready(&ready_type) < 0 ? NULL : PyModule_Create(&definition);
}
