"""Metrics of a reader. A collector that fails must not fail the read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from shardyfusion._engine import native
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.metrics import MetricEvent, MetricsCollector

_log = get_logger(__name__)

_GET, _MULTI_GET = MetricEvent.READER_GET, MetricEvent.READER_MULTI_GET  # members are slow to look up


class Metrics:
    """Hands events to a collector, if there is one. Its first failure with each kind of event is logged. Look-ups that
    are C from end to end hand theirs over themselves (`_core/observer.c`), in the same way.

    Stores that report to `store_events` are heard of by `tell`, and before any other event.
    """

    get_event, multi_get_event = _GET, _MULTI_GET

    def __init__(self, collector: MetricsCollector | None) -> None:
        self.collector = collector
        self._failed: set[MetricEvent] = set()
        self.store_events = None if collector is None else native.StoreEvents()
        self._noted = _nothing if self.store_events is None else self.store_events.take

    @property
    def wanted(self) -> bool:
        return self.collector is not None

    def get_done(self, duration_ms: int, found: bool) -> None:
        self.emit(_GET, {"duration_ms": duration_ms, "found": found})

    def multi_get_done(self, duration_ms: int, num_keys: int) -> None:
        self.emit(_MULTI_GET, {"duration_ms": duration_ms, "num_keys": num_keys})

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        if self.collector is None:
            return
        try:
            if noted := self._noted():
                self.tell_of(noted)
            self.collector.emit(event, payload)
        except Exception as error:
            self.collector_failed(event, error)

    def tell(self) -> None:
        """What stores had to repeat or give up meanwhile. Called before an operation returns or raises, by its thread or
        task: the engine's own thread only notes."""
        try:
            if noted := self._noted():
                self.tell_of(noted)
        except MemoryError as error:
            self.collector_failed(MetricEvent.S3_RETRY, error)

    def tell_of(self, noted: Sequence[tuple[str, str, int, float, int]]) -> None:
        """What `store_events.take()` had."""
        assert self.collector is not None
        for name, operation, attempts, delay_s, count in noted:
            event = MetricEvent(name)
            payload: dict[str, Any] = {"operation": operation}
            if event is MetricEvent.S3_RETRY:
                payload.update(attempt=attempts, delay_s=delay_s)
            else:
                payload.update(attempts=attempts)
            if count > 1:  # a storm: so many like this one
                payload.update(count=count)
            try:
                self.collector.emit(event, payload)
            except Exception as error:
                self.collector_failed(event, error)

    def collector_failed(self, event: MetricEvent, error: Exception) -> None:
        if event not in self._failed:
            self._failed.add(event)
            log_failure(
                "metrics_collector_failed",
                severity=FailureSeverity.ERROR,
                error=error,
                logger=_log,
                event_name=event.value,
            )


def _nothing() -> Sequence[Any]:
    return ()


def ms_since(started: float) -> int:
    """Whole milliseconds since a `time.perf_counter()`."""
    return int((time.perf_counter() - started) * 1000)
