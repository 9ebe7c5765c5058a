"""Snapshots whose shards a factory of the caller's has opened: the engine's, but for what is asked of a shard that is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardyfusion._not_copied import NotCopied
from shardyfusion._storage_errors import MultiGetError, multi_get_error
from shardyfusion._timeouts import engine_timeout, time_left
from shardyfusion.cel import UnknownRoutingTokenError
from shardyfusion.errors import DbAdapterError, OperationTimeoutError, ShardyfusionError
from shardyfusion.reader._foreign_shards import AsyncAsked, AsyncShards, NowAsked, SyncShards
from shardyfusion.reader._scan import STEP_ROWS, AsyncScan, Row, RowSource, SyncScan, scan_of
from shardyfusion.reader._state import Failures, RoutingContext, SnapshotState
from shardyfusion.reader._types import OnError
from shardyfusion.reader._sync_shards import EmptyShard, SyncShard
from shardyfusion.type_defs import AsyncShardReader, K, KeyInput, ShardReader

if TYPE_CHECKING:
    from shardyfusion._native import ArrowBatch, Scan, Snapshot

_FEW_KEYS = 256  # for more, threads cost little beside the look-ups


class ForeignState(SnapshotState):
    def __init__(self, snapshot: Snapshot, *, fallback: bool, shards: AsyncShards) -> None:
        super().__init__(snapshot, fallback=fallback)
        self._shards = shards
        self._open: dict[int, AsyncShardReader] = {}  # the snapshot keeps them

    def _of(self, db_id: int) -> AsyncShardReader | None:
        shard = self._open.get(db_id)
        if shard is None and (shard := self._shards.of(self.snapshot, db_id)) is not None:
            self._open[db_id] = shard
        return shard

    async def get(self, db_id: int, key: bytes) -> bytes | None:
        shard = self._open.get(db_id) or self._of(db_id)
        if shard is not None:
            return await shard.get(key)
        return await self._shards.read(lambda asked: self.snapshot.get(db_id, key, engine_timeout(), asked))

    async def look_up(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        """The value of a key, wherever it lies."""
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None  # its token is none of this snapshot's, so it has no value
        return await self.get(db_id, self.encode(key))

    async def look_up_many(
        self,
        keys: Sequence[K],
        routing_context: RoutingContext | None,
        max_concurrency: int | None,
        on_error: OnError,
    ) -> dict[K, Any]:
        """The same for many keys: the engine routes all of them, and asks for those of each shard at once."""
        asked = AsyncAsked(self._shards, max_concurrency, keeps_errors=on_error == "return")
        try:
            found: dict[K, Any] = await self._shards.read(
                lambda ask: self.snapshot.look_up_many(keys, routing_context, on_error, engine_timeout(), ask), asked)
        except Exception as error:
            if error is not asked.error:
                raise
        else:
            return asked.with_errors(found, self.encode)
        raise multi_get_error(list(asked.shard_errors.values()))

    def shard(self, db_id: int) -> AsyncShardReader:
        return self._of(db_id) or _Unopened(self, db_id)

    def scan(self, *, db_id: int | None, **options: Any) -> RowSource:
        for one in range(self.num_dbs) if db_id is None else (db_id,):
            shard = self._of(one)
            if shard is not None:
                scan_of(shard)  # or it says that it cannot
        return _AskedRows(self.snapshot.scan(db_id=db_id, **options), self._shards)

    async def dispose(self) -> Failures:
        self.snapshot.close()
        return await self._shards.settled()

    def dispose_soon(self) -> None:
        self.snapshot.close()
        self._shards.settled_soon()


class _AskedRows(NotCopied):
    """The rows of a scan of the engine over such shards."""

    def __init__(self, scan: Scan, shards: AsyncShards) -> None:
        self._scan = scan
        self._shards = shards

    async def next(self, max_rows: int = STEP_ROWS) -> list[Row]:
        return await self._shards.read(lambda asked: self._scan.next(max_rows, engine_timeout(), asked))

    async def next_batch(self, keys: str, max_rows: int) -> ArrowBatch | None:
        return await self._shards.read(lambda asked: self._scan.next_batch(keys, max_rows, engine_timeout(), asked))

    def close(self) -> None:
        self._scan.close()


class _Unopened(NotCopied):
    """A shard that is empty, or that nobody has read yet: the engine opens it then."""

    def __init__(self, state: ForeignState, db_id: int) -> None:
        self._state = state
        self._db_id = db_id

    async def get(self, key: bytes) -> bytes | None:
        return await self._state.get(self._db_id, key)

    def scan(
        self,
        start: bytes | None = None,
        end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> AsyncScan[bytes]:
        return AsyncScan(
            self._state.scan(db_id=self._db_id, start=start, end=end, prefix=prefix, limit=limit, reverse=reverse))

    async def close(self) -> None:
        """The reader's is the shard."""


