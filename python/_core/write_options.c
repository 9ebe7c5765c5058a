/* Options of writers, from dictionaries. */
#include "convert.h"
#include "options.h"
#include "writing.h"

const char *const key_encoding_words[] = {
    [SF_KEY_U64BE] = "u64be", [SF_KEY_U32BE] = "u32be", [SF_KEY_UTF8] = "utf8", [SF_KEY_RAW] = "raw", NULL};
const char *const backend_words[] = {[SF_BACKEND_SLATEDB] = "slatedb", [SF_BACKEND_SQLITE] = "sqlite", NULL};

/* What a dictionary, NULL or None says beyond the defaults. */
static bool backend_options(PyObject *dict, const char *what, const struct option *table, void *out)
{
    if (!dict || dict == Py_None)
        return true;
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "%s options must be a dict", what);
        return false;
    }
    return options_take(dict, table, out);
}

bool slatedb_options_from_python(PyObject *dict, sf_slatedb_options *out)
{
    static const char *const codecs[] = {
        [SF_COMPRESSION_NONE] = "none", [SF_COMPRESSION_SNAPPY] = "snappy", [SF_COMPRESSION_ZLIB] = "zlib",
        [SF_COMPRESSION_LZ4] = "lz4",   [SF_COMPRESSION_ZSTD] = "zstd",     NULL,
    };
    static const struct option table[] = {
        {"compression", option_word, offsetof(sf_slatedb_options, compression), codecs},
        {"block_bytes", option_u32, offsetof(sf_slatedb_options, block_bytes), NULL},
        {"bits_per_key", option_u32, offsetof(sf_slatedb_options, bits_per_key), NULL},
        {"min_filter_keys", option_u32, offsetof(sf_slatedb_options, min_filter_keys), NULL},
        {"sst_bytes", option_u64, offsetof(sf_slatedb_options, sst_bytes), NULL},
        {NULL, NULL, 0, NULL},
    };

    *out = (sf_slatedb_options)SF_SLATEDB_OPTIONS_INIT;
    return backend_options(dict, "SlateDB", table, out);
}

bool sqlite_options_from_python(PyObject *dict, sf_sqlite_options *out)
{
    static const struct option table[] = {
        {"sidecar", option_bool, offsetof(sf_sqlite_options, sidecar), NULL},
        {"page_bytes", option_u32, offsetof(sf_sqlite_options, page_bytes), NULL},
        {NULL, NULL, 0, NULL},
    };

    *out = (sf_sqlite_options)SF_SQLITE_OPTIONS_INIT;
    return backend_options(dict, "SQLite", table, out);
}

static bool expectation_from_python(PyObject *dict, sf_writer_options *o)
{
    PyObject *expected = dict_item(dict, "expected_current");

    if (!expected)
        return !PyErr_Occurred(); /* whatever it is */
    o->expected_current = expected == Py_None ? SF_EXPECT_ABSENT : SF_EXPECT_REF;
    return expected == Py_None ||
           (text_check(expected, "expected_current") && (o->expected_ref = PyUnicode_AsUTF8(expected)));
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
        [SF_ROUTING_DIRECT] = "direct",
        [SF_ROUTING_CATEGORICAL] = "categorical",
        [SF_ROUTING_INFERRED] = "inferred",
        NULL,
    };
    static const struct option table[] = {
        {"expr", option_text, offsetof(sf_cel_sharding, expr), NULL},
        {"mode", option_word, offsetof(sf_cel_sharding, mode), modes},
        {NULL, NULL, 0, NULL},
    };
    PyObject *values = dict_item(dict, "values");

    cel_init(p);
    if (PyErr_Occurred() || !options_take(dict, table, &p->sharding) ||
        !columns_from_python(dict_item(dict, "columns"), p))
        return false;
    if (values && values != Py_None && !routing_values_from_python(values, &p->values))
        return false;
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

static bool is_given(PyObject *dict, const char *name)
{
    PyObject *o = dict_item(dict, name);

    return o && o != Py_None;
}

struct reported_attempt {
    sf_attempt attempt;
    const char *opening;
};

bool reported_attempt_from_python(PyObject *dict, sf_attempt *out, const char **opening)
{
    static const struct option table[] = {
        {"db_id", option_i64, offsetof(sf_attempt, db_id), NULL},
        {"attempt", option_u32, offsetof(sf_attempt, attempt), NULL},
        {"retries", option_u32, offsetof(sf_attempt, retries), NULL},
        {"stage_id", option_i64, offsetof(sf_attempt, stage_id), NULL},
        {"task_attempt_id", option_i64, offsetof(sf_attempt, task_attempt_id), NULL},
        {"db_url", option_text, offsetof(sf_attempt, db_url), NULL},
        {"row_count", option_u64, offsetof(sf_attempt, row_count), NULL},
        {"duplicates", option_u64, offsetof(sf_attempt, duplicates), NULL},
        {"db_bytes", option_u64, offsetof(sf_attempt, db_bytes), NULL},
        {"min_key", option_text, offsetof(sf_attempt, min_key_json), NULL},
        {"max_key", option_text, offsetof(sf_attempt, max_key_json), NULL},
        {"checkpoint_id", option_text, offsetof(sf_attempt, checkpoint_id), NULL},
        {"content_hash", option_text, offsetof(sf_attempt, content_hash), NULL},
        {"duration_ms", option_i64, offsetof(sf_attempt, duration_ms), NULL},
        {"bytes_keys", option_bool, offsetof(sf_attempt, bytes_keys), NULL},
        {"reused", option_bool, offsetof(sf_attempt, reused), NULL},
        {"taken_from", option_text, offsetof(sf_attempt, taken_from), NULL},
        {"opening", option_text, offsetof(struct reported_attempt, opening), NULL},
        {NULL, NULL, 0, NULL},
    };

    struct reported_attempt a = {.attempt = {.db_id = -1}};

    if (!options_take(dict, table, &a))
        return false;
    *out = a.attempt;
    *opening = a.opening;
    out->has_stage_id = is_given(dict, "stage_id");
    out->has_task_attempt_id = is_given(dict, "task_attempt_id");
    return !PyErr_Occurred();
}

