"""Readers under fire: refresh and close while others read, signals, forks, loops that end early, many of everything."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import FIXTURES, case, typed
from plugged import Limiter

sys.path.insert(0, str(FIXTURES.parent / "support"))

from http_proxy import Proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    ConcurrentShardedReader,
    ReaderStateError,
    StaticCredentialProvider,
)
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory  # noqa: E402
from shardyfusion.testing import ListMetricsCollector  # noqa: E402

HISTORY = case("history-three-runs")
COLD = case("slatedb-multi-l0")
SWITCHES = 200


class OwnFactory(AsyncSlateDbReaderFactory):
    """A subclass may do anything, so the reader puts the snapshot together in Python."""


class Published:
    """A copy of the history whose pointer can be moved."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder
        shutil.copytree(HISTORY.folder, folder)
        self._pointer = (folder / "_CURRENT").read_text()
        self._newest = next(r for r in HISTORY.expected["runs"] if r["run_id"] == HISTORY.expected["current"]["run_id"])
        self.rows = {
            run["run_id"]: {typed(x["key"]): x["value"] and bytes.fromhex(x["value"]) for x in run["lookups"]}
            for run in HISTORY.expected["runs"]
        }
        self.keys = sorted(set().union(*self.rows.values()))

    def move_to(self, index: int) -> None:
        run = HISTORY.expected["runs"][index % len(HISTORY.expected["runs"])]
        text = self._pointer.replace(self._newest["manifest_ref"], run["manifest_ref"])
        new = self.prefix / "_NEW"
        new.write_text(text.replace(self._newest["run_id"], run["run_id"]))
        new.rename(self.prefix / "_CURRENT")

    def belongs_to_one_run(self, found: dict[int, bytes | None]) -> bool:
        return any(all(rows.get(key) == value for key, value in found.items()) for rows in self.rows.values())


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path / "published")


async def test_a_task_that_opens_tells_what_it_does(published: Published, tmp_path: Path) -> None:
    opening = AsyncShardedReader.open(s3_prefix=str(published.prefix), local_root=str(tmp_path / "local"))
    task = asyncio.create_task(opening)
    assert "coro=<AsyncShardedReader.open() " in repr(task)
    await asyncio.sleep(0)
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["_open"]
    await (await task).close()
    assert opening.cr_frame is None and not hasattr(opening, "gi_frame")


@pytest.mark.parametrize(
    "options",
    [
        dict,
        lambda: {"metrics_collector": ListMetricsCollector()},
        lambda: {"rate_limiter": Limiter()},
        lambda: {"reader_factory": OwnFactory()},
    ],
    ids=["engine", "collector", "limiter", "factory"],
)
async def test_refresh_under_fire(published: Published, tmp_path: Path, options: Callable[[], dict[str, Any]]) -> None:
    done = asyncio.Event()
    reads = 0

    async with AsyncShardedReader.open(
        s3_prefix=str(published.prefix), local_root=str(tmp_path / "local"), **options()
    ) as reader:

        async def read(seed: int) -> None:
            nonlocal reads
            chosen = random.Random(seed)
            while not done.is_set():
                keys = chosen.sample(published.keys, 20)
                assert published.belongs_to_one_run(await reader.multi_get(keys))
                assert published.belongs_to_one_run({keys[0]: await reader.get(keys[0])})
                async with reader.reader_for_key(keys[0]) as handle:
                    await asyncio.sleep(0)
                    await handle.get(reader.encode_key(keys[0]))
                rows = [row async for row in reader.scan(limit=10, decode_keys=True)]
                assert published.belongs_to_one_run(dict(rows))
                reads += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(seed)) for seed in range(8)]
            for n in range(SWITCHES):
                published.move_to(n)
                await reader.refresh()
                await asyncio.sleep(0)
                assert not any(task.done() for task in readers)
            done.set()
        assert reads > SWITCHES / 10
        async with asyncio.timeout(60):
            while reader.health().borrowed:
                await asyncio.sleep(0.01)


