/* What a write came to, as dictionaries. */
#include "writing.h"

static bool put(PyObject *dict, const char *name, PyObject *value) /* takes over */
{
    bool ok = value && PyDict_SetItemString(dict, name, value) == 0;

    Py_XDECREF(value);
    return ok;
}

static PyObject *text_or_none(const char *s)
{
    return s ? PyUnicode_DecodeUTF8(s, (Py_ssize_t)strlen(s), "replace") : Py_NewRef(Py_None);
}

static PyObject *attempt_to_python(const sf_attempt *a)
{
    return Py_BuildValue("{s:L,s:I,s:I,s:N,s:K,s:K,s:K,s:N,s:N,s:N,s:N,s:L,s:O}", "db_id", (long long)a->db_id, "attempt",
                         (unsigned)a->attempt, "retries", (unsigned)a->retries, "db_url", text_or_none(a->db_url), "row_count",
                         (unsigned long long)a->row_count, "duplicates", (unsigned long long)a->duplicates, "db_bytes", (unsigned long long)a->db_bytes, "min_key",
                         text_or_none(a->min_key_json), "max_key", text_or_none(a->max_key_json), "checkpoint_id",
                         text_or_none(a->checkpoint_id), "content_hash", text_or_none(a->content_hash), "duration_ms",
                         (long long)a->duration_ms, "bytes_keys", a->bytes_keys ? Py_True : Py_False);
}

static PyObject *attempts_to_python(const sf_attempt *attempts, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list && i < n; i++) {
        PyObject *one = attempt_to_python(&attempts[i]);

        if (one)
            PyList_SET_ITEM(list, (Py_ssize_t)i, one);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *histogram_to_python(const uint64_t counts[SF_HISTOGRAM_BUCKETS])
{
    PyObject *list = PyList_New(SF_HISTOGRAM_BUCKETS);

    for (Py_ssize_t i = 0; list && i < (Py_ssize_t)SF_HISTOGRAM_BUCKETS; i++) {
        PyObject *n = PyLong_FromUnsignedLongLong(counts[i]);

        if (n)
            PyList_SET_ITEM(list, i, n);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *report_to_python(const sf_write_report *r)
{
    PyObject *d = Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:I,s:d,s:O,s:L,s:L,s:L,s:L}", "rows", (unsigned long long)r->rows,
        "key_bytes", (unsigned long long)r->key_bytes, "value_bytes", (unsigned long long)r->value_bytes, "duplicates",
        (unsigned long long)r->duplicates, "spilled_bytes", (unsigned long long)r->spilled_bytes, "published_rows",
        (unsigned long long)r->published_rows, "published_bytes", (unsigned long long)r->published_bytes, "num_dbs",
        (unsigned)r->num_dbs, "suggested_num_dbs", (unsigned)r->suggested_num_dbs, "losers_deleted",
        (unsigned)r->losers_deleted, "largest_over_mean", r->largest_over_mean, "published",
        r->published ? Py_True : Py_False, "adding_ms", (long long)r->adding_ms, "building_ms",
        (long long)r->building_ms, "publishing_ms", (long long)r->publishing_ms, "total_ms", (long long)r->total_ms);
    bool ok = d && put(d, "run_id", text_or_none(r->run_id)) && put(d, "manifest_ref", text_or_none(r->manifest_ref)) &&
              put(d, "run_record_ref", text_or_none(r->run_record_ref)) && put(d, "warning", text_or_none(r->warning)) &&
              put(d, "sharding", text_or_none(r->sharding_json)) &&
              put(d, "found_ref", text_or_none(r->found_ref)) &&
              put(d, "previous_rows",
                  r->has_previous ? PyLong_FromUnsignedLongLong(r->previous_rows) : Py_NewRef(Py_None)) &&
              put(d, "attempts", attempts_to_python(r->attempts, r->attempt_count)) &&
              put(d, "winners", attempts_to_python(r->winners, r->winner_count)) &&
              put(d, "key_sizes", histogram_to_python(r->key_sizes)) &&
              put(d, "value_sizes", histogram_to_python(r->value_sizes));

    if (!ok)
        Py_CLEAR(d);
    return d;
}

static const char *phase_name(sf_write_phase phase)
{
    static const char *const names[] = {
        [SF_PHASE_ADDING] = "adding",         [SF_PHASE_BUILDING] = "building", [SF_PHASE_CHECKING] = "checking",
        [SF_PHASE_PUBLISHING] = "publishing", [SF_PHASE_CLEANING] = "cleaning", [SF_PHASE_DONE] = "done",
    };

    return names[phase];
}

PyObject *progress_to_python(const sf_write_progress *p)
{
    return Py_BuildValue("(sKKKKIIL)", phase_name(p->phase), (unsigned long long)p->rows_added,
                         (unsigned long long)p->bytes_added, (unsigned long long)p->rows_built,
                         (unsigned long long)p->bytes_stored, (unsigned)p->shards_done, (unsigned)p->shards_total,
                         (long long)p->elapsed_ms);
}
