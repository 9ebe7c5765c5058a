"""Reads of shards on S3 whose answer is late are asked for once more, by readers that are told so, and not of a store that is sick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_s3 import Fault, Front, access, no_faults, publishing, value_of  # noqa: F401

from shardyfusion import AsyncShardedReader, CacheOptions, MetricEvent, ShardedReader
from shardyfusion.metrics import NativeMetrics
from shardyfusion.testing import ListMetricsCollector

KEYS, PREFIX = 400, "s3://scratch/hedged"
SILENCE = Fault(match=".sst", stall=-1)  # until the client goes
LATE = Fault(match=".sst", latency=0.5)
HEDGED = CacheOptions(memory_bytes=0, hedge_share=0.5, hedge_after=0.1)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with publishing(tmp_path_factory.mktemp("local"), KEYS, PREFIX) as f:
        yield f


def reading(front: Front, folder: Path, cache: CacheOptions = HEDGED, **options: Any) -> ShardedReader[Any]:
    return ShardedReader(s3_prefix=PREFIX, local_root=str(folder), cache=cache, **options, **access(front.endpoint))


def outcomes(collector: ListMetricsCollector) -> list[str]:
    told = [payload for event, payload in collector.events if event is MetricEvent.S3_HEDGE]
    assert all(set(payload) == {"operation", "outcome"} and payload["operation"] == "get" for payload in told)
    return [payload["outcome"] for payload in told]


def test_a_second_request_answers(front: Front, tmp_path: Path) -> None:
    told, counted = ListMetricsCollector(), NativeMetrics()
    for collector in (told, counted):
        with reading(front, tmp_path, metrics_collector=collector) as reader:
            front.plan(SILENCE)
            assert reader.get(7) == value_of(7)
            stats = reader.cache_stats()
            assert stats.hedges_sent >= stats.hedges_won >= 1  # more than one only where this machine is slow
    seen = outcomes(told)
    assert "sent" in seen and "won" in seen and seen.index("sent") < seen.index("won")
    counters = counted.snapshot().counters
    assert counters["s3_hedges{sent}"] == stats.hedges_sent and counters["s3_hedges{won}"] == stats.hedges_won


async def test_the_same_of_batches_and_scans(front: Front, tmp_path: Path) -> None:
    async with await AsyncShardedReader.open(s3_prefix=PREFIX, local_root=str(tmp_path), cache=HEDGED, **access(front.endpoint)) as reader:
        front.plan(SILENCE)
        assert await reader.multi_get(range(20)) == {key: value_of(key) for key in range(20)}
        assert reader.cache_stats().hedges_won >= 1
        front.plan(SILENCE)
        assert [value async for _, value in reader.scan(limit=3)] == [value_of(key) for key in range(3)]


def test_a_store_that_refuses_is_not_asked_more(front: Front, tmp_path: Path) -> None:
    told = ListMetricsCollector()
    patient = CacheOptions(memory_bytes=0, hedge_share=0.5, hedge_after=0.4)  # on a busy machine the refusal comes before it, too
    with reading(front, tmp_path, patient, metrics_collector=told) as reader:
        front.plan(Fault(match=".sst", status=503, times=1), LATE)
        assert reader.get(7) == value_of(7)
        stats = reader.cache_stats()
    assert (stats.hedges_sent, stats.hedges_refused_sick) == (0, 1)  # late since it waits for its next attempt
    assert outcomes(told) == ["refused_sick"]


def test_the_share_bounds_it(front: Front, tmp_path: Path) -> None:
    with reading(front, tmp_path, CacheOptions(memory_bytes=0, hedge_share=0.01, hedge_after=0.1)) as reader:
        front.plan(LATE)
        assert reader.get(7) == value_of(7)
        stats = reader.cache_stats()
    assert stats.hedges_sent == 0 and stats.hedges_refused_budget >= 1


def test_nobody_hedges_who_is_not_told_to(front: Front, tmp_path: Path) -> None:
    with reading(front, tmp_path, CacheOptions(memory_bytes=0)) as reader:
        front.plan(LATE)
        assert reader.get(7) == value_of(7)
        stats = reader.cache_stats()
    assert stats.hedges_sent == stats.hedges_refused_budget == stats.hedges_refused_sick == stats.hedges_refused_room == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hedge_share": -0.1}, ValueError, "hedge_share"),
        ({"hedge_share": 0.6}, ValueError, "within 0 and 0.5"),
        ({"hedge_share": float("nan")}, ValueError, "hedge_share"),
        ({"hedge_share": "5 %"}, (TypeError, ValueError), "hedge_share"),
        ({"hedge_after": 0.1}, ValueError, "hedge_share is not"),
        ({"hedge_share": 0.1, "hedge_after": "soon"}, (TypeError, ValueError), "hedge_after"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: Any, text: str, front: Front, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        reading(front, tmp_path, CacheOptions(**options))
