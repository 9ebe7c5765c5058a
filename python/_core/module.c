/* shardyfusion._native: the module, its state and its functions. */
#include "convert.h"
#include "module.h"
#include "operation.h"

#include "runtime/runtime.h"
#include "snapshot/router.h"

static PyObject *runtime_stats(PyObject *module, PyObject *unused)
{
    native_state *st = PyModule_GetState(module);
    sf_runtime_stats s = {0};

    (void)unused;
    if (st->rt && native_owns_engine(st))
        sf_runtime_get_stats(st->rt, &s);
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "cache_hits", (unsigned long long)s.cache_hits, "cache_misses",
        (unsigned long long)s.cache_misses, "cache_bytes", (unsigned long long)s.cache_bytes, "cache_evictions",
        (unsigned long long)s.cache_evictions, "requests", (unsigned long long)s.requests, "bytes_fetched",
        (unsigned long long)s.bytes_fetched, "retries", (unsigned long long)s.retries, "requests_in_flight",
        (unsigned long long)s.requests_in_flight, "bytes_in_flight", (unsigned long long)s.bytes_in_flight);
}

/* ---------------------------------------------------------------- hooks ------------------------------------------ */

static PyObject *set_hooks(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"error", "key_error", "multi_error", "warning", NULL};
    native_state *st = PyModule_GetState(module);
    PyObject *error, *key_error, *multi_error, *warning;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOOO:set_hooks", names, &error, &key_error, &multi_error, &warning))
        return NULL;
    native_set_log_hook(warning);
    Py_XSETREF(st->error_hook, Py_NewRef(error));
    Py_XSETREF(st->key_error_hook, Py_NewRef(key_error));
    Py_XSETREF(st->multi_error_hook, Py_NewRef(multi_error));
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- the module ------------------------------------- */

