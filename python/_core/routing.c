/* What a snapshot that is sharded by CEL routes by: contexts of Python's, and expressions on their own. */
#include "convert.h"
#include "module.h"

#include "snapshot/cel_rule.h"

/* ---------------------------------------------------------------- contexts --------------------------------------- */

/* Keeps what `value` borrows from. */
static bool keep(struct routing *r, PyObject *o)
{
    if (!r->kept && !(r->kept = PyList_New(0)))
        return false;
    return PyList_Append(r->kept, o) == 0;
}

/* Beyond 64 bits it is no integer of CEL's; as a double it is out of any integer's range, too. */
static bool int_value(PyObject *o, sf_routing_value *value)
{
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(o, &overflow);

    if (v == -1 && PyErr_Occurred())
        return false;
    value->type = SF_ROUTING_INT;
    value->i = v;
    if (overflow == 0)
        return true;
    value->type = SF_ROUTING_UINT;
    value->u = overflow > 0 ? PyLong_AsUnsignedLongLong(o) : 0;
    if (overflow > 0 && !PyErr_Occurred())
        return true;
    PyErr_Clear();
    value->type = SF_ROUTING_DOUBLE;
    value->d = PyLong_AsDouble(o);
    if (value->d == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        value->d = overflow > 0 ? Py_HUGE_VAL : -Py_HUGE_VAL;
    }
    return true;
}

static bool text_value(PyObject *o, sf_routing_value *value)
{
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(o, &n);

    value->type = SF_ROUTING_STR;
    value->b = (sf_bytes){(const uint8_t *)text, text ? (size_t)n : 0};
    return text != NULL;
}

/* The peer cuts bytes at their first NUL, and bytearrays not. */
static bool bytes_value(struct routing *r, PyObject *o, sf_routing_value *value)
{
    bool whole = PyByteArray_Check(o);
    PyObject *bytes = whole ? PyBytes_FromObject(o) : Py_NewRef(o);

    if (!bytes || (whole && !keep(r, bytes))) {
        Py_XDECREF(bytes);
        return false;
    }
    value->type = SF_ROUTING_BYTES;
    value->whole = whole;
    value->b = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    Py_DECREF(bytes);
    return true;
}

static bool value_from_python(struct routing *r, PyObject *o, sf_routing_value *value)
{
    if (PyBool_Check(o)) {
        value->type = SF_ROUTING_BOOL;
        value->boolean = o == Py_True;
        return true;
    }
    if (PyLong_Check(o))
        return int_value(o, value);
    if (PyFloat_Check(o)) {
        value->type = SF_ROUTING_DOUBLE;
        value->d = PyFloat_AS_DOUBLE(o);
        return true;
    }
    if (PyUnicode_Check(o))
        return text_value(o, value);
    if (PyBytes_Check(o) || PyByteArray_Check(o))
        return bytes_value(r, o, value);
    if (PyIndex_Check(o)) { /* NumPy's integers */
        PyObject *integer = PyNumber_Index(o);
        bool ok = integer && int_value(integer, value);

        Py_XDECREF(integer);
        return ok;
    }
    value->type = SF_ROUTING_NULL; /* what no column takes: that is said when one is asked for it */
    return true;
}

/* Room for so many values. False with an exception. */
static bool reserve(struct routing *r, Py_ssize_t n)
{
    if (n > (Py_ssize_t)(sizeof(r->few) / sizeof(r->few[0])) && !(r->values = PyMem_New(sf_routing_value, n))) {
        r->values = r->few;
        PyErr_NoMemory();
        return false;
    }
    r->context.values = r->values;
    return true;
}

bool routing_values_from_python(PyObject *list, struct routing *r)
{
    PyObject *items = PySequence_List(list);
    Py_ssize_t n = items ? PyList_GET_SIZE(items) : 0;

    memset(&r->context, 0, sizeof(r->context));
    r->values = r->few;
    r->kept = items;
    if (!items || !reserve(r, n))
        return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        sf_routing_value *value = &r->values[r->context.count++];

        *value = (sf_routing_value){.column = ""};
        if (!value_from_python(r, PyList_GET_ITEM(items, i), value))
            return false;
    }
    return true;
}

/* One column. What is named by anything but a text is no column, nor is a text with a NUL: cut there, it would be another one. */
static bool add_value(struct routing *r, PyObject *name, PyObject *o)
{
    sf_routing_value *value = &r->values[r->context.count];
    Py_ssize_t n;

    if (!PyUnicode_Check(name))
        return true;
    *value = (sf_routing_value){.column = PyUnicode_AsUTF8AndSize(name, &n)};
    if (!value->column)
        return false;
    if (strlen(value->column) != (size_t)n)
        return true;
    r->context.count++;
    return value_from_python(r, o, value);
}

