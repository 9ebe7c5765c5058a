"""The two blocking readers: over golden snapshots with the engine, and over the caller's own parts."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures import OPENING, Case, case, typed
from plugged import Limiter, Store, key_in, make_manifest, stored

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    DbAdapterError,
    ManifestParseError,
    MetricEvent,
    PoolExhaustedError,
    ReaderStateError,
    ShardedReader,
    SlateDbReaderFactory,
)
from shardyfusion.errors import OperationTimeoutError, S3TransientError
from shardyfusion.testing import ListMetricsCollector

READERS = [ShardedReader, ConcurrentShardedReader]
CASE = case("slatedb-hash-u64be")
ROWS = {key: value for key, _, value in CASE.lookups if value is not None}


class OwnFactory(SlateDbReaderFactory):
    """A subclass may do anything, so the reader puts the snapshot together in Python."""


WAYS: dict[str, Any] = {
    "plain, engine": (ShardedReader, dict),
    "plain, with a collector": (ShardedReader, lambda: {"metrics_collector": ListMetricsCollector()}),
    "plain, with a limiter": (ShardedReader, lambda: {"rate_limiter": Limiter()}),
    "plain, factory": (ShardedReader, lambda: {"reader_factory": OwnFactory(), "max_workers": 3}),
    "concurrent, engine": (ConcurrentShardedReader, dict),
    "concurrent, lock": (ConcurrentShardedReader, lambda: {"reader_factory": OwnFactory(), "max_workers": 2}),
    "concurrent, pool": (ConcurrentShardedReader, lambda: {"reader_factory": OwnFactory(), "thread_safety": "pool"}),
}


@pytest.fixture(params=WAYS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    cls, options = WAYS[request.param]
    return lambda prefix, **more: cls(s3_prefix=str(prefix), local_root=str(tmp_path / "local"), **options(), **more)


@pytest.mark.parametrize("c", OPENING, ids=lambda c: c.name)
def test_golden_snapshots(golden: Any, c: Case) -> None:
    with golden(c.prefix) as reader:
        assert reader.multi_get([key for key, _, _ in c.lookups]) == {key: value for key, _, value in c.lookups}
        expected = sorted((reader.encode_key(k), v) for k, _, v in c.lookups if v is not None)
        assert list(reader.scan()) == expected
        assert list(reader.scan(reverse=True, limit=20)) == expected[::-1][:20]
        assert sorted(reader.scan(order="shard")) == expected
        if len(expected) > 10:
            assert list(reader.scan(expected[3][0], expected[9][0])) == expected[3:9]
        for key, db_id, value in random.Random(1).sample(c.lookups, min(100, len(c.lookups))):
            assert reader.get(key) == value
            assert reader.route_key(key) == reader.shard_for_key(key).db_id == db_id
            with reader.reader_for_key(key) as handle:
                assert handle.get(reader.encode_key(key)) == value
                assert handle.reader.get(reader.encode_key(key)) == value
                assert handle.multi_get([reader.encode_key(key)]) == {reader.encode_key(key): value}
        info = reader.snapshot_info()
        assert (info.run_id, info.num_dbs) == (c.expected["snapshot_info"]["run_id"], c.expected["num_dbs"])
        assert [d.db_id for d in reader.shard_details()] == list(range(info.num_dbs))
        settled(reader)
        assert reader.refresh() is False


def settled(reader: Any) -> None:
    """Until nothing is borrowed: the engine ends scans on a thread of its own."""
    end = time.monotonic() + 5
    while reader.health().borrowed:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_golden_history(golden: Any, tmp_path: Path) -> None:
    c = case("history-three-runs")
    prefix = tmp_path / "copy"
    shutil.copytree(c.folder, prefix)
    pointer = (prefix / "_CURRENT").read_text()
    newest = next(run for run in c.expected["runs"] if run["run_id"] == c.expected["current"]["run_id"])
    with golden(prefix) as reader:
        for run in c.expected["runs"]:
            changed = run["manifest_ref"] != reader.snapshot_info().manifest_ref
            text = pointer.replace(newest["manifest_ref"], run["manifest_ref"]).replace(newest["run_id"], run["run_id"])
            (prefix / "_CURRENT").write_text(text)
            assert reader.refresh() is changed
            assert reader.snapshot_info().run_id == run["run_id"]
            for look_up in run["lookups"][:30]:
                value = look_up["value"] and bytes.fromhex(look_up["value"])
                assert reader.get(typed(look_up["key"])) == value


def test_failures_are_bare(golden: Any) -> None:
    with golden(CASE.prefix) as reader:
        for key, cls in ((2**63, ValueError), (1.5, ValueError), ("a", ValueError), (-1, ConfigValidationError)):
            with pytest.raises(cls) as caught:
                reader.get(key)
            assert type(caught.value) is cls
            with pytest.raises((cls, DbAdapterError)) as caught:
                reader.multi_get([1, key])
            error = caught.value
            if type(error) is DbAdapterError:  # a foreign error that came through the executor
                assert reader.max_workers and str(error).startswith("Read failed for shard db_id=")
                error = error.__cause__
            assert type(error) is cls
        with pytest.raises(ValueError, match="route_with_context"):
            reader.get(1, routing_context={})
        assert reader.multi_get([], routing_context={}) == {}
        with pytest.raises(ValueError, match="^u64be key bytes must have length 8$"):
            reader.get(bytearray(b"routed all the same"))
        kept = reader.multi_get([-1, next(iter(ROWS))], on_error="return")
        assert type(kept[-1]) is ConfigValidationError and next(iter(ROWS.values())) in kept.values()
        settled(reader)


async def test_blocking_readers_work_inside_of_an_event_loop(golden: Any) -> None:
    with golden(CASE.prefix) as reader:
        assert reader.get(next(iter(ROWS))) == next(iter(ROWS.values()))


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "text"),
    [
        ("get", (1,), {"key": 2}, "get() got multiple values for argument 'key'"),
        ("get_many", ([1],), {"keys": [2]}, "get_many() got multiple values for argument 'keys'"),
        ("get", (1, {}), {}, "get() takes 2 positional arguments but 3 were given"),
        ("get", (), {"timeout": 1}, "get() missing 1 required positional argument: 'key'"),
        ("contains_many", ([1],), {"on_error": "return"}, "contains_many() got an unexpected keyword argument 'on_error'"),
    ],
)
def test_arguments_are_refused_as_pythons_own_functions_refuse_them(method: str, args: Any, kwargs: Any, text: str) -> None:
    with ShardedReader(s3_prefix=str(CASE.prefix), local_root="unused") as reader, pytest.raises(TypeError) as caught:
        getattr(reader, method)(*args, **kwargs)
    assert str(caught.value) == text


def test_borrowed_after_close(golden: Any) -> None:
    reader = golden(CASE.prefix)
    key, value = next(iter(ROWS.items()))
    encoded = reader.encode_key(key)
    handle, rows = reader.reader_for_key(key), reader.scan(limit=3)
    reader.close()
    assert handle.get(encoded) == value
    assert len(list(rows)) == 3
    handle.close()
    handle.close()
    with pytest.raises(ReaderStateError, match="^Reader is closed$"):
        reader.get(key)


def test_threads(golden: Any) -> None:
    with golden(CASE.prefix) as reader:
        if isinstance(reader, ShardedReader):
            return
        errors: list[BaseException] = []

        def read(seed: int) -> None:
            try:
                for key in random.Random(seed).sample(list(ROWS), 200):
                    assert reader.get(key) == ROWS[key]
                assert reader.multi_get(list(ROWS)[:100]) == {key: ROWS[key] for key in list(ROWS)[:100]}
                assert reader.refresh() is False
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


# ---------------------------------------------------------------- the caller's own parts


@dataclass
class SyncStore:
    inner: Store
    gate: threading.Event | None = None

    def load_current(self) -> Any:
        return asyncio.run(self.inner.load_current())

    def load_manifest(self, ref: str) -> Any:
        if self.gate is not None:
            self.gate.wait(60)
        return asyncio.run(self.inner.load_manifest(ref))

    def list_manifests(self, *, limit: int = 10) -> Any:
        return asyncio.run(self.inner.list_manifests(limit=limit))


class Shard:
    def __init__(self, db_url: str, factory: Factory) -> None:
        self.db_url, self.factory, self.closed, self.reading = db_url, factory, 0, 0

    def get(self, key: bytes) -> bytes | None:
        assert not self.closed
        assert self.reading == 0, "one thread at a time"
        self.reading += 1
        try:
            if self.factory.hold is not None:
                assert self.factory.hold.wait(60)
            if key in self.factory.get_errors:
                raise self.factory.get_errors[key]
        finally:
            self.reading -= 1
        number = int.from_bytes(key, "big")
        return f"{self.db_url.rsplit('/', 2)[1]}:{number}".encode() if number < 100 else None

    def close(self) -> None:
        self.closed += 1
        if self.db_url in self.factory.close_errors:
            raise RuntimeError("close")


@dataclass
class Factory:
    opened: list[Shard] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    get_errors: dict[bytes, BaseException] = field(default_factory=dict)
    open_errors: set[str] = field(default_factory=set)
    close_errors: set[str] = field(default_factory=set)
    hold: threading.Event | None = None  # reads wait for it

    def __call__(self, **call: Any) -> Shard:
        self.calls.append(call)
        if call["db_url"] in self.open_errors:
            raise RuntimeError("open")
        self.opened.append(Shard(call["db_url"], self))
        return self.opened[-1]

    @property
    def still_open(self) -> int:
        return sum(not shard.closed for shard in self.opened)


class Together(Factory):
    together: list[list[str]] = []

    def open_many(self, specs: list[tuple[str, Any]]) -> list[Shard]:
        self.together.append([url for url, _ in specs])
        self.opened += [Shard(url, self) for url, _ in specs]
        return self.opened[-len(specs) :]


@pytest.fixture
def store() -> Store:
    store = Store()
    store.publish("run-1")
    return store


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture(params=READERS, ids=lambda cls: cls.__name__)
def opening(request: pytest.FixtureRequest, store: Store, factory: Factory, tmp_path: Path) -> Any:
    def open_reader(**options: Any) -> Any:
        return request.param(**{
            "s3_prefix": "any name", "local_root": str(tmp_path), "manifest_store": SyncStore(store),
            "reader_factory": factory, **options})

    open_reader.cls = request.param  # type: ignore[attr-defined]
    return open_reader


def test_opening(opening: Any, store: Store, factory: Factory, tmp_path: Path) -> None:
    store.publish("run-2", make_manifest("run-2", 4, empty=(1,)))
    metrics = ListMetricsCollector()
    with opening(metrics_collector=metrics, max_workers=2) as reader:
        assert [c["db_url"] for c in factory.calls] == [f"s3://bucket/p/run-2/{n}" for n in (0, 2, 3)]
        assert [c["local_dir"] for c in factory.calls] == [tmp_path / f"shard={n:05d}" for n in (0, 2, 3)]
        assert all(c["local_dir"].is_dir() and set(c) == {"db_url", "local_dir", "checkpoint_id", "manifest"}
                   for c in factory.calls)
        assert reader.get(key_in(1, 4)) is None
        assert (reader.s3_prefix, reader.local_root, reader.max_workers) == ("any name", str(tmp_path), 2)
    assert factory.still_open == 0
    assert metrics.events[0] == (MetricEvent.READER_INITIALIZED, {})
    assert metrics.events[-1] == (MetricEvent.READER_CLOSED, {"num_handles": 4})
    factory.open_errors.add("s3://bucket/p/run-2/2")
    with pytest.raises(RuntimeError, match="open"):
        opening()
    assert factory.still_open == 0


def test_a_failed_opening_whose_shards_cannot_be_closed(
    opening: Any, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    factory.open_errors.add("s3://bucket/p/run-1/2")
    factory.close_errors = {"s3://bucket/p/run-1/0"}
    with caplog.at_level(logging.DEBUG, "shardyfusion"), pytest.raises(RuntimeError, match="open"):
        opening()
    assert [(r.message, r.levelname, r.shardyfusion["db_id"], r.shardyfusion["manifest_ref"]) for r in caplog.records] == [
        ("reader_handle_close_failed", "ERROR", 0, "run-1")]


def test_open_many_is_the_plain_readers(store: Store, tmp_path: Path) -> None:
    for cls, calls in ((ShardedReader, 0), (ConcurrentShardedReader, 3)):
        factory = Together()
        factory.together = []
        with cls(s3_prefix="x", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=factory) as r:
            assert len(factory.calls) == calls
            assert factory.together == ([] if calls else [[f"s3://bucket/p/run-1/{n}" for n in range(3)]])
            assert r.get(1) == b"run-1:1"
        assert factory.still_open == 0
    store.publish("one", make_manifest("one", 1))
    factory = Together()
    factory.together = []
    with ShardedReader(s3_prefix="x", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=factory):
        assert (len(factory.calls), factory.together) == (1, [])


def test_pool(store: Store, factory: Factory, tmp_path: Path) -> None:
    with ConcurrentShardedReader(
        s3_prefix="x", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=factory,
        thread_safety="pool", max_workers=2, pool_checkout_timeout=timedelta(milliseconds=50),
    ) as reader:
        assert reader.thread_safety == "pool"
        assert len(factory.calls) == 6
        factory.hold = threading.Event()
        results: list[Any] = []

        def read() -> None:
            try:
                results.append(reader.get(1))
            except PoolExhaustedError as error:
                results.append(error)
                factory.hold.set()

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        exhausted = [r for r in results if isinstance(r, PoolExhaustedError)]
        assert [str(e) for e in exhausted] == ["Shard reader pool checkout timed out after 0.05s"]
        assert results.count(b"run-1:1") == 2
        with reader.reader_for_key(1) as handle:
            assert handle.reader.get(stored(1)) == b"run-1:1"
    assert factory.still_open == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="classes have __buffer__() from 3.12 on")
@pytest.mark.parametrize("of", ["values", "rows"])
def test_a_buffer_that_answers_the_question_it_is_part_of(of: str, store: Store, tmp_path: Path) -> None:
    told: list[bool] = []

    class Nosy:
        def __len__(self) -> int:
            return 4

        def __buffer__(self, flags: int) -> memoryview:
            question = sys._getframe(1).f_locals["question"]
            told.append(question.answer([b"another"]))
            told.append(question.fail(ValueError("another")))
            return memoryview(b"mine")

    class Odd:
        def __init__(self, **_: Any) -> None: ...

        def get(self, key: bytes) -> Any:
            return Nosy()

        def scan(self, **_: Any) -> Any:
            yield stored(1), Nosy()

        def close(self) -> None: ...

    with ShardedReader(
        s3_prefix="x", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=Odd, max_workers=2
    ) as reader:
        if of == "values":
            assert reader.multi_get([1, 2, 3]) == dict.fromkeys([1, 2, 3], b"mine")
        else:
            assert {value for _, value in reader.scan()} == {b"mine"}
    assert told and not any(told)


def test_constructor(store: Store) -> None:
    arguments: dict[str, Any] = {"s3_prefix": "s3://bucket/p", "local_root": "x", "manifest_store": SyncStore(store)}
    for cls in READERS:
        for workers in (0, -1):
            with pytest.raises(ValueError, match=r"^max_workers must be a positive integer \(>= 1\)$"):
                cls(**arguments, max_workers=workers)
        with pytest.raises(ValueError, match="^Invalid S3 URL: nothing$"):
            cls(s3_prefix="nothing", local_root="x")
    with pytest.raises(ValueError, match="^thread_safety must be 'lock' or 'pool'$"):
        ConcurrentShardedReader(**arguments, thread_safety="none")
    with pytest.raises(ValueError, match="^pool_checkout_timeout must be > 0, got 0.0$"):
        ConcurrentShardedReader(**arguments, pool_checkout_timeout=timedelta(0))


def test_fallback(opening: Any, store: Store) -> None:
    store.malformed("run-2")
    with opening() as reader:
        assert reader.snapshot_info().run_id == "run-1"
        assert reader.refresh() is False
    with pytest.raises(ManifestParseError):
        opening(max_fallback_attempts=0)
    store.malformed("run-1")
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback$"):
        opening()
    store.current = None
    with pytest.raises(ReaderStateError, match="^CURRENT pointer not found$") as caught:
        opening()
    assert isinstance(caught.value, FileNotFoundError)


def test_reads(opening: Any, factory: Factory) -> None:
    limiter, metrics = Limiter(), ListMetricsCollector()
    with opening(rate_limiter=limiter, metrics_collector=metrics) as reader:
        assert reader.get(1) == b"run-1:1"
        assert reader.get(500) is None
        assert reader.multi_get([1, 2, 1, 500]) == {1: b"run-1:1", 2: b"run-1:2", 500: None}
        assert reader.multi_get([]) == {}
        assert reader.multi_get(iter([3])) == {3: b"run-1:3"}
        assert limiter.calls == [("acquire", n) for n in (1, 1, 4, 0, 1)]
        events = [(e, sorted(p)) for e, p in metrics.events][1:]
        assert events == [(MetricEvent.READER_GET, ["duration_ms", "duration_s", "found"])] * 2 + [
            (MetricEvent.READER_MULTI_GET, ["duration_ms", "duration_s", "found_count", "num_keys"])] * 3
        assert [p["found_count"] for _, p in metrics.events[3:]] == [2, 0, 1]
        factory.get_errors[stored(4)] = error = KeyError("four")
        with pytest.raises(KeyError) as caught:
            reader.multi_get([4])
        assert caught.value is error
        assert len(metrics.events) == 7 and metrics.events[6][0] is MetricEvent.READER_GET_FAILED


def test_errors_through_the_executor(opening: Any, factory: Factory) -> None:
    bad, other = key_in(1), key_in(2)
    with opening(max_workers=2) as reader:
        factory.get_errors[stored(bad)] = cause = KeyError("foreign")
        with pytest.raises(DbAdapterError, match="^Read failed for shard db_id=1$") as caught:
            reader.multi_get([other, bad])
        assert caught.value.__cause__ is cause
        factory.get_errors[stored(bad)] = own = S3TransientError("ours")
        with pytest.raises(S3TransientError) as ours:
            reader.multi_get([other, bad])
        assert ours.value is own


@pytest.mark.parametrize("workers", [1, 2])
def test_what_ends_programs_is_no_keys_answer(opening: Any, factory: Factory, workers: int) -> None:
    bad, other = key_in(1), key_in(2)
    factory.get_errors[stored(bad)] = SystemExit(3)
    with opening(max_workers=workers) as reader, pytest.raises(SystemExit):
        reader.multi_get([other, bad], on_error="return")


class Odd:
    """Shards that give what they are told to give, and write down what they were asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.values: dict[int, Any] = {}

    def __call__(self, **_: Any) -> Odd:
        return self

    def get(self, key: bytes) -> Any:
        number = int.from_bytes(key, "big")
        self.asked.append(number)
        value = self.values.get(number, b"%d" % number)
        if isinstance(value, Exception):
            raise value
        return value

    def close(self) -> None: ...


