"""What a collector must do."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from shardyfusion.metrics._events import MetricEvent


@runtime_checkable
class MetricsCollector(Protocol):
    """Takes events, on the thread (and in the task) of the operation: it should count and return.

    With an attribute `s3_requests` that is True it is told of every request to S3 as well (`s3.request`).
    """

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """One event. `*_ms` are whole milliseconds, `*_s` and `*_seconds` seconds."""
        ...
