/* The options of readers. */
#include "convert.h"
#include "objects.h"
#include "options.h"

static bool opener_option(PyObject *o, const struct option *of, void *out)
{
    (void)of;
    return (*(const struct sf_shard_opener **)out = shard_opener_of(o)) != NULL;
}

static bool confine_option(PyObject *o, const struct option *of, void *out)
{
    (void)of;
    return native_confine(o, out);
}

/* As a timeout; what is above 0 stays so. */
static bool interval_option(PyObject *o, const struct option *of, void *out)
{
    int64_t *ms = out;

    (void)of;
    if (!timeout_from_python(o, ms))
        return false;
    *ms = *ms == SF_TIMEOUT_NONE ? 0 : *ms > 0 ? *ms : 1;
    return true;
}

/* None: 0, which is learned. */
static bool hedge_after_option(PyObject *o, const struct option *of, void *out)
{
    int64_t ms;

    if (!interval_option(o, of, &ms))
        return false;
    *(uint32_t *)out = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
    return true;
}

static const char *const sqlite_modes[] = {[SF_SQLITE_AUTO] = "auto",
                                           [SF_SQLITE_DOWNLOAD] = "download",
                                           [SF_SQLITE_RANGE] = "range",
                                           [SF_SQLITE_REFUSE] = "refuse",
                                           NULL};

static const char *const residencies[] = {[SF_RESIDENCY_NONE] = "none",
                                          [SF_RESIDENCY_INDEX] = "index",
                                          [SF_RESIDENCY_MEMORY] = "memory",
                                          [SF_RESIDENCY_DISK] = "disk",
                                          NULL};

/* By the names of the readers' keyword arguments (reader/_options.py); the rest is the package's own. */
static const struct option reader_options[] = {
    {"current_pointer_key", option_text, offsetof(sf_reader_options, current_name), NULL},
    {"max_fallback_attempts", option_count, offsetof(sf_reader_options, max_fallbacks), NULL},
    {"open_concurrency", option_count, offsetof(sf_reader_options, open_concurrency), NULL},
    {"lazy_open", option_bool, offsetof(sf_reader_options, lazy_shards), NULL},
    {"relocate", option_bool, offsetof(sf_reader_options, relocate), NULL},
    {"confine", confine_option, offsetof(sf_reader_options, confine), NULL},
    {"manifest_ref", option_text, offsetof(sf_reader_options, manifest_ref), NULL},
    {"refresh_interval", interval_option, offsetof(sf_reader_options, refresh_interval_ms), NULL},
    {"refresh_jitter", option_double, offsetof(sf_reader_options, refresh_jitter), NULL},
    {"sqlite_folder", option_text, offsetof(sf_reader_options, sqlite_folder), NULL},
    {"sqlite_mode", option_word, offsetof(sf_reader_options, sqlite_mode), sqlite_modes},
    {"sqlite_shard_bytes", option_u64, offsetof(sf_reader_options, sqlite_shard_bytes), NULL},
    {"sqlite_total_bytes", option_u64, offsetof(sf_reader_options, sqlite_total_bytes), NULL},
    {"sqlite_uncached", option_bool, offsetof(sf_reader_options, sqlite_uncached), NULL},
    {"sqlite_only", option_bool, offsetof(sf_reader_options, sqlite_only), NULL},
    {"disk_folder", option_text, offsetof(sf_reader_options, disk_folder), NULL},
    {"disk_bytes", option_u64, offsetof(sf_reader_options, disk_bytes), NULL},
    {"read_gap_bytes", option_u64, offsetof(sf_reader_options, read_gap_bytes), NULL},
    {"warm_bytes", option_u64, offsetof(sf_reader_options, warm_bytes), NULL},
    {"hedge_share", option_double, offsetof(sf_reader_options, hedge_share), NULL},
    {"hedge_after", hedge_after_option, offsetof(sf_reader_options, hedge_after_ms), NULL},
    {"read_max_bytes", option_u64, offsetof(sf_reader_options, read_max_bytes), NULL},
    {"residency", option_word, offsetof(sf_reader_options, residency), residencies},
    {"memory_bytes", option_u64, offsetof(sf_reader_options, cache_bytes), NULL},
    {"shard_opener", opener_option, offsetof(sf_reader_options, shard_opener), NULL},
    {NULL, NULL, 0, NULL},
};

bool reader_options_from_python(PyObject *dict, sf_reader_options *o, sf_s3_options s3[2])
{
    bool given[2];

    if (!s3_from_python(dict_item(dict, "s3"), &s3[0], &given[0]) || PyErr_Occurred() ||
        !s3_from_python(dict_item(dict, "shard_s3"), &s3[1], &given[1]) || PyErr_Occurred())
        return false;
    o->s3 = given[0] ? &s3[0] : NULL;
    o->shard_s3 = given[1] ? &s3[1] : NULL;
    return options_take(dict, reader_options, o);
}
