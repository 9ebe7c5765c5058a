/* Whom a reader tells of the look-ups that went straight to the engine: the metrics collector, called from
 * here, with arguments that are made once. The package's Metrics is asked only for what is rare: to tell what
 * stores have noted, and when the collector has failed. */
#include "state.h"

#define NS_PER_MS 1000000u

static bool is_none(PyObject *metrics)
{
    return !metrics || metrics == Py_None;
}

bool observer_init(native_state *st, struct observer *o, PyObject *metrics)
{
    static const char *const names[] = {[OBSERVER_COLLECTOR] = "collector",
                                        [OBSERVER_STORE_EVENTS] = "store_events",
                                        [OBSERVER_GET] = "get_event",
                                        [OBSERVER_MULTI_GET] = "multi_get_event"};
    sf_store_events *events;

    *o = (struct observer){{NULL}};
    if (is_none(metrics))
        return true;
    o->parts[OBSERVER_METRICS] = Py_NewRef(metrics);
    for (size_t i = OBSERVER_COLLECTOR; i <= OBSERVER_MULTI_GET; i++)
        if (!(o->parts[i] = PyObject_GetAttrString(metrics, names[i])))
            goto fail;
    if (!store_events_from_python(o->parts[OBSERVER_STORE_EVENTS], &events))
        goto fail;
    o->parts[OBSERVER_FOUND] = Py_BuildValue("{OiOO}", st->name_duration_ms, 0, st->name_found, Py_True);
    o->parts[OBSERVER_MISSED] = Py_BuildValue("{OiOO}", st->name_duration_ms, 0, st->name_found, Py_False);
    o->parts[OBSERVER_BATCH] = Py_BuildValue("{OiOi}", st->name_duration_ms, 0, st->name_num_keys, 0);
    if (o->parts[OBSERVER_FOUND] && o->parts[OBSERVER_MISSED] && o->parts[OBSERVER_BATCH])
        return true;
fail:
    observer_clear(o);
    return false;
}

int observer_traverse(const struct observer *o, visitproc visit, void *arg)
{
    for (size_t i = 0; i < OBSERVER_PARTS; i++)
        Py_VISIT(o->parts[i]);
    return 0;
}

void observer_clear(struct observer *o)
{
    for (size_t i = 0; i < OBSERVER_PARTS; i++) /* first the one that says whether there is anybody */
        Py_CLEAR(o->parts[i]);
}

/* What stores have noted comes before any other event. False with an exception. */
static bool tell_noted(const struct observer *o)
{
    PyObject *noted = store_events_noted(o->parts[OBSERVER_STORE_EVENTS]);
    PyObject *told = noted ? PyObject_CallMethod(o->parts[OBSERVER_METRICS], "tell_of", "O", noted) : NULL;

    Py_XDECREF(noted);
    Py_XDECREF(told);
    return told || !PyErr_Occurred();
}

/* The exception goes to the log, but for what ends programs: that stays. */
static SF_COLD bool collector_failed(const struct observer *o, PyObject *event)
{
    PyObject *type, *error, *tb, *logged;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Fetch(&type, &error, &tb);
    PyErr_NormalizeException(&type, &error, &tb);
    logged = PyObject_CallMethod(o->parts[OBSERVER_METRICS], "collector_failed", "OO", event,
                                 error ? error : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(tb);
    Py_XDECREF(logged);
    return logged != NULL;
}

/* A copy of what most look-ups say, which is cheaper than a dict made anew. NULL with an exception. */
static PyObject *payload_of(native_state *st, PyObject *usual, uint64_t ms)
{
    PyObject *payload = PyDict_Copy(usual), *duration;
    bool ok;

    if (!payload || ms == 0)
        return payload;
    duration = PyLong_FromUnsignedLongLong(ms);
    ok = duration && PyDict_SetItem(payload, st->name_duration_ms, duration) == 0;
    Py_XDECREF(duration);
    if (!ok)
        Py_CLEAR(payload);
    return payload;
}

/* Without `payload` an exception is set. Takes over the look-up's result, which it returns unless there is an
 * exception. */
static PyObject *emit(native_state *st, const struct observer *o, PyObject *event, PyObject *payload,
                      PyObject *result)
{
    PyObject *args[] = {o->parts[OBSERVER_COLLECTOR], event, payload}, *told = NULL;

    if (!payload) {
        Py_DECREF(result);
        return NULL;
    }
    for (size_t i = 0; i < 2; i++) /* what is called may attach another observer */
        Py_INCREF(args[i]);
    if (tell_noted(o))
        told = PyObject_VectorcallMethod(st->name_emit, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (!told && !collector_failed(o, event))
        Py_CLEAR(result);
    Py_XDECREF(told);
    for (size_t i = 0; i < 2; i++)
        Py_DECREF(args[i]);
    return result;
}

/* Whether a payload that the collector was given is nobody else's, and still what it was. */
static bool can_serve_again(PyObject *payload, PyObject *usual)
{
    PyObject *name, *value, *usual_name, *usual_value;
    Py_ssize_t at = 0, usual_at = 0;

    if (Py_REFCNT(payload) != 1 || PyDict_GET_SIZE(payload) != PyDict_GET_SIZE(usual))
        return false;
    while (PyDict_Next(usual, &usual_at, &usual_name, &usual_value))
        if (!PyDict_Next(payload, &at, &name, &value) || name != usual_name || value != usual_value)
            return false;
    return true;
}

/* Hits take no whole millisecond, and most collectors keep nothing: then one payload serves them all. Whoever
 * keeps it, or writes into it, has it for himself. */
PyObject *observer_tell_get(native_state *st, struct observer *o, uint64_t ns, PyObject *result)
{
    enum observer_part which = result == Py_None || result == Py_False ? OBSERVER_MISSED : OBSERVER_FOUND;
    PyObject **spare = &o->parts[which == OBSERVER_FOUND ? OBSERVER_FOUND_AGAIN : OBSERVER_MISSED_AGAIN],
             *payload = NULL;

    if (ns < NS_PER_MS) {
        payload = *spare; /* look-ups of the collector's own do without */
        *spare = NULL;
    }
    if (!payload)
        payload = payload_of(st, o->parts[which], ns / NS_PER_MS);
    result = emit(st, o, o->parts[OBSERVER_GET], payload, result);
    if (payload && ns < NS_PER_MS && !*spare && o->parts[which] && can_serve_again(payload, o->parts[which]))
        *spare = payload;
    else
        Py_XDECREF(payload);
    return result;
}

PyObject *observer_tell_multi_get(native_state *st, const struct observer *o, uint64_t ns, Py_ssize_t keys,
                                  PyObject *result)
{
    PyObject *payload = payload_of(st, o->parts[OBSERVER_BATCH], ns / NS_PER_MS);
    PyObject *count = payload ? PyLong_FromSsize_t(keys) : NULL;

    if (!count || PyDict_SetItem(payload, st->name_num_keys, count) < 0)
        Py_CLEAR(payload);
    Py_XDECREF(count);
    result = emit(st, o, o->parts[OBSERVER_MULTI_GET], payload, result);
    Py_XDECREF(payload);
    return result;
}

void observer_tell_failure(const struct observer *o)
{
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb);
    if (!tell_noted(o)) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(tb);
            return;
        }
        PyErr_WriteUnraisable(o->parts[OBSERVER_METRICS]);
    }
    PyErr_Restore(type, value, tb);
}
