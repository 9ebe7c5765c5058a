"""Token buckets. Public through shardyfusion."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from shardyfusion._engine import native
from shardyfusion._timeouts import Timeout, seconds
from shardyfusion._turn import give_way
from shardyfusion.errors import OperationTimeoutError
from shardyfusion.metrics import MetricEvent, MetricsCollector


@dataclass(slots=True)
class AcquireResult:
    """Whether the tokens were taken, else in how many seconds they will be there. True when they were."""

    acquired: bool
    deficit: float

    def __bool__(self) -> bool:
        return self.acquired


class RateLimiter(Protocol):
    """What a reader or writer asks before it works: one token a key."""

    def acquire(self, tokens: int = 1) -> None:
        """Takes the tokens, blocking until they are there."""
        ...

    def try_acquire(self, tokens: int = 1) -> AcquireResult:
        """Takes the tokens if they are there; never blocks."""
        ...

    async def acquire_async(self, tokens: int = 1) -> None:
        """Takes the tokens, awaiting them."""
        ...


class TokenBucket:
    """Starts with `rate` tokens, holds as many at most, gains `rate` a second. One thread (or event loop) at a time.

    A request for more than the bucket can ever hold is served after its fair time, (tokens - present) / rate seconds.
    """

    def __init__(
        self, rate: float, metrics_collector: MetricsCollector | None = None, limiter_type: str = "ops"
    ) -> None:
        if not rate > 0:
            raise ValueError(f"rate must be > 0, got {rate}")
        self._rate = float(rate)
        self._collector = metrics_collector
        self._type = limiter_type
        self._tokens = float(rate)
        self._at = time.monotonic()

    @property
    def rate(self) -> float:
        """Tokens a second, and the most that the bucket holds. May be set at any time."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not rate > 0:
            raise ValueError(f"rate must be > 0, got {rate}")
        self._refill()
        self._rate = float(rate)
        self._tokens = min(self._tokens, self._rate)

    def acquire(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, blocking until they are there; OperationTimeoutError when `timeout` is too short."""
        end = _end(timeout)
        while (deficit := self._take(tokens)) > 0:
            self._before_wait(deficit, end)
            time.sleep(deficit)
            if self._waited_for_all(tokens):
                return

    def try_acquire(self, tokens: int = 1) -> AcquireResult:
        """Takes the tokens if they are there."""
        deficit = self._take(tokens)
        if deficit > 0:
            self._emit(MetricEvent.RATE_LIMITER_DENIED, {"deficit_seconds": deficit, "limiter_type": self._type})
        return AcquireResult(deficit <= 0, max(deficit, 0.0))

    async def acquire_async(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, awaiting them; OperationTimeoutError when `timeout` is too short."""
        end = _end(timeout)
        await give_way()
        while not (result := self.try_acquire(tokens)):
            native.running_loop()
            self._before_wait(result.deficit, end)
            await asyncio.sleep(result.deficit)
            if self._waited_for_all(tokens):
                return

    def _take(self, tokens: int) -> float:
        """Seconds until the tokens will be there; 0 when they were taken."""
        self._refill()
        if self._tokens >= tokens - 1e-9:
            self._tokens -= tokens
            return 0.0
        return (tokens - self._tokens) / self._rate

    def _waited_for_all(self, tokens: int) -> bool:
        """After a wait. More than the bucket holds never fits: having waited for it is enough, and empties the bucket."""
        if tokens <= self._rate:
            return False
        self._refill()
        self._tokens -= self._rate
        return True

    def _refill(self) -> None:
        now = time.monotonic()
        elapsed = max(0.0, now - self._at)  # a bucket may come from another process, with another clock
        self._tokens = min(self._rate, self._tokens + elapsed * self._rate)
        self._at = now

    def _before_wait(self, seconds: float, end: float | None) -> None:
        if end is not None and time.monotonic() + seconds > end:
            raise OperationTimeoutError(f"rate limit: {seconds:.3f} s to wait are more than the timeout allows")
        self._emit(MetricEvent.RATE_LIMITER_THROTTLED, {"wait_seconds": seconds, "limiter_type": self._type})

    def _emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        if self._collector is not None:
            self._collector.emit(event, payload)


def _end(timeout: Timeout) -> float | None:
    bound = seconds(timeout)
    return None if bound is None else time.monotonic() + bound


class ThreadSafeTokenBucket(TokenBucket):
    """A TokenBucket that any number of threads may share."""

    def __init__(
        self, rate: float, metrics_collector: MetricsCollector | None = None, limiter_type: str = "ops"
    ) -> None:
        super().__init__(rate, metrics_collector, limiter_type)
        self._lock = Lock()

    def acquire(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, blocking until they are there; OperationTimeoutError when `timeout` is too short."""
        end = _end(timeout)
        while not (result := self.try_acquire(tokens)):
            self._before_wait(result.deficit, end)
            time.sleep(result.deficit)
            if self._waited_for_all(tokens):
                return

    def try_acquire(self, tokens: int = 1) -> AcquireResult:
        """Takes the tokens if they are there."""
        return super().try_acquire(tokens)

    async def acquire_async(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, awaiting them; OperationTimeoutError when `timeout` is too short."""
        await super().acquire_async(tokens, timeout=timeout)

    def _take(self, tokens: int) -> float:
        with self._lock:
            return super()._take(tokens)

    def _waited_for_all(self, tokens: int) -> bool:
        with self._lock:
            return super()._waited_for_all(tokens)
