"""Deadlines of single calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeAlias, TypeVar

from shardyfusion.errors import OperationTimeoutError

T = TypeVar("T")

Timeout: TypeAlias = float | timedelta | None
"""Seconds, or a timedelta; None: as long as storage's own limits allow."""


def seconds(timeout: Timeout) -> float | None:
    """ValueError for a negative time."""
    if timeout is None:
        return None
    value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not value >= 0:
        raise ValueError(f"timeout must be >= 0, got {timeout!r}")
    return value


async def within(work: Awaitable[T], timeout: float | None, what: str) -> T:
    """The result of `work`, or OperationTimeoutError; the work is cancelled then."""
    if timeout is None:
        return await work
    try:
        async with asyncio.timeout(timeout) as scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            timed_out = OperationTimeoutError(f"{what} took longer than its timeout of {timeout:g} s")
            timed_out.operation = what
            raise timed_out from error
        raise
