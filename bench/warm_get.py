"""Warm look-ups: `await reader.get(key)` of this package against the real SlateDB wheel's `await reader.get(key)` on one
of the same shards, in turn, in one process.

    PYTHONPATH=<slatedb wheel>:<built package> python bench/warm_get.py FOLDER [--hot N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import slatedb.uniffi as slatedb

from shardyfusion import AsyncShardedReader, ManifestRef, TokenBucket
from shardyfusion.manifest_store import parse_manifest_payload
from shardyfusion.metrics import NativeMetrics

BATCH = 50


class Collector:
    """The least that one can do."""

    events = 0

    def emit(self, event, payload) -> None:
        self.events += 1


class Limiter:
    """One of the caller's own."""

    def acquire(self, tokens: int = 1) -> None: ...

    async def acquire_async(self, tokens: int = 1) -> None: ...


class Store:
    """A manifest store of the caller's own, which knows where the copy of the snapshot lies."""

    def __init__(self, folder: Path) -> None:
        published = parse_manifest_payload(next((folder / "manifests").glob("*/manifest")).read_bytes())
        there, here = published.required_build.s3_prefix, folder.as_uri()
        shards = [s.model_copy(update={"db_url": s.db_url and s.db_url.replace(there, here)}) for s in published.shards]
        self._manifest = published.model_copy(update={"shards": shards})
        self._ref = ManifestRef("the only one", published.required_build.run_id, published.required_build.created_at)

    async def load_current(self):
        return self._ref

    async def load_manifest(self, ref: str):
        return self._manifest

    async def list_manifests(self, *, limit: int = 10):
        return [self._ref][:limit]


async def time_each(get, keys: list, clock=time.perf_counter_ns) -> float:
    """Microseconds per look-up."""
    start = clock()
    for key in keys:
        await get(key)
    return (clock() - start) / len(keys) / 1000


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hot", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as local_root:
        reader = await AsyncShardedReader.open(s3_prefix=args.folder.resolve().as_uri(), local_root=local_root)
        rows = reader.snapshot_info().row_count
        hot = random.Random(1).sample(range(rows), args.hot)
        for key in hot:
            value = await reader.get(key)
            if value is None or value.rstrip(b".") != str(key).encode():
                raise SystemExit(f"wrong value for key {key}: {value!r}")
        shard = reader.shard_details()[0]
        stored = [reader.encode_key(k) for k in hot if reader.route_key(k) == shard.db_id]
        path = next((args.folder / "shards").glob(f"run_id=*/db={shard.db_id:05d}/attempt=00")).resolve()
        reference = await slatedb.DbReaderBuilder(str(path).lstrip("/"), slatedb.ObjectStore.resolve("file:///")).build()
        await time_each(reference.get, stored)
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(await time_each(reader.get, hot))
            theirs.append(await time_each(reference.get, stored))
        await reference.shutdown()
        ways = {"plain": reader}
        for name, options in (
            ("collector", {"metrics_collector": Collector()}),
            ("NativeMetrics", {"metrics_collector": NativeMetrics()}),
            ("TokenBucket", {"rate_limiter": TokenBucket(1e12)}),
            ("both", {"metrics_collector": Collector(), "rate_limiter": TokenBucket(1e12)}),
            ("own limiter", {"rate_limiter": Limiter()}),
            ("own store", {"manifest_store": Store(args.folder.resolve())}),
        ):
            ways[name] = await AsyncShardedReader.open(
                s3_prefix=args.folder.resolve().as_uri(), local_root=local_root, **options
            )
        batches = [hot[i : i + BATCH] for i in range(0, len(hot), BATCH)]
        times = {name: ([], []) for name in ways}
        for _ in range(args.rounds):  # in turn, and by the thread's own processor time: ratios are to survive other load
            for name, r in ways.items():
                times[name][0].append(await time_each(r.get, hot, time.thread_time_ns))
                times[name][1].append(await time_each(r.multi_get, batches, time.thread_time_ns))
        for r in ways.values():
            await r.close()
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(t / o for o, t in zip(ours, theirs))
    print(f"rows {rows}, hot {len(hot)} keys (reference: {len(stored)} on one shard), {args.rounds} rounds, "
          f"Python {sys.version.split()[0]}")
    print(f"  shardyfusion  {a:9.3f} µs a get (min {min(ours):.3f}, max {max(ours):.3f})")
    print(f"  slatedb wheel {b:9.3f} µs a get (min {min(theirs):.3f}, max {max(theirs):.3f})")
    print(f"  ratio         {ratio:9.1f}")
    plain = times["plain"]
    for name, (get, multi_get) in times.items():
        print(f"  {name:13} {statistics.median(get):9.3f} µs a get (fastest {min(get):.3f}, {min(get) / min(plain[0]):.2f} times "
              f"plain), {statistics.median(multi_get):9.1f} µs a batch of {BATCH} (fastest {min(multi_get):.1f})")


asyncio.run(main())
