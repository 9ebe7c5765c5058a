"""Work that memory answers lets everything else run: event loops, timers, cancellation, signals, other threads."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import case, typed
from plugged import Limiter, Store

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, ShardedReader, TokenBucket
from shardyfusion._engine import native
from shardyfusion.errors import OperationTimeoutError
from shardyfusion.reader._slatedb_shard import AsyncSlateDbShardReader
from shardyfusion.testing import ListMetricsCollector

CASE = case("history-three-runs")
RUNS = {
    run["run_id"]: {typed(x["key"]): x["value"] and bytes.fromhex(x["value"]) for x in run["lookups"]}
    for run in CASE.expected["runs"]
}
ROWS = {key: value for key, value in RUNS[CASE.expected["current"]["run_id"]].items() if value is not None}
KEY, VALUE = next(iter(ROWS.items()))
MANY = 300_000
ABSENT = range(10**12, 10**12 + MANY)  # outside of every shard: memory knows
STUCK_S = 30.0


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    shutil.copytree(CASE.folder, tmp_path / "published")
    return tmp_path / "published"


@contextlib.asynccontextmanager
async def warm(prefix: Path, **options: Any) -> AsyncIterator[AsyncShardedReader]:
    async with AsyncShardedReader.open(
        s3_prefix=prefix.as_uri(), local_root=str(prefix.parent / "local"), **options
    ) as reader:
        assert await reader.multi_get(list(ROWS)) == ROWS
        yield reader


async def for_ever(work: Callable[[], Awaitable[Any]]) -> None:
    """Nothing but hits. It ends by itself, so that a test fails rather than hangs."""
    end = time.monotonic() + STUCK_S
    while time.monotonic() < end:
        await work()
    raise AssertionError("nothing has stopped this loop")


# ---------------------------------------------------------------- what stops loops of hits


class Dictionary:
    """A shard that answers at once."""

    async def get(self, key: bytes) -> bytes | None:
        return VALUE

    async def scan(self, **options: Any) -> Any:
        for n in range(3):
            yield b"%08d" % n, VALUE

    async def close(self) -> None:
        pass


async def dictionary(**arguments: Any) -> Dictionary:
    return Dictionary()


async def rows_of(scan: Any) -> None:
    async with scan:
        async for _ in scan:
            pass


async def refused(reader: AsyncShardedReader) -> None:
    with pytest.raises(ValueError):
        await reader.get(None)  # type: ignore[arg-type]


WORKS: dict[str, Callable[[AsyncShardedReader, Any], Awaitable[Any]]] = {
    "get": lambda r, h: r.get(KEY),
    "get with a timeout": lambda r, h: r.get(KEY, timeout=60),
    "absent": lambda r, h: r.get(ABSENT[0]),
    "refused": lambda r, h: refused(r),
    "multi_get": lambda r, h: r.multi_get(list(ROWS)[:3]),
    "get_many": lambda r, h: r.get_many([KEY, KEY]),
    "handle.get": lambda r, h: h.get(r.encode_key(KEY)),
    "handle.multi_get": lambda r, h: h.multi_get([r.encode_key(KEY)]),
    "handle.reader.get": lambda r, h: h.reader.get(r.encode_key(KEY)),
    "scan": lambda r, h: rows_of(r.scan(limit=3)),
    "handle.scan": lambda r, h: rows_of(h.scan(limit=3)),
    "refresh": lambda r, h: r.refresh(),
}
READERS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "collector": lambda: {"metrics_collector": ListMetricsCollector()},
    "limiter": lambda: {"rate_limiter": TokenBucket(1e12)},
    "shards of one's own": lambda: {"reader_factory": dictionary},
}


@pytest.mark.parametrize("options", READERS.values(), ids=READERS)
async def test_a_timeout_ends_a_loop_of_hits(prefix: Path, options: Callable[[], dict[str, Any]]) -> None:
    async with AsyncShardedReader.open(s3_prefix=prefix.as_uri(), local_root=str(prefix.parent), **options()) as reader:
        await reader.multi_get(list(ROWS))
        with reader_handle(reader) as handle:
            for name, work in WORKS.items():
                if name == "handle.reader.get" and not isinstance(handle.reader, AsyncSlateDbShardReader):
                    continue  # the caller's own code from end to end
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(STUCK_S):
                        async with asyncio.timeout(0.01):
                            await for_ever(lambda work=work: work(reader, handle))
                await given_back(reader, but=1)


async def given_back(reader: AsyncShardedReader, but: int = 0) -> None:
    """Steps of scans that were cancelled end in the engine a moment later."""
    async with asyncio.timeout(STUCK_S):
        while reader.health().borrowed > but:
            await asyncio.sleep(0)


@contextlib.contextmanager
def reader_handle(reader: AsyncShardedReader) -> Any:
    handle = reader.reader_for_key(KEY)
    try:
        yield handle
    finally:
        handle.close()


async def test_a_store_that_knows_at_once_that_nothing_has_changed(tmp_path: Path) -> None:
    store = Store()
    store.publish("run-1")
    async with AsyncShardedReader.open(
        s3_prefix="any", local_root=str(tmp_path), manifest_store=store, reader_factory=dictionary
    ) as reader:
        for work in (reader.refresh, lambda: reader.multi_get(range(50)), lambda: rows_of(reader.scan())):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await for_ever(work)


@pytest.mark.parametrize("stop", ["cancel", "wait_for", "TaskGroup", "gather"])
async def test_cancelling_a_loop_of_hits(prefix: Path, stop: str) -> None:
    async with warm(prefix) as reader:
        hot = for_ever(lambda: reader.get(KEY))
        if stop == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(hot, 0.01)
        elif stop == "TaskGroup":
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(hot)
                    await asyncio.sleep(0.01)
                    raise ValueError
        else:
            task = asyncio.ensure_future(hot if stop == "cancel" else asyncio.gather(hot, for_ever(lambda: reader.get(KEY))))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert reader.health().borrowed == 0
        assert await reader.get(KEY) == VALUE


RUNNERS = {
    "asyncio.run": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
    "notebook": """
        loop = asyncio.new_event_loop()
        cell = loop.create_task(main())
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(cell.cancel))
        try:
            loop.run_until_complete(cell)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    """,
    "plain handler": """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asyncio.new_event_loop().run_until_complete(main())
    """,
}


@pytest.mark.parametrize("work", ["reader.get(key)", "reader.multi_get([*absent, key])", "reader.get_many([*absent, key])"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_ctrl_c_ends_a_loop_of_hits(prefix: Path, runner: str, work: str) -> None:
    program = textwrap.dedent(f"""
        import asyncio, os, signal, threading, time
        from shardyfusion import AsyncShardedReader

        absent = range(10**12, 10**12 + 100_000)

        async def main():
            key = {KEY!r}
            async with AsyncShardedReader.open(s3_prefix={prefix.as_uri()!r}, local_root={str(prefix.parent)!r}) as reader:
                await reader.get(key)
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
                end = time.monotonic() + {STUCK_S}
                while time.monotonic() < end:
                    await {work}
                print("not stopped")

        try:
            RUN
        except KeyboardInterrupt:
            print("stopped")
    """).replace("    RUN", textwrap.indent(textwrap.dedent(RUNNERS[runner]).strip(), "    "))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=4 * STUCK_S)
    assert done.stdout == "stopped\n", done.stderr


# ---------------------------------------------------------------- what runs beside them


async def count_turns(counter: list[int], work: Callable[[], int]) -> None:
    """Notes how much work was done between its own turns."""
    while True:
        before = work()
        await asyncio.sleep(0)
        counter.append(work() - before)


@pytest.mark.parametrize("tasks", [1, 10, 200])
async def test_a_ticker_beside_loops_of_hits(prefix: Path, tasks: int) -> None:
    """However many compete: the loop's turns do not grow with them, and each of them gets on."""
    done = [0] * tasks

    async def hot(n: int) -> None:
        while sum(done) < 300_000:
            await reader.get(KEY)
            done[n] += 1

    async with warm(prefix) as reader:
        between: list[int] = []
        ticker = asyncio.ensure_future(count_turns(between, lambda: sum(done)))
        await asyncio.gather(*map(hot, range(tasks)))
        ticker.cancel()
    assert len(between) > 5
    assert max(between) < 150_000  # 3 ms are 10,000 of the quickest
    assert min(done) > 0


