/* StopIteration, which ends a step of a coroutine object with its result. */
#ifndef SHARDYFUSION_PYTHON_STOP_H
#define SHARDYFUSION_PYTHON_STOP_H

#include "state.h"

/* Takes over `result`, which may be a tuple: so not through PyErr_SetObject() alone. */
void stop_raise(PyObject *result);
/* The same where NULL is returned from tp_iternext, by which every `await` of Python 3.12 and later steps. Of a short value that makes no
 * exception: it raises one that is there for that, as long as nobody has kept it. */
void stop_raise_next(native_state *st, PyObject *result);
void stop_drop(native_state *st);
/* Afterwards, so that the value is the caller's alone. */
static inline void stop_end(native_state *st)
{
    if (st->stop_is_full)
        stop_drop(st);
}

#endif
