/* History, rollback and clean-up of a published prefix. Blocking, without the GIL; a callback gets it back.
 */
#include "convert.h"
#include "module.h"

#include <shardyfusion/manifest_store.h>

#include "base/error.h"

/* What a site is told by: (prefix, options). Texts are borrowed. */
struct site_args {
    const char *prefix;
    sf_s3_options s3;
    sf_site_options o;
};

/* `options`: {"s3": ..., "current_name": ..., "timeout": ...}. */
static bool site_from_python(PyObject *options, struct site_args *s)
{
    PyObject *name = dict_item(options, "current_name"), *timeout = dict_item(options, "timeout");
    bool given;

    s->o = (sf_site_options)SF_SITE_OPTIONS_INIT;
    if (PyErr_Occurred() || (name && !text_check(name, "current_name")) ||
        !s3_from_python(dict_item(options, "s3"), &s->s3, &given) || PyErr_Occurred() ||
        (timeout && !timeout_from_python(timeout, &s->o.request_timeout_ms)))
        return false;
    if (name)
        s->o.current_name = PyUnicode_AsUTF8(name);
    if (given)
        s->o.s3 = &s->s3;
    return true;
}

static PyObject *text_of(const char *text)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

/* ---------------------------------------------------------------- history ----------------------------------------- */

static PyObject *entry_to_python(const void *item)
{
    const sf_history_entry *e = item;
    PyObject *ref = text_of(e->ref), *run_id = ref ? text_of(e->run_id) : NULL;
    PyObject *row =
        run_id ? Py_BuildValue("(OOLO)", ref, run_id, (long long)e->published_at_us, e->is_current ? Py_True : Py_False)
               : NULL;

    Py_XDECREF(ref);
    Py_XDECREF(run_id);
    return row;
}

static PyObject *entries_to_python(const sf_history *h)
{
    size_t n;
    const sf_history_entry *entries = sf_history_entries(h, &n);

    return list_to_python(entries, n, sizeof(*entries), entry_to_python);
}

PyObject *native_history(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    struct site_args site;
    sf_error err = SF_ERROR_INIT;
    sf_history *h = NULL;
    PyObject *options, *list;
    Py_ssize_t limit;
    sf_runtime *rt;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "sO!n:history", &site.prefix, &PyDict_Type, &options, &limit) ||
        !site_from_python(options, &site))
        return NULL;
    rt = native_runtime(st);
    if (!rt)
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc = sf_history_list(&h, rt, site.prefix, &site.o, limit > 0 ? (size_t)limit : 0, &err);
    Py_END_ALLOW_THREADS if (rc != SF_OK)
    {
        raise_error(st, &err);
        return NULL;
    }
    list = entries_to_python(h);
    sf_history_free(h);
    return list;
}

/* ---------------------------------------------------------------- rollback ---------------------------------------- */

