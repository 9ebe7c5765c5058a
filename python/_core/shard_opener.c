/* Shards of the caller's, as the engine asks for them: see question.c. What it keeps of a shard is a number, of a scan likewise:
 * the objects stay where the collector sees them, with whoever answers. */
#include "convert.h"
#include "module.h"
#include "objects.h"
#include "question.h"

#include <shardyfusion/shard_opener.h>

#include <string.h>

#define NOBODY_WAITS "the operation that needs it has ended"

/* Counted: by the Python object, by each copy of options that the engine holds, by each shard and scan. */
struct plug {
    atomic_uint refs;
    atomic_ullong numbers;   /* given out so far */
    pthread_mutex_t lock;    /* covers what follows */
    struct numbered *closed; /* newest first */
};

/* A shard, or a scan of one. */
struct numbered {
    struct numbered *next;
    struct plug *plug; /* acquired */
    unsigned long long number;
    bool is_scan;
};

struct py_opener {
    PyObject_HEAD
    sf_shard_opener vtable;
};

/* ---------------------------------------------------------------- numbers ---------------------------------------- */

static void plug_retain(void *ctx)
{
    atomic_fetch_add_explicit(&((struct plug *)ctx)->refs, 1, memory_order_relaxed);
}

static void plug_release(void *ctx)
{
    struct plug *p = ctx;

    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (struct numbered *n = p->closed, *next; n; n = next) {
        next = n->next;
        PyMem_RawFree(n);
    }
    pthread_mutex_destroy(&p->lock);
    PyMem_RawFree(p);
}

static struct numbered *numbered_new(struct plug *p, bool is_scan)
{
    struct numbered *n = PyMem_RawCalloc(1, sizeof(*n));

    if (!n)
        return NULL;
    plug_retain(p);
    n->plug = p;
    n->number = atomic_fetch_add(&p->numbers, 1) + 1;
    n->is_scan = is_scan;
    return n;
}

/* Any thread: it waits until Python asks what was closed. */
static void numbered_close(struct numbered *n)
{
    struct plug *p = n->plug;

    pthread_mutex_lock(&p->lock);
    n->next = p->closed;
    p->closed = n;
    pthread_mutex_unlock(&p->lock);
    plug_release(p);
}

/* ---------------------------------------------------------------- questions -------------------------------------- */

/* The request of a question. */
struct shard_ask {
    sf_shard_request *rq; /* NULL: answered */
    struct plug *plug;    /* acquired */
    const struct numbered *shard, *scan;
    const sf_shard_to_open *open;
    const sf_bytes *keys;
    size_t count;
    const sf_shard_rows_wanted *wanted;
};

static PyObject *bytes_or_none(bool given, sf_bytes b)
{
    if (!given)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)b.p, (Py_ssize_t)b.n);
}

static PyObject *key_to_python(const void *item)
{
    return bytes_or_none(true, *(const sf_bytes *)item);
}

static PyObject *about_opening(const sf_shard_to_open *o)
{
    return Py_BuildValue("(IszsNOI)", o->db_id, o->url, o->checkpoint_id, o->manifest_ref,
                         bytes_or_none(true, o->manifest), o->shared ? Py_True : Py_False, o->together);
}

/* Where the caller gave a prefix the shard gets that, not the range it comes to. */
static PyObject *about_rows(const struct shard_ask *a)
{
    const sf_shard_rows_wanted *w = a->wanted;
    bool range = !w->has_prefix;
    PyObject *limit = w->limit == UINT64_MAX ? Py_NewRef(Py_None) : PyLong_FromUnsignedLongLong(w->limit);

    return Py_BuildValue("(KK{s:N,s:N,s:N,s:N,s:O}nn)", a->shard->number, a->scan->number, "start",
                         bytes_or_none(range && w->start.n > 0, w->start), "end",
                         bytes_or_none(range && w->has_end, w->end), "prefix", bytes_or_none(w->has_prefix, w->prefix),
                         "limit", limit, "reverse", w->reverse ? Py_True : Py_False, (Py_ssize_t)w->max_rows,
                         w->max_bytes > PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX : (Py_ssize_t)w->max_bytes);
}

/* What was asked is there until it is answered. */
static PyObject *about(void *request, const char *what)
{
    const struct shard_ask *a = request;

    (void)what;
    if (!a->rq) {
        PyErr_SetString(PyExc_ValueError, "the question was answered already");
        return NULL;
    }
    if (a->open)
        return about_opening(a->open);
    return a->scan ? about_rows(a)
                   : Py_BuildValue("(KN)", a->shard->number,
                                   list_to_python(a->keys, a->count, sizeof(*a->keys), key_to_python));
}

static sf_shard_request *take(struct shard_ask *a)
{
    sf_shard_request *rq = a->rq;

    a->rq = NULL;
    return rq;
}

