"""Many threads at one reader, one coroutine, one scan: on the ordinary interpreter, which lets them in by turns, and on one without a GIL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import case, typed

from shardyfusion import AsyncShardedReader, CacheOptions, ConcurrentShardedReader, ReaderStateError, TokenBucket, _native
from shardyfusion.metrics import NativeMetrics

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "snapshot"
HISTORY = case("history-three-runs")
RUNS = [{typed(row["key"]): row["value"] and bytes.fromhex(row["value"]) for row in run["lookups"]} for run in HISTORY.expected["runs"]]
# What each key may be, whichever run is served.
ANSWERS: dict[Any, set[bytes | None]] = {key: {run[key] for run in RUNS} for key in RUNS[0] if all(key in run for run in RUNS)}
KEYS = list(ANSWERS)
THREADS = 4
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


def in_threads(*work: Callable[[], Any], count: int = THREADS) -> list[Any]:
    """What each returns, `count` threads for each, which begin together. The first exception is raised when all have ended."""
    begin = threading.Barrier(count * len(work))
    results: list[Any] = []
    failures: list[BaseException] = []

    def run(one: Callable[[], Any]) -> None:
        begin.wait(60)
        try:
            results.append(one())
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(one,)) for one in work for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
    return results


class Moving:
    """A prefix whose pointer moves from run to run, and the reader of it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._pointer = (HISTORY.folder / "_CURRENT").read_text()
        self._names = sorted(p.name for p in (HISTORY.folder / "manifests").iterdir())
        self._prefix = folder / "prefix"
        self._prefix.mkdir()
        for entry in HISTORY.folder.iterdir():
            if entry.name != "_CURRENT":
                (self._prefix / entry.name).symlink_to(entry)
        self.point_at(0)
        self.reader = ConcurrentShardedReader(s3_prefix=str(self._prefix), local_root=str(folder / "local"), **options)

    def point_at(self, number: int) -> None:
        before = self._pointer[self._pointer.index("/manifests/") + len("/manifests/") :].split("/")[0]
        made = self._prefix / f"_NEXT{threading.get_ident()}"
        made.write_text(self._pointer.replace(before, self._names[number % len(self._names)]))
        made.rename(self._prefix / "_CURRENT")


def look_up(reader: Any) -> None:
    for key in KEYS:
        assert reader.get(key) in ANSWERS[key]
        assert reader.contains(key) in {v is not None for v in ANSWERS[key]}
        assert reader.try_get(key, default=b"?") in {b"?", *ANSWERS[key]}


def look_up_many(reader: Any) -> None:
    found = reader.multi_get(KEYS)
    assert list(found) == KEYS and all(found[key] in ANSWERS[key] for key in KEYS)
    assert all(value in ANSWERS[key] for key, value in zip(KEYS, reader.get_many(tuple(KEYS)), strict=True))


def scan(reader: Any) -> None:
    rows = [value for _, value in reader.scan()]
    assert len(rows) > 100 and len({value.split(b":")[0] for value in rows}) == 1  # all of one run


@pytest.mark.parametrize("memory", [64 << 20, 0], ids=["hits", "reads"])
@pytest.mark.parametrize("metrics", [NativeMetrics, lambda: None, lambda: Collector()], ids=["counted", "untold", "told"])
def test_threads_read_beside_refreshes_and_their_end(tmp_path: Path, memory: int, metrics: Callable[[], Any]) -> None:
    moving = Moving(tmp_path, cache=CacheOptions(memory_bytes=memory), metrics_collector=metrics())
    reader = moving.reader

    def over_and_over(one: Callable[[Any], None]) -> Callable[[], int]:
        def work() -> int:
            done = 0
            while True:
                try:
                    one(reader)
                except ReaderStateError:
                    return done
                done += 1

        return work

    def pinned() -> None:
        with reader.pin() as snapshot:
            look_up_many(snapshot)
            for key in KEYS[:5]:
                assert snapshot.get(key) == snapshot.get(key)

    def facts(reader: Any) -> None:
        assert reader.snapshot_info().num_dbs > 0
        reader.health()
        reader.cache_stats()
        pinned()

    def move() -> int:
        try:
            for number in range(6):
                moving.point_at(number)
                reader.refresh()
        finally:
            reader.close()
        return 1

    done = in_threads(move, *(over_and_over(one) for one in (look_up, look_up, look_up_many, scan, facts)), count=1)
    assert len(done) == 6
    with pytest.raises(ReaderStateError):
        reader.get(KEYS[0])


