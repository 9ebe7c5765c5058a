"""Readers at work for minutes, over a real S3 server behind a front that injects faults at random, with a refresh every
second: every value is checked, and threads, descriptors and memory must stay where they were.

    PYTHONPATH=build-python/python .venv/bin/python tests/soak/soak.py [--seconds 600] [--seed 1] [--cycles 200]

The servers run in a process of their own, so that what is measured is the readers'. Prints a line every 30 s and a
verdict; the exit code is 0 only when the verdict is good. Not a part of `make test`.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "python")]

from fault_server import LOG_TARGET, PLAN_TARGET, Fault  # noqa: E402
from fixtures import FIXTURES, case, typed  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    ConcurrentShardedReader,
    S3TransientError,
    ShardedReader,
)
from shardyfusion._engine import native  # noqa: E402
from shardyfusion.errors import (  # noqa: E402
    DbAdapterError,
    ManifestParseError,
    ManifestStoreError,
    OperationTimeoutError,
)

HISTORY = case("history-three-runs")
RUNS = HISTORY.expected["runs"]
ROWS = {run["run_id"]: {typed(x["key"]): x["value"] and bytes.fromhex(x["value"]) for x in run["lookups"]} for run in RUNS}
KEYS = sorted(set().union(*ROWS.values()))
ASYNC_TASKS, THREADS = 4, 3
TIMEOUT = 15.0  # of every call that takes one
SAMPLE_EVERY = 30.0
# Between the first sample, when everything has been used for a while, and the last. Descriptors are connections, most of
# all: how many are open depends on the last faults, but not on how long it has been going on.
MAX_MORE_THREADS, MAX_MORE_DESCRIPTORS, MAX_MORE_RSS = 0, 24, 16 << 20
MAX_CALL_SECONDS = 2 * TIMEOUT

# What networks and servers do. Most of it retries mend; what lasts until the next plan they may not.
KINDS: list[dict[str, Any]] = [
    {"latency": 0.1}, {"latency": 0.4}, {"stall": -1}, {"stall": 10}, {"reset": -1}, {"reset": 7}, {"short": 20},
    {"length": 9}, {"length": -3}, {"garbage": True}, {"close": True}, {"twice": True}, {"status": 500},
    {"status": 503, "code": "SlowDown"}, {"status": 429, "retry_after": 0},
    {"match": "list-type", "corrupt": 0}, {"match": "compacted", "corrupt": 40},
]
WHERE = ("", "", "_CURRENT", "manifest", ".sst", "list-type")
# A pointer that lost its end, whose length says so too, looks published that way.
ALLOWED = (S3TransientError, OperationTimeoutError, DbAdapterError, ManifestStoreError, ManifestParseError)


class WrongValue(AssertionError):
    pass


def check(found: dict[int, bytes | None]) -> None:
    """All of one snapshot, and as it was published."""
    if not any(all(rows.get(key) == value for key, value in found.items()) for rows in ROWS.values()):
        raise WrongValue(sorted(found))


@dataclasses.dataclass(frozen=True)
class Sample:
    threads: int
    descriptors: int
    rss: int

    @classmethod
    def now(cls) -> Sample:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")) - 1, pages * os.sysconf("SC_PAGE_SIZE"))

    def __str__(self) -> str:
        return f"threads {self.threads}, descriptors {self.descriptors}, rss {self.rss / 2**20:.1f} MiB"


class Front:
    """The fault server's own address."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.requests = self.faults = 0

    def plan(self, *faults: Fault) -> None:
        """Another plan; what the last one did is counted."""
        with self._open(self._endpoint + LOG_TARGET, timeout=30) as reply:
            done = json.load(reply)["requests"]
        self.requests += len(done)
        self.faults += sum(r["fault"] is not None for r in done)
        body = json.dumps([dataclasses.asdict(f) for f in faults]).encode()
        with self._open(urllib.request.Request(self._endpoint + PLAN_TARGET, data=body, method="PUT"), timeout=30):
            pass


