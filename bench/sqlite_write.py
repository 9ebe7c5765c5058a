#!/usr/bin/env python3
"""Rows per second into an SQLite table: ours against sqlite3's executemany with the same settings, from a list of tuples:

    python bench/sqlite_write.py BUILD/bench/sqlite_write

`table` is what executemany does, too: a local file. `shard` is all of it: table, upload to a store in memory, sidecar. In turn,
the best of several runs each. Ratios are those of wall clock and, for it does not depend on what else a machine does, of CPU
time. sqlite3 reads a shard in a folder back."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = [  # rows, value bytes, page bytes
    (1_000_000, 20, 4096),
    (1_000_000, 100, 4096),
    (300_000, 400, 4096),
    (100_000, 2000, 16384),
]
RUNS = 3


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
    program = os.path.abspath(sys.argv[1])
    print(f"{'rows':>9} {'value':>6} {'page':>6} {'table, rows/s':>14} {'shard':>9} {'executemany':>12} {'table wall':>11} "
          f"{'CPU':>5} {'shard CPU':>10}")
    for count, value_bytes, page_bytes in CASES:
        rows = [(i.to_bytes(8, "big"), os.urandom(value_bytes)) for i in range(count)]
        table, shard, python = [], [], []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours(program, folder, name, count, value_bytes, page_bytes)
            read_back(folder / "shard", count, value_bytes, page_bytes)
            for _ in range(RUNS):
                table.append(ours(program, folder, "-", count, value_bytes, page_bytes))
                shard.append(ours(program, folder, "mem://bench/shards", count, value_bytes, page_bytes))
                python.append(theirs(folder, rows, page_bytes))
        wall, cpu = map(min, zip(*table))
        shard_wall, shard_cpu = map(min, zip(*shard))
        python_wall, python_cpu = map(min, zip(*python))
        print(f"{count:>9} {value_bytes:>6} {page_bytes:>6} {count / wall:>14,.0f} {count / shard_wall:>9,.0f} "
              f"{count / python_wall:>12,.0f} {python_wall / wall:>11.1f} {python_cpu / cpu:>5.1f} "
              f"{python_cpu / shard_cpu:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
