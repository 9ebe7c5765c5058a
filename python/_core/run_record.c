/* Run records: from a dictionary of their fields to YAML and back. Times are microseconds since 1970, UTC. */
#include "convert.h"
#include "module.h"

#include "snapshot/run_record.h"
#include "writer/lease.h"
#include "writer/rerun.h"
#include "writer/site_open.h"

struct text_field {
    const char *name;
    size_t offset;
    bool optional;
};
struct time_field {
    const char *name;
    size_t offset;
};

static const struct text_field texts[] = {
    {"run_id", offsetof(sf_run_record, run_id), false},
    {"writer_type", offsetof(sf_run_record, writer_type), false},
    {"s3_prefix", offsetof(sf_run_record, s3_prefix), false},
    {"shard_prefix", offsetof(sf_run_record, shard_prefix), false},
    {"db_path_template", offsetof(sf_run_record, db_path_template), false},
    {"manifest_ref", offsetof(sf_run_record, manifest_ref), true},
    {"error_type", offsetof(sf_run_record, error_type), true},
    {"error_message", offsetof(sf_run_record, error_message), true},
};
static const struct time_field integers[] = {
    {"format_version", offsetof(sf_run_record, format_version)},
    {"started_at", offsetof(sf_run_record, started_at_us)},
    {"updated_at", offsetof(sf_run_record, updated_at_us)},
    {"lease_expires_at", offsetof(sf_run_record, lease_expires_at_us)},
};
static const char *const statuses[] = {
    [SF_RUN_RUNNING] = "running",
    [SF_RUN_SUCCEEDED] = "succeeded",
    [SF_RUN_FAILED] = "failed",
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void *member(sf_run_record *r, size_t offset)
{
    return (char *)r + offset;
}

static PyObject *field_of(PyObject *fields, const char *name)
{
    PyObject *o = dict_item(fields, name);

    if (!o && !PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "a run record needs %s", name);
    return o;
}

static bool text_from_python(PyObject *o, bool optional, const char **out)
{
    *out = NULL;
    if (optional && o == Py_None)
        return true;
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "a text of a run record must be a str, not %.200s", Py_TYPE(o)->tp_name);
        return false;
    }
    *out = PyUnicode_AsUTF8(o);
    return *out != NULL;
}

static bool record_from_python(PyObject *fields, sf_run_record *r)
{
    const char *status;
    PyObject *o;

    for (size_t i = 0; i < COUNT(texts); i++) {
        o = field_of(fields, texts[i].name);
        if (!o || !text_from_python(o, texts[i].optional, member(r, texts[i].offset)))
            return false;
    }
    for (size_t i = 0; i < COUNT(integers); i++) {
        o = field_of(fields, integers[i].name);
        if (!o)
            return false;
        *(int64_t *)member(r, integers[i].offset) = PyLong_AsLongLong(o);
        if (PyErr_Occurred())
            return false;
    }
    o = field_of(fields, "status");
    if (!o || !text_from_python(o, false, &status))
        return false;
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (strcmp(status, statuses[i]) == 0) {
            r->status = (sf_run_status)i;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "%R is no status of a run record", o);
    return false;
}

