"""Publish a snapshot of integer keys: from Arrow batches, sharded by hash or by a CEL rule, from a Python iterable, and, on fewer
rows, by batched writes through the real SlateDB wheel. Each run is a process of its own, so that its peak memory is its own.

    PYTHONPATH=<slatedb wheel>:<built package> python bench/write_snapshot.py [--rows N] [--shards N] [--wheel-rows N]
    PYTHONPATH=<built package> python bench/write_snapshot.py --only arrow --rows 20000000 --memory-mib 128

Rows are 8 key bytes and random values, in an order that is none. With `--plain BUILD/bench/build_shard` also what any
builder has to do at least: that program copies, sorts and writes the same number of bytes, in C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH_ROWS = 10_000
KINDS = ("arrow", "cel", "cel-inferred", "rows", "wheel")
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


def write_arrow(args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    import pyarrow as pa

    from shardyfusion.config import ArrowRecordInput
    from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded

    write = write_hash_sharded if args.only == "arrow" else write_cel_sharded
    made = batches(args.rows, args.value_bytes)
    first = next(made)
    if args.rows <= 2_000_000:  # then making the batches is not part of the time
        made = iter(list(made))

    def stream() -> Iterator[Any]:
        yield first
        yield from made

    reader = pa.RecordBatchReader.from_batches(first.schema, stream())
    clock = Clock()
    write(reader, configuration(args, folder), ArrowRecordInput("key", "value"), options(args))
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


WRITERS = {"arrow": write_arrow, "cel": write_arrow, "cel-inferred": write_arrow, "rows": write_rows, "wheel": write_wheel}


def run_one(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        seconds, cpu = WRITERS[args.only](args, Path(folder).resolve())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    rows = args.wheel_rows if args.only == "wheel" else args.rows
    result = {
        "kind": args.only,
        "rows": rows,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds),
        "cpu_us_per_row": round(cpu / rows * 1e6, 3),
        "stored_bytes_per_row": round(stored / rows, 1),
        "peak_mib": peak >> 10,
    }
    print(json.dumps(result))


def plain_run(args: argparse.Namespace) -> dict[str, float]:
    """What the C program says."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        command = [str(args.plain), "plain", str(args.rows), str(4 << 30), folder]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--value-bytes", type=int, default=92)
    parser.add_argument("--wheel-rows", type=int, default=100_000)
    parser.add_argument("--memory-mib", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default: the folder for temporary files")
    parser.add_argument("--plain", type=Path, help="bench/build_shard of a release build")
    parser.add_argument("--only", choices=KINDS)
    args = parser.parse_args()
    if args.only:
        run_one(args)
        return
    best: dict[str, dict[str, Any]] = {}
    plain: list[dict[str, float]] = []
    for _ in range(args.rounds):  # in turn, so that a noisy minute hits all of them
        if args.plain:
            plain.append(plain_run(args))
        for kind in KINDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", kind]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            result = json.loads(done.stdout)
            if kind not in best or result["seconds"] < best[kind]["seconds"]:
                best[kind] = result
    print(f"best of {args.rounds}, {args.shards} shards, rows of {8 + args.value_bytes} B, {args.workers} threads")
    if plain:
        rate, cpu = max(run["rows_per_s"] for run in plain), min(run["cpu_s"] for run in plain)
        print(f"plain  {args.rows:>10,} rows {rate:>10,.0f} rows/s           {cpu / args.rows * 1e6:7.2f} us CPU/row")
    for kind, result in best.items():
        ratio = result["rows_per_second"] / best["wheel"]["rows_per_second"]
        print(f"{kind:6} {result['rows']:>10,} rows {result['rows_per_second']:>10,} rows/s {ratio:6.1f} x "
              f"{result['cpu_us_per_row']:8.2f} us CPU/row  {result['stored_bytes_per_row']:6.1f} B/row  "
              f"peak {result['peak_mib']} MiB")


if __name__ == "__main__":
    main()
