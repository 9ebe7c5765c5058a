"""A collector for Prometheus. The client library is imported when a collector is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardyfusion.metrics._events import MetricEvent
from shardyfusion.metrics._instruments import INSTRUMENTS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusCollector"]


class PrometheusCollector:
    """Counters and histograms (seconds) without labels, all registered at once. Any thread."""

    def __init__(self, registry: CollectorRegistry | None = None, prefix: str = "shardyfusion_") -> None:
        from prometheus_client import REGISTRY, Counter, Histogram

        target = REGISTRY if registry is None else registry
        self._counters = {
            event: Counter(f"{prefix}{i.counter}_total", i.about, registry=target) for event, i in INSTRUMENTS.items()
        }
        self._histograms = {
            event: Histogram(f"{prefix}{i.histogram}_seconds", f"{i.about}: seconds", registry=target)
            for event, i in INSTRUMENTS.items()
            if i.histogram is not None
        }

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Counts one event."""
        counter = self._counters.get(event)
        if counter is None:
            return
        counter.inc(payload.get("count", 1))
        histogram = self._histograms.get(event)
        instruments = INSTRUMENTS[event]
        if histogram is not None and instruments.field in payload:
            histogram.observe(payload[instruments.field] / instruments.divisor)
