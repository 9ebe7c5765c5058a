/* What a write came to, as dictionaries. */
#include "convert.h"
#include "writing.h"

static PyObject *id_to_python(bool given, int64_t id)
{
    return given ? PyLong_FromLongLong(id) : Py_NewRef(Py_None);
}

static PyObject *attempt_to_python(const sf_writer *w, const sf_attempt *a)
{
    return Py_BuildValue("{s:L,s:I,s:I,s:N,s:K,s:K,s:K,s:N,s:N,s:N,s:N,s:L,s:O,s:O,s:N,s:N,s:N,s:N}", "db_id",
                         (long long)a->db_id, "attempt", (unsigned)a->attempt, "retries", (unsigned)a->retries,
                         "db_url", text_to_python(a->db_url), "row_count", (unsigned long long)a->row_count,
                         "duplicates", (unsigned long long)a->duplicates, "db_bytes", (unsigned long long)a->db_bytes,
                         "min_key", text_to_python(a->min_key_json), "max_key", text_to_python(a->max_key_json),
                         "checkpoint_id", text_to_python(a->checkpoint_id), "content_hash",
                         text_to_python(a->content_hash), "duration_ms", (long long)a->duration_ms, "bytes_keys",
                         a->bytes_keys ? Py_True : Py_False, "reused", a->reused ? Py_True : Py_False, "taken_from",
                         text_to_python(a->taken_from), "stage_id", id_to_python(a->has_stage_id, a->stage_id),
                         "task_attempt_id", id_to_python(a->has_task_attempt_id, a->task_attempt_id), "opening",
                         text_to_python(sf_writer_attempt_opening(w, a)));
}

static PyObject *attempts_to_python(const sf_writer *w, const sf_attempt *attempts, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list && i < n; i++) {
        PyObject *item = attempt_to_python(w, &attempts[i]);

        if (item)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *count_to_python(const void *item)
{
    return PyLong_FromUnsignedLongLong(*(const uint64_t *)item);
}

PyObject *report_to_python(sf_writer *w)
{
    const sf_write_report *r = sf_writer_report(w);
    PyObject *d = Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:I,s:I,s:I,s:I,s:d,s:O,s:L,s:L,s:L,s:L}", "rows", (unsigned long long)r->rows,
        "bad_rows", (unsigned long long)r->bad_rows, "key_bytes", (unsigned long long)r->key_bytes, "value_bytes",
        (unsigned long long)r->value_bytes, "duplicates", (unsigned long long)r->duplicates, "spilled_bytes",
        (unsigned long long)r->spilled_bytes, "published_rows", (unsigned long long)r->published_rows,
        "published_bytes", (unsigned long long)r->published_bytes, "num_dbs", (unsigned)r->num_dbs, "suggested_num_dbs",
        (unsigned)r->suggested_num_dbs, "losers_deleted", (unsigned)r->losers_deleted, "reused_shards",
        (unsigned)r->reused_shards, "largest_over_mean", r->largest_over_mean, "published",
        r->published ? Py_True : Py_False, "adding_ms", (long long)r->adding_ms, "building_ms",
        (long long)r->building_ms, "publishing_ms", (long long)r->publishing_ms, "total_ms", (long long)r->total_ms);
    bool ok = d && dict_put(d, "run_id", text_to_python(r->run_id)) &&
              dict_put(d, "manifest_ref", text_to_python(r->manifest_ref)) &&
              dict_put(d, "run_record_ref", text_to_python(r->run_record_ref)) &&
              dict_put(d, "warning", text_to_python(r->warning)) &&
              dict_put(d, "sharding", text_to_python(r->sharding_json)) &&
              dict_put(d, "found_ref", text_to_python(r->found_ref)) &&
              dict_put(d, "previous_rows",
                       r->has_previous ? PyLong_FromUnsignedLongLong(r->previous_rows) : Py_NewRef(Py_None)) &&
              dict_put(d, "attempts", attempts_to_python(w, r->attempts, r->attempt_count)) &&
              dict_put(d, "winners", attempts_to_python(w, r->winners, r->winner_count)) &&
              dict_put(d, "key_sizes",
                       list_to_python(r->key_sizes, SF_HISTOGRAM_BUCKETS, sizeof(*r->key_sizes), count_to_python)) &&
              dict_put(d, "value_sizes",
                       list_to_python(r->value_sizes, SF_HISTOGRAM_BUCKETS, sizeof(*r->value_sizes), count_to_python));

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
