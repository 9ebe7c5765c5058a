/* Verifying and comparing pinned snapshots. Blocking, without the GIL; a callback gets it back. */
#include "convert.h"
#include "module.h"
#include "objects.h"

static PyObject *bytes_of(sf_bytes b)
{
    return PyBytes_FromStringAndSize((const char *)b.p, (Py_ssize_t)b.n);
}

/* ---------------------------------------------------------------- verifying ------------------------------------------ */

/* The thread that verifies is without the GIL but in here. */
struct verify_listener {
    PyThreadState *thread;
    PyObject *progress; /* None: nobody wants to know */
    bool failed;        /* its exception, or that of a signal, waits to be raised */
};

static bool on_progress(void *ctx, const sf_verify_progress *p)
{
    struct verify_listener *l = ctx;
    PyObject *answer = NULL;

    PyEval_RestoreThread(l->thread);
    if (PyErr_CheckSignals() == 0)
        answer = l->progress == Py_None
                     ? Py_NewRef(Py_None)
                     : PyObject_CallFunction(l->progress, "IIKK", p->shards_done, p->shards_total,
                                             (unsigned long long)p->bytes, (unsigned long long)p->rows);
    l->failed = answer == NULL;
    Py_XDECREF(answer);
    l->thread = PyEval_SaveThread();
    return !l->failed;
}

static PyObject *damage_to_python(const sf_damage *d)
{
    PyObject *message, *object, *offset;

    if (!d)
        Py_RETURN_NONE;
    message = text_or_none(d->error.message);
    object = text_or_none(d->error.object);
    offset = d->offset == SF_NO_OFFSET ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(d->offset);
    if (message && object && offset)
        return Py_BuildValue("(NNN)", message, object, offset);
    Py_XDECREF(message);
    Py_XDECREF(object);
    Py_XDECREF(offset);
    return NULL;
}

static PyObject *verdict_to_python(const void *item)
{
    const sf_shard_verdict *v = item;
    const sf_verify_result *r = &v->result;
    PyObject *first = damage_to_python(v->first);

    return first ? Py_BuildValue("(IKKKKOKN)", v->db_id, (unsigned long long)r->objects, (unsigned long long)r->bytes,
                                 (unsigned long long)r->rows, (unsigned long long)v->manifest_rows,
                                 r->hashed ? Py_True : Py_False, (unsigned long long)r->damages, first)
                 : NULL;
}

static PyObject *verdicts_to_python(const sf_verification *v)
{
    size_t n;
    const sf_shard_verdict *verdicts = sf_verification_verdicts(v, &n);

    return list_to_python(verdicts, n, sizeof(*verdicts), verdict_to_python);
}

PyObject *native_verify(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    sf_verification_options o = SF_VERIFICATION_OPTIONS_INIT;
    struct verify_listener l = {.progress = Py_None};
    sf_verification *verification = NULL;
    PyObject *snapshot, *timeout, *result = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_snapshot *s;
    sf_status rc;
    int deep;

    if (!PyArg_ParseTuple(args, "O!pIOO:verify", st->snapshot_type, &snapshot, &deep, &o.threads, &timeout, &l.progress) ||
        !timeout_from_python(timeout, &o.timeout_ms))
        return NULL;
    s = snapshot_held(snapshot);
    if (!s)
        return NULL;
    o.deep = deep;
    o.progress = on_progress;
    o.ctx = &l;
    l.thread = PyEval_SaveThread();
    rc = sf_snapshot_verify(&verification, s, &o, &err);
    sf_snapshot_give_back(s);
    PyEval_RestoreThread(l.thread);
    if (rc == SF_OK)
        result = verdicts_to_python(verification);
    else if (!l.failed)
        raise_error(st, &err);
    if (rc == SF_OK)
        sf_verification_free(verification);
    return result;
}

/* ---------------------------------------------------------------- comparing manifests -------------------------------- */

struct difference_listener {
    PyObject *list;
    bool failed;
};

static PyObject *fact_to_python(const sf_fact *f)
{
    switch (f->kind) {
    case SF_FACT_TEXT:
    case SF_FACT_JSON:
        return text_to_python(f->text);
    case SF_FACT_UINT:
        return PyLong_FromUnsignedLongLong(f->number);
    case SF_FACT_TIME:
        return PyLong_FromLongLong(f->time_us);
    case SF_FACT_NONE:
        break;
    }
    Py_RETURN_NONE;
}

static bool on_difference(void *ctx, const sf_difference *d)
{
    static const char *const kinds[] = {"none", "text", "json", "uint", "time"};
    sf_fact_kind kind = d->from.kind != SF_FACT_NONE ? d->from.kind : d->to.kind;
    struct difference_listener *l = ctx;
    PyObject *from = fact_to_python(&d->from), *to = from ? fact_to_python(&d->to) : NULL;
    PyObject *row = to ? Py_BuildValue("(ssOO)", d->name, kinds[kind], from, to) : NULL;

    l->failed = !row || PyList_Append(l->list, row) < 0;
    Py_XDECREF(from);
    Py_XDECREF(to);
    Py_XDECREF(row);
    return !l->failed;
}

