#!/usr/bin/env python3
"""What reading SQLite shards from their copies on disk costs: opening, look-ups, scans, and the check of a copy.

    PYTHONPATH=BUILD/python python bench/sqlite_read.py FOLDER [--rows 1000000] [--bytes 100]

FOLDER gets a snapshot of one shard (once) and the copy of it. Seconds of wall clock for each opening; microseconds per key for
look-ups of random keys, a thousand at once and one by one, and nanoseconds per row for a scan, of processor time of all threads.
The fastest of five. Then warm look-ups beside Python's `sqlite3` on the same file, in turn, of processor time of the thread."""

from __future__ import annotations

import argparse
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.sqlite_adapter import SqliteFactory, SqliteReaderFactory
from shardyfusion.writer.python import write_hash_sharded


def make(folder: Path, rows: int, size: int) -> None:
    value = random.Random(1).randbytes(size)
    write_hash_sharded(
        ((n, value) for n in range(rows)),
        HashShardedWriteConfig(num_dbs=1, s3_prefix=folder.as_uri(), adapter_factory=SqliteFactory()),
        PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1]),
    )


def opened(folder: Path) -> tuple[float, ShardedReader]:
    start = time.perf_counter()
    reader = ShardedReader(
        s3_prefix=(folder / "snapshot").as_uri(),
        local_root=str(folder / "root"),
        reader_factory=SqliteReaderFactory(),
        open_timeout=600,
    )
    return time.perf_counter() - start, reader


def best(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    times = []
    for _ in range(5):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def open_in_new_process(folder: Path) -> float:
    out = subprocess.run([sys.executable, __file__, str(folder), "--open"], check=True, capture_output=True, text=True).stdout
    return float(out)


def beside_sqlite3(reader: ShardedReader, copy: Path, keys: list[int]) -> None:
    stored = [reader.encode_key(key) for key in keys]
    db = sqlite3.connect(copy)
    ways: dict[str, Callable[[], list[bytes | None]]] = {
        "get": lambda: [reader.get(key) for key in keys],
        "multi_get of 1,000": lambda: [v for at in range(0, len(keys), 1000) for v in reader.multi_get(keys[at : at + 1000]).values()],
        "sqlite3": lambda: [db.execute("SELECT v FROM kv WHERE k = ?", (k,)).fetchone()[0] for k in stored],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for settings in "", " with a cache for all of it":
        if settings:
            db.execute("PRAGMA cache_size = -1000000")
            ways = {"sqlite3" + settings: ways["sqlite3"]}
            times["sqlite3" + settings] = []
            ways["sqlite3" + settings]()
        elif ways["get"]() != ways["sqlite3"]():
            raise SystemExit("values differ")
        for _ in range(11):
            for name, run in ways.items():
                start = time.thread_time()
                run()
                times[name].append((time.thread_time() - start) / len(keys) * 1e6)
    print("warm: " + ", ".join(f"{name} {min(each):.2f} us ({statistics.median(each):.2f})" for name, each in times.items()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--open", action="store_true")
    args = parser.parse_args()
    if args.open:
        seconds, reader = opened(args.folder)
        reader.close()
        print(seconds)
        return
    if not (args.folder / "snapshot").exists():
        make(args.folder / "snapshot", args.rows, args.bytes)
    shutil.rmtree(args.folder / "root", ignore_errors=True)
    download, reader = opened(args.folder)
    (copy,) = (args.folder / "root" / "sqlite").iterdir()
    megabytes = copy.stat().st_size / 1e6
    print(f"copy of {megabytes:.0f} MB; download and open {download:.3f} s ({megabytes / download:.0f} MB/s)")
    checked = min(open_in_new_process(args.folder) for _ in range(5))
    reader.close()
    opened(args.folder)[1].close()
    again = best(lambda: opened(args.folder)[1].close(), time.perf_counter)
    print(f"open in a new process {checked:.4f} s ({megabytes / checked:.0f} MB/s), in the same one {again:.4f} s")
    keys = random.Random(2).sample(range(args.rows), 20_000)
    with opened(args.folder)[1] as reader:
        batches = [keys[at : at + 1000] for at in range(0, len(keys), 1000)]
        many = best(lambda: [reader.multi_get(batch) for batch in batches])
        one = best(lambda: [reader.get(key) for key in keys[:5000]])
        scan = best(lambda: sum(1 for _ in reader.scan()))
        beside_sqlite3(reader, copy, keys)
    print(f"multi_get {many / 20_000 * 1e6:.2f} us per key, get {one / 5000 * 1e6:.1f} us, scan {scan / args.rows * 1e9:.0f} ns per row")


main()
