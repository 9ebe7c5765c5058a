/* Keys, values, timeouts. */
#include "convert.h"
#include "module.h"
#include "operation.h"

#include "base/checksum.h"
#include "snapshot/key.h"
#include "snapshot/router.h"

#include <math.h>

#define MAX_SECONDS 3e9 /* a century: without end, and no clock overflows */

/* ---------------------------------------------------------------- keys ------------------------------------------- */

/* There is none before somebody has imported it. 1, 0, or negative with an exception. */
static int is_uuid(PyObject *o)
{
    PyObject *name = PyUnicode_FromString("uuid");
    PyObject *module = name ? PyImport_GetModule(name) : NULL;
    PyObject *type = module ? PyObject_GetAttrString(module, "UUID") : NULL;
    int is = type ? PyType_Check(type) && PyObject_TypeCheck(o, (PyTypeObject *)type) : PyErr_Occurred() ? -1 : 0;

    Py_XDECREF(name);
    Py_XDECREF(module);
    Py_XDECREF(type);
    return is;
}

static PyObject *bytes_of_uuid(PyObject *o)
{
    PyObject *bytes = PyObject_GetAttrString(o, "bytes");

    if (!bytes || PyBytes_Check(bytes))
        return bytes;
    PyErr_Format(PyExc_TypeError, "the bytes of a %.200s are a %.200s", Py_TYPE(o)->tp_name, Py_TYPE(bytes)->tp_name);
    Py_DECREF(bytes);
    return NULL;
}

/* The number of NumPy's integers and others that are one; arrays have the slot, too, and refuse. */
static PyObject *integer_of(PyObject *o)
{
    PyObject *integer = PyNumber_Index(o);

    if (integer || !PyErr_ExceptionMatches(PyExc_TypeError))
        return integer;
    PyErr_Clear();
    return Py_NewRef(o);
}

PyObject *key_for_dict(PyObject *o)
{
    if (key_is_plain(o))
        return Py_NewRef(o);
    if (PyByteArray_Check(o) || PyMemoryView_Check(o))
        return PyBytes_FromObject(o);
    return PyIndex_Check(o) ? integer_of(o) : Py_NewRef(o);
}

PyObject *key_plain(PyObject *o)
{
    PyObject *key = key_for_dict(o);
    int uuid;

    if (!key || key_is_plain(key))
        return key;
    uuid = is_uuid(key);
    if (uuid == 0)
        return key;
    Py_DECREF(key);
    return uuid > 0 ? bytes_of_uuid(o) : NULL;
}

PyObject *native_plain_key(PyObject *module, PyObject *key)
{
    (void)module;
    return key_plain(key);
}

static int64_t signed_at(const void *p, Py_ssize_t size)
{
    return size == 1   ? *(const int8_t *)p
           : size == 2 ? *(const int16_t *)p
           : size == 4 ? *(const int32_t *)p
                       : *(const int64_t *)p;
}

static uint64_t unsigned_at(const void *p, Py_ssize_t size)
{
    return size == 1   ? *(const uint8_t *)p
           : size == 2 ? *(const uint16_t *)p
           : size == 4 ? *(const uint32_t *)p
                       : *(const uint64_t *)p;
}

/* Of integers of this machine's. */
static bool is_integer_array(const Py_buffer *view, bool *is_signed)
{
    const char *format = view->format ? view->format : "B";
    Py_ssize_t size = view->itemsize;

    if (*format == '@' || *format == '=')
        format++;
    *is_signed = *format && strchr("bhilqn", *format);
    return view->ndim == 1 && (size == 1 || size == 2 || size == 4 || size == 8) && *format &&
           strchr("bBhHiIlLqQnN", *format) && !format[1];
}

static PyObject *integers_to_tuple(const Py_buffer *view, bool is_signed)
{
    Py_ssize_t n = view->shape[0];
    PyObject *keys = PyTuple_New(n);

    for (Py_ssize_t i = 0; keys && i < n; i++) {
        uint64_t item = 0; /* aligned, as arrays need not be */
        PyObject *key;

        memcpy(&item, (const char *)view->buf + i * view->strides[0], (size_t)view->itemsize);
        key = is_signed ? PyLong_FromLongLong(signed_at(&item, view->itemsize))
                        : PyLong_FromUnsignedLongLong(unsigned_at(&item, view->itemsize));
        if (key)
            PyTuple_SET_ITEM(keys, i, key);
        else
            Py_CLEAR(keys);
    }
    return keys;
}

