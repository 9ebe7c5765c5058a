"""What can be asked of a snapshot, blocking: by a reader of the one that it serves, and of one that is pinned."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, overload

from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._timeouts import Timeout, seconds, until
from shardyfusion.errors import ReaderStateError
from shardyfusion.reader._common import SLOTS, CommonReads
from shardyfusion.reader._scan import Rows, ScanOptions, check_scan, key_decoder, scan_bounds
from shardyfusion.reader._state import SNAPSHOT_GIVEN_BACK, SnapshotState, close_error
from shardyfusion.reader._sync_handle import ShardReaderHandle
from shardyfusion.reader._types import OnError
from shardyfusion.type_defs import K, PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import Reader, Snapshot
    from shardyfusion.reader._foreign_state import SyncForeignState

class SyncReads(CommonReads[ShardReaderHandle, K], native.BlockingReaderCore[K]):
    """Reads of the snapshot that `_opened()` tells."""

    __slots__ = (*SLOTS, "max_workers", "thread_safety", "_what_does_not_close", "_limits_first", "_release_raises")

    max_workers: int | None
    _closed: bool
    _foreign: bool  # shards are of a factory of the caller's
    _what_does_not_close: str
    _limits_first: bool
    """Whether the limiter is asked before anything else, or when the snapshot is pinned."""
    _release_raises: bool
    """Whether the release that closes a retired snapshot raises what cannot be closed; it is logged in any case."""

    def _attach_to(self, engine: Reader | Snapshot) -> None:
        self._attach_core(self, engine, pins_last=self._limits_first)

    def _borrow(self) -> SnapshotState:
        with self._swapping:
            state = self._opened()
            state.borrow()
            return state

    def _end_read(self, state: SnapshotState) -> None:
        try:
            self._metrics.tell()
        finally:  # whatever interrupts a collector
            self._give_back(state)

    def _give_back(self, state: SnapshotState) -> None:
        """Tells nobody: it may be the garbage collector that does so, in the midst of anything."""
        failures = state.dispose_now() if state.give_back() else []
        if failures and self._release_raises:
            raise close_error(failures, self._what_does_not_close)

    # ---- look-ups
    # get, multi_get and those like them are BlockingReaderCore's; without an engine that it could go to, it calls these.

    def _get(self, key: K, routing_context: dict[str, object] | None, timeout: Timeout) -> bytes | None:
        with until(timeout), self._limited_and_borrowed(1, timeout, "get") as state:
            self._key_guard.look_at((key,), state.encoding)
            with self._metrics.look_up("get") as started:
                value = state.look_up_now(key, routing_context)
            self._metrics.get_done(started, value is not None)
            return value

    def _try_get(self, key: K, routing_context: dict[str, object] | None) -> Any:
        """NotImplemented: memory does not have it, or the limiter no token."""
        state = self._opened()
        self._key_guard.look_at((key,), state.encoding)
        started = time.perf_counter()
        try:
            value = state.try_look_up(key, routing_context)
        except LookupError:
            return NotImplemented
        if self._limiter is not None and not self._limiter.try_take(1):
            return NotImplemented
        self._metrics.get_done(started, value is not None)
        return value

    def _multi_get(
        self,
        keys: Sequence[K],
        routing_context: dict[str, object] | None,
        timeout: Timeout,
        on_error: OnError = "raise",
    ) -> dict[K, bytes | None]:
        with until(timeout), self._limited_and_borrowed(len(keys), timeout, "multi_get") as state:
            self._key_guard.look_at(keys, state.encoding)
            with self._metrics.look_up("multi_get") as started:
                result = state.look_up_many_now(list(keys), routing_context, on_error, self.max_workers)
            self._metrics.multi_get_done(started, keys, result)
            return result

    @contextmanager
    def _limited_and_borrowed(self, tokens: int, timeout: Timeout, what: str) -> Iterator[SyncForeignState]:
        """Over parts of the caller's: the limiter asked, the snapshot pinned."""
        if self._limiter is not None and self._limits_first:
            self._limiter.wait(tokens, seconds(timeout), what)
        state = self._borrow()
        try:
            if self._limiter is not None and not self._limits_first:
                self._limiter.wait(tokens, seconds(timeout), what)
            yield cast("SyncForeignState", state)
        finally:
            self._end_read(state)

    # ---- rows

    @overload
    def scan(
        self,
        start: K | bytes | None = None,
        end: K | bytes | None = None,
        *,
        decode_keys: Literal[False] = False,
        **options: Unpack[ScanOptions],
    ) -> Rows[bytes]: ...
    @overload
    def scan(
        self,
        start: K | bytes | None = None,
        end: K | bytes | None = None,
        *,
        decode_keys: bool,
        **options: Unpack[ScanOptions],
    ) -> Rows[PlainKey]: ...
    def scan(
        self,
        start: K | bytes | None = None,
        end: K | bytes | None = None,
        *,
        prefix: str | bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        order: Literal["key", "shard"] = "key",
        decode_keys: bool = False,
        scan_tokens: bool = False,
        timeout: Timeout = None,
        prefetch_bytes: int = native.SCAN_PREFETCH_BYTES,
    ) -> Rows[Any]:
        """The rows of the snapshot with keys in [start, end), or with a prefix, as (key, value).

        Bounds may be keys, or stored bytes, which need not be whole keys. `order="key"` merges all shards in the order of
        stored bytes; "shard" goes through one shard after the other. `decode_keys` gives integers or text for the
        encodings that hold them. The iterator pins the snapshot until it is exhausted, closed or dropped.
        `scan_tokens` asks the reader's limiter for a token ahead of each 1,000
        rows. `prefetch_bytes` of each shard are read ahead at most (of all together 48 MiB, or this if it is more), not all at once:
        a scan begins with 64 KiB, and doubles it as it goes on. With 0 it reads block by block.
        """
        check_scan(start, end, prefix, limit, order, prefetch_bytes)
        state = self._borrow()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._give_back(state)

        try:
            bounds = scan_bounds(state, start, end, prefix, reverse, prefetch_bytes)
            step = seconds(timeout)
            if order == "key":
                scans = iter((state.rows_now(timeout=step, db_id=None, limit=limit, **bounds),))
            else:
                scans = (state.rows_now(timeout=step, db_id=n, limit=limit, **bounds) for n in range(state.num_dbs))
        except BaseException:
            release()
            raise
        decode = key_decoder(state.encoding) if decode_keys else None
        told = self._metrics.tell if self._metrics.wanted else None
        limiter = self._limiter if scan_tokens else None
        take_token = None if limiter is None else lambda: limiter.wait(1, step, "scan")
        return Rows(scans, limit, decode, state.encoding if decode_keys else "raw", release, told, take_token)

    def _handle(self, state: SnapshotState, db_id: int) -> ShardReaderHandle:
        state.borrow()
        handle = ShardReaderHandle(state.shard_now(db_id), lambda: self._give_back(state))
        if self._metrics.wanted:
            handle._told = self._metrics.tell
        return handle


class PinnedSnapshot(SyncReads[K]):
    """One snapshot of a reader, which stays readable until it is closed: several reads see the same one across refreshes.
    Limited, measured and guarded as its reader is; for as many threads."""

    def __init__(self, reader: SyncReads[K], state: SnapshotState, /) -> None:
        """Takes over the borrowed state."""
        self.s3_prefix: str = reader.s3_prefix
        self.max_workers: int | None = reader.max_workers
        self._metrics = reader._metrics
        self._limiter = reader._limiter
        self._key_guard = reader._key_guard
        self._what_does_not_close = reader._what_does_not_close
        self._limits_first = reader._limits_first
        self._release_raises = reader._release_raises
        add_locks(self, _swapping=RLock)
        self._closed = False
        self._foreign = reader._foreign
        self._pinned = state
        if not self._foreign:
            self._attach_to(state.snapshot)

    def _opened(self) -> SnapshotState:
        if self._closed:
            raise ReaderStateError(SNAPSHOT_GIVEN_BACK)
        return self._pinned

    def close(self) -> None:
        """Gives the snapshot back. Any number of times."""
        with self._swapping:
            closed, self._closed = self._closed, True
        if not closed:
            self._detach()
            self._give_back(self._pinned)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()
