/* Pinned snapshots, and their look-ups by the caller's keys and by stored bytes. */
#include "batch.h"
#include "convert.h"
#include "module.h"
#include "objects.h"
#include "options.h"

#include <string.h>

/* ---------------------------------------------------------------- opening ---------------------------------------- */

PyObject *snapshot_to_python(native_state *st, sf_snapshot *s)
{
    struct py_snapshot *o = PyObject_New(struct py_snapshot, st->snapshot_type);

    if (!o) {
        sf_snapshot_give_back(s);
        return NULL;
    }
    o->st = st;
    o->s = s;
    return (PyObject *)o;
}

static enum op_outcome open_shard_start(struct operation *op, PyObject **result)
{
    sf_runtime *rt = native_runtime(op->st);
    sf_reader_options o = SF_READER_OPTIONS_INIT;
    sf_s3_options s3[2];
    sf_error err;
    sf_call *call = NULL;
    struct pending *p;
    const char *url = PyUnicode_AsUTF8(op->owner), *checkpoint = NULL;
    sf_status rc;

    (void)result;
    if (op->b)
        checkpoint = PyUnicode_AsUTF8(op->b);
    if (!rt || !url || (op->b && !checkpoint) ||
        (op->a && op->a != Py_None && !reader_options_from_python(op->a, &o, s3)))
        return OP_FAILED;
    p = op_begin(op);
    if (!p)
        return OP_FAILED;
    rc = sf_snapshot_open_shard_start(&call, rt, url, &o, checkpoint, op->timeout_ms, pending_on_done, p, &err);
    return op_begun(op, rc, call, &err);
}

static PyObject *open_shard_take(struct operation *op, sf_call *call)
{
    return snapshot_to_python(op->st, sf_call_take_snapshot(call));
}

static const struct op_kind open_shard_kind = {.name = "open_shard", .start = open_shard_start, .take = open_shard_take};

PyObject *native_open_shard(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"url", "options", "checkpoint", "timeout", NULL};
    PyObject *url, *options = NULL, *checkpoint = NULL, *timeout = NULL;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U|OOO:open_shard", names, &url, &options, &checkpoint, &timeout) ||
        !text_check(url, "url") || (checkpoint && checkpoint != Py_None && !text_check(checkpoint, "checkpoint")) ||
        !timeout_from_python(timeout, &ms))
        return NULL;
    return op_new(PyModule_GetState(module), &open_shard_kind, url, options, checkpoint == Py_None ? NULL : checkpoint,
                  ms);
}

/* ---------------------------------------------------------------- the manifest ----------------------------------- */

static sf_snapshot *snapshot_of(PyObject *self)
{
    struct py_snapshot *o = (struct py_snapshot *)self;

    if (!o->s)
        PyErr_SetString(PyExc_ValueError, "the snapshot was given back");
    return o->s;
}

sf_snapshot *snapshot_held(PyObject *snapshot)
{
    sf_snapshot *s = snapshot_acquired((struct py_snapshot *)snapshot);

    return s ? s : snapshot_of(snapshot);
}

static PyObject *snapshot_details(PyObject *self, PyObject *unused)
{
    sf_snapshot *s = snapshot_held(self);
    PyObject *details;
    sf_snapshot_info i;

    (void)unused;
    if (!s)
        return NULL;
    sf_snapshot_get_info(s, &i);
    details = snapshot_info_to_python(&i);
    sf_snapshot_give_back(s);
    return details;
}

