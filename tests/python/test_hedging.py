"""Reads of shards on S3 whose answer is late are asked for once more, by readers that are told so, and not of a store that is sick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    CacheOptions,
    HashShardedWriteConfig,
    MetricEvent,
    PythonRecordInput,
    ShardedReader,
    StaticCredentialProvider,
    WriterOutputConfig,
)
from shardyfusion.metrics import NativeMetrics  # noqa: E402
from shardyfusion.testing import ListMetricsCollector  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

KEYS, PREFIX = 400, "s3://scratch/hedged"
SILENCE = Fault(match=".sst", stall=-1)  # until the client goes
LATE = Fault(match=".sst", latency=0.5)
HEDGED = CacheOptions(memory_bytes=0, hedge_share=0.5, hedge_after=0.1)


def value_of(key: int) -> bytes:
    return key.to_bytes(4, "big") * 1024


def access(endpoint: str) -> dict[str, Any]:
    return {
        "credential_provider": StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
        "s3_connection_options": {"endpoint_url": endpoint, "region_name": REGION},
    }


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with s3_server() as server:
        output = WriterOutputConfig(local_root=str(tmp_path_factory.mktemp("local")))
        config = HashShardedWriteConfig(num_dbs=2, s3_prefix=PREFIX, output=output, **access(server.endpoint))
        write_hash_sharded(range(KEYS), config, PythonRecordInput(key_fn=int, value_fn=value_of))
        with fault_server(server.endpoint) as f:
            yield f


@pytest.fixture(autouse=True)
def no_faults(front: Front) -> Iterator[None]:
    yield
    front.plan()


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
    assert outcomes(told)[:2] == ["sent", "won"]
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
    with reading(front, tmp_path, metrics_collector=told) as reader:
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
