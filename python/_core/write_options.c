/* Options of writers, from dictionaries. */
#include "writing.h"

/* Each leaves *out alone when the dictionary does not have the name, or has None. */
static bool take_text(PyObject *dict, const char *name, const char **out)
{
    PyObject *o = dict_item(dict, name);
    const char *text;
    Py_ssize_t n;

    if (!o || o == Py_None)
        return !PyErr_Occurred();
    text = PyUnicode_Check(o) ? PyUnicode_AsUTF8AndSize(o, &n) : NULL;
    if (text && strlen(text) == (size_t)n) {
        *out = text;
        return true;
    }
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "%s must be a str without NUL, not %R", name, o);
    return false;
}

static bool take_u64(PyObject *dict, const char *name, uint64_t max, uint64_t *out)
{
    PyObject *o = dict_item(dict, name);
    unsigned long long v;

    if (!o || o == Py_None)
        return !PyErr_Occurred();
    v = PyLong_Check(o) ? PyLong_AsUnsignedLongLong(o) : 0;
    if (PyLong_Check(o) && v <= max && !PyErr_Occurred()) {
        *out = v;
        return true;
    }
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s must be an integer from 0 to %llu, not %R", name, (unsigned long long)max, o);
    return false;
}

static bool take_u32(PyObject *dict, const char *name, uint32_t *out)
{
    uint64_t v = *out;
    bool ok = take_u64(dict, name, UINT32_MAX, &v);

    *out = (uint32_t)v;
    return ok;
}

static bool take_ms(PyObject *dict, const char *name, int64_t *out)
{
    uint64_t v = (uint64_t)*out;
    bool ok = take_u64(dict, name, INT64_MAX, &v);

    *out = (int64_t)v;
    return ok;
}

static bool take_double(PyObject *dict, const char *name, double *out)
{
    PyObject *o = dict_item(dict, name);

    if (!o || o == Py_None)
        return !PyErr_Occurred();
    *out = PyFloat_AsDouble(o);
    return !(*out == -1.0 && PyErr_Occurred());
}

static bool take_bool(PyObject *dict, const char *name, bool *out)
{
    PyObject *o = dict_item(dict, name);
    int truth = o ? PyObject_IsTrue(o) : *out;

    *out = truth > 0;
    return truth >= 0 && !PyErr_Occurred();
}

/* One of the words, by its place. */
static bool take_word(PyObject *dict, const char *name, const char *const *words, int *out)
{
    const char *word = NULL;

    if (!take_text(dict, name, &word) || !word)
        return !PyErr_Occurred();
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0) {
            *out = i;
            return true;
        }
    PyErr_Format(PyExc_ValueError, "%s cannot be %s", name, word);
    return false;
}

bool slatedb_options_from_python(PyObject *dict, sf_slatedb_options *out)
{
    static const char *const codecs[] = {
        [SF_COMPRESSION_NONE] = "none", [SF_COMPRESSION_SNAPPY] = "snappy", [SF_COMPRESSION_ZLIB] = "zlib",
        [SF_COMPRESSION_LZ4] = "lz4",   [SF_COMPRESSION_ZSTD] = "zstd",     NULL,
    };
    int codec = SF_COMPRESSION_NONE;

    *out = (sf_slatedb_options)SF_SLATEDB_OPTIONS_INIT;
    if (!dict || dict == Py_None)
        return true;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "SlateDB options must be a dict");
        return false;
    }
    if (!take_word(dict, "compression", codecs, &codec) || !take_u32(dict, "block_bytes", &out->block_bytes) ||
        !take_u32(dict, "bits_per_key", &out->bits_per_key) ||
        !take_u32(dict, "min_filter_keys", &out->min_filter_keys) ||
        !take_u64(dict, "sst_bytes", UINT64_MAX, &out->sst_bytes))
        return false;
    out->compression = (sf_compression)codec;
    return true;
}

bool sqlite_options_from_python(PyObject *dict, sf_sqlite_options *out)
{
    *out = (sf_sqlite_options)SF_SQLITE_OPTIONS_INIT;
    if (!dict || dict == Py_None)
        return true;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "SQLite options must be a dict");
        return false;
    }
    return take_bool(dict, "sidecar", &out->sidecar) && take_u32(dict, "page_bytes", &out->page_bytes);
}

static bool expectation_from_python(PyObject *dict, sf_writer_options *o)
{
    PyObject *expected = dict_item(dict, "expected_current");

    if (!expected)
        return !PyErr_Occurred(); /* whatever it is */
    o->expected_current = expected == Py_None ? SF_EXPECT_ABSENT : SF_EXPECT_REF;
    return take_text(dict, "expected_current", &o->expected_ref);
}

static void cel_init(struct parsed_cel *p)
{
    memset(p, 0, sizeof(*p));
    p->sharding = (sf_cel_sharding)SF_CEL_SHARDING_INIT;
    p->values.values = p->values.few;
}

static bool columns_from_python(PyObject *columns, struct parsed_cel *p)
{
    Py_ssize_t at = 0;
    PyObject *name, *type;

    if (!columns || !PyDict_Check(columns)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "cel_columns must be a dict");
        return false;
    }
    p->columns = PyMem_New(sf_routing_column, PyDict_GET_SIZE(columns) + 1);
    if (!p->columns) {
        PyErr_NoMemory();
        return false;
    }
    p->sharding.columns = p->columns;
    while (PyDict_Next(columns, &at, &name, &type)) {
        sf_routing_column *column = &p->columns[p->sharding.column_count++];

        if (!text_check(name, "the name of a CEL column") || !text_check(type, "the type of a CEL column"))
            return false;
        column->name = PyUnicode_AsUTF8(name);
        column->type = PyUnicode_AsUTF8(type);
        if (!column->name || !column->type)
            return false;
    }
    return true;
}

