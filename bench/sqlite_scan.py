#!/usr/bin/env python3
"""Scans of SQLite shards whose rows do not fit into their pages, by ranges of the object and from a copy, in both directions:

    PYTHONPATH=BUILD/python python bench/sqlite_scan.py [MB]

One shard below a temporary folder. Processor seconds of the whole process, the least of several rounds in turn."""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader, WriterOutputConfig
from shardyfusion.config import KeyValueWriteConfig
from shardyfusion.reader import AutoReaderFactory
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.writer.python import write_hash_sharded

ROUNDS = 3


def scanned(reader: ShardedReader, rows: int, value_bytes: int, reverse: bool) -> float:
    start, found, size = time.process_time(), 0, 0
    for batch in reader.scan(reverse=reverse).batches(1000):
        found += len(batch)
        size += sum(len(value) for _, value in batch)
    assert (found, size) == (rows, rows * value_bytes)
    return time.process_time() - start


def main() -> None:
    total = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 77_000_000
    print(f"{'value':>7} {'rows':>8}  ranges, forwards / backwards   copy, forwards / backwards   (s of processor; load {os.getloadavg()[0]:.0f})")
    for value_bytes in (200, 2000, 20000):
        rows = total // value_bytes
        with tempfile.TemporaryDirectory() as name:
            prefix = (Path(name) / "snapshot").as_uri()
            config = HashShardedWriteConfig(
                num_dbs=1, s3_prefix=prefix, kv=KeyValueWriteConfig(adapter_factory=SqliteFactory()),
                output=WriterOutputConfig(local_root=f"{name}/local"),
            )  # fmt: skip
            random_bytes = random.Random(1).randbytes
            write_hash_sharded(range(rows), config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda _, n=value_bytes: random_bytes(n)))
            took: dict[tuple[str, bool], list[float]] = {}
            for _ in range(ROUNDS):
                for mode in ("range", "download"):
                    factory = AutoReaderFactory(sqlite_mode=mode)
                    with ShardedReader(s3_prefix=prefix, local_root=f"{name}/{mode}", reader_factory=factory) as reader:
                        for reverse in (False, True):
                            took.setdefault((mode, reverse), []).append(scanned(reader, rows, value_bytes, reverse))
        best = {key: min(seconds) for key, seconds in took.items()}
        print(f"{value_bytes:>7} {rows:>8}  {best['range', False]:>10.2f} / {best['range', True]:.2f} {best['download', False]:>24.2f} / {best['download', True]:.2f}")


if __name__ == "__main__":
    main()
