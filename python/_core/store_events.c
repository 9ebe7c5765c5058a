/* What stores had to repeat, as Python sees it: taken out by whoever wants to tell a metrics collector. The engine's
 * threads only put events in, so no Python runs there. */
#include "convert.h"
#include "module.h"
#include "operation.h"

struct py_store_events {
    PyObject_HEAD
    sf_store_events *events;
};

bool store_events_from_python(PyObject *o, sf_store_events **out)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(o), &native_module); /* of a type of somebody else's: TypeError */

    if (!module)
        return false;
    if (Py_TYPE(o) != ((native_state *)PyModule_GetState(module))->store_events_type) {
        PyErr_Format(PyExc_TypeError, "events must be StoreEvents, not %.200s", Py_TYPE(o)->tp_name);
        return false;
    }
    *out = ((struct py_store_events *)o)->events;
    return true;
}

static bool append_event(PyObject *list, const sf_store_event *e)
{
    const char *name = e->kind == SF_STORE_RETRY ? "s3.retry" : "s3.retry_exhausted";
    PyObject *event = Py_BuildValue("(ssIdK)", name, e->operation, (unsigned)e->attempts, (double)e->delay_ms / 1000,
                                    (unsigned long long)e->count);
    bool ok = event && PyList_Append(list, event) == 0;

    Py_XDECREF(event);
    return ok;
}

PyObject *store_events_noted(PyObject *o)
{
    sf_store_events *events = ((struct py_store_events *)o)->events;
    sf_store_event some[32];
    size_t n = sf_store_events_take(events, some, 32);
    PyObject *list;

    if (n == 0)
        return NULL;
    list = PyList_New(0);
    while (list && n > 0) {
        for (size_t i = 0; list && i < n; i++)
            if (!append_event(list, &some[i]))
                Py_CLEAR(list);
        n = list && n == 32 ? sf_store_events_take(events, some, 32) : 0;
    }
    return list;
}

static PyObject *events_take(PyObject *self, PyObject *unused)
{
    PyObject *noted = store_events_noted(self);

    (void)unused;
    return noted || PyErr_Occurred() ? noted : PyTuple_New(0);
}

static PyObject *events_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    struct py_store_events *self;
    sf_error err;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":StoreEvents", names))
        return NULL;
    self = (struct py_store_events *)type->tp_alloc(type, 0);
    if (self && sf_store_events_new(&self->events, NULL, &err) != SF_OK) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void events_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    sf_store_events_release(((struct py_store_events *)self)->events);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef events_methods[] = {
    NOT_COPIED,
    {"take", events_take, METH_NOARGS, "take()\n--\n\nMoves out what has been noted since the last time."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot events_slots[] = {
    {Py_tp_new, events_new},
    {Py_tp_dealloc, events_dealloc},
    {Py_tp_methods, events_methods},
    {0, NULL},
};

PyType_Spec store_events_spec = {
    .name = "shardyfusion._native.StoreEvents",
    .basicsize = sizeof(struct py_store_events),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = events_slots,
};
