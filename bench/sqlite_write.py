#!/usr/bin/env python3
"""Rows per second into an SQLite table: ours against sqlite3's executemany with the same settings, from a list of tuples:

    python bench/sqlite_write.py BUILD/bench/sqlite_write [--rows 300000] [--rounds 3]

`table` is what executemany does, too: a local file. `shard` is all of it: table, upload to a store in memory, sidecar. In turn, by the
clock and, for it does not depend on what else a machine does, by processor time. sqlite3 reads a shard in a folder back. One line of
JSON a sample."""

import argparse
import os
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

from common import sample

CASES = [(1, 100, 4096), (10, 2000, 16384)]  # so many fewer rows, value bytes, page bytes


def ours(program: str, folder: Path, url: str, rows: int, value_bytes: int, page_bytes: int) -> tuple[float, float]:
    command = [program, folder, url, str(rows), str(value_bytes), str(page_bytes)]
    seconds, cpu = subprocess.run(command, check=True, capture_output=True).stdout.split()
    return float(seconds), float(cpu)


def read_back(shard: Path, rows: int, value_bytes: int, page_bytes: int) -> None:
    connection = sqlite3.connect(f"file:{shard}/shard.db?immutable=1", uri=True)
    found = connection.execute("SELECT count(*), sum(length(v)), min(k), max(k) FROM kv").fetchone()
    assert connection.execute("PRAGMA page_size").fetchone() == (page_bytes,)
    connection.close()
    assert found == (rows, rows * value_bytes, bytes(8), (rows - 1).to_bytes(8, "big")), found
    assert sorted(path.name for path in shard.iterdir()) == ["shard.db", "shard.sidecar"]
    for path in list(shard.iterdir()):
        path.unlink()


def theirs(folder: Path, rows: list[tuple[bytes, bytes]], page_bytes: int) -> tuple[float, float]:
    path = folder / "python.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in (f"page_size={page_bytes}", "journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
        connection.execute(f"PRAGMA {pragma}")
    start, cpu = time.perf_counter(), time.process_time()
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID")
    connection.executemany("INSERT INTO kv VALUES (?, ?)", rows)
    connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    connection.close()
    path.unlink()
    return seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    for fewer, value_bytes, page_bytes in CASES:
        count = args.rows // fewer
        rows = [(i.to_bytes(8, "big"), os.urandom(value_bytes)) for i in range(count)]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours(program, folder, name, count, value_bytes, page_bytes)
            read_back(folder / "shard", count, value_bytes, page_bytes)
            for _ in range(args.rounds):
                for who, (seconds, cpu) in (
                    ("table", ours(program, folder, "-", count, value_bytes, page_bytes)),
                    ("shard", ours(program, folder, "mem://bench/shards", count, value_bytes, page_bytes)),
                    ("executemany", theirs(folder, rows, page_bytes)),
                ):
                    sample("SQLite write", f"{value_bytes}B", who, "rows/s", count / seconds)
                    sample("SQLite write, processor", f"{value_bytes}B", who, "ns a row", cpu / count * 1e9)


if __name__ == "__main__":
    main()
