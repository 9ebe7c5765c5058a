"""A collector for OpenTelemetry. The library is imported when a collector is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from shardyfusion.metrics._events import MetricEvent
from shardyfusion.metrics._instruments import (
    GAUGES,
    INSTRUMENTS,
    SHARES,
    Watched,
    WatchedReader,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

__all__ = ["OtelCollector"]


class OtelCollector:
    """Counters, histograms (seconds) and gauges, with `attributes` on each. Any thread."""

    s3_requests = True  # it hears of every request to S3

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        meter_name: str = "shardyfusion",
        *,
        prefix: str = "shardyfusion.",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        from opentelemetry import metrics

        provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
        meter = provider.get_meter(meter_name)
        self._attributes = dict(attributes or {})
        self._counters = {
            event: meter.create_counter(f"{prefix}{i.counter}", description=i.about)
            for event, i in INSTRUMENTS.items()
        }
        self._shares = [(share, meter.create_counter(f"{prefix}{share.counter}", description=share.about)) for share in SHARES]
        self._histograms = {
            event: meter.create_histogram(f"{prefix}{i.histogram}", unit="s", description=f"{i.about}: seconds")
            for event, i in INSTRUMENTS.items()
            if i.histogram is not None
        }
        self._watched = Watched()
        for name, about in GAUGES.items():
            callback = partial(_observe, self._watched, name, self._attributes)
            meter.create_observable_gauge(f"{prefix}{name.removesuffix('_seconds')}", [callback], description=about)

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Counts one event."""
        counter = self._counters.get(event)
        if counter is None:
            return
        instruments = INSTRUMENTS[event]
        counter.add(payload.get("count", 1), {**self._attributes, **instruments.label_values(payload)})
        for share, of_some in self._shares:
            if share.of is event:
                of_some.add(share.amount(payload), self._attributes)
        histogram = self._histograms.get(event)
        seconds = instruments.seconds(payload)
        if histogram is not None and seconds is not None:
            histogram.record(seconds, self._attributes)

    def watch_reader(self, reader: WatchedReader) -> None:
        """Its gauges count from now on."""
        self._watched.add(reader)


def _observe(watched: Watched, name: str, attributes: dict[str, str], options: CallbackOptions) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    value = watched.gauge(name)
    return () if math.isnan(value) else (Observation(value, attributes),)