PyObject *native_rollback(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    sf_rollback_options o = SF_ROLLBACK_OPTIONS_INIT;
    struct site_args site;
    sf_error err = SF_ERROR_INIT;
    const char *ref, *expected = NULL;
    PyObject *options;
    sf_runtime *rt;
    sf_status rc;
    int force, any;

    /* what the pointer must name: any, or a text, or None for nothing */
    if (!PyArg_ParseTuple(args, "ssO!ppz:rollback", &site.prefix, &ref, &PyDict_Type, &options, &force, &any, &expected) ||
        !site_from_python(options, &site))
        return NULL;
    o.site = site.o;
    o.force = force;
    o.expected_current = any ? SF_EXPECT_ANY : expected ? SF_EXPECT_REF : SF_EXPECT_ABSENT;
    o.expected_ref = expected;
    rt = native_runtime(st);
    if (!rt)
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc = sf_rollback(rt, site.prefix, ref, &o, &err);
    Py_END_ALLOW_THREADS if (rc != SF_OK)
    {
        raise_error(st, &err);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- clean-up ---------------------------------------- */

/* The thread that cleans up is without the GIL but in here. */
struct maintenance_progress {
    PyThreadState *thread;
    PyObject *callable;
    bool failed; /* its exception waits to be raised */
};

static PyObject *leftover_to_python(const void *item)
{
    static const char *const kinds[] = {"attempt", "manifest", "run", "run_record", "upload"};
    const sf_leftover *l = item;
    PyObject *run_id = text_of(l->run_id), *url = run_id ? text_of(l->url) : NULL;
    PyObject *row = url ? Py_BuildValue("(sOOKO)", kinds[l->kind], run_id, url, (unsigned long long)l->objects,
                                        l->deleted ? Py_True : Py_False)
                        : NULL;

    Py_XDECREF(run_id);
    Py_XDECREF(url);
    return row;
}

static void on_leftover(void *ctx, const sf_leftover *l)
{
    struct maintenance_progress *p = ctx;
    PyObject *row, *answer = NULL;

    if (p->failed)
        return;
    PyEval_RestoreThread(p->thread);
    row = leftover_to_python(l);
    if (row)
        answer = PyObject_Call(p->callable, row, NULL);
    p->failed = answer == NULL;
    Py_XDECREF(row);
    Py_XDECREF(answer);
    p->thread = PyEval_SaveThread();
}

/* ---------------------------------------------------------------- a store of manifests of the caller's ------------ */

struct py_manifest_store {
    struct maintenance_progress *progress; /* its thread, which asks; and `failed` */
    PyObject *ask;
};

/* A new reference to what the store has answered; NULL with the status that says why not. With the GIL. */
static PyObject *ask_store(struct py_manifest_store *s, const char *what, const char *ref, sf_status *rc, sf_error *err)
{
    static const struct {
        const char *name;
        sf_status status;
    } statuses[] = {
        {"OK", SF_OK}, {"NOT_FOUND", SF_NOT_FOUND}, {"BAD_MANIFEST", SF_BAD_MANIFEST}, {"CONFLICT", SF_CONFLICT}};
    PyObject *answer = s->progress->failed ? NULL : PyObject_CallFunction(s->ask, "sz", what, ref), *value;
    const char *status, *text;

    *rc = SF_IO;
    if (!answer || !PyArg_ParseTuple(answer, "sO", &status, &value)) {
        s->progress->failed = true; /* its exception is what clean-up ends with */
        Py_XDECREF(answer);
        sf_fail(err, SF_IO, "%s", what);
        return NULL;
    }
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (strcmp(status, statuses[i].name) == 0)
            *rc = statuses[i].status;
    Py_INCREF(value);
    if (*rc != SF_OK) {
        text = PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
        PyErr_Clear();
        sf_fail(err, *rc, "%s", text ? text : what);
        Py_CLEAR(value);
    }
    Py_DECREF(answer);
    return value;
}

/* What came is none of what was asked for. */
static sf_status misunderstood(struct py_manifest_store *s, sf_error *err)
{
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "the store of manifests has answered something else");
    s->progress->failed = true;
    return sf_fail(err, SF_IO, "the store of manifests");
}

static sf_status take_ref(struct py_manifest_store *s, PyObject *value, sf_manifest_answer *out, sf_error *err)
{
    const char *text = value != Py_None && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;

    if (value != Py_None && !text)
        return misunderstood(s, err);
    return sf_manifest_answer_ref(out, text);
}

static sf_status take_manifest(struct py_manifest_store *s, PyObject *value, sf_manifest_answer *out, sf_error *err)
{
    if (!PyBytes_Check(value))
        return misunderstood(s, err);
    return sf_manifest_answer_manifest(
        out, (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)});
}

static sf_status take_entries(struct py_manifest_store *s, PyObject *value, sf_manifest_answer *out, sf_error *err)
{
    PyObject *own = PyList_Check(value) ? PyList_AsTuple(value) : NULL; /* another thread may change the list */
    sf_status rc = own ? SF_OK : misunderstood(s, err);

    for (Py_ssize_t i = 0; rc == SF_OK && i < PyTuple_GET_SIZE(own); i++) {
        const char *ref, *run_id;
        long long us;

        rc = PyArg_ParseTuple(PyTuple_GET_ITEM(own, i), "ssL", &ref, &run_id, &us)
                 ? sf_manifest_answer_entry(out, ref, run_id, us)
                 : misunderstood(s, err);
    }
    Py_XDECREF(own);
    return rc;
}

typedef sf_status take_fn(struct py_manifest_store *s, PyObject *value, sf_manifest_answer *out, sf_error *err);

