"""One snapshot that a reader serves, and who uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from logging import Logger
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias

from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._formats import empty_shard_meta, key_of, shard_meta, time_of
from shardyfusion._not_copied import NotCopied
from shardyfusion.cel import UnknownRoutingTokenError
from shardyfusion.errors import DbAdapterError
from shardyfusion.logging import FailureSeverity, log_failure
from shardyfusion.reader._scan import EngineRows, RowSource, SyncScan
from shardyfusion.reader._sqlite_shard import async_shard_of, shard_of
from shardyfusion.reader._types import ShardDetail, SnapshotInfo
from shardyfusion.routing import Route, route_of
from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm, ShardingStrategy
from shardyfusion.type_defs import AsyncShardReader, KeyInput, ShardReader

if TYPE_CHECKING:
    from shardyfusion._native import ShardRow, Snapshot
    from shardyfusion.manifest import RequiredShardMeta

SNAPSHOT_GIVEN_BACK = "Snapshot was given back"

RoutingContext: TypeAlias = Mapping[str, object]
Failures: TypeAlias = list[tuple[int, Exception]]


class SnapshotState(NotCopied):
    """A snapshot that the engine has pinned for the reader. Immutable but for the count of its borrowers; it closes when it is
    retired and nobody has borrowed it any more. Borrowing and giving back: any thread.
    """

    def __init__(self, snapshot: Snapshot, *, fallback: bool) -> None:
        self._borrowers = 0
        self._retired = False
        self._lock: Any
        add_locks(self, _lock=RLock)  # a handle may be collected, and so give back, while its own thread is in here
        self.snapshot = snapshot
        self._details = snapshot.details()
        self.manifest_ref: str = self._details["manifest_ref"]
        self.num_dbs: int = self._details["num_dbs"]
        self.encoding: str = self._details["key_encoding"]
        self.fallback = fallback
        self.skipped_ref: str | None = None  # of the manifest that the pointer named when this was opened in its place
        # Made when they are asked for; no cached_property, which gives the instance a dict: then CPython 3.11 and 3.12 look up each of its
        # attributes the slow way, in blocking look-ups too.
        self._route: Route | None = None
        self._known_rows: dict[int, ShardRow] | None = None
        self._metas: dict[int, RequiredShardMeta] = {}

    # ---- life

    @property
    def borrowers(self) -> int:
        return self._borrowers

    def borrow(self) -> None:
        with self._lock:
            self._borrowers += 1

    def give_back(self) -> bool:
        """Whether the state must be disposed of now, by the caller."""
        with self._lock:
            self._borrowers -= 1
            return self._retired and self._borrowers == 0

    def retire(self) -> bool:
        """No new borrowers from now on. Whether the state must be disposed of now, by the caller."""
        with self._lock:
            self._retired = True
            return self._borrowers == 0

    async def give_back_and_dispose(self) -> None:
        if self.give_back():
            await self.dispose()

    def give_back_soon(self) -> None:
        """For callers that cannot wait: shards close in the background."""
        if self.give_back():
            self.dispose_soon()

    async def dispose(self) -> Failures:
        """Closes all shards, whatever fails; the failures, logged."""
        return self.dispose_now()

    def dispose_now(self) -> Failures:
        """The same, blocking."""
        self.snapshot.close()
        return []

    def dispose_soon(self) -> None:
        """The same, for callers that cannot wait."""
        self.dispose_now()

    # ---- reads

    def locate(self, key: KeyInput, routing_context: RoutingContext | None) -> int:
        """The shard of a key. ValueError when the key cannot be routed."""
        if self._route is None:  # also after the snapshot was given back
            self._route = route_of(self._details["strategy"], self._details["sharding"], self.num_dbs)
        return self._route(key, routing_context)


    def encode(self, key: KeyInput) -> bytes:
        """The stored bytes of a key."""
        return native.encode_key(self.encoding, key)

    def try_look_up(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        """The value of a key, wherever it lies, out of memory only. LookupError when that does not have it."""
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None  # its token is none of this snapshot's, so it has no value
        return self.snapshot.try_get(db_id, self.encode(key))

    def shard(self, db_id: int) -> AsyncShardReader:
        """The shard's reader, for handles."""
        return async_shard_of(self.snapshot, db_id)

    def shard_now(self, db_id: int) -> ShardReader:
        """The same, blocking."""
        return shard_of(self.snapshot, db_id)

    def scan(self, *, db_id: int | None, **options: Any) -> RowSource:
        """The rows of a shard, or (None) of all shards, in key order."""
        return EngineRows(self.snapshot.scan(db_id=db_id, **options))

    def rows_now(self, *, timeout: float | None, db_id: int | None, **options: Any) -> SyncScan:
        """The same, blocking."""
        return SyncScan(self.snapshot.scan(db_id=db_id, **options), timeout)

    # ---- facts

    def keep_facts(self) -> None:
        """Reads what is still to be told after the snapshot was given back."""
        self._rows()

    @property
    def created_at_us(self) -> int:
        return self._details["created_at_us"]

    def shards_with_rows(self) -> int:
        return sum(row["db_url"] is not None for row in self._rows().values())

    def info(self) -> SnapshotInfo:
        details = self._details
        sharding = json.loads(details["sharding"])
        return SnapshotInfo(
            run_id=details["run_id"],
            num_dbs=details["num_dbs"],
            sharding=ShardingStrategy(details["strategy"]),
            created_at=time_of(details["created_at_us"]),
            manifest_ref=details["manifest_ref"],
            row_count=details["row_count"],
            key_encoding=KeyEncoding(details["key_encoding"]),
            hash_algorithm=ShardHashAlgorithm(sharding["hash_algorithm"]),
        )

    def _rows(self) -> dict[int, ShardRow]:
        if self._known_rows is None:
            self._known_rows = {row["db_id"]: row for row in self.snapshot.rows()}
        return self._known_rows

    def shard_details(self) -> list[ShardDetail]:
        return [self._detail(db_id) for db_id in range(self.num_dbs)]

    def _detail(self, db_id: int) -> ShardDetail:
        row = self._rows().get(db_id)
        if row is None:
            return ShardDetail(db_id, 0, None, None, None)
        return ShardDetail(db_id, row["row_count"], key_of(row["min_key"]), key_of(row["max_key"]), row["db_url"])

    def shard_meta(self, db_id: int) -> RequiredShardMeta:
        meta = self._metas.get(db_id)
        if meta is None:
            meta = self._metas.setdefault(db_id, self._build_meta(db_id))
        return meta

    def _build_meta(self, db_id: int) -> RequiredShardMeta:
        row = self._rows().get(db_id)
        return empty_shard_meta(db_id) if row is None else shard_meta(row)


def log_close_failed(error: Exception, db_id: int, manifest_ref: str, log: Logger) -> None:
    log_failure(
        "reader_handle_close_failed",
        severity=FailureSeverity.ERROR,
        error=error,
        logger=log,
        db_id=db_id,
        manifest_ref=manifest_ref,
    )


def close_error(failures: Sequence[tuple[int, Exception]], what: str = "shard reader(s)") -> DbAdapterError:
    """What `close()` raises after having tried every shard."""
    ids = [db_id for db_id, _ in failures]
    error = DbAdapterError(f"Failed to close {len(ids)} {what}: db_ids={ids}")
    error.__cause__ = failures[0][1]
    return error


def describe_reader(reader: object) -> str:
    """Its `repr`: what it serves, out of memory."""
    serving = getattr(reader, "_beside", None) or reader
    state: SnapshotState | None = getattr(serving, "_state", None)
    what = native.safe_text(getattr(reader, "s3_prefix", ""))
    if getattr(reader, "_closed", False) or getattr(serving, "_closed", False):
        what += " (closed)"
    elif state is not None:
        info = state.info()
        what += f" run_id={native.safe_text(info.run_id)} shards={info.num_dbs} rows={info.row_count}"
    return f"<{type(reader).__name__} {what}>"