BATCHES: dict[str, Callable[[Any, list[Any]], Awaitable[Any]]] = {
    "multi_get": lambda r, keys: r.multi_get(keys),
    "get_many": lambda r, keys: r.get_many(keys),
    "get_many of one key": lambda r, keys: r.get_many([KEY] * 10 * MANY),
    "generator": lambda r, keys: r.multi_get(key for key in keys),
    "handle": lambda r, keys: r.reader_for_key(KEY).multi_get([r.encode_key(key) for key in keys]),
}


@pytest.mark.parametrize("options", READERS.values(), ids=READERS)
@pytest.mark.parametrize("batch", BATCHES)
async def test_a_ticker_beside_a_large_batch(prefix: Path, batch: str, options: Callable[[], dict[str, Any]]) -> None:
    keys = [*ROWS, *ABSENT]
    async with AsyncShardedReader.open(s3_prefix=prefix.as_uri(), local_root=str(prefix.parent), **options()) as reader:
        await reader.multi_get(list(ROWS))
        ticks: list[int] = []
        ticker = asyncio.ensure_future(count_turns(ticks, lambda: 0))
        await asyncio.sleep(0)
        ticks.clear()
        found = await BATCHES[batch](reader, keys)
        ticker.cancel()
    assert len(ticks) >= 3
    if "reader_factory" not in options():
        if batch in ("multi_get", "generator"):
            assert found == {**dict.fromkeys(keys), **ROWS} and list(found) == keys
        elif batch == "get_many":
            assert found == [*ROWS.values(), *[None] * MANY]
        elif batch == "get_many of one key":
            assert found == [VALUE] * 10 * MANY


