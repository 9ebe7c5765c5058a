"""How readers ask their limiter."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Coroutine
from types import CoroutineType
from typing import Any

from shardyfusion._rate_limiter import RateLimiter, own_bucket
from shardyfusion._timeouts import timed_out, within
from shardyfusion.errors import OperationTimeoutError

_CLOCK_S = 0.001  # timeouts of the engine are whole milliseconds


class ReaderLimiter:
    """Asks on behalf of one reader. The engine asks `bucket` by itself, and comes here when that is None or has too few
    tokens; so a bucket's events are those of its own methods."""

    def __init__(self, limiter: RateLimiter, prefix: str) -> None:
        self._prefix = prefix
        self._limiter = limiter
        self.bucket = own_bucket(limiter)

    def wait_async(self, tokens: int, timeout: float | None, what: str) -> Coroutine[Any, Any, object]:
        """Returns when the tokens are taken. OperationTimeoutError when that takes too long for `what`."""
        if timeout is not None:
            return self._wait_async(tokens, timeout, what)
        asked = self._limiter.acquire_async(tokens)
        return asked if type(asked) is CoroutineType else _awaited(asked)

    async def _wait_async(self, tokens: int, timeout: float, what: str) -> None:
        if self.bucket is None:
            await within(_awaited(self._limiter.acquire_async(tokens)), timeout, what, self._prefix)
            return
        try:
            await self.bucket.acquire_async(tokens, timeout=timeout)
        except OperationTimeoutError as error:
            error.operation, error.object_url = what, self._prefix
            raise

    def try_take(self, tokens: int) -> bool:
        """Whether the tokens were there; never waits."""
        return bool(self._limiter.try_acquire(tokens))

    def wait(self, tokens: int, timeout: float | None, what: str) -> None:
        """The same, blocking."""
        if self.bucket is not None:
            try:
                self.bucket.acquire(tokens, timeout=timeout)
            except OperationTimeoutError as error:
                error.operation, error.object_url = what, self._prefix
                raise
            return
        started = time.monotonic()
        self._limiter.acquire(tokens)  # which knows no timeout
        if timeout is not None and time.monotonic() - started >= timeout + _CLOCK_S:
            raise timed_out(what, timeout, self._prefix)


async def _awaited(asked: Awaitable[object]) -> None:
    await asked


def limiter_for_reader(limiter: RateLimiter | None, prefix: str) -> ReaderLimiter | None:
    return None if limiter is None else ReaderLimiter(limiter, prefix)
