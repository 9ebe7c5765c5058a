"""Whole configurations: what a writer is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import shardyfusion
from shardyfusion.config._checks import require
from shardyfusion.config._groups import (
    CelShardingConfig,
    HashShardingConfig,
    KeyValueWriteConfig,
    KvWriteRateLimitConfig,
    WriterLifecycleConfig,
    WriterManifestConfig,
    WriterObservabilityConfig,
    WriterOutputConfig,
    WriterRetryConfig,
    WriterStorageConfig,
)
from shardyfusion.errors import ConfigValidationError
from shardyfusion.sharding_types import KeyEncoding, RoutingValue
from shardyfusion.type_defs import RetryConfig, S3Config, S3ConnectionOptions

# group -> (its class, the flat names that stand for its fields)
_GROUPS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "storage": (WriterStorageConfig, ("s3_prefix", "credential_provider", "s3_connection_options")),
    "output": (WriterOutputConfig, ()),
    "manifest": (WriterManifestConfig, ()),
    "kv": (KeyValueWriteConfig, ("key_encoding", "batch_size", "adapter_factory")),
    "retry": (WriterRetryConfig, ("shard_retry",)),
    "rate_limits": (KvWriteRateLimitConfig, ("max_writes_per_second", "max_write_bytes_per_second")),
    "observability": (WriterObservabilityConfig, ("metrics_collector",)),
    "lifecycle": (WriterLifecycleConfig, ("run_registry",)),
}


def _group(name: str, cls: type[Any], given: object, flat: Mapping[str, object]) -> Any:
    """The group as given, or one of its flat names."""
    flat = {key: value for key, value in flat.items() if value is not None}
    if given is None:
        return cls(**flat)
    if flat:
        raise ConfigValidationError(f"{name} cannot be combined with {', '.join(flat)}")
    return given


class BaseKeywords(TypedDict, total=False):
    """Those of `BaseShardedWriteConfig`, for type checkers."""

    storage: WriterStorageConfig | None
    output: WriterOutputConfig | None
    manifest: WriterManifestConfig | None
    kv: KeyValueWriteConfig | None
    retry: WriterRetryConfig | None
    rate_limits: KvWriteRateLimitConfig | None
    observability: WriterObservabilityConfig | None
    lifecycle: WriterLifecycleConfig | None
    vector: Any
    shard_id_col: str
    s3_prefix: str | os.PathLike[str] | None
    key_encoding: KeyEncoding | None
    batch_size: int | None
    adapter_factory: shardyfusion.DbAdapterFactory | None
    metrics_collector: shardyfusion.MetricsCollector | None
    run_registry: shardyfusion.RunRegistry | None
    shard_retry: RetryConfig | None
    credential_provider: shardyfusion.CredentialProvider | None
    s3_connection_options: S3ConnectionOptions | S3Config | None
    vector_spec: Any
    max_writes_per_second: float | None
    max_write_bytes_per_second: float | None


@dataclass(slots=True, init=False)
class BaseShardedWriteConfig:
    """What all writers are told. Every setting may be given in its group or by its flat name, not both."""

    storage: WriterStorageConfig = field(default_factory=WriterStorageConfig)
    output: WriterOutputConfig = field(default_factory=WriterOutputConfig)
    manifest: WriterManifestConfig = field(default_factory=WriterManifestConfig)
    kv: KeyValueWriteConfig = field(default_factory=KeyValueWriteConfig)
    retry: WriterRetryConfig = field(default_factory=WriterRetryConfig)
    rate_limits: KvWriteRateLimitConfig = field(default_factory=KvWriteRateLimitConfig)
    observability: WriterObservabilityConfig = field(default_factory=WriterObservabilityConfig)
    lifecycle: WriterLifecycleConfig = field(default_factory=WriterLifecycleConfig)
    vector: Any = None
    shard_id_col: str = "_shard_id"

    def __init__(
        self,
        *,
        storage: WriterStorageConfig | None = None,
        output: WriterOutputConfig | None = None,
        manifest: WriterManifestConfig | None = None,
        kv: KeyValueWriteConfig | None = None,
        retry: WriterRetryConfig | None = None,
        rate_limits: KvWriteRateLimitConfig | None = None,
        observability: WriterObservabilityConfig | None = None,
        lifecycle: WriterLifecycleConfig | None = None,
        vector: Any = None,
        shard_id_col: str = "_shard_id",
        s3_prefix: str | os.PathLike[str] | None = None,
        key_encoding: KeyEncoding | None = None,
        batch_size: int | None = None,
        adapter_factory: shardyfusion.DbAdapterFactory | None = None,
        metrics_collector: shardyfusion.MetricsCollector | None = None,
        run_registry: shardyfusion.RunRegistry | None = None,
        shard_retry: RetryConfig | None = None,
        credential_provider: shardyfusion.CredentialProvider | None = None,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        vector_spec: Any = None,
        max_writes_per_second: float | None = None,
        max_write_bytes_per_second: float | None = None,
    ) -> None:
        given = locals()
        for name, (cls, flat_names) in _GROUPS.items():
            setattr(self, name, _group(name, cls, given[name], {flat: given[flat] for flat in flat_names}))
        if vector is not None and vector_spec is not None:
            raise ConfigValidationError("vector cannot be combined with vector_spec")
        self.vector = vector if vector is not None else vector_spec
        self.shard_id_col = shard_id_col
        self._check_base()

    def _check_base(self) -> None:
        for name, (cls, _) in _GROUPS.items():
            group = getattr(self, name)
            require(isinstance(group, cls), f"{name} must be {cls.__name__}")
            group.validate()
        require(
            isinstance(self.shard_id_col, str) and bool(self.shard_id_col),
            "shard_id_col must be a non-empty string",
        )
        require(self.vector is None, "vector search is not available in this version: vector must be None")

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()

    @property
    def s3_prefix(self) -> str | os.PathLike[str]:
        """`storage.s3_prefix`"""
        return self.storage.s3_prefix

    @s3_prefix.setter
    def s3_prefix(self, value: str | os.PathLike[str]) -> None:
        self.storage.s3_prefix = value

    @property
    def credential_provider(self) -> shardyfusion.CredentialProvider | None:
        """`storage.credential_provider`"""
        return self.storage.credential_provider

    @credential_provider.setter
    def credential_provider(self, value: shardyfusion.CredentialProvider | None) -> None:
        self.storage.credential_provider = value

    @property
    def s3_connection_options(self) -> S3ConnectionOptions | S3Config | None:
        """`storage.s3_connection_options`"""
        return self.storage.s3_connection_options

    @s3_connection_options.setter
    def s3_connection_options(self, value: S3ConnectionOptions | S3Config | None) -> None:
        self.storage.s3_connection_options = value

    @property
    def key_encoding(self) -> KeyEncoding:
        """`kv.key_encoding`"""
        return self.kv.key_encoding

    @key_encoding.setter
    def key_encoding(self, value: KeyEncoding) -> None:
        self.kv.key_encoding = value

    @property
    def batch_size(self) -> int:
        """`kv.batch_size`"""
        return self.kv.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.kv.batch_size = value

    @property
    def adapter_factory(self) -> shardyfusion.DbAdapterFactory | None:
        """`kv.adapter_factory`"""
        return self.kv.adapter_factory

    @adapter_factory.setter
    def adapter_factory(self, value: shardyfusion.DbAdapterFactory | None) -> None:
        self.kv.adapter_factory = value

    @property
    def shard_retry(self) -> RetryConfig | None:
        """`retry.shard_retry`"""
        return self.retry.shard_retry

    @shard_retry.setter
    def shard_retry(self, value: RetryConfig | None) -> None:
        self.retry.shard_retry = value

    @property
    def max_writes_per_second(self) -> float | None:
        """`rate_limits.max_writes_per_second`"""
        return self.rate_limits.max_writes_per_second

    @property
    def max_write_bytes_per_second(self) -> float | None:
        """`rate_limits.max_write_bytes_per_second`"""
        return self.rate_limits.max_write_bytes_per_second

    @property
    def metrics_collector(self) -> shardyfusion.MetricsCollector | None:
        """`observability.metrics_collector`"""
        return self.observability.metrics_collector

    @metrics_collector.setter
    def metrics_collector(self, value: shardyfusion.MetricsCollector | None) -> None:
        self.observability.metrics_collector = value

    @property
    def run_registry(self) -> shardyfusion.RunRegistry | None:
        """`lifecycle.run_registry`"""
        return self.lifecycle.run_registry

    @run_registry.setter
    def run_registry(self, value: shardyfusion.RunRegistry | None) -> None:
        self.lifecycle.run_registry = value

    @property
    def vector_spec(self) -> Any:
        """`vector`"""
        return self.vector

    @vector_spec.setter
    def vector_spec(self, value: Any) -> None:
        self.vector = value


@dataclass(slots=True, init=False)
class HashShardedWriteConfig(BaseShardedWriteConfig):
    """Shards by the hash of the key."""

    sharding: HashShardingConfig = field(default_factory=HashShardingConfig)

    def __init__(
        self,
        *,
        sharding: HashShardingConfig | None = None,
        num_dbs: int | None = None,
        max_keys_per_shard: int | None = None,
        **base_kwargs: Unpack[BaseKeywords],
    ) -> None:
        flat = {"num_dbs": num_dbs, "max_keys_per_shard": max_keys_per_shard}
        self.sharding = _group("sharding", HashShardingConfig, sharding, flat)
        BaseShardedWriteConfig.__init__(self, **base_kwargs)
        self._check_sharding()

    def _check_sharding(self) -> None:
        require(isinstance(self.sharding, HashShardingConfig), "sharding must be HashShardingConfig")
        self.sharding.validate()

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()
        self._check_sharding()

    @property
    def num_dbs(self) -> int | None:
        """`sharding.num_dbs`"""
        return self.sharding.num_dbs

    @property
    def max_keys_per_shard(self) -> int | None:
        """`sharding.max_keys_per_shard`"""
        return self.sharding.max_keys_per_shard


@dataclass(slots=True, init=False)
class CelShardedWriteConfig(BaseShardedWriteConfig):
    """Shards by a CEL expression."""

    sharding: CelShardingConfig = field(default_factory=CelShardingConfig)

    def __init__(
        self,
        *,
        sharding: CelShardingConfig | None = None,
        cel_expr: str | None = None,
        cel_columns: dict[str, str] | None = None,
        routing_values: list[RoutingValue] | None = None,
        infer_routing_values_from_data: bool | None = None,
        **base_kwargs: Unpack[BaseKeywords],
    ) -> None:
        flat = {
            "cel_expr": cel_expr,
            "cel_columns": cel_columns,
            "routing_values": routing_values,
            "infer_routing_values_from_data": infer_routing_values_from_data,
        }
        self.sharding = _group("sharding", CelShardingConfig, sharding, flat)
        BaseShardedWriteConfig.__init__(self, **base_kwargs)
        self._check_sharding()

    def _check_sharding(self) -> None:
        require(isinstance(self.sharding, CelShardingConfig), "sharding must be CelShardingConfig")
        self.sharding.validate()

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()
        self._check_sharding()

    @property
    def cel_expr(self) -> str:
        """`sharding.cel_expr`"""
        return self.sharding.cel_expr

    @property
    def cel_columns(self) -> dict[str, str]:
        """`sharding.cel_columns`"""
        return self.sharding.cel_columns

    @property
    def routing_values(self) -> list[RoutingValue] | None:
        """`sharding.routing_values`"""
        return self.sharding.routing_values

    @property
    def infer_routing_values_from_data(self) -> bool:
        """`sharding.infer_routing_values_from_data`"""
        return self.sharding.infer_routing_values_from_data


@dataclass(slots=True, init=False)
class SingleDbWriteConfig(BaseShardedWriteConfig):
    """All rows in one shard."""

    def __init__(self, **base_kwargs: Unpack[BaseKeywords]) -> None:
        BaseShardedWriteConfig.__init__(self, **base_kwargs)

    @property
    def num_dbs(self) -> int:
        """Always 1."""
        return 1
