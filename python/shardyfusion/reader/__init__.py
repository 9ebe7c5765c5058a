"""Readers of published snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._lazy import lazy_attributes

if TYPE_CHECKING:
    from shardyfusion.reader._async_reads import AsyncPinnedSnapshot
    from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory, SlateDbReaderFactory
    from shardyfusion.reader._sqlite_shard import AsyncAutoReaderFactory, AutoReaderFactory
    from shardyfusion.reader._sync_reads import PinnedSnapshot
    from shardyfusion.reader._types import ReaderHealth, ShardDetail, SnapshotInfo
    from shardyfusion.reader.async_reader import AsyncShardedReader, AsyncShardReaderHandle
    from shardyfusion.reader.concurrent_reader import ConcurrentShardedReader
    from shardyfusion.reader.reader import ShardedReader, ShardReaderHandle

__all__ = [
    "AsyncAutoReaderFactory",
    "AsyncPinnedSnapshot",
    "AsyncShardReaderHandle",
    "AsyncShardedReader",
    "AsyncSlateDbReaderFactory",
    "AutoReaderFactory",
    "ConcurrentShardedReader",
    "PinnedSnapshot",
    "ReaderHealth",
    "ShardDetail",
    "ShardReaderHandle",
    "ShardedReader",
    "SlateDbReaderFactory",
    "SnapshotInfo",
]

# where they are; all others are where the package itself says
_HERE = {
    "AsyncUnifiedShardedReader": "shardyfusion.reader.async_unified_reader",
    "UnifiedShardedReader": "shardyfusion.reader.unified_reader",
    **dict.fromkeys(__all__, "shardyfusion"),
    **dict.fromkeys(("AsyncAutoReaderFactory", "AutoReaderFactory"), "shardyfusion.reader._sqlite_shard"),
}
if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = lazy_attributes(globals(), _HERE)
