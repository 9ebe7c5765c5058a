/* Which shard a row belongs to by CEL, for rows that the engine does not take. */
#include "arrow_input.h"
#include "convert.h"
#include "module.h"
#include "writing.h"

#include "base/error.h"
#include "base/grow.h"
#include "writer/partition.h"

struct py_cel_shards {
    PyObject_HEAD
    native_state *st;
    sf_cel_shards shards;
};

static void shards_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    sf__cel_shards_cleanup(&((struct py_cel_shards *)self)->shards);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *shards_place(PyObject *o, PyObject *args)
{
    struct py_cel_shards *self = (struct py_cel_shards *)o;
    PyObject *key_object, *context = Py_None, *result = NULL;
    sf_error err = SF_ERROR_INIT;
    struct routing r;
    uint32_t number;
    sf_key key;

    if (!PyArg_ParseTuple(args, "O|O:place", &key_object, &context))
        return NULL;
    if (routed_key_from_python(self->st, key_object, context, &r, &key)) {
        if (sf__cel_shards_place(&self->shards, &key, &number, &err) == SF_OK)
            result = PyLong_FromUnsignedLong(number);
        else
            raise_error(self->st, &err);
    }
    routing_cleanup(&r);
    return result;
}

/* Of all rows of a stream. */
struct place_rows {
    sf_cel_shards *shards;
    bool *seen; /* by number */
    size_t cap;
    uint32_t count; /* one more than the highest */
    const sf_arrow_rows *rows;
    int leave_out;
};

static sf_status refuse_row(void *ctx, const sf_key *key, sf_status rc, sf_error *err)
{
    const struct place_rows *p = ctx;

    (void)key;
    if (!p->leave_out || !sf__row_is_bad(rc))
        return rc;
    sf_error_clear(err);
    return SF_OK;
}

static sf_status place_row(void *ctx, const sf_key *key, sf_bytes value, sf_error *err)
{
    struct place_rows *p = ctx;
    uint32_t number;
    sf_status rc = sf__cel_shards_place(p->shards, key, &number, err);

    (void)value;
    if (rc != SF_OK) {
        sf_error_prefix(err, rc, "row %llu: ", (unsigned long long)p->rows->rows + 1);
        return refuse_row(p, key, rc, err);
    }
    if (!SF_RESERVE(&sf__allocator_default, &p->seen, &p->cap, (size_t)number + 1))
        return sf_fail(err, SF_NOMEM, "shard %u", number);
    for (; p->count <= number; p->count++)
        p->seen[p->count] = false;
    p->seen[number] = true;
    return SF_OK;
}

static PyObject *numbers_of(const struct place_rows *p)
{
    PyObject *numbers = PySet_New(NULL);

    for (uint32_t n = 0; numbers && n < p->count; n++) {
        PyObject *one = p->seen[n] ? PyLong_FromUnsignedLong(n) : NULL;

        if (p->seen[n] && (!one || PySet_Add(numbers, one) < 0))
            Py_CLEAR(numbers);
        Py_XDECREF(one);
    }
    return numbers;
}

static PyObject *shards_place_arrow(PyObject *o, PyObject *args)
{
    struct py_cel_shards *self = (struct py_cel_shards *)o;
    struct place_rows p = {.shards = &self->shards};
    sf_arrow_rows rows = {.alloc = &sf__allocator_default,
                          .value.kind = SF_ARROW_VALUE_NONE,
                          .cel = &self->shards,
                          .take = place_row,
                          .refuse = refuse_row,
                          .ctx = &p};
    PyObject *records, *capsule, *numbers = NULL;
    struct ArrowArrayStream *stream;
    sf_error err = SF_ERROR_INIT;
    unsigned long long before = 0;
    sf_status rc;

    p.rows = &rows;
    if (!PyArg_ParseTuple(args, "Os|Kp:place_arrow", &records, &rows.key_column, &before, &p.leave_out))
        return NULL;
    rows.rows = before;
    stream = arrow_stream_from_python(records, &capsule);
    if (stream) {
        rc = sf__arrow_rows_read(&rows, stream, &err);
        if (rc == SF_OK)
            numbers = numbers_of(&p);
        else if (!PyErr_Occurred())
            raise_error(self->st, &err);
    }
    sf__free(&sf__allocator_default, p.seen);
    Py_XDECREF(capsule);
    return numbers;
}

static bool is_in_set(const void *ctx, uint32_t number)
{
    PyObject *n = PyLong_FromUnsignedLong(number);
    bool found = n && PySet_Contains((PyObject *)(uintptr_t)ctx, n) > 0;

    Py_XDECREF(n);
    return found;
}

static PyObject *shards_seal(PyObject *o, PyObject *args)
{
    struct py_cel_shards *self = (struct py_cel_shards *)o;
    sf_error err = SF_ERROR_INIT;
    PyObject *seen;
    uint32_t *places;
    unsigned count;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "O!I:seal", &PySet_Type, &seen, &count))
        return NULL;
    rc = sf__cel_shards_seal(&self->shards, is_in_set, seen, count, &places, &err);
    if (rc == SF_OK)
        sf__free(&sf__allocator_default, places);
    else if (!PyErr_Occurred())
        raise_error(self->st, &err);
    return PyErr_Occurred() ? NULL : Py_BuildValue("(Is)", (unsigned)self->shards.num_dbs, self->shards.sharding_json);
}

NATIVE_ALONE(shards_place);
NATIVE_ALONE(shards_place_arrow);
NATIVE_ALONE(shards_seal);

static PyMethodDef shards_methods[] = {
    NOT_COPIED,
    {"place", ALONE(shards_place), METH_VARARGS,
     "place($self, key, context=None, /)\n--\n\nThe provisional number of a row's shard."},
    {"place_arrow", ALONE(shards_place_arrow), METH_VARARGS,
     "place_arrow($self, records, key_col, before=0, leave_out=False, /)\n--\n\nThe provisional numbers that the rows of an Arrow stream have. So "
     "many rows came before, for\nmessages. `leave_out`: rows that have none are passed over."},
    {"seal", ALONE(shards_seal), METH_VARARGS,
     "seal($self, seen, count, /)\n--\n\nAll rows are there, with these numbers below `count`: how many "
     "shards, and the manifest's text. "
     "From\nhere on place() gives shards."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shards_slots[] = {
    {Py_tp_doc, "The shards of a snapshot that is sharded by CEL, while its rows come in. One thread."},
    {Py_tp_dealloc, shards_dealloc},
    {Py_tp_methods, shards_methods},
    {0, NULL},
};

PyType_Spec cel_shards_spec = {
    .name = "shardyfusion._native.CelShards",
    .basicsize = sizeof(struct py_cel_shards),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shards_slots,
};

PyObject *native_cel_shards(PyObject *module, PyObject *cel)
{
    native_state *st = PyModule_GetState(module);
    sf_error err = SF_ERROR_INIT;
    struct py_cel_shards *self = NULL;
    struct parsed_cel parsed;

    if (cel_from_python(cel, &parsed))
        self = (struct py_cel_shards *)st->cel_shards_type->tp_alloc(st->cel_shards_type, 0);
    if (self) {
        self->st = st;
        if (sf__cel_shards_init(&self->shards, &parsed.sharding, 0, &sf__allocator_default, &err) != SF_OK) {
            Py_CLEAR(self);
            raise_error(st, &err);
        }
    }
    parsed_cel_cleanup(&parsed);
    return (PyObject *)self;
}
