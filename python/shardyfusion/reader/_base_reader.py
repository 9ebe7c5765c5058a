"""What the two blocking readers have in common."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import TIMEOUT_MAX, RLock
from typing import TYPE_CHECKING, Any, Self

import shardyfusion
from shardyfusion._fork import add_locks
from shardyfusion._storage_errors import READER_CLOSED
from shardyfusion._timeouts import Timeout, seconds, until
from shardyfusion.errors import OperationTimeoutError, ReaderStateError
from shardyfusion.logging import log_event
from shardyfusion.reader._common import CommonReader
from shardyfusion.reader._following import follow_in_thread, tell, watch_now
from shardyfusion.reader._options import SyncReaderOptions, given
from shardyfusion.reader._readiness import Progress, ready_now
from shardyfusion.reader._source import Refreshed
from shardyfusion.reader._sources import sync_source_for
from shardyfusion.reader._state import close_error, describe_reader
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._sync_reads import PinnedSnapshot, SyncReads
from shardyfusion.reader._sync_shards import SyncShard
from shardyfusion.reader._types import SnapshotInfo
from shardyfusion.type_defs import K, ShardReader

if TYPE_CHECKING:
    from shardyfusion.reader._state import SnapshotState


class _BaseShardedReader(CommonReader[ShardReaderHandle, K], SyncReads[K]):
    """A blocking reader. Where the two differ, they say so in attributes."""

    # ---- life

    def __init__(
        self,
        options: SyncReaderOptions,
        *,
        share: Callable[[Callable[[], ShardReader]], SyncShard],
        open_together: bool,
    ) -> None:
        self._prepare(options, lambda: sync_source_for(options, self._log, share=share, open_together=open_together))
        self.max_workers: int | None = options.max_workers
        # Refreshes, one after the other: who comes second finds that there is nothing to load. Only one inside of another, made
        # by a store of the caller's, overtakes it; that one is superseded.
        self._refreshing: Any
        add_locks(self, _swapping=RLock, _refreshing=RLock)
        self._state: SnapshotState
        with until(options.open_timeout), self._opening():
            self._state = self._source.open_now()
        self._source.told.announced = self._state.info()
        self._foreign = self._source.shards is not None
        if not self._foreign:  # look-ups need not pass through here at all
            self._attach_to(self._engine())
        self._tell_opened(self._state)
        if options.refreshes_itself:
            follow_in_thread(weakref.ref(self), self._engine(), self._log)

    def reopen(self) -> Self:
        """Another reader of the same arguments: in a forked child, say, where this one cannot read, or after `close()`."""
        return type(self)(**given(self._options, type(self)))

    def as_async(self) -> shardyfusion.AsyncShardedReader[K]:
        """A reader for asyncio beside this one: `AsyncShardedReader.from_sync(self)`."""
        return shardyfusion.AsyncShardedReader.from_sync(self)

    def close(self) -> None:
        """No new reads from now on; what is borrowed or in flight finishes first. Any number of times.

        DbAdapterError when a shard cannot be closed; the reader is closed all the same.
        """
        with self._swapping:
            if self._closed:
                return
            self._closed = True
            self._detach()
            state = self._state
            state.keep_facts()
        self._source.close()
        failures = state.dispose_now() if state.retire() else []
        self._metrics.tell()
        if failures:
            raise close_error(failures, self._what_does_not_close)
        self._tell_closed(state)

    def __repr__(self) -> str:
        return describe_reader(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and hasattr(self, "_state"):
            self._closed = True
            self._source.close()
            if self._state.retire():
                self._state.dispose_now()

    def _opened(self) -> SnapshotState:
        if self._closed:
            raise ReaderStateError(READER_CLOSED)
        return self._follow()

    def _served(self) -> SnapshotState:
        return self._follow()

    def _follow(self) -> SnapshotState:
        """The snapshot that is served: every fact, scan and handle is of the one that look-ups go to."""
        known = self._state
        if self._closed or self._source.current(known) is known:
            return known
        with self._swapping:  # whoever uses a snapshot that he has not borrowed holds it, too
            known = self._state
            if self._closed:
                return known
            state: Any = self._source.current(known)
            if state is not known:
                self._state = state
                if known.retire():
                    known.dispose_now()
            return self._state

    def pin(self) -> PinnedSnapshot[K]:
        """The snapshot that is served now, for several reads of the same one, whatever the reader moves to and also when it is
        closed: `with reader.pin() as pinned`, or `close()` it."""
        return PinnedSnapshot(self, self._borrow())

    def ready(self, *, timeout: Timeout = None, progress: Progress | None = None) -> None:
        """Brings the snapshot that is served to where `residency` says: with "memory" and "disk" no look-up in it asks storage from then
        on. To be called again when a refresh has moved the reader. `progress` is called with the bytes so far and all
        bytes, or is a bar such as `tqdm(unit="B", unit_scale=True)`; None: a line where standard error is a terminal, False: nothing."""
        self._opened()
        with until(timeout):
            ready_now(self._engine(), progress)

    # ---- refresh

    def refresh(self, *, timeout: Timeout = None) -> bool:
        """Moves to the snapshot that the pointer names now; whether that is another one.

        When it fails, and when the new manifest is malformed (False), the reader stays as it was. However it fails,
        interrupted and timed out too, `health().last_refresh_error` says why until one ends well. `timeout` bounds requests
        of the built-in store and shard readers, and waiting for another refresh; a store of the caller's is not
        interrupted. Of several threads that call it at once the first
        one reports the change.
        """
        try:
            with until(timeout), self._one_at_a_time(seconds(timeout)):
                moved = self._refresh(self._opened())
        except (Exception, KeyboardInterrupt) as error:
            self._refresh_failed(error)
            raise
        if moved is not None and self._on_refresh is not None:
            tell(self._on_refresh, *moved, self._log)
        return moved is not None

    def watch(self) -> Iterator[SnapshotInfo]:
        """The snapshots that the reader moves to from now on, whoever refreshes it, until it is closed: it blocks until the next
        one. Who takes them slower than it moves gets the newest. By itself a reader moves with `refresh_interval` only."""
        return watch_now(self._engine(), self._opened().manifest_ref, lambda: self._opened().info())

    @contextmanager
    def _one_at_a_time(self, timeout: float | None) -> Iterator[None]:
        lock = self._refreshing
        if not lock.acquire(timeout=-1 if timeout is None else min(timeout, TIMEOUT_MAX)):
            late = OperationTimeoutError(
                f"refresh of {self.s3_prefix} took longer than its timeout of {timeout:g} s, while another refresh ran"
            )
            late.operation, late.object_url = "refresh", self.s3_prefix
            raise late
        try:
            yield
        finally:
            lock.release()

    def _refresh(self, current: SnapshotState) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        with self._looking():
            found = self._source.refresh_now(current)
        return self._take(current, found)

    def _take(self, current: SnapshotState, found: Refreshed) -> tuple[SnapshotInfo, SnapshotInfo] | None:
        if found.superseded:
            log_event("reader_refresh_superseded", logger=self._log)
            return None
        if found.state is not None and not self._install(current, found.state):
            return None
        return self._refreshed(found.malformed)

    def _install(self, current: SnapshotState, new: Any) -> bool:
        with self._swapping:
            closed, superseded = self._closed, self._state is not current
            if not closed and not superseded:
                self._state = new
        if closed:
            new.dispose_now()
            raise ReaderStateError(READER_CLOSED)
        if superseded:
            new.dispose_now()
            log_event("reader_refresh_superseded", logger=self._log, manifest_ref=new.manifest_ref)
            return False
        if current.retire():
            current.dispose_now()
        return True
