"""The groups of settings that configurations are made of."""

from __future__ import annotations

import math
import os
import re
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

import shardyfusion
from shardyfusion._kinds import CALLABLE, COLLECTOR, PATH, PROVIDER, PUBLISHING_STORE, RUN_REGISTRY, TEXT, YES_OR_NO
from shardyfusion.config._checks import above, at_least, require, require_kind
from shardyfusion.errors import ConfigValidationError
from shardyfusion.sharding_types import KeyEncoding, RoutingValue, check_cel, is_positive_integer
from shardyfusion.type_defs import JsonObject, RetryConfig, S3Config, S3ConnectionOptions


class _Any(Enum):
    ANY = "ANY"

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any.ANY
"""Of `expected_current`: the pointer may name whatever it does, the last writer wins."""

ExpectedCurrent: TypeAlias = str | None | Literal[_Any.ANY]


@dataclass(slots=True)
class WriterStorageConfig:
    """Where a snapshot is published.

    s3_prefix: "s3://bucket/prefix", a `file://` or `mem://` URL, or a local path.
    credential_provider, s3_connection_options: how that is reached; None: as the environment says.
    """

    s3_prefix: str | os.PathLike[str] = ""
    credential_provider: shardyfusion.CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None

    def validate(self) -> None:
        from shardyfusion._connection_options import check_connection_options
        from shardyfusion.storage import given_text, location

        check_connection_options(self.s3_connection_options)
        require_kind("storage.credential_provider", self.credential_provider, PROVIDER)
        sound = isinstance(self.s3_prefix, str | os.PathLike)
        if sound:
            require_kind("s3_prefix", given_text(self.s3_prefix), TEXT)
        scheme, separator, rest = given_text(self.s3_prefix).partition("://") if sound else ("", "", "")
        scheme, host = scheme.strip().lower(), rest.partition("/")[0]
        if separator:
            known = bool(host) if scheme in ("s3", "mem") else scheme == "file" and host.lower() in ("", "localhost")
        else:
            known = scheme.startswith(("/", "./", "../", "file:/"))
        require(known, "s3_prefix must be parseable as s3://bucket/prefix")
        key = location(self.s3_prefix).partition("://")[2].partition("/")[2]
        require(bool(key.strip("/")), "s3_prefix must include a non-empty key prefix, e.g. s3://bucket/prefix")


_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


def _check_segment(name: str, value: object) -> None:
    require(isinstance(value, str) and bool(value), f"{name} must be non-empty")
    assert isinstance(value, str)
    require(".." not in value, f"{name} must not contain '..'")
    require("/" not in value, f"{name} must be a single path segment")
    require(_SEGMENT.match(value) is not None, f"{name} contains unsupported characters; allowed: [A-Za-z0-9._-]")


def _default_local_root() -> str:
    return os.path.join(tempfile.gettempdir(), "shardyfusion")


@dataclass(slots=True)
class WriterOutputConfig:
    """What the objects of a run are called, and where rows wait on local disk.

    run_id: names the run; None: a random one. A scheduler's next try under the same id continues with the next attempt number.
    db_path_template: the folder of a shard, for `format(db_id=...)`.
    shard_prefix, run_registry_prefix: the folders below `s3_prefix` for shards and run records, one segment each.
    local_root: a local folder for rows that memory does not hold and for shards that are being built.
    """

    run_id: str | None = None
    db_path_template: str = "db={db_id:05d}"
    shard_prefix: str = "shards"
    run_registry_prefix: str = "runs"
    local_root: str = field(default_factory=_default_local_root)

    def validate(self) -> None:
        _check_segment("output.shard_prefix", self.shard_prefix)
        _check_segment("output.run_registry_prefix", self.run_registry_prefix)
        require_kind("output.local_root", self.local_root, PATH, optional=False)
        try:
            paths = {self.db_path_template.format(db_id=db_id) for db_id in (0, 1)}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            paths = set()
        require(
            len(paths) == 2 and all(path.strip("/") for path in paths),
            "output.db_path_template must support format(db_id=...)",
        )
        if self.run_id is not None:
            _check_run_id(self.run_id)


def _check_run_id(run_id: object) -> None:
    """A run id is a segment of object names: with others, what is published could not be listed or cleaned up."""
    sound = (
        isinstance(run_id, str)
        and run_id not in ("", ".", "..")
        and "/" not in run_id
        and run_id.isprintable()
        and len(run_id.encode(errors="replace")) <= 255
    )
    require(sound, f"output.run_id must be a single path segment of at most 255 printable bytes, got {run_id!r}")


@dataclass(slots=True)
class WriterManifestConfig:
    """How a snapshot becomes visible.

    store: where manifest and pointer are kept; None: below `s3_prefix`.
    custom_manifest_fields: anything that JSON holds, for the manifest's `custom`.
    credential_provider, s3_connection_options: how manifests are reached, where that is not as the storage group says.
    expected_current: the manifest that the pointer must name for the new one to take its place: a reference, None for
        "nothing was published yet", or `ANY`; PublishConflictError otherwise.
    """

    store: shardyfusion.ManifestStore | None = None
    custom_manifest_fields: JsonObject = field(default_factory=dict)
    credential_provider: shardyfusion.CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    expected_current: ExpectedCurrent = field(default=ANY, kw_only=True)

    def validate(self) -> None:
        from shardyfusion._connection_options import check_connection_options

        check_connection_options(self.s3_connection_options)
        require_kind("manifest.credential_provider", self.credential_provider, PROVIDER)
        require_kind("manifest.store", self.store, PUBLISHING_STORE)
        require(isinstance(self.custom_manifest_fields, dict), "manifest.custom_manifest_fields must be a dict")
        require(
            self.expected_current is ANY or self.expected_current is None or isinstance(self.expected_current, str),
            "manifest.expected_current must be a manifest reference, None or ANY",
        )


