"""Waiting until a snapshot is where the reader's residency says."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeAlias

from shardyfusion._timeouts import engine_timeout

if TYPE_CHECKING:
    from shardyfusion._native import Reader

Progress: TypeAlias = Callable[[int, int], object]
_TELL_S = 0.1


async def ready(engine: Reader, progress: Progress | None) -> None:
    """On the event loop."""
    task = asyncio.create_task(engine.ready())
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=None if progress is None else _TELL_S)
            if progress is not None:
                progress(*engine.ready_bytes())
        task.result()
    finally:
        task.cancel()


def ready_now(engine: Reader, progress: Progress | None) -> None:
    """Blocking; `progress` is called by the thread that waits."""
    operation = engine.ready(timeout=engine_timeout())
    if progress is None:
        operation.wait()
        return
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(copy_context().run, operation.wait)
        try:
            while not concurrent.futures.wait({waiting}, timeout=_TELL_S).done:
                progress(*engine.ready_bytes())
            progress(*engine.ready_bytes())
            waiting.result()
        finally:
            operation.cancel()
