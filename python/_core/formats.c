/* The pointer, and names of manifests: from and to the texts of storage. Times are microseconds since 1970, UTC. */
#include "convert.h"
#include "module.h"

#include "backend/sqlite/sidecar.h"
#include "snapshot/current.h"
#include "snapshot/manifest_name.h"
#include "snapshot/relocation.h"

/* A text that UTF-8 cannot hold is none that storage could: false without an exception. */
static bool stored_text(PyObject *o, sf_bytes *out)
{
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(o, &n);

    if (!text && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        PyErr_Clear();
    if (!text)
        return false;
    *out = (sf_bytes){(const uint8_t *)text, (size_t)n};
    return true;
}

/* ---------------------------------------------------------------- the pointer ------------------------------------ */

PyObject *native_parse_current(PyObject *module, PyObject *payload)
{
    PyObject *bytes = PyBytes_FromObject(payload), *result = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_current c;

    if (!bytes)
        return NULL;
    if (sf__current_parse(&c, (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)},
                          &sf__allocator_default, &err) == SF_OK) {
        result = Py_BuildValue("(ssLO)", c.manifest_ref, c.run_id, (long long)c.updated_at_us,
                               c.updated_at_naive ? Py_True : Py_False);
        sf__current_cleanup(&c, &sf__allocator_default);
    } else {
        raise_error(PyModule_GetState(module), &err);
    }
    Py_DECREF(bytes);
    return result;
}

PyObject *native_format_current(PyObject *module, PyObject *args)
{
    const char *ref, *content_type, *run_id;
    sf_error err = SF_ERROR_INIT;
    long long updated_at_us;
    PyObject *bytes;
    char *text;

    if (!PyArg_ParseTuple(args, "sssL:format_current", &ref, &content_type, &run_id, &updated_at_us))
        return NULL;
    if (sf__current_format(&text, ref, content_type, run_id, updated_at_us, &sf__allocator_default, &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    bytes = PyBytes_FromString(text);
    sf__free(&sf__allocator_default, text);
    return bytes;
}

/* ---------------------------------------------------------------- names of manifests ----------------------------- */

PyObject *native_manifest_folder(PyObject *module, PyObject *args)
{
    sf_error err = SF_ERROR_INIT;
    long long published_at_us;
    const char *run_id;
    PyObject *name;
    char *text;

    if (!PyArg_ParseTuple(args, "Ls:manifest_folder", &published_at_us, &run_id))
        return NULL;
    if (sf__manifest_name_format(&text, published_at_us, run_id, &sf__allocator_default, &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    name = PyUnicode_FromString(text);
    sf__free(&sf__allocator_default, text);
    return name;
}

PyObject *native_run_id_of_ref(PyObject *module, PyObject *ref)
{
    sf_bytes text, part;
    PyObject *run_id;
    char *decoded;

    (void)module;
    if (!stored_text(ref, &text) || strlen((const char *)text.p) != text.n || !sf__run_id_from_ref(text, &part))
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    decoded = sf__location_decode((const char *)text.p, part, &sf__allocator_default);
    if (!decoded)
        return PyErr_NoMemory();
    run_id = PyUnicode_DecodeUTF8(decoded, (Py_ssize_t)strlen(decoded), NULL);
    sf__free(&sf__allocator_default, decoded);
    return run_id;
}

/* The entries borrow their texts from `folders`, a tuple. Negative with an exception. */
static Py_ssize_t entries_from_python(PyObject *folders, sf_store_entry *entries)
{
    Py_ssize_t count = 0;
    sf_bytes text;

    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(folders); i++) {
        if (stored_text(PyTuple_GET_ITEM(folders, i), &text)) {
            if (strlen((const char *)text.p) == text.n) /* else it is no name that storage could have */
                entries[count++] = (sf_store_entry){.key = (char *)(uintptr_t)text.p, .is_prefix = true};
        } else if (PyErr_Occurred()) {
            return -1;
        }
    }
    return count;
}

static PyObject *ref_to_python(const void *item)
{
    const sf_manifest_ref *r = item;

    return Py_BuildValue("(ssL)", r->ref, r->run_id, (long long)r->published_at_us);
}

PyObject *native_manifest_refs(PyObject *module, PyObject *args)
{
    const sf_allocator *a = &sf__allocator_default;
    PyObject *given, *folders, *list = NULL;
    sf_store_entry *entries;
    sf_error err = SF_ERROR_INIT;
    const char *prefix, *name;
    sf_manifest_ref *refs;
    Py_ssize_t limit, n;
    size_t count;

    if (!PyArg_ParseTuple(args, "Ossn:manifest_refs", &given, &prefix, &name, &limit))
        return NULL;
    folders = PySequence_Tuple(given);
    if (!folders)
        return NULL;
    entries = sf__calloc(a, (size_t)PyTuple_GET_SIZE(folders) + 1, sizeof(*entries));
    n = entries ? entries_from_python(folders, entries) : -1;
    if (n >= 0) {
        if (sf__manifest_refs_from_listing(&refs, &count, prefix, name, entries, (size_t)n,
                                           limit > 0 ? (size_t)limit : 0, a, &err) == SF_OK) {
            list = list_to_python(refs, count, sizeof(*refs), ref_to_python);
            sf__manifest_refs_free(refs, count, a);
        } else {
            raise_error(PyModule_GetState(module), &err);
        }
    } else if (!PyErr_Occurred()) {
        PyErr_NoMemory();
    }
    sf__free(a, entries);
    Py_DECREF(folders);
    return list;
}

/* ---------------------------------------------------------------- the sidecar ------------------------------------ */

PyObject *native_sqlite_sidecar(PyObject *module, PyObject *args)
{
    sf_error err = SF_ERROR_INIT;
    sf_buf *sidecar = NULL;
    const char *tag = NULL;
    PyObject *result;
    Py_buffer db;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "y*z:sqlite_sidecar", &db, &tag))
        return NULL;
    Py_BEGIN_ALLOW_THREADS rc = sf__sidecar_encode_bytes((sf_bytes){db.buf, (size_t)db.len}, tag ? tag : "",
                                                         &sf__allocator_default, &sidecar, &err);
    Py_END_ALLOW_THREADS PyBuffer_Release(&db);
    if (rc != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    result = PyBytes_FromStringAndSize((const char *)sidecar->data, (Py_ssize_t)sidecar->n);
    sf__buf_release(sidecar);
    return result;
}
