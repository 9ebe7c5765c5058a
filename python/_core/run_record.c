/* Run records: from a dictionary of their fields to YAML and back, and the lease of one that Python keeps. Times are
 * microseconds since 1970, UTC. */
#include "convert.h"
#include "module.h"

#include "base/clock.h"
#include "snapshot/run_record.h"
#include "writer/rerun.h"
#include "writer/site_lease.h"
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

static void *member(const sf_run_record *r, size_t offset)
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

static bool status_from_text(const char *text, sf_run_status *out)
{
    for (size_t i = 0; i < COUNT(statuses); i++)
        if (strcmp(text, statuses[i]) == 0) {
            *out = (sf_run_status)i;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "'%.200s' is no status of a run record", text);
    return false;
}

/* Texts are borrowed from the dictionary. */
static bool record_from_python(PyObject *fields, sf_run_record *r)
{
    const char *status;
    PyObject *o;

    if (!PyDict_Check(fields)) {
        PyErr_SetString(PyExc_TypeError, "the fields of a run record must be a dict");
        return false;
    }
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
    return o && text_from_python(o, false, &status) && status_from_text(status, &r->status);
}

PyObject *native_format_run_record(PyObject *module, PyObject *fields)
{
    sf_run_record record = {0};
    sf_error err = SF_ERROR_INIT;
    PyObject *bytes;
    char *text;
    size_t n;

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

static PyObject *record_to_python(const sf_run_record *r)
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

PyObject *native_run_record_is_refused(PyObject *module, PyObject *status)
{
    const char *name = PyUnicode_AsUTF8(status);
    sf_status rc;

    (void)module;
    return name && status_of_name(name, &rc) ? PyBool_FromLong(sf__lease_is_refused(rc)) : NULL;
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
    if (sf__run_folder_format(&text, started_at_us, run_id, &sf__allocator_default, &err) != SF_OK) {
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

/* ---------------------------------------------------------------- the lease of a record that Python keeps -------- */

#define SIGNAL_INTERVAL_MS 50 /* between two looks at signals, while a renewal is waited for */

struct py_lease {
    PyObject_HEAD
    PyObject *fields;     /* of the record; its texts are the lease's */
    PyObject *put;        /* called with the fields of each record; True: it is kept */
    PyObject *refs;       /* list of all that were announced: a renewal under way may have an earlier one */
    unsigned long putter; /* thread that is inside of `put`; 0: none. Under the GIL */
    sf_lease lease;
};

/* On whatever thread called run() or finish(), which have let go of the GIL. An exception stays there for them to find. */
static bool lease_put(void *ctx, const sf_run_record *r, const sf_cancel_flag *cancel)
{
    struct py_lease *o = ctx;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *fields = record_to_python(r);
    unsigned long before = o->putter;
    PyObject *kept;
    bool ok;

    (void)cancel; /* nobody can cut off Python code */
    o->putter = PyThread_get_thread_ident();
    kept = fields ? PyObject_CallOneArg(o->put, fields) : NULL;
    ok = kept == Py_True;
    o->putter = before;
    if (!kept)
        sf__lease_stop(&o->lease, false);
    Py_XDECREF(fields);
    Py_XDECREF(kept);
    PyGILState_Release(gil);
    return ok;
}

static int64_t lease_now_us(void *ctx)
{
    (void)ctx;
    return sf__clock_unix_us();
}

static PyObject *lease_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fields", "put", "lease_ms", "heartbeat_ms", "renewed_ms", NULL};
    struct py_lease *o = (struct py_lease *)type->tp_alloc(type, 0);
    sf_lease_keeper keeper = {.ctx = o, .put = lease_put, .now_us = lease_now_us};
    long long lease_ms, heartbeat_ms, renewed_ms;
    PyObject *fields, *put;
    sf_run_record r = {0};

    if (!o)
        return NULL;
    sf__lease_init(&o->lease, &keeper, &(sf_lease_options){0});
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OLLL:Lease", names, &PyDict_Type, &fields, &put, &lease_ms,
                                     &heartbeat_ms, &renewed_ms) ||
        !(o->fields = PyDict_Copy(fields)) || !(o->refs = PyList_New(0)) || !record_from_python(o->fields, &r)) {
        Py_DECREF(o);
        return NULL;
    }
    o->put = Py_NewRef(put);
    sf__lease_cleanup(&o->lease);
    sf__lease_init(&o->lease, &keeper,
                   &(sf_lease_options){.run_id = r.run_id,
                                       .writer_type = r.writer_type,
                                       .s3_prefix = r.s3_prefix,
                                       .shard_prefix = r.shard_prefix,
                                       .db_path_template = r.db_path_template,
                                       .lease_ms = lease_ms,
                                       .heartbeat_ms = heartbeat_ms,
                                       .started_at_us = r.started_at_us,
                                       .renewed_ms = renewed_ms});
    o->lease.manifest_ref = r.manifest_ref;
    return (PyObject *)o;
}

