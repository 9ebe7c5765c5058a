"""Readers that refresh themselves, what they tell, and watching them. Over the engine's parts and the caller's."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fixtures import case
from plugged import Factory, Store, SyncStore

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, ReaderStateError, ShardedReader, SnapshotInfo
from shardyfusion._storage_errors import ForkedError
from shardyfusion.errors import ManifestParseError, S3TransientError

CASE = case("history-three-runs")
SHORT = 0.005
RUNS = ["run-000", "run-001", "run-002"]


class Snapshots:
    """A prefix whose pointer moves."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder
        shutil.copytree(CASE.folder, folder)
        self._pointer = (folder / "_CURRENT").read_text()

    def point_at(self, run: str) -> None:
        manifest = next((self.prefix / "manifests").glob(f"*_run_id={run}")).name
        old = self._pointer[self._pointer.index("/manifests/") + len("/manifests/") :].split("/")[0]
        self.write(self._pointer.replace(old, manifest))

    def write(self, text: str) -> None:
        (self.prefix / "_NEXT").write_text(text)
        (self.prefix / "_NEXT").rename(self.prefix / "_CURRENT")

    def options(self) -> dict[str, Any]:
        return {"s3_prefix": str(self.prefix)}


class Stored:
    """The same with a manifest store and shards of the caller's."""

    def __init__(self, blocking: bool) -> None:
        self.store = Store()
        for run in RUNS:
            self.store.publish(run)
        self._blocking = blocking

    def point_at(self, run: str) -> None:
        self.store.current = run

    def options(self) -> dict[str, Any]:
        if self._blocking:
            return {"s3_prefix": "any", "manifest_store": SyncStore(self.store), "reader_factory": SyncFactory()}
        return {"s3_prefix": "any", "manifest_store": self.store, "reader_factory": Factory()}


class SyncFactory:
    def __call__(self, **arguments: Any) -> Any:
        return SyncFactory()

    def get(self, key: bytes) -> bytes | None:
        return None

    def close(self) -> None: ...


@pytest.fixture(params=["engine", "own parts"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bool], Any]:
    def snapshots(blocking: bool) -> Any:
        made = Snapshots(tmp_path / "snapshots") if request.param == "engine" else Stored(blocking)
        made.point_at("run-000")
        return made

    return snapshots


def told(seen: list[tuple[str, str]]) -> Callable[[SnapshotInfo, SnapshotInfo], None]:
    return lambda before, now: seen.append((before.run_id, now.run_id))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(SHORT)


async def test_an_async_reader_follows(make: Any, tmp_path: Path) -> None:
    snapshots, seen, awaited = make(False), [], asyncio.Event()
    loop_thread = threading.get_ident()

    async def on_refresh(before: SnapshotInfo, now: SnapshotInfo) -> None:
        assert threading.get_ident() == loop_thread
        seen.append((before.run_id, now.run_id))
        await asyncio.sleep(0)
        awaited.set()

    async with AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), refresh_interval=timedelta(seconds=SHORT), on_refresh=on_refresh,
        **snapshots.options(),
    ) as reader:
        assert reader.snapshot_info().run_id == "run-000"
        for n in (1, 2):
            awaited.clear()
            snapshots.point_at(RUNS[n])
            await asyncio.wait_for(awaited.wait(), 20)
            assert reader.snapshot_info().run_id == RUNS[n]
        assert seen == [("run-000", "run-001"), ("run-001", "run-002")]
        assert reader.health().refresh_failures == 0
        follower = reader._follower
        assert follower is not None and not follower.done()
    await asyncio.wait_for(follower, 20)  # which ends by itself


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_a_blocking_reader_follows(cls: Any, make: Any, tmp_path: Path) -> None:
    snapshots, seen, moved = make(True), [], threading.Semaphore(0)
    threads: list[threading.Thread] = []

    def on_refresh(before: SnapshotInfo, now: SnapshotInfo) -> None:
        seen.append((before.run_id, now.run_id))
        threads.append(threading.current_thread())
        moved.release()

    with cls(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, refresh_jitter=0.5, on_refresh=on_refresh,
        **snapshots.options(),
    ) as reader:
        for n in (1, 2):
            snapshots.point_at(RUNS[n])
            assert moved.acquire(timeout=20)
            assert reader.snapshot_info().run_id == RUNS[n]
        assert seen == [("run-000", "run-001"), ("run-001", "run-002")]
    assert {thread.name for thread in threads} == {"shardyfusion-refresh"}
    threads[0].join(20)
    assert not threads[0].is_alive()


