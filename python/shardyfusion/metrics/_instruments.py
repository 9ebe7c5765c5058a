"""What the ready-made collectors count, in one table: they differ only in the library that they count with."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shardyfusion.metrics._events import MetricEvent

LATENCY_BUCKETS: tuple[float, ...] = tuple(
    float(f"{digit}e{exponent}") for exponent in range(-7, 1) for digit in ("1", "2.5", "5")
) + (10.0,)
"""Upper boundaries of histograms, in seconds, from 100 ns to 10 s: what memory answers takes less than a microsecond."""


@dataclass(frozen=True)
class Instruments:
    """A counter, and a histogram in seconds of one payload field. `coarse` is a field in milliseconds, for want of the other."""

    counter: str
    about: str
    histogram: str | None = None
    field: str = ""
    coarse: str = ""
    labels: tuple[str, ...] = ()
    """The counter is one for each value of these fields."""

    def label_values(self, payload: dict[str, Any]) -> dict[str, str]:
        """Of `labels`: statuses of answers by their class, "none" where there was none."""
        status = payload.get("status") or 0
        classes = {"status": f"{status // 100}xx" if status else "none"}
        return {name: classes.get(name) or payload.get(name, "") for name in self.labels}

    def seconds(self, payload: dict[str, Any]) -> float | None:
        """What the histogram is told."""
        value = payload.get(self.field)
        if value is None and self.coarse:
            value = payload.get(self.coarse)
            return None if value is None else float(value) / 1000.0
        return None if value is None else float(value)


INSTRUMENTS: dict[MetricEvent, Instruments] = {
    MetricEvent.WRITE_STARTED: Instruments("writes_started", "Writes started"),
    MetricEvent.WRITE_COMPLETED: Instruments("writes_completed", "Writes completed", "write_duration", coarse="elapsed_ms"),
    MetricEvent.SHARD_WRITE_COMPLETED: Instruments(
        "shard_writes_completed", "Shards written", "shard_write_duration", coarse="duration_ms"
    ),
    MetricEvent.BATCH_WRITTEN: Instruments("batches_written", "Batches written"),
    MetricEvent.READER_GET: Instruments(
        "reader_gets", "Single look-ups", "reader_get_duration", "duration_s", "duration_ms"
    ),
    MetricEvent.READER_MULTI_GET: Instruments(
        "reader_multi_gets", "Batch look-ups", "reader_multi_get_duration", "duration_s", "duration_ms"
    ),
    MetricEvent.READER_GET_FAILED: Instruments("reader_get_failures", "Look-ups that raised", labels=("error",)),
    MetricEvent.READER_FALLBACK: Instruments("reader_fallbacks", "Openings that served an older snapshot than the pointer's"),
    MetricEvent.READER_REFRESHED: Instruments("reader_refreshes", "Refreshes that did not raise"),
    MetricEvent.READER_REFRESH_FAILED: Instruments(
        "reader_refresh_failures", "Refreshes that raised, or found a malformed manifest", labels=("error",)
    ),
    MetricEvent.S3_REQUEST: Instruments(
        "s3_requests", "Requests to storage", "s3_request_duration", "duration_s", labels=("operation", "status")
    ),
    MetricEvent.S3_RETRY: Instruments("s3_retries", "Storage requests repeated"),
    MetricEvent.S3_RETRY_EXHAUSTED: Instruments("s3_retries_exhausted", "Storage requests given up"),
    MetricEvent.S3_HEDGE: Instruments("s3_hedges", "Late answers: second requests sent, won, or why not sent", labels=("outcome",)),
    MetricEvent.RATE_LIMITER_THROTTLED: Instruments(
        "rate_limiter_throttled", "Waits for a rate limiter", "rate_limiter_wait", "wait_seconds"
    ),
    MetricEvent.RATE_LIMITER_DENIED: Instruments("rate_limiter_denied", "Requests that a rate limiter denied"),
}


@dataclass(frozen=True)
class Share:
    """A counter of what some events of a kind are, or have."""

    counter: str
    about: str
    of: MetricEvent
    amount: Callable[[dict[str, Any]], int]


SHARES: tuple[Share, ...] = (
    Share("s3_request_bytes", "Bytes of requests to storage and of their answers", MetricEvent.S3_REQUEST, lambda p: p["bytes"]),
    Share("reader_get_misses", "Single look-ups that needed storage", MetricEvent.READER_GET, lambda p: p.get("cache") == "miss"),
    Share("reader_gets_not_found", "Single look-ups without a value", MetricEvent.READER_GET, lambda p: not p["found"]),
    Share("reader_multi_get_keys", "Keys of batch look-ups", MetricEvent.READER_MULTI_GET, lambda p: p["num_keys"]),
    Share("reader_multi_get_keys_found", "Those that have a value", MetricEvent.READER_MULTI_GET, lambda p: p.get("found_count", 0)),
)

LOOK_UPS = (MetricEvent.READER_GET, MetricEvent.READER_MULTI_GET)
"""What a LookUpMetrics counts in a collector's place."""

GAUGES: dict[str, str] = {
    "snapshot_created_timestamp_seconds": "When the oldest snapshot that is served was made",
    "open_shards": "Shards with rows of the snapshots that are served",
    "cache_bytes": "Bytes in the block cache of this process",
}


class WatchedReader(Protocol):
    """What a collector's `watch_reader` is given."""

    snapshot_created_s: float | None
    open_shards: int


class Watched:
    """The readers of a collector, as long as they live. Any thread."""

    def __init__(self) -> None:
        self._readers: weakref.WeakSet[WatchedReader] = weakref.WeakSet()

    def add(self, reader: WatchedReader) -> None:
        """One that has opened."""
        self._readers.add(reader)

    def gauge(self, name: str) -> float:
        """The present value of one of GAUGES; not a number when no snapshot is served."""
        if name == "cache_bytes":
            from shardyfusion._engine import native

            return float(native.runtime_stats()["cache_bytes"])
        readers = list(self._readers)
        if name == "open_shards":
            return float(sum(reader.open_shards for reader in readers))
        created = [reader.snapshot_created_s for reader in readers if reader.snapshot_created_s is not None]
        return min(created, default=float("nan"))
