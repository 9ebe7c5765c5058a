/* The writer of snapshots. Rows are taken from Python objects in batches, with the GIL; the batch is added without it.
 *
 * One thread at a time: `busy` is set, under the GIL, while the engine works for one. Callbacks of the engine run on that
 * thread and take the GIL back. An exception that a callback leaves behind stays set, ends what is under way, and is the
 * one that the call raises. */
#include "arrow_input.h"
#include "convert.h"
#include "module.h"
#include "writing.h"

#include "writer/writer.h"

#define BATCH_ROWS 2048u
#define BATCH_BYTES (4u << 20) /* of values that are kept alive until the batch is added */

struct row_batch {
    sf_key keys[BATCH_ROWS];
    sf_bytes values[BATCH_ROWS];
    PyObject *key_objects[BATCH_ROWS], *value_objects[BATCH_ROWS];
    PyObject *records[BATCH_ROWS]; /* for whoever hears of bad rows; else NULL */
    struct routing *contexts;      /* of the rows, where they have some; BATCH_ROWS */
    size_t count, bytes;
};

struct py_writer {
    PyObject_HEAD
    native_state *st;
    sf_writer *w;               /* NULL: closed */
    PyObject *progress, *check; /* callables or NULL */
    PyObject *row_error;        /* callable: (error or None, key, value, number) -> exception */
    PyObject *bad_row; /* True: bad rows are left out; callable: (number, exception, record, key, value) hears of each; NULL */
    sf_key_encoding encoding;
    struct row_batch *batch;
    uint64_t rows;            /* taken from Python, those that were left out among them */
    unsigned long long bytes; /* of values, taken by the present add_rows() */
    bool busy, in_batch;      /* the second: the engine is at the rows of `batch` */
    PyThreadState *thread;    /* while the GIL is released for the engine */
};

/* ---------------------------------------------------------------- entering the engine ---------------------------- */

static bool enter(struct py_writer *self)
{
    if (!self->w) {
        PyErr_SetString(PyExc_ValueError, "the writer is closed");
        return false;
    }
    if (!native_owns_engine(self->st)) {
        PyErr_SetString(PyExc_RuntimeError, "the writer belongs to the parent of this forked process");
        return false;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the writer is in use by another thread");
        return false;
    }
    self->busy = true;
    return true;
}

static void without_gil(struct py_writer *self)
{
    self->thread = PyEval_SaveThread();
}

static void with_gil(struct py_writer *self)
{
    PyEval_RestoreThread(self->thread);
    self->thread = NULL;
}

/* After the engine: an exception of a callback wins over what the engine made of it. */
static bool ended_well(struct py_writer *self, sf_status rc, const sf_error *err)
{
    if (PyErr_Occurred())
        return false;
    if (rc == SF_OK)
        return true;
    raise_error(self->st, err);
    return false;
}

/* By the engine, those that were left out among them. */
static uint64_t rows_taken(const struct py_writer *self)
{
    const sf_write_report *r = sf_writer_report(self->w);

    return r->rows + r->bad_rows;
}

/* ---------------------------------------------------------------- callbacks -------------------------------------- */

static bool on_progress(void *ctx, const sf_write_progress *progress)
{
    struct py_writer *self = ctx;
    PyObject *state, *answer = NULL;
    bool go_on;

    with_gil(self);
    go_on = !PyErr_Occurred() && PyErr_CheckSignals() == 0;
    if (go_on && self->progress) {
        state = progress_to_python(progress);
        if (state)
            answer = PyObject_CallOneArg(self->progress, state);
        Py_XDECREF(state);
        Py_XDECREF(answer);
        go_on = answer != NULL;
    }
    without_gil(self);
    return go_on;
}