@pytest.mark.parametrize("few", [0, 256], ids=["by the engine", "here"])
@pytest.mark.parametrize("cls", READERS)
def test_batches_are_the_same_however_many_keys(
    cls: Any, few: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few keys are asked for by the calling thread, many by way of the engine."""
    monkeypatch.setattr("shardyfusion.reader._foreign_state._FEW_KEYS", few)
    store.publish("run-2", make_manifest("run-2", 3, empty=(1,)))
    odd = Odd()
    with cls(s3_prefix="any", local_root=str(tmp_path), manifest_store=SyncStore(store), reader_factory=odd) as reader:
        in_empty = next(key for key in range(40) if reader.route_key(key) == 1)
        none, array, view, failing, text, number, *others = (key for key in range(40) if reader.route_key(key) != 1)
        cause = KeyError("foreign")
        odd.values = {none: None, array: bytearray(b"two"), view: memoryview(b"three"), failing: cause, text: "x", number: 5}
        good = [*others, view, none, array]
        expected = {key: b"%d" % key for key in others} | {view: b"three", none: None, array: b"two"}
        found = reader.multi_get([*good, *good[:3]])
        assert (found, list(found), {type(value) for value in found.values()}) == (expected, good, {bytes, type(None)})
        assert odd.asked == sorted(good, key=reader.route_key)
        assert reader.get_many([array, in_empty, array]) == [b"two", None, b"two"]
        assert reader.multi_get([]) == {}
        for wrong, error in (
            (-1, ConfigValidationError), ("text", ValueError), ([], TypeError), (text, TypeError), (number, TypeError),
        ):  # fmt: skip
            with pytest.raises(error):
                reader.multi_get([*others, wrong])
        with pytest.raises(KeyError) as caught:
            reader.multi_get([*others, failing])
        assert caught.value is cause
        returned = reader.multi_get([*good, failing, text], on_error="return")
        assert returned.pop(failing) is cause
        assert isinstance(returned.pop(text), TypeError)
        assert returned == expected
    with pytest.raises(ReaderStateError):
        reader.multi_get(good)


def test_refresh(opening: Any, store: Store, factory: Factory) -> None:
    metrics = ListMetricsCollector()
    with opening(metrics_collector=metrics) as reader:
        assert reader.refresh() is False
        handle = reader.reader_for_key(1)
        store.publish("run-2")
        assert reader.refresh() is True
        assert reader.get(1) == b"run-2:1"
        assert handle.get(stored(1)) == b"run-1:1"
        assert factory.still_open == 6
        handle.close()
        assert factory.still_open == 3
        store.current = None
        during = "" if opening.cls is ShardedReader else " during refresh"
        with pytest.raises(ReaderStateError, match=f"^CURRENT pointer not found{during}$"):
            reader.refresh()
        store.publish("run-3")
        factory.open_errors.add("s3://bucket/p/run-3/1")
        with pytest.raises(RuntimeError, match="open"):
            reader.refresh()
        assert reader.get(1) == b"run-2:1" and factory.still_open == 3
        assert [p["changed"] for e, p in metrics.events if e is MetricEvent.READER_REFRESHED] == [False, True]


def test_threads_that_refresh_at_once(
    store: Store, factory: Factory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that began loads and reports the change; the others look at the pointer when it is done."""
    sync = SyncStore(store)
    reader = ConcurrentShardedReader(s3_prefix="x", local_root=str(tmp_path), manifest_store=sync, reader_factory=factory)
    store.publish("run-2")
    results: list[tuple[int, Any]] = []

    def refresh(n: int) -> None:
        try:
            results.append((n, reader.refresh()))
        except ReaderStateError as error:
            results.append((n, str(error)))

    def begin(count: int) -> list[threading.Thread]:
        """The first one is inside of the store before the others begin."""
        sync.gate = threading.Event()
        threads = [threading.Thread(target=refresh, args=(n,)) for n in range(count)]
        calls = store.calls.count("load_current")
        for n, thread in enumerate(threads):
            thread.start()
            while n == 0 and store.calls.count("load_current") == calls:
                time.sleep(0.001)
        return threads

    store.calls.clear()
    with caplog.at_level(logging.INFO, "shardyfusion"):
        threads = begin(4)
        with pytest.raises(OperationTimeoutError, match="refresh"):
            reader.refresh(timeout=0.01)
        with pytest.raises(OperationTimeoutError, match="refresh"):
            reader.refresh(timeout=0)
        sync.gate.set()
        for thread in threads:
            thread.join()
    assert sorted(results) == [(0, True), (1, False), (2, False), (3, False)]
    assert [call for call in store.calls if call != "load_current"] == [("load_manifest", "run-2")]
    assert store.calls.count("load_current") == 4
    said = [record.message for record in caplog.records]
    assert said.count("reader_refreshed") == 1 and said.count("reader_refresh_unchanged") == 3
    assert factory.still_open == 3
    store.publish("run-3")
    results.clear()
    threads = begin(2)
    reader.close()
    sync.gate.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(0, "Reader is closed"), (1, "Reader is closed")]
    assert factory.still_open == 0


