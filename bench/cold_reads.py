"""What look-ups ask of S3 when nothing is in memory: requests of a batch of uniform keys, with and without reading over gaps; of the
next process over a warm folder; of refreshes. A proxy counts; a request is held back for `--delay` seconds.

    PYTHONPATH=BUILD/python .venv/bin/python bench/cold_reads.py [--rows 1000000] [--keys 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from http_proxy import Proxy, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    CacheOptions,
    HashShardedWriteConfig,
    PythonRecordInput,
    WriterOutputConfig,
)
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402


def opening(p: Proxy, root: str, cache: CacheOptions) -> object:
    return AsyncShardedReader.open(
        s3_prefix="s3://bucket/cold", local_root=root, cache=cache,
        credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
        s3_connection_options={"endpoint_url": p.endpoint, "region_name": REGION})


async def batch(p: Proxy, what: str, keys: list[int], root: str, cache: CacheOptions) -> None:
    p.log.reset()
    async with await opening(p, root, cache) as reader:
        opened = len(p.log.requests)
        ssts = sum(".sst" in r.target for r in p.log.requests)
        p.log.reset()
        start = time.perf_counter()
        values = await reader.multi_get(keys)
        took = time.perf_counter() - start
        assert all(v is not None for v in values.values()) and len(values) == len(set(keys))
        print(f"  {what}: open {opened} requests ({ssts} of SSTs); the batch {len(p.log.requests)} in {p.log.waves} waves, "
              f"{took * 1000:.0f} ms")
        p.log.reset()
        await reader.refresh()
        print(f"       a refresh that finds nothing: {len(p.log.requests)} request(s)")
        if cache.disk_bytes:
            await asyncio.sleep(2)  # it is written behind


async def measure(p: Proxy, rows: int, count: int) -> None:
    keys = random.Random(7).sample(range(rows), count)
    with tempfile.TemporaryDirectory() as root:
        await batch(p, "neighbours only", keys, root, CacheOptions(read_gap_bytes=0))
    with tempfile.TemporaryDirectory() as root:
        await batch(p, "over gaps of 32 KiB", keys, root, CacheOptions())
    with tempfile.TemporaryDirectory() as root:
        cache = CacheOptions(disk_bytes=1 << 30)
        await batch(p, "the same, kept on disk", keys, root, cache)
        await batch(p, "again, from disk", keys, root, cache)


def publish(folder: Path, rows: int, shards: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        write_hash_sharded(
            range(rows),
            HashShardedWriteConfig(num_dbs=shards, s3_prefix=str(folder), output=WriterOutputConfig(local_root=root)),
            PythonRecordInput(key_fn=int, value_fn=lambda key: str(key).encode().ljust(100, b".")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--delay", type=float, default=0.0)
    args = parser.parse_args()
    with s3_server() as server:
        bucket = server.folder / "bucket"
        bucket.mkdir(exist_ok=True)
        publish(bucket / "cold", args.rows, args.shards)
        with proxy(server.endpoint, args.delay) as p:
            asyncio.run(measure(p, args.rows, args.keys))


main()