PyObject *keys_to_tuple(PyObject *keys)
{
    PyObject *integers;
    Py_buffer view;
    bool is_signed;

    if (!PyObject_CheckBuffer(keys))
        return PySequence_Tuple(keys);
    if (PyObject_GetBuffer(keys, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) /* Ctrl-C */
            return NULL;
        PyErr_Clear(); /* some arrays have items that no buffer has */
        return PySequence_Tuple(keys);
    }
    /* a mask is not in the buffer: what it hides are no keys */
    integers = is_integer_array(&view, &is_signed) && !PyObject_HasAttrString(keys, "mask")
                   ? integers_to_tuple(&view, is_signed)
                   : NULL;
    PyBuffer_Release(&view);
    return integers || PyErr_Occurred() ? integers : PySequence_Tuple(keys);
}

static void raise_from_key_hook(native_state *st, PyObject *o, PyObject *encoding)
{
    PyObject *key = key_plain(o), *args[] = {key, encoding};

    if (!key)
        return;
    if (!st->key_error_hook)
        PyErr_SetString(PyExc_ValueError, "the key cannot be looked up");
    else
        raise_exception(PyObject_Vectorcall(st->key_error_hook, args, 2, NULL));
    Py_DECREF(key);
}

bool key_from_python(native_state *st, PyObject *o, sf_key *key)
{
    if (key_from_int(o, key))
        return true;
    if (PyLong_Check(o)) {
        int overflow;
        long long v = PyLong_AsLongLongAndOverflow(o, &overflow);

        if (v == -1 && PyErr_Occurred())
            return false;
        if (overflow) {
            raise_from_key_hook(st, o, Py_None);
            return false;
        }
        *key = sf_key_int(v);
        return true;
    }
    if (PyBytes_Check(o)) {
        *key = sf_key_bytes(PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o));
        key->type = SF__KEY_LAX_BYTES;
        return true;
    }
    if (PyUnicode_Check(o)) {
        Py_ssize_t n;
        const char *text = PyUnicode_AsUTF8AndSize(o, &n); /* kept by the object */

        if (!text)
            return false;
        *key = sf_key_str(text, (size_t)n);
        return true;
    }
    raise_from_key_hook(st, o, Py_None);
    return false;
}

const char *encoding_name(sf_key_encoding e)
{
    return sf__key_encoding_name(e);
}

void raise_key_error(native_state *st, const sf_snapshot *s, PyObject *o)
{
    sf_snapshot_info info;
    PyObject *encoding;

    sf_snapshot_get_info(s, &info);
    encoding = PyUnicode_FromString(encoding_name(info.key_encoding));
    if (!encoding)
        return;
    raise_from_key_hook(st, o, encoding);
    Py_DECREF(encoding);
}

PyObject *native_canonical_bytes(PyObject *module, PyObject *o)
{
    PyObject *plain = key_plain(o), *canonical = NULL;
    uint8_t scratch[8];
    sf_key key;
    sf_bytes b;

    if (plain && PyBytes_CheckExact(plain)) /* cannot change: no copy */
        return plain;
    if (plain && key_from_python(PyModule_GetState(module), plain, &key)) {
        b = sf__key_route_bytes(&key, scratch);
        canonical = PyBytes_FromStringAndSize((const char *)b.p, (Py_ssize_t)b.n);
    }
    Py_XDECREF(plain);
    return canonical;
}

PyObject *native_xxh3_64(PyObject *module, PyObject *data)
{
    Py_buffer view;
    uint64_t h;

    (void)module;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    h = sf__xxh3_64(sf_bytes_of(view.buf, (size_t)view.len));
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(h);
}

PyObject *native_hash_db_id(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    native_state *st = PyModule_GetState(module);
    PyObject *plain, *result = NULL;
    sf_router router;
    sf_key key;
    sf_error err = SF_ERROR_INIT;
    uint32_t db_id;
    long long num_dbs;
    int overflow;

    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "hash_db_id() takes a key and the number of shards");
        return NULL;
    }
    num_dbs = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    if (num_dbs == -1 && PyErr_Occurred())
        return NULL;
    if (overflow > 0 || num_dbs > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "num_dbs must be at most %lu, got %S", (unsigned long)UINT32_MAX, args[1]);
        return NULL;
    }
    if (overflow < 0 || num_dbs <= 0 || sf__router_init_hash(&router, (uint32_t)num_dbs, &err) != SF_OK) {
        PyErr_Format(PyExc_ValueError, "num_dbs must be positive, got %S", args[1]);
        return NULL;
    }
    plain = key_plain(args[0]);
    if (plain && key_from_python(st, plain, &key)) {
        if (sf__router_route(&router, &key, &db_id, &err) == SF_OK)
            result = PyLong_FromUnsignedLong(db_id);
        else
            raise_error(st, &err);
    }
    Py_XDECREF(plain);
    return result;
}

static bool is_positive(PyObject *o)
{
    int over = 0;
    long long v = PyLong_AsLongLongAndOverflow(o, &over);

    return over > 0 || (over == 0 && v > 0);
}

