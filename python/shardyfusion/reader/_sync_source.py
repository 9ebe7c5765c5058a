"""Snapshots of blocking readers that are put together from the caller's own parts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from itertools import islice
from logging import Logger
from typing import TYPE_CHECKING, Any

from shardyfusion._store_events import noting
from shardyfusion.cel import UnknownRoutingTokenError
from shardyfusion.errors import ConfigValidationError, DbAdapterError, ShardyfusionError
from shardyfusion._immediate import run_now
from shardyfusion.reader._multi_get import OnError
from shardyfusion.reader._plugged_source import PluggedSource, PluggedState
from shardyfusion.reader._scan import Row
from shardyfusion.reader._source import Refreshed
from shardyfusion.reader._state import RoutingContext, SnapshotState, log_close_failed
from shardyfusion.reader._sync_shards import EmptyShard, SyncShard
from shardyfusion.routing import SnapshotRouter
from shardyfusion.type_defs import KeyInput, ShardReader, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion.manifest import ManifestRef, ParsedManifest, RequiredShardMeta


class SyncPluggedState(PluggedState):
    """A snapshot of parts, blocking."""

    def __init__(
        self, ref: str, manifest: ParsedManifest, router: SnapshotRouter, shards: list[SyncShard], log: Logger
    ) -> None:
        super().__init__(ref, manifest, router, [], log)
        self._sync_shards = shards

    def look_up_now(self, key: KeyInput, routing_context: RoutingContext | None) -> bytes | None:
        """The value of a key, wherever it lies."""
        try:
            db_id = self.locate(key, routing_context)
        except UnknownRoutingTokenError:
            return None  # its token is none of this snapshot's, so it has no value
        return self._get(db_id, key)

    def look_up_many_now(
        self,
        keys: Sequence[KeyInput],
        routing_context: RoutingContext | None,
        on_error: OnError,
        max_workers: int | None,
    ) -> dict[KeyInput, Any]:
        """The same for many keys; with workers, several shards at a time."""
        result: dict[KeyInput, Any] = dict.fromkeys(keys)
        groups: dict[int, list[KeyInput]] = {}
        for key in result:
            with suppress(UnknownRoutingTokenError):
                groups.setdefault(self.locate(key, routing_context), []).append(key)
        read = self._values if on_error == "raise" else self._values_or_errors
        if max_workers is None or max_workers == 1 or len(groups) <= 1:
            for db_id, group in groups.items():
                result.update(zip(group, read(db_id, group), strict=True))
            return result
        with ThreadPoolExecutor(min(max_workers, len(groups))) as pool:
            reading = {db_id: pool.submit(copy_context().run, read, db_id, group) for db_id, group in groups.items()}
            for db_id, group in groups.items():
                try:
                    result.update(zip(group, reading[db_id].result(), strict=True))
                except ShardyfusionError:
                    raise
                except Exception as error:
                    raise DbAdapterError(f"Read failed for shard db_id={db_id}") from error
        return result

    def _get(self, db_id: int, key: KeyInput) -> bytes | None:
        return self._sync_shards[db_id].get_many([self.encode(key)])[0]

    def _values(self, db_id: int, keys: list[KeyInput]) -> list[Any]:
        return list(self._sync_shards[db_id].get_many([self.encode(key) for key in keys]))

    def _values_or_errors(self, db_id: int, keys: list[KeyInput]) -> list[Any]:
        values: list[Any] = []
        for key in keys:
            try:
                values.append(self._get(db_id, key))
            except Exception as error:
                values.append(error)
        return values

    def shard_now(self, db_id: int) -> ShardReader:
        return self._sync_shards[db_id].reader

    def rows_now(
        self, *, timeout: float | None, db_id: int | None, limit: int | None, reverse: bool, **bounds: Any
    ) -> Iterator[Row]:
        if db_id is not None:
            return self._rows_of(db_id, limit=limit, reverse=reverse, **bounds)
        rows = heapq.merge(
            *(self._rows_of(one, limit=limit, reverse=reverse, **bounds) for one in range(self.num_dbs)),
            key=lambda row: row[0],
            reverse=reverse,
        )
        return rows if limit is None else islice(rows, limit)

    def _rows_of(self, db_id: int, **options: Any) -> Iterator[Row]:
        reader = self._sync_shards[db_id].reader
        scan = getattr(reader, "scan", None)
        if scan is None:
            raise ConfigValidationError(f"shard readers of type {type(reader).__qualname__} cannot scan")
        return iter(scan(**options))

    def keep_facts(self) -> None:
        """They are in the manifest, which stays."""

    def dispose_now(self) -> list[tuple[int, Exception]]:
        failures = []
        for db_id, shard in enumerate(self._sync_shards):
            try:
                shard.close()
            except Exception as error:
                failures.append((db_id, error))
                log_close_failed(error, db_id, self.manifest_ref, self._log)
        return failures

    async def dispose(self) -> list[tuple[int, Exception]]:
        return self.dispose_now()

    def dispose_soon(self) -> None:
        self.dispose_now()


class SyncPluggedSource(PluggedSource):
    """Follows a blocking manifest store (given as one that never waits), and opens shards with a blocking factory.

    `share` makes a shard out of as many readers as it asks its argument for.
    """

    def __init__(
        self,
        *args: Any,
        sync_factory: ShardReaderFactory,
        share: Callable[[Callable[[], ShardReader]], SyncShard],
        open_together: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sync_factory = sync_factory
        self._share = share
        self._open_many = getattr(sync_factory, "open_many", None) if open_together else None

    def open_now(self) -> SyncPluggedState:
        return run_now(self.open())  # type: ignore[return-value]

    def refresh_now(self, current: SnapshotState) -> Refreshed:
        return run_now(self.refresh(current))

    async def _assemble(self, ref: ManifestRef, router: SnapshotRouter, manifest: ParsedManifest) -> SyncPluggedState:
        return SyncPluggedState(ref.ref, manifest, router, self._open_all(ref, router, manifest), self.log)

    def _open_all(self, ref: ManifestRef, router: SnapshotRouter, manifest: ParsedManifest) -> list[SyncShard]:
        with noting(self._events):
            return self._open_each(ref, router, manifest)

    def _open_each(self, ref: ManifestRef, router: SnapshotRouter, manifest: ParsedManifest) -> list[SyncShard]:
        filled = sorted((meta for meta in manifest.shards if meta.db_url), key=lambda meta: meta.db_id)
        together: Iterator[ShardReader] | None = None
        if self._open_many is not None and len(filled) > 1:
            for meta in filled:
                self._local_dir(meta)
            together = iter(self._open_many([(self._location(str(m.db_url), manifest), manifest) for m in filled]))
        opened: list[SyncShard] = []
        try:
            for meta in filled:
                opened.append(self._share(together.__next__ if together else self._opener(meta, manifest)))
        except BaseException:
            for meta, shard in zip(filled, opened, strict=False):
                try:
                    shard.close()
                except Exception as error:
                    log_close_failed(error, meta.db_id, ref.ref, self.log)
            raise
        shards: list[SyncShard] = [EmptyShard()] * router.num_dbs
        for meta, shard in zip(filled, opened, strict=True):
            shards[meta.db_id] = shard
        return shards

    def _opener(self, meta: RequiredShardMeta, manifest: ParsedManifest) -> Callable[[], ShardReader]:
        return lambda: self._sync_factory(
            db_url=self._location(str(meta.db_url), manifest),
            local_dir=self._local_dir(meta),
            checkpoint_id=meta.checkpoint_id,
            manifest=manifest,
        )
