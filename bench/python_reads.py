"""Look-ups and scans in Python over the data set of bench/lookups.c: ours beside the real `slatedb` wheel, `sqlite3`, a dict, and what any client would
have to do (bench/floor.c), in turn, in one process.

    PYTHONPATH=WHEEL:BUILD/python:BUILD/bench python bench/python_reads.py FOLDER NAME [--rounds N]

The wheel reads one of our shards, a copy of it, and is asked for that shard's keys only. Times are the thread's processor time; beside the wheel, whose work is
done by other threads, and with several threads, they are by the clock. The wheel's turn comes first and what
takes little memory next, so that ours does not begin with a processor's caches full of what the wheel has left there.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import floor  # bench/floor.c
import slatedb.uniffi as slatedb
from common import Clocks, begins_with, in_turn, keys_of, sample, tell

from shardyfusion import AsyncShardedReader, ConcurrentShardedReader, ShardedReader

LOOK_UPS, WHEEL_LOOK_UPS = 50_000, 2_000
WHEEL_ROWS, WHEEL_BATCH = 5_000, 10_000


async def each(get: Callable[[Any], Awaitable[object]], keys: list[Any]) -> None:
    for key in keys:
        await get(key)


async def open_wheel(shard: Path) -> Any:
    return await slatedb.DbReaderBuilder(str(shard).lstrip("/"), slatedb.ObjectStore.resolve("file:///")).build()


def whole(wheel: Any) -> Awaitable[Any]:
    return wheel.scan(slatedb.KeyRange(start=None, start_inclusive=True, end=None, end_inclusive=True))


async def by_next(wheel: Any) -> int:
    rows, count = await whole(wheel), 0
    while count < WHEEL_ROWS and await rows.next():
        count += 1
    return count


async def by_batches(wheel: Any) -> int:
    rows, count = await whole(wheel), 0
    while batch := await rows.next_batch(WHEEL_BATCH):
        count += len(batch)
    return count


async def asynchronous(folder: Path, root: Path, name: str, rows: int, table: dict[int, bytes], rounds: int) -> None:
    with ShardedReader(s3_prefix=folder.as_uri(), local_root=str(root)) as beside:
        reader = AsyncShardedReader.from_sync(beside)
        for key in table:
            if not begins_with(await reader.get(key), key):
                raise SystemExit(f"wrong value for key {key}")
        shard = reader.shard_details()[0]
        copy = root / "copy"
        source = next(folder.glob(f"shards/run_id=*/db={shard.db_id:05d}/attempt=00"))
        shutil.copytree(source, copy)
        wheel = await open_wheel(copy)
        value_bytes = len(table[0])

        for distribution in ("uniform", "hot", "zipf", "absent"):
            keys, case = keys_of(distribution, rows, LOOK_UPS), f"{name} {distribution}"
            stored = [reader.encode_key(k) for k in keys if reader.route_key(k) == shard.db_id][:WHEEL_LOOK_UPS]
            counts = [value_bytes] * len(keys)
            tell(f"await get, {case}")
            for round in range(rounds + 1):
                for who, get, asked in (("wheel", wheel.get, stored), ("floor", floor.get, counts), ("ours", reader.get, keys)):
                    clocks = Clocks()
                    await each(get, asked)
                    wall, cpu = clocks.stop()
                    if round and who != "wheel":
                        sample("await get", case, who, "ns", cpu / len(asked))
                    if round and who != "floor":
                        sample("await get, by the clock", case, who, "ns", wall / len(asked))
        for count in (1_000, 10_000):
            for distribution in ("uniform", "hot"):
                case = f"{name} {distribution}"
                batches = [keys_of(distribution, rows, count, seed) for seed in range(LOOK_UPS // count)]
                stored = [reader.encode_key(k) for b in batches for k in b if reader.route_key(k) == shard.db_id]
                stored = stored[:count]
                tell(f"multi_get({count}), {case}")

                def at_once(who: str, look_up: Callable[[list[int]], object], batches: list[list[int]] = batches) -> tuple[str, float, float]:
                    clocks = Clocks()
                    for batch in batches:
                        look_up(batch)
                    wall, cpu = clocks.stop()
                    return who, wall / LOOK_UPS, cpu / LOOK_UPS

                for round in range(rounds + 1):
                    clocks = Clocks()
                    await asyncio.gather(*map(wheel.get, stored))
                    turns = [("wheel, gather", clocks.stop()[0] / len(stored), 0.0)]
                    turns.append(at_once("dict loop", lambda batch: {key: table.get(key) for key in batch}))
                    turns.append(at_once("floor", lambda batch: floor.multi_get(batch, value_bytes)))
                    clocks = Clocks()
                    for batch in batches:
                        await reader.multi_get(batch)
                    wall, cpu = clocks.stop()
                    turns.append(("ours", wall / LOOK_UPS, cpu / LOOK_UPS))
                    turns.append(at_once("ours, blocking", beside.multi_get))
                    for who, wall, cpu in turns if round else []:
                        if who != "wheel, gather":
                            sample(f"multi_get({count})", case, who, "ns", cpu)
                        if who in ("ours", "wheel, gather"):
                            sample(f"multi_get({count}), by the clock", case, who, "ns", wall)
        tell("scans by the wheel")
        for round in range(max(2, rounds // 2) + 1):
            for who, scanned in (("wheel, next", by_next(wheel)), ("wheel, next_batch", by_batches(wheel))):
                clocks = Clocks()
                count = await scanned
                if round:
                    sample("scan in Python", name, who, "rows/s", count / clocks.stop()[0] * 1e9)
        await wheel.shutdown()


def make_sqlite(file: Path, reader: ShardedReader[Any]) -> sqlite3.Connection:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID")
    connection.executemany("INSERT INTO kv VALUES (?, ?)", reader.scan())
    connection.commit()
    connection.execute(f"PRAGMA cache_size = -{4 << 20}")
    return connection


def blocking(folder: Path, root: Path, name: str, rows: int, table: dict[int, bytes], rounds: int) -> None:
    with ShardedReader(s3_prefix=folder.as_uri(), local_root=str(root)) as reader:
        database = make_sqlite(root / "rows.sqlite", reader)

        def ours(keys: list[int]) -> None:
            for key in keys:
                reader.get(key)

        def of_sqlite(keys: list[int]) -> None:
            for key in keys:
                database.execute("SELECT v FROM kv WHERE k = ?", (key.to_bytes(8, "big"),)).fetchone()

        def of_dict(keys: list[int]) -> None:
            for key in keys:
                table.get(key)

        ours(list(table))
        for distribution in ("uniform", "hot", "zipf", "absent"):
            keys, case = keys_of(distribution, rows, LOOK_UPS), f"{name} {distribution}"
            tell(f"get, {case}")
            ways = {"ours": lambda: ours(keys), "sqlite3": lambda: of_sqlite(keys), "dict": lambda: of_dict(keys)}
            for who, _, cpu in in_turn(rounds, ways):
                sample("get in Python", case, who, "ns", cpu / LOOK_UPS)
        tell("scans")
        scans: dict[str, Callable[[], int]] = {
            "rows": lambda: sum(1 for _ in reader.scan()),
            "batches": lambda: sum(batch.num_rows for batch in reader.scan().arrow_batches()),
            "sqlite3, rows": lambda: sum(1 for _ in database.execute("SELECT k, v FROM kv")),
        }
        for who, wall, _ in in_turn(max(2, rounds // 2), scans):
            sample("scan in Python", name, who, "rows/s", rows / wall * 1e9)
        database.close()

    with ConcurrentShardedReader(s3_prefix=folder.as_uri(), local_root=str(root)) as shared:
        keys = keys_of("uniform", rows, LOOK_UPS)
        shared.multi_get(list(table))

        def hammer() -> None:
            for key in keys:
                shared.get(key)

        def by(count: int) -> None:
            threads = [threading.Thread(target=hammer) for _ in range(count)]
            began = time.process_time_ns()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent.append((time.process_time_ns() - began) / count / LOOK_UPS)

        tell("get by threads")
        spent: list[float] = []
        for who, wall, _ in in_turn(rounds, {f"{n} threads": lambda n=n: by(n) for n in (1, 2, 4)}):
            sample("get in Python, by threads", f"{name} uniform", who, "M/s", int(who.split()[0]) * LOOK_UPS / wall * 1e3)
            sample("get in Python, by threads, processor", f"{name} uniform", who, "ns", spent[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder = (args.folder / "snapshot").resolve()
    with tempfile.TemporaryDirectory(dir=args.folder) as root:
        with ShardedReader(s3_prefix=folder.as_uri(), local_root=root) as reader:
            table = {int.from_bytes(key, "big"): value for key, value in reader.scan()}
        asyncio.run(asynchronous(folder, Path(root).resolve(), args.name, len(table), table, args.rounds))
        blocking(folder, Path(root), args.name, len(table), table, args.rounds)


main()
