/* Rows that tasks of a batch engine send to one another as blocks: from Arrow batches to blocks, and from blocks to rows. */
#include "arrow_input.h"
#include "convert.h"
#include "module.h"
#include "options.h"
#include "writing.h"

#include "base/alloc.h"
#include "writer/shuffle.h"

struct py_shuffle {
    PyObject_HEAD
    native_state *st;
    sf_shuffle *s; /* NULL: it failed */
};

/* (blocks, shards as int32, offsets as int32, bytes): buffers of Arrow arrays. */
static PyObject *blocks_to_python(struct py_shuffle *self)
{
    sf_shuffle_blocks b;

    sf__shuffle_take(self->s, &b);
    return Py_BuildValue("(ny#y#y#)", (Py_ssize_t)b.count, (const char *)b.db_ids,
                         (Py_ssize_t)(b.count * sizeof(*b.db_ids)), (const char *)b.off,
                         (Py_ssize_t)((b.count + 1) * sizeof(*b.off)), (const char *)b.bytes,
                         (Py_ssize_t)(b.count > 0 ? b.off[b.count] : 0));
}

static bool check_open(const struct py_shuffle *self)
{
    if (!self->s)
        PyErr_SetString(PyExc_ValueError, "the shuffle has failed");
    return self->s != NULL;
}

static PyObject *ended(struct py_shuffle *self, sf_status rc, const sf_error *err)
{
    if (rc == SF_OK)
        return blocks_to_python(self);
    sf__shuffle_free(self->s);
    self->s = NULL;
    if (!PyErr_Occurred())
        raise_error(self->st, err);
    return NULL;
}

static PyObject *shuffle_add_arrow(PyObject *o, PyObject *args)
{
    struct py_shuffle *self = (struct py_shuffle *)o;
    PyObject *records, *value_cols, *capsule = NULL, *result = NULL;
    struct ArrowArrayStream *stream = NULL;
    struct parsed_value parsed;
    const char *key_col;
    sf_error err = SF_ERROR_INIT;
    sf_shuffle *s;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "OsO:add_arrow", &records, &key_col, &value_cols) || !check_open(self))
        return NULL;
    if (value_columns_from_python(value_cols, &parsed))
        stream = arrow_stream_from_python(records, &capsule);
    if (stream && check_open(self)) { /* the call may have been of this object, too */
        s = self->s;
        self->s = NULL; /* no other thread takes it meanwhile */
        Py_BEGIN_ALLOW_THREADS;
        rc = sf__shuffle_add_arrow(s, stream, key_col, &parsed.value, &err);
        Py_END_ALLOW_THREADS;
        self->s = s;
        result = ended(self, rc, &err);
    }
    parsed_value_cleanup(&parsed);
    Py_XDECREF(capsule);
    return result;
}

static PyObject *shuffle_leave_out(PyObject *o, PyObject *count)
{
    struct py_shuffle *self = (struct py_shuffle *)o;
    unsigned long n = PyLong_AsUnsignedLong(count);

    if (PyErr_Occurred() || !check_open(self))
        return NULL;
    sf__shuffle_leave_out(self->s, n < UINT32_MAX ? (uint32_t)n : UINT32_MAX);
    Py_RETURN_NONE;
}

static PyObject *shuffle_finish(PyObject *o, PyObject *unused)
{
    struct py_shuffle *self = (struct py_shuffle *)o;
    sf_error err = SF_ERROR_INIT;

    (void)unused;
    return check_open(self) ? ended(self, sf__shuffle_finish(self->s, &err), &err) : NULL;
}

static PyObject *shuffle_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const struct option table[] = {
        {"num_dbs", option_u32, offsetof(sf_shuffle_options, num_dbs), NULL},
        {"key_encoding", option_word, offsetof(sf_shuffle_options, key_encoding), key_encoding_words},
        {"backend", option_word, offsetof(sf_shuffle_options, backend), backend_words},
        {"block_bytes", option_u32, offsetof(sf_shuffle_options, block_bytes), NULL},
        {"leave_out", option_bool, offsetof(sf_shuffle_options, leave_out), NULL},
        {NULL, NULL, 0, NULL},
    };
    static char *names[] = {"options", NULL};
    sf_shuffle_options o = SF_SHUFFLE_OPTIONS_INIT;
    struct py_shuffle *self = NULL;
    sf_error err = SF_ERROR_INIT;
    struct parsed_cel cel;
    PyObject *options, *cel_dict;

    o.int64_keys = true;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Shuffle", names, &PyDict_Type, &options) ||
        !options_take(options, table, &o))
        return NULL;
    cel_dict = dict_item(options, "cel");
    if (PyErr_Occurred())
        return NULL;
    if (cel_dict == Py_None)
        cel_dict = NULL;
    if (!cel_dict || cel_from_python(cel_dict, &cel)) {
        o.cel = cel_dict ? &cel.sharding : NULL;
        self = (struct py_shuffle *)type->tp_alloc(type, 0);
    }
    if (self) {
        self->st = native_state_of(type);
        if (sf__shuffle_new(&self->s, &o, &sf__allocator_default, &err) != SF_OK) {
            Py_CLEAR(self);
            raise_error(native_state_of(type), &err);
        }
    }
    if (cel_dict)
        parsed_cel_cleanup(&cel);
    return (PyObject *)self;
}