async def test_failures_are_logged_and_counted_and_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = Snapshots(tmp_path / "snapshots")
    snapshots.point_at("run-000")
    seen: list[tuple[str, str]] = []
    caplog.set_level(logging.DEBUG)
    async with AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, on_refresh=told(seen), **snapshots.options()
    ) as reader:
        snapshots.write("{")
        await until(lambda: reader.health().refresh_failures >= 2)
        assert "refresh" in caplog.text
        health = reader.health(staleness_threshold=timedelta(hours=1), by="refresh")
        assert health.last_refresh_error is not None
        assert [r for r in caplog.records if r.getMessage() == "reader_refresh_failed"]
        snapshots.point_at("run-001")
        await until(lambda: bool(seen))
        assert seen == [("run-000", "run-001")]
        health = reader.health()
        assert health.refresh_failures == 0 and health.last_refresh_error is None
        await reader.close()
        assert reader.health().refresh_failures == 0


async def test_a_failure_that_is_counted_is_told(tmp_path: Path) -> None:
    """Health is asked after the engine has counted, and before the task that refreshes has heard of it."""
    snapshots = Snapshots(tmp_path / "snapshots")
    async with AsyncShardedReader.open(local_root=str(tmp_path / "local"), **snapshots.options()) as reader:
        snapshots.write("{")
        refresh = asyncio.create_task(reader.refresh())
        await asyncio.sleep(0)  # it has begun; from here on the loop does not turn
        give_up = time.monotonic() + 60
        while (health := reader.health()).refresh_failures == 0:
            assert time.monotonic() < give_up
        assert not refresh.done() and health.last_refresh_error
        with pytest.raises(ManifestParseError):
            await refresh


async def test_a_store_of_the_callers_that_fails(tmp_path: Path) -> None:
    parts = Stored(False)
    parts.point_at("run-000")
    async with AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, **parts.options()
    ) as reader:
        parts.store.pointer_error = S3TransientError("not now")
        await until(lambda: reader.health().refresh_failures >= 2)
        assert reader.health().last_refresh_error == "not now"
        parts.store.pointer_error = None
        parts.point_at("run-002")
        await until(lambda: reader.snapshot_info().run_id == "run-002")


@pytest.mark.parametrize("kind", ["raises", "raises later"])
async def test_a_callback_that_fails_harms_nothing(
    kind: str, make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = make(False)
    calls: list[str] = []

    async def later() -> None:
        raise RuntimeError("of the callback")

    def on_refresh(before: SnapshotInfo, now: SnapshotInfo) -> Any:
        calls.append(now.run_id)
        if kind == "raises":
            raise RuntimeError("of the callback")
        return later()

    async with AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), on_refresh=on_refresh, **snapshots.options()
    ) as reader:
        snapshots.point_at("run-001")
        assert await reader.refresh() is True
        assert await reader.refresh() is False
        assert calls == ["run-001"]
    assert [r for r in caplog.records if r.getMessage() == "reader_on_refresh_failed"]


async def test_a_callback_may_refresh_and_close(make: Any, tmp_path: Path) -> None:
    snapshots = make(False)
    closed = asyncio.Event()

    async def on_refresh(before: SnapshotInfo, now: SnapshotInfo) -> None:
        assert await reader.refresh() is False
        await reader.close()
        closed.set()

    reader = await AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, on_refresh=on_refresh, **snapshots.options())
    snapshots.point_at("run-001")
    await asyncio.wait_for(closed.wait(), 20)
    await asyncio.wait_for(reader._follower, 20)


async def test_a_callback_that_is_cancelled_ends_nothing(make: Any, tmp_path: Path, caplog: Any) -> None:
    snapshots, seen = make(False), []

    async def on_refresh(_: SnapshotInfo, now: SnapshotInfo) -> None:
        seen.append(now.run_id)
        other = asyncio.ensure_future(asyncio.sleep(3600))
        other.cancel()
        await other

    async with AsyncShardedReader.open(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, on_refresh=on_refresh, **snapshots.options()
    ) as reader:
        for n in (1, 2):
            snapshots.point_at(RUNS[n])
            await until(lambda: seen == RUNS[1 : n + 1])  # noqa: B023
        assert caplog.text.count("reader_on_refresh_failed") >= 1
        reader._follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader._follower


