/* Readers: opening, following the pointer, health. */
#include "convert.h"
#include "module.h"
#include "objects.h"
#include "options.h"

/* ---------------------------------------------------------------- opening ---------------------------------------- */

static PyObject *reader_to_python(native_state *st, sf_reader *r, PyObject *ask)
{
    struct py_reader *o = PyObject_New(struct py_reader, st->reader_type);

    if (!o) {
        sf_reader_free(r);
        return NULL;
    }
    o->st = st;
    o->r = r;
    o->asks = ask != NULL;
    return (PyObject *)o;
}

static enum op_outcome open_start(struct operation *op, PyObject **result)
{
    sf_runtime *rt = native_runtime(op->st);
    const char *prefix = PyUnicode_AsUTF8(op->owner);
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_s3_options s3[2];
    PyObject *item;
    struct pending *p;
    sf_error err;
    sf_call *call = NULL;
    sf_status rc;

    (void)result;
    if (!rt || !prefix || !reader_options_from_python(op->a, &o, s3))
        return OP_FAILED;
    o.open_timeout_ms = op->timeout_ms;
    item = dict_item(op->a, "own_manifests");
    if (PyErr_Occurred())
        return OP_FAILED;
    o.manifests = op->ask && !(item && PyObject_IsTrue(item) > 0) ? &manifest_questions : NULL;
    p = op_begin(op);
    if (!p)
        return OP_FAILED;
    rc = sf_reader_open_start(&call, rt, prefix, &o, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

/* Appends what the call could not use to the caller's list, which may be NULL. False with an exception. */
static bool tell_rejected(struct operation *op, PyObject *list, const sf_call *call)
{
    size_t n;
    const sf_rejected_manifest *rejected = sf_call_rejected_manifests(call, &n);
    bool ok = true;

    for (size_t i = 0; list && ok && i < n; i++) {
        const char *ref = rejected[i].manifest_ref;
        PyObject *own = failure_of(op->pending, ref);
        PyObject *pair = Py_BuildValue("(NNO)", text_to_python(ref), own ? own : exception_of(op->st, &rejected[i].error),
                                       rejected[i].error.code == SF_BAD_MANIFEST ? Py_True : Py_False);

        ok = pair && PyList_Append(list, pair) == 0;
        Py_XDECREF(pair);
    }
    return ok;
}

static PyObject *open_take(struct operation *op, sf_call *call)
{
    return tell_rejected(op, op->b, call) ? reader_to_python(op->st, sf_call_take_reader(call), op->ask) : NULL;
}

static PyObject *open_fail(struct operation *op, sf_call *call)
{
    if (tell_rejected(op, op->b, call))
        op_raise(op, call);
    return NULL;
}

static const struct op_kind open_kind = {.name = "open_reader", .start = open_start, .take = open_take, .fail = open_fail};

PyObject *native_open_reader(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"prefix", "options", "timeout", "rejected", "ask", NULL};
    PyObject *prefix, *options, *timeout = NULL, *rejected = NULL, *ask = NULL;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UO!|OO!O:open_reader", names, &prefix, &PyDict_Type, &options,
                                     &timeout, &PyList_Type, &rejected, &ask) ||
        !text_check(prefix, "prefix") || !timeout_from_python(timeout, &ms))
        return NULL;
    return op_asking(op_new(PyModule_GetState(module), &open_kind, prefix, options, rejected, ms), ask);
}

/* ---------------------------------------------------------------- refreshing ------------------------------------- */

typedef sf_status start_fn(sf_call **out, sf_reader *r, int64_t timeout_ms, sf_call_done_fn done, void *ctx,
                           sf_error *err);

static enum op_outcome reader_start(struct operation *op, start_fn *start)
{
    struct pending *p = op_begin(op);
    sf_error err;
    sf_call *call = NULL;
    sf_status rc;

