"""Helpers for the tests of programs that use the package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from shardyfusion.metrics import MetricEvent

__all__ = ["ListMetricsCollector"]


@dataclass(slots=True)
class ListMetricsCollector:
    """Keeps every event and its payload, in order."""

    events: list[tuple[MetricEvent, dict[str, Any]]] = field(default_factory=list)

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Keeps one event."""
        self.events.append((event, dict(payload)))


_WRITER_HELPERS = {
    "FailOnceAdapterFactory",
    "FakeSlateDbAdapter",
    "FileBackedSlateDbAdapter",
    "FileBackedSlateDbAdapterFactory",
    "RealSlateDbFileAdapterFactory",
    "fake_adapter_factory",
    "file_backed_adapter_factory",
    "file_backed_load_db",
    "real_file_adapter_factory",
}


def __getattr__(name: str) -> NoReturn:
    if name in _WRITER_HELPERS:
        raise AttributeError(f"{__name__}.{name}: writing snapshots is not available in this version")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