async def test_values_count_by_their_size(tmp_path: Path) -> None:
    from shardyfusion import HashShardedWriteConfig, PythonRecordInput
    from shardyfusion.writer.python import write_hash_sharded

    write_hash_sharded(
        [(n, bytes(1 << 20)) for n in range(8)], HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri()),
        PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]),
    )
    async with AsyncShardedReader.open(s3_prefix=tmp_path.as_uri(), local_root=str(tmp_path)) as reader:
        done = 0
        between: list[int] = []
        await reader.get(1)
        ticker = asyncio.ensure_future(count_turns(between, lambda: done))
        for done in range(3000):
            await reader.get(1)
        ticker.cancel()
    assert max(between) < 1000  # 128 of the smallest would be 20,000 of these


async def test_a_batch_reads_one_snapshot_whatever_happens_meanwhile(prefix: Path) -> None:
    run = CASE.expected["runs"][0]
    pointer = (prefix / "_CURRENT").read_text()
    current = next(r for r in CASE.expected["runs"] if r["run_id"] == CASE.expected["current"]["run_id"])
    other = pointer.replace(current["manifest_ref"], run["manifest_ref"]).replace(current["run_id"], run["run_id"])
    moved = False

    def keys_until_it_has_moved() -> Iterator[Any]:
        yield from ROWS
        while not moved:
            yield ABSENT[0]

    async with warm(prefix) as reader:
        work = asyncio.ensure_future(reader.multi_get(keys_until_it_has_moved()))
        await asyncio.sleep(0)
        assert not work.done() and reader.health().borrowed == 1
        (prefix / "_CURRENT").write_text(other)
        assert await reader.refresh()
        assert not work.done()
        moved = True
        found = await work
        assert found == {**ROWS, ABSENT[0]: None}
        assert list(found) == [*ROWS, ABSENT[0]]
        assert await reader.multi_get(list(ROWS)) == {key: RUNS[run["run_id"]].get(key) for key in ROWS}


@pytest.mark.parametrize("end", ["cancel", "close", "deadline", "drop"])
async def test_a_batch_that_ends_early_keeps_nothing(prefix: Path, end: str) -> None:
    async with warm(prefix) as reader:
        if end == "deadline":
            with pytest.raises(OperationTimeoutError, match=r"of 3\d{5} keys took longer than its timeout of 0.002 s"):
                await reader.multi_get([*ABSENT, *ROWS], timeout=0.002)
            assert await reader.multi_get(list(ROWS), timeout=0) == ROWS
        elif end == "cancel":
            work = asyncio.ensure_future(reader.multi_get(list(ABSENT)))
            await asyncio.sleep(0)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        else:
            batch = reader.multi_get(list(ABSENT))
            assert batch.send(None) is None  # it gives way
            assert reader.health().borrowed == 1 and "running" in repr(batch)
            if end == "close":
                batch.close()
                with pytest.raises(RuntimeError, match="already awaited"):
                    batch.send(None)
            del batch
        assert reader.health().borrowed == 0


