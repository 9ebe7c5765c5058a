"""The reader for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Self

from shardyfusion._engine import native
from shardyfusion._storage_errors import (
    NO_CURRENT_AT_REFRESH,
    READER_CLOSED,
)
from shardyfusion._timeouts import Timeout, within
from shardyfusion._turn import give_way
from shardyfusion.errors import ConfigValidationError, ReaderStateError
from shardyfusion.logging import get_logger
from shardyfusion.reader._async_reads import NOBODY_ELSE, AsyncPinnedSnapshot, AsyncReads
from shardyfusion.reader._base_reader import _BaseShardedReader
from shardyfusion.reader._common import CommonReader
from shardyfusion.reader._following import follow, tell_async, watch
from shardyfusion.reader._handle import AsyncShardReaderHandle
from shardyfusion.reader._open import Opening, coroutine_function
from shardyfusion.reader._options import AsyncReaderOptions, OpenOptions, given, takes
from shardyfusion.reader._readiness import Progress, ready
from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory
from shardyfusion.reader._sources import source_for
from shardyfusion.reader._state import SnapshotState, close_error, describe_reader
from shardyfusion.reader._types import SnapshotInfo
from shardyfusion.type_defs import K

__all__ = ["AsyncShardReaderHandle", "AsyncShardedReader", "AsyncSlateDbReaderFactory"]

_log = get_logger(__name__)

_NOT_OPEN = "Reader not yet initialized (use open())"


class AsyncShardedReader(CommonReader[AsyncShardReaderHandle, K], AsyncReads[K]):
    """Looks keys up in the snapshot that a batch job published below `s3_prefix`.

    ```python
    async with AsyncShardedReader.open(s3_prefix="s3://bucket/prefix", local_root="/tmp/cache") as reader:
        value = await reader.get(42)
    ```

    A reader serves one snapshot until `refresh()` moves it to a newer one; reads in flight, handles and scans finish on
    the snapshot that they started with. The constructor opens nothing: use `open`.

    Timeouts are seconds (or a timedelta) for the whole call; OperationTimeoutError when they pass. Coroutines do nothing
    until they are awaited. A reader is not bound to one event loop.
    """

    _log = _log
    _no_current_at_refresh = NO_CURRENT_AT_REFRESH

    @takes(AsyncReaderOptions)
    def __init__(self, options: AsyncReaderOptions) -> None:
        """Opens nothing yet."""
        super().__init__()
        self._prepare(options, lambda: source_for(options, _log))
        self._swapping = NOBODY_ELSE
        self._foreign = self._source.shards is not None
        self._max_concurrency = options.max_concurrency
        self._state: SnapshotState | None = None
        self._refreshes_itself = options.refreshes_itself
        self._follower: asyncio.Task[None] | None = None
        self._refreshing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._beside: _BaseShardedReader[K] | None = None  # a blocking reader, whose engine it has
        self._closes_beside = False

    # ---------------------------------------------------------------- life

    @classmethod
    @coroutine_function
    @takes(OpenOptions)
    def open(cls, options: OpenOptions) -> Opening[Self]:
        """Makes a reader and opens the current snapshot: `await` it, or use it in `async with` at once.

        ReaderStateError when nothing was published below the prefix (also a FileNotFoundError), and when neither the current
        manifest nor an older one can be read; ManifestParseError when the pointer is malformed.
        """
        return Opening(cls._open(options), f"{cls.__qualname__}.open")

    @classmethod
    async def _open(cls, options: OpenOptions) -> Self:
        native.running_loop()
        arguments = given(options, cls)
        timeout = arguments.pop("timeout", None)
        self = cls(**arguments)
        await within(self._load(), timeout, "open", self.s3_prefix)
        return self

    async def _load(self) -> None:
        with self._opening():
            self._state = state = await self._source.open()
        self._source.told.announced = state.info()
        if not self._foreign:  # look-ups need not pass through here at all
            self._attach_to(self._engine())
        self._tell_opened(state)
        if self._refreshes_itself:
            loop = native.running_loop()
            self._follower = loop.create_task(follow(weakref.ref(self), self._engine(), _log), name="shardyfusion-refresh")

    @classmethod
    def from_sync(cls, reader: _BaseShardedReader[K]) -> Self:
        """A reader for asyncio beside a blocking one, which stays what it is. Nothing is opened or awaited.

        Both have one engine, one cache and one snapshot: a refresh by either moves both, and only who asked for it hears True. They
        share metrics, limiter and key guard, too. Reads of this one may run on any event loop while threads read by the other.
        Its `close()` ends this one alone; when the blocking reader is closed, this one is, too (what is pinned, borrowed or scanned stays
        readable to its end). It keeps the blocking reader from being collected.

        ConfigValidationError for readers over shards of a factory of the caller's, which block the event loop: open an
        `AsyncShardedReader` with an asynchronous factory instead. TypeError for what is no blocking reader. The constructor of a
        subclass is not called.
        """
        if not isinstance(reader, CommonReader) or isinstance(reader, AsyncReads):
            raise TypeError(f"from_sync() takes a ShardedReader or a ConcurrentShardedReader, not {type(reader).__name__}")
        if reader._source.shards is not None:
            raise ConfigValidationError(
                f"{type(reader).__name__} with a reader_factory of your own cannot be used from asyncio, since its shards block: "
                "open an AsyncShardedReader with an asynchronous reader_factory"
            )
        reader._opened()
        return cls.__new__(cls)._be_beside(reader)

    def _be_beside(self, reader: _BaseShardedReader[K]) -> Self:
        super().__init__()
        self._options = reader._options
        self.s3_prefix: str = reader.s3_prefix
        self.local_root: str = reader.local_root
        self._metrics, self._limiter, self._key_guard = reader._metrics, reader._limiter, reader._key_guard
        self._on_refresh, self._swapping = reader._on_refresh, reader._swapping
        self._foreign, self._max_concurrency = False, None
        self._refreshes_itself, self._follower, self._refreshing = False, None, None
        self._beside, self._closes_beside, self._closed = reader, False, False
        self._source = reader._source.beside()
        self._state = None  # the other's is served
        self._attach_to(self._engine())
        return self

    @classmethod
    async def _reopen_beside(cls, reader: _BaseShardedReader[K]) -> Self:
        again = await asyncio.to_thread(reader.reopen)
        self = cls.from_sync(again)
        self._closes_beside = True
        return self

    def reopen(self) -> Opening[Self]:
        """Another reader of the same arguments, to await as `open`: in a forked child, say, where this one cannot read, or after
        `close()`. Of one that is beside a blocking reader: with a blocking reader of its own, which it closes."""
        if self._beside is not None:
            return Opening(self._reopen_beside(self._beside), f"{type(self).__qualname__}.reopen")
        return type(self).open(**given(self._options, type(self)))

    async def close(self) -> None:
        """No new reads from now on; what is borrowed or in flight finishes first. Any number of times.

        DbAdapterError when a shard cannot be closed; the reader is closed all the same.
        """
        if self._closed:
            return
        self._closed = True
        self._detach()
        self._source.close()
        state, self._state = self._state, None
        failures = await state.dispose() if state is not None and state.retire() else []
        self._metrics.tell()
        if self._beside is not None and self._closes_beside:
            await asyncio.to_thread(self._beside.close)
        if state is None:
            return
        if failures:
            raise close_error(failures)
        self._tell_closed(state)

    def __repr__(self) -> str:
        return describe_reader(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is not None:
            self._state = None
            self._source.close()
            if state.retire():
                state.dispose_soon()

    def _is_closed(self) -> bool:
        return self._closed or (self._beside is not None and self._beside._closed)

    def _opened(self) -> SnapshotState:
        if self._closed:
            raise ReaderStateError(READER_CLOSED)
        if self._beside is not None:
            return self._beside._opened()
        if self._state is None:
            raise ReaderStateError(_NOT_OPEN)
        return self._follow(self._state)

    def _served(self) -> SnapshotState | None:
        if self._beside is not None:
            return self._beside._served()
        return None if self._closed or self._state is None else self._follow(self._state)

    def _follow(self, known: SnapshotState) -> SnapshotState:
        """The snapshot that is served: every fact, scan and handle is of the one that look-ups go to."""
        state = self._source.current(known)
        if state is not known:
            self._state = state
            if known.retire():
                known.dispose_soon()
        return state

    def pin(self) -> AsyncPinnedSnapshot[K]:
        """The snapshot that is served now, for several reads of the same one, whatever the reader moves to and also when it is
        closed: `async with reader.pin() as pinned`, or `close()` it. No await."""
        return AsyncPinnedSnapshot(self, self._borrow())

    async def ready(self, *, timeout: Timeout = None, progress: Progress | None = None) -> None:
        """Brings the snapshot that is served to where `residency` says: with "memory" and "disk" no look-up in it asks storage from then
        on. To be called again when a refresh has moved the reader. `progress` is called with the bytes so far and all
        bytes, or is a bar such as `tqdm(unit="B", unit_scale=True)`; None: a line where standard error is a terminal, False: nothing."""
        await within(ready(self._engine(), progress), timeout, "ready", self.s3_prefix)

    # ---------------------------------------------------------------- refresh

    async def refresh(self, *, timeout: Timeout = None) -> bool:
        """Moves to the snapshot that the pointer names now; whether that is another one.

        When it fails, and when the new manifest is malformed (False), the reader stays as it was. Concurrent calls run one
        after the other. However it fails, cancelled and timed out too, `health().last_refresh_error` says why until one ends
        well.
        """
        try:
            moved = await within(self._refresh(), timeout, "refresh", self.s3_prefix)
        except (Exception, asyncio.CancelledError) as error:
            self._refresh_failed(error)
            raise
        if moved is not None and self._on_refresh is not None:
            await tell_async(self._on_refresh, *moved, _log)
        return moved is not None

    def watch(self) -> AsyncIterator[SnapshotInfo]:
        """The snapshots that the reader moves to from now on, whoever refreshes it, until it is closed. Who takes them slower than
        it moves gets the newest. By itself a reader moves with `refresh_interval` only."""
        return watch(self._engine(), self._opened().manifest_ref, self.snapshot_info)

    async def _refresh(self) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        self._opened()
        await give_way()  # a store of the caller's may know at once that nothing has changed
        async with self._refresh_lock():
            current = self._opened()
            with self._looking():
                found = await self._source.refresh(current)
            if found.state is not None:
                await self._install(current, found.state)
            return self._refreshed(found.malformed)

    async def _install(self, old: SnapshotState, new: SnapshotState) -> None:
        if self._closed:
            await new.dispose()
            raise ReaderStateError(READER_CLOSED)
        self._state = new
        if old.retire():
            await old.dispose()

    def _refresh_lock(self) -> asyncio.Lock:
        """Of the running event loop: a lock cannot be shared by two."""
        loop = native.running_loop()
        if self._refreshing is None or self._refreshing[0] is not loop:
            self._refreshing = (loop, asyncio.Lock())
        return self._refreshing[1]