@dataclass(slots=True)
class KeyValueWriteConfig:
    """How rows are stored.

    key_encoding: what keys are and how they are stored: "u64be", "u32be", "utf8" or "raw".
    batch_size: rows that an adapter of the caller's gets at once; the built-in ones choose their own.
    adapter_factory: what makes a shard's database; None: SlateDB. `SqliteFactory()`: SQLite.
    profile_value_sizes_for_page_size: batch engines take SQLite's page size from a sample of the values.
    """

    key_encoding: KeyEncoding = KeyEncoding.U64BE
    batch_size: int = 50_000
    adapter_factory: shardyfusion.DbAdapterFactory | None = None
    profile_value_sizes_for_page_size: bool = False

    def validate(self) -> None:
        try:
            self.key_encoding = KeyEncoding.from_value(self.key_encoding)
        except (TypeError, ValueError) as error:
            raise ConfigValidationError(str(error)) from None
        require(is_positive_integer(self.batch_size), "kv.batch_size must be > 0")
        require_kind("kv.adapter_factory", self.adapter_factory, CALLABLE)
        require_kind("kv.profile_value_sizes_for_page_size", self.profile_value_sizes_for_page_size, YES_OR_NO, optional=False)
        page_size = getattr(self.adapter_factory, "page_size", None)  # of an SQLite factory
        require(
            not self.profile_value_sizes_for_page_size or page_size in (None, 4096),
            f"kv.profile_value_sizes_for_page_size=True conflicts with page_size={page_size!r} of kv.adapter_factory: "
            "leave one of the two at its default",
        )


@dataclass(slots=True)
class WriterRetryConfig:
    """What is done when a shard cannot be written.

    shard_retry: how often it is written again, under the next attempt number; None: the write fails.
    """

    shard_retry: RetryConfig | None = None

    def validate(self) -> None:
        retry = self.shard_retry
        if retry is None:
            return
        require(isinstance(retry, RetryConfig), "retry.shard_retry must be RetryConfig")
        require(
            isinstance(retry.max_retries, int) and retry.max_retries >= 0,
            "retry.shard_retry.max_retries must be an integer >= 0",
        )
        require(
            isinstance(retry.initial_backoff, timedelta) and retry.initial_backoff >= timedelta(0),
            "retry.shard_retry.initial_backoff must be a timedelta >= 0",
        )
        require(
            at_least(retry.backoff_multiplier, 0) and math.isfinite(retry.backoff_multiplier),
            "retry.shard_retry.backoff_multiplier must be a number >= 0",
        )


@dataclass(slots=True)
class KvWriteRateLimitConfig:
    """Bounds on what is written a second.

    max_writes_per_second: rows. max_write_bytes_per_second: bytes of keys and values. None: no bound.
    """

    max_writes_per_second: float | None = None
    max_write_bytes_per_second: float | None = None

    def validate(self) -> None:
        for name in ("max_writes_per_second", "max_write_bytes_per_second"):
            rate = getattr(self, name)
            require(rate is None or above(rate, 0), f"rate_limits.{name} must be > 0 when set")


@dataclass(slots=True)
class WriterObservabilityConfig:
    """Who is told what happens.

    metrics_collector: gets an event for each step of a write; None: nobody.
    """

    metrics_collector: shardyfusion.MetricsCollector | None = None

    def validate(self) -> None:
        require_kind("observability.metrics_collector", self.metrics_collector, COLLECTOR)


@dataclass(slots=True)
class WriterLifecycleConfig:
    """Where the run's own record is kept, by which others see that it lives, and clean-up what it left.

    run_registry: None: below `s3_prefix`.
    """

    run_registry: shardyfusion.RunRegistry | None = None

    def validate(self) -> None:
        require_kind("lifecycle.run_registry", self.run_registry, RUN_REGISTRY)


@dataclass(slots=True)
class HashShardingConfig:
    """Sharding by the hash of the key. Exactly one of both is given.

    num_dbs: the number of shards.
    max_keys_per_shard: about how many keys a shard should hold at most; their number follows from the rows.
    """

    num_dbs: int | None = None
    max_keys_per_shard: int | None = None

    def validate(self) -> None:
        if self.max_keys_per_shard is None:
            require(is_positive_integer(self.num_dbs), "sharding.num_dbs must be > 0")
        else:
            require(
                self.num_dbs is None, "sharding.num_dbs must be None when sharding.max_keys_per_shard is set"
            )
            require(is_positive_integer(self.max_keys_per_shard), "sharding.max_keys_per_shard must be > 0")


@dataclass(slots=True)
class CelShardingConfig:
    """Sharding by a CEL expression.

    cel_expr: the expression; it gives a shard's number, or a value that stands for a shard.
    cel_columns: the columns that it uses: name to type ("string", "int", "uint", "double", "bool", "bytes").
    routing_values: the values that stand for shards, in the shards' order; None: the expression gives numbers.
    infer_routing_values_from_data: the values that are found in the rows stand for shards. The rows are read twice.
    """

    cel_expr: str = ""
    cel_columns: dict[str, str] = field(default_factory=dict)
    routing_values: list[RoutingValue] | None = None
    infer_routing_values_from_data: bool = False

    def validate(self) -> None:
        check_cel(self)
