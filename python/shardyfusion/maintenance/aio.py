"""`shardyfusion.maintenance` as coroutines: each runs in a thread. One that is cancelled goes on there to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from shardyfusion import maintenance
from shardyfusion.maintenance import CleanupReport, HistoryEntry, Leftover

__all__ = ["CleanupReport", "HistoryEntry", "Leftover", "cleanup", "history", "rollback"]

P = ParamSpec("P")
T = TypeVar("T")


def _in_a_thread(blocking: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(blocking)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(blocking, *args, **kwargs)

    return call


history = _in_a_thread(maintenance.history)
rollback = _in_a_thread(maintenance.rollback)
cleanup = _in_a_thread(maintenance.cleanup)