static void shuffle_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);

    sf__shuffle_free(((struct py_shuffle *)o)->s);
    type->tp_free(o);
    Py_DECREF(type);
}

NATIVE_ALONE(shuffle_add_arrow);
NATIVE_ALONE(shuffle_leave_out);
NATIVE_ALONE(shuffle_finish);

static PyMethodDef shuffle_methods[] = {
    NOT_COPIED,
    {"add_arrow", ALONE(shuffle_add_arrow), METH_VARARGS,
     "add_arrow($self, records, key_col, value, /)\n--\n\nTakes all rows of an Arrow stream, as Writer.add_arrow(). Blocks that are complete: their number, and the bytes of\n"
     "three buffers: shards (int32), offsets (int32), blocks."},
    {"leave_out", ALONE(shuffle_leave_out), METH_O,
     "leave_out($self, count, /)\n--\n\nSo many rows are left out, which are not in what it is given."},
    {"finish", ALONE(shuffle_finish), METH_NOARGS, "finish($self)\n--\n\nNo rows follow: the rest, likewise."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shuffle_slots[] = {
    {Py_tp_new, shuffle_new},
    {Py_tp_dealloc, shuffle_dealloc},
    {Py_tp_methods, shuffle_methods},
    {Py_tp_doc, "Shuffle(options)\n--\n\nFrom rows to blocks of rows of one shard each. One thread."},
    {0, NULL},
};

PyType_Spec shuffle_spec = {
    .name = "shardyfusion._native.Shuffle",
    .basicsize = sizeof(struct py_shuffle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shuffle_slots,
};

/* ---------------------------------------------------------------- rows ------------------------------------------- */

static PyObject *key_of_row(const sf_shuffle_block *b, sf_bytes stored)
{
    if (b->key_type == SF_KEY_STR)
        return PyUnicode_DecodeUTF8((const char *)stored.p, (Py_ssize_t)stored.n, NULL);
    if (b->key_type == SF_KEY_INT && stored.n <= 8)
        return PyLong_FromUnsignedLongLong(sf_load_be(stored.p, stored.n));
    return PyBytes_FromStringAndSize((const char *)stored.p, (Py_ssize_t)stored.n);
}

PyObject *native_shuffled_rows(PyObject *module, PyObject *block)
{
    native_state *st = PyModule_GetState(module);
    sf_error err = SF_ERROR_INIT;
    PyObject *rows = NULL;
    sf_shuffle_block b = {0};
    uint32_t left_out;
    Py_buffer view;
    sf_status rc;

    if (PyObject_GetBuffer(block, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    rc = sf__shuffle_block_open(&b, sf_bytes_of(view.buf, (size_t)view.len), &err);
    left_out = b.left_out;
    if (rc == SF_OK)
        rows = PyList_New(0);
    while (rows && rc == SF_OK && b.rows > 0) {
        sf_bytes key, value;
        PyObject *row = NULL, *given;

        rc = sf__shuffle_block_next(&b, &key, &value, &err);
        if (rc != SF_OK)
            break;
        given = key_of_row(&b, key);
        if (given)
            row = Py_BuildValue("(INy#y#)", (unsigned)b.db_id, given, (const char *)key.p, (Py_ssize_t)key.n,
                                value.n > 0 ? (const char *)value.p : "", (Py_ssize_t)value.n);
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    PyBuffer_Release(&view);
    if (rc != SF_OK) {
        Py_CLEAR(rows);
        raise_error(st, &err);
    }
    return rows ? Py_BuildValue("(IN)", (unsigned)left_out, rows) : NULL;
}