static PyMethodDef functions[] = {
    {"set_hooks", (PyCFunction)(void (*)(void))set_hooks, METH_VARARGS | METH_KEYWORDS,
     "set_hooks(*, error, key_error, multi_error, warning)\n--\n\nHow the engine's errors become exceptions, and its warnings are told."},
    {"open_reader", (PyCFunction)(void (*)(void))native_open_reader, METH_VARARGS | METH_KEYWORDS,
     "open_reader(prefix, options, timeout=None, rejected=None, ask=None)\n--\n\nOpens the snapshot that the pointer names."},
    {"sqlite_sidecar", native_sqlite_sidecar, METH_VARARGS,
     "sqlite_sidecar(db, tag, /)\n--\n\nThe sidecar of the bytes of a shard.db, bound to its ETag or (None) to nothing."},
    {"open_shard", (PyCFunction)(void (*)(void))native_open_shard, METH_VARARGS | METH_KEYWORDS,
     "open_shard(url, options=None, checkpoint=None, timeout=None)\n--\n\nOpens one shard."},
    {"plain_key", native_plain_key, METH_O,
     "plain_key(key, /)\n--\n\nThe int, str or bytes that a key is; what is no key as it is."},
    {"canonical_bytes", native_canonical_bytes, METH_O, "canonical_bytes(key)\n--\n\nThe bytes that a key routes by."},
    {"xxh3_64", native_xxh3_64, METH_O, "xxh3_64(data)\n--\n\nXXH3-64, seed 0."},
    {"has_authorities", native_has_authorities, METH_NOARGS,
     "has_authorities()\n--\n\nWhether the system has certificate authorities to trust."},
    {"bring_authorities", native_bring_authorities, METH_O,
     "bring_authorities(path, /)\n--\n\nA file of authorities for a system that has none."},
    {"s3_environment", native_s3_environment, METH_NOARGS,
     "s3_environment()\n--\n\nWhat a store that is given nothing uses, but its credentials."},
    {"take_variables", native_take_variables, METH_VARARGS,
     "take_variables(options, variables, /)\n--\n\nPuts what the variables of a dotenv file say into S3 options."},
    {"location", native_location, METH_O, "location(url, /)\n--\n\nA URL or a path as manifests have it."},
    {"join_location", native_join_location, METH_VARARGS,
     "join_location(prefix, name, /)\n--\n\nThe URL of what has that name below the prefix."},
    {"decode_location", native_decode_location, METH_VARARGS,
     "decode_location(url, part, /)\n--\n\nA part of the URL as it is meant."},
    {"manifest_location", native_manifest_location, METH_VARARGS,
     "manifest_location(ref, prefix, relocate, confine=None, /)\n--\n\nThe URL of the manifest that a pointer names."},
    {"shard_location", native_shard_location, METH_VARARGS,
     "shard_location(db_url, published_prefix, prefix, relocate, confine=None, /)\n--\n\nThe URL of a shard's folder."},
    {"safe_text", native_safe_text, METH_O, "safe_text(text, /)\n--\n\nThe text as it may stand in a message."},
    {"history", native_history, METH_VARARGS,
     "history(prefix, site, limit, /)\n--\n\nManifests, newest first: (ref, run id, microseconds since 1970, is current)."},
    {"rollback", native_rollback, METH_VARARGS,
     "rollback(prefix, ref, site, force, any_current, expected, /)\n--\n\nMakes the pointer name the manifest."},
    {"cleanup", native_cleanup, METH_VARARGS,
     "cleanup(prefix, site, stale_attempts, old_runs, keep_last, older_than_ms, min_age_ms, ignore_leases, dry_run, progress, store=None, /)\n--\n\n"
     "([(kind, run id, URL, objects, deleted)], warning)"},
    {"verify", native_verify, METH_VARARGS,
     "verify(snapshot, deep, threads, timeout, progress, /)\n--\n\n"
     "[(db_id, objects, bytes, rows, rows of the manifest, hashed, damages, first: (text, URL, offset))]"},
    {"compare", native_compare, METH_VARARGS,
     "compare(snapshot, other, /)\n--\n\nWhat their manifests tell differently: [(name, kind, from, to)]"},
    {"row_diff", native_row_diff, METH_VARARGS,
     "row_diff(snapshot, other, /)\n--\n\nThe rows in which they differ, step by step."},
    {"cel_shards", native_cel_shards, METH_O,
     "cel_shards(sharding, /)\n--\n\nOf what \"cel\" is among the options of a Writer."},
    {"cel_rule", native_cel_rule, METH_VARARGS,
     "cel_rule(sharding, num_dbs, /)\n--\n\nThe rule of a manifest's `sharding` column, a text of JSON."},
    {"hash_db_id", (PyCFunction)(void (*)(void))native_hash_db_id, METH_FASTCALL,
     "hash_db_id(key, num_dbs, /)\n--\n\nThe shard of a key under HASH sharding."},
    {"encode_key", (PyCFunction)(void (*)(void))native_encode_key, METH_FASTCALL,
     "encode_key(encoding, key, /)\n--\n\nThe stored bytes of a key for a look-up."},
    {"arrow_stream", native_arrow_stream, METH_VARARGS,
     "arrow_stream(next, keys, /)\n--\n\nAn Arrow stream of what next() gives: batches of Scan.next_batch, then None."},
    {"takes_json_of", native_takes_json_of, METH_VARARGS,
     "takes_json_of(records, columns, /)\n--\n\nWhether add_arrow() of such records makes JSON objects of these columns (True: of all). No row is read."},
    {"shuffled_rows", native_shuffled_rows, METH_O,
     "shuffled_rows(block, /)\n--\n\n(rows that were left out, [(shard, key as given, stored key, value)]) of a block of a Shuffle."},
    {"split_url", native_split_url, METH_O, "split_url(url)\n--\n\n(root of the bucket, key below it)"},
    {"shard_content", (PyCFunction)(void (*)(void))native_shard_content, METH_VARARGS | METH_KEYWORDS,
     "shard_content(url, s3=None, folder=None)\n--\n\nReads a shard of either backend: (rows, content hash)."},
    {"run_record_folder", native_run_record_folder, METH_VARARGS,
     "run_record_folder(started_at_us, run_id, /)\n--\n\nThe name of a new run record's folder, which tells of this process."},
    {"check_run", native_check_run, METH_VARARGS,
     "check_run(prefix, s3, run_registry_prefix, run_id, /)\n--\n\nRaises while another writer's lease on the run lasts."},
    {"next_attempts", native_next_attempts, METH_VARARGS,
     "next_attempts(prefix, s3, shard_prefix, run_id, /)\n--\n\nThe next attempt's number of each path that has some."},
    {"format_run_record", native_format_run_record, METH_O,
     "format_run_record(fields)\n--\n\nThe YAML of a run record; times are microseconds since 1970."},
    {"run_record_is_refused", native_run_record_is_refused, METH_O,
     "run_record_is_refused(status)\n--\n\nWhether a store that failed so to take a run's first record would fail its shards, too."},
    {"parse_run_record", native_parse_run_record, METH_O, "parse_run_record(payload)\n--\n\nThe fields of a run record."},
    {"own_custom", native_own_custom, METH_VARARGS,
     "own_custom(sqlite, shards, /)\n--\n\nOur members of a manifest's custom object, as JSON."},
    {"choose_winners", native_choose_winners, METH_VARARGS,
     "choose_winners(attempts, num_dbs, /)\n--\n\nWhich attempts count, by ascending db_id."},
    {"check_empty_shards", native_check_empty_shards, METH_VARARGS,
     "check_empty_shards(db_ids, num_dbs, most, /)\n--\n\nRaises when too many shards are empty."},
    {"check_rows_share", native_check_rows_share, METH_VARARGS,
     "check_rows_share(rows, previous_rows, least, most, /)\n--\n\nRaises for too few or too many rows."},
    {"format_manifest", native_format_manifest, METH_VARARGS,
     "format_manifest(details, rows, check=True, /)\n--\n\nThe bytes of a manifest's object."},
    {"postgres_statements", native_postgres_statements, METH_VARARGS,
     "postgres_statements(table_name, pointer_table_name, /)\n--\n\nWhat to send to PostgreSQL, by name; %s stands for each parameter."},
    {"postgres_failure", native_postgres_failure, METH_VARARGS,
     "postgres_failure(sqlstate, text, /)\n--\n\n(status, whether another attempt may help, whether the text may tell a password)."},
    {"postgres_manifest", native_postgres_manifest, METH_O,
     "postgres_manifest(row, /)\n--\n\nThe bytes of a manifest's object, of what the statement \"manifest\" has answered."},
    {"postgres_rows", native_postgres_rows, METH_O,
     "postgres_rows(manifest, /)\n--\n\nWhat the statements \"put_build\" and \"put_shards\" take of a manifest's object."},
    {"manifest_folder", native_manifest_folder, METH_VARARGS,
     "manifest_folder(published_at_us, run_id, /)\n--\n\nThe name of a manifest's folder."},
    {"manifest_refs", native_manifest_refs, METH_VARARGS,
     "manifest_refs(folders, prefix, name, limit, /)\n--\n\nThe manifests among listed folders, newest first."},
    {"run_id_of_ref", native_run_id_of_ref, METH_O,
     "run_id_of_ref(ref, /)\n--\n\nThe run that a manifest's URL names, or None."},
    {"parse_current", native_parse_current, METH_O, "parse_current(payload, /)\n--\n\nWhat a pointer object says."},
    {"format_current", native_format_current, METH_VARARGS,
     "format_current(ref, content_type, run_id, updated_at_us, /)\n--\n\nThe bytes of a pointer object."},
    {"let_go_of_providers", native_let_go_of_providers, METH_NOARGS,
     "let_go_of_providers()\n--\n\nNo provider is asked any more: the interpreter ends."},
    {"timeout_seconds", native_timeout_seconds, METH_O,
     "timeout_seconds(timeout, /)\n--\n\nSeconds, not below 0; None: without end. TypeError and ValueError for what is no time."},
    {"settle", native_settle, METH_NOARGS,
     "settle()\n--\n\nEnds when the engine has let go of all operations that had ended before."},
    {"running_loop", native_running_loop, METH_NOARGS,
     "running_loop()\n--\n\nThe running event loop of asyncio. RuntimeError when there is none."},
    {"turn_is_over", native_turn_is_over, METH_NOARGS,
     "turn_is_over()\n--\n\nWhether a coroutine that never waited for long must give way to its event loop now."},
    {"loop_has_run", native_loop_has_run, METH_NOARGS, "loop_has_run()\n--\n\nFor event loops: a turn begins."},
    {"runtime_stats", runtime_stats, METH_NOARGS, "runtime_stats()\n--\n\nCounters of the process's engine."},
    {NULL, NULL, 0, NULL},
};

