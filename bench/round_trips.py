"""What opening and cold look-ups ask of the store: requests and dependent round trips, counted by a proxy that holds
every request back for `--delay` seconds in front of a real S3 server.

    PYTHONPATH=<slatedb wheel>:<built package> python bench/round_trips.py [--shards 1 8 32 128]
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from http_proxy import Proxy, proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import AsyncShardedReader  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402


async def measure(p: Proxy, name: str, shards: int, rows: int) -> None:
    with tempfile.TemporaryDirectory() as local_root:
        p.log.reset()
        start = time.perf_counter()
        reader = await AsyncShardedReader.open(
            s3_prefix=f"s3://bucket/{name}", local_root=local_root,
            credential_provider=StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY),
            s3_connection_options={"endpoint_url": p.endpoint, "region_name": REGION})
        took = time.perf_counter() - start
        print(f"  {shards:4d} shards: open {p.log.waves} round trips deep, {len(p.log.requests)} requests, at most "
              f"{p.log.max_in_flight} at once, {p.log.connections} connections, {took * 1000:.0f} ms")
        p.log.reset()
        value = await reader.get(rows // 2)
        assert value is not None
        cold = len(p.log.requests)
        p.log.reset()
        assert await reader.get(rows * 1000) is None
        print(f"       a cold get: {cold} request(s); a key outside the range: {len(p.log.requests)}")
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
        for shards in args.shards:
            subprocess.run([sys.executable, str(HERE / "make_snapshot.py"), str(bucket / f"s{shards}"), "--rows",
                            str(args.rows_per_shard * shards), "--shards", str(shards)], check=True)
        with proxy(server.endpoint, args.delay) as p:
            print(f"every request is held back {args.delay * 1000:.0f} ms")
            for shards in args.shards:
                asyncio.run(measure(p, f"s{shards}", shards, args.rows_per_shard * shards))


main()
