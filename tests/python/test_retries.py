"""What stores had to repeat or give up reaches the metrics collector of the reader or writer that it happened to, and
nobody else's, on the thread and in the task of an operation, before that ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from faulty_s3 import ACCESS_KEY, REGION, ROWS, SECRET_KEY, Fault, Front, access, config, no_faults, publishing, value_of  # noqa: F401

from shardyfusion import (
    AsyncS3ManifestStore,
    AsyncShardedReader,
    AsyncSlateDbReaderFactory,
    ConcurrentShardedReader,
    PythonWriteOptions,
    S3ManifestStore,
    S3TransientError,
    ShardedReader,
    ShardyfusionError,
    SlateDbFactory,
    SlateDbReaderFactory,
    WriterManifestConfig,
    WriterObservabilityConfig,
)
from shardyfusion._engine import native
from shardyfusion._store_events import noting
from shardyfusion.metrics import MetricEvent
from shardyfusion.reader._observe import Metrics
from shardyfusion.storage import AsyncObstoreBackend, ObstoreBackend, create_s3_store
from shardyfusion.writer.python import write_hash_sharded

PREFIX = "s3://scratch/p"
KEYS = 2400
UNREAD = iter(range(0, KEYS, 12))  # a key in a block that no reader of this process has in memory
RETRY, GIVEN_UP = MetricEvent.S3_RETRY, MetricEvent.S3_RETRY_EXHAUSTED
ATTEMPTS = 3
TWICE = Fault(match=".sst", status=503, times=2)
FOR_EVER = Fault(match=".sst", status=503, times=-1)
SURVIVED = [(RETRY, "get", 1), (RETRY, "get", 2)]
REPORTED = [*SURVIVED, (GIVEN_UP, "get", ATTEMPTS)]


def s3(endpoint: str) -> dict[str, Any]:
    return access(endpoint, max_attempts=ATTEMPTS)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with publishing(tmp_path_factory.mktemp("local"), KEYS, PREFIX, f"{PREFIX}2") as f:
        yield f


class Collector:
    """Writes down what it is told, and by whom."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.events: list[tuple[MetricEvent, dict[str, Any]]] = []
        self.threads: set[int] = set()
        self.error = error

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        self.events.append((event, payload))
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error

    def taken(self) -> list[tuple[MetricEvent, dict[str, Any]]]:
        events, self.events = self.events, []
        return events

    def retries(self) -> list[tuple[MetricEvent, str, int]]:
        """The stores' events among them, in short."""
        found = []
        for event, payload in self.taken():
            if event is RETRY:
                assert set(payload) == {"operation", "attempt", "delay_s"}
                assert 0.0 <= payload["delay_s"] < 30.0
                found.append((event, payload["operation"], payload["attempt"]))
            elif event is GIVEN_UP:
                assert set(payload) == {"operation", "attempts"}
                found.append((event, payload["operation"], payload["attempts"]))
        return found


# ---------------------------------------------------------------- readers


@dataclass
class OurFactory(SlateDbReaderFactory):
    """The built-in one, which the engine may not stand in for."""


def _async_store(endpoint: str) -> AsyncS3ManifestStore:
    given = s3(endpoint)
    backend = AsyncObstoreBackend(
        create_s3_store("scratch", given["credential_provider"].resolve(), given["s3_connection_options"]))
    return AsyncS3ManifestStore(backend, PREFIX)


def _store(endpoint: str) -> S3ManifestStore:
    given = s3(endpoint)
    backend = ObstoreBackend(
        create_s3_store("scratch", given["credential_provider"].resolve(), given["s3_connection_options"]))
    return S3ManifestStore(backend, PREFIX)