def test_a_callback_that_exits_ends_nothing(make: Any, tmp_path: Path) -> None:
    snapshots, told = make(True), queue.Queue()

    def on_refresh(_: SnapshotInfo, now: SnapshotInfo) -> None:
        told.put(now.run_id)
        sys.exit()

    with ShardedReader(
        local_root=str(tmp_path / "local"), refresh_interval=SHORT, on_refresh=on_refresh, **snapshots.options()
    ):
        for n in (1, 2):
            snapshots.point_at(RUNS[n])
            assert told.get(timeout=20) == RUNS[n]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_amid_a_refresh(make: Any, tmp_path: Path) -> None:
    """What other threads hold is free in the child, whose handles say what they are."""
    snapshots, taken, over = make(True), threading.Event(), threading.Event()
    reader = ConcurrentShardedReader(local_root=str(tmp_path / "local"), **snapshots.options())
    pinned = reader.pin()

    def amid() -> None:
        with reader._refreshing, reader._swapping, reader._state._lock, pinned._swapping:
            taken.set()
            over.wait(60)

    holder = threading.Thread(target=amid)
    holder.start()
    assert taken.wait(20)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            with pytest.raises(ForkedError):
                reader.refresh()
            with pytest.raises(ForkedError):
                next(reader.watch())
            reader.pin().close()
            pinned.close()
            reader.close()
            os._exit(0)
        finally:
            os._exit(1)
    over.set()
    holder.join()
    assert os.waitpid(pid, 0)[1] == 0
    assert reader.refresh() is False
    pinned.close()
    reader.close()


async def test_watching(make: Any, tmp_path: Path) -> None:
    snapshots = make(False)
    reader = await AsyncShardedReader.open(local_root=str(tmp_path / "local"), **snapshots.options())
    watches = [reader.watch(), reader.watch()]
    snapshots.point_at("run-001")
    assert await reader.refresh()
    assert [(await anext(one)).run_id for one in watches] == ["run-001", "run-001"]
    waiting = asyncio.create_task(anext(watches[0]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    snapshots.point_at("run-002")
    assert await reader.refresh()
    assert (await anext(watches[1])).run_id == "run-002"
    waiting = asyncio.create_task(anext(watches[1], None))
    await asyncio.sleep(0)
    await reader.close()
    assert await asyncio.wait_for(waiting, 20) is None
    with pytest.raises(ReaderStateError):
        reader.watch()


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_watching_blocks(cls: Any, make: Any, tmp_path: Path) -> None:
    snapshots = make(True)
    reader = cls(local_root=str(tmp_path / "local"), refresh_interval=SHORT, **snapshots.options())
    watch = reader.watch()
    for run in RUNS[1:]:
        snapshots.point_at(run)
        assert next(watch).run_id == run
    threading.Timer(0.05, reader.close).start()
    assert list(watch) == []
    with pytest.raises(ReaderStateError):
        reader.watch()


def test_what_is_no_schedule(tmp_path: Path) -> None:
    for options, error in (
        ({"refresh_interval": 0}, ValueError), ({"refresh_interval": -5}, ValueError),
        ({"refresh_interval": "5s"}, TypeError), ({"refresh_interval": float("nan")}, ValueError),
        ({"refresh_jitter": 1.5}, ValueError), ({"refresh_jitter": -0.1}, ValueError), ({"refresh_jitter": "0.1"}, TypeError),
        ({"refresh_jitter": float("nan")}, ValueError), ({"on_refresh": 5}, TypeError), ({"snapshot": 5}, TypeError),
    ):
        for cls in (ShardedReader, ConcurrentShardedReader, AsyncShardedReader):
            with pytest.raises(error, match="snapshot" if "snapshot" in options else "refresh|timeout"):
                cls(s3_prefix=CASE.prefix, local_root=str(tmp_path), **options)


def test_what_is_no_number(tmp_path: Path) -> None:
    for wrong, name in ((1.5, "float"), ("3", "str")):
        with pytest.raises(TypeError, match=f"^max_fallback_attempts must be an integer, not {name}$"):
            ShardedReader(s3_prefix=CASE.prefix, local_root=str(tmp_path), max_fallback_attempts=wrong)  # type: ignore[arg-type]


async def test_a_reader_that_is_dropped_ends(make: Any, tmp_path: Path) -> None:
    blocking = ShardedReader(
        local_root=str(tmp_path / "one"), refresh_interval=3600, s3_prefix=CASE.prefix)
    snapshots = make(False)
    reader = await AsyncShardedReader.open(
        local_root=str(tmp_path / "two"), refresh_interval=3600, **snapshots.options())
    refs = [weakref.ref(blocking), weakref.ref(reader)]
    follower = reader._follower
    await asyncio.sleep(0)
    del reader, blocking
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
    await asyncio.wait_for(follower, 20)
    await until(lambda: not any(t.name == "shardyfusion-refresh" for t in threading.enumerate()))


def test_a_program_that_ends_without_closing(tmp_path: Path) -> None:
    code = f"""
import asyncio
from shardyfusion import AsyncShardedReader, ShardedReader
kept = ShardedReader(s3_prefix={CASE.prefix!r}, local_root={str(tmp_path)!r}, refresh_interval=0.01)
async def main():
    global also
    also = await AsyncShardedReader.open(s3_prefix={CASE.prefix!r}, local_root={str(tmp_path)!r}, refresh_interval=0.01)
    await asyncio.sleep(0.05)
asyncio.run(main())
print(kept.get(1) == kept.get(1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
