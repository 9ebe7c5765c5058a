"""Deadlines of single calls."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from shardyfusion.errors import OperationTimeoutError

T = TypeVar("T")

Timeout: TypeAlias = float | timedelta | None
"""Seconds, or a timedelta; None: as long as storage's own limits allow."""


def seconds(timeout: Timeout) -> float | None:
    """A time that has passed already counts as 0. ValueError for what is no number."""
    if timeout is None:
        return None
    value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if value != value:
        raise ValueError("timeout is not a number")
    return max(0.0, value)


async def within(work: Coroutine[Any, Any, T], timeout: Timeout, what: str) -> T:
    """The result of `work`, or OperationTimeoutError; the work is cancelled then."""
    try:
        bound = seconds(timeout)
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
