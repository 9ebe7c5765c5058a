"""Deadlines of single calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

from shardyfusion._engine import native
from shardyfusion.errors import OperationTimeoutError

T = TypeVar("T")

Timeout: TypeAlias = float | timedelta | None
"""Seconds, or a timedelta; None: as long as storage's own limits allow."""


def seconds(timeout: Timeout, what: str = "timeout") -> float | None:
    """A time that has passed already counts as 0, one without end as None. TypeError for what is no time, ValueError for
    what is not a number. The engine decides so for its own operations, too."""
    try:
        return None if timeout is None else native.timeout_seconds(timeout)
    except (TypeError, ValueError) as error:
        if what == "timeout":
            raise
        raise type(error)(str(error).replace("timeout", what, 1)) from None


_GRACE_S = 0.5
"""What the engine gets to tell how its own deadline passed: it knows the object, the attempts and their failures."""


class _Scope:
    """A call that has a deadline, while it runs. Its requests to the engine end with it."""

    def __init__(self, bound: float) -> None:
        self.outer = _scope.get()
        self.ends_at = time.monotonic() + bound
        self.timer: asyncio.Timeout | None = None
        self.graced = self.over = False

    def grace(self) -> None:
        """The engine keeps the deadline from now on, so the event loop's timer only catches what it does not."""
        if self.timer is not None and not self.graced:
            self.graced = True
            with suppress(RuntimeError):  # it is expiring already
                self.timer.reschedule(self.timer.when() + _GRACE_S)  # type: ignore[operator]

    def no_grace(self) -> None:
        if self.timer is not None and self.graced:
            self.graced = False
            with suppress(RuntimeError):
                self.timer.reschedule(self.timer.when() - _GRACE_S)  # type: ignore[operator]


_scope: ContextVar[_Scope | None] = ContextVar("shardyfusion_deadline", default=None)


def engine_timeout(timeout: Timeout = None) -> float | None:
    """What a request to the engine may take: `timeout`, and no longer than what is left to the calls that it is made for."""
    bound = seconds(timeout)
    scope = _scope.get()
    while scope is not None:
        if not scope.over:
            scope.grace()
        scope = scope.outer
    left = time_left()
    return left if bound is None else bound if left is None else min(bound, left)


def time_left() -> float | None:
    """What is left to the calls that this is done for; for what keeps the deadline itself. Any thread that has their context."""
    least: float | None = None
    scope = _scope.get()
    while scope is not None:
        if not scope.over:
            left = max(0.0, scope.ends_at - time.monotonic())
            least = left if least is None else min(least, left)
        scope = scope.outer
    return least


@contextmanager
def caller_at_work() -> Iterator[None]:
    """While the engine waits for a coroutine of the caller's: that is ended on time, by the event loop's timer."""
    graced = []
    scope = _scope.get()
    while scope is not None:
        if scope.graced and not scope.over:
            scope.no_grace()
            graced.append(scope)
        scope = scope.outer
    try:
        yield
    finally:
        for scope in graced:
            scope.grace()


@contextmanager
def without_deadline() -> Iterator[None]:
    """For what is done on behalf of others, too."""
    token = _scope.set(None)
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def until(timeout: Timeout) -> Iterator[None]:
    """Requests to the engine that are made in here end with the deadline. Of blocking calls, which nothing else could end."""
    bound = seconds(timeout)
    if bound is None:
        yield
        return
    scope = _Scope(bound)
    token = _scope.set(scope)
    try:
        yield
    finally:
        scope.over = True
        _scope.reset(token)


async def within(work: Coroutine[Any, Any, T], timeout: Timeout, what: str, url: str | None = None) -> T:
    """The result of `work`, or OperationTimeoutError; the work is cancelled then. Of what the engine did meanwhile it tells
    itself how its deadline passed (engine_timeout()); what is left says `what` was done with `url`."""
    try:
        bound = seconds(timeout)
        if bound is not None:
            native.running_loop()
    except BaseException:
        work.close()
        raise
    if bound is None:
        return await work
    scope = _Scope(bound)
    token = _scope.set(scope)
    try:
        async with asyncio.timeout(bound) as scope.timer:
            return await work
    except TimeoutError as error:
        if scope.timer is not None and scope.timer.expired():
            raise timed_out(what, bound, url) from error
        raise
    finally:
        scope.over, scope.timer = True, None
        with suppress(ValueError):  # collected elsewhere
            _scope.reset(token)


def timed_out(what: str, bound: float, url: str | None = None) -> OperationTimeoutError:
    where = f" of {url}" if url else ""
    error = OperationTimeoutError(f"{what}{where} took longer than its timeout of {bound:g} s")
    error.operation = what
    error.object_url = url
    return error
