/* What stores had to repeat, what they have done, and what became of late answers, as Python sees it: taken out by whoever wants to tell a metrics collector. The engine's
 * threads only put events in, so no Python runs there. */
#include "convert.h"
#include "module.h"
#include "operation.h"
#include "store/events.h"

#define SOME 32u

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

/* (name of the event, its payload); takes the payload over, which may be NULL with an exception. More than one: so many of them. */
static bool append_event(PyObject *list, const char *name, PyObject *payload, uint64_t count)
{
    PyObject *number = payload && count > 1 ? PyLong_FromUnsignedLongLong(count) : NULL;
    bool ok = payload && (count == 1 || (number && PyDict_SetItemString(payload, "count", number) == 0));
    PyObject *event = ok ? Py_BuildValue("(sO)", name, payload) : NULL;

    ok = event && PyList_Append(list, event) == 0;
    Py_XDECREF(number);
    Py_XDECREF(payload);
    Py_XDECREF(event);
    return ok;
}

static const char *const hedge_outcomes[] = {
    [SF_STORE_HEDGE] = "sent",
    [SF_STORE_HEDGE_BUDGET] = "refused_budget",
    [SF_STORE_HEDGE_SICK] = "refused_sick",
    [SF_STORE_HEDGE_NO_ROOM] = "refused_room",
    [SF_STORE_HEDGE_WON] = "won",
};

static bool append_noted(PyObject *list, const sf_store_event *e)
{
    if (e->kind >= SF_STORE_HEDGE)
        return append_event(list, "s3.hedge",
                            Py_BuildValue("{s:s,s:s}", "operation", e->operation, "outcome", hedge_outcomes[e->kind]),
                            e->count);
    if (e->kind == SF_STORE_RETRY)
        return append_event(list, "s3.retry",
                            Py_BuildValue("{s:s,s:I,s:d}", "operation", e->operation, "attempt", (unsigned)e->attempts,
                                          "delay_s", (double)e->delay_ms / 1000),
                            e->count);
    return append_event(list, "s3.retry_exhausted",
                        Py_BuildValue("{s:s,s:I}", "operation", e->operation, "attempts", (unsigned)e->attempts),
                        e->count);
}

static bool append_request(PyObject *list, const sf_store_request *r)
{
    PyObject *seconds = r->duration_us < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble((double)r->duration_us / 1e6);

    return append_event(list, "s3.request",
                        Py_BuildValue("{s:s,s:i,s:I,s:K,s:N}", "operation", r->operation, "status", r->http_status,
                                      "attempts", (unsigned)r->attempts, "bytes", (unsigned long long)r->bytes,
                                      "duration_s", seconds),
                        r->count);
}

PyObject *store_events_noted(PyObject *o)
{
    sf_store_events *events = ((struct py_store_events *)o)->events;
    sf_store_event some[SOME];
    sf_store_request requests[SOME];
    PyObject *list;
    size_t n = SOME;

    if (!sf__store_events_any(events))
        return NULL;
    list = PyList_New(0);
    while (list && n == SOME) {
        n = sf_store_events_take(events, some, SOME);
        for (size_t i = 0; list && i < n; i++)
            if (!append_noted(list, &some[i]))
                Py_CLEAR(list);
    }
    for (n = SOME; list && n == SOME;) {
        n = sf_store_events_take_requests(events, requests, SOME);
        for (size_t i = 0; list && i < n; i++)
            if (!append_request(list, &requests[i]))
                Py_CLEAR(list);
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
    static char *names[] = {"requests", NULL};
    struct py_store_events *self;
    sf_error err;
    int requests = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|p:StoreEvents", names, &requests))
        return NULL;
    self = (struct py_store_events *)type->tp_alloc(type, 0);
    if (self && (sf_store_events_new(&self->events, NULL, &err) != SF_OK ||
                 (requests && sf_store_events_want_requests(self->events, &err) != SF_OK))) {
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
    {"take", events_take, METH_NOARGS, "take($self)\n--\n\nMoves out what has been noted since the last time."},
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