static sf_status on_check(void *ctx, const sf_write_report *report, sf_error *err)
{
    struct py_writer *self = ctx;
    PyObject *state, *answer = NULL;

    (void)report; /* the writer's */
    with_gil(self);
    state = report_to_python(self->w);
    if (state)
        answer = PyObject_CallOneArg(self->check, state);
    Py_XDECREF(state);
    Py_XDECREF(answer);
    without_gil(self);
    if (answer)
        return SF_OK;
    snprintf(err->message, sizeof(err->message), "the check raised an exception");
    return err->code = SF_REFUSED;
}

/* ---------------------------------------------------------------- rows ------------------------------------------- */

static void batch_clear(struct row_batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        Py_CLEAR(b->key_objects[i]);
        Py_CLEAR(b->value_objects[i]);
        Py_CLEAR(b->records[i]);
        if (b->keys[i].context)
            routing_cleanup(&b->contexts[i]);
    }
    b->count = b->bytes = 0;
}

static PyObject *key_to_python(const sf_key *key)
{
    if (!key)
        return Py_NewRef(Py_None);
    if (key->type == SF_KEY_INT)
        return PyLong_FromLongLong(key->i);
    if (key->type == SF_KEY_UINT)
        return PyLong_FromUnsignedLongLong(key->u);
    if (key->type == SF_KEY_STR)
        return PyUnicode_DecodeUTF8((const char *)key->b.p, (Py_ssize_t)key->b.n, "replace");
    return PyBytes_FromStringAndSize((const char *)key->b.p, (Py_ssize_t)key->b.n);
}

/* The caller hears of a bad row, whose exception is set: it is taken away. False: one is set again, of the caller's or of ours. Takes
 * over key and value. */
static bool tell_bad_row(struct py_writer *self, uint64_t number, PyObject *record, PyObject *key, PyObject *value)
{
    PyObject *type, *error, *tb, *answer = NULL;

    if (key && value) { /* else it is of making them, and stays */
        PyErr_Fetch(&type, &error, &tb);
        PyErr_NormalizeException(&type, &error, &tb);
        answer = PyObject_CallFunction(self->bad_row, "KOOOO", (unsigned long long)number, error,
                                       record ? record : Py_None, key, value);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(tb);
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(answer);
    return answer != NULL;
}

static bool on_bad_row(void *ctx, uint64_t number, const sf_key *key, sf_bytes value, const sf_error *why)
{
    struct py_writer *self = ctx;
    PyObject *record = NULL, *told_key, *told_value;
    bool ok;

    if (self->bad_row == Py_True)
        return true;
    with_gil(self);
    if (self->in_batch) {
        record = self->batch->records[number - 1 - self->rows];
        key = NULL; /* the record has them */
        value.p = NULL;
    }
    told_key = key_to_python(key);
    told_value = value.p ? PyBytes_FromStringAndSize((const char *)value.p, (Py_ssize_t)value.n) : Py_NewRef(Py_None);
    if (told_key && told_value)
        raise_error(self->st, why);
    ok = tell_bad_row(self, number, record, told_key, told_value);
    without_gil(self);
    return ok;
}

/* Raises what the package says about the row that is next: about `error` (taken over) that its making raised, or about
 * the key and the value themselves. */
static void raise_row_error(struct py_writer *self, PyObject *error, PyObject *key, PyObject *value)
{
    unsigned long long number = self->rows + self->batch->count + 1;

    raise_exception(PyObject_CallFunction(self->row_error, "OOOK", error ? error : Py_None, key ? key : Py_None,
                                          value ? value : Py_None, number));
    Py_XDECREF(error);
}

static void note_raised(struct py_writer *self, PyObject *key)
{
    PyObject *type, *value, *tb;

    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb)
        PyException_SetTraceback(value, tb);
    Py_XDECREF(type);
    Py_XDECREF(tb);
    raise_row_error(self, value, key, NULL);
}

