"""Metrics: the events that readers and writers emit, and collectors for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._lazy import lazy_attributes
from shardyfusion.metrics._events import MetricEvent
from shardyfusion.metrics._instruments import LATENCY_BUCKETS
from shardyfusion.metrics._protocol import MetricsCollector

if TYPE_CHECKING:
    from shardyfusion.metrics._native_metrics import (
        LatencySnapshot,
        MetricsSnapshot,
        NativeMetrics,
    )
    from shardyfusion.metrics.otel import OtelCollector
    from shardyfusion.metrics.prometheus import PrometheusCollector

__all__ = [
    "LATENCY_BUCKETS",
    "LatencySnapshot",
    "MetricEvent",
    "MetricsCollector",
    "MetricsSnapshot",
    "NativeMetrics",
    "OtelCollector",
    "PrometheusCollector",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = lazy_attributes(
        globals(),
        {
            "LatencySnapshot": "shardyfusion.metrics._native_metrics",
            "MetricsSnapshot": "shardyfusion.metrics._native_metrics",
            "NativeMetrics": "shardyfusion.metrics._native_metrics",
            "OtelCollector": "shardyfusion.metrics.otel",
            "PrometheusCollector": "shardyfusion.metrics.prometheus",
        },
    )
