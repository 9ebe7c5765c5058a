/* The objects of one bucket. Inputs are looked at when the operation is made, copied by the engine when it starts. */
#include "convert.h"
#include "module.h"
#include "operation.h"

struct py_store {
    PyObject_HEAD
    native_state *st;
    sf_bucket *bucket;
};

/* What a get may bring into memory. */
#define MAX_OBJECT_BYTES (UINT64_C(4) << 30)

static sf_bucket *bucket_of(const struct operation *op)
{
    return ((struct py_store *)op->owner)->bucket;
}

/* ---------------------------------------------------------------- get, head -------------------------------------- */

static enum op_outcome get_start(struct operation *op, PyObject **result)
{
    struct pending *p = op_begin(op);
    sf_call *call = NULL;
    sf_error err;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_bucket_get_start(&call, bucket_of(op), PyUnicode_AsUTF8(op->a), MAX_OBJECT_BYTES, op->timeout_ms,
                             pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static PyObject *get_take(struct operation *op, sf_call *call)
{
    const sf_object *o = sf_call_object(call);

    (void)op;
    return PyBytes_FromStringAndSize((const char *)o->data.p, (Py_ssize_t)o->data.n);
}

static enum op_outcome head_start(struct operation *op, PyObject **result)
{
    struct pending *p = op_begin(op);
    sf_call *call = NULL;
    sf_error err;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_bucket_head_start(&call, bucket_of(op), PyUnicode_AsUTF8(op->a), op->timeout_ms, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

/* Whatever a server says it is, it is no reason to fail. */
static PyObject *etag_to_python(const sf_object *o)
{
    return text_to_python(o->etag);
}

static PyObject *head_take(struct operation *op, sf_call *call)
{
    const sf_object *o = sf_call_object(call);

    (void)op;
    return Py_BuildValue("(KN)", (unsigned long long)o->size, etag_to_python(o));
}

/* ---------------------------------------------------------------- put -------------------------------------------- */

/* op->b: (body, content type or None, ETag or None, create only) */
static enum op_outcome put_start(struct operation *op, PyObject **result)
{
    PyObject *body = PyTuple_GET_ITEM(op->b, 0), *type = PyTuple_GET_ITEM(op->b, 1),
             *if_match = PyTuple_GET_ITEM(op->b, 2);
    sf_put_options o = SF_PUT_OPTIONS_INIT;
    struct pending *p;
    sf_call *call = NULL;
    Py_buffer view;
    sf_error err;
    sf_status rc;

    (void)result;
    o.content_type = type == Py_None ? NULL : PyUnicode_AsUTF8(type);
    o.if_match = if_match == Py_None ? NULL : PyUnicode_AsUTF8(if_match);
    o.create_only = PyTuple_GET_ITEM(op->b, 3) == Py_True;
    if (PyErr_Occurred() || PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) < 0)
        return OP_FAILED;
    p = op_begin(op);
    if (!p) {
        PyBuffer_Release(&view);
        return OP_FAILED;
    }
    rc = sf_bucket_put_start(&call, bucket_of(op), PyUnicode_AsUTF8(op->a), (sf_bytes){view.buf, (size_t)view.len}, &o,
                             op->timeout_ms, pending_on_done, p, &err);
    PyBuffer_Release(&view);
    return op_begun(op, rc, call, &err);
}

static PyObject *put_take(struct operation *op, sf_call *call)
{
    (void)op;
    return etag_to_python(sf_call_object(call));
}

/* ---------------------------------------------------------------- list ------------------------------------------- */

static enum op_outcome list_start(struct operation *op, PyObject **result)
{
    struct pending *p = op_begin(op);
    sf_call *call = NULL;
    sf_error err;
    sf_status rc;

    (void)result;
    if (!p)
        return OP_FAILED;
    rc = sf_bucket_list_start(&call, bucket_of(op), PyUnicode_AsUTF8(op->a), op->b ? PyUnicode_AsUTF8(op->b) : NULL,
                              op->timeout_ms, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static PyObject *object_to_python(const void *item)
{
    const sf_object_entry *e = item;
    PyObject *key = PyUnicode_DecodeUTF8(e->key, (Py_ssize_t)strlen(e->key), "surrogateescape");

    return key ? Py_BuildValue("(NKO)", key, (unsigned long long)e->size, e->is_prefix ? Py_True : Py_False) : NULL;
}

static PyObject *list_take(struct operation *op, sf_call *call)
{
    size_t n;
    const sf_object_entry *entries = sf_call_entries(call, &n);

    (void)op;
    return list_to_python(entries, n, sizeof(*entries), object_to_python);
}

/* ---------------------------------------------------------------- delete ----------------------------------------- */

/* op->a: a tuple of names */
static enum op_outcome delete_start(struct operation *op, PyObject **result)
{
    Py_ssize_t n = PyTuple_GET_SIZE(op->a);
    const char **keys = PyMem_Calloc((size_t)n + 1, sizeof(*keys));
    struct pending *p;
    sf_call *call = NULL;
    sf_error err;
    sf_status rc;

    (void)result;
    if (!keys) {
        PyErr_NoMemory();
        return OP_FAILED;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        keys[i] = PyUnicode_AsUTF8(PyTuple_GET_ITEM(op->a, i)); /* checked when the operation was made */
    p = op_begin(op);
    if (!p) {
        PyMem_Free(keys);
        return OP_FAILED;
    }
    rc = n == 1 ? sf_bucket_delete_start(&call, bucket_of(op), keys[0], op->timeout_ms, pending_on_done, p, &err)
                : sf_bucket_delete_many_start(&call, bucket_of(op), keys, (size_t)n, op->timeout_ms, pending_on_done, p,
                                              &err);
    PyMem_Free(keys);
    return op_begun(op, rc, call, &err);
}

static PyObject *delete_take(struct operation *op, sf_call *call)
{
    (void)op;
    (void)call;
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- methods ---------------------------------------- */

static const struct op_kind get_kind = {.name = "Store.get", .start = get_start, .take = get_take};
static const struct op_kind head_kind = {.name = "Store.head", .start = head_start, .take = head_take};
static const struct op_kind put_kind = {.name = "Store.put", .start = put_start, .take = put_take};
static const struct op_kind list_kind = {.name = "Store.list", .start = list_start, .take = list_take};
static const struct op_kind delete_kind = {.name = "Store.delete", .start = delete_start, .take = delete_take};

static PyObject *store_op(PyObject *self, const struct op_kind *kind, PyObject *a, PyObject *b, PyObject *timeout)
{
    int64_t ms;

    if (!timeout_from_python(timeout, &ms))
        return NULL;
    return op_new(((struct py_store *)self)->st, kind, self, a, b, ms);
}

static PyObject *key_op(PyObject *self, const struct op_kind *kind, const char *format, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "timeout", NULL};
    PyObject *key, *timeout = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &key, &timeout) || !text_check(key, "key"))
        return NULL;
    return store_op(self, kind, key, NULL, timeout);
}

static PyObject *store_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return key_op(self, &get_kind, "U|O:get", args, kwargs);
}

static PyObject *store_head(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return key_op(self, &head_kind, "U|O:head", args, kwargs);
}

static PyObject *store_put(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "body", "content_type", "if_match", "create_only", "timeout", NULL};
    PyObject *key, *body, *type = Py_None, *if_match = Py_None, *timeout = NULL, *inputs, *op;
    int create_only = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UO|$OOpO:put", names, &key, &body, &type, &if_match, &create_only,
                                     &timeout) ||
        !text_check(key, "key") || (type != Py_None && !text_check(type, "content_type")) ||
        (if_match != Py_None && !text_check(if_match, "if_match")))
        return NULL;
    if (!PyObject_CheckBuffer(body)) {
        PyErr_Format(PyExc_TypeError, "body must be bytes-like, not %.200s", Py_TYPE(body)->tp_name);
        return NULL;
    }
    inputs = Py_BuildValue("(OOOO)", body, type, if_match, create_only ? Py_True : Py_False);
    op = inputs ? store_op(self, &put_kind, key, inputs, timeout) : NULL;
    Py_XDECREF(inputs);
    return op;
}