KINDS: dict[str, tuple[Any, Callable[[str], dict[str, Any]], bool]] = {
    "async": (AsyncShardedReader.open, lambda _: {}, True),
    "async, the store is another's": (
        AsyncShardedReader.open, lambda e: {"manifest_store": _async_store(e)}, True),
    "async, opened otherwise": (AsyncShardedReader.open, lambda _: {"open_concurrency": 1}, True),
    "async, the factory is given": (
        AsyncShardedReader.open, lambda e: {"reader_factory": AsyncSlateDbReaderFactory(**s3(e))}, True),
    "one thread": (ShardedReader, lambda _: {}, True),
    "one thread, the factory is another's": (ShardedReader, lambda e: {"reader_factory": OurFactory(**s3(e))}, False),
    "threads": (ConcurrentShardedReader, lambda _: {}, True),
    "threads, the store is another's": (ConcurrentShardedReader, lambda e: {"manifest_store": _store(e)}, True),
    "threads, a pool": (
        ConcurrentShardedReader,
        lambda e: {"reader_factory": OurFactory(**s3(e)), "thread_safety": "pool", "max_workers": 2}, False),
}


async def result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def all_rows(scan: Any) -> int:
    if hasattr(scan, "__aiter__"):
        return len([row async for row in scan])
    return len(list(scan))


async def opened(kind: str, front: Front, collector: Any, prefix: str = PREFIX, **options: Any) -> Any:
    make, own, engine = KINDS[kind]
    reader = await result(make(
        s3_prefix=prefix, local_root=options.pop("local_root", "unused"), metrics_collector=collector,
        **s3(front.endpoint), **own(front.endpoint), **options))
    assert (reader._source.shards is None) == engine
    return reader


async def plan(front: Front, *faults: Fault) -> None:
    await asyncio.to_thread(front.plan, *faults)


READS: dict[str, Callable[[Any, int], Any]] = {
    "get": lambda reader, key: reader.get(key),
    "multi_get": lambda reader, key: reader.multi_get([key]),
    "a handle": lambda reader, key: reader.reader_for_key(key).get(reader.encode_key(key)),
    "a handle, many": lambda reader, key: reader.reader_for_key(key).multi_get([reader.encode_key(key)]),
    "a handle's rows": lambda reader, key: all_rows(reader.reader_for_key(key).scan(reader.encode_key(key), limit=1)),
    "rows": lambda reader, key: all_rows(reader.scan(key, limit=1)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS)
@pytest.mark.filterwarnings("ignore")
async def test_reads(read: str, kind: str, front: Front, tmp_path: Path) -> None:
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    assert collector.taken() == [(MetricEvent.READER_INITIALIZED, {})]
    await plan(front, TWICE)
    try:
        await result(READS[read](reader, next(UNREAD)))
        assert [event for event, _ in collector.events][:2] == [RETRY, RETRY], "before that of the read itself"
        found = collector.retries()
        assert found == SURVIVED or (read == "rows" and found == SURVIVED[:1] * 2)  # one for each of two shards
    finally:
        await plan(front)
        await result(reader.close())
    assert collector.threads == {threading.get_ident()}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_read_that_is_given_up(kind: str, front: Front, tmp_path: Path) -> None:
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    collector.taken()
    await plan(front, FOR_EVER)
    key = next(UNREAD)
    with pytest.raises(ShardyfusionError):
        await result(reader.get(key))
    assert collector.retries() == REPORTED
    await plan(front)
    assert await result(reader.get(key)) == value_of(key)
    assert [event for event, _ in collector.taken()] == [MetricEvent.READER_GET]
    await result(reader.close())


OPENINGS = {
    "the pointer": (Fault(match="_CURRENT", status=503, times=-1), REPORTED),
    "a listing": (Fault(match="list-type", status=503, times=-1), None),
    "shards": (FOR_EVER, None),
}


@pytest.mark.parametrize("what", OPENINGS)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_opening_that_fails(kind: str, what: str, front: Front, tmp_path: Path) -> None:
    fault, told = OPENINGS[what]
    if what == "the pointer" and "store" in kind:
        told = []  # a store of the caller's has no collector
    collector = Collector()
    await plan(front, fault)
    with pytest.raises(ShardyfusionError):
        await opened(kind, front, collector, local_root=str(tmp_path))
    found = collector.retries()
    if told is None:  # several requests fail together; one of them at least to its end
        assert {event for event, _, _ in found} == {RETRY, GIVEN_UP}
    else:
        assert found == told
    assert collector.threads <= {threading.get_ident()}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "store" not in kind])