static bool add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out && PyModule_AddType(module, *out) == 0;
}

static int module_exec(PyObject *module)
{
    static const char *const payload_names[] = {
        [PAYLOAD_DURATION_MS] = "duration_ms", [PAYLOAD_DURATION_S] = "duration_s", [PAYLOAD_FOUND] = "found",
        [PAYLOAD_NUM_KEYS] = "num_keys",       [PAYLOAD_DB_ID] = "db_id",           [PAYLOAD_CACHE] = "cache",
        [PAYLOAD_FOUND_COUNT] = "found_count"};
    native_state *st = PyModule_GetState(module);
    PyObject *asyncio = NULL, *weakref = NULL;
    int rc = -1;

    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "shardyfusion cannot be used in a sub-interpreter: its engine serves a process");
        return -1;
    }
    st->rt_generation = sf__fork_generation();
    op_free_list_open(st);
    if (!add_type(module, &operation_spec, &st->operation_type) ||
        !add_type(module, &snapshot_spec, &st->snapshot_type) || !add_type(module, &scan_spec, &st->scan_type) ||
        !add_type(module, &reader_spec, &st->reader_type) || !add_type(module, &core_spec, &st->core_type) ||
        !add_type(module, &blocking_core_spec, &st->blocking_core_type) ||
        !add_type(module, &port_spec, &st->port_type) || !add_type(module, &store_spec, &st->store_type) ||
        !add_type(module, &writer_spec, &st->writer_type) || !add_type(module, &shuffle_spec, &st->shuffle_type) ||
        !add_type(module, &shard_writer_spec, &st->shard_writer_type) ||
        !add_type(module, &store_events_spec, &st->store_events_type) ||
        !add_type(module, &credential_source_spec, &st->credential_source_type) ||
        !add_type(module, &token_bucket_spec, &st->token_bucket_type) ||
        !add_type(module, &manifest_spec, &st->manifest_type) || !add_type(module, &look_ups_spec, &st->look_ups_type) ||
        !add_type(module, &question_spec, &st->question_type) || !add_type(module, &cel_rule_spec, &st->cel_rule_type) ||
        !add_type(module, &cel_shards_spec, &st->cel_shards_type) ||
        !add_type(module, &shard_opener_spec, &st->shard_opener_type) ||
        !add_type(module, &row_diff_spec, &st->row_diff_type) || !add_type(module, &lease_spec, &st->lease_type) ||
        mark_coroutine_methods(module, st->core_type, core_coroutines) < 0)
        return -1;
    asyncio = PyImport_ImportModule("asyncio.events");
    weakref = PyImport_ImportModule("weakref");
    if (asyncio)
        st->get_running_loop = PyObject_GetAttrString(asyncio, "get_running_loop");
    if (weakref)
        st->ports = PyObject_CallMethod(weakref, "WeakKeyDictionary", NULL);
    st->loop_has_run = PyObject_GetAttrString(module, "loop_has_run");
    st->time = PyImport_ImportModule("time");
    st->monotonic = PyUnicode_InternFromString("monotonic");
    st->name_emit = PyUnicode_InternFromString("emit");
    st->text_hit = PyUnicode_InternFromString("hit");
    st->text_miss = PyUnicode_InternFromString("miss");
    for (size_t i = 0; i < PAYLOAD_NAMES; i++)
        if (!(st->payload_names[i] = PyUnicode_InternFromString(payload_names[i])))
            goto done;
    if (st->get_running_loop && st->ports && st->loop_has_run && st->time && st->monotonic && st->name_emit &&
        st->text_hit && st->text_miss &&
        PyModule_AddStringConstant(module, "NO_CONTEXT_WITH_HASH", SF_NO_CONTEXT_WITH_HASH) == 0 &&
        PyModule_AddIntConstant(module, "SCAN_PREFETCH_BYTES",
                                (long)((sf_scan_options)SF_SCAN_OPTIONS_INIT).prefetch_bytes) == 0)
        rc = PyModule_AddStringConstant(module, "VERSION", SF_VERSION_STRING);
