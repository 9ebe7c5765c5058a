/* Manifests in PostgreSQL: the engine's statements, for drivers of Python, and its reading of what they
 * bring. */
#include "convert.h"
#include "module.h"

#include "snapshot/postgres_rows.h"
#include "snapshot/postgres_rows_write.h"

/* Drivers of Python have %s for every parameter, in their order. */
static PyObject *statement_to_python(sf_postgres_statement which, const sf_postgres_tables *tables)
{
    sf_strbuf b, out;
    PyObject *text;

    sf__strbuf_init(&b, &sf__allocator_default);
    sf__strbuf_init(&out, &sf__allocator_default);
    sf__postgres_statement_write(&b, which, tables);
    for (size_t i = 0; !b.failed && i < b.n; i++) {
        if (b.s[i] != '$') {
            sf__strbuf_putc(&out, b.s[i]);
            continue;
        }
        sf__strbuf_puts(&out, "%s");
        while (i + 1 < b.n && b.s[i + 1] >= '0' && b.s[i + 1] <= '9')
            i++;
    }
    text = b.failed || out.failed ? PyErr_NoMemory() : PyUnicode_FromStringAndSize(out.s, (Py_ssize_t)out.n);
    sf__strbuf_cleanup(&b);
    sf__strbuf_cleanup(&out);
    return text;
}

PyObject *native_postgres_statements(PyObject *module, PyObject *args)
{
    const char *table_name, *pointer_table_name;
    sf_postgres_tables tables;
    sf_error err = SF_ERROR_INIT;
    PyObject *all;

    if (!PyArg_ParseTuple(args, "ss:postgres_statements", &table_name, &pointer_table_name))
        return NULL;
    if (sf__postgres_tables_init(&tables, table_name, pointer_table_name, &err) != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    all = PyDict_New();
    for (int i = 0; all && i < SF_POSTGRES_STATEMENT_COUNT; i++) {
        PyObject *text = statement_to_python((sf_postgres_statement)i, &tables);

        if (!text || PyDict_SetItemString(all, sf__postgres_statement_name((sf_postgres_statement)i), text) < 0)
            Py_CLEAR(all);
        Py_XDECREF(text);
    }
    return all;
}

PyObject *native_postgres_manifest(PyObject *module, PyObject *row)
{
    sf_error err = SF_ERROR_INIT;
    sf_buf *file = NULL;
    Py_ssize_t n;
    const char *text;
    PyObject *bytes;
    sf_status rc;

    if (!text_check(row, "row"))
        return NULL;
    text = PyUnicode_AsUTF8AndSize(row, &n); /* kept by `row`, which the caller holds */
    if (!text)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    rc = sf__postgres_manifest_encode(&file, sf_bytes_of(text, (size_t)n), &sf__allocator_default, &err);
    Py_END_ALLOW_THREADS;
    if (rc != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    bytes = PyBytes_FromStringAndSize((const char *)file->data, (Py_ssize_t)file->n);
    sf__buf_release(file);
    return bytes;
}

PyObject *native_postgres_rows(PyObject *module, PyObject *manifest)
{
    sf_error err = SF_ERROR_INIT;
    PyObject *build, *result = NULL;
    sf_postgres_rows rows;
    sf_status rc;
    sf_bytes b;

    if (!PyBytes_Check(manifest))
        return PyErr_Format(PyExc_TypeError, "a manifest is bytes, not %s", Py_TYPE(manifest)->tp_name);
    b = sf_bytes_of(PyBytes_AS_STRING(manifest), (size_t)PyBytes_GET_SIZE(manifest));
    Py_BEGIN_ALLOW_THREADS;
    rc = sf__postgres_rows_init(&rows, b, &sf__allocator_default, &err);
    Py_END_ALLOW_THREADS;
    if (rc != SF_OK) {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    build = PyTuple_New(SF_POSTGRES_BUILD_VALUES);
    for (int i = 0; build && i < SF_POSTGRES_BUILD_VALUES; i++) {
        PyObject *text = PyUnicode_FromString(rows.build[i]);

        if (text)
            PyTuple_SET_ITEM(build, i, text);
        else
            Py_CLEAR(build);
    }
    if (build)
        result = Py_BuildValue("(Ns)", build, rows.shards);
    sf__postgres_rows_cleanup(&rows);
    return result;
}

PyObject *native_postgres_failure(PyObject *module, PyObject *args)
{
    const char *state, *text;
    sf_status status;
    bool again;

    (void)module;
    if (!PyArg_ParseTuple(args, "ss:postgres_failure", &state, &text))
        return NULL;
    status = sf__postgres_status(state, text, &again);
    return Py_BuildValue("(sNN)", sf_status_name(status), PyBool_FromLong(again),
                         PyBool_FromLong(sf__postgres_may_tell_password(state, text)));
}