static PyObject *store_list(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"prefix", "delimiter", "timeout", NULL};
    PyObject *prefix, *delimiter = Py_None, *timeout = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|$OO:list", names, &prefix, &delimiter, &timeout) ||
        !text_check(prefix, "prefix") || (delimiter != Py_None && !text_check(delimiter, "delimiter")))
        return NULL;
    return store_op(self, &list_kind, prefix, delimiter == Py_None ? NULL : delimiter, timeout);
}

static PyObject *delete_keys(PyObject *self, PyObject *keys, PyObject *timeout)
{
    PyObject *op = NULL;
    bool sound = keys != NULL;

    for (Py_ssize_t i = 0; sound && i < PyTuple_GET_SIZE(keys); i++)
        sound = text_check(PyTuple_GET_ITEM(keys, i), "key");
    if (sound)
        op = store_op(self, &delete_kind, keys, NULL, timeout);
    Py_XDECREF(keys);
    return op;
}

static PyObject *store_delete(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "timeout", NULL};
    PyObject *key, *timeout = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|O:delete", names, &key, &timeout))
        return NULL;
    return delete_keys(self, PyTuple_Pack(1, key), timeout);
}

static PyObject *store_delete_many(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "timeout", NULL};
    PyObject *keys, *timeout = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:delete_many", names, &keys, &timeout))
        return NULL;
    return delete_keys(self, PySequence_Tuple(keys), timeout);
}

