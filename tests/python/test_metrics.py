"""What collectors are told, and what the ready-made ones make of it: counted in C, as Prometheus' text, by OpenTelemetry's SDK."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from fixtures import ROOT, case
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families
from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, ShardedReader
from shardyfusion.metrics import (
    LATENCY_BUCKETS,
    MetricEvent,
    NativeMetrics,
    OtelCollector,
    PrometheusCollector,
)
from shardyfusion.metrics._instruments import GAUGES, INSTRUMENTS, SHARES
from shardyfusion.metrics._native_metrics import LatencySnapshot
from shardyfusion.reader._state import SnapshotState
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory
from shardyfusion.testing import ListMetricsCollector

CASE = case("slatedb-hash-u64be")
LOOKUPS = [(key, db_id, value) for key, db_id, value in CASE.lookups if type(key) is int]
FOUND = [(key, db_id) for key, db_id, value in LOOKUPS if value is not None]
MISSING = next(key for key in range(10**6, 10**7) if key not in {key for key, _ in FOUND})


class OwnFactory(AsyncSlateDbReaderFactory):
    """One of the caller's."""


def of_kind(collector: ListMetricsCollector, event: MetricEvent) -> list[dict[str, Any]]:
    return [payload for happened, payload in collector.events if happened is event]


def open_blocking(tmp_path: Path, collector: Any, **options: Any) -> ShardedReader:
    return ShardedReader(s3_prefix=CASE.prefix, local_root=str(tmp_path), metrics_collector=collector, **options)


# ---------------------------------------------------------------- events


async def test_payloads(tmp_path: Path) -> None:
    told = ListMetricsCollector()
    options = {"s3_prefix": CASE.prefix, "local_root": str(tmp_path), "metrics_collector": told, "lazy_open": True}
    async with AsyncShardedReader.open(**options) as reader:
        for key, db_id in FOUND[:20]:
            for cache in ("miss or hit", "hit"):
                await reader.get(key)
                payload = told.events[-1][1]
                assert list(payload) == ["duration_ms", "found", "duration_s", "db_id", "cache"]
                assert payload["found"] is True and payload["db_id"] == db_id == reader.route_key(key)
                assert payload["cache"] in cache and int(payload["duration_s"] * 1000) == payload["duration_ms"]
        assert {p["cache"] for p in of_kind(told, MetricEvent.READER_GET)} == {"hit", "miss"}
        keys = [key for key, _ in FOUND[:5]]
        await reader.multi_get([*keys, keys[0], MISSING])
        assert told.events[-1][1] == {
            "duration_ms": 0, "num_keys": 7, "duration_s": pytest.approx(0, abs=10), "found_count": 5, "cache": "hit"
        } | {"duration_ms": told.events[-1][1]["duration_ms"], "cache": told.events[-1][1]["cache"]}  # fmt: skip
        await reader.contains(keys[0])
        assert told.events[-1][1]["found"] is True
        assert reader.try_get(keys[0]) is not None and told.events[-1][1]["db_id"] == FOUND[0][1]


@pytest.mark.parametrize("blocking", [True, False])
async def test_look_ups_that_raise(tmp_path: Path, blocking: bool) -> None:
    told = ListMetricsCollector()
    bad: list[tuple[Any, str]] = [(1.5, "ValueError"), (-1, "ConfigValidationError"), (2**63, "ValueError")]
    if blocking:
        with open_blocking(tmp_path, told) as reader:
            for key, _ in bad:
                with pytest.raises(ValueError if key != -1 else Exception):
                    reader.get(key)
            with pytest.raises(ValueError):
                reader.multi_get([1, 1.5])  # type: ignore[list-item]
    else:
        options = {"s3_prefix": CASE.prefix, "local_root": str(tmp_path), "metrics_collector": told}
        async with AsyncShardedReader.open(**options) as reader:
            for key, _ in bad:
                with pytest.raises(Exception, match="."):
                    await reader.get(key)
            with pytest.raises(ValueError):
                await reader.multi_get([1, 1.5])  # type: ignore[list-item]
            task = asyncio.create_task(reader.get(FOUND[0][0]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # is no failure of the look-up's
    failed = of_kind(told, MetricEvent.READER_GET_FAILED)
    assert [(p["operation"], p["error"]) for p in failed] == [*(("get", name) for _, name in bad), ("multi_get", "ValueError")]


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader, AsyncShardedReader])
async def test_a_fallback_is_told(tmp_path: Path, cls: Any) -> None:
    told, broken = ListMetricsCollector(), case("fallback-newest-malformed")
    options = {"s3_prefix": broken.prefix, "local_root": str(tmp_path), "metrics_collector": told}
    if cls is AsyncShardedReader:
        async with cls.open(**options) as reader:
            served = reader.snapshot_info().manifest_ref
    else:
        with cls(**options) as reader:
            served = reader.snapshot_info().manifest_ref
    (payload,) = of_kind(told, MetricEvent.READER_FALLBACK)
    assert payload["manifest_ref"] == served != payload["skipped_ref"]
    assert [event for event, _ in told.events][:2] == [MetricEvent.READER_FALLBACK, MetricEvent.READER_INITIALIZED]


