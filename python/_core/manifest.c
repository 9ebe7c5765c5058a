/* Snapshot manifests: what the engine's parser made of an object's bytes, and back. The same dictionaries describe the
 * snapshots of readers. */
#include "convert.h"
#include "module.h"
#include "objects.h"

#include "reader/snapshot.h"
#include "snapshot/key.h"
#include "snapshot/manifest_write.h"

struct py_manifest {
    PyObject_HEAD
    sf_snapshot_manifest *m; /* never changed: needs no lock */
};

/* ---------------------------------------------------------------- from the engine -------------------------------- */

PyObject *snapshot_info_to_python(const sf_snapshot_info *i)
{
    return Py_BuildValue("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:L,s:I,s:I,s:i,s:K,s:s,s:s}", "run_id", i->run_id,
                         "manifest_ref", i->manifest_ref, "s3_prefix", i->s3_prefix, "key_col", i->key_col,
                         "db_path_template", i->db_path_template, "shard_prefix", i->shard_prefix, "sharding",
                         i->sharding_json, "custom", i->custom_json, "created_at_us", (long long)i->created_at_us,
                         "num_dbs", i->num_dbs, "shard_count", i->shard_count, "format_version", (int)i->format_version,
                         "row_count", (unsigned long long)i->row_count, "key_encoding", encoding_name(i->key_encoding),
                         "strategy", i->strategy == SF_SHARDING_CEL ? "cel" : "hash");
}

PyObject *shard_info_to_python(const sf_shard_info *i)
{
    return Py_BuildValue("{s:I,s:z,s:I,s:K,s:K,s:z,s:z,s:z,s:s}", "db_id", i->db_id, "db_url", i->db_url, "attempt",
                         i->attempt, "row_count", (unsigned long long)i->row_count, "db_bytes",
                         (unsigned long long)i->db_bytes, "min_key", i->min_key_json, "max_key", i->max_key_json,
                         "checkpoint_id", i->checkpoint_id, "writer_info", i->writer_info_json);
}

static PyObject *row_to_python(const void *item)
{
    sf_shard_info i;

    sf__shard_info_of(item, &i);
    return shard_info_to_python(&i);
}

static PyObject *manifest_details(PyObject *self, PyObject *unused)
{
    const sf_snapshot_manifest *m = ((struct py_manifest *)self)->m;
    sf_snapshot_info i;
    PyObject *details;

    (void)unused;
    sf__snapshot_info_of(m, &i);
    details = snapshot_info_to_python(&i);
    if (details && PyDict_SetItemString(details, "created_at_naive", m->created_at_naive ? Py_True : Py_False) < 0)
        Py_CLEAR(details);
    return details;
}

static PyObject *manifest_rows(PyObject *self, PyObject *unused)
{
    const sf_snapshot_manifest *m = ((struct py_manifest *)self)->m;

    (void)unused;
    return list_to_python(m->shards, m->shard_count, sizeof(*m->shards), row_to_python);
}

static PyObject *manifest_row(PyObject *self, PyObject *number)
{
    const sf_snapshot_manifest *m = ((struct py_manifest *)self)->m;
    long long db_id = PyLong_AsLongLong(number);
    const sf_manifest_shard *shard;

    if (db_id == -1 && PyErr_Occurred())
        return NULL;
    shard = db_id >= 0 && db_id <= UINT32_MAX ? sf__snapshot_manifest_shard(m, (uint32_t)db_id) : NULL;
    if (shard)
        return row_to_python(shard);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- the object ------------------------------------- */

static PyObject *manifest_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"payload", "head_only", NULL};
    PyObject *payload, *bytes;
    struct py_manifest *self;
    sf_snapshot_manifest *m;
    sf_error err = SF_ERROR_INIT;
    int head_only = 0;
    sf_bytes span;
    sf_status rc;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|p:Manifest", names, &payload, &head_only))
        return NULL;
    bytes = PyBytes_FromObject(payload); /* what may change while it is parsed is copied */
    if (!bytes)
        return NULL;
    span = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    Py_BEGIN_ALLOW_THREADS;
    rc = sf__snapshot_manifest_parse(&m, span, head_only ? SF_MANIFEST_HEAD_ONLY : 0, &sf__allocator_default, &err);
    Py_END_ALLOW_THREADS;
    Py_DECREF(bytes);
    if (rc != SF_OK) {
        raise_error(native_state_of(type), &err);
        return NULL;
    }
    self = (struct py_manifest *)type->tp_alloc(type, 0);
    if (self)
        self->m = m;
    else
        sf__snapshot_manifest_free(m);
    return (PyObject *)self;
}

