"""Snapshots that the engine opens and refreshes itself: the default stores and the default shard readers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from logging import Logger
from typing import TYPE_CHECKING, Any, TypeVar

from shardyfusion._engine import native
from shardyfusion._formats import empty_shard_meta, key_of, shard_meta, time_of
from shardyfusion._storage_errors import NO_GOOD_MANIFEST, MissingCurrentError
from shardyfusion._timeouts import engine_timeout
from shardyfusion.errors import ManifestParseError, ReaderStateError
from shardyfusion.manifest_store import log_manifest_load_failed
from shardyfusion.reader._manifest_questions import Ask
from shardyfusion.reader._scan import STEP_ROWS, EngineRows, Row, RowSource
from shardyfusion.reader._slatedb_shard import AsyncSlateDbShardReader, SlateDbShardReader, rows_of_scan
from shardyfusion.reader._source import Refreshed, Source, pointer_url
from shardyfusion.reader._state import RoutingContext, SnapshotState
from shardyfusion.reader._types import ShardDetail, SnapshotInfo
from shardyfusion.routing import Route, route_of
from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm, ShardingStrategy
from shardyfusion.type_defs import KeyInput

if TYPE_CHECKING:
    from shardyfusion._native import Operation, Reader, RejectedManifest, ShardRow, Snapshot
    from shardyfusion.manifest import RequiredShardMeta
    from shardyfusion.reader._foreign_shards import AsyncShards, SyncShards

T = TypeVar("T")


class NativeState(SnapshotState):
    """A snapshot that the engine has pinned for us."""

    def __init__(self, snapshot: Snapshot, *, fallback: bool) -> None:
        super().__init__()
        self.snapshot = snapshot
        self._details = snapshot.details()
        self.manifest_ref = self._details["manifest_ref"]
        self.num_dbs = self._details["num_dbs"]
        self.encoding = self._details["key_encoding"]
        self.fallback = fallback

    async def dispose(self) -> list[tuple[int, Exception]]:
        self.snapshot.close()
        return []

    def dispose_soon(self) -> None:
        self.snapshot.close()

    def locate(self, key: KeyInput, routing_context: RoutingContext | None) -> int:
        return self._route(key, routing_context)

    @cached_property
    def _route(self) -> Route:  # also after the snapshot was given back
        return route_of(self._details["strategy"], self._details["sharding"], self.num_dbs)

    def encode(self, key: KeyInput) -> bytes:
        return native.encode_key(self.encoding, key)

    async def get(self, db_id: int, key: bytes) -> bytes | None:
        return await self.snapshot.get(db_id, key, engine_timeout())

    def try_get(self, db_id: int, key: bytes) -> bytes | None:
        return self.snapshot.try_get(db_id, key)

    async def get_many(self, db_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self.snapshot.get_many(db_id, keys, engine_timeout())

    def shard(self, db_id: int) -> AsyncSlateDbShardReader:
        return AsyncSlateDbShardReader(self.snapshot, db_id, owns_pin=False)

    def shard_now(self, db_id: int) -> SlateDbShardReader:
        return SlateDbShardReader(self.snapshot, db_id, owns_pin=False)

    def rows_now(self, *, timeout: float | None, **options: Any) -> Iterator[Row]:
        return rows_of_scan(self.snapshot.scan(**options), STEP_ROWS, timeout)

    def keep_facts(self) -> None:
        """Reads what is still to be told after the snapshot was given back."""
        self._rows  # noqa: B018

    def dispose_now(self) -> list[tuple[int, Exception]]:
        self.snapshot.close()
        return []

    def scan(self, **options: Any) -> RowSource:
        return EngineRows(self.snapshot.scan(**options))

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

    @cached_property
    def _rows(self) -> dict[int, ShardRow]:
        return {row["db_id"]: row for row in self.snapshot.rows()}

    def shard_details(self) -> list[ShardDetail]:
        return [self._detail(db_id) for db_id in range(self.num_dbs)]

    def _detail(self, db_id: int) -> ShardDetail:
        row = self._rows.get(db_id)
        if row is None:
            return ShardDetail(db_id, 0, None, None, None)
        return ShardDetail(db_id, row["row_count"], key_of(row["min_key"]), key_of(row["max_key"]), row["db_url"])

    @cached_property
    def _metas(self) -> dict[int, RequiredShardMeta]:
        return {}

    def shard_meta(self, db_id: int) -> RequiredShardMeta:
        meta = self._metas.get(db_id)
        if meta is None:
            meta = self._metas.setdefault(db_id, self._build_meta(db_id))
        return meta

    def _build_meta(self, db_id: int) -> RequiredShardMeta:
        row = self._rows.get(db_id)
        return empty_shard_meta(db_id) if row is None else shard_meta(row)




class NativeSource(Source):
    """Follows a prefix, or a manifest store of the caller's, with the engine. `ask` answers for the store."""

    def __init__(
        self,
        prefix: str,
        options: dict[str, Any],
        log: Logger,
        *,
        ask: Ask | None = None,
        store: object = None,
        shards: AsyncShards | SyncShards | None = None,
    ) -> None:
        super().__init__(log)
        self._prefix = prefix
        self._options = options
        self._ask = ask
        self.shards: Any = shards  # of a factory of the caller's; `ask` answers for what is not theirs
        self._store = store
        self._refreshing: Operation[bool] | None = None  # while the store is at work on this very thread
        self.engine: Reader | None = None

    async def open(self) -> NativeState:
        rejected: list[RejectedManifest] = []
        with self._opening(rejected):
            engine = await self._asked(lambda ask: self._open(rejected, ask), rejected)
        return self._opened(engine, rejected)

    def open_now(self) -> NativeState:
        """The same, blocking."""
        rejected: list[RejectedManifest] = []
        with self._opening(rejected):
            engine = self._asked_now(lambda ask: self._open(rejected, ask), rejected)
        return self._opened(engine, rejected)

    def _asked(self, begin: Callable[[Ask | None], Operation[T]], rejected: list[RejectedManifest]) -> Awaitable[T]:
        return begin(self._ask) if self.shards is None else self.shards.run(begin, rejected)

    def _asked_now(self, begin: Callable[[Ask | None], Operation[T]], rejected: list[RejectedManifest]) -> T:
        return begin(self._ask).wait() if self.shards is None else self.shards.run(begin, rejected)

    def _open(self, rejected: list[RejectedManifest], ask: Ask | None) -> Operation[Reader]:
        return native.open_reader(self._prefix, self._options, engine_timeout(), rejected, ask)

    @contextmanager
    def _opening(self, rejected: list[RejectedManifest]) -> Iterator[None]:
        try:
            with self._pointer_named():
                yield
        except ManifestParseError:
            if rejected and self._options["max_fallback_attempts"] < 0:  # there is a fallback, but no candidate
                raise ReaderStateError(NO_GOOD_MANIFEST) from None
            raise
        finally:
            self._log_rejected(rejected)

    @contextmanager
    def _pointer_named(self) -> Iterator[None]:
        """Where there is no pointer, the engine does not know for a store of the caller's."""
        try:
            yield
        except MissingCurrentError as error:
            if self._store is not None:
                error.object_url = pointer_url(self._store)
            raise

    def _opened(self, engine: Reader, rejected: Sequence[RejectedManifest]) -> NativeState:
        self.engine = engine
        state = self._state(engine, engine.snapshot())
        if rejected:
            self._log_fell_back(state.manifest_ref, rejected[0][0])
        return state

    def _log_rejected(self, rejected: Sequence[RejectedManifest]) -> None:
        """The engine tells at the end of an opening which manifests it could not use, whether the opening failed or not."""
        max_attempts = self._options["max_fallback_attempts"]
        for number, (ref, error, malformed) in enumerate(rejected):
            if not malformed:
                self._log_unread(ref, error)
            elif number > 0:
                self._log_skipped(ref, error)
            elif max_attempts != 0:
                self._log_fallback(ref, error, max_attempts)

    def _log_unread(self, ref: str, error: BaseException) -> None:
        """Stores of the caller's say so themselves, if they like; the package's do."""
        if self._ask is None:
            log_manifest_load_failed(ref, error)

    async def refresh(self, current: SnapshotState) -> Refreshed:
        rejected: list[RejectedManifest] = []
        with self._refreshed(current, rejected):
            await self._asked(lambda ask: self._refresh(rejected, ask), rejected)
        return self._found(current, rejected)

    def refresh_now(self, current: SnapshotState) -> Refreshed:
        """The same, blocking. One that the store asks for meanwhile overtakes it."""
        outer = self._refreshing
        if outer is not None:
            outer.cancel()
        rejected: list[RejectedManifest] = []
        mine: list[Operation[bool]] = []

        def begin(ask: Ask | None) -> Operation[bool]:
            self._refreshing = refresh = self._refresh(rejected, ask)
            mine.append(refresh)
            return refresh

        with self._refreshed(current, rejected):
            try:
                self._asked_now(begin, rejected)
            except Exception:
                if self._refreshing not in mine:
                    return Refreshed(superseded=True)
                raise
            finally:
                if outer is None:
                    self._refreshing = None
        return self._found(current, rejected)

    def _refresh(self, rejected: list[RejectedManifest], ask: Ask | None) -> Operation[bool]:
        assert self.engine is not None
        return self.engine.refresh(engine_timeout(), rejected, ask)

    def _found(self, current: SnapshotState, rejected: Sequence[RejectedManifest]) -> Refreshed:
        if rejected:
            return Refreshed(malformed=str(rejected[0][1]))
        if self.shards is None:
            return Refreshed()
        state = self.current(current)  # what it replaces is closed by whoever waits for the refresh
        return Refreshed(None if state is current else state)

    @contextmanager
    def _refreshed(self, current: SnapshotState, rejected: list[RejectedManifest]) -> Iterator[None]:
        assert self.engine is not None
        try:
            with self._pointer_named():
                yield
        finally:
            for ref, error, malformed in rejected:
                if not malformed:
                    self._log_unread(ref, error)
        current.fallback = self.engine.health()["fallback"]  # the pointer may have moved back to what is served

    def current(self, known: SnapshotState) -> SnapshotState:
        """The engine's: it may move at any time while a refresh is under way, whoever waits for that or has ceased to."""
        assert self.engine is not None
        assert isinstance(known, NativeState)
        snapshot = self.engine.snapshot(known.snapshot)
        return known if snapshot is known.snapshot else self._state(self.engine, snapshot)

    def close(self) -> None:
        if self.engine is not None:
            self.engine.close()

    def borrowed(self, current: SnapshotState) -> int:
        assert self.engine is not None
        # Handles share the pin of their state, so the engine does not know them; reads that go straight to it are known to
        # it alone. Scans are known to both.
        return max(current.borrowers, self.engine.health()["borrowed"] - 1)

    def _state(self, engine: Reader, snapshot: Snapshot) -> NativeState:
        fallback = engine.health()["fallback"]
        if self.shards is None:
            return NativeState(snapshot, fallback=fallback)
        from shardyfusion.reader._foreign_shards import AsyncShards
        from shardyfusion.reader._foreign_state import ForeignState, SyncForeignState

        kind = ForeignState if isinstance(self.shards, AsyncShards) else SyncForeignState
        return kind(snapshot, fallback=fallback, shards=self.shards)
