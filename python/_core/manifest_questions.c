/* A manifest store of the caller's, as the engine asks it: see question.c. The store itself lives in Python. */
#include "convert.h"
#include "objects.h"
#include "question.h"

static bool wrong(const char *what, PyObject *value)
{
    PyErr_Format(PyExc_TypeError, "%.200s is no answer to %s", Py_TYPE(value)->tp_name, what);
    return false;
}

static bool answer_current(sf_manifest_request *rq, PyObject *value, bool *taken)
{
    const char *ref = NULL;

    if (value != Py_None && (!text_check(value, "manifest reference") || !(ref = PyUnicode_AsUTF8(value))))
        return false;
    *taken = sf_manifest_request_current(rq, ref);
    return true;
}

static bool answer_refs(sf_manifest_request *rq, PyObject *value, bool *taken)
{
    PyObject *own; /* tuple: another thread may change the list */
    Py_ssize_t n;
    const char **refs;
    bool ok;

    if (!PyList_Check(value))
        return wrong("list_manifests", value);
    own = PyList_AsTuple(value);
    if (!own)
        return false;
    n = PyTuple_GET_SIZE(own);
    refs = PyMem_New(const char *, (size_t)n + 1);
    ok = refs != NULL;
    if (!ok)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; ok && i < n; i++) {
        PyObject *ref = PyTuple_GET_ITEM(own, i);

        ok = text_check(ref, "manifest reference") && (refs[i] = PyUnicode_AsUTF8(ref)) != NULL;
    }
    if (ok)
        *taken = sf_manifest_request_refs(rq, refs, (size_t)n);
    PyMem_Free(refs);
    Py_DECREF(own);
    return ok;
}

static bool answer(void *request, const char *what, PyObject *value, bool *taken)
{
    sf_manifest_request *rq = request;

    if (strcmp(what, "load_current") == 0)
        return answer_current(rq, value, taken);
    if (strcmp(what, "list_manifests") == 0)
        return answer_refs(rq, value, taken);
    if (!PyBytes_Check(value))
        return wrong(what, value);
    *taken = sf_manifest_request_manifest(
        rq, (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)});
    return true;
}

static bool fail(void *request, sf_status code, const char *text)
{
    return sf_manifest_request_fail(request, code, text);
}

static void release(void *request)
{
    sf_manifest_request_release(request);
}

static const struct question_kind kind = {.answer = answer, .fail = fail, .release = release};

static void load_current(void *ctx, sf_manifest_request *rq)
{
    (void)ctx;
    question_put(sf_manifest_request_call_ctx(rq), &kind, rq, "load_current", NULL, 0);
}

static void load_manifest(void *ctx, const char *ref, sf_manifest_request *rq)
{
    (void)ctx;
    question_put(sf_manifest_request_call_ctx(rq), &kind, rq, "load_manifest", ref, 0);
}

static void list_manifests(void *ctx, size_t limit, sf_manifest_request *rq)
{
    (void)ctx;
    question_put(sf_manifest_request_call_ctx(rq), &kind, rq, "list_manifests", NULL, limit);
}

const sf_manifest_source manifest_questions = {
    .size = sizeof(manifest_questions),
    .load_current = load_current,
    .load_manifest = load_manifest,
    .list_manifests = list_manifests,
};
