"""Metrics of a reader. A collector that fails must not fail the read."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.metrics import MetricEvent, MetricsCollector

if TYPE_CHECKING:
    from shardyfusion._native import LookUpMetrics, StoreEvents
    from shardyfusion.reader._state import SnapshotState

_log = get_logger(__name__)

_GET, _MULTI_GET = MetricEvent.READER_GET, MetricEvent.READER_MULTI_GET  # members are slow to look up
_GET_FAILED = MetricEvent.READER_GET_FAILED


class Metrics:
    """Hands events to a collector, if there is one. Its first failure with each kind of event is logged. Look-ups that
    are C from end to end hand theirs over themselves (`_core/observer.c`), in the same way.

    Stores that report to `store_events` are heard of by `tell`, and before any other event. A collector with a method
    `watch_reader` gets the Metrics itself, to ask it for `snapshot_created_s` and `open_shards` as long as it lives. One whose
    `s3_requests` is True hears of every request to S3 (`s3.request`).
    """

    get_event: MetricEvent = _GET
    multi_get_event: MetricEvent = _MULTI_GET

    def __init__(self, collector: MetricsCollector | None) -> None:
        self.collector = collector
        look_ups = getattr(collector, "look_ups", None)
        self.look_ups: LookUpMetrics | None = look_ups if isinstance(look_ups, native.LookUpMetrics) else None
        self._failed: set[MetricEvent | None] = set()
        self.snapshot_created_s: float | None = None  # of what the reader serves; None: nothing
        self.open_shards: int = 0
        self.store_events: StoreEvents | None = None
        if collector is not None:
            wants_requests = getattr(collector, "s3_requests", False) is True  # stand-ins of tests have every attribute
            self.store_events = native.StoreEvents(wants_requests)
        self._noted = _nothing if self.store_events is None else self.store_events.take

    @property
    def wanted(self) -> bool:
        return self.collector is not None

    def get_done(self, started: float, found: bool) -> None:
        """Over shards of a factory of the caller's; `started` is of `time.perf_counter()`."""
        if self.collector is not None:
            self.emit(_GET, {**_duration(started), "found": found})

    def multi_get_done(self, started: float, keys: Collection[Any], found: Mapping[Any, object]) -> None:
        """The same; what failed is not found."""
        if self.collector is not None:
            count = sum(value is not None and not isinstance(value, BaseException) for value in found.values())
            self.emit(_MULTI_GET, {**_duration(started), "num_keys": len(keys), "found_count": count})

    @contextmanager
    def look_up(self, operation: str) -> Iterator[float]:
        """Around a look-up over such shards: when it began."""
        started = time.perf_counter()
        try:
            yield started
        except Exception as error:
            self.look_up_failed(operation, error, time.perf_counter() - started)
            raise

    def look_up_failed(self, operation: str, error: Exception, duration_s: float) -> None:
        """One that has begun and raises."""
        self.emit(_GET_FAILED, {"operation": operation, "error": class_name(error), "duration_s": duration_s})

    def opened(self, state: SnapshotState) -> None:
        """A reader serves its first snapshot, the pointer's or an older one."""
        if self.collector is None:
            return
        self._serves(state)
        watch = getattr(self.collector, "watch_reader", None)
        if watch is not None:
            try:
                watch(self)
            except Exception as error:
                self.collector_failed(None, error)
        if state.skipped_ref is not None:
            self.emit(MetricEvent.READER_FALLBACK, {"manifest_ref": state.manifest_ref, "skipped_ref": state.skipped_ref})
        self.emit(MetricEvent.READER_INITIALIZED, {})

    def refreshed(self, new: SnapshotState | None) -> None:
        """A refresh that did not raise; `new` is served now, None: what was before."""
        if self.collector is None:
            return
        if new is not None:
            self._serves(new)
        self.emit(MetricEvent.READER_REFRESHED, {"changed": new is not None})

    def refresh_failed(self, error: str) -> None:
        """The class of the exception: of one that is raised, or of a manifest that is malformed."""
        self.emit(MetricEvent.READER_REFRESH_FAILED, {"error": error})

    def closed(self, num_handles: int) -> None:
        """A reader that served something has ended."""
        self.snapshot_created_s, self.open_shards = None, 0
        self.emit(MetricEvent.READER_CLOSED, {"num_handles": num_handles})

    def _serves(self, state: SnapshotState) -> None:
        self.snapshot_created_s = state.created_at_us / 1e6
        self.open_shards = state.shards_with_rows()

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

    def tell_of(self, noted: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """What `store_events.take()` had."""
        assert self.collector is not None
        for name, payload in noted:
            event = MetricEvent(name)
            try:
                self.collector.emit(event, payload)
            except Exception as error:
                self.collector_failed(event, error)

    def collector_failed(self, event: MetricEvent | None, error: Exception) -> None:
        if event not in self._failed:
            self._failed.add(event)
            log_failure(
                "metrics_collector_failed",
                severity=FailureSeverity.ERROR,
                error=error,
                logger=_log,
                event_name="" if event is None else event.value,
            )


def _nothing() -> Sequence[Any]:
    return ()


def class_name(error: BaseException) -> str:
    """That by which users know the exception: classes of the package that begin with an underscore's module have a public base."""
    return next(cls.__name__ for cls in type(error).__mro__ if "._" not in cls.__module__)


def _duration(started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {"duration_ms": int(seconds * 1000), "duration_s": seconds}
