"""Snapshots put together from parts that the user supplies: a manifest store, a factory of shard readers, or both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING

from shardyfusion._engine import native
from shardyfusion._not_copied import NotCopied
from shardyfusion._storage_errors import (
    NO_CURRENT,
    NO_CURRENT_AT_REFRESH,
    NO_GOOD_MANIFEST,
    READER_CLOSED,
    MissingCurrentError,
    no_current,
)
from shardyfusion._store_events import note_from_now_on, noted
from shardyfusion._timeouts import without_deadline
from shardyfusion._turn import give_way
from shardyfusion.async_manifest_store import AsyncManifestStore, AsyncS3ManifestStore
from shardyfusion.errors import ConfigValidationError, ManifestParseError, ReaderStateError, ShardyfusionError
from shardyfusion.reader._scan import IteratedRows, LimitedRows, MergedRows, Row, RowSource, scan_of
from shardyfusion.reader._source import FULL_TEXT_OF_VECTOR_ONLY, Refreshed, Source, pointer_url
from shardyfusion.reader._state import RoutingContext, SnapshotState, log_close_failed
from shardyfusion.reader._types import ShardDetail, SnapshotInfo
from shardyfusion.routing import SnapshotRouter
from shardyfusion.sharding_types import ShardHashAlgorithm
from shardyfusion.type_defs import AsyncShardReader, AsyncShardReaderFactory, KeyInput

if TYPE_CHECKING:
    from shardyfusion.manifest import ManifestRef, ParsedManifest, RequiredShardMeta
    from shardyfusion.storage import AsyncStorageBackend

_closing: set[asyncio.Task[list[tuple[int, Exception]]]] = set()  # asyncio itself keeps only weak references to tasks


class EmptyShard:
    """A shard without rows. There is nothing to open for it."""

    async def get(self, key: bytes) -> bytes | None:
        return None

    def scan(self, **options: object) -> EmptyShard:
        return self

    def __aiter__(self) -> EmptyShard:
        return self

    async def __anext__(self) -> tuple[bytes, bytes]:
        raise StopAsyncIteration

    async def close(self) -> None:
        pass


class LazyShard(NotCopied):
    """A shard that opens when it is first read. A failed opening fails that read only; the next one tries again."""

    def __init__(self, opener: Callable[[], Awaitable[AsyncShardReader]]) -> None:
        self._opener = opener
        self._opening: asyncio.Task[AsyncShardReader] | None = None
        self._shard: AsyncShardReader | None = None
        self._closed = False

    async def get(self, key: bytes) -> bytes | None:
        shard = self._shard or await self.opened()
        return await shard.get(key)

    async def opened(self) -> AsyncShardReader:
        """The shard's reader. One opening for all that wait: none of them may cancel it for the others."""
        if self._shard is not None:
            return self._shard
        if self._closed:
            raise ReaderStateError(READER_CLOSED)
        if self._opening is None:
            with without_deadline():
                self._opening = asyncio.ensure_future(self._open())
            self._opening.add_done_callback(_look_at_error)
        return await asyncio.shield(self._opening)

    async def _open(self) -> AsyncShardReader:
        try:
            shard = await self._opener()
        finally:
            self._opening = None
        if self._closed:
            await shard.close()
            raise ReaderStateError(READER_CLOSED)
        self._shard = shard
        return shard

    async def scan(self, **options: object) -> AsyncIterator[Row]:
        async for row in scan_of(await self.opened())(**options):
            yield row

    async def close(self) -> None:
        self._closed = True
        shard, self._shard = self._shard, None
        if shard is not None:
            await shard.close()


def _look_at_error(task: asyncio.Task[AsyncShardReader]) -> None:
    """Or asyncio complains, when all that waited for it were cancelled."""
    if not task.cancelled():
        task.exception()