PyObject *native_split_url(PyObject *module, PyObject *url)
{
    char root[2048], key[4096];
    sf_error err;

    if (!text_check(url, "url"))
        return NULL;
    if (sf_url_split(PyUnicode_AsUTF8(url), root, sizeof(root), key, sizeof(key), &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    return Py_BuildValue("(ss)", root, key);
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"url", "s3", NULL};
    native_state *st = native_state_of(type);
    PyObject *url, *dict = NULL;
    struct py_store *self;
    sf_s3_options s3;
    sf_runtime *rt;
    sf_error err;
    bool given;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|O:Store", names, &url, &dict) || !text_check(url, "url") ||
        !s3_from_python(dict, &s3, &given))
        return NULL;
    rt = native_runtime(st);
    self = rt ? (struct py_store *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->st = st;
    if (sf_bucket_open(&self->bucket, rt, PyUnicode_AsUTF8(url), given ? &s3 : NULL, &err) != SF_OK) {
        raise_error(st, &err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void store_dealloc(PyObject *self)
{
    struct py_store *o = (struct py_store *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (native_owns_engine(o->st))
        sf_bucket_close(o->bucket);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef store_methods[] = {
    NOT_COPIED,
    {"get", (PyCFunction)(void (*)(void))store_get, METH_VARARGS | METH_KEYWORDS,
     "get($self, key, timeout=None)\n--\n\nThe whole object."},
    {"head", (PyCFunction)(void (*)(void))store_head, METH_VARARGS | METH_KEYWORDS,
     "head($self, key, timeout=None)\n--\n\n(size, ETag) of an object."},
    {"put", (PyCFunction)(void (*)(void))store_put, METH_VARARGS | METH_KEYWORDS,
     "put($self, key, body, *, content_type=None, if_match=None, create_only=False, timeout=None)\n--\n\n"
     "Stores an object; its ETag."},
    {"list", (PyCFunction)(void (*)(void))store_list, METH_VARARGS | METH_KEYWORDS,
     "list($self, prefix, *, delimiter=None, timeout=None)\n--\n\nAll (key, size, is a common prefix), ascending."},
    {"delete", (PyCFunction)(void (*)(void))store_delete, METH_VARARGS | METH_KEYWORDS,
     "delete($self, key, timeout=None)\n--\n\nA missing object is success."},
    {"delete_many", (PyCFunction)(void (*)(void))store_delete_many, METH_VARARGS | METH_KEYWORDS,
     "delete_many($self, keys, timeout=None)\n--\n\nAt most 1000."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_methods, store_methods},
    {0, NULL},
};

PyType_Spec store_spec = {
    .name = "shardyfusion._native.Store",
    .basicsize = sizeof(struct py_store),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = store_slots,
};
