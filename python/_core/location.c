/* Where the objects of a snapshot really lie, for readers that the engine does not open itself. */
#include "state.h"

#include "snapshot/location.h"

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

PyObject *native_manifest_location(PyObject *module, PyObject *args)
{
    const char *ref, *prefix;
    int relocate;
    char *url = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "ssp:manifest_location", &ref, &prefix, &relocate))
        return NULL;
    rc = sf__location_resolve_manifest(&url, ref, prefix, relocate, &sf__allocator_default, &err);
    return located(module, rc, url, &err);
}

PyObject *native_shard_location(PyObject *module, PyObject *args)
{
    const char *db_url, *published, *prefix;
    int relocate;
    char *url = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;

    if (!PyArg_ParseTuple(args, "sssp:shard_location", &db_url, &published, &prefix, &relocate))
        return NULL;
    rc = sf__location_resolve_shard(&url, db_url, published, prefix, relocate, &sf__allocator_default, &err);
    return located(module, rc, url, &err);
}