/* `o` is plain. */
static PyObject *encode_key(native_state *st, PyObject *encoding_name, sf_key_encoding encoding, PyObject *o)
{
    uint8_t scratch[8];
    sf_status rc;
    sf_key key;
    sf_bytes b;

    if (PyLong_Check(o) && is_positive(o)) { /* up to 2^64 - 1, though such keys route nowhere */
        unsigned long long v = PyLong_AsUnsignedLongLong(o);

        if (v == (unsigned long long)-1 && PyErr_Occurred()) {
            PyErr_Clear();
            rc = SF_INVALID_KEY;
        } else {
            rc = sf__key_encode_uint(encoding, v, scratch, &b, NULL);
        }
    } else if (key_from_python(st, o, &key)) {
        rc = sf__key_encode(encoding, &key, scratch, &b, NULL);
    } else { /* that it cannot be routed does not matter here: what the encoding says about it does */
        PyErr_Clear();
        rc = SF_INVALID_KEY;
    }
    if (rc == SF_OK)
        return PyBytes_FromStringAndSize((const char *)b.p, (Py_ssize_t)b.n);
    raise_from_key_hook(st, o, encoding_name);
    return NULL;
}

PyObject *native_encode_key(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    PyObject *key, *stored;
    sf_key_encoding encoding;
    const char *name;
    Py_ssize_t name_n;

    if (n != 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "encode_key() takes the name of an encoding and a key");
        return NULL;
    }
    name = PyUnicode_AsUTF8AndSize(args[0], &name_n);
    if (!name)
        return NULL;
    if (!sf__key_encoding_from_name(sf_bytes_of(name, (size_t)name_n), &encoding)) {
        PyErr_Format(PyExc_ValueError, "Unsupported key encoding: %R", args[0]);
        return NULL;
    }
    key = key_plain(args[1]);
    stored = key ? encode_key(PyModule_GetState(module), args[0], encoding, key) : NULL;
    Py_XDECREF(key);
    return stored;
}

/* ---------------------------------------------------------------- values ----------------------------------------- */

PyObject *value_to_python(const sf_value *v)
{
    if (!v->found)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)v->bytes.p, (Py_ssize_t)v->bytes.n);
}

PyObject *op_value(const struct operation *op, const sf_value *v)
{
    return op->answers & ANSWERS_FOUND ? PyBool_FromLong(v->found) : value_to_python(v);
}

void raise_not_in_memory(void)
{
    PyErr_SetString(PyExc_LookupError, "memory does not have the answer: it takes a read of storage, as get() does it");
}

/* ---------------------------------------------------------------- options ---------------------------------------- */

static bool refuse_timeout(PyObject *o)
{
    PyErr_Format(PyExc_TypeError, "timeout must be seconds, a timedelta or None, not %.200s", Py_TYPE(o)->tp_name);
    return false;
}

static bool number_of_seconds(PyObject *o, double *s)
{
    PyObject *seconds;

    if (!PyBool_Check(o) && (PyFloat_Check(o) || PyLong_Check(o) || PyNumber_Check(o))) {
        *s = PyFloat_AsDouble(o);
    } else {
        seconds = PyObject_CallMethod(o, "total_seconds", NULL);
        if (!seconds)
            return PyErr_ExceptionMatches(PyExc_AttributeError) ? refuse_timeout(o) : false;
        *s = PyFloat_AsDouble(seconds);
        Py_DECREF(seconds);
    }
    if (*s != -1.0 || !PyErr_Occurred())
        return true;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return PyErr_ExceptionMatches(PyExc_TypeError) ? refuse_timeout(o) : false;
    PyErr_Clear(); /* an integer beyond every clock */
    *s = INFINITY;
    return true;
}

bool timeout_from_python(PyObject *o, int64_t *ms)
{
    double s;

    *ms = SF_TIMEOUT_NONE;
    if (!o || o == Py_None)
        return true;
    if (!number_of_seconds(o, &s))
        return false;
    if (s != s) {
        PyErr_SetString(PyExc_ValueError, "timeout is not a number");
        return false;
    }
    if (s < MAX_SECONDS)
        *ms = s > 0 ? (int64_t)(s * 1000) : 0;
    return true;
}

PyObject *native_timeout_seconds(PyObject *module, PyObject *o)
{
    int64_t ms;
    double s;

    (void)module;
    if (!timeout_from_python(o, &ms))
        return NULL;
    if (ms == SF_TIMEOUT_NONE)
        Py_RETURN_NONE;
    if (!number_of_seconds(o, &s)) /* not rounded: event loops take what is less than a millisecond */
        return NULL;
    return PyFloat_FromDouble(s > 0 ? s : 0);
}
