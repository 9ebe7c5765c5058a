"""Configuration of writers. Groups of settings are plain objects that can be changed until a writer starts; every writer
validates what it is given once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._missing import without
from shardyfusion.config._checks import (
    ValidatableConfig,
    validate_configs,
    validate_shard_id_col_no_collision,
)
from shardyfusion.config._groups import (
    ANY,
    CelShardingConfig,
    ExpectedCurrent,
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
from shardyfusion.config._inputs import (
    ArrowRecordInput,
    ColumnWriteInput,
    PythonRecordInput,
)
from shardyfusion.config._options import (
    BadRow,
    BufferingOptions,
    DaskWriteOptions,
    Phase as Phase,
    PublishChecks,
    PublishPreview,
    PythonWriteOptions,
    RayWriteOptions,
    SharedMemoryOptions,
    SingleDbWriteOptions,
    SparkWriteOptions,
    WriteProgress,
)
from shardyfusion.config._writes import (
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    HashShardedWriteConfig,
    SingleDbWriteConfig,
)

__all__ = [
    "ANY",
    "ArrowRecordInput",
    "BadRow",
    "BaseShardedWriteConfig",
    "BufferingOptions",
    "CelShardedWriteConfig",
    "CelShardingConfig",
    "ColumnWriteInput",
    "DaskWriteOptions",
    "ExpectedCurrent",
    "HashShardedWriteConfig",
    "HashShardingConfig",
    "KeyValueWriteConfig",
    "KvWriteRateLimitConfig",
    "PublishChecks",
    "PublishPreview",
    "PythonRecordInput",
    "PythonWriteOptions",
    "RayWriteOptions",
    "SharedMemoryOptions",
    "SingleDbWriteConfig",
    "SingleDbWriteOptions",
    "SparkWriteOptions",
    "ValidatableConfig",
    "WriteProgress",
    "WriterLifecycleConfig",
    "WriterManifestConfig",
    "WriterObservabilityConfig",
    "WriterOutputConfig",
    "WriterRetryConfig",
    "WriterStorageConfig",
    "validate_configs",
    "validate_shard_id_col_no_collision",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = without(
        __name__,
        "vector search",
        {
            "UnifiedVectorWriteConfig",
            "VectorColumnInput",
            "VectorMetricLiteral",
            "VectorSpec",
            "VectorWriteRateLimitConfig",
            "VectorWriteTuple",
            "vector_metric_to_str",
        },
    )
