"""Metrics of a reader. A collector that fails must not fail the read."""

from __future__ import annotations

import time
from typing import Any

from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.metrics import MetricEvent, MetricsCollector

_log = get_logger(__name__)


class Metrics:
    """Hands events to a collector, if there is one. Its first failure with each kind of event is logged."""

    def __init__(self, collector: MetricsCollector | None) -> None:
        self._collector = collector
        self._failed: set[MetricEvent] = set()

    @property
    def wanted(self) -> bool:
        return self._collector is not None

    def get_done(self, duration_ms: int, found: bool) -> None:
        self.emit(MetricEvent.READER_GET, {"duration_ms": duration_ms, "found": found})

    def multi_get_done(self, duration_ms: int, num_keys: int) -> None:
        self.emit(MetricEvent.READER_MULTI_GET, {"duration_ms": duration_ms, "num_keys": num_keys})

    def failed(self) -> None:
        """A look-up that raises: no event."""

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        if self._collector is None:
            return
        try:
            self._collector.emit(event, payload)
        except Exception as error:
            if event not in self._failed:
                self._failed.add(event)
                log_failure(
                    "metrics_collector_failed",
                    severity=FailureSeverity.ERROR,
                    error=error,
                    logger=_log,
                    event_name=event.value,
                )


def ms_since(started: float) -> int:
    """Whole milliseconds since a `time.perf_counter()`."""
    return int((time.perf_counter() - started) * 1000)
