#!/usr/bin/env python3
"""What reading SQLite shards costs: opening from a copy on disk, warm look-ups beside Python's `sqlite3` on the same file, a scan.

    PYTHONPATH=BUILD/python python bench/sqlite_read.py FOLDER [--rows 300000] [--bytes 100] [--rounds 7]

FOLDER gets a snapshot of one shard (once) and the copy of it. Opening by the clock; look-ups of random keys and scans by processor time of the
thread and of the process, in turn. One line of JSON a sample."""

from __future__ import annotations

import argparse
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import in_turn, sample
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.sqlite_adapter import SqliteFactory, SqliteReaderFactory
from shardyfusion.writer.python import write_hash_sharded

KEYS = 20_000


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
    return (time.perf_counter() - start) * 1e3, reader


def opened_and_closed(folder: Path) -> float:
    took, reader = opened(folder)
    reader.close()
    return took


def opened_by_another(folder: Path) -> float:
    return float(subprocess.run([sys.executable, __file__, str(folder), "--open"], check=True, capture_output=True, text=True).stdout)


def opening(folder: Path, rounds: int) -> None:
    for _ in range(rounds):
        shutil.rmtree(folder / "root", ignore_errors=True)
        sample("SQLite open", "a copy", "made", "ms", opened_and_closed(folder))
    for _ in range(rounds):
        sample("SQLite open", "a copy", "there, a new process", "ms", opened_by_another(folder))
        sample("SQLite open", "a copy", "there, the same process", "ms", opened_and_closed(folder))


def beside_sqlite3(reader: ShardedReader, copy: Path, case: str, keys: list[int], rounds: int) -> None:
    stored = [reader.encode_key(key) for key in keys]
    plain, cached = sqlite3.connect(copy), sqlite3.connect(copy)
    cached.execute("PRAGMA cache_size = -1000000")

    def asked(db: sqlite3.Connection) -> list[bytes | None]:
        return [db.execute("SELECT v FROM kv WHERE k = ?", (k,)).fetchone()[0] for k in stored]

    ways: dict[str, Callable[[], list[bytes | None]]] = {
        "ours": lambda: [reader.get(key) for key in keys],
        "ours, multi_get of 1,000": lambda: [v for at in range(0, len(keys), 1000) for v in reader.multi_get(keys[at : at + 1000]).values()],
        "sqlite3": lambda: asked(plain),
        "sqlite3, a cache for all": lambda: asked(cached),
    }
    expected = ways["sqlite3"]()
    for who, run in ways.items():
        if run() != expected:
            raise SystemExit(f"{who} finds other values")
    for who, _wall, cpu in in_turn(rounds, ways):
        sample("SQLite get", case, who, "ns", cpu / len(keys))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--open", action="store_true", help="nothing but that, in a process of its own")
    args = parser.parse_args()
    if args.open:
        print(opened_and_closed(args.folder))
        return
    if not (args.folder / "snapshot").exists():
        make(args.folder / "snapshot", args.rows, args.bytes)
    opening(args.folder, min(args.rounds, 5))
    with opened(args.folder)[1] as reader:
        (copy,) = (args.folder / "root" / "sqlite").iterdir()
        sample("SQLite open", "a copy", "size", "MB", copy.stat().st_size / 1e6)
        case = f"{args.bytes}B"
        beside_sqlite3(reader, copy, f"{case} uniform", random.Random(2).sample(range(args.rows), min(KEYS, args.rows)), args.rounds)
        for _ in range(args.rounds):
            start = time.process_time_ns()
            assert sum(1 for _ in reader.scan()) == args.rows
            sample("SQLite scan", f"{case}, in the pages", "copy, forwards", "ns", (time.process_time_ns() - start) / args.rows)


if __name__ == "__main__":
    main()