void parsed_options_cleanup(struct parsed_options *p)
{
    parsed_cel_cleanup(&p->cel);
}

bool writer_options_from_python(PyObject *dict, struct parsed_options *p)
{
    static const char *const duplicates[] = {[SF_DUPLICATES_LAST] = "last", [SF_DUPLICATES_ERROR] = "error", NULL};
    static const struct option table[] = {
        {"current_name", option_text, offsetof(sf_writer_options, current_name), NULL},
        {"run_id", option_text, offsetof(sf_writer_options, run_id), NULL},
        {"new_run_id", option_bool, offsetof(sf_writer_options, new_run_id), NULL},
        {"num_dbs", option_u32, offsetof(sf_writer_options, num_dbs), NULL},
        {"key_encoding", option_word, offsetof(sf_writer_options, key_encoding), key_encoding_words},
        {"key_col", option_text, offsetof(sf_writer_options, key_col), NULL},
        {"custom_json", option_text, offsetof(sf_writer_options, custom_json), NULL},
        {"db_path_template", option_text, offsetof(sf_writer_options, db_path_template), NULL},
        {"shard_prefix", option_text, offsetof(sf_writer_options, shard_prefix), NULL},
        {"backend", option_word, offsetof(sf_writer_options, backend), backend_words},
        {"on_duplicate", option_word, offsetof(sf_writer_options, on_duplicate), duplicates},
        {"memory_bytes", option_u64, offsetof(sf_writer_options, memory_bytes), NULL},
        {"spill_folder", option_text, offsetof(sf_writer_options, spill_folder), NULL},
        {"attempt", option_u32, offsetof(sf_writer_options, attempt), NULL},
        {"stage_id", option_i64, offsetof(sf_writer_options, stage_id), NULL},
        {"task_attempt_id", option_i64, offsetof(sf_writer_options, task_attempt_id), NULL},
        {"threads", option_u32, offsetof(sf_writer_options, threads), NULL},
        {"max_retries", option_u32, offsetof(sf_writer_options, max_retries), NULL},
        {"retry_base_ms", option_ms, offsetof(sf_writer_options, retry_base_ms), NULL},
        {"retry_multiplier", option_double, offsetof(sf_writer_options, retry_multiplier), NULL},
        {"run_registry_prefix", option_text, offsetof(sf_writer_options, run_registry_prefix), NULL},
        {"writer_type", option_text, offsetof(sf_writer_options, writer_type), NULL},
        {"min_rows_share", option_double, offsetof(sf_writer_options, min_rows_share), NULL},
        {"max_rows_share", option_double, offsetof(sf_writer_options, max_rows_share), NULL},
        {"max_empty_shards", option_u32, offsetof(sf_writer_options, max_empty_shards), NULL},
        {"sample_keys", option_u32, offsetof(sf_writer_options, sample_keys), NULL},
        {"resume", option_bool, offsetof(sf_writer_options, resume), NULL},
        {"reuse_unchanged", option_bool, offsetof(sf_writer_options, reuse_unchanged), NULL},
        {"progress_interval_ms", option_ms, offsetof(sf_writer_options, progress_interval_ms), NULL},
        {NULL, NULL, 0, NULL},
    };
    sf_writer_options *o = &p->o;
    bool has_s3, has_shard_s3;

    *o = (sf_writer_options)SF_WRITER_OPTIONS_INIT;
    cel_init(&p->cel);
    o->one_key_type = true;
    o->writer_type = "python";
    o->int64_keys = true;          /* no reader of the package could find others */
    o->run_registry_prefix = NULL; /* no record unless it is named */
    if (!s3_from_python(dict_item(dict, "s3"), &p->s3, &has_s3) || PyErr_Occurred() ||
        !s3_from_python(dict_item(dict, "shard_s3"), &p->shard_s3, &has_shard_s3) || PyErr_Occurred() ||
        !slatedb_options_from_python(dict_item(dict, "slatedb"), &p->slatedb) || PyErr_Occurred() ||
        !sqlite_options_from_python(dict_item(dict, "sqlite"), &p->sqlite) || PyErr_Occurred() ||
        !options_take(dict, table, o) || !expectation_from_python(dict, o) || !take_cel(dict, p))
        return false;
    o->has_stage_id = is_given(dict, "stage_id");
    o->has_task_attempt_id = is_given(dict, "task_attempt_id");
    if (has_s3)
        o->s3 = &p->s3;
    if (has_shard_s3)
        o->shard_s3 = &p->shard_s3;
    o->slatedb = &p->slatedb;
    o->sqlite = &p->sqlite;
    return true;
}
