"""Readers over a store, a factory, a limiter and a collector that are the caller's own."""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import inspect
import logging
import pickle
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import numpy as np
import pytest
from plugged import Factory, Limiter, Shard, Store, SyncStore, key_in, make_manifest, stored

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    DbAdapterError,
    ManifestParseError,
    MetricEvent,
    ReaderStateError,
    ShardedReader,
)
from shardyfusion.errors import OperationTimeoutError
from shardyfusion.testing import ListMetricsCollector


@pytest.fixture
def store() -> Store:
    store = Store()
    store.publish("run-1")
    return store


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def opening(store: Store, factory: Factory, tmp_path: Path) -> Any:
    def open_reader(**options: Any) -> Any:
        return AsyncShardedReader.open(**{
            "s3_prefix": "any name at all", "local_root": str(tmp_path / "local"), "manifest_store": store,
            "reader_factory": factory, **options})

    return open_reader


class Broken:
    """A collector that fails."""

    def __init__(self) -> None:
        self.events: list[MetricEvent] = []

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        self.events.append(event)
        raise RuntimeError("collector")


# ---------------------------------------------------------------- opening


async def test_order_and_arguments_of_opening(opening: Any, store: Store, factory: Factory, tmp_path: Path) -> None:
    store.publish("run-2", make_manifest("run-2", 4, empty=(1,)))
    metrics = ListMetricsCollector()
    async with await opening(metrics_collector=metrics) as reader:
        assert store.calls == ["load_current", ("load_manifest", "run-2")]
        assert factory.calls == [
            {
                "db_url": f"s3://bucket/p/run-2/{db_id}", "local_dir": tmp_path / "local" / f"shard={db_id:05d}",
                "exists": True, "checkpoint_id": f"check-{db_id}", "run_id": "run-2",
            }
            for db_id in (0, 2, 3)
        ]
        assert metrics.events == [(MetricEvent.READER_INITIALIZED, {})]
        assert reader.snapshot_info().num_dbs == 4
        assert await reader.get(key_in(1, 4)) is None  # the shard is empty: nobody is asked
        assert factory.gets == []
        assert reader.health().num_shards == 4
        assert (reader.s3_prefix, reader.local_root) == ("any name at all", str(tmp_path / "local"))
    assert factory.still_open == []
    assert metrics.events[-1] == (MetricEvent.READER_CLOSED, {"num_handles": 4})


async def test_shards_open_together_but_not_all_at_once(opening: Any, store: Store, factory: Factory) -> None:
    store.publish("wide", make_manifest("wide", 20))
    async with opening(open_concurrency=5):
        assert factory.most_opening == 5
    with pytest.raises(ValueError, match="open_concurrency"):
        await opening(open_concurrency=0)


async def test_a_shard_that_cannot_be_opened(opening: Any, factory: Factory) -> None:
    error = RuntimeError("no such shard")
    factory.open_errors["s3://bucket/p/run-1/1"] = error
    with pytest.raises(RuntimeError) as caught:
        await opening()
    assert caught.value is error
    assert factory.still_open == []


