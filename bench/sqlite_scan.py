#!/usr/bin/env python3
"""Scans of SQLite shards whose rows do not fit into their pages, by ranges of the object and from a copy, in both directions:

    PYTHONPATH=BUILD/python python bench/sqlite_scan.py [--mb 20] [--rounds 3]

One shard below a temporary folder. Processor time of the whole process, in turn. One line of JSON a sample."""

import argparse
import random
import tempfile
import time
from pathlib import Path

from common import sample
from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader, WriterOutputConfig
from shardyfusion.config import KeyValueWriteConfig
from shardyfusion.reader import AutoReaderFactory
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.writer.python import write_hash_sharded

MODES = {"range": "ranges", "download": "copy"}


def scanned(reader: ShardedReader, rows: int, value_bytes: int, reverse: bool) -> float:
    start, found, size = time.process_time_ns(), 0, 0
    for batch in reader.scan(reverse=reverse).batches(1000):
        found += len(batch)
        size += sum(len(value) for _, value in batch)
    assert (found, size) == (rows, rows * value_bytes)
    return (time.process_time_ns() - start) / rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for value_bytes in (2000, 20000):
        rows = args.mb * 1_000_000 // value_bytes
        with tempfile.TemporaryDirectory() as name:
            prefix = (Path(name) / "snapshot").as_uri()
            config = HashShardedWriteConfig(
                num_dbs=1, s3_prefix=prefix, kv=KeyValueWriteConfig(adapter_factory=SqliteFactory()),
                output=WriterOutputConfig(local_root=f"{name}/local"),
            )  # fmt: skip
            random_bytes = random.Random(1).randbytes
            write_hash_sharded(range(rows), config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda _, n=value_bytes: random_bytes(n)))
            for _ in range(args.rounds):
                for mode, label in MODES.items():
                    factory = AutoReaderFactory(sqlite_mode=mode)
                    with ShardedReader(s3_prefix=prefix, local_root=f"{name}/{mode}", reader_factory=factory) as reader:
                        for reverse, direction in ((False, "forwards"), (True, "backwards")):
                            took = scanned(reader, rows, value_bytes, reverse)
                            sample("SQLite scan", f"{value_bytes}B, beside the pages", f"{label}, {direction}", "ns", took)


if __name__ == "__main__":
    main()