/* False: not a key that can be published; what is wrong, row_error says. */
static bool key_of_row(const struct py_writer *self, PyObject *o, sf_key *key)
{
    int overflow;
    long long v;
    Py_ssize_t n;
    const char *text;

    if (self->encoding == SF_KEY_U64BE || self->encoding == SF_KEY_U32BE) {
        if (!PyLong_Check(o))
            return false;
        v = PyLong_AsLongLongAndOverflow(o, &overflow);
        if (v == -1 && PyErr_Occurred())
            return false;
        if (overflow || v < 0 || (self->encoding == SF_KEY_U32BE && v > (long long)UINT32_MAX))
            return false;
        *key = sf_key_int(v);
        return true;
    }
    if (PyBytes_Check(o)) {
        *key = sf_key_bytes(PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o));
        return true;
    }
    if (!PyUnicode_Check(o))
        return false;
    text = PyUnicode_AsUTF8AndSize(o, &n); /* kept by the object */
    if (!text)
        return false;
    *key = sf_key_str(text, (size_t)n);
    return true;
}

/* A new reference to an object that holds the bytes, NULL for none (perhaps with an exception). */
static PyObject *value_of_row(PyObject *o)
{
    if (PyBytes_Check(o))
        return Py_NewRef(o);
    if (PyByteArray_Check(o) || PyMemoryView_Check(o))
        return PyBytes_FromObject(o);
    return NULL;
}

/* Takes over key and value. */
static bool batch_put(struct py_writer *self, PyObject *record, PyObject *key, PyObject *value)
{
    struct row_batch *b = self->batch;
    sf_key *k = &b->keys[b->count];
    PyObject *held = NULL;

    if (!key_of_row(self, key, k)) {
        PyErr_Clear();
        raise_row_error(self, NULL, key, value);
    } else {
        held = value_of_row(value);
        if (!held && PyErr_Occurred())
            note_raised(self, key);
        else if (!held)
            raise_row_error(self, NULL, key, value);
    }
    Py_DECREF(value);
    if (!held) {
        Py_DECREF(key);
        return false;
    }
    b->key_objects[b->count] = key;
    b->value_objects[b->count] = held;
    if (self->bad_row && self->bad_row != Py_True)
        b->records[b->count] = Py_NewRef(record);
    b->values[b->count] = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(held), (size_t)PyBytes_GET_SIZE(held)};
    b->bytes += b->values[b->count].n;
    self->bytes += b->values[b->count].n;
    b->count++;
    return true;
}

/* The columns of the row that is put next; its key has none yet. */
static bool take_columns(struct py_writer *self, PyObject *columns)
{
    struct row_batch *b = self->batch;
    struct routing *r = &b->contexts[b->count];
    bool ok = columns && routing_from_python(columns, r);

    if (columns && !ok)
        routing_cleanup(r);
    Py_XDECREF(columns);
    return ok;
}

static bool take_row(struct py_writer *self, PyObject *record, PyObject *key_fn, PyObject *value_fn, PyObject *columns_fn)
{
    struct row_batch *b = self->batch;
    PyObject *given = PyObject_CallOneArg(key_fn, record), *key = given ? key_plain(given) : NULL;
    PyObject *value = key ? PyObject_CallOneArg(value_fn, record) : NULL;
    bool has_columns = value && columns_fn;
    size_t row = b->count;

    Py_XDECREF(given);
    if (value && (!columns_fn || take_columns(self, PyObject_CallOneArg(columns_fn, record)))) {
        if (batch_put(self, record, key, value)) {
            if (has_columns)
                b->keys[row].context = &b->contexts[row].context;
            return true;
        }
        if (has_columns)
            routing_cleanup(&b->contexts[row]);
        return false;
    }
    note_raised(self, key);
    Py_XDECREF(value);
    Py_XDECREF(key);
    return false;
}

/* The exception that is set gets the key of the row at which the engine stopped. */
static void tell_key(struct py_writer *self)
{
    uint64_t row = rows_taken(self) - self->rows;
    PyObject *type, *value, *tb;

    if (row >= self->batch->count)
        return;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (value && PyObject_SetAttrString(value, "row_key", self->batch->key_objects[row]) < 0)
        PyErr_Clear(); /* one of the caller's that takes no attributes */
    PyErr_Restore(type, value, tb);
}

