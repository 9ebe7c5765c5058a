"""A collector for Prometheus. The client library is imported when a collector is made."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

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
    from prometheus_client import CollectorRegistry

    from shardyfusion._native import LookUpMetrics
    from shardyfusion.metrics._native_metrics import MetricsSnapshot, NativeMetrics

__all__ = ["PrometheusCollector"]

_labelled: weakref.WeakKeyDictionary[Any, dict[Any, _Families]] = weakref.WeakKeyDictionary()


class PrometheusCollector:
    """Counters, histograms (seconds) and gauges, all registered at once. Any thread.

    `labels` are on every metric, and are not called `error`, `operation`, `outcome` or `status`, as some have labels of their own; collectors with
    other values of the same labels may share a registry. `buckets`: of the histograms, None: the client's own, which begin at 5 ms;
    `shardyfusion.metrics.LATENCY_BUCKETS` tells hits from misses.
    With `native`, look-ups are counted in C, without a call of Python's for each, in boundaries of their own.
    """

    s3_requests = True  # it hears of every request to S3

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        prefix: str = "shardyfusion_",
        *,
        buckets: Sequence[float] | None = None,
        labels: Mapping[str, str] | None = None,
        native: bool = False,
    ) -> None:
        from prometheus_client import REGISTRY

        target = REGISTRY if registry is None else registry
        values = dict(labels or {})
        taken = sorted({name for i in INSTRUMENTS.values() for name in i.labels} & values.keys())
        if taken:
            raise ValueError(f"metrics have labels of their own with these names: call the collector's otherwise than {', '.join(taken)}")
        self._families = _families(target, prefix, tuple(values), tuple(buckets or ()), native)
        self._families.take(values)
        self._values = values
        self._watched = Watched()
        self._native: NativeMetrics | None = None
        self.look_ups: LookUpMetrics | None = None
        if native:
            from shardyfusion.metrics._native_metrics import NativeMetrics

            self._native = NativeMetrics()
            self.look_ups = self._native.look_ups
            self._families.natives.append((values, self._native))
        for name, gauge in self._families.gauges.items():
            self._child(gauge).set_function(partial(self._watched.gauge, name))

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Counts one event."""
        families = self._families
        if self._native is not None and event in LOOK_UPS:  # over shards of the caller's
            self._native.emit(event, payload)
        counter = families.counters.get(event)
        if counter is None:
            return
        instruments = INSTRUMENTS[event]
        self._child(counter, **instruments.label_values(payload)).inc(payload.get("count", 1))
        for share, of_some in families.shares:
            if share.of is event:
                self._child(of_some).inc(share.amount(payload))
        histogram = families.histograms.get(event)
        seconds = instruments.seconds(payload)
        if histogram is not None and seconds is not None:
            self._child(histogram).observe(seconds)

    def watch_reader(self, reader: WatchedReader) -> None:
        """Its gauges count from now on."""
        self._watched.add(reader)

    def _child(self, metric: Any, **label: str) -> Any:
        return metric.labels(**self._values, **label) if self._values or label else metric


class _Families:
    """The metrics of one registry and prefix."""

    def __init__(self, registry: Any, prefix: str, names: tuple[str, ...], buckets: tuple[float, ...], native: bool) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        counted = {event: i for event, i in INSTRUMENTS.items() if not native or event not in LOOK_UPS}
        bounds: dict[str, Any] = {"buckets": buckets} if buckets else {}
        self.counters = {
            event: Counter(f"{prefix}{i.counter}_total", i.about, (*names, *i.labels), registry=registry)
            for event, i in counted.items()
        }
        self.histograms = {
            event: Histogram(f"{prefix}{i.histogram}_seconds", f"{i.about}: seconds", names, registry=registry, **bounds)
            for event, i in counted.items()
            if i.histogram is not None
        }
        self.shares = [
            (share, Counter(f"{prefix}{share.counter}_total", share.about, names, registry=registry))
            for share in SHARES
            if share.of in counted
        ]
        self.gauges = {name: Gauge(f"{prefix}{name}", about, names, registry=registry) for name, about in GAUGES.items()}
        self._prefix, self._names = prefix, names
        self._taken: list[dict[str, str]] = []
        self.natives: list[tuple[dict[str, str], NativeMetrics]] = []
        if native:
            registry.register(self)

    def take(self, values: dict[str, str]) -> None:
        """ValueError when another collector has the same labels."""
        if values in self._taken:
            raise ValueError(f"another PrometheusCollector with the labels {values} is in this registry")
        self._taken.append(values)
        if values:
            unlabelled = [counter for event, counter in self.counters.items() if not INSTRUMENTS[event].labels]
            for metric in (*unlabelled, *self.histograms.values(), *(counter for _, counter in self.shares)):
                metric.labels(**values)  # it is there before the first event

    def collect(self) -> Iterator[Any]:
        """For the registry: what was counted in C."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        snapshots: list[tuple[list[str], MetricsSnapshot]] = [
            (list(values.values()), counted.snapshot()) for values, counted in self.natives
        ]
        for event in LOOK_UPS:
            i = INSTRUMENTS[event]
            for name, about in [(i.counter, i.about), *((s.counter, s.about) for s in SHARES if s.of is event)]:
                counter = CounterMetricFamily(f"{self._prefix}{name}", about, labels=self._names)
                for values, snapshot in snapshots:
                    counter.add_metric(values, snapshot.counters[name])
                yield counter
            histogram = HistogramMetricFamily(f"{self._prefix}{i.histogram}_seconds", f"{i.about}: seconds", labels=self._names)
            for values, snapshot in snapshots:
                times = snapshot.histograms[f"{i.histogram}"]
                buckets = [(repr(bound), count) for bound, count in times.buckets]
                histogram.add_metric(values, [*buckets, ("+Inf", times.count)], times.sum_s)
            yield histogram


def _families(registry: Any, prefix: str, names: tuple[str, ...], buckets: tuple[float, ...], native: bool) -> _Families:
    """Those that are there, for collectors with labels: they differ only in the labels' values."""
    if not names:
        return _Families(registry, prefix, names, buckets, native)
    known = _labelled.setdefault(registry, {})
    key = (prefix, names, buckets, native)
    if key not in known:
        known[key] = _Families(registry, prefix, names, buckets, native)
    return known[key]