done:
    Py_XDECREF(asyncio);
    Py_XDECREF(weakref);
    return rc;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    native_state *st = PyModule_GetState(module);

    Py_VISIT(st->operation_type);
    Py_VISIT(st->snapshot_type);
    Py_VISIT(st->scan_type);
    Py_VISIT(st->reader_type);
    Py_VISIT(st->core_type);
    Py_VISIT(st->blocking_core_type);
    Py_VISIT(st->port_type);
    Py_VISIT(st->store_type);
    Py_VISIT(st->writer_type);
    Py_VISIT(st->shuffle_type);
    Py_VISIT(st->shard_writer_type);
    Py_VISIT(st->store_events_type);
    Py_VISIT(st->credential_source_type);
    Py_VISIT(st->token_bucket_type);
    Py_VISIT(st->manifest_type);
    Py_VISIT(st->look_ups_type);
    Py_VISIT(st->question_type);
    Py_VISIT(st->cel_rule_type);
    Py_VISIT(st->shard_opener_type);
    Py_VISIT(st->cel_shards_type);
    Py_VISIT(st->row_diff_type);
    Py_VISIT(st->lease_type);
    Py_VISIT(st->error_hook);
    Py_VISIT(st->key_error_hook);
    Py_VISIT(st->multi_error_hook);
    Py_VISIT(st->get_running_loop);
    Py_VISIT(st->loop_has_run);
    Py_VISIT(st->time);
    Py_VISIT(st->monotonic);
    Py_VISIT(st->ports);
    Py_VISIT(st->spare_stop);
    return op_free_list_traverse(st, visit, arg);
}

