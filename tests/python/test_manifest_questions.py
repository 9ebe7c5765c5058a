"""Manifest stores of the caller's under the engine: it asks, they answer in the caller's task or thread, and what they raise
arrives as it was raised. Shards are the engine's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from plugged import Store, SyncStore
from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    PythonRecordInput,
    ShardedReader,
    WriterManifestConfig,
    WriterOutputConfig,
)
from shardyfusion._engine import native
from shardyfusion.errors import ManifestParseError, OperationTimeoutError, ReaderStateError
from shardyfusion.reader._manifest_questions import ask_sync
from shardyfusion.reader._source import Source
from shardyfusion.writer.python import write_hash_sharded

RUNS = ("run-1", "run-2", "run-3")
context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="nothing")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifests of three snapshots, in which key n has the value "<run>:<n>"."""
    folder = tmp_path_factory.mktemp("published")
    store = InMemoryManifestStore()
    manifests = {}
    for run_id in RUNS:
        config = HashShardedWriteConfig(
            num_dbs=3, s3_prefix=(folder / "p").as_uri(), manifest=WriterManifestConfig(store=store),
            output=WriterOutputConfig(run_id=run_id, local_root=str(folder / "local")),
        )
        rows = PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n, run=run_id: f"{run}:{n}".encode())
        result = write_hash_sharded(range(50), config, rows)
        manifests[run_id] = store.load_manifest(result.manifest_ref)
    return manifests


@pytest.fixture
def store(published: dict[str, Any]) -> Store:
    """The pointer names run-1; the others are there, too."""
    store = Store()
    for run_id in RUNS:
        store.publish(run_id, published[run_id], current=run_id == "run-1")
    return store


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    return {"s3_prefix": "any name", "local_root": str(tmp_path / "local")}


class Blocking:
    """A reader that blocks, with the methods of one that does not: one set of tests for both."""

    def __init__(self, cls: Any) -> None:
        self._cls = cls

    async def open(self, store: Store, **options: Any) -> Any:
        return BlockingReader(await asyncio.to_thread(self._cls, manifest_store=SyncStore(store), **options))


class BlockingReader:
    def __init__(self, reader: Any) -> None:
        self._source, self._reader = reader._source, reader

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._reader, name)
        if name not in ("get", "multi_get", "refresh", "close"):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


class Asynchronous:
    async def open(self, store: Store, **options: Any) -> Any:
        return await AsyncShardedReader.open(manifest_store=store, **options)


class OverThreads:
    async def open(self, store: Store, **options: Any) -> Any:
        return await AsyncShardedReader.open(manifest_store=SyncStore(store), **options)


