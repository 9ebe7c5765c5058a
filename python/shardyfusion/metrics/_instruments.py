"""What the ready-made collectors count, in one table: they differ only in the library that they count with."""

from __future__ import annotations

from dataclasses import dataclass

from shardyfusion.metrics._events import MetricEvent


@dataclass(frozen=True)
class Instruments:
    """A counter, and a histogram in seconds of one payload field (divided by `divisor`)."""

    counter: str
    about: str
    histogram: str | None = None
    field: str = ""
    divisor: float = 1.0


INSTRUMENTS: dict[MetricEvent, Instruments] = {
    MetricEvent.WRITE_STARTED: Instruments("writes_started", "Writes started"),
    MetricEvent.WRITE_COMPLETED: Instruments(
        "writes_completed", "Writes completed", "write_duration", "elapsed_ms", 1000.0
    ),
    MetricEvent.SHARD_WRITE_COMPLETED: Instruments(
        "shard_writes_completed", "Shards written", "shard_write_duration", "duration_ms", 1000.0
    ),
    MetricEvent.BATCH_WRITTEN: Instruments("batches_written", "Batches written"),
    MetricEvent.READER_GET: Instruments("reader_gets", "Single look-ups", "reader_get_duration", "duration_ms", 1000.0),
    MetricEvent.READER_MULTI_GET: Instruments(
        "reader_multi_gets", "Batch look-ups", "reader_multi_get_duration", "duration_ms", 1000.0
    ),
    MetricEvent.S3_RETRY: Instruments("s3_retries", "Storage requests repeated"),
    MetricEvent.S3_RETRY_EXHAUSTED: Instruments("s3_retries_exhausted", "Storage requests given up"),
    MetricEvent.RATE_LIMITER_THROTTLED: Instruments(
        "rate_limiter_throttled", "Waits for a rate limiter", "rate_limiter_wait", "wait_seconds"
    ),
    MetricEvent.RATE_LIMITER_DENIED: Instruments("rate_limiter_denied", "Requests that a rate limiter denied"),
}