def test_a_refresh_inside_of_a_refresh_overtakes_it(
    store: Store, factory: Factory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Nosy(SyncStore):
        def load_manifest(self, ref: str) -> Any:
            if inner:
                inner.pop()()
            return super().load_manifest(ref)

    inner: list[Any] = []
    nosy = Nosy(store)  # reads the pointer, then asks for a refresh
    reader = ConcurrentShardedReader(s3_prefix="x", local_root=str(tmp_path), manifest_store=nosy, reader_factory=factory)
    store.publish("run-2")
    results = []
    inner.append(lambda: results.append(reader.refresh()))
    with caplog.at_level(logging.INFO, "shardyfusion"):
        assert reader.refresh() is False and results == [True]
    assert "reader_refresh_superseded" in [record.message for record in caplog.records]
    assert reader.snapshot_info().run_id == "run-2" and factory.still_open == 3
    reader.close()
    assert factory.still_open == 0


def test_close(opening: Any, store: Store, factory: Factory, caplog: pytest.LogCaptureFixture) -> None:
    what = "shard reader(s)" if opening.cls is ShardedReader else "shard handle(s)"
    factory.close_errors = {"s3://bucket/p/run-1/0", "s3://bucket/p/run-1/2"}
    reader = opening()
    with pytest.raises(DbAdapterError) as caught:
        reader.close()
    assert str(caught.value) == f"Failed to close 2 {what}: db_ids=[0, 2]"
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert reader.close() is None
    assert [r.shardyfusion["db_id"] for r in caplog.records if r.message == "reader_handle_close_failed"] == [0, 2]
    reader = opening()
    handle = reader.reader_for_key(1)
    reader.close()
    if opening.cls is ShardedReader:
        with pytest.raises(DbAdapterError):
            handle.close()
    else:
        handle.close()
    assert factory.still_open == 0


def test_after_close(opening: Any, factory: Factory) -> None:
    limiter = Limiter()
    reader = opening(rate_limiter=limiter)
    facts = {
        "snapshot_info": lambda: reader.snapshot_info(), "shard_details": lambda: reader.shard_details(),
        "route_key": lambda: reader.route_key(1), "shard_for_key": lambda: reader.shard_for_key(1),
        "shards_for_keys": lambda: reader.shards_for_keys([1]), "key_encoding": lambda: reader.key_encoding,
        "encode_key": lambda: reader.encode_key(1),
    }
    before = {name: call() for name, call in facts.items()}
    reader.close()
    for call in (lambda: reader.get(1), lambda: reader.multi_get([1]), lambda: reader.refresh(),
                 lambda: reader.reader_for_key(1), lambda: reader.readers_for_keys([1]), lambda: reader.scan()):
        with pytest.raises(ReaderStateError, match="^Reader is closed$"):
            call()
    if opening.cls is ShardedReader:
        assert {name: call() for name, call in facts.items()} == before
        assert limiter.calls == []
        with pytest.raises(ReaderStateError):
            reader.readers_for_keys([])
    else:
        for call in facts.values():
            with pytest.raises(ReaderStateError, match="^Reader is closed$"):
                call()
        assert limiter.calls == [("acquire", 1), ("acquire", 1)]
        assert reader.readers_for_keys([]) == {}
    assert (reader.health().status, reader.health().is_closed) == ("unhealthy", True)


def test_facts_of_the_engine_after_close() -> None:
    reader = ShardedReader(s3_prefix=CASE.prefix, local_root="unused")
    reader.close()
    key, db_id, _ = CASE.lookups[0]
    assert reader.shard_for_key(key).db_id == reader.route_key(key) == db_id
    assert reader.snapshot_info().num_dbs == 8 and len(reader.shard_details()) == 8


def test_dropped_handles_and_readers(opening: Any, factory: Factory, caplog: pytest.LogCaptureFixture) -> None:
    reader = opening()
    reader.reader_for_key(1)
    gc.collect()
    assert [r.levelno for r in caplog.records if r.message == "shard_reader_handle_not_closed"] == [logging.ERROR]
    del reader
    gc.collect()
    assert factory.still_open == 0


def test_an_async_store_is_refused(store: Store, factory: Factory, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="^Store.load_current is asynchronous, the reader is not$"):
        ShardedReader(s3_prefix="x", local_root=str(tmp_path), manifest_store=store, reader_factory=factory)  # type: ignore[arg-type]


async def test_all_three_tell_the_same() -> None:
    async with AsyncShardedReader.open(s3_prefix=CASE.prefix, local_root="unused") as one:
        with ShardedReader(s3_prefix=CASE.prefix, local_root="unused") as two:
            assert one.snapshot_info() == two.snapshot_info()
            assert one.shard_details() == two.shard_details()
            assert one.shard_for_key(1) == two.shard_for_key(1)
