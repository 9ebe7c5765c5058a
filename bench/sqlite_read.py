#!/usr/bin/env python3
"""What reading SQLite shards from their copies on disk costs: opening, look-ups, scans, and the check of a copy.

    PYTHONPATH=BUILD/python python bench/sqlite_read.py FOLDER [--rows 1000000] [--bytes 100]

FOLDER gets a snapshot of one shard (once) and the copy of it. Seconds of wall clock for each opening; microseconds per key for
look-ups of random keys, a thousand at once and one by one, and nanoseconds per row for a scan, of processor time of all threads.
The fastest of five."""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.sqlite_adapter import SqliteFactory
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
    reader = ShardedReader(s3_prefix=(folder / "snapshot").as_uri(), local_root=str(folder / "root"), open_timeout=600)
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
    print(f"multi_get {many / 20_000 * 1e6:.2f} us per key, get {one / 5000 * 1e6:.1f} us, scan {scan / args.rows * 1e9:.0f} ns per row")


main()