/* A table, and what is to be in there under the shard's number before the engine has it: it may close it at once. */
static bool answer_opening(struct shard_ask *a, PyObject *value)
{
    PyObject *table, *shard, *number;
    struct numbered *n;
    bool kept;

    if (!PyArg_ParseTuple(value, "O!O", &PyDict_Type, &table, &shard))
        return false;
    n = numbered_new(a->plug, false);
    if (!n) {
        PyErr_NoMemory();
        return false;
    }
    number = PyLong_FromUnsignedLongLong(n->number);
    kept = number && PyDict_SetItem(table, number, shard) == 0;
    Py_XDECREF(number);
    if (kept) {
        sf_shard_request_opened(take(a), n);
        return true;
    }
    plug_release(n->plug);
    PyMem_RawFree(n);
    return false;
}

/* An exception in place of a value: whoever answers keeps it for the caller. */
static bool add_values(sf_shard_request *rq, PyObject *values)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(values); i++) {
        PyObject *v = PyTuple_GET_ITEM(values, i);
        Py_buffer view;

        if (v == Py_None)
            continue;
        if (PyExceptionInstance_Check(v)) {
            sf_shard_request_key_failed(rq, (size_t)i, SF_IO, Py_TYPE(v)->tp_name);
            continue;
        }
        if (PyObject_GetBuffer(v, &view, PyBUF_SIMPLE) < 0)
            return false;
        sf_shard_request_value(rq, (size_t)i, (sf_bytes){view.buf, (size_t)view.len});
        PyBuffer_Release(&view);
    }
    return true;
}

static bool add_row(sf_shard_request *rq, PyObject *row)
{
    Py_buffer key, value;

    if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != 2) {
        PyErr_Format(PyExc_TypeError, "a row must be a tuple of key and value, not %.200s", Py_TYPE(row)->tp_name);
        return false;
    }
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(row, 0), &key, PyBUF_SIMPLE) < 0)
        return false;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(row, 1), &value, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&key);
        return false;
    }
    sf_shard_request_row(rq, (sf_bytes){key.buf, (size_t)key.len}, (sf_bytes){value.buf, (size_t)value.len});
    PyBuffer_Release(&key);
    PyBuffer_Release(&value);
    return true;
}

static bool add_rows(sf_shard_request *rq, PyObject *rows)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rows); i++)
        if (!add_row(rq, PyTuple_GET_ITEM(rows, i)))
            return false;
    return true;
}

/* __buffer__() of a value may do anything: to it the question is answered, and what it does to the list comes too late. */
static bool answer_list(struct shard_ask *a, PyObject *list)
{
    sf_shard_request *rq;
    PyObject *all;
    bool good;

    if (!PyList_Check(list) || (!a->scan && (size_t)PyList_GET_SIZE(list) != a->count)) {
        PyErr_SetString(PyExc_TypeError,
                        a->scan ? "the rows are no list" : "there must be a list of as many values as keys");
        return false;
    }
    all = PyList_AsTuple(list);
    if (!all)
        return false;
    rq = take(a);
    good = a->scan ? add_rows(rq, all) : add_values(rq, all);
    if (good)
        sf_shard_request_done(rq);
    else
        a->rq = rq; /* for whoever tells of the failure */
    Py_DECREF(all);
    return good;
}

static bool answer(void *request, const char *what, PyObject *value, bool *taken)
{
    struct shard_ask *a = request;

    (void)what;
    *taken = a->rq != NULL;
    if (!a->rq)
        return true;
    return a->open ? answer_opening(a, value) : answer_list(a, value);
}

static bool fail(void *request, sf_status code, const char *text)
{
    sf_shard_request *rq = take(request);

    if (rq)
        sf_shard_request_fail(rq, code, text);
    return rq != NULL;
}

static void release(void *request)
{
    struct shard_ask *a = request;

    fail(a, SF_CANCELLED, NOBODY_WAITS);
    plug_release(a->plug);
    PyMem_RawFree(a);
}

static const struct question_kind kind = {.answer = answer, .fail = fail, .release = release, .about = about};

/* ---------------------------------------------------------------- for the engine, on its loop thread ------------- */

static void ask(const char *what, const struct shard_ask *given)
{
    struct pending *p = sf_shard_request_call_ctx(given->rq);
    struct shard_ask *a = p ? PyMem_RawMalloc(sizeof(*a)) : NULL;

    if (!a) {
        sf_shard_request_fail(given->rq, p ? SF_NOMEM : SF_CANCELLED, p ? "question" : NOBODY_WAITS);
        return;
    }
    *a = *given;
    plug_retain(a->plug);
    question_put(p, &kind, a, what, NULL, 0);
}

static void plug_open(void *ctx, const sf_shard_to_open *what, sf_shard_request *rq)
{
    ask("open_shard", &(struct shard_ask){.rq = rq, .plug = ctx, .open = what});
}