static bool add_batch(struct py_writer *self)
{
    struct row_batch *b = self->batch;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    self->in_batch = true;
    without_gil(self);
    rc = sf_writer_add_many(self->w, b->keys, b->values, b->count, &err);
    with_gil(self);
    self->in_batch = false;
    if (!ended_well(self, rc, &err)) {
        tell_key(self);
        return false;
    }
    self->rows += b->count;
    batch_clear(b);
    return true;
}

/* The exception that is set is about the record that is next. True: it is left out, after the rows before it. */
static bool leave_out(struct py_writer *self, PyObject *record)
{
    PyObject *type, *value, *tb;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!self->bad_row || !PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return false;
    PyErr_Fetch(&type, &value, &tb);
    if (self->batch->count > 0 && !add_batch(self)) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(tb);
        return false;
    }
    PyErr_Restore(type, value, tb);
    if (self->bad_row == Py_True)
        PyErr_Clear();
    else if (!tell_bad_row(self, self->rows + 1, record, Py_NewRef(Py_None), Py_NewRef(Py_None)))
        return false;
    self->rows++;
    without_gil(self);
    rc = sf__writer_leave_out(self->w, &err);
    with_gil(self);
    return ended_well(self, rc, &err);
}

static PyObject *writer_add_rows(PyObject *o, PyObject *args)
{
    struct py_writer *self = (struct py_writer *)o;
    PyObject *iterator, *key_fn, *value_fn, *columns_fn = Py_None, *record;
    unsigned long long wanted, taken = 0;
    bool ok = true, more = true;

    if (!PyArg_ParseTuple(args, "OOOK|O:add_rows", &iterator, &key_fn, &value_fn, &wanted, &columns_fn))
        return NULL;
    if (!PyIter_Check(iterator)) {
        PyErr_SetString(PyExc_TypeError, "add_rows() takes an iterator");
        return NULL;
    }
    if (!self->batch)
        self->batch = PyMem_Calloc(1, sizeof(*self->batch));
    if (!self->batch)
        return PyErr_NoMemory();
    if (columns_fn != Py_None && !self->batch->contexts &&
        !(self->batch->contexts = PyMem_New(struct routing, BATCH_ROWS)))
        return PyErr_NoMemory();
    if (!enter(self))
        return NULL;
    self->bytes = 0;
    self->rows = rows_taken(self); /* other ways to add may have come before */
    while (ok && more && taken < wanted) {
        while (taken < wanted && self->batch->count < BATCH_ROWS && self->batch->bytes < BATCH_BYTES) {
            record = PyIter_Next(iterator);
            if (!record) {
                more = false;
                if (PyErr_Occurred()) {
                    note_raised(self, NULL);
                    ok = false;
                }
                break;
            }
            ok = take_row(self, record, key_fn, value_fn, columns_fn == Py_None ? NULL : columns_fn) ||
                 leave_out(self, record);
            Py_DECREF(record);
            if (!ok)
                break;
            taken++;
        }
        ok = ok && PyErr_CheckSignals() == 0 && (self->batch->count == 0 || add_batch(self));
    }
    batch_clear(self->batch);
    self->busy = false;
    return ok ? Py_BuildValue("(KK)", taken, self->bytes) : NULL;
}

static sf_status add_arrow(sf_writer *w, struct ArrowArrayStream *stream, const char *key_col,
                           const sf_arrow_value *value, sf_error *err)
{
    if (value->kind == SF_ARROW_VALUE_COLUMN)
        return sf_writer_add_arrow(w, stream, key_col, value->column, err);
    return sf_writer_add_arrow_json(w, stream, key_col, value->members.names, value->members.count, err);
}