static PyObject *snapshot_rows(PyObject *self, PyObject *unused)
{
    sf_snapshot *s = snapshot_held(self);
    PyObject *rows;
    sf_snapshot_info info;

    (void)unused;
    if (!s)
        return NULL;
    sf_snapshot_get_info(s, &info);
    rows = PyList_New(0);
    for (uint32_t id = 0; rows && id < info.num_dbs; id++) {
        sf_shard_info i;
        PyObject *row;

        if (!sf_snapshot_get_shard(s, id, &i) || !i.writer_info_json)
            continue; /* no row */
        row = shard_info_to_python(&i);
        if (!row || PyList_Append(rows, row) < 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    sf_snapshot_give_back(s);
    return rows;
}

static PyObject *snapshot_route(PyObject *self, PyObject *args)
{
    native_state *st = ((struct py_snapshot *)self)->st;
    PyObject *o, *context = Py_None, *result = NULL;
    struct routing r;
    sf_snapshot *s;
    sf_error err;
    uint32_t db_id;
    sf_key key;

    if (!PyArg_ParseTuple(args, "O|O:route", &o, &context) || !(s = snapshot_held(self)))
        return NULL;
    if (routed_key_from_python(st, o, context, &r, &key)) {
        if (sf_snapshot_route(s, &key, &db_id, &err) == SF_OK)
            result = PyLong_FromUnsignedLong(db_id);
        else
            raise_error(st, &err);
    }
    routing_cleanup(&r);
    sf_snapshot_give_back(s);
    return result;
}

static PyObject *snapshot_encode_key(PyObject *self, PyObject *o)
{
    native_state *st = ((struct py_snapshot *)self)->st;
    PyObject *plain = key_plain(o), *result = NULL;
    sf_snapshot *s = plain ? snapshot_of(self) : NULL;
    uint8_t scratch[8];
    sf_bytes stored;
    sf_key key;

    if (s && key_from_python(st, plain, &key)) {
        if (sf_snapshot_encode_key(s, &key, scratch, &stored, NULL) == SF_OK)
            result = PyBytes_FromStringAndSize((const char *)stored.p, (Py_ssize_t)stored.n);
        else
            raise_key_error(st, s, plain);
    }
    Py_XDECREF(plain);
    return result;
}

/* ---------------------------------------------------------------- look-ups --------------------------------------- */

static bool stored_from_python(PyObject *o, sf_bytes *out)
{
    if (!PyBytes_Check(o)) {
        PyErr_Format(PyExc_TypeError, "a stored key must be bytes, not %.200s", Py_TYPE(o)->tp_name);
        return false;
    }
    *out = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o)};
    return true;
}

/* By stored bytes, in the shard op->n. */
static enum op_outcome stored_get_start(struct operation *op, sf_snapshot *s, sf_bytes key, PyObject **result)
{
    struct pending *p;
    sf_error err;
    sf_call *call = NULL;
    sf_value v;
    sf_status rc = sf_snapshot_ask_shard(s, op->n, key, op->timeout_ms, &v, &call, &err);

    if (rc == SF_OK) {
        *result = op_value(op, &v);
        sf_value_release(&v);
        return *result ? OP_FINISHED : OP_FAILED;
    }
    if (rc != SF_WOULD_BLOCK) {
        raise_error(op->st, &err);
        return OP_FAILED;
    }
    p = op_begin(op); /* runs Python, which may give the snapshot back: the call keeps it */
    if (!p) {
        sf_call_release(call);
        return OP_FAILED;
    }
    sf_call_begin(call, pending_on_done, p);
    return op_begun(op, SF_OK, call, NULL);
}

static enum op_outcome get_start(struct operation *op, PyObject **result)
{
    enum op_outcome o = OP_FAILED;
    sf_snapshot *s;
    sf_bytes key;

    Py_BEGIN_CRITICAL_SECTION(op->owner);
    s = snapshot_of(op->owner);
    if (s && stored_from_python(op->a, &key))
        o = stored_get_start(op, s, key, result);
    Py_END_CRITICAL_SECTION();
    return o;
}

static PyObject *get_take(struct operation *op, sf_call *call)
{
    return op_value(op, sf_call_values(call, NULL));
}

static const struct op_kind get_kind = {.name = "Snapshot.get", .start = get_start, .take = get_take};

static bool db_id_from_python(PyObject *o, uint32_t *out)
{
    unsigned long v = PyLong_AsUnsignedLong(o);

    if (v == (unsigned long)-1 && PyErr_Occurred())
        return false;
    if (v > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such shard");
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

static PyObject *snapshot_shard_number(PyObject *self, PyObject *db_id)
{
    sf_snapshot *s;
    uint32_t id;

    if (!db_id_from_python(db_id, &id))
        return NULL;
    s = snapshot_of(self);
    return s ? shard_number(s, id) : NULL;
}

/* None: it is no SQLite shard, or not open; else the file of its copy, "" when it is read by ranges. */
static PyObject *snapshot_sqlite_file(PyObject *self, PyObject *db_id)
{
    const char *file = NULL;
    sf_snapshot *s;
    uint32_t id;

    if (!db_id_from_python(db_id, &id))
        return NULL;
    s = snapshot_of(self);
    if (!s)
        return NULL;
    if (!sf_snapshot_shard_is_sqlite(s, id, &file))
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(file ? file : "");
}

static PyObject *look_up(PyObject *self, const struct op_kind *kind, uint32_t answers, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", "timeout", "ask", NULL};
    PyObject *db_id, *key, *timeout = NULL, *ask = NULL, *op;
    int64_t ms;
    uint32_t id;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO", names, &db_id, &key, &timeout, &ask) ||
        !db_id_from_python(db_id, &id) || !timeout_from_python(timeout, &ms))
        return NULL;
    op = op_asking(op_new(((struct py_snapshot *)self)->st, kind, self, key, NULL, ms), ask);
    if (op) {
        ((struct operation *)op)->n = id;
        ((struct operation *)op)->answers = answers;
    }
    return op;
}

static PyObject *snapshot_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return look_up(self, &get_kind, 0, args, kwargs);
}

