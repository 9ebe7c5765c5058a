/* The hot methods of AsyncShardedReader. While an engine's reader is attached they go straight to it; otherwise the
 * subclass's coroutine functions do the work. */
#include "state.h"

#include <time.h>

/* ---------------------------------------------------------------- the other way ---------------------------------- */

static enum op_outcome delegate(struct operation *op, PyObject *coroutine)
{
    op->waiter = coroutine;
    return coroutine ? OP_DELEGATED : OP_FAILED;
}

static PyObject *timeout_to_python(int64_t ms)
{
    if (ms == SF_TIMEOUT_NONE)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)ms / 1000);
}

static enum op_outcome delegate_get(struct operation *op)
{
    PyObject *context = op->b ? op->b : Py_None;

    return delegate(op, PyObject_CallMethod(op->owner, "_get", "OON", op->a, context, timeout_to_python(op->timeout_ms)));
}

/* ---------------------------------------------------------------- telling ---------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void measure(struct operation *op, const struct reader_core *core)
{
    if (core->failed)
        op->started_ns = now_ns();
}

/* The exception of the look-up outlives whoever is told of it. */
static void tell_failure(struct reader_core *core)
{
    PyObject *type, *value, *tb, *told;

    PyErr_Fetch(&type, &value, &tb);
    told = PyObject_CallNoArgs(core->failed);
    if (!told)
        PyErr_WriteUnraisable(core->failed);
    Py_XDECREF(told);
    PyErr_Restore(type, value, tb);
}

/* Calls `done` with whole milliseconds and `detail`, which it takes over. */
static PyObject *tell(struct operation *op, PyObject *result, PyObject *done, PyObject *detail)
{
    PyObject *args[2] = {PyLong_FromUnsignedLongLong((now_ns() - op->started_ns) / 1000000), detail};
    PyObject *told = args[0] && detail ? PyObject_Vectorcall(done, args, 2, NULL) : NULL;

    Py_XDECREF(args[0]);
    Py_XDECREF(detail);
    if (!told)
        Py_CLEAR(result);
    Py_XDECREF(told);
    return result;
}

static PyObject *get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;

    if (op->started_ns == 0 || !core->failed)
        return result;
    if (result)
        return tell(op, result, core->get_done, PyBool_FromLong(result != Py_None));
    tell_failure(core);
    return NULL;
}

/* ---------------------------------------------------------------- get -------------------------------------------- */

static void raise_lookup_error(native_state *st, sf_reader *r, PyObject *key, sf_status rc, const sf_error *err)
{
    sf_snapshot *s = rc == SF_INVALID || rc == SF_INVALID_KEY ? sf_reader_borrow(r, NULL) : NULL;

    if (s)
        raise_key_error(st, s, key);
    else
        raise_error(st, err);
    sf_snapshot_give_back(s);
}

static enum op_outcome get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct py_reader *held;
    struct pending *p;
    sf_reader *r;
    sf_error err; /* filled by failures only: clearing it would cost as much as the rest */
    sf_call *call = NULL;
    sf_value v;
    sf_key key;
    sf_status rc;

    if (!core->reader || op->b)
        return delegate_get(op);
    measure(op, core);
    r = core->reader->r;
    if (!key_from_python(op->st, op->a, &key))
        return OP_FAILED;
    rc = sf_reader_try_get(r, &key, &v, &err);
    if (rc == SF_OK) {
        *result = value_to_python(&v);
        sf_value_release(&v);
        return *result ? OP_FINISHED : OP_FAILED;
    }
    if (rc != SF_WOULD_BLOCK) {
        raise_lookup_error(op->st, r, op->a, rc, &err);
        return OP_FAILED;
    }
    held = (struct py_reader *)Py_NewRef(core->reader); /* op_begin() runs Python, which may close the reader */
    p = op_begin(op);
    if (p)
        rc = sf_reader_get_start(&call, r, &key, op->timeout_ms, pending_on_done, p, &err);
    Py_DECREF(held);
    return p ? op_begun(op, rc, call, &err) : OP_FAILED;
}

static PyObject *get_take(struct operation *op, sf_call *call)
{
    (void)op;
    return value_to_python(sf_call_values(call, NULL));
}

static const struct op_kind get_kind = {.name = "AsyncShardedReader.get", .start = get_start, .take = get_take, .ended = get_ended};

/* Keyword arguments of the three methods; each may be NULL afterwards. */
struct keywords {
    PyObject *routing_context, *timeout, *on_error;
};