static PyObject *writer_add_arrow(PyObject *o, PyObject *args)
{
    struct py_writer *self = (struct py_writer *)o;
    PyObject *records, *value_cols, *capsule = NULL;
    const char *key_col;
    struct ArrowArrayStream *stream = NULL;
    struct parsed_value parsed;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;
    bool ok = false;

    if (!PyArg_ParseTuple(args, "OsO:add_arrow", &records, &key_col, &value_cols))
        return NULL;
    if (value_columns_from_python(value_cols, &parsed))
        stream = arrow_stream_from_python(records, &capsule);
    if (stream && enter(self)) {
        without_gil(self);
        rc = add_arrow(self->w, stream, key_col, &parsed.value, &err); /* releases the stream */
        with_gil(self);
        self->busy = false;
        ok = ended_well(self, rc, &err);
    }
    parsed_value_cleanup(&parsed);
    Py_XDECREF(capsule);
    return ok ? Py_NewRef(Py_None) : NULL;
}

/* Buffers of the blocks, which the objects of `blocks` hold. */
static bool views_of(PyObject *blocks, Py_buffer *views, sf_bytes *spans, Py_ssize_t *held)
{
    for (*held = 0; *held < PyTuple_GET_SIZE(blocks); (*held)++) {
        Py_buffer *view = &views[*held];

        if (PyObject_GetBuffer(PyTuple_GET_ITEM(blocks, *held), view, PyBUF_SIMPLE) < 0)
            return false;
        spans[*held] = sf_bytes_of(view->buf, (size_t)view->len);
    }
    return true;
}

static PyObject *writer_add_shuffled(PyObject *o, PyObject *given)
{
    struct py_writer *self = (struct py_writer *)o;
    PyObject *blocks = PySequence_Tuple(given);
    size_t n = blocks ? (size_t)PyTuple_GET_SIZE(blocks) : 0;
    Py_buffer *views = PyMem_Calloc(n + 1, sizeof(*views));
    sf_bytes *spans = PyMem_Calloc(n + 1, sizeof(*spans));
    sf_error err = SF_ERROR_INIT;
    Py_ssize_t held = 0;
    bool ok = false;

    if (blocks && (!views || !spans))
        PyErr_NoMemory();
    else if (blocks && views_of(blocks, views, spans, &held) && enter(self)) {
        sf_status rc;

        without_gil(self);
        rc = sf__writer_add_shuffled(self->w, spans, n, &err);
        with_gil(self);
        self->busy = false;
        ok = ended_well(self, rc, &err);
    }
    for (Py_ssize_t i = 0; i < held; i++)
        PyBuffer_Release(&views[i]);
    PyMem_Free(views);
    PyMem_Free(spans);
    Py_XDECREF(blocks);
    return ok ? Py_NewRef(Py_None) : NULL;
}

static PyObject *writer_add_attempt(PyObject *o, PyObject *dict)
{
    struct py_writer *self = (struct py_writer *)o;
    sf_error err = SF_ERROR_INIT;
    const char *opening = NULL;
    sf_attempt attempt;
    bool ok;

    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "add_attempt() takes a dict");
        return NULL;
    }
    if (!reported_attempt_from_python(dict, &attempt, &opening) || !enter(self))
        return NULL;
    ok = ended_well(self, sf_writer_add_attempt_with(self->w, &attempt, opening, &err), &err);
    self->busy = false;
    return ok ? Py_NewRef(Py_None) : NULL;
}

/* ---------------------------------------------------------------- building and publishing ------------------------ */

static PyObject *run(PyObject *o, sf_status (*step)(sf_writer *, sf_error *))
{
    struct py_writer *self = (struct py_writer *)o;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!enter(self))
        return NULL;
    without_gil(self);
    rc = step(self->w, &err);
    with_gil(self);
    self->busy = false;
    if (!ended_well(self, rc, &err))
        return NULL;
    return report_to_python(self->w);
}

static PyObject *writer_build(PyObject *o, PyObject *unused)
{
    (void)unused;
    return run(o, sf_writer_build);
}

