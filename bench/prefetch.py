"""What `prefetch_bytes` is worth to a scan of one shard whose store is far away.

    PYTHONPATH=build/python python bench/prefetch.py [MS]

Publishes 10,000 rows of 4 KiB in one shard on a loopback S3 server, and scans them through a proxy that holds every request back for MS
milliseconds (30). Prints the best of two: megabytes a second, requests, and how many of them were under way at once.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from http_proxy import proxy  # noqa: E402
from s3_server import ACCESS_KEY, REGION, ROOT, SECRET_KEY, s3_server  # noqa: E402

from shardyfusion import HashShardedWriteConfig, PythonRecordInput, ShardedReader  # noqa: E402
from shardyfusion.credentials import StaticCredentialProvider  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

ROWS = 10_000
VALUE = random.Random(7).randbytes(4000)
CREDENTIALS = StaticCredentialProvider(access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)

delay = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.03
with s3_server(ROOT / "tests" / "fixtures") as server, proxy(server.endpoint, delay) as far, tempfile.TemporaryDirectory() as local:

    def place(endpoint: str) -> dict[str, object]:
        return {
            "s3_prefix": "s3://scratch/rows", "credential_provider": CREDENTIALS,
            "s3_connection_options": {"endpoint_url": endpoint, "region_name": REGION},
        }

    records = PythonRecordInput(key_fn=int, value_fn=lambda n: n.to_bytes(4, "big") + VALUE)
    write_hash_sharded(range(ROWS), HashShardedWriteConfig(num_dbs=1, **place(server.endpoint)), records)
    with ShardedReader(local_root=local, **place(far.endpoint)) as reader:
        for mib in (1, 2, 4, 8, 32):
            best = float("inf")
            for _ in range(2):
                far.log.reset()
                began = time.perf_counter()
                assert sum(1 for _ in reader.scan(prefetch_bytes=mib << 20)) == ROWS
                best = min(best, time.perf_counter() - began)
            rate = ROWS * (len(VALUE) + 4) / best / 1e6
            print(f"{mib:3} MiB: {rate:4.0f} MB/s, {len(far.log.requests)} requests, {far.log.max_in_flight} at once")