class Collector:
    """Keeps some payloads, and changes some of what it was given."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def emit(self, event: Any, payload: dict[str, Any]) -> None:
        if len(self.kept) < 100:
            self.kept.append(payload)
        elif "found" in payload:
            payload["mine"] = True


def test_what_threads_look_up_is_counted_once_each(tmp_path: Path) -> None:
    metrics = NativeMetrics()
    with Moving(tmp_path, metrics_collector=metrics).reader as reader:
        in_threads(lambda: [reader.get(key) for key in KEYS * 10], lambda: [reader.multi_get(KEYS) for _ in range(10)])
    counters = metrics.snapshot().counters
    assert counters["reader_gets"] == THREADS * 10 * len(KEYS)
    assert counters["reader_multi_gets"] == THREADS * 10
    assert counters["reader_multi_get_keys"] == THREADS * 10 * len(KEYS)


def test_threads_take_each_token_once() -> None:
    bucket = TokenBucket(1e-6, burst=500)
    assert sum(in_threads(lambda: sum(bool(bucket.try_acquire()) for _ in range(300)))) == 500


def test_one_coroutine_gives_its_result_once() -> None:
    snapshot = _native.open_reader(str(EXAMPLE), {}, 10).wait().snapshot()
    (key, value), *_ = snapshot.scan().next(1).wait()

    class Core(_native.ReaderCore[str]):
        pass

    core = Core()
    core._attach(_native.open_reader(str(EXAMPLE), {}, 10).wait())
    outcomes: Counter[object] = Counter()
    for _ in range(200):
        operation = core.get(key.decode())

        def step(operation: Any = operation) -> object:
            try:
                operation.send(None)
            except StopIteration as end:
                return end.value
            except (RuntimeError, ValueError) as refused:  # it is over, or another thread is in it
                return type(refused)

        outcomes.update(in_threads(step))
    assert outcomes[value] == 200 and outcomes.total() == 200 * THREADS


def test_threads_share_the_rows_of_a_scan(tmp_path: Path) -> None:
    snapshot = _native.open_reader(str(EXAMPLE), {}, 10).wait().snapshot()
    expected = snapshot.scan().next(100_000).wait()
    scan = snapshot.scan()

    def take() -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        while True:
            try:
                step = scan.next(3).wait()
            except ReaderStateError as busy:
                assert "in flight" in str(busy)
                continue
            if not step:
                return rows
            rows += step

    assert sorted(row for rows in in_threads(take) for row in rows) == expected


@pytest.mark.skipif(HAS_GIL, reason="with a GIL a second thread is refused where it meets the first, which is seldom")
@pytest.mark.parametrize("order", ["key", "shard"])
def test_threads_share_what_a_scan_iterates_over(tmp_path: Path, order: Any) -> None:
    with ConcurrentShardedReader(s3_prefix=str(EXAMPLE), local_root=str(tmp_path)) as reader:
        expected = list(reader.scan(order=order))
        for _ in range(50):
            rows = reader.scan(order=order)
            assert sorted(row for taken in in_threads(lambda rows=rows: list(rows)) for row in taken) == sorted(expected)
            batches = reader.scan(order=order).batches(3)
            lists = [some for taken in in_threads(lambda batches=batches: list(batches)) for some in taken]
            assert sorted(row for some in lists for row in some) == sorted(expected)


def test_closing_beside_use_is_refused_or_comes_later() -> None:
    reader = _native.open_reader(str(EXAMPLE), {}, 10).wait()
    for _ in range(50):
        snapshot = reader.snapshot()
        key = snapshot.scan().next(1).wait()[0][0]
        db_id = snapshot.route(key.decode())
        scan = snapshot.scan()

        def use(snapshot: Any = snapshot, scan: Any = scan, key: bytes = key, db_id: int = db_id) -> None:
            for one in (
                lambda: snapshot.get(db_id, key).wait(), lambda: snapshot.try_get(db_id, key), lambda: snapshot.encode_key(key.decode()),
                snapshot.rows, lambda: snapshot.multi_get(db_id, [key]).wait(), lambda: scan.next(5).wait(), snapshot.scan,
            ):  # fmt: skip
                try:
                    one()
                except (ValueError, LookupError) as closed:
                    assert isinstance(closed, LookupError) or "closed" in str(closed) or "given back" in str(closed)
                except ReaderStateError as busy:
                    assert "in flight" in str(busy)

        in_threads(use, lambda snapshot=snapshot, scan=scan: (scan.close(), snapshot.close()), count=2)


def test_event_loops_of_several_threads_share_a_reader(tmp_path: Path) -> None:
    moving = Moving(tmp_path, cache=CacheOptions(memory_bytes=0))

    async def read() -> int:
        reader = AsyncShardedReader.from_sync(moving.reader)
        for _ in range(5):
            values = await asyncio.gather(*(reader.get(key) for key in KEYS))
            assert all(value in ANSWERS[key] for key, value in zip(KEYS, values, strict=True))
            cancelled = asyncio.ensure_future(reader.multi_get(KEYS))
            await asyncio.sleep(0)
            cancelled.cancel()
        await reader.close()
        return 1

    def refresh() -> int:
        for number in range(5):
            moving.point_at(number)
            moving.reader.refresh()
        return 1

    with moving.reader:
        assert sum(in_threads(lambda: asyncio.run(read()), refresh, count=2)) == 4


STARTING = """
import pathlib, sys, threading
from shardyfusion import _native

begin, loops = threading.Barrier(4), []

def first():
    begin.wait(60)
    reader = _native.open_reader(sys.argv[1], {}, 10).wait()
    begin.wait(60)

threads = [threading.Thread(target=first) for _ in range(3)]
for thread in threads:
    thread.start()
begin.wait(60)
begin.wait(60)
print([p.read_text() for p in pathlib.Path("/proc/self/task").glob("*/comm")].count("sf-loop\\n"))
"""


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_that_come_first_together_start_one_engine() -> None:
    assert run(STARTING, str(EXAMPLE)) == "1\n"


@pytest.mark.skipif(HAS_GIL, reason="this interpreter has a GIL")
def test_the_extension_leaves_the_gil_off() -> None:
    assert run("import sys, shardyfusion._native; print(sys._is_gil_enabled())") == "False\n"