async def test_what_is_thrown_into_a_pause_comes_out(prefix: Path) -> None:
    async with warm(prefix) as reader:
        while True:
            get = reader.get(KEY)
            try:
                get.send(None)
            except StopIteration as stop:
                assert stop.value == VALUE
            else:
                break
        with pytest.raises(KeyError, match="thrown"):
            get.throw(KeyError("thrown"))
        with pytest.raises(RuntimeError, match="already awaited"):
            get.send(None)


async def test_nothing_gives_way_while_the_loop_runs_by_itself(prefix: Path) -> None:
    async with warm(prefix) as reader:
        before = time.monotonic()
        for _ in range(200):
            began, before = before, time.monotonic()  # the loop has run since
            await asyncio.sleep(0.0)
            for _ in range(5):
                try:
                    assert reader.get(KEY).send(None) is None
                except StopIteration:
                    continue
                assert time.monotonic() - began > 0.003, "others had the processor"


def test_without_an_event_loop_nothing_gives_way(prefix: Path) -> None:
    async def opened() -> AsyncShardedReader:
        reader = await AsyncShardedReader.open(s3_prefix=prefix.as_uri(), local_root=str(prefix.parent))
        await reader.multi_get(list(ROWS))
        return reader

    reader = asyncio.run(opened())
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        with pytest.raises(StopIteration):
            reader.get(KEY).send(None)
    with pytest.raises(StopIteration) as stop:
        reader.multi_get(list(ABSENT)).send(None)
    assert len(stop.value.value) == MANY
    assert native.turn_is_over() is False
    asyncio.run(reader.close())


def test_loops_that_end_early_or_never_see_their_mark(prefix: Path) -> None:
    async def some(reader: AsyncShardedReader) -> None:
        for _ in range(300):  # the mark is put, and its loop ends
            assert await reader.get(KEY) == VALUE

    async def main() -> AsyncShardedReader:
        return await AsyncShardedReader.open(s3_prefix=prefix.as_uri(), local_root=str(prefix.parent))

    reader = asyncio.run(main())
    for _ in range(20):
        asyncio.run(some(reader))

    async def stopped() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await for_ever(lambda: reader.get(KEY))
        await reader.close()

    asyncio.run(stopped())


async def test_eager_tasks(prefix: Path) -> None:
    if sys.version_info < (3, 12) or "uvloop" in type(asyncio.get_running_loop()).__module__:
        pytest.skip("asyncio's, from 3.12 on")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    async with warm(prefix) as reader:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(for_ever(lambda: reader.get(KEY))), 0.01)


# ---------------------------------------------------------------- blocking batches


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
@pytest.mark.parametrize("limiter", [None, Limiter()])
def test_a_blocking_batch_lets_threads_and_signals_in(prefix: Path, cls: Any, limiter: Any) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    rounds = 0
    over = threading.Event()

    def beside() -> None:
        nonlocal rounds
        while not over.is_set():
            rounds += 1
            time.sleep(0)

    with cls(s3_prefix=prefix.as_uri(), local_root=str(prefix.parent), rate_limiter=limiter) as reader:
        keys = [*ABSENT, *ROWS]
        assert reader.multi_get(keys) == {**dict.fromkeys(keys), **ROWS}
        thread = threading.Thread(target=beside)
        thread.start()
        try:
            while rounds == 0:
                time.sleep(0.001)
            # the handler runs inside of the call: with the signal blocked until then it could not run before
            signal.signal(signal.SIGALRM, ring)
            before = rounds
            with pytest.raises(Alarm):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                while True:
                    reader.multi_get(keys)
            for _ in range(1000):  # a busy machine may let the other thread run late
                reader.multi_get(keys)
                if rounds > before + 3:
                    break
            assert rounds > before + 3
        finally:
            over.set()
            thread.join()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with pytest.raises(OperationTimeoutError):
            reader.multi_get(keys, timeout=0.001)
        assert reader.health().borrowed == 0
