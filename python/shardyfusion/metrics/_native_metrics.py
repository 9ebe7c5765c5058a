"""Metrics that are read, not emitted: for programs that export them in their own way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion.metrics._events import MetricEvent
from shardyfusion.metrics._instruments import (
    GAUGES,
    INSTRUMENTS,
    LOOK_UPS,
    SHARES,
    Watched,
    WatchedReader,
)

if TYPE_CHECKING:
    from shardyfusion._native import LookUpMetrics

__all__ = ["LatencySnapshot", "MetricsSnapshot", "NativeMetrics"]


@dataclass(frozen=True, slots=True)
class LatencySnapshot:
    """How long something took: how often, seconds in all, and (upper boundary in seconds, how many took no longer)."""

    count: int
    sum_s: float
    buckets: tuple[tuple[float, int], ...] = ()

    def quantile(self, q: float) -> float:
        """The boundary below which the share `q` lies; not a number when nothing was counted."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is from 0 to 1, not {q}")
        if self.count == 0:
            return float("nan")
        return next((bound for bound, count in self.buckets if count >= q * self.count), float("inf"))


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What was counted until now. Names are those of `PrometheusCollector`, without prefix, `_total` and `_seconds`; what is counted
    by the class of an error is `name{error}`."""

    counters: Mapping[str, int]
    histograms: Mapping[str, LatencySnapshot]
    gauges: Mapping[str, float]


class NativeMetrics:
    """A collector that counts look-ups in C, some nanoseconds each, without a call of Python's. Any thread.

    One of thirty-two look-ups that memory answers is timed, at random, and stands for the others; all are counted.
    """

    s3_requests = True  # it hears of every request to S3
    _lock: Lock

    def __init__(self) -> None:
        self.look_ups: LookUpMetrics = native.LookUpMetrics()
        self._watched = Watched()
        add_locks(self, _lock=Lock)
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._timed: Counter[str] = Counter()

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Counts one event: all but look-ups of readers whose shards are the package's."""
        instruments = INSTRUMENTS.get(event)
        if instruments is None:
            return
        seconds = instruments.seconds(payload)
        name = instruments.counter
        hit = payload.get("cache") == "hit"
        if event is MetricEvent.READER_GET:
            self.look_ups.add_get(seconds or 0.0, payload["found"], hit)
            return
        if event is MetricEvent.READER_MULTI_GET:
            self.look_ups.add_multi_get(seconds or 0.0, payload["num_keys"], payload.get("found_count", 0), hit)
            return
        with self._lock:
            self._counts[name] += payload.get("count", 1)
            if instruments.labels:
                self._counts[f"{name}{{{','.join(instruments.label_values(payload).values())}}}"] += payload.get("count", 1)
            for share in SHARES:
                if share.of is event:
                    self._counts[share.counter] += share.amount(payload)
            if instruments.histogram is not None and seconds is not None:
                self._timed[instruments.histogram] += 1
                self._seconds[instruments.histogram] += seconds  # type: ignore[assignment]

    def watch_reader(self, reader: WatchedReader) -> None:
        """Its gauges count from now on."""
        self._watched.add(reader)

    def snapshot(self) -> MetricsSnapshot:
        """What was counted so far."""
        told = self.look_ups.snapshot()
        hits, misses, batches = (LatencySnapshot(n, s, tuple(b)) for n, s, b in (told["get_hits"], told["get_misses"], told["multi_gets"]))
        both = LatencySnapshot(
            hits.count + misses.count, hits.sum_s + misses.sum_s,
            tuple((bound, n + m) for (bound, n), (_, m) in zip(hits.buckets, misses.buckets, strict=True)),
        )  # fmt: skip
        counters = {
            **{i.counter: 0 for i in INSTRUMENTS.values()},
            **{share.counter: 0 for share in SHARES},
            "reader_gets": both.count,
            "reader_get_misses": misses.count,
            "reader_gets_not_found": both.count - told["get_hits_found"] - told["get_misses_found"],
            "reader_multi_gets": batches.count,
            "reader_multi_get_keys": told["multi_get_keys"],
            "reader_multi_get_keys_found": told["multi_get_found"],
        }
        histograms = {INSTRUMENTS[event].histogram or "": times for event, times in zip(LOOK_UPS, (both, batches), strict=True)}
        histograms.update(reader_get_hit_duration=hits, reader_get_miss_duration=misses)
        with self._lock:
            for name, count in self._counts.items():
                counters[name] = counters.get(name, 0) + count
            for name in self._timed:
                histograms[name] = LatencySnapshot(self._timed[name], self._seconds[name])
        gauges = {name: self._watched.gauge(name) for name in GAUGES}
        return MetricsSnapshot(counters, histograms, gauges)
