"""Readers of published snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._lazy import lazy_attributes

if TYPE_CHECKING:
    from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory
    from shardyfusion.reader._types import ReaderHealth, ShardDetail, SnapshotInfo
    from shardyfusion.reader.async_reader import AsyncShardedReader, AsyncShardReaderHandle
    from shardyfusion.reader.concurrent_reader import ConcurrentShardedReader
    from shardyfusion.reader.reader import ShardedReader, ShardReaderHandle

__all__ = [
    "AsyncShardReaderHandle",
    "AsyncShardedReader",
    "AsyncSlateDbReaderFactory",
    "ConcurrentShardedReader",
    "ReaderHealth",
    "ShardDetail",
    "ShardReaderHandle",
    "ShardedReader",
    "SlateDbReaderFactory",
    "SnapshotInfo",
]

_TYPES = "shardyfusion.reader._types"
__getattr__ = lazy_attributes(
    globals(),
    {
        "AsyncShardReaderHandle": "shardyfusion.reader.async_reader",
        "AsyncShardedReader": "shardyfusion.reader.async_reader",
        "AsyncSlateDbReaderFactory": "shardyfusion.reader._slatedb_shard",
        "AsyncUnifiedShardedReader": "shardyfusion.reader.async_unified_reader",
        "ConcurrentShardedReader": "shardyfusion.reader.concurrent_reader",
        "ReaderHealth": _TYPES,
        "ShardDetail": _TYPES,
        "ShardReaderHandle": "shardyfusion.reader.reader",
        "ShardedReader": "shardyfusion.reader.reader",
        "SlateDbReaderFactory": "shardyfusion.reader._slatedb_shard",
        "SnapshotInfo": _TYPES,
        "UnifiedShardedReader": "shardyfusion.reader.unified_reader",
    },
)