KINDS = {
    "async": Asynchronous(), "async, over a blocking store": OverThreads(), "one thread": Blocking(ShardedReader),
    "threads": Blocking(ConcurrentShardedReader),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


async def test_the_engine_reads(kind: Any, store: Store, place: dict[str, Any]) -> None:
    reader = await kind.open(store, **place)
    assert isinstance(reader._source, Source)
    assert store.calls == ["load_current", ("load_manifest", "run-1")]
    assert await reader.get(7) == b"run-1:7" and await reader.get(99) is None
    assert await reader.multi_get([1, 2]) == {1: b"run-1:1", 2: b"run-1:2"}
    assert reader.snapshot_info().manifest_ref == "run-1"
    assert [d.db_url for d in reader.shard_details()] == [s.db_url for s in store.manifests["run-1"].shards]
    store.calls.clear()
    assert await reader.refresh() is False and store.calls == ["load_current"]
    store.current = "run-3"
    assert await reader.refresh() is True
    assert store.calls[1:] == ["load_current", ("load_manifest", "run-3")]
    assert await reader.get(7) == b"run-3:7"
    await reader.close()


async def test_fallback(kind: Any, store: Store, place: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    store.malformed("run-4")
    store.manifests["run-3"] = ManifestParseError("run-3 is malformed")
    with caplog.at_level(logging.INFO, "shardyfusion"):
        reader = await kind.open(store, max_fallback_attempts=2, **place)
    assert store.calls[2:] == [("list_manifests", 3), ("load_manifest", "run-3"), ("load_manifest", "run-2")]
    assert [r.message for r in caplog.records] == [
        "reader_cold_start_fallback", "reader_fallback_skip_malformed", "reader_fallback_succeeded", "reader_initialized"]
    assert reader.health().fallback is True and await reader.get(3) == b"run-2:3"
    store.current = "run-2"
    assert await reader.refresh() is False and reader.health().fallback is False
    store.malformed("run-5")
    assert await reader.refresh() is False
    assert "run-5 is malformed" in str(reader.health().last_refresh_error)
    await reader.close()
    store.manifests.update(dict.fromkeys(("run-2", "run-1"), ManifestParseError("malformed, too")))
    with pytest.raises(ReaderStateError, match="No valid manifest found"):
        await kind.open(store, **place)
    with pytest.raises(ReaderStateError, match="^No valid manifest found after fallback$"):
        await kind.open(store, max_fallback_attempts=-1, **place)


async def test_what_a_store_raises_arrives_as_it_is(kind: Any, store: Store, place: dict[str, Any]) -> None:
    class Mine(Exception):
        pass

    async def raised(work: Any) -> BaseException:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await work
        return caught.value

    error = store.pointer_error = Mine("no pointer today")
    assert await raised(kind.open(store, **place)) is error
    error = store.pointer_error = ManifestParseError("the pointer is malformed")
    assert await raised(kind.open(store, **place)) is error
    store.pointer_error = None
    good = store.manifests["run-1"]
    for error in (Mine("no manifest today"), ManifestParseError("malformed")):
        store.manifests["run-1"] = error
        assert await raised(kind.open(store, max_fallback_attempts=0, **place)) is error
        assert error.__cause__ is None and error.__context__ is None
    error = Mine("no list today")
    store.list_manifests = lambda *, limit: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
    assert await raised(kind.open(store, **place)) is error
    store.manifests["run-1"] = good
    reader = await kind.open(store, **place)
    error = store.pointer_error = Mine("none again")
    assert await raised(reader.refresh()) is error
    assert "none again" in str(reader.health().last_refresh_error)
    store.pointer_error = None
    error = store.manifests["run-2"] = Mine("still none")
    store.current = "run-2"
    assert await raised(reader.refresh()) is error
    assert await reader.get(7) == b"run-1:7"
    await reader.close()


@pytest.mark.parametrize(("found", "expected"), [
    ("not a ref", AttributeError), (type("Ref", (), {"ref": 7})(), ValueError),
    (type("Ref", (), {"ref": "a\0b"})(), ValueError), (type("Ref", (), {"ref": "\ud800"})(), UnicodeEncodeError),
])
async def test_answers_that_are_none(kind: Any, store: Store, place: dict[str, Any], found: Any, expected: Any) -> None:
    async def load_current() -> Any:
        return found

    store.load_current = load_current  # type: ignore[method-assign]
    with pytest.raises(expected):
        await kind.open(store, **place)


@pytest.mark.parametrize("wrong", [{"db_bytes": 2**70}, {"db_id": 3}, {"db_id": 1}])
async def test_manifests_that_are_none(kind: Any, store: Store, place: dict[str, Any], wrong: dict[str, int]) -> None:
    first, *others = store.manifests["run-2"].shards
    store.manifests["run-3"] = store.manifests["run-2"].model_copy(
        update={"shards": [first.model_copy(update=wrong), *others]})
    store.current = "run-3"
    reader = await kind.open(store, **place)
    assert reader.health().fallback is True and await reader.get(1) == b"run-2:1"
    await reader.close()
    with pytest.raises(ManifestParseError):
        await kind.open(store, max_fallback_attempts=0, **place)


async def test_custom_fields_that_json_cannot_hold(kind: Any, store: Store, place: dict[str, Any]) -> None:
    store.manifests["run-1"] = store.manifests["run-1"].model_copy(update={"custom": {"theirs": object()}})
    reader = await kind.open(store, **place)
    assert await reader.get(1) == b"run-1:1"
    await reader.close()


# ---------------------------------------------------------------- asyncio


async def test_coroutines_run_in_the_callers_task(store: Store, place: dict[str, Any]) -> None:
    seen: list[Any] = []
    load_current = store.load_current

    async def watched() -> Any:
        await asyncio.sleep(0)
        seen.append((asyncio.current_task(), context.get()))
        context.set("the store's")
        return await load_current()

    store.load_current = watched  # type: ignore[method-assign]
    context.set("the caller's")
    reader = await AsyncShardedReader.open(manifest_store=store, **place)
    assert context.get() == "the store's"
    await reader.refresh()
    assert seen == [(asyncio.current_task(), "the caller's"), (asyncio.current_task(), "the store's")]
    await reader.close()


async def test_cancelling_reaches_the_store(store: Store, place: dict[str, Any]) -> None:
    store.gate = asyncio.Event()
    opening = asyncio.create_task(AsyncShardedReader.open(manifest_store=store, **place))
    while len(store.calls) < 2:
        await asyncio.sleep(0)
    opening.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await opening
    store.gate.set()
    reader = await AsyncShardedReader.open(manifest_store=store, **place)
    store.current, store.gate = "run-2", asyncio.Event()
    store.calls.clear()
    refresh = asyncio.create_task(reader.refresh())
    while len(store.calls) < 2:
        await asyncio.sleep(0)
    assert await reader.get(5) == b"run-1:5"  # nobody waits for the store
    refresh.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refresh
    assert await reader.get(5) == b"run-1:5" and reader.snapshot_info().run_id == "run-1"
    store.gate.set()
    assert await reader.refresh() is True and await reader.get(5) == b"run-2:5"
    await reader.close()


async def test_a_store_that_takes_a_cancellation_for_an_answer(store: Store, place: dict[str, Any]) -> None:
    load_manifest = store.load_manifest
    waits = asyncio.Event()

    async def stubborn(ref: str) -> Any:
        waits.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await load_manifest(ref)

    store.load_manifest = stubborn  # type: ignore[method-assign]
    opening = asyncio.create_task(AsyncShardedReader.open(manifest_store=store, **place))
    await waits.wait()
    opening.cancel()
    reader = await opening
    assert await reader.get(1) == b"run-1:1"
    await reader.close()


@pytest.mark.parametrize("hangs", ["load_current", "load_manifest", "list_manifests"])
async def test_a_store_that_hangs_is_ended_on_time(
    store: Store, place: dict[str, Any], hangs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardyfusion._timeouts._GRACE_S", 3600.0)  # the engine's; who needed it would not come back
    ended: list[str] = []

    async def hang(*args: Any, **kwargs: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(hangs)

    store.manifests["run-1"] = ManifestParseError("malformed") if hangs == "list_manifests" else store.manifests["run-1"]
    setattr(store, hangs, hang)
    for timeout in (0.25, 2.5, 25.0):  # so long that the store is asked
        with pytest.raises(OperationTimeoutError, match=rf"^open of any name took longer than its timeout of {timeout:g} s$"):
            await AsyncShardedReader.open(manifest_store=store, timeout=timeout, **place)
        if ended:
            break
    assert ended == [hangs]


def test_a_loop_that_ends_while_a_store_is_asked(store: Store, place: dict[str, Any]) -> None:
    async def main() -> None:
        store.gate = asyncio.Event()
        opening = asyncio.ensure_future(AsyncShardedReader.open(manifest_store=store, **place))
        while len(store.calls) < 2:
            await asyncio.sleep(0)
        assert not opening.done()

    asyncio.run(main())
    assert store.calls == ["load_current", ("load_manifest", "run-1")]
    store.gate = None
    with ShardedReader(manifest_store=SyncStore(store), **place) as reader:  # the engine goes on
        assert reader.get(1) == b"run-1:1"


# ---------------------------------------------------------------- blocking


def test_methods_run_on_the_callers_thread(store: Store, place: dict[str, Any]) -> None:
    threads: list[Any] = []

    class Watched(SyncStore):
        def load_current(self) -> Any:
            threads.append((threading.current_thread(), context.get()))
            return super().load_current()

    def run() -> None:
        context.set("the caller's")
        with ShardedReader(manifest_store=Watched(store), **place) as reader:
            reader.refresh()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert threads == [(thread, "the caller's")] * 2


def test_an_async_store_is_refused(store: Store, place: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="^Store.load_current is asynchronous, the reader is not$"):
        ShardedReader(manifest_store=store, **place)  # type: ignore[arg-type]


def test_interrupts_pass_through(store: Store, place: dict[str, Any]) -> None:
    class Interrupted(SyncStore):
        def load_manifest(self, ref: str) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ShardedReader(manifest_store=Interrupted(store), **place)


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_a_refresh_inside_of_a_refresh_overtakes_it(
    store: Store, place: dict[str, Any], caplog: pytest.LogCaptureFixture, cls: Any
) -> None:
    class Nosy(SyncStore):
        def load_manifest(self, ref: str) -> Any:
            if inner:
                inner.pop()()
            return super().load_manifest(ref)

    inner: list[Any] = []
    reader = cls(manifest_store=Nosy(store), **place)
    store.current = "run-2"
    results = []
    inner.append(lambda: results.append(reader.refresh()))
    with caplog.at_level(logging.INFO, "shardyfusion"):
        assert reader.refresh() is False and results == [True]
    assert "reader_refresh_superseded" in [record.message for record in caplog.records]
    assert reader.get(1) == b"run-2:1" and reader.refresh() is False
    reader.close()


def test_a_store_may_read_while_it_is_asked(store: Store, place: dict[str, Any]) -> None:
    class Reading(SyncStore):
        def load_manifest(self, ref: str) -> Any:
            read.extend(reader.get(n) for n in range(3) if reader is not None)
            return super().load_manifest(ref)

    reader, read = None, []
    reader = ShardedReader(manifest_store=Reading(store), **place)
    store.current = "run-2"
    assert reader.refresh() is True and read == [b"run-1:0", b"run-1:1", b"run-1:2"]
    reader.close()


# ---------------------------------------------------------------- questions as such


def test_questions_that_are_kept_or_dropped() -> None:
    questions: list[Any] = []

    def keeps(question: Any) -> None:
        questions.append(question)
        assert (question.what, question.about) == ("load_current", 0)
        with pytest.raises(TypeError):
            question.fail("no exception")
        with pytest.raises(ValueError, match="no failure is called OK"):
            question.fail(ValueError(), "OK")
        with pytest.raises(ValueError, match="must be a str without NUL"):
            question.answer(7)
        assert question.fail(OSError("none")) is True and question.answer("late") is False

    with pytest.raises(OSError, match="^none$"):
        native.open_reader("any", {}, None, [], keeps).wait()
    with pytest.raises(ValueError, match="has given no answer"):
        native.open_reader("any", {}, None, [], lambda question: None).wait()
    with pytest.raises(TypeError, match="would have to be awaited"):
        native.open_reader("any", {}, None, [], lambda question: 7).wait()  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        native.open_reader("any", {}, None, [], lambda question: 1 / 0).wait()  # type: ignore[arg-type, return-value]
    assert questions[0].answer(None) is False


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_questions_in_a_forked_child(store: Store) -> None:
    def ask(question: Any) -> None:
        child = os.fork()
        if child == 0:
            try:
                os._exit(question.fail(OSError("of a child")))
            finally:
                os._exit(2)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        answer(question)

    ended: list[int] = []
    answer = ask_sync(SyncStore(store))
    reader = native.open_reader("any", {}, None, [], ask).wait()
    assert reader.snapshot().details()["run_id"] == "run-1" and ended == [0, 0]


async def test_questions_answered_elsewhere(store: Store) -> None:
    answer = ask_sync(SyncStore(store))

    def ask(question: Any) -> None:
        threading.Thread(target=answer, args=(question,)).start()

    reader = await native.open_reader("any", {}, None, [], ask)
    assert reader.snapshot().details()["run_id"] == "run-1"
    with pytest.raises(TypeError, match="opened with ask"):
        reader.refresh()
    store.current = "run-2"
    assert await reader.refresh(None, [], ask) is True
    reader.close()
