"""Values of the wrong kind: each option of each reader and writer refuses them by its name."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures import case
from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    KeyValueWriteConfig,
    PythonWriteOptions,
    ShardedReader,
    WriterLifecycleConfig,
    WriterManifestConfig,
    WriterObservabilityConfig,
    WriterOutputConfig,
    WriterStorageConfig,
)
from shardyfusion.config import BufferingOptions, PublishChecks, SharedMemoryOptions, WriterRetryConfig
from shardyfusion.errors import ConfigValidationError
from shardyfusion.reader._options import ConcurrentReaderOptions, OpenOptions, SyncReaderOptions

CASE = case("slatedb-hash-u64be")
SURROGATE = "a\udc80"

# by the name of the option: values that are none of it
READERS: dict[str, list[Any]] = {
    "s3_prefix": [5, b"s3://b/p", SURROGATE],
    "local_root": [5, None, b"x", SURROGATE],
    "manifest_store": [5, "postgresql://x"],
    "current_pointer_key": [5, None, SURROGATE],
    "reader_factory": [5, "slatedb"],
    "slate_env_file": [5, b"x", SURROGATE],
    "credential_provider": [5, "key"],
    "s3_connection_options": [5, "eu-west-1"],
    "max_fallback_attempts": [1.5, "3", None, True],
    "metrics_collector": [5, "prometheus"],
    "rate_limiter": [5, 1000.0],
    "relocate": [1, "no", None],
    "confine": [1, "no"],
    "strict_keys": [1, "no", None],
    "snapshot": [5, b"run", SURROGATE],
    "refresh_interval": ["5s", float("nan"), []],
    "refresh_jitter": ["0.1", None, float("nan")],
    "on_refresh": [5, "log"],
    "cache": [5, {"disk_bytes": 1}],
    "residency": [5, None, "all", b"disk"],
    "max_concurrency": [1.5, "3", True],
    "open_concurrency": [1.5, "3", None],
    "lazy_open": [1, "no", None],
    "timeout": ["5s", float("nan"), []],
    "max_workers": [1.5, "3", True],
    "open_timeout": ["5s", float("nan"), []],
    "thread_safety": ["none", 5, None],
    "pool_checkout_timeout": ["5s", float("nan"), []],
}
KINDS = {AsyncShardedReader.open: OpenOptions, ShardedReader: SyncReaderOptions, ConcurrentShardedReader: ConcurrentReaderOptions}


def test_every_option_of_the_readers_is_in_the_table() -> None:
    assert {field.name for options in KINDS.values() for field in fields(options)} == set(READERS)


@pytest.mark.parametrize("name", READERS)
async def test_readers(name: str, tmp_path: Path) -> None:
    for open_reader, options in KINDS.items():
        if name not in {field.name for field in fields(options)}:
            continue
        for wrong in READERS[name]:
            arguments: Any = {"s3_prefix": str(CASE.folder), "local_root": str(tmp_path), name: wrong}
            with pytest.raises((TypeError, ValueError, ConfigValidationError)) as caught:
                opening: Any = open_reader(**arguments)  # type: ignore[operator]
                await opening
            assert re.search(rf"\b{name}\b", str(caught.value)), f"{options.__name__}, {wrong!r}: {caught.value!r}"
            assert "\udc80" not in str(caught.value)


WRITERS: dict[type, dict[str, list[Any]]] = {
    WriterStorageConfig: {
        "s3_prefix": [5, b"s3://b/p", "s3://b/" + SURROGATE],
        "credential_provider": [5, "key"],
        "s3_connection_options": [5, "eu-west-1"],
    },
    WriterOutputConfig: {
        "run_id": [5, "a/b", SURROGATE],
        "db_path_template": [5, None, "db"],
        "shard_prefix": [5, None, SURROGATE],
        "run_registry_prefix": [5, None, SURROGATE],
        "local_root": [5, None, SURROGATE],
    },
    WriterManifestConfig: {
        "store": [5, "postgresql://x"],
        "custom_manifest_fields": [5, None],
        "credential_provider": [5, "key"],
        "s3_connection_options": [5, "eu-west-1"],
        "expected_current": [5, b"x"],
    },
    KeyValueWriteConfig: {
        "key_encoding": [5, "ebcdic", None],
        "batch_size": [0, 1.5, "3", None],
        "adapter_factory": [5, "slatedb"],
        "profile_value_sizes_for_page_size": [1, None],
    },
    WriterRetryConfig: {"shard_retry": [5, {}]},
    WriterObservabilityConfig: {"metrics_collector": [5, "prometheus"]},
    WriterLifecycleConfig: {"run_registry": [5, "runs"]},
    SharedMemoryOptions: {"max_total_bytes": [0, "3"], "max_bytes_per_worker": [0, "3"]},
    BufferingOptions: {"max_total_batched_items": [0, "3"], "max_total_batched_bytes": [0, "3"]},
    PublishChecks: {
        "min_rows_share": [0, "3", float("nan")],
        "max_rows_share": [0, "3", float("nan")],
        "max_empty_shards": [-1, "3"],
        "sample_keys": [-1, "3", None],
        "check": [5],
    },
    PythonWriteOptions: {
        "parallel": [1, "no", None],
        "max_queue_size": [0, "3", None],
        "shared_memory": [5, None],
        "buffering": [5, None],
        "progress": [5, True],
        "progress_interval": [0, "1", float("nan"), None],
        "cancel": [5, True],
        "workers": [0, "3"],
        "memory_bytes": [0, "3"],
        "on_duplicate": ["first", None, 5],
        "on_bad_row": ["drop", None, 5],
        "verify": [1, "no", None],
        "dry_run": [1, "no", None],
        "checks": [5, None],
        "resume": [1, "no", None],
        "reuse_unchanged": [1, "no", None],
    },
}


@pytest.mark.parametrize("group", WRITERS, ids=lambda group: group.__name__)
def test_writers(group: type) -> None:
    assert is_dataclass(group) and {field.name for field in fields(group)} == set(WRITERS[group])
    for name, values in WRITERS[group].items():
        for wrong in values:
            given = group(**{**({"s3_prefix": "s3://b/p"} if group is WriterStorageConfig else {}), name: wrong})
            with pytest.raises(ConfigValidationError) as caught:
                given.validate()  # type: ignore[attr-defined]
            named = "encoding" if name == "key_encoding" else name
            assert named in str(caught.value), f"{name}={wrong!r}: {caught.value!r}"
            assert "\udc80" not in str(caught.value)


def test_configurations_check_their_groups() -> None:
    for name, wrong in (("metrics_collector", 5), ("run_registry", 5), ("credential_provider", 5), ("s3_prefix", SURROGATE)):
        with pytest.raises(ConfigValidationError, match=name):
            HashShardedWriteConfig(**{"num_dbs": 1, "s3_prefix": "s3://b/p", name: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [5, "region=eu", ["region"]])
async def test_routing_contexts(wrong: Any, tmp_path: Path) -> None:
    options = {"s3_prefix": str(case("slatedb-cel-direct").folder), "local_root": str(tmp_path)}
    text = f"^routing_context must be a mapping of columns to values, not {type(wrong).__name__}$"
    with ShardedReader(**options) as reader:
        for call in (reader.get, reader.route_key):
            with pytest.raises(TypeError, match=text):
                call(1, routing_context=wrong)
        with pytest.raises(TypeError, match=text):
            reader.multi_get([1], routing_context=wrong)
    async with AsyncShardedReader.open(**options) as reader:
        with pytest.raises(TypeError, match=text):
            await reader.get(1, routing_context=wrong)
        with pytest.raises(TypeError, match=text):
            await reader.multi_get([1], routing_context=wrong)