static enum op_outcome multi_get_start(struct operation *op, PyObject **result)
{
    sf_snapshot *s;

    if (op->extra)
        return batch_go_on(op, result);
    s = snapshot_held(op->owner);
    return s ? batch_start_stored(op, s, op->n, result) : OP_FAILED;
}

static const struct op_kind multi_get_kind = {
    .name = "Snapshot.multi_get", .start = multi_get_start, .take = batch_take, .clear = batch_clear};

static PyObject *snapshot_multi_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return look_up(self, &multi_get_kind, 0, args, kwargs);
}

static PyObject *snapshot_get_many(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return look_up(self, &multi_get_kind, ANSWERS_ALIGNED, args, kwargs);
}

static PyObject *snapshot_contains(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return look_up(self, &get_kind, ANSWERS_FOUND, args, kwargs);
}

static PyObject *snapshot_contains_many(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return look_up(self, &multi_get_kind, ANSWERS_ALIGNED | ANSWERS_FOUND, args, kwargs);
}

/* By keys as callers write them, of all shards. */
static enum op_outcome look_up_many_start(struct operation *op, PyObject **result)
{
    sf_snapshot *s;

    if (op->extra)
        return batch_go_on(op, result);
    s = snapshot_held(op->owner);
    return s ? batch_start(op, s, NULL, result) : OP_FAILED;
}

static const struct op_kind look_up_many_kind = {.name = "Snapshot.look_up_many",
                                                 .start = look_up_many_start,
                                                 .take = batch_take,
                                                 .fail = batch_fail,
                                                 .clear = batch_clear};

static PyObject *snapshot_look_up_many(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "routing_context", "on_error", "timeout", "ask", NULL};
    PyObject *keys, *context = NULL, *on_error = NULL, *timeout = NULL, *ask = NULL, *op;
    uint32_t answers = 0;
    int64_t ms;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOO:look_up_many", names, &keys, &context, &on_error, &timeout,
                                     &ask) ||
        !batch_on_error(on_error, &answers) || !timeout_from_python(timeout, &ms))
        return NULL;
    op = op_new(((struct py_snapshot *)self)->st, &look_up_many_kind, self, keys, context == Py_None ? NULL : context,
                ms);
    if (op)
        ((struct operation *)op)->answers = answers;
    return op_asking(op, ask);
}

/* False with an exception, or without one: the engine is to say what is wrong with the key, or to open its shard. */
static bool group_add(PyObject *groups, const sf_snapshot *s, PyObject *o, const sf_key *key)
{
    uint8_t scratch[8];
    uint32_t db_id;
    sf_bytes stored;
    PyObject *id, *group, *bytes, *number;
    bool ok;

    if (sf_snapshot_route(s, key, &db_id, NULL) != SF_OK ||
        sf_snapshot_encode_key(s, key, scratch, &stored, NULL) != SF_OK)
        return false;
    id = PyLong_FromUnsignedLong(db_id);
    group = id ? PyDict_GetItemWithError(groups, id) : NULL;
    if (id && !group && !PyErr_Occurred()) {
        number = shard_number(s, db_id);
        group = number && number != Py_None ? Py_BuildValue("(O[][])", number) : NULL;
        ok = group && PyDict_SetItem(groups, id, group) == 0;
        Py_XDECREF(number);
        Py_XDECREF(group); /* `groups` keeps it */
        group = ok ? group : NULL;
    }
    bytes = group ? PyBytes_FromStringAndSize((const char *)stored.p, (Py_ssize_t)stored.n) : NULL;
    ok = bytes && PyList_Append(PyTuple_GET_ITEM(group, 1), o) == 0 &&
         PyList_Append(PyTuple_GET_ITEM(group, 2), bytes) == 0;
    Py_XDECREF(bytes);
    Py_XDECREF(id);
    return ok;
}

