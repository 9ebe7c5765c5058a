"""A collector for OpenTelemetry. The library is imported when a collector is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardyfusion.metrics._events import MetricEvent
from shardyfusion.metrics._instruments import INSTRUMENTS

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

__all__ = ["OtelCollector"]


class OtelCollector:
    """Counters and histograms (seconds) without attributes. Any thread."""

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        meter_name: str = "shardyfusion",
        *,
        prefix: str = "shardyfusion.",
    ) -> None:
        from opentelemetry import metrics

        provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
        meter = provider.get_meter(meter_name)
        self._counters = {
            event: meter.create_counter(f"{prefix}{i.counter}", description=i.about)
            for event, i in INSTRUMENTS.items()
        }
        self._histograms = {
            event: meter.create_histogram(f"{prefix}{i.histogram}", unit="s", description=f"{i.about}: seconds")
            for event, i in INSTRUMENTS.items()
            if i.histogram is not None
        }

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Counts one event."""
        counter = self._counters.get(event)
        if counter is None:
            return
        counter.add(payload.get("count", 1))
        histogram = self._histograms.get(event)
        instruments = INSTRUMENTS[event]
        if histogram is not None and instruments.field in payload:
            histogram.record(payload[instruments.field] / instruments.divisor)
