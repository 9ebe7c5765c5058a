/* The writer of one shard at a URL of the caller's, and a look at what a stored one holds. */
#include "convert.h"
#include "module.h"
#include "writing.h"

#include "backend/shard_writer.h" /* the content hash */

struct py_shard_writer {
    PyObject_HEAD
    native_state *st;
    sf_shard_builder *b; /* NULL: closed */
    bool busy;           /* under the GIL: the engine works for a thread */
};

/* ---------------------------------------------------------------- rows ------------------------------------------- */

static bool enter(struct py_shard_writer *self)
{
    if (!self->b) {
        PyErr_SetString(PyExc_ValueError, "the shard writer is closed");
        return false;
    }
    if (!native_owns_engine(self->st)) {
        PyErr_SetString(PyExc_RuntimeError, "the shard writer belongs to the parent of this forked process");
        return false;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the shard writer is in use by another thread");
        return false;
    }
    self->busy = true;
    return true;
}

static bool bytes_of(PyObject *o, const char *what, sf_bytes *out)
{
    if (!PyBytes_Check(o)) {
        PyErr_Format(PyExc_TypeError, "a %s must be bytes, not %.200s", what, Py_TYPE(o)->tp_name);
        return false;
    }
    *out = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o)};
    return true;
}

/* The pairs stay alive in `rows`. */
static bool pairs_of(PyObject *rows, sf_bytes *keys, sf_bytes *values)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(rows); i++) {
        PyObject *pair = PyTuple_GET_ITEM(rows, i);

        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_Format(PyExc_TypeError, "a row must be a tuple of key and value, not %R", pair);
            return false;
        }
        if (!bytes_of(PyTuple_GET_ITEM(pair, 0), "key", &keys[i]) ||
            !bytes_of(PyTuple_GET_ITEM(pair, 1), "value", &values[i]))
            return false;
    }
    return true;
}

static PyObject *shard_add(PyObject *o, PyObject *pairs)
{
    struct py_shard_writer *self = (struct py_shard_writer *)o;
    PyObject *rows = PySequence_Tuple(pairs);
    sf_bytes *keys = NULL, *values = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc = SF_OK;
    size_t n;

    if (!rows)
        return NULL;
    n = (size_t)PyTuple_GET_SIZE(rows);
    keys = PyMem_Calloc(n + 1, sizeof(*keys));
    values = PyMem_Calloc(n + 1, sizeof(*values));
    if (!keys || !values)
        PyErr_NoMemory();
    else if (pairs_of(rows, keys, values) && enter(self)) {
        Py_BEGIN_ALLOW_THREADS;
        for (size_t i = 0; i < n && rc == SF_OK; i++)
            rc = sf_shard_builder_add(self->b, keys[i], values[i], &err);
        Py_END_ALLOW_THREADS;
        self->busy = false;
        if (rc != SF_OK)
            raise_error(self->st, &err);
    }
    PyMem_Free(keys);
    PyMem_Free(values);
    Py_DECREF(rows);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *shard_finish(PyObject *o, PyObject *unused)
{
    struct py_shard_writer *self = (struct py_shard_writer *)o;
    sf_error err = SF_ERROR_INIT;
    sf_shard_summary s;
    sf_status rc;

    (void)unused;
    if (!enter(self))
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    rc = sf_shard_builder_finish(self->b, &s, &err);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    if (rc != SF_OK) {
        raise_error(self->st, &err);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:s,s:s}", "rows", (unsigned long long)s.rows, "rows_added",
                         (unsigned long long)s.rows_added, "stored_bytes", (unsigned long long)s.stored_bytes,
                         "db_bytes", (unsigned long long)s.db_bytes, "checkpoint_id", s.checkpoint_id, "content_hash",
                         s.content_hash);
}

static PyObject *shard_cancel(PyObject *o, PyObject *unused)
{
    struct py_shard_writer *self = (struct py_shard_writer *)o;

    (void)unused;
    if (self->b && native_owns_engine(self->st))
        sf_shard_builder_cancel(self->b);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *shard_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"url", "s3", "spill_folder", "memory_bytes", "slatedb", "sqlite", NULL};
    PyObject *s3_dict = NULL, *memory = NULL, *slatedb_dict = NULL, *sqlite_dict = NULL;
    sf_shard_builder_options o = SF_SHARD_BUILDER_OPTIONS_INIT;
    native_state *st = native_state_of(type);
    struct py_shard_writer *self;
    const char *url, *folder = NULL;
    sf_slatedb_options slatedb;
    sf_sqlite_options sqlite;
    sf_error err = SF_ERROR_INIT;
    sf_s3_options s3;
    sf_runtime *rt;
    bool has_s3;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|$OzOOO:ShardWriter", names, &url, &s3_dict, &folder, &memory,
                                     &slatedb_dict, &sqlite_dict) ||
        !s3_from_python(s3_dict, &s3, &has_s3) || !slatedb_options_from_python(slatedb_dict, &slatedb) ||
        !sqlite_options_from_python(sqlite_dict, &sqlite))
        return NULL;
    if (memory && memory != Py_None) {
        o.memory_bytes = PyLong_AsUnsignedLongLong(memory);
        if (PyErr_Occurred())
            return NULL;
    }
    o.s3 = has_s3 ? &s3 : NULL;
    o.spill_folder = folder;
    o.backend = sqlite_dict && sqlite_dict != Py_None ? SF_BACKEND_SQLITE : SF_BACKEND_SLATEDB;
    o.slatedb = &slatedb;
    o.sqlite = &sqlite;
    rt = native_runtime(st);
    self = rt ? (struct py_shard_writer *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->st = st;
    if (sf_shard_builder_open(&self->b, rt, url, &o, &err) != SF_OK) {
        raise_error(st, &err);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void close_engine(struct py_shard_writer *self)
{
    sf_shard_builder *b = self->b;

    self->b = NULL;
    if (!b || !native_owns_engine(self->st))
        return; /* the parent's is left as it lies */
    Py_BEGIN_ALLOW_THREADS;
    sf_shard_builder_free(b);
    Py_END_ALLOW_THREADS;
}

static PyObject *shard_close(PyObject *o, PyObject *unused)
{
    struct py_shard_writer *self = (struct py_shard_writer *)o;

    (void)unused;
    if (self->b && !enter(self))
        return NULL;
    close_engine(self);
    self->busy = false;
    Py_RETURN_NONE;
}

static void shard_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);
    PyObject *error_type, *error_value, *tb;

    PyErr_Fetch(&error_type, &error_value, &tb);
    close_engine((struct py_shard_writer *)o);
    PyErr_Restore(error_type, error_value, tb);
    type->tp_free(o);
    Py_DECREF(type);
}

