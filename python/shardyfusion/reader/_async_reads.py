"""What can be asked of a snapshot under asyncio: by a reader of the one that it serves, and of one that is pinned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, overload

from shardyfusion._engine import native
from shardyfusion._timeouts import Timeout, seconds, within
from shardyfusion.errors import ReaderStateError
from shardyfusion.reader._common import SLOTS, CommonReads
from shardyfusion.reader._handle import AsyncShardReaderHandle, PluggedShardHandle
from shardyfusion.reader._scan import (
    AsyncScan,
    ChainedRows,
    LimitedRows,
    ScanOptions,
    check_scan,
    key_decoder,
    scan_bounds,
)
from shardyfusion.reader._state import SNAPSHOT_GIVEN_BACK, SnapshotState
from shardyfusion.reader._types import OnError
from shardyfusion.type_defs import K, PlainKey

if TYPE_CHECKING:
    from shardyfusion._native import Reader, Snapshot
    from shardyfusion.reader._foreign_state import ForeignState


NOBODY_ELSE: AbstractContextManager[Any] = nullcontext()
"""Comes in between, as `_swapping`."""


class AsyncReads(CommonReads[AsyncShardReaderHandle, K], native.ReaderCore[K]):
    """Reads of the snapshot that `_opened()` tells."""

    __slots__ = (*SLOTS, "_max_concurrency", "_refreshes_itself", "_follower", "_beside", "_closes_beside")

    _max_concurrency: int | None
    _foreign: bool  # shards are of a factory of the caller's

    def _attach_to(self, engine: Reader | Snapshot) -> None:
        self._attach_core(self, engine)

    def _borrow(self) -> SnapshotState:
        with self._swapping:
            state = self._opened()
            state.borrow()
            return state

    async def _end_read(self, state: SnapshotState) -> None:
        try:
            self._metrics.tell()
        finally:  # whatever interrupts a collector
            await state.give_back_and_dispose()

    # ---------------------------------------------------------------- look-ups
    # get, multi_get and those like them are ReaderCore's; without an engine that it could go to, it calls these.

    async def _get(self, key: K, routing_context: dict[str, object] | None, timeout: Timeout) -> bytes | None:
        return await within(self._get_now(key, routing_context), timeout, "get", self.s3_prefix)

    async def _get_now(self, key: K, routing_context: dict[str, object] | None) -> bytes | None:
        state = self._borrow()
        try:
            if self._limiter is not None:
                await self._limiter.wait_async(1, None, "get")
            self._key_guard.look_at((key,), state.encoding)
            with self._metrics.look_up("get") as started:
                value = await cast("ForeignState", state).look_up(key, routing_context)
            self._metrics.get_done(started, value is not None)
            return value
        finally:
            await self._end_read(state)

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

    async def _multi_get(
        self,
        keys: Sequence[K],
        routing_context: dict[str, object] | None,
        timeout: Timeout,
        on_error: OnError = "raise",
    ) -> dict[K, bytes | None]:
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
        return await within(self._multi_get_now(keys, routing_context, on_error), timeout, "multi_get", self.s3_prefix)

    async def _multi_get_now(
        self, keys: Sequence[K], routing_context: dict[str, object] | None, on_error: OnError
    ) -> dict[K, bytes | None]:
        state = self._borrow()
        try:
            if not hasattr(keys, "__len__"):
                keys = list(keys)
            if self._limiter is not None:
                await self._limiter.wait_async(len(keys), None, "multi_get")
            self._key_guard.look_at(keys, state.encoding)
            with self._metrics.look_up("multi_get") as started:
                result = await cast("ForeignState", state).look_up_many(keys, routing_context, self._max_concurrency, on_error)
            self._metrics.multi_get_done(started, keys, result)
            return result
        finally:
            await self._end_read(state)

    # ---------------------------------------------------------------- rows

    @overload
    def scan(
        self,
        start: K | bytes | None = None,
        end: K | bytes | None = None,
        *,
        decode_keys: Literal[False] = False,
        **options: Unpack[ScanOptions],
    ) -> AsyncScan[bytes]: ...
    @overload
    def scan(
        self,
        start: K | bytes | None = None,
        end: K | bytes | None = None,
        *,
        decode_keys: bool,
        **options: Unpack[ScanOptions],
    ) -> AsyncScan[PlainKey]: ...
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
    ) -> AsyncScan[Any]:
        """The rows of the snapshot with keys in [start, end), or with a prefix, as (key, value).

        Bounds may be keys, or stored bytes, which need not be whole keys. `order="key"` merges all shards in the order of
        stored bytes; "shard" goes through one shard after the other. `decode_keys` gives integers or text for the
        encodings that hold them. `timeout` bounds each fetch of rows.
        `scan_tokens` asks the reader's limiter for a token ahead of each 1,000
        rows. `prefetch_bytes` of each shard are read ahead at most (of all together 48 MiB, or this if it is more), not all at once:
        a scan begins with 64 KiB, and doubles it as it goes on. With 0 it reads block by block.
        """
        check_scan(start, end, prefix, limit, order, prefetch_bytes)
        state = self._borrow()
        try:
            bounds = scan_bounds(state, start, end, prefix, reverse, prefetch_bytes)
            if order == "key":
                rows = state.scan(db_id=None, limit=limit, **bounds)
            else:
                shards = [_deferred_scan(state, db_id, limit, bounds) for db_id in range(state.num_dbs)]
                chained = ChainedRows(shards)
                rows = chained if limit is None else LimitedRows(chained, limit)
            decode = key_decoder(state.encoding) if decode_keys else None
            scan = AsyncScan(rows, decode=decode, release=state.give_back_soon, timeout=timeout)
            scan.arrow_keys = state.encoding if decode_keys else "raw"
            if self._metrics.wanted:
                scan.told = self._metrics.tell
            if scan_tokens and (limiter := self._limiter) is not None:
                step = seconds(timeout)
                scan.take_token = lambda: limiter.wait_async(1, step, "scan")
            return scan
        except BaseException:
            state.give_back_soon()
            raise

    def _handle(self, state: SnapshotState, db_id: int) -> AsyncShardReaderHandle:
        state.borrow()
        try:
            kind = PluggedShardHandle if self._foreign else AsyncShardReaderHandle
            handle = kind(state.shard(db_id), state.give_back_soon)
        except BaseException:
            state.give_back_soon()
            raise
        if self._metrics.wanted:
            handle._told = self._metrics.tell
        return handle


class AsyncPinnedSnapshot(AsyncReads[K]):
    """One snapshot of a reader, which stays readable until it is closed: several reads see the same one across refreshes.
    Limited, measured and guarded as its reader is."""

    def __init__(self, reader: AsyncReads[K], state: SnapshotState, /) -> None:
        """Takes over the borrowed state."""
        super().__init__()
        self.s3_prefix: str = reader.s3_prefix
        self._metrics = reader._metrics
        self._limiter = reader._limiter
        self._key_guard = reader._key_guard
        self._max_concurrency = reader._max_concurrency
        self._foreign = reader._foreign
        self._swapping = NOBODY_ELSE
        self._pinned: SnapshotState | None = state
        if not self._foreign:
            self._attach_to(state.snapshot)

    def _opened(self) -> SnapshotState:
        if self._pinned is None:
            raise ReaderStateError(SNAPSHOT_GIVEN_BACK)
        return self._pinned

    def close(self) -> None:
        """Gives the snapshot back. Any number of times."""
        state, self._pinned = self._pinned, None
        if state is not None:
            self._detach()
            state.give_back_soon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pinned", None) is not None:
            self.close()


def _deferred_scan(
    state: SnapshotState, db_id: int, limit: int | None, bounds: dict[str, Any]
) -> Callable[[], Any]:
    return lambda: state.scan(db_id=db_id, limit=limit, **bounds)