static void manifest_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    sf__snapshot_manifest_free(((struct py_manifest *)self)->m);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef manifest_methods[] = {
    NOT_COPIED,
    {"details", manifest_details, METH_NOARGS, "details($self)\n--\n\nThe manifest's head."},
    {"rows", manifest_rows, METH_NOARGS, "rows($self)\n--\n\nThe manifest's shards, by db_id."},
    {"row", manifest_row, METH_O, "row($self, db_id, /)\n--\n\nOne of them, or None."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot manifest_slots[] = {
    {Py_tp_new, manifest_new},
    {Py_tp_dealloc, manifest_dealloc},
    {Py_tp_methods, manifest_methods},
    {0, NULL},
};

PyType_Spec manifest_spec = {
    .name = "shardyfusion._native.Manifest",
    .basicsize = sizeof(struct py_manifest),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = manifest_slots,
};

/* ---------------------------------------------------------------- to the engine ---------------------------------- */

static PyObject *field_of(PyObject *dict, const char *name)
{
    PyObject *o = PyDict_Check(dict) ? dict_item(dict, name) : NULL;

    if (!o && !PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "a manifest needs %s", name);
    return o;
}

/* Copied: the dictionaries may change while the GIL is released. */
static bool take_text(PyObject *dict, const char *name, bool optional, sf_arena *arena, const char **out)
{
    PyObject *o = field_of(dict, name);
    const char *text;

    if (!o)
        return false;
    if (optional && o == Py_None)
        return true;
    if (!text_check(o, name))
        return false;
    text = PyUnicode_AsUTF8(o);
    if (text)
        *out = sf__arena_strndup(arena, text, strlen(text));
    if (text && !*out)
        PyErr_NoMemory();
    return *out != NULL;
}

static bool take_int(PyObject *dict, const char *name, int64_t *out)
{
    PyObject *o = field_of(dict, name);

    if (!o)
        return false;
    Py_INCREF(o); /* what is no int may run Python, which may change the dictionary */
    *out = PyLong_AsLongLong(o);
    Py_DECREF(o);
    return *out != -1 || !PyErr_Occurred();
}

static bool take_uint(PyObject *dict, const char *name, uint64_t most, uint64_t *out)
{
    int64_t v;

    if (!take_int(dict, name, &v))
        return false;
    if (v < 0 || (uint64_t)v > most) {
        PyErr_Format(PyExc_ValueError, "%s of a manifest must be from 0 to %llu, got %lld", name,
                     (unsigned long long)most, (long long)v);
        return false;
    }
    *out = (uint64_t)v;
    return true;
}

static bool take_head(PyObject *d, sf_snapshot_manifest *m)
{
    const char *encoding = NULL;
    uint64_t num_dbs, version;
    PyObject *naive;

    if (!take_text(d, "run_id", false, &m->arena, &m->run_id) ||
        !take_text(d, "s3_prefix", false, &m->arena, &m->s3_prefix) ||
        !take_text(d, "key_col", false, &m->arena, &m->key_col) ||
        !take_text(d, "sharding", false, &m->arena, &m->sharding_json) ||
        !take_text(d, "db_path_template", false, &m->arena, &m->db_path_template) ||
        !take_text(d, "shard_prefix", false, &m->arena, &m->shard_prefix) ||
        !take_text(d, "custom", false, &m->arena, &m->custom_json) ||
        !take_text(d, "key_encoding", false, &m->arena, &encoding) || !take_int(d, "created_at_us", &m->created_at_us) ||
        !take_uint(d, "num_dbs", UINT32_MAX, &num_dbs) || !take_uint(d, "format_version", INT32_MAX, &version))
        return false;
    naive = dict_item(d, "created_at_naive");
    if (!naive && PyErr_Occurred())
        return false;
    if (!sf__key_encoding_from_name((sf_bytes){(const uint8_t *)encoding, strlen(encoding)}, &m->key_encoding)) {
        PyErr_Format(PyExc_ValueError, "Unsupported key encoding: '%s'", encoding);
        return false;
    }
    m->created_at_naive = naive == Py_True;
    m->num_dbs = (uint32_t)num_dbs;
    m->format_version = (int32_t)version;
    return true;
}

static bool take_row(PyObject *row, sf_arena *arena, sf_manifest_shard *s)
{
    uint64_t db_id, attempt;

    if (!take_uint(row, "db_id", UINT32_MAX, &db_id) || !take_uint(row, "attempt", UINT32_MAX, &attempt) ||
        !take_uint(row, "row_count", INT64_MAX, &s->row_count) || !take_uint(row, "db_bytes", INT64_MAX, &s->db_bytes) ||
        !take_text(row, "db_url", true, arena, &s->db_url) || !take_text(row, "min_key", true, arena, &s->min_key_json) ||
        !take_text(row, "max_key", true, arena, &s->max_key_json) ||
        !take_text(row, "checkpoint_id", true, arena, &s->checkpoint_id) ||
        !take_text(row, "writer_info", false, arena, &s->writer_info_json))
        return false;
    s->db_id = (uint32_t)db_id;
    s->attempt = (uint32_t)attempt;
    return true;
}

/* `rows` is a tuple. */
static bool take_rows(PyObject *rows, sf_snapshot_manifest *m)
{
    size_t n = (size_t)PyTuple_GET_SIZE(rows);

    m->shards = sf__calloc(m->arena.alloc, n > 0 ? n : 1, sizeof(*m->shards));
    if (!m->shards) {
        PyErr_NoMemory();
        return false;
    }
    m->shard_count = n;
    for (size_t i = 0; i < n; i++)
        if (!take_row(PyTuple_GET_ITEM(rows, (Py_ssize_t)i), &m->arena, &m->shards[i]))
            return false;
    return true;
}

PyObject *native_format_manifest(PyObject *module, PyObject *args)
{
    sf_snapshot_manifest *m;
    PyObject *details, *rows, *bytes = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_buf *file = NULL;
    int check = 1;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "OO|p:format_manifest", &details, &rows, &check))
        return NULL;
    rows = PySequence_Tuple(rows);
    m = rows ? sf__calloc(&sf__allocator_default, 1, sizeof(*m)) : NULL;
    if (!m) {
        Py_XDECREF(rows);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    sf__arena_init(&m->arena, &sf__allocator_default);
    if (take_head(details, m) && take_rows(rows, m)) {
        Py_BEGIN_ALLOW_THREADS;
        rc = check ? sf__snapshot_manifest_write(&file, m, &sf__allocator_default, &err)
                   : sf__snapshot_manifest_encode(&file, m, &sf__allocator_default, &err);
        Py_END_ALLOW_THREADS;
        if (rc == SF_OK)
            bytes = PyBytes_FromStringAndSize((const char *)file->data, (Py_ssize_t)file->n);
        else
            raise_error(PyModule_GetState(module), &err);
    }
    sf__buf_release(file);
    sf__snapshot_manifest_free(m);
    Py_DECREF(rows);
    return bytes;
}
