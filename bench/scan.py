"""How the number of shards shows in a scan over all of them, in key order, row by row and as Arrow data.

    PYTHONPATH=build/python python bench/scan.py FOLDER

Publishes the same 400,000 rows of 100 bytes below FOLDER in 1, 16 and 1,024 shards, unless they are there, and scans each
three times with the blocking reader. Prints nanoseconds a row, by the clock and of the processor. Arrow data needs pyarrow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import sample

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader
from shardyfusion.writer.python import write_hash_sharded

ROWS = 400_000

FORMS: dict[str, Callable[[ShardedReader], int]] = {
    "rows": lambda reader: sum(1 for _ in reader.scan()),
    "Arrow": lambda reader: sum(batch.num_rows for batch in reader.scan().arrow_batches()),
    "Arrow, keys decoded": lambda reader: len(reader.scan(decode_keys=True).to_arrow()),
}

folder = Path(sys.argv[1]).resolve()
for shards in (1, 16, 1024):
    prefix = (folder / f"shards-{shards}").as_uri()
    if not (folder / f"shards-{shards}" / "_CURRENT").exists():
        records = PythonRecordInput(key_fn=lambda row: row, value_fn=lambda row: b"v" * 100)
        write_hash_sharded(range(ROWS), HashShardedWriteConfig(num_dbs=shards, s3_prefix=prefix), records)
    with ShardedReader(s3_prefix=prefix, local_root=str(folder / "local")) as reader:
        for form, scan in FORMS.items():
            for _ in range(3):
                wall, cpu = time.perf_counter(), time.process_time()
                assert scan(reader) == ROWS
                sample("scan by shards", f"{shards} shards", form, "ns", (time.perf_counter() - wall) / ROWS * 1e9)
                sample("scan by shards, processor", f"{shards} shards", form, "ns", (time.process_time() - cpu) / ROWS * 1e9)