static PyObject *writer_publish(PyObject *o, PyObject *unused)
{
    (void)unused;
    return run(o, sf_writer_publish);
}

static sf_status find_shards(sf_writer *w, sf_error *err)
{
    return sf__writer_find_shards(w, w->attempts, w->attempt_count, err);
}

static PyObject *writer_find_shards(PyObject *o, PyObject *unused)
{
    (void)unused;
    return run(o, find_shards);
}

static PyObject *writer_abort(PyObject *o, PyObject *args)
{
    struct py_writer *self = (struct py_writer *)o;
    const char *type = NULL, *message = NULL;

    if (!PyArg_ParseTuple(args, "|zz:abort", &type, &message) || !enter(self))
        return NULL;
    without_gil(self);
    sf_writer_abort(self->w, type, message);
    with_gil(self);
    self->busy = false;
    Py_RETURN_NONE;
}

static PyObject *writer_report(PyObject *o, PyObject *unused)
{
    struct py_writer *self = (struct py_writer *)o;

    (void)unused;
    if (!enter(self))
        return NULL;
    self->busy = false;
    return report_to_python(self->w);
}

static PyObject *writer_cancel(PyObject *o, PyObject *unused)
{
    struct py_writer *self = (struct py_writer *)o;

    (void)unused;
    if (self->w && native_owns_engine(self->st))
        sf_writer_cancel(self->w);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *callable_or_null(PyObject *o)
{
    return o && o != Py_None ? Py_NewRef(o) : NULL;
}

static bool open_writer(struct py_writer *self, const char *prefix, struct parsed_options *p)
{
    sf_runtime *rt = native_runtime(self->st);
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!rt)
        return false;
    self->encoding = p->o.key_encoding;
    p->o.progress = on_progress;
    p->o.progress_ctx = self;
    if (self->check) {
        p->o.check = on_check;
        p->o.check_ctx = self;
    }
    if (self->bad_row) {
        p->o.on_bad_row = on_bad_row;
        p->o.on_bad_row_ctx = self;
    }
    self->busy = true;
    without_gil(self);
    rc = sf_writer_open(&self->w, rt, prefix, &p->o, &err);
    with_gil(self);
    self->busy = false;
    return ended_well(self, rc, &err);
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"prefix", "options", "row_error", "progress", "check", "bad_row", NULL};
    PyObject *options, *row_error, *progress = NULL, *check = NULL, *bad_row = NULL;
    struct parsed_options parsed;
    struct py_writer *self;
    const char *prefix;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO!O|$OOO:Writer", names, &prefix, &PyDict_Type, &options,
                                     &row_error, &progress, &check, &bad_row))
        return NULL;
    self = writer_options_from_python(options, &parsed) ? (struct py_writer *)type->tp_alloc(type, 0) : NULL;
    if (self) {
        self->st = native_state_of(type);
        self->row_error = Py_NewRef(row_error);
        self->progress = callable_or_null(progress);
        self->check = callable_or_null(check);
        self->bad_row = callable_or_null(bad_row);
        if (!open_writer(self, prefix, &parsed))
            Py_CLEAR(self);
    }
    parsed_options_cleanup(&parsed);
    return (PyObject *)self;
}

static void close_engine(struct py_writer *self)
{
    sf_writer *w = self->w;

    self->w = NULL;
    if (!w || !native_owns_engine(self->st))
        return; /* the parent's is left as it lies */
    without_gil(self);
    sf_writer_free(w);
    with_gil(self);
}

static PyObject *writer_close(PyObject *o, PyObject *unused)
{
    struct py_writer *self = (struct py_writer *)o;

    (void)unused;
    if (!self->w)
        Py_RETURN_NONE;
    if (!enter(self))
        return NULL;
    close_engine(self);
    self->busy = false;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static int writer_traverse(PyObject *o, visitproc visit, void *arg)
{
    struct py_writer *self = (struct py_writer *)o;

    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->progress);
    Py_VISIT(self->check);
    Py_VISIT(self->row_error);
    Py_VISIT(self->bad_row);
    return 0;
}