PyObject *native_format_run_record(PyObject *module, PyObject *fields)
{
    sf_run_record record = {0};
    sf_error err = SF_ERROR_INIT;
    PyObject *bytes;
    char *text;
    size_t n;

    if (!PyDict_Check(fields)) {
        PyErr_SetString(PyExc_TypeError, "the fields of a run record must be a dict");
        return NULL;
    }
    if (!record_from_python(fields, &record))
        return NULL;
    if (sf__run_record_format(&text, &n, &record, &sf__allocator_default, &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize(text, (Py_ssize_t)n);
    sf__free(&sf__allocator_default, text);
    return bytes;
}

static PyObject *record_to_python(sf_run_record *r)
{
    PyObject *dict = PyDict_New();
    bool ok = dict && dict_put(dict, "status", PyUnicode_FromString(statuses[r->status]));

    for (size_t i = 0; ok && i < COUNT(texts); i++) {
        const char *text = *(const char **)member(r, texts[i].offset);

        ok = dict_put(dict, texts[i].name, text ? PyUnicode_FromString(text) : Py_NewRef(Py_None));
    }
    for (size_t i = 0; ok && i < COUNT(integers); i++)
        ok = dict_put(dict, integers[i].name, PyLong_FromLongLong(*(int64_t *)member(r, integers[i].offset)));
    if (!ok)
        Py_CLEAR(dict);
    return dict;
}

/* "run record: payload ..." reads "Run record payload ..." in Python. */
static void raise_parse_error(const char *message)
{
    static const char prefix[] = "run record: ";

    if (strncmp(message, prefix, sizeof(prefix) - 1) == 0)
        message += sizeof(prefix) - 1;
    PyErr_Format(PyExc_ValueError, "Run record %s", message);
}

PyObject *native_parse_run_record(PyObject *module, PyObject *payload)
{
    sf_run_record record;
    sf_error err = SF_ERROR_INIT;
    PyObject *dict = NULL;
    sf_arena arena;
    Py_buffer view;

    (void)module;
    if (PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    sf__arena_init(&arena, &sf__allocator_default);
    if (sf__run_record_parse(&record, &arena, (sf_bytes){view.buf, (size_t)view.len}, &err) == SF_OK)
        dict = record_to_python(&record);
    else if (err.code == SF_NOMEM)
        PyErr_NoMemory();
    else
        raise_parse_error(err.message);
    sf__arena_cleanup(&arena);
    PyBuffer_Release(&view);
    return dict;
}

/* ---------------------------------------------------------------- other writers ---------------------------------- */

PyObject *native_run_record_folder(PyObject *module, PyObject *args)
{
    sf_error err = SF_ERROR_INIT;
    long long started_at_us;
    const char *run_id;
    PyObject *name;
    char *text;

    if (!PyArg_ParseTuple(args, "Ls:run_record_folder", &started_at_us, &run_id))
        return NULL;
    if (sf__lease_folder_format(&text, started_at_us, run_id, &sf__allocator_default, &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    name = PyUnicode_FromString(text);
    sf__free(&sf__allocator_default, text);
    return name;
}

/* What is known of a run below a prefix: what `look` finds on its site, without the GIL. */
struct run_look {
    const char *shard_prefix, *registry, *run_id;
    sf_earlier_attempts attempts;
};

static bool look_at_run(native_state *st, const char *prefix, PyObject *s3_dict, struct run_look *l,
                        sf_status (*look)(struct run_look *l, const sf_site *site, sf_error *err))
{
    sf_site_options o = SF_SITE_OPTIONS_INIT;
    sf_error err = SF_ERROR_INIT;
    sf_s3_options s3;
    sf_runtime *rt;
    sf_site site;
    sf_status rc;
    bool has_s3;

    if (!s3_from_python(s3_dict, &s3, &has_s3) || !(rt = native_runtime(st)))
        return false;
    o.s3 = has_s3 ? &s3 : NULL;
    Py_BEGIN_ALLOW_THREADS;
    rc = sf__site_open(&site, rt, prefix, &o, &err);
    if (rc == SF_OK) {
        rc = look(l, &site, &err);
        sf__site_cleanup(&site);
    }
    Py_END_ALLOW_THREADS;
    if (rc != SF_OK)
        raise_error(st, &err);
    return rc == SF_OK;
}

static sf_status check_lease(struct run_look *l, const sf_site *site, sf_error *err)
{
    return sf__rerun_check_lease(site, l->registry, l->run_id, NULL, err);
}

PyObject *native_check_run(PyObject *module, PyObject *args)
{
    struct run_look l = {0};
    const char *prefix;
    PyObject *s3;

    if (!PyArg_ParseTuple(args, "sOss:check_run", &prefix, &s3, &l.registry, &l.run_id) ||
        !look_at_run(PyModule_GetState(module), prefix, s3, &l, check_lease))
        return NULL;
    Py_RETURN_NONE;
}

static sf_status list_attempts(struct run_look *l, const sf_site *site, sf_error *err)
{
    return sf__earlier_attempts_list(&l->attempts, site, l->shard_prefix, l->run_id, NULL, err);
}

/* The largest number counts. */
static bool add_attempt(PyObject *dict, sf_bytes path, uint32_t number)
{
    PyObject *key = PyUnicode_DecodeUTF8((const char *)path.p, (Py_ssize_t)path.n, "surrogateescape");
    PyObject *known = key ? PyDict_GetItemWithError(dict, key) : NULL;
    PyObject *next = PyLong_FromUnsignedLong((unsigned long)number + 1);
    bool ok = key && next && !PyErr_Occurred();

    if (ok && (!known || PyLong_AsUnsignedLong(known) <= number))
        ok = PyDict_SetItem(dict, key, next) == 0;
    Py_XDECREF(key);
    Py_XDECREF(next);
    return ok;
}

PyObject *native_next_attempts(PyObject *module, PyObject *args)
{
    struct run_look l = {0};
    PyObject *s3, *dict = NULL;
    const char *prefix;
    uint32_t number;
    sf_bytes path;

    if (!PyArg_ParseTuple(args, "sOss:next_attempts", &prefix, &s3, &l.shard_prefix, &l.run_id) ||
        !look_at_run(PyModule_GetState(module), prefix, s3, &l, list_attempts))
        return NULL;
    dict = PyDict_New();
    for (size_t i = 0; dict && i < l.attempts.listing.entry_count; i++)
        if (sf__earlier_attempts_at(&l.attempts, i, &path, &number) && !add_attempt(dict, path, number))
            Py_CLEAR(dict);
    sf__earlier_attempts_free(&l.attempts);
    return dict;
}