static bool keywords_parse(const char *method, PyObject *const *args, Py_ssize_t n, PyObject *kwnames,
                           const char *first_name, PyObject **first, struct keywords *kw)
{
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    *first = n > 0 ? args[0] : NULL;
    *kw = (struct keywords){0};
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
        } else if (PyUnicode_CompareWithASCIIString(name, first_name) == 0 && !*first) {
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

static PyObject *core_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *key;
    struct keywords kw;
    int64_t ms;

    if (n == 1 && !kwnames)
        return op_new(core->st, &get_kind, self, args[0], NULL, SF_TIMEOUT_NONE);
    if (!keywords_parse("get", args, n, kwnames, "key", &key, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    return op_new(core->st, &get_kind, self, key, kw.routing_context, ms);
}

/* ---------------------------------------------------------------- multi_get -------------------------------------- */

/* op->n */
enum { ALIGNED = 1, RETURN_ERRORS = 2 };

/* What a batch keeps while the engine works on the keys that memory did not have. */
struct batch {
    sf_snapshot *snap;
    PyObject *keys;    /* tuple, as given */
    PyObject *answers; /* dict: distinct keys in their first order */
    PyObject *missing; /* list */
    sf_key *asked;     /* of `missing` */
};

static void batch_clear(struct operation *op)
{
    struct batch *b = op->extra;

    if (!b)
        return;
    sf_snapshot_give_back(b->snap);
    Py_XDECREF(b->keys);
    Py_XDECREF(b->answers);
    Py_XDECREF(b->missing);
    PyMem_Free(b->asked);
    PyMem_Free(b);
}

/* The answers in the form that was asked for. `answers` is a dict. */
static PyObject *batch_result(struct operation *op, PyObject *keys, PyObject *answers)
{
    Py_ssize_t n = PyTuple_GET_SIZE(keys);
    PyObject *list;

    if (!(op->n & ALIGNED))
        return Py_NewRef(answers);
    list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++) {
        PyObject *value = PyDict_GetItemWithError(answers, PyTuple_GET_ITEM(keys, i));

        if (!value) {
            if (!PyErr_Occurred())
                PyErr_SetObject(PyExc_KeyError, PyTuple_GET_ITEM(keys, i));
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, Py_NewRef(value));
    }
    return list;
}

static enum op_outcome delegate_multi_get(struct operation *op)
{
    PyObject *keys = PySequence_Tuple(op->a);

    if (!keys)
        return OP_FAILED;
    Py_SETREF(op->a, keys);
    return delegate(op, PyObject_CallMethod(op->owner, "_multi_get", "OONs", keys, op->b ? op->b : Py_None,
                                            timeout_to_python(op->timeout_ms),
                                            op->n & RETURN_ERRORS ? "return" : "raise"));
}

static PyObject *multi_get_followed(struct operation *op, PyObject *answer)
{
    PyObject *result;

    if (!(op->n & ALIGNED))
        return answer;
    result = batch_result(op, op->a, answer);
    Py_DECREF(answer);
    return result;
}

/* Distinct keys with None as their answer, in b->answers; each as the engine wants it, in b->asked. All keys are looked
 * at before any is read, so that one that cannot be routed fails the call and nothing else happens. */
static bool batch_distinct(struct operation *op, struct batch *b, PyObject **distinct)
{
    Py_ssize_t n = PyTuple_GET_SIZE(b->keys), known = 0;

    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *key = PyTuple_GET_ITEM(b->keys, i);

        if (!PyDict_SetDefault(b->answers, key, Py_None))
            return false;
        if (PyDict_GET_SIZE(b->answers) == known)
            continue;
        if (!key_from_python(op->st, key, &b->asked[known]))
            return false;
        distinct[known++] = key;
    }
    return true;
}

/* Answers what memory can; the other keys move to the front of b->asked and into b->missing. */
static bool batch_from_memory(struct batch *b, PyObject **distinct)
{
    size_t missing = 0;

    for (Py_ssize_t i = 0; distinct[i]; i++) { /* not as many as the dict says: keys may compare as they like */
        uint8_t scratch[8];
        PyObject *answer;
        sf_bytes stored;
        uint32_t db_id;
        sf_value v;
        int failed;

        if (sf_snapshot_route(b->snap, &b->asked[i], &db_id, NULL) != SF_OK ||
            sf_snapshot_encode_key(b->snap, &b->asked[i], scratch, &stored, NULL) != SF_OK ||
            sf_snapshot_try_get(b->snap, db_id, stored, &v, NULL) != SF_OK) {
            b->asked[missing++] = b->asked[i]; /* its error, if it is one, comes again with those of its shard */
            if (PyList_Append(b->missing, distinct[i]) < 0)
                return false;
            continue;
        }
        if (!v.found)
            continue;
        answer = value_to_python(&v);
        sf_value_release(&v);
        failed = answer ? PyDict_SetItem(b->answers, distinct[i], answer) : -1;
        Py_XDECREF(answer);
        if (failed)
            return false;
    }
    return true;
}