static void plug_get_many(void *shard, const sf_bytes *keys, size_t count, sf_shard_request *rq)
{
    struct numbered *n = shard;

    ask("values", &(struct shard_ask){.rq = rq, .plug = n->plug, .shard = n, .keys = keys, .count = count});
}

static void plug_scan_next(void *shard, void **scan, const sf_shard_rows_wanted *wanted, sf_shard_request *rq)
{
    struct numbered *n = shard;

    if (!*scan)
        *scan = numbered_new(n->plug, true);
    if (!*scan)
        sf_shard_request_fail(rq, SF_NOMEM, "scan");
    else
        ask("rows", &(struct shard_ask){.rq = rq, .plug = n->plug, .shard = n, .scan = *scan, .wanted = wanted});
}

static void plug_scan_close(void *shard, void *scan)
{
    (void)shard;
    numbered_close(scan);
}

static void plug_close(void *shard)
{
    numbered_close(shard);
}

/* ---------------------------------------------------------------- settling --------------------------------------- */

static enum op_outcome settle_start(struct operation *op, PyObject **result)
{
    sf_runtime *rt = native_runtime(op->st);
    struct pending *p = rt ? op_begin(op) : NULL;
    sf_call *call = NULL;
    sf_error err;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_runtime_settle_start(&call, rt, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static PyObject *settle_take(struct operation *op, sf_call *call)
{
    (void)op;
    (void)call;
    Py_RETURN_NONE;
}

static const struct op_kind settle_kind = {.name = "settle", .start = settle_start, .take = settle_take};

PyObject *native_settle(PyObject *module, PyObject *unused)
{
    (void)unused;
    return op_new(PyModule_GetState(module), &settle_kind, NULL, NULL, NULL, SF_TIMEOUT_NONE);
}

/* ---------------------------------------------------------------- the opener ------------------------------------- */

static PyObject *opener_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    struct py_opener *self;
    struct plug *p;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":ShardOpener", names))
        return NULL;
    self = (struct py_opener *)type->tp_alloc(type, 0);
    p = self ? PyMem_RawCalloc(1, sizeof(*p)) : NULL;
    if (!p) {
        Py_XDECREF(self);
        return PyErr_NoMemory();
    }
    atomic_init(&p->refs, 1);
    pthread_mutex_init(&p->lock, NULL);
    self->vtable = (sf_shard_opener){
        .size = sizeof(self->vtable),
        .ctx = p,
        .retain = plug_retain,
        .release = plug_release,
        .open = plug_open,
        .get_many = plug_get_many,
        .scan_next = plug_scan_next,
        .scan_close = plug_scan_close,
        .close = plug_close,
    };
    return (PyObject *)self;
}

static void opener_dealloc(PyObject *self)
{
    struct py_opener *o = (struct py_opener *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (o->vtable.ctx)
        plug_release(o->vtable.ctx);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *opener_closed(PyObject *self, PyObject *unused)
{
    struct plug *p = ((struct py_opener *)self)->vtable.ctx;
    PyObject *shards = PyList_New(0), *scans = PyList_New(0);
    struct numbered *n;

    (void)unused;
    pthread_mutex_lock(&p->lock);
    n = p->closed;
    p->closed = NULL;
    pthread_mutex_unlock(&p->lock);
    for (struct numbered *next; n; n = next) {
        PyObject *list = n->is_scan ? scans : shards, *number = PyLong_FromUnsignedLongLong(n->number);

        next = n->next;
        if (!number || !list || PyList_Append(list, number) < 0)
            PyErr_WriteUnraisable(self);
        Py_XDECREF(number);
        PyMem_RawFree(n);
    }
    if (!shards || !scans) {
        Py_XDECREF(shards);
        Py_XDECREF(scans);
        return NULL;
    }
    return Py_BuildValue("(NN)", shards, scans);
}

const struct sf_shard_opener *shard_opener_of(PyObject *o)
{
    if (Py_TYPE(o)->tp_dealloc == opener_dealloc)
        return &((struct py_opener *)o)->vtable;
    PyErr_Format(PyExc_TypeError, "shard_opener must be a ShardOpener, not %.200s", Py_TYPE(o)->tp_name);
    return NULL;
}

PyObject *shard_number(const sf_snapshot *s, uint32_t db_id)
{
    const struct numbered *n = sf_snapshot_foreign_shard(s, db_id);

    if (!n)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(n->number);
}

static PyMethodDef opener_methods[] = {
    NOT_COPIED,
    {"closed", opener_closed, METH_NOARGS,
     "closed($self)\n--\n\nNumbers of the shards, and of the scans, that the engine has closed since this was asked before."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot opener_slots[] = {
    {Py_tp_new, opener_new},
    {Py_tp_dealloc, opener_dealloc},
    {Py_tp_methods, opener_methods},
    {0, NULL},
};

PyType_Spec shard_opener_spec = {
    .name = "shardyfusion._native.ShardOpener",
    .basicsize = sizeof(struct py_opener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = opener_slots,
};