class Soak:
    def __init__(self, seed: int) -> None:
        env = os.environ
        self.rng = random.Random(seed)
        self.front = Front(env["SF_TEST_FRONT_ENDPOINT"])
        self.arguments: dict[str, Any] = {
            "s3_prefix": HISTORY.expected["s3_prefix"], "local_root": "unused",
            "s3_connection_options": {"endpoint_url": env["SF_TEST_FRONT_ENDPOINT"], "read_timeout": 0.5, "max_attempts": 4},
        }
        # the publisher's way to the bucket has no faults
        self._bucket = native.Store("s3://bucket", {"endpoint_url": env["SF_TEST_S3_ENDPOINT"]})
        self._pointer = (HISTORY.folder / "_CURRENT").read_text()
        self._newest = HISTORY.expected["current"]
        self.moves = 0
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.counts: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.bad: list[str] = []
        self.longest = 0.0

    # ------------------------------------------------------------------ bookkeeping

    def is_bad(self, what: str) -> None:
        self.bad.append(what)
        print(f"        BAD {what}", flush=True)

    @contextlib.contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Counts it. The failures that faults may cause are counted apart; any other ends in the verdict."""
        start = time.monotonic()
        try:
            yield
        except ALLOWED as error:
            with self.lock:
                if isinstance(error, (FileNotFoundError, PermissionError)):
                    self.is_bad(f"{what}: {error!r}")
                self.errors[f"{what}: {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the verdict says it
            with self.lock:
                self.is_bad(f"{what}: {error!r}")
        else:
            with self.lock:
                self.counts[what] += 1
        finally:
            with self.lock:
                self.longest = max(self.longest, time.monotonic() - start)

    def move_pointer(self) -> str:
        self.moves += 1
        run = RUNS[self.moves % len(RUNS)]
        text = self._pointer.replace(self._newest["manifest_ref"], run["manifest_ref"])
        text = text.replace(self._newest["run_id"], run["run_id"])
        _, key = native.split_url(self.arguments["s3_prefix"] + "/_CURRENT")
        self._bucket.put(key, text.encode(), timeout=30).wait()
        return run["run_id"]

    def random_faults(self) -> list[Fault]:
        faults = []
        for _ in range(self.rng.randrange(4)):
            kind = self.rng.choice(KINDS)
            times = -1 if self.rng.random() < 0.15 else self.rng.randrange(1, 4)
            faults.append(Fault(**{"match": self.rng.choice(WHERE), **kind}, skip=self.rng.randrange(8), times=times))
        return faults

    # ------------------------------------------------------------------ who works

    async def read_async(self, reader: AsyncShardedReader, seed: int) -> None:
        rng = random.Random(seed)
        while not self.done.is_set():
            keys = rng.sample(KEYS, 20)
            with self.watched("async multi_get"):
                check(await reader.multi_get(keys, timeout=TIMEOUT))
            with self.watched("async get"):
                check({keys[0]: await reader.get(keys[0], timeout=TIMEOUT)})
            with self.watched("async scan"):
                check(dict([row async for row in reader.scan(limit=10, decode_keys=True)]))
            await asyncio.sleep(0.02)

    async def refresh_async(self, reader: AsyncShardedReader) -> None:
        while not self.done.is_set():
            with self.watched("async refresh"):
                await reader.refresh(timeout=TIMEOUT)
            await asyncio.sleep(1)

    async def visit(self) -> None:
        """Readers that come and go: with each, everything is read from storage anew."""
        while not self.done.is_set():
            with self.watched("open, read, close"):
                async with AsyncShardedReader.open(**self.arguments, timeout=TIMEOUT) as reader:
                    check(await reader.multi_get(KEYS, timeout=TIMEOUT))
            await asyncio.sleep(0.25)

    def read_in_thread(self, reader: ConcurrentShardedReader, seed: int) -> None:
        rng = random.Random(seed)
        while not self.done.wait(0.02):
            keys = rng.sample(KEYS, 20)
            with self.watched("threads multi_get"):
                check(reader.multi_get(keys, timeout=TIMEOUT))
            with self.watched("threads handle"), reader.reader_for_key(keys[0]) as handle:
                check({keys[0]: handle.get(reader.encode_key(keys[0]))})

    def read_sync(self, reader: ShardedReader, seed: int) -> None:
        """One thread for reads and refreshes, in turn."""
        rng = random.Random(seed)
        while not self.done.is_set():
            with self.watched("sync refresh"):
                reader.refresh(timeout=TIMEOUT)
            until = time.monotonic() + 1
            while time.monotonic() < until and not self.done.wait(0.02):
                with self.watched("sync multi_get"):
                    check(reader.multi_get(rng.sample(KEYS, 20), timeout=TIMEOUT))

    def direct(self, reader: ConcurrentShardedReader) -> None:
        """Every second other faults, another snapshot, a refresh."""
        while not self.done.wait(1):
            self.front.plan(*self.random_faults())
            with self.watched("move of the pointer"):
                self.move_pointer()
            with self.watched("threads refresh"):
                reader.refresh(timeout=TIMEOUT)

    # ------------------------------------------------------------------ all of it

    def opened(self) -> tuple[AsyncShardedReader, ConcurrentShardedReader, ShardedReader]:
        async def first() -> AsyncShardedReader:
            return await AsyncShardedReader.open(**self.arguments)

        return asyncio.run(first()), ConcurrentShardedReader(**self.arguments), ShardedReader(**self.arguments)

    def run(self, seconds: float) -> tuple[Sample, Sample]:
        first, shared, single = self.opened()
        jobs: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(self.direct, (shared,)), (self.read_sync, (single, 100))]
        jobs += [(self.read_in_thread, (shared, 200 + n)) for n in range(THREADS)]
        threads = [threading.Thread(target=job, args=arguments, daemon=True) for job, arguments in jobs]
        for thread in threads:
            thread.start()
        before, after = asyncio.run(self._work(first, seconds))
        for thread in threads:
            thread.join(4 * TIMEOUT)
            if thread.is_alive():
                self.is_bad("a thread hangs")
        self.front.plan()
        for _ in RUNS:
            self._recovered(first, shared, single, self.move_pointer())
        asyncio.run(first.close())
        shared.close()
        single.close()
        return before, after

    async def _work(self, reader: AsyncShardedReader, seconds: float) -> tuple[Sample, Sample]:
        start = time.monotonic()
        settled: Sample | None = None
        async with asyncio.TaskGroup() as tasks:
            for n in range(ASYNC_TASKS):
                tasks.create_task(self.read_async(reader, n))
            tasks.create_task(self.refresh_async(reader))
            tasks.create_task(self.visit())
            while (gone := time.monotonic() - start) < seconds:
                await asyncio.sleep(min(SAMPLE_EVERY, seconds / 10, seconds - gone))
                gc.collect()
                sample = Sample.now()
                self.report(time.monotonic() - start, sample)
                settled = settled or sample
            self.done.set()
        assert settled is not None
        return settled, sample

    def _recovered(self, first: AsyncShardedReader, shared: ConcurrentShardedReader, single: ShardedReader, run: str) -> None:
        """Without faults, every reader arrives at the snapshot and answers every key."""
        async def arrive() -> None:
            await first.refresh()
            if await first.multi_get(KEYS) != {key: ROWS[run].get(key) for key in KEYS}:
                self.is_bad(f"after the faults: async reader, {run}")

        asyncio.run(arrive())
        for reader in (shared, single):
            reader.refresh()
            if reader.multi_get(KEYS) != {key: ROWS[run].get(key) for key in KEYS}:
                self.is_bad(f"after the faults: {type(reader).__name__}, {run}")
        borrowed = [reader.health().borrowed for reader in (first, shared, single)]
        if any(borrowed):
            self.is_bad(f"still borrowed: {borrowed}")

    def report(self, gone: float, sample: Sample) -> None:
        with self.lock:
            done, failed = sum(self.counts.values()), sum(self.errors.values())
        stats = native.runtime_stats()
        print(f"{gone:6.0f} s  {sample}, {done} calls, {failed} failed by faults, {len(self.bad)} wrong; "
              f"{stats['requests']} requests, {stats['retries']} retries, cache {stats['cache_bytes'] / 2**20:.1f} MiB",
              flush=True)

    def cycles(self, count: int) -> tuple[Sample, Sample]:
        async def cycle() -> None:
            async with AsyncShardedReader.open(**self.arguments) as reader:
                check(await reader.multi_get(KEYS))

        def several(n: int) -> Sample:
            for _ in range(n):
                with self.watched("cycle"):
                    asyncio.run(cycle())
            gc.collect()
            return Sample.now()

        return several(20), several(count)


def grew(what: str, before: Sample, after: Sample) -> list[str]:
    print(f"{what}: {before}\n{' ' * len(what)}  {after}")
    return [
        f"{what}: {name} grew from {getattr(before, name)} to {getattr(after, name)}"
        for name, bound in (("threads", MAX_MORE_THREADS), ("descriptors", MAX_MORE_DESCRIPTORS), ("rss", MAX_MORE_RSS))
        if getattr(after, name) - getattr(before, name) > bound
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=200, help="open, read, close, without faults, at the end")
    options = parser.parse_args()
    if "SF_TEST_FRONT_ENDPOINT" not in os.environ:  # once more, with the servers around
        return subprocess.run([sys.executable, ROOT / "tests" / "support" / "fault_server.py", "--fixtures", FIXTURES, "--",
                               sys.executable, __file__, *sys.argv[1:]], check=False).returncode
    soak = Soak(options.seed)
    before, after = soak.run(options.seconds)
    wrong = grew("under faults", before, after) + grew(f"{options.cycles} cycles", *soak.cycles(options.cycles)) + soak.bad
    if soak.longest > MAX_CALL_SECONDS:
        wrong.append(f"a call took {soak.longest:.1f} s")
    print("ended well:", ", ".join(f"{what} {n}" for what, n in sorted(soak.counts.items())))
    print("failed by faults:", ", ".join(f"{what} {n}" for what, n in sorted(soak.errors.items())) or "none")
    print(f"{soak.front.faults} faults in {soak.front.requests} requests, {soak.moves} moves of the pointer, longest call "
          f"{soak.longest:.1f} s")
    print(f"seed {options.seed}: " + ("good" if not wrong else "BAD\n" + "\n".join(wrong[:50])))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