async def test_a_watcher_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Watcher(ListMetricsCollector):
        def watch_reader(self, reader: Any) -> None:
            raise RuntimeError("no")

    with open_blocking(tmp_path, Watcher()) as reader:
        assert reader.get(FOUND[0][0]) is not None
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["metrics_collector_failed"]


# ---------------------------------------------------------------- counted in C


async def use(reader: Any, rounds: int = 50) -> dict[str, int]:
    """What was done with a reader."""

    async def ended(work: Any) -> Any:
        return await work if isinstance(reader, AsyncShardedReader) else work

    for key, _ in FOUND[:10] * rounds:
        await ended(reader.get(key))
    for _ in range(7):
        assert await ended(reader.get(MISSING)) is None
    await ended(reader.multi_get([key for key, _ in FOUND[:4]] + [MISSING]))
    with pytest.raises(ValueError):
        await ended(reader.get(1.5))
    return {
        "reader_gets": 10 * rounds + 7, "reader_gets_not_found": 7, "reader_multi_gets": 1, "reader_multi_get_keys": 5,
        "reader_multi_get_keys_found": 4, "reader_get_failures": 1, "reader_get_failures{ValueError}": 1,
    }  # fmt: skip


@pytest.mark.parametrize("options", [{"lazy_open": True}, {"reader_factory": OwnFactory()}], ids=["engine", "factory"])
async def test_native_metrics(tmp_path: Path, options: dict[str, Any]) -> None:
    metrics = NativeMetrics()
    assert math.isnan(metrics.snapshot().gauges["snapshot_created_timestamp_seconds"])
    async with AsyncShardedReader.open(
        s3_prefix=CASE.prefix, local_root=str(tmp_path), metrics_collector=metrics, **options
    ) as reader:
        expected = await use(reader)
        now = metrics.snapshot()
        assert {name: now.counters[name] for name in expected} == expected
        assert now.counters["reader_refreshes"] == now.counters["writes_started"] == 0
        assert await reader.refresh() is False and metrics.snapshot().counters["reader_refreshes"] == 1
        times = now.histograms["reader_get_duration"]
        assert times.count == expected["reader_gets"] and 0 < times.sum_s < 60
        assert 0 < times.quantile(0.5) <= times.quantile(0.99) < 60
        if "lazy_open" in options:
            assert [n for _, n in times.buckets] == sorted(n for _, n in times.buckets) and times.buckets[-1][1] == times.count
            hits, misses = now.histograms["reader_get_hit_duration"], now.histograms["reader_get_miss_duration"]
            assert hits.count + misses.count == times.count and 0 < misses.count == now.counters["reader_get_misses"] < 100
        created = reader.snapshot_info().created_at.timestamp()
        assert now.gauges["snapshot_created_timestamp_seconds"] == pytest.approx(created)
        assert now.gauges["open_shards"] == sum(d.db_url is not None for d in reader.shard_details()) > 0
        assert now.gauges["cache_bytes"] > 0
    assert metrics.snapshot().gauges["open_shards"] == 0


def test_every_batch_is_timed_natively(tmp_path: Path) -> None:
    """Those out of memory, too, which took one nanosecond each."""
    metrics = NativeMetrics()
    with open_blocking(tmp_path, metrics) as reader:
        for _ in range(40):
            reader.multi_get([key for key, _ in FOUND[:100]])
    times = metrics.snapshot().histograms["reader_multi_get_duration"]
    assert times.count == 40 and times.buckets[0][1] == 0, "no batch takes 64 ns"
    assert times.sum_s < 60


