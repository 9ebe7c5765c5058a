"""Reading (and, in time, writing) of immutable, sharded key-value snapshots on object storage.

Everything named here is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._lazy import lazy_attributes

if TYPE_CHECKING:
    from shardyfusion._rate_limiter import AcquireResult, RateLimiter, ThreadSafeTokenBucket, TokenBucket
    from shardyfusion.async_manifest_store import AsyncManifestStore, AsyncS3ManifestStore
    from shardyfusion.cel import CelColumn, CelType, cel_sharding, cel_sharding_by_columns
    from shardyfusion.credentials import (
        CredentialProvider,
        EnvCredentialProvider,
        S3Credentials,
        StaticCredentialProvider,
    )
    from shardyfusion.errors import (
        ConfigValidationError,
        DbAdapterError,
        ManifestBuildError,
        ManifestParseError,
        ManifestStoreError,
        OperationTimeoutError,
        PoolExhaustedError,
        PublishCurrentError,
        PublishManifestError,
        ReaderStateError,
        S3TransientError,
        ShardAssignmentError,
        ShardCoverageError,
        ShardWriteError,
        ShardyfusionError,
    )
    from shardyfusion.logging import FailureSeverity, JsonFormatter, LogContext, configure_logging, get_logger
    from shardyfusion.manifest import (
        SQLITE_MANIFEST_CONTENT_TYPE,
        BuildDurations,
        BuildResult,
        BuildStats,
        CurrentPointer,
        ManifestArtifact,
        ManifestRef,
        ManifestShardingSpec,
        ParsedManifest,
        RequiredBuildMeta,
        RequiredShardMeta,
        SqliteManifestBuilder,
        WriterInfo,
    )
    from shardyfusion.manifest_store import (
        InMemoryManifestStore,
        ManifestStore,
        S3ManifestStore,
        SqliteShardLookup,
        load_sqlite_build_meta,
        parse_manifest_payload,
        parse_sqlite_manifest,
    )
    from shardyfusion.metrics import MetricEvent, MetricsCollector
    from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory
    from shardyfusion.reader._types import ReaderHealth, ShardDetail, SnapshotInfo
    from shardyfusion.reader.async_reader import AsyncShardReaderHandle, AsyncShardedReader
    from shardyfusion.reader.concurrent_reader import ConcurrentShardedReader
    from shardyfusion.reader.reader import ShardReaderHandle, ShardedReader
    from shardyfusion.routing import ShardLookup, SnapshotRouter
    from shardyfusion.serde import ValueSpec
    from shardyfusion.sharding_types import (
        CelShardingSpec,
        HashShardingSpec,
        KeyEncoding,
        ShardHashAlgorithm,
        ShardingSpec,
        ShardingStrategy,
    )
    from shardyfusion.type_defs import (
        AsyncShardReader,
        AsyncShardReaderFactory,
        RetryConfig,
        S3ConnectionOptions,
        ShardReader,
        ShardReaderFactory,
    )

__all__ = [
    "SQLITE_MANIFEST_CONTENT_TYPE",
    "AcquireResult",
    "AsyncManifestStore",
    "AsyncS3ManifestStore",
    "AsyncShardReader",
    "AsyncShardReaderFactory",
    "AsyncShardReaderHandle",
    "AsyncShardedReader",
    "AsyncSlateDbReaderFactory",
    "BuildDurations",
    "BuildResult",
    "BuildStats",
    "CelColumn",
    "CelShardingSpec",
    "CelType",
    "ConcurrentShardedReader",
    "ConfigValidationError",
    "CredentialProvider",
    "CurrentPointer",
    "DbAdapterError",
    "EnvCredentialProvider",
    "FailureSeverity",
    "HashShardingSpec",
    "InMemoryManifestStore",
    "JsonFormatter",
    "KeyEncoding",
    "LogContext",
    "ManifestArtifact",
    "ManifestBuildError",
    "ManifestParseError",
    "ManifestRef",
    "ManifestShardingSpec",
    "ManifestStore",
    "ManifestStoreError",
    "MetricEvent",
    "MetricsCollector",
    "OperationTimeoutError",
    "ParsedManifest",
    "PoolExhaustedError",
    "PublishCurrentError",
    "PublishManifestError",
    "RateLimiter",
    "ReaderHealth",
    "ReaderStateError",
    "RequiredBuildMeta",
    "RequiredShardMeta",
    "RetryConfig",
    "S3ConnectionOptions",
    "S3Credentials",
    "S3ManifestStore",
    "S3TransientError",
    "ShardAssignmentError",
    "ShardCoverageError",
    "ShardDetail",
    "ShardHashAlgorithm",
    "ShardLookup",
    "ShardReader",
    "ShardReaderFactory",
    "ShardReaderHandle",
    "ShardWriteError",
    "ShardedReader",
    "ShardingSpec",
    "ShardingStrategy",
    "ShardyfusionError",
    "SlateDbReaderFactory",
    "SnapshotInfo",
    "SnapshotRouter",
    "SqliteManifestBuilder",
    "SqliteShardLookup",
    "StaticCredentialProvider",
    "ThreadSafeTokenBucket",
    "TokenBucket",
    "ValueSpec",
    "WriterInfo",
    "cel_sharding",
    "cel_sharding_by_columns",
    "configure_logging",
    "get_logger",
    "load_sqlite_build_meta",
    "parse_manifest_payload",
    "parse_sqlite_manifest",
]

# module -> the names that it defines
_HOMES: dict[str, tuple[str, ...]] = {
    "shardyfusion._rate_limiter": (
        "AcquireResult",
        "RateLimiter",
        "ThreadSafeTokenBucket",
        "TokenBucket",
    ),
    "shardyfusion.async_manifest_store": (
        "AsyncManifestStore",
        "AsyncS3ManifestStore",
    ),
    "shardyfusion.cel": (
        "CelColumn",
        "CelType",
        "cel_sharding",
        "cel_sharding_by_columns",
    ),
    "shardyfusion.credentials": (
        "CredentialProvider",
        "EnvCredentialProvider",
        "S3Credentials",
        "StaticCredentialProvider",
    ),
    "shardyfusion.errors": (
        "ConfigValidationError",
        "DbAdapterError",
        "ManifestBuildError",
        "ManifestParseError",
        "ManifestStoreError",
        "OperationTimeoutError",
        "PoolExhaustedError",
        "PublishCurrentError",
        "PublishManifestError",
        "ReaderStateError",
        "S3TransientError",
        "ShardAssignmentError",
        "ShardCoverageError",
        "ShardWriteError",
        "ShardyfusionError",
    ),
    "shardyfusion.logging": (
        "FailureSeverity",
        "JsonFormatter",
        "LogContext",
        "configure_logging",
        "get_logger",
    ),
    "shardyfusion.manifest": (
        "SQLITE_MANIFEST_CONTENT_TYPE",
        "BuildDurations",
        "BuildResult",
        "BuildStats",
        "CurrentPointer",
        "ManifestArtifact",
        "ManifestRef",
        "ManifestShardingSpec",
        "ParsedManifest",
        "RequiredBuildMeta",
        "RequiredShardMeta",
        "SqliteManifestBuilder",
        "WriterInfo",
    ),
    "shardyfusion.manifest_store": (
        "InMemoryManifestStore",
        "ManifestStore",
        "S3ManifestStore",
        "SqliteShardLookup",
        "load_sqlite_build_meta",
        "parse_manifest_payload",
        "parse_sqlite_manifest",
    ),
    "shardyfusion.metrics": (
        "MetricEvent",
        "MetricsCollector",
    ),
    "shardyfusion.reader._slatedb_shard": (
        "AsyncSlateDbReaderFactory",
        "SlateDbReaderFactory",
    ),
    "shardyfusion.reader._types": (
        "ReaderHealth",
        "ShardDetail",
        "SnapshotInfo",
    ),
    "shardyfusion.reader.async_reader": (
        "AsyncShardReaderHandle",
        "AsyncShardedReader",
    ),
    "shardyfusion.reader.concurrent_reader": (
        "ConcurrentShardedReader",
    ),
    "shardyfusion.reader.reader": (
        "ShardReaderHandle",
        "ShardedReader",
    ),
    "shardyfusion.routing": (
        "ShardLookup",
        "SnapshotRouter",
    ),
    "shardyfusion.serde": (
        "ValueSpec",
    ),
    "shardyfusion.sharding_types": (
        "CelShardingSpec",
        "HashShardingSpec",
        "KeyEncoding",
        "ShardHashAlgorithm",
        "ShardingSpec",
        "ShardingStrategy",
    ),
    "shardyfusion.type_defs": (
        "AsyncShardReader",
        "AsyncShardReaderFactory",
        "RetryConfig",
        "S3ConnectionOptions",
        "ShardReader",
        "ShardReaderFactory",
    ),
    "shardyfusion._engine": ("__version__",),
}
# these modules do not exist yet, and say so when they are imported
_NOT_YET: dict[str, tuple[str, ...]] = {
    "shardyfusion.config": (
        "BaseShardedWriteConfig",
        "BufferingOptions",
        "CelShardedWriteConfig",
        "CelShardingConfig",
        "ColumnWriteInput",
        "DaskWriteOptions",
        "HashShardedWriteConfig",
        "HashShardingConfig",
        "KeyValueWriteConfig",
        "KvWriteRateLimitConfig",
        "PythonRecordInput",
        "PythonWriteOptions",
        "RayWriteOptions",
        "SharedMemoryOptions",
        "SingleDbWriteConfig",
        "SingleDbWriteOptions",
        "SparkWriteOptions",
        "UnifiedVectorWriteConfig",
        "VectorColumnInput",
        "VectorSpec",
        "VectorWriteRateLimitConfig",
        "WriterLifecycleConfig",
        "WriterManifestConfig",
        "WriterObservabilityConfig",
        "WriterOutputConfig",
        "WriterRetryConfig",
        "WriterStorageConfig",
    ),
    "shardyfusion.local_slatedb_adapter": (
        "LocalSlateDbFactory",
    ),
    "shardyfusion.reader.async_unified_reader": (
        "AsyncUnifiedShardedReader",
    ),
    "shardyfusion.reader.unified_reader": (
        "UnifiedShardedReader",
    ),
    "shardyfusion.run_registry": (
        "InMemoryRunRegistry",
        "RunRecord",
        "RunRecordLifecycle",
        "RunRegistry",
        "RunStatus",
        "S3RunRegistry",
    ),
    "shardyfusion.slatedb_adapter": (
        "DbAdapter",
        "DbAdapterFactory",
        "SlateDbFactory",
        "SlateDbSettings",
    ),
}

__getattr__ = lazy_attributes(
    globals(),
    {name: module for homes in (_HOMES, _NOT_YET) for module, names in homes.items() for name in names},
)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
