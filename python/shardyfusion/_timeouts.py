"""Deadlines of single calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from shardyfusion._engine import native
from shardyfusion.errors import OperationTimeoutError

T = TypeVar("T")

Timeout: TypeAlias = float | timedelta | None
"""Seconds, or a timedelta; None: as long as storage's own limits allow."""


def seconds(timeout: Timeout) -> float | None:
    """A time that has passed already counts as 0, one without end as None. TypeError for what is no time, ValueError for
    what is not a number. The engine decides so for its own operations, too."""
    return None if timeout is None else native.timeout_seconds(timeout)


async def within(work: Coroutine[Any, Any, T], timeout: Timeout, what: str) -> T:
    """The result of `work`, or OperationTimeoutError; the work is cancelled then."""
    try:
        bound = seconds(timeout)
        if bound is not None:
            native.running_loop()
    except BaseException:
        work.close()
        raise
    if bound is None:
        return await work
    try:
        async with asyncio.timeout(bound) as scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            timed_out = OperationTimeoutError(f"{what} took longer than its timeout of {bound:g} s")
            timed_out.operation = what
            raise timed_out from error
        raise