PyObject *native_compare(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    struct difference_listener l = {NULL, false};
    PyObject *from, *to;
    sf_error err = SF_ERROR_INIT;
    sf_snapshot *a, *b;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "O!O!:compare", st->snapshot_type, &from, st->snapshot_type, &to))
        return NULL;
    a = snapshot_held(from);
    b = a ? snapshot_held(to) : NULL;
    l.list = b ? PyList_New(0) : NULL;
    if (l.list) {
        rc = sf_snapshot_compare(a, b, on_difference, &l, &err); /* no I/O */
        if (rc != SF_OK)
            raise_error(st, &err);
        if (rc != SF_OK || l.failed)
            Py_CLEAR(l.list);
    }
    sf_snapshot_give_back(a);
    sf_snapshot_give_back(b);
    return l.list;
}

/* ---------------------------------------------------------------- comparing rows ------------------------------------- */

struct py_row_diff {
    PyObject_HEAD
    native_state *st;
    sf_row_diff *diff; /* NULL: closed */
    bool busy;         /* a thread is in a step, without the GIL: it closes what was closed meanwhile */
};

PyObject *native_row_diff(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    PyObject *from, *to;
    sf_error err = SF_ERROR_INIT;
    struct py_row_diff *o = NULL;
    sf_snapshot *a, *b;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "O!O!:row_diff", st->snapshot_type, &from, st->snapshot_type, &to))
        return NULL;
    a = snapshot_held(from);
    b = a ? snapshot_held(to) : NULL;
    if (b)
        o = PyObject_New(struct py_row_diff, st->row_diff_type);
    if (o) {
        o->st = st;
        o->diff = NULL;
        o->busy = false;
        rc = sf_row_diff_open(&o->diff, a, b, &err);
        if (rc != SF_OK) {
            raise_error(st, &err);
            Py_CLEAR(o);
        }
    }
    sf_snapshot_give_back(a);
    sf_snapshot_give_back(b);
    return (PyObject *)o;
}

static PyObject *change_to_python(const void *item)
{
    static const char *const kinds[] = {"added", "removed", "changed"};
    const sf_row_change *c = item;
    PyObject *key = bytes_of(c->key);
    PyObject *from = c->change == SF_ROW_ADDED ? Py_NewRef(Py_None) : bytes_of(c->from);
    PyObject *to = c->change == SF_ROW_REMOVED ? Py_NewRef(Py_None) : bytes_of(c->to);
    PyObject *row = key && from && to ? Py_BuildValue("(sOOO)", kinds[c->change], key, from, to) : NULL;

    Py_XDECREF(key);
    Py_XDECREF(from);
    Py_XDECREF(to);
    return row;
}

static PyObject *row_diff_next(PyObject *self, PyObject *args)
{
    struct py_row_diff *o = (struct py_row_diff *)self;
    const sf_row_change *changes;
    sf_row_diff *diff;
    PyObject *timeout, *list = NULL;
    PyThreadState *thread;
    sf_error err = SF_ERROR_INIT;
    sf_row_diff_progress p;
    Py_ssize_t max;
    size_t count;
    int64_t ms;
    bool end;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "nO:next", &max, &timeout) || !timeout_from_python(timeout, &ms))
        return NULL;
    diff = o->diff; /* not sooner: a timeout may be an object that runs code */
    if (!diff || o->busy) {
        PyErr_SetString(PyExc_ValueError, diff ? "a step is under way already" : "the comparison is closed");
        return NULL;
    }
    o->busy = true;
    thread = PyEval_SaveThread();
    rc = sf_row_diff_next(diff, max > 0 ? (size_t)max : 0, ms, &changes, &count, &end, &err);
    PyEval_RestoreThread(thread);
    o->busy = false;
    if (rc == SF_OK) {
        list = list_to_python(changes, count, sizeof(*changes), change_to_python);
        sf_row_diff_get_progress(diff, &p);
    } else {
        raise_error(o->st, &err);
    }
    if (!o->diff)
        sf_row_diff_close(diff);
    return list ? Py_BuildValue("(NO(IIIK))", list, end ? Py_True : Py_False, p.shards_done, p.shards_total,
                                p.shards_skipped, (unsigned long long)p.rows)
                : NULL;
}

static PyObject *row_diff_close(PyObject *self, PyObject *unused)
{
    struct py_row_diff *o = (struct py_row_diff *)self;
    sf_row_diff *diff = o->diff;

    (void)unused;
    o->diff = NULL;
    if (!o->busy)
        sf_row_diff_close(diff);
    Py_RETURN_NONE;
}

static void row_diff_dealloc(PyObject *self)
{
    struct py_row_diff *o = (struct py_row_diff *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (native_owns_engine(o->st))
        sf_row_diff_close(o->diff);
    type->tp_free(self);
    Py_DECREF(type);
}

NATIVE_ALONE(row_diff_next);
NATIVE_ALONE(row_diff_close);

static PyMethodDef row_diff_methods[] = {
    NOT_COPIED,
    {"next", ALONE(row_diff_next), METH_VARARGS,
     "next($self, max_changes, timeout, /)\n--\n\n([(change, stored key, from, to)], whether that is all, "
     "(shards done, of how many, of them skipped, rows))"},
    {"close", ALONE(row_diff_close), METH_NOARGS, "close($self)\n--\n\nEnds the comparison."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot row_diff_slots[] = {
    {Py_tp_dealloc, row_diff_dealloc},
    {Py_tp_methods, row_diff_methods},
    {0, NULL},
};

PyType_Spec row_diff_spec = {
    .name = "shardyfusion._native.RowDiff",
    .basicsize = sizeof(struct py_row_diff),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = row_diff_slots,
};
