/* The settings of S3. */
#include "convert.h"
#include "module.h"
#include "options.h"

#include "net/ca_bundle.h"
#include "store/s3_options.h"

static bool source_option(PyObject *o, const struct option *of, void *out)
{
    (void)of;
    return (*(const sf_credential_source **)out = credential_source_of(o)) != NULL;
}

static bool events_option(PyObject *o, const struct option *of, void *out)
{
    (void)of;
    return store_events_from_python(o, out);
}

static const char *const addressings[] = {
    [SF_ADDRESSING_AUTO] = "auto", [SF_ADDRESSING_PATH] = "path", [SF_ADDRESSING_VIRTUAL] = "virtual", NULL};

/* What a store that is given nothing uses, without its credentials. */
PyObject *native_has_authorities(PyObject *module, PyObject *unused)
{
    const char *file;

    return PyBool_FromLong(sf__ca_bundle_of_system(&file));
}

PyObject *native_bring_authorities(PyObject *module, PyObject *path)
{
    const char *text = PyUnicode_AsUTF8(path);

    if (!text)
        return NULL;
    sf__ca_bundle_bring(text);
    Py_RETURN_NONE;
}

PyObject *native_s3_environment(PyObject *module, PyObject *unused)
{
    sf_s3_resolved *r = NULL;
    sf_error err = SF_ERROR_INIT;
    sf_status rc;
    PyObject *dict;

    (void)unused;
    Py_BEGIN_ALLOW_THREADS /* reads files */
        rc = sf__s3_options_resolve(&r, NULL, NULL, NULL, &sf__allocator_default, &err);
    Py_END_ALLOW_THREADS if (rc != SF_OK)
    {
        raise_error(PyModule_GetState(module), &err);
        return NULL;
    }
    dict = PyDict_New();
    if (dict && !(dict_put(dict, "endpoint", text_to_python(r->options.endpoint_url)) &&
                  dict_put(dict, "region", text_to_python(r->options.region)) &&
                  dict_put(dict, "addressing", text_to_python(addressings[r->options.addressing])) &&
                  dict_put(dict, "ca_bundle", text_to_python(r->options.ca_bundle)) &&
                  dict_put(dict, "requester_pays", PyBool_FromLong(r->options.requester_pays))))
        Py_CLEAR(dict);
    sf__s3_resolved_free(r, &sf__allocator_default);
    return dict;
}

/* Of a dictionary of texts. */
static const char *variable_of(void *ctx, const char *name)
{
    PyObject *value = dict_item(ctx, name);
    const char *text = value ? PyUnicode_AsUTF8(value) : NULL;

    PyErr_Clear(); /* what is no text is not there */
    return text;
}

PyObject *native_take_variables(PyObject *module, PyObject *args)
{
    static const struct {
        const char *name;
        size_t offset;
    } texts[] = {{"endpoint_url", offsetof(sf_s3_options, endpoint_url)},
                 {"region", offsetof(sf_s3_options, region)},
                 {"access_key_id", offsetof(sf_s3_options, access_key_id)},
                 {"secret_access_key", offsetof(sf_s3_options, secret_access_key)},
                 {"session_token", offsetof(sf_s3_options, session_token)}};
    PyObject *options, *variables;
    sf_s3_options before, o;
    bool given;

    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!:take_variables", &PyDict_Type, &options, &PyDict_Type, &variables) ||
        !s3_from_python(options, &before, &given))
        return NULL;
    o = before;
    sf_s3_options_take_variables(&o, variable_of, variables);
    if (before.credential_source && !o.credential_source && PyDict_DelItemString(options, "credential_source") < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const char *text = *(const char **)((char *)&o + texts[i].offset);

        if (text != *(const char **)((char *)&before + texts[i].offset) &&
            !dict_put(options, texts[i].name, text_to_python(text)))
            return NULL;
    }
    if ((o.addressing != SF_ADDRESSING_AUTO &&
         !dict_put(options, "addressing", text_to_python(addressings[o.addressing]))) ||
        (o.requester_pays && !dict_put(options, "requester_pays", Py_NewRef(Py_True))))
        return NULL;
    Py_RETURN_NONE;
}

bool s3_from_python(PyObject *dict, sf_s3_options *out, bool *given)
{
    static const struct option table[] = {
        {"endpoint_url", option_text, offsetof(sf_s3_options, endpoint_url), NULL},
        {"region", option_text, offsetof(sf_s3_options, region), NULL},
        {"addressing", option_word, offsetof(sf_s3_options, addressing), addressings},
        {"access_key_id", option_text, offsetof(sf_s3_options, access_key_id), NULL},
        {"secret_access_key", option_text, offsetof(sf_s3_options, secret_access_key), NULL},
        {"session_token", option_text, offsetof(sf_s3_options, session_token), NULL},
        {"profile", option_text, offsetof(sf_s3_options, profile), NULL},
        {"ca_bundle", option_text, offsetof(sf_s3_options, ca_bundle), NULL},
        {"credential_source", source_option, offsetof(sf_s3_options, credential_source), NULL},
        {"insecure", option_bool, offsetof(sf_s3_options, insecure), NULL},
        {"anonymous", option_bool, offsetof(sf_s3_options, anonymous), NULL},
        {"requester_pays", option_bool, offsetof(sf_s3_options, requester_pays), NULL},
        {"connect_timeout_ms", option_i64, offsetof(sf_s3_options, connect_timeout_ms), NULL},
        {"read_timeout_ms", option_i64, offsetof(sf_s3_options, read_timeout_ms), NULL},
        {"max_retries", option_i32, offsetof(sf_s3_options, max_retries), NULL},
        {"retry_base_ms", option_i64, offsetof(sf_s3_options, retry_base_ms), NULL},
        {"retry_cap_ms", option_i64, offsetof(sf_s3_options, retry_cap_ms), NULL},
        {"retry_total_ms", option_i64, offsetof(sf_s3_options, retry_total_ms), NULL},
        {"events", events_option, offsetof(sf_s3_options, events), NULL},
        {NULL, NULL, 0, NULL},
    };

    *given = dict && dict != Py_None;
    if (!*given)
        return true;
    *out = (sf_s3_options)SF_S3_OPTIONS_INIT;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "S3 options must be a dict");
        return false;
    }
    return options_take(dict, table, out);
}