def test_one_native_collector_for_many_readers(tmp_path: Path) -> None:
    metrics = NativeMetrics()
    readers = [open_blocking(tmp_path / str(n), metrics) for n in range(3)]
    one = sum(d.db_url is not None for d in readers[0].shard_details())
    assert metrics.snapshot().gauges["open_shards"] == 3 * one
    readers.pop().close()
    assert metrics.snapshot().gauges["open_shards"] == 2 * one
    del readers
    gc.collect()
    assert metrics.snapshot().gauges["open_shards"] == 0


def test_facts_do_not_slow_look_ups_down() -> None:
    """A cached_property gives an instance a dict, and CPython 3.11 then looks up all of its attributes the slow way."""
    assert not [name for name, value in vars(SnapshotState).items() if isinstance(value, cached_property)]


def test_quantiles() -> None:
    times = LatencySnapshot(10, 1.0, ((0.1, 5), (0.2, 9)))
    assert [times.quantile(q) for q in (0, 0.5, 0.51, 0.9, 1)] == [0.1, 0.1, 0.2, 0.2, math.inf]
    assert math.isnan(LatencySnapshot(0, 0.0).quantile(0.5))
    with pytest.raises(ValueError, match="from 0 to 1"):
        times.quantile(99)


def test_boundaries_hold_what_they_say(tmp_path: Path) -> None:
    """The engine's own arithmetic of boundaries, by what it counts: in order, from 64 ns to 137 s, at most half apart."""
    bounds = [bound for bound, _ in NativeMetrics().snapshot().histograms["reader_get_duration"].buckets]
    assert bounds[0] == pytest.approx(64e-9) and bounds[-1] == pytest.approx(2**37 / 1e9) and bounds == sorted(bounds)
    assert all(1.3 < after / before < 1.51 for before, after in zip(bounds, bounds[1:], strict=False))


# ---------------------------------------------------------------- Prometheus


def scraped(registry: prometheus_client.CollectorRegistry) -> dict[str, Any]:
    """The samples of the text that Prometheus would get, by name and labels."""
    text = prometheus_client.generate_latest(registry).decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    keys = [(s.name, *sorted(s.labels.items())) for s in samples]
    assert len(keys) == len(set(keys))
    return {s.name + "".join(f" {k}={v}" for k, v in sorted(s.labels.items())): s.value for s in samples}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("options", [{}, {"reader_factory": OwnFactory()}], ids=["engine", "factory"])
async def test_prometheus(tmp_path: Path, native: bool, options: dict[str, Any]) -> None:
    registry = prometheus_client.CollectorRegistry()
    collector = PrometheusCollector(registry, buckets=LATENCY_BUCKETS, labels={"dataset": "users"}, native=native)
    other = PrometheusCollector(registry, buckets=LATENCY_BUCKETS, labels={"dataset": "items"}, native=native)
    async with AsyncShardedReader.open(
        s3_prefix=CASE.prefix, local_root=str(tmp_path), metrics_collector=collector, **options
    ) as reader:
        expected = await use(reader)
        await reader.refresh()
        other.emit(MetricEvent.READER_REFRESH_FAILED, {"error": "S3TransientError"})
        found = scraped(registry)
        for name, value in expected.items():
            if "failures" not in name:
                assert found[f"shardyfusion_{name}_total dataset=users"] == value, name
                assert found[f"shardyfusion_{name}_total dataset=items"] == 0, name
        assert found["shardyfusion_reader_get_failures_total dataset=users error=ValueError"] == 1
        assert found["shardyfusion_reader_refresh_failures_total dataset=items error=S3TransientError"] == 1
        assert found["shardyfusion_reader_refreshes_total dataset=users"] == 1
        count = found["shardyfusion_reader_get_duration_seconds_count dataset=users"]
        assert count == expected["reader_gets"] == found["shardyfusion_reader_get_duration_seconds_bucket dataset=users le=+Inf"]
        quick = [v for k, v in found.items() if "get_duration_seconds_bucket dataset=users" in k and float(k.rpartition("=")[2]) < 5e-3]
        assert max(quick) > 0 and len(quick) > 10  # boundaries below what the client's own begin with
        assert found["shardyfusion_open_shards dataset=users"] > 0 == found["shardyfusion_open_shards dataset=items"]
        created = reader.snapshot_info().created_at.timestamp()
        assert found["shardyfusion_snapshot_created_timestamp_seconds dataset=users"] == pytest.approx(created)
        assert "shardyfusion_cache_bytes dataset=users" in found
    with pytest.raises(ValueError, match="another PrometheusCollector with the labels"):
        PrometheusCollector(registry, buckets=LATENCY_BUCKETS, labels={"dataset": "users"}, native=native)