class PluggedState(SnapshotState):
    """A snapshot of parts. `shards` has one reader a shard, in db_id order."""

    def __init__(
        self, ref: str, manifest: ParsedManifest, router: SnapshotRouter, shards: list[AsyncShardReader], log: Logger
    ) -> None:
        super().__init__()
        self._log = log
        self.manifest_ref = ref
        self.num_dbs = router.num_dbs
        self.encoding = router.key_encoding.value
        self._manifest = manifest
        self._router = router
        self._shards = shards

    def locate(self, key: KeyInput, routing_context: RoutingContext | None) -> int:
        context = None if routing_context is None else dict(routing_context)
        return self._router.route(key, routing_context=context)

    def encode(self, key: KeyInput) -> bytes:
        return self._router.encode_lookup_key(key)

    async def get(self, db_id: int, key: bytes) -> bytes | None:
        return await self._shards[db_id].get(key)

    async def get_many(self, db_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        shard = self._shards[db_id]
        values = []
        for key in keys:
            values.append(await shard.get(key))
            await give_way()
        return values

    def shard(self, db_id: int) -> AsyncShardReader:
        return self._shards[db_id]

    def scan(
        self,
        *,
        db_id: int | None,
        start: bytes | None,
        end: bytes | None,
        prefix: bytes | None,
        limit: int | None,
        reverse: bool,
    ) -> RowSource:
        def rows_of(one: int) -> RowSource:
            scan = scan_of(self._shards[one])
            return IteratedRows(aiter(scan(start=start, end=end, prefix=prefix, limit=limit, reverse=reverse)))

        if db_id is not None:
            return rows_of(db_id)
        merged = MergedRows([rows_of(one) for one in range(self.num_dbs)], reverse=reverse)
        return merged if limit is None else LimitedRows(merged, limit)

    def info(self) -> SnapshotInfo:
        build = self._manifest.required_build
        return SnapshotInfo(
            run_id=build.run_id,
            num_dbs=build.num_dbs,
            sharding=build.sharding.strategy,
            created_at=build.created_at,
            manifest_ref=self.manifest_ref,
            row_count=sum(shard.row_count for shard in self._manifest.shards),
            key_encoding=build.key_encoding,
            hash_algorithm=ShardHashAlgorithm(build.sharding.hash_algorithm),
        )

    def shard_details(self) -> list[ShardDetail]:
        return [ShardDetail(s.db_id, s.row_count, s.min_key, s.max_key, s.db_url) for s in self._router.shards]

    def shard_meta(self, db_id: int) -> RequiredShardMeta:
        return self._router.get_shard(db_id)

    async def dispose(self) -> list[tuple[int, Exception]]:
        return await asyncio.shield(self._closing_task())  # whoever waits may be cancelled, closing goes on

    def _closing_task(self) -> asyncio.Task[list[tuple[int, Exception]]]:
        task = asyncio.get_running_loop().create_task(self._close_all())
        _closing.add(task)
        task.add_done_callback(_closing.discard)
        return task

    async def _close_all(self) -> list[tuple[int, Exception]]:
        failures = []
        for db_id, shard in enumerate(self._shards):
            try:
                await shard.close()
            except Exception as error:
                failures.append((db_id, error))
                log_close_failed(error, db_id, self.manifest_ref, self._log)
        return failures

    def dispose_soon(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # none runs in this thread: a short one of our own
            asyncio.run(self._close_all())
        else:
            self._closing_task()


class PrefixManifestStore(AsyncS3ManifestStore):
    """The default store of a reader that was given a prefix: it also finds the manifests of a moved snapshot."""

    def __init__(
        self,
        backend: AsyncStorageBackend,
        prefix: str,
        *,
        current_pointer_key: str,
        relocate: bool,
        confine: bool | None,
    ) -> None:
        super().__init__(backend, prefix, current_pointer_key=current_pointer_key)
        self._relocate = relocate
        self._confine = confine

    def _manifest_url(self, ref: str) -> str:
        return native.manifest_location(ref, self.s3_prefix, self._relocate, self._confine)


class PluggedSource(Source):
    """Follows a manifest store, and opens shards with a factory.

    `location` turns a shard's published URL (and its manifest) into the one that the factory gets.
    """

    def __init__(
        self,
        store: AsyncManifestStore,
        factory: AsyncShardReaderFactory,
        *,
        local_root: str,
        max_fallbacks: int,
        open_concurrency: int,
        lazy_open: bool,
        location: Callable[[str, ParsedManifest], str],
        log: Logger,
    ) -> None:
        super().__init__(log)
        self._events = noted()
        self._store = store
        self._factory = factory
        self._local_root = Path(local_root)
        self._max_fallbacks = max_fallbacks
        self._open_concurrency = open_concurrency
        self._lazy = lazy_open
        self._location = location

    async def open(self) -> PluggedState:
        ref = await self._current(NO_CURRENT)
        try:
            return await self._build(ref)
        except ManifestParseError as error:
            if self._max_fallbacks == 0:
                raise
            return await self._fall_back(ref, error)

    async def refresh(self, current: SnapshotState) -> Refreshed:
        ref = await self._current(NO_CURRENT_AT_REFRESH)
        if ref.ref == current.manifest_ref:
            current.fallback = False  # the pointer has moved back to what is served
            return Refreshed()
        try:
            return Refreshed(await self._build(ref))
        except ManifestParseError as error:
            return Refreshed(malformed=str(error))

    async def _current(self, missing: str) -> ManifestRef:
        ref = await self._store.load_current()
        if ref is None:
            error = MissingCurrentError(missing)
            error.object_url = pointer_url(self._store)
            raise no_current(error, missing)
        return ref

    async def _fall_back(self, failed: ManifestRef, error: ManifestParseError) -> PluggedState:
        self._log_fallback(failed.ref, error, self._max_fallbacks)
        for ref in await self._store.list_manifests(limit=self._max_fallbacks + 1):
            if ref.ref == failed.ref:
                continue
            try:
                state = await self._build(ref)
            except ManifestParseError as bad:
                self._log_skipped(ref.ref, bad)
                continue
            state.fallback = True
            self._log_fell_back(ref.ref, failed.ref)
            return state
        raise ReaderStateError(NO_GOOD_MANIFEST)

    # ---- one snapshot

    async def _build(self, ref: ManifestRef) -> PluggedState:
        manifest = await self._store.load_manifest(ref.ref)
        vector = manifest.custom.get("vector")
        if isinstance(vector, dict) and not vector.get("unified"):
            raise ConfigValidationError(FULL_TEXT_OF_VECTOR_ONLY)
        router = SnapshotRouter(manifest.required_build, manifest.shards)
        return await self._assemble(ref, router, manifest)

    async def _assemble(self, ref: ManifestRef, router: SnapshotRouter, manifest: ParsedManifest) -> PluggedState:
        shards = await self._open_shards(ref, router, manifest)
        return PluggedState(ref.ref, manifest, router, shards, self.log)

    async def _open_shards(
        self, ref: ManifestRef, router: SnapshotRouter, manifest: ParsedManifest
    ) -> list[AsyncShardReader]:
        with_rows = sorted((meta for meta in manifest.shards if meta.db_url), key=lambda meta: meta.db_id)
        shards: list[AsyncShardReader] = [EmptyShard()] * router.num_dbs
        if self._lazy:
            for meta in with_rows:
                shards[meta.db_id] = self._lazy_shard(meta, manifest)
            return shards
        if not with_rows:
            return shards
        gate = asyncio.Semaphore(self._open_concurrency)

        async def gated(meta: RequiredShardMeta) -> AsyncShardReader:
            async with gate:
                return await self._open_shard(meta, manifest)

        opening = {meta.db_id: asyncio.create_task(gated(meta)) for meta in with_rows}
        tasks = opening.values()
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((task for task in tasks if task.done() and not task.cancelled() and task.exception()), None)
            if failed is None:
                for db_id, task in opening.items():
                    shards[db_id] = task.result()
                return shards
        except BaseException:
            await _close_opened(opening, ref.ref, self.log)
            raise
        await _close_opened(opening, ref.ref, self.log)
        error = failed.exception()
        assert error is not None
        raise error

    def _lazy_shard(self, meta: RequiredShardMeta, manifest: ParsedManifest) -> AsyncShardReader:
        return LazyShard(lambda: self._open_shard(meta, manifest))

    def _local_dir(self, meta: RequiredShardMeta) -> Path:
        path = self._local_root / f"shard={meta.db_id:05d}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    async def _open_shard(self, meta: RequiredShardMeta, manifest: ParsedManifest) -> AsyncShardReader:
        """In a task of its own."""
        assert meta.db_url
        note_from_now_on(self._events)
        try:
            return await self._factory(
                db_url=self._location(meta.db_url, manifest),
                local_dir=self._local_dir(meta),
                checkpoint_id=meta.checkpoint_id,
                manifest=manifest,
            )
        except ShardyfusionError as error:
            if error.db_id is None:
                error.db_id = meta.db_id
            raise


async def _close_opened(opening: Mapping[int, asyncio.Task[AsyncShardReader]], manifest_ref: str, log: Logger) -> None:
    """After one failed: the others end, and what they opened is closed. Errors of closing do not matter any more."""
    for task in opening.values():
        task.cancel()
    await asyncio.gather(*opening.values(), return_exceptions=True)
    for db_id, task in opening.items():
        if not task.cancelled() and task.exception() is None:
            try:
                await task.result().close()
            except Exception as error:
                log_close_failed(error, db_id, manifest_ref, log)
