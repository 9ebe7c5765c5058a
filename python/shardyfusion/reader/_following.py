"""Readers that refresh themselves, and those who watch. The engine says when a refresh is due, and when a reader has moved."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from logging import Logger
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from shardyfusion._storage_errors import ForkedError
from shardyfusion.errors import ReaderStateError
from shardyfusion.logging import FailureSeverity, log_failure
from shardyfusion.reader._alone import alone
from shardyfusion.reader._types import SnapshotInfo

if TYPE_CHECKING:
    from shardyfusion._native import Reader

OnRefresh: TypeAlias = Callable[[SnapshotInfo, SnapshotInfo], object]
"""Called with the snapshot before and the one that is served now."""


class _Follower(Protocol):
    _closed: bool

    def refresh(self) -> Any: ...


async def follow(reader: weakref.ref[_Follower], engine: Reader, log: Logger) -> None:
    """Refreshes a reader whenever that is due, until it is closed or gone."""
    while True:
        try:
            await engine.due()
        except ReaderStateError:
            return
        follower = reader()
        if follower is None or follower._closed:
            return
        try:
            await follower.refresh()
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled(error):
                raise
            _log_failed(follower, error, log)
        del follower


def follow_in_thread(reader: weakref.ref[_Follower], engine: Reader, log: Logger) -> None:
    """The same, for a blocking reader, in a thread of its own."""
    threading.Thread(target=_follow_now, args=(reader, engine, log), name="shardyfusion-refresh", daemon=True).start()


def _follow_now(reader: weakref.ref[_Follower], engine: Reader, log: Logger) -> None:
    while True:
        try:
            engine.due().wait()
        except ReaderStateError:
            return
        follower = reader()
        if follower is None or follower._closed:
            return
        try:
            follower.refresh()
        except BaseException as error:  # nobody else can be meant by it: this thread is ours
            _log_failed(follower, error, log)
        del follower


def _is_cancelled(error: BaseException) -> bool:
    """Whether it is for the running task. What the caller's code awaits may have been cancelled by others."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _log_failed(follower: _Follower, error: BaseException, log: Logger) -> None:
    if not follower._closed:
        log_failure("reader_refresh_failed", severity=FailureSeverity.TRANSIENT, error=error, logger=log)


def tell(on_refresh: OnRefresh, before: SnapshotInfo, now: SnapshotInfo, log: Logger) -> Any:
    """What it returns; None when it fails, which is logged and harms no refresh."""
    try:
        return on_refresh(before, now)
    except Exception as error:
        _log_callback_failed(error, log)
        return None


async def tell_async(on_refresh: OnRefresh, before: SnapshotInfo, now: SnapshotInfo, log: Logger) -> None:
    """The same; what it returns is awaited where it can be."""
    result = tell(on_refresh, before, now, log)
    if inspect.isawaitable(result):
        try:
            await result
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled(error):
                raise
            _log_callback_failed(error, log)


def _log_callback_failed(error: BaseException, log: Logger) -> None:
    log_failure("reader_on_refresh_failed", severity=FailureSeverity.ERROR, error=error, logger=log)


async def watch(engine: Reader, known: str, present: Callable[[], SnapshotInfo]) -> AsyncIterator[SnapshotInfo]:
    """The snapshots that a reader moves to after `known`, until it is closed."""
    while True:
        try:
            await engine.moved(known)
            info = present()
        except ForkedError:
            raise
        except ReaderStateError:
            return
        known = info.manifest_ref
        yield info


def watch_now(engine: Reader, known: str, present: Callable[[], SnapshotInfo]) -> Iterator[SnapshotInfo]:
    """The same, blocking."""
    return alone(_watch_now(engine, known, present))


def _watch_now(engine: Reader, known: str, present: Callable[[], SnapshotInfo]) -> Iterator[SnapshotInfo]:
    while True:
        try:
            engine.moved(known).wait()
            info = present()
        except ForkedError:
            raise
        except ReaderStateError:
            return
        known = info.manifest_ref
        yield info
