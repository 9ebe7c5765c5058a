/* Which shard a row belongs to by CEL, for rows that the engine does not take. */
#include "convert.h"
#include "module.h"
#include "writing.h"

#include "writer/cel_shards.h"

struct py_cel_shards {
    PyObject_HEAD native_state *st;
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
    return PyErr_Occurred()
               ? NULL
               : Py_BuildValue("(Is)", (unsigned)self->shards.num_dbs, self->shards.sharding_json);
}

static PyMethodDef shards_methods[] = {
    NOT_COPIED,
    {"place", shards_place, METH_VARARGS,
     "place($self, key, context=None, /)\n--\n\nThe provisional number of a row's shard."},
    {"seal", shards_seal, METH_VARARGS,
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
