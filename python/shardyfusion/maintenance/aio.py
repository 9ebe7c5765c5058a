"""`shardyfusion.maintenance` as coroutines: each runs in a thread. One that is cancelled goes on there to its end, but for what
only reads: that ends soon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Final, ParamSpec, Self, TypeVar

from shardyfusion import maintenance
from shardyfusion._not_copied import NotCopied
from shardyfusion.maintenance import (
    CleanupReport,
    Damage,
    Difference,
    DiffProgress,
    HistoryEntry,
    Leftover,
    RowChange,
    RowChanges,
    ShardVerdict,
    VerifyProgress,
    VerifyReport,
)

__all__ = [
    "AsyncRowChanges",
    "CleanupReport",
    "Damage",
    "DiffProgress",
    "Difference",
    "HistoryEntry",
    "Leftover",
    "RowChange",
    "ShardVerdict",
    "VerifyProgress",
    "VerifyReport",
    "cleanup",
    "diff",
    "diff_rows",
    "history",
    "rollback",
    "verify",
]

P = ParamSpec("P")
T = TypeVar("T")


def _in_a_thread(blocking: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(blocking)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(blocking, *args, **kwargs)

    return call


class _EitherEvent(threading.Event):
    """Set when it is, or when the other one is."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


def _ending(blocking: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(blocking)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        stop = _EitherEvent(kwargs.get("cancel"))  # type: ignore[arg-type]
        kwargs["cancel"] = stop
        try:
            return await asyncio.to_thread(blocking, *args, **kwargs)
        finally:
            stop.set()

    return call


class AsyncRowChanges(NotCopied):
    """An async iterator over the rows in which two snapshots differ; each step of reading runs in a thread. One task at a time."""

    def __init__(self, changes: RowChanges, stop: threading.Event) -> None:
        self._changes = changes
        self._stop = stop
        self._found: Iterator[RowChange] = iter(())
        self._step: asyncio.Future[list[RowChange] | None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RowChange:
        while True:
            for change in self._found:
                return change
            if self._step is not None:
                raise RuntimeError("another task is in this comparison")
            self._step = asyncio.ensure_future(asyncio.to_thread(next, self._changes._steps, None))
            found = await asyncio.shield(self._step)
            self._step = None
            if found is None:
                raise StopAsyncIteration
            self._found = iter(found)

    async def aclose(self) -> None:
        """Ends it. Any number of times."""
        self._stop.set()
        self._found = iter(())
        if self._step is not None:  # whoever waited for it was cancelled
            await asyncio.wait([self._step])
            self._step = None
        await asyncio.to_thread(self._changes.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.aclose()


def _diff_rows(*args: Any, **kwargs: Any) -> AsyncRowChanges:
    kwargs["cancel"] = stop = _EitherEvent(kwargs.get("cancel"))
    return AsyncRowChanges(maintenance.diff_rows(*args, **kwargs), stop)


def _as_async(blocking: Callable[P, RowChanges]) -> Callable[P, AsyncRowChanges]:
    return wraps(blocking)(_diff_rows)


history: Final = _in_a_thread(maintenance.history)
rollback: Final = _in_a_thread(maintenance.rollback)
cleanup: Final = _in_a_thread(maintenance.cleanup)
verify: Final = _ending(maintenance.verify)
diff: Final = _in_a_thread(maintenance.diff)
diff_rows: Final = _as_async(maintenance.diff_rows)