static enum op_outcome multi_get_start(struct operation *op, PyObject **result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct batch *b;
    PyObject **distinct = NULL;
    sf_error err;
    Py_ssize_t n;

    if (!core->reader || op->b)
        return delegate_multi_get(op);
    measure(op, core);
    b = op->extra = PyMem_Calloc(1, sizeof(*b));
    if (!b) {
        PyErr_NoMemory();
        return OP_FAILED;
    }
    b->snap = sf_reader_borrow(core->reader->r, &err);
    if (!b->snap) {
        raise_error(op->st, &err);
        return OP_FAILED;
    }
    b->keys = PySequence_Tuple(op->a);
    if (!b->keys)
        return OP_FAILED;
    n = PyTuple_GET_SIZE(b->keys);
    b->answers = PyDict_New();
    b->missing = PyList_New(0);
    b->asked = PyMem_Calloc((size_t)n + 1, sizeof(*b->asked));
    distinct = PyMem_Calloc((size_t)n + 1, sizeof(*distinct));
    if (!b->answers || !b->missing || !b->asked || !distinct) {
        PyErr_NoMemory();
        goto fail;
    }
    if (!batch_distinct(op, b, distinct) || !batch_from_memory(b, distinct))
        goto fail;
    PyMem_Free(distinct);
    if (PyList_GET_SIZE(b->missing) > 0) {
        struct pending *p = op_begin(op);
        sf_call *call = NULL;
        sf_status rc;

        if (!p)
            return OP_FAILED;
        rc = sf_snapshot_multi_get_start(&call, b->snap, b->asked, (size_t)PyList_GET_SIZE(b->missing), op->timeout_ms,
                                         pending_on_done, p, &err);
        return op_begun(op, rc, call, &err);
    }
    *result = batch_result(op, b->keys, b->answers);
    return *result ? OP_FINISHED : OP_FAILED;
fail:
    PyMem_Free(distinct);
    return OP_FAILED;
}

static bool batch_take_value(struct batch *b, size_t i, const sf_value *v)
{
    PyObject *answer = v->found ? value_to_python(v) : NULL;
    int failed = 0;

    if (answer)
        failed = PyDict_SetItem(b->answers, PyList_GET_ITEM(b->missing, (Py_ssize_t)i), answer);
    else if (v->found)
        failed = -1;
    Py_XDECREF(answer);
    return !failed;
}

static PyObject *multi_get_take(struct operation *op, sf_call *call)
{
    struct batch *b = op->extra;
    size_t n;
    const sf_value *values = sf_call_values(call, &n);

    for (size_t i = 0; i < n; i++)
        if (!batch_take_value(b, i, &values[i]))
            return NULL;
    return batch_result(op, b->keys, b->answers);
}

/* ---------------------------------------------------------------- failed batches --------------------------------- */

static bool is_key_status(sf_status s)
{
    return s == SF_INVALID || s == SF_INVALID_KEY;
}

static PyObject *raised(void)
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

static PyObject *key_exception(native_state *st, struct batch *b, size_t i)
{
    raise_key_error(st, b->snap, PyList_GET_ITEM(b->missing, (Py_ssize_t)i));
    return raised();
}

/* A shard whose failure was a key that has no stored form: the first such key says it better than the engine can. */
static PyObject *shard_exception(native_state *st, struct batch *b, sf_call *call, const sf_error *e)
{
    const sf_status *statuses = sf_call_statuses(call);
    size_t n = (size_t)PyList_GET_SIZE(b->missing);

    for (size_t i = 0; is_key_status(e->code) && i < n; i++) {
        uint32_t db_id;

        if (is_key_status(statuses[i]) && sf_snapshot_route(b->snap, &b->asked[i], &db_id, NULL) == SF_OK &&
            (int32_t)db_id == e->db_id)
            return key_exception(st, b, i);
    }
    return exception_of(st, e);
}

