/* The readers' core: the methods that look keys up, of one key (core.c) and of many (core_batch.c), and what stands between them and
 * the engine (core_gate.c). */
#ifndef SHARDYFUSION_PYTHON_CORE_H
#define SHARDYFUSION_PYTHON_CORE_H

#include "batch.h"
#include "objects.h"

struct reader_core {
    PyObject_HEAD
    native_state *st;
    struct py_reader *reader; /* NULL: it goes to this one snapshot, or, without one, through the subclass */
    struct py_snapshot *snapshot;
    struct observer observer; /* told of look-ups that did not go through the subclass */
    PyObject *limiter;        /* asked before each look-up; NULL: nobody is */
    PyObject *bucket;         /* what it asks, when that is a TokenBucket of ours; else NULL */
    PyObject *key_guard;      /* asked when bytes are the key and the snapshot's keys are integers; NULL: nobody is */
    bool blocking;            /* by its type: look-ups give their results, not coroutines */
    bool pins_last;           /* the snapshot is the one that is present when the limiter has answered */
    PyObject *kept;           /* list of what was taken off while other threads may be at it; NULL: nothing */
};

/* ---------------------------------------------------------------- the gate --------------------------------------- */

/* Whether look-ups go straight to the engine. */
static inline bool core_is_attached(const struct reader_core *core)
{
    return NATIVE_LOAD(core->reader) || NATIVE_LOAD(core->snapshot);
}

/* Releases what the core has let go of: without a GIL not before the core goes, since look-ups of other threads take no reference. */
void core_release(struct reader_core *core, void *object);

/* The snapshot that is present, or the one that is attached; NULL with an exception. */
sf_snapshot *core_borrow(struct reader_core *core);
/* Nothing is attached any more: the subclass's _opened() says why. */
void core_raise_detached(struct reader_core *core);
/* Takes over what the subclass's method has returned (NULL: an exception is set): a coroutine, which goes on instead, or, of a blocking
 * reader, the answer. */
enum op_outcome core_delegate(struct operation *op, PyObject *returned, PyObject **result);
PyObject *core_timeout(int64_t ms); /* in seconds, as the subclass takes it */

/* OP_AWAITS_FIRST: it has to be waited for, or is the caller's own. */
enum op_outcome core_limiter_take(struct reader_core *core, Py_ssize_t tokens);
/* By its own methods. */
enum op_outcome core_limiter_wait(struct operation *op, Py_ssize_t tokens, int64_t timeout_ms, const char *what);
/* Whether it has a token at once. Negative with an exception. */
int core_limiter_allows(struct reader_core *core);

/* Whether a key that is bytes may be looked up: where the snapshot refuses them as keys, the guard is asked, as long as it wants
 * to be. False with an exception. */
bool core_guard_passes(struct reader_core *core, PyObject *key, const sf_snapshot *s);

void core_measure_begin(struct operation *op, struct reader_core *core);
/* From here on it is measured, if somebody is told. */
static inline void core_measure(struct operation *op, struct reader_core *core)
{
    if (observer_is_there(&core->observer))
        core_measure_begin(op, core);
}
struct look_up core_what_was(const struct operation *op);

/* ---------------------------------------------------------------- arguments and results -------------------------- */

/* Keyword arguments of the three methods; each may be NULL afterwards. */
struct core_keywords {
    PyObject *routing_context, *timeout, *on_error;
};

bool core_keywords(const char *method, PyObject *const *args, Py_ssize_t n, PyObject *kwnames, const char *first_name,
                   PyObject **first, struct core_keywords *kw);
/* Runs an operation to its end, and takes it over. */
PyObject *core_wait(PyObject *op);
/* What a method returns for its new operation, which it takes over; NULL: an exception is set. Blocking ones never show it: a signal
 * handler that raises would find it neither awaited nor over. */
static inline PyObject *core_return(const struct reader_core *core, PyObject *op)
{
    return op && core->blocking ? core_wait(op) : op;
}

/* ---------------------------------------------------------------- many keys -------------------------------------- */

PyObject *core_multi_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *core_get_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);
PyObject *core_contains_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames);

#endif
