/* History, rollback and clean-up of a published prefix. Blocking, without the GIL; a callback gets it back.
 */
#include "convert.h"
#include "module.h"

#include <shardyfusion/writer.h>

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
    PyObject *row = run_id ? Py_BuildValue("(OOLO)", ref, run_id, (long long)e->published_at_us, e->is_current ? Py_True : Py_False)
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
    Py_BEGIN_ALLOW_THREADS rc =
        sf_history_list(&h, rt, site.prefix, &site.o, limit > 0 ? (size_t)limit : 0, &err);
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
    if (!PyArg_ParseTuple(args, "ssO!ppz:rollback", &site.prefix, &ref, &PyDict_Type, &options, &force, &any,
                          &expected) ||
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
    PyObject *row = url ? Py_BuildValue("(sOOKO)", kinds[l->kind], run_id, url,
                                        (unsigned long long)l->objects, l->deleted ? Py_True : Py_False)
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
    PyObject *options, *result = NULL;
    long long older_than_ms, min_age_ms;
    int stale, old_runs, ignore_leases, dry_run;
    unsigned int keep_last;
    sf_runtime *rt;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "sO!ppILLppO:cleanup", &site.prefix, &PyDict_Type, &options, &stale,
                          &old_runs, &keep_last, &older_than_ms, &min_age_ms, &ignore_leases, &dry_run,
                          &progress.callable) ||
        !site_from_python(options, &site))
        return NULL;
    o.site = site.o;
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
