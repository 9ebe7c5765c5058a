/* What stands between a method of a reader and the engine: the attached snapshot, the limiter, the key guard, the observer. */
#include "core.h"

#include "convert.h"
#include "module.h"
#include "turn.h"

/* ---------------------------------------------------------------- the other way ---------------------------------- */

enum op_outcome core_delegate(struct operation *op, PyObject *returned, PyObject **result)
{
    if (returned && !op->blocking) {
        op->waiter = returned;
        return OP_DELEGATED;
    }
    *result = returned && op->kind->followed ? op->kind->followed(op, returned) : returned;
    return *result ? OP_FINISHED : OP_FAILED;
}

PyObject *core_timeout(int64_t ms)
{
    if (ms == SF_TIMEOUT_NONE)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ms / 1000);
}

/* ---------------------------------------------------------------- telling ---------------------------------------- */

void core_measure_begin(struct operation *op, struct reader_core *core)
{
    op->started_ns = observer_start(&core->observer);
    if (!core->observer.look_ups)
        (void)turn_spend(op->st, 4); /* what is told is Python's */
}

struct look_up core_what_was(const struct operation *op)
{
    return (struct look_up){.ns = op->started_ns == OP_UNTIMED ? OP_UNTIMED : native_now_ns() - op->started_ns,
                            .hit = !op->asks_engine,
                            .db_id = op->n};
}

/* ---------------------------------------------------------------- what is attached ------------------------------- */

void core_raise_detached(struct reader_core *core)
{
    PyObject *opened = PyObject_CallMethod((PyObject *)core, "_opened", NULL);

    if (opened)
        PyErr_SetString(PyExc_RuntimeError, "the reader was detached while its limiter or its key guard was asked");
    Py_XDECREF(opened);
}

void core_release(struct reader_core *core, void *object)
{
#ifdef Py_GIL_DISABLED
    if (object && !core->kept)
        core->kept = PyList_New(0);
    if (object && (!core->kept || PyList_Append(core->kept, object) < 0))
        PyErr_Clear(); /* without memory it is never released */
    else
        Py_XDECREF(object);
#else
    (void)core;
    Py_XDECREF(object);
#endif
}

sf_snapshot *core_borrow(struct reader_core *core)
{
    struct py_snapshot *snapshot = NATIVE_LOAD(core->snapshot);
    struct py_reader *reader = NATIVE_LOAD(core->reader);
    sf_snapshot *s = snapshot ? snapshot_acquired(snapshot) : NULL;
    sf_error err;

    if (s)
        return s;
    if (!reader) {
        core_raise_detached(core);
        return NULL;
    }
    s = sf_reader_borrow(reader->r, &err);
    if (!s)
        raise_error(core->st, &err);
    return s;
}

/* ---------------------------------------------------------------- the limiter ------------------------------------ */

enum op_outcome core_limiter_take(struct reader_core *core, Py_ssize_t tokens)
{
    PyObject *bucket = NATIVE_LOAD(core->bucket);
    double missing_s;

    if (!bucket)
        return OP_AWAITS_FIRST;
    if (!token_bucket_take(bucket, (double)tokens, &missing_s))
        return OP_FAILED;
    return missing_s > 0 ? OP_AWAITS_FIRST : OP_FINISHED;
}

/* Its own methods do that, with events and all: on the caller's event loop, or on the thread that is blocked. */
enum op_outcome core_limiter_wait(struct operation *op, Py_ssize_t tokens, int64_t timeout_ms, const char *what)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    PyObject *asked;

    (void)turn_spend(op->st, 4); /* of Python */
    asked = PyObject_CallMethod(core->limiter, op->blocking ? "wait" : "wait_async", "nNs", tokens,
                                core_timeout(timeout_ms), what);
    if (!asked)
        return OP_FAILED;
    if (!op->blocking) {
        op->waiter = asked;
        return OP_AWAITS_FIRST;
    }
    Py_DECREF(asked);
    return OP_FINISHED;
}

int core_limiter_allows(struct reader_core *core)
{
    PyObject *limiter = NATIVE_LOAD(core->limiter), *bucket = NATIVE_LOAD(core->bucket), *taken;
    double missing_s;
    int allows;

    if (!limiter)
        return 1;
    if (bucket)
        return token_bucket_take(bucket, 1, &missing_s) ? missing_s <= 0 : -1;
    taken = PyObject_CallMethod(limiter, "try_take", "i", 1);
    allows = taken ? PyObject_IsTrue(taken) : -1;
    Py_XDECREF(taken);
    return allows;
}

/* ---------------------------------------------------------------- the key guard ---------------------------------- */

bool core_guard_passes(struct reader_core *core, PyObject *key, const sf_snapshot *s)
{
    sf_key strict = sf_key_bytes(PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
    sf_snapshot_info info;
    PyObject *guard, *again;
    uint8_t scratch[8];
    sf_bytes stored;

    guard = NATIVE_LOAD(core->key_guard);
    if (!guard || sf_snapshot_encode_key(s, &strict, scratch, &stored, NULL) != SF_INVALID_KEY)
        return true;
    sf_snapshot_get_info(s, &info);
    Py_INCREF(guard);
    again = PyObject_CallFunction(guard, "Os", key, encoding_name(info.key_encoding));
    Py_BEGIN_CRITICAL_SECTION(core);
    if (again == Py_False && core->key_guard == guard) {
        NATIVE_STORE(core->key_guard, NULL);
        core_release(core, guard);
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(guard);
    Py_XDECREF(again);
    return again != NULL;
}

/* ---------------------------------------------------------------- arguments and results -------------------------- */

bool core_keywords(const char *method, PyObject *const *args, Py_ssize_t n, PyObject *kwnames, const char *first_name,
                   PyObject **first, struct core_keywords *kw)
{
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    *first = n > 0 ? args[0] : NULL;
    *kw = (struct core_keywords){0};
    if (n > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes 2 positional arguments but %zd were given", method, n + 1);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i), *value = args[n + i];

        if (PyUnicode_CompareWithASCIIString(name, "routing_context") == 0) {
            kw->routing_context = value == Py_None ? NULL : value;
        } else if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
            kw->timeout = value;
        } else if (PyUnicode_CompareWithASCIIString(name, "on_error") == 0 && strcmp(method, "multi_get") == 0) {
            kw->on_error = value;
        } else if (PyUnicode_CompareWithASCIIString(name, first_name) == 0) {
            if (*first) {
                PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", method, first_name);
                return false;
            }
            *first = value;
        } else {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method, name);
            return false;
        }
    }
    if (!*first)
        PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: '%s'", method, first_name);
    return *first != NULL;
}

PyObject *core_wait(PyObject *op)
{
    PyObject *result = op_wait(op, NULL);

    Py_DECREF(op);
    return result;
}