async def test_refresh(kind: str, front: Front, tmp_path: Path) -> None:
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    collector.taken()
    await plan(front, Fault(match="_CURRENT", status=503, times=1))
    assert await result(reader.refresh()) is False
    told = collector.taken()
    assert [event for event, _ in told] == [RETRY, MetricEvent.READER_REFRESHED]
    await plan(front, Fault(match="_CURRENT", status=503, times=-1))
    with pytest.raises(S3TransientError):
        await result(reader.refresh())
    assert collector.retries() == REPORTED
    await plan(front)
    await result(reader.close())


async def test_lazy_shards(front: Front) -> None:
    collector = Collector()
    async with AsyncShardedReader.open(
        s3_prefix=PREFIX, local_root="unused", lazy_open=True, metrics_collector=collector, **s3(front.endpoint)
    ) as reader:
        collector.taken()
        await plan(front, Fault(match="list-type", status=503, times=1))
        assert await reader.get(3) == value_of(3)
        assert collector.retries() == [(RETRY, "list", 1)]


async def test_each_reader_hears_of_its_own(front: Front) -> None:
    """They share the engine, and the blocks that one of them fetched."""
    collectors = [Collector(), Collector()]
    readers = [await opened("async", front, collector, prefix)
               for collector, prefix in zip(collectors, (PREFIX, f"{PREFIX}2"), strict=True)]
    await plan(front, Fault(match="/p2/", status=503, times=1))
    key = next(UNREAD)
    for reader in readers:
        assert await reader.get(key) == value_of(key)
    assert [collector.retries() for collector in collectors] == [[], [(RETRY, "get", 1)]]
    for reader in readers:
        await reader.close()


async def test_a_cancelled_read_is_told_with_the_next(front: Front) -> None:
    collector = Collector()
    async with await opened("async", front, collector) as reader:
        await plan(front, Fault(match=".sst", status=503, times=1), Fault(match=".sst", stall=-1, times=1))
        key = next(UNREAD)
        reading = asyncio.create_task(reader.get(key))
        while len((await asyncio.to_thread(front.log))["requests"]) < 2:
            pass
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await plan(front)
        assert await reader.get(key) == value_of(key)
        assert collector.retries() == [(RETRY, "get", 1)]


@pytest.mark.parametrize("kind", ["async", "one thread", "threads", "async, opened otherwise"])
async def test_a_collector_that_fails(
    kind: str, front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = await opened(kind, front, Collector(RuntimeError("full")), local_root=str(tmp_path))
    await plan(front, TWICE)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "shardyfusion"):
        key = next(UNREAD)
        assert await result(reader.get(key)) == value_of(key)
    failed = [r.shardyfusion for r in caplog.records if r.message == "metrics_collector_failed"]
    assert {one["event_name"] for one in failed} == {"s3.retry", "reader.get"}
    await plan(front)
    await result(reader.close())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", READS)
@pytest.mark.filterwarnings("ignore")
async def test_an_interrupted_collector_holds_no_snapshot(read: str, kind: str, front: Front, tmp_path: Path) -> None:
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    state = reader._state
    await plan(front, FOR_EVER)
    collector.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await result(READS[read](reader, next(UNREAD)))
    collector.error = None
    gc.collect()
    assert state.borrowers == 0
    await plan(front)
    await result(reader.close())


def note_one(reader: Any, front: Front) -> None:
    """An event of the reader's that no operation of its has told yet."""
    given = s3(front.endpoint)
    with noting(reader._metrics.store_events):
        store = create_s3_store("scratch", given["credential_provider"], given["s3_connection_options"])
    front.plan(Fault(match="elsewhere", status=503, times=1))
    with pytest.raises(FileNotFoundError):
        store.objects.get("elsewhere").wait()
    front.plan()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interrupted_closing_closes(kind: str, front: Front, tmp_path: Path) -> None:
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    state = reader._state
    await asyncio.to_thread(note_one, reader, front)
    collector.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await result(reader.close())
    assert state._retired