static int writer_clear(PyObject *o)
{
    struct py_writer *self = (struct py_writer *)o;

    Py_CLEAR(self->progress);
    Py_CLEAR(self->check);
    Py_CLEAR(self->row_error);
    Py_CLEAR(self->bad_row);
    return 0;
}

static void writer_dealloc(PyObject *o)
{
    struct py_writer *self = (struct py_writer *)o;
    PyTypeObject *type = Py_TYPE(o);
    PyObject *error_type, *error_value, *tb;

    PyObject_GC_UnTrack(o);
    PyErr_Fetch(&error_type, &error_value, &tb);
    writer_clear(o);
    close_engine(self);
    PyErr_Restore(error_type, error_value, tb);
    if (self->batch)
        PyMem_Free(self->batch->contexts);
    PyMem_Free(self->batch);
    type->tp_free(o);
    Py_DECREF(type);
}

NATIVE_ALONE(writer_add_rows);
NATIVE_ALONE(writer_add_arrow);
NATIVE_ALONE(writer_add_shuffled);
NATIVE_ALONE(writer_add_attempt);
NATIVE_ALONE(writer_build);
NATIVE_ALONE(writer_find_shards);
NATIVE_ALONE(writer_publish);
NATIVE_ALONE(writer_abort);
NATIVE_ALONE(writer_report);
NATIVE_ALONE(writer_cancel);
NATIVE_ALONE(writer_close);

static PyMethodDef writer_methods[] = {
    NOT_COPIED,
    {"add_rows", ALONE(writer_add_rows), METH_VARARGS,
     "add_rows($self, iterator, key_fn, value_fn, count, columns_fn=None, /)\n--\n\nTakes at most so many records; (records, bytes of values)."},
    {"add_arrow", ALONE(writer_add_arrow), METH_VARARGS,
     "add_arrow($self, records, key_col, value, /)\n--\n\nTakes all rows of an Arrow stream. The value is a column, or of a tuple of columns a JSON object,\n"
     "with True of all."},
    {"add_shuffled", ALONE(writer_add_shuffled), METH_O,
     "add_shuffled($self, blocks, /)\n--\n\nTakes the rows of blocks of a Shuffle."},
    {"add_attempt", ALONE(writer_add_attempt), METH_O,
     "add_attempt($self, attempt, /)\n--\n\nTakes a shard that another process has built: one of the attempts of its report."},
    {"build", ALONE(writer_build), METH_NOARGS, "build($self)\n--\n\nStores all shards; the report so far."},
    {"find_shards", ALONE(writer_find_shards), METH_NOARGS,
     "find_shards($self)\n--\n\nWhether no clean-up has removed one: NOT_FOUND; the report."},
    {"publish", ALONE(writer_publish), METH_NOARGS, "publish($self)\n--\n\nMakes the snapshot visible; the report."},
    {"abort", ALONE(writer_abort), METH_VARARGS,
     "abort($self, error_type=None, error_message=None, /)\n--\n\nGives up and takes back what was stored."},
    {"report", ALONE(writer_report), METH_NOARGS, "report($self)\n--\n\nRight so far."},
    {"cancel", ALONE(writer_cancel), METH_NOARGS, "cancel($self)\n--\n\nEnds what is under way. Any thread."},
    {"close", ALONE(writer_close), METH_NOARGS,
     "close($self)\n--\n\nGives up unless the shards were built. Any number of times."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_traverse, writer_traverse},
    {Py_tp_clear, writer_clear},
    {Py_tp_methods, writer_methods},
    {Py_tp_doc,
     "Writer(prefix, options, row_error, *, progress=None, check=None, bad_row=None)\n--\n\nWrites one snapshot. One thread."},
    {0, NULL},
};

PyType_Spec writer_spec = {
    .name = "shardyfusion._native.Writer",
    .basicsize = sizeof(struct py_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};