static PyObject *lease_run(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    sf__lease_run(&((struct py_lease *)self)->lease);
    Py_END_ALLOW_THREADS;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *lease_has_lapsed(PyObject *self, PyObject *now_ms)
{
    long long now = PyLong_AsLongLong(now_ms);

    if (now == -1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(sf__lease_has_lapsed(&((struct py_lease *)self)->lease, now));
}

static PyObject *lease_announce(PyObject *self, PyObject *manifest_ref)
{
    struct py_lease *o = (struct py_lease *)self;
    const char *text;

    if (!text_from_python(manifest_ref, true, &text) || PyList_Append(o->refs, manifest_ref) < 0)
        return NULL;
    sf__lease_announce(&o->lease, text);
    Py_RETURN_NONE;
}

/* False with an exception: `put`, which renews, would wait for itself. */
static bool may_wait(struct py_lease *o)
{
    if (o->putter != PyThread_get_thread_ident() || sf__lease_wait_stopped(&o->lease, 0))
        return true;
    PyErr_SetString(PyExc_RuntimeError,
                    "the run's record is being renewed by this very call: update() of a registry can neither "
                    "end the run nor renew its record");
    return false;
}

/* False with an exception: a signal's, or the interpreter ends. Lets go of the GIL. */
static bool wait_for_renewal(sf_lease *l, bool *ends)
{
    bool stopped = false;

    *ends = false;
    while (!stopped && !*ends) {
        Py_BEGIN_ALLOW_THREADS;
        stopped = sf__lease_wait_stopped(l, sf__deadline_in_ms(SIGNAL_INTERVAL_MS));
        Py_END_ALLOW_THREADS;
        if (!stopped && PyErr_CheckSignals() < 0)
            return false;
        *ends = !stopped && native_interpreter_ends(); /* the renewal's thread does not get the GIL any more */
    }
    return true;
}

static PyObject *lease_renew(PyObject *self, PyObject *unused)
{
    sf_lease *l = &((struct py_lease *)self)->lease;
    bool ends;

    (void)unused;
    if (!may_wait((struct py_lease *)self) || !wait_for_renewal(l, &ends))
        return NULL;
    if (ends)
        Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS;
    sf__lease_renew(l);
    Py_END_ALLOW_THREADS;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *lease_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    sf__lease_stop(&((struct py_lease *)self)->lease, false);
    Py_RETURN_NONE;
}

static PyObject *lease_finish(PyObject *self, PyObject *args)
{
    sf_lease *l = &((struct py_lease *)self)->lease;
    const char *status_text, *error_type, *error_message;
    sf_run_status status;
    bool ends;

    if (!PyArg_ParseTuple(args, "szz:finish", &status_text, &error_type, &error_message) ||
        !status_from_text(status_text, &status) || !may_wait((struct py_lease *)self))
        return NULL;
    sf__lease_stop(l, false);
    if (!wait_for_renewal(l, &ends))
        return NULL;
    if (ends)
        Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS;
    sf__lease_finish(l, status, error_type, error_message);
    Py_END_ALLOW_THREADS;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static int lease_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct py_lease *o = (struct py_lease *)self;

    Py_VISIT(Py_TYPE(self));
    Py_VISIT(o->fields);
    Py_VISIT(o->put);
    return 0;
}

static int lease_clear(PyObject *self)
{
    Py_CLEAR(((struct py_lease *)self)->put);
    return 0;
}

static void lease_dealloc(PyObject *self)
{
    struct py_lease *o = (struct py_lease *)self;
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    sf__lease_cleanup(&o->lease);
    Py_XDECREF(o->fields);
    Py_XDECREF(o->put);
    Py_XDECREF(o->refs);
    type->tp_free(self);
    Py_DECREF(type);
}

NATIVE_ALONE(lease_run);
NATIVE_ALONE(lease_has_lapsed);
NATIVE_ALONE(lease_announce);
NATIVE_ALONE(lease_renew);
NATIVE_ALONE(lease_stop);
NATIVE_ALONE(lease_finish);

static PyMethodDef lease_methods[] = {
    NOT_COPIED,
    {"run", ALONE(lease_run), METH_NOARGS, "run($self)\n--\n\nRenews the record until the lease is stopped."},
    {"has_lapsed", ALONE(lease_has_lapsed), METH_O,
     "has_lapsed($self, now_ms, /)\n--\n\nWhether it was not renewed in time, by the boot clock."},
    {"announce", ALONE(lease_announce), METH_O,
     "announce($self, manifest_ref, /)\n--\n\nThe record names the manifest, or none, from now on."},
    {"renew", ALONE(lease_renew), METH_NOARGS, "renew($self)\n--\n\nRenews the record now."},
    {"stop", ALONE(lease_stop), METH_NOARGS, "stop($self)\n--\n\nEnds run()."},
    {"finish", ALONE(lease_finish), METH_VARARGS,
     "finish($self, status, error_type, error_message, /)\n--\n\nThe last word. A second one does nothing."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_new, lease_new},     {Py_tp_dealloc, lease_dealloc}, {Py_tp_traverse, lease_traverse},
    {Py_tp_clear, lease_clear}, {Py_tp_methods, lease_methods}, {0, NULL},
};

PyType_Spec lease_spec = {
    .name = "shardyfusion._native.Lease",
    .basicsize = sizeof(struct py_lease),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lease_slots,
};
