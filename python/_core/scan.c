/* Scans of a pinned snapshot. */
#include "convert.h"
#include "module.h"
#include "objects.h"

struct py_scan {
    PyObject_HEAD
    native_state *st;
    sf_scan *scan; /* NULL: closed */
    bool stepping; /* its rows are being taken: they must stay, whatever Python runs meanwhile */
    bool closing;  /* as soon as that has left */
};

PyObject *scan_open(native_state *st, sf_snapshot *s, const sf_scan_options *o)
{
    struct py_scan *scan = PyObject_New(struct py_scan, st->scan_type);
    sf_error err;

    if (!scan)
        return NULL;
    scan->st = st;
    scan->scan = NULL;
    scan->stepping = scan->closing = false;
    if (sf_scan_open(&scan->scan, s, o, &err) != SF_OK) {
        raise_error(st, &err);
        Py_DECREF(scan);
        return NULL;
    }
    return (PyObject *)scan;
}

/* ---------------------------------------------------------------- rows ------------------------------------------- */

static PyObject *row_to_python(const void *item)
{
    const sf_row *r = item;
    PyObject *row = PyTuple_New(2);
    PyObject *k = PyBytes_FromStringAndSize((const char *)r->key.p, (Py_ssize_t)r->key.n);
    PyObject *v = PyBytes_FromStringAndSize((const char *)r->value.p, (Py_ssize_t)r->value.n);

    if (!row || !k || !v) {
        Py_XDECREF(k);
        Py_XDECREF(v);
        Py_CLEAR(row);
    } else {
        PyTuple_SET_ITEM(row, 0, k);
        PyTuple_SET_ITEM(row, 1, v);
    }
    return row;
}

static PyObject *rows_to_python(const sf_row *rows, size_t n)
{
    return list_to_python(rows, n, sizeof(*rows), row_to_python);
}

static void scan_end(struct py_scan *o)
{
    sf_scan *scan = o->scan;

    o->scan = NULL;
    sf_scan_close(scan);
}

static bool scan_is_open(const struct py_scan *o)
{
    if (!o->scan || o->closing)
        PyErr_SetString(PyExc_ValueError, "the scan is closed");
    return o->scan && !o->closing;
}

static void scan_leave(struct py_scan *o)
{
    o->stepping = false;
    if (o->closing)
        scan_end(o);
}

/* Making objects may collect garbage, which runs anything. */
static sf_status try_rows(struct py_scan *o, size_t most, PyObject **result, sf_error *err)
{
    const sf_row *rows;
    size_t n;
    bool end;
    sf_status rc;

    o->stepping = true;
    rc = sf_scan_try_next(o->scan, most, &rows, &n, &end, err);
    if (rc == SF_OK)
        *result = rows_to_python(rows, n);
    scan_leave(o);
    return rc;
}

/* A batch of Arrow's, of a snapshot whose keys are told so, without the GIL. Where there are no rows its `release` is NULL. */
static sf_status try_batch(struct py_scan *o, size_t most, sf_key_encoding keys, struct ArrowArray *out, sf_error *err)
{
    const sf_row *rows;
    size_t n;
    bool end;
    sf_status rc;

    o->stepping = true;
    Py_BEGIN_ALLOW_THREADS rc = sf_scan_try_next(o->scan, most, &rows, &n, &end, err);
    if (rc == SF_OK && n > 0)
        rc = sf_rows_export_arrow(out, rows, n, keys, err);
    Py_END_ALLOW_THREADS scan_leave(o);
    return rc;
}

static PyObject *batch_to_python(const struct operation *op, struct ArrowArray *batch)
{
    return batch->release ? arrow_to_python(op->st, batch, (sf_key_encoding)op->answers) : Py_NewRef(Py_None);
}

/* What memory has, in the form that was asked for: where op->a says how keys are told, a batch of Arrow's. */
static sf_status try_next(const struct operation *op, struct py_scan *o, PyObject **result, sf_error *err)
{
    struct ArrowArray batch = {0};
    sf_status rc;

    if (o->stepping) {
        *err = (sf_error)SF_ERROR_INIT;
        err->code = SF_STATE;
        snprintf(err->message, sizeof(err->message), "a step of this scan is in flight already");
        return SF_STATE;
    }
    if (!op->a)
        return try_rows(o, op->n, result, err);
    rc = try_batch(o, op->n, (sf_key_encoding)op->answers, &batch, err);
    if (rc == SF_OK)
        *result = batch_to_python(op, &batch);
    return rc;
}

static enum op_outcome next_start(struct operation *op, PyObject **result)
{
    struct py_scan *o = (struct py_scan *)op->owner;
    struct pending *p;
    sf_error err;
    sf_call *call = NULL;
    sf_status rc;