    if (!p)
        return OP_FAILED;
    rc = start(&call, ((struct py_reader *)op->owner)->r, op->timeout_ms, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static enum op_outcome refresh_start(struct operation *op, PyObject **result)
{
    (void)result;
    return reader_start(op, sf_reader_refresh_start);
}

static PyObject *refresh_take(struct operation *op, sf_call *call)
{
    return tell_rejected(op, op->a, call) ? PyBool_FromLong(sf_call_changed(call)) : NULL;
}

static PyObject *refresh_fail(struct operation *op, sf_call *call)
{
    if (tell_rejected(op, op->a, call))
        op_raise(op, call);
    return NULL;
}

static const struct op_kind refresh_kind = {
    .name = "Reader.refresh", .start = refresh_start, .take = refresh_take, .fail = refresh_fail};

static PyObject *reader_refresh(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", "rejected", "ask", NULL};
    PyObject *timeout = NULL, *rejected = NULL, *ask = NULL;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO!O:refresh", names, &timeout, &PyList_Type, &rejected, &ask) ||
        !timeout_from_python(timeout, &ms))
        return NULL;
    if (((struct py_reader *)self)->asks != (ask && ask != Py_None)) {
        PyErr_SetString(PyExc_TypeError, "a reader that was opened with ask is refreshed with it, and no other");
        return NULL;
    }
    return op_asking(op_new(((struct py_reader *)self)->st, &refresh_kind, self, rejected, NULL, ms), ask);
}

/* ---------------------------------------------------------------- waiting for it --------------------------------- */

static enum op_outcome due_start(struct operation *op, PyObject **result)
{
    struct pending *p = op_begin(op);
    sf_error err;
    sf_call *call = NULL;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_reader_due_start(&call, ((struct py_reader *)op->owner)->r, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static enum op_outcome moved_start(struct operation *op, PyObject **result)
{
    const char *ref = PyUnicode_AsUTF8(op->a);
    struct pending *p = ref ? op_begin(op) : NULL;
    sf_reader *r = ((struct py_reader *)op->owner)->r;
    sf_error err;
    sf_call *call = NULL;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_reader_moved_start(&call, r, ref, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static PyObject *nothing_to_take(struct operation *op, sf_call *call)
{
    (void)op;
    (void)call;
    Py_RETURN_NONE;
}

static enum op_outcome ready_start(struct operation *op, PyObject **result)
{
    (void)result;
    return reader_start(op, sf_reader_ready_start);
}

static const struct op_kind ready_kind = {.name = "Reader.ready", .start = ready_start, .take = nothing_to_take};

static PyObject *reader_ready(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:ready", names, &timeout) || !timeout_from_python(timeout, &ms))
        return NULL;
    return op_new(((struct py_reader *)self)->st, &ready_kind, self, NULL, NULL, ms);
}

static PyObject *reader_ready_bytes(PyObject *self, PyObject *unused)
{
    uint64_t done, total;

    (void)unused;
    sf_reader_ready_bytes(((struct py_reader *)self)->r, &done, &total);
    return Py_BuildValue("(KK)", (unsigned long long)done, (unsigned long long)total);
}

static const struct op_kind due_kind = {.name = "Reader.due", .start = due_start, .take = nothing_to_take};
static const struct op_kind moved_kind = {.name = "Reader.moved", .start = moved_start, .take = nothing_to_take};

static PyObject *reader_due(PyObject *self, PyObject *unused)
{
    (void)unused;
    return op_new(((struct py_reader *)self)->st, &due_kind, self, NULL, NULL, SF_TIMEOUT_NONE);
}

static PyObject *reader_moved(PyObject *self, PyObject *ref)
{
    if (!text_check(ref, "manifest_ref"))
        return NULL;
    return op_new(((struct py_reader *)self)->st, &moved_kind, self, ref, NULL, SF_TIMEOUT_NONE);
}

/* ---------------------------------------------------------------- the rest --------------------------------------- */

static PyObject *reader_snapshot(PyObject *self, PyObject *args)
{
    struct py_reader *o = (struct py_reader *)self;
    struct py_snapshot *known = NULL;
    sf_error err;
    sf_snapshot *s;

    if (!PyArg_ParseTuple(args, "|O!:snapshot", o->st->snapshot_type, &known))
        return NULL;
    if (known && !native_owns_engine(o->st)) /* what is known of the parent's reader stays true */
        return Py_NewRef(known);
    s = sf_reader_borrow(o->r, &err);
    if (!s) {
        raise_error(o->st, &err);
        return NULL;
    }
    if (!known || NATIVE_LOAD(known->s) != s)
        return snapshot_to_python(o->st, s);
    sf_snapshot_give_back(s);
    return Py_NewRef(known);
}

static PyObject *reader_health(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"staleness_ms", "by", NULL};
    static const char *const kinds[] = {"reader", "snapshot", "refresh"}; /* sf_staleness_of */
    static const char *const statuses[] = {"healthy", "degraded", "unhealthy"};
    PyObject *staleness = NULL;
    sf_reader_health h;
    const char *by = kinds[SF_STALENESS_OF_READER];
    unsigned kind = 0;
    long long ms = -1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Os:health", names, &staleness, &by))
        return NULL;
    while (kind < sizeof(kinds) / sizeof(kinds[0]) && strcmp(by, kinds[kind]) != 0)
        kind++;
    if (kind == sizeof(kinds) / sizeof(kinds[0])) {
        PyErr_SetString(PyExc_ValueError, "by must be 'reader', 'snapshot' or 'refresh'");
        return NULL;
    }
    if (staleness && staleness != Py_None) {
        ms = PyLong_AsLongLong(staleness);
        if (ms == -1 && PyErr_Occurred())
            return NULL;
    }
    sf_reader_get_health(((struct py_reader *)self)->r, ms, (sf_staleness_of)kind, &h);
    return Py_BuildValue("{s:s,s:O,s:O,s:I,s:L,s:L,s:L,s:I,s:I,s:N}", "status", statuses[h.status], "closed",
                         h.closed ? Py_True : Py_False, "fallback", h.fallback ? Py_True : Py_False, "num_dbs",
                         h.num_dbs, "age_ms", (long long)h.age_ms, "since_refresh_ms", (long long)h.since_refresh_ms,
                         "snapshot_age_ms", (long long)h.snapshot_age_ms, "borrowed", h.borrowed, "refresh_failures",
                         h.refresh_failures, "last_refresh_error", text_to_python(h.last_refresh_error));
}

static PyObject *reader_cache_stats(PyObject *self, PyObject *unused)
{
    struct py_reader *o = (struct py_reader *)self;
    sf_cache_stats c = {0};
    sf_disk_stats d = {0};
    sf_hedge_stats h = {0};
    sf_runtime_stats r = {0};

    (void)unused;
    if (native_owns_engine(o->st)) {
        sf_reader_cache_stats(o->r, &c);
        sf_reader_disk_stats(o->r, &d);
        sf_reader_hedge_stats(o->r, &h);
        sf_runtime_get_stats(o->st->rt, &r);
    }
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "hits", (unsigned long long)c.hits,
        "misses", (unsigned long long)c.misses, "bytes", (unsigned long long)c.bytes, "max_bytes",
        (unsigned long long)c.max_bytes, "evictions", (unsigned long long)c.evictions, "requests",
        (unsigned long long)r.requests, "bytes_fetched", (unsigned long long)r.bytes_fetched, "disk_hits",
        (unsigned long long)d.hits, "disk_misses", (unsigned long long)d.misses, "disk_bytes_read",
        (unsigned long long)d.bytes_read, "disk_bytes_written", (unsigned long long)d.bytes_written, "disk_dropped",
        (unsigned long long)d.dropped, "hedges_sent", (unsigned long long)h.sent, "hedges_won",
        (unsigned long long)h.won, "hedges_refused_budget", (unsigned long long)h.refused_budget, "hedges_refused_sick",
        (unsigned long long)h.refused_sick, "hedges_refused_room", (unsigned long long)h.refused_room);
}

static PyObject *reader_close(PyObject *self, PyObject *unused)
{
    struct py_reader *o = (struct py_reader *)self;

    (void)unused;
    if (native_owns_engine(o->st))
        sf_reader_close(o->r);
    Py_RETURN_NONE;
}

static void reader_dealloc(PyObject *self)
{
    struct py_reader *o = (struct py_reader *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (native_owns_engine(o->st))
        sf_reader_free(o->r);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef reader_methods[] = {
    NOT_COPIED,
    {"snapshot", reader_snapshot, METH_VARARGS,
     "snapshot($self, known=None, /)\n--\n\nThe present snapshot, pinned; `known` itself while it is that."},
    {"ready", (PyCFunction)(void (*)(void))reader_ready, METH_VARARGS | METH_KEYWORDS,
     "ready($self, timeout=None)\n--\n\nEnds when the snapshot is where the residency says."},
    {"ready_bytes", reader_ready_bytes, METH_NOARGS,
     "ready_bytes($self)\n--\n\nHow far the last ready() is: bytes, of how many."},
    {"refresh", (PyCFunction)(void (*)(void))reader_refresh, METH_VARARGS | METH_KEYWORDS,
     "refresh($self, timeout=None, rejected=None, ask=None)\n--\n\nFollows the pointer; whether the snapshot changed."},
    {"due", reader_due, METH_NOARGS, "due($self)\n--\n\nEnds when a refresh is due, by the reader's refresh_interval."},
    {"moved", reader_moved, METH_O,
     "moved($self, manifest_ref, /)\n--\n\nEnds when another manifest than this one is served."},
    {"health", (PyCFunction)(void (*)(void))reader_health, METH_VARARGS | METH_KEYWORDS,
     "health($self, staleness_ms=None, by=\"reader\")\n--\n\nNo I/O, never fails."},
    {"cache_stats", reader_cache_stats, METH_NOARGS, "cache_stats($self)\n--\n\nThe fields of CacheStats."},
    {"close", reader_close, METH_NOARGS, "close($self)\n--\n\nNew operations fail from now on."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {0, NULL},
};

PyType_Spec reader_spec = {
    .name = "shardyfusion._native.Reader",
    .basicsize = sizeof(struct py_reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};
