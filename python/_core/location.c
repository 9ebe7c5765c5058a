/* Where the objects of a snapshot really lie, for readers that the engine does not open itself; and text of snapshots in
 * messages of the package's own. */
#include "convert.h"
#include "module.h"

#include "site/location.h"
#include "snapshot/relocation.h"

static PyObject *located(PyObject *module, sf_status rc, char *url, const sf_error *err)
{
    PyObject *text = NULL;

    if (rc == SF_OK)
        text = PyUnicode_DecodeUTF8(url, (Py_ssize_t)strlen(url), NULL);
    else
        raise_error(PyModule_GetState(module), err);
    sf__free(&sf__allocator_default, url);
    return text;
}

bool native_confine(PyObject *item, sf_confine *out)
{
    int yes = item && item != Py_None ? PyObject_IsTrue(item) : 2;

    *out = yes == 2 ? SF_CONFINE_DEFAULT : yes ? SF_CONFINE_YES : SF_CONFINE_NO;
    return yes >= 0;
}

PyObject *native_location(PyObject *module, PyObject *url)
{
    char *out = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!text_check(url, "url"))
        return NULL;
    rc = sf__location_canonical(&out, PyUnicode_AsUTF8(url), &sf__allocator_default, &err);
    return located(module, rc, out, &err);
}

/* `out`: NULL without memory. */
static PyObject *text_of(char *out)
{
    PyObject *text = out ? PyUnicode_DecodeUTF8(out, (Py_ssize_t)strlen(out), NULL) : PyErr_NoMemory();

    sf__free(&sf__allocator_default, out);
    return text;
}

PyObject *native_join_location(PyObject *module, PyObject *args)
{
    const char *prefix, *name;

    if (!PyArg_ParseTuple(args, "ss:join_location", &prefix, &name))
        return NULL;
    return text_of(sf__location_join(prefix, name, &sf__allocator_default));
}

PyObject *native_decode_location(PyObject *module, PyObject *args)
{
    const char *url, *part;

    if (!PyArg_ParseTuple(args, "ss:decode_location", &url, &part))
        return NULL;
    return text_of(sf__location_decode(url, sf_bytes_str(part), &sf__allocator_default));
}

PyObject *native_manifest_location(PyObject *module, PyObject *args)
{
    const char *ref, *prefix;
    PyObject *item = NULL;
    sf_reach reach;
    int relocate;
    char *url = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "ssp|O:manifest_location", &ref, &prefix, &relocate, &item) ||
        !native_confine(item, &reach.confine))
        return NULL;
    reach.prefix = prefix;
    reach.relocate = relocate;
    rc = sf__location_reach_manifest(&url, ref, &reach, &sf__allocator_default, &err);
    return located(module, rc, url, &err);
}

PyObject *native_shard_location(PyObject *module, PyObject *args)
{
    const char *db_url, *published, *prefix;
    PyObject *item = NULL;
    sf_reach reach;
    int relocate;
    char *url = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "sssp|O:shard_location", &db_url, &published, &prefix, &relocate, &item) ||
        !native_confine(item, &reach.confine))
        return NULL;
    reach.prefix = prefix;
    reach.relocate = relocate;
    rc = sf__location_reach_shard(&url, db_url, published, &reach, &sf__allocator_default, &err);
    return located(module, rc, url, &err);
}

PyObject *native_safe_text(PyObject *module, PyObject *text)
{
    PyObject *bytes, *safe = NULL;
    sf_bytes in;
    char *out;
    size_t n;

    bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (!bytes)
        return NULL;
    in = (sf_bytes){(const uint8_t *)PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    n = sf_text_escape(NULL, 0, in);
    out = PyMem_Malloc(n + 1);
    if (out) {
        sf_text_escape(out, n + 1, in);
        safe = PyUnicode_DecodeUTF8(out, (Py_ssize_t)n, NULL);
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(out);
    Py_DECREF(bytes);
    return safe;
}