static sf_status question(void *ctx, const char *what, const char *ref, take_fn *take, sf_manifest_answer *out,
                          sf_error *err)
{
    struct py_manifest_store *s = ctx;
    PyObject *value;
    sf_status rc;

    PyEval_RestoreThread(s->progress->thread);
    value = ask_store(s, what, ref, &rc, err);
    if (value && take)
        rc = take(s, value, out, err);
    Py_XDECREF(value);
    s->progress->thread = PyEval_SaveThread();
    return rc;
}

static sf_status py_load_current(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    return question(ctx, "load_current", NULL, take_ref, out, err);
}

static sf_status py_load_manifest(void *ctx, const char *ref, sf_manifest_answer *out, sf_error *err)
{
    return question(ctx, "load_manifest", ref, take_manifest, out, err);
}

static sf_status py_list_manifests(void *ctx, sf_manifest_answer *out, sf_error *err)
{
    return question(ctx, "list_manifests", NULL, take_entries, out, err);
}

static sf_status py_delete_manifest(void *ctx, const char *ref, sf_error *err)
{
    return question(ctx, "delete_manifest", ref, NULL, NULL, err);
}

static sf_status py_publish(void *ctx, const sf_publication *what, sf_manifest_answer *out, sf_error *err)
{
    (void)ctx;
    (void)out;
    return sf_fail(err, SF_UNSUPPORTED, "clean-up does not publish run %s", what->run_id);
}

static bool store_from_python(PyObject *given, struct py_manifest_store *s, sf_manifest_store *out)
{
    const char *name;
    int deletes;

    if (!PyArg_ParseTuple(given, "spO:cleanup", &name, &deletes, &s->ask))
        return false;
    *out = (sf_manifest_store){.size = sizeof(*out),
                               .name = name,
                               .publish = py_publish,
                               .load_current = py_load_current,
                               .load_manifest = py_load_manifest,
                               .list_manifests = py_list_manifests,
                               .delete_manifest = deletes ? py_delete_manifest : NULL,
                               .ctx = s};
    return true;
}

static PyObject *report_to_python(const sf_cleanup_report *report)
{
    size_t n;
    const sf_leftover *l = sf_cleanup_leftovers(report, &n);
    PyObject *list = list_to_python(l, n, sizeof(*l), leftover_to_python);

    return list ? Py_BuildValue("(Nz)", list, sf_cleanup_warning(report)) : NULL;
}

PyObject *native_cleanup(PyObject *module, PyObject *args)
{
    native_state *st = PyModule_GetState(module);
    sf_cleanup_options o = SF_CLEANUP_OPTIONS_INIT;
    struct maintenance_progress progress = {NULL, NULL, false};
    struct site_args site;
    sf_error err = SF_ERROR_INIT;
    sf_cleanup_report *report = NULL;
    struct py_manifest_store asked = {.progress = &progress};
    PyObject *options, *store = Py_None, *result = NULL;
    sf_manifest_store manifests;
    long long older_than_ms, min_age_ms;
    int stale, old_runs, ignore_leases, dry_run;
    unsigned int keep_last;
    sf_runtime *rt;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "sO!ppILLppO|O:cleanup", &site.prefix, &PyDict_Type, &options, &stale, &old_runs,
                          &keep_last, &older_than_ms, &min_age_ms, &ignore_leases, &dry_run, &progress.callable, &store) ||
        !site_from_python(options, &site) || (store != Py_None && !store_from_python(store, &asked, &manifests)))
        return NULL;
    o.site = site.o;
    o.manifests = store != Py_None ? &manifests : NULL;
    o.stale_attempts = stale;
    o.old_runs = old_runs;
    o.keep_last = keep_last;
    o.older_than_ms = older_than_ms;
    o.min_age_ms = min_age_ms;
    o.ignore_leases = ignore_leases;
    o.dry_run = dry_run;
    if (progress.callable != Py_None) {
        o.progress = on_leftover;
        o.progress_ctx = &progress;
    }
    rt = native_runtime(st);
    if (!rt)
        return NULL;
    progress.thread = PyEval_SaveThread();
    rc = sf_cleanup(&report, rt, site.prefix, &o, &err);
    PyEval_RestoreThread(progress.thread);
    if (!progress.failed && rc != SF_OK)
        raise_error(st, &err);
    else if (!progress.failed)
        result = report_to_python(report);
    sf_cleanup_report_free(report);
    return result;
}