@pytest.mark.parametrize("kind", ["async, opened otherwise", "one thread, the factory is another's", "threads, a pool"])
async def test_an_opening_that_is_interrupted_leaves_no_shard(kind: str, front: Front, tmp_path: Path) -> None:
    made = []

    class Factory(AsyncSlateDbReaderFactory if kind.startswith("async") else SlateDbReaderFactory):  # type: ignore[misc]
        open_many = None

        def __call__(self, **arguments: Any) -> Any:
            async def later(opening: Any) -> Any:
                made.append(await opening)
                return made[-1]

            shard = super().__call__(**arguments)
            if inspect.isawaitable(shard):
                return later(shard)
            made.append(shard)
            return shard

    make, own, _ = KINDS[kind]
    await plan(front, Fault(match="list-type", status=503, times=1))
    with pytest.raises(KeyboardInterrupt):
        await result(make(
            s3_prefix=PREFIX, local_root=str(tmp_path), metrics_collector=Collector(KeyboardInterrupt()),
            **s3(front.endpoint), **{**own(front.endpoint), "reader_factory": Factory(**s3(front.endpoint))}))
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(made) >= 2 and all(shard._snapshot is None for shard in made)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "store" not in kind])
@pytest.mark.parametrize("what", ["rows", "a handle's rows", "a handle"])
@pytest.mark.filterwarnings("ignore")
async def test_what_is_dropped_tells_nobody(kind: str, what: str, front: Front, tmp_path: Path) -> None:
    """It may be collected while a collector holds a lock."""
    collector = Collector()
    reader = await opened(kind, front, collector, local_root=str(tmp_path))
    handle = rows = None
    if what == "rows":
        rows = reader.scan()
    else:
        handle = reader.reader_for_key(5)
        rows = handle.scan() if what == "a handle's rows" else None
    if rows is not None:
        await anext(rows) if hasattr(rows, "__anext__") else next(rows)
    if what != "a handle" and handle is not None:
        handle.close()
    await asyncio.to_thread(note_one, reader, front)
    collector.taken()
    del rows, handle
    gc.collect()
    assert collector.events == []
    await result(reader.get(5))
    assert collector.retries() == [(RETRY, "get", 1)]
    await result(reader.close())