async def test_a_failed_opening_whose_shards_cannot_be_closed(
    opening: Any, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    factory.open_errors["s3://bucket/p/run-1/2"] = RuntimeError("no such shard")
    factory.close_errors = {"s3://bucket/p/run-1/0"}
    with caplog.at_level(logging.DEBUG, "shardyfusion"), pytest.raises(RuntimeError, match="no such shard"):
        await opening()
    assert [(r.message, r.levelname, r.shardyfusion["db_id"], r.shardyfusion["manifest_ref"]) for r in caplog.records] == [
        ("reader_handle_close_failed", "ERROR", 0, "run-1")]


async def test_a_cancelled_opening_closes_what_it_opened(opening: Any, factory: Factory) -> None:
    factory.open_gate = asyncio.Event()
    task = asyncio.create_task(opening())
    while factory.opening < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert factory.opening == 0
    assert factory.still_open == []


async def test_lazy_opening(opening: Any, factory: Factory) -> None:
    factory.open_errors["s3://bucket/p/run-1/1"] = RuntimeError("broken")
    async with opening(lazy_open=True) as reader:
        assert factory.calls == []
        good, bad = key_in(0), key_in(1)
        assert await asyncio.gather(*(reader.get(good) for _ in range(1))) == [f"run-1:{good}".encode()]
        assert len(factory.calls) == 1
        with pytest.raises(RuntimeError, match="broken"):
            await reader.get(bad)
        assert await reader.get(good) is not None
        del factory.open_errors["s3://bucket/p/run-1/1"]
        assert await reader.get(bad) is not None
    assert factory.still_open == []


async def test_lazy_opening_opens_once(opening: Any, factory: Factory) -> None:
    factory.open_gate = asyncio.Event()
    factory.concurrent_tasks = True
    async with opening(lazy_open=True) as reader:
        tasks = [asyncio.create_task(reader.get(key_in(0))) for _ in range(5)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.sleep(0)
        factory.open_gate.set()
        values = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(values[0], asyncio.CancelledError)
        assert set(values[1:]) == {f"run-1:{key_in(0)}".encode()}
        assert len(factory.calls) == 1


async def test_a_sync_factory_is_refused(opening: Any) -> None:
    with pytest.raises(TypeError, match="can't be used in 'await' expression"):
        await opening(reader_factory=lambda **kw: object())


async def test_a_blocking_store_is_adapted(opening: Any, store: Store) -> None:
    async with opening(manifest_store=SyncStore(store)) as reader:
        assert reader.snapshot_info().run_id == "run-1"
        store.publish("run-2")
        assert await reader.refresh() is True
        assert reader.snapshot_info().run_id == "run-2"


async def test_bad_arguments() -> None:
    arguments: dict[str, Any] = {"s3_prefix": "s3://bucket/p", "local_root": "x"}
    for changed, text in [
        ({"s3_prefix": "http://bucket/p"}, "Invalid S3 URL: http://bucket/p"),
        ({"s3_prefix": "bucket/p"}, "Invalid S3 URL: bucket/p"),
        ({"s3_prefix": ""}, "Invalid S3 URL: "),
        ({"s3_prefix": "s3:///p"}, "Invalid S3 URL: s3:///p"),
        ({"s3_prefix": "s3://bucket"}, "S3 URL must include key path: s3://bucket"),
        ({"s3_prefix": "s3://bucket/"}, "S3 URL must include key path: s3://bucket/"),
        ({"max_concurrency": 0}, "max_concurrency must be a positive integer (>= 1)"),
        ({"max_concurrency": -1}, "max_concurrency must be a positive integer (>= 1)"),
    ]:
        with pytest.raises(ValueError) as caught:
            AsyncShardedReader(**{**arguments, **changed})
        assert str(caught.value) == text
        with pytest.raises(ValueError) as caught:
            await AsyncShardedReader.open(**{**arguments, **changed})
        assert str(caught.value) == text
    with pytest.raises(TypeError):
        AsyncShardedReader("s3://bucket/p", "x")  # type: ignore[misc]
    with pytest.raises(TypeError):
        AsyncShardedReader.open(**arguments, no_such_argument=1)


async def test_open_in_all_its_forms(opening: Any, factory: Factory) -> None:
    async with opening() as one:
        assert await one.get(1) == b"run-1:1"
    async with await opening() as two:
        assert await two.get(1) == b"run-1:1"
    three = await asyncio.create_task(opening())
    four, = await asyncio.gather(opening())
    five = await asyncio.wait_for(opening(), 10)
    assert asyncio.iscoroutine(coroutine := opening())
    coroutine.close()
    for reader in (three, four, five):
        await reader.close()
    assert factory.still_open == []


COROUTINE_FUNCTIONS = ("open", "get", "multi_get", "get_many", "contains", "contains_many", "refresh", "close")


async def test_what_is_a_coroutine_function_says_so(opening: Any) -> None:
    async with opening() as reader:
        for name in COROUTINE_FUNCTIONS:
            for ask in (asyncio.iscoroutinefunction, inspect.iscoroutinefunction):
                assert ask(getattr(AsyncShardedReader, name)), name
                assert ask(getattr(reader, name)), name
            assert getattr(AsyncShardedReader, name).__name__ == name and getattr(reader, name).__doc__
        assert not inspect.iscoroutinefunction(reader.route_key) and not inspect.iscoroutinefunction(reader.scan)
        assert inspect.iscoroutinefunction(functools.partial(reader.get, 1))
        assert str(inspect.signature(reader.get)) == "(key, *, routing_context=None, timeout=None)"
        assert inspect.signature(AsyncShardedReader.open).parameters["timeout"].default is None
        assert await AsyncShardedReader.get(reader, 1) == b"run-1:1"
        bound = reader.get
        assert await bound(1) == await bound(key=1, timeout=5) == b"run-1:1"
        assert bound == reader.get and bound.__self__ is reader
        for wrong in (lambda: AsyncShardedReader.get(), lambda: AsyncShardedReader.get("no reader", 1),
                      lambda: reader.get(), lambda: reader.get(1, 2), lambda: reader.get(1, nothing=2)):
            with pytest.raises(TypeError):
                wrong()


async def test_mocks_know_what_to_await() -> None:
    mock = AsyncMock(spec=AsyncShardedReader)
    for name in COROUTINE_FUNCTIONS:
        await getattr(mock, name)()
    specced = create_autospec(AsyncShardedReader, instance=True)
    specced.get.return_value = b"x"
    assert await specced.get(1, timeout=5) == b"x"
    mock.route_key.return_value = 5
    assert mock.route_key(1) == 5


async def test_what_is_not_awaited_warns(opening: Any) -> None:
    reader = await opening()
    for make, name in ((opening, "AsyncShardedReader.open"), (lambda: reader.get(1), "AsyncShardedReader.get"),
                       (lambda: reader.multi_get([1]), "AsyncShardedReader.multi_get"), (reader.refresh, "refresh")):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            make()
            gc.collect()
        assert [w.category for w in seen] == [RuntimeWarning]
        assert name in str(seen[0].message) and "never awaited" in str(seen[0].message)
    await reader.close()


async def test_subclasses(store: Store, factory: Factory, tmp_path: Path) -> None:
    class Mine(AsyncShardedReader):
        async def get(self, key: Any, **options: Any) -> bytes | None:  # type: ignore[override]
            value = await super().get(key, **options)
            return None if value is None else b"mine:" + value

    async with Mine.open(s3_prefix="x", local_root=str(tmp_path), manifest_store=store, reader_factory=factory,
                         timeout=5) as reader:
        assert type(reader) is Mine
        assert await reader.get(1) == b"mine:run-1:1"


async def test_a_constructor_of_a_subclass_knows_the_arguments_that_it_likes(
    store: Store, factory: Factory, tmp_path: Path
) -> None:
    class Few(AsyncShardedReader):
        def __init__(self, *, s3_prefix: str, local_root: str, metrics_collector: Any, rate_limiter: Any) -> None:
            assert metrics_collector is rate_limiter is None, "which nobody has given"
            super().__init__(s3_prefix=s3_prefix, local_root=local_root, manifest_store=store, reader_factory=factory)

    class All(AsyncShardedReader):
        def __init__(self, **arguments: Any) -> None:
            assert "timeout" not in arguments
            super().__init__(**{**arguments, "manifest_store": store, "reader_factory": factory})

    for cls in (Few, All):
        async with cls.open(s3_prefix="x", local_root=str(tmp_path), timeout=5) as reader:
            assert await reader.get(1) == b"run-1:1"
    with pytest.raises(TypeError, match="strict_keys"):
        await Few.open(s3_prefix="x", local_root=str(tmp_path), strict_keys=True)


@pytest.mark.parametrize("cls", [AsyncShardedReader, ShardedReader, ConcurrentShardedReader])
def test_arguments_are_named(cls: Any, tmp_path: Path) -> None:
    takers = [cls, AsyncShardedReader.open] if cls is AsyncShardedReader else [cls]
    for taker in takers:
        name = f"{cls.__name__}.{'__init__' if taker is cls else 'open'}"
        for call, text in (
            (lambda: taker(), "missing 2 required keyword-only arguments: 's3_prefix' and 'local_root'"),
            (lambda: taker("x"), "takes 1 positional argument but 2 were given"),
            (lambda: taker(s3_prefix="x", local_root="y", nothing=1), "got an unexpected keyword argument 'nothing'"),
        ):
            with pytest.raises(TypeError) as caught:
                call()
            assert str(caught.value) == f"{name}() {text}"
        documented = (cls.__init__ if taker is cls else taker).__doc__
        for parameter in inspect.signature(taker).parameters:
            assert f"\n{parameter}: " in documented, parameter


# ---------------------------------------------------------------- fallback


async def test_fallback_takes_the_newest_that_parses(
    opening: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.malformed("run-2")
    store.malformed("run-3")
    with caplog.at_level(logging.DEBUG, "shardyfusion"):
        async with opening() as reader:
            assert reader.snapshot_info().run_id == "run-1"
            assert reader.health().fallback is True
            assert store.calls == [
                "load_current", ("load_manifest", "run-3"), ("list_manifests", 4), ("load_manifest", "run-2"),
                ("load_manifest", "run-1"),
            ]
            assert await reader.refresh() is False  # the current one is still malformed
            store.publish("run-4")
            assert await reader.refresh() is True
            assert reader.health().fallback is False
    events = [(r.message, r.shardyfusion) for r in caplog.records]
    names = [name for name, _ in events]
    assert names == [
        "reader_cold_start_fallback", "reader_fallback_skip_malformed", "reader_fallback_succeeded",
        "reader_initialized", "reader_refresh_malformed_manifest", "reader_refreshed", "reader_closed",
    ]
    fields = dict(events)
    assert fields["reader_cold_start_fallback"]["failed_ref"] == "run-3"
    assert fields["reader_cold_start_fallback"]["max_attempts"] == 3
    assert fields["reader_fallback_skip_malformed"]["manifest_ref"] == "run-2"
    assert fields["reader_fallback_succeeded"] == {"fallback_ref": "run-1", "skipped_ref": "run-3"}
    assert fields["reader_initialized"] == {
        "s3_prefix": "any name at all", "num_shards": 3, "manifest_ref": "run-1"}
    assert fields["reader_refreshed"] == {"old_manifest_ref": "run-1", "new_manifest_ref": "run-4"}
    assert fields["reader_closed"] == {"s3_prefix": "any name at all", "num_handles_closed": 3}
    assert {r.name for r in caplog.records} == {"shardyfusion.reader.async_reader"}


async def test_fallback_exhausted_and_off(opening: Any, store: Store) -> None:
    store.malformed("run-1")
    store.malformed("run-2")
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback$"):
        await opening()
    with pytest.raises(ManifestParseError, match="run-2 is malformed"):
        await opening(max_fallback_attempts=0)
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback$"):
        await opening(max_fallback_attempts=-1)


async def test_other_errors_do_not_fall_back(opening: Any, store: Store) -> None:
    store.publish("run-2", FileNotFoundError("gone"))
    with pytest.raises(FileNotFoundError, match="gone"):
        await opening()
    store.pointer_error = ManifestParseError("pointer")
    with pytest.raises(ManifestParseError, match="pointer"):
        await opening()
    assert not any("list_manifests" in call for call in store.calls)


async def test_a_parse_error_of_the_factory_falls_back(opening: Any, store: Store, factory: Factory) -> None:
    store.publish("run-2")
    factory.open_errors["s3://bucket/p/run-2/0"] = ManifestParseError("inside")
    async with opening() as reader:
        assert reader.snapshot_info().run_id == "run-1"
    assert factory.still_open == []


async def test_no_pointer(opening: Any, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.current = None
    with pytest.raises(ReaderStateError) as caught:
        await opening()
    assert str(caught.value) == "CURRENT pointer not found"
    assert isinstance(caught.value, FileNotFoundError)
    assert "reader_current_not_found" in [r.message for r in caplog.records]


async def test_vector_only_snapshots_are_refused(opening: Any, store: Store) -> None:
    store.publish("run-2", make_manifest("run-2", vector={"dim": 3}))
    with pytest.raises(ConfigValidationError, match="Use ShardedVectorReader instead"):
        await opening()
    store.publish("run-3", make_manifest("run-3", vector={"dim": 3, "unified": True}))
    async with opening() as reader:
        store.current = "run-2"
        with pytest.raises(ConfigValidationError, match="Use ShardedVectorReader instead"):
            await reader.refresh()
        assert reader.snapshot_info().run_id == "run-3"


# ---------------------------------------------------------------- reads


async def test_get(opening: Any, factory: Factory) -> None:
    limiter, metrics = Limiter(), ListMetricsCollector()
    async with opening(rate_limiter=limiter, metrics_collector=metrics) as reader:
        assert await reader.get(7) == b"run-1:7"
        assert await reader.get(500) is None
        assert limiter.calls == [("acquire_async", 1)] * 2
        reads = [payload for event, payload in metrics.events if event is MetricEvent.READER_GET]
        assert [payload["found"] for payload in reads] == [True, False]
        assert all(type(payload["duration_ms"]) is int for payload in reads)
        factory.get_errors[stored(8)] = error = RuntimeError("no")
        before = len(metrics.events)
        with pytest.raises(RuntimeError) as caught:
            await reader.get(8)
        assert caught.value is error
        for key, cls in ((2**63, ValueError), (1.5, ValueError), (-1, ConfigValidationError), (b"ab", ValueError)):
            with pytest.raises(cls):
                await reader.get(key)
        with pytest.raises(ValueError, match="route_with_context requires CEL sharding strategy"):
            await reader.get(1, routing_context={"a": 1})
        failed = metrics.events[before:]
        assert {event for event, _ in failed} == {MetricEvent.READER_GET_FAILED}
        assert [payload["error"] for _, payload in failed] == [
            "RuntimeError", "ValueError", "ValueError", "ConfigValidationError", "ValueError", "ValueError",
        ]
        assert all(set(payload) == {"operation", "error", "duration_s"} for _, payload in failed)
        assert len(limiter.calls) == 8  # tokens are spent on keys that cannot be routed, too
        assert reader.health().borrowed == 0


async def test_limiter_that_fails(opening: Any, factory: Factory) -> None:
    limiter = Limiter(error=RuntimeError("limit"))
    async with opening(rate_limiter=limiter) as reader:
        for work in (reader.get(1), reader.multi_get([1])):
            with pytest.raises(RuntimeError, match="limit"):
                await work
        assert factory.gets == []
        assert reader.health().borrowed == 0


async def test_multi_get(opening: Any, factory: Factory) -> None:
    limiter, metrics = Limiter(), ListMetricsCollector()
    async with opening(rate_limiter=limiter, metrics_collector=metrics) as reader:
        keys = [5, 3, 5, 400, 9, True, 1]
        assert await reader.multi_get(keys) == {
            5: b"run-1:5", 3: b"run-1:3", 400: None, 9: b"run-1:9", True: b"run-1:1"}
        assert list(await reader.multi_get(keys)) == [5, 3, 400, 9, True]
        assert limiter.calls == [("acquire_async", 7)] * 2
        assert len(factory.gets) == 10  # every key once
        assert metrics.events[-1][1]["num_keys"] == 7
        assert await reader.multi_get([]) == {}
        assert limiter.calls[-1] == ("acquire_async", 0)
        assert await reader.multi_get(iter([1, 2])) == {1: b"run-1:1", 2: b"run-1:2"}
        assert await reader.multi_get({4: None}) == await reader.multi_get({4}) == await reader.multi_get((4,))
        assert await reader.get_many([2, 500, 2]) == [b"run-1:2", None, b"run-1:2"]


class Colliding(int):
    def __hash__(self) -> int:
        return 1


class Level(enum.IntEnum):
    LOW = 7


@pytest.mark.parametrize("keys", [
    [n % 40 for n in range(130)], [1, *range(100, 115), 1, True], [3] * 200, [7, Level.LOW, np.int64(7)],
    [0, 2**61 - 1, 2**61, 2**61 - 1, 0],  # of which Python gives two the hash of 0
    [Colliding(n % 20) for n in range(50)],
], ids=["in turn", "far apart", "one", "kinds", "same hash", "colliding"])  # fmt: skip
async def test_multi_get_asks_for_a_key_once(opening: Any, factory: Factory, keys: list[int]) -> None:
    async with opening() as reader:
        found = await reader.multi_get(keys)
        assert list(found) == list(dict.fromkeys(keys))
        assert found == {key: await reader.get(key) for key in found}
        assert len(factory.gets) == 2 * len(found)
        assert await reader.get_many(keys) == [found[key] for key in keys]


async def test_multi_get_routes_before_it_reads(opening: Any, factory: Factory) -> None:
    async with opening() as reader:
        with pytest.raises(ValueError, match="out of range"):
            await reader.multi_get([1, 2, 2**64])
        with pytest.raises(ValueError, match="route_with_context"):
            await reader.multi_get([1], routing_context={})
        assert factory.gets == []
        assert reader.health().borrowed == 0


async def test_multi_get_gathers_the_failures(opening: Any, factory: Factory) -> None:
    first, second = key_in(0), key_in(1)
    factory.get_errors = {stored(first): RuntimeError("one"), stored(second): KeyError("two")}
    async with opening() as reader:
        with pytest.raises(ExceptionGroup) as caught:
            await reader.multi_get([first, second])
        group = caught.value
        assert group.message == "unhandled errors in a TaskGroup"
        assert {type(e) for e in group.exceptions} <= {RuntimeError, KeyError}
        assert isinstance(group, DbAdapterError)
        assert isinstance(group.split(RuntimeError)[0], (DbAdapterError, type(None)))
        again = pickle.loads(pickle.dumps(group))
        assert type(again) is type(group) and len(again.exceptions) == len(group.exceptions)
        try:
            await reader.multi_get([first])
        except* RuntimeError as errors:
            assert [str(e) for e in errors.exceptions] == ["one"]
        with pytest.raises(ExceptionGroup) as caught:
            await reader.multi_get([-1])  # what cannot be stored fails inside of its shard
        assert [type(e) for e in caught.value.exceptions] == [ConfigValidationError]
        assert reader.health().borrowed == 0
        kept = await reader.multi_get([first, second, key_in(2), -1], on_error="return")
        assert [type(kept[k]) for k in (first, second, key_in(2), -1)] == [
            RuntimeError, KeyError, bytes, ConfigValidationError]
        with pytest.raises(ValueError, match="on_error"):
            await reader.multi_get([1], on_error="ignore")


async def test_one_failed_shard_cancels_the_others(opening: Any, factory: Factory) -> None:
    bad, slow = key_in(0), key_in(1)

    class Fails(Shard):
        async def get(self, key: bytes) -> bytes | None:
            while factory.reading == 0:
                await asyncio.sleep(0)
            raise RuntimeError("meanwhile")

    async with opening() as reader:
        factory.gate = asyncio.Event()
        for shard in factory.opened:
            if shard.db_url.endswith("/0"):
                shard.__class__ = Fails
        with pytest.raises(ExceptionGroup) as caught:
            await reader.multi_get([slow, bad])
        assert [str(e) for e in caught.value.exceptions] == ["meanwhile"]
        assert factory.cancelled == [stored(slow)]


async def test_max_concurrency_is_for_each_call(opening: Any, factory: Factory, store: Store) -> None:
    store.publish("wide", make_manifest("wide", 8))
    factory.concurrent_tasks = True
    keys = [key_in(db_id, 8) for db_id in range(8)]

    async def most_reading(reader: Any, calls: int, expected: int) -> int:
        factory.gate, factory.most_reading = asyncio.Event(), 0
        work = asyncio.gather(*(reader.multi_get(keys) for _ in range(calls)))
        while factory.reading < expected:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # for those that should not have come
        factory.gate.set()
        await work
        return factory.most_reading

    async with opening(max_concurrency=2) as reader:
        assert await most_reading(reader, 1, 2) == 2
        assert await most_reading(reader, 2, 4) == 4
    async with opening() as reader:
        assert await most_reading(reader, 1, 8) == 8


@pytest.mark.parametrize("how", ["get", "multi_get"])
async def test_cancelling(opening: Any, factory: Factory, how: str) -> None:
    factory.gate = asyncio.Event()
    async with opening() as reader:
        work = reader.get(1) if how == "get" else reader.multi_get([key_in(0), key_in(1), key_in(2)])
        task = asyncio.create_task(work)
        while factory.reading < (1 if how == "get" else 3):
            await asyncio.sleep(0)
        assert reader.health().borrowed == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert factory.reading == 0
        assert reader.health().borrowed == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reader.get(1)
        assert reader.health().borrowed == 0


async def test_deadlines(opening: Any, factory: Factory, store: Store) -> None:
    async with opening() as reader:
        factory.gate = asyncio.Event()
        handle = reader.reader_for_key(1)
        for work in (
            reader.get(1, timeout=0.01),
            reader.get(1, timeout=timedelta(milliseconds=10)),
            reader.multi_get([1, 2], timeout=0.01),
            handle.get(stored(1), timeout=0.01),
            handle.multi_get([stored(1)], timeout=0.01),
        ):
            with pytest.raises(OperationTimeoutError) as caught:
                await work
            assert caught.value.retryable
            assert isinstance(caught.value, TimeoutError)
        with pytest.raises(OperationTimeoutError):
            await handle.get(stored(1), timeout=-1)
        with pytest.raises(ValueError, match="not a number"):
            await reader.refresh(timeout=float("nan"))
        handle.close()
        store.publish("run-2")
        store.gate = asyncio.Event()
        with pytest.raises(OperationTimeoutError):
            await reader.refresh(timeout=0.01)
        with pytest.raises(OperationTimeoutError):
            await opening(timeout=0.01)
        assert reader.health().borrowed == 0
        factory.gate.set()
        assert await reader.get(1, timeout=10) == b"run-1:1"


async def test_collector_that_fails(opening: Any, caplog: pytest.LogCaptureFixture) -> None:
    collector = Broken()
    async with opening(metrics_collector=collector) as reader:
        for _ in range(3):
            assert await reader.get(1) == b"run-1:1"
    assert collector.events.count(MetricEvent.READER_GET) == 3
    failures = [r for r in caplog.records if r.message == "metrics_collector_failed"]
    assert sorted(r.shardyfusion["event_name"] for r in failures) == ["reader.closed", "reader.get", "reader.initialized"]


# ---------------------------------------------------------------- refresh, borrowing, closing


async def test_refresh(opening: Any, store: Store, factory: Factory) -> None:
    metrics = ListMetricsCollector()
    async with opening(metrics_collector=metrics) as reader:
        assert await reader.refresh() is False
        store.publish("run-2")
        assert await reader.refresh() is True
        assert await reader.get(1) == b"run-2:1"
        assert {url.rsplit("/", 2)[1] for url in factory.still_open} == {"run-2"}
        store.current = "run-1"  # rolled back
        assert await reader.refresh() is True
        assert await reader.get(1) == b"run-1:1"
        changes = [p["changed"] for e, p in metrics.events if e is MetricEvent.READER_REFRESHED]
        assert changes == [False, True, True]


async def test_refresh_that_fails_keeps_the_snapshot(opening: Any, store: Store, factory: Factory) -> None:
    metrics = ListMetricsCollector()
    async with opening(metrics_collector=metrics) as reader:
        good = len(factory.opened)
        store.current = None
        with pytest.raises(ReaderStateError, match="^CURRENT pointer not found during refresh$"):
            await reader.refresh()
        store.pointer_error = ManifestParseError("pointer")
        with pytest.raises(ManifestParseError, match="pointer"):
            await reader.refresh()
        assert reader.health().last_refresh_error == "pointer"
        store.pointer_error = None
        store.publish("run-2", FileNotFoundError("gone"))
        with pytest.raises(FileNotFoundError):
            await reader.refresh()
        store.publish("run-3")
        factory.open_errors["s3://bucket/p/run-3/2"] = RuntimeError("shard")
        with pytest.raises(RuntimeError, match="shard"):
            await reader.refresh()
        assert {e for e, _ in metrics.events[1:]} == {MetricEvent.READER_REFRESH_FAILED}
        store.malformed("run-4")
        assert await reader.refresh() is False
        assert metrics.events[-1] == (MetricEvent.READER_REFRESHED, {"changed": False})
        assert reader.health().last_refresh_error == "run-4 is malformed"
        assert await reader.get(1) == b"run-1:1"
        assert len(factory.still_open) == good
        store.publish("run-5")
        assert await reader.refresh() is True
        assert reader.health().last_refresh_error is None


async def test_one_of_five_refreshes_finds_the_change(opening: Any, store: Store) -> None:
    async with opening() as reader:
        store.publish("run-2")
        assert sorted(await asyncio.gather(*(reader.refresh() for _ in range(5)))) == [False] * 4 + [True]


async def test_closed_while_refreshing(opening: Any, store: Store, factory: Factory) -> None:
    reader = await opening()
    store.publish("run-2")
    factory.open_gate = asyncio.Event()
    task = asyncio.create_task(reader.refresh())
    while factory.opening < 3:
        await asyncio.sleep(0)
    await reader.close()
    factory.open_gate.set()
    with pytest.raises(ReaderStateError, match="^Reader is closed$"):
        await task
    assert factory.still_open == []


async def test_reads_in_flight_finish_on_their_snapshot(opening: Any, store: Store, factory: Factory) -> None:
    factory.gate = asyncio.Event()
    factory.concurrent_tasks = True
    reader = await opening()
    read = asyncio.create_task(reader.get(1))
    while not factory.reading:
        await asyncio.sleep(0)
    store.publish("run-2")
    assert await reader.refresh() is True
    second = asyncio.create_task(reader.get(1))
    await asyncio.sleep(0)
    await reader.close()
    assert len(factory.still_open) == 6
    factory.gate.set()
    assert await read == b"run-1:1"
    assert await second == b"run-2:1"
    assert factory.still_open == []


async def test_the_snapshot_is_pinned_before_the_limiter_is_asked(opening: Any, store: Store) -> None:
    limiter = Limiter()
    async with opening(rate_limiter=limiter) as reader:
        async def publish() -> None:
            store.publish("run-2")
            assert await reader.refresh()

        limiter.on_acquire = publish
        assert await reader.get(1) == b"run-1:1"
        limiter.on_acquire = None
        assert await reader.get(1) == b"run-2:1"


async def test_handles(opening: Any, store: Store, factory: Factory) -> None:
    reader = await opening()
    handle = reader.reader_for_key(1)
    assert isinstance(handle.reader, Shard)
    assert await handle.get(stored(1)) == b"run-1:1"
    assert await handle.multi_get([stored(1), stored(400), stored(1)]) == {stored(1): b"run-1:1", stored(400): None}
    several = reader.readers_for_keys([1, 2, 1])
    assert list(several) == [1, 2]
    assert reader.readers_for_keys([]) == {}
    assert reader.health().borrowed == 3
    for one in several.values():
        one.close()
        one.close()
    assert reader.health().borrowed == 1
    store.publish("run-2")
    await reader.refresh()
    await reader.close()
    assert {url.rsplit("/", 2)[1] for url in factory.still_open} == {"run-1"}
    assert await handle.get(stored(1)) == b"run-1:1"
    handle.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert factory.still_open == []


async def test_keys_that_cannot_be_routed_leave_no_borrow(opening: Any, factory: Factory) -> None:
    async with opening() as reader:
        for call in (lambda: reader.reader_for_key(2**64), lambda: reader.readers_for_keys([1, 2**64]),
                     lambda: reader.route_key(1.5), lambda: reader.shard_for_key(None)):
            with pytest.raises(ValueError):
                call()
        assert reader.health().borrowed == 0
    assert factory.still_open == []


async def test_a_dropped_handle_is_logged_and_released(
    opening: Any, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    reader = await opening()
    handle = reader.reader_for_key(1)
    await reader.close()
    assert factory.still_open
    del handle
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert factory.still_open == []
    dropped = [r for r in caplog.records if r.message == "async_shard_reader_handle_not_closed"]
    assert [r.levelno for r in dropped] == [logging.ERROR]


async def test_shards_that_cannot_be_closed(
    opening: Any, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = ListMetricsCollector()
    factory.close_errors = {"s3://bucket/p/run-1/0", "s3://bucket/p/run-1/2"}
    reader = await opening(metrics_collector=metrics)
    with pytest.raises(DbAdapterError) as caught:
        await reader.close()
    assert str(caught.value) == "Failed to close 2 shard reader(s): db_ids=[0, 2]"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert factory.still_open == []
    assert await reader.close() is None
    assert MetricEvent.READER_CLOSED not in [e for e, _ in metrics.events]
    failed = [r.shardyfusion for r in caplog.records if r.message == "reader_handle_close_failed"]
    assert [(f["db_id"], f["manifest_ref"]) for f in failed] == [(0, "run-1"), (2, "run-1")]


async def test_an_old_shard_that_cannot_be_closed_does_not_fail_the_refresh(
    opening: Any, store: Store, factory: Factory
) -> None:
    factory.close_errors = {"s3://bucket/p/run-1/0"}
    async with opening() as reader:
        store.publish("run-2")
        assert await reader.refresh() is True
        assert await reader.get(1) == b"run-2:1"


CLOSED, NOT_OPEN = "^Reader is closed$", r"^Reader not yet initialized \(use open\(\)\)$"
CALLS: dict[str, Any] = {
    "get": lambda r: r.get(1), "multi_get": lambda r: r.multi_get([1]), "get_many": lambda r: r.get_many([1]),
    "refresh": lambda r: r.refresh(), "route_key": lambda r: r.route_key(1), "encode_key": lambda r: r.encode_key(1),
    "shard_for_key": lambda r: r.shard_for_key(1), "shards_for_keys": lambda r: r.shards_for_keys([1]),
    "reader_for_key": lambda r: r.reader_for_key(1), "readers_for_keys": lambda r: r.readers_for_keys([1]),
    "snapshot_info": lambda r: r.snapshot_info(), "shard_details": lambda r: r.shard_details(),
    "key_encoding": lambda r: r.key_encoding, "scan": lambda r: r.scan(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_states(opening: Any, store: Store, factory: Factory, call: str) -> None:
    async def use(reader: AsyncShardedReader) -> None:
        result = CALLS[call](reader)
        if asyncio.iscoroutine(result):
            await result

    created = AsyncShardedReader(s3_prefix="x", local_root="y", manifest_store=store, reader_factory=factory)
    with pytest.raises(ReaderStateError, match=NOT_OPEN):
        await use(created)
    async with created as entered:
        assert entered is created
        with pytest.raises(ReaderStateError, match=NOT_OPEN):
            await use(created)
    with pytest.raises(ReaderStateError, match=CLOSED):
        await use(created)
    reader = await opening()
    await reader.close()
    with pytest.raises(ReaderStateError, match=CLOSED):
        await use(reader)
    assert await reader.close() is None


async def test_coroutines_look_at_the_state_when_they_are_awaited(opening: Any) -> None:
    reader = await opening()
    work = reader.get(1)
    await reader.close()
    with pytest.raises(ReaderStateError, match=CLOSED):
        await work


async def test_health(opening: Any, store: Store, factory: Factory) -> None:
    created = AsyncShardedReader(s3_prefix="x", local_root="y", manifest_store=store, reader_factory=factory)
    health = created.health()
    assert (health.status, health.manifest_ref, health.manifest_age, health.num_shards, health.is_closed) == (
        "unhealthy", "", timedelta(0), 0, False)
    reader = await opening()
    assert timedelta(0) <= reader.health().manifest_age < timedelta(hours=1)
    assert reader.health(staleness_threshold=timedelta(days=-1)).status == "degraded"
    assert reader.health(staleness_threshold=timedelta(hours=1)).status == "healthy"
    hour = timedelta(hours=1)
    assert reader.health(staleness_threshold=hour, by="snapshot").status == "degraded"  # it was built in January
    assert reader.health(staleness_threshold=hour, by="refresh").status == "healthy"
    assert reader.health().snapshot_age > hour > reader.health().since_refresh
    with pytest.raises(ValueError, match="by must be"):
        reader.health(by="moon")
    await reader.close()
    assert (reader.health().status, reader.health().is_closed) == ("unhealthy", True)


def test_a_dropped_reader_closes_its_shards(store: Store, factory: Factory, tmp_path: Path) -> None:
    async def open_and_drop(in_loop: bool) -> Any:
        reader = await AsyncShardedReader.open(
            s3_prefix="x", local_root=str(tmp_path), manifest_store=store, reader_factory=factory)
        if not in_loop:
            return reader
        del reader
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)

    asyncio.run(open_and_drop(True))
    assert factory.opened and factory.still_open == []
    reader = asyncio.run(open_and_drop(False))
    assert len(factory.still_open) == 3
    del reader
    gc.collect()
    assert factory.still_open == []


def test_several_event_loops(store: Store, factory: Factory, tmp_path: Path) -> None:
    reader = asyncio.run(_opened(store, factory, tmp_path))

    async def read(run: str) -> None:
        assert await reader.get(1) == f"{run}:1".encode()
        assert await reader.multi_get([1, 2]) == {1: f"{run}:1".encode(), 2: f"{run}:2".encode()}

    asyncio.run(read("run-1"))
    store.publish("run-2")

    async def refresh() -> None:
        assert sorted(await asyncio.gather(reader.refresh(), reader.refresh())) == [False, True]

    asyncio.run(refresh())
    asyncio.run(read("run-2"))
    asyncio.run(reader.close())
    assert factory.still_open == []


async def _opened(store: Store, factory: Factory, tmp_path: Path) -> AsyncShardedReader:
    return await AsyncShardedReader.open(
        s3_prefix="x", local_root=str(tmp_path), manifest_store=store, reader_factory=factory)


async def test_scans_need_shards_that_scan(opening: Any, factory: Factory) -> None:
    async with opening() as reader:
        with pytest.raises(ConfigValidationError, match="Shard cannot scan"):
            reader.scan()
        with pytest.raises(ConfigValidationError, match="Shard cannot scan"):
            with_handle = reader.reader_for_key(1)
            try:
                with_handle.scan()
            finally:
                with_handle.close()
        assert reader.health().borrowed == 0


class Rows(Shard):
    """One that can be scanned: `rows` are what it gives, whatever is asked."""

    rows: list[tuple[bytes, bytes]] = []

    async def scan(self, **options: Any) -> Any:
        for row in self.rows:
            yield row


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([stored(1), stored(5), stored(3)], "not in the order of their keys"),
        ([stored(1), stored(1)], "not in the order of their keys"),
        ([stored(9)], "outside of the range"),
    ],
)
async def test_rows_that_are_wrong(opening: Any, factory: Factory, rows: list[bytes], text: str) -> None:
    async with opening() as reader:
        for shard in factory.opened:
            shard.__class__ = Rows
        factory.opened[1].rows = [(key, b"") for key in rows]
        with pytest.raises(DbAdapterError, match=text) as caught:
            async with reader.scan(1, 9) as scan:
                await anext(scan)
        assert caught.value.db_id == 1
    assert factory.still_open == []


async def test_unchanged_shards_stay_open(opening: Any, store: Store, factory: Factory) -> None:
    async with opening() as reader:
        again = make_manifest("run-1")
        again.required_build.run_id = "run-1b"
        store.publish("run-1b", again)
        assert await reader.refresh() is True
        assert reader.snapshot_info().run_id == "run-1b"
        assert len(factory.opened) == len(factory.still_open) == 3
    assert [shard.closed for shard in factory.opened] == [1] * 3
