/* What module.c puts into the module: functions and types, each from the file of its noun. */
#ifndef SHARDYFUSION_PYTHON_MODULE_H
#define SHARDYFUSION_PYTHON_MODULE_H

#include "state.h"

PyObject *native_arrow_stream(PyObject *module, PyObject *args);
PyObject *native_canonical_bytes(PyObject *module, PyObject *o);
PyObject *native_cel_rule(PyObject *module, PyObject *args);
PyObject *native_cel_shards(PyObject *module, PyObject *cel);
PyObject *native_check_empty_shards(PyObject *module, PyObject *args);
PyObject *native_check_rows_share(PyObject *module, PyObject *args);
PyObject *native_check_run(PyObject *module, PyObject *args);
PyObject *native_choose_winners(PyObject *module, PyObject *args);
PyObject *native_cleanup(PyObject *module, PyObject *args);
PyObject *native_compare(PyObject *module, PyObject *args);
PyObject *native_decode_location(PyObject *module, PyObject *args);
PyObject *native_encode_key(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *native_format_current(PyObject *module, PyObject *args);
PyObject *native_format_manifest(PyObject *module, PyObject *args);
PyObject *native_format_run_record(PyObject *module, PyObject *fields);
PyObject *native_hash_db_id(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *native_history(PyObject *module, PyObject *args);
PyObject *native_join_location(PyObject *module, PyObject *args);
PyObject *native_let_go_of_providers(PyObject *module, PyObject *unused);
PyObject *native_location(PyObject *module, PyObject *url);
PyObject *native_loop_has_run(PyObject *module, PyObject *unused);
PyObject *native_manifest_folder(PyObject *module, PyObject *args);
PyObject *native_manifest_location(PyObject *module, PyObject *args);
PyObject *native_manifest_refs(PyObject *module, PyObject *args);
PyObject *native_next_attempts(PyObject *module, PyObject *args);
PyObject *native_open_reader(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *native_open_shard(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *native_own_custom(PyObject *module, PyObject *args);
PyObject *native_parse_current(PyObject *module, PyObject *payload);
PyObject *native_parse_run_record(PyObject *module, PyObject *payload);
PyObject *native_plain_key(PyObject *module, PyObject *key);
PyObject *native_postgres_failure(PyObject *module, PyObject *args);
PyObject *native_postgres_manifest(PyObject *module, PyObject *row);
PyObject *native_postgres_rows(PyObject *module, PyObject *manifest);
PyObject *native_postgres_statements(PyObject *module, PyObject *args);
PyObject *native_rollback(PyObject *module, PyObject *args);
PyObject *native_row_diff(PyObject *module, PyObject *args);
PyObject *native_run_id_of_ref(PyObject *module, PyObject *ref);
PyObject *native_run_record_folder(PyObject *module, PyObject *args);
PyObject *native_run_record_is_refused(PyObject *module, PyObject *status);
PyObject *native_running_loop(PyObject *module, PyObject *unused);
PyObject *native_bring_authorities(PyObject *module, PyObject *path);
PyObject *native_has_authorities(PyObject *module, PyObject *unused);
PyObject *native_take_variables(PyObject *module, PyObject *args);
PyObject *native_s3_environment(PyObject *module, PyObject *unused);
PyObject *native_safe_text(PyObject *module, PyObject *text);
PyObject *native_settle(PyObject *module, PyObject *unused);
PyObject *native_shard_content(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *native_shard_location(PyObject *module, PyObject *args);
PyObject *native_takes_json_of(PyObject *module, PyObject *args);
PyObject *native_shuffled_rows(PyObject *module, PyObject *block);
PyObject *native_split_url(PyObject *module, PyObject *url);
PyObject *native_sqlite_sidecar(PyObject *module, PyObject *args);
PyObject *native_timeout_seconds(PyObject *module, PyObject *o);
PyObject *native_turn_is_over(PyObject *module, PyObject *unused);
PyObject *native_verify(PyObject *module, PyObject *args);
PyObject *native_xxh3_64(PyObject *module, PyObject *data);

extern PyType_Spec question_spec, shard_opener_spec, port_spec, look_ups_spec, operation_spec, snapshot_spec, scan_spec,
    reader_spec, core_spec, blocking_core_spec, store_spec, writer_spec, shuffle_spec, shard_writer_spec,
    store_events_spec, credential_source_spec, token_bucket_spec, manifest_spec, cel_rule_spec, cel_shards_spec,
    row_diff_spec, lease_spec;
extern const struct coroutine_method_def core_coroutines[];

#endif