BARE: dict[str, tuple[Any, Any]] = {
    "async": (AsyncShardedReader.open, AsyncSlateDbReaderFactory),
    "one thread": (ShardedReader, SlateDbReaderFactory),
    "threads": (ConcurrentShardedReader, SlateDbReaderFactory),
}


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("kind", BARE)
async def test_a_collector_does_not_move_shards(
    kind: str, listens: bool, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory that says nothing of how its shards are reached: as the environment says, whoever opens them."""
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_REGION", REGION)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.endpoint)
    make, factory = BARE[kind]
    host, port = front._upstream
    collector = Collector()
    reader = await result(make(
        s3_prefix=PREFIX, local_root=str(tmp_path), reader_factory=factory(),
        metrics_collector=collector if listens else None, **s3(f"http://{host}:{port}")))
    await plan(front, TWICE)
    key = next(UNREAD)
    assert await result(reader.get(key)) == value_of(key)
    assert collector.retries() == (SURVIVED if listens else [])
    await plan(front)
    await result(reader.close())


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_does_not_move_shards_that_are_written(
    listens: bool, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_REGION", REGION)):
        monkeypatch.setenv(name, value)
    host, port = front._upstream
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    prefix = f"s3://scratch/moved-{listens}"
    front.plan()
    write_hash_sharded(range(10), config(
        prefix, tmp_path, manifest=WriterManifestConfig(**s3(front.endpoint)),
        observability=WriterObservabilityConfig(metrics_collector=Collector() if listens else None)), ROWS)
    assert any(".sst" in request["target"] for request in front.log()["requests"])


def test_without_a_collector_nobody_listens(front: Front) -> None:
    with ShardedReader(s3_prefix=PREFIX, local_root="unused", **s3(front.endpoint)) as reader:
        assert reader._metrics.store_events is None
        front.plan(TWICE)
        key = next(UNREAD)
        assert reader.get(key) == value_of(key)


# ---------------------------------------------------------------- writers


@dataclass
class OurAdapters(SlateDbFactory):
    """The same for writing."""


WRITERS: dict[str, tuple[dict[str, Any], PythonWriteOptions]] = {
    "the engine": ({}, PythonWriteOptions(progress=False)),
    "adapters of another": ({"adapters": True}, PythonWriteOptions(progress=False)),
}


@pytest.mark.parametrize("fault", ["put of a shard", "put of the pointer", "run record"])
@pytest.mark.parametrize("name", WRITERS)
def test_writers(name: str, fault: str, front: Front, tmp_path: Path) -> None:
    own, options = WRITERS[name]
    collector = Collector()
    given: dict[str, Any] = {"metrics_collector": collector}
    if own:
        given["adapter_factory"] = OurAdapters(**s3(front.endpoint))
    matching = {"put of a shard": ".sst", "put of the pointer": "_CURRENT", "run record": "run.yaml"}[fault]
    front.plan(Fault(match=matching, status=503, times=2))
    prefix = f"s3://scratch/{name}/{fault}".replace(" ", "-")
    write_hash_sharded(range(KEYS), config(prefix, tmp_path, **s3(front.endpoint), **given), ROWS, options)
    names = [event for event, _ in collector.events]
    assert names.index(RETRY) < names.index(MetricEvent.WRITE_COMPLETED)
    assert collector.threads == {threading.get_ident()}
    retries = collector.retries()
    assert len(retries) == 2 and {event for event, _, _ in retries} == {RETRY}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails(name: str, front: Front, tmp_path: Path) -> None:
    own, options = WRITERS[name]
    collector = Collector()
    given: dict[str, Any] = {"metrics_collector": collector}
    if own:
        given["adapter_factory"] = OurAdapters(**s3(front.endpoint))
    front.plan(Fault(match=".sst", status=503, times=-1))
    with pytest.raises(ShardyfusionError):
        write_hash_sharded(range(KEYS), config("s3://scratch/failed", tmp_path, **s3(front.endpoint), **given), ROWS, options)
    assert GIVEN_UP in {event for event, _, _ in collector.retries()}


class FileCollector:
    """A collector whose copies, in other processes, write to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {event.value}\n")


def test_a_worker_process_tells_its_copy(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "events"
    given = {"metrics_collector": FileCollector(file), "adapter_factory": OurAdapters(**s3(front.endpoint))}
    front.plan(Fault(match=".sst", status=503, times=1))
    write_hash_sharded(
        range(KEYS), config("s3://scratch/parallel", tmp_path / "local", **s3(front.endpoint), **given), ROWS,
        PythonWriteOptions(progress=False, parallel=True))
    told = [line.split() for line in file.read_text().splitlines()]
    assert [pid != str(os.getpid()) for pid, event in told if event == "s3.retry"] == [True]


# ---------------------------------------------------------------- the events themselves


def test_a_storm_is_counted(front: Front) -> None:
    """However many there are, memory and the number of calls stay bounded, and the ready-made collectors count all."""
    client = pytest.importorskip("prometheus_client")
    import shardyfusion.metrics

    registry, collector = client.CollectorRegistry(), Collector()
    counting = shardyfusion.metrics.PrometheusCollector(registry)
    metrics = Metrics(collector)
    front.plan(Fault(match="storm", status=503, times=-1))
    objects = native.Store("s3://scratch/", {
        "endpoint_url": front.endpoint, "region": REGION, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY,
        "max_retries": 400, "retry_base_ms": 1, "retry_cap_ms": 1, "events": metrics.store_events})
    with pytest.raises(S3TransientError):
        objects.get("storm").wait()
    metrics.tell()
    for event, payload in collector.events:
        counting.emit(event, payload)
    told = collector.taken()
    assert len(told) == 256 + 2
    assert [payload["attempt"] for event, payload in told[:256]] == list(range(1, 257))
    assert all("count" not in payload for _, payload in told[:256])
    event, payload = told[256]
    assert event is RETRY and payload["attempt"] == 400 and payload["count"] == 400 - 256
    assert told[257] == (GIVEN_UP, {"operation": "get", "attempts": 401})
    assert registry.get_sample_value("shardyfusion_s3_retries_total") == 400
    assert registry.get_sample_value("shardyfusion_s3_retries_exhausted_total") == 1
    metrics.tell()
    assert collector.taken() == []


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_requests_for_whom_they_matter(kind: str, front: Front, tmp_path: Path) -> None:
    """Whoever does not say so hears of none."""
    client = pytest.importorskip("prometheus_client")
    import shardyfusion.metrics

    registry = client.CollectorRegistry()
    counting, native_metrics = shardyfusion.metrics.PrometheusCollector(registry), shardyfusion.metrics.NativeMetrics()
    silent, collector, stand_in = Collector(), Collector(), MagicMock()
    collector.s3_requests = True  # type: ignore[attr-defined]
    key = next(UNREAD)
    readers = [
        await AsyncShardedReader.open(s3_prefix=PREFIX, local_root=str(tmp_path), metrics_collector=one, **s3(front.endpoint)) if kind == "async"
        else ShardedReader(s3_prefix=PREFIX, local_root=str(tmp_path), metrics_collector=one, **s3(front.endpoint))
        for one in (silent, collector, stand_in)
    ]  # fmt: skip
    opening = [payload for event, payload in collector.taken() if event is MetricEvent.S3_REQUEST]
    assert {payload["operation"] for payload in opening} >= {"get", "list"}
    assert all(payload["status"] in (200, 206) and payload["attempts"] == 1 and payload["bytes"] > 0 for payload in opening)
    assert all(0 < payload["duration_s"] < 60 for payload in opening)
    front.plan(TWICE)
    value = readers[1].get(key)
    assert (await value if inspect.isawaitable(value) else value) == value_of(key)
    told = collector.taken()
    (request,) = [payload for event, payload in told if event is MetricEvent.S3_REQUEST]
    assert (request["operation"], request["status"], request["attempts"]) == ("get", 206, 3) and request["bytes"] >= 4096
    assert [event for event, _ in told][-1] is MetricEvent.READER_GET  # they come before what needed them
    front.plan(FOR_EVER)
    with pytest.raises(S3TransientError):
        failing = readers[1].get(next(UNREAD))
        await failing
    failed = collector.taken()
    (request,) = [payload for event, payload in failed if event is MetricEvent.S3_REQUEST]
    assert (request["operation"], request["status"], request["attempts"]) == ("get", 503, ATTEMPTS)
    for heard in ({event for event, _ in silent.taken()}, {call.args[0] for call in stand_in.emit.call_args_list}):
        assert MetricEvent.READER_INITIALIZED in heard and MetricEvent.S3_REQUEST not in heard
    for event, payload in [*told, *failed]:
        counting.emit(event, payload)
        native_metrics.emit(event, payload)
    counter = "shardyfusion_s3_requests_total"
    assert registry.get_sample_value(counter, {"operation": "get", "status": "2xx"}) == 1
    assert registry.get_sample_value(counter, {"operation": "get", "status": "5xx"}) == 1
    assert registry.get_sample_value("shardyfusion_s3_request_duration_seconds_count") == 2
    assert registry.get_sample_value("shardyfusion_s3_request_bytes_total") >= 4096
    counted = native_metrics.snapshot()
    assert counted.counters["s3_requests"] == 2 and counted.counters["s3_requests{get,5xx}"] == 1
    assert counted.histograms["s3_request_duration"].count == 2
    for reader in readers:
        closed = reader.close()
        if inspect.isawaitable(closed):
            await closed


def test_a_flood_of_requests_is_counted(front: Front) -> None:
    """As a storm: those beyond some hundred by operation and class of their status, untimed."""
    events = native.StoreEvents(requests=True)
    objects = native.Store("s3://scratch/", {
        "endpoint_url": front.endpoint, "region": REGION, "access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY,
        "events": events})
    objects.put("flood", b"x" * 10).wait()
    for _ in range(300):
        objects.get("flood").wait()
    told = [payload for name, payload in events.take() if name == "s3.request"]
    assert [payload["operation"] for payload in told] == ["put", *["get"] * 255, "get"]
    assert all(payload["bytes"] == 10 and "count" not in payload for payload in told[:256])
    assert told[256]["count"] == 45 and told[256]["bytes"] == 450 and told[256]["duration_s"] is None
    assert events.take() == ()


@pytest.mark.parametrize("wrong", [3, "events", object(), native.Store("mem://x/")])
def test_events_of_another_type_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        native.Store("s3://scratch/", {"events": wrong})
