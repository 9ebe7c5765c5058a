/* Whom a reader tells of the look-ups that went straight to the engine: the metrics collector, called from
 * here, with arguments that are made once. The package's Metrics is asked only for what is rare: to tell what
 * stores have noted, and when the collector has failed. */
#include "convert.h"
#include "observer.h"
#include "operation.h"
#include "store/events.h"
#include "turn.h"

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
                                        [OBSERVER_MULTI_GET] = "multi_get_event",
                                        [OBSERVER_LOOK_UPS] = "look_ups"};
    sf_store_events *events;

    *o = (struct observer){{NULL}};
    if (is_none(metrics))
        return true;
    o->parts[OBSERVER_METRICS] = Py_NewRef(metrics);
    for (size_t i = OBSERVER_COLLECTOR; i <= OBSERVER_LOOK_UPS; i++)
        if (!(o->parts[i] = PyObject_GetAttrString(metrics, names[i])))
            goto fail;
    if (!store_events_from_python(o->parts[OBSERVER_STORE_EVENTS], &events))
        goto fail;
    o->events = events;
    if (o->parts[OBSERVER_LOOK_UPS] != Py_None && !(o->look_ups = look_ups_from_python(st, o->parts[OBSERVER_LOOK_UPS])))
        goto fail;
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
    o->look_ups = NULL;
    o->events = NULL;
    for (size_t i = 0; i < OBSERVER_PARTS; i++) /* first the one that says whether there is anybody */
        Py_CLEAR(o->parts[i]);
}

/* What stores have noted comes before any other event. False with an exception. */
static SF_COLD bool tell_what_is_noted(const struct observer *o)
{
    PyObject *noted = store_events_noted(o->parts[OBSERVER_STORE_EVENTS]);
    PyObject *told = noted ? PyObject_CallMethod(o->parts[OBSERVER_METRICS], "tell_of", "O", noted) : NULL;

    Py_XDECREF(noted);
    Py_XDECREF(told);
    return told || !PyErr_Occurred();
}

/* Most often there is nothing: then it costs one load. */
static inline bool tell_noted(const struct observer *o)
{
    return !sf__store_events_any(o->events) || tell_what_is_noted(o);
}