def test_threads_under_fire(published: Published, tmp_path: Path) -> None:
    errors: list[BaseException] = []
    done = threading.Event()
    reader = ConcurrentShardedReader(s3_prefix=str(published.prefix), local_root=str(tmp_path / "local"))

    def read(seed: int) -> None:
        chosen = random.Random(seed)
        try:
            while not done.is_set():
                keys = chosen.sample(published.keys, 20)
                assert published.belongs_to_one_run(reader.multi_get(keys))
                reader.get(keys[0])
                assert reader.shard_for_key(keys[0]).db_id < 10 and reader.shard_details()
                with reader.reader_for_key(keys[0]) as handle:
                    handle.get(reader.encode_key(keys[0]))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for n in range(SWITCHES):
        published.move_to(n)
        reader.refresh()
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    # and once more, closed while they read
    done.clear()
    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    reader.close()
    for thread in threads:
        thread.join()
    assert {type(error) for error in errors} == {ReaderStateError}
    assert {str(error) for error in errors} == {"Reader is closed"}


async def test_close_under_fire(published: Published) -> None:
    for _ in range(20):
        reader = await AsyncShardedReader.open(s3_prefix=str(published.prefix), local_root="unused")
        work = [asyncio.create_task(reader.multi_get(published.keys)) for _ in range(5)]
        work += [asyncio.create_task(reader.refresh()) for _ in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0)
        await reader.close()
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                assert type(result) is ReaderStateError and str(result) == "Reader is closed"
            elif isinstance(result, dict):
                assert published.belongs_to_one_run(result)


def counts() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def test_many_cycles_leave_nothing_behind(published: Published) -> None:
    async def cycle(n: int) -> None:
        async with AsyncShardedReader.open(s3_prefix=str(published.prefix), local_root="unused") as reader:
            await reader.multi_get(published.keys)
            handle = reader.reader_for_key(n)
            await handle.get(reader.encode_key(n))
            handle.close()

    for n in range(20):
        asyncio.run(cycle(n))
    gc.collect()
    before = counts()
    for n in range(200):
        asyncio.run(cycle(n))
    gc.collect()
    assert counts() == before


async def test_many_readers_of_one_process(published: Published) -> None:
    _, threads = counts()
    readers = await asyncio.gather(*(
        AsyncShardedReader.open(s3_prefix=str(published.prefix), local_root="unused") for _ in range(50)))
    found = await asyncio.gather(*(reader.multi_get(published.keys) for reader in readers))
    assert all(one == found[0] for one in found)
    assert counts()[1] <= threads + 2, "readers share the engine's threads"
    await asyncio.gather(*(reader.close() for reader in readers))


def test_prefork_servers(published: Published) -> None:
    """The master has read; each worker opens a reader of its own."""
    code = f"""
import asyncio, os
from shardyfusion import AsyncShardedReader
async def read():
    async with AsyncShardedReader.open(s3_prefix={str(published.prefix)!r}, local_root="x") as reader:
        return len(await reader.multi_get({published.keys!r}))
assert asyncio.run(read()) == {len(published.keys)}
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if asyncio.run(asyncio.wait_for(read(), 20)) == {len(published.keys)} else 1)
    assert os.waitpid(pid, 0)[1] == 0
assert asyncio.run(read()) == {len(published.keys)}
"""
    # from 3.12 on, Python warns of every fork with threads
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------- with reads in flight


PREAMBLE = f"""
import asyncio, gc, os, signal, sys, threading, time
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from fixtures import case
from shardyfusion import AsyncShardedReader, ShardedReader, StaticCredentialProvider
CASE = case("slatedb-multi-l0")
KEYS = [key for key, _, _ in CASE.lookups]
ARGUMENTS = dict(
    s3_prefix=CASE.expected["s3_prefix"], local_root="x",
    credential_provider=StaticCredentialProvider({ACCESS_KEY!r}, {SECRET_KEY!r}),
    s3_connection_options={{"endpoint_url": sys.argv[1], "region_name": {REGION!r}}})
"""