class SyncForeignState(SnapshotState):
    def __init__(self, snapshot: Snapshot, *, fallback: bool, shards: SyncShards) -> None:
        super().__init__(snapshot, fallback=fallback)
        self._shards = shards
        self._open: dict[int, SyncShard] = {}  # the snapshot keeps them

    def _shard(self, db_id: int) -> SyncShard:
        shard = self._open.get(db_id)
        if shard is None:
            shard = self._open[db_id] = self._shards.of(self.snapshot, db_id) or EmptyShard()
        return shard

    def look_up_now(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        """The value of a key, wherever it lies."""
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None  # its token is none of this snapshot's, so it has no value
        return self._get(db_id, key)

    def look_up_many_now(
        self,
        keys: Sequence[K],
        routing_context: RoutingContext | None,
        on_error: OnError,
        max_workers: int | None,
    ) -> dict[K, Any]:
        """The same for many keys; with workers, several shards at a time."""
        here = self._look_up_here(keys, routing_context, on_error, max_workers)
        if here is not None:
            return here
        asked = NowAsked(self._shards, max_workers, keeps_errors=on_error == "return")
        try:
            found: dict[K, Any] = self._shards.read(
                lambda ask: self.snapshot.look_up_many(keys, routing_context, on_error, engine_timeout(), ask), asked)
        except MultiGetError as group:  # of keys
            error: Exception = group.exceptions[0]
        except Exception as one:
            error = one
        else:
            return asked.with_errors(found, self.encode)
        db_id = asked.failed_in_pool() if error is asked.error else None
        if db_id is None or isinstance(error, ShardyfusionError):
            raise error
        raise DbAdapterError(f"Read failed for shard db_id={db_id}") from error

    def _look_up_here(
        self,
        keys: Sequence[K],
        routing_context: RoutingContext | None,
        on_error: OnError,
        max_workers: int | None,
    ) -> dict[K, Any] | None:
        """Few keys, of shards that are all open: this thread asks them, without the engine's threads in between. None: not so."""
        if len(keys) > _FEW_KEYS:
            return None
        found: dict[K, Any] = dict.fromkeys(keys)
        shards = self.snapshot.keys_by_shard(tuple(found), routing_context)
        if shards is None or (len(shards) > 1 and max_workers is not None and max_workers > 1):
            return None
        for _, (number, given, stored) in sorted(shards.items()):
            if time_left() == 0:
                late = OperationTimeoutError(f"a look-up of {len(keys)} keys took longer than its timeout")
                late.operation = "get"  # as the engine calls it
                raise late
            found.update(zip(given, self._shards.values_now(number, stored, on_error), strict=True))
        return found

    def _get(self, db_id: int, key: KeyInput) -> bytes | None:
        return self._shard(db_id).get_many([self.encode(key)])[0]

    def shard_now(self, db_id: int) -> ShardReader:
        return self._shard(db_id).reader

    def rows_now(
        self, *, timeout: float | None, db_id: int | None, **options: Any
    ) -> SyncScan:
        for one in range(self.num_dbs) if db_id is None else (db_id,):
            scan_of(self._shard(one).reader)  # or it says that it cannot
        scan = self.snapshot.scan(db_id=db_id, **options)
        return SyncScan(scan, timeout, read=self._shards.read, ended=self._shards.close_unused)

    def dispose_now(self) -> Failures:
        self.snapshot.close()
        return self._shards.settled()
