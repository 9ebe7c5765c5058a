"""Look-ups beside `get` and `multi_get`: aligned lists, whether a key is there, memory only. On readers and handles, over the
engine's shards and a factory's own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from fixtures import CEL, case, typed

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    MetricEvent,
    ReaderStateError,
    ShardedReader,
    SlateDbReaderFactory,
    TokenBucket,
)
from shardyfusion.errors import ConfigValidationError
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory
from shardyfusion.testing import ListMetricsCollector

# Two of its blocks are not loaded at opening.
CASE = case("slatedb-multi-l0")
ROWS = {key: value for key, _, value in CASE.lookups if value is not None}
ABSENT = next(key for key, _, value in CASE.lookups if value is None)
SOME = [*list(ROWS)[:40], ABSENT, list(ROWS)[0], *list(ROWS)[-40:]]
NOTHING = object()


class OwnFactory(SlateDbReaderFactory):
    """A subclass may do anything, so the reader asks it."""


class OwnAsyncFactory(AsyncSlateDbReaderFactory):
    """The same."""


WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "async": (AsyncShardedReader, {}),
    "async, collector": (AsyncShardedReader, {"metrics_collector": ListMetricsCollector()}),
    "async, factory": (AsyncShardedReader, {"reader_factory": OwnAsyncFactory()}),
    "plain": (ShardedReader, {}),
    "plain, factory": (ShardedReader, {"reader_factory": OwnFactory()}),
    "concurrent": (ConcurrentShardedReader, {}),
    "concurrent, factory": (ConcurrentShardedReader, {"reader_factory": OwnFactory(), "thread_safety": "pool"}),
}


async def opened(way: str, tmp_path: Path, prefix: str = CASE.prefix, **more: Any) -> Any:
    cls, options = WAYS[way]
    reader = (cls.open if cls is AsyncShardedReader else cls)(
        s3_prefix=prefix, local_root=str(tmp_path / "local"), **{**options, **more})
    return await now(reader) if cls is AsyncShardedReader else reader


async def now(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize("way", WAYS)
async def test_lists_and_presence(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path)
    expected = [ROWS.get(key) for key in SOME]
    assert await now(reader.get_many(SOME)) == expected
    assert await now(reader.get_many(iter(SOME))) == expected
    assert await now(reader.get_many([])) == []
    assert await now(reader.contains_many(SOME)) == [value is not None for value in expected]
    assert await now(reader.contains_many(iter(SOME))) == [value is not None for value in expected]
    for key in SOME[:3] + [ABSENT]:
        assert await now(reader.contains(key, timeout=60)) is (key in ROWS)
    for work in (reader.contains, reader.try_get):
        with pytest.raises(ValueError, match="u64be"):
            await now(work("text"))
    with pytest.raises(ValueError, match="requires CEL"):
        await now(reader.contains(SOME[0], routing_context={"region": "eu"}))
    await now(reader.close())
    for work in (reader.contains, reader.try_get, lambda key: reader.contains_many([key]), lambda key: reader.get_many([key])):
        with pytest.raises(ReaderStateError):
            await now(work(SOME[0]))


@pytest.mark.parametrize("way", WAYS)
async def test_handles(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path)
    key = SOME[0]
    handle = reader.reader_for_key(key)
    stored, absent = reader.encode_key(key), b"\xff" * 8
    assert await now(handle.get_many([stored, absent, stored])) == [ROWS[key], None, ROWS[key]]
    assert await now(handle.contains_many([absent, stored, absent])) == [False, True, False]
    assert await now(handle.contains(stored)) is True
    assert await now(handle.contains(absent)) is False
    await now(handle.get(stored))
    # what such a factory opens is the engine's again
    assert handle.try_get(stored) == ROWS[key] if "pool" not in str(WAYS[way]) else True
    handle.close()
    await now(reader.close())


@pytest.mark.parametrize("way", WAYS)
async def test_memory_only(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path)
    answers = {key: reader.try_get(key, NOTHING) for key in ROWS}
    cold = [key for key, value in answers.items() if value is NOTHING]
    assert all(answers[key] == ROWS[key] for key in ROWS if key not in cold)
    assert cold
    for key in cold[:3]:
        with pytest.raises(LookupError, match="get\\(\\)"):
            reader.try_get(key)
        assert reader.try_get(key, None) is None
        assert reader.try_get(key, default=5) == reader.try_get(key=key, default=5) == 5
    assert await now(reader.get(cold[0])) == ROWS[cold[0]]
    if "factory" in way:  # which has a memory of its own
        assert cold == list(ROWS)
        assert reader.try_get(cold[0], NOTHING) is NOTHING
    else:
        assert reader.try_get(cold[0]) == reader.try_get(cold[0], NOTHING) == ROWS[cold[0]]
    await now(reader.close())


async def test_a_shard_that_is_not_open_is_not_in_memory(tmp_path: Path) -> None:
    reader = await opened("async", tmp_path, case("slatedb-hash-u64be").prefix, lazy_open=True)
    rows = {key: value for key, _, value in case("slatedb-hash-u64be").lookups if value is not None}
    key = next(iter(rows))
    assert reader.try_get(key, NOTHING) is NOTHING
    handle = reader.reader_for_key(key)
    with pytest.raises(LookupError):
        handle.try_get(reader.encode_key(key))
    assert handle.try_get(reader.encode_key(key), NOTHING) is NOTHING
    handle.close()
    assert await reader.contains(key)
    assert reader.try_get(key) == rows[key]
    await reader.close()


@pytest.mark.parametrize("way", ["async", "async, factory", "plain", "plain, factory", "concurrent"])
async def test_limiter_and_collector(way: str, tmp_path: Path) -> None:
    collector = ListMetricsCollector()
    bucket = TokenBucket(0.001)
    bucket._set_level((1.0, *bucket._level()[1:]))
    reader = await opened(way, tmp_path, metrics_collector=collector, rate_limiter=bucket)
    warm = next((key for key in ROWS if reader.try_get(key, NOTHING) is not NOTHING), None)
    if warm is not None:  # that took the only token
        assert reader.try_get(warm, NOTHING) is NOTHING
        with pytest.raises(LookupError):
            reader.try_get(warm)
    told = [payload["found"] for event, payload in collector.events if event is MetricEvent.READER_GET]
    assert told == ([] if warm is None else [True])
    bucket._set_level((100.0, *bucket._level()[1:]))
    assert await now(reader.contains(ABSENT)) is False
    assert await now(reader.contains_many(SOME[:2])) == [True, True]
    told = [payload["found"] for event, payload in collector.events if event is MetricEvent.READER_GET]
    assert told[-1:] == [False]
    assert [p["num_keys"] for event, p in collector.events if event is MetricEvent.READER_MULTI_GET] == [2]
    await now(reader.close())


class FixedLimiter:
    """Not a bucket of ours."""

    def __init__(self) -> None:
        self.has = True

    def try_acquire(self, tokens: int = 1) -> bool:
        return self.has

    def acquire(self, tokens: int = 1) -> None:
        raise AssertionError

    async def acquire_async(self, tokens: int = 1) -> None:
        raise AssertionError


@pytest.mark.parametrize("way", ["async", "plain"])
async def test_a_limiter_of_the_callers_own(way: str, tmp_path: Path) -> None:
    limiter = FixedLimiter()
    reader = await opened(way, tmp_path, rate_limiter=limiter)
    warm = next(key for key in ROWS if reader.try_get(key, NOTHING) is not NOTHING)
    limiter.has = False
    assert reader.try_get(warm, NOTHING) is NOTHING
    await now(reader.close())


@pytest.mark.parametrize("way", ["async", "async, factory", "plain", "plain, factory"])
async def test_strict_keys(way: str, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, strict_keys=True)
    for work in (reader.contains, reader.try_get, lambda key: reader.contains_many([key]), lambda key: reader.get_many([key])):
        with pytest.raises(ConfigValidationError, match="strict_keys"):
            await now(work(b"\0" * 8))
    await now(reader.close())


@pytest.mark.parametrize("golden", CEL, ids=lambda c: c.name)
@pytest.mark.parametrize("way", ["async", "plain"])
async def test_with_a_routing_context(way: str, golden: Any, tmp_path: Path) -> None:
    reader = await opened(way, tmp_path, golden.prefix)
    asked = 0
    for one in golden.expected["lookups"]:
        if "value" not in one:
            continue
        key = typed(one["key"])
        context = {name: typed(value) for name, value in one.get("context", {}).items()} or None
        expected = None if one["value"] is None else bytes.fromhex(one["value"])
        assert await now(reader.contains(key, routing_context=context)) is (expected is not None)
        assert await now(reader.contains_many([key], routing_context=context)) == [expected is not None]
        if golden.expected["backend"] == "slatedb":
            assert reader.try_get(key, routing_context=context) == expected
        asked += 1
    assert asked
    await now(reader.close())
