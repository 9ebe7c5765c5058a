"""Building one shard: rows a second of the native builder, of the least that any builder does (copy, sort, write the same
bytes), and of batched writes through the real SlateDB wheel; and memory when the rows are many times larger than it.

    PYTHONPATH=<slatedb wheel> python bench/build_shard.py BUILD/bench/build_shard [--rounds N] [--large ROWS]
Prints a table; each figure is the median of the rounds, which take the programs in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROWS = 1_000_000
WHEEL_ROWS = 100_000  # the wheel's rate does not depend on it
MEMORY = 128 << 20


def run(program: Path, mode: str, rows: int, memory: int, *more: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([str(program), mode, str(rows), str(memory), folder, *more], capture_output=True, check=True)
    return json.loads(done.stdout)


async def wheel() -> float:
    """Rows a second: batches of 1,000, no wait for each to be durable, flush at the end."""
    import slatedb.uniffi as slatedb

    rng = random.Random(1)
    rows = [(rng.randbytes(8), rng.randbytes(92)) for _ in range(WHEEL_ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        db = await slatedb.DbBuilder(f"{folder}/db".lstrip("/"), slatedb.ObjectStore.resolve("file:///")).build()
        start = time.perf_counter()
        for i in range(0, WHEEL_ROWS, 1000):
            batch = slatedb.WriteBatch()
            for key, value in rows[i : i + 1000]:
                batch.put(key, value)
            await db.write(batch)
        await db.flush()
        await db.shutdown()
        return WHEEL_ROWS / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=20_000_000)
    args = parser.parse_args()
    kinds = {
        "plain sort and write": ("plain", ROWS, 1 << 30),
        "sort only": ("sort", ROWS, 1 << 30),
        "shard": ("shard", ROWS, 1 << 30),
        "shard, zstd": ("shard", ROWS, 1 << 30, "zstd"),
        "shard, 32 MiB of memory": ("shard", ROWS, 32 << 20),
    }
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for _ in range(args.rounds):
        for name, arguments in kinds.items():
            seen[name].append(run(args.program, *arguments))
    print(f"{ROWS:,} rows x 100 B | rows/s | CPU s | peak MiB | stored MB")
    for name, results in seen.items():
        print(f"{name} | {statistics.median(r['rows_per_s'] for r in results):,.0f} | "
              f"{statistics.median(r['cpu_s'] for r in results):.2f} | {max(r['peak_mib'] for r in results):.0f} | "
              f"{results[0]['stored_bytes'] / 1e6:.1f}")
    print(f"slatedb wheel, batches of 1,000 | {statistics.median(asyncio.run(wheel()) for _ in range(3)):,.0f}")
    if args.large:
        large = run(args.program, "shard", args.large, MEMORY)
        print(f"{args.large:,} rows, 128 MiB of memory | {large['rows_per_s']:,.0f} | {large['cpu_s']:.2f} | "
              f"{large['peak_mib']:.0f} | {large['stored_bytes'] / 1e6:.1f}")


main()
