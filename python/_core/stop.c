/* Up to Python 3.11 an `await` takes a result through am_send. Later ones step what is not CPython's own by tp_iternext, which returns a
 * result by raising StopIteration: to make that exception costs more than a look-up in memory. So one is kept. The interpreter takes its
 * value and lets it go, before any Python sees it. Whoever does see it (next() in Python, a tracer) may keep it, or put something into it:
 * then it is theirs, and another is made. */
#include "stop.h"
#include "turn.h"

void stop_raise(PyObject *result)
{
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);

    Py_DECREF(result);
    if (stop)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
}

#if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
/* As we left it, and nobody else's, its arguments included. What we put into it runs no Python when it goes. */
static inline bool is_spare(const PyStopIterationObject *s)
{
    return s && Py_REFCNT(s) == 1 && !s->dict && !s->notes && !s->traceback && !s->context && !s->cause &&
           !s->suppress_context && PyTuple_CheckExact(s->args) && Py_REFCNT(s->args) == 1 &&
           PyTuple_GET_SIZE(s->args) == 1 && PyTuple_GET_ITEM(s->args, 0) == s->value &&
           (s->value == Py_None || PyBytes_CheckExact(s->value));
}

static bool spare_is_there(native_state *st)
{
    PyObject *made;

    if (is_spare((PyStopIterationObject *)st->spare_stop))
        return true;
    made = PyObject_CallOneArg(PyExc_StopIteration, Py_None);
    if (!made) {
        PyErr_Clear(); /* one for this result may be had all the same */
        return false;
    }
    Py_XSETREF(st->spare_stop, made);
    return is_spare((PyStopIterationObject *)st->spare_stop);
}

/* Takes over `value`. */
static inline void fill(PyStopIterationObject *s, PyObject *value)
{
    PyObject *was = PyTuple_GET_ITEM(s->args, 0);

    PyTuple_SET_ITEM(s->args, 0, Py_NewRef(value));
#if PY_VERSION_HEX >= 0x030E0000 /* tuples keep their hash */
    ((PyTupleObject *)s->args)->ob_hash = -1;
#endif
    Py_DECREF(was);
    Py_XSETREF(s->value, value);
}

void stop_drop(native_state *st)
{
    st->stop_is_full = false;
    if (is_spare((PyStopIterationObject *)st->spare_stop))
        fill((PyStopIterationObject *)st->spare_stop, Py_NewRef(Py_None));
    else
        Py_CLEAR(st->spare_stop);
}

/* Bytes can be part of no cycle, so the collector need not look at the arguments. */
static bool raise_spare(native_state *st, PyObject *result)
{
    if (!PyBytes_CheckExact(result) || PyBytes_GET_SIZE(result) >= TURN_UNIT_BYTES || !spare_is_there(st))
        return false;
    fill((PyStopIterationObject *)st->spare_stop, result);
    st->stop_is_full = true;
    PyErr_SetRaisedException(Py_NewRef(st->spare_stop));
    return true;
}
#else
void stop_drop(native_state *st)
{
    st->stop_is_full = false;
}

static bool raise_spare(native_state *st, PyObject *result)
{
    (void)st;
    (void)result;
    return false;
}
#endif

void stop_raise_next(native_state *st, PyObject *result)
{
    if (result == Py_None) /* the end without an exception says that */
        Py_DECREF(result);
    else if (!raise_spare(st, result))
        stop_raise(result);
}
