/* Look-ups of many keys in a pinned snapshot, by the keys that callers write. */
#include "batch.h"

/* What a batch keeps while the engine works on the keys that memory did not have. */
struct batch {
    sf_snapshot *snap;
    PyObject *keys;    /* tuple, as given */
    PyObject *answers; /* dict: distinct keys in their first order */
    PyObject *missing; /* list */
    sf_key *asked;     /* of `missing` */
};

void batch_clear(struct operation *op)
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
PyObject *batch_result(struct operation *op, PyObject *keys, PyObject *answers)
{
    Py_ssize_t n = PyTuple_GET_SIZE(keys);
    PyObject *list;

    if (!(op->n & BATCH_ALIGNED))
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

enum op_outcome batch_start(struct operation *op, sf_snapshot *snap, PyObject **result)
{
    struct batch *b = op->extra = PyMem_Calloc(1, sizeof(*b));
    PyObject **distinct = NULL;
    sf_error err;
    Py_ssize_t n;

    if (!b) {
        sf_snapshot_give_back(snap);
        PyErr_NoMemory();
        return OP_FAILED;
    }
    b->snap = snap;
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

PyObject *batch_take(struct operation *op, sf_call *call)
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

PyObject *batch_fail(struct operation *op, sf_call *call)
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
    if (!(op->n & BATCH_RETURN_ERRORS))
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

Py_ssize_t batch_key_count(const struct operation *op)
{
    return PyTuple_GET_SIZE(((const struct batch *)op->extra)->keys);
}

bool batch_on_error(PyObject *o, uint32_t *flags)
{
    if (!o || (PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, "raise") == 0))
        return true;
    if (PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, "return") == 0) {
        *flags |= BATCH_RETURN_ERRORS;
        return true;
    }
    PyErr_Format(PyExc_ValueError, "on_error must be 'raise' or 'return', not %R", o);
    return false;
}