bool cel_from_python(PyObject *dict, struct parsed_cel *p)
{
    static const char *const modes[] = {
        [SF_ROUTING_DIRECT] = "direct", [SF_ROUTING_CATEGORICAL] = "categorical", [SF_ROUTING_INFERRED] = "inferred", NULL,
    };
    PyObject *values = dict_item(dict, "values");
    int mode = SF_ROUTING_DIRECT;

    cel_init(p);
    if (PyErr_Occurred() || !take_text(dict, "expr", &p->sharding.expr) ||
        !columns_from_python(dict_item(dict, "columns"), p) || !take_word(dict, "mode", modes, &mode))
        return false;
    if (values && values != Py_None && !routing_values_from_python(values, &p->values))
        return false;
    p->sharding.mode = (sf_routing_mode)mode;
    p->sharding.values = p->values.context.values;
    p->sharding.value_count = p->values.context.count;
    return true;
}

void parsed_cel_cleanup(struct parsed_cel *p)
{
    PyMem_Free(p->columns);
    p->columns = NULL;
    routing_cleanup(&p->values);
}

static bool take_cel(PyObject *dict, struct parsed_options *p)
{
    PyObject *cel = dict_item(dict, "cel");

    if (!cel || cel == Py_None)
        return !PyErr_Occurred();
    p->o.cel = &p->cel.sharding;
    return cel_from_python(cel, &p->cel);
}

void parsed_options_cleanup(struct parsed_options *p)
{
    parsed_cel_cleanup(&p->cel);
}

bool writer_options_from_python(PyObject *dict, struct parsed_options *p)
{
    static const char *const encodings[] = {
        [SF_KEY_U64BE] = "u64be", [SF_KEY_U32BE] = "u32be", [SF_KEY_UTF8] = "utf8", [SF_KEY_RAW] = "raw", NULL,
    };
    static const char *const backends[] = {[SF_BACKEND_SLATEDB] = "slatedb", [SF_BACKEND_SQLITE] = "sqlite", NULL};
    static const char *const duplicates[] = {[SF_DUPLICATES_LAST] = "last", [SF_DUPLICATES_ERROR] = "error", NULL};
    sf_writer_options *o = &p->o;
    bool has_s3, has_shard_s3;
    int encoding = SF_KEY_U64BE, backend = SF_BACKEND_SLATEDB, duplicate = SF_DUPLICATES_LAST;

    *o = (sf_writer_options)SF_WRITER_OPTIONS_INIT;
    cel_init(&p->cel);
    o->one_key_type = true;
    o->writer_type = "python";
    o->int64_keys = true; /* no reader of the package could find others */
    o->run_registry_prefix = NULL; /* no record unless it is named */
    if (!s3_from_python(dict_item(dict, "s3"), &p->s3, &has_s3) || PyErr_Occurred() ||
        !s3_from_python(dict_item(dict, "shard_s3"), &p->shard_s3, &has_shard_s3) || PyErr_Occurred() ||
        !slatedb_options_from_python(dict_item(dict, "slatedb"), &p->slatedb) || PyErr_Occurred() ||
        !sqlite_options_from_python(dict_item(dict, "sqlite"), &p->sqlite) || PyErr_Occurred() ||
        !take_text(dict, "current_name", &o->current_name) || !take_text(dict, "run_id", &o->run_id) ||
        !take_bool(dict, "new_run_id", &o->new_run_id) ||
        !take_u32(dict, "num_dbs", &o->num_dbs) || !take_word(dict, "key_encoding", encodings, &encoding) ||
        !take_text(dict, "key_col", &o->key_col) || !take_text(dict, "custom_json", &o->custom_json) ||
        !take_text(dict, "db_path_template", &o->db_path_template) ||
        !take_text(dict, "shard_prefix", &o->shard_prefix) || !take_word(dict, "backend", backends, &backend) ||
        !take_word(dict, "on_duplicate", duplicates, &duplicate) ||
        !take_u64(dict, "memory_bytes", UINT64_MAX, &o->memory_bytes) ||
        !take_text(dict, "spill_folder", &o->spill_folder) || !take_u32(dict, "threads", &o->threads) ||
        !take_u32(dict, "max_retries", &o->max_retries) || !take_ms(dict, "retry_base_ms", &o->retry_base_ms) ||
        !take_double(dict, "retry_multiplier", &o->retry_multiplier) ||
        !take_text(dict, "run_registry_prefix", &o->run_registry_prefix) ||
        !take_text(dict, "writer_type", &o->writer_type) || !expectation_from_python(dict, o) ||
        !take_double(dict, "min_rows_share", &o->min_rows_share) ||
        !take_double(dict, "max_rows_share", &o->max_rows_share) ||
        !take_u32(dict, "max_empty_shards", &o->max_empty_shards) ||
        !take_u32(dict, "sample_keys", &o->sample_keys) ||
        !take_ms(dict, "progress_interval_ms", &o->progress_interval_ms) || !take_cel(dict, p))
        return false;
    if (has_s3)
        o->s3 = &p->s3;
    if (has_shard_s3)
        o->shard_s3 = &p->shard_s3;
    o->slatedb = &p->slatedb;
    o->sqlite = &p->sqlite;
    o->key_encoding = (sf_key_encoding)encoding;
    o->backend = (sf_backend)backend;
    o->on_duplicate = (sf_duplicates)duplicate;
    return true;
}