def run(slow: Proxy, code: str, *, delay_after: str = "opened") -> subprocess.CompletedProcess[str]:
    """Runs a program that prints `opened` when requests are to be held back from then on."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, slow.endpoint], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdin is not None
        line = process.stdout.readline()
        if line.strip() != delay_after:
            process.kill()
            raise AssertionError(line + process.communicate()[1])
        slow.delay = 60.0
        out, err = process.communicate("go\n", timeout=30)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
    finally:
        process.kill()
        process.wait()


def test_the_interpreter_ends_with_reads_in_flight(slow: Proxy) -> None:
    done = run(slow, """
async def main():
    reader = await AsyncShardedReader.open(**ARGUMENTS)
    print("opened", flush=True); sys.stdin.readline()
    tasks = [asyncio.create_task(reader.multi_get(KEYS)) for _ in range(3)]
    await asyncio.sleep(0.1)
    print("pending", sum(not task.done() for task in tasks))
    return reader
loop = asyncio.new_event_loop()
reader = loop.run_until_complete(main())
for task in asyncio.all_tasks(loop):
    task.set_name("left")
    task._log_destroy_pending = False
print("end")
""")
    assert (done.returncode, done.stdout.split()) == (0, ["pending", "3", "end"]), done.stderr


def test_a_loop_that_is_closed_early(slow: Proxy) -> None:
    done = run(slow, """
reader = None
async def open_it():
    global reader
    reader = await AsyncShardedReader.open(**ARGUMENTS)
asyncio.run(open_it())
print("opened", flush=True); sys.stdin.readline()
for _ in range(3):
    loop = asyncio.new_event_loop()
    task = loop.create_task(reader.multi_get(KEYS))
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    del task, loop
    gc.collect()
async def later():
    try:
        await reader.multi_get(KEYS, timeout=0.05)
    except TimeoutError:
        print("timeout")
    await reader.close()
asyncio.run(later())
print("end")
""")
    assert (done.returncode, done.stdout.split()) == (0, ["timeout", "end"]), done.stderr
    assert "Traceback" not in done.stderr


def test_asyncio_run_cancels_what_is_in_flight(slow: Proxy) -> None:
    done = run(slow, """
async def main():
    reader = await AsyncShardedReader.open(**ARGUMENTS)
    print("opened", flush=True); sys.stdin.readline()
    tasks = [asyncio.create_task(reader.multi_get(KEYS)) for _ in range(3)]
    tasks.append(asyncio.create_task(reader.refresh()))
    await asyncio.sleep(0.05)
    return tasks
tasks = asyncio.run(main())
print("end", sum(task.cancelled() for task in tasks))
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["end", "4"], "")


@pytest.mark.parametrize("call", ["reader.multi_get(KEYS)", "reader.refresh()"])
def test_control_c_during_a_blocking_read(slow: Proxy, call: str) -> None:
    done = run(slow, f"""
reader = ShardedReader(**ARGUMENTS)
print("opened", flush=True); sys.stdin.readline()
try:
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    {call}
except KeyboardInterrupt:
    print("interrupted")
reader.close()
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["interrupted"], "")


def test_a_reader_that_is_dropped_with_reads_in_flight(slow: Proxy) -> None:
    done = run(slow, """
async def main():
    reader = await AsyncShardedReader.open(**ARGUMENTS)
    print("opened", flush=True); sys.stdin.readline()
    task = asyncio.create_task(reader.multi_get(KEYS))
    await asyncio.sleep(0.05)
    del reader
    gc.collect()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled")
asyncio.run(main())
gc.collect()
print("end")
""")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["cancelled", "end"], "")


async def test_a_signal_handler_may_cancel(slow: Proxy) -> None:
    reader = await AsyncShardedReader.open(
        s3_prefix=COLD.expected["s3_prefix"], local_root="unused",
        credential_provider=StaticCredentialProvider(ACCESS_KEY, SECRET_KEY),
        s3_connection_options={"endpoint_url": slow.endpoint, "region_name": REGION})
    async with reader:
        slow.delay = 60.0
        task = asyncio.create_task(reader.refresh())
        await asyncio.sleep(0.05)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, task.cancel)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 60)
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
