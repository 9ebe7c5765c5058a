"""Publish a snapshot of integer keys: from Arrow batches, sharded by hash or by a CEL rule, with a column or a JSON object of five as the value
(made by the engine, or by Python), from a Python iterable, and, on fewer rows, by batched writes through the real SlateDB wheel. Each run is a process of its own, so that its peak memory is its own.

    PYTHONPATH=WHEEL:BUILD/python python bench/write_snapshot.py [NAME] [--rows N] [--value-bytes N] [--wheel-rows N]
    PYTHONPATH=BUILD/python python bench/write_snapshot.py [NAME] --only arrow --rows 20000000 --memory-mib 128

Rows are 8 key bytes and random values, in an order that is none. With `--plain BUILD/bench/build_shard` also what any
builder has to do at least: that program copies, sorts and writes the same number of rows of 100 bytes, in C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import sample, tell

BATCH_ROWS = 10_000
KINDS = ("arrow", "cel", "cel-inferred", "json", "json-python", "rows", "wheel")
REGIONS = [f"region-{n}" for n in range(8)]
MULTIPLIER = 2654435761  # odd, so that n * MULTIPLIER mod 2^32 visits every key once: no order to exploit


def key_of(n: int) -> int:
    return n * MULTIPLIER % (1 << 32)


def pool(value_bytes: int) -> bytes:
    """Values are windows of this."""
    return os.urandom(1 << 20) + bytes(value_bytes)


def batches(rows: int, value_bytes: int) -> Iterator[Any]:
    import pyarrow as pa

    offsets = pa.py_buffer(array("i", range(0, (BATCH_ROWS + 1) * value_bytes, value_bytes)))
    values = pa.Array.from_buffers(pa.binary(), BATCH_ROWS, [None, offsets, pa.py_buffer(os.urandom(BATCH_ROWS * value_bytes))])
    regions = pa.array([REGIONS[n * 7919 // 13 % 8] for n in range(BATCH_ROWS)])
    for start in range(0, rows, BATCH_ROWS):
        n = min(BATCH_ROWS, rows - start)
        keys = pa.Array.from_buffers(pa.int64(), n, [None, pa.py_buffer(array("q", map(key_of, range(start, start + n))))])
        yield pa.record_batch([keys, values[:n], regions[:n]], names=["key", "value", "region"])


def wide_batches(rows: int) -> Iterator[Any]:
    """Five columns that become JSON."""
    import pyarrow as pa

    some = random.Random(1)
    columns = {
        "price": pa.array([round(some.uniform(0, 1000), 2) for _ in range(BATCH_ROWS)]),
        "score": pa.array([some.random() for _ in range(BATCH_ROWS)]),
        "name": pa.array([f"article number {some.randrange(10**9)}" for _ in range(BATCH_ROWS)]),
        "stock": pa.array([some.randrange(1000) for _ in range(BATCH_ROWS)], pa.int32()),
        "sold": pa.array([some.random() < 0.5 for _ in range(BATCH_ROWS)]),
    }
    for start in range(0, rows, BATCH_ROWS):
        n = min(BATCH_ROWS, rows - start)
        keys = pa.Array.from_buffers(pa.int64(), n, [None, pa.py_buffer(array("q", map(key_of, range(start, start + n))))])
        yield pa.record_batch({"key": keys, **{name: values[:n] for name, values in columns.items()}})


class Clock:
    """Seconds that passed, and those of all threads of the process that a processor worked."""

    def __init__(self) -> None:
        self._begin, self._cpu = time.perf_counter(), self._used()

    @staticmethod
    def _used() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def stop(self) -> tuple[float, float]:
        return time.perf_counter() - self._begin, self._used() - self._cpu


def configuration(args: argparse.Namespace, folder: Path) -> Any:
    from shardyfusion import CelShardedWriteConfig, HashShardedWriteConfig, WriterOutputConfig

    prefix, output = (folder / "snap").as_uri(), WriterOutputConfig(local_root=str(folder / "local"))
    if args.only not in ("cel", "cel-inferred"):
        return HashShardedWriteConfig(num_dbs=args.shards, s3_prefix=prefix, output=output)
    return CelShardedWriteConfig(
        cel_expr="region",
        cel_columns={"region": "string"},
        routing_values=list(REGIONS) if args.only == "cel" else None,
        infer_routing_values_from_data=args.only == "cel-inferred",
        s3_prefix=prefix,
        output=output,
    )


def options(args: argparse.Namespace) -> Any:
    from shardyfusion import PythonWriteOptions

    return PythonWriteOptions(progress=False, workers=args.workers, memory_bytes=args.memory_mib << 20)


def arrow_input(args: argparse.Namespace) -> Any:
    from shardyfusion.config import ArrowRecordInput
    from shardyfusion.serde import ValueSpec

    if args.only not in ("json", "json-python"):
        return ArrowRecordInput("key", "value")
    spec = ValueSpec.json_cols(["price", "score", "name", "stock", "sold"])
    return ArrowRecordInput("key", value_spec=spec if args.only == "json" else ValueSpec.callable_encoder(spec.encode))


def write_arrow(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    import pyarrow as pa

    from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded

    write = write_cel_sharded if args.only in ("cel", "cel-inferred") else write_hash_sharded
    made = wide_batches(args.rows) if args.only in ("json", "json-python") else batches(args.rows, args.value_bytes)
    first = next(made)
    if args.rows <= 2_000_000:  # then making the batches is not part of the time
        made = iter(list(made))

    def stream() -> Iterator[Any]:
        yield first
        yield from made

    reader = pa.RecordBatchReader.from_batches(first.schema, stream())
    clock = Clock()
    write(reader, configuration(args, folder), arrow_input(args), options(args))
    return clock.stop()


def write_rows(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    from shardyfusion import PythonRecordInput
    from shardyfusion.writer.python import write_hash_sharded

    blob = pool(args.value_bytes)
    records = [(key_of(n), blob[n % (1 << 20) : n % (1 << 20) + args.value_bytes]) for n in range(args.rows)]
    input = PythonRecordInput(key_fn=lambda record: record[0], value_fn=lambda record: record[1])
    clock = Clock()
    write_hash_sharded(records, configuration(args, folder), input, options(args))
    return clock.stop()


def write_wheel(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """As a batch job writes through the engine: one database a shard, batches, a flush, a shutdown."""
    import slatedb.uniffi as slatedb

    from shardyfusion.routing import xxh3_db_id

    blob = pool(args.value_bytes)
    shards: list[list[tuple[bytes, bytes]]] = [[] for _ in range(args.shards)]
    for n in range(args.wheel_rows):
        key, value = key_of(n), blob[n % (1 << 20) : n % (1 << 20) + args.value_bytes]
        shards[xxh3_db_id(key, args.shards)].append((key.to_bytes(8, "big"), value))

    async def write_shard(number: int, pairs: list[tuple[bytes, bytes]]) -> None:
        store = slatedb.ObjectStore.resolve("file:///")
        db = await slatedb.DbBuilder(str(folder / f"shard-{number}").lstrip("/"), store).build()
        for begin in range(0, len(pairs), BATCH_ROWS):
            batch = slatedb.WriteBatch()
            for key, value in pairs[begin : begin + BATCH_ROWS]:
                batch.put(key, value)
            await db.write(batch)
        await db.flush()
        await db.shutdown()

    async def write() -> None:
        await asyncio.gather(*(write_shard(number, pairs) for number, pairs in enumerate(shards)))

    clock = Clock()
    asyncio.run(write())
    return clock.stop()


WRITERS = {"arrow": write_arrow, "cel": write_arrow, "cel-inferred": write_arrow, "json": write_arrow, "json-python": write_arrow, "rows": write_rows, "wheel": write_wheel}


def run_one(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        seconds, cpu = WRITERS[args.only](args, Path(folder).resolve())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    rows = args.wheel_rows if args.only == "wheel" else args.rows
    tell_all(args, args.only, rows, seconds, cpu, stored, peak >> 10)


def tell_all(args: argparse.Namespace, who: str, rows: int, seconds: float, cpu: float, stored: int, peak_mib: float) -> None:
    sample("publish", args.name, who, "rows/s", rows / seconds)
    sample("publish, processor", args.name, who, "us", cpu / rows * 1e6)
    sample("publish, stored", args.name, who, "B", stored / rows)
    sample("publish, memory", args.name, who, "MiB", peak_mib)


def plain_run(args: argparse.Namespace) -> None:
    """What the C program says."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        command = [str(args.plain), "plain", str(args.rows), str(4 << 30), folder]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
    tell_all(args, "plain", int(done["rows"]), done["seconds"], done["cpu_s"], int(done["rows"]) * 100, done["peak_mib"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="100B", help="of the data set")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--value-bytes", type=int, default=92)
    parser.add_argument("--wheel-rows", type=int, default=100_000)
    parser.add_argument("--memory-mib", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: the folder for temporary files")
    parser.add_argument("--plain", type=Path, help="bench/build_shard of a release build")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--only", choices=KINDS, help="one of them, once, in this process")
    args = parser.parse_args()
    if args.only:
        run_one(args)
        return
    for _ in range(args.rounds):  # in turn, so that a noisy minute hits all of them
        if args.plain:
            plain_run(args)
        for kind in args.kinds:
            tell(f"publish, {args.name}, {kind}")
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", kind], check=True, timeout=600)


if __name__ == "__main__":
    main()