/* The exception goes to the log, but for what ends programs: that stays. */
static SF_COLD bool collector_failed(const struct observer *o, PyObject *event)
{
    PyObject *type, *error, *tb, *logged;

    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Fetch(&type, &error, &tb);
    PyErr_NormalizeException(&type, &error, &tb);
    logged = PyObject_CallMethod(o->parts[OBSERVER_METRICS], "collector_failed", "OO", event, error ? error : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(tb);
    Py_XDECREF(logged);
    return logged != NULL;
}

uint64_t observer_start(struct observer *o)
{
    return o->look_ups ? look_ups_start(o->look_ups) : native_now_ns();
}

/* Values of a payload, in their order. */
struct payload {
    size_t n;
    enum payload_name names[GET_PAYLOAD];
    PyObject *values[GET_PAYLOAD]; /* owned */
};

static void payload_add(struct payload *p, enum payload_name name, PyObject *value)
{
    p->names[p->n] = name;
    p->values[p->n++] = value; /* NULL: an exception is set */
}

static void payload_clear(struct payload *p)
{
    for (size_t i = 0; i < p->n; i++)
        Py_CLEAR(p->values[i]);
}

/* Into `dict`, which may hold some of them already. */
static bool payload_store(const native_state *st, PyObject *dict, const struct payload *p, PyObject *const *held)
{
    for (size_t i = 0; i < p->n; i++)
        if (!p->values[i] || ((!held || held[i] != p->values[i]) &&
                              PyDict_SetItem(dict, st->payload_names[p->names[i]], p->values[i]) < 0))
            return false;
    return true;
}

static struct payload payload_of(uint64_t ns)
{
    struct payload p = {0};

    payload_add(&p, PAYLOAD_DURATION_MS, PyLong_FromUnsignedLongLong(ns / NS_PER_MS));
    return p;
}

/* Takes over the look-up's result, which it returns unless there is an exception. */
static PyObject *tell_only_noted(const struct observer *o, PyObject *result)
{
    if (!tell_noted(o) && !collector_failed(o, Py_None))
        Py_CLEAR(result);
    return result;
}

/* Without `payload` an exception is set. Takes over the look-up's result, which it returns unless there is an
 * exception. */
static PyObject *emit(native_state *st, const struct observer *o, PyObject *event, PyObject *payload, PyObject *result)
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
static bool can_serve_again(const native_state *st, PyObject *dict, const struct payload *p)
{
#ifdef Py_GIL_DISABLED /* another thread may be at it already */
    (void)st;
    (void)dict;
    (void)p;
    return false;
#else
    PyObject *name, *value;
    Py_ssize_t at = 0;
    size_t i = 0;

    if (Py_REFCNT(dict) != 1 || (size_t)PyDict_GET_SIZE(dict) != p->n)
        return false;
    while (PyDict_Next(dict, &at, &name, &value)) {
        if (name != st->payload_names[p->names[i]] || value != p->values[i])
            return false;
        i++;
    }
    return true;
#endif
}

/* Most collectors keep nothing: then one dict serves all look-ups. Whoever keeps it, or writes into it, has it for himself. */
PyObject *observer_tell_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result)
{
    bool found = result != Py_None && result != Py_False;
    PyObject *dict = o->parts[OBSERVER_SPARE];
    struct payload p;
    bool stored;

    if (o->look_ups) {
        look_ups_count_get(o->look_ups, u, found);
        return tell_only_noted(o, result);
    }
    if (dict)
        o->parts[OBSERVER_SPARE] = NULL; /* look-ups of the collector's own do without */
    p = payload_of(u->ns);
    payload_add(&p, PAYLOAD_FOUND, Py_NewRef(found ? Py_True : Py_False));
    payload_add(&p, PAYLOAD_DURATION_S, PyFloat_FromDouble((double)u->ns / 1e9));
    payload_add(&p, PAYLOAD_DB_ID, u->db_id == UINT32_MAX ? Py_NewRef(Py_None) : PyLong_FromUnsignedLong(u->db_id));
    payload_add(&p, PAYLOAD_CACHE, Py_NewRef(u->hit ? st->text_hit : st->text_miss));
    if (dict) {
        stored = payload_store(st, dict, &p, o->spare_values);
    } else {
        dict = PyDict_New();
        stored = dict && payload_store(st, dict, &p, NULL);
    }
    result = emit(st, o, o->parts[OBSERVER_GET], stored ? dict : NULL, result);
    if (stored && !o->parts[OBSERVER_SPARE] && observer_is_there(o) && can_serve_again(st, dict, &p)) {
        memcpy(o->spare_values, p.values, sizeof(p.values));
        o->parts[OBSERVER_SPARE] = dict;
    } else {
        Py_XDECREF(dict);
    }
    payload_clear(&p);
    return result;
}

PyObject *observer_tell_multi_get(native_state *st, struct observer *o, const struct look_up *u, PyObject *result)
{
    PyObject *dict;
    struct payload p;
    bool stored;

    if (o->look_ups) {
        look_ups_count_batch(o->look_ups, u);
        return tell_only_noted(o, result);
    }
    dict = PyDict_New();
    p = payload_of(u->ns);
    payload_add(&p, PAYLOAD_NUM_KEYS, PyLong_FromSsize_t(u->keys));
    payload_add(&p, PAYLOAD_DURATION_S, PyFloat_FromDouble((double)u->ns / 1e9));
    payload_add(&p, PAYLOAD_FOUND_COUNT, PyLong_FromSsize_t(u->found));
    payload_add(&p, PAYLOAD_CACHE, Py_NewRef(u->hit ? st->text_hit : st->text_miss));
    stored = dict && payload_store(st, dict, &p, NULL);
    result = emit(st, o, o->parts[OBSERVER_MULTI_GET], stored ? dict : NULL, result);
    Py_XDECREF(dict);
    payload_clear(&p);
    return result;
}

/* What stores have noted, then the failure itself, unless it is none of a look-up but the end of the program or of a task. */
static bool tell_failure(const struct observer *o, const char *operation, uint64_t ns, PyObject *error)
{
    PyObject *told;

    if (!tell_noted(o))
        return false;
    if (!error || !PyErr_GivenExceptionMatches(error, PyExc_Exception))
        return true;
    told = PyObject_CallMethod(o->parts[OBSERVER_METRICS], "look_up_failed", "sOd", operation, error,
                               ns == OP_UNTIMED ? 0.0 : (double)ns / 1e9);
    Py_XDECREF(told);
    return told != NULL;
}

void observer_tell_failure(const struct observer *o, const char *operation, uint64_t ns)
{
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (!tell_failure(o, operation, ns, value)) {
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