    if (!scan_is_open(o))
        return OP_FAILED;
    rc = try_next(op, o, result, &err);
    if (rc == SF_OK)
        return *result ? OP_FINISHED : OP_FAILED;
    if (rc != SF_WOULD_BLOCK) {
        raise_error(op->st, &err);
        return OP_FAILED;
    }
    p = op_begin(op); /* runs Python, which may close the scan: so it is looked at once more */
    if (!p)
        return OP_FAILED;
    if (!scan_is_open(o)) {
        op_not_begun(op);
        return OP_FAILED;
    }
    rc = sf_scan_next_start(&call, o->scan, op->n, op->timeout_ms, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static enum op_outcome scan_next_start(struct operation *op, PyObject **result)
{
    enum op_outcome o;

    Py_BEGIN_CRITICAL_SECTION(op->owner);
    o = next_start(op, result);
    Py_END_CRITICAL_SECTION();
    return o;
}

static PyObject *scan_next_take(struct operation *op, sf_call *call)
{
    struct ArrowArray batch = {0};
    size_t n;
    bool end;
    const sf_row *rows = sf_call_rows(call, &n, &end);
    sf_error err;

    if (!op->a)
        return rows_to_python(rows, n);
    if (n > 0 && sf_rows_export_arrow(&batch, rows, n, (sf_key_encoding)op->answers, &err) != SF_OK) {
        raise_error(op->st, &err);
        return NULL;
    }
    return batch_to_python(op, &batch);
}

static const struct op_kind scan_next_kind = {.name = "Scan.next", .start = scan_next_start, .take = scan_next_take};

static PyObject *scan_next(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_rows", "timeout", "ask", NULL};
    PyObject *timeout = NULL, *ask = NULL, *op;
    long max_rows = 1000;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|lOO:next", names, &max_rows, &timeout, &ask) ||
        !timeout_from_python(timeout, &ms))
        return NULL;
    if (max_rows <= 0 || max_rows > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "max_rows must be positive");
        return NULL;
    }
    op = op_asking(op_new(((struct py_scan *)self)->st, &scan_next_kind, self, NULL, NULL, ms), ask);
    if (op)
        ((struct operation *)op)->n = (uint32_t)max_rows;
    return op;
}

static PyObject *scan_next_batch(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "max_rows", "timeout", "ask", NULL};
    PyObject *keys, *timeout = NULL, *ask = NULL, *op;
    sf_key_encoding encoding;
    long max_rows = 1000;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|lOO:next_batch", names, &keys, &max_rows, &timeout, &ask) ||
        !text_check(keys, "keys") || !arrow_keys_from_python(PyUnicode_AsUTF8(keys), &encoding) ||
        !timeout_from_python(timeout, &ms))
        return NULL;
    if (max_rows <= 0 || max_rows > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "max_rows must be positive");
        return NULL;
    }
    op = op_asking(op_new(((struct py_scan *)self)->st, &scan_next_kind, self, keys, NULL, ms), ask);
    if (op) {
        ((struct operation *)op)->n = (uint32_t)max_rows;
        ((struct operation *)op)->answers = encoding;
    }
    return op;
}

static PyObject *scan_close(PyObject *self, PyObject *unused)
{
    struct py_scan *o = (struct py_scan *)self;

    (void)unused;
    if (o->stepping)
        o->closing = true;
    else
        scan_end(o);
    Py_RETURN_NONE;
}

static void scan_dealloc(PyObject *self)
{
    struct py_scan *o = (struct py_scan *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (native_owns_engine(o->st))
        sf_scan_close(o->scan);
    type->tp_free(self);
    Py_DECREF(type);
}

NATIVE_ALONE(scan_close);

static PyMethodDef scan_methods[] = {
    NOT_COPIED,
    {"next", (PyCFunction)(void (*)(void))scan_next, METH_VARARGS | METH_KEYWORDS,
     "next($self, max_rows=1000, timeout=None, ask=None)\n--\n\nThe next rows; an empty list at the end."},
    {"next_batch", (PyCFunction)(void (*)(void))scan_next_batch, METH_VARARGS | METH_KEYWORDS,
     "next_batch($self, keys, max_rows=1000, timeout=None, ask=None)\n--\n\nThe next rows as Arrow data; None at the end."},
    {"close", ALONE(scan_close), METH_NOARGS, "close($self)\n--\n\nEnds the scan."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scan_slots[] = {
    {Py_tp_dealloc, scan_dealloc},
    {Py_tp_methods, scan_methods},
    {0, NULL},
};

PyType_Spec scan_spec = {
    .name = "shardyfusion._native.Scan",
    .basicsize = sizeof(struct py_scan),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scan_slots,
};