static PyObject *raise_all(struct operation *op, sf_call *call, const sf_error *errors, size_t count)
{
    PyObject *list = PyList_New(0), *one;

    for (size_t i = 0; list && i < count; i++) {
        one = shard_exception(op->st, op->extra, call, &errors[i]);
        if (!one || PyList_Append(list, one) < 0)
            Py_CLEAR(list);
        Py_XDECREF(one);
    }
    if (list && op->st->multi_error_hook) {
        raise_exception(PyObject_CallOneArg(op->st->multi_error_hook, list));
    } else if (list) {
        raise_exception(Py_NewRef(PyList_GET_ITEM(list, 0)));
    }
    Py_XDECREF(list);
    return NULL;
}

/* The exception of one key: its own, else that of its shard. */
static PyObject *one_exception(struct operation *op, sf_call *call, size_t i)
{
    struct batch *b = op->extra;
    size_t count;
    const sf_error *errors = sf_call_shard_errors(call, &count);
    uint32_t db_id;

    if (is_key_status(sf_call_statuses(call)[i]))
        return key_exception(op->st, b, i);
    if (sf_snapshot_route(b->snap, &b->asked[i], &db_id, NULL) == SF_OK)
        for (size_t k = 0; k < count; k++)
            if (errors[k].db_id == (int32_t)db_id)
                return exception_of(op->st, &errors[k]);
    return exception_of(op->st, sf_call_error(call));
}

static PyObject *multi_get_fail(struct operation *op, sf_call *call)
{
    struct batch *b = op->extra;
    size_t count, n;
    const sf_error *errors = sf_call_shard_errors(call, &count);
    const sf_status *statuses = sf_call_statuses(call);
    const sf_value *values = sf_call_values(call, &n);

    if (count == 0) {
        raise_error(op->st, sf_call_error(call));
        return NULL;
    }
    if (!(op->n & RETURN_ERRORS))
        return raise_all(op, call, errors, count);
    for (size_t i = 0; i < n; i++) {
        PyObject *e;
        int failed;

        if (statuses[i] == SF_OK) {
            if (!batch_take_value(b, i, &values[i]))
                return NULL;
            continue;
        }
        e = one_exception(op, call, i);
        failed = e ? PyDict_SetItem(b->answers, PyList_GET_ITEM(b->missing, (Py_ssize_t)i), e) : -1;
        Py_XDECREF(e);
        if (failed)
            return NULL;
    }
    return batch_result(op, b->keys, b->answers);
}

static PyObject *multi_get_ended(struct operation *op, PyObject *result)
{
    struct reader_core *core = (struct reader_core *)op->owner;
    struct batch *b = op->extra;

    if (op->started_ns == 0 || !core->failed)
        return result;
    if (result)
        return tell(op, result, core->multi_get_done, PyLong_FromSsize_t(PyTuple_GET_SIZE(b->keys)));
    tell_failure(core);
    return NULL;
}

static const struct op_kind multi_get_kind = {
    .name = "AsyncShardedReader.multi_get",
    .start = multi_get_start,
    .take = multi_get_take,
    .fail = multi_get_fail,
    .followed = multi_get_followed,
    .ended = multi_get_ended,
    .clear = batch_clear,
};

static const struct op_kind get_many_kind = {
    .name = "AsyncShardedReader.get_many",
    .start = multi_get_start,
    .take = multi_get_take,
    .fail = multi_get_fail,
    .followed = multi_get_followed,
    .ended = multi_get_ended,
    .clear = batch_clear,
};

static PyObject *core_batch(PyObject *self, const struct op_kind *kind, const char *name, PyObject *const *args,
                            Py_ssize_t n, PyObject *kwnames, uint32_t flags)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *keys, *op;
    struct keywords kw;
    int64_t ms;

    if (!keywords_parse(name, args, n, kwnames, "keys", &keys, &kw) || !timeout_from_python(kw.timeout, &ms))
        return NULL;
    if (kw.on_error && PyUnicode_Check(kw.on_error) && PyUnicode_CompareWithASCIIString(kw.on_error, "return") == 0) {
        flags |= RETURN_ERRORS;
    } else if (kw.on_error &&
               !(PyUnicode_Check(kw.on_error) && PyUnicode_CompareWithASCIIString(kw.on_error, "raise") == 0)) {
        PyErr_Format(PyExc_ValueError, "on_error must be 'raise' or 'return', not %R", kw.on_error);
        return NULL;
    }
    op = op_new(core->st, kind, self, keys, kw.routing_context, ms);
    if (op)
        ((struct operation *)op)->n = flags;
    return op;
}

