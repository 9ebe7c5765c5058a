"""What opening and cold look-ups ask of the store: requests and dependent round trips, counted by a proxy that holds
every request back for `--delay` seconds in front of a real S3 server; of snapshots of our writers, and of ones that the real SlateDB
engine built, where its wheel is at hand.

    PYTHONPATH=<slatedb wheel>:<built package> python bench/round_trips.py [--shards 1 8 32 128]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from http_proxy import Proxy, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import AsyncShardedReader, HashShardedWriteConfig, PythonRecordInput, PythonWriteOptions  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

CREDENTIALS = StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)


def publish(endpoint: str, name: str, shards: int, rows: int) -> None:
    config = HashShardedWriteConfig(num_dbs=shards, s3_prefix=f"s3://bucket/{name}", credential_provider=CREDENTIALS,
                                    s3_connection_options={"endpoint_url": endpoint, "region_name": REGION})
    records = PythonRecordInput[int](key_fn=lambda key: key, value_fn=lambda key: str(key).encode().ljust(100, b"."))
    write_hash_sharded(range(rows), config, records, PythonWriteOptions(progress=False))


async def measure(p: Proxy, name: str, what: str, shards: int, rows: int, lazy: bool) -> None:
    with tempfile.TemporaryDirectory() as local_root:
        p.log.reset()
        start = time.perf_counter()
        reader = await AsyncShardedReader.open(
            s3_prefix=f"s3://bucket/{name}", local_root=local_root, lazy_open=lazy, credential_provider=CREDENTIALS,
            s3_connection_options={"endpoint_url": p.endpoint, "region_name": REGION})
        took = time.perf_counter() - start
        print(f"  {shards:4d} shards {what:17s} open {p.log.waves} round trips deep, {len(p.log.requests)} requests, at most "
              f"{p.log.max_in_flight} at once, {p.log.connections} connections, {took * 1000:.0f} ms", end="")
        p.log.reset()
        assert await reader.get(rows // 2) is not None
        print(f"; a cold get: {len(p.log.requests)} requests, {p.log.waves} deep", end="")
        p.log.reset()
        assert await reader.get(rows * 1000) is None
        print(f"; a key outside of the range: {len(p.log.requests)}", end="")
        p.log.reset()
        assert not await reader.refresh()
        print(f"; a refresh: {len(p.log.requests)}")
        await reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rows-per-shard", type=int, default=2000)
    parser.add_argument("--delay", type=float, default=0.05)
    args = parser.parse_args()
    with s3_server() as server:
        bucket = server.folder / "bucket"
        bucket.mkdir(exist_ok=True)
        with_peer = importlib.util.find_spec("slatedb") is not None
        for shards in args.shards:
            publish(server.endpoint, f"ours{shards}", shards, args.rows_per_shard * shards)
            if with_peer:
                subprocess.run([sys.executable, str(HERE / "make_snapshot.py"), str(bucket / f"peer{shards}"), "--rows",
                                str(args.rows_per_shard * shards), "--shards", str(shards)], check=True)
        with proxy(server.endpoint, args.delay) as p:
            print(f"every request is held back {args.delay * 1000:.0f} ms")
            for shards in args.shards:
                rows = args.rows_per_shard * shards
                asyncio.run(measure(p, f"ours{shards}", "", shards, rows, False))
                asyncio.run(measure(p, f"ours{shards}", "lazy", shards, rows, True))
                if with_peer:
                    asyncio.run(measure(p, f"peer{shards}", "of SlateDB's", shards, rows, False))


main()
