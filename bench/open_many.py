"""What an opened shard costs in memory: processes that open few and many, from local files, with nothing looked up.

    PYTHONPATH=BUILD/python python bench/open_many.py [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import sample, tell

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader, WriterOutputConfig
from shardyfusion.writer.python import write_hash_sharded

FEW, MANY, ROWS = 16, 256, 4000  # rows a shard: a smaller one is read whole when it is opened


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_one(prefix: str) -> None:
    """Prints bytes and milliseconds."""
    gc.collect()
    before, start = resident(), time.perf_counter()
    with tempfile.TemporaryDirectory() as root, ShardedReader(s3_prefix=prefix, local_root=root):
        took = (time.perf_counter() - start) * 1e3
        gc.collect()
        print(resident() - before, took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--open", metavar="PREFIX", help="what each process does")
    args = parser.parse_args()
    if args.open:
        open_one(args.open)
        return
    with tempfile.TemporaryDirectory() as name:
        for shards in (FEW, MANY):
            config = HashShardedWriteConfig(
                num_dbs=shards, s3_prefix=(Path(name) / str(shards)).resolve().as_uri(), output=WriterOutputConfig(local_root=f"{name}/work"))
            records = PythonRecordInput(key_fn=lambda row: row, value_fn=lambda row: b"v" * 100)
            tell(f"publishing {shards} shards")
            write_hash_sharded(range(shards * ROWS), config, records)
        for _ in range(args.rounds):
            taken = {}
            for shards in (FEW, MANY):
                command = [sys.executable, __file__, "--open", (Path(name) / str(shards)).resolve().as_uri()]
                done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()
                taken[shards] = int(done[0])
                sample("open from files", f"{shards} shards", "ours", "ms", float(done[1]))
            sample("memory of a shard", f"of {MANY}", "ours", "KiB", (taken[MANY] - taken[FEW]) / (MANY - FEW) / 1024)


main()
