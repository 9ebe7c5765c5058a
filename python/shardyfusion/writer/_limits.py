"""Rate limits of a write: rows and bytes a second, shared by all shards of a process."""

from __future__ import annotations

from shardyfusion._rate_limiter import TokenBucket
from shardyfusion.config import KvWriteRateLimitConfig
from shardyfusion.metrics import MetricsCollector


class WriteLimits:
    """Asked once a batch. One thread."""

    def __init__(self, rates: KvWriteRateLimitConfig, collector: MetricsCollector | None) -> None:
        rows, size = rates.max_writes_per_second, rates.max_write_bytes_per_second
        self._rows = None if rows is None else TokenBucket(rows, collector, "ops")
        self._bytes = None if size is None else TokenBucket(size, collector, "bytes")

    @property
    def unlimited(self) -> bool:
        return self._rows is None and self._bytes is None

    @property
    def limits_rows(self) -> bool:
        return self._rows is not None

    def batch_rows(self, most: int) -> int:
        """How many rows to ask for at a time, so that a slow rate gives an even flow."""
        return most if self._rows is None else max(1, min(most, int(self._rows.rate)))

    def try_acquire(self, rows: int, size: int) -> bool:
        """Takes the tokens of a batch unless its rows would have to wait; waits for the bytes."""
        if self._rows is not None and not self._rows.try_acquire(rows):
            return False
        if self._bytes is not None:
            self._bytes.acquire(size)
        return True

    def acquire(self, rows: int, size: int) -> None:
        """Waits for the tokens of a batch."""
        if self._rows is not None:
            self._rows.acquire(rows)
        if self._bytes is not None:
            self._bytes.acquire(size)
