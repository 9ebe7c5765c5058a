"""Configuration of writers: what is accepted, and the texts of what is not."""

from __future__ import annotations

import copy
import inspect
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    BufferingOptions,
    CelShardedWriteConfig,
    CelShardingConfig,
    ConfigValidationError,
    HashShardedWriteConfig,
    HashShardingConfig,
    KeyEncoding,
    KeyValueWriteConfig,
    KvWriteRateLimitConfig,
    PythonRecordInput,
    PythonWriteOptions,
    RetryConfig,
    SharedMemoryOptions,
    SingleDbWriteConfig,
    WriterManifestConfig,
    WriterOutputConfig,
    WriterRetryConfig,
    WriterStorageConfig,
)
from shardyfusion.config import (
    ANY,
    ArrowRecordInput,
    BaseShardedWriteConfig,
    PublishChecks,
    validate_configs,
    validate_shard_id_col_no_collision,
)
from shardyfusion.config._writes import BaseKeywords

GOOD: dict[str, Any] = {"num_dbs": 4, "s3_prefix": "s3://bucket/prefix"}
UNSUPPORTED = "Unsupported key encoding: 'u16'. Allowed: u64be, u32be, utf8, raw"

BAD_HASH: dict[str, tuple[dict[str, Any], str]] = {
    "no shards": ({"num_dbs": 0}, "sharding.num_dbs must be > 0"),
    "neither": ({"num_dbs": None}, "sharding.num_dbs must be > 0"),
    "fractions of shards": ({"num_dbs": 2.5}, "sharding.num_dbs must be > 0"),
    "both": ({"max_keys_per_shard": 5}, "sharding.num_dbs must be None when sharding.max_keys_per_shard is set"),
    "no keys": ({"num_dbs": None, "max_keys_per_shard": 0}, "sharding.max_keys_per_shard must be > 0"),
    "batch": ({"batch_size": 0}, "kv.batch_size must be > 0"),
    "no prefix": ({"s3_prefix": None}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "relative path": ({"s3_prefix": "tmp/x"}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "root": ({"s3_prefix": "/"}, "s3_prefix must include a non-empty key prefix, e.g. s3://bucket/prefix"),
    "number": ({"s3_prefix": 5}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "line": ({"s3_prefix": "s3://bucket/x\n"}, '"s3://bucket/x\\x0a...": a URL cannot have control characters'),
    "tab": ({"s3_prefix": "s3://bucket/x\ty"}, '"s3://bucket/x\\x09...": a URL cannot have control characters'),
    "blank behind": ({"s3_prefix": "s3://bucket/x "}, '"s3://bucket/x ": a blank stands behind the URL'),
    "blank before": ({"s3_prefix": " s3://bucket/x"}, '" s3://bucket/x": a blank stands before the URL'),
    "blank that does not break": (
        {"s3_prefix": "s3://bucket/x\u00a0"}, '"s3://bucket/x\u00a0": a blank stands behind the URL'),
    "path of a URL": (
        {"s3_prefix": Path("s3://bucket/x")},
        "s3_prefix must be the text of the URL: a Path cannot hold 's3:/bucket/x'"),
    "options that are none": (
        {"s3_connection_options": {"endpoint": "http://x"}},
        "s3_connection_options has no 'endpoint'; did you mean 'endpoint_url'?"),
    "scheme": ({"s3_prefix": "gs://bucket/x"}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "no bucket": ({"s3_prefix": "s3:///x"}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "no key": ({"s3_prefix": "s3://bucket/"}, "s3_prefix must include a non-empty key prefix, e.g. s3://bucket/prefix"),
    "file with a host": ({"s3_prefix": "file://host/x"}, "s3_prefix must be parseable as s3://bucket/prefix"),
    "encoding": ({"key_encoding": "u16"}, UNSUPPORTED),
    "rows a second": ({"max_writes_per_second": 0}, "rate_limits.max_writes_per_second must be > 0 when set"),
    "bytes a second": (
        {"max_write_bytes_per_second": -1.0},
        "rate_limits.max_write_bytes_per_second must be > 0 when set",
    ),
    "shard column": ({"shard_id_col": ""}, "shard_id_col must be a non-empty string"),
    "shard prefix empty": ({"output": WriterOutputConfig(shard_prefix="")}, "output.shard_prefix must be non-empty"),
    "shard prefix up": (
        {"output": WriterOutputConfig(shard_prefix="a..b")},
        "output.shard_prefix must not contain '..'",
    ),
    "shard prefix path": (
        {"output": WriterOutputConfig(shard_prefix="a/b")},
        "output.shard_prefix must be a single path segment",
    ),
    "runs blank": (
        {"output": WriterOutputConfig(run_registry_prefix="a b")},
        "output.run_registry_prefix contains unsupported characters; allowed: [A-Za-z0-9._-]",
    ),
    "runs newline": (
        {"output": WriterOutputConfig(run_registry_prefix="a\n")},
        "output.run_registry_prefix contains unsupported characters; allowed: [A-Za-z0-9._-]",
    ),
    "template": (
        {"output": WriterOutputConfig(db_path_template="db={shard}")},
        "output.db_path_template must support format(db_id=...)",
    ),
    "template without the number": (
        {"output": WriterOutputConfig(db_path_template="db")},
        "output.db_path_template must support format(db_id=...)",
    ),
    "template of a wrong type": (
        {"output": WriterOutputConfig(db_path_template=None)},  # type: ignore[arg-type]
        "output.db_path_template must support format(db_id=...)",
    ),
    "custom": (
        {"manifest": WriterManifestConfig(custom_manifest_fields=[])},  # type: ignore[arg-type]
        "manifest.custom_manifest_fields must be a dict",
    ),
    "group of another class": ({"kv": WriterStorageConfig()}, "kv must be KeyValueWriteConfig"),
    "sharding of another class": (
        {"num_dbs": None, "sharding": CelShardingConfig()},
        "sharding must be HashShardingConfig",
    ),
    "group and flat name": (
        {"storage": WriterStorageConfig("s3://b/p")},
        "storage cannot be combined with s3_prefix",
    ),
    "group and flat names": (
        {"kv": KeyValueWriteConfig(), "batch_size": 5, "key_encoding": KeyEncoding.RAW},
        "kv cannot be combined with key_encoding, batch_size",
    ),
    "sharding and flat name": ({"sharding": HashShardingConfig(4)}, "sharding cannot be combined with num_dbs"),
    "retry of another class": ({"shard_retry": 3}, "retry.shard_retry must be RetryConfig"),
    "retries below none": (
        {"shard_retry": RetryConfig(max_retries=-1)},
        "retry.shard_retry.max_retries must be an integer >= 0",
    ),
    "half a retry": (
        {"shard_retry": RetryConfig(max_retries=2.5)},  # type: ignore[arg-type]
        "retry.shard_retry.max_retries must be an integer >= 0",
    ),
    "seconds as a back-off": (
        {"shard_retry": RetryConfig(initial_backoff=5)},  # type: ignore[arg-type]
        "retry.shard_retry.initial_backoff must be a timedelta >= 0",
    ),
    "a back-off into the past": (
        {"shard_retry": RetryConfig(initial_backoff=timedelta(seconds=-1))},
        "retry.shard_retry.initial_backoff must be a timedelta >= 0",
    ),
    **{
        f"multiplier {value}": (
            {"shard_retry": RetryConfig(backoff_multiplier=value)},  # type: ignore[arg-type]
            "retry.shard_retry.backoff_multiplier must be a number >= 0",
        )
        for value in (-1, float("nan"), float("inf"), None, "2")
    },
    "a rate as text": ({"max_writes_per_second": "5"}, "rate_limits.max_writes_per_second must be > 0 when set"),
    "a rate of nothing": (
        {"max_write_bytes_per_second": float("nan")},
        "rate_limits.max_write_bytes_per_second must be > 0 when set",
    ),
}
BAD_RUN_IDS = ("", ".", "..", "a/b", "a\nb", "x" * 256)

BAD_CEL: dict[str, tuple[dict[str, Any], str]] = {
    "no expression": ({"cel_expr": ""}, "CEL strategy requires cel_expr"),
    "no columns": ({"cel_columns": {}}, "CEL strategy requires cel_columns"),
    "given and inferred": (
        {"routing_values": ["a"], "infer_routing_values_from_data": True},
        "infer_routing_values_from_data cannot be combined with routing_values",
    ),
}


@pytest.mark.parametrize("case", BAD_HASH)
def test_bad_hash_configuration(case: str) -> None:
    change, text = BAD_HASH[case]
    with pytest.raises(ConfigValidationError) as caught:
        HashShardedWriteConfig(**{**GOOD, **change})
    assert str(caught.value) == text


@pytest.mark.parametrize("run_id", BAD_RUN_IDS, ids=repr)
def test_bad_run_id(run_id: str) -> None:
    with pytest.raises(ConfigValidationError, match=r"output\.run_id must be a single path segment"):
        HashShardedWriteConfig(**GOOD, output=WriterOutputConfig(run_id=run_id))


@pytest.mark.parametrize("case", BAD_CEL)
def test_bad_cel_configuration(case: str) -> None:
    change, text = BAD_CEL[case]
    good = {"cel_expr": "key % 4", "cel_columns": {"key": "int"}, "s3_prefix": "s3://b/p"}
    CelShardedWriteConfig(**good)
    with pytest.raises(ConfigValidationError) as caught:
        CelShardedWriteConfig(**{**good, **change})
    assert str(caught.value) == text


@pytest.mark.parametrize("prefix", [
    "s3://bucket/a", "s3://bucket/a/b/", "S3://bucket/a", "s3://tenant:bucket/a", "file:///tmp/x", "mem://space/x", "/tmp/x", "./x",
    Path("x"), Path("/tmp/a b"), "file://localhost/tmp/x", "FILE:///tmp/x"])
def test_prefixes(prefix: str) -> None:
    assert HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix).s3_prefix == prefix


def test_groups_and_flat_names_are_the_same() -> None:
    retry = RetryConfig(max_retries=7)
    flat = HashShardedWriteConfig(
        **GOOD, key_encoding="utf8", batch_size=7, shard_retry=retry, max_writes_per_second=5.0
    )
    grouped = HashShardedWriteConfig(
        sharding=HashShardingConfig(num_dbs=4),
        storage=WriterStorageConfig("s3://bucket/prefix"),
        kv=KeyValueWriteConfig(key_encoding=KeyEncoding.UTF8, batch_size=7),
        retry=WriterRetryConfig(retry),
        rate_limits=KvWriteRateLimitConfig(max_writes_per_second=5.0),
    )
    assert flat == grouped
    assert flat.key_encoding is KeyEncoding.UTF8
    assert (flat.num_dbs, flat.max_keys_per_shard, flat.batch_size, flat.shard_retry) == (4, None, 7, retry)
    assert (flat.max_writes_per_second, flat.metrics_collector, flat.vector_spec) == (5.0, None, None)


def test_flat_names_can_be_set_and_are_validated_again() -> None:
    config = HashShardedWriteConfig(**GOOD)
    config.batch_size = 9
    config.s3_prefix = "s3://other/place"
    assert (config.kv.batch_size, config.storage.s3_prefix) == (9, "s3://other/place")
    config.validate()
    config.key_encoding = "u16"
    with pytest.raises(ConfigValidationError) as caught:
        config.validate()
    assert str(caught.value) == UNSUPPORTED
    with pytest.raises(AttributeError):
        config.num_dbs = 5


def test_defaults_are_not_shared() -> None:
    one, other = HashShardedWriteConfig(**GOOD), HashShardedWriteConfig(**GOOD)
    one.manifest.custom_manifest_fields["team"] = "search"
    assert other.manifest.custom_manifest_fields == {}
    assert one.output.local_root.endswith("shardyfusion")


def test_unknown_keyword() -> None:
    with pytest.raises(TypeError):
        HashShardedWriteConfig(**GOOD, nothing=1)


def test_pickle_and_copy() -> None:
    config = HashShardedWriteConfig(**GOOD, manifest=WriterManifestConfig(expected_current=None))
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert pickle.loads(pickle.dumps(HashShardedWriteConfig(**GOOD))).manifest.expected_current is ANY
    other = copy.copy(config)
    other.manifest = WriterManifestConfig()
    assert config.manifest.expected_current is None


def test_one_shard() -> None:
    assert SingleDbWriteConfig(s3_prefix="s3://b/p").num_dbs == 1


def test_vectors_say_that_they_are_missing() -> None:
    with pytest.raises(ConfigValidationError, match="not available in this version"):
        HashShardedWriteConfig(**GOOD, vector_spec=object())


BAD_OPTIONS: dict[str, tuple[Any, str]] = {
    "queue": (PythonWriteOptions(max_queue_size=0), "options.max_queue_size must be > 0"),
    "memory": (
        PythonWriteOptions(shared_memory=SharedMemoryOptions(max_total_bytes=0)),
        "options.shared_memory.max_total_bytes must be > 0 when set",
    ),
    "items": (
        PythonWriteOptions(buffering=BufferingOptions(max_total_batched_items=0)),
        "options.buffering.max_total_batched_items must be > 0 when set",
    ),
    "progress": (PythonWriteOptions(progress=5), "options.progress must be callable, a bar such as tqdm(), False or None"),  # type: ignore[arg-type]
    "interval": (PythonWriteOptions(progress_interval=0), "options.progress_interval must be > 0"),
    "interval as text": (PythonWriteOptions(progress_interval="1"), "options.progress_interval must be > 0"),  # type: ignore[arg-type]
    "samples as text": (
        PythonWriteOptions(checks=PublishChecks(sample_keys="1")),  # type: ignore[arg-type]
        "options.checks.sample_keys must be between 0 and 100000",
    ),
    "workers": (PythonWriteOptions(workers=0), "options.workers must be > 0 when set"),
    "memory_bytes": (PythonWriteOptions(memory_bytes=5), "options.memory_bytes must be at least 1 MiB when set"),
    "duplicates": (
        PythonWriteOptions(on_duplicate="first"),  # type: ignore[arg-type]
        "options.on_duplicate must be 'last' or 'error'",
    ),
    "share": (
        PythonWriteOptions(checks=PublishChecks(min_rows_share=0.0)),
        "options.checks.min_rows_share must be > 0 when set",
    ),
    "empty shards": (
        PythonWriteOptions(checks=PublishChecks(max_empty_shards=-1)),
        "options.checks.max_empty_shards must be >= 0 when set",
    ),
    "key_fn": (PythonRecordInput(key_fn=None, value_fn=len), "key_fn must be callable"),  # type: ignore[arg-type]
    "value_fn": (PythonRecordInput(key_fn=len, value_fn=b""), "value_fn must be callable"),  # type: ignore[arg-type]
    "arrow without value": (ArrowRecordInput("k"), "exactly one of value_col and value_spec must be given"),
    "arrow without key": (ArrowRecordInput("", "v"), "key_col must be a non-empty string"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str) -> None:
    options, text = BAD_OPTIONS[case]
    with pytest.raises(ConfigValidationError) as caught:
        validate_configs(PythonWriteOptions(), options)
    assert str(caught.value) == text


def test_shard_column_must_not_hide_a_users() -> None:
    config = HashShardedWriteConfig(**GOOD)
    validate_shard_id_col_no_collision(config, {"key", "value"})
    with pytest.raises(ConfigValidationError) as caught:
        validate_shard_id_col_no_collision(config, {"_shard_id"})
    assert str(caught.value) == (
        "shard_id_col '_shard_id' conflicts with user data column. "
        "Choose a different shard_id_col or rename the user column."
    )


def test_type_checkers_know_the_keywords_that_there_are() -> None:
    parameters = list(inspect.signature(BaseShardedWriteConfig).parameters)
    assert list(BaseKeywords.__annotations__) == parameters
