"""What readers tell about themselves and about their snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from shardyfusion._html import facts
from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm, ShardingStrategy

MISSING: Any = object()
"""An argument that was not given."""

HealthStatus: TypeAlias = Literal["healthy", "degraded", "unhealthy"]
OnError: TypeAlias = Literal["raise", "return"]


@dataclass(slots=True, frozen=True)
class SnapshotInfo:
    """The snapshot that a reader serves.

    run_id: the run that published it. num_dbs: its shards, those without rows among them.
    sharding, hash_algorithm: how keys find their shards. key_encoding: what keys are, and how they are stored.
    created_at: when it was made, in UTC. manifest_ref: where its manifest is.
    row_count: the sum over the shards.
    """

    run_id: str
    num_dbs: int
    sharding: ShardingStrategy
    created_at: datetime
    manifest_ref: str
    row_count: int = 0
    key_encoding: KeyEncoding = KeyEncoding.U64BE
    hash_algorithm: ShardHashAlgorithm = ShardHashAlgorithm.XXH3_64

    def _repr_html_(self) -> str:
        """In a notebook."""
        return facts("Snapshot", [(f.name, getattr(self, f.name)) for f in fields(self)])


@dataclass(slots=True, frozen=True)
class ShardDetail:
    """One shard of the snapshot.

    db_id: its number from 0. row_count: its rows.
    min_key, max_key: as the manifest has them: bytes come back as text; None without rows.
    db_url: where its objects are; None without rows.
    """

    db_id: int
    row_count: int
    min_key: int | float | str | bytes | None
    max_key: int | float | str | bytes | None
    db_url: str | None


@dataclass(slots=True, frozen=True, kw_only=True)
class CacheStats:
    """What a reader's caches have done since they were made.

    `hits`, `misses` and `evictions`: of blocks in memory; `bytes` of `max_bytes` are taken, by indexes and filters, too. They are those of the
    cache that all readers of the process share, unless the reader has one of its own (`CacheOptions.memory_bytes`).
    `requests` and `bytes_fetched`: what all readers and writers of the process have asked storage for, and got.
    `disk_...`: of the reader's disk cache (`CacheOptions.disk_bytes`), which readers of the process with the same `local_root` and `disk_bytes`
    share, 0 without one: blocks, and indexes with their filters, that were looked for there, and bytes; `disk_dropped` were not written,
    since the disk was full or too slow.
    `hedges_...`: of the reader's late answers (`CacheOptions.hedge_share`): second requests that were sent, those of them that won, and those that were
    not sent, because the share was used up, the store was sick, or too much was under way.
    """

    hits: int = 0
    misses: int = 0
    bytes: int = 0
    max_bytes: int = 0
    evictions: int = 0
    requests: int = 0
    bytes_fetched: int = 0
    disk_hits: int = 0
    disk_misses: int = 0
    disk_bytes_read: int = 0
    disk_bytes_written: int = 0
    disk_dropped: int = 0
    hedges_sent: int = 0
    hedges_won: int = 0
    hedges_refused_budget: int = 0
    hedges_refused_sick: int = 0
    hedges_refused_room: int = 0


@dataclass(slots=True, frozen=True)
class ReaderHealth:
    """How a reader is.

    status: "healthy"; "degraded": older than the threshold that was given, or an older manifest is served; "unhealthy": closed.
    manifest_ref: of the manifest that is served. num_shards: of its snapshot. is_closed: whether the reader is.
    manifest_age: the time since the reader was made, whatever it refreshed.
    snapshot_age: the time since the snapshot was built. since_refresh: since the last refresh that ended well.
    last_refresh_error: why the last refresh failed; None once one has ended well.
    refresh_failures: refreshes that failed since the last good one.
    fallback: an older manifest than the pointer named is served.
    borrowed: handles, scans and reads that hold a snapshot.
    open_requests: the engine's requests to storage in flight, those of all readers of the process.
    """

    status: HealthStatus
    manifest_ref: str
    manifest_age: timedelta
    num_shards: int
    is_closed: bool
    snapshot_age: timedelta | None = field(default=None, kw_only=True)
    since_refresh: timedelta | None = field(default=None, kw_only=True)
    last_refresh_error: str | None = field(default=None, kw_only=True)
    fallback: bool = field(default=False, kw_only=True)
    borrowed: int = field(default=0, kw_only=True)
    open_requests: int = field(default=0, kw_only=True)
    refresh_failures: int = field(default=0, kw_only=True)

    def _repr_html_(self) -> str:
        """In a notebook."""
        return facts("Reader", [(f.name, getattr(self, f.name)) for f in fields(self)])
