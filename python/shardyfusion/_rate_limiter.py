"""Token buckets. Public through shardyfusion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex, runtime_checkable

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


@runtime_checkable
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


class TokenBucket(native.TokenBucket):
    """Starts with `burst` tokens (None: as many as the rate), holds as many at most, gains `rate` per second, which may be set.

    Requests that wait are served in the order in which they came. One for more than the bucket can ever hold is served after its
    fair time, (tokens - present) / rate seconds.
    """

    def __init__(
        self,
        rate: float,
        metrics_collector: MetricsCollector | None = None,
        limiter_type: str = "ops",
        *,
        burst: float | None = None,
    ) -> None:
        super().__init__(rate, burst)
        self._collector = metrics_collector
        self._type = limiter_type

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return super().__reduce_ex__(max(2, protocol.__index__()))  # older ones know no base of C

    def __getstate__(self) -> Any:
        return self._level(), self.__dict__

    def __setstate__(self, state: Any) -> None:
        level, attributes = state
        self._set_level(level)
        self.__dict__.update(attributes)

    def acquire(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, blocking until they are there; OperationTimeoutError when `timeout` is too short."""
        end = _end(timeout)
        if (deficit := self._take(tokens)) > 0:
            self._before_wait(deficit, end)
            with self._reserved(tokens) as wait:
                time.sleep(wait)

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
        if not (result := self.try_acquire(tokens)):
            native.running_loop()
            self._before_wait(result.deficit, end)
            with self._reserved(tokens) as wait:
                await asyncio.sleep(wait)

    @contextmanager
    def _reserved(self, tokens: int) -> Iterator[float]:
        """The seconds to wait for tokens that are taken ahead of time, so that nobody who comes later overtakes; given back
        when the wait is given up."""
        wait = self._reserve(tokens)
        try:
            yield wait
        except BaseException:
            self._give_back(tokens)
            raise

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
    """A TokenBucket that any number of threads may share. Cannot be pickled."""

    def __getstate__(self) -> Any:
        raise TypeError(f"{type(self).__qualname__} objects cannot be copied or pickled: threads of one process share one")

    def acquire(self, tokens: int = 1, *, timeout: Timeout = None) -> None:
        """Takes the tokens, blocking until they are there; OperationTimeoutError when `timeout` is too short."""
        end = _end(timeout)
        if not (result := self.try_acquire(tokens)):
            self._before_wait(result.deficit, end)
            with self._reserved(tokens) as wait:
                time.sleep(wait)


_OWN_METHODS = {
    (name, method) for kind in (TokenBucket, ThreadSafeTokenBucket) for name, method in vars(kind).items()
    if name in ("acquire", "try_acquire", "acquire_async")
}


def own_bucket(limiter: object) -> TokenBucket | None:
    """The limiter, if asking it is asking its bucket: nobody has put methods of his own over ours."""
    if not isinstance(limiter, TokenBucket):
        return None
    for name in ("acquire", "try_acquire", "acquire_async"):
        if (name, getattr(getattr(limiter, name), "__func__", None)) not in _OWN_METHODS:
            return None
    return limiter
