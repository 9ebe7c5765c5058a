"""The reader for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from shardyfusion._engine import native
from shardyfusion._storage_errors import (
    NO_CURRENT,
    NO_CURRENT_AT_REFRESH,
    READER_CLOSED,
    MissingCurrentError,
    no_current,
)
from shardyfusion._store_events import noting
from shardyfusion._timeouts import Timeout, within
from shardyfusion._turn import give_way
from shardyfusion.errors import ReaderStateError
from shardyfusion.logging import FailureSeverity, get_logger, log_event, log_failure
from shardyfusion.metrics import MetricEvent
from shardyfusion.reader._async_reads import AsyncPinnedSnapshot, AsyncReads
from shardyfusion.reader._following import follow, tell_async, watch
from shardyfusion.reader._handle import AsyncShardReaderHandle
from shardyfusion.reader._health import HealthRecord, StalenessOf
from shardyfusion.reader._key_guard import KeyGuard
from shardyfusion.reader._limiter import limiter_for_reader
from shardyfusion.reader._observe import Metrics
from shardyfusion.reader._open import Opening, coroutine_function
from shardyfusion.reader._options import AsyncReaderOptions, OpenOptions, given, takes
from shardyfusion.reader._slatedb_shard import AsyncSlateDbReaderFactory
from shardyfusion.reader._source import make_local_root
from shardyfusion.reader._sources import source_for
from shardyfusion.reader._state import SnapshotState, close_error
from shardyfusion.reader._types import ReaderHealth, SnapshotInfo
from shardyfusion.storage import given_text

if TYPE_CHECKING:
    from shardyfusion._native import Reader

__all__ = ["AsyncShardReaderHandle", "AsyncShardedReader", "AsyncSlateDbReaderFactory"]

_log = get_logger(__name__)

_NOT_OPEN = "Reader not yet initialized (use open())"


class AsyncShardedReader(AsyncReads):
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

    @takes(AsyncReaderOptions)
    def __init__(self, options: AsyncReaderOptions) -> None:
        """Opens nothing yet."""
        super().__init__()
        options.check()
        self.s3_prefix = given_text(options.s3_prefix)
        self.local_root = options.local_root
        self._metrics = Metrics(options.metrics_collector)
        with noting(self._metrics.store_events):
            self._source = source_for(options, _log)
        self._foreign = self._source.shards is not None
        self._max_concurrency = options.max_concurrency
        self._limiter = limiter_for_reader(options.rate_limiter, self.s3_prefix)
        self._key_guard = KeyGuard(options.strict_keys, _log, self.s3_prefix)
        self._state: SnapshotState | None = None
        self._announced: SnapshotInfo | None = None  # that opening or a refresh told of last
        self._on_refresh = options.on_refresh
        self._refreshes_itself = options.refreshes_itself
        self._follower: asyncio.Task[None] | None = None
        self._closed = False
        self._record = HealthRecord()
        self._refreshing: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

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
        make_local_root(self.local_root)
        try:
            self._state = state = await self._source.open()
        except MissingCurrentError as error:
            log_failure("reader_current_not_found", severity=FailureSeverity.ERROR, logger=_log, s3_prefix=self.s3_prefix)
            raise no_current(error, NO_CURRENT) from error.__cause__
        finally:
            self._metrics.tell()
        self._announced = state.info()
        self._record.refreshed()
        if not self._foreign:  # look-ups need not pass through here at all
            self._attach_to(self._engine())
        log_event(
            "reader_initialized",
            logger=_log,
            s3_prefix=self.s3_prefix,
            num_shards=state.num_dbs,
            manifest_ref=state.manifest_ref,
        )
        self._metrics.emit(MetricEvent.READER_INITIALIZED, {})
        if self._refreshes_itself:
            loop = native.running_loop()
            self._follower = loop.create_task(follow(weakref.ref(self), self._engine(), _log), name="shardyfusion-refresh")

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
        if state is None:
            return
        if failures:
            raise close_error(failures)
        log_event("reader_closed", logger=_log, s3_prefix=self.s3_prefix, num_handles_closed=state.num_dbs)
        self._metrics.emit(MetricEvent.READER_CLOSED, {"num_handles": state.num_dbs})

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

    def _opened(self) -> SnapshotState:
        if self._closed:
            raise ReaderStateError(READER_CLOSED)
        if self._state is None:
            raise ReaderStateError(_NOT_OPEN)
        return self._follow(self._state)

    def _follow(self, known: SnapshotState) -> SnapshotState:
        """The snapshot that is served: every fact, scan and handle is of the one that look-ups go to."""
        state = self._source.current(known)
        if state is not known:
            self._state = state
            if known.retire():
                known.dispose_soon()
        return state

    def pin(self) -> AsyncPinnedSnapshot:
        """The snapshot that is served now, for several reads of the same one, whatever the reader moves to and also when it is
        closed: `async with reader.pin() as pinned`, or `close()` it. No await."""
        return AsyncPinnedSnapshot(self, self._borrow())

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
            self._record.refreshed(error)
            raise
        if moved is not None and self._on_refresh is not None:
            await tell_async(self._on_refresh, *moved, _log)
        return moved is not None

    def watch(self) -> AsyncIterator[SnapshotInfo]:
        """The snapshots that the reader moves to from now on, whoever refreshes it, until it is closed. Who takes them slower than
        it moves gets the newest. By itself a reader moves with `refresh_interval` only."""
        return watch(self._engine(), self._opened().manifest_ref, self.snapshot_info)

    def _engine(self) -> Reader:
        assert self._source.engine is not None
        return self._source.engine

    async def _refresh(self) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        self._opened()
        await give_way()  # a store of the caller's may know at once that nothing has changed
        async with self._refresh_lock():
            current = self._opened()
            try:
                found = await self._source.refresh(current)
            except Exception as error:
                if isinstance(error, MissingCurrentError):
                    log_failure("reader_refresh_current_not_found", severity=FailureSeverity.ERROR, logger=_log)
                    raise no_current(error, NO_CURRENT_AT_REFRESH) from error.__cause__
                raise
            finally:
                self._metrics.tell()
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

    def _refreshed(self, malformed: str | None) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        """From where and to where the reader has moved since somebody was told so: perhaps in a call that was cancelled as it
        did. None: it has not."""
        state = self._opened()
        old = self._announced
        assert old is not None
        if state.manifest_ref == old.manifest_ref:
            self._not_changed(malformed)
            return None
        self._announced = now = state.info()
        self._record.refreshed()
        log_event(
            "reader_refreshed", logger=_log, old_manifest_ref=old.manifest_ref, new_manifest_ref=now.manifest_ref
        )
        self._metrics.emit(MetricEvent.READER_REFRESHED, {"changed": True})
        return old, now

    def _not_changed(self, malformed: str | None) -> None:
        self._record.refreshed(malformed)
        if malformed is None:
            log_event("reader_refresh_unchanged", logger=_log)
        else:
            log_failure(
                "reader_refresh_malformed_manifest", severity=FailureSeverity.ERROR, logger=_log, reason=malformed
            )
        self._metrics.emit(MetricEvent.READER_REFRESHED, {"changed": False})

    def _refresh_lock(self) -> asyncio.Lock:
        """Of the running event loop: a lock cannot be shared by two."""
        loop = native.running_loop()
        if self._refreshing is None or self._refreshing[0] is not loop:
            self._refreshing = (loop, asyncio.Lock())
        return self._refreshing[1]

    # ---------------------------------------------------------------- facts

    def health(self, *, staleness_threshold: timedelta | None = None, by: StalenessOf = "reader") -> ReaderHealth:
        """How the reader is. Never fails, asks storage for nothing. "degraded": older than the threshold, by the age of
        the "reader", of its "snapshot", or of its last good "refresh".
        """
        state = None if self._closed or self._state is None else self._follow(self._state)
        return self._record.report(
            state, self._source, closed=self._closed, staleness_threshold=staleness_threshold, by=by
        )