static int module_clear(PyObject *module)
{
    native_state *st = PyModule_GetState(module);

    op_free_list_clear(st);
    Py_CLEAR(st->operation_type);
    Py_CLEAR(st->snapshot_type);
    Py_CLEAR(st->scan_type);
    Py_CLEAR(st->reader_type);
    Py_CLEAR(st->core_type);
    Py_CLEAR(st->blocking_core_type);
    Py_CLEAR(st->port_type);
    Py_CLEAR(st->store_type);
    Py_CLEAR(st->writer_type);
    Py_CLEAR(st->shuffle_type);
    Py_CLEAR(st->shard_writer_type);
    Py_CLEAR(st->store_events_type);
    Py_CLEAR(st->credential_source_type);
    Py_CLEAR(st->token_bucket_type);
    Py_CLEAR(st->manifest_type);
    Py_CLEAR(st->look_ups_type);
    Py_CLEAR(st->question_type);
    Py_CLEAR(st->cel_rule_type);
    Py_CLEAR(st->shard_opener_type);
    Py_CLEAR(st->cel_shards_type);
    Py_CLEAR(st->row_diff_type);
    Py_CLEAR(st->lease_type);
    Py_CLEAR(st->error_hook);
    Py_CLEAR(st->key_error_hook);
    Py_CLEAR(st->multi_error_hook);
    Py_CLEAR(st->get_running_loop);
    Py_CLEAR(st->loop_has_run);
    Py_CLEAR(st->time);
    Py_CLEAR(st->monotonic);
    Py_CLEAR(st->name_emit);
    Py_CLEAR(st->text_hit);
    Py_CLEAR(st->text_miss);
    for (size_t i = 0; i < PAYLOAD_NAMES; i++)
        Py_CLEAR(st->payload_names[i]);
    Py_CLEAR(st->ports);
    Py_CLEAR(st->spare_stop);
    return 0;
}

static void module_free(void *module)
{
    native_state *st = PyModule_GetState(module);

    if (!st)
        return;
    module_clear(module);
    if (native_owns_engine(st))
        sf_runtime_release(st->rt);
    st->rt = NULL;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef native_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "shardyfusion._native",
    .m_doc = "The engine of shardyfusion.",
    .m_size = sizeof(native_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void); /* no header declares it */

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