NATIVE_ALONE(shard_add);
NATIVE_ALONE(shard_finish);
NATIVE_ALONE(shard_cancel);
NATIVE_ALONE(shard_close);

static PyMethodDef shard_methods[] = {
    NOT_COPIED,
    {"add", ALONE(shard_add), METH_O,
     "add($self, pairs, /)\n--\n\nTakes rows, in any order; of rows with one key the last wins."},
    {"finish", ALONE(shard_finish), METH_NOARGS, "finish($self)\n--\n\nBuilds the shard and stores it."},
    {"cancel", ALONE(shard_cancel), METH_NOARGS, "cancel($self)\n--\n\nEnds what is under way. Any thread."},
    {"close", ALONE(shard_close), METH_NOARGS,
     "close($self)\n--\n\nTakes back what was stored, unless it was finished. Any number of times."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shard_slots[] = {
    {Py_tp_new, shard_new},
    {Py_tp_dealloc, shard_dealloc},
    {Py_tp_methods, shard_methods},
    {Py_tp_doc, "ShardWriter(url, *, s3=None, spill_folder=None, memory_bytes=None, slatedb=None, sqlite=None)\n--\n\n"
                "Writes one shard. One thread."},
    {0, NULL},
};

PyType_Spec shard_writer_spec = {
    .name = "shardyfusion._native.ShardWriter",
    .basicsize = sizeof(struct py_shard_writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shard_slots,
};

/* ---------------------------------------------------------------- what a shard holds ----------------------------- */

#define ROWS_PER_STEP 4096u

struct content {
    sf_snapshot *shard;
    sf_scan *scan;
    sf_content_hash hash;
    uint64_t rows;
};

static sf_status content_open(struct content *c, sf_runtime *rt, const char *url, const sf_s3_options *s3,
                              const char *folder, sf_error *err)
{
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    sf_reader_options reading = SF_READER_OPTIONS_INIT;
    sf_status rc;

    reading.s3 = s3;
    reading.sqlite_folder = folder;
    reading.sqlite_mode = folder ? SF_SQLITE_DOWNLOAD : SF_SQLITE_RANGE;
    rc = sf_snapshot_open_shard(&c->shard, rt, url, &reading, NULL, SF_TIMEOUT_NONE, err);

    if (rc == SF_OK)
        rc = sf_scan_open(&c->scan, c->shard, &o, err);
    if (rc == SF_OK && !sf__content_hash_init(&c->hash, &sf__allocator_default)) {
        err->code = rc = SF_NOMEM;
        err->message[0] = '\0';
    }
    return rc;
}

static sf_status content_step(struct content *c, bool *end, sf_error *err)
{
    const sf_row *rows;
    size_t n;
    sf_status rc = sf_scan_next(c->scan, ROWS_PER_STEP, SF_TIMEOUT_NONE, &rows, &n, err);

    if (rc != SF_OK)
        return rc;
    *end = n == 0;
    for (size_t i = 0; i < n; i++)
        sf__content_hash_add(&c->hash, rows[i].key, rows[i].value);
    c->rows += n;
    return SF_OK;
}

PyObject *native_shard_content(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"url", "s3", "folder", NULL};
    native_state *st = PyModule_GetState(module);
    const char *folder = NULL;
    struct content c = {NULL};
    PyObject *dict = NULL, *result = NULL;
    sf_error err = SF_ERROR_INIT;
    bool has_s3, end = false;
    sf_s3_options s3;
    const char *url;
    sf_hash128 hash;
    sf_runtime *rt;
    sf_status rc;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|Oz:shard_content", names, &url, &dict, &folder) ||
        !s3_from_python(dict, &s3, &has_s3))
        return NULL;
    rt = native_runtime(st);
    if (!rt)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    rc = content_open(&c, rt, url, has_s3 ? &s3 : NULL, folder, &err);
    Py_END_ALLOW_THREADS;
    while (rc == SF_OK && !end && PyErr_CheckSignals() == 0) {
        Py_BEGIN_ALLOW_THREADS;
        rc = content_step(&c, &end, &err);
        Py_END_ALLOW_THREADS;
    }
    if (rc != SF_OK) {
        raise_error(st, &err);
    } else if (!PyErr_Occurred()) {
        char text[33];

        hash = sf__content_hash_value(&c.hash);
        snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)hash.hi, (unsigned long long)hash.lo);
        result = Py_BuildValue("(Ks)", (unsigned long long)c.rows, text);
    }
    sf__content_hash_cleanup(&c.hash);
    sf_scan_close(c.scan);
    sf_snapshot_give_back(c.shard);
    return result;
}