@pytest.mark.parametrize("name", ["error", "operation", "outcome", "status"])
def test_labels_that_some_metrics_have_already(name: str) -> None:
    registry = prometheus_client.CollectorRegistry()
    with pytest.raises(ValueError, match=f"with these names: call the collector's otherwise than {name}"):
        PrometheusCollector(registry, labels={"dataset": "users", name: "mine"})
    PrometheusCollector(registry, labels={"dataset": "users"})  # nothing was registered


def test_prometheus_as_the_contract_has_it() -> None:
    registry = prometheus_client.CollectorRegistry()
    collector = PrometheusCollector(registry)
    collector.emit(MetricEvent.READER_GET, {"duration_ms": 20, "found": True})  # of a program that emits on its own
    found = scraped(registry)
    assert found["shardyfusion_reader_get_duration_seconds_sum"] == pytest.approx(0.02)
    assert found["shardyfusion_reader_get_duration_seconds_bucket le=0.005"] == 0
    with pytest.raises(ValueError):
        PrometheusCollector(registry)


# ---------------------------------------------------------------- OpenTelemetry


async def test_otel(tmp_path: Path) -> None:
    exported = InMemoryMetricReader()
    collector = OtelCollector(MeterProvider([exported]), attributes={"dataset": "users"})
    async with AsyncShardedReader.open(s3_prefix=CASE.prefix, local_root=str(tmp_path), metrics_collector=collector) as reader:
        expected = await use(reader, 2)
        data = exported.get_metrics_data()
        assert data is not None
        found = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
        for name, value in expected.items():
            if "{" not in name:
                (point,) = found[f"shardyfusion.{name}"].data.data_points
                assert point.value == value and point.attributes["dataset"] == "users"
        (failure,) = found["shardyfusion.reader_get_failures"].data.data_points
        assert failure.attributes["error"] == "ValueError"
        assert 0 < found["shardyfusion.reader_get_duration"].data.data_points[0].sum < 60
        (created,) = found["shardyfusion.snapshot_created_timestamp"].data.data_points
        assert created.value == pytest.approx(reader.snapshot_info().created_at.timestamp())
        assert found["shardyfusion.open_shards"].data.data_points[0].value > 0


# ---------------------------------------------------------------- what is alerted on exists

EXISTING = {
    *(f"shardyfusion_{name}_total" for name in [*(i.counter for i in INSTRUMENTS.values()), *(s.counter for s in SHARES)]),
    *(f"shardyfusion_{i.histogram}_seconds_bucket" for i in INSTRUMENTS.values() if i.histogram),
    *(f"shardyfusion_{name}" for name in GAUGES),
}


def test_the_table_is_what_is_exposed() -> None:
    registry = prometheus_client.CollectorRegistry()
    PrometheusCollector(registry)
    text = prometheus_client.generate_latest(registry).decode()
    assert EXISTING <= set(re.findall(r"shardyfusion_\w+", text)) | {
        f"shardyfusion_{i.counter}_total" for i in INSTRUMENTS.values() if i.labels  # appear with their first label
    }


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yaml"])
def test_examples_name_metrics_that_exist(name: str) -> None:
    text = (ROOT / "examples" / "metrics" / name).read_text()
    named = set(re.findall(r"shardyfusion_\w+", text))
    assert len(named) > 5 and named <= EXISTING
    if name.endswith(".json"):
        panels = json.loads(text)["panels"]
        assert len({p["id"] for p in panels}) == len(panels) and all(p["targets"] for p in panels)
        for x, y, w, h in ((p["gridPos"]["x"], p["gridPos"]["y"], p["gridPos"]["w"], p["gridPos"]["h"]) for p in panels):
            assert x + w <= 24 and y >= 0 and h > 0