static PyObject *core_multi_get(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &multi_get_kind, "multi_get", args, n, kwnames, 0);
}

static PyObject *core_get_many(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)
{
    return core_batch(self, &get_many_kind, "get_many", args, n, kwnames, ALIGNED);
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *core_attach(PyObject *self, PyObject *args)
{
    struct reader_core *core = (struct reader_core *)self;
    PyObject *reader, *observer = Py_None, *get_done = NULL, *multi_get_done = NULL, *failed = NULL;

    if (!PyArg_ParseTuple(args, "O!|O:_attach", core->st->reader_type, &reader, &observer))
        return NULL;
    if (observer != Py_None) {
        get_done = PyObject_GetAttrString(observer, "get_done");
        multi_get_done = get_done ? PyObject_GetAttrString(observer, "multi_get_done") : NULL;
        failed = multi_get_done ? PyObject_GetAttrString(observer, "failed") : NULL;
        if (!failed) {
            Py_XDECREF(get_done);
            Py_XDECREF(multi_get_done);
            return NULL;
        }
    }
    Py_XSETREF(core->get_done, get_done);
    Py_XSETREF(core->multi_get_done, multi_get_done);
    Py_XSETREF(core->failed, failed);
    Py_XSETREF(core->reader, (struct py_reader *)Py_NewRef(reader));
    Py_RETURN_NONE;
}

static PyObject *core_detach(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(((struct reader_core *)self)->reader);
    Py_RETURN_NONE;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct reader_core *core = (struct reader_core *)type->tp_alloc(type, 0);

    (void)args; /* the subclass's __init__ looks at them */
    (void)kwargs;
    if (core)
        core->st = native_state_of(type);
    return (PyObject *)core;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct reader_core *)self)->reader);
    Py_VISIT(((struct reader_core *)self)->get_done);
    Py_VISIT(((struct reader_core *)self)->multi_get_done);
    Py_VISIT(((struct reader_core *)self)->failed);
    return 0;
}

static int core_clear(PyObject *self)
{
    struct reader_core *core = (struct reader_core *)self;

    Py_CLEAR(core->reader);
    Py_CLEAR(core->failed); /* first: it says whether there is anybody to be told */
    Py_CLEAR(core->get_done);
    Py_CLEAR(core->multi_get_done);
    return 0;
}

static void core_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    core_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef core_methods[] = {
    {"get", (PyCFunction)(void (*)(void))core_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, key, *, routing_context=None, timeout=None)\n--\n\n"
     "The value of one key as bytes, or None when the snapshot does not hold it.\n\n"
     "A coroutine: nothing happens before it is awaited. What memory can answer is answered without a trip through the\n"
     "event loop; otherwise it takes one ranged read of the store. `timeout` (seconds or a timedelta) bounds the whole\n"
     "operation and raises OperationTimeoutError. Raises ValueError or ConfigValidationError for a key that this snapshot\n"
     "cannot hold, DbAdapterError for a damaged shard, S3TransientError when the store does not answer, ReaderStateError\n"
     "when the reader is not open."},
    {"multi_get", (PyCFunction)(void (*)(void))core_multi_get, METH_FASTCALL | METH_KEYWORDS,
     "multi_get($self, keys, *, routing_context=None, timeout=None, on_error='raise')\n--\n\n"
     "The values of many keys: a dict with one entry a distinct key, in the order of their first occurrence, None for\n"
     "those that are missing.\n\n"
     "One operation for all keys, whatever their shards. Failures of shards arrive together as an ExceptionGroup that is\n"
     "also a DbAdapterError; with on_error='return' the failed keys map to their exception instead."},
    {"get_many", (PyCFunction)(void (*)(void))core_get_many, METH_FASTCALL | METH_KEYWORDS,
     "get_many($self, keys, *, routing_context=None, timeout=None)\n--\n\n"
     "As multi_get, but a list aligned with `keys`."},
    {"_attach", core_attach, METH_VARARGS,
     "_attach($self, reader, observer=None)\n--\n\n"
     "Go straight to the engine's reader from now on. The observer's get_done(duration_ms, found),\n"
     "multi_get_done(duration_ms, num_keys) and failed() are called before a look-up returns or raises."},
    {"_detach", core_detach, METH_NOARGS, "_detach($self)\n--\n\nThrough the subclass again."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_methods, core_methods},
    {0, NULL},
};

PyType_Spec core_spec = {
    .name = "shardyfusion._native.ReaderCore",
    .basicsize = sizeof(struct reader_core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};
