"""Waiting until a snapshot is where the reader's residency says."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Literal, TypeAlias

from shardyfusion._progress import Measure, ProgressBar, Teller
from shardyfusion._timeouts import engine_timeout

if TYPE_CHECKING:
    from shardyfusion._native import Reader

Progress: TypeAlias = Callable[[int, int], object] | ProgressBar | Literal[False]
_TELL_S = 0.1


def _measure(how_far: tuple[int, int]) -> Measure:
    done, total = how_far
    return Measure(done, total, f"ready: {done / (1 << 20):,.1f} of {total / (1 << 20):,.1f} MiB")


async def ready(engine: Reader, progress: Progress | None) -> None:
    """On the event loop."""
    tell = Teller(progress, _measure, spread=True)
    task = asyncio.create_task(engine.ready())
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_TELL_S if tell.anybody else None)
            if tell.anybody:
                tell(engine.ready_bytes())
        task.result()
    finally:
        task.cancel()
        tell.end()


def ready_now(engine: Reader, progress: Progress | None) -> None:
    """Blocking; `progress` is called by the thread that waits."""
    tell = Teller(progress, _measure, spread=True)
    operation = engine.ready(timeout=engine_timeout())
    if not tell.anybody:
        operation.wait()
        return
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(copy_context().run, operation.wait)
        try:
            while not concurrent.futures.wait({waiting}, timeout=_TELL_S).done:
                tell(engine.ready_bytes())
            tell(engine.ready_bytes())
            waiting.result()
        finally:
            operation.cancel()
            tell.end()