/* What is wrong with a key, or with the context, the engine's look-up says. */
static PyObject *snapshot_keys_by_shard(PyObject *self, PyObject *args)
{
    native_state *st = ((struct py_snapshot *)self)->st;
    PyObject *keys, *context, *groups;
    struct routing r;
    sf_snapshot *s;
    bool ok = true;

    if (!PyArg_ParseTuple(args, "O!O:keys_by_shard", &PyTuple_Type, &keys, &context))
        return NULL;
    s = snapshot_held(self);
    if (!s)
        return NULL;
    groups = PyDict_New();
    ok = groups != NULL;
    for (Py_ssize_t i = 0; ok && i < PyTuple_GET_SIZE(keys); i++) {
        PyObject *o = PyTuple_GET_ITEM(keys, i);
        sf_key key;

        ok = routed_key_from_python(st, o, context, &r, &key) && group_add(groups, s, o, &key);
        routing_cleanup(&r);
    }
    sf_snapshot_give_back(s);
    if (ok)
        return groups;
    Py_XDECREF(groups);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_TypeError))
        return NULL;
    PyErr_Clear();
    Py_RETURN_NONE;
}

static PyObject *snapshot_try_get(PyObject *self, PyObject *args)
{
    native_state *st = ((struct py_snapshot *)self)->st;
    PyObject *db_id, *o, *value = NULL;
    sf_snapshot *s;
    sf_bytes key;
    sf_error err;
    sf_value v;
    uint32_t id;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "OO:try_get", &db_id, &o) || !db_id_from_python(db_id, &id) ||
        !stored_from_python(o, &key) || !(s = snapshot_of(self)))
        return NULL;
    rc = sf_snapshot_try_get(s, id, key, &v, &err);
    if (rc == SF_OK) {
        value = value_to_python(&v);
        sf_value_release(&v);
    } else if (rc == SF_WOULD_BLOCK) {
        raise_not_in_memory();
    } else {
        raise_error(st, &err);
    }
    return value;
}

/* ---------------------------------------------------------------- look-ups by the caller's keys ------------------ */

enum op_outcome look_up_pinned(struct operation *op, sf_snapshot *s, PyObject **result)
{
    enum op_outcome o = OP_FAILED;
    uint8_t scratch[8];
    struct routing r;
    sf_error err;
    sf_key key;
    sf_bytes stored;
    sf_status rc;

    if (!routed_key_from_python(op->st, op->a, op->b, &r, &key)) {
        routing_cleanup(&r);
        return OP_FAILED;
    }
    rc = sf_snapshot_route(s, &key, &op->n, &err);
    if (rc == SF_NO_ROUTE) {
        *result = op_value(op, &(sf_value){0});
        o = OP_FINISHED;
    } else if (rc != SF_OK) {
        raise_error(op->st, &err);
    } else if (sf_snapshot_encode_key(s, &key, scratch, &stored, NULL) != SF_OK) {
        raise_key_error(op->st, s, op->a);
    } else {
        o = stored_get_start(op, s, stored, result);
    }
    routing_cleanup(&r);
    return o;
}

/* ---------------------------------------------------------------- scans ------------------------------------------ */

static bool bytes_option(PyObject *o, bool *given, sf_bytes *out)
{
    *given = o && o != Py_None;
    return !*given || stored_from_python(o, out);
}

static PyObject *snapshot_scan(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"db_id", "start", "end", "prefix", "limit", "reverse", "prefetch_bytes", NULL};
    sf_snapshot *s;
    PyObject *db_id = NULL, *start = NULL, *end = NULL, *prefix = NULL, *limit = NULL, *prefetch = NULL;
    sf_scan_options o = SF_SCAN_OPTIONS_INIT;
    bool has_start;
    int reverse = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOOpO:scan", names, &db_id, &start, &end, &prefix, &limit,
                                     &reverse, &prefetch))
        return NULL;
    if (!bytes_option(start, &has_start, &o.start) || !bytes_option(end, &o.has_end, &o.end) ||
        !bytes_option(prefix, &o.has_prefix, &o.prefix))
        return NULL;
    if (db_id && db_id != Py_None && !db_id_from_python(db_id, &o.db_id))
        return NULL;
    if (prefetch && !option_u64(prefetch, &(struct option){.name = "prefetch_bytes"}, &o.prefetch_bytes))
        return NULL;
    if (limit && limit != Py_None) {
        o.limit = PyLong_AsUnsignedLongLong(limit);
        if (o.limit == (uint64_t)-1 && PyErr_Occurred())
            return NULL;
    }
    o.reverse = reverse;
    s = snapshot_of(self); /* not sooner: numbers may be objects that run code */
    return s ? scan_open(((struct py_snapshot *)self)->st, s, &o) : NULL;
}

/* ---------------------------------------------------------------- life ------------------------------------------- */

static PyObject *snapshot_close(PyObject *self, PyObject *unused)
{
    struct py_snapshot *o = (struct py_snapshot *)self;
    sf_snapshot *s = o->s;

    (void)unused;
    NATIVE_STORE(o->s, NULL);
    sf_snapshot_give_back(s);
    Py_RETURN_NONE;
}