bool routing_from_python(PyObject *mapping, struct routing *r)
{
    bool maps = PyDict_Check(mapping) || PyObject_HasAttrString(mapping, "items");
    PyObject *items = maps ? PyMapping_Items(mapping) : NULL; /* holds names and values whatever becomes of the mapping */
    Py_ssize_t n = items ? PyList_GET_SIZE(items) : 0;

    if (!maps)
        PyErr_Format(PyExc_TypeError, "routing_context must be a mapping of columns to values, not %.200s",
                     Py_TYPE(mapping)->tp_name);
    memset(&r->context, 0, sizeof(r->context));
    r->values = r->few;
    r->kept = items;
    if (!items || !reserve(r, n))
        return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *pair = PyList_GET_ITEM(items, i);

        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_TypeError, "routing_context must be a mapping from column names to values");
            return false;
        }
        if (!add_value(r, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)))
            return false;
    }
    return true;
}

void routing_cleanup(struct routing *r)
{
    if (r->values != r->few)
        PyMem_Free(r->values);
    Py_CLEAR(r->kept);
}

bool routed_key_from_python(native_state *st, PyObject *o, PyObject *context, struct routing *r, sf_key *key)
{
    PyObject *plain = key_plain(o);
    bool has_context = context && context != Py_None, ok;

    r->values = r->few;
    r->kept = NULL;
    ok = plain && key_from_python(st, plain, key) && (!has_context || routing_from_python(context, r)) &&
         (plain == o || keep(r, plain));
    Py_XDECREF(plain);
    if (ok && has_context)
        key->context = &r->context;
    return ok;
}

/* ---------------------------------------------------------------- expressions ------------------------------------ */

struct py_cel_rule {
    PyObject_HEAD
    native_state *st;
    sf_cel_rule *rule;
};

static void rule_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    sf__cel_rule_free(((struct py_cel_rule *)self)->rule);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *token_to_python(const sf_cel_value *v)
{
    if (v->kind == SF_CEL_INT)
        return PyLong_FromLongLong(v->i);
    if (v->kind == SF_CEL_UINT)
        return PyLong_FromUnsignedLongLong(v->u);
    if (v->kind == SF_CEL_STRING)
        return PyUnicode_DecodeUTF8((const char *)v->s.p, (Py_ssize_t)v->s.n, NULL);
    return PyBytes_FromStringAndSize((const char *)v->s.p, (Py_ssize_t)v->s.n);
}

static PyObject *rule_token(PyObject *self, PyObject *context)
{
    struct py_cel_rule *rule = (struct py_cel_rule *)self;
    struct routing r;
    sf_cel_value token;
    sf_cel_memory m;
    sf_error err;
    PyObject *result = NULL;

    if (routing_from_python(context, &r)) {
        sf_key key = {.type = SF_KEY_INT, .context = &r.context};

        sf__cel_memory_init(&m, &sf__allocator_default);
        if (sf__cel_rule_token(rule->rule, &key, &m, &token, &err) == SF_OK)
            result = token_to_python(&token);
        else
            raise_error(rule->st, &err);
        sf__cel_memory_cleanup(&m);
    }
    routing_cleanup(&r);
    return result;
}

static PyObject *rule_route(PyObject *self, PyObject *args)
{
    struct py_cel_rule *rule = (struct py_cel_rule *)self;
    PyObject *o, *context = Py_None, *result = NULL;
    struct routing r;
    uint32_t db_id;
    sf_error err;
    sf_key key;

    if (!PyArg_ParseTuple(args, "O|O:route", &o, &context))
        return NULL;
    if (routed_key_from_python(rule->st, o, context, &r, &key)) {
        if (sf__cel_rule_route(rule->rule, &key, &db_id, &err) == SF_OK)
            result = PyLong_FromUnsignedLong(db_id);
        else
            raise_error(rule->st, &err);
    }
    routing_cleanup(&r);
    return result;
}

static PyMethodDef rule_methods[] = {
    {"token", rule_token, METH_O,
     "token($self, context, /)\n--\n\nWhat the expression gives for values of its columns: int, str or bytes."},
    {"route", rule_route, METH_VARARGS, "route($self, key, context=None, /)\n--\n\nThe shard of a key."},
    {"__reduce__", native_not_copied, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot rule_slots[] = {
    {Py_tp_doc, "A rule for routing by CEL, compiled. Immutable; any thread."},
    {Py_tp_dealloc, rule_dealloc},
    {Py_tp_methods, rule_methods},
    {0, NULL},
};

PyType_Spec cel_rule_spec = {
    .name = "shardyfusion._native.CelRule",
    .basicsize = sizeof(struct py_cel_rule),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rule_slots,
};

PyObject *native_cel_rule(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    struct py_cel_rule *self;
    const char *sharding;
    Py_ssize_t n;
    unsigned num_dbs;
    sf_error err;

    if (!PyArg_ParseTuple(args, "s#I:cel_rule", &sharding, &n, &num_dbs))
        return NULL;
    self = (struct py_cel_rule *)st->cel_rule_type->tp_alloc(st->cel_rule_type, 0);
    if (!self)
        return NULL;
    self->st = st;
    if (sf__cel_rule_new(&self->rule, sf_bytes_of(sharding, (size_t)n), num_dbs, &sf__allocator_default, &err) == SF_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    raise_error(st, &err);
    return NULL;
}
