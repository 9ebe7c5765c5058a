"""Reading and writing of immutable, sharded key-value snapshots on object storage.

Everything named here is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._lazy import lazy_attributes

if TYPE_CHECKING:
    from shardyfusion._rate_limiter import (
        AcquireResult as AcquireResult,
        RateLimiter as RateLimiter,
        ThreadSafeTokenBucket as ThreadSafeTokenBucket,
        TokenBucket as TokenBucket,
    )
    from shardyfusion.async_manifest_store import (
        AsyncManifestStore as AsyncManifestStore,
        AsyncS3ManifestStore as AsyncS3ManifestStore,
    )
    from shardyfusion.cel import (
        CelColumn as CelColumn,
        CelType as CelType,
        cel_sharding as cel_sharding,
        cel_sharding_by_columns as cel_sharding_by_columns,
    )
    from shardyfusion.config import (
        BaseShardedWriteConfig as BaseShardedWriteConfig,
        BufferingOptions as BufferingOptions,
        CelShardedWriteConfig as CelShardedWriteConfig,
        CelShardingConfig as CelShardingConfig,
        ColumnWriteInput as ColumnWriteInput,
        DaskWriteOptions as DaskWriteOptions,
        HashShardedWriteConfig as HashShardedWriteConfig,
        HashShardingConfig as HashShardingConfig,
        KeyValueWriteConfig as KeyValueWriteConfig,
        KvWriteRateLimitConfig as KvWriteRateLimitConfig,
        PythonRecordInput as PythonRecordInput,
        PythonWriteOptions as PythonWriteOptions,
        RayWriteOptions as RayWriteOptions,
        SharedMemoryOptions as SharedMemoryOptions,
        SingleDbWriteConfig as SingleDbWriteConfig,
        SingleDbWriteOptions as SingleDbWriteOptions,
        SparkWriteOptions as SparkWriteOptions,
        WriterLifecycleConfig as WriterLifecycleConfig,
        WriterManifestConfig as WriterManifestConfig,
        WriterObservabilityConfig as WriterObservabilityConfig,
        WriterOutputConfig as WriterOutputConfig,
        WriterRetryConfig as WriterRetryConfig,
        WriterStorageConfig as WriterStorageConfig,
    )
    from shardyfusion.credentials import (
        CredentialProvider as CredentialProvider,
        EnvCredentialProvider as EnvCredentialProvider,
        S3Credentials as S3Credentials,
        StaticCredentialProvider as StaticCredentialProvider,
    )
    from shardyfusion.errors import (
        ConfigValidationError as ConfigValidationError,
        DbAdapterError as DbAdapterError,
        ExhaustedError as ExhaustedError,
        ManifestBuildError as ManifestBuildError,
        ManifestParseError as ManifestParseError,
        ManifestStoreError as ManifestStoreError,
        OperationTimeoutError as OperationTimeoutError,
        PoolExhaustedError as PoolExhaustedError,
        PublishConflictError as PublishConflictError,
        PublishCurrentError as PublishCurrentError,
        PublishManifestError as PublishManifestError,
        PublishRefusedError as PublishRefusedError,
        ReaderStateError as ReaderStateError,
        RowError as RowError,
        S3TransientError as S3TransientError,
        ShardAssignmentError as ShardAssignmentError,
        ShardCoverageError as ShardCoverageError,
        ShardWriteError as ShardWriteError,
        ShardyfusionError as ShardyfusionError,
        WriteCancelledError as WriteCancelledError,
    )
    from shardyfusion.local_slatedb_adapter import LocalSlateDbFactory as LocalSlateDbFactory
    from shardyfusion.logging import (
        FailureSeverity as FailureSeverity,
        JsonFormatter as JsonFormatter,
        LogContext as LogContext,
        configure_logging as configure_logging,
        get_logger as get_logger,
    )
    from shardyfusion.manifest import (
        BuildDurations as BuildDurations,
        BuildResult as BuildResult,
        BuildStats as BuildStats,
        CurrentPointer as CurrentPointer,
        ManifestArtifact as ManifestArtifact,
        ManifestRef as ManifestRef,
        ManifestShardingSpec as ManifestShardingSpec,
        ParsedManifest as ParsedManifest,
        RequiredBuildMeta as RequiredBuildMeta,
        RequiredShardMeta as RequiredShardMeta,
        SQLITE_MANIFEST_CONTENT_TYPE as SQLITE_MANIFEST_CONTENT_TYPE,
        SqliteManifestBuilder as SqliteManifestBuilder,
        WriterInfo as WriterInfo,
    )
    from shardyfusion.manifest_store import (
        InMemoryManifestStore as InMemoryManifestStore,
        ManifestStore as ManifestStore,
        S3ManifestStore as S3ManifestStore,
        SqliteShardLookup as SqliteShardLookup,
        load_sqlite_build_meta as load_sqlite_build_meta,
        parse_manifest_payload as parse_manifest_payload,
        parse_sqlite_manifest as parse_sqlite_manifest,
    )
    from shardyfusion.metrics import MetricEvent as MetricEvent, MetricsCollector as MetricsCollector
    from shardyfusion.reader._slatedb_shard import (
        AsyncSlateDbReaderFactory as AsyncSlateDbReaderFactory,
        SlateDbReaderFactory as SlateDbReaderFactory,
    )
    from shardyfusion.reader._types import (
        CacheStats as CacheStats,
        ReaderHealth as ReaderHealth,
        ShardDetail as ShardDetail,
        SnapshotInfo as SnapshotInfo,
    )
    from shardyfusion.reader._async_reads import AsyncPinnedSnapshot as AsyncPinnedSnapshot
    from shardyfusion.reader._sync_reads import PinnedSnapshot as PinnedSnapshot
    from shardyfusion.reader.async_reader import (
        AsyncShardReaderHandle as AsyncShardReaderHandle,
        AsyncShardedReader as AsyncShardedReader,
    )
    from shardyfusion.reader.concurrent_reader import ConcurrentShardedReader as ConcurrentShardedReader
    from shardyfusion.reader.reader import ShardReaderHandle as ShardReaderHandle, ShardedReader as ShardedReader
    from shardyfusion.routing import ShardLookup as ShardLookup, SnapshotRouter as SnapshotRouter
    from shardyfusion.run_registry import (
        InMemoryRunRegistry as InMemoryRunRegistry,
        RunRecord as RunRecord,
        RunRecordLifecycle as RunRecordLifecycle,
        RunRegistry as RunRegistry,
        RunStatus as RunStatus,
        S3RunRegistry as S3RunRegistry,
    )
    from shardyfusion.serde import ValueSpec as ValueSpec
    from shardyfusion.sharding_types import (
        CelShardingSpec as CelShardingSpec,
        HashShardingSpec as HashShardingSpec,
        KeyEncoding as KeyEncoding,
        ShardHashAlgorithm as ShardHashAlgorithm,
        ShardingSpec as ShardingSpec,
        ShardingStrategy as ShardingStrategy,
    )
    from shardyfusion.slatedb_adapter import (
        DbAdapter as DbAdapter,
        DbAdapterFactory as DbAdapterFactory,
        SlateDbFactory as SlateDbFactory,
        SlateDbSettings as SlateDbSettings,
    )
    from shardyfusion.type_defs import (
        AsyncShardReader as AsyncShardReader,
        AsyncShardReaderFactory as AsyncShardReaderFactory,
        CacheOptions as CacheOptions,
        RetryConfig as RetryConfig,
        S3Config as S3Config,
        S3ConnectionOptions as S3ConnectionOptions,
        ShardReader as ShardReader,
        ShardReaderFactory as ShardReaderFactory,
    )

# module -> the names that it defines
_HOMES = {
    "shardyfusion._engine": "__version__",
    "shardyfusion._rate_limiter": "AcquireResult RateLimiter ThreadSafeTokenBucket TokenBucket",
    "shardyfusion.async_manifest_store": "AsyncManifestStore AsyncS3ManifestStore",
    "shardyfusion.cel": "CelColumn CelType cel_sharding cel_sharding_by_columns",
    "shardyfusion.config": (
        "BaseShardedWriteConfig BufferingOptions CelShardedWriteConfig CelShardingConfig ColumnWriteInput "
        "DaskWriteOptions HashShardedWriteConfig HashShardingConfig KeyValueWriteConfig KvWriteRateLimitConfig "
        "PythonRecordInput PythonWriteOptions RayWriteOptions SharedMemoryOptions SingleDbWriteConfig "
        "SingleDbWriteOptions SparkWriteOptions WriterLifecycleConfig WriterManifestConfig WriterObservabilityConfig "
        "WriterOutputConfig WriterRetryConfig WriterStorageConfig"
    ),
    "shardyfusion.credentials": "CredentialProvider EnvCredentialProvider S3Credentials StaticCredentialProvider",
    "shardyfusion.errors": (
        "ConfigValidationError DbAdapterError ExhaustedError ManifestBuildError ManifestParseError ManifestStoreError "
        "OperationTimeoutError PoolExhaustedError PublishConflictError PublishCurrentError PublishManifestError "
        "PublishRefusedError ReaderStateError RowError S3TransientError ShardAssignmentError ShardCoverageError "
        "ShardWriteError ShardyfusionError WriteCancelledError"
    ),
    "shardyfusion.local_slatedb_adapter": "LocalSlateDbFactory",
    "shardyfusion.logging": "FailureSeverity JsonFormatter LogContext configure_logging get_logger",
    "shardyfusion.manifest": (
        "BuildDurations BuildResult BuildStats CurrentPointer ManifestArtifact ManifestRef ManifestShardingSpec "
        "ParsedManifest RequiredBuildMeta RequiredShardMeta SQLITE_MANIFEST_CONTENT_TYPE SqliteManifestBuilder "
        "WriterInfo"
    ),
    "shardyfusion.manifest_store": (
        "InMemoryManifestStore ManifestStore S3ManifestStore SqliteShardLookup load_sqlite_build_meta "
        "parse_manifest_payload parse_sqlite_manifest"
    ),
    "shardyfusion.metrics": "MetricEvent MetricsCollector",
    "shardyfusion.reader._slatedb_shard": "AsyncSlateDbReaderFactory SlateDbReaderFactory",
    "shardyfusion.reader._async_reads": "AsyncPinnedSnapshot",
    "shardyfusion.reader._sync_reads": "PinnedSnapshot",
    "shardyfusion.reader._types": "CacheStats ReaderHealth ShardDetail SnapshotInfo",
    "shardyfusion.reader.async_reader": "AsyncShardReaderHandle AsyncShardedReader",
    "shardyfusion.reader.concurrent_reader": "ConcurrentShardedReader",
    "shardyfusion.reader.reader": "ShardReaderHandle ShardedReader",
    "shardyfusion.routing": "ShardLookup SnapshotRouter",
    "shardyfusion.run_registry": "InMemoryRunRegistry RunRecord RunRecordLifecycle RunRegistry RunStatus S3RunRegistry",
    "shardyfusion.serde": "ValueSpec",
    "shardyfusion.sharding_types": (
        "CelShardingSpec HashShardingSpec KeyEncoding ShardHashAlgorithm ShardingSpec ShardingStrategy"
    ),
    "shardyfusion.slatedb_adapter": "DbAdapter DbAdapterFactory SlateDbFactory SlateDbSettings",
    "shardyfusion.type_defs": (
        "AsyncShardReader AsyncShardReaderFactory CacheOptions RetryConfig S3Config S3ConnectionOptions ShardReader "
        "ShardReaderFactory"
    ),
}
# these modules do not exist yet, and say so when they are imported
_NOT_YET = {
    "shardyfusion.config": "UnifiedVectorWriteConfig VectorColumnInput VectorSpec VectorWriteRateLimitConfig",
    "shardyfusion.reader.async_unified_reader": "AsyncUnifiedShardedReader",
    "shardyfusion.reader.unified_reader": "UnifiedShardedReader",
}

__all__ = sorted(name for names in _HOMES.values() for name in names.split() if name != "__version__")
if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = lazy_attributes(
        globals(),
        {name: module for homes in (_HOMES, _NOT_YET) for module, names in homes.items() for name in names.split()},
    )


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