static void snapshot_dealloc(PyObject *self)
{
    struct py_snapshot *o = (struct py_snapshot *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (native_owns_engine(o->st))
        sf_snapshot_give_back(o->s);
    type->tp_free(self);
    Py_DECREF(type);
}

NATIVE_ALONE(snapshot_encode_key);
NATIVE_ALONE(snapshot_shard_number);
NATIVE_ALONE(snapshot_sqlite_file);
NATIVE_ALONE(snapshot_try_get);
NATIVE_ALONE(snapshot_close);
NATIVE_ALONE_KEYWORDS(snapshot_scan);

static PyMethodDef snapshot_methods[] = {
    NOT_COPIED,
    {"details", snapshot_details, METH_NOARGS, "details($self)\n--\n\nThe manifest's head."},
    {"rows", snapshot_rows, METH_NOARGS, "rows($self)\n--\n\nThe manifest's shards, by db_id."},
    {"route", snapshot_route, METH_VARARGS, "route($self, key, context=None, /)\n--\n\nThe shard of a key."},
    {"encode_key", ALONE(snapshot_encode_key), METH_O, "encode_key($self, key)\n--\n\nThe stored bytes of a key."},
    {"keys_by_shard", snapshot_keys_by_shard, METH_VARARGS,
     "keys_by_shard($self, keys, routing_context, /)\n--\n\n"
     "Of shards of the caller's that are open: by their db_id the number, the keys, their stored bytes. None: it takes the engine."},
    {"shard_number", ALONE(snapshot_shard_number), METH_O,
     "shard_number($self, db_id, /)\n--\n\nOf the caller's own shard; None: it is not opened, or there is none."},
    {"sqlite_file", ALONE(snapshot_sqlite_file), METH_O,
     "sqlite_file($self, db_id, /)\n--\n\nThe copy of an SQLite shard, empty: read by ranges; None: no SQLite shard, or not open."},
    {"get", (PyCFunction)(void (*)(void))snapshot_get, METH_VARARGS | METH_KEYWORDS,
     "get($self, db_id, key, /, timeout=None, ask=None)\n--\n\nThe value of a stored key."},
    {"multi_get", (PyCFunction)(void (*)(void))snapshot_multi_get, METH_VARARGS | METH_KEYWORDS,
     "multi_get($self, db_id, keys, /, timeout=None, ask=None)\n--\n\nThe values of stored keys of one shard, as a dict."},
    {"get_many", (PyCFunction)(void (*)(void))snapshot_get_many, METH_VARARGS | METH_KEYWORDS,
     "get_many($self, db_id, keys, /, timeout=None, ask=None)\n--\n\nThe same as a list aligned with the keys."},
    {"look_up_many", (PyCFunction)(void (*)(void))snapshot_look_up_many, METH_VARARGS | METH_KEYWORDS,
     "look_up_many($self, keys, /, routing_context=None, on_error='raise', timeout=None, ask=None)\n--\n\n"
     "The values of keys as callers write them, wherever they lie, as a dict."},
    {"contains", (PyCFunction)(void (*)(void))snapshot_contains, METH_VARARGS | METH_KEYWORDS,
     "contains($self, db_id, key, /, timeout=None, ask=None)\n--\n\nWhether there is a value."},
    {"contains_many", (PyCFunction)(void (*)(void))snapshot_contains_many, METH_VARARGS | METH_KEYWORDS,
     "contains_many($self, db_id, keys, /, timeout=None, ask=None)\n--\n\nThe same for many keys, as an aligned list."},
    {"try_get", ALONE(snapshot_try_get), METH_VARARGS,
     "try_get($self, db_id, key, /)\n--\n\nThe value out of memory; LookupError when that does not have it."},
    {"scan", (PyCFunction)(void (*)(void))ALONE(snapshot_scan), METH_VARARGS | METH_KEYWORDS,
     "scan($self, *, db_id=None, start=None, end=None, prefix=None, limit=None, reverse=False, prefetch_bytes=SCAN_PREFETCH_BYTES)\n--\n\nRows in key order."},
    {"close", ALONE(snapshot_close), METH_NOARGS, "close($self)\n--\n\nGives the snapshot back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot snapshot_slots[] = {
    {Py_tp_dealloc, snapshot_dealloc},
    {Py_tp_methods, snapshot_methods},
    {0, NULL},
};

PyType_Spec snapshot_spec = {
    .name = "shardyfusion._native.Snapshot",
    .basicsize = sizeof(struct py_snapshot),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = snapshot_slots,
};
